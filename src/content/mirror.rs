//! A file that the kernel reads by itself, kept the same as what programs write.
//!
//! The kernel wants all who have a file open to use one and the same file below it, so whoever writes cannot be given
//! another. What is written goes to staged content, as always, and then into the lent file too, which its readers see at
//! once. That file is nobody's truth: it is no longer the cache's ([`CachedFile::detach`]), and goes with its last
//! reader. Only what a program stores through a shared map reaches the lent file first; [`Mirror::take_stores`] brings
//! it over.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::file::CachedFile;
use super::staging::{Piece, StagingError, StagingFile};
use crate::disk::{DiskFile, Stat};
use crate::model::ByteRange;

/// Bytes compared or copied at once.
const CHUNK: u64 = 1 << 20;

/// The lent file of one open file.
#[derive(Debug)]
pub struct Mirror {
    lent: Arc<DiskFile>,
    cached: Arc<CachedFile>,
    /// The lent file as we left it.
    left: Option<Stat>,
    /// Open while someone writes.
    writer: Option<DiskFile>,
    /// It was written to, and is what there is to be seen.
    is_changed: bool,
    /// What was written could not be written here too (a full disk): its readers see what it has until they are gone.
    is_broken: bool,
}

impl Mirror {
    /// Of a content that was lent ([`CachedFile::lend`]).
    pub fn new(lent: DiskFile, cached: Arc<CachedFile>) -> Self {
        let left = lent.stat().ok();
        Self { lent: Arc::new(lent), cached, left, writer: None, is_changed: false, is_broken: false }
    }

    /// The lent file, if it holds what is to be seen and the cache does not.
    pub fn changed(&self) -> Option<Arc<DiskFile>> {
        (self.is_changed && !self.is_broken).then(|| self.lent.clone())
    }

    /// The content is going to change: from here on the file is not the cache's.
    pub fn detach(&mut self) {
        self.cached.detach();
        self.is_changed = true;
    }

    /// Does to the lent file what was done to the staged content.
    pub fn follow(&mut self, change: impl FnOnce(&DiskFile) -> io::Result<()>) {
        if self.is_broken {
            return;
        }
        let was_stored_to = self.was_stored_to();
        if let Err(error) = self.write(change) {
            tracing::warn!(%error, "who has the file open for reading does not see what is written to it");
            self.is_broken = true;
        }
        if !was_stored_to {
            self.left = self.lent.stat().ok();
        }
    }

    fn write(&mut self, change: impl FnOnce(&DiskFile) -> io::Result<()>) -> io::Result<()> {
        match &self.writer {
            Some(writer) => change(writer),
            None => change(self.writer.insert(self.lent.reopen_for_writing()?)),
        }
    }

    /// Something changed the lent file that was not us: a store through a shared map.
    pub fn was_stored_to(&self) -> bool {
        let seen = |stat: Stat| (stat.mtime_nanos, stat.len);
        !self.is_broken && self.lent.stat().ok().map(seen) != self.left.map(seen)
    }

    /// Someone has it open or mapped for writing, besides us.
    pub fn may_be_stored_to(&mut self) -> bool {
        self.writer = None;
        !self.is_broken && self.lent.has_writers()
    }

    /// Whether the staged content has other bytes of its own than the lent file.
    pub fn differs_from(&self, staged: &StagingFile) -> Result<bool, StagingError> {
        if !self.is_changed || self.is_broken {
            return Ok(false);
        }
        for piece in staged.pieces(ByteRange::new(0, staged.len())) {
            let (Piece::Local(piece) | Piece::Zero(piece)) = piece else { continue };
            for start in (piece.start..piece.end).step_by(CHUNK as usize) {
                let range = ByteRange::at(start, CHUNK).intersect(&piece);
                if staged.read_local(range)?.as_deref() != Some(&self.read(range)?[..]) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Brings over what was stored through a map, whole: which bytes those are nobody can tell.
    pub fn take_stores(&mut self, staged: &StagingFile) -> Result<(), StagingError> {
        let before = self.lent.stat()?;
        for start in (0..before.len).step_by(CHUNK as usize) {
            let range = ByteRange::at(start, CHUNK).intersect(&ByteRange::new(0, before.len));
            let bytes = self.read(range)?;
            if staged.read_local(range)?.as_deref() != Some(&bytes[..]) {
                staged.write(start, &bytes)?;
            }
        }
        self.left = Some(before);
        Ok(())
    }

    /// Reads what is to be seen.
    pub fn read(&self, range: ByteRange) -> io::Result<Bytes> {
        read(&self.lent, range)
    }
}

/// Reads of a lent file, cut to its length.
pub fn read(lent: &DiskFile, range: ByteRange) -> io::Result<Bytes> {
    let range = range.intersect(&ByteRange::new(0, lent.stat()?.len));
    let mut bytes = vec![0; range.len() as usize];
    let count = lent.read_at("cache.lent.read", &mut bytes, range.start)?;
    bytes.truncate(count);
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::super::fake::{bytes_of, cache, hashed_key};
    use super::*;

    const MIB: u64 = 1 << 20;

    // S200.
    #[tokio::test(start_paused = true)]
    async fn what_is_lent_is_complete_and_never_changed_by_the_cache() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cache, _) = cache(dir.path());
        let key = hashed_key("a", 2 * MIB);
        let file = cache.file(&key);
        file.read(ByteRange::new(0, 10), &file.reader()).await.expect("read");
        assert!(file.lend().is_none(), "the rest is missing");
        file.complete().await.expect("fetched");
        let lent = file.lend().expect("it is complete");
        assert!(!lent.has_writers() && lent.takes_direct_reads());
        let whole = ByteRange::new(0, 2 * MIB);
        file.forget_blocks();
        assert!(file.present().is_empty());
        assert_eq!(read(&lent, whole).expect("read"), bytes_of(&key, whole));
        drop(file);
        let file = cache.file(&key);
        file.complete().await.expect("fetched again");
        let other = file.lend().expect("it is complete");
        assert_ne!(other.stat().expect("stat").ino, lent.stat().expect("stat").ino);
    }

    // S201, S203.
    #[tokio::test(start_paused = true)]
    async fn what_is_written_to_a_lent_file_is_the_caches_no_longer() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cache, fake) = cache(dir.path());
        let key = hashed_key("a", 2 * MIB);
        let whole = ByteRange::new(0, 2 * MIB);
        let file = cache.file(&key);
        file.complete().await.expect("fetched");
        let lent = file.lend().expect("it is complete");
        let mut mirror = Mirror::new(lent, file.clone());
        assert!(!mirror.was_stored_to() && !mirror.may_be_stored_to() && mirror.changed().is_none());
        mirror.detach();
        mirror.follow(|lent| lent.write_at("t", b"written", 70_000));
        assert!(!mirror.was_stored_to(), "that was us");
        assert_eq!(mirror.read(ByteRange::at(70_000, 7)).expect("read"), "written");
        let before =
            file.read_present(ByteRange::new(0, 70_000)).expect("what was not written is read as ever");
        assert_eq!(before, bytes_of(&key, ByteRange::new(0, 70_000)));
        let asked = fake.requests().len();
        let anew = cache.file(&key);
        let bytes = anew.read(whole, &anew.reader()).await.expect("read");
        assert!(bytes == bytes_of(&key, whole) && fake.requests().len() > asked);
        drop((file, mirror));
        assert!(anew.read_present(whole).is_some(), "the other file's end takes nothing from this one");
    }
}
