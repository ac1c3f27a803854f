//! `onedrivefs man`.

use std::path::PathBuf;

use super::output::CliError;
use crate::daemon::exit;

/// Write manual pages, one for each command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs man /usr/local/share/man/man1")]
pub struct Args {
    /// Where to
    dir: PathBuf,
}

pub fn run(args: &Args, command: clap::Command) -> Result<u8, CliError> {
    std::fs::create_dir_all(&args.dir).and_then(|()| clap_mangen::generate_to(command, &args.dir)).map_err(
        |error| {
            CliError::new(exit::FAILURE, args.dir.display(), error, "give a directory that can be written")
        },
    )?;
    Ok(exit::OK)
}
