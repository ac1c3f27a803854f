//! What a service manager is told (sd_notify(3)): ready, how it is, that it lives, that it ends.

use std::convert::Infallible;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::drives::Files;
use crate::config::Environment;
use crate::model::NodeId;

/// How often the state is told, if it has changed.
const WORD: Duration = Duration::from_secs(5);
/// Longest wait for one look at the mount: the watchdog's own time decides what becomes of a mount that hangs.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// How much time an end that still sends asks for, again and again.
const MORE_TIME: Duration = Duration::from_secs(30);

/// A service manager, or nobody.
#[derive(Debug)]
pub(super) struct Supervisor {
    socket: Option<UnixDatagram>,
    /// It ends a service that is silent for so long.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// Who started this process, if it wants to be told.
    pub fn of_process(environment: &Environment) -> Self {
        let text = |name| environment.variable(name).and_then(|value| value.to_str());
        let socket = text("NOTIFY_SOCKET").and_then(|address| match connect(address) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, "the service manager cannot be told anything");
                None
            }
        });
        let is_for_us = text("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let micros = text("WATCHDOG_USEC").filter(|_| is_for_us).and_then(|micros| micros.parse().ok());
        Self { socket, watchdog: micros.map(Duration::from_micros) }
    }

    fn say(&self, words: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(words.as_bytes()) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }

    /// Tells that the mount can be used, once the kernel has answered; then how it is, and that it lives, until dropped.
    pub async fn attend(&self, mountpoint: &Path, files: &Files) -> Infallible {
        if self.socket.is_none() {
            return std::future::pending().await;
        }
        let mut is_ready = false;
        let mut told = String::new();
        let pause = pause_of(self.watchdog);
        loop {
            // Both ways have to answer: the kernel's through the mount, and the engine's.
            let (kernel, state) = tokio::join!(kernel_answers(mountpoint.to_owned()), state(files));
            if let (true, Some(state)) = (kernel, state) {
                if !std::mem::replace(&mut is_ready, true) {
                    self.say("READY=1");
                }
                self.say("WATCHDOG=1");
                if state != told {
                    self.say(&format!("STATUS={state}"));
                    told = state;
                }
            }
            tokio::time::sleep(if is_ready { pause } else { Duration::from_millis(100) }).await;
        }
    }

    /// Tells that it ends, and asks for time as long as it is not dropped.
    pub async fn end(&self, files: &Files) -> Infallible {
        if self.socket.is_none() {
            return std::future::pending().await;
        }
        self.say("STOPPING=1");
        loop {
            if let Some(state) = state(files).await {
                self.say(&format!("STATUS=ending: {state}"));
            }
            self.say(&format!("WATCHDOG=1\nEXTEND_TIMEOUT_USEC={}", MORE_TIME.as_micros()));
            tokio::time::sleep(pause_of(self.watchdog)).await;
        }
    }
}

fn pause_of(watchdog: Option<Duration>) -> Duration {
    watchdog.map_or(WORD, |limit| (limit / 3).min(WORD))
}

/// A path, or with `@` in front a name of Linux's abstract ones.
fn connect(address: &str) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match address.strip_prefix('@') {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(address)?,
    }
    Ok(socket)
}

/// Whether the mount answers a request that goes through the kernel.
async fn kernel_answers(mountpoint: PathBuf) -> bool {
    let look = tokio::task::spawn_blocking(move || rustix::fs::statfs(&mountpoint).is_ok());
    matches!(tokio::time::timeout(LOOK_LIMIT, look).await, Ok(Ok(true)))
}

/// `online; nothing unsent`; nothing if the engine does not answer.
async fn state(files: &Files) -> Option<String> {
    let (mut is_offline, mut unsent) = (false, 0);
    let look = async {
        for part in files.parts(Path::new("")).ok()? {
            let engine = part.files.drive();
            is_offline |= engine.is_offline();
            unsent += engine.left_below(NodeId::ROOT).await.ok()?.pending;
        }
        Some(())
    };
    tokio::time::timeout(LOOK_LIMIT, look).await.ok()??;
    let link = if is_offline { "offline" } else { "online" };
    Some(match unsent {
        0 => format!("{link}; nothing unsent"),
        1 => format!("{link}; 1 change unsent"),
        more => format!("{link}; {more} changes unsent"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(words: &[(&str, &str)]) -> Supervisor {
        let variables = words.iter().map(|(name, value)| (name.to_string(), value.into()));
        Supervisor::of_process(&Environment::new(7, 7, variables))
    }

    #[test]
    fn a_manager_is_told_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("onedrivefs-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (address, heard) in [(path.display().to_string(), by_path), (format!("@{name}"), by_name)] {
            manager(&[("NOTIFY_SOCKET", &address)]).say("READY=1");
            let mut bytes = [0; 100];
            let length = heard.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"READY=1");
        }
        assert!(manager(&[]).socket.is_none());
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let own = std::process::id().to_string();
        let limit = |pid: &str| manager(&[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", pid)]).watchdog;
        assert_eq!(limit(&own), Some(Duration::from_secs(30)));
        assert_eq!(limit("1"), None);
        assert_eq!(manager(&[]).watchdog, None);
    }
}
