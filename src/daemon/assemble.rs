//! Builds the concrete things of one mount and wires them. Real and demo assembly are the same code but for
//! the service's address and the credentials.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DaemonError, exit};
use crate::auth::{StaticToken, TokenSource};
use crate::clock::{Clock, SystemClock};
use crate::config::MountSettings;
use crate::content::{Blocking, Cache, CacheConfig, Staging, StagingConfig};
use crate::disk::Disk;
use crate::engine::{ChangeSink, Engine, EngineConfig, GraphFetch, Parts, SharedFetch};
use crate::fuse::NotifyHandle;
use crate::graph::{DriveSelector, Graph, GraphConfig, GraphError, HttpTransport, LimiterConfig};
use crate::model::{Drive, DriveId, DriveType, Ino, NodeId, names};
use crate::store::{Change, StateLock, Store, StoreError};
use crate::vfs::{Invalidation, Kept, Vfs, VfsConfig};

/// The slot of the only drive of a mount.
const SLOT: u16 = 0;

/// Everything of one mount that is not the mount itself. Dropped in this order.
pub(super) struct Assembled {
    pub files: Arc<Vfs<Engine>>,
    pub engine: Engine,
    pub notify: NotifyHandle,
    pub clock: Arc<dyn Clock>,
    /// Held until all else is gone.
    pub _lock: StateLock,
}

/// Builds a mount's parts; asks the service only for a drive that was never mounted here before.
pub(super) async fn assemble(
    settings: &MountSettings,
    tokens: Arc<dyn TokenSource>,
) -> Result<Assembled, DaemonError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let graph = graph(settings, tokens, &clock)?;
    let account_dir = settings.state_dir.join(&settings.account);
    make_private(&account_dir)?;
    let drive = find_drive(&graph, settings, &account_dir).await?;
    let name = directory_name(&drive.id);
    let state = account_dir.join(&name);
    make_private(&state)?;
    let lock = StateLock::take(&state).map_err(|error| store_error(&state, &error))?;
    let store = Arc::new(open_store(&state, &drive)?);
    store.limit_memory(settings.metadata_memory);
    let disk = Disk::new();
    let fetch = GraphFetch::new(graph.clone(), drive.id.clone());
    let cache_dir = settings.cache_dir.join(&settings.account).join(&name);
    make_private(&cache_dir)?;
    let cache = Cache::open(
        CacheConfig {
            max_bytes: settings.cache_size,
            min_free_bytes: settings.min_free,
            ..CacheConfig::new(&cache_dir)
        },
        disk.clone(),
        Arc::clone(&clock),
        Arc::new(SharedFetch(fetch.clone())),
    )
    .map_err(|error| disk_error(&cache_dir, &error))?;
    let staging_dir = state.join("staging");
    let staging = Staging::open(StagingConfig::new(&staging_dir), disk)
        .map_err(|error| disk_error(&staging_dir, &error))?;
    let notify = NotifyHandle::new();
    let config = EngineConfig {
        settle: settings.settle,
        poll: settings.poll_interval,
        push: settings.push,
        sync_timeout: settings.sync_timeout,
        host: host_name(),
        utc_offset: utc_offset(),
        read_only: settings.read_only,
        confirm_above: settings.confirm_above,
        ..EngineConfig::default()
    };
    let sink = Arc::new(KernelSink { notify: notify.clone(), store: Arc::clone(&store) });
    let engine = Engine::new(Parts {
        store,
        cache,
        staging,
        graph,
        fetch,
        clock: Arc::clone(&clock),
        drive,
        sink,
        blocking: Blocking::Auto,
        config,
    });
    engine.recover().map_err(|error| DaemonError {
        what: state.display().to_string(),
        why: error.to_string(),
        remedy: "keep the directory and report this; 'onedrivefs rescue DIR' saves what is unsent".into(),
        exit_code: exit::FAILURE,
    })?;
    let files = Vfs::new(engine.clone(), vfs_config(settings));
    Ok(Assembled { files: Arc::new(files), engine, notify, clock, _lock: lock })
}

fn vfs_config(settings: &MountSettings) -> VfsConfig {
    VfsConfig {
        slot: SLOT,
        uid: settings.uid,
        gid: settings.gid,
        file_mode: settings.file_mode,
        dir_mode: settings.dir_mode,
        read_only: settings.read_only,
        sync: settings.sync,
        case_insensitive: settings.case_insensitive,
        ..VfsConfig::default()
    }
    .settled()
}

/// The sign-in of the settings' account: for now a token from the environment.
pub(super) fn credentials(settings: &MountSettings) -> Result<Arc<dyn TokenSource>, DaemonError> {
    match std::env::var("ONEDRIVEFS_ACCESS_TOKEN") {
        Ok(token) if !token.trim().is_empty() => Ok(Arc::new(StaticToken::new(token.trim()))),
        _ => Err(DaemonError {
            what: format!("account '{}'", settings.account),
            why: "no sign-in is stored for it".into(),
            remedy: "set ONEDRIVEFS_ACCESS_TOKEN to an access token for Microsoft Graph".into(),
            exit_code: exit::SIGNED_OUT,
        }),
    }
}

fn graph(
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
}

