//! The planner under every order of events that chance comes up with: edits here and elsewhere, operations carried
//! out in any order, refused, lost before or after their effect, crashes in between.
//!
//! Each case ends quietly, and then: the machine and the service agree; every content that was written and that
//! nobody replaced or deleted knowingly is there; nothing was sent without the precondition that its row allows.
//!
//! `PLANNER_CASES` raises the number of cases; a failing one is added to `proptest-regressions/`.

mod flights;
mod machine;
mod service;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use self::machine::Machine;
use self::service::{Content, Item, ROOT, Refusal, Service, item_id, number_of};
use super::{Op, Plan, Send, plan};
use crate::model::{NodeId, Timestamp, names};
use crate::store::NodeKind;

/// So many plans settle everything that these small trees can hold.
const ROUNDS: usize = 300;

/// What happens next. The numbers choose among what there is.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A program here: which operation, on what, to where, under which name.
    Here(u8, u8, u8, u8),
    /// Another client.
    There(u8, u8, u8, u8),
    /// A handle for writing is opened or closed.
    Writer(u8),
    /// Some operations of a plan begin: those whose bit is set.
    Plan(u8),
    /// The service gets a request.
    Arrive(u8),
    /// An answer arrives; or it is lost, or refuses for no reason.
    Answer(u8, Fate),
    Look,
    Crash(u8),
    Wait(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Well,
    /// The connection breaks before the request arrives (if it has not), or before the answer does.
    Lost,
    /// 429, 503, 507: it did not happen. Only where it has not arrived.
    Refused,
}

fn event() -> impl Strategy<Value = Event> {
    let four = (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>());
    let fate = prop_oneof![4 => Just(Fate::Well), 1 => Just(Fate::Lost), 1 => Just(Fate::Refused)];
    prop_oneof![
        10 => four.prop_map(|(a, b, c, d)| Event::Here(a, b, c, d)),
        5 => four.prop_map(|(a, b, c, d)| Event::There(a, b, c, d)),
        1 => any::<u8>().prop_map(Event::Writer),
        6 => any::<u8>().prop_map(Event::Plan),
        6 => any::<u8>().prop_map(Event::Arrive),
        6 => (any::<u8>(), fate).prop_map(|(which, fate)| Event::Answer(which, fate)),
        2 => Just(Event::Look),
        1 => any::<u8>().prop_map(Event::Crash),
        1 => (0u8..6).prop_map(Event::Wait),
    ]
}

/// A request on its way, and what the service made of it once it has arrived.
#[derive(Clone, Debug)]
struct Flight {
    row: NodeId,
    send: Send,
    /// The service's count of changes at the look that it was planned by.
    looked_at: u64,
    result: Option<Result<Option<(u32, Item)>, Refusal>>,
}

#[derive(Debug, Default)]
struct Play {
    service: Service,
    machine: Machine,
    flights: Vec<Flight>,
    contents: Content,
    /// Contents that must not be lost.
    owed: BTreeSet<Content>,
    hurry: bool,
}

fn pick<T: Copy>(from: &[T], number: u8) -> Option<T> {
    (!from.is_empty()).then(|| from[usize::from(number) % from.len()])
}

const NAMES: [&str; 5] = ["a", "b", "c", "A", "d"];

fn name(number: u8) -> &'static str {
    NAMES[usize::from(number) % NAMES.len()]
}

impl Play {
    fn new(tree: &[(u8, u8, bool)]) -> Self {
        let mut play = Self { machine: Machine::new(), ..Self::default() };
        for &(parent, called, folder) in tree {
            let folders: Vec<u32> = play.folders_there();
            let content = play.write_new(folder);
            let parent = pick(&folders, parent).expect("the root is one");
            if play.service.add(parent, name(called), folder, content).is_err() {
                play.owed.remove(&content);
            }
        }
        play.machine.look(&play.service);
        play
    }

    fn write_new(&mut self, folder: bool) -> Content {
        if folder {
            return 0;
        }
        self.contents += 1;
        self.owed.insert(self.contents);
        self.contents
    }

