//! Changes of a drive since a point in time (graph-api 9).

use std::fmt;

use http::Method;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::call::Call;
use super::error::{GraphError, Result};
use super::limiter::Priority;
use super::listing::{PAGE_SIZE, PREFER, SHORTCUTS};
use super::{Graph, url, wire};
use crate::model::{DriveId, ItemId, RemoteItem};

/// Items the account lost access to are reported as deleted (graph-api 9.4).
const SHOW_REMOVED: &str = "deltashowremovedasdeleted";

/// A place in a listing or a list of changes: the service's own address, used word for word.
///
/// Opaque, worth storing, and hidden in `Debug` as it holds tokens.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PageLink(String);

impl PageLink {
    /// Takes the address as the service gave it.
    pub fn new(raw: impl Into<String>) -> Self {
        Self(raw.into())
    }

    /// The address, for requests and for the store only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PageLink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PageLink(hidden)")
    }
}

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeltaFrom {
    /// With everything there is.
    Start,
    /// With nothing: only the link for changes from now on.
    Latest,
    /// Where an earlier page ended.
    Link(PageLink),
}

/// What follows a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeltaLink {
    /// More of this round.
    Next(PageLink),
    /// The round is complete; later changes are here.
    Done(PageLink),
}

/// A part of a round.
#[derive(Clone, Debug)]
pub struct DeltaPage {
    /// Latest states, not a log. An item may come several times, within and across pages: the last one counts.
    /// Ancestors of what changed are listed too.
    pub items: Vec<RemoteItem>,
    /// What follows.
    pub link: DeltaLink,
}

impl Graph {
    /// One page of the changes of `drive`.
    ///
    /// `Resync` when the link is no longer good (410, and 400 or 404 on a link): enumerate from its `location` or
    /// from [`DeltaFrom::Start`]. `Unsupported` where the cloud has no delta: list folders instead.
    pub async fn delta(&self, drive: &DriveId, from: &DeltaFrom, priority: Priority) -> Result<DeltaPage> {
        self.delta_at(format!("{}/root/delta", url::drive(drive)?), from, priority).await
    }

    /// As [`Graph::delta`], of what is in `folder` only. Many services offer that for the root alone (`Unsupported`,
    /// graph-api 9.3).
    pub async fn delta_below(
        &self,
        drive: &DriveId,
        folder: &ItemId,
        from: &DeltaFrom,
        priority: Priority,
    ) -> Result<DeltaPage> {
        let answer = self.delta_at(format!("{}/delta", url::item(drive, folder)?), from, priority).await;
        answer.map_err(|error| match error {
            // Business was seen to say it so (graph-api 15.12).
            GraphError::Invalid { ids } => GraphError::Unsupported { ids },
            other => other,
        })
    }

    async fn delta_at(&self, path: String, from: &DeltaFrom, priority: Priority) -> Result<DeltaPage> {
        let options = format!("$top={PAGE_SIZE}&$select={}", wire::SELECT_DELTA);
        let (url, cost) = match from {
            DeltaFrom::Start => (self.inner.root.at(&format!("{path}?{options}"))?, 2),
            DeltaFrom::Latest => (self.inner.root.at(&format!("{path}?token=latest&{options}"))?, 2),
            DeltaFrom::Link(link) => (self.link_url(link)?, 1),
        };
        let prefer = format!("{SHOW_REMOVED}, {SHORTCUTS}");
        let call = Call::graph("delta", Method::GET, url, priority).cost(cost).header(PREFER, &prefer)?;
        let stored = matches!(from, DeltaFrom::Link(_));
        let mut answer = self.send(call.clone()).await;
        if stored && matches!(answer, Err(GraphError::NotFound { .. })) {
            // Seen in the middle of enumerations: once more, then from the start (graph-api 9.5).
            answer = self.send(call).await;
        }
        let answer = answer.map_err(|error| if stored { expired_link(error) } else { error })?;
        let page = answer.parsed("a list of changes that is none", wire::items)?;
        if page.skipped > 0 {
            warn!(skipped = page.skipped, ids = %answer.ids, "entries of a delta page could not be read");
        }
        let link = match (page.next, page.delta) {
            (Some(next), _) => DeltaLink::Next(self.page_link(&next)?),
            (None, Some(done)) => DeltaLink::Done(self.page_link(&done)?),
            (None, None) => return Err(answer.nonsense("a list of changes without a link")),
        };
        Ok(DeltaPage { items: page.entries, link })
    }
}

fn expired_link(error: GraphError) -> GraphError {
    match error {
        GraphError::Invalid { ids } | GraphError::NotFound { ids } => {
            GraphError::Resync { location: None, upload_differences: true, ids }
        }
        other => other,
    }
}
