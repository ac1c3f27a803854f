//! Whether the service has the bytes that are here: "Same content?" of design 3, and what follows from it.
//!
//! An equal quickXorHash proves nothing, so before unsent bytes are given up either a strong hash says so or the
//! service's bytes are read and compared.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;

use super::apply::is_rewritten;
use super::conflict::{NameTaken, Outcome, may_be_same};
use super::error::{Verdict, classify};
use super::execute::backoff;
use super::op::Send;
use super::power::LAST_CHANGE_LOST;
use super::settle::discard_item;
use super::{Engine, EngineError, Inner, Mutant};
use crate::content::{CachedFile, Reader, StagingId};
use crate::graph::{GraphError, Priority};
use crate::model::remote::ModifiedBy;
use crate::model::{ByteRange, Comparison, ItemId, ItemKind, NodeId, RemoteItem, Timestamp};
use crate::store::{Durability, LocalView, Node, NodeKind, RemoteView, StoreError, Tx};

/// Who we are to the service, as an answer to a change of ours said (JSON).
const ME: &str = "me";
/// What the service writes into a document makes it larger or smaller by no more than this, in bytes.
const PROMOTED: u64 = 256 << 10;

/// Bytes of this machine that are compared with the service's.
enum Ours {
    /// Sealed staged content.
    Staged(u64),
    /// A version that the cache reads.
    Clean(Arc<CachedFile>, Reader),
}

impl Engine {
    /// Whether what is there now is what the attempt has made. An error: nobody could find out.
    pub(super) async fn is_ours(
        &self,
        node: &Node,
        send: &Send,
        item: &RemoteItem,
    ) -> Result<bool, GraphError> {
        match send {
            Send::Mkdir { .. } => Ok(item.kind == Some(ItemKind::Folder) && !self.knew_before(node, item)),
            Send::Create { .. } => {
                // What was unlinked here meanwhile, and another client saved since it was made, is theirs.
                let is_theirs = || self.0.who(item.last_modified_by.as_ref()).map(|who| who == Some(false));
                Ok(!(self.is_unlinked(node.id)? && is_theirs()?)
                    && self.has_arrived(None, send, item).await?)
            }
            Send::Replace { if_match, .. } => {
                let is_moved = if_match.is_none() || item.etag != *if_match;
                Ok(is_moved && self.has_arrived(node.remote.as_ref(), send, item).await?)
            }
            Send::Move { parent, name, .. } => {
                Ok(name.as_ref().is_none_or(|name| item.name.as_ref() == Some(name))
                    && parent.as_ref().is_none_or(|parent| item.parent.as_ref() == Some(parent)))
            }
            Send::SetTime { mtime, .. } => Ok(item.mtime.is_some_and(|seen| seen.same_second(*mtime))),
            Send::Delete { .. } => Ok(false),
        }
    }

    /// Whether the node, as it is now, is deleted here.
    fn is_unlinked(&self, id: NodeId) -> Result<bool, GraphError> {
        let now = self.0.store.node(id).map_err(|error| unreadable(&error))?;
        Ok(now.is_none_or(|node| node.local.as_ref().is_some_and(|local| local.deleted)))
    }

    /// Whether the item was known here before the node was made: another client moved it to where the node was to be.
    fn knew_before(&self, node: &Node, item: &RemoteItem) -> bool {
        let known = self.0.store.by_item(&item.id).unwrap_or_else(|error| {
            tracing::error!(%error, "the store cannot be read");
            None
        });
        // Rows are numbered in the order in which they are made.
        known.is_some_and(|known| known.id < node.id)
    }

    /// What has the name of a new file, where that is the file itself: an earlier answer was an error, though the service
    /// had made it.
    pub(super) async fn made_before(&self, send: &Send) -> Option<RemoteItem> {
        let Send::Create { parent, name, .. } = send else { return None };
        let item = self.0.graph.child(&self.0.drive.id, parent, name, Priority::Upload).await.ok()?;
        let by_us = self.0.is_me(item.last_modified_by.as_ref()).ok()?;
        // Of what the service rewrites nobody can tell.
        let may_be = by_us && item.name.as_ref() == Some(name) && !is_rewritten(self.0.is_business(), name);
        let is_that = may_be && self.has_arrived(None, send, &item).await.ok()?;
        is_that.then_some(item)
    }

