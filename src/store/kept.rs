//! Staged content that the store lists as to be unlinked, while something that only this process knows of needs it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The numbers of such content.
#[derive(Debug, Default)]
pub(super) struct KeptContents(Arc<Mutex<BTreeSet<u64>>>);

/// Content stays on the disk for as long as this lives.
#[derive(Debug)]
pub struct Kept {
    content: u64,
    all: Arc<Mutex<BTreeSet<u64>>>,
}

impl KeptContents {
    pub fn keep(&self, content: u64) -> Kept {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(content);
        Kept { content, all: self.0.clone() }
    }

    pub fn contains(&self, content: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&content)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.content);
    }
}
