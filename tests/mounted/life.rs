//! Mounting, ending, and what is said when it cannot be.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use onedrivefs::emulator::{Fault, FaultAction};

use crate::mounted_support::service::Service;
use crate::mounted_support::{Mounted, Options, can_mount, have, process, text, until};

/// A demonstration in a process of its own; ends with its test.
struct Demo {
    child: Child,
    work: tempfile::TempDir,
    dir: PathBuf,
}

impl Demo {
    fn start(dir: &str) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let work = tempfile::tempdir().expect("a directory");
        let dir = work.path().join(dir);
        let mut command = program(work.path());
        command.arg("demo").arg(&dir).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::spawn(command);
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says something");
        assert!(line.contains("is mounted at"), "{line}");
        Some(Self { child, work, dir })
    }

    fn end(mut self) -> (Option<i32>, String) {
        let ended = until(Duration::from_secs(30), || self.child.try_wait().expect("ours").is_some());
        assert!(ended, "the demonstration does not end");
        let mut said = String::new();
        self.child.stderr.take().expect("it is piped").read_to_string(&mut said).expect("text");
        assert!(!process::is_mounted(&self.dir));
        (self.child.wait().expect("ours").code(), said)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        process::force_unmount(&self.dir);
    }
}

/// The program with surroundings of its own.
fn program(work: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onedrivefs"));
    command.env("XDG_RUNTIME_DIR", work).env("HOME", work).env("ONEDRIVEFS_ACCESS_TOKEN", "anything");
    command.env("ONEDRIVEFS_CONFIG", work.join("no-config.toml")).stdin(Stdio::null());
    command
}

#[test]
fn ctrl_c_ends_a_demonstration_and_nothing_is_unsent() {
    let Some(demo) = Demo::start("made/by it") else { return };
    assert!(demo.dir.join("Welcome.txt").exists(), "the directory was made and shows the sample");
    fs::write(demo.dir.join("written"), "just before").expect("a file");
    process::kill(demo.child.id(), libc::SIGINT);
    let (code, said) = demo.end();
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

#[test]
fn umount_ends_a_demonstration() {
    let Some(demo) = Demo::start("demo") else { return };
    fs::write(demo.dir.join("written"), "just before").expect("a file");
    let output = program(demo.work.path()).arg("umount").arg(&demo.dir).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (code, said) = demo.end();
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

#[test]
fn fusermount_ends_a_demonstration() {
    if !have(&["fusermount3"]) {
        return;
    }
    let Some(demo) = Demo::start("demo") else { return };
    fs::write(demo.dir.join("written"), "just before").expect("a file");
    let status = Command::new("fusermount3").arg("-u").arg(&demo.dir).status().expect("it runs");
    assert!(status.success());
    let (code, said) = demo.end();
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

#[test]
fn what_cannot_be_mounted_on_is_said_in_one_sentence() {
    let Some(demo) = Demo::start("taken") else { return };
    let work = demo.work.path().to_owned();
    fs::write(work.join("file"), "x").expect("a file");
    fs::create_dir(work.join("full")).expect("a directory");
    fs::write(work.join("full/x"), "x").expect("a file");
    let service = Service::start(onedrivefs::emulator::Flavour::Personal);
    for (dir, expected) in [
        ("file", "not a directory"),
        ("file/below", "directory"),
        ("full", "not empty"),
        ("taken", "already"),
        ("taken/Documents", "not empty"),
    ] {
        let path = work.join(dir);
        let demo = program(&work).arg("demo").arg(&path).output().expect("it runs");
        let mut mount = program(&work);
        mount.args(["mount", "me"]).arg(&path).args(["--foreground", "--graph-url", &service.url()]);
        mount.arg("--state-dir").arg(work.join("state")).arg("--cache-dir").arg(work.join("cache"));
        let mount = mount.output().expect("it runs");
        for output in [demo, mount] {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success(), "{dir}: {said}");
            assert!(said.trim_end().lines().count() == 1 && said.contains(expected), "{dir}: {said}");
            assert_eq!(said.trim_end().matches("; ").count(), 1, "what: why; remedy: {said}");
        }
    }
    process::kill(demo.child.id(), libc::SIGTERM);
    assert_eq!(demo.end().0, Some(0));
}

// S51.
#[test]
fn a_signal_sends_what_is_unsent_before_the_end() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let options = Options { mount: "settle=60s".into(), ..Options::default() };
        let Some(mounted) = Mounted::new(onedrivefs::emulator::Flavour::Business, options) else { return };
        fs::create_dir(mounted.path("folder")).expect("a directory");
        fs::write(mounted.path("folder/file"), "unsent").expect("a file");
        mounted.signal(signal);
        let status = mounted.wait_for_end();
        assert!(status.success(), "{status}\n{}", mounted.log_tail());
        assert!(!process::is_mounted(&mounted.root()));
        assert_eq!(mounted.control().content("folder/file").as_deref(), Some(&b"unsent"[..]));
    }
}

