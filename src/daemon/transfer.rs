//! Single files of a drive without a mount: listed, fetched, sent, removed. Keeps nothing on this machine.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;

use super::assemble::{self, find_error, service_error};
use super::{DaemonError, exit, lifecycle};
use crate::clock::{Clock, SystemClock};
use crate::config::MountSettings;
use crate::graph::{
    ConflictBehavior, Deleted, DriveAddress, FRAGMENT_UNIT, FoundItem, FragmentOutcome, Graph, GraphError,
    Priority, SessionSpec, SessionUrl, UploadTarget, fragment_len,
};
use crate::model::hash::QuickXor;
use crate::model::{ByteRange, DriveId, ItemKind, RemoteItem, Timestamp};

/// Up to this size content goes in one request (graph-api 15.1).
const WHOLE_MAX: u64 = 4 << 20;
/// Bytes of a fragment (graph-api 7.3).
const FRAGMENT: u64 = 32 * FRAGMENT_UNIT;
/// So often a transfer goes on where it broke.
const TRIES: u32 = 5;

/// Bytes that are there, of so many.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// As it is called on the service.
    pub name: String,
    /// `file`, `folder`, `package` or `shortcut`.
    pub kind: &'static str,
    /// Bytes, of files.
    pub size: Option<u64>,
    /// When it was last changed, RFC 3339.
    pub modified: Option<String>,
    /// For requests.
    pub id: String,
    /// Its version.
    pub etag: Option<String>,
}

impl Entry {
    fn of(item: &RemoteItem) -> Self {
        let kind = match item.kind {
            Some(ItemKind::File) => "file",
            Some(ItemKind::Package) => "package",
            Some(ItemKind::Shortcut) => "shortcut",
            Some(ItemKind::Folder) | None => "folder",
        };
        Self {
            name: item.name.clone().unwrap_or_default(),
            kind,
            size: item.size.filter(|_| kind == "file"),
            modified: item.mtime.or(item.changed).map(|time| time.to_rfc3339_seconds()),
            id: item.id.as_str().to_owned(),
            etag: item.etag.as_ref().map(|tag| tag.as_str().to_owned()),
        }
    }
}

/// The address of what is below another one, which may be of a folder already.
pub fn below(drive: &str, path: &str) -> String {
    let is_folder = drive.parse::<DriveAddress>().is_ok_and(|address| !address.below.is_empty());
    match path.trim_matches('/') {
        "" => drive.to_owned(),
        path if is_folder => format!("{}/{path}", drive.trim_end_matches('/')),
        path => format!("{drive}:/{path}"),
    }
}

/// What is asked for is `settings.drive`, with the account of the settings.
struct Work {
    settings: MountSettings,
    graph: Graph,
    found: FoundItem,
}

impl Work {
    async fn begin(mut settings: MountSettings) -> Result<Self, DaemonError> {
        let address: DriveAddress =
            settings.drive.parse().map_err(|_| assemble::no_drive(&settings.drive))?;
        let tokens = assemble::credentials(&mut settings)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let graph = assemble::graph(&settings, tokens, &clock)?;
        let found = graph.find_item(&address).await.map_err(|error| find_error(&settings, &error))?;
        Ok(Self { settings, graph, found })
    }

    fn error(&self, why: impl Into<String>, remedy: &str, exit_code: u8) -> DaemonError {
        let what = DriveAddress::shown(&self.settings.drive);
        DaemonError { what, why: why.into(), remedy: remedy.into(), exit_code }
    }

    fn failed(&self, error: &GraphError) -> DaemonError {
        let (remedy, exit_code) = match error {
            GraphError::Exists { .. } => ("leave --new out to replace it, or give another name", exit::BUSY),
            GraphError::PreconditionFailed { .. } | GraphError::EditConflict { .. } => {
                ("somebody changed it meanwhile: look at it, and try again", exit::BUSY)
            }
            GraphError::Locked { .. } => ("it is open or checked out elsewhere: try again later", exit::BUSY),
            GraphError::QuotaExceeded { .. } => ("make room on the drive", exit::FAILURE),
            GraphError::NameRefused { .. } | GraphError::TooLong { .. } => ("give another name", exit::USAGE),
            other => return service_error(&self.settings, other),
        };
        self.error(error.to_string(), remedy, exit_code)
    }

