//! The machine's rows, as the store would hold them: what is seen goes in, what an operation did is recorded.
//!
//! A second statement of `apply`, `settle` and `record` without a store, so that the planner is tried against the
//! rules and not against its surroundings.

use std::collections::{BTreeMap, BTreeSet};

use super::service::{Content, Item as Described, ROOT, Service, hash_of, item_id, number_of, view};
use crate::engine::conflict::{NameTaken, Outcome, local_placed, only_placed};
use crate::engine::op::Send;
use crate::engine::planner::{AttemptState, Folder, Held, Item, Occupant, World, is_swap_name};
use crate::engine::record::start_after;
use crate::engine::testing::{local_at, node};
use crate::model::{ItemId, NodeId, Timestamp, names};
use crate::store::{LocalView, Node, NodeKind, RemoteView, Seal};

#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    pub rows: BTreeMap<NodeId, Node>,
    /// What was sent for a row and has no answer; true: nobody waits for one any more.
    pub attempts: BTreeMap<NodeId, (Send, bool)>,
    pub writers: BTreeSet<NodeId>,
    /// Copies of what is being written, by row: of which content, and which the copy is.
    pub copies: BTreeMap<NodeId, (u64, u64)>,
    pub now: i64,
    pub seq: u64,
    pub looked: u64,
    /// The service's count of changes when the newest look was sent.
    pub looked_at: u64,
    next: i64,
}

impl Machine {
    pub fn new() -> Self {
        Self { now: 1000, next: 1, seq: 1, ..Self::default() }
    }

