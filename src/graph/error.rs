//! What can go wrong with a request, as what the caller can do about it.
//!
//! One variant per thing a caller can tell apart. Decisions are made on status and code, never on message
//! texts (graph-api 11.3). No variant holds a token, an address or content.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::delta::PageLink;
use crate::auth::AuthError;

/// The result of every call.
pub type Result<T> = std::result::Result<T, GraphError>;

/// A cause that several waiters may share.
pub type Source = Arc<dyn std::error::Error + Send + Sync>;

/// How an answer can be found again: in our log, and by the service's support.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Ids(Option<Arc<Answered>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answered {
    status: u16,
    code: Option<String>,
    client_request: Option<String>,
    request: Option<String>,
}

impl Ids {
    /// Of an answer with `status`.
    pub fn new(status: u16, client_request: Option<String>, request: Option<String>) -> Self {
        Self(Some(Arc::new(Answered { status, code: None, client_request, request })))
    }

    /// The same with the most specific code the service gave.
    pub fn with_code(&self, code: Option<&str>) -> Self {
        let mut answered = self.0.as_deref().cloned().unwrap_or_default();
        answered.code = code.map(str::to_owned);
        Self(Some(Arc::new(answered)))
    }

    /// HTTP status; 0 where there was no answer.
    pub fn status(&self) -> u16 {
        self.0.as_ref().map_or(0, |answered| answered.status)
    }

    /// The service's most specific code.
    pub fn code(&self) -> Option<&str> {
        self.0.as_ref()?.code.as_deref()
    }

    /// The service's own id of the request.
    pub fn request_id(&self) -> Option<&str> {
        self.0.as_ref()?.request.as_deref()
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(answered) = &self.0 else { return formatter.write_str("no answer") };
        write!(formatter, "{}", answered.status)?;
        let named = [
            ("code", &answered.code),
            ("request-id", &answered.request),
            ("client-request-id", &answered.client_request),
        ];
        named
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)))
            .try_for_each(|(name, value)| write!(formatter, " {name}={value}"))
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[{self}]")
    }
}

