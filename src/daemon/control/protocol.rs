//! The words of the control socket.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::keeping::{CacheView, FreeOutcome, PinOutcome, ThumbnailLine};
use crate::model::{DriveType, Quota};

pub use crate::engine::Keep;
pub use crate::store::{ConflictCause, ParkKind};

/// Version of the protocol; both sides must have the same.
pub const PROTOCOL: u32 = 1;

/// A request with its version: what one line carries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Envelope {
    pub protocol: u32,
    #[serde(flatten)]
    pub request: serde_json::Value,
}

/// What a command may ask. Paths are relative to the mount; an empty one is all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Is anybody there?
    Ping,
    /// How is the mount?
    Status,
    /// Wait until everything below `path` is on the service.
    Sync {
        /// What to wait for.
        path: WirePath,
        /// Longest wait; none waits as long as it takes.
        timeout_ms: Option<u64>,
    },
    /// Send what is unsent, unmount, and end.
    Unmount {
        /// Longest wait for sending; none takes the mount's own setting.
        drain_timeout_ms: Option<u64>,
        /// Take the mount out of the tree though programs use it; it ends when the last lets go.
        #[serde(default)]
        lazy: bool,
    },
    /// Another mount wants the drive's state: end, if the mount has ended and only the rest is sent.
    Yield,
    /// Look for changes on the service now.
    Refresh {
        /// What to look at.
        path: WirePath,
    },
    /// Try parked changes again now.
    Retry {
        /// Which: those at or below it.
        path: WirePath,
    },
    /// Which conflict copies are there?
    Conflicts {
        /// Where: at or below it, or beside it.
        path: WirePath,
    },
    /// Settle a conflict.
    Settle {
        /// The copy, or the file beside the only copy.
        path: WirePath,
        /// How.
        keep: Keep,
    },
    /// Let the deletes go that wait for a confirmation.
    Confirm,
    /// Keep content on this machine.
    Pin {
        /// A file, or a folder and what comes into it.
        path: WirePath,
        /// Answer when it is here, or will not come soon.
        wait: bool,
    },
    /// No longer.
    Unpin {
        /// What was pinned at or below it.
        path: WirePath,
    },
    /// Give local content up.
    Free {
        /// Of what is at or below it.
        path: WirePath,
    },
    /// What content is here?
    Cache {
        /// At or below it.
        path: WirePath,
        /// Name the files.
        list: bool,
    },
    /// Which small pictures does the service have?
    Thumbnails {
        /// Of what is in this folder.
        path: WirePath,
    },
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(super) enum Reply {
    Progress(Progress),
    Answer { answer: Answer },
    Error(ControlError),
}

/// The last reply to a request that could be served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To `ping` and `refresh`.
    Done,
    /// To `status`.
    Status(Box<Status>),
    /// To `sync` and `unmount`.
    Outcome(Outcome),
    /// To `retry`: how many changes are tried again.
    Retried(u64),
    /// To `conflicts`.
    Conflicts(Vec<ConflictLine>),
    /// To `confirm`: how many deletes go on.
    Confirmed(u64),
    /// To `pin`.
    Pinned(PinOutcome),
    /// To `unpin`: how many pins went.
    Unpinned(u64),
    /// To `free`.
    Freed(FreeOutcome),
    /// To `cache`: each drive.
    Cache(Vec<CacheView>),
    /// To `thumbnails`.
    Thumbnails(Vec<ThumbnailLine>),
}

/// Why a request was not served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}: {why}; {remedy}")]
pub struct ControlError {
    /// What was tried.
    pub what: String,
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub remedy: String,
    /// The exit code for the command.
    pub exit_code: u8,
}

/// How far a `sync`, an `unmount` or a `pin` is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Changes that are unsent now; files that are not here yet.
    pub pending: u64,
    /// Bytes sent since the request came; bytes that are here.
    pub sent: u64,
    /// Bytes that were to be sent, those included; bytes in all.
    pub total: u64,
    /// What is being sent or fetched, if one thing is.
    pub current: Option<String>,
}

/// How a `sync` or `unmount` ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Changes that are still unsent.
    pub unsent: u64,
    /// Those of them that wait for somebody to do something.
    pub parked: Vec<Parked>,
    /// The first of the others.
    #[serde(default)]
    pub waiting: Vec<Waits>,
    /// Files that live on this machine only.
    pub unprotected: u64,
}

/// A change that waits its turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// Path in the mount.
    pub path: String,
    /// What for.
    pub why: String,
}

/// A change that cannot be sent until something happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// Path in the mount.
    pub path: String,
    /// The class of the cause: `quota`, `permission`, `name`, `locked`, …
    pub kind: ParkKind,
    /// Why it waits.
    pub reason: String,
    /// What to do.
    pub remedy: String,
    /// When it is tried again by itself (RFC 3339).
    #[serde(default)]
    pub retry_at: Option<String>,
    /// The first changes that wait for this one.
    #[serde(default)]
    pub behind: Vec<String>,
}

