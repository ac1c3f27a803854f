//! What the commands may ask about mounts without a daemon behind them.

use std::path::Path;

use super::{DaemonError, exit};
use crate::fuse::{MountError, MountTable, Unmount, unmount};

/// Whether a file system of ours is mounted at `path`, by the kernel's own list; asks the mount nothing.
pub fn is_mounted(path: &Path) -> bool {
    MountTable::read().is_ok_and(|table| table.at(path).is_some_and(|mount| mount.is_ours()))
}

/// Removes a mount whose daemon is gone; `lazy`: though programs are in it.
pub fn unmount_dead(path: &Path, lazy: bool) -> Result<(), DaemonError> {
    Ok(unmount(path, if lazy { Unmount::Lazy } else { Unmount::WhenIdle })?)
}

impl From<MountError> for DaemonError {
    fn from(error: MountError) -> Self {
        let exit_code = match &error {
            MountError::NoDevice { .. }
            | MountError::DeviceForbidden { .. }
            | MountError::NoFusermount { .. }
            | MountError::AllowOther { .. }
            | MountError::Fusermount { .. } => exit::SYSTEM,
            MountError::Missing { .. }
            | MountError::NotDirectory { .. }
            | MountError::NotEmpty { .. }
            | MountError::UnknownOption { .. } => exit::USAGE,
            MountError::AlreadyMounted { .. }
            | MountError::InUse { .. }
            | MountError::Dead { .. }
            | MountError::Busy { .. } => exit::BUSY,
            MountError::NotMounted { .. } => exit::NOT_MOUNTED,
            MountError::Io { .. } => exit::FAILURE,
        };
        Self::from_line(&error.to_string(), exit_code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_error_keeps_its_three_parts_and_gets_its_code() {
        let error = DaemonError::from(MountError::Missing { path: "/nowhere".into() });
        assert_eq!(error.what, "cannot mount on /nowhere");
        assert_eq!(error.why, "there is no such directory");
        assert_eq!((error.remedy.as_str(), error.exit_code), ("run `mkdir -p /nowhere`", exit::USAGE));
    }

    #[test]
    fn an_ordinary_directory_is_no_mount_of_ours() {
        assert!(!is_mounted(Path::new("/")) && !is_mounted(Path::new("/proc")));
    }
}
