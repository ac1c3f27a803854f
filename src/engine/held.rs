//! Files that a program keeps open for writing: from time to time a copy of what they are at one moment is sent, and
//! they stay what is written (design 6).
//!
//! Invariants:
//! - the copy is a staged content of its own, sealed, and of one moment; what is being written is never sealed for it;
//! - the content it was made from needs no base any more, durably: what it lay over is replaced on the service;
//! - the store lists the copy as to be unlinked before it exists, so that no crash leaves it; until its attempt names
//!   it, the store is told to hold on to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::op::Send;
use super::planner::Held;
use super::{Engine, EngineError, Inner, lock};
use crate::content::{StagingError, StagingFile, StagingId};
use crate::model::{NodeId, RemoteItem, Timestamp};
use crate::store::{Durability, Kept, LocalView, Node, Seal, StoreError};

/// Between two copies of one file, and before the first one of a file that is never synced.
const PAUSE_NANOS: i64 = 300 * 1_000_000_000;
/// A large file rests longer, so that all of its copies together are no more than a mebibyte a second.
const NANOS_PER_MIB: u64 = 1_000_000_000;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Staging(#[from] StagingError),
}

/// When what happened to a file that is open for writing; wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// It was first seen open for writing with unsent content.
    pub since: Timestamp,
    /// A program synced it, for the first time since the last copy.
    pub synced: Option<Timestamp>,
    /// The last copy was sent, or could not be made.
    pub ended: Option<Timestamp>,
}

/// When a copy of a file of `size` bytes is due; `settle` in nanoseconds.
fn due(times: &Times, size: u64, settle: i64, now: Timestamp) -> Timestamp {
    // A clock that was set back holds nothing up for longer.
    let since = |at: Timestamp| at.0.min(now.0);
    let slow = i64::try_from((size >> 20).saturating_mul(NANOS_PER_MIB)).unwrap_or(i64::MAX);
    Timestamp(match (times.ended, times.synced) {
        (Some(ended), _) => since(ended).saturating_add(slow.max(PAUSE_NANOS)),
        (None, synced) => {
            let opened = since(times.since);
            let quiet = synced.map_or(i64::MAX, |at| since(at).saturating_add(settle));
            quiet.min(opened.saturating_add(PAUSE_NANOS)).max(opened.saturating_add(slow))
        }
    })
}

/// What is known of files that are open for writing, and of their copies.
#[derive(Debug, Default)]
pub(super) struct HeldFiles(Mutex<BTreeMap<NodeId, Entry>>);

#[derive(Debug)]
struct Entry {
    /// What is written.
    content: u64,
    times: Times,
    /// What the last copy was made of.
    generation: Option<u64>,
    /// Made, and not sent.
    copy: Option<Copy>,
    /// What the service has of it.
    sent: Option<(Seal, RemoteItem)>,
}

#[derive(Debug)]
struct Copy {
    content: u64,
    seal: Seal,
    _kept: Kept,
}

impl Entry {
    fn new(content: u64, since: Timestamp) -> Self {
        let times = Times { since, ..Times::default() };
        Self { content, times, generation: None, copy: None, sent: None }
    }
}

impl HeldFiles {
    /// Looks at the entry of the node for this content, which is made where there is none.
    fn with<T>(&self, (id, content): (NodeId, u64), now: Timestamp, look: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entries = lock(&self.0);
        let entry = entries.entry(id).or_insert_with(|| Entry::new(content, now));
        if entry.content != content {
            *entry = Entry::new(content, now);
        }
        look(entry)
    }

    /// A program synced the file.
    pub fn synced(&self, id: NodeId, content: u64, now: Timestamp) {
        self.with((id, content), now, |entry| {
            entry.times.synced.get_or_insert(now);
        });
    }

    /// What the planner has to know of a file that is open for writing; `changed`: since when, if that is not known yet.
    pub fn plan(
        &self,
        of: (NodeId, u64),
        changed: Timestamp,
        size: u64,
        (settle, now): (i64, Timestamp),
    ) -> Held {
        self.with(of, changed, |entry| Held {
            due: due(&entry.times, size, settle, now),
            copy: entry.copy.as_ref().map(|copy| (copy.content, copy.seal.clone())),
        })
    }

