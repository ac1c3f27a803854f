//! The adapter, the answers and the mount, through a real kernel over a file system in memory.

mod fuse_support;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fuse_support::{Memory, STUCK, UNREACHABLE, can_mount, mount_with, mounted, options};
use onedrivefs::fuse::{
    CheckOptions, FS_TYPE, Limits, MountError, MountOptions, MountTable, MountpointState, Op, Passthrough,
    SessionEnd, Unmount, check_mountpoint, unmount,
};
use onedrivefs::model::Ino;
use onedrivefs::vfs::{Invalidation, Kept};

/// Enough for anything that does not hang.
const SOON: Duration = Duration::from_secs(10);

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("it lists");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn inode(ino: Ino, kept: Kept) -> Invalidation {
    Invalidation::Inode { ino, kept, within: Some(Ino::ROOT) }
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

fn renameat2(from: &Path, to: &Path, flags: u32) -> io::Result<()> {
    let (from, to) = (c_path(from), c_path(to));
    // SAFETY: both are NUL-terminated and outlive the call.
    let code = unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends within [`SOON`] or panics.
fn ends(child: &mut Child) -> std::process::ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is a child") {
            return status;
        }
        assert!(start.elapsed() < SOON, "it does not end");
        std::thread::yield_now();
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < SOON, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn ordinary_programs_make_read_rename_and_remove() {
    let Some((_dir, mounted)) = mounted() else { return };
    let path = |name| mounted.path(name);
    fs::create_dir(path("d")).expect("mkdir");
    fs::write(path("d/a"), b"hello").expect("write");
    let mut appended = File::options().append(true).open(path("d/a")).expect("open");
    appended.write_all(b" world").expect("append");
    drop(appended);
    assert_eq!(fs::read(path("d/a")).expect("read"), b"hello world");
    File::options().write(true).open(path("d/a")).expect("open").set_len(4).expect("truncate");
    assert_eq!(fs::read_to_string(path("d/a")).expect("read"), "hell");
    fs::write(path("d/a"), b"new").expect("O_TRUNC");
    assert_eq!(fs::metadata(path("d/a")).expect("stat").len(), 3);
    symlink("d/a", path("link")).expect("symlink");
    assert_eq!(fs::read(path("link")).expect("read through the link"), b"new");
    fs::set_permissions(path("d/a"), fs::Permissions::from_mode(0o600)).expect("chmod");
    assert_eq!(fs::metadata(path("d/a")).expect("stat").mode() & 0o7777, 0o600);
    fs::rename(path("d/a"), path("b")).expect("rename");
    assert_eq!(names(&path("d")), [""; 0]);
    assert_eq!(names(&path("")), ["b", "d", "link"]);
    fs::remove_dir(path("d")).expect("rmdir");
    fs::remove_file(path("link")).expect("unlink");
    assert_eq!(errno(fs::remove_dir(path("none"))), Some(libc::ENOENT));
    let copied = fs::copy(path("b"), path("c")).expect("copy_file_range");
    assert_eq!((copied, fs::read(path("c")).expect("read")), (3, b"new".to_vec()));
}

#[test]
fn large_content_arrives_whole_in_requests_of_a_mebibyte() {
    let Some((_dir, mounted)) = mounted() else { return };
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(mounted.path("large"), &content).expect("write");
    assert_eq!(mounted.calls(Op::Write), 3);
    assert!(fs::read(mounted.path("large")).expect("read") == content);
    let direct = File::options().read(true).custom_flags(libc::O_DIRECT).open(mounted.path("large"));
    let mut block = vec![0; 8192];
    let count = direct.expect("open O_DIRECT").read_at(&mut block, 4096).expect("read");
    assert!(block[..count] == content[4096..4096 + count] && count > 0);
}

#[test]
fn each_mode_of_rename_does_what_it_says() {
    let Some((_dir, mounted)) = mounted() else { return };
    let (a, b, c) = (mounted.path("a"), mounted.path("b"), mounted.path("c"));
    fs::write(&a, "1").expect("write");
    fs::write(&b, "2").expect("write");
    assert_eq!(errno(renameat2(&a, &b, libc::RENAME_NOREPLACE)), Some(libc::EEXIST));
    renameat2(&a, &b, libc::RENAME_EXCHANGE).expect("exchange");
    assert_eq!((fs::read(&a).expect("read"), fs::read(&b).expect("read")), (b"2".to_vec(), b"1".to_vec()));
    assert_eq!(errno(renameat2(&a, &c, libc::RENAME_EXCHANGE)), Some(libc::ENOENT));
    assert_eq!(errno(renameat2(&a, &c, libc::RENAME_WHITEOUT)), Some(libc::EINVAL));
    renameat2(&a, &b, 0).expect("replace");
    assert_eq!(names(&mounted.path("")), ["b"]);
}

// S29.
#[test]
fn what_the_service_cannot_hold_is_refused_with_the_errno_that_says_so() {
    let Some((_dir, mounted)) = mounted() else { return };
    fs::write(mounted.path("a"), "x").expect("write");
    assert_eq!(errno(fs::hard_link(mounted.path("a"), mounted.path("b"))), Some(libc::EPERM));
    let mknod = |name: &str, mode| {
        let path = c_path(&mounted.path(name));
        // SAFETY: the path is NUL-terminated and outlives the call.
        let code = unsafe { libc::mknod(path.as_ptr(), mode | 0o644, 0) };
        if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    assert_eq!(errno(mknod("fifo", libc::S_IFIFO)), Some(libc::EPERM));
    assert_eq!(errno(mknod("device", libc::S_IFCHR)), Some(libc::EPERM));
    mknod("plain", libc::S_IFREG).expect("a regular file");
    assert_eq!(errno(mknod("plain", libc::S_IFREG)), Some(libc::EEXIST));
    let file = File::open(mounted.path("a")).expect("open");
    let mut flags: libc::c_int = 0;
    // SAFETY: TCGETS writes at most a termios; FIONREAD here an int, which `flags` is.
    let code = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&file), 0x5480, &mut flags) };
    assert_eq!((code, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ENOTTY)));
}

