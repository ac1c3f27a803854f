//! Several drives as one file system: the kernel's node numbers say by their slot which drive a node is of, and here
//! each request is handed to that one.
//!
//! A drive is put together when somebody goes into it, not when it is listed. Slot 0 is either the only drive of the
//! mount or the directories above the drives, which are made up here and cannot be changed. A shortcut is a directory
//! of its drive with a node number there; what is in it belongs to another slot.
//!
//! No lock but the gates of opening and of reading a listing is held over an await.

mod catalog;
mod entrances;
mod filesystem;
mod paths;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::Instant;

use super::{Drive, Invalidation, Kept, Vfs, VfsConfig, VfsError};
use crate::model::{Ino, ItemId, NodeId, Timestamp};

pub use catalog::{Catalog, Found, FoundKind, Listing, Target};
pub use entrances::Entrances;
pub use paths::{Part, Shown};

/// A listing from the service is not asked for again before.
const FRESH: Duration = Duration::from_secs(60);

/// What a target turned out to be, and its file system.
pub type Opened<D> = (Target, Arc<Vfs<D>>);

/// A directory of an open drive: the drive's slot, its file system, and the node.
type Directory<D> = (u16, Arc<Vfs<D>>, NodeId);

/// What a forest needs of whoever builds drives.
pub trait Outside: Send + Sync + 'static {
    /// A drive.
    type Drive: Drive;

    /// What the service says is in a directory above the drives.
    fn list(&self, listing: Listing) -> impl Future<Output = Result<Vec<Found>, VfsError>> + Send;

    /// Where the shortcut `item` of the drive leads.
    fn follow(
        &self,
        drive: &Self::Drive,
        item: ItemId,
    ) -> impl Future<Output = Result<Target, VfsError>> + Send;

    /// Puts together what `target` means, and has it follow the service; returns it with the target as it is known
    /// now. One at a time for a slot.
    fn open(
        &self,
        slot: u16,
        target: Target,
    ) -> impl Future<Output = Result<Opened<Self::Drive>, VfsError>> + Send;

    /// Keeps the catalog, durably.
    fn save(&self, catalog: &Catalog) -> Result<(), VfsError>;

    /// Has the kernel forget something. Never waits.
    fn forget(&self, what: Invalidation);
}

/// The file system of a mount. Clones share it.
pub struct Forest<O: Outside>(Arc<Inner<O>>);

impl<O: Outside> Clone for Forest<O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<O: Outside> std::fmt::Debug for Forest<O> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Forest").field("config", &self.0.config).finish_non_exhaustive()
    }
}

struct Inner<O: Outside> {
    outside: O,
    config: VfsConfig,
    /// When the mount began: the time of what is made up.
    born: Timestamp,
    entrances: Arc<Entrances>,
    /// Taken for moments, and while the catalog is written.
    catalog: Mutex<Catalog>,
    drives: RwLock<HashMap<u16, Arc<Vfs<O::Drive>>>>,
    /// One opens a slot at a time.
    opening: DashMap<u16, Arc<tokio::sync::Mutex<()>>>,
    /// When each listing was asked for last, and one at a time asks.
    asked: Mutex<HashMap<u32, Instant>>,
    asking: DashMap<u32, Arc<tokio::sync::Mutex<()>>>,
    /// Directory handles that were opened through shortcuts, and where they lead.
    through: DashMap<(Ino, super::Handle), u16>,
}

/// Whose a node is.
enum Owner<D: Drive> {
    /// Above the drives.
    Made(u32),
    /// A drive's.
    Drive(Arc<Vfs<D>>),
    /// A drive's that nobody went into yet.
    Closed,
}

/// A directory of the mount.
enum Place<D: Drive> {
    /// Above the drives.
    Made(u32),
    /// In a drive: what it is there.
    In(Arc<Vfs<D>>, Ino),
}

impl<O: Outside> Forest<O> {
    /// A forest over what was kept; `born`: the time that what is made up shows.
    pub fn new(
        outside: O,
        config: VfsConfig,
        catalog: Catalog,
        entrances: Arc<Entrances>,
        born: Timestamp,
    ) -> Self {
        Self(Arc::new(Inner {
            outside,
            config,
            born,
            entrances,
            catalog: Mutex::new(catalog),
            drives: RwLock::default(),
            opening: DashMap::new(),
            asked: Mutex::default(),
            asking: DashMap::new(),
            through: DashMap::new(),
        }))
    }

