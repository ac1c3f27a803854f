//! The drives of a mount: which there are, how each is found and put together, and what is kept of them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::assemble::{
    NotFound, Planted, Shared, disk_error, find_drive, find_error, is_unfinished, keep_cache_small,
    keep_log_short, known_drive, make_private, no_drive, plant, replace_file, vfs_config,
};
use super::{DaemonError, exit};
use crate::auth::TokenSource;
use crate::config::MountSettings;
use crate::engine::Engine;
use crate::graph::{DriveAddress, FarItem, FindError, FoundDrive, GraphError, Priority, usual_type};
use crate::model::{Drive, ItemId, Timestamp, names};
use crate::store::StateLock;
use crate::vfs::forest::{Catalog, Forest, Found, FoundKind, Listing, Outside, Target};
use crate::vfs::{Invalidation, Vfs, VfsError};

/// The file system of a mount.
pub(super) type Files = Forest<Arc<Drives>>;

/// What a mount was asked to show.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// One drive, or a folder of one, which is the root.
    One(String),
    /// Several, each under its name.
    Many(Vec<(String, Result<Listing, Target>)>),
}

/// `all`, a drive, or a list of `[NAME=]DRIVE` with commas between.
fn asked(text: &str) -> Result<Asked, DaemonError> {
    let named = |name: &str| Err(Target::Named(name.to_owned()));
    if text == "all" {
        return Ok(Asked::Many(vec![
            ("OneDrive".into(), named("me")),
            ("Shared with me".into(), Ok(Listing::Shared)),
            ("Sites".into(), Ok(Listing::Sites)),
        ]));
    }
    let parts = cut(text);
    let one = match parts.as_slice() {
        [one] if !text.ends_with(',') && split_name(one).0.is_none() => Some(one),
        _ => None,
    };
    if let Some(one) = one {
        return one.parse::<DriveAddress>().map(|_| Asked::One(one.clone())).map_err(|_| no_drive(text));
    }
    let mut shown: Vec<(String, Result<Listing, Target>)> = Vec::new();
    let mut taken = BTreeSet::new();
    for one in &parts {
        let (name, what) = split_name(one);
        let (usual, what) = match what {
            "shared" => ("Shared with me".to_owned(), Ok(Listing::Shared)),
            "sites" => ("Sites".to_owned(), Ok(Listing::Sites)),
            drive => (usual_name(drive)?, named(drive)),
        };
        let title = match name {
            None => usual,
            Some(name) => names::to_remote(OsStr::new(name)).map_err(|_| no_drive(one))?,
        };
        if !taken.insert(names::fold(&title)) {
            return Err(DaemonError {
                what: one.clone(),
                why: format!("two of the drives would be called '{title}'"),
                remedy: "give one of them another name: NAME=DRIVE".into(),
                exit_code: exit::USAGE,
            });
        }
        shown.push((title, what));
    }
    if shown.is_empty() { Err(no_drive(text)) } else { Ok(Asked::Many(shown)) }
}

/// Whether this text is what a mount may be asked to show; asks nobody.
pub fn check_drive(text: &str) -> Result<(), DaemonError> {
    asked(text).map(|_| ())
}

/// What of a mount's drives may be shown to others: sharing links are not.
pub(super) fn shown(text: &str) -> String {
    let one = |part: String| match split_name(&part) {
        (Some(name), drive) => format!("{name}={}", DriveAddress::shown(drive)),
        (None, drive) => DriveAddress::shown(drive),
    };
    cut(text).into_iter().map(one).collect::<Vec<_>>().join(",")
}

/// `NAME=DRIVE`, or a drive alone.
fn split_name(text: &str) -> (Option<&str>, &str) {
    match text.split_once('=') {
        // A library's name may hold one too.
        Some((name, drive)) if !name.contains(['/', ':']) => (Some(name), drive),
        _ => (None, text),
    }
}

fn usual_name(drive: &str) -> Result<String, DaemonError> {
    Ok(drive.parse::<DriveAddress>().map_err(|_| no_drive(drive))?.usual_name())
}

