//! `onedrivefs retry`.

use std::path::PathBuf;

use serde::Serialize;

use super::output::{CliError, changes, print, print_json};
use super::target;
use crate::config::Environment;
use crate::daemon::control::{Answer, Request, WirePath};
use crate::daemon::exit;

/// Try now what could not be sent.
///
/// Changes that the service refuses are kept, and tried again by themselves where time may help. This tries them at
/// once: when you have made room, got a permission or closed a file elsewhere. 'onedrivefs status' shows what waits
/// and why.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs retry
  onedrivefs retry ~/OneDrive/thesis && onedrivefs sync ~/OneDrive/thesis

The exit code is 0 also where nothing waits; whether it could be sent, 'onedrivefs sync' says.")]
pub struct Args {
    /// Only what is at or below PATH [default: all mounts of yours]
    path: Option<PathBuf>,
    /// Print how many changes are tried again as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Retried {
    retried: u64,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let mut retried = 0;
    for mut target in target::all_or_one(args.path.as_deref(), &Environment::of_process())? {
        let request = Request::Retry { path: WirePath(target.inside) };
        match target.client.ask(&request, &mut |_| {})? {
            Answer::Retried(count) => retried += count,
            _ => return Err(target::misunderstood(&target.mountpoint)),
        }
    }
    if args.json {
        print_json(&Retried { retried })?;
    } else if retried == 0 {
        print("nothing to try again\n")?;
    } else {
        print(&format!("trying {} again\n", changes(retried)))?;
    }
    Ok(exit::OK)
}
