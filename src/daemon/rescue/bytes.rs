//! The bytes of an unsent file: its own from staging, those it does not have from what it lies over.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::RescueSource;
use crate::clock::{Clock, SystemClock};
use crate::content::{
    BaseKind, Cache, CacheConfig, CachedFile, ContentKey, Fetch, FetchError, FetchErrorKind, Fetched, Piece,
    Salvage, StagingId, Urgency,
};
use crate::disk::Disk;
use crate::engine::content_key_of;
use crate::model::ByteRange;
use crate::store::Node;

/// Bytes read at once.
const CHUNK: u64 = 1 << 20;

/// Where the bytes of one state directory's files are.
pub(super) struct Source<'a> {
    from: &'a RescueSource,
    staging: PathBuf,
    /// A daemon has it open: its mount gives what the cache does not.
    pub in_use: bool,
    /// Opened when it is first needed.
    cache: Option<Option<Cache>>,
}

/// What bytes that are not in staging are read from.
enum Below {
    Nothing,
    Sealed(Salvage),
    Cached(Arc<CachedFile>),
    /// The file as the mount shows it: all of it.
    Mount(File),
}

/// All bytes of one file, in order.
pub(super) struct Bytes {
    own: Salvage,
    below: Below,
    at: u64,
    lacking: u64,
    state: (u64, i128),
    changed: bool,
}

impl<'a> Source<'a> {
    pub fn new(from: &'a RescueSource, in_use: bool) -> Self {
        Self { from, staging: from.state_dir.join("staging"), in_use, cache: None }
    }

    /// Opens a staged content. `node`: its row, `path`: where the mount has it.
    pub fn open(&mut self, content: u64, node: Option<&Node>, path: &Path) -> io::Result<Bytes> {
        let own = Salvage::open(&self.staging, StagingId(content)).map_err(as_io)?;
        let needs_base = own.pieces.iter().any(|piece| matches!(piece, Piece::Base(_)));
        let below = match own.base.filter(|_| needs_base) {
            None => Below::Nothing,
            Some(BaseKind::Sealed(base)) => {
                Salvage::open(&self.staging, base).map_or(Below::Nothing, Below::Sealed)
            }
            Some(BaseKind::Remote) => self.remote(node, path),
        };
        let state = own.state()?;
        Ok(Bytes { own, below, at: 0, lacking: 0, state, changed: false }.counted())
    }

    fn remote(&mut self, node: Option<&Node>, path: &Path) -> Below {
        if let Some(mount) = self.from.mountpoint.as_ref().filter(|_| self.in_use) {
            return File::open(mount.join(path)).map_or(Below::Nothing, Below::Mount);
        }
        let key = node.and_then(|node| content_key_of(node, self.from.business));
        match (key, self.cache()) {
            (Some(key), Some(cache)) => Below::Cached(cache.file(&key)),
            _ => Below::Nothing,
        }
    }

    fn cache(&mut self) -> Option<&Cache> {
        // Beside a daemon the cache is the daemon's.
        let dir = self.from.cache_dir.as_ref().filter(|dir| !self.in_use && dir.exists())?;
        let open = || {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            let config = CacheConfig { min_free_bytes: 0, max_bytes: u64::MAX, ..CacheConfig::new(dir) };
            Cache::open(config, Disk::new(), clock, Arc::new(NoService)).ok()
        };
        self.cache.get_or_insert_with(open).as_ref()
    }
}

impl Bytes {
    pub fn len(&self) -> u64 {
        self.own.len
    }

    /// Bytes that are nowhere here, and are zeros in what is read.
    pub fn lacks(&self) -> u64 {
        self.lacking
    }

    /// What is not known of what was read.
    pub fn doubt(&self) -> Option<String> {
        let lacking = crate::model::units::approximate_size(self.lacking);
        if self.lacking > 0 {
            Some(format!("{lacking} of it are on the service only: zeros stand for them"))
        } else if self.own.is_doubtful {
            Some("which of its bytes were written here is not known".to_owned())
        } else if self.changed {
            Some("it was written to meanwhile".to_owned())
        } else {
            None
        }
    }

    /// Counts what can be had nowhere.
    fn counted(mut self) -> Self {
        let lacking = |range: &ByteRange| match &self.below {
            Below::Nothing => range.len(),
            Below::Cached(file) => file.present().gaps(*range).iter().map(ByteRange::len).sum(),
            Below::Sealed(_) | Below::Mount(_) => 0,
        };
        let base = self.own.pieces.iter().filter_map(|piece| match piece {
            Piece::Base(range) => Some(lacking(range)),
            Piece::Local(_) | Piece::Zero(_) => None,
        });
        self.lacking = base.sum();
        self
    }

    fn fill(&mut self, range: ByteRange, piece: &Piece, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        match (piece, &self.below) {
            (Piece::Zero(_), _) | (Piece::Base(_), Below::Nothing) => Ok(()),
            (Piece::Local(_), _) => exact(self.own.read_at(buf, range.start)?, buf),
            (Piece::Base(_), Below::Sealed(base)) => exact(base.read_at(buf, range.start)?, buf),
            (Piece::Base(_), Below::Mount(file)) => {
                std::os::unix::fs::FileExt::read_exact_at(file, buf, range.start)
            }
            (Piece::Base(_), Below::Cached(file)) => {
                // What is not there stays zeros, and was counted.
                for part in file.present().within(range) {
                    let Some(bytes) = file.read_present(part) else { continue };
                    let at = (part.start - range.start) as usize;
                    buf[at..at + bytes.len()].copy_from_slice(&bytes);
                }
                Ok(())
            }
        }
    }
}

impl Read for Bytes {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let piece = self.own.pieces.iter().find(|piece| piece.range().end > self.at).copied();
        let Some(piece) = piece else {
            self.changed = self.own.state()? != self.state;
            return Ok(0);
        };
        let room = (buf.len() as u64).min(CHUNK);
        let range = ByteRange::at(self.at, room).intersect(&piece.range());
        let count = range.len() as usize;
        self.fill(range, &piece, &mut buf[..count])?;
        self.at = range.end;
        Ok(count)
    }
}

fn exact(count: usize, buf: &[u8]) -> io::Result<()> {
    if count == buf.len() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it was cut meanwhile"))
    }
}

fn as_io(error: crate::content::StagingError) -> io::Error {
    use crate::content::StagingError;
    match error {
        StagingError::NotFound(_) => io::Error::new(io::ErrorKind::NotFound, error.to_string()),
        other => io::Error::other(other.to_string()),
    }
}

/// A rescue asks the service for nothing.
struct NoService;

impl Fetch for NoService {
    fn fetch(
        &self,
        _: &ContentKey,
        _: ByteRange,
        _: Urgency,
    ) -> BoxFuture<'static, Result<Fetched, FetchError>> {
        let offline = FetchError::new(FetchErrorKind::Offline);
        async { Err(offline) }.boxed()
    }
}