// S51, S52.
#[test]
fn every_way_of_unmounting_sends_what_is_unsent() {
    for way in ["onedrivefs", "fusermount3", "umount"] {
        if way != "onedrivefs" && !have(&[way]) {
            continue;
        }
        let options = Options { mount: "settle=60s".into(), ..Options::default() };
        let Some(mounted) = Mounted::new(onedrivefs::emulator::Flavour::Business, options) else { return };
        fs::write(mounted.path("file"), "unsent").expect("a file");
        let root = mounted.root();
        let status = match way {
            "onedrivefs" => mounted.run(&["umount", &text(&root)]).status,
            "fusermount3" => Command::new(way).arg("-u").arg(&root).status().expect("it runs"),
            _ => Command::new(way).arg(&root).status().expect("it runs"),
        };
        assert!(status.success(), "{way}: {status}\n{}", mounted.log_tail());
        assert!(!process::is_mounted(&root), "{way}");
        let ended = mounted.wait_for_end();
        assert!(ended.success(), "{way}: {ended}\n{}", mounted.log_tail());
        assert_eq!(mounted.control().content("file").as_deref(), Some(&b"unsent"[..]), "{way}");
    }
}

// S51.
#[test]
fn what_cannot_be_sent_is_kept_and_said() {
    let options = Options { mount: "settle=60s,drain-timeout=1s".into(), ..Options::default() };
    let Some(mounted) = Mounted::new(onedrivefs::emulator::Flavour::Business, options) else { return };
    mounted.await_online();
    fs::write(mounted.path("file"), "unsent").expect("a file");
    let action =
        FaultAction::Status { status: 503, code: None, inner: None, retry_after: None, after: false };
    mounted.control().inject(Fault { method: None, path: None, op: None, skip: 0, count: None, action });
    let output = mounted.run(&["umount", &text(&mounted.root())]);
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(mounted.wait_for_end().code(), Some(4), "{}", mounted.log_tail());
    mounted.control().clear_faults();
    mounted.remount();
    mounted.sync();
    assert_eq!(mounted.control().content("file").as_deref(), Some(&b"unsent"[..]));
    mounted.unmount();
}

