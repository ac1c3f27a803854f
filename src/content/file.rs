//! One content: what is on the disk, what is on its way, and reading from both.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::watch;
use tracing::warn;

use super::blocking::Blocking;
use super::error::ContentError;
use super::fetch::{Fetch, Urgency};
use super::flight::Ticket;
use super::key::{ContentKey, Name};
use super::readahead::ReadAhead;
use super::state::{Health, State};
use super::table::Shared;
use crate::model::{ByteRange, ETag, RangeSet};

/// Bytes that a handle keeps in memory where the cache does not take them.
const MAX_KEPT_BYTES: u64 = 64 << 20;
/// Transfers at once of a file that nobody waits for.
const KEEP_FLIGHTS: usize = 2;
/// Times that what is missing is looked for anew while a file is completed: transfers of others may end.
const MAX_FILL_ROUNDS: u32 = 8;

/// Transfers that someone is interested in, and dead entries of others.
pub(super) type Flights = Vec<Weak<Ticket>>;

/// One version of one item's content. While it is held, nothing of it is evicted.
#[derive(Debug)]
pub struct CachedFile {
    shared: Arc<Shared>,
    size: u64,
    ident: RwLock<Ident>,
    flights: Mutex<Flights>,
    pub(super) state: RwLock<State>,
    etag: Mutex<Option<ETag>>,
    /// Serialises verification.
    verifying: Mutex<()>,
    /// How often the complete content was found wrong.
    failures: AtomicU64,
    /// Flights whose bytes came in and are not stored yet.
    landing: watch::Sender<u32>,
}

#[derive(Clone, Debug)]
pub(super) struct Ident {
    pub key: Arc<ContentKey>,
    pub name: Name,
}

/// The reads of one open handle. Dropping it ends the read-ahead that nobody else waits for.
#[derive(Debug)]
pub struct Reader {
    inner: Mutex<ReaderState>,
}

#[derive(Debug)]
pub(super) struct ReaderState {
    pub policy: ReadAhead,
    tickets: Vec<Arc<Ticket>>,
    /// The file's failures when this handle first got bytes.
    failures_seen: Option<u64>,
}

/// A flight between its last byte and its last store.
pub(super) struct Landing<'a> {
    file: &'a CachedFile,
    /// With it every block of the file has come in.
    pub closes: bool,
}

impl CachedFile {
    pub(super) fn new(shared: Arc<Shared>, ident: Ident, state: State) -> Self {
        Self {
            size: ident.key.size,
            shared,
            ident: RwLock::new(ident),
            flights: Mutex::default(),
            state: RwLock::new(state),
            etag: Mutex::default(),
            verifying: Mutex::default(),
            failures: AtomicU64::new(0),
            landing: watch::channel(0).0,
        }
    }

    /// Which content this is. The tags may move ([`super::Cache::rekey`]), the bytes do not.
    pub fn key(&self) -> Arc<ContentKey> {
        self.ident().key.clone()
    }

    /// Bytes of the content.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A new handle's reads of any file of this cache.
    pub fn reader(&self) -> Reader {
        let policy = ReadAhead::new(self.shared.config.limits());
        Reader { inner: Mutex::new(ReaderState { policy, tickets: Vec::new(), failures_seen: None }) }
    }

    /// Every block is on the disk.
    pub fn is_complete(&self) -> bool {
        self.read_state().present.all_set()
    }

    /// What is on the disk.
    pub fn present(&self) -> RangeSet {
        let state = self.read_state();
        let runs = state.present.runs(0, state.blocks(), true);
        runs.into_iter().map(|(start, end)| self.run(start, end)).collect()
    }

    /// Reads `range` (cut to the size), fetching what is missing.
    ///
    /// Ready at the first poll when all of it is on the disk. Never mixes versions: `VersionGone` when the
    /// missing part cannot be had any more; `Damaged` when bytes this handle got before turned out wrong. Cancel-safe: dropping the future ends the transfers that nobody
    /// else waits for. Must run inside a tokio runtime.
    pub async fn read(self: &Arc<Self>, range: ByteRange, reader: &Reader) -> Result<Bytes, ContentError> {
        let range = range.intersect(&ByteRange::new(0, self.size));
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let bytes = self.read_whole(range, reader).await?;
        let failures = self.failures.load(Ordering::SeqCst);
        let seen = *reader.lock().failures_seen.get_or_insert(failures);
        if seen == failures { Ok(bytes) } else { Err(ContentError::Damaged) }
    }

