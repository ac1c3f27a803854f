//! What a mount of several drives shows above them, and which number each has: kept on disk, so that inode numbers
//! survive a remount and the listings are there without a network.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use serde::{Deserialize, Serialize};

use crate::model::{DriveId, DriveType, Ino, ItemId, NodeId, names};
use crate::vfs::VfsError;

/// The format of the file.
const VERSION: u32 = 1;
/// The directory that is the root of the mount.
pub(super) const ROOT: u32 = 1;

/// Which drive, or folder of one, a slot shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// What a person called it (`me`, …); the service was not asked yet.
    Named(String),
    /// All of a drive.
    #[serde(rename_all = "camelCase")]
    Drive {
        /// For requests.
        id: DriveId,
        /// Which service it lives on.
        drive_type: DriveType,
        /// As the service calls it.
        name: String,
    },
    /// A folder of a drive that may be out of reach itself.
    #[serde(rename_all = "camelCase")]
    Folder {
        /// The drive.
        drive: DriveId,
        /// Which service it lives on.
        drive_type: DriveType,
        /// The folder.
        item: ItemId,
        /// As it is called here.
        name: String,
    },
}

impl Target {
    /// Both show the same.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Named(one), Self::Named(other)) => one == other,
            (Self::Drive { id, .. }, Self::Drive { id: other, .. }) => id == other,
            (Self::Folder { drive, item, .. }, Self::Folder { drive: there, item: that, .. }) => {
                drive == there && item == that
            }
            _ => false,
        }
    }
}

/// What is in a directory above the drives, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is known by, whatever it is called.
    pub key: String,
    /// As the service calls it.
    pub title: String,
    /// What it is.
    pub what: FoundKind,
}

/// What an entry above the drives is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundKind {
    /// A directory of the libraries of the site with this id.
    Site(String),
    /// Something with a slot.
    Slot(Target),
}

/// What a directory above the drives holds, and whom to ask for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Listing {
    /// What the mount was asked to show: nobody.
    Fixed,
    /// All sites.
    Sites,
    /// The libraries of the site with this id.
    Libraries(String),
    /// What others share.
    Shared,
}

/// A directory above the drives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Made {
    pub parent: u32,
    pub listing: Listing,
    /// The service was asked at least once.
    pub read: bool,
    pub children: Vec<Child>,
}

/// An entry of a directory above the drives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Child {
    key: String,
    title: String,
    /// Another entry had its name before.
    clashes: bool,
    pub to: To,
}

/// Where an entry leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum To {
    Made(u32),
    Slot(u16),
}

impl To {
    /// A number of its own, whatever else is in the directory.
    pub fn number(self) -> u64 {
        match self {
            Self::Made(node) => u64::from(node) * 2,
            Self::Slot(slot) => u64::from(slot) * 2 + 1,
        }
    }

    pub fn ino(self) -> Ino {
        match self {
            Self::Made(node) => Ino::new(0, NodeId(i64::from(node))),
            Self::Slot(slot) => Ino::new(slot, NodeId::ROOT),
        }
    }
}

impl Child {
    /// As programs see it.
    pub fn name(&self) -> OsString {
        let plain = names::to_local(&self.title);
        if self.clashes {
            names::disambiguate(&plain, NodeId(i64::try_from(self.to.number()).unwrap_or(0)))
        } else {
            plain
        }
    }
}

/// A shortcut that was followed once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    slot: u16,
    item: ItemId,
    to: u16,
}

/// Everything that has a number above the drives. Numbers are never given twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Catalog {
    version: u32,
    next_node: u32,
    next_slot: u32,
    pub(super) made: BTreeMap<u32, Made>,
    slots: BTreeMap<u16, Target>,
    links: Vec<Link>,
}

impl Catalog {
    /// One drive, which is the root of the mount.
    pub fn of_drive(target: Target) -> Self {
        let slots = BTreeMap::from([(0, target)]);
        Self { version: VERSION, next_node: 2, next_slot: 1, made: BTreeMap::new(), slots, links: Vec::new() }
    }

