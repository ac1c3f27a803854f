//! Attempts and their results, in the store: what was sent, what the service made of it.

use super::apply::{Applier, Effects, Seen, Source, content_key, is_rewritten, merged, view_of};
use super::circle;
use super::doubts::add_doubts;
use super::execute::has_sent_content;
use super::observe::READ_FROM;
use super::op::Send;
use super::planner::is_swap_name;
use super::settle::{discard_item, gone as folder_gone};
use super::{Inner, Mutant};
use crate::model::{Comparison, ItemId, ItemKind, NodeId, RemoteItem, Timestamp};
use crate::store::{
    Attempt, Durability, LocalView, Node, NodeKind, Parked, Place, RemoteView, StoreError, Tx, canonical,
};

/// How long a place is remembered, in nanoseconds.
const PLACE_NANOS: i64 = 600 * 1_000_000_000;

impl Inner {
    /// Durably records that `send` is about to be sent; `None` if the node is no longer as it was planned.
    pub(super) fn begin(&self, planned: &Node, send: &Send) -> Result<Option<u64>, StoreError> {
        let op = serde_json::to_string(send).expect("plain data is always written");
        let now = Timestamp::from(self.clock.wall());
        self.store.write(Durability::Process, |tx| {
            if tx.find(planned.id)?.as_ref() != Some(planned) {
                return Ok(None);
            }
            let sent_seq = tx.next_sequence();
            let (node, content) = (planned.id, send.content());
            if !Mutant::ForgetAttempt.is_planted() {
                tx.put_attempt(&Attempt { node, op, content, sent_seq, started_at: now, unknown: false })?;
            }
            if Mutant::SentBeforeAnswer.is_planted() && content.is_some() {
                tx.set_local(node, None)?;
            }
            Ok(Some(sent_seq))
        })
    }

    /// The operation happened, and `result` is what the service says of the item now (none: it is gone).
    pub(super) fn succeed(
        &self,
        id: NodeId,
        send: &Send,
        result: Option<&RemoteItem>,
    ) -> Result<Effects, StoreError> {
        let now = Timestamp::from(self.clock.wall());
        let mut applier = self.applier();
        // A power cut that takes this back leaves the attempt, which is then verified.
        let committed = self.store.write_changes(Durability::Process, |tx| -> Result<(), StoreError> {
            let attempt = tx.attempt(id)?;
            let was_unknown = attempt.as_ref().is_some_and(|attempt| attempt.unknown);
            tx.remove_attempt(id)?;
            let sent_seq = attempt.map_or_else(|| tx.sequence(), |attempt| attempt.sent_seq);
            if let (Some(item), true) = (result, send.item().is_none())
                && was_read_since(tx, sent_seq)?
            {
                applier.effects.doubted.push(item.id.clone());
            }
            match result {
                Some(item) => record_item(tx, id, (send, sent_seq), item, now, &mut applier)?,
                None => record_deleted(tx, id, send, now, &mut applier)?,
            }
            if was_unknown && matches!(send, Send::Mkdir { .. }) {
                // The folder of that name may be another client's, with something in it.
                tx.set_listed(id, false)?;
            }
            add_doubts(tx, &applier.effects.doubted)?;
            send.content().map_or(Ok(()), |content| tx.remove_session(content))
        })?;
        self.sink.changed(&committed.changes);
        self.forget_refusals(id);
        Ok(applier.effects)
    }

    /// The operation did not happen, or nobody knows.
    pub(super) fn fail(
        &self,
        id: NodeId,
        unknown: bool,
        parked: Option<Parked>,
        retry_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.store.write(Durability::Process, |tx| {
            match tx.attempt(id)? {
                Some(attempt) if unknown => tx.put_attempt(&Attempt { unknown: true, ..attempt })?,
                _ => tx.remove_attempt(id)?,
            }
            let Some(Node { local: Some(local), .. }) = tx.find(id)? else { return Ok(()) };
            let tries = local.tries.saturating_add(1);
            tx.set_local(id, Some(&LocalView { parked, retry_at, tries, ..local }))
        })
    }

    /// Takes descriptions that came as answers to GET by id, or as reports, into the store.
    pub(super) fn observe(
        &self,
        items: &[RemoteItem],
        source: Source,
        sent_seq: u64,
    ) -> Result<Effects, StoreError> {
        let now = Timestamp::from(self.clock.wall());
        let mut applier = self.applier();
        let committed = self.store.write_changes(Durability::Process, |tx| -> Result<(), StoreError> {
            let seen = Seen { source, sent_seq, now };
            items.iter().try_for_each(|item| applier.apply(tx, item, seen))?;
            add_doubts(tx, &applier.effects.doubted)
        })?;
        self.sink.changed(&committed.changes);
        Ok(applier.effects)
    }
}

