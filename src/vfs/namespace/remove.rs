//! Names that go away.

use super::{Effect, Halt, Name, Namespace, is_local_only, is_never_sent};
use crate::model::NodeId;
use crate::store::{Node, NodeKind};
use crate::vfs::VfsError;

impl Namespace<'_, '_, '_> {
    /// Removes a name that is not a directory's.
    pub fn unlink(mut self, parent: NodeId, name: &Name) -> Result<Effect, Halt> {
        self.folder(parent)?;
        let node = self.lookup(parent, name)?;
        if node.kind.is_directory() {
            return Err(VfsError::IsDirectory.into());
        }
        let node = self.give_back_to_the_save(node)?;
        self.retire(&node)?;
        self.bump(parent)?;
        Ok(self.finish())
    }

    /// Removes an empty directory; its children are all known.
    pub fn rmdir(mut self, parent: NodeId, name: &Name) -> Result<Effect, Halt> {
        self.folder(parent)?;
        let node = self.lookup(parent, name)?;
        match node.kind {
            NodeKind::File | NodeKind::Symlink => return Err(VfsError::NotDirectory.into()),
            NodeKind::Package => return Err(VfsError::NotPermitted.into()),
            // It alone goes: what it leads to is not in it.
            NodeKind::Folder | NodeKind::Stub | NodeKind::Shortcut => {}
        }
        if self.tx.has_children(node.id)? {
            return Err(VfsError::NotEmpty.into());
        }
        self.retire(&node)?;
        self.bump(parent)?;
        Ok(self.finish())
    }

    /// Takes the node out of the tree. What the service has of it is to be deleted there; what only this
    /// machine has goes at once, unless a handle is open or an operation on it is under way.
    pub(super) fn retire(&mut self, node: &Node) -> Result<(), VfsError> {
        let busy = (self.context.is_open)(node.id) || self.tx.attempt(node.id)?.is_some();
        let content = node.local.as_ref().and_then(|local| local.content);
        if !busy && (is_never_sent(node) || is_local_only(node)) {
            self.tx.remove(node.id)?;
            return self.drop_content(content);
        }
        self.change(node, |local| {
            local.deleted = true;
            if !busy {
                local.content = None;
                local.seal = None;
            }
        })?;
        self.drop_content(content.filter(|_| !busy))
    }

    fn drop_content(&mut self, content: Option<u64>) -> Result<(), VfsError> {
        if let Some(content) = content {
            self.effect.dropped.push(content);
        }
        Ok(())
    }
}
