//! Another client changes the drive; the service stalls; the network goes.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use onedrivefs::emulator::{Edit, Fault, FaultAction, Flavour, Mark, Rewrite};

use crate::mounted_support::tree::Times;
use crate::mounted_support::{Mounted, Options, process, until};

/// The poll interval of these mounts, and time for the work of a slow machine.
const SOON: Duration = Duration::from_secs(1 + 9);

fn fault(op: &str, count: Option<u32>, action: FaultAction) -> Fault {
    Fault { method: None, path: None, op: Some(op.into()), skip: 0, count, action }
}

fn read(mounted: &Mounted, path: &str) -> String {
    fs::read_to_string(mounted.path(path)).unwrap_or_else(|error| format!("{path}: {error}"))
}

/// All contents that the service holds below a folder, conflict copies included.
fn contents(mounted: &Mounted, folder: &str) -> Vec<(String, String)> {
    let truth = mounted.control().truth();
    let items = truth["drives"][0]["items"].as_array().expect("a list");
    let paths = items.iter().filter(|item| item["kind"] == "file").filter_map(|item| item["path"].as_str());
    let paths = paths.map(|path| path.trim_start_matches('/').to_owned());
    let mut found: Vec<(String, String)> = paths
        .filter(|path| path.starts_with(folder))
        .map(|path| {
            let content = mounted.control().content(&path).expect("it is there");
            (path, String::from_utf8_lossy(&content).into_owned())
        })
        .collect();
    found.sort();
    found
}

// S31.
#[test]
fn an_edit_by_another_client_is_seen_within_the_poll_interval() {
    for flavour in [Flavour::Business, Flavour::Personal] {
        let Some(mounted) = Mounted::new(flavour, Options::default()) else { return };
        mounted.service.write("folder/shared.txt", b"first");
        assert!(until(SOON, || mounted.path("folder/shared.txt").exists()), "{}", mounted.log_tail());
        assert_eq!(read(&mounted, "folder/shared.txt"), "first");
        // A program keeps the file open: the kernel has name, attributes and pages.
        let mut open = fs::File::open(mounted.path("folder/shared.txt")).expect("it opens");
        let before = fs::metadata(mounted.path("folder/shared.txt")).expect("it is there");
        drop(open);
        mounted.service.write("folder/shared.txt", b"second, by another client");
        let seen = until(SOON, || {
            fs::metadata(mounted.path("folder/shared.txt")).is_ok_and(|meta| meta.len() == 25)
        });
        assert!(seen, "stat shows the old size\n{}", mounted.log_tail());
        assert_eq!(read(&mounted, "folder/shared.txt"), "second, by another client");
        let after = fs::metadata(mounted.path("folder/shared.txt")).expect("it is there");
        use std::os::unix::fs::MetadataExt;
        assert_eq!(before.ino(), after.ino());
        // Same size: only content and time tell.
        mounted.service.write("folder/shared.txt", b"THIRD.. by another client");
        assert!(
            until(SOON, || read(&mounted, "folder/shared.txt").starts_with("THIRD")),
            "{}",
            mounted.log_tail()
        );
        open = fs::File::open(mounted.path("folder/shared.txt")).expect("it opens");
        let mut text = String::new();
        open.read_to_string(&mut text).expect("it can be read");
        assert_eq!(text, "THIRD.. by another client");
        drop(open);
        mounted.unmount();
    }
}

// S90.
#[test]
fn an_edit_by_another_client_is_told_over_a_real_connection() {
    let options = Options { mount: "settle=100ms,poll-interval=1h".into(), ..Options::default() };
    let Some(mounted) = Mounted::new(Flavour::Business, options) else { return };
    mounted.await_online();
    assert!(until(SOON, || mounted.status()["push"] == true), "{}\n{}", mounted.status(), mounted.log_tail());
    for content in ["first", "second, by another client"] {
        mounted.service.write("shared.txt", content.as_bytes());
        let path = mounted.path("shared.txt");
        let seen = until(SOON, || fs::metadata(&path).is_ok_and(|meta| meta.len() == content.len() as u64));
        assert!(seen, "{}", mounted.log_tail());
        assert_eq!(read(&mounted, "shared.txt"), content);
    }
    mounted.control().close_push();
    mounted.service.write("while-away.txt", b"x");
    assert!(until(SOON, || mounted.path("while-away.txt").exists()), "{}", mounted.log_tail());
    mounted.unmount();
}

