//! Shared words without I/O: ids, tags, ranges, hashes, times, names.
//!
//! Every layer may name this one; it names none.

pub mod hash;
pub mod ids;
pub mod names;
pub mod ranges;
pub mod remote;
pub mod time;
pub mod units;
pub mod version;

pub use hash::{Hashes, QuickXor};
pub use ids::{DriveId, Ino, ItemId, NodeId};
pub use ranges::{ByteRange, RangeSet};
pub use remote::{Drive, DriveType, ItemKind, Quota, RemoteItem};
pub use time::Timestamp;
pub use version::{CTag, Comparison, ContentVersion, ETag};
