//! What the cache holds: which contents are open, the order of last use, the bytes, and the room for more.

use std::collections::{HashMap, HashSet};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lru::LruCache;
use tracing::{debug, warn};

use super::backing;
use super::budget::Budget;
use super::cache::CacheConfig;
use super::evict::{self, Candidate, Room, Victim};
use super::fetch::Fetch;
use super::file::CachedFile;
use super::key::{ItemHash, Name};
use super::state::Checked;
use crate::clock::Clock;
use crate::disk::Disk;

/// The part of the cache that its files share.
pub(super) struct Shared {
    pub config: CacheConfig,
    pub disk: Disk,
    pub clock: Arc<dyn Clock>,
    pub fetch: Arc<dyn Fetch>,
    pub budget: Arc<Budget>,
    pub stats: Counters,
    table: Mutex<Table>,
    /// Held over a whole reservation: one thread at a time makes room.
    making_room: Mutex<()>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Shared({})", self.config.dir.display())
    }
}

/// Invariant: `used` is the sum of the bytes in `lru`, once `scanned`.
pub(super) struct Table {
    pub open: HashMap<Name, Weak<CachedFile>>,
    /// Bytes on the disk, by content; least recently used first to go.
    lru: LruCache<Name, u64>,
    used: u64,
    promised: u64,
    pub pinned: HashSet<ItemHash>,
    /// It is not known yet what is pinned.
    pub awaits_pins: bool,
    /// Contents whose files this process took over: others may still have them open, so they go whole.
    adopted: HashSet<Name>,
    /// Contents whose files the kernel may have mapped: they go whole, since a map of them stays readable then.
    lent: HashSet<Name>,
    /// What was checked of contents that are closed, so that opening them again does not check it again.
    pub checked: LruCache<Name, Checked>,
    scanned: bool,
    trashed: u64,
}

/// Closed contents of which it is remembered what was checked.
const CHECKED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub bytes_fetched: AtomicU64,
    pub damaged: AtomicU64,
    pub bytes_evicted: AtomicU64,
}

/// Counts since the cache was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Reads answered from the disk.
    pub hits: u64,
    /// Reads that waited for the network.
    pub misses: u64,
    /// Bytes that came over the network.
    pub bytes_fetched: u64,
    /// Complete contents that did not have the service's hash.
    pub damaged: u64,
    /// Bytes that went to make room.
    pub bytes_evicted: u64,
}

/// What the cache takes on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUsage {
    /// Bytes, maps included.
    pub bytes: u64,
    /// Contents.
    pub files: u64,
    /// The bound.
    pub max_bytes: u64,
}

/// Room that a write may use; given back if it is not kept.
pub(super) struct Promise<'a> {
    shared: &'a Shared,
    bytes: u64,
}

