//! Under which condition a change is sent (design 6).

use super::{Engine, Inner, Mutant, lock};
use crate::graph::{GraphError, Priority};
use crate::model::{Comparison, ETag, ItemId, NodeId, RemoteItem};
use crate::store::{Node, RemoteView, canonical};

/// After so many failures the item is read again right before the change is sent.
const LOOK_TRIES: u32 = 2;
/// After so many refusals of a tag that a look each time found to be the item's, that look is trusted alone: the
/// service moves tags by itself.
const REFUSALS: u32 = 2;

impl Engine {
    /// The tag to send. `PreconditionFailed`: the item is not what the change was planned for.
    pub(super) async fn precondition(
        &self,
        node: &Node,
        item: &ItemId,
        if_match: Option<&ETag>,
    ) -> Result<Option<String>, GraphError> {
        let Some(tag) = if_match.filter(|_| !Mutant::DropPrecondition.is_planted()) else { return Ok(None) };
        let tries = node.local.as_ref().map_or(0, |local| local.tries);
        if tries < LOOK_TRIES {
            return Ok(Some(tag.as_str().to_owned()));
        }
        let now = self.0.graph.item(&self.0.drive.id, item, Priority::Upload).await?;
        if node.remote.as_ref().is_none_or(|known| self.0.has_moved(known, &now)) {
            return Err(GraphError::PreconditionFailed { ids: Default::default() });
        }
        let refused = now.etag.as_ref().is_some_and(|fresh| self.0.is_refused(node.id, fresh));
        if refused {
            tracing::warn!(node = %node.id, "the service refuses the item's own tag: the look at it must do");
        }
        let fresh = now.etag.filter(|_| !refused);
        Ok(fresh.map(|fresh| fresh.as_str().to_owned()))
    }
}

impl Inner {
    /// Whether content, name or place are others than known.
    fn has_moved(&self, known: &RemoteView, now: &RemoteItem) -> bool {
        if known.version.etag.is_some() && known.version.etag == now.etag {
            return false;
        }
        let compared = known.version.compare(&now.version());
        let content = now.size.is_some() && matches!(compared, Comparison::Different | Comparison::Unknown);
        let name = now.name.as_ref().is_some_and(|name| canonical(name) != canonical(&known.name));
        let parent = now.parent.as_ref().map(|parent| self.store.by_item(parent));
        let parent = parent.is_some_and(|found| match found {
            Ok(Some(folder)) => Some(folder.id) != known.parent,
            Ok(None) | Err(_) => true,
        });
        content || name || parent
    }

    /// The service refused this tag.
    pub(super) fn note_refusal(&self, node: NodeId, tag: Option<&ETag>) {
        let Some(tag) = tag else { return };
        let mut refusals = lock(&self.refusals);
        let entry = refusals.entry(node).or_insert_with(|| (tag.clone(), 0));
        let count = if entry.0 == *tag { entry.1 + 1 } else { 1 };
        *entry = (tag.clone(), count);
    }

    /// The node's change went through.
    pub(super) fn forget_refusals(&self, node: NodeId) {
        lock(&self.refusals).remove(&node);
        lock(&self.failures).remove(&node);
    }

    fn is_refused(&self, node: NodeId, tag: &ETag) -> bool {
        lock(&self.refusals).get(&node).is_some_and(|(refused, count)| refused == tag && *count >= REFUSALS)
    }
}
