//! `onedrivefs unpin`.

use std::path::PathBuf;

use super::output::{CliError, print, print_json};
use super::target;
use crate::config::Environment;
use crate::daemon::control::{Answer, Request, WirePath};
use crate::daemon::exit;

/// Keep files on this machine no longer than the cache has room.
///
/// Takes the pins of PATH and of what is below it away. What is here stays until the cache needs its room;
/// 'onedrivefs free' gives it up at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs unpin ~/OneDrive/thesis
  onedrivefs unpin ~/OneDrive          all pins of a mount

Exit codes: 0, also where nothing was pinned; 2 if PATH is pinned with a folder above it.")]
pub struct Args {
    /// Files and folders in a mount
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Print how many pins were taken away as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let mut unpinned = 0;
    for path in &args.paths {
        let mut target = target::of_path(path, &Environment::of_process())?;
        match target.client.ask(&Request::Unpin { path: WirePath(target.inside) }, &mut |_| {})? {
            Answer::Unpinned(count) => unpinned += count,
            _ => return Err(target::misunderstood(&target.mountpoint)),
        }
    }
    if args.json {
        print_json(&serde_json::json!({ "unpinned": unpinned }))?;
    } else if unpinned == 0 {
        print("nothing was pinned there\n")?;
    }
    Ok(exit::OK)
}
