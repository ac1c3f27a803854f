//! Byte ranges and sets of them.

use std::collections::BTreeMap;
use std::fmt;

/// Bytes `start..end` of a file (end exclusive). Never empty by convention of the callers that say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl ByteRange {
    /// `start..end`; an `end` before `start` gives the empty range at `start`.
    pub fn new(start: u64, end: u64) -> Self {
        Self { start, end: end.max(start) }
    }

    /// `len` bytes from `start`, saturating.
    pub fn at(start: u64, len: u64) -> Self {
        Self { start, end: start.saturating_add(len) }
    }

    /// Bytes in the range.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// No byte in the range.
    pub fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// The part shared with `other` (empty at the later start if none).
    pub fn intersect(&self, other: &Self) -> Self {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// Whether every byte of `other` is in this range.
    pub fn contains(&self, other: &Self) -> bool {
        other.is_empty() || (self.start <= other.start && other.end <= self.end)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}..{}", self.start, self.end)
    }
}

/// A set of bytes, kept as disjoint, non-adjacent, non-empty ranges in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `range`, joining what it touches.
    pub fn insert(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        let touching: Vec<u64> =
            self.ranges.range(..=end).rev().take_while(|&(_, &e)| e >= start).map(|(&s, _)| s).collect();
        for key in touching {
            let last = self.ranges.remove(&key).expect("the key was listed from this map");
            start = start.min(key);
            end = end.max(last);
        }
        self.ranges.insert(start, end);
    }

    /// Takes every byte of `range` out.
    pub fn remove(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        let overlapping: Vec<(u64, u64)> = self
            .ranges
            .range(..range.end)
            .rev()
            .take_while(|&(_, &e)| e > range.start)
            .map(|(&s, &e)| (s, e))
            .collect();
        for (start, end) in overlapping {
            self.ranges.remove(&start);
            if start < range.start {
                self.ranges.insert(start, range.start);
            }
            if end > range.end {
                self.ranges.insert(range.end, end);
            }
        }
    }

    /// Whether every byte of `range` is in the set.
    pub fn contains(&self, range: &ByteRange) -> bool {
        range.is_empty()
            || self.ranges.range(..=range.start).next_back().is_some_and(|(_, &end)| end >= range.end)
    }

    /// The parts of `range` that are in the set, in order.
    pub fn within(&self, range: ByteRange) -> Vec<ByteRange> {
        let first = self.ranges.range(..=range.start).next_back().map_or(range.start, |(&start, _)| start);
        self.ranges
            .range(first..range.end.max(first))
            .map(|(&start, &end)| ByteRange { start, end }.intersect(&range))
            .filter(|part| !part.is_empty())
            .collect()
    }

    /// The parts of `range` that are not in the set, in order.
    pub fn gaps(&self, range: ByteRange) -> Vec<ByteRange> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        for part in self.within(range) {
            if part.start > at {
                gaps.push(ByteRange::new(at, part.start));
            }
            at = part.end;
        }
        if at < range.end {
            gaps.push(ByteRange::new(at, range.end));
        }
        gaps
    }

    /// Bytes in the set.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|(start, end)| end - start).sum()
    }

    /// No byte in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.ranges.iter().map(|(&start, &end)| ByteRange { start, end })
    }
}

impl FromIterator<ByteRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = ByteRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_range_set_behaves_like_a_set_of_bytes(
            ops in proptest::collection::vec((any::<bool>(), 0u64..64, 0u64..24), 1..40),
            probe in (0u64..64, 0u64..24),
        ) {
            let mut set = RangeSet::new();
            let mut model = [false; 96];
            for (add, start, len) in ops {
                let range = ByteRange::at(start, len);
                if add { set.insert(range) } else { set.remove(range) }
                model[start as usize..(start + len) as usize].fill(add);
            }
            prop_assert_eq!(set.len(), model.iter().filter(|&&bit| bit).count() as u64);
            let range = ByteRange::at(probe.0, probe.1);
            let bytes = &model[range.start as usize..range.end as usize];
            prop_assert_eq!(set.contains(&range), bytes.iter().all(|&bit| bit));
            let inside: u64 = set.within(range).iter().map(ByteRange::len).sum();
            let outside: u64 = set.gaps(range).iter().map(ByteRange::len).sum();
            prop_assert_eq!(inside, bytes.iter().filter(|&&bit| bit).count() as u64);
            prop_assert_eq!(outside, bytes.iter().filter(|&&bit| !bit).count() as u64);
            let mut last = None;
            for part in set.iter() {
                prop_assert!(!part.is_empty() && last.is_none_or(|end| end < part.start));
                last = Some(part.end);
            }
        }
    }
}
