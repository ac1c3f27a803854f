//! Folders that lie in each other: one was moved here into what was moved into it elsewhere.
//!
//! As long as both exist on the service, the planner puts back what was moved here. Once one of them is gone there,
//! nothing would: what is unsent below would be made again in a folder that lies in itself, out of sight for ever.
//! So whoever takes a node away first opens the circle that it is in.

use std::collections::BTreeSet;

use super::planner::is_swap_name;
use crate::model::NodeId;
use crate::store::{LocalView, Node, RemoteView, StoreError, Tx, canonical};

/// Puts back what was moved here, until `id`, which is gone on the service, can be reached from the root.
pub(super) fn open(tx: &mut Tx<'_>, id: NodeId) -> Result<(), StoreError> {
    // Each turn takes a local place away.
    while let Some(circle) = above(tx, id)? {
        let mut moved = false;
        for &at in &circle {
            moved |= put_back(tx, at)?;
        }
        if !moved {
            return to_root(tx, id);
        }
    }
    Ok(())
}

/// `id` and all above it, if that never comes to the root.
fn above(tx: &Tx<'_>, id: NodeId) -> Result<Option<Vec<NodeId>>, StoreError> {
    let (mut above, mut seen) = (Vec::new(), BTreeSet::new());
    let mut at = Some(id);
    while let Some(next) = at.filter(|&next| seen.insert(next)) {
        above.push(next);
        at = tx.find(next)?.and_then(|node| node.place).map(|place| place.parent);
    }
    Ok(at.map(|_| above))
}

/// True if the node is elsewhere now.
fn put_back(tx: &mut Tx<'_>, id: NodeId) -> Result<bool, StoreError> {
    let Node { local: Some(local), remote, base, .. } = tx.node(id)? else { return Ok(false) };
    let Some(home) = remote.or(base).filter(|home| home.parent != Some(local.parent)) else {
        return Ok(false);
    };
    let Some(parent) = home.parent else { return Ok(false) };
    let parent = present(tx, parent)?;
    let name = if is_swap_name(&home.name) { local.name.clone() } else { canonical(&home.name) };
    tx.set_local(id, Some(&LocalView { parent, name, ..local }))?;
    Ok(true)
}

/// Whether `id` is seen somewhere below `folder`: whoever took over what is in that would then lie in itself.
pub(super) fn lies_in(tx: &Tx<'_>, id: NodeId, folder: NodeId) -> Result<bool, StoreError> {
    let (mut at, mut seen) = (Some(id), BTreeSet::new());
    while let Some(next) = at.filter(|&next| seen.insert(next)) {
        at = tx.find(next)?.and_then(|node| node.place).map(|place| place.parent);
        if at == Some(folder) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The folder, or the root where it has no place and never gets one: its row is gone, or nothing at all is known of it.
/// What is unsent is not left in a folder that is not there.
pub(super) fn present(tx: &Tx<'_>, folder: NodeId) -> Result<NodeId, StoreError> {
    let is_there = folder == NodeId::ROOT
        || tx.find(folder)?.is_some_and(|node| node.remote.is_some() || node.local.is_some())
        || tx.item_of_stub(folder)?.is_some();
    Ok(if is_there { folder } else { NodeId::ROOT })
}

/// Nothing was moved here: what is known of the service is of two moments, and no place of this node any more.
fn to_root(tx: &mut Tx<'_>, id: NodeId) -> Result<(), StoreError> {
    let Node { local, remote, .. } = tx.node(id)?;
    match (local, remote) {
        (Some(local), _) => tx.set_local(id, Some(&LocalView { parent: NodeId::ROOT, ..local })),
        (None, Some(view)) => tx.set_remote(id, Some(&RemoteView { parent: Some(NodeId::ROOT), ..view })),
        (None, None) => Ok(()),
    }
}
