//! One item under another id: the node that knew it under the old one keeps everything and takes the new one
//! (graph-api 3.7, design 3 "Observing").

use std::collections::BTreeMap;

use super::apply::{Applier, content_key, is_rewritten};
use super::op::Send;
use super::{circle, identity};
use crate::content::ContentKey;
use crate::model::{ItemId, NodeId, Timestamp, names};
use crate::store::{Attempt, Node, NodeKind, RemoteView, StoreError, Tx, canonical};

/// Nodes with unsent changes by the place that the service has them at; whatever their visible one.
type Places = BTreeMap<(NodeId, String), Vec<NodeId>>;

/// Finds the nodes that items seen in one transaction had under other ids.
#[derive(Default)]
pub(super) struct Reunion {
    dirty: Option<Places>,
}

impl Reunion {
    /// An enumeration has shown the item of `id`: where a node that it has not shown (mark other than
    /// `generation`) is known at the same place and fits, that node takes the item, and `id` goes.
    pub fn reunite(
        &mut self,
        tx: &mut Tx<'_>,
        applier: &mut Applier<'_>,
        id: NodeId,
        (generation, now): (u64, Timestamp),
    ) -> Result<(), StoreError> {
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            let Some(node) = tx.find(id)? else { continue };
            let Some(view) = seen(&node, applier) else { continue };
            for former in self.others_at(tx, &node, &view)? {
                if tx.mark(former)? != generation && is_same(tx, former, node.kind, &view)? {
                    stack.extend(rekey(tx, applier, former, &view, now)?.unwrap_or_default());
                    self.dirty = None;
                    break;
                }
            }
        }
        Ok(())
    }

    /// The item of `former` is gone: where another one that fits stands in its place by now, the node takes that,
    /// and what is inside is looked at where it is not found again. False if there is none.
    pub fn replace(
        &mut self,
        tx: &mut Tx<'_>,
        applier: &mut Applier<'_>,
        former: NodeId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let Some(Node { remote: Some(old), kind, .. }) = tx.find(former)? else { return Ok(false) };
        let place = tx.node(former)?;
        for id in self.others_at(tx, &place, &old)? {
            let twin = tx.node(id)?;
            let Some(view) = seen(&twin, applier) else { continue };
            if !is_same(tx, former, twin.kind, &view)? {
                continue;
            }
            if kind.is_directory() {
                let inside = tx.children(former)?.into_iter().map(|child| tx.node(child));
                let inside: Vec<Node> = inside.collect::<Result<_, _>>()?;
                applier
                    .effects
                    .doubted
                    .extend(inside.into_iter().filter_map(|child| Some(child.remote?.item)));
            }
            rekey(tx, applier, former, &view, now)?;
            self.dirty = None;
            return Ok(true);
        }
        Ok(false)
    }

    /// Other nodes whose items the service has, or had, at the place of `view`.
    fn others_at(&mut self, tx: &Tx<'_>, node: &Node, view: &RemoteView) -> Result<Vec<NodeId>, StoreError> {
        let Some(parent) = view.parent else { return Ok(Vec::new()) };
        let name = canonical(&view.name);
        let mut found: Vec<NodeId> = tx
            .holders(parent, &name)?
            .into_iter()
            .filter(|other| other.remote.as_ref().is_some_and(|theirs| at_same_place(theirs, view)))
            .map(|other| other.id)
            .collect();
        if self.dirty.is_none() {
            self.dirty = Some(places(tx)?);
        }
        let dirty = self.dirty.as_ref().and_then(|dirty| dirty.get(&(parent, names::fold(&name))));
        found.extend(dirty.into_iter().flatten());
        found.retain(|&other| other != node.id);
        Ok(found)
    }
}

/// The view of a node that may give its item away: nothing here has changed it, and no program has it open.
fn seen(node: &Node, applier: &Applier<'_>) -> Option<RemoteView> {
    let free = node.local.is_none() && !applier.open.is_open(node.id) && node.kind != NodeKind::Stub;
    node.remote.clone().filter(|_| free)
}

fn at_same_place(one: &RemoteView, other: &RemoteView) -> bool {
    one.parent == other.parent && names::fold(&canonical(&one.name)) == names::fold(&canonical(&other.name))
}

