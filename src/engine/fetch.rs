//! Ranges of a content version from the service: the seam that `content` reads through.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt};
use lru::LruCache;
use tokio::time::Instant;

use super::neighbours::{Ask, Neighbours};
use crate::content::{ContentKey, Fetch, FetchError, FetchErrorKind, Fetched, Urgency};
use crate::graph::{Graph, GraphError, Priority};
use crate::model::remote::DownloadUrl;
use crate::model::{ByteRange, Comparison, DriveId, ItemId, RemoteItem};

/// How long a download address is trusted (graph-api 6.1: minutes to an hour).
const URL_LIFE: Duration = Duration::from_secs(300);
/// How long a transfer may take to begin while the service is known to be out of reach: enough to notice that
/// it is back, too short to be felt as a hang.
pub(super) const OFFLINE_PATIENCE: Duration = Duration::from_millis(800);
/// Pages of a folder that are asked for the addresses on them: somebody waits for all of these.
const LISTED_PAGES: usize = 3;
const URLS: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
const RENAMED: NonZeroUsize = NonZeroUsize::new(1_000).expect("not zero");

/// Fetches content of one drive.
pub struct GraphFetch {
    graph: Graph,
    drive: DriveId,
    urls: Mutex<LruCache<ItemId, (DownloadUrl, Instant)>>,
    offline: AtomicBool,
    finder: OnceLock<Finder>,
    /// Ids that items have now, by those that transfers under way know them by.
    renamed: Mutex<LruCache<ItemId, ItemId>>,
    parents: OnceLock<Parents>,
    lengths: OnceLock<Lengths>,
    neighbours: Neighbours,
    /// An answer of the data host said which version it is.
    is_told_versions: AtomicBool,
}

/// Says which folder an item is in, if that is known here.
pub(super) type Parents = Box<dyn Fn(&ItemId) -> Option<ItemId> + Send + Sync>;

/// Asks what an item that is missing by its id is called now; none if it is gone.
pub(super) type Finder = Box<dyn Fn(ItemId) -> BoxFuture<'static, Option<RemoteItem>> + Send + Sync>;

/// Takes in how many bytes the content really has, where the service says otherwise.
pub(super) type Lengths = Box<dyn Fn(ContentKey, u64) -> BoxFuture<'static, ()> + Send + Sync>;

impl GraphFetch {
    /// A fetcher for the drive's content.
    pub fn new(graph: Graph, drive: DriveId) -> Arc<Self> {
        Arc::new(Self {
            graph,
            drive,
            urls: Mutex::new(LruCache::new(URLS)),
            offline: AtomicBool::new(false),
            finder: OnceLock::new(),
            renamed: Mutex::new(LruCache::new(RENAMED)),
            parents: OnceLock::new(),
            lengths: OnceLock::new(),
            neighbours: Neighbours::default(),
            is_told_versions: AtomicBool::new(false),
        })
    }

    /// Whom to ask about items that are missing by their ids, and whom to tell about lengths.
    pub(super) fn attend(&self, finder: Finder, parents: Parents, lengths: Lengths) {
        let taken = self.finder.set(finder).is_ok()
            && self.parents.set(parents).is_ok()
            && self.lengths.set(lengths).is_ok();
        if !taken {
            tracing::debug!("the engine was started again");
        }
    }

    /// The item; where its id has changed form, under its new one.
    async fn item(&self, item: &ItemId, priority: Priority) -> Result<RemoteItem, FetchError> {
        let known = self.renamed().get(item).cloned();
        match self.graph.item(&self.drive, known.as_ref().unwrap_or(item), priority).await {
            Err(error @ GraphError::NotFound { .. }) => {
                let Some(finder) = self.finder.get() else { return Err(fetch_error(error)) };
                let found = finder(item.clone()).await.filter(|found| !found.deleted);
                let found = found.ok_or_else(|| fetch_error(error))?;
                self.renamed().put(item.clone(), found.id.clone());
                Ok(found)
            }
            other => other.map_err(fetch_error),
        }
    }

    fn renamed(&self) -> std::sync::MutexGuard<'_, LruCache<ItemId, ItemId>> {
        self.renamed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether the service is known to be out of reach.
    pub(super) fn set_offline(&self, offline: bool) {
        self.offline.store(offline, Ordering::Release);
    }

    /// Remembers the address that came with a description of the item.
    pub fn remember(&self, item: &RemoteItem) {
        if let Some(url) = item.download_url.as_ref().filter(|_| !item.malware) {
            self.urls().put(item.id.clone(), (url.clone(), Instant::now()));
        }
    }

    fn urls(&self) -> std::sync::MutexGuard<'_, LruCache<ItemId, (DownloadUrl, Instant)>> {
        self.urls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_url(&self, item: &ItemId) -> Option<DownloadUrl> {
        let mut urls = self.urls();
        let (url, since) = urls.get(item)?;
        let fresh = since.elapsed() < URL_LIFE;
        let url = url.clone();
        if !fresh {
            urls.pop(item);
        }
        fresh.then_some(url)
    }

    /// The address as a listing of the folder has it, where others in there were asked for lately too.
    async fn look_around(&self, key: &ContentKey, priority: Priority) -> Option<DownloadUrl> {
        let folder = self.parents.get()?(&key.item)?;
        match self.neighbours.ask(&folder, self.is_told_versions.load(Ordering::Relaxed)) {
            Ask::Item(turn) => drop(turn.lock().await),
            Ask::List(_turn) => {
                let mut next = None;
                for _ in 0..LISTED_PAGES {
                    let page =
                        self.graph.children(&self.drive, &folder, next.as_ref(), priority).await.ok()?;
                    page.items.iter().for_each(|item| self.remember(item));
                    next = page.next;
                    if next.is_none() {
                        break;
                    }
                }
            }
        }
        self.known_url(&key.item)
    }

