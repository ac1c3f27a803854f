//! Settings of a mounted drive.

use std::time::Duration;

/// What a mount decides about semantics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfsConfig {
    /// Which drive of the mount this is.
    pub slot: u16,
    /// Owner of everything that has no owner of its own.
    pub uid: u32,
    /// Group of everything that has none of its own.
    pub gid: u32,
    /// Permission bits of files that have none of their own.
    pub file_mode: u16,
    /// Permission bits of directories that have none of their own.
    pub dir_mode: u16,
    /// Nothing may be changed.
    pub read_only: bool,
    /// `close`, `rename`, `mkdir`, `unlink` and `rmdir` wait for the service.
    pub sync: bool,
    /// A name that no entry has finds the one that the service takes for the same.
    pub case_insensitive: bool,
    /// Names of executables that may only read what is here.
    pub deny_readers: Vec<String>,
    /// How long the kernel may keep a name.
    pub entry_ttl: Duration,
    /// How long the kernel may keep attributes of a file that nobody writes.
    pub attr_ttl: Duration,
    /// How long the kernel may keep that a name does not exist, where all names are known.
    pub negative_ttl: Duration,
}

/// Every change that the engine sees is told to the kernel, so what it keeps may be old.
const TTL: Duration = Duration::from_secs(3600);

impl Default for VfsConfig {
    fn default() -> Self {
        Self {
            slot: 0,
            uid: 0,
            gid: 0,
            file_mode: 0o644,
            dir_mode: 0o755,
            read_only: false,
            sync: false,
            case_insensitive: false,
            deny_readers: Vec::new(),
            entry_ttl: TTL,
            attr_ttl: TTL,
            negative_ttl: TTL,
        }
    }
}

impl VfsConfig {
    /// With what follows from the rest.
    ///
    /// The kernel tells names by their bytes. It would keep one entry under each spelling that was ever asked for,
    /// and nobody knows which: what a change makes of one of them would leave the others as they were. So where
    /// several are one name it keeps none, found or absent.
    pub fn settled(self) -> Self {
        if self.case_insensitive {
            Self { entry_ttl: Duration::ZERO, negative_ttl: Duration::ZERO, ..self }
        } else {
            self
        }
    }
}