    fn folders_there(&self) -> Vec<u32> {
        let folders = self.service.items.iter().filter(|(_, item)| item.folder).map(|(number, _)| *number);
        std::iter::once(ROOT).chain(folders).collect()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Here(what, who, to, called) => self.here(what, who, to, called),
            Event::There(what, who, to, called) => self.there(what, who, to, called),
            Event::Writer(who) => {
                let files: Vec<NodeId> = self.visible(|kind| kind == NodeKind::File);
                let Some(id) = pick(&files, who) else { return };
                self.machine.copies.remove(&id);
                if !self.machine.writers.remove(&id) {
                    self.machine.writers.insert(id);
                }
            }
            Event::Plan(mask) => drop(self.begin(mask)),
            Event::Arrive(which) => self.arrive(usize::from(which)),
            Event::Answer(which, fate) => self.answer(usize::from(which), fate),
            Event::Look => self.machine.look(&self.service),
            Event::Crash(mask) => self.crash(mask),
            Event::Wait(time) => self.machine.now += i64::from(time),
        }
        self.machine.now += 1;
    }

    // ---- programs here ----

    fn visible(&self, wanted: impl Fn(NodeKind) -> bool) -> Vec<NodeId> {
        let seen = self.machine.rows.values().filter(|row| wanted(row.kind)).map(|row| row.id);
        seen.filter(|id| self.is_reachable(*id)).collect()
    }

    /// A program gets there from the root.
    fn is_reachable(&self, id: NodeId) -> bool {
        let mut at = id;
        for _ in 0..64 {
            match self.machine.place(at) {
                Some((parent, _)) if parent == NodeId::ROOT => return true,
                Some((parent, _)) => at = parent,
                None => return false,
            }
        }
        false
    }

    fn is_below(&self, id: NodeId, above: NodeId) -> bool {
        let mut at = id;
        for _ in 0..64 {
            if at == above {
                return true;
            }
            match self.machine.place(at) {
                Some((parent, _)) => at = parent,
                None => return false,
            }
        }
        true
    }

    fn here(&mut self, what: u8, who: u8, to: u8, called: u8) {
        let mut folders = self.visible(NodeKind::is_directory);
        folders.push(NodeId::ROOT);
        let (files, all) = (self.visible(|kind| kind == NodeKind::File), self.visible(|_| true));
        let folder = pick(&folders, to).expect("the root is one");
        match what % 12 {
            0 | 1 => self.make(folder, name(called), false),
            2 => self.make(folder, name(called), true),
            3..=5 => {
                let Some(id) = pick(&files, who) else { return };
                let content = self.write_new(false);
                self.forget_unsent(id);
                self.machine.change(id, |local| {
                    (local.content, local.size, local.seal) = (Some(content), content, None);
                    local.mtime_set = false;
                });
            }
            6 => {
                let Some(id) = pick(&files, who) else { return };
                let mtime = Timestamp(i64::from(called) * 1_000_000_000);
                self.machine.change(id, |local| (local.mtime, local.mtime_set) = (mtime, true));
            }
            7 | 8 => {
                let Some(id) = pick(&all, who) else { return };
                if !self.machine.is_taken(folder, name(called), Some(id)) {
                    self.move_here(id, folder, name(called));
                }
            }
            9 => self.replace(pick(&files, who), pick(&files, to)),
            10 => self.swap(pick(&all, who), pick(&all, to)),
            _ => {
                let Some(id) = pick(&all, who) else { return };
                self.unlink_tree(id);
            }
        }
    }

    fn make(&mut self, folder: NodeId, name: &str, is_folder: bool) {
        if self.machine.is_taken(folder, name, None) {
            return;
        }
        let content = self.write_new(is_folder);
        let id = self.machine.insert(is_folder);
        let mut local = crate::engine::testing::local_at(folder, name);
        local.content = (!is_folder).then_some(content);
        self.machine.rows.get_mut(&id).expect("made").local = Some(local);
        self.machine.change(id, |_| {});
    }

    fn move_here(&mut self, id: NodeId, folder: NodeId, name: &str) {
        if !self.is_below(folder, id) {
            self.machine.change(id, |local| (local.parent, local.name) = (folder, name.to_owned()));
        }
    }

    /// `mv` over another file.
    fn replace(&mut self, source: Option<NodeId>, target: Option<NodeId>) {
        let (Some(source), Some(target)) = (source, target) else { return };
        if source == target {
            return;
        }
        let Some((parent, name)) = self.machine.place(target) else { return };
        let row = &self.machine.rows[&source];
        let (never_sent, theirs) = (row.remote.is_none() && row.base.is_none(), &self.machine.rows[&target]);
        let item = (theirs.remote.clone(), theirs.base.clone().or(theirs.remote.clone()));
        self.forget_content(target);
        let takes_the_item = never_sent && item.1.is_some();
        if takes_the_item {
            let row = self.machine.rows.get_mut(&target).expect("there");
            if row.local.is_none() {
                row.local = Some(crate::engine::testing::local_at(parent, &name));
            }
            (row.remote, row.base) = (None, None);
        }
        self.retire(target);
        self.machine.change(source, |local| (local.parent, local.name) = (parent, name));
        if takes_the_item {
            let row = self.machine.rows.get_mut(&source).expect("there");
            (row.remote, row.base) = item;
        }
    }

    fn swap(&mut self, one: Option<NodeId>, other: Option<NodeId>) {
        let (Some(one), Some(other)) = (one, other) else { return };
        let (Some(first), Some(second)) = (self.machine.place(one), self.machine.place(other)) else {
            return;
        };
        if self.is_below(second.0, one) || self.is_below(first.0, other) {
            return;
        }
        self.machine.change(one, |local| (local.parent, local.name) = second);
        self.machine.change(other, |local| (local.parent, local.name) = first);
    }

    fn unlink_tree(&mut self, top: NodeId) {
        for child in self.machine.children(top) {
            self.unlink_tree(child);
        }
        self.forget_content(top);
        self.retire(top);
    }

    fn retire(&mut self, id: NodeId) {
        let row = &self.machine.rows[&id];
        let busy = self.machine.attempts.contains_key(&id) || self.machine.writers.contains(&id);
        if !busy && row.remote.is_none() && row.base.is_none() {
            return self.machine.remove(id);
        }
        self.machine.change(id, |local| {
            local.deleted = true;
            if !busy {
                (local.content, local.seal) = (None, None);
            }
        });
    }

    fn forget_unsent(&mut self, id: NodeId) {
        let row = &self.machine.rows[&id];
        if let Some(content) = row.local.as_ref().and_then(|local| local.content) {
            self.owed.remove(&content);
        }
    }

    /// The user gives up what they see in the file: what is unsent, and the version that the service showed.
    fn forget_content(&mut self, id: NodeId) {
        self.forget_unsent(id);
        let Some(view) = self.machine.rows[&id].remote.clone().or(self.machine.rows[&id].base.clone()) else {
            return;
        };
        let seen = view.version.size.unwrap_or(0);
        self.owed.remove(&seen);
        // Versions before the one that was seen are given up with it.
        if let Some(item) = self.service.get(number_of(&view.item)) {
            let older = item.versions.iter().take_while(|version| **version != seen);
            older.for_each(|version| {
                self.owed.remove(version);
            });
        }
    }

    // ---- another client ----

    fn there(&mut self, what: u8, who: u8, to: u8, called: u8) {
        let all: Vec<u32> = self.service.items.keys().copied().collect();
        let files: Vec<u32> = all.iter().copied().filter(|number| !self.service.is_folder(*number)).collect();
        let folder = pick(&self.folders_there(), to).expect("the root is one");
        match what % 8 {
            0 | 1 => {
                let is_folder = what % 8 == 1;
                let content = self.write_new(is_folder);
                if self.service.add(folder, name(called), is_folder, content).is_err() {
                    self.owed.remove(&content);
                }
            }
            2..=4 => {
                let Some(number) = pick(&files, who) else { return };
                let content = self.write_new(false);
                self.service.write(number, content).expect("it is there");
            }
            5 | 6 => {
                let Some(number) = pick(&all, who) else { return };
                // A name that is taken, or a folder below itself: the other client thinks better of it.
                let _ = self.service.relocate(number, folder, name(called));
            }
            _ => {
                let Some(number) = pick(&all, who) else { return };
                for (_, gone) in self.service.delete(number) {
                    self.owed.remove(&gone.content);
                    gone.versions.iter().for_each(|version| {
                        self.owed.remove(version);
                    });
                }
            }
        }
    }
}

