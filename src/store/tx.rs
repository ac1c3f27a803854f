//! One transaction: reads its own writes, keeps the visible tree right, remembers what it touched.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Statement, Transaction, params};

use super::StoreError;
use super::items::Recent;
use super::rows;
use super::types::{Attempt, Change, LocalView, Node, NodeKind, Place, Power, RemoteView, SessionRow};
use crate::model::names;
use crate::model::{ItemId, NodeId, Timestamp};

/// Beyond this many touched nodes the caches above forget everything instead of each one.
const COARSE: usize = 20_000;
/// Rows that one commit looks at to mark folders as all known: some ten milliseconds.
const LISTED_AT_ONCE: i64 = 20_000;

/// An open transaction of [`super::Store::write`].
pub struct Tx<'a> {
    pub(super) db: Transaction<'a>,
    pub(super) recent: Arc<Recent>,
    /// What `recent` has and `items_new` not yet.
    pub(super) unlisted: Vec<(i32, NodeId)>,
    sequence: u64,
    /// Nodes that became visible, less those that are no more.
    appeared: i64,
    /// Something was pinned, or is no more.
    pub(super) pins_changed: bool,
    touched: BTreeSet<NodeId>,
    changes: BTreeSet<Change>,
}

/// What a transaction returned, and what it changed in the visible tree.
#[derive(Debug)]
pub struct Committed<T> {
    /// The closure's value.
    pub value: T,
    /// Visible changes, in order, each once.
    pub changes: Vec<Change>,
}

pub(super) struct Done {
    pub sequence: u64,
    pub merged: bool,
    pub coarse: bool,
    pub touched: BTreeSet<NodeId>,
    pub changes: Vec<Change>,
}

impl<'a> Tx<'a> {
    pub(super) fn new(db: Transaction<'a>, recent: Arc<Recent>, sequence: u64) -> Self {
        Self {
            db,
            recent,
            unlisted: Vec::new(),
            sequence,
            appeared: 0,
            pins_changed: false,
            touched: BTreeSet::new(),
            changes: BTreeSet::new(),
        }
    }

    pub(super) fn commit(mut self) -> Result<Done, StoreError> {
        let merged = self.merge_items()?;
        self.db
            .prepare_cached("INSERT OR REPLACE INTO meta(key, value) VALUES('sequence', ?1)")?
            .execute([self.sequence.to_string()])?;
        if self.appeared != 0 {
            self.db
                .prepare_cached("UPDATE meta SET value = CAST(value AS INTEGER) + ?1 WHERE key = 'visible'")?
                .execute([self.appeared])?;
        }
        self.db.commit()?;
        let coarse = self.touched.len() > COARSE;
        Ok(Done {
            sequence: self.sequence,
            merged,
            coarse,
            touched: self.touched,
            changes: self.changes.into_iter().collect(),
        })
    }

    /// What changed in the visible tree so far.
    pub(super) fn changes(&self) -> &BTreeSet<Change> {
        &self.changes
    }

    pub(super) fn ensure_root(&mut self) -> Result<(), StoreError> {
        self.db.execute(
            "INSERT OR IGNORE INTO nodes(id, kind) VALUES(?1, ?2)",
            params![NodeId::ROOT.0, NodeKind::Folder.to_sql()],
        )?;
        Ok(())
    }

    /// The next local sequence number: one for each local change and each sent request.
    pub fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// The local sequence number as it is.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    // ---- reading ----

    /// The node, if its row exists.
    pub fn find(&self, id: NodeId) -> Result<Option<Node>, StoreError> {
        Ok(self
            .db
            .prepare_cached(&format!("{} WHERE n.id = ?1", rows::NODE))?
            .query_row([id.0], rows::node)
            .optional()?)
    }

    /// The node; [`StoreError::NoNode`] if its row is gone.
    pub fn node(&self, id: NodeId) -> Result<Node, StoreError> {
        self.find(id)?.ok_or(StoreError::NoNode(id))
    }

    /// The visible child of exactly this name.
    pub fn child(&self, parent: NodeId, name: &str) -> Result<Option<Node>, StoreError> {
        child_id(&self.db, parent, name)?.map_or(Ok(None), |id| self.find(id))
    }

    /// A visible sibling whose name is this one, or differs from it only as the service folds, other than `but`.
    pub fn clash(&self, parent: NodeId, name: &str, but: Option<NodeId>) -> Result<Option<Node>, StoreError> {
        folded_id(&self.db, parent, name, but)?.map_or(Ok(None), |id| self.find(id))
    }

