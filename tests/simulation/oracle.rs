//! What must be true, known apart from the program: which contents were handed over, by whom, and which may
//! be gone.

use std::collections::{BTreeMap, BTreeSet};

use onedrivefs::model::{Ino, NodeId, QuickXor};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256 in hexadecimal, as the truth of the emulator has it.
pub type Hash = String;

pub fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A content that was handed over here and that nobody here replaced since.
#[derive(Clone, Debug)]
struct Duty {
    ino: Ino,
    hash: Hash,
    len: u64,
    /// fsync covered it.
    synced: bool,
    /// The item that the file was when it was opened: what was written belongs there.
    item: Option<Stamp>,
    label: String,
}

/// A change of a file's bytes.
#[derive(Clone, Debug)]
pub enum Step {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Step {
    pub fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Step::Write { at, bytes } => {
                let end = at + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*at..end].copy_from_slice(bytes);
            }
            Step::Length(len) => to.resize(*len, 0),
        }
    }
}

/// An item, and how often others had changed its content.
pub type Stamp = (String, u32);

/// What somebody here saw of a file when they replaced or removed it.
#[derive(Clone, Debug)]
pub enum Saw {
    Bytes(Vec<u8>),
    Len(u64),
}

#[derive(Default)]
pub struct Oracle {
    /// Every state of a file that anybody made, with where it came from.
    known: BTreeMap<Hash, (String, Vec<u8>)>,
    duties: Vec<Duty>,
    /// Contents of other clients.
    theirs: BTreeMap<Hash, String>,
    /// Changes of which nobody looked at the start.
    patched: Vec<(Ino, Vec<Step>)>,
    /// Nodes whose content somebody here made.
    made: BTreeSet<Ino>,
    /// Nodes without a name: what is written to them goes with their last handle.
    nameless: BTreeSet<Ino>,
    /// Items that another client deleted, and folders that anybody did.
    deletable: BTreeSet<String>,
    /// Where folders were deleted that had no item yet. A request that was on its way may have made one: others put into
    /// it what they like until it is deleted, too.
    deleted_unmade: BTreeSet<String>,
    /// Items that somebody here deleted or replaced, with the contents that they had seen of them.
    seen_to_go: BTreeMap<String, BTreeSet<Hash>>,
    /// How often others changed the content of an item.
    edited_there: BTreeMap<String, u32>,
    /// Nodes that were given another name here, so that their content may belong to another item.
    renamed: BTreeSet<Ino>,
    /// Contents that cannot be sent and are here, and nodes of which a part of such a content is here.
    kept: (BTreeSet<Hash>, BTreeSet<NodeId>),
    /// Nobody else changes anything.
    pub alone: bool,
    /// A power cut may have left files of which nobody knows the bytes.
    pub power_was_cut: bool,
}

/// What the service has.
pub struct Remote {
    /// Files with the hash of their content; folders with none.
    pub tree: BTreeMap<String, Option<Hash>>,
    versions: BTreeMap<Hash, String>,
    /// Every content of each item that is there.
    items: BTreeMap<String, BTreeSet<Hash>>,
    /// Hashes in the recycle bin, with the ids of all items that hold them and of the folders above.
    bin: Vec<(Hash, String, Vec<String>)>,
}

impl Remote {
    pub fn of(truth: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let drive = &truth["drives"][0];
        let mut remote = Self {
            tree: BTreeMap::new(),
            versions: BTreeMap::new(),
            items: BTreeMap::new(),
            bin: Vec::new(),
        };
        for item in list(&drive["items"]) {
            let path = text(&item["path"]).trim_start_matches('/').to_owned();
            let all = remote.items.entry(text(&item["id"])).or_default();
            all.insert(text(&item["sha256"]));
            for version in list(&item["versions"]) {
                all.insert(text(&version["sha256"]));
                remote.versions.insert(text(&version["sha256"]), path.clone());
            }
            if !path.is_empty() {
                let is_file = item["kind"] == "file";
                remote.tree.insert(path, is_file.then(|| text(&item["sha256"])));
            }
        }
        let bin = list(&drive["recycleBin"]);
        let parents: BTreeMap<String, String> =
            bin.iter().map(|item| (text(&item["id"]), text(&item["parentId"]))).collect();
        for item in &bin {
            let mut ids = vec![text(&item["id"])];
            while let Some(parent) = parents.get(ids.last().expect("one")).filter(|id| !ids.contains(id)) {
                ids.push(parent.clone());
            }
            let versions = list(&item["versions"]);
            for content in std::iter::once(item).chain(&versions) {
                remote.bin.push((text(&content["sha256"]), text(&item["path"]), ids.clone()));
            }
        }
        remote
    }

    fn has(&self, hash: &Hash) -> bool {
        self.versions.contains_key(hash) || self.tree.values().any(|found| found.as_ref() == Some(hash))
    }
}

