//! Extended attributes: the user's are kept on this machine, those of the item are computed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{Drive, Vfs, VfsError, XattrMode};
use crate::model::hash::{quick_xor_to_base64, to_hex};
use crate::model::{Hashes, NodeId};
use crate::store::{Durability, Node, Pinned};

/// Prefix of what the service says of an item.
const OURS: &[u8] = b"user.onedrive.";
/// Longest value, in bytes (the kernel's own limit).
const VALUE_MAX: usize = 64 << 10;

/// The computed attributes, in the order they are listed.
const COMPUTED: &[&str] = &["id", "drive", "etag", "ctag", "weburl", "hash", "state"];

/// Says whether the content is kept here; to set or to remove it is to pin or to unpin.
const PINNED: &[u8] = b"user.onedrive.pinned";

/// Whether an attribute of this name pins.
pub(super) fn is_pin(name: &OsStr) -> bool {
    name.as_bytes() == PINNED
}

/// What may be done with an attribute of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Computed here; index into [`COMPUTED`].
    Computed(usize),
    /// [`PINNED`].
    Pinned,
    /// Kept in the store.
    Kept,
    /// Never there, and asked for by the kernel before each write (`security.capability`): an error other than "no such
    /// attribute" would fail what it checks.
    Absent,
    /// Not offered. `ls -l` asks for each file's access list and `security.selinux`, until it is told so once for the
    /// file system.
    Unsupported,
}

fn classify(name: &[u8]) -> Class {
    if name == PINNED {
        return Class::Pinned;
    }
    if let Some(rest) = name.strip_prefix(OURS) {
        let known = COMPUTED.iter().position(|known| known.as_bytes() == rest);
        return known.map_or(Class::Absent, Class::Computed);
    }
    if name.starts_with(b"user.") || name.starts_with(b"trusted.") {
        Class::Kept
    } else if name == b"security.capability" {
        Class::Absent
    } else {
        Class::Unsupported
    }
}

impl<D: Drive> Vfs<D> {
    pub(super) fn read_xattr(&self, id: NodeId, name: &OsStr) -> Result<Vec<u8>, VfsError> {
        match classify(name.as_bytes()) {
            Class::Computed(index) => {
                let node = self.node(id)?;
                self.computed(&node, COMPUTED[index]).map(String::into_bytes).ok_or(VfsError::NoAttribute)
            }
            Class::Pinned => match self.drive.store().pinned(id)? {
                Some(Pinned::Itself) => Ok(b"1".to_vec()),
                Some(Pinned::Within(_)) => Ok(b"inherited".to_vec()),
                None => Err(VfsError::NoAttribute),
            },
            Class::Kept => self.drive.store().xattr(id, name.as_bytes())?.ok_or(VfsError::NoAttribute),
            Class::Absent => Err(VfsError::NoAttribute),
            Class::Unsupported => Err(VfsError::NotSupported),
        }
    }

    pub(super) fn list_xattrs(&self, id: NodeId) -> Result<Vec<u8>, VfsError> {
        let node = self.node(id)?;
        let mut list = Vec::new();
        for what in COMPUTED {
            if self.computed(&node, what).is_some() {
                list.extend_from_slice(OURS);
                list.extend_from_slice(what.as_bytes());
                list.push(0);
            }
        }
        if self.drive.store().pinned(id)?.is_some() {
            list.extend_from_slice(PINNED);
            list.push(0);
        }
        for name in self.drive.store().xattr_names(id)? {
            list.extend_from_slice(&name);
            list.push(0);
        }
        Ok(list)
    }

    pub(super) fn write_xattr(
        &self,
        id: NodeId,
        name: &OsStr,
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), VfsError> {
        let name = name.as_bytes();
        if classify(name) != Class::Kept {
            return Err(VfsError::NotSupported);
        }
        if value.len() > VALUE_MAX {
            return Err(VfsError::NoSpace);
        }
        let (store, now) = (self.drive.store(), self.now());
        store
            .write_changes(Durability::Process, |tx| {
                tx.find(id)?.ok_or(VfsError::Stale)?;
                tx.set_ctime(id, now)?;
                let exists = match mode {
                    XattrMode::Set => None,
                    XattrMode::Create | XattrMode::Replace => Some(tx.remove_xattr(id, name)?),
                };
                match (mode, exists) {
                    (XattrMode::Create, Some(true)) => Err(VfsError::Exists),
                    (XattrMode::Replace, Some(false)) => Err(VfsError::NoAttribute),
                    _ => Ok(tx.set_xattr(id, name, value)?),
                }
            })
            .map(|_| ())
    }

