//! What the commands may ask about mounts without a daemon behind them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{DaemonError, exit};
use crate::fuse::{MountError, MountTable, Unmount, unmount};

/// Whether a file system of ours is mounted at `path`, by the kernel's own list; asks the mount nothing.
pub fn is_mounted(path: &Path) -> bool {
    MountTable::read().is_ok_and(|table| table.at(path).is_some_and(|mount| mount.is_ours()))
}

/// Whether an automount trap lies at `path` below what is mounted there.
pub fn is_over_trap(path: &Path) -> bool {
    MountTable::read().is_ok_and(|table| table.has_trap(path))
}

/// Has umount(8) call `umount.onedrivefs` for our mount at `path`: it knows a FUSE mount's helper only where that is noted in
/// its own table, which mount(8) writes when told to mount nothing. libfuse does it so too.
pub fn tell_umount(path: &Path) -> std::io::Result<()> {
    let table = MountTable::read()?;
    let Some(mount) = table.at(path).filter(|mount| mount.is_ours()) else { return Ok(()) };
    let said = Command::new("mount")
        .args(["--no-canonicalize", "-i", "-f", "-t", &mount.fs_type, "-o", "rw,helper=onedrivefs", "--"])
        .args([mount.source.as_os_str(), path.as_os_str()])
        .stdin(Stdio::null())
        .output()?;
    match said.status.success() {
        true => Ok(()),
        false => Err(std::io::Error::other(String::from_utf8_lossy(&said.stderr).trim().to_owned())),
    }
}

/// Times that a busy mount is tried before it is said to be in use, and the pause between them: a program that is being
/// started holds for a moment what its parent has open.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Takes a mount out of the tree without its daemon, which may be gone; `lazy`: though programs are in it. A daemon that
/// lives sends what is unsent then, and ends.
pub fn unmount_here(path: &Path, lazy: bool) -> Result<(), DaemonError> {
    let how = if lazy { Unmount::Lazy } else { Unmount::WhenIdle };
    Ok(stop_patiently(|| unmount(path, how), std::thread::sleep)?)
}

/// Stops a mount by `stop`, which is asked for about a second while it says that somebody uses it; `pause` lets the time
/// between two tries pass.
pub(super) fn stop_patiently(
    stop: impl Fn() -> Result<(), MountError>,
    mut pause: impl FnMut(Duration),
) -> Result<(), MountError> {
    for _ in 1..TRIES {
        let outcome = stop();
        if !may_pass(&outcome) {
            return outcome;
        }
        pause(PAUSE);
    }
    stop()
}

/// Somebody uses it. (Who is gone again when they are looked for leaves only the word of `fusermount3`.)
fn may_pass(outcome: &Result<(), MountError>) -> bool {
    matches!(outcome, Err(MountError::Busy { .. } | MountError::Fusermount { .. }))
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
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_mount_error_keeps_its_three_parts_and_gets_its_code() {
        let error = DaemonError::from(MountError::Missing { path: "/nowhere".into() });
        assert_eq!(error.what, "cannot mount on /nowhere");
        assert_eq!(error.why, "there is no such directory");
        assert_eq!((error.remedy.as_str(), error.exit_code), ("run `mkdir -p /nowhere`", exit::USAGE));
    }

    #[test]
    fn a_mount_that_is_busy_for_a_moment_is_unmounted_all_the_same() {
        let (tries, paused) = (Cell::new(0), Cell::new(Duration::ZERO));
        let pause = |time| paused.set(paused.get() + time);
        let stop = |until: u32| {
            tries.set(tries.get() + 1);
            let busy = MountError::Busy { path: "/mnt".into(), holders: Vec::new() };
            if tries.get() < until { Err(busy) } else { Ok(()) }
        };
        assert!(stop_patiently(|| stop(5), pause).is_ok());
        assert_eq!(tries.take(), 5);
        paused.take();
        let refused = stop_patiently(|| stop(u32::MAX), pause);
        assert!(matches!(refused, Err(MountError::Busy { .. })), "{refused:?}");
        let paused_for = paused.take();
        assert!(
            paused_for >= Duration::from_millis(900) && paused_for < Duration::from_secs(2),
            "{paused_for:?}"
        );
        tries.take();
        let gone = || {
            tries.set(tries.get() + 1);
            Err(MountError::NotMounted { path: "/mnt".into() })
        };
        assert!(stop_patiently(gone, pause).is_err());
        assert_eq!(tries.get(), 1, "what does not pass is said at once");
    }

    #[test]
    fn an_ordinary_directory_is_no_mount_of_ours() {
        assert!(!is_mounted(Path::new("/")) && !is_mounted(Path::new("/proc")));
    }
}
