//! What the service says of items, into the store: the rules of design 3 "Observing".
//!
//! Runs inside a transaction of the store. Effects on the content cache are returned, to be carried out
//! after the commit.

use std::collections::BTreeSet;

use super::Mutant;
use super::circle;
use super::conflict::local_placed;
use super::op::Send;
use super::open::OpenNodes;
use super::planner::is_swap_name;
use super::rekey;
use crate::content::ContentKey;
use crate::model::{Comparison, ItemId, ItemKind, NodeId, RemoteItem, Timestamp, names};
use crate::store::{LocalView, Node, NodeKind, RemoteView, StoreError, Tx, canonical};

/// Ten minutes: for so long after an own operation a differing delta or listing entry is not believed
/// before the item was read by its id.
const OWN_ECHO_NANOS: i64 = 600 * 1_000_000_000;

/// Local-only files of a folder that vanishes end up below this name.
const LOST_AND_FOUND: &str = "lost+found";

/// How strong an observation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The answer to a GET by id, or to our own change.
    Direct,
    /// An entry of delta or of a listing: may be older than what we know.
    Report,
}

/// When and how something was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub source: Source,
    /// Local sequence number when the request was sent.
    pub sent_seq: u64,
    /// Wall time now.
    pub now: Timestamp,
}

/// What must follow the commit.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Same content under other tags: cached blocks keep their worth.
    pub rekeyed: Vec<(ContentKey, ContentKey)>,
    /// The same item and content under another id.
    pub renamed: Vec<(ContentKey, ContentKey)>,
    /// Items whose cached content is no longer wanted.
    pub forgotten: Vec<ItemId>,
    /// Items that must be read by their id before they are believed.
    pub doubted: Vec<ItemId>,
    /// Folders deleted here of which it was told that something unknown went with them.
    pub went_along: BTreeSet<String>,
}

/// What was deleted here before that is not told late any more.
pub(super) fn late(now: Timestamp) -> Timestamp {
    Timestamp(now.0.saturating_sub(OWN_ECHO_NANOS))
}

/// The key of the cached content that a view describes.
///
/// `rewritten`: the service rewrites stored files of this type, so that its hashes say nothing.
pub(super) fn content_key(view: &RemoteView, rewritten: bool) -> ContentKey {
    let mut version = view.version.clone();
    if rewritten {
        version.hashes = Default::default();
    }
    ContentKey { item: view.item.clone(), version, size: view.size() }
}

/// Whether a SharePoint library or business drive rewrites files of this name after upload (graph-api 7.8).
pub(super) fn is_rewritten(business: bool, name: &str) -> bool {
    const TYPES: &[&str] = &[
        "docx", "docm", "dotx", "dotm", "xlsx", "xlsm", "xltx", "xltm", "pptx", "pptm", "potx", "ppsx",
        "doc", "xls", "ppt", "pdf", "html", "htm", "aspx", "vsdx",
    ];
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    business && extension.is_some_and(|extension| TYPES.contains(&extension.as_str()))
}

/// Whether we are making something new at the place of this item: most likely it is that, and the answer to
/// our own request, which says so, is on its way. Of an unknown item that is gone, nobody knows where it was.
pub(super) fn is_being_made(tx: &Tx<'_>, item: &RemoteItem) -> Result<bool, StoreError> {
    let sent = tx.attempts()?;
    if sent.is_empty() || (item.deleted && tx.knows(&item.id)?) {
        return Ok(false);
    }
    let is_that = |send: Send| match (send.made_at(), &item.parent, &item.name) {
        (Some(_), ..) if item.deleted => true,
        (Some((folder, name)), Some(parent), Some(theirs)) => {
            folder == parent && names::fold(name) == names::fold(&canonical(theirs))
        }
        _ => false,
    };
    Ok(sent.into_iter().filter_map(|attempt| Send::parse(&attempt.op)).any(is_that))
}

