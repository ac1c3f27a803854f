//! After a failed sync: Linux takes the pages that it could not write for written, so that a second sync has
//! nothing to do and succeeds. So all is written again before the next one is believed.
//!
//! What those pages hold then is what was written on ext4 and XFS; btrfs goes back to what the disk has (Rebello et al.,
//! "Can Applications Recover from fsync Failures?", USENIX ATC 2020). Where that is not known to be kept, nobody knows
//! which bytes the content has: [`StagingFile::is_lost`].

use std::io;
use std::sync::atomic::Ordering;

use super::StagingError;
use super::file::StagingFile;
use super::inner::Layout;
use super::overlay::Piece;
use crate::model::ByteRange;

/// Bytes written at a time, under the content's lock.
const CHUNK: u64 = 1 << 20;

/// What a failed sync left in memory only, taken for written.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    pub data: bool,
    pub log: bool,
}

impl StagingFile {
    /// A sync failed, and the disk may have lost what was written before it.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// A sync of the data failed.
    pub(super) fn failed(&self, doubt: &mut Doubt, error: io::Error) -> StagingError {
        doubt.data = true;
        if !self.shared.disk.keeps_unsynced(self.shared.dir()) {
            self.lost.store(true, Ordering::SeqCst);
        }
        error.into()
    }

    /// Makes the kernel write again what it gave up, if it did.
    pub(super) fn settle(&self, doubt: &mut Doubt) -> Result<(), StagingError> {
        if doubt.data {
            self.write_data_again()?;
            doubt.data = false;
        }
        if doubt.log {
            if let Layout::Over { log, .. } = &self.lock_inner().layout {
                log.write_again()?;
            }
            doubt.log = false;
        }
        Ok(())
    }

    fn write_data_again(&self) -> Result<(), StagingError> {
        let mut at = 0;
        while let Some(start) = self.data().seek_data(at)? {
            at = start + CHUNK;
            // Nobody writes between the reading and the writing.
            let inner = self.lock_inner();
            for piece in inner.layout.pieces(ByteRange::new(start, at)) {
                if let Piece::Local(range) = piece {
                    let mut bytes = vec![0; range.len() as usize];
                    let len = inner.data.read_at("staging.again.read", &mut bytes, range.start)?;
                    inner.data.write_at("staging.again", &bytes[..len], range.start)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::super::*;
    use super::*;
    use crate::disk::power::FailedSync;

    const BASE: StagingId = StagingId(1);
    const FILE: StagingId = StagingId(2);

    fn open(dir: &Path, disk: Disk, boot: &str) -> Staging {
        let config = StagingConfig { min_free_bytes: 0, boot: boot.into(), ..StagingConfig::new(dir) };
        Staging::open(config, disk).expect("the directory opens")
    }

    /// Writes an overlay or a file that stands alone, and syncs until that is 0; false if the failure was not met.
    fn write_and_sync(staging: &Staging, over: bool, seal: bool, failing: &FailedSync) -> bool {
        let base = staging.create(BASE).expect("created");
        base.write(0, &[1; 6000]).expect("written");
        base.seal().expect("sealed");
        let file = if over {
            let file = staging.create_overlay(FILE, BaseKind::Sealed(BASE), 6000).expect("created");
            file.attach(Base::Sealed(base));
            file
        } else {
            staging.create(FILE).expect("created")
        };
        file.write(0, &[2; 5000]).expect("written");
        if over && seal {
            let filled = futures_util::FutureExt::now_or_never(file.fill_from_base());
            filled.expect("the base is local").expect("filled");
        }
        let armed = failing.left.load(Ordering::SeqCst);
        let mut errors = 0;
        loop {
            let done = if seal { file.seal().map(drop) } else { file.sync() };
            match done {
                Ok(()) => break,
                Err(StagingError::Disk(error)) if error.raw_os_error() == Some(libc::EIO) => errors += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(errors <= 1, "{armed}: the disk failed once");
        errors == 1
    }

    #[test]
    fn a_sync_after_one_that_failed_covers_what_that_was_to_write() {
        for (over, seal) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut met = 0;
            for number in 3.. {
                let dir = tempfile::tempdir().expect("a directory");
                let failing = Arc::new(FailedSync { left: AtomicU64::new(number), ..FailedSync::default() });
                let staging = open(dir.path(), Disk::with_hook(failing.clone()), "boot");
                let was_met = write_and_sync(&staging, over, seal, &failing);
                drop(staging);
                failing.power.cut(None).expect("cut");
                let loaded = open(dir.path(), Disk::new(), "another boot").load(FILE).expect("it was synced");
                let read = loaded.file.read_local(ByteRange::new(0, 5000)).expect("read");
                assert!(
                    read.as_deref() == Some(&[2; 5000][..]),
                    "{over} {seal} {number}: the bytes are lost"
                );
                assert!(loaded.trust != Trust::Unsynced, "{over} {seal} {number}");
                met += u64::from(was_met);
                if !was_met {
                    break;
                }
            }
            assert_eq!(met, [[1, 2], [2, 3]][usize::from(over)][usize::from(seal)], "{over} {seal}");
        }
    }

    #[test]
    fn where_the_kernel_forgets_the_content_is_lost_and_says_so() {
        for forgets in [true, false] {
            let dir = tempfile::tempdir().expect("a directory");
            let failing = Arc::new(FailedSync { left: AtomicU64::new(1), forgets, ..FailedSync::default() });
            let staging = open(dir.path(), Disk::with_hook(failing), "boot");
            let file = staging.create(FILE).expect("created");
            file.write(0, b"bytes").expect("written");
            file.sync().expect_err("the disk fails");
            assert_eq!(file.is_lost(), forgets);
            file.sync().expect("the disk works again");
            assert_eq!(file.is_lost(), forgets, "what is lost does not come back");
        }
    }
}
