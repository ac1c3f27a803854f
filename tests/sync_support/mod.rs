//! One machine: the whole program but the kernel, over the emulator, in one process on a paused clock.
#![allow(dead_code, reason = "each test crate uses a part")]

pub mod transport;

use std::ffi::OsStr;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use onedrivefs::auth::{StaticToken, TokenSource};
use onedrivefs::clock::{Clock, SeededClock};
use onedrivefs::content::{Blocking, Cache, CacheConfig, Staging, StagingConfig};
use onedrivefs::disk::{Call, Disk, DiskHook};
use onedrivefs::emulator::{Control, Edit, Emulator, EmulatorConfig, Flavour};
use onedrivefs::engine::{ChangeSink, Engine, EngineConfig, GraphFetch, NoSink, Parts, SharedFetch};
use onedrivefs::graph::transport::Transport;
use onedrivefs::graph::{Graph, GraphConfig, LimiterConfig};
use onedrivefs::model::{Drive, Ino, NodeId};
use onedrivefs::store::{StateLock, Store};
use onedrivefs::vfs::{
    Caller, Filesystem, Handle, Lookup, OpenFlags, RenameMode, SetAttr, SetTime, Vfs, VfsConfig, VfsError,
};
use serde_json::Value;
use transport::InProcess;

pub const ME: Caller = Caller { uid: 0, gid: 0, pid: 1 };

/// The service, and what outlives a machine's crash.
pub struct Service {
    emulator: Emulator,
    pub control: Control,
    clock: Arc<dyn Clock>,
    disk: tempfile::TempDir,
    drive: OnceLock<Drive>,
}

/// How a machine is made.
pub struct Setup {
    pub engine: EngineConfig,
    pub vfs: VfsConfig,
    pub cache: CacheConfig,
    pub staging: StagingConfig,
    pub disk: Disk,
    pub sink: Arc<dyn ChangeSink>,
    pub transport: Arc<dyn Transport>,
    pub tokens: Arc<dyn TokenSource>,
}

impl Service {
    pub fn new(flavour: Flavour) -> Self {
        Self::on(flavour, tempfile::tempdir().expect("a directory"))
    }

