//! Which row holds an item.
//!
//! The service's ids have no order, so an index of them costs a page of its own for almost each item that comes: more
//! than the item itself. Therefore what is new is appended to a list (`items_new`), which is in memory too, and merged
//! now and then, in order, into the index (`items`): then each page is written for many items at once. Both hold a hash
//! of the id and the row. They may name rows that hold another item by now: whoever finds a row looks at it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};

use super::{StoreError, Tx};
use crate::model::{ItemId, NodeId};

/// So many are merged at once: some ten milliseconds. Few where tests shall meet that.
const MERGED_AT_ONCE: usize = if cfg!(debug_assertions) { 50 } else { 20_000 };

/// The number of what is not in `items_new` yet.
const UNLISTED: i64 = 0;

/// What was added since the last merge, by hash and row: all that `items_new` holds, with its number there, and perhaps
/// what was rolled back.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<BTreeMap<(i32, i64), i64>>);

/// The present [`Recent`]. A merge begins another one; the former stays for whoever reads as of before the merge.
#[derive(Debug, Default)]
pub(super) struct Index(Mutex<Arc<Recent>>);

impl Index {
    /// What the database has, as its writer sees it at the beginning.
    pub fn load(db: &Connection) -> rusqlite::Result<Self> {
        let entries = db
            .prepare("SELECT seq, hash, id FROM items_new")?
            .query_map([], |row| Ok(((row.get(1)?, row.get(2)?), row.get(0)?)))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self(Mutex::new(Arc::new(Recent(Mutex::new(entries))))))
    }

    pub fn recent(&self) -> Arc<Recent> {
        Arc::clone(&self.lock())
    }

    /// A merge was committed.
    pub fn merged(&self) {
        *self.lock() = Arc::default();
    }

    /// Begins to read as of one moment, by `begin`; with what was not merged then.
    pub fn as_of<T>(
        &self,
        mut begin: impl FnMut() -> Result<T, StoreError>,
    ) -> Result<(T, Arc<Recent>), StoreError> {
        loop {
            let before = self.recent();
            let begun = begin()?;
            if Arc::ptr_eq(&before, &self.recent()) {
                return Ok((begun, before));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Recent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(i32, i64), i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row that holds the item, as `db` sees it.
    pub fn find(&self, db: &Connection, item: &ItemId) -> rusqlite::Result<Option<NodeId>> {
        let hash = hash(item);
        let rows: Vec<i64> =
            self.lock().range((hash, i64::MIN)..=(hash, i64::MAX)).map(|(found, _)| found.1).collect();
        for row in rows {
            let mut holds = db.prepare_cached("SELECT 1 FROM nodes WHERE id = ?1 AND item = ?2")?;
            if holds.exists(params![row, item.as_str()])? {
                return Ok(Some(NodeId(row)));
            }
        }
        db.prepare_cached(
            "SELECT n.id FROM items i CROSS JOIN nodes n ON n.id = i.id WHERE i.hash = ?1 AND n.item = ?2",
        )?
        .query_row(params![hash, item.as_str()], |row| row.get(0).map(NodeId))
        .optional()
    }
}

impl Tx<'_> {
    pub(super) fn item_id(&self, item: &ItemId) -> Result<Option<NodeId>, StoreError> {
        Ok(self.recent.find(&self.db, item)?)
    }

    /// The row holds the item from here on, which no other does.
    pub(super) fn put_item(&mut self, id: NodeId, item: &ItemId) {
        let hash = hash(item);
        self.unlisted.push((hash, id));
        // Before the commit, so that nobody sees the row and does not find it.
        self.recent.lock().insert((hash, id.0), UNLISTED);
    }

    /// Writes what was put down; before anything is looked for there, and before the commit.
    fn list_items(&mut self) -> Result<(), StoreError> {
        if self.unlisted.is_empty() {
            return Ok(());
        }
        let mut insert = self.db.prepare_cached("INSERT INTO items_new(hash, id) VALUES(?1, ?2)")?;
        for (hash, id) in self.unlisted.drain(..) {
            insert.execute(params![hash, id.0])?;
            self.recent.lock().insert((hash, id.0), self.db.last_insert_rowid());
        }
        Ok(())
    }

    /// The row is about to hold this item, where it may hold another one. True if it did not hold it before.
    pub(super) fn change_item(&mut self, id: NodeId, item: Option<&ItemId>) -> Result<bool, StoreError> {
        let former = self.item_of(id)?;
        if former.as_ref() == item {
            return Ok(false);
        }
        if let Some(former) = former {
            self.list_items()?;
            let entry = (hash(&former), id.0);
            let mut delete = self.db.prepare_cached("DELETE FROM items WHERE hash = ?1 AND id = ?2")?;
            if delete.execute(entry)? == 0
                && let Some(seq) = self.recent.lock().get(&entry).copied()
            {
                // By its number: the list is not sorted.
                self.db
                    .prepare_cached("DELETE FROM items_new WHERE seq = ?3 AND hash = ?1 AND id = ?2")?
                    .execute(params![entry.0, entry.1, seq])?;
            }
        }
        let Some(item) = item else { return Ok(false) };
        match self.item_id(item)? {
            Some(holder) => Err(two_rows(id, holder).into()),
            None => {
                self.put_item(id, item);
                Ok(true)
            }
        }
    }

    pub(super) fn item_of(&self, id: NodeId) -> Result<Option<ItemId>, StoreError> {
        let found = self
            .db
            .prepare_cached("SELECT item FROM nodes WHERE id = ?1")?
            .query_row([id.0], |row| row.get::<_, Option<String>>(0))
            .optional()?;
        Ok(found.flatten().map(ItemId::new))
    }

    /// Items of the service that are known.
    pub fn count_items(&self) -> Result<u64, StoreError> {
        let sql = "SELECT (SELECT count(*) FROM items) + (SELECT count(*) FROM items_new)";
        let listed: i64 = self.db.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok(listed as u64 + self.unlisted.len() as u64)
    }

    /// Writes what is new, and merges it if it is much; the last thing before the commit. True if it merged.
    pub(super) fn merge_items(&mut self) -> Result<bool, StoreError> {
        self.list_items()?;
        if self.recent.lock().len() < MERGED_AT_ONCE {
            return Ok(false);
        }
        self.db
            .execute("INSERT OR IGNORE INTO items SELECT hash, id FROM items_new ORDER BY hash, id", [])?;
        self.db.execute("DELETE FROM items_new", [])?;
        Ok(true)
    }
}

/// As SQLite says it of a key that is taken.
fn two_rows(id: NodeId, holder: NodeId) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE);
    rusqlite::Error::SqliteFailure(code, Some(format!("node {id} would hold the item of node {holder}")))
}