    /// What is there, or that nothing is.
    fn item(&self) -> Result<&RemoteItem, DaemonError> {
        self.found.item.as_ref().ok_or_else(|| {
            self.error(
                format!("there is no '{}' there", self.found.name),
                "see 'onedrivefs ls'",
                exit::NO_DRIVE,
            )
        })
    }

    /// What is there, as long as it is a file.
    fn file(&self) -> Result<&RemoteItem, DaemonError> {
        let item = self.item()?;
        match item.kind {
            Some(ItemKind::File) => Ok(item),
            _ => Err(self.error("it is no file", "give a file: DRIVE:/PATH", exit::USAGE)),
        }
    }

    fn drive(&self) -> &DriveId {
        &self.found.drive
    }

    /// The item as it is now.
    async fn again(&self, item: &RemoteItem) -> Result<RemoteItem, DaemonError> {
        let now = self.graph.item(self.drive(), &item.id, Priority::Interactive).await;
        now.map_err(|error| self.failed(&error))
    }
}

fn local(path: &Path, error: &io::Error) -> DaemonError {
    DaemonError {
        what: path.display().to_string(),
        why: error.to_string(),
        remedy: "give a file that can be read, or a directory that can be written".into(),
        exit_code: exit::FAILURE,
    }
}

/// What is in a folder; a file is its own listing. Blocks.
pub fn list(settings: MountSettings) -> Result<Vec<Entry>, DaemonError> {
    lifecycle::runtime()?.block_on(async {
        let work = Work::begin(settings).await?;
        let item = work.item()?;
        let (drive, folder) = match (item.kind, &item.target) {
            (Some(ItemKind::File | ItemKind::Package), _) => return Ok(vec![Entry::of(item)]),
            (Some(ItemKind::Shortcut), Some((drive, folder))) => (drive.clone(), folder.clone()),
            _ => (work.drive().clone(), item.id.clone()),
        };
        let mut entries = Vec::new();
        let mut next = None;
        loop {
            let page = work.graph.children(&drive, &folder, next.as_ref(), Priority::Interactive).await;
            let page = page.map_err(|error| work.failed(&error))?;
            entries.extend(page.items.iter().map(Entry::of));
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        entries.sort_by(|one: &Entry, other| one.name.cmp(&other.name));
        entries.dedup_by(|one, other| one.id == other.id);
        Ok(entries)
    })
}

/// Fetches a file to `to`, which a name is added to where it is a directory; it is there whole, or as before. Without
/// `to`, to stdout. The bytes fetched. Blocks.
pub fn get(settings: MountSettings, to: Option<&Path>, progress: Progress<'_>) -> Result<u64, DaemonError> {
    lifecycle::runtime()?.block_on(async {
        let work = Work::begin(settings).await?;
        let item = work.file()?.clone();
        let target = to.map(|to| match to.is_dir() {
            true => to.join(crate::model::names::to_local(item.name.as_deref().unwrap_or_default())),
            false => to.to_owned(),
        });
        let dir = match &target {
            Some(target) => {
                target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
            }
            None => &std::env::temp_dir(),
        };
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(|error| local(dir, &error))?;
        let (size, item) = fetch(&work, item, file.as_file_mut(), progress).await?;
        let Some(target) = target else {
            let stdout = Path::new("stdout");
            file.as_file_mut().seek(SeekFrom::Start(0)).map_err(|error| local(dir, &error))?;
            io::copy(file.as_file_mut(), &mut io::stdout().lock()).map_err(|error| local(stdout, &error))?;
            return Ok(size);
        };
        keep(file, &target, &item).map_err(|error| local(&target, &error))?;
        Ok(size)
    })
}

/// Puts what was fetched in its place, with its time.
fn keep(file: tempfile::NamedTempFile, target: &Path, item: &RemoteItem) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(time) = item.mtime {
        file.as_file().set_modified(time.into())?;
    }
    // As of any file that a program makes, or as it was.
    let mode = fs::metadata(target).map_or(0o644, |before| before.permissions().mode() & 0o777);
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(target)?;
    Ok(())
}

