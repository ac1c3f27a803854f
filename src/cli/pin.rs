//! `onedrivefs pin`.

use std::path::PathBuf;

use super::output::{CliError, files, print, print_json};
use super::sync::Bar;
use super::target;
use crate::config::Environment;
use crate::daemon::control::{Answer, MountState, PinOutcome, Request, WirePath};
use crate::daemon::exit;
use crate::model::units;

/// Keep files on this machine, so that they can be read offline.
///
/// Of a folder all that is in it, and what comes into it later, here or elsewhere. They are fetched in the background
/// when nothing else needs the line, stay when the cache makes room, and new versions are fetched as they come. A pin
/// goes with its file or folder when that is renamed or moved, and lasts until 'onedrivefs unpin'. This waits until
/// all of it is here; when it is interrupted, the daemon goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs pin ~/OneDrive/thesis ~/OneDrive/map.pdf
  onedrivefs pin --no-wait ~/OneDrive/music
  onedrivefs cache ~/OneDrive                          what is pinned, and how far it is

Exit codes: 0 if all is here, or --no-wait was given; 2 if it is more than the cache may hold;
6 if the service cannot be reached or refuses some of it: the rest is here, and it is tried again by itself.")]
pub struct Args {
    /// Files and folders in a mount
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Do not wait until they are here
    #[arg(long)]
    no_wait: bool,
    /// Print how far it is as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let environment = Environment::of_process();
    let mut outcomes = Vec::new();
    // All are pinned before any is waited for: who has enough of waiting has pinned them all.
    for path in &args.paths {
        outcomes.push(ask(path, false, &environment)?);
    }
    if !args.no_wait {
        for (path, outcome) in args.paths.iter().zip(&mut outcomes) {
            *outcome = ask(path, true, &environment)?;
        }
    }
    if args.json {
        print_json(&outcomes)?;
    } else {
        for (path, outcome) in args.paths.iter().zip(&outcomes) {
            print(&lines(&path.display().to_string(), outcome, args.no_wait))?;
        }
    }
    Ok(if args.no_wait { exit::OK } else { outcomes.iter().map(code).max().unwrap_or(exit::OK) })
}

fn ask(path: &std::path::Path, wait: bool, environment: &Environment) -> Result<PinOutcome, CliError> {
    let mut target = target::of_path(path, environment)?;
    let mut bar = Bar::of("to fetch");
    let request = Request::Pin { path: WirePath(target.inside), wait };
    let answer = target.client.ask(&request, &mut |progress| bar.show(progress));
    bar.clear();
    match answer? {
        Answer::Pinned(outcome) => Ok(outcome),
        _ => Err(target::misunderstood(&target.mountpoint)),
    }
}

fn code(outcome: &PinOutcome) -> u8 {
    match outcome {
        PinOutcome { missing_files: 0, .. } => exit::OK,
        PinOutcome { no_room: Some(_), .. } => exit::USAGE,
        PinOutcome { waits_for: Some(MountState::SignedOut), .. } => exit::SIGNED_OUT,
        _ => exit::SERVICE,
    }
}

fn lines(path: &str, outcome: &PinOutcome, no_wait: bool) -> String {
    let all = format!("{path}: pinned, {}, {}", files(outcome.files), units::approximate_size(outcome.bytes));
    if outcome.missing_files == 0 {
        let here = if no_wait { "" } else { ", all here" };
        return format!("{all}{here}\n");
    }
    format!("{all}; {}\n{}", missing(outcome), pin_troubles(outcome))
}

/// How much is not here yet, and what that waits for.
pub fn missing(outcome: &PinOutcome) -> String {
    let queued = match outcome.waits_for {
        Some(MountState::SignedOut) => ", queued until somebody signs in",
        Some(_) => ", queued until the service can be reached",
        None => "",
    };
    let (size, count) = (units::approximate_size(outcome.missing_bytes), files(outcome.missing_files));
    format!("{size} of {count} to fetch{queued}")
}

/// What keeps pinned files from being here, in lines for people.
pub fn pin_troubles(outcome: &PinOutcome) -> String {
    let mut text = String::new();
    if let Some(room) = outcome.no_room {
        text += &format!(
            "  what is pinned takes {}, and the cache may hold {}: the rest is not fetched; unpin something, make room \
             on the disk, or mount with a larger cache-size\n",
            units::approximate_size(room.needed),
            units::approximate_size(room.capacity)
        );
    }
    for trouble in &outcome.troubles {
        text += &format!("  {}: {}; {}\n", trouble.path.0.display(), trouble.why, trouble.remedy);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::control::NoRoom;

    #[test]
    fn what_is_not_here_yet_is_said_with_its_reason() {
        let outcome = PinOutcome { files: 3, bytes: 3 << 20, ..PinOutcome::default() };
        assert!(lines("a", &outcome, false).ends_with("all here\n"));
        assert_eq!(code(&outcome), exit::OK);
        let missing = PinOutcome { missing_files: 1, missing_bytes: 1 << 20, ..outcome };
        let offline = PinOutcome { waits_for: Some(MountState::Offline), ..missing.clone() };
        assert!(lines("a", &offline, false).contains("queued until the service can be reached"));
        assert_eq!(code(&offline), exit::SERVICE);
        let full = PinOutcome { no_room: Some(NoRoom { needed: 9 << 30, capacity: 1 << 30 }), ..missing };
        assert!(lines("a", &full, false).contains("mount with a larger cache-size"));
        assert_eq!(code(&full), exit::USAGE);
    }
}