    /// What is known and kept.
    pub fn catalog(&self) -> Catalog {
        self.0.catalog().clone()
    }

    /// The drives that are open, by their slots.
    pub fn opened(&self) -> Vec<(u16, Arc<Vfs<O::Drive>>)> {
        let drives = self.0.drives.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = drives.iter().map(|(&slot, files)| (slot, Arc::clone(files))).collect();
        all.sort_by_key(|(slot, _)| *slot);
        all
    }

    /// `slot` is this drive.
    pub fn put(&self, slot: u16, files: Arc<Vfs<O::Drive>>) {
        self.0.drives.write().unwrap_or_else(PoisonError::into_inner).insert(slot, files);
    }

    /// Closes every handle: the mount has ended.
    pub fn release_all(&self) {
        self.opened().iter().for_each(|(_, files)| files.release_all());
    }

    /// Unlinks what is no longer needed, before the end.
    pub fn shutdown(&self) {
        self.opened().iter().for_each(|(_, files)| files.shutdown());
    }

    /// The drive of `slot`, put together now if it is not yet.
    pub async fn open(&self, slot: u16) -> Result<Arc<Vfs<O::Drive>>, VfsError> {
        if let Some(files) = self.0.drive(slot) {
            return Ok(files);
        }
        let forest = self.clone();
        to_the_end(async move { forest.open_one(slot).await }).await
    }

    async fn open_one(&self, slot: u16) -> Result<Arc<Vfs<O::Drive>>, VfsError> {
        let gate = self.0.opening.entry(slot).or_default().clone();
        let _one = gate.lock().await;
        if let Some(files) = self.0.drive(slot) {
            return Ok(files);
        }
        let target = self.0.catalog().target(slot).cloned().ok_or(VfsError::Stale)?;
        let (known, files) = self.0.outside.open(slot, target.clone()).await?;
        // From here on it has its state locked: whatever fails, it is there.
        self.put(slot, Arc::clone(&files));
        if known != target {
            let kept = self.0.change(|catalog| {
                catalog.resolve(slot, known);
                Ok(())
            });
            if let Err(error) = kept {
                tracing::warn!(%error, "what a drive turned out to be could not be kept");
            }
        }
        self.0.opening.remove(&slot);
        Ok(files)
    }

    /// The directory `ino`, where what is in it is.
    async fn directory(&self, ino: Ino) -> Result<Place<O::Drive>, VfsError> {
        let files = match self.0.owner(ino) {
            Owner::Made(node) => return Ok(Place::Made(node)),
            Owner::Drive(files) => files,
            Owner::Closed => self.open(ino.slot()).await?,
        };
        let Some(item) = files.shortcut(ino.node())? else { return Ok(Place::In(files, ino)) };
        let slot = self.behind(ino.slot(), &files, item).await?;
        let files = self.open(slot).await?;
        self.0.entrances.note(slot, ino);
        Ok(Place::In(files, Ino::new(slot, NodeId::ROOT)))
    }

    /// The slot behind a shortcut. The service is asked once and for all.
    async fn behind(&self, slot: u16, files: &Vfs<O::Drive>, item: ItemId) -> Result<u16, VfsError> {
        let known = self.0.catalog().link(slot, &item);
        if let Some(known) = known {
            return Ok(known);
        }
        let target = self.0.outside.follow(files.drive(), item.clone()).await?;
        self.0.change(|catalog| {
            let to = catalog.slot_for(target)?;
            catalog.set_link(slot, item, to);
            Ok(to)
        })
    }

    /// Asks the service for a listing if that was not done of late. Fails only where nothing is known.
    async fn ensure_read(&self, node: u32) -> Result<(), VfsError> {
        let known = self.0.catalog().made.get(&node).map(|made| made.read).ok_or(VfsError::Stale)?;
        if !known {
            let forest = self.clone();
            return to_the_end(async move { forest.refresh(node, None).await }).await;
        }
        if self.0.is_stale(node) {
            let forest = self.clone();
            tokio::spawn(async move {
                if let Err(error) = forest.refresh(node, Some(FRESH)).await {
                    tracing::info!(%error, "a listing could not be read again: what was known is shown");
                }
            });
        }
        Ok(())
    }

