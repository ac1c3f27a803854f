//! Ranges of a content version from the service: the seam that `content` reads through.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use lru::LruCache;
use tokio::time::Instant;

use crate::content::{ContentKey, Fetch, FetchError, FetchErrorKind, Fetched, Urgency};
use crate::graph::{Graph, GraphError, Priority};
use crate::model::remote::DownloadUrl;
use crate::model::{ByteRange, Comparison, DriveId, ItemId, RemoteItem};

/// How long a download address is trusted (graph-api 6.1: minutes to an hour).
const URL_LIFE: Duration = Duration::from_secs(300);
/// How long a transfer may take to begin while the service is known to be out of reach: enough to notice that
/// it is back, too short to be felt as a hang.
pub(super) const OFFLINE_PATIENCE: Duration = Duration::from_millis(800);
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
}

/// Asks what an item that is missing by its id is called now; none if it is gone.
pub(super) type Finder = Box<dyn Fn(ItemId) -> BoxFuture<'static, Option<RemoteItem>> + Send + Sync>;

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
        })
    }

    /// Whom to ask about items that are missing by their ids.
    pub(super) fn set_finder(&self, finder: Finder) {
        if self.finder.set(finder).is_err() {
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
        if let Some(url) = &item.download_url {
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
            None => self.look(&key, priority).await?,
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
        if !proven {
            // The answer does not say which version it is (or names a tag that may have moved by itself): it
            // began while the item still had ours, if the item has ours now.
            self.look(&key, priority).await?;
        }
        let body = download.body.map(|chunk| chunk.map_err(fetch_error)).boxed();
        let total = download.total.unwrap_or(key.size);
        Ok(Fetched { range: download.range, total, etag: download.etag, body })
    }
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
