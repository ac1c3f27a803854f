//! Runs the operations of a plan and records what became of them.

use std::time::Duration;

use super::apply::{Source, content_key, is_rewritten};
use super::conflict::Outcome;
use super::error::{Verdict, classify};
use super::missing::For;
use super::op::{Op, Send};
use super::settle::{self, Naming};
use super::{Engine, EngineError, Inner, lock};
use crate::content::StagingId;
use crate::graph::{ConflictBehavior, Deleted, GraphError, Patch, Priority};
use crate::model::{ItemId, NodeId, RemoteItem, Timestamp};
use crate::store::{Durability, Node, ParkKind, Parked, StoreError};

impl Engine {
    /// Runs one operation to its end. Called in a task of its own; the node is marked in flight.
    pub(super) async fn perform(&self, node: Node, op: Op) {
        let outcome = match op {
            Op::Forget => self.0.local_op(&node, |inner, node| inner.forget(node)).await,
            Op::Settle(Outcome::ConflictCopy) => self.settle_conflict(&node).await,
            Op::Settle(Outcome::Recreate)
                if self.still_there(&node).await || self.looks_at_its_folder(&node).await =>
            {
                Ok(())
            }
            Op::Settle(outcome) => {
                self.0.local_op(&node, move |inner, node| inner.settle(node, &outcome)).await
            }
            Op::Yield { to, how } => self.yield_or_adopt(&node, to, how).await,
            Op::BringHome if self.looks_at_its_folder(&node).await => Ok(()),
            Op::BringHome => self.0.local_op(&node, |inner, node| inner.bring_home(node)).await,
            Op::Seal { content } => self.seal(&node, content).await,
            Op::Copy { content } => self.copy_held(&node, content).await,
            Op::Verify(send) => self.verify(&node, send).await,
            Op::Send(send) => self.send(&node, send).await,
        };
        if let Err(error) = outcome {
            tracing::error!(node = %node.id, %error, "an operation could not be recorded; it is tried again");
            self.0.pause(Duration::from_secs(1)).await;
        }
    }

    async fn send(&self, node: &Node, send: Send) -> Result<(), EngineError> {
        let (inner, planned, record) = (self.0.clone(), node.clone(), send.clone());
        let begun = self.0.blocking.start(move || inner.begin(&planned, &record)).await?;
        if begun.is_none() {
            return Ok(());
        }
        tracing::debug!(node = %node.id, op = send.label(), "sending");
        let result = match self.request(node, &send).await {
            Ok(Some(item)) => {
                self.learn_me(&item).await;
                Ok(Some(item))
            }
            Err(error @ GraphError::Exists { .. }) => self.made_before(&send).await.map(Some).ok_or(error),
            other => other,
        };
        self.finish(node, send, result).await
    }

    async fn finish(
        &self,
        node: &Node,
        send: Send,
        result: Result<Option<RemoteItem>, GraphError>,
    ) -> Result<(), EngineError> {
        match result {
            Ok(item) => {
                self.0.connected();
                self.succeeded(node.id, send, item).await
            }
            Err(error) => self.failed(node, &send, &error).await,
        }
    }

    /// The one place that turns an operation into requests.
    async fn request(&self, node: &Node, send: &Send) -> Result<Option<RemoteItem>, GraphError> {
        let (graph, drive) = (&self.0.graph, &self.0.drive.id);
        match send {
            Send::Mkdir { parent, name } => graph.mkdir(drive, parent, name, None).await.map(Some),
            Send::Create { .. } | Send::Replace { .. } => self.upload(node, send).await.map(Some),
            Send::Move { item, parent, name, if_match } => {
                let patch = Patch { name: name.clone(), parent: parent.clone(), ..Patch::default() };
                let tag = self.precondition(node, item, if_match.as_ref()).await?;
                graph.update(drive, item, &patch, tag.as_deref(), ConflictBehavior::Fail).await.map(Some)
            }
            Send::SetTime { item, mtime, if_match } => {
                let patch = Patch { mtime: Some(*mtime), ..Patch::default() };
                let tag = self.precondition(node, item, if_match.as_ref()).await?;
                graph.update(drive, item, &patch, tag.as_deref(), ConflictBehavior::Fail).await.map(Some)
            }
            Send::Delete { item, if_match, folder } => {
                let is_known = self.0.looked().is_some() && node.listed;
                if *folder && !is_known && !self.is_empty_remotely(node).await? {
                    return Err(GraphError::PreconditionFailed { ids: Default::default() });
                }
                let tag = self.precondition(node, item, if_match.as_ref()).await?;
                match graph.delete(drive, item, tag.as_deref()).await? {
                    Deleted::AlreadyGone if self.lives_on(item).await => {
                        Err(GraphError::PreconditionFailed { ids: Default::default() })
                    }
                    Deleted::AlreadyGone | Deleted::Done => Ok(None),
                }
            }
        }
    }

