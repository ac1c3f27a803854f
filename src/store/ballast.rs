//! Room on the disk that is kept for the store: given up when the disk is full, so that what was accepted can
//! still be recorded as sent, and taken again when there is room.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disk::Disk;

/// Bytes that are kept.
const BALLAST: u64 = 8 << 20;
/// With less than this free, the next commits get what is kept.
const TIGHT: u64 = 1 << 20;
/// The ballast is taken again when so much is free besides.
const PLENTY: u64 = 32 << 20;

/// A file that only takes room.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    disk: Disk,
    held: AtomicBool,
}

impl Ballast {
    pub fn new(path: PathBuf, disk: Disk) -> Self {
        let held = disk.stat(&path).is_ok_and(|stat| stat.allocated >= BALLAST);
        let ballast = Self { path, disk, held: AtomicBool::new(held) };
        ballast.restore();
        ballast
    }

    /// Before a commit: gives the room up if the disk is as good as full.
    pub fn make_room(&self) {
        if self.held.load(Ordering::Relaxed) && self.free().is_some_and(|free| free < TIGHT) {
            self.release();
        }
    }

    /// The disk is full.
    pub fn release(&self) {
        if !self.held.swap(false, Ordering::AcqRel) {
            return;
        }
        match self.disk.unlink("store.ballast.release", &self.path) {
            Ok(()) => tracing::warn!("the local disk is full: the room kept for the store is given up"),
            Err(error) => {
                self.held.store(true, Ordering::Release);
                tracing::warn!(%error, "the local disk is full, and the room kept for the store cannot be freed");
            }
        }
    }

    /// Takes the room again where there is plenty.
    pub fn restore(&self) {
        let has_room = self.free().is_some_and(|free| free > BALLAST + PLENTY);
        if self.held.load(Ordering::Acquire) || !has_room {
            return;
        }
        let made = self.disk.unlink("store.ballast.make", &self.path).and_then(|()| {
            let file = self.disk.create("store.ballast.make", &self.path)?;
            file.fallocate("store.ballast.make", 0, BALLAST, false)
        });
        match made {
            Ok(()) => self.held.store(true, Ordering::Release),
            Err(error) => tracing::debug!(%error, "no room is kept for the store"),
        }
    }

    fn free(&self) -> Option<u64> {
        self.disk.free_bytes(self.path.parent()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_given_up_when_the_disk_is_full_and_taken_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let ballast = Ballast::new(dir.path().join("ballast"), Disk::new());
        let taken = |ballast: &Ballast| std::fs::metadata(&ballast.path).map_or(0, |meta| meta.len());
        assert_eq!(taken(&ballast), BALLAST);
        ballast.make_room();
        assert_eq!(taken(&ballast), BALLAST, "there is room");
        ballast.release();
        assert_eq!(taken(&ballast), 0);
        ballast.restore();
        assert_eq!(taken(&ballast), BALLAST);
    }
}
