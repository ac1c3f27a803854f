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

    /// Bytes that are free above the floor.
    pub fn spare(&self, disk: &Disk, dir: &Path) -> Result<u64, StagingError> {
        Ok(free(disk, dir)?.saturating_sub(self.floor))
    }

    /// Says whether `len` more bytes leave the floor free.
    pub fn take(&self, disk: &Disk, dir: &Path, len: u64) -> Result<(), StagingError> {
        let cost = i64::try_from(len.max(4096)).map_err(|_| StagingError::NoSpace)?;
        if self.credit.fetch_sub(cost, Ordering::Relaxed) >= cost {
            return Ok(());
        }
        let spare = self.spare(disk, dir)?;
        let left = spare.checked_sub(len);
        let credit = left.map_or(0, |left| (left / 4).min(MAX_CREDIT));
        self.credit.store(credit as i64, Ordering::Relaxed);
        match left {
            Some(left) if left > 0 => Ok(()),
            _ => Err(StagingError::NoSpace),
        }
    }
}

/// What a copy of a content that is still written may be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MayCopy {
    /// Blocks of its own.
    Blocks,
    /// The same blocks, where the file system can share them.
    Shared,
    /// Nothing.
    No,
}

/// What may be copied of a content of `len` bytes that is still written, where `spare` bytes are free above the floor:
/// its writer keeps room to write all of it once more, which it takes also to overwrite what is shared.
pub(super) fn may_copy(len: u64, spare: u64) -> MayCopy {
    match spare.checked_sub(len) {
        Some(left) if left >= len => MayCopy::Blocks,
        Some(_) => MayCopy::Shared,
        None => MayCopy::No,
    }
}

fn free(disk: &Disk, dir: &Path) -> io::Result<u64> {
    disk.free_bytes(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    // S177.
    #[test]
    fn a_copy_leaves_its_writer_room_for_all_of_it_once_more() {
        for (len, spare, expected) in [
            (100, 200, MayCopy::Blocks),
            (100, 199, MayCopy::Shared),
            (100, 100, MayCopy::Shared),
            (100, 99, MayCopy::No),
            (0, 0, MayCopy::Blocks),
            (u64::MAX, u64::MAX, MayCopy::Shared),
            (u64::MAX / 2 + 1, u64::MAX, MayCopy::Shared),
        ] {
            assert_eq!(may_copy(len, spare), expected, "{len} of {spare}");
        }
    }
}
