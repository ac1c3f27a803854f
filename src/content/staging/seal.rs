//! Sealing: from a content that may change to one that does not, with its hashes.

use std::io;

use super::StagingError;
use super::file::StagingFile;
use crate::disk::DiskFile;
use crate::model::QuickXor;

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
    /// `NotComplete` if bytes of a base are missing: fill first. `Busy` if it kept changing: nothing is sealed.
    pub fn seal(&self) -> Result<Sealed, StagingError> {
        if !self.is_complete() {
            return Err(StagingError::NotComplete);
        }
        for _ in 0..MAX_ROUNDS {
            let generation = self.generation();
            self.sync()?;
            let data = self.data();
            let before = data.stat()?;
            let sealed = hash(&data)?;
            data.sync_data("staging.seal.sync")?;
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
}

fn hash(data: &DiskFile) -> io::Result<Sealed> {
    let (mut blake3, mut quick_xor) = (blake3::Hasher::new(), QuickXor::default());
    let mut buf = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let count = data.read_at("staging.seal.read", &mut buf, size)?;
        blake3.update(&buf[..count]);
        quick_xor.update(&buf[..count]);
        size += count as u64;
        if count < buf.len() {
            break;
        }
    }
    Ok(Sealed { size, blake3: *blake3.finalize().as_bytes(), quick_xor: quick_xor.finish() })
}