    /// Visible nodes that have this name, as the service folds, or would have it but for a collision.
    pub fn holders(&self, parent: NodeId, name: &str) -> Result<Vec<Node>, StoreError> {
        let sql = "SELECT id FROM nodes WHERE parent = ?1 AND fold = ?2
                   UNION SELECT id FROM nodes WHERE parent = ?1 AND want = ?3 ORDER BY 1";
        let ids: Vec<i64> = self
            .db
            .prepare_cached(sql)?
            .query_map(params![parent.0, names::fold(name), name], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        ids.into_iter().map(|id| self.node(NodeId(id))).collect()
    }

    /// The path below the root for messages (`a/b`).
    pub fn path(&self, id: NodeId) -> Result<String, StoreError> {
        let mut parts = Vec::new();
        let mut at = id;
        while at != NodeId::ROOT && parts.len() < 512 {
            let Some(node) = self.find(at)? else { break };
            let Some((parent, name)) = node.known_place() else { break };
            parts.push(name);
            at = parent;
        }
        parts.reverse();
        Ok(parts.join("/"))
    }

    /// UTF-16 units of the visible path below the root, with a slash after each name.
    pub fn path_units(&self, id: NodeId) -> Result<usize, StoreError> {
        let (mut units, mut at) = (0, id);
        for _ in 0..512 {
            let Some(place) = self.visible(at)? else { break };
            units += place.name.encode_utf16().count() + 1;
            at = place.parent;
        }
        Ok(units)
    }

    /// Ids of the visible children.
    pub fn children(&self, parent: NodeId) -> Result<Vec<NodeId>, StoreError> {
        Ok(self
            .db
            .prepare_cached("SELECT id FROM nodes WHERE parent = ?1 ORDER BY id")?
            .query_map([parent.0], |row| row.get(0).map(NodeId))?
            .collect::<rusqlite::Result<_>>()?)
    }

    /// Whether a visible child exists.
    pub fn has_children(&self, parent: NodeId) -> Result<bool, StoreError> {
        Ok(self
            .db
            .prepare_cached("SELECT EXISTS(SELECT 1 FROM nodes WHERE parent = ?1)")?
            .query_row([parent.0], |row| row.get(0))?)
    }

    /// The node that holds this item.
    pub fn by_item(&self, item: &ItemId) -> Result<Option<Node>, StoreError> {
        self.item_id(item)?.map_or(Ok(None), |id| self.find(id))
    }

    /// Dirty nodes whose remote view lies in `parent`, whatever their visible place.
    pub fn dirty_remote_children(&self, parent: NodeId) -> Result<Vec<Node>, StoreError> {
        Ok(self
            .db
            .prepare_cached(&format!(
                "{} WHERE l.id IS NOT NULL AND n.r_parent = ?1 ORDER BY n.id",
                rows::NODE
            ))?
            .query_map([parent.0], rows::node)?
            .collect::<rusqlite::Result<_>>()?)
    }

    /// Every node with a local view.
    pub fn dirty(&self) -> Result<Vec<Node>, StoreError> {
        Ok(self
            .db
            .prepare_cached(&format!("{} {}", rows::NODE, rows::DIRTY))?
            .query_map([], rows::node)?
            .collect::<rusqlite::Result<_>>()?)
    }

    /// Whether something was unlinked here up to the sequence number `last`, but after `first`.
    pub fn has_deletes_before(&self, last: u64, first: u64) -> Result<bool, StoreError> {
        let sql =
            "SELECT EXISTS(SELECT 1 FROM local WHERE deleted = 1 AND changed_seq <= ?1 AND changed_seq > ?2)";
        Ok(self.db.prepare_cached(sql)?.query_row([last as i64, first as i64], |row| row.get(0))?)
    }

    /// Whether `ancestor` is `id` or lies above it in the visible tree.
    pub fn is_below(&self, id: NodeId, ancestor: NodeId) -> Result<bool, StoreError> {
        let mut at = id;
        for _ in 0..4096 {
            if at == ancestor {
                return Ok(true);
            }
            let parent: Option<Option<i64>> = self
                .db
                .prepare_cached("SELECT parent FROM nodes WHERE id = ?1")?
                .query_row([at.0], |row| row.get(0))
                .optional()?;
            let Some(Some(parent)) = parent else { return Ok(false) };
            at = NodeId(parent);
        }
        Ok(false)
    }

    // ---- nodes ----

    /// A new row, visible nowhere yet.
    pub fn insert(&mut self, kind: NodeKind) -> Result<NodeId, StoreError> {
        self.db.prepare_cached("INSERT INTO nodes(kind) VALUES(?1)")?.execute([kind.to_sql()])?;
        let id = NodeId(self.db.last_insert_rowid());
        self.touched.insert(id);
        Ok(id)
    }

    /// The node of `item`, a stub if it was never described.
    pub fn node_of_item(&mut self, item: &ItemId) -> Result<NodeId, StoreError> {
        if let Some(id) = self.item_id(item)? {
            return Ok(id);
        }
        self.db
            .prepare_cached("INSERT INTO nodes(kind, item) VALUES(?1, ?2)")?
            .execute(params![NodeKind::Stub.to_sql(), item.as_str()])?;
        let id = NodeId(self.db.last_insert_rowid());
        self.put_item(id, item);
        self.touched.insert(id);
        Ok(id)
    }

    /// Whether the item has a row, be it a stub.
    pub fn knows(&self, item: &ItemId) -> Result<bool, StoreError> {
        Ok(self.item_id(item)?.is_some())
    }

    /// The item of a row of which nothing else is known.
    pub fn item_of_stub(&self, id: NodeId) -> Result<Option<ItemId>, StoreError> {
        let found = self
            .db
            .prepare_cached("SELECT item FROM nodes WHERE id = ?1 AND kind = ?2")?
            .query_row(params![id.0, NodeKind::Stub.to_sql()], |row| row.get::<_, Option<String>>(0))
            .optional()?;
        Ok(found.flatten().map(ItemId::new))
    }

    /// A new row for an item that has none, with all that the service said of it, stamped with an enumeration's
    /// generation: what [`Tx::node_of_item`] and the setters do one by one. Where the name is taken, nothing is done
    /// and the answer is false.
    pub fn introduce(
        &mut self,
        kind: NodeKind,
        view: &RemoteView,
        web_url: Option<&str>,
        generation: u64,
    ) -> Result<bool, StoreError> {
        let Some(parent) = view.parent else { return Ok(false) };
        let place = Place { parent, name: canonical(&view.name) };
        if child_id(&self.db, parent, &place.name)?.is_some() {
            return Ok(false);
        }
        let seen_seq = self.next_sequence();
        let mut insert = self.db.prepare_cached(
            "INSERT INTO nodes(kind, item, r_parent, r_name, r_size, r_mtime, r_btime, r_etag, r_ctag, r_quick, r_sha1,
             r_sha256, r_flags, parent, name, fold, web_url, mark, seen_seq)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?3, ?14, ?15, ?16, ?17, ?18)",
        )?;
        insert.raw_bind_parameter(1, kind.to_sql())?;
        bind_view(&mut insert, view)?;
        insert.raw_bind_parameter(14, &place.name)?;
        insert.raw_bind_parameter(15, names::fold(&place.name))?;
        insert.raw_bind_parameter(16, web_url)?;
        insert.raw_bind_parameter(17, generation as i64)?;
        insert.raw_bind_parameter(18, seen_seq as i64)?;
        insert.raw_execute()?;
        drop(insert);
        self.appeared += 1;
        let id = NodeId(self.db.last_insert_rowid());
        self.put_item(id, &view.item);
        self.changed(id, false);
        self.moved_in_or_out(&place);
        Ok(true)
    }

    /// Changes what the node is.
    pub fn set_kind(&mut self, id: NodeId, kind: NodeKind) -> Result<(), StoreError> {
        self.db
            .prepare_cached("UPDATE nodes SET kind = ?2 WHERE id = ?1")?
            .execute(params![id.0, kind.to_sql()])?;
        self.changed(id, false);
        Ok(())
    }

    /// Replaces the remote view. `None`: no such item on the service.
    pub fn set_remote(&mut self, id: NodeId, view: Option<&RemoteView>) -> Result<(), StoreError> {
        if self.change_item(id, view.map(|view| &view.item))? {
            // What was asked of the item while another row had it may be older than what that row knew.
            self.set_seen(id)?;
        }
        match view {
            Some(view) => self
                .write_view(
                    "UPDATE nodes SET item = ?2, r_parent = ?3, r_name = ?4, r_size = ?5, r_mtime = ?6,
                 r_btime = ?7, r_etag = ?8, r_ctag = ?9, r_quick = ?10, r_sha1 = ?11, r_sha256 = ?12,
                 r_flags = ?13 WHERE id = ?1",
                    id,
                    view,
                )
                .and_then(|()| self.item_came(id, &view.item))?,
            None => {
                self.db
                    .prepare_cached(
                        "UPDATE nodes SET item = NULL, r_parent = NULL, r_name = NULL, r_size = NULL,
                         r_mtime = NULL, r_btime = NULL, r_etag = NULL, r_ctag = NULL, r_quick = NULL,
                         r_sha1 = NULL, r_sha256 = NULL, r_flags = 0 WHERE id = ?1",
                    )?
                    .execute([id.0])?;
            }
        }
        self.changed(id, false);
        self.place(id)
    }

    /// Replaces the base view.
    pub fn set_base(&mut self, id: NodeId, view: Option<&RemoteView>) -> Result<(), StoreError> {
        match view {
            Some(view) => self.write_view(
                "INSERT OR REPLACE INTO base(id, item, r_parent, r_name, r_size, r_mtime, r_btime, r_etag, r_ctag,
                 r_quick, r_sha1, r_sha256, r_flags) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
                id,
                view,
            )?,
            None => {
                self.db.prepare_cached("DELETE FROM base WHERE id = ?1")?.execute([id.0])?;
            }
        }
        self.touched.insert(id);
        Ok(())
    }

    /// Runs `sql` with the columns of a view of the service in the order of the table `base`.
    fn write_view(&self, sql: &str, id: NodeId, view: &RemoteView) -> Result<(), StoreError> {
        let mut statement = self.db.prepare_cached(sql)?;
        statement.raw_bind_parameter(1, id.0)?;
        bind_view(&mut statement, view)?;
        statement.raw_execute()?;
        Ok(())
    }

    /// Replaces the local view. `None`: nothing differs from remote; the base view goes with it.
    ///
    /// Staged content that is referred to no longer is noted in the same transaction, to be unlinked later.
    pub fn set_local(&mut self, id: NodeId, view: Option<&LocalView>) -> Result<(), StoreError> {
        self.drop_content(id, view.and_then(|view| view.content))?;
        match view {
            Some(view) => self.write_local(id, view)?,
            None => {
                self.db.prepare_cached("DELETE FROM local WHERE id = ?1")?.execute([id.0])?;
                self.set_base(id, None)?;
            }
        }
        self.changed(id, false);
        self.place(id)
    }

    fn drop_content(&mut self, id: NodeId, but: Option<u64>) -> Result<(), StoreError> {
        self.db
            .prepare_cached(
                "INSERT OR IGNORE INTO unlinks(content) SELECT content FROM local
                 WHERE id = ?1 AND content IS NOT NULL AND content IS NOT ?2",
            )?
            .execute(params![id.0, but.map(|content| content as i64)])?;
        self.db
            .prepare_cached(
                "DELETE FROM overs WHERE content IN (SELECT content FROM local
                 WHERE id = ?1 AND content IS NOT NULL AND content IS NOT ?2)",
            )?
            .execute(params![id.0, but.map(|content| content as i64)])?;
        self.db
            .prepare_cached(
                "DELETE FROM power WHERE content IN (SELECT content FROM local
                 WHERE id = ?1 AND content IS NOT NULL AND content IS NOT ?2)",
            )?
            .execute(params![id.0, but.map(|content| content as i64)])?;
        if let Some(kept) = but {
            self.db.prepare_cached("DELETE FROM unlinks WHERE content = ?1")?.execute([kept as i64])?;
        }
        Ok(())
    }

    /// Staged content lies over another one, which stays until that ends.
    pub fn lies_over(&mut self, content: u64, base: u64) -> Result<(), StoreError> {
        self.db
            .prepare_cached("INSERT OR REPLACE INTO overs(content, base) VALUES(?1, ?2)")?
            .execute([content as i64, base as i64])?;
        Ok(())
    }

    /// Staged content is complete: it lies over nothing any more.
    pub fn stands_alone(&mut self, content: u64) -> Result<(), StoreError> {
        self.db.prepare_cached("DELETE FROM overs WHERE content = ?1")?.execute([content as i64])?;
        Ok(())
    }

    /// What is known of the content for the case of a power cut; nothing: it was not synced.
    pub fn power(&self, content: u64) -> Result<Option<Power>, StoreError> {
        Ok(self
            .db
            .prepare_cached("SELECT synced FROM power WHERE content = ?1")?
            .query_row([content as i64], |row| row.get::<_, bool>(0))
            .optional()?
            .map(|synced| if synced { Power::Synced } else { Power::Lost }))
    }

    /// Whether a power cut left nobody knows what of the content, if there is any.
    pub fn is_lost(&self, content: Option<u64>) -> Result<bool, StoreError> {
        Ok(content.map(|content| self.power(content)).transpose()?.flatten() == Some(Power::Lost))
    }

    /// All content of which a power cut left nobody knows what.
    pub fn lost(&self) -> Result<BTreeSet<u64>, StoreError> {
        Ok(self
            .db
            .prepare_cached("SELECT content FROM power WHERE synced = 0")?
            .query_map([], |row| row.get::<_, i64>(0).map(|content| content as u64))?
            .collect::<rusqlite::Result<_>>()?)
    }

    /// Replaces what is known of the content for the case of a power cut.
    pub fn set_power(&mut self, content: u64, power: Option<Power>) -> Result<(), StoreError> {
        match power {
            Some(power) => self
                .db
                .prepare_cached("INSERT OR REPLACE INTO power(content, synced) VALUES(?1, ?2)")?
                .execute(params![content as i64, power == Power::Synced])?,
            None => {
                self.db.prepare_cached("DELETE FROM power WHERE content = ?1")?.execute([content as i64])?
            }
        };
        Ok(())
    }

    /// The bytes of the content are durable. What a power cut took before does not come back.
    pub fn synced(&mut self, content: u64) -> Result<(), StoreError> {
        match self.power(content)? {
            None => self.set_power(content, Some(Power::Synced)),
            Some(Power::Synced | Power::Lost) => Ok(()),
        }
    }

    /// The file of this staged content was unlinked.
    pub fn unlinked(&mut self, content: u64) -> Result<(), StoreError> {
        self.db.prepare_cached("DELETE FROM unlinks WHERE content = ?1")?.execute([content as i64])?;
        Ok(())
    }

    fn write_local(&mut self, id: NodeId, view: &LocalView) -> Result<(), StoreError> {
        let seal = view.seal.as_ref();
        let park_kind = view.parked.as_ref().map(|parked| match serde_json::to_value(parked.kind) {
            Ok(serde_json::Value::String(kind)) => kind,
            _ => unreachable!("a unit variant is written as its name"),
        });
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO local(id, parent, name, deleted, content, size, mtime, mtime_set,
                 sealed_size, sealed_blake3, sealed_quick, changed_at, changed_seq, park_kind, park_detail, tries,
                 retry_at, local_only)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
            )?
            .execute(params![
                id.0,
                view.parent.0,
                view.name,
                view.deleted,
                view.content.map(|content| content as i64),
                view.size as i64,
                view.mtime.0,
                view.mtime_set,
                seal.map(|seal| seal.size as i64),
                seal.map(|seal| seal.blake3.as_slice()),
                seal.map(|seal| seal.quick_xor.as_slice()),
                view.changed_at.0,
                view.changed_seq as i64,
                park_kind,
                view.parked.as_ref().map(|parked| parked.detail.as_str()),
                view.tries,
                view.retry_at.0,
                view.local_only,
            ])?;
        Ok(())
    }

    /// Records that an own operation on the node ended now.
    pub fn set_own(&mut self, id: NodeId, seq: u64, time: Timestamp) -> Result<(), StoreError> {
        self.db
            .prepare_cached("UPDATE nodes SET own_seq = ?2, own_time = ?3 WHERE id = ?1")?
            .execute(params![id.0, seq as i64, time.0])?;
        self.touched.insert(id);
        Ok(())
    }

    /// Records that another state of the item than was known is known from here on.
    pub fn set_seen(&mut self, id: NodeId) -> Result<(), StoreError> {
        let seq = self.next_sequence();
        self.db
            .prepare_cached("UPDATE nodes SET seen_seq = ?2 WHERE id = ?1")?
            .execute(params![id.0, seq as i64])?;
        Ok(())
    }

    /// When [`Tx::set_seen`] last was.
    pub fn seen(&self, id: NodeId) -> Result<u64, StoreError> {
        Ok(self
            .db
            .prepare_cached("SELECT seen_seq FROM nodes WHERE id = ?1")?
            .query_row([id.0], |row| row.get::<_, i64>(0).map(|seq| seq as u64))?)
    }

    /// Records when something of the node was last changed here. Sending a change must not move it: programs
    /// (git) take a file whose ctime moved for a changed one.
    pub fn set_ctime(&mut self, id: NodeId, ctime: Timestamp) -> Result<(), StoreError> {
        self.db
            .prepare_cached("UPDATE nodes SET ctime = ?2 WHERE id = ?1")?
            .execute(params![id.0, ctime.0])?;
        self.touched.insert(id);
        Ok(())
    }

    /// Sets the time to show until remote content changes.
    pub fn set_shown_mtime(&mut self, id: NodeId, mtime: Option<Timestamp>) -> Result<(), StoreError> {
        self.db
            .prepare_cached("UPDATE nodes SET shown_mtime = ?2 WHERE id = ?1")?
            .execute(params![id.0, mtime.map(|time| time.0)])?;
        self.changed(id, false);
        Ok(())
    }

    /// Marks a folder's children as all known, or not.
    pub fn set_listed(&mut self, id: NodeId, listed: bool) -> Result<(), StoreError> {
        self.db
            .prepare_cached("UPDATE nodes SET listed = ?2 WHERE id = ?1")?
            .execute(params![id.0, listed])?;
        self.touched.insert(id);
        Ok(())
    }

    /// Marks the folders among the next rows from `from` on as all known; returns where to go on, and nothing where
    /// these were the last. An enumeration ended: so that nobody waits for the writer, a large drive takes many commits.
    /// A folder that is back after it was said to be gone is left to be asked for: what was said to be in it may have been
    /// taken for what went with it.
    pub fn set_listed_from(&mut self, from: NodeId) -> Result<Option<NodeId>, StoreError> {
        let end = from.0.saturating_add(LISTED_AT_ONCE);
        self.db
            .prepare_cached(
                "UPDATE nodes SET listed = 1 WHERE id >= ?1 AND id < ?2 AND kind IN (0, 2) AND listed = 0
                 AND NOT EXISTS(SELECT 1 FROM tombstones t WHERE t.item = nodes.item)",
            )?
            .execute([from.0, end])?;
        let last: Option<i64> = self.db.query_row("SELECT max(id) FROM nodes", [], |row| row.get(0))?;
        if last.is_some_and(|last| last >= end) {
            return Ok(Some(NodeId(end)));
        }
        self.everything();
        Ok(None)
    }

    /// Sets the browser address.
    pub fn set_web_url(&mut self, id: NodeId, url: Option<&str>) -> Result<(), StoreError> {
        self.db
            .prepare_cached("UPDATE nodes SET web_url = ?2 WHERE id = ?1 AND web_url IS NOT ?2")?
            .execute(params![id.0, url])?;
        self.touched.insert(id);
        Ok(())
    }

    /// Stamps the node with an enumeration's generation (mark and sweep).
    pub fn set_mark(&mut self, id: NodeId, generation: u64) -> Result<(), StoreError> {
        self.db
            .prepare_cached("UPDATE nodes SET mark = ?2 WHERE id = ?1")?
            .execute(params![id.0, generation as i64])?;
        Ok(())
    }

    /// Items that the enumeration of this generation did not mark, but for those that an own operation made
    /// or changed since it began.
    pub fn unmarked(&self, generation: u64, began_seq: u64) -> Result<Vec<ItemId>, StoreError> {
        Ok(self
            .db
            .prepare_cached(
                "SELECT item FROM nodes
                 WHERE item IS NOT NULL AND mark <> ?1 AND own_seq <= ?2 AND id <> ?3 ORDER BY id",
            )?
            .query_map(params![generation as i64, began_seq as i64, NodeId::ROOT.0], |row| {
                row.get::<_, String>(0).map(ItemId::new)
            })?
            .collect::<rusqlite::Result<_>>()?)
    }

    /// Takes the row and all that hangs on it away. Its children, if any, must be dealt with first.
    pub fn remove(&mut self, id: NodeId) -> Result<(), StoreError> {
        let old = self.visible(id)?;
        self.drop_content(id, None)?;
        self.unpin(id)?;
        self.change_item(id, None)?;
        for table in ["local", "base", "attrs", "xattrs", "former", "conflicts"] {
            self.db.prepare_cached(&format!("DELETE FROM {table} WHERE id = ?1"))?.execute([id.0])?;
        }
        self.db.prepare_cached("DELETE FROM attempts WHERE node = ?1")?.execute([id.0])?;
        self.db.prepare_cached("DELETE FROM nodes WHERE id = ?1")?.execute([id.0])?;
        self.changed(id, true);
        if let Some(place) = old {
            self.appeared -= 1;
            self.left(&place)?;
        }
        Ok(())
    }

    /// The generation that the node was last stamped with.
    pub fn mark(&self, id: NodeId) -> Result<u64, StoreError> {
        Ok(self
            .db
            .prepare_cached("SELECT mark FROM nodes WHERE id = ?1")?
            .query_row([id.0], |row| row.get::<_, i64>(0).map(|mark| mark as u64))?)
    }

    /// Moves all children of `from`, there and here, below `to` (two rows turned out to be one folder), and names
    /// them.
    pub fn adopt_children(&mut self, from: NodeId, to: NodeId) -> Result<Vec<NodeId>, StoreError> {
        let moved: Vec<NodeId> = self
            .db
            .prepare("SELECT id FROM nodes WHERE r_parent = ?1 UNION SELECT id FROM local WHERE parent = ?1")?
            .query_map([from.0], |row| row.get(0).map(NodeId))?
            .collect::<rusqlite::Result<_>>()?;
        self.db.execute("UPDATE nodes SET r_parent = ?2 WHERE r_parent = ?1", params![from.0, to.0])?;
        self.db.execute("UPDATE base SET r_parent = ?2 WHERE r_parent = ?1", params![from.0, to.0])?;
        self.db.execute("UPDATE local SET parent = ?2 WHERE parent = ?1", params![from.0, to.0])?;
        moved.iter().try_for_each(|&id| self.place(id))?;
        Ok(moved)
    }

    /// Says that the node's bytes are others now.
    pub fn content_changed(&mut self, id: NodeId) {
        self.changed(id, true);
    }

    fn changed(&mut self, id: NodeId, content: bool) {
        self.touched.insert(id);
        if content {
            self.changes.remove(&Change::Node { id, content: false });
        } else if self.changes.contains(&Change::Node { id, content: true }) {
            return;
        }
        self.changes.insert(Change::Node { id, content });
    }

    fn everything(&mut self) {
        self.touched.extend((0..=COARSE as i64).map(|row| NodeId(-row)));
    }

    // ---- the visible tree ----

    fn visible(&self, id: NodeId) -> Result<Option<Place>, StoreError> {
        let row: Option<(Option<i64>, Option<String>)> = self
            .db
            .prepare_cached("SELECT parent, name FROM nodes WHERE id = ?1")?
            .query_row([id.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(match row {
            Some((Some(parent), Some(name))) => Some(Place { parent: NodeId(parent), name }),
            _ => None,
        })
    }

    /// Puts the node where its views say it is visible.
    fn place(&mut self, id: NodeId) -> Result<(), StoreError> {
        if id == NodeId::ROOT {
            return Ok(());
        }
        let node = self.node(id)?;
        let wanted = match (&node.local, &node.remote) {
            (Some(local), _) if local.deleted => None,
            (Some(local), _) => Some(Place { parent: local.parent, name: local.name.clone() }),
            (None, Some(RemoteView { parent: Some(parent), name, .. })) if node.kind != NodeKind::Stub => {
                Some(Place { parent: *parent, name: canonical(name) })
            }
            _ => None,
        };
        let old = node.place;
        let taken = match &wanted {
            Some(place) => child_id(&self.db, place.parent, &place.name)?.is_some_and(|other| other != id),
            None => false,
        };
        let (shown, want) = match wanted {
            Some(place) if taken => {
                let shown = names::disambiguate(place.name.as_ref(), id).to_string_lossy().into_owned();
                (Some(Place { parent: place.parent, name: shown }), Some(place.name))
            }
            other => (other, None),
        };
        if shown == old {
            return Ok(());
        }
        self.db
            .prepare_cached("UPDATE nodes SET parent = ?2, name = ?3, fold = ?4, want = ?5 WHERE id = ?1")?
            .execute(params![
                id.0,
                shown.as_ref().map(|place| place.parent.0),
                shown.as_ref().map(|place| place.name.as_str()),
                shown.as_ref().map(|place| names::fold(&place.name)),
                want,
            ])?;
        self.appeared += i64::from(shown.is_some()) - i64::from(old.is_some());
        self.changed(id, false);
        if let Some(place) = shown {
            self.moved_in_or_out(&place);
        }
        old.map_or(Ok(()), |place| self.left(&place))
    }

    fn moved_in_or_out(&mut self, place: &Place) {
        self.changes.insert(Change::Entry { parent: place.parent, name: place.name.clone() });
        self.changed(place.parent, false);
    }

    /// A name became free: whoever had to step aside for it gets it.
    fn left(&mut self, place: &Place) -> Result<(), StoreError> {
        self.moved_in_or_out(place);
        let waiting: Option<i64> = self
            .db
            .prepare_cached("SELECT id FROM nodes WHERE parent = ?1 AND want = ?2 ORDER BY id LIMIT 1")?
            .query_row(params![place.parent.0, place.name], |row| row.get(0))
            .optional()?;
        waiting.map_or(Ok(()), |id| self.place(NodeId(id)))
    }

    // ---- attributes ----

    /// Sets machine-only attributes; `None` leaves one alone.
    pub fn set_attrs(
        &mut self,
        id: NodeId,
        mode: Option<u16>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<(), StoreError> {
        self.db
            .prepare_cached(
                "INSERT INTO attrs(id, mode, uid, gid) VALUES(?1, ?2, ?3, ?4) ON CONFLICT(id) DO UPDATE SET
                 mode = coalesce(?2, mode), uid = coalesce(?3, uid), gid = coalesce(?4, gid)",
            )?
            .execute(params![id.0, mode, uid, gid])?;
        self.changed(id, false);
        Ok(())
    }

    /// Sets the target of a symbolic link.
    pub fn set_target(&mut self, id: NodeId, target: &[u8]) -> Result<(), StoreError> {
        self.db
            .prepare_cached(
                "INSERT INTO attrs(id, target) VALUES(?1, ?2) ON CONFLICT(id) DO UPDATE SET target = ?2",
            )?
            .execute(params![id.0, target])?;
        self.changed(id, false);
        Ok(())
    }

    /// Hands mode, owner and extended attributes of one node to another (save by rename).
    pub fn copy_attrs(&mut self, from: NodeId, to: NodeId) -> Result<(), StoreError> {
        self.db.execute(
            "INSERT OR REPLACE INTO attrs(id, mode, uid, gid, target)
             SELECT ?2, mode, uid, gid, target FROM attrs WHERE id = ?1",
            params![from.0, to.0],
        )?;
        self.changed(to, false);
        Ok(())
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&mut self, id: NodeId, name: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.db
            .prepare_cached("INSERT OR REPLACE INTO xattrs(id, name, value) VALUES(?1, ?2, ?3)")?
            .execute(params![id.0, name, value])?;
        Ok(())
    }

    /// Takes an extended attribute away; false if there was none.
    pub fn remove_xattr(&mut self, id: NodeId, name: &[u8]) -> Result<bool, StoreError> {
        let removed = self
            .db
            .prepare_cached("DELETE FROM xattrs WHERE id = ?1 AND name = ?2")?
            .execute(params![id.0, name])?;
        Ok(removed > 0)
    }

    // ---- the engine's records ----

    /// A setting of the store.
    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(meta(&self.db, key)?)
    }

    /// Sets or removes a setting.
    pub fn set_meta(&mut self, key: &str, value: Option<&str>) -> Result<(), StoreError> {
        match value {
            Some(value) => self
                .db
                .prepare_cached("INSERT OR REPLACE INTO meta(key, value) VALUES(?1, ?2)")?
                .execute(params![key, value])?,
            None => self.db.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([key])?,
        };
        Ok(())
    }

    /// A number that no staged content had before.
    pub fn next_content(&mut self) -> Result<u64, StoreError> {
        let next = self.meta("next_content")?.and_then(|text| text.parse().ok()).unwrap_or(1u64);
        self.set_meta("next_content", Some(&(next + 1).to_string()))?;
        Ok(next)
    }

    /// The number of content that no row is going to name: it is listed as to be unlinked from the beginning.
    pub fn next_passing_content(&mut self) -> Result<u64, StoreError> {
        let content = self.next_content()?;
        self.db.prepare_cached("INSERT INTO unlinks(content) VALUES(?1)")?.execute([content as i64])?;
        Ok(content)
    }

    /// Leaves the numbers up to `last` to what the disk has under them.
    pub fn skip_contents(&mut self, last: u64) -> Result<(), StoreError> {
        let next = self.meta("next_content")?.and_then(|text| text.parse().ok()).unwrap_or(1u64);
        if next <= last { self.set_meta("next_content", Some(&(last + 1).to_string())) } else { Ok(()) }
    }

    /// Records an attempt; replaces the node's former one.
    pub fn put_attempt(&mut self, attempt: &Attempt) -> Result<(), StoreError> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO attempts(node, op, content, sent_seq, started_at, unknown)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                attempt.node.0,
                attempt.op,
                attempt.content.map(|content| content as i64),
                attempt.sent_seq as i64,
                attempt.started_at.0,
                attempt.unknown,
            ])?;
        Ok(())
    }

    /// Nobody knows any more what became of what was sent: another run sent it.
    pub fn doubt_attempts(&mut self) -> Result<(), StoreError> {
        self.db.execute("UPDATE attempts SET unknown = 1", [])?;
        Ok(())
    }

    /// Whether anything is being sent, or was deleted lately.
    pub fn has_attempts_or_tombstones(&self) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS(SELECT 1 FROM attempts) OR EXISTS(SELECT 1 FROM tombstones)";
        Ok(self.db.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    /// Every attempt.
    pub fn attempts(&self) -> Result<Vec<Attempt>, StoreError> {
        Ok(attempts(&self.db)?)
    }

    /// The node's attempt.
    pub fn attempt(&self, node: NodeId) -> Result<Option<Attempt>, StoreError> {
        Ok(attempts(&self.db)?.into_iter().find(|attempt| attempt.node == node))
    }

    /// Ends an attempt.
    pub fn remove_attempt(&mut self, node: NodeId) -> Result<(), StoreError> {
        self.db.prepare_cached("DELETE FROM attempts WHERE node = ?1")?.execute([node.0])?;
        Ok(())
    }

    /// Records an upload session or its progress.
    pub fn put_session(&mut self, session: &SessionRow) -> Result<(), StoreError> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO sessions(content, node, url, offset, total, expires, created_at, target,
                 mtime_applied) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                session.content as i64,
                session.node.0,
                session.url,
                session.offset as i64,
                session.total as i64,
                session.expires.map(|time| time.0),
                session.created_at.0,
                session.target,
                session.mtime_applied,
            ])?;
        Ok(())
    }

    /// Forgets an upload session.
    pub fn remove_session(&mut self, content: u64) -> Result<(), StoreError> {
        self.db.prepare_cached("DELETE FROM sessions WHERE content = ?1")?.execute([content as i64])?;
        Ok(())
    }

    /// The upload session of this staged content.
    pub fn session(&self, content: u64) -> Result<Option<SessionRow>, StoreError> {
        Ok(session(&self.db, content)?)
    }

    /// Every upload session.
    pub fn sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        Ok(self
            .db
            .prepare(&format!("{SESSION} ORDER BY content"))?
            .query_map([], session_row)?
            .collect::<rusqlite::Result<_>>()?)
    }

    /// Adds an entry of a delta round that is not complete yet (JSON of the engine).
    pub fn push_round(&mut self, item: &str) -> Result<(), StoreError> {
        self.db.prepare_cached("INSERT INTO round(item) VALUES(?1)")?.execute([item])?;
        Ok(())
    }

    /// The entries of the round so far, in order; and empties it.
    pub fn take_round(&mut self) -> Result<Vec<String>, StoreError> {
        let items = self
            .db
            .prepare("SELECT item FROM round ORDER BY seq")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        self.db.execute("DELETE FROM round", [])?;
        Ok(items)
    }

    /// Remembers that an item is gone since `at`; `folder`, where it was deleted here: the path of one that may have
    /// held something unknown.
    pub fn put_tombstone(
        &mut self,
        item: &ItemId,
        seq: u64,
        at: Timestamp,
        folder: Option<&str>,
    ) -> Result<(), StoreError> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO tombstones(item, own_seq, at, folder) VALUES(?1, ?2, ?3, ?4)",
            )?
            .execute(params![item.as_str(), seq as i64, at.0, folder])?;
        Ok(())
    }

    /// The sequence number at which this item was gone, if remembered.
    pub fn tombstone(&self, item: &ItemId) -> Result<Option<u64>, StoreError> {
        Ok(self
            .db
            .prepare_cached("SELECT own_seq FROM tombstones WHERE item = ?1")?
            .query_row([item.as_str()], |row| row.get::<_, i64>(0))
            .optional()?
            .map(|seq| seq as u64))
    }

    /// The path of a folder that was deleted here before `seq`, if remembered.
    pub fn deleted_folder(&self, item: &ItemId, seq: u64) -> Result<Option<String>, StoreError> {
        let found = self
            .db
            .prepare_cached("SELECT folder FROM tombstones WHERE item = ?1 AND own_seq <= ?2")?
            .query_row(params![item.as_str(), seq as i64], |row| row.get(0))
            .optional()?;
        Ok(found.flatten())
    }

    /// Forgets own deletes that a look which began at `seq` has seen, and that happened at `oldest` or before (a change
    /// may be told minutes late), or after `now` by a clock that was set back.
    pub fn expire_tombstones(
        &mut self,
        seq: u64,
        oldest: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.db
            .prepare_cached("DELETE FROM tombstones WHERE own_seq <= ?1 AND (at <= ?2 OR at > ?3)")?
            .execute(params![seq as i64, oldest.0, now.0])?;
        Ok(())
    }

    /// Remembers where a file was moved from at `at`; what was noted before `oldest` is forgotten.
    pub fn put_former(
        &mut self,
        id: NodeId,
        place: &Place,
        at: Timestamp,
        oldest: Timestamp,
    ) -> Result<(), StoreError> {
        self.db.prepare_cached("DELETE FROM former WHERE at < ?1")?.execute([oldest.0])?;
        self.db
            .prepare_cached("INSERT OR REPLACE INTO former(id, parent, name, at) VALUES(?1, ?2, ?3, ?4)")?
            .execute(params![id.0, place.parent.0, place.name, at.0])?;
        Ok(())
    }

    /// Forgets where the file was moved from.
    pub fn remove_former(&mut self, id: NodeId) -> Result<(), StoreError> {
        self.db.prepare_cached("DELETE FROM former WHERE id = ?1")?.execute([id.0])?;
        Ok(())
    }

    /// The item of `from` is that of `to` from here on, and so is where it was moved from.
    pub fn hand_over_former(&mut self, from: NodeId, to: NodeId) -> Result<(), StoreError> {
        self.remove_former(to)?;
        self.db.prepare_cached("UPDATE former SET id = ?2 WHERE id = ?1")?.execute([from.0, to.0])?;
        Ok(())
    }

    /// Where the file was moved from, and when, if that is remembered.
    pub fn former(&self, id: NodeId) -> Result<Option<(Place, Timestamp)>, StoreError> {
        Ok(self
            .db
            .prepare_cached("SELECT parent, name, at FROM former WHERE id = ?1")?
            .query_row([id.0], |row| {
                let place = Place { parent: NodeId(row.get(0)?), name: row.get(1)? };
                Ok((place, Timestamp(row.get(2)?)))
            })
            .optional()?)
    }

    /// Files that were moved away from this place, the last one first.
    pub fn moved_from(&self, place: &Place) -> Result<Vec<NodeId>, StoreError> {
        Ok(self
            .db
            .prepare_cached(
                "SELECT id FROM former WHERE parent = ?1 AND name = ?2 ORDER BY at DESC, id DESC",
            )?
            .query_map(params![place.parent.0, place.name], |row| row.get(0).map(NodeId))?
            .collect::<rusqlite::Result<_>>()?)
    }

    /// Tells the user something that no caller could be told; the newest thousand are kept.
    pub fn notice(&mut self, at: Timestamp, path: &str, text: &str) -> Result<(), StoreError> {
        self.db
            .prepare_cached("INSERT INTO notices(at, path, text) VALUES(?1, ?2, ?3)")?
            .execute(params![at.0, path, text])?;
        self.db.execute("DELETE FROM notices WHERE id <= (SELECT max(id) FROM notices) - 1000", [])?;
        Ok(())
    }
}