#[test]
fn extended_attributes_answer_sizes_values_and_names() {
    let Some((_dir, mounted)) = mounted() else { return };
    fs::write(mounted.path("a"), "x").expect("write");
    let (path, name) = (c_path(&mounted.path("a")), c"user.color");
    // SAFETY (all four): names and path are NUL-terminated, each buffer is as long as said.
    let set =
        |flags| unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), b"blue".as_ptr().cast(), 4, flags) };
    let get = |buffer: &mut [u8]| unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    };
    assert_eq!(set(libc::XATTR_REPLACE), -1);
    assert_eq!(set(libc::XATTR_CREATE), 0);
    let mut buffer = [0; 16];
    assert_eq!(get(&mut []), 4, "a size of 0 asks how long it is");
    assert_eq!(get(&mut buffer[..2]), -1);
    assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ERANGE));
    assert_eq!((get(&mut buffer), &buffer[..4]), (4, b"blue".as_slice()));
    let listed = unsafe { libc::listxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    assert_eq!(&buffer[..listed as usize], b"user.color\0");
    assert_eq!(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) }, 0);
    assert_eq!(get(&mut buffer), -1);
}

#[test]
fn a_large_listing_brings_attributes_and_is_cached() {
    let Some((_dir, mounted)) = mounted() else { return };
    for n in 0..1000 {
        mounted.files.put(&format!("file-{n:04}"), b"x");
    }
    let listed = names(&mounted.path(""));
    assert_eq!((listed.len(), listed[999].as_str()), (1000, "file-0999"));
    let sizes: u64 = listed.iter().map(|name| fs::metadata(mounted.path(name)).expect("stat").len()).sum();
    assert_eq!(sizes, 1000);
    let lookups = mounted.calls(Op::Lookup);
    assert!(lookups < 900, "{lookups} lookups: the first buffer at least comes with attributes");
    let again = (mounted.calls(Op::Readdir), mounted.calls(Op::Readdirplus));
    assert_eq!(names(&mounted.path("")).len(), 1000);
    assert_eq!((mounted.calls(Op::Readdir), mounted.calls(Op::Readdirplus)), again, "the listing is cached");
}

#[test]
fn an_absent_name_is_asked_for_once() {
    let Some((_dir, mounted)) = mounted() else { return };
    for _ in 0..10 {
        assert_eq!(errno(fs::metadata(mounted.path("absent"))), Some(libc::ENOENT));
    }
    assert_eq!(mounted.calls(Op::Lookup), 1);
}

