//! Sealing: from a content that may change to one that does not, with its hashes.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::StagingError;
use super::file::StagingFile;
use crate::disk::DiskFile;
use crate::model::{Hashes, QuickXor};

/// Attempts to catch a content while it does not change.
pub(super) const MAX_ROUNDS: u32 = 5;
const CHUNK: usize = 1 << 20;

/// What a sealed content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Bytes.
    pub size: u64,
    /// Decides whether the user changed anything.
    pub blake3: [u8; 32],
    /// What the service will say if the upload is right.
    pub quick_xor: [u8; 20],
}

impl StagingFile {
    /// Seals the content: durable, hashed, and refusing changes from here on. Waits for the disk.
    ///
    /// `NotComplete` if bytes of a base are missing: fill first. `Busy` if it kept changing, or the staging area has been
    /// [ended](super::Staging::end): nothing is sealed.
    pub fn seal(&self) -> Result<Sealed, StagingError> {
        if !self.is_complete() {
            return Err(StagingError::NotComplete);
        }
        for _ in 0..MAX_ROUNDS {
            let generation = self.generation();
            self.sync()?;
            let data = self.data();
            let before = data.stat()?;
            let Some(sealed) = hash(&data, &self.shared.ending)? else { return Err(StagingError::Busy) };
            self.sync_stores(&data)?;
            let after = data.stat()?;
            let moved = before.len != after.len || before.ctime_nanos != after.ctime_nanos;
            if moved || sealed.size != after.len || !self.seal_at(generation) {
                continue;
            }
            let alone = self.stand_alone(generation);
            if alone.is_err() {
                self.unseal();
            }
            return alone.map(|()| sealed);
        }
        Err(StagingError::Busy)
    }

    /// Whether the content has the strong hash among these; none if they hold no strong one. Waits for the disk.
    pub fn has_hash(&self, hashes: &Hashes) -> Result<Option<bool>, StagingError> {
        if !self.is_complete() {
            return Err(StagingError::NotComplete);
        }
        Ok(match hashes {
            Hashes { sha256: Some(expected), .. } => Some(self.digest::<sha2::Sha256>()?[..] == expected[..]),
            Hashes { sha1: Some(expected), .. } => Some(self.digest::<sha1::Sha1>()?[..] == expected[..]),
            _ => None,
        })
    }

    fn digest<D: sha1::Digest>(&self) -> io::Result<Vec<u8>> {
        let mut digest = D::new();
        read_all(&self.data(), |bytes| {
            digest.update(bytes);
            true
        })?;
        Ok(digest.finalize().to_vec())
    }
}

/// Nothing if `ending` is set before it is done.
fn hash(data: &DiskFile, ending: &AtomicBool) -> io::Result<Option<Sealed>> {
    let (mut blake3, mut quick_xor) = (blake3::Hasher::new(), QuickXor::default());
    let size = read_all(data, |bytes| {
        if ending.load(Ordering::Relaxed) {
            return false;
        }
        blake3.update(bytes);
        quick_xor.update(bytes);
        true
    })?;
    if ending.load(Ordering::Relaxed) {
        return Ok(None);
    }
    Ok(Some(Sealed { size, blake3: *blake3.finalize().as_bytes(), quick_xor: quick_xor.finish() }))
}

/// Hands out all bytes in order, as long as they are wanted; returns how many.
fn read_all(data: &DiskFile, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<u64> {
    let mut buf = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let count = data.read_at("staging.seal.read", &mut buf, size)?;
        let goes_on = take(&buf[..count]);
        size += count as u64;
        if count < buf.len() || !goes_on {
            return Ok(size);
        }
    }
}
