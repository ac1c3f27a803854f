//! A synthetic drive that is computed, not stored: each slot's item is a function of the slot.
//!
//! Slots lie as a walk through the tree meets them: the root, then each group with its folders, each folder with its
//! files. So the items below any folder are a run of slots, and the children of one lie at equal distances.

use super::content::Blob;
use super::ids::mix;
use super::time::Ms;
use super::tree::{Folder, Kind, NewNode, Node, ROOT, Slot, blank};

/// The shape of a drive whose items are computed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    files: u64,
    per_folder: u64,
    /// Bytes of each file.
    size: u64,
    /// Times lie before this one.
    now: Ms,
    /// Times are whole seconds.
    seconds: bool,
}

/// What a slot is, with its number among those of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Root,
    Group(u64),
    Folder(u64),
    File(u64),
}

/// Days over which modification times are spread.
const SPREAD_MS: u64 = 3 * 365 * 24 * 3600 * 1000;

impl Made {
    /// `files` files of `size` bytes, `per_folder` in each folder; not more than that many folders in each group.
    pub(crate) fn new(files: u32, per_folder: u32, size: u64, now: Ms, seconds: bool) -> Self {
        Self { files: files.into(), per_folder: per_folder.max(1).into(), size, now, seconds }
    }

    fn folders(&self) -> u64 {
        self.files.div_ceil(self.per_folder)
    }

    fn groups(&self) -> u64 {
        self.folders().div_ceil(self.per_folder)
    }

    /// Slots of a full folder, itself included.
    fn folder_span(&self) -> u64 {
        1 + self.per_folder
    }

    /// Slots of a full group, itself included.
    fn group_span(&self) -> u64 {
        1 + self.per_folder * self.folder_span()
    }

    /// Number of items, the root included.
    pub(crate) fn len(&self) -> u64 {
        1 + self.groups() + self.folders() + self.files
    }

    fn what(&self, slot: Slot) -> What {
        let Some(below) = u64::from(slot).checked_sub(1) else { return What::Root };
        let (group, within) = (below / self.group_span(), below % self.group_span());
        let Some(within) = within.checked_sub(1) else { return What::Group(group) };
        let folder = group * self.per_folder + within / self.folder_span();
        match (within % self.folder_span()).checked_sub(1) {
            None => What::Folder(folder),
            Some(file) => What::File(folder * self.per_folder + file),
        }
    }

    fn slot_of_group(&self, group: u64) -> u64 {
        1 + group * self.group_span()
    }

    fn slot_of_folder(&self, folder: u64) -> u64 {
        let (group, within) = (folder / self.per_folder, folder % self.per_folder);
        self.slot_of_group(group) + 1 + within * self.folder_span()
    }

    /// The folder that the slot lies in at the start.
    pub(crate) fn parent(&self, slot: Slot) -> Slot {
        let parent = match self.what(slot) {
            What::Root | What::Group(_) => u64::from(ROOT),
            What::Folder(folder) => self.slot_of_group(folder / self.per_folder),
            What::File(file) => self.slot_of_folder(file / self.per_folder),
        };
        parent as Slot
    }

    /// Names sort as their numbers do.
    fn name(&self, what: What) -> String {
        let digits = |least: usize, count: u64| least.max(count.saturating_sub(1).to_string().len());
        match what {
            What::Root => "root".into(),
            What::Group(n) => format!("group {n:0w$}", w = digits(5, self.groups())),
            What::Folder(n) => format!("folder {n:0w$}", w = digits(6, self.folders())),
            What::File(n) => format!("file {n:0w$}.bin", w = digits(8, self.files)),
        }
    }

    fn children(&self, what: What) -> Children {
        let within = |n: u64, all: u64| all.saturating_sub(n * self.per_folder).min(self.per_folder);
        let (first, step, count) = match what {
            What::Root => (1, self.group_span(), self.groups()),
            What::Group(n) => (self.slot_of_group(n) + 1, self.folder_span(), within(n, self.folders())),
            What::Folder(n) => (self.slot_of_folder(n) + 1, 1, within(n, self.files)),
            What::File(_) => (0, 0, 0),
        };
        Children::Run { first, step, count }
    }

    /// Bytes of all files below.
    fn bytes(&self, what: What) -> u64 {
        let per_group = self.per_folder * self.per_folder;
        let files = |n: u64, per: u64| self.files.saturating_sub(n.saturating_mul(per)).min(per);
        self.size
            * match what {
                What::Root => self.files,
                What::Group(n) => files(n, per_group),
                What::Folder(n) => files(n, self.per_folder),
                What::File(_) => 1,
            }
    }

    /// When the item was made and last changed.
    fn time(&self, slot: Slot) -> Ms {
        if slot == ROOT {
            return self.now;
        }
        let time = self.now - (mix(u64::from(slot)) % SPREAD_MS) as Ms;
        if self.seconds { time.div_euclid(1000) * 1000 } else { time }
    }

    /// The item as it is at the start.
    pub(crate) fn node(&self, slot: Slot) -> Node {
        let what = self.what(slot);
        let kind = match what {
            What::File(n) => Kind::File(Blob::Pattern { seed: n as u32, len: self.size }),
            _ => {
                let size = i64::try_from(self.bytes(what)).unwrap_or(i64::MAX);
                Kind::Folder(Box::new(Folder { children: self.children(what), size, tick: 0 }))
            }
        };
        let (parent, now) = (self.parent(slot), self.time(slot));
        blank(NewNode { parent, name: &self.name(what), kind, now, by: 0 })
    }
}

/// The live children of a folder, sorted by folded name.
#[derive(Debug, Clone)]
pub(crate) enum Children {
    /// One by one.
    Listed(Vec<Slot>),
    /// At equal distances, as they were made.
    Run { first: u64, step: u64, count: u64 },
}

impl Default for Children {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl Children {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Listed(slots) => slots.len(),
            Self::Run { count, .. } => *count as usize,
        }
    }

    /// The child at `index`, which is below [`Children::len`].
    pub(crate) fn at(&self, index: usize) -> Slot {
        match self {
            Self::Listed(slots) => slots[index],
            Self::Run { first, step, .. } => (first + step * index as u64) as Slot,
        }
    }

    /// The children from the one at `from` on.
    pub(crate) fn from(&self, from: usize) -> impl Iterator<Item = Slot> + '_ {
        (from..self.len()).map(|index| self.at(index))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.from(0)
    }

    /// All of them one by one, to be changed.
    pub(crate) fn listed(&mut self) -> &mut Vec<Slot> {
        if let Self::Run { .. } = self {
            *self = Self::Listed(self.iter().collect());
        }
        match self {
            Self::Listed(slots) => slots,
            Self::Run { .. } => unreachable!("it was listed above"),
        }
    }
}

#[cfg(test)]
#[path = "made_tests.rs"]
mod tests;
