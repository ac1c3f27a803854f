//! Nodes of one drive: numbered slots, children sorted by folded name, sizes kept up to the root.
//!
//! The first slots may be those of a drive that is computed ([`Made`]): of these, what was changed is held.
//!
//! Invariants: a slot is never reused; slot 0 is the root; a live node's parent is live; a folder's `size` is the
//! sum of its live descendants' sizes; every changed node has its own change number.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;

use super::content::Blob;
use super::ids::DriveIds;
use super::made::{Children, Made};
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
    pub(crate) children: Children,
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
    /// Its owner shares it, and what is in it, with the user (graph-api 2.5).
    pub(crate) shared_with_me: bool,
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

/// A node to look at.
#[derive(Debug)]
pub(crate) enum NodeRef<'a> {
    Held(&'a Node),
    Computed(Box<Node>),
}

impl Deref for NodeRef<'_> {
    type Target = Node;

    fn deref(&self) -> &Node {
        match self {
            Self::Held(node) => node,
            Self::Computed(node) => node,
        }
    }
}

/// The nodes of one drive and the indexes over them.
#[derive(Debug)]
pub(crate) struct Tree {
    /// What the first slots are unless they were changed.
    made: Option<Made>,
    /// Slots that `made` computes: all below this one.
    computed: Slot,
    /// Of these, what was changed.
    changed: HashMap<Slot, Node>,
    /// The slots from `computed` on.
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
            made: None,
            computed: 0,
            changed: HashMap::new(),
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

    /// Puts the computed items in place of a tree of which nothing but the root is there.
    pub(crate) fn compute(&mut self, made: Made) {
        self.computed = made.len() as Slot;
        self.made = Some(made);
        self.nodes.clear();
    }

    pub(crate) fn node(&self, slot: Slot) -> NodeRef<'_> {
        match (slot.checked_sub(self.computed), &self.made) {
            (None, Some(made)) => match self.changed.get(&slot) {
                Some(node) => NodeRef::Held(node),
                None => NodeRef::Computed(Box::new(made.node(slot))),
            },
            (at, _) => NodeRef::Held(&self.nodes[at.unwrap_or(slot) as usize]),
        }
    }

    /// The node to be changed; it is held from here on.
    pub(crate) fn node_mut(&mut self, slot: Slot) -> &mut Node {
        match (slot.checked_sub(self.computed), &self.made) {
            (None, Some(made)) => self.changed.entry(slot).or_insert_with(|| made.node(slot)),
            (at, _) => &mut self.nodes[at.unwrap_or(slot) as usize],
        }
    }

    /// The folder that the slot is in, or was in.
    pub(crate) fn parent(&self, slot: Slot) -> Slot {
        match &self.made {
            Some(made) if slot < self.computed && !self.changed.contains_key(&slot) => made.parent(slot),
            _ => self.node(slot).parent,
        }
    }

    /// Nodes that are in memory.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.changed.len() + self.nodes.len()
    }

    /// Number of slots ever used.
    pub(crate) fn len(&self) -> u32 {
        self.computed + self.nodes.len() as u32
    }

    /// The node of a live item.
    pub(crate) fn live(&self, slot: Slot) -> Option<NodeRef<'_>> {
        (slot < self.len()).then(|| self.node(slot)).filter(|n| n.life == Life::Live)
    }

    /// The slot of `id` whatever its life.
    pub(crate) fn resolve(&self, ids: &DriveIds, id: &str) -> Option<Slot> {
        ids.slot(id).filter(|s| *s < self.len())
    }

    fn position(&self, parent: Slot, name: &str) -> Result<usize, usize> {
        let children = self.children(parent);
        let (mut low, mut high) = (0, children.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match names::compare(&self.node(children.at(middle)).name, name) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    pub(crate) fn children(&self, parent: Slot) -> Cow<'_, Children> {
        match self.node(parent) {
            NodeRef::Held(node) => node.folder().map_or_else(Cow::default, |f| Cow::Borrowed(&f.children)),
            NodeRef::Computed(node) => match node.kind {
                Kind::Folder(folder) => Cow::Owned(folder.children),
                Kind::File(_) => Cow::default(),
            },
        }
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
        self.position(parent, name).ok().map(|at| self.children(parent).at(at))
    }

    /// Ancestors of `slot`, nearest first, root last; empty for the root.
    pub(crate) fn ancestors(&self, slot: Slot) -> impl Iterator<Item = Slot> + '_ {
        let mut at = slot;
        std::iter::from_fn(move || {
            if at == ROOT {
                return None;
            }
            at = self.parent(at);
            Some(at)
        })
    }

    pub(crate) fn is_below(&self, slot: Slot, top: Slot) -> bool {
        slot == top || self.ancestors(slot).any(|a| a == top)
    }

    /// Names from below the root down to `slot`.
    pub(crate) fn path(&self, slot: Slot) -> Vec<String> {
        let mut names = Vec::new();
        let mut at = slot;
        while at != ROOT {
            let node = self.node(at);
            names.push(node.name.to_string());
            at = node.parent;
        }
        names.reverse();
        names
    }

    /// `slot` and all below it, parents first.
    pub(crate) fn subtree(&self, slot: Slot) -> Vec<Slot> {
        let mut all = vec![slot];
        let mut next = 0;
        while next < all.len() {
            all.extend(self.children(all[next]).iter());
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
            at = self.parent(at);
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
            at = self.parent(at);
        }
    }

    fn attach(&mut self, slot: Slot) {
        let (parent, weight) = (self.node(slot).parent, self.node(slot).weight());
        let name = self.node(slot).name.clone();
        let (Ok(at) | Err(at)) = self.position(parent, &name);
        if let Some(f) = self.node_mut(parent).folder_mut() {
            f.children.listed().insert(at, slot);
        }
        self.add_size(parent, weight);
    }

    fn detach(&mut self, slot: Slot) {
        let (parent, weight) = (self.node(slot).parent, self.node(slot).weight());
        let name = self.node(slot).name.clone();
        if let Ok(at) = self.position(parent, &name)
            && let Some(f) = self.node_mut(parent).folder_mut()
        {
            f.children.listed().remove(at);
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

pub(crate) fn blank(new: NewNode<'_>) -> Node {
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
