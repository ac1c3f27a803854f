//! The cache of clean remote content: opening, adopting, renaming and forgetting contents.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tracing::warn;

use super::backing::{self, Backing, Loaded, PAGE};
use super::blocking::Blocking;
use super::error::ContentError;
use super::fetch::Fetch;
use super::file::{CachedFile, Ident};
use super::key::{ContentKey, ItemHash};
use super::readahead::Limits;
use super::state::State;
use super::table::{CacheStats, CacheUsage, Shared};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::model::{ContentVersion, ItemId};

/// Settings of a cache.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Where it lives. May be deleted at any time.
    pub dir: PathBuf,
    /// The unit of presence, in bytes; a power of two.
    pub block: u64,
    /// The most it may take on the disk, in bytes.
    pub max_bytes: u64,
    /// What it leaves free on the file system, in bytes.
    pub min_free_bytes: u64,
    /// Transfers at once for one file.
    pub file_flights: usize,
    /// Read-ahead transfers at once, of all files.
    pub flights: usize,
    /// Bytes of read-ahead in memory or under way, of all files.
    pub ahead_bytes: u64,
    /// How long a transfer may make no progress.
    pub patience: Duration,
    /// Where waiting for the disk happens.
    pub blocking: Blocking,
}

impl CacheConfig {
    /// The defaults, in `dir`: 10 GiB, 1 GiB left free.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            block: 128 << 10,
            max_bytes: 10 << 30,
            min_free_bytes: 1 << 30,
            file_flights: 8,
            flights: 16,
            ahead_bytes: 256 << 20,
            patience: Duration::from_secs(30),
            blocking: Blocking::Auto,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits { block: self.block, ..Limits::default() }
    }
}

/// The directory of the files as this version writes them; another format gets another directory.
const FORMAT_DIR: &str = "v1";

/// The cache of one drive's clean content. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cache {
    shared: Arc<Shared>,
}