impl Shared {
    pub fn new(config: CacheConfig, disk: Disk, clock: Arc<dyn Clock>, fetch: Arc<dyn Fetch>) -> Self {
        let table = Table {
            open: HashMap::new(),
            lru: LruCache::unbounded(),
            used: 0,
            promised: 0,
            pinned: HashSet::new(),
            awaits_pins: false,
            adopted: HashSet::new(),
            lent: HashSet::new(),
            checked: LruCache::new(CHECKED),
            scanned: false,
            trashed: 0,
        };
        Self {
            budget: Budget::new(config.flights as u64, config.ahead_bytes),
            config,
            disk,
            clock,
            fetch,
            stats: Counters::default(),
            table: Mutex::new(table),
            making_room: Mutex::default(),
        }
    }

    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no code panics while it holds the table of the cache")
    }

    /// The directory of this format.
    pub fn root(&self) -> &Path {
        &self.config.dir
    }

    fn trash(&self) -> PathBuf {
        self.root().join("trash")
    }

    /// Room for `ask` more bytes, made by eviction where needed. May wait for the disk.
    pub fn reserve(&self, ask: u64) -> Option<Promise<'_>> {
        let _one_at_a_time = self.making_room.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.scan() {
            warn!(%error, "the cache directory cannot be read");
            return None;
        }
        for _ in 0..3 {
            let free = self.free_bytes().ok()?;
            let victims = {
                let mut table = self.table();
                let need = table.room(&self.config, free).shortfall(ask);
                if need == 0 {
                    table.promised += ask;
                    return Some(Promise { shared: self, bytes: ask });
                }
                table.choose(need)?
            };
            victims.into_iter().for_each(|victim| self.take_back(victim));
        }
        None
    }

    /// Takes away what exceeds the bounds, the oldest first, as far as it may go.
    pub fn trim_to_bounds(&self) -> io::Result<()> {
        let _one_at_a_time = self.making_room.lock().unwrap_or_else(PoisonError::into_inner);
        self.scan()?;
        let free = self.free_bytes()?;
        let victims = {
            let table = self.table();
            let need = table.room(&self.config, free).shortfall(0);
            table.choose(need).unwrap_or_else(|| table.all_that_may_go())
        };
        victims.into_iter().for_each(|victim| self.take_back(victim));
        Ok(())
    }

    /// See [`super::Cache::capacity`].
    pub fn capacity(&self) -> io::Result<u64> {
        self.scan()?;
        let free = self.free_bytes()?;
        Ok(self.table().room(&self.config, free).capacity())
    }

    fn take_back(&self, victim: Victim<Name>) {
        match victim {
            Victim::Whole(name) => self.evict(name),
            Victim::Tail(name, bytes) => self.trim(name, bytes),
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        match self.disk.free_bytes(self.root()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.disk.create_dir_all("cache.mkdir", &self.trash())?;
                self.disk.free_bytes(self.root())
            }
            other => other,
        }
    }

    /// Takes a content away if it is neither open nor pinned.
    fn evict(&self, name: Name) {
        let (bytes, trashed) = {
            let mut table = self.table();
            if table.is_kept(&name) {
                return;
            }
            (table.forget(&name), self.to_trash(&mut table, name))
        };
        self.stats.bytes_evicted.fetch_add(bytes, Ordering::Relaxed);
        trashed.iter().for_each(|path| self.unlink(path));
    }

    /// Moves the files of `name` out of the way, which is quick; unlinking a large file is not.
    fn to_trash(&self, table: &mut Table, name: Name) -> Vec<PathBuf> {
        let paths = name.paths(self.root());
        let mut moved = Vec::new();
        for path in [paths.map, paths.data] {
            table.trashed += 1;
            let target = self.trash().join(table.trashed.to_string());
            match self.disk.rename("cache.trash", &path, &target) {
                Ok(()) => moved.push(target),
                Err(_) => moved.push(path),
            }
        }
        moved
    }

    fn unlink(&self, path: &Path) {
        if let Err(error) = self.disk.unlink("cache.unlink", path) {
            warn!(%error, "a cached file cannot be removed");
        }
    }

    /// Takes the last `bytes` of a large content away, which counts as open meanwhile.
    fn trim(&self, name: Name, bytes: u64) {
        let paths = name.paths(self.root());
        let punch = |shared: &Self| -> io::Result<u64> {
            let Some(key) = backing::key_of(&shared.disk, &paths.map) else { return Ok(0) };
            let loaded = backing::Backing::load(&shared.disk, &paths, &key, shared.config.block)?;
            let Some(backing::Loaded { backing, present, .. }) = loaded else { return Ok(0) };
            if backing.is_shared()? {
                return Ok(0);
            }
            let wanted = bytes.div_ceil(shared.config.block);
            let mut left = wanted;
            for (first, end) in present.runs(0, present.len(), true).into_iter().rev() {
                let first = first.max(end.saturating_sub(left));
                backing.erase(first, end)?;
                left -= end - first;
                if left == 0 {
                    break;
                }
            }
            Ok((wanted - left) * shared.config.block)
        };
        // The table stays locked: nobody opens the file while a part of it goes.
        let mut table = self.table();
        if table.is_kept(&name) {
            return;
        }
        let whole = table.is_adopted(&name) || table.is_lent(&name);
        let punched = if whole { Ok(0) } else { punch(self) };
        match punched {
            Ok(0) | Err(_) => {
                drop(table);
                self.evict(name);
            }
            Ok(gone) => {
                table.shrink(&name, gone);
                self.stats.bytes_evicted.fetch_add(gone, Ordering::Relaxed);
            }
        }
    }

    /// Learns what is on the disk, once. May take seconds for a million files.
    pub fn scan(&self) -> io::Result<()> {
        if self.table().scanned {
            return Ok(());
        }
        self.disk.create_dir_all("cache.mkdir", &self.trash())?;
        for entry in self.disk.list(&self.trash())? {
            self.unlink(&self.trash().join(entry));
        }
        let mut found: HashMap<Name, (i128, u64, u8)> = HashMap::new();
        for shard in self.disk.list(self.root())? {
            let dir = self.root().join(shard);
            let Ok(entries) = self.disk.list(&dir) else { continue };
            for (name, is_data, path) in entries.iter().filter_map(|entry| {
                let (name, is_data) = Name::parse(entry.to_str()?)?;
                Some((name, is_data, dir.join(entry)))
            }) {
                let Ok(stat) = self.disk.stat(&path) else { continue };
                let known = found.entry(name).or_default();
                known.1 += stat.allocated;
                known.2 |= if is_data { 1 } else { 2 };
                if !is_data {
                    known.0 = stat.mtime_nanos;
                }
            }
        }
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by_key(|(_, (used_at, _, _))| *used_at);
        let mut table = self.table();
        for (name, (_, bytes, parts)) in found {
            if parts == 3 || table.is_open(&name) {
                table.grow(name, bytes);
            } else {
                let paths = name.paths(self.root());
                self.unlink(&paths.map);
                self.unlink(&paths.data);
            }
        }
        table.scanned = true;
        debug!(bytes = table.used, files = table.lru.len(), "the cache was looked through");
        Ok(())
    }

    /// A content was opened.
    pub fn opened(&self, table: &mut Table, name: Name, file: &Arc<CachedFile>) {
        table.open.insert(name, Arc::downgrade(file));
        table.lru.promote(&name);
    }

    /// The last holder of a content let go.
    pub fn closed(&self, file: &CachedFile) {
        let name = file.ident().name;
        let state = file.read_state();
        if state.is_detached {
            return;
        }
        if let Some(backing) = state.backing.as_ref().filter(|_| !state.doomed)
            && let Err(error) = backing.map().set_modified("cache.touch", self.clock.wall())
        {
            debug!(%error, "the time of last use was not noted");
        }
        let checked = state.checked();
        let trashed = {
            let mut table = self.table();
            if table.is_open(&name) {
                return;
            }
            table.open.remove(&name);
            if state.doomed {
                table.forget(&name);
                self.to_trash(&mut table, name)
            } else {
                table.lru.promote(&name);
                if let Some(checked) = checked {
                    table.checked.put(name, checked);
                }
                Vec::new()
            }
        };
        trashed.iter().for_each(|path| self.unlink(path));
    }

    /// The files of a content that is open are no longer the cache's.
    pub fn detached(&self, file: &CachedFile) {
        let name = file.ident().name;
        let trashed = {
            let mut table = self.table();
            table.open.remove(&name);
            table.forget(&name);
            self.to_trash(&mut table, name)
        };
        trashed.iter().for_each(|path| self.unlink(path));
    }

    /// A content lost `bytes`.
    pub fn shrunk(&self, file: &CachedFile, bytes: u64) {
        let mut table = self.table();
        let name = file.ident().name;
        table.shrink(&name, bytes);
    }

    /// The files of a content are gone.
    pub fn vanished(&self, file: &CachedFile) {
        let mut table = self.table();
        let name = file.ident().name;
        table.forget(&name);
    }

    /// Forgets a content that is not open and takes its files away; marks one that is open.
    pub fn forget(&self, name: Name) {
        let trashed = {
            let mut table = self.table();
            if let Some(file) = table.open.get(&name).and_then(Weak::upgrade) {
                drop(table);
                file.write_state().doomed = true;
                return;
            }
            table.forget(&name);
            self.to_trash(&mut table, name)
        };
        trashed.iter().for_each(|path| self.unlink(path));
    }

    /// The contents of an item that are on the disk or open.
    pub fn names_of(&self, item: ItemHash) -> Vec<Name> {
        let listed = self.disk.list(&item.shard(self.root())).unwrap_or_default();
        let on_disk = listed.iter().filter_map(|entry| Some(Name::parse(entry.to_str()?)?.0));
        let mut names: HashSet<Name> = on_disk.filter(|name| name.item == item).collect();
        names.extend(self.table().open.keys().filter(|name| name.item == item));
        names.into_iter().collect()
    }

    pub fn usage(&self) -> CacheUsage {
        let table = self.table();
        CacheUsage { bytes: table.used, files: table.lru.len() as u64, max_bytes: self.config.max_bytes }
    }
}

