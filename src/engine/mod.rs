//! Makes local and remote agree: observes what the service has, plans what is to be sent, sends it, and
//! records what came of it.
//!
//! Invariants:
//! - Decisions are the planner's and the conflict table's, which are pure; everything here carries out.
//! - An attempt is recorded before its request is sent, and removed in the transaction that records its
//!   result; a crash anywhere leaves a store from which the planner goes on.
//! - No lock and no transaction is held over an await.
//!
//! It knows nothing of the kernel: what becomes visible is told to a [`ChangeSink`].

mod access;
mod apply;
mod base;
mod between;
mod circle;
mod compare;
mod confirm;
mod conflict;
mod copies;
mod doubts;
mod drain;
mod entries;
mod error;
mod execute;
mod fetch;
mod follow;
mod fragments;
mod guard;
mod held;
mod here;
mod identity;
mod keep;
mod labels;
mod lengths;
mod listing;
mod missing;
mod mutant;
mod neighbours;
mod observe;
mod op;
mod open;
mod pins;
pub mod planner;
mod power;
mod precondition;
mod progress;
mod record;
mod recover;
mod rekey;
mod room;
mod run;
mod seal;
mod session;
mod settle;
mod status;
mod upload;
mod waiting;
mod walk;
mod world;

#[cfg(test)]
mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use futures_util::FutureExt;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::content::{
    Base, BaseKind, Blocking, Cache, ContentKey, Staging, StagingError, StagingFile, StagingId,
};
use crate::graph::{DeltaFrom, DeltaPage, Graph, GraphError, Priority};
use crate::model::{ContentVersion, Drive, DriveType, ETag, ItemId, NodeId, Quota, RemoteItem, Timestamp};
use crate::store::{Change, Node, Store};

pub use copies::{ConflictCopy, CopyState, Keep, SettleError};
pub use drain::LeftBelow;
pub use error::EngineError;
pub use fetch::{GraphFetch, SharedFetch};
pub use here::{Freed, Held, HeldFile};
pub use keep::Refusal;
pub use mutant::Mutant;
pub use observe::DEFAULT_POLL;
pub use open::{Access, OpenNodes};
pub use pins::{NoRoom, PinError, PinState};
pub use progress::{Estimate, Reading};
pub use status::{EngineStatus, State, UploadProgress, Waiting};
pub use upload::UploadSizes;

/// Told of every visible change that did not come from the caller itself.
pub trait ChangeSink: Send + Sync {
    /// The names and nodes that mean something else now. Must not block.
    fn changed(&self, changes: &[Change]);
}

/// Tells nobody.
#[derive(Debug, Default)]
pub struct NoSink;

impl ChangeSink for NoSink {
    fn changed(&self, _changes: &[Change]) {}
}

/// Settings of the engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// How long a change rests before it is sent.
    pub settle: Duration,
    /// How often changes are asked for while no channel wakes us.
    pub poll: Duration,
    /// Changes are learned of through the push channel where the service has one.
    pub push: bool,
    /// How long a caller of `settled` waits while nothing of its change moves.
    pub sync_timeout: Duration,
    /// Requests that change names, in flight at once.
    pub parallel_changes: usize,
    /// Uploads at once.
    pub parallel_uploads: usize,
    /// This machine's name, for conflict copies.
    pub host: String,
    /// Seconds east of UTC, for conflict copies.
    pub utc_offset: i32,
    /// Nothing is ever sent.
    pub read_only: bool,
    /// Deletes from before the drive was read again that wait for no confirmation: at most so many.
    pub confirm_above: u64,
    /// Only what is in this folder of the drive: it is the root then. The drive itself may be out of reach.
    pub top: Option<ItemId>,
    /// How content is cut into requests.
    pub sizes: UploadSizes,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            settle: Duration::from_secs(2),
            poll: DEFAULT_POLL,
            push: true,
            sync_timeout: Duration::from_secs(60),
            parallel_changes: 6,
            parallel_uploads: 4,
            host: "localhost".into(),
            utc_offset: 0,
            read_only: false,
            confirm_above: 1000,
            top: None,
            sizes: UploadSizes::default(),
        }
    }
}

