//! The namespace: what each change of the tree does to the views, each in one transaction.
//!
//! Pure over [`Tx`]: no content, no network, no kernel. What must be known of the world above the store
//! comes in as [`Context`]; files that nobody names any more go out as numbers of staged content, to be
//! unlinked once the commit that dropped them is durable.
//!
//! Invariants kept here (with those of the store):
//! - a change of a clean node sets `base` to the remote view it started from;
//! - every change of what is to be sent moves `changed_at` and `changed_seq` and takes the node out of
//!   parking;
//! - a file that is not on the service has all its bytes in staging.

mod create;
mod identity;
mod name;
mod remove;
mod rename;

#[cfg(test)]
mod saves;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{ContentVersion, DriveType, NodeId, Timestamp, names};
use crate::store::{LocalView, Node, NodeKind, RemoteView, StoreError, Tx, canonical};

use super::{RenameMode, VfsError};

pub use name::Name;

/// How long a name remembers the item that was moved away from it or deleted (design 3).
pub(super) const RECENT: Duration = Duration::from_secs(600);

/// What a change must know of the world above the store.
pub struct Context<'a> {
    /// Wall time.
    pub now: Timestamp,
    /// Decides which names the service refuses.
    pub drive: DriveType,
    /// Whether a handle of the node is open.
    pub is_open: &'a dyn Fn(NodeId) -> bool,
    /// Whether this staged content has every byte itself, without a base below it.
    pub is_whole: &'a dyn Fn(u64) -> bool,
    /// Content for a file that is about to lose its item to another row.
    pub offer: Offer,
    /// The content that programs see of those files that are open, which may be an older one than the service has.
    pub shown: &'a BTreeMap<NodeId, ContentVersion>,
}

impl Context<'_> {
    /// What a change of this file that has none yet starts from: what the service has, in the content that programs see.
    fn seen(&self, id: NodeId, remote: &RemoteView) -> RemoteView {
        match self.shown.get(&id) {
            Some(shown) if !shown.keeps_blocks_of(&remote.version) => {
                RemoteView { version: shown.clone(), ..remote.clone() }
            }
            _ => remote.clone(),
        }
    }
}

/// Content for a file whose item moves to another row, and which so must own its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Stop with [`Halt::Materialise`] if such content would help.
    Ask,
    /// There is none: the item stays where it is.
    Nothing,
    /// The whole content of that node's file, staged under that number.
    Have {
        /// The file it is of.
        node: NodeId,
        /// Number of the staged content.
        content: u64,
        /// Bytes.
        size: u64,
    },
}

/// Why a change was not made; nothing of it is in the store.
#[derive(Debug)]
pub enum Halt {
    /// It cannot be made.
    Failed(VfsError),
    /// Stage the content of this node's file if it is complete here, and try again with [`Offer::Have`], or
    /// with [`Offer::Nothing`] if it is not.
    Materialise(NodeId),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<VfsError> for Halt {
    fn from(error: VfsError) -> Self {
        Self::Failed(error)
    }
}

/// What came of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Staged content that no row names any more.
    pub dropped: Vec<u64>,
    /// The offered content is named by a row now.
    pub took_offer: bool,
}

/// A new node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its row.
    pub node: Node,
    /// What else came of it.
    pub effect: Effect,
}

/// Machine-only attributes of a new node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// One change of the tree inside a transaction.
pub struct Namespace<'t, 'a, 'c> {
    tx: &'t mut Tx<'a>,
    context: &'c Context<'c>,
    effect: Effect,
}

impl<'t, 'a, 'c> Namespace<'t, 'a, 'c> {
    /// A change in this transaction.
    pub fn new(tx: &'t mut Tx<'a>, context: &'c Context<'c>) -> Self {
        Self { tx, context, effect: Effect::default() }
    }

    /// The visible child of exactly this name.
    pub fn lookup(&self, parent: NodeId, name: &Name) -> Result<Node, VfsError> {
        self.tx.child(parent, name.remote())?.ok_or(VfsError::NotFound)
    }

    /// Sets the modification time as a program asked: it is to reach the service.
    pub fn set_mtime(&mut self, id: NodeId, mtime: Timestamp) -> Result<(), VfsError> {
        let node = self.tx.find(id)?.ok_or(VfsError::Stale)?;
        if node.kind == NodeKind::Package {
            return Err(VfsError::NotPermitted);
        }
        self.tx.set_ctime(id, self.context.now)?;
        if node.mtime() == mtime && node.local.as_ref().is_none_or(|local| local.mtime_set) {
            return Ok(());
        }
        let same = node.remote.as_ref().is_some_and(|remote| remote.has_second_of(mtime));
        // What is shown there has times of its own on the service.
        let is_entrance = id == NodeId::ROOT || node.kind == NodeKind::Shortcut;
        if is_entrance || (node.local.is_none() && same) {
            self.tx.set_shown_mtime(id, Some(mtime))?;
            return Ok(());
        }
        self.change(&node, |local| {
            local.mtime = mtime;
            local.mtime_set = true;
        })?;
        Ok(())
    }

