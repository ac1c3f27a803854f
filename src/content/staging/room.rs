//! Keeps some space free on the disk of the state, so that the store can always commit.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use super::StagingError;
use crate::disk::Disk;

/// The most that is written before the disk is asked again: less than what the store keeps for itself.
const MAX_CREDIT: u64 = 4 << 20;

/// The free space of the staging directory's file system, asked for now and then.
#[derive(Debug)]
pub(super) struct FreeSpace {
    floor: u64,
    /// Bytes that may be written before the disk is asked again.
    credit: AtomicI64,
}

impl FreeSpace {
    pub fn new(floor: u64) -> Self {
        Self { floor, credit: AtomicI64::new(0) }
    }

    /// Says whether `len` more bytes leave the floor free.
    pub fn take(&self, disk: &Disk, dir: &Path, len: u64) -> Result<(), StagingError> {
        let cost = i64::try_from(len.max(4096)).map_err(|_| StagingError::NoSpace)?;
        if self.credit.fetch_sub(cost, Ordering::Relaxed) >= cost {
            return Ok(());
        }
        let spare = free(disk, dir)?.saturating_sub(self.floor);
        let left = spare.checked_sub(len);
        let credit = left.map_or(0, |left| (left / 4).min(MAX_CREDIT));
        self.credit.store(credit as i64, Ordering::Relaxed);
        match left {
            Some(left) if left > 0 => Ok(()),
            _ => Err(StagingError::NoSpace),
        }
    }
}

fn free(disk: &Disk, dir: &Path) -> io::Result<u64> {
    disk.free_bytes(dir)
}
