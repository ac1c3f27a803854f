//! The protocol's words in ours and back; pure.

use std::time::SystemTime;

use fuser::{Errno, FileAttr, FopenFlags, INodeNo, RenameFlags, TimeOrNow};

use super::negotiate::Features;
use super::privileges;
use crate::model::{Ino, Timestamp};
use crate::vfs::{
    Allocate, Attr, FileType, OpenFlags, Opened, OpenedDir, RenameMode, Seek, Served, SetTime, VfsError,
    XattrMode,
};

/// Reported as `st_blksize`, and the unit of `statfs`.
pub(super) const BLOCK_BYTES: u32 = 4096;

pub(super) fn errno(code: i32) -> Errno {
    Errno::from_i32(code)
}

pub(super) fn file_type(file_type: FileType) -> fuser::FileType {
    match file_type {
        FileType::File => fuser::FileType::RegularFile,
        FileType::Directory => fuser::FileType::Directory,
        FileType::Symlink => fuser::FileType::Symlink,
    }
}

pub(super) fn attr(attr: &Attr) -> FileAttr {
    privileges::note(attr);
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.into(),
        mtime: attr.mtime.into(),
        ctime: attr.ctime.into(),
        crtime: attr.btime.into(),
        kind: file_type(attr.file_type),
        perm: attr.mode & 0o7777,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// The attributes of a name for which only node and type are known, or of one that does not exist (ino 0).
pub(super) fn bare_attr(ino: Ino, kind: FileType) -> FileAttr {
    let never = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(ino.0),
        size: 0,
        blocks: 0,
        atime: never,
        mtime: never,
        ctime: never,
        crtime: never,
        kind: file_type(kind),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

pub(super) fn open_flags(flags: i32) -> OpenFlags {
    let access = flags & libc::O_ACCMODE;
    OpenFlags {
        read: access != libc::O_WRONLY,
        write: access != libc::O_RDONLY,
        append: flags & libc::O_APPEND != 0,
        truncate: flags & libc::O_TRUNC != 0,
        exclusive: flags & libc::O_EXCL != 0,
        sync: flags & libc::O_DSYNC != 0,
        direct: flags & libc::O_DIRECT != 0,
    }
}

/// What the kernel is told of an open file. A handle that cannot write has nothing to say at its close.
pub(super) fn opened_flags(opened: &Opened, asked: OpenFlags, features: Features) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    // What the kernel reads by itself has no pages here, and it takes no word about them.
    let keep = features.keep_pages && opened.keep_cache && matches!(opened.served, Served::FromPages);
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, keep);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, matches!(opened.served, Served::Here(_)));
    flags.set(FopenFlags::FOPEN_NOFLUSH, !asked.write);
    flags
}

pub(super) fn opened_dir_flags(opened: &OpenedDir, features: Features) -> FopenFlags {
    if opened.cache && features.keep_names {
        FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
    } else {
        FopenFlags::empty()
    }
}

/// RENAME_WHITEOUT, unknown and contradicting flags are EINVAL.
pub(super) fn rename_mode(flags: RenameFlags) -> Result<RenameMode, VfsError> {
    match flags {
        flags if flags.is_empty() => Ok(RenameMode::Replace),
        RenameFlags::RENAME_NOREPLACE => Ok(RenameMode::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        _ => Err(VfsError::Invalid),
    }
}

pub(super) fn allocate(mode: i32) -> Result<Allocate, VfsError> {
    use libc::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE};
    const KEEP: i32 = FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const ZERO: i32 = FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    match mode {
        0 => Ok(Allocate::Extend),
        KEEP => Ok(Allocate::KeepSize),
        PUNCH => Ok(Allocate::PunchHole),
        ZERO => Ok(Allocate::ZeroRange { keep_size: false }),
        ZERO_KEEP => Ok(Allocate::ZeroRange { keep_size: true }),
        _ => Err(VfsError::NotSupported),
    }
}