/// Whether the item is said to be in a folder that is gone.
fn is_in_deleted(tx: &Tx<'_>, item: &RemoteItem) -> Result<bool, StoreError> {
    item.parent.as_ref().map_or(Ok(false), |parent| Ok(tx.tombstone(parent)?.is_some()))
}

/// Whether the item is said to be in a folder that went, or got another id, since that was asked. A row for that folder
/// would never be described: no later report says so again.
fn was_said_before_its_folder_went(
    tx: &Tx<'_>,
    item: &RemoteItem,
    sent_seq: u64,
) -> Result<bool, StoreError> {
    let Some(parent) = &item.parent else { return Ok(false) };
    Ok(tx.tombstone(parent)?.is_some_and(|gone_seq| sent_seq < gone_seq) && !tx.knows(parent)?)
}

pub(super) struct Applier<'a> {
    pub open: &'a OpenNodes,
    /// The drive is a business drive or a document library.
    pub business: bool,
    /// The folder that is the root here, where that is not the drive's own.
    pub top: Option<&'a ItemId>,
    pub effects: Effects,
}

/// What need not be looked at for each of many new items in a row; to be made anew after anything else was taken in.
pub(super) struct Newcomers<'i> {
    /// Something was deleted or is being made here, and any of them may be that.
    may_be_others: bool,
    /// Where the last one is.
    folder: Option<(&'i ItemId, NodeId)>,
}

impl Newcomers<'_> {
    pub fn look(tx: &Tx<'_>) -> Result<Self, StoreError> {
        Ok(Self { may_be_others: tx.has_attempts_or_tombstones()?, folder: None })
    }
}