/// The form of a service's name that the mapping to local names gives back: what a lookup can find.
pub fn canonical(name: &str) -> String {
    names::to_remote(&names::to_local(name)).unwrap_or_else(|_| name.to_owned())
}

/// The visible child whose name is this one as the service folds, other than `but`.
pub(super) fn folded_id(
    db: &Connection,
    parent: NodeId,
    name: &str,
    but: Option<NodeId>,
) -> rusqlite::Result<Option<NodeId>> {
    let sql = "SELECT id FROM nodes WHERE parent = ?1 AND fold = ?2 AND id <> ?3 ORDER BY id LIMIT 1";
    db.prepare_cached(sql)?
        .query_row(params![parent.0, names::fold(name), but.map_or(0, |id| id.0)], |row| {
            row.get(0).map(NodeId)
        })
        .optional()
}

pub(super) fn child_id(db: &Connection, parent: NodeId, name: &str) -> rusqlite::Result<Option<NodeId>> {
    db.prepare_cached("SELECT id FROM nodes WHERE parent = ?1 AND fold = ?2 AND name = ?3")?
        .query_row(params![parent.0, names::fold(name), name], |row| row.get(0).map(NodeId))
        .optional()
}

/// Binds a view of the service to `?2` and the following, in the order of the table `base`.
fn bind_view(statement: &mut Statement<'_>, view: &RemoteView) -> rusqlite::Result<()> {
    let (version, hashes) = (&view.version, &view.version.hashes);
    statement.raw_bind_parameter(2, view.item.as_str())?;
    statement.raw_bind_parameter(3, view.parent.map(|parent| parent.0))?;
    statement.raw_bind_parameter(4, &view.name)?;
    statement.raw_bind_parameter(5, version.size.map(|size| size as i64))?;
    statement.raw_bind_parameter(6, view.mtime.map(|time| time.0))?;
    statement.raw_bind_parameter(7, view.btime.map(|time| time.0))?;
    statement.raw_bind_parameter(8, version.etag.as_ref().map(|tag| tag.as_str()))?;
    statement.raw_bind_parameter(9, version.ctag.as_ref().map(|tag| tag.as_str()))?;
    statement.raw_bind_parameter(10, hashes.quick_xor.as_ref().map(|hash| hash.as_slice()))?;
    statement.raw_bind_parameter(11, hashes.sha1.as_ref().map(|hash| hash.as_slice()))?;
    statement.raw_bind_parameter(12, hashes.sha256.as_ref().map(|hash| hash.as_slice()))?;
    statement.raw_bind_parameter(13, rows::flags(view))
}

