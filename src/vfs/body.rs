//! The bytes of an open file: clean content of the service, or staged content of this machine.

use std::io::{Error, ErrorKind};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::{Drive, VfsError};
use crate::content::{
    Base, BaseKind, CachedFile, ContentError, FetchErrorKind, Piece, Reader, StagingError, StagingFile,
    StagingId,
};
use crate::model::{ByteRange, QuickXor};
use crate::store::{Node, RemoteView};

/// Largest file the service takes, in bytes (graph-api 4.4: 250 GiB).
const FILE_MAX: u64 = 250 << 30;
/// Up to this staged content is hashed while a program waits.
const HASH_MAX: u64 = 8 << 20;
/// Bytes copied or hashed at once.
const CHUNK: u64 = 1 << 20;

/// What is read and written. Cheap to clone: a reader takes a clone and lets go of the lock.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// Nothing is on the service and nothing is staged.
    Empty,
    /// A version on the service.
    Clean(Arc<CachedFile>),
    /// Bytes of this machine.
    Staged(Staged),
}

/// Staged content.
#[derive(Clone, Debug)]
pub(super) struct Staged(Arc<StagingFile>);

impl Body {
    /// The content the service has.
    pub fn clean<D: Drive>(drive: &D, node: &Node) -> Self {
        drive.content_key(node).map_or(Self::Empty, |key| Self::Clean(drive.cache().file(&key)))
    }

    /// Staged content that the node names.
    pub fn staged<D: Drive>(drive: &D, node: &Node, content: u64) -> Result<Self, VfsError> {
        let loaded = drive.staging().load(StagingId(content))?;
        match loaded.base {
            None => {}
            Some(BaseKind::Sealed(below)) => {
                loaded.file.attach(Base::Sealed(drive.staging().load(below)?.file));
            }
            Some(BaseKind::Remote) => {
                let start = Node { remote: node.base.clone(), ..node.clone() };
                if let Self::Clean(cached) = Self::clean(drive, &start) {
                    loaded.file.attach(Base::Remote(cached));
                }
            }
        }
        Ok(Self::Staged(Staged(loaded.file)))
    }

    /// New staged content without bytes.
    pub fn empty<D: Drive>(drive: &D, content: u64) -> Result<Self, VfsError> {
        Ok(Self::Staged(Staged(drive.staging().create(StagingId(content))?)))
    }

    /// New staged content that starts with these bytes; none is fetched.
    pub fn continued<D: Drive>(&self, drive: &D, content: u64) -> Result<Self, VfsError> {
        let (staging, id) = (drive.staging(), StagingId(content));
        let file = match self {
            Self::Empty => staging.create(id)?,
            Self::Clean(cached) if cached.size() == 0 => staging.create(id)?,
            Self::Clean(cached) => {
                let file = staging.create_overlay(id, BaseKind::Remote, cached.size())?;
                file.attach(Base::Remote(cached.clone()));
                file
            }
            Self::Staged(own) => {
                // Shares its blocks, or copies a little, or lies over it: the caller waits, and so does the store.
                match staging.continue_from(&own.0, id) {
                    // It was sent and unlinked while it was open here.
                    Err(StagingError::Disk(error)) if error.kind() == ErrorKind::NotFound => {
                        copy(drive, content, own.0.len(), |range| Ok(own.0.read_local(range)?))?
                    }
                    other => other?,
                }
            }
        };
        Ok(Self::Staged(Staged(file)))
    }

    /// Whether the cache has these bytes under another name of the same file: they must not change.
    pub fn is_shared(&self) -> Result<bool, VfsError> {
        match self {
            Self::Staged(own) => Ok(own.0.stat().map_err(VfsError::Io)?.links > 1),
            Self::Empty | Self::Clean(_) => Ok(false),
        }
    }

    /// Takes changes again: the store no longer says that it is sealed.
    pub fn unsealed(self) -> Self {
        if let Self::Staged(own) = &self {
            own.0.unseal();
        }
        self
    }

    /// The sealed staged content that this one lies over, and that must stay as long.
    pub fn lies_over(&self) -> Option<u64> {
        match self {
            Self::Staged(own) => match own.0.base_kind() {
                Some(BaseKind::Sealed(base)) => Some(base.0),
                Some(BaseKind::Remote) | None => None,
            },
            Self::Empty | Self::Clean(_) => None,
        }
    }

