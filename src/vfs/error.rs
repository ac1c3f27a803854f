//! What can go wrong for a caller, and the one table that turns it into an errno.

use std::io;

use crate::store::StoreError;

/// Why an operation failed. One variant per thing a caller can tell apart (design 8).
#[derive(Debug, thiserror::Error)]
pub enum VfsError {
    /// No such name, or no such attribute's file.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken, also by one that differs only in case.
    #[error("the name exists")]
    Exists,
    /// The directory has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// A file was needed.
    #[error("is a directory")]
    IsDirectory,
    /// The node is gone.
    #[error("the node is gone")]
    Stale,
    /// The handle is not open, or not open for this.
    #[error("the handle is not open for this")]
    BadHandle,
    /// The service refuses, or a local rule does.
    #[error("permission denied")]
    AccessDenied,
    /// Not possible on this kind of node at all (hard links, device nodes, packages).
    #[error("operation not permitted")]
    NotPermitted,
    /// The mount is read-only.
    #[error("the mount is read-only")]
    ReadOnly,
    /// The drive is full.
    #[error("the drive's quota is used up")]
    QuotaExceeded,
    /// The local disk, or the cache's share of it, is full of unsent data.
    #[error("no space for unsent data on the local disk")]
    NoSpace,
    /// Locked or checked out by someone on the service.
    #[error("locked by someone on the service")]
    Busy,
    /// Offline, and the content is not here.
    #[error("offline and not cached")]
    Offline,
    /// The service did not answer in time.
    #[error("the service did not answer in time")]
    Deadline,
    /// The sign-in is no longer valid.
    #[error("signed out")]
    SignedOut,
    /// The name, or the argument, is impossible on the service.
    #[error("invalid name or argument")]
    Invalid,
    /// The name is too long.
    #[error("the name is too long")]
    NameTooLong,
    /// The file would be larger than the service takes.
    #[error("the file is too large for the service")]
    TooLarge,
    /// Another drive.
    #[error("crosses from one drive to another")]
    CrossDevice,
    /// Not offered here.
    #[error("not supported")]
    NotSupported,
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// The answer does not fit the caller's buffer.
    #[error("the buffer is too small")]
    Range,
    /// The offset lies beyond the end (SEEK_DATA, SEEK_HOLE).
    #[error("no data beyond this offset")]
    NoData,
    /// A fatal signal ended the wait.
    #[error("interrupted")]
    Interrupted,
    /// The version a handle was reading no longer exists on the service, or content failed verification.
    #[error("the content cannot be had: {0}")]
    Content(String),
    /// Disk trouble on this machine.
    #[error("local disk: {0}")]
    Io(#[source] io::Error),
    /// The store cannot be used.
    #[error("store: {0}")]
    Store(String),
    /// The service answered nonsense or failed for good.
    #[error("service: {0}")]
    Service(String),
}

impl VfsError {
    /// The errno for the caller.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NotFound => libc::ENOENT,
            Self::Exists => libc::EEXIST,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::NotDirectory => libc::ENOTDIR,
            Self::IsDirectory => libc::EISDIR,
            Self::Stale => libc::ESTALE,
            Self::BadHandle => libc::EBADF,
            Self::AccessDenied => libc::EACCES,
            Self::NotPermitted => libc::EPERM,
            Self::ReadOnly => libc::EROFS,
            Self::QuotaExceeded => libc::EDQUOT,
            Self::NoSpace => libc::ENOSPC,
            Self::Busy => libc::EBUSY,
            Self::Offline => libc::ENETUNREACH,
            Self::Deadline => libc::ETIMEDOUT,
            Self::SignedOut => libc::EKEYEXPIRED,
            Self::Invalid => libc::EINVAL,
            Self::NameTooLong => libc::ENAMETOOLONG,
            Self::TooLarge => libc::EFBIG,
            Self::CrossDevice => libc::EXDEV,
            Self::NotSupported => libc::EOPNOTSUPP,
            Self::NoAttribute => libc::ENODATA,
            Self::Range => libc::ERANGE,
            Self::NoData => libc::ENXIO,
            Self::Interrupted => libc::EINTR,
            Self::Io(error) if error.raw_os_error() == Some(libc::ENOSPC) => libc::ENOSPC,
            Self::Content(_) | Self::Io(_) | Self::Store(_) | Self::Service(_) => libc::EIO,
        }
    }

    /// Whether the failure is part of ordinary life (looked up, not there) and not worth a log line.
    pub fn is_ordinary(&self) -> bool {
        !matches!(
            self,
            Self::Content(_)
                | Self::Io(_)
                | Self::Store(_)
                | Self::Service(_)
                | Self::Deadline
                | Self::SignedOut
                | Self::NoSpace
                | Self::QuotaExceeded
        )
    }
}

impl From<StoreError> for VfsError {
    fn from(error: StoreError) -> Self {
        match error {
            error if error.is_out_of_space() => Self::NoSpace,
            StoreError::NoNode(_) => Self::Stale,
            other => Self::Store(other.to_string()),
        }
    }
}
