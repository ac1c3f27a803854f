//! Which bytes of a staged file are its own, which are its base's, and which are zeros. Pure.

use crate::model::{ByteRange, RangeSet};

/// A change of an overlay, as its log holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// These bytes are the file's own from here on; they may extend it.
    Local(ByteRange),
    /// The file has this length; what is new is zeros.
    Length(u64),
}

/// The layout of a staged file over its base.
///
/// Invariants: `base_end <= len`; `local` lies within `0..len`; bytes that are neither local nor below
/// `base_end` are zeros, in the data file too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Overlay {
    pub len: u64,
    /// Bytes below this that are not local come from the base.
    pub base_end: u64,
    pub local: RangeSet,
}

/// Where a stretch of a staged file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// In the staging file.
    Local(ByteRange),
    /// In the base.
    Base(ByteRange),
    /// Nowhere: zeros.
    Zero(ByteRange),
}

impl Overlay {
    /// All of a base of so many bytes, nothing written.
    pub fn over(base_len: u64) -> Self {
        Self { len: base_len, base_end: base_len, local: RangeSet::new() }
    }

    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Local(range) => {
                self.local.insert(range);
                self.len = self.len.max(range.end);
            }
            Change::Length(len) => {
                self.local.remove(ByteRange::new(len, u64::MAX));
                self.base_end = self.base_end.min(len);
                self.len = len;
            }
        }
    }

    /// The parts of `range` (cut to the length), in order.
    pub fn pieces(&self, range: ByteRange) -> Vec<Piece> {
        let range = range.intersect(&ByteRange::new(0, self.len));
        if range.is_empty() {
            return Vec::new();
        }
        let base = ByteRange::new(0, self.base_end);
        let rest = ByteRange::new(self.base_end, self.len);
        let mut pieces: Vec<Piece> = self.local.within(range).into_iter().map(Piece::Local).collect();
        for gap in self.local.gaps(range) {
            let (low, high) = (gap.intersect(&base), gap.intersect(&rest));
            pieces.extend((!low.is_empty()).then_some(Piece::Base(low)));
            pieces.extend((!high.is_empty()).then_some(Piece::Zero(high)));
        }
        pieces.sort_by_key(|piece| piece.range().start);
        pieces
    }

    /// The parts that must come from the base before the file stands alone.
    pub fn lacking(&self) -> Vec<ByteRange> {
        self.local.gaps(ByteRange::new(0, self.base_end))
    }

    /// The parts of `range` that must read as zeros in the data file.
    pub fn zeros(&self, range: ByteRange) -> Vec<ByteRange> {
        self.local.gaps(range.intersect(&ByteRange::new(self.base_end, u64::MAX)))
    }
}

impl Piece {
    /// The bytes it is about.
    pub fn range(&self) -> ByteRange {
        match self {
            Piece::Local(range) | Piece::Base(range) | Piece::Zero(range) => *range,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_off_does_not_come_back_when_the_file_grows() {
        let mut overlay = Overlay::over(100);
        overlay.apply(Change::Local(ByteRange::new(10, 20)));
        overlay.apply(Change::Length(15));
        overlay.apply(Change::Length(120));
        assert_eq!(
            overlay.pieces(ByteRange::new(0, 500)),
            [
                Piece::Base(ByteRange::new(0, 10)),
                Piece::Local(ByteRange::new(10, 15)),
                Piece::Zero(ByteRange::new(15, 120)),
            ]
        );
        assert_eq!(overlay.lacking(), [ByteRange::new(0, 10)]);
    }
}
