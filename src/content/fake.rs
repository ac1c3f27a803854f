//! A service in a few lines, and a cache over it, for the tests of this module.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};

use super::{Cache, CacheConfig, ContentKey, Fetch, FetchError, FetchErrorKind, Fetched, Urgency};
use crate::clock::{Clock, SeededClock};
use crate::disk::Disk;
use crate::model::{ByteRange, ContentVersion, ETag, Hashes, ItemId, QuickXor};

/// What the service does to one request.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// Answers with this error.
    Error(FetchErrorKind),
    /// The body ends after so many bytes.
    Short(u64),
    /// The body fails after so many bytes.
    Break(u64, FetchErrorKind),
    /// One bit of the body is wrong.
    Flip,
    /// States this size.
    Total(u64),
    /// States this tag.
    Tag(&'static str),
    /// Never answers.
    Silence,
}

/// The content of every item: byte `n` of the file is a function of `n` and the seed.
pub(super) fn content(seed: u64, range: ByteRange) -> Vec<u8> {
    (range.start..range.end).map(|at| (at.wrapping_mul(seed * 2 + 1) >> 7 ^ at ^ seed) as u8).collect()
}

#[derive(Debug, Default)]
pub(super) struct Fake {
    pub log: Mutex<Vec<(ByteRange, Urgency)>>,
    pub faults: Mutex<VecDeque<Fault>>,
    /// Time between chunks of 16 KiB; none: all at once.
    pub pace: Mutex<Option<Duration>>,
    pub gone: Mutex<bool>,
    /// One bit of this byte is wrong in every answer.
    pub wrong_at: Mutex<Option<u64>>,
    pub dropped: Arc<Mutex<u32>>,
}

struct OnDrop(Arc<Mutex<u32>>, bool);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if !self.1 {
            *self.0.lock().expect("not poisoned") += 1;
        }
    }
}

impl Fake {
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().expect("not poisoned").extend(faults);
    }

    pub fn requests(&self) -> Vec<ByteRange> {
        self.log.lock().expect("not poisoned").iter().map(|(range, _)| *range).collect()
    }

    pub fn pace(&self, pace: Duration) {
        *self.pace.lock().expect("not poisoned") = Some(pace);
    }
}

const CHUNK: u64 = 16 << 10;

impl Fetch for Fake {
    fn fetch(
        &self,
        key: &ContentKey,
        range: ByteRange,
        urgency: Urgency,
    ) -> BoxFuture<'static, Result<Fetched, FetchError>> {
        self.log.lock().expect("not poisoned").push((range, urgency));
        let fault = self.faults.lock().expect("not poisoned").pop_front().unwrap_or(Fault::None);
        let pace = *self.pace.lock().expect("not poisoned");
        let wrong_at = *self.wrong_at.lock().expect("not poisoned");
        let (key, dropped) = (key.clone(), self.dropped.clone());
        async move {
            let mut total = key.size;
            let mut etag = Some(ETag::new("tag"));
            let mut send = range;
            let mut error = None;
            match &fault {
                Fault::Error(kind) => return Err((*kind).into()),
                Fault::Silence => return std::future::pending().await,
                Fault::Short(len) => send = ByteRange::at(range.start, *len).intersect(&range),
                Fault::Break(len, kind) => {
                    send = ByteRange::at(range.start, *len).intersect(&range);
                    error = Some(FetchError::new(*kind));
                }
                Fault::Total(size) => total = *size,
                Fault::Tag(tag) => etag = Some(ETag::new(*tag)),
                Fault::None | Fault::Flip => {}
            }
            let mut bytes = content(seed_of(&key), send);
            if let Some(at) = wrong_at.filter(|at| send.start <= *at && *at < send.end) {
                bytes[(at - send.start) as usize] ^= 4;
            }
            if matches!(fault, Fault::Flip) {
                bytes[0] ^= 4;
            }
            let chunks: Vec<Bytes> = bytes.chunks(CHUNK as usize).map(Bytes::copy_from_slice).collect();
            let guard = OnDrop(dropped, false);
            let body = futures_util::stream::iter(chunks.into_iter().map(Ok).chain(error.map(Err)))
                .then(move |chunk| async move {
                    if let Some(pace) = pace {
                        tokio::time::sleep(pace).await;
                    }
                    chunk
                })
                .chain(
                    futures_util::stream::once(async move {
                        let mut guard = guard;
                        guard.1 = true;
                        drop(guard);
                        Ok(Bytes::new())
                    })
                    .boxed(),
                )
                .boxed();
            Ok(Fetched { range: send, total, etag, body })
        }
        .boxed()
    }

    fn confirm(&self, _key: &ContentKey) -> BoxFuture<'static, Result<(), FetchError>> {
        let gone = *self.gone.lock().expect("not poisoned");
        std::future::ready(if gone { Err(FetchErrorKind::VersionGone.into()) } else { Ok(()) }).boxed()
    }
}

fn seed_of(key: &ContentKey) -> u64 {
    key.item.as_str().bytes().map(u64::from).sum()
}

/// A key without hashes.
pub(super) fn key(item: &str, size: u64) -> ContentKey {
    let version = ContentVersion {
        etag: Some(ETag::new("e1")),
        ctag: Some(crate::model::CTag::new("c1")),
        size: Some(size),
        hashes: Hashes::default(),
    };
    ContentKey { item: ItemId::new(item), version, size }
}

/// A key with the hash of its content.
pub(super) fn hashed_key(item: &str, size: u64) -> ContentKey {
    let mut key = key(item, size);
    let mut hash = QuickXor::default();
    hash.update(&bytes_of(&key, ByteRange::new(0, size)));
    key.version.hashes.quick_xor = Some(hash.finish());
    key
}

/// What the service has in `range` of `key`.
pub(super) fn bytes_of(key: &ContentKey, range: ByteRange) -> Vec<u8> {
    content(seed_of(key), range.intersect(&ByteRange::new(0, key.size)))
}

pub(super) fn clock() -> Arc<dyn Clock> {
    Arc::new(SeededClock::with_seed(1))
}

pub(super) fn config(dir: &Path) -> CacheConfig {
    CacheConfig { min_free_bytes: 0, ..CacheConfig::new(dir) }
}

pub(super) fn cache(dir: &Path) -> (Cache, Arc<Fake>) {
    cache_with(config(dir), Disk::new())
}

pub(super) fn cache_with(config: CacheConfig, disk: Disk) -> (Cache, Arc<Fake>) {
    let fake = Arc::new(Fake::default());
    let cache = Cache::open(config, disk, clock(), fake.clone()).expect("the cache opens");
    (cache, fake)
}
