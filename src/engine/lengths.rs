//! Files whose content has another length than the service says (graph-api 6.4): it writes into documents after it has told
//! their size, or never tells the new one.

use super::Engine;
use super::apply::is_rewritten;
use crate::content::ContentKey;
use crate::store::{Durability, Node, NodeKind, RemoteView, StoreError, Tx};

impl Engine {
    /// The service may give the content of this file another length than it tells; nobody knows yet whether it does.
    pub fn length_is_unsure(&self, node: &Node) -> bool {
        let is_clean = node.local.as_ref().is_none_or(|local| local.content.is_none());
        let of_such_type = |view: &RemoteView| {
            view.actual_size.is_none() && view.size() > 0 && is_rewritten(self.0.is_business(), &view.name)
        };
        node.kind == NodeKind::File && is_clean && node.remote.as_ref().is_some_and(of_such_type)
    }

    /// The version `key` was found to have `total` bytes. Of a type that the service writes into, that is taken as it is;
    /// all else stays unreadable.
    pub(super) async fn has_length(&self, key: ContentKey, total: u64) {
        let inner = self.0.clone();
        let business = self.0.is_business();
        let work = move || {
            let committed =
                inner.store.write_changes(Durability::Process, |tx| note(tx, &key, total, business))?;
            inner.sink.changed(&committed.changes);
            Ok::<_, StoreError>(())
        };
        match self.0.blocking.start(work).await {
            Ok(()) => {}
            Err(error) => tracing::error!(%error, "the length of a document was not noted"),
        }
    }
}

fn note(tx: &mut Tx<'_>, key: &ContentKey, total: u64, business: bool) -> Result<(), StoreError> {
    let Some(node) = tx.by_item(&key.item)? else { return Ok(()) };
    // What was changed here began with the length that was told: it must not end there and be sent.
    if node.local.as_ref().is_some_and(|local| local.content.is_some()) {
        return Ok(());
    }
    let is_it = |view: &&RemoteView| {
        view.item == key.item
            && view.version.keeps_blocks_of(&key.version)
            && is_rewritten(business, &view.name)
    };
    let told = |view: &RemoteView| RemoteView { actual_size: Some(total), ..view.clone() };
    if let Some(view) = node.base.as_ref().filter(is_it) {
        tx.set_base(node.id, Some(&told(view)))?;
    }
    if let Some(view) = node.remote.as_ref().filter(is_it) {
        tracing::info!(item = %key.item, said = key.size, total, "the service says another length than it gives");
        tx.set_remote(node.id, Some(&told(view)))?;
    }
    Ok(())
}
