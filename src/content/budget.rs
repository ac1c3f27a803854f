//! How much may be on its way or kept in memory at once, in the whole cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Transfers of read-ahead under way, and bytes in memory.
#[derive(Debug)]
pub(super) struct Budget {
    max_flights: u64,
    max_bytes: u64,
    flights: AtomicU64,
    bytes: AtomicU64,
}

/// A part of a counter, given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: u64,
    flights: u64,
}

impl Budget {
    pub fn new(max_flights: u64, max_bytes: u64) -> Arc<Self> {
        let (flights, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { max_flights, max_bytes, flights, bytes })
    }

    /// Room for one more transfer of `bytes`: a share of the transfers (to hold while it runs) and one of
    /// the bytes (to hold while they are in memory).
    pub fn take(self: &Arc<Self>, bytes: u64) -> Option<(Share, Share)> {
        take(&self.flights, 1, self.max_flights)?;
        let flight = Share { budget: self.clone(), bytes: 0, flights: 1 };
        Some((flight, self.take_bytes(bytes)?))
    }

    /// Room for `bytes` in memory.
    pub fn take_bytes(self: &Arc<Self>, bytes: u64) -> Option<Share> {
        take(&self.bytes, bytes, self.max_bytes)?;
        Some(Share { budget: self.clone(), bytes, flights: 0 })
    }

    #[cfg(test)]
    pub fn in_use(&self) -> (u64, u64) {
        (self.flights.load(Ordering::SeqCst), self.bytes.load(Ordering::SeqCst))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.flights.fetch_sub(self.flights, Ordering::SeqCst);
        self.budget.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

fn take(counter: &AtomicU64, count: u64, max: u64) -> Option<()> {
    let fits = |now: u64| now.checked_add(count).filter(|&sum| sum <= max);
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).ok().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_given_back_and_a_refusal_takes_nothing() {
        let budget = Budget::new(2, 100);
        let first = budget.take(60).expect("room");
        assert!(budget.take(60).is_none());
        assert_eq!(budget.in_use(), (1, 60));
        let second = budget.take(40).expect("room");
        assert!(budget.take(0).is_none(), "no third transfer");
        drop((first, second));
        assert_eq!(budget.in_use(), (0, 0));
    }
}
