//! The operations the kernel asks for, each handed to the drive it is for.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::catalog::To;
use super::{Forest, Outside, Owner, Place, to_the_end};
use crate::model::{Ino, NodeId};
use crate::vfs::xattr::is_pin;
use crate::vfs::{
    Allocate, Attr, Caller, DirEntry, Entry, FileType, Filesystem, Handle, Lookup, NAME_MAX, OpenFlags,
    Opened, OpenedDir, RenameMode, Seek, SetAttr, StatFs, UNKNOWN_SPACE, Vfs, VfsError, XattrMode,
};

/// Cookies of `.` and `..`; an entry's is its number and the latter.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

impl<O: Outside> Forest<O> {
    /// The drive that a node is of, put together now if it is not yet.
    async fn of(&self, ino: Ino) -> Result<Arc<Vfs<O::Drive>>, VfsError> {
        match self.0.owner(ino) {
            Owner::Drive(files) => Ok(files),
            Owner::Made(_) => Err(VfsError::ReadOnly),
            Owner::Closed => self.open(ino.slot()).await,
        }
    }

    /// A directory that something is to be changed in.
    async fn changeable(&self, ino: Ino) -> Result<(Arc<Vfs<O::Drive>>, Ino), VfsError> {
        match self.directory(ino).await? {
            Place::Made(_) => Err(VfsError::ReadOnly),
            Place::In(files, dir) => Ok((files, dir)),
        }
    }

    /// The drive that attributes of a node come from; none for what is made up, and for the root of a drive that
    /// nobody went into yet: nothing of it is known, and nobody is asked.
    async fn attributed(&self, ino: Ino) -> Result<Option<Arc<Vfs<O::Drive>>>, VfsError> {
        match self.0.owner(ino) {
            Owner::Drive(files) => Ok(Some(files)),
            Owner::Made(_) => Ok(None),
            Owner::Closed if ino.node() == NodeId::ROOT && ino.slot() != 0 => Ok(None),
            Owner::Closed => self.open(ino.slot()).await.map(Some),
        }
    }

    /// As [`Forest::of`], for an attribute: what is pinned of a shortcut is what it leads to.
    async fn of_attribute(&self, ino: Ino, name: &OsStr) -> Result<(Arc<Vfs<O::Drive>>, Ino), VfsError> {
        if !is_pin(name) {
            return Ok((self.of(ino).await?, ino));
        }
        self.changeable(ino).await
    }

    /// Attributes of what is made up, and of roots that nobody went into.
    fn made_attr(&self, ino: Ino) -> Attr {
        let (born, config) = (self.0.born, &self.0.config);
        Attr {
            ino,
            size: 4096,
            blocks: 0,
            mtime: born,
            atime: born,
            ctime: born,
            btime: born,
            file_type: FileType::Directory,
            // Who may not change it is told so by the error that says why.
            mode: config.dir_mode,
            nlink: 2,
            uid: config.uid,
            gid: config.gid,
        }
    }

    async fn made_entry(&self, to: To) -> Result<Entry, VfsError> {
        let (attr, attr_ttl) = self.getattr(to.ino(), None).await?;
        Ok(Entry { attr, entry_ttl: self.0.config.entry_ttl, attr_ttl })
    }

    async fn made_lookup(&self, node: u32, name: &OsStr) -> Result<Lookup, VfsError> {
        let folded = self.0.config.case_insensitive;
        let find = || self.0.catalog().child(node, name, folded);
        let mut found = find();
        let known = self.0.catalog().made.get(&node).is_some_and(|made| made.read);
        if found.is_none() && (!known || self.0.is_stale(node)) {
            let forest = self.clone();
            match to_the_end(async move { forest.refresh(node, Some(super::FRESH)).await }).await {
                Ok(()) => found = find(),
                Err(error) if !known => return Err(error),
                Err(error) => tracing::debug!(%error, "a listing could not be read again"),
            }
        }
        match found {
            Some(to) => Ok(Lookup::Found(self.made_entry(to).await?)),
            // It may come at any time, and a look at what is known here costs no request.
            None => Ok(Lookup::Absent(Duration::ZERO)),
        }
    }

    async fn made_entries(&self, node: u32, after: u64, max: usize) -> Result<Vec<DirEntry>, VfsError> {
        let (parent, children) = {
            let catalog = self.0.catalog();
            let made = catalog.made.get(&node).ok_or(VfsError::Stale)?;
            let mut children: Vec<_> = made.children.iter().map(|child| (child.to, child.name())).collect();
            children.sort_by_key(|(to, _)| to.number());
            (made.parent, children)
        };
        let dot = |name: &str, node: u32, cookie| DirEntry {
            name: name.into(),
            ino: To::Made(node).ino(),
            file_type: FileType::Directory,
            cookie,
            entry: None,
        };
        let mut entries = Vec::new();
        if after < DOT {
            entries.push(dot(".", node, DOT));
        }
        if after < DOT_DOT {
            entries.push(dot("..", parent, DOT_DOT));
        }
        for (to, name) in children {
            let cookie = to.number() + DOT_DOT;
            if cookie <= after || entries.len() >= max {
                continue;
            }
            // A drive that cannot be asked for its attributes must not hide the others.
            let entry = self.made_entry(to).await.ok();
            entries.push(DirEntry { name, ino: to.ino(), file_type: FileType::Directory, cookie, entry });
        }
        entries.truncate(max);
        Ok(entries)
    }
}

