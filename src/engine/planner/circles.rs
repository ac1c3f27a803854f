//! Circles of changes that wait for each other: for a name, for a folder to be left or to be made.

use std::collections::BTreeSet;

use super::{Folder, Planner, local};
use crate::model::{NodeId, names};

/// In circles of more nodes than this nobody looks for a way out.
const CIRCLE_MAX: usize = 4096;

/// What a node waits for another one to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// To give up its name.
    Name,
    /// To leave its folder.
    Leave,
    /// To be made.
    Made,
}

impl Wait {
    /// Whether a temporary name ends it; `leaves`: one in another folder.
    fn is_ended_by(self, leaves: bool) -> bool {
        match self {
            Self::Name => true,
            Self::Leave => leaves,
            Self::Made => false,
        }
    }
}

impl Planner<'_> {
    /// Whether `id` is the smallest node of a circle, in which each waits for the next one, that can end it by
    /// taking a temporary name, and a place in its new folder if that is there (`leaves`).
    pub(super) fn breaks_circle(&self, id: NodeId, leaves: bool) -> bool {
        let is_deleted = local(&self.world.dirty[&id]).deleted;
        let mut seen = BTreeSet::new();
        let mut path = vec![(id, Wait::Made, self.waits_for(id))];
        while let Some((_, _, next)) = path.last_mut() {
            let Some((next, wait)) = next.pop() else {
                path.pop();
                continue;
            };
            if next == id {
                let others = &path[1..];
                // What is deleted gives its name up only where nobody else can end it.
                let comes_first = |other: NodeId| other > id && !is_deleted;
                let is_first =
                    others.iter().all(|(other, wait, _)| comes_first(*other) || !self.can_end(*other, *wait));
                if wait.is_ended_by(leaves) && is_first {
                    return true;
                }
            } else if seen.len() < CIRCLE_MAX && seen.insert(next) {
                path.push((next, wait, self.waits_for(next)));
            }
        }
        false
    }

    /// Whether the node, for which another one waits thus, can end that by taking a temporary name.
    fn can_end(&self, id: NodeId, wait: Wait) -> bool {
        let item = &self.world.dirty[&id];
        let (Some(remote), ours) = (&item.node.remote, local(item)) else { return false };
        let has_folder = self.world.folders.get(&ours.parent).is_some_and(|folder| folder.item.is_some());
        let leaves =
            has_folder && remote.parent != Some(ours.parent) && !self.is_remotely_below(ours.parent, id);
        !ours.deleted && wait.is_ended_by(leaves)
    }

    /// What has to happen elsewhere before this node's change can be sent.
    fn waits_for(&self, at: NodeId) -> Vec<(NodeId, Wait)> {
        let Some(item) = self.world.dirty.get(&at).filter(|item| item.attempt.is_none()) else {
            return Vec::new();
        };
        let ours = local(item);
        if ours.deleted {
            return self.remote_children(at).into_iter().map(|(child, _)| (child, Wait::Leave)).collect();
        }
        let wanted = names::fold(&ours.name);
        let holders = self.holders(ours.parent, &wanted).into_iter().filter(|(other, _)| *other != at);
        let mut waits: Vec<_> = holders.map(|(other, _)| (other, Wait::Name)).collect();
        match self.world.folders.get(&ours.parent) {
            Some(Folder { item: None, .. }) => waits.push((ours.parent, Wait::Made)),
            _ => waits.extend(self.between(ours.parent, at).map(|other| (other, Wait::Leave))),
        }
        waits
    }

    /// Where `folder` lies, on the service, below `above`: the first of those between that is to leave.
    fn between(&self, folder: NodeId, above: NodeId) -> Option<NodeId> {
        if !self.is_remotely_below(folder, above) {
            return None;
        }
        let mut at = folder;
        for _ in 0..4096 {
            if at == above {
                return None;
            }
            let remote_parent = self.world.folders.get(&at)?.remote_parent;
            let leaves =
                self.world.dirty.get(&at).is_some_and(|item| Some(local(item).parent) != remote_parent);
            if leaves {
                return Some(at);
            }
            at = remote_parent?;
        }
        None
    }
}
