//! Writes the database's log again after a sync of it failed, so that the next sync has it to write.
//!
//! What the kernel could not write stays in its memory as it was (ext4, XFS) or is what the disk has (btrfs); which,
//! the checksums of the log tell (sqlite.org/fileformat2.html, 4.1 and 4.2).

use std::io;

use rusqlite::Connection;

use crate::disk::DiskFile;
use crate::store::StoreError;

const HEADER: usize = 32;
const FRAME: usize = 24;
/// Of a log whose checksums are of big-endian words; one less: of little-endian words.
const MAGIC: u32 = 0x377f_0683;
/// Bytes written at a time.
const CHUNK: usize = 1 << 20;

/// Writes all frames of `log` as they are. Nobody may write to it meanwhile: that is what `writer` is held for.
///
/// An error of the disk, also where the log does not hold all that was committed any more.
pub(super) fn write(log: &DiskFile, writer: &Connection) -> Result<(), StoreError> {
    let told = "PRAGMA wal_checkpoint(NOOP)";
    let committed = writer.query_row(told, [], |row| row.get::<_, i64>(1))?;
    write_frames(log, committed.max(0) as u64)
        .map_err(|source| StoreError::Io { path: log.path().to_owned(), source })
}

fn write_frames(log: &DiskFile, committed: u64) -> io::Result<()> {
    let mut bytes = vec![0; log.stat()?.len as usize];
    let len = log.read_at("store.log.read", &mut bytes, 0)?;
    bytes.truncate(len);
    let (frames, end) = valid(&bytes);
    if frames < committed {
        let lost = format!("the disk lost {} of {committed} pages of the log", committed - frames);
        return Err(io::Error::other(lost));
    }
    for (number, chunk) in bytes[..end].chunks(CHUNK).enumerate() {
        log.write_at("store.log.again", chunk, (number * CHUNK) as u64)?;
    }
    Ok(())
}

/// How many frames have checksums that are right, and where they end.
fn valid(log: &[u8]) -> (u64, usize) {
    let Some(header) = log.get(..HEADER) else { return (0, 0) };
    let magic = big(header, 0);
    let page = big(header, 8) as usize;
    if magic & !1 != MAGIC & !1 || page < 512 {
        return (0, 0);
    }
    let word = if magic == MAGIC { big } else { little };
    let mut sum = checksum((0, 0), &header[..24], word);
    if sum != (big(header, 24), big(header, 28)) {
        return (0, 0);
    }
    let (mut frames, mut at) = (0, HEADER);
    while let Some(frame) = log.get(at..at + FRAME + page) {
        sum = checksum(checksum(sum, &frame[..8], word), &frame[FRAME..], word);
        if frame[8..16] != header[16..24] || sum != (big(frame, 16), big(frame, 20)) {
            break;
        }
        (frames, at) = (frames + 1, at + FRAME + page);
    }
    (frames, at)
}

fn checksum((mut first, mut second): (u32, u32), bytes: &[u8], word: fn(&[u8], usize) -> u32) -> (u32, u32) {
    for at in (0..bytes.len()).step_by(8) {
        first = first.wrapping_add(word(bytes, at)).wrapping_add(second);
        second = second.wrapping_add(word(bytes, at + 4)).wrapping_add(first);
    }
    (first, second)
}

fn big(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(std::array::from_fn(|index| bytes[at + index]))
}

fn little(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::disk::{Call, Disk, DiskHook};
    use crate::store::{Durability, Store};

    /// The disk under the log, one sync of which fails: the kernel takes for written what it could not write, and goes
    /// back to what the disk has where it `forgets`.
    struct Failing {
        left: Mutex<u32>,
        forgets: bool,
        disk: Mutex<Pages>,
    }

    const PAGE: usize = 4096;

    #[derive(Default)]
    struct Pages {
        bytes: Vec<u8>,
        /// What was in memory when the sync failed, of pages that no sync will write as they are.
        given_up: Vec<Option<Vec<u8>>>,
    }

    impl DiskHook for Failing {
        fn before(&self, step: &'static str, path: &Path) -> io::Result<()> {
            let mut left = self.left.lock().unwrap();
            if step != "store.sync" || *left == 0 {
                return Ok(());
            }
            *left -= 1;
            if *left > 0 {
                return Ok(());
            }
            let memory = fs::read(path)?;
            let mut disk = self.disk.lock().unwrap();
            disk.bytes.resize(memory.len(), 0);
            let pages = memory.chunks(PAGE).zip(disk.bytes.chunks(PAGE));
            let given_up = pages.map(|(memory, disk)| (memory != disk).then(|| memory.to_vec())).collect();
            disk.given_up = given_up;
            if self.forgets {
                fs::write(path, &disk.bytes)?;
            }
            Err(io::Error::from_raw_os_error(libc::EIO))
        }

        fn about_to(&self, path: &Path, call: Call<'_>) {
            let mut disk = self.disk.lock().unwrap();
            match call {
                Call::Write { offset, len } => {
                    let (first, last) = (offset as usize / PAGE, (offset + len - 1) as usize / PAGE);
                    disk.given_up[first..=last].fill(None);
                }
                Call::SyncFile => {
                    let memory = fs::read(path).unwrap();
                    let Pages { bytes, given_up } = &mut *disk;
                    bytes.resize(memory.len(), 0);
                    given_up.resize(memory.len().div_ceil(PAGE), None);
                    let pages = bytes.chunks_mut(PAGE).zip(memory.chunks(PAGE)).zip(given_up);
                    for ((disk, memory), given_up) in pages {
                        if given_up.as_deref() != Some(memory) {
                            disk.copy_from_slice(memory);
                            *given_up = None;
                        }
                    }
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_commit_after_a_sync_that_failed_is_durable_or_fails() {
        for (forgets, number) in [(false, 1), (false, 2), (false, 3), (true, 2), (true, 3)] {
            let dir = tempfile::tempdir().unwrap();
            let (left, disk) = (Mutex::new(number), Mutex::default());
            let hook = Arc::new(Failing { left, forgets, disk });
            let store = Store::open_on(dir.path(), Disk::with_hook(hook.clone())).unwrap();
            store.checkpoint().unwrap();
            let mut durable = Vec::new();
            for commit in 1..=6 {
                let key = format!("commit {commit}");
                if store.write(Durability::Power, |tx| tx.set_meta(&key, Some("made"))).is_ok() {
                    durable.push(key);
                }
            }
            assert_eq!(durable.len(), if forgets { number as usize - 1 } else { 5 }, "{forgets} {number}");
            let after = tempfile::tempdir().unwrap();
            fs::copy(dir.path().join("store.sqlite"), after.path().join("store.sqlite")).unwrap();
            fs::write(after.path().join("store.sqlite-wal"), &hook.disk.lock().unwrap().bytes).unwrap();
            let again = Store::open(after.path()).unwrap();
            for key in durable {
                assert!(again.meta(&key).unwrap().is_some(), "{forgets} {number}: {key} is lost");
            }
        }
    }
}
