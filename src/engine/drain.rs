//! Waiting until things are on the service, and telling what is not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::{Engine, EngineError, EngineStatus, Inner, State, Waiting, lock};
use crate::model::{NodeId, Timestamp};
use crate::store::{Durability, LocalView, Node, StoreError};

/// How often a look that somebody waits for is asked whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A look that somebody waits for gives the service so long to come back.
const OFFLINE_PATIENCE: Duration = Duration::from_secs(5);

/// How often a caller that waits looks whether its upload moves.
const LOOK: Duration = Duration::from_secs(1);

/// While it lives, changes do not rest before they are sent.
pub struct Hurry(Arc<Inner>);

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.hurry.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What is left after waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Changes that are not on the service.
    pub pending: u64,
    /// Of these, parked, or waiting for one that is.
    pub parked: u64,
}

/// What is left below a folder, or of one file.
#[derive(Clone, Debug, Default)]
pub struct LeftBelow {
    /// Changes that are not on the service.
    pub pending: u64,
    /// Files that live only here by their nature.
    pub local_only: u64,
    /// The first of the unsent changes, parked ones first.
    pub waiting: Vec<Waiting>,
}

impl Engine {
    /// Nothing rests until the guard is dropped.
    pub fn hurry(&self) -> Hurry {
        self.0.hurry.fetch_add(1, Ordering::AcqRel);
        self.0.wake.notify_one();
        Hurry(self.0.clone())
    }

    /// Says in `status` that the daemon is about to end.
    pub fn draining(&self) {
        lock(&self.0.link).state = State::Draining;
        self.0.wake.notify_one();
    }

    /// Waits until the node has nothing unsent, or its change is parked or cannot be sent now.
    ///
    /// Where nothing of it moves for the time that is set, the error is that of the last try, else `Deadline`. The
    /// change stays queued in any case.
    pub async fn settled(&self, node: NodeId) -> Result<(), EngineError> {
        let _hurry = self.hurry();
        let limit = self.0.config.sync_timeout;
        let (mut moved, mut until) = (None, Instant::now() + limit);
        loop {
            let progress = self.0.uploads().get(&node).copied();
            if progress != moved {
                (moved, until) = (progress, Instant::now() + limit);
            }
            if Instant::now() >= until {
                let failure = lock(&self.0.failures).get(&node).cloned();
                return Err(failure.map_or(EngineError::Deadline, EngineError::from));
            }
            let changed = self.0.progress.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let Some(now) = self.0.store.node(node)? else { return Ok(()) };
            let Some(local) = now.local.as_ref().filter(|local| !local.local_only) else { return Ok(()) };
            if let Some(parked) = &local.parked {
                return Err(EngineError::Parked(parked.clone()));
            }
            if !self.0.may_send() {
                let trouble = lock(&self.0.link).trouble.clone().unwrap_or_default();
                return Err(self.unreachable(&trouble));
            }
            tokio::select! {
                biased;
                () = self.0.stop.cancelled() => return Err(EngineError::Deadline),
                () = &mut changed => {}
                // An upload that moves is seen within the second.
                () = tokio::time::sleep(until.duration_since(Instant::now()).min(LOOK)) => {}
            }
        }
    }

    fn unreachable(&self, why: &str) -> EngineError {
        if self.is_signed_out() {
            crate::graph::GraphError::SignedOut { reason: why.to_owned() }.into()
        } else {
            EngineError::Offline
        }
    }