impl Oracle {
    /// `alone`: nobody else changes anything.
    pub fn new(alone: bool) -> Self {
        Self { alone, ..Self::default() }
    }

    /// A state that a file had.
    pub fn knows(&mut self, bytes: &[u8], label: &str) -> Hash {
        let hash = hash(bytes);
        self.known.entry(hash.clone()).or_insert_with(|| (label.to_owned(), bytes.to_vec()));
        hash
    }

    /// Another client made it.
    pub fn made_there(&mut self, bytes: &[u8], label: &str) {
        let hash = self.knows(bytes, label);
        self.theirs.insert(hash, label.to_owned());
    }

    /// A change whose start nobody looked at.
    pub fn patched(&mut self, ino: Ino, steps: &[Step]) {
        if !steps.is_empty() {
            self.patched.push((ino, steps.to_vec()));
        }
    }

    /// What the file had is replaced or removed here by somebody who saw it.
    pub fn replaced(&mut self, ino: Ino, saw: &Saw) {
        let saw_hash = match saw {
            Saw::Bytes(bytes) => Some(hash(bytes)),
            Saw::Len(_) => None,
        };
        // A conflict copy is a node that nobody here made, with a content that somebody here did.
        let is_copy = !self.made.contains(&ino);
        self.duties.retain(|duty| {
            let seen = match (saw, &saw_hash) {
                (_, Some(hash)) => *hash == duty.hash,
                (Saw::Len(len), None) => *len == duty.len,
                _ => false,
            };
            !seen || (duty.ino != ino && !is_copy)
        });
    }

    /// The name of the node was removed, or went to another, by somebody who saw it.
    pub fn removed(&mut self, ino: Ino, saw: &Saw) {
        self.replaced(ino, saw);
        self.nameless.insert(ino);
    }

    /// A successful close or fsync handed these bytes over.
    pub fn handed_over(
        &mut self,
        (ino, item): (Ino, Option<&Stamp>),
        bytes: &[u8],
        synced: bool,
        label: &str,
    ) {
        let hash = self.knows(bytes, label);
        self.made.insert(ino);
        if bytes.is_empty() || self.nameless.contains(&ino) {
            return;
        }
        let known = self.duties.iter_mut().find(|duty| duty.ino == ino && duty.hash == hash);
        match known {
            Some(duty) => duty.synced |= synced,
            None => self.duties.push(Duty {
                ino,
                hash,
                len: bytes.len() as u64,
                synced,
                item: item.cloned(),
                label: label.to_owned(),
            }),
        }
    }

    /// Another client deleted the item, or somebody deleted the folder.
    pub fn may_go(&mut self, item: impl Into<String>) {
        self.deletable.insert(item.into());
    }

    /// As [`Oracle::may_go`], of a folder that was deleted here before anybody knew its item.
    pub fn may_go_from(&mut self, path: &str) {
        self.deleted_unmade.insert(format!("/{path}/"));
    }

    /// Somebody here deletes or replaces the item, and saw these contents of it, or did not know better.
    pub fn goes_here(&mut self, item: &str, seen: BTreeSet<Hash>) {
        self.seen_to_go.entry(item.to_owned()).or_default().extend(seen);
    }

    pub fn edited_there(&mut self, item: String) {
        *self.edited_there.entry(item).or_default() += 1;
    }

    /// The item as it is now.
    pub fn stamp(&self, item: String) -> Stamp {
        let edits = self.edited_there.get(&item).copied().unwrap_or(0);
        (item, edits)
    }

    pub fn renamed(&mut self, ino: Ino) {
        self.renamed.insert(ino);
    }

    /// A content that cannot be sent is here.
    pub fn kept_bytes(&mut self, bytes: &[u8]) {
        self.kept.0.insert(hash(bytes));
    }

    /// Of a content that cannot be sent, a part is here.
    pub fn kept_node(&mut self, node: NodeId) {
        self.kept.1.insert(node);
    }

    fn is_kept(&self, duty: &Duty) -> bool {
        self.kept.0.contains(&duty.hash) || self.kept.1.contains(&duty.ino.node())
    }

    /// What was not synced may be lost.
    pub fn power_cut(&mut self) {
        self.power_was_cut = true;
        self.duties.retain(|duty| duty.synced);
    }

    /// Whether somebody made these bytes: the file is one version, not a mix of two.
    pub fn is_whole(&self, bytes: &[u8]) -> bool {
        if bytes.is_empty() || self.known.contains_key(&hash(bytes)) {
            return true;
        }
        let mut made: BTreeSet<Vec<u8>> = self.known.values().map(|(_, bytes)| bytes.clone()).collect();
        made.insert(Vec::new());
        if self.is_chain(&made, bytes) {
            return true;
        }
        // What was changed blindly may have been changed so before, also as another node.
        for _ in 0..2 {
            let mut more = BTreeSet::new();
            for (_, steps) in &self.patched {
                for base in &made {
                    let mut state = base.clone();
                    for step in steps {
                        step.apply(&mut state);
                        if state == bytes {
                            return true;
                        }
                    }
                    more.insert(state);
                }
            }
            made.extend(more);
        }
        false
    }

