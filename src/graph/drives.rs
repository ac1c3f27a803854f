//! Drives, sites and what is shared (graph-api 2).

use std::fmt;

use http::Method;

use super::call::Call;
use super::error::Result;
use super::limiter::Priority;
use super::listing::{PREFER, SHORTCUTS};
use super::{Graph, url, wire};
use crate::model::{Drive, DriveId, DriveType, ItemId, Timestamp};

/// More pages of sites, libraries or shared items than anybody has.
const MAX_PAGES: usize = 1000;

/// A SharePoint site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// For requests.
    pub id: String,
    /// The name shown to people; the last part of its address where it has none.
    pub name: String,
}

/// A file or folder of another drive: what a shortcut leads to, or what somebody shares (graph-api 2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FarItem {
    /// The drive it lives in.
    pub drive: DriveId,
    /// Which service that is on, where told.
    pub drive_type: Option<DriveType>,
    /// The item there.
    pub item: ItemId,
    /// What it is called here.
    pub name: String,
    /// It can have children.
    pub is_folder: bool,
}

/// Where changes are announced as they happen (graph-api 10.2). The address is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct PushChannel {
    url: String,
    /// When it ends, where told.
    pub expires: Option<Timestamp>,
}

impl PushChannel {
    /// The address to connect to.
    pub fn expose(&self) -> &str {
        &self.url
    }
}

impl fmt::Debug for PushChannel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PushChannel(hidden, expires {:?})", self.expires)
    }
}

impl Graph {
    /// The account's own drive.
    pub async fn own_drive(&self) -> Result<Drive> {
        self.get_drive("/me/drive").await
    }

    /// The drive with its space as it is now.
    pub async fn drive(&self, drive: &DriveId) -> Result<Drive> {
        self.get_drive(&url::drive(drive)?).await
    }

    /// All document libraries of the site with this id.
    pub async fn libraries_of(&self, site: &str) -> Result<Vec<Drive>> {
        self.collected("libraries", &format!("/sites/{}/drives", url::escape(site)), wire::drives).await
    }

    /// All sites that the account may see, as the service's search knows them (graph-api 2.4): one page in most cases.
    pub async fn sites(&self) -> Result<Vec<Site>> {
        self.collected("sites", "/sites?search=*&$select=id,name,displayName,webUrl", wire::sites).await
    }

    /// What others share with the account (graph-api 2.5). May come to an end in November 2027.
    pub async fn shared_with_me(&self) -> Result<Vec<FarItem>> {
        self.collected("shared", "/me/drive/sharedWithMe?allowexternal=true", wire::far_items).await
    }

    /// Where the shortcut `item` of `drive` leads; none where it is no shortcut (any more), or one that says too little.
    pub async fn shortcut(&self, drive: &DriveId, item: &ItemId) -> Result<Option<FarItem>> {
        let path = format!("{}?$select=id,name,remoteItem", url::item(drive, item)?);
        let call = Call::graph("shortcut", Method::GET, self.inner.root.at(&path)?, Priority::Interactive);
        // A header that listings need: without it a service may show a plain folder.
        let call = call.header(PREFER, SHORTCUTS)?;
        self.send(call).await?.parsed("an item that is none", |bytes| Some(wire::far_item(bytes)))
    }

    /// All pages of a collection.
    pub(super) async fn collected<T>(
        &self,
        what: &'static str,
        path: &str,
        parse: impl Fn(&[u8]) -> Option<wire::Page<T>>,
    ) -> Result<Vec<T>> {
        let mut url = self.inner.root.at(path)?;
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let call = Call::graph(what, Method::GET, url, Priority::Interactive).cost(2);
            let page = self.send(call).await?.parsed("a list that is none", &parse)?;
            all.extend(page.entries);
            match page.next {
                Some(next) => url = self.link_url(&self.page_link(&next)?)?,
                None => break,
            }
        }
        Ok(all)
    }

    /// Where changes of `drive` are announced. `Unsupported` may pass (graph-api 10.2).
    pub async fn push_channel(&self, drive: &DriveId) -> Result<PushChannel> {
        let url = self.inner.root.at(&format!("{}/root/subscriptions/socketIo", url::drive(drive)?))?;
        let answer = self.send(Call::graph("push", Method::GET, url, Priority::Enumeration)).await?;
        let (url, expires) = answer.parsed("a channel without address", wire::push_channel)?;
        Ok(PushChannel { url, expires })
    }

    pub(super) async fn get_drive(&self, path: &str) -> Result<Drive> {
        let url = self.inner.root.at(path)?;
        let answer = self.send(Call::graph("drive", Method::GET, url, Priority::Interactive)).await?;
        answer.parsed("a drive without id", wire::drive)
    }

    /// The id of the site at a server-relative path of a host.
    pub(super) async fn site(&self, host: &str, path: &str) -> Result<String> {
        let host = url::segment(host)?;
        let segments: Vec<String> =
            path.split('/').filter(|part| !part.is_empty()).map(url::segment).collect::<Result<_>>()?;
        let at = match segments.is_empty() {
            true => format!("/sites/{host}"),
            false => format!("/sites/{host}:/{}", segments.join("/")),
        };
        let url = self.inner.root.at(&at)?;
        let answer = self.send(Call::graph("site", Method::GET, url, Priority::Interactive)).await?;
        answer.parsed("a site without id", wire::site_id)
    }
}
