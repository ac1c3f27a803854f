//! Changes of attributes.

use std::time::Duration;

use super::namespace::{Namespace, Owner};
use super::{Attr, Drive, SetAttr, SetTime, Vfs, VfsError};
use crate::model::{NodeId, Timestamp};
use crate::store::{Durability, NodeKind};

impl<D: Drive> Vfs<D> {
    pub(super) fn set_attributes(&self, id: NodeId, changes: SetAttr) -> Result<(Attr, Duration), VfsError> {
        let node = self.node(id)?;
        if let Some(size) = changes.size {
            match node.kind {
                NodeKind::File => self.resize(id, size)?,
                NodeKind::Symlink => return Err(VfsError::Invalid),
                _ => return Err(VfsError::IsDirectory),
            }
        }
        let owner =
            Owner { mode: changes.mode.map(|mode| mode & 0o7777), uid: changes.uid, gid: changes.gid };
        let mtime = changes.mtime.map(|time| match time {
            SetTime::Now => self.now(),
            SetTime::At(time) => time,
        });
        if owner != Owner::default() || mtime.is_some() {
            if node.kind == NodeKind::Package {
                return Err(VfsError::NotPermitted);
            }
            self.set_in_store(id, owner, mtime)?;
        }
        self.attributes(id)
    }

    fn set_in_store(&self, id: NodeId, owner: Owner, mtime: Option<Timestamp>) -> Result<(), VfsError> {
        self.change_tree(&[], |tx, context| {
            let mut change = Namespace::new(tx, context);
            if owner != Owner::default() {
                change.set_attrs(id, owner)?;
            }
            if let Some(mtime) = mtime {
                change.set_mtime(id, mtime)?;
            }
            Ok(((), change.finish()))
        })?;
        if let (Some(mtime), Some(file)) = (mtime, self.handles.open_file(id)) {
            // A file that was closed meanwhile shows the time from the store.
            file.with_open(|state| state.set_time(mtime));
        }
        Ok(())
    }

    /// Truncates or extends.
    fn resize(&self, id: NodeId, size: u64) -> Result<(), VfsError> {
        let file = self.join(id, true)?;
        let resized = file.with(|state| {
            if state.body.size() == size {
                return Ok(());
            }
            state.make_writable(&self.drive, size == 0)?;
            state.resize(size)?;
            state.touched(self.now());
            state.record(&self.drive, Durability::Process)?;
            Ok(())
        });
        self.leave(&file, true);
        resized
    }
}
