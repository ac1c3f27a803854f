//! `onedrivefs drives`.

use super::output::{CliError, print, print_json};
use super::settings;
use crate::config::Environment;
use crate::daemon::exit;
use crate::daemon::reach::{Reach, Reachable, reach};
use crate::model::units::approximate_size;

/// List the drives that an account reaches.
///
/// Its own, the libraries of the sites it follows or finds, and folders that others share with it; with what 'mount'
/// takes for each, and where 'mount all' shows it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs drives
  onedrivefs drives --account work --json | jq -r '.drives[].drive'

Exit codes: 5 if nobody is signed in; 6 if the service cannot be reached.")]
pub struct Args {
    /// Whose drives
    #[arg(long, value_name = "A")]
    account: Option<String>,
    /// Root of the Graph service
    #[arg(long, value_name = "U")]
    graph_url: Option<String>,
    /// Where sign-ins are kept
    #[arg(long, value_name = "D")]
    state_dir: Option<String>,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let flags = settings::given(&[
        ("account", &args.account),
        ("graph-url", &args.graph_url),
        ("state-dir", &args.state_dir),
    ])?;
    let found = reach(settings::without_mount(flags, &Environment::of_process())?)?;
    if args.json {
        print_json(&found)?;
    } else {
        print(&text(&found))?;
    }
    Ok(exit::OK)
}

fn text(reach: &Reach) -> String {
    let mut text: String = reach.drives.iter().map(line).collect();
    for untold in &reach.untold {
        text += &format!("not told: {untold}\n");
    }
    if text.is_empty() { "this account reaches no drive\n".to_owned() } else { text }
}

fn line(one: &Reachable) -> String {
    let drive = one.drive.as_deref().unwrap_or("(with 'mount all')");
    // All zero means that it is not told (graph-api 2.3).
    let space = one
        .quota
        .filter(|quota| quota.total > 0)
        .map(|quota| format!(", {} of {} used", approximate_size(quota.used), approximate_size(quota.total)));
    format!("{}: {drive}{}\n", one.place, space.unwrap_or_default())
}