    /// Whether an item that is new, or whose tags moved since the attempt, has the content that was sent.
    async fn has_arrived(
        &self,
        former: Option<&RemoteView>,
        send: &Send,
        item: &RemoteItem,
    ) -> Result<bool, GraphError> {
        let (Send::Create { content, size, quick_xor, mtime, .. }
        | Send::Replace { content, size, quick_xor, mtime, .. }) = send
        else {
            return Ok(false);
        };
        if item.kind == Some(ItemKind::Folder) {
            return Ok(false);
        }
        let by_us = self.0.is_me(item.last_modified_by.as_ref())?;
        let name = item.name.as_deref().unwrap_or_default();
        if by_us
            && is_rewritten(self.0.is_business(), name)
            && may_be_rewritten(former, (*size, *mtime), item)
        {
            return Ok(true);
        }
        if item.size != Some(*size) || item.hashes.quick_xor.is_some_and(|theirs| theirs != *quick_xor) {
            return Ok(false);
        }
        // Also where we changed it last: of two saves with one quickXorHash the other may be what arrived.
        self.has_bytes(&Ours::Staged(*content), *size, item).await
    }

    /// Compares byte by byte unless a strong hash tells; sizes are equal.
    async fn has_bytes(&self, ours: &Ours, size: u64, item: &RemoteItem) -> Result<bool, GraphError> {
        if size == 0 {
            return Ok(true);
        }
        if item.malware {
            return Ok(false);
        }
        if Mutant::TrustQuickXor.is_planted() {
            return Ok(true);
        }
        if let Ours::Staged(content) = ours
            && let Some(told) = self.strong_hash_tells(*content, item).await?
        {
            return Ok(told);
        }
        let url = match &item.download_url {
            Some(url) => url.clone(),
            None => self.0.graph.content_url(&self.0.drive.id, &item.id, Priority::Upload).await?,
        };
        let mut download = self.0.graph.download(&url, None, Priority::Upload).await?;
        if download.range.start != 0 || download.total.is_some_and(|total| total != size) {
            return Ok(false);
        }
        let mut at = 0;
        while let Some(chunk) = download.body.next().await {
            let chunk = chunk?;
            let end = at + chunk.len() as u64;
            if end > size || self.read_ours(ours, ByteRange::new(at, end)).await? != chunk {
                return Ok(false);
            }
            at = end;
        }
        Ok(at == size)
    }

    async fn strong_hash_tells(&self, content: u64, item: &RemoteItem) -> Result<Option<bool>, GraphError> {
        if item.hashes.sha1.is_none() && item.hashes.sha256.is_none() {
            return Ok(None);
        }
        let (inner, hashes) = (self.0.clone(), item.hashes.clone());
        let told = move || inner.staging.load(StagingId(content))?.file.has_hash(&hashes);
        self.0.blocking.start(told).await.map_err(|error| unreadable(&error))
    }

    async fn read_ours(&self, ours: &Ours, range: ByteRange) -> Result<Bytes, GraphError> {
        match ours {
            Ours::Staged(content) => self.read_staged(*content, range.start, range.len()).await,
            Ours::Clean(file, reader) => file.read(range, reader).await.map_err(|error| unreadable(&error)),
        }
    }

