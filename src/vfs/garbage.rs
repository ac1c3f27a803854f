//! Staged content that no row names any more.
//!
//! It is unlinked only once the commit that dropped it would survive a power cut (design 3): one such commit
//! serves for many.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
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
    /// A task is going to collect.
    is_awaited: AtomicBool,
}

impl Garbage {
    pub fn new(store: Arc<Store>, staging: Staging) -> Arc<Self> {
        Arc::new(Self { store, staging, waiting: Mutex::default(), is_awaited: AtomicBool::new(false) })
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
        if !self.is_awaited.swap(true, Ordering::SeqCst) {
            runtime.spawn(collect_later(Arc::downgrade(self)));
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

/// Collects after the delay, and again where the store could not be made durable.
async fn collect_later(garbage: Weak<Garbage>) {
    loop {
        tokio::time::sleep(DELAY).await;
        let Some(garbage) = garbage.upgrade() else { return };
        let is_done = Blocking::Auto.start(move || {
            // Before the collection: what comes during it has another task.
            garbage.is_awaited.store(false, Ordering::SeqCst);
            garbage.collect();
            garbage.lock().is_empty() || garbage.is_awaited.swap(true, Ordering::SeqCst)
        });
        if is_done.await {
            return;
        }
    }
}

impl Drop for Garbage {
    fn drop(&mut self) {
        self.collect();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::content::StagingConfig;
    use crate::disk::{Disk, DiskHook};
    use crate::model::{NodeId, Timestamp};
    use crate::store::{LocalView, NodeKind, StoreError, Tx};
    use crate::vfs::namespace::new_local;

    /// Fails so many syncs of the store.
    struct FailSyncs(AtomicU64);

    impl DiskHook for FailSyncs {
        fn before(&self, step: &'static str, _: &Path) -> io::Result<()> {
            let fails = step == "store.sync"
                && self
                    .0
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                    .is_ok();
            if fails { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
        }
    }

    /// A file with this content is made and taken back.
    fn drop_one(tx: &mut Tx<'_>, content: u64) -> Result<(), StoreError> {
        let id = tx.insert(NodeKind::File)?;
        let local = new_local(NodeId::ROOT, "a".into(), Timestamp(0), Timestamp(0));
        let local = LocalView { content: Some(content), ..local };
        tx.set_local(id, Some(&local))?;
        tx.remove(id)
    }

    #[tokio::test(start_paused = true)]
    async fn room_returns_without_a_restart_after_the_store_could_not_be_made_durable() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::with_hook(Arc::new(FailSyncs(AtomicU64::new(2))));
        let store = Arc::new(Store::open_on(dir.path(), disk.clone()).unwrap());
        let config = StagingConfig { min_free_bytes: 0, ..StagingConfig::new(dir.path().join("staging")) };
        let staging = Staging::open(config, disk).unwrap();
        let garbage = Garbage::new(store.clone(), staging.clone());
        for content in [1, 2] {
            staging.create(StagingId(content)).unwrap();
            store.write(Durability::Process, |tx| drop_one(tx, content)).unwrap();
            garbage.add(vec![content]);
            tokio::time::sleep(DELAY * 10).await;
        }
        assert_eq!(staging.list().unwrap(), []);
    }
}
