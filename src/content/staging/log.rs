//! The sidecar of an overlay: what is the staging file's own, so that a reload after `kill -9` is exact.
//!
//! Append-only. A change of bytes is logged after the bytes are written and before the writer is told; a
//! change of length that cuts is logged before the file is cut. Format: a header of 64 bytes, then records
//! of 32 bytes, each with a checksum over its place and content; the first record that does not check ends
//! the log.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::overlay::{Change, Overlay};
use super::{BaseKind, StagingId, Trust};
use crate::disk::{Disk, DiskFile};
use crate::model::ByteRange;

const MAGIC: &[u8; 8] = b"ODFSLOG\0";
const FORMAT: u32 = 1;
const HEADER: u64 = 64;
const RECORD: u64 = 32;
const REMOTE_BASE: u64 = u64::MAX;

/// The open log of one overlay.
#[derive(Debug)]
pub(super) struct Log {
    pub file: Arc<DiskFile>,
    id: StagingId,
    records: u64,
    /// Nothing changed since the last sync.
    clean: bool,
}

/// An entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Change(Change),
    /// The bytes of the first so many records are durable.
    Synced(u64),
    /// The base is another one with the same bytes.
    Rebased(BaseKind),
}

/// The fixed part of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub base_len: u64,
    pub base: BaseKind,
    /// The boot of the machine in which the log was last known to be exact.
    pub boot: u64,
    /// What an earlier power cut did to it.
    pub verdict: Trust,
}

/// A log as read.
#[derive(Debug)]
pub(super) struct Replay {
    pub overlay: Overlay,
    pub base: BaseKind,
    /// Records that were applied.
    pub records: u64,
}

impl Log {
    pub fn create(disk: &Disk, path: &Path, id: StagingId, header: Header) -> io::Result<Self> {
        let file = disk.create("staging.map.create", path)?;
        file.write_at("staging.map.header", &header.encode(id), 0)?;
        Ok(Self { file: Arc::new(file), id, records: 0, clean: false })
    }

    /// Opens a log and reads its header and records. None if the header does not check.
    pub fn open(disk: &Disk, path: &Path, id: StagingId) -> io::Result<Option<(Self, Header, Vec<Record>)>> {
        let file = disk.open(path)?;
        let mut bytes = vec![0; file.stat()?.len as usize];
        let len = file.read_at("staging.map.read", &mut bytes, 0)?;
        let Some((header, records)) = parse(&bytes[..len], id) else { return Ok(None) };
        let clean = matches!(records.last(), Some(Record::Synced(_)));
        let log = Self { file: Arc::new(file), id, records: records.len() as u64, clean };
        Ok(Some((log, header, records)))
    }

    /// As [`Log::open`], for reading only.
    pub fn look(disk: &Disk, path: &Path, id: StagingId) -> io::Result<Option<(Header, Vec<Record>)>> {
        let file = disk.open_read(path)?;
        let mut bytes = vec![0; file.stat()?.len as usize];
        let len = file.read_at("staging.map.read", &mut bytes, 0)?;
        Ok(parse(&bytes[..len], id))
    }

    pub fn records(&self) -> u64 {
        self.records
    }

    /// No change was logged since the last sync, so that the next one must be, even if it changes no layout:
    /// after a power cut the log tells whether all of the file was synced.
    pub fn is_clean(&self) -> bool {
        self.clean
    }

    /// Adds a record; on an error the log is as before, or `Err(true)` says that it is beyond repair.
    pub fn append(&mut self, record: Record) -> Result<(), (io::Error, bool)> {
        let at = HEADER + self.records * RECORD;
        let bytes = encode(record, self.id, self.records);
        if let Err(error) = self.file.write_at("staging.map.append", &bytes, at) {
            let repaired = self.file.set_len("staging.map.repair", at).is_ok();
            return Err((error, !repaired));
        }
        self.clean = record == Record::Synced(self.records);
        self.records += 1;
        Ok(())
    }

    /// Writes all of it again as it reads, if that is whole: a sync of it failed.
    pub fn write_again(&self) -> io::Result<()> {
        let mut bytes = vec![0; (HEADER + self.records * RECORD) as usize];
        let len = self.file.read_at("staging.map.read", &mut bytes, 0)?;
        let whole =
            parse(&bytes[..len], self.id).is_some_and(|(_, found)| found.len() as u64 == self.records);
        if !whole {
            return Err(io::Error::other("the disk lost a part of the log of staged content"));
        }
        self.file.write_at("staging.map.again", &bytes, 0)
    }

