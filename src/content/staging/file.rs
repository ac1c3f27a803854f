//! One staged content: writing, reading, and filling it up from its base.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::again::Doubt;
use super::inner::{BaseBytes, Inner, Layout};
use super::log::Record;
use super::overlay::Piece;
use super::{BaseKind, Shared, StagingError, StagingId};
use crate::content::error::ContentError;
use crate::content::file::{CachedFile, Reader};
use crate::disk::{DiskFile, Stat};
use crate::model::ByteRange;

/// Bytes fetched from the base at a time when filling up.
const FILL: u64 = 4 << 20;

/// Where the bytes that an overlay does not have come from.
#[derive(Clone, Debug)]
pub enum Base {
    /// A version on the service.
    Remote(Arc<CachedFile>),
    /// A sealed staged content, which stands alone.
    Sealed(Arc<StagingFile>),
}

/// A base, and the reads of it that no handle's reader makes.
#[derive(Clone, Debug)]
struct Attached {
    base: Base,
    reader: Option<Arc<Reader>>,
}

/// One staged content. Calls that write wait for the disk but never for the network.
///
/// Each write is atomic towards the reads of this object, and durable against `kill -9` when it returns.
#[derive(Debug)]
pub struct StagingFile {
    pub(super) shared: Arc<Shared>,
    id: StagingId,
    inner: RwLock<Inner>,
    base: Mutex<Option<Attached>>,
    /// Moves with every change of bytes or length.
    generation: AtomicU64,
    sealed: AtomicBool,
    dir_synced: AtomicBool,
    /// The disk may have lost bytes of it.
    pub(super) lost: AtomicBool,
    /// Held while a sync runs: what the one before left undone.
    syncing: Mutex<Doubt>,
}

impl StagingFile {
    pub(super) fn new(shared: Arc<Shared>, id: StagingId, data: DiskFile, layout: Layout) -> Self {
        Self {
            shared,
            id,
            inner: RwLock::new(Inner { data: Arc::new(data), layout, broken: false }),
            base: Mutex::default(),
            generation: AtomicU64::new(0),
            sealed: AtomicBool::new(false),
            dir_synced: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            syncing: Mutex::default(),
        }
    }

    /// Its number.
    pub fn id(&self) -> StagingId {
        self.id
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.read_inner().layout.len()
    }

    /// It has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the disk says of it. The length is right; allocation leaves the base out.
    pub fn stat(&self) -> io::Result<Stat> {
        self.data().stat()
    }

    /// No byte of a base is missing.
    pub fn is_complete(&self) -> bool {
        match &self.read_inner().layout {
            Layout::Alone { .. } => true,
            Layout::Over { overlay, .. } => overlay.lacking().is_empty(),
        }
    }

    /// What its overlay lies over; none if it stands alone.
    pub fn base_kind(&self) -> Option<BaseKind> {
        match &self.read_inner().layout {
            Layout::Alone { .. } => None,
            Layout::Over { base, .. } => Some(*base),
        }
    }

    /// Where the bytes it does not have are to be read.
    pub fn attach(&self, base: Base) {
        let reader = match &base {
            Base::Remote(file) => Some(Arc::new(file.reader())),
            Base::Sealed(_) => None,
        };
        *self.lock_base() = Some(Attached { base, reader });
    }

    /// Puts another base with the same bytes under it: the sealed content it lay over was uploaded.
    /// Durable after the next [`StagingFile::sync`].
    pub fn rebase(&self, base: Base) -> Result<(), StagingError> {
        let kind = match &base {
            Base::Remote(_) => BaseKind::Remote,
            Base::Sealed(file) => BaseKind::Sealed(file.id()),
        };
        let mut inner = self.write_inner()?;
        if let Layout::Over { base: known, .. } = &mut inner.layout {
            *known = kind;
            inner.log(Record::Rebased(kind))?;
        }
        drop(inner);
        self.attach(base);
        Ok(())
    }

    /// A number that moves with every change; read while no change is under way.
    pub fn generation(&self) -> u64 {
        let _no_writer = self.read_inner();
        self.generation.load(Ordering::SeqCst)
    }

    /// Refuses all changes from here on.
    pub fn mark_sealed(&self) {
        self.sealed.store(true, Ordering::SeqCst);
    }

    /// Seals if nothing changed since `generation`.
    pub(super) fn seal_at(&self, generation: u64) -> bool {
        let _no_writer = self.lock_inner();
        let still = self.generation.load(Ordering::SeqCst) == generation;
        if still {
            self.mark_sealed();
        }
        still
    }

    /// Allows changes again: nobody carries the sealed bytes away.
    pub fn unseal(&self) {
        self.sealed.store(false, Ordering::SeqCst);
    }

