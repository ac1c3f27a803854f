//! Small pictures for file managers, from the service into the desktop's cache, so that a folder of photos is shown
//! without its originals.

mod cache;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, stream};
use tokio::runtime::Runtime;

use super::{DaemonError, assemble, lifecycle};
use crate::auth::StaticToken;
use crate::clock::SystemClock;
use crate::config::MountSettings;
use crate::graph::{Graph, Priority};
use crate::model::remote::DownloadUrl;

pub use cache::ThumbnailCache;

/// Pictures fetched at once.
const AT_ONCE: usize = 8;
/// The largest that is taken for a small picture, in bytes.
const MAX_BYTES: usize = 8 << 20;

/// Endings of names of pictures and films, of which the service makes small pictures.
const ENDINGS: [&str; 24] = [
    "jpg", "jpeg", "png", "gif", "bmp", "tif", "tiff", "webp", "heic", "heif", "arw", "cr2", "cr3", "dng",
    "nef", "orf", "raf", "rw2", "mp4", "m4v", "mov", "avi", "mkv", "webm",
];

/// A file that a small picture is wanted of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// Where it is, as programs see it.
    pub path: PathBuf,
    /// When it was last modified, in seconds of the epoch: what the picture is valid for.
    pub mtime: i64,
    /// Bytes.
    pub size: u64,
}

/// The pictures and films in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Album {
    /// The folder.
    pub folder: PathBuf,
    /// In the order of their names.
    pub originals: Vec<Original>,
}

/// The pictures and films at or below `path`, by folder. Reads names and attributes only.
pub fn albums(path: &Path) -> Result<Vec<Album>, DaemonError> {
    let unreadable = |path: &Path, error: &std::io::Error| DaemonError {
        what: path.display().to_string(),
        why: error.to_string(),
        remedy: "check the path".into(),
        exit_code: super::exit::USAGE,
    };
    let stat = fs::symlink_metadata(path).map_err(|error| unreadable(path, &error))?;
    if !stat.is_dir() {
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        return Ok(vec![Album { folder, originals: original(path.to_owned(), &stat).into_iter().collect() }]);
    }
    let mut folders = vec![path.to_owned()];
    let mut albums = Vec::new();
    while let Some(folder) = folders.pop() {
        let mut originals = Vec::new();
        for entry in fs::read_dir(&folder).map_err(|error| unreadable(&folder, &error))? {
            let entry = entry.map_err(|error| unreadable(&folder, &error))?;
            // Gone since.
            let Ok(stat) = entry.metadata() else { continue };
            match stat.is_dir() {
                true => folders.push(entry.path()),
                false => originals.extend(original(entry.path(), &stat)),
            }
        }
        originals.sort_by(|one, other| one.path.cmp(&other.path));
        if !originals.is_empty() {
            albums.push(Album { folder, originals });
        }
    }
    albums.sort_by(|one, other| one.folder.cmp(&other.folder));
    Ok(albums)
}

fn original(path: PathBuf, stat: &fs::Metadata) -> Option<Original> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    let wanted = stat.is_file() && ENDINGS.contains(&ending.as_str());
    wanted.then(|| Original { path, mtime: stat.mtime(), size: stat.len() })
}

/// Fetches pictures and keeps them.
pub struct Maker {
    runtime: Runtime,
    graph: Graph,
    cache: ThumbnailCache,
}

impl Maker {
    /// Keeps what it makes in `cache`.
    pub fn new(settings: &MountSettings, cache: ThumbnailCache) -> Result<Self, DaemonError> {
        let runtime = lifecycle::runtime()?;
        // Their addresses need no sign-in (graph-api 6.1).
        let tokens = std::sync::Arc::new(StaticToken::new(""));
        let clock: std::sync::Arc<dyn crate::clock::Clock> = std::sync::Arc::new(SystemClock);
        let graph = runtime.block_on(async { assemble::graph(settings, tokens, &clock) })?;
        Ok(Self { runtime, graph, cache })
    }

    /// Makes pictures from their addresses; tells each that cannot be made, and why. Blocks.
    pub fn make(
        &self,
        wanted: Vec<(Original, DownloadUrl)>,
        mut done: impl FnMut(&Original, Result<(), String>),
    ) {
        self.runtime.block_on(async {
            let work = stream::iter(wanted).map(|(original, url)| async move {
                let outcome = self.make_one(&original, &url).await;
                (original, outcome)
            });
            let mut work = work.buffer_unordered(AT_ONCE);
            while let Some((original, outcome)) = work.next().await {
                done(&original, outcome);
            }
        });
    }

    async fn make_one(&self, original: &Original, url: &DownloadUrl) -> Result<(), String> {
        let download = self.graph.download(url, None, Priority::Prefetch).await;
        let mut body = download.map_err(|error| error.to_string())?.body;
        let mut bytes = Vec::new();
        while let Some(part) = body.next().await {
            bytes.extend_from_slice(&part.map_err(|error| error.to_string())?);
            if bytes.len() > MAX_BYTES {
                return Err("the service sent a picture that is too large".into());
            }
        }
        self.cache.keep(original, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_and_films_are_found_by_folder_and_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("photos/raw.jpg")).unwrap();
        for name in
            ["a.JPG", "notes.txt", "noending", "photos/b.png", "photos/raw.jpg/c.dng", "photos/x.docx"]
        {
            fs::write(at(name), "x").unwrap();
        }
        std::os::unix::fs::symlink(at("a.JPG"), at("link.jpg")).unwrap();
        let found: Vec<PathBuf> = albums(root.path())
            .unwrap()
            .into_iter()
            .flat_map(|album| album.originals)
            .map(|one| one.path)
            .collect();
        assert_eq!(found, [at("a.JPG"), at("photos/b.png"), at("photos/raw.jpg/c.dng")]);
        let alone = albums(&at("a.JPG")).unwrap();
        assert_eq!((alone.len(), alone[0].folder.as_path()), (1, root.path()));
        assert!(albums(&at("missing")).is_err());
    }
}
