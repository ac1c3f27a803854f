//! Views in, operations that may run now out. Pure: no I/O, no clock, no memory.
//!
//! The planner looks at every dirty node (those with a local view) and at what surrounds them, and says
//! for each which one operation may run now, if any. It is run again whenever something changed; what it
//! does not emit waits for something else it emits, for a time, or for a person (parked).
//!
//! Rules it keeps:
//! - One operation a node at a time; a node whose last attempt has an unknown outcome is verified first.
//! - A remote view that moved away from the base is settled before anything is sent.
//! - A name is taken on the service only after whoever holds it has left; circles of names go through one
//!   temporary name.
//! - A folder is deleted only when all that is known below it was deleted here, nothing is on its way into
//!   it, and after a look at the service that was sent later than the last unlink.
//!   Deletes rest while others follow below the same folder, so that a tree whose removal takes long still
//!   goes with its top.
//! - Many deletes from before the drive was read again wait until they are confirmed; who makes a name again under
//!   one takes its item back.
//! - While ids may have changed (many items are missing by theirs), nothing is deleted or made again.
//! - A name that something without an answer makes an item of waits for that answer.
//! - What is in a folder that has no place any more is brought to the root before anything else is sent of it.
//! - An item that moved to another row waits for the answer to what was sent for it from its former row.

mod circles;
mod deletes;
mod home;

use std::collections::{BTreeMap, BTreeSet};

use super::conflict::{self, NameTaken, Outcome, Sides, only_placed};
use super::guard::Guard;
use super::op::{Op, Send};
use crate::model::{ItemId, NodeId, Timestamp, names};
use crate::store::{LocalView, Node, NodeKind, ParkKind, RemoteView, Seal, canonical};

/// Prefix of the temporary names through which circles of names are resolved; hidden from listings.
pub const SWAP_PREFIX: &str = ".onedrivefs-swap-";

/// Whether the name is one of ours on the way through a circle of names.
pub fn is_swap_name(name: &str) -> bool {
    name.starts_with(SWAP_PREFIX)
}

/// What is known of a node's last attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptState {
    /// Being sent.
    InFlight,
    /// Sent, and no answer is known.
    Unknown(Send),
}

/// A dirty node.
#[derive(Clone, Debug)]
pub struct Item {
    /// The node; its local view is set.
    pub node: Node,
    /// Its last attempt.
    pub attempt: Option<AttemptState>,
    /// A handle is open on it.
    pub open: bool,
    /// A handle that can write is open on it.
    pub writer: bool,
    /// Somebody may write its content now.
    pub held: Option<Held>,
}

/// A file that is open for writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// When a copy of it is to be made.
    pub due: Timestamp,
    /// The copy that was made and is not sent yet.
    pub copy: Option<(u64, Seal)>,
}

/// A folder above a dirty node, or its remote parent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// Its item, if it exists on the service.
    pub item: Option<ItemId>,
    /// Its parent on the service.
    pub remote_parent: Option<NodeId>,
    /// Its visible parent.
    pub visible_parent: Option<NodeId>,
    /// It has visible children.
    pub has_children: bool,
}

/// A clean node that holds, on the service, a name that a dirty one wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// The node.
    pub node: NodeId,
    /// What it is.
    pub kind: NodeKind,
}

/// All that a plan depends on.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Every dirty node.
    pub dirty: BTreeMap<NodeId, Item>,
    /// Every folder above them, in either tree.
    pub folders: BTreeMap<NodeId, Folder>,
    /// Clean holders of wanted names, by folder and folded name.
    pub occupants: BTreeMap<(NodeId, String), Occupant>,
    /// What was sent for dirty nodes without an answer so far, whether in flight or unknown.
    pub sent: BTreeMap<NodeId, Send>,
    /// Nodes whose content a power cut may have taken a part of.
    pub doubtful: BTreeSet<NodeId>,
    /// Wall time.
    pub now: Timestamp,
    /// Nanoseconds that a change rests before it is sent.
    pub settle: i64,
    /// Someone waits (sync, unmount): nothing rests.
    pub hurry: bool,
    /// Ids may have changed: nothing is deleted or made again before the whole drive was read.
    pub held: bool,
    /// Which deletes wait for a confirmation.
    pub guard: Guard,
    /// Sequence number at which the newest finished look at the whole drive was sent; none while there is
    /// no such look (not enumerated yet, or delta is not offered): then folders are looked at one by one.
    pub looked: Option<u64>,
}