    /// With the machine's state in this directory.
    pub fn on(flavour: Flavour, disk: tempfile::TempDir) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SeededClock::with_seed(1));
        let config = EmulatorConfig { flavour, clock: Arc::clone(&clock), ..EmulatorConfig::default() };
        Self::of(config, clock, disk)
    }

    /// A service whose machine has its state in `disk`.
    pub fn of(config: EmulatorConfig, clock: Arc<dyn Clock>, disk: tempfile::TempDir) -> Self {
        let emulator = Emulator::new(config).expect("an emulator");
        let control = emulator.control();
        Self { emulator, control, clock, disk, drive: OnceLock::new() }
    }

    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// The machine's state is in another directory from now on.
    pub fn move_to(&mut self, disk: tempfile::TempDir) {
        self.disk = disk;
    }

    /// The directory of the machine's state; `cache` below it holds what may be deleted.
    #[allow(dead_code, reason = "used by some of the crates that share this")]
    pub fn dir(&self) -> &Path {
        self.disk.path()
    }

    /// A machine on this service's disk: what a former one left is found there.
    pub async fn machine(&self) -> Machine {
        self.machine_with(|_, _| {}).await
    }

    pub async fn machine_with(&self, change: impl FnOnce(&mut EngineConfig, &mut VfsConfig)) -> Machine {
        self.machine_of(|setup| change(&mut setup.engine, &mut setup.vfs)).await
    }

    /// A machine that knows the drive, and looks at it again only when it is told to.
    pub async fn quiet_machine(&self) -> Machine {
        let machine = self.machine_with(|engine, _| engine.poll = Duration::from_secs(3600)).await;
        machine.look().await;
        machine
    }

    pub async fn machine_of(&self, change: impl FnOnce(&mut Setup)) -> Machine {
        self.try_machine_of(change)
            .await
            .unwrap_or_else(|error| panic!("the machine does not start: {error}"))
    }

    /// As [`Service::machine_of`]; what hinders the start is told.
    pub async fn try_machine_of(&self, change: impl FnOnce(&mut Setup)) -> Result<Machine, String> {
        let dir = self.disk.path();
        let mut setup = Setup {
            // Tests that count requests, or that look when they say so, are not told of changes unless they ask for it.
            engine: EngineConfig { host: "box".into(), push: false, ..EngineConfig::default() },
            vfs: VfsConfig::default(),
            cache: CacheConfig { min_free_bytes: 0, ..CacheConfig::new(dir.join("cache")) },
            staging: StagingConfig::new(dir.join("staging")),
            disk: Disk::new(),
            sink: Arc::new(NoSink),
            transport: Arc::new(InProcess(self.emulator.clone())),
            tokens: Arc::new(StaticToken::new("token")),
        };
        change(&mut setup);
        let graph_config = GraphConfig {
            graph_url: "http://localhost".parse().expect("an address"),
            limits: LimiterConfig { rate_per_s: 1000.0, burst: 100_000.0, ..LimiterConfig::default() },
            ..GraphConfig::default()
        };
        let clock = Arc::clone(&self.clock);
        let graph = Graph::new(graph_config, setup.transport, setup.tokens, clock).expect("a client");
        let drive = self.drive(&graph).await;
        let lock = StateLock::take(dir).expect("the state is free");
        let told = |error: &dyn std::error::Error| error.to_string();
        let store = Arc::new(Store::open_on(dir, setup.disk.clone()).map_err(|error| told(&error))?);
        let fetch = GraphFetch::new(graph.clone(), drive.id.clone());
        let reads = Arc::new(SharedFetch(fetch.clone()));
        let cache = Cache::open(setup.cache, setup.disk.clone(), Arc::clone(&self.clock), reads)
            .map_err(|error| told(&error))?;
        let staging = Staging::open(setup.staging, setup.disk).map_err(|error| told(&error))?;
        let engine = Engine::new(Parts {
            store,
            cache,
            staging,
            graph,
            fetch,
            clock: Arc::clone(&self.clock),
            drive,
            sink: setup.sink,
            blocking: Blocking::Inline,
            config: setup.engine,
        });
        engine.recover().map_err(|error| told(&error))?;
        engine.start();
        let files = Arc::new(Vfs::new(engine.clone(), setup.vfs));
        Ok(Machine { engine, files, _lock: lock })
    }

    /// The drive, as a machine remembers it once it was found.
    async fn drive(&self, graph: &Graph) -> Drive {
        if let Some(drive) = self.drive.get() {
            return drive.clone();
        }
        let drive = graph.own_drive().await.expect("the user's drive");
        self.drive.get_or_init(|| drive).clone()
    }

    /// Paths of all files on the service with their contents, and of folders with none.
    pub fn tree(&self) -> Vec<(String, Option<String>)> {
        let truth = self.control.truth();
        let mut found = Vec::new();
        for item in items(&truth) {
            let path = item["path"].as_str().expect("a path").trim_start_matches('/').to_owned();
            if path.is_empty() {
                continue;
            }
            let content = self.control.content(&path);
            found.push((path, content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())));
        }
        found.sort();
        found
    }

    pub fn item(&self, path: &str) -> Value {
        let truth = self.control.truth();
        let wanted = format!("/{path}");
        let found = items(&truth).find(|item| item["path"].as_str() == Some(&wanted)).cloned();
        found.unwrap_or_else(|| panic!("{path} is not on the service: {truth:#}"))
    }

    pub fn write_elsewhere(&self, path: &str, content: &str) {
        self.edit(Edit::Write { path: path.into(), content: content.into() });
    }

    pub fn edit(&self, edit: Edit) {
        self.control.edit_as_other(&edit).expect("another client may do this");
    }

    /// Requests that match since the log was reset.
    pub fn requests(&self, method: &str) -> usize {
        self.control.requests().iter().filter(|record| record.method == method).count()
    }
}

fn items(truth: &Value) -> impl Iterator<Item = &Value> {
    truth["drives"][0]["items"].as_array().expect("items").iter()
}

/// One machine with the drive mounted, as far as the kernel's side of it.
pub struct Machine {
    pub engine: Engine,
    pub files: Arc<Vfs<Engine>>,
    _lock: StateLock,
}

impl Machine {
    /// The node at `path`.
    pub async fn find(&self, path: &str) -> Result<Ino, VfsError> {
        let mut at = Ino::ROOT;
        for part in Path::new(path).components() {
            let Component::Normal(name) = part else { continue };
            at = match self.files.lookup(ME, at, name).await? {
                Lookup::Found(entry) => entry.attr.ino,
                Lookup::Absent(_) => return Err(VfsError::NotFound),
            };
        }
        Ok(at)
    }