    /// Whether these bytes are one of `made` after some blind changes of one node, in the order they were made in.
    fn is_chain(&self, made: &BTreeSet<Vec<u8>>, bytes: &[u8]) -> bool {
        let mut reached: BTreeMap<Ino, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for (ino, steps) in &self.patched {
            let states = reached.entry(*ino).or_insert_with(|| made.clone());
            let mut more = Vec::new();
            for base in states.iter() {
                let mut state = base.clone();
                for step in steps {
                    step.apply(&mut state);
                    if state == bytes {
                        return true;
                    }
                }
                more.push(state);
            }
            states.extend(more);
        }
        false
    }

    fn may_be_in_bin(&self, hash: &Hash, path: &str, ids: &[String]) -> bool {
        let seen = ids.first().and_then(|id| self.seen_to_go.get(id));
        seen.is_some_and(|seen| seen.contains(hash))
            || ids.iter().any(|id| self.deletable.contains(id))
            || self.deleted_unmade.iter().any(|folder| path.starts_with(folder))
    }

    /// Whether two contents are the same as far as a length and a quickXorHash tell: a clean copy may then be
    /// kept for the other one.
    pub fn may_be_taken_for(&self, one: &Hash, other: &Hash) -> bool {
        let weak = |hash: &Hash| {
            let (_, bytes) = self.known.get(hash)?;
            let mut sum = QuickXor::default();
            sum.update(bytes);
            Some((bytes.len(), sum.finish()))
        };
        one == other || weak(one).is_some_and(|sum| Some(sum) == weak(other))
    }

    /// What is wrong with what the service has.
    pub fn judge(&self, remote: &Remote, content: impl Fn(&str) -> Option<Vec<u8>>) -> Vec<String> {
        let mut wrong = Vec::new();
        let in_bin = |hash: &Hash| {
            let found = remote.bin.iter().filter(|(found, _, _)| found == hash);
            found
                .map(|(_, path, ids)| (path, self.may_be_in_bin(hash, path, ids)))
                .max_by_key(|(_, allowed)| *allowed)
        };
        let mut must: Vec<(&str, &Hash, &str)> = Vec::new();
        let duties = self.duties.iter().filter(|duty| !self.is_kept(duty));
        must.extend(duties.map(|duty| ("loss", &duty.hash, duty.label.as_str())));
        must.extend(self.theirs.iter().map(|(hash, label)| ("gone", hash, label.as_str())));
        for (kind, hash, label) in must {
            if remote.has(hash) {
                continue;
            }
            match in_bin(hash) {
                Some((_, true)) => {}
                Some((path, false)) => {
                    wrong.push(format!(
                        "{kind}: {label} is only in the recycle bin, as {path}: nobody deleted it"
                    ));
                }
                None => wrong.push(format!("{kind}: {label} is nowhere on the service")),
            }
        }
        if !self.power_was_cut {
            wrong.extend(self.torn(remote, content));
            wrong.extend(self.astray(remote));
        }
        wrong
    }

    fn torn(&self, remote: &Remote, content: impl Fn(&str) -> Option<Vec<u8>>) -> Vec<String> {
        let files = remote.tree.iter().filter_map(|(path, hash)| Some((path, hash.as_ref()?)));
        files
            .filter(|(_, hash)| !self.known.contains_key(*hash))
            .filter(|(path, _)| !content(path).is_some_and(|bytes| self.is_whole(&bytes)))
            .map(|(path, hash)| format!("torn: {path} ({}) is a content that nobody made", &hash[..8]))
            .collect()
    }

    /// What went to another item than it was written to, and copies for a conflict with nobody.
    fn astray(&self, remote: &Remote) -> Vec<String> {
        let mut wrong = Vec::new();
        for duty in &self.duties {
            let item = duty.item.as_ref().filter(|item| self.stamp(item.0.clone()) == **item);
            let contents = item.and_then(|(item, _)| remote.items.get(item));
            if !self.renamed.contains(&duty.ino) && contents.is_some_and(|all| !all.contains(&duty.hash)) {
                wrong.push(format!("astray: {} was written to an item that does not have it", duty.label));
            }
        }
        if self.alone {
            let copies = remote.tree.keys().filter(|path| path.contains("(conflict "));
            wrong.extend(copies.map(|path| format!("astray: {path}, and nobody else changed anything")));
            let current = |hash: &Hash| remote.tree.values().any(|found| found.as_ref() == Some(hash));
            let old = self.duties.iter().filter(|duty| !current(&duty.hash));
            wrong.extend(old.map(|duty| format!("loss: {} is no present content of any file", duty.label)));
        }
        wrong
    }
}
