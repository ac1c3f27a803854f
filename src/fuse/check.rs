//! Whether a directory can be mounted on, and if not, why and what to do.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::error::MountError;
use super::mountinfo::{Mount, MountTable};
use super::unmount::{self, Unmount};

/// How long an existing mount may take to show that it lives.
const ALIVE_WITHIN: Duration = Duration::from_secs(3);

/// What may be done to make a directory fit.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Make the directory, and its parents, if there is none.
    pub create: bool,
    /// Take a directory that has entries; they are hidden while the mount lasts.
    pub allow_non_empty: bool,
}

/// A directory that can be mounted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mountpoint {
    /// Absolute, without symbolic links.
    pub path: PathBuf,
    /// What was found there.
    pub state: MountpointState,
}

/// What was found at a directory that can be mounted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountpointState {
    /// An ordinary directory.
    Directory,
    /// A systemd or autofs trap; mounting there is what it waits for.
    Trap,
    /// The dead mount of an earlier daemon, which was removed.
    CleanedUp,
}

/// Checks everything about `path` that can be known before mounting there.
///
/// Never opens, lists or asks an automount trap: that would wait for the very mount being made.
pub fn check_mountpoint(path: &Path, options: CheckOptions) -> Result<Mountpoint, MountError> {
    let table = read_table(path)?;
    let path = resolve(path, &table, options.create)?;
    let state = match table.at(&path) {
        Some(mount) if mount.is_trap() => MountpointState::Trap,
        Some(mount) => return after_cleaning(path.clone(), mount, options),
        None => {
            check_directory(&path, options)?;
            MountpointState::Directory
        }
    };
    Ok(Mountpoint { path, state })
}

/// Opens the kernel's device, or says what is missing.
pub(super) fn open_device(mountpoint: &Path) -> Result<OwnedFd, MountError> {
    let device = fs::File::options().read(true).write(true).open("/dev/fuse");
    device.map(OwnedFd::from).map_err(|source| match source.kind() {
        ErrorKind::NotFound => MountError::NoDevice { path: mountpoint.to_owned() },
        ErrorKind::PermissionDenied => MountError::DeviceForbidden { path: mountpoint.to_owned() },
        _ if source.raw_os_error() == Some(libc::ENODEV) => {
            MountError::NoDevice { path: mountpoint.to_owned() }
        }
        _ => MountError::Io { action: "open /dev/fuse".into(), source },
    })
}

fn read_table(path: &Path) -> Result<MountTable, MountError> {
    MountTable::read().map_err(|source| MountError::Io {
        action: format!("mount on {}: read /proc/self/mountinfo", path.display()),
        source,
    })
}

/// The absolute path of the directory itself, following links one at a time so that a trap is never entered.
pub(super) fn resolve(path: &Path, table: &MountTable, create: bool) -> Result<PathBuf, MountError> {
    let failed = |path: &Path, source: io::Error| match source.kind() {
        ErrorKind::NotFound => MountError::Missing { path: path.to_owned() },
        ErrorKind::NotADirectory => MountError::NotDirectory { path: path.to_owned() },
        _ => MountError::Io { action: format!("look at {}", path.display()), source },
    };
    let mut path = std::path::absolute(path).map_err(|source| failed(path, source))?;
    for _ in 0..40 {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return path.canonicalize().map_err(|source| failed(&path, source));
        };
        let parent = match parent.canonicalize() {
            Err(error) if error.kind() == ErrorKind::NotFound && create => {
                fs::create_dir_all(parent).and_then(|()| parent.canonicalize())
            }
            other => other,
        };
        let direct = parent.map_err(|source| failed(&path, source))?.join(name);
        if table.at(&direct).is_some() {
            return Ok(direct);
        }
        match fs::symlink_metadata(&direct) {
            Ok(metadata) if metadata.is_symlink() => {
                let target = fs::read_link(&direct).map_err(|source| failed(&direct, source))?;
                path = direct.parent().unwrap_or(Path::new("/")).join(target);
            }
            Ok(metadata) if metadata.is_dir() => return Ok(direct),
            Ok(_) => return Err(MountError::NotDirectory { path: direct }),
            Err(error) if error.kind() == ErrorKind::NotFound && create => {
                return fs::create_dir(&direct)
                    .map(|()| direct.clone())
                    .map_err(|source| failed(&direct, source));
            }
            Err(source) => return Err(failed(&direct, source)),
        }
    }
    Err(MountError::Io {
        action: format!("look at {}", path.display()),
        source: io::Error::from_raw_os_error(libc::ELOOP),
    })
}

