//! Reads what is unsent out of a database that may be damaged, newer, or in use, changing nothing of it.
//!
//! A database that nobody has open is copied first, with its log, so that SQLite may mend the copy; a header or
//! length that does not fit is mended there too. What then still can be read is taken row by row.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::rows;
use super::schema::KNOWN;
use super::types::Node;
use crate::model::NodeId;

/// The pages of the databases that this program makes, in bytes.
const PAGE: u64 = 4096;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// How the database was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// All of it can be read.
    Whole,
    /// Some of it can be read.
    Damaged(String),
    /// Nothing of it can be read.
    Unreadable(String),
    /// There is none.
    Missing,
}

/// Something that is on this machine only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// Its path, with names as the service has them; folders that cannot be read are left out.
    pub path: Vec<String>,
    /// Its row, as far as it can be read.
    pub node: Option<Node>,
    /// Staged content.
    pub content: Option<u64>,
    /// Size and BLAKE3 where it was sealed.
    pub sealed: Option<(u64, [u8; 32])>,
    /// A folder above it could not be read.
    pub is_misplaced: bool,
}

/// What could be read.
#[derive(Debug)]
pub struct Salvaged {
    /// How the database was found.
    pub state: StoreState,
    /// What is on this machine only: files with staged content, symbolic links, folders.
    pub unsent: Vec<Unsent>,
    /// Staged content that is not wanted any more: it was sent, or its file was deleted.
    pub unwanted: Vec<u64>,
}

impl Salvaged {
    fn nothing(state: StoreState) -> Self {
        Self { state, unsent: Vec::new(), unwanted: Vec::new() }
    }
}

/// Reads the database of the state directory `dir`. `in_use`: a daemon has it open. Else it is copied to `scratch`.
pub fn salvage(dir: &Path, in_use: bool, scratch: &Path) -> Salvaged {
    let path = dir.join("store.sqlite");
    if !path.exists() {
        return Salvaged::nothing(StoreState::Missing);
    }
    if in_use {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        return match Connection::open_with_flags(&path, flags) {
            Ok(db) => read(&db, None),
            Err(error) => Salvaged::nothing(StoreState::Unreadable(error.to_string())),
        };
    }
    let copied = copy(&path, scratch).and_then(|copy| Ok((mend(&copy)?, copy)));
    let (mended, copy) = match copied {
        Ok(copied) => copied,
        Err(error) => return Salvaged::nothing(StoreState::Unreadable(error.to_string())),
    };
    match Connection::open(&copy) {
        Ok(db) => read(&db, mended),
        Err(error) => Salvaged::nothing(StoreState::Unreadable(error.to_string())),
    }
}

/// The database and its log, in `scratch`.
fn copy(path: &Path, scratch: &Path) -> io::Result<PathBuf> {
    let target = scratch.join("store.sqlite");
    fs::copy(path, &target)?;
    let log = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    match fs::copy(log(path), log(&target)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(target),
    }
}

/// Mends the header of the copy: its first page, and how many there are. Says what was wrong.
///
/// Source: sqlite.org/fileformat2.html, "The Database Header".
fn mend(copy: &Path) -> io::Result<Option<String>> {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(copy)?;
    let len = file.metadata()?.len();
    let mut header = [0; 100];
    if len < PAGE || file.read_exact(&mut header).is_err() {
        return Ok((len > 0).then(|| "it is cut off".to_owned()));
    }
    let pages = u32::try_from(len / PAGE).unwrap_or(u32::MAX);
    let stated = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
    let is_sound =
        header.starts_with(MAGIC) && u64::from(u16::from_be_bytes([header[16], header[17]])) == PAGE;
    let wrong = if !is_sound {
        header = fresh_header(pages);
        "its header is damaged"
    } else if stated > pages {
        header[28..32].copy_from_slice(&pages.to_be_bytes());
        "it is cut off"
    } else {
        return Ok(None);
    };
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header)?;
    Ok(Some(wrong.to_owned()))
}

