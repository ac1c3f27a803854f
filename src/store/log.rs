//! Syncs the database's log: one sync serves every commit that came before it began.

mod again;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use super::{StoreError, lock};
use crate::disk::{Disk, DiskFile};

/// Makes commits durable after they were made, outside the writer's lock: nobody who writes waits for the disk
/// because somebody else needs theirs to survive a power cut.
///
/// A commit in WAL mode is durable once the log is synced; a checkpoint that moved it into the database
/// before synced it on the way (sqlite.org/wal.html, "Durability").
///
/// A sync that failed is not believed on a second try alone: Linux takes the pages that it could not write for
/// written, so that the next sync has nothing to do and succeeds. The log is written again first, byte for byte.
#[derive(Debug)]
pub(super) struct Log {
    file: DiskFile,
    /// Commits that asked to be synced.
    asked: AtomicU64,
    /// Held while a sync runs.
    synced: Mutex<Synced>,
}

#[derive(Debug, Default)]
struct Synced {
    /// Of the commits that asked, those that are durable.
    upto: u64,
    /// A sync failed: what the log holds may be in memory only, and taken for written.
    is_doubtful: bool,
}

impl Log {
    /// The log beside `database`, which exists while a connection is open.
    pub fn open(disk: &Disk, database: &Path) -> Result<Self, StoreError> {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        let file = disk.open(path.as_ref());
        let file = file.map_err(|source| StoreError::Io { path: path.into(), source })?;
        Ok(Self { file, asked: AtomicU64::new(0), synced: Mutex::default() })
    }

    /// Returns once every commit made before the call is durable. Nobody may hold `writer` and call this.
    pub fn sync(&self, database: &Path, writer: &Mutex<Connection>) -> Result<(), StoreError> {
        let ticket = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if synced.upto >= ticket {
            return Ok(());
        }
        self.settle(&mut synced, writer)?;
        let upto = self.asked.load(Ordering::Acquire);
        if let Err(source) = self.file.sync_data("store.sync") {
            synced.is_doubtful = true;
            // At once, before a checkpoint could take for durable what is not. What fails here fails the next sync.
            let _ = self.settle(&mut synced, writer);
            return Err(StoreError::Io { path: database.to_owned(), source });
        }
        synced.upto = upto;
        Ok(())
    }

    /// After a failed sync somewhere else in the database's files: the next one is not believed either.
    pub fn doubt(&self) {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner).is_doubtful = true;
    }

    fn settle(&self, synced: &mut Synced, writer: &Mutex<Connection>) -> Result<(), StoreError> {
        if synced.is_doubtful {
            again::write(&self.file, &lock(writer))?;
            synced.is_doubtful = false;
        }
        Ok(())
    }
}
