//! `onedrivefs mount`.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::output::{CliError, changes};
use super::{helper, journal, mountpoint, settings};
use crate::config::{Choices, ConfigFile, Environment, MountSettings, Section, parse_options};
use crate::daemon::{self, ExitReport, exit, mounts};

/// Set for the process that stays behind; it reports over stdout.
const STAY_BEHIND: &str = "ONEDRIVEFS_STAY_BEHIND";
/// A log longer than this is set aside when a daemon starts.
const LOG_MAX: u64 = 16 << 20;

/// Mount a drive, or several, at a directory.
///
/// 'all' shows OneDrive/, Shared with me/ and Sites/SITE/LIBRARY/. With several drives, cache-size and
/// metadata-memory hold for each that somebody went into.
///
/// A folder as the root of a mount has a state of its own, beside that of its drive. A sharing link gives the account
/// access to what it leads to, as opening it in a browser does.
///
/// A mount of the configuration file ([mounts.NAME], see onedrivefs-config.toml(5)) is given by its name; what is said
/// here besides comes before what the file says.
///
/// Returns when the directory is usable and leaves a daemon that serves it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs mount me ~/OneDrive
  onedrivefs mount me ~/OneDrive --read-only
  onedrivefs mount all ~/cloud
  onedrivefs mount me,team=contoso.sharepoint.com:/sites/Team:Plans ~/cloud
  onedrivefs mount me:/Documents/Work ~/work
  onedrivefs mount https://contoso.sharepoint.com/sites/Team/Plans ~/plans
  onedrivefs mount 'b!Zk3…' /mnt/team -o allow_other,uid=1000,cache-size=50GiB
  onedrivefs mount me /mnt/one --foreground --graph-url http://127.0.0.1:8080
  onedrivefs mount plans          [mounts.plans] of the configuration file
  onedrivefs mount --all          all mounts of the file that say where

Everything that takes a value can also be given with -o, in the configuration
file ('onedrivefs config path'), or as ONEDRIVEFS_NAME in the environment;
flags win over the environment, that over the file. Further settings for -o:
cache-size, min-free, settle, poll-interval, push, passthrough, deny-readers,
confirm-above, request-rate, request-burst, log.

Signals: SIGTERM and SIGINT unmount, and send what is unsent for at most the
drain-timeout; a second one ends it at once. SIGUSR1 looks for changes now.")]
pub struct Args {
    /// Which drive: 'me', a drive's id, an address of the browser or a sharing link, HOST:/sites/NAME[:LIBRARY],
    /// USER@DOMAIN, group:NAME; a folder of it with :/FOLDER after that; 'all'; or several with commas between, each
    /// [NAME=]DRIVE; or the name of a mount of the configuration file
    #[arg(required_unless_present = "all")]
    drive: Option<String>,
    /// Where to mount it: an existing directory; of a mount of the configuration file by default what that says
    mountpoint: Option<PathBuf>,
    /// Mount all that the configuration file names and says where; what is mounted already stays so
    #[arg(long, conflicts_with_all = ["drive", "mountpoint", "foreground"])]
    all: bool,
    /// Mount options, separated by commas: the flags below by their long names, settings, and those of
    /// mount(8)
    #[arg(short = 'o', value_name = "OPTS", action = clap::ArgAction::Append)]
    options: Vec<String>,
    /// Stay in the foreground and log to stderr
    #[arg(long)]
    foreground: bool,
    /// Change nothing
    #[arg(long)]
    read_only: bool,
    /// Make close, rename, mkdir and unlink wait for the service
    #[arg(long)]
    sync: bool,
    /// Find a name in other letters too; each look at a name then asks the daemon
    #[arg(long)]
    case_insensitive: bool,
    /// Let other users enter
    #[arg(long)]
    allow_other: bool,
    /// Owner of entries [default: you]
    #[arg(long, value_name = "N")]
    uid: Option<String>,
    /// Group of entries [default: yours]
    #[arg(long, value_name = "N")]
    gid: Option<String>,
    /// Permissions of files, octal [default: 644]
    #[arg(long, value_name = "M")]
    file_mode: Option<String>,
    /// Permissions of directories, octal [default: 755]
    #[arg(long, value_name = "M")]
    dir_mode: Option<String>,
    /// How long an unmount, or SIGTERM, sends what is unsent [default: 60s]
    #[arg(long, value_name = "T")]
    drain_timeout: Option<String>,
    /// Most memory for names and attributes; whatever the drive's size [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    metadata_memory: Option<String>,
    /// Where content is cached
    #[arg(long, value_name = "D")]
    cache_dir: Option<String>,
    /// Where unsent data is kept
    #[arg(long, value_name = "D")]
    state_dir: Option<String>,
    /// Root of the Graph service
    #[arg(long, value_name = "U")]
    graph_url: Option<String>,
    /// Root of the sign-in service
    #[arg(long, value_name = "U")]
    login_url: Option<String>,
    /// Whose sign-in to use
    #[arg(long, value_name = "A")]
    account: Option<String>,
}

