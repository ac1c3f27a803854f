//! `onedrivefs sync`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::mountpoint;
use super::output::{CliError, outcome_lines, print, print_json};
use super::umount::not_mounted;
use crate::config::Environment;
use crate::daemon::control::{Answer, Client, Outcome, Presence, Progress, Request, WirePath, find_all};
use crate::daemon::exit;
use crate::model::units;

/// Wait until everything is on the service.
///
/// Without PATH: everything in every mount of yours. The exit code is 4 if something is still unsent when the
/// time is up, or cannot be sent until somebody does something.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs sync
  onedrivefs sync ~/OneDrive/thesis --timeout 5m && systemctl suspend")]
pub struct Args {
    /// What to wait for: a file or a directory in a mount
    path: Option<PathBuf>,
    /// Longest wait [default: as long as it takes]
    #[arg(long, value_name = "T", value_parser = units::parse_duration)]
    timeout: Option<Duration>,
    /// Print what remains as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let environment = Environment::of_process();
    let mut all = Outcome::default();
    for (mut client, path) in targets(args, &environment)? {
        let timeout_ms = args.timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let request = Request::Sync { path: WirePath(path), timeout_ms };
        let mut bar = Bar::new();
        let answer = client.ask(&request, &mut |progress| bar.show(progress));
        bar.clear();
        if let Answer::Outcome(outcome) = answer? {
            all.unsent += outcome.unsent;
            all.unprotected += outcome.unprotected;
            all.parked.extend(outcome.parked);
        }
    }
    if args.json {
        print_json(&all)?;
    } else {
        print(&outcome_lines(&all))?;
    }
    Ok(if all.unsent > 0 { exit::UNSENT } else { exit::OK })
}

/// The daemons to ask, each with a path relative to its mount.
fn targets(args: &Args, environment: &Environment) -> Result<Vec<(Client, PathBuf)>, CliError> {
    let Some(path) = &args.path else {
        let alive =
            find_all(environment).into_iter().filter(|found| matches!(found.presence, Presence::Alive(_)));
        let clients = alive.filter_map(|found| Client::connect(&found.socket).ok());
        return Ok(clients.map(|client| (client, PathBuf::new())).collect());
    };
    let path = mountpoint::resolve_inside(path)?;
    let (client, mountpoint) = Client::of_path(environment, &path).ok_or_else(|| not_mounted(&path))?;
    let inside = path.strip_prefix(&mountpoint).map(ToOwned::to_owned).unwrap_or_default();
    Ok(vec![(client, inside)])
}

/// A progress bar on stderr; nothing where stderr is no terminal.
pub struct Bar(ProgressBar);

impl Bar {
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let template = "{bar:30} {bytes:>10} of {total_bytes:<10} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub fn show(&mut self, progress: &Progress) {
        self.0.set_length(progress.total);
        self.0.set_position(progress.sent);
        let current = progress.current.as_deref().unwrap_or_default();
        self.0.set_message(format!("{} unsent  {current}", progress.pending));
    }

    pub fn clear(self) {
        self.0.finish_and_clear();
    }
}
