//! Plans are carried out: requests leave, arrive, are answered or not; and what must hold all the while.

use super::{
    BTreeMap, BTreeSet, Fate, Flight, Item, NodeId, Op, Plan, Play, ROUNDS, Send, item_id, names, number_of,
    plan,
};
use crate::engine::conflict::is_current;
use crate::engine::planner::{Item as Dirty, World, is_swap_name, local};
use crate::store::NodeKind;

impl Play {
    /// Plans, and begins the operations whose bit is set.
    pub(super) fn begin(&mut self, mask: u8) -> Plan {
        let world = self.machine.world(self.hurry);
        let planned = plan(&world);
        self.check_plan(&world, &planned);
        for (number, (id, op)) in planned.ops.iter().enumerate() {
            // As the engine does: only if the row still is what it was planned for.
            let unchanged = self.machine.rows.get(id) == Some(&world.dirty[id].node);
            if mask >> (number % 8) & 1 == 1 && unchanged {
                self.perform(*id, op.clone());
            }
        }
        planned
    }

    fn perform(&mut self, id: NodeId, op: Op) {
        match op {
            Op::Forget => self.machine.remove(id),
            Op::Settle(outcome) => self.machine.settle(id, &outcome),
            Op::Yield { to, how } => self.machine.yield_name(id, to, how),
            Op::BringHome => unreachable!("no row goes away under what is in it"),
            Op::Seal { content } => self.machine.seal(id, content),
            Op::Copy { content } => {
                self.contents += 1;
                self.machine.copy(id, content, self.contents);
            }
            Op::Verify(send) => self.verify(id, &send),
            Op::Send(send) => {
                self.machine.attempts.insert(id, (send.clone(), false));
                let looked_at = self.machine.looked_at;
                self.flights.push(Flight { row: id, send, looked_at, result: None });
            }
        }
    }

    /// A request arrives at the service.
    pub(super) fn arrive(&mut self, which: usize) {
        let waiting: Vec<usize> =
            (0..self.flights.len()).filter(|at| self.flights[*at].result.is_none()).collect();
        if !waiting.is_empty() {
            self.arrive_at(waiting[which % waiting.len()]);
        }
    }

    fn arrive_at(&mut self, at: usize) {
        let Flight { send, looked_at, .. } = self.flights[at].clone();
        let result = self.service.execute(&send).map(|(made, gone)| {
            self.excuse(&gone, looked_at);
            made.map(|made| (made, self.service.get(made).expect("made just now").clone()))
        });
        self.flights[at].result = Some(result);
    }

    /// What another client put into a folder after our look at it goes with it: S43 says so.
    fn excuse(&mut self, gone: &[(u32, Item)], looked_at: u64) {
        for (_, item) in gone.iter().skip(1).filter(|(_, item)| item.at > looked_at) {
            self.owed.remove(&item.content);
            item.versions.iter().for_each(|version| {
                self.owed.remove(version);
            });
        }
    }

    /// An answer arrives, or does not.
    pub(super) fn answer(&mut self, which: usize, fate: Fate) {
        if self.flights.is_empty() {
            return;
        }
        let at = which % self.flights.len();
        if self.flights[at].result.is_none() && fate == Fate::Well {
            self.arrive_at(at);
        }
        let Flight { row, send, result, .. } = self.flights.remove(at);
        match (result, fate) {
            (None, Fate::Refused) => self.machine.refused(row, false),
            (None, _) | (Some(_), Fate::Lost) => self.machine.refused(row, true),
            (Some(Ok(Some(made))), _) => self.machine.succeeded(&self.service, row, &send, made),
            (Some(Ok(None)), _) => self.machine.deleted(row, &send),
            (Some(Err(_)), _) => {
                self.look_again(&send);
                self.machine.refused(row, false);
            }
        }
    }

    fn look_again(&mut self, send: &Send) {
        for item in send.item().into_iter().chain(send.target_folder()) {
            self.machine.see(&self.service, number_of(item));
        }
        let now = send.item().and_then(|item| self.service.get(number_of(item)));
        let folder = send.target_folder().map(number_of).or(now.map(|item| item.parent));
        let moved = now.filter(|_| matches!(send, Send::Move { .. })).map(|item| item.name.as_str());
        if let (Some(folder), Some(name)) = (folder, wanted_name(send).or(moved))
            && let Some(holder) = self.service.child(folder, name)
        {
            self.machine.see(&self.service, holder);
        }
    }

