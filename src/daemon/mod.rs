//! The only place that builds concrete things and wires them.

mod assemble;
pub mod control;
mod demo;
pub mod doctor;
mod drives;
pub mod exit;
mod handler;
mod keeping;
mod lifecycle;
pub mod mounts;
pub mod reach;
mod report;
pub mod rescue;
mod settling;
pub mod signin;
mod supervised;
pub mod thumbnails;
pub mod transfer;
mod yielding;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

pub use drives::check_drive;

use crate::config::MountSettings;
use crate::model::DriveType;

/// Why the daemon could not start, or ended badly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}; {remedy}")]
pub struct DaemonError {
    /// What was tried, or on what.
    pub what: String,
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub remedy: String,
    /// The process's exit code (`docs/errors.md`).
    pub exit_code: u8,
}

impl DaemonError {
    /// Takes a line of the form `what: why; remedy` apart.
    pub fn from_line(line: &str, exit_code: u8) -> Self {
        let (what, rest) = line.split_once(": ").unwrap_or(("onedrivefs", line));
        let (why, remedy) = rest.split_once("; ").unwrap_or((rest, "see the log"));
        Self { what: what.to_owned(), why: why.to_owned(), remedy: remedy.to_owned(), exit_code }
    }
}

/// What an ended mount leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExitReport {
    /// Changes that are still unsent; they are kept and go out at the next mount.
    pub unsent: u64,
    /// Files that live on this machine only.
    pub unprotected: u64,
}

/// A demonstration: a drive of the built-in emulator, mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoSettings {
    /// Where it is shown: absolute.
    pub mountpoint: PathBuf,
    /// What the drive holds at the start.
    pub seed: SeedTree,
    /// Added to every answer of the emulated service.
    pub latency: Duration,
}

/// Where a running demonstration is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DemoInfo {
    /// The mounted directory.
    pub mountpoint: PathBuf,
    /// Address of the emulated service.
    pub service: String,
    /// Cache and state; gone when the demonstration ends.
    pub work_dir: PathBuf,
}

/// What an emulated drive holds at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeedTree {
    /// Nothing.
    Empty,
    /// A few dozen files of all kinds.
    Sample,
    /// A copy of a directory.
    Directory(PathBuf),
    /// Generated files.
    Synthetic {
        /// Files in all.
        files: u32,
        /// Files in one folder.
        per_folder: u32,
        /// Bytes of each.
        size: u64,
    },
}

/// A stand-alone emulator.
#[derive(Clone, Debug, PartialEq)]
pub struct EmulatorSettings {
    /// Loopback address and port; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Flavour of the user's drive.
    pub drive_type: DriveType,
    /// What it holds at the start.
    pub seed: SeedTree,
    /// Certificate chain and key, both PEM; plain HTTP without.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Added to every answer.
    pub latency: Duration,
    /// Bytes of quota of each drive.
    pub quota: Option<u64>,
    /// Where contents are kept; a temporary directory without.
    pub data_dir: Option<PathBuf>,
    /// Switches of the emulator by name, with their values.
    pub switches: Vec<(String, serde_json::Value)>,
}

/// Mounts a drive and serves it until it is unmounted or a signal ends it.
///
/// Blocks; builds the runtime. Calls `ready` once, when the mount is usable.
pub fn run_mount(mut settings: MountSettings, ready: impl FnOnce()) -> Result<ExitReport, DaemonError> {
    lifecycle::check(&settings.mountpoint, false)?;
    let tokens = assemble::credentials(&mut settings)?;
    signin::check_own_drive(&settings)?;
    let runtime = lifecycle::runtime()?;
    lifecycle::serve(&runtime, settings, tokens, ready)
}

/// Runs a demonstration until it is unmounted or a signal ends it.
///
/// Blocks. Calls `ready` once, when the mount is usable.
pub fn run_demo(settings: DemoSettings, ready: impl FnOnce(&DemoInfo)) -> Result<ExitReport, DaemonError> {
    demo::run_demo(&settings, ready)
}

/// Serves an emulator until a signal ends it.
///
/// Blocks. Calls `ready` once with its base address, when it listens.
pub fn run_emulator(settings: EmulatorSettings, ready: impl FnOnce(&str)) -> Result<(), DaemonError> {
    demo::run_emulator(&settings, ready)
}

/// Leaves the terminal's session, so that closing it ends nothing.
///
/// Fails only for a process that leads a group already, which then has a session or a shell of its own.
pub fn detach() {
    // SAFETY: setsid takes no arguments and touches no memory.
    #[allow(unsafe_code)]
    let session = unsafe { libc::setsid() };
    if session < 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "no session of its own");
    }
    if let Err(error) = std::env::set_current_dir("/") {
        tracing::warn!(%error, "cannot leave the directory it was started in");
    }
}