    async fn succeeded(&self, id: NodeId, send: Send, item: Option<RemoteItem>) -> Result<(), EngineError> {
        if let (Some(item), Some(content)) = (&item, send.content()) {
            let as_is = has_sent_content(&send, item);
            let now = Timestamp::from(self.0.clock.wall());
            if !self.0.held.sent(id, &send, (item, as_is), now) && as_is {
                self.note_sent(id, content, item);
                self.keep_content(item, content).await;
            }
        }
        let (inner, deleted) = (self.0.clone(), matches!(send, Send::Delete { .. }));
        let effects = self.0.blocking.start(move || inner.succeed(id, &send, item.as_ref())).await?;
        if effects.doubted.is_empty() {
            self.0.carry_out(effects);
        } else {
            self.settle_doubts(effects).await;
        }
        if deleted {
            self.room_may_have_come();
        }
        self.0.clean_up_soon().await;
        Ok(())
    }

    /// Whoever has the file open goes on from what was sent.
    pub(super) fn note_sent(&self, id: NodeId, content: u64, item: &RemoteItem) {
        if self.0.open.is_open(id) {
            lock(&self.0.sent).insert(content, (id, item.version()));
        }
    }

    /// What was uploaded is what a read of the new version would fetch: the cache takes it over.
    ///
    pub(super) async fn keep_content(&self, item: &RemoteItem, content: u64) {
        let rewritten = is_rewritten(self.0.is_business(), item.name.as_deref().unwrap_or_default());
        let view = super::apply::view_of(item, None, item.name.clone().unwrap_or_default());
        let key = content_key(&view, rewritten);
        let inner = self.0.clone();
        let kept = self
            .0
            .blocking
            .start(move || {
                let path = inner.staging.path(StagingId(content));
                inner.cache.adopt(&key, &path).map(drop)
            })
            .await;
        if let Err(error) = kept {
            tracing::info!(content, %error, "an uploaded file is not kept in the cache; it is read again when needed");
        }
    }

    async fn failed(&self, node: &Node, send: &Send, error: &GraphError) -> Result<(), EngineError> {
        let tries = node.local.as_ref().map_or(0, |local| local.tries);
        let verdict = match self.access_lost(send, error).await {
            Some(lost) => lost,
            // The folder may lie in what is to be moved by now; until that is known here both are out of sight.
            None if tries == 0 && is_refused_move(send, error) => Verdict::Look,
            None => classify(error),
        };
        tracing::info!(node = %node.id, op = send.label(), %error, ?verdict, "a change was not sent");
        lock(&self.0.failures).insert(node.id, error.clone());
        let wait = match error {
            GraphError::Throttled { retry_after: Some(wait), .. } => *wait,
            _ => backoff(tries),
        };
        if let GraphError::PreconditionFailed { .. } = error {
            self.0.note_refusal(node.id, send.if_match());
        }
        let (unknown, parked, wait) = match verdict {
            Verdict::Unknown => (true, None, wait),
            Verdict::Later => (false, None, wait),
            Verdict::Look => {
                self.look_again(node, send).await;
                (false, None, if tries == 0 { Duration::ZERO } else { wait })
            }
            Verdict::Offline => {
                self.0.disconnected(&error.to_string());
                (false, None, Duration::ZERO)
            }
            Verdict::SignedOut => {
                self.0.signed_out(&error.to_string());
                (false, None, Duration::ZERO)
            }
            Verdict::Park { kind, retry } => {
                if kind == ParkKind::Quota {
                    self.drive_is_full();
                }
                // The ids of the request are in the log.
                let text = error.to_string();
                let detail = text.split_once(" (").map_or(text.as_str(), |(what, _)| what).to_owned();
                let parked = Parked { kind, detail };
                let wait = if retry { park_wait(kind, tries) } else { Duration::MAX };
                (false, Some(parked), wait)
            }
        };
        let retry_at = self.0.after(wait);
        let (inner, id) = (self.0.clone(), node.id);
        self.0.blocking.start(move || inner.fail(id, unknown, parked, retry_at)).await?;
        Ok(())
    }