impl<O: Outside> Filesystem for Forest<O> {
    async fn lookup(&self, caller: Caller, parent: Ino, name: &OsStr) -> Result<Lookup, VfsError> {
        match self.directory(parent).await? {
            Place::Made(node) => self.made_lookup(node, name).await,
            Place::In(files, dir) => files.lookup(caller, dir, name).await,
        }
    }

    async fn getattr(&self, ino: Ino, handle: Option<Handle>) -> Result<(Attr, Duration), VfsError> {
        if let Some(files) = self.attributed(ino).await? {
            return files.getattr(ino, handle).await;
        }
        if ino.slot() != 0 {
            return Ok((self.made_attr(ino), Duration::ZERO));
        }
        let known = u32::try_from(ino.node().0).is_ok_and(|node| self.0.catalog().made.contains_key(&node));
        let attr = known.then(|| self.made_attr(ino)).ok_or(VfsError::Stale)?;
        Ok((attr, self.0.config.attr_ttl))
    }

    async fn setattr(
        &self,
        caller: Caller,
        ino: Ino,
        changes: SetAttr,
    ) -> Result<(Attr, Duration), VfsError> {
        self.of(ino).await?.setattr(caller, ino, changes).await
    }

    async fn readlink(&self, ino: Ino) -> Result<Vec<u8>, VfsError> {
        self.of(ino).await?.readlink(ino).await
    }

    async fn mkdir(&self, caller: Caller, parent: Ino, name: &OsStr, mode: u32) -> Result<Entry, VfsError> {
        let (files, dir) = self.changeable(parent).await?;
        let made = files.mkdir(caller, dir, name, mode).await?;
        self.tell_others(dir, parent, name);
        Ok(made)
    }

    async fn symlink(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
        target: &Path,
    ) -> Result<Entry, VfsError> {
        let (files, dir) = self.changeable(parent).await?;
        let made = files.symlink(caller, dir, name, target).await?;
        self.tell_others(dir, parent, name);
        Ok(made)
    }

    async fn unlink(&self, caller: Caller, parent: Ino, name: &OsStr) -> Result<(), VfsError> {
        let (files, dir) = self.changeable(parent).await?;
        let done = files.unlink(caller, dir, name).await;
        self.tell_others(dir, parent, name);
        done
    }

    async fn rmdir(&self, caller: Caller, parent: Ino, name: &OsStr) -> Result<(), VfsError> {
        let (files, dir) = self.changeable(parent).await?;
        let done = files.rmdir(caller, dir, name).await;
        self.tell_others(dir, parent, name);
        done
    }

    async fn rename(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
        new_parent: Ino,
        new_name: &OsStr,
        mode: RenameMode,
    ) -> Result<(), VfsError> {
        let (files, dir) = self.changeable(parent).await?;
        let (_, new_dir) = self.changeable(new_parent).await?;
        if dir.slot() != new_dir.slot() {
            return Err(VfsError::CrossDevice);
        }
        let done = files.rename(caller, dir, name, new_dir, new_name, mode).await;
        self.tell_others(dir, parent, name);
        self.tell_others(new_dir, new_parent, new_name);
        done
    }

    async fn open(&self, caller: Caller, ino: Ino, flags: OpenFlags) -> Result<Opened, VfsError> {
        self.of(ino).await?.open(caller, ino, flags).await
    }

    async fn create(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened), VfsError> {
        let (files, dir) = self.changeable(parent).await?;
        let made = files.create(caller, dir, name, mode, flags).await?;
        self.tell_others(dir, parent, name);
        Ok(made)
    }

    async fn read(&self, ino: Ino, handle: Handle, offset: u64, size: u32) -> Result<Bytes, VfsError> {
        self.of(ino).await?.read(ino, handle, offset, size).await
    }

    async fn write(&self, ino: Ino, handle: Handle, offset: u64, data: Bytes) -> Result<u32, VfsError> {
        self.of(ino).await?.write(ino, handle, offset, data).await
    }

    async fn append(&self, ino: Ino, handle: Handle, offset: u64, data: Bytes) -> Result<u32, VfsError> {
        self.of(ino).await?.append(ino, handle, offset, data).await
    }

