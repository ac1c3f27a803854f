//! The kernel keeps names, attributes, listings and pages for hours: what others change must be what it shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use onedrivefs::emulator::{Edit, Flavour};
use onedrivefs::model::names;
use rustix::fs::{self as rfs, Mode, OFlags};

use crate::mounted_support::random::{Random, number};
use crate::mounted_support::tree::{Kind, Times, Tree};
use crate::mounted_support::{Mounted, Options, have, in_ci, process, until};

/// Nothing that is kept wrongly would be right by then: the kernel may keep it for an hour.
const SOON: Duration = Duration::from_secs(60);
/// Changes between two moments at which all of the mount is compared.
const BETWEEN_LOOKS: u64 = 500;
/// Changes that another client makes in one go.
const AT_ONCE: u64 = 50;
const MAX_FILES: usize = 250;
const MAX_FOLDERS: usize = 30;
/// Through a handle from before the change: a folder is now in one that was in it, and the kernel makes no circle.
const EXCHANGED_WITH_ITS_PARENT: i32 = libc::ELOOP;
/// Plain names, each also in capitals; few, so that they come back.
const PLAIN: u64 = 16;
/// Names that look otherwise here than on the service.
const ODD: &[&str] = &["a\u{FF1A}b", "dot\u{FF0E}", "\u{2420}space", "d\u{201B}esktop.ini", "\u{E9}t\u{E9}"];

/// All names that anything is ever given, as the service has them.
fn all_names() -> Vec<String> {
    let plain = (0..PLAIN).flat_map(|n| [format!("n{n:02}"), format!("N{n:02}")]);
    plain.chain(ODD.iter().map(|&name| name.to_owned())).collect()
}

/// What another client knows of the drive: each path as the service folds it, and whether it is a folder.
#[derive(Default)]
struct Elsewhere(BTreeMap<String, bool>);

impl Elsewhere {
    fn paths(&self, folders: bool) -> Vec<String> {
        self.0.iter().filter(|(_, folder)| **folder == folders).map(|(path, _)| path.clone()).collect()
    }

    /// Any folder, the root too.
    fn folder(&self, random: &mut Random) -> String {
        let mut folders = self.paths(true);
        folders.push(String::new());
        random.pick(&folders).expect("there is one").clone()
    }

    fn any(&self, random: &mut Random, folders: bool) -> Option<String> {
        random.pick(&self.paths(folders)).cloned()
    }

    fn remove(&mut self, path: &str) -> Vec<(String, bool)> {
        let below = format!("{path}/");
        let gone: Vec<(String, bool)> = self
            .0
            .iter()
            .filter(|(known, _)| *known == path || known.starts_with(&below))
            .map(|(known, folder)| (known.clone(), *folder))
            .collect();
        self.0.retain(|known, _| *known != path && !known.starts_with(&below));
        gone
    }

    fn note(&mut self, edit: &Edit) {
        match edit {
            Edit::Write { path, .. } => drop(self.0.insert(path.to_lowercase(), false)),
            Edit::Mkdir { path } => drop(self.0.insert(path.to_lowercase(), true)),
            Edit::Delete { path } => drop(self.remove(path)),
            Edit::Move { path, to } => {
                for (known, folder) in self.remove(path) {
                    let rest = &known[path.len()..];
                    self.0.insert(format!("{}{rest}", to.to_lowercase()), folder);
                }
            }
            _ => {}
        }
    }