    /// It is sealed.
    pub fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::SeqCst)
    }

    /// Writes all of `bytes` at `offset`, extending the file where needed.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StagingError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.shared.space.take(&self.shared.disk, self.shared.dir(), bytes.len() as u64)?;
        let range = ByteRange::at(offset, bytes.len() as u64);
        let mut inner = self.write_inner()?;
        let written = inner.data.write_at("staging.write", bytes, offset);
        inner.own(range, written)
    }

    /// Cuts the file, or extends it with zeros.
    pub fn truncate(&self, len: u64) -> Result<(), StagingError> {
        let mut inner = self.write_inner()?;
        inner.set_len(len)
    }

    /// Makes `range` read as zeros without changing the length, and gives its room back.
    pub fn punch(&self, range: ByteRange) -> Result<(), StagingError> {
        let mut inner = self.write_inner()?;
        let range = range.intersect(&ByteRange::new(0, inner.layout.len()));
        if range.is_empty() {
            return Ok(());
        }
        let punched = inner.data.punch_hole("staging.punch", range.start, range.len());
        inner.own(range, punched)
    }

    /// Makes `range` read as zeros, extending the file unless `keep_len`.
    pub fn zero(&self, range: ByteRange, keep_len: bool) -> Result<(), StagingError> {
        if !keep_len && range.end > self.len() {
            self.truncate(range.end)?;
        }
        self.punch(range)
    }

    /// Reserves room for `range`, extending the file unless `keep_len`. The bytes stay as they are.
    pub fn allocate(&self, range: ByteRange, keep_len: bool) -> Result<(), StagingError> {
        self.shared.space.take(&self.shared.disk, self.shared.dir(), range.len())?;
        let mut inner = self.write_inner()?;
        inner.data.fallocate("staging.allocate", range.start, range.len(), true)?;
        if !keep_len && range.end > inner.layout.len() { inner.set_len(range.end) } else { Ok(()) }
    }

    /// Where the bytes of `range` are (cut to the length), in order.
    pub fn pieces(&self, range: ByteRange) -> Vec<Piece> {
        self.read_inner().layout.pieces(range)
    }

    /// The bytes of `range` (cut to the length) if none of them is the base's.
    pub fn read_local(&self, range: ByteRange) -> Result<Option<Bytes>, StagingError> {
        let inner = self.read_inner();
        inner.assemble(range, &BaseBytes::default())
    }

    /// The bytes of `range` (cut to the length), fetching those of the base.
    ///
    /// Ready at the first poll when nothing must be fetched. `reader` is the handle's reader of a remote
    /// base, if it has one of its own.
    pub async fn read(&self, range: ByteRange, reader: Option<&Reader>) -> Result<Bytes, StagingError> {
        let mut base_bytes = BaseBytes::default();
        loop {
            if let Some(bytes) = self.read_inner().assemble(range, &base_bytes)? {
                return Ok(bytes);
            }
            // What is the base's only shrinks, so that a second round is enough.
            for piece in self.pieces(range) {
                if let Piece::Base(part) = piece
                    && !base_bytes.covers(part)
                {
                    base_bytes.0.push((part.start, self.read_base(part, reader).await?));
                }
            }
        }
    }

    async fn read_base(&self, range: ByteRange, reader: Option<&Reader>) -> Result<Bytes, StagingError> {
        let Attached { base, reader: own } = self.lock_base().clone().ok_or(ContentError::NoBase)?;
        let bytes = match base {
            Base::Remote(file) => match reader.or(own.as_deref()) {
                Some(reader) => file.read(range, reader).await?,
                None => file.read(range, &file.reader()).await?,
            },
            Base::Sealed(file) => file.read_local(range)?.ok_or(StagingError::NotComplete)?,
        };
        if bytes.len() as u64 == range.len() {
            Ok(bytes)
        } else {
            Err(StagingError::Disk(io::ErrorKind::UnexpectedEof.into()))
        }
    }

    /// Fetches all untouched ranges of the base, so that the content stands alone. Writes may go on meanwhile
    /// and win. Cancel-safe: what was filled stays filled.
    pub async fn fill_from_base(self: &Arc<Self>) -> Result<(), StagingError> {
        let remote = match &*self.lock_base() {
            Some(Attached { base: Base::Remote(file), .. }) => Some(file.reader()),
            Some(Attached { base: Base::Sealed(_), .. }) | None => None,
        };
        while let Some(gap) = self.first_gap() {
            let range = ByteRange::at(gap.start, FILL).intersect(&gap);
            let bytes = self.read_base(range, remote.as_ref()).await?;
            let file = self.clone();
            self.shared.config.blocking.start(move || file.fill(range, &bytes)).await?;
        }
        Ok(())
    }

    fn first_gap(&self) -> Option<ByteRange> {
        match &self.read_inner().layout {
            Layout::Alone { .. } => None,
            Layout::Over { overlay, .. } => overlay.lacking().first().copied(),
        }
    }

    /// Writes bytes of the base where nothing else was written. Changes no byte that a reader sees.
    fn fill(&self, range: ByteRange, bytes: &[u8]) -> Result<(), StagingError> {
        self.shared.space.take(&self.shared.disk, self.shared.dir(), range.len())?;
        let mut inner = self.lock_inner();
        if inner.broken {
            return Err(StagingError::Broken);
        }
        for piece in inner.layout.pieces(range) {
            if let Piece::Base(part) = piece {
                let from = (part.start - range.start) as usize;
                let part_bytes = &bytes[from..from + part.len() as usize];
                let written = inner.data.write_at("staging.fill", part_bytes, part.start);
                inner.own(part, written)?;
            }
        }
        Ok(())
    }

    /// The first byte of data at or after `offset`; none when only a hole follows. The base counts as data.
    pub fn seek_data(&self, offset: u64) -> Result<Option<u64>, StagingError> {
        let inner = self.read_inner();
        for piece in inner.layout.pieces(ByteRange::new(offset, u64::MAX)) {
            let range = piece.range();
            match piece {
                Piece::Base(_) => return Ok(Some(range.start)),
                Piece::Local(_) => match inner.data.seek_data(range.start)? {
                    Some(found) if found < range.end => return Ok(Some(found)),
                    _ => {}
                },
                Piece::Zero(_) => {}
            }
        }
        Ok(None)
    }

    /// The first byte of a hole at or after `offset`; the end counts as one. None beyond the end.
    pub fn seek_hole(&self, offset: u64) -> Result<Option<u64>, StagingError> {
        let inner = self.read_inner();
        let len = inner.layout.len();
        if offset >= len {
            return Ok(None);
        }
        for piece in inner.layout.pieces(ByteRange::new(offset, u64::MAX)) {
            let range = piece.range();
            match piece {
                Piece::Zero(_) => return Ok(Some(range.start)),
                Piece::Local(_) => match inner.data.seek_hole(range.start)? {
                    Some(found) if found < range.end => return Ok(Some(found)),
                    _ => {}
                },
                Piece::Base(_) => {}
            }
        }
        Ok(Some(len))
    }

    /// Makes everything written so far survive a power cut. Waits for the disk.
    ///
    /// After an error all of it is written again by the next call; see [`StagingFile::is_lost`].
    pub fn sync(&self) -> Result<(), StagingError> {
        let mut doubt = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.settle(&mut doubt)?;
        let (data, records) = {
            let inner = self.read_inner();
            (inner.data.clone(), inner.layout.records())
        };
        data.sync_data("staging.sync").map_err(|error| self.failed(&mut doubt, error))?;
        if let Some(records) = records {
            let mut inner = self.lock_inner();
            if inner.broken {
                return Err(StagingError::Broken);
            }
            inner.log(Record::Synced(records))?;
            let log = match &inner.layout {
                Layout::Alone { .. } => None,
                Layout::Over { log, .. } => Some(log.file.clone()),
            };
            drop(inner);
            if let Some(Err(error)) = log.map(|log| log.sync_data("staging.map.sync")) {
                doubt.log = true;
                return Err(error.into());
            }
        }
        if !self.dir_synced.load(Ordering::SeqCst) {
            self.shared.sync_dir()?;
            self.dir_synced.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    /// As [`StagingFile::sync`], of what came by no call of this object: stores through a map.
    pub(super) fn sync_stores(&self, data: &DiskFile) -> Result<(), StagingError> {
        let mut doubt = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        data.sync_data("staging.seal.sync").map_err(|error| self.failed(&mut doubt, error))
    }

    /// Makes a filled overlay stand alone: its log goes. The bytes must be durable.
    pub(super) fn stand_alone(&self, generation: u64) -> Result<(), StagingError> {
        let mut inner = self.lock_inner();
        let Layout::Over { overlay, .. } = &inner.layout else { return Ok(()) };
        if !overlay.lacking().is_empty() {
            return Err(StagingError::NotComplete);
        }
        if self.generation.load(Ordering::SeqCst) != generation {
            return Err(StagingError::Busy);
        }
        let len = overlay.len;
        self.shared.disk.unlink("staging.map.unlink", &self.shared.map_path(self.id))?;
        inner.layout = Layout::Alone { len };
        drop(inner);
        self.lock_base().take();
        Ok(self.shared.sync_dir()?)
    }

    pub(super) fn data(&self) -> Arc<DiskFile> {
        self.read_inner().data.clone()
    }

    fn read_inner(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_inner(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_base(&self) -> MutexGuard<'_, Option<Attached>> {
        self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a change: refused when sealed or broken, noted in the generation.
    fn write_inner(&self) -> Result<RwLockWriteGuard<'_, Inner>, StagingError> {
        let inner = self.lock_inner();
        if self.is_sealed() {
            return Err(StagingError::IsSealed);
        }
        if inner.broken {
            return Err(StagingError::Broken);
        }
        self.generation.fetch_add(1, Ordering::SeqCst);
        Ok(inner)
    }
}
