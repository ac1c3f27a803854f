//! The task of a flight: fetches its range, hands the bytes to readers as they come, stores them in blocks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tracing::debug;

use super::budget::Share;
use super::error::{ContentError, FetchError, FetchErrorKind};
use super::fetch::Fetched;
use super::file::CachedFile;
use super::flight::{Flight, Lander};
use crate::model::ByteRange;

/// Bytes gathered before they go to the disk.
const STORE_BYTES: u64 = 1 << 20;
/// Attempts in a row that bring less than a block.
const MAX_ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Runs `flight` to its end. `slot` is its part of the transfers allowed at once.
pub(super) async fn fly(file: Arc<CachedFile>, flight: Arc<Flight>, slot: Option<Share>) {
    let lander = Lander(&flight);
    let start = flight.range.start;
    let mut transfer = Transfer {
        file,
        flight: flight.clone(),
        at: start,
        gathered: Vec::new(),
        stored_to: start,
        job: None,
        keeps: true,
    };
    let outcome = match transfer.receive().await {
        Ok(()) => transfer.land().await,
        Err(error) => {
            transfer.settle().await;
            Err(error.into())
        }
    };
    flight.finish(outcome);
    drop((lander, slot));
}

struct Transfer {
    file: Arc<CachedFile>,
    flight: Arc<Flight>,
    at: u64,
    /// Bytes from `stored_to` on that no store has taken yet.
    gathered: Vec<Bytes>,
    stored_to: u64,
    /// The store under way; it began with what was before `stored_to`.
    job: Option<BoxFuture<'static, Option<u64>>>,
    /// The cache still takes the bytes.
    keeps: bool,
}

impl Transfer {
    /// Fetches until the range is complete, asking again for what a body left out.
    async fn receive(&mut self) -> Result<(), FetchError> {
        let mut attempts = 0;
        while self.at < self.flight.range.end {
            let before = self.at;
            let outcome = self.attempt().await;
            if self.at - before >= self.file.block() {
                attempts = 0;
            }
            let error = match outcome {
                Ok(()) if self.at >= self.flight.range.end => break,
                Ok(()) => FetchError::new(FetchErrorKind::Protocol),
                Err(error) => error,
            };
            attempts += 1;
            if attempts >= MAX_ATTEMPTS || !may_pass(error.kind, self.at > before) {
                return Err(error);
            }
            debug!(range = %self.flight.range, at = self.at, attempts, %error, "the body broke off");
            tokio::time::sleep(FIRST_PAUSE * (1 << attempts)).await;
        }
        Ok(())
    }

    async fn attempt(&mut self) -> Result<(), FetchError> {
        let rest = ByteRange::new(self.at, self.flight.range.end);
        let key = self.file.key();
        let patience = self.file.patience();
        let answer = self.file.fetcher().fetch(&key, rest, self.flight.urgency);
        let Fetched { range, total, etag, mut body } =
            tokio::time::timeout(patience, answer).await.map_err(|_| FetchErrorKind::Deadline)??;
        if total != key.size {
            return Err(FetchErrorKind::OtherSize { total }.into());
        }
        if range.start != rest.start {
            return Err(FetchErrorKind::Protocol.into());
        }
        if self.file.has_moved_from(&etag) {
            self.confirm().await?;
        }
        self.file.accept(etag);
        while self.at < rest.end {
            let next = tokio::time::timeout(patience, body.next()).await;
            let Some(bytes) = next.map_err(|_| FetchErrorKind::Deadline)?.transpose()? else { break };
            self.take(bytes.slice(..bytes.len().min((rest.end - self.at) as usize))).await;
        }
        Ok(())
    }

    /// Asks whether the version is still there; if not, nothing of it may be trusted.
    async fn confirm(&mut self) -> Result<(), FetchError> {
        let key = self.file.key();
        let confirmed = self.file.fetcher().confirm(&key).await;
        if let Err(error) = &confirmed
            && error.kind == FetchErrorKind::VersionGone
        {
            let file = self.file.clone();
            self.file.blocking().start(move || file.forget_blocks()).await;
        }
        confirmed
    }

    async fn take(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.file.count_fetched(bytes.len() as u64);
        self.at += bytes.len() as u64;
        self.gathered.push(bytes.clone());
        self.flight.push(bytes);
        if self.at - self.stored_to >= STORE_BYTES {
            self.store().await;
        }
    }

    /// Begins to store the whole blocks gathered; at most one store is under way.
    async fn store(&mut self) {
        self.settle().await;
        let block = self.file.block();
        let end = if self.at == self.flight.range.end { self.at } else { self.at / block * block };
        if end <= self.stored_to {
            return;
        }
        let mut bytes = Vec::with_capacity((end - self.stored_to) as usize);
        let mut rest = Vec::new();
        for chunk in self.gathered.drain(..) {
            let room = (end - self.stored_to) as usize - bytes.len();
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                rest.push(chunk.slice(room..));
            }
        }
        self.gathered = rest;
        let (file, start) = (self.file.clone(), self.stored_to);
        self.stored_to = end;
        if self.keeps {
            let work = move || file.store(start, &bytes).then_some(end);
            self.job = Some(self.file.blocking().start(work));
        }
    }

    /// Waits for the store under way. Bytes that the cache does not keep stay in memory while someone is
    /// interested in this flight; so do all after them, because memory has no holes.
    async fn settle(&mut self) {
        if let Some(job) = self.job.take() {
            match job.await {
                Some(stored) => self.flight.release(stored),
                None => self.keeps = false,
            }
        }
    }

    /// Stores the rest; if it makes the file complete, verifies it before the last bytes are shown.
    async fn land(&mut self) -> Result<(), ContentError> {
        let file = self.file.clone();
        let landing = file.arrive(self.flight.range);
        if !landing.closes {
            self.flight.open_gate();
        }
        self.store().await;
        self.settle().await;
        landing.wait_for_others().await;
        if !self.file.is_complete() || self.file.is_verified() {
            return Ok(());
        }
        if self.file.has_hashes() {
            let file = self.file.clone();
            self.file.blocking().start(move || file.verify_now()).await
        } else {
            Ok(self.confirm().await?)
        }
    }
}

/// Whether asking again may help.
fn may_pass(kind: FetchErrorKind, progressed: bool) -> bool {
    match kind {
        FetchErrorKind::Protocol => true,
        FetchErrorKind::Offline | FetchErrorKind::Deadline | FetchErrorKind::Io => progressed,
        FetchErrorKind::VersionGone
        | FetchErrorKind::OtherSize { .. }
        | FetchErrorKind::Denied
        | FetchErrorKind::SignedOut
        | FetchErrorKind::Malware
        | FetchErrorKind::NotFound => false,
    }
}
