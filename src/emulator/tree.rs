//! Nodes of one drive: a vector of slots, children sorted by folded name, sizes kept up to the root.
//!
//! Invariants: a slot is never reused; slot 0 is the root; a live node's parent is live; a folder's `size` is the
//! sum of its live descendants' sizes; every changed node has its own change number.

use std::collections::BTreeMap;

use super::content::Blob;
use super::ids::DriveIds;
use super::names;
use super::time::Ms;

pub(crate) type Slot = u32;
pub(crate) const ROOT: Slot = 0;

/// Index into the emulator's list of identities.
pub(crate) type Who = u8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Live,
    /// In the recycle bin, itself or with a folder above it.
    Recycled,
    /// Gone for good; the slot remembers the deletion for delta.
    Purged,
}

#[derive(Debug, Default)]
pub(crate) struct Folder {
    /// Live children, sorted by folded name.
    pub(crate) children: Vec<Slot>,
    /// Bytes of all live descendants (graph-api 3.2).
    pub(crate) size: i64,
    /// Last change number of the folder or anything below: the personal folder cTag (graph-api 3.4).
    pub(crate) tick: u64,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Folder(Box<Folder>),
    File(Blob),
}

/// The three shapes of a 423 (graph-api 8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LockShape {
    /// `accessDenied`: open in Office or checked out by another user.
    EditedByAnother,
    /// `accessDenied`: "Lock token does not match existing lock".
    LockToken,
    /// `notAllowed` with inner `resourceLocked`.
    ResourceLocked,
}

/// What few items have.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(crate) description: Option<String>,
    pub(crate) special: Option<&'static str>,
    /// `shared.scope`.
    pub(crate) shared: Option<String>,
    pub(crate) package: Option<&'static str>,
    pub(crate) malware: bool,
    pub(crate) lock: Option<LockShape>,
    pub(crate) checked_out: Option<Who>,
    pub(crate) no_hash: bool,
    /// The user may not even look at it any more, nor at what is in it.
    pub(crate) no_access: bool,
    /// A `size` that differs from the bytes delivered (graph-api 6.4), or a negative folder size (3.2).
    pub(crate) size: Option<i64>,
    /// A shortcut's target: drive index and slot (graph-api 2.5).
    pub(crate) remote: Option<(usize, Slot)>,
    /// Sharing links and grants: rendered permissions by id.
    pub(crate) permissions: BTreeMap<String, serde_json::Value>,
    /// Personal: once under these parents; a folder's delta reports the item as gone (graph-api 9.2).
    pub(crate) former_parents: Vec<Slot>,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) parent: Slot,
    pub(crate) life: Life,
    pub(crate) created_by: Who,
    pub(crate) modified_by: Who,
    pub(crate) e_rev: u32,
    pub(crate) c_rev: u32,
    /// Number of the current version: `N.0`.
    pub(crate) version: u32,
    pub(crate) name: Box<str>,
    pub(crate) kind: Kind,
    /// Server times.
    pub(crate) created: Ms,
    pub(crate) modified: Ms,
    /// `fileSystemInfo`.
    pub(crate) fs_created: Ms,
    pub(crate) fs_modified: Ms,
    /// Number of the last change; 0 for what the seed made.
    pub(crate) change: u64,
    pub(crate) extra: Option<Box<Extra>>,
}

impl Node {
    pub(crate) fn folder(&self) -> Option<&Folder> {
        match &self.kind {
            Kind::Folder(f) => Some(f),
            Kind::File(_) => None,
        }
    }

    fn folder_mut(&mut self) -> Option<&mut Folder> {
        match &mut self.kind {
            Kind::Folder(f) => Some(f),
            Kind::File(_) => None,
        }
    }

    pub(crate) fn blob(&self) -> Option<&Blob> {
        match &self.kind {
            Kind::File(b) => Some(b),
            Kind::Folder(_) => None,
        }
    }

    /// Bytes this node adds to its ancestors.
    pub(crate) fn weight(&self) -> i64 {
        match &self.kind {
            Kind::Folder(f) => f.size,
            Kind::File(b) => i64::try_from(b.len()).unwrap_or(i64::MAX),
        }
    }

    pub(crate) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }
}

/// A version that is not the current one (graph-api 8, `versions`).
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) number: u32,
    pub(crate) modified: Ms,
    pub(crate) modified_by: Who,
    pub(crate) blob: Blob,
}

