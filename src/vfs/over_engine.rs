//! The engine as the drive below the file system.

use std::future::Future;
use std::sync::Arc;

use super::{Drive, VfsError};
use crate::clock::Clock;
use crate::content::{Cache, ContentKey, Staging};
use crate::engine::{Access, Engine, EngineError, PinError};
use crate::graph::GraphError;
use crate::model::{ContentVersion, DriveId, DriveType, NodeId, Quota};
use crate::store::{Change, Node, ParkKind, Store};

impl Drive for Engine {
    fn store(&self) -> &Arc<Store> {
        Engine::store(self)
    }

    fn cache(&self) -> &Cache {
        Engine::cache(self)
    }

    fn staging(&self) -> &Staging {
        Engine::staging(self)
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        Engine::clock(self)
    }

    fn drive_id(&self) -> &DriveId {
        &self.drive().id
    }

    fn drive_type(&self) -> DriveType {
        Engine::drive_type(self)
    }

    fn quota(&self) -> Option<Quota> {
        Engine::quota(self)
    }

    fn content_key(&self, node: &Node) -> Option<ContentKey> {
        Engine::content_key(self, node)
    }

    fn length_is_unsure(&self, node: &Node) -> bool {
        Engine::length_is_unsure(self, node)
    }

    fn opened(&self, node: NodeId, writes: bool) {
        Engine::opened(self, node, access(writes));
    }

    fn closed(&self, node: NodeId, writes: bool) -> bool {
        self.open_nodes().closed(node, access(writes))
    }

    fn used(&self) {
        Engine::used(self);
    }

    fn is_open(&self, node: NodeId) -> bool {
        self.open_nodes().is_open(node)
    }

    fn has_writer(&self, node: NodeId) -> bool {
        self.open_nodes().has_writer(node)
    }

    fn sent_as(&self, content: u64) -> Option<ContentVersion> {
        Engine::sent_as(self, content)
    }

    fn released(&self, node: NodeId) {
        Engine::released(self, node);
    }

    fn synced(&self, node: NodeId, content: u64) {
        Engine::synced(self, node, content);
    }

    fn nudge(&self) {
        Engine::nudge(self);
    }

    fn changed(&self, changes: &[Change]) {
        self.tell(changes);
    }

    fn ensure_listed(&self, folder: NodeId) -> impl Future<Output = Result<(), VfsError>> + Send {
        let engine = self.clone();
        async move { Ok(Engine::ensure_listed(&engine, folder).await?) }
    }

    fn set_pinned(&self, node: NodeId, pinned: bool) -> impl Future<Output = Result<(), VfsError>> + Send {
        let engine = self.clone();
        async move {
            match pinned {
                true => Engine::pin(&engine, &[node]).await?,
                false => drop(Engine::unpin(&engine, node).await?),
            }
            Ok(())
        }
    }

    fn settled(&self, node: NodeId) -> impl Future<Output = Result<(), VfsError>> + Send {
        let engine = self.clone();
        async move { Ok(Engine::settled(&engine, node).await?) }
    }
}

fn access(writes: bool) -> Access {
    if writes { Access::Write } else { Access::Read }
}

impl From<EngineError> for VfsError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Graph(error) => Self::from(&*error),
            EngineError::Store(error) => Self::Store(error.to_string()),
            EngineError::Parked(parked) => of_parked(parked.kind, parked.detail),
            EngineError::Offline => Self::Offline,
            EngineError::Deadline => Self::Deadline,
            EngineError::NotFound => Self::Stale,
        }
    }
}

impl From<PinError> for VfsError {
    fn from(error: PinError) -> Self {
        match error {
            PinError::NoRoom(_) => Self::NoSpace,
            PinError::NoContent => Self::NotSupported,
            PinError::Within(_) => Self::NotPermitted,
            PinError::Store(error) => error.into(),
        }
    }
}

fn of_parked(kind: ParkKind, detail: String) -> VfsError {
    match kind {
        ParkKind::Quota => VfsError::QuotaExceeded,
        ParkKind::Permission | ParkKind::Malware | ParkKind::AccessLost => VfsError::AccessDenied,
        ParkKind::Name => VfsError::Invalid,
        ParkKind::Locked | ParkKind::Unconfirmed => VfsError::Busy,
        ParkKind::TooLarge => VfsError::TooLarge,
        ParkKind::BaseGone | ParkKind::Failing | ParkKind::LocalDisk => VfsError::Service(detail),
    }
}

impl From<&GraphError> for VfsError {
    fn from(error: &GraphError) -> Self {
        match error {
            GraphError::NotFound { .. } => Self::NotFound,
            GraphError::Exists { .. } => Self::Exists,
            GraphError::AccessDenied { .. } | GraphError::Malware { .. } => Self::AccessDenied,
            GraphError::Locked { .. }
            | GraphError::EditConflict { .. }
            | GraphError::SessionConflict { .. } => Self::Busy,
            GraphError::QuotaExceeded { .. } => Self::QuotaExceeded,
            GraphError::NameRefused { .. } => Self::Invalid,
            GraphError::TooLong { .. } => Self::NameTooLong,
            GraphError::TooLarge { .. } => Self::TooLarge,
            GraphError::Offline { .. } => Self::Offline,
            GraphError::Deadline { .. } | GraphError::Throttled { .. } => Self::Deadline,
            GraphError::SignedOut { .. } => Self::SignedOut,
            GraphError::Unsupported { .. } => Self::NotSupported,
            GraphError::PreconditionFailed { .. }
            | GraphError::Invalid { .. }
            | GraphError::Configuration { .. }
            | GraphError::Resync { .. }
            | GraphError::UrlExpired { .. }
            | GraphError::SessionGone { .. }
            | GraphError::FragmentRange { .. }
            | GraphError::RangeNotSatisfiable { .. }
            | GraphError::Truncated { .. }
            | GraphError::Server { .. }
            | GraphError::Protocol { .. }
            | GraphError::InsecureUrl => Self::Service(error.to_string()),
        }
    }
}
