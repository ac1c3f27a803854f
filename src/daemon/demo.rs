//! The demonstration and the stand-alone emulator.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::lifecycle::{self, Signals};
use super::{DaemonError, DemoInfo, DemoSettings, EmulatorSettings, ExitReport, SeedTree, assemble, exit};
use crate::auth::StaticToken;
use crate::config::{Choices, Environment, MountSettings};
use crate::emulator::{Emulator, EmulatorConfig, Flavour, Seed, TlsFiles};
use crate::model::DriveType;

/// Any token is good for the demonstration's service.
const TOKEN: &str = "demonstration";

pub(super) fn run_demo(
    settings: &DemoSettings,
    ready: impl FnOnce(&DemoInfo),
) -> Result<ExitReport, DaemonError> {
    lifecycle::check(&settings.mountpoint, true)?;
    let work =
        tempfile::Builder::new().prefix("onedrivefs-demo-").tempdir().map_err(|error| DaemonError {
            what: "the demonstration's working directory".into(),
            why: error.to_string(),
            remedy: "set TMPDIR to a directory that can be written".into(),
            exit_code: exit::SYSTEM,
        })?;
    let runtime = lifecycle::runtime()?;
    let config = EmulatorConfig {
        flavour: Flavour::Personal,
        seed: seed(&settings.seed),
        data_dir: Some(work.path().to_owned()),
        ..EmulatorConfig::default()
    };
    let emulator = new_emulator(config)?;
    emulator.control().set_latency(settings.latency);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (service, stop) = listen(&runtime, &emulator, address, None)?;
    let (state_dir, cache_dir) = assemble::directories_in(work.path());
    let choices = Choices {
        state_dir: Some(state_dir),
        cache_dir: Some(cache_dir),
        graph_url: Some(service.parse().expect("an address of our own making is well formed")),
        // The emulated service throttles nobody.
        request_rate: Some(10_000),
        request_burst: Some(10_000),
        ..Choices::default()
    };
    let environment = Environment::of_process().without_settings();
    let mount =
        MountSettings::resolve("me", &settings.mountpoint, choices, &environment).map_err(|error| {
            DaemonError { what: error.what, why: error.why, remedy: error.remedy, exit_code: exit::USAGE }
        })?;
    let info =
        DemoInfo { mountpoint: settings.mountpoint.clone(), service, work_dir: work.path().to_owned() };
    let report = lifecycle::serve(&runtime, mount, Arc::new(StaticToken::new(TOKEN)), || ready(&info));
    stop.cancel();
    report
}

pub(super) fn run_emulator(settings: &EmulatorSettings, ready: impl FnOnce(&str)) -> Result<(), DaemonError> {
    let runtime = lifecycle::runtime()?;
    let defaults = EmulatorConfig::default();
    let config = EmulatorConfig {
        flavour: match settings.drive_type {
            DriveType::Personal => Flavour::Personal,
            DriveType::Business => Flavour::Business,
            DriveType::DocumentLibrary => Flavour::DocumentLibrary,
        },
        seed: seed(&settings.seed),
        data_dir: settings.data_dir.clone(),
        quota_total: settings
            .quota
            .map_or(defaults.quota_total, |quota| i64::try_from(quota).unwrap_or(i64::MAX)),
        switches: switches(&settings.switches)?,
        ..defaults
    };
    let emulator = new_emulator(config)?;
    emulator.control().set_latency(settings.latency);
    let (service, stop) = listen(&runtime, &emulator, settings.listen, settings.tls.as_ref())?;
    ready(&service);
    runtime.block_on(async {
        Signals::new()?.next().await;
        Ok::<(), DaemonError>(())
    })?;
    stop.cancel();
    Ok(())
}

fn seed(tree: &SeedTree) -> Seed {
    match tree {
        SeedTree::Empty => Seed::Empty,
        SeedTree::Sample => Seed::Sample,
        SeedTree::Directory(path) => Seed::Dir(path.clone()),
        SeedTree::Synthetic { files, per_folder, size } => {
            Seed::Synthetic { files: *files, per_folder: *per_folder, size: *size }
        }
    }
}

/// The switches by the names they have in the emulator's control interface.
fn switches(turned: &[(String, serde_json::Value)]) -> Result<crate::emulator::Switches, DaemonError> {
    let wrong = |what: &str, why: String| DaemonError {
        what: format!("switch '{what}'"),
        why,
        remedy: "see onedrivefs emulator --help".into(),
        exit_code: exit::USAGE,
    };
    let mut all =
        serde_json::to_value(crate::emulator::Switches::default()).expect("plain data is always written");
    for (name, value) in turned {
        match all.get_mut(name) {
            Some(slot) => *slot = value.clone(),
            None => return Err(wrong(name, "there is no such switch".into())),
        }
    }
    let names = turned.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    serde_json::from_value(all).map_err(|error| wrong(&names, error.to_string()))
}

fn new_emulator(config: EmulatorConfig) -> Result<Emulator, DaemonError> {
    Emulator::new(config).map_err(|error| DaemonError {
        what: "the emulated service".into(),
        why: error.to_string(),
        remedy: "give a --seed that can be read".into(),
        exit_code: exit::USAGE,
    })
}

/// Serves on a task; returns the service's address and what ends it.
fn listen(
    runtime: &Runtime,
    emulator: &Emulator,
    address: SocketAddr,
    tls: Option<&(std::path::PathBuf, std::path::PathBuf)>,
) -> Result<(String, CancellationToken), DaemonError> {
    let failed = |why: String| DaemonError {
        what: format!("listening on {address}"),
        why,
        remedy: "give --listen a free address of this machine, and --tls-cert/--tls-key PEM files".into(),
        exit_code: exit::SYSTEM,
    };
    let listener = runtime.block_on(TcpListener::bind(address)).map_err(|error| failed(error.to_string()))?;
    let bound = listener.local_addr().map_err(|error| failed(error.to_string()))?;
    let stop = CancellationToken::new();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let (emulator, ended) = (emulator.clone(), stop.clone().cancelled_owned());
    match tls {
        None => {
            runtime.spawn(async move { report(emulator.serve(listener, ended).await) });
        }
        Some((cert, key)) => {
            let tls = TlsFiles::read(cert, key).map_err(|error| failed(error.to_string()))?;
            runtime.spawn(async move { report(emulator.serve_tls(listener, tls, ended).await) });
        }
    }
    Ok((format!("{scheme}://{bound}"), stop))
}

fn report(ended: std::io::Result<()>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the emulated service ended");
    }
}
