//! POSIX semantics over store and content: namespace, names, handles, attributes.
//!
//! Each method answers without awaiting when everything it needs is on this machine, so that its caller
//! may poll it once and hand it to a task only when it must wait for the service.

mod api;
mod error;
pub mod namespace;
mod types;

pub use api::Filesystem;
pub use error::VfsError;
pub use types::*;
