//! `onedrivefs logout`.

use super::output::{CliError, print};
use super::settings;
use crate::config::Environment;
use crate::daemon::{exit, signin};

/// Sign out of an account.
///
/// Removes the sign-in from this machine. What is cached or unsent stays: drives that are mounted show it, keep changes,
/// and stop asking the service within the hour; after the next 'onedrivefs login' they go on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs logout
  onedrivefs logout work")]
pub struct Args {
    /// What the account is called here [default: default]
    account: Option<String>,
    /// Where sign-ins are kept
    #[arg(long, value_name = "D")]
    state_dir: Option<String>,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let flags = settings::given(&[("account", &args.account), ("state-dir", &args.state_dir)])?;
    let settings = settings::without_mount(flags, &Environment::of_process())?;
    let name = &settings.account;
    if !signin::logout(&settings.state_dir, name)? {
        let why = "nobody is signed in for it";
        return Err(CliError::new(
            exit::SIGNED_OUT,
            format!("account '{name}'"),
            why,
            "'onedrivefs accounts' lists those there are",
        ));
    }
    print(&format!("signed out: {name}\n"))?;
    Ok(exit::OK)
}