pub(super) fn seek(offset: i64, whence: i32) -> Result<(u64, Seek), VfsError> {
    let offset = u64::try_from(offset).map_err(|_| VfsError::NoData)?;
    match whence {
        libc::SEEK_DATA => Ok((offset, Seek::Data)),
        libc::SEEK_HOLE => Ok((offset, Seek::Hole)),
        _ => Err(VfsError::Invalid),
    }
}

pub(super) fn xattr_mode(flags: i32) -> Result<XattrMode, VfsError> {
    match flags {
        0 => Ok(XattrMode::Set),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(VfsError::Invalid),
    }
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(time_as_sent(time)),
    }
}

/// The library turns `-s` seconds and `n` nanoseconds into `1970 - (s + n)`; the kernel meant `1970 - s + n`.
fn time_as_sent(time: SystemTime) -> Timestamp {
    match SystemTime::UNIX_EPOCH.duration_since(time) {
        Ok(before) if !before.is_zero() => {
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            Timestamp::from_unix(-seconds, before.subsec_nanos())
        }
        _ => Timestamp::from(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn open_flags_keep_their_meaning() {
        let read = open_flags(libc::O_RDONLY);
        assert!(read.read && !read.write && !read.truncate);
        let append = open_flags(libc::O_WRONLY | libc::O_APPEND | libc::O_TRUNC | libc::O_EXCL);
        assert!(!append.read && append.write && append.append && append.truncate && append.exclusive);
        let both = open_flags(libc::O_RDWR | libc::O_SYNC);
        assert!(both.read && both.write && both.sync);
        assert!(open_flags(libc::O_RDWR | libc::O_DSYNC).sync);
    }

    #[test]
    fn rename_flags_are_one_of_three_modes_or_einval() {
        use RenameFlags as Flags;
        assert_eq!(rename_mode(Flags::empty()).ok(), Some(RenameMode::Replace));
        assert_eq!(rename_mode(Flags::RENAME_NOREPLACE).ok(), Some(RenameMode::NoReplace));
        assert_eq!(rename_mode(Flags::RENAME_EXCHANGE).ok(), Some(RenameMode::Exchange));
        let refused = [
            Flags::RENAME_WHITEOUT,
            Flags::RENAME_NOREPLACE | Flags::RENAME_EXCHANGE,
            Flags::from_bits_retain(8),
        ];
        for flags in refused {
            assert_eq!(rename_mode(flags).expect_err("must be refused").errno(), libc::EINVAL);
        }
    }

    #[test]
    fn unknown_fallocate_modes_are_eopnotsupp() {
        let punch = libc::FALLOC_FL_PUNCH_HOLE;
        assert_eq!(allocate(punch | libc::FALLOC_FL_KEEP_SIZE).ok(), Some(Allocate::PunchHole));
        for mode in [punch, libc::FALLOC_FL_COLLAPSE_RANGE, libc::FALLOC_FL_INSERT_RANGE, 1 << 20] {
            assert_eq!(allocate(mode).expect_err("must be refused").errno(), libc::EOPNOTSUPP);
        }
    }

    #[test]
    fn a_seek_before_the_file_is_enxio_and_an_unknown_whence_einval() {
        assert_eq!(seek(5, libc::SEEK_HOLE).ok(), Some((5, Seek::Hole)));
        assert_eq!(seek(-1, libc::SEEK_DATA).expect_err("must be refused").errno(), libc::ENXIO);
        assert_eq!(seek(0, libc::SEEK_END).expect_err("must be refused").errno(), libc::EINVAL);
    }

    #[test]
    fn a_time_before_1970_is_what_the_caller_set() {
        // What the library makes of tv_sec = -2, tv_nsec = 300_000_000.
        let decoded = SystemTime::UNIX_EPOCH - Duration::new(2, 300_000_000);
        assert_eq!(time_as_sent(decoded), Timestamp(-1_700_000_000));
        let later = SystemTime::UNIX_EPOCH + Duration::new(2, 300_000_000);
        assert_eq!(time_as_sent(later), Timestamp(2_300_000_000));
        assert_eq!(time_as_sent(SystemTime::UNIX_EPOCH), Timestamp(0));
    }
}