/// What may run now, and when to look again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// At most one operation a node.
    pub ops: Vec<(NodeId, Op)>,
    /// Wall time at which something may become due.
    pub wake_at: Option<Timestamp>,
    /// A delete waits for a new look at the drive.
    pub wants_look: bool,
    /// Deletes that wait for a confirmation, and do not say so yet.
    pub unconfirmed: Vec<NodeId>,
}

/// Computes the plan.
pub fn plan(world: &World) -> Plan {
    let mut planner = Planner::new(world);
    for (&id, item) in &world.dirty {
        if let Some(op) = planner.step(id, item) {
            planner.plan.ops.push((id, op));
        }
    }
    planner.plan
}

/// Folders that have something unsent and not deleted below them in the visible tree.
fn folders_with_unsent(world: &World) -> BTreeSet<NodeId> {
    let mut found = BTreeSet::new();
    for item in world.dirty.values() {
        let local = local(item);
        let kept = !local.deleted
            && !local.local_only
            && (local.content.is_some() || item.node.remote.is_none() && item.node.base.is_none());
        let mut at = kept.then_some(local.parent);
        while let Some(id) = at.filter(|&id| found.insert(id)) {
            at = world.folders.get(&id).and_then(|folder| folder.visible_parent);
        }
    }
    found
}

/// When something was last deleted here below each folder, as the service has it.
fn newest_deletes(world: &World) -> BTreeMap<NodeId, Timestamp> {
    let mut newest: BTreeMap<NodeId, Timestamp> = BTreeMap::new();
    for item in world.dirty.values().filter(|item| local(item).deleted) {
        let at = local(item).changed_at.min(world.now);
        let mut above = item.node.remote.as_ref().and_then(|view| view.parent);
        while let Some(id) = above {
            match newest.get_mut(&id) {
                Some(known) if *known >= at => break,
                Some(known) => *known = at,
                None => drop(newest.insert(id, at)),
            }
            above = world.folders.get(&id).and_then(|folder| folder.remote_parent);
        }
    }
    newest
}

/// Deletes that were made in an older picture of the drive, and not confirmed.
fn outdated_deletes(world: &World) -> u64 {
    world.dirty.values().filter(|item| is_outdated_delete(world, item)).count() as u64
}

fn is_outdated_delete(world: &World, item: &Item) -> bool {
    let local = local(item);
    local.deleted && item.node.remote.is_some() && !world.guard.is_current(local.changed_seq)
}

/// The delete says that it waits for a confirmation.
fn is_unconfirmed(local: &LocalView) -> bool {
    local.deleted && local.parked.as_ref().is_some_and(|parked| parked.kind == ParkKind::Unconfirmed)
}

fn local(item: &Item) -> &LocalView {
    item.node.local.as_ref().expect("only nodes with a local view are dirty")
}

/// The change is given up for what the service has, but for a temporary name.
fn returned(remote: &RemoteView, local: &LocalView, notice: &'static str) -> Outcome {
    if is_swap_name(&remote.name) {
        let parent = remote.parent.unwrap_or(local.parent);
        Outcome::Rebase(Box::new(LocalView { parent, ..only_placed(local) }))
    } else {
        Outcome::TakeRemote { notice: Some(notice) }
    }
}

struct Planner<'a> {
    world: &'a World,
    plan: Plan,
    unsent_below: BTreeSet<NodeId>,
    newest_deletes: BTreeMap<NodeId, Timestamp>,
    /// Deletes that are not current wait for a confirmation.
    guarded: bool,
    /// Dirty nodes by the folder they are in on the service, and by their folded name there.
    remotely: BTreeMap<NodeId, BTreeMap<String, Vec<NodeId>>>,
    /// Items that something without an answer changes, and for which node it was sent.
    claimed: BTreeMap<&'a ItemId, NodeId>,
    /// Folders into which something without an answer puts an item.
    awaiting: BTreeSet<&'a ItemId>,
}

impl<'a> Planner<'a> {
    fn new(world: &'a World) -> Self {
        let mut remotely: BTreeMap<NodeId, BTreeMap<String, Vec<NodeId>>> = BTreeMap::new();
        for (&id, item) in &world.dirty {
            if let Some(RemoteView { parent: Some(parent), name, .. }) = &item.node.remote {
                let folded = names::fold(&canonical(name));
                remotely.entry(*parent).or_default().entry(folded).or_default().push(id);
            }
        }
        let claims = world.sent.iter().filter_map(|(&id, send)| Some((send.item()?, id)));
        Self {
            world,
            plan: Plan::default(),
            unsent_below: folders_with_unsent(world),
            remotely,
            claimed: claims.collect(),
            awaiting: world.sent.values().filter_map(Send::target_folder).collect(),
            newest_deletes: newest_deletes(world),
            guarded: world.guard.must_wait(outdated_deletes(world)),
        }
    }

