//! Which daemon a PATH on the command line is for, and what it means there.

use std::path::{Path, PathBuf};

use super::mountpoint;
use super::output::CliError;
use super::umount::not_mounted;
use crate::config::Environment;
use crate::daemon::control::{Client, Presence, find_all};
use crate::daemon::exit;

/// A daemon, and a place in its mount.
#[derive(Debug)]
pub struct Target {
    pub client: Client,
    pub mountpoint: PathBuf,
    /// Relative to the mount; empty: all of it.
    pub inside: PathBuf,
}

/// The daemon of the mount that `path` is in.
pub fn of_path(path: &Path, environment: &Environment) -> Result<Target, CliError> {
    let path = mountpoint::resolve_inside(path)?;
    let (client, mountpoint) = Client::of_path(environment, &path).ok_or_else(|| not_mounted(&path))?;
    let inside = path.strip_prefix(&mountpoint).map(ToOwned::to_owned).unwrap_or_default();
    Ok(Target { client, mountpoint, inside })
}

/// The daemon of the mount that `path` is in, or every daemon of this user.
pub fn all_or_one(path: Option<&Path>, environment: &Environment) -> Result<Vec<Target>, CliError> {
    if let Some(path) = path {
        return Ok(vec![of_path(path, environment)?]);
    }
    let alive = find_all(environment).into_iter().filter_map(|found| match found.presence {
        Presence::Alive(status) => Some((found.socket, status.mountpoint.0)),
        Presence::Unwell(_) | Presence::Dead => None,
    });
    let targets = alive.filter_map(|(socket, mountpoint)| {
        let client = Client::connect(&socket).ok()?;
        Some(Target { client, mountpoint, inside: PathBuf::new() })
    });
    Ok(targets.collect())
}

/// The daemon speaks, but not of what it was asked.
pub fn misunderstood(mountpoint: &Path) -> CliError {
    CliError::new(
        exit::FAILURE,
        mountpoint.display(),
        "the daemon answered something else",
        "use the 'onedrivefs' that it was started from",
    )
}
