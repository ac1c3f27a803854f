//! What crosses the border between the kernel's protocol and the file system, without its types.

use std::ffi::OsString;
use std::time::Duration;

use super::Lent;
use crate::model::{Ino, Timestamp};

/// Who asks, from the request header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Thread (kernel: process) that asked; 0 where the kernel hid it.
    pub pid: u32,
}

/// What a node is to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link, kept on this machine.
    Symlink,
}

/// A node's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// The node.
    pub ino: Ino,
    /// Bytes.
    pub size: u64,
    /// 512-byte blocks in use.
    pub blocks: u64,
    /// Modification time.
    pub mtime: Timestamp,
    /// Access time (kept equal to `mtime`; nothing records reads).
    pub atime: Timestamp,
    /// Change time.
    pub ctime: Timestamp,
    /// Creation time.
    pub btime: Timestamp,
    /// What it is.
    pub file_type: FileType,
    /// Permission bits, 12 bits.
    pub mode: u16,
    /// Links: 1 for files, 2 for directories.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// An answer to lookup, create, mkdir, symlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The node's attributes.
    pub attr: Attr,
    /// How long the kernel may keep the name.
    pub entry_ttl: Duration,
    /// How long the kernel may keep the attributes.
    pub attr_ttl: Duration,
}

/// An answer to lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The name exists.
    Found(Entry),
    /// The name does not exist, and the kernel may keep that for so long.
    Absent(Duration),
}

/// An open file or directory; the daemon's own number, given to the kernel as `fh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(pub u64);

/// How an open file is to be served.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The handle.
    pub handle: Handle,
    /// The kernel may keep the pages it has of this inode (FOPEN_KEEP_CACHE).
    pub keep_cache: bool,
    /// Who reads and writes.
    pub served: Served,
}

/// How the kernel is to read and write an open file.
#[derive(Clone, Debug)]
pub enum Served {
    /// By its pages, which are filled from here.
    FromPages,
    /// By itself, from this file (FOPEN_PASSTHROUGH).
    Below(Lent),
    /// By asking here each time, while others read this file by themselves (FOPEN_PASSTHROUGH and FOPEN_DIRECT_IO).
    Here(Lent),
}

/// Flags of `open(2)` that mean something here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags {
    /// Reading is allowed.
    pub read: bool,
    /// Writing is allowed.
    pub write: bool,
    /// O_APPEND, as it was at the open: each write says whether it still is.
    pub append: bool,
    /// O_TRUNC, handed to open because FUSE_ATOMIC_O_TRUNC is requested.
    pub truncate: bool,
    /// O_EXCL of a create.
    pub exclusive: bool,
    /// O_SYNC or O_DSYNC: each write is durable before it returns.
    pub sync: bool,
    /// O_DIRECT: past all caches, where that can be done.
    pub direct: bool,
}

impl OpenFlags {
    /// O_RDONLY.
    pub const READ: Self = Self {
        read: true,
        write: false,
        append: false,
        truncate: false,
        exclusive: false,
        sync: false,
        direct: false,
    };
    /// O_RDWR.
    pub const READ_WRITE: Self = Self { write: true, ..Self::READ };
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The time the daemon sees.
    Now,
    /// That time.
    At(Timestamp),
}

/// Attributes to change; `None` leaves one alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits (kept on this machine).
    pub mode: Option<u16>,
    /// Owner (kept on this machine).
    pub uid: Option<u32>,
    /// Group (kept on this machine).
    pub gid: Option<u32>,
    /// Truncate or extend.
    pub size: Option<u64>,
    /// Access time: accepted and not kept.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
    /// The handle the change came through (ftruncate).
    pub handle: Option<Handle>,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name.
    pub name: OsString,
    /// The node.
    pub ino: Ino,
    /// What it is.
    pub file_type: FileType,
    /// Where the next readdir goes on after this entry.
    pub cookie: u64,
    /// For readdirplus: what lookup would answer (absent for `.` and `..`).
    pub entry: Option<Entry>,
}

/// An answer to opendir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedDir {
    /// The handle.
    pub handle: Handle,
    /// The kernel may cache the listing (only enumerated directories).
    pub cache: bool,
}

/// Space, from the cached quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    /// Bytes in all.
    pub total: u64,
    /// Bytes free.
    pub free: u64,
    /// Items known.
    pub files: u64,
    /// Longest name in bytes.
    pub name_max: u32,
}

/// Which rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// Replaces the target if it exists.
    Replace,
    /// RENAME_NOREPLACE: EEXIST if the target exists.
    NoReplace,
    /// RENAME_EXCHANGE: both must exist and change places.
    Exchange,
}

/// Whence of lseek that reaches a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// SEEK_DATA.
    Data,
    /// SEEK_HOLE.
    Hole,
}

/// What fallocate is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Mode 0: reserve and extend.
    Extend,
    /// FALLOC_FL_KEEP_SIZE: reserve without extending.
    KeepSize,
    /// FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE.
    PunchHole,
    /// FALLOC_FL_ZERO_RANGE, with or without keeping the size.
    ZeroRange {
        /// FALLOC_FL_KEEP_SIZE was given.
        keep_size: bool,
    },
}

/// Whether setxattr must create, must replace, or may do either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// Neither flag.
    Set,
    /// XATTR_CREATE.
    Create,
    /// XATTR_REPLACE.
    Replace,
}

/// Something the kernel must forget; produced by the engine, delivered by `fuse::notify`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Invalidation {
    /// The name under this directory no longer means what it meant.
    Entry {
        /// The directory.
        parent: Ino,
        /// The name as the kernel knows it.
        name: OsString,
    },
    /// Attributes of this node, and what else the kernel keeps of it.
    Inode {
        /// The node.
        ino: Ino,
        /// What changed.
        kept: Kept,
        /// The directory it is in: a lookup that was answered before the change, and which the kernel has not taken
        /// up yet, is one in there.
        within: Option<Ino>,
    },
}

/// What the kernel keeps of a node, besides its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kept {
    /// Attributes.
    Attributes,
    /// Attributes and the pages of a file.
    Content,
    /// Attributes and the listing of a directory.
    Listing,
}