/// Whether the drive was read anew since something was sent. What that made, and another client deleted before, was not
/// listed, and no later report tells of it.
fn was_read_since(tx: &Tx<'_>, sent_seq: u64) -> Result<bool, StoreError> {
    let first: Option<u64> = tx.meta(READ_FROM)?.and_then(|text| text.parse().ok());
    Ok(first.is_some_and(|first| sent_seq <= first))
}

fn record_item(
    tx: &mut Tx<'_>,
    id: NodeId,
    (send, sent_seq): (&Send, u64),
    item: &RemoteItem,
    now: Timestamp,
    applier: &mut Applier<'_>,
) -> Result<(), StoreError> {
    let seq = tx.next_sequence();
    let node = tx.find(id)?;
    let parent = folder_of_answer(tx, node.as_ref(), item, applier)?;
    let name = item.name.clone().unwrap_or_default();
    let Some(node) = node.filter(|node| still_has(node, send)) else {
        return match send.item() {
            Some(sent) => {
                let seen = Seen { source: Source::Direct, sent_seq, now };
                record_elsewhere(tx, (send, sent), item, (seq, seen), applier)
            }
            // Nobody wants what was made: its row went away, or took another item over (save by rename).
            None => discard_item(tx, &view_of(item, parent, name), kind_of(item), now),
        };
    };
    match displace_twin(tx, id, item)? {
        Twin::None => {}
        // What the report of it said may be newer than this answer.
        Twin::Displaced => applier.effects.doubted.push(item.id.clone()),
        Twin::Stays => return Ok(()),
    }
    let view = match &node.remote {
        Some(old) => merged(old, item, parent.or(old.parent)),
        None => view_of(item, parent, name),
    };
    let known = node.remote.as_ref().and_then(|old| old.version.etag.as_ref());
    if send.if_match().is_some() && known != send.if_match() {
        // A report came while the request was on its way: it may be newer than this answer.
        applier.effects.doubted.push(item.id.clone());
    }
    if let (None, Send::Move { .. } | Send::SetTime { .. }, Some(old)) = (send.content(), send, &node.remote)
        && old.version != view.version
        && old.version.keeps_blocks_of(&view.version)
    {
        let rewritten = is_rewritten(applier.business, &view.name);
        applier.effects.rekeyed.push((content_key(old, rewritten), content_key(&view, rewritten)));
    }
    tx.set_remote(id, Some(&view))?;
    if let (Send::Move { .. }, Some(old)) = (send, &node.remote) {
        remember_place(tx, &node, old, now)?;
    }
    if send.content().is_some() && !has_sent_content(send, item) {
        // The service stored something else (graph-api 7.8): what the kernel has of ours is not it.
        tx.content_changed(id);
    }
    tx.set_web_url(id, item.web_url.as_deref())?;
    tx.set_own(id, seq, now)?;
    if send.item().is_none() && hand_to_heir(tx, &node, &view, (seq, now))? {
        return Ok(());
    }
    if matches!(send, Send::Mkdir { .. }) {
        tx.set_listed(id, true)?;
    }
    let Some(local) = &node.local else { return Ok(()) };
    if is_another_content(local, send, item, applier.business) {
        tracing::error!(node = %id, "the service has another content than was sent: both are kept");
        // Nothing is known of how the two relate: the conflict table then keeps both.
        tx.set_base(id, Some(&RemoteView { version: Default::default(), ..view }))?;
        return tx.set_local(
            id,
            Some(&LocalView { parked: None, tries: 0, retry_at: Timestamp(0), ..local.clone() }),
        );
    }
    finish_local(tx, &node, local, &view, send)
}

/// The folder that an answer says the item is in. Of one that nobody knows (it has another id by now, or another client
/// made it) nothing follows before the item was looked at.
fn folder_of_answer(
    tx: &mut Tx<'_>,
    node: Option<&Node>,
    item: &RemoteItem,
    applier: &mut Applier<'_>,
) -> Result<Option<NodeId>, StoreError> {
    let Some(parent) = &item.parent else { return Ok(None) };
    let known = node.and_then(|node| match (&node.remote, &node.local) {
        (Some(remote), _) => remote.parent,
        (None, local) => local.as_ref().map(|local| local.parent),
    });
    match (tx.by_item(parent)?, known) {
        (None, Some(known)) => {
            applier.effects.doubted.push(item.id.clone());
            Ok(Some(known))
        }
        (Some(folder), _) => Ok(Some(folder.id)),
        (None, None) => tx.node_of_item(parent).map(Some),
    }
}

