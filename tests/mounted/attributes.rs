//! Attributes: times, modes, owners, extended attributes, space.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use onedrivefs::emulator::Flavour;
use rustix::fs::{self as rfs, Access, AtFlags, CWD, Mode, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::mounted_support::trace::{Trace, same_as_local};
use crate::mounted_support::tree::Times;
use crate::mounted_support::{Mounted, Options, is_root, until};

fn set_times(path: &Path, access: Timespec, modified: Timespec) -> Result<(), Errno> {
    let times = Timestamps { last_access: access, last_modification: modified };
    rfs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
}

fn at(seconds: i64, nanoseconds: i64) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ }
}

const OMIT: i64 = 0x3fff_fffe;
const NOW: i64 = 0x3fff_ffff;

#[test]
fn what_stat_says_is_what_was_made() {
    same_as_local("stat", |dir, t| {
        fs::write(dir.join("file"), "12345").expect("a file");
        fs::create_dir(dir.join("folder")).expect("a directory");
        let file = fs::metadata(dir.join("file")).expect("it is there");
        t.note("file", (file.len(), file.mode(), file.nlink(), file.uid(), file.gid(), file.is_file()));
        let folder = fs::metadata(dir.join("folder")).expect("it is there");
        t.note("folder", (folder.mode(), folder.uid(), folder.gid(), folder.is_dir()));
        t.note("same device", file.dev() == folder.dev());
        t.note("own inodes", file.ino() != folder.ino());
        t.note("blocks", file.blocks() > 0);
        let open = fs::File::open(dir.join("file")).expect("it opens");
        t.note("by handle", open.metadata().expect("it is open").ino() == file.ino());
        fs::rename(dir.join("file"), dir.join("folder/file")).expect("a rename");
        let moved = fs::metadata(dir.join("folder/file")).expect("it is there");
        t.note("it keeps its inode", moved.ino() == file.ino());
    });
}

#[test]
fn times_can_be_set_and_stay() {
    let Some(mounted) = Mounted::shared() else { return };
    let shown = |path: &Path| {
        let meta = fs::symlink_metadata(path).expect("it is there");
        (meta.mtime(), meta.mtime_nsec())
    };
    same_as_local("times", |dir, t| {
        let file = dir.join("file");
        fs::write(&file, "x").expect("a file");
        t.done("both", set_times(&file, at(1_000_000_000, 5), at(1_234_567_890, 123_456_789)));
        t.note("mtime", shown(&file));
        t.done("only atime", set_times(&file, at(1_100_000_000, 0), at(0, OMIT)));
        t.note("mtime", shown(&file));
        t.done("before 1970", set_times(&file, at(0, OMIT), at(-86_400, 0)));
        t.note("mtime", shown(&file));
        t.done("now", set_times(&file, at(0, NOW), at(0, NOW)));
        t.note("recent", is_recent(&file));
        t.done("again", set_times(&file, at(0, OMIT), at(1_500_000_000, 0)));
        let open = fs::File::options().append(true).open(&file).expect("it opens");
        t.done("by handle", open.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000)));
        t.note("mtime", shown(&file));
        t.call("write", rustix::io::write(&open, b"y"));
        t.note("a write moves it", is_recent(&file));
        t.done("set before close", set_times(&file, at(0, OMIT), at(1_700_000_000, 0)));
        drop(open);
        t.note("mtime", shown(&file));
        fs::create_dir(dir.join("folder")).expect("a directory");
        t.done("of a folder", set_times(&dir.join("folder"), at(0, OMIT), at(1_400_000_000, 0)));
        t.note("mtime", shown(&dir.join("folder")));
        std::os::unix::fs::symlink("file", dir.join("link")).expect("a link");
        t.done("of a link", set_times(&dir.join("link"), at(0, OMIT), at(1_300_000_000, 0)));
        t.note("mtime", shown(&dir.join("link")));
        t.done("of nothing", set_times(&dir.join("none"), at(0, OMIT), at(1, 0)));
    });
    // S27: the time stays here as it was set, and the service has it, in its own unit.
    mounted.assert_truth_equals_tree("times", Times::Exact);
    assert_eq!(shown(&mounted.path("times/file")), (1_700_000_000, 0));
}

