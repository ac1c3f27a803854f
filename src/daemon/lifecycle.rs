//! The life of one mount: lock, open, mount, ready, serve, drain, unmount; signals; what is left is told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::control::Server;
use super::drives::{Assembled, Drives, Files, assemble, shown};
use super::handler::{DrainLimit, Handler};
use super::mounts::is_over_trap;
use super::supervised::Supervisor;
use super::yielding::Yielding;
use super::{DaemonError, ExitReport, exit, report};
use crate::auth::TokenSource;
use crate::config::{Environment, MountSettings};
use crate::engine::{Engine, EngineError};
use crate::fuse::{
    CheckOptions, Limits, Metrics, MountError, MountOptions, MountedSession, Services, SessionEnd, Unmount,
    check_mountpoint, mount,
};
use crate::model::NodeId;

/// How long a busy mount may take to end after a signal before it is detached.
const DETACH_AFTER: Duration = Duration::from_secs(1);
/// How long what is unsent is sent where an automount was idle: nobody waits for it, and the next mount ends it.
const UNATTENDED: Duration = Duration::from_secs(3600);
/// How often the log says how far the last sending is.
const DRAIN_WORD: Duration = Duration::from_secs(5);

/// A runtime for the network and what waits for it.
pub(super) fn runtime() -> Result<Runtime, DaemonError> {
    share_the_heap();
    tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("onedrivefs").build().map_err(
        |error| DaemonError {
            what: "the program".into(),
            why: format!("no threads can be made ({error})"),
            remedy: "raise the limit on processes".into(),
            exit_code: exit::SYSTEM,
        },
    )
}

/// Lets all threads share two heaps. With one for each thread, as glibc does it, memory that one thread gives back is
/// of no use to the others, and a daemon that has walked a large drive keeps twice what it needs.
fn share_the_heap() {
    #[cfg(target_env = "gnu")]
    {
        #[allow(unsafe_code)]
        // SAFETY: mallopt(3) sets a number inside the C library, and is called before other threads are started.
        let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
        if set == 0 {
            tracing::debug!("the C library takes no bound on its heaps");
        }
    }
}

/// The mount point can be used, or why not; nothing was asked of the service yet.
pub(super) fn check(mountpoint: &Path, create: bool) -> Result<(), DaemonError> {
    let options = CheckOptions { create, ..CheckOptions::default() };
    check_mountpoint(mountpoint, options).map(|_| ()).map_err(DaemonError::from)
}

/// Serves one mount from start to end on `runtime`.
pub(super) fn serve(
    runtime: &Runtime,
    settings: MountSettings,
    tokens: Arc<dyn TokenSource>,
    ready: impl FnOnce(),
) -> Result<ExitReport, DaemonError> {
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let assembled = runtime.block_on(assemble(&settings, tokens))?;
    let metrics = Arc::new(Metrics::default());
    let session = start_mount(runtime, &settings, &assembled, &metrics)?;
    runtime.block_on(async {
        let files = assembled.files.clone();
        assembled.drives.start();
        let unsent = tokio::spawn(open_unfinished(Arc::clone(&assembled.drives), files.clone()));
        let refreshing = tokio::spawn(refresh_on_signal(signals.take_refresh()?, files.clone()));
        let shutdown = CancellationToken::new();
        let limit = DrainLimit::new(settings.drain_timeout);
        let yielding = Arc::new(Yielding::new(Arc::clone(&session)));
        let handler = Handler::new(
            files.clone(),
            Arc::clone(&assembled.drives),
            Arc::clone(&session),
            limit.clone(),
            Arc::clone(&yielding),
        );
        let control = start_control(&settings, handler, shutdown.clone());
        ready();
        let supervisor = Supervisor::of_process(&Environment::of_process());
        let mut broken = false;
        tokio::select! {
            end = session.wait() => {
                tracing::info!(?end, "the mount has ended");
                broken = end == SessionEnd::Broken;
                if is_over_trap(&settings.mountpoint) {
                    limit.raise(UNATTENDED);
                }
            }
            () = signals.next() => end_mount(&session).await,
            never = supervisor.attend(&settings.mountpoint, &files) => match never {},
        }
        let release = async {
            // Whoever still holds a file of a detached mount open goes on until then.
            session.wait().await;
            files.release_all();
            std::future::pending().await
        };
        let sending = async {
            // What an earlier mount left is sent by this one too; it asks nobody.
            if let Err(error) = unsent.await {
                tracing::error!(%error, "what an earlier mount left unsent was not looked for");
            }
            drain(&files, limit.get(), &mut signals).await
        };
        let report = tokio::select! {
            biased;
            report = release => report,
            () = yielding.asked() => {
                tracing::info!("another mount wants the drive: what is unsent is left to it");
                left(&files).await
            }
            report = sending => report,
            never = supervisor.end(&files) => match never {},
        };
        refreshing.abort();
        // Who waits for it to send something gets an answer now.
        files.opened().iter().for_each(|(_, files)| files.drive().stop());
        shutdown.cancel();
        if let Some(control) = control {
            // Bounded: a client that does not take its answer is cut off.
            control.await.ok();
        }
        close(&files)?;
        // Until the process ends, something may still be under way that writes.
        assembled.drives.keep_locked();
        if broken {
            return Err(DaemonError {
                what: settings.mountpoint.display().to_string(),
                why: "serving it broke down".into(),
                remedy: "mount it again; nothing that was written is lost".into(),
                exit_code: exit::FAILURE,
            });
        }
        Ok(report)
    })
}

