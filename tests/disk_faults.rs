//! Every durable file call of a scripted scenario fails once, from there on, or is the last thing the machine
//! does: nothing is lost, nothing panics, and the error says what is wrong.
//!
//! The scenario is run again and again, with call 1, 2, 3 … hit, until it ends without a hit (SQLite's loop).

mod sync_support;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onedrivefs::disk::{Disk, DiskHook};
use onedrivefs::emulator::Flavour;
use onedrivefs::vfs::{Allocate, Filesystem, OpenFlags, VfsError};
use sync_support::{Machine, Service};

/// What happens at the call that is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hit {
    /// It fails, and the next ones do not.
    Once(i32),
    /// It and all later ones fail, until somebody mends the disk.
    FromHere(i32),
    /// The machine is dead: nothing more reaches the disk, and nobody hears of it.
    Dead,
}

/// Counts the calls and hits one.
struct Trap {
    hit: Hit,
    /// Calls until the hit.
    left: AtomicU64,
    count: AtomicU64,
    armed: AtomicBool,
    sprung: AtomicBool,
    seen: Mutex<BTreeSet<&'static str>>,
    at: Mutex<Option<&'static str>>,
}

impl Trap {
    fn new(hit: Hit, number: u64) -> Arc<Self> {
        Arc::new(Self {
            hit,
            left: AtomicU64::new(number),
            count: AtomicU64::new(0),
            armed: AtomicBool::new(true),
            sprung: AtomicBool::new(false),
            seen: Mutex::default(),
            at: Mutex::default(),
        })
    }

    fn has_sprung(&self) -> bool {
        self.sprung.load(Ordering::SeqCst)
    }

    fn disarm(&self) {
        self.armed.store(false, Ordering::SeqCst);
    }

    fn is_dead(&self) -> bool {
        self.hit == Hit::Dead && self.has_sprung()
    }
}

impl DiskHook for Trap {
    fn before(&self, step: &'static str, _path: &Path) -> io::Result<()> {
        self.seen.lock().unwrap().insert(step);
        if !self.armed.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        let now = !self.has_sprung() && self.left.fetch_sub(1, Ordering::SeqCst) == 1;
        if now {
            self.sprung.store(true, Ordering::SeqCst);
            *self.at.lock().unwrap() = Some(step);
        }
        match self.hit {
            Hit::Once(errno) if now => Err(io::Error::from_raw_os_error(errno)),
            Hit::FromHere(errno) if self.has_sprung() => Err(io::Error::from_raw_os_error(errno)),
            Hit::Dead if self.has_sprung() => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        }
    }
}

/// What may be under a name: none stands for no such file.
type May = BTreeSet<Option<String>>;

/// What the writer knows to be safe, kept apart from the disk under test.
#[derive(Default)]
struct Journal(BTreeMap<String, May>);

fn only(content: &str) -> May {
    BTreeSet::from([Some(content.to_owned())])
}

impl Journal {
    fn at(&mut self, path: &str) -> &mut May {
        self.0.entry(path.to_owned()).or_insert_with(|| BTreeSet::from([None]))
    }
}

/// The scenario: a machine, the journal beside it, and the errors its programs saw.
struct Script {
    machine: Machine,
    journal: Journal,
    trap: Arc<Trap>,
    errors: Vec<(String, VfsError)>,
}

/// The machine died; what was under way is not known to have happened.
struct Died;

impl Script {
    /// An operation ended: whether it is known to have worked. An error must say what is wrong.
    fn judge(&mut self, what: &str, result: Result<(), VfsError>) -> Result<bool, Died> {
        if self.trap.is_dead() {
            return Err(Died);
        }
        if let Err(error) = result {
            self.errors.push((what.to_owned(), error));
            return Ok(false);
        }
        Ok(true)
    }