// S31.
#[test]
fn an_invalidation_makes_a_change_visible_under_times_of_hours() {
    let Some((_dir, mounted)) = mounted() else { return };
    let ino = mounted.files.put("a", b"old");
    assert_eq!(fs::read(mounted.path("a")).expect("read"), b"old");
    assert_eq!(names(&mounted.path("")), ["a"]);
    mounted.files.put("a", b"newer");
    mounted.files.put("b", b"");
    assert_eq!(fs::metadata(mounted.path("a")).expect("stat").len(), 3, "the kernel keeps what it has");
    assert_eq!(names(&mounted.path("")), ["a"]);
    let flush = || mounted.runtime.block_on(mounted.notify.flush());
    mounted.notify.send(inode(ino, Kept::Content));
    mounted.notify.send(inode(Ino::ROOT, Kept::Listing));
    flush();
    assert_eq!(fs::metadata(mounted.path("a")).expect("stat").len(), 5);
    assert_eq!(fs::read(mounted.path("a")).expect("read"), b"newer");
    assert_eq!(names(&mounted.path("")), ["a", "b"]);
    // A name that was absent.
    assert_eq!(errno(fs::metadata(mounted.path("c"))), Some(libc::ENOENT));
    mounted.files.put("c", b"");
    let entry = Invalidation::Entry { parent: Ino::ROOT, name: "c".into() };
    mounted.notify.send(entry);
    flush();
    fs::metadata(mounted.path("c")).expect("it is there");
}

// S12.
#[test]
fn an_open_that_drops_pages_shows_size_and_bytes_of_what_it_opens() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut files = Memory::new();
    files.keep_cache = false;
    let mounted = mount_with(files, &options(dir.path()), Limits::default()).expect("it mounts");
    for bytes in [&b"first"[..], b"the second is longer", b"3rd"] {
        // Nobody tells the kernel.
        mounted.files.put("a", bytes);
        let mut file = File::open(mounted.path("a")).expect("it opens");
        assert_eq!(file.metadata().expect("stat").len(), bytes.len() as u64);
        let mut found = Vec::new();
        file.read_to_end(&mut found).expect("it can be read");
        assert_eq!(found, bytes);
    }
}

// S48.
#[test]
fn a_reader_that_waits_for_content_ends_when_it_is_killed() {
    let Some((_dir, mounted)) = mounted() else { return };
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGINT] {
        let waits = || mounted.metrics.snapshot().iter().map(|stats| stats.waits).sum::<u64>();
        let before = waits();
        // One file each: the kernel may go on reading a page for whoever comes next.
        let name = format!("{STUCK}-{signal}");
        mounted.files.put(&name, b"never arrives");
        let mut cat = Command::new("cat");
        cat.arg(mounted.path(&name)).stdout(Stdio::null());
        // Whoever started the tests may ignore the signal (a shell does for what runs in the background).
        // SAFETY: signal(2) is async-signal-safe and is given a default disposition.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(&mut cat, move || {
                libc::signal(signal, libc::SIG_DFL);
                Ok(())
            });
        }
        let mut reader = cat.spawn().expect("cat runs");
        until("the read arrives", || waits() > before);
        let start = Instant::now();
        // SAFETY: kill(2) of our own child, not yet waited for.
        assert_eq!(unsafe { libc::kill(reader.id() as i32, signal) }, 0);
        assert!(!ends(&mut reader).success());
        assert!(start.elapsed() < Duration::from_secs(1), "{signal}: {:?}", start.elapsed());
    }
}

// S47.
#[test]
fn a_lookup_that_never_comes_back_is_given_up_at_the_deadline() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let limits = Limits { metadata: Duration::from_millis(300), ..Limits::default() };
    let mounted = mount_with(Memory::new(), &options(dir.path()), limits).expect("it mounts");
    assert_eq!(errno(fs::metadata(mounted.path(UNREACHABLE))), Some(libc::ETIMEDOUT));
}