/// Why a request did not do what it was asked to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GraphError {
    /// There is no such item, drive, site or version.
    #[error("not found ({ids})")]
    NotFound {
        /// Of the answer.
        ids: Ids,
    },
    /// The name is taken.
    #[error("the name is taken ({ids})")]
    Exists {
        /// Of the answer.
        ids: Ids,
    },
    /// `If-Match` named a tag that is no longer the item's.
    #[error("the item has changed meanwhile ({ids})")]
    PreconditionFailed {
        /// Of the answer.
        ids: Ids,
    },
    /// Someone else is changing the item.
    #[error("conflicting edit ({ids})")]
    EditConflict {
        /// Of the answer.
        ids: Ids,
    },
    /// The account may not do this.
    #[error("access denied ({ids})")]
    AccessDenied {
        /// The service says that it takes no changes here, while reading may work.
        read_only: bool,
        /// Of the answer.
        ids: Ids,
    },
    /// Open in another program, or checked out by someone.
    #[error("locked by someone ({ids})")]
    Locked {
        /// Of the answer.
        ids: Ids,
    },
    /// The drive has no space left, or the folder no room for another item.
    #[error("no space left in the drive ({ids})")]
    QuotaExceeded {
        /// Of the answer.
        ids: Ids,
    },
    /// The service does not take this name.
    #[error("the service does not take this name ({ids})")]
    NameRefused {
        /// Of the answer; empty when the name was refused here.
        ids: Ids,
    },
    /// Name or path longer than the service takes.
    #[error("name or path too long ({ids})")]
    TooLong {
        /// Of the answer.
        ids: Ids,
    },
    /// File larger than the service takes in this way.
    #[error("too large ({ids})")]
    TooLarge {
        /// Of the answer.
        ids: Ids,
    },
    /// Flagged as malware: the content is refused.
    #[error("flagged as malware ({ids})")]
    Malware {
        /// Of the answer.
        ids: Ids,
    },
    /// The request itself was refused as wrong: sending it again does not help.
    #[error("the service refused the request as invalid ({ids})")]
    Invalid {
        /// Of the answer.
        ids: Ids,
    },
    /// The service asks to wait.
    #[error("throttled ({ids})")]
    Throttled {
        /// How long from now, where it is known.
        retry_after: Option<Duration>,
        /// The request, a change, may have been executed: something on the way answered in the service's place.
        executed: bool,
        /// Of the answer; empty when nothing was sent because of an earlier one.
        ids: Ids,
    },
    /// No connection, or it broke before there was an answer.
    #[error("the service cannot be reached")]
    Offline {
        /// The request may have been executed.
        sent: bool,
        /// What the connection failed with.
        #[source]
        source: Source,
    },
    /// No answer in time.
    #[error("no answer in time")]
    Deadline {
        /// The request may have been executed.
        sent: bool,
    },
    /// Only the user can help, by signing in again.
    #[error("signed out: {reason}")]
    SignedOut {
        /// For the user.
        reason: String,
    },
    /// Settings, not the network, are wrong.
    #[error("configuration: {what}")]
    Configuration {
        /// What is wrong.
        what: String,
    },
    /// The list of changes cannot be continued from the link given: enumerate anew (graph-api 9.5).
    #[error("the list of changes has to be read anew ({ids})")]
    Resync {
        /// Where the service says to start; without one, start without a token.
        location: Option<PageLink>,
        /// Local items the service does not list are to be kept and uploaded; else the service is right.
        upload_differences: bool,
        /// Of the answer.
        ids: Ids,
    },
    /// This drive or cloud cannot do it.
    #[error("not supported here ({ids})")]
    Unsupported {
        /// Of the answer.
        ids: Ids,
    },
    /// The pre-authenticated address is no longer good: read the item again for another.
    #[error("the download address has expired ({ids})")]
    UrlExpired {
        /// Of the answer.
        ids: Ids,
    },
    /// The upload session is over: begin another, from the first byte.
    #[error("the upload session is gone ({ids})")]
    SessionGone {
        /// Of the answer.
        ids: Ids,
    },
    /// Another session for this name is open (graph-api 7.5): cancel it or wait until it ends.
    #[error("the name is being uploaded by another session ({ids})")]
    SessionConflict {
        /// Of the answer.
        ids: Ids,
    },
    /// The fragment does not fit what the service has: ask for the session's status.
    #[error("the fragment does not fit the session ({ids})")]
    FragmentRange {
        /// Of the answer.
        ids: Ids,
    },
    /// The range begins at or after the end of the content.
    #[error("the range is not in the content ({ids})")]
    RangeNotSatisfiable {
        /// Bytes there are, where told.
        total: Option<u64>,
        /// Of the answer.
        ids: Ids,
    },
    /// The content ended before the bytes that were announced.
    #[error("the content ended after {got} of {expected} bytes")]
    Truncated {
        /// Bytes announced.
        expected: u64,
        /// Bytes that came.
        got: u64,
    },
    /// The service failed.
    #[error("the service failed ({ids})")]
    Server {
        /// Of the answer; holds status and code.
        ids: Ids,
    },
    /// The service answered something that makes no sense.
    #[error("unintelligible answer: {what} ({ids})")]
    Protocol {
        /// What was wrong.
        what: &'static str,
        /// The request was a success as far as its status tells.
        executed: bool,
        /// Of the answer.
        ids: Ids,
    },
    /// The address is not https, and not on this machine; nothing was sent.
    #[error("refusing to send over an unencrypted connection")]
    InsecureUrl,
}