/// Fetches one version, never a mix of two (graph-api 6.3); goes on where it broke.
async fn fetch(
    work: &Work,
    mut item: RemoteItem,
    file: &mut fs::File,
    progress: Progress<'_>,
) -> Result<(u64, RemoteItem), DaemonError> {
    let here = |error: io::Error| local(Path::new("the file that it is fetched into"), &error);
    let (mut at, mut hash) = (0, QuickXor::default());
    for last in (0..TRIES).rev() {
        let total = item.size.unwrap_or(0);
        let outcome = part(work, &item, &mut at, &mut hash, file, progress).await.map_err(here)?;
        let now = work.again(&item).await?;
        let is_same = now.etag == item.etag && now.size == item.size;
        match outcome {
            Ok(()) if is_same && is_whole(&item, at, &hash, work) => return Ok((at, item)),
            Err(error) if last == 0 => return Err(work.failed(&error)),
            // What is here of this version stays.
            Err(error) if is_same && at < total => tracing::debug!(%error, at, "going on where it broke"),
            _ => {
                (at, hash) = (0, QuickXor::default());
                file.set_len(0).and_then(|()| file.rewind()).map_err(here)?;
            }
        }
        item = now;
    }
    Err(work.error("what comes is not what the service describes", "try again later", exit::SERVICE))
}

/// Whether all of a version came, as far as the service says what it is. It rewrites documents in libraries without
/// saying so (graph-api 6.4).
fn is_whole(item: &RemoteItem, at: u64, hash: &QuickXor, work: &Work) -> bool {
    let is_rewritten = work.drive().as_str().starts_with("b!") && {
        let name = item.name.as_deref().unwrap_or_default().to_lowercase();
        let end = name.rsplit('.').next().unwrap_or_default();
        ["docx", "xlsx", "pptx", "doc", "xls", "ppt", "docm", "xlsm", "pptm", "pdf", "html", "htm", "aspx"]
            .contains(&end)
    };
    let is_right = item.size.is_none_or(|size| size == at)
        && item.hashes.quick_xor.is_none_or(|expected| expected == hash.finish());
    is_right || is_rewritten
}

/// The rest of the content, as far as it comes. The outer error is of this machine.
async fn part(
    work: &Work,
    item: &RemoteItem,
    at: &mut u64,
    hash: &mut QuickXor,
    file: &mut fs::File,
    progress: Progress<'_>,
) -> io::Result<Result<(), GraphError>> {
    let total = item.size.unwrap_or(0);
    if total == 0 {
        return Ok(Ok(()));
    }
    let url = match &item.download_url {
        Some(url) => url.clone(),
        None => match work.graph.content_url(work.drive(), &item.id, Priority::Interactive).await {
            Ok(url) => url,
            Err(error) => return Ok(Err(error)),
        },
    };
    let range = (*at > 0).then(|| ByteRange::new(*at, total));
    let mut download = match work.graph.download(&url, range, Priority::Interactive).await {
        Ok(download) => download,
        Err(error) => return Ok(Err(error)),
    };
    // The service may send all for any range.
    let mut skip = at.saturating_sub(download.range.start);
    while let Some(chunk) = download.body.next().await {
        let mut chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => return Ok(Err(error)),
        };
        let known = skip.min(chunk.len() as u64);
        skip -= known;
        let chunk = chunk.split_off(usize::try_from(known).unwrap_or(chunk.len()));
        file.write_all(&chunk)?;
        hash.update(&chunk);
        *at += chunk.len() as u64;
        progress(*at, total);
    }
    Ok(Ok(()))
}

/// Sends a file, or stdin, over the version that is there now, or as a new one; into a folder under its own name. The
/// entry that it became. Blocks.
pub fn put(
    settings: MountSettings,
    from: Option<&Path>,
    only_new: bool,
    progress: Progress<'_>,
) -> Result<Entry, DaemonError> {
    let shown = from.unwrap_or(Path::new("stdin"));
    let here = |error: io::Error| local(shown, &error);
    let mut file = match from {
        Some(path) => fs::File::open(path).map_err(here)?,
        None => {
            let mut copy = tempfile::tempfile().map_err(here)?;
            io::copy(&mut io::stdin().lock(), &mut copy).and_then(|_| copy.rewind()).map_err(here)?;
            copy
        }
    };
    let metadata = file.metadata().map_err(here)?;
    if !metadata.is_file() {
        return Err(here(io::Error::other("it is no file")));
    }
    let mtime = metadata.modified().ok().filter(|_| from.is_some()).map(Timestamp::from);
    let spec = SessionSpec { size: metadata.len(), mtime, ..SessionSpec::default() };
    lifecycle::runtime()?.block_on(async {
        let mut work = Work::begin(settings).await?;
        let is_folder = work.found.item.as_ref().is_some_and(|item| item.kind == Some(ItemKind::Folder));
        if let (true, Some(name)) = (is_folder, from.and_then(Path::file_name)) {
            let name = crate::model::names::to_remote(name);
            let name = name.map_err(|_| {
                work.error("the service takes no such name", "give another: DRIVE:/PATH/NAME", exit::USAGE)
            })?;
            let within = work.graph.find_below(work.found, &name).await;
            work.found = within.map_err(|error| find_error(&work.settings, &error))?;
        }
        let target = target(&work, only_new)?;
        let made = if spec.size == 0 || spec.size <= WHOLE_MAX && spec.mtime.is_none() {
            let mut body = Vec::new();
            file.read_to_end(&mut body).map_err(here)?;
            whole(&work, &target, body.into()).await?
        } else {
            send(&work, &target, &spec, &mut file, progress).await?.map_err(here)?
        };
        Ok(Entry::of(&made))
    })
}