/// Cuts at commas; one that belongs to a name is written `\,`.
fn cut(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut symbols = text.chars().peekable();
    while let Some(symbol) = symbols.next() {
        let current = parts.last_mut().expect("the list begins with one part");
        match symbol {
            '\\' if symbols.peek() == Some(&',') => current.extend(symbols.next()),
            ',' => parts.push(String::new()),
            other => current.push(other),
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Builds the drives of a mount.
pub(super) struct Drives {
    pub shared: Arc<Shared>,
    /// Where the numbers of the drives are kept.
    dir: PathBuf,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    started: bool,
    /// Put together, and not yet followed.
    waiting: Vec<Engine>,
    /// Those that were put together.
    engines: Vec<Engine>,
    /// Held until all else is gone.
    locks: Vec<StateLock>,
}

impl Running {
    /// The service is known to be out of reach.
    fn is_offline(&self) -> bool {
        self.engines.iter().any(Engine::is_offline)
    }
}

/// While a drive is known to be out of reach, the service gets so long to answer for another one.
const OFFLINE_PATIENCE: Duration = Duration::from_millis(800);

/// A mount's file system, and what builds its drives. Dropped in this order.
pub(super) struct Assembled {
    pub files: Files,
    pub drives: Arc<Drives>,
}

/// Builds a mount's parts. Of a mount of one drive, that; asks the service only for a drive that was never mounted here
/// before. Of several, none.
pub(super) async fn assemble(
    settings: &MountSettings,
    tokens: Arc<dyn TokenSource>,
) -> Result<Assembled, DaemonError> {
    let asked = asked(&settings.drive)?;
    let shared = Arc::new(Shared::new(settings, tokens)?);
    let key = format!("{} {}", settings.graph_url, settings.drive);
    let name = format!("mount-{}", &blake3::hash(key.as_bytes()).to_hex()[..16]);
    let dir = shared.account_dir.join(name);
    let drives =
        Arc::new(Drives { shared: Arc::clone(&shared), dir: dir.clone(), running: Mutex::default() });
    let born = Timestamp::from(shared.clock.wall());
    let grow = |catalog| {
        let entrances = Arc::clone(&shared.entrances);
        Forest::new(Arc::clone(&drives), vfs_config(settings, 0), catalog, entrances, born)
    };
    let files = match asked {
        Asked::One(name) => {
            let found = find_drive(&shared, &name).await.map_err(|error| match error {
                NotFound::Service(error) => find_error(settings, &error),
                NotFound::Here(error) => error,
            })?;
            let known = drives.kept()?;
            let files = grow(known.unwrap_or_else(|| Catalog::of_drive(target_of_found(&found))));
            let planted = plant(&shared, 0, found.drive, found.folder)?;
            files.put(0, drives.take(planted));
            files
        }
        Asked::Many(shown) => {
            make_private(&dir)?;
            let lock = super::yielding::lock(&dir)?;
            drives.running().locks.push(lock);
            let mut catalog = drives.kept()?.unwrap_or_else(Catalog::of_drives);
            let refused = |error: VfsError| disk_error(&dir, &error);
            catalog.show(shown).map_err(refused)?;
            drives.save(&catalog).map_err(refused)?;
            grow(catalog)
        }
    };
    Ok(Assembled { files, drives })
}

impl Drives {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mount is there: the drives that are put together, and those to come, follow the service.
    pub fn start(&self) {
        let mut running = self.running();
        running.started = true;
        running.waiting.drain(..).for_each(|engine| follow(&engine));
    }

    /// Keeps all states locked until the process ends.
    pub fn keep_locked(&self) {
        std::mem::forget(std::mem::take(&mut self.running().locks));
    }

    /// Has a drive followed once the mount is there.
    fn take(&self, planted: Planted) -> Arc<Vfs<Engine>> {
        let Planted { files, lock } = planted;
        let mut running = self.running();
        running.locks.push(lock);
        if running.is_offline() {
            files.drive().presume_offline();
        }
        running.engines.push(files.drive().clone());
        if running.started {
            follow(files.drive());
        } else {
            running.waiting.push(files.drive().clone());
        }
        files
    }

    /// What the service answers; no long wait where it was out of reach a moment ago.
    async fn patiently<T>(&self, answer: impl Future<Output = Result<T, VfsError>>) -> Result<T, VfsError> {
        if !self.running().is_offline() {
            return answer.await;
        }
        tokio::time::timeout(OFFLINE_PATIENCE, answer).await.unwrap_or(Err(VfsError::Offline))
    }

    fn catalog_path(&self) -> PathBuf {
        self.dir.join("slots.json")
    }

    /// What was kept of an earlier mount.
    fn kept(&self) -> Result<Option<Catalog>, DaemonError> {
        let path = self.catalog_path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(disk_error(&path, &error)),
        };
        if let Some(catalog) = Catalog::parse(&bytes) {
            return Ok(Some(catalog));
        }
        // The drives' own states are found by their ids: only inode numbers and what was listed are lost.
        let aside = path.with_extension("damaged");
        tracing::error!(path = %path.display(), aside = %aside.display(), "it cannot be read, and begins anew");
        fs::rename(&path, &aside).map_err(|error| disk_error(&path, &error))?;
        Ok(None)
    }

    /// The slots of which something was left unsent, or is pinned.
    pub fn unfinished(&self, files: &Files) -> Vec<u16> {
        let open: BTreeSet<u16> = files.opened().iter().map(|(slot, _)| *slot).collect();
        let catalog = files.catalog();
        let closed = catalog.targets().filter(|(slot, _)| !open.contains(slot));
        let unsent = closed.filter(|(_, target)| match target {
            Target::Named(name) => known_drive(&self.shared.settings, name).is_some_and(|found| {
                let state = self.shared.state_of(&found.drive.id, found.folder.as_ref());
                is_unfinished(&self.shared, &state)
            }),
            Target::Drive { id, .. } => is_unfinished(&self.shared, &self.shared.state_of(id, None)),
            Target::Folder { drive, item, .. } => {
                is_unfinished(&self.shared, &self.shared.state_of(drive, Some(item)))
            }
        });
        unsent.map(|(slot, _)| slot).collect()
    }

    async fn listed(&self, listing: Listing) -> Result<Vec<Found>, VfsError> {
        let graph = &self.shared.graph;
        let failed = |error: GraphError| VfsError::from(&error);
        let slot = |key: String, title: String, target| Found { key, title, what: FoundKind::Slot(target) };
        Ok(match listing {
            Listing::Fixed => Vec::new(),
            Listing::Sites => {
                let site = |site: crate::graph::Site| Found {
                    key: site.id.clone(),
                    title: site.name,
                    what: FoundKind::Site(site.id),
                };
                graph.sites().await.map_err(failed)?.into_iter().map(site).collect()
            }
            Listing::Libraries(site) => {
                let library = |drive: Drive| {
                    let target = target_of(&drive);
                    slot(drive.id.canonical(), drive.name, target)
                };
                graph.libraries_of(&site).await.map_err(failed)?.into_iter().map(library).collect()
            }
            Listing::Shared => {
                let folder = |far: FarItem| {
                    let key = format!("{} {}", far.drive.canonical(), far.item);
                    let title = far.name.clone();
                    slot(key, title, target_of_folder(far))
                };
                let shared = graph.shared_with_me().await.map_err(failed)?;
                shared.into_iter().filter(|far| far.is_folder).map(folder).collect()
            }
        })
    }

    async fn target_of_far(&self, far: FarItem) -> Result<Target, VfsError> {
        if !far.is_folder {
            return Err(VfsError::NotSupported);
        }
        let graph = &self.shared.graph;
        // Also says at once, and for good, what is wrong with it.
        let there = graph.item(&far.drive, &far.item, Priority::Interactive).await;
        let there = there.map_err(|error| VfsError::from(&error))?;
        if there.root {
            let drive = graph.drive(&far.drive).await.map_err(|error| VfsError::from(&error))?;
            return Ok(target_of(&drive));
        }
        Ok(target_of_folder(far))
    }
}

fn follow(engine: &Engine) {
    engine.start();
    keep_log_short(engine.store());
    keep_cache_small(engine);
}

fn target_of(drive: &Drive) -> Target {
    Target::Drive { id: drive.id.clone(), drive_type: drive.drive_type, name: drive.name.clone() }
}

fn target_of_found(found: &FoundDrive) -> Target {
    let drive = &found.drive;
    match &found.folder {
        None => target_of(drive),
        Some(item) => Target::Folder {
            drive: drive.id.clone(),
            drive_type: drive.drive_type,
            item: item.clone(),
            name: drive.name.clone(),
        },
    }
}

fn target_of_folder(far: FarItem) -> Target {
    let FarItem { drive, drive_type, item, name, .. } = far;
    let drive_type = drive_type.unwrap_or_else(|| usual_type(&drive));
    Target::Folder { drive, drive_type, item, name }
}

/// What a program is told of an address that leads nowhere.
fn told_found(error: &FindError) -> VfsError {
    tracing::warn!(%error, "a drive cannot be shown");
    match error {
        FindError::Service(error) => VfsError::from(error),
        FindError::Missing { .. } | FindError::Link { .. } => VfsError::NotFound,
        FindError::Refused { .. } => VfsError::AccessDenied,
        FindError::NoFolder { .. } => VfsError::NotSupported,
        FindError::Ambiguous { .. } => VfsError::Invalid,
    }
}

/// What a program is told of a drive that could not be put together; the log has the rest.
fn told(error: &DaemonError) -> VfsError {
    tracing::error!(%error, "a drive cannot be shown");
    if error.exit_code == exit::BUSY { VfsError::Busy } else { VfsError::Store(error.to_string()) }
}

impl Outside for Arc<Drives> {
    type Drive = Engine;

    async fn list(&self, listing: Listing) -> Result<Vec<Found>, VfsError> {
        self.patiently(self.listed(listing)).await
    }

    async fn follow(&self, drive: &Engine, item: ItemId) -> Result<Target, VfsError> {
        let id = drive.drive().id.clone();
        let asked = async {
            let far = self.shared.graph.shortcut(&id, &item).await.map_err(|error| VfsError::from(&error))?;
            self.target_of_far(far.ok_or(VfsError::NotFound)?).await
        };
        self.patiently(asked).await
    }

    async fn open(&self, slot: u16, target: Target) -> Result<(Target, Arc<Vfs<Engine>>), VfsError> {
        let (drive, top, target) = match target {
            Target::Named(name) => {
                let found = async {
                    find_drive(&self.shared, &name).await.map_err(|error| match error {
                        NotFound::Service(error) => told_found(&error),
                        NotFound::Here(error) => told(&error),
                    })
                };
                let found = self.patiently(found).await?;
                let target = target_of_found(&found);
                (found.drive, found.folder, target)
            }
            Target::Drive { ref id, drive_type, ref name } => {
                (Drive::bare(id.clone(), drive_type, name.clone()), None, target)
            }
            Target::Folder { ref drive, drive_type, ref item, ref name } => {
                (Drive::bare(drive.clone(), drive_type, name.clone()), Some(item.clone()), target)
            }
        };
        let shared = Arc::clone(&self.shared);
        // On a thread of its own, which ends what it began also where nobody waits any more.
        let planting = tokio::task::spawn_blocking(move || plant(&shared, slot, drive, top));
        let planted = planting.await.map_err(|error| VfsError::Store(error.to_string()))?;
        let files = self.take(planted.map_err(|error| told(&error))?);
        Ok((target, files))
    }

    fn save(&self, catalog: &Catalog) -> Result<(), VfsError> {
        make_private(&self.dir).map_err(|error| VfsError::Store(error.to_string()))?;
        replace_file(&self.catalog_path(), &catalog.to_bytes()).map_err(VfsError::Io)
    }

    fn forget(&self, what: Invalidation) {
        self.shared.notify.send(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_shows_one_drive_all_or_a_list_with_names() {
        for one in
            ["me", "contoso.sharepoint.com:/sites/Team:A=B", "https://contoso.sharepoint.com/sites/T?id=%2Fa"]
        {
            assert_eq!(asked(one), Ok(Asked::One(one.into())));
        }
        assert_eq!(asked(r"me:/Plans\, old"), Ok(Asked::One("me:/Plans, old".into())));
        let names = |text: &str| match asked(text) {
            Ok(Asked::Many(shown)) => shown.into_iter().map(|(name, _)| name).collect::<Vec<_>>(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(names("all"), ["OneDrive", "Shared with me", "Sites"]);
        assert_eq!(
            names("me,b!x,contoso.sharepoint.com:/sites/Team,contoso.sharepoint.com:/sites/Team:Docs,sites"),
            ["OneDrive", "b!x", "Team", "Team - Docs", "Sites"]
        );
        assert_eq!(names("work=b!x"), ["work"]);
        for wrong in ["", ",", "a b", "me,a/b", "x=me,X=b!y", "a/b=me,me", "..=me"] {
            assert_eq!(asked(wrong).map_err(|error| error.exit_code), Err(exit::USAGE), "{wrong}");
        }
    }
}