fn is_recent(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|meta| meta.modified()).expect("it is there");
    modified.elapsed().map_or(true, |age| age < Duration::from_secs(60))
}

#[test]
fn a_change_in_a_folder_moves_its_time() {
    same_as_local("folder times", |dir, t| {
        let old = |t: &mut Trace, name: &str| {
            t.done("old", set_times(&dir.join(name), at(0, OMIT), at(1_000_000_000, 0)));
        };
        fs::create_dir(dir.join("a")).expect("a directory");
        fs::create_dir(dir.join("b")).expect("a directory");
        old(t, "a");
        fs::write(dir.join("a/file"), "x").expect("a file");
        t.note("create", is_recent(&dir.join("a")));
        old(t, "a");
        old(t, "b");
        fs::rename(dir.join("a/file"), dir.join("b/file")).expect("a rename");
        t.note("rename", (is_recent(&dir.join("a")), is_recent(&dir.join("b"))));
        old(t, "b");
        fs::remove_file(dir.join("b/file")).expect("a removal");
        t.note("unlink", is_recent(&dir.join("b")));
        old(t, "b");
        fs::create_dir(dir.join("b/c")).expect("a directory");
        t.note("mkdir", is_recent(&dir.join("b")));
    });
}

/// Change and modification time to the nanosecond, which git and backup programs remember.
fn both_times(path: &Path) -> [(i64, i64); 2] {
    let meta = fs::symlink_metadata(path).expect("it is there");
    [(meta.ctime(), meta.ctime_nsec()), (meta.mtime(), meta.mtime_nsec())]
}

// S27.
#[test]
fn closing_and_sending_a_file_moves_none_of_its_times() {
    for flavour in [Flavour::Business, Flavour::Personal] {
        let Some(mounted) = Mounted::new(flavour, Options::default()) else { return };
        let (folder, path) = (mounted.path("folder"), mounted.path("folder/file"));
        fs::create_dir(&folder).expect("a directory");
        let mut open = fs::File::create(&path).expect("a file");
        std::io::Write::write_all(&mut open, b"content").expect("a write");
        let while_open = both_times(&path);
        drop(open);
        let (file_before, folder_before) = (both_times(&path), both_times(&folder));
        assert_eq!(file_before, while_open);
        mounted.sync();
        assert_eq!((both_times(&path), both_times(&folder)), (file_before, folder_before), "sent");
        mounted.unmount();
        mounted.remount();
        assert_eq!((both_times(&path), both_times(&folder)), (file_before, folder_before), "mounted again");
        mounted.await_online();
        assert_eq!((both_times(&path), both_times(&folder)), (file_before, folder_before), "looked at");
    }
}

#[test]
fn every_change_of_a_file_moves_its_change_time() {
    same_as_local("ctime", |dir, t| {
        let path = dir.join("file");
        fs::write(&path, "x").expect("a file");
        let mut before = both_times(&path);
        let mut moved = |t: &mut Trace, what: &str, change: &dyn Fn()| {
            // The clock of a local file system ticks every few milliseconds.
            std::thread::sleep(Duration::from_millis(20));
            change();
            let now = both_times(&path);
            t.note(what, (now[0] > before[0], now[1] == before[1]));
            before = now;
        };
        moved(t, "nothing", &|| drop(fs::read(&path)));
        moved(t, "chmod", &|| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod"));
        moved(t, "rename", &|| {
            fs::rename(&path, dir.join("moved")).expect("a rename");
            fs::rename(dir.join("moved"), &path).expect("a rename");
        });
        moved(t, "xattr", &|| {
            rfs::setxattr(&path, "user.x", b"x", XattrFlags::empty()).expect("an attribute");
        });
        moved(t, "utimes", &|| set_times(&path, at(0, OMIT), at(1_000_000_000, 0)).expect("utimes"));
        moved(t, "write", &|| fs::write(&path, "another").expect("a write"));
    });
}

// S26.
#[test]
fn modes_and_owners_are_kept_here() {
    let Some(mounted) = Mounted::shared() else { return };
    let made = mounted.control().counts();
    same_as_local("modes", |dir, t| {
        let file = dir.join("file");
        fs::write(&file, "x").expect("a file");
        fs::create_dir(dir.join("folder")).expect("a directory");
        for mode in [0o600, 0o755, 0o000, 0o4755, 0o2644] {
            t.done("chmod", fs::set_permissions(&file, fs::Permissions::from_mode(mode)));
            t.call("mode", fs::metadata(&file).map(|meta| format!("{:o}", meta.mode())));
        }
        t.done("chmod", fs::set_permissions(dir.join("folder"), fs::Permissions::from_mode(0o1777)));
        t.call("mode", fs::metadata(dir.join("folder")).map(|meta| format!("{:o}", meta.mode())));
        if is_root() {
            t.done("chown", std::os::unix::fs::chown(&file, Some(1234), Some(4321)));
            t.done("chown of a folder", std::os::unix::fs::chown(dir.join("folder"), Some(1), None));
        }
        let owner = |meta: fs::Metadata| (meta.uid(), meta.gid());
        t.call("owner", fs::metadata(&file).map(owner));
        t.call("owner", fs::metadata(dir.join("folder")).map(owner));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4777)).expect("chmod");
        t.note("mode", format!("{:o}", fs::metadata(&file).expect("it is there").mode()));
    });
    let counts = mounted.control().counts();
    assert_eq!(counts.get("item.update"), made.get("item.update"), "modes and owners cause no request");
}

