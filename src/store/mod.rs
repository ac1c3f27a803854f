//! The durable truth of one drive: nodes, views, tokens, sessions, in one SQLite database.
//!
//! Invariants:
//! - A node is visible exactly where its local view, or else its remote view, puts it; visible names are
//!   unique in their folder.
//! - `base` exists exactly when `local` changes an item that existed remotely when the change began.
//! - All changes go through [`Store::write`]: one transaction, one writer at a time. Readers have
//!   connections of their own and see whole transactions only.
//!
//! It knows nothing of the network, of content and of the kernel.

mod ballast;
mod cache;
mod conflicts;
mod epochs;
mod items;
mod kept;
mod lock;
mod log;
mod pins;
mod rows;
mod salvage;
mod schema;
mod tx;
mod types;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use crate::disk::Disk;
use crate::model::{ItemId, NodeId};

pub use conflicts::{Conflict, ConflictCause};
pub use kept::Kept;
pub use lock::StateLock;
pub use pins::Pinned;
pub use salvage::{Salvaged, StoreState, Unsent, salvage};
pub use tx::{Committed, Tx, canonical};
pub use types::*;
pub use walk::WalkStep;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the state directory.
    #[error("the drive's state is in use by process {pid}")]
    InUse {
        /// Who holds it.
        pid: u32,
    },
    /// The database was written by a newer version of this program.
    #[error("the store has format {found}, this program knows up to {known}")]
    Newer {
        /// Format found.
        found: i64,
        /// Newest format known.
        known: i64,
    },
    /// The file is a database, but not ours.
    #[error("the file is not an onedrivefs store")]
    Foreign,
    /// The state directory belongs to another drive.
    #[error("the state directory belongs to drive {found}")]
    OtherDrive {
        /// The drive it belongs to.
        found: String,
    },
    /// SQLite or the disk failed.
    #[error("database: {0}")]
    Database(#[from] rusqlite::Error),
    /// A file of the state directory could not be used.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A row that must exist does not: the caller's view is out of date.
    #[error("node {0} is not in the store")]
    NoNode(NodeId),
}

impl StoreError {
    /// The disk has no room for the change.
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Self::Database(error) => {
                let extended = error.sqlite_error().map(|error| error.extended_code);
                error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
                    || extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
            }
            Self::Io { source, .. } => crate::disk::is_out_of_space(source),
            _ => false,
        }
    }
}

/// How much a commit must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the program (the log is written, not synced).
    Process,
    /// A power cut (the log is synced before the commit returns).
    Power,
}

/// The store of one drive. Share it by `Arc`.
pub struct Store {
    writer: Mutex<Connection>,
    readers: Vec<Mutex<Connection>>,
    inspector: Mutex<Connection>,
    next_reader: AtomicU64,
    sequence: AtomicU64,
    cache: cache::Cache,
    epochs: epochs::Epochs,
    log: log::Log,
    items: items::Index,
    /// Room that is given up where a commit would find none.
    ballast: OnceLock<ballast::Ballast>,
    disk: Disk,
    path: PathBuf,
    /// Content that is listed as to be unlinked, and that somebody still needs.
    kept: kept::KeptContents,
    /// Something is pinned.
    has_pins: AtomicBool,
    /// Counts the commits that changed something.
    commits: tokio::sync::watch::Sender<u64>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

const READERS: usize = 4;
/// Pages in memory of the connection that writes, in KiB.
const WRITER_KIB: i64 = 8192;
/// Pages in memory of each that reads. What is read again is in our own memory, or in the kernel's.
const READER_KIB: i64 = 1024;
/// Pages of 4 KiB in the log at which it is moved into the database.
const LOG_PAGES: i64 = 4000;

impl Store {
    /// Opens or makes the database `store.sqlite` in `dir`, migrating an older format.
    ///
    /// The caller holds the [`StateLock`] of `dir`.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_on(dir, Disk::new())
    }