// S31, S32.
#[test]
fn new_moved_and_deleted_entries_of_another_client_are_seen() {
    let Some(mounted) = Mounted::usual() else { return };
    mounted.await_online();
    for name in ["one", "two", "three"] {
        mounted.service.write(&format!("dir/{name}"), name.as_bytes());
    }
    assert!(until(SOON, || fs::read_dir(mounted.path("dir")).is_ok_and(|list| list.count() == 3)));
    assert!(!mounted.path("dir/four").exists());
    mounted.service.write("dir/four", b"four");
    assert!(until(SOON, || mounted.path("dir/four").exists()), "a name known as absent appears");
    mounted.service.edit(&Edit::Move { path: "dir/one".into(), to: "dir/first".into() });
    mounted.service.edit(&Edit::Delete { path: "dir/two".into() });
    mounted.service.edit(&Edit::Mkdir { path: "dir/sub".into() });
    mounted.service.edit(&Edit::Move { path: "dir/three".into(), to: "dir/sub/three".into() });
    let names = || {
        let list = fs::read_dir(mounted.path("dir")).expect("it can be listed");
        let mut names: Vec<String> =
            list.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    };
    assert!(until(SOON, || names() == ["first", "four", "sub"]), "{:?}", names());
    assert!(!mounted.path("dir/one").exists() && !mounted.path("dir/two").exists());
    assert_eq!(read(&mounted, "dir/sub/three"), "three");
    assert_eq!(read(&mounted, "dir/first"), "one");
    mounted.service.edit(&Edit::Move { path: "dir".into(), to: "moved".into() });
    assert!(until(SOON, || read(&mounted, "moved/sub/three") == "three"));
    assert!(!mounted.path("dir").exists());
    mounted.assert_truth_equals_tree("", Times::Any);
}

// S34, S35.
#[test]
fn when_both_edit_a_file_both_contents_exist_afterwards() {
    for flavour in [Flavour::Business, Flavour::Personal, Flavour::DocumentLibrary] {
        let Some(mounted) = Mounted::new(flavour, Options::default()) else { return };
        fs::create_dir(mounted.path("both")).expect("a directory");
        fs::write(mounted.path("both/doc.txt"), "base").expect("a file");
        mounted.sync();
        let mut open = fs::File::options().write(true).open(mounted.path("both/doc.txt")).expect("it opens");
        std::io::Write::write_all(&mut open, b"written here").expect("a write");
        mounted.service.write("both/doc.txt", b"written there");
        drop(open);
        mounted.sync();
        let found = contents(&mounted, "both/");
        assert_eq!(found.len(), 2, "{found:?}\n{}", mounted.log_tail());
        let content = |name: &str| found.iter().find(|(path, _)| path == name).map(|(_, text)| text.as_str());
        assert_eq!(content("both/doc.txt"), Some("written there"), "{found:?}");
        let copy = found.iter().find(|(path, _)| path.starts_with("both/doc (conflict ")).expect("a copy");
        assert!(copy.0.ends_with(".txt") && copy.1 == "written here", "{found:?}");
        let same = || read(&mounted, "both/doc.txt") == "written there" && mounted.path(&copy.0).exists();
        assert!(until(SOON, same), "{}", mounted.log_tail());
        assert_eq!(read(&mounted, &copy.0), "written here");
        mounted.assert_truth_equals_tree("both", Times::Any);
        mounted.unmount();
    }
}

