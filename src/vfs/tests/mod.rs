//! The file system over a store and a disk, with a service of a few lines in place of the engine.

mod files;
mod lent;
mod posix;
mod tree;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dashmap::DashMap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::*;
use crate::clock::{Clock, SeededClock};
use crate::content::{
    Blocking, Cache, CacheConfig, ContentKey, Fetch, FetchError, FetchErrorKind, Fetched, Staging,
    StagingConfig, StagingId, Urgency,
};
use crate::disk::Disk;
use crate::model::hash::quick_xor_from_base64;
use crate::model::{
    ByteRange, CTag, ContentVersion, DriveId, DriveType, ETag, Hashes, ItemId, QuickXor, Quota, Timestamp,
};
use crate::store::{Attempt, Change, Durability, LocalView, NodeKind, RemoteView, Seal, Store, Tx};

/// Content of items, by item and cTag; what is taken out is gone.
#[derive(Debug, Default)]
struct Service {
    contents: Mutex<HashMap<(ItemId, String), Bytes>>,
    offline: Mutex<bool>,
}

impl Fetch for Service {
    fn fetch(
        &self,
        key: &ContentKey,
        range: ByteRange,
        _urgency: Urgency,
    ) -> BoxFuture<'static, Result<Fetched, FetchError>> {
        let tag = key.version.ctag.as_ref().map(|tag| tag.as_str().to_owned()).unwrap_or_default();
        let found = self.contents.lock().unwrap().get(&(key.item.clone(), tag)).cloned();
        let answer = match found {
            _ if *self.offline.lock().unwrap() => Err(FetchErrorKind::Offline.into()),
            None => Err(FetchErrorKind::VersionGone.into()),
            Some(bytes) => {
                let part = bytes.slice(range.start as usize..range.end as usize);
                let body = futures_util::stream::iter([Ok(part)]);
                Ok(Fetched { range, total: bytes.len() as u64, etag: None, body: Box::pin(body) })
            }
        };
        std::future::ready(answer).boxed()
    }
}

/// Does something once when it is asked the time: in the middle of what asks.
#[derive(Debug)]
struct TrapClock(SeededClock, Mutex<Option<Trap>>);

struct Trap(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Trap {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Trap")
    }
}

impl Clock for TrapClock {
    fn wall(&self) -> std::time::SystemTime {
        let trap = self.1.lock().unwrap().take();
        if let Some(trap) = trap {
            trap.0();
        }
        self.0.wall()
    }
    fn random(&self, bytes: &mut [u8]) {
        self.0.random(bytes);
    }
}

/// What an engine would be to the file system.
pub(super) struct TestDrive {
    store: Arc<Store>,
    cache: Cache,
    staging: Staging,
    clock: Arc<dyn Clock>,
    id: DriveId,
    open: DashMap<NodeId, (u32, u32)>,
    quota: Mutex<Option<Quota>>,
    changes: Mutex<Vec<Change>>,
    listings: Mutex<Vec<NodeId>>,
    before_staging: Mutex<Option<Trap>>,
}

impl Drive for TestDrive {
    fn store(&self) -> &Arc<Store> {
        &self.store
    }
    fn cache(&self) -> &Cache {
        &self.cache
    }
    fn staging(&self) -> &Staging {
        let trap = self.before_staging.lock().unwrap().take();
        if let Some(trap) = trap {
            trap.0();
        }
        &self.staging
    }
    fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
    fn drive_id(&self) -> &DriveId {
        &self.id
    }
    fn drive_type(&self) -> DriveType {
        DriveType::Business
    }
    fn quota(&self) -> Option<Quota> {
        *self.quota.lock().unwrap()
    }
    fn content_key(&self, node: &Node) -> Option<ContentKey> {
        let view = node.content_view()?;
        Some(ContentKey { item: view.item.clone(), version: view.version.clone(), size: view.size() })
    }
    fn opened(&self, node: NodeId, writes: bool) {
        let mut counts = self.open.entry(node).or_default();
        *counts = (counts.0 + 1, counts.1 + u32::from(writes));
    }
    fn closed(&self, node: NodeId, writes: bool) -> bool {
        let mut counts = self.open.get_mut(&node).expect("opened before");
        counts.0 = counts.0.checked_sub(1).expect("opened as often");
        counts.1 = counts.1.checked_sub(u32::from(writes)).expect("as many writers");
        drop(counts);
        self.open.remove_if(&node, |_, counts| counts.0 == 0).is_some()
    }
    fn used(&self) {}
    fn is_open(&self, node: NodeId) -> bool {
        self.open.contains_key(&node)
    }
    fn has_writer(&self, node: NodeId) -> bool {
        self.open.get(&node).is_some_and(|counts| counts.1 > 0)
    }
    fn released(&self, node: NodeId) {
        let Ok(Some(row)) = self.store.node(node) else { return };
        let orphan = row.remote.is_none() && row.base.is_none();
        if let Some(local) = row.local.as_ref().filter(|local| local.deleted && (orphan || local.local_only))
        {
            self.store.write(Durability::Power, |tx| tx.remove(node)).unwrap();
            if let Some(content) = local.content {
                self.staging.unlink(StagingId(content)).unwrap();
            }
        }
    }
    fn synced(&self, _node: NodeId, _content: u64) {}
    fn nudge(&self) {}
    fn changed(&self, changes: &[Change]) {
        self.changes.lock().unwrap().extend_from_slice(changes);
    }
    async fn ensure_listed(&self, folder: NodeId) -> Result<(), VfsError> {
        self.listings.lock().unwrap().push(folder);
        tokio::task::yield_now().await;
        Ok(self.store.write(Durability::Process, |tx| tx.set_listed(folder, true))?)
    }
    async fn set_pinned(&self, node: NodeId, pinned: bool) -> Result<(), VfsError> {
        let change = |tx: &mut Tx<'_>| if pinned { tx.pin(node) } else { tx.unpin(node) };
        self.store.write(Durability::Process, change).map(drop)?;
        Ok(())
    }
    async fn settled(&self, node: NodeId) -> Result<(), VfsError> {
        assert!(!self.has_writer(node), "what a writer holds is never sent: this would wait for ever");
        Ok(())
    }
}