    async fn read_whole(self: &Arc<Self>, range: ByteRange, reader: &Reader) -> Result<Bytes, ContentError> {
        let hit = self.read_present(range);
        let counter = if hit.is_some() { &self.shared.stats.hits } else { &self.shared.stats.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(bytes) = hit {
            if !self.is_complete() {
                self.request(range, false, reader);
            }
            return Ok(bytes);
        }
        let tickets = self.request(range, true, reader);
        self.gather(range, tickets).await
    }

    /// Fetches what is missing and verifies the whole. `NoRoom` if the cache cannot keep it.
    pub async fn complete(self: &Arc<Self>) -> Result<(), ContentError> {
        self.complete_for(Urgency::Reader).await
    }

    /// As [`CachedFile::complete`], where somebody else than a reader may want it.
    pub async fn complete_for(self: &Arc<Self>, who: Urgency) -> Result<(), ContentError> {
        for _ in 0..MAX_FILL_ROUNDS {
            if self.read_state().health == Health::Damaged {
                return Err(ContentError::Damaged);
            }
            let file = self.clone();
            self.blocking().start(move || file.trust_all()).await;
            let piece = self.shared.config.limits().piece;
            let missing = self.present().gaps(ByteRange::new(0, self.size));
            let at_once = if who == Urgency::Keep { KEEP_FLIGHTS } else { self.shared.config.file_flights };
            let ranges: Vec<ByteRange> = missing.iter().flat_map(|run| split(run, piece)).collect();
            futures_util::stream::iter(ranges)
                .map(|range| self.store_range(range, who))
                .buffer_unordered(at_once)
                .try_collect::<Vec<()>>()
                .await?;
            if self.is_complete() {
                match self.verify().await {
                    Err(ContentError::Damaged) => {}
                    outcome => return outcome,
                }
            }
        }
        Err(ContentError::NoRoom)
    }

    /// Checks the complete content against the hash of its version, if it has one.
    ///
    /// A mismatch drops the blocks, so that they are fetched once more; the second is `Damaged` for good.
    /// Incomplete content is not an error here.
    pub async fn verify(self: &Arc<Self>) -> Result<(), ContentError> {
        let file = self.clone();
        self.blocking().start(move || file.verify_now()).await
    }

    /// Where the bytes are (or would be).
    pub fn path(&self) -> PathBuf {
        self.ident().name.paths(self.shared.root()).data
    }

    /// The bytes of `range` if they are on the disk and sound. Never waits for the network.
    pub fn read_present(&self, range: ByteRange) -> Option<Bytes> {
        let (first, end) = self.blocks(range);
        for _ in 0..2 {
            {
                let state = self.read_state();
                if !state.present.has_all(first, end) || state.health == Health::Damaged {
                    return None;
                }
                let was_written = state.was_written();
                if was_written {
                    drop(state);
                    self.write_state().doubt();
                } else if state.trusted.has_all(first, end) {
                    let backing = state.backing.clone()?;
                    match backing.read(range) {
                        Ok(bytes) => return Some(bytes),
                        Err(error) => {
                            drop(state);
                            self.give_up_disk(&error);
                            return None;
                        }
                    }
                }
            }
            self.trust(first, end);
        }
        None
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn ident(&self) -> RwLockReadGuard<'_, Ident> {
        self.ident.read().expect("no code panics while it holds a name")
    }

    pub(super) fn set_ident(&self, ident: Ident) {
        *self.ident.write().expect("no code panics while it holds a name") = ident;
    }

    pub(super) fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("no code panics while it holds the state of a file")
    }

