//! `onedrivefs logout`.

use std::path::Path;

use super::mount;
use super::output::{CliError, print};
use crate::config::{Choices, Environment, MountSettings};
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
    let mut flags = Choices::default();
    for (value, name) in [(&args.account, "account"), (&args.state_dir, "state-dir")] {
        if let Some(value) = value {
            mount::set(&mut flags, name, value)?;
        }
    }
    let settings = MountSettings::resolve("me", Path::new("/"), flags, &Environment::of_process())?;
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
