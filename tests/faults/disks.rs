//! Disks of a test's own: in memory, or in a file. Root only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::mounted_support::{can_mount, have, in_ci, is_root, until};

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

    /// The file system in an image, by a loop device.
    pub fn of_image(image: &Path, at: &Path) -> Self {
        fs::create_dir_all(at).expect("a directory");
        run(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).args([image, at]));
        Self { at: at.to_owned() }
    }

    /// Lets so little of it wait in memory that much is written before anybody asks for it. (Where the kernel cannot,
    /// before Linux 6.2, only what is asked for is written.)
    pub fn write_early(&self, bytes: u64) {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is there");
        let mut lines = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let line = lines.find(|line| Path::new(line[4]) == self.at).expect("it is mounted");
        let settings = Path::new("/sys/class/bdi").join(line[2]);
        for (name, value) in [("strict_limit", 1), ("max_bytes", bytes)] {
            let _ = fs::write(settings.join(name), value.to_string());
        }
    }

    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Who was killed a moment ago may still hold it.
        let mut said = String::new();
        let unmounted = until(Duration::from_secs(60), || {
            let output = Command::new("umount").arg(&self.at).output();
            let Ok(output) = output else { return false };
            said = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success()
        });
        if !unmounted {
            eprintln!("{} could not be unmounted: {said}", self.at.display());
        }
    }
}

pub fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