    /// After a power cut: keeps the verdict, cuts the log to its first `records`, and notes that it is exact in
    /// the boot of `header`. The bytes it vouches for must be durable already.
    pub fn settle(&mut self, records: u64, header: Header) -> io::Result<()> {
        // A crash on the way must find the verdict and take the log for one of another boot again.
        self.put_header(Header { boot: 0, ..header })?;
        self.records = records;
        self.file.set_len("staging.map.settle", HEADER + records * RECORD)?;
        self.append(Record::Synced(records)).map_err(|(error, _)| error)?;
        self.file.sync_data("staging.map.sync")?;
        self.put_header(header)
    }

    fn put_header(&self, header: Header) -> io::Result<()> {
        self.file.write_at("staging.map.header", &header.encode(self.id), 0)?;
        self.file.sync_data("staging.map.sync")
    }
}

/// Header and records of a log; nothing if the header does not check.
fn parse(bytes: &[u8], id: StagingId) -> Option<(Header, Vec<Record>)> {
    let header = Header::decode(bytes.get(..HEADER as usize)?, id)?;
    let chunks = bytes[HEADER as usize..].chunks_exact(RECORD as usize);
    let records = chunks.enumerate().map_while(|(index, chunk)| decode(chunk, id, index as u64));
    Some((header, records.collect()))
}

impl Replay {
    /// Applies `records` in order.
    pub fn of(header: &Header, records: &[Record]) -> Self {
        let mut replay = Self {
            overlay: Overlay::over(header.base_len),
            base: header.base,
            records: records.len() as u64,
        };
        for record in records {
            match record {
                Record::Change(change) => replay.overlay.apply(*change),
                Record::Rebased(base) => replay.base = *base,
                Record::Synced(_) => {}
            }
        }
        replay
    }
}

/// How many of the records are known to have had durable bytes.
pub(super) fn synced(records: &[Record]) -> Option<u64> {
    records.iter().rev().find_map(|record| match record {
        Record::Synced(count) => Some((*count).min(records.len() as u64)),
        _ => None,
    })
}

/// Whether any of the records changes bytes.
pub(super) fn has_changes(records: &[Record]) -> bool {
    records.iter().any(|record| matches!(record, Record::Change(_)))
}

impl Header {
    fn encode(&self, id: StagingId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER as usize);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&(self.verdict as u32).to_le_bytes());
        let base = match self.base {
            BaseKind::Remote => REMOTE_BASE,
            BaseKind::Sealed(id) => id.0,
        };
        for number in [self.base_len, id.0, base, self.boot] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(&sum.as_bytes()[..16]);
        bytes
    }

    fn decode(bytes: &[u8], id: StagingId) -> Option<Self> {
        let verdict = match bytes[12] {
            0 => Trust::Exact,
            1 => Trust::UpToSync,
            _ => Trust::Unsynced,
        };
        let header = Self {
            base_len: number(bytes, 16),
            base: base_kind(number(bytes, 32)),
            boot: number(bytes, 40),
            verdict,
        };
        (bytes == header.encode(id)).then_some(header)
    }
}

fn base_kind(number: u64) -> BaseKind {
    if number == REMOTE_BASE { BaseKind::Remote } else { BaseKind::Sealed(StagingId(number)) }
}

fn encode(record: Record, id: StagingId, index: u64) -> [u8; RECORD as usize] {
    let (kind, first, second) = match record {
        Record::Change(Change::Local(range)) => (1u64, range.start, range.end),
        Record::Change(Change::Length(len)) => (2, len, 0),
        Record::Synced(count) => (3, count, 0),
        Record::Rebased(BaseKind::Remote) => (4, REMOTE_BASE, 0),
        Record::Rebased(BaseKind::Sealed(id)) => (4, id.0, 0),
    };
    let mut bytes = [0; RECORD as usize];
    bytes[..8].copy_from_slice(&kind.to_le_bytes());
    bytes[8..16].copy_from_slice(&first.to_le_bytes());
    bytes[16..24].copy_from_slice(&second.to_le_bytes());
    let sum = record_sum(&bytes[..24], id, index);
    bytes[24..].copy_from_slice(&sum);
    bytes
}

fn decode(bytes: &[u8], id: StagingId, index: u64) -> Option<Record> {
    if bytes[24..] != record_sum(&bytes[..24], id, index) {
        return None;
    }
    let (first, second) = (number(bytes, 8), number(bytes, 16));
    match number(bytes, 0) {
        1 => Some(Record::Change(Change::Local(ByteRange::new(first, second)))),
        2 => Some(Record::Change(Change::Length(first))),
        3 => Some(Record::Synced(first)),
        4 => Some(Record::Rebased(base_kind(first))),
        _ => None,
    }
}

/// Binds a record to its file and its place, so that leftovers of another log do not pass.
fn record_sum(body: &[u8], id: StagingId, index: u64) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&id.0.to_le_bytes()).update(&index.to_le_bytes()).update(body);
    let hash = hasher.finalize();
    std::array::from_fn(|at| hash.as_bytes()[at])
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}