    /// Reads the item, its new parent and the holder of the name it wants; what is seen goes to the store,
    /// where the next plan finds it.
    async fn look_again(&self, node: &Node, send: &Send) {
        let sent_seq = self.0.store.sequence();
        let drive = &self.0.drive.id;
        let mut seen = Vec::new();
        let items = send.item().into_iter().chain(match send {
            Send::Mkdir { parent, .. } | Send::Create { parent, .. } => Some(parent),
            Send::Move { parent, .. } => parent.as_ref(),
            _ => None,
        });
        for item in items {
            seen.extend(self.look_at(item).await);
        }
        let wanted = match send {
            Send::Mkdir { parent, name } | Send::Create { parent, name, .. } => Some((parent.clone(), name)),
            Send::Move { parent, name, .. } => {
                let name = name.as_ref().or(node.remote.as_ref().map(|view| &view.name));
                let here = node.remote.as_ref().and_then(|view| view.parent);
                let here = here.and_then(|id| self.0.store.node(id).ok().flatten());
                let here = here.and_then(|folder| folder.remote.as_ref().map(|view| view.item.clone()));
                parent.clone().or(here).zip(name)
            }
            _ => None,
        };
        if let Some((parent, name)) = wanted
            && let Ok(holder) = self.0.graph.child(drive, &parent, name, Priority::Upload).await
        {
            seen.push(holder);
        }
        self.take_in(seen, Source::Direct, sent_seq).await;
    }

    /// The item as it is now; described as deleted where it is gone, nothing where nobody knows.
    ///
    /// What is gone may be taken away: what was moved out of it is seen elsewhere by then.
    pub(super) async fn look_at(&self, item: &ItemId) -> Option<RemoteItem> {
        let seen = self.look_for(item, For::Engine).await?;
        if !seen.deleted {
            return Some(seen);
        }
        let saved = self.save_moved_out(item).await.unwrap_or_else(|error| {
            tracing::error!(%error, "what is in a folder cannot be read from the store");
            false
        });
        saved.then_some(seen)
    }

    pub(super) async fn look_for(&self, item: &ItemId, who: For) -> Option<RemoteItem> {
        match self.0.graph.item(&self.0.drive.id, item, Priority::Upload).await {
            Ok(found) => self.renamed(item, found).await,
            Err(GraphError::NotFound { .. }) => self.missing(item, who).await,
            Err(error) if self.has_left(item, &error).await => Some(RemoteItem::gone(item.clone())),
            Err(error) => {
                tracing::debug!(%item, %error, "an item could not be looked at");
                None
            }
        }
    }

