//! Names: how a local name and a name on the service become one another, which names the service
//! refuses, which stay on this machine, and the names we make up ourselves.
//!
//! Pure functions over bytes and text. A local name is any non-empty byte string without `/` and NUL
//! that is not `.` or `..`; a remote name is text.

mod derived;
mod mapping;
mod rules;

pub use derived::{civil, conflict_name, disambiguate, undo_disambiguate};
pub use mapping::{to_local, to_remote};
pub use rules::{check_remote, fold, is_reserved_at_root, is_scratch};

/// Longest name on the service, in UTF-16 units, and here, in bytes (graph-api 4.4).
pub const NAME_MAX: usize = 255;

/// Longest path below a drive's root on the service, in UTF-16 units with slashes; what lies above the root counts
/// there too (graph-api 4.4).
pub const PATH_MAX: usize = 400;

/// Why a name cannot exist on the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, `.`, `..`, or with a slash or NUL inside: not a name at all.
    #[error("not a name")]
    NotAName,
    /// A character, or a place for it, that the service refuses.
    #[error("the service refuses the character {0:?} there")]
    Character(char),
    /// A name that the service keeps for itself or for Windows.
    #[error("the service reserves this name")]
    Reserved,
    /// More than 255 UTF-16 units.
    #[error("longer than 255 characters on the service")]
    TooLong,
}
