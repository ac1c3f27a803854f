//! Builds the concrete things of a drive and wires them. Real and demo assembly are the same code but for the
//! service's address and the credentials.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DaemonError, exit, signin};
use crate::auth::{StaticToken, TokenSource};
use crate::clock::{Clock, SystemClock};
use crate::config::{MountSettings, usual_cache_size};
use crate::content::{Blocking, Cache, CacheConfig, Staging, StagingConfig};
use crate::disk::Disk;
use crate::engine::{ChangeSink, Engine, EngineConfig, GraphFetch, Parts, SharedFetch};
use crate::fuse::{NotifyHandle, Passthrough};
use crate::graph::{
    DriveAddress, FindError, FoundDrive, Graph, GraphConfig, GraphError, HttpTransport, LimiterConfig,
};
use crate::model::{Drive, DriveId, DriveType, Ino, ItemId, NodeId, names};
use crate::store::{Change, StateLock, Store, StoreError};
use crate::vfs::forest::Entrances;
use crate::vfs::{Invalidation, Kept, Vfs, VfsConfig};

/// What all drives of a mount have in common.
pub(super) struct Shared {
    pub settings: MountSettings,
    pub graph: Graph,
    pub clock: Arc<dyn Clock>,
    pub notify: NotifyHandle,
    /// Where drives make files known to the kernel.
    pub passthrough: Passthrough,
    /// What the kernel knows the roots of drives by.
    pub entrances: Arc<Entrances>,
    /// Where the states of the account's drives are.
    pub account_dir: PathBuf,
    /// Held while a state's lock is taken: who only looks into one is not in the way of who opens it.
    looking: Mutex<()>,
}

impl Shared {
    pub fn new(settings: &MountSettings, tokens: Arc<dyn TokenSource>) -> Result<Self, DaemonError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let graph = graph(settings, tokens, &clock)?;
        let account_dir = settings.state_dir.join(&settings.account);
        make_private(&account_dir)?;
        Ok(Self {
            settings: settings.clone(),
            graph,
            clock,
            notify: NotifyHandle::new(),
            passthrough: Passthrough::default(),
            entrances: Arc::default(),
            account_dir,
            looking: Mutex::default(),
        })
    }

    /// Where the state of a drive, or of a folder of one, is.
    pub fn state_of(&self, drive: &DriveId, top: Option<&ItemId>) -> PathBuf {
        self.account_dir.join(state_name(drive, top))
    }
}

/// A drive, or a folder of one, that is ready to be followed. Dropped in this order.
pub(super) struct Planted {
    pub files: Arc<Vfs<Engine>>,
    /// Held until all else is gone.
    pub lock: StateLock,
}

/// Puts together the drive, or the folder `top` of it, that `slot` shows. Asks the service for nothing; blocks for the
/// disk.
pub(super) fn plant(
    shared: &Shared,
    slot: u16,
    drive: Drive,
    top: Option<ItemId>,
) -> Result<Planted, DaemonError> {
    let settings = &shared.settings;
    let name = state_name(&drive.id, top.as_ref());
    let state = shared.account_dir.join(&name);
    make_private(&state)?;
    let lock = {
        let _one = shared.looking.lock().unwrap_or_else(PoisonError::into_inner);
        super::yielding::lock(&state)?
    };
    let store = Arc::new(open_store(&state, &drive, top.as_ref())?);
    store.limit_memory(settings.metadata_memory);
    let disk = Disk::new();
    let fetch = GraphFetch::new(shared.graph.clone(), drive.id.clone());
    let cache_dir = settings.cache_dir.join(&settings.account).join(&name);
    make_private(&cache_dir)?;
    let cache = Cache::open(
        CacheConfig {
            max_bytes: cache_size(settings, &disk, &cache_dir)?,
            min_free_bytes: settings.min_free,
            ..CacheConfig::new(&cache_dir)
        },
        disk.clone(),
        Arc::clone(&shared.clock),
        Arc::new(SharedFetch(fetch.clone())),
    )
    .map_err(|error| disk_error(&cache_dir, &error))?;
    let staging_dir = state.join("staging");
    let staging = Staging::open(StagingConfig::new(&staging_dir), disk)
        .map_err(|error| disk_error(&staging_dir, &error))?;
    let sink = Arc::new(KernelSink {
        slot,
        notify: shared.notify.clone(),
        entrances: Arc::clone(&shared.entrances),
        store: Arc::clone(&store),
    });
    let engine = Engine::new(Parts {
        store,
        cache,
        staging,
        graph: shared.graph.clone(),
        fetch,
        clock: Arc::clone(&shared.clock),
        drive,
        sink,
        blocking: Blocking::Auto,
        config: engine_config(settings, top),
    });
    engine.recover().map_err(|error| DaemonError {
        what: state.display().to_string(),
        why: error.to_string(),
        remedy: "keep the directory and report this; 'onedrivefs rescue DIR' saves what is unsent".into(),
        exit_code: exit::FAILURE,
    })?;
    let files = Vfs::new(engine, vfs_config(settings, slot)).lending(Arc::new(shared.passthrough.clone()));
    let files = Arc::new(files);
    Ok(Planted { files, lock })
}

