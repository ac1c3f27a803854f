//! POSIX semantics over store and content: namespace, names, handles, attributes.
//!
//! Each method answers without awaiting when everything it needs is on this machine, so that its caller
//! may poll it once and hand it to a task only when it must wait for the service.
//!
//! Lock order, outer first: an open file's state, the store's writer. No lock is held over an await.

mod api;
mod attr;
mod body;
mod config;
mod denied;
mod dir;
mod drive;
mod error;
mod file;
mod filesystem;
pub mod forest;
mod garbage;
mod handles;
mod io;
mod names;
pub mod namespace;
mod open;
mod over_engine;
mod setattr;
#[cfg(test)]
mod tests;
mod through;
mod types;
mod xattr;

use std::sync::Arc;

use crate::model::{Ino, ItemId, NodeId};
use crate::store::{Node, NodeKind};
use attr::Shown;
use garbage::Garbage;
use handles::Handles;

pub use api::Filesystem;
pub use config::VfsConfig;
pub use drive::Drive;
pub use error::VfsError;
pub use through::{Lender, Lent};
pub use types::*;

/// Longest name in bytes: 255 UTF-16 units, of which each may take three.
const NAME_MAX: u32 = 765;
/// Space of a drive that does not say: 1 PiB.
const UNKNOWN_SPACE: u64 = 1 << 50;

/// A drive as a file system.
pub struct Vfs<D: Drive> {
    drive: D,
    config: VfsConfig,
    handles: Handles,
    garbage: Arc<Garbage>,
    /// None: the kernel reads nothing by itself.
    lender: Option<Arc<dyn Lender>>,
}

impl<D: Drive> std::fmt::Debug for Vfs<D> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Vfs").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<D: Drive> Vfs<D> {
    /// A file system over the drive.
    pub fn new(drive: D, config: VfsConfig) -> Self {
        let garbage = Garbage::new(drive.store().clone(), drive.staging().clone());
        Self { drive, config, handles: Handles::default(), garbage, lender: None }
    }

    /// Has the kernel read complete files by itself, as far as `lender` can make them known to it.
    pub fn lending(self, lender: Arc<dyn Lender>) -> Self {
        Self { lender: Some(lender), ..self }
    }

    /// The drive below.
    pub fn drive(&self) -> &D {
        &self.drive
    }

    /// Closes every handle: the mount has ended.
    ///
    /// The kernel drops the RELEASE requests that wait when a mount ends; a file would count as being written
    /// for ever, and never be sent.
    pub fn release_all(&self) {
        for (id, handle) in self.handles.all() {
            self.release_handle(id, handle);
        }
    }

    /// Unlinks what is no longer needed, before the end.
    pub fn shutdown(&self) {
        self.garbage.collect();
    }

    /// The item of a shortcut to another drive, if that is what the node is.
    pub(crate) fn shortcut(&self, id: NodeId) -> Result<Option<ItemId>, VfsError> {
        if id == NodeId::ROOT {
            return Ok(None);
        }
        let node = self.drive.store().node(id)?;
        let shortcut = node.filter(|node| node.kind == NodeKind::Shortcut && node.place.is_some());
        Ok(shortcut.and_then(|node| node.content_view().map(|view| view.item.clone())))
    }

    fn id(&self, ino: Ino) -> Result<NodeId, VfsError> {
        if ino.slot() == self.config.slot { Ok(ino.node()) } else { Err(VfsError::Stale) }
    }

    fn node(&self, id: NodeId) -> Result<Arc<Node>, VfsError> {
        self.drive.store().node(id)?.ok_or(VfsError::Stale)
    }

    fn may_change(&self) -> Result<(), VfsError> {
        if self.config.read_only { Err(VfsError::ReadOnly) } else { Ok(()) }
    }

    fn discard(&self, dropped: Vec<u64>) {
        self.garbage.add(dropped);
    }

    /// What an open file knows better than the store.
    fn shown(&self, id: NodeId) -> Option<Shown> {
        self.handles.open_file(id).and_then(|file| file.shown())
    }

    fn attr_of(&self, node: &Node) -> Attr {
        attr::attr(&self.config, node, self.shown(node.id))
    }

    fn attr_ttl(&self, id: NodeId) -> std::time::Duration {
        if self.drive.has_writer(id) { std::time::Duration::ZERO } else { self.config.attr_ttl }
    }

    fn entry(&self, node: &Node) -> Entry {
        Entry { attr: self.attr_of(node), entry_ttl: self.config.entry_ttl, attr_ttl: self.attr_ttl(node.id) }
    }

    fn attributes(&self, id: NodeId) -> Result<(Attr, std::time::Duration), VfsError> {
        let node = self.node(id)?;
        Ok((self.attr_of(&node), self.attr_ttl(id)))
    }

    fn space(&self) -> StatFs {
        let quota = self.drive.quota().filter(|quota| quota.total > 0);
        let (total, free) = match quota {
            Some(quota) if quota.exceeded => (quota.total, 0),
            Some(quota) => (quota.total, quota.remaining.min(quota.total)),
            None => (UNKNOWN_SPACE, UNKNOWN_SPACE),
        };
        StatFs { total, free, files: self.drive.store().count().unwrap_or(0), name_max: NAME_MAX }
    }
}
