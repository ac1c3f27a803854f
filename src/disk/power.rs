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
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Call, DiskHook};

/// Remembers what was not synced.
#[derive(Default)]
pub struct PowerCut {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: Vec<(PathBuf, Before)>,
    /// What a sync could not write and the kernel takes for written: no later sync writes it.
    given_up: Vec<(PathBuf, Before)>,
    names: Vec<Name>,
}

enum Before {
    /// These bytes stood at this offset of a file of this length, before so many were written.
    Bytes { offset: u64, old: Vec<u8>, len: u64, wrote: u64 },
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
                state.write_again(path, offset, len);
                state.bytes.push((path.into(), Before::Bytes { offset, old, len: file_len, wrote: len }));
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
    /// What was given up, and lies within these bytes, is to be written again.
    fn write_again(&mut self, path: &Path, start: u64, len: u64) {
        let is_within = |(of, before): &(PathBuf, Before)| match before {
            Before::Bytes { offset, wrote, .. } => {
                of == path && *offset >= start && offset + wrote <= start + len
            }
            Before::Whole(_) => false,
        };
        let (mut again, still) = std::mem::take(&mut self.given_up).into_iter().partition(is_within);
        self.given_up = still;
        // Older than all that was not given up, so taken back after it.
        std::mem::swap(&mut self.bytes, &mut again);
        self.bytes.extend(again);
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        for (path, _) in self.bytes.iter_mut().chain(&mut self.given_up) {
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
    /// A sync of the file fails: what it was to write is not written by a later one either, unless it is written to
    /// the file again. (Lengths and holes are another matter: the file system's journal keeps them.) The kernel goes back to what the disk has where it `forgets` (btrfs).
    pub fn fail_sync(&self, path: &Path, forgets: bool) -> io::Result<()> {
        let mut state = self.state.lock().expect("no code panics while it holds the model");
        let is_bytes =
            |(of, before): &(PathBuf, Before)| of == path && matches!(before, Before::Bytes { .. });
        let (failed, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.bytes).into_iter().partition(is_bytes);
        state.bytes = rest;
        if forgets {
            return failed.into_iter().rev().try_for_each(|(path, before)| before.restore(&path));
        }
        state.given_up.extend(failed);
        Ok(())
    }

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
        for (path, before) in std::mem::take(&mut state.given_up).into_iter().rev() {
            if path.exists() {
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
            Before::Bytes { offset, old, len, .. } => {
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

/// A disk of which one sync of a file fails, and a kernel that takes what it could not write for written.
#[derive(Default)]
pub struct FailedSync {
    /// What was not synced.
    pub power: PowerCut,
    /// Syncs of files until that one, itself counted; 0 is none.
    pub left: AtomicU64,
    /// The kernel goes back to what the disk has.
    pub forgets: bool,
}

impl DiskHook for FailedSync {
    fn before(&self, step: &'static str, path: &Path) -> io::Result<()> {
        let is_sync = step.ends_with("sync");
        let left = self.left.load(Ordering::SeqCst);
        if !is_sync || left == 0 {
            return Ok(());
        }
        self.left.store(left - 1, Ordering::SeqCst);
        if left > 1 {
            return Ok(());
        }
        self.power.fail_sync(path, self.forgets)?;
        Err(io::Error::from_raw_os_error(libc::EIO))
    }

    fn keeps_unsynced(&self) -> Option<bool> {
        Some(!self.forgets)
    }

    fn about_to(&self, path: &Path, call: Call<'_>) {
        self.power.about_to(path, call);
    }
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

    #[test]
    fn what_a_sync_could_not_write_is_lost_unless_it_is_written_again() {
        for written_again in [true, false] {
            let dir = tempfile::tempdir().expect("a directory");
            let failing = Arc::new(FailedSync { left: AtomicU64::new(1), ..FailedSync::default() });
            let disk = Disk::with_hook(failing.clone());
            let file = disk.create("t", &dir.path().join("f")).expect("created");
            disk.sync_dir("t", dir.path()).expect("synced");
            file.write_at("t", b"bytes", 0).expect("written");
            file.sync_data("t.sync").expect_err("the disk fails");
            if written_again {
                file.write_at("t", b"bytes", 0).expect("written");
            }
            file.sync_data("t.sync").expect("that is what the kernel says");
            failing.power.cut(None).expect("cut");
            let expected: &[u8] = if written_again { b"bytes" } else { b"" };
            assert_eq!(fs::read(dir.path().join("f")).expect("there"), expected);
        }
    }
}
