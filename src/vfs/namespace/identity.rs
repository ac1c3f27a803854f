//! Which row holds an item: the item follows the name through the ways programs save (design 3).

use super::{Context, Halt, Namespace, Offer, change, is_local_only, is_never_sent, is_recent, new_local};
use crate::model::NodeId;
use crate::store::{LocalView, Node, NodeKind, Place, RemoteView, canonical};
use crate::vfs::VfsError;

/// How a file that loses its item gets bytes of its own.
enum Own {
    /// It has them, or needs none.
    Already,
    /// The offered content.
    Offered { content: u64, size: u64 },
}

impl Namespace<'_, '_, '_> {
    /// If an item was moved away from the place of `id`, or deleted there, moments ago, `id` takes it; what
    /// was moved away becomes a new file with bytes of its own.
    pub(super) fn take_what_was_moved_aside(&mut self, id: NodeId) -> Result<(), Halt> {
        let node = self.tx.node(id)?;
        let Some(place) = &node.place else { return Ok(()) };
        let Some(moved) = self.moved_aside_from(place, id)? else { return Ok(()) };
        let is_deleted = moved.local.as_ref().is_some_and(|local| local.deleted);
        let own = if is_deleted { Some(Own::Already) } else { self.own_content(&moved)? };
        let Some(own) = own else { return Ok(()) };
        let moved = self.with_local(moved)?;
        self.hand_over(&moved, &node)?;
        self.become_new(&moved, own, is_deleted)?;
        Ok(())
    }

    /// When the file that was moved aside is unlinked and a new one has its old name (vim without a backup
    /// file), the new one takes the item. Answers the node as it is then.
    pub(super) fn give_back_to_the_save(&mut self, node: Node) -> Result<Node, VfsError> {
        let (Some(remote), NodeKind::File) = (&node.remote, node.kind) else { return Ok(node) };
        let Some((place, is_moved)) = self.place_before(&node, remote)? else { return Ok(node) };
        let Some(saved) = self.tx.child(place.parent, &place.name)? else { return Ok(node) };
        let is_save = saved.id != node.id
            && saved.kind == NodeKind::File
            && is_never_sent(&saved)
            && !is_local_only(&saved)
            && saved.local.as_ref().is_some_and(|local| is_recent(local.changed_at, self.context.now))
            && is_moved;
        if !is_save {
            return Ok(node);
        }
        let node = self.with_local(node)?;
        self.hand_over(&node, &saved)?;
        let saved = self.tx.node(saved.id)?;
        self.change(&saved, |_| {})?;
        Ok(self.tx.node(node.id)?)
    }

    /// The file `source` takes the name of the file `target`, and with it the item.
    ///
    /// False if nothing was done: `source` is a file of its own (or cannot be had whole), and `target` is to be
    /// deleted instead.
    pub(super) fn replace_content_of(&mut self, source: &Node, target: &Node) -> Result<bool, Halt> {
        if is_never_sent(target) || is_local_only(target) {
            return Ok(false);
        }
        let own = match is_never_sent(source) {
            true => Some(Own::Already),
            false if was_made_here(source, self.context) => self.own_content(source)?,
            false => None,
        };
        let Some(own) = own else { return Ok(false) };
        self.tx.hand_over_conflict(target.id, source.id)?;
        // The target leaves the tree first, so that the name is free.
        let orphan = change(self.tx, target, self.context.now, |local| local.deleted = true)?;
        let base = self.start_of(target);
        let former = source.remote.clone().or(source.base.clone());
        self.tx.set_remote(target.id, None)?;
        self.tx.set_base(target.id, None)?;
        self.retire(&Node { remote: None, base: None, local: Some(orphan), ..target.clone() })?;
        let mut local = match &source.local {
            Some(local) => local.clone(),
            None => local_of(source, self.context)?,
        };
        self.give_content(&mut local, own);
        self.tx.set_local(source.id, Some(&local))?;
        self.tx.set_remote(source.id, target.remote.as_ref())?;
        self.tx.set_base(source.id, base.as_ref())?;
        self.tx.set_own(
            source.id,
            source.own_seq.max(target.own_seq),
            source.own_time.max(target.own_time),
        )?;
        self.tx.set_web_url(source.id, target.web_url.as_deref())?;
        if let (Some(former), Some(base)) = (former, self.start_of(source)) {
            self.delete_item(&former, &base, source)?;
        }
        Ok(true)
    }

    /// A row for an item that is to be deleted on the service, as far as it still is what `base` says, and is seen
    /// nowhere.
    fn delete_item(&mut self, item: &RemoteView, base: &RemoteView, from: &Node) -> Result<(), VfsError> {
        let now = self.context.now;
        let id = self.tx.insert(NodeKind::File)?;
        let parent = item.parent.unwrap_or(NodeId::ROOT);
        let mut local = new_local(parent, canonical(&item.name), now, now);
        local.deleted = true;
        local.changed_seq = self.tx.next_sequence();
        self.tx.set_local(id, Some(&local))?;
        self.tx.set_remote(id, Some(item))?;
        self.tx.set_base(id, Some(base))?;
        Ok(self.tx.set_own(id, from.own_seq, from.own_time)?)
    }

    /// A dirty file whose item is, to the service, at `place`, and which was moved away or deleted here.
    fn moved_aside_from(&self, place: &Place, but: NodeId) -> Result<Option<Node>, VfsError> {
        let candidates = self.tx.dirty_remote_children(place.parent)?;
        let at_place = |node: &Node| {
            node.remote.as_ref().is_some_and(|remote| {
                remote.parent == Some(place.parent) && canonical(&remote.name) == place.name
            })
        };
        let mut unsent = None;
        for node in candidates {
            let is_file = node.id != but && node.kind == NodeKind::File && !is_local_only(&node);
            if is_file && at_place(&node) && self.was_moved_away(&node) && !self.is_home_again(&node)? {
                unsent = std::cmp::max_by_key(unsent, Some(node), |node: &Option<Node>| {
                    node.as_ref().and_then(|node| node.local.as_ref()).map(|local| local.changed_seq)
                });
            }
        }
        if unsent.is_some() {
            return Ok(unsent);
        }
        for id in self.tx.moved_from(place)? {
            let Some(node) = self.tx.find(id)? else { continue };
            let is_file = node.kind == NodeKind::File && node.remote.is_some() && !is_local_only(&node);
            if id != but && is_file && self.was_sent_away(&node)? {
                return Ok(Some(node));
            }
        }
        Ok(None)
    }

    /// Where it was before the service was told to move it: what another file did at that place (it was saved there
    /// again, and took the item back) moved nothing away from where the item still is.
    fn is_home_again(&self, node: &Node) -> Result<bool, VfsError> {
        let is_there = node.local.as_ref().is_some_and(|local| !local.deleted);
        Ok(is_there
            && self.tx.former(node.id)?.is_some_and(|(former, _)| node.place.as_ref() == Some(&former)))
    }

    /// The place that the file was moved away from here, if it was, whether the service knows of it or not; and
    /// whether that was not long ago.
    fn place_before(&self, node: &Node, remote: &RemoteView) -> Result<Option<(Place, bool)>, VfsError> {
        if self.was_moved_away(node) {
            let Some(parent) = remote.parent else { return Ok(None) };
            let unsent = Place { parent, name: canonical(&remote.name) };
            if self.tx.child(parent, &unsent.name)?.is_some() {
                return Ok(Some((unsent, true)));
            }
        }
        match self.tx.former(node.id)? {
            Some((place, _)) => Ok(Some((place, self.was_sent_away(node)?))),
            None => Ok(None),
        }
    }

    /// Moved elsewhere here, and on the service too, and that not long ago.
    fn was_sent_away(&self, node: &Node) -> Result<bool, VfsError> {
        let Some((place, at)) = self.tx.former(node.id)? else { return Ok(false) };
        Ok(node.place.as_ref() != Some(&place) && is_recent(at, self.context.now))
    }

    /// The node with a local view, which keeps its place when the item goes.
    fn with_local(&mut self, node: Node) -> Result<Node, VfsError> {
        if node.local.is_none() {
            self.change(&node, |_| {})?;
        }
        Ok(self.tx.node(node.id)?)
    }

    /// Deleted here, or moved here to elsewhere than where the service has it, and that not long ago. What another client
    /// moved is elsewhere too, until the planner follows: nobody here took it away from there.
    fn was_moved_away(&self, node: &Node) -> bool {
        let (Some(local), Some(remote)) = (&node.local, &node.remote) else { return false };
        let is_off =
            |view: &RemoteView| Some(local.parent) != view.parent || local.name != canonical(&view.name);
        let was_moved = is_off(remote) && node.base.as_ref().is_none_or(is_off);
        (local.deleted || was_moved) && is_recent(local.changed_at, self.context.now)
    }

    /// How this file can have all its bytes without its item. `None`: it cannot.
    fn own_content(&self, node: &Node) -> Result<Option<Own>, Halt> {
        if let Some(content) = node.local.as_ref().and_then(|local| local.content) {
            return Ok((self.context.is_whole)(content).then_some(Own::Already));
        }
        match self.context.offer {
            Offer::Ask => Err(Halt::Materialise(node.id)),
            Offer::Have { node: of, content, size } if of == node.id => {
                Ok(Some(Own::Offered { content, size }))
            }
            Offer::Have { .. } | Offer::Nothing => Ok(None),
        }
    }

    fn give_content(&mut self, local: &mut LocalView, own: Own) {
        if let Own::Offered { content, size } = own {
            (local.content, local.size, local.seal) = (Some(content), size, None);
            self.effect.took_offer = true;
        }
    }

    /// Moves the item of `from` to the file `to`; `from` has a local view and is left without an item.
    fn hand_over(&mut self, from: &Node, to: &Node) -> Result<(), VfsError> {
        let base = self.start_of(from);
        self.tx.set_remote(from.id, None)?;
        self.tx.set_base(from.id, None)?;
        self.tx.set_web_url(from.id, None)?;
        self.tx.set_remote(to.id, from.remote.as_ref())?;
        self.tx.set_base(to.id, base.as_ref())?;
        self.tx.set_own(to.id, to.own_seq.max(from.own_seq), to.own_time.max(from.own_time))?;
        self.tx.set_web_url(to.id, from.web_url.as_deref())?;
        // Saved where it was moved to, it is missed nowhere any more.
        match self.tx.former(from.id)? {
            Some((former, _)) if to.place.as_ref() != Some(&former) => self.tx.remove_former(from.id)?,
            _ => self.tx.hand_over_former(from.id, to.id)?,
        }
        Ok(self.tx.hand_over_conflict(from.id, to.id)?)
    }

    /// What is left of a file that lost its item: a new file, or nothing.
    fn become_new(&mut self, former: &Node, own: Own, is_deleted: bool) -> Result<(), VfsError> {
        let node = self.tx.node(former.id)?;
        if is_deleted {
            return self.retire(&node);
        }
        let Some(mut local) = node.local.clone() else { return Ok(()) };
        self.give_content(&mut local, own);
        // The backup keeps the time of what it is a backup of.
        (local.mtime, local.mtime_set) = (former.mtime(), true);
        change(self.tx, &Node { local: Some(local), ..node }, self.context.now, |_| {})?;
        Ok(())
    }

    /// The view that a replacement of this file's content starts from.
    ///
    /// Of a file that is only renamed the user sees the content the service has, or an older one while it is open; of
    /// one that was written or deleted, what the service has meanwhile is not known here.
    fn start_of(&self, node: &Node) -> Option<RemoteView> {
        let only_moved = node.local.as_ref().is_none_or(|local| local.content.is_none() && !local.deleted);
        match (&node.base, &node.remote) {
            (Some(base), Some(remote)) if only_moved => {
                let seen = self.context.seen(node.id, remote);
                Some(RemoteView { parent: base.parent, name: base.name.clone(), ..seen })
            }
            (Some(base), _) => Some(base.clone()),
            (None, remote) => remote.as_ref().map(|remote| self.context.seen(node.id, remote)),
        }
    }
}

/// Made on the service by this program not long ago.
fn was_made_here(node: &Node, context: &Context<'_>) -> bool {
    let made = node.remote.as_ref().and_then(|remote| remote.btime);
    is_recent(node.own_time, context.now) && made.is_some_and(|made| is_recent(made, context.now))
}

fn local_of(node: &Node, context: &Context<'_>) -> Result<LocalView, VfsError> {
    super::fresh_local(node, context.now).ok_or(VfsError::Stale)
}
