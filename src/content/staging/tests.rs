//! What staging promises: exact after `kill -9` at any step, honest after a power cut, right after any failure.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::content::fake::{bytes_of, cache, hashed_key};
use crate::disk::DiskHook;
use crate::disk::power::PowerCut;
use crate::model::QuickXor;

const BASE_LEN: u64 = 10_000;
const BASE: StagingId = StagingId(1);
const FILE: StagingId = StagingId(2);

#[derive(Clone, Debug)]
enum Op {
    Write(u64, u64, u8),
    Truncate(u64),
    Punch(u64, u64),
    Zero(u64, u64),
    Allocate(u64, u64, bool),
    Fill,
    Sync,
    Reload,
}

fn ops() -> impl Strategy<Value = Op> {
    let at = || 0..2 * BASE_LEN;
    let len = || prop_oneof![0..300u64, 0..6000u64];
    prop_oneof![
        5 => (at(), len(), 1..=255u8).prop_map(|(at, len, byte)| Op::Write(at, len, byte)),
        2 => at().prop_map(Op::Truncate),
        1 => (at(), len()).prop_map(|(at, len)| Op::Punch(at, len)),
        1 => (at(), len()).prop_map(|(at, len)| Op::Zero(at, len)),
        1 => (at(), len(), any::<bool>()).prop_map(|(at, len, keep)| Op::Allocate(at, len, keep)),
        1 => Just(Op::Fill),
        1 => Just(Op::Sync),
        2 => Just(Op::Reload),
    ]
}

fn base_bytes() -> Vec<u8> {
    crate::content::fake::content(5, ByteRange::new(0, BASE_LEN))
}

fn config(dir: &Path, boot: &str) -> StagingConfig {
    StagingConfig { min_free_bytes: 0, boot: boot.into(), ..StagingConfig::new(dir) }
}

fn open(dir: &Path, disk: &Disk, boot: &str) -> Staging {
    Staging::open(config(dir, boot), disk.clone()).expect("the directory opens")
}

/// A staging directory with a sealed base.
fn with_base(dir: &Path) {
    let staging = open(dir, &Disk::new(), "boot");
    let base = staging.create(BASE).expect("created");
    base.write(0, &base_bytes()).expect("written");
    base.seal().expect("sealed");
}

fn overlay(staging: &Staging) -> Result<Arc<StagingFile>, StagingError> {
    staging.create_overlay(FILE, BaseKind::Sealed(BASE), BASE_LEN).inspect(|file| attach(staging, file))
}

fn attach(staging: &Staging, file: &StagingFile) {
    file.attach(Base::Sealed(staging.load(BASE).expect("the base is there").file));
}

fn reload(dir: &Path, disk: &Disk, boot: &str) -> (Staging, Arc<StagingFile>, Trust) {
    let staging = open(dir, disk, boot);
    let loaded = staging.load(FILE).expect("the file is there");
    attach(&staging, &loaded.file);
    (staging, loaded.file, loaded.trust)
}

fn read_all(file: &StagingFile) -> Vec<u8> {
    read(file, ByteRange::new(0, u64::MAX))
}

fn read(file: &StagingFile, range: ByteRange) -> Vec<u8> {
    file.read(range, None).now_or_never().expect("all is local").expect("read").to_vec()
}

fn apply_to_model(model: &mut Vec<u8>, op: &Op) {
    let span = |at: u64, len: u64, model: &Vec<u8>| {
        (at as usize).min(model.len())..((at + len) as usize).min(model.len())
    };
    match *op {
        Op::Write(at, len, byte) if len > 0 => {
            model.resize(model.len().max((at + len) as usize), 0);
            model[at as usize..(at + len) as usize].fill(byte);
        }
        Op::Truncate(len) => model.resize(len as usize, 0),
        Op::Punch(at, len) => {
            let span = span(at, len, model);
            model[span].fill(0);
        }
        Op::Zero(at, len) => {
            model.resize(model.len().max((at + len) as usize), 0);
            let span = span(at, len, model);
            model[span].fill(0);
        }
        Op::Allocate(at, len, false) => model.resize(model.len().max((at + len) as usize), 0),
        Op::Write(..) | Op::Allocate(..) | Op::Fill | Op::Sync | Op::Reload => {}
    }
}

