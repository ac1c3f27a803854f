//! What the commands ask over the control socket, answered from the engine.

use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::control::{
    CacheUse, ConflictLine, ControlError, ControlHandler, DriveStatus, Estimate, Keep, MountState, Outcome,
    ProgressSink, Reading, RequestCounts, Status, Upload, WirePath,
};
use super::report::{parked, waits};
use super::{exit, settling};
use crate::config::MountSettings;
use crate::engine::{self, Engine, EngineError, EngineStatus, State};
use crate::fuse::{MountedSession, NotifyHandle, Unmount};
use crate::model::NodeId;
use crate::model::names;

/// Notices told by `status`: all that the store keeps.
const NOTICES: usize = 1000;
/// How often a long request says how far it is.
const WORD: Duration = Duration::from_millis(300);
/// Longest wait for a look at the service that somebody asked for.
const REFRESH_LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Handler {
    engine: Engine,
    settings: MountSettings,
    session: Arc<MountedSession>,
    notify: NotifyHandle,
    drain: Arc<DrainLimit>,
}

/// How long the daemon sends what is unsent once the mount has ended.
#[derive(Debug)]
pub(super) struct DrainLimit(Mutex<Duration>);

impl DrainLimit {
    pub(super) fn new(limit: Duration) -> Arc<Self> {
        Arc::new(Self(Mutex::new(limit)))
    }

    pub(super) fn get(&self) -> Duration {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, limit: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }
}

impl Handler {
    pub(super) fn new(
        engine: Engine,
        settings: MountSettings,
        session: Arc<MountedSession>,
        notify: NotifyHandle,
        drain: Arc<DrainLimit>,
    ) -> Self {
        Self { engine, settings, session, notify, drain }
    }

