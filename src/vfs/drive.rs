//! What the file system needs of the engine of its drive.
//!
//! A trait, so that semantics can be tested over a store and a disk without a service.

use std::future::Future;
use std::sync::Arc;

use super::VfsError;
use crate::clock::Clock;
use crate::content::{Cache, ContentKey, Staging};
use crate::model::{ContentVersion, DriveId, DriveType, NodeId, Quota};
use crate::store::{Change, Node, Store};

/// The parts of a drive on this machine, and the requests that only its engine can make.
pub trait Drive: Send + Sync + 'static {
    /// Nodes and their views.
    fn store(&self) -> &Arc<Store>;

    /// Clean content.
    fn cache(&self) -> &Cache;

    /// Unsent content.
    fn staging(&self) -> &Staging;

    /// Time.
    fn clock(&self) -> &Arc<dyn Clock>;

    /// The drive on the service.
    fn drive_id(&self) -> &DriveId;

    /// Decides which names the service refuses.
    fn drive_type(&self) -> DriveType;

    /// Space as last told; no request.
    fn quota(&self) -> Option<Quota>;

    /// Which content the service has of the file; none for what it does not have.
    fn content_key(&self, node: &Node) -> Option<ContentKey>;

    /// The service may give the content of the file another length than it tells, and nobody knows yet.
    fn length_is_unsure(&self, _node: &Node) -> bool {
        false
    }

    /// A handle was opened; called before it can change anything.
    fn opened(&self, node: NodeId, writes: bool);

    /// A handle was closed; true if it was the node's last.
    fn closed(&self, node: NodeId, writes: bool) -> bool;

    /// Somebody looks at the drive; called often, must be quick.
    fn used(&self);

    /// A handle is open.
    fn is_open(&self, node: NodeId) -> bool;

    /// A handle that can write is open.
    fn has_writer(&self, node: NodeId) -> bool;

    /// What the service answered to the upload of this staged content, while its file is open; none if not known.
    fn sent_as(&self, _content: u64) -> Option<ContentVersion> {
        None
    }

    /// The last handle was closed: what waited for that may go on.
    fn released(&self, node: NodeId);

    /// What is staged of a file was made durable for a program that has it open.
    fn synced(&self, node: NodeId, content: u64);

    /// Something is to be sent.
    fn nudge(&self);

    /// The kernel must be told that these changed.
    fn changed(&self, changes: &[Change]);

    /// Waits until the folder's children are all known; ready at the first poll if they are.
    fn ensure_listed(&self, folder: NodeId) -> impl Future<Output = Result<(), VfsError>> + Send;

    /// Keeps the content of the node, and of all below it, on this machine from here on, or no longer.
    fn set_pinned(&self, node: NodeId, pinned: bool) -> impl Future<Output = Result<(), VfsError>> + Send;

    /// Waits until the node has nothing unsent, or cannot be sent.
    fn settled(&self, node: NodeId) -> impl Future<Output = Result<(), VfsError>> + Send;
}