/// The bound of the cache in `dir`.
fn cache_size(settings: &MountSettings, disk: &Disk, dir: &Path) -> Result<u64, DaemonError> {
    match settings.cache_size {
        Some(size) => Ok(size),
        None => disk.total_bytes(dir).map(usual_cache_size).map_err(|error| disk_error(dir, &error)),
    }
}

/// Whether something in this state is to be sent, or kept here. Asks nobody; false where another daemon has it.
pub(super) fn is_unfinished(shared: &Shared, state: &Path) -> bool {
    if !state.join("store.sqlite").is_file() {
        return false;
    }
    let _one = shared.looking.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(_lock) = StateLock::take(state) else { return false };
    let counted = Store::open(state).and_then(|store| Ok((store.dirty_counts()?, store.has_pins())));
    match counted {
        Ok((counts, has_pins)) => counts.pending > 0 || has_pins,
        // Whoever opens it says what is wrong.
        Err(_) => true,
    }
}

fn engine_config(settings: &MountSettings, top: Option<ItemId>) -> EngineConfig {
    EngineConfig {
        settle: settings.settle,
        poll: settings.poll_interval,
        push: settings.push,
        sync_timeout: settings.sync_timeout,
        host: host_name(),
        utc_offset: utc_offset(),
        read_only: settings.read_only,
        confirm_above: settings.confirm_above,
        top,
        ..EngineConfig::default()
    }
}

pub(super) fn vfs_config(settings: &MountSettings, slot: u16) -> VfsConfig {
    VfsConfig {
        slot,
        uid: settings.uid,
        gid: settings.gid,
        file_mode: settings.file_mode,
        dir_mode: settings.dir_mode,
        read_only: settings.read_only,
        sync: settings.sync,
        case_insensitive: settings.case_insensitive,
        deny_readers: settings.deny_readers.clone(),
        ..VfsConfig::default()
    }
    .settled()
}

/// Who the program is to the service: a token from the environment, or else the account's sign-in, which the settings
/// follow then.
pub(super) fn credentials(settings: &mut MountSettings) -> Result<Arc<dyn TokenSource>, DaemonError> {
    match std::env::var("ONEDRIVEFS_ACCESS_TOKEN") {
        Ok(token) if !token.trim().is_empty() => Ok(Arc::new(StaticToken::new(token.trim()))),
        _ => signin::tokens(settings),
    }
}

