//! What somebody said, in a file, in the environment or on the command line.

use std::path::PathBuf;
use std::time::Duration;

use url::{Host, Url};

use super::keys::{KEYS, closest};
use super::{ConfigError, Environment};
use crate::model::units;

/// Settings of a mount, each of which may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each means what the field of that name in MountSettings means")]
pub struct Choices {
    pub read_only: Option<bool>,
    pub sync: Option<bool>,
    pub case_insensitive: Option<bool>,
    pub sync_timeout: Option<Duration>,
    pub allow_other: Option<bool>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub file_mode: Option<u16>,
    pub dir_mode: Option<u16>,
    pub kernel_options: Vec<String>,
    pub cache_dir: Option<PathBuf>,
    pub state_dir: Option<PathBuf>,
    pub graph_url: Option<Url>,
    pub login_url: Option<Url>,
    pub account: Option<String>,
    pub cache_size: Option<u64>,
    pub metadata_memory: Option<u64>,
    pub min_free: Option<u64>,
    pub settle: Option<Duration>,
    pub poll_interval: Option<Duration>,
    pub push: Option<bool>,
    pub deny_readers: Option<Vec<String>>,
    pub passthrough: Option<bool>,
    pub drain_timeout: Option<Duration>,
    pub confirm_above: Option<u64>,
    pub request_rate: Option<u32>,
    pub request_burst: Option<u32>,
    pub log: Option<String>,
}

impl Choices {
    /// What `ONEDRIVEFS_*` variables say; those that are no settings are left alone.
    pub fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let mut choices = Self::default();
        for key in KEYS {
            let variable = key.variable();
            let Some(value) = environment.variable(&variable).filter(|value| !value.is_empty()) else {
                continue;
            };
            let set = match value.to_str() {
                Some(text) => choices.set(key.name, text),
                None => Err(("it is not text".to_owned(), "write it in UTF-8".to_owned())),
            };
            set.map_err(|(why, remedy)| ConfigError {
                source_name: variable.clone(),
                what: key.name.to_owned(),
                why,
                remedy,
            })?;
        }
        Ok(choices)
    }

    /// Sets one setting by its name. The error is why it cannot, and what to do.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), (String, String)> {
        let name = name.replace('_', "-");
        match name.as_str() {
            "read-only" => self.read_only = Some(parse_bool(value)?),
            "sync" => self.sync = Some(parse_bool(value)?),
            "case-insensitive" => self.case_insensitive = Some(parse_bool(value)?),
            "sync-timeout" => self.sync_timeout = Some(units::parse_duration(value).map_err(by_itself)?),
            "allow-other" => self.allow_other = Some(parse_bool(value)?),
            "uid" => self.uid = Some(parse_number(value)?),
            "gid" => self.gid = Some(parse_number(value)?),
            "file-mode" => self.file_mode = Some(parse_mode(value)?),
            "dir-mode" => self.dir_mode = Some(parse_mode(value)?),
            "cache-dir" => self.cache_dir = Some(parse_directory(value)?),
            "state-dir" => self.state_dir = Some(parse_directory(value)?),
            "graph-url" => self.graph_url = Some(parse_url(value)?),
            "login-url" => self.login_url = Some(parse_url(value)?),
            "account" => self.account = Some(parse_account(value)?),
            "cache-size" => self.cache_size = Some(units::parse_size(value).map_err(by_itself)?),
            "metadata-memory" => self.metadata_memory = Some(units::parse_size(value).map_err(by_itself)?),
            "min-free" => self.min_free = Some(units::parse_size(value).map_err(by_itself)?),
            "settle" => self.settle = Some(units::parse_duration(value).map_err(by_itself)?),
            "poll-interval" => self.poll_interval = Some(parse_pause(value)?),
            "push" => self.push = Some(parse_bool(value)?),
            "deny-readers" => self.deny_readers = Some(parse_names(value)),
            "passthrough" => self.passthrough = Some(parse_bool(value)?),
            "drain-timeout" => self.drain_timeout = Some(units::parse_duration(value).map_err(by_itself)?),
            "confirm-above" => self.confirm_above = Some(parse_count(value)?),
            "request-rate" => self.request_rate = Some(parse_positive(value)?),
            "request-burst" => self.request_burst = Some(parse_positive(value)?),
            "log" => self.log = Some(value.to_owned()),
            _ => return Err(unknown(&name)),
        }
        Ok(())
    }

    /// These choices, and where they are silent, those of `lower`.
    pub fn over(self, lower: Self) -> Self {
        Self {
            read_only: self.read_only.or(lower.read_only),
            sync: self.sync.or(lower.sync),
            case_insensitive: self.case_insensitive.or(lower.case_insensitive),
            sync_timeout: self.sync_timeout.or(lower.sync_timeout),
            allow_other: self.allow_other.or(lower.allow_other),
            uid: self.uid.or(lower.uid),
            gid: self.gid.or(lower.gid),
            file_mode: self.file_mode.or(lower.file_mode),
            dir_mode: self.dir_mode.or(lower.dir_mode),
            kernel_options: if self.kernel_options.is_empty() {
                lower.kernel_options
            } else {
                self.kernel_options
            },
            cache_dir: self.cache_dir.or(lower.cache_dir),
            state_dir: self.state_dir.or(lower.state_dir),
            graph_url: self.graph_url.or(lower.graph_url),
            login_url: self.login_url.or(lower.login_url),
            account: self.account.or(lower.account),
            cache_size: self.cache_size.or(lower.cache_size),
            metadata_memory: self.metadata_memory.or(lower.metadata_memory),
            min_free: self.min_free.or(lower.min_free),
            settle: self.settle.or(lower.settle),
            poll_interval: self.poll_interval.or(lower.poll_interval),
            push: self.push.or(lower.push),
            deny_readers: self.deny_readers.or(lower.deny_readers),
            passthrough: self.passthrough.or(lower.passthrough),
            drain_timeout: self.drain_timeout.or(lower.drain_timeout),
            confirm_above: self.confirm_above.or(lower.confirm_above),
            request_rate: self.request_rate.or(lower.request_rate),
            request_burst: self.request_burst.or(lower.request_burst),
            log: self.log.or(lower.log),
        }
    }
}

