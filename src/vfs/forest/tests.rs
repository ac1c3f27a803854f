//! A forest over drives of a few lines.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use super::*;
use crate::model::{DriveId, DriveType, ItemId};
use crate::store::{Durability, NodeKind, RemoteView};
use crate::vfs::tests::{CALLER, TestDrive, World};
use crate::vfs::{Attr, Filesystem, Lookup, OpenFlags, RenameMode};

/// Builds drives, and remembers what it was asked.
#[derive(Default)]
struct Builder {
    listings: Mutex<HashMap<String, Vec<Found>>>,
    asked: Mutex<Vec<String>>,
    opened: AtomicU32,
    /// Listings fail.
    away: AtomicBool,
    /// Nothing can be kept.
    full: AtomicBool,
    /// Openings wait for a permit, if there is one to wait for.
    gate: Mutex<Option<Arc<Semaphore>>>,
    saved: Mutex<Vec<u8>>,
    forgotten: Mutex<Vec<Invalidation>>,
    dirs: Mutex<Vec<tempfile::TempDir>>,
}

impl Outside for Arc<Builder> {
    type Drive = TestDrive;

    async fn list(&self, listing: Listing) -> Result<Vec<Found>, VfsError> {
        let key = format!("{listing:?}");
        self.asked.lock().unwrap().push(key.clone());
        tokio::task::yield_now().await;
        if self.away.load(Ordering::Relaxed) {
            return Err(VfsError::Offline);
        }
        Ok(self.listings.lock().unwrap().get(&key).cloned().unwrap_or_default())
    }

    async fn follow(&self, _drive: &TestDrive, item: ItemId) -> Result<Target, VfsError> {
        self.asked.lock().unwrap().push(format!("follow {item}"));
        Ok(folder(item.as_str().trim_end_matches(char::is_numeric)))
    }

    async fn open(&self, slot: u16, target: Target) -> Result<Opened<TestDrive>, VfsError> {
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.acquire().await.expect("it stays").forget();
        }
        self.opened.fetch_add(1, Ordering::Relaxed);
        let (files, dir) = World::with(VfsConfig { slot, ..VfsConfig::default() }).into_files();
        self.dirs.lock().unwrap().push(dir);
        let known = match target {
            Target::Named(name) => drive(&name),
            known => known,
        };
        Ok((known, Arc::new(files)))
    }

    fn save(&self, catalog: &Catalog) -> Result<(), VfsError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(VfsError::NoSpace);
        }
        *self.saved.lock().unwrap() = catalog.to_bytes();
        Ok(())
    }

    fn forget(&self, what: Invalidation) {
        self.forgotten.lock().unwrap().push(what);
    }
}

fn drive(id: &str) -> Target {
    Target::Drive { id: DriveId::new(id), drive_type: DriveType::Business, name: id.into() }
}

fn folder(item: &str) -> Target {
    Target::Folder {
        drive: DriveId::new("b!far"),
        drive_type: DriveType::Business,
        item: ItemId::new(item),
        name: item.into(),
    }
}

fn found(name: &str, what: FoundKind) -> Found {
    Found { key: name.into(), title: name.into(), what }
}

type Trees = Forest<Arc<Builder>>;

/// A mount of all: the own drive, and sites of which one has two libraries.
fn all() -> (Trees, Arc<Builder>) {
    let builder = Arc::new(Builder::default());
    let sites = vec![found("Team", FoundKind::Site("team".into()))];
    let libraries = ["A", "B"].map(|name| found(name, FoundKind::Slot(drive(name)))).to_vec();
    let mut listings = builder.listings.lock().unwrap();
    listings.insert("Sites".into(), sites);
    listings.insert("Libraries(\"team\")".into(), libraries);
    drop(listings);
    let mut catalog = Catalog::of_drives();
    let shown = vec![
        ("OneDrive".to_owned(), Err(Target::Named("me".into()))),
        ("Sites".to_owned(), Ok(Listing::Sites)),
    ];
    catalog.show(shown).unwrap();
    (grow(&builder, catalog), builder)
}

