//! Access that was lost: what is unsent there is parked for `rescue`, and never made elsewhere (design 3).

use std::collections::BTreeSet;

use super::apply::{Source, view_of};
use super::error::{Verdict, classify};
use super::execute::{backoff, park_wait};
use super::op::Send;
use super::{Engine, Inner, circle};
use crate::graph::{GraphError, Priority};
use crate::model::{ItemId, NodeId, RemoteItem};
use crate::store::{Durability, Node, ParkKind, Parked, StoreError, Tx};

impl Engine {
    /// What a refusal means once the item, or the folder that it was to be in, was looked at: `None` if the verdict
    /// on the refusal itself stands.
    pub(super) async fn access_lost(&self, send: &Send, error: &GraphError) -> Option<Verdict> {
        let lost = Verdict::Park { kind: ParkKind::AccessLost, retry: true };
        let (graph, drive) = (&self.0.graph, &self.0.drive.id);
        match error {
            GraphError::AccessDenied { .. } => {
                let item = send.item().or(send.target_folder())?;
                let seen = graph.item(drive, item, Priority::Upload).await;
                matches!(seen, Err(GraphError::AccessDenied { .. })).then_some(lost)
            }
            // The item is gone, or the drive with all that was in it.
            GraphError::NotFound { .. } => {
                let seen = self.0.root_item(Priority::Upload).await;
                let gone = matches!(seen, Err(GraphError::AccessDenied { .. } | GraphError::NotFound { .. }));
                gone.then_some(lost)
            }
            _ => None,
        }
    }

    /// Whether an item that is refused has left the folder that is shown here, or what of it the user may see: the
    /// folder itself is still there for them. A delta says the same of it (graph-api 9.4).
    pub(super) async fn has_left(&self, item: &ItemId, error: &GraphError) -> bool {
        let is_within = self.0.config.top.as_ref().is_some_and(|top| top != item);
        is_within
            && matches!(error, GraphError::AccessDenied { .. })
            && self.0.root_item(Priority::Listing).await.is_ok()
    }

    /// Before an item that is said to be gone is made again: true if it may not be, because it is there, or nobody
    /// can see whether it is. It then is taken in, or the change waits and says why.
    pub(super) async fn still_there(&self, node: &Node) -> bool {
        let Some(base) = &node.base else { return false };
        let other = self.0.store.by_item(&base.item);
        if !matches!(&other, Ok(other) if other.as_ref().is_none_or(|other| self.0.gives_way(other))) {
            // Another row has the item by now, and changes of its own.
            return false;
        }
        let error = match self.0.graph.item(&self.0.drive.id, &base.item, Priority::Upload).await {
            Err(GraphError::NotFound { .. }) => return false,
            Ok(found) => {
                let (inner, id) = (self.0.clone(), node.id);
                let back = self.0.blocking.start(move || inner.give_back(id, &found)).await;
                return back.unwrap_or_else(|error| {
                    tracing::error!(%error, "that an item is there could not be recorded");
                    true
                });
            }
            Err(error) => error,
        };
        let tries = node.local.as_ref().map_or(0, |local| local.tries);
        let (parked, wait) = match classify(&error) {
            Verdict::Park { .. } => {
                let parked = Parked { kind: ParkKind::AccessLost, detail: error.to_string() };
                (Some(parked), park_wait(ParkKind::AccessLost, tries))
            }
            _ => (None, backoff(tries)),
        };
        let (retry_at, inner, id) = (self.0.after(wait), self.0.clone(), node.id);
        let waits = self.0.blocking.start(move || inner.fail(id, false, parked, retry_at)).await;
        waits
            .inspect_err(|error| tracing::error!(%error, "that a change waits could not be recorded"))
            .is_ok()
    }

    /// Before a file is made again in a folder of which nothing but its id is known (somebody moved it there a moment
    /// before it went): the folder is looked at. True if that was so; the next plan knows more, or the file waits.
    pub(super) async fn looks_at_its_folder(&self, node: &Node) -> bool {
        let Some(local) = &node.local else { return false };
        let (inner, folder) = (self.0.clone(), local.parent);
        let stub = move || inner.store.inspect(|tx| tx.item_of_stub(folder));
        let unknown = self.0.blocking.start(stub.clone()).await;
        let item = match unknown {
            Ok(Some(item)) => item,
            Ok(None) => return false,
            Err(error) => {
                tracing::error!(%error, "the folder of a change cannot be read from the store");
                return false;
            }
        };
        let sent_seq = self.0.store.sequence();
        if let Some(seen) = self.look_at(&item).await {
            self.take_in(vec![seen], Source::Direct, sent_seq).await;
        }
        if !matches!(self.0.blocking.start(stub).await, Ok(None)) {
            let (retry_at, inner, id) = (self.0.after(backoff(local.tries)), self.0.clone(), node.id);
            let waits = self.0.blocking.start(move || inner.fail(id, false, None, retry_at)).await;
            waits
                .unwrap_or_else(|error| tracing::error!(%error, "that a change waits could not be recorded"));
        }
        true
    }
}

impl Inner {
    /// Whether the row may leave its item to another one: a page of changes introduced it, and nobody here uses it.
    fn gives_way(&self, node: &Node) -> bool {
        node.local.is_none() && !self.open.is_open(node.id)
    }

    /// The item that an unsent change started from is there after all (it was moved out of a folder that is gone): the
    /// node has it again, and the conflict table decides. False if it has not.
    fn give_back(&self, id: NodeId, found: &RemoteItem) -> Result<bool, StoreError> {
        let committed = self.store.write_changes(Durability::Process, |tx| -> Result<bool, StoreError> {
            let (Some(name), Some(parent)) = (&found.name, &found.parent) else { return Ok(false) };
            let node = tx.find(id)?.filter(|node| node.remote.is_none());
            let Some(Node { base: Some(base), .. }) = node else { return Ok(false) };
            if base.item != found.id {
                return Ok(false);
            }
            if let Some(twin) = tx.by_item(&found.id)? {
                if !self.gives_way(&twin) || circle::lies_in(tx, id, twin.id)? {
                    return Ok(false);
                }
                tx.adopt_children(twin.id, id)?;
                tx.remove(twin.id)?;
            }
            let parent = tx.node_of_item(parent)?;
            tx.set_remote(id, Some(&view_of(found, Some(parent), name.clone())))?;
            Ok(true)
        })?;
        self.sink.changed(&committed.changes);
        Ok(committed.value)
    }

    /// Nodes with something unsent that is to be kept, and all folders above them.
    pub(super) fn unsent_and_above(tx: &Tx<'_>) -> Result<BTreeSet<NodeId>, StoreError> {
        let mut found = BTreeSet::new();
        for node in tx.dirty()? {
            let is_kept = |local: &crate::store::LocalView| !local.deleted && !local.local_only;
            let mut at = node.local.as_ref().is_some_and(is_kept).then_some(node.id);
            while let Some(id) = at.filter(|&id| found.insert(id)) {
                at = tx.find(id)?.and_then(|node| node.place).map(|place| place.parent);
            }
        }
        Ok(found)
    }
}
