//! Reads staged content as it lies on the disk, changing nothing: for a rescue, also beside a running daemon.

use std::io;
use std::path::{Path, PathBuf};

use super::log::{Log, Replay};
use super::overlay::Piece;
use super::{BaseKind, StagingError, StagingId};
use crate::disk::{Disk, DiskFile};
use crate::model::ByteRange;

/// A staged content, opened for reading only.
#[derive(Debug)]
pub struct Salvage {
    data: DiskFile,
    /// Bytes.
    pub len: u64,
    /// What it lies over; none if it stands alone.
    pub base: Option<BaseKind>,
    /// Where its bytes are, in order.
    pub pieces: Vec<Piece>,
    /// Its log could not be read: which of its bytes are its own is not known.
    pub is_doubtful: bool,
}

impl Salvage {
    /// The contents in a staging directory, in order.
    pub fn list(dir: &Path) -> io::Result<Vec<StagingId>> {
        let names = match Disk::new().list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            names => names?,
        };
        let id = |name: &std::ffi::OsString| name.to_str()?.parse().ok().map(StagingId);
        let mut found: Vec<StagingId> = names.iter().filter_map(id).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Opens one. After a power cut the log may say less than was written: then this is what was synced.
    pub fn open(dir: &Path, id: StagingId) -> Result<Self, StagingError> {
        let disk = Disk::new();
        let data = match disk.open_read(&dir.join(id.to_string())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StagingError::NotFound(id)),
            data => data?,
        };
        let len = data.stat()?.len;
        let whole = vec![Piece::Local(ByteRange::new(0, len))];
        let map: PathBuf = dir.join(format!("{id}.map"));
        let alone = Self { data, len, base: None, pieces: whole, is_doubtful: false };
        if let Err(error) = disk.stat(&map) {
            return if error.kind() == io::ErrorKind::NotFound { Ok(alone) } else { Err(error.into()) };
        }
        let Some((header, records)) = Log::look(&disk, &map, id)? else {
            return Ok(Self { is_doubtful: true, ..alone });
        };
        let Replay { overlay, base, .. } = Replay::of(&header, &records);
        let pieces = overlay.pieces(ByteRange::new(0, overlay.len));
        Ok(Self { len: overlay.len, base: Some(base), pieces, ..alone })
    }

    /// Reads at `offset` from the content's own file; the count is less than asked for at its end only.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.data.read_at("staging.salvage.read", buf, offset)
    }

    /// Moves with every change of the file.
    pub fn state(&self) -> io::Result<(u64, i128)> {
        let stat = self.data.stat()?;
        Ok((stat.len, stat.ctime_nanos))
    }
}
