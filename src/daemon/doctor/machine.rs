//! FUSE, directories and versions: what is of this machine.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Finding;
use crate::config::{Environment, MountSettings};
use crate::daemon::control::{Client, Presence, find_all};
use crate::daemon::exit;
use crate::disk::Disk;
use crate::fuse::MountTable;
use crate::model::units::approximate_size;

/// Less than this is worth a word.
const LITTLE: u64 = 1 << 30;

/// All that can be known without a network.
pub(super) fn findings(
    settings: &MountSettings,
    mountpoint: Option<&Path>,
    environment: &Environment,
) -> Vec<Finding> {
    let mut all = vec![versions(), device(), helper(environment)];
    all.extend(others(settings, environment));
    all.push(directory("state", &settings.state_dir, true));
    all.push(directory("cache", &settings.cache_dir, false));
    all.extend(mountpoint.map(|mountpoint| daemon(mountpoint, environment)));
    all
}

fn versions() -> Finding {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_else(|_| "unknown".into());
    let kernel = kernel.trim();
    let found =
        format!("onedrivefs {}, Linux {kernel}, {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    match is_old(kernel) {
        false => Finding::ok("versions", found),
        true => Finding::note("versions", found, "Linux 5.15 or later is what is tested"),
    }
}

/// Older than 5.15.
fn is_old(kernel: &str) -> bool {
    let mut numbers = kernel.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (5, 15)
}

fn device() -> Finding {
    match fs::File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Finding::ok("FUSE", "/dev/fuse can be opened"),
        Err(error) => {
            let remedy = match error.kind() {
                std::io::ErrorKind::PermissionDenied => "allow it: chmod 666 /dev/fuse, or join its group",
                _ => "load it: modprobe fuse; in a container give it --device /dev/fuse",
            };
            Finding::bad("FUSE", exit::SYSTEM, format!("/dev/fuse: {error}"), remedy)
        }
    }
}

fn helper(environment: &Environment) -> Finding {
    let path = environment.variable("PATH").unwrap_or(OsStr::new("/usr/bin:/bin"));
    let found = path.as_bytes().split(|byte| *byte == b':').find_map(|dir| {
        let program = Path::new(OsStr::from_bytes(dir)).join("fusermount3");
        let mode = fs::metadata(&program).ok()?.permissions().mode();
        Some((program, mode))
    });
    let is_root = environment.uid == 0;
    match found {
        Some((program, mode)) if is_root || mode & 0o4000 != 0 => {
            Finding::ok("fusermount3", program.display().to_string())
        }
        Some((program, _)) => {
            let found = format!("{} is not set-user-id root, and can mount nothing", program.display());
            Finding::bad("fusermount3", exit::SYSTEM, found, "install the package fuse3 anew")
        }
        None if is_root => Finding::ok("fusermount3", "not installed, and root needs none"),
        None => Finding::bad("fusermount3", exit::SYSTEM, "not installed", "install the package fuse3"),
    }
}

/// Who may let others enter.
fn others(settings: &MountSettings, environment: &Environment) -> Option<Finding> {
    if settings.allow_other != Some(true) || environment.uid == 0 {
        return None;
    }
    let text = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    let is_allowed = text.lines().any(|line| line.trim() == "user_allow_other");
    Some(match is_allowed {
        true => Finding::ok("allow-other", "/etc/fuse.conf allows it"),
        false => {
            let found = "/etc/fuse.conf does not say user_allow_other";
            Finding::bad("allow-other", exit::SYSTEM, found, "add that line, or leave allow-other out")
        }
    })
}

/// A directory, or the nearest above it that there is: writable, on what, how much is free.
fn directory(check: &'static str, dir: &Path, is_state: bool) -> Finding {
    let flag = if is_state { "--state-dir" } else { "--cache-dir" };
    let shown = dir.display();
    let Some(there) = dir.ancestors().find(|above| above.is_dir()).map(Path::to_owned) else {
        return Finding::bad(
            check,
            exit::FAILURE,
            format!("{shown}: nothing of it is there"),
            format!("give {flag}"),
        );
    };
    // Said where it fails: a directory of one's own on a disk that is read-only, or of somebody else.
    if let Err(error) = tempfile::tempfile_in(&there) {
        let found = format!("{shown}: {}: {error}", there.display());
        return Finding::bad(check, exit::FAILURE, found, format!("make it writable, or give {flag}"));
    }
    let kind = file_system(&there);
    let free = Disk::new().free_bytes(&there).unwrap_or(0);
    let found = format!("{shown} ({kind}, {} free)", approximate_size(free));
    match unfit(&kind) {
        Some(why) if is_state => {
            Finding::bad(check, exit::FAILURE, format!("{found}: {why}"), format!("give {flag} a local disk"))
        }
        Some(why) => Finding::note(check, format!("{found}: {why}"), format!("give {flag} a local disk")),
        None if kind == "tmpfs" && is_state => Finding::note(
            check,
            format!("{found}: unsent data is lost when the machine ends"),
            format!("give {flag} a disk"),
        ),
        None if free < LITTLE => Finding::note(check, found, "make room, or give it another disk"),
        None => Finding::ok(check, found),
    }
}

