//! Listings: cookies are row numbers, so a listing needs no snapshot and misses nothing that stays.

use super::attr::file_type;
use super::{DirEntry, Drive, FileType, Handle, OpenedDir, Vfs, VfsError};
use crate::model::{Ino, NodeId, names};
use crate::store::{Node, NodeKind};

/// Cookie of `.`.
const DOT: u64 = 1;
/// Cookie of `..`; a child's is its row and this.
const DOT_DOT: u64 = 2;

impl<D: Drive> Vfs<D> {
    pub(super) async fn open_directory(&self, id: NodeId) -> Result<OpenedDir, VfsError> {
        self.list(id).await?;
        let node = self.node(id)?;
        if !node.kind.is_directory() {
            return Err(VfsError::NotDirectory);
        }
        let handle = self.handles.open_dir(id);
        self.drive.opened(id, false);
        Ok(OpenedDir { handle, cache: node.listed })
    }

    pub(super) fn close_directory(&self, handle: Handle) {
        let Some(id) = self.handles.close_dir(handle) else { return };
        if self.drive.closed(id, false) {
            self.drive.released(id);
        }
    }

    /// Waits until the children are known, unless they are or there are none to know.
    pub(super) async fn list(&self, id: NodeId) -> Result<(), VfsError> {
        let node = self.node(id)?;
        let is_open_ended = matches!(node.kind, NodeKind::Folder | NodeKind::Stub) && !node.listed;
        if is_open_ended && (id == NodeId::ROOT || node.remote.is_some()) {
            self.drive.ensure_listed(id).await?;
        }
        Ok(())
    }

    pub(super) fn entries(&self, id: NodeId, after: u64, max: usize) -> Result<Vec<DirEntry>, VfsError> {
        let node = self.node(id)?;
        let mut entries = Vec::new();
        if after < DOT {
            entries.push(self.dot(".", id, DOT));
        }
        if after < DOT_DOT {
            let parent = node.place.as_ref().map_or(NodeId::ROOT, |place| place.parent);
            entries.push(self.dot("..", parent, DOT_DOT));
        }
        entries.truncate(max);
        let first = NodeId(i64::try_from(after.saturating_sub(DOT_DOT)).unwrap_or(i64::MAX));
        let room = max - entries.len();
        if room > 0 {
            let children = self.drive.store().children_after(id, first, room)?;
            entries.extend(children.iter().filter_map(|child| self.dir_entry(child)));
        }
        Ok(entries)
    }

    fn dot(&self, name: &str, id: NodeId, cookie: u64) -> DirEntry {
        let ino = Ino::new(self.config.slot, id);
        DirEntry { name: name.into(), ino, file_type: FileType::Directory, cookie, entry: None }
    }

    fn dir_entry(&self, child: &Node) -> Option<DirEntry> {
        let place = child.place.as_ref()?;
        Some(DirEntry {
            name: names::to_local(&place.name),
            ino: Ino::new(self.config.slot, child.id),
            file_type: file_type(child.kind),
            cookie: child.id.0 as u64 + DOT_DOT,
            entry: Some(self.entry(child)),
        })
    }
}