    /// Finds out what became of an attempt whose answer was lost.
    async fn verify(&self, node: &Node, send: Send) -> Result<(), EngineError> {
        let (drive, sent_seq) = (&self.0.drive.id, self.0.store.sequence());
        let found = match (self.may_have_made(&send).await, &send) {
            (Ok(false), _) => {
                tracing::info!(node = %node.id, "an upload whose answer was lost had not ended");
                return self.attempt_is_over(node.id).await;
            }
            (Err(error), _) => Err(error),
            (Ok(true), Send::Mkdir { parent, name } | Send::Create { parent, name, .. }) => {
                self.0.graph.child(drive, parent, name, Priority::Upload).await
            }
            (
                Ok(true),
                Send::Replace { item, .. }
                | Send::Move { item, .. }
                | Send::SetTime { item, .. }
                | Send::Delete { item, .. },
            ) => self.0.graph.item(drive, item, Priority::Upload).await,
        };
        let found = match found {
            Ok(item) => self.is_ours(node, &send, &item).await.map(|ours| (item, ours)),
            Err(error) => Err(error),
        };
        match found {
            Ok((item, true)) => {
                if let Some(look) = self.last_look(&send)?
                    && let Err(error) = self.keep_what_came_between(node, &send, &look, &item).await
                {
                    return self.failed(node, &send, &error).await;
                }
                tracing::info!(node = %node.id, op = send.label(), "an operation whose answer was lost had happened");
                self.finish(node, send, Ok(Some(item))).await
            }
            Ok((item, false)) => {
                self.take_in(vec![item], Source::Direct, sent_seq).await;
                self.attempt_is_over(node.id).await
            }
            Err(GraphError::NotFound { .. }) if matches!(send, Send::Delete { .. }) => match send.item() {
                Some(item) if self.lives_on(item).await => self.verify_again(node, Duration::ZERO).await,
                _ => self.finish(node, send, Ok(None)).await,
            },
            Err(GraphError::NotFound { .. }) => self.verify_missing(node, &send).await,
            Err(error) => {
                match classify(&error) {
                    Verdict::Offline | Verdict::Unknown => self.0.disconnected(&error.to_string()),
                    Verdict::SignedOut => self.0.signed_out(&error.to_string()),
                    _ => {}
                }
                let tries = node.local.as_ref().map_or(0, |local| local.tries);
                self.verify_again(node, backoff(tries)).await
            }
        }
    }

    /// What an attempt without an answer was for answers 404: it, or the folder it was to be in, may have another
    /// id by now; the attempt then has that too, and is verified again.
    async fn verify_missing(&self, node: &Node, send: &Send) -> Result<(), EngineError> {
        let Some(item) = send.item().or(send.target_folder()) else {
            return self.attempt_is_over(node.id).await;
        };
        let sent_seq = self.0.store.sequence();
        let seen = self.look_at(item).await;
        let (again, wait) = match &seen {
            Some(seen) => (!seen.deleted && seen.id != *item, Duration::ZERO),
            None => (true, backoff(node.local.as_ref().map_or(0, |local| local.tries))),
        };
        self.take_in(seen.into_iter().collect(), Source::Direct, sent_seq).await;
        if !again {
            return self.attempt_is_over(node.id).await;
        }
        self.verify_again(node, wait).await
    }

    /// The outcome of the attempt stays unknown for now.
    async fn verify_again(&self, node: &Node, wait: Duration) -> Result<(), EngineError> {
        let (retry_at, inner, id) = (self.0.after(wait), self.0.clone(), node.id);
        self.0.blocking.start(move || inner.fail(id, true, None, retry_at)).await?;
        Ok(())
    }

    async fn attempt_is_over(&self, id: NodeId) -> Result<(), EngineError> {
        let inner = self.0.clone();
        self.0
            .blocking
            .start(move || inner.store.write(Durability::Process, |tx| tx.remove_attempt(id)))
            .await?;
        Ok(())
    }
}

impl Inner {
    pub(super) async fn local_op(
        self: &std::sync::Arc<Self>,
        node: &Node,
        op: impl FnOnce(&Inner, &Node) -> Result<(), StoreError> + std::marker::Send + 'static,
    ) -> Result<(), EngineError> {
        let (inner, node) = (self.clone(), node.clone());
        self.blocking.start(move || op(&inner, &node)).await?;
        Ok(())
    }

    pub(super) fn naming(&self) -> Naming {
        let now = Timestamp::from(self.clock.wall());
        Naming { host: self.config.host.clone(), now, utc_offset: self.config.utc_offset }
    }

