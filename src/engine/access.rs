//! Access that was lost: what is unsent there is parked for `rescue`, and never made elsewhere (design 3).

use std::collections::BTreeSet;

use super::apply::Source;
use super::error::{Verdict, classify};
use super::execute::{backoff, park_wait};
use super::op::Send;
use super::{Engine, Inner};
use crate::graph::{GraphError, Priority};
use crate::model::NodeId;
use crate::store::{Node, ParkKind, Parked, StoreError, Tx};

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
                let seen = graph.root(drive, Priority::Upload).await;
                let gone = matches!(seen, Err(GraphError::AccessDenied { .. } | GraphError::NotFound { .. }));
                gone.then_some(lost)
            }
            _ => None,
        }
    }

    /// Before an item that is said to be gone is made again: true if it may not be, because it is there, or nobody
    /// can see whether it is. It then is taken in, or the change waits and says why.
    pub(super) async fn still_there(&self, node: &Node) -> bool {
        let Some(base) = &node.base else { return false };
        let other = self.0.store.by_item(&base.item);
        if !matches!(other, Ok(None)) {
            // Another row has the item by now.
            return false;
        }
        let sent_seq = self.0.store.sequence();
        let error = match self.0.graph.item(&self.0.drive.id, &base.item, Priority::Upload).await {
            Err(GraphError::NotFound { .. }) => return false,
            Ok(found) => {
                self.take_in(vec![found], Source::Direct, sent_seq).await;
                return self
                    .0
                    .store
                    .by_item(&base.item)
                    .is_ok_and(|holder| holder.is_some_and(|holder| holder.id == node.id));
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
}

impl Inner {
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
