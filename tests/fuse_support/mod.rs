//! A small file system in memory, and mounting it.
#![allow(dead_code, reason = "each test crate uses a part")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use onedrivefs::clock::SystemClock;
use onedrivefs::fuse::{
    self, Limits, Metrics, MountError, MountOptions, MountedSession, NotifyHandle, Op, Services,
};
use onedrivefs::model::{Ino, Timestamp};
use onedrivefs::vfs::{
    Allocate, Attr, Caller, DirEntry, Entry, FileType, Filesystem, Handle, Lookup, OpenFlags, Opened,
    OpenedDir, RenameMode, Seek, Served, SetAttr, SetTime, StatFs, VfsError, XattrMode,
};

pub const HOUR: Duration = Duration::from_secs(3600);

/// A file whose name begins so answers no read, a lookup of `unreachable` never comes back.
pub const STUCK: &str = "stuck";
pub const UNREACHABLE: &str = "unreachable";

#[derive(Clone, Debug)]
struct Node {
    parent: u64,
    name: OsString,
    attr: Attr,
    bytes: Vec<u8>,
    xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// Every node in one map, in the order of their making.
#[derive(Debug)]
pub struct Memory {
    nodes: Mutex<BTreeMap<u64, Node>>,
    /// How often each operation gives way before it answers, for comparing with spawned answers.
    pub always_waits: bool,
    pub keep_cache: bool,
}

type R<T> = Result<T, VfsError>;

impl Memory {
    pub fn new() -> Self {
        let memory = Self { nodes: Mutex::default(), always_waits: false, keep_cache: true };
        // SAFETY: neither call can fail or has conditions.
        let owner = unsafe { (libc::geteuid(), libc::getegid()) };
        let root = new_node(1, 1, OsStr::new(""), FileType::Directory, 0o755, owner);
        memory.nodes().insert(1, root);
        memory
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<u64, Node>> {
        self.nodes.lock().expect("no panics")
    }

    /// Puts a file into the root, as another client would.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Ino {
        let mut nodes = self.nodes();
        if let Some(node) = child(&mut nodes, 1, OsStr::new(name)) {
            node.bytes = bytes.to_vec();
            return node.attr.ino;
        }
        let ino = nodes.last_key_value().map_or(1, |(&last, _)| last) + 1;
        let mut node = new_node(ino, 1, OsStr::new(name), FileType::File, 0o644, (0, 0));
        node.bytes = bytes.to_vec();
        nodes.insert(ino, node);
        Ino(ino)
    }

    async fn give_way(&self) {
        if self.always_waits {
            tokio::task::yield_now().await;
        }
    }

    fn make(&self, caller: Caller, parent: Ino, name: &OsStr, kind: FileType, mode: u32) -> R<Entry> {
        let mut nodes = self.nodes();
        if child(&mut nodes, parent.0, name).is_some() {
            return Err(VfsError::Exists);
        }
        let ino = nodes.last_key_value().map_or(1, |(&last, _)| last) + 1;
        let node = new_node(ino, parent.0, name, kind, mode as u16, (caller.uid, caller.gid));
        let entry = entry(&node);
        nodes.insert(ino, node);
        Ok(entry)
    }

    fn remove(&self, parent: Ino, name: &OsStr) -> R<()> {
        let mut nodes = self.nodes();
        let ino = child(&mut nodes, parent.0, name).ok_or(VfsError::NotFound)?.attr.ino;
        if nodes.values().any(|node| node.parent == ino.0) {
            return Err(VfsError::NotEmpty);
        }
        nodes.remove(&ino.0);
        Ok(())
    }