/// What the file is to become. Over what is there: only as long as it is that version.
fn target(work: &Work, only_new: bool) -> Result<UploadTarget, DaemonError> {
    match (&work.found.item, &work.found.parent) {
        (Some(_), _) if only_new => {
            Err(work.error("it is there already", "leave --new out to replace it", exit::BUSY))
        }
        (Some(_), _) => {
            let item = work.file()?;
            let if_match = item.etag.as_ref().map(|tag| tag.as_str().to_owned());
            Ok(UploadTarget::Replace { item: item.id.clone(), if_match })
        }
        (None, Some(parent)) => Ok(UploadTarget::New {
            parent: parent.clone(),
            name: work.found.name.clone(),
            conflict: ConflictBehavior::Fail,
        }),
        (None, None) => Err(work.error("it is no file", "give a file: DRIVE:/PATH", exit::USAGE)),
    }
}

async fn whole(work: &Work, target: &UploadTarget, body: Bytes) -> Result<RemoteItem, DaemonError> {
    let made = match target {
        UploadTarget::New { parent, name, conflict } => {
            work.graph.put_new(work.drive(), parent, name, body, *conflict).await
        }
        UploadTarget::Replace { item, if_match } => {
            work.graph.put_replace(work.drive(), item, body, if_match.as_deref()).await
        }
    };
    made.map_err(|error| work.failed(&error))
}

/// By a session, which goes on where it broke. Its tag is asked for again before the last fragment: the session itself
/// looks at it in the beginning only (graph-api 7.2).
async fn send(
    work: &Work,
    target: &UploadTarget,
    spec: &SessionSpec,
    file: &mut fs::File,
    progress: Progress<'_>,
) -> Result<io::Result<RemoteItem>, DaemonError> {
    let failed = |error: GraphError| work.failed(&error);
    let session = work.graph.create_session(work.drive(), target, spec).await.map_err(failed)?;
    let (mut next, mut tries) = (session.next, 0);
    loop {
        let length = fragment_len(next, spec.size, FRAGMENT, FRAGMENT_UNIT);
        let mut body = vec![0; usize::try_from(length).unwrap_or(0)];
        if let Err(error) = file.seek(SeekFrom::Start(next)).and_then(|_| file.read_exact(&mut body)) {
            // Nothing of it is on the service.
            work.graph.cancel_session(&session.url).await.map_err(failed)?;
            return Ok(Err(error));
        }
        if next + length >= spec.size
            && let Err(error) = still(work, target).await
        {
            work.graph.cancel_session(&session.url).await.map_err(failed)?;
            return Err(error);
        }
        match work.graph.put_fragment(&session.url, next, spec.size, body.into()).await {
            Ok(FragmentOutcome::More { next: from }) => {
                (next, tries) = (from, 0);
                progress(next, spec.size);
            }
            Ok(FragmentOutcome::Done(item)) => {
                progress(spec.size, spec.size);
                return match item {
                    Some(item) => Ok(Ok(*item)),
                    None => made(work, target).await.map(Ok),
                };
            }
            Err(error) => {
                tries += 1;
                match work.graph.session_status(&session.url).await {
                    Ok(status) if status.next < spec.size && tries <= TRIES => next = status.next,
                    // It has all, or is gone: the last part may have made the file, and only the answer was lost.
                    _ => return lost(work, target, file, &session.url, error).await,
                }
            }
        }
    }
}

