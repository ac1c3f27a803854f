//! `onedrivefs umount`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::mountpoint;
use super::output::{CliError, outcome_lines, print, print_json};
use super::sync::Bar;
use super::target;
use crate::config::Environment;
use crate::daemon::control::{Answer, Client, Outcome, Request};
use crate::daemon::{exit, mounts};
use crate::model::units;

/// How long a daemon may take to end after it has answered.
const END_LIMIT: Duration = Duration::from_secs(10);
/// As long where programs may keep it from ending.
const LAZY_END_LIMIT: Duration = Duration::from_secs(1);

/// Send what is unsent, unmount, and say what remains.
///
/// What cannot be sent in time is kept and goes out at the next mount; the exit code is then 4. Nothing is sent from a
/// mount that programs use: it stays, and they are named (exit code 7).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs umount ~/OneDrive
  onedrivefs umount ~/OneDrive --drain-timeout 10m   give a slow line more time
  onedrivefs umount ~/OneDrive --drain-timeout 0s    do not wait for sending
  onedrivefs umount ~/OneDrive --lazy                though programs still use it

Exit codes: 0 if nothing remains; 3 if no drive is mounted there; 4 if something is still unsent;
7 if programs use it.")]
pub struct Args {
    /// Where the drive is mounted
    mountpoint: PathBuf,
    /// Longest wait for sending [default: the mount's drain-timeout, 60s]
    #[arg(long, visible_alias = "timeout", value_name = "T", value_parser = units::parse_duration)]
    drain_timeout: Option<Duration>,
    /// Take it out of the tree though programs use it: what they have open works until they close it, and is sent
    /// then
    #[arg(long)]
    lazy: bool,
    /// Print what remains as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// As umount(8) asks for it.
    pub fn of_helper(mountpoint: PathBuf, drain_timeout: Option<Duration>, lazy: bool) -> Self {
        Self { mountpoint, drain_timeout, lazy, json: false }
    }
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let mountpoint = mountpoint::resolve(&args.mountpoint)?;
    // Run inside the mount, this process would be one that uses it. Where it cannot leave, that is said.
    let _ = std::env::set_current_dir("/");
    let outcome = match Client::of_mount(&Environment::of_process(), &mountpoint) {
        Some(client) => drain(client, args, &mountpoint)?,
        None if mounts::is_mounted(&mountpoint) => {
            let lost = format!("{}: its daemon is gone; unmounting", mountpoint.display());
            eprintln!("onedrivefs: {lost}");
            mounts::unmount_here(&mountpoint, args.lazy)?;
            Outcome::default()
        }
        None => return Err(not_mounted(&mountpoint)),
    };
    if args.json {
        print_json(&outcome)?;
    } else {
        print(&outcome_lines(&outcome))?;
    }
    Ok(if outcome.unsent > 0 { exit::UNSENT } else { exit::OK })
}

/// There is no mount of ours there.
pub fn not_mounted(mountpoint: &Path) -> CliError {
    let remedy = "'onedrivefs status' lists what is mounted";
    CliError::new(exit::NOT_MOUNTED, mountpoint.display(), "no drive is mounted there", remedy)
}

fn drain(mut client: Client, args: &Args, mountpoint: &Path) -> Result<Outcome, CliError> {
    let drain_timeout_ms =
        args.drain_timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    let request = Request::Unmount { drain_timeout_ms, lazy: args.lazy };
    let mut bar = Bar::new();
    let answer = client.ask(&request, &mut |progress| bar.show(progress));
    bar.clear();
    let Answer::Outcome(outcome) = answer? else { return Err(target::misunderstood(mountpoint)) };
    let limit = if args.lazy { LAZY_END_LIMIT } else { END_LIMIT };
    if !client.wait_for_end(limit) {
        let rest = if args.lazy {
            "out of the tree; its daemon goes on until the programs that use it let go"
        } else {
            "unmounted; its daemon is still ending"
        };
        eprintln!("onedrivefs: {}: {rest}", mountpoint.display());
    }
    Ok(outcome)
}