async fn find_drive(
    graph: &Graph,
    settings: &MountSettings,
    account_dir: &Path,
) -> Result<Drive, DaemonError> {
    let selector: DriveSelector = settings.drive.parse().map_err(|_| DaemonError {
        what: settings.drive.clone(),
        why: "this is not a drive".into(),
        remedy: "give 'me', a drive's id, or HOST:/sites/NAME[:LIBRARY]".into(),
        exit_code: exit::USAGE,
    })?;
    let path = account_dir.join("drives.json");
    let mut known: BTreeMap<String, KnownDrive> =
        fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let key = format!("{} {}", settings.graph_url, settings.drive);
    if let Some(KnownDrive { id, drive_type, name }) = known.get(&key).cloned() {
        return Ok(Drive { id, drive_type, name, web_url: None, owner: None, quota: None });
    }
    let drive = graph.resolve_drive(&selector).await.map_err(|error| service_error(settings, &error))?;
    let entry = KnownDrive { id: drive.id.clone(), drive_type: drive.drive_type, name: drive.name.clone() };
    known.insert(key, entry);
    let text = serde_json::to_vec_pretty(&known).expect("plain data is always written");
    replace_file(&path, &text).map_err(|error| disk_error(&path, &error))?;
    Ok(drive)
}

/// Written aside, synced, and put in place at once.
fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
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
    let safe = |c: char| if c.is_ascii_alphanumeric() || "!-_.".contains(c) { c } else { '_' };
    let name: String = id.canonical().chars().map(safe).collect();
    if name.starts_with('.') || name.is_empty() { format!("_{name}") } else { name }
}

fn open_store(state: &Path, drive: &Drive) -> Result<Store, DaemonError> {
    let store = Store::open(state).map_err(|error| store_error(state, &error))?;
    let id = drive.id.canonical();
    let bound = store.write(crate::store::Durability::Process, |tx| match tx.meta("drive")? {
        Some(found) if found != id => Err(StoreError::OtherDrive { found }),
        Some(_) => Ok(()),
        None => tx.set_meta("drive", Some(&id)),
    });
    bound.map_err(|error| store_error(state, &error))?;
    store.keep_ballast();
    Ok(store)
}

fn make_private(dir: &Path) -> Result<(), DaemonError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| disk_error(dir, &error))
}

fn disk_error(path: &Path, error: &dyn std::fmt::Display) -> DaemonError {
    DaemonError {
        what: path.display().to_string(),
        why: error.to_string(),
        remedy: "give --state-dir and --cache-dir directories that can be written".into(),
        exit_code: exit::FAILURE,
    }
}

fn store_error(path: &Path, error: &StoreError) -> DaemonError {
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

fn service_error(settings: &MountSettings, error: &GraphError) -> DaemonError {
    let (remedy, exit_code) = match error {
        GraphError::SignedOut { .. } => ("sign in again", exit::SIGNED_OUT),
        GraphError::NotFound { .. } => ("check the name of the drive, site or library", exit::SERVICE),
        GraphError::AccessDenied { .. } => ("ask for access to this drive", exit::SERVICE),
        _ => ("check the network and try again", exit::SERVICE),
    };
    DaemonError {
        what: format!("drive '{}'", settings.drive),
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
    notify: NotifyHandle,
    store: Arc<Store>,
}

impl ChangeSink for KernelSink {
    fn changed(&self, changes: &[Change]) {
        let may_matter = |change: &&Change| {
            let (Change::Entry { parent: id, .. } | Change::Node { id, .. }) = change;
            self.notify.may_know(Ino::new(SLOT, *id))
        };
        self.notify.send_all(changes.iter().filter(may_matter).map(|change| match change {
            Change::Entry { parent, name } => {
                Invalidation::Entry { parent: Ino::new(SLOT, *parent), name: names::to_local(name) }
            }
            Change::Node { id, content } => Invalidation::Inode {
                ino: Ino::new(SLOT, *id),
                kept: self.kept(*id, *content),
                within: self.parent(*id),
            },
        }));
    }
}

impl KernelSink {
    fn kept(&self, id: NodeId, content: bool) -> Kept {
        match self.store.node(id) {
            Ok(Some(node)) if node.kind.is_directory() => Kept::Listing,
            _ if content => Kept::Content,
            _ => Kept::Attributes,
        }
    }

    fn parent(&self, id: NodeId) -> Option<Ino> {
        let node = self.store.node(id).ok().flatten()?;
        node.place.as_ref().map(|place| Ino::new(SLOT, place.parent))
    }
}

/// Moves the store's log into its database now and then, on a thread of its own.
pub(super) fn keep_log_short(store: &Arc<Store>) {
    static EVERY: OnceLock<Duration> = OnceLock::new();
    let every = *EVERY.get_or_init(|| Duration::from_secs(30));
    let store = Arc::downgrade(store);
    let work = move || {
        loop {
            std::thread::sleep(every);
            let Some(store) = store.upgrade() else { return };
            if let Err(error) = store.checkpoint() {
                tracing::warn!(%error, "the store's log could not be shortened");
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("checkpoint".into()).spawn(work) {
        tracing::warn!(%error, "the store's log is shortened only at the end");
    }
}

/// Directories of one mount below a private one, for the demonstration.
pub(super) fn directories_in(work: &Path) -> (PathBuf, PathBuf) {
    (work.join("state"), work.join("cache"))
}