/// What an engine is made of.
pub struct Parts {
    /// The drive's store.
    pub store: Arc<Store>,
    /// Clean content.
    pub cache: Cache,
    /// Unsent content.
    pub staging: Staging,
    /// The service.
    pub graph: Graph,
    /// The fetcher that the cache reads through.
    pub fetch: Arc<GraphFetch>,
    /// Time and randomness.
    pub clock: Arc<dyn Clock>,
    /// The drive.
    pub drive: Drive,
    /// Who is told of visible changes.
    pub sink: Arc<dyn ChangeSink>,
    /// Where work that waits for the disk runs.
    pub blocking: Blocking,
    /// Settings.
    pub config: EngineConfig,
}

/// One drive's engine; clones share it.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    store: Arc<Store>,
    cache: Cache,
    staging: Staging,
    graph: Graph,
    fetch: Arc<GraphFetch>,
    clock: Arc<dyn Clock>,
    drive: Drive,
    sink: Arc<dyn ChangeSink>,
    blocking: Blocking,
    config: EngineConfig,
    open: OpenNodes,
    stop: CancellationToken,
    wake: Notify,
    look: Notify,
    /// The push channel told of a change.
    told: Notify,
    freshness: follow::Freshness,
    walks: walk::Walks,
    pace: progress::Pace,
    pins: pins::Pins,
    /// Notified when the set of unsent changes may have shrunk.
    progress: Notify,
    hurry: AtomicU32,
    looked: AtomicU64,
    looks: AtomicU64,
    /// The whole drive was read once, now or in an earlier run.
    enumerated: AtomicBool,
    changes: Arc<Semaphore>,
    upload_slots: Arc<Semaphore>,
    seal_slots: Arc<Semaphore>,
    listings: DashMap<NodeId, Arc<tokio::sync::Mutex<()>>>,
    /// Items that were missing by their ids of late.
    absences: Mutex<identity::Absences>,
    /// Nothing is deleted or made again before the whole drive was read.
    rematching: AtomicBool,
    /// Nodes whose operation is running. Planner and tasks only; held for moments.
    in_flight: Mutex<BTreeSet<NodeId>>,
    uploads: Mutex<BTreeMap<NodeId, (u64, u64)>>,
    /// Mebibytes of fragments that may be in memory at once.
    fragment_memory: Arc<Semaphore>,
    /// The service does not end sessions on request: they end with their last fragment.
    ends_sessions_itself: AtomicBool,
    /// Superseded sessions are being cancelled.
    cancelling: AtomicBool,
    /// What uploads of files that are open were answered, by staged content.
    sent: Mutex<BTreeMap<u64, (NodeId, ContentVersion)>>,
    held: held::HeldFiles,
    /// Why the last try of an unsent change failed.
    failures: Mutex<BTreeMap<NodeId, GraphError>>,
    /// Tags that the service refused, and how often in a row; of nodes with unsent changes.
    refusals: Mutex<BTreeMap<NodeId, (ETag, u32)>>,
    link: Mutex<Link>,
    /// What staged contents are called, as far as it is noted beside them.
    labels: Mutex<labels::Labels>,
    /// Something may be parked for want of room in the drive.
    short_of_room: AtomicBool,
    /// The drive's space is about to be read for that.
    counting_room: AtomicBool,
    quota_at: AtomicI64,
    quota: Mutex<Option<Quota>>,
}

