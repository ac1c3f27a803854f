//! Every name that a configuration file may hold, with what it means: the parser, the manual page and `config show`
//! read these tables.

/// A setting that has a name: in the configuration file, as `-o NAME=VALUE`, as `ONEDRIVEFS_NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// With hyphens; underscores are taken for them.
    pub name: &'static str,
    /// A value that would do.
    pub example: &'static str,
    /// What holds where nobody says anything: in words where it depends, empty where there is none.
    pub default: &'static str,
    /// One line on what it does.
    pub about: &'static str,
}

impl Key {
    /// The variable of the environment that sets it.
    pub fn variable(&self) -> String {
        format!("ONEDRIVEFS_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }
}

const fn key(name: &'static str, example: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, example, default, about }
}

/// Every setting that has a name.
pub const KEYS: &[Key] = &[
    key("read-only", "true", "false", "nothing is changed"),
    key("sync", "true", "false", "close, rename, mkdir and unlink wait for the service"),
    key("sync-timeout", "60s", "1m", "how long they wait while nothing moves; the change stays queued"),
    key(
        "case-insensitive",
        "true",
        "false",
        "a name is found in other letters too; each look at a name asks the daemon",
    ),
    key("allow-other", "true", "only where root mounts", "other users may enter"),
    key("uid", "1000", "who mounts", "owner of entries"),
    key("gid", "1000", "the group of who mounts", "group of entries"),
    key("file-mode", "600", "644", "permission bits of files, octal"),
    key("dir-mode", "700", "755", "permission bits of directories, octal"),
    key(
        "cache-dir",
        "/var/cache/onedrivefs",
        "~/.cache/onedrivefs; of root /var/cache/onedrivefs",
        "where content is cached",
    ),
    key(
        "state-dir",
        "/var/lib/onedrivefs",
        "~/.local/state/onedrivefs; of root /var/lib/onedrivefs",
        "where unsent data and sign-ins are kept",
    ),
    key(
        "graph-url",
        "https://graph.microsoft.us",
        "https://graph.microsoft.com/",
        "root of the Graph service",
    ),
    key(
        "login-url",
        "https://login.microsoftonline.us",
        "https://login.microsoftonline.com/",
        "root of the sign-in service",
    ),
    key("account", "work", "default", "whose sign-in is used"),
    key(
        "cache-size",
        "20GiB",
        "a tenth of its disk, at most 20GiB",
        "most bytes of content in a drive's cache",
    ),
    key("metadata-memory", "128MiB", "64MiB", "most bytes of memory for names and attributes"),
    key("min-free", "1GiB", "2GiB", "bytes that stay free on the cache's disk"),
    key("settle", "5s", "2s", "how long a changed file stays quiet before it is sent"),
    key("poll-interval", "1m", "30s", "time between two looks for remote changes where none are told"),
    key("push", "false", "true", "be told of remote changes where the service can"),
    key(
        "deny-readers",
        "tracker-extract-3:baloo_file",
        "",
        "executables that may only read what is here, with colons between",
    ),
    key("passthrough", "false", "true", "the kernel reads complete files by itself where root mounted"),
    key("drain-timeout", "5m", "1m", "how long an unmount sends what is unsent"),
    key("confirm-above", "100", "1000", "old deletes that need no 'onedrivefs confirm'"),
    key("request-rate", "5", "10", "requests per second, sustained"),
    key("request-burst", "100", "600", "requests that may go out at once"),
    key("log", "debug", "info", "which log lines are written"),
];

/// What `[mounts.NAME]` holds besides settings.
pub const MOUNT_KEYS: &[Key] = &[
    key(
        "drive",
        "contoso.sharepoint.com:/sites/Team:Plans",
        "",
        "which drive, as DRIVE of 'onedrivefs mount'",
    ),
    key(
        "mountpoint",
        "~/Plans",
        "",
        "where: 'mount NAME' and 'mount --all' need it, 'mount NAME DIR' does not",
    ),
    key("options", "noexec,noatime", "", "mount options for the kernel, with commas between"),
];

/// What `[accounts.NAME]` holds besides settings; flags of `onedrivefs login` that are not given.
pub const ACCOUNT_KEYS: &[Key] = &[
    key("client-id", "1b4e28ba-2fa1-11d2-883f-0016d3cca427", "", "id of the registered application"),
    key("tenant", "contoso.com", "common", "whose accounts: an organisation's id or domain, consumers, …"),
    key(
        "scopes",
        "Files.ReadWrite.All",
        "files and sites",
        "what a person's sign-in asks for, with spaces between",
    ),
    key("client-secret", "credential:graph", "", "where an application's secret is; never the secret itself"),
    key("certificate", "file:/etc/onedrivefs/app.pem", "", "where an application's certificate and key are"),
    key("certificate-password", "credential:pem", "", "where the password of that key is"),
    key("federated-token-file", "/run/token", "", "file with a token of a service that this one trusts"),
];

/// The candidate that is at most a third of its letters away.
pub(super) fn closest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete or replace (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, symbol) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, candidate) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(symbol != *candidate);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}
