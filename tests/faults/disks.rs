//! Disks of a test's own: in memory, or in a file. Root only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::mounted_support::{can_mount, have, in_ci, is_root};

/// Whether file systems can be mounted. In CI a machine that has what it takes must do it.
pub fn can_mount_disks(what: &str) -> bool {
    if !can_mount() {
        return false;
    }
    if !is_root() {
        assert!(!in_ci(), "{what} needs root, and CI must run it");
        eprintln!("left out: {what} needs root");
        return false;
    }
    have(&["mount", "umount"])
}

/// A file system that is unmounted when dropped.
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    /// A file system in memory.
    pub fn in_memory(at: &Path, mib: u64) -> Self {
        fs::create_dir_all(at).expect("a directory");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(at));
        Self { at: at.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.at).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted", self.at.display());
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
