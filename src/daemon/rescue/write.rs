//! Writes into the target of a rescue: never over anything, synced, and read back.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::model::Timestamp;

/// Bytes copied at once.
const CHUNK: usize = 1 << 20;
/// Names that are tried for one file.
const NAMES_MAX: u32 = 10_000;

/// What a file gets besides its bytes.
pub(super) struct Saving {
    pub mtime: Option<Timestamp>,
    /// Bytes are missing: its name says so.
    pub incomplete: bool,
}

/// What was made.
pub(super) struct Done {
    pub to: PathBuf,
    pub size: u64,
    pub blake3: Option<[u8; 32]>,
    pub was_there: bool,
}

pub(super) struct Writer {
    dir: PathBuf,
}

impl Writer {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Saves a file at `path` below the target, or beside what is there.
    pub fn file(
        &self,
        path: &Path,
        from: &mut impl Read,
        saving: &Saving,
        tell: &mut dyn FnMut(u64),
    ) -> io::Result<Done> {
        let wanted = self.parent(path)?.join(file_name(path, saving.incomplete)?);
        let parent = wanted.parent().unwrap_or(&self.dir);
        let mut aside = tempfile::Builder::new().prefix(".onedrivefs-").tempfile_in(parent)?;
        let (size, blake3) = copy(from, aside.as_file_mut(), tell)?;
        if let Some(mtime) = saving.mtime.filter(|mtime| mtime.0 > 0) {
            let since = Duration::from_nanos(u64::try_from(mtime.0).unwrap_or(0));
            aside.as_file().set_modified(SystemTime::UNIX_EPOCH + since)?;
        }
        aside.as_file().sync_all()?;
        if hash_of(&mut File::open(aside.path())?)? != (size, blake3) {
            return Err(io::Error::other("what was written reads otherwise: the disk is damaged"));
        }
        for attempt in 0..NAMES_MAX {
            let to = numbered(&wanted, attempt);
            match aside.persist_noclobber(&to) {
                Ok(_) => {
                    File::open(parent)?.sync_all()?;
                    return Ok(Done { to, size, blake3: Some(blake3), was_there: false });
                }
                Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                    if is_same(&to, size, blake3) {
                        return Ok(Done { to, size, blake3: Some(blake3), was_there: true });
                    }
                    aside = error.file;
                }
                Err(error) => return Err(error.error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Makes a symbolic link.
    pub fn link(&self, path: &Path, target: &Path) -> io::Result<Done> {
        let wanted = self.parent(path)?.join(file_name(path, false)?);
        for attempt in 0..NAMES_MAX {
            let to = numbered(&wanted, attempt);
            match std::os::unix::fs::symlink(target, &to) {
                Ok(()) => return Ok(Done { to, size: 0, blake3: None, was_there: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if fs::read_link(&to).is_ok_and(|found| found == target) {
                        return Ok(Done { to, size: 0, blake3: None, was_there: true });
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Makes a folder.
    pub fn folder(&self, path: &Path) -> io::Result<Done> {
        let was_there = self.dir.join(path).is_dir();
        let to = self.parent(&path.join("x"))?;
        Ok(Done { to, size: 0, blake3: None, was_there })
    }

    /// The folder for `path`; where a file has a folder's name, one beside it.
    fn parent(&self, path: &Path) -> io::Result<PathBuf> {
        let mut at = self.dir.clone();
        for part in path.parent().into_iter().flat_map(Path::components) {
            let wanted = at.join(part);
            let mut attempts = (0..NAMES_MAX).map(|attempt| numbered(&wanted, attempt));
            at = attempts.find(|folder| is_real_folder(folder)).ok_or(io::ErrorKind::NotADirectory)?;
        }
        Ok(at)
    }
}

/// Is a directory, no link to one, or could be made.
fn is_real_folder(path: &Path) -> bool {
    fs::create_dir(path).is_ok() || fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn file_name(path: &Path, incomplete: bool) -> io::Result<PathBuf> {
    let name = path.file_name().map(PathBuf::from).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(if incomplete { with_insert(&name, " (incomplete)") } else { name })
}

fn numbered(path: &Path, attempt: u32) -> PathBuf {
    if attempt == 0 { path.to_owned() } else { with_insert(path, &format!(" ({})", attempt + 1)) }
}

/// `insert` before the extension.
fn with_insert(path: &Path, insert: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(insert);
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

fn copy(from: &mut impl Read, to: &mut File, tell: &mut dyn FnMut(u64)) -> io::Result<(u64, [u8; 32])> {
    let (mut hash, mut size, mut buf) = (blake3::Hasher::new(), 0, vec![0; CHUNK]);
    loop {
        let count = from.read(&mut buf)?;
        if count == 0 {
            return Ok((size, *hash.finalize().as_bytes()));
        }
        to.write_all(&buf[..count])?;
        hash.update(&buf[..count]);
        size += count as u64;
        tell(size);
    }
}

fn hash_of(file: &mut File) -> io::Result<(u64, [u8; 32])> {
    let (mut hash, mut size, mut buf) = (blake3::Hasher::new(), 0, vec![0; CHUNK]);
    loop {
        let count = file.read(&mut buf)?;
        if count == 0 {
            return Ok((size, *hash.finalize().as_bytes()));
        }
        hash.update(&buf[..count]);
        size += count as u64;
    }
}

fn is_same(path: &Path, size: u64, blake3: [u8; 32]) -> bool {
    let is_candidate = fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() == size);
    is_candidate
        && File::open(path).and_then(|mut file| hash_of(&mut file)).is_ok_and(|found| found.1 == blake3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(writer: &Writer, path: &str, bytes: &str) -> Done {
        let saving = Saving { mtime: None, incomplete: false };
        writer.file(Path::new(path), &mut bytes.as_bytes(), &saving, &mut |_| {}).unwrap()
    }

    #[test]
    fn nothing_is_overwritten_and_the_same_bytes_are_not_saved_twice() {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::new(dir.path());
        for (bytes, name, was_there) in [
            ("one", "a.txt", false),
            ("two", "a (2).txt", false),
            ("two", "a (2).txt", true),
            ("one", "a.txt", true),
        ] {
            let done = save(&writer, "d/a.txt", bytes);
            assert_eq!((done.to, done.was_there), (dir.path().join("d").join(name), was_there));
        }
        assert_eq!(fs::read_dir(dir.path().join("d")).unwrap().count(), 2, "nothing is left aside");
    }

    #[test]
    fn a_file_or_a_link_in_the_way_of_a_folder_is_left_alone() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(dir.path().join("d"), "a file").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("e")).unwrap();
        let writer = Writer::new(dir.path());
        assert_eq!(save(&writer, "d/a", "x").to, dir.path().join("d (2)/a"));
        assert_eq!(save(&writer, "e/a", "x").to, dir.path().join("e (2)/a"));
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}
