//! Nodes and their views, as plain data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::{ContentVersion, ItemId, NodeId, Timestamp};

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeKind {
    /// Only its id is known: a parent that some item named before it was described.
    Stub,
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A package such as a OneNote notebook: shown, never changed.
    Package,
    /// A shortcut to a folder in another drive.
    Shortcut,
    /// A symbolic link, kept on this machine.
    Symlink,
}

impl NodeKind {
    pub(super) fn to_sql(self) -> i64 {
        match self {
            Self::Stub => 0,
            Self::File => 1,
            Self::Folder => 2,
            Self::Package => 3,
            Self::Shortcut => 4,
            Self::Symlink => 5,
        }
    }

    pub(super) fn from_sql(value: i64) -> Option<Self> {
        Some(match value {
            0 => Self::Stub,
            1 => Self::File,
            2 => Self::Folder,
            3 => Self::Package,
            4 => Self::Shortcut,
            5 => Self::Symlink,
            _ => return None,
        })
    }

    /// Shown to the kernel as a directory.
    pub fn is_directory(self) -> bool {
        matches!(self, Self::Folder | Self::Stub | Self::Shortcut | Self::Package)
    }
}

/// What the service last said of an item (also: what an unsent change started from).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteView {
    /// The item.
    pub item: ItemId,
    /// Parent folder's node; none for the drive's root.
    pub parent: Option<NodeId>,
    /// Name on the service.
    pub name: String,
    /// Content state; the size of a folder means nothing.
    pub version: ContentVersion,
    /// Client modification time.
    pub mtime: Option<Timestamp>,
    /// Client creation time.
    pub btime: Option<Timestamp>,
    /// The service refuses its content.
    pub malware: bool,
    /// Bytes of the content as it comes, where the service says otherwise (graph-api 6.4). Versions are compared by what
    /// it says.
    pub actual_size: Option<u64>,
}

impl RemoteView {
    /// Bytes of the content, 0 where not told.
    pub fn size(&self) -> u64 {
        self.actual_size.or(self.version.size).unwrap_or(0)
    }

    /// Its modification time is told, and the same second as `mtime`: the service keeps no more than that.
    pub fn has_second_of(&self, mtime: Timestamp) -> bool {
        self.mtime.is_some_and(|told| told.same_second(mtime))
    }

    /// Same parent and same name as `other`.
    pub fn same_place(&self, other: &Self) -> bool {
        self.parent == other.parent && self.name == other.name
    }
}

/// What is known of unsealed staged content for the case of a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It was synced since it was last opened for writing.
    Synced,
    /// A power cut came before it was synced: nobody knows which of its bytes are there.
    Lost,
}

/// The proof that staged content is complete and does not change any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the content: decides whether the user changed the file.
    pub blake3: [u8; 32],
    /// quickXorHash of the content: compared with the service's answer.
    pub quick_xor: [u8; 20],
}

/// Why a change is not being sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// The class of the cause.
    pub kind: ParkKind,
    /// One sentence for the user.
    pub detail: String,
}

/// The classes of causes for parking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParkKind {
    /// The drive is full.
    Quota,
    /// The service refuses the write.
    Permission,
    /// The service takes the content for malware.
    Malware,
    /// The service refuses the name.
    Name,
    /// Locked or checked out by someone.
    Locked,
    /// Larger than the service takes.
    TooLarge,
    /// Access to the parent or the drive is lost.
    AccessLost,
    /// The version under a partly changed file is gone.
    BaseGone,
    /// The service keeps failing on this one change.
    Failing,
    /// The local content cannot be read.
    LocalDisk,
    /// Many deletes, from before the drive was read again: somebody must confirm them.
    Unconfirmed,
}

/// What the user sees where that differs from the remote view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalView {
    /// Folder it is in (kept after deletion: where it was).
    pub parent: NodeId,
    /// Name as the user wrote it (kept after deletion).
    pub name: String,
    /// Unlinked here.
    pub deleted: bool,
    /// Staged content; none: the content is the remote (or base) one.
    pub content: Option<u64>,
    /// Bytes, where `content` is set.
    pub size: u64,
    /// Modification time to show.
    pub mtime: Timestamp,
    /// A program set the time: it must reach the service.
    pub mtime_set: bool,
    /// Set once the staged content is sealed.
    pub seal: Option<Seal>,
    /// Wall time of the last local change.
    pub changed_at: Timestamp,
    /// Local sequence number of the last local change.
    pub changed_seq: u64,
    /// Not being sent, and why.
    pub parked: Option<Parked>,
    /// Failed sends in a row.
    pub tries: u32,
    /// Not before.
    pub retry_at: Timestamp,
    /// Lives only on this machine (symlinks, scratch names): never sent.
    pub local_only: bool,
}

