//! Content on the local disk: a cache of clean remote content, and staging of unsent local content.
//!
//! - [`Cache`] holds blocks of remote files, one sparse file per (item, content version), with a map of the
//!   blocks present. It may be deleted at any time. Each block carries a checksum in the map and is checked
//!   against it at its first use in a process, so that a map never vouches for bytes that a crash, a power
//!   cut, a bad disk or a stranger's hand took away.
//! - [`Staging`] holds what the user wrote and the service does not have yet. It is never collected here.
//!
//! What is not here is fetched through [`Fetch`], which the caller provides: this module knows neither the
//! service nor the store. What to read ahead ([`readahead`]) and what to evict ([`evict`]) are decided by
//! pure functions.
//!
//! Lock order, outer first: the table of the cache, the flights of a file, the state of a file, a flight.
//! No lock is held over an await.

mod backing;
mod bits;
mod blocking;
mod budget;
mod cache;
mod error;
pub mod evict;
mod fetch;
mod file;
mod flight;
mod key;
mod mirror;
pub mod readahead;
mod request;
mod staging;
mod state;
mod table;
mod transfer;

pub use blocking::Blocking;
pub use cache::{Cache, CacheConfig};
pub use error::{ContentError, FetchError, FetchErrorKind};
pub use fetch::{Fetch, Fetched, Urgency};
pub use file::{CachedFile, Reader};
pub use key::ContentKey;
pub use mirror::{Mirror, read as read_lent};
pub use staging::{
    Base, BaseKind, Loaded, Piece, Salvage, Sealed, Staging, StagingConfig, StagingEntry, StagingError,
    StagingFile, StagingId, Trust, read_names,
};
pub use table::{CacheStats, CacheUsage};

#[cfg(test)]
mod bounds_tests;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
