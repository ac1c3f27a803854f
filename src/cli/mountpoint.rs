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
}