#[test]
fn times_before_1970_and_with_fractions_are_kept() {
    let Some((_dir, mounted)) = mounted() else { return };
    let file = File::create(mounted.path("a")).expect("create");
    for (seconds, nanos) in [(-315_619_200, 500_000_000), (-1, 1), (0, 0), (1_700_000_000, 123_456_789)] {
        let times = [libc::timespec { tv_sec: seconds, tv_nsec: nanos }; 2];
        // SAFETY: the descriptor is open and `times` holds two timespecs.
        assert_eq!(unsafe { libc::futimens(std::os::fd::AsRawFd::as_raw_fd(&file), times.as_ptr()) }, 0);
        mounted.notify.send(inode(Ino(2), Kept::Attributes));
        mounted.runtime.block_on(mounted.notify.flush());
        let seen = file.metadata().expect("stat");
        assert_eq!((seen.mtime(), seen.mtime_nsec()), (seconds, nanos));
    }
}

/// FIXME: the library panics on this time (fuser 0.18); the mount should take it.
#[test]
fn a_request_the_library_dies_of_ends_the_mount_and_hangs_nobody() {
    let Some((_dir, mounted)) = mounted() else { return };
    fs::write(mounted.path("a"), "x").expect("write");
    // Let every thread serve something.
    for n in 0..200 {
        let _ = fs::metadata(mounted.path(&format!("absent-{n}")));
    }
    let file = File::options().write(true).open(mounted.path("a")).expect("open");
    let times = [libc::timespec { tv_sec: i64::MIN, tv_nsec: 1 }; 2];
    // SAFETY: the descriptor is open and `times` holds two timespecs.
    let code = unsafe { libc::futimens(std::os::fd::AsRawFd::as_raw_fd(&file), times.as_ptr()) };
    assert_eq!(code, -1);
    let end = mounted.runtime.block_on(async { tokio::time::timeout(SOON, mounted.session.wait()).await });
    assert_eq!(end.expect("it ends"), SessionEnd::Broken);
    assert!(MountTable::read().expect("it reads").at(mounted.session.mountpoint()).is_none());
}

#[test]
fn a_write_by_another_takes_set_user_id_away() {
    let Some((dir, mounted)) = mounted() else { return };
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::write(mounted.path("tool"), "x").expect("write");
    fs::set_permissions(mounted.path("tool"), fs::Permissions::from_mode(0o6777)).expect("chmod");
    let mode = || fs::metadata(mounted.path("tool")).expect("stat").mode() & 0o7777;
    fs::write(mounted.path("tool"), "root may").expect("write");
    assert_eq!(mode(), 0o6777);
    for change in ["echo x >> tool", ": > tool"] {
        fs::set_permissions(mounted.path("tool"), fs::Permissions::from_mode(0o6777)).expect("chmod");
        let status =
            Command::new("sh").args(["-c", change]).current_dir(mounted.path("")).uid(65534).status();
        assert!(status.expect("sh runs").success(), "{change}");
        assert_eq!(mode(), 0o777, "{change}");
    }
}

#[test]
fn space_is_shown_without_asking_anybody() {
    let Some((_dir, mounted)) = mounted() else { return };
    let output =
        Command::new("df").args(["--output=size,avail,source", "-B1"]).arg(mounted.path("")).output();
    let text = String::from_utf8(output.expect("df runs").stdout).expect("UTF-8");
    let last = text.lines().last().expect("two lines");
    assert_eq!(last.split_whitespace().take(2).collect::<Vec<_>>(), ["1099511627776", "549755813888"]);
    assert!(last.ends_with("test, with\\ oddities"), "{last}");
}

#[test]
fn an_unmount_by_anyone_ends_the_session() {
    let Some((_dir, mounted)) = mounted() else { return };
    let status = Command::new("umount").arg(mounted.path("")).status().expect("umount runs");
    assert!(status.success());
    mounted
        .runtime
        .block_on(async { tokio::time::timeout(SOON, mounted.session.wait()).await })
        .expect("it ends");
    assert!(mounted.session.has_ended());
    mounted.notify.send(inode(Ino::ROOT, Kept::Listing));
    mounted.runtime.block_on(mounted.notify.flush());
    mounted.session.stop(Unmount::WhenIdle).expect("there is nothing to do");
}

