//! What is pinned is kept here: fetched in the background when nothing else needs the line, and again when it changes.
//!
//! Which files these are follows from the store at each look (level-triggered: nothing that happens, here, elsewhere or
//! while no daemon runs, can be missed). What to do is decided by the pure part, `keep.rs`.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::MutexGuard;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::keep::{self, Find};
use super::{Engine, EngineError, Inner, State, lock};
use crate::content::{ContentError, ContentKey, Urgency};
use crate::model::{ItemId, NodeId};
use crate::store::{Durability, Node, NodeKind, Pinned, StoreError};

/// Files fetched at once.
const AT_ONCE: usize = 4;
/// Folders listed at a look.
const LISTED_AT_ONCE: usize = 32;
/// All is looked at again so often: the cache may have been damaged or deleted.
const AGAIN: Duration = Duration::from_secs(600);
/// The least time between two looks because something changed.
const REST: Duration = Duration::from_millis(500);
/// Looking takes at most one part in so many of the time.
const SHARE: u32 = 20;

/// What is known of pinned files.
#[derive(Default)]
pub(super) struct Pins {
    wake: Notify,
    told: Notify,
    view: std::sync::Mutex<View>,
}

#[derive(Default)]
struct View {
    /// Looks that have ended.
    looks: u64,
    /// Something was pinned at the last of them.
    had_pins: bool,
    /// When the cache was last asked of all files.
    whole_look: Option<Instant>,
    wanted: HashMap<NodeId, Want>,
    troubles: HashMap<NodeId, Trouble>,
    running: HashMap<NodeId, (ContentKey, AbortHandle)>,
    queue: VecDeque<NodeId>,
    /// Folders of which it is not known yet what is in them.
    unlisted: usize,
    /// What does not fit, and the most that does, in bytes.
    no_room: Option<NoRoom>,
}

/// A pinned file.
struct Want {
    key: ContentKey,
    here: bool,
}

/// Why a file is not here, and when it is tried again.
struct Trouble {
    key: ContentKey,
    why: String,
    until: Instant,
}

/// More is pinned than the cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoRoom {
    /// Bytes that all of it takes on the disk.
    pub needed: u64,
    /// The most that the cache may hold as the disk is now, in bytes.
    pub capacity: u64,
}

/// How far pinned files are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinState {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are not here as a whole.
    pub missing_files: u64,
    /// Their bytes that are not here.
    pub missing_bytes: u64,
    /// One that is being fetched.
    pub current: Option<NodeId>,
    /// Why some are not here; the first of these.
    pub troubles: Vec<(NodeId, String)>,
    /// What does not fit.
    pub no_room: Option<NoRoom>,
    /// The service cannot be used now.
    pub waits: Option<State>,
    /// Nothing more will come by itself soon.
    pub at_rest: bool,
}