    fn with<T>(&self, ino: Ino, change: impl FnOnce(&mut Node) -> T) -> R<T> {
        self.nodes().get_mut(&ino.0).map(change).ok_or(VfsError::Stale)
    }
}

fn new_node(ino: u64, parent: u64, name: &OsStr, kind: FileType, mode: u16, owner: (u32, u32)) -> Node {
    let time = Timestamp(1_700_000_000_000_000_000);
    let attr = Attr {
        ino: Ino(ino),
        size: 0,
        blocks: 0,
        mtime: time,
        atime: time,
        ctime: time,
        btime: time,
        file_type: kind,
        mode,
        nlink: 1,
        uid: owner.0,
        gid: owner.1,
    };
    Node { parent, name: name.to_owned(), attr, bytes: Vec::new(), xattrs: BTreeMap::new() }
}

fn child<'a>(nodes: &'a mut BTreeMap<u64, Node>, parent: u64, name: &OsStr) -> Option<&'a mut Node> {
    nodes.values_mut().find(|node| node.parent == parent && node.name == name && node.attr.ino.0 != 1)
}

fn attr(node: &Node) -> Attr {
    let size = node.bytes.len() as u64;
    Attr { size, blocks: size.div_ceil(512), ..node.attr }
}

fn entry(node: &Node) -> Entry {
    Entry { attr: attr(node), entry_ttl: HOUR, attr_ttl: HOUR }
}

impl Filesystem for Memory {
    async fn lookup(&self, _: Caller, parent: Ino, name: &OsStr) -> R<Lookup> {
        self.give_way().await;
        if name == UNREACHABLE {
            std::future::pending::<()>().await;
        }
        let found = child(&mut self.nodes(), parent.0, name).map(|node| entry(node));
        Ok(found.map_or(Lookup::Absent(HOUR), Lookup::Found))
    }

    async fn getattr(&self, ino: Ino, _: Option<Handle>) -> R<(Attr, Duration)> {
        self.give_way().await;
        self.with(ino, |node| (attr(node), HOUR))
    }

    async fn setattr(&self, _: Caller, ino: Ino, changes: SetAttr) -> R<(Attr, Duration)> {
        self.with(ino, |node| {
            node.attr.mode = changes.mode.unwrap_or(node.attr.mode);
            node.attr.uid = changes.uid.unwrap_or(node.attr.uid);
            node.attr.gid = changes.gid.unwrap_or(node.attr.gid);
            if let Some(size) = changes.size {
                node.bytes.resize(size as usize, 0);
            }
            if let Some(SetTime::At(time)) = changes.mtime {
                node.attr.mtime = time;
            }
            (attr(node), HOUR)
        })
    }

    async fn readlink(&self, ino: Ino) -> R<Vec<u8>> {
        self.with(ino, |node| node.bytes.clone())
    }

    async fn mkdir(&self, caller: Caller, parent: Ino, name: &OsStr, mode: u32) -> R<Entry> {
        self.make(caller, parent, name, FileType::Directory, mode)
    }

    async fn symlink(&self, caller: Caller, parent: Ino, name: &OsStr, target: &Path) -> R<Entry> {
        let made = self.make(caller, parent, name, FileType::Symlink, 0o777)?;
        self.with(made.attr.ino, |node| {
            node.bytes = target.as_os_str().as_bytes().to_vec();
            entry(node)
        })
    }

    async fn unlink(&self, _: Caller, parent: Ino, name: &OsStr) -> R<()> {
        self.remove(parent, name)
    }

    async fn rmdir(&self, _: Caller, parent: Ino, name: &OsStr) -> R<()> {
        self.remove(parent, name)
    }