    pub fn insert(&mut self, folder: bool) -> NodeId {
        self.next += 1;
        let id = NodeId(self.next);
        self.rows.insert(id, node(id, if folder { NodeKind::Folder } else { NodeKind::File }));
        id
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    pub fn row_of(&self, item: &ItemId) -> Option<NodeId> {
        if *item == item_id(ROOT) {
            return Some(NodeId::ROOT);
        }
        let holds = |row: &&Node| row.remote.as_ref().is_some_and(|view| view.item == *item);
        self.rows.values().find(holds).map(|row| row.id)
    }

    /// Where the row is visible.
    pub fn place(&self, id: NodeId) -> Option<(NodeId, String)> {
        let row = self.rows.get(&id)?;
        match (&row.local, &row.remote) {
            (Some(local), _) if local.deleted => None,
            (Some(local), _) => Some((local.parent, local.name.clone())),
            (None, Some(view)) => Some((view.parent?, view.name.clone())),
            (None, None) => None,
        }
    }

    pub fn children(&self, folder: NodeId) -> Vec<NodeId> {
        let inside = |id: &NodeId| self.place(*id).is_some_and(|(parent, _)| parent == folder);
        self.rows.keys().copied().filter(inside).collect()
    }

    pub fn is_taken(&self, folder: NodeId, name: &str, but: Option<NodeId>) -> bool {
        let wanted = names::fold(name);
        let same = |id: &NodeId| self.place(*id).is_some_and(|(_, name)| names::fold(&name) == wanted);
        self.children(folder).iter().any(|id| Some(*id) != but && same(id))
    }

    /// Changes what the user sees of a row, as every operation of a program does.
    pub fn change(&mut self, id: NodeId, edit: impl FnOnce(&mut LocalView)) {
        let (place, seq, now) = (self.place(id), self.next_seq(), self.now);
        let row = self.rows.get_mut(&id).expect("the caller has it");
        let mut local = row.local.clone().unwrap_or_else(|| {
            let (parent, name) = place.expect("programs change what they see");
            LocalView { mtime: row.mtime(), ..local_at(parent, &name) }
        });
        edit(&mut local);
        (local.changed_at, local.changed_seq, local.retry_at) = (Timestamp(now), seq, Timestamp(0));
        if row.base.is_none() {
            row.base = row.remote.clone();
        }
        row.local = Some(local);
    }

    pub fn remove(&mut self, id: NodeId) {
        self.rows.remove(&id);
        self.attempts.remove(&id);
    }

    pub fn close_all(&mut self) {
        self.writers.clear();
        self.copies.clear();
    }

    /// What somebody is writing is copied as it is.
    pub fn copy(&mut self, id: NodeId, content: u64, copy: u64) {
        if self.rows.get(&id).and_then(|row| row.local.as_ref()?.content) == Some(content) {
            self.copies.insert(id, (content, copy));
        }
    }

    // ---- what the planner sees ----

    fn held(&self, row: &Node) -> Option<Held> {
        let local = row.local.as_ref().filter(|local| local.seal.is_none())?;
        let copy = self.copies.get(&row.id).filter(|(of, _)| Some(*of) == local.content);
        let copy = copy.map(|&(_, copy)| (copy, seal_of(copy)));
        Some(Held { due: Timestamp(local.changed_at.0.saturating_add(5)), copy })
    }

    pub fn world(&self, hurry: bool) -> World {
        let mut world = World {
            now: Timestamp(self.now),
            settle: 3,
            hurry,
            looked: Some(self.looked),
            sent: self.attempts.iter().map(|(id, (send, _))| (*id, send.clone())).collect(),
            ..World::default()
        };
        let root = Folder { item: Some(item_id(ROOT)), has_children: true, ..Folder::default() };
        world.folders.insert(NodeId::ROOT, root);
        for (&id, row) in &self.rows {
            if row.kind.is_directory() {
                let folder = Folder {
                    item: row.remote.as_ref().map(|view| view.item.clone()),
                    remote_parent: row.remote.as_ref().and_then(|view| view.parent),
                    visible_parent: self.place(id).map(|(parent, _)| parent),
                    has_children: !self.children(id).is_empty(),
                };
                world.folders.insert(id, folder);
            }
            if row.local.is_some() {
                let attempt = self.attempts.get(&id).map(|(send, unknown)| match unknown {
                    true => AttemptState::Unknown(send.clone()),
                    false => AttemptState::InFlight,
                });
                let writer = self.writers.contains(&id);
                let held = self.held(row).filter(|_| writer);
                world.dirty.insert(id, Item { node: row.clone(), attempt, open: writer, writer, held });
            } else if let Some((parent, name)) = self.place(id) {
                world.occupants.insert((parent, names::fold(&name)), Occupant { node: id, kind: row.kind });
            }
        }
        world
    }

    // ---- observing ----

    /// A look at the whole drive, sent and applied at one moment.
    pub fn look(&mut self, service: &Service) {
        self.looked = self.next_seq();
        self.looked_at = service.tick;
        for number in service.subtree(ROOT).into_iter().skip(1) {
            if self.row_of(&item_id(number)).is_some() || !self.is_being_made(service, number) {
                self.see(service, number);
            }
        }
        let known: Vec<(NodeId, u32)> = self
            .rows
            .values()
            .filter_map(|row| Some((row.id, number_of(&row.remote.as_ref()?.item))))
            .collect();
        for (_, number) in known.iter().filter(|(_, number)| service.get(*number).is_none()) {
            self.see(service, *number);
        }
    }

    fn is_being_made(&self, service: &Service, number: u32) -> bool {
        let item = service.get(number).expect("listed");
        let Some(parent) = self.row_of(&item_id(item.parent)) else { return false };
        self.attempts.keys().any(|id| {
            let new = self.rows.get(id).is_some_and(|row| row.remote.is_none() && row.base.is_none());
            new && self
                .place(*id)
                .is_some_and(|(at, name)| at == parent && names::fold(&name) == names::fold(&item.name))
        })
    }

    /// Reads one item by its id.
    pub fn see(&mut self, service: &Service, number: u32) {
        if number == ROOT {
            return;
        }
        let Some(item) = service.get(number) else {
            if let Some(row) = self.row_of(&item_id(number)) {
                self.vanish(row, &mut Vec::new());
            }
            return;
        };
        let parent = match self.row_of(&item_id(item.parent)) {
            Some(parent) => parent,
            None => {
                self.see(service, item.parent);
                self.row_of(&item_id(item.parent)).expect("seen just now")
            }
        };
        let id = self.row_of(&item_id(number)).unwrap_or_else(|| self.insert(item.folder));
        self.rows.get_mut(&id).expect("there").remote = Some(view(number, item, parent));
    }

    /// The item is gone. True if something unsent keeps the row alive.
    /// `above`: the rows that brought us here.
    fn vanish(&mut self, id: NodeId, above: &mut Vec<NodeId>) -> bool {
        match above.first() {
            None => self.open_circle(id),
            Some(&top) => {
                if let Some(moved_here) = self.lives_elsewhere(id, top) {
                    return moved_here;
                }
            }
        }
        assert!(!above.contains(&id), "a folder in itself: {id}");
        above.push(id);
        let mut survivors = false;
        for child in self.children(id) {
            survivors |= self.vanish(child, above);
        }
        above.pop();
        let (place, seq, now) = (self.place(id), self.next_seq(), self.now);
        let Some(row) = self.rows.get_mut(&id) else { return false };
        if row.remote.take().is_none() {
            let is_own = |local: &LocalView| local.content.is_some() || row.base.is_none();
            return survivors || row.local.as_ref().is_some_and(|local| !local.deleted && is_own(local));
        }
        if let Some(local) = &row.local {
            return !local.deleted && (local.content.is_some() || survivors);
        }
        if survivors {
            let (parent, name) = place.expect("a clean row is visible");
            let parent = self.present(parent);
            let row = self.rows.get_mut(&id).expect("looked at above");
            row.local =
                Some(LocalView { changed_seq: seq, changed_at: Timestamp(now), ..local_at(parent, &name) });
            return true;
        }
        self.remove(id);
        false
    }

    /// Where a row is in another folder than on the service, and did not go with `top`: whether it was moved here;
    /// else it follows.
    fn lives_elsewhere(&mut self, id: NodeId, top: NodeId) -> Option<bool> {
        let mut at = id;
        while at != NodeId::ROOT {
            at = self.rows.get(&at)?.remote.as_ref()?.parent.filter(|parent| *parent != top)?;
        }
        let row = self.rows.get_mut(&id)?;
        let (Some(remote), Some(local)) = (&row.remote, &mut row.local) else { return None };
        if local.deleted || Some(local.parent) == remote.parent {
            return None;
        }
        let moved_here = row.base.as_ref().is_none_or(|base| local_placed(base, local));
        if let (false, Some(parent)) = (moved_here, remote.parent) {
            (local.parent, local.name) = (parent, remote.name.clone());
        }
        Some(moved_here)
    }

    /// What was moved here into what was moved into it elsewhere goes back.
    fn open_circle(&mut self, id: NodeId) {
        loop {
            let mut circle = Vec::new();
            let mut at = Some(id);
            while let Some(next) = at.filter(|next| !circle.contains(next)) {
                circle.push(next);
                at = self.place(next).map(|(parent, _)| parent);
            }
            if at.is_none() {
                return;
            }
            let moved: Vec<bool> = circle.into_iter().map(|at| self.put_back(at)).collect();
            if !moved.contains(&true) {
                return self.move_to_root(id);
            }
        }
    }

    /// The folder, or the root where it is gone.
    fn present(&self, folder: NodeId) -> NodeId {
        if self.rows.contains_key(&folder) { folder } else { NodeId::ROOT }
    }

    fn move_to_root(&mut self, id: NodeId) {
        let row = self.rows.get_mut(&id).expect("it is gone, but not here");
        match (&mut row.local, &mut row.remote) {
            (Some(local), _) => local.parent = NodeId::ROOT,
            (None, Some(view)) => view.parent = Some(NodeId::ROOT),
            (None, None) => {}
        }
    }

    fn put_back(&mut self, id: NodeId) -> bool {
        let row = &self.rows[&id];
        let (Some(local), Some(home)) = (&row.local, row.remote.clone().or(row.base.clone())) else {
            return false;
        };
        let Some(parent) = home.parent.filter(|parent| *parent != local.parent) else { return false };
        let parent = self.present(parent);
        let local = self.rows.get_mut(&id).and_then(|row| row.local.as_mut()).expect("looked at above");
        local.parent = parent;
        if !is_swap_name(&home.name) {
            local.name = home.name;
        }
        true
    }

    // ---- what operations do here ----

    pub fn seal(&mut self, id: NodeId, content: Content) {
        let local = self.rows.get_mut(&id).and_then(|row| row.local.as_mut()).expect("it was planned");
        assert_eq!(local.content, Some(content));
        local.seal = Some(seal_of(content));
    }

    pub fn settle(&mut self, id: NodeId, outcome: &Outcome) {
        let seq = self.next_seq();
        let row = self.rows.get_mut(&id).expect("it was planned");
        match outcome {
            Outcome::Rebase(next) => {
                let mut next = LocalView::clone(next);
                if next.parent != NodeId::ROOT && !self.rows.contains_key(&next.parent) {
                    let local = self.rows[&id].local.clone().expect("dirty");
                    (next.parent, next.name) = (local.parent, local.name);
                }
                let row = self.rows.get_mut(&id).expect("it was planned");
                (row.base, row.local) = (row.remote.clone(), Some(next));
            }
            Outcome::TakeRemote { .. } => (row.base, row.local) = (None, None),
            Outcome::ConflictCopy => {
                let (local, folder) = (row.local.take().expect("dirty"), row.kind.is_directory());
                row.base = row.remote.clone().filter(|view| is_swap_name(&view.name));
                row.local = row.base.is_some().then(|| only_placed(&local));
                let copy = self.insert(folder);
                let name = self.free_name(local.parent, &local.name);
                let local = LocalView { name, changed_seq: seq, retry_at: Timestamp(0), ..local };
                self.rows.get_mut(&copy).expect("made").local = Some(local);
            }
            Outcome::Recreate => {
                row.base = None;
                row.local.as_mut().expect("dirty").changed_seq = seq;
            }
            Outcome::Gone => {
                if self.children(id).is_empty() {
                    return self.remove(id);
                }
                self.open_circle(id);
                let row = self.rows.get_mut(&id).expect("there");
                let local = row.local.take().expect("dirty");
                let base = row.base.take();
                let parent = self.present(local.parent);
                let seen = |view| RemoteView { parent: Some(parent), name: local.name, ..view };
                self.rows.get_mut(&id).expect("there").remote = base.map(seen);
                self.vanish(id, &mut Vec::new());
            }
        }
    }

    pub fn yield_name(&mut self, id: NodeId, to: NodeId, how: NameTaken) {
        match how {
            NameTaken::TakeBack => unreachable!("no delete waits for a confirmation here"),
            NameTaken::ConflictName => {
                let (parent, name) = self.place(id).expect("it wants a name");
                let (name, seq) = (self.free_name(parent, &name), self.next_seq());
                let local = self.rows.get_mut(&id).and_then(|row| row.local.as_mut()).expect("dirty");
                (local.name, local.changed_seq) = (name, seq);
            }
            NameTaken::Merge => {
                let Some(theirs) = self.rows.get(&to).and_then(|row| row.remote.clone()) else { return };
                self.adopt_children(to, id);
                self.remove(to);
                let row = self.rows.get_mut(&id).expect("it was planned");
                (row.remote, row.local, row.base) = (Some(theirs), None, None);
            }
        }
    }

    fn free_name(&self, folder: NodeId, name: &str) -> String {
        let candidates = (0..).map(|number| format!("{name} (conflict {number})"));
        candidates.into_iter().find(|name| !self.is_taken(folder, name, None)).expect("one of them is free")
    }

    fn adopt_children(&mut self, from: NodeId, to: NodeId) {
        for row in self.rows.values_mut() {
            let remotes = [row.remote.as_mut(), row.base.as_mut()].into_iter().flatten();
            remotes.filter(|view| view.parent == Some(from)).for_each(|view| view.parent = Some(to));
            if let Some(local) = row.local.as_mut().filter(|local| local.parent == from) {
                local.parent = to;
            }
        }
    }

    // ---- what the service answered ----

    pub fn refused(&mut self, id: NodeId, unknown: bool) {
        match self.attempts.get_mut(&id) {
            Some(attempt) if unknown => attempt.1 = true,
            _ => drop(self.attempts.remove(&id)),
        }
        let retry_at = Timestamp(self.now + 1);
        if let Some(local) = self.rows.get_mut(&id).and_then(|row| row.local.as_mut()) {
            local.retry_at = retry_at;
        }
    }

    /// The operation happened, and the answer describes the item thus.
    pub fn succeeded(&mut self, service: &Service, id: NodeId, send: &Send, answer: (u32, Described)) {
        self.attempts.remove(&id);
        self.copies.retain(|_, (_, copy)| Some(*copy) != send.content());
        let made = answer.0;
        let now = RemoteNow { service, number: made, item: answer.1 };
        let still = self.rows.get(&id).filter(|row| {
            let known = row.remote.as_ref().or(row.base.as_ref().filter(|_| send.item().is_some()));
            known.map(|view| &view.item) == send.item()
        });
        if still.is_none() {
            return self.somebody_elses(&now, send);
        }
        let mut doubted = false;
        if let Some(twin) = self.row_of(&item_id(made)).filter(|twin| *twin != id) {
            if self.rows[&twin].local.is_some() {
                return;
            }
            doubted = true;
            self.adopt_children(twin, id);
            self.remove(twin);
        }
        let Some(view) = now.view(self) else { return };
        let row = self.rows.get_mut(&id).expect("looked at above");
        let known = row.remote.as_ref().and_then(|old| old.version.etag.as_ref());
        doubted |= send.if_match().is_some() && known != send.if_match();
        row.remote = Some(view.clone());
        self.finish_local(id, send, view);
        if doubted {
            self.see(service, made);
        }
    }

    /// What is left to send after an operation.
    fn finish_local(&mut self, id: NodeId, send: &Send, view: RemoteView) {
        let row = self.rows.get_mut(&id).expect("it was looked at");
        let Some(local) = row.local.as_mut() else { return };
        local.retry_at = Timestamp(0);
        if send.content().is_some() && local.content == send.content() {
            (local.content, local.seal) = (None, None);
        }
        local.mtime_set &= !view.has_second_of(local.mtime);
        let placed = view.parent != Some(local.parent) || view.name != local.name;
        let start = start_after(send, row.base.as_ref(), &view);
        let left = local.deleted || local.content.is_some() || local.mtime_set || placed || start != view;
        (row.base, row.local) = if left { (Some(start), row.local.take()) } else { (None, None) };
    }

    fn somebody_elses(&mut self, now: &RemoteNow<'_>, send: &Send) {
        let Some(view) = now.view(self) else { return };
        if send.item().is_some() {
            let Some(heir) = self.row_of(&view.item) else { return self.see(now.service, now.number) };
            let row = self.rows.get_mut(&heir).expect("found");
            let old = row.remote.replace(view.clone());
            if row.local.is_some() && row.base == old {
                row.base = Some(start_after(send, old.as_ref(), &view));
            }
            return;
        }
        let ghost = match self.row_of(&view.item) {
            Some(seen) if self.rows[&seen].local.is_some() || self.rows[&seen].kind.is_directory() => return,
            Some(seen) => seen,
            None => self.insert(now.item.folder),
        };
        let (seq, at) = (self.next_seq(), self.now);
        let local = local_at(view.parent.expect("no root"), &view.name);
        let local = LocalView { deleted: true, changed_seq: seq, changed_at: Timestamp(at), ..local };
        let row = self.rows.get_mut(&ghost).expect("there");
        (row.remote, row.base, row.local) = (Some(view.clone()), Some(view), Some(local));
    }

    pub fn deleted(&mut self, id: NodeId, send: &Send) {
        self.attempts.remove(&id);
        let item = send.item().expect("deletes name one");
        if let Some(heir) = self.row_of(item).filter(|heir| *heir != id) {
            let row = self.rows.get_mut(&heir).expect("found");
            (row.remote, row.base) = (None, None);
        }
        let is_deleted = |row: &Node| row.local.as_ref().is_some_and(|local| local.deleted);
        let mut gone = vec![id];
        let mut next = 0;
        while let Some(&at) = gone.get(next) {
            for row in self.rows.values_mut().filter(|row| row.local.is_some()) {
                if row.remote.as_ref().is_some_and(|view| view.parent == Some(at)) {
                    if is_deleted(row) {
                        gone.push(row.id);
                    } else {
                        row.remote = None;
                    }
                }
            }
            next += 1;
        }
        for at in gone.into_iter().rev() {
            let is_empty = self.children(at).is_empty();
            match self.rows.get_mut(&at) {
                Some(row) if !is_deleted(row) => row.remote = None,
                Some(row) if !is_empty && row.remote.is_none() => self.settle(at, &Outcome::Gone),
                Some(row) if !is_empty => {
                    (row.local, row.base) = (None, None);
                    self.vanish(at, &mut Vec::new());
                }
                Some(row) if self.writers.contains(&at) => row.remote = None,
                Some(_) => self.remove(at),
                None => {}
            }
        }
    }
}

/// An item in an answer of the service.
struct RemoteNow<'a> {
    service: &'a Service,
    number: u32,
    item: Described,
}

impl RemoteNow<'_> {
    /// None where the folder it was in is gone by now: the next look tells.
    fn view(&self, machine: &mut Machine) -> Option<RemoteView> {
        let parent = item_id(self.item.parent);
        if machine.row_of(&parent).is_none() && self.service.get(self.item.parent).is_some() {
            machine.see(self.service, self.item.parent);
        }
        Some(view(self.number, &self.item, machine.row_of(&parent)?))
    }
}

fn seal_of(content: Content) -> Seal {
    Seal { size: content, blake3: [0; 32], quick_xor: hash_of(content) }
}
