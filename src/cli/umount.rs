//! `onedrivefs umount`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::mountpoint;
use super::output::{CliError, outcome_lines, print, print_json};
use super::sync::Bar;
use crate::config::Environment;
use crate::daemon::control::{Answer, Client, Outcome, Request};
use crate::daemon::{exit, mounts};
use crate::model::units;

/// How long a daemon may take to end after it has answered.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Send what is unsent, unmount, and say what remains.
///
/// What cannot be sent in time is kept and goes out at the next mount; the exit code is then 4.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs umount ~/OneDrive
  onedrivefs umount ~/OneDrive --timeout 10m   give a slow line more time
  onedrivefs umount ~/OneDrive --timeout 0     do not wait for sending")]
pub struct Args {
    /// Where the drive is mounted
    mountpoint: PathBuf,
    /// Longest wait for sending [default: the mount's drain-timeout, 60s]
    #[arg(long, value_name = "T", value_parser = units::parse_duration)]
    timeout: Option<Duration>,
    /// Print what remains as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let mountpoint = mountpoint::resolve(&args.mountpoint)?;
    let outcome = match Client::of_mount(&Environment::of_process(), &mountpoint) {
        Some(client) => drain(client, args.timeout, &mountpoint)?,
        None if mounts::is_mounted(&mountpoint) => {
            let lost = format!("{}: its daemon is gone; unmounting", mountpoint.display());
            eprintln!("onedrivefs: {lost}");
            mounts::unmount_dead(&mountpoint)?;
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

fn drain(mut client: Client, timeout: Option<Duration>, mountpoint: &Path) -> Result<Outcome, CliError> {
    let drain_timeout_ms = timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    let mut bar = Bar::new();
    let answer = client.ask(&Request::Unmount { drain_timeout_ms }, &mut |progress| bar.show(progress));
    bar.clear();
    let Answer::Outcome(outcome) = answer? else { return Err(output_error(mountpoint)) };
    if !client.wait_for_end(END_LIMIT) {
        eprintln!("onedrivefs: {}: unmounted; its daemon is still ending", mountpoint.display());
    }
    Ok(outcome)
}

fn output_error(mountpoint: &Path) -> CliError {
    CliError::new(
        exit::FAILURE,
        mountpoint.display(),
        "the daemon answered something else",
        "use the 'onedrivefs' that it was started from",
    )
}
