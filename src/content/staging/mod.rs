//! Unsent local content, under the state directory: never collected, unlinked only on request.
//!
//! A staged file is `staging/ID`. It either stands alone, or is an overlay over a base of the same drive: then
//! `staging/ID.map` logs which bytes are its own. The overlay's log is made before its file and goes after
//! it, so that a file without a log always stands alone.
//!
//! What a successful write left here survives `kill -9` exactly, what [`StagingFile::sync`] covered survives
//! a power cut. After a power cut an overlay says how far it may be trusted ([`Trust`]); for a file that
//! stands alone the caller must know whether it was synced.

mod again;
mod file;
mod inner;
mod log;
mod names;
mod overlay;
mod room;
mod salvage;
mod seal;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

pub use file::{Base, StagingFile};
pub use names::read_names;
pub use overlay::Piece;
pub use salvage::Salvage;
pub use seal::Sealed;

use self::inner::Layout;
use self::log::{Header, Log, Replay};
use self::overlay::Overlay;
use self::room::{FreeSpace, MayCopy, may_copy};
use super::blocking::Blocking;
use super::error::ContentError;
use crate::disk::{self, Disk};
use crate::model::ByteRange;

/// The number of a staged content; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StagingId(pub u64);

impl std::fmt::Display for StagingId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What an overlay lies over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseKind {
    /// A version on the service; the store knows which.
    Remote,
    /// A sealed staged content.
    Sealed(StagingId),
}

/// How far a loaded content may be trusted; the worse is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Exactly what was written (no power was lost since, or all of it was synced).
    Exact,
    /// Power was lost: this is what the last sync covered; later writes are gone or partly there.
    UpToSync,
    /// Power was lost and nothing was ever synced: what is here is at best a part.
    Unsynced,
    /// It stands alone and has no log: exact unless power was lost since the last sync.
    NotLogged,
}

/// A staged content found on the disk.
#[derive(Debug)]
pub struct Loaded {
    /// The content.
    pub file: Arc<StagingFile>,
    /// How far it may be trusted.
    pub trust: Trust,
    /// What its overlay lies over; none if it stands alone.
    pub base: Option<BaseKind>,
}

/// An entry of the staging directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagingEntry {
    /// Which.
    pub id: StagingId,
    /// Its length in bytes.
    pub len: u64,
    /// Bytes it takes on the disk.
    pub allocated: u64,
    /// It is an overlay.
    pub overlay: bool,
}

/// What can go wrong with staged content.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The disk is full, or nearly: what is staged already stays safe.
    #[error("no room on the local disk")]
    NoSpace,
    /// There is no staged content of this number.
    #[error("no staged content {0}")]
    NotFound(StagingId),
    /// The number is taken.
    #[error("staged content {0} exists")]
    Exists(StagingId),
    /// The log of an overlay cannot be read.
    #[error("the log of staged content {0} is damaged")]
    DamagedLog(StagingId),
    /// A sealed content does not change.
    #[error("the staged content is sealed")]
    IsSealed,
    /// An earlier failure left it in a state that cannot be relied on.
    #[error("the staged content failed earlier and cannot be changed")]
    Broken,
    /// Bytes of the base are still missing.
    #[error("the staged content lacks bytes of its base")]
    NotComplete,
    /// It changed all the while.
    #[error("the staged content keeps changing")]
    Busy,
    /// The base could not be read.
    #[error(transparent)]
    Base(#[from] ContentError),
    /// The local disk failed.
    #[error("local disk: {0}")]
    Disk(#[source] io::Error),
}

impl From<io::Error> for StagingError {
    fn from(error: io::Error) -> Self {
        if disk::is_out_of_space(&error) { Self::NoSpace } else { Self::Disk(error) }
    }
}

/// Settings of a staging directory.
#[derive(Clone, Debug)]
pub struct StagingConfig {
    /// The state directory's `staging`.
    pub dir: PathBuf,
    /// What must stay free on its file system, so that the store can always commit.
    pub min_free_bytes: u64,
    /// Identifies this boot of the machine.
    pub boot: String,
    /// Where waiting for the disk happens.
    pub blocking: Blocking,
}

impl StagingConfig {
    /// The defaults, in `dir`: 64 MiB left free.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), min_free_bytes: 64 << 20, boot: disk::boot_id(), blocking: Blocking::Auto }
    }
}

