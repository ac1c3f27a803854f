//! Listing directories while they change.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self as rfs, Mode, OFlags, RawDir, SeekFrom};

use crate::mounted_support::Mounted;
use crate::mounted_support::trace::same_as_local;

fn open_directory(path: &Path) -> OwnedFd {
    rfs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("it opens")
}

/// At most `max` entries from where the descriptor stands, each with the offset after it.
///
/// The descriptor then stands after the last one, as readdir(3) leaves it for telldir(3).
fn some_entries(directory: &OwnedFd, max: usize) -> Vec<(String, u64)> {
    let mut buffer = [MaybeUninit::uninit(); 512];
    let mut raw = RawDir::new(directory, &mut buffer);
    let mut found = Vec::new();
    while found.len() < max {
        let Some(entry) = raw.next() else { break };
        let entry = entry.expect("it can be listed");
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.next_entry_cookie()));
    }
    if let Some((_, after)) = found.last() {
        rfs::seek(directory, SeekFrom::Start(*after)).expect("an offset we were given");
    }
    found
}

fn count(names: &[(String, u64)]) -> BTreeMap<&str, usize> {
    let mut seen = BTreeMap::new();
    for (name, _) in names {
        *seen.entry(name.as_str()).or_default() += 1;
    }
    seen
}

#[test]
fn a_listing_shows_what_stays_exactly_once_while_the_rest_changes() {
    let Some(mounted) = Mounted::shared() else { return };
    let dir = mounted.path("changing");
    fs::create_dir(&dir).expect("a directory");
    for n in 0..300 {
        fs::write(dir.join(format!("stays {n:03}")), "").expect("a file");
        fs::write(dir.join(format!("goes {n:03}")), "").expect("a file");
    }
    let directory = open_directory(&dir);
    let mut seen = Vec::new();
    for round in 0.. {
        let some = some_entries(&directory, 20);
        if some.is_empty() {
            break;
        }
        seen.extend(some);
        if round < 10 {
            for n in round * 30..(round + 1) * 30 {
                fs::remove_file(dir.join(format!("goes {n:03}"))).expect("it was there");
                fs::write(dir.join(format!("new {n:03}")), "").expect("a file");
            }
            let (from, to) = (format!("stays {round:03}"), format!("renamed {round:03}"));
            fs::rename(dir.join(from), dir.join(to)).expect("a rename");
        }
    }
    let counts = count(&seen);
    assert!(counts.values().all(|times| *times == 1), "{counts:?}");
    for n in 10..300 {
        assert!(counts.contains_key(format!("stays {n:03}").as_str()), "stays {n:03} was left out");
    }
    let now = fs::read_dir(&dir).expect("it can be listed").count();
    assert_eq!(now, 600);
    mounted.sync_path("changing");
    mounted.assert_truth_equals_tree("changing", crate::mounted_support::tree::Times::Any);
}

#[test]
fn an_offset_leads_back_to_its_place() {
    let Some(mounted) = Mounted::shared() else { return };
    let dir = mounted.path("offsets of entries");
    fs::create_dir(&dir).expect("a directory");
    for n in 0..100 {
        fs::write(dir.join(format!("{n:03}")), "").expect("a file");
    }
    let directory = open_directory(&dir);
    let all = some_entries(&directory, usize::MAX);
    assert_eq!(all.len(), 102);
    // Removing entries before an offset does not move it.
    for (name, _) in all.iter().filter(|(name, _)| !name.starts_with('.')).take(40) {
        fs::remove_file(dir.join(name)).expect("it was there");
    }
    for at in [80, 50, 101, 42] {
        rfs::seek(&directory, SeekFrom::Start(all[at].1)).expect("an offset we were given");
        let rest: Vec<String> =
            some_entries(&directory, usize::MAX).into_iter().map(|(name, _)| name).collect();
        let expected: Vec<String> = all[at + 1..].iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(rest, expected);
    }
    rfs::seek(&directory, SeekFrom::Start(0)).expect("rewinddir");
    fs::write(dir.join("after rewinding"), "").expect("a file");
    let again = some_entries(&directory, usize::MAX);
    assert_eq!(again.len(), 63, "rewinding shows what is there now");
    assert!(again.iter().any(|(name, _)| name == "after rewinding"));
}

#[test]
fn entries_come_with_their_types() {
    same_as_local("types", |dir, t| {
        fs::write(dir.join("file"), "").expect("a file");
        fs::create_dir(dir.join("folder")).expect("a directory");
        std::os::unix::fs::symlink("x", dir.join("link")).expect("a link");
        let mut entries: Vec<_> = fs::read_dir(dir)
            .expect("it can be listed")
            .map(|entry| entry.expect("an entry"))
            .map(|entry| (entry.file_name(), entry.file_type().expect("a type")))
            .collect();
        entries.sort_by_key(|(name, _)| name.clone());
        t.note("entries", entries);
        let mut dots: Vec<String> =
            some_entries(&open_directory(dir), 10).into_iter().map(|(name, _)| name).collect();
        dots.sort();
        t.note("names", dots);
    });
}

#[test]
fn a_removed_directory_that_is_open_lists_nothing() {
    same_as_local("removed", |dir, t| {
        let gone = dir.join("gone");
        fs::create_dir(&gone).expect("a directory");
        let directory = open_directory(&gone);
        fs::remove_dir(&gone).expect("it is empty");
        t.done("a file in it", fs::write(gone.join("x"), "x"));
        let made = rfs::openat(&directory, "x", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600));
        t.done("a file through the handle", made);
    });
}

#[test]
fn many_readers_and_writers_of_one_directory_agree() {
    let Some(mounted) = Mounted::shared() else { return };
    let dir = mounted.path("crowd");
    fs::create_dir(&dir).expect("a directory");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let dir = &dir;
            scope.spawn(move || {
                for n in 0..50 {
                    let (temporary, last) = (format!("tmp {writer} {n}"), format!("file {writer} {n}"));
                    fs::write(dir.join(&temporary), &last).expect("a file");
                    fs::rename(dir.join(&temporary), dir.join(&last)).expect("a rename");
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..20 {
                    for entry in fs::read_dir(&dir).expect("it can be listed") {
                        entry.expect("an entry");
                    }
                }
            });
        }
    });
    assert_eq!(fs::read_dir(&dir).expect("it can be listed").count(), 200);
    mounted.sync_path("crowd");
    mounted.assert_truth_equals_tree("crowd", crate::mounted_support::tree::Times::Any);
}
