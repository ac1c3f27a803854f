//! Identifiers of remote things and of our own nodes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A drive's id exactly as the service gave it.
///
/// Equality ignores what the service itself varies on personal drives: letter case and a missing
/// leading zero (graph-api 2.2). Business ids (`b!…`) are case-sensitive.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DriveId(String);

impl DriveId {
    /// Takes the id as the service wrote it.
    pub fn new(raw: impl Into<String>) -> Self {
        Self(raw.into())
    }

    /// The id as the service wrote it: what requests carry.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form that equal drives share: used as a key and as a directory name.
    pub fn canonical(&self) -> String {
        let personal = self.0.len() <= 16 && self.0.bytes().all(|byte| byte.is_ascii_hexdigit());
        if personal { format!("{:0>16}", self.0.to_ascii_lowercase()) } else { self.0.clone() }
    }
}

impl PartialEq for DriveId {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

impl Eq for DriveId {}

impl std::hash::Hash for DriveId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.canonical().hash(state);
    }
}

impl fmt::Display for DriveId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An item's id inside its drive; opaque and case-sensitive (graph-api 3.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemId(String);

impl ItemId {
    /// Takes the id as the service wrote it.
    pub fn new(raw: impl Into<String>) -> Self {
        Self(raw.into())
    }

    /// The id as the service wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A node's row in its drive's store. Never reused; the root of a drive is [`NodeId::ROOT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub i64);

impl NodeId {
    /// The root of a drive.
    pub const ROOT: NodeId = NodeId(1);
}

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "n{}", self.0)
    }
}

/// The kernel's node id: `drive slot << 48 | row id`. Node 1 is the root of the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

const ROW_BITS: u32 = 48;

impl Ino {
    /// The root of the mount.
    pub const ROOT: Ino = Ino(1);

    /// The node id of `node` in the drive of `slot`; slot 0's root is the root of the mount.
    pub fn new(slot: u16, node: NodeId) -> Self {
        Ino(u64::from(slot) << ROW_BITS | (node.0 as u64 & ((1 << ROW_BITS) - 1)))
    }

    /// Which drive of the mount.
    pub fn slot(self) -> u16 {
        (self.0 >> ROW_BITS) as u16
    }

    /// Which node of that drive.
    pub fn node(self) -> NodeId {
        NodeId((self.0 & ((1 << ROW_BITS) - 1)) as i64)
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.slot(), self.node().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn personal_drive_ids_are_equal_in_any_case_and_without_leading_zero() {
        assert_eq!(DriveId::new("024470056F5C3E43"), DriveId::new("24470056f5c3e43"));
        assert_ne!(DriveId::new("b!ABC"), DriveId::new("b!abc"));
    }

    #[test]
    fn an_inode_number_splits_into_what_it_was_made_of() {
        let ino = Ino::new(3, NodeId(77));
        assert_eq!((ino.slot(), ino.node()), (3, NodeId(77)));
        assert_eq!(Ino::new(0, NodeId::ROOT), Ino::ROOT);
    }
}
