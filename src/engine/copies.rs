//! Conflict copies: which there are, and how a person settles them.
//!
//! Invariants:
//! - The local version replaces the other one as an edit of its item does: on the version that was shown, and in
//!   one transaction with the removal of the copy, after its bytes are durable under a number of their own.
//! - A copy whose content is nowhere but here is never removed.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::apply::fresh_local;
use super::{Engine, EngineError, Inner};
use crate::content::{CachedFile, Sealed, StagingFile, StagingId};
use crate::model::{ByteRange, NodeId, Timestamp};
use crate::store::{
    Conflict, ConflictCause, Durability, LocalView, Node, NodeKind, Parked, RemoteView, Seal, StoreError, Tx,
    canonical,
};

/// Bytes copied at once.
const CHUNK: u64 = 1 << 20;

/// How a conflict is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The copy's content becomes the file's.
    Local,
    /// The file stays as it is, the copy goes.
    Remote,
    /// Both stay, as two files.
    Both,
}

/// A conflict copy that nobody settled yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictCopy {
    /// Its path below the mount, as programs see it.
    pub path: PathBuf,
    /// The path of the file that kept the name.
    pub beside: PathBuf,
    /// The machine that made it.
    pub host: String,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub cause: ConflictCause,
    /// Its bytes.
    pub size: u64,
    /// The bytes of the file that kept the name.
    pub beside_size: u64,
    /// Where its content is.
    pub state: CopyState,
}

/// Where the content of a conflict copy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// On the service.
    Sent,
    /// Here, and waiting its turn.
    Unsent,
    /// Here, and not sent for a reason.
    Parked(Parked),
}

/// Why a conflict could not be settled; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// Neither a conflict copy nor the file beside one.
    #[error("it is no conflict copy")]
    NoConflict,
    /// Several copies stand beside the file.
    #[error("there are {} conflict copies of it", .0.len())]
    Several(Vec<PathBuf>),
    /// A program has one of the two open.
    #[error("'{}' is open in a program", .0.display())]
    Open(PathBuf),
    /// The copy's content is nowhere but here.
    #[error("its content is not on the service yet")]
    OnlyHere,
    /// The file beside it was changed here too.
    #[error("'{}' has unsent changes of its own", .0.display())]
    BesideUnsent(PathBuf),
    /// One of the two is a folder.
    #[error("one of the two is a folder")]
    Folder,
    /// One of the two changed while the bytes were copied.
    #[error("one of the two changed meanwhile")]
    Changed,
    /// The copy's bytes cannot be had.
    #[error("its content cannot be read: {0}")]
    Content(String),
    /// The store failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<StoreError> for SettleError {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}

/// A conflict with both its sides as they are now.
struct Pair {
    mark: Conflict,
    copy: Node,
    beside: Node,
}

/// Where the bytes of a copy come from.
enum Bytes {
    Staged(Arc<StagingFile>),
    Cached(Arc<CachedFile>),
    None,
}

impl Engine {
    /// The conflict copies at or below `top`, or beside a file that is, in the order they were made in.
    pub async fn conflicts(&self, top: NodeId) -> Result<Vec<ConflictCopy>, EngineError> {
        let inner = self.0.clone();
        let list = move || -> Result<Vec<ConflictCopy>, StoreError> {
            let mut found = Vec::new();
            for pair in inner.pairs()? {
                if inner.lies_below(&pair.copy, top)? || inner.lies_below(&pair.beside, top)? {
                    found.push(inner.describe(&pair)?);
                }
            }
            found.sort_by(|one, other| (one.at, &one.path).cmp(&(other.at, &other.path)));
            Ok(found)
        };
        Ok(self.0.blocking.start(list).await?)
    }

    /// Settles the conflict of a copy, or of the file beside the only copy.
    ///
    /// The result is durable here when this returns, and is sent like any other change.
    pub async fn settle_copy(&self, node: NodeId, keep: Keep) -> Result<(), SettleError> {
        let inner = self.0.clone();
        let pair = self.0.blocking.start(move || inner.pair_at(node)).await?;
        match keep {
            Keep::Local => self.keep_local(pair).await?,
            Keep::Remote | Keep::Both => {
                let inner = self.0.clone();
                self.0.blocking.start(move || inner.keep_remote_or_both(&pair, keep)).await?;
            }
        }
        self.nudge();
        Ok(())
    }

    async fn keep_local(&self, pair: Pair) -> Result<(), SettleError> {
        let inner = self.0.clone();
        let pair = self.0.blocking.start(move || inner.check_keep_local(&pair).map(|()| pair)).await?;
        let inner = self.0.clone();
        let file = self.0.blocking.start(move || inner.new_content()).await?;
        let content = file.id();
        let result = async {
            let sealed = self.copy_bytes(&pair.copy, &file).await?;
            let inner = self.0.clone();
            self.0.blocking.start(move || inner.replace_with_copy(&pair, content, sealed)).await
        };
        let result = result.await;
        if result.is_err()
            && let Err(error) = self.0.staging.unlink(content)
        {
            tracing::warn!(content = content.0, %error, "a copy that came to nothing could not be removed");
        }
        result
    }

