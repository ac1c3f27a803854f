//! What the cache promises, over a fake service, on a paused clock.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::fake::{Fault, bytes_of, cache, cache_with, config, hashed_key, key};
use super::{CacheConfig, ContentError, FetchErrorKind, Urgency};
use crate::disk::Disk;
use crate::model::ByteRange;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[tokio::test(start_paused = true)]
async fn a_read_returns_the_services_bytes_and_the_next_one_asks_nobody() {
    let dir = dir();
    let (cache, fake) = cache(dir.path());
    let key = hashed_key("a", 3 * MIB + 5);
    let file = cache.file(&key);
    let reader = file.reader();
    for range in [ByteRange::new(0, 10), ByteRange::new(MIB - 3, MIB + 9), ByteRange::new(3 * MIB, 9 * MIB)] {
        let bytes = file.read(range, &reader).await.expect("read");
        assert_eq!(bytes, bytes_of(&key, range), "{range}");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = fake.requests().len();
    let range = ByteRange::new(MIB - 3, MIB + 9);
    let ready = file.read(range, &reader).now_or_never().expect("ready at the first poll").expect("read");
    assert_eq!((ready.to_vec(), fake.requests().len()), (bytes_of(&key, range), before));
}

#[tokio::test(start_paused = true)]
async fn a_cache_outlives_its_process() {
    let dir = dir();
    let key = hashed_key("a", 5 * MIB);
    {
        let (cache, _) = cache(dir.path());
        cache.file(&key).complete().await.expect("fetched");
    }
    let (cache, fake) = cache(dir.path());
    let file = cache.file(&key);
    assert!(file.is_complete());
    let range = ByteRange::new(2 * MIB, 3 * MIB);
    let bytes = file.read(range, &file.reader()).now_or_never().expect("ready").expect("read");
    assert_eq!(bytes, bytes_of(&key, range));
    assert!(fake.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn concurrent_misses_of_one_block_are_one_request() {
    let dir = dir();
    let (cache, fake) = cache(dir.path());
    fake.pace(Duration::from_millis(10));
    let key = key("a", 100 * MIB);
    let file = cache.file(&key);
    let readers: Vec<_> = (0..20).map(|_| file.reader()).collect();
    let range = ByteRange::new(50 * MIB + 7, 50 * MIB + 4096);
    let reads = readers.iter().map(|reader| file.read(range, reader));
    for bytes in futures_util::future::join_all(reads).await {
        assert_eq!(bytes.expect("read"), bytes_of(&key, range));
    }
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_gets_its_bytes_before_the_range_is_complete() {
    let dir = dir();
    let (cache, fake) = cache(dir.path());
    fake.pace(Duration::from_millis(10));
    let file = cache.file(&key("a", 900 * KIB));
    let start = tokio::time::Instant::now();
    file.read(ByteRange::new(0, 128 * KIB), &file.reader()).await.expect("read");
    assert!(start.elapsed() < Duration::from_millis(150), "{:?}", start.elapsed());
    assert_eq!(fake.requests(), [ByteRange::new(0, 900 * KIB)]);
}

#[tokio::test(start_paused = true)]
async fn closing_the_reader_stops_what_nobody_else_waits_for() {
    let dir = dir();
    let (cache, fake) = cache(dir.path());
    fake.pace(Duration::from_millis(100));
    let key = key("a", 900 * KIB);
    let file = cache.file(&key);
    let (one, two) = (file.reader(), file.reader());
    file.read(ByteRange::new(0, 128 * KIB), &one).await.expect("read");
    let other = {
        let (file, range) = (file.clone(), ByteRange::new(800 * KIB, 801 * KIB));
        tokio::spawn(async move { file.read(range, &two).await })
    };
    tokio::task::yield_now().await;
    drop(one);
    other.await.expect("no panic").expect("the other reader still gets its bytes");
    assert_eq!(fake.requests().len(), 1);
    let dropped = || *fake.dropped.lock().expect("not poisoned");
    let before = dropped();
    let big = cache.file(&super::fake::key("b", 900 * KIB));
    let reader = big.reader();
    big.read(ByteRange::new(0, 128 * KIB), &reader).await.expect("read");
    drop(reader);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(dropped(), before + 1);
    assert!(!big.is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_asked_for_again_from_where_it_ended() {
    let dir = dir();
    let (cache, fake) = cache(dir.path());
    fake.script([Fault::Short(300 * KIB), Fault::Break(100 * KIB, FetchErrorKind::Offline), Fault::None]);
    let key = hashed_key("a", 900 * KIB);
    let file = cache.file(&key);
    let bytes = file.read(ByteRange::new(0, 900 * KIB), &file.reader()).await.expect("read");
    assert_eq!(bytes, bytes_of(&key, ByteRange::new(0, 900 * KIB)));
    let starts: Vec<u64> = fake.requests().iter().map(|range| range.start / KIB).collect();
    assert_eq!(starts, [0, 300, 400]);
}

#[tokio::test(start_paused = true)]
async fn endless_breaking_off_and_silence_end_in_an_error() {
    let dir = dir();
    let (cache, fake) = cache(dir.path());
    fake.script(vec![Fault::Short(10); 100]);
    let file = cache.file(&key("a", 900 * KIB));
    let error = file.read(ByteRange::new(0, 900 * KIB), &file.reader()).await.expect_err("an error");
    assert_eq!(error.fetch_kind(), Some(FetchErrorKind::Protocol));
    assert!(fake.requests().len() <= 10);
    fake.faults.lock().expect("not poisoned").clear();
    fake.script([Fault::Silence]);
    let error = file.read(ByteRange::new(0, 900 * KIB), &file.reader()).await.expect_err("an error");
    assert_eq!(error.fetch_kind(), Some(FetchErrorKind::Deadline));
    file.read(ByteRange::new(0, 900 * KIB), &file.reader()).await.expect("the next read succeeds");
}

#[tokio::test(start_paused = true)]
async fn an_error_reaches_every_waiter_with_its_kind() {
    let dir = dir();
    for kind in [
        FetchErrorKind::VersionGone,
        FetchErrorKind::Offline,
        FetchErrorKind::Denied,
        FetchErrorKind::SignedOut,
        FetchErrorKind::Malware,
        FetchErrorKind::NotFound,
    ] {
        let (cache, fake) = cache(dir.path());
        fake.script([Fault::Error(kind)]);
        let file = cache.file(&key("a", 100 * MIB));
        let readers = [file.reader(), file.reader()];
        let reads = readers.iter().map(|reader| file.read(ByteRange::new(0, 10), reader));
        for outcome in futures_util::future::join_all(reads).await {
            assert_eq!(outcome.expect_err("an error").fetch_kind(), Some(kind));
        }
        assert_eq!(fake.requests().len(), 1, "a refusal is not repeated");
    }
}

#[tokio::test(start_paused = true)]
async fn another_size_than_stated_is_an_error_and_not_other_bytes() {
    let dir = dir();
    let (cache, fake) = cache(dir.path());
    fake.script([Fault::Total(77)]);
    let file = cache.file(&key("a", MIB));
    let error = file.read(ByteRange::new(0, 10), &file.reader()).await.expect_err("an error");
    assert_eq!(error.fetch_kind(), Some(FetchErrorKind::OtherSize { total: 77 }));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_went_away_between_two_ranges_is_never_mixed() {
    let dir = dir();
    let (cache, fake) = cache(dir.path());
    let file = cache.file(&key("a", 100 * MIB));
    let reader = file.reader();
    file.read(ByteRange::new(0, 10), &reader).await.expect("the first range");
    fake.script([Fault::Tag("another")]);
    file.read(ByteRange::at(50 * MIB, 10), &reader).await.expect("only the tag moved");
    *fake.gone.lock().expect("not poisoned") = true;
    fake.script([Fault::Tag("third")]);
    let error = file.read(ByteRange::at(70 * MIB, 10), &reader).await.expect_err("the content moved");
    assert_eq!(error.fetch_kind(), Some(FetchErrorKind::VersionGone));
    assert!(file.present().is_empty(), "what was fetched before may be of either version");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_content_is_fetched_once_more_and_then_refused() {
    let dir = dir();
    let (cache, fake) = cache(dir.path());
    let key = hashed_key("a", 900 * KIB);
    let whole = ByteRange::new(0, 900 * KIB);
    fake.script([Fault::Flip]);
    let file = cache.file(&key);
    let bytes = file.read(whole, &file.reader()).await.expect("the second fetch is right");
    assert_eq!((bytes.to_vec(), fake.requests().len()), (bytes_of(&key, whole), 2));
    let other = hashed_key("b", 5 * MIB);
    fake.script(vec![Fault::Flip; 9]);
    let file = cache.file(&other);
    assert!(matches!(file.complete().await, Err(ContentError::Damaged)));
    assert!(matches!(file.read(ByteRange::new(0, 9), &file.reader()).await, Err(ContentError::Damaged)));
    drop(file);
    fake.faults.lock().expect("not poisoned").clear();
    cache.file(&other).complete().await.expect("a later open tries again");
}

#[tokio::test(start_paused = true)]
async fn a_sequential_reader_never_ends_well_on_damaged_content() {
    let dir = dir();
    let (cache, fake) = cache(dir.path());
    let key = hashed_key("a", 20 * MIB);
    fake.script([Fault::None, Fault::Flip]);
    let file = cache.file(&key);
    let reader = file.reader();
    let mut outcome = Ok(());
    for start in (0..20 * MIB).step_by(128 << 10) {
        if let Err(error) = file.read(ByteRange::at(start, 128 * KIB), &reader).await {
            outcome = Err(error);
            break;
        }
    }
    assert!(matches!(outcome, Err(ContentError::Damaged)), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_bytes_wait_until_the_whole_is_verified() {
    let dir = dir();
    for (size, wrong_at) in
        [(20 * MIB, 20 * MIB - 200 * KIB), (20 * MIB + 7, 5 * MIB), (3 * MIB, 3 * MIB - 1)]
    {
        let (cache, fake) = cache(dir.path());
        fake.pace(Duration::from_millis(1));
        *fake.wrong_at.lock().expect("not poisoned") = Some(wrong_at);
        let file = cache.file(&hashed_key(&format!("{size}"), size));
        let reader = file.reader();
        let mut outcome = Ok(());
        for start in (0..size).step_by(128 << 10) {
            outcome = file.read(ByteRange::at(start, 128 * KIB), &reader).await.map(drop);
            if outcome.is_err() {
                break;
            }
        }
        assert!(matches!(outcome, Err(ContentError::Damaged)), "{size}: {outcome:?}");
    }
}

/// Fails steps by their number; `after` makes it all from that one on.
struct Faulty {
    count: std::sync::atomic::AtomicU64,
    at: u64,
    after: bool,
    errno: i32,
}

impl crate::disk::DiskHook for Faulty {
    fn before(&self, _step: &'static str, _path: &std::path::Path) -> std::io::Result<()> {
        let number = self.count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let fails = if self.after { number >= self.at } else { number == self.at };
        if fails { Err(std::io::Error::from_raw_os_error(self.errno)) } else { Ok(()) }
    }
}

#[tokio::test(start_paused = true)]
async fn no_failure_of_the_cache_disk_reaches_a_reader_or_outlives_it_as_a_lie() {
    let key = hashed_key("a", 75 * KIB);
    let other = hashed_key("b", 75 * KIB);
    let max_bytes = 128 * KIB;
    for (after, errno) in [(false, libc::EIO), (true, libc::EIO), (false, libc::ENOSPC), (true, libc::EROFS)]
    {
        for at in 1.. {
            let dir = dir();
            let hook = Arc::new(Faulty { count: Default::default(), at, after, errno });
            let config = super::CacheConfig { max_bytes, block: 16 * KIB, ..config(dir.path()) };
            let (cache, _) = cache_with(config.clone(), Disk::with_hook(hook.clone()));
            for key in [&key, &other, &key] {
                let file = cache.file(key);
                let reader = file.reader();
                for start in (0..key.size).step_by(20 << 10) {
                    let range = ByteRange::at(start, 20 * KIB).intersect(&ByteRange::new(0, key.size));
                    let bytes = file.read(range, &reader).await.expect("the network is there");
                    assert_eq!(bytes, bytes_of(key, range), "{at} {after} {errno}");
                }
                drop((file, reader));
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert!(cache.usage().bytes <= max_bytes);
            }
            drop(cache);
            let (cache, _) = cache_with(config, Disk::new());
            for key in [&key, &other] {
                let file = cache.file(key);
                let whole = ByteRange::new(0, key.size);
                let bytes = file.read(whole, &file.reader()).await.expect("read");
                assert_eq!(bytes, bytes_of(key, whole), "{at} {after} {errno} after a restart");
            }
            if hook.count.load(std::sync::atomic::Ordering::SeqCst) <= at {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_power_cut_no_block_is_claimed_that_is_not_intact() {
    let key = hashed_key("a", 300 * KIB + 5);
    let config = |dir: &std::path::Path| super::CacheConfig { block: 16 * KIB, ..config(dir) };
    for seed in 0..30 {
        let dir = dir();
        let power = Arc::new(crate::disk::power::PowerCut::default());
        {
            let (cache, _) = cache_with(config(dir.path()), Disk::with_hook(power.clone()));
            let file = cache.file(&key);
            file.complete().await.expect("fetched");
            file.take_away(2, 4);
            file.complete().await.expect("fetched again");
        }
        power.cut((seed > 0).then_some(seed)).expect("cut");
        let (cache, _) = cache_with(config(dir.path()), Disk::new());
        let file = cache.file(&key);
        for start in (0..key.size).step_by(50_000) {
            let range = ByteRange::at(start, 50_000).intersect(&ByteRange::new(0, key.size));
            if let Some(bytes) = file.read_present(range) {
                assert_eq!(bytes, bytes_of(&key, range), "{seed} {range}");
            }
        }
        let whole = ByteRange::new(0, key.size);
        assert_eq!(file.read(whole, &file.reader()).await.expect("read"), bytes_of(&key, whole));
    }
}

/// The complete files of `key` as a process leaves them that is killed before it compares them with the hash; `harm`
/// changes the bytes that it got.
fn left_unverified(cache: &super::Cache, key: &super::ContentKey, harm: impl FnOnce(&mut Vec<u8>)) {
    let CacheConfig { dir, block, .. } = cache.config();
    let backing =
        super::backing::Backing::create(&Disk::new(), &key.name().paths(dir), key, *block).expect("made");
    let mut bytes = bytes_of(key, ByteRange::new(0, key.size));
    harm(&mut bytes);
    backing.write(0, &bytes).expect("written");
    backing.record(0, &backing.sums(&bytes)).expect("recorded");
}

// S15.
#[tokio::test(start_paused = true)]
async fn what_was_completed_just_before_a_crash_is_compared_with_its_hash_at_the_next_start() {
    let dir = dir();
    let (good, bad) = (hashed_key("good", MIB + 5), hashed_key("bad", MIB + 5));
    let (cache, fake) = cache(dir.path());
    left_unverified(&cache, &good, |_| {});
    left_unverified(&cache, &bad, |bytes| bytes[500_000] ^= 1);
    for (key, damaged, requests) in [(&good, 0, 0), (&bad, 1, 1)] {
        let file = cache.file(key);
        let range = ByteRange::new(400_000, 600_000);
        assert_eq!(file.read(range, &file.reader()).await.expect("read"), bytes_of(key, range));
        file.complete().await.expect("verified");
        assert_eq!(cache.stats().damaged, damaged);
        assert_eq!(fake.requests().len().min(1), requests, "{:?}", fake.requests());
        assert!(file.lend().is_some());
    }
    drop(cache);
    let (cache, _) = super::fake::cache(dir.path());
    for key in [&good, &bad] {
        assert!(cache.file(key).is_verified(), "it is not compared at each start");
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_or_missing_cache_file_is_fetched_again() {
    let dir = dir();
    let key = hashed_key("a", 2 * MIB);
    let range = ByteRange::new(0, 2 * MIB);
    type Harm = fn(&std::path::Path);
    let harms: [(&str, Harm); 7] = [
        ("deleted", |path| std::fs::remove_file(path).expect("removed")),
        ("cut", |path| {
            std::fs::OpenOptions::new().write(true).open(path).expect("open").set_len(9).expect("cut");
        }),
        ("overwritten", |path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).expect("open");
            file.write_all_at(b"garbage", MIB).expect("written");
        }),
        ("zeroed", |path| std::fs::write(path, vec![0; 2 << 20]).expect("written")),
        ("map gone", |path| std::fs::remove_file(path.with_extension("map")).expect("removed")),
        ("map of garbage", |path| {
            let file =
                std::fs::OpenOptions::new().write(true).open(path.with_extension("map")).expect("open");
            file.write_all_at(&[0xA5; 64], 0).expect("written");
        }),
        ("map entries of garbage", |path| {
            let file =
                std::fs::OpenOptions::new().write(true).open(path.with_extension("map")).expect("open");
            file.write_all_at(&[0xA5; 64], 4096).expect("written");
        }),
    ];
    for (what, harm) in harms {
        for mounted in [false, true] {
            let (cache, fake) = cache(dir.path());
            let file = cache.file(&key);
            file.complete().await.expect("fetched");
            let path = file.path();
            drop(file);
            let cache = if mounted { cache } else { super::fake::cache(dir.path()).0 };
            let (cache, fake) = if mounted { (cache, fake) } else { super::fake::cache(dir.path()) };
            harm(&path);
            let file = cache.file(&key);
            let bytes = file.read(range, &file.reader()).await.expect("read");
            assert_eq!(bytes, bytes_of(&key, range), "{what}, mounted: {mounted}");
            drop((file, fake));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_checked_before_a_close_is_known_at_the_next_open_unless_the_file_was_changed() {
    let dir = dir();
    let (cache, _) = cache(dir.path());
    let key = hashed_key("a", 2 * MIB);
    cache.file(&key).complete().await.expect("fetched");
    let file = cache.file(&key);
    assert!(file.lend().is_some());
    let path = file.path();
    drop(file);
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| file.write_all_at(b"x", 9))
        .expect("written");
    assert!(cache.file(&key).lend().is_none());
}

#[tokio::test(start_paused = true)]
async fn deleting_the_whole_cache_under_an_open_file_loses_nothing() {
    let dir = dir();
    let (cache, _) = cache(dir.path());
    let key = hashed_key("a", 20 * MIB);
    let file = cache.file(&key);
    let reader = file.reader();
    file.read(ByteRange::new(0, 10), &reader).await.expect("read");
    std::fs::remove_dir_all(dir.path()).expect("removed");
    for start in (0..20 * MIB).step_by(1 << 20) {
        let range = ByteRange::at(start, MIB);
        assert_eq!(file.read(range, &reader).await.expect("read"), bytes_of(&key, range));
    }
    let again = cache.file(&key);
    let range = ByteRange::at(5 * MIB, MIB);
    assert_eq!(again.read(range, &again.reader()).await.expect("read"), bytes_of(&key, range));
    drop((file, again, reader));
    let other = hashed_key("b", MIB);
    cache.file(&other).complete().await.expect("a new directory is made");
}

#[tokio::test(start_paused = true)]
async fn an_empty_file_is_complete_and_makes_no_request() {
    let dir = dir();
    let (cache, fake) = cache(dir.path());
    let file = cache.file(&hashed_key("a", 0));
    assert!(file.is_complete());
    assert!(file.read(ByteRange::new(0, 100), &file.reader()).await.expect("read").is_empty());
    file.complete().await.expect("complete");
    file.verify().await.expect("sound");
    assert!(fake.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_file_of_250_gb_costs_what_is_read_of_it() {
    let dir = dir();
    let (cache, fake) = cache(dir.path());
    let key = key("a", 250_000_000_000);
    let file = cache.file(&key);
    let reader = file.reader();
    for start in [0, 249_999_999_000, 125_000_000_001] {
        let range = ByteRange::at(start, 1000);
        assert_eq!(file.read(range, &reader).await.expect("read"), bytes_of(&key, range));
    }
    assert_eq!(fake.requests().len(), 3);
    assert!(cache.usage().bytes < MIB, "{:?}", cache.usage());
    drop((file, reader));
    let (cache, fake) = super::fake::cache(dir.path());
    let file = cache.file(&key);
    assert_eq!(file.present().len(), 128 * KIB * 2 + 250_000_000_000 % (128 * KIB));
    let range = ByteRange::at(125_000_000_001, 1000);
    assert!(file.read(range, &file.reader()).now_or_never().is_some());
    assert!(fake.requests().len() < 2);
}

#[tokio::test(start_paused = true)]
async fn adopted_content_is_complete_and_its_source_stays() {
    let dir = dir();
    let (cache, fake) = cache(&dir.path().join("cache"));
    let key = hashed_key("a", 2 * MIB + 3);
    let path = dir.path().join("sealed");
    std::fs::write(&path, bytes_of(&key, ByteRange::new(0, key.size))).expect("written");
    let file = cache.adopt(&key, &path).expect("adopted");
    assert!(file.is_complete() && file.lend().is_none(), "its source has the same bytes");
    file.verify().await.expect("sound");
    let range = ByteRange::new(MIB, 2 * MIB + 3);
    assert_eq!(file.read(range, &file.reader()).await.expect("read"), bytes_of(&key, range));
    assert!(fake.requests().is_empty());
    drop(file);
    cache.forget(&key.item);
    assert_eq!(std::fs::read(&path).expect("still there"), bytes_of(&key, ByteRange::new(0, key.size)));
    assert!(!cache.file(&key).is_complete());
    assert!(cache.adopt(&super::fake::key("a", 7), &path).is_err(), "another length is refused");
}

#[tokio::test(start_paused = true)]
async fn what_the_service_stored_differently_is_not_adopted() {
    let dir = dir();
    let (cache, fake) = cache(&dir.path().join("cache"));
    let key = hashed_key("a", 2 * MIB);
    let path = dir.path().join("sealed");
    std::fs::write(&path, vec![7; 2 << 20]).expect("written");
    let error = cache.adopt(&key, &path).expect_err("another hash");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert_eq!(std::fs::read(&path).expect("still there"), vec![7; 2 << 20]);
    let file = cache.file(&key);
    let bytes = file.read(ByteRange::new(0, 9), &file.reader()).await.expect("read");
    assert_eq!((bytes.to_vec(), fake.requests().len()), (bytes_of(&key, ByteRange::new(0, 9)), 1));
}

#[tokio::test(start_paused = true)]
async fn a_late_write_to_an_adopted_file_is_noticed() {
    let dir = dir();
    let (cache, _) = cache(&dir.path().join("cache"));
    let key = hashed_key("a", MIB);
    let whole = ByteRange::new(0, MIB);
    let path = dir.path().join("sealed");
    std::fs::write(&path, bytes_of(&key, whole)).expect("written");
    let late = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("open");
    let file = cache.adopt(&key, &path).expect("adopted");
    std::fs::remove_file(&path).expect("unlinked");
    late.write_all_at(b"late", 10).expect("written");
    late.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("another time, however coarse the clock");
    assert_eq!(file.read(whole, &file.reader()).await.expect("read"), bytes_of(&key, whole));
    let mut mine = [0; 4];
    late.read_exact_at(&mut mine, 10).expect("read");
    assert_eq!(&mine, b"late", "nor is it taken from whoever still has the file open");
}

#[tokio::test(start_paused = true)]
async fn forgotten_content_is_read_until_its_last_holder_lets_go() {
    let dir = dir();
    let (cache, fake) = cache(dir.path());
    let key = hashed_key("a", MIB);
    let file = cache.file(&key);
    file.complete().await.expect("fetched");
    let requests = fake.requests().len();
    cache.forget(&key.item);
    file.read(ByteRange::new(0, MIB), &file.reader()).await.expect("read");
    assert_eq!(fake.requests().len(), requests);
    let path = file.path();
    drop(file);
    assert!(!path.exists());
    assert_eq!(cache.usage().files, 0);
}

#[tokio::test(start_paused = true)]
async fn blocks_survive_a_move_of_the_tags_open_or_not() {
    let dir = dir();
    for open in [false, true] {
        let (cache, fake) = cache(&dir.path().join(open.to_string()));
        let old = hashed_key("a", MIB);
        let file = cache.file(&old);
        file.complete().await.expect("fetched");
        let held = open.then_some(file);
        let mut new = old.clone();
        new.version.etag = Some(crate::model::ETag::new("e2"));
        cache.rekey(&old.item, old.size, &old.version, &new.version).expect("renamed");
        let file = cache.file(&new);
        assert!(file.is_complete(), "open: {open}");
        assert_eq!(*file.key(), new);
        assert!(held.is_none_or(|held| Arc::ptr_eq(&held, &file)));
        file.read(ByteRange::new(0, MIB), &file.reader()).await.expect("read");
        assert_eq!(fake.requests().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_is_urgent_and_what_comes_after_it_is_not() {
    let dir = dir();
    let (cache, fake) = cache(dir.path());
    let file = cache.file(&key("a", 100 * MIB));
    let reader = file.reader();
    for start in (0..10 * MIB).step_by(128 << 10) {
        file.read(ByteRange::at(start, 128 * KIB), &reader).await.expect("read");
    }
    let log = fake.log.lock().expect("not poisoned").clone();
    assert_eq!(log[0].1, Urgency::Reader);
    assert!(log.iter().any(|(_, urgency)| *urgency == Urgency::ReadAhead), "{log:?}");
}

#[test]
fn many_readers_on_many_threads_in_a_small_cache_read_right_and_never_stop() {
    let dir = dir();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let config = super::CacheConfig { max_bytes: 2 * MIB, block: 16 * KIB, ..config(dir.path()) };
    let (cache, fake) = cache_with(config, Disk::new());
    let keys: Arc<Vec<_>> =
        Arc::new((0..6u64).map(|n| hashed_key(&format!("item {n}"), 300 * KIB * n + n)).collect());
    let work = (0..16u64).map(|worker| {
        let (cache, keys) = (cache.clone(), keys.clone());
        runtime.spawn(async move {
            let mut dice = worker * 7919 + 1;
            for round in 0..40u64 {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
                let key = &keys[(dice >> 33) as usize % keys.len()];
                let file = cache.file(key);
                let reader = file.reader();
                let mut at = (dice >> 20) % (key.size + 1);
                for step in 0..6 {
                    let range = ByteRange::at(at, 1 + (dice >> (step + 8)) % (100 * KIB));
                    let range = range.intersect(&ByteRange::new(0, key.size));
                    let bytes = file.read(range, &reader).await.expect("read");
                    assert_eq!(bytes, bytes_of(key, range), "{worker} {round} {range}");
                    at = range.end;
                }
                match (worker + round) % 23 {
                    0 => cache.forget(&key.item),
                    1 => drop(file.complete().await),
                    2 => cache.set_pinned((round % 2 == 0).then_some(&key.item)),
                    3 => file.take_away(0, 3),
                    _ => {}
                }
                assert!(cache.usage().bytes <= 2 * MIB, "{:?}", cache.usage());
            }
        })
    });
    let work: Vec<_> = work.collect();
    runtime.block_on(async {
        let all = futures_util::future::join_all(work);
        let ended = tokio::time::timeout(Duration::from_secs(300), all).await.expect("it never stops");
        ended.into_iter().for_each(|outcome| outcome.expect("no reader fails"));
    });
    drop(runtime);
    assert_eq!(cache.stats().damaged, 0);
    assert!(!fake.requests().is_empty());
}
