//! What the kernel's protocol needs of a file system: the border between `fuse` and `vfs`.
//!
//! A trait, so that the adapter can be tested over a small file system in memory.

use std::ffi::OsStr;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::{
    Allocate, Attr, Caller, DirEntry, Entry, Handle, Lookup, OpenFlags, Opened, OpenedDir, RenameMode, Seek,
    SetAttr, StatFs, VfsError, XattrMode,
};
use crate::model::Ino;

/// The operations of a mounted file system.
///
/// Each future answers at its first poll when everything it needs is on this machine; what it returns must
/// have been read after its last await, because the kernel is told of changes only in that order.
/// Dropping a future is a normal event (deadline, fatal signal, unmount), except those of
/// [`flush`](Self::flush), [`fsync`](Self::fsync), [`release`](Self::release) and
/// [`releasedir`](Self::releasedir), which always run to their end.
/// Names arrive as single path components without a slash, never `.` or `..`; permissions have been checked
/// by the kernel (`default_permissions`).
pub trait Filesystem: Send + Sync + 'static {
    /// Finds `name` in `parent`.
    fn lookup(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
    ) -> impl Future<Output = Result<Lookup, VfsError>> + Send;

    /// The attributes of `ino` and how long the kernel may keep them. `Stale`: the row is gone.
    fn getattr(
        &self,
        ino: Ino,
        handle: Option<Handle>,
    ) -> impl Future<Output = Result<(Attr, Duration), VfsError>> + Send;

    /// Changes attributes and returns them all.
    fn setattr(
        &self,
        caller: Caller,
        ino: Ino,
        changes: SetAttr,
    ) -> impl Future<Output = Result<(Attr, Duration), VfsError>> + Send;

    /// The target of a symbolic link.
    fn readlink(&self, ino: Ino) -> impl Future<Output = Result<Vec<u8>, VfsError>> + Send;

    /// Creates a directory; the umask is already applied to `mode`.
    fn mkdir(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
    ) -> impl Future<Output = Result<Entry, VfsError>> + Send;

    /// Creates a symbolic link.
    fn symlink(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
        target: &Path,
    ) -> impl Future<Output = Result<Entry, VfsError>> + Send;

    /// Removes a name that is not a directory.
    fn unlink(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
    ) -> impl Future<Output = Result<(), VfsError>> + Send;

    /// Removes an empty directory.
    fn rmdir(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
    ) -> impl Future<Output = Result<(), VfsError>> + Send;

    /// Moves `name` of `parent` to `new_name` of `new_parent`.
    fn rename(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
        new_parent: Ino,
        new_name: &OsStr,
        mode: RenameMode,
    ) -> impl Future<Output = Result<(), VfsError>> + Send;

    /// Opens a file; never waits for its content.
    fn open(
        &self,
        caller: Caller,
        ino: Ino,
        flags: OpenFlags,
    ) -> impl Future<Output = Result<Opened, VfsError>> + Send;

    /// Creates and opens a file; the umask is already applied to `mode`.
    ///
    /// An existing file is opened unless `flags.exclusive`: the kernel's negative entry may have been old.
    fn create(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        flags: OpenFlags,
    ) -> impl Future<Output = Result<(Entry, Opened), VfsError>> + Send;

    /// Reads `size` bytes at `offset`; fewer only at the end of the file.
    fn read(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        size: u32,
    ) -> impl Future<Output = Result<Bytes, VfsError>> + Send;

    /// Writes `data` at `offset` and returns how many bytes were taken.
    fn write(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        data: Bytes,
    ) -> impl Future<Output = Result<u32, VfsError>> + Send;

    /// Writes `data` behind the last byte, where the kernel takes the file to end at `offset`: it may not know yet of a
    /// length that another client gave the file.
    fn append(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        data: Bytes,
    ) -> impl Future<Output = Result<u32, VfsError>> + Send;

    /// A descriptor of the handle was closed (handles opened for reading only never get here).
    fn flush(&self, ino: Ino, handle: Handle) -> impl Future<Output = Result<(), VfsError>> + Send;

    /// Makes bytes and record durable; `data_only` is fdatasync.
    fn fsync(
        &self,
        ino: Ino,
        handle: Handle,
        data_only: bool,
    ) -> impl Future<Output = Result<(), VfsError>> + Send;

    /// The last descriptor and map of the handle are gone.
    fn release(&self, ino: Ino, handle: Handle) -> impl Future<Output = ()> + Send;

    /// Opens a directory.
    fn opendir(&self, ino: Ino) -> impl Future<Output = Result<OpenedDir, VfsError>> + Send;

    /// At most `max` entries after the entry with cookie `after` (0: from the start); empty at the end.
    ///
    /// `.` and `..` are entries like others.
    fn readdir(
        &self,
        ino: Ino,
        handle: Handle,
        after: u64,
        max: usize,
    ) -> impl Future<Output = Result<Vec<DirEntry>, VfsError>> + Send;

    /// The last descriptor of the directory is gone.
    fn releasedir(&self, ino: Ino, handle: Handle) -> impl Future<Output = ()> + Send;

    /// Makes the directory's changes durable.
    fn fsyncdir(&self, ino: Ino, handle: Handle) -> impl Future<Output = Result<(), VfsError>> + Send;

    /// Space of the drive that the node is of, from what is cached; never waits.
    fn statfs(&self, ino: Ino) -> StatFs;

    /// Sets an extended attribute.
    fn setxattr(
        &self,
        caller: Caller,
        ino: Ino,
        name: &OsStr,
        value: &[u8],
        mode: XattrMode,
    ) -> impl Future<Output = Result<(), VfsError>> + Send;

    /// The value of an extended attribute. `NoAttribute`: there is none of that name.
    fn getxattr(&self, ino: Ino, name: &OsStr) -> impl Future<Output = Result<Vec<u8>, VfsError>> + Send;

    /// The names of the extended attributes, each followed by a NUL.
    fn listxattr(&self, ino: Ino) -> impl Future<Output = Result<Vec<u8>, VfsError>> + Send;

    /// Removes an extended attribute.
    fn removexattr(
        &self,
        caller: Caller,
        ino: Ino,
        name: &OsStr,
    ) -> impl Future<Output = Result<(), VfsError>> + Send;

    /// Reserves, punches or zeroes `length` bytes at `offset`.
    fn fallocate(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        length: u64,
        what: Allocate,
    ) -> impl Future<Output = Result<(), VfsError>> + Send;

    /// The next data or hole at or after `offset`. `NoData`: `offset` lies beyond the end.
    fn lseek(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        whence: Seek,
    ) -> impl Future<Output = Result<u64, VfsError>> + Send;

    /// Copies up to `length` bytes between two open files and returns how many were copied.
    /// `NotSupported`: the kernel copies by reading and writing.
    #[allow(clippy::too_many_arguments, reason = "the kernel's operation has these operands")]
    fn copy_file_range(
        &self,
        ino_in: Ino,
        handle_in: Handle,
        offset_in: u64,
        ino_out: Ino,
        handle_out: Handle,
        offset_out: u64,
        length: u64,
    ) -> impl Future<Output = Result<u64, VfsError>> + Send;
}