    fn node_at(&self, path: &Path) -> Result<NodeId, ControlError> {
        let mut at = NodeId::ROOT;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let missing = || error(path.display(), "there is no such file", "check the path", exit::USAGE);
            let name = names::to_remote(name).map_err(|_| missing())?;
            let store = self.engine.store();
            let child = match self.settings.case_insensitive {
                true => store.child_as_folded(at, &name),
                false => store.child(at, &name),
            };
            let child = child.map_err(|error| failed(&error))?;
            at = child.ok_or_else(missing)?.id;
        }
        Ok(at)
    }

    async fn outcome(&self, top: NodeId) -> Result<Outcome, ControlError> {
        let left = self.engine.left_below(top).await.map_err(|error| failed(&error))?;
        Ok(Outcome {
            unsent: left.pending,
            parked: parked(&left.waiting),
            waiting: waits(&left.waiting),
            unprotected: left.local_only,
        })
    }

    async fn wait_for_sync(
        &self,
        path: &Path,
        limit: Option<Duration>,
        progress: &ProgressSink,
    ) -> Result<Outcome, ControlError> {
        let top = self.node_at(path)?;
        let before = self.engine.graph().counters().bytes_out;
        let told = self.engine.sync(top, limit, |left| {
            progress.send_modify(|word| word.pending = left.pending);
        });
        let speak = async {
            loop {
                let sent = self.engine.graph().counters().bytes_out.saturating_sub(before);
                let uploads = self.engine.uploads();
                let rest: u64 = uploads.iter().map(|upload| upload.total.saturating_sub(upload.sent)).sum();
                let current = uploads.into_iter().next().map(|upload| upload.path);
                progress
                    .send_modify(|word| (word.sent, word.total, word.current) = (sent, sent + rest, current));
                tokio::time::sleep(WORD).await;
            }
        };
        let told = tokio::select! {
            told = told => told,
            () = speak => Err(EngineError::Deadline),
        };
        match told {
            Ok(_) | Err(EngineError::Deadline) => self.outcome(top).await,
            Err(error) => Err(failed(&error)),
        }
    }

    async fn snapshot(&self) -> Status {
        let status = match self.engine.status().await {
            Ok(status) => status,
            Err(error) => {
                tracing::error!(%error, "status cannot be read");
                empty_status(&error)
            }
        };
        let drive = self.engine.drive();
        let usage = self.engine.cache().usage();
        let counters = self.engine.graph().counters();
        let notices = self.engine.store().notices(NOTICES).unwrap_or_default();
        let trouble = status.trouble.iter().cloned();
        Status {
            mountpoint: WirePath(self.settings.mountpoint.clone()),
            state: state(status.state),
            drive: Some(DriveStatus {
                id: drive.id.as_str().to_owned(),
                name: drive.name.clone(),
                drive_type: drive.drive_type,
                quota: status.quota,
            }),
            account: self.settings.account.clone(),
            state_dir: WirePath(drive_dir(&self.settings.state_dir, &self.settings, drive)),
            // The root: where the drive's own is below it follows from the account and the drive.
            cache_dir: WirePath(self.settings.cache_dir.clone()),
            read_only: self.settings.read_only,
            pending: status.pending,
            parked: parked(&status.waiting),
            waiting: waits(&status.waiting),
            unprotected: status.local_only,
            uploads: status
                .uploads
                .iter()
                .map(|upload| Upload { path: upload.path.clone(), sent: upload.sent, size: upload.total })
                .collect(),
            last_delta: status.last_delta.map(|at| at.to_rfc3339_seconds()),
            push: status.pushed,
            cache: CacheUse { used: usage.bytes, limit: self.settings.cache_size },
            items: status.items,
            reading: status.reading.map(reading),
            requests: RequestCounts {
                total: counters.requests,
                throttled: counters.throttled,
                retried: counters.retries,
            },
            notices: trouble
                .chain(notices.iter().map(|notice| format!("{} {}: {}", notice.at, notice.path, notice.text)))
                .collect(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
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
            self.session.stop(how).map_err(|problem| {
                self.drain.set(self.settings.drain_timeout);
                let text = problem.to_string();
                let (why, remedy) = text.rsplit_once("; ").unwrap_or((&text, "close what is open below it"));
                let why = why.split_once(": ").map_or(why, |(_, why)| why);
                error(what, why, remedy, exit::BUSY)
            })?;
            if lazy {
                // Nobody finds it any more; programs that have it open go on, and then it ends.
                self.engine.draining();
            }
            self.wait_for_sync(Path::new(""), Some(limit), &progress).await
        }
        .boxed()
    }

    fn refresh(&self, path: PathBuf) -> BoxFuture<'_, Result<(), ControlError>> {
        async move {
            self.node_at(&path)?;
            let what = self.settings.mountpoint.display();
            let look = async {
                self.engine.look_now().await?;
                self.notify.flush().await;
                Ok(())
            };
            let looked = tokio::time::timeout(REFRESH_LIMIT, look).await;
            looked.unwrap_or(Err(EngineError::Deadline)).map_err(|problem| match problem {
                EngineError::Offline | EngineError::Deadline => {
                    let remedy = "what is known here stays; it is asked again by itself";
                    error(what, problem, remedy, exit::SERVICE)
                }
                EngineError::Graph(problem) => error(what, problem, "sign in again", exit::SIGNED_OUT),
                problem => failed(&problem),
            })
        }
        .boxed()
    }

    fn confirm(&self) -> BoxFuture<'_, Result<u64, ControlError>> {
        async move { self.engine.confirm_deletes().await.map_err(|error| failed(&error)) }.boxed()
    }

    fn retry(&self, path: PathBuf) -> BoxFuture<'_, Result<u64, ControlError>> {
        async move {
            let top = self.node_at(&path)?;
            self.engine.retry_parked(top).await.map_err(|error| failed(&error))
        }
        .boxed()
    }

    fn conflicts(&self, path: PathBuf) -> BoxFuture<'_, Result<Vec<ConflictLine>, ControlError>> {
        async move {
            let top = self.node_at(&path)?;
            let found = self.engine.conflicts(top).await.map_err(|error| failed(&error))?;
            Ok(found.into_iter().map(settling::line).collect())
        }
        .boxed()
    }

    fn settle(&self, path: PathBuf, keep: Keep) -> BoxFuture<'_, Result<(), ControlError>> {
        async move {
            let node = self.node_at(&path)?;
            let settled = self.engine.settle_copy(node, keep).await;
            settled.map_err(|problem| settling::refused(&path, &problem))
        }
        .boxed()
    }
}

fn drive_dir(root: &Path, settings: &MountSettings, drive: &crate::model::Drive) -> PathBuf {
    root.join(&settings.account).join(super::assemble::directory_name(&drive.id))
}

fn state(state: State) -> MountState {
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

fn failed(problem: &dyn std::fmt::Display) -> ControlError {
    error("the mount", problem, "see its log", exit::FAILURE)
}

fn error(
    what: impl std::fmt::Display,
    why: impl std::fmt::Display,
    remedy: impl std::fmt::Display,
    exit_code: u8,
) -> ControlError {
    ControlError { what: what.to_string(), why: why.to_string(), remedy: remedy.to_string(), exit_code }
}