pub(super) fn graph(
    settings: &MountSettings,
    tokens: Arc<dyn TokenSource>,
    clock: &Arc<dyn Clock>,
) -> Result<Graph, DaemonError> {
    let config = GraphConfig {
        graph_url: settings.graph_url.clone(),
        limits: LimiterConfig {
            rate_per_s: f64::from(settings.request_rate),
            burst: f64::from(settings.request_burst),
            ..LimiterConfig::default()
        },
        ..GraphConfig::default()
    };
    let failed = |why: String| DaemonError {
        what: settings.graph_url.to_string(),
        why,
        remedy: "give --graph-url an https address (http only for this machine)".into(),
        exit_code: exit::USAGE,
    };
    let transport = HttpTransport::new().map_err(|error| failed(error.to_string()))?;
    Graph::new(config, Arc::new(transport), tokens, Arc::clone(clock))
        .map_err(|error| failed(error.to_string()))
}

/// What is remembered of a drive, so that a later mount needs no network to find its state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KnownDrive {
    pub id: DriveId,
    pub drive_type: DriveType,
    pub name: String,
    /// The folder of it that is meant; none: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<ItemId>,
}

/// Why it is not known which drive is meant.
#[derive(Debug)]
pub(super) enum NotFound {
    /// The service did not say, or refuses.
    Service(FindError),
    /// Something here is wrong.
    Here(DaemonError),
}

/// Where it is remembered which name means which drive of an account.
pub(super) fn known_drives(account_dir: &Path) -> PathBuf {
    account_dir.join("drives.json")
}

/// What is remembered there; nothing where it cannot be read.
pub(super) fn read_known(path: &Path) -> BTreeMap<String, KnownDrive> {
    fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn known_as(settings: &MountSettings, name: &str) -> String {
    format!("{} {name}", settings.graph_url)
}

/// What somebody calls `name`, where the service said so before.
pub(super) fn known_drive(settings: &MountSettings, name: &str) -> Option<FoundDrive> {
    let path = known_drives(&settings.state_dir.join(&settings.account));
    let known = read_known(&path).remove(&known_as(settings, name))?;
    let KnownDrive { id, drive_type, name, folder } = known;
    Some(FoundDrive { drive: Drive::bare(id, drive_type, name), folder })
}

/// What somebody calls `name`; asks the service only where that was never done before. A folder that is renamed or moved
/// afterwards is the same folder.
pub(super) async fn find_drive(shared: &Shared, name: &str) -> Result<FoundDrive, NotFound> {
    let address: DriveAddress = name.parse().map_err(|_| NotFound::Here(no_drive(name)))?;
    if let Some(known) = known_drive(&shared.settings, name) {
        return Ok(known);
    }
    let found = shared.graph.find(&address).await.map_err(NotFound::Service)?;
    let path = known_drives(&shared.account_dir);
    let mut known = read_known(&path);
    let FoundDrive { drive, folder } = &found;
    let entry = KnownDrive {
        id: drive.id.clone(),
        drive_type: drive.drive_type,
        name: drive.name.clone(),
        folder: folder.clone(),
    };
    known.insert(known_as(&shared.settings, name), entry);
    let text = serde_json::to_vec_pretty(&known).expect("plain data is always written");
    replace_file(&path, &text).map_err(|error| NotFound::Here(disk_error(&path, &error)))?;
    Ok(found)
}

/// What is given for a drive is none.
pub(super) fn no_drive(name: &str) -> DaemonError {
    DaemonError {
        what: name.to_owned(),
        why: "this is not a drive".into(),
        remedy: "give 'me', 'all', a drive's id, an address of the browser, a sharing link, \
                 HOST:/sites/NAME[:LIBRARY], USER@DOMAIN, group:NAME, or several of these"
            .into(),
        exit_code: exit::USAGE,
    }
}

/// Written aside, synced, and put in place at once.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    fs::File::open(dir)?.sync_all()
}

/// A drive's id as a directory name: business ids are case-sensitive and safe, but for what is not a name.
pub(super) fn directory_name(id: &DriveId) -> String {
    safe_name(&id.canonical())
}

fn safe_name(id: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "!-_.".contains(c) { c } else { '_' };
    let name: String = id.chars().map(safe).collect();
    if name.starts_with('.') || name.is_empty() { format!("_{name}") } else { name }
}