fn grow(builder: &Arc<Builder>, catalog: Catalog) -> Trees {
    Forest::new(Arc::clone(builder), VfsConfig::default(), catalog, Arc::default(), Timestamp(0))
}

async fn find(trees: &Trees, path: &str) -> Result<Option<Attr>, VfsError> {
    let mut at = trees.getattr(Ino::ROOT, None).await?.0;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        match trees.lookup(CALLER, at.ino, OsStr::new(name)).await? {
            Lookup::Found(entry) => at = entry.attr,
            Lookup::Absent(_) => return Ok(None),
        }
    }
    Ok(Some(at))
}

async fn ino(trees: &Trees, path: &str) -> Ino {
    find(trees, path).await.unwrap().unwrap_or_else(|| panic!("{path} is there")).ino
}

async fn names(trees: &Trees, dir: Ino) -> Result<Vec<String>, VfsError> {
    let opened = trees.opendir(dir).await?;
    let mut names = Vec::new();
    let mut after = 0;
    loop {
        let entries = trees.readdir(dir, opened.handle, after, 2).await?;
        let Some(last) = entries.last() else { break };
        after = last.cookie;
        assert!(entries.iter().all(|entry| entry.name != "." || entry.ino == dir));
        names.extend(entries.into_iter().map(|entry| entry.name.into_string().unwrap()));
    }
    trees.releasedir(dir, opened.handle).await;
    names.retain(|name| name != "." && name != "..");
    Ok(names)
}

fn code<T>(result: Result<T, VfsError>) -> i32 {
    result.err().map_or(0, |error| error.errno())
}

/// A shortcut in a drive, as the service tells of one.
fn link(trees: &Trees, slot: u16, name: &str, item: &str) -> Ino {
    let files = trees.0.drive(slot).unwrap();
    let view = RemoteView {
        item: ItemId::new(item),
        parent: Some(NodeId::ROOT),
        name: name.into(),
        version: Default::default(),
        mtime: None,
        btime: None,
        malware: false,
        actual_size: None,
    };
    let made = files.drive().store().write(Durability::Process, |tx| {
        let id = tx.insert(NodeKind::Shortcut)?;
        tx.set_remote(id, Some(&view))?;
        Ok(id)
    });
    Ino::new(slot, made.unwrap())
}

async fn put(trees: &Trees, dir: Ino, name: &str) -> Result<Ino, VfsError> {
    let flags = OpenFlags { write: true, ..OpenFlags::default() };
    let (entry, opened) = trees.create(CALLER, dir, OsStr::new(name), 0o644, flags).await?;
    trees.release(entry.attr.ino, opened.handle).await;
    Ok(entry.attr.ino)
}

// S183.
#[tokio::test(start_paused = true)]
async fn a_drive_is_opened_by_who_goes_into_it_and_once_for_all_who_do() {
    let (trees, builder) = all();
    assert_eq!(names(&trees, Ino::ROOT).await.unwrap(), ["OneDrive", "Sites"]);
    let library = ino(&trees, "Sites/Team/B").await;
    assert_eq!((library.slot(), library.node()), (3, NodeId::ROOT));
    trees.getattr(library, None).await.unwrap();
    assert_eq!(code(trees.getxattr(library, OsStr::new("user.x")).await), libc::ENODATA);
    assert!(trees.listxattr(library).await.unwrap().is_empty() && trees.statfs(library).total > 0);
    assert_eq!(builder.opened.load(Ordering::Relaxed), 0, "to look at it is not to go into it");
    let (one, other) = tokio::join!(names(&trees, library), find(&trees, "Sites/Team/B/x"));
    assert!(one.unwrap().is_empty() && other.unwrap().is_none());
    assert_eq!(builder.opened.load(Ordering::Relaxed), 1);
    let asked = builder.asked.lock().unwrap().clone();
    assert_eq!(asked, ["Sites", "Libraries(\"team\")"], "each was asked for once");
}