    /// The content of the service that is here.
    pub fn cached(&self) -> Option<Arc<CachedFile>> {
        match self {
            Self::Clean(cached) => Some(cached.clone()),
            Self::Empty | Self::Staged(_) => None,
        }
    }

    /// The staged content.
    pub fn staging(&self) -> Option<&StagingFile> {
        match self {
            Self::Staged(own) => Some(&own.0),
            Self::Empty | Self::Clean(_) => None,
        }
    }

    /// Whether a stretch, cut to the size, can be read without the network.
    pub fn is_here(&self, range: ByteRange) -> bool {
        let range = range.intersect(&ByteRange::new(0, self.size()));
        match self {
            Self::Empty => true,
            Self::Clean(cached) => range.is_empty() || cached.present().contains(&range),
            Self::Staged(own) => own.0.pieces(range).iter().all(|piece| !matches!(piece, Piece::Base(_))),
        }
    }

    /// The number of staged content.
    pub fn content(&self) -> Option<u64> {
        match self {
            Self::Staged(own) => Some(own.content()),
            Self::Empty | Self::Clean(_) => None,
        }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Clean(cached) => cached.size(),
            Self::Staged(own) => own.0.len(),
        }
    }

    /// Reads a stretch, cut to the size. Ready at the first poll when all of it is on this machine.
    pub async fn read(&self, range: ByteRange, reader: &OnceLock<Reader>) -> Result<Bytes, VfsError> {
        match self {
            Self::Empty => Ok(Bytes::new()),
            Self::Clean(cached) => Ok(cached.read(range, reader.get_or_init(|| cached.reader())).await?),
            Self::Staged(own) => Ok(own.0.read(range, reader.get()).await?),
        }
    }

    /// Writes all of `bytes`.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), VfsError> {
        fits(offset, bytes.len() as u64)?;
        self.change(|file| file.write(offset, bytes))
    }

    /// Cuts, or extends with zeros.
    pub fn resize(&self, size: u64) -> Result<(), VfsError> {
        fits(size, 0)?;
        self.change(|file| file.truncate(size))
    }

    /// Makes a stretch read as zeros.
    pub fn zero(&self, range: ByteRange, keep_size: bool) -> Result<(), VfsError> {
        fits(range.start, range.len())?;
        self.change(|file| file.zero(range, keep_size))
    }

    /// Reserves room on the local disk.
    pub fn allocate(&self, range: ByteRange, keep_size: bool) -> Result<(), VfsError> {
        fits(range.start, range.len())?;
        self.change(|file| file.allocate(range, keep_size))
    }

    /// A seal that was under way when the file was opened for writing came to nothing in the store (the
    /// change of the node is newer), so it is taken off.
    fn change(&self, change: impl Fn(&StagingFile) -> Result<(), StagingError>) -> Result<(), VfsError> {
        let Self::Staged(own) = self else { return Err(VfsError::BadHandle) };
        match change(&own.0) {
            Err(StagingError::IsSealed) => {
                own.0.unseal();
                Ok(change(&own.0)?)
            }
            other => Ok(other?),
        }
    }

    /// Makes the bytes of this machine durable.
    pub fn sync(&self) -> Result<(), VfsError> {
        match self {
            Self::Staged(own) => Ok(own.0.sync()?),
            Self::Empty | Self::Clean(_) => Ok(()),
        }
    }

    /// The local disk failed to keep bytes of it.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Staged(own) if own.0.is_lost())
    }

    /// The next data at or after `offset`; none if only a hole follows.
    pub fn seek_data(&self, offset: u64) -> Result<Option<u64>, VfsError> {
        match self {
            Self::Staged(own) => Ok(own.0.seek_data(offset)?),
            Self::Empty | Self::Clean(_) => Ok((offset < self.size()).then_some(offset)),
        }
    }

    /// The next hole at or after `offset`, the end being one; none beyond the end.
    pub fn seek_hole(&self, offset: u64) -> Result<Option<u64>, VfsError> {
        match self {
            Self::Staged(own) => Ok(own.0.seek_hole(offset)?),
            Self::Empty | Self::Clean(_) => Ok((offset < self.size()).then(|| self.size())),
        }
    }
}