    /// Something that another client could do; it may be refused.
    fn edit(&self, random: &mut Random) -> Option<Edit> {
        let (files, folders) = (self.paths(false).len(), self.paths(true).len());
        let free = |random: &mut Random| {
            let names = all_names();
            let path = join(&self.folder(random), random.pick(&names).expect("there are some"));
            (!self.0.contains_key(&path.to_lowercase())).then_some(path)
        };
        Some(match random.below(100) {
            0..24 if files < MAX_FILES => Edit::Write { path: free(random)?, content: content(random) },
            0..50 => Edit::Write { path: self.any(random, false)?, content: content(random) },
            50..62 => {
                let folders = random.below(4) == 0;
                let path = self.any(random, folders)?;
                let names = all_names();
                let to = join(parent(&path), random.pick(&names).expect("there are some"));
                Edit::Move { path, to }
            }
            62..74 => Edit::Move { path: self.any(random, false)?, to: free(random)? },
            74..84 => Edit::Delete { path: self.any(random, false)? },
            84..91 if folders < MAX_FOLDERS => Edit::Mkdir { path: free(random)? },
            84..95 => Edit::Move { path: self.any(random, true)?, to: free(random)? },
            95..97 if folders > MAX_FOLDERS / 2 => Edit::Delete { path: self.any(random, true)? },
            _ => {
                let mtime = format!("2024-{:02}-11T10:20:{:02}Z", 1 + random.below(12), random.below(60));
                let folders = random.below(2) == 0;
                Edit::Touch { path: self.any(random, folders)?, mtime }
            }
        })
    }

    /// Makes so many changes, and not one less.
    fn make_changes(&mut self, mounted: &Mounted, random: &mut Random, count: u64) {
        let mut made = 0;
        while made < count {
            let Some(edit) = self.edit(random) else { continue };
            if mounted.control().edit_as_other(&edit).is_ok() {
                self.note(&edit);
                made += 1;
            }
        }
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// One line, which tells the size, again and again: so a mix of two contents can be told.
fn content(random: &mut Random) -> Vec<u8> {
    let size = match random.below(100) {
        0..5 => 0,
        5..85 => 1 + random.below(3000),
        85..98 => 1 + random.below(60_000),
        _ => 1 + random.below(600_000),
    };
    let line = format!("{size} {:x}\n", random.below(u64::MAX));
    line.bytes().cycle().take(size as usize).collect()
}

/// Whether these are bytes of one content, and all of them.
fn is_whole_content(bytes: &[u8]) -> bool {
    let size = bytes
        .split(|byte| *byte == b' ')
        .next()
        .and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    is_one_content(bytes) && (bytes.len() < 10 || size == Some(bytes.len()))
}

fn is_one_content(bytes: &[u8]) -> bool {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return true };
    bytes.iter().zip(bytes[..=end].iter().cycle()).all(|(is, should)| is == should)
}

/// A path of the service as a path here.
fn local(root: &Path, remote: &str) -> PathBuf {
    remote
        .split('/')
        .filter(|name| !name.is_empty())
        .fold(root.to_owned(), |at, name| at.join(names::to_local(name)))
}

/// What programs do while others change the drive. Each holds nothing open while it is paused.
struct Walkers<'a> {
    root: &'a Path,
    /// Held by whoever takes a step; taken as a whole to pause all.
    steps: RwLock<()>,
    stop: AtomicBool,
    taken: AtomicU64,
    /// Paths as they were some time ago.
    known: Mutex<Vec<PathBuf>>,
    wrong: Mutex<Vec<String>>,
}

impl<'a> Walkers<'a> {
    fn new(root: &'a Path) -> Self {
        let (stop, known) = (AtomicBool::new(false), Mutex::new(vec![root.to_owned()]));
        Self { root, steps: RwLock::new(()), stop, taken: AtomicU64::new(0), known, wrong: Mutex::default() }
    }