    async fn save(&mut self, path: &str, content: &str, sync: bool) -> Result<(), Died> {
        let before = self.journal.at(path).clone();
        let flags = OpenFlags { write: true, truncate: true, ..OpenFlags::default() };
        // From here on until the close, any start of the new content may be there.
        let torn = |may: &mut May| {
            may.extend(before.iter().cloned());
            may.extend([Some(String::new()), Some(content.to_owned())]);
        };
        torn(self.journal.at(path));
        let opened = self.machine.open(path, flags).await;
        let open = match opened {
            Ok(open) => open,
            Err(error) => return self.judge(&format!("open {path}"), Err(error)).map(drop),
        };
        let wrote = self.machine.files.write(open.0, open.1, 0, content.as_bytes().to_vec().into()).await;
        let wrote = self.judge(&format!("write {path}"), wrote.map(drop))?;
        let mut synced = true;
        if sync {
            let result = self.machine.files.fsync(open.0, open.1, false).await;
            synced = self.judge(&format!("fsync {path}"), result)?;
        }
        let closed = self.machine.close(open).await;
        let closed = self.judge(&format!("close {path}"), closed)?;
        if wrote && closed && synced {
            *self.journal.at(path) = only(content);
        }
        Ok(())
    }

    /// Adds to the end, as `>>` does.
    async fn append(&mut self, path: &str, more: &str) -> Result<(), Died> {
        let before = self.journal.at(path).clone();
        let flags = OpenFlags { write: true, read: true, ..OpenFlags::default() };
        let longer: May = before.iter().flatten().map(|old| Some(format!("{old}{more}"))).collect();
        self.journal.at(path).extend(longer.iter().cloned());
        let open = match self.machine.open(path, flags).await {
            Ok(open) => open,
            Err(error) => return self.judge(&format!("open {path}"), Err(error)).map(drop),
        };
        let size = match self.machine.files.getattr(open.0, Some(open.1)).await {
            Ok(attr) => attr.0.size,
            Err(error) => {
                self.judge(&format!("stat {path}"), Err(error))?;
                let closed = self.machine.close(open).await;
                return self.judge(&format!("close {path}"), closed).map(drop);
            }
        };
        let wrote = self.machine.files.write(open.0, open.1, size, more.as_bytes().to_vec().into()).await;
        let wrote = self.judge(&format!("append {path}"), wrote.map(drop))?;
        let closed = self.machine.close(open).await;
        let closed = self.judge(&format!("close {path}"), closed)?;
        if wrote && closed {
            *self.journal.at(path) = longer;
        }
        Ok(())
    }

    async fn rename(&mut self, from: &str, to: &str) -> Result<(), Died> {
        let (moved, replaced) = (self.journal.at(from).clone(), self.journal.at(to).clone());
        self.journal.at(to).extend(moved.iter().cloned());
        self.journal.at(from).insert(None);
        let result = self.machine.rename(from, to).await;
        if self.judge(&format!("rename {from} {to}"), result)? {
            *self.journal.at(to) = moved;
            *self.journal.at(from) = BTreeSet::from([None]);
        } else {
            *self.journal.at(to) = replaced;
            *self.journal.at(from) = moved;
        }
        Ok(())
    }

    async fn unlink(&mut self, path: &str) -> Result<(), Died> {
        let before = self.journal.at(path).clone();
        self.journal.at(path).insert(None);
        let result = self.machine.unlink(path).await;
        *self.journal.at(path) =
            if self.judge(&format!("unlink {path}"), result)? { BTreeSet::from([None]) } else { before };
        Ok(())
    }

    /// So long that everything unsent is tried.
    async fn rest(&mut self) -> Result<(), Died> {
        tokio::time::sleep(Duration::from_secs(30)).await;
        self.judge("rest", Ok(())).map(drop)
    }

