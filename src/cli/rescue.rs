//! `onedrivefs rescue`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{CliError, files, print, print_json};
use super::{mountpoint, settings, target};
use crate::config::Environment;
use crate::daemon::control::{Answer, Presence, Request, Status, find_all};
use crate::daemon::rescue::{RescueReport, RescueRequest, Saved, find_sources, rescue};
use crate::daemon::{exit, mounts};
use crate::model::units::approximate_size;

/// Copy what is unsent out of the state directory.
///
/// Saves every change that is not on the service yet, and every file that lives on this machine only, into DIR under
/// the path that it was meant for. Works beside a mount, without one, and with a store that does not open. Nothing of
/// the state is changed and nothing is sent; nothing in DIR is overwritten; what is written is read back and compared.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs rescue ~/rescued                          every drive of yours
  onedrivefs rescue ~/rescued ~/OneDrive               the drive that is mounted there
  onedrivefs rescue ~/rescued me --json | jq .failed
  onedrivefs rescue ~/rescued --state-dir /mnt/old-disk/home/ada/.local/state/onedrivefs

Exit codes: 0 if all was saved whole and under its name, also where nothing is unsent;
1 if something could not be; 2 if there is no state, or DIR cannot be used.")]
pub struct Args {
    /// Where to: made if it is not there, outside of every mount
    dir: PathBuf,
    /// Which: where a drive is mounted, 'me', or a drive's id [default: every drive there is]
    #[arg(value_name = "MOUNTPOINT|DRIVE")]
    what: Option<PathBuf>,
    /// Where unsent data is kept: what the drive was mounted with, or a directory below it
    #[arg(long, value_name = "S")]
    state_dir: Option<String>,
    /// Where content is cached: completes files that were changed in part
    #[arg(long, value_name = "D")]
    cache_dir: Option<String>,
    /// Only the drives of this account
    #[arg(long, value_name = "A")]
    account: Option<String>,
    /// Print what was saved and what was not as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let environment = Environment::of_process();
    let dir = std::path::absolute(&args.dir)
        .map_err(|error| CliError::new(exit::USAGE, args.dir.display(), error, "give a directory"))?;
    let request = request(args, &environment)?;
    check_target(&dir, &request)?;
    let sources = find_sources(&request)?;
    let mut bar = Bar::new();
    let report = rescue(&dir, &sources, &mut |word| bar.show(word.done, word.total, &word.current));
    bar.clear();
    let report = report?;
    if args.json {
        print_json(&report)?;
    } else {
        print(&text(&report))?;
    }
    Ok(if report.is_complete() { exit::OK } else { exit::FAILURE })
}

fn request(args: &Args, environment: &Environment) -> Result<RescueRequest, CliError> {
    let mounted = statuses(environment);
    let by_state = |status: &Status| (status.state_dir.0.clone(), status.mountpoint.0.clone());
    let mut mounts: BTreeMap<PathBuf, PathBuf> = mounted.iter().map(by_state).collect();
    let flags = settings::given(&[("state-dir", &args.state_dir), ("cache-dir", &args.cache_dir)])?;
    let settings = settings::without_mount(flags, environment)?;
    let mut request = RescueRequest {
        state_root: settings.state_dir,
        cache_root: settings.cache_dir,
        account: args.account.clone(),
        ..RescueRequest::default()
    };
    match args.what.as_deref() {
        None => {}
        Some(what) => match status_of(what, environment)? {
            Some(status) => {
                mounts.insert(status.state_dir.0.clone(), status.mountpoint.0.clone());
                (request.state_root, request.cache_root) = (status.state_dir.0, status.cache_dir.0);
            }
            None => request.drive = Some(what.to_string_lossy().into_owned()),
        },
    }
    request.mounts = mounts;
    Ok(request)
}

fn statuses(environment: &Environment) -> Vec<Status> {
    let alive = find_all(environment).into_iter().filter_map(|found| match found.presence {
        Presence::Alive(status) => Some(*status),
        Presence::Unwell(_) | Presence::Dead => None,
    });
    alive.collect()
}

/// The mount that is meant, if one is: a drive's id may look like anything but a directory.
fn status_of(what: &Path, environment: &Environment) -> Result<Option<Status>, CliError> {
    if !what.is_absolute() && !what.exists() && what.components().count() == 1 {
        return Ok(None);
    }
    let mut target = target::of_path(what, environment)?;
    match target.client.ask(&Request::Status, &mut |_| {})? {
        Answer::Status(status) => Ok(Some(*status)),
        _ => Err(target::misunderstood(&target.mountpoint)),
    }
}