/// Why something is not pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// It does not fit.
    #[error("what is pinned would take more than the cache may hold")]
    NoRoom(NoRoom),
    /// Its content is nobody's to fetch: a shortcut, a notebook.
    #[error("it has no content that could be kept")]
    NoContent,
    /// It is pinned with a folder above it.
    #[error("a folder above it is pinned")]
    Within(NodeId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Keeps the content of these nodes on this machine from here on, and of all that is or comes below those that are
    /// folders. Does not wait for it.
    pub async fn pin(&self, tops: &[NodeId]) -> Result<(), PinError> {
        for &top in tops {
            // What is not known yet cannot be counted; where the service cannot say now, it is counted later.
            if self.0.may_send()
                && let Err(error) = self.ensure_listed(top).await
            {
                tracing::debug!(%error, "a folder to be pinned could not be listed yet");
            }
        }
        let (inner, tops) = (self.0.clone(), tops.to_vec());
        self.0.blocking.start(move || inner.pin(&tops)).await?;
        self.0.pins.wake.notify_one();
        Ok(())
    }

    /// Takes the pins of this node and of what is below it away; returns how many.
    pub async fn unpin(&self, top: NodeId) -> Result<u64, PinError> {
        let inner = self.0.clone();
        let gone = self.0.blocking.start(move || inner.unpin(top)).await?;
        self.0.pins.wake.notify_one();
        Ok(gone)
    }

    /// Whether the node is pinned.
    pub fn pinned(&self, id: NodeId) -> Result<Option<Pinned>, StoreError> {
        self.0.store.pinned(id)
    }

    /// The nodes that were pinned themselves.
    pub fn pins(&self) -> Result<Vec<NodeId>, StoreError> {
        if self.0.store.has_pins() { self.0.store.inspect(|tx| tx.pins()) } else { Ok(Vec::new()) }
    }

    /// How far the pinned files among these are; none: all.
    pub fn pin_state(&self, among: Option<&[NodeId]>) -> PinState {
        self.0.pin_state(among)
    }

    /// Waits until what is pinned has been looked at anew.
    pub async fn pins_looked_at(&self) {
        let before = self.0.pins.lock().looks;
        self.0.pins.wake.notify_one();
        while self.0.pins.lock().looks == before && !self.0.stop.is_cancelled() {
            let told = self.0.pins.told.notified();
            if self.0.pins.lock().looks != before {
                return;
            }
            tokio::select! {
                () = told => {}
                () = self.0.stop.cancelled() => {}
            }
        }
    }

    /// Waits for news of pinned files, or `limit`.
    pub async fn pin_news(&self, limit: Duration) {
        let told = self.0.pins.told.notified();
        // Either way it is looked at again.
        tokio::time::timeout(limit, told).await.unwrap_or_default();
    }

    /// The files at or below `top`.
    pub async fn files_below(&self, top: NodeId) -> Result<Vec<NodeId>, EngineError> {
        let inner = self.0.clone();
        let found = self.0.blocking.start(move || {
            let mut found = Vec::new();
            inner.store.inspect(|tx| {
                tx.each_below(&[top], |node| found.extend((node.kind == NodeKind::File).then_some(node.id)))
            })?;
            Ok::<_, StoreError>(found)
        });
        Ok(found.await?)
    }

    /// Fetches what is pinned and not here, until the engine stops.
    pub(super) async fn keep_pinned(self) {
        let mut commits = self.0.store.commits();
        let mut running = JoinSet::new();
        let mut look_at = Instant::now();
        let mut rest = REST;
        loop {
            if Instant::now() >= look_at {
                commits.mark_unchanged();
                let began = Instant::now();
                look_at = self.look_at_pins().await.min(began + AGAIN);
                rest = REST.max(began.elapsed() * SHARE);
                self.0.pins.told.notify_waiters();
            }
            self.start_fetching(&mut running);
            let pinned = self.0.store.has_pins();
            tokio::select! {
                biased;
                () = self.0.stop.cancelled() => return,
                Some(ended) = running.join_next() => {
                    if let Ok((id, key, outcome)) = ended {
                        let again = self.0.fetched(id, key, outcome);
                        look_at = again.map_or(look_at, |at| look_at.min(at));
                    }
                    self.0.pins.told.notify_waiters();
                }
                () = self.0.pins.wake.notified() => look_at = Instant::now(),
                Ok(()) = commits.changed(), if pinned => look_at = look_at.min(Instant::now() + rest),
                () = tokio::time::sleep_until(look_at), if pinned => {}
            }
        }
    }

    /// Finds what is pinned and what of it is missing; returns when to look again.
    async fn look_at_pins(&self) -> Instant {
        let inner = self.0.clone();
        let looked = self.0.blocking.start(move || inner.look_at_pins()).await;
        let (unlisted, until) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                tracing::error!(%error, "what is pinned cannot be read; trying again");
                return Instant::now() + AGAIN;
            }
        };
        for folder in unlisted {
            if !self.0.may_send() {
                break;
            }
            if let Err(error) = self.ensure_listed(folder).await {
                tracing::debug!(%error, "a pinned folder could not be listed yet");
                break;
            }
        }
        until
    }

    fn start_fetching(&self, running: &mut JoinSet<(NodeId, ContentKey, Result<(), ContentError>)>) {
        if !self.0.may_send() {
            return;
        }
        let mut view = self.0.pins.lock();
        while view.running.len() < AT_ONCE {
            let Some(id) = view.queue.pop_front() else { return };
            let Some(key) = view.wanted.get(&id).filter(|want| !want.here).map(|want| want.key.clone())
            else {
                continue;
            };
            let (cache, wanted) = (self.0.cache.clone(), key.clone());
            let task = running.spawn(async move {
                let outcome = cache.file(&wanted).complete_for(Urgency::Keep).await;
                (id, wanted, outcome)
            });
            view.running.insert(id, (key, task));
        }
    }
}