    pub(super) fn drop_xattr(&self, id: NodeId, name: &OsStr) -> Result<(), VfsError> {
        let name = name.as_bytes();
        match classify(name) {
            Class::Kept => {}
            Class::Absent => return Err(VfsError::NoAttribute),
            Class::Computed(_) | Class::Pinned | Class::Unsupported => return Err(VfsError::NotSupported),
        }
        let now = self.now();
        let removed = self.drive.store().write(Durability::Process, |tx| {
            tx.set_ctime(id, now)?;
            tx.remove_xattr(id, name)
        })?;
        if removed { Ok(()) } else { Err(VfsError::NoAttribute) }
    }

    /// Pins where the value says so (`1`, or nothing), unpins where it says `0`.
    pub(super) async fn write_pin(&self, id: NodeId, value: &[u8], mode: XattrMode) -> Result<(), VfsError> {
        let pinned = match value {
            b"" | b"1" => true,
            b"0" => false,
            _ => return Err(VfsError::Invalid),
        };
        let own = self.drive.store().pinned(id)? == Some(Pinned::Itself);
        match (mode, own) {
            (XattrMode::Create, true) => Err(VfsError::Exists),
            (XattrMode::Replace, false) => Err(VfsError::NoAttribute),
            _ => self.drive.set_pinned(id, pinned).await,
        }
    }

    pub(super) async fn drop_pin(&self, id: NodeId) -> Result<(), VfsError> {
        match self.drive.store().pinned(id)? {
            None => Err(VfsError::NoAttribute),
            Some(_) => self.drive.set_pinned(id, false).await,
        }
    }

    fn computed(&self, node: &Node, what: &str) -> Option<String> {
        let remote = node.remote.as_ref();
        match what {
            "id" => remote.map(|view| view.item.to_string()),
            "drive" => remote.map(|_| self.drive.drive_id().to_string()),
            "etag" => remote.and_then(|view| view.version.etag.as_ref()).map(ToString::to_string),
            "ctag" => remote.and_then(|view| view.version.ctag.as_ref()).map(ToString::to_string),
            "weburl" => node.web_url.clone(),
            "hash" => remote.and_then(|view| hash(&view.version.hashes)),
            "state" => Some(state(node)),
            _ => None,
        }
    }
}

/// The strongest hash that the service gave, with its name.
fn hash(hashes: &Hashes) -> Option<String> {
    let sha256 = hashes.sha256.as_ref().map(|hash| format!("sha256:{}", to_hex(hash)));
    let sha1 = || hashes.sha1.as_ref().map(|hash| format!("sha1:{}", to_hex(hash)));
    let quick = || hashes.quick_xor.as_ref().map(|hash| format!("quickxor:{}", quick_xor_to_base64(hash)));
    sha256.or_else(sha1).or_else(quick)
}

/// How the node stands to the service, in one or two words and a reason.
fn state(node: &Node) -> String {
    match &node.local {
        None => "synced".into(),
        Some(local) if local.local_only => "local-only".into(),
        Some(local) => match &local.parked {
            Some(parked) => format!("parked: {}", parked.detail),
            None => "pending".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_of_names_is_told_apart() {
        let cases = [
            ("user.onedrive.id", Class::Computed(0)),
            ("user.onedrive.state", Class::Computed(6)),
            ("user.onedrive.pinned", Class::Pinned),
            ("user.onedrive.nonsense", Class::Absent),
            ("user.comment", Class::Kept),
            ("trusted.overlay.opaque", Class::Kept),
            ("security.capability", Class::Absent),
            ("security.selinux", Class::Unsupported),
            ("system.posix_acl_access", Class::Unsupported),
            ("system.nfs4_acl", Class::Unsupported),
        ];
        for (name, expected) in cases {
            assert_eq!(classify(name.as_bytes()), expected, "{name}");
        }
    }
}