    fn walk(&self, step: fn(&Self, &mut Random), seed: u64) {
        let mut random = Random::new(seed);
        while !self.stop.load(Ordering::Acquire) {
            let _one = self.steps.read().expect("no panics");
            step(self, &mut random);
            self.taken.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn some_path(&self, random: &mut Random) -> PathBuf {
        random.pick(&self.known.lock().expect("no panics")).expect("there is one").clone()
    }

    /// What changes under a program may be gone, may be something else, or may have no such version any more.
    fn check<T>(&self, what: &str, path: &Path, result: io::Result<T>) -> Option<T> {
        const SANE: [i32; 6] =
            [libc::ENOENT, libc::ESTALE, libc::ENOTDIR, libc::EISDIR, libc::EIO, EXCHANGED_WITH_ITS_PARENT];
        match result {
            Ok(value) => Some(value),
            Err(error) if error.raw_os_error().is_some_and(|code| SANE.contains(&code)) => None,
            Err(error) => {
                self.wrong.lock().expect("no panics").push(format!("{what} {path:?}: {error}"));
                None
            }
        }
    }

    fn find(&self, _random: &mut Random) {
        let mut folders = vec![self.root.to_owned()];
        while let Some(folder) = folders.pop() {
            let Some(entries) = self.check("readdir", &folder, fs::read_dir(&folder)) else { continue };
            for entry in entries {
                let Some(entry) = self.check("readdir", &folder, entry) else { break };
                let Some(meta) = self.check("stat", &entry.path(), entry.metadata()) else { continue };
                if meta.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
    }

    fn look_up(&self, random: &mut Random) {
        let folder = self.some_path(random);
        for name in all_names() {
            let path = folder.join(names::to_local(&name));
            self.check("lookup", &path, fs::symlink_metadata(&path));
        }
    }

    fn read(&self, random: &mut Random) {
        let path = self.some_path(random);
        if path.is_dir() {
            return;
        }
        if let Some(bytes) = self.check("read", &path, fs::read(&path))
            && !is_whole_content(&bytes)
        {
            let (len, start) = (bytes.len(), String::from_utf8_lossy(&bytes[..bytes.len().min(40)]));
            self.wrong
                .lock()
                .expect("no panics")
                .push(format!("{path:?}: {len} bytes of mixed contents: {start:?}"));
        }
    }

    /// Keeps some files open for a while and reads them in parts.
    fn hold(&self, random: &mut Random) {
        let paths: Vec<PathBuf> = (0..6).map(|_| self.some_path(random)).collect();
        let mut open: Vec<(PathBuf, fs::File, Vec<u8>)> = paths
            .into_iter()
            .filter_map(|path| {
                let file = self.check("open", &path, fs::File::open(&path))?;
                let is_file = self.check("fstat", &path, file.metadata())?.is_file();
                is_file.then_some((path, file, Vec::new()))
            })
            .collect();
        for _ in 0..30 {
            for (path, file, seen) in &mut open {
                let mut part = vec![0; 2000];
                let Some(count) = self.check("read", path, file.read(&mut part)) else { continue };
                seen.extend_from_slice(&part[..count]);
            }
            self.look_up(random);
        }
        for (path, _, seen) in open {
            if !is_one_content(&seen) {
                self.wrong.lock().expect("no panics").push(format!("{path:?}: a mix of contents while open"));
            }
        }
    }

    /// Keeps some folders open for a while and lists them again and again.
    fn stay(&self, random: &mut Random) {
        let paths: Vec<PathBuf> = (0..4).map(|_| self.some_path(random)).collect();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let open: Vec<(PathBuf, OwnedFd)> = paths
            .into_iter()
            .filter_map(|path| {
                let opened = rfs::open(&path, flags, Mode::empty()).map_err(io::Error::from);
                self.check("opendir", &path, opened).map(|folder| (path, folder))
            })
            .collect();
        for _ in 0..10 {
            for (path, folder) in &open {
                let listed = rfs::Dir::read_from(folder).map_err(io::Error::from);
                let Some(entries) = self.check("readdir", path, listed) else { continue };
                for entry in entries {
                    let Some(entry) = self.check("readdir", path, entry.map_err(io::Error::from)) else {
                        break;
                    };
                    let found = rfs::statat(folder, entry.file_name(), rfs::AtFlags::SYMLINK_NOFOLLOW);
                    self.check("statat", path, found.map_err(io::Error::from));
                }
            }
        }
    }
}

/// Every name that there is or could be, asked for by its path, against what the service has: what the kernel
/// knows wrongly it answers wrongly, and asks nobody.
fn wrong_lookups(root: &Path, truth: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    let folders =
        truth.0.iter().filter(|(_, entry)| entry.kind == Kind::Folder).map(|(path, _)| path.as_str());
    for folder in folders.chain([""]) {
        let there = truth.0.keys().filter(|path| parent(path) == folder);
        let there = there.map(|path| path[folder.len() + 1..].to_owned());
        for name in all_names().into_iter().chain(there).collect::<BTreeSet<_>>() {
            let key = format!("{folder}/{name}");
            let path = local(root, &key);
            let expected = truth.0.get(&key).map(|entry| match entry.kind {
                Kind::File { size, .. } => (false, size, entry.mtime_ns / 1_000_000_000),
                Kind::Folder | Kind::Link(_) => (true, 0, entry.mtime_ns / 1_000_000_000),
            });
            let found = match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => Some((true, 0, i128::from(meta.mtime()))),
                Ok(meta) => Some((false, meta.len(), i128::from(meta.mtime()))),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
                Err(error) => {
                    wrong.push(format!("{key}: {error}"));
                    continue;
                }
            };
            if found != expected {
                wrong.push(format!("{key}: here {found:?}, there {expected:?}"));
            }
        }
    }
    wrong
}

/// All of the mount is what the service has.
fn assert_nothing_is_stale(mounted: &Mounted, context: &str) -> Tree {
    let truth = Tree::of_truth(&mounted.control().truth(), "");
    let root = mounted.root();
    let same = until(SOON, || wrong_lookups(&root, &truth).is_empty());
    assert!(same, "{context}: lookups:\n{}\n{}", wrong_lookups(&root, &truth).join("\n"), mounted.log_tail());
    let differences = || {
        Tree::of_directory(&root, mounted.service.flavour).differences(
            &truth,
            Times::Any,
            mounted.service.flavour,
        )
    };
    let same = until(SOON, || differences().is_empty());
    assert!(same, "{context}: the tree:\n{}\n{}", differences().join("\n"), mounted.log_tail());
    truth
}

// S31.
#[test]
fn nothing_that_the_kernel_keeps_is_stale_after_random_changes_under_walkers() {
    let options = Options {
        mount: "poll-interval=1s".into(),
        deadline: Duration::from_secs(900),
        ..Options::default()
    };
    let Some(mounted) = Mounted::new(Flavour::Business, options) else { return };
    let (seed, changes) = (
        number("SEED", u64::from(std::process::id())),
        number("CHANGES", if in_ci() { 10_000 } else { 2_000 }),
    );
    println!("SEED={seed} CHANGES={changes}");
    let (mut random, mut elsewhere) = (Random::new(seed), Elsewhere::default());
    elsewhere.make_changes(&mounted, &mut random, 300);
    mounted.await_online();
    let root = mounted.root();
    let walkers = Walkers::new(&root);
    type Step<'a> = fn(&Walkers<'a>, &mut Random);
    let steps: [Step<'_>; 6] =
        [Walkers::find, Walkers::look_up, Walkers::look_up, Walkers::read, Walkers::hold, Walkers::stay];
    std::thread::scope(|scope| {
        /// However the test ends, the walkers do.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Release);
            }
        }
        let _stop = Stop(&walkers.stop);
        for (n, step) in steps.into_iter().enumerate() {
            let walkers = &walkers;
            scope.spawn(move || walkers.walk(step, seed.wrapping_add(n as u64)));
        }
        let mut made = 0;
        while made < changes {
            let before = walkers.taken.load(Ordering::Acquire);
            for _ in 0..BETWEEN_LOOKS.min(changes - made).div_ceil(AT_ONCE) {
                elsewhere.make_changes(&mounted, &mut random, AT_ONCE);
                mounted.refresh();
            }
            made += BETWEEN_LOOKS;
            until(SOON, || walkers.taken.load(Ordering::Acquire) > before + 20);
            let truth = {
                let _paused = walkers.steps.write().expect("no panics");
                assert_nothing_is_stale(&mounted, &format!("SEED={seed}, after {made} changes"))
            };
            let known = truth.0.keys().map(|path| local(&root, path)).chain([root.clone()]).collect();
            *walkers.known.lock().expect("no panics") = known;
        }
    });
    let wrong = walkers.wrong.into_inner().expect("no panics");
    assert!(wrong.is_empty(), "SEED={seed}: {}\n{}", wrong.join("\n"), mounted.log_tail());
    println!("{} steps of walkers", walkers.taken.load(Ordering::Acquire));
    mounted.unmount();
}

/// A program that answers lines with lines.
struct Talk {
    child: std::process::Child,
    answers: io::BufReader<std::process::ChildStdout>,
}

impl Talk {
    fn start(directory: &Path, program: &str, arguments: &[&str]) -> Self {
        let mut command = std::process::Command::new(program);
        command.args(arguments).current_dir(directory);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = process::spawn(command);
        let answers = io::BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, answers }
    }