    /// As [`Store::open`], where each commit and each sync of the log is a step of `disk`.
    pub fn open_on(dir: &Path, disk: Disk) -> Result<Self, StoreError> {
        let path = dir.join("store.sqlite");
        let mut writer = Connection::open(&path)?;
        schema::migrate(&mut writer)?;
        prepare(&writer, WRITER_KIB)?;
        // More of the log at a time: pages that many items share (the index of their ids) are moved once.
        writer.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reader = || {
            let reader = Connection::open_with_flags(&path, flags)?;
            prepare(&reader, READER_KIB)?;
            reader.pragma_update(None, "query_only", true)?;
            Ok::<_, StoreError>(Mutex::new(reader))
        };
        let readers = (0..READERS).map(|_| reader()).collect::<Result<_, StoreError>>()?;
        let inspector = reader()?;
        let sequence = writer
            .query_row("SELECT value FROM meta WHERE key = 'sequence'", [], |row| row.get::<_, String>(0))
            .optional()?
            .and_then(|text| text.parse().ok())
            .unwrap_or(1);
        let items = items::Index::load(&writer)?;
        let store = Self {
            writer: Mutex::new(writer),
            readers,
            inspector,
            next_reader: AtomicU64::new(0),
            sequence: AtomicU64::new(sequence),
            cache: cache::Cache::new(cache::DEFAULT_BYTES),
            epochs: epochs::Epochs::new(),
            log: log::Log::open(&disk, &path)?,
            items,
            ballast: OnceLock::new(),
            disk,
            path,
            kept: kept::KeptContents::default(),
            has_pins: AtomicBool::new(false),
            commits: tokio::sync::watch::channel(0).0,
        };
        store.write(Durability::Process, |tx| tx.ensure_root())?;
        store.has_pins.store(store.inspect(|tx| tx.has_pins())?, Ordering::Release);
        Ok(store)
    }