/// How the service last answered.
#[derive(Clone, Debug)]
struct Link {
    state: State,
    trouble: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Puts an engine together; nothing runs before [`Engine::start`].
    pub fn new(parts: Parts) -> Self {
        let Parts { store, cache, staging, graph, fetch, clock, drive, sink, blocking, config } = parts;
        if store.has_pins() {
            cache.await_pins();
        }
        let quota = Mutex::new(drive.quota);
        Self(Arc::new(Inner {
            changes: Arc::new(Semaphore::new(config.parallel_changes)),
            upload_slots: Arc::new(Semaphore::new(config.parallel_uploads)),
            seal_slots: Arc::new(Semaphore::new(config.parallel_uploads)),
            store,
            cache,
            staging,
            graph,
            fetch,
            clock,
            drive,
            sink,
            blocking,
            config,
            open: OpenNodes::default(),
            stop: CancellationToken::new(),
            wake: Notify::new(),
            look: Notify::new(),
            told: Notify::new(),
            freshness: follow::Freshness::default(),
            walks: walk::Walks::default(),
            pace: progress::Pace::default(),
            pins: pins::Pins::default(),
            progress: Notify::new(),
            hurry: AtomicU32::new(0),
            looked: AtomicU64::new(0),
            looks: AtomicU64::new(0),
            enumerated: AtomicBool::new(false),
            fragment_memory: Arc::new(Semaphore::new(session::FRAGMENT_MEMORY)),
            ends_sessions_itself: AtomicBool::new(false),
            cancelling: AtomicBool::new(false),
            listings: DashMap::new(),
            absences: Mutex::default(),
            rematching: AtomicBool::new(false),
            in_flight: Mutex::default(),
            uploads: Mutex::default(),
            sent: Mutex::default(),
            held: held::HeldFiles::default(),
            failures: Mutex::default(),
            refusals: Mutex::default(),
            link: Mutex::new(Link { state: State::Starting, trouble: None }),
            labels: Mutex::default(),
            short_of_room: AtomicBool::new(true),
            counting_room: AtomicBool::new(false),
            quota_at: AtomicI64::new(0),
            quota,
        }))
    }

    /// Starts observing and sending on the current runtime.
    pub fn start(&self) {
        let engine = Arc::downgrade(&self.0);
        let finder = Box::new(move |item| {
            let engine = engine.upgrade().map(Engine);
            async move { engine?.missing(&item, missing::For::Reader).await }.boxed()
        });
        let store = Arc::downgrade(&self.0.store);
        let parents = Box::new(move |item: &ItemId| {
            let store = store.upgrade()?;
            let folder = store.by_item(item).ok()??.remote.as_ref()?.parent?;
            Some(store.node(folder).ok()??.remote.as_ref()?.item.clone())
        });
        let engine = Arc::downgrade(&self.0);
        let lengths = Box::new(move |key, total| {
            let engine = engine.upgrade().map(Engine);
            async move {
                if let Some(engine) = engine {
                    engine.has_length(key, total).await;
                }
            }
            .boxed()
        });
        self.0.fetch.attend(finder, parents, lengths);
        tokio::spawn(self.clone().observe_changes());
        tokio::spawn(self.clone().keep_pinned());
        // The channel tells of whole drives, to those who may see them.
        if self.0.config.push && self.0.config.top.is_none() {
            tokio::spawn(self.clone().gather_told());
            tokio::spawn(self.clone().follow_push());
        }
        if !self.0.config.read_only {
            tokio::spawn(self.clone().send_changes());
        }
    }

    /// Ends observing and sending; what is in flight is left to be verified by the next run.
    pub fn stop(&self) {
        self.0.stop.cancel();
        self.0.staging.end();
        self.0.progress.notify_waiters();
    }

    /// The drive's store.
    pub fn store(&self) -> &Arc<Store> {
        &self.0.store
    }

    /// Clean content.
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// Unsent content.
    pub fn staging(&self) -> &Staging {
        &self.0.staging
    }

    /// Time and randomness.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    /// The service.
    pub fn graph(&self) -> &Graph {
        &self.0.graph
    }

    /// The drive.
    pub fn drive(&self) -> &Drive {
        &self.0.drive
    }

    /// The folder whose node is the root; none: the drive's own root.
    pub fn top(&self) -> Option<&ItemId> {
        self.0.config.top.as_ref()
    }

    /// Which service the drive lives on.
    pub fn drive_type(&self) -> DriveType {
        self.0.drive.drive_type
    }

    /// A program opened the node.
    pub fn opened(&self, node: NodeId, access: Access) {
        self.0.open.opened(node, access);
        self.0.walks.opened(node);
    }

    /// The nodes that programs hold open.
    pub fn open_nodes(&self) -> &OpenNodes {
        &self.0.open
    }