    /// Asks the service for a listing, unless that was done within `age`.
    pub(crate) async fn refresh(&self, node: u32, age: Option<Duration>) -> Result<(), VfsError> {
        let began = Instant::now();
        let gate = self.0.asking.entry(node).or_default().clone();
        let _one = gate.lock().await;
        let made = self.0.catalog().made.get(&node).map(|made| (made.listing.clone(), made.read));
        let (listing, read) = made.ok_or(VfsError::Stale)?;
        let asked = self.0.asked().get(&node).copied();
        // Who waited for another one's answer needs none of its own.
        let is_done = |at: Instant| at >= began || age.is_some_and(|age| at.elapsed() < age);
        if listing == Listing::Fixed || (read && asked.is_some_and(is_done)) {
            return Ok(());
        }
        let answer = self.0.outside.list(listing).await;
        // A service that cannot be reached is not asked at each look either.
        self.0.asked().insert(node, Instant::now());
        let found = answer?;
        let changed = self.0.change(|catalog| catalog.fill(node, found))?;
        let parent = Ino::new(0, NodeId(i64::from(node)));
        for name in changed {
            self.0.outside.forget(Invalidation::Entry { parent, name });
        }
        self.0.outside.forget(Invalidation::Inode { ino: parent, kept: Kept::Listing, within: None });
        Ok(())
    }

    /// A name in `dir` was changed through `through`: the kernel knows it by the others still as it was.
    fn tell_others(&self, dir: Ino, through: Ino, name: &std::ffi::OsStr) {
        if dir.node() != NodeId::ROOT {
            return;
        }
        for parent in self.0.entrances.of_root(dir.slot()) {
            if parent != through {
                self.0.outside.forget(Invalidation::Entry { parent, name: name.to_owned() });
                let kept = Kept::Listing;
                self.0.outside.forget(Invalidation::Inode { ino: parent, kept, within: None });
            }
        }
    }
}

/// Goes on where the caller, who may be killed or out of patience, does not wait any more.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, VfsError>> + Send + 'static,
) -> Result<T, VfsError> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(VfsError::Store(error.to_string())))
}

impl<O: Outside> Inner<O> {
    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<u32, Instant>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stale(&self, node: u32) -> bool {
        let fixed = self.catalog().made.get(&node).is_none_or(|made| made.listing == Listing::Fixed);
        !fixed && self.asked().get(&node).is_none_or(|at| at.elapsed() >= FRESH)
    }

    fn drive(&self, slot: u16) -> Option<Arc<Vfs<O::Drive>>> {
        self.drives.read().unwrap_or_else(PoisonError::into_inner).get(&slot).cloned()
    }

    fn owner(&self, ino: Ino) -> Owner<O::Drive> {
        if let Some(files) = self.drive(ino.slot()) {
            return Owner::Drive(files);
        }
        match u32::try_from(ino.node().0) {
            Ok(node) if ino.slot() == 0 && !self.catalog().made.is_empty() => Owner::Made(node),
            _ => Owner::Closed,
        }
    }

    /// Where what is in a directory of an open drive is: behind it, if it is a shortcut that was followed to an open
    /// drive.
    fn entered(
        &self,
        slot: u16,
        files: Arc<Vfs<O::Drive>>,
        node: NodeId,
    ) -> Result<Directory<O::Drive>, VfsError> {
        let Some(item) = files.shortcut(node)? else { return Ok((slot, files, node)) };
        let to = self.catalog().link(slot, &item).ok_or(VfsError::NotFound)?;
        Ok((to, self.drive(to).ok_or(VfsError::NotFound)?, NodeId::ROOT))
    }

    /// Changes the catalog; what is given out has been kept before.
    fn change<T>(&self, change: impl FnOnce(&mut Catalog) -> Result<T, VfsError>) -> Result<T, VfsError> {
        let mut catalog = self.catalog();
        let mut next = catalog.clone();
        let value = change(&mut next)?;
        if next != *catalog {
            self.outside.save(&next)?;
            *catalog = next;
        }
        Ok(value)
    }
}