#[test]
fn a_busy_mount_says_who_holds_it_and_goes_when_asked_lazily() {
    let Some((_dir, mounted)) = mounted() else { return };
    fs::write(mounted.path("a"), "x").expect("write");
    let held = File::open(mounted.path("a")).expect("open");
    match mounted.session.stop(Unmount::WhenIdle) {
        Err(MountError::Busy { holders, .. }) => {
            assert!(holders.iter().any(|holder| holder.pid == std::process::id()), "{holders:?}");
        }
        other => panic!("{other:?}"),
    }
    mounted.session.stop(Unmount::Lazy).expect("it goes");
    assert!(!mounted.session.has_ended());
    assert_eq!(names(_dir.path()), [""; 0]);
    let mut text = String::new();
    (&held).read_to_string(&mut text).expect("what is open still works");
    assert_eq!(text, "x");
    drop(held);
    mounted
        .runtime
        .block_on(async { tokio::time::timeout(SOON, mounted.session.wait()).await })
        .expect("it ends");
}

#[test]
fn a_second_mount_on_the_same_directory_is_refused() {
    let Some((dir, _mounted)) = mounted() else { return };
    let again = mount_with(Memory::new(), &options(dir.path()), Limits::default());
    assert!(matches!(again.err(), Some(MountError::AlreadyMounted { .. })));
}

#[test]
fn a_read_only_mount_is_read_only_and_passthrough_may_be_asked_for() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let options =
        MountOptions { read_only: true, passthrough: Some(Passthrough::default()), ..options(dir.path()) };
    let files = Memory::new();
    files.put("a", b"x");
    let mounted = mount_with(files, &options, Limits::default()).expect("it mounts");
    assert_eq!(fs::read(mounted.path("a")).expect("read"), b"x");
    assert_eq!(errno(File::create(mounted.path("b"))), Some(libc::EROFS));
}

/// Not a test by itself: mounts in a process of its own, as its environment says, until stdin closes.
#[test]
fn helper_mounts_until_its_stdin_closes() {
    let Some(path) = std::env::var_os("FUSE_MOUNT_HELPER") else { return };
    let allow_other = std::env::var_os("FUSE_MOUNT_ALLOW_OTHER").map(|_| true);
    let options = MountOptions { allow_other, ..options(Path::new(&path)) };
    match mount_with(Memory::new(), &options, Limits::default()) {
        Ok(mounted) => {
            println!("mounted");
            io::stdin().read_to_end(&mut Vec::new()).expect("stdin reads");
            mounted.session.stop(Unmount::WhenIdle).expect("it unmounts");
            mounted.runtime.block_on(mounted.session.wait());
            println!("ended");
        }
        Err(error) => println!("refused {error}"),
    }
}

fn helper(path: &Path, user: Option<u32>, allow_other: bool) -> (Child, String) {
    let mut command = Command::new(std::env::current_exe().expect("the test itself"));
    command.args(["--exact", "helper_mounts_until_its_stdin_closes", "--nocapture"]);
    command.env("FUSE_MOUNT_HELPER", path).stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/");
    if allow_other {
        command.env("FUSE_MOUNT_ALLOW_OTHER", "1");
    }
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let mut child = command.spawn().expect("the test runs itself");
    let said = said(&mut child, &["mounted", "refused"]);
    (child, said)
}

/// The next line with one of these words.
fn said(child: &mut Child, words: &[&str]) -> String {
    let stdout = child.stdout.as_mut().expect("it is piped");
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        assert_eq!(stdout.read(&mut byte).expect("it reads"), 1, "the helper ended");
        if byte != *b"\n" {
            line.push(byte[0]);
            continue;
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        if words.iter().any(|word| text.contains(word)) {
            return text;
        }
        line.clear();
    }
}

#[test]
fn the_mount_of_a_killed_daemon_is_cleaned_up_by_the_next() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (mut daemon, said) = helper(dir.path(), None, false);
    assert!(said.contains("mounted"), "{said}");
    daemon.kill().expect("it is ours");
    daemon.wait().expect("it ends");
    assert_eq!(errno(fs::read_dir(dir.path())), Some(libc::ENOTCONN));
    let found = check_mountpoint(dir.path(), CheckOptions::default()).expect("it is cleaned up");
    assert_eq!(found.state, MountpointState::CleanedUp);
    let mounted = mount_with(Memory::new(), &options(dir.path()), Limits::default()).expect("it mounts");
    fs::write(mounted.path("a"), "x").expect("it serves");
}

/// Lets every user open `/dev/fuse`, as distributions do, until dropped.
struct OpenDevice(fs::Permissions);

impl OpenDevice {
    fn new() -> io::Result<Self> {
        let before = fs::metadata("/dev/fuse")?.permissions();
        fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666))?;
        Ok(Self(before))
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        fs::set_permissions("/dev/fuse", self.0.clone()).expect("it was changed before");
    }
}

