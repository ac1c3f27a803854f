//! Staged content that no row names any more.
//!
//! It is unlinked only once the commit that dropped it would survive a power cut (design 3): one such commit
//! serves for many.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::content::{Blocking, Staging, StagingId};
use crate::store::{Durability, Store};

/// How long dropped content waits for company.
const DELAY: Duration = Duration::from_secs(1);
/// So much company does not wait.
const ENOUGH: usize = 256;

#[derive(Debug)]
pub(super) struct Garbage {
    store: Arc<Store>,
    staging: Staging,
    waiting: Mutex<Vec<u64>>,
}

impl Garbage {
    pub fn new(store: Arc<Store>, staging: Staging) -> Arc<Self> {
        Arc::new(Self { store, staging, waiting: Mutex::default() })
    }

    /// Takes content that a committed transaction dropped.
    pub fn add(self: &Arc<Self>, dropped: Vec<u64>) {
        if dropped.is_empty() {
            return;
        }
        let count = {
            let mut waiting = self.lock();
            waiting.extend(dropped);
            waiting.len()
        };
        if count >= ENOUGH {
            return self.collect();
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if count == 1 {
            let garbage = Arc::downgrade(self);
            runtime.spawn(async move {
                tokio::time::sleep(DELAY).await;
                if let Some(garbage) = garbage.upgrade() {
                    Blocking::Auto.start(move || garbage.collect()).await;
                }
            });
        }
    }

    /// Makes everything committed so far durable and unlinks what it dropped.
    pub fn collect(&self) {
        let waiting = std::mem::take(&mut *self.lock());
        if waiting.is_empty() {
            return;
        }
        // What an attempt carries, or another content lies over, is not among these yet. Read before the
        // commit, which makes durable that they were dropped: later ones wait for the next.
        let unneeded = self.store.unlinks();
        match unneeded.and_then(|unneeded| self.store.write(Durability::Power, |_| Ok(unneeded))) {
            Ok(unneeded) => unneeded.into_iter().for_each(|content| self.unlink_dropped(content)),
            Err(error) => {
                tracing::warn!(%error, "the store cannot be made durable; dropped content stays for now");
                self.lock().extend(waiting);
            }
        }
    }

    fn unlink_dropped(&self, content: u64) {
        self.unlink(content);
        if let Err(error) = self.store.write(Durability::Process, |tx| tx.unlinked(content)) {
            tracing::warn!(content, %error, "unlinked content is still listed as to be unlinked");
        }
    }

    /// Unlinks content that no durable row ever named.
    pub fn unlink(&self, content: u64) {
        if let Err(error) = self.staging.unlink(StagingId(content)) {
            tracing::warn!(content, %error, "staged content that is no longer needed could not be removed");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Garbage {
    fn drop(&mut self) {
        self.collect();
    }
}
