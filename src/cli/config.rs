//! `onedrivefs config`.

use serde_json::json;

use super::output::{CliError, print, print_json};
use crate::config::{ConfigError, ConfigFile, Environment, Section, Shown, Value};
use crate::daemon::{check_drive, exit};

/// Check and show the configuration file.
///
/// It names mounts and accounts, and says what holds for them; onedrivefs-config.toml(5) lists what it may hold.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs config path            where it is, or would be
  onedrivefs config check           all mistakes in it, each with its line
  onedrivefs config show            the settings that hold, and where each comes from
  onedrivefs config show plans      those of [mounts.plans]

What 'show' writes is itself a configuration file.

Exit codes: 2 if something in it is wrong, or there is no such mount.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Tell every mistake in the file, with its line
    #[command(after_help = "Examples:\n  onedrivefs config check && onedrivefs mount --all")]
    Check,
    /// Show the settings that hold, and where each value comes from
    #[command(
        after_help = "Examples:\n  onedrivefs config show plans --json | jq -r '.mounts.plans.settle.from'"
    )]
    Show {
        /// A mount of the file [default: the defaults, and all mounts]
        name: Option<String>,
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show where the file is, or would be
    #[command(after_help = "Examples:\n  \"$EDITOR\" \"$(onedrivefs config path)\"")]
    Path,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let environment = Environment::of_process();
    match &args.command {
        Command::Path => print(&format!("{}\n", environment.config_file().display()))?,
        Command::Check => return check(&environment),
        Command::Show { name, json } => show(name.as_deref(), *json, &environment)?,
    }
    Ok(exit::OK)
}

fn check(environment: &Environment) -> Result<u8, CliError> {
    let (file, mut mistakes) = ConfigFile::examine(environment)?;
    for (_, mount) in file.mounts() {
        let wrong = mount.drive().and_then(|drive| check_drive(drive).err());
        mistakes.extend(wrong.map(|error| ConfigError {
            source_name: file.place(mount, "drive"),
            what: error.what,
            why: error.why,
            remedy: error.remedy,
        }));
    }
    for mistake in &mistakes {
        CliError::from(mistake.clone()).print();
    }
    if !mistakes.is_empty() {
        return Ok(exit::USAGE);
    }
    let path = file.path().display();
    if !file.path().exists() {
        print(&format!("{path}: there is no such file; the defaults hold\n"))?;
        return Ok(exit::OK);
    }
    // Also what the environment says, and what only shows once all is put together.
    for (_, mount) in file.mounts() {
        file.shown(Some(mount), environment)?;
    }
    print(&format!("{path}: good; accounts: {}, mounts: {}\n", file.accounts(), file.mounts().count()))?;
    Ok(exit::OK)
}

fn show(name: Option<&str>, json: bool, environment: &Environment) -> Result<(), CliError> {
    let file = ConfigFile::read(environment)?;
    let mounts: Vec<(&str, &Section)> = match name {
        Some(name) => vec![(name, file.named(name)?)],
        None => file.mounts().collect(),
    };
    let defaults = match name {
        Some(_) => None,
        None => Some(file.shown(None, environment)?),
    };
    let mut shown = Vec::new();
    for (name, mount) in mounts {
        shown.push((name, file.shown(Some(mount), environment)?));
    }
    if json {
        let mounts: serde_json::Map<_, _> =
            shown.iter().map(|(name, settings)| ((*name).to_owned(), in_json(settings))).collect();
        return print_json(&json!({
            "file": file.path(), "defaults": defaults.as_deref().map(in_json), "mounts": mounts,
        }));
    }
    let defaults = defaults.map(|settings| ("defaults".to_owned(), settings));
    let mounts = shown.into_iter().map(|(name, settings)| (format!("mounts.{name}"), settings));
    let sections: Vec<String> = defaults
        .into_iter()
        .chain(mounts)
        .map(|(title, settings)| format!("[{title}]\n{}", settings.iter().map(line).collect::<String>()))
        .collect();
    print(&sections.join("\n"))
}

fn line(shown: &Shown) -> String {
    match &shown.value {
        Some(value) => format!("{} = {value}  # {}\n", shown.name, shown.origin),
        None => format!("# {}: {}\n", shown.name, shown.otherwise()),
    }
}

fn in_json(settings: &[Shown]) -> serde_json::Value {
    let one = |shown: &Shown| {
        let value = match &shown.value {
            Some(Value::Bool(value)) => json!(value),
            Some(Value::Number(value)) => json!(value),
            Some(Value::Text(value)) => json!(value),
            None => serde_json::Value::Null,
        };
        (shown.name.to_owned(), json!({ "value": value, "from": shown.origin.to_string() }))
    };
    serde_json::Value::Object(settings.iter().map(one).collect())
}
