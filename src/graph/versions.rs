//! Earlier contents of a file (graph-api 8).

use http::Method;

use super::call::Call;
use super::download::Download;
use super::error::Result;
use super::limiter::Priority;
use super::wire::Version;
use super::{Graph, url, wire};
use crate::model::{ByteRange, DriveId, ItemId};

/// More pages of versions than a file can have.
const MAX_PAGES: usize = 50;

impl Graph {
    /// The versions of a file, newest first, the current one included.
    pub async fn versions(&self, drive: &DriveId, item: &ItemId, priority: Priority) -> Result<Vec<Version>> {
        let mut url = self.inner.root.at(&format!("{}/versions", url::item(drive, item)?))?;
        let mut versions = Vec::new();
        for _ in 0..MAX_PAGES {
            let call = Call::graph("versions", Method::GET, url, priority).cost(2);
            let page = self.send(call).await?.parsed("a list of versions that is none", wire::versions)?;
            versions.extend(page.entries);
            match page.next {
                Some(next) => url = self.link_url(&self.page_link(&next)?)?,
                None => break,
            }
        }
        Ok(versions)
    }

    /// Content of an earlier version: unlike a file's own content it cannot change during the transfer.
    ///
    /// `Invalid` for the current version on some drives.
    pub async fn version_download(
        &self,
        drive: &DriveId,
        item: &ItemId,
        version: &str,
        range: Option<ByteRange>,
        priority: Priority,
    ) -> Result<Download> {
        let path = format!("{}/versions/{}/content", url::item(drive, item)?, url::segment(version)?);
        let address = self.redirect_of("version_content", &path, priority).await?;
        self.download(&address, range, priority).await
    }

    /// Makes an earlier version the current one, as a new version on top.
    pub async fn restore_version(&self, drive: &DriveId, item: &ItemId, version: &str) -> Result<()> {
        let path = format!("{}/versions/{}/restoreVersion", url::item(drive, item)?, url::segment(version)?);
        let url = self.inner.root.at(&path)?;
        self.send(Call::graph("restore_version", Method::POST, url, Priority::Upload)).await.map(drop)
    }
}