fn fresh_header(pages: u32) -> [u8; 100] {
    let mut header = [0; 100];
    header[..16].copy_from_slice(MAGIC);
    header[16..18].copy_from_slice(&(PAGE as u16).to_be_bytes());
    // Written and read through a log; no reserved bytes; the fixed fractions.
    header[18..24].copy_from_slice(&[2, 2, 0, 64, 32, 32]);
    for (at, number) in [(24, 1u32), (28, pages), (40, 1), (44, 4), (56, 1), (92, 1)] {
        header[at..at + 4].copy_from_slice(&number.to_be_bytes());
    }
    header
}

fn read(db: &Connection, mended: Option<String>) -> Salvaged {
    let mut found = Salvaged::nothing(StoreState::Whole);
    let mut damage = mended;
    let version = db.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    match version {
        Ok(version) if version > KNOWN => {
            damage.get_or_insert(format!("it has format {version}, this program knows up to {KNOWN}"));
        }
        Ok(_) => {}
        Err(error) => drop(damage.get_or_insert(error.to_string())),
    }
    // One moment of a database that is in use.
    if let Err(error) = db.execute_batch("BEGIN") {
        damage.get_or_insert(error.to_string());
    }
    let wanted = rows_of(db, &mut damage);
    found.unwanted = unwanted(db).unwrap_or_default();
    let mut folders = BTreeMap::new();
    for row in wanted {
        let (path, is_misplaced) = path_of(db, &row, &mut folders);
        let node = db
            .query_row(&format!("{} WHERE n.id = ?1", rows::NODE), [row.id], rows::node)
            .optional()
            .unwrap_or_default();
        found.unsent.push(Unsent { path, node, content: row.content, sealed: row.sealed, is_misplaced });
    }
    found.state = match damage {
        None => StoreState::Whole,
        Some(why) if found.unsent.is_empty() && found.unwanted.is_empty() => StoreState::Unreadable(why),
        Some(why) => StoreState::Damaged(why),
    };
    found
}

struct Row {
    id: i64,
    parent: i64,
    name: String,
    content: Option<u64>,
    sealed: Option<(u64, [u8; 32])>,
}

/// What is on this machine only, as far as the rows can be read.
fn rows_of(db: &Connection, damage: &mut Option<String>) -> Vec<Row> {
    let mut found = Vec::new();
    let sql = "SELECT id, parent, name, content, sealed_size, sealed_blake3 FROM local WHERE deleted = 0 ORDER BY id";
    let read = db.prepare(sql).and_then(|mut statement| {
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let blake3 = row.get::<_, Option<Vec<u8>>>(5)?.and_then(|hash| hash.try_into().ok());
            let size = row.get::<_, Option<i64>>(4)?.map(|size| size as u64);
            found.push(Row {
                id: row.get(0)?,
                parent: row.get(1)?,
                name: row.get(2)?,
                content: row.get::<_, Option<i64>>(3)?.map(|content| content as u64),
                sealed: size.zip(blake3),
            });
        }
        Ok(())
    });
    if let Err(error) = read {
        damage.get_or_insert(error.to_string());
    }
    found
}

fn unwanted(db: &Connection) -> rusqlite::Result<Vec<u64>> {
    let sql =
        "SELECT content FROM unlinks UNION SELECT content FROM local WHERE deleted = 1 AND content NOT NULL";
    db.prepare(sql)?.query_map([], |row| row.get::<_, i64>(0).map(|content| content as u64))?.collect()
}

/// The path of a row; and whether a folder above it could not be read.
fn path_of(
    db: &Connection,
    row: &Row,
    folders: &mut BTreeMap<i64, Option<(i64, String)>>,
) -> (Vec<String>, bool) {
    let mut parts = vec![row.name.clone()];
    let mut at = row.parent;
    while at != NodeId::ROOT.0 && parts.len() < 512 {
        let folder = folders.entry(at).or_insert_with(|| {
            let sql = "SELECT coalesce(l.parent, n.parent, n.r_parent), coalesce(l.name, n.name, n.r_name)
                       FROM nodes n LEFT JOIN local l ON l.id = n.id WHERE n.id = ?1";
            db.query_row(sql, [at], |row| Ok((row.get(0)?, row.get(1)?))).ok()
        });
        let Some((parent, name)) = folder else {
            parts.reverse();
            return (parts, true);
        };
        parts.push(name.clone());
        at = *parent;
    }
    parts.reverse();
    (parts, false)
}
