//! How large the next fragment of an upload is: by what the last ones took. Pure.

use std::time::Duration;

use crate::graph::{MAX_FRAGMENT, fragment_len};

/// What an upload begins with, and no quick one goes below, in units: 10 MiB (graph-api 7.3).
const FIRST: u64 = 32;
/// A fragment should take about this long, so that a lost connection loses little and requests stay few.
const GOOD_TIME: Duration = Duration::from_secs(8);

/// The sizes of one upload's fragments, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragments {
    unit: u64,
    wanted: u64,
    /// What the service was found to take.
    most: u64,
}

impl Fragments {
    /// Each a multiple of `unit` bytes.
    pub fn new(unit: u64) -> Self {
        Self { unit, wanted: FIRST * unit, most: MAX_FRAGMENT }
    }

    /// Bytes to send from `offset` of `total`; the end is one that the service takes.
    pub fn len(&self, offset: u64, total: u64) -> u64 {
        fragment_len(offset, total, self.wanted, self.unit)
    }

    /// A fragment went through: the next ones take as long as is good at this rate, but grow step by step.
    pub fn took(&mut self, sent: u64, time: Duration) {
        let nanos = time.as_nanos().max(1);
        let fitting = u128::from(sent) * GOOD_TIME.as_nanos() / nanos;
        let fitting = u64::try_from(fitting).unwrap_or(u64::MAX).max(FIRST * self.unit);
        self.wanted = fitting.min(self.wanted * 2).min(self.most);
    }

    /// A fragment failed. `too_large`: the service said so, and no later one is as large.
    pub fn failed(&mut self, too_large: bool) {
        self.wanted = (self.wanted / 2).max(self.unit);
        if too_large {
            self.most = self.wanted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::FRAGMENT_UNIT;

    const MIB: u64 = 1 << 20;

    #[test]
    fn fragments_begin_at_ten_mebibytes_grow_with_the_rate_and_stay_legal() {
        let mut sizes = Fragments::new(FRAGMENT_UNIT);
        assert_eq!(sizes.len(0, 1 << 40), 10 * MIB);
        for _ in 0..4 {
            let sent = sizes.len(0, 1 << 40);
            sizes.took(sent, Duration::from_millis(10));
        }
        assert_eq!(sizes.len(0, 1 << 40), MAX_FRAGMENT);
        // 4 MiB a second: 32 MiB in eight seconds.
        sizes.took(MAX_FRAGMENT, Duration::from_nanos(MAX_FRAGMENT * 1_000_000_000 / (4 * MIB)));
        assert_eq!(sizes.len(0, 1 << 40) / MIB, 31, "rounded down to the unit");
        sizes.took(32 * MIB, Duration::from_secs(600));
        assert_eq!(sizes.len(0, 1 << 40), FIRST * FRAGMENT_UNIT, "not below what a healthy line begins with");
    }

    #[test]
    fn failures_halve_down_to_the_unit_and_what_was_too_large_is_not_tried_again() {
        let mut sizes = Fragments::new(FRAGMENT_UNIT);
        sizes.failed(true);
        sizes.took(5 * MIB, Duration::from_millis(1));
        assert_eq!(sizes.len(0, 1 << 40), 5 * MIB);
        for _ in 0..20 {
            sizes.failed(false);
        }
        assert_eq!(sizes.len(0, 1 << 40), FRAGMENT_UNIT);
        assert_eq!(sizes.len((1 << 40) - 5, 1 << 40), 5, "the end needs no unit");
    }
}