/// A conflict copy that nobody settled yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictLine {
    /// The copy: path in the mount.
    pub path: WirePath,
    /// The file that kept the name: path in the mount.
    pub beside: WirePath,
    /// The machine that made it.
    pub host: String,
    /// When (RFC 3339).
    pub at: String,
    /// Why.
    pub cause: ConflictCause,
    /// Bytes of the copy.
    pub size: u64,
    /// Bytes of the file that kept the name.
    pub beside_size: u64,
    /// `sent`, `unsent` or `parked`.
    pub state: String,
    /// Why it is parked.
    pub reason: Option<String>,
}

/// What a mount is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountState {
    /// Not usable yet.
    Starting,
    /// Usable; the list of what the drive holds is still being fetched.
    Enumerating,
    /// In touch with the service.
    Online,
    /// The service cannot be reached.
    Offline,
    /// The sign-in is no longer valid.
    SignedOut,
    /// Being unmounted: sends what is unsent.
    Draining,
}

impl MountState {
    /// The word for people and for JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Enumerating => "enumerating",
            Self::Online => "online",
            Self::Offline => "offline",
            Self::SignedOut => "signed_out",
            Self::Draining => "draining",
        }
    }
}

/// Everything `status` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Where the mount is.
    pub mountpoint: WirePath,
    /// What it is doing.
    pub state: MountState,
    /// The drive; none where several are shown.
    pub drive: Option<DriveStatus>,
    /// Where several drives are shown: those that somebody went into, or of which something is unsent.
    #[serde(default)]
    pub drives: Vec<DriveLine>,
    /// Whose sign-in is used.
    pub account: String,
    /// Where its unsent data is.
    #[serde(default)]
    pub state_dir: WirePath,
    /// Where its content is cached.
    #[serde(default)]
    pub cache_dir: WirePath,
    /// Nothing is changed through this mount.
    pub read_only: bool,
    /// Changes that are not on the service yet.
    pub pending: u64,
    /// Those of them that wait for somebody to do something.
    pub parked: Vec<Parked>,
    /// The first of the others that wait their turn.
    #[serde(default)]
    pub waiting: Vec<Waits>,
    /// Files that live on this machine only and are not protected by the service.
    pub unprotected: u64,
    /// What is being sent.
    pub uploads: Vec<Upload>,
    /// When the service was last asked for changes and answered (RFC 3339).
    pub last_delta: Option<String>,
    /// The service tells of changes as they happen; otherwise it is asked now and then.
    pub push: bool,
    /// The cache.
    pub cache: CacheUse,
    /// Files and folders known.
    pub items: u64,
    /// How far the first reading of the drive is; none once all of it is known.
    #[serde(default)]
    pub reading: Option<Reading>,
    /// Requests made since the start.
    pub requests: RequestCounts,
    /// Lines a person should read, such as what became of a conflict.
    pub notices: Vec<String>,
    /// The daemon's process.
    pub pid: u32,
    /// The daemon's version.
    pub version: String,
}

/// The first reading of the list of files. What is not read yet is listed when somebody asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Items read so far.
    pub items: u64,
    /// Bytes of the files among them.
    pub bytes: u64,
    /// Since the daemon began; none at first.
    pub items_per_second: Option<f64>,
    /// How much there may be in all; none where the service does not say what the drive uses.
    pub estimate: Option<Estimate>,
}

/// A guess: the files read so far, as a part of the bytes that the drive uses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// How much of the drive was read.
    pub percent: f64,
    /// Items of the drive.
    pub items: u64,
    /// Time to the end.
    pub seconds_left: Option<u64>,
}

/// The drive of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveStatus {
    /// Its id.
    pub id: String,
    /// Its name on the service.
    pub name: String,
    /// Which service it lives on.
    #[serde(rename = "type")]
    pub drive_type: DriveType,
    /// Its space, where the service tells.
    pub quota: Option<Quota>,
}

/// One of several drives of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveLine {
    /// Where in the mount.
    pub path: WirePath,
    /// The drive.
    #[serde(flatten)]
    pub drive: DriveStatus,
    /// How it stands.
    pub state: MountState,
    /// Changes that are not on the service yet.
    pub pending: u64,
    /// Files and folders known.
    pub items: u64,
}

/// A file being sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// Path in the mount.
    pub path: String,
    /// Bytes the service has.
    pub sent: u64,
    /// Bytes in all.
    pub size: u64,
}

/// The cache of clean content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheUse {
    /// Bytes in use.
    pub used: u64,
    /// Most bytes allowed.
    pub limit: u64,
}

/// Requests to the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCounts {
    /// Sent in all.
    pub total: u64,
    /// Answered with "too many".
    pub throttled: u64,
    /// Sent again after a failure.
    pub retried: u64,
}

/// A path in JSON: text, or its bytes where it is not UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "PathForm", into = "PathForm")]
pub struct WirePath(pub PathBuf);

impl WirePath {
    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathForm {
    Text(String),
    Bytes { bytes: Vec<u8> },
}

impl From<PathForm> for WirePath {
    fn from(form: PathForm) -> Self {
        match form {
            PathForm::Text(text) => Self(text.into()),
            PathForm::Bytes { bytes } => Self(OsString::from_vec(bytes).into()),
        }
    }
}

impl From<WirePath> for PathForm {
    fn from(path: WirePath) -> Self {
        match path.0.into_os_string().into_string() {
            Ok(text) => Self::Text(text),
            Err(other) => Self::Bytes { bytes: other.as_bytes().to_vec() },
        }
    }
}