#[test]
fn a_mount_in_use_is_told_at_once_and_stays() {
    let Some(mounted) = Mounted::usual() else { return };
    fs::write(mounted.path("file"), "before").expect("a file");
    let mut open = fs::File::options().append(true).open(mounted.path("file")).expect("it opens");
    std::io::Write::write_all(&mut open, b" and after").expect("a write");
    let start = Instant::now();
    let output = mounted.run(&["umount", &text(&mounted.root())]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.trim_end().lines().count() == 1 && said.contains("held by"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    std::io::Write::write_all(&mut open, b" that").expect("it still works");
    drop(open);
    mounted.unmount();
    assert_eq!(mounted.control().content("file").as_deref(), Some(&b"before and after that"[..]));
}

#[test]
fn a_dead_mount_is_removed_by_the_next_one_and_by_umount() {
    let Some(mounted) = Mounted::usual() else { return };
    fs::write(mounted.path("file"), "content").expect("a file");
    mounted.sync();
    mounted.kill9_only();
    assert!(process::is_mounted(&mounted.root()));
    assert_eq!(fs::read_dir(mounted.root()).expect_err("it is dead").raw_os_error(), Some(libc::ENOTCONN));
    let status = mounted.run(&["status", &text(&mounted.root())]);
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(!status.status.success() && said.trim_end().lines().count() == 1, "{said}");
    mounted.remount();
    assert_eq!(fs::read(mounted.path("file")).expect("it can be read"), b"content");
    mounted.kill9_only();
    let umount = mounted.run(&["umount", &text(&mounted.root())]);
    assert!(umount.status.success(), "{}", String::from_utf8_lossy(&umount.stderr));
    assert!(!process::is_mounted(&mounted.root()));
}

#[test]
fn mount_returns_when_usable_and_leaves_a_daemon() {
    let Some(mounted) = Mounted::usual() else { return };
    fs::write(mounted.path("file"), "content").expect("a file");
    mounted.unmount();
    let (root, state) = (text(&mounted.root()), text(&mounted.state_dir()));
    let cache = text(&mounted.scratch().join("cache"));
    let url = mounted.service.url();
    let arguments = ["mount", "me", &root, "--graph-url", &url, "--state-dir", &state, "--cache-dir", &cache];
    let output = mounted.run(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b""[..], &b""[..]));
    assert_eq!(fs::read(mounted.path("file")).expect("it is usable at once"), b"content");
    let second = mounted.run(&arguments);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.trim_end().lines().count() == 1, "{said}");
    let pid = mounted.status()["pid"].as_u64().expect("a number");
    fs::write(mounted.path("file"), "changed").expect("a write");
    let umount = mounted.run(&["umount", &root]);
    assert!(umount.status.success(), "{}", String::from_utf8_lossy(&umount.stderr));
    assert_eq!(mounted.control().content("file").as_deref(), Some(&b"changed"[..]));
    assert!(until(Duration::from_secs(10), || !Path::new(&format!("/proc/{pid}/exe")).exists()));
}

#[test]
fn a_drive_is_mounted_once() {
    let Some(mounted) = Mounted::usual() else { return };
    let other = text(&mounted.local());
    let (state, url) = (text(&mounted.state_dir()), mounted.service.url());
    let output =
        mounted.run(&["mount", "me", &other, "--foreground", "--graph-url", &url, "--state-dir", &state]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains(&mounted.pid().to_string()), "it says who holds it: {said}");
}

#[test]
fn a_read_only_mount_changes_nothing() {
    let options = Options { mount: "ro,poll-interval=1s".into(), ..Options::default() };
    let Some(mounted) = Mounted::new(onedrivefs::emulator::Flavour::Business, options) else { return };
    mounted.service.write("file", b"content");
    assert!(until(Duration::from_secs(10), || mounted.path("file").exists()));
    assert_eq!(fs::read(mounted.path("file")).expect("it can be read"), b"content");
    let refused = fs::write(mounted.path("file"), "x").expect_err("it is read-only");
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    assert_eq!(fs::create_dir(mounted.path("d")).expect_err("read-only").raw_os_error(), Some(libc::EROFS));
    mounted.unmount();
}

// S9.
#[test]
fn with_sync_close_waits_for_the_service() {
    let options = Options { mount: "sync,settle=60s".into(), ..Options::default() };
    let Some(mounted) = Mounted::new(onedrivefs::emulator::Flavour::Business, options) else { return };
    fs::write(mounted.path("file"), "content").expect("a file");
    assert_eq!(mounted.control().content("file").as_deref(), Some(&b"content"[..]));
    fs::create_dir(mounted.path("folder")).expect("a directory");
    assert!(mounted.control().id_of("folder").is_some());
    fs::rename(mounted.path("file"), mounted.path("folder/file")).expect("a rename");
    assert!(mounted.control().id_of("folder/file").is_some());
    fs::remove_file(mounted.path("folder/file")).expect("a removal");
    assert!(mounted.control().id_of("folder/file").is_none());
}