    /// The row "content edited | content edited": bytes that the service has already are no conflict.
    pub(super) async fn settle_conflict(&self, node: &Node) -> Result<(), EngineError> {
        if is_rewrite_of_ours(node, self.0.is_business()) && !self.0.is_doubtful(node)? {
            tracing::info!(node = %node.id, "the service wrote into what was sent before: that is nobody's edit");
            return self.0.local_op(node, |inner, node| inner.start_from_remote(node)).await;
        }
        let found = match &node.remote {
            Some(theirs) => self.find_same(node, theirs).await,
            None => Found::Other,
        };
        match found {
            Found::Same(item) => {
                tracing::info!(node = %node.id, "both sides have the same bytes: there is nothing to send");
                self.keep_what_is_same(node, &item).await;
                self.0.local_op(node, |inner, node| inner.drop_sent_content(node)).await
            }
            Found::Other => {
                self.0.local_op(node, |inner, node| inner.settle(node, &Outcome::ConflictCopy)).await
            }
            Found::Later => self.compare_later(node).await,
        }
    }

    /// The row "renamed or created onto a name | the same name taken".
    pub(super) async fn yield_or_adopt(
        &self,
        node: &Node,
        to: NodeId,
        how: NameTaken,
    ) -> Result<(), EngineError> {
        let theirs = self.0.store.node(to)?.filter(|theirs| {
            how == NameTaken::ConflictName && theirs.kind == NodeKind::File && theirs.local.is_none()
        });
        let found = match theirs.as_ref().and_then(|theirs| theirs.remote.as_ref()) {
            Some(view) => self.find_same(node, view).await,
            None => Found::Other,
        };
        let found = match (found, &node.remote) {
            (Found::Same(item), Some(own)) => self.unless_it_has_versions(item, &own.item).await,
            (found, _) => found,
        };
        match found {
            Found::Same(item) => {
                tracing::info!(node = %node.id, "the name was taken by the same bytes: they are one file");
                self.keep_what_is_same(node, &item).await;
                self.0.local_op(node, move |inner, node| inner.adopt_twin(node, to)).await
            }
            Found::Other => self.0.local_op(node, move |inner, node| inner.yield_name(node, to, how)).await,
            Found::Later => self.compare_later(node).await,
        }
    }

    /// Whether the node's content is, byte by byte, that of the item seen as `theirs`, and still is.
    async fn find_same(&self, node: &Node, theirs: &RemoteView) -> Found {
        let Some(size) = size_if_comparable(node, theirs) else { return Found::Other };
        let compared = async {
            let sent_seq = self.0.store.sequence();
            let item = self.0.graph.item(&self.0.drive.id, &theirs.item, Priority::Upload).await?;
            if item.etag != theirs.version.etag || item.size != Some(size) {
                // It moved on: what it is now goes to the store, and the next plan looks anew.
                self.take_in(vec![item], super::apply::Source::Direct, sent_seq).await;
                return Ok(Found::Later);
            }
            let same = match self.ours(node) {
                Some(ours) => self.has_bytes(&ours, size, &item).await?,
                None => false,
            };
            Ok(if same { Found::Same(Box::new(item)) } else { Found::Other })
        };
        compared.await.unwrap_or_else(|error: GraphError| {
            tracing::info!(node = %node.id, %error, "two contents could not be compared");
            Found::nothing(&error)
        })
    }

    /// An item of ours that gives way to the same bytes goes to the recycle bin, and its earlier versions would go with
    /// it: one that has some stays beside it.
    async fn unless_it_has_versions(&self, same: Box<RemoteItem>, own: &ItemId) -> Found {
        match self.0.graph.versions(&self.0.drive.id, own, Priority::Upload).await {
            Ok(versions) if versions.len() <= 1 => Found::Same(same),
            Ok(_) => Found::Other,
            Err(error) => {
                tracing::info!(item = %own, %error, "an item's versions could not be read");
                Found::nothing(&error)
            }
        }
    }

    fn ours(&self, node: &Node) -> Option<Ours> {
        match node.local.as_ref()?.content {
            Some(content) => Some(Ours::Staged(content)),
            None => {
                let file = self.0.cache.file(&self.content_key(node)?);
                let reader = file.reader();
                Some(Ours::Clean(file, reader))
            }
        }
    }

    async fn keep_what_is_same(&self, node: &Node, item: &RemoteItem) {
        if let Some(content) = node.local.as_ref().and_then(|local| local.content) {
            self.note_sent(node.id, content, item);
            self.keep_content(item, content).await;
        }
    }