impl Table {
    fn room(&self, config: &CacheConfig, free: u64) -> Room {
        Room {
            used: self.used.saturating_add(self.promised),
            max: config.max_bytes,
            free: free.saturating_sub(self.promised),
            min_free: config.min_free_bytes,
        }
    }

    fn choose(&self, need: u64) -> Option<Vec<Victim<Name>>> {
        let oldest_first = self.lru.iter().rev();
        evict::choose(
            oldest_first.map(|(name, &bytes)| Candidate { key: *name, bytes, keep: self.is_kept(name) }),
            need,
        )
    }

    fn all_that_may_go(&self) -> Vec<Victim<Name>> {
        let may_go = self.lru.iter().filter(|(name, _)| !self.is_kept(name));
        may_go.map(|(name, _)| Victim::Whole(*name)).collect()
    }

    /// Bytes on the disk of a content.
    pub fn held(&self, name: &Name) -> u64 {
        self.lru.peek(name).copied().unwrap_or(0)
    }

    pub fn is_open(&self, name: &Name) -> bool {
        self.open.get(name).is_some_and(|file| file.strong_count() > 0)
    }

    fn is_kept(&self, name: &Name) -> bool {
        self.awaits_pins || self.is_open(name) || self.pinned.contains(&name.item)
    }