    /// Waits until everything below `top` is on the service; what is parked is not waited for.
    ///
    /// `progress` is called with what is left whenever that changed. `Deadline` after `limit`.
    pub async fn sync(
        &self,
        top: NodeId,
        limit: Option<Duration>,
        mut progress: impl FnMut(Left),
    ) -> Result<Left, EngineError> {
        let _hurry = self.hurry();
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut told = None;
        loop {
            let changed = self.0.progress.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let left = self.count_below(top).await?;
            if told != Some(left) {
                progress(left);
                told = Some(left);
            }
            if left.pending == left.parked {
                return Ok(left);
            }
            let end = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.0.stop.cancelled() => return Err(EngineError::Deadline),
                () = end => return Err(EngineError::Deadline),
                () = &mut changed => {}
            }
        }
    }

    async fn count_below(&self, top: NodeId) -> Result<Left, EngineError> {
        let inner = self.0.clone();
        let count = move || -> Result<Left, StoreError> {
            let counts = inner.store.dirty_counts()?;
            if counts.pending == 0 || (top == NodeId::ROOT && counts.parked == 0) {
                return Ok(Left { pending: counts.pending, parked: counts.parked });
            }
            let mut dirty = inner.store.dirty()?;
            dirty.retain(Node::is_dirty);
            if top != NodeId::ROOT {
                let mut below = Vec::new();
                for node in dirty {
                    if inner.lies_below(&node, top)? {
                        below.push(node);
                    }
                }
                dirty = below;
            }
            let pending = dirty.len() as u64;
            Ok(Left { pending, parked: inner.count_stuck(dirty)? })
        };
        Ok(self.0.blocking.start(count).await?)
    }

    /// What is unsent below `top`, and why.
    pub async fn left_below(&self, top: NodeId) -> Result<LeftBelow, EngineError> {
        let inner = self.0.clone();
        let tell = move || -> Result<LeftBelow, StoreError> {
            let mut left = LeftBelow::default();
            let mut dirty = Vec::new();
            for node in inner.store.dirty()? {
                if top != NodeId::ROOT && !inner.lies_below(&node, top)? {
                    continue;
                }
                if node.is_dirty() {
                    left.pending += 1;
                    dirty.push(node);
                } else {
                    left.local_only += u64::from(node.local.is_some_and(|local| !local.deleted));
                }
            }
            left.waiting = inner.first_waiting(dirty)?;
            Ok(left)
        };
        Ok(self.0.blocking.start(tell).await?)
    }

    /// Tries every parked change at or below `top` again now; returns how many.
    pub async fn retry_parked(&self, top: NodeId) -> Result<u64, EngineError> {
        let inner = self.0.clone();
        let retried = self.0.blocking.start(move || inner.unpark(|node| inner.lies_below(node, top))).await?;
        self.nudge();
        Ok(retried)
    }

    /// Looks at the drive now, and returns when what it has is visible here.
    pub async fn look_now(&self) -> Result<(), EngineError> {
        let wanted = self.0.store.write(Durability::Process, |tx| Ok(tx.next_sequence()))?;
        self.refresh();
        let patience = Instant::now() + OFFLINE_PATIENCE;
        while self.0.looked.load(Ordering::Acquire) < wanted {
            if !self.0.may_send() && Instant::now() >= patience {
                let trouble = lock(&self.0.link).trouble.clone().unwrap_or_default();
                return Err(self.unreachable(&trouble));
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = self.0.stop.cancelled() => return Err(EngineError::Deadline),
            }
        }
        Ok(())
    }

    /// What is being uploaded.
    pub fn uploads(&self) -> Vec<super::UploadProgress> {
        self.0.upload_progress()
    }

    /// A snapshot for `status`; asks the service for nothing but, at most once a minute, the drive's space.
    pub async fn status(&self) -> Result<EngineStatus, EngineError> {
        if self.0.may_send() {
            let limit = Duration::from_secs(2);
            // The space shown is then the last one known.
            tokio::time::timeout(limit, self.0.refresh_quota()).await.unwrap_or_default();
        }
        let inner = self.0.clone();
        Ok(self.0.blocking.start(move || inner.snapshot()).await?)
    }
}

impl Inner {
    /// Takes the parked changes that `which` chooses out of parking; returns how many.
    pub(super) fn unpark(
        &self,
        mut which: impl FnMut(&Node) -> Result<bool, StoreError>,
    ) -> Result<u64, StoreError> {
        let is_parked = |node: &Node| node.local.as_ref().is_some_and(|local| local.parked.is_some());
        let mut chosen = Vec::new();
        for node in self.store.dirty()?.into_iter().filter(is_parked) {
            if which(&node)? {
                chosen.push(node.id);
            }
        }
        self.store.write(Durability::Process, |tx| {
            let mut count = 0;
            for id in chosen {
                let Some(local) = tx.find(id)?.and_then(|node| node.local) else { continue };
                if local.parked.is_some() {
                    let next = LocalView { parked: None, tries: 0, retry_at: Timestamp(0), ..local };
                    tx.set_local(id, Some(&next))?;
                    count += 1;
                }
            }
            Ok(count)
        })
    }

    pub(super) fn lies_below(&self, node: &Node, top: NodeId) -> Result<bool, StoreError> {
        if top == NodeId::ROOT {
            // Also folders that for a moment lie in each other, one moved here and one elsewhere.
            return Ok(true);
        }
        let mut at = Some(node.id);
        for _ in 0..4096 {
            match at {
                Some(id) if id == top => return Ok(true),
                Some(id) => {
                    let node = self.store.node(id)?;
                    at = node
                        .and_then(|node| node.known_place())
                        .map(|(parent, _)| parent)
                        .filter(|&parent| parent != id);
                }
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    fn snapshot(&self) -> Result<EngineStatus, StoreError> {
        let counts = self.store.dirty_counts()?;
        let (state, trouble) = {
            let link = lock(&self.link);
            (link.state, link.trouble.clone())
        };
        let mut dirty = self.store.dirty()?;
        dirty.retain(Node::is_dirty);
        let waiting = self.first_waiting(dirty)?;
        Ok(EngineStatus {
            state,
            pending: counts.pending,
            parked: counts.parked,
            local_only: counts.local_only,
            waiting,
            uploads: self.upload_progress(),
            last_delta: self.last_delta(),
            pushed: self.is_pushed(),
            items: self.store.count()?,
            reading: self.reading()?,
            quota: *lock(&self.quota),
            trouble,
        })
    }
}
