//! Drives and items as the service describes them, in our words.

use serde::{Deserialize, Serialize};

use super::{CTag, ContentVersion, DriveId, ETag, Hashes, ItemId, Timestamp};

/// Which of the three services a drive lives on; they differ in ids, tags, hashes and abilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DriveType {
    /// OneDrive personal.
    Personal,
    /// OneDrive for Business.
    Business,
    /// SharePoint document library.
    DocumentLibrary,
}

/// A drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// The id to use in requests.
    pub id: DriveId,
    /// Which service it lives on.
    pub drive_type: DriveType,
    /// The name the service shows.
    pub name: String,
    /// Browser address.
    pub web_url: Option<String>,
    /// Display name of the owner.
    pub owner: Option<String>,
    /// Space, where the service tells.
    pub quota: Option<Quota>,
}

impl Drive {
    /// A drive of which no more than this is known.
    pub fn bare(id: DriveId, drive_type: DriveType, name: String) -> Self {
        Self { id, drive_type, name, web_url: None, owner: None, quota: None }
    }
}

/// A drive's space in bytes; all zero or absent means unknown, never full (graph-api 2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// All the space there is.
    pub total: u64,
    /// Space in use.
    pub used: u64,
    /// Space left.
    pub remaining: u64,
    /// The service refuses writes.
    pub exceeded: bool,
}

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemKind {
    /// A file with content.
    File,
    /// A folder.
    Folder,
    /// A package such as a OneNote notebook: shown read-only, never changed.
    Package,
    /// A shortcut to a folder in another drive.
    Shortcut,
}

/// One item as an answer of the service described it.
///
/// Every field but the id may be missing, above all in delta (graph-api 9.3). Missing means "not said",
/// never "empty".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteItem {
    /// The item.
    pub id: ItemId,
    /// The drive it said it lives in.
    pub drive: Option<DriveId>,
    /// Parent folder; none for the root.
    pub parent: Option<ItemId>,
    /// Name as stored on the service.
    pub name: Option<String>,
    /// None where no facet said.
    pub kind: Option<ItemKind>,
    /// It is the root of its drive.
    pub root: bool,
    /// It was deleted (delta only).
    pub deleted: bool,
    /// Bytes; only meaningful for files.
    pub size: Option<u64>,
    /// Client modification time (`fileSystemInfo`, else the server's).
    pub mtime: Option<Timestamp>,
    /// Client creation time.
    pub btime: Option<Timestamp>,
    /// When it was last changed, by the service's clock.
    #[serde(default)]
    pub changed: Option<Timestamp>,
    /// Content and metadata tag.
    pub etag: Option<ETag>,
    /// Content tag.
    pub ctag: Option<CTag>,
    /// Hashes of the content.
    pub hashes: Hashes,
    /// Direct children of a folder.
    pub child_count: Option<u64>,
    /// Flagged as malware: content is refused.
    pub malware: bool,
    /// Browser address.
    pub web_url: Option<String>,
    /// Media type.
    pub mime_type: Option<String>,
    /// Pre-authenticated address of the content: a secret, never logged.
    pub download_url: Option<DownloadUrl>,
    /// Id of the application or user that last modified it, where told.
    pub last_modified_by: Option<ModifiedBy>,
    /// For a shortcut: where it leads.
    pub target: Option<(DriveId, ItemId)>,
}

/// Who last changed an item.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModifiedBy {
    /// Application id.
    pub application: Option<String>,
    /// User id.
    pub user: Option<String>,
    /// Name to show.
    pub display_name: Option<String>,
}

/// A pre-authenticated address. Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DownloadUrl(String);

impl DownloadUrl {
    /// Takes the address as the service gave it.
    pub fn new(raw: impl Into<String>) -> Self {
        Self(raw.into())
    }

    /// The address, for the transport only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for DownloadUrl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("DownloadUrl(hidden)")
    }
}

impl RemoteItem {
    /// An item that is gone.
    pub fn gone(id: ItemId) -> Self {
        Self { deleted: true, ..Self::bare(id) }
    }

    /// An item of which nothing but the id is known.
    pub fn bare(id: ItemId) -> Self {
        Self {
            id,
            drive: None,
            parent: None,
            name: None,
            kind: None,
            root: false,
            deleted: false,
            size: None,
            mtime: None,
            btime: None,
            changed: None,
            etag: None,
            ctag: None,
            hashes: Hashes::default(),
            child_count: None,
            malware: false,
            web_url: None,
            mime_type: None,
            download_url: None,
            last_modified_by: None,
            target: None,
        }
    }

    /// The content state this answer describes.
    pub fn version(&self) -> ContentVersion {
        ContentVersion {
            etag: self.etag.clone(),
            ctag: self.ctag.clone(),
            size: self.size,
            hashes: self.hashes.clone(),
        }
    }
}
