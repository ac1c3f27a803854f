//! A name that a node may be given, checked once.

use std::ffi::OsStr;

use crate::model::names::{self, NAME_MAX, NameError};
use crate::model::{DriveType, NodeId};
use crate::vfs::VfsError;

/// A name in the form the service has, and whether it stays on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    remote: String,
    scratch: bool,
    refusal: Option<NameError>,
    drive: DriveType,
}

impl Name {
    /// Reads a name as a program wrote it. `Invalid`: not a name; `NameTooLong`: nothing can have it.
    pub fn parse(local: &OsStr, drive: DriveType) -> Result<Self, VfsError> {
        let remote = names::to_remote(local).map_err(refused)?;
        let refusal = names::check_remote(&remote, drive).err();
        if refusal == Some(NameError::TooLong) {
            return Err(VfsError::NameTooLong);
        }
        Ok(Self { remote, scratch: names::is_scratch(local) && local.len() <= NAME_MAX, refusal, drive })
    }

    /// The name as the store and the service have it.
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// A file of this name lives on this machine only (design 4).
    pub fn is_scratch(&self) -> bool {
        self.scratch
    }

    /// Whether a file or folder below `parent` may be given this name and be sent.
    pub(super) fn may_be_sent(&self, parent: NodeId) -> Result<(), VfsError> {
        if let Some(refusal) = self.refusal {
            return Err(refused(refusal));
        }
        if parent == NodeId::ROOT && names::is_reserved_at_root(&self.remote, self.drive) {
            return Err(VfsError::Invalid);
        }
        Ok(())
    }
}

fn refused(error: NameError) -> VfsError {
    match error {
        NameError::TooLong => VfsError::NameTooLong,
        NameError::NotAName | NameError::Character(_) | NameError::Reserved => VfsError::Invalid,
    }
}