    /// Reads the item; proves that it still has the content of `key`; returns a fresh address.
    async fn look(&self, key: &ContentKey, priority: Priority) -> Result<DownloadUrl, FetchError> {
        let item = self.item(&key.item, priority).await?;
        if item.malware {
            return Err(FetchErrorKind::Malware.into());
        }
        match key.version.compare(&item.version()) {
            Comparison::Same | Comparison::ProbablySame => {}
            Comparison::Different | Comparison::Unknown => return Err(FetchErrorKind::VersionGone.into()),
        }
        self.remember(&item);
        item.download_url.ok_or_else(|| FetchErrorKind::Protocol.into())
    }

    async fn fetch_range(
        self: Arc<Self>,
        key: ContentKey,
        range: ByteRange,
        priority: Priority,
    ) -> Result<Fetched, FetchError> {
        if !self.offline.load(Ordering::Acquire) {
            return self.begin(key, range, priority).await;
        }
        let begun = tokio::time::timeout(OFFLINE_PATIENCE, self.begin(key, range, priority)).await;
        begun.unwrap_or_else(|_| Err(FetchErrorKind::Offline.into()))
    }

    async fn begin(
        &self,
        key: ContentKey,
        range: ByteRange,
        priority: Priority,
    ) -> Result<Fetched, FetchError> {
        let mut url = match self.known_url(&key.item) {
            Some(url) => url,
            None => match self.look_around(&key, priority).await {
                Some(url) => url,
                None => self.look(&key, priority).await?,
            },
        };
        let mut fresh_tries = 0;
        let download = loop {
            match self.graph.download(&url, Some(range), priority).await {
                Ok(download) => break download,
                Err(GraphError::UrlExpired { .. }) if fresh_tries < 2 => {
                    fresh_tries += 1;
                    self.urls().pop(&key.item);
                    url = self.look(&key, priority).await?;
                }
                Err(GraphError::RangeNotSatisfiable { .. }) => {
                    self.urls().pop(&key.item);
                    self.look(&key, priority).await?;
                    return Err(FetchErrorKind::Protocol.into());
                }
                Err(error) => return Err(fetch_error(error)),
            }
        };
        let proven = download.etag.is_some() && download.etag == key.version.etag;
        self.is_told_versions.store(download.etag.is_some(), Ordering::Relaxed);
        if !proven {
            // The answer does not say which version it is (or names a tag that may have moved by itself): it
            // began while the item still had ours, if the item has ours now.
            self.look(&key, priority).await?;
        }
        let total = download.total.unwrap_or(key.size);
        if total != key.size
            && let Some(tell) = self.lengths.get()
        {
            // It has this version, and so this is its length.
            self.look(&key, priority).await?;
            tell(key, total).await;
            return Err(FetchErrorKind::OtherSize { total }.into());
        }
        let given = download.range;
        // A host may give all of the content for any range (graph-api 6.2).
        let skip = range.start.checked_sub(given.start).ok_or(FetchErrorKind::Protocol)?;
        let body = skipping(download.body.map(|chunk| chunk.map_err(fetch_error)), skip).boxed();
        let range = ByteRange::new(range.start, given.end);
        Ok(Fetched { range, total, etag: download.etag, body })
    }
}

/// A body without its first bytes; an empty part where nothing is left of one, since that too is progress.
fn skipping(
    body: impl Stream<Item = Result<Bytes, FetchError>> + Send + 'static,
    mut skip: u64,
) -> impl Stream<Item = Result<Bytes, FetchError>> + Send + 'static {
    body.map(move |chunk| {
        let mut bytes = chunk?;
        let first = bytes.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
        skip -= first as u64;
        Ok(bytes.split_off(first))
    })
}

/// The shared form of [`GraphFetch`], as the content layer holds it.
pub struct SharedFetch(pub Arc<GraphFetch>);

impl Fetch for SharedFetch {
    fn fetch(
        &self,
        key: &ContentKey,
        range: ByteRange,
        urgency: Urgency,
    ) -> BoxFuture<'static, Result<Fetched, FetchError>> {
        let priority = match urgency {
            Urgency::Reader => Priority::Interactive,
            Urgency::ReadAhead => Priority::Prefetch,
            Urgency::Keep => Priority::Enumeration,
        };
        self.0.clone().fetch_range(key.clone(), range, priority).boxed()
    }

    fn confirm(&self, key: &ContentKey) -> BoxFuture<'static, Result<(), FetchError>> {
        let (fetch, key) = (self.0.clone(), key.clone());
        async move { fetch.look(&key, Priority::Interactive).await.map(|_| ()) }.boxed()
    }
}

fn fetch_error(error: GraphError) -> FetchError {
    let kind = match &error {
        GraphError::NotFound { .. } => FetchErrorKind::NotFound,
        GraphError::AccessDenied { .. } | GraphError::Locked { .. } => FetchErrorKind::Denied,
        GraphError::Malware { .. } => FetchErrorKind::Malware,
        GraphError::Offline { .. } => FetchErrorKind::Offline,
        GraphError::Deadline { .. } | GraphError::Throttled { .. } => FetchErrorKind::Deadline,
        GraphError::SignedOut { .. } => FetchErrorKind::SignedOut,
        _ => FetchErrorKind::Protocol,
    };
    FetchError::with_source(kind, error)
}
