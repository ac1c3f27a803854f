//! What is to be kept on this machine: items, and all that is in those that are folders.
//!
//! A pin belongs to the item, so it follows renames and moves, here and elsewhere, and the ways programs save. What the
//! service does not have yet is pinned by its row until it has.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use rusqlite::{OptionalExtension, params};

use super::{Node, Store, StoreError, Tx, rows};
use crate::model::{ItemId, NodeId};

/// Why a node's content is kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// It was pinned.
    Itself,
    /// The folder, in which it is, was pinned.
    Within(NodeId),
}

const PINNED: &str =
    "(n.item IS NOT NULL AND n.item IN (SELECT item FROM pins) OR n.id IN (SELECT id FROM new_pins))";

impl Tx<'_> {
    /// Pins the node; false if it is already.
    pub fn pin(&mut self, id: NodeId) -> Result<bool, StoreError> {
        let added = match self.node(id)?.remote {
            Some(view) => self
                .db
                .prepare_cached("INSERT OR IGNORE INTO pins(item) VALUES(?1)")?
                .execute([view.item.as_str()])?,
            None => {
                self.db.prepare_cached("INSERT OR IGNORE INTO new_pins(id) VALUES(?1)")?.execute([id.0])?
            }
        };
        self.pins_changed |= added > 0;
        Ok(added > 0)
    }

    /// Takes the node's own pin away; false if it has none.
    pub fn unpin(&mut self, id: NodeId) -> Result<bool, StoreError> {
        let by_item = self
            .db
            .prepare_cached("DELETE FROM pins WHERE item = (SELECT item FROM nodes WHERE id = ?1)")?
            .execute([id.0])?;
        let by_row = self.db.prepare_cached("DELETE FROM new_pins WHERE id = ?1")?.execute([id.0])?;
        let was_pinned = by_item + by_row > 0;
        self.pins_changed |= was_pinned;
        Ok(was_pinned)
    }

    fn pinned_items(&self) -> Result<Vec<ItemId>, StoreError> {
        Ok(self
            .db
            .prepare_cached("SELECT item FROM pins")?
            .query_map([], |row| row.get::<_, String>(0).map(ItemId::new))?
            .collect::<rusqlite::Result<_>>()?)
    }

    /// The nodes that were pinned themselves and can be seen.
    pub fn pins(&self) -> Result<Vec<NodeId>, StoreError> {
        let mut ids: BTreeSet<NodeId> = self
            .db
            .prepare_cached("SELECT id FROM new_pins")?
            .query_map([], |row| row.get(0).map(NodeId))?
            .collect::<rusqlite::Result<_>>()?;
        for item in self.pinned_items()? {
            ids.extend(self.item_id(&item)?);
        }
        let mut seen = Vec::new();
        for id in ids {
            if id == NodeId::ROOT || self.find(id)?.is_some_and(|node| node.place.is_some()) {
                seen.push(id);
            }
        }
        Ok(seen)
    }

    /// Whether the node is pinned, itself or with a folder that it is in.
    pub fn pinned(&self, id: NodeId) -> Result<Option<Pinned>, StoreError> {
        let sql = format!(
            "WITH RECURSIVE up(id, depth) AS (
               VALUES(?1, 0)
               UNION ALL
               SELECT n.parent, depth + 1 FROM up JOIN nodes n ON n.id = up.id
               WHERE n.parent IS NOT NULL AND n.id <> ?2 AND depth < 1000)
             SELECT n.id FROM up JOIN nodes n ON n.id = up.id WHERE {PINNED} ORDER BY depth LIMIT 1"
        );
        let found = self
            .db
            .prepare_cached(&sql)?
            .query_row(params![id.0, NodeId::ROOT.0], |row| row.get(0).map(NodeId))
            .optional()?;
        Ok(found.map(|found| if found == id { Pinned::Itself } else { Pinned::Within(found) }))
    }

    /// Shows `each` visible node that is one of `tops` or lies below one.
    pub fn each_below(&self, tops: &[NodeId], mut each: impl FnMut(Node)) -> Result<(), StoreError> {
        if tops.is_empty() {
            return Ok(());
        }
        let tops: Vec<String> = tops.iter().map(|id| id.0.to_string()).collect();
        let sql = format!(
            "WITH RECURSIVE below(id) AS (
               SELECT value FROM json_each(?1)
               UNION SELECT n.id FROM nodes n JOIN below b ON n.parent = b.id)
             {} WHERE n.id IN (SELECT id FROM below)",
            rows::NODE.trim_start()
        );
        let mut statement = self.db.prepare(&sql)?;
        let mut found = statement.query([format!("[{}]", tops.join(","))])?;
        while let Some(row) = found.next()? {
            each(rows::node(row)?);
        }
        Ok(())
    }

    /// The service has the node as `item` from here on.
    pub(super) fn item_came(&mut self, id: NodeId, item: &ItemId) -> Result<(), StoreError> {
        if self.db.prepare_cached("DELETE FROM new_pins WHERE id = ?1")?.execute([id.0])? > 0 {
            self.db
                .prepare_cached("INSERT OR IGNORE INTO pins(item) VALUES(?1)")?
                .execute([item.as_str()])?;
        }
        Ok(())
    }

    /// The service does not have the node's item any more, and what is here of it stays: so does its pin.
    pub fn item_went(&mut self, id: NodeId, item: &ItemId) -> Result<(), StoreError> {
        if self.db.prepare_cached("DELETE FROM pins WHERE item = ?1")?.execute([item.as_str()])? > 0 {
            self.db.prepare_cached("INSERT OR IGNORE INTO new_pins(id) VALUES(?1)")?.execute([id.0])?;
        }
        Ok(())
    }

    /// An item has another id now.
    pub fn rename_pins(&mut self, from: &ItemId, to: &ItemId) -> Result<(), StoreError> {
        if from != to
            && self.db.prepare_cached("DELETE FROM pins WHERE item = ?1")?.execute([from.as_str()])? > 0
        {
            self.db.prepare_cached("INSERT OR IGNORE INTO pins(item) VALUES(?1)")?.execute([to.as_str()])?;
        }
        Ok(())
    }

    /// Forgets pins of items that no row has.
    pub fn forget_lost_pins(&mut self) -> Result<(), StoreError> {
        for item in self.pinned_items()? {
            if self.item_id(&item)?.is_none() {
                self.db.prepare_cached("DELETE FROM pins WHERE item = ?1")?.execute([item.as_str()])?;
            }
        }
        self.pins_changed = true;
        Ok(())
    }

    /// Whether anything is pinned.
    pub(super) fn has_pins(&self) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS(SELECT 1 FROM pins) OR EXISTS(SELECT 1 FROM new_pins)";
        Ok(self.db.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }
}

impl Store {
    /// Anything is pinned. Asks no disk.
    pub fn has_pins(&self) -> bool {
        self.has_pins.load(Ordering::Acquire)
    }

    /// Whether the node is pinned, itself or with a folder that it is in.
    pub fn pinned(&self, id: NodeId) -> Result<Option<Pinned>, StoreError> {
        if self.has_pins() { self.inspect(|tx| tx.pinned(id)) } else { Ok(None) }
    }

    /// Changes with each commit that changed something, for who waits for that.
    pub fn commits(&self) -> tokio::sync::watch::Receiver<u64> {
        self.commits.subscribe()
    }
}
