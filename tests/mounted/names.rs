//! Names: making, renaming, removing; what the service cannot hold.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{self as rfs, AtFlags, CWD, FileType, Mode, RenameFlags};
use rustix::io::Errno;

use onedrivefs::emulator::{Edit, Flavour};

use crate::mounted_support::trace::{Trace, same_as_local};
use crate::mounted_support::{Mounted, Options};

fn listing(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("it can be listed");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn rename_with(from: &Path, to: &Path, flags: RenameFlags) -> Result<(), Errno> {
    rfs::renameat_with(CWD, from, CWD, to, flags)
}

fn read(path: &Path) -> Result<String, std::io::Error> {
    fs::read_to_string(path)
}

#[test]
fn lookups_answer_for_what_is_and_what_is_not() {
    same_as_local("lookup", |dir, t| {
        t.done("absent", fs::metadata(dir.join("file")));
        fs::write(dir.join("file"), "x").expect("a file");
        t.done("present", fs::metadata(dir.join("file")));
        t.done("below a file", fs::metadata(dir.join("file/x")));
        t.done("255 bytes", fs::metadata(dir.join("n".repeat(255))));
        t.done("256 bytes", fs::metadata(dir.join("n".repeat(256))));
        fs::write(dir.join("n".repeat(255)), "long").expect("a long name");
        t.note("names", listing(dir));
        fs::remove_file(dir.join("file")).expect("it is there");
        t.done("gone", fs::metadata(dir.join("file")));
        fs::write(dir.join("file"), "again").expect("the name is free");
        t.call("again", read(&dir.join("file")));
    });
}

// S17, S18.
#[test]
fn odd_names_come_back_as_they_were() {
    same_as_local("odd names", |dir, t| {
        let odd = [
            "with space",
            " leading",
            "trailing ",
            "trailing.",
            "a:b",
            "a\\b",
            "a*?\"<>|",
            "#hash",
            "100%",
            "~tilde",
            "-dash",
            "'quote'",
            "tab\there",
            "new\nline",
            "üöä",
            "e\u{301}",
            "日本語",
            "🎉",
            "CON",
            "aux.c",
            "desktop.ini",
            ".hidden",
            "..double",
            "a".repeat(200).as_str(),
        ]
        .map(str::to_owned);
        for name in &odd {
            t.done(name, fs::write(dir.join(name), name));
        }
        t.note("names", listing(dir));
        for name in &odd {
            t.call(name, read(&dir.join(name)));
        }
        t.done("a folder", fs::create_dir(dir.join("what?")));
        t.done("in it", fs::write(dir.join("what?/why: because"), "x"));
        t.done("rename", fs::rename(dir.join("a:b"), dir.join("b:a")));
    });
}

#[test]
fn directories_are_made_and_removed_as_elsewhere() {
    same_as_local("directories", |dir, t| {
        let (one, two) = (dir.join("one"), dir.join("one/two"));
        t.done("in nothing", fs::create_dir(&two));
        t.done("mkdir", fs::create_dir(&one));
        t.done("again", fs::create_dir(&one));
        t.done("below", fs::create_dir(&two));
        t.done("rmdir of a full one", fs::remove_dir(&one));
        t.done("unlink of a directory", rfs::unlinkat(CWD, &two, AtFlags::empty()).map_err(|_| Errno::ISDIR));
        fs::write(dir.join("file"), "").expect("a file");
        t.done("rmdir of a file", fs::remove_dir(dir.join("file")));
        t.done("rmdir of nothing", fs::remove_dir(dir.join("none")));
        t.done("unlink of nothing", fs::remove_file(dir.join("none")));
        t.done("rmdir", fs::remove_dir(&two));
        t.done("mkdir where one was", fs::create_dir(&two));
        t.done("mkdir over a file", fs::create_dir(dir.join("file")));
        let deep = (0..20).fold(dir.to_owned(), |path, n| path.join(format!("level {n}")));
        t.done("deep", fs::create_dir_all(&deep));
        t.done("a file down there", fs::write(deep.join("file"), "deep"));
    });
}

#[test]
fn renames_replace_files_and_empty_directories() {
    same_as_local("rename", |dir, t| {
        let at = |name: &str| dir.join(name);
        let fill = |name: &str| fs::write(at(name), name).expect("a file");
        for name in ["a", "b", "c"] {
            fill(name);
        }
        for name in ["empty", "other empty", "full"] {
            fs::create_dir(at(name)).expect("a directory");
        }
        fill("full/inside");
        t.done("of nothing", fs::rename(at("none"), at("x")));
        t.done("over a file", fs::rename(at("a"), at("b")));
        t.call("is it", read(&at("b")));
        t.done("onto itself", fs::rename(at("b"), at("b")));
        t.done("into a directory", fs::rename(at("b"), at("full/b")));
        t.done("a file over a directory", fs::rename(at("c"), at("empty")));
        t.done("a directory over a file", fs::rename(at("empty"), at("c")));
        t.done("over an empty directory", fs::rename(at("empty"), at("other empty")));
        t.done("a full one over an empty one", fs::rename(at("full"), at("other empty")));
        t.note("names", listing(dir));
        fs::create_dir(at("new")).expect("a directory");
        t.done("over a full one", fs::rename(at("new"), at("other empty")));
        t.done("into itself", fs::rename(at("other empty"), at("other empty/self")));
        t.done("from below", fs::rename(at("other empty/b"), at("b")));
        t.done("not over", rename_with(&at("b"), &at("c"), RenameFlags::NOREPLACE));
        t.done("not over, free", rename_with(&at("b"), &at("d"), RenameFlags::NOREPLACE));
        t.note("names", listing(dir));
        t.note("inside", listing(&at("other empty")));
    });
}

#[test]
fn two_names_can_be_exchanged() {
    same_as_local("exchange", |dir, t| {
        let at = |name: &str| dir.join(name);
        fs::write(at("a"), "was a").expect("a file");
        fs::write(at("b"), "was b").expect("a file");
        fs::create_dir(at("folder")).expect("a directory");
        fs::write(at("folder/inside"), "inside").expect("a file");
        t.done("files", rename_with(&at("a"), &at("b"), RenameFlags::EXCHANGE));
        t.call("a", read(&at("a")));
        t.call("b", read(&at("b")));
        t.done("a file and a folder", rename_with(&at("a"), &at("folder"), RenameFlags::EXCHANGE));
        t.call("a", read(&at("a/inside")));
        t.call("folder", read(&at("folder")));
        t.done("with nothing", rename_with(&at("a"), &at("none"), RenameFlags::EXCHANGE));
        t.done("with what is inside", rename_with(&at("a"), &at("a/inside"), RenameFlags::EXCHANGE));
        t.note("names", listing(dir));
    });
}

#[test]
fn names_that_are_on_the_service_can_be_exchanged() {
    let Some(mounted) = Mounted::shared() else { return };
    let at = |name: &str| mounted.path("exchange sent").join(name);
    fs::create_dir(mounted.path("exchange sent")).expect("a directory");
    fs::write(at("a"), "was a").expect("a file");
    fs::write(at("b"), "was b").expect("a file");
    mounted.sync_path("exchange sent");
    rename_with(&at("a"), &at("b"), RenameFlags::EXCHANGE).expect("they are exchanged");
    mounted.sync_path("exchange sent");
    assert_eq!(mounted.control().content("exchange sent/a").as_deref(), Some(&b"was b"[..]));
    assert_eq!(mounted.control().content("exchange sent/b").as_deref(), Some(&b"was a"[..]));
    mounted.assert_truth_equals_tree("exchange sent", crate::mounted_support::tree::Times::Any);
}

// S45.
#[test]
fn open_files_stay_readable_when_their_name_goes() {
    same_as_local("open", |dir, t| {
        let at = |name: &str| dir.join(name);
        let both = |name: &str| fs::File::options().read(true).write(true).open(at(name)).expect("it opens");
        for name in ["removed", "moved", "under", "over"] {
            fs::write(at(name), name).expect("a file");
        }
        let (removed, mut moved, mut under) = (both("removed"), both("moved"), both("under"));
        t.done("unlink", fs::remove_file(at("removed")));
        t.done("the name is gone", fs::metadata(at("removed")));
        t.call("links", removed.metadata().map(|meta| meta.nlink()));
        t.call("write", rustix::io::pwrite(&removed, b"still here", 0));
        let mut back = [0; 32];
        t.call("read", rustix::io::pread(&removed, &mut back, 0));
        t.note("bytes", back.escape_ascii().to_string());
        t.done("truncate", removed.set_len(3));
        t.done("fsync", removed.sync_all());
        t.done("its name again", fs::write(at("removed"), "another"));
        t.call("size of the old", removed.metadata().map(|meta| meta.len()));
        t.done("rename", fs::rename(at("moved"), at("moved away")));
        t.call("write", rustix::io::pwrite(&moved, b"MOVED", 0));
        let mut text = String::new();
        t.call("read", moved.read_to_string(&mut text));
        t.note("text", &text);
        t.done("rename over an open file", fs::rename(at("over"), at("under")));
        text.clear();
        t.call("read", under.read_to_string(&mut text));
        t.note("text", &text);
        t.call("the name has the other", read(&at("under")));
        drop((removed, moved, under));
        t.call("content", read(&at("moved away")));
        t.note("names", listing(dir));
    });
}

#[test]
fn a_folder_moves_with_what_is_open_in_it() {
    same_as_local("moving", |dir, t| {
        fs::create_dir_all(dir.join("from/deep")).expect("directories");
        fs::create_dir(dir.join("to")).expect("a directory");
        fs::write(dir.join("from/deep/file"), "content").expect("a file");
        let open = fs::File::options().append(true).open(dir.join("from/deep/file")).expect("it opens");
        t.done("rename", fs::rename(dir.join("from"), dir.join("to/from")));
        t.call("append", rustix::io::write(&open, b" and more"));
        drop(open);
        t.call("content", read(&dir.join("to/from/deep/file")));
        t.done("the old name", fs::metadata(dir.join("from")));
        t.done("rename back and forth", fs::rename(dir.join("to/from"), dir.join("back")));
        t.done("and again", fs::rename(dir.join("back"), dir.join("to/from")));
        t.call("content", read(&dir.join("to/from/deep/file")));
    });
}

// S26.
#[test]
fn symbolic_links_are_kept_here() {
    same_as_local("links", |dir, t| {
        fs::write(dir.join("file"), "x").expect("a file");
        t.done("symlink", symlink("file", dir.join("link")));
        t.done("dangling", symlink("/nowhere/at all", dir.join("dangling")));
        t.done("again", symlink("other", dir.join("link")));
        t.call("readlink", fs::read_link(dir.join("link")));
        t.call("through it", read(&dir.join("link")));
        t.done("through a dangling one", fs::metadata(dir.join("dangling")));
        t.call("lstat", fs::symlink_metadata(dir.join("link")).map(|meta| (meta.is_symlink(), meta.len())));
        t.call("readlink of a file", fs::read_link(dir.join("file")));
        t.done("rename", fs::rename(dir.join("link"), dir.join("moved")));
        t.call("readlink", fs::read_link(dir.join("moved")));
        t.done("over a file", fs::rename(dir.join("moved"), dir.join("file")));
        t.done("unlink", fs::remove_file(dir.join("dangling")));
        t.done("to a folder", symlink(".", dir.join("self")));
        t.note("names", listing(dir));
    });
}

// S29.
#[test]
fn hard_links_and_devices_are_not_offered() {
    let Some(mounted) = Mounted::shared() else { return };
    let dir = mounted.path("refused");
    fs::create_dir(&dir).expect("a directory");
    fs::write(dir.join("file"), "x").expect("a file");
    let link = fs::hard_link(dir.join("file"), dir.join("link")).expect_err("no hard links");
    assert_eq!(link.raw_os_error(), Some(libc::EPERM));
    for (kind, device) in [
        (FileType::CharacterDevice, rfs::makedev(1, 3)),
        (FileType::BlockDevice, rfs::makedev(7, 0)),
        (FileType::Fifo, 0),
        (FileType::Socket, 0),
    ] {
        let made = rfs::mknodat(CWD, dir.join("node"), kind, Mode::from_raw_mode(0o600), device);
        assert_eq!(made, Err(Errno::PERM), "{kind:?}");
    }
    // A regular file by mknod is a file like any other.
    let plain = rfs::mknodat(CWD, dir.join("plain"), FileType::RegularFile, Mode::from_raw_mode(0o600), 0);
    assert_eq!(plain, Ok(()));
    assert_eq!(fs::read(dir.join("plain")).expect("it is there"), b"");
}

// S20, S21.
#[test]
fn names_that_differ_only_in_case_are_one_name() {
    let Some(mounted) = Mounted::shared() else { return };
    let dir = mounted.path("case");
    let at = |name: &str| dir.join(name);
    let exists = |result: std::io::Result<()>| {
        assert_eq!(result.expect_err("it exists").raw_os_error(), Some(libc::EEXIST));
    };
    fs::create_dir(&dir).expect("a directory");
    fs::write(at("readme"), "text").expect("a file");
    fs::write(at("other"), "other").expect("a file");
    fs::create_dir(at("Folder")).expect("a directory");
    assert!(!at("README").exists(), "lookup is exact");
    exists(fs::write(at("README"), "x"));
    exists(fs::File::create_new(at("ReadMe")).map(drop));
    exists(fs::create_dir(at("Readme")));
    exists(fs::create_dir(at("folder")));
    exists(symlink("x", at("READme")));
    exists(fs::rename(at("other"), at("README")));
    exists(rename_with(&at("other"), &at("README"), RenameFlags::NOREPLACE).map_err(Into::into));
    exists(fs::rename(at("Folder"), at("OTHER")));
    assert_eq!(fs::read_to_string(at("readme")).expect("it is as it was"), "text");
    fs::rename(at("readme"), at("README")).expect("its own name in other letters");
    fs::rename(at("Folder"), at("FOLDER")).expect("its own name in other letters");
    mounted.sync_path("case");
    assert_eq!(listing(&dir), ["FOLDER", "README", "other"]);
    mounted.assert_truth_equals_tree("case", crate::mounted_support::tree::Times::Any);
    // What is on the service is renamed too, and the way back works.
    let mv = std::process::Command::new("mv").arg(at("README")).arg(at("readMe")).status();
    assert!(mv.expect("it runs").success());
    fs::rename(at("FOLDER"), at("Folder")).expect("its own name in other letters");
    fs::write(at("Folder/x"), "x").expect("a file");
    mounted.sync_path("case");
    assert_eq!(listing(&dir), ["Folder", "other", "readMe"]);
    mounted.assert_truth_equals_tree("case", crate::mounted_support::tree::Times::Any);
}

// S170, S171, S172.
#[test]
fn where_case_does_not_matter_each_spelling_is_the_same_file() {
    let usual = Options::default();
    let options = Options { mount: format!("{},case-insensitive", usual.mount), ..usual };
    let Some(mounted) = Mounted::new(Flavour::Business, options) else { return };
    for name in ["Readme.TXT", "\u{C9}t\u{E9}", "stra\u{DF}e"] {
        mounted.service.write(&format!("Folder/{name}"), name.as_bytes());
    }
    mounted.await_online();
    mounted.refresh();
    let at = |path: &str| mounted.path(path);
    let inode = |path: &str| fs::symlink_metadata(at(path)).map(|meta| meta.ino()).ok();
    let exists = |result: std::io::Result<()>| {
        assert_eq!(result.expect_err("it exists").raw_os_error(), Some(libc::EEXIST));
    };
    assert_eq!(read(&at("folder/README.txt")).expect("it is found"), "Readme.TXT");
    assert_eq!(read(&at("FOLDER/\u{E9}T\u{C9}")).expect("it is found"), "\u{C9}t\u{E9}");
    assert_eq!(inode("Folder/STRASSE"), None, "another name to the service");
    assert_eq!(inode("Folder/Readme.TXT"), inode("fOLDER/readme.txt"));
    assert_eq!(listing(&at("folder")), ["Readme.TXT", "stra\u{DF}e", "\u{C9}t\u{E9}"]);
    // What is made under one spelling is there under all, also under those that were asked for before.
    assert_eq!((inode("folder/new"), inode("Folder/NEW")), (None, None));
    fs::write(at("FOLDER/New"), "made").expect("a file");
    assert!(inode("folder/new").is_some() && inode("folder/new") == inode("Folder/NEW"));
    fs::write(at("folder/readme.txt"), "written").expect("the same file");
    assert_eq!(read(&at("Folder/Readme.TXT")).expect("it is found"), "written");
    exists(fs::File::create_new(at("folder/README.TXT")).map(drop));
    exists(fs::create_dir(at("FOLDER")));
    exists(symlink("x", at("folder/NEW")));
    // What goes under one spelling goes under all.
    for spelling in ["Folder/New", "folder/new", "folder/NEW"] {
        assert!(inode(spelling).is_some());
    }
    fs::remove_file(at("folder/nEW")).expect("it is found");
    for spelling in ["Folder/New", "folder/new", "folder/NEW"] {
        assert_eq!(inode(spelling), None, "{spelling}");
    }
    fs::write(at("folder/other"), "other").expect("a file");
    fs::rename(at("folder/OTHER"), at("folder/README.TXT")).expect("it is replaced");
    assert_eq!(listing(&at("Folder")), ["Readme.TXT", "stra\u{DF}e", "\u{C9}t\u{E9}"]);
    assert_eq!(read(&at("folder/readme.txt")).expect("it is found"), "other");
    fs::rename(at("folder/Readme.TXT"), at("folder/readme.txt")).expect("it is the same file");
    fs::rename(at("folder/readme.txt"), at("folder/third")).expect("a rename");
    fs::rename(at("folder/third"), at("folder/ReadMe")).expect("a rename");
    let pwd = crate::mounted_support::shell::run_in(&mounted, &at("FOLDER"), "pwd -P; cat README");
    let said = String::from_utf8_lossy(&pwd.stdout).into_owned();
    assert_eq!(said, format!("{}\nother", at("FOLDER").display()));
    mounted.sync();
    mounted.assert_truth_equals_tree("", crate::mounted_support::tree::Times::Any);
    // Changes elsewhere, with every spelling in the kernel.
    for spelling in ["folder/README", "folder/readme", "folder/LATER", "folder/later"] {
        inode(spelling);
    }
    mounted.service.edit(&Edit::Move { path: "Folder/ReadMe".into(), to: "Folder/Later".into() });
    mounted.refresh();
    for (spelling, there) in [
        ("folder/README", false),
        ("folder/readme", false),
        ("folder/LATER", true),
        ("folder/later", true),
        ("Folder/Later", true),
    ] {
        assert_eq!(inode(spelling).is_some(), there, "{spelling}");
    }
}

// S22.
#[test]
fn impossible_names_are_refused_with_the_right_errno() {
    let Some(mounted) = Mounted::shared() else { return };
    let dir = mounted.path("impossible");
    fs::create_dir(&dir).expect("a directory");
    let errno = |name: &str| fs::write(dir.join(name), "x").expect_err(name).raw_os_error();
    assert_eq!(errno("a_vti_b"), Some(libc::EINVAL));
    assert_eq!(errno(&"n".repeat(256)), Some(libc::ENAMETOOLONG));
}

// S23, S24.
#[test]
fn scratch_files_stay_here() {
    let Some(mounted) = Mounted::shared() else { return };
    let dir = mounted.path("scratch");
    fs::create_dir(&dir).expect("a directory");
    for name in [".~lock.report.odt#", "~$report.docx", ".file.swp", ".goutputstream-ABCDEF"] {
        fs::write(dir.join(name), "scratch").expect(name);
    }
    fs::write(dir.join("sent"), "sent").expect("a file");
    mounted.sync_path("scratch");
    let items = mounted.control().truth().to_string();
    for name in ["lock.report", "~$report", "file.swp", "goutputstream"] {
        assert!(!items.contains(name), "{name} was sent");
    }
    let refused = fs::rename(dir.join("sent"), dir.join("sent.swp")).expect_err("it would vanish there");
    assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
    fs::rename(dir.join(".goutputstream-ABCDEF"), dir.join("saved")).expect("a save");
    mounted.sync_path("scratch");
    assert_eq!(mounted.control().content("scratch/saved").as_deref(), Some(&b"scratch"[..]));
    mounted.assert_truth_equals_tree("scratch", crate::mounted_support::tree::Times::Any);
}

#[test]
fn the_root_can_be_used_like_any_folder() {
    let Some(mounted) = Mounted::shared() else { return };
    let mut t = Trace::default();
    t.done("stat", fs::metadata(mounted.root()));
    fs::write(mounted.path("file in the root"), "x").expect("a file");
    assert!(listing(&mounted.root()).contains(&"file in the root".to_owned()));
    fs::rename(mounted.path("file in the root"), mounted.path("renamed")).expect("a rename");
    fs::remove_file(mounted.path("renamed")).expect("a removal");
}