#[test]
fn the_umask_is_honoured() {
    same_as_local("umask", |dir, t| {
        // A process of its own: the mask belongs to the process, and other tests run beside this one.
        let script = "umask 027; touch file; mkdir folder; stat -c '%a' file folder";
        let output = std::process::Command::new("sh").args(["-c", script]).current_dir(dir).output();
        t.note("modes", String::from_utf8(output.expect("it runs").stdout));
    });
}

#[test]
fn extended_attributes_of_users_are_kept_here() {
    same_as_local("xattrs", |dir, t| {
        let file = dir.join("file");
        fs::write(&file, "x").expect("a file");
        let get = |name: &str| {
            let mut buffer = [0; 300];
            rfs::getxattr(&file, name, &mut buffer[..]).map(|len| buffer[..len].escape_ascii().to_string())
        };
        let none = XattrFlags::empty();
        t.call("none", get("user.colour"));
        t.done("set", rfs::setxattr(&file, "user.colour", b"blue", none));
        t.call("get", get("user.colour"));
        t.done("create again", rfs::setxattr(&file, "user.colour", b"red", XattrFlags::CREATE));
        t.done("replace", rfs::setxattr(&file, "user.colour", b"green", XattrFlags::REPLACE));
        t.done("replace nothing", rfs::setxattr(&file, "user.none", b"x", XattrFlags::REPLACE));
        t.call("get", get("user.colour"));
        t.done("binary", rfs::setxattr(&file, "user.binary", b"\0\xff\n", none));
        t.call("get", get("user.binary"));
        t.done("empty", rfs::setxattr(&file, "user.empty", b"", none));
        t.call("get", get("user.empty"));
        t.call("too small", rfs::getxattr(&file, "user.colour", &mut [0; 2][..]));
        t.call("size", rfs::getxattr(&file, "user.colour", &mut [0u8; 0][..]));
        t.done("no such class", rfs::setxattr(&file, "nonsense.x", b"x", none));
        t.note("names", names(&file));
        fs::rename(&file, dir.join("moved")).expect("a rename");
        t.note("names", names(&dir.join("moved")));
        fs::rename(dir.join("moved"), &file).expect("a rename");
        t.done("remove", rfs::removexattr(&file, "user.colour"));
        t.done("remove again", rfs::removexattr(&file, "user.colour"));
        t.note("names", names(&file));
        t.done("of a folder", rfs::setxattr(dir, "user.folder", b"x", none));
        t.done("long", rfs::setxattr(&file, "user.long", &[b'l'; 2000], none));
    });
}

/// Names of the user's attributes; those of the item are the program's own.
fn names(path: &Path) -> Vec<String> {
    let mut buffer = [0; 4096];
    let len = rfs::listxattr(path, &mut buffer[..]).expect("a list");
    let list = buffer[..len].split(|byte| *byte == 0).map(|name| String::from_utf8_lossy(name).into_owned());
    let mut list: Vec<String> =
        list.filter(|name| name.starts_with("user.") && !name.starts_with("user.onedrive.")).collect();
    list.sort();
    list
}