/// What became of an upload whose end was not seen: the item has what was sent, or it failed with `error`.
async fn lost(
    work: &Work,
    target: &UploadTarget,
    file: &mut fs::File,
    session: &SessionUrl,
    error: GraphError,
) -> Result<io::Result<RemoteItem>, DaemonError> {
    let mut hash = QuickXor::default();
    let mut buffer = vec![0; 1 << 20];
    let hashed = file.rewind().and_then(|()| {
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                count => hash.update(&buffer[..count]),
            }
        }
    });
    if hashed.is_ok()
        && let Ok(item) = made(work, target).await
        && item.hashes.quick_xor == Some(hash.finish())
    {
        return Ok(Ok(item));
    }
    // Else the service keeps the name for it for a while (graph-api 7.5).
    if let Err(error) = work.graph.cancel_session(session).await {
        tracing::debug!(%error, "the session is left to end by itself");
    }
    Err(work.failed(&error))
}

/// The item is the version that it was.
async fn still(work: &Work, target: &UploadTarget) -> Result<(), DaemonError> {
    let (UploadTarget::Replace { .. }, Some(before)) = (target, &work.found.item) else { return Ok(()) };
    let now = work.again(before).await?;
    let is_same = now.etag == before.etag
        || now.hashes.quick_xor.is_some() && now.hashes == before.hashes && now.size == before.size;
    if is_same {
        Ok(())
    } else {
        Err(work.failed(&GraphError::PreconditionFailed { ids: Default::default() }))
    }
}

/// What an upload became, where the answer does not say (graph-api 7.3).
async fn made(work: &Work, target: &UploadTarget) -> Result<RemoteItem, DaemonError> {
    let found = match target {
        UploadTarget::Replace { item, .. } => work.graph.item(work.drive(), item, Priority::Upload).await,
        UploadTarget::New { parent, name, .. } => {
            work.graph.child(work.drive(), parent, name, Priority::Upload).await
        }
    };
    found.map_err(|error| work.failed(&error))
}

/// Removes a file, or with `folders` what is in it too, as it is now: to the recycle bin. Blocks.
pub fn remove(settings: MountSettings, folders: bool) -> Result<(), DaemonError> {
    lifecycle::runtime()?.block_on(async {
        let work = Work::begin(settings).await?;
        let item = work.item()?;
        if item.root || work.found.parent.is_none() {
            return Err(work.error(
                "it is all of a drive, or what a link leads to",
                "give what is in it: DRIVE:/PATH",
                exit::USAGE,
            ));
        }
        if item.kind == Some(ItemKind::Folder) && !folders {
            return Err(work.error(
                "it is a folder",
                "add --recursive to remove it with what is in it",
                exit::USAGE,
            ));
        }
        // The tag of a folder moves with what is in it; what is asked for is all of that.
        let if_match =
            item.etag.as_ref().filter(|_| item.kind == Some(ItemKind::File)).map(|tag| tag.as_str());
        match work.graph.delete(work.drive(), &item.id, if_match).await {
            Ok(Deleted::Done | Deleted::AlreadyGone) => Ok(()),
            Err(error) => Err(work.failed(&error)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_any_address_is_one_too() {
        for (drive, path, expected) in [
            ("me", "a/b", "me:/a/b"),
            ("me", "", "me"),
            ("me:/Docs", "a", "me:/Docs/a"),
            ("me:/Docs/", "a", "me:/Docs/a"),
            ("contoso.sharepoint.com:/sites/Team", "a", "contoso.sharepoint.com:/sites/Team:/a"),
            ("contoso.sharepoint.com:/sites/Team:Plans", "a", "contoso.sharepoint.com:/sites/Team:Plans:/a"),
            ("contoso.sharepoint.com:/sites/Team:/Docs", "a", "contoso.sharepoint.com:/sites/Team:/Docs/a"),
            (
                "https://contoso.sharepoint.com/:f:/s/T/E?e=1",
                "a",
                "https://contoso.sharepoint.com/:f:/s/T/E?e=1:/a",
            ),
        ] {
            let address = below(drive, path);
            assert_eq!(address, expected);
            let parsed: DriveAddress = address.parse().expect(expected);
            assert!(path.is_empty() || parsed.below.last().is_some_and(|last| path.ends_with(last.as_str())));
        }
    }
}
