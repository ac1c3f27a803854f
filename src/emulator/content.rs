//! File contents: small ones in memory, larger ones on disk, huge samples as a generated pattern.
//!
//! A blob never changes once made, so that a download that has begun ends with the bytes it began with.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::hash::QuickXor;
use super::pattern;

/// Contents up to this size stay in memory.
const MAX_IN_MEMORY: usize = 32 << 10;
/// Bodies are read and sent in pieces of this size.
pub(crate) const CHUNK: usize = 128 << 10;

/// One immutable content.
#[derive(Debug, Clone)]
pub(crate) enum Blob {
    /// Generated, see [`pattern`].
    Pattern {
        seed: u32,
        len: u64,
    },
    Stored(Arc<Stored>),
}

/// Bytes in memory or on disk, and their hashes once known.
#[derive(Debug)]
pub(crate) struct Stored {
    len: u64,
    data: Data,
    quick: OnceLock<[u8; 20]>,
    sha: OnceLock<([u8; 20], [u8; 32])>,
}

#[derive(Debug)]
enum Data {
    Memory(Bytes),
    /// A file of ours, removed with the blob.
    Owned(PathBuf),
    /// A file of a seed directory, left alone.
    Borrowed(PathBuf),
}

impl Drop for Stored {
    fn drop(&mut self) {
        if let Data::Owned(path) = &self.data {
            // The data directory goes as a whole at the end; a leftover costs space only.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Blob {
    pub(crate) fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::stored(bytes.len() as u64, Data::Memory(bytes))
    }

    /// A file that exists already and is not ours to delete.
    pub(crate) fn borrowed(path: PathBuf, len: u64) -> Self {
        Self::stored(len, Data::Borrowed(path))
    }

    fn stored(len: u64, data: Data) -> Self {
        Self::Stored(Arc::new(Stored { len, data, quick: OnceLock::new(), sha: OnceLock::new() }))
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Blob::Pattern { len, .. } => *len,
            Blob::Stored(s) => s.len,
        }
    }

    /// Opens the bytes for reading; they stay readable when the blob is dropped.
    pub(crate) fn open(&self) -> io::Result<Reader> {
        Ok(match self {
            Blob::Pattern { seed, len } => Reader::Pattern { seed: *seed, len: *len },
            Blob::Stored(s) => match &s.data {
                Data::Memory(bytes) => Reader::Memory(bytes.clone()),
                Data::Owned(path) | Data::Borrowed(path) => Reader::File(Arc::new(File::open(path)?), s.len),
            },
        })
    }

    /// quickXorHash (graph-api 13). Unreadable content hashes as what could be read.
    pub(crate) fn quick_xor(&self) -> [u8; 20] {
        match self {
            Blob::Pattern { seed, len } => pattern::quick_xor(*seed, *len),
            Blob::Stored(s) => *s.quick.get_or_init(|| {
                let mut hash = QuickXor::default();
                self.each_chunk(|c| hash.update(c));
                hash.finish()
            }),
        }
    }

    /// SHA-1 and SHA-256; reads the content on first use.
    pub(crate) fn sha(&self) -> ([u8; 20], [u8; 32]) {
        let compute = || {
            let (mut one, mut two) = (Sha1::new(), Sha256::new());
            self.each_chunk(|c| {
                one.update(c);
                two.update(c);
            });
            (one.finalize().into(), two.finalize().into())
        };
        match self {
            Blob::Pattern { .. } => compute(),
            Blob::Stored(s) => *s.sha.get_or_init(compute),
        }
    }

    /// Whether [`Blob::sha`] costs nothing or little.
    pub(crate) fn sha_is_cheap(&self) -> bool {
        match self {
            Blob::Pattern { len, .. } => *len <= 4 << 20,
            Blob::Stored(s) => s.sha.get().is_some() || s.len <= 16 << 20,
        }
    }

    fn each_chunk(&self, mut see: impl FnMut(&[u8])) {
        let Ok(reader) = self.open() else { return };
        let mut at = 0;
        while let Ok(chunk) = reader.read(at, CHUNK) {
            if chunk.is_empty() {
                break;
            }
            at += chunk.len() as u64;
            see(&chunk);
        }
    }