/// Why a database, and files that are locked, cannot be there.
fn unfit(kind: &str) -> Option<&'static str> {
    let is_remote = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs"].contains(&kind);
    match kind {
        _ if is_remote => Some("a network file system does not keep what was synced and locked"),
        _ if kind.starts_with("fuse.") => Some("a FUSE file system may be gone before this one"),
        _ => None,
    }
}

/// The kind of the file system that holds a directory.
fn file_system(dir: &Path) -> String {
    let path: PathBuf = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let table = MountTable::read().ok();
    let kind =
        table.and_then(|table| path.ancestors().find_map(|above| Some(table.at(above)?.fs_type.clone())));
    kind.unwrap_or_else(|| "unknown".into())
}

fn daemon(mountpoint: &Path, environment: &Environment) -> Finding {
    let shown = mountpoint.display();
    let mounted =
        MountTable::read().is_ok_and(|table| table.at(mountpoint).is_some_and(|mount| mount.is_ours()));
    let found = find_all(environment).into_iter().find(|found| match &found.presence {
        Presence::Alive(status) => status.mountpoint.0 == mountpoint,
        Presence::Unwell(_) | Presence::Dead => false,
    });
    match found.map(|found| found.presence) {
        Some(Presence::Alive(status)) if status.version != env!("CARGO_PKG_VERSION") => {
            let found = format!("{shown} is served by version {}", status.version);
            Finding::note("mount", found, "unmount and mount it again to use this one")
        }
        Some(Presence::Alive(status)) => {
            Finding::ok("mount", format!("{shown} is mounted (process {})", status.pid))
        }
        _ if mounted && Client::of_mount(environment, mountpoint).is_none() => {
            let found = format!("{shown} is mounted, and its daemon does not answer");
            Finding::bad("mount", exit::BUSY, found, format!("run 'onedrivefs umount {shown}'"))
        }
        _ if !mountpoint.is_dir() => Finding::bad(
            "mount",
            exit::USAGE,
            format!("{shown}: there is no such directory"),
            format!("run 'mkdir -p {shown}'"),
        ),
        _ => Finding::ok("mount", format!("{shown} is not mounted")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::doctor::Health;

    // S291.
    #[test]
    fn a_directory_that_cannot_hold_state_is_told_with_what_to_do() {
        let home = tempfile::tempdir().unwrap();
        let fine = directory("state", &home.path().join("not/there/yet"), true);
        assert_ne!(fine.health, Health::Bad, "{fine:?}");
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        let proc = directory("state", Path::new("/proc/self/state"), true);
        assert!(proc.health == Health::Bad && proc.remedy.unwrap().contains("--state-dir"));
        assert!(unfit("nfs4").is_some() && unfit("fuse.sshfs").is_some() && unfit("ext4").is_none());
    }

    // S291.
    #[test]
    fn without_fusermount_only_root_can_mount() {
        let empty = tempfile::tempdir().unwrap();
        let of = |uid| Environment::new(uid, uid, [("PATH".to_owned(), empty.path().into())]);
        assert_eq!(helper(&of(0)).health, Health::Ok);
        let user = helper(&of(1000));
        assert_eq!((user.health, user.exit_code), (Health::Bad, exit::SYSTEM));
        fs::write(empty.path().join("fusermount3"), "").unwrap();
        assert!(helper(&of(1000)).found.contains("set-user-id"));
    }

    #[test]
    fn kernels_are_compared_by_number() {
        assert!(is_old("5.4.0-generic") && is_old("4.19.1") && !is_old("5.15.0-91") && !is_old("6.1.0"));
    }
}
