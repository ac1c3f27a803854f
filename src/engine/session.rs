//! Uploads in fragments: a session of the service that survives a crash (design 6, graph-api 7.2 to 7.5).
//!
//! A session checks its tag when it is made. Where its end checks none, the item is looked at right before, and
//! what came in between nevertheless is brought back afterwards (`between.rs`). A session whose content is no longer
//! what is to be sent is cancelled: while it is open, business drives refuse another one for the name.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::between::LastLook;
use super::fragments::Fragments;
use super::op::Send;
use super::upload::Job;
use super::{Engine, Inner, lock};
use crate::graph::{
    Commit, ConflictBehavior, FragmentOutcome, GraphError, SessionSpec, SessionUrl, UploadSession,
    UploadTarget,
};
use crate::model::{DriveType, RemoteItem, Timestamp};
use crate::store::{Durability, Node, SessionRow, StoreError};

/// Mebibytes of fragments in memory at once, of all uploads together.
pub(super) const FRAGMENT_MEMORY: usize = 128;
/// A session older than this is not resumed: its address holds for 24 hours (graph-api 7.3).
const LIFE_NANOS: i64 = 23 * 3600 * 1_000_000_000;
/// Failures of one fragment, or of the end, before the whole upload is put off.
const TRIES: u32 = 5;

/// What a session writes to, and what must be known of it to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Aim {
    /// The place or the item.
    pub to: String,
    /// It ends with a request of its own.
    pub deferred: bool,
    /// The file at the last look before the end.
    #[serde(default)]
    pub look: Option<LastLook>,
}

impl Aim {
    /// Reads the form in the store.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The form in the store.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("plain data is always written")
    }
}

/// A session that takes fragments.
struct Open {
    url: SessionUrl,
    /// First byte to send; the size where only the end is missing.
    next: u64,
    deferred: bool,
}

impl Engine {
    pub(super) async fn upload_in_session(&self, job: &Job<'_>) -> Result<RemoteItem, GraphError> {
        let session = match self.resume(job).await? {
            Some(resumed) => resumed,
            None => self.begin_session(job).await?,
        };
        let progress = self.0.uploading(job.node.id, job.size);
        let (mut at, mut sizes, mut failures, mut look) =
            (session.next, Fragments::new(self.0.config.sizes.unit), 0, None);
        let made = loop {
            progress.set(at.min(job.size));
            if at >= job.size {
                break self.end_session(job, &session, &mut look).await?;
            }
            let len = sizes.len(at, job.size);
            if at + len == job.size && !session.deferred {
                look = self.look_before_end(job, &session).await?;
            }
            let started = Instant::now();
            match self.put_fragment(job, &session, at, len).await {
                Ok(FragmentOutcome::Done(Some(item))) => break *item,
                Ok(FragmentOutcome::Done(None)) => break self.read_result(job).await?,
                Ok(FragmentOutcome::More { next }) => {
                    failures = 0;
                    sizes.took(len, started.elapsed());
                    at = next;
                    self.0.note_progress(job.content, at).await;
                }
                Err(error) if failures < TRIES && may_realign(&error) => {
                    failures += 1;
                    sizes.failed(matches!(error, GraphError::TooLarge { .. }));
                    self.0.pause(super::execute::backoff(failures)).await;
                    match self.0.graph.session_status(&session.url).await {
                        Ok(status) => at = status.next.min(job.size),
                        Err(GraphError::SessionGone { .. }) => {
                            break self.result_or_restart(job, &session, error).await?;
                        }
                        Err(other) => return Err(other),
                    }
                }
                Err(error @ GraphError::SessionGone { .. }) => {
                    break self.result_or_restart(job, &session, error).await?;
                }
                Err(error) => return Err(error),
            }
        };
        self.keep_between(job, look, &made).await?;
        Ok(made)
    }

    async fn put_fragment(
        &self,
        job: &Job<'_>,
        session: &Open,
        at: u64,
        len: u64,
    ) -> Result<FragmentOutcome, GraphError> {
        let room = u32::try_from(len.div_ceil(1 << 20)).unwrap_or(u32::MAX);
        // Closed never; without a permit it goes as before.
        let _room = self.0.fragment_memory.acquire_many(room.min(FRAGMENT_MEMORY as u32)).await;
        let body = self.read_staged(job.content, at, len).await?;
        self.0.graph.put_fragment(&session.url, at, job.size, body).await
    }

