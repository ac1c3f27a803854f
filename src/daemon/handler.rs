//! What the commands ask over the control socket, answered from the engine.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use super::control::{
    CacheUse, CacheView, ConflictLine, ControlError, ControlHandler, DriveLine, DriveStatus, Estimate,
    FreeOutcome, Keep, MountState, Outcome, PinOutcome, ProgressSink, Reading, RequestCounts, Status,
    ThumbnailLine, Upload, WirePath,
};
use super::drives::{Drives, Files};
use super::report::{parked, waits};
use super::yielding::Yielding;
use super::{exit, keeping, mounts, settling};
use crate::config::MountSettings;
use crate::engine::{self, Engine, EngineError, EngineStatus, SettleError, State, Waiting};
use crate::fuse::{MountedSession, Unmount};
use crate::vfs::VfsError;
use crate::vfs::forest::{Part, Shown};

/// Notices told by `status`: all that the store keeps.
const NOTICES: usize = 1000;
/// How often a long request says how far it is.
const WORD: Duration = Duration::from_millis(300);
/// Longest wait for a look at the service that somebody asked for.
const REFRESH_LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Handler {
    files: Files,
    drives: Arc<Drives>,
    settings: MountSettings,
    session: Arc<MountedSession>,
    drain: Arc<DrainLimit>,
    yielding: Arc<Yielding>,
}

/// A part of a drive that a path means.
pub(super) type DrivePart = Part<Engine>;

/// How long the daemon sends what is unsent once the mount has ended.
#[derive(Debug)]
pub(super) struct DrainLimit(Mutex<Drain>);

#[derive(Debug)]
struct Drain {
    limit: Duration,
    /// Whoever unmounts has said so.
    said: bool,
}

impl DrainLimit {
    pub(super) fn new(limit: Duration) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Drain { limit, said: false })))
    }

    pub(super) fn get(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).limit
    }

    /// Lets it take longer, unless somebody who unmounts has said how long.
    pub(super) fn raise(&self, limit: Duration) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !current.said {
            current.limit = current.limit.max(limit);
        }
    }

    fn set(&self, limit: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Drain { limit, said: true };
    }
}

impl Handler {
    pub(super) fn new(
        files: Files,
        drives: Arc<Drives>,
        session: Arc<MountedSession>,
        drain: Arc<DrainLimit>,
        yielding: Arc<Yielding>,
    ) -> Self {
        let settings = drives.shared.settings.clone();
        Self { files, drives, settings, session, drain, yielding }
    }

    /// A path in the mount, as people write it.
    fn at(&self, path: &Path) -> PathBuf {
        let mut whole = self.settings.mountpoint.clone();
        whole.extend(path.components());
        whole
    }

    /// The parts of open drives at or below `path`.
    fn parts(&self, path: &Path) -> Result<Vec<DrivePart>, ControlError> {
        self.files.parts(path).map_err(|problem| not_found(path, &problem))
    }

    /// What `path` means in a drive; none above the drives.
    async fn part_at(&self, path: &Path) -> Result<Option<DrivePart>, ControlError> {
        self.files.part_at(path).await.map_err(|problem| not_found(path, &problem))
    }

    async fn outcome(&self, parts: &[DrivePart]) -> Result<Outcome, ControlError> {
        let mut all = Outcome::default();
        for part in parts {
            let left = part.files.drive().left_below(part.top).await.map_err(|error| failed(&error))?;
            let told = below(&part.prefix, left.waiting);
            all.unsent += left.pending;
            all.parked.extend(parked(&told));
            all.waiting.extend(waits(&told));
            all.unprotected += left.local_only;
        }
        Ok(all)
    }

