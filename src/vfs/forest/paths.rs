//! Paths of the mount, as commands give them.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::catalog::{ROOT, To};
use super::{Forest, Outside};
use crate::model::{NodeId, names};
use crate::vfs::{Drive, Vfs, VfsError};

/// A drive, or a part of one, that lies at or below a path.
pub struct Part<D: Drive> {
    /// The drive's slot.
    pub slot: u16,
    /// The drive.
    pub files: Arc<Vfs<D>>,
    /// What of it is meant; its root where all of it is.
    pub top: NodeId,
    /// Where the drive's root is in the mount; by its name where it is not shown any more.
    pub prefix: PathBuf,
}

/// What a path of the mount leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A directory above the drives.
    Above(u32),
    /// A node of a drive.
    In(u16, NodeId),
}

impl<O: Outside> Forest<O> {
    /// What is at `path`. Opens no drive and asks nobody: what is in a drive that is not open is `NotFound`, but for
    /// its root.
    pub fn find(&self, path: &Path) -> Result<Shown, VfsError> {
        let is_single = self.0.catalog().made.is_empty();
        let mut at = if is_single { Shown::In(0, NodeId::ROOT) } else { Shown::Above(ROOT) };
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            at = match at {
                Shown::Above(node) => {
                    let found = self.0.catalog().child(node, name, self.0.config.case_insensitive);
                    match found.ok_or(VfsError::NotFound)? {
                        To::Made(node) => Shown::Above(node),
                        To::Slot(slot) => Shown::In(slot, NodeId::ROOT),
                    }
                }
                Shown::In(slot, node) => self.step(slot, node, name)?,
            };
        }
        Ok(at)
    }

    fn step(&self, slot: u16, node: NodeId, name: &std::ffi::OsStr) -> Result<Shown, VfsError> {
        let files = self.0.drive(slot).ok_or(VfsError::NotFound)?;
        let (slot, files, node) = self.0.entered(slot, files, node)?;
        let name = names::to_remote(name).map_err(|_| VfsError::NotFound)?;
        let store = files.drive().store();
        let child = match self.0.config.case_insensitive {
            true => store.child_as_folded(node, &name)?,
            false => store.child(node, &name)?,
        };
        Ok(Shown::In(slot, child.ok_or(VfsError::NotFound)?.id))
    }

    /// What `path` leads to in a drive, which is put together now if it is not yet; of a shortcut, what is behind it.
    /// None above the drives.
    pub async fn part_at(&self, path: &Path) -> Result<Option<Part<O::Drive>>, VfsError> {
        let Shown::In(slot, node) = self.find(path)? else { return Ok(None) };
        let files = self.open(slot).await?;
        let Some(item) = files.shortcut(node)? else { return Ok(Some(self.part(slot, &files, node))) };
        let slot = self.behind(slot, &files, item).await?;
        let files = self.open(slot).await?;
        Ok(Some(self.part(slot, &files, NodeId::ROOT)))
    }

    /// The parts of open drives at or below `path`, also those behind shortcuts there.
    pub fn parts(&self, path: &Path) -> Result<Vec<Part<O::Drive>>, VfsError> {
        let shown = self.find(path)?;
        let open = self.opened();
        let mut parts: Vec<Part<O::Drive>> = Vec::new();
        let all = path.components().next().is_none();
        for (slot, files) in &open {
            let top = match shown {
                _ if all => Some(NodeId::ROOT),
                Shown::In(wanted, node) if wanted == *slot => Some(node),
                Shown::In(..) => None,
                Shown::Above(_) => {
                    let place = self.0.catalog().place(*slot);
                    place.is_some_and(|place| place.starts_with(path)).then_some(NodeId::ROOT)
                }
            };
            if let Some(top) = top {
                parts.push(self.part(*slot, files, top));
            }
        }
        // What is behind shortcuts that lie in what was found, and so on.
        let mut from = 0;
        while from < parts.len() {
            let (slot, top) = (parts[from].slot, parts[from].top);
            for (to, files) in &open {
                let known = parts.iter().any(|part| part.slot == *to && part.top == NodeId::ROOT);
                if !known && self.leads(slot, top, *to)? {
                    parts.push(self.part(*to, files, NodeId::ROOT));
                }
            }
            from += 1;
        }
        Ok(parts)
    }

    /// Whether a shortcut at or below `top` of `slot` leads to `to`.
    fn leads(&self, slot: u16, top: NodeId, to: u16) -> Result<bool, VfsError> {
        let items: Vec<_> = {
            let catalog = self.0.catalog();
            catalog.links_to(to).filter(|(from, _)| *from == slot).map(|(_, item)| item.clone()).collect()
        };
        let Some(files) = self.0.drive(slot) else { return Ok(false) };
        let store = files.drive().store();
        for item in items {
            let mut at = store.by_item(&item)?.map(|node| node.id);
            for _ in 0..512 {
                match at {
                    Some(id) if id == top => return Ok(true),
                    Some(id) => at = store.node(id)?.and_then(|node| Some(node.place.as_ref()?.parent)),
                    None => break,
                }
            }
        }
        Ok(false)
    }

    fn part(&self, slot: u16, files: &Arc<Vfs<O::Drive>>, top: NodeId) -> Part<O::Drive> {
        Part { slot, files: Arc::clone(files), top, prefix: self.prefix(slot, 0) }
    }

    /// Where the root of `slot` is in the mount.
    fn prefix(&self, slot: u16, depth: u32) -> PathBuf {
        const DEEPEST: u32 = 16;
        let (place, links) = {
            let catalog = self.0.catalog();
            let links: Vec<_> = catalog.links_to(slot).map(|(from, item)| (from, item.clone())).collect();
            (catalog.place(slot), links)
        };
        if let Some(place) = place {
            return place;
        }
        if slot == 0 {
            return PathBuf::new();
        }
        for (from, item) in links.into_iter().filter(|_| depth < DEEPEST) {
            let Some(files) = self.0.drive(from) else { continue };
            let store = files.drive().store();
            let node = store.by_item(&item).ok().flatten();
            let Some(node) = node.filter(|node| node.place.is_some()) else { continue };
            if let Ok(path) = store.shown_path(node.id) {
                return self.prefix(from, depth + 1).join(path);
            }
        }
        let catalog = self.0.catalog();
        let name = match catalog.target(slot) {
            Some(super::Target::Named(name)) => name.clone(),
            Some(super::Target::Drive { name, .. } | super::Target::Folder { name, .. }) => name.clone(),
            None => slot.to_string(),
        };
        PathBuf::from(names::to_local(&name))
    }

    /// Asks the service again for the listings at or below `path` that were asked for before, and returns when they
    /// are shown.
    pub async fn refresh_listings(&self, path: &Path) -> Result<(), VfsError> {
        if let Shown::Above(node) = self.find(path)? {
            let wanted: Vec<u32> = {
                let catalog = self.0.catalog();
                let known = catalog.made.iter().filter(|(_, made)| made.read).map(|(&node, _)| node);
                known.filter(|&known| catalog.is_at_or_below(known, node)).collect()
            };
            for node in wanted {
                self.refresh(node, None).await?;
            }
        }
        Ok(())
    }
}
