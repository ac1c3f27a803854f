//! The database's tables, their versions, and how an older one becomes the present one.

use rusqlite::Connection;

use super::{StoreError, items};

/// "ODFS": marks the file as ours (`PRAGMA application_id`).
const APPLICATION_ID: i32 = 0x4f44_4653;

/// Each step brings the database from version `index` to `index + 1`; steps are never edited once released.
const MIGRATIONS: &[&str] = &[V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11];

/// The newest format that this program knows.
pub(super) const KNOWN: i64 = MIGRATIONS.len() as i64;

const V1: &str = "
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- One row a node. parent/name/fold: the visible tree (local over remote); parent NULL: not visible.
-- want: the name a node would have but for a visible collision. r_*: the remote view; item NULL: none.
CREATE TABLE nodes(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind INTEGER NOT NULL,
  parent INTEGER, name TEXT, fold TEXT, want TEXT,
  item TEXT, r_parent INTEGER, r_name TEXT, r_size INTEGER, r_mtime INTEGER, r_btime INTEGER,
  r_etag TEXT, r_ctag TEXT, r_quick BLOB, r_sha1 BLOB, r_sha256 BLOB, r_flags INTEGER NOT NULL DEFAULT 0,
  web_url TEXT,
  own_seq INTEGER NOT NULL DEFAULT 0, own_time INTEGER NOT NULL DEFAULT 0,
  shown_mtime INTEGER, listed INTEGER NOT NULL DEFAULT 0, mark INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX nodes_item ON nodes(item) WHERE item IS NOT NULL;
CREATE INDEX nodes_order ON nodes(parent) WHERE parent IS NOT NULL;
CREATE INDEX nodes_name ON nodes(parent, fold) WHERE parent IS NOT NULL;
CREATE INDEX nodes_want ON nodes(parent, want) WHERE want IS NOT NULL;

-- What the user sees where that differs from remote: exactly the nodes with something unsent or unlinked.
CREATE TABLE local(
  id INTEGER PRIMARY KEY REFERENCES nodes(id),
  parent INTEGER NOT NULL, name TEXT NOT NULL, deleted INTEGER NOT NULL DEFAULT 0,
  content INTEGER, size INTEGER NOT NULL DEFAULT 0, mtime INTEGER NOT NULL, mtime_set INTEGER NOT NULL DEFAULT 0,
  sealed_size INTEGER, sealed_blake3 BLOB, sealed_quick BLOB,
  changed_at INTEGER NOT NULL, changed_seq INTEGER NOT NULL,
  park_kind TEXT, park_detail TEXT, tries INTEGER NOT NULL DEFAULT 0, retry_at INTEGER NOT NULL DEFAULT 0,
  local_only INTEGER NOT NULL DEFAULT 0
);

-- The remote view that an unsent change started from.
CREATE TABLE base(
  id INTEGER PRIMARY KEY REFERENCES nodes(id),
  item TEXT NOT NULL, r_parent INTEGER, r_name TEXT NOT NULL, r_size INTEGER, r_mtime INTEGER, r_btime INTEGER,
  r_etag TEXT, r_ctag TEXT, r_quick BLOB, r_sha1 BLOB, r_sha256 BLOB, r_flags INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE attempts(
  node INTEGER PRIMARY KEY, op TEXT NOT NULL, content INTEGER, sent_seq INTEGER NOT NULL,
  started_at INTEGER NOT NULL, unknown INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE sessions(
  content INTEGER PRIMARY KEY, node INTEGER NOT NULL, url TEXT NOT NULL, offset INTEGER NOT NULL,
  total INTEGER NOT NULL, expires INTEGER, created_at INTEGER NOT NULL, target TEXT NOT NULL, mtime_applied INTEGER NOT NULL
);

CREATE TABLE attrs(id INTEGER PRIMARY KEY, mode INTEGER, uid INTEGER, gid INTEGER, target BLOB);
CREATE TABLE xattrs(id INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY(id, name)) WITHOUT ROWID;

-- A delta round that is not complete yet.
CREATE TABLE round(seq INTEGER PRIMARY KEY AUTOINCREMENT, item TEXT NOT NULL);
-- Own deletes, until a round that began after them has ended.
CREATE TABLE tombstones(item TEXT PRIMARY KEY, own_seq INTEGER NOT NULL) WITHOUT ROWID;
-- Staged content that lost its last reference: to be unlinked once that is durable.
CREATE TABLE unlinks(content INTEGER PRIMARY KEY);
-- Staged content that lies over another one, which must therefore stay.
CREATE TABLE overs(content INTEGER PRIMARY KEY, base INTEGER NOT NULL);
-- What the user should be told once.
CREATE TABLE notices(id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, path TEXT NOT NULL, text TEXT NOT NULL);
";

const V2: &str = "
-- What is known of staged content for the case of a power cut; no row: it was not synced since it was last
-- opened for writing.
CREATE TABLE power(content INTEGER PRIMARY KEY, synced INTEGER NOT NULL);
";

const V3: &str = "
-- When the user last changed anything of the node (ctime); 0: not here.
ALTER TABLE nodes ADD COLUMN ctime INTEGER NOT NULL DEFAULT 0;
";

const V4: &str = "
-- Conflict copies that nobody settled yet: the copy, the item that kept the name, why and where they parted.
-- Never guessed from a name.
CREATE TABLE conflicts(
  id INTEGER PRIMARY KEY, beside TEXT NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL, host TEXT NOT NULL,
  cause TEXT NOT NULL
);
";

const V5: &str = "
-- Files that were moved here, and that on the service too: where from and when, for some minutes.
CREATE TABLE former(id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL);
CREATE INDEX former_name ON former(parent, name);
";

const V6: &str = "
-- Folders that a walk over the drive has yet to list, in order; where the service offers no delta.
CREATE TABLE walk(id INTEGER PRIMARY KEY AUTOINCREMENT, item TEXT NOT NULL UNIQUE, next TEXT);
";

const V7: &str = "
-- When an item was deleted here, and the path of a folder: something unknown may have gone with it.
ALTER TABLE tombstones ADD COLUMN at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tombstones ADD COLUMN folder TEXT;
";

const V8: &str = "
-- Sequence number at which what is known of the item was last told to be otherwise; an answer to what was sent before may
-- be older than that.
ALTER TABLE nodes ADD COLUMN seen_seq INTEGER NOT NULL DEFAULT 0;
";

const V9: &str = "
-- Nodes that are visible somewhere, counted as they come and go.
INSERT OR REPLACE INTO meta(key, value) SELECT 'visible', count(*) FROM nodes WHERE parent IS NOT NULL;
";

const V10: &str = "
-- What is to be kept on this machine: items, and rows of what the service does not have yet.
CREATE TABLE pins(item TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE new_pins(id INTEGER PRIMARY KEY);
";

const V11: &str = "
-- Which rows hold an item, by a hash of its id (`items.rs`): what is in order, and what came since that was made.
DROP INDEX nodes_item;
CREATE TABLE items(hash INTEGER NOT NULL, id INTEGER NOT NULL, PRIMARY KEY(hash, id)) WITHOUT ROWID;
CREATE TABLE items_new(seq INTEGER PRIMARY KEY, hash INTEGER NOT NULL, id INTEGER NOT NULL);
";

/// What cannot be said in SQL of a step.
fn complete(step: &str, connection: &Connection) -> rusqlite::Result<()> {
    if step == V11 { items::build(connection) } else { Ok(()) }
}

/// Makes a database as the version `version` left it.
#[cfg(test)]
pub(super) fn make_version(connection: &mut Connection, version: usize) -> Result<(), StoreError> {
    advance(connection, &MIGRATIONS[..version], 0)
}

/// Brings a fresh or older database to the present version; refuses a newer or foreign one.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && (tables > 0 || application != 0) {
        return Err(StoreError::Foreign);
    }
    let known = KNOWN;
    if version > known {
        return Err(StoreError::Newer { found: version, known });
    }
    let start = usize::try_from(version).map_err(|_| StoreError::Foreign)?;
    advance(connection, MIGRATIONS, start)
}

fn advance(connection: &mut Connection, steps: &[&str], start: usize) -> Result<(), StoreError> {
    for (index, step) in steps.iter().enumerate().skip(start) {
        let tx = connection.transaction()?;
        tx.execute_batch(step)?;
        complete(step, &tx)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", index as i64 + 1)?;
        tx.commit()?;
    }
    Ok(())
}
