//! Takes set-user-id and set-group-id bits away where the kernel leaves that to the file system.
//!
//! FUSE_HANDLE_KILLPRIV_V2 spares a getxattr before each write and makes these bits our duty on write,
//! truncation and change of owner. The library does not hand on the kernel's mark for truncation, so who
//! may keep them there is decided by the caller's user: all but root lose them.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::model::Ino;
use crate::vfs::{Attr, Caller, FileType, Filesystem, Handle, OpenFlags, Opened, SetAttr, VfsError};

const SUID: u16 = libc::S_ISUID as u16;
const SGID: u16 = libc::S_ISGID as u16;
const GROUP_EXECUTE: u16 = libc::S_IXGRP as u16;

/// Whether any file with such bits was ever shown to the kernel. As long as none was, there is none to clear
/// them from, and writes are spared the look.
static SEEN: AtomicBool = AtomicBool::new(false);

/// Takes note of attributes that are given to the kernel.
pub(super) fn note(attr: &Attr) {
    if attr.mode & (SUID | SGID) != 0 && attr.file_type == FileType::File {
        SEEN.store(true, Relaxed);
    }
}

/// Clears what a change of content by someone without privileges must clear.
pub(super) async fn strip<F: Filesystem>(
    files: &F,
    caller: Caller,
    ino: Ino,
    handle: Option<Handle>,
) -> Result<(), VfsError> {
    if !SEEN.load(Relaxed) {
        return Ok(());
    }
    let (attr, _) = files.getattr(ino, handle).await?;
    if let Some(mode) = without_privileges(&attr) {
        files.setattr(caller, ino, SetAttr { mode: Some(mode), handle, ..SetAttr::default() }).await?;
    }
    Ok(())
}

/// `setattr`, with the bits cleared that a new size or owner clears.
pub(super) async fn setattr<F: Filesystem>(
    files: &F,
    caller: Caller,
    ino: Ino,
    mut changes: SetAttr,
) -> Result<(Attr, Duration), VfsError> {
    let owner = changes.uid.is_some() || changes.gid.is_some();
    let content = changes.size.is_some() && caller.uid != 0;
    if changes.mode.is_none() && (owner || content) && SEEN.load(Relaxed) {
        let (attr, _) = files.getattr(ino, changes.handle).await?;
        changes.mode = without_privileges(&attr);
    }
    files.setattr(caller, ino, changes).await
}

/// `open`, with the bits cleared that a truncation clears.
pub(super) async fn open<F: Filesystem>(
    files: &F,
    caller: Caller,
    ino: Ino,
    flags: OpenFlags,
) -> Result<Opened, VfsError> {
    if flags.truncate && caller.uid != 0 {
        strip(files, caller, ino, None).await?;
    }
    files.open(caller, ino, flags).await
}

/// The mode a file has after an unprivileged change of content or a change of owner (chown(2), write(2)):
/// set-user-id goes, and set-group-id where the group may execute. `None`: nothing to take away.
fn without_privileges(attr: &Attr) -> Option<u16> {
    let group = if attr.mode & GROUP_EXECUTE != 0 { SGID } else { 0 };
    let stripped = attr.mode & !(SUID | group);
    (attr.file_type == FileType::File && stripped != attr.mode).then_some(stripped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn privileges_go_with_a_change_by_another_but_mandatory_locking_bits_stay() {
        let attr = |mode, file_type| Attr {
            ino: Ino::ROOT,
            size: 0,
            blocks: 0,
            mtime: Timestamp(0),
            atime: Timestamp(0),
            ctime: Timestamp(0),
            btime: Timestamp(0),
            file_type,
            mode,
            nlink: 1,
            uid: 0,
            gid: 0,
        };
        assert_eq!(without_privileges(&attr(0o6755, FileType::File)), Some(0o755));
        assert_eq!(without_privileges(&attr(0o2745, FileType::File)), None);
        assert_eq!(without_privileges(&attr(0o644, FileType::File)), None);
        assert_eq!(without_privileges(&attr(0o6755, FileType::Directory)), None);
    }
}