pub(super) fn meta(db: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT value FROM meta WHERE key = ?1")?.query_row([key], |row| row.get(0)).optional()
}

pub(super) fn attempts(db: &Connection) -> rusqlite::Result<Vec<Attempt>> {
    db.prepare_cached("SELECT node, op, content, sent_seq, started_at, unknown FROM attempts ORDER BY node")?
        .query_map([], |row| {
            Ok(Attempt {
                node: NodeId(row.get(0)?),
                op: row.get(1)?,
                content: row.get::<_, Option<i64>>(2)?.map(|content| content as u64),
                sent_seq: row.get::<_, i64>(3)? as u64,
                started_at: Timestamp(row.get(4)?),
                unknown: row.get(5)?,
            })
        })?
        .collect()
}

const SESSION: &str =
    "SELECT content, node, url, offset, total, expires, created_at, target, mtime_applied FROM sessions";

fn session_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        content: row.get::<_, i64>(0)? as u64,
        node: NodeId(row.get(1)?),
        url: row.get(2)?,
        offset: row.get::<_, i64>(3)? as u64,
        total: row.get::<_, i64>(4)? as u64,
        expires: row.get::<_, Option<i64>>(5)?.map(Timestamp),
        created_at: Timestamp(row.get(6)?),
        target: row.get(7)?,
        mtime_applied: row.get(8)?,
    })
}

pub(super) fn session(db: &Connection, content: u64) -> rusqlite::Result<Option<SessionRow>> {
    db.prepare_cached(&format!("{SESSION} WHERE content = ?1"))?
        .query_row([content as i64], session_row)
        .optional()
}