    /// Forgets files of which `content` says that they have nothing unsent, or another content. `is_written`: a
    /// handle can write, or an operation may still carry the copy.
    pub fn retain(&self, content: impl Fn(NodeId) -> Option<u64>, is_written: impl Fn(NodeId) -> bool) {
        lock(&self.0).retain(|&id, entry| {
            if !is_written(id) {
                // What is opened again counts its changes from the beginning.
                (entry.copy, entry.generation) = (None, None);
            }
            content(id) == Some(entry.content)
        });
    }

    /// The copies that are made and not sent.
    pub fn copies(&self) -> BTreeSet<u64> {
        lock(&self.0).values().filter_map(|entry| Some(entry.copy.as_ref()?.content)).collect()
    }

    fn is_copied(&self, id: NodeId, content: u64, generation: u64) -> bool {
        let entries = lock(&self.0);
        let entry = entries.get(&id).filter(|entry| entry.content == content);
        entry.is_some_and(|entry| entry.generation == Some(generation))
    }

    /// A copy was made of this generation, or none could be made.
    fn made(&self, of: (NodeId, u64), made: Option<(u64, Copy)>, now: Timestamp) {
        self.with(of, now, |entry| match made {
            Some((generation, copy)) => (entry.generation, entry.copy) = (Some(generation), Some(copy)),
            None => (entry.times.ended, entry.times.synced) = (Some(now), None),
        });
    }

    /// The service has the copy that this carried, `as_is` or as it rewrote it; false where it carried none.
    pub fn sent(&self, id: NodeId, send: &Send, (item, as_is): (&RemoteItem, bool), now: Timestamp) -> bool {
        let mut entries = lock(&self.0);
        let Some(entry) = entries.get_mut(&id) else { return false };
        let Some(copy) = entry.copy.take_if(|copy| Some(copy.content) == send.content()) else {
            return false;
        };
        entry.sent = as_is.then(|| (copy.seal, item.clone()));
        (entry.times.ended, entry.times.synced) = (Some(now), None);
        true
    }

    /// What the service said of the copy, where the content has become the same again.
    fn sent_as(&self, id: NodeId, content: u64, seal: &Seal) -> Option<RemoteItem> {
        let entries = lock(&self.0);
        let entry = entries.get(&id).filter(|entry| entry.content == content)?;
        entry.sent.as_ref().filter(|(sent, _)| sent == seal).map(|(_, item)| item.clone())
    }
}

impl Engine {
    /// A program synced a file that it has open; `content`: what is staged of it.
    pub fn synced(&self, node: NodeId, content: u64) {
        self.0.held.synced(node, content, Timestamp::from(self.0.clock.wall()));
        self.0.wake.notify_one();
    }

    /// Copies `content`, which somebody is writing, to be sent.
    pub(super) async fn copy_held(&self, node: &Node, content: u64) -> Result<(), EngineError> {
        let made = match self.make_copy(node, content).await {
            Ok(made) => made,
            Err(error) => {
                tracing::info!(node = %node.id, %error, "a file that is open for writing is not copied to be sent yet");
                None
            }
        };
        self.0.held.made((node.id, content), made, Timestamp::from(self.0.clock.wall()));
        Ok(())
    }

    /// The copy, and the generation it was made of; none where nothing was written since the last one.
    async fn make_copy(&self, node: &Node, content: u64) -> Result<Option<(u64, Copy)>, CopyError> {
        let file = self.staged_file(node, StagingId(content)).await?;
        if self.0.held.is_copied(node.id, content, file.generation()) {
            return Ok(None);
        }
        file.fill_from_base().await?;
        let inner = self.0.clone();
        let copy = move || inner.copy_of(&file);
        Ok(Some(self.0.blocking.start(copy).await?))
    }