// S36, S37.
#[test]
fn an_edit_here_follows_a_rename_and_survives_a_delete_there() {
    let Some(mounted) = Mounted::usual() else { return };
    fs::create_dir(mounted.path("d")).expect("a directory");
    for name in ["renamed", "deleted"] {
        fs::write(mounted.path("d").join(name), "base").expect("a file");
    }
    mounted.sync();
    let id = mounted.control().id_of("d/renamed");
    let open =
        |name: &str| fs::File::options().append(true).open(mounted.path("d").join(name)).expect("it opens");
    let (mut renamed, mut deleted) = (open("renamed"), open("deleted"));
    std::io::Write::write_all(&mut renamed, b" and more").expect("a write");
    std::io::Write::write_all(&mut deleted, b" and more").expect("a write");
    mounted.service.edit(&Edit::Move { path: "d/renamed".into(), to: "d/new name".into() });
    mounted.service.edit(&Edit::Delete { path: "d/deleted".into() });
    drop((renamed, deleted));
    mounted.sync();
    let expected = [("d/deleted", "base and more"), ("d/new name", "base and more")];
    assert_eq!(contents(&mounted, "d/"), expected.map(|(path, text)| (path.to_owned(), text.to_owned())));
    assert_eq!(mounted.control().id_of("d/new name"), id);
    assert!(until(SOON, || mounted.path("d/new name").exists() && !mounted.path("d/renamed").exists()));
    mounted.assert_truth_equals_tree("d", Times::Any);
}

// S210. The kernel believes a size that it was told, programs seek from it, and write behind it.
#[test]
fn a_document_of_another_length_than_was_told_is_whole_from_its_first_open_on() {
    let Some(mounted) = Mounted::new(Flavour::DocumentLibrary, Options::default()) else { return };
    mounted.control().switch(|switches| switches.rewrite = Rewrite::Off);
    for (at, said) in [7, 100_000, 3_000_000].into_iter().enumerate() {
        for way in ["cat", "tail", "append"] {
            let name = format!("{way}-{at}.docx");
            mounted.service.edit(&Edit::WritePattern { path: "hidden".into(), size: 300_000, seed: 5 });
            mounted.control().mark("hidden", Mark::Size(Some(said))).expect("it is there");
            mounted.service.edit(&Edit::Move { path: "hidden".into(), to: name.clone() });
            let path = mounted.path(&name);
            let told = || fs::metadata(&path).is_ok_and(|stat| stat.len() == said as u64);
            assert!(until(SOON, told), "{}", mounted.log_tail());
            let whole = mounted.control().content(&name).expect("it is there");
            match way {
                "cat" => {
                    let mut cat = Command::new("cat");
                    cat.arg(&path).stdin(Stdio::null());
                    let output = process::output(cat);
                    assert!(
                        output.status.success() && output.stdout == whole,
                        "{name}: {}",
                        output.stdout.len()
                    );
                }
                "tail" => {
                    let mut file = fs::File::open(&path).expect("it opens");
                    assert_eq!(file.metadata().expect("open").len(), 300_000, "{name}");
                    file.seek(SeekFrom::End(-10)).expect("a seek");
                    let mut end = Vec::new();
                    file.read_to_end(&mut end).expect("it can be read");
                    assert_eq!(end, whole[whole.len() - 10..], "{name}");
                }
                _ => {
                    let mut file = fs::OpenOptions::new().append(true).open(&path).expect("it opens");
                    file.write_all(b"more").expect("it is written");
                    drop(file);
                    let is_there =
                        || mounted.control().content(&name).is_some_and(|now| now.ends_with(b"more"));
                    assert!(until(SOON, is_there), "{}", mounted.log_tail());
                    let sent = mounted.control().content(&name).expect("it is there");
                    assert!(sent == [&whole[..], b"more"].concat(), "{name}: {}", sent.len());
                }
            }
            let read = fs::read(&path).expect("it can be read");
            assert!(read[..300_000] == whole[..], "{name}: {}", read.len());
        }
    }
}

// S211.
#[test]
fn what_is_appended_goes_behind_the_version_that_is_open_whatever_length_others_gave_the_file() {
    let Some(mounted) = Mounted::usual() else { return };
    for (name, theirs) in [("longer", "first, and a good deal longer\n"), ("shorter", "1\n")] {
        mounted.service.write(name, b"first line\n");
        let path = mounted.path(name);
        assert!(until(SOON, || fs::read(&path).is_ok_and(|read| read == b"first line\n")));
        let mut log = fs::OpenOptions::new().append(true).open(&path).expect("it opens");
        mounted.service.write(name, theirs.as_bytes());
        let later = format!("after {name}");
        mounted.service.write(&later, b"");
        assert!(until(SOON, || mounted.path(&later).exists()), "{}", mounted.log_tail());
        log.write_all(b"ours\n").expect("it is written");
        log.write_all(b"more\n").expect("it is written");
        drop(log);
        let both = || {
            let found = fs::read_dir(mounted.path("")).expect("the root").flatten();
            let mut found: Vec<_> = found
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(name))
                .map(|entry| fs::read_to_string(entry.path()).unwrap_or_default())
                .collect();
            found.sort();
            let mut wanted = [theirs, "first line\nours\nmore\n"];
            wanted.sort_unstable();
            found == wanted
        };
        assert!(until(SOON, both), "{name}: {}", mounted.log_tail());
    }
}