    /// A session's tag was checked at its making only: before its end the item is read again.
    async fn look_before_end(&self, job: &Job<'_>, session: &Open) -> Result<Option<LastLook>, GraphError> {
        let Send::Replace { item, .. } = job.send else { return Ok(None) };
        let look = match self.check_target(job, item).await {
            Ok(now) => LastLook::at(&now),
            Err(error @ GraphError::PreconditionFailed { .. }) => {
                self.give_up_session(job.content, &session.url).await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        self.0.note_look(job.content, look).await;
        Ok(look)
    }

    /// All bytes are there: makes them the file's.
    async fn end_session(
        &self,
        job: &Job<'_>,
        session: &Open,
        look: &mut Option<LastLook>,
    ) -> Result<RemoteItem, GraphError> {
        let mut failures = 0;
        loop {
            let (how, checked) = self.commit_of(job, session).await?;
            // A commit that checks the tag leaves no moment in between.
            *look = checked;
            let error = match self.0.graph.commit_session(&session.url, &how).await {
                Ok(Some(item)) => return Ok(item),
                Ok(None) => return self.read_result(job).await,
                Err(error) => error,
            };
            failures += 1;
            match error {
                GraphError::SessionGone { .. } => return self.result_or_restart(job, session, error).await,
                GraphError::Unsupported { .. }
                | GraphError::Invalid { .. }
                | GraphError::NotFound { .. }
                | GraphError::FragmentRange { .. } => {
                    tracing::warn!(%error, "the service does not end uploads on request: sent again without");
                    self.0.ends_sessions_itself.store(true, Ordering::Release);
                    self.give_up_session(job.content, &session.url).await?;
                    return Err(GraphError::SessionGone { ids: Default::default() });
                }
                // The tag moved after the look: looked at again.
                GraphError::PreconditionFailed { .. } if failures < TRIES => {}
                error if failures < TRIES && may_realign(&error) => {
                    self.0.pause(super::execute::backoff(failures)).await;
                    match self.0.graph.session_status(&session.url).await {
                        Ok(_) => {}
                        Err(GraphError::SessionGone { .. }) => {
                            return self.result_or_restart(job, session, error).await;
                        }
                        Err(other) => return Err(other),
                    }
                }
                error => return Err(error),
            }
        }
    }

    /// How the session ends, after a look at what it replaces; with the look where the end checks no tag.
    async fn commit_of(
        &self,
        job: &Job<'_>,
        session: &Open,
    ) -> Result<(Commit, Option<LastLook>), GraphError> {
        let personal = self.drive_type() == DriveType::Personal;
        let drive = self.0.drive.id.clone();
        match job.send {
            Send::Replace { item, .. } if personal => {
                let now = match self.check_target(job, item).await {
                    Err(error @ GraphError::PreconditionFailed { .. }) => {
                        self.give_up_session(job.content, &session.url).await?;
                        return Err(error);
                    }
                    now => now?,
                };
                let gone = || GraphError::NotFound { ids: Default::default() };
                let (parent, name) = (now.parent.ok_or_else(gone)?, now.name.ok_or_else(gone)?);
                let if_match = now.etag.map(|tag| tag.as_str().to_owned());
                let conflict = ConflictBehavior::Replace;
                Ok((Commit::Personal { drive, parent, name, conflict, if_match }, None))
            }
            Send::Create { parent, name, .. } if personal => {
                let (parent, name, conflict) = (parent.clone(), name.clone(), ConflictBehavior::Fail);
                Ok((Commit::Personal { drive, parent, name, conflict, if_match: None }, None))
            }
            _ => Ok((Commit::Business, self.look_before_end(job, session).await?)),
        }
    }

    /// The session is gone: it was committed, or it must be made anew.
    async fn result_or_restart(
        &self,
        job: &Job<'_>,
        session: &Open,
        error: GraphError,
    ) -> Result<RemoteItem, GraphError> {
        match self.read_result(job).await {
            Ok(item) if self.is_ours(job.node, job.send, &item).await? => return Ok(item),
            Ok(_) | Err(GraphError::NotFound { .. }) => {}
            // It may have been committed: its row stays (`may_have_made`).
            Err(unknown) => return Err(unknown),
        }
        // Where it is not quite gone, it would stand in the way of the next.
        self.give_up_session(job.content, &session.url).await?;
        Err(error)
    }

    /// A session recorded for exactly this content and target, and where it goes on.
    async fn resume(&self, job: &Job<'_>) -> Result<Option<Open>, GraphError> {
        let Ok(Some(row)) = self.0.store.session(job.content) else { return Ok(None) };
        let url = SessionUrl::new(row.url.clone());
        let now = Timestamp::from(self.0.clock.wall());
        let aim = Aim::parse(&row.target).filter(|aim| aim.to == target_of(job));
        let fits = row.total == job.size && now.0.saturating_sub(row.created_at.0).abs() < LIFE_NANOS;
        if let (Some(aim), true) = (aim, fits) {
            match self.0.graph.session_status(&url).await {
                Ok(status) => {
                    let next = status.next.min(job.size);
                    tracing::info!(node = %job.node.id, offset = next, "an upload goes on where it was");
                    return Ok(Some(Open { url, next, deferred: aim.deferred }));
                }
                Err(GraphError::SessionGone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.give_up_session(job.content, &url).await?;
        Ok(None)
    }

    async fn begin_session(&self, job: &Job<'_>) -> Result<Open, GraphError> {
        self.cancel_others(job).await?;
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
        // What takes moments ends with its one fragment; what takes long is looked at when all of it is there.
        let deferred = matches!(job.send, Send::Replace { .. })
            && job.size > self.0.config.sizes.put
            && !self.0.ends_sessions_itself.load(Ordering::Acquire);
        let spec = SessionSpec {
            size: job.size,
            mtime: job.mtime,
            defer_commit: deferred,
            ..SessionSpec::default()
        };
        let made = self.0.graph.create_session(&self.0.drive.id, &target, &spec).await?;
        if let Err(error) = self.0.remember_session(job, &made, deferred).await {
            tracing::error!(%error, "an upload session could not be recorded");
            self.0.graph.cancel_session(&made.url).await?;
            return Err(unnoted(error));
        }
        Ok(Open { url: made.url, next: made.next, deferred })
    }

    /// Whether an attempt without an answer may have made a file. What is to be made in a session is not there before the
    /// session has ended, and no byte is sent before its row is stored: what is at its place until then is another
    /// client's, though it were the very same bytes.
    pub(super) async fn may_have_made(&self, send: &Send) -> Result<bool, GraphError> {
        let Send::Create { content, size, mtime, .. } = send else { return Ok(true) };
        if self.goes_in_one_put(*size, *mtime) {
            return Ok(true);
        }
        let (inner, content) = (self.0.clone(), *content);
        let row = self.0.blocking.start(move || inner.store.session(content)).await.map_err(unnoted)?;
        let Some(row) = row else { return Ok(false) };
        match self.0.graph.session_status(&SessionUrl::new(row.url)).await {
            Ok(_) => Ok(false),
            Err(GraphError::SessionGone { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Sessions that this node began with other content: while one is open, another is refused.
    async fn cancel_others(&self, job: &Job<'_>) -> Result<(), GraphError> {
        let inner = self.0.clone();
        let rows = self.0.blocking.start(move || inner.store.inspect(|tx| tx.sessions())).await;
        for row in rows.unwrap_or_default().into_iter().filter(|row| row.content != job.content) {
            let same = Aim::parse(&row.target).is_some_and(|aim| aim.to == target_of(job));
            if row.node == job.node.id || same {
                self.give_up_session(row.content, &SessionUrl::new(row.url)).await?;
            }
        }
        Ok(())
    }

    async fn give_up_session(&self, content: u64, url: &SessionUrl) -> Result<(), GraphError> {
        self.0.graph.cancel_session(url).await?;
        self.0.forget_session(content).await;
        Ok(())
    }

    /// Cancels the sessions whose content is not what is to be sent any more, those of an earlier run too.
    pub(super) fn cancel_superseded(&self) {
        if !self.0.may_send() || self.0.cancelling.swap(true, Ordering::AcqRel) {
            return;
        }
        let engine = self.clone();
        tokio::spawn(async move {
            let inner = engine.0.clone();
            let rows = engine.0.blocking.start(move || inner.superseded()).await;
            for row in rows.unwrap_or_default() {
                let cancelled = engine.give_up_session(row.content, &SessionUrl::new(row.url)).await;
                match cancelled {
                    Ok(()) => {
                        tracing::info!(node = %row.node, "an upload session that is not needed was cancelled")
                    }
                    Err(error) => tracing::info!(%error, "an upload session is cancelled later"),
                }
            }
            engine.0.cancelling.store(false, Ordering::Release);
        });
    }
}

fn unnoted(error: StoreError) -> GraphError {
    GraphError::Configuration {
        what: format!("what is known of an upload cannot be read or written: {error}"),
    }
}

fn target_of(job: &Job<'_>) -> String {
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

impl Inner {
    fn superseded(&self) -> Result<Vec<SessionRow>, StoreError> {
        let (in_flight, copies) = (lock(&self.in_flight).clone(), self.held.copies());
        self.store.inspect(|tx| {
            let rows = tx.sessions()?;
            if rows.is_empty() {
                return Ok(rows);
            }
            let attempts = tx.attempts()?;
            let is_wanted = |row: &SessionRow| -> Result<bool, StoreError> {
                let local = tx.find(row.node)?.and_then(|node: Node| node.local);
                let named = local.is_some_and(|local| local.content == Some(row.content) && !local.deleted);
                let asked = attempts.iter().any(|attempt| attempt.content == Some(row.content));
                Ok(named || asked || in_flight.contains(&row.node) || copies.contains(&row.content))
            };
            let mut found = Vec::new();
            for row in rows {
                if !is_wanted(&row)? {
                    found.push(row);
                }
            }
            Ok(found)
        })
    }

    async fn remember_session(
        self: &Arc<Self>,
        job: &Job<'_>,
        made: &UploadSession,
        deferred: bool,
    ) -> Result<(), StoreError> {
        let row = SessionRow {
            content: job.content,
            node: job.node.id,
            url: made.url.expose().to_owned(),
            offset: made.next,
            total: job.size,
            expires: made.expires,
            created_at: Timestamp::from(self.clock.wall()),
            target: Aim { to: target_of(job), deferred, look: None }.text(),
            mtime_applied: made.mtime_applied,
        };
        // Durable before a byte is sent: a session that nobody knows keeps its name from being sent until it expires, and
        // without a row nobody would look for what it made.
        let inner = self.clone();
        self.blocking.start(move || inner.store.write(Durability::Power, |tx| tx.put_session(&row))).await
    }

    async fn note_progress(self: &Arc<Self>, content: u64, offset: u64) {
        self.change_session("updated", content, move |row| SessionRow { offset, ..row }).await;
    }

    async fn note_look(self: &Arc<Self>, content: u64, look: Option<LastLook>) {
        self.change_session("looked at", content, move |row| {
            let aim = Aim::parse(&row.target).map(|aim| Aim { look, ..aim });
            SessionRow { target: aim.map_or(row.target, |aim| aim.text()), ..row }
        })
        .await;
    }

    async fn change_session(
        self: &Arc<Self>,
        what: &'static str,
        content: u64,
        change: impl FnOnce(SessionRow) -> SessionRow + std::marker::Send + 'static,
    ) {
        self.record_session(what, move |inner| {
            inner.store.write(Durability::Process, |tx| {
                tx.session(content)?.map_or(Ok(()), |row| tx.put_session(&change(row)))
            })
        })
        .await;
    }

    async fn forget_session(self: &Arc<Self>, content: u64) {
        self.record_session("forgotten", move |inner| {
            inner.store.write(Durability::Process, |tx| tx.remove_session(content))
        })
        .await;
    }

    /// What changes in the row of a session is an aid to speed: without it a later start is a fresh one.
    async fn record_session(
        self: &Arc<Self>,
        what: &'static str,
        change: impl FnOnce(&Self) -> Result<(), StoreError> + std::marker::Send + 'static,
    ) {
        let inner = self.clone();
        if let Err(error) = self.blocking.start(move || change(&inner)).await {
            tracing::warn!(%error, what, "an upload session could not be recorded");
        }
    }
}
