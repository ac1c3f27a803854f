//! What the engine tells of itself.

use serde::{Deserialize, Serialize};

use crate::model::{Quota, Timestamp};

/// How the engine stands to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not yet spoken to the service.
    Starting,
    /// Reading the drive for the first time; what is asked for is listed at once.
    Enumerating,
    /// All well.
    Online,
    /// The service cannot be reached; changes queue.
    Offline,
    /// Somebody must sign in; changes queue.
    SignedOut,
    /// Sending what is unsent before the end.
    Draining,
}

/// A change that is not sent, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Path below the mount.
    pub path: String,
    /// Machine-readable reason; none: just waiting its turn.
    pub reason: Option<crate::store::ParkKind>,
    /// One sentence.
    pub detail: String,
    /// When a parked change is tried again by itself; none: not before it is changed, or somebody asks.
    pub retry_at: Option<Timestamp>,
    /// The path of the parked change that this one waits for.
    pub behind: Option<String>,
}

/// An upload in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadProgress {
    /// Path below the mount.
    pub path: String,
    /// Bytes the service has.
    pub sent: u64,
    /// Bytes in all.
    pub total: u64,
}

/// A snapshot for `status`.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    /// How it stands.
    pub state: State,
    /// Unsent changes.
    pub pending: u64,
    /// Of these, parked.
    pub parked: u64,
    /// Files that live only here by their nature.
    pub local_only: u64,
    /// The first unsent changes, parked ones first.
    pub waiting: Vec<Waiting>,
    /// Uploads in progress.
    pub uploads: Vec<UploadProgress>,
    /// When the newest round of changes was applied.
    pub last_delta: Option<Timestamp>,
    /// Changes are told as they happen.
    pub pushed: bool,
    /// Items known.
    pub items: u64,
    /// How far the first reading of the drive is; none once it has ended.
    pub reading: Option<super::Reading>,
    /// Space, as last told.
    pub quota: Option<Quota>,
    /// Why it is offline or signed out.
    pub trouble: Option<String>,
}
