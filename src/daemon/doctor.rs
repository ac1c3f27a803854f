//! What has to be right before a mount works, looked at one by one, each with what to do.

mod machine;
mod network;
mod permissions;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::assemble::{credentials, find_error, graph};
use super::{DaemonError, exit, lifecycle, signin};
use crate::auth::TokenSource;
use crate::clock::{Clock, SystemClock};
use crate::config::{Environment, MountSettings};
use crate::graph::{DriveAddress, Graph};
use crate::model::units::approximate_size;

/// So long one look may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Works, and is worth a word.
    Note,
    /// Has to be put right.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub check: &'static str,
    /// How it is.
    pub health: Health,
    /// What was found.
    pub found: String,
    /// What to do, where there is something.
    pub remedy: Option<String>,
    /// The exit code of a command that meets it.
    #[serde(skip)]
    pub exit_code: u8,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, health: Health::Ok, found: found.into(), remedy: None, exit_code: exit::OK }
    }

    fn note(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { check, health: Health::Note, found: found.into(), remedy, exit_code: exit::OK }
    }

    /// Something has to be done.
    pub fn bad(
        check: &'static str,
        exit_code: u8,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { check, health: Health::Bad, found: found.into(), remedy: Some(remedy.into()), exit_code }
    }

    fn of(check: &'static str, error: &DaemonError) -> Self {
        let found = format!("{}: {}", error.what, error.why);
        Self::bad(check, error.exit_code, found, error.remedy.clone())
    }
}

/// What is to be looked at.
#[derive(Clone, Debug)]
pub struct Patient {
    /// Of the mount, or of any of the account.
    pub settings: MountSettings,
    /// The mount itself, where one is meant; without, the account's own drive.
    pub mountpoint: Option<PathBuf>,
    /// The variables it goes by.
    pub environment: Environment,
}

/// Looks at everything. Blocks; `tell` gets each finding when it is there.
pub fn examine(patient: &Patient, tell: &mut dyn FnMut(Finding)) {
    let Patient { settings, mountpoint, environment } = patient;
    machine::findings(settings, mountpoint.as_deref(), environment).into_iter().for_each(&mut *tell);
    let runtime = match lifecycle::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return tell(Finding::of("threads", &error)),
    };
    let mut settings = settings.clone();
    // The account knows at which addresses it is signed in.
    let tokens = credentials(&mut settings);
    let mut all = network::proxies(&settings, environment);
    all.extend(network::certificates(environment));
    all.into_iter().for_each(&mut *tell);
    let reached = runtime.block_on(network::services(&settings, environment, tell));
    let tokens = match tokens {
        Ok(tokens) => tokens,
        Err(error) => return tell(Finding::of("sign-in", &error)),
    };
    if reached {
        runtime.block_on(account(&settings, tokens, mountpoint.is_some(), tell));
    } else {
        tell(Finding::note(
            "sign-in",
            "not asked: the service is out of reach",
            "put the network right first",
        ));
    }
}

/// The sign-in, what it allows, and the drive.
async fn account(
    settings: &MountSettings,
    tokens: Arc<dyn TokenSource>,
    is_mount: bool,
    tell: &mut dyn FnMut(Finding),
) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let graph = match graph(settings, Arc::clone(&tokens), &clock) {
        Ok(graph) => graph,
        Err(error) => return tell(Finding::of("sign-in", &error)),
    };
    let token = match tokio::time::timeout(PATIENCE, tokens.token()).await {
        Ok(Ok(token)) => token,
        Ok(Err(error)) => {
            let remedy = format!("run 'onedrivefs login {}'", settings.account);
            return tell(Finding::bad("sign-in", exit::SIGNED_OUT, error.to_string(), remedy));
        }
        Err(_) => return tell(Finding::bad("sign-in", exit::SERVICE, "no answer in time", "try again")),
    };
    let who = match std::env::var_os("ONEDRIVEFS_ACCESS_TOKEN") {
        Some(_) => "a token from ONEDRIVEFS_ACCESS_TOKEN; it lasts as long as that".to_owned(),
        None => format!("account '{}' has a token", settings.account),
    };
    tell(Finding::ok("sign-in", who));
    tell(permissions::finding(token.expose(), settings.read_only));
    if is_mount && (settings.drive == "all" || settings.drive.contains(',')) {
        return tell(several(&graph, settings).await);
    }
    if !is_mount && signin::is_application(settings) {
        return tell(several(&graph, settings).await);
    }
    tell(drive(&graph, settings).await);
}

async fn several(graph: &Graph, settings: &MountSettings) -> Finding {
    match tokio::time::timeout(PATIENCE, graph.sites()).await {
        Ok(Ok(sites)) => Finding::ok("drives", format!("{} sites are reached", sites.len())),
        Ok(Err(error)) => Finding::of("drives", &super::assemble::service_error(settings, &error)),
        Err(_) => Finding::bad("drives", exit::SERVICE, "no answer in time", "try again"),
    }
}

async fn drive(graph: &Graph, settings: &MountSettings) -> Finding {
    let Ok(address) = settings.drive.parse::<DriveAddress>() else {
        return Finding::of("drive", &super::assemble::no_drive(&settings.drive));
    };
    // To look at a link must not redeem it.
    if DriveAddress::shown(&settings.drive) != settings.drive {
        return Finding::note("drive", "a sharing link is not opened for a look", "mount it to see");
    }
    let found = match tokio::time::timeout(PATIENCE, graph.find(&address)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Finding::of("drive", &find_error(settings, &error)),
        Err(_) => return Finding::bad("drive", exit::SERVICE, "no answer in time", "try again"),
    };
    let what = format!("'{}' is reached", settings.drive);
    match found.drive.quota.filter(|quota| quota.total > 0) {
        Some(quota) if quota.exceeded || quota.remaining == 0 => {
            let found = format!("{what}; its {} are full", approximate_size(quota.total));
            Finding::note("drive", found, "make room: what is written stays on this machine until then")
        }
        Some(quota) => {
            let (used, total) = (approximate_size(quota.used), approximate_size(quota.total));
            Finding::ok("drive", format!("{what}; {used} of {total} used"))
        }
        None => Finding::ok("drive", what),
    }
}
