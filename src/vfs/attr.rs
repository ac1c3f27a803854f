//! Nodes as the kernel sees them.

use std::os::unix::ffi::OsStrExt;

use super::{Attr, FileType, VfsConfig};
use crate::model::{Ino, Timestamp};
use crate::store::{Node, NodeKind};

/// Nominal size of a directory.
const DIRECTORY_SIZE: u64 = 4096;
/// Unit of `st_blocks`.
const SECTOR: u64 = 512;

/// What an open file knows better than the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub size: u64,
    pub mtime: Option<Timestamp>,
    pub ctime: Option<Timestamp>,
}

pub(super) fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File => FileType::File,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::Stub | NodeKind::Folder | NodeKind::Package | NodeKind::Shortcut => FileType::Directory,
    }
}

pub(super) fn attr(config: &VfsConfig, node: &Node, shown: Option<Shown>) -> Attr {
    let file_type = file_type(node.kind);
    let target = node.attrs.target.as_ref().map_or(0, |target| target.as_os_str().as_bytes().len() as u64);
    let size = match file_type {
        FileType::File => shown.map_or_else(|| node.size(), |shown| shown.size),
        FileType::Directory => DIRECTORY_SIZE,
        FileType::Symlink => target,
    };
    let mtime = shown.and_then(|shown| shown.mtime).unwrap_or_else(|| node.mtime());
    let changed = shown.and_then(|shown| shown.ctime).map_or(node.ctime, |ctime| ctime.max(node.ctime));
    let born = node.content_view().and_then(|view| view.btime);
    let unlinked = node.local.as_ref().is_some_and(|local| local.deleted);
    Attr {
        ino: Ino::new(config.slot, node.id),
        size,
        blocks: if file_type == FileType::File { size.div_ceil(SECTOR) } else { 0 },
        mtime,
        atime: mtime,
        ctime: mtime.max(changed),
        btime: born.unwrap_or(mtime),
        file_type,
        mode: mode(config, node),
        nlink: match file_type {
            _ if unlinked => 0,
            FileType::Directory => 2,
            FileType::File | FileType::Symlink => 1,
        },
        uid: node.attrs.uid.unwrap_or(config.uid),
        gid: node.attrs.gid.unwrap_or(config.gid),
    }
}

fn mode(config: &VfsConfig, node: &Node) -> u16 {
    match node.kind {
        NodeKind::Symlink => 0o777,
        // Nothing inside can be changed, whatever the mount says.
        NodeKind::Package => 0o555,
        NodeKind::File => node.attrs.mode.unwrap_or(config.file_mode),
        NodeKind::Stub | NodeKind::Folder | NodeKind::Shortcut => node.attrs.mode.unwrap_or(config.dir_mode),
    }
}
