//! Opening, creating and closing files.

use std::cell::Cell;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::body::{self, Body};
use super::denied;
use super::file::OpenFile;
use super::handles::FileHandle;
use super::namespace::{Created, Name, Namespace, Offer};
use super::{Caller, Drive, Entry, Handle, OpenFlags, Opened, Vfs, VfsError};
use crate::model::{ByteRange, NodeId};
use crate::store::{Change, Durability, Node, NodeKind, Power, Tx};

/// Larger files keep their item when they are moved aside: copying them would take too long.
const MATERIALISE_MAX: u64 = 256 << 20;
/// How long an open waits for the first block of a document whose length is not sure.
const MEASURE_MAX: Duration = Duration::from_secs(10);
/// Between two looks at whether a map is still there.
const STORES_LOOK: Duration = Duration::from_secs(1);

impl<D: Drive> Vfs<D> {
    /// Opens a file whose length is what its content has: programs seek from the end, and write behind it.
    pub(super) async fn open_measured(
        &self,
        caller: Caller,
        id: NodeId,
        flags: OpenFlags,
    ) -> Result<Opened, VfsError> {
        let was_wrong = !flags.truncate && !self.is_denied(caller) && self.measure(id).await?;
        let opened = self.open_node(caller, id, flags)?;
        Ok(Opened { keep_cache: opened.keep_cache && !was_wrong, ..opened })
    }

    /// Finds out how long the content is where the service may tell another length than it gives, which its first block
    /// shows. True if it did; false also where nobody can be asked: a read then fails.
    async fn measure(&self, id: NodeId) -> Result<bool, VfsError> {
        let node = self.node(id)?;
        if !self.drive.length_is_unsure(&node) {
            return Ok(false);
        }
        let (body, first) = (Body::clean(&self.drive, &node), ByteRange::at(0, 1));
        let Some(cached) = body.cached().filter(|_| !body.is_here(first)) else { return Ok(false) };
        match tokio::time::timeout(MEASURE_MAX, cached.read(first, &cached.reader())).await {
            Ok(Ok(_)) => Ok(false),
            Ok(Err(error)) => {
                tracing::debug!(node = %id, %error, "the first block of a document did not come");
                Ok(self.node(id)?.remote.as_ref().is_some_and(|view| view.actual_size.is_some()))
            }
            Err(_) => Ok(false),
        }
    }

    fn open_node(&self, caller: Caller, id: NodeId, flags: OpenFlags) -> Result<Opened, VfsError> {
        let node = self.node(id)?;
        match node.kind {
            NodeKind::File => {}
            NodeKind::Symlink => return Err(VfsError::Invalid),
            _ => return Err(VfsError::IsDirectory),
        }
        let writes = flags.write || flags.truncate;
        let file = self.join(id, writes)?;
        let keep_cache = file.may_keep_pages();
        let handle = self.handles.insert(file.clone(), flags, writes, self.is_denied(caller));
        let served = file.with(|state| Ok(state.enter(flags, self.lender.as_deref())))?;
        if flags.truncate {
            let emptied = file.with(|state| {
                state.make_writable(&self.drive, true)?;
                state.touched(self.now());
                Ok(())
            });
            if let Err(error) = emptied {
                self.release_handle(id, handle);
                return Err(error);
            }
        }
        Ok(Opened { handle, keep_cache, served })
    }

    pub(super) async fn create_file(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened), VfsError> {
        let name = self.new_name(parent, name).await?;
        if let Some(node) = self.drive.store().child(parent, name.remote())? {
            if flags.exclusive {
                return Err(VfsError::Exists);
            }
            let opened = self.open_measured(caller, node.id, flags).await?;
            return Ok((self.entry(self.node(node.id)?.as_ref()), opened));
        }
        let (node, body) = self.create_row(caller, parent, &name, mode)?;
        let file = self.handles.file(node.id);
        file.created(&node, body);
        let served = file.with(|state| Ok(state.enter(flags, None)))?;
        let handle = self.handles.insert(file, flags, true, self.is_denied(caller));
        Ok((self.entry(&node), Opened { handle, keep_cache: true, served }))
    }

    fn is_denied(&self, caller: Caller) -> bool {
        denied::is_listed(&self.config.deny_readers, caller)
    }

    fn create_row(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &Name,
        mode: u32,
    ) -> Result<(Node, Body), VfsError> {
        let owner = self.owner(caller, Some(mode), self.config.file_mode);
        let made: Cell<Option<(u64, NodeId)>> = Cell::new(None);
        let outcome = self.change_tree(&[(parent, name)], |tx, context| {
            let content = tx.next_content().map_err(VfsError::from)?;
            let Created { node, effect } =
                Namespace::new(tx, context).create(parent, name, content, owner)?;
            let body = Body::empty(&self.drive, content)?;
            // The engine sees the new file and its writer at once.
            self.drive.opened(node.id, true);
            made.set(Some((content, node.id)));
            Ok(((node, body), effect))
        });
        if let (Err(_), Some((content, id))) = (&outcome, made.get()) {
            self.drive.closed(id, true);
            body::remove(&self.drive, content);
        }
        outcome
    }

    /// Adds a handle to the open file of the node.
    pub(super) fn join(&self, id: NodeId, writes: bool) -> Result<Arc<OpenFile>, VfsError> {
        self.drive.opened(id, writes);
        loop {
            let file = self.handles.file(id);
            match file.join(&self.drive, writes, &self.handles.pages) {
                Ok(true) => return Ok(file),
                Ok(false) => self.handles.forget(&file),
                Err(error) => {
                    if file.give_up() {
                        self.handles.forget(&file);
                    }
                    self.drive.closed(id, writes);
                    return Err(error);
                }
            }
        }
    }