impl Cache {
    /// Opens or makes the cache in `config.dir`.
    ///
    /// What is there is looked through when room is first needed, or by [`Cache::scan`].
    pub fn open(
        mut config: CacheConfig,
        disk: Disk,
        clock: Arc<dyn Clock>,
        fetch: Arc<dyn Fetch>,
    ) -> io::Result<Self> {
        if !config.block.is_power_of_two() || config.block < PAGE || config.block > 1 << 30 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the block size is no power of two in range",
            ));
        }
        config.dir = config.dir.join(FORMAT_DIR);
        disk.create_dir_all("cache.mkdir", &config.dir)?;
        Ok(Self { shared: Arc::new(Shared::new(config, disk, clock, fetch)) })
    }

    /// Opens a content, whether or not anything of it is on the disk. Makes no file and no request.
    ///
    /// Trouble with the cache's disk is no error: the content is then read without it. The result keeps the
    /// content from eviction.
    pub fn file(&self, key: &ContentKey) -> Arc<CachedFile> {
        let file = self.opened(key);
        if file.is_unverified() {
            // The process that completed it ended before it had compared it. Readers need not wait for that.
            let unverified = file.clone();
            drop(self.shared.config.blocking.start(move || unverified.verify_now()));
        }
        file
    }

    fn opened(&self, key: &ContentKey) -> Arc<CachedFile> {
        let name = key.name();
        let mut table = self.shared.table();
        if let Some(file) = table.open.get(&name).and_then(Weak::upgrade) {
            drop(table);
            file.revalidate();
            return file;
        }
        let blocks = key.size.div_ceil(self.shared.config.block);
        let paths = name.paths(self.shared.root());
        let loaded = Backing::load(&self.shared.disk, &paths, key, self.shared.config.block);
        let loaded = loaded.unwrap_or_else(|error| {
            warn!(%error, "cached content cannot be opened and is fetched again");
            None
        });
        if loaded.is_none() {
            table.forget(&name);
            if let Err(error) = backing::remove(&self.shared.disk, &paths) {
                warn!(%error, "an unusable cached file cannot be removed");
            }
        }
        let ident = Ident { key: Arc::new(key.clone()), name };
        let mut state = State::new(blocks, loaded);
        state.is_adopted |= table.is_adopted(&name);
        state.is_lent = table.is_lent(&name);
        if let Some(checked) = table.checked.pop(&name) {
            state.restore(&checked);
        }
        let file = Arc::new(CachedFile::new(self.shared.clone(), ident, state));
        self.shared.opened(&mut table, name, &file);
        file
    }

    /// Makes the finished file at `path` the complete content of `key`; `path` stays.
    ///
    /// Links it where cache and `path` share a file system, else copies. Its bytes must never change again,
    /// under whatever name. Replaces what the cache had of `key`, unless that is open. Waits for the disk.
    /// `StorageFull` if the cache has no room, `InvalidInput` if the length is not that of the key, `InvalidData`
    /// if the bytes do not have its hash: the service stored something else.
    pub fn adopt(&self, key: &ContentKey, path: &Path) -> io::Result<Arc<CachedFile>> {
        let shared = &self.shared;
        let stat = shared.disk.stat(path)?;
        if stat.len != key.size || !stat.is_file {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file has another length"));
        }
        let name = key.name();
        let paths = name.paths(shared.root());
        if key.size == 0 || shared.table().is_open(&name) {
            return Ok(self.file(key));
        }
        let bytes = stat.allocated + self.map_bytes(key.size);
        let promise = shared.reserve(bytes).ok_or(io::ErrorKind::StorageFull)?;
        if let Some(dir) = paths.data.parent() {
            shared.disk.create_dir_all("cache.mkdir", dir)?;
        }
        let made = self.take_in(key, path);
        if made.is_err() {
            backing::remove(&shared.disk, &paths)?;
        }
        drop(made?);
        shared.table().adopt(name);
        let file = self.opened(key);
        file.adopted();
        promise.keep(&file);
        match file.verify_now() {
            Ok(()) => Ok(file),
            Err(ContentError::Disk(error)) => Err(io::Error::new(error.kind(), error)),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    fn take_in(&self, key: &ContentKey, path: &Path) -> io::Result<Backing> {
        let shared = &self.shared;
        let paths = key.name().paths(shared.root());
        shared.table().forget(&key.name());
        backing::remove(&shared.disk, &paths)?;
        match shared.disk.link("cache.adopt", path, &paths.data) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::StorageFull) => {
                shared.disk.reflink_or_copy("cache.adopt", path, &paths.data)?;
            }
            other => other?,
        }
        Backing::describe(&shared.disk, &paths, key, shared.config.block)
    }

    /// Forgets all versions of an item. What is open can be read until its last holder lets go.
    pub fn forget(&self, item: &ItemId) {
        for name in self.shared.names_of(ItemHash::of(item)) {
            self.shared.forget(name);
        }
    }

    /// Forgets all versions of an item but one: what a new version leaves behind.
    pub fn forget_others(&self, keep: &ContentKey) {
        let kept = keep.name();
        for name in self.shared.names_of(kept.item) {
            if name != kept {
                self.shared.forget(name);
            }
        }
    }

    /// Only the tags of an item moved: keeps its blocks, open files included, under the new version.
    ///
    /// Does nothing if the versions do not show the same content ([`ContentVersion::keeps_blocks_of`]).
    pub fn rekey(
        &self,
        item: &ItemId,
        size: u64,
        old: &ContentVersion,
        new: &ContentVersion,
    ) -> io::Result<()> {
        if !old.keeps_blocks_of(new) {
            return Ok(());
        }
        let key =
            |version: &ContentVersion| ContentKey { item: item.clone(), version: version.clone(), size };
        self.rename(&key(old), &key(new))
    }

    /// What was known as `old` is `new` from here on: keeps its blocks, open files included, and its pin. The
    /// caller knows that both have the same bytes.
    pub fn rename(&self, old: &ContentKey, new: &ContentKey) -> io::Result<()> {
        let (from, to) = (old.name(), new.name());
        let shared = &self.shared;
        // Declared before the guard, so that it ends after it: the end of a file asks for the table.
        let open;
        let mut table = shared.table();
        if table.is_open(&to) && from != to {
            return Ok(());
        }
        table.pin_as(from.item, to.item);
        let (old_paths, new_paths) = (from.paths(shared.root()), to.paths(shared.root()));
        open = table.open.get(&from).and_then(Weak::upgrade);
        let loaded = Backing::load(&shared.disk, &old_paths, old, shared.config.block)?;
        if let Some(Loaded { backing, .. }) = loaded {
            backing.rename_key(new)?;
            if let Some(dir) = new_paths.data.parent().filter(|_| from.item != to.item) {
                shared.disk.create_dir_all("cache.mkdir", dir)?;
            }
            if from != to {
                shared.disk.rename("cache.rekey", &old_paths.data, &new_paths.data)?;
                shared.disk.rename("cache.rekey", &old_paths.map, &new_paths.map)?;
            }
        }
        if from != to {
            table.rename(&from, to);
        }
        if let Some(file) = &open {
            file.set_ident(Ident { key: Arc::new(new.clone()), name: to });
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn config(&self) -> &CacheConfig {
        &self.shared.config
    }

    /// Nothing goes before it was said what is pinned ([`Cache::set_pinned`]).
    pub fn await_pins(&self) {
        self.shared.table().awaits_pins = true;
    }

    /// These items' contents are kept from eviction from here on, and no others.
    pub fn set_pinned<'a>(&self, items: impl IntoIterator<Item = &'a ItemId>) {
        let pinned = items.into_iter().map(ItemHash::of).collect();
        let mut table = self.shared.table();
        table.pinned = pinned;
        table.awaits_pins = false;
    }

    /// Bytes that a content takes on the disk when it is complete, its map included.
    pub fn cost(&self, size: u64) -> u64 {
        if size == 0 { 0 } else { size.div_ceil(PAGE) * PAGE + self.map_bytes(size) }
    }

    /// Bytes on the disk of the map of a content of `size` bytes: a header, and 8 bytes a block.
    fn map_bytes(&self, size: u64) -> u64 {
        PAGE + (size.div_ceil(self.shared.config.block) * 8).div_ceil(PAGE) * PAGE
    }

    /// Bytes on the disk of this content; too low before [`Cache::scan`].
    pub fn held(&self, key: &ContentKey) -> u64 {
        self.shared.table().held(&key.name())
    }

    /// The most that it may hold as the disk is now, in bytes: its bound, or what the floor of free space leaves.
    pub fn capacity(&self) -> io::Result<u64> {
        self.shared.capacity()
    }

    /// Makes it as small as its bounds demand: they may be tighter than when it was filled, and others fill the disk
    /// too. Waits for the disk.
    pub fn trim(&self) -> io::Result<()> {
        self.shared.trim_to_bounds()
    }

    /// Looks through the directory if that was not done yet. Waits for the disk.
    pub fn scan(&self) -> io::Result<()> {
        self.shared.scan()
    }

    /// What it takes on the disk; too low before [`Cache::scan`].
    pub fn usage(&self) -> CacheUsage {
        self.shared.usage()
    }

    /// What happened since it was opened.
    pub fn stats(&self) -> CacheStats {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let stats = &self.shared.stats;
        CacheStats {
            hits: count(&stats.hits),
            misses: count(&stats.misses),
            bytes_fetched: count(&stats.bytes_fetched),
            damaged: count(&stats.damaged),
            bytes_evicted: count(&stats.bytes_evicted),
        }
    }
}
