//! `onedrivefs free`.

use std::path::PathBuf;

use super::output::{CliError, files, print, print_json};
use super::target;
use crate::config::Environment;
use crate::daemon::control::{Answer, FreeOutcome, Request, WirePath};
use crate::daemon::exit;
use crate::model::units;

/// Give up the local content of files; the service has it.
///
/// The files stay where they are, and are fetched again when they are read. What is unsent, open or pinned stays, and
/// is named.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs free ~/OneDrive/videos
  onedrivefs cache --list ~/OneDrive | head    what takes the most room

Exit codes: 0 if nothing of it stays; 7 if something is unsent, open or pinned: that stays.")]
pub struct Args {
    /// Files and folders in a mount
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Print what was given up as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let mut all = FreeOutcome::default();
    for path in &args.paths {
        let mut target = target::of_path(path, &Environment::of_process())?;
        match target.client.ask(&Request::Free { path: WirePath(target.inside) }, &mut |_| {})? {
            Answer::Freed(freed) => {
                all.files += freed.files;
                all.bytes += freed.bytes;
                all.refused_files += freed.refused_files;
                all.refused.extend(freed.refused);
            }
            _ => return Err(target::misunderstood(&target.mountpoint)),
        }
    }
    if args.json {
        print_json(&all)?;
    } else {
        print(&format!("{} of {} freed\n", units::approximate_size(all.bytes), files(all.files)))?;
    }
    for refused in &all.refused {
        CliError::new(exit::BUSY, refused.path.0.display(), &refused.why, &refused.remedy).print();
    }
    let named = all.refused.len() as u64;
    if all.refused_files > named {
        let why = format!("{} more stay", files(all.refused_files - named));
        CliError::new(exit::BUSY, "free", why, "see 'onedrivefs cache --list'").print();
    }
    Ok(if all.refused_files > 0 { exit::BUSY } else { exit::OK })
}
