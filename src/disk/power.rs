//! A disk with a durable horizon, for tests: what was not synced may be taken back.
//!
//! [`PowerCut`] is a hook that lets every call through to real files and remembers how to undo it until the
//! sync that makes it durable. [`PowerCut::cut`] then undoes what was never synced, all of it or a seeded
//! half of it, because a disk writes its cache in any order. Names (create, rename, link, unlink) last from
//! the sync of their directory on; bytes and lengths from the sync of the file on.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::{Call, DiskHook};

/// Remembers what was not synced.
#[derive(Default)]
pub struct PowerCut {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: Vec<(PathBuf, Before)>,
    names: Vec<Name>,
}

enum Before {
    /// These bytes stood at this offset of a file of this length.
    Bytes { offset: u64, old: Vec<u8>, len: u64 },
    /// This was the whole file.
    Whole(Vec<u8>),
}

enum Name {
    Created(PathBuf),
    Renamed { from: PathBuf, to: PathBuf, replaced: Option<Vec<u8>> },
    Unlinked(PathBuf, Vec<u8>),
}

impl DiskHook for PowerCut {
    fn about_to(&self, path: &Path, call: Call<'_>) {
        let mut state = self.state.lock().expect("no code panics while it holds the model");
        match call {
            Call::Create => state.names.push(Name::Created(path.into())),
            Call::Link { to } => state.names.push(Name::Created(to.into())),
            Call::Write { offset, len } => {
                let old = read_some(path, offset, len).unwrap_or_default();
                let file_len = fs::metadata(path).map_or(0, |meta| meta.len());
                state.bytes.push((path.into(), Before::Bytes { offset, old, len: file_len }));
            }
            Call::Reshape => {
                state.bytes.push((path.into(), Before::Whole(fs::read(path).unwrap_or_default())))
            }
            Call::SyncFile => state.bytes.retain(|(of, _)| of != path),
            Call::SyncDir => state.names.retain(|name| name.place().parent() != Some(path)),
            Call::Rename { to } => state.rename(path, to),
            Call::Unlink => {
                if let Ok(old) = fs::read(path) {
                    state.names.push(Name::Unlinked(path.into(), old));
                }
            }
            Call::MakeDir | Call::Read | Call::Commit => {}
        }
    }
}

impl State {
    fn rename(&mut self, from: &Path, to: &Path) {
        for (path, _) in &mut self.bytes {
            if path == from {
                *path = to.into();
            }
        }
        let replaced = fs::read(to).ok();
        self.names.push(Name::Renamed { from: from.into(), to: to.into(), replaced });
    }
}

impl Name {
    fn place(&self) -> &Path {
        match self {
            Name::Created(path) | Name::Unlinked(path, _) | Name::Renamed { to: path, .. } => path,
        }
    }
}

impl PowerCut {
    /// Takes back what was never synced: everything, or with a seed about half of it.
    ///
    /// Names are taken back all or none (file systems journal them in order).
    pub fn cut(&self, seed: Option<u64>) -> io::Result<()> {
        let mut state = self.state.lock().expect("no code panics while it holds the model");
        let mut dice = seed.map(|seed| seed | 1);
        let mut lost = || match &mut dice {
            None => true,
            Some(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                *state & 1 == 0
            }
        };
        for (path, before) in std::mem::take(&mut state.bytes).into_iter().rev() {
            if lost() && path.exists() {
                before.restore(&path)?;
            }
        }
        let names = std::mem::take(&mut state.names);
        if lost() {
            names.into_iter().rev().try_for_each(Name::undo)?;
        }
        Ok(())
    }
}

impl Before {
    fn restore(self, path: &Path) -> io::Result<()> {
        match self {
            Before::Whole(old) => fs::write(path, old),
            Before::Bytes { offset, old, len } => {
                let file = fs::OpenOptions::new().write(true).open(path)?;
                file.write_all_at(&old, offset)?;
                file.set_len(len)
            }
        }
    }
}

impl Name {
    fn undo(self) -> io::Result<()> {
        match self {
            Name::Created(path) => ignore_missing(fs::remove_file(path)),
            Name::Unlinked(path, old) => fs::write(path, old),
            Name::Renamed { from, to, replaced } => {
                ignore_missing(fs::rename(&to, from))?;
                replaced.map_or(Ok(()), |old| fs::write(to, old))
            }
        }
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn read_some(path: &Path, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let left = file.metadata()?.len().saturating_sub(offset).min(len);
    let mut old = vec![0; left as usize];
    file.read_exact_at(&mut old, offset)?;
    Ok(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use std::sync::Arc;

    #[test]
    fn only_what_was_synced_outlives_a_power_cut() {
        let dir = tempfile::tempdir().expect("a directory");
        let power = Arc::new(PowerCut::default());
        let disk = Disk::with_hook(power.clone());
        let (kept, lost) = (dir.path().join("kept"), dir.path().join("lost"));
        let file = disk.create("t", &kept).expect("created");
        file.write_at("t", b"old", 0).expect("written");
        file.sync_data("t").expect("synced");
        disk.sync_dir("t", dir.path()).expect("synced");
        file.write_at("t", b"newer", 0).expect("written");
        disk.create("t", &lost).expect("created");
        power.cut(None).expect("cut");
        assert_eq!(fs::read(&kept).expect("there"), b"old");
        assert!(!lost.exists());
    }
}