    async fn compare_later(&self, node: &Node) -> Result<(), EngineError> {
        let tries = node.local.as_ref().map_or(0, |local| local.tries);
        let (inner, id, retry_at) = (self.0.clone(), node.id, self.0.after(backoff(tries)));
        Ok(self.0.blocking.start(move || inner.fail(id, false, None, retry_at)).await?)
    }

    /// Remembers who we are to the service.
    pub(super) async fn learn_me(&self, item: &RemoteItem) {
        let Some(me) = item.last_modified_by.clone() else { return };
        let Ok(text) = serde_json::to_string(&me) else { return };
        let inner = self.0.clone();
        let learned = self.0.blocking.start(move || -> Result<(), StoreError> {
            if inner.store.meta(ME)?.as_deref() == Some(&text) {
                return Ok(());
            }
            inner.store.write(Durability::Process, |tx| tx.set_meta(ME, Some(&text)))
        });
        if let Err(error) = learned.await {
            tracing::debug!(%error, "who we are to the service could not be noted");
        }
    }
}

/// What a comparison found.
enum Found {
    /// The item, which has these bytes.
    Same(Box<RemoteItem>),
    Other,
    /// Nobody could tell now, or the item moved on.
    Later,
}

impl Found {
    /// What is known where the service gave this error.
    fn nothing(error: &GraphError) -> Self {
        match classify(error) {
            Verdict::Unknown | Verdict::Offline | Verdict::SignedOut | Verdict::Later => Found::Later,
            Verdict::Look | Verdict::Park { .. } => Found::Other,
        }
    }
}

impl Inner {
    /// Whether these are we; false where nobody can tell.
    fn is_me(&self, by: Option<&ModifiedBy>) -> Result<bool, GraphError> {
        Ok(self.who(by)? == Some(true))
    }

    /// Whether these are we; nothing where nobody can tell.
    fn who(&self, by: Option<&ModifiedBy>) -> Result<Option<bool>, GraphError> {
        let known = self.store.meta(ME).map_err(|error| unreadable(&error))?;
        let me = known.and_then(|text| serde_json::from_str::<ModifiedBy>(&text).ok());
        let (Some(me), Some(by)) = (me, by) else { return Ok(None) };
        let same_application =
            me.application.is_none() || by.application.is_none() || me.application == by.application;
        let named = by.user.is_some() || by.application.is_some();
        Ok(named.then_some(me.user == by.user && same_application))
    }

    /// A power cut may have taken a part of the unsent content.
    fn is_doubtful(&self, node: &Node) -> Result<bool, StoreError> {
        let content = node.local.as_ref().and_then(|local| local.content);
        self.store.inspect(|tx| tx.is_lost(content))
    }

    /// The unsent content is a change of what the service has now.
    fn start_from_remote(&self, node: &Node) -> Result<(), StoreError> {
        self.if_unchanged(node, |tx, _| {
            let (Some(base), Some(remote)) = (&node.base, &node.remote) else { return Ok(()) };
            start_from(tx, node.id, base, remote)
        })
    }

    /// The service has the node's unsent content already; what else of the change is unsent stays so.
    fn drop_sent_content(&self, node: &Node) -> Result<(), StoreError> {
        let now = self.naming().now;
        self.if_unchanged(node, |tx, _| {
            let (Some(local), Some(base), Some(remote)) = (&node.local, &node.base, &node.remote) else {
                return Ok(());
            };
            if tx.is_lost(local.content)? {
                tx.notice(now, &tx.path(node.id)?, LAST_CHANGE_LOST)?;
            } else {
                tx.set_shown_mtime(node.id, Some(local.mtime))?;
            }
            start_from(tx, node.id, base, remote)?;
            tx.set_local(node.id, Some(&without_content(local)))
        })
    }

