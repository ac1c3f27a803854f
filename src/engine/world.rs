//! Loads what a plan depends on from the store.

use std::collections::{BTreeMap, BTreeSet};

use super::confirm::{CONFIRMED, REREAD};
use super::guard::Guard;
use super::op::Send;
use super::planner::{AttemptState, Folder, Held, Item, Occupant, World};
use super::{Inner, Mutant};
use crate::content::StagingId;
use crate::model::{NodeId, Timestamp, names};
use crate::store::{Node, StoreError, Tx};

impl Inner {
    /// The world as the planner sees it, read in one transaction.
    pub(super) fn world(&self) -> Result<World, StoreError> {
        let in_flight = self.in_flight();
        let mut world = World {
            now: Timestamp::from(self.clock.wall()),
            settle: i64::try_from(self.config.settle.as_nanos()).unwrap_or(i64::MAX),
            hurry: self.is_hurried(),
            held: self.rematching.load(std::sync::atomic::Ordering::Acquire),
            looked: self.looked(),
            ..World::default()
        };
        self.store.inspect(|tx| {
            world.guard = self.guard(tx)?;
            let (mut attempts, lost) = (attempts(tx)?, tx.lost()?);
            for node in tx.dirty()? {
                let sent = attempts.remove(&node.id);
                world.sent.extend(sent.clone().map(|sent| (node.id, sent)));
                let attempt = if in_flight.contains(&node.id) {
                    Some(AttemptState::InFlight)
                } else {
                    sent.map(AttemptState::Unknown)
                };
                let content = node.local.as_ref().and_then(|local| local.content);
                world.doubtful.extend(content.filter(|content| lost.contains(content)).map(|_| node.id));
                let open = self.open.is_open(node.id);
                let writer = self.open.has_writer(node.id) && !Mutant::UploadUnsealed.is_planted();
                let held = content.filter(|_| writer).and_then(|content| self.held(&node, content, &world));
                world.dirty.insert(node.id, Item { node, attempt, open, writer, held });
            }
            let content = |id| world.dirty.get(&id)?.node.local.as_ref()?.content;
            let is_written = |id| in_flight.contains(&id) || self.open.has_writer(id);
            self.held.retain(content, is_written);
            load_folders(tx, &mut world)?;
            load_occupants(tx, &mut world)
        })?;
        Ok(world)
    }
}

/// Attempts that are recorded and, if not in flight, have an outcome nobody knows. One that cannot be read any more is treated as none: the store
/// refuses newer formats as a whole, so this is a row of our own that was damaged.
fn attempts(tx: &Tx<'_>) -> Result<BTreeMap<NodeId, Send>, StoreError> {
    let readable = |attempt: crate::store::Attempt| {
        let send = Send::parse(&attempt.op)?;
        Some((attempt.node, send))
    };
    Ok(tx.attempts()?.into_iter().filter_map(readable).collect())
}

impl Inner {
    /// What is known of a file whose `content` somebody may write now; nothing where it is sealed.
    fn held(&self, node: &Node, content: u64, world: &World) -> Option<Held> {
        let local = node.local.as_ref().filter(|local| local.seal.is_none())?;
        let size = self.staging.open_len(StagingId(content)).unwrap_or(local.size);
        Some(self.held.plan((node.id, content), local.changed_at, size, (world.settle, world.now)))
    }

    fn guard(&self, tx: &Tx<'_>) -> Result<Guard, StoreError> {
        let number = |key| Ok::<_, StoreError>(tx.meta(key)?.and_then(|text| text.parse().ok()).unwrap_or(0));
        let (reread, confirmed) = (number(REREAD)?, number(CONFIRMED)?);
        // Counting takes a while on a large drive.
        let items =
            if reread > 0 && tx.has_deletes_before(reread, confirmed)? { tx.count_items()? } else { 0 };
        Ok(Guard { reread, confirmed, above: self.config.confirm_above, items })
    }
}

fn load_folders(tx: &Tx<'_>, world: &mut World) -> Result<(), StoreError> {
    let mut wanted: BTreeSet<NodeId> = BTreeSet::new();
    for item in world.dirty.values() {
        let node = &item.node;
        wanted.extend(node.local.as_ref().map(|local| local.parent));
        wanted.extend(node.remote.as_ref().and_then(|view| view.parent));
        if node.kind.is_directory() {
            wanted.insert(node.id);
        }
    }
    while let Some(id) = wanted.pop_first() {
        if world.folders.contains_key(&id) {
            continue;
        }
        let Some(node) = tx.find(id)? else { continue };
        let folder = Folder {
            item: node.remote.as_ref().map(|view| view.item.clone()),
            remote_parent: node.remote.as_ref().and_then(|view| view.parent),
            visible_parent: node.place.as_ref().map(|place| place.parent),
            has_children: tx.has_children(id)?,
        };
        wanted.extend(folder.remote_parent);
        wanted.extend(folder.visible_parent);
        world.folders.insert(id, folder);
    }
    Ok(())
}

/// A clean node keeps its visible name, or steps aside for a local one and is found by what it wants.
fn load_occupants(tx: &Tx<'_>, world: &mut World) -> Result<(), StoreError> {
    let wanted: Vec<(NodeId, String, NodeId)> = world
        .dirty
        .iter()
        .filter_map(|(&id, item)| {
            let local = item.node.local.as_ref()?;
            (!local.deleted && !local.local_only).then(|| (local.parent, local.name.clone(), id))
        })
        .collect();
    for (parent, name, id) in wanted {
        let found = tx.holders(parent, &name)?.into_iter().find(|node| is_clean_holder(node, id));
        if let Some(node) = found {
            world.occupants.insert((parent, names::fold(&name)), Occupant { node: node.id, kind: node.kind });
        }
    }
    Ok(())
}

fn is_clean_holder(node: &Node, but: NodeId) -> bool {
    node.id != but && node.remote.is_some() && node.local.is_none()
}
