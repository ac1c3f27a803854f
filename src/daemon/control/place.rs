//! Where control sockets are.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::Environment;

/// Longest name that is kept as it is; a longer one is cut and told apart by a hash.
const NAME_MAX: usize = 80;
/// What is kept of a longer name.
const NAME_KEPT: usize = 60;

/// The name of the socket of a mount: its path, with `/` as `-`.
///
/// Paths that are long lose their beginning and get a hash, so that no two share a socket.
pub fn socket_name(mountpoint: &Path) -> String {
    let name = escape(mountpoint);
    if name.len() <= NAME_MAX {
        return format!("{name}.sock");
    }
    let hash = blake3::hash(mountpoint.as_os_str().as_bytes()).to_hex();
    format!("{}~{}.sock", &name[name.len() - NAME_KEPT..], &hash[..16])
}

/// A path as one name: `/` becomes `-`, everything but letters, digits, `_` and `.` becomes `%xx`.
pub fn escape(path: &Path) -> String {
    let mut name = String::new();
    for byte in path.as_os_str().as_bytes().iter().skip_while(|byte| **byte == b'/') {
        match byte {
            b'/' => name.push('-'),
            b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => name.push(char::from(*byte)),
            other => name.push_str(&format!("%{other:02x}")),
        }
    }
    if name.is_empty() { "-".to_owned() } else { name }
}

/// Every place where the socket of `mountpoint` may be.
pub fn candidates(environment: &Environment, mountpoint: &Path) -> Vec<PathBuf> {
    let name = socket_name(mountpoint);
    usable_dirs(environment).map(|directory| directory.join(&name)).collect()
}

/// The existing directories of the user's own that may hold sockets.
pub(super) fn usable_dirs(environment: &Environment) -> impl Iterator<Item = PathBuf> {
    let uid = environment.uid;
    environment.runtime_dirs().into_iter().filter(move |directory| is_private(directory, uid))
}

/// The directory for a new socket, made if need be: the first that can be had.
pub fn runtime_dir(environment: &Environment) -> io::Result<PathBuf> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for directory in environment.runtime_dirs() {
        match claim(&directory, environment.uid) {
            Ok(()) => return Ok(directory),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn claim(directory: &Path, uid: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(directory)?;
            if found.is_dir() && found.uid() == uid && found.mode() & 0o077 != 0 {
                fs::set_permissions(directory, Permissions::from_mode(0o700))?;
            }
        }
        Err(error) => return Err(error),
    }
    if is_private(directory, uid) { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// A directory, no link, ours, and closed to others.
fn is_private(directory: &Path, uid: u32) -> bool {
    fs::symlink_metadata(directory)
        .is_ok_and(|found| found.is_dir() && found.uid() == uid && found.mode() & 0o077 == 0)
}

/// A path for `bind` and `connect`, which take 107 bytes: a longer one goes through the open directory.
pub(super) struct SocketPath {
    path: PathBuf,
    /// Keeps the directory's descriptor, which `path` goes through, open.
    _directory: Option<fs::File>,
}

impl SocketPath {
    pub fn new(socket: &Path) -> io::Result<Self> {
        const LONGEST: usize = 107;
        if socket.as_os_str().len() <= LONGEST {
            return Ok(Self { path: socket.to_owned(), _directory: None });
        }
        let (Some(parent), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let directory = fs::File::open(parent)?;
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&directory);
        let path = PathBuf::from(format!("/proc/self/fd/{descriptor}")).join(name);
        Ok(Self { path, _directory: Some(directory) })
    }

    pub fn as_path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_named_after_its_mount() {
        assert_eq!(socket_name(Path::new("/home/ada/One Drive")), "home-ada-One%20Drive.sock");
        assert_eq!(socket_name(Path::new("/")), "-.sock");
        assert_ne!(socket_name(Path::new("/a-b")), socket_name(Path::new("/a/b")));
    }

    #[test]
    fn a_long_path_gives_a_short_name_of_its_own() {
        let one = PathBuf::from(format!("/{}/one", "x".repeat(300)));
        let other = PathBuf::from(format!("/{}y/one", "x".repeat(299)));
        assert!(socket_name(&one).len() <= 100);
        assert_ne!(socket_name(&one), socket_name(&other));
    }

    #[test]
    fn a_directory_that_others_may_enter_is_not_trusted() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("onedrivefs");
        let uid = fs::metadata(home.path()).unwrap().uid();
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        assert!(!is_private(&directory, uid));
        claim(&directory, uid).unwrap();
        assert!(is_private(&directory, uid) && !is_private(&directory, uid + 1));
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&directory, &link).unwrap();
        assert!(claim(&link, uid).is_err());
    }
}
