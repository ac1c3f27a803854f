//! Which files are conflict copies, of what, and why: recorded when they are made, never guessed from a name.
//!
//! A mark belongs to the copy's row, so it follows renames and moves; the file that kept the name is known by its
//! item, which stays under the name through the ways programs save.

use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, Tx};
use crate::model::{ItemId, NodeId, Timestamp};

/// Why two versions stand beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictCause {
    /// The content was changed here and elsewhere.
    BothChanged,
    /// The same name was taken here and elsewhere.
    NameTaken,
    /// It was not synced when the power went, or the local disk failed to keep it.
    PowerCut,
}

impl ConflictCause {
    fn word(self) -> &'static str {
        match self {
            Self::BothChanged => "both_changed",
            Self::NameTaken => "name_taken",
            Self::PowerCut => "power_cut",
        }
    }

    /// One that a newer version wrote is the most general.
    fn of_word(word: &str) -> Self {
        match word {
            "name_taken" => Self::NameTaken,
            "power_cut" => Self::PowerCut,
            _ => Self::BothChanged,
        }
    }
}

/// The mark of a conflict copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The copy.
    pub copy: NodeId,
    /// The item that kept the name.
    pub beside: ItemId,
    /// The name they both wanted.
    pub name: String,
    /// When the copy was made.
    pub at: Timestamp,
    /// The machine that made it.
    pub host: String,
    /// Why.
    pub cause: ConflictCause,
}

const SELECT: &str = "SELECT id, beside, name, at, host, cause FROM conflicts";

fn conflict(row: &Row<'_>) -> rusqlite::Result<Conflict> {
    Ok(Conflict {
        copy: NodeId(row.get(0)?),
        beside: ItemId::new(row.get::<_, String>(1)?),
        name: row.get(2)?,
        at: Timestamp(row.get(3)?),
        host: row.get(4)?,
        cause: ConflictCause::of_word(&row.get::<_, String>(5)?),
    })
}

impl Tx<'_> {
    /// Marks a conflict copy; replaces the mark it has.
    pub fn put_conflict(&mut self, conflict: &Conflict) -> Result<(), StoreError> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO conflicts(id, beside, name, at, host, cause)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                conflict.copy.0,
                conflict.beside.as_str(),
                conflict.name,
                conflict.at.0,
                conflict.host,
                conflict.cause.word(),
            ])?;
        Ok(())
    }

    /// The mark of the node, if it is a conflict copy.
    pub fn conflict(&self, copy: NodeId) -> Result<Option<Conflict>, StoreError> {
        Ok(self
            .db
            .prepare_cached(&format!("{SELECT} WHERE id = ?1"))?
            .query_row([copy.0], conflict)
            .optional()?)
    }

    /// The node is a file like any other from here on.
    pub fn remove_conflict(&mut self, copy: NodeId) -> Result<(), StoreError> {
        self.db.prepare_cached("DELETE FROM conflicts WHERE id = ?1")?.execute([copy.0])?;
        Ok(())
    }

    /// The row `to` took the item and the name of `from` (save by rename): if that was a conflict copy, it is one
    /// still. A copy that takes the item of what it stood beside has settled the conflict.
    pub fn hand_over_conflict(&mut self, from: NodeId, to: NodeId) -> Result<(), StoreError> {
        self.remove_conflict(to)?;
        self.db
            .prepare_cached("UPDATE conflicts SET id = ?2 WHERE id = ?1")?
            .execute(params![from.0, to.0])?;
        Ok(())
    }

    /// The item has another id now (the account was migrated).
    pub fn rename_conflicts(&mut self, from: &ItemId, to: &ItemId) -> Result<(), StoreError> {
        self.db
            .prepare_cached("UPDATE conflicts SET beside = ?2 WHERE beside = ?1")?
            .execute(params![from.as_str(), to.as_str()])?;
        Ok(())
    }
}

impl Store {
    /// Every mark, in the order of the copies' rows; also of copies that are deleted here and not yet there.
    pub fn conflicts(&self) -> Result<Vec<Conflict>, StoreError> {
        self.reader(|db| {
            db.prepare_cached(&format!("{SELECT} ORDER BY id"))?.query_map([], conflict)?.collect()
        })
    }
}