    /// Space as last told; never asks.
    pub fn quota(&self) -> Option<Quota> {
        *lock(&self.0.quota)
    }

    /// Something became dirty, was closed, or may go on.
    pub fn nudge(&self) {
        self.0.wake.notify_one();
    }

    /// Tells the kernel of changes that its own requests do not show it.
    pub fn tell(&self, changes: &[Change]) {
        self.0.sink.changed(changes);
    }

    /// Asks for the drive's changes now.
    pub fn refresh(&self) {
        self.0.walks.ask();
        self.0.look.notify_one();
    }

    /// How many looks at the whole drive have ended since the start.
    pub fn looks(&self) -> u64 {
        self.0.looks.load(Ordering::Acquire)
    }

    /// The service cannot be reached.
    pub fn is_offline(&self) -> bool {
        self.0.state() == State::Offline
    }

    /// The service was out of reach for others a moment ago: nobody waits long here either, until it answers.
    pub fn presume_offline(&self) {
        self.0.disconnected("it cannot be reached for another drive");
    }

    /// Somebody must sign in.
    pub fn is_signed_out(&self) -> bool {
        self.0.state() == State::SignedOut
    }

    /// The key of the content that a node without staged content has.
    pub fn content_key(&self, node: &Node) -> Option<ContentKey> {
        let view = node.content_view()?;
        Some(apply::content_key(view, apply::is_rewritten(self.0.is_business(), &view.name)))
    }

    /// The staged file, with the base its overlay was made from attached where it needs one.
    pub async fn staged_file(&self, node: &Node, id: StagingId) -> Result<Arc<StagingFile>, StagingError> {
        let inner = self.0.clone();
        let base = node.base.as_ref().or(node.remote.as_ref());
        let key =
            base.map(|view| apply::content_key(view, apply::is_rewritten(self.0.is_business(), &view.name)));
        self.0.blocking.start(move || inner.open_staged(id, key)).await
    }

    /// What the upload of this staged content was answered, while its file is open.
    pub fn sent_as(&self, content: u64) -> Option<ContentVersion> {
        lock(&self.0.sent).get(&content).map(|(_, version)| version.clone())
    }

    /// The last handle of a node was closed.
    pub fn released(&self, node: NodeId) {
        lock(&self.0.sent).retain(|_, (of, _)| *of != node);
        self.0.wake.notify_one();
    }
}

/// The key of the content that a staged overlay of the node lies over; `business`: on a business drive or in a library.
pub fn content_key_of(node: &Node, business: bool) -> Option<ContentKey> {
    let view = node.base.as_ref().or(node.remote.as_ref())?;
    Some(apply::content_key(view, apply::is_rewritten(business, &view.name)))
}

impl Inner {
    /// Loads staged content and puts below it what it lies over; `key`: the version its change started from.
    fn open_staged(&self, id: StagingId, key: Option<ContentKey>) -> Result<Arc<StagingFile>, StagingError> {
        let loaded = self.staging.load(id)?;
        match (loaded.base, key) {
            (Some(BaseKind::Remote), Some(key)) => loaded.file.attach(Base::Remote(self.cache.file(&key))),
            (Some(BaseKind::Sealed(base)), _) => {
                loaded.file.attach(Base::Sealed(self.staging.load(base)?.file))
            }
            (Some(BaseKind::Remote), None) | (None, _) => {}
        }
        Ok(loaded.file)
    }

    fn in_flight(&self) -> BTreeSet<NodeId> {
        lock(&self.in_flight).clone()
    }