fn check_directory(path: &Path, options: CheckOptions) -> Result<(), MountError> {
    if options.allow_non_empty {
        return Ok(());
    }
    match fs::read_dir(path).map(|mut entries| entries.next()) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(MountError::NotEmpty { path: path.to_owned() }),
        // A directory that may not be listed may still be mounted on.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        Err(source) => Err(MountError::Io { action: format!("list {}", path.display()), source }),
    }
}

/// Something is mounted there: an error, unless it is a dead mount of ours, which is removed.
fn after_cleaning(path: PathBuf, mount: &Mount, options: CheckOptions) -> Result<Mountpoint, MountError> {
    let (source_name, fs_type) = (mount.source.to_string_lossy().into_owned(), mount.fs_type.clone());
    let dead = fs_type.starts_with("fuse") && is_dead(&path);
    match (dead, mount.is_ours()) {
        (false, true) => Err(MountError::AlreadyMounted { path, source_name }),
        (false, false) => Err(MountError::InUse { path, fs_type, source_name }),
        (true, false) => Err(MountError::Dead { path, fs_type }),
        (true, true) => {
            tracing::info!(path = %path.display(), "removing the dead mount of an earlier daemon");
            unmount::unmount(&path, Unmount::Lazy)?;
            let below = check_mountpoint(&path, options)?;
            let trap = below.state == MountpointState::Trap;
            let state = if trap { below.state } else { MountpointState::CleanedUp };
            Ok(Mountpoint { path, state })
        }
    }
}

/// Whether the daemon of the FUSE mount at `path` is gone. One that does not answer in time is not.
fn is_dead(path: &Path) -> bool {
    let (sender, answer) = mpsc::channel();
    let path = path.to_owned();
    // The thread ends when the mount answers; nobody waits for it.
    std::thread::spawn(move || {
        let error = fs::read_dir(&path).err().and_then(|error| error.raw_os_error());
        let _ = sender.send(error);
    });
    matches!(answer.recv_timeout(ALIVE_WITHIN), Ok(Some(libc::ENOTCONN | libc::ECONNABORTED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path, options: CheckOptions) -> String {
        check_mountpoint(path, options).expect_err("it must be refused").to_string()
    }

    #[test]
    fn an_unfit_directory_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().expect("a directory");
        let plain = CheckOptions::default();
        let missing = dir.path().join("a/b");
        assert!(refused(&missing, plain).contains("mkdir -p"));
        let file = dir.path().join("file");
        fs::write(&file, "x").expect("a file");
        assert!(refused(&file, plain).contains("not a directory"));
        assert!(refused(&file.join("below"), plain).contains("not a directory"));
        assert!(refused(dir.path(), plain).contains("not empty"));
        assert!(refused(Path::new("/proc"), plain).contains("proc"));
    }

    #[test]
    fn a_fit_directory_is_named_without_links_and_made_if_asked() {
        let dir = tempfile::tempdir().expect("a directory");
        let real = dir.path().canonicalize().expect("it exists");
        let create = CheckOptions { create: true, ..CheckOptions::default() };
        let made = check_mountpoint(&dir.path().join("a/b"), create).expect("it is made");
        assert_eq!(made, Mountpoint { path: real.join("a/b"), state: MountpointState::Directory });
        std::os::unix::fs::symlink("a/b", dir.path().join("link")).expect("a link");
        let linked = check_mountpoint(&dir.path().join("link"), CheckOptions::default());
        assert_eq!(linked.expect("it is fit").path, real.join("a/b"));
        let full = CheckOptions { allow_non_empty: true, ..CheckOptions::default() };
        assert!(check_mountpoint(dir.path(), full).is_ok());
    }

    #[test]
    fn a_circle_of_links_is_an_error_and_not_a_loop() {
        let dir = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink("b", dir.path().join("a")).expect("a link");
        std::os::unix::fs::symlink("a", dir.path().join("b")).expect("a link");
        assert!(check_mountpoint(&dir.path().join("a"), CheckOptions::default()).is_err());
    }
}
