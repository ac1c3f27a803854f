//! A bounded memory of nodes and names above the database.
//!
//! A value read from the database before a commit must not be remembered after it: each fill says which
//! generation it read in, and a commit starts a new one.

use std::hash::Hash;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::types::{Change, LocalView, Node, RemoteView};
use crate::model::NodeId;

/// Bytes in all where nobody says otherwise.
pub(super) const DEFAULT_BYTES: u64 = 64 << 20;

/// What an entry of a list needs besides what it holds: its links, its key and value, its place in the table.
const NODE_ENTRY: usize = 96;
const NAME_ENTRY: usize = 120;

/// The least recently used go first.
struct Bounded<K: Hash + Eq, V> {
    entries: LruCache<K, (V, usize)>,
    bytes: usize,
    max: usize,
}

impl<K: Hash + Eq, V> Bounded<K, V> {
    fn new(max: usize) -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, max }
    }

    fn get(&mut self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    fn put(&mut self, key: K, value: V, bytes: usize) {
        let former = self.entries.put(key, (value, bytes));
        self.bytes = self.bytes + bytes - former.map_or(0, |(_, bytes)| bytes);
        self.shrink();
    }

    fn pop(&mut self, key: &K) {
        if let Some((_, bytes)) = self.entries.pop(key) {
            self.bytes -= bytes;
        }
    }

    fn clear(&mut self) {
        // A new one: a table keeps its size.
        *self = Self::new(self.max);
    }

    fn limit(&mut self, max: usize) {
        self.max = max;
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.bytes > self.max
            && let Some((_, (_, bytes))) = self.entries.pop_lru()
        {
            self.bytes -= bytes;
        }
    }
}

struct Inner {
    generation: u64,
    nodes: Bounded<NodeId, Arc<Node>>,
    names: Bounded<(NodeId, String), Option<NodeId>>,
}

pub(super) struct Cache(Mutex<Inner>);