/// What the state of a drive, or of a folder of one, is called.
pub(super) fn state_name(drive: &DriveId, top: Option<&ItemId>) -> String {
    match top {
        None => directory_name(drive),
        // Item ids differ in case, and may hold what is not for names.
        Some(top) => format!("{}@{}", directory_name(drive), safe_name(top.as_str())),
    }
}

fn open_store(state: &Path, drive: &Drive, top: Option<&ItemId>) -> Result<Store, DaemonError> {
    let store = Store::open(state).map_err(|error| store_error(state, &error))?;
    let id = match top {
        None => drive.id.canonical(),
        Some(top) => format!("{}@{top}", drive.id.canonical()),
    };
    let bound = store.write(crate::store::Durability::Process, |tx| match tx.meta("drive")? {
        Some(found) if found != id => Err(StoreError::OtherDrive { found }),
        Some(_) => Ok(()),
        None => tx.set_meta("drive", Some(&id)),
    });
    bound.map_err(|error| store_error(state, &error))?;
    store.keep_ballast();
    Ok(store)
}

pub(super) fn make_private(dir: &Path) -> Result<(), DaemonError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| disk_error(dir, &error))
}

pub(super) fn disk_error(path: &Path, error: &dyn std::fmt::Display) -> DaemonError {
    DaemonError {
        what: path.display().to_string(),
        why: error.to_string(),
        remedy: "give --state-dir and --cache-dir directories that can be written".into(),
        exit_code: exit::FAILURE,
    }
}

pub(super) fn store_error(path: &Path, error: &StoreError) -> DaemonError {
    let (remedy, exit_code) = match error {
        StoreError::InUse { .. } => {
            ("unmount it there first: onedrivefs status shows where".to_owned(), exit::BUSY)
        }
        StoreError::Newer { .. } => {
            let remedy = "use the version of onedrivefs that wrote it, or a later one; 'onedrivefs rescue DIR' \
                          saves what is unsent";
            (remedy.into(), exit::FAILURE)
        }
        StoreError::Foreign | StoreError::OtherDrive { .. } => {
            ("give another --state-dir".to_owned(), exit::USAGE)
        }
        StoreError::Database(_) | StoreError::Io { .. } | StoreError::NoNode(_) => (
            "keep the directory; 'onedrivefs rescue DIR' saves what is unsent, then give another --state-dir"
                .into(),
            exit::FAILURE,
        ),
    };
    DaemonError { what: path.display().to_string(), why: error.to_string(), remedy, exit_code }
}

/// Why what was asked for cannot be mounted.
pub(super) fn find_error(settings: &MountSettings, error: &FindError) -> DaemonError {
    let (remedy, exit_code) = match error {
        FindError::Service(error) => return service_error(settings, error),
        FindError::Missing { .. } => {
            ("check how it is written; 'onedrivefs drives' lists what the account reaches", exit::NO_DRIVE)
        }
        FindError::Refused { is_group: true, .. } => {
            ("sign in with --scopes that include Group.Read.All, or give the group's site", exit::NO_ACCESS)
        }
        FindError::Refused { .. } => ("ask its owner for access, or use another --account", exit::NO_ACCESS),
        FindError::Link { .. } => ("open it in a browser, or ask for a new one", exit::NO_LINK),
        FindError::NoFolder { .. } => ("give a drive or a folder", exit::USAGE),
        FindError::Ambiguous { .. } => ("give the group's id or mail address", exit::USAGE),
    };
    DaemonError {
        what: format!("drive '{}'", DriveAddress::shown(&settings.drive)),
        why: error.to_string(),
        remedy: remedy.into(),
        exit_code,
    }
}

