//! What content is on this machine, and giving it up.

use std::collections::HashSet;
use std::time::Duration;

use super::keep::{self, Refusal, TOLD};
use super::{Engine, EngineError, Inner};
use crate::model::{ItemId, NodeId};
use crate::store::{Change, NodeKind, StoreError};

/// How often it is looked whether a file was closed, and the time between.
const CLOSE_PATIENCE: u32 = 10;
const CLOSE_PAUSE: Duration = Duration::from_millis(100);

/// What is here of a file that the service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldFile {
    /// The file.
    pub id: NodeId,
    /// Its bytes.
    pub size: u64,
    /// Bytes of the disk that its content takes, with what is noted of it.
    pub held: u64,
    /// It is pinned, itself or with a folder.
    pub pinned: bool,
}

/// What is here of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Files below it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of which something is here, the largest first.
    pub here: Vec<HeldFile>,
}

/// What was given up, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Files whose content went.
    pub files: u64,
    /// Bytes that came free.
    pub bytes: u64,
    /// Files whose content stayed, and why; the first of these.
    pub refused: Vec<(NodeId, Refusal)>,
    /// Such files in all.
    pub refused_files: u64,
}

impl Engine {
    /// What content is here at or below `top`.
    pub async fn held_below(&self, top: NodeId) -> Result<Held, EngineError> {
        let inner = self.0.clone();
        Ok(self.0.blocking.start(move || inner.held_below(top)).await?)
    }

    /// Gives up the local content of what is at or below `top`, where that may be. What was closed only just, the kernel
    /// may say a moment later: what is open is waited for that long.
    pub async fn free(&self, top: NodeId) -> Result<Freed, EngineError> {
        let free = async |node| {
            let inner = self.0.clone();
            self.0.blocking.start(move || inner.free(node)).await
        };
        let mut freed = free(top).await?;
        for _ in 0..CLOSE_PATIENCE {
            if !freed.refused.iter().any(|(_, why)| *why == Refusal::Open) {
                break;
            }
            self.0.pause(CLOSE_PAUSE).await;
            let is_closed =
                |(id, why): &mut (NodeId, Refusal)| *why == Refusal::Open && !self.0.open.is_open(*id);
            for (id, _) in freed.refused.extract_if(.., is_closed).collect::<Vec<_>>() {
                let more = free(id).await?;
                freed.files += more.files;
                freed.bytes += more.bytes;
                freed.refused_files = freed.refused_files + more.refused_files - 1;
                freed.refused.extend(more.refused);
            }
        }
        Ok(freed)
    }
}

impl Inner {
    fn scan_cache(&self) {
        if let Err(error) = self.cache.scan() {
            tracing::warn!(%error, "the cache cannot be looked through");
        }
    }

    fn pinned_nodes(&self) -> Result<HashSet<NodeId>, StoreError> {
        let mut pinned = HashSet::new();
        if self.store.has_pins() {
            self.store.inspect(|tx| {
                let tops = tx.pins()?;
                tx.each_below(&tops, |node| {
                    pinned.insert(node.id);
                })
            })?;
        }
        Ok(pinned)
    }

    fn held_below(&self, top: NodeId) -> Result<Held, StoreError> {
        self.scan_cache();
        let pinned = self.pinned_nodes()?;
        let mut held = Held::default();
        self.store.inspect(|tx| {
            tx.each_below(&[top], |node| {
                let Some(key) = self.kept_key(&node) else { return };
                held.files += 1;
                held.bytes += key.size;
                let bytes = self.cache.held(&key);
                if bytes > 0 {
                    let pinned = pinned.contains(&node.id);
                    held.here.push(HeldFile { id: node.id, size: key.size, held: bytes, pinned });
                }
            })
        })?;
        held.here.sort_by_key(|file| (std::cmp::Reverse(file.held), file.id));
        Ok(held)
    }

    fn free(&self, top: NodeId) -> Result<Freed, StoreError> {
        self.scan_cache();
        let pinned = self.pinned_nodes()?;
        let mut freed = Freed::default();
        let mut go: Vec<(NodeId, ItemId, u64)> = Vec::new();
        self.store.inspect(|tx| {
            tx.each_below(&[top], |node| {
                let unsent = node.local.as_ref().is_some_and(|local| local.content.is_some());
                let key = self.kept_key(&node);
                let held = key.as_ref().map_or(0, |key| self.cache.held(key));
                if node.kind != NodeKind::File || (!unsent && held == 0) {
                    return;
                }
                match (keep::may_free(unsent, self.open.is_open(node.id), pinned.contains(&node.id)), key) {
                    (Ok(()), Some(key)) => go.push((node.id, key.item, held)),
                    (Ok(()), None) => {}
                    (Err(refusal), _) => {
                        freed.refused_files += 1;
                        if freed.refused.len() < TOLD {
                            freed.refused.push((node.id, refusal));
                        }
                    }
                }
            })
        })?;
        let mut changes = Vec::new();
        for (id, item, held) in go {
            self.cache.forget(&item);
            freed.files += 1;
            freed.bytes += held;
            // The kernel's pages go too.
            changes.push(Change::Node { id, content: true });
        }
        self.sink.changed(&changes);
        Ok(freed)
    }
}
