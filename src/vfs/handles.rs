//! What is open: one [`OpenFile`] per node, shared by its handles, and the handles themselves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use dashmap::DashMap;

use super::file::OpenFile;
use super::{Handle, OpenFlags, VfsError};
use crate::content::Reader;
use crate::model::NodeId;

/// Of so many nodes it is known which content the kernel has pages of.
const PAGES_MAX: usize = 100_000;
/// The kernel's pages are of no content that the store has.
const OF_NOTHING: u64 = u64::MAX;

/// Of which content the kernel has pages, if it has any: the epoch of it ([`Store::content_epoch`]
/// (crate::store::Store::content_epoch)). A node that is not in it was not opened since its content last changed.
///
/// The notification that drops outdated pages comes some time after the change: who opens the file before must
/// not be given pages of one content and bytes of another.
#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<HashMap<NodeId, u64>>);

impl Pages {
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what the kernel has of the node is of the content of this epoch.
    pub fn are_of(&self, node: NodeId, epoch: u64) -> bool {
        self.lock().get(&node).copied().unwrap_or(0) == epoch
    }

    /// What the kernel has of the node from here on; none: of no content that the store has.
    pub fn set(&self, node: NodeId, epoch: Option<u64>) {
        let mut pages = self.lock();
        match epoch {
            Some(0) => drop(pages.remove(&node)),
            _ if pages.len() >= PAGES_MAX && !pages.contains_key(&node) => {}
            _ => drop(pages.insert(node, epoch.unwrap_or(OF_NOTHING))),
        }
    }
}

/// An open handle of a file.
#[derive(Debug)]
pub(super) struct FileHandle {
    pub file: Arc<OpenFile>,
    pub flags: OpenFlags,
    /// It may read only what is here.
    pub is_denied: bool,
    /// It is counted among the writers.
    pub counts_as_writer: AtomicBool,
    /// What this handle's reads of clean content look like to the read-ahead.
    pub reader: OnceLock<Reader>,
}

/// Tables of what is open. Nothing here is locked for longer than a look.
#[derive(Debug, Default)]
pub(super) struct Handles {
    next: AtomicU64,
    files: DashMap<NodeId, Arc<OpenFile>>,
    handles: DashMap<Handle, Arc<FileHandle>>,
    dirs: DashMap<Handle, NodeId>,
    /// What the kernel keeps of files that are closed.
    pub pages: Pages,
}

impl Handles {
    fn number(&self) -> Handle {
        Handle(self.next.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The open file of the node, a new one if there is none. It may be closing: [`OpenFile::join`] tells.
    pub fn file(&self, node: NodeId) -> Arc<OpenFile> {
        self.files.entry(node).or_insert_with(|| Arc::new(OpenFile::new(node))).clone()
    }

    /// The open file of the node, if there is one.
    pub fn open_file(&self, node: NodeId) -> Option<Arc<OpenFile>> {
        self.files.get(&node).map(|file| file.clone())
    }

    /// Takes a file out of the table; its last handle is gone.
    pub fn forget(&self, file: &Arc<OpenFile>) {
        self.files.remove_if(&file.node(), |_, other| Arc::ptr_eq(file, other));
    }

    pub fn insert(&self, file: Arc<OpenFile>, flags: OpenFlags, writes: bool, is_denied: bool) -> Handle {
        let handle = self.number();
        let counts_as_writer = AtomicBool::new(writes);
        let open = FileHandle { file, flags, is_denied, counts_as_writer, reader: OnceLock::new() };
        self.handles.insert(handle, Arc::new(open));
        handle
    }

    /// The handle, if it is one of this node.
    pub fn get(&self, node: NodeId, handle: Handle) -> Result<Arc<FileHandle>, VfsError> {
        let found = self.handles.get(&handle).map(|found| found.clone());
        found.filter(|found| found.file.node() == node).ok_or(VfsError::BadHandle)
    }

    pub fn remove(&self, handle: Handle) -> Option<Arc<FileHandle>> {
        self.handles.remove(&handle).map(|(_, handle)| handle)
    }

    /// Every handle that is open now, with its node.
    pub fn all(&self) -> Vec<(NodeId, Handle)> {
        self.handles.iter().map(|entry| (entry.value().file.node(), *entry.key())).collect()
    }

    pub fn open_dir(&self, node: NodeId) -> Handle {
        let handle = self.number();
        self.dirs.insert(handle, node);
        handle
    }

    pub fn close_dir(&self, handle: Handle) -> Option<NodeId> {
        self.dirs.remove(&handle).map(|(_, node)| node)
    }
}