    async fn split<'a>(&self, path: &'a str) -> Result<(Ino, &'a OsStr), VfsError> {
        let path = Path::new(path);
        let parent = path.parent().and_then(Path::to_str).unwrap_or_default();
        Ok((self.find(parent).await?, path.file_name().expect("a name")))
    }

    pub async fn open(&self, path: &str, flags: OpenFlags) -> Result<(Ino, Handle), VfsError> {
        let (parent, name) = self.split(path).await?;
        match self.files.lookup(ME, parent, name).await? {
            Lookup::Found(entry) => {
                let opened = self.files.open(ME, entry.attr.ino, flags).await?;
                Ok((entry.attr.ino, opened.handle))
            }
            Lookup::Absent(_) if flags.write => {
                let (entry, opened) = self.files.create(ME, parent, name, 0o644, flags).await?;
                Ok((entry.attr.ino, opened.handle))
            }
            Lookup::Absent(_) => Err(VfsError::NotFound),
        }
    }

    pub async fn close(&self, (ino, handle): (Ino, Handle)) -> Result<(), VfsError> {
        let flushed = self.files.flush(ino, handle).await;
        self.files.release(ino, handle).await;
        flushed
    }

    /// As `echo content > path`.
    pub async fn write(&self, path: &str, content: &str) {
        let flags = OpenFlags { write: true, truncate: true, ..OpenFlags::default() };
        let open = self.open(path, flags).await.expect("open for writing");
        self.files.write(open.0, open.1, 0, content.as_bytes().to_vec().into()).await.expect("write");
        self.close(open).await.expect("close");
    }

    /// As `cat path`.
    pub async fn read(&self, path: &str) -> Result<String, VfsError> {
        let open = self.open(path, OpenFlags::READ).await?;
        let bytes = self.read_all(open).await;
        self.close(open).await?;
        Ok(String::from_utf8_lossy(&bytes?).into_owned())
    }

    async fn read_all(&self, (ino, handle): (Ino, Handle)) -> Result<Vec<u8>, VfsError> {
        let size = self.files.getattr(ino, Some(handle)).await?.0.size;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            let part = self.files.read(ino, handle, bytes.len() as u64, 1 << 20).await?;
            if part.is_empty() {
                break;
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }

    pub async fn mkdir(&self, path: &str) -> Result<Ino, VfsError> {
        let (parent, name) = self.split(path).await?;
        Ok(self.files.mkdir(ME, parent, name, 0o755).await?.attr.ino)
    }

    pub async fn unlink(&self, path: &str) -> Result<(), VfsError> {
        let (parent, name) = self.split(path).await?;
        self.files.unlink(ME, parent, name).await
    }

    pub async fn rmdir(&self, path: &str) -> Result<(), VfsError> {
        let (parent, name) = self.split(path).await?;
        self.files.rmdir(ME, parent, name).await
    }

    pub async fn rename(&self, from: &str, to: &str) -> Result<(), VfsError> {
        self.rename_as(from, to, RenameMode::Replace).await
    }

    pub async fn rename_as(&self, from: &str, to: &str, mode: RenameMode) -> Result<(), VfsError> {
        let (from_dir, from_name) = self.split(from).await?;
        let (to_dir, to_name) = self.split(to).await?;
        self.files.rename(ME, from_dir, from_name, to_dir, to_name, mode).await
    }

    pub async fn set_mtime(&self, path: &str, seconds: i64) -> Result<(), VfsError> {
        let ino = self.find(path).await?;
        let at = onedrivefs::model::Timestamp::from_unix(seconds, 0);
        self.files.setattr(ME, ino, SetAttr { mtime: Some(SetTime::At(at)), ..SetAttr::default() }).await?;
        Ok(())
    }

    /// Names in a folder, sorted.
    pub async fn list(&self, path: &str) -> Vec<String> {
        let ino = self.find(path).await.expect("the folder");
        let dir = self.files.opendir(ino).await.expect("opendir");
        let mut names = Vec::new();
        let mut after = 0;
        loop {
            let page = self.files.readdir(ino, dir.handle, after, 100).await.expect("readdir");
            let Some(last) = page.last() else { break };
            after = last.cookie;
            names.extend(page.iter().map(|entry| entry.name.to_string_lossy().into_owned()));
        }
        self.files.releasedir(ino, dir.handle).await;
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }

    /// Waits until nothing is unsent.
    pub async fn sync(&self) {
        let limit = Duration::from_secs(3600);
        let left = self.engine.sync(NodeId::ROOT, Some(limit), |_| {}).await.expect("in time");
        assert_eq!(left.pending, 0, "{:?}", self.engine.status().await.expect("a status").waiting);
    }

    /// Waits until a look at the service that begins now has ended.
    pub async fn look(&self) {
        let before = self.engine.looks();
        self.engine.refresh();
        while self.engine.looks() == before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The machine dies: nothing is written, sent or closed any more.
    pub fn crash(self) {
        drop(self);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.engine.stop();
    }
}

/// The store's database as its last sync left it: what a power cut leaves.
pub struct Durable(Mutex<tempfile::TempDir>);

impl Durable {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(tempfile::tempdir().expect("a directory"))))
    }

    /// Opens it as the next start would.
    pub fn store(&self) -> Store {
        Store::open(self.0.lock().expect("no panics").path()).expect("it opens")
    }
}

impl DiskHook for Durable {
    fn about_to(&self, path: &Path, _: Call<'_>) {
        if path.ends_with("store.sqlite-wal") {
            for file in [path.with_file_name("store.sqlite"), path.to_owned()] {
                let to = self.0.lock().expect("no panics").path().join(file.file_name().expect("a file"));
                std::fs::copy(file, to).expect("copied");
            }
        }
    }
}
