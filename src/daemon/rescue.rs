//! Copies what is unsent out of the state directories: with a mount, without one, and from a store that does not
//! open.
//!
//! Invariants:
//! - Nothing of the state is changed: the database is read from a copy, or beside its daemon; staged content is
//!   opened for reading only.
//! - Nothing in the target is overwritten; a file has its name only once its bytes were synced and read back.

mod bytes;
mod find;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::control::WirePath;
use super::{DaemonError, exit};
use crate::content::{Salvage, read_names};
use crate::model::names;
use crate::store::{Node, NodeKind, Salvaged, StateLock, StoreError, StoreState, Unsent, salvage};

pub use find::{RescueRequest, RescueSource, find_sources};

use self::bytes::Source;
use self::write::{Saving, Writer};

/// How far a rescue is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RescueProgress {
    /// Bytes of the present file that are saved.
    pub done: u64,
    /// Its bytes.
    pub total: u64,
    /// Its path.
    pub current: String,
}

/// What a rescue came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RescueReport {
    /// Where to.
    pub dir: WirePath,
    /// Where from.
    pub sources: Vec<SourceReport>,
    /// What was saved.
    pub saved: Vec<Saved>,
    /// What could not be saved.
    pub failed: Vec<NotSaved>,
}

/// One state directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceReport {
    /// Where.
    pub state_dir: WirePath,
    /// A daemon has it open.
    pub in_use: bool,
    /// What is wrong with the store; none: it could be read whole.
    pub damage: Option<String>,
}

/// A file, link or folder that was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Saved {
    /// Its path in the drive.
    pub path: WirePath,
    /// Where it is.
    pub to: WirePath,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of what was written and read back; none of links and folders.
    pub blake3: Option<String>,
    /// It was there already, with the same bytes.
    pub was_there: bool,
    /// What it lacks, or what is not known of it.
    pub doubt: Option<String>,
}

/// Something that could not be saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotSaved {
    /// Its path in the drive, or the staged content.
    pub path: WirePath,
    /// Why.
    pub why: String,
}

impl RescueReport {
    /// Everything was saved, whole and under its name.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.saved.iter().all(|saved| saved.doubt.is_none())
    }
}

/// Saves what is unsent in `sources` into `dir`, which is made if it is not there.
pub fn rescue(
    dir: &Path,
    sources: &[RescueSource],
    progress: &mut dyn FnMut(&RescueProgress),
) -> Result<RescueReport, DaemonError> {
    let failed = |error: &std::io::Error| DaemonError {
        what: dir.display().to_string(),
        why: error.to_string(),
        remedy: "give a directory that can be written, on a disk with room".into(),
        exit_code: exit::FAILURE,
    };
    std::fs::create_dir_all(dir).map_err(|error| failed(&error))?;
    let mut report = RescueReport { dir: WirePath(dir.to_owned()), ..RescueReport::default() };
    for source in sources {
        let below = if sources.len() == 1 { PathBuf::new() } else { source.label() };
        let scratch = tempfile::Builder::new().prefix(".onedrivefs-").tempdir_in(dir);
        let scratch = scratch.map_err(|error| failed(&error))?;
        let mut drive = Drive { source, below, writer: Writer::new(dir), report: &mut report, progress };
        drive.run(scratch.path());
    }
    Ok(report)
}

/// A staged content, and what is known of it.
struct Staged<'a> {
    content: u64,
    node: Option<&'a Node>,
    /// Size and BLAKE3.
    sealed: Option<(u64, [u8; 32])>,
}

/// One state directory being emptied.
struct Drive<'a> {
    source: &'a RescueSource,
    /// Where in the target.
    below: PathBuf,
    writer: Writer,
    report: &'a mut RescueReport,
    progress: &'a mut dyn FnMut(&RescueProgress),
}

