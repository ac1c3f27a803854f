//! From what people write to a drive, or a folder of one, by the service's ids (graph-api 2).

use http::Method;

use super::address::{DriveAddress, DriveSelector};
use super::call::Call;
use super::error::{GraphError, Ids};
use super::limiter::Priority;
use super::listing::PREFER;
use super::{FarItem, Graph, url, wire};
use crate::model::{Drive, DriveId, DriveType, ItemId, ItemKind, RemoteItem};

/// Sites within sites are looked through this deep.
const MAX_SUBSITES: usize = 4;
/// Gives the account lasting access to what a link leads to, as opening it in a browser does (graph-api 2.6).
const REDEEM: &str = "redeemSharingLink";

/// What an address leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDrive {
    /// The drive; of one that only a folder of is given, no more than id and kind are known.
    pub drive: Drive,
    /// The folder of it that is meant; none: all of it.
    pub folder: Option<ItemId>,
}

/// A place in a drive, and what is there.
#[derive(Clone, Debug)]
pub struct FoundItem {
    /// The drive.
    pub drive: DriveId,
    /// The folder that it is in; none of what an address leads to by itself.
    pub parent: Option<ItemId>,
    /// What it is called there.
    pub name: String,
    /// None where nothing is there.
    pub item: Option<RemoteItem>,
}

/// Why an address leads nowhere.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FindError {
    /// The service knows none.
    #[error("there is no {what} ({ids})")]
    Missing {
        /// What it does not know.
        what: String,
        /// Of the answer.
        ids: Ids,
    },
    /// The account may not see it.
    #[error("the account may not see {what} ({ids})")]
    Refused {
        /// What it may not see.
        what: String,
        /// It needs a permission for groups.
        is_group: bool,
        /// Of the answer.
        ids: Ids,
    },
    /// The link has come to an end, or is not for this account; the service does not tell which.
    #[error("the link has expired, was taken back, or is not for this account ({ids})")]
    Link {
        /// Of the answer.
        ids: Ids,
    },
    /// It is no folder.
    #[error("'{name}' is no folder")]
    NoFolder {
        /// What it is called.
        name: String,
    },
    /// Several groups have this name.
    #[error("{count} groups are called '{name}'")]
    Ambiguous {
        /// What they are called.
        name: String,
        /// How many.
        count: usize,
    },
    /// Anything else.
    #[error(transparent)]
    Service(GraphError),
}

type Result<T> = std::result::Result<T, FindError>;

/// Says of what an answer is, where the service does not know it or shows it to others only.
fn about(what: impl Into<String>) -> impl FnOnce(GraphError) -> FindError {
    let what = what.into();
    move |error| match error {
        GraphError::NotFound { ids } | GraphError::Invalid { ids, .. } => FindError::Missing { what, ids },
        GraphError::AccessDenied { ids, .. } => FindError::Refused { what, is_group: false, ids },
        error => FindError::Service(error),
    }
}

impl Graph {
    /// The drive, or the folder of one, that an address leads to.
    pub async fn find(&self, address: &DriveAddress) -> Result<FoundDrive> {
        let (start, rest) = self.start(&address.drive).await?;
        let below: Vec<&str> = rest.iter().chain(&address.below).map(String::as_str).collect();
        self.descend(start, &below).await
    }

    /// What is at an address: a file, a folder, or nothing in a folder that is there.
    pub async fn find_item(&self, address: &DriveAddress) -> Result<FoundItem> {
        let (start, rest) = self.start(&address.drive).await?;
        let names: Vec<&str> = rest.iter().chain(&address.below).map(String::as_str).collect();
        let Some((name, above)) = names.split_last() else {
            let FoundDrive { drive, folder } = start;
            let item = match &folder {
                Some(folder) => self.item(&drive.id, folder, Priority::Interactive).await,
                None => self.root(&drive.id, Priority::Interactive).await,
            };
            let item = item.map_err(about("item at this address"))?;
            return Ok(FoundItem { drive: drive.id, parent: None, name: drive.name, item: Some(item) });
        };
        let FoundDrive { drive, folder } = self.descend(start, above).await?;
        let parent = match folder {
            Some(folder) => folder,
            None => {
                self.root(&drive.id, Priority::Interactive).await.map_err(about("root of this drive"))?.id
            }
        };
        self.look(drive.id, parent, name).await
    }

    /// What a folder that was found has under a name.
    pub async fn find_below(&self, folder: FoundItem, name: &str) -> Result<FoundItem> {
        let missing = || FindError::Missing { what: format!("'{}'", folder.name), ids: Ids::default() };
        let parent = folder.item.as_ref().ok_or_else(missing)?.id.clone();
        self.look(folder.drive, parent, name).await
    }

