//! `onedrivefs accounts`.

use serde_json::json;

use super::output::{CliError, print, print_json};
use super::settings;
use crate::config::Environment;
use crate::daemon::exit;
use crate::daemon::signin::{self, Account};

/// List the accounts of this machine.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs accounts
  onedrivefs accounts --json | jq -r '.[].account'")]
pub struct Args {
    /// Where sign-ins are kept
    #[arg(long, value_name = "D")]
    state_dir: Option<String>,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let flags = settings::given(&[("state-dir", &args.state_dir)])?;
    let settings = settings::without_mount(flags, &Environment::of_process())?;
    let accounts = signin::accounts(&settings.state_dir)?;
    if args.json {
        let lines: Vec<_> = accounts.iter().map(line).collect();
        print_json(&lines)?;
    } else if accounts.is_empty() {
        print("no account; 'onedrivefs login' signs in to one\n")?;
    } else {
        print(&accounts.iter().map(text).collect::<String>())?;
    }
    Ok(exit::OK)
}

fn line(account: &Account) -> serde_json::Value {
    json!({
        "account": account.name,
        "user": account.user,
        "signed_in": account.is_signed_in,
        "flow": account.flow.to_string(),
        "ends": account.ends.map(|end| end.to_rfc3339_seconds()),
        "since": account.since.to_rfc3339_seconds(),
        "read_only": account.read_only,
        "tenant": account.tenant,
        "client_id": account.client_id,
        "graph_url": account.graph_url.as_str(),
        "login_url": account.login_url.as_str(),
    })
}

fn text(account: &Account) -> String {
    let who = match &account.user {
        Some(user) => user.clone(),
        None if account.is_application() && account.client_id.is_empty() => "this machine".to_owned(),
        None if account.is_application() => format!("application {}", account.client_id),
        None => "no drive of its own".to_owned(),
    };
    let tenant = if account.tenant.is_empty() { "its own" } else { &account.tenant };
    let state = if account.is_signed_in {
        format!("signed in ({}) since {}", account.flow, account.since.to_rfc3339_seconds())
    } else {
        format!("signed out; run 'onedrivefs login {}'", account.name)
    };
    let ends = account.ends.map(|end| format!(", until {}", end.to_rfc3339_seconds())).unwrap_or_default();
    let read_only = if account.read_only { ", read-only" } else { "" };
    format!("{}: {who} (tenant {tenant}){read_only}, {state}{ends}\n", account.name)
}
