//! A set of block numbers.

/// A fixed number of bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
    len: u64,
    ones: u64,
}

impl Bits {
    pub fn new(len: u64) -> Self {
        Self { words: vec![0; len.div_ceil(64) as usize], len, ones: 0 }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn ones(&self) -> u64 {
        self.ones
    }

    pub fn all_set(&self) -> bool {
        self.ones == self.len
    }

    pub fn get(&self, index: u64) -> bool {
        self.words.get((index / 64) as usize).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    pub fn set(&mut self, start: u64, end: u64) {
        for index in start..end.min(self.len) {
            if !self.get(index) {
                self.words[(index / 64) as usize] |= 1 << (index % 64);
                self.ones += 1;
            }
        }
    }

    pub fn clear(&mut self, start: u64, end: u64) {
        for index in start..end.min(self.len) {
            if self.get(index) {
                self.words[(index / 64) as usize] &= !(1 << (index % 64));
                self.ones -= 1;
            }
        }
    }

    pub fn clear_all(&mut self) {
        self.words.fill(0);
        self.ones = 0;
    }

    /// Whether every bit of `start..end` is set.
    pub fn has_all(&self, start: u64, end: u64) -> bool {
        self.next(start, false) >= end
    }

    /// The first bit at or after `from` that is `wanted`, or the number of bits.
    pub fn next(&self, from: u64, wanted: bool) -> u64 {
        let mut word = (from / 64) as usize;
        let mut mask = u64::MAX.checked_shl((from % 64) as u32).unwrap_or(0);
        while let Some(&bits) = self.words.get(word) {
            let hits = if wanted { bits } else { !bits } & mask;
            if hits != 0 {
                return (word as u64 * 64 + u64::from(hits.trailing_zeros())).min(self.len);
            }
            word += 1;
            mask = u64::MAX;
        }
        self.len
    }

    /// The runs of bits inside `start..end` that are `wanted`, in order, as `start..end` pairs.
    pub fn runs(&self, start: u64, end: u64, wanted: bool) -> Vec<(u64, u64)> {
        let mut runs = Vec::new();
        let mut at = self.next(start, wanted);
        while at < end {
            let stop = self.next(at, !wanted).min(end);
            runs.push((at, stop));
            at = self.next(stop, wanted);
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_behave_like_a_list_of_flags(
            len in 0u64..200,
            ops in proptest::collection::vec((any::<bool>(), 0u64..210, 0u64..90), 0..20),
        ) {
            let mut bits = Bits::new(len);
            let mut model = vec![false; len as usize];
            for (add, start, count) in ops {
                let end = (start + count).min(len);
                if add { bits.set(start, start + count) } else { bits.clear(start, start + count) }
                if start < end { model[start as usize..end as usize].fill(add) }
            }
            prop_assert_eq!(bits.ones(), model.iter().filter(|&&flag| flag).count() as u64);
            for wanted in [false, true] {
                let mut rebuilt = vec![!wanted; len as usize];
                for (start, end) in bits.runs(0, len, wanted) {
                    prop_assert!(start < end);
                    rebuilt[start as usize..end as usize].fill(wanted);
                }
                prop_assert_eq!(&rebuilt, &model);
            }
        }
    }
}
