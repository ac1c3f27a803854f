//! What the cache may hold: its bound, the floor of free space, and what never goes.

use std::time::Duration;

use super::fake::{Fault, bytes_of, cache, cache_with, config, hashed_key};
use super::{CacheConfig, ContentError, Urgency};
use crate::disk::Disk;
use crate::model::ByteRange;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Looks at what the cache takes of the disk before each of its steps.
struct Watched {
    dir: std::path::PathBuf,
    most: std::sync::atomic::AtomicU64,
}

impl crate::disk::DiskHook for Watched {
    fn before(&self, _step: &'static str, _path: &std::path::Path) -> std::io::Result<()> {
        self.most.fetch_max(allocated(&self.dir), std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
}

// S198. At each step, whatever is read beside each other.
#[tokio::test(start_paused = true)]
async fn the_bound_holds_at_every_step_because_room_is_made_before_it_is_taken() {
    let dir = dir();
    let hook = std::sync::Arc::new(Watched { dir: dir.path().to_owned(), most: Default::default() });
    let config = CacheConfig { max_bytes: 2 * MIB, block: 16 * KIB, ..config(dir.path()) };
    let (cache, _) = cache_with(config, Disk::with_hook(hook.clone()));
    for round in 0..4 {
        let keys: Vec<_> = (0..5).map(|n| hashed_key(&format!("{round} {n}"), 200 * KIB * (n + 1))).collect();
        let files: Vec<_> = keys.iter().map(|key| cache.file(key)).collect();
        let reads = files.iter().map(|file| async move {
            let reader = file.reader();
            for start in (0..file.size()).step_by(64 << 10) {
                file.read(ByteRange::at(start, 64 * KIB), &reader).await.expect("read");
            }
        });
        futures_util::future::join_all(reads).await;
    }
    let most = hook.most.load(std::sync::atomic::Ordering::SeqCst);
    assert!((MIB..=2 * MIB).contains(&most), "{most}");
    assert!(cache.stats().bytes_evicted > 0);
}

// S198.
#[tokio::test(start_paused = true)]
async fn the_bound_is_never_exceeded_and_the_oldest_goes() {
    let dir = dir();
    let max_bytes = 5 * MIB;
    let (cache, _) = cache_with(CacheConfig { max_bytes, ..config(dir.path()) }, Disk::new());
    for round in 0..12 {
        let key = hashed_key(&format!("item {round}"), MIB);
        cache.file(&key).complete().await.expect("fetched");
        assert!(cache.usage().bytes <= max_bytes, "{:?}", cache.usage());
        assert!(allocated(dir.path()) <= max_bytes, "{}", allocated(dir.path()));
    }
    assert!(!cache.file(&hashed_key("item 3", MIB)).is_complete());
    assert!(cache.file(&hashed_key("item 11", MIB)).is_complete());
    assert!(cache.stats().bytes_evicted > 0);
}

fn allocated(dir: &std::path::Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        let stat = Disk::new().stat(&entry.path()).expect("stat");
        sum += if stat.is_file { stat.allocated } else { allocated(&entry.path()) };
    }
    sum
}

#[tokio::test(start_paused = true)]
async fn open_and_pinned_contents_never_go() {
    let dir = dir();
    let (cache, _) = cache_with(CacheConfig { max_bytes: 4 * MIB, ..config(dir.path()) }, Disk::new());
    let open = cache.file(&hashed_key("open", MIB));
    open.complete().await.expect("fetched");
    let pinned = hashed_key("pinned", MIB);
    cache.set_pinned([&pinned.item]);
    cache.file(&pinned).complete().await.expect("fetched");
    for round in 0..5 {
        cache.file(&hashed_key(&format!("item {round}"), MIB)).complete().await.expect("fetched");
    }
    assert!(open.is_complete() && cache.file(&pinned).is_complete());
    let also = cache.file(&hashed_key("also", MIB));
    also.complete().await.expect("fetched");
    let too_much = cache.file(&hashed_key("too much", 3 * MIB));
    assert!(matches!(too_much.complete().await, Err(ContentError::NoRoom)));
    cache.set_pinned([]);
    drop((also, open));
    too_much.complete().await.expect("there is room again");
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_before_it_is_known_what_is_pinned() {
    let dir = dir();
    let (cache, _) = cache_with(CacheConfig { max_bytes: 3 * MIB, ..config(dir.path()) }, Disk::new());
    let (pinned, other) = (hashed_key("pinned", MIB), hashed_key("other", MIB));
    for key in [&pinned, &other] {
        cache.file(key).complete().await.expect("fetched");
    }
    cache.await_pins();
    let third = cache.file(&hashed_key("third", 2 * MIB));
    assert!(matches!(third.complete().await, Err(ContentError::NoRoom)));
    cache.set_pinned([&pinned.item]);
    third.complete().await.expect_err("what is pinned and what is open is too much");
    let fourth = cache.file(&hashed_key("fourth", MIB / 2));
    fourth.complete().await.expect("the other one went");
    assert!(cache.file(&pinned).is_complete() && !cache.file(&other).is_complete());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_fetched_behind_all_else_and_a_reader_does_not_wait_for_it() {
    let dir = dir();
    let (cache, fake) = cache(dir.path());
    let key = hashed_key("a", 20 * MIB);
    let file = cache.file(&key);
    fake.script([Fault::Silence, Fault::Silence]);
    let keeping = tokio::spawn({
        let file = file.clone();
        async move { file.complete_for(Urgency::Keep).await }
    });
    tokio::task::yield_now().await;
    assert!(fake.log.lock().expect("not poisoned").iter().all(|(_, urgency)| *urgency == Urgency::Keep));
    let began = tokio::time::Instant::now();
    let range = ByteRange::new(0, 4096);
    assert_eq!(file.read(range, &file.reader()).await.expect("read"), bytes_of(&key, range));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    keeping.await.expect("it ends").expect_err("nothing came");
    file.complete_for(Urgency::Keep).await.expect("now it comes");
    assert!(file.is_complete());
}

// S198.
#[tokio::test(start_paused = true)]
async fn a_cache_that_is_over_its_bounds_is_made_smaller() {
    let dir = dir();
    let (cache, _) = cache(dir.path());
    for number in 0..6 {
        cache.file(&hashed_key(&format!("item {number}"), MIB)).complete().await.expect("fetched");
    }
    drop(cache);
    let small = CacheConfig { max_bytes: 3 * MIB, ..config(dir.path()) };
    let (cache, _) = cache_with(small.clone(), Disk::new());
    cache.set_pinned([&hashed_key("item 0", 1).item]);
    cache.trim().expect("trimmed");
    assert!(cache.usage().bytes <= 3 * MIB && allocated(dir.path()) <= 3 * MIB, "{:?}", cache.usage());
    assert!(cache.file(&hashed_key("item 0", MIB)).is_complete());
    drop(cache);
    let (cache, _) = cache_with(CacheConfig { max_bytes: 0, ..small }, Disk::new());
    cache.set_pinned([&hashed_key("item 0", 1).item]);
    cache.trim().expect("trimmed");
    assert_eq!(cache.usage().files, 1, "as far as may be");
}

// S199.
#[tokio::test(start_paused = true)]
async fn a_file_larger_than_the_cache_streams_through() {
    let dir = dir();
    let (cache, fake) = cache_with(CacheConfig { max_bytes: 4 * MIB, ..config(dir.path()) }, Disk::new());
    let small = hashed_key("small", MIB);
    cache.file(&small).complete().await.expect("fetched");
    let key = hashed_key("large", 20 * MIB);
    let file = cache.file(&key);
    let reader = file.reader();
    for start in (0..20 * MIB).step_by(128 << 10) {
        let range = ByteRange::at(start, 128 * KIB);
        assert_eq!(file.read(range, &reader).await.expect("read"), bytes_of(&key, range));
        assert!(cache.usage().bytes <= 4 * MIB);
    }
    assert!(fake.requests().len() <= 8, "no block is fetched twice: {:?}", fake.requests());
    assert!(cache.file(&small).is_complete(), "it did not push everything else out");
}

// S198.
#[tokio::test(start_paused = true)]
async fn the_free_space_floor_holds() {
    let dir = dir();
    let (cache, _) =
        cache_with(CacheConfig { min_free_bytes: u64::MAX / 2, ..config(dir.path()) }, Disk::new());
    let key = hashed_key("a", MIB);
    let file = cache.file(&key);
    let range = ByteRange::new(0, MIB);
    assert_eq!(file.read(range, &file.reader()).await.expect("read"), bytes_of(&key, range));
    assert_eq!(cache.usage().bytes, 0);
}

// S208.
#[tokio::test(start_paused = true)]
async fn many_readers_without_room_in_the_cache_share_one_bound_of_memory() {
    const READERS: u64 = 6;
    const BOUND: u64 = 8 * MIB;
    /// The largest piece that a reader waits for.
    const PIECE: u64 = 8 * MIB;
    let dir = dir();
    let bounds = CacheConfig { max_bytes: 0, ahead_bytes: BOUND, ..config(dir.path()) };
    let (cache, fake) = cache_with(bounds, Disk::new());
    let files: Vec<_> =
        (0..READERS).map(|index| cache.file(&hashed_key(&format!("{index}"), 18 * MIB))).collect();
    let readers: Vec<_> = files.iter().map(|file| file.reader()).collect();
    for at in (0..18 * MIB).step_by(1 << 20) {
        for (file, reader) in files.iter().zip(&readers) {
            let range = ByteRange::at(at, MIB);
            assert_eq!(file.read(range, reader).await.expect("read"), bytes_of(&file.key(), range));
        }
        let kept: u64 = readers.iter().map(|reader| reader.in_memory()).sum();
        assert!(kept <= BOUND + READERS * PIECE, "{kept} bytes at {at}");
    }
    let asked: u64 = fake.requests().iter().map(|range| range.len()).sum();
    assert_eq!(asked, READERS * 18 * MIB, "nothing is fetched twice by readers that go on");
}
