//! What must go so that something new fits. Pure.

/// What the cache holds and may hold, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Held, or promised to writes under way.
    pub used: u64,
    /// The most it may hold.
    pub max: u64,
    /// Free on the file system, less what is promised.
    pub free: u64,
    /// What must stay free on the file system.
    pub min_free: u64,
}

impl Room {
    /// Bytes that must go before `ask` more may be written.
    pub fn shortfall(&self, ask: u64) -> u64 {
        let over = self.used.saturating_add(ask).saturating_sub(self.max);
        let short = self.min_free.saturating_add(ask).saturating_sub(self.free);
        over.max(short)
    }

    /// The most that may be held as the file system is now.
    pub fn capacity(&self) -> u64 {
        self.max.min(self.used.saturating_add(self.free.saturating_sub(self.min_free)))
    }
}

/// A content that might go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<K> {
    /// Which.
    pub key: K,
    /// Bytes it takes on the disk.
    pub bytes: u64,
    /// It is open or pinned.
    pub keep: bool,
}

/// What to do with a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim<K> {
    /// All of it goes.
    Whole(K),
    /// This many bytes go, from its end: the beginning is what programs look at.
    Tail(K, u64),
}

/// A content larger than this loses only a part, so that a film does not vanish for a photograph.
const PARTIAL_ABOVE: u64 = 256 << 20;
/// The least that a partial eviction frees, so that it is not done for each block.
const PARTIAL_STEP: u64 = 64 << 20;

/// Chooses what goes so that `need` bytes come free. `candidates` come least recently used first.
///
/// None if what may go does not suffice: then nothing goes.
pub fn choose<K: Copy>(
    candidates: impl IntoIterator<Item = Candidate<K>>,
    need: u64,
) -> Option<Vec<Victim<K>>> {
    let mut victims = Vec::new();
    let mut left = need;
    for candidate in candidates {
        if left == 0 {
            break;
        }
        if candidate.keep || candidate.bytes == 0 {
            continue;
        }
        let part = left.max(PARTIAL_STEP);
        if candidate.bytes > PARTIAL_ABOVE && part < candidate.bytes / 2 {
            victims.push(Victim::Tail(candidate.key, part));
            left = 0;
        } else {
            victims.push(Victim::Whole(candidate.key));
            left = left.saturating_sub(candidate.bytes);
        }
    }
    (left == 0).then_some(victims)
}

/// Whether `ask` more bytes of a content may be kept: one that does not fit the cache whole keeps at most a
/// quarter of it, so that reading it does not push everything else out.
pub fn may_keep(size: u64, held: u64, ask: u64, max: u64) -> bool {
    size <= max || held.saturating_add(ask) <= max / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_shortfall_is_the_worse_of_bound_and_floor() {
        let room = |used, free| Room { used, max: 100, free, min_free: 10 };
        for (room, ask, expected) in [
            (room(0, 1000), 100, 0),
            (room(50, 1000), 51, 1),
            (room(0, 20), 10, 0),
            (room(0, 20), 11, 1),
            (room(90, 5), 20, 25),
            (room(0, 1000), u64::MAX, u64::MAX - 100),
        ] {
            assert_eq!(room.shortfall(ask), expected, "{room:?} {ask}");
        }
    }

    #[test]
    fn what_may_be_held_is_the_bound_or_what_the_floor_leaves() {
        let room = |used, free| Room { used, max: 100, free, min_free: 10 };
        for (room, expected) in
            [(room(0, 1000), 100), (room(30, 50), 70), (room(30, 10), 30), (room(30, 5), 30)]
        {
            assert_eq!(room.capacity(), expected, "{room:?}");
        }
    }

    #[test]
    fn the_oldest_go_first_and_open_or_pinned_ones_never() {
        let files = [
            ("old", 10, true),
            ("older", 20, false),
            ("empty", 0, false),
            ("new", 30, false),
            ("x", 5, false),
        ];
        let candidates = || files.map(|(key, bytes, keep)| Candidate { key, bytes, keep });
        let names = |need| choose(candidates(), need);
        assert_eq!(names(0), Some(vec![]));
        assert_eq!(names(20), Some(vec![Victim::Whole("older")]));
        assert_eq!(names(21), Some(vec![Victim::Whole("older"), Victim::Whole("new")]));
        assert_eq!(names(56), None, "the kept one would have to go");
    }

    #[test]
    fn a_large_file_loses_a_part_and_a_small_one_all() {
        let one = |bytes| [Candidate { key: 1, bytes, keep: false }];
        assert_eq!(choose(one(1024 * MIB), MIB), Some(vec![Victim::Tail(1, 64 * MIB)]));
        assert_eq!(choose(one(1024 * MIB), 100 * MIB), Some(vec![Victim::Tail(1, 100 * MIB)]));
        assert_eq!(choose(one(1024 * MIB), 600 * MIB), Some(vec![Victim::Whole(1)]));
        assert_eq!(choose(one(200 * MIB), MIB), Some(vec![Victim::Whole(1)]));
    }

    #[test]
    fn a_file_larger_than_the_cache_keeps_a_quarter_of_it_at_most() {
        assert!(may_keep(100, 90, 10, 100));
        assert!(may_keep(1000, 0, 25, 100));
        assert!(!may_keep(1000, 20, 6, 100));
    }
}
