//! Why a mount or unmount failed, each with what to do about it.

use std::io;
use std::path::PathBuf;

/// Why a mount or unmount failed; shown as `what: why; remedy`.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum MountError {
    #[error(
        "cannot mount on {}: this machine has no /dev/fuse; run `modprobe fuse`, or start the container \
         with `--device /dev/fuse --cap-add SYS_ADMIN`", path.display()
    )]
    NoDevice { path: PathBuf },
    #[error(
        "cannot mount on {}: /dev/fuse may not be opened; give this user read and write access to it", path.display()
    )]
    DeviceForbidden { path: PathBuf },
    #[error("cannot mount on {}: fusermount3 is not installed; install the package fuse3", path.display())]
    NoFusermount { path: PathBuf },
    #[error(
        "cannot mount on {}: only root may let other users in; add the line `user_allow_other` to \
         /etc/fuse.conf, or mount without allow_other", path.display()
    )]
    AllowOther { path: PathBuf },
    #[error("cannot mount on {0}: there is no such directory; run `mkdir -p {0}`", path.display())]
    Missing { path: PathBuf },
    #[error("cannot mount on {}: it is not a directory; choose an empty directory", path.display())]
    NotDirectory { path: PathBuf },
    #[error(
        "cannot mount on {}: the directory is not empty; choose an empty one (its entries would be hidden)",
        path.display()
    )]
    NotEmpty { path: PathBuf },
    #[error(
        "cannot mount on {0}: {source_name} is mounted there already; use it, or run `umount {0}` first",
        path.display()
    )]
    AlreadyMounted { path: PathBuf, source_name: String },
    #[error(
        "cannot mount on {}: {source_name} ({fs_type}) is mounted there; choose another directory", path.display()
    )]
    InUse { path: PathBuf, fs_type: String, source_name: String },
    #[error(
        "cannot mount on {0}: a dead mount ({fs_type}) is in the way; remove it with `umount -l {0}`",
        path.display()
    )]
    Dead { path: PathBuf, fs_type: String },
    #[error("cannot mount on {}: the option `{option}` is not known; leave it out", path.display())]
    UnknownOption { path: PathBuf, option: String },
    #[error("cannot unmount {}: it is busy{}; close what is open there, or run 'onedrivefs umount --lazy'", path.display(), held_by(holders))]
    Busy { path: PathBuf, holders: Vec<Holder> },
    #[error("cannot unmount {}: nothing is mounted there; check the path with `findmnt`", path.display())]
    NotMounted { path: PathBuf },
    #[error("fusermount3 failed for {}: {message}; check that you may write to that directory", path.display())]
    Fusermount { path: PathBuf, message: String },
    #[error("cannot {action}: {source}; see the log for what led to it")]
    Io {
        action: String,
        #[source]
        source: io::Error,
    },
}

/// A process that keeps a mount busy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its short name.
    pub command: String,
}

fn held_by(holders: &[Holder]) -> String {
    let names: Vec<_> = holders.iter().map(|holder| format!("{} ({})", holder.command, holder.pid)).collect();
    if names.is_empty() { String::new() } else { format!(", held by {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_mount_names_who_holds_it() {
        let holders =
            vec![Holder { pid: 7, command: "bash".into() }, Holder { pid: 9, command: "vim".into() }];
        let error = MountError::Busy { path: "/mnt/x".into(), holders };
        assert_eq!(
            error.to_string(),
            "cannot unmount /mnt/x: it is busy, held by bash (7), vim (9); \
             close what is open there, or run 'onedrivefs umount --lazy'"
        );
    }
}
