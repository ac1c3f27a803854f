//! Finding drives (graph-api 2).

use std::fmt;
use std::str::FromStr;

use http::Method;

use super::call::Call;
use super::error::{GraphError, Ids, Result};
use super::limiter::Priority;
use super::listing::{PREFER, SHORTCUTS};
use super::{Graph, url, wire};
use crate::model::{Drive, DriveId, DriveType, ItemId, Timestamp};

/// More pages of sites, libraries or shared items than anybody has.
const MAX_PAGES: usize = 1000;

/// What a user calls a drive: `me`, a drive id, or `HOST:/sites/NAME[:LIBRARY]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriveSelector {
    /// The account's own drive.
    Me,
    /// By id.
    Id(DriveId),
    /// A document library.
    Site {
        /// Such as `contoso.sharepoint.com`.
        host: String,
        /// Server-relative, such as `/sites/Team`; `/` is the host's root site.
        path: String,
        /// By name; the site's default library if none.
        library: Option<String>,
    },
}

/// Why a text names no drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a drive: give `me`, a drive id, or HOST:/sites/NAME[:LIBRARY]")]
pub struct BadSelector;

impl FromStr for DriveSelector {
    type Err = BadSelector;

    fn from_str(text: &str) -> std::result::Result<Self, BadSelector> {
        if text == "me" {
            return Ok(Self::Me);
        }
        let Some((host, rest)) = text.split_once(':') else {
            let id = !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!-_".contains(&byte));
            return if id { Ok(Self::Id(DriveId::new(text))) } else { Err(BadSelector) };
        };
        let is_host = host.contains('.')
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
        let (path, library) = match rest.split_once(':') {
            Some((path, library)) => (path, Some(library.to_owned())),
            None => (rest, None),
        };
        if !is_host || !path.starts_with('/') || library.as_deref() == Some("") {
            return Err(BadSelector);
        }
        let path = path.trim_end_matches('/');
        let path = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
        Ok(Self::Site { host: host.to_owned(), path, library })
    }
}

impl fmt::Display for DriveSelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Me => formatter.write_str("me"),
            Self::Id(id) => write!(formatter, "{id}"),
            Self::Site { host, path, library: None } => write!(formatter, "{host}:{path}"),
            Self::Site { host, path, library: Some(library) } => write!(formatter, "{host}:{path}:{library}"),
        }
    }
}

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
    /// The drive a user means. `NotFound` if the site has no library of that name.
    pub async fn resolve_drive(&self, selector: &DriveSelector) -> Result<Drive> {
        match selector {
            DriveSelector::Me => self.get_drive("/me/drive").await,
            DriveSelector::Id(id) => self.drive(id).await,
            DriveSelector::Site { host, path, library: None } => {
                let site = self.site(host, path).await?;
                self.get_drive(&format!("/sites/{}/drive", url::escape(&site))).await
            }
            DriveSelector::Site { host, path, library: Some(library) } => {
                let drives = self.libraries(host, path).await?;
                let exact = drives.iter().position(|drive| drive.name == *library);
                let folded = || {
                    let wanted = library.to_lowercase();
                    drives.iter().position(|drive| drive.name.to_lowercase() == wanted)
                };
                let found = exact.or_else(folded).ok_or(GraphError::NotFound { ids: Ids::default() })?;
                Ok(drives[found].clone())
            }
        }
    }

    /// The drive with its space as it is now.
    pub async fn drive(&self, drive: &DriveId) -> Result<Drive> {
        self.get_drive(&url::drive(drive)?).await
    }

    /// All document libraries of a site.
    pub async fn libraries(&self, host: &str, path: &str) -> Result<Vec<Drive>> {
        let site = self.site(host, path).await?;
        self.libraries_of(&site).await
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
    async fn collected<T>(
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

    async fn get_drive(&self, path: &str) -> Result<Drive> {
        let url = self.inner.root.at(path)?;
        let answer = self.send(Call::graph("drive", Method::GET, url, Priority::Interactive)).await?;
        answer.parsed("a drive without id", wire::drive)
    }

    async fn site(&self, host: &str, path: &str) -> Result<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_is_me_an_id_or_a_library_of_a_site() {
        let site = |path: &str, library: Option<&str>| DriveSelector::Site {
            host: "contoso.sharepoint.com".into(),
            path: path.into(),
            library: library.map(str::to_owned),
        };
        let cases = [
            ("me", DriveSelector::Me),
            ("b!AbC-_9", DriveSelector::Id(DriveId::new("b!AbC-_9"))),
            ("2f9d11c0a1b2c3d4", DriveSelector::Id(DriveId::new("2f9d11c0a1b2c3d4"))),
            ("contoso.sharepoint.com:/sites/Team A", site("/sites/Team A", None)),
            ("contoso.sharepoint.com:/sites/Team/:Shared Docs", site("/sites/Team", Some("Shared Docs"))),
            ("contoso.sharepoint.com:/", site("/", None)),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "a b",
            "../x",
            "host:/sites/x",
            "contoso.sharepoint.com:sites/x",
            "a.b:/sites/x:",
            "https://a.b/c",
        ] {
            assert_eq!(bad.parse::<DriveSelector>(), Err(BadSelector), "{bad}");
        }
    }

    #[test]
    fn a_selector_is_written_as_it_is_read() {
        for text in
            ["me", "b!x", "contoso.sharepoint.com:/sites/Team:Docs", "contoso.sharepoint.com:/sites/Team"]
        {
            assert_eq!(text.parse::<DriveSelector>().expect("a selector").to_string(), text);
        }
    }
}
