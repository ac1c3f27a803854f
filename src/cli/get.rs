//! `onedrivefs get`.

use std::path::{Path, PathBuf};

use super::output::CliError;
use super::remote::{Access, Bar};
use crate::daemon::{exit, transfer};

/// Fetch a file of a drive, without a mount.
///
/// It is one version of it, checked against the service's hash where that tells one. What was there before stays until
/// all of it has come.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs get me:/Documents/plan.odt
  onedrivefs get me:/Documents/plan.odt /tmp/old.odt
  onedrivefs get contoso.sharepoint.com:/sites/Team:Plans:/list.csv - | sort

Exit codes: 11 if there is no such file, 12 if the account may not see it.")]
pub struct Args {
    /// DRIVE:/PATH, where DRIVE is as for 'mount'
    #[arg(value_name = "DRIVE:/PATH")]
    address: String,
    /// Where to: a file, a directory, or - for stdout
    #[arg(default_value = ".")]
    to: PathBuf,
    #[command(flatten)]
    access: Access,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let settings = args.access.settings(&args.address)?;
    let to = (args.to != Path::new("-")).then_some(args.to.as_path());
    let bar = Bar::new();
    let got = transfer::get(settings, to, &mut |done, total| bar.show(done, total));
    bar.clear();
    got?;
    Ok(exit::OK)
}
