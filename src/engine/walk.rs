//! Observing where the service offers no delta (national clouds, some shared folders: 501, graph-api 1.1, 15.13).
//!
//! The whole drive is walked, a folder at a time, at the lowest priority; what a walk did not show is read by its id
//! before it is believed to be gone. A walk costs one request for each folder and for each further 999 entries of
//! one, and takes at most a fifth of the time, an hour's pause at the most. The folders that programs look at are
//! listed again at the poll interval. What waits to be listed is in the store: a walk that was cut goes on there.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use super::apply::{Effects, Seen, Source, late};
use super::doubts::add_doubts;
use super::error::{Verdict, classify};
use super::observe::{LAST, MARK, PAGE, PAGE_SEQ, SWEEP, enumerate, mark};
use super::{Engine, EngineError, Inner};
use crate::graph::{ChildrenPage, GraphError, PageLink, Priority};
use crate::model::{ItemId, ItemKind, NodeId, Timestamp};
use crate::store::{Durability, Node, NodeKind, StoreError, WalkStep};

/// Wall time at which the service said that it offers no delta.
const NO_DELTA: &str = "no_delta";
/// Wall time before which no further walk begins by itself.
pub(super) const NEXT: &str = "next_walk";
/// Then it is asked again: a cloud may learn it.
const ASK_AGAIN_NANOS: i64 = 24 * 3600 * 1_000_000_000;
/// A pause is so many times as long as the walk before it.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(3600);
/// Folders that are listed again at each poll.
const RECENT: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");
/// A folder that nobody opened for so long is no longer one of them.
const RECENT_LIFE: Duration = Duration::from_secs(600);

/// What is known of walks.
#[derive(Debug)]
pub(super) struct Walks {
    /// The service offers no delta.
    on: AtomicBool,
    /// Somebody asked to see all changes now.
    asked: AtomicBool,
    /// Folders and files that programs opened, and when last.
    recent: Mutex<LruCache<NodeId, Instant>>,
}

impl Default for Walks {
    fn default() -> Self {
        let recent = Mutex::new(LruCache::new(RECENT));
        Self { on: AtomicBool::new(false), asked: AtomicBool::new(false), recent }
    }
}

impl Walks {
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// The next round is a walk, whenever the last one was.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// A program opened this node.
    pub fn opened(&self, node: NodeId) {
        if self.is_on() {
            self.recent().put(node, Instant::now());
        }
    }

    fn recent(&self) -> MutexGuard<'_, LruCache<NodeId, Instant>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_use(&self) -> Vec<NodeId> {
        self.recent().iter().filter(|(_, at)| at.elapsed() < RECENT_LIFE).map(|(&node, _)| node).collect()
    }
}

/// Whether a listing was refused for what the folder is, not for the network or the service.
fn is_of_the_folder(error: &GraphError) -> bool {
    matches!(classify(error), Verdict::Look | Verdict::Park { .. })
}

/// How long to rest after a walk that took `walk`.
fn rest(poll: Duration, walk: Duration) -> Duration {
    (walk * REST).min(LONGEST_REST).max(poll)
}

impl Engine {
    /// Whether the drive is to be walked: the service said of late that it offers no delta.
    pub(super) fn is_without_delta(&self) -> Result<bool, EngineError> {
        let now = Timestamp::from(self.0.clock.wall());
        let since = self.meta(NO_DELTA)?.and_then(|text| text.parse::<i64>().ok());
        // The clock may have been set: an answer from the future is as old as one from the past.
        let is_recent = |since: i64| now.0.saturating_sub(since).saturating_abs() < ASK_AGAIN_NANOS;
        // A walk that takes longer than that comes to its end first.
        let on = match since {
            Some(since) => is_recent(since) || self.0.store.inspect(|tx| tx.walk_step())?.is_some(),
            None => false,
        };
        self.0.walks.on.store(on, Ordering::Release);
        Ok(on)
    }

