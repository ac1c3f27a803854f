//! Settings, resolved once: defaults < file < environment < flags, with units in types.
//!
//! [`Choices`] is what somebody said (each value may be missing, and knows nothing of the others), [`ConfigFile`] what
//! the file says of all, of accounts and of mounts, [`MountSettings`] what the program needs. This module reads the
//! configuration file and the environment it is handed; it opens nothing else.

mod choices;
mod environment;
mod file;
#[cfg(test)]
mod file_tests;
mod keys;
mod options;
mod resolved;

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

pub use choices::Choices;
pub use environment::Environment;
pub use file::{ConfigFile, Section};
pub use keys::{ACCOUNT_KEYS, KEYS, Key, MOUNT_KEYS};
pub use options::{parse_options, without_unknown_options};
pub use resolved::{Origin, Shown, Value};

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}: {what}: {why}; {remedy}")]
pub struct ConfigError {
    /// Where it was said: a file's path, a variable, a flag.
    pub source_name: String,
    /// The setting.
    pub what: String,
    /// What is wrong with it.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

/// Everything a mount needs to know, with nothing left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSettings {
    /// Which drive: `me`, a drive's id, a site's library; `all`, or a list.
    pub drive: String,
    /// Where it is shown: absolute, without symbolic links.
    pub mountpoint: PathBuf,
    /// Nothing is changed, here or on the service.
    pub read_only: bool,
    /// `close`, `rename`, `mkdir`, `unlink` wait for the service.
    pub sync: bool,
    /// A name that no entry has finds the one that has it in other letters.
    pub case_insensitive: bool,
    /// How long those of `sync` wait while nothing of the change moves.
    pub sync_timeout: Duration,
    /// Other users may enter; `None` lets the way of mounting decide (root: yes, user: no).
    pub allow_other: Option<bool>,
    /// Owner of every entry that has none of its own on this machine.
    pub uid: u32,
    /// Group of every entry that has none of its own on this machine.
    pub gid: u32,
    /// Permission bits of files, e.g. `0o644`.
    pub file_mode: u16,
    /// Permission bits of directories.
    pub dir_mode: u16,
    /// Mount options for the kernel, such as `noexec`.
    pub kernel_options: Vec<String>,
    /// Where content is cached: `<account>/<drive>/` below it. May be deleted at any time.
    pub cache_dir: PathBuf,
    /// Where the store and unsent data are: `<account>/<drive>/` below it. Never delete.
    pub state_dir: PathBuf,
    /// Root of the Graph service, without `/v1.0`.
    pub graph_url: Url,
    /// Root of the sign-in service, without the tenant.
    pub login_url: Url,
    /// Name of the account whose sign-in is used; a directory name.
    pub account: String,
    /// Most bytes of clean content in the cache of a drive; none: by the size of its disk ([`usual_cache_size`]).
    pub cache_size: Option<u64>,
    /// Most bytes of memory for names and attributes, besides what serving needs at all.
    pub metadata_memory: u64,
    /// Bytes that stay free on the disk of the cache.
    pub min_free: u64,
    /// How long a changed file stays quiet before it is sent.
    pub settle: Duration,
    /// Time between two looks for changes on the service where none are told; longer while nobody uses the mount.
    pub poll_interval: Duration,
    /// Changes are learned of through the service's push channel where it has one.
    pub push: bool,
    /// Names of executables that may only read what is here.
    pub deny_readers: Vec<String>,
    /// The kernel reads complete files by itself where the program may ask it to.
    pub passthrough: bool,
    /// How long an unmount sends what is unsent.
    pub drain_timeout: Duration,
    /// Deletes from before the drive was read again that need no confirmation: at most so many.
    pub confirm_above: u64,
    /// Requests per second to the service, sustained.
    pub request_rate: u32,
    /// Requests that may go out at once after a quiet time.
    pub request_burst: u32,
    /// Which log lines are written, as `tracing` filters them.
    pub log: String,
}

/// The bound of a cache that nobody set one for, on a file system of so many bytes: a tenth, at most 20 GiB.
pub fn usual_cache_size(disk: u64) -> u64 {
    (disk / 10).min(20 << 30)
}

impl MountSettings {
    /// The Graph service where nobody says another.
    pub fn default_graph_url() -> Url {
        built_in_url("https://graph.microsoft.com/")
    }

    /// The sign-in service where nobody says another.
    pub fn default_login_url() -> Url {
        built_in_url("https://login.microsoftonline.com/")
    }

    /// Resolves what flags, environment and file say, in that order, over the defaults, for a mount that the file does
    /// not name.
    ///
    /// Reads the configuration file; a missing one is an empty one.
    pub fn resolve(
        drive: &str,
        mountpoint: &Path,
        flags: Choices,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        ConfigFile::read(environment)?.settings(None, drive, mountpoint, flags, environment)
    }