    async fn rename(
        &self,
        _: Caller,
        from: Ino,
        name: &OsStr,
        to: Ino,
        new: &OsStr,
        mode: RenameMode,
    ) -> R<()> {
        let mut nodes = self.nodes();
        let source = child(&mut nodes, from.0, name).ok_or(VfsError::NotFound)?.attr.ino.0;
        let target = child(&mut nodes, to.0, new).map(|node| node.attr.ino.0);
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(VfsError::Exists),
            (RenameMode::Exchange, None) => return Err(VfsError::NotFound),
            (RenameMode::Exchange, Some(target)) => {
                let node = nodes.get_mut(&target).expect("it was found");
                (node.parent, node.name) = (from.0, name.to_owned());
            }
            (_, Some(target)) => drop(nodes.remove(&target)),
            (_, None) => {}
        }
        let node = nodes.get_mut(&source).expect("it was found");
        (node.parent, node.name) = (to.0, new.to_owned());
        Ok(())
    }

    async fn open(&self, _: Caller, ino: Ino, flags: OpenFlags) -> R<Opened> {
        self.give_way().await;
        self.with(ino, |node| {
            if flags.truncate {
                node.bytes.clear();
            }
            Opened { handle: Handle(ino.0), keep_cache: self.keep_cache, served: Served::FromPages }
        })
    }

    async fn create(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        flags: OpenFlags,
    ) -> R<(Entry, Opened)> {
        let made = self.make(caller, parent, name, FileType::File, mode)?;
        Ok((made, self.open(caller, made.attr.ino, flags).await?))
    }

    async fn read(&self, ino: Ino, _: Handle, offset: u64, size: u32) -> R<Bytes> {
        self.give_way().await;
        if self.with(ino, |node| node.name.as_bytes().starts_with(STUCK.as_bytes()))? {
            std::future::pending::<()>().await;
        }
        self.with(ino, |node| {
            let start = node.bytes.len().min(offset as usize);
            let end = node.bytes.len().min(start + size as usize);
            Bytes::copy_from_slice(&node.bytes[start..end])
        })
    }

    async fn write(&self, ino: Ino, _: Handle, offset: u64, data: Bytes) -> R<u32> {
        self.with(ino, |node| {
            let end = offset as usize + data.len();
            node.bytes.resize(node.bytes.len().max(end), 0);
            node.bytes[offset as usize..end].copy_from_slice(&data);
            data.len() as u32
        })
    }

    async fn append(&self, ino: Ino, handle: Handle, _: u64, data: Bytes) -> R<u32> {
        let end = self.with(ino, |node| node.bytes.len() as u64)?;
        self.write(ino, handle, end, data).await
    }

    async fn flush(&self, _: Ino, _: Handle) -> R<()> {
        Ok(())
    }

    async fn fsync(&self, _: Ino, _: Handle, _: bool) -> R<()> {
        Ok(())
    }

    async fn release(&self, _: Ino, _: Handle) {}

    async fn opendir(&self, ino: Ino) -> R<OpenedDir> {
        Ok(OpenedDir { handle: Handle(ino.0), cache: true })
    }

    async fn readdir(&self, ino: Ino, _: Handle, after: u64, max: usize) -> R<Vec<DirEntry>> {
        let nodes = self.nodes();
        let parent = nodes.get(&ino.0).ok_or(VfsError::Stale)?.parent;
        let dot = |name: &str, ino: u64, cookie| DirEntry {
            name: name.into(),
            ino: Ino(ino),
            file_type: FileType::Directory,
            cookie,
            entry: None,
        };
        let dots = [dot(".", ino.0, 1), dot("..", parent, 2)];
        let children = nodes.values().filter(|node| node.parent == ino.0 && node.attr.ino.0 != 1);
        let children = children.map(|node| DirEntry {
            name: node.name.clone(),
            ino: node.attr.ino,
            file_type: node.attr.file_type,
            cookie: node.attr.ino.0 + 2,
            entry: Some(entry(node)),
        });
        Ok(dots.into_iter().chain(children).filter(|entry| entry.cookie > after).take(max).collect())
    }

    async fn releasedir(&self, _: Ino, _: Handle) {}

    async fn fsyncdir(&self, _: Ino, _: Handle) -> R<()> {
        Ok(())
    }

    fn statfs(&self, _ino: Ino) -> StatFs {
        StatFs { total: 1 << 40, free: 1 << 39, files: 7, name_max: 255 }
    }

    async fn setxattr(&self, _: Caller, ino: Ino, name: &OsStr, value: &[u8], mode: XattrMode) -> R<()> {
        self.with(ino, |node| match (mode, node.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => Err(VfsError::Exists),
            (XattrMode::Replace, false) => Err(VfsError::NoAttribute),
            _ => {
                node.xattrs.insert(name.to_owned(), value.to_vec());
                Ok(())
            }
        })?
    }

    async fn getxattr(&self, ino: Ino, name: &OsStr) -> R<Vec<u8>> {
        self.with(ino, |node| node.xattrs.get(name).cloned().ok_or(VfsError::NoAttribute))?
    }

    async fn listxattr(&self, ino: Ino) -> R<Vec<u8>> {
        self.with(ino, |node| {
            node.xattrs.keys().flat_map(|name| name.clone().into_vec().into_iter().chain([0])).collect()
        })
    }

    async fn removexattr(&self, _: Caller, ino: Ino, name: &OsStr) -> R<()> {
        self.with(ino, |node| node.xattrs.remove(name).map(drop).ok_or(VfsError::NoAttribute))?
    }

    async fn fallocate(&self, ino: Ino, _: Handle, offset: u64, length: u64, what: Allocate) -> R<()> {
        let Allocate::Extend = what else { return Err(VfsError::NotSupported) };
        self.with(ino, |node| {
            node.bytes.resize(node.bytes.len().max((offset + length) as usize), 0);
        })
    }

    async fn lseek(&self, ino: Ino, _: Handle, offset: u64, whence: Seek) -> R<u64> {
        let size = self.with(ino, |node| node.bytes.len() as u64)?;
        if offset >= size {
            return Err(VfsError::NoData);
        }
        Ok(if whence == Seek::Data { offset } else { size })
    }

    async fn copy_file_range(
        &self,
        from: Ino,
        _: Handle,
        at: u64,
        to: Ino,
        _: Handle,
        into: u64,
        len: u64,
    ) -> R<u64> {
        let data = self.read(from, Handle(0), at, len.min(1 << 20) as u32).await?;
        self.write(to, Handle(0), into, data).await.map(u64::from)
    }
}