    /// Sets attributes that stay on this machine.
    pub fn set_attrs(&mut self, id: NodeId, owner: Owner) -> Result<(), VfsError> {
        self.tx.find(id)?.ok_or(VfsError::Stale)?;
        self.tx.set_ctime(id, self.context.now)?;
        Ok(self.tx.set_attrs(id, owner.mode, owner.uid, owner.gid)?)
    }

    /// A folder whose entries may change.
    fn folder(&self, id: NodeId) -> Result<Node, VfsError> {
        let node = self.tx.find(id)?.ok_or(VfsError::Stale)?;
        match node.kind {
            _ if id == NodeId::ROOT => Ok(node),
            NodeKind::File | NodeKind::Symlink => Err(VfsError::NotDirectory),
            NodeKind::Package | NodeKind::Shortcut => Err(VfsError::NotPermitted),
            NodeKind::Folder | NodeKind::Stub if node.place.is_none() => Err(VfsError::NotFound),
            NodeKind::Folder | NodeKind::Stub => Ok(node),
        }
    }

    /// Refuses a name that a visible sibling has, or has but for case.
    fn must_be_free(&self, parent: NodeId, name: &Name, but: Option<NodeId>) -> Result<(), VfsError> {
        match self.tx.clash(parent, name.remote(), but)? {
            Some(_) => Err(VfsError::Exists),
            None => Ok(()),
        }
    }

    /// Refuses a path that the service takes in no drive.
    fn must_fit(&self, parent: NodeId, name: &Name) -> Result<(), VfsError> {
        let units = self.tx.path_units(parent)? + name.remote().encode_utf16().count();
        if units > names::PATH_MAX { Err(VfsError::NameTooLong) } else { Ok(()) }
    }

    /// Changes the node's local view, making one if it has none.
    fn change(&mut self, node: &Node, edit: impl FnOnce(&mut LocalView)) -> Result<LocalView, VfsError> {
        self.tx.set_ctime(node.id, self.context.now)?;
        let local = change(self.tx, node, self.context.now, edit)?;
        if let (Some(remote), None) = (&node.remote, &node.base) {
            self.tx.set_base(node.id, Some(&self.context.seen(node.id, remote)))?;
        }
        Ok(local)
    }

    /// The folder's own time moves when an entry comes or goes.
    fn bump(&mut self, parent: NodeId) -> Result<(), VfsError> {
        let now = self.context.now;
        let Some(node) = self.tx.find(parent)? else { return Ok(()) };
        self.tx.set_ctime(parent, now)?;
        if let Some(local) = &node.local
            && (node.remote.is_none() || local.mtime_set)
        {
            self.tx.set_local(parent, Some(&LocalView { mtime: now, mtime_set: false, ..local.clone() }))?;
        }
        Ok(self.tx.set_shown_mtime(parent, Some(now))?)
    }

    /// Ends the change.
    pub fn finish(self) -> Effect {
        self.effect
    }
}

/// Changes a node's local view, making one if it has none, and notes when.
pub(super) fn change(
    tx: &mut Tx<'_>,
    node: &Node,
    now: Timestamp,
    edit: impl FnOnce(&mut LocalView),
) -> Result<LocalView, VfsError> {
    let mut local = match &node.local {
        Some(local) => local.clone(),
        None => fresh_local(node, now).ok_or(VfsError::Stale)?,
    };
    edit(&mut local);
    local.changed_at = now;
    local.changed_seq = tx.next_sequence();
    local.parked = None;
    local.tries = 0;
    local.retry_at = Timestamp(0);
    if let (Some(remote), None) = (&node.remote, &node.base) {
        tx.set_base(node.id, Some(remote))?;
    }
    tx.set_local(node.id, Some(&local))?;
    Ok(local)
}

/// A local view that says what the remote one says.
fn fresh_local(node: &Node, now: Timestamp) -> Option<LocalView> {
    let (parent, name) = match (&node.remote, &node.place) {
        (Some(remote), _) => (remote.parent?, canonical(&remote.name)),
        (None, Some(place)) => (place.parent, place.name.clone()),
        (None, None) => return None,
    };
    Some(new_local(parent, name, node.mtime(), now))
}

/// A local view in which only the place and the time are set.
pub(super) fn new_local(parent: NodeId, name: String, mtime: Timestamp, now: Timestamp) -> LocalView {
    LocalView {
        parent,
        name,
        deleted: false,
        content: None,
        size: 0,
        mtime,
        mtime_set: false,
        seal: None,
        changed_at: now,
        changed_seq: 0,
        parked: None,
        tries: 0,
        retry_at: Timestamp(0),
        local_only: false,
    }
}

/// Neither on the service nor started from something there.
pub(super) fn is_never_sent(node: &Node) -> bool {
    node.remote.is_none() && node.base.is_none()
}

fn is_local_only(node: &Node) -> bool {
    node.local.as_ref().is_some_and(|local| local.local_only)
}

/// Within [`RECENT`] before now; a clock that was set back counts as recent.
fn is_recent(then: Timestamp, now: Timestamp) -> bool {
    i128::from(now.0) - i128::from(then.0) <= RECENT.as_nanos() as i128
}
