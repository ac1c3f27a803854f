//! The data file of a staged content and its layout, kept in step. Called under the content's lock.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::log::{Log, Record};
use super::overlay::{Change, Overlay, Piece};
use super::{BaseKind, StagingError};
use crate::disk::DiskFile;
use crate::model::ByteRange;

#[derive(Debug)]
pub(super) struct Inner {
    pub data: Arc<DiskFile>,
    pub layout: Layout,
    /// File and log may disagree: nothing may be written.
    pub broken: bool,
}

#[derive(Debug)]
pub(super) enum Layout {
    /// All bytes are its own.
    Alone {
        len: u64,
    },
    Over {
        overlay: Overlay,
        log: Log,
        base: BaseKind,
    },
}

impl Layout {
    pub fn len(&self) -> u64 {
        match self {
            Layout::Alone { len } => *len,
            Layout::Over { overlay, .. } => overlay.len,
        }
    }

    pub fn records(&self) -> Option<u64> {
        match self {
            Layout::Alone { .. } => None,
            Layout::Over { log, .. } => Some(log.records()),
        }
    }

    pub fn pieces(&self, range: ByteRange) -> Vec<Piece> {
        match self {
            Layout::Alone { len } => {
                let range = range.intersect(&ByteRange::new(0, *len));
                if range.is_empty() { Vec::new() } else { vec![Piece::Local(range)] }
            }
            Layout::Over { overlay, .. } => overlay.pieces(range),
        }
    }
}

impl Inner {
    pub fn log(&mut self, record: Record) -> Result<(), StagingError> {
        let Layout::Over { log, .. } = &mut self.layout else { return Ok(()) };
        log.append(record).map_err(|(error, beyond_repair)| {
            self.broken |= beyond_repair;
            error.into()
        })
    }

    /// After an attempt to change the bytes of `range` in the data file: makes them the file's own, or makes
    /// the data file what the layout says.
    pub fn own(&mut self, range: ByteRange, outcome: io::Result<()>) -> Result<(), StagingError> {
        let done = outcome.map_err(StagingError::from).and_then(|()| self.note(range));
        if done.is_err() {
            self.undo(range);
        }
        done
    }

    fn note(&mut self, range: ByteRange) -> Result<(), StagingError> {
        let change = Change::Local(range);
        match &mut self.layout {
            Layout::Alone { len } => *len = (*len).max(range.end),
            Layout::Over { overlay, log, .. } if overlay.local.contains(&range) && !log.is_clean() => {}
            Layout::Over { .. } => {
                self.log(Record::Change(change))?;
                if let Layout::Over { overlay, .. } = &mut self.layout {
                    overlay.apply(change);
                }
            }
        }
        Ok(())
    }

    /// Takes back what a failed change left beyond the end or in stretches that must be zeros. (Bytes that
    /// were the file's own before may be partly new, as after any failed write.)
    fn undo(&mut self, range: ByteRange) {
        let len = self.layout.len();
        let mut outcome = if range.end > len { self.data.set_len("staging.undo", len) } else { Ok(()) };
        if let Layout::Over { overlay, .. } = &self.layout {
            for zero in overlay.zeros(range.intersect(&ByteRange::new(0, len))) {
                outcome = outcome.and_then(|()| self.data.punch_hole("staging.undo", zero.start, zero.len()));
            }
        }
        self.broken |= outcome.is_err();
    }

    /// A cut is logged before it is done and an extension after, so that a crash between leaves a file that
    /// is longer than its log says, which a reload cuts.
    pub fn set_len(&mut self, len: u64) -> Result<(), StagingError> {
        let old = self.layout.len();
        let change = Change::Length(len);
        if len < old {
            self.log(Record::Change(change))?;
            if let Err(error) = self.data.set_len("staging.truncate", len) {
                // The log says it is cut, and so it will be at the next load.
                self.broken |= matches!(self.layout, Layout::Over { .. });
                return Err(error.into());
            }
        } else if len > old {
            self.data.set_len("staging.truncate", len)?;
            if let Err(error) = self.log(Record::Change(change)) {
                self.broken |= self.data.set_len("staging.undo", old).is_err();
                return Err(error);
            }
        }
        match &mut self.layout {
            Layout::Alone { len: known } => *known = len,
            Layout::Over { overlay, .. } => overlay.apply(change),
        }
        Ok(())
    }

    /// Puts `range` together; none if bytes of the base are missing in `base`.
    pub fn assemble(&self, range: ByteRange, base: &BaseBytes) -> Result<Option<Bytes>, StagingError> {
        let pieces = self.layout.pieces(range);
        let mut out = BytesMut::new();
        for piece in pieces {
            let part = piece.range();
            let at = out.len();
            match piece {
                Piece::Base(_) => match base.get(part) {
                    Some(bytes) => out.extend_from_slice(&bytes),
                    None => return Ok(None),
                },
                Piece::Zero(_) => out.resize(at + part.len() as usize, 0),
                Piece::Local(_) => {
                    out.resize(at + part.len() as usize, 0);
                    self.data.read_at("staging.read", &mut out[at..], part.start)?;
                }
            }
        }
        Ok(Some(out.freeze()))
    }
}

/// Bytes fetched from the base for one read.
#[derive(Debug, Default)]
pub(super) struct BaseBytes(pub Vec<(u64, Bytes)>);

impl BaseBytes {
    pub fn covers(&self, range: ByteRange) -> bool {
        self.get(range).is_some()
    }

    fn get(&self, range: ByteRange) -> Option<Bytes> {
        self.0.iter().find_map(|(start, bytes)| {
            let from = range.start.checked_sub(*start)? as usize;
            let to = from + range.len() as usize;
            (to <= bytes.len()).then(|| bytes.slice(from..to))
        })
    }
}
