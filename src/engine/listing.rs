//! Listings on demand: a folder that somebody looks into before the drive was read as a whole (design 4).

use std::collections::BTreeMap;

use super::apply::{Effects, Seen, Source};
use super::doubts::add_doubts;
use super::fetch::OFFLINE_PATIENCE;
use super::{Engine, EngineError};
use crate::graph::{GraphError, Priority};
use crate::model::{ItemId, NodeId, RemoteItem, Timestamp};
use crate::store::{Durability, Node, NodeKind, StoreError};

impl Engine {
    /// Makes sure that the folder's children are known; ready at once where they are.
    ///
    /// A listing that was begun goes on when nobody waits for it any more: that of a large folder takes longer than a
    /// program waits, and the next one who asks shall find it done.
    pub async fn ensure_listed(&self, folder: NodeId) -> Result<(), EngineError> {
        let Some(node) = self.0.store.node(folder)? else { return Err(EngineError::NotFound) };
        if node.listed || node.kind != NodeKind::Folder || (node.remote.is_none() && folder != NodeId::ROOT) {
            return Ok(());
        }
        let gate = self.0.listing_gate(folder);
        let turn = gate.lock_owned().await;
        let Some(node) = self.0.store.node(folder)? else { return Err(EngineError::NotFound) };
        if node.listed {
            return Ok(());
        }
        let engine = self.clone();
        let listing = tokio::spawn(async move {
            let result = tokio::select! {
                result = engine.list_with_patience(&node) => result,
                () = engine.0.stop.cancelled() => Err(EngineError::Deadline),
            };
            engine.0.drop_listing_gate(folder);
            drop(turn);
            result
        });
        // It ends without a result only with the runtime.
        listing.await.unwrap_or(Err(EngineError::Deadline))
    }

    async fn list_with_patience(&self, folder: &Node) -> Result<(), EngineError> {
        if !self.is_offline() {
            return self.list(folder).await;
        }
        let begun = tokio::time::timeout(OFFLINE_PATIENCE, self.list(folder)).await;
        begun.unwrap_or(Err(EngineError::Offline))
    }

    pub(super) async fn list(&self, node: &Node) -> Result<(), EngineError> {
        self.ensure_root().await?;
        let Some(view) = self.0.store.node(node.id)?.and_then(|node| node.remote.clone()) else {
            return Ok(());
        };
        let sent_seq = self.0.store.sequence();
        let mut items: BTreeMap<ItemId, RemoteItem> = BTreeMap::new();
        let mut next = None;
        loop {
            let page = self
                .0
                .graph
                .children(&self.0.drive.id, &view.item, next.as_ref(), Priority::Interactive)
                .await?;
            page.items.into_iter().for_each(|item| {
                items.insert(item.id.clone(), item);
            });
            match page.next {
                Some(link) => next = Some(link),
                None => break,
            }
        }
        let absent = self.apply_listing(node.id, items, sent_seq).await?;
        self.settle_doubts(Effects { doubted: absent, ..Effects::default() }).await;
        Ok(())
    }

    /// Inserts and refreshes; returns what we knew inside and the listing did not show.
    async fn apply_listing(
        &self,
        folder: NodeId,
        items: BTreeMap<ItemId, RemoteItem>,
        sent_seq: u64,
    ) -> Result<Vec<ItemId>, EngineError> {
        items.values().for_each(|item| self.0.fetch.remember(item));
        let inner = self.0.clone();
        let (effects, absent) = self
            .0
            .blocking
            .start(move || -> Result<_, StoreError> {
                let mut applier = inner.applier();
                let seen =
                    Seen { source: Source::Report, sent_seq, now: Timestamp::from(inner.clock.wall()) };
                let committed =
                    inner.store.write_changes(Durability::Process, |tx| -> Result<_, StoreError> {
                        items.values().try_for_each(|item| applier.apply(tx, item, seen))?;
                        let mut absent = Vec::new();
                        for child in tx.children(folder)? {
                            let child = tx.node(child)?;
                            let view = child.remote.as_ref().filter(|view| view.parent == Some(folder));
                            absent.extend(
                                view.filter(|view| !items.contains_key(&view.item))
                                    .map(|view| view.item.clone()),
                            );
                        }
                        tx.set_listed(folder, true)?;
                        add_doubts(tx, &applier.effects.doubted)?;
                        add_doubts(tx, &absent)?;
                        Ok(absent)
                    })?;
                inner.sink.changed(&committed.changes);
                Ok((applier.effects, committed.value))
            })
            .await?;
        self.settle_doubts(effects).await;
        Ok(absent)
    }

    /// Whether nothing is inside a folder that is to be deleted; what is found there is taken in.
    pub(super) async fn is_empty_remotely(&self, node: &Node) -> Result<bool, GraphError> {
        // What a shortcut leads to is not in it.
        let view = node.remote.as_ref().filter(|_| node.kind != NodeKind::Shortcut);
        let Some(view) = view else { return Ok(true) };
        let sent_seq = self.0.store.sequence();
        let page = self.0.graph.children(&self.0.drive.id, &view.item, None, Priority::Upload).await?;
        let empty = page.items.is_empty();
        if !empty {
            // A listing may still show what was deleted moments ago.
            let inner = self.0.clone();
            let seen = move || inner.observe(&page.items, Source::Report, sent_seq);
            match self.0.blocking.start(seen).await {
                Ok(effects) => self.settle_doubts(effects).await,
                Err(error) => tracing::error!(%error, "what is in a folder could not be recorded"),
            }
        }
        Ok(empty)
    }
}