impl Play {
    /// `PLANNER_TRACE` shows how a case comes about.
    fn trace(&self, event: &dyn std::fmt::Debug) {
        if std::env::var_os("PLANNER_TRACE").is_some() {
            eprintln!("== {event:?}; on their way: {:?}\n{}", self.flights, self.show());
        }
    }

    fn show(&self) -> String {
        use std::fmt::Write;
        let mut shown = String::new();
        for (number, item) in &self.service.items {
            let (name, content, etag) = (&item.name, item.content, item.etag);
            let _ = writeln!(shown, "   I{number} in I{}: {name:?} {content} e{etag}", item.parent);
        }
        for row in self.machine.rows.values() {
            let tags = |view: &crate::store::RemoteView| format!("{:?} {:?}", view.version.etag, view.name);
            let remote = row.remote.as_ref().map(|view| (view.item.as_str(), view.parent, tags(view)));
            let base = row.base.as_ref().map(|view| (view.parent, tags(view)));
            let local = row.local.as_ref().map(|local| {
                (
                    local.parent,
                    &local.name,
                    local.deleted,
                    local.content,
                    local.seal.is_some(),
                    local.mtime_set,
                )
            });
            let attempt = self.machine.attempts.get(&row.id);
            let _ =
                writeln!(shown, "   {}: {remote:?} base {base:?} local {local:?} sent {attempt:?}", row.id);
        }
        shown
    }
}

fn cases() -> u32 {
    std::env::var("PLANNER_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_both_sides_agree_in_the_end_and_nothing_is_lost(
        tree in proptest::collection::vec((any::<u8>(), any::<u8>(), any::<bool>()), 0..8),
        events in proptest::collection::vec(event(), 0..40),
    ) {
        let mut play = Play::new(&tree);
        for event in events {
            play.happen(event);
            play.trace(&event);
        }
        play.finish();
    }
}