impl GraphError {
    /// Whether a change that was asked for may have happened all the same.
    ///
    /// False means it certainly did not. Such a change is not sent again before the item was looked at.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::Offline { sent, .. } | Self::Deadline { sent } => *sent,
            Self::Server { .. } | Self::Truncated { .. } => true,
            Self::Protocol { executed, .. } | Self::Throttled { executed, .. } => *executed,
            Self::NotFound { .. }
            | Self::Exists { .. }
            | Self::PreconditionFailed { .. }
            | Self::EditConflict { .. }
            | Self::AccessDenied { .. }
            | Self::Locked { .. }
            | Self::QuotaExceeded { .. }
            | Self::NameRefused { .. }
            | Self::TooLong { .. }
            | Self::TooLarge { .. }
            | Self::Malware { .. }
            | Self::Invalid { .. }
            | Self::SignedOut { .. }
            | Self::Configuration { .. }
            | Self::Resync { .. }
            | Self::Unsupported { .. }
            | Self::UrlExpired { .. }
            | Self::SessionGone { .. }
            | Self::SessionConflict { .. }
            | Self::FragmentRange { .. }
            | Self::RangeNotSatisfiable { .. }
            | Self::InsecureUrl => false,
        }
    }

    /// Whether the same request may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Throttled { .. }
            | Self::Offline { .. }
            | Self::Deadline { .. }
            | Self::Server { .. }
            | Self::Truncated { .. }
            | Self::Locked { .. }
            | Self::EditConflict { .. }
            | Self::SessionConflict { .. } => true,
            Self::Protocol { .. }
            | Self::NotFound { .. }
            | Self::Exists { .. }
            | Self::PreconditionFailed { .. }
            | Self::AccessDenied { .. }
            | Self::QuotaExceeded { .. }
            | Self::NameRefused { .. }
            | Self::TooLong { .. }
            | Self::TooLarge { .. }
            | Self::Malware { .. }
            | Self::Invalid { .. }
            | Self::SignedOut { .. }
            | Self::Configuration { .. }
            | Self::Resync { .. }
            | Self::Unsupported { .. }
            | Self::UrlExpired { .. }
            | Self::SessionGone { .. }
            | Self::FragmentRange { .. }
            | Self::RangeNotSatisfiable { .. }
            | Self::InsecureUrl => false,
        }
    }

    /// The answer it is about; empty where there was none.
    pub fn ids(&self) -> Ids {
        match self {
            Self::NotFound { ids }
            | Self::Exists { ids }
            | Self::PreconditionFailed { ids }
            | Self::EditConflict { ids }
            | Self::AccessDenied { ids, .. }
            | Self::Locked { ids }
            | Self::QuotaExceeded { ids }
            | Self::NameRefused { ids }
            | Self::TooLong { ids }
            | Self::TooLarge { ids }
            | Self::Malware { ids }
            | Self::Invalid { ids }
            | Self::Throttled { ids, .. }
            | Self::Resync { ids, .. }
            | Self::Unsupported { ids }
            | Self::UrlExpired { ids }
            | Self::SessionGone { ids }
            | Self::SessionConflict { ids }
            | Self::FragmentRange { ids }
            | Self::RangeNotSatisfiable { ids, .. }
            | Self::Server { ids }
            | Self::Protocol { ids, .. } => ids.clone(),
            Self::Offline { .. }
            | Self::Deadline { .. }
            | Self::SignedOut { .. }
            | Self::Configuration { .. }
            | Self::Truncated { .. }
            | Self::InsecureUrl => Ids::default(),
        }
    }
}

impl From<AuthError> for GraphError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::SignedOut { reason } => Self::SignedOut { reason },
            AuthError::Network(source) => Self::Offline { sent: false, source },
            // Until somebody sees to the sign-in, changes wait and what is here can be read.
            error @ (AuthError::Refused { .. } | AuthError::Credential { .. }) => {
                Self::SignedOut { reason: error.to_string() }
            }
            AuthError::Configuration { what } => Self::Configuration { what },
        }
    }
}