/// What a new node starts from.
pub(crate) struct NewNode<'a> {
    pub(crate) parent: Slot,
    pub(crate) name: &'a str,
    pub(crate) kind: Kind,
    pub(crate) now: Ms,
    pub(crate) by: Who,
}

/// The nodes of one drive and the indexes over them.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    /// change number -> slot and time; only nodes changed since the seed.
    pub(crate) changes: BTreeMap<u64, (Slot, Ms)>,
    pub(crate) last_change: u64,
    /// Old versions, oldest first.
    pub(crate) versions: BTreeMap<Slot, Vec<Version>>,
    /// Tops of what was deleted, with the time.
    pub(crate) bin: BTreeMap<Slot, Ms>,
    /// While set, new nodes are not changes.
    pub(crate) seeding: bool,
}

impl Tree {
    pub(crate) fn new(now: Ms) -> Self {
        let mut tree = Self {
            nodes: Vec::new(),
            changes: BTreeMap::new(),
            last_change: 0,
            versions: BTreeMap::new(),
            bin: BTreeMap::new(),
            seeding: true,
        };
        tree.nodes.push(blank(NewNode { parent: ROOT, name: "root", kind: folder(), now, by: 0 }));
        tree
    }

    pub(crate) fn node(&self, slot: Slot) -> &Node {
        &self.nodes[slot as usize]
    }

    pub(crate) fn node_mut(&mut self, slot: Slot) -> &mut Node {
        &mut self.nodes[slot as usize]
    }

    /// Number of slots ever used.
    pub(crate) fn len(&self) -> u32 {
        self.nodes.len() as u32
    }

    /// The node of a live item.
    pub(crate) fn live(&self, slot: Slot) -> Option<&Node> {
        self.nodes.get(slot as usize).filter(|n| n.life == Life::Live)
    }

    /// The slot of `id` whatever its life.
    pub(crate) fn resolve(&self, ids: &DriveIds, id: &str) -> Option<Slot> {
        ids.slot(id).filter(|s| *s < self.len())
    }

    fn position(&self, parent: Slot, name: &str) -> Result<usize, usize> {
        let children = self.children(parent);
        children.binary_search_by(|c| names::compare(&self.node(*c).name, name))
    }

    pub(crate) fn children(&self, parent: Slot) -> &[Slot] {
        self.node(parent).folder().map_or(&[], |f| &f.children)
    }

    /// Index of the first child whose name comes after `name`.
    pub(crate) fn children_after(&self, parent: Slot, name: &str) -> usize {
        match self.position(parent, name) {
            Ok(at) => at + 1,
            Err(at) => at,
        }
    }

    /// The child by name, case-insensitively (graph-api 4.1).
    pub(crate) fn child(&self, parent: Slot, name: &str) -> Option<Slot> {
        self.position(parent, name).ok().map(|at| self.children(parent)[at])
    }

