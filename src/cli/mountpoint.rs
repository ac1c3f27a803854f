//! What MOUNTPOINT and PATH on the command line mean.
//!
//! The last component of a mount point is never opened or looked up as a file: it may be an automount trap,
//! or a mount whose daemon is gone.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::output::CliError;
use crate::daemon::exit;

/// The absolute path of a mount point, its parents without symbolic links.
pub fn resolve(path: &Path) -> Result<PathBuf, CliError> {
    let wrong = |error: std::io::Error| {
        CliError::new(exit::USAGE, path.display(), error, "give a directory that exists")
    };
    let mut path = std::path::absolute(path).map_err(wrong)?;
    // A link to a mount point means the mount point. Reading a link does not look behind it.
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => break,
        }
    }
    match (path.parent(), path.components().next_back()) {
        (Some(parent), Some(Component::Normal(name))) => Ok(parent.canonicalize().map_err(wrong)?.join(name)),
        _ => path.canonicalize().map_err(wrong),
    }
}

/// The absolute path of something inside a mount; it need not exist.
pub fn resolve_inside(path: &Path) -> Result<PathBuf, CliError> {
    path.canonicalize().or_else(|_| resolve(path))
}

/// Whether a file system of ours is mounted at `mountpoint`, by the kernel's own list.
pub fn is_mounted(mountpoint: &Path) -> bool {
    fs::read_to_string("/proc/self/mountinfo").is_ok_and(|list| is_listed(&list, mountpoint))
}

fn is_listed(mountinfo: &str, mountpoint: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    mountinfo.lines().any(|line| {
        let Some((left, right)) = line.split_once(" - ") else { return false };
        let at = left.split(' ').nth(4).map(unescape);
        at.as_deref() == Some(mountpoint.as_os_str().as_bytes())
            && right.split(' ').next().is_some_and(|kind| kind == "fuse.onedrivefs")
    })
}

/// Undoes the kernel's `\040` for a space and its like.
fn unescape(field: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let byte = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_a_mount_point_means_the_mount_point() {
        let home = tempfile::tempdir().unwrap();
        let real = home.path().canonicalize().unwrap().join("real");
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink("real", home.path().join("link")).unwrap();
        assert_eq!(resolve(&home.path().join("link")).unwrap(), real);
        assert_eq!(resolve(&home.path().join("real/../real")).unwrap(), real);
        assert_eq!(resolve(Path::new("/")).unwrap(), Path::new("/"));
        assert!(resolve(Path::new("/nowhere/at/all")).is_err());
    }

    #[test]
    fn the_kernels_list_is_read_with_its_escapes() {
        let list = "36 25 0:31 / /mnt/One\\040Drive rw,nosuid - fuse.onedrivefs onedrivefs rw\n\
                    37 25 0:32 / /mnt/other rw - ext4 /dev/sda rw\n";
        assert!(is_listed(list, Path::new("/mnt/One Drive")));
        assert!(!is_listed(list, Path::new("/mnt/other")) && !is_listed(list, Path::new("/mnt")));
    }
}
