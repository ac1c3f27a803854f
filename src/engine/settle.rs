//! Outcomes of the conflict table and of name clashes, carried out in the store.

use super::apply::{Applier, fresh_local};
use super::circle;
use super::conflict::{NameTaken, Outcome, only_placed};
use super::planner::is_swap_name;
use crate::model::{NodeId, Timestamp, names};
use crate::store::{Conflict, ConflictCause, LocalView, Node, NodeKind, RemoteView, StoreError, Tx};

/// Who we are and when it is, for the names of conflict copies.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    pub host: String,
    pub now: Timestamp,
    /// Seconds east of UTC.
    pub utc_offset: i32,
}

impl Naming {
    /// A name beside `name` that nobody in `folder` has.
    pub fn free_name(&self, tx: &Tx<'_>, folder: NodeId, name: &str) -> Result<String, StoreError> {
        let when = names::civil(self.now, self.utc_offset);
        // A path that is too long would not be sent.
        let room = names::PATH_MAX.saturating_sub(tx.path_units(folder)?);
        let mut attempt = 0;
        loop {
            let candidate = names::conflict_name(name, &self.host, &when, attempt, room);
            if tx.clash(folder, &candidate, None)?.is_none() {
                return Ok(candidate);
            }
            attempt += 1;
        }
    }
}

/// Drops a row that was never sent and is unlinked.
pub(super) fn forget(tx: &mut Tx<'_>, node: &Node) -> Result<(), StoreError> {
    tx.remove(node.id)
}

/// Carries out an outcome of the table.
pub(super) fn settle(
    tx: &mut Tx<'_>,
    node: &Node,
    outcome: &Outcome,
    naming: &Naming,
    applier: &mut Applier<'_>,
) -> Result<(), StoreError> {
    let Some(local) = &node.local else { return Ok(()) };
    match outcome {
        Outcome::Rebase(next) => {
            tx.set_base(node.id, node.remote.as_ref())?;
            let mut next = LocalView::clone(next);
            if tx.find(next.parent)?.is_none() {
                // The folder that it was moved to elsewhere is gone by now, and so will it be.
                (next.parent, next.name) = (local.parent, local.name.clone());
            }
            tx.set_local(node.id, Some(&next))
        }
        Outcome::TakeRemote { notice } => {
            tx.set_local(node.id, None)?;
            if let Some(text) = notice {
                tx.notice(naming.now, &tx.path(node.id)?, text)?;
            }
            // A folder's version moves with what is made inside; its time here moved with that already.
            let version = |view: &Option<RemoteView>| view.as_ref().map(|view| view.version.clone());
            if node.kind == NodeKind::File && version(&node.remote) != version(&node.base) {
                tx.set_shown_mtime(node.id, None)?;
                tx.content_changed(node.id);
            } else if local.mtime_set
                && node.remote.as_ref().is_some_and(|view| view.has_second_of(local.mtime))
            {
                // The service has the time that was set, in seconds: it is shown as it was set.
                tx.set_shown_mtime(node.id, Some(local.mtime))?;
            }
            Ok(())
        }
        Outcome::ConflictCopy => conflict_copy(tx, node, local, naming),
        Outcome::Recreate => {
            let seq = tx.next_sequence();
            let parent = circle::present(tx, local.parent)?;
            tx.set_base(node.id, None)?;
            tx.set_local(node.id, Some(&LocalView { parent, changed_seq: seq, ..local.clone() }))?;
            tx.notice(
                naming.now,
                &tx.path(node.id)?,
                "deleted elsewhere while it was changed here: sent again",
            )
        }
        Outcome::Gone => gone(tx, node.id, naming.now, applier),
    }
}

/// The change is seen, and sent, at the root where its folder has no place.
pub(super) fn bring_home(tx: &mut Tx<'_>, node: &Node, naming: &Naming) -> Result<(), StoreError> {
    let Some(local) = &node.local else { return Ok(()) };
    let parent = circle::present(tx, local.parent)?;
    if parent == local.parent {
        return Ok(());
    }
    let seq = tx.next_sequence();
    tx.set_local(node.id, Some(&LocalView { parent, changed_seq: seq, ..local.clone() }))?;
    tx.notice(naming.now, &tx.path(node.id)?, "its folder is gone: it was moved to the top of the drive")
}