pub(super) fn service_error(settings: &MountSettings, error: &GraphError) -> DaemonError {
    let (remedy, exit_code) = match error {
        GraphError::SignedOut { .. } => ("run 'onedrivefs login'", exit::SIGNED_OUT),
        GraphError::NotFound { .. } => ("check the name of the drive, site or library", exit::NO_DRIVE),
        GraphError::AccessDenied { .. } => ("ask for access to this drive", exit::NO_ACCESS),
        _ => ("check the network and try again", exit::SERVICE),
    };
    DaemonError {
        what: format!("drive '{}'", DriveAddress::shown(&settings.drive)),
        why: error.to_string(),
        remedy: remedy.into(),
        exit_code,
    }
}

fn host_name() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let short = text.trim().split('.').next().unwrap_or_default();
    if short.is_empty() { "localhost".into() } else { short.into() }
}

fn utc_offset() -> i32 {
    jiff::Zoned::now().offset().seconds()
}

/// Turns what the engine changed into what the kernel must forget.
struct KernelSink {
    slot: u16,
    notify: NotifyHandle,
    entrances: Arc<Entrances>,
    store: Arc<Store>,
}

impl ChangeSink for KernelSink {
    fn changed(&self, changes: &[Change]) {
        for change in changes {
            let (Change::Entry { parent: id, .. } | Change::Node { id, .. }) = change;
            // The root of a drive is known by each shortcut to it too.
            for ino in self.entrances.of(self.slot, *id) {
                if self.notify.may_know(ino) {
                    self.notify.send(self.told(change, ino));
                }
            }
        }
    }
}

impl KernelSink {
    /// What the kernel is told of a change of what it knows as `ino`.
    fn told(&self, change: &Change, ino: Ino) -> Invalidation {
        match change {
            Change::Entry { name, .. } => Invalidation::Entry { parent: ino, name: names::to_local(name) },
            Change::Node { id, content } => {
                Invalidation::Inode { ino, kept: self.kept(*id, *content), within: self.parent(*id) }
            }
        }
    }

    fn kept(&self, id: NodeId, content: bool) -> Kept {
        match self.store.node(id) {
            Ok(Some(node)) if node.kind.is_directory() => Kept::Listing,
            _ if content => Kept::Content,
            _ => Kept::Attributes,
        }
    }

    /// The directory that a lookup of it would have been in; of several, the last one.
    fn parent(&self, id: NodeId) -> Option<Ino> {
        let node = self.store.node(id).ok().flatten()?;
        let parent = node.place.as_ref()?.parent;
        self.entrances.of(self.slot, parent).pop()
    }
}

/// Moves the store's log into its database now and then.
pub(super) fn keep_log_short(store: &Arc<Store>) {
    let work = |store: &Store| {
        if let Err(error) = store.checkpoint() {
            tracing::warn!(%error, "the store's log could not be shortened");
        }
    };
    now_and_then(store, "checkpoint", Duration::from_secs(30), work);
}

/// Holds the cache to its bounds, which may be tighter than at the last mount; and others fill its disk too.
pub(super) fn keep_cache_small(engine: &Engine) {
    let cache = engine.cache().clone();
    let work = move |_: &Store| {
        if let Err(error) = cache.trim() {
            tracing::warn!(%error, "the cache could not be held to its bounds");
        }
    };
    now_and_then(engine.store(), "cache-room", Duration::from_secs(60), work);
}

/// Does `work` at once, and again after each pause of `every`, on a thread called `name`, while the store is in use.
fn now_and_then(
    store: &Arc<Store>,
    name: &'static str,
    every: Duration,
    work: impl Fn(&Store) + Send + 'static,
) {
    let store = Arc::downgrade(store);
    let repeat = move || {
        while let Some(store) = store.upgrade() {
            work(&store);
            drop(store);
            std::thread::sleep(every);
        }
    };
    if let Err(error) = std::thread::Builder::new().name(name.into()).spawn(repeat) {
        tracing::warn!(%error, thread = name, "what a thread keeps in order is left to the end of the mount");
    }
}

/// Directories of one mount below a private one, for the demonstration.
pub(super) fn directories_in(work: &Path) -> (PathBuf, PathBuf) {
    (work.join("state"), work.join("cache"))
}
