//! The kernel's protocol over the operations of [`vfs`](crate::vfs).
//!
//! Owns: decoding and encoding, replies, deadlines and fatal signals of callers, kernel cache invalidation,
//! mounting and unmounting. Decides nothing about files and does no I/O on content.
//! The only place that names the protocol library.

mod adapter;
mod answers;
mod attach;
mod check;
mod convert;
mod error;
mod fence;
mod known;
mod lend;
mod metrics;
mod mount;
mod mountinfo;
mod negotiate;
mod notify;
mod privileges;
mod serve;
mod signals;
mod tripwire;
mod unmount;

pub use check::{CheckOptions, Mountpoint, MountpointState, check_mountpoint};
pub use error::{Holder, MountError};
pub use lend::Passthrough;
pub use metrics::{BUCKETS, Metrics, Op, OpStats};
pub use mount::{MountOptions, MountedSession, Services, SessionEnd, mount};
pub use mountinfo::{FS_TYPE, Mount, MountTable};
pub use notify::NotifyHandle;
pub use serve::Limits;
pub use unmount::{Unmount, unmount};
