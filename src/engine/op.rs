//! The operations that make remote agree with local, as plain data.

use serde::{Deserialize, Serialize};

use super::conflict::{NameTaken, Outcome};
use crate::model::{ETag, ItemId, NodeId, Timestamp};

/// Something the engine does for one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// In the store only: drop a row that was never sent and is unlinked.
    Forget,
    /// In the store only: apply the outcome of the conflict table.
    Settle(Outcome),
    /// In the store only: two nodes want one name.
    Yield {
        /// The node that keeps it.
        to: NodeId,
        /// How.
        how: NameTaken,
    },
    /// The change is in a folder that has no place: find out which folder that is, or bring it to the root.
    BringHome,
    /// On disk only: make staged content complete and immutable.
    Seal {
        /// The staged content.
        content: u64,
    },
    /// On disk only: copy staged content that somebody has open for writing, as it is at one moment.
    Copy {
        /// The staged content.
        content: u64,
    },
    /// Ask the service what became of an attempt whose answer was lost.
    Verify(Send),
    /// Send a change.
    Send(Send),
}

/// A request that changes something on the service, with its precondition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Send {
    /// Make a folder; fails if the name exists.
    Mkdir {
        /// In this folder.
        parent: ItemId,
        /// Under this name.
        name: String,
    },
    /// Create a file with content; fails if the name exists.
    Create {
        /// In this folder.
        parent: ItemId,
        /// Under this name.
        name: String,
        /// Sealed staged content.
        content: u64,
        /// Bytes.
        size: u64,
        /// Their quickXorHash: what the service has if this happened.
        quick_xor: [u8; 20],
        /// A time that a program set.
        mtime: Option<Timestamp>,
    },
    /// Replace a file's content, if it still is what the change started from.
    Replace {
        /// The file.
        item: ItemId,
        /// Sealed staged content.
        content: u64,
        /// Bytes.
        size: u64,
        /// Their quickXorHash: what the service has if this happened.
        quick_xor: [u8; 20],
        /// A time that a program set.
        mtime: Option<Timestamp>,
        /// Its tag then.
        if_match: Option<ETag>,
    },
    /// Move or rename; fails if the name exists.
    Move {
        /// The item.
        item: ItemId,
        /// To this folder, if it changes.
        parent: Option<ItemId>,
        /// To this name, if it changes.
        name: Option<String>,
        /// Its tag.
        if_match: Option<ETag>,
    },
    /// Set the modification time.
    SetTime {
        /// The item.
        item: ItemId,
        /// The time.
        mtime: Timestamp,
        /// Its tag.
        if_match: Option<ETag>,
    },
    /// Move to the recycle bin.
    Delete {
        /// The item.
        item: ItemId,
        /// Its tag; none for folders, whose tag says nothing of what is inside.
        if_match: Option<ETag>,
        /// A folder: first make sure that nothing is inside that we do not know.
        folder: bool,
    },
}

impl Send {
    /// Reads what an attempt was recorded as.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The folder and the name at which it makes an item.
    pub fn made_at(&self) -> Option<(&ItemId, &str)> {
        match self {
            Self::Mkdir { parent, name } | Self::Create { parent, name, .. } => Some((parent, name)),
            Self::Replace { .. } | Self::Move { .. } | Self::SetTime { .. } | Self::Delete { .. } => None,
        }
    }

    /// The staged content it carries.
    pub fn content(&self) -> Option<u64> {
        match self {
            Self::Create { content, .. } | Self::Replace { content, .. } => Some(*content),
            Self::Mkdir { .. } | Self::Move { .. } | Self::SetTime { .. } | Self::Delete { .. } => None,
        }
    }

    /// The item it changes; none where it makes one.
    pub fn item(&self) -> Option<&ItemId> {
        match self {
            Self::Mkdir { .. } | Self::Create { .. } => None,
            Self::Replace { item, .. }
            | Self::Move { item, .. }
            | Self::SetTime { item, .. }
            | Self::Delete { item, .. } => Some(item),
        }
    }

    /// The tag under which it may happen.
    pub fn if_match(&self) -> Option<&ETag> {
        match self {
            Self::Replace { if_match, .. }
            | Self::Move { if_match, .. }
            | Self::SetTime { if_match, .. }
            | Self::Delete { if_match, .. } => if_match.as_ref(),
            Self::Mkdir { .. } | Self::Create { .. } => None,
        }
    }

    /// The folder it puts an item into.
    pub fn target_folder(&self) -> Option<&ItemId> {
        match self {
            Self::Mkdir { parent, .. } | Self::Create { parent, .. } => Some(parent),
            Self::Move { parent, .. } => parent.as_ref(),
            Self::Replace { .. } | Self::SetTime { .. } | Self::Delete { .. } => None,
        }
    }

    /// The same operation, where an item that it names has another id now.
    pub fn readdressed(mut self, from: &ItemId, to: &ItemId) -> Self {
        let folder = match &mut self {
            Self::Mkdir { parent, .. } | Self::Create { parent, .. } => Some(parent),
            Self::Move { parent, .. } => parent.as_mut(),
            Self::Replace { .. } | Self::SetTime { .. } | Self::Delete { .. } => None,
        };
        if let Some(folder) = folder.filter(|folder| *folder == from) {
            *folder = to.clone();
        }
        match &mut self {
            Self::Replace { item, .. }
            | Self::Move { item, .. }
            | Self::SetTime { item, .. }
            | Self::Delete { item, .. }
                if item == from =>
            {
                *item = to.clone();
            }
            _ => {}
        }
        self
    }

    /// The operation's name in logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Mkdir { .. } => "mkdir",
            Self::Create { .. } => "create",
            Self::Replace { .. } => "replace",
            Self::Move { .. } => "move",
            Self::SetTime { .. } => "set-time",
            Self::Delete { .. } => "delete",
        }
    }
}