    /// What somebody said, over the defaults.
    fn with(
        drive: &str,
        mountpoint: &Path,
        said: Choices,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let invalid = |what: &str, why: &str, remedy: &str| ConfigError {
            source_name: "settings".to_owned(),
            what: what.to_owned(),
            why: why.to_owned(),
            remedy: remedy.to_owned(),
        };
        if drive.is_empty() {
            return Err(invalid("drive", "it is empty", "give 'me', 'all' or a drive's id"));
        }
        if !mountpoint.is_absolute() {
            return Err(invalid("mountpoint", "it is not absolute", "give a path that begins with /"));
        }
        Ok(Self {
            drive: drive.to_owned(),
            mountpoint: mountpoint.to_owned(),
            read_only: said.read_only.unwrap_or(false),
            sync: said.sync.unwrap_or(false),
            case_insensitive: said.case_insensitive.unwrap_or(false),
            sync_timeout: said.sync_timeout.unwrap_or(Duration::from_secs(60)),
            allow_other: said.allow_other,
            uid: said.uid.unwrap_or(environment.uid),
            gid: said.gid.unwrap_or(environment.gid),
            file_mode: said.file_mode.unwrap_or(0o644),
            dir_mode: said.dir_mode.unwrap_or(0o755),
            kernel_options: said.kernel_options,
            cache_dir: said.cache_dir.unwrap_or_else(|| environment.cache_home()),
            state_dir: said.state_dir.unwrap_or_else(|| environment.state_home()),
            graph_url: said.graph_url.unwrap_or_else(Self::default_graph_url),
            login_url: said.login_url.unwrap_or_else(Self::default_login_url),
            account: said.account.unwrap_or_else(|| "default".to_owned()),
            cache_size: said.cache_size,
            metadata_memory: said.metadata_memory.unwrap_or(64 << 20),
            min_free: said.min_free.unwrap_or(2 << 30),
            settle: said.settle.unwrap_or(Duration::from_secs(2)),
            push: said.push.unwrap_or(true),
            deny_readers: said.deny_readers.unwrap_or_default(),
            passthrough: said.passthrough.unwrap_or(true),
            poll_interval: said.poll_interval.unwrap_or(Duration::from_secs(30)),
            drain_timeout: said.drain_timeout.unwrap_or(Duration::from_secs(60)),
            confirm_above: said.confirm_above.unwrap_or(1000),
            request_rate: said.request_rate.unwrap_or(10),
            request_burst: said.request_burst.unwrap_or(600),
            log: said.log.unwrap_or_else(|| "info".to_owned()),
        })
    }
}

fn built_in_url(text: &str) -> Url {
    Url::parse(text).expect("a constant address is well formed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::new(1000, 100, pairs.iter().map(|(name, value)| (name.to_string(), value.into())))
    }

    fn resolve(flags: Choices, environment: &Environment) -> MountSettings {
        MountSettings::resolve("me", Path::new("/mnt/one"), flags, environment).unwrap()
    }

    // S198.
    #[test]
    fn a_cache_takes_a_tenth_of_its_disk_and_never_more_than_20_gib_unless_told() {
        for (disk, expected) in [(0, 0), (100 << 30, 10 << 30), (200 << 30, 20 << 30), (u64::MAX, 20 << 30)] {
            assert_eq!(usual_cache_size(disk), expected, "{disk}");
        }
    }

    #[test]
    fn without_a_word_the_defaults_hold() {
        let settings = resolve(Choices::default(), &environment(&[("HOME", "/home/ada")]));
        assert_eq!((settings.uid, settings.gid), (1000, 100));
        assert_eq!(settings.cache_dir, Path::new("/home/ada/.cache/onedrivefs"));
        assert_eq!(settings.state_dir, Path::new("/home/ada/.local/state/onedrivefs"));
        assert_eq!(settings.settle, Duration::from_secs(2));
        // S179.
        assert_eq!(settings.metadata_memory, 64 << 20);
        assert_eq!(settings.graph_url.as_str(), "https://graph.microsoft.com/");
        assert_eq!(settings.allow_other, None);
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("onedrivefs");
        std::fs::create_dir(&directory).unwrap();
        let file = "[defaults]\nsettle = \"9s\"\ncache-size = \"9GiB\"\nuid = 9\nread-only = true\n";
        std::fs::write(directory.join("config.toml"), file).unwrap();
        let environment = environment(&[
            ("HOME", "/nowhere"),
            ("XDG_CONFIG_HOME", home.path().to_str().unwrap()),
            ("ONEDRIVEFS_CACHE_SIZE", "8GiB"),
            ("ONEDRIVEFS_UID", "8"),
        ]);
        let mut flags = Choices::default();
        flags.set("uid", "7").unwrap();
        let settings = resolve(flags, &environment);
        assert_eq!(settings.uid, 7);
        assert_eq!(settings.cache_size, Some(8 << 30));
        assert_eq!(settings.settle, Duration::from_secs(9));
        assert!(settings.read_only);
    }

    #[test]
    fn an_empty_drive_and_a_relative_mountpoint_are_refused() {
        let environment = environment(&[("HOME", "/home/ada")]);
        for (drive, path) in [("", "/mnt"), ("me", "mnt")] {
            let result = MountSettings::resolve(drive, Path::new(path), Choices::default(), &environment);
            assert!(result.is_err());
        }
    }
}