// S12, S13.
#[test]
fn an_open_file_shows_one_version() {
    let Some(mounted) = Mounted::usual() else { return };
    let size = 24 << 20;
    mounted.service.edit(&Edit::WritePattern { path: "large".into(), size, seed: 1 });
    assert!(until(SOON, || mounted.path("large").exists()));
    let mut open = fs::File::open(mounted.path("large")).expect("it opens");
    let mut first = vec![0; 100_000];
    open.read_exact(&mut first).expect("it can be read");
    mounted.service.edit(&Edit::WritePattern { path: "large".into(), size, seed: 2 });
    let changed = || fs::metadata(mounted.path("large")).expect("it is there").modified().expect("a time");
    let before = changed();
    until(SOON, || changed() != before);
    let (mut rest, mut same) = (Vec::new(), vec![0; 100_000]);
    let result = open.read_to_end(&mut rest);
    if let Err(error) = &result {
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    } else {
        let expected = pattern(&mounted, size, 1);
        assert_eq!(crate::mounted_support::tree::sha256(&[first.clone(), rest].concat()), expected);
        open.seek(SeekFrom::Start(0)).expect("a seek");
        open.read_exact(&mut same).expect("it can be read");
        assert!(same == first);
    }
    drop(open);
    let all = until(SOON, || {
        let bytes = fs::read(mounted.path("large")).unwrap_or_default();
        crate::mounted_support::tree::sha256(&bytes) == pattern(&mounted, size, 2)
    });
    assert!(all, "a new reader gets the new version\n{}", mounted.log_tail());
}

/// The hash of generated bytes, had from a drive of its own.
fn pattern(mounted: &Mounted, size: u64, seed: u32) -> String {
    let path = format!("pattern {seed}");
    mounted.service.edit(&Edit::WritePattern { path: path.clone(), size, seed });
    let bytes = mounted.control().content(&path).expect("it is there");
    crate::mounted_support::tree::sha256(&bytes)
}

// S48.
#[test]
fn a_process_that_waits_for_a_stalled_download_can_be_killed() {
    let Some(mounted) = Mounted::usual() else { return };
    process::heed_interrupts();
    mounted.service.edit(&Edit::WritePattern { path: "stalled".into(), size: 30 << 20, seed: 3 });
    assert!(until(SOON, || mounted.path("stalled").exists()));
    mounted.control().inject(fault("download", None, FaultAction::StallBody { at: 10_000 }));
    for (signal, name) in [(libc::SIGKILL, "SIGKILL"), (libc::SIGINT, "SIGINT")] {
        let mut child =
            Command::new("cat").arg(mounted.path("stalled")).stdout(Stdio::null()).spawn().expect("it runs");
        let asked = || mounted.control().counts().get("download").is_some_and(|count| *count > 0);
        assert!(until(SOON, asked), "{:?}\n{}", mounted.control().counts(), mounted.log_tail());
        let waits = || {
            let status = fs::read_to_string(format!("/proc/{}/wchan", child.id())).unwrap_or_default();
            status.contains("fuse") || status.contains("folio") || status.contains("request")
        };
        until(Duration::from_secs(2), waits);
        process::kill(child.id(), signal);
        let start = Instant::now();
        let ended = until(Duration::from_secs(10), || child.try_wait().expect("ours").is_some());
        assert!(ended, "{name}: it never ends\n{}", mounted.log_tail());
        assert!(start.elapsed() < Duration::from_secs(1), "{name}: after {:?}", start.elapsed());
        assert_eq!(child.wait().expect("ours").signal(), Some(signal));
    }
    // The rest of the mount was never held up.
    assert!(fs::read_dir(mounted.root()).is_ok());
    mounted.control().clear_faults();
    mounted.control().release_stalls();
    assert_eq!(fs::read(mounted.path("stalled")).map(|bytes| bytes.len()).ok(), Some(30 << 20));
}