fn apply(file: &Arc<StagingFile>, op: &Op) -> Result<(), StagingError> {
    match *op {
        Op::Write(at, len, byte) => file.write(at, &vec![byte; len as usize]),
        Op::Truncate(len) => file.truncate(len),
        Op::Punch(at, len) => file.punch(ByteRange::at(at, len)),
        Op::Zero(at, len) => file.zero(ByteRange::at(at, len), false),
        Op::Allocate(at, len, keep) => file.allocate(ByteRange::at(at, len), keep),
        Op::Fill => file.fill_from_base().now_or_never().expect("the base is local"),
        Op::Sync => file.sync(),
        Op::Reload => Ok(()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn an_overlay_reads_like_a_plain_file_across_reloads(ops in prop::collection::vec(ops(), 1..40)) {
        let dir = tempfile::tempdir().expect("a directory");
        with_base(dir.path());
        let disk = Disk::new();
        let mut staging = open(dir.path(), &disk, "boot");
        let mut file = overlay(&staging).expect("created");
        let mut model = base_bytes();
        for op in &ops {
            if matches!(op, Op::Reload) {
                drop((file, staging));
                let trust;
                (staging, file, trust) = reload(dir.path(), &disk, "boot");
                prop_assert_eq!(trust, Trust::Exact);
            }
            apply(&file, op).expect("done");
            apply_to_model(&mut model, op);
            prop_assert_eq!(file.len(), model.len() as u64, "{:?}", op);
            prop_assert_eq!(read_all(&file), &model[..], "{:?}", op);
        }
        file.fill_from_base().now_or_never().expect("the base is local").expect("filled");
        let sealed = file.seal().expect("sealed");
        prop_assert_eq!(sealed.size, model.len() as u64);
        prop_assert_eq!(sealed.blake3, *blake3::hash(&model).as_bytes());
        prop_assert_eq!(sealed.quick_xor, QuickXor::of(&model));
        prop_assert_eq!(std::fs::read(staging.path(FILE)).expect("read"), model);
    }

    #[test]
    fn holes_and_data_cover_what_is_not_zero(ops in prop::collection::vec(ops(), 1..12)) {
        let dir = tempfile::tempdir().expect("a directory");
        with_base(dir.path());
        let staging = open(dir.path(), &Disk::new(), "boot");
        let file = overlay(&staging).expect("created");
        ops.iter().for_each(|op| apply(&file, op).expect("done"));
        let bytes = read_all(&file);
        let mut at = 0;
        while let Some(data) = file.seek_data(at).expect("seek") {
            prop_assert!(bytes[at as usize..data as usize].iter().all(|&byte| byte == 0));
            at = file.seek_hole(data).expect("seek").expect("the end is a hole");
            prop_assert!(at > data);
            if at >= file.len() { break }
        }
        prop_assert!(bytes[at.min(file.len()) as usize..].iter().all(|&byte| byte == 0));
        prop_assert_eq!(file.seek_hole(file.len()).expect("seek"), None);
    }
}

/// Fails the steps that `fails` picks by their number.
struct Faulty {
    count: AtomicU64,
    fails: fn(u64, u64) -> bool,
    at: u64,
    errno: i32,
}

impl DiskHook for Faulty {
    fn before(&self, step: &'static str, _path: &Path) -> io::Result<()> {
        if step == "staging.read" {
            return Ok(());
        }
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        if (self.fails)(number, self.at) { Err(io::Error::from_raw_os_error(self.errno)) } else { Ok(()) }
    }
}

fn script() -> Vec<Op> {
    vec![
        Op::Write(100, 50, 1),
        Op::Write(BASE_LEN - 10, 500, 2),
        Op::Sync,
        Op::Truncate(BASE_LEN + 100),
        Op::Write(120, 10, 3),
        Op::Truncate(5_000),
        Op::Write(7_000, 100, 4),
        Op::Punch(90, 30),
        Op::Zero(6_900, 400),
        Op::Allocate(0, 9_000, false),
        Op::Sync,
        Op::Truncate(8_000),
        Op::Write(4_000, 3_000, 5),
        Op::Fill,
        Op::Sync,
        Op::Write(0, 8_500, 6),
    ]
}

fn touches(op: &Op) -> ByteRange {
    match *op {
        Op::Write(at, len, _) | Op::Punch(at, len) | Op::Zero(at, len) | Op::Allocate(at, len, _) => {
            ByteRange::at(at, len)
        }
        Op::Truncate(len) => ByteRange::new(len, u64::MAX),
        Op::Fill | Op::Sync | Op::Reload => ByteRange::new(0, 0),
    }
}

/// Checks a file against the model before and after an operation that may have been done in part.
fn assert_in_part(bytes: &[u8], before: &[u8], after: &[u8], op: &Op, what: &str) {
    assert!([before.len(), after.len()].contains(&bytes.len()), "{what}: length {}", bytes.len());
    if matches!(op, Op::Truncate(_)) {
        assert!(bytes == before || bytes == after, "{what}: a part of a cut");
        return;
    }
    let touched = touches(op);
    for (at, &byte) in bytes.iter().enumerate() {
        let (old, new) = (before.get(at).copied(), after.get(at).copied());
        let at = at as u64;
        let partly = touched.start <= at && at < touched.end;
        let zero_tail = partly && byte == 0;
        assert!(
            Some(byte) == old || (partly && Some(byte) == new) || zero_tail,
            "{what}: byte {at} is {byte}"
        );
        assert!(partly || old == new || new.is_none() || old.is_none(), "the test's own sums");
    }
}

/// Extends the file, fills and seals it: the bytes on the disk must be those that were read.
fn assert_seals_as_it_reads(staging: &Staging, file: &Arc<StagingFile>, what: &str) {
    let mut expected = read_all(file);
    expected.resize(expected.len() + 20_000, 0);
    file.truncate(expected.len() as u64).expect("extended");
    assert_eq!(read_all(file), expected, "{what}: what is new is zeros");
    file.fill_from_base().now_or_never().expect("the base is local").expect("filled");
    file.seal().expect("sealed");
    assert!(std::fs::read(staging.path(FILE)).expect("read") == expected, "{what}: sealed other bytes");
}

#[test]
fn a_kill_at_any_step_loses_nothing_that_was_answered() {
    let mut finished = false;
    for at in 0..500 {
        let dir = tempfile::tempdir().expect("a directory");
        with_base(dir.path());
        // From this step on nothing reaches the disk: the process is dead and does not know it.
        let dead =
            Faulty { count: AtomicU64::new(0), fails: |number, at| number >= at, at, errno: libc::EIO };
        let disk = Disk::with_hook(Arc::new(dead));
        let Ok(staging) = Staging::open(config(dir.path(), "boot"), disk) else { continue };
        let Ok(file) = overlay(&staging) else {
            let staging = open(dir.path(), &Disk::new(), "boot");
            assert!(matches!(
                staging.load(FILE),
                Err(StagingError::NotFound(_)) | Ok(Loaded { base: Some(_), .. })
            ));
            continue;
        };
        let mut model = base_bytes();
        let mut failed = None;
        for op in script() {
            let before = model.clone();
            apply_to_model(&mut model, &op);
            if apply(&file, &op).is_err() {
                failed = Some((op, before));
                break;
            }
        }
        drop((file, staging));
        let (staging, file, trust) = reload(dir.path(), &Disk::new(), "boot");
        assert_eq!(trust, Trust::Exact);
        match failed {
            Some((op, before)) => {
                assert_in_part(&read_all(&file), &before, &model, &op, &format!("{at} {op:?}"));
                assert_seals_as_it_reads(&staging, &file, &format!("{at} {op:?}"));
            }
            None => {
                assert_eq!(read_all(&file), model);
                finished = true;
                break;
            }
        }
    }
    assert!(finished, "the loop ends when no step is left to fail");
}

#[test]
fn one_failed_step_leaves_a_file_that_goes_on_or_refuses_but_never_lies() {
    for (errno, reloads) in [(libc::EIO, true), (libc::EIO, false), (libc::ENOSPC, false)] {
        for at in 0..100 {
            let dir = tempfile::tempdir().expect("a directory");
            with_base(dir.path());
            let once = Faulty { count: AtomicU64::new(0), fails: |number, at| number == at, at, errno };
            let once = Arc::new(once);
            let disk = Disk::with_hook(once.clone());
            let Ok(staging) = Staging::open(config(dir.path(), "boot"), disk.clone()) else { continue };
            let Ok(mut file) = overlay(&staging).or_else(|_| overlay(&staging)) else { continue };
            let mut model = base_bytes();
            let mut staging = staging;
            for op in script() {
                let before = model.clone();
                apply_to_model(&mut model, &op);
                if let Err(error) = apply(&file, &op) {
                    if errno == libc::ENOSPC {
                        assert!(matches!(error, StagingError::NoSpace), "{error:?}");
                    }
                    let what = format!("{at} {op:?}");
                    if !matches!(op, Op::Truncate(_)) {
                        assert_in_part(&read_all(&file), &before, &model, &op, &what);
                    }
                    // It must go on without a reload, unless it refuses to.
                    if reloads || file.write(0, &read(&file, ByteRange::new(0, 1))).is_err() {
                        drop((file, staging));
                        (staging, file, _) = reload(dir.path(), &disk, "boot");
                        assert_in_part(&read_all(&file), &before, &model, &op, &what);
                    }
                    model = read_all(&file);
                }
                assert_eq!(read_all(&file), model, "{at} after {op:?}");
            }
            if once.count.load(Ordering::SeqCst) <= at {
                break;
            }
            drop((file, staging));
            let (staging, file, _) = reload(dir.path(), &disk, "boot");
            assert!(read_all(&file) == model, "{at}: a reload finds something else");
            assert_seals_as_it_reads(&staging, &file, &format!("{at}"));
        }
    }
}

#[test]
fn a_seal_that_fails_at_any_step_leaves_a_file_that_can_be_written_and_sealed() {
    for at in 0.. {
        let dir = tempfile::tempdir().expect("a directory");
        with_base(dir.path());
        let once = Faulty {
            count: AtomicU64::new(0),
            fails: |number, at| number == 1000 + at,
            at,
            errno: libc::EIO,
        };
        let once = Arc::new(once);
        let staging = open(dir.path(), &Disk::with_hook(once.clone()), "boot");
        let file = overlay(&staging).expect("created");
        file.write(10, b"written").expect("written");
        apply(&file, &Op::Fill).expect("filled");
        once.count.store(1000, Ordering::SeqCst);
        if file.seal().is_ok() {
            break;
        }
        assert!(!file.is_sealed(), "{at}");
        file.write(12, b"again").expect("it can be written");
        assert_seals_as_it_reads(&staging, &file, &format!("{at}"));
    }
}

#[test]
fn what_was_synced_survives_a_power_cut_and_what_was_not_is_not_trusted() {
    for steps in 1..=script().len() {
        for seed in 0..8 {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("staging");
            std::fs::create_dir(&path).expect("made");
            with_base(&path);
            let power = Arc::new(PowerCut::default());
            let staging = open(&path, &Disk::with_hook(power.clone()), "boot");
            let file = overlay(&staging).expect("created");
            let mut model = base_bytes();
            let mut synced = None;
            let mut since = Vec::new();
            for op in script().into_iter().take(steps) {
                apply(&file, &op).expect("done");
                apply_to_model(&mut model, &op);
                if matches!(op, Op::Sync) {
                    synced = Some(model.clone());
                    since.clear();
                } else {
                    since.push(op);
                }
            }
            drop((file, staging));
            power.cut((seed > 0).then_some(seed)).expect("cut");
            let staging = open(&path, &Disk::new(), "another boot");
            let Some(synced) = synced else {
                if let Ok(loaded) = staging.load(FILE) {
                    let changed = since.iter().any(|op| !matches!(op, Op::Fill));
                    assert!(
                        loaded.trust != Trust::Exact
                            || !changed
                            || read_back(&staging, &loaded) == base_bytes()
                    );
                }
                continue;
            };
            let loaded = staging.load(FILE).expect("its name was synced");
            let bytes = read_back(&staging, &loaded);
            for (at, byte) in synced.iter().enumerate() {
                let range = ByteRange::at(at as u64, 1);
                let untouched = since.iter().all(|op| touches(op).intersect(&range).is_empty());
                assert!(!untouched || bytes.get(at) == Some(byte), "{steps} {seed}: byte {at}");
            }
            let again = open(&path, &Disk::new(), "another boot").load(FILE).expect("there").trust;
            assert_eq!(again, loaded.trust, "the verdict stays");
        }
    }
}

#[test]
fn an_overwrite_after_a_sync_is_not_taken_for_synced() {
    let dir = tempfile::tempdir().expect("a directory");
    with_base(dir.path());
    let staging = open(dir.path(), &Disk::new(), "boot");
    let file = overlay(&staging).expect("created");
    file.write(0, b"first").expect("written");
    file.sync().expect("synced");
    file.write(1, b"xx").expect("written");
    drop((file, staging));
    assert_eq!(reload(dir.path(), &Disk::new(), "another boot").2, Trust::UpToSync);
}

/// Not a promise but the process that the next test kills.
#[cfg(debug_assertions)]
#[test]
fn child_of_the_kill_test() {
    let Some(dir) = std::env::var_os("ONEDRIVEFS_TEST_STAGING_DIR") else { return };
    let staging = open(Path::new(&dir), &Disk::new(), "boot");
    let file = staging.create_overlay(FILE, BaseKind::Remote, 0).expect("created");
    for number in 0..u8::MAX {
        file.write(u64::from(number), &[number]).expect("written");
        std::fs::write(Path::new(&dir).join("answered"), [number]).expect("written");
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_killed_process_leaves_every_answered_write() {
    use std::os::unix::process::ExitStatusExt;
    for target in ["staging.write:100", "staging.map.append:100"] {
        let dir = tempfile::tempdir().expect("a directory");
        let status = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "content::staging::tests::child_of_the_kill_test"])
            .env("ONEDRIVEFS_TEST_STAGING_DIR", dir.path())
            .env("ONEDRIVEFS_TEST_CRASH", target)
            .stdout(std::process::Stdio::null())
            .status()
            .expect("the child runs");
        assert_eq!(status.signal(), Some(libc::SIGKILL));
        let answered = std::fs::read(dir.path().join("answered")).expect("read")[0];
        assert_eq!(answered, 98);
        let loaded = open(dir.path(), &Disk::new(), "boot").load(FILE).expect("loaded");
        assert_eq!(read_all(&loaded.file), (0..=answered).collect::<Vec<u8>>());
    }
}

fn read_back(staging: &Staging, loaded: &Loaded) -> Vec<u8> {
    attach(staging, &loaded.file);
    read_all(&loaded.file)
}

#[test]
fn a_file_that_stands_alone_is_what_was_written_and_its_number_is_never_taken_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let staging = open(dir.path(), &Disk::new(), "boot");
    let file = staging.create(FILE).expect("created");
    assert!(matches!(staging.create(FILE), Err(StagingError::Exists(FILE))));
    assert!(matches!(staging.create_overlay(FILE, BaseKind::Remote, 9), Err(StagingError::Exists(FILE))));
    file.write(3, b"abc").expect("written");
    assert_eq!(read_all(&file), b"\0\0\0abc");
    drop((file, staging));
    let staging = open(dir.path(), &Disk::new(), "boot");
    let loaded = staging.load(FILE).expect("loaded");
    assert_eq!(
        (loaded.trust, loaded.base, read_all(&loaded.file)),
        (Trust::NotLogged, None, b"\0\0\0abc".to_vec())
    );
    let same = staging.load(FILE).expect("loaded again").file;
    assert!(Arc::ptr_eq(&same, &loaded.file), "one object for one content");
    assert_eq!(staging.list().expect("listed").len(), 1);
    staging.unlink(FILE).expect("gone");
    assert_eq!(read_all(&same), b"\0\0\0abc", "an open file stays readable");
    assert!(matches!(staging.load(FILE), Err(StagingError::NotFound(FILE))));
    assert!(staging.list().expect("listed").is_empty());
}

#[test]
fn a_sealed_content_refuses_changes_and_the_next_generation_does_not_touch_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let staging = open(dir.path(), &Disk::new(), "boot");
    for (number, len) in [(10, 5u64), (20, COPY_UP_TO + 5)] {
        let sealed = staging.create(StagingId(number)).expect("created");
        sealed.truncate(len).expect("extended");
        sealed.write(0, b"first").expect("written");
        sealed.seal().expect("sealed");
        assert!(matches!(sealed.write(0, b"x"), Err(StagingError::IsSealed)));
        assert!(matches!(sealed.truncate(0), Err(StagingError::IsSealed)));
        let next = staging.continue_from(&sealed, StagingId(number + 1)).expect("continued");
        next.write(1, b"----").expect("written");
        assert_eq!(next.len(), len);
        assert_eq!(read(&next, ByteRange::new(0, 5)), b"f----");
        assert_eq!(read(&sealed, ByteRange::new(0, 5)), b"first");
    }
}