    async fn run(&mut self) -> Result<(), Died> {
        let made = self.machine.mkdir("made").await.map(drop);
        let made = self.judge("mkdir", made)?;
        self.save("new", "new content", false).await?;
        self.save("synced", "this was synced", true).await?;
        self.save("empty", "", false).await?;
        if made {
            self.save("made/inside", "inside", false).await?;
        }
        self.append("big", "and more").await?;
        self.save("edited", "edited here", false).await?;
        self.rename("moved", "elsewhere").await?;
        self.unlink("deleted").await?;
        self.save("book.tmp", "saved over", false).await?;
        self.rename("book.tmp", "book").await?;
        self.rest().await?;
        // Written again: once over what was sealed and sent, once while it rests.
        self.append("new", " twice").await?;
        self.blank("new", 4).await?;
        self.save("synced", "shorter", true).await?;
        self.append("synced", " and longer").await?;
        self.cut("edited", 3).await?;
        self.append("big", ", at the end").await?;
        self.save("gone soon", "x", false).await?;
        self.unlink("gone soon").await?;
        self.rest().await?;
        let shortened = self.machine.engine.store().checkpoint();
        self.judge("checkpoint", shortened.map_err(VfsError::from)).map(drop)
    }

    /// Makes the first bytes zeros.
    async fn blank(&mut self, path: &str, len: usize) -> Result<(), Died> {
        let before = self.journal.at(path).clone();
        let blanked = |old: &String| "\0".repeat(len.min(old.len())) + old.get(len..).unwrap_or_default();
        let after: May = before.iter().flatten().map(|old| Some(blanked(old))).collect();
        self.journal.at(path).extend(after.iter().cloned());
        let open = match self.machine.open(path, OpenFlags { write: true, ..OpenFlags::default() }).await {
            Ok(open) => open,
            Err(error) => return self.judge(&format!("open {path}"), Err(error)).map(drop),
        };
        for what in [Allocate::KeepSize, Allocate::PunchHole] {
            let result = self.machine.files.fallocate(open.0, open.1, 0, len as u64, what).await;
            self.judge(&format!("{what:?} {path}"), result)?;
        }
        let closed = self.machine.close(open).await;
        self.judge(&format!("close {path}"), closed).map(drop)
    }

    async fn cut(&mut self, path: &str, len: usize) -> Result<(), Died> {
        let before = self.journal.at(path).clone();
        let resized = |old: &String| old.chars().chain("\0".repeat(len).chars()).take(len).collect();
        let shorter: May = before.iter().flatten().map(|old| Some(resized(old))).collect();
        self.journal.at(path).extend(shorter.iter().cloned());
        let flags = OpenFlags { write: true, ..OpenFlags::default() };
        let open = match self.machine.open(path, flags).await {
            Ok(open) => open,
            Err(error) => return self.judge(&format!("open {path}"), Err(error)).map(drop),
        };
        let attr = onedrivefs::vfs::SetAttr {
            size: Some(len as u64),
            handle: Some(open.1),
            ..onedrivefs::vfs::SetAttr::default()
        };
        let result = self.machine.files.setattr(sync_support::ME, open.0, attr).await.map(drop);
        let cut = self.judge(&format!("truncate {path}"), result)?;
        let closed = self.machine.close(open).await;
        let closed = self.judge(&format!("close {path}"), closed)?;
        if cut && closed {
            *self.journal.at(path) = shorter;
        }
        Ok(())
    }
}

/// In memory where there is room: what is tested are the errors, not the disk.
fn quick_directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let has_room = Disk::new().free_bytes(memory).is_ok_and(|free| free > 1 << 30);
    let place = if has_room { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::tempdir_in(place).expect("a directory")
}

async fn service() -> Service {
    let service = Service::on(Flavour::Business, quick_directory());
    let big = BIG.repeat(2000);
    for (path, content) in [
        ("big", big.as_str()),
        ("edited", "old"),
        ("moved", "m"),
        ("deleted", "d"),
        ("book", "first edition"),
    ] {
        service.write_elsewhere(path, content);
    }
    service
}

const BIG: &str = "0123456789 ";

fn journal() -> Journal {
    let mut journal = Journal::default();
    let big = BIG.repeat(2000);
    for (path, content) in [
        ("big", big.as_str()),
        ("edited", "old"),
        ("moved", "m"),
        ("deleted", "d"),
        ("book", "first edition"),
    ] {
        *journal.at(path) = only(content);
    }
    journal
}