    /// All bytes of the node's content into `file`, which is sealed then.
    async fn copy_bytes(&self, node: &Node, file: &Arc<StagingFile>) -> Result<Sealed, SettleError> {
        let unreadable = |error: &dyn std::fmt::Display| SettleError::Content(error.to_string());
        let from = match (node.local.as_ref().and_then(|local| local.content), self.content_key(node)) {
            (Some(content), _) => Bytes::Staged(
                self.staged_file(node, StagingId(content)).await.map_err(|error| unreadable(&error))?,
            ),
            (None, Some(key)) => Bytes::Cached(self.0.cache.file(&key)),
            (None, None) => Bytes::None,
        };
        let (size, reader) = match &from {
            Bytes::Staged(staged) => (staged.len(), None),
            Bytes::Cached(cached) => (cached.size(), Some(cached.reader())),
            Bytes::None => (0, None),
        };
        let mut at = 0;
        while at < size {
            let range = ByteRange::new(at, size.min(at + CHUNK));
            let bytes = match (&from, &reader) {
                (Bytes::Staged(staged), _) => {
                    staged.read(range, None).await.map_err(|error| unreadable(&error))?
                }
                (Bytes::Cached(cached), Some(reader)) => {
                    cached.read(range, reader).await.map_err(|error| unreadable(&error))?
                }
                (Bytes::Cached(_) | Bytes::None, _) => break,
            };
            if bytes.is_empty() {
                return Err(SettleError::Changed);
            }
            let (next, to) = (at + bytes.len() as u64, file.clone());
            let written = self.0.blocking.start(move || to.write(at, &bytes)).await;
            written.map_err(|error| unreadable(&error))?;
            at = next;
        }
        let sealing = file.clone();
        self.0.blocking.start(move || sealing.seal()).await.map_err(|error| unreadable(&error))
    }
}

impl Inner {
    /// Conflicts of which both sides are visible.
    fn pairs(&self) -> Result<Vec<Pair>, StoreError> {
        let mut pairs = Vec::new();
        for mark in self.store.conflicts()? {
            let (Some(copy), Some(beside)) = (self.store.node(mark.copy)?, self.store.by_item(&mark.beside)?)
            else {
                continue;
            };
            if copy.place.is_some() && beside.place.is_some() && copy.id != beside.id {
                let (copy, beside) = (Node::clone(&copy), Node::clone(&beside));
                pairs.push(Pair { mark, copy, beside });
            }
        }
        Ok(pairs)
    }

    fn pair_at(&self, node: NodeId) -> Result<Pair, SettleError> {
        let (mut copies, mut originals): (Vec<Pair>, Vec<Pair>) = self
            .pairs()?
            .into_iter()
            .filter(|pair| pair.copy.id == node || pair.beside.id == node)
            .partition(|pair| pair.copy.id == node);
        if let Some(pair) = copies.pop() {
            return Ok(pair);
        }
        match (originals.pop(), originals.is_empty()) {
            (Some(pair), true) => Ok(pair),
            (Some(last), false) => {
                originals.push(last);
                let paths = originals.iter().map(|pair| self.shown_path(pair.copy.id));
                Err(SettleError::Several(paths.collect::<Result<_, _>>()?))
            }
            (None, _) => Err(SettleError::NoConflict),
        }
    }

    fn describe(&self, pair: &Pair) -> Result<ConflictCopy, StoreError> {
        let state = match &pair.copy.local {
            None => CopyState::Sent,
            Some(local) => match &local.parked {
                Some(parked) => CopyState::Parked(parked.clone()),
                None if local.content.is_none() && pair.copy.remote.is_some() => CopyState::Sent,
                None => CopyState::Unsent,
            },
        };
        Ok(ConflictCopy {
            path: self.shown_path(pair.copy.id)?,
            beside: self.shown_path(pair.beside.id)?,
            host: pair.mark.host.clone(),
            at: pair.mark.at,
            cause: pair.mark.cause,
            size: pair.copy.size(),
            beside_size: pair.beside.size(),
            state,
        })
    }

    fn nobody_has_it_open(&self, node: &Node) -> Result<(), SettleError> {
        if self.open.is_open(node.id) { Err(SettleError::Open(self.shown_path(node.id)?)) } else { Ok(()) }
    }

    fn check_keep_local(&self, pair: &Pair) -> Result<(), SettleError> {
        if pair.copy.kind != NodeKind::File || pair.beside.kind != NodeKind::File {
            return Err(SettleError::Folder);
        }
        self.nobody_has_it_open(&pair.copy)?;
        self.nobody_has_it_open(&pair.beside)?;
        if pair.beside.local.as_ref().is_some_and(|local| local.content.is_some()) {
            return Err(SettleError::BesideUnsent(self.shown_path(pair.beside.id)?));
        }
        Ok(())
    }