    /// One item's pin holds for another id of it.
    pub fn pin_as(&mut self, from: ItemHash, to: ItemHash) {
        if self.pinned.contains(&from) {
            self.pinned.insert(to);
        }
    }

    pub fn adopt(&mut self, name: Name) {
        self.adopted.insert(name);
    }

    pub fn lend(&mut self, name: Name) {
        self.lent.insert(name);
    }

    pub fn is_lent(&self, name: &Name) -> bool {
        self.lent.contains(name)
    }

    pub fn is_adopted(&self, name: &Name) -> bool {
        self.adopted.contains(name)
    }

    pub fn grow(&mut self, name: Name, bytes: u64) {
        self.used += bytes;
        *self.lru.get_or_insert_mut(name, || 0) += bytes;
    }

    fn shrink(&mut self, name: &Name, bytes: u64) {
        if let Some(held) = self.lru.peek_mut(name) {
            let bytes = bytes.min(*held);
            *held -= bytes;
            self.used -= bytes;
        }
    }

    /// Takes a content out of the books; tells its bytes.
    pub fn forget(&mut self, name: &Name) -> u64 {
        self.adopted.remove(name);
        self.lent.remove(name);
        self.checked.pop(name);
        let bytes = self.lru.pop(name).unwrap_or(0);
        self.used -= bytes;
        bytes
    }

    /// Carries the bytes of one name over to another.
    pub fn rename(&mut self, old: &Name, new: Name) {
        let (adopted, lent) = (self.is_adopted(old), self.is_lent(old));
        let bytes = self.forget(old);
        self.forget(&new);
        self.grow(new, bytes);
        if adopted {
            self.adopt(new);
        }
        if lent {
            self.lend(new);
        }
        if let Some(file) = self.open.remove(old) {
            self.open.insert(new, file);
        }
    }
}

impl Promise<'_> {
    /// The bytes were written: they count as held by `file` from here on.
    pub fn keep(mut self, file: &CachedFile) {
        let mut table = self.shared.table();
        let name = file.ident().name;
        table.promised -= self.bytes;
        table.grow(name, self.bytes);
        self.bytes = 0;
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.shared.table().promised -= self.bytes;
        }
    }
}