    async fn wait_for_sync(
        &self,
        path: &Path,
        limit: Option<Duration>,
        progress: &ProgressSink,
    ) -> Result<Outcome, ControlError> {
        let parts = self.parts(path)?;
        let graph = &self.drives.shared.graph;
        let before = graph.counters().bytes_out;
        let pending = Mutex::new(vec![0; parts.len()]);
        let waits = parts.iter().enumerate().map(|(at, part)| {
            let pending = &pending;
            part.files.drive().sync(part.top, limit, move |left| {
                let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
                pending[at] = left.pending;
                let all = pending.iter().sum();
                drop(pending);
                progress.send_modify(|word| word.pending = all);
            })
        });
        let told = join_all(waits);
        let speak = async {
            loop {
                let sent = graph.counters().bytes_out.saturating_sub(before);
                let uploads: Vec<_> = parts.iter().flat_map(uploads).collect();
                let rest: u64 = uploads.iter().map(|upload| upload.size.saturating_sub(upload.sent)).sum();
                let current = uploads.into_iter().next().map(|upload| upload.path);
                progress
                    .send_modify(|word| (word.sent, word.total, word.current) = (sent, sent + rest, current));
                tokio::time::sleep(WORD).await;
            }
        };
        let told = tokio::select! {
            told = told => told,
            () = speak => Vec::new(),
        };
        for one in told {
            match one {
                Ok(_) | Err(EngineError::Deadline) => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        self.outcome(&parts).await
    }

    async fn snapshot(&self) -> Status {
        let parts = self.files.parts(Path::new("")).unwrap_or_default();
        let mut all = Status { state: MountState::Online, ..self.blank() };
        let is_single = matches!(self.files.find(Path::new("")), Ok(Shown::In(..)));
        for part in &parts {
            self.add(&mut all, part, is_single && part.slot == 0).await;
        }
        if is_single && all.drives.len() == 1 {
            all.drives.clear();
        }
        all
    }

    /// What is to be told of a mount that shows nothing.
    fn blank(&self) -> Status {
        let counters = self.drives.shared.graph.counters();
        Status {
            mountpoint: WirePath(self.settings.mountpoint.clone()),
            state: MountState::Starting,
            drive: None,
            drives: Vec::new(),
            account: self.settings.account.clone(),
            state_dir: WirePath(self.drives.shared.account_dir.clone()),
            // The root: where a drive's own is below it follows from the account and the drive.
            cache_dir: WirePath(self.settings.cache_dir.clone()),
            read_only: self.settings.read_only,
            pending: 0,
            parked: Vec::new(),
            waiting: Vec::new(),
            unprotected: 0,
            uploads: Vec::new(),
            last_delta: None,
            push: false,
            cache: CacheUse { used: 0, limit: 0 },
            items: 0,
            reading: None,
            requests: RequestCounts {
                total: counters.requests,
                throttled: counters.throttled,
                retried: counters.retries,
            },
            notices: Vec::new(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Adds what is to be told of one drive; `is_all`: it is the mount.
    async fn add(&self, all: &mut Status, part: &DrivePart, is_all: bool) {
        let engine = part.files.drive();
        let status = match engine.status().await {
            Ok(status) => status,
            Err(error) => {
                tracing::error!(%error, "status cannot be read");
                empty_status(&error)
            }
        };
        let drive = drive_status(engine, &status);
        let at = |text: String| match part.prefix.as_os_str().is_empty() {
            true => text,
            false => format!("{}: {text}", part.prefix.display()),
        };
        let notices = engine.store().notices(NOTICES).unwrap_or_default();
        let told = notices.iter().map(|notice| format!("{} {}: {}", notice.at, notice.path, notice.text));
        all.notices.extend(status.trouble.clone().into_iter().chain(told).map(at));
        let waiting = below(&part.prefix, status.waiting);
        all.parked.extend(parked(&waiting));
        all.waiting.extend(waits(&waiting));
        all.uploads.extend(uploads(part));
        let state = state(status.state);
        all.drives.push(DriveLine {
            path: WirePath(part.prefix.clone()),
            drive: drive.clone(),
            state,
            pending: status.pending,
            items: status.items,
        });
        all.state = if is_all { state } else { worse(all.state, state) };
        all.pending += status.pending;
        all.unprotected += status.local_only;
        let usage = engine.cache().usage();
        all.cache.used += usage.bytes;
        all.cache.limit += usage.max_bytes;
        all.items += status.items;
        // The oldest look is the one that counts.
        let looked = status.last_delta.map(|at| at.to_rfc3339_seconds());
        let is_first = all.drives.len() == 1;
        all.last_delta = if is_first { looked } else { all.last_delta.take().min(looked) };
        all.push = status.pushed && (is_first || all.push);
        if is_all {
            all.drive = Some(drive);
            all.reading = status.reading.map(reading);
            all.state_dir = WirePath(self.drives.shared.state_of(&engine.drive().id, engine.top()));
        }
    }
}

fn drive_status(engine: &Engine, status: &EngineStatus) -> DriveStatus {
    let drive = engine.drive();
    DriveStatus {
        id: drive.id.as_str().to_owned(),
        name: drive.name.clone(),
        drive_type: drive.drive_type,
        quota: status.quota,
    }
}

/// What a part uploads, by its paths in the mount.
fn uploads(part: &DrivePart) -> Vec<Upload> {
    let uploads = part.files.drive().uploads().into_iter();
    let told = uploads.map(|one| Upload {
        path: in_mount(&part.prefix, &one.path),
        sent: one.sent,
        size: one.total,
    });
    told.collect()
}

/// Paths of a drive become those of the mount.
fn below(prefix: &Path, waiting: Vec<Waiting>) -> Vec<Waiting> {
    let told = waiting.into_iter().map(|one| Waiting {
        path: in_mount(prefix, &one.path),
        behind: one.behind.map(|path| in_mount(prefix, &path)),
        ..one
    });
    told.collect()
}

/// A drive's path, where the drive is at `prefix`.
fn in_mount(prefix: &Path, path: &str) -> String {
    prefix.join(path).display().to_string()
}

/// A look at the service does not keep somebody waiting for ever.
async fn within_limit<T, E>(
    look: impl Future<Output = Result<T, E>>,
    late: impl FnOnce() -> E,
) -> Result<T, E> {
    tokio::time::timeout(REFRESH_LIMIT, look).await.unwrap_or_else(|_| Err(late()))
}

/// Of two drives' states, the one that somebody should hear of.
fn worse(one: MountState, other: MountState) -> MountState {
    use MountState::{Draining, Enumerating, Offline, Online, SignedOut, Starting};
    let order = [Draining, SignedOut, Offline, Starting, Enumerating, Online];
    order.into_iter().find(|state| [one, other].contains(state)).unwrap_or(one)
}

impl ControlHandler for Handler {
    fn status(&self) -> BoxFuture<'_, Status> {
        self.snapshot().boxed()
    }

    fn sync(
        &self,
        path: PathBuf,
        timeout: Option<Duration>,
        progress: ProgressSink,
    ) -> BoxFuture<'_, Result<Outcome, ControlError>> {
        async move { self.wait_for_sync(&path, timeout, &progress).await }.boxed()
    }

    fn unmount(
        &self,
        drain: Option<Duration>,
        lazy: bool,
        progress: ProgressSink,
    ) -> BoxFuture<'_, Result<Outcome, ControlError>> {
        async move {
            let how = if lazy { Unmount::Lazy } else { Unmount::WhenIdle };
            let limit = drain.unwrap_or(self.settings.drain_timeout);
            let what = self.settings.mountpoint.display();
            // First the mount, so that one in use is told at once and nothing new comes while the rest is sent.
            self.drain.set(limit);
            let session = Arc::clone(&self.session);
            // It waits for the kernel and for `fusermount3`.
            let stop = move || mounts::stop_patiently(|| session.stop(how), std::thread::sleep);
            let stopped = tokio::task::spawn_blocking(stop).await.map_err(|error| failed(&error))?;
            stopped.map_err(|problem| {
                self.drain.set(self.settings.drain_timeout);
                let text = problem.to_string();
                let (why, remedy) = text.rsplit_once("; ").unwrap_or((&text, "close what is open below it"));
                let why = why.split_once(": ").map_or(why, |(_, why)| why);
                error(what, why, remedy, exit::BUSY)
            })?;
            if lazy {
                // Nobody finds it any more; programs that have it open go on, and then it ends.
                self.files.opened().iter().for_each(|(_, files)| files.drive().draining());
            }
            self.wait_for_sync(Path::new(""), Some(limit), &progress).await
        }
        .boxed()
    }

    fn yield_state(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        self.yielding.ask().boxed()
    }

    fn refresh(&self, path: PathBuf) -> BoxFuture<'_, Result<(), ControlError>> {
        async move {
            let parts = self.parts(&path)?;
            let listings = within_limit(self.files.refresh_listings(&path), || VfsError::Deadline);
            // One drive that is away holds up no other.
            let looks = join_all(parts.iter().map(|part| async move {
                let look = part.files.drive().look_now();
                (part, within_limit(look, || EngineError::Deadline).await)
            }));
            let (listed, looked) = futures_util::join!(listings, looks);
            let shown = self.drives.shared.notify.flush().map(Ok);
            let shown = within_limit(shown, || EngineError::Deadline).await;
            let unreachable = |what: &Path, problem: &dyn std::fmt::Display| {
                let remedy = "what is known here stays; it is asked again by itself";
                error(what.display(), problem, remedy, exit::SERVICE)
            };
            for (part, looked) in looked {
                let Err(problem) = looked else { continue };
                let what = self.at(&part.prefix);
                return Err(match problem {
                    EngineError::Offline | EngineError::Deadline => unreachable(&what, &problem),
                    EngineError::Graph(problem) => {
                        let remedy = format!("run 'onedrivefs login {}'", self.settings.account);
                        error(what.display(), problem, remedy, exit::SIGNED_OUT)
                    }
                    problem => failed(&problem),
                });
            }
            listed.map_err(|problem| unreachable(&self.settings.mountpoint, &problem))?;
            shown.map_err(|problem| unreachable(&self.settings.mountpoint, &problem))
        }
        .boxed()
    }

    fn confirm(&self) -> BoxFuture<'_, Result<u64, ControlError>> {
        async move {
            let mut count = 0;
            for part in self.parts(Path::new(""))? {
                count += part.files.drive().confirm_deletes().await.map_err(|error| failed(&error))?;
            }
            Ok(count)
        }
        .boxed()
    }

