//! Files that the kernel reads by itself.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use onedrivefs::emulator::{Edit, Flavour};
use rustix::mm::{MapFlags, ProtFlags};

use crate::files::Map;
use crate::mounted_support::{Mounted, Options, have, is_root, until};

const SIZE: usize = 1 << 20;

/// A drive with these files, mounted by root; nothing where this cannot be.
fn mounted(files: &[(&str, u8)], options: Options) -> Option<Mounted> {
    if !is_root() {
        eprintln!("left out: only root's mounts have the kernel read files by itself");
        return None;
    }
    let mounted = Mounted::new(Flavour::Business, options)?;
    for (name, byte) in files {
        mounted.service.write(name, &vec![*byte; SIZE]);
    }
    mounted.await_online();
    mounted.refresh();
    for (name, _) in files {
        // Whole, and the kernel tells of the close before it opens anew.
        assert_eq!(fs::read(mounted.path(name)).expect("read").len(), SIZE);
    }
    let whole = || files.iter().all(|(name, _)| is_read_below(&mounted, name));
    if !mounted.options_say("passthrough=false") {
        assert!(until(Duration::from_secs(60), whole), "{}", mounted.log_tail());
    }
    Some(mounted)
}

/// Bytes that the daemon has read, from wherever.
fn read_by_daemon(mounted: &Mounted) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", mounted.pid())).expect("it runs");
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("a count");
    line.parse().expect("a number")
}

/// Whether a read of the whole file passes the daemon by.
fn is_read_below(mounted: &Mounted, name: &str) -> bool {
    let before = read_by_daemon(mounted);
    let file = File::open(mounted.path(name)).expect("open");
    // Past the kernel's pages, if there are any.
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advice");
    let mut bytes = Vec::new();
    (&file).read_to_end(&mut bytes).expect("read");
    assert_eq!(bytes.len(), SIZE);
    read_by_daemon(mounted) - before < SIZE as u64 / 2
}

fn append(path: &Path, bytes: &[u8]) {
    File::options().append(true).open(path).expect("open").write_all(bytes).expect("write");
}

fn at(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let count = file.read_at(&mut bytes, offset).expect("read");
    bytes.truncate(count);
    bytes
}

// S200.
#[test]
fn what_is_complete_is_read_by_the_kernel_alone() {
    let Some(mounted) = mounted(&[("a", b'a'), ("b", b'b')], Options::default()) else { return };
    assert!(is_read_below(&mounted, "a") && is_read_below(&mounted, "b"), "{}", mounted.log_tail());
    assert_eq!(fs::read(mounted.path("b")).expect("read"), vec![b'b'; SIZE]);
    let direct = File::options().read(true).custom_flags(libc::O_DIRECT).open(mounted.path("a"));
    let held = File::open(mounted.path("a")).expect("open");
    assert_eq!(at(&direct.expect("O_DIRECT"), 0, 0), b"");
    let map = Map::new(&OwnedFd::from(held), SIZE, ProtFlags::READ, MapFlags::PRIVATE).expect("a map");
    assert_eq!(map.get(SIZE - 3, 3), "aaa");
}

