//! A daemon whose mount has ended, and that only sends what is unsent, lets the next mount have the drive's state.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::DaemonError;
use super::assemble::store_error;
use super::control::{Client, ControlError, Request};
use super::exit;
use super::mounts::is_mounted;
use crate::config::Environment;
use crate::fuse::MountedSession;
use crate::store::{StateLock, StoreError};

/// Longest wait for a daemon that said that it ends.
const YIELDS_WITHIN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);
/// How soon after an unmount the daemon must know of it.
const NOTICES_WITHIN: Duration = Duration::from_secs(2);

/// Takes the lock of a state; a daemon that has it and no mount any more is asked to end first. Blocks.
pub(super) fn lock(dir: &Path) -> Result<StateLock, DaemonError> {
    let in_use = match StateLock::take(dir) {
        Err(error @ StoreError::InUse { .. }) => error,
        other => return other.map_err(|error| store_error(dir, &error)),
    };
    let StoreError::InUse { pid } = in_use else { return Err(store_error(dir, &in_use)) };
    if !yields(pid) {
        return Err(store_error(dir, &in_use));
    }
    let until = Instant::now() + YIELDS_WITHIN;
    loop {
        match StateLock::take(dir) {
            Err(StoreError::InUse { .. }) if Instant::now() < until => std::thread::sleep(LOOK),
            other => return other.map_err(|error| store_error(dir, &error)),
        }
    }
}

/// Whether the daemon with this number ends now, because it is asked to.
fn yields(pid: u32) -> bool {
    let Some(mut client) = Client::of_process(&Environment::of_process(), pid) else { return false };
    match client.ask(&Request::Yield, &mut |_| {}) {
        Ok(_) => {
            tracing::info!(pid, "an earlier daemon, which was still sending, leaves the rest to this one");
            true
        }
        Err(error) => {
            tracing::debug!(pid, why = error.why, "the daemon that has the state keeps it");
            false
        }
    }
}

/// What a daemon that is asked to end needs to know.
pub(super) struct Yielding {
    session: Arc<MountedSession>,
    asked: CancellationToken,
}

impl Yielding {
    pub fn new(session: Arc<MountedSession>) -> Self {
        Self { session, asked: CancellationToken::new() }
    }

    /// Returns when another mount wants the state.
    pub async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// Another mount wants the state; refused as long as this one is there, or programs have files of it open.
    pub async fn ask(&self) -> Result<(), ControlError> {
        let mountpoint = self.session.mountpoint();
        let is_over = self.session.has_ended()
            || (!is_mounted(mountpoint)
                && tokio::time::timeout(NOTICES_WITHIN, self.session.wait()).await.is_ok());
        if is_over {
            self.asked.cancel();
            return Ok(());
        }
        Err(ControlError {
            what: mountpoint.display().to_string(),
            why: "the drive is mounted there, or a program has a file of it open".into(),
            remedy: "unmount it first".into(),
            exit_code: exit::BUSY,
        })
    }
}