    pub(super) fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect("no code panics while it holds the state of a file")
    }

    pub(super) fn lock_flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().expect("no code panics while it holds the flights of a file")
    }

    pub(super) fn lock_verifying(&self) -> MutexGuard<'_, ()> {
        self.verifying.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn block(&self) -> u64 {
        self.shared.config.block
    }

    /// The numbers of the blocks that `range` touches.
    pub(super) fn blocks(&self, range: ByteRange) -> (u64, u64) {
        (range.start / self.block(), range.end.div_ceil(self.block()))
    }

    pub(super) fn run(&self, first: u64, end: u64) -> ByteRange {
        ByteRange::new(first * self.block(), (end * self.block()).min(self.size))
    }

    pub(super) fn blocking(&self) -> Blocking {
        self.shared.config.blocking
    }

    pub(super) fn fetcher(&self) -> &Arc<dyn Fetch> {
        &self.shared.fetch
    }

    /// How long a transfer may make no progress.
    pub(super) fn patience(&self) -> Duration {
        self.shared.config.patience
    }

    pub(super) fn count_fetched(&self, bytes: u64) {
        self.shared.stats.bytes_fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Answers carried another tag before.
    pub(super) fn has_moved_from(&self, etag: &Option<ETag>) -> bool {
        let known = self.etag.lock().expect("no code panics while it holds a tag");
        matches!((known.as_ref(), etag), (Some(known), Some(etag)) if known != etag)
    }

    pub(super) fn accept(&self, etag: Option<ETag>) {
        if etag.is_some() {
            *self.etag.lock().expect("no code panics while it holds a tag") = etag;
        }
    }

    /// Notes that all bytes of `range` came in.
    pub(super) fn arrive(&self, range: ByteRange) -> Landing<'_> {
        self.landing.send_modify(|count| *count += 1);
        let (first, end) = self.blocks(range);
        let mut state = self.write_state();
        state.arrived.set(first, end);
        Landing { file: self, closes: state.arrived.all_set() }
    }

    pub(super) fn note_failure(&self) {
        self.failures.fetch_add(1, Ordering::SeqCst);
    }

    /// The disk of the cache failed: this file goes on without it.
    pub(super) fn give_up_disk(&self, error: &io::Error) {
        warn!(%error, "the cache fails; this file is read without it until it is opened anew");
        let mut state = self.write_state();
        state.clear();
        state.backing = None;
        state.memory_only = true;
    }
}

impl Drop for CachedFile {
    fn drop(&mut self) {
        self.shared.closed(self);
    }
}

impl Landing<'_> {
    /// If this flight closes the file: waits until the others have stored what came in.
    pub async fn wait_for_others(self) {
        let (file, closes) = (self.file, self.closes);
        drop(self);
        if closes {
            // Fails only when the sender is gone, which `file` owns.
            let _ = file.landing.subscribe().wait_for(|count| *count == 0).await;
        }
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.file.landing.send_modify(|count| *count -= 1);
    }
}

impl Reader {
    /// Bytes that this handle keeps in memory.
    #[cfg(test)]
    pub fn in_memory(&self) -> u64 {
        self.lock().tickets.iter().map(|ticket| ticket.flight().in_memory()).sum()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ReaderState> {
        self.inner.lock().expect("no code panics while it holds a reader")
    }
}

impl ReaderState {
    /// Adds tickets of a read of `range` and lets go of those that nobody needs: done, or too much to keep in memory.
    pub fn keep(&mut self, range: ByteRange, tickets: &[Arc<Ticket>]) {
        self.tickets.retain(|ticket| !ticket.flight().is_done_with());
        if tickets.iter().any(|ticket| ticket.flight().urgency == Urgency::Reader) {
            // The handle had to wait, so it is beyond what it got before.
            self.tickets.retain(|ticket| {
                let flight = ticket.flight();
                !flight.is_beyond_budget() || !flight.range.intersect(&range).is_empty()
            });
        }
        self.tickets.extend_from_slice(tickets);
        let ended = |ticket: &Arc<Ticket>| ticket.flight().has_ended();
        let mut kept: u64 = self
            .tickets
            .iter()
            .filter(|ticket| ended(ticket))
            .map(|ticket| ticket.flight().servable().len())
            .sum();
        self.tickets.retain(|ticket| {
            let drop = kept > MAX_KEPT_BYTES && ended(ticket);
            if drop {
                kept -= ticket.flight().servable().len();
            }
            !drop
        });
    }
}

fn split(range: &ByteRange, piece: u64) -> Vec<ByteRange> {
    let starts = (range.start..range.end).step_by(piece as usize);
    starts.map(|start| ByteRange::at(start, piece).intersect(range)).collect()
}
