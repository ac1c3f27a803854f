//! The two files of one content: a sparse file of its bytes and the map of the blocks present.
//!
//! The map holds, for each block, a checksum of its bytes (0: not present), written after the bytes. Neither
//! is ever synced: after a power cut, or when someone changed the files, a checksum does not match and the
//! block counts as missing. So the map needs no order of writes beyond the page cache's.
//!
//! Format of the map: a header of 4 KiB (magic, format version, block size, the key as JSON, a seal, a checksum of all
//! that but the seal), then 8 bytes per block, little-endian. The seal is a checksum of the blocks' checksums when all of
//! them had the service's hash: it holds for exactly these bytes, so nothing has to take it back.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::bits::Bits;
use super::key::{ContentKey, Paths};
use crate::disk::{Disk, DiskFile};
use crate::model::ByteRange;

const MAGIC: &[u8; 8] = b"ODFSMAP\0";
const FORMAT: u32 = 2;
/// Bytes of the header; the unit in which the map takes room on the disk.
pub(super) const PAGE: u64 = 4096;
const HEADER_SUM: usize = 16;
const SEAL_AT: usize = PAGE as usize - HEADER_SUM - SUM_BYTES as usize;
const KEY_AT: usize = 20;
const SUM_BYTES: u64 = 8;
/// Blocks whose checksums share a page of the map.
pub(super) const BLOCKS_PER_PAGE: u64 = PAGE / SUM_BYTES;

/// What is on the disk of one content.
#[derive(Debug)]
pub(super) struct Loaded {
    pub backing: Backing,
    /// Blocks that the map claims.
    pub present: Bits,
    /// All of them had the service's hash.
    pub is_sealed: bool,
}

/// The open files of one content.
#[derive(Debug)]
pub(super) struct Backing {
    data: DiskFile,
    map: DiskFile,
    block: u64,
    size: u64,
}