/// A mounted [`Memory`] with its own runtime; unmounts when dropped.
pub struct Mounted {
    pub files: Arc<Memory>,
    pub notify: NotifyHandle,
    pub metrics: Arc<Metrics>,
    pub session: MountedSession,
    pub runtime: tokio::runtime::Runtime,
}

impl Mounted {
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.session.mountpoint().join(name)
    }

    pub fn calls(&self, op: Op) -> u64 {
        self.metrics.snapshot().iter().find(|stats| stats.op == op).map_or(0, |stats| stats.calls)
    }
}

pub fn options(mountpoint: &Path) -> MountOptions {
    MountOptions {
        mountpoint: mountpoint.into(),
        source: "test, with\\ oddities".into(),
        ..MountOptions::default()
    }
}

pub fn mount_with(files: Memory, options: &MountOptions, limits: Limits) -> Result<Mounted, MountError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (files, notify, metrics) = (Arc::new(files), NotifyHandle::new(), Arc::<Metrics>::default());
    let services = Services {
        runtime: runtime.handle().clone(),
        clock: Arc::new(SystemClock),
        notify: notify.clone(),
        metrics: Arc::clone(&metrics),
        limits,
    };
    let session = fuse::mount(Arc::clone(&files), options, &services)?;
    Ok(Mounted { files, notify, metrics, session, runtime })
}

/// Mounts on a directory of its own, or says why not here: only where `CI` is set is that a failure.
pub fn mounted() -> Option<(tempfile::TempDir, Mounted)> {
    if !can_mount() {
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mounted = mount_with(Memory::new(), &options(dir.path()), Limits::default()).expect("it mounts");
    Some((dir, mounted))
}

pub fn can_mount() -> bool {
    let possible = std::fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(possible || !in_ci, "/dev/fuse cannot be opened, and CI must run the mounted tests");
    if !possible {
        eprintln!("LEFT OUT: /dev/fuse cannot be opened here");
    }
    possible
}
