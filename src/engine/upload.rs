//! Sealed content to the service: one PUT, or a session that survives a crash (design 6).

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::op::Send;
use super::status::UploadProgress;
use super::{Engine, Inner};
use crate::content::{StagingError, StagingId};
use crate::graph::{
    ConflictBehavior, FragmentOutcome, GraphError, Priority, SessionSpec, SessionUrl, UploadSession,
    UploadTarget, fragment_len,
};
use crate::model::{ByteRange, Comparison, RemoteItem, Timestamp};
use crate::store::{Durability, Node, SessionRow};

/// Content up to this size goes in one PUT (graph-api 7.1, 15.1).
const SMALL: u64 = 4 << 20;
const FIRST_FRAGMENT: u64 = 10 << 20;
const MIN_FRAGMENT: u64 = 320 << 10;
const MAX_FRAGMENT: u64 = 191 * (320 << 10);
/// A fragment should take about this long, so that a lost connection loses little and requests stay few.
const FRAGMENT_TIME: Duration = Duration::from_secs(8);
/// A session older than this is not resumed: its address holds for 24 hours (graph-api 7.3).
const SESSION_LIFE_NANOS: i64 = 23 * 3600 * 1_000_000_000;
/// Failures of one fragment before the whole upload is put off.
const FRAGMENT_TRIES: u32 = 5;

