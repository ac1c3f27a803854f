//! What is mounted where, from `/proc/self/mountinfo`: the one way to look at a directory that wakes no
//! automount and asks no other file system anything.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The file system type of our mounts, as mountinfo shows it.
pub const FS_TYPE: &str = "fuse.onedrivefs";

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The mount's number.
    pub id: u64,
    /// The mount that this one is mounted on.
    pub parent: u64,
    /// Device number, `major:minor`; names the file system, also after an unmount and a new mount.
    pub device: String,
    /// Where, as this process sees it.
    pub mount_point: PathBuf,
    /// `ext4`, `autofs`, `fuse.onedrivefs`.
    pub fs_type: String,
    /// What was given as the device to mount.
    pub source: OsString,
}

impl Mount {
    /// Whether this program mounted it.
    pub fn is_ours(&self) -> bool {
        self.fs_type == FS_TYPE
    }

    /// Whether it is a trap that mounts something when it is looked into.
    pub fn is_trap(&self) -> bool {
        self.fs_type == "autofs"
    }
}

/// All mounts of this process's namespace.
#[derive(Clone, Debug)]
pub struct MountTable {
    mounts: Vec<Mount>,
}

impl MountTable {
    /// Reads the table of this process.
    pub fn read() -> io::Result<Self> {
        fs::read("/proc/self/mountinfo").map(|text| Self::parse(&text))
    }

    /// Parses the text of a mountinfo file (proc_pid_mountinfo(5)); lines that make no sense are left out.
    pub fn parse(text: &[u8]) -> Self {
        Self { mounts: text.split(|&byte| byte == b'\n').filter_map(parse_line).collect() }
    }

    /// What is mounted exactly at `path` and visible there; `path` is absolute and without symbolic links.
    pub fn at(&self, path: &Path) -> Option<&Mount> {
        let mut current: Option<&Mount> = None;
        let ancestors: Vec<&Path> = path.ancestors().collect();
        for ancestor in ancestors.into_iter().rev() {
            while let Some(upper) = self.mounted_on(current, ancestor) {
                current = Some(upper);
            }
        }
        current.filter(|mount| mount.mount_point == path)
    }

    /// Whether a trap lies at `path`, under whatever is mounted there.
    pub fn has_trap(&self, path: &Path) -> bool {
        self.mounts.iter().any(|mount| mount.is_trap() && mount.mount_point == path)
    }

    /// Mounts of this program, in the order in which they were made.
    pub fn ours(&self) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(|mount| mount.is_ours())
    }

    /// The mount at `path` on `lower`; without a `lower`, one whose parent this process does not see.
    fn mounted_on(&self, lower: Option<&Mount>, path: &Path) -> Option<&Mount> {
        self.mounts.iter().find(|mount| {
            mount.mount_point == path
                && match lower {
                    Some(lower) => mount.parent == lower.id && mount.id != lower.id,
                    None => !self.mounts.iter().any(|other| other.id == mount.parent && other.id != mount.id),
                }
        })
    }
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext4 /dev/root rw`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let (id, parent) = (text()?.parse().ok()?, text()?.parse().ok()?);
    let device = text()?.to_owned();
    let _root = fields.next()?;
    let mount_point = PathBuf::from(unescape(fields.next()?));
    let _options = fields.next()?;
    fields.by_ref().find(|&field| field == b"-")?;
    let fs_type = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = unescape(fields.next().unwrap_or_default());
    Some(Mount { id, parent, device, mount_point, fs_type, source })
}

/// Undoes the kernel's `\040` for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if byte == b'\\' => {
                plain.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
40 22 0:40 / /mnt rw - tmpfs tmpfs rw
41 40 0:41 / /mnt/One\\040Drive\\134x rw,nosuid,nodev shared:7 master:2 - fuse.onedrivefs Account\\0401 rw,user_id=0
50 22 0:50 / /auto rw - autofs systemd-1 rw,direct
60 22 0:60 / /over rw - autofs systemd-1 rw,direct
61 60 0:61 / /over rw - fuse.onedrivefs two rw
70 22 0:70 / /hidden rw - tmpfs tmpfs rw
71 70 0:71 / /hidden/deep rw - ext4 /dev/vdb rw
72 70 0:72 / /hidden rw - tmpfs tmpfs rw
garbage
";

    fn table() -> MountTable {
        MountTable::parse(TABLE.as_bytes())
    }

    #[test]
    fn escaped_names_are_read_as_they_are() {
        let mount = table().at(Path::new("/mnt/One Drive\\x")).cloned().expect("it is mounted");
        assert_eq!((mount.source.to_str(), mount.device.as_str()), (Some("Account 1"), "0:41"));
        assert!(mount.is_ours());
        assert_eq!(unescape(b"a\\04"), OsString::from("a\\04"));
        assert_eq!(unescape(b"\\777\\999"), OsString::from("\\777\\999"));
    }

    #[test]
    fn the_uppermost_visible_mount_of_a_directory_counts() {
        let table = table();
        let at = |path: &str| table.at(Path::new(path)).map(|mount| mount.fs_type.clone());
        assert_eq!(at("/").as_deref(), Some("ext4"));
        assert!(table.at(Path::new("/auto")).is_some_and(Mount::is_trap));
        assert_eq!(at("/over").as_deref(), Some(FS_TYPE));
        assert!(table.has_trap(Path::new("/over")) && !table.has_trap(Path::new("/hidden")));
        assert_eq!(at("/hidden").as_deref(), Some("tmpfs"));
        assert_eq!(at("/hidden/deep"), None, "another mount lies over its parent");
        assert_eq!(at("/mnt/none"), None);
        assert_eq!(table.ours().count(), 2);
    }

    #[test]
    fn a_process_whose_root_is_no_mount_sees_those_below_it() {
        let table =
            MountTable::parse(b"9 3 0:9 / /data rw - ext4 /dev/x rw\n10 9 0:8 / /data/a rw - tmpfs t rw\n");
        assert_eq!(table.at(Path::new("/data/a")).map(|mount| mount.id), Some(10));
    }
}