fn places(tx: &Tx<'_>) -> Result<Places, StoreError> {
    let mut places = Places::new();
    for node in tx.dirty()? {
        if let Some(RemoteView { parent: Some(parent), name, .. }) = &node.remote {
            places.entry((*parent, names::fold(&canonical(name)))).or_default().push(node.id);
        }
    }
    Ok(places)
}

/// Whether what is described by `view` is the item of `id`, or what was last sent for it.
pub(super) fn is_same(
    tx: &Tx<'_>,
    id: NodeId,
    kind: NodeKind,
    view: &RemoteView,
) -> Result<bool, StoreError> {
    let Some(Node { kind: known, remote: Some(old), local, .. }) = tx.find(id)? else { return Ok(false) };
    if local.as_ref().is_some_and(|local| local.deleted) {
        return Ok(identity::fits_to_delete(known, &old, kind, view));
    }
    if identity::fits(known, &old, kind, view) {
        return Ok(true);
    }
    let sent = if local.is_some() { tx.attempt(id)? } else { None };
    Ok(kind == NodeKind::File
        && sent.and_then(|sent| of_json(&sent)).is_some_and(|send| has_sent(&send, view)))
}

fn has_sent(send: &Send, view: &RemoteView) -> bool {
    match send {
        Send::Replace { size, quick_xor, .. } => {
            view.version.size == Some(*size) && view.version.hashes.quick_xor == Some(*quick_xor)
        }
        _ => false,
    }
}

/// The node takes the item that `view` describes for the one it had: views, base, attempts and cached content
/// follow. A row under which that item was seen meanwhile goes; the children that it had are returned. None where that
/// row keeps the item, which something here changed or has open, or in which the node lies: what was known under the old id
/// is not it, then.
pub(super) fn rekey(
    tx: &mut Tx<'_>,
    applier: &mut Applier<'_>,
    id: NodeId,
    view: &RemoteView,
    now: Timestamp,
) -> Result<Option<Vec<NodeId>>, StoreError> {
    let node = tx.node(id)?;
    let Some(old) = &node.remote else { return Ok(None) };
    let mut moved = Vec::new();
    if let Some(twin) = tx.by_item(&view.item)?.filter(|twin| twin.id != id) {
        let gives_way = seen(&twin, applier).is_some() || twin.kind == NodeKind::Stub;
        if !gives_way || circle::lies_in(tx, id, twin.id)? {
            return Ok(None);
        }
        moved = tx.adopt_children(twin.id, id)?;
        tx.remove(twin.id)?;
    }
    tracing::info!(node = %id, from = %old.item, to = %view.item, "an item has another id now");
    if old.item != view.item {
        // What was sent before may still be answered as if it were there.
        let seq = tx.next_sequence();
        tx.put_tombstone(&old.item, seq, now, None)?;
    }
    let still_ours = identity::fits(node.kind, old, node.kind, view);
    if still_ours && node.kind == NodeKind::File {
        applier.effects.renamed.push((key(applier, old), key(applier, view)));
    }
    tx.set_remote(id, Some(view))?;
    tx.rename_conflicts(&old.item, &view.item)?;
    tx.rename_pins(&old.item, &view.item)?;
    if let Some(base) = &node.base {
        let started_here = base == old && still_ours;
        let next =
            if started_here { view.clone() } else { RemoteView { item: view.item.clone(), ..base.clone() } };
        if !started_here && node.kind == NodeKind::File {
            applier.effects.renamed.push((key(applier, base), key(applier, &next)));
        }
        tx.set_base(id, Some(&next))?;
    }
    readdress(tx, &node, &old.item, &view.item)?;
    Ok(Some(moved))
}

fn key(applier: &Applier<'_>, view: &RemoteView) -> ContentKey {
    content_key(view, is_rewritten(applier.business, &view.name))
}

/// What was sent and has no answer names the item by its new id from here on.
fn readdress(tx: &mut Tx<'_>, node: &Node, from: &ItemId, to: &ItemId) -> Result<(), StoreError> {
    let sent =
        if node.kind.is_directory() { tx.attempts()? } else { tx.attempt(node.id)?.into_iter().collect() };
    for attempt in sent {
        let Some(send) = of_json(&attempt) else { continue };
        let next = send.clone().readdressed(from, to);
        if next != send {
            let op = serde_json::to_string(&next).expect("plain data is always written");
            tx.put_attempt(&Attempt { op, ..attempt })?;
        }
    }
    Ok(())
}

fn of_json(attempt: &Attempt) -> Option<Send> {
    Send::parse(&attempt.op)
}
