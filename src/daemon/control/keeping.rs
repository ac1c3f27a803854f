//! The words of the control socket about content on this machine: pinned, cached, given up.

use serde::{Deserialize, Serialize};

use super::{MountState, WirePath};
pub use crate::engine::NoRoom;

/// How far what was pinned is, when a `pin` ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinOutcome {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are not here as a whole.
    pub missing_files: u64,
    /// Their bytes that are not here.
    pub missing_bytes: u64,
    /// The service cannot be used now, and why: `offline` or `signed_out`. They are fetched when it can.
    pub waits_for: Option<MountState>,
    /// More is pinned than the cache may hold.
    pub no_room: Option<NoRoom>,
    /// Why some are not here; the first of these.
    pub troubles: Vec<TroubleLine>,
}

/// A small picture of a file that the service has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThumbnailLine {
    /// Path in the mount.
    pub path: WirePath,
    /// Where it is. Whoever has this address may fetch it, for a while.
    pub url: String,
}

/// What is wrong with a file, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TroubleLine {
    /// Path in the mount.
    pub path: WirePath,
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

/// What a `free` gave up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeOutcome {
    /// Files whose content went.
    pub files: u64,
    /// Bytes that came free.
    pub bytes: u64,
    /// Files whose content stayed, and why; the first of these.
    pub refused: Vec<TroubleLine>,
    /// Such files in all.
    pub refused_files: u64,
}

/// What `cache` shows of one drive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheView {
    /// Where in the mount; empty where the drive is the mount.
    pub path: WirePath,
    /// Bytes of the disk in use.
    pub used: u64,
    /// The most that may be, in bytes.
    pub limit: u64,
    /// Bytes that stay free on its disk.
    pub min_free: u64,
    /// Files at or below the path that was asked for.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files of them of which something is here.
    pub files_here: u64,
    /// Bytes of the disk that those take.
    pub bytes_here: u64,
    /// Reads answered from here since the mount began.
    pub hits: u64,
    /// Reads that waited for the service.
    pub misses: u64,
    /// Bytes fetched since the mount began.
    pub fetched: u64,
    /// Bytes that went to make room.
    pub evicted: u64,
    /// What was pinned.
    pub pinned: Vec<WirePath>,
    /// How far that is.
    pub pins: PinOutcome,
    /// The files of which something is here, the largest first, where they were asked for.
    #[serde(default)]
    pub held: Vec<HeldLine>,
}

/// A file of which something is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLine {
    /// Path in the mount.
    pub path: WirePath,
    /// Its bytes.
    pub size: u64,
    /// Bytes of the disk that are taken by it.
    pub held: u64,
    /// It is pinned.
    pub pinned: bool,
}