impl Args {
    fn choices(&self) -> Result<Choices, CliError> {
        let mut flags = settings::given(&[
            ("uid", &self.uid),
            ("gid", &self.gid),
            ("file-mode", &self.file_mode),
            ("dir-mode", &self.dir_mode),
            ("drain-timeout", &self.drain_timeout),
            ("metadata-memory", &self.metadata_memory),
            ("cache-dir", &self.cache_dir),
            ("state-dir", &self.state_dir),
            ("graph-url", &self.graph_url),
            ("login-url", &self.login_url),
            ("account", &self.account),
        ])?;
        for (given, name) in [
            (self.read_only, "read-only"),
            (self.sync, "sync"),
            (self.case_insensitive, "case-insensitive"),
            (self.allow_other, "allow-other"),
        ] {
            if given {
                settings::set(&mut flags, name, "true")?;
            }
        }
        let options = parse_options(&self.options.join(",")).map_err(|message| {
            let (why, remedy) =
                message.split_once("; ").unwrap_or((&message, "see 'onedrivefs mount --help'"));
            CliError::new(exit::USAGE, "-o", why, remedy)
        })?;
        Ok(flags.over(options))
    }

    pub fn settings(&self) -> Result<MountSettings, CliError> {
        let drive = self.drive.as_deref().unwrap_or_default();
        let environment = Environment::of_process();
        let file = ConfigFile::read(&environment)?;
        let named = match (file.mount(drive), &self.mountpoint) {
            (Some(named), _) => Some(named),
            (None, Some(_)) => None,
            (None, None) => Some(file.named(drive)?),
        };
        let at = self.mountpoint.as_deref().or_else(|| named?.mountpoint()).ok_or_else(|| {
            let what = format!("{}: {drive}", file.path().display());
            CliError::new(
                exit::USAGE,
                what,
                "it does not say where",
                "add mountpoint = \"…\", or give <MOUNTPOINT>",
            )
        })?;
        let mountpoint = mountpoint::resolve(at)?;
        let drive = named.and_then(Section::drive).unwrap_or(drive);
        Ok(file.settings(named, drive, &mountpoint, self.choices()?, &environment)?)
    }

    /// This, of the mount of the configuration file with that name.
    fn of(&self, name: &str) -> Self {
        Self { drive: Some(name.to_owned()), all: false, ..self.clone() }
    }
}

pub fn run(args: Args) -> Result<u8, CliError> {
    if std::env::var_os(STAY_BEHIND).is_some() {
        return Ok(stay_behind(&args));
    }
    if args.all {
        return mount_all(&args);
    }
    let settings = args.settings()?;
    if args.foreground {
        start_log(&settings.log);
        let report = daemon::run_mount(settings, || {})?;
        return Ok(ended(&report));
    }
    let arguments = helper::as_command(std::env::args_os().collect())?;
    leave_daemon(&settings, arguments.into_iter().skip(1))
}

/// Mounts what the configuration file names; one that fails is said, and leaves the others be.
fn mount_all(args: &Args) -> Result<u8, CliError> {
    let file = ConfigFile::read(&Environment::of_process())?;
    let mut names =
        file.mounts().filter(|(_, mount)| mount.mountpoint().is_some()).map(|(name, _)| name).peekable();
    if names.peek().is_none() {
        let what = file.path().display();
        let remedy = "add [mounts.NAME] with drive and mountpoint";
        return Err(CliError::new(exit::USAGE, what, "it names no mount that says where", remedy));
    }
    let mut worst = exit::OK;
    for name in names {
        let given = std::env::args_os().skip(1).filter(|argument| argument != "--all");
        let arguments = given.chain([OsString::from(name)]);
        let mounted = args.of(name).settings().and_then(|settings| {
            if daemon::mounts::is_mounted(&settings.mountpoint) {
                return Ok(exit::OK);
            }
            leave_daemon(&settings, arguments)
        });
        match mounted {
            Ok(_) => {}
            Err(error) => {
                error.print();
                if worst == exit::OK {
                    worst = error.exit_code;
                }
            }
        }
    }
    Ok(worst)
}

/// What the process that stays behind says over its stdout, once.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Ready,
    Failed { what: String, why: String, remedy: String, exit_code: u8 },
}