/// Machine-only attributes; `None` means the mount's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Target of a symbolic link.
    pub target: Option<PathBuf>,
}

/// A node with all that the store knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its row.
    pub id: NodeId,
    /// What it is.
    pub kind: NodeKind,
    /// Where it is visible; none: nowhere (deleted, or an orphan).
    pub place: Option<Place>,
    /// What the service last said; none: no such item there.
    pub remote: Option<RemoteView>,
    /// What the unsent change started from.
    pub base: Option<RemoteView>,
    /// What the user sees where that differs.
    pub local: Option<LocalView>,
    /// Machine-only attributes.
    pub attrs: Attrs,
    /// Browser address.
    pub web_url: Option<String>,
    /// Sequence number at which the last own operation on it ended.
    pub own_seq: u64,
    /// Wall time of that.
    pub own_time: Timestamp,
    /// The time seen at the last close here; shown until remote content changes.
    pub shown_mtime: Option<Timestamp>,
    /// When something of it was last changed here; 0: never.
    pub ctime: Timestamp,
    /// A folder whose children are all known.
    pub listed: bool,
}

/// A place in the visible tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The folder.
    pub parent: NodeId,
    /// The name shown.
    pub name: String,
}

impl Node {
    /// Bytes to show for a file that nobody has open.
    pub fn size(&self) -> u64 {
        match (&self.local, &self.remote, &self.base) {
            (Some(local), _, _) if local.content.is_some() => local.size,
            (_, Some(remote), _) => remote.size(),
            (_, None, Some(base)) => base.size(),
            _ => 0,
        }
    }

    /// Modification time to show.
    pub fn mtime(&self) -> Timestamp {
        if let Some(local) = &self.local
            && (local.content.is_some() || local.mtime_set || self.remote.is_none())
        {
            return local.mtime;
        }
        self.shown_mtime
            .or_else(|| self.remote.as_ref().or(self.base.as_ref()).and_then(|view| view.mtime))
            .unwrap_or_default()
    }

    /// The view whose content the file has where nothing is staged.
    pub fn content_view(&self) -> Option<&RemoteView> {
        self.remote.as_ref().or(self.base.as_ref())
    }

    /// Where it is, or where it last was, for messages.
    pub fn known_place(&self) -> Option<(NodeId, String)> {
        let local = self.local.as_ref().map(|local| (local.parent, local.name.clone()));
        let remote = || self.content_view().and_then(|view| Some((view.parent?, view.name.clone())));
        self.place.as_ref().map(|place| (place.parent, place.name.clone())).or(local).or_else(remote)
    }

    /// Something here is not on the service. (An unlinked file that is still open and has no item is nothing
    /// that could be sent.)
    pub fn is_dirty(&self) -> bool {
        let has_item = self.remote.is_some();
        self.local.as_ref().is_some_and(|local| !local.local_only && (!local.deleted || has_item))
    }
}

/// What a committed transaction changed, for caches above the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Change {
    /// The name means something else, or nothing, now.
    Entry {
        /// The folder.
        parent: NodeId,
        /// The name as shown.
        name: String,
    },
    /// Attributes of the node, and where `content` its bytes.
    Node {
        /// The node.
        id: NodeId,
        /// Its bytes too.
        content: bool,
    },
}

/// A durable record that an operation was or is being sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The node it is for.
    pub node: NodeId,
    /// The operation, as JSON of the engine.
    pub op: String,
    /// The staged content it carries.
    pub content: Option<u64>,
    /// Local sequence number when it was sent.
    pub sent_seq: u64,
    /// Wall time of that.
    pub started_at: Timestamp,
    /// It was sent and no answer is known.
    pub unknown: bool,
}

/// An upload session that may be resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The staged content it carries.
    pub content: u64,
    /// The node it is for.
    pub node: NodeId,
    /// The address: a secret.
    pub url: String,
    /// Bytes the service has, as far as known.
    pub offset: u64,
    /// Bytes in all.
    pub total: u64,
    /// When the service drops it.
    pub expires: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it writes to, as JSON of the engine; a session for another target is not resumed.
    pub target: String,
    /// The session carries the modification time.
    pub mtime_applied: bool,
}

/// Something the user should know that no caller could be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When.
    pub at: Timestamp,
    /// Path below the mount.
    pub path: String,
    /// One sentence.
    pub text: String,
}