// S49.
#[test]
fn offline_what_is_here_can_be_read_and_changed() {
    let Some(mounted) = Mounted::usual() else { return };
    mounted.service.write("cached", b"cached content");
    mounted.service.edit(&Edit::WritePattern { path: "elsewhere".into(), size: 20 << 20, seed: 4 });
    assert!(until(SOON, || mounted.path("elsewhere").exists()));
    mounted.await_online();
    assert_eq!(read(&mounted, "cached"), "cached content");
    mounted.control().cut();
    assert!(
        until(Duration::from_secs(60), || mounted.status()["state"] == "offline"),
        "{}",
        mounted.status()
    );
    assert_eq!(read(&mounted, "cached"), "cached content");
    fs::write(mounted.path("new"), "written offline").expect("a write");
    fs::rename(mounted.path("cached"), mounted.path("renamed")).expect("a rename");
    let start = Instant::now();
    let missing = fs::read(mounted.path("elsewhere")).expect_err("it is not here");
    assert_eq!(missing.raw_os_error(), Some(libc::ENETUNREACH), "{missing}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(fs::read_dir(mounted.root()).is_ok());
    mounted.control().clear_faults();
    assert!(until(Duration::from_secs(60), || mounted.status()["state"] == "online"), "{}", mounted.status());
    mounted.sync();
    assert_eq!(mounted.control().content("new").as_deref(), Some(&b"written offline"[..]));
    assert_eq!(mounted.control().content("renamed").as_deref(), Some(&b"cached content"[..]));
    assert_eq!(fs::read(mounted.path("elsewhere")).expect("it can be read").len(), 20 << 20);
}

// S50.
#[test]
fn what_is_known_costs_no_request() {
    let options = Options { mount: "settle=100ms,poll-interval=300s".into(), ..Options::default() };
    let Some(mounted) = Mounted::new(Flavour::Business, options) else { return };
    for n in 0..30 {
        fs::create_dir_all(mounted.path(&format!("d{}", n % 3))).expect("a directory");
        fs::write(mounted.path(&format!("d{}/f{n}", n % 3)), "x").expect("a file");
    }
    mounted.sync();
    mounted.await_online();
    let quiet = until(Duration::from_secs(20), || {
        let before = mounted.control().requests().len();
        std::thread::sleep(Duration::from_millis(700));
        mounted.control().requests().len() == before
    });
    assert!(quiet);
    mounted.control().reset_log();
    let script = "ls -lR . >/dev/null; find . >/dev/null; du -s . >/dev/null; df . >/dev/null; ! test -e d1/none; cat d1/f1 >/dev/null";
    let output = crate::mounted_support::shell::run_in(&mounted, &mounted.root(), script);
    assert!(output.status.success());
    // The push channel may tell late of what was sent before, on a busy machine.
    let mut requests = mounted.control().requests();
    requests.retain(|record| record.op != "delta");
    assert!(requests.is_empty(), "{requests:#?}");
}

// S33.
#[test]
fn the_tree_and_unsent_changes_survive_a_restart_without_the_network() {
    let Some(mounted) = Mounted::usual() else { return };
    fs::create_dir(mounted.path("kept")).expect("a directory");
    fs::write(mounted.path("kept/sent"), "sent").expect("a file");
    mounted.sync();
    mounted.control().cut();
    fs::write(mounted.path("kept/unsent"), "unsent").expect("a file");
    fs::rename(mounted.path("kept/sent"), mounted.path("kept/moved")).expect("a rename");
    mounted.kill9();
    mounted.remount();
    let mut names: Vec<_> = fs::read_dir(mounted.path("kept"))
        .expect("it can be listed")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["moved", "unsent"]);
    assert_eq!(read(&mounted, "kept/unsent"), "unsent");
    mounted.control().clear_faults();
    mounted.sync();
    mounted.assert_truth_equals_tree("", Times::Any);
    assert_eq!(mounted.control().content("kept/unsent").as_deref(), Some(&b"unsent"[..]));
}