    /// The service offers no delta: what a round by delta left unfinished is of no use.
    pub(super) fn give_delta_up(&self) -> Result<(), EngineError> {
        tracing::warn!(
            "the service offers no delta for this drive: its folders are listed one by one instead"
        );
        let now = Timestamp::from(self.0.clock.wall());
        self.0.store.write(Durability::Process, |tx| {
            tx.take_round()?;
            for key in [super::observe::LINK, PAGE, PAGE_SEQ] {
                tx.set_meta(key, None)?;
            }
            tx.set_meta(NO_DELTA, Some(&now.0.to_string()))
        })?;
        self.0.walks.on.store(true, Ordering::Release);
        Ok(())
    }

    /// One round without delta: the folders in use, and the whole drive where that is due.
    pub(super) async fn walk_round(&self) -> Result<(), EngineError> {
        if self.0.store.inspect(|tx| tx.walk_step())?.is_none() {
            // Who asks during a walk asks for the next one: this one may be past what they want to see.
            let asked = self.0.walks.asked.swap(false, Ordering::AcqRel);
            if !asked && !self.is_walk_due()? {
                self.list_what_is_in_use().await?;
                // What could not be looked at after the last walk.
                self.finish_enumeration().await?;
                self.0.connected();
                return Ok(());
            }
            self.begin_walk()?;
        }
        let began = Instant::now();
        let mut listed = Instant::now();
        while let Some(step) = self.0.store.inspect(|tx| tx.walk_step())? {
            if self.0.stop.is_cancelled() {
                return Ok(());
            }
            if listed.elapsed() >= self.0.config.poll {
                self.list_what_is_in_use().await?;
                listed = Instant::now();
            }
            self.take_step(step).await?;
            self.0.connected();
        }
        self.end_walk(began.elapsed()).await
    }

    fn is_walk_due(&self) -> Result<bool, EngineError> {
        let next = self.meta(NEXT)?.and_then(|text| text.parse::<i64>().ok());
        let now = Timestamp::from(self.0.clock.wall());
        let longest = i64::try_from(LONGEST_REST.max(self.0.config.poll).as_nanos()).unwrap_or(i64::MAX);
        Ok(next.is_none_or(|next| next <= now.0 || next.saturating_sub(now.0) > longest))
    }

    fn begin_walk(&self) -> Result<(), EngineError> {
        let root = self.0.store.node(NodeId::ROOT)?.and_then(|root| root.remote.clone());
        let root = root.ok_or(EngineError::NotFound)?;
        Ok(self.0.store.write(Durability::Process, |tx| {
            let next = mark(tx.meta(MARK)?) + 1;
            tx.set_meta(MARK, Some(&next.to_string()))?;
            tx.set_meta(PAGE_SEQ, Some(&tx.sequence().to_string()))?;
            tx.walk_later(&root.item)
        })?)
    }