    async fn look(&self, drive: DriveId, parent: ItemId, name: &str) -> Result<FoundItem> {
        let item = match self.child(&drive, &parent, name, Priority::Interactive).await {
            Ok(item) => Some(item),
            Err(GraphError::NotFound { .. }) => None,
            Err(error) => return Err(about(format!("'{name}'"))(error)),
        };
        Ok(FoundItem { drive, parent: Some(parent), name: name.to_owned(), item })
    }

    /// What the first part leads to, and names of folders that it holds besides.
    async fn start(&self, selector: &DriveSelector) -> Result<(FoundDrive, Vec<String>)> {
        let whole = |drive| (FoundDrive { drive, folder: None }, Vec::new());
        Ok(match selector {
            DriveSelector::Me => {
                whole(self.get_drive("/me/drive").await.map_err(about("drive of this account's own"))?)
            }
            DriveSelector::Id(id) => whole(self.drive(id).await.map_err(about("drive with this id"))?),
            DriveSelector::Site { host, path, library } => {
                let site = self.site(host, path).await.map_err(about(format!("site {path} at {host}")))?;
                whole(self.library(&site, library.as_deref()).await?)
            }
            DriveSelector::Page { host, path } => return self.page(host, path).await,
            DriveSelector::Link(link) => (self.shared(link).await?, Vec::new()),
            DriveSelector::Item(drive, item) => {
                let found = self.item(drive, item, Priority::Interactive).await;
                let found = found.map_err(about("item with this id"))?;
                (self.entered(drive.clone(), None, found).await?, Vec::new())
            }
            DriveSelector::User(user) => {
                let path = format!("/users/{}/drive", url::escape(user));
                whole(self.get_drive(&path).await.map_err(about(format!("drive of '{user}'")))?)
            }
            DriveSelector::Group(name) => whole(self.group_drive(name).await?),
        })
    }

    /// A site's library by its name; its default one without.
    async fn library(&self, site: &str, name: Option<&str>) -> Result<Drive> {
        let Some(name) = name else {
            let path = format!("/sites/{}/drive", url::escape(site));
            return self.get_drive(&path).await.map_err(about("library in this site"));
        };
        let drives = self.libraries_of(site).await.map_err(about("list of the site's libraries"))?;
        by_name(&drives, name).cloned().ok_or_else(|| FindError::Missing {
            what: format!("library '{name}' in this site; there are: {}", names(&drives)),
            ids: Ids::default(),
        })
    }

    /// Site, library and folders of an address: which part is which, only the service knows.
    async fn page(&self, host: &str, path: &[String]) -> Result<(FoundDrive, Vec<String>)> {
        let whole = |drive, rest: &[String]| (FoundDrive { drive, folder: None }, rest.to_vec());
        let is_managed =
            |first: &String| ["sites", "teams", "personal"].contains(&first.to_lowercase().as_str());
        let least = if path.first().is_some_and(is_managed) { 2.min(path.len()) } else { 0 };
        for length in least..=path.len().min(least + MAX_SUBSITES) {
            let at = format!("/{}", path[..length].join("/"));
            let site = match self.site(host, &at).await {
                Err(GraphError::NotFound { .. }) if length > least => break,
                answer => answer.map_err(about(format!("site {at} at {host}")))?,
            };
            if length == path.len() {
                return Ok(whole(self.library(&site, None).await?, &[]));
            }
            let drives = self.libraries_of(&site).await.map_err(about("list of the site's libraries"))?;
            let by_address =
                drives.iter().filter_map(|drive| Some((shared_parts(drive, host, path)?, drive)));
            if let Some((parts, drive)) = by_address.max_by_key(|(parts, _)| *parts) {
                return Ok(whole(drive.clone(), &path[parts..]));
            }
            if let Some(drive) = by_name(&drives, &path[length]) {
                return Ok(whole(drive.clone(), &path[length + 1..]));
            }
        }
        let what = format!("library at /{} of {host}", path.join("/"));
        Err(FindError::Missing { what, ids: Ids::default() })
    }

    /// What a sharing link leads to; gives the account access to it from then on.
    async fn shared(&self, link: &str) -> Result<FoundDrive> {
        let ended = |error: GraphError| match error {
            GraphError::NotFound { ids }
            | GraphError::AccessDenied { ids, .. }
            | GraphError::Invalid { ids, .. } => FindError::Link { ids },
            error => FindError::Service(error),
        };
        let select = "$select=id,name,file,folder,package,root,parentReference,remoteItem";
        let path = format!("/shares/{}/driveItem?{select}", url::share(link));
        let url = self.inner.root.at(&path).map_err(FindError::Service)?;
        let call = Call::graph("share", Method::GET, url, Priority::Interactive);
        let call = call.header(PREFER, REDEEM).map_err(FindError::Service)?;
        let answer = self.send(call).await.map_err(ended)?;
        let (far, is_root) =
            answer.parsed("a shared item without a drive", wire::shared_item).map_err(FindError::Service)?;
        if !far.is_folder {
            return Err(FindError::NoFolder { name: far.name });
        }
        let FarItem { drive, drive_type, item, name, .. } = far;
        let drive_type = drive_type.unwrap_or_else(|| usual_type(&drive));
        let folder = (!is_root).then_some(item);
        Ok(FoundDrive { drive: Drive::bare(drive, drive_type, name), folder })
    }