    fn retry(&self, path: PathBuf) -> BoxFuture<'_, Result<u64, ControlError>> {
        async move {
            let mut count = 0;
            for part in self.parts(&path)? {
                count += part.files.drive().retry_parked(part.top).await.map_err(|error| failed(&error))?;
            }
            Ok(count)
        }
        .boxed()
    }

    fn conflicts(&self, path: PathBuf) -> BoxFuture<'_, Result<Vec<ConflictLine>, ControlError>> {
        async move {
            let mut lines = Vec::new();
            for part in self.parts(&path)? {
                let found = part.files.drive().conflicts(part.top).await.map_err(|error| failed(&error))?;
                lines.extend(found.into_iter().map(settling::line).map(|line| ConflictLine {
                    path: WirePath(part.prefix.join(&line.path.0)),
                    beside: WirePath(part.prefix.join(&line.beside.0)),
                    ..line
                }));
            }
            Ok(lines)
        }
        .boxed()
    }

    fn settle(&self, path: PathBuf, keep: Keep) -> BoxFuture<'_, Result<(), ControlError>> {
        async move {
            // The first is what the path itself means; others are behind shortcuts in it.
            let part = self.parts(&path)?.into_iter().next();
            let (Some(part), Ok(Shown::In(..))) = (part, self.files.find(&path)) else {
                return Err(settling::refused(&path, &SettleError::NoConflict));
            };
            let settled = part.files.drive().settle_copy(part.top, keep).await;
            settled.map_err(|problem| settling::refused(&path, &problem))
        }
        .boxed()
    }

    fn pin(
        &self,
        path: PathBuf,
        wait: bool,
        progress: ProgressSink,
    ) -> BoxFuture<'_, Result<PinOutcome, ControlError>> {
        async move {
            let part = self.part_at(&path).await?.ok_or_else(|| {
                let why = "several drives are below it";
                error(self.at(&path).display(), why, "pin a drive, or something in one", exit::USAGE)
            })?;
            keeping::pin(&self.at(&path), &part, wait, &progress).await
        }
        .boxed()
    }

    fn unpin(&self, path: PathBuf) -> BoxFuture<'_, Result<u64, ControlError>> {
        async move {
            let mut count = 0;
            let parts = match self.part_at(&path).await? {
                Some(part) => vec![part],
                None => self.parts(&path)?,
            };
            for part in parts {
                count += keeping::unpin(&self.at(&path), &part).await?;
            }
            Ok(count)
        }
        .boxed()
    }

    fn free(&self, path: PathBuf) -> BoxFuture<'_, Result<FreeOutcome, ControlError>> {
        async move {
            let mut all = FreeOutcome::default();
            for part in self.parts(&path)? {
                keeping::free(&part, &mut all).await?;
            }
            Ok(all)
        }
        .boxed()
    }

    fn thumbnails(&self, path: PathBuf) -> BoxFuture<'_, Result<Vec<ThumbnailLine>, ControlError>> {
        async move {
            match self.part_at(&path).await? {
                Some(part) => {
                    let graph = &self.drives.shared.graph;
                    keeping::thumbnails(graph, &self.at(&path), &part, &self.settings).await
                }
                // Nothing is above the drives but folders.
                None => Ok(Vec::new()),
            }
        }
        .boxed()
    }

    fn cache(&self, path: PathBuf, list: bool) -> BoxFuture<'_, Result<Vec<CacheView>, ControlError>> {
        async move {
            let mut all = Vec::new();
            for part in self.parts(&path)? {
                all.push(keeping::view(&part, self.settings.min_free, list).await?);
            }
            Ok(all)
        }
        .boxed()
    }
}

