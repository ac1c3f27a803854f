//! Items that are missing by their ids: gone, or under other ids (graph-api 3.7, design 3 "Observing").

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::apply::{Source, view_of};
use super::doubts::add_doubts;
use super::error::{Verdict, classify};
use super::{Engine, EngineError, Inner, lock, rekey};
use crate::graph::{GraphError, Priority};
use crate::model::{ItemId, NodeId, RemoteItem, Timestamp};
use crate::store::{Durability, Node, StoreError, Tx};

/// Set while the whole drive must be read again before anything is deleted or made again: "wanted", or the
/// generation of the enumeration that does it.
const REMATCH: &str = "rematch";
const WANTED: &str = "wanted";

/// So many items below a folder that is gone are looked at: were they moved out, delta tells so too, only later.
const LOOKS_BELOW: usize = 100;

/// What is at the place of a missing item.
enum Place {
    /// The item, under the id that it has now.
    Taken(Box<RemoteItem>),
    /// Nothing that fits.
    Free,
    /// Nobody can say now.
    Unsure,
}

/// Who asks for a missing item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// The engine itself: while the whole drive is read again, it waits for that.
    Engine,
    /// A program that reads it.
    Reader,
}

impl Engine {
    /// What became of an item that answers 404: described under its new id (its node then has that), as deleted,
    /// or nothing where nobody can say now.
    pub(super) fn missing<'a>(&'a self, item: &'a ItemId, who: For) -> BoxFuture<'a, Option<RemoteItem>> {
        async move {
            let gone = || RemoteItem::gone(item.clone());
            let known = self.0.store.by_item(item);
            let known =
                known.inspect_err(|error| tracing::error!(%error, "the store cannot be read")).ok()?;
            let Some(node) = known else { return Some(gone()) };
            if self.note_absence(item).await && who == For::Engine {
                return None;
            }
            match self.find_by_place(&node, who).await {
                Ok(Place::Taken(found)) => Some(*found),
                Ok(Place::Free) => (!self.is_rematching()).then(gone),
                Ok(Place::Unsure) => None,
                Err(error) => {
                    tracing::debug!(%item, %error, "nobody can say now what became of a missing item");
                    None
                }
            }
        }
        .boxed()
    }

    /// What was moved out of a folder before it went is seen where it is now before the folder goes, or it would go with
    /// it and come back as another file, without what only this machine knows of it. False where nobody can say now.
    pub(super) async fn save_moved_out(&self, item: &ItemId) -> Result<bool, StoreError> {
        let known = self.0.store.by_item(item)?;
        let mut folders: Vec<NodeId> =
            known.iter().filter(|node| is_folder(node)).map(|node| node.id).collect();
        let mut left = LOOKS_BELOW;
        while let Some(folder) = folders.pop() {
            for child in self.0.store.children_after(folder, NodeId(0), left)? {
                let Some(view) = &child.remote else { continue };
                left -= 1;
                let sent_seq = self.0.store.sequence();
                match self.0.graph.item(&self.0.drive.id, &view.item, Priority::Upload).await {
                    Err(GraphError::NotFound { .. }) if is_folder(&child) => folders.push(child.id),
                    Err(error) if matches!(classify(&error), Verdict::Look | Verdict::Park { .. }) => {}
                    Err(error) => {
                        tracing::debug!(item = %view.item, %error, "an item could not be looked at");
                        return Ok(false);
                    }
                    Ok(found) => {
                        let found = self.renamed(&view.item, found).await;
                        self.take_in(found.into_iter().collect(), Source::Direct, sent_seq).await;
                    }
                }
            }
            if left == 0 {
                break;
            }
        }
        Ok(true)
    }

    /// Whether an item that was to be deleted and answers 404 lives on under another id.
    pub(super) async fn lives_on(&self, item: &ItemId) -> bool {
        self.missing(item, For::Reader).await.is_some_and(|found| !found.deleted)
    }

    /// What answered for an item, whose node has the id that it answered under; nothing where that fails.
    pub(super) async fn renamed(&self, item: &ItemId, found: RemoteItem) -> Option<RemoteItem> {
        if found.id == *item {
            return Some(found);
        }
        let (inner, item, seen) = (self.0.clone(), item.clone(), found.clone());
        let rekey = move || match inner.store.by_item(&item)? {
            Some(node) => inner.rekey(node.id, &seen),
            None => Ok(true),
        };
        match self.0.blocking.start(rekey).await {
            Ok(_) => Some(found),
            Err(error) => {
                tracing::error!(%error, "an item's other id could not be recorded");
                None
            }
        }
    }

    /// Whether so many items are missing that the whole drive is read before any of them is believed to be gone.
    async fn note_absence(&self, item: &ItemId) -> bool {
        if self.is_rematching() {
            return true;
        }
        let now = Timestamp::from(self.0.clock.wall());
        let is_mass = lock(&self.0.absences).note(item, now);
        if is_mass {
            self.begin_rematch(now).await;
        }
        is_mass
    }

    /// Nothing is deleted or made again before the whole drive was read.
    pub(super) fn is_rematching(&self) -> bool {
        self.0.rematching.load(std::sync::atomic::Ordering::Acquire)
    }