/// A name remembers for some minutes what was moved away from it (design 3), also when the service knows.
fn remember_place(tx: &mut Tx<'_>, node: &Node, old: &RemoteView, now: Timestamp) -> Result<(), StoreError> {
    let (Some(parent), NodeKind::File) = (old.parent, node.kind) else { return Ok(()) };
    if is_swap_name(&old.name) {
        return Ok(());
    }
    let place = Place { parent, name: canonical(&old.name) };
    if tx.former(node.id)?.is_some_and(|(former, _)| node.place.as_ref() == Some(&former)) {
        // It is back where it was before: it is missed nowhere.
        return tx.remove_former(node.id);
    }
    // It was moved when the user did it, not when it was sent.
    let moved_at = node.local.as_ref().map_or(now, |local| local.changed_at.min(now));
    tx.put_former(node.id, &place, moved_at, Timestamp(now.0.saturating_sub(PLACE_NANOS)))
}

/// Whether the service says that it has other bytes than were sent, for a file whose type it does not rewrite.
fn is_another_content(local: &LocalView, send: &Send, item: &RemoteItem, business: bool) -> bool {
    let (Send::Create { size, quick_xor, .. } | Send::Replace { size, quick_xor, .. }) = send else {
        return false;
    };
    let differs = item.size.is_some_and(|theirs| theirs != *size)
        || item.hashes.quick_xor.is_some_and(|theirs| theirs != *quick_xor);
    let name = item.name.as_deref().unwrap_or_default();
    differs && local.content == send.content() && !is_rewritten(business, name)
}

/// Whether the row still is the one that the operation was for: for an item that it has, or for none.
fn still_has(node: &Node, send: &Send) -> bool {
    let view = node.remote.as_ref().or(node.base.as_ref().filter(|_| send.item().is_some()));
    view.map(|view| &view.item) == send.item()
}

/// The item went to another row while the request was on its way (save by rename): that row's change started
/// from the state that the request has made.
fn record_elsewhere(
    tx: &mut Tx<'_>,
    (send, sent): (&Send, &ItemId),
    item: &RemoteItem,
    (seq, seen): (u64, Seen),
    applier: &mut Applier<'_>,
) -> Result<(), StoreError> {
    let Some(Node { id, remote: Some(old), base, local, .. }) = tx.by_item(sent)? else {
        // It may have gone since it was sent.
        return applier.apply(tx, item, seen);
    };
    let parent = match &item.parent {
        Some(parent) => Some(tx.node_of_item(parent)?),
        None => old.parent,
    };
    let view = merged(&old, item, parent);
    tx.set_remote(id, Some(&view))?;
    tx.set_own(id, seq, seen.now)?;
    let tag = |view: &RemoteView| view.version.etag.clone();
    if send.if_match().is_some() && tag(&old).as_ref() != send.if_match() {
        // A report came while the request was on its way: it may be newer than this answer.
        applier.effects.doubted.push(item.id.clone());
    }
    let started_alike = base.as_ref().is_some_and(|base| {
        *base == old || (send.if_match().is_some() && tag(base).as_ref() == send.if_match())
    });
    if local.is_some() && started_alike {
        tx.set_base(id, Some(&start_after(send, base.as_ref(), &view)))?;
    }
    Ok(())
}

/// Another row of an item that an operation made.
enum Twin {
    None,
    /// It is gone.
    Displaced,
    /// It has unsent changes of its own, or ours lies in it: it keeps the item.
    Stays,
}

/// A page of changes may have introduced the same item under a row of its own before our answer came: our
/// row, which programs may hold open, takes it.
fn displace_twin(tx: &mut Tx<'_>, id: NodeId, item: &RemoteItem) -> Result<Twin, StoreError> {
    let Some(twin) = tx.by_item(&item.id)?.filter(|twin| twin.id != id) else { return Ok(Twin::None) };
    if twin.local.is_some() || circle::lies_in(tx, id, twin.id)? {
        return Ok(Twin::Stays);
    }
    let was_seen = twin.remote.is_some();
    tx.adopt_children(twin.id, id)?;
    tx.remove(twin.id)?;
    Ok(if was_seen { Twin::Displaced } else { Twin::None })
}

/// A file was unlinked while it was made on the service, and another one has its name by now, which was never sent:
/// that is the item's next content. False if there is none.
fn hand_to_heir(
    tx: &mut Tx<'_>,
    node: &Node,
    view: &RemoteView,
    own: (u64, Timestamp),
) -> Result<bool, StoreError> {
    let is_unlinked = node.kind == NodeKind::File && is_deleted(node);
    let (Some(parent), true) = (view.parent, is_unlinked) else { return Ok(false) };
    let heir = tx.child(parent, &canonical(&view.name))?.filter(|heir| {
        let is_new = heir.remote.is_none() && heir.base.is_none();
        let is_sent = heir.local.as_ref().is_some_and(|local| !local.local_only);
        heir.kind == NodeKind::File && is_new && is_sent
    });
    let Some(heir) = heir else { return Ok(false) };
    if tx.attempt(heir.id)?.is_some() {
        return Ok(false);
    }
    tx.set_remote(node.id, None)?;
    tx.set_base(node.id, None)?;
    tx.set_remote(heir.id, Some(view))?;
    tx.set_base(heir.id, Some(view))?;
    tx.set_own(heir.id, own.0, own.1)?;
    Ok(true)
}

