//! What is unsent and why: the reasons of parked changes, and what waits behind them.

use std::collections::BTreeMap;

use super::confirm::is_unconfirmed;
use super::{Inner, Waiting};
use crate::model::{NodeId, Timestamp, names};
use crate::store::{Node, StoreError, canonical};

/// At most so many unsent changes are named.
const NAMED: usize = 200;

/// Which parked change another one waits for.
struct Causes {
    parked: BTreeMap<NodeId, String>,
    /// Names that a parked change does not leave on the service: folder and folded name.
    held: BTreeMap<(NodeId, String), NodeId>,
    /// Folders on the service that keep something whose delete is parked.
    kept: BTreeMap<NodeId, NodeId>,
    /// The parked folder at or above each folder that was looked at.
    above: BTreeMap<NodeId, Option<NodeId>>,
}

impl Inner {
    /// The first of these unsent changes, parked ones before others.
    pub(super) fn first_waiting(&self, mut dirty: Vec<Node>) -> Result<Vec<Waiting>, StoreError> {
        dirty.sort_by_key(|node| node.local.as_ref().is_none_or(|local| local.parked.is_none()));
        let mut causes = self.causes(&dirty)?;
        let waits = |node: &Node| node.local.as_ref().is_some_and(is_unconfirmed);
        let unconfirmed = dirty.iter().filter(|node| waits(node)).count();
        // They are one thing to decide on, however many.
        let mut first = true;
        dirty.retain(|node| !waits(node) || std::mem::take(&mut first));
        let tell = |node: &Node| {
            let mut waiting = self.waiting(node, &mut causes)?;
            if waits(node) {
                waiting.detail = format!("{unconfirmed} deletes: {}", waiting.detail);
            }
            Ok(waiting)
        };
        dirty.iter().take(NAMED).map(tell).collect()
    }

    /// How many of these unsent changes are parked, or wait for one that is.
    pub(super) fn count_stuck(&self, mut dirty: Vec<Node>) -> Result<u64, StoreError> {
        dirty.sort_by_key(|node| node.local.as_ref().is_none_or(|local| local.parked.is_none()));
        let mut causes = self.causes(&dirty)?;
        let mut stuck = 0;
        for node in &dirty {
            let waits = causes.parked.contains_key(&node.id) || self.behind(node, &mut causes)?.is_some();
            stuck += u64::from(waits);
        }
        Ok(stuck)
    }

    fn causes(&self, dirty: &[Node]) -> Result<Causes, StoreError> {
        let mut causes = Causes {
            parked: BTreeMap::new(),
            held: BTreeMap::new(),
            kept: BTreeMap::new(),
            above: BTreeMap::new(),
        };
        for node in dirty {
            let Some(local) = node.local.as_ref().filter(|local| local.parked.is_some()) else { break };
            causes.parked.insert(node.id, self.shown(node.id)?);
            let Some(remote) = &node.remote else { continue };
            let Some(parent) = remote.parent else { continue };
            let leaves = local.deleted || parent != local.parent || local.name != canonical(&remote.name);
            if leaves {
                causes.held.insert((parent, names::fold(&canonical(&remote.name))), node.id);
            }
            let mut at = local.deleted.then_some(parent);
            while let Some(id) = at.filter(|id| !causes.kept.contains_key(id)) {
                causes.kept.insert(id, node.id);
                let above = self.store.node(id)?;
                at = above.and_then(|node| node.remote.as_ref().and_then(|view| view.parent));
            }
        }
        Ok(causes)
    }

    fn waiting(&self, node: &Node, causes: &mut Causes) -> Result<Waiting, StoreError> {
        let local = node.local.as_ref();
        let parked = local.and_then(|local| local.parked.clone());
        let behind = if parked.is_some() { None } else { self.behind(node, causes)? };
        let detail = match (&parked, &behind) {
            (Some(parked), _) => parked.detail.clone(),
            (None, Some(path)) => format!("waits for '{path}'"),
            (None, None) if self.open.has_writer(node.id) => "still open for writing".into(),
            (None, None) => "waiting to be sent".into(),
        };
        let retry_at = local.map(|local| local.retry_at).filter(|at| parked.is_some() && at.0 < i64::MAX);
        Ok(Waiting {
            path: self.shown(node.id)?,
            reason: parked.map(|parked| parked.kind),
            detail,
            retry_at: retry_at.filter(|at| *at > Timestamp(0)),
            behind,
        })
    }

    /// The path of the parked change that this one waits for.
    fn behind(&self, node: &Node, causes: &mut Causes) -> Result<Option<String>, StoreError> {
        let Some(local) = node.local.as_ref().filter(|_| !causes.parked.is_empty()) else { return Ok(None) };
        let by = if local.deleted {
            causes.kept.get(&node.id).copied()
        } else {
            let holder = causes.held.get(&(local.parent, names::fold(&local.name))).copied();
            holder.map_or_else(|| self.parked_above(local.parent, causes), |by| Ok(Some(by)))?
        };
        Ok(by.filter(|&by| by != node.id).and_then(|by| causes.parked.get(&by).cloned()))
    }

    /// The parked folder at or above `folder` without which nothing can be sent into it: one that is not on the
    /// service.
    fn parked_above(&self, folder: NodeId, causes: &mut Causes) -> Result<Option<NodeId>, StoreError> {
        let mut passed = Vec::new();
        let mut at = Some(folder);
        let mut found = None;
        while let Some(id) = at.filter(|id| *id != NodeId::ROOT && !passed.contains(id)) {
            if let Some(known) = causes.above.get(&id) {
                found = *known;
                break;
            }
            passed.push(id);
            let Some(node) = self.store.node(id)? else { break };
            if node.remote.is_some() {
                break;
            }
            if causes.parked.contains_key(&id) {
                found = Some(id);
                break;
            }
            at = node.known_place().map(|(parent, _)| parent);
        }
        causes.above.extend(passed.into_iter().map(|id| (id, found)));
        Ok(found)
    }

    fn shown(&self, id: NodeId) -> Result<String, StoreError> {
        Ok(self.store.shown_path(id)?.to_string_lossy().into_owned())
    }
}
