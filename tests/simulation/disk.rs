//! The disk at the moment of a crash: an image of it, and what a power cut leaves of that.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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