    /// A root in which the drives are; more is put into it by [`Catalog::show`].
    pub fn of_drives() -> Self {
        let root = Made { parent: ROOT, listing: Listing::Fixed, read: true, children: Vec::new() };
        Self {
            version: VERSION,
            next_node: 2,
            next_slot: 1,
            made: BTreeMap::from([(ROOT, root)]),
            slots: BTreeMap::new(),
            links: Vec::new(),
        }
    }

    /// What was kept; none if it is of another version of the program, or damaged.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let found: Self = serde_json::from_slice(bytes).ok()?;
        let whole = found.version == VERSION
            && found.made.values().flat_map(|made| &made.children).all(|child| match child.to {
                To::Made(node) => found.made.contains_key(&node),
                To::Slot(slot) => found.slots.contains_key(&slot),
            });
        whole.then_some(found)
    }

    /// What is to be kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("plain data is always written")
    }

    /// What the mount was asked to show in its root, in this order; what was there before and is not asked for any
    /// more goes out of sight, and keeps its number.
    pub fn show(&mut self, asked: Vec<(String, Result<Listing, Target>)>) -> Result<(), VfsError> {
        let mut children = Vec::new();
        let mut taken = BTreeSet::new();
        for (title, what) in asked {
            let to = match what {
                Ok(listing) => To::Made(self.made_for(ROOT, &listing)?),
                Err(target) => To::Slot(self.slot_for_asked(&title, target)?),
            };
            let clashes = !taken.insert(names::fold(&title));
            children.push(Child { key: title.clone(), title, clashes, to });
        }
        self.made.get_mut(&ROOT).ok_or(VfsError::Stale)?.children = children;
        Ok(())
    }

    /// The slot of what is asked for under this name: the one it had, also where it is known by its id since.
    fn slot_for_asked(&mut self, title: &str, target: Target) -> Result<u16, VfsError> {
        let before = self
            .made
            .get(&ROOT)
            .and_then(|root| root.children.iter().find(|child| child.key == title).map(|child| child.to));
        match before {
            // The name stands for what it stood for before.
            Some(To::Slot(slot)) if self.slots.get(&slot).is_some_and(|known| known.stands_for(&target)) => {
                Ok(slot)
            }
            _ => self.slot_for(target),
        }
    }

    /// What `slot` shows.
    pub fn target(&self, slot: u16) -> Option<&Target> {
        self.slots.get(&slot)
    }

    /// All slots and what they show.
    pub fn targets(&self) -> impl Iterator<Item = (u16, &Target)> {
        self.slots.iter().map(|(&slot, target)| (slot, target))
    }

    /// The slot that shows `target`, a new one if there is none.
    pub fn slot_for(&mut self, target: Target) -> Result<u16, VfsError> {
        if let Some((&slot, _)) = self.slots.iter().find(|(_, known)| known.is(&target)) {
            return Ok(slot);
        }
        let slot = u16::try_from(self.next_slot).map_err(|_| VfsError::NoSpace)?;
        self.next_slot += 1;
        self.slots.insert(slot, target);
        Ok(slot)
    }

    /// The service said what `slot` is.
    pub fn resolve(&mut self, slot: u16, target: Target) {
        self.slots.insert(slot, target);
    }

    /// The slot behind the shortcut `item` of `slot`, if it was followed before.
    pub fn link(&self, slot: u16, item: &ItemId) -> Option<u16> {
        self.links.iter().find(|link| link.slot == slot && link.item == *item).map(|link| link.to)
    }

    /// The shortcuts that lead to `to`: slot and item of each.
    pub fn links_to(&self, to: u16) -> impl Iterator<Item = (u16, &ItemId)> {
        self.links.iter().filter(move |link| link.to == to).map(|link| (link.slot, &link.item))
    }

    /// The shortcut `item` of `slot` leads to `to`.
    pub fn set_link(&mut self, slot: u16, item: ItemId, to: u16) {
        self.links.retain(|link| link.slot != slot || link.item != item);
        self.links.push(Link { slot, item, to });
    }

    /// The directory of `listing` in `parent`.
    fn made_for(&mut self, parent: u32, listing: &Listing) -> Result<u32, VfsError> {
        let known = self.made.iter().find(|(_, made)| made.parent == parent && made.listing == *listing);
        if let Some((&node, _)) = known {
            return Ok(node);
        }
        let node = self.next_node;
        self.next_node = node.checked_add(1).ok_or(VfsError::NoSpace)?;
        let made = Made { parent, listing: listing.clone(), read: false, children: Vec::new() };
        self.made.insert(node, made);
        Ok(node)
    }

    /// Takes in what the directory `node` holds; returns the names that mean something else now.
    pub(super) fn fill(&mut self, node: u32, found: Vec<Found>) -> Result<BTreeSet<OsString>, VfsError> {
        let before = self.made.get(&node).ok_or(VfsError::Stale)?.children.clone();
        let mut children: Vec<Child> = Vec::new();
        for Found { key, title, what } in found {
            if children.iter().any(|child| child.key == key) {
                continue;
            }
            let to = match what {
                FoundKind::Site(site) => To::Made(self.made_for(node, &Listing::Libraries(site))?),
                FoundKind::Slot(target) => To::Slot(self.slot_for(target)?),
            };
            let old = before.iter().find(|child| child.key == key && child.title == title);
            // Who has a name keeps it.
            let clashes = old.is_none_or(|old| old.clashes);
            children.push(Child { key, title, clashes, to });
        }
        let folded = |child: &Child| names::fold(&child.title);
        let mut taken: BTreeSet<String> =
            children.iter().filter(|child| !child.clashes).map(folded).collect();
        for child in children.iter_mut().filter(|child| child.clashes) {
            child.clashes = !taken.insert(folded(child));
        }
        let shown = |children: &[Child]| -> BTreeMap<OsString, To> {
            children.iter().map(|child| (child.name(), child.to)).collect()
        };
        let (old, new) = (shown(&before), shown(&children));
        let differs = |name: &&OsString| old.get(*name) != new.get(*name);
        let changed = old.keys().chain(new.keys()).filter(differs).cloned().collect();
        let made = self.made.get_mut(&node).ok_or(VfsError::Stale)?;
        (made.children, made.read) = (children, true);
        Ok(changed)
    }

    /// The entry of this name.
    pub(super) fn child(&self, node: u32, name: &OsStr, folded: bool) -> Option<To> {
        let children = &self.made.get(&node)?.children;
        let exact = children.iter().find(|child| child.name() == name);
        let same = || {
            let wanted = names::fold(name.to_str()?);
            children
                .iter()
                .find(|child| child.name().to_str().is_some_and(|name| names::fold(name) == wanted))
        };
        exact.or_else(|| if folded { same() } else { None }).map(|child| child.to)
    }

    /// Whether the directory `node` is `top` or in it.
    pub(super) fn is_at_or_below(&self, node: u32, top: u32) -> bool {
        let mut at = node;
        while at != top && at != ROOT {
            let Some(made) = self.made.get(&at) else { return false };
            at = made.parent;
        }
        at == top
    }

    /// Where `slot` is shown above the drives, as a path of the mount.
    pub(super) fn place(&self, slot: u16) -> Option<std::path::PathBuf> {
        let mut at = To::Slot(slot);
        let mut names = Vec::new();
        while at != To::Made(ROOT) {
            let (&node, child) = self.made.iter().find_map(|(node, made)| {
                made.children.iter().find(|child| child.to == at).map(|child| (node, child))
            })?;
            names.push(child.name());
            at = To::Made(node);
        }
        names.reverse();
        Some(names.into_iter().collect())
    }
}