    fn step(&mut self, id: NodeId, item: &'a Item) -> Option<Op> {
        let local = local(item);
        match &item.attempt {
            Some(AttemptState::InFlight) => return None,
            Some(AttemptState::Unknown(send)) => {
                return self.is_due(local.retry_at).then(|| Op::Verify(send.clone()));
            }
            None => {}
        }
        if local.local_only {
            return if local.deleted {
                (!item.open).then_some(Op::Forget)
            } else {
                self.homeless(item).flatten()
            };
        }
        if item.node.remote.is_none() && item.node.base.is_none() && local.deleted {
            return (!item.open).then_some(Op::Forget);
        }
        if self.is_claimed(id, item) {
            return None;
        }
        if self.world.doubtful.contains(&id) && !local.deleted && item.node.remote.is_some() {
            // What the service has is whole: it keeps the name.
            return self.seal_first(item, Outcome::ConflictCopy);
        }
        if let Some(settled) = self.settle(id, item) {
            return settled;
        }
        if let Some(homeless) = self.homeless(item) {
            return homeless;
        }
        if is_unconfirmed(local) {
            return self.delete(id, item);
        }
        if local.parked.is_some() && local.retry_at == Timestamp(i64::MAX) {
            return None;
        }
        if !self.is_due(local.retry_at) || !(self.is_overdue(item) || self.has_rested(local)) {
            return None;
        }
        if local.deleted { self.delete(id, item) } else { self.send(id, item) }
    }

    /// Whether the item was another node's when something was sent for it that has no answer yet: until then
    /// nobody knows what the item is.
    fn is_claimed(&self, id: NodeId, item: &Item) -> bool {
        let claim = item.node.remote.as_ref().and_then(|view| self.claimed.get(&view.item));
        claim.is_some_and(|&by| by != id)
    }

