//! How the commands speak: errors, usage, JSON.

use std::io::{self, Write};

use clap::error::{ContextKind, ErrorKind};
use serde::Serialize;

use crate::config::ConfigError;
use crate::daemon::control::{ControlError, Outcome, Parked, Waits};
use crate::daemon::{DaemonError, exit};

/// Why a command failed, in one line: what, why, remedy.
#[derive(Debug, PartialEq, Eq)]
pub struct CliError {
    pub what: String,
    pub why: String,
    pub remedy: String,
    pub exit_code: u8,
}

impl CliError {
    pub fn new(exit_code: u8, what: impl ToString, why: impl ToString, remedy: impl ToString) -> Self {
        Self { what: what.to_string(), why: why.to_string(), remedy: remedy.to_string(), exit_code }
    }

    /// What, why and remedy in one line.
    pub fn line(&self) -> String {
        format!("onedrivefs: {}: {}; {}", self.what, self.why, self.remedy).replace('\n', " ")
    }

    /// Writes the one line to stderr.
    pub fn print(&self) {
        // Nowhere is left to say that stderr is closed.
        let _ = writeln!(io::stderr(), "{}", self.line());
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::new(exit::USAGE, format!("{}: {}", error.source_name, error.what), error.why, error.remedy)
    }
}

impl From<DaemonError> for CliError {
    fn from(error: DaemonError) -> Self {
        Self::new(error.exit_code, error.what, error.why, error.remedy)
    }
}

impl From<ControlError> for CliError {
    fn from(error: ControlError) -> Self {
        Self::new(error.exit_code, error.what, error.why, error.remedy)
    }
}

/// Writes text to stdout; a reader that went away is no failure.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::new(exit::FAILURE, "output", error, "check where stdout goes"))
        }
        _ => Ok(()),
    }
}

/// Writes one value as one line of JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(value)
        .map_err(|error| CliError::new(exit::FAILURE, "output", error, "report this as a bug"))?;
    print(&format!("{text}\n"))
}

/// What remains after a `sync` or `umount`, in lines for people.
pub fn outcome_lines(outcome: &Outcome) -> String {
    let mut text = String::new();
    if outcome.unsent > 0 {
        text += &format!("{} still unsent; kept, and sent at the next mount\n", changes(outcome.unsent));
    }
    text += &unsent_lines(&outcome.parked, &outcome.waiting, outcome.unsent, "  ");
    if outcome.unprotected > 0 {
        text += &format!("{} only on this machine (scratch names)\n", files(outcome.unprotected));
    }
    text
}

/// The changes that are not sent, with reasons, and how many more there are.
pub fn unsent_lines(parked: &[Parked], waiting: &[Waits], all: u64, indent: &str) -> String {
    let mut text = String::new();
    let mut named = 0;
    for change in parked {
        text += &format!("{indent}{}: {}; {}\n", change.path, change.reason, change.remedy);
        for path in &change.behind {
            text += &format!("{indent}  {path}: waits for that\n");
        }
        named += 1 + change.behind.len() as u64;
    }
    for change in waiting {
        text += &format!("{indent}{}: {}\n", change.path, change.why);
    }
    named += waiting.len() as u64;
    if named > 0 && all > named {
        text += &format!("{indent}… and {} more\n", all - named);
    }
    text
}

pub fn changes(count: u64) -> String {
    if count == 1 { "1 change".to_owned() } else { format!("{count} changes") }
}

pub fn files(count: u64) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

/// Answers `--help` and `--version`, and says in one line what is wrong with a command line.
pub fn usage(error: &clap::Error) -> u8 {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return print(&error.render().to_string()).map_or(exit::FAILURE, |()| exit::OK);
    }
    usage_error(error).print();
    exit::USAGE
}

fn usage_error(error: &clap::Error) -> CliError {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let why: Vec<&str> = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => vec!["a command is missing"],
        _ => paragraphs.next().unwrap_or_default().lines().map(str::trim).collect(),
    };
    let why = why.join(" ");
    let suggested =
        [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue]
            .iter()
            .find_map(|kind| error.get(*kind));
    let remedy = match suggested {
        Some(suggested) => format!("did you mean {suggested}? (see 'onedrivefs --help')"),
        None => "see 'onedrivefs --help'".to_owned(),
    };
    CliError::new(exit::USAGE, "usage", why.trim_start_matches("error: "), remedy)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::daemon::control::ParkKind;

    #[test]
    fn a_mistake_on_the_command_line_is_one_line_with_a_remedy() {
        let parse = |args: &[&str]| usage_error(&super::super::Cli::try_parse_from(args).unwrap_err());
        let unknown = parse(&["onedrivefs", "moutn"]);
        assert!(unknown.why.contains("unrecognized subcommand 'moutn'"), "{unknown:?}");
        assert!(unknown.remedy.contains("did you mean") && unknown.remedy.contains("mount"), "{unknown:?}");
        let missing = parse(&["onedrivefs", "mount"]);
        assert!(missing.why.contains("DRIVE"), "{missing:?}");
        assert_eq!(parse(&["onedrivefs"]).why, "a command is missing");
    }

    #[test]
    fn what_remains_is_said_with_its_reason() {
        let parked = Parked {
            path: "a".into(),
            kind: ParkKind::Quota,
            reason: "quota used up".into(),
            remedy: "make room".into(),
            retry_at: None,
            behind: vec!["a/b".into()],
        };
        let waits = Waits { path: "c".into(), why: "still open for writing".into() };
        let text =
            outcome_lines(&Outcome { unsent: 4, parked: vec![parked], waiting: vec![waits], unprotected: 0 });
        assert_eq!(
            text,
            "4 changes still unsent; kept, and sent at the next mount\n  a: quota used up; make room\n    \
             a/b: waits for that\n  c: still open for writing\n  … and 1 more\n"
        );
        assert_eq!(outcome_lines(&Outcome::default()), "");
    }
}
