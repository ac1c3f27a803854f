//! Microsoft Graph operations on drives, typed: the only way to the service.
//!
//! Every call goes through one [`transport::Transport`] and through the rules of `call`: a deadline, a
//! `client-request-id`, the limiter, repeats where they do no harm, the account's token to Graph itself and to
//! nobody else. What comes back is a value of `model` or a [`GraphError`]. All futures may be dropped at any time;
//! what was sent by then may still happen.
//!
//! Knows nothing of the store, of content on disk, or of what a mount is.

mod address;
mod call;
pub mod classify;
mod counters;
pub mod delta;
pub mod download;
pub mod drives;
pub mod error;
mod find;
pub mod gate;
mod headers;
pub mod items;
pub mod limiter;
pub mod listing;
pub mod mutate;
pub mod push;
pub mod retry;
pub mod thumbnails;
pub mod token_endpoint;
pub mod transport;
mod tries;
pub mod upload;
pub mod url;
pub mod versions;
mod wire;

#[cfg(test)]
mod call_tests;
#[cfg(test)]
mod change_tests;
#[cfg(test)]
mod ops_tests;
#[cfg(test)]
mod testing;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::url::Url;

use crate::auth::TokenSource;
use crate::clock::Clock;

pub use address::{BadSelector, DriveAddress, DriveSelector};
pub use counters::Counters;
pub use delta::{DeltaFrom, DeltaLink, DeltaPage, PageLink};
pub use download::{BodyStream, Download};
pub use drives::{FarItem, PushChannel, Site};
pub use error::{GraphError, Ids, Result};
pub use find::{FindError, FoundDrive, FoundItem, usual_type};
pub use limiter::{LimiterConfig, Pool, Priority};
pub use listing::ChildrenPage;
pub use mutate::{CopyMonitor, Deleted, Patch};
pub use push::{Push, PushEvent};
pub use thumbnails::ThumbnailPage;
pub use token_endpoint::TransportTokenEndpoint;
pub use transport::{HttpTransport, Transport};
pub use upload::{
    Commit, FRAGMENT_UNIT, FragmentOutcome, MAX_FRAGMENT, SessionSpec, SessionStatus, SessionUrl,
    UploadSession, UploadTarget, fragment_len,
};
pub use wire::{ConflictBehavior, CopyStatus, Version};

/// The service of one account. Cheap to clone; all clones share limiter and counters.
#[derive(Clone)]
pub struct Graph {
    inner: Arc<Inner>,
}

struct Inner {
    root: self::url::Root,
    config: GraphConfig,
    transport: Arc<dyn Transport>,
    tokens: Arc<dyn TokenSource>,
    clock: Arc<dyn Clock>,
    gate: gate::Gate,
    counters: counters::Counting,
}

/// Settings of a [`Graph`].
#[derive(Clone, Debug)]
pub struct GraphConfig {
    /// The Graph root without `/v1.0`. Plain http only to this machine.
    pub graph_url: Url,
    /// What the program calls itself; the service prefers traffic that says who it is (graph-api 11.2).
    pub user_agent: String,
    /// Numbers of the limiter.
    pub limits: LimiterConfig,
    /// All the time a call for metadata may take, repeats included, while a program waits for it. Background
    /// calls have three times as much, counted from when they leave the queue.
    pub metadata_deadline: Duration,
    /// A transfer in which nothing moves for this long has failed.
    pub data_idle_timeout: Duration,
}

impl Default for GraphConfig {
    fn default() -> Self {
        Self {
            graph_url: Url::parse("https://graph.microsoft.com").expect("a constant address parses"),
            user_agent: concat!("NONISV|onedrivefs|onedrivefs/", env!("CARGO_PKG_VERSION")).into(),
            limits: LimiterConfig::default(),
            metadata_deadline: Duration::from_secs(20),
            data_idle_timeout: Duration::from_secs(30),
        }
    }
}

impl Graph {
    /// A client of the service at `config.graph_url`.
    ///
    /// `InsecureUrl` for plain http to another machine; `Configuration` for an address that cannot be a root.
    pub fn new(
        config: GraphConfig,
        transport: Arc<dyn Transport>,
        tokens: Arc<dyn TokenSource>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let root = self::url::Root::new(&config.graph_url)?;
        let gate = gate::Gate::new(config.limits, Arc::clone(&clock));
        let counters = counters::Counting::default();
        Ok(Self { inner: Arc::new(Inner { root, config, transport, tokens, clock, gate, counters }) })
    }

    /// What was sent and received so far.
    pub fn counters(&self) -> Counters {
        self.inner.counters.snapshot()
    }

    /// How long the service still wants silence, if it does.
    pub fn silence(&self) -> Option<Duration> {
        self.inner.gate.silence(self.now())
    }

    /// Requests of `pool` that may run at once as things stand.
    pub fn concurrency(&self, pool: Pool) -> u32 {
        self.inner.gate.concurrency(pool)
    }

    /// Checks a link that the service gave: it must lead to the same service.
    fn page_link(&self, text: &str) -> Result<PageLink> {
        let link = PageLink::new(text);
        self.link_url(&link)?;
        Ok(link)
    }

    fn link_url(&self, link: &PageLink) -> Result<Url> {
        let url = Url::parse(link.expose()).map_err(|_| GraphError::Protocol {
            what: "a link that is no address",
            executed: false,
            ids: Ids::default(),
        })?;
        self.inner.root.require_same_service(&url)?;
        Ok(url)
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Graph({:?})", self.inner.root)
    }
}
