//! When the content of files last changed, for whoever keeps bytes of them elsewhere (the kernel's pages).
//!
//! An epoch begins before the commit that changes a content and another one after it. Whoever reads the same epoch
//! before and after reading the node knows that the node's content is that of the epoch.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::types::Change;
use crate::model::NodeId;

/// So many files are told apart; of those that changed before, the newest epoch among them is told.
const FILES: usize = 50_000;

struct Inner {
    now: u64,
    changed: LruCache<NodeId, u64>,
    /// Of files that are not remembered.
    floor: u64,
}

pub(super) struct Epochs(Mutex<Inner>);

impl Epochs {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Inner { now: 0, changed: LruCache::unbounded(), floor: 0 }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an epoch for the files whose content changes.
    pub(super) fn turn<'a>(&self, changes: impl IntoIterator<Item = &'a Change>) {
        let mut contents = changes.into_iter().filter_map(|change| match change {
            Change::Node { id, content: true } => Some(*id),
            Change::Node { content: false, .. } | Change::Entry { .. } => None,
        });
        let Some(first) = contents.next() else { return };
        let mut inner = self.lock();
        inner.now += 1;
        let now = inner.now;
        for id in std::iter::once(first).chain(contents) {
            inner.changed.put(id, now);
            if inner.changed.len() > FILES
                && let Some((_, oldest)) = inner.changed.pop_lru()
            {
                inner.floor = inner.floor.max(oldest);
            }
        }
    }

    /// The epoch of the file's content: 0 if it never changed since the store was opened.
    pub(super) fn of(&self, id: NodeId) -> u64 {
        let inner = self.lock();
        inner.changed.peek(&id).copied().unwrap_or(inner.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(id: i64) -> Change {
        Change::Node { id: NodeId(id), content: true }
    }

    #[test]
    fn only_changes_of_content_begin_an_epoch() {
        let epochs = Epochs::new();
        epochs.turn(&[Change::Node { id: NodeId(2), content: false }]);
        assert_eq!(epochs.of(NodeId(2)), 0);
        epochs.turn(&[content(2), content(3)]);
        let first = epochs.of(NodeId(2));
        assert_ne!(first, 0);
        epochs.turn(&[content(3)]);
        assert_eq!(epochs.of(NodeId(2)), first);
        assert_ne!(epochs.of(NodeId(3)), first);
    }

    #[test]
    fn a_file_that_is_forgotten_seems_to_have_changed() {
        let epochs = Epochs::new();
        epochs.turn(&[content(1)]);
        let before = epochs.of(NodeId(1));
        let others: Vec<Change> = (2..FILES as i64 + 3).map(content).collect();
        epochs.turn(&others);
        assert_ne!(epochs.of(NodeId(1)), before);
        assert_ne!(epochs.of(NodeId(1)), 0);
    }
}
