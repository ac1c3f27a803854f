//! `onedrivefs ls`.

use super::output::{CliError, print, print_json};
use super::remote::Access;
use crate::daemon::{exit, transfer};

/// List a folder of a drive, without a mount.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs ls me
  onedrivefs ls -l me:/Documents
  onedrivefs ls https://contoso.sharepoint.com/sites/Team/Plans --json | jq -r '.[].name'

Folders end in '/'. Exit codes: 11 if there is no such drive or folder, 12 if the account may not see it.")]
pub struct Args {
    /// DRIVE[:/PATH], where DRIVE is as for 'mount'
    #[arg(value_name = "DRIVE:/PATH")]
    address: String,
    /// Show size and time too
    #[arg(short, long)]
    long: bool,
    #[command(flatten)]
    access: Access,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let entries = transfer::list(args.access.settings(&args.address)?)?;
    if args.json {
        print_json(&entries)?;
        return Ok(exit::OK);
    }
    let line = |entry: &transfer::Entry| {
        let end = if entry.kind == "folder" || entry.kind == "shortcut" { "/" } else { "" };
        // A name with a line break would be two.
        let name = entry.name.replace('\n', "?");
        match args.long {
            false => format!("{name}{end}\n"),
            true => {
                let size = entry.size.map(|size| size.to_string()).unwrap_or_default();
                format!("{size:>14}  {:20}  {name}{end}\n", entry.modified.as_deref().unwrap_or_default())
            }
        }
    };
    print(&entries.iter().map(line).collect::<String>())?;
    Ok(exit::OK)
}