    /// Takes a handle away from the open file of the node.
    pub(super) fn leave(&self, file: &Arc<OpenFile>, writes: bool) {
        let id = file.node();
        if writes && let Err(error) = file.with(|state| state.record(&self.drive, Durability::Process)) {
            let path = self.drive.store().path_of(id).unwrap_or_default();
            tracing::error!(%path, %error, "the size and time of a written file could not be recorded; its bytes are in staging");
        }
        let left = file.leave(&self.drive, writes, &self.handles.pages);
        if left.last {
            self.handles.forget(file);
        }
        if left.outdated {
            self.drive.changed(&[Change::Node { id, content: true }]);
        }
        if self.drive.closed(id, writes) {
            self.drive.released(id);
        }
        if writes {
            self.drive.nudge();
        }
    }

    pub(super) fn release_handle(&self, id: NodeId, handle: Handle) {
        let Some(open) = self.handles.remove(handle) else { return };
        debug_assert_eq!(open.file.node(), id);
        open.file.kernel_uses_it();
        open.file.with_open(|state| state.through.exit());
        self.leave(&open.file, open.counts_as_writer.load(Ordering::Acquire));
    }

    /// Waits until nobody can store through a map of the handle any more, which outlives it where the kernel reads the
    /// file by itself. Everywhere else the kernel tells of a handle only when its maps are gone.
    pub(super) async fn end_of_stores(&self, id: NodeId, handle: Handle) {
        let Ok(open) = self.handles.get(id, handle) else { return };
        loop {
            match open.file.with(|state| state.ends_storing(&self.drive, open.flags)) {
                Ok(true) => tokio::time::sleep(STORES_LOOK).await,
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(node = %id, %error, "what was stored through a map may be lost");
                    return;
                }
            }
        }
    }

    /// A descriptor was closed: what was written is the store's from here on.
    pub(super) async fn flush_handle(&self, id: NodeId, handle: Handle) -> Result<(), VfsError> {
        let open = self.handles.get(id, handle)?;
        open.file.with(|state| state.take_stores(&self.drive, open.flags))?;
        if open.file.with(|state| state.record(&self.drive, Durability::Process))? {
            self.drive.nudge();
        }
        if self.config.sync && open.flags.write {
            // What a writer holds is not sent; one that was closed comes back with its next write.
            self.set_writer(&open, false)?;
            self.drive.settled(id).await?;
        }
        Ok(())
    }

    /// Counts the handle among the writers, or no longer.
    pub(super) fn set_writer(&self, open: &FileHandle, writes: bool) -> Result<(), VfsError> {
        if open.counts_as_writer.swap(writes, Ordering::AcqRel) == writes {
            return Ok(());
        }
        let id = open.file.node();
        self.drive.opened(id, writes);
        self.drive.closed(id, !writes);
        open.file.with(|state| {
            state.count_writer(writes);
            Ok(())
        })?;
        self.drive.nudge();
        Ok(())
    }

    /// Makes bytes and record durable: of the file, and of every change of the tree before.
    pub(super) fn sync_handle(&self, id: NodeId, handle: Handle) -> Result<(), VfsError> {
        let open = self.handles.get(id, handle)?;
        open.file.with(|state| state.take_stores(&self.drive, open.flags))?;
        let body = open.file.body()?;
        if let Err(error) = body.sync() {
            if let Some(content) = body.content().filter(|_| body.is_lost()) {
                self.drive.store().write(Durability::Power, |tx| tx.set_power(content, Some(Power::Lost)))?;
            }
            return Err(error);
        }
        if !open.file.with(|state| state.record(&self.drive, Durability::Power))? {
            let synced = |tx: &mut Tx<'_>| body.content().map_or(Ok(()), |content| tx.synced(content));
            self.drive.store().write(Durability::Power, synced)?;
        }
        match body.content() {
            Some(content) => self.drive.synced(id, content),
            None => self.drive.nudge(),
        }
        Ok(())
    }

    pub(super) fn sync_store(&self) -> Result<(), VfsError> {
        Ok(self.drive.store().write(Durability::Power, |_| Ok(()))?)
    }

    /// The content of a file that is about to lose its item, staged, if all of it is here.
    pub(super) fn materialise(&self, id: NodeId) -> Offer {
        match self.try_materialise(id) {
            Ok(Some((content, size))) => Offer::Have { node: id, content, size },
            Ok(None) => Offer::Nothing,
            Err(error) => {
                tracing::info!(node = %id, %error, "a file keeps its item: its content could not be staged");
                Offer::Nothing
            }
        }
    }

    fn try_materialise(&self, id: NodeId) -> Result<Option<(u64, u64)>, VfsError> {
        let node = self.node(id)?;
        let shown = self.handles.open_file(id).and_then(|file| file.body().ok());
        let clean = shown.unwrap_or_else(|| Body::clean(&self.drive, &node));
        let (Body::Clean(cached), true) = (&clean, clean.size() <= MATERIALISE_MAX) else { return Ok(None) };
        if !cached.is_complete() {
            return Ok(None);
        }
        let content = self.drive.store().write(Durability::Process, |tx| tx.next_content())?;
        match body::import(&self.drive, content, cached) {
            Ok(()) => Ok(Some((content, cached.size()))),
            Err(error) => {
                body::remove(&self.drive, content);
                Err(error)
            }
        }
    }

    /// Whether this staged content has every byte itself.
    pub(super) fn is_whole(&self, content: u64) -> bool {
        body::is_whole(&self.drive, content)
    }
}
