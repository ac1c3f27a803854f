//! `onedrivefs completions`.

use clap_complete::Shell;

use super::output::{CliError, print};
use crate::daemon::exit;

/// Print shell completions.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs completions bash > ~/.local/share/bash-completion/completions/onedrivefs")]
pub struct Args {
    /// Which shell
    shell: Shell,
}

pub fn run(args: &Args, command: &mut clap::Command) -> Result<u8, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "onedrivefs", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(exit::OK)
}