    /// True once `at` has come; else remembers to wake then.
    fn is_due(&mut self, at: Timestamp) -> bool {
        if at <= self.world.now {
            return true;
        }
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |wake| wake.min(at)));
        false
    }

    /// Whoever keeps a file open and syncs it all the time does not keep it from being sent.
    fn is_overdue(&mut self, item: &Item) -> bool {
        item.held.as_ref().is_some_and(|held| held.copy.is_some() || self.is_due(held.due))
    }

    fn has_rested(&mut self, local: &LocalView) -> bool {
        // A clock that was set back must not hold a change for longer than the settle time.
        let changed = local.changed_at.min(self.world.now);
        self.world.hurry || self.is_due(Timestamp(changed.0.saturating_add(self.world.settle)))
    }

    /// `Some` where the remote view moved away from the base: what to do about it, or that it must wait.
    #[allow(clippy::option_option, reason = "nothing to settle, wait, and settle thus are three answers")]
    fn settle(&mut self, id: NodeId, item: &Item) -> Option<Option<Op>> {
        let base = item.node.base.as_ref()?;
        if conflict::is_current(base, item.node.remote.as_ref()) {
            return None;
        }
        let outcome = conflict::resolve(Sides {
            kind: item.node.kind,
            base,
            local: local(item),
            remote: item.node.remote.as_ref(),
            unsent_below: self.unsent_below.contains(&id),
        });
        if self.world.held && matches!(outcome, Outcome::Recreate | Outcome::Gone) {
            return Some(None);
        }
        if outcome == Outcome::Recreate && !self.is_due(local(item).retry_at) {
            return Some(None);
        }
        if matches!(outcome, Outcome::ConflictCopy | Outcome::Recreate) {
            return Some(self.seal_first(item, outcome));
        }
        // What somebody has open and unlinked stays theirs until their last close.
        let unlinked = local(item).deleted && local(item).content.is_some();
        let waits = item.open && (outcome == Outcome::Gone || unlinked);
        Some((!waits).then_some(Op::Settle(outcome)))
    }

    /// Content that parts with the item it was made from is made complete before: afterwards nobody knows
    /// which version its untouched ranges belong to. Whoever is writing it finishes first.
    fn seal_first(&mut self, item: &Item, outcome: Outcome) -> Option<Op> {
        let local = local(item);
        match local.content {
            Some(_) if item.writer => None,
            Some(content) if local.seal.is_none() => {
                self.is_due(local.retry_at).then_some(Op::Seal { content })
            }
            Some(_) if outcome == Outcome::ConflictCopy && local.retry_at < Timestamp(i64::MAX) => {
                self.is_due(local.retry_at).then_some(Op::Settle(outcome))
            }
            Some(_) | None => Some(Op::Settle(outcome)),
        }
    }

    fn remote_children(&self, folder: NodeId) -> Vec<(NodeId, &'a Item)> {
        let names = self.remotely.get(&folder);
        names
            .into_iter()
            .flat_map(|names| names.values().flatten())
            .map(|id| (*id, &self.world.dirty[id]))
            .collect()
    }

    /// Dirty nodes that hold this folded name in this folder on the service.
    fn holders(&self, folder: NodeId, folded: &str) -> Vec<(NodeId, &'a Item)> {
        let ids = self.remotely.get(&folder).and_then(|names| names.get(folded));
        ids.into_iter().flatten().map(|id| (*id, &self.world.dirty[id])).collect()
    }

    fn send(&mut self, id: NodeId, item: &Item) -> Option<Op> {
        let local = local(item);
        let parent = self.world.folders.get(&local.parent).and_then(|folder| folder.item.clone());
        match &item.node.remote {
            None => self.create(id, item, parent?),
            Some(remote) => {
                let moved = remote.parent != Some(local.parent) || canonical(&remote.name) != local.name;
                if moved {
                    return self.relocate(id, item, remote, parent);
                }
                parent?;
                self.content_or_time(id, item, remote)
            }
        }
    }

    fn create(&mut self, id: NodeId, item: &Item, parent: ItemId) -> Option<Op> {
        let local = local(item);
        if item.node.kind == NodeKind::Folder {
            return self.when_free(id, item, || Op::Send(Send::Mkdir { parent, name: local.name.clone() }));
        }
        let (content, seal) = match self.sealed(item, local.content?) {
            Ok(sealed) => sealed,
            Err(op) => return op,
        };
        let send = Send::Create {
            parent,
            name: local.name.clone(),
            content,
            size: seal.size,
            quick_xor: seal.quick_xor,
            mtime: local.mtime_set.then_some(local.mtime),
        };
        self.when_free(id, item, || Op::Send(send))
    }

    /// What may be sent of `content`, or what has to be done for that.
    fn sealed<'i>(&mut self, item: &'i Item, content: u64) -> Result<(u64, &'i Seal), Option<Op>> {
        match (&local(item).seal, &item.held) {
            (Some(seal), _) => Ok((content, seal)),
            (None, _) if !item.writer => Err(Some(Op::Seal { content })),
            (None, Some(Held { copy: Some((copy, seal)), .. })) => Ok((*copy, seal)),
            (None, Some(held)) => Err(self.is_due(held.due).then_some(Op::Copy { content })),
            (None, None) => Err(None),
        }
    }

    fn relocate(
        &mut self,
        id: NodeId,
        item: &Item,
        remote: &RemoteView,
        parent: Option<ItemId>,
    ) -> Option<Op> {
        let local = local(item);
        if self.is_visibly_below(local.parent, id) {
            // It was moved into a folder that, elsewhere, was moved into it: both would be out of sight.
            let notice = "moved here into what was moved into it elsewhere: the other place was kept";
            return Some(Op::Settle(returned(remote, local, notice)));
        }
        let to = parent.filter(|_| !self.is_remotely_below(local.parent, id));
        let away = to.clone().filter(|_| remote.parent != Some(local.parent));
        if to.is_some() {
            let send = Send::Move {
                item: remote.item.clone(),
                parent: away.clone(),
                name: (canonical(&remote.name) != local.name).then(|| local.name.clone()),
                if_match: remote.version.etag.clone(),
            };
            if let Some(op) = self.when_free(id, item, || Op::Send(send)) {
                return Some(op);
            }
        }
        if is_swap_name(&remote.name) && away.is_none() || !self.breaks_circle(id, away.is_some()) {
            return None;
        }
        Some(Op::Send(Send::Move {
            item: remote.item.clone(),
            parent: away,
            name: Some(format!("{SWAP_PREFIX}{}", id.0)),
            if_match: remote.version.etag.clone(),
        }))
    }

    fn content_or_time(&mut self, _id: NodeId, item: &Item, remote: &RemoteView) -> Option<Op> {
        let local = local(item);
        if let Some(content) = local.content {
            let (content, seal) = match self.sealed(item, content) {
                Ok(sealed) => sealed,
                Err(op) => return op,
            };
            return Some(Op::Send(Send::Replace {
                item: remote.item.clone(),
                content,
                size: seal.size,
                quick_xor: seal.quick_xor,
                mtime: local.mtime_set.then_some(local.mtime),
                if_match: remote.version.etag.clone(),
            }));
        }
        if local.mtime_set && !remote.has_second_of(local.mtime) {
            return Some(Op::Send(Send::SetTime {
                item: remote.item.clone(),
                mtime: local.mtime,
                if_match: remote.version.etag.clone(),
            }));
        }
        // Nothing differs any more (moved there and back): the local view is spent.
        Some(Op::Settle(Outcome::TakeRemote { notice: None }))
    }

    /// `op` if the wanted name is free on the service, or what must happen first here.
    fn when_free(&self, id: NodeId, item: &Item, op: impl FnOnce() -> Op) -> Option<Op> {
        match self.holder(id, item) {
            Holder::Nobody => Some(op()),
            Holder::Leaving => None,
            Holder::Unconfirmed(to, kind) => self.take_back(item, to, kind),
            Holder::Staying(to, kind) => Some(Op::Yield { to, how: conflict::name_taken(&item.node, kind) }),
        }
    }

    /// A name is made again whose delete waits: the new one takes the item.
    fn take_back(&self, item: &Item, from: NodeId, kind: NodeKind) -> Option<Op> {
        let is_new = item.node.remote.is_none() && item.node.base.is_none();
        let how = match (item.node.kind, kind) {
            (NodeKind::Folder, NodeKind::Folder) => NameTaken::Merge,
            (NodeKind::File, NodeKind::File) => NameTaken::TakeBack,
            _ => return None,
        };
        is_new.then_some(Op::Yield { to: from, how })
    }

    fn holder(&self, id: NodeId, item: &Item) -> Holder {
        let local = local(item);
        let wanted = names::fold(&local.name);
        if self.is_made_by_another(id, local.parent, &wanted) {
            return Holder::Leaving;
        }
        for (other, holder) in self.holders(local.parent, &wanted) {
            let Some(view) = holder.node.remote.as_ref().filter(|_| other != id) else { continue };
            let theirs = self::local(holder);
            if self.must_be_confirmed(holder) {
                return Holder::Unconfirmed(other, holder.node.kind);
            }
            let leaves =
                theirs.deleted || view.parent != Some(theirs.parent) || theirs.name != canonical(&view.name);
            return if leaves { Holder::Leaving } else { Holder::Staying(other, holder.node.kind) };
        }
        match self.world.occupants.get(&(local.parent, wanted)) {
            Some(occupant) if occupant.node != id => Holder::Staying(occupant.node, occupant.kind),
            _ => Holder::Nobody,
        }
    }

    /// Whether something without an answer makes an item of this folded name there for another node: what is at the name
    /// then is ours.
    fn is_made_by_another(&self, id: NodeId, folder: NodeId, folded: &str) -> bool {
        let folder = self.world.folders.get(&folder).and_then(|folder| folder.item.as_ref());
        let made = self.world.sent.iter().filter(|(by, _)| **by != id).filter_map(|(_, send)| send.made_at());
        folder
            .is_some_and(|item| made.into_iter().any(|(to, name)| to == item && names::fold(name) == folded))
    }

    /// Whether, in the visible tree, `folder` lies below `above` (or is it).
    fn is_visibly_below(&self, folder: NodeId, above: NodeId) -> bool {
        let mut at = Some(folder);
        let mut seen = BTreeSet::new();
        while let Some(id) = at.filter(|&id| seen.insert(id)) {
            if id == above {
                return true;
            }
            at = self.world.folders.get(&id).and_then(|folder| folder.visible_parent);
        }
        false
    }

    /// Whether, on the service, `folder` lies below `above` (the move must wait for a move in between).
    fn is_remotely_below(&self, folder: NodeId, above: NodeId) -> bool {
        let mut at = Some(folder);
        for _ in 0..4096 {
            match at {
                Some(id) if id == above => return true,
                Some(id) => at = self.world.folders.get(&id).and_then(|folder| folder.remote_parent),
                None => return false,
            }
        }
        true
    }
}

enum Holder {
    Nobody,
    Leaving,
    Unconfirmed(NodeId, NodeKind),
    Staying(NodeId, NodeKind),
}

#[cfg(test)]
#[path = "planner_properties/mod.rs"]
mod properties;
#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