impl Drive<'_> {
    fn run(&mut self, scratch: &Path) {
        let state = &self.source.state_dir;
        // Held while it is read, so that no daemon begins to change it. One that holds it goes on.
        let lock = StateLock::take(state);
        let in_use = matches!(lock, Err(StoreError::InUse { .. }));
        let store = salvage(state, in_use, scratch);
        let damage = match &store.state {
            StoreState::Whole => None,
            StoreState::Damaged(why) => Some(format!("only a part can be read: {why}")),
            StoreState::Unreadable(why) => Some(format!("it cannot be read: {why}")),
            StoreState::Missing => Some("there is none".to_owned()),
        };
        self.report.sources.push(SourceReport {
            state_dir: WirePath(state.clone()),
            in_use,
            damage: damage.clone(),
        });
        self.save_all(store, damage.is_none(), in_use);
    }

    fn save_all(&mut self, store: Salvaged, is_whole: bool, in_use: bool) {
        let staging = self.source.state_dir.join("staging");
        let mut source = Source::new(self.source, in_use);
        let mut named = BTreeSet::new();
        for unsent in &store.unsent {
            named.extend(unsent.content);
            self.save_row(&mut source, unsent);
        }
        let contents = Salvage::list(&staging).unwrap_or_else(|error| {
            self.fail(&staging, &error);
            Vec::new()
        });
        let unwanted: BTreeSet<u64> = store.unwanted.into_iter().collect();
        let noted = read_names(&staging);
        for id in contents {
            if !named.contains(&id.0) && !unwanted.contains(&id.0) {
                self.save_orphan(&mut source, id.0, &noted, is_whole);
            }
        }
    }

    fn save_row(&mut self, source: &mut Source<'_>, unsent: &Unsent) {
        let path: PathBuf = unsent.path.iter().map(|name| names::to_local(name)).collect();
        let node = unsent.node.as_ref();
        if let Some(content) = unsent.content {
            let doubt = unsent.is_misplaced.then(|| "the folder it belongs to cannot be read".to_owned());
            return self.save_file(source, Staged { content, node, sealed: unsent.sealed }, &path, doubt);
        }
        let Some(node) = node else { return };
        let never_sent = node.remote.is_none() && node.base.is_none();
        match (node.kind, &node.attrs.target) {
            (NodeKind::Symlink, Some(target)) => {
                let made = self.writer.link(&self.below.join(&path), target);
                self.note(&path, made, None);
            }
            (NodeKind::Folder, _) if never_sent => {
                let made = self.writer.folder(&self.below.join(&path));
                self.note(&path, made, None);
            }
            _ => {}
        }
    }

    /// Staged content that no row names.
    fn save_orphan(
        &mut self,
        source: &mut Source<'_>,
        content: u64,
        noted: &BTreeMap<u64, String>,
        is_whole: bool,
    ) {
        let (path, doubt) = match noted.get(&content) {
            // Only a note that is no path leaves nothing here.
            Some(path) => (
                path.split('/').filter(|part| !part.is_empty()).map(names::to_local).collect(),
                (!is_whole).then_some("its name is that of the last note; it may be on the service already"),
            ),
            None => (PathBuf::from(format!("recovered-{content}")), Some("its name is not known")),
        };
        self.save_file(source, Staged { content, node: None, sealed: None }, &path, doubt.map(str::to_owned));
    }

    fn save_file(
        &mut self,
        source: &mut Source<'_>,
        Staged { content, node, sealed }: Staged<'_>,
        path: &Path,
        doubt: Option<String>,
    ) {
        let mut bytes = match source.open(content, node, path) {
            Ok(bytes) => bytes,
            // Sent while we looked.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && source.in_use => return,
            Err(error) => return self.fail(path, &error),
        };
        let mut word = RescueProgress { done: 0, total: bytes.len(), current: path.display().to_string() };
        let progress = &mut *self.progress;
        let mut tell = |done| {
            word.done = done;
            progress(&word);
        };
        let saving = Saving { mtime: node.map(Node::mtime), incomplete: bytes.lacks() > 0 };
        let written = self.writer.file(&self.below.join(path), &mut bytes, &saving, &mut tell);
        let doubt = doubt.into_iter().chain(bytes.doubt());
        let mismatch = match (&written, sealed) {
            (Ok(done), Some((size, blake3))) if bytes.lacks() == 0 => {
                (done.size != size || done.blake3 != Some(blake3)).then(|| {
                    "it is not what was sealed: the local disk is damaged, or it changed meanwhile".to_owned()
                })
            }
            _ => None,
        };
        let doubts: Vec<String> = doubt.chain(mismatch).collect();
        self.note(path, written, (!doubts.is_empty()).then(|| doubts.join("; ")));
    }

    fn note(&mut self, path: &Path, outcome: std::io::Result<write::Done>, doubt: Option<String>) {
        match outcome {
            Ok(done) => self.report.saved.push(Saved {
                path: WirePath(path.to_owned()),
                to: WirePath(done.to),
                size: done.size,
                blake3: done.blake3.map(|hash| crate::model::hash::to_hex(&hash)),
                was_there: done.was_there,
                doubt,
            }),
            Err(error) => self.fail(path, &error),
        }
    }

    fn fail(&mut self, path: &Path, error: &dyn std::fmt::Display) {
        let why = error.to_string();
        self.report.failed.push(NotSaved { path: WirePath(path.to_owned()), why });
    }
}
