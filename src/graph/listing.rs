//! Children of a folder, page by page (graph-api 5).

use http::{HeaderName, Method};
use tracing::warn;

use super::call::Call;
use super::delta::PageLink;
use super::error::{GraphError, Result};
use super::limiter::Priority;
use super::{Graph, url, wire};
use crate::model::{DriveId, ItemId, RemoteItem};

/// Safe on every flavour; a smaller answer is normal.
pub(super) const PAGE_SIZE: u32 = 999;
/// Makes shortcuts appear (graph-api 2.5).
pub(super) const SHORTCUTS: &str = "Include-Feature=AddToOneDrive";
/// Where [`SHORTCUTS`] goes; it must be on every page.
pub(super) const PREFER: HeaderName = HeaderName::from_static("prefer");

/// A part of a listing.
#[derive(Clone, Debug)]
pub struct ChildrenPage {
    /// In no order that means anything; an item may come twice over the pages. May be empty before the end.
    pub items: Vec<RemoteItem>,
    /// Where the next part is; none at the end.
    pub next: Option<PageLink>,
}

impl Graph {
    /// One page of the children of `folder`: the first, or the one `next` leads to.
    ///
    /// `Resync` when `next` is no longer good: begin again. A listing made while others write may miss or
    /// repeat items, so that a missing item is no proof of its deletion.
    pub async fn children(
        &self,
        drive: &DriveId,
        folder: &ItemId,
        next: Option<&PageLink>,
        priority: Priority,
    ) -> Result<ChildrenPage> {
        let url = match next {
            Some(link) => self.link_url(link)?,
            None => self.inner.root.at(&format!(
                "{}/children?$top={PAGE_SIZE}&$select={}",
                url::item(drive, folder)?,
                wire::SELECT_ITEM
            ))?,
        };
        let call = Call::graph("children", Method::GET, url, priority).cost(2).header(PREFER, SHORTCUTS)?;
        let answer = self.send(call).await.map_err(|error| match error {
            GraphError::Invalid { ids } | GraphError::Resync { ids, .. } if next.is_some() => {
                GraphError::Resync { location: None, upload_differences: true, ids }
            }
            other => other,
        })?;
        let page = answer.parsed("a listing that is none", wire::items)?;
        if page.skipped > 0 {
            warn!(skipped = page.skipped, ids = %answer.ids, "entries of a listing could not be read");
        }
        let next = page.next.map(|link| self.page_link(&link)).transpose()?;
        Ok(ChildrenPage { items: page.entries, next })
    }
}