    /// Runs a change of the store if the node is still as it was planned.
    pub(super) fn if_unchanged(
        &self,
        node: &Node,
        change: impl FnOnce(&mut crate::store::Tx<'_>, &mut super::apply::Applier<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut applier = self.applier();
        let committed = self.store.write_changes(Durability::Process, |tx| -> Result<_, StoreError> {
            if tx.find(node.id)?.as_ref() == Some(node) { change(tx, &mut applier) } else { Ok(()) }
        })?;
        self.sink.changed(&committed.changes);
        self.carry_out(applier.effects);
        self.clean_up()
    }

    fn forget(&self, node: &Node) -> Result<(), StoreError> {
        self.if_unchanged(node, |tx, _| settle::forget(tx, node))
    }

    pub(super) fn settle(&self, node: &Node, outcome: &super::conflict::Outcome) -> Result<(), StoreError> {
        tracing::debug!(node = %node.id, ?outcome, "settling");
        let naming = self.naming();
        self.if_unchanged(node, |tx, applier| settle::settle(tx, node, outcome, &naming, applier))
    }

    fn bring_home(&self, node: &Node) -> Result<(), StoreError> {
        tracing::info!(node = %node.id, "the folder of a change is nowhere");
        let naming = self.naming();
        self.if_unchanged(node, |tx, _| settle::bring_home(tx, node, &naming))
    }

    pub(super) fn yield_name(
        &self,
        node: &Node,
        to: NodeId,
        how: super::conflict::NameTaken,
    ) -> Result<(), StoreError> {
        let naming = self.naming();
        self.if_unchanged(node, |tx, _| settle::yield_name(tx, node, to, how, &naming))
    }

    /// Unlinks staged content that the committed store no longer refers to.
    pub(super) fn clean_up(&self) -> Result<(), StoreError> {
        let unlinks = self.store.unlinks()?;
        if unlinks.is_empty() {
            return Ok(());
        }
        // A power cut must not bring a reference back whose file is gone.
        self.store
            .write(Durability::Power, |tx| tx.set_meta("unlinks_synced", Some(&unlinks.len().to_string())))?;
        for content in unlinks {
            match self.staging.unlink(StagingId(content)) {
                Ok(()) => self.store.write(Durability::Process, |tx| tx.unlinked(content))?,
                Err(error) => {
                    tracing::warn!(content, %error, "unneeded staged content could not be removed yet")
                }
            }
        }
        Ok(())
    }

    async fn clean_up_soon(self: &std::sync::Arc<Self>) {
        let inner = self.clone();
        if let Err(error) = self.blocking.start(move || inner.clean_up()).await {
            tracing::warn!(%error, "unneeded staged content is removed later");
        }
    }
}

/// Whether the item has exactly the content that was sent, as far as the service's hash can tell. Where it
/// states none, only nothing equals nothing.
pub(super) fn has_sent_content(send: &Send, item: &RemoteItem) -> bool {
    match send {
        Send::Create { size, quick_xor, .. } | Send::Replace { size, quick_xor, .. } => {
            item.size == Some(*size)
                && item.hashes.quick_xor.map_or(*size == 0, |theirs| theirs == *quick_xor)
        }
        Send::Mkdir { .. } | Send::Move { .. } | Send::SetTime { .. } | Send::Delete { .. } => false,
    }
}

fn is_refused_move(send: &Send, error: &GraphError) -> bool {
    matches!((send, error), (Send::Move { .. }, GraphError::Invalid { .. }))
}

/// 1 s, doubling to a minute.
pub(super) fn backoff(tries: u32) -> Duration {
    Duration::from_secs(1 << tries.min(6)).min(Duration::from_secs(60))
}

/// How long a parked change rests before it is tried again.
pub(super) fn park_wait(kind: ParkKind, tries: u32) -> Duration {
    let (first, most) = match kind {
        ParkKind::Locked => (15, 300),
        ParkKind::Quota => (60, 600),
        // Gone with a rename of it, which tries it at once, or of a folder above.
        ParkKind::Name => (3600, 3600),
        _ => (60, 3600),
    };
    Duration::from_secs((first << tries.min(8)).min(most))
}