impl Pins {
    fn lock(&self) -> MutexGuard<'_, View> {
        lock(&self.view)
    }

    /// The service answers again.
    pub fn nudge(&self) {
        self.wake.notify_one();
    }
}

impl Inner {
    fn pin(&self, tops: &[NodeId]) -> Result<(), PinError> {
        for &top in tops {
            let node = self.store.node(top)?.ok_or(StoreError::NoNode(top))?;
            if matches!(node.kind, NodeKind::Package | NodeKind::Shortcut) {
                return Err(PinError::NoContent);
            }
        }
        let mut needed = 0;
        self.store.inspect(|tx| {
            let mut all = tx.pins()?;
            all.extend(tops);
            tx.each_below(&all, |node| {
                needed += self.kept_key(&node).map_or(0, |key| self.cache.cost(key.size));
            })
        })?;
        let capacity = self.capacity();
        if needed > capacity {
            return Err(PinError::NoRoom(NoRoom { needed, capacity }));
        }
        self.store.write(Durability::Power, |tx| tops.iter().try_for_each(|&top| tx.pin(top).map(drop)))?;
        Ok(())
    }

    fn unpin(&self, top: NodeId) -> Result<u64, PinError> {
        let mut below = HashSet::new();
        let pins = self.store.inspect(|tx| {
            tx.each_below(&[top], |node| {
                below.insert(node.id);
            })?;
            tx.pins()
        })?;
        let gone: Vec<NodeId> = pins.into_iter().filter(|id| *id == top || below.contains(id)).collect();
        if gone.is_empty()
            && let Some(Pinned::Within(folder)) = self.store.pinned(top)?
        {
            return Err(PinError::Within(folder));
        }
        self.store.write(Durability::Power, |tx| gone.iter().try_for_each(|&id| tx.unpin(id).map(drop)))?;
        if !gone.contains(&top)
            && let Some(Pinned::Within(folder)) = self.store.pinned(top)?
        {
            return Err(PinError::Within(folder));
        }
        Ok(gone.len() as u64)
    }

    fn capacity(&self) -> u64 {
        self.cache.capacity().unwrap_or_else(|error| {
            tracing::warn!(%error, "the cache cannot be measured");
            0
        })
    }

    /// The content that is to be here of a pinned node; none of what is no file, or is staged here.
    pub(super) fn kept_key(&self, node: &Node) -> Option<ContentKey> {
        let staged = node.local.as_ref().is_some_and(|local| local.content.is_some() || local.deleted);
        if node.kind != NodeKind::File || staged {
            return None;
        }
        let view = node.content_view()?;
        Some(super::apply::content_key(view, super::apply::is_rewritten(self.is_business(), &view.name)))
    }

    /// Brings the view up to date. Returns folders that must be listed, and when to look again.
    fn look_at_pins(&self) -> Result<(Vec<NodeId>, Instant), StoreError> {
        let has_pins = self.store.has_pins();
        {
            let mut view = self.pins.lock();
            if !has_pins && !view.had_pins {
                view.looks += 1;
                return Ok((Vec::new(), Instant::now() + AGAIN));
            }
            view.had_pins = has_pins;
        }
        let mut found: Vec<(NodeId, ContentKey, bool)> = Vec::new();
        let mut items: Vec<ItemId> = Vec::new();
        let mut unlisted = Vec::new();
        self.store.inspect(|tx| {
            let tops = tx.pins()?;
            tx.each_below(&tops, |node| {
                if node.kind == NodeKind::Folder && !node.listed && node.remote.is_some() {
                    unlisted.push(node.id);
                }
                if node.kind == NodeKind::File {
                    items.extend(node.content_view().map(|view| view.item.clone()));
                }
                if let Some(key) = self.kept_key(&node) {
                    // What an unsent change lies over may yet be needed.
                    found.push((node.id, key, node.base.is_none()));
                }
            })
        })?;
        self.cache.set_pinned(&items);
        let whole_look = self.pins.lock().is_whole_look_due();
        if whole_look && let Err(error) = self.cache.trim() {
            // What may go is known from here on.
            tracing::warn!(%error, "the cache could not be held to its bounds");
        }
        let mut wanted = HashMap::new();
        for (id, key, alone) in found {
            let known = self.pins.lock().wanted.get(&id).filter(|want| want.key == key).map(|want| want.here);
            let here = match known.filter(|_| !whole_look) {
                Some(here) => here,
                None => self.cache.file(&key).is_complete(),
            };
            if known.is_none() && !here && alone {
                self.cache.forget_others(&key);
            }
            wanted.insert(id, Want { key, here });
        }
        let capacity = self.capacity();
        let count = unlisted.len();
        unlisted.truncate(LISTED_AT_ONCE);
        Ok((unlisted, self.pins.lock().renew(wanted, count, capacity, |size| self.cache.cost(size))))
    }