/// The staging directory of one drive. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Staging {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: StagingConfig,
    boot: u64,
    disk: Disk,
    space: FreeSpace,
    /// Nothing is sealed any more.
    ending: AtomicBool,
    /// What is open, so that a content is never loaded twice.
    open: Mutex<HashMap<StagingId, Weak<StagingFile>>>,
}

/// Up to this a content is copied rather than overlaid where the file system has no reflinks.
const COPY_UP_TO: u64 = 8 << 20;

impl Staging {
    /// Opens or makes the directory.
    pub fn open(config: StagingConfig, disk: Disk) -> io::Result<Self> {
        disk.create_dir_all("staging.mkdir", &config.dir)?;
        let hash = blake3::hash(config.boot.as_bytes());
        let boot = u64::from_le_bytes(std::array::from_fn(|index| hash.as_bytes()[index]));
        let space = FreeSpace::new(config.min_free_bytes);
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                boot,
                disk,
                space,
                ending: AtomicBool::new(false),
                open: Mutex::default(),
            }),
        })
    }

    /// Seals nothing any more; what is being sealed is given up. For a daemon that ends and is waited for.
    pub fn end(&self) {
        self.shared.ending.store(true, Ordering::Relaxed);
    }

    /// Identifies this boot of the machine.
    pub fn boot(&self) -> &str {
        &self.shared.config.boot
    }

    /// Makes an empty content that stands alone.
    pub fn create(&self, id: StagingId) -> Result<Arc<StagingFile>, StagingError> {
        let shared = &self.shared;
        shared.space.take(&shared.disk, &shared.config.dir, 0)?;
        let mut open = shared.lock();
        // A log without its file is what a crash left of an overlay that was never handed out.
        let path = shared.path(id);
        if shared.disk.stat(&path).is_err() {
            shared.disk.unlink("staging.unlink", &shared.map_path(id))?;
        }
        let data = shared.disk.create("staging.create", &path).map_err(|error| taken(error, id))?;
        Ok(shared.add(&mut open, StagingFile::new(shared.clone(), id, data, Layout::Alone { len: 0 })))
    }

    /// Makes an overlay over a base of `base_len` bytes; attach the base before its bytes are asked for.
    pub fn create_overlay(
        &self,
        id: StagingId,
        base: BaseKind,
        base_len: u64,
    ) -> Result<Arc<StagingFile>, StagingError> {
        let shared = &self.shared;
        shared.space.take(&shared.disk, &shared.config.dir, 0)?;
        let mut open = shared.lock();
        let (path, map_path) = (shared.path(id), shared.map_path(id));
        if shared.disk.stat(&path).is_ok() {
            return Err(StagingError::Exists(id));
        }
        shared.disk.unlink("staging.unlink", &map_path)?;
        let header = Header { base_len, base, boot: shared.boot, verdict: Trust::Exact };
        let log = Log::create(&shared.disk, &map_path, id, header)?;
        let data = shared.disk.create("staging.create", &path).map_err(|error| taken(error, id))?;
        if let Err(error) = data.set_len("staging.create", base_len) {
            shared.disk.unlink("staging.unlink", &path)?;
            return Err(error.into());
        }
        let layout = Layout::Over { overlay: Overlay::over(base_len), log, base };
        Ok(shared.add(&mut open, StagingFile::new(shared.clone(), id, data, layout)))
    }

    /// Opens a content that is on the disk (or open already).
    pub fn load(&self, id: StagingId) -> Result<Loaded, StagingError> {
        let shared = &self.shared;
        let mut open = shared.lock();
        if let Some(file) = open.get(&id).and_then(Weak::upgrade) {
            let base = file.base_kind();
            // Whoever loaded it first was told what a power cut did to it.
            let trust = if base.is_some() { Trust::Exact } else { Trust::NotLogged };
            return Ok(Loaded { file, trust, base });
        }
        let data = shared.disk.open(&shared.path(id)).map_err(|error| missing(error, id))?;
        let (layout, trust, base) = match shared.disk.stat(&shared.map_path(id)) {
            Ok(_) => {
                let (layout, trust, base) = shared.recover(id, &data)?;
                (layout, trust, Some(base))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (Layout::Alone { len: data.stat()?.len }, Trust::NotLogged, None)
            }
            Err(error) => return Err(error.into()),
        };
        let file = shared.add(&mut open, StagingFile::new(shared.clone(), id, data, layout));
        Ok(Loaded { file, trust, base })
    }

    /// A new content with the bytes of a sealed one, to be changed: shares its blocks where the file system
    /// can, is a copy if it is small, else an overlay over it.
    ///
    /// `sealed` must then outlive the overlay, or be replaced as its base ([`StagingFile::rebase`]).
    pub fn continue_from(
        &self,
        sealed: &Arc<StagingFile>,
        id: StagingId,
    ) -> Result<Arc<StagingFile>, StagingError> {
        let shared = &self.shared;
        let len = sealed.len();
        if sealed.base_kind().is_some() {
            return Err(StagingError::NotComplete);
        }
        let path = shared.path(id);
        if shared.disk.stat(&path).is_ok() {
            return Err(StagingError::Exists(id));
        }
        shared.disk.unlink("staging.unlink", &shared.map_path(id))?;
        let source = shared.path(sealed.id());
        let copied = if len <= COPY_UP_TO {
            shared.space.take(&shared.disk, &shared.config.dir, len)?;
            shared.disk.reflink_or_copy("staging.copy", &source, &path).map(|_| true)?
        } else {
            shared.disk.reflink("staging.copy", &source, &path)?
        };
        if copied {
            return Ok(self.load(id)?.file);
        }
        let file = self.create_overlay(id, BaseKind::Sealed(sealed.id()), len)?;
        file.attach(Base::Sealed(sealed.clone()));
        Ok(file)
    }

    /// A copy of a content that writers still have open, as it was at one moment, in `id`.
    ///
    /// `Busy` if it kept changing, `NotComplete` if bytes of its base are missing, `NoSpace` if the writers would be left
    /// without room to write all of it once more. Waits for the disk.
    pub fn snapshot(&self, file: &Arc<StagingFile>, id: StagingId) -> Result<Arc<StagingFile>, StagingError> {
        let shared = &self.shared;
        if !file.is_complete() {
            return Err(StagingError::NotComplete);
        }
        let (source, path) = (shared.path(file.id()), shared.path(id));
        if shared.disk.stat(&path).is_ok() {
            return Err(StagingError::Exists(id));
        }
        shared.disk.unlink("staging.unlink", &shared.map_path(id))?;
        for round in 1..=seal::MAX_ROUNDS {
            let (generation, len) = (file.generation(), file.len());
            let may = may_copy(len, shared.space.spare(&shared.disk, &shared.config.dir)?);
            // Who never rests waits for the copy in the end, if that does not take long.
            let stopped = (round == seal::MAX_ROUNDS && len <= COPY_UP_TO).then(|| file.lock_inner());
            let copied = match may {
                MayCopy::Blocks => shared.disk.reflink_or_copy("staging.copy", &source, &path).map(|_| true),
                MayCopy::Shared => shared.disk.reflink("staging.copy", &source, &path),
                MayCopy::No => Ok(false),
            };
            let is_still = stopped.is_some();
            drop(stopped);
            if !copied? {
                return Err(StagingError::NoSpace);
            }
            if is_still || file.generation() == generation {
                return Ok(self.load(id)?.file);
            }
            shared.disk.unlink("staging.unlink", &path)?;
        }
        Err(StagingError::Busy)
    }

    /// The length of a content that is open.
    pub fn open_len(&self, id: StagingId) -> Option<u64> {
        let file = self.shared.lock().get(&id).and_then(Weak::upgrade)?;
        Some(file.len())
    }

    /// Takes a content away for good. Its bytes stay readable where it is open.
    pub fn unlink(&self, id: StagingId) -> Result<(), StagingError> {
        let shared = &self.shared;
        shared.lock().remove(&id);
        shared.disk.unlink("staging.unlink", &shared.path(id))?;
        shared.disk.unlink("staging.unlink", &shared.map_path(id))?;
        Ok(())
    }

    /// Everything staged, for the adoption of orphans at the start. Removes leftovers without content.
    pub fn list(&self) -> Result<Vec<StagingEntry>, StagingError> {
        let shared = &self.shared;
        let names = shared.disk.list(&shared.config.dir)?;
        let mut entries = Vec::new();
        for name in names.iter().filter_map(|name| name.to_str()) {
            let path = shared.config.dir.join(name);
            if let Some(id) = name.parse().ok().map(StagingId).filter(|id| id.to_string() == name) {
                let stat = shared.disk.stat(&path)?;
                let overlay = shared.disk.stat(&shared.map_path(id)).is_ok();
                entries.push(StagingEntry { id, len: stat.len, allocated: stat.allocated, overlay });
            } else if let Some(id) = name.strip_suffix(".map").and_then(|id| id.parse().ok()).map(StagingId)
                && shared.disk.stat(&shared.path(id)).is_err()
            {
                shared.disk.unlink("staging.unlink", &path)?;
            }
        }
        entries.sort_by_key(|entry| entry.id);
        Ok(entries)
    }

    /// Bytes that staged content takes on the disk.
    pub fn bytes_used(&self) -> Result<u64, StagingError> {
        Ok(self.list()?.iter().map(|entry| entry.allocated).sum())
    }

    /// Where the bytes of `id` are.
    pub fn path(&self, id: StagingId) -> PathBuf {
        self.shared.path(id)
    }

    /// Makes the names in the directory durable.
    pub fn sync_dir(&self) -> Result<(), StagingError> {
        Ok(self.shared.sync_dir()?)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<StagingId, Weak<StagingFile>>> {
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn path(&self, id: StagingId) -> PathBuf {
        self.config.dir.join(id.to_string())
    }

    fn map_path(&self, id: StagingId) -> PathBuf {
        self.config.dir.join(format!("{id}.map"))
    }

    fn dir(&self) -> &Path {
        &self.config.dir
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir("staging.sync_dir", self.dir())
    }

    fn add(&self, open: &mut HashMap<StagingId, Weak<StagingFile>>, file: StagingFile) -> Arc<StagingFile> {
        let file = Arc::new(file);
        open.retain(|_, file| file.strong_count() > 0);
        open.insert(file.id(), Arc::downgrade(&file));
        file
    }

    /// Reads the log of an overlay and brings its data file in line with it.
    fn recover(
        &self,
        id: StagingId,
        data: &disk::DiskFile,
    ) -> Result<(Layout, Trust, BaseKind), StagingError> {
        let opened = Log::open(&self.disk, &self.map_path(id), id)?;
        let (mut log, header, records) = opened.ok_or(StagingError::DamagedLog(id))?;
        let same_boot = header.boot == self.boot;
        let synced = log::synced(&records);
        let (kept, trust) = match synced {
            _ if same_boot => (records.len(), Trust::Exact),
            Some(count) if log::has_changes(&records[count as usize..]) => (count as usize, Trust::UpToSync),
            Some(_) => (records.len(), Trust::Exact),
            // Also where the log holds no change: it was made for one, whose record may be what the power took.
            None => (records.len(), Trust::Unsynced),
        };
        let Replay { overlay, base, records } = Replay::of(&header, &records[..kept]);
        if data.stat()?.len != overlay.len {
            data.set_len("staging.recover", overlay.len)?;
        }
        for zero in overlay.zeros(ByteRange::new(0, overlay.len)) {
            data.punch_hole("staging.recover", zero.start, zero.len())?;
        }
        let trust = trust.max(header.verdict);
        if !same_boot {
            data.sync_data("staging.sync")?;
            log.settle(records, Header { boot: self.boot, verdict: trust, ..header })?;
        }
        Ok((Layout::Over { overlay, log, base }, trust, base))
    }
}

fn taken(error: io::Error, id: StagingId) -> StagingError {
    if error.kind() == io::ErrorKind::AlreadyExists { StagingError::Exists(id) } else { error.into() }
}

fn missing(error: io::Error, id: StagingId) -> StagingError {
    if error.kind() == io::ErrorKind::NotFound { StagingError::NotFound(id) } else { error.into() }
}