    /// Lists one page of one folder.
    async fn take_step(&self, step: WalkStep) -> Result<(), EngineError> {
        let sent_seq = self.0.store.sequence();
        let next = step.next.clone().map(PageLink::new);
        let drive = &self.0.drive.id;
        match self.0.graph.children(drive, &step.folder, next.as_ref(), Priority::Enumeration).await {
            Ok(page) => {
                let (inner, now) = (self.0.clone(), Timestamp::from(self.0.clock.wall()));
                let seen = Seen { source: Source::Report, sent_seq, now };
                page.items.iter().for_each(|item| self.0.fetch.remember(item));
                let effects =
                    self.0.blocking.start(move || inner.take_walked(&step.folder, page, seen)).await?;
                self.settle_doubts(effects).await;
                Ok(())
            }
            // The listing changed too much to go on: from its beginning, after a pause.
            Err(error @ GraphError::Resync { .. }) if step.next.is_some() => {
                self.pass_over(&step.folder, true).await?;
                Err(error.into())
            }
            // What is gone, or not for us, was seen in its own folder before; what became of it is looked at.
            Err(error) if is_of_the_folder(&error) => {
                tracing::debug!(folder = %step.folder, %error, "a folder of the walk cannot be listed");
                self.pass_over(&step.folder, false).await
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn pass_over(&self, folder: &ItemId, again: bool) -> Result<(), EngineError> {
        let (inner, folder) = (self.0.clone(), folder.clone());
        let pass = move || {
            inner.store.write(Durability::Process, |tx| {
                tx.walked(&folder, None)?;
                if again { tx.walk_later(&folder) } else { add_doubts(tx, std::slice::from_ref(&folder)) }
            })
        };
        self.0.blocking.start(pass).await?;
        self.settle_doubts(Effects::default()).await;
        Ok(())
    }

    async fn end_walk(&self, took: Duration) -> Result<(), EngineError> {
        let sent_seq = self
            .meta(PAGE_SEQ)?
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| self.0.store.sequence());
        let now = Timestamp::from(self.0.clock.wall());
        let rest = i64::try_from(rest(self.0.config.poll, took).as_nanos()).unwrap_or(i64::MAX);
        let inner = self.0.clone();
        let end = move || {
            inner.store.write(Durability::Process, |tx| {
                tx.expire_tombstones(sent_seq, late(now), now)?;
                tx.set_meta(PAGE_SEQ, None)?;
                tx.set_meta(LAST, Some(&now.0.to_string()))?;
                tx.set_meta(NEXT, Some(&now.0.saturating_add(rest).to_string()))?;
                tx.set_meta(SWEEP, Some(&sent_seq.to_string()))
            })
        };
        self.0.blocking.start(end).await?;
        self.finish_enumeration().await?;
        self.0.set_looked(sent_seq);
        self.0.wake.notify_one();
        Ok(())
    }

    /// Lists the folders again that programs looked at of late.
    async fn list_what_is_in_use(&self) -> Result<(), EngineError> {
        let mut folders = BTreeSet::new();
        for id in self.0.walks.in_use() {
            folders.extend(self.0.store.node(id)?.and_then(|node| match node.kind {
                NodeKind::File => node.remote.as_ref()?.parent,
                _ => Some(id),
            }));
        }
        for folder in folders {
            let folder = self.0.store.node(folder)?;
            let listable = |node: &Arc<Node>| node.kind == NodeKind::Folder && node.remote.is_some();
            let Some(folder) = folder.filter(listable) else { continue };
            match self.list(&folder).await {
                Err(EngineError::Graph(error)) if is_of_the_folder(&error) => {}
                listed => listed?,
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Takes a page of a walk in, with what is to be listed after it.
    fn take_walked(&self, folder: &ItemId, page: ChildrenPage, seen: Seen) -> Result<Effects, StoreError> {
        let mut applier = self.applier();
        let committed = self.store.write_changes(Durability::Process, |tx| -> Result<(), StoreError> {
            enumerate(tx, &mut applier, page.items.iter(), seen)?;
            for item in page.items.iter().filter(|item| item.kind == Some(ItemKind::Folder)) {
                tx.walk_later(&item.id)?;
            }
            tx.walked(folder, page.next.as_ref().map(PageLink::expose))?;
            if let (None, Some(node)) = (&page.next, tx.by_item(folder)?) {
                tx.set_listed(node.id, true)?;
            }
            add_doubts(tx, &applier.effects.doubted)
        })?;
        self.sink.changed(&committed.changes);
        Ok(applier.effects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_walk_takes_a_fifth_of_the_time_but_comes_each_hour() {
        assert_eq!(rest(30 * SECOND, SECOND), 30 * SECOND);
        assert_eq!(rest(30 * SECOND, 60 * SECOND), 240 * SECOND);
        assert_eq!(rest(30 * SECOND, 86_400 * SECOND), 3600 * SECOND);
        assert_eq!(rest(7200 * SECOND, SECOND), 7200 * SECOND);
    }
}
