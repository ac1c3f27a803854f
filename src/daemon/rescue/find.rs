//! Which state directories a rescue reads.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::daemon::assemble::{KnownDrive, directory_name, known_drives, read_known, state_name};
use crate::daemon::{DaemonError, exit};
use crate::model::{DriveId, DriveType};

/// What somebody wants to be rescued.
#[derive(Clone, Debug, Default)]
pub struct RescueRequest {
    /// Where state directories are, `ACCOUNT/DRIVE/` below it; or one of these itself.
    pub state_root: PathBuf,
    /// Where caches are, `ACCOUNT/DRIVE/` below it.
    pub cache_root: PathBuf,
    /// Only this account.
    pub account: Option<String>,
    /// Only this drive: `me`, or a drive's id.
    pub drive: Option<String>,
    /// The mounts that there are, by their state directories.
    pub mounts: BTreeMap<PathBuf, PathBuf>,
}

/// A drive's state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RescueSource {
    /// It.
    pub state_dir: PathBuf,
    /// The drive's cache, if there is one.
    pub cache_dir: Option<PathBuf>,
    /// Where the drive is mounted.
    pub mountpoint: Option<PathBuf>,
    /// A business drive or a document library.
    pub business: bool,
}

impl RescueSource {
    /// `ACCOUNT/DRIVE`: tells several apart.
    pub(super) fn label(&self) -> PathBuf {
        let drive = self.state_dir.file_name().unwrap_or_default();
        let account = self.state_dir.parent().and_then(Path::file_name).unwrap_or_default();
        Path::new(account).join(drive)
    }
}

/// The state directories that are meant; an error if there is none.
pub fn find_sources(request: &RescueRequest) -> Result<Vec<RescueSource>, DaemonError> {
    let root = &request.state_root;
    let mut dirs = Vec::new();
    if is_state(root) {
        dirs.push(root.clone());
    } else {
        for account in below(root) {
            if is_state(&account) {
                // `root` is an account's directory.
                dirs.push(account);
            } else if request.account.as_ref().is_none_or(|wanted| account.ends_with(wanted)) {
                dirs.extend(below(&account).into_iter().filter(|dir| is_state(dir)));
            }
        }
    }
    let mut sources = Vec::new();
    for state_dir in dirs {
        let known = known_beside(&state_dir);
        if request.drive.as_ref().is_none_or(|wanted| is_drive(&state_dir, wanted, &known)) {
            sources.push(source(state_dir, &known, request));
        }
    }
    if !sources.is_empty() {
        return Ok(sources);
    }
    let (why, remedy) = match &request.drive {
        Some(drive) => (
            format!("there is no state of drive '{drive}'"),
            "leave the drive away to rescue all there are, or give the --state-dir that it was mounted with",
        ),
        None => {
            ("there is no drive's state".to_owned(), "give the --state-dir that the drive was mounted with")
        }
    };
    let (what, remedy) = (root.display().to_string(), remedy.to_owned());
    Err(DaemonError { what, why, remedy, exit_code: exit::USAGE })
}

fn source(state_dir: PathBuf, known: &BTreeMap<String, KnownDrive>, request: &RescueRequest) -> RescueSource {
    let name = state_dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let drive = known.values().find(|drive| directory_name(&drive.id) == name);
    let business = drive.map_or(name.starts_with("b!"), |drive| drive.drive_type != DriveType::Personal);
    let account = state_dir.parent().and_then(Path::file_name).unwrap_or_default();
    let cache_dir = request.cache_root.join(account).join(&name);
    RescueSource {
        cache_dir: cache_dir.is_dir().then_some(cache_dir),
        mountpoint: request.mounts.get(&state_dir).cloned(),
        business,
        state_dir,
    }
}

/// Where a drive's state is, or was.
fn is_state(dir: &Path) -> bool {
    dir.join("staging").is_dir() || dir.join("store.sqlite").is_file()
}

fn is_drive(dir: &Path, wanted: &str, known: &BTreeMap<String, KnownDrive>) -> bool {
    let name = dir.file_name().unwrap_or_default();
    let by_id = directory_name(&DriveId::new(wanted));
    let alias = |key: &String| key.split_once(' ').is_some_and(|(_, drive)| drive == wanted);
    let of_drive = name.to_str().and_then(|name| name.split_once('@')).map(|(drive, _)| drive);
    name == by_id.as_str()
        // A folder of it that is shown by itself.
        || of_drive == Some(by_id.as_str())
        || known.iter().any(|(key, drive)| alias(key) && name == state_name(&drive.id, drive.folder.as_ref()).as_str())
}

/// What the account's mounts remember of their drives.
fn known_beside(state_dir: &Path) -> BTreeMap<String, KnownDrive> {
    state_dir.parent().map(|account| read_known(&known_drives(account))).unwrap_or_default()
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_directories_are_found_from_their_root_from_an_account_and_by_themselves() {
        let root = tempfile::tempdir().unwrap();
        let dir = |name: &str| root.path().join(name);
        for name in [
            "one/b!x/staging",
            "one/b!y/staging",
            "two/d3/staging",
            "two/empty",
            "two/b!y@f/staging",
            "one/b!x@f/staging",
        ] {
            fs::create_dir_all(dir(name)).unwrap();
        }
        let known = r#"{"https://graph.example/ me":{"id":"b!x","drive_type":"business","name":"n"},
            "https://graph.example/ me:/My Plans":{"id":"b!x","drive_type":"business","name":"n","folder":"f"}}"#;
        fs::write(dir("one/drives.json"), known).unwrap();
        let find = |from: PathBuf, account: Option<&str>, drive: Option<&str>| {
            let (account, drive) = (account.map(Into::into), drive.map(Into::into));
            let request = RescueRequest { state_root: from, account, drive, ..RescueRequest::default() };
            let found = find_sources(&request).unwrap_or_default();
            found.into_iter().map(|source| source.label().display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(find(dir(""), None, None), ["one/b!x", "one/b!x@f", "one/b!y", "two/b!y@f", "two/d3"]);
        assert_eq!(find(dir(""), Some("two"), None), ["two/b!y@f", "two/d3"]);
        assert_eq!(find(dir(""), None, Some("me")), ["one/b!x"]);
        assert_eq!(find(dir(""), None, Some("me:/My Plans")), ["one/b!x@f"]);
        assert_eq!(find(dir(""), None, Some("b!y")), ["one/b!y", "two/b!y@f"]);
        assert_eq!(find(dir("two"), None, None), ["two/b!y@f", "two/d3"]);
        assert_eq!(find(dir("two/d3"), None, None), ["two/d3"]);
        assert!(find(dir("two/empty"), None, None).is_empty());
    }
}
