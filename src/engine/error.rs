//! What the engine's callers can tell apart.

use std::sync::Arc;

use crate::graph::GraphError;
use crate::store::{ParkKind, Parked, StoreError};

/// Why the engine could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The service could not be reached or refused.
    #[error(transparent)]
    Graph(#[from] Arc<GraphError>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
    /// The service is known to be out of reach.
    #[error("the service cannot be reached")]
    Offline,
    /// The change is parked.
    #[error("{}", .0.detail)]
    Parked(Parked),
    /// Not within the time asked for.
    #[error("not within the time asked for")]
    Deadline,
    /// No such path or node.
    #[error("no such file or directory")]
    NotFound,
}

impl From<GraphError> for EngineError {
    fn from(error: GraphError) -> Self {
        Self::Graph(Arc::new(error))
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// What a failed send means for the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may have happened: ask before anything else.
    Unknown,
    /// It did not happen; look at the item (and the name) again, then plan anew.
    Look,
    /// It did not happen; again after the backoff.
    Later,
    /// It did not happen, and nothing of this drive can be sent for now.
    Offline,
    /// It did not happen, and nothing can be sent before somebody signs in.
    SignedOut,
    /// It cannot be sent as it is.
    Park {
        /// Why.
        kind: ParkKind,
        /// Whether time alone may help.
        retry: bool,
    },
}

/// Classifies the failure of a request that was to change something.
pub fn classify(error: &GraphError) -> Verdict {
    let park = |kind, retry| Verdict::Park { kind, retry };
    match error {
        GraphError::Offline { sent: true, .. } | GraphError::Deadline { sent: true } => Verdict::Unknown,
        GraphError::Server { .. } | GraphError::Truncated { .. } => Verdict::Unknown,
        GraphError::Protocol { executed: true, .. } | GraphError::Throttled { executed: true, .. } => {
            Verdict::Unknown
        }
        GraphError::Offline { sent: false, .. } => Verdict::Offline,
        GraphError::SignedOut { .. } => Verdict::SignedOut,
        GraphError::NotFound { .. }
        | GraphError::Exists { .. }
        | GraphError::PreconditionFailed { .. }
        | GraphError::EditConflict { .. } => Verdict::Look,
        GraphError::Throttled { executed: false, .. }
        | GraphError::Deadline { sent: false }
        | GraphError::SessionGone { .. }
        | GraphError::FragmentRange { .. }
        | GraphError::UrlExpired { .. }
        | GraphError::RangeNotSatisfiable { .. }
        | GraphError::Resync { .. }
        | GraphError::Protocol { executed: false, .. } => Verdict::Later,
        GraphError::AccessDenied { .. } => park(ParkKind::Permission, true),
        // Somebody, perhaps an earlier run of ours, is uploading under the name: that ends by itself.
        GraphError::Locked { .. } | GraphError::SessionConflict { .. } => park(ParkKind::Locked, true),
        GraphError::QuotaExceeded { .. } => park(ParkKind::Quota, true),
        GraphError::NameRefused { .. } | GraphError::TooLong { .. } => park(ParkKind::Name, true),
        GraphError::TooLarge { .. } => park(ParkKind::TooLarge, false),
        GraphError::Malware { .. } => park(ParkKind::Malware, false),
        GraphError::Invalid { .. } | GraphError::Unsupported { .. } => park(ParkKind::Failing, true),
        GraphError::Configuration { .. } | GraphError::InsecureUrl => park(ParkKind::Failing, true),
    }
}
