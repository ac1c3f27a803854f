//! Turns results into the library's replies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use fuser::{
    FileHandle, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};

use super::convert;
use super::known::Known;
use super::negotiate::Features;
use crate::model::Ino;
use crate::vfs::{Attr, DirEntry, Entry, FileType, Lookup, OpenFlags, Opened, OpenedDir, Served, StatFs};

/// Node numbers are never reused, so their generation never changes.
const GENERATION: Generation = Generation(0);

/// The number of inodes reported as free: the service names no limit.
const FREE_FILES: u64 = 1 << 32;

pub(super) fn empty(reply: ReplyEmpty) -> impl FnOnce(Result<(), i32>) + Send {
    |result| match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

pub(super) fn entry(reply: ReplyEntry, known: Arc<Known>) -> impl FnOnce(Result<Entry, i32>) + Send {
    move |result| match result {
        Ok(entry) => {
            known.mark(entry.attr.ino);
            let attr = convert::attr(&entry.attr);
            reply.entry_with_ttls(&entry.attr_ttl, &entry.entry_ttl, &attr, GENERATION);
        }
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

/// An absent name that may be kept is an entry with node 0.
pub(super) fn lookup(reply: ReplyEntry, known: Arc<Known>) -> impl FnOnce(Result<Lookup, i32>) + Send {
    move |result| match result {
        Ok(Lookup::Found(found)) => entry(reply, known)(Ok(found)),
        Ok(Lookup::Absent(ttl)) if ttl.is_zero() => reply.error(convert::errno(libc::ENOENT)),
        Ok(Lookup::Absent(ttl)) => {
            let nothing = convert::bare_attr(Ino(0), FileType::File);
            reply.entry_with_ttls(&Duration::ZERO, &ttl, &nothing, GENERATION);
        }
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

pub(super) fn attr(reply: ReplyAttr) -> impl FnOnce(Result<(Attr, Duration), i32>) + Send {
    |result| match result {
        Ok((attr, ttl)) => reply.attr(&ttl, &convert::attr(&attr)),
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

pub(super) fn bytes(reply: ReplyData) -> impl FnOnce(Result<Bytes, i32>) + Send {
    |result| match result {
        Ok(bytes) => reply.data(&bytes),
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

pub(super) fn written(reply: ReplyWrite) -> impl FnOnce(Result<u32, i32>) + Send {
    |result| match result {
        Ok(count) => reply.written(count),
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

#[allow(unsafe_code)]
pub(super) fn opened(
    reply: ReplyOpen,
    asked: OpenFlags,
    features: Features,
) -> impl FnOnce(Result<Opened, i32>) + Send {
    move |result| match result {
        Ok(opened) => {
            let handle = FileHandle(opened.handle.0);
            let flags = convert::opened_flags(&opened, asked, features);
            match &opened.served {
                Served::FromPages => reply.opened(handle, flags),
                Served::Below(lent) | Served::Here(lent) => {
                    // SAFETY: the number is open and of this session as long as `lent` lives, which closes it; this one
                    // is let go of without closing it.
                    let number = unsafe { reply.wrap_backing(lent.id) };
                    reply.opened_passthrough(handle, flags, &number);
                    number.into_raw();
                }
            }
        }
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

pub(super) fn opened_dir(reply: ReplyOpen, features: Features) -> impl FnOnce(Result<OpenedDir, i32>) + Send {
    move |result| match result {
        Ok(opened) => reply.opened(FileHandle(opened.handle.0), convert::opened_dir_flags(&opened, features)),
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

/// The library has one time for name and attributes here; the shorter is right for both.
#[allow(unsafe_code)]
pub(super) fn created(
    reply: ReplyCreate,
    asked: OpenFlags,
    features: Features,
    known: Arc<Known>,
) -> impl FnOnce(Result<(Entry, Opened), i32>) + Send {
    move |result| match result {
        Ok((entry, opened)) => {
            known.mark(entry.attr.ino);
            let (ttl, attr) = (entry.entry_ttl.min(entry.attr_ttl), convert::attr(&entry.attr));
            let handle = FileHandle(opened.handle.0);
            let flags = convert::opened_flags(&opened, asked, features);
            match &opened.served {
                Served::FromPages => reply.created(&ttl, &attr, GENERATION, handle, flags),
                Served::Below(lent) | Served::Here(lent) => {
                    // SAFETY: as in `opened`.
                    let number = unsafe { reply.wrap_backing(lent.id) };
                    reply.created_passthrough(&ttl, &attr, GENERATION, handle, flags, &number);
                    number.into_raw();
                }
            }
        }
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

pub(super) fn statfs(reply: ReplyStatfs) -> impl FnOnce(Result<StatFs, i32>) {
    |result| match result {
        Ok(space) => {
            let block = u64::from(convert::BLOCK_BYTES);
            let free = space.free / block;
            let files = space.files.saturating_add(FREE_FILES);
            reply.statfs(
                space.total / block,
                free,
                free,
                files,
                FREE_FILES,
                convert::BLOCK_BYTES,
                space.name_max,
                convert::BLOCK_BYTES,
            );
        }
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

/// `size` is the caller's buffer; 0 asks how large it must be.
pub(super) fn xattr(reply: ReplyXattr, size: u32) -> impl FnOnce(Result<Vec<u8>, i32>) + Send {
    move |result| match result {
        Ok(value) => match u32::try_from(value.len()) {
            Ok(needed) if size == 0 => reply.size(needed),
            Ok(needed) if needed <= size => reply.data(&value),
            _ => reply.error(convert::errno(libc::ERANGE)),
        },
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

pub(super) fn offset(reply: ReplyLseek) -> impl FnOnce(Result<u64, i32>) + Send {
    |result| match result.and_then(|offset| i64::try_from(offset).map_err(|_| libc::EOVERFLOW)) {
        Ok(offset) => reply.offset(offset),
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

/// How many entries fill the kernel's buffer, whose size the library keeps to itself: learnt from the last
/// one that was filled, so that a listing neither asks for much more than it sends nor sends half buffers.
#[derive(Debug)]
pub(super) struct Fit(AtomicUsize);

impl Fit {
    pub(super) fn starting_at(entries: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(entries)))
    }

    /// How many entries to ask for.
    pub(super) fn entries(&self) -> usize {
        self.0.load(Relaxed)
    }

    fn filled_with(&self, entries: usize) {
        self.0.store(entries + entries / 8 + 4, Relaxed);
    }

    /// All that was asked for fitted: ask for more next time.
    fn had_room(&self, entries: usize) {
        if entries == self.entries() && entries < 4096 {
            self.0.store(entries * 2, Relaxed);
        }
    }
}

pub(super) fn directory(
    mut reply: ReplyDirectory,
    fit: Arc<Fit>,
) -> impl FnOnce(Result<Vec<DirEntry>, i32>) + Send {
    move |result| match result {
        Ok(entries) => {
            let full = entries.iter().position(|entry| {
                reply.add(
                    INodeNo(entry.ino.0),
                    entry.cookie,
                    convert::file_type(entry.file_type),
                    &entry.name,
                )
            });
            full.map_or_else(|| fit.had_room(entries.len()), |sent| fit.filled_with(sent));
            reply.ok();
        }
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

/// An entry without attributes is sent as `.` and `..` are: the kernel takes only node and type of those, and
/// with node 0 it takes nothing but the name of others.
pub(super) fn directory_plus(
    mut reply: ReplyDirectoryPlus,
    fit: Arc<Fit>,
    known: Arc<Known>,
) -> impl FnOnce(Result<Vec<DirEntry>, i32>) + Send {
    move |result| match result {
        Ok(entries) => {
            let full = entries.iter().position(|entry| {
                let (ttl, attr) = match &entry.entry {
                    Some(entry) => {
                        known.mark(entry.attr.ino);
                        (entry.entry_ttl.min(entry.attr_ttl), convert::attr(&entry.attr))
                    }
                    None => {
                        let dots = entry.name == "." || entry.name == "..";
                        let ino = if dots { entry.ino } else { Ino(0) };
                        (Duration::ZERO, convert::bare_attr(ino, entry.file_type))
                    }
                };
                reply.add(attr.ino, entry.cookie, &entry.name, &ttl, &attr, GENERATION)
            });
            full.map_or_else(|| fit.had_room(entries.len()), |sent| fit.filled_with(sent));
            reply.ok();
        }
        Err(errno) => reply.error(convert::errno(errno)),
    }
}
