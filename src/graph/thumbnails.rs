//! Small pictures of what is in a folder (graph-api 6.5).

use http::Method;

use super::call::Call;
use super::delta::PageLink;
use super::error::Result;
use super::limiter::Priority;
use super::{Graph, url, wire};
use crate::model::remote::DownloadUrl;
use crate::model::{DriveId, ItemId};

/// What the service answers with by default; each entry brings several addresses.
const PAGE_SIZE: u32 = 200;

/// A part of the pictures of a folder.
#[derive(Clone, Debug)]
pub struct ThumbnailPage {
    /// Of those children that have one: an address of a picture of at most 800 pixels.
    pub thumbnails: Vec<(ItemId, DownloadUrl)>,
    /// Where the next part is; none at the end.
    pub next: Option<PageLink>,
}

impl Graph {
    /// One page of the pictures of what is in `folder`: the first, or the one `next` leads to.
    pub async fn thumbnails(
        &self,
        drive: &DriveId,
        folder: &ItemId,
        next: Option<&PageLink>,
    ) -> Result<ThumbnailPage> {
        let url = match next {
            Some(link) => self.link_url(link)?,
            None => self.inner.root.at(&format!(
                "{}/children?$top={PAGE_SIZE}&$select=id&$expand=thumbnails",
                url::item(drive, folder)?
            ))?,
        };
        let call = Call::graph("thumbnails", Method::GET, url, Priority::Prefetch).cost(2);
        let answer = self.send(call).await?;
        let page = answer.parsed("a listing that is none", wire::thumbnails)?;
        let next = page.next.map(|link| self.page_link(&link)).transpose()?;
        Ok(ThumbnailPage { thumbnails: page.entries, next })
    }
}