    /// Ancestors of `slot`, nearest first, root last; empty for the root.
    pub(crate) fn ancestors(&self, slot: Slot) -> impl Iterator<Item = Slot> + '_ {
        let mut at = slot;
        std::iter::from_fn(move || {
            if at == ROOT {
                return None;
            }
            at = self.node(at).parent;
            Some(at)
        })
    }

    pub(crate) fn is_below(&self, slot: Slot, top: Slot) -> bool {
        slot == top || self.ancestors(slot).any(|a| a == top)
    }

    /// Names from below the root down to `slot`.
    pub(crate) fn path(&self, slot: Slot) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        let mut at = slot;
        while at != ROOT {
            names.push(&self.node(at).name);
            at = self.node(at).parent;
        }
        names.reverse();
        names
    }

    /// `slot` and all below it, parents first.
    pub(crate) fn subtree(&self, slot: Slot) -> Vec<Slot> {
        let mut all = vec![slot];
        let mut next = 0;
        while next < all.len() {
            all.extend_from_slice(self.children(all[next]));
            next += 1;
        }
        all
    }

    /// Gives the node a new change number and tells the folders above.
    pub(crate) fn touch(&mut self, slot: Slot, now: Ms) {
        if self.seeding {
            return;
        }
        self.last_change += 1;
        let (change, old) = (self.last_change, self.node(slot).change);
        self.changes.remove(&old);
        self.changes.insert(change, (slot, now));
        self.node_mut(slot).change = change;
        self.tick(slot, change);
    }

    fn tick(&mut self, mut at: Slot, change: u64) {
        loop {
            if let Some(f) = self.node_mut(at).folder_mut() {
                f.tick = change;
            }
            if at == ROOT {
                break;
            }
            at = self.node(at).parent;
        }
    }

    fn add_size(&mut self, mut at: Slot, delta: i64) {
        if delta == 0 {
            return;
        }
        loop {
            if let Some(f) = self.node_mut(at).folder_mut() {
                f.size += delta;
            }
            if at == ROOT {
                break;
            }
            at = self.node(at).parent;
        }
    }

    fn attach(&mut self, slot: Slot) {
        let (parent, weight) = (self.node(slot).parent, self.node(slot).weight());
        let name = self.node(slot).name.clone();
        let (Ok(at) | Err(at)) = self.position(parent, &name);
        if let Some(f) = self.node_mut(parent).folder_mut() {
            f.children.insert(at, slot);
        }
        self.add_size(parent, weight);
    }

    fn detach(&mut self, slot: Slot) {
        let (parent, weight) = (self.node(slot).parent, self.node(slot).weight());
        let name = self.node(slot).name.clone();
        if let Ok(at) = self.position(parent, &name)
            && let Some(f) = self.node_mut(parent).folder_mut()
        {
            f.children.remove(at);
        }
        self.add_size(parent, -weight);
    }

    /// Adds a live node. The caller has checked name and uniqueness.
    pub(crate) fn add(&mut self, new: NewNode<'_>) -> Slot {
        let now = new.now;
        let slot = self.len();
        self.nodes.push(blank(new));
        self.attach(slot);
        self.touch(slot, now);
        slot
    }

    /// Replaces the content only; tags and versions are the caller's.
    pub(crate) fn set_blob(&mut self, slot: Slot, blob: Blob) {
        let before = self.node(slot).weight();
        self.node_mut(slot).kind = Kind::File(blob);
        let delta = self.node(slot).weight() - before;
        self.add_size(self.node(slot).parent, delta);
    }

    /// Moves or renames. The caller has checked name, uniqueness and cycles.
    pub(crate) fn relocate(&mut self, slot: Slot, parent: Slot, name: &str, now: Ms) {
        let old = self.node(slot).parent;
        self.detach(slot);
        if old != parent {
            self.node_mut(slot).extra_mut().former_parents.push(old);
        }
        let node = self.node_mut(slot);
        node.parent = parent;
        node.name = name.into();
        self.attach(slot);
        self.touch(slot, now);
        self.tick(old, self.last_change);
    }

    /// Puts a live subtree into the recycle bin (graph-api 8, `delete`).
    pub(crate) fn recycle(&mut self, slot: Slot, now: Ms, descendants_change: bool) {
        self.detach(slot);
        for each in self.subtree(slot) {
            self.node_mut(each).life = Life::Recycled;
            if each == slot || descendants_change {
                self.touch(each, now);
            }
        }
        self.bin.insert(slot, now);
    }

    /// Brings a subtree back; ids stay (graph-api 9.2). The caller has checked the place.
    pub(crate) fn restore(&mut self, slot: Slot, parent: Slot, name: &str, now: Ms) {
        self.bin.remove(&slot);
        let node = self.node_mut(slot);
        node.parent = parent;
        node.name = name.into();
        for each in self.subtree(slot) {
            self.node_mut(each).life = Life::Live;
        }
        self.attach(slot);
        for each in self.subtree(slot) {
            self.touch(each, now);
        }
    }

    /// Removes a live or recycled subtree for good.
    pub(crate) fn purge(&mut self, slot: Slot, now: Ms) {
        if self.node(slot).life == Life::Live {
            self.recycle(slot, now, true);
        }
        self.bin.remove(&slot);
        for each in self.subtree(slot) {
            self.versions.remove(&each);
            let node = self.node_mut(each);
            node.life = Life::Purged;
            if let Kind::File(blob) = &mut node.kind {
                *blob = Blob::Pattern { seed: 0, len: 0 };
            }
        }
    }
}

pub(crate) fn folder() -> Kind {
    Kind::Folder(Box::default())
}

fn blank(new: NewNode<'_>) -> Node {
    let NewNode { parent, name, kind, now, by } = new;
    Node {
        parent,
        life: Life::Live,
        created_by: by,
        modified_by: by,
        e_rev: 1,
        c_rev: 1,
        version: 1,
        name: name.into(),
        kind,
        created: now,
        modified: now,
        fs_created: now,
        fs_modified: now,
        change: 0,
        extra: None,
    }
}