    /// Answers the next line.
    fn ask(&mut self, line: &str) -> String {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{line}").expect("it listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("it answers");
        answer.trim_end().to_owned()
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().expect("it is ours");
    }
}

// S31, S176.
#[test]
fn a_shell_keeps_its_place_while_others_change_what_lies_around_it() {
    let Some(mounted) = Mounted::usual() else { return };
    mounted.service.write("top/mid/here/file", b"first");
    mounted.await_online();
    mounted.refresh();
    let here = mounted.path("top/mid/here");
    let mut shell = Talk::start(&here, "sh", &[]);
    let path = |path: &str| path.to_owned();
    for edit in [
        Edit::Write { path: path("top/mid/here/file"), content: b"second".into() },
        Edit::Write { path: path("top/mid/here/new"), content: b"new".into() },
        Edit::Write { path: path("top/mid/beside"), content: b"beside".into() },
        Edit::Move { path: path("top/mid/beside"), to: path("top/mid/other") },
        Edit::Mkdir { path: path("top/new") },
        Edit::Touch { path: path("top"), mtime: path("2024-03-01T10:20:30Z") },
        Edit::Touch { path: path("top/mid"), mtime: path("2024-03-01T10:20:30Z") },
        Edit::Delete { path: path("top/new") },
    ] {
        mounted.service.edit(&edit);
        mounted.refresh();
        assert_eq!(shell.ask("pwd -P"), here.display().to_string(), "{edit:?}");
    }
    assert_eq!(shell.ask("cat file; echo"), "second");
    mounted.service.edit(&Edit::Move { path: path("top/mid"), to: path("top/moved") });
    mounted.refresh();
    assert_eq!(shell.ask("cat file; echo"), "second", "what moves stays what it is");
    assert!(!here.exists() && mounted.path("top/moved/here/file").exists());
    mounted.service.edit(&Edit::Delete { path: path("top") });
    mounted.refresh();
    assert_eq!(shell.ask("cat file 2>/dev/null; echo over"), "over");
    assert_eq!(shell.ask("(: >made) 2>/dev/null && echo made || echo refused"), "refused");
    assert_eq!(shell.ask("cd / && pwd"), "/");
    mounted.service.write("top/mid/here/file", b"another");
    mounted.refresh();
    assert_eq!(fs::read(here.join("file")).expect("it is there"), b"another");
    shell.end();
}

