//! Rows of the database to nodes and back.

use rusqlite::Row;
use rusqlite::types::Type;

use super::types::{Attrs, LocalView, Node, NodeKind, Parked, Place, RemoteView, Seal};
use crate::model::{CTag, ContentVersion, ETag, Hashes, ItemId, NodeId, Timestamp};

/// All of a node in one row; the order is that of [`node`].
pub(super) const NODE: &str = "
SELECT n.id, n.kind, n.parent, n.name, n.web_url, n.own_seq, n.own_time, n.shown_mtime, n.listed,
  n.item, n.r_parent, n.r_name, n.r_size, n.r_mtime, n.r_btime, n.r_etag, n.r_ctag, n.r_quick, n.r_sha1, n.r_sha256, n.r_flags,
  b.item, b.r_parent, b.r_name, b.r_size, b.r_mtime, b.r_btime, b.r_etag, b.r_ctag, b.r_quick, b.r_sha1, b.r_sha256, b.r_flags,
  l.parent, l.name, l.deleted, l.content, l.size, l.mtime, l.mtime_set, l.sealed_size, l.sealed_blake3, l.sealed_quick,
  l.changed_at, l.changed_seq, l.park_kind, l.park_detail, l.tries, l.retry_at, l.local_only,
  a.mode, a.uid, a.gid, a.target, n.ctime
FROM nodes n LEFT JOIN base b ON b.id = n.id LEFT JOIN local l ON l.id = n.id LEFT JOIN attrs a ON a.id = n.id
";

/// What follows [`NODE`] to read the nodes with a local view, in row order. Written so that SQLite begins with the few
/// rows of `local`: after a join it would go through every node of the drive.
pub(super) const DIRTY: &str = "WHERE n.id IN (SELECT id FROM local) ORDER BY n.id";

/// What follows [`NODE`] to read some children (`?3`) of `?1` with a row above `?2`, in row order.
pub(super) const CHILDREN_AFTER: &str = "WHERE n.parent = ?1 AND n.id > ?2 ORDER BY n.id LIMIT ?3";

const REMOTE_AT: usize = 9;
const BASE_AT: usize = 21;
const LOCAL_AT: usize = 33;
const ATTRS_AT: usize = 50;
const CTIME_AT: usize = 54;

const FLAG_MALWARE: i64 = 1;
/// Above the flags: one more than [`RemoteView::actual_size`], if there is one.
const SIZE_SHIFT: u32 = 8;

/// What stands in `r_flags`.
pub(super) fn flags(view: &RemoteView) -> i64 {
    let flags = if view.malware { FLAG_MALWARE } else { 0 };
    // Sizes end long before the bits do (graph-api 4.4).
    flags | view.actual_size.map_or(0, |size| ((size + 1) << SIZE_SHIFT) as i64)
}

fn corrupt(column: usize, what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Null, what.into())
}

fn bytes<const N: usize>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<[u8; N]>> {
    row.get::<_, Option<Vec<u8>>>(column)?
        .map(|blob| blob.try_into().map_err(|_| corrupt(column, "a hash of another length")))
        .transpose()
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp))
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(|value| value as u64))
}

fn view(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<RemoteView>> {
    let (Some(item), Some(name)) = (row.get::<_, Option<String>>(at)?, row.get::<_, Option<String>>(at + 2)?)
    else {
        return Ok(None);
    };
    let flags = row.get::<_, Option<i64>>(at + 11)?.unwrap_or(0);
    Ok(Some(RemoteView {
        item: ItemId::new(item),
        parent: row.get::<_, Option<i64>>(at + 1)?.map(NodeId),
        name,
        version: ContentVersion {
            size: unsigned(row, at + 3)?,
            etag: row.get::<_, Option<String>>(at + 6)?.map(ETag::new),
            ctag: row.get::<_, Option<String>>(at + 7)?.map(CTag::new),
            hashes: Hashes {
                quick_xor: bytes(row, at + 8)?,
                sha1: bytes(row, at + 9)?,
                sha256: bytes(row, at + 10)?,
            },
        },
        mtime: time(row, at + 4)?,
        btime: time(row, at + 5)?,
        malware: flags & FLAG_MALWARE != 0,
        actual_size: (flags as u64 >> SIZE_SHIFT).checked_sub(1),
    }))
}

fn seal(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Seal>> {
    let (Some(size), Some(blake3), Some(quick_xor)) =
        (unsigned(row, at)?, bytes(row, at + 1)?, bytes(row, at + 2)?)
    else {
        return Ok(None);
    };
    Ok(Some(Seal { size, blake3, quick_xor }))
}

fn parked(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Parked>> {
    let Some(kind) = row.get::<_, Option<String>>(at)? else { return Ok(None) };
    let kind = serde_json::from_value(serde_json::Value::String(kind))
        .map_err(|_| corrupt(at, "an unknown reason for parking"))?;
    Ok(Some(Parked { kind, detail: row.get::<_, Option<String>>(at + 1)?.unwrap_or_default() }))
}

fn local(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<LocalView>> {
    let Some(parent) = row.get::<_, Option<i64>>(at)? else { return Ok(None) };
    Ok(Some(LocalView {
        parent: NodeId(parent),
        name: row.get(at + 1)?,
        deleted: row.get(at + 2)?,
        content: unsigned(row, at + 3)?,
        size: unsigned(row, at + 4)?.unwrap_or(0),
        mtime: Timestamp(row.get(at + 5)?),
        mtime_set: row.get(at + 6)?,
        seal: seal(row, at + 7)?,
        changed_at: Timestamp(row.get(at + 10)?),
        changed_seq: unsigned(row, at + 11)?.unwrap_or(0),
        parked: parked(row, at + 12)?,
        tries: row.get(at + 14)?,
        retry_at: Timestamp(row.get(at + 15)?),
        local_only: row.get(at + 16)?,
    }))
}

/// Reads a row of [`NODE`].
pub(super) fn node(row: &Row<'_>) -> rusqlite::Result<Node> {
    use std::os::unix::ffi::OsStringExt;
    let kind = NodeKind::from_sql(row.get(1)?).ok_or_else(|| corrupt(1, "an unknown kind of node"))?;
    let place = match (row.get::<_, Option<i64>>(2)?, row.get::<_, Option<String>>(3)?) {
        (Some(parent), Some(name)) => Some(Place { parent: NodeId(parent), name }),
        _ => None,
    };
    Ok(Node {
        id: NodeId(row.get(0)?),
        kind,
        place,
        web_url: row.get(4)?,
        own_seq: unsigned(row, 5)?.unwrap_or(0),
        own_time: Timestamp(row.get(6)?),
        shown_mtime: time(row, 7)?,
        listed: row.get(8)?,
        ctime: Timestamp(row.get(CTIME_AT)?),
        remote: view(row, REMOTE_AT)?,
        base: view(row, BASE_AT)?,
        local: local(row, LOCAL_AT)?,
        attrs: Attrs {
            mode: row.get(ATTRS_AT)?,
            uid: row.get(ATTRS_AT + 1)?,
            gid: row.get(ATTRS_AT + 2)?,
            target: row
                .get::<_, Option<Vec<u8>>>(ATTRS_AT + 3)?
                .map(|target| std::ffi::OsString::from_vec(target).into()),
        },
    })
}
