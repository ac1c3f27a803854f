//! Decodes each request of the kernel and calls [`Server::serve`] with the operation and its reply.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, INodeNo, IoctlFlags, KernelConfig, LockOwner,
    PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::answers::{self, Fit};
use super::convert;
use super::known::Known;
use super::metrics::Op;
use super::negotiate::{Features, configure};
use super::notify::NotifyHandle;
use super::privileges;
use super::serve::{Call, Patience, Server};
use crate::model::Ino;
use crate::vfs::{Caller, Filesystem, Handle, OpenFlags, SetAttr, VfsError};

/// The most a COPY_FILE_RANGE answer can count, in whole pages.
const MAX_COPY_BYTES: u64 = u32::MAX as u64 - 4095;

/// What a program that asks how long the list of attributes is gets to spare, in bytes. (The kernel hands the number
/// on; a list that is shorter than it is none the worse.)
const SPARE_NAMES: usize = 1024;

/// The file system as the library wants to see it.
pub(super) struct Adapter<F> {
    files: Arc<F>,
    server: Server,
    features: Features,
    notify: NotifyHandle,
    plain_fit: Arc<Fit>,
    plus_fit: Arc<Fit>,
}

impl<F: Filesystem> Adapter<F> {
    pub(super) fn new(files: Arc<F>, server: Server, features: Features, notify: NotifyHandle) -> Self {
        // A buffer of 32 KiB, which is what getdents of common programs leads to.
        let (plain_fit, plus_fit) = (Fit::starting_at(768), Fit::starting_at(192));
        Self { files, server, features, notify, plain_fit, plus_fit }
    }

    fn known(&self) -> Arc<Known> {
        self.notify.known()
    }

    fn files(&self) -> Arc<F> {
        Arc::clone(&self.files)
    }
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

fn call(op: Op, request: &Request, ino: INodeNo) -> Call {
    Call { op, request: request.unique().0, tid: request.pid(), ino: Ino(ino.0), handle: None }
}

fn call_on(op: Op, request: &Request, ino: INodeNo, handle: FileHandle) -> Call {
    Call { handle: Some(Handle(handle.0)), ..call(op, request, ino) }
}

impl<F: Filesystem> fuser::Filesystem for Adapter<F> {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        configure(config, self.features);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (files, caller, name) = (self.files(), caller(request), name.to_owned());
        let operation = async move { files.lookup(caller, Ino(parent.0), &name).await };
        let call = call(Op::Lookup, request, parent);
        self.server.serve(call, Patience::Metadata, operation, answers::lookup(reply, self.known()));
    }

    /// Nodes are rows of the store; nothing is kept per lookup.
    fn forget(&self, _request: &Request, _ino: INodeNo, _lookups: u64) {}

    fn getattr(&self, request: &Request, ino: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let (files, handle) = (self.files(), handle.map(|handle| Handle(handle.0)));
        let operation = async move { files.getattr(Ino(ino.0), handle).await };
        let call = Call { handle, ..call(Op::Getattr, request, ino) };
        self.server.serve(call, Patience::Metadata, operation, answers::attr(reply));
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes = SetAttr {
            mode: mode.map(|mode| (mode & 0o7777) as u16),
            uid,
            gid,
            size,
            atime: atime.map(convert::set_time),
            mtime: mtime.map(convert::set_time),
            handle: handle.map(|handle| Handle(handle.0)),
        };
        let (files, caller) = (self.files(), caller(request));
        let operation = async move { privileges::setattr(&*files, caller, Ino(ino.0), changes).await };
        let call = Call { handle: changes.handle, ..call(Op::Setattr, request, ino) };
        self.server.serve(call, Patience::Metadata, operation, answers::attr(reply));
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let files = self.files();
        let operation = async move { files.readlink(Ino(ino.0)).await.map(Bytes::from) };
        let call = call(Op::Readlink, request, ino);
        self.server.serve(call, Patience::Metadata, operation, answers::bytes(reply));
    }