    /// Content that was sealed after its last close, and of which the service has a copy, is not sent again.
    pub(super) async fn settle_as_sent(
        &self,
        id: NodeId,
        content: u64,
        seal: &Seal,
    ) -> Result<(), EngineError> {
        let Some(item) = self.0.held.sent_as(id, content, seal) else { return Ok(()) };
        let Some(node) = self.0.store.node(id)? else { return Ok(()) };
        let view = node.remote.clone().filter(|view| {
            let is_it = view.item == item.id && view.version == item.version();
            is_it && node.base.as_ref().is_some_and(|base| base.version == view.version)
        });
        let is_sealed =
            |local: &LocalView| local.content == Some(content) && local.seal.as_ref() == Some(seal);
        let (Some(view), Some(local)) = (view, node.local.clone().filter(is_sealed)) else { return Ok(()) };
        self.note_sent(id, content, &item);
        self.keep_content(&item, content).await;
        let send = Send::Replace {
            item: item.id.clone(),
            content,
            size: seal.size,
            quick_xor: seal.quick_xor,
            mtime: None,
            if_match: None,
        };
        let inner = self.0.clone();
        let settle = move || {
            inner.if_unchanged(&node, |tx, _| super::record::finish_local(tx, &node, &local, &view, &send))
        };
        Ok(self.0.blocking.start(settle).await?)
    }
}

impl Inner {
    fn copy_of(&self, file: &Arc<StagingFile>) -> Result<(u64, Copy), CopyError> {
        // From here on it needs no base: the copy is going to replace that.
        file.sync()?;
        if file.is_lost() {
            return Err(StagingError::Broken.into());
        }
        // A power cut must not take the number back and leave the file.
        let (content, kept) = self.store.write(Durability::Power, |tx| {
            let content = tx.next_passing_content()?;
            Ok((content, self.store.keep(content)))
        })?;
        let generation = file.generation();
        let copy = self.staging.snapshot(file, StagingId(content)).and_then(|copy| copy.seal());
        match copy {
            Ok(sealed) => {
                let seal = Seal { size: sealed.size, blake3: sealed.blake3, quick_xor: sealed.quick_xor };
                Ok((generation, Copy { content, seal, _kept: kept }))
            }
            Err(error) => {
                drop(kept);
                self.clean_up()?;
                Err(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const SETTLE: i64 = 2 * SECOND;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * SECOND)
    }

    fn due_at(since: i64, synced: Option<i64>, ended: Option<i64>, mib: u64) -> i64 {
        let times = Times { since: at(since), synced: synced.map(at), ended: ended.map(at) };
        due(&times, mib << 20, SETTLE, at(1_000_000)).0 / SECOND
    }

    #[test]
    fn a_copy_is_due_after_the_first_sync_then_every_five_minutes_and_less_often_of_large_files() {
        assert_eq!(due_at(100, None, None, 1), 400, "never synced");
        assert_eq!(due_at(100, Some(110), None, 1), 112);
        assert_eq!(due_at(100, Some(5000), None, 1), 400, "synced late");
        assert_eq!(due_at(100, Some(110), Some(200), 1), 500);
        assert_eq!(due_at(100, None, Some(200), 1), 500);
        assert_eq!(due_at(100, Some(110), None, 1000), 1100);
        assert_eq!(due_at(100, None, None, 1000), 1100);
        assert_eq!(due_at(100, Some(300), Some(200), 1000), 1200);
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nothing_up() {
        let times = Times { since: at(9000), synced: None, ended: Some(at(9500)) };
        assert_eq!(due(&times, 1, SETTLE, at(100)), at(400));
        let times = Times { since: at(9000), synced: Some(at(9001)), ended: None };
        assert_eq!(due(&times, 1, SETTLE, at(100)), at(102));
    }

    #[test]
    fn any_size_and_time_is_taken() {
        let times = Times { since: Timestamp(i64::MAX), synced: Some(Timestamp(i64::MAX)), ended: None };
        assert_eq!(due(&times, u64::MAX, i64::MAX, Timestamp(i64::MAX)), Timestamp(i64::MAX));
    }
}