impl Backing {
    /// Makes empty files for `key`, replacing what is there.
    pub fn create(disk: &Disk, paths: &Paths, key: &ContentKey, block: u64) -> io::Result<Self> {
        let header = header(key, block)?;
        remove(disk, paths)?;
        let dir = paths.data.parent().unwrap_or(Path::new("."));
        let data = match disk.create("cache.create", &paths.data) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                disk.create_dir_all("cache.mkdir", dir)?;
                disk.create("cache.create", &paths.data)?
            }
            other => other?,
        };
        data.set_len("cache.create", key.size)?;
        let map = disk.create("cache.create", &paths.map)?;
        map.write_at("cache.header", &header, 0)?;
        Ok(Self { data, map, block, size: key.size })
    }

    /// Makes a map of all blocks for the complete file that stands at `paths.data`.
    pub fn describe(disk: &Disk, paths: &Paths, key: &ContentKey, block: u64) -> io::Result<Self> {
        let header = header(key, block)?;
        disk.unlink("cache.unlink", &paths.map)?;
        let data = disk.open(&paths.data)?;
        let map = disk.create("cache.create", &paths.map)?;
        let backing = Self { data, map, block, size: key.size };
        let blocks = key.size.div_ceil(block);
        for first in (0..blocks).step_by(64) {
            let run = backing.run(first, (first + 64).min(blocks));
            let sums = backing.sums(&backing.read(run)?);
            backing.record(first, &sums)?;
        }
        backing.map.write_at("cache.header", &header, 0)?;
        Ok(backing)
    }

    /// Opens the files of `key` and reads which blocks they claim. None if there are none that fit.
    pub fn load(disk: &Disk, paths: &Paths, key: &ContentKey, block: u64) -> io::Result<Option<Loaded>> {
        let (data, map) = match (disk.open(&paths.data), disk.open(&paths.map)) {
            (Ok(data), Ok(map)) => (data, map),
            (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let (stat, found) = (data.stat()?, read_header(&map)?);
        if !stat.is_file || stat.len != key.size || found.as_ref() != Some(&(key.clone(), block)) {
            return Ok(None);
        }
        let backing = Self { data, map, block, size: key.size };
        let present = backing.claimed()?;
        let is_sealed = present.all_set() && backing.read_seal()? == Some(backing.seal_of_sums()?);
        Ok(Some(Loaded { backing, present, is_sealed }))
    }

    fn claimed(&self) -> io::Result<Bits> {
        let blocks = self.size.div_ceil(self.block);
        let mut bits = Bits::new(blocks);
        let mut page = vec![0u8; 16 * PAGE as usize];
        let mut at = PAGE;
        while let Some(start) = self.map.seek_data(at)? {
            at = start - start % SUM_BYTES;
            let count = self.map.read_at("cache.read_map", &mut page, at)?;
            for (index, sum) in page[..count].chunks_exact(8).enumerate() {
                let block = (at - PAGE) / SUM_BYTES + index as u64;
                if sum != [0; 8] {
                    bits.set(block, block + 1);
                }
            }
            at += count as u64;
            if count < page.len() {
                break;
            }
        }
        Ok(bits)
    }

    /// Notes that all blocks, as the map claims them, have the service's hash.
    pub fn seal(&self) -> io::Result<()> {
        self.map.write_at("cache.seal", &self.seal_of_sums()?.to_le_bytes(), SEAL_AT as u64)
    }

    fn read_seal(&self) -> io::Result<Option<u64>> {
        let mut seal = [0; SUM_BYTES as usize];
        let count = self.map.read_at("cache.read_map", &mut seal, SEAL_AT as u64)?;
        Ok((count == seal.len()).then(|| u64::from_le_bytes(seal)))
    }

    fn seal_of_sums(&self) -> io::Result<u64> {
        let end = PAGE + self.size.div_ceil(self.block) * SUM_BYTES;
        let mut sums = vec![0; 16 * PAGE as usize];
        let mut hasher = blake3::Hasher::new();
        let mut at = PAGE;
        while at < end {
            let part = (end - at).min(sums.len() as u64) as usize;
            if self.map.read_at("cache.read_map", &mut sums[..part], at)? < part {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            hasher.update(&sums[..part]);
            at += part as u64;
        }
        Ok(shortened(&hasher.finalize()))
    }

    /// The same files, the bytes open for reading only.
    pub fn for_reading(&self) -> io::Result<Self> {
        let (data, map) = (self.data.reopen_for_reading()?, self.map.reopen_for_writing()?);
        Ok(Self { data, map, block: self.block, size: self.size })
    }

    /// The bytes of blocks `first..end`.
    pub fn run(&self, first: u64, end: u64) -> ByteRange {
        ByteRange::new(first * self.block, (end * self.block).min(self.size))
    }

    /// Reads `range` whole.
    pub fn read(&self, range: ByteRange) -> io::Result<Bytes> {
        let mut buf = vec![0u8; range.len() as usize];
        if self.data.read_at("cache.read", &mut buf, range.start)? < buf.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(buf.into())
    }

    /// Writes the bytes of whole blocks from `first` on; they are not present before [`Backing::record`].
    pub fn write(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        self.data.write_at("cache.write", bytes, first * self.block)
    }

    /// The checksums of whole blocks.
    pub fn sums(&self, bytes: &[u8]) -> Vec<u64> {
        bytes.chunks(self.block as usize).map(checksum).collect()
    }

    /// Claims the blocks from `first` on.
    pub fn record(&self, first: u64, sums: &[u64]) -> io::Result<()> {
        let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        self.map.write_at("cache.record", &bytes, PAGE + first * SUM_BYTES)
    }

    /// Which of the blocks `first..end` do not have the bytes the map claims.
    pub fn verify(&self, first: u64, end: u64) -> io::Result<Vec<u64>> {
        let mut claimed = vec![0u8; ((end - first) * SUM_BYTES) as usize];
        self.map.read_at("cache.read_map", &mut claimed, PAGE + first * SUM_BYTES)?;
        let mut bad = Vec::new();
        for (block, claimed) in (first..end).zip(claimed.chunks_exact(8)) {
            let matches = match self.read(self.run(block, block + 1)) {
                Ok(bytes) => checksum(&bytes).to_le_bytes() == claimed,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
                Err(error) => return Err(error),
            };
            if !matches {
                bad.push(block);
            }
        }
        Ok(bad)
    }

    /// Makes blocks `first..end` absent and gives their room back.
    pub fn erase(&self, first: u64, end: u64) -> io::Result<()> {
        self.record(first, &vec![0; (end - first) as usize])?;
        let run = self.run(first, end);
        self.data.punch_hole("cache.punch", run.start, run.len())
    }

    /// The file of the bytes.
    pub fn data(&self) -> &DiskFile {
        &self.data
    }

    /// The file of the map; its time of modification is the content's time of last use.
    pub fn map(&self) -> &DiskFile {
        &self.map
    }

    /// Whether the bytes have another name too (adopted from staging): then they must not be changed.
    pub fn is_shared(&self) -> io::Result<bool> {
        Ok(self.data.stat()?.links > 1)
    }

    /// Writes another key of the same bytes into the header.
    pub fn rename_key(&self, key: &ContentKey) -> io::Result<()> {
        let mut header = header(key, self.block)?;
        if let Some(seal) = self.read_seal()? {
            header[SEAL_AT..][..SUM_BYTES as usize].copy_from_slice(&seal.to_le_bytes());
        }
        self.map.write_at("cache.header", &header, 0)
    }
}

/// Takes both files away.
pub(super) fn remove(disk: &Disk, paths: &Paths) -> io::Result<()> {
    disk.unlink("cache.unlink", &paths.map)?;
    disk.unlink("cache.unlink", &paths.data)
}

/// The key that a map was made for.
pub(super) fn key_of(disk: &Disk, map: &Path) -> Option<ContentKey> {
    read_header(&disk.open_read(map).ok()?).ok()?.map(|(key, _)| key)
}

fn checksum(block: &[u8]) -> u64 {
    shortened(&blake3::hash(block))
}

/// Never 0, which says that there is none.
fn shortened(hash: &blake3::Hash) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|index| hash.as_bytes()[index])).max(1)
}