pub(super) struct World {
    _dir: tempfile::TempDir,
    pub vfs: Vfs<TestDrive>,
    service: Arc<Service>,
    clock: Arc<TrapClock>,
}

pub(super) const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1 };
const READ: OpenFlags = OpenFlags::READ;
const WRITE: OpenFlags = OpenFlags::READ_WRITE;
const TRUNCATE: OpenFlags = OpenFlags { truncate: true, ..WRITE };

impl World {
    pub fn new() -> Self {
        Self::with(VfsConfig::default())
    }

    pub fn with(config: VfsConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let service = Arc::new(Service::default());
        let clock = Arc::new(TrapClock(SeededClock::with_seed(1), Mutex::default()));
        let cache = CacheConfig {
            min_free_bytes: 0,
            block: 4096,
            blocking: Blocking::Inline,
            ..CacheConfig::new(dir.path().join("cache"))
        };
        let staging = StagingConfig {
            min_free_bytes: 0,
            blocking: Blocking::Inline,
            ..StagingConfig::new(dir.path().join("staging"))
        };
        let drive = TestDrive {
            store: Arc::new(Store::open(dir.path()).unwrap()),
            cache: Cache::open(cache, Disk::new(), clock.clone(), service.clone()).unwrap(),
            staging: Staging::open(staging, Disk::new()).unwrap(),
            clock: clock.clone(),
            id: DriveId::new("b!drive"),
            open: DashMap::new(),
            quota: Mutex::default(),
            changes: Mutex::default(),
            listings: Mutex::default(),
            before_staging: Mutex::default(),
        };
        drive.store.write(Durability::Process, |tx| tx.set_listed(NodeId::ROOT, true)).unwrap();
        Self { _dir: dir, vfs: Vfs::new(drive, config), service, clock }
    }

    /// As [`World::new`], over a kernel that takes every file.
    pub fn lending(lender: Arc<dyn Lender>) -> Self {
        let world = Self::new();
        Self { vfs: world.vfs.lending(lender), ..world }
    }

    /// The file system, and what must live as long.
    pub fn into_files(self) -> (Vfs<TestDrive>, tempfile::TempDir) {
        (self.vfs, self._dir)
    }

    pub fn drive(&self) -> &TestDrive {
        &self.vfs.drive
    }

    /// Does this the next time anything asks the time.
    pub fn when_asked_the_time(&self, act: impl FnOnce() + Send + 'static) {
        *self.clock.1.lock().unwrap() = Some(Trap(Box::new(act)));
    }

    /// Does this right before staged content is looked for.
    pub fn before_staging(&self, act: impl FnOnce() + Send + 'static) {
        *self.drive().before_staging.lock().unwrap() = Some(Trap(Box::new(act)));
    }

    pub fn row(&self, ino: Ino) -> Node {
        self.vfs.node(ino.node()).unwrap().as_ref().clone()
    }

    /// A file that the service has.
    pub fn sent(&self, parent: Ino, name: &str, item: &str, bytes: &[u8]) -> Ino {
        let view = self.upload(ItemId::new(item), Some(parent.node()), name, bytes);
        let id = self
            .drive()
            .store
            .write(Durability::Process, |tx| {
                let id = tx.insert(NodeKind::File)?;
                tx.set_remote(id, Some(&view))?;
                Ok(id)
            })
            .unwrap();
        Ino::new(0, id)
    }