fn others_may_open_the_device() -> bool {
    fs::metadata("/dev/fuse").expect("it exists").mode() & 0o006 == 0o006
}

#[test]
fn a_user_mounts_and_unmounts_through_the_helper_program() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let opened = if others_may_open_the_device() { None } else { Some(OpenDevice::new()) };
    if let Some(Err(error)) = &opened {
        assert!(std::env::var_os("CI").is_none(), "CI must be able to open /dev/fuse for all: {error}");
        eprintln!("LEFT OUT: only root may open /dev/fuse here");
        return;
    }
    let path = dir.path().canonicalize().expect("it exists").join("mine");
    fs::create_dir(&path).expect("mkdir");
    std::os::unix::fs::chown(&path, Some(65534), Some(65534)).expect("chown");
    let (mut daemon, said_first) = helper(&path, Some(65534), false);
    assert!(said_first.contains("mounted"), "{said_first}");
    let table = MountTable::read().expect("it reads");
    let mount = table.at(&path).expect("it is mounted");
    assert_eq!((mount.fs_type.as_str(), mount.source.to_str()), (FS_TYPE, Some("test, with\\ oddities")));
    assert_eq!(errno(fs::read_dir(&path)), Some(libc::EACCES), "others stay out, root too");
    let script = "cd \"$0\" && echo hello > a && cat a";
    let user =
        Command::new("sh").args(["-c", script]).arg(&path).current_dir("/").uid(65534).gid(65534).output();
    assert_eq!(user.expect("sh runs").stdout, b"hello\n");
    drop(daemon.stdin.take());
    assert!(said(&mut daemon, &["ended"]).contains("ended"));
    assert!(daemon.wait().expect("it ends").success());
    assert!(MountTable::read().expect("it reads").at(&path).is_none());
    let allowed = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if !allowed.lines().any(|line| line.trim() == "user_allow_other") {
        let (mut daemon, said) = helper(&path, Some(65534), true);
        assert!(said.contains("user_allow_other"), "{said}");
        drop(daemon.stdin.take());
        daemon.wait().expect("it ends");
    }
}

#[test]
fn an_automount_trap_is_mounted_on_without_waking_it() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().canonicalize().expect("it exists");
    let (mut requests, answers) = io::pipe().expect("a pipe");
    // A daemon in another process group: for it, this process is one of those that wake the trap.
    let mut daemon = Command::new("sleep").arg("1000").process_group(0).spawn().expect("sleep runs");
    let fd = std::os::fd::AsRawFd::as_raw_fd(&answers);
    let pgrp = daemon.id();
    let data = CString::new(format!("fd={fd},pgrp={pgrp},minproto=5,maxproto=5,direct")).expect("no NUL");
    let (source, kind, target) = (c"test-trap", c"autofs", c_path(&path));
    // SAFETY: every string is NUL-terminated and outlives the call.
    let code =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, data.as_ptr().cast()) };
    if code != 0 {
        eprintln!("LEFT OUT: no autofs here: {}", io::Error::last_os_error());
    } else {
        drop(answers);
        let found = check_mountpoint(&path, CheckOptions::default()).expect("a trap is fit");
        assert_eq!((found.state, &found.path), (MountpointState::Trap, &path));
        let mounted = mount_with(Memory::new(), &options(&path), Limits::default()).expect("it mounts");
        fs::write(mounted.path("a"), "x").expect("it serves");
        drop(mounted);
        let table = MountTable::read().expect("it reads");
        assert!(table.at(&path).is_some_and(onedrivefs::fuse::Mount::is_trap), "the trap is still set");
        unmount(&path, Unmount::WhenIdle).expect("the trap goes");
        let mut woken = Vec::new();
        requests.read_to_end(&mut woken).expect("the kernel has closed its end");
        assert!(woken.is_empty(), "the trap was woken");
    }
    daemon.kill().expect("it is ours");
    daemon.wait().expect("it ends");
}

#[test]
fn nothing_is_unmounted_where_nothing_is_mounted() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(matches!(unmount(dir.path(), Unmount::Lazy), Err(MountError::NotMounted { .. })));
    assert_eq!(fs::metadata(dir.path().join("x")).err().map(|error| error.kind()), Some(ErrorKind::NotFound));
}