    /// Our file and that of row `to` are one: our row, which programs may hold open, takes the item.
    fn adopt_twin(&self, node: &Node, to: NodeId) -> Result<(), StoreError> {
        let now = self.naming().now;
        self.if_unchanged(node, |tx, _| {
            let theirs = tx.find(to)?.filter(|theirs| theirs.local.is_none());
            let (Some(local), Some(view)) = (&node.local, theirs.and_then(|theirs| theirs.remote)) else {
                return Ok(());
            };
            tx.remove(to)?;
            tx.set_remote(node.id, Some(&view))?;
            finish_adoption(tx, node, local, &view)?;
            match &node.remote {
                Some(former) => discard_item(tx, former, NodeKind::File, now),
                None => Ok(()),
            }
        })
    }
}

/// The node's change starts from the content that the service has; what else moved is decided from the base as it was.
fn start_from(tx: &mut Tx<'_>, id: NodeId, base: &RemoteView, remote: &RemoteView) -> Result<(), StoreError> {
    tx.set_base(id, Some(&RemoteView { version: remote.version.clone(), ..base.clone() }))
}

fn finish_adoption(
    tx: &mut Tx<'_>,
    node: &Node,
    local: &LocalView,
    view: &RemoteView,
) -> Result<(), StoreError> {
    tx.set_shown_mtime(node.id, Some(local.mtime))?;
    if local.mtime_set && !view.has_second_of(local.mtime) {
        tx.set_base(node.id, Some(view))?;
        let next = LocalView { parent: view.parent.unwrap_or(local.parent), ..without_content(local) };
        return tx.set_local(node.id, Some(&LocalView { name: crate::store::canonical(&view.name), ..next }));
    }
    tx.set_local(node.id, None)
}

fn without_content(local: &LocalView) -> LocalView {
    let (content, seal, parked, retry_at) = (None, None, None, Timestamp(0));
    LocalView { content, seal, parked, retry_at, tries: 0, ..local.clone() }
}

/// The size of both, where the node's content may be that of the item: anything known to differ is told apart
/// without a request.
fn size_if_comparable(node: &Node, theirs: &RemoteView) -> Option<u64> {
    if node.kind != NodeKind::File || theirs.malware {
        return None;
    }
    let local = node.local.as_ref()?;
    if local.content.is_some() {
        let seal = local.seal.as_ref()?;
        return may_be_same(seal, theirs).then_some(seal.size);
    }
    let mine = &node.content_view()?.version;
    let maybe = mine.size.is_some() && mine.compare(&theirs.version) != Comparison::Different;
    mine.size.filter(|_| maybe)
}

/// Whether the item, last changed by us, may be what was sent after the service wrote into it (graph-api 7.8):
/// it also does that to the former content, whose time stays.
fn may_be_rewritten(
    former: Option<&RemoteView>,
    (size, mtime): (u64, Option<Timestamp>),
    item: &RemoteItem,
) -> bool {
    let same_second =
        |one: Option<Timestamp>| item.mtime.zip(one).is_some_and(|(item, one)| item.same_second(one));
    let is_the_former = former.is_some_and(|former| same_second(former.mtime));
    let has_our_time = mtime.is_none() || same_second(mtime);
    has_our_time && !is_the_former && item.size.is_some_and(|theirs| theirs.abs_diff(size) <= PROMOTED)
}

/// Whether all that came between is that the service wrote into what was sent from here (graph-api 7.8). The time that
/// the upload gave the file stays then, and any edit moves it. The unsent content stands alone: it is sealed.
fn is_rewrite_of_ours(node: &Node, business: bool) -> bool {
    let (Some(base), Some(remote), Some(local)) = (&node.base, &node.remote, &node.local) else {
        return false;
    };
    let is_near = base.version.size.zip(remote.version.size).is_some_and(|(a, b)| a.abs_diff(b) <= PROMOTED);
    is_rewritten(business, &remote.name)
        && node.own_seq > 0
        && local.seal.is_some()
        && base.item == remote.item
        && base.mtime.is_some()
        && base.mtime == remote.mtime
        && is_near
}

fn unreadable(error: &impl std::fmt::Display) -> GraphError {
    tracing::error!(%error, "content of this machine cannot be read");
    GraphError::Configuration { what: format!("content of this machine cannot be read: {error}") }
}