pub(super) fn state(state: State) -> MountState {
    match state {
        State::Starting => MountState::Starting,
        State::Enumerating => MountState::Enumerating,
        State::Online => MountState::Online,
        State::Offline => MountState::Offline,
        State::SignedOut => MountState::SignedOut,
        State::Draining => MountState::Draining,
    }
}

fn reading(reading: engine::Reading) -> Reading {
    let estimate = reading.estimate.map(|estimate| Estimate {
        percent: estimate.part * 100.0,
        items: estimate.items,
        seconds_left: estimate.left.map(|left| left.as_secs()),
    });
    let (items, bytes) = (reading.items, reading.bytes);
    Reading { items, bytes, items_per_second: reading.items_per_second, estimate }
}

fn empty_status(error: &EngineError) -> EngineStatus {
    EngineStatus {
        state: State::Starting,
        pending: 0,
        parked: 0,
        local_only: 0,
        waiting: Vec::new(),
        uploads: Vec::new(),
        last_delta: None,
        pushed: false,
        items: 0,
        reading: None,
        quota: None,
        trouble: Some(error.to_string()),
    }
}

fn not_found(path: &Path, problem: &VfsError) -> ControlError {
    match problem {
        VfsError::NotFound => error(path.display(), "there is no such file", "check the path", exit::USAGE),
        problem => failed(problem),
    }
}

pub(super) fn failed(problem: &dyn std::fmt::Display) -> ControlError {
    error("the mount", problem, "see its log", exit::FAILURE)
}

pub(super) fn error(
    what: impl std::fmt::Display,
    why: impl std::fmt::Display,
    remedy: impl std::fmt::Display,
    exit_code: u8,
) -> ControlError {
    ControlError { what: what.to_string(), why: why.to_string(), remedy: remedy.to_string(), exit_code }
}