    async fn group_drive(&self, name: &str) -> Result<Drive> {
        let what = format!("group '{name}'");
        let refused = |error: GraphError| match error {
            GraphError::AccessDenied { ids, .. } => {
                FindError::Refused { what: what.clone(), is_group: true, ids }
            }
            error => about(what.clone())(error),
        };
        let is_id = uuid::Uuid::try_parse(name).is_ok() && name.len() == 36;
        let id = if is_id {
            name.to_owned()
        } else {
            let quoted = name.replace('\'', "''");
            let key = if name.contains('@') { "mail" } else { "displayName" };
            let filter = url::escape(&format!("{key} eq '{quoted}'"));
            let path = format!("/groups?$filter={filter}&$select=id,displayName");
            let groups = self.collected("groups", &path, wire::groups).await.map_err(refused)?;
            match groups.as_slice() {
                [one] => one.clone(),
                [] => return Err(FindError::Missing { what, ids: Ids::default() }),
                many => return Err(FindError::Ambiguous { name: name.to_owned(), count: many.len() }),
            }
        };
        let path = format!("/groups/{}/drive", url::escape(&id));
        self.get_drive(&path).await.map_err(about(format!("library of group '{name}'")))
    }

    /// Follows names of folders by ids, level by level (graph-api 4.1: deep paths break); through shortcuts too.
    async fn descend(&self, start: FoundDrive, names: &[&str]) -> Result<FoundDrive> {
        let mut at = start;
        for name in names {
            let parent = match &at.folder {
                Some(folder) => folder.clone(),
                None => {
                    let root = self.root(&at.drive.id, Priority::Interactive).await;
                    root.map_err(about("root of this drive"))?.id
                }
            };
            let child = self.child(&at.drive.id, &parent, name, Priority::Interactive).await;
            let child = child.map_err(about(format!("folder '{name}'")))?;
            at = self.entered(at.drive.id.clone(), Some(at.drive), child).await?;
        }
        Ok(at)
    }

    /// The folder that an item is, or leads to.
    async fn entered(&self, within: DriveId, known: Option<Drive>, item: RemoteItem) -> Result<FoundDrive> {
        let name = item.name.clone().unwrap_or_default();
        match item.kind {
            Some(ItemKind::File | ItemKind::Package) => return Err(FindError::NoFolder { name }),
            Some(ItemKind::Shortcut) => {
                let far =
                    self.shortcut(&within, &item.id).await.map_err(about(format!("folder '{name}'")))?;
                let far =
                    far.filter(|far| far.is_folder).ok_or(FindError::NoFolder { name: name.clone() })?;
                let drive_type = far.drive_type.unwrap_or_else(|| usual_type(&far.drive));
                let there = self.item(&far.drive, &far.item, Priority::Interactive).await;
                let there = there.map_err(about(format!("what '{name}' leads to")))?;
                let folder = (!there.root).then_some(far.item);
                return Ok(FoundDrive { drive: Drive::bare(far.drive, drive_type, name), folder });
            }
            Some(ItemKind::Folder) | None => {}
        }
        let (id, drive_type) = match known {
            Some(drive) => (drive.id, drive.drive_type),
            None => {
                let drive_type = usual_type(&within);
                (within, drive_type)
            }
        };
        Ok(FoundDrive { drive: Drive::bare(id, drive_type, name), folder: (!item.root).then_some(item.id) })
    }
}

/// How many parts of a path are those of the library's own address, if it begins so.
fn shared_parts(drive: &Drive, host: &str, path: &[String]) -> Option<usize> {
    let address = ::url::Url::parse(drive.web_url.as_deref()?).ok()?;
    if !address.host_str()?.eq_ignore_ascii_case(host) {
        return None;
    }
    let own: Vec<String> = url::decoded_segments(&address)?;
    let begins = own.len() <= path.len()
        && own.iter().zip(path).all(|(own, given)| own.to_lowercase() == given.to_lowercase());
    (begins && !own.is_empty()).then_some(own.len())
}

fn by_name<'a>(drives: &'a [Drive], name: &str) -> Option<&'a Drive> {
    let folded = name.to_lowercase();
    let exact = drives.iter().find(|drive| drive.name == name);
    exact.or_else(|| drives.iter().find(|drive| drive.name.to_lowercase() == folded))
}

fn names(drives: &[Drive]) -> String {
    let names: Vec<&str> = drives.iter().take(20).map(|drive| drive.name.as_str()).collect();
    names.join(", ")
}

/// The form of an id tells (graph-api 2.2), where the service does not.
pub fn usual_type(drive: &DriveId) -> DriveType {
    if drive.as_str().starts_with("b!") { DriveType::Business } else { DriveType::Personal }
}