#[tokio::test(start_paused = true)]
async fn an_opening_goes_on_when_its_caller_is_gone() {
    let (trees, builder) = all();
    let gate = Arc::new(Semaphore::new(0));
    *builder.gate.lock().unwrap() = Some(Arc::clone(&gate));
    let drive = ino(&trees, "OneDrive").await;
    let killed = tokio::time::timeout(Duration::from_secs(20), names(&trees, drive)).await;
    assert!(killed.is_err());
    gate.add_permits(1);
    assert!(names(&trees, drive).await.unwrap().is_empty());
    assert_eq!(builder.opened.load(Ordering::Relaxed), 1, "the first one came to its end");
    assert_eq!(trees.catalog().target(1), Some(&super::tests::drive("me")), "and what it is was kept");
}

// S185. A crash between making a number and using it leaves it made; one that cannot be kept is not given out.
#[tokio::test(start_paused = true)]
async fn a_number_is_kept_before_it_is_given_out() {
    let (trees, builder) = all();
    builder.full.store(true, Ordering::Relaxed);
    assert_eq!(code(names(&trees, ino(&trees, "Sites").await).await), libc::ENOSPC);
    assert_eq!(code(find(&trees, "Sites/Team").await), libc::ENOSPC);
    builder.full.store(false, Ordering::Relaxed);
    tokio::time::advance(FRESH).await;
    let before = ino(&trees, "Sites/Team/A").await;
    let kept = Catalog::parse(&builder.saved.lock().unwrap()).expect("it was kept");
    let again = grow(&builder, kept);
    builder.away.store(true, Ordering::Relaxed);
    assert_eq!(ino(&again, "Sites/Team/A").await, before, "also without the service");
    assert!(names(&again, before).await.unwrap().is_empty(), "and it can be used");
}

// S183, S186.
#[tokio::test(start_paused = true)]
async fn a_listing_is_read_again_after_a_minute_and_stays_where_nobody_answers() {
    let (trees, builder) = all();
    let sites = ino(&trees, "Sites").await;
    builder.away.store(true, Ordering::Relaxed);
    assert_eq!(code(names(&trees, sites).await), libc::ENETUNREACH, "nothing is known");
    builder.away.store(false, Ordering::Relaxed);
    assert_eq!(names(&trees, sites).await.unwrap(), ["Team"]);
    for _ in 0..5 {
        assert!(find(&trees, "Sites/none").await.unwrap().is_none());
        names(&trees, sites).await.unwrap();
    }
    assert_eq!(builder.asked.lock().unwrap().len(), 2);
    let more = ["Team", "New"].map(|name| found(name, FoundKind::Site(name.into())));
    builder.listings.lock().unwrap().insert("Sites".into(), more.to_vec());
    builder.forgotten.lock().unwrap().clear();
    tokio::time::advance(FRESH).await;
    assert_eq!(names(&trees, sites).await.unwrap(), ["Team"], "what is known is shown at once");
    while builder.forgotten.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let told = Invalidation::Entry { parent: sites, name: "New".into() };
    assert!(builder.forgotten.lock().unwrap().contains(&told));
    assert_eq!(names(&trees, sites).await.unwrap(), ["Team", "New"]);
    builder.away.store(true, Ordering::Relaxed);
    tokio::time::advance(FRESH).await;
    assert!(find(&trees, "Sites/other").await.unwrap().is_none());
    assert_eq!(names(&trees, sites).await.unwrap(), ["Team", "New"]);
    assert_eq!(builder.asked.lock().unwrap().len(), 4, "nobody is asked again at once");
}

