//! Where refresh tokens are kept between runs.
//!
//! The file is replaced whole: a reader sees the old or the new token, also after a power cut. Its mode is
//! 0600 from the first byte.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Secret;
use crate::disk::Disk;

const FORMAT: u32 = 1;

/// What is needed to get access tokens of one account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredToken {
    /// Replaced by every refresh (graph-api 1.7).
    pub refresh_token: Secret,
}

/// Keeps the refresh token. Calls may block on the disk; callers keep them off the async threads.
pub trait TokenStore: Send + Sync + fmt::Debug {
    /// The token last saved by any process; `None` if nobody signed in.
    fn load(&self) -> io::Result<Option<StoredToken>>;

    /// Replaces the token; it is durable when this returns.
    fn save(&self, token: &StoredToken) -> io::Result<()>;
}

/// A token in a file of its own, readable by its owner only.
#[derive(Clone, Debug)]
pub struct FileTokenStore {
    disk: Disk,
    path: PathBuf,
}

impl FileTokenStore {
    /// Uses the file at `path`; its directory must exist when something is saved.
    pub fn new(disk: Disk, path: impl Into<PathBuf>) -> Self {
        Self { disk, path: path.into() }
    }

    /// Removes the token; that is durable when this returns. False if there was none.
    pub fn remove(&self) -> io::Result<bool> {
        let known = self.path.try_exists()?;
        self.disk.unlink("token.remove", &self.path)?;
        if known {
            self.disk.sync_dir("token.sync_dir", self.directory())?;
        }
        Ok(known)
    }

    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// Where the next token is written before it takes its place; each process has its own.
    fn draft(&self) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.new", std::process::id()));
        self.path.with_file_name(name)
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    #[serde(flatten)]
    token: StoredToken,
}

impl TokenStore for FileTokenStore {
    fn load(&self) -> io::Result<Option<StoredToken>> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let file: File = serde_json::from_slice(&text).map_err(|error| {
            // The error's own text may quote the file, which is a secret.
            io::Error::new(io::ErrorKind::InvalidData, format!("bad token file, line {}", error.line()))
        })?;
        if file.version != FORMAT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("token file has format {}, this program knows {FORMAT}", file.version),
            ));
        }
        Ok(Some(file.token))
    }

    fn save(&self, token: &StoredToken) -> io::Result<()> {
        let draft = self.draft();
        // Left by a process that had our id and was killed here.
        self.disk.unlink("token.tidy", &draft)?;
        let file = self.disk.create("token.create", &draft)?;
        let text = serde_json::to_vec(&File { version: FORMAT, token: token.clone() })?;
        file.write_at("token.write", &text, 0)?;
        file.sync_all("token.sync")?;
        self.disk.rename("token.rename", &draft, &self.path)?;
        self.disk.sync_dir("token.sync_dir", self.directory())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn token(text: &str) -> StoredToken {
        StoredToken { refresh_token: Secret::new(text) }
    }

    #[test]
    fn a_saved_token_is_read_back_and_only_its_owner_may_read_it() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = FileTokenStore::new(Disk::new(), directory.path().join("token.json"));
        assert_eq!(store.load().expect("no file is no error"), None);
        store.save(&token("one")).expect("save");
        store.save(&token("two")).expect("save again");
        assert_eq!(store.load().expect("load"), Some(token("two")));
        let mode = std::fs::metadata(directory.path().join("token.json")).expect("stat").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).expect("list").count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_newer_format_is_refused_without_showing_the_token() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("token.json");
        for text in [r#"{"version":9,"refresh_token":"hush"}"#, r#"{"version":1,"refresh_token":hush}"#] {
            std::fs::write(&path, text).expect("write");
            let error = FileTokenStore::new(Disk::new(), &path).load().expect_err("refused");
            assert!(!format!("{error:?} {error}").contains("hush"));
        }
    }
}