    /// Runs `change` in one transaction; an error rolls all of it back.
    ///
    /// On success the caches above forget what it touched, and the caller gets the visible changes.
    pub fn write<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.write_changes(durability, change).map(|committed| committed.value)
    }

    /// As [`Store::write`], and tells what changed in the visible tree.
    pub fn write_changes<T, E: From<StoreError>>(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut Tx<'_>) -> Result<T, E>,
    ) -> Result<Committed<T>, E> {
        if let Some(ballast) = self.ballast.get() {
            ballast.make_room();
        }
        let committed = self.transact(change)?;
        if durability == Durability::Power {
            self.log.sync(&self.path, &self.writer)?;
        }
        Ok(committed)
    }

    fn transact<T, E: From<StoreError>>(
        &self,
        change: impl FnOnce(&mut Tx<'_>) -> Result<T, E>,
    ) -> Result<Committed<T>, E> {
        let mut writer = lock(&self.writer);
        let transaction = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| self.failed(error.into()))?;
        let mut tx = Tx::new(transaction, self.items.recent(), self.sequence.load(Ordering::Acquire));
        let value = change(&mut tx)?;
        let pins = if tx.pins_changed { Some(tx.has_pins()?) } else { None };
        let before = self.disk.before_commit("store.commit", &self.path);
        before.map_err(|source| self.failed(self.io(source)))?;
        self.epochs.turn(tx.changes());
        let done = tx.commit().map_err(|error| self.failed(error))?;
        if done.merged {
            self.items.merged();
        }
        self.epochs.turn(&done.changes);
        self.sequence.store(done.sequence, Ordering::Release);
        self.cache.committed(done.coarse, &done.touched, &done.changes);
        if let Some(pins) = pins {
            self.has_pins.store(pins, Ordering::Release);
        }
        if pins.is_some() || !done.changes.is_empty() {
            self.commits.send_modify(|count| *count += 1);
        }
        Ok(Committed { value, changes: done.changes })
    }

    /// The next commit finds room, if that was what this one lacked.
    fn failed(&self, error: StoreError) -> StoreError {
        if let (true, Some(ballast)) = (error.is_out_of_space(), self.ballast.get()) {
            ballast.release();
        }
        error
    }

    /// Bounds the memory of nodes and names to so many bytes. Nothing but speed depends on it.
    pub fn limit_memory(&self, bytes: u64) {
        self.cache.limit(bytes);
    }

    /// Keeps some room of the disk for commits from here on.
    pub fn keep_ballast(&self) {
        let path = self.path.with_file_name("ballast");
        self.ballast.get_or_init(|| ballast::Ballast::new(path, self.disk.clone()));
    }

    /// Looks at several things as of one moment, beside the writer: however long it takes, no change waits.
    /// `look` cannot change anything.
    pub fn inspect<T>(
        &self,
        look: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // Before the snapshot is taken, so that what it holds is at least as new as the number says.
        let sequence = self.sequence.load(Ordering::Acquire);
        let inspector = lock(&self.inspector);
        let (transaction, recent) = self.items.as_of(|| {
            let transaction =
                rusqlite::Transaction::new_unchecked(&inspector, TransactionBehavior::Deferred)?;
            // The moment is that of the first thing that is read.
            transaction.prepare_cached("SELECT 1 FROM meta")?.exists([])?;
            Ok(transaction)
        })?;
        look(&mut Tx::new(transaction, recent, sequence))
    }

    /// The local sequence number: grows with every change; a request notes it when it is sent.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    /// When the file's content last changed, as a number that is another one then; 0: never since this store was opened.
    ///
    /// Read before and after a node was read, and equal, it is that of the content which the node describes.
    pub fn content_epoch(&self, id: NodeId) -> u64 {
        self.epochs.of(id)
    }

    /// The node, if its row exists.
    pub fn node(&self, id: NodeId) -> Result<Option<Arc<Node>>, StoreError> {
        let generation = match self.cache.node(id) {
            Ok(node) => return Ok(Some(node)),
            Err(generation) => generation,
        };
        let found = self.reader(|db| {
            db.prepare_cached(&format!("{} WHERE n.id = ?1", rows::NODE))?
                .query_row([id.0], rows::node)
                .optional()
        })?;
        let Some(node) = found.map(Arc::new) else { return Ok(None) };
        self.cache.fill_node(generation, &node);
        Ok(Some(node))
    }

    /// The visible child of exactly this name.
    pub fn child(&self, parent: NodeId, name: &str) -> Result<Option<Arc<Node>>, StoreError> {
        let id = match self.cache.name(parent, name) {
            Ok(id) => id,
            Err(generation) => {
                let id = self.reader(|db| tx::child_id(db, parent, name))?;
                self.cache.fill_name(generation, parent, name, id);
                id
            }
        };
        id.map_or(Ok(None), |id| self.node(id))
    }

    /// The visible child of this name, or else the one whose name is the same to the service.
    pub fn child_as_folded(&self, parent: NodeId, name: &str) -> Result<Option<Arc<Node>>, StoreError> {
        if let Some(exact) = self.child(parent, name)? {
            return Ok(Some(exact));
        }
        let id = self.reader(|db| tx::folded_id(db, parent, name, None))?;
        id.map_or(Ok(None), |id| self.node(id))
    }

    /// Visible children with a row above `after`, in row order, at most `limit`.
    pub fn children_after(
        &self,
        parent: NodeId,
        after: NodeId,
        limit: usize,
    ) -> Result<Vec<Arc<Node>>, StoreError> {
        let generation = self.cache.generation();
        let nodes = self.reader(|db| {
            db.prepare_cached(&format!("{} {}", rows::NODE, rows::CHILDREN_AFTER))?
                .query_map(params![parent.0, after.0, limit as i64], rows::node)?
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let nodes: Vec<Arc<Node>> = nodes.into_iter().map(Arc::new).collect();
        nodes.iter().for_each(|node| self.cache.fill_node(generation, node));
        Ok(nodes)
    }

    /// The node that holds this item.
    pub fn by_item(&self, item: &ItemId) -> Result<Option<Arc<Node>>, StoreError> {
        // Looked for there first: what is merged meanwhile is in the database.
        let recent = self.items.recent();
        let id = self.reader(|db| recent.find(db, item))?;
        id.map_or(Ok(None), |id| self.node(id))
    }

    /// Every node with something unsent, unlinked or local-only, in row order.
    pub fn dirty(&self) -> Result<Vec<Node>, StoreError> {
        self.reader(|db| {
            db.prepare_cached(&format!("{} {}", rows::NODE, rows::DIRTY))?
                .query_map([], rows::node)?
                .collect()
        })
    }

    /// Counts of dirty, parked and local-only nodes.
    pub fn dirty_counts(&self) -> Result<DirtyCounts, StoreError> {
        self.reader(|db| {
            db.query_row(
                "SELECT count(*) FILTER (WHERE local_only = 0
                            AND NOT (deleted = 1 AND item IS NULL AND attempts.node IS NULL)),
                        count(*) FILTER (WHERE park_kind IS NOT NULL),
                        count(*) FILTER (WHERE local_only = 1 AND deleted = 0)
                 FROM local JOIN nodes USING (id) LEFT JOIN attempts ON attempts.node = local.id",
                [],
                |row| {
                    let count = |column| row.get::<_, i64>(column).map(|count| count as u64);
                    Ok(DirtyCounts { pending: count(0)?, parked: count(1)?, local_only: count(2)? })
                },
            )
        })
    }

    /// Nodes that are visible somewhere; not counted now, but as they came and went.
    pub fn count(&self) -> Result<u64, StoreError> {
        Ok(self.meta("visible")?.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// A setting of the store.
    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.reader(|db| tx::meta(db, key))
    }

    /// The recorded attempts.
    pub fn attempts(&self) -> Result<Vec<Attempt>, StoreError> {
        self.reader(tx::attempts)
    }

    /// The upload session of this staged content.
    pub fn session(&self, content: u64) -> Result<Option<SessionRow>, StoreError> {
        self.reader(|db| tx::session(db, content))
    }

    /// Staged content that nothing refers to any more: no row, no attempt that carries it, no other content
    /// that lies over it, and no [`Kept`].
    pub fn unlinks(&self) -> Result<Vec<u64>, StoreError> {
        let mut unlinks: Vec<u64> = self.reader(|db| {
            db.prepare_cached(
                "SELECT content FROM unlinks WHERE content NOT IN
                 (SELECT content FROM attempts WHERE content IS NOT NULL UNION SELECT base FROM overs)
                 ORDER BY content",
            )?
            .query_map([], |row| row.get::<_, i64>(0).map(|content| content as u64))?
            .collect()
        })?;
        unlinks.retain(|&content| !self.kept.contains(content));
        Ok(unlinks)
    }

    /// Keeps content that is listed as to be unlinked.
    pub fn keep(&self, content: u64) -> Kept {
        self.kept.keep(content)
    }

    /// Staged content that is to be unlinked, but that an attempt or another content still needs.
    pub fn kept(&self) -> Result<Vec<u64>, StoreError> {
        self.reader(|db| {
            db.prepare_cached("SELECT content FROM unlinks ORDER BY content")?
                .query_map([], |row| row.get::<_, i64>(0).map(|content| content as u64))?
                .collect()
        })
    }

    /// Staged content that some row refers to.
    pub fn staged(&self) -> Result<Vec<u64>, StoreError> {
        self.reader(|db| {
            db.prepare_cached("SELECT content FROM local WHERE content IS NOT NULL ORDER BY content")?
                .query_map([], |row| row.get::<_, i64>(0).map(|content| content as u64))?
                .collect()
        })
    }

    /// The extended attribute's value.
    pub fn xattr(&self, id: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.reader(|db| {
            db.prepare_cached("SELECT value FROM xattrs WHERE id = ?1 AND name = ?2")?
                .query_row(params![id.0, name], |row| row.get(0))
                .optional()
        })
    }

    /// Names of the extended attributes.
    pub fn xattr_names(&self, id: NodeId) -> Result<Vec<Vec<u8>>, StoreError> {
        self.reader(|db| {
            db.prepare_cached("SELECT name FROM xattrs WHERE id = ?1 ORDER BY name")?
                .query_map([id.0], |row| row.get(0))?
                .collect()
        })
    }

    /// The newest notices, newest first.
    pub fn notices(&self, limit: usize) -> Result<Vec<Notice>, StoreError> {
        self.reader(|db| {
            db.prepare_cached("SELECT at, path, text FROM notices ORDER BY id DESC LIMIT ?1")?
                .query_map([limit as i64], |row| {
                    Ok(Notice {
                        at: crate::model::Timestamp(row.get(0)?),
                        path: row.get(1)?,
                        text: row.get(2)?,
                    })
                })?
                .collect()
        })
    }

    /// The path of a node below the drive's root (`a/b`), for messages; parts that are not visible are
    /// shown by their last known names.
    pub fn path_of(&self, id: NodeId) -> Result<String, StoreError> {
        let mut parts = Vec::new();
        let mut at = id;
        while at != NodeId::ROOT && parts.len() < 512 {
            let Some(node) = self.node(at)? else { break };
            let Some((parent, name)) = node.known_place() else { break };
            parts.push(name);
            at = parent;
        }
        parts.reverse();
        Ok(parts.join("/"))
    }

    /// The path of a node below the mount, as programs see it.
    pub fn shown_path(&self, id: NodeId) -> Result<PathBuf, StoreError> {
        let path = self.path_of(id)?;
        Ok(path.split('/').filter(|part| !part.is_empty()).map(crate::model::names::to_local).collect())
    }

    /// Moves the log into the database; called from its own thread, now and then and before exit.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let moved = self.move_log();
        if moved.is_err() {
            self.log.doubt();
        }
        moved?;
        if let Some(ballast) = self.ballast.get() {
            ballast.restore();
        }
        Ok(())
    }

    fn move_log(&self) -> Result<(), StoreError> {
        let writer = lock(&self.writer);
        self.disk.before_commit("store.checkpoint", &self.path).map_err(|source| self.io(source))?;
        Ok(writer.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
    }

    fn io(&self, source: std::io::Error) -> StoreError {
        StoreError::Io { path: self.path.clone(), source }
    }

    fn reader<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let first = self.next_reader.fetch_add(1, Ordering::Relaxed) as usize;
        for offset in 0..self.readers.len() {
            if let Ok(reader) = self.readers[(first + offset) % self.readers.len()].try_lock() {
                return Ok(query(&reader)?);
            }
        }
        let reader = lock(&self.readers[first % self.readers.len()]);
        Ok(query(&reader)?)
    }
}

/// Counts for `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirtyCounts {
    /// Changes not on the service.
    pub pending: u64,
    /// Of these, parked.
    pub parked: u64,
    /// Files that live only here by their nature.
    pub local_only: u64,
}

// A panic while a connection was locked rolled its transaction back (Drop), so the connection is sound.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn prepare(connection: &Connection, memory_kib: i64) -> Result<(), StoreError> {
    connection.busy_timeout(Duration::from_secs(10))?;
    // Plans do not depend on the values that are looked for. Otherwise SQLite takes a kept statement that has a LIMIT, or
    // that an index of some rows serves, for outdated whenever a value is bound to it, and makes it anew.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -memory_kib)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

#[cfg(test)]
mod tests;
