//! When what was deleted here is deleted on the service: in which order, and after which looks.

use super::{
    Item, Op, Planner, SWAP_PREFIX, Send, conflict, is_outdated_delete, is_swap_name, is_unconfirmed, local,
    returned,
};
use crate::model::{NodeId, Timestamp};
use crate::store::{LocalView, RemoteView};

/// A delete waits for further ones below the same folder at most so many times the settle time.
const DELETE_PATIENCE: i64 = 10;

impl Planner<'_> {
    pub(super) fn delete(&mut self, id: NodeId, item: &Item) -> Option<Op> {
        let remote = item.node.remote.as_ref()?;
        if self.must_be_confirmed(item) {
            if !is_unconfirmed(local(item)) {
                self.plan.unconfirmed.push(id);
            }
            return None;
        }
        if self.world.held || item.open {
            return None;
        }
        let folder = item.node.kind.is_directory();
        if folder && self.has_children(id) {
            // However deep: what is above finds it back, and returns too.
            let notice = "deleted here, but something new appeared inside: it is back";
            return Some(Op::Settle(returned(remote, local(item), notice)));
        }
        if self.is_covered(item, remote) || !self.deleting_has_ended(remote, local(item)) {
            return None;
        }
        if folder {
            if self.awaiting.contains(&remote.item) {
                return None;
            }
            if !self.may_delete_tree(id, item) {
                return self.give_up_name(id, remote);
            }
        }
        let if_match = if folder { None } else { remote.version.etag.clone() };
        Some(Op::Send(Send::Delete { item: remote.item.clone(), if_match, folder }))
    }

    /// What is to leave the folder before it is deleted goes into one that is to be made under its name.
    fn give_up_name(&self, id: NodeId, remote: &RemoteView) -> Option<Op> {
        let is_in_the_way = !is_swap_name(&remote.name) && self.breaks_circle(id, false);
        is_in_the_way.then(|| {
            Op::Send(Send::Move {
                item: remote.item.clone(),
                parent: None,
                name: Some(format!("{SWAP_PREFIX}{}", id.0)),
                if_match: remote.version.etag.clone(),
            })
        })
    }

    /// Whether whoever deletes here is done: what they delete next may be the folder above.
    fn deleting_has_ended(&mut self, remote: &RemoteView, local: &LocalView) -> bool {
        let (settle, changed) = (self.world.settle, local.changed_at.min(self.world.now));
        let newest = remote.parent.and_then(|parent| self.newest_deletes.get(&parent)).unwrap_or(&changed);
        let rested = newest.0.saturating_add(settle);
        let latest = changed.0.saturating_add(settle.saturating_mul(DELETE_PATIENCE));
        self.world.hurry || self.is_due(Timestamp(rested.min(latest)))
    }

    /// Whether the delete waits for a confirmation.
    pub(super) fn must_be_confirmed(&self, item: &Item) -> bool {
        self.guarded && is_outdated_delete(self.world, item)
    }

    /// Whether the delete of a folder above takes this node with it.
    fn is_covered(&self, item: &Item, remote: &RemoteView) -> bool {
        if self.world.looked.is_none() || has_unknown_inside(item) {
            return false;
        }
        let above = remote.parent.and_then(|parent| self.world.dirty.get(&parent));
        above.is_some_and(|item| {
            local(item).deleted && item.node.remote.is_some() && local(item).parked.is_none()
        })
    }

    fn has_children(&self, folder: NodeId) -> bool {
        self.world.folders.get(&folder).is_some_and(|folder| folder.has_children)
    }

    /// All known below was deleted here and rests with it, and the look is newer than the last unlink, and than what made
    /// or found the folders there.
    fn may_delete_tree(&mut self, id: NodeId, top: &Item) -> bool {
        let since = |item: &Item| local(item).changed_seq.max(item.node.own_seq);
        let mut newest = since(top);
        let mut stack = vec![id];
        while let Some(folder) = stack.pop() {
            for (child, item) in self.remote_children(folder) {
                let local = local(item);
                if self.world.looked.is_none() || !local.deleted || item.open || item.attempt.is_some() {
                    return false;
                }
                if self.must_be_confirmed(item) || self.has_children(child) || !is_settled(item) {
                    return false;
                }
                if has_unknown_inside(item) {
                    return false;
                }
                if item.node.remote.as_ref().is_some_and(|view| self.awaiting.contains(&view.item)) {
                    return false;
                }
                newest = newest.max(since(item));
                stack.push(child);
            }
        }
        match self.world.looked {
            Some(looked) if looked < newest => {
                self.plan.wants_look = true;
                false
            }
            _ => true,
        }
    }
}

/// Nothing has happened to the item elsewhere that is still to be decided about.
fn is_settled(item: &Item) -> bool {
    let base = item.node.base.as_ref();
    base.is_none_or(|base| conflict::is_current(base, item.node.remote.as_ref()))
}

fn has_unknown_inside(item: &Item) -> bool {
    item.node.kind.is_directory() && !item.node.listed
}