/// Makes the index of a database that had another one.
pub(super) fn build(db: &Connection) -> rusqlite::Result<()> {
    let mut entries: Vec<(i32, i64)> = db
        .prepare("SELECT item, id FROM nodes WHERE item IS NOT NULL")?
        .query_map([], |row| Ok((hash(&ItemId::new(row.get::<_, String>(0)?)), row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    entries.sort_unstable();
    let mut insert = db.prepare("INSERT INTO items(hash, id) VALUES(?1, ?2)")?;
    entries.into_iter().try_for_each(|(hash, id)| insert.execute(params![hash, id]).map(drop))
}

/// FNV-1a, with its halves folded. It is in databases: it stays as it is.
fn hash(item: &ItemId) -> i32 {
    let all = item.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (all ^ (all >> 32)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ContentVersion;
    use crate::store::{Durability, NodeKind, RemoteView, Store};

    fn item(number: usize) -> ItemId {
        ItemId::new(format!("01ITEM{number}"))
    }

    fn view(number: usize) -> RemoteView {
        RemoteView {
            item: item(number),
            parent: Some(NodeId::ROOT),
            name: format!("file {number}"),
            version: ContentVersion::default(),
            mtime: None,
            btime: None,
            malware: false,
            actual_size: None,
        }
    }

    fn store_with(items: std::ops::Range<usize>) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        items.for_each(|number| add(&store, number));
        (dir, store)
    }

    fn add(store: &Store, number: usize) {
        let added = store.write(Durability::Process, |tx| {
            match number % 3 {
                0 => assert!(tx.introduce(NodeKind::File, &view(number), None, 1)?),
                1 => {
                    let id = tx.node_of_item(&item(number))?;
                    tx.set_kind(id, NodeKind::File)?;
                    tx.set_remote(id, Some(&view(number)))?;
                }
                _ => {
                    let id = tx.insert(NodeKind::File)?;
                    tx.set_remote(id, Some(&view(number)))?;
                }
            }
            Ok(())
        });
        added.unwrap();
    }

    /// Rows in the index and not merged into it.
    fn counts(store: &Store) -> (i64, i64) {
        let count = |table: &str| {
            store.reader(|db| db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)))
        };
        (count("items").unwrap(), count("items_new").unwrap())
    }

    fn assert_found(store: &Store, numbers: impl Iterator<Item = usize>) {
        for number in numbers {
            let node = store.by_item(&item(number)).unwrap();
            assert_eq!(node.unwrap().remote.as_ref(), Some(&view(number)));
            let seen = store.inspect(|tx| Ok(tx.by_item(&item(number))?.map(|node| node.id))).unwrap();
            assert_eq!(seen, store.write(Durability::Process, |tx| tx.item_id(&item(number))).unwrap());
            assert!(seen.is_some());
        }
    }

    #[test]
    fn an_item_is_found_before_and_after_it_is_merged_and_after_the_store_was_opened_anew() {
        let count = 3 * MERGED_AT_ONCE + 7;
        let (dir, store) = store_with(0..count);
        let (merged, recent) = counts(&store);
        assert!(merged > 0 && recent > 0 && merged + recent == count as i64, "{merged}, {recent}");
        assert_found(&store, 0..count);
        assert!(store.by_item(&item(count)).unwrap().is_none());
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_found(&store, 0..count);
        assert_eq!(store.inspect(|tx| tx.count_items()).unwrap(), count as u64);
    }

    #[test]
    fn a_look_that_began_before_a_merge_finds_what_was_there_then_and_nothing_else() {
        let (_dir, store) = store_with(0..5);
        let merged = store.inspect(|look| {
            for number in 5..MERGED_AT_ONCE + 5 {
                add(&store, number);
            }
            for number in 0..5 {
                assert!(look.by_item(&item(number))?.is_some(), "{number}");
            }
            assert!(look.by_item(&item(5))?.is_none() && look.by_item(&item(MERGED_AT_ONCE))?.is_none());
            Ok(counts(&store).0)
        });
        assert!(merged.unwrap() > 0);
    }

    #[test]
    fn what_was_rolled_back_is_not_found_and_its_row_is_not_taken_for_another() {
        let (_dir, store) = store_with(0..1);
        let undone = store.write(Durability::Process, |tx| {
            tx.introduce(NodeKind::File, &view(1), None, 1)?;
            Err::<(), _>(StoreError::NoNode(NodeId(7)))
        });
        assert!(undone.is_err());
        add(&store, 2);
        assert!(store.by_item(&item(1)).unwrap().is_none());
        assert_found(&store, [0, 2].into_iter());
    }

    #[test]
    fn an_item_goes_from_row_to_row_and_no_two_hold_it() {
        for others in [0, MERGED_AT_ONCE] {
            let (_dir, store) = store_with(0..others + 2);
            let (first, second) = (0, 1);
            let done = store.write(Durability::Process, |tx| {
                let from = tx.by_item(&item(first))?.expect("it is there").id;
                let to = tx.by_item(&item(second))?.expect("it is there").id;
                assert!(tx.set_remote(to, Some(&view(first))).is_err(), "another row holds it");
                tx.set_remote(from, None)?;
                tx.set_remote(to, Some(&view(first)))?;
                assert_eq!(tx.item_id(&item(first))?, Some(to));
                assert_eq!(tx.item_id(&item(second))?, None);
                tx.remove(to)?;
                assert_eq!(tx.item_id(&item(first))?, None);
                tx.count_items()
            });
            assert_eq!(done.unwrap(), others as u64);
        }
    }

    #[test]
    fn a_store_of_the_former_version_finds_all_its_items() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.sqlite");
        crate::store::schema::make_version(&mut Connection::open(&path).unwrap(), 10).unwrap();
        let db = Connection::open(&path).unwrap();
        db.execute_batch("INSERT INTO nodes(id, kind) VALUES(1, 2), (2, 1)").unwrap();
        for number in 0..300 {
            let (id, name) = (item(number), view(number).name);
            let sql =
                "INSERT INTO nodes(kind, item, r_parent, r_name, parent, name) VALUES(1, ?1, 1, ?2, 1, ?2)";
            db.execute(sql, params![id.as_str(), name]).unwrap();
        }
        drop(db);
        let store = Store::open(dir.path()).unwrap();
        assert_found(&store, 0..300);
        assert_eq!(counts(&store), (300, 0));
        add(&store, 300);
        assert_found(&store, 300..301);
    }

    #[test]
    fn the_hash_stays_as_it_is() {
        assert_eq!([hash(&ItemId::new("")), hash(&item(1))], [1339080641, 503991680]);
    }
}
