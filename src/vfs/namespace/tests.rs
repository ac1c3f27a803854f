//! What each change does to the views, as tables; and the fixture that the tests of saves share.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsStr;

use super::*;
use crate::model::{ContentVersion, ETag, ItemId};
use crate::store::{Attempt, Durability, RemoteView, Store};

/// A store with a clock, open files and staged content that is only a number.
pub(super) struct World {
    _dir: tempfile::TempDir,
    pub store: Store,
    pub now: Timestamp,
    pub open: BTreeSet<NodeId>,
    /// Staged content with a base below it.
    pub overlays: BTreeSet<u64>,
    /// Nodes whose content is complete in the cache.
    pub complete: BTreeSet<NodeId>,
    /// What programs see of open files.
    pub shown: BTreeMap<NodeId, ContentVersion>,
    pub dropped: RefCell<Vec<u64>>,
}

pub(super) const MINUTE: i64 = 60_000_000_000;

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        Self {
            _dir: dir,
            store,
            now: Timestamp(1_000_000 * MINUTE),
            open: BTreeSet::new(),
            overlays: BTreeSet::new(),
            complete: BTreeSet::new(),
            shown: BTreeMap::new(),
            dropped: RefCell::new(Vec::new()),
        }
    }

    pub fn pass(&mut self, minutes: i64) {
        self.now = Timestamp(self.now.0 + minutes * MINUTE);
    }

    pub fn name(text: &str) -> Name {
        Name::parse(OsStr::new(text), DriveType::Business).unwrap()
    }

    /// Runs a change as the file system does: with content, if it is asked for and there is some.
    pub fn run<T>(
        &self,
        change: impl Fn(Namespace<'_, '_, '_>) -> Result<T, Halt>,
        effect: impl Fn(&T) -> Effect,
    ) -> Result<T, VfsError> {
        let mut offer = Offer::Ask;
        loop {
            let is_open = |id: NodeId| self.open.contains(&id);
            let is_whole = |content: u64| !self.overlays.contains(&content);
            let context = Context {
                now: self.now,
                drive: DriveType::Business,
                is_open: &is_open,
                is_whole: &is_whole,
                offer,
                shown: &self.shown,
            };
            let done =
                self.store.write_changes(Durability::Process, |tx| change(Namespace::new(tx, &context)));
            match done {
                Ok(done) => {
                    self.dropped.borrow_mut().extend(effect(&done.value).dropped);
                    return Ok(done.value);
                }
                Err(Halt::Failed(error)) => return Err(error),
                Err(Halt::Materialise(node)) if self.complete.contains(&node) => {
                    let content = self.store.write(Durability::Process, |tx| tx.next_content()).unwrap();
                    offer = Offer::Have { node, content, size: 5 };
                }
                Err(Halt::Materialise(_)) => offer = Offer::Nothing,
            }
        }
    }

    pub fn create_in(&self, parent: NodeId, name: &str) -> Result<NodeId, VfsError> {
        let content = self.store.write(Durability::Process, |tx| tx.next_content()).unwrap();
        let owner = Owner::default();
        self.run(
            |change| change.create(parent, &Self::name(name), content, owner),
            |made| made.effect.clone(),
        )
        .map(|made| made.node.id)
    }

    pub fn create(&self, name: &str) -> Result<NodeId, VfsError> {
        self.create_in(NodeId::ROOT, name)
    }

    pub fn mkdir(&self, name: &str) -> Result<NodeId, VfsError> {
        let owner = Owner { mode: Some(0o750), ..Owner::default() };
        self.run(|change| change.mkdir(NodeId::ROOT, &Self::name(name), owner), |made| made.effect.clone())
            .map(|made| made.node.id)
    }

    pub fn symlink(&self, name: &str) -> Result<NodeId, VfsError> {
        self.run(
            |change| change.symlink(NodeId::ROOT, &Self::name(name), "target".as_ref(), Owner::default()),
            |made| made.effect.clone(),
        )
        .map(|made| made.node.id)
    }

    pub fn unlink(&self, name: &str) -> Result<Effect, VfsError> {
        self.run(|change| change.unlink(NodeId::ROOT, &Self::name(name)), Effect::clone)
    }

    pub fn rmdir(&self, name: &str) -> Result<Effect, VfsError> {
        self.run(|change| change.rmdir(NodeId::ROOT, &Self::name(name)), Effect::clone)
    }

    pub fn mv(&self, from: &str, to: &str, mode: RenameMode) -> Result<Effect, VfsError> {
        self.mv_in((NodeId::ROOT, from), (NodeId::ROOT, to), mode)
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<Effect, VfsError> {
        self.mv(from, to, RenameMode::Replace)
    }

    pub fn mv_in(
        &self,
        from: (NodeId, &str),
        to: (NodeId, &str),
        mode: RenameMode,
    ) -> Result<Effect, VfsError> {
        let (from_name, to_name) = (Self::name(from.1), Self::name(to.1));
        self.run(|change| change.rename((from.0, &from_name), (to.0, &to_name), mode), Effect::clone)
    }

    /// A node that the service has.
    pub fn sent_in(&self, kind: NodeKind, parent: NodeId, item: &str, name: &str) -> NodeId {
        self.store
            .write(Durability::Process, |tx| {
                let id = tx.insert(kind)?;
                tx.set_remote(id, Some(&view(item, parent, name)))?;
                tx.set_listed(id, true)?;
                Ok(id)
            })
            .unwrap()
    }

    pub fn sent(&self, item: &str, name: &str) -> NodeId {
        self.sent_in(NodeKind::File, NodeId::ROOT, item, name)
    }

    /// The file has unsent content.
    pub fn write(&self, id: NodeId) -> u64 {
        self.store
            .write(Durability::Process, |tx| {
                let content = tx.next_content()?;
                let node = tx.node(id)?;
                let edit = |local: &mut LocalView| (local.content, local.size) = (Some(content), 9);
                change(tx, &node, self.now, edit).map_err(|_| StoreError::NoNode(id))?;
                Ok(content)
            })
            .unwrap()
    }

    pub fn attempt(&self, node: NodeId) {
        let attempt = Attempt {
            node,
            op: "{}".into(),
            content: None,
            sent_seq: 1,
            started_at: self.now,
            unknown: false,
        };
        self.store.write(Durability::Process, |tx| tx.put_attempt(&attempt)).unwrap();
    }

    pub fn node(&self, id: NodeId) -> Node {
        self.store.node(id).unwrap().expect("the row exists").as_ref().clone()
    }

    pub fn is_gone(&self, id: NodeId) -> bool {
        self.store.node(id).unwrap().is_none()
    }

    pub fn at(&self, name: &str) -> Option<NodeId> {
        self.store.child(NodeId::ROOT, Self::name(name).remote()).unwrap().map(|node| node.id)
    }

    /// The item that the file of this name will be sent to.
    pub fn item_at(&self, name: &str) -> Option<String> {
        let node = self.node(self.at(name).expect("the name exists"));
        node.remote.map(|remote| remote.item.as_str().to_owned())
    }

    pub fn names(&self) -> Vec<String> {
        let children = self.store.children_after(NodeId::ROOT, NodeId(0), 100).unwrap();
        let mut names: Vec<_> = children.iter().map(|node| node.place.clone().unwrap().name).collect();
        names.sort();
        names
    }

    /// What holds for every row at all times.
    pub fn check(&self) {
        for node in self.store.dirty().unwrap() {
            let local = node.local.as_ref().unwrap();
            if node.remote.is_none() && node.base.is_none() && node.kind == NodeKind::File {
                assert!(local.content.is_some(), "a file that was never sent has its bytes: {node:?}");
            }
            if node.remote.is_some() && !local.local_only {
                assert!(node.base.is_some(), "a changed item has a base: {node:?}");
            }
            assert!(!(local.local_only && node.remote.is_some()), "local-only is not sent: {node:?}");
        }
    }
}

pub(super) fn view(item: &str, parent: NodeId, name: &str) -> RemoteView {
    RemoteView {
        item: ItemId::new(item),
        parent: Some(parent),
        name: name.into(),
        version: ContentVersion { etag: Some(ETag::new("e1")), size: Some(5), ..ContentVersion::default() },
        mtime: Some(Timestamp(7_000_000_000)),
        btime: Some(Timestamp(7)),
        malware: false,
        actual_size: None,
    }
}

fn errno<T>(result: Result<T, VfsError>) -> i32 {
    result.map_or_else(|error| error.errno(), |_| 0)
}

#[test]
fn a_name_that_differs_only_in_case_from_a_sibling_is_taken() {
    let world = World::new();
    world.sent("I1", "Report.docx");
    world.sent("I2", "other");
    assert_eq!(errno(world.create("report.DOCX")), libc::EEXIST);
    assert_eq!(errno(world.create("Report.docx")), libc::EEXIST);
    assert_eq!(errno(world.mkdir("REPORT.docx")), libc::EEXIST);
    assert_eq!(errno(world.symlink("REPORT.docx")), libc::EEXIST);
    assert_eq!(errno(world.rename("other", "report.docx")), libc::EEXIST);
    assert_eq!(errno(world.rename("Report.docx", "REPORT.docx")), 0, "its own name in another case");
    assert_eq!(world.item_at("REPORT.docx").as_deref(), Some("I1"));
}

#[test]
fn names_that_the_service_refuses_are_refused_except_scratch_names_which_stay_here() {
    let world = World::new();
    for (name, expected) in [("a_vti_b", libc::EINVAL), (".~lock.x.odt#", 0), ("~$x.docx", 0), ("x.swp", 0)] {
        let made = world.create(name);
        assert_eq!(errno(made.map(|_| ())), expected, "{name}");
    }
    assert_eq!(errno(world.create("forms")), libc::EINVAL, "a library keeps it for itself");
    for name in [".~lock.x.odt#", "~$x.docx", "x.swp"] {
        let node = world.node(world.at(name).unwrap());
        assert!(node.local.as_ref().unwrap().local_only && !node.is_dirty(), "{name}");
    }
    let long = "ä".repeat(256);
    assert!(matches!(Name::parse(OsStr::new(&long), DriveType::Business), Err(VfsError::NameTooLong)));
    assert!(Name::parse(OsStr::new("a:b "), DriveType::Business).is_ok(), "mapped to look-alikes");
}

#[test]
fn packages_are_read_only_through_and_through() {
    let mut world = World::new();
    for (kind, name) in [(NodeKind::Package, "Notes")] {
        let id = world.sent_in(kind, NodeId::ROOT, name, name);
        world.sent(&format!("{name}-f"), "f");
        let cases = [
            ("create in", errno(world.create_in(id, "x"))),
            ("remove", errno(world.rmdir(name))),
            ("move", errno(world.rename(name, "elsewhere"))),
            ("move into", errno(world.mv_in((NodeId::ROOT, "f"), (id, "f"), RenameMode::Replace))),
            ("set time", {
                let now = world.now;
                let set = |mut change: Namespace<'_, '_, '_>| Ok(change.set_mtime(id, now)?);
                errno(world.run(set, |_| Effect::default()))
            }),
        ];
        for (what, got) in cases {
            assert_eq!(got, libc::EPERM, "{what} {name}");
        }
        assert_eq!(errno(world.unlink(name)), libc::EISDIR);
        assert!(world.node(id).local.is_none());
        world.unlink("f").unwrap();
        world.pass(11);
    }
}

// S182.
#[test]
fn a_shortcut_moves_and_goes_by_itself_and_nothing_is_put_into_its_own_row_or_over_it() {
    let world = World::new();
    let id = world.sent_in(NodeKind::Shortcut, NodeId::ROOT, "S", "Shared");
    let folder = world.sent_in(NodeKind::Folder, NodeId::ROOT, "D", "d");
    world.sent("F", "f");
    assert_eq!(errno(world.create_in(id, "x")), libc::EPERM);
    assert_eq!(errno(world.mv_in((NodeId::ROOT, "f"), (id, "f"), RenameMode::Replace)), libc::EPERM);
    assert_eq!(errno(world.rename("d", "Shared")), libc::ENOTEMPTY, "an empty folder does not replace it");
    assert_eq!(errno(world.unlink("Shared")), libc::EISDIR);
    let now = world.now;
    world
        .run(|mut change: Namespace<'_, '_, '_>| Ok(change.set_mtime(id, now)?), |_| Effect::default())
        .unwrap();
    assert!(world.node(id).local.is_none(), "its times are not sent");
    world.rename("Shared", "Theirs").unwrap();
    world.mv_in((NodeId::ROOT, "Theirs"), (folder, "Theirs"), RenameMode::Replace).unwrap();
    assert_eq!(world.node(id).local.as_ref().map(|local| local.parent), Some(folder));
    world.mv_in((folder, "Theirs"), (NodeId::ROOT, "Shared"), RenameMode::Replace).unwrap();
    world.rmdir("Shared").unwrap();
    assert!(world.node(id).local.as_ref().is_some_and(|local| local.deleted));
}

#[test]
fn the_first_change_keeps_what_it_started_from_and_later_ones_do_not_move_it() {
    let mut world = World::new();
    let id = world.sent("I1", "a");
    world.rename("a", "b").unwrap();
    let first = world.node(id);
    assert_eq!(first.base, Some(view("I1", NodeId::ROOT, "a")));
    assert_eq!(first.local.as_ref().unwrap().changed_at, world.now);
    let newer = RemoteView {
        version: ContentVersion { etag: Some(ETag::new("e2")), ..ContentVersion::default() },
        ..view("I1", NodeId::ROOT, "a")
    };
    let park = crate::store::Parked { kind: crate::store::ParkKind::Name, detail: "no".into() };
    world
        .store
        .write(Durability::Process, |tx| {
            tx.set_remote(id, Some(&newer))?;
            let local = tx.node(id)?.local.unwrap();
            let parked = LocalView { parked: Some(park), tries: 4, retry_at: Timestamp(9), ..local };
            tx.set_local(id, Some(&parked))
        })
        .unwrap();
    world.pass(1);
    world.rename("b", "c").unwrap();
    let second = world.node(id);
    assert_eq!(second.base, first.base);
    let local = second.local.unwrap();
    assert_eq!((local.parked, local.tries, local.retry_at), (None, 0, Timestamp(0)));
    assert!(local.changed_seq > first.local.unwrap().changed_seq);
    assert_eq!(local.changed_at, world.now);
}

#[test]
fn a_new_file_takes_no_item_that_another_client_moved_to_its_place() {
    let world = World::new();
    let edited = world.sent("I1", "here.txt");
    world.write(edited);
    let there = view("I1", NodeId::ROOT, "there.txt");
    world.store.write(Durability::Process, |tx| tx.set_remote(edited, Some(&there))).unwrap();
    world.create("there.txt").unwrap();
    assert_eq!(world.item_at("there.txt"), None, "it is a file of its own");
    assert_eq!(world.item_at("here.txt").as_deref(), Some("I1"), "the edit keeps its item");
}

#[test]
fn a_move_back_before_it_was_sent_costs_nothing() {
    let world = World::new();
    let id = world.sent("I1", "a");
    world.rename("a", "b").unwrap();
    world.rename("b", "a").unwrap();
    let node = world.node(id);
    assert_eq!((node.local, node.base), (None, None));
    world.rename("a", "b").unwrap();
    world.attempt(id);
    world.rename("b", "a").unwrap();
    assert!(world.node(id).local.is_some(), "it may have been sent: the planner must look");
}

#[test]
fn a_file_that_was_never_sent_leaves_no_trace_and_its_bytes_are_handed_back() {
    let world = World::new();
    let id = world.create("a").unwrap();
    let content = world.node(id).local.unwrap().content.unwrap();
    assert_eq!(world.unlink("a").unwrap().dropped, [content]);
    assert!(world.is_gone(id));
    assert!(world.store.dirty().unwrap().is_empty());
}

#[test]
fn an_open_or_busy_file_keeps_its_row_and_bytes_until_it_is_closed_or_answered() {
    let mut world = World::new();
    for busy in [true, false] {
        let id = world.create("a").unwrap();
        if busy {
            world.attempt(id);
        } else {
            world.open.insert(id);
        }
        assert!(world.unlink("a").unwrap().dropped.is_empty());
        let local = world.node(id).local.unwrap();
        assert!(local.deleted && local.content.is_some());
        assert_eq!(world.at("a"), None);
    }
}

#[test]
fn a_file_of_the_service_becomes_a_tombstone_that_remembers_where_it_was() {
    let world = World::new();
    let id = world.sent("I1", "a");
    let content = world.write(id);
    assert_eq!(world.unlink("a").unwrap().dropped, [content]);
    let node = world.node(id);
    let local = node.local.clone().unwrap();
    assert!(local.deleted && local.content.is_none());
    assert_eq!((local.parent, local.name.as_str()), (NodeId::ROOT, "a"));
    assert_eq!(node.remote, node.base);
}

#[test]
fn only_an_empty_directory_is_removed_and_local_files_count() {
    let world = World::new();
    let sent = world.sent_in(NodeKind::Folder, NodeId::ROOT, "D", "d");
    let new = world.mkdir("n").unwrap();
    for (id, name) in [(sent, "d"), (new, "n")] {
        world.create_in(id, "x.swp").unwrap();
        assert_eq!(errno(world.rmdir(name)), libc::ENOTEMPTY, "{name}");
        world.run(|change| change.unlink(id, &World::name("x.swp")), Effect::clone).unwrap();
        world.rmdir(name).unwrap();
    }
    assert!(world.is_gone(new));
    assert!(world.node(sent).local.unwrap().deleted);
    world.create("f").unwrap();
    assert_eq!(errno(world.rmdir("f")), libc::ENOTDIR);
    assert_eq!(errno(world.create_in(sent, "x")), libc::ENOENT, "nothing is made in a removed directory");
}

#[test]
fn rename_answers_as_posix_says() {
    let world = World::new();
    world.sent("F", "file");
    world.sent("F2", "file2");
    let dir = world.sent_in(NodeKind::Folder, NodeId::ROOT, "D", "dir");
    let full = world.sent_in(NodeKind::Folder, NodeId::ROOT, "E", "full");
    world.sent_in(NodeKind::File, full, "G", "inside");
    let inner = world.sent_in(NodeKind::Folder, dir, "H", "inner");
    use RenameMode::{Exchange, NoReplace, Replace};
    let cases = [
        ("file", "dir", Replace, libc::EISDIR),
        ("dir", "file", Replace, libc::ENOTDIR),
        ("dir", "full", Replace, libc::ENOTEMPTY),
        ("file", "file2", NoReplace, libc::EEXIST),
        ("none", "file", Replace, libc::ENOENT),
        ("file", "none", Exchange, libc::ENOENT),
        ("file", "file", Replace, 0),
        ("file", "x.swp", Replace, libc::EINVAL),
        ("file", "a_vti_b", Replace, libc::EINVAL),
    ];
    for (from, to, mode, expected) in cases {
        assert_eq!(errno(world.mv(from, to, mode)), expected, "{from} -> {to} {mode:?}");
    }
    let into_itself = world.mv_in((NodeId::ROOT, "dir"), (inner, "dir"), Replace);
    assert_eq!(errno(into_itself), libc::EINVAL);
    let swap_with_child = world.mv_in((dir, "inner"), (NodeId::ROOT, "dir"), Exchange);
    assert_eq!(errno(swap_with_child), libc::EINVAL);
    assert!(
        world.store.dirty().unwrap().is_empty(),
        "a refused change and a rename to itself change nothing"
    );
}

#[test]
fn a_directory_takes_the_place_of_an_empty_one() {
    let world = World::new();
    let full = world.sent_in(NodeKind::Folder, NodeId::ROOT, "E", "full");
    world.sent_in(NodeKind::File, full, "G", "inside");
    let empty = world.sent_in(NodeKind::Folder, NodeId::ROOT, "D", "empty");
    world.rename("full", "empty").unwrap();
    assert_eq!(world.at("empty"), Some(full));
    assert!(world.node(empty).local.unwrap().deleted);
    assert_eq!(world.item_at("empty").as_deref(), Some("E"), "folders keep their own items");
}

#[test]
fn exchange_swaps_places_and_nothing_else() {
    let world = World::new();
    let (a, b) = (world.sent("A", "a"), world.sent("B", "b"));
    world.mv("a", "b", RenameMode::Exchange).unwrap();
    assert_eq!((world.at("a"), world.at("b")), (Some(b), Some(a)));
    assert_eq!((world.item_at("a").as_deref(), world.item_at("b").as_deref()), (Some("B"), Some("A")));
    assert_eq!(world.names(), ["a", "b"]);
    world.mv("a", "b", RenameMode::Exchange).unwrap();
    assert!(world.store.dirty().unwrap().is_empty(), "swapped back before it was sent");
}

#[test]
fn a_scratch_file_becomes_an_ordinary_one_when_it_gets_an_ordinary_name_and_back() {
    let world = World::new();
    let id = world.create(".goutputstream-AB12").unwrap();
    assert!(!world.node(id).is_dirty());
    world.rename(".goutputstream-AB12", "notes.txt").unwrap();
    assert!(world.node(id).is_dirty());
    world.rename("notes.txt", "notes.swp").unwrap();
    assert!(world.node(id).local.unwrap().local_only, "never sent: it may live here");
}

#[test]
fn symbolic_links_stay_here_under_any_name() {
    let world = World::new();
    let id = world.symlink("link").unwrap();
    world.rename("link", "a_vti_b").unwrap();
    let node = world.node(id);
    assert!(!node.is_dirty());
    assert_eq!(node.attrs.target.unwrap().as_os_str(), "target");
    let file = world.sent("I", "file");
    world.rename("a_vti_b", "file").unwrap();
    assert_eq!(world.at("file"), Some(id));
    assert!(world.node(file).local.unwrap().deleted);
    world.create("f").unwrap();
    world.rename("f", "file").unwrap();
    assert!(world.is_gone(id));
}

#[test]
fn a_time_that_the_service_has_already_to_the_second_is_shown_and_not_sent() {
    let world = World::new();
    let id = world.sent("I1", "a");
    let set = |time: i64| {
        world.run(|mut change| Ok(change.set_mtime(id, Timestamp(time))?), |_| Effect::default()).unwrap();
        let node = world.node(id);
        (node.is_dirty(), node.mtime())
    };
    assert_eq!(set(7_900_000_000), (false, Timestamp(7_900_000_000)));
    assert_eq!(set(8_000_000_000), (true, Timestamp(8_000_000_000)));
    assert!(world.node(id).local.unwrap().mtime_set);
}

#[test]
fn a_directory_changes_its_time_when_an_entry_comes_or_goes() {
    let mut world = World::new();
    let new = world.mkdir("new").unwrap();
    let old = world.sent_in(NodeKind::Folder, NodeId::ROOT, "D", "old");
    world.pass(1);
    world.create_in(new, "f").unwrap();
    world.create_in(old, "f").unwrap();
    for id in [new, old] {
        assert_eq!(world.node(id).mtime(), world.now);
    }
    assert!(!world.node(old).is_dirty(), "and that is nothing to send");
    assert_eq!(world.node(NodeId::ROOT).mtime().0, world.now.0 - MINUTE);
}