    /// A fetch has ended; returns when to try again.
    fn fetched(&self, id: NodeId, key: ContentKey, outcome: Result<(), ContentError>) -> Option<Instant> {
        let mut view = self.pins.lock();
        if view.running.get(&id).is_some_and(|(running, _)| *running == key) {
            view.running.remove(&id);
        }
        match outcome {
            Ok(()) => {
                if let Some(want) = view.wanted.get_mut(&id).filter(|want| want.key == key) {
                    want.here = true;
                }
                view.troubles.remove(&id);
                None
            }
            Err(error) => {
                tracing::debug!(node = %id, %error, "a pinned file could not be fetched");
                let until = Instant::now() + keep::again_after(&error);
                view.troubles.insert(id, Trouble { key, why: error.to_string(), until });
                Some(until)
            }
        }
    }

    fn pin_state(&self, among: Option<&[NodeId]>) -> PinState {
        let view = self.pins.lock();
        let mut state = PinState { no_room: view.no_room, ..PinState::default() };
        let mut waits = 0;
        let queued: HashSet<NodeId> = view.queue.iter().copied().collect();
        let mut add = |id: NodeId, want: &Want| {
            state.files += 1;
            state.bytes += want.key.size;
            if want.here {
                return;
            }
            state.missing_files += 1;
            let here = if view.running.contains_key(&id) { self.cache.held(&want.key) } else { 0 };
            state.missing_bytes += want.key.size.saturating_sub(here);
            if view.running.contains_key(&id) {
                state.current = Some(id);
            } else if let Some(trouble) = view.troubles.get(&id) {
                if state.troubles.len() < keep::TOLD {
                    state.troubles.push((id, trouble.why.clone()));
                }
            } else if queued.contains(&id) {
                waits += 1;
            }
        };
        match among {
            None => view.wanted.iter().for_each(|(id, want)| add(*id, want)),
            Some(ids) => {
                ids.iter()
                    .filter_map(|id| Some((id, view.wanted.get(id)?)))
                    .for_each(|(id, want)| add(*id, want));
            }
        }
        state.at_rest = state.current.is_none() && waits == 0 && view.unlisted == 0;
        state.waits = Some(self.state()).filter(|state| matches!(state, State::Offline | State::SignedOut));
        state
    }
}

impl View {
    /// The cache is to be asked of all files: it may not have what it had.
    fn is_whole_look_due(&mut self) -> bool {
        let due = self.whole_look.is_none_or(|at| at.elapsed() >= AGAIN);
        if due {
            self.whole_look = Some(Instant::now());
        }
        due
    }

    /// Takes what was found; returns when something that failed is tried again.
    fn renew(
        &mut self,
        wanted: HashMap<NodeId, Want>,
        unlisted: usize,
        capacity: u64,
        cost: impl Fn(u64) -> u64,
    ) -> Instant {
        self.running.retain(|id, (key, task)| {
            let still = wanted.get(id).is_some_and(|want| want.key == *key);
            if !still {
                task.abort();
            }
            still
        });
        let now = Instant::now();
        self.troubles.retain(|id, trouble| {
            trouble.until > now && wanted.get(id).is_some_and(|want| want.key == trouble.key && !want.here)
        });
        let sorted: BTreeMap<NodeId, &Want> = wanted.iter().map(|(id, want)| (*id, want)).collect();
        let finds = sorted.iter().map(|(id, want)| Find {
            id: *id,
            cost: cost(want.key.size),
            here: want.here,
            busy: self.running.contains_key(id),
            failed: self.troubles.contains_key(id),
        });
        let plan = keep::plan(&finds.collect::<Vec<_>>(), capacity);
        self.queue = plan.fetch.into();
        self.no_room = (plan.needed > capacity).then_some(NoRoom { needed: plan.needed, capacity });
        self.wanted = wanted;
        self.unlisted = unlisted;
        self.looks += 1;
        self.troubles.values().map(|trouble| trouble.until).min().unwrap_or(now + AGAIN)
    }
}