impl Word {
    fn say(&self) {
        let mut line = serde_json::to_string(self).expect("plain words are JSON");
        line.push('\n');
        // The command that waited for it may have been interrupted; the log has it too.
        if let Err(error) = std::io::stdout().write_all(line.as_bytes()) {
            tracing::warn!(%error, "nobody waits for the mount any more");
        }
    }
}

fn stay_behind(args: &Args) -> u8 {
    let result = args.settings().and_then(|settings| {
        start_log(&settings.log);
        Ok(daemon::run_mount(settings, || {
            daemon::detach();
            Word::Ready.say();
        })?)
    });
    match result {
        Ok(report) => ended(&report),
        Err(error) => {
            error.print();
            let CliError { what, why, remedy, exit_code } = error;
            Word::Failed { what, why, remedy, exit_code }.say();
            exit_code
        }
    }
}

fn ended(report: &ExitReport) -> u8 {
    let exit_code = if report.unsent == 0 { exit::OK } else { exit::UNSENT };
    if report.unsent > 0 {
        tracing::warn!("{} still unsent; kept, and sent at the next mount", changes(report.unsent));
    }
    tracing::info!(exit_code, "the daemon ends");
    exit_code
}

/// Starts this program again for the same mount and waits until that one is usable or has failed.
fn leave_daemon(settings: &MountSettings, arguments: impl Iterator<Item = OsString>) -> Result<u8, CliError> {
    let log_path = settings.state_dir.join(&settings.account).join("daemon.log");
    let failed = |why: std::io::Error, remedy: &str| {
        CliError::new(exit::FAILURE, settings.mountpoint.display(), why, remedy)
    };
    let log = if journal::is_stderr() {
        Stdio::inherit()
    } else {
        let remedy = format!("make {} writable", log_path.display());
        open_log(&log_path).map_err(|error| failed(error, &remedy))?.into()
    };
    // By its path, so that `ps` shows its name.
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let mut child = Command::new(program)
        .args(arguments)
        .env(STAY_BEHIND, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| failed(error, "try with --foreground"))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(|error| failed(error, "see the log"))?;
    }
    match serde_json::from_str(&line) {
        Ok(Word::Ready) if mounts::is_mounted(&settings.mountpoint) => Ok(exit::OK),
        Ok(Word::Ready) => {
            let why = "it was mounted, and is not any more";
            Err(failed(std::io::Error::other(why), &format!("see {}", log_path.display())))
        }
        Ok(Word::Failed { what, why, remedy, exit_code }) => Err(CliError { what, why, remedy, exit_code }),
        Err(_) => {
            let why = match child.wait() {
                Ok(status) => format!("the daemon ended early ({status})"),
                Err(error) => error.to_string(),
            };
            let remedy = format!("see {}", log_path.display());
            Err(CliError::new(exit::FAILURE, settings.mountpoint.display(), why, remedy))
        }
    }
}

fn open_log(path: &Path) -> std::io::Result<std::fs::File> {
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    if std::fs::metadata(path).is_ok_and(|log| log.len() > LOG_MAX) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Log lines go to stderr, which is the daemon's log when it stays behind; to the journal where stderr is that.
pub fn start_log(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let journal = journal::is_stderr().then(journal::Journal::connect).and_then(Result::ok);
    let started = match journal {
        Some(journal) => {
            tracing_subscriber::registry().with(filter).with(journal).try_init().map_err(Into::into)
        }
        None => tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
    };
    if started.is_err() {
        tracing::debug!("the log was started before");
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn parse(line: &[&str]) -> Args {
        match super::super::Cli::try_parse_from(line).unwrap().command {
            super::super::Command::Mount(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_flag_wins_over_the_same_mount_option() {
        let line = "onedrivefs mount me /mnt -o ro,uid=1,gid=2 -o file_mode=600 --uid 7";
        let choices = parse(&line.split(' ').collect::<Vec<_>>()).choices().unwrap();
        assert_eq!((choices.uid, choices.gid), (Some(7), Some(2)));
        assert_eq!((choices.read_only, choices.file_mode), (Some(true), Some(0o600)));
    }

    #[test]
    fn a_wrong_value_names_its_flag() {
        let args = parse(&["onedrivefs", "mount", "me", "/mnt", "--file-mode", "999"]);
        let error = args.choices().unwrap_err();
        assert_eq!((error.what.as_str(), error.exit_code), ("--file-mode", exit::USAGE));
        let args = parse(&["onedrivefs", "mount", "me", "/mnt", "-o", "quux"]);
        assert!(args.choices().unwrap_err().why.contains("no mount option 'quux'"));
    }
}
