//! Which content, and the name of its files.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::hash::to_hex;
use crate::model::{ContentVersion, ItemId};

/// One version of one item's content.
///
/// Leave `version.hashes` empty for types whose stored bytes the service rewrites (graph-api 6.4): what is
/// there is verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentKey {
    /// The item.
    pub item: ItemId,
    /// Its content version.
    pub version: ContentVersion,
    /// Bytes.
    pub size: u64,
}

/// The short form of an item's id in file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ItemHash([u8; 16]);

/// The name that the files of one content share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name {
    pub item: ItemHash,
    version: [u8; 8],
}

/// The two files of one content.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub data: PathBuf,
    pub map: PathBuf,
}

impl ItemHash {
    pub fn of(item: &ItemId) -> Self {
        Self(first(blake3::hash(item.as_str().as_bytes()).as_bytes()))
    }

    /// The directory of this item's files: one of 256.
    pub fn shard(&self, root: &Path) -> PathBuf {
        root.join(to_hex(&self.0[..1]))
    }
}

impl ContentKey {
    pub(super) fn name(&self) -> Name {
        let mut hasher = blake3::Hasher::new();
        let version = &self.version;
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(version.ctag.as_ref().map_or("", |tag| tag.as_str()).as_bytes());
        field(version.etag.as_ref().map_or("", |tag| tag.as_str()).as_bytes());
        field(&self.size.to_le_bytes());
        field(version.hashes.quick_xor.as_ref().map_or(&[][..], |hash| &hash[..]));
        Name { item: ItemHash::of(&self.item), version: first(hasher.finalize().as_bytes()) }
    }
}

impl Name {
    fn stem(&self) -> String {
        format!("{}-{}", to_hex(&self.item.0), to_hex(&self.version))
    }

    pub fn paths(&self, root: &Path) -> Paths {
        let (dir, stem) = (self.item.shard(root), self.stem());
        Paths { data: dir.join(format!("{stem}.data")), map: dir.join(format!("{stem}.map")) }
    }

    /// Reads `STEM.data` or `STEM.map`; the flag says which (true for data).
    pub fn parse(file_name: &str) -> Option<(Self, bool)> {
        let (stem, extension) = file_name.split_once('.')?;
        let (item, version) = stem.split_once('-')?;
        let name = Self {
            item: ItemHash(crate::model::hash::from_hex(item)?),
            version: crate::model::hash::from_hex(version)?,
        };
        match extension {
            "data" => Some((name, true)),
            "map" => Some((name, false)),
            _ => None,
        }
    }
}

fn first<const N: usize>(bytes: &[u8; 32]) -> [u8; N] {
    std::array::from_fn(|index| bytes[index])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CTag, ETag};

    #[test]
    fn names_round_trip_and_other_files_are_not_names() {
        let key = ContentKey {
            item: ItemId::new("01ABC"),
            version: ContentVersion { ctag: Some(CTag::new("c")), ..ContentVersion::default() },
            size: 7,
        };
        let paths = key.name().paths(Path::new("/x"));
        let file = |path: &Path| path.file_name().expect("a name").to_str().expect("ascii").to_owned();
        assert_eq!(Name::parse(&file(&paths.data)), Some((key.name(), true)));
        assert_eq!(Name::parse(&file(&paths.map)), Some((key.name(), false)));
        for other in ["README", "a-b.data", "trash-1", "."] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    #[test]
    fn another_tag_or_size_is_another_file() {
        let key = |etag: Option<&str>, ctag: Option<&str>, size| ContentKey {
            item: ItemId::new("i"),
            version: ContentVersion {
                etag: etag.map(ETag::new),
                ctag: ctag.map(CTag::new),
                ..ContentVersion::default()
            },
            size,
        };
        let keys =
            [key(Some("a"), None, 1), key(None, Some("a"), 1), key(Some("a"), None, 2), key(None, None, 1)];
        for (index, left) in keys.iter().enumerate() {
            for right in &keys[index + 1..] {
                assert_ne!(left.name(), right.name());
            }
        }
    }
}
