//! Ends mounts: ours to stop, and dead ones of earlier daemons.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::check;
use super::error::{Holder, MountError};
use super::mountinfo::MountTable;

/// How to unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// Fails with [`MountError::Busy`] while something below is open.
    WhenIdle,
    /// Takes the mount out of the tree at once; it ends when the last user is gone.
    Lazy,
}

/// Unmounts what is mounted at `path`, as root directly, else through `fusermount3`. Does not wait for the
/// daemon to end.
pub fn unmount(path: &Path, how: Unmount) -> Result<(), MountError> {
    let table = MountTable::read()
        .map_err(|source| MountError::Io { action: "read /proc/self/mountinfo".into(), source })?;
    let path = check::resolve(path, &table, false)?;
    if table.at(&path).is_none() {
        return Err(MountError::NotMounted { path });
    }
    let lazy = if how == Unmount::Lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW | lazy) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => unmount_as_user(&path, how),
        Err(Errno::BUSY) => Err(MountError::Busy { holders: holders(&path), path }),
        Err(Errno::INVAL | Errno::NOENT) => Err(MountError::NotMounted { path }),
        Err(error) => {
            Err(MountError::Io { action: format!("unmount {}", path.display()), source: error.into() })
        }
    }
}

fn unmount_as_user(path: &Path, how: Unmount) -> Result<(), MountError> {
    let mut command = Command::new("fusermount3");
    command.arg("-u").args((how == Unmount::Lazy).then_some("-z")).arg("--").arg(path);
    let output =
        command.stdin(Stdio::null()).output().map_err(|_| MountError::NoFusermount { path: path.into() })?;
    if output.status.success() {
        return Ok(());
    }
    let holders = holders(path);
    if how == Unmount::WhenIdle && !holders.is_empty() {
        return Err(MountError::Busy { path: path.into(), holders });
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(MountError::Fusermount { path: path.into(), message })
}

/// Up to five processes with something open below `path`, as far as this user may see them.
///
/// Reads links of `/proc` only: asks the mount nothing.
fn holders(path: &Path) -> Vec<Holder> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let holding = processes.flatten().filter_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let process = process.path();
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|fd| fd.path());
        let links = [process.join("cwd"), process.join("root")].into_iter().chain(open);
        links.into_iter().any(|link| is_below(&link, path)).then(|| {
            let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
            Holder { pid, command: command.trim_end().to_owned() }
        })
    });
    holding.take(5).collect()
}

fn is_below(link: &Path, path: &Path) -> bool {
    fs::read_link(link).is_ok_and(|target| {
        let target = target.as_os_str().as_bytes();
        // An unlinked file's link ends so.
        Path::new(std::ffi::OsStr::from_bytes(target.strip_suffix(b" (deleted)").unwrap_or(target)))
            .starts_with(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_open_file_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().canonicalize().expect("it exists");
        assert!(holders(&path).is_empty());
        let _open = fs::File::create(path.join("a")).expect("a file");
        assert!(holders(&path).iter().any(|holder| holder.pid == std::process::id()));
    }

    #[test]
    fn nothing_mounted_is_said_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = unmount(dir.path(), Unmount::WhenIdle).expect_err("nothing is mounted");
        assert!(matches!(error, MountError::NotMounted { .. }), "{error}");
    }
}
