//! The operations the kernel asks for, each handed to the part that knows.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::{
    Allocate, Attr, Caller, DirEntry, Drive, Entry, Filesystem, Handle, Lookup, OpenFlags, Opened, OpenedDir,
    RenameMode, Seek, SetAttr, StatFs, Vfs, VfsError, XattrMode,
};
use crate::model::Ino;

impl<D: Drive> Filesystem for Vfs<D> {
    async fn lookup(&self, _caller: Caller, parent: Ino, name: &OsStr) -> Result<Lookup, VfsError> {
        self.drive.used();
        self.lookup_in(self.id(parent)?, name).await
    }

    async fn getattr(&self, ino: Ino, _handle: Option<Handle>) -> Result<(Attr, Duration), VfsError> {
        self.attributes(self.id(ino)?)
    }

    async fn setattr(
        &self,
        _caller: Caller,
        ino: Ino,
        changes: SetAttr,
    ) -> Result<(Attr, Duration), VfsError> {
        self.may_change()?;
        self.set_attributes(self.id(ino)?, changes)
    }

    async fn readlink(&self, ino: Ino) -> Result<Vec<u8>, VfsError> {
        let node = self.node(self.id(ino)?)?;
        let target = node.attrs.target.as_ref().ok_or(VfsError::Invalid)?;
        Ok(target.as_os_str().as_bytes().to_vec())
    }

    async fn mkdir(&self, caller: Caller, parent: Ino, name: &OsStr, mode: u32) -> Result<Entry, VfsError> {
        self.may_change()?;
        self.make_dir(caller, self.id(parent)?, name, mode).await
    }

    async fn symlink(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
        target: &Path,
    ) -> Result<Entry, VfsError> {
        self.may_change()?;
        self.make_symlink(caller, self.id(parent)?, name, target).await
    }

    async fn unlink(&self, _caller: Caller, parent: Ino, name: &OsStr) -> Result<(), VfsError> {
        self.may_change()?;
        self.remove_name(self.id(parent)?, name, false).await
    }

    async fn rmdir(&self, _caller: Caller, parent: Ino, name: &OsStr) -> Result<(), VfsError> {
        self.may_change()?;
        self.remove_name(self.id(parent)?, name, true).await
    }

    async fn rename(
        &self,
        _caller: Caller,
        parent: Ino,
        name: &OsStr,
        new_parent: Ino,
        new_name: &OsStr,
        mode: RenameMode,
    ) -> Result<(), VfsError> {
        self.may_change()?;
        self.move_name((self.id(parent)?, name), (self.id(new_parent)?, new_name), mode).await
    }

    async fn open(&self, caller: Caller, ino: Ino, flags: OpenFlags) -> Result<Opened, VfsError> {
        if flags.write || flags.truncate {
            self.may_change()?;
        }
        self.drive.used();
        self.open_measured(caller, self.id(ino)?, flags).await
    }

    async fn create(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened), VfsError> {
        self.may_change()?;
        self.create_file(caller, self.id(parent)?, name, mode, flags).await
    }

    async fn read(&self, ino: Ino, handle: Handle, offset: u64, size: u32) -> Result<Bytes, VfsError> {
        self.read_at(self.id(ino)?, handle, offset, u64::from(size)).await
    }

    async fn write(&self, ino: Ino, handle: Handle, offset: u64, data: Bytes) -> Result<u32, VfsError> {
        self.write_at(self.id(ino)?, handle, offset, &data)
    }

    async fn append(&self, ino: Ino, handle: Handle, offset: u64, data: Bytes) -> Result<u32, VfsError> {
        self.write_behind(self.id(ino)?, handle, offset, &data)
    }

    async fn flush(&self, ino: Ino, handle: Handle) -> Result<(), VfsError> {
        self.flush_handle(self.id(ino)?, handle).await
    }

    async fn fsync(&self, ino: Ino, handle: Handle, _data_only: bool) -> Result<(), VfsError> {
        self.sync_handle(self.id(ino)?, handle)
    }

    async fn release(&self, ino: Ino, handle: Handle) {
        if let Ok(id) = self.id(ino) {
            self.end_of_stores(id, handle).await;
            self.release_handle(id, handle);
        }
    }

    async fn opendir(&self, ino: Ino) -> Result<OpenedDir, VfsError> {
        self.drive.used();
        self.open_directory(self.id(ino)?).await
    }

    async fn readdir(
        &self,
        ino: Ino,
        _handle: Handle,
        after: u64,
        max: usize,
    ) -> Result<Vec<DirEntry>, VfsError> {
        self.entries(self.id(ino)?, after, max)
    }

    async fn releasedir(&self, _ino: Ino, handle: Handle) {
        self.close_directory(handle);
    }

    async fn fsyncdir(&self, _ino: Ino, _handle: Handle) -> Result<(), VfsError> {
        self.sync_store()
    }

    fn statfs(&self, _ino: Ino) -> StatFs {
        self.space()
    }

    async fn setxattr(
        &self,
        _caller: Caller,
        ino: Ino,
        name: &OsStr,
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), VfsError> {
        self.may_change()?;
        if super::xattr::is_pin(name) {
            return self.write_pin(self.id(ino)?, value, mode).await;
        }
        self.write_xattr(self.id(ino)?, name, value, mode)
    }

    async fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>, VfsError> {
        self.read_xattr(self.id(ino)?, name)
    }

    async fn listxattr(&self, ino: Ino) -> Result<Vec<u8>, VfsError> {
        self.list_xattrs(self.id(ino)?)
    }

    async fn removexattr(&self, _caller: Caller, ino: Ino, name: &OsStr) -> Result<(), VfsError> {
        self.may_change()?;
        if super::xattr::is_pin(name) {
            return self.drop_pin(self.id(ino)?).await;
        }
        self.drop_xattr(self.id(ino)?, name)
    }

    async fn fallocate(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        length: u64,
        what: Allocate,
    ) -> Result<(), VfsError> {
        self.allocate(self.id(ino)?, handle, offset, length, what)
    }

    async fn lseek(&self, ino: Ino, handle: Handle, offset: u64, whence: Seek) -> Result<u64, VfsError> {
        self.seek(self.id(ino)?, handle, offset, whence)
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
        let from = (self.id(ino_in)?, handle_in, offset_in);
        let to = (self.id(ino_out)?, handle_out, offset_out);
        self.copy_range(from, to, length).await
    }
}
