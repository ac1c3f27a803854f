//! Lookups, and changes of the tree as the kernel asks for them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use super::namespace::{Context, Created, Effect, Halt, Name, Namespace, Offer, Owner};
use super::{Caller, Drive, Entry, Lookup, RenameMode, Vfs, VfsError};
use crate::model::{ContentVersion, NodeId, Timestamp, names};
use crate::store::{Change, Durability, Node, Tx};

impl<D: Drive> Vfs<D> {
    pub(super) async fn lookup_in(&self, parent: NodeId, name: &OsStr) -> Result<Lookup, VfsError> {
        let name = self.spelled(parent, name).await?;
        let store = self.drive.store();
        let mut found = store.child(parent, name.remote())?;
        if found.is_none() {
            self.list(parent).await?;
            found = store.child(parent, name.remote())?;
        }
        Ok(match found {
            Some(node) => Lookup::Found(self.entry(&node)),
            None => Lookup::Absent(self.config.negative_ttl),
        })
    }

    pub(super) async fn make_dir(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        mode: u32,
    ) -> Result<Entry, VfsError> {
        let name = self.new_name(parent, name).await?;
        let owner = self.owner(caller, Some(mode), self.config.dir_mode);
        let made = self.change_tree(&[(parent, &name)], |tx, context| {
            let Created { node, effect } = Namespace::new(tx, context).mkdir(parent, &name, owner)?;
            Ok((node, effect))
        })?;
        self.settle(made.id).await?;
        Ok(self.entry(self.node(made.id)?.as_ref()))
    }

    pub(super) async fn make_symlink(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        target: &Path,
    ) -> Result<Entry, VfsError> {
        let name = self.new_name(parent, name).await?;
        let owner = self.owner(caller, None, 0);
        let made = self.change_tree(&[(parent, &name)], |tx, context| {
            let Created { node, effect } =
                Namespace::new(tx, context).symlink(parent, &name, target, owner)?;
            Ok((node, effect))
        })?;
        Ok(self.entry(&made))
    }

    pub(super) async fn remove_name(
        &self,
        parent: NodeId,
        name: &OsStr,
        is_dir: bool,
    ) -> Result<(), VfsError> {
        let name = self.spelled(parent, name).await?;
        let node = self.child(parent, &name).await?;
        if is_dir && node.kind.is_directory() {
            self.list(node.id).await?;
        }
        self.change_tree(&[(parent, &name)], |tx, context| {
            let change = Namespace::new(tx, context);
            let effect = if is_dir { change.rmdir(parent, &name)? } else { change.unlink(parent, &name)? };
            Ok(((), effect))
        })?;
        self.settle(node.id).await
    }

    pub(super) async fn move_name(
        &self,
        (parent, name): (NodeId, &OsStr),
        (new_parent, new_name): (NodeId, &OsStr),
        mode: RenameMode,
    ) -> Result<(), VfsError> {
        let name = self.spelled(parent, name).await?;
        let source = self.child(parent, &name).await?;
        let new_name = self.spelled_for(&source, new_parent, new_name).await?;
        let mut target = self.drive.store().child(new_parent, new_name.remote())?;
        if target.is_none() {
            self.list(new_parent).await?;
            target = self.drive.store().child(new_parent, new_name.remote())?;
        }
        if let Some(target) = target
            && target.kind.is_directory()
            && source.kind.is_directory()
        {
            self.list(target.id).await?;
        }
        self.change_tree(&[(parent, &name), (new_parent, &new_name)], |tx, context| {
            let change = Namespace::new(tx, context);
            Ok(((), change.rename((parent, &name), (new_parent, &new_name), mode)?))
        })?;
        self.settle(source.id).await
    }

    pub(super) fn name(&self, name: &OsStr) -> Result<Name, VfsError> {
        Name::parse(name, self.drive.drive_type())
    }

    /// The name as the entry has it that it finds: in other letters, where the mount looks so.
    async fn spelled(&self, parent: NodeId, name: &OsStr) -> Result<Name, VfsError> {
        let name = self.name(name)?;
        if !self.config.case_insensitive {
            return Ok(name);
        }
        let store = self.drive.store();
        if store.child(parent, name.remote())?.is_none() {
            self.list(parent).await?;
        }
        match store.child_as_folded(parent, name.remote())?.and_then(|found| found.place.clone()) {
            Some(place) => self.name(&names::to_local(&place.name)),
            None => Ok(name),
        }
    }