/// Why, and what to do.
pub(super) type Refusal = (String, String);

pub(super) fn refuse<T>(why: String, remedy: &str) -> Result<T, Refusal> {
    Err((why, remedy.to_owned()))
}

fn by_itself(error: units::UnitError) -> Refusal {
    let text = error.to_string();
    match text.split_once("; ") {
        Some((why, remedy)) => (why.to_owned(), remedy.to_owned()),
        None => (text, "write a smaller one".to_owned()),
    }
}

fn parse_names(value: &str) -> Vec<String> {
    value.split(':').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn parse_bool(text: &str) -> Result<bool, Refusal> {
    match text {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => refuse(format!("'{text}' is neither true nor false"), "write true or false"),
    }
}

fn parse_number(text: &str) -> Result<u32, Refusal> {
    text.parse().or_else(|_| refuse(format!("'{text}' is no id"), "write a whole number, such as 1000"))
}

fn parse_count(text: &str) -> Result<u64, Refusal> {
    text.parse().or_else(|_| refuse(format!("'{text}' is no count"), "write a whole number, such as 1000"))
}

fn parse_positive(text: &str) -> Result<u32, Refusal> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => refuse(format!("'{text}' is no count"), "write a whole number above 0"),
    }
}

fn parse_mode(text: &str) -> Result<u16, Refusal> {
    match u16::from_str_radix(text.trim_start_matches("0o"), 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => refuse(format!("'{text}' is no permission"), "write three octal digits, such as 644"),
    }
}

fn parse_pause(text: &str) -> Result<Duration, Refusal> {
    let pause = units::parse_duration(text).map_err(by_itself)?;
    if pause < Duration::from_secs(1) {
        return refuse(format!("'{text}' would ask the service without a pause"), "write 1s or more");
    }
    Ok(pause)
}

fn parse_directory(text: &str) -> Result<PathBuf, Refusal> {
    if text.is_empty() {
        return refuse("it is empty".to_owned(), "write a directory");
    }
    std::path::absolute(text).or_else(|error| refuse(error.to_string(), "write an absolute path"))
}

/// Becomes a directory name, so it is held to what is one everywhere.
fn parse_account(text: &str) -> Result<String, Refusal> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@+".contains(&byte);
    if text.is_empty() || text.len() > 100 || text.starts_with('.') || !text.bytes().all(allowed) {
        return refuse(format!("'{text}' is no account name"), "use letters, digits and - _ . @ +");
    }
    Ok(text.to_owned())
}

fn parse_url(text: &str) -> Result<Url, Refusal> {
    let example = "write it as https://graph.microsoft.com";
    let Ok(url) = Url::parse(text) else { return refuse(format!("'{text}' is no address"), example) };
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return refuse(format!("'{text}' names no host"), example),
    };
    match url.scheme() {
        _ if !url.username().is_empty() || url.password().is_some() => {
            refuse("an address must not hold a password".to_owned(), example)
        }
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        "http" => refuse(
            format!("'{text}' would send your sign-in unencrypted"),
            "use https; plain http is for this machine only",
        ),
        other => refuse(format!("'{other}' is not spoken here"), example),
    }
}

fn unknown(name: &str) -> Refusal {
    let remedy = match closest(name, KEYS.iter().map(|key| key.name)) {
        Some(near) => format!("did you mean '{near}'?"),
        None => "see 'onedrivefs mount --help' for the settings there are".to_owned(),
    };
    (format!("there is no setting '{name}'"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_can_be_set_and_its_example_is_valid() {
        for key in KEYS {
            let mut choices = Choices::default();
            choices.set(key.name, key.example).unwrap_or_else(|error| panic!("{}: {error:?}", key.name));
            assert_ne!(choices, Choices::default(), "{}", key.name);
        }
    }

    // S54.
    #[test]
    fn plain_http_is_for_this_machine_only() {
        for good in
            ["https://graph.microsoft.us", "http://127.0.0.1:8080", "http://[::1]:1/", "http://localhost"]
        {
            assert!(parse_url(good).is_ok(), "{good}");
        }
        for bad in
            ["http://graph.microsoft.com", "http://10.0.0.1", "ftp://x", "x", "https://a:b@c", "file:///x"]
        {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }
}