/// Ends all drives; each is closed whatever comes of the others.
fn close(files: &Files) -> Result<(), DaemonError> {
    let open = files.opened();
    open.iter().for_each(|(_, files)| files.drive().stop());
    files.shutdown();
    let mut worst = Ok(());
    for (_, files) in open {
        if let Err(error) = files.drive().close() {
            worst = Err(DaemonError {
                what: "the drive's state".into(),
                why: error.to_string(),
                remedy: "free space on its disk; nothing is lost, the next mount goes on".into(),
                exit_code: exit::FAILURE,
            });
        }
    }
    worst
}

/// Has the drives at work of which an earlier mount left something unsent, or something is pinned, though nobody goes
/// into them.
async fn open_unfinished(drives: Arc<Drives>, files: Files) {
    let all = files.clone();
    let found = tokio::task::spawn_blocking(move || drives.unfinished(&all)).await;
    for slot in found.unwrap_or_default() {
        if let Err(error) = files.open(slot).await {
            tracing::error!(slot, %error, "what is unsent of an earlier mount stays so: its drive cannot be opened");
        }
    }
}

fn start_mount(
    runtime: &Runtime,
    settings: &MountSettings,
    assembled: &Assembled,
    metrics: &Arc<Metrics>,
) -> Result<Arc<MountedSession>, DaemonError> {
    let options = MountOptions {
        mountpoint: settings.mountpoint.clone(),
        // Everybody can read it, and a list may be longer than the kernel takes.
        source: format!("onedrive:{}", shown(&settings.drive).chars().take(200).collect::<String>()),
        read_only: settings.read_only,
        allow_other: settings.allow_other,
        extra: settings.kernel_options.clone(),
        check: CheckOptions::default(),
        passthrough: settings.passthrough.then(|| assembled.drives.shared.passthrough.clone()),
        read_ahead_kib: Some(1024),
    };
    let services = Services {
        runtime: runtime.handle().clone(),
        clock: Arc::clone(&assembled.drives.shared.clock),
        notify: assembled.drives.shared.notify.clone(),
        metrics: Arc::clone(metrics),
        limits: Limits::default(),
    };
    mount(Arc::new(assembled.files.clone()), &options, &services).map(Arc::new).map_err(DaemonError::from)
}

fn start_control(
    settings: &MountSettings,
    handler: Handler,
    shutdown: CancellationToken,
) -> Option<tokio::task::JoinHandle<()>> {
    let environment = Environment::of_process();
    match Server::bind(&environment, &settings.mountpoint) {
        Ok(server) => Some(tokio::spawn(server.serve(Arc::new(handler), shutdown))),
        Err(error) => {
            tracing::warn!(%error, "status, sync and umount cannot reach this mount: no control socket");
            None
        }
    }
}