impl Cache {
    pub(super) fn new(bytes: u64) -> Self {
        let (nodes, names) = shares(bytes);
        Self(Mutex::new(Inner { generation: 0, nodes: Bounded::new(nodes), names: Bounded::new(names) }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bounds the memory from here on.
    pub(super) fn limit(&self, bytes: u64) {
        let (nodes, names) = shares(bytes);
        let mut inner = self.lock();
        inner.nodes.limit(nodes);
        inner.names.limit(names);
    }

    /// The node if remembered; else the generation to fill with.
    pub(super) fn node(&self, id: NodeId) -> Result<Arc<Node>, u64> {
        let mut inner = self.lock();
        let generation = inner.generation;
        inner.nodes.get(&id).cloned().ok_or(generation)
    }

    pub(super) fn fill_node(&self, generation: u64, node: &Arc<Node>) {
        let bytes = node_bytes(node);
        let mut inner = self.lock();
        if inner.generation == generation {
            inner.nodes.put(node.id, node.clone(), bytes);
        }
    }

    /// What the name means if remembered; else the generation to fill with.
    pub(super) fn name(&self, parent: NodeId, name: &str) -> Result<Option<NodeId>, u64> {
        let key = (parent, name.to_owned());
        let mut inner = self.lock();
        let generation = inner.generation;
        inner.names.get(&key).copied().ok_or(generation)
    }

    pub(super) fn fill_name(&self, generation: u64, parent: NodeId, name: &str, id: Option<NodeId>) {
        let bytes = NAME_ENTRY + allocation(name.len());
        let mut inner = self.lock();
        if inner.generation == generation {
            inner.names.put((parent, name.to_owned()), id, bytes);
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

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let inner = self.lock();
        inner.nodes.bytes + inner.names.bytes
    }
}

/// Names are small and asked for less often: a quarter.
fn shares(bytes: u64) -> (usize, usize) {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    (bytes - bytes / 4, bytes / 4)
}

/// What `bytes` on the heap take there, as the C library of Linux deals it out.
fn allocation(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}

/// Bytes that remembering the node takes.
fn node_bytes(node: &Node) -> usize {
    let text = |text: &str| allocation(text.len());
    let view = |view: &RemoteView| {
        let tags = [
            view.version.etag.as_ref().map(|tag| tag.as_str()),
            view.version.ctag.as_ref().map(|tag| tag.as_str()),
        ];
        text(view.item.as_str()) + text(&view.name) + tags.into_iter().flatten().map(text).sum::<usize>()
    };
    let local = |local: &LocalView| {
        text(&local.name) + local.parked.as_ref().map_or(0, |parked| text(&parked.detail))
    };
    let target =
        node.attrs.target.as_ref().map_or(0, |target| allocation(target.as_os_str().as_bytes().len()));
    NODE_ENTRY
        + allocation(2 * size_of::<usize>() + size_of::<Node>())
        + node.place.as_ref().map_or(0, |place| text(&place.name))
        + [&node.remote, &node.base].into_iter().flatten().map(view).sum::<usize>()
        + node.local.as_ref().map_or(0, local)
        + node.web_url.as_deref().map_or(0, text)
        + target
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::store::{Attrs, NodeKind, Place};

    fn node(id: i64, name: &str) -> Arc<Node> {
        Arc::new(Node {
            id: NodeId(id),
            kind: NodeKind::File,
            place: Some(Place { parent: NodeId::ROOT, name: name.into() }),
            remote: None,
            base: None,
            local: None,
            attrs: Attrs::default(),
            web_url: Some(name.into()),
            own_seq: 0,
            own_time: Timestamp(0),
            shown_mtime: None,
            ctime: Timestamp(0),
            listed: false,
        })
    }

    #[test]
    fn a_node_counts_with_all_that_it_holds() {
        let small = node_bytes(&node(1, ""));
        assert!(small > size_of::<Node>() + NODE_ENTRY);
        assert_eq!(node_bytes(&node(1, &"x".repeat(1000))), small + 2 * 1008);
        assert_eq!([0, 1, 24, 25, 40].map(allocation), [0, 32, 32, 48, 48]);
    }

    // S179.
    #[test]
    fn whatever_is_remembered_replaced_and_forgotten_the_bound_holds() {
        for max in [0, 1000, 20_000, 1 << 20] {
            let cache = Cache::new(max);
            for step in 0..5000i64 {
                let id = step * 7919 % 400;
                let name = "n".repeat((step * 31 % 900) as usize);
                cache.fill_node(cache.generation(), &node(id, &name));
                cache.fill_name(cache.generation(), NodeId(id), &name, (step % 2 == 0).then_some(NodeId(id)));
                if step % 5 == 0 {
                    let change = Change::Entry { parent: NodeId(id), name: name.clone() };
                    cache.committed(step % 1000 == 0, &[NodeId(id)], &[change]);
                }
                assert!(cache.bytes() as u64 <= max, "{} of {max}", cache.bytes());
            }
            let inner = cache.lock();
            let nodes: usize = inner.nodes.entries.iter().map(|(_, (node, _))| node_bytes(node)).sum();
            let names: usize =
                inner.names.entries.iter().map(|((_, name), _)| NAME_ENTRY + allocation(name.len())).sum();
            assert_eq!((inner.nodes.bytes, inner.names.bytes), (nodes, names), "nothing is miscounted");
            assert_eq!(max >= 20_000, nodes > 0 && names > 0);
        }
    }

    #[test]
    fn a_smaller_bound_holds_at_once_and_keeps_what_was_used_last() {
        let cache = Cache::new(DEFAULT_BYTES);
        (1..=100).for_each(|id| cache.fill_node(cache.generation(), &node(id, "name")));
        assert!(cache.node(NodeId(1)).is_ok());
        cache.limit(10_000);
        assert!(cache.bytes() <= 10_000 && cache.bytes() > 5000);
        assert!(
            cache.node(NodeId(1)).is_ok()
                && cache.node(NodeId(2)).is_err()
                && cache.node(NodeId(100)).is_ok()
        );
    }
}