#[test]
fn what_the_service_knows_of_a_file_can_be_asked() {
    let Some(mounted) = Mounted::shared() else { return };
    fs::write(mounted.path("asked"), "content").expect("a file");
    mounted.sync_path("asked");
    let get = |name: &str| {
        let mut buffer = [0; 1000];
        let len = rfs::getxattr(mounted.path("asked"), name, &mut buffer[..]).expect(name);
        String::from_utf8(buffer[..len].to_vec()).expect("text")
    };
    assert_eq!(Some(get("user.onedrive.id")), mounted.control().id_of("asked"));
    assert!(!get("user.onedrive.etag").is_empty());
    let refused = rfs::setxattr(mounted.path("asked"), "user.onedrive.id", b"x", XattrFlags::empty());
    assert!(refused.is_err());
}

// S190.
#[test]
fn a_list_of_attributes_fits_the_size_that_was_told_before_the_file_was_sent() {
    let Some(mounted) = Mounted::shared() else { return };
    let path = mounted.path("grows");
    fs::write(&path, "content").expect("a file");
    rfs::setxattr(&path, "user.colour", b"blue", XattrFlags::empty()).expect("an attribute");
    let told = rfs::listxattr_query(&path).expect("a size");
    mounted.sync_path("grows");
    let mut buffer = vec![0; told];
    let len = rfs::listxattr(&path, &mut buffer[..]).expect("a list");
    let names = String::from_utf8_lossy(&buffer[..len]).replace('\0', " ");
    assert!(names.contains("user.onedrive.etag"), "{names}");
}

// S50.
#[test]
fn space_is_the_quota_and_costs_no_request() {
    let Some(mounted) = Mounted::usual() else { return };
    mounted.await_online();
    mounted.control().set_quota(10 << 30);
    let known = until(Duration::from_secs(30), || {
        fs::write(mounted.path("nudge"), "x").expect("a file");
        mounted.sync();
        rfs::statvfs(mounted.root()).expect("statfs").f_blocks > 0
    });
    assert!(known);
    mounted.control().reset_log();
    let space = rfs::statvfs(mounted.root()).expect("statfs");
    assert!(space.f_blocks * space.f_frsize >= 10 << 30, "{} blocks", space.f_blocks);
    assert!(space.f_bavail <= space.f_blocks && space.f_bavail > 0, "{}", space.f_bavail);
    // S175.
    assert_eq!(space.f_namemax, 765);
    assert!(space.f_files > space.f_ffree, "what is there is counted");
    let asked = mounted.control().counts();
    assert!(!asked.keys().any(|op| op.starts_with("drive")), "{asked:?}");
}

#[test]
fn access_is_checked_by_the_kernel() {
    same_as_local("access", |dir, t| {
        let file = dir.join("file");
        fs::write(&file, "x").expect("a file");
        for mode in [0o644, 0o755, 0o400] {
            rfs::chmod(&file, Mode::from_raw_mode(mode)).expect("chmod");
            for access in [Access::EXISTS, Access::READ_OK, Access::WRITE_OK, Access::EXEC_OK] {
                t.done("access", rfs::access(&file, access));
            }
        }
        t.done("of nothing", rfs::access(dir.join("none"), Access::EXISTS));
    });
}

#[test]
fn other_users_are_held_to_the_modes() {
    if !is_root() || !crate::mounted_support::have(&["setpriv"]) {
        return;
    }
    let Some(mounted) = Mounted::shared() else { return };
    fs::set_permissions(mounted.scratch(), fs::Permissions::from_mode(0o755)).expect("chmod");
    same_as_local("other users", |dir, t| {
        let fill = |name: &str, mode| {
            fs::write(dir.join(name), name).expect("a file");
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).expect("chmod");
        };
        fill("private", 0o600);
        fill("readable", 0o644);
        fill("writable", 0o666);
        let mut run = |script: &str| {
            let mut command = std::process::Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script]);
            let null = std::process::Stdio::null;
            let status = command.current_dir(dir).stdout(null()).stderr(null()).status();
            t.note(script, status.expect("it runs").success());
        };
        for script in [
            "cat private",
            "cat readable",
            "echo x >readable",
            "echo x >writable",
            "echo x >new",
            "rm readable",
            "chmod 777 readable",
            "touch -d 2020-01-01 readable",
            "touch writable",
        ] {
            run(script);
        }
    });
}