// S187.
#[tokio::test(start_paused = true)]
async fn names_do_not_move_between_drives_nor_above_them() {
    let (trees, _) = all();
    let (mine, team) = (ino(&trees, "OneDrive").await, ino(&trees, "Sites/Team/A").await);
    put(&trees, mine, "f").await.unwrap();
    let name = OsStr::new("f");
    for (mode, to, expected) in [
        (RenameMode::Replace, team, libc::EXDEV),
        (RenameMode::Exchange, team, libc::EXDEV),
        (RenameMode::Replace, Ino::ROOT, libc::EROFS),
        (RenameMode::Replace, mine, 0),
    ] {
        let moved = trees.rename(CALLER, mine, name, to, OsStr::new("g"), mode).await;
        assert_eq!(code(moved), expected, "{mode:?} to {to}");
    }
    let (one, other) = (ino(&trees, "OneDrive/g").await, put(&trees, team, "h").await.unwrap());
    let handle = crate::vfs::Handle(1);
    let copied = trees.copy_file_range(one, handle, 0, other, handle, 0, 1).await;
    assert_eq!(code(copied), libc::EOPNOTSUPP, "the kernel copies by itself then");
    assert_eq!(code(trees.mkdir(CALLER, Ino::ROOT, name, 0o755).await), libc::EROFS);
    assert_eq!(code(trees.rmdir(CALLER, Ino::ROOT, OsStr::new("OneDrive")).await), libc::EROFS);
    assert_eq!(code(trees.setattr(CALLER, Ino::ROOT, Default::default()).await), libc::EROFS);
    assert_eq!(code(trees.getattr(Ino::new(0, NodeId(99)), None).await), libc::ESTALE);
}

// S188, S189.
#[tokio::test(start_paused = true)]
async fn behind_a_shortcut_is_another_drive_and_its_other_entrances_are_told() {
    let (trees, builder) = all();
    let mine = ino(&trees, "OneDrive").await;
    names(&trees, mine).await.unwrap();
    let (one, two) = (link(&trees, 1, "one", "far1"), link(&trees, 1, "two", "far2"));
    assert_eq!(ino(&trees, "OneDrive/one").await, one, "it is an entry of its own drive");
    assert_eq!(builder.asked.lock().unwrap().len(), 0, "and nobody went into it");
    assert!(names(&trees, one).await.unwrap().is_empty() && names(&trees, two).await.unwrap().is_empty());
    builder.forgotten.lock().unwrap().clear();
    let made = put(&trees, one, "f").await.unwrap();
    assert_eq!((made.slot(), ino(&trees, "OneDrive/two/f").await), (2, made));
    let told = |parent, name: &str| Invalidation::Entry { parent, name: name.into() };
    assert!(builder.forgotten.lock().unwrap().contains(&told(two, "f")));
    assert!(!builder.forgotten.lock().unwrap().contains(&told(one, "f")), "the kernel knows that itself");
    let within = trees.rename(CALLER, one, OsStr::new("f"), two, OsStr::new("g"), RenameMode::Replace).await;
    assert_eq!(code(within), 0, "it is one folder");
    let out = trees.rename(CALLER, one, OsStr::new("g"), mine, OsStr::new("g"), RenameMode::Replace).await;
    assert_eq!(code(out), libc::EXDEV);
    assert_eq!(trees.0.entrances.of_root(2), [Ino::new(2, NodeId::ROOT), one, two]);
    // A handle stays good when the shortcut goes, and the folder is as it was.
    let opened = trees.opendir(one).await.unwrap();
    trees.rmdir(CALLER, mine, OsStr::new("one")).await.unwrap();
    let left = trees.readdir(one, opened.handle, 2, 10).await.unwrap();
    assert_eq!(left.into_iter().map(|entry| entry.name).collect::<Vec<_>>(), ["g"]);
    trees.releasedir(one, opened.handle).await;
    assert_eq!(find(&trees, "OneDrive/one").await.unwrap(), None);
    assert_eq!(names(&trees, two).await.unwrap(), ["g"]);
    let asked = builder.asked.lock().unwrap().clone();
    assert_eq!(asked, ["follow far1", "follow far2"], "once each");
    // Commands find it by its path, and everything below a folder.
    let found = trees.find(std::path::Path::new("OneDrive/two/g")).unwrap();
    assert_eq!(found, Shown::In(2, made.node()));
    let parts = trees.parts(std::path::Path::new("OneDrive")).unwrap();
    let places: Vec<_> = parts.iter().map(|part| (part.slot, part.prefix.clone())).collect();
    assert_eq!(places, [(1, "OneDrive".into()), (2, "OneDrive/two".into())]);
    assert!(trees.parts(std::path::Path::new("OneDrive/none")).is_err());
}