    async fn flush(&self, ino: Ino, handle: Handle) -> Result<(), VfsError> {
        self.of(ino).await?.flush(ino, handle).await
    }

    async fn fsync(&self, ino: Ino, handle: Handle, data_only: bool) -> Result<(), VfsError> {
        self.of(ino).await?.fsync(ino, handle, data_only).await
    }

    async fn release(&self, ino: Ino, handle: Handle) {
        if let Some(files) = self.0.drive(ino.slot()) {
            files.release(ino, handle).await;
        }
    }

    async fn opendir(&self, ino: Ino) -> Result<OpenedDir, VfsError> {
        match self.directory(ino).await? {
            Place::Made(node) => {
                self.ensure_read(node).await?;
                Ok(OpenedDir { handle: Handle(0), cache: false })
            }
            Place::In(files, dir) => {
                let opened = files.opendir(dir).await?;
                if dir != ino {
                    self.0.through.insert((ino, opened.handle), dir.slot());
                }
                Ok(opened)
            }
        }
    }

    async fn readdir(
        &self,
        ino: Ino,
        handle: Handle,
        after: u64,
        max: usize,
    ) -> Result<Vec<DirEntry>, VfsError> {
        if let Owner::Made(node) = self.0.owner(ino) {
            return self.made_entries(node, after, max).await;
        }
        let through = self.0.through.get(&(ino, handle)).map(|slot| *slot);
        let Some(slot) = through else { return self.of(ino).await?.readdir(ino, handle, after, max).await };
        let files = self.open(slot).await?;
        let mut entries = files.readdir(Ino::new(slot, NodeId::ROOT), handle, after, max).await?;
        let dots = entries.iter_mut().filter(|entry| entry.name == "." || entry.name == "..");
        dots.for_each(|dot| dot.ino = ino);
        Ok(entries)
    }

    async fn releasedir(&self, ino: Ino, handle: Handle) {
        let through = self.0.through.remove(&(ino, handle)).map(|(_, slot)| slot);
        if let Some(files) = self.0.drive(through.unwrap_or(ino.slot())) {
            files.releasedir(ino, handle).await;
        }
    }

    async fn fsyncdir(&self, ino: Ino, handle: Handle) -> Result<(), VfsError> {
        match self.directory(ino).await? {
            Place::Made(_) => Ok(()),
            Place::In(files, dir) => files.fsyncdir(dir, handle).await,
        }
    }

    fn statfs(&self, ino: Ino) -> StatFs {
        let here = self.0.drive(ino.slot());
        let there = here.clone().and_then(|files| self.0.entered(ino.slot(), files, ino.node()).ok());
        match there.map(|(_, files, _)| files).or(here) {
            Some(files) => files.statfs(ino),
            None => StatFs { total: UNKNOWN_SPACE, free: UNKNOWN_SPACE, files: 0, name_max: NAME_MAX },
        }
    }

    async fn setxattr(
        &self,
        caller: Caller,
        ino: Ino,
        name: &OsStr,
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), VfsError> {
        let (files, ino) = self.of_attribute(ino, name).await?;
        files.setxattr(caller, ino, name, value, mode).await
    }

    async fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>, VfsError> {
        let files = self.attributed(ino).await?.ok_or(VfsError::NoAttribute)?;
        let (files, ino) = if is_pin(name) { self.changeable(ino).await? } else { (files, ino) };
        files.getxattr(ino, name).await
    }

    async fn listxattr(&self, ino: Ino) -> Result<Vec<u8>, VfsError> {
        match self.attributed(ino).await? {
            Some(files) => files.listxattr(ino).await,
            None => Ok(Vec::new()),
        }
    }

    async fn removexattr(&self, caller: Caller, ino: Ino, name: &OsStr) -> Result<(), VfsError> {
        let (files, ino) = self.of_attribute(ino, name).await?;
        files.removexattr(caller, ino, name).await
    }

    async fn fallocate(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        length: u64,
        what: Allocate,
    ) -> Result<(), VfsError> {
        self.of(ino).await?.fallocate(ino, handle, offset, length, what).await
    }

    async fn lseek(&self, ino: Ino, handle: Handle, offset: u64, whence: Seek) -> Result<u64, VfsError> {
        self.of(ino).await?.lseek(ino, handle, offset, whence).await
    }

    async fn copy_file_range(
        &self,
        ino_in: Ino,
        handle_in: Handle,
        offset_in: u64,
        ino_out: Ino,
        handle_out: Handle,
        offset_out: u64,
        length: u64,
    ) -> Result<u64, VfsError> {
        if ino_in.slot() != ino_out.slot() {
            // The kernel copies by reading and writing then.
            return Err(VfsError::NotSupported);
        }
        let files = self.of(ino_in).await?;
        let to = (ino_out, handle_out, offset_out);
        files.copy_file_range(ino_in, handle_in, offset_in, to.0, to.1, to.2, length).await
    }
}
