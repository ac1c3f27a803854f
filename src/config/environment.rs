//! What surrounds the process: its user, its variables, and the directories that follow from them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The process's user and variables, as values, so that a test can make them up.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    variables: BTreeMap<String, OsString>,
}

impl Environment {
    /// An environment with these variables.
    pub fn new(uid: u32, gid: u32, variables: impl IntoIterator<Item = (String, OsString)>) -> Self {
        Self { uid, gid, variables: variables.into_iter().collect() }
    }

    /// The environment of this process.
    pub fn of_process() -> Self {
        // The owner of /proc/self is the effective user; without /proc nothing can be mounted anyway.
        let (uid, gid) =
            std::fs::metadata("/proc/self").map_or((u32::MAX, u32::MAX), |own| (own.uid(), own.gid()));
        let variables =
            std::env::vars_os().filter_map(|(name, value)| name.into_string().ok().map(|name| (name, value)));
        Self::new(uid, gid, variables)
    }

    /// The same without anything that was set for mounts: for what must not follow the user's settings.
    pub fn without_settings(mut self) -> Self {
        self.variables.retain(|name, _| !name.starts_with("ONEDRIVEFS_"));
        self.variables.insert("ONEDRIVEFS_CONFIG".into(), "/dev/null".into());
        self
    }

    /// A variable; an empty one is a missing one only where the caller says so.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(name).map(OsString::as_os_str)
    }

    /// The configuration file: `ONEDRIVEFS_CONFIG`, the user's own, or root's.
    pub fn config_file(&self) -> PathBuf {
        if let Some(path) = self.path("ONEDRIVEFS_CONFIG") {
            return path;
        }
        self.home("XDG_CONFIG_HOME", ".config", "/etc").join("config.toml")
    }

    /// Where state lives by default.
    pub fn state_home(&self) -> PathBuf {
        self.home("XDG_STATE_HOME", ".local/state", "/var/lib")
    }

    /// Where the cache lives by default.
    pub fn cache_home(&self) -> PathBuf {
        self.home("XDG_CACHE_HOME", ".cache", "/var/cache")
    }

    /// Where the desktop keeps small pictures (the freedesktop.org thumbnail specification); none without a home.
    pub fn thumbnails(&self) -> Option<PathBuf> {
        let cache = self.path("XDG_CACHE_HOME").or_else(|| Some(self.path("HOME")?.join(".cache")));
        cache.map(|cache| cache.join("thumbnails"))
    }

    /// Directories in which control sockets may be, the first of them the one for new sockets.
    ///
    /// The last is under `/tmp`, where anybody may have made it: check its owner before use.
    pub fn runtime_dirs(&self) -> Vec<PathBuf> {
        // What root mounts from a session lives on after it: its sockets are those of the system.
        let own =
            self.path("XDG_RUNTIME_DIR").filter(|path| self.uid != 0 || path != Path::new("/run/user/0"));
        let own = own.map(|path| path.join("onedrivefs"));
        let usual = if self.uid == 0 {
            PathBuf::from("/run/onedrivefs")
        } else {
            PathBuf::from(format!("/run/user/{}/onedrivefs", self.uid))
        };
        let last = PathBuf::from(format!("/tmp/onedrivefs-{}", self.uid));
        let mut all: Vec<PathBuf> = own.into_iter().chain([usual, last]).collect();
        all.dedup();
        all
    }

    fn home(&self, variable: &str, below_home: &str, for_root: &str) -> PathBuf {
        let base = match (self.path(variable), self.uid, self.path("HOME")) {
            (Some(path), _, _) => path,
            (None, 0, _) | (None, _, None) => PathBuf::from(for_root),
            (None, _, Some(home)) => home.join(below_home),
        };
        base.join("onedrivefs")
    }

    /// A variable that holds an absolute path; others are ignored, as the XDG specification asks.
    fn path(&self, variable: &str) -> Option<PathBuf> {
        self.variable(variable).map(PathBuf::from).filter(|path| path.is_absolute())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(uid: u32, pairs: &[(&str, &str)]) -> Environment {
        Environment::new(uid, uid, pairs.iter().map(|(name, value)| (name.to_string(), value.into())))
    }

    #[test]
    fn root_uses_the_system_directories_unless_told_otherwise() {
        let root = environment(0, &[("HOME", "/root")]);
        assert_eq!(root.config_file(), PathBuf::from("/etc/onedrivefs/config.toml"));
        assert_eq!(root.state_home(), PathBuf::from("/var/lib/onedrivefs"));
        assert_eq!(root.runtime_dirs()[0], PathBuf::from("/run/onedrivefs"));
        let session = environment(0, &[("XDG_RUNTIME_DIR", "/run/user/0")]);
        assert_eq!(session.runtime_dirs(), root.runtime_dirs());
        let told = environment(0, &[("XDG_STATE_HOME", "/x")]);
        assert_eq!(told.state_home(), PathBuf::from("/x/onedrivefs"));
    }

    #[test]
    fn a_relative_xdg_path_is_ignored() {
        let odd = environment(7, &[("HOME", "/h"), ("XDG_CACHE_HOME", "cache")]);
        assert_eq!(odd.cache_home(), PathBuf::from("/h/.cache/onedrivefs"));
    }

    #[test]
    fn the_process_knows_its_own_user() {
        let own = Environment::of_process();
        let made = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(own.uid, made.as_file().metadata().unwrap().uid());
    }
}