impl Applier<'_> {
    /// Takes one description of an item in; doubts are noted in the effects.
    pub fn apply(&mut self, tx: &mut Tx<'_>, item: &RemoteItem, seen: Seen) -> Result<(), StoreError> {
        let seen = if Mutant::StaleListing.is_planted() {
            Seen { source: Source::Direct, sent_seq: u64::MAX, ..seen }
        } else {
            seen
        };
        if item.deleted {
            let Some(node) = tx.by_item(&item.id)? else {
                // What was made here and deleted elsewhere before our answer came: no later report says so again.
                if seen.source == Source::Report && tx.tombstone(&item.id)?.is_none() {
                    if is_being_made(tx, item)? {
                        self.effects.doubted.push(item.id.clone());
                    } else {
                        self.went_along(tx, item, seen)?;
                    }
                }
                return Ok(());
            };
            // What is in doubt may have been moved out of it.
            let doubtful = seen.source == Source::Report && self.has_doubts_below(tx, node.id)?;
            if doubtful || is_overtaken(&node, seen.sent_seq) {
                self.effects.doubted.push(item.id.clone());
                return Ok(());
            }
            let seq = tx.next_sequence();
            tx.put_tombstone(&item.id, seq, seen.now, None)?;
            return self.remove(tx, node.id, seen.now);
        }
        if item.root || self.top == Some(&item.id) {
            return self.apply_root(tx, item, seen.now);
        }
        if let Some(gone_seq) = tx.tombstone(&item.id)? {
            let is_older = seen.sent_seq < gone_seq;
            if is_older || seen.source == Source::Report {
                // It may have been told before it went. But what another client moved out of a folder, before that was
                // deleted here with all that was known inside, is told only once.
                if !(is_older && seen.source == Source::Report && is_in_deleted(tx, item)?) {
                    self.effects.doubted.push(item.id.clone());
                }
                return Ok(());
            }
        }
        if was_said_before_its_folder_went(tx, item, seen.sent_seq)? {
            self.effects.doubted.push(item.id.clone());
            return Ok(());
        }
        let known = tx.by_item(&item.id)?.filter(|node| node.kind != NodeKind::Stub && node.remote.is_some());
        match known {
            Some(node) => self.refresh(tx, &node, item, seen),
            None => self.introduce(tx, item, seen),
        }
    }

    /// Something unknown is gone with a folder that was deleted here: another client had put it there after the last
    /// look. The service restores what was deleted, and that was the folder: to take one thing out of it is for people.
    fn went_along(&mut self, tx: &mut Tx<'_>, item: &RemoteItem, seen: Seen) -> Result<(), StoreError> {
        let Some(parent) = &item.parent else { return Ok(()) };
        let Some(folder) = tx.deleted_folder(parent, seen.sent_seq)? else { return Ok(()) };
        let what = match &item.name {
            Some(name) => format!("'{}'", names::to_local(name).display()),
            None => "something".into(),
        };
        if self.effects.went_along.insert(folder.clone()) {
            let text = format!(
                "{what} that another client had just put into it went with it: the drive's recycle bin on the web has it"
            );
            tx.notice(seen.now, &folder, &text)?;
        }
        Ok(())
    }

    /// Takes in what an enumeration shows of an item that has no row yet, and stamps it; false if that needs a closer
    /// look ([`Applier::apply`]). The same, in one step: a first enumeration is made of nothing else.
    pub fn introduce_new<'i>(
        &mut self,
        tx: &mut Tx<'_>,
        item: &'i RemoteItem,
        generation: u64,
        newcomers: &mut Newcomers<'i>,
    ) -> Result<bool, StoreError> {
        let (Some(name), Some(parent), Some(kind)) = (&item.name, &item.parent, item.kind) else {
            return Ok(false);
        };
        if item.deleted || item.root || self.top == Some(&item.id) || tx.knows(&item.id)? {
            return Ok(false);
        }
        if newcomers.may_be_others && (tx.tombstone(&item.id)?.is_some() || is_being_made(tx, item)?) {
            return Ok(false);
        }
        let folder = match newcomers.folder {
            Some((known, folder)) if known == parent => folder,
            _ => tx.node_of_item(parent)?,
        };
        newcomers.folder = Some((parent, folder));
        let view = view_of(item, Some(folder), name.clone());
        tx.introduce(node_kind(kind), &view, item.web_url.as_deref(), generation)
    }

    /// Whether something that this report left in doubt was below `folder`, as far as known before.
    fn has_doubts_below(&self, tx: &Tx<'_>, folder: NodeId) -> Result<bool, StoreError> {
        for item in &self.effects.doubted {
            if let Some(node) = tx.by_item(item)?
                && lies_remotely_below(tx, &node, folder)? == Some(true)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn apply_root(&mut self, tx: &mut Tx<'_>, item: &RemoteItem, now: Timestamp) -> Result<(), StoreError> {
        let name = item.name.clone().unwrap_or_else(|| "root".into());
        let view = view_of(item, None, name);
        let known = tx.node(NodeId::ROOT)?.remote;
        if known.as_ref() == Some(&view) {
            return Ok(());
        }
        if known.is_some_and(|known| known.item != view.item) {
            return rekey::rekey(tx, self, NodeId::ROOT, &view, now).map(drop);
        }
        tx.set_remote(NodeId::ROOT, Some(&view))
    }

    fn introduce(&mut self, tx: &mut Tx<'_>, item: &RemoteItem, seen: Seen) -> Result<(), StoreError> {
        let (Some(name), Some(parent), Some(kind)) = (&item.name, &item.parent, item.kind) else {
            if seen.source == Source::Report {
                self.effects.doubted.push(item.id.clone());
            }
            return Ok(());
        };
        if seen.source == Source::Report && is_being_made(tx, item)? {
            self.effects.doubted.push(item.id.clone());
            return Ok(());
        }
        let parent = tx.node_of_item(parent)?;
        let id = tx.node_of_item(&item.id)?;
        tx.set_kind(id, node_kind(kind))?;
        tx.set_remote(id, Some(&view_of(item, Some(parent), name.clone())))?;
        tx.set_seen(id)?;
        tx.set_web_url(id, item.web_url.as_deref())
    }

    fn refresh(
        &mut self,
        tx: &mut Tx<'_>,
        node: &Node,
        item: &RemoteItem,
        seen: Seen,
    ) -> Result<(), StoreError> {
        let old = node.remote.as_ref().expect("filtered by the caller");
        let parent = match &item.parent {
            Some(parent) => Some(tx.node_of_item(parent)?),
            None => old.parent,
        };
        let new = merged(old, item, parent);
        if new == *old {
            return Ok(());
        }
        let matters = node.kind == NodeKind::File || !old.same_place(&new);
        if is_overtaken(node, seen.sent_seq) || (matters && tx.seen(node.id)? > seen.sent_seq) {
            self.effects.doubted.push(item.id.clone());
            return Ok(());
        }
        let compared =
            if node.kind == NodeKind::File { old.version.compare(&new.version) } else { Comparison::Same };
        if seen.source == Source::Report {
            let recent =
                seen.now.0.saturating_sub(node.own_time.0).abs() < OWN_ECHO_NANOS && node.own_seq > 0;
            let differs = !old.same_place(&new) || compared != Comparison::Same;
            if (recent && differs) || compared == Comparison::Unknown {
                self.effects.doubted.push(item.id.clone());
                return Ok(());
            }
        }
        if is_swap_name(&new.name) && node.local.is_none() {
            // A circle of names that a crash cut: the planner takes it from the row's local view; without
            // one (another machine's) it is an ordinary, if odd, name.
            tracing::debug!(item = %item.id, "a temporary name is visible");
        }
        tx.set_remote(node.id, Some(&new))?;
        tx.set_seen(node.id)?;
        if item.web_url.is_some() {
            tx.set_web_url(node.id, item.web_url.as_deref())?;
        }
        self.follow_content(tx, node, old, &new, compared)
    }

    fn follow_content(
        &mut self,
        tx: &mut Tx<'_>,
        node: &Node,
        old: &RemoteView,
        new: &RemoteView,
        compared: Comparison,
    ) -> Result<(), StoreError> {
        if node.kind != NodeKind::File {
            return Ok(());
        }
        let rewritten = is_rewritten(self.business, &new.name);
        match compared {
            Comparison::Same | Comparison::ProbablySame => {
                let keys = (content_key(old, rewritten), content_key(new, rewritten));
                if keys.0 != keys.1 {
                    self.effects.rekeyed.push(keys);
                }
                Ok(())
            }
            Comparison::Different | Comparison::Unknown => {
                tx.set_shown_mtime(node.id, None)?;
                tx.content_changed(node.id);
                // What another client saves where it is now is no backup, and missed nowhere.
                tx.remove_former(node.id)?;
                Ok(())
            }
        }
    }

    /// The item is gone: takes the node and what hangs on it away, but nothing unsent.
    pub fn remove(&mut self, tx: &mut Tx<'_>, id: NodeId, now: Timestamp) -> Result<(), StoreError> {
        if id == NodeId::ROOT {
            return Ok(());
        }
        circle::open(tx, id)?;
        self.remove_below(tx, id, now, &mut Vec::new()).map(|_| ())
    }

    /// True if something unsent keeps the node alive. `above`: the nodes that brought us here.
    fn remove_below(
        &mut self,
        tx: &mut Tx<'_>,
        id: NodeId,
        now: Timestamp,
        above: &mut Vec<NodeId>,
    ) -> Result<bool, StoreError> {
        if above.contains(&id) {
            // Whatever the store holds, this comes to an end.
            return Ok(false);
        }
        let node = tx.node(id)?;
        if let (Some(&top), Some(moved_here)) = (above.first(), lives_elsewhere(&node))
            // It did not go with the item of `top`, as far as is known.
            && lies_remotely_below(tx, &node, top)? == Some(false)
        {
            if !moved_here {
                follow(tx, id)?;
            }
            // The item lives on, with all that is below it.
            return Ok(moved_here);
        }
        above.push(id);
        let mut survivors = false;
        for child in tx.children(id)? {
            survivors |= self.remove_below(tx, child, now, above)?;
        }
        above.pop();
        let node = tx.node(id)?;
        let Some(remote) = node.remote.clone() else {
            // What once was an item and has no content of its own is gone with it, once that is settled.
            let is_own = |local: &LocalView| local.content.is_some() || node.base.is_none();
            if survivors && node.local.is_none() {
                // Nobody ever knew what the folder is called, and so it cannot be made again.
                move_to_root(tx, id)?;
                tx.remove(id)?;
                return Ok(false);
            }
            let unsent =
                survivors || node.local.as_ref().is_some_and(|local| !local.deleted && is_own(local));
            return if node.local.as_ref().is_some_and(|local| local.local_only && !local.deleted) {
                rescue_local_only(tx, &node, now)?;
                Ok(false)
            } else {
                Ok(unsent)
            };
        };
        if let Some(local) = &node.local {
            tx.item_went(id, &remote.item)?;
            tx.set_remote(id, None)?;
            return Ok(!local.deleted && (local.content.is_some() || survivors));
        }
        if survivors {
            let place = node.known_place();
            let (parent, name) = place.unwrap_or((NodeId::ROOT, remote.name.clone()));
            let (parent, seq) = (circle::present(tx, parent)?, tx.next_sequence());
            tx.item_went(id, &remote.item)?;
            tx.set_remote(id, None)?;
            tx.set_local(id, Some(&fresh_local(parent, name, now, seq)))?;
            return Ok(true);
        }
        if self.open.is_open(id) {
            // What was read of it stays: it may yet be written to, and then is a file again.
            let seq = tx.next_sequence();
            let (parent, name) = node.known_place().unwrap_or((NodeId::ROOT, remote.name.clone()));
            tx.set_remote(id, None)?;
            tx.set_base(id, Some(&remote))?;
            tx.set_local(id, Some(&LocalView { deleted: true, ..fresh_local(parent, name, now, seq) }))?;
        } else {
            self.effects.forgotten.push(remote.item);
            tx.remove(id)?;
        }
        Ok(false)
    }
}

/// Where a node is in another folder than on the service: whether it was moved here, rather than there.
fn lives_elsewhere(node: &Node) -> Option<bool> {
    let (Some(remote), Some(local)) = (&node.remote, &node.local) else { return None };
    let is_elsewhere = !local.deleted && node.place.as_ref().map(|place| place.parent) != remote.parent;
    is_elsewhere.then(|| node.base.as_ref().is_none_or(|base| local_placed(base, local)))
}

/// Whether the item lies below that of `top` on the service; none where what is known does not lead to the root.
fn lies_remotely_below(tx: &Tx<'_>, node: &Node, top: NodeId) -> Result<Option<bool>, StoreError> {
    let mut at = node.remote.as_ref().and_then(|view| view.parent);
    for _ in 0..512 {
        match at {
            Some(id) if id == top => return Ok(Some(true)),
            Some(NodeId::ROOT) => return Ok(Some(false)),
            Some(id) => at = tx.find(id)?.and_then(|node| node.remote?.parent),
            None => break,
        }
    }
    Ok(None)
}

/// An unsent change goes where its item was moved on the service.
fn follow(tx: &mut Tx<'_>, id: NodeId) -> Result<(), StoreError> {
    let Node { remote: Some(RemoteView { parent: Some(parent), name, .. }), local: Some(local), .. } =
        tx.node(id)?
    else {
        return Ok(());
    };
    tx.set_local(id, Some(&LocalView { parent, name: canonical(&name), ..local }))
}

/// It was asked for before an own operation on the node ended, so it may be older than that; or newer, if
/// another client changed the item in between, and no later report would say so again.
pub(super) fn is_overtaken(node: &Node, sent_seq: u64) -> bool {
    node.own_seq > sent_seq
}

/// A local view in which only the place is set.
pub(super) fn fresh_local(parent: NodeId, name: String, now: Timestamp, seq: u64) -> LocalView {
    LocalView {
        parent,
        name,
        deleted: false,
        content: None,
        size: 0,
        mtime: now,
        mtime_set: false,
        seal: None,
        changed_at: now,
        changed_seq: seq,
        parked: None,
        tries: 0,
        retry_at: Timestamp(0),
        local_only: false,
    }
}

/// What is unsent in a folder goes to the root of the drive.
fn move_to_root(tx: &mut Tx<'_>, folder: NodeId) -> Result<(), StoreError> {
    for child in tx.children(folder)? {
        if let Some(local) = tx.node(child)?.local {
            tx.set_local(child, Some(&LocalView { parent: NodeId::ROOT, ..local }))?;
        }
    }
    Ok(())
}

fn rescue_local_only(tx: &mut Tx<'_>, node: &Node, now: Timestamp) -> Result<(), StoreError> {
    let home = match tx.child(NodeId::ROOT, LOST_AND_FOUND)? {
        Some(found) if found.kind == NodeKind::Folder => found.id,
        _ => {
            let id = tx.insert(NodeKind::Folder)?;
            let seq = tx.next_sequence();
            let local = fresh_local(NodeId::ROOT, LOST_AND_FOUND.into(), now, seq);
            tx.set_local(id, Some(&LocalView { local_only: true, ..local }))?;
            tx.set_listed(id, true)?;
            id
        }
    };
    let path = tx.path(node.id)?;
    let Some(local) = &node.local else { return Ok(()) };
    let mut name = local.name.clone();
    if tx.clash(home, &name, Some(node.id))?.is_some() {
        name = format!("{name}.{}", node.id.0);
    }
    tx.set_local(node.id, Some(&LocalView { parent: home, name, ..local.clone() }))?;
    tx.notice(now, &path, "its folder was deleted elsewhere; this file lives only here and is in lost+found")
}

pub(super) fn node_kind(kind: ItemKind) -> NodeKind {
    match kind {
        ItemKind::File => NodeKind::File,
        ItemKind::Folder => NodeKind::Folder,
        ItemKind::Package => NodeKind::Package,
        ItemKind::Shortcut => NodeKind::Shortcut,
    }
}

/// A full description as a view.
pub(super) fn view_of(item: &RemoteItem, parent: Option<NodeId>, name: String) -> RemoteView {
    RemoteView {
        item: item.id.clone(),
        parent,
        name,
        version: item.version(),
        mtime: item.mtime,
        btime: item.btime,
        malware: item.malware,
        actual_size: None,
    }
}

/// What is known after a description that may be partial: what it does not say stays, but a tag or hash that
/// stood for the old state does not outlive a change of the other tag (graph-api 9.3).
pub(super) fn merged(old: &RemoteView, item: &RemoteItem, parent: Option<NodeId>) -> RemoteView {
    let mut version = item.version();
    let same_etag = version.etag.is_some() && version.etag == old.version.etag;
    let same_ctag = version.ctag.is_some() && version.ctag == old.version.ctag;
    if version.etag.is_none() {
        version.etag = old.version.etag.clone();
    }
    if version.ctag.is_none() && same_etag {
        version.ctag = old.version.ctag.clone();
    }
    if version.size.is_none() {
        version.size = old.version.size;
    }
    if version.hashes.is_empty() && (same_etag || same_ctag) {
        version.hashes = old.version.hashes.clone();
    }
    let is_unchanged = (same_etag || same_ctag) && version.size == old.version.size;
    let actual_size = old.actual_size.filter(|_| is_unchanged);
    RemoteView {
        item: item.id.clone(),
        parent,
        name: item.name.clone().unwrap_or_else(|| old.name.clone()),
        version,
        mtime: item.mtime.or(old.mtime),
        btime: item.btime.or(old.btime),
        malware: item.malware,
        actual_size,
    }
}
