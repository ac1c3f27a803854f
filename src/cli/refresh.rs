//! `onedrivefs refresh`.

use std::path::PathBuf;

use serde::Serialize;

use super::output::{CliError, print_json};
use super::target;
use crate::config::Environment;
use crate::daemon::control::{Request, WirePath};
use crate::daemon::exit;

/// Look for changes on the service now.
///
/// Returns when what others have changed so far is visible in the mount. Without this it is asked for every
/// poll-interval (30 s). The signal SIGUSR1 makes a daemon look too.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs refresh
  onedrivefs refresh ~/OneDrive && ls ~/OneDrive/shared

Exit codes: 3 if no drive is mounted there; 5 if signed out; 6 if the service cannot be reached.")]
pub struct Args {
    /// Which mount: it, or anything in it [default: all mounts of yours]
    path: Option<PathBuf>,
    /// Print the mounts that were refreshed as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Refreshed {
    refreshed: Vec<WirePath>,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let mut refreshed = Vec::new();
    for mut target in target::all_or_one(args.path.as_deref(), &Environment::of_process())? {
        target.client.ask(&Request::Refresh { path: WirePath(target.inside) }, &mut |_| {})?;
        refreshed.push(WirePath(target.mountpoint));
    }
    if args.json {
        print_json(&Refreshed { refreshed })?;
    }
    Ok(exit::OK)
}
