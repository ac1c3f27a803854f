//! A writer, and its journal of what was promised to it, kept in memory of a process that does not die.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::IntoRawFd;
use std::path::Path;

use crate::mounted_support::random::Random;

/// How far a file got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// `close` returned 0.
    Closed,
    /// `fsync` returned 0, and nothing was written after.
    Synced,
}

/// What was promised of each file, by name.
#[derive(Debug, Default)]
pub struct Journal(pub BTreeMap<String, (Vec<u8>, Promise)>);

impl Journal {
    pub fn count(&self, promise: Promise) -> usize {
        self.0.values().filter(|(_, made)| *made == promise).count()
    }

    /// The files of which this was promised, or more.
    pub fn promised(&self, promise: Promise) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.0.iter().filter(move |(_, (_, made))| *made >= promise).map(|(name, (bytes, _))| (name, bytes))
    }

    /// Writes the file `name` in `dir` in one of five ways, noting each promise as it is made.
    ///
    /// The ways: as `cp`; by a temporary name; in two openings; with `fsync`, and then again without; with
    /// `fsync` under a temporary name, renamed, and the directory synced.
    pub fn write(&mut self, dir: &Path, name: &str, bytes: &[u8], way: u64) -> io::Result<()> {
        let path = dir.join(name);
        let mut note = |bytes: &[u8], promise| {
            self.0.insert(name.to_owned(), (bytes.to_vec(), promise));
        };
        match way % 5 {
            0 => {
                put(File::create(&path)?, bytes, false)?;
                note(bytes, Promise::Closed);
            }
            1 => {
                let temporary = dir.join(format!("{name}.tmp"));
                put(File::create(&temporary)?, bytes, false)?;
                fs::rename(&temporary, &path)?;
                note(bytes, Promise::Closed);
            }
            2 => {
                let (first, second) = bytes.split_at(bytes.len() / 2);
                put(File::create(&path)?, first, false)?;
                put(File::options().append(true).open(&path)?, second, false)?;
                note(bytes, Promise::Closed);
            }
            3 => {
                put(File::create(&path)?, bytes, true)?;
                note(bytes, Promise::Synced);
            }
            _ => {
                let temporary = dir.join(format!("{name}.part"));
                put(File::create(&temporary)?, bytes, true)?;
                fs::rename(&temporary, &path)?;
                note(bytes, Promise::Closed);
                File::open(dir)?.sync_all()?;
                note(bytes, Promise::Synced);
            }
        }
        Ok(())
    }
}

/// Writes all and closes; what `close` says counts.
pub fn put(mut file: File, bytes: &[u8], sync: bool) -> io::Result<()> {
    file.write_all(bytes)?;
    if sync {
        file.sync_all()?;
    }
    close(file)
}

pub fn close(file: File) -> io::Result<()> {
    // SAFETY: the descriptor is owned by this call, and closed once.
    if unsafe { libc::close(file.into_raw_fd()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The content of a file: mostly small, some of many blocks, now and then one for an upload session.
pub fn content(name: &str, random: &mut Random) -> Vec<u8> {
    let size = match random.below(40) {
        0 => 0,
        1 => 1 << 20,
        2 => 5 << 20,
        _ => 100 + random.below(40_000) as usize,
    };
    let line = format!("{name} {}\n", random.below(u64::MAX));
    line.bytes().cycle().take(size).collect()
}

/// The service's contents of the files in `folder`, by name.
pub fn on_service(control: &onedrivefs::emulator::Control, folder: &str) -> BTreeMap<String, String> {
    let truth = control.truth();
    let prefix = format!("/{folder}/");
    let items = truth["drives"][0]["items"].as_array().expect("a list");
    let hashes = items.iter().filter_map(|item| {
        let name = item["path"].as_str()?.strip_prefix(&prefix)?;
        Some((name.to_owned(), item["sha256"].as_str()?.to_owned()))
    });
    hashes.collect()
}
