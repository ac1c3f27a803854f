//! `onedrivefs rm`.

use super::output::CliError;
use super::remote::Access;
use crate::daemon::{exit, transfer};

/// Remove a file or a folder of a drive, without a mount.
///
/// It goes to the recycle bin. A file that somebody changes meanwhile stays.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs rm me:/Documents/plan.odt
  onedrivefs rm --recursive me:/Backups/2019

Exit codes: 7 if it was changed meanwhile or is locked; 11 if there is no such file.")]
pub struct Args {
    /// DRIVE:/PATH, where DRIVE is as for 'mount'
    #[arg(value_name = "DRIVE:/PATH")]
    address: String,
    /// A folder too, with all that is in it
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    access: Access,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    transfer::remove(args.access.settings(&args.address)?, args.recursive)?;
    Ok(exit::OK)
}
