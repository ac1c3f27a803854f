//! `onedrivefs conflicts`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::output::{CliError, print, print_json};
use super::target;
use crate::config::Environment;
use crate::daemon::control::{Answer, ConflictCause, ConflictLine, Keep, Request, WirePath};
use crate::daemon::exit;
use crate::model::units::approximate_size;

/// List conflict copies, or settle them.
///
/// When a file was changed here and elsewhere, the version of the service keeps the name, and yours is kept beside
/// it as a conflict copy. Which files are copies is recorded when they are made; a copy stays in the list until it
/// is settled, or one of the two is deleted.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  onedrivefs conflicts                              all of them, in every mount of yours
  onedrivefs conflicts ~/OneDrive/thesis --json | jq -r '.[].path'
  onedrivefs conflicts keep-local 'a (conflict box 2026-03-01 081530).txt'

Exit codes: 0 also where there are none; 2 if PATH is no conflict copy; 4 if a copy that would be
removed is not on the service yet; 7 if a program has one of the two open."
)]
pub struct Args {
    #[command(subcommand)]
    settle: Option<Settle>,
    /// Only those at or below PATH, or beside it [default: all mounts of yours]
    path: Option<PathBuf>,
    /// Print a list of objects as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Settle {
    /// Make the copy's content the file's: one new version of the same item; the copy goes
    ///
    /// The version that is replaced stays in the file's history on the service. Should somebody change the file
    /// before that is sent, there is a conflict copy again.
    #[command(
        name = "keep-local",
        after_help = "Examples:
  onedrivefs conflicts keep-local 'report (conflict box 2026-03-01 081530).docx'
  onedrivefs conflicts keep-local report.docx       if it has one copy only"
    )]
    Local(Paths),
    /// Leave the file as it is; the copy goes to the recycle bin
    ///
    /// A copy that is not on the service yet is not removed: nobody could bring it back.
    #[command(
        name = "keep-remote",
        after_help = "Examples:
  onedrivefs conflicts keep-remote 'report (conflict box 2026-03-01 081530).docx'"
    )]
    Remote(Paths),
    /// Leave both, as two files like any others
    #[command(
        name = "keep-both",
        after_help = "Examples:
  onedrivefs conflicts keep-both report*conflict*.docx"
    )]
    Both(Paths),
}

#[derive(Debug, clap::Args)]
struct Paths {
    /// Conflict copies; or files that have one copy only
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Print the paths that were settled as JSON
    #[arg(long)]
    json: bool,
}

/// A conflict copy with paths that can be used as they are.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    line: ConflictLine,
    mountpoint: WirePath,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    match &args.settle {
        None => list(args),
        Some(Settle::Local(paths)) => settle(paths, Keep::Local),
        Some(Settle::Remote(paths)) => settle(paths, Keep::Remote),
        Some(Settle::Both(paths)) => settle(paths, Keep::Both),
    }
}

fn list(args: &Args) -> Result<u8, CliError> {
    let mut all = Vec::new();
    for mut target in target::all_or_one(args.path.as_deref(), &Environment::of_process())? {
        let request = Request::Conflicts { path: WirePath(target.inside.clone()) };
        let Answer::Conflicts(lines) = target.client.ask(&request, &mut |_| {})? else {
            return Err(target::misunderstood(&target.mountpoint));
        };
        let absolute = |path: &WirePath| WirePath(target.mountpoint.join(path.as_path()));
        all.extend(lines.into_iter().map(|line| Shown {
            line: ConflictLine { path: absolute(&line.path), beside: absolute(&line.beside), ..line },
            mountpoint: WirePath(target.mountpoint.clone()),
        }));
    }
    if args.json {
        print_json(&all)?;
    } else if all.is_empty() {
        print("no conflict copies\n")?;
    } else {
        let shown: Vec<String> = all.iter().map(|shown| text(&shown.line)).collect();
        print(&shown.join(""))?;
        let first = all[0].line.path.as_path().display();
        print(&format!("settle with: onedrivefs conflicts keep-local|keep-remote|keep-both '{first}'\n"))?;
    }
    Ok(exit::OK)
}

fn text(line: &ConflictLine) -> String {
    let cause = match line.cause {
        ConflictCause::BothChanged => "changed here and elsewhere",
        ConflictCause::NameTaken => "the name was taken elsewhere",
        ConflictCause::PowerCut => "not synced when the power went or the disk failed",
    };
    let state = match (line.state.as_str(), &line.reason) {
        ("sent", _) => "on the service".to_owned(),
        (_, Some(reason)) => format!("not on the service yet: {reason}"),
        (_, None) => "not on the service yet".to_owned(),
    };
    let beside = line.beside.as_path();
    let beside = beside.file_name().map_or(beside, Path::new);
    format!(
        "{}\n  copy       {}, {state}\n  beside     {}, {}\n  made       {} on {}: {cause}\n",
        line.path.as_path().display(),
        approximate_size(line.size),
        beside.display(),
        approximate_size(line.beside_size),
        line.at,
        line.host,
    )
}

/// Settles each; one that cannot be settled does not keep the others from it.
fn settle(paths: &Paths, keep: Keep) -> Result<u8, CliError> {
    let environment = Environment::of_process();
    let mut settled = Vec::new();
    let mut failed = None;
    for path in &paths.paths {
        match settle_one(path, keep, &environment) {
            Ok(()) => settled.push(WirePath(path.clone())),
            Err(error) => {
                error.print();
                failed = failed.or(Some(error.exit_code));
            }
        }
    }
    if paths.json {
        print_json(&settled)?;
    }
    Ok(failed.unwrap_or(exit::OK))
}

fn settle_one(path: &Path, keep: Keep, environment: &Environment) -> Result<(), CliError> {
    let mut target = target::of_path(path, environment)?;
    let request = Request::Settle { path: WirePath(target.inside), keep };
    target.client.ask(&request, &mut |_| {})?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_copy_is_shown_with_what_is_needed_to_decide() {
        let shown = text(&ConflictLine {
            path: WirePath("/m/d/a (conflict box 2026-03-01 081530).txt".into()),
            beside: WirePath("/m/d/a.txt".into()),
            host: "box".into(),
            at: "2026-03-01T08:15:30Z".into(),
            cause: ConflictCause::BothChanged,
            size: 2048,
            beside_size: 10,
            state: "parked".into(),
            reason: Some("the drive is full".into()),
        });
        assert_eq!(
            shown,
            "/m/d/a (conflict box 2026-03-01 081530).txt\n  \
             copy       2.0 KiB, not on the service yet: the drive is full\n  \
             beside     a.txt, 10 B\n  \
             made       2026-03-01T08:15:30Z on box: changed here and elsewhere\n"
        );
    }
}