#[test]
fn a_snapshot_is_a_file_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let staging = open(dir.path(), &Disk::new(), "boot");
    let file = staging.create(FILE).expect("created");
    file.write(0, b"one moment").expect("written");
    let copy = staging.snapshot(&file, StagingId(9)).expect("copied");
    file.write(0, b"later").expect("writers go on");
    assert_eq!(read_all(&copy), b"one moment");
    copy.seal().expect("sealed");
}

#[test]
fn a_content_that_changes_while_it_is_hashed_is_not_sealed_half() {
    struct Meddler(Mutex<Option<std::sync::Weak<StagingFile>>>, AtomicU64);
    impl DiskHook for Meddler {
        fn before(&self, step: &'static str, _path: &Path) -> io::Result<()> {
            if step == "staging.seal.read"
                && self.1.fetch_add(1, Ordering::SeqCst) < 3
                && let Some(file) = self.0.lock().expect("not poisoned").as_ref().and_then(Weak::upgrade)
            {
                file.write(0, b"changed").expect("written");
            }
            Ok(())
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let meddler = Arc::new(Meddler(Mutex::default(), AtomicU64::new(0)));
    let staging = open(dir.path(), &Disk::with_hook(meddler.clone()), "boot");
    let file = staging.create(FILE).expect("created");
    file.write(0, b"initial").expect("written");
    *meddler.0.lock().expect("not poisoned") = Some(Arc::downgrade(&file));
    let sealed = file.seal().expect("sealed in the end");
    assert_eq!(sealed.blake3, *blake3::hash(&read_all(&file)).as_bytes());
}

#[test]
fn sealing_is_given_up_when_the_daemon_ends() {
    struct End(Mutex<Option<Staging>>, AtomicU64);
    impl DiskHook for End {
        fn before(&self, step: &'static str, _path: &Path) -> io::Result<()> {
            if step == "staging.seal.read" && self.1.fetch_add(1, Ordering::SeqCst) == 1 {
                self.0.lock().expect("not poisoned").as_ref().expect("it is there").end();
            }
            Ok(())
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let end = Arc::new(End(Mutex::default(), AtomicU64::new(0)));
    let staging = open(dir.path(), &Disk::with_hook(end.clone()), "boot");
    let file = staging.create(FILE).expect("created");
    file.truncate(64 << 20).expect("longer");
    *end.0.lock().expect("not poisoned") = Some(staging);
    assert!(matches!(file.seal(), Err(StagingError::Busy)) && !file.is_sealed());
    assert_eq!(end.1.load(Ordering::SeqCst), 2, "nothing more is read");
    *end.0.lock().expect("not poisoned") = None;
}

#[test]
fn a_nearly_full_disk_is_refused_before_it_is_full() {
    let dir = tempfile::tempdir().expect("a directory");
    let staging =
        Staging::open(StagingConfig { min_free_bytes: u64::MAX / 2, ..config(dir.path(), "b") }, Disk::new())
            .expect("open");
    assert!(matches!(staging.create(FILE), Err(StagingError::NoSpace)));
}

// S177.
#[test]
fn a_copy_that_would_take_the_room_of_its_writer_is_not_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Disk::new();
    let free = disk.free_bytes(dir.path()).expect("statvfs");
    let staging = open(dir.path(), &disk, "boot");
    let file = staging.create(FILE).expect("created");
    file.truncate(free.saturating_mul(2)).expect("sparse");
    assert!(matches!(staging.snapshot(&file, StagingId(9)), Err(StagingError::NoSpace)));
    file.truncate(10).expect("cut");
    assert_eq!(staging.snapshot(&file, StagingId(9)).expect("copied").len(), 10);
}

#[test]
fn a_sparse_file_of_250_gb_takes_no_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let staging = open(dir.path(), &Disk::new(), "boot");
    let file = staging.create_overlay(FILE, BaseKind::Remote, 0).expect("created");
    file.truncate(250_000_000_000).expect("extended");
    file.write(249_999_999_999, b"x").expect("written");
    assert_eq!(file.len(), 250_000_000_000);
    assert_eq!(file.seek_data(0).expect("seek").expect("data") / 4096, 249_999_999_999 / 4096);
    assert!(staging.bytes_used().expect("listed") < 1 << 20);
    assert_eq!(read(&file, ByteRange::new(249_999_999_998, u64::MAX)), b"\0x");
}

#[test]
fn leftovers_without_content_go_and_content_without_a_row_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("7.map"), b"leftover").expect("written");
    std::fs::write(dir.path().join("8"), b"orphan").expect("written");
    std::fs::write(dir.path().join("note"), b"not ours").expect("written");
    let staging = open(dir.path(), &Disk::new(), "boot");
    let entries = staging.list().expect("listed");
    assert_eq!(entries.iter().map(|entry| (entry.id.0, entry.len)).collect::<Vec<_>>(), [(8, 6)]);
    assert!(!dir.path().join("7.map").exists() && dir.path().join("note").exists());
}