/// Takes the mount out of the tree: at once if nobody uses it, else as soon as they let go.
async fn end_mount(session: &MountedSession) {
    match session.stop(Unmount::WhenIdle) {
        Ok(()) => {}
        Err(error @ MountError::Busy { .. }) => {
            tracing::warn!(%error, "still in use: taken out of the tree, open files live on until they are closed");
            if let Err(error) = session.stop(Unmount::Lazy) {
                tracing::error!(%error, "the mount stays behind");
            }
        }
        Err(error) => tracing::error!(%error, "the mount stays behind"),
    }
    // Whoever holds a file open is given a moment to close it.
    if tokio::time::timeout(DETACH_AFTER, session.wait()).await.is_err() {
        tracing::warn!(
            "files are still open; what is written to them from here on stays unsent until the next mount"
        );
    }
}

/// Sends what is unsent, for at most `limit`; a further signal ends it. Says what remains, and why.
async fn drain(files: &Files, limit: Duration, signals: &mut Signals) -> ExitReport {
    let open = files.opened();
    let all = join_all(open.iter().map(|(_, files)| send_rest(files.drive(), limit)));
    tokio::select! {
        _ = all => {}
        () = signals.next() => tracing::warn!("told to end before everything was sent"),
    }
    left(files).await
}

/// What remains unsent, said with its reasons.
async fn left(files: &Files) -> ExitReport {
    let mut report = ExitReport::default();
    for part in files.parts(Path::new("")).unwrap_or_default() {
        let left = part.files.drive().left_below(NodeId::ROOT).await.unwrap_or_default();
        for line in report::remaining(&left) {
            let at = part.prefix.display();
            match part.prefix.as_os_str().is_empty() {
                true => tracing::warn!("unsent, kept for the next mount: {line}"),
                false => tracing::warn!("unsent, kept for the next mount: {at}: {line}"),
            }
        }
        report.unsent += left.pending;
        report.unprotected += left.local_only;
    }
    report
}

/// Sends what is unsent of one drive.
async fn send_rest(engine: &Engine, limit: Duration) {
    engine.draining();
    let mut told: Option<tokio::time::Instant> = None;
    let waited = engine.sync(NodeId::ROOT, Some(limit), |left| {
        let is_time = told.is_none_or(|told| told.elapsed() >= DRAIN_WORD);
        if left.pending > left.parked && is_time {
            tracing::info!(
                unsent = left.pending - left.parked,
                ?limit,
                "sending what is unsent before the end"
            );
            told = Some(tokio::time::Instant::now());
        }
    });
    match waited.await {
        Ok(_) => {}
        Err(EngineError::Deadline) => tracing::warn!(?limit, "not everything could be sent in time"),
        Err(error) => tracing::warn!(%error, "not everything could be sent"),
    }
}

/// Looks for changes on the service whenever somebody sends SIGUSR1.
async fn refresh_on_signal(mut asked: Signal, files: Files) {
    while asked.recv().await.is_some() {
        tracing::info!("SIGUSR1: looking for changes on the service");
        files.opened().iter().for_each(|(_, files)| files.drive().refresh());
    }
}

/// The signals that ask the daemon to end.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, DaemonError> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(|error| cannot(&error))?,
            terminate: signal(SignalKind::terminate()).map_err(|error| cannot(&error))?,
        })
    }

    /// The signal that asks to look for changes: without a handler it would end the process.
    fn take_refresh(&self) -> Result<Signal, DaemonError> {
        signal(SignalKind::user_defined1()).map_err(|error| cannot(&error))
    }

    pub(super) fn next(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
        })
    }
}

fn cannot(error: &std::io::Error) -> DaemonError {
    DaemonError {
        what: "signals".into(),
        why: error.to_string(),
        remedy: "report this".into(),
        exit_code: exit::FAILURE,
    }
}
