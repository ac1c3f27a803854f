//! Which nodes the kernel may have heard of, so that it is not told to forget others.
//!
//! One bit for each node number that an answer named; never cleared, so that it errs on the safe side. The numbers of
//! a drive are dense, so five million of them are below a megabyte.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, PoisonError, RwLock};

use crate::model::Ino;

const WORDS: usize = 512;
const BITS: u64 = WORDS as u64 * 64;

type Chunk = [AtomicU64; WORDS];

/// A set of node numbers that only grows.
#[derive(Debug, Default)]
pub(super) struct Known(RwLock<HashMap<u64, Arc<Chunk>>>);

impl Known {
    /// Notes that an answer names the node; to be called before that answer's section ends.
    pub(super) fn mark(&self, ino: Ino) {
        let (word, bit) = place(ino);
        if let Some(chunk) = self.chunk(ino) {
            // Most are there already, and a look costs other processors nothing.
            if chunk[word].load(SeqCst) & bit == 0 {
                chunk[word].fetch_or(bit, SeqCst);
            }
            return;
        }
        let mut chunks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let chunk = chunks.entry(ino.0 / BITS);
        chunk.or_insert_with(|| Arc::new([const { AtomicU64::new(0) }; WORDS]))[word].fetch_or(bit, SeqCst);
    }

    /// Whether an answer named it. The root is known to every kernel.
    pub(super) fn has(&self, ino: Ino) -> bool {
        let (word, bit) = place(ino);
        ino == Ino::ROOT || self.chunk(ino).is_some_and(|chunk| chunk[word].load(SeqCst) & bit != 0)
    }

    fn chunk(&self, ino: Ino) -> Option<Arc<Chunk>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&(ino.0 / BITS)).cloned()
    }
}

fn place(ino: Ino) -> (usize, u64) {
    let within = ino.0 % BITS;
    ((within / 64) as usize, 1 << (within % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_marked_is_known_and_nothing_else_but_the_root() {
        let known = Known::default();
        let marked = [2, 63, 64, BITS - 1, BITS, 3 << 48, (3 << 48) + 1, u64::MAX];
        marked.iter().for_each(|&number| known.mark(Ino(number)));
        assert!(marked.iter().all(|&number| known.has(Ino(number))));
        assert!([3, 62, 65, BITS + 1, 2 << 48, (3 << 48) + 2].iter().all(|&number| !known.has(Ino(number))));
        assert!(known.has(Ino::ROOT));
    }
}
