//! `onedrivefs put`.

use std::path::{Path, PathBuf};

use super::output::{CliError, print_json};
use super::remote::{Access, Bar};
use crate::daemon::{exit, transfer};

/// Send a file to a drive, without a mount.
///
/// It replaces the version that was there when it began, and no other: what somebody else changes meanwhile stays.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs put plan.odt me:/Documents            into the folder
  onedrivefs put plan.odt me:/Documents/new.odt
  pg_dump db | onedrivefs put - me:/Backups/db.sql --new

Exit codes: 7 if it was changed meanwhile, is locked, or is there already (--new); 11 if there is no such folder.")]
pub struct Args {
    /// What to send: a file, or - for stdin
    from: PathBuf,
    /// DRIVE:/PATH: of the file, or of a folder to put it into
    #[arg(value_name = "DRIVE:/PATH")]
    address: String,
    /// Only as a new file
    #[arg(long)]
    new: bool,
    #[command(flatten)]
    access: Access,
    /// Print what it became as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let settings = args.access.settings(&args.address)?;
    let from = (args.from != Path::new("-")).then_some(args.from.as_path());
    let bar = Bar::new();
    let put = transfer::put(settings, from, args.new, &mut |done, total| bar.show(done, total));
    bar.clear();
    let entry = put?;
    if args.json {
        print_json(&entry)?;
    }
    Ok(exit::OK)
}
