//! `onedrivefs sync`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{CliError, outcome_lines, print, print_json};
use super::target;
use crate::config::Environment;
use crate::daemon::control::{Answer, Outcome, Progress, Request, WirePath};
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
    let mut all = Outcome::default();
    for mut target in target::all_or_one(args.path.as_deref(), &Environment::of_process())? {
        let timeout_ms = args.timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let request = Request::Sync { path: WirePath(target.inside), timeout_ms };
        let mut bar = Bar::new();
        let answer = target.client.ask(&request, &mut |progress| bar.show(progress));
        bar.clear();
        if let Answer::Outcome(outcome) = answer? {
            all.unsent += outcome.unsent;
            all.unprotected += outcome.unprotected;
            all.parked.extend(outcome.parked);
            all.waiting.extend(outcome.waiting);
        }
    }
    if args.json {
        print_json(&all)?;
    } else {
        print(&outcome_lines(&all))?;
    }
    Ok(if all.unsent > 0 { exit::UNSENT } else { exit::OK })
}

/// A progress bar on stderr; nothing where stderr is no terminal.
pub struct Bar(ProgressBar, &'static str);

impl Bar {
    /// Of what is sent.
    pub fn new() -> Self {
        Self::of("unsent")
    }

    /// Of what is left, which is called so.
    pub fn of(left: &'static str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let template = "{bar:30} {bytes:>10} of {total_bytes:<10} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar, left)
    }

    pub fn show(&mut self, progress: &Progress) {
        self.0.set_length(progress.total);
        self.0.set_position(progress.sent);
        let current = progress.current.as_deref().unwrap_or_default();
        self.0.set_message(format!("{} {}  {current}", progress.pending, self.1));
    }

    pub fn clear(self) {
        self.0.finish_and_clear();
    }
}
