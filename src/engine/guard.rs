//! Mass deletion guard: which deletes wait until somebody confirms them. Pure.
//!
//! What a program unlinked is deleted on the service, however much it is: each file was unlinked by itself, and a
//! folder goes only with what was. That stands for as long as the tree is the one that the program saw. Once the
//! whole drive had to be read again (the service asked for it, or ids changed form), what is still to be deleted
//! comes from an older picture: if that is much, it waits for `onedrivefs confirm`.
//!
//! What goes the other way needs no guard: what is deleted on the service only goes out of sight here, and what is
//! unsent of it is made again (design 3).

/// What the guard decides by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Local sequence number at which the drive was last read again; 0: never.
    pub reread: u64,
    /// Local sequence number of the last confirmation; 0: never.
    pub confirmed: u64,
    /// Deletes that wait for no confirmation: at most so many.
    pub above: u64,
    /// Items of the drive, as far as known.
    pub items: u64,
}

impl Guard {
    /// Whether the delete was made (at this local sequence number) in the tree as it is, or was confirmed.
    pub fn is_current(&self, changed_seq: u64) -> bool {
        changed_seq > self.reread || changed_seq <= self.confirmed
    }

    /// Whether `count` deletes that are not current must wait: more than allowed, or half of a large drive (one of
    /// more items than are allowed to go).
    pub fn must_wait(&self, count: u64) -> bool {
        let is_large = self.items > self.above;
        count > self.above || (is_large && count > 0 && count.saturating_mul(2) >= self.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUARD: Guard = Guard { reread: 100, confirmed: 0, above: 1000, items: 50_000 };

    #[test]
    fn what_was_deleted_after_the_drive_was_last_read_again_is_current() {
        assert!(GUARD.is_current(101));
        assert!(!GUARD.is_current(100));
        let never = Guard { reread: 0, ..GUARD };
        assert!(never.is_current(1));
    }

    #[test]
    fn what_was_confirmed_is_current_until_the_drive_is_read_again() {
        let confirmed = Guard { confirmed: 90, ..GUARD };
        assert!(confirmed.is_current(90));
        assert!(!confirmed.is_current(95));
    }

    #[test]
    fn more_than_allowed_waits_and_as_much_as_allowed_does_not() {
        assert!(!GUARD.must_wait(1000));
        assert!(GUARD.must_wait(1001));
    }

    #[test]
    fn half_of_a_large_drive_waits_and_half_of_a_small_one_does_not() {
        let large = Guard { items: 1100, ..GUARD };
        assert!(!large.must_wait(549));
        assert!(large.must_wait(550));
        let small = Guard { items: 1000, ..GUARD };
        assert!(!small.must_wait(1000));
    }

    #[test]
    fn nothing_waits_for_nothing() {
        assert!(!Guard::default().must_wait(0));
        assert!(Guard { items: 10, ..Guard::default() }.must_wait(10));
    }
}