/// What is saved must not become unsent itself, or part of what is read.
fn check_target(dir: &Path, request: &RescueRequest) -> Result<(), CliError> {
    let wrong = |why: &str| {
        Err(CliError::new(
            exit::USAGE,
            dir.display(),
            why,
            "give a directory outside of it, such as ~/rescued",
        ))
    };
    let real = mountpoint::resolve_inside(dir).unwrap_or_else(|_| dir.to_owned());
    if real.ancestors().any(mounts::is_mounted) {
        return wrong("it is inside a mount of onedrivefs");
    }
    let state = request.state_root.canonicalize().unwrap_or_else(|_| request.state_root.clone());
    if real.starts_with(state) {
        return wrong("it is inside the state directory");
    }
    if real.exists() && !real.is_dir() {
        return wrong("it is no directory");
    }
    Ok(())
}

fn text(report: &RescueReport) -> String {
    let mut text = String::new();
    for source in &report.sources {
        if let Some(damage) = &source.damage {
            text += &format!("{}: the store: {damage}\n", source.state_dir.as_path().display());
        }
    }
    let is_new = |saved: &&Saved| !saved.was_there;
    let new: Vec<&Saved> = report.saved.iter().filter(is_new).collect();
    let there = report.saved.len() - new.len();
    if report.saved.is_empty() && report.failed.is_empty() {
        return text + "nothing is unsent\n";
    }
    let size = approximate_size(new.iter().map(|saved| saved.size).sum());
    let dir = report.dir.as_path();
    let made = new.iter().filter(|saved| saved.blake3.is_none()).count();
    let besides = if made > 0 { format!(" and {made} folders or links") } else { String::new() };
    text += &format!("{}{besides} ({size}) saved in {}\n", files((new.len() - made) as u64), dir.display());
    if there > 0 {
        let verb = if there == 1 { "was" } else { "were" };
        text += &format!("{there} {verb} there already\n");
    }
    for saved in &report.saved {
        let to = saved.to.as_path().strip_prefix(dir).unwrap_or(saved.to.as_path());
        match &saved.doubt {
            Some(doubt) => text += &format!("  {}: {doubt}\n", to.display()),
            None if is_renamed(to, saved.path.as_path()) => {
                text += &format!(
                    "  {}: its name was taken: it is {}\n",
                    saved.path.as_path().display(),
                    to.display()
                );
            }
            None => {}
        }
    }
    for failed in &report.failed {
        text += &format!("not saved: {}: {}\n", failed.path.as_path().display(), failed.why);
    }
    text
}

/// With several drives, each has a directory of its own.
fn is_renamed(to: &Path, path: &Path) -> bool {
    !to.ends_with(path)
}

/// A progress bar on stderr; nothing where stderr is no terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes:>10} of {total_bytes:<10} {msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    fn show(&mut self, done: u64, total: u64, current: &str) {
        self.0.set_length(total);
        self.0.set_position(done);
        self.0.set_message(current.to_owned());
    }

    fn clear(self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::control::WirePath;
    use crate::daemon::rescue::{NotSaved, SourceReport};

    fn saved(path: &str, to: &str, doubt: Option<&str>) -> Saved {
        Saved {
            path: WirePath(path.into()),
            to: WirePath(Path::new("/r").join(to)),
            size: 1024,
            blake3: Some("00".into()),
            was_there: false,
            doubt: doubt.map(Into::into),
        }
    }

    #[test]
    fn a_rescue_says_what_was_saved_where_and_what_was_not() {
        let report = RescueReport {
            dir: WirePath("/r".into()),
            sources: vec![SourceReport {
                state_dir: WirePath("/s".into()),
                in_use: false,
                damage: Some("it cannot be read: x".into()),
            }],
            saved: vec![
                saved("d/a", "d/a", None),
                saved("b", "b (2)", None),
                Saved { was_there: true, ..saved("c", "c", None) },
                saved("recovered-7", "recovered-7", Some("its name is not known")),
            ],
            failed: vec![NotSaved { path: WirePath("e".into()), why: "input/output error".into() }],
        };
        let expected = "/s: the store: it cannot be read: x\n\
                        3 files (3.0 KiB) saved in /r\n\
                        1 was there already\n  \
                        b: its name was taken: it is b (2)\n  \
                        recovered-7: its name is not known\n\
                        not saved: e: input/output error\n";
        assert_eq!(text(&report), expected);
        assert!(!report.is_complete());
        assert_eq!(text(&RescueReport::default()), "nothing is unsent\n");
    }
}