    /// Regular files only: the service knows no devices, pipes or sockets.
    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _device: u32,
        reply: ReplyEntry,
    ) {
        let (files, caller, name) = (self.files(), caller(request), name.to_owned());
        let operation = async move {
            if ![0, libc::S_IFREG].contains(&(mode & libc::S_IFMT)) {
                return Err(VfsError::NotPermitted);
            }
            let flags = OpenFlags { exclusive: true, ..OpenFlags::default() };
            let mode = mode & !umask & 0o7777;
            let (entry, opened) = files.create(caller, Ino(parent.0), &name, mode, flags).await?;
            files.release(entry.attr.ino, opened.handle).await;
            Ok(entry)
        };
        let call = call(Op::Mknod, request, parent);
        self.server.serve(call, Patience::Metadata, operation, answers::entry(reply, self.known()));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let (files, caller, name) = (self.files(), caller(request), name.to_owned());
        let mode = mode & !umask & 0o7777;
        let operation = async move { files.mkdir(caller, Ino(parent.0), &name, mode).await };
        let call = call(Op::Mkdir, request, parent);
        self.server.serve(call, Patience::Metadata, operation, answers::entry(reply, self.known()));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (files, caller, name) = (self.files(), caller(request), name.to_owned());
        let operation = async move { files.unlink(caller, Ino(parent.0), &name).await };
        let call = call(Op::Unlink, request, parent);
        self.server.serve(call, Patience::Metadata, operation, answers::empty(reply));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (files, caller, name) = (self.files(), caller(request), name.to_owned());
        let operation = async move { files.rmdir(caller, Ino(parent.0), &name).await };
        let call = call(Op::Rmdir, request, parent);
        self.server.serve(call, Patience::Metadata, operation, answers::empty(reply));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (files, caller, name) = (self.files(), caller(request), name.to_owned());
        let target = target.to_owned();
        let operation = async move { files.symlink(caller, Ino(parent.0), &name, &target).await };
        let call = call(Op::Symlink, request, parent);
        self.server.serve(call, Patience::Metadata, operation, answers::entry(reply, self.known()));
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (files, caller) = (self.files(), caller(request));
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        let (from, to) = (Ino(parent.0), Ino(new_parent.0));
        let operation = async move {
            files.rename(caller, from, &name, to, &new_name, convert::rename_mode(flags)?).await
        };
        let call = call(Op::Rename, request, parent);
        self.server.serve(call, Patience::Metadata, operation, answers::empty(reply));
    }

    /// The service has no hard links.
    fn link(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: fuser::OpenFlags, reply: ReplyOpen) {
        let (files, caller) = (self.files(), caller(request));
        let asked = convert::open_flags(flags.0);
        let notify = self.notify.clone();
        let operation = async move {
            let opened = privileges::open(&*files, caller, Ino(ino.0), asked).await?;
            if !opened.keep_cache {
                notify.forget_attributes(Ino(ino.0));
            }
            Ok(opened)
        };
        let call = call(Op::Open, request, ino);
        self.server.serve(call, Patience::Metadata, operation, answers::opened(reply, asked, self.features));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (files, caller, name) = (self.files(), caller(request), name.to_owned());
        let (mode, asked) = (mode & !umask & 0o7777, convert::open_flags(flags));
        let operation = async move { files.create(caller, Ino(parent.0), &name, mode, asked).await };
        let call = call(Op::Create, request, parent);
        self.server.serve(
            call,
            Patience::Metadata,
            operation,
            answers::created(reply, asked, self.features, self.known()),
        );
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: fuser::OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let files = self.files();
        let operation = async move { files.read(Ino(ino.0), Handle(handle.0), offset, size).await };
        let call = call_on(Op::Read, request, ino, handle);
        self.server.serve(call, Patience::Content, operation, answers::bytes(reply));
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: fuser::OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (files, caller) = (self.files(), caller(request));
        let (node, open, data) = (Ino(ino.0), Handle(handle.0), Bytes::copy_from_slice(data));
        let strip = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        // What was stored through a map has its place, whoever's handle it comes with.
        let appends =
            convert::open_flags(flags.0).append && !write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let operation = async move {
            if strip {
                privileges::strip(&*files, caller, node, Some(open)).await?;
            }
            match appends {
                true => files.append(node, open, offset, data).await,
                false => files.write(node, open, offset, data).await,
            }
        };
        let call = call_on(Op::Write, request, ino, handle);
        self.server.serve(call, Patience::Content, operation, answers::written(reply));
    }

    fn flush(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let files = self.files();
        let operation = async move { files.flush(Ino(ino.0), Handle(handle.0)).await };
        let call = call_on(Op::Flush, request, ino, handle);
        self.server.serve(call, Patience::Durable, operation, answers::empty(reply));
    }

    fn release(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: fuser::OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let files = self.files();
        let operation = async move {
            files.release(Ino(ino.0), Handle(handle.0)).await;
            Ok(())
        };
        let call = call_on(Op::Release, request, ino, handle);
        self.server.serve(call, Patience::Release, operation, answers::empty(reply));
    }

    fn fsync(&self, request: &Request, ino: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty) {
        let files = self.files();
        let operation = async move { files.fsync(Ino(ino.0), Handle(handle.0), data_only).await };
        let call = call_on(Op::Fsync, request, ino, handle);
        self.server.serve(call, Patience::Durable, operation, answers::empty(reply));
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: fuser::OpenFlags, reply: ReplyOpen) {
        let files = self.files();
        let operation = async move { files.opendir(Ino(ino.0)).await };
        let call = call(Op::Opendir, request, ino);
        self.server.serve(call, Patience::Metadata, operation, answers::opened_dir(reply, self.features));
    }

    fn readdir(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        after: u64,
        reply: ReplyDirectory,
    ) {
        let (files, max) = (self.files(), self.plain_fit.entries());
        let operation = async move { files.readdir(Ino(ino.0), Handle(handle.0), after, max).await };
        let call = call_on(Op::Readdir, request, ino, handle);
        let answer = answers::directory(reply, Arc::clone(&self.plain_fit));
        self.server.serve(call, Patience::Metadata, operation, answer);
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        after: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let (files, max) = (self.files(), self.plus_fit.entries());
        let operation = async move { files.readdir(Ino(ino.0), Handle(handle.0), after, max).await };
        let call = call_on(Op::Readdirplus, request, ino, handle);
        let answer = answers::directory_plus(reply, Arc::clone(&self.plus_fit), self.known());
        self.server.serve(call, Patience::Metadata, operation, answer);
    }

    fn releasedir(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: fuser::OpenFlags,
        reply: ReplyEmpty,
    ) {
        let files = self.files();
        let operation = async move {
            files.releasedir(Ino(ino.0), Handle(handle.0)).await;
            Ok(())
        };
        let call = call_on(Op::Releasedir, request, ino, handle);
        self.server.serve(call, Patience::Release, operation, answers::empty(reply));
    }

    fn fsyncdir(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        let files = self.files();
        let operation = async move { files.fsyncdir(Ino(ino.0), Handle(handle.0)).await };
        let call = call_on(Op::Fsyncdir, request, ino, handle);
        self.server.serve(call, Patience::Durable, operation, answers::empty(reply));
    }

    fn statfs(&self, request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let call = call(Op::Statfs, request, ino);
        self.server.serve_now(call, || self.files.statfs(Ino(ino.0)), answers::statfs(reply));
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (files, caller) = (self.files(), caller(request));
        let (name, value) = (name.to_owned(), value.to_owned());
        let operation = async move {
            files.setxattr(caller, Ino(ino.0), &name, &value, convert::xattr_mode(flags)?).await
        };
        let call = call(Op::Setxattr, request, ino);
        self.server.serve(call, Patience::Metadata, operation, answers::empty(reply));
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (files, name) = (self.files(), name.to_owned());
        let operation = async move { files.getxattr(Ino(ino.0), &name).await };
        let call = call(Op::Getxattr, request, ino);
        self.server.serve(call, Patience::Metadata, operation, answers::xattr(reply, size));
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let files = self.files();
        let operation = async move {
            let mut names = files.listxattr(Ino(ino.0)).await?;
            // Who asks for the size asks for the names next, and a file that is sent in between has more of them.
            if size == 0 && !names.is_empty() {
                names.resize(names.len() + SPARE_NAMES, 0);
            }
            Ok(names)
        };
        let call = call(Op::Listxattr, request, ino);
        self.server.serve(call, Patience::Metadata, operation, answers::xattr(reply, size));
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (files, caller, name) = (self.files(), caller(request), name.to_owned());
        let operation = async move { files.removexattr(caller, Ino(ino.0), &name).await };
        let call = call(Op::Removexattr, request, ino);
        self.server.serve(call, Patience::Metadata, operation, answers::empty(reply));
    }

    /// Never asked with `default_permissions`.
    fn access(&self, _request: &Request, _ino: INodeNo, _mask: fuser::AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// ENOSYS once, and the kernel answers poll(2) itself: files are always ready.
    fn poll(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (files, caller) = (self.files(), caller(request));
        let (node, open) = (Ino(ino.0), Handle(handle.0));
        let operation = async move {
            let what = convert::allocate(mode)?;
            if caller.uid != 0 {
                privileges::strip(&*files, caller, node, Some(open)).await?;
            }
            files.fallocate(node, open, offset, length, what).await
        };
        let call = call_on(Op::Fallocate, request, ino, handle);
        self.server.serve(call, Patience::Content, operation, answers::empty(reply));
    }

    fn lseek(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let files = self.files();
        let operation = async move {
            let (offset, whence) = convert::seek(offset, whence)?;
            files.lseek(Ino(ino.0), Handle(handle.0), offset, whence).await
        };
        let call = call_on(Op::Lseek, request, ino, handle);
        self.server.serve(call, Patience::Metadata, operation, answers::offset(reply));
    }

    fn copy_file_range(
        &self,
        request: &Request,
        ino_in: INodeNo,
        handle_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        handle_out: FileHandle,
        offset_out: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (files, caller) = (self.files(), caller(request));
        let (from, from_handle) = (Ino(ino_in.0), Handle(handle_in.0));
        let (to, to_handle) = (Ino(ino_out.0), Handle(handle_out.0));
        let length = length.min(MAX_COPY_BYTES);
        let operation = async move {
            if caller.uid != 0 {
                privileges::strip(&*files, caller, to, Some(to_handle)).await?;
            }
            let copied = files
                .copy_file_range(from, from_handle, offset_in, to, to_handle, offset_out, length)
                .await?;
            u32::try_from(copied).map_err(|_| VfsError::TooLarge)
        };
        let call = call_on(Op::CopyFileRange, request, ino_out, handle_out);
        self.server.serve(call, Patience::Content, operation, answers::written(reply));
    }
}
