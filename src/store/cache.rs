//! A bounded memory of nodes and names above the database.
//!
//! A value read from the database before a commit must not be remembered after it: each fill says which
//! generation it read in, and a commit starts a new one.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::types::{Change, Node};
use crate::model::NodeId;

/// Remembered nodes; a node with its names is below 1 KiB, so this bounds the memory at about 40 MiB.
const NODES: NonZeroUsize = NonZeroUsize::new(40_000).expect("not zero");
/// Remembered names, present and absent.
const NAMES: NonZeroUsize = NonZeroUsize::new(80_000).expect("not zero");

struct Inner {
    generation: u64,
    nodes: LruCache<NodeId, Arc<Node>>,
    names: LruCache<(NodeId, String), Option<NodeId>>,
}

pub(super) struct Cache(Mutex<Inner>);

impl Cache {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Inner { generation: 0, nodes: LruCache::new(NODES), names: LruCache::new(NAMES) }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node if remembered; else the generation to fill with.
    pub(super) fn node(&self, id: NodeId) -> Result<Arc<Node>, u64> {
        let mut inner = self.lock();
        inner.nodes.get(&id).cloned().ok_or(inner.generation)
    }

    pub(super) fn fill_node(&self, generation: u64, node: &Arc<Node>) {
        let mut inner = self.lock();
        if inner.generation == generation {
            inner.nodes.put(node.id, node.clone());
        }
    }

    /// What the name means if remembered; else the generation to fill with.
    pub(super) fn name(&self, parent: NodeId, name: &str) -> Result<Option<NodeId>, u64> {
        let mut inner = self.lock();
        inner.names.get(&(parent, name.to_owned())).copied().ok_or(inner.generation)
    }

    pub(super) fn fill_name(&self, generation: u64, parent: NodeId, name: &str, id: Option<NodeId>) {
        let mut inner = self.lock();
        if inner.generation == generation {
            inner.names.put((parent, name.to_owned()), id);
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Forgets what a commit touched. `coarse`: too much to name one by one.
    pub(super) fn committed<'a>(
        &self,
        coarse: bool,
        touched: impl IntoIterator<Item = &'a NodeId>,
        changes: &[Change],
    ) {
        let mut inner = self.lock();
        inner.generation += 1;
        if coarse {
            inner.nodes.clear();
            inner.names.clear();
            return;
        }
        for id in touched {
            inner.nodes.pop(id);
        }
        for change in changes {
            if let Change::Entry { parent, name } = change {
                inner.names.pop(&(*parent, name.clone()));
            }
        }
    }
}