struct Job<'a> {
    node: &'a Node,
    send: &'a Send,
    content: u64,
    size: u64,
    mtime: Option<Timestamp>,
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
        if size == 0 || (size <= SMALL && mtime.is_none()) {
            let body = self.read_staged(content, 0, size).await?;
            return self.put(&job, body).await;
        }
        self.upload_in_session(&job).await
    }

    async fn put(&self, job: &Job<'_>, body: Bytes) -> Result<RemoteItem, GraphError> {
        let (graph, drive) = (&self.0.graph, &self.0.drive.id);
        match job.send {
            Send::Create { parent, name, .. } => {
                graph.put_new(drive, parent, name, body, ConflictBehavior::Fail).await
            }
            Send::Replace { item, if_match, .. } => {
                let tag = self.precondition(job.node, item, if_match.as_ref()).await?;
                graph.put_replace(drive, item, body, tag.as_deref()).await
            }
            _ => unreachable!("only creates and replaces carry content"),
        }
    }

    async fn upload_in_session(&self, job: &Job<'_>) -> Result<RemoteItem, GraphError> {
        let (url, mut offset) = match self.resume(job).await? {
            Some(resumed) => resumed,
            None => self.begin_session(job).await?,
        };
        let progress = self.0.uploading(job.node.id, job.size);
        let mut wanted = FIRST_FRAGMENT;
        let mut failures = 0;
        loop {
            progress.set(offset.min(job.size));
            let len = fragment_len(offset, job.size, wanted);
            if offset + len == job.size {
                self.check_target(job, &url).await?;
            }
            let body = self.read_staged(job.content, offset, len).await?;
            let started = Instant::now();
            match self.0.graph.put_fragment(&url, offset, job.size, body).await {
                Ok(FragmentOutcome::Done(Some(item))) => return Ok(*item),
                Ok(FragmentOutcome::Done(None)) => return self.read_result(job).await,
                Ok(FragmentOutcome::More { next }) => {
                    failures = 0;
                    wanted = next_fragment(wanted, started.elapsed());
                    offset = next;
                    self.0.note_progress(job.content, offset).await;
                }
                Err(error) if failures < FRAGMENT_TRIES && may_realign(&error) => {
                    failures += 1;
                    wanted = (wanted / 2).max(MIN_FRAGMENT);
                    self.0.pause(super::execute::backoff(failures)).await;
                    match self.0.graph.session_status(&url).await {
                        Ok(status) if status.next <= job.size => offset = status.next,
                        Ok(_) | Err(GraphError::SessionGone { .. }) => {
                            return self.result_or_restart(job, error).await;
                        }
                        Err(other) => return Err(other),
                    }
                }
                Err(error @ GraphError::SessionGone { .. }) => {
                    return self.result_or_restart(job, error).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The session is gone: it was committed, or it must be made anew.
    async fn result_or_restart(&self, job: &Job<'_>, error: GraphError) -> Result<RemoteItem, GraphError> {
        self.0.forget_session(job.content).await;
        match self.read_result(job).await {
            Ok(item) if self.is_ours(job.node, job.send, &item).await? => Ok(item),
            _ => Err(error),
        }
    }

    async fn read_result(&self, job: &Job<'_>) -> Result<RemoteItem, GraphError> {
        let (graph, drive) = (&self.0.graph, &self.0.drive.id);
        match job.send {
            Send::Create { parent, name, .. } => graph.child(drive, parent, name, Priority::Upload).await,
            Send::Replace { item, .. } => graph.item(drive, item, Priority::Upload).await,
            _ => unreachable!("only creates and replaces carry content"),
        }
    }

    /// A session recorded for exactly this content and target, and where it goes on.
    async fn resume(&self, job: &Job<'_>) -> Result<Option<(SessionUrl, u64)>, GraphError> {
        let Ok(Some(row)) = self.0.store.session(job.content) else { return Ok(None) };
        let url = SessionUrl::new(row.url.clone());
        let now = Timestamp::from(self.0.clock.wall());
        let fits = row.target == target_text(job) && row.total == job.size;
        if fits && now.0.saturating_sub(row.created_at.0).abs() < SESSION_LIFE_NANOS {
            match self.0.graph.session_status(&url).await {
                Ok(status) if status.next <= job.size => {
                    tracing::info!(node = %job.node.id, offset = status.next, "an upload goes on where it was");
                    return Ok(Some((url, status.next)));
                }
                Ok(_) | Err(GraphError::SessionGone { .. }) => {}
                Err(error) => return Err(error),
            }
        } else if let Err(error) = self.0.graph.cancel_session(&url).await {
            tracing::debug!(%error, "an old upload session could not be cancelled");
        }
        self.0.forget_session(job.content).await;
        Ok(None)
    }

    async fn begin_session(&self, job: &Job<'_>) -> Result<(SessionUrl, u64), GraphError> {
        let target = match job.send {
            Send::Create { parent, name, .. } => UploadTarget::New {
                parent: parent.clone(),
                name: name.clone(),
                conflict: ConflictBehavior::Fail,
            },
            Send::Replace { item, if_match, .. } => {
                let if_match = self.precondition(job.node, item, if_match.as_ref()).await?;
                UploadTarget::Replace { item: item.clone(), if_match }
            }
            _ => unreachable!("only creates and replaces carry content"),
        };
        let spec = SessionSpec { size: job.size, mtime: job.mtime, ..SessionSpec::default() };
        let made = self.0.graph.create_session(&self.0.drive.id, &target, &spec).await?;
        self.0.remember_session(job, &made).await;
        Ok((made.url, made.next))
    }

    /// A session's precondition holds at its creation only: before the last fragment the item is read again.
    async fn check_target(&self, job: &Job<'_>, url: &SessionUrl) -> Result<(), GraphError> {
        let Send::Replace { item, .. } = job.send else { return Ok(()) };
        let now = self.0.graph.item(&self.0.drive.id, item, Priority::Upload).await?;
        let base = job.node.remote.as_ref().map(|view| &view.version);
        let moved = base.is_some_and(|base| {
            matches!(base.compare(&now.version()), Comparison::Different | Comparison::Unknown)
                && base.etag != now.etag
        });
        if !moved {
            return Ok(());
        }
        self.0.graph.cancel_session(url).await?;
        self.0.forget_session(job.content).await;
        Err(GraphError::PreconditionFailed { ids: Default::default() })
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

fn target_text(job: &Job<'_>) -> String {
    match job.send {
        Send::Create { parent, name, .. } => format!("new:{parent}:{name}"),
        Send::Replace { item, .. } => format!("replace:{item}"),
        _ => unreachable!("only creates and replaces carry content"),
    }
}

/// Whether the session itself may still be good, and its status tells where to go on.
fn may_realign(error: &GraphError) -> bool {
    matches!(
        error,
        GraphError::Offline { .. }
            | GraphError::Deadline { .. }
            | GraphError::Server { .. }
            | GraphError::FragmentRange { .. }
            | GraphError::Protocol { .. }
            | GraphError::TooLarge { .. }
    )
}

/// Larger when fragments are quick, smaller when they are slow.
fn next_fragment(current: u64, took: Duration) -> u64 {
    let wanted = if took < FRAGMENT_TIME / 2 {
        current * 2
    } else if took > FRAGMENT_TIME * 2 {
        current / 2
    } else {
        current
    };
    wanted.clamp(MIN_FRAGMENT, MAX_FRAGMENT)
}

/// Shows an upload in `status` for as long as it lives.
pub(super) struct Progress<'a> {
    inner: &'a Inner,
    node: crate::model::NodeId,
}

impl Progress<'_> {
    fn set(&self, sent: u64) {
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
    fn uploading(&self, node: crate::model::NodeId, total: u64) -> Progress<'_> {
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

    async fn remember_session(self: &std::sync::Arc<Self>, job: &Job<'_>, made: &UploadSession) {
        let row = SessionRow {
            content: job.content,
            node: job.node.id,
            url: made.url.expose().to_owned(),
            offset: made.next,
            total: job.size,
            expires: made.expires,
            created_at: Timestamp::from(self.clock.wall()),
            target: target_text(job),
            mtime_applied: made.mtime_applied,
        };
        self.record_session("recorded", move |inner| {
            inner.store.write(Durability::Process, |tx| tx.put_session(&row))
        })
        .await;
    }

    async fn note_progress(self: &std::sync::Arc<Self>, content: u64, offset: u64) {
        self.record_session("updated", move |inner| {
            let Some(row) = inner.store.session(content)? else { return Ok(()) };
            inner.store.write(Durability::Process, |tx| tx.put_session(&SessionRow { offset, ..row }))
        })
        .await;
    }

    async fn forget_session(self: &std::sync::Arc<Self>, content: u64) {
        self.record_session("forgotten", move |inner| {
            inner.store.write(Durability::Process, |tx| tx.remove_session(content))
        })
        .await;
    }

    /// A session is an aid to speed: that its row cannot be written only costs a fresh start later.
    async fn record_session(
        self: &std::sync::Arc<Self>,
        what: &'static str,
        change: impl FnOnce(&Inner) -> Result<(), crate::store::StoreError> + std::marker::Send + 'static,
    ) {
        let inner = self.clone();
        if let Err(error) = self.blocking.start(move || change(&inner)).await {
            tracing::warn!(%error, what, "an upload session could not be recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_grow_while_quick_and_stay_legal() {
        let mut size = FIRST_FRAGMENT;
        for _ in 0..10 {
            size = next_fragment(size, Duration::from_millis(10));
        }
        assert_eq!(size, MAX_FRAGMENT);
        for _ in 0..20 {
            size = next_fragment(size, Duration::from_secs(60));
        }
        assert_eq!(size, MIN_FRAGMENT);
    }
}