/// The item is gone, and the row with it; but for what is unsent inside.
pub(super) fn gone(
    tx: &mut Tx<'_>,
    id: NodeId,
    now: Timestamp,
    applier: &mut Applier<'_>,
) -> Result<(), StoreError> {
    if !tx.has_children(id)? {
        return tx.remove(id);
    }
    // A folder, and even if it was deleted here something may have been moved into it elsewhere since: what is clean
    // inside goes with it, what is not keeps it alive.
    circle::open(tx, id)?;
    let Node { local: Some(local), base, .. } = tx.node(id)? else { return Ok(()) };
    // What was deleted here holds no folder above it.
    let parent = circle::present(tx, local.parent)?;
    let seen = |view| RemoteView { parent: Some(parent), name: local.name, ..view };
    tx.set_local(id, None)?;
    tx.set_remote(id, base.map(seen).as_ref())?;
    applier.remove(tx, id, now)
}

/// The local content moves to a new node beside; the node becomes what the service has.
fn conflict_copy(tx: &mut Tx<'_>, node: &Node, local: &LocalView, naming: &Naming) -> Result<(), StoreError> {
    let path = tx.path(node.id)?;
    let name = naming.free_name(tx, local.parent, &local.name)?;
    let was_lost = tx.is_lost(local.content)?;
    let copy = tx.insert(node.kind)?;
    let seq = tx.next_sequence();
    match node.remote.as_ref().filter(|view| is_swap_name(&view.name)) {
        // On its way through a circle of names: it still goes to its place.
        Some(view) => {
            tx.set_base(node.id, Some(view))?;
            tx.set_local(node.id, Some(&LocalView { changed_seq: seq, ..only_placed(local) }))?;
        }
        None => tx.set_local(node.id, None)?,
    }
    tx.set_shown_mtime(node.id, None)?;
    tx.content_changed(node.id);
    let copied = LocalView {
        name: name.clone(),
        changed_at: naming.now,
        changed_seq: seq,
        parked: None,
        tries: 0,
        retry_at: Timestamp(0),
        ..local.clone()
    };
    tx.set_local(copy, Some(&copied))?;
    tx.copy_attrs(node.id, copy)?;
    let cause = if was_lost { ConflictCause::PowerCut } else { ConflictCause::BothChanged };
    mark(tx, copy, node.remote.as_ref(), &local.name, cause, naming)?;
    let why = if was_lost {
        "not synced when the power went or the disk failed"
    } else {
        "changed here and elsewhere"
    };
    tx.notice(naming.now, &path, &format!("{why}: this version is kept as \"{name}\""))
}

/// Records that `copy` is a conflict copy, of what the service has under the name it wanted.
pub(super) fn mark(
    tx: &mut Tx<'_>,
    copy: NodeId,
    beside: Option<&RemoteView>,
    name: &str,
    cause: ConflictCause,
    naming: &Naming,
) -> Result<(), StoreError> {
    let Some(beside) = beside else { return Ok(()) };
    tx.put_conflict(&Conflict {
        copy,
        beside: beside.item.clone(),
        name: name.to_owned(),
        at: naming.now,
        host: naming.host.clone(),
        cause,
    })
}

/// Ours and theirs want one name.
pub(super) fn yield_name(
    tx: &mut Tx<'_>,
    node: &Node,
    to: NodeId,
    how: NameTaken,
    naming: &Naming,
) -> Result<(), StoreError> {
    let Some(local) = &node.local else { return Ok(()) };
    match how {
        NameTaken::Merge => merge(tx, node, to),
        NameTaken::TakeBack => take_back(tx, node, to),
        NameTaken::ConflictName => {
            let path = tx.path(node.id)?;
            // A conflict copy whose own name is taken is still the copy of what it was.
            let former = tx.conflict(node.id)?;
            let wanted = former.as_ref().map_or(&local.name, |mark| &mark.name);
            let name = naming.free_name(tx, local.parent, wanted)?;
            let seq = tx.next_sequence();
            let next = LocalView { name: name.clone(), changed_seq: seq, ..local.clone() };
            tx.set_local(node.id, Some(&next))?;
            if former.is_none() {
                let theirs = tx.node(to)?.remote;
                mark(tx, node.id, theirs.as_ref(), &local.name, ConflictCause::NameTaken, naming)?;
            }
            tx.notice(naming.now, &path, &format!("the name was taken elsewhere: this one is now \"{name}\""))
        }
    }
}