// S200.
#[test]
fn what_the_kernel_reads_can_be_run_sent_and_spliced() {
    let program = fs::read("/bin/bash").expect("a program");
    let Some(mounted) = mounted(&[("a", b'a')], Options::default()) else { return };
    mounted.service.write("program", &program);
    mounted.refresh();
    fs::set_permissions(mounted.path("program"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("mode");
    for _ in 0..2 {
        let said =
            Command::new(mounted.path("program")).args(["-c", "echo from below"]).output().expect("it runs");
        assert_eq!(said.stdout, b"from below\n");
        assert_eq!(fs::read(mounted.path("program")).expect("read"), program);
    }
    if have(&["python3"]) {
        let script = "import os,sys
with open(sys.argv[1],'rb') as f, open(sys.argv[2],'wb') as o:
    assert os.sendfile(o.fileno(), f.fileno(), 0, 1 << 20) == 1 << 20
    r, w = os.pipe()
    assert os.splice(f.fileno(), w, 4096, offset_src=0) == 4096 and os.read(r, 4096) == b'a' * 4096";
        let to = mounted.local().join("sent");
        let ran = Command::new("python3")
            .args(["-c", script])
            .arg(mounted.path("a"))
            .arg(&to)
            .output()
            .expect("runs");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(fs::read(to).expect("read"), vec![b'a'; SIZE]);
    }
}

// S201.
#[test]
fn who_reads_a_file_sees_at_once_what_others_write_to_it() {
    let Some(mounted) = mounted(&[("log", b'x')], Options::default()) else { return };
    let path = mounted.path("log");
    let reader = File::open(&path).expect("open");
    assert_eq!(at(&reader, 0, 4), b"xxxx");
    let mut expected = vec![b'x'; SIZE];
    for round in 0..3 {
        let line = format!("line {round}\n");
        append(&path, line.as_bytes());
        let end = expected.len() as u64;
        assert_eq!(at(&reader, end, 100), line.as_bytes(), "round {round}");
        expected.extend_from_slice(line.as_bytes());
        assert_eq!(reader.metadata().expect("stat").len(), expected.len() as u64);
        assert_eq!(fs::read(&path).expect("read"), expected, "who opens it now");
        // The next one writes to what was sent.
        mounted.sync();
        assert_eq!(mounted.control().content("log").expect("there"), &expected[..]);
    }
    let writer = File::options().read(true).write(true).open(&path).expect("open");
    writer.write_all_at(b"in the middle", 5000).expect("write");
    assert_eq!(at(&reader, 4999, 15), b"xin the middlex");
    assert_eq!(at(&writer, 4999, 15), b"xin the middlex");
    writer.set_len(6000).expect("cut");
    assert_eq!((at(&reader, 5990, 100).len(), reader.metadata().expect("stat").len()), (10, 6000));
    drop(writer);
    fs::write(&path, "anew").expect("written");
    assert_eq!(at(&reader, 0, 100), b"anew");
    mounted.sync();
    assert_eq!(mounted.control().content("log").expect("there"), &b"anew"[..]);
    drop(reader);
    assert_eq!(fs::read(&path).expect("read"), b"anew");
}

// S201.
#[test]
fn a_log_is_followed_while_it_grows() {
    if !have(&["tail"]) {
        return;
    }
    let Some(mounted) = mounted(&[("log", b'x')], Options::default()) else { return };
    let path = mounted.path("log");
    let out = mounted.local().join("followed");
    let to = File::create(&out).expect("a file");
    let mut tail = Command::new("tail");
    tail.arg(format!("--pid={}", std::process::id())).args(["-c", "0", "-f"]).arg(&path).stdout(to);
    let mut tail = tail.spawn().expect("tail runs");
    // It begins where the file ended when it looked first.
    let seen = |what: &str| {
        until(Duration::from_secs(60), || {
            append(&path, format!("{what}\n").as_bytes());
            fs::read_to_string(&out).is_ok_and(|text| text.contains(what))
        })
    };
    assert!(seen("one"), "{}", mounted.log_tail());
    mounted.sync();
    assert!(seen("two"), "{}", mounted.log_tail());
    tail.kill().expect("it runs");
    tail.wait().expect("it ends");
}

// S202.
#[test]
fn a_change_elsewhere_is_seen_after_the_last_close() {
    let Some(mounted) = mounted(&[("a", b'1')], Options::default()) else { return };
    let reader = File::open(mounted.path("a")).expect("open");
    mounted.service.write("a", b"two");
    mounted.refresh();
    assert_eq!(at(&reader, SIZE as u64 - 2, 5), b"11");
    assert_eq!(fs::read(mounted.path("a")).expect("read").len(), SIZE);
    drop(reader);
    assert!(until(Duration::from_secs(60), || fs::read(mounted.path("a")).expect("read") == b"two"));
    mounted.service.edit(&Edit::Delete { path: "a".into() });
    mounted.refresh();
    assert!(!mounted.path("a").exists());
}

// S203.
#[test]
fn what_is_stored_through_a_map_of_what_others_read_reaches_the_service() {
    let Some(mounted) = mounted(&[("a", b'a'), ("b", b'b')], Options::default()) else { return };
    let both = ProtFlags::READ | ProtFlags::WRITE;
    for (name, byte) in [("a", b'a'), ("b", b'b')] {
        let reader = File::open(mounted.path(name)).expect("open");
        assert_eq!(at(&reader, 0, 1), [byte]);
        let writer = File::options().read(true).write(true).open(mounted.path(name)).expect("open");
        if name == "b" {
            writer.write_all_at(b"written", 9000).expect("write");
        }
        let file = OwnedFd::from(writer);
        let map = Map::new(&file, SIZE, both, MapFlags::SHARED).expect("a map");
        map.set(4090, b"through the map");
        assert_eq!(at(&reader, 4090, 15), b"through the map");
        drop(file);
        map.set(70_000, b"after close");
        assert_eq!(at(&reader, 70_000, 11), b"after close");
        drop(map);
        let mut expected = vec![byte; SIZE];
        expected[4090..4105].copy_from_slice(b"through the map");
        expected[70_000..70_011].copy_from_slice(b"after close");
        if name == "b" {
            expected[9000..9007].copy_from_slice(b"written");
        }
        let there = || mounted.control().content(name).is_some_and(|there| there == expected);
        assert!(until(Duration::from_secs(60), there), "{name} {}", mounted.log_tail());
        drop(reader);
        assert!(fs::read(mounted.path(name)).expect("read") == expected);
    }
    let path = mounted.path("a");
    drop((
        File::open(&path).expect("open"),
        File::options().read(true).write(true).open(&path).expect("open"),
    ));
    mounted.sync();
}

// S204.
#[test]
fn where_the_kernel_may_not_the_daemon_reads() {
    let off =
        Options { mount: format!("{},passthrough=false", Options::default().mount), ..Options::default() };
    if let Some(mounted) = mounted(&[("a", b'a')], off) {
        assert!(!is_read_below(&mounted, "a"));
    }
    let work = tempfile::tempdir().expect("a directory");
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(work.path().join(name)).expect("a directory");
    }
    let place = |name: &str| work.path().join(name).display().to_string();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", place("lower"), place("upper"), place("work"));
    let overlay = |arguments: &[&str]| Command::new(arguments[0]).args(&arguments[1..]).output();
    let mount = overlay(&["mount", "-t", "overlay", "overlay", "-o", &options, &place("merged")]);
    if !is_root() || !mount.is_ok_and(|mount| mount.status.success()) {
        eprintln!("left out: no overlay here");
        return;
    }
    let disk = Some(work.path().join("merged"));
    if let Some(mounted) = mounted(&[], Options { disk, ..Options::default() }) {
        mounted.service.write("a", &vec![b'a'; SIZE]);
        mounted.refresh();
        for _ in 0..3 {
            assert_eq!(fs::read(mounted.path("a")).expect("read"), vec![b'a'; SIZE]);
        }
        assert!(!is_read_below(&mounted, "a"));
        append(&mounted.path("a"), b"b");
        mounted.sync();
    }
    overlay(&["umount", &place("merged")]).expect("umount runs");
}