    /// The whole content, for small ones.
    pub(crate) fn to_bytes(&self) -> io::Result<Bytes> {
        let mut all = Vec::new();
        let reader = self.open()?;
        while (all.len() as u64) < self.len() {
            let chunk = reader.read(all.len() as u64, CHUNK)?;
            if chunk.is_empty() {
                break;
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.into())
    }
}

/// Positioned reads of one blob.
#[derive(Debug, Clone)]
pub(crate) enum Reader {
    Pattern { seed: u32, len: u64 },
    Memory(Bytes),
    File(Arc<File>, u64),
}

impl Reader {
    /// Up to `max` bytes at `at`; empty at the end.
    pub(crate) fn read(&self, at: u64, max: usize) -> io::Result<Bytes> {
        let len = match self {
            Reader::Pattern { len, .. } | Reader::File(_, len) => *len,
            Reader::Memory(bytes) => bytes.len() as u64,
        };
        let n = len.saturating_sub(at).min(max as u64) as usize;
        match self {
            Reader::Pattern { seed, .. } => Ok(pattern::bytes(*seed, at, n)),
            Reader::Memory(bytes) => Ok(bytes.slice(at.min(len) as usize..(at.min(len) as usize + n))),
            Reader::File(file, _) => {
                let mut buf = vec![0; n];
                file.read_exact_at(&mut buf, at)?;
                Ok(buf.into())
            }
        }
    }
}

/// Takes a content as it arrives; keeps small ones in memory and spills larger ones to `dir`.
#[derive(Debug)]
pub(crate) struct BlobWriter {
    path: PathBuf,
    memory: Vec<u8>,
    file: Option<File>,
    len: u64,
    quick: QuickXor,
    finished: bool,
}

/// A point that a broken fragment is rolled back to (graph-api 7.5).
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    len: u64,
    quick: QuickXor,
}

impl BlobWriter {
    /// `name` must be unique in `dir`.
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        Self {
            path: dir.join(name),
            memory: Vec::new(),
            file: None,
            len: 0,
            quick: QuickXor::default(),
            finished: false,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.quick.update(data);
        self.len += data.len() as u64;
        if self.file.is_none() && self.memory.len() + data.len() <= MAX_IN_MEMORY {
            self.memory.extend_from_slice(data);
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let mut file = File::options().create_new(true).read(true).write(true).open(&self.path)?;
                file.write_all(&self.memory)?;
                self.memory = Vec::new();
                self.file.insert(file)
            }
        };
        file.write_all(data)
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { len: self.len, quick: self.quick.clone() }
    }

    /// Forgets what was written since `mark`.
    pub(crate) fn roll_back(&mut self, mark: Mark) -> io::Result<()> {
        use std::io::Seek as _;
        match &mut self.file {
            Some(file) => {
                file.set_len(mark.len)?;
                file.seek(io::SeekFrom::Start(mark.len))?;
            }
            None => self.memory.truncate(mark.len as usize),
        }
        self.len = mark.len;
        self.quick = mark.quick;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Blob {
        self.finished = true;
        let data = match self.file.take() {
            Some(_) => Data::Owned(self.path.clone()),
            None => Data::Memory(std::mem::take(&mut self.memory).into()),
        };
        let quick = OnceLock::from(self.quick.finish());
        Blob::Stored(Arc::new(Stored { len: self.len, data, quick, sha: OnceLock::new() }))
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.finished && self.file.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spilled_content_reads_back_and_a_rolled_back_one_forgets() {
        let dir = tempfile::tempdir().unwrap();
        for total in [0usize, 1, MAX_IN_MEMORY, MAX_IN_MEMORY + 1, 300_000] {
            let data: Vec<u8> = (0..total).map(|i| (i * 31 % 251) as u8).collect();
            let mut w = BlobWriter::new(dir.path(), "x");
            let half = total / 2;
            w.write(&data[..half]).unwrap();
            let mark = w.mark();
            w.write(b"broken fragment").unwrap();
            w.roll_back(mark).unwrap();
            w.write(&data[half..]).unwrap();
            let blob = w.finish();
            assert_eq!(blob.to_bytes().unwrap(), data, "{total}");
            assert_eq!(blob.quick_xor(), Blob::from_bytes(data).quick_xor(), "{total}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "blobs remove their files");
    }
}
