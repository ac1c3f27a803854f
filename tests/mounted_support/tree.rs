//! Trees compared: a directory as programs see it, and what the service holds.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use onedrivefs::emulator::Flavour;
use onedrivefs::model::names;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Which times of files and folders must be the same on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Those that a program set: of files all, of folders those that are not of today, because a name made or removed
    /// in a folder moves its time here, as on any file system, and moves no time on the service.
    Exact,
    /// No program did: the service may have the time of its own clock.
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Folder,
    File {
        size: u64,
        sha256: String,
    },
    /// Lives on this machine only.
    Link(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    /// Nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Permission bits; 0 on the service.
    pub mode: u32,
}

impl Entry {
    /// Whether its time is one that a program gave it, as [`Times::Exact`] tells.
    fn time_is_set(&self) -> bool {
        const DAY_NS: i128 = 24 * 3600 * 1_000_000_000;
        match self.kind {
            Kind::File { .. } => true,
            Kind::Folder => jiff::Timestamp::now().as_nanosecond() - self.mtime_ns > DAY_NS,
            Kind::Link(_) => false,
        }
    }
}

/// Entries by their path below the top, in the form of the service.
#[derive(Clone, Debug, Default)]
pub struct Tree(pub BTreeMap<String, Entry>);

impl Tree {
    /// As programs see it.
    pub fn of_directory(top: &Path, flavour: Flavour) -> Self {
        let _ = flavour;
        let mut tree = Self::default();
        tree.add(top, "");
        tree
    }

    fn add(&mut self, directory: &Path, prefix: &str) {
        let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
        for entry in entries {
            let entry = entry.expect("it can be listed");
            let name = names::to_remote(&entry.file_name()).expect("a name");
            let (path, key) = (entry.path(), format!("{prefix}/{name}"));
            let meta = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let kind = if meta.is_dir() {
                self.add(&path, &key);
                Kind::Folder
            } else if meta.is_symlink() {
                Kind::Link(fs::read_link(&path).expect("a link").display().to_string())
            } else {
                let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
                assert_eq!(bytes.len() as u64, meta.len(), "{path:?}: size and content");
                Kind::File { size: meta.len(), sha256: sha256(&bytes) }
            };
            let mtime_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
            self.0.insert(key, Entry { kind, mtime_ns, mode: meta.mode() & 0o7777 });
        }
    }

    /// As the service holds it.
    pub fn of_truth(truth: &Value, top: &str) -> Self {
        let above = if top.is_empty() { String::new() } else { format!("/{top}") };
        let items = truth["drives"][0]["items"].as_array().expect("a list");
        let entries = items.iter().filter_map(|item| {
            let key = item["path"].as_str()?.strip_prefix(&above)?;
            if !key.starts_with('/') || key == "/" {
                return None;
            }
            let kind = match item["kind"].as_str()? {
                "folder" => Kind::Folder,
                _ => Kind::File {
                    size: item["size"].as_u64()?,
                    sha256: item["sha256"].as_str().unwrap_or("too large to say").to_owned(),
                },
            };
            let mtime: jiff::Timestamp = item["mtime"].as_str()?.parse().ok()?;
            Some((key.to_owned(), Entry { kind, mtime_ns: mtime.as_nanosecond(), mode: 0 }))
        });
        Self(entries.collect())
    }

    /// What differs between here and the service, a line each.
    pub fn differences(&self, there: &Self, times: Times, flavour: Flavour) -> Vec<String> {
        let mut found = Vec::new();
        for (path, here) in &self.0 {
            let name = path.rsplit('/').next().unwrap_or_default();
            let stays = matches!(here.kind, Kind::Link(_)) || names::is_scratch(&names::to_local(name));
            match there.0.get(path) {
                None if stays => {}
                None => found.push(format!("{path}: only here")),
                Some(_) if stays => found.push(format!("{path}: must not be on the service")),
                Some(there) if here.kind != there.kind => {
                    found.push(format!("{path}: here {:?}, there {:?}", here.kind, there.kind));
                }
                Some(there) => {
                    let unit = unit_ns(flavour);
                    let same = here.mtime_ns.div_euclid(unit) == there.mtime_ns.div_euclid(unit);
                    if times == Times::Exact && here.time_is_set() && !same {
                        found.push(format!("{path}: time here {}, there {}", here.mtime_ns, there.mtime_ns));
                    }
                }
            }
        }
        found.extend(
            there
                .0
                .keys()
                .filter(|path| !self.0.contains_key(*path))
                .map(|path| format!("{path}: only there")),
        );
        found
    }

    /// One line per entry, for comparing two directories; times where a program set them.
    pub fn lines(&self, times: Times) -> Vec<String> {
        let line = |(path, entry): (&String, &Entry)| {
            let kind = match &entry.kind {
                Kind::Folder => "folder".to_owned(),
                Kind::Link(target) => format!("link to {target}"),
                Kind::File { size, sha256 } => format!("{size} {sha256}"),
            };
            let time = match times {
                Times::Exact if entry.time_is_set() => entry.mtime_ns / 1_000_000_000,
                Times::Exact | Times::Any => 0,
            };
            format!("{path} {:o} {kind} {time}", entry.mode)
        };
        self.0.iter().map(line).collect()
    }
}

/// The service's unit of times (graph-api 3.8).
fn unit_ns(flavour: Flavour) -> i128 {
    match flavour {
        Flavour::Personal | Flavour::PersonalNew => 1_000_000,
        Flavour::Business | Flavour::DocumentLibrary => 1_000_000_000,
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