async fn script(service: &Service, trap: &Arc<Trap>) -> Script {
    trap.disarm();
    let disk = Disk::with_hook(trap.clone());
    let machine = service.machine_of(|setup| setup.disk = disk).await;
    machine.look().await;
    trap.armed.store(true, Ordering::SeqCst);
    Script { machine, journal: journal(), trap: trap.clone(), errors: Vec::new() }
}

/// What is wrong with what the machine shows, and then with what the service has once all is sent.
async fn losses(service: &Service, machine: &Machine, journal: &Journal) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, may) in &journal.0 {
        let found = match machine.read(path).await {
            Ok(content) => Some(content),
            Err(VfsError::NotFound) => None,
            Err(error) => {
                wrong.push(format!("{path} cannot be read: {error}"));
                continue;
            }
        };
        if !may.contains(&found) {
            wrong.push(format!("here {path} is {} and not {}", short(&found), list(may)));
        }
    }
    machine.engine.retry_parked(onedrivefs::model::NodeId::ROOT).await.expect("the store works again");
    let limit = Some(Duration::from_secs(3600));
    let left = machine.engine.sync(onedrivefs::model::NodeId::ROOT, limit, |_| {}).await;
    if !left.as_ref().is_ok_and(|left| left.pending == 0) {
        wrong.push(format!(
            "not sent: {left:?} {:?}",
            machine.engine.status().await.map(|status| status.waiting)
        ));
    }
    let tree: BTreeMap<String, Option<String>> = service.tree().into_iter().collect();
    for (path, may) in &journal.0 {
        let found = tree.get(path).cloned().flatten();
        if !may.contains(&found) {
            wrong.push(format!("on the service {path} is {} and not {}", short(&found), list(may)));
        }
    }
    for path in tree.keys().filter(|path| *path != "made" && !journal.0.contains_key(*path)) {
        wrong.push(format!("{path} came from nowhere"));
    }
    wrong
}

fn short(content: &Option<String>) -> String {
    match content {
        None => "absent".into(),
        Some(text) if text.len() > 40 => {
            format!("{} bytes ending in {:?}", text.len(), &text[text.len() - 20..])
        }
        Some(text) => format!("{text:?}"),
    }
}

fn list(may: &May) -> String {
    may.iter().map(short).collect::<Vec<_>>().join(" or ")
}

/// Every call is hit in CI; by default one in so many.
fn stride() -> usize {
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let given = std::env::var("STRIDE").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(if in_ci { 1 } else { 11 })
}

/// Runs the scenario with each call hit, until it ends without a hit. Returns the steps that were seen.
fn every_call<R: Future<Output = Vec<String>>>(
    hit: Hit,
    run: impl Fn(Hit, Arc<Trap>) -> R,
) -> BTreeSet<&'static str> {
    let mut steps = BTreeSet::new();
    let mut failures = Vec::new();
    let only_number = std::env::var("CALL").ok().and_then(|text| text.parse().ok());
    for number in (only_number.unwrap_or(1)..).step_by(stride()) {
        let trap = Trap::new(hit, number);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let wrong = runtime.block_on(run(hit, trap.clone()));
        steps.extend(trap.seen.lock().unwrap().iter().copied());
        if !wrong.is_empty() {
            failures.push(format!("{hit:?} call {number} ({:?}): {wrong:#?}", trap.at.lock().unwrap()));
        }
        if !trap.has_sprung() || only_number.is_some() {
            println!("{hit:?}: {} calls", trap.count.load(Ordering::SeqCst));
            break;
        }
        assert!(failures.len() < 5, "{}", failures.join("\n"));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    steps
}

