//! What can go wrong with content, told apart by what a caller can do about it.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Why bytes could not be fetched. Cheap to clone: every waiter of a flight gets one.
#[derive(Clone, Debug)]
pub struct FetchError {
    /// What a caller can tell apart.
    pub kind: FetchErrorKind,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// What a failed fetch means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FetchErrorKind {
    /// The item has another content now; this version cannot be had any more.
    VersionGone,
    /// The service delivers another number of bytes than it said the item has (graph-api 6.4).
    OtherSize {
        /// The number it delivers.
        total: u64,
    },
    /// There is no connection.
    Offline,
    /// No progress within the deadline.
    Deadline,
    /// The service refuses this user.
    Denied,
    /// There is no valid sign-in.
    SignedOut,
    /// The service flags the content as malware.
    Malware,
    /// The item is gone.
    NotFound,
    /// The local disk failed.
    Io,
    /// The service answered what it must not, or broke off too often.
    Protocol,
}

impl FetchError {
    /// An error without a cause below it.
    pub fn new(kind: FetchErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// An error and what caused it.
    pub fn with_source(kind: FetchErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, source: Some(Arc::from(source.into())) }
    }
}

impl fmt::Display for FetchErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::VersionGone => "the service has another version now",
            Self::OtherSize { total } => {
                return write!(formatter, "the service delivers {total} bytes, not the size it stated");
            }
            Self::Offline => "no connection to the service",
            Self::Deadline => "no progress within the deadline",
            Self::Denied => "the service refuses access",
            Self::SignedOut => "not signed in",
            Self::Malware => "the service flags the content as malware",
            Self::NotFound => "the item is gone",
            Self::Io => "local disk",
            Self::Protocol => "unusable answers of the service",
        };
        formatter.write_str(text)
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(formatter)
    }
}

impl Error for FetchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl From<FetchErrorKind> for FetchError {
    fn from(kind: FetchErrorKind) -> Self {
        Self::new(kind)
    }
}

/// Why content could not be read or completed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ContentError {
    /// Missing bytes could not be fetched.
    #[error("fetching content: {0}")]
    Fetch(#[from] FetchError),
    /// The complete content, fetched twice, does not have the hash the service states.
    #[error("the content does not match the hash the service states")]
    Damaged,
    /// The file cannot be kept complete: the cache is full of what must not go, or its disk fails.
    #[error("the cache has no room for the whole file")]
    NoRoom,
    /// An overlay needs bytes of a base that nobody attached.
    #[error("the base of this staged content is not at hand")]
    NoBase,
    /// The local disk failed.
    #[error("local disk: {0}")]
    Disk(#[source] Arc<io::Error>),
}

impl From<io::Error> for ContentError {
    fn from(error: io::Error) -> Self {
        Self::Disk(Arc::new(error))
    }
}

impl ContentError {
    /// The kind of a failed fetch.
    pub fn fetch_kind(&self) -> Option<FetchErrorKind> {
        match self {
            Self::Fetch(error) => Some(error.kind),
            _ => None,
        }
    }
}