    /// As [`Vfs::spelled`], for what `source` is to be called: its own name it may be given in other letters.
    async fn spelled_for(&self, source: &Node, parent: NodeId, name: &OsStr) -> Result<Name, VfsError> {
        let found = self.spelled(parent, name).await?;
        let own = source.place.as_ref().is_some_and(|at| at.parent == parent && at.name == found.remote());
        if own { self.name(name) } else { Ok(found) }
    }

    /// A name to create, in a folder whose names are all known.
    pub(super) async fn new_name(&self, parent: NodeId, name: &OsStr) -> Result<Name, VfsError> {
        let name = self.spelled(parent, name).await?;
        self.list(parent).await?;
        Ok(name)
    }

    /// The child of this name, as it is known: a listing could show a newer version of it than the caller has seen.
    async fn child(&self, parent: NodeId, name: &Name) -> Result<Arc<Node>, VfsError> {
        if let Some(known) = self.drive.store().child(parent, name.remote())? {
            return Ok(known);
        }
        self.list(parent).await?;
        self.drive.store().child(parent, name.remote())?.ok_or(VfsError::NotFound)
    }

    /// What a new node must remember of who made it: nothing that is the mount's default.
    pub(super) fn owner(&self, caller: Caller, mode: Option<u32>, default: u16) -> Owner {
        Owner {
            mode: mode.map(|mode| (mode & 0o7777) as u16).filter(|mode| *mode != default),
            uid: (caller.uid != self.config.uid).then_some(caller.uid),
            gid: (caller.gid != self.config.gid).then_some(caller.gid),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from(self.drive.clock().wall())
    }

    /// Runs a change of the tree in one transaction and does what follows from it. `own` are the names that
    /// the kernel asked to change: it knows of those.
    pub(super) fn change_tree<T>(
        &self,
        own: &[(NodeId, &Name)],
        change: impl Fn(&mut Tx<'_>, &Context<'_>) -> Result<(T, Effect), Halt>,
    ) -> Result<T, VfsError> {
        let mut offer = Offer::Ask;
        let shown = self.shown_contents(own)?;
        loop {
            let is_open = |id| self.drive.is_open(id);
            let is_whole = |content| self.is_whole(content);
            let context = Context {
                now: self.now(),
                drive: self.drive.drive_type(),
                is_open: &is_open,
                is_whole: &is_whole,
                offer,
                shown: &shown,
            };
            let done = self.drive.store().write_changes(Durability::Process, |tx| change(tx, &context));
            let took = done.as_ref().is_ok_and(|done| done.value.1.took_offer);
            if let (Offer::Have { content, .. }, false) = (offer, took) {
                // No row ever named it.
                self.garbage.unlink(content);
            }
            match done {
                Ok(done) => {
                    let (value, effect) = done.value;
                    self.tell(&done.changes, own);
                    self.discard(effect.dropped);
                    self.drive.nudge();
                    return Ok(value);
                }
                Err(Halt::Failed(error)) => return Err(error),
                Err(Halt::Materialise(node)) => offer = self.materialise(node),
            }
        }
    }

    /// What programs see of the files of these names, where they are open.
    fn shown_contents(
        &self,
        names: &[(NodeId, &Name)],
    ) -> Result<BTreeMap<NodeId, ContentVersion>, VfsError> {
        let mut shown = BTreeMap::new();
        for (parent, name) in names {
            let Some(node) = self.drive.store().child(*parent, name.remote())? else { continue };
            let Some(file) = self.handles.open_file(node.id) else { continue };
            shown.extend(file.content(&self.drive)?.map(|version| (node.id, version)));
        }
        Ok(shown)
    }

    /// Tells the kernel of names that changed besides those it asked to change (neighbours that had to step
    /// aside for a name).
    fn tell(&self, changes: &[Change], own: &[(NodeId, &Name)]) {
        let is_news = |change: &&Change| match change {
            Change::Entry { parent, name } => {
                !own.iter().any(|(folder, known)| folder == parent && known.remote() == name)
            }
            Change::Node { .. } => false,
        };
        let news: Vec<Change> = changes.iter().filter(is_news).cloned().collect();
        if !news.is_empty() {
            self.drive.changed(&news);
        }
    }

    /// With `--sync`: waits for the service.
    pub(super) async fn settle(&self, node: NodeId) -> Result<(), VfsError> {
        if self.config.sync { self.drive.settled(node).await } else { Ok(()) }
    }
}