// S13, S176.
#[test]
fn what_is_open_or_mapped_stays_readable_when_it_changes_or_goes_elsewhere() {
    if !have(&["python3"]) {
        return;
    }
    let Some(mounted) = Mounted::usual() else { return };
    let tell = "import mmap,sys
file = open('mapped', 'rb')
data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
for line in sys.stdin: print(len(data), set(data[:]), flush=True)";
    mounted.service.write("mapped", &[b'a'; 100_000]);
    mounted.service.write("dir/inside", b"x");
    mounted.await_online();
    mounted.refresh();
    let mut program = Talk::start(&mounted.root(), "python3", &["-c", tell]);
    assert_eq!(program.ask("?"), "100000 {97}");
    mounted.service.write("mapped", b"short");
    mounted.refresh();
    assert_eq!(program.ask("?"), "100000 {97}", "the version that it mapped");
    mounted.service.edit(&Edit::Delete { path: "mapped".into() });
    mounted.refresh();
    assert_eq!(program.ask("?"), "100000 {97}");
    assert!(!mounted.path("mapped").exists());
    program.end();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let folder = rfs::open(mounted.path("dir"), flags, Mode::empty()).expect("it opens");
    mounted.service.edit(&Edit::Delete { path: "dir".into() });
    mounted.refresh();
    assert!(!mounted.path("dir").exists());
    let entries = rfs::Dir::read_from(&folder).into_iter().flatten().flatten();
    let names: Vec<_> = entries.map(|entry| entry.file_name().to_owned()).collect();
    assert!(names.iter().all(|name| name.to_bytes().starts_with(b".")), "{names:?}");
}
