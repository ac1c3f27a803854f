//! The folders that a walk over the drive has yet to list: durable, so that a walk goes on where it was cut.

use rusqlite::{OptionalExtension, params};

use super::{StoreError, Tx};
use crate::model::ItemId;

/// A folder to be listed next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkStep {
    /// The folder.
    pub folder: ItemId,
    /// Where its listing goes on (an address of the service); none at its beginning.
    pub next: Option<String>,
}

impl Tx<'_> {
    /// The oldest folder of the walk; none if no walk is under way.
    pub fn walk_step(&self) -> Result<Option<WalkStep>, StoreError> {
        Ok(self
            .db
            .prepare_cached("SELECT item, next FROM walk ORDER BY id LIMIT 1")?
            .query_row([], |row| {
                Ok(WalkStep { folder: ItemId::new(row.get::<_, String>(0)?), next: row.get(1)? })
            })
            .optional()?)
    }

    /// Adds a folder at the end of the walk, unless it waits there already.
    pub fn walk_later(&mut self, folder: &ItemId) -> Result<(), StoreError> {
        self.db.prepare_cached("INSERT OR IGNORE INTO walk(item) VALUES(?1)")?.execute([folder.as_str()])?;
        Ok(())
    }

    /// The listing of the folder goes on at `next`; none: it is done.
    pub fn walked(&mut self, folder: &ItemId, next: Option<&str>) -> Result<(), StoreError> {
        match next {
            Some(_) => self
                .db
                .prepare_cached("UPDATE walk SET next = ?2 WHERE item = ?1")?
                .execute(params![folder.as_str(), next])?,
            None => self.db.prepare_cached("DELETE FROM walk WHERE item = ?1")?.execute([folder.as_str()])?,
        };
        Ok(())
    }

    /// Gives the walk up.
    pub fn end_walk(&mut self) -> Result<(), StoreError> {
        self.db.execute("DELETE FROM walk", [])?;
        Ok(())
    }
}
