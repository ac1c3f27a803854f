//! `onedrivefs doctor`.

use std::path::Path;

use serde_json::json;

use super::output::{CliError, print, print_json};
use super::{mountpoint, settings, target};
use crate::config::{ConfigFile, Environment};
use crate::daemon::control::{Answer, Request};
use crate::daemon::doctor::{Finding, Health, Patient, examine};
use crate::daemon::exit;

/// Look at everything that a mount needs, and say what to do.
///
/// FUSE, fusermount3, directories, proxy, certificates, names, TLS, the clock, the sign-in, its permissions and the
/// drive: each a line, 'ok', 'note' (it works, and could be better) or 'bad' (what to do). Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs doctor                  the account 'default' and its own drive
  onedrivefs doctor work             another account
  onedrivefs doctor plans            [mounts.plans] of the configuration file
  onedrivefs doctor ~/OneDrive       what is mounted there
  onedrivefs doctor --json | jq -r '.findings[] | select(.health == \"bad\") | .remedy'

Exit codes: 0 if nothing is bad; else that of the first bad line, as in 'onedrivefs --help'.")]
pub struct Args {
    /// An account, a mount of the configuration file, or the directory of a mount [default: the account 'default']
    #[arg(value_name = "ACCOUNT|MOUNT")]
    name: Option<String>,
    /// Root of the Graph service
    #[arg(long, value_name = "U")]
    graph_url: Option<String>,
    /// Root of the sign-in service
    #[arg(long, value_name = "U")]
    login_url: Option<String>,
    /// Where sign-ins and unsent data are kept
    #[arg(long, value_name = "D")]
    state_dir: Option<String>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let environment = Environment::of_process();
    let mut all: Vec<Finding> = Vec::new();
    let mut printed = Ok(());
    let mut tell = |finding: Finding| {
        if !args.json && printed.is_ok() {
            printed = print(&line(&finding));
        }
        all.push(finding);
    };
    let file = match ConfigFile::read(&environment) {
        Ok(file) => file,
        Err(error) => {
            let found = format!("{}: {}: {}", error.source_name, error.what, error.why);
            let remedy = format!("{}; 'onedrivefs config check' tells all mistakes", error.remedy);
            tell(Finding::bad("configuration", exit::USAGE, found, remedy));
            ConfigFile::default()
        }
    };
    let patient = patient(args, &file, environment)?;
    examine(&patient, &mut tell);
    printed?;
    let worst = all.iter().find(|finding| finding.health == Health::Bad);
    let code = worst.map_or(exit::OK, |finding| finding.exit_code);
    if args.json {
        print_json(&json!({ "ok": code == exit::OK, "findings": all }))?;
    }
    Ok(code)
}

fn line(finding: &Finding) -> String {
    let word = match finding.health {
        Health::Ok => "ok  ",
        Health::Note => "note",
        Health::Bad => "bad ",
    };
    let remedy = finding.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
    format!("{word}  {}: {}{remedy}\n", finding.check, finding.found)
}

/// Who is meant: a mount of the file, a directory, or an account.
fn patient(args: &Args, file: &ConfigFile, environment: Environment) -> Result<Patient, CliError> {
    let mut flags = settings::given(&[
        ("graph-url", &args.graph_url),
        ("login-url", &args.login_url),
        ("state-dir", &args.state_dir),
    ])?;
    let mut section = None;
    let mut at = None;
    let mut drive = "me".to_owned();
    if let Some(name) = &args.name {
        if let Some(mount) = file.mount(name) {
            section = Some(mount);
            // One that is not there is a finding.
            at = mount.mountpoint().map(|at| mountpoint::resolve(at).unwrap_or_else(|_| at.to_owned()));
            drive = mount.drive().unwrap_or("me").to_owned();
        } else if name.contains('/') {
            at = Some(mountpoint::resolve(Path::new(name))?);
            let (account, shown) = mounted(Path::new(name), &environment)?;
            settings::set(&mut flags, "account", &account)?;
            drive = shown;
        } else {
            settings::set(&mut flags, "account", name)?;
        }
    }
    let settings = file.settings(section, &drive, Path::new("/"), flags, &environment)?;
    Ok(Patient { settings, mountpoint: at, environment })
}

/// Whose sign-in the mount at this directory uses, and what it shows.
fn mounted(path: &Path, environment: &Environment) -> Result<(String, String), CliError> {
    let mut target = target::of_path(path, environment)?;
    match target.client.ask(&Request::Status, &mut |_| {})? {
        Answer::Status(status) => {
            Ok((status.account, status.drive.map_or_else(|| "all".to_owned(), |drive| drive.id)))
        }
        _ => Err(target::misunderstood(&target.mountpoint)),
    }
}
