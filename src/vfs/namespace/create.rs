//! New files, folders and symbolic links.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Created, Halt, Name, Namespace, Owner, new_local};
use crate::model::NodeId;
use crate::store::{Node, NodeKind};
use crate::vfs::VfsError;

impl Namespace<'_, '_, '_> {
    /// A new, empty file; its bytes will be in staging under `content`, which the caller makes.
    ///
    /// If an item was moved away from this name, or deleted under it, moments ago, the new file takes that
    /// item: the save becomes one replacement of its content (design 3).
    pub fn create(
        mut self,
        parent: NodeId,
        name: &Name,
        content: u64,
        owner: Owner,
    ) -> Result<Created, Halt> {
        let local_only = name.is_scratch();
        self.check_new(parent, name, local_only)?;
        let id = self.new_node(NodeKind::File, parent, name, owner, |local| {
            local.content = Some(content);
            local.local_only = local_only;
        })?;
        if !local_only {
            self.take_what_was_moved_aside(id)?;
        }
        self.done(id)
    }

    /// A new folder.
    pub fn mkdir(mut self, parent: NodeId, name: &Name, owner: Owner) -> Result<Created, Halt> {
        self.check_new(parent, name, false)?;
        let id = self.new_node(NodeKind::Folder, parent, name, owner, |_| {})?;
        self.tx.set_listed(id, true)?;
        self.done(id)
    }

    /// A new symbolic link, kept on this machine.
    pub fn symlink(
        mut self,
        parent: NodeId,
        name: &Name,
        target: &Path,
        owner: Owner,
    ) -> Result<Created, Halt> {
        self.check_new(parent, name, true)?;
        let id = self.new_node(NodeKind::Symlink, parent, name, owner, |local| local.local_only = true)?;
        self.tx.set_target(id, target.as_os_str().as_bytes())?;
        self.done(id)
    }

    fn check_new(&self, parent: NodeId, name: &Name, stays_here: bool) -> Result<(), VfsError> {
        self.folder(parent)?;
        if !stays_here {
            name.may_be_sent(parent)?;
            self.must_fit(parent, name)?;
        }
        self.must_be_free(parent, name, None)
    }

    fn new_node(
        &mut self,
        kind: NodeKind,
        parent: NodeId,
        name: &Name,
        owner: Owner,
        edit: impl FnOnce(&mut crate::store::LocalView),
    ) -> Result<NodeId, VfsError> {
        let now = self.context.now;
        let id = self.tx.insert(kind)?;
        let mut local = new_local(parent, name.remote().to_owned(), now, now);
        local.changed_seq = self.tx.next_sequence();
        edit(&mut local);
        self.tx.set_local(id, Some(&local))?;
        self.tx.set_ctime(id, now)?;
        if owner != Owner::default() {
            self.tx.set_attrs(id, owner.mode, owner.uid, owner.gid)?;
        }
        self.bump(parent)?;
        Ok(id)
    }

    fn done(self, id: NodeId) -> Result<Created, Halt> {
        let node: Node = self.tx.node(id)?;
        Ok(Created { node, effect: self.effect })
    }
}