/// What the rest of a change starts from after an operation: what the operation itself made. What others did to
/// the item in between stays to be decided about.
pub(super) fn start_after(send: &Send, before: Option<&RemoteView>, view: &RemoteView) -> RemoteView {
    let mut start = view.clone();
    let Some(before) = before.filter(|_| send.item().is_some()) else { return start };
    let compared = before.version.compare(&view.version);
    if send.content().is_none() && matches!(compared, Comparison::Different | Comparison::Unknown) {
        start.version = before.version.clone();
    }
    let (moved, renamed) = match send {
        Send::Move { parent, name, .. } => (parent.is_some(), name.is_some()),
        _ => (false, false),
    };
    if !moved {
        start.parent = before.parent;
    }
    if !renamed {
        start.name.clone_from(&before.name);
    }
    start
}

/// What of the local view is still unsent after the operation.
pub(super) fn finish_local(
    tx: &mut Tx<'_>,
    node: &Node,
    local: &LocalView,
    view: &RemoteView,
    send: &Send,
) -> Result<(), StoreError> {
    let mut next = LocalView { parked: None, tries: 0, retry_at: Timestamp(0), ..local.clone() };
    if send.content().is_some() && local.content == send.content() {
        next.content = None;
        next.seal = None;
        tx.set_shown_mtime(node.id, Some(local.mtime))?;
    }
    if next.mtime_set && view.has_second_of(next.mtime) {
        next.mtime_set = false;
        tx.set_shown_mtime(node.id, Some(local.mtime))?;
    }
    let placed = view.parent != Some(next.parent) || crate::store::canonical(&view.name) != next.name;
    let start = start_after(send, node.base.as_ref(), view);
    if next.deleted || next.content.is_some() || next.mtime_set || placed || start != *view {
        tx.set_base(node.id, Some(&start))?;
        tx.set_local(node.id, Some(&next))
    } else {
        tx.set_local(node.id, None)
    }
}

fn record_deleted(
    tx: &mut Tx<'_>,
    id: NodeId,
    send: &Send,
    now: Timestamp,
    applier: &mut Applier<'_>,
) -> Result<(), StoreError> {
    let seq = tx.next_sequence();
    if let Some(item) = send.item() {
        tx.put_tombstone(item, seq, now, None)?;
    }
    if let Some(item) = send.item()
        && let Some(heir) = tx.by_item(item)?.filter(|heir| heir.id != id)
    {
        // The item went to another row while the request was on its way (made again): that is a new file now.
        tx.set_remote(heir.id, None)?;
        tx.set_base(heir.id, None)?;
    }
    let mut stack = vec![id];
    let mut gone = Vec::new();
    while let Some(at) = stack.pop() {
        gone.push(at);
        for child in tx.dirty_remote_children(at)? {
            if is_deleted(&child) {
                stack.push(child.id);
            } else {
                // Moved into it elsewhere after the last look, or out of it here a moment too late.
                tx.set_remote(child.id, None)?;
            }
        }
    }
    for at in gone.into_iter().rev() {
        let Some(node) = tx.find(at)? else { continue };
        if let Some(view) = &node.remote {
            let folder = if node.kind.is_directory() { Some(tx.path(at)?) } else { None };
            tx.put_tombstone(&view.item, seq, now, folder.as_deref())?;
            applier.effects.forgotten.push(view.item.clone());
        }
        if !is_deleted(&node) {
            // Made again under this row while the delete was on its way.
            tx.set_remote(at, None)?;
            continue;
        }
        if tx.has_children(at)? {
            // Moved into it elsewhere after the last look: what of that is unsent needs the folder again.
            if node.remote.is_none() {
                folder_gone(tx, at, now, applier)?;
            } else {
                tx.set_local(at, None)?;
                applier.remove(tx, at, now)?;
            }
            continue;
        }
        tx.set_remote(at, None)?;
        if applier.open.is_open(at) {
            tx.set_own(at, seq, now)?;
        } else {
            tx.remove(at)?;
        }
    }
    Ok(())
}

fn is_deleted(node: &Node) -> bool {
    node.local.as_ref().is_some_and(|local| local.deleted)
}

fn kind_of(item: &RemoteItem) -> NodeKind {
    if item.kind == Some(ItemKind::Folder) { NodeKind::Folder } else { NodeKind::File }
}
