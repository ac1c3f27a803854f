//! `onedrivefs confirm`.

use std::path::PathBuf;

use super::mountpoint;
use super::output::{CliError, print, print_json};
use super::umount::not_mounted;
use crate::config::Environment;
use crate::daemon::control::{Answer, Client, Presence, Request, find_all};
use crate::daemon::exit;

/// Let deletes go on that wait for a confirmation.
///
/// What programs unlink is deleted on the service without asking. When the whole drive had to be read again before that
/// was done, and more than 'confirm-above' deletes (or half of a large drive) are left, they wait, and 'onedrivefs
/// status' says so. To keep something instead, make it again under its name. Without MOUNTPOINT: every mount of yours.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs status                what waits
  onedrivefs confirm ~/OneDrive    delete it")]
pub struct Args {
    /// Where the drive is mounted
    mountpoint: Option<PathBuf>,
    /// Print how many deletes go on as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let mut confirmed = 0;
    for mut client in clients(args)? {
        if let Answer::Confirmed(count) = client.ask(&Request::Confirm, &mut |_| {})? {
            confirmed += count;
        }
    }
    if args.json {
        print_json(&serde_json::json!({ "confirmed": confirmed }))?;
    } else {
        let lines = match confirmed {
            0 => "nothing waits for a confirmation\n".to_owned(),
            1 => "1 delete goes on\n".to_owned(),
            count => format!("{count} deletes go on\n"),
        };
        print(&lines)?;
    }
    Ok(exit::OK)
}

fn clients(args: &Args) -> Result<Vec<Client>, CliError> {
    let environment = Environment::of_process();
    let Some(mountpoint) = &args.mountpoint else {
        let found = find_all(&environment).into_iter();
        let alive = found.filter(|found| matches!(found.presence, Presence::Alive(_)));
        return Ok(alive.filter_map(|found| Client::connect(&found.socket).ok()).collect());
    };
    let mountpoint = mountpoint::resolve(mountpoint)?;
    let client = Client::of_mount(&environment, &mountpoint).ok_or_else(|| not_mounted(&mountpoint))?;
    Ok(vec![client])
}
