//! A mounted file system, from the mount to its end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{Session, SessionACL};
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;

use super::adapter::Adapter;
use super::attach::{self, Request};
use super::check::{self, CheckOptions};
use super::error::MountError;
use super::lend::Passthrough;
use super::metrics::Metrics;
use super::negotiate::Features;
use super::notify::NotifyHandle;
use super::serve::{Limits, Server};
use super::tripwire::{Place, Tripwire};
use super::unmount::{self, Unmount};
use crate::clock::Clock;
use crate::vfs::Filesystem;

/// More threads cost more in wake-ups than they gain (performance 2b).
const MAX_THREADS: usize = 4;

/// How to mount.
#[derive(Clone, Debug, Default)]
pub struct MountOptions {
    /// Where.
    pub mountpoint: PathBuf,
    /// What `df` and `findmnt` show as the device.
    pub source: String,
    /// The kernel refuses every change.
    pub read_only: bool,
    /// Let users in other than the one who mounts; not said: root's mounts do.
    pub allow_other: Option<bool>,
    /// Further options as for mount(8).
    pub extra: Vec<String>,
    /// What may be done to make the directory fit.
    pub check: CheckOptions,
    /// Where complete files are made known to the kernel, which then reads them itself; not said: nowhere.
    pub passthrough: Option<Passthrough>,
    /// How far the kernel reads ahead, in KiB; only root can set it.
    pub read_ahead_kib: Option<u32>,
}

/// What a mount uses and does not own.
#[derive(Clone, Debug)]
pub struct Services {
    /// Runs operations that must wait.
    pub runtime: Runtime,
    /// For latencies.
    pub clock: Arc<dyn Clock>,
    /// Delivers to the kernel from now until the mount ends.
    pub notify: NotifyHandle,
    /// Counts operations.
    pub metrics: Arc<Metrics>,
    /// Bounds of waiting.
    pub limits: Limits,
}

/// A mounted file system. Dropping it unmounts lazily.
#[derive(Debug)]
pub struct MountedSession {
    place: Place,
    ended: watch::Receiver<Option<SessionEnd>>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// Unmounted, by this program or by anyone else.
    Unmounted,
    /// Something in serving it broke; the log says what. Mount again.
    Broken,
}

/// Mounts `files` and serves them until unmounted, by [`MountedSession::stop`] or by anyone else.
///
/// Blocks for the mount and the kernel's handshake. A process that systemd started to serve an automount must
/// call this before setsid(2), so that the kernel knows it for the mounting one.
pub fn mount<F: Filesystem>(
    files: Arc<F>,
    options: &MountOptions,
    services: &Services,
) -> Result<MountedSession, MountError> {
    let mountpoint = check::check_mountpoint(&options.mountpoint, options.check)?.path;
    let request = Request {
        source: options.source.clone(),
        read_only: options.read_only,
        allow_other: options.allow_other.unwrap_or_else(|| rustix::process::geteuid().is_root()),
        extra: options.extra.clone(),
    };
    let connection = attach::attach(&mountpoint, &request)?;
    let (sender, ended) = watch::channel(None);
    // From here on a failure unmounts.
    let mounted = MountedSession { place: Place::now(mountpoint), ended };
    let failed = |source| MountError::Io { action: "begin serving the mount".into(), source };
    let watched = connection.try_clone().map_err(failed)?;
    let server = Server {
        runtime: services.runtime.clone(),
        clock: Arc::clone(&services.clock),
        metrics: Arc::clone(&services.metrics),
        fence: services.notify.fence(),
        limits: services.limits,
        tripwire: Some(Tripwire::new(watched, mounted.place.clone())),
    };
    let features = Features::of_process(options.passthrough.is_some());
    let adapter = Adapter::new(files, server, features, services.notify.clone());
    let passthrough = options.passthrough.clone().unwrap_or_default();
    if options.passthrough.is_some() {
        passthrough.attach(connection.try_clone().map_err(failed)?);
    }
    // The kernel lets in whom the mount lets in.
    let session = Session::from_fd(adapter, connection, SessionACL::All, threads()).map_err(failed)?;
    services.notify.attach(Arc::new(session.notifier())).map_err(failed)?;
    mounted.raise_read_ahead(options.read_ahead_kib);
    let notify = services.notify.clone();
    let run = move || {
        let end = match session.run() {
            Ok(()) => SessionEnd::Unmounted,
            Err(error) => {
                tracing::error!(%error, "serving the mount ended with an error");
                SessionEnd::Broken
            }
        };
        notify.end();
        passthrough.end();
        sender.send_replace(Some(end));
    };
    std::thread::Builder::new().name("fuse-session".into()).spawn(run).map_err(failed)?;
    tracing::info!(mountpoint = %mounted.mountpoint().display(), source = options.source, "mounted");
    Ok(mounted)
}

fn threads() -> fuser::Config {
    let mut config = fuser::Config::default();
    config.n_threads =
        Some(std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_THREADS)));
    config
}

impl MountedSession {
    /// Where, without symbolic links.
    pub fn mountpoint(&self) -> &Path {
        &self.place.mountpoint
    }

    /// Whether the kernel has ended the mount.
    pub fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Returns when the kernel has ended the mount and every request has been taken up.
    pub async fn wait(&self) -> SessionEnd {
        let mut ended = self.ended.clone();
        // The sender is dropped unused only by a session thread that panicked.
        let end = ended.wait_for(Option::is_some).await;
        end.ok().and_then(|end| *end).unwrap_or(SessionEnd::Broken)
    }

    /// Unmounts, unless that has happened. `Busy`: still mounted and serving.
    pub fn stop(&self, how: Unmount) -> Result<(), MountError> {
        if self.has_ended() || !self.place.is_taken() {
            return Ok(());
        }
        match unmount::unmount(self.mountpoint(), how) {
            Err(MountError::NotMounted { .. }) => Ok(()),
            other => other,
        }
    }

    fn raise_read_ahead(&self, kib: Option<u32>) {
        let (Some(kib), Some(device)) = (kib, &self.place.device) else { return };
        let setting = format!("/sys/class/bdi/{device}/read_ahead_kb");
        if let Err(error) = std::fs::write(setting, kib.to_string()) {
            log_read_ahead(&error);
        }
    }
}

fn log_read_ahead(error: &io::Error) {
    tracing::debug!(%error, "the kernel's read-ahead stays as it is");
}

impl Drop for MountedSession {
    fn drop(&mut self) {
        if let Err(error) = self.stop(Unmount::Lazy) {
            tracing::warn!(%error, "the mount stays behind");
        }
    }
}
