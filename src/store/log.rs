//! Syncs the database's log: one sync serves every commit that came before it began.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::StoreError;
use crate::disk::{Disk, DiskFile};

/// Makes commits durable after they were made, outside the writer's lock: nobody who writes waits for the disk
/// because somebody else needs theirs to survive a power cut.
///
/// A commit in WAL mode is durable once the log is synced; a checkpoint that moved it into the database
/// before synced it on the way (sqlite.org/wal.html, "Durability").
#[derive(Debug)]
pub(super) struct Log {
    file: DiskFile,
    /// Commits that asked to be synced.
    asked: AtomicU64,
    /// Of these, those that are. Held while a sync runs.
    synced: Mutex<u64>,
}

impl Log {
    /// The log beside `database`, which exists while a connection is open.
    pub fn open(disk: &Disk, database: &Path) -> Result<Self, StoreError> {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        let file = disk.open(path.as_ref());
        let file = file.map_err(|source| StoreError::Io { path: path.into(), source })?;
        Ok(Self { file, asked: AtomicU64::new(0), synced: Mutex::new(0) })
    }

    /// Returns once every commit made before the call is durable.
    pub fn sync(&self, database: &Path) -> Result<(), StoreError> {
        let ticket = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if *synced >= ticket {
            return Ok(());
        }
        let upto = self.asked.load(Ordering::Acquire);
        let done = self.file.sync_data("store.sync");
        done.map_err(|source| StoreError::Io { path: database.to_owned(), source })?;
        *synced = upto;
        Ok(())
    }
}
