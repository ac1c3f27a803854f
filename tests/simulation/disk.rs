//! The disk at the moment of a crash: an image of it, and what a power cut leaves of that.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use onedrivefs::disk::power::PowerCut;
use onedrivefs::disk::{Call, DiskHook};

use super::dice::Dice;
use super::wire::lock;

/// A directory in memory where there is one: nothing here must outlive the process.
pub fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// Everything in `from`, with times and second names.
pub fn image(from: &Path) -> io::Result<tempfile::TempDir> {
    let to = directory();
    copy(from, to.path(), &mut HashMap::new())?;
    Ok(to)
}

fn copy(from: &Path, to: &Path, seen: &mut HashMap<u64, PathBuf>) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let meta = entry.metadata()?;
        if meta.is_dir() {
            copy(&entry.path(), &target, seen)?;
        } else if let Some(first) = seen.get(&meta.ino()) {
            fs::hard_link(first, &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            fs::File::options().write(true).open(&target)?.set_modified(meta.modified()?)?;
            seen.insert(meta.ino(), target);
        }
    }
    Ok(())
}

/// Remembers what was synced, of files and of the database's log.
#[derive(Default)]
pub struct Power {
    files: PowerCut,
    /// The log when it was last synced.
    log: Mutex<Option<Log>>,
}

/// Where the database's log stands, from its index (sqlite.org/walformat.html, 2.1).
#[derive(Clone, Copy)]
struct Log {
    salt: [u8; 8],
    frames: u64,
    /// Frames that a checkpoint has synced and copied, or may have.
    copied: u64,
    page: u64,
}

impl Log {
    fn of(directory: &Path) -> Option<Self> {
        let index = fs::read(directory.join("store.sqlite-shm")).ok()?;
        let number = |at: usize| Some(u64::from(u32::from_ne_bytes(index.get(at..at + 4)?.try_into().ok()?)));
        let page = u64::from(u16::from_ne_bytes(index.get(14..16)?.try_into().ok()?));
        let salt = index.get(32..40)?.try_into().ok()?;
        Some(Self { salt, frames: number(16)?, copied: number(128)?, page })
    }
}

impl DiskHook for Power {
    fn about_to(&self, path: &Path, call: Call<'_>) {
        let is_log = path.file_name().is_some_and(|name| name == "store.sqlite-wal");
        match (is_log, path.parent()) {
            (true, Some(directory)) => *lock(&self.log) = Log::of(directory),
            _ => self.files.about_to(path, call),
        }
    }
}

impl Power {
    /// The disk after a power cut: of what was not synced, `seed` decides what is left.
    pub fn cut(&self, directory: &Path, seed: u64) -> io::Result<tempfile::TempDir> {
        let (now, synced) = (Log::of(directory), *lock(&self.log));
        self.files.cut(Some(seed))?;
        let image = image(directory)?;
        if let Some(now) = now {
            let known = synced.filter(|synced| synced.salt == now.salt).map_or(0, |synced| synced.frames);
            let safe = known.max(now.copied).min(now.frames);
            let kept = safe + Dice::new(seed).below(now.frames - safe + 1);
            let log = fs::File::options().write(true).open(image.path().join("store.sqlite-wal"))?;
            log.set_len(32 + kept * (24 + now.page))?;
            fs::remove_file(image.path().join("store.sqlite-shm"))?;
        }
        Ok(image)
    }
}
