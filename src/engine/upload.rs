//! Sealed content to the service: one PUT, or a session (`session.rs`) that survives a crash (design 6).

use bytes::Bytes;

use super::between::LastLook;
use super::op::Send;
use super::status::UploadProgress;
use super::{Engine, Inner};
use crate::content::{StagingError, StagingId};
use crate::graph::{ConflictBehavior, FRAGMENT_UNIT, GraphError, Priority};
use crate::model::{ByteRange, Comparison, ItemId, RemoteItem, Timestamp};
use crate::store::Node;

/// How content is cut into requests, in bytes. Only a service made for tests takes others than the default.
#[derive(Clone, Copy, Debug)]
pub struct UploadSizes {
    /// Content up to this size goes in one PUT (graph-api 7.1, 15.1).
    pub put: u64,
    /// Fragments of sessions are multiples of this (graph-api 7.3).
    pub unit: u64,
}

impl Default for UploadSizes {
    fn default() -> Self {
        Self { put: 4 << 20, unit: FRAGMENT_UNIT }
    }
}

/// An upload.
pub(super) struct Job<'a> {
    pub node: &'a Node,
    pub send: &'a Send,
    pub content: u64,
    pub size: u64,
    pub mtime: Option<Timestamp>,
}

impl Engine {
    /// Sends the content of `send` and returns the item it became.
    pub(super) async fn upload(&self, node: &Node, send: &Send) -> Result<RemoteItem, GraphError> {
        let (content, size, mtime) = match send {
            Send::Create { content, size, mtime, .. } | Send::Replace { content, size, mtime, .. } => {
                (*content, *size, *mtime)
            }
            _ => unreachable!("only creates and replaces carry content"),
        };
        let job = Job { node, send, content, size, mtime };
        if self.goes_in_one_put(size, mtime) {
            let body = self.read_staged(content, 0, size).await?;
            return self.put(&job, body).await;
        }
        self.upload_in_session(&job).await
    }

    /// Whether such content is sent in one request, which cannot set a time.
    pub(super) fn goes_in_one_put(&self, size: u64, mtime: Option<Timestamp>) -> bool {
        size == 0 || (size <= self.0.config.sizes.put && mtime.is_none())
    }

    async fn put(&self, job: &Job<'_>, body: Bytes) -> Result<RemoteItem, GraphError> {
        let (graph, drive) = (&self.0.graph, &self.0.drive.id);
        match job.send {
            Send::Create { parent, name, .. } => {
                graph.put_new(drive, parent, name, body, ConflictBehavior::Fail).await
            }
            Send::Replace { item, if_match, .. } => {
                let tag = self.precondition(job.node, item, if_match.as_ref()).await?;
                if tag.is_some() || if_match.is_none() {
                    return graph.put_replace(drive, item, body, tag.as_deref()).await;
                }
                let look = LastLook::at(&self.check_target(job, item).await?);
                let made = graph.put_replace(drive, item, body, None).await?;
                self.keep_between(job, look, &made).await?;
                Ok(made)
            }
            _ => unreachable!("only creates and replaces carry content"),
        }
    }

    /// Reads the item right before a commit that checks no tag. `PreconditionFailed`: its content is another
    /// than the one that was changed here.
    pub(super) async fn check_target(&self, job: &Job<'_>, item: &ItemId) -> Result<RemoteItem, GraphError> {
        let now = self.0.graph.item(&self.0.drive.id, item, Priority::Upload).await?;
        let base = job.node.remote.as_ref().map(|view| &view.version);
        let moved = base.is_some_and(|base| {
            matches!(base.compare(&now.version()), Comparison::Different | Comparison::Unknown)
                && base.etag != now.etag
        });
        if moved { Err(GraphError::PreconditionFailed { ids: Default::default() }) } else { Ok(now) }
    }

    pub(super) async fn keep_between(
        &self,
        job: &Job<'_>,
        look: Option<LastLook>,
        made: &RemoteItem,
    ) -> Result<(), GraphError> {
        match look {
            Some(look) => self.keep_what_came_between(job.node, job.send, &look, made).await,
            None => Ok(()),
        }
    }

    /// What became of the job, read from the service.
    pub(super) async fn read_result(&self, job: &Job<'_>) -> Result<RemoteItem, GraphError> {
        let (graph, drive) = (&self.0.graph, &self.0.drive.id);
        match job.send {
            Send::Create { parent, name, .. } => graph.child(drive, parent, name, Priority::Upload).await,
            Send::Replace { item, .. } => graph.item(drive, item, Priority::Upload).await,
            _ => unreachable!("only creates and replaces carry content"),
        }
    }

    /// Reads sealed content; a local failure is told as the body that could not be made.
    pub(super) async fn read_staged(&self, content: u64, offset: u64, len: u64) -> Result<Bytes, GraphError> {
        let inner = self.0.clone();
        self.0.blocking.start(move || inner.read_staged(content, offset, len)).await.map_err(|error| {
            tracing::error!(content, %error, "unsent content cannot be read");
            GraphError::Configuration { what: format!("unsent content cannot be read: {error}") }
        })
    }
}

/// Shows an upload in `status` for as long as it lives.
pub(super) struct Progress<'a> {
    inner: &'a Inner,
    node: crate::model::NodeId,
}

impl Progress<'_> {
    pub(super) fn set(&self, sent: u64) {
        if let Some(entry) = self.inner.uploads().get_mut(&self.node) {
            entry.0 = sent;
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.inner.uploads().remove(&self.node);
    }
}

impl Inner {
    pub(super) fn uploading(&self, node: crate::model::NodeId, total: u64) -> Progress<'_> {
        self.uploads().insert(node, (0, total));
        Progress { inner: self, node }
    }

    /// The uploads in progress, for `status`.
    pub(super) fn upload_progress(&self) -> Vec<UploadProgress> {
        let running: Vec<_> = self.uploads().iter().map(|(&node, &progress)| (node, progress)).collect();
        let path = |node| self.store.path_of(node).unwrap_or_default();
        running
            .into_iter()
            .map(|(node, (sent, total))| UploadProgress { path: path(node), sent, total })
            .collect()
    }

    fn read_staged(&self, content: u64, offset: u64, len: u64) -> Result<Bytes, StagingError> {
        let file = self.staging.load(StagingId(content))?.file;
        let bytes = file.read_local(ByteRange::at(offset, len))?.ok_or(StagingError::NotComplete)?;
        if bytes.len() as u64 == len { Ok(bytes) } else { Err(StagingError::Broken) }
    }
}