    async fn begin_rematch(&self, now: Timestamp) {
        tracing::warn!(
            "many items are missing by their ids: nothing is deleted before the whole drive was read again"
        );
        self.0.rematching.store(true, std::sync::atomic::Ordering::Release);
        let inner = self.0.clone();
        let record = move || {
            inner.store.write(Durability::Process, |tx| {
                tx.set_meta(REMATCH, Some(WANTED))?;
                let text = "many items could not be found by their ids, which change when an account is moved: \
                            nothing is deleted until the whole drive was read again";
                tx.notice(now, "/", text)
            })
        };
        if let Err(error) = self.0.blocking.start(record).await {
            tracing::error!(%error, "that the drive must be read again could not be recorded");
        }
        self.0.look.notify_one();
    }

    /// What is at the place of a missing item; where that fits, the node has its id then.
    async fn find_by_place(&self, node: &Node, who: For) -> Result<Place, EngineError> {
        if node.id == NodeId::ROOT {
            return Ok(Place::Taken(Box::new(self.find_root().await?)));
        }
        let Some(view) = &node.remote else { return Ok(Place::Free) };
        let folder = view.parent.map(|parent| self.0.store.node(parent)).transpose()?.flatten();
        let Some(folder) = folder.and_then(|folder| folder.remote.clone()) else { return Ok(Place::Free) };
        let found = match self.child(&folder.item, &view.name).await? {
            Some(found) => Some(found),
            // Nothing there, or the folder has another id itself.
            None => match self.look_for(&folder.item, who).await {
                None => return Ok(Place::Unsure),
                Some(seen) if seen.deleted || seen.id == folder.item => None,
                Some(seen) => self.child(&seen.id, &view.name).await?,
            },
        };
        let Some(found) = found else { return Ok(Place::Free) };
        if found.id == view.item {
            return Ok(Place::Taken(Box::new(found)));
        }
        let (inner, id, seen) = (self.0.clone(), node.id, found.clone());
        let fits = self.0.blocking.start(move || inner.rekey(id, &seen)).await?;
        Ok(if fits { Place::Taken(Box::new(found)) } else { Place::Free })
    }

    async fn child(&self, folder: &ItemId, name: &str) -> Result<Option<RemoteItem>, EngineError> {
        match self.0.graph.child(&self.0.drive.id, folder, name, Priority::Upload).await {
            Ok(found) => Ok(Some(found)),
            Err(GraphError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn find_root(&self) -> Result<RemoteItem, EngineError> {
        let sent_seq = self.0.store.sequence();
        let root = self.0.root_item(Priority::Upload).await?;
        self.take_in(vec![root.clone()], Source::Direct, sent_seq).await;
        Ok(root)
    }

    /// Before a round: whether the drive is to be read anew for a re-match that did not begin yet.
    pub(super) fn wants_rematch(&self) -> Result<bool, StoreError> {
        Ok(self.0.store.meta(REMATCH)?.as_deref() == Some(WANTED))
    }

    /// The enumeration of this generation is the re-match.
    pub(super) fn rematch_begins(&self, generation: u64) -> Result<(), StoreError> {
        self.0.store.write(Durability::Process, |tx| tx.set_meta(REMATCH, Some(&generation.to_string())))
    }

    /// An enumeration has ended, down to what it did not show.
    pub(super) async fn rematch_ends(&self) -> Result<(), EngineError> {
        if !self.is_rematching() || self.wants_rematch()? {
            return Ok(());
        }
        let inner = self.0.clone();
        let end = move || inner.store.write(Durability::Process, |tx| tx.set_meta(REMATCH, None));
        self.0.blocking.start(end).await?;
        tracing::info!("the whole drive was read again: deletes go on");
        lock(&self.0.absences).forget();
        self.0.rematching.store(false, std::sync::atomic::Ordering::Release);
        Ok(())
    }
}

fn is_folder(node: &Node) -> bool {
    node.kind.is_directory()
}

/// Whether a re-match is wanted or under way.
pub(super) fn is_rematch(tx: &Tx<'_>) -> Result<bool, StoreError> {
    Ok(tx.meta(REMATCH)?.is_some())
}

impl Inner {
    /// At a start: a re-match that did not end goes on.
    pub(super) fn resume_rematch(&self) -> Result<(), StoreError> {
        let pending = self.store.meta(REMATCH)?.is_some();
        self.rematching.store(pending, std::sync::atomic::Ordering::Release);
        Ok(())
    }

    /// The node takes `found` if it fits and no other node keeps it; false otherwise.
    pub(super) fn rekey(&self, id: NodeId, found: &RemoteItem) -> Result<bool, StoreError> {
        let mut applier = self.applier();
        let now = Timestamp::from(self.clock.wall());
        let committed = self.store.write_changes(Durability::Process, |tx| -> Result<bool, StoreError> {
            let Some(old) = tx.find(id)?.and_then(|node| node.remote) else { return Ok(false) };
            let (Some(kind), Some(name)) = (found.kind, found.name.clone()) else { return Ok(false) };
            let view = view_of(found, old.parent, name);
            let fits = rekey::is_same(tx, id, super::apply::node_kind(kind), &view)?
                && rekey::rekey(tx, &mut applier, id, &view, now)?.is_some();
            if fits {
                // What is inside may have other ids too, or not be there.
                let inside = tx.children(id)?.into_iter().map(|child| tx.node(child));
                let inside: Vec<Node> = inside.collect::<Result<_, _>>()?;
                let inside: Vec<ItemId> =
                    inside.into_iter().filter_map(|child| Some(child.remote?.item)).collect();
                add_doubts(tx, &inside)?;
            }
            Ok(fits)
        })?;
        self.sink.changed(&committed.changes);
        self.carry_out(applier.effects);
        Ok(committed.value)
    }
}
