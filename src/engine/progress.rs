//! How far the first reading of the drive is.
//!
//! The service does not say how many items a drive has. It says how many bytes it uses: the bytes of the files that were
//! read so far are a part of those, and if items are spread as bytes are, the items read are the same part of all. Older
//! versions and the recycle bin may count as used too, so that the end comes earlier than estimated.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{ItemKind, RemoteItem};
use crate::store::{StoreError, Tx};

/// Items and bytes that pages of the first reading brought.
const READ: &str = "read";

/// How far the first reading of the drive is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Items that pages brought, over all runs of the daemon.
    pub items: u64,
    /// Bytes of the files among them.
    pub bytes: u64,
    /// In this run; none before there is anything to tell from.
    pub items_per_second: Option<f64>,
    /// What that may mean; none where the drive does not say what it uses.
    pub estimate: Option<Estimate>,
}

/// A guess, from bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Part of the drive that was read, below 1.
    pub part: f64,
    /// Items of the drive.
    pub items: u64,
    /// Time to the end.
    pub left: Option<Duration>,
}

/// What the pages of one transaction brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    pub items: u64,
    pub bytes: u64,
}

impl Read {
    pub fn add(&mut self, item: &RemoteItem) {
        self.items += 1;
        if item.kind == Some(ItemKind::File) {
            self.bytes = self.bytes.saturating_add(item.size.unwrap_or(0));
        }
    }

    /// Records it with what was read before.
    pub fn note(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let before = Self::parse(tx.meta(READ)?.as_deref());
        let (items, bytes) = (before.items + self.items, before.bytes.saturating_add(self.bytes));
        tx.set_meta(READ, Some(&format!("{items} {bytes}")))
    }

    /// All that was read before, as [`Read::note`] wrote it.
    pub fn of(meta: impl FnOnce(&str) -> Result<Option<String>, StoreError>) -> Result<Self, StoreError> {
        Ok(Self::parse(meta(READ)?.as_deref()))
    }

    /// Nothing was read.
    pub fn forget(tx: &mut Tx<'_>) -> Result<(), StoreError> {
        tx.set_meta(READ, None)
    }

    fn parse(text: Option<&str>) -> Self {
        let mut numbers = text.unwrap_or_default().split(' ').map(|number| number.parse().unwrap_or(0));
        Self { items: numbers.next().unwrap_or(0), bytes: numbers.next().unwrap_or(0) }
    }

    /// As told to a person. `used`: bytes that the drive uses. `pace`: since when, and what was read before that.
    fn told(self, used: Option<u64>, pace: Option<(Duration, u64)>) -> Reading {
        let new =
            |(time, before): (Duration, u64)| (time.as_secs_f64(), self.items.saturating_sub(before) as f64);
        let items_per_second = pace
            .map(new)
            .filter(|(time, items)| *time >= 1.0 && *items > 0.0)
            .map(|(time, items)| items / time);
        let estimate = used.filter(|used| self.bytes > 0 && self.bytes < *used).map(|used| {
            let part = self.bytes as f64 / used as f64;
            let items = (self.items as f64 / part) as u64;
            let rest = items.saturating_sub(self.items) as f64;
            let left = items_per_second.and_then(|rate| Duration::try_from_secs_f64(rest / rate).ok());
            Estimate { part, items, left }
        });
        Reading { items: self.items, bytes: self.bytes, items_per_second, estimate }
    }
}

/// Since when this run reads, and what an earlier one had read.
#[derive(Debug, Default)]
pub(super) struct Pace(OnceLock<(Instant, u64)>);

impl Pace {
    pub fn begin(&self, now: Instant, read: Read) {
        self.0.get_or_init(|| (now, read.items));
    }

    pub fn tell(&self, now: Instant, read: Read, used: Option<u64>) -> Reading {
        let since = self.0.get().map(|(then, before)| (now.saturating_duration_since(*then), *before));
        read.told(used, since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Read = Read { items: 1000, bytes: 250 };

    #[test]
    fn the_part_of_the_used_bytes_stands_for_the_part_of_the_items() {
        let told = READ.told(Some(1000), Some((Duration::from_secs(10), 500)));
        assert_eq!(told.items_per_second, Some(50.0));
        let left = Some(Duration::from_secs(60));
        assert_eq!(told.estimate, Some(Estimate { part: 0.25, items: 4000, left }));
    }

    #[test]
    fn nothing_is_guessed_from_nothing() {
        let empty = Read { bytes: 0, ..READ };
        for (read, used) in [(READ, None), (READ, Some(0)), (READ, Some(249)), (empty, Some(1000))] {
            assert_eq!(read.told(used, None).estimate, None);
        }
        let just_begun = READ.told(Some(1000), Some((Duration::from_millis(10), 0)));
        assert_eq!(just_begun.items_per_second, None);
        assert_eq!(just_begun.estimate.and_then(|estimate| estimate.left), None);
        assert_eq!(Read::parse(Some("12 x")), Read { items: 12, bytes: 0 });
    }
}