impl Target {
    /// Whether this, which may be known by its id since, is what was asked for.
    fn stands_for(&self, asked: &Self) -> bool {
        matches!((self, asked), (Self::Drive { .. }, Self::Named(_))) || self.is(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(id: &str, title: &str) -> Found {
        let target = Target::Drive {
            id: DriveId::new(id),
            drive_type: DriveType::DocumentLibrary,
            name: title.into(),
        };
        Found { key: id.into(), title: title.into(), what: FoundKind::Slot(target) }
    }

    fn site(id: &str, title: &str) -> Found {
        Found { key: id.into(), title: title.into(), what: FoundKind::Site(id.into()) }
    }

    fn all() -> Catalog {
        let mut catalog = Catalog::of_drives();
        let asked = vec![
            ("OneDrive".to_owned(), Err(Target::Named("me".into()))),
            ("Sites".to_owned(), Ok(Listing::Sites)),
        ];
        catalog.show(asked.clone()).unwrap();
        catalog.show(asked).unwrap();
        catalog
    }

    fn names(catalog: &Catalog, node: u32) -> Vec<OsString> {
        catalog.made[&node].children.iter().map(Child::name).collect()
    }

    // S180, S185.
    #[test]
    fn numbers_stay_whatever_comes_and_goes_and_survive_the_file() {
        let mut catalog = all();
        assert_eq!(names(&catalog, ROOT), ["OneDrive", "Sites"]);
        let Some(To::Made(sites)) = catalog.child(ROOT, OsStr::new("Sites"), false) else { panic!() };
        catalog.fill(sites, vec![site("s1", "Team"), site("s2", "Legal")]).unwrap();
        let team = catalog.child(sites, OsStr::new("Team"), false).unwrap();
        let legal = catalog.child(sites, OsStr::new("Legal"), false).unwrap();
        let changed = catalog.fill(sites, vec![site("s2", "Legal")]).unwrap();
        assert_eq!(changed.into_iter().collect::<Vec<_>>(), ["Team"]);
        assert_eq!(catalog.child(sites, OsStr::new("Team"), false), None);
        let mut catalog = Catalog::parse(&catalog.to_bytes()).expect("it is whole");
        catalog.fill(sites, vec![site("s3", "New"), site("s1", "Team"), site("s2", "Legal")]).unwrap();
        assert_eq!(catalog.child(sites, OsStr::new("Team"), false), Some(team));
        assert_eq!(catalog.child(sites, OsStr::new("Legal"), false), Some(legal));
        let To::Made(team) = team else { panic!() };
        catalog.fill(team, vec![library("b!1", "Documents")]).unwrap();
        assert_eq!(catalog.place(2).unwrap(), std::path::Path::new("Sites/Team/Documents"));
        assert!(Catalog::parse(b"{\"version\":9}").is_none() && Catalog::parse(b"half a fi").is_none());
    }

    // S181.
    #[test]
    fn entries_of_one_name_are_told_apart_and_who_had_the_name_keeps_it() {
        let mut catalog = all();
        catalog.fill(2, vec![site("s1", "Team")]).unwrap();
        catalog.fill(2, vec![site("s0", "TEAM"), site("s1", "Team"), site("s2", "a/b")]).unwrap();
        let Some(Child { to, .. }) = catalog.made[&2].children.first() else { panic!() };
        let other = format!("TEAM (item {})", to.number());
        assert_eq!(names(&catalog, 2), [other.as_str(), "Team", names::to_local("a/b").to_str().unwrap()]);
        assert_eq!(catalog.child(2, OsStr::new(&other), false), Some(*to));
        assert_eq!(catalog.child(2, OsStr::new("team"), true).map(To::number), Some(6));
        catalog.fill(2, vec![site("s0", "TEAM")]).unwrap();
        assert_eq!(names(&catalog, 2), ["TEAM"], "the name is free again");
    }

    #[test]
    fn one_target_has_one_slot_and_a_name_that_was_resolved_keeps_its_own() {
        let mut catalog = all();
        let drive = |name: &str| Target::Drive {
            id: DriveId::new("b!me"),
            drive_type: DriveType::Business,
            name: name.into(),
        };
        catalog.resolve(1, drive("OneDrive"));
        assert_eq!(catalog.slot_for(drive("other words")).unwrap(), 1);
        catalog.show(vec![("OneDrive".into(), Err(Target::Named("me".into())))]).unwrap();
        assert_eq!(catalog.child(ROOT, OsStr::new("OneDrive"), false), Some(To::Slot(1)));
        let folder = |item: &str| Target::Folder {
            drive: DriveId::new("b!me"),
            drive_type: DriveType::Business,
            item: ItemId::new(item),
            name: "f".into(),
        };
        let (one, other) = (catalog.slot_for(folder("1")).unwrap(), catalog.slot_for(folder("2")).unwrap());
        assert!(one != other && one != 1);
        catalog.set_link(1, ItemId::new("s"), one);
        catalog.set_link(1, ItemId::new("t"), one);
        assert_eq!(catalog.link(1, &ItemId::new("t")), Some(one));
        assert_eq!(catalog.links_to(one).count(), 2);
    }
}