fn header(key: &ContentKey, block: u64) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(key)?;
    let mut header = Vec::with_capacity(PAGE as usize);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&(block as u32).to_le_bytes());
    header.extend_from_slice(&(json.len() as u32).to_le_bytes());
    header.extend_from_slice(&json);
    if header.len() > SEAL_AT {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the tags of this item are too long"));
    }
    header.resize(SEAL_AT, 0);
    let sum = blake3::hash(&header);
    header.extend_from_slice(&[0; SUM_BYTES as usize]);
    header.extend_from_slice(&sum.as_bytes()[..HEADER_SUM]);
    Ok(header)
}

fn read_header(map: &DiskFile) -> io::Result<Option<(ContentKey, u64)>> {
    let mut header = vec![0u8; PAGE as usize];
    if map.read_at("cache.read_map", &mut header, 0)? < header.len() {
        return Ok(None);
    }
    let (_, sum) = header.split_at(PAGE as usize - HEADER_SUM);
    let body = &header[..SEAL_AT];
    if &blake3::hash(body).as_bytes()[..HEADER_SUM] != sum || !body.starts_with(MAGIC) {
        return Ok(None);
    }
    let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|index| body[at + index]));
    if number(8) != FORMAT {
        return Ok(None);
    }
    let json = body.get(KEY_AT..KEY_AT.saturating_add(number(16) as usize));
    let key = json.and_then(|json| serde_json::from_slice(json).ok());
    Ok(key.map(|key| (key, u64::from(number(12)))))
}