/// The scenario with the hit, then a sound disk.
async fn one_run(hit: Hit, trap: Arc<Trap>) -> Vec<String> {
    let service = service().await;
    let mut script = script(&service, &trap).await;
    let died = script.run().await.is_err();
    let mut wrong: Vec<String> =
        script.errors.iter().filter_map(|(what, error)| unclear(what, error)).collect();
    trap.disarm();
    let Script { machine, journal, .. } = script;
    let machine = if died || matches!(hit, Hit::FromHere(_)) {
        machine.crash();
        service.machine().await
    } else {
        machine
    };
    wrong.extend(losses(&service, &machine, &journal).await);
    wrong
}

/// The scenario and a crash, and the hit at the next start.
async fn one_start(_: Hit, trap: Arc<Trap>) -> Vec<String> {
    let service = service().await;
    let calm = Trap::new(Hit::Once(0), u64::MAX);
    let mut script = script(&service, &calm).await;
    assert!(script.run().await.is_ok(), "nothing was hit");
    assert!(script.save("unsent", "not sent before the crash", false).await.is_ok());
    assert!(script.append("book", ", with notes").await.is_ok());
    let Script { machine, journal, .. } = script;
    machine.crash();
    let disk = Disk::with_hook(trap.clone());
    let started = service.try_machine_of(|setup| setup.disk = disk).await;
    trap.disarm();
    let mut wrong = Vec::new();
    let machine = match started {
        Ok(machine) => machine,
        Err(error) => {
            if !error.contains("os error") && !error.contains("no room") {
                wrong.push(format!("the start failed with {error}"));
            }
            service.machine().await
        }
    };
    wrong.extend(losses(&service, &machine, &journal).await);
    wrong
}

/// An error that does not say that the disk is at fault. What an earlier failure kept from being made is absent.
fn unclear(what: &str, error: &VfsError) -> Option<String> {
    let clear = matches!(error.errno(), libc::EIO | libc::ENOSPC | libc::ENOENT);
    (!clear).then(|| format!("{what}: {error}"))
}

#[test]
fn a_disk_error_at_any_call_loses_nothing() {
    every_call(Hit::Once(libc::EIO), one_run);
}

#[test]
fn a_full_disk_from_any_call_on_loses_nothing_that_was_accepted() {
    every_call(Hit::FromHere(libc::ENOSPC), one_run);
}

// S2.
#[test]
fn a_machine_that_dies_at_any_call_has_lost_nothing_when_it_starts_again() {
    let steps = every_call(Hit::Dead, one_run);
    let missed: Vec<_> =
        steps_in_source().into_iter().filter(|step| !steps.contains(step.as_str())).collect();
    let known: BTreeSet<String> = ELSEWHERE.iter().map(|step| (*step).to_owned()).collect();
    let missed: Vec<_> = missed.into_iter().filter(|step| !known.contains(step)).collect();
    assert!(missed.is_empty(), "the scenario does not come by these durable steps: {missed:?}");
}

#[test]
fn a_start_that_meets_a_disk_error_says_so_and_loses_nothing() {
    every_call(Hit::Once(libc::EIO), one_start);
    every_call(Hit::FromHere(libc::ENOSPC), one_start);
}

/// Steps that only rarer things than the scenario's come by; their modules test them.
const ELSEWHERE: &[&str] = &[
    "staging.again",
    "staging.again.read",
    "staging.map.again",
    "store.log.again",
    "store.log.read",
    "staging.copy",
    "staging.map.settle",
    "staging.recover",
    "staging.salvage.read",
    "staging.undo",
    "store.ballast.make",
    "store.ballast.release",
];

/// The names of the durable steps, read from the source: `"area.step"` in a call of `disk`.
fn steps_in_source() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("the source is here").flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.ends_with(".rs") || name.contains("test") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("it is text");
            for area in ["staging.", "store."] {
                let named = text.split('"').skip(1).step_by(2).filter(|quoted| quoted.starts_with(area));
                let is_step = |quoted: &&str| {
                    quoted.chars().all(|letter| letter.is_ascii_lowercase() || letter == '.' || letter == '_')
                };
                found.extend(named.filter(is_step).map(str::to_owned));
            }
        }
    }
    found.remove("store.sqlite");
    found
}