#[test]
fn a_damaged_log_is_said_and_not_guessed() {
    let dir = tempfile::tempdir().expect("a directory");
    let staging = open(dir.path(), &Disk::new(), "boot");
    drop(staging.create_overlay(FILE, BaseKind::Remote, 100).expect("created"));
    std::fs::write(dir.path().join("2.map"), vec![7; 64]).expect("written");
    assert!(matches!(staging.load(FILE), Err(StagingError::DamagedLog(FILE))));
}

#[tokio::test(start_paused = true)]
async fn an_overlay_over_a_remote_file_fetches_only_what_is_not_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cache, fake) = cache(&dir.path().join("cache"));
    let staging = open(&dir.path().join("staging"), &Disk::new(), "boot");
    let key = hashed_key("a", 3 << 20);
    let remote = cache.file(&key);
    let file = staging.create_overlay(FILE, BaseKind::Remote, key.size).expect("created");
    assert!(matches!(
        file.read(ByteRange::new(0, 9), None).await,
        Err(StagingError::Base(ContentError::NoBase))
    ));
    file.attach(Base::Remote(remote.clone()));
    file.write(0, &vec![7; 2 << 20]).expect("written");
    let reader = remote.reader();
    assert_eq!(file.read(ByteRange::new(5, 7), Some(&reader)).await.expect("read"), [7, 7][..]);
    assert!(fake.requests().is_empty());
    let across = ByteRange::new((2 << 20) - 2, (2 << 20) + 2);
    let mut expected = bytes_of(&key, across);
    expected[..2].fill(7);
    assert_eq!(file.read(across, Some(&reader)).await.expect("read"), expected);
    assert!(matches!(file.seal(), Err(StagingError::NotComplete)));
    file.fill_from_base().await.expect("filled");
    let mut whole = bytes_of(&key, ByteRange::new(0, key.size));
    whole[..2 << 20].fill(7);
    assert_eq!(file.seal().expect("sealed").blake3, *blake3::hash(&whole).as_bytes());
    assert!(fake.requests().iter().all(|range| range.start >= 2 << 20), "{:?}", fake.requests());
    let loaded = open(&dir.path().join("staging"), &Disk::new(), "boot").load(FILE).expect("loaded");
    assert_eq!((loaded.base, loaded.file.len()), (None, key.size));
}

#[tokio::test(start_paused = true)]
async fn a_base_that_is_gone_is_an_error_and_never_zeros() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cache, fake) = cache(&dir.path().join("cache"));
    let staging = open(&dir.path().join("staging"), &Disk::new(), "boot");
    let key = hashed_key("a", 1 << 20);
    let file = staging.create_overlay(FILE, BaseKind::Remote, key.size).expect("created");
    file.attach(Base::Remote(cache.file(&key)));
    file.write(0, b"mine").expect("written");
    fake.script(vec![crate::content::fake::Fault::Error(crate::content::FetchErrorKind::VersionGone); 3]);
    let error = file.fill_from_base().await.expect_err("gone");
    assert!(matches!(error, StagingError::Base(ContentError::Fetch(_))), "{error:?}");
    assert!(!file.is_complete());
    assert_eq!(file.read(ByteRange::new(0, 4), None).await.expect("its own bytes stay"), b"mine"[..]);
}