    /// Asks what became of a request without an answer.
    fn verify(&mut self, id: NodeId, send: &Send) {
        let found = match send {
            Send::Mkdir { parent, name } | Send::Create { parent, name, .. } => {
                self.service.child(number_of(parent), name)
            }
            _ => send.item().map(number_of).filter(|number| self.service.get(*number).is_some()),
        };
        let Some(number) = found else {
            if matches!(send, Send::Delete { .. }) {
                return self.machine.deleted(id, send);
            }
            if let Some(item) = send.item() {
                self.machine.see(&self.service, number_of(item));
            }
            drop(self.machine.attempts.remove(&id));
            return;
        };
        let item = self.service.get(number).expect("found just now").clone();
        if is_ours(send, &item) {
            return self.machine.succeeded(&self.service, id, send, (number, item));
        }
        self.machine.see(&self.service, number);
        self.machine.attempts.remove(&id);
    }

    /// The machine dies and starts again. Requests on their way arrive, or not.
    pub(super) fn crash(&mut self, mask: u8) {
        for at in 0..self.flights.len() {
            if mask >> (at % 8) & 1 == 1 && self.flights[at].result.is_none() {
                self.arrive_at(at);
            }
        }
        self.flights.clear();
        self.machine.close_all();
        self.machine.attempts.values_mut().for_each(|(_, unknown)| *unknown = true);
    }

    // ---- what must hold ----

    fn check_plan(&self, world: &World, planned: &Plan) {
        let nodes: BTreeSet<NodeId> = planned.ops.iter().map(|(id, _)| *id).collect();
        assert_eq!(nodes.len(), planned.ops.len(), "one operation a node");
        for (id, op) in &planned.ops {
            let item = &world.dirty[id];
            assert_ne!(
                item.attempt,
                Some(super::super::AttemptState::InFlight),
                "nothing is planned for what is on its way: {op:?}"
            );
            match op {
                Op::Send(send) => self.check_send(*id, item, send),
                Op::Seal { content } => {
                    assert!(!item.writer && local(item).content == Some(*content), "{op:?}");
                }
                Op::Copy { content } => {
                    assert!(item.writer && local(item).content == Some(*content), "{op:?}");
                    assert!(local(item).seal.is_none(), "what is sealed is sent itself: {op:?}");
                }
                Op::Verify(sent) => {
                    assert_eq!(item.attempt, Some(super::super::AttemptState::Unknown(sent.clone())));
                }
                Op::Forget | Op::Settle(_) | Op::Yield { .. } | Op::BringHome => {
                    assert_eq!(item.attempt, None, "{op:?}")
                }
            }
        }
    }

    fn check_send(&self, id: NodeId, item: &Dirty, send: &Send) {
        let (row, local) = (&item.node, local(item));
        assert_eq!(
            item.attempt, None,
            "what may have happened is verified before anything is sent: {send:?}"
        );
        match &row.remote {
            None => assert!(send.item().is_none() && row.base.is_none(), "nothing is known of {send:?}"),
            Some(remote) => {
                assert_eq!(send.item(), Some(&remote.item), "{send:?}");
                let base = row.base.as_ref().expect("a change of an item has a base");
                assert!(is_current(base, Some(remote)), "a stale base is settled first: {send:?}");
                let folder = matches!(send, Send::Delete { folder: true, .. });
                let tag = if folder { None } else { remote.version.etag.as_ref() };
                assert_eq!(send.if_match(), tag, "the precondition of its row: {send:?}");
                assert!(folder || tag.is_some(), "nothing is changed without a precondition: {send:?}");
            }
        }
        let others = self.machine.attempts.iter().filter(|(other, _)| **other != id);
        let claims = others.filter_map(|(_, (sent, _))| sent.item());
        assert!(
            claims.into_iter().all(|other| Some(other) != send.item()),
            "two requests for an item: {send:?}"
        );
        if let Some(content) = send.content() {
            let is_sealed = local.seal.is_some() && local.content == Some(content);
            let copy = item.held.as_ref().and_then(|held| held.copy.as_ref());
            assert!(is_sealed || copy.is_some_and(|(copy, _)| *copy == content), "sealed: {send:?}");
        }
        if let Some(folder) = send.target_folder() {
            assert_eq!(self.machine.row_of(folder), Some(local.parent), "{send:?}");
        }
        self.check_name(id, item, send);
        if matches!(send, Send::Delete { .. }) {
            assert!(local.deleted && !item.open, "{send:?}");
            self.check_delete(id, local.changed_seq);
        } else {
            let only_in_the_way =
                matches!(send, Send::Move { parent: None, name: Some(name), .. } if is_swap_name(name));
            assert!(!local.deleted || only_in_the_way, "{send:?}");
        }
    }