    fn uploads(&self) -> MutexGuard<'_, BTreeMap<NodeId, (u64, u64)>> {
        lock(&self.uploads)
    }

    fn is_business(&self) -> bool {
        self.drive.drive_type != DriveType::Personal
    }

    fn is_hurried(&self) -> bool {
        self.hurry.load(Ordering::Acquire) > 0
    }

    /// The newest look at the whole drive; none before the first enumeration ended, and where each costs a walk.
    fn looked(&self) -> Option<u64> {
        let is_cheap = self.enumerated.load(Ordering::Acquire) && !self.walks.is_on();
        is_cheap.then(|| self.looked.load(Ordering::Acquire))
    }

    fn set_looked(&self, sent_seq: u64) {
        self.looked.fetch_max(sent_seq, Ordering::AcqRel);
        self.looks.fetch_add(1, Ordering::AcqRel);
    }

    /// The item whose node is the root.
    async fn root_item(&self, priority: Priority) -> Result<RemoteItem, GraphError> {
        let found = match &self.config.top {
            None => self.graph.root(&self.drive.id, priority).await?,
            Some(top) => self.graph.item(&self.drive.id, top, priority).await?,
        };
        Ok(RemoteItem { root: true, parent: None, ..found })
    }

    /// One page of the changes of what is shown here.
    async fn delta(&self, from: &DeltaFrom, priority: Priority) -> Result<DeltaPage, GraphError> {
        match &self.config.top {
            None => self.graph.delta(&self.drive.id, from, priority).await,
            Some(top) => self.graph.delta_below(&self.drive.id, top, from, priority).await,
        }
    }

    fn state(&self) -> State {
        lock(&self.link).state
    }

    fn may_send(&self) -> bool {
        !matches!(self.state(), State::Offline | State::SignedOut)
    }

    /// The service answered.
    fn connected(&self) {
        self.fetch.set_offline(false);
        let mut link = lock(&self.link);
        let next = if self.enumerated.load(Ordering::Acquire) { State::Online } else { State::Enumerating };
        if link.state != next && link.state != State::Draining {
            tracing::info!(from = ?link.state, to = ?next, "the service answers");
            *link = Link { state: next, trouble: None };
            self.wake.notify_one();
            self.pins.nudge();
        }
    }

    fn disconnected(&self, why: &str) {
        self.fetch.set_offline(true);
        self.trouble(State::Offline, why);
    }

    fn signed_out(&self, why: &str) {
        self.trouble(State::SignedOut, why);
    }

    fn trouble(&self, state: State, why: &str) {
        let mut link = lock(&self.link);
        if link.state != state {
            tracing::warn!(?state, why, "the service cannot be used; changes queue");
            *link = Link { state, trouble: Some(why.to_owned()) };
            self.look.notify_one();
        }
    }

    fn after(&self, wait: Duration) -> Timestamp {
        let now = Timestamp::from(self.clock.wall());
        Timestamp(i64::try_from(wait.as_nanos()).map_or(i64::MAX, |nanos| now.0.saturating_add(nanos)))
    }

    fn until(&self, at: Timestamp) -> Duration {
        let now = Timestamp::from(self.clock.wall());
        Duration::from_nanos(u64::try_from(at.0.saturating_sub(now.0)).unwrap_or(0))
            + Duration::from_millis(1)
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    fn listing_gate(&self, folder: NodeId) -> Arc<tokio::sync::Mutex<()>> {
        self.listings.entry(folder).or_default().clone()
    }

    fn drop_listing_gate(&self, folder: NodeId) {
        self.listings.remove(&folder);
    }

    /// Effects of what was recorded on the content cache.
    fn carry_out(&self, effects: apply::Effects) {
        for (from, to) in effects.rekeyed {
            if let Err(error) = self.cache.rekey(&from.item, from.size, &from.version, &to.version) {
                tracing::info!(%error, "cached blocks could not follow their item's tags; they are read again");
            }
        }
        for (from, to) in effects.renamed {
            if let Err(error) = self.cache.rename(&from, &to) {
                tracing::info!(%error, "cached blocks could not follow their item's id; they are read again");
            }
        }
        for item in effects.forgotten {
            self.cache.forget(&item);
        }
        for item in effects.doubted {
            tracing::debug!(%item, "a report is still in doubt");
        }
    }

    /// Reads the drive's space again if the last reading is older than a minute.
    async fn refresh_quota(&self) {
        let now = Timestamp::from(self.clock.wall());
        if now.0.saturating_sub(self.quota_at.load(Ordering::Acquire)).abs() < 60_000_000_000 {
            return;
        }
        self.quota_at.store(now.0, Ordering::Release);
        if let Ok(drive) = self.graph.drive(&self.drive.id).await {
            *lock(&self.quota) = drive.quota;
        }
    }
}