/// Two folders become one: our row, which programs may hold open, takes the item over.
fn merge(tx: &mut Tx<'_>, node: &Node, other: NodeId) -> Result<(), StoreError> {
    let theirs = tx.node(other)?;
    let Some(view) = theirs.remote else { return Ok(()) };
    let listed = theirs.listed;
    tx.adopt_children(other, node.id)?;
    tx.remove(other)?;
    tx.set_remote(node.id, Some(&view))?;
    tx.set_local(node.id, None)?;
    tx.set_listed(node.id, listed)
}

/// A file was made again under the name of one whose delete waits: it is a new content of that.
fn take_back(tx: &mut Tx<'_>, node: &Node, from: NodeId) -> Result<(), StoreError> {
    let former = tx.node(from)?;
    let is_waiting = former.local.as_ref().is_some_and(|local| local.deleted) && tx.attempt(from)?.is_none();
    let Some(view) = former.remote.as_ref().filter(|_| is_waiting) else { return Ok(()) };
    // What is left of the row is a file that was never sent and is unlinked.
    tx.set_remote(from, None)?;
    tx.set_base(from, None)?;
    tx.set_remote(node.id, Some(view))?;
    tx.set_base(node.id, former.base.as_ref().or(Some(view)))?;
    tx.set_own(node.id, node.own_seq.max(former.own_seq), node.own_time.max(former.own_time))?;
    tx.set_web_url(node.id, former.web_url.as_deref())
}

/// The identity that an operation made or changed belongs to nobody any more: it is to be deleted.
pub(super) fn discard_item(
    tx: &mut Tx<'_>,
    view: &RemoteView,
    kind: NodeKind,
    now: Timestamp,
) -> Result<(), StoreError> {
    let ghost = match tx.by_item(&view.item)? {
        // A page of changes introduced it already; what it has by now is not ours to delete.
        Some(seen) if seen.local.is_some() || kind != NodeKind::File => return Ok(()),
        Some(seen) => seen.id,
        None => tx.insert(kind)?,
    };
    let seq = tx.next_sequence();
    let parent = view.parent.unwrap_or(NodeId::ROOT);
    let local = fresh_local(parent, view.name.clone(), now, seq);
    tx.set_local(ghost, Some(&LocalView { deleted: true, ..local }))?;
    tx.set_base(ghost, Some(view))?;
    tx.set_remote(ghost, Some(view))
}

#[cfg(test)]
mod tests {
    use super::super::apply::Effects;
    use super::super::open::OpenNodes;
    use super::super::testing::{local_at, remote_at};
    use super::*;
    use crate::store::{Durability, Store};

    // S64. Something was made in the folder while its time was sent, and the same time was set again before the answer
    // was taken in: the service has it, and what is shown is that of what was made.
    #[test]
    fn a_time_that_the_service_has_already_is_shown_once_it_was_set_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("it opens");
        let (set, made) = (Timestamp(5_000_000_007), Timestamp(9_000_000_000));
        let shown = store.write(Durability::Process, |tx| {
            let id = tx.insert(NodeKind::Folder)?;
            let remote =
                RemoteView { mtime: Some(Timestamp(5_000_000_000)), ..remote_at("F", NodeId::ROOT, "d", 1) };
            tx.set_remote(id, Some(&remote))?;
            tx.set_base(id, Some(&remote))?;
            tx.set_local(
                id,
                Some(&LocalView { mtime: set, mtime_set: true, ..local_at(NodeId::ROOT, "d") }),
            )?;
            tx.set_shown_mtime(id, Some(made))?;
            let naming = Naming { host: "box".into(), now: made, utc_offset: 0 };
            let open = OpenNodes::default();
            let mut applier = Applier { open: &open, business: true, top: None, effects: Effects::default() };
            settle(tx, &tx.node(id)?, &Outcome::TakeRemote { notice: None }, &naming, &mut applier)?;
            Ok(tx.node(id)?.mtime())
        });
        assert_eq!(shown.expect("written"), set);
    }
}