    /// Gives the service another content of the item, and says what it then says of it.
    fn upload(&self, item: ItemId, parent: Option<NodeId>, name: &str, bytes: &[u8]) -> RemoteView {
        let mut contents = self.service.contents.lock().unwrap();
        let tag = format!("c{}", contents.len());
        contents.insert((item.clone(), tag.clone()), Bytes::copy_from_slice(bytes));
        RemoteView {
            item,
            parent,
            name: name.into(),
            version: ContentVersion {
                etag: Some(ETag::new(format!("e{}", contents.len()))),
                ctag: Some(CTag::new(tag)),
                size: Some(bytes.len() as u64),
                hashes: Hashes { quick_xor: Some(QuickXor::of(bytes)), ..Hashes::default() },
            },
            mtime: Some(Timestamp(5_000_000_000)),
            btime: Some(Timestamp(4_000_000_000)),
            malware: false,
            actual_size: None,
        }
    }

    /// Another client changes the content.
    pub fn edit_remotely(&self, ino: Ino, bytes: &[u8]) {
        let old = self.row(ino).remote.unwrap();
        let new = self.upload(old.item, old.parent, &old.name, bytes);
        let edit = |tx: &mut Tx<'_>| {
            tx.content_changed(ino.node());
            tx.set_remote(ino.node(), Some(&new))
        };
        self.drive().store.write(Durability::Process, edit).unwrap();
    }

    /// The engine seals the staged content; false if there is nothing to seal or somebody writes.
    pub async fn seal(&self, ino: Ino) -> bool {
        let Ok(Some(row)) = self.drive().store.node(ino.node()) else { return false };
        let Some(local) = row.local.clone().filter(|local| local.seal.is_none()) else { return false };
        let Some(content) = local.content else { return false };
        if self.drive().has_writer(row.id) {
            return false;
        }
        let file = self.drive().staging.load(StagingId(content)).unwrap().file;
        if file.base_kind().is_some() {
            // As the engine: attach what the change started from.
            body::Body::staged(self.drive(), &row, content).unwrap();
        }
        file.fill_from_base().await.unwrap();
        let sealed = file.seal().unwrap();
        let seal = Seal { size: sealed.size, blake3: sealed.blake3, quick_xor: sealed.quick_xor };
        let next = LocalView { seal: Some(seal), size: sealed.size, ..local };
        self.drive().store.write(Durability::Process, |tx| tx.set_local(row.id, Some(&next))).unwrap();
        true
    }

    /// The engine begins to send what is sealed.
    pub fn attempt(&self, ino: Ino) {
        let row = self.row(ino);
        let Some(local) = row.local.filter(|local| local.seal.is_some()) else { return };
        let attempt = Attempt {
            node: row.id,
            op: "{}".into(),
            content: local.content,
            sent_seq: 0,
            started_at: Timestamp(0),
            unknown: false,
        };
        self.drive().store.write(Durability::Process, |tx| tx.put_attempt(&attempt)).unwrap();
    }

    /// The engine has sent the sealed content, and wherever the node is.
    pub fn finish_upload(&self, ino: Ino) {
        let row = self.row(ino);
        let attempt = self.drive().store.attempts().unwrap().into_iter().find(|one| one.node == row.id);
        let (Some(content), Some(local)) = (attempt.and_then(|attempt| attempt.content), &row.local) else {
            return;
        };
        let staging = &self.drive().staging;
        let bytes = std::fs::read(staging.path(StagingId(content))).unwrap();
        let item =
            row.remote.as_ref().map_or_else(|| ItemId::new(format!("I{content}")), |view| view.item.clone());
        let view = self.upload(item, Some(local.parent), &local.name, &bytes);
        let key = ContentKey { item: view.item.clone(), version: view.version.clone(), size: view.size() };
        self.drive().cache.adopt(&key, &staging.path(StagingId(content))).unwrap();
        let is_all = local.content == Some(content) && !local.deleted;
        self.drive()
            .store
            .write(Durability::Power, |tx| {
                tx.remove_attempt(row.id)?;
                tx.set_remote(row.id, Some(&view))?;
                if is_all { tx.set_local(row.id, None) } else { tx.set_base(row.id, Some(&view)) }
            })
            .unwrap();
        if local.content != Some(content) || is_all {
            staging.unlink(StagingId(content)).unwrap();
        }
    }

    pub async fn create(&self, parent: Ino, name: &str) -> (Ino, Handle) {
        let (entry, opened) = self.vfs.create(CALLER, parent, OsStr::new(name), 0o644, WRITE).await.unwrap();
        (entry.attr.ino, opened.handle)
    }

    pub async fn mkdir(&self, parent: Ino, name: &str) -> Result<Ino, VfsError> {
        self.vfs.mkdir(CALLER, parent, OsStr::new(name), 0o755).await.map(|entry| entry.attr.ino)
    }

    pub async fn open(&self, ino: Ino, flags: OpenFlags) -> Handle {
        self.vfs.open(CALLER, ino, flags).await.unwrap().handle
    }

    pub async fn write(&self, (ino, handle): (Ino, Handle), offset: u64, bytes: &[u8]) {
        let taken = self.vfs.write(ino, handle, offset, Bytes::copy_from_slice(bytes)).await.unwrap();
        assert_eq!(taken as usize, bytes.len());
    }

    pub async fn close(&self, (ino, handle): (Ino, Handle)) {
        self.vfs.flush(ino, handle).await.unwrap();
        self.vfs.release(ino, handle).await;
    }

    /// Writes a whole file anew, as `echo > name` does.
    pub async fn put(&self, parent: Ino, name: &str, bytes: &[u8]) -> Ino {
        let flags = OpenFlags { truncate: true, ..WRITE };
        let (entry, opened) = self.vfs.create(CALLER, parent, OsStr::new(name), 0o644, flags).await.unwrap();
        self.write((entry.attr.ino, opened.handle), 0, bytes).await;
        self.close((entry.attr.ino, opened.handle)).await;
        entry.attr.ino
    }

    pub async fn read_all(&self, (ino, handle): (Ino, Handle)) -> Vec<u8> {
        self.vfs.read(ino, handle, 0, 1 << 20).await.unwrap().to_vec()
    }

    pub async fn cat(&self, ino: Ino) -> Vec<u8> {
        let handle = self.open(ino, READ).await;
        let bytes = self.read_all((ino, handle)).await;
        self.vfs.release(ino, handle).await;
        bytes
    }

    pub async fn find(&self, parent: Ino, name: &str) -> Option<Ino> {
        match self.vfs.lookup(CALLER, parent, OsStr::new(name)).await.unwrap() {
            Lookup::Found(entry) => Some(entry.attr.ino),
            Lookup::Absent(_) => None,
        }
    }

    pub async fn rename(&self, from: (Ino, &str), to: (Ino, &str)) -> Result<(), VfsError> {
        let (name, new_name) = (OsStr::new(from.1), OsStr::new(to.1));
        self.vfs.rename(CALLER, from.0, name, to.0, new_name, RenameMode::Replace).await
    }

    pub async fn unlink(&self, parent: Ino, name: &str) -> Result<(), VfsError> {
        self.vfs.unlink(CALLER, parent, OsStr::new(name)).await
    }

    /// What holds for every row when nothing is open.
    pub fn check_views(&self) {
        assert!(self.drive().open.is_empty());
        for node in self.drive().store.dirty().unwrap() {
            let local = node.local.as_ref().unwrap();
            if node.remote.is_none() && node.base.is_none() && node.kind == NodeKind::File {
                assert!(local.content.is_some(), "a file that was never sent has its bytes: {node:?}");
            }
            if node.remote.is_some() && !local.local_only {
                assert!(node.base.is_some(), "a changed item has a base: {node:?}");
            }
            assert!(!(local.local_only && node.remote.is_some()), "local-only is not sent: {node:?}");
        }
    }

    /// Staged content that no row names, and rows whose staged content is missing.
    pub fn check_staging(&self) {
        self.vfs.shutdown();
        let named: Vec<u64> = {
            let dirty = self.drive().store.dirty().unwrap();
            let mut named: Vec<u64> =
                dirty.iter().filter_map(|node| node.local.as_ref().and_then(|local| local.content)).collect();
            named.extend(self.drive().store.attempts().unwrap().iter().filter_map(|attempt| attempt.content));
            named
        };
        let found: Vec<u64> = self.drive().staging.list().unwrap().iter().map(|entry| entry.id.0).collect();
        for content in &named {
            assert!(found.contains(content), "staged content {content} is missing: {found:?}");
        }
        for content in &found {
            assert!(named.contains(content), "staged content {content} was left behind: {named:?}");
        }
    }
}

fn errno<T>(result: Result<T, VfsError>) -> i32 {
    result.map_or_else(|error| error.errno(), |_| 0)
}

#[test]
fn the_test_service_hashes_as_the_service_does() {
    assert_eq!(quick_xor_from_base64("AAAAAAAAAAAAAAAAAAAAAAAAAAA="), Some(QuickXor::of(b"")));
}