    fn new_content(&self) -> Result<Arc<StagingFile>, SettleError> {
        let id = self.store.write(Durability::Process, |tx| tx.next_content())?;
        self.staging.create(StagingId(id)).map_err(|error| SettleError::Content(error.to_string()))
    }

    /// The bytes of the copy are staged as `content`: they become those of the file, and the copy goes.
    fn replace_with_copy(
        &self,
        pair: &Pair,
        StagingId(content): StagingId,
        sealed: Sealed,
    ) -> Result<(), SettleError> {
        let now = Timestamp::from(self.clock.wall());
        let Sealed { size, blake3, quick_xor } = sealed;
        let committed = self.store.write_changes(Durability::Power, |tx| {
            self.must_be_as_shown(tx, pair)?;
            let Pair { copy, beside, .. } = pair;
            let Some(shown) = &beside.remote else { return Err(SettleError::Changed) };
            let seq = tx.next_sequence();
            let place = fresh_local(shown.parent.unwrap_or(NodeId::ROOT), canonical(&shown.name), now, seq);
            let start = match &beside.base {
                Some(base) => RemoteView { parent: base.parent, name: base.name.clone(), ..shown.clone() },
                None => shown.clone(),
            };
            tx.set_base(beside.id, Some(&start))?;
            let local = LocalView {
                content: Some(content),
                size,
                seal: Some(Seal { size, blake3, quick_xor }),
                mtime: copy.mtime(),
                mtime_set: copy.local.as_ref().is_some_and(|local| local.mtime_set),
                changed_at: now,
                changed_seq: seq,
                parked: None,
                tries: 0,
                retry_at: Timestamp(0),
                ..beside.local.clone().unwrap_or(place)
            };
            tx.set_local(beside.id, Some(&local))?;
            tx.set_ctime(beside.id, now)?;
            tx.content_changed(beside.id);
            tx.remove_conflict(copy.id)?;
            Ok(retire(tx, copy, now)?)
        })?;
        self.sink.changed(&committed.changes);
        Ok(self.clean_up()?)
    }

    fn keep_remote_or_both(&self, pair: &Pair, keep: Keep) -> Result<(), SettleError> {
        let now = Timestamp::from(self.clock.wall());
        if keep == Keep::Remote {
            if pair.copy.kind != NodeKind::File {
                return Err(SettleError::Folder);
            }
            let unsent = pair.copy.local.as_ref().is_some_and(|local| local.content.is_some());
            if pair.copy.remote.is_none() || unsent {
                return Err(SettleError::OnlyHere);
            }
            self.nobody_has_it_open(&pair.copy)?;
        }
        let committed = self.store.write_changes(Durability::Power, |tx| {
            tx.remove_conflict(pair.copy.id)?;
            if keep == Keep::Remote {
                self.must_be_as_shown(tx, pair)?;
                retire(tx, &pair.copy, now)?;
            }
            Ok::<(), SettleError>(())
        })?;
        self.sink.changed(&committed.changes);
        Ok(())
    }

    /// What the decision was made on is still what there is, and no program has it open.
    fn must_be_as_shown(&self, tx: &Tx<'_>, pair: &Pair) -> Result<(), SettleError> {
        let same = |node: &Node| -> Result<bool, StoreError> {
            let now = tx.find(node.id)?;
            Ok(now.is_some_and(|now| {
                (&now.remote, &now.base, &now.local) == (&node.remote, &node.base, &node.local)
            }))
        };
        if !same(&pair.copy)? || !same(&pair.beside)? {
            return Err(SettleError::Changed);
        }
        self.nobody_has_it_open(&pair.copy)?;
        self.nobody_has_it_open(&pair.beside)
    }

    /// The path below the mount as programs see it.
    pub(super) fn shown_path(&self, id: NodeId) -> Result<PathBuf, StoreError> {
        self.store.shown_path(id)
    }
}

/// Takes a file out of the tree: as unlinking it does.
fn retire(tx: &mut Tx<'_>, node: &Node, now: Timestamp) -> Result<(), StoreError> {
    let busy = tx.attempt(node.id)?.is_some();
    // The row of a session whose answer was lost tells that it may have made the file.
    if let Some(content) = node.local.as_ref().and_then(|local| local.content).filter(|_| !busy) {
        tx.remove_session(content)?;
    }
    if node.remote.is_none() && node.base.is_none() && !busy {
        return tx.remove(node.id);
    }
    let seq = tx.next_sequence();
    let Some((parent, name)) = node.known_place() else { return Ok(()) };
    let local = node.local.clone().unwrap_or_else(|| fresh_local(parent, name, now, seq));
    let (content, seal) = if busy { (local.content, local.seal.clone()) } else { (None, None) };
    if node.base.is_none() {
        tx.set_base(node.id, node.remote.as_ref())?;
    }
    let gone = LocalView {
        deleted: true,
        content,
        seal,
        changed_at: now,
        changed_seq: seq,
        parked: None,
        tries: 0,
        retry_at: Timestamp(0),
        ..local
    };
    tx.set_local(node.id, Some(&gone))
}