    /// A name is taken only after whoever holds it, as far as is known, has left.
    fn check_name(&self, id: NodeId, item: &Dirty, send: &Send) {
        let Some(name) = wanted_name(send).filter(|name| !is_swap_name(name)) else { return };
        let (folder, wanted) = (Some(local(item).parent), names::fold(name));
        let holds =
            |view: &crate::store::RemoteView| view.parent == folder && names::fold(&view.name) == wanted;
        let others = self.machine.rows.values().filter(|row| row.id != id);
        let held = others.filter_map(|row| row.remote.as_ref()).find(|view| holds(view));
        assert_eq!(held, None, "{send:?}");
    }

    /// All that is known below was deleted here, and a look after the last unlink has shown nothing more.
    fn check_delete(&self, top: NodeId, changed_seq: u64) {
        if self.machine.rows[&top].kind == NodeKind::File {
            return;
        }
        assert!(self.machine.looked >= changed_seq, "deleted after the look");
        let mut stack = vec![top];
        while let Some(at) = stack.pop() {
            let inside = |view: &crate::store::RemoteView| view.parent == Some(at);
            for row in self.machine.rows.values().filter(|row| row.remote.as_ref().is_some_and(inside)) {
                let local = row.local.as_ref().expect("something clean is inside");
                assert!(local.deleted, "something that is not deleted is inside: {row:?}");
                assert!(self.machine.looked >= local.changed_seq, "deleted after the look: {row:?}");
                stack.push(row.id);
            }
        }
    }

    /// Nobody does anything more, and nothing fails any more.
    pub(super) fn finish(mut self) {
        self.machine.close_all();
        self.hurry = true;
        for round in 0..ROUNDS {
            self.machine.now += 10;
            let planned = self.begin(0xff);
            self.trace(&planned.ops);
            while !self.flights.is_empty() {
                self.answer(0, Fate::Well);
            }
            if planned.ops.is_empty() || planned.wants_look || round % 10 == 9 {
                self.machine.look(&self.service);
                let dirty = self.machine.rows.values().any(|row| row.local.is_some());
                if planned.ops.is_empty() && !dirty {
                    return self.check_end();
                }
            }
        }
        panic!("it does not come to an end:\n{}", self.show());
    }

    fn check_end(&self) {
        let mut rows = BTreeMap::new();
        for row in self.machine.rows.values() {
            let view = row.remote.as_ref().expect("a clean row stands for an item");
            let item = self.service.get(number_of(&view.item)).expect("a row of an item that is gone");
            let parent = self.machine.row_of(&item_id(item.parent)).expect("folders have rows");
            assert_eq!(*view, super::service::view(number_of(&view.item), item, parent));
            assert!(rows.insert(number_of(&view.item), row.id).is_none(), "two rows for one item: {row:?}");
        }
        assert_eq!(rows.len(), self.service.items.len(), "an item without a row");
        assert!(self.service.items.values().all(|item| !is_swap_name(&item.name)), "a temporary name stays");
        let there = self.service.contents();
        let lost: Vec<_> = self.owed.difference(&there).collect();
        assert!(lost.is_empty(), "lost: {lost:?} of\n{}", self.show());
    }
}

fn wanted_name(send: &Send) -> Option<&str> {
    match send {
        Send::Mkdir { name, .. } | Send::Create { name, .. } => Some(name),
        Send::Move { name, .. } => name.as_deref(),
        Send::Replace { .. } | Send::SetTime { .. } | Send::Delete { .. } => None,
    }
}

/// Whether the item is what the request would have made of it.
fn is_ours(send: &Send, item: &Item) -> bool {
    match send {
        Send::Mkdir { .. } => item.folder,
        Send::Create { content, .. } => item.content == *content && !item.folder,
        Send::Replace { content, if_match, .. } => {
            item.content == *content
                && if_match.as_ref().map(|tag| tag.as_str()) != Some(&format!("e{}", item.etag))
        }
        Send::Move { parent, name, .. } => {
            name.as_ref().is_none_or(|name| item.name == *name)
                && parent.as_ref().is_none_or(|parent| item.parent == number_of(parent))
        }
        Send::SetTime { mtime, .. } => crate::model::Timestamp(item.mtime).same_second(*mtime),
        Send::Delete { .. } => false,
    }
}