impl Staged {
    /// The number that the store names it by.
    pub fn content(&self) -> u64 {
        self.0.id().0
    }

    /// Whether these bytes, which were sent, are those of `remote`: as their upload was answered, else, for small
    /// ones, as far as the service's hash can tell. Of what cannot be told here both are kept.
    pub fn has_content_of<D: Drive>(&self, drive: &D, remote: &RemoteView) -> Result<bool, VfsError> {
        if let Some(sent) = drive.sent_as(self.content()) {
            return Ok(sent.keeps_blocks_of(&remote.version));
        }
        if self.0.len() > HASH_MAX {
            return Ok(false);
        }
        let (Some(wanted), true) =
            (remote.version.hashes.quick_xor, remote.version.size == Some(self.0.len()))
        else {
            return Ok(false);
        };
        let mut hash = QuickXor::default();
        let mut at = 0;
        while at < self.0.len() {
            let Some(bytes) = self.0.read_local(ByteRange::at(at, CHUNK))? else { return Ok(false) };
            at += bytes.len() as u64;
            hash.update(&bytes);
            if bytes.is_empty() {
                return Ok(false);
            }
        }
        Ok(hash.finish() == wanted)
    }
}

/// Stages a copy of clean content that is complete here.
pub(super) fn import<D: Drive>(drive: &D, content: u64, cached: &CachedFile) -> Result<(), VfsError> {
    copy(drive, content, cached.size(), |range| Ok(cached.read_present(range))).map(|_| ())
}

fn copy<D: Drive>(
    drive: &D,
    content: u64,
    size: u64,
    read: impl Fn(ByteRange) -> Result<Option<Bytes>, VfsError>,
) -> Result<Arc<StagingFile>, VfsError> {
    let file = drive.staging().create(StagingId(content))?;
    let mut at = 0;
    while at < size {
        let range = ByteRange::new(at, size.min(at + CHUNK));
        let bytes = read(range)?.filter(|bytes| bytes.len() as u64 == range.len());
        let bytes = bytes.ok_or_else(|| VfsError::Content("it is no longer complete here".into()))?;
        file.write(at, &bytes)?;
        at = range.end;
    }
    Ok(file)
}

/// Whether this staged content has every byte itself.
pub(super) fn is_whole<D: Drive>(drive: &D, content: u64) -> bool {
    drive.staging().load(StagingId(content)).is_ok_and(|loaded| loaded.file.is_complete())
}

/// Unlinks staged content that the store does not name.
pub(super) fn remove<D: Drive>(drive: &D, content: u64) {
    if let Err(error) = drive.staging().unlink(StagingId(content)) {
        tracing::warn!(content, %error, "staged content that nothing names could not be removed");
    }
}

fn fits(offset: u64, len: u64) -> Result<(), VfsError> {
    match offset.checked_add(len) {
        Some(end) if end <= FILE_MAX => Ok(()),
        _ => Err(VfsError::TooLarge),
    }
}

impl From<StagingError> for VfsError {
    fn from(error: StagingError) -> Self {
        match error {
            StagingError::NoSpace => Self::NoSpace,
            StagingError::Disk(error) => Self::Io(error),
            StagingError::Base(error) => error.into(),
            other => Self::Io(Error::other(other)),
        }
    }
}

impl From<ContentError> for VfsError {
    fn from(error: ContentError) -> Self {
        let text = error.to_string();
        match error {
            ContentError::Fetch(fetch) => match fetch.kind {
                FetchErrorKind::Offline => Self::Offline,
                FetchErrorKind::Deadline => Self::Deadline,
                FetchErrorKind::SignedOut => Self::SignedOut,
                FetchErrorKind::Denied | FetchErrorKind::Malware => Self::AccessDenied,
                FetchErrorKind::VersionGone | FetchErrorKind::NotFound | FetchErrorKind::OtherSize { .. } => {
                    Self::Content(text)
                }
                FetchErrorKind::Io => Self::Io(Error::other(text)),
                FetchErrorKind::Protocol => Self::Service(text),
            },
            ContentError::Damaged | ContentError::NoBase => Self::Content(text),
            ContentError::NoRoom => Self::NoSpace,
            ContentError::Disk(error) => Self::Io(Error::new(error.kind(), error)),
        }
    }
}
