//! What is unsent can be had: beside a daemon, without one, and from a store that does not open.

mod sync_support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onedrivefs::daemon::rescue::{RescueReport, RescueSource, rescue};
use onedrivefs::emulator::Flavour;
use onedrivefs::vfs::{Filesystem, OpenFlags};
use sync_support::{ME, Machine, Service};

/// A place to rescue to.
struct Target(tempfile::TempDir);

impl Target {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn rescue(&self, state: &Path) -> RescueReport {
        let source = RescueSource {
            state_dir: state.to_owned(),
            cache_dir: Some(state.join("cache")),
            mountpoint: None,
            business: true,
        };
        rescue(self.0.path(), &[source], &mut |_| {}).unwrap()
    }

    /// Every file with its content, by its path; folders end in a slash.
    fn tree(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut dirs = vec![self.0.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(self.0.path()).unwrap().to_str().unwrap().to_owned();
                if path.is_symlink() {
                    found.insert(name, format!("-> {}", fs::read_link(&path).unwrap().display()));
                } else if path.is_dir() {
                    if fs::read_dir(&path).unwrap().next().is_none() {
                        found.insert(format!("{name}/"), String::new());
                    }
                    dirs.push(path);
                } else {
                    found.insert(name, String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned());
                }
            }
        }
        found
    }
}

fn expected(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())).collect()
}

/// A machine with something of each kind that is unsent, and things that are not.
async fn unsent(service: &Service) -> Machine {
    service.write_elsewhere("docs/sent.txt", "theirs");
    service.write_elsewhere("docs/edited.txt", "theirs");
    let machine = service.machine().await;
    machine.look().await;
    machine.write("here.txt", "sent from here").await;
    machine.sync().await;
    service.control.cut();
    machine.write("docs/edited.txt", "edited here").await;
    machine.mkdir("new").await.unwrap();
    machine.mkdir("new/empty").await.unwrap();
    machine.write("new/a:b.txt", "a name that is mapped").await;
    machine.write("temp", "moved").await;
    machine.rename("temp", "new/moved.txt").await.unwrap();
    machine.write(".x.swp", "scratch").await;
    machine.write("gone.txt", "deleted again").await;
    machine.unlink("gone.txt").await.unwrap();
    // Deleted too, but its content is here as long as it is open.
    machine.write("held.txt", "deleted while it is open").await;
    machine.open("held.txt", OpenFlags::READ).await.unwrap();
    machine.unlink("held.txt").await.unwrap();
    let root = onedrivefs::model::Ino::ROOT;
    machine.files.symlink(ME, root, "link".as_ref(), "docs/sent.txt".as_ref()).await.unwrap();
    // What is noted beside staging is written with the next plan.
    tokio::time::sleep(Duration::from_secs(5)).await;
    machine
}

const CONTENT: &[(&str, &str)] = &[
    (".x.swp", "scratch"),
    ("docs/edited.txt", "edited here"),
    ("new/a:b.txt", "a name that is mapped"),
    ("new/moved.txt", "moved"),
];

fn all() -> BTreeMap<String, String> {
    let mut all = expected(CONTENT);
    all.extend(expected(&[("link", "-> docs/sent.txt"), ("new/empty/", "")]));
    all
}

/// The state as it is, so that changes show.
fn state_of(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for dir in [dir.to_owned(), dir.join("staging")] {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && !path.ends_with("lock") {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The state as a crash of the machine leaves it.
fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("staging")).unwrap();
    for (path, bytes) in state_of(dir) {
        if !path.ends_with("store.sqlite-shm") {
            fs::write(copy.path().join(path.strip_prefix(dir).unwrap()), bytes).unwrap();
        }
    }
    copy
}

// S72.
#[tokio::test(start_paused = true)]
async fn everything_unsent_is_saved_under_its_path_beside_a_daemon_and_without_one() {
    for flavour in [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary] {
        let service = Service::new(flavour);
        let machine = unsent(&service).await;
        let beside = Target::new();
        let report = beside.rescue(service.dir());
        assert!(report.is_complete() && report.sources[0].in_use, "{report:?}");
        assert_eq!(beside.tree(), all(), "{flavour:?}");
        machine.crash();
        // Nobody has a copy open: SQLite would clear up behind whoever is the last.
        let copy = copy_of(service.dir());
        let before = state_of(copy.path());
        let without = Target::new();
        let report = without.rescue(copy.path());
        assert!(report.is_complete() && !report.sources[0].in_use, "{report:?}");
        assert_eq!(without.tree(), all(), "{flavour:?}");
        assert_eq!(state_of(copy.path()), before, "nothing of the state is changed");
        // What was rescued is sent all the same when the drive is mounted again.
        service.control.clear_faults();
        service.machine().await.sync().await;
        assert_eq!(service.control.content("docs/edited.txt").unwrap(), "edited here");
    }
}

// S72.
#[tokio::test(start_paused = true)]
async fn nothing_is_overwritten_and_a_second_rescue_saves_nothing_twice() {
    let service = Service::new(Flavour::Business);
    unsent(&service).await.crash();
    let target = Target::new();
    fs::create_dir(target.0.path().join("docs")).unwrap();
    fs::write(target.0.path().join("docs/edited.txt"), "somebody's").unwrap();
    let report = target.rescue(service.dir());
    assert!(report.is_complete());
    let mut tree = all();
    tree.extend(expected(&[("docs/edited.txt", "somebody's"), ("docs/edited (2).txt", "edited here")]));
    assert_eq!(target.tree(), tree);
    let again = target.rescue(service.dir());
    assert!(again.saved.iter().all(|saved| saved.was_there), "{again:?}");
    assert_eq!(target.tree(), tree);
}

type Damage = fn(&Path);

fn damage_header(store: &Path) {
    let file = fs::OpenOptions::new().write(true).open(store).unwrap();
    file.write_all_at(&[0xFF; 100], 0).unwrap();
}

fn cut_off(store: &Path) {
    let file = fs::OpenOptions::new().write(true).open(store).unwrap();
    file.set_len(10 * 4096 + 17).unwrap();
}

fn make_newer(store: &Path) {
    // `PRAGMA user_version`, in the header.
    let file = fs::OpenOptions::new().write(true).open(store).unwrap();
    file.write_all_at(&1000u32.to_be_bytes(), 60).unwrap();
}

fn make_nonsense(store: &Path) {
    fs::write(store, "no database at all").unwrap();
}

fn remove(store: &Path) {
    fs::remove_file(store).unwrap();
}

// S73.
#[tokio::test(start_paused = true)]
async fn content_is_saved_under_its_path_from_a_store_that_does_not_open() {
    let damages: [(&str, Damage); 5] = [
        ("header", damage_header),
        ("cut off", cut_off),
        ("newer", make_newer),
        ("nonsense", make_nonsense),
        ("gone", remove),
    ];
    for (what, damage) in damages {
        let service = Service::new(Flavour::Business);
        unsent(&service).await.crash();
        let store = service.dir().join("store.sqlite");
        // Some of it is in the log alone; a disk that loses one loses the other.
        fs::remove_file(service.dir().join("store.sqlite-wal")).ok();
        damage(&store);
        let target = Target::new();
        let report = target.rescue(service.dir());
        assert!(report.sources[0].damage.is_some(), "{what}: {report:?}");
        // What has its name from a note alone may have been sent, and says so.
        let is_noted = matches!(what, "nonsense" | "gone");
        assert!(!is_noted || report.saved.iter().all(|saved| saved.doubt.is_some()), "{what}: {report:?}");
        let tree = target.tree();
        for (path, content) in CONTENT {
            assert_eq!(tree.get(*path).map(String::as_str), Some(*content), "{what}: {tree:?}");
        }
        assert!(report.failed.is_empty(), "{what}: {report:?}");
    }
}

// S73.
#[tokio::test(start_paused = true)]
async fn a_damaged_header_of_a_whole_store_costs_nothing() {
    for damage in [damage_header, make_newer] {
        let service = Service::new(Flavour::Business);
        let machine = unsent(&service).await;
        machine.engine.close().unwrap();
        machine.crash();
        damage(&service.dir().join("store.sqlite"));
        fs::remove_file(service.dir().join("staging/names")).unwrap();
        let target = Target::new();
        let report = target.rescue(service.dir());
        assert_eq!(target.tree(), all(), "{report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn content_that_nothing_names_is_saved_under_a_made_up_name() {
    let service = Service::new(Flavour::Business);
    unsent(&service).await.crash();
    fs::remove_file(service.dir().join("store.sqlite")).unwrap();
    fs::remove_file(service.dir().join("staging/names")).unwrap();
    let target = Target::new();
    let report = target.rescue(service.dir());
    let names: Vec<String> = target.tree().into_keys().collect();
    assert!(
        names.len() >= CONTENT.len() && names.iter().all(|name| name.starts_with("recovered-")),
        "{names:?}"
    );
    let contents: Vec<String> = target.tree().into_values().collect();
    assert!(CONTENT.iter().all(|(_, content)| contents.iter().any(|found| found == content)));
    assert!(!report.is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_file_changed_in_part_is_completed_from_the_cache_or_says_what_it_lacks() {
    let service = Service::new(Flavour::Business);
    let size = 4 << 20;
    service.write_elsewhere("big", &"t".repeat(size));
    let machine = service.machine().await;
    machine.look().await;
    let is_read = machine.read("big").await.unwrap().len();
    assert_eq!(is_read, size);
    service.control.cut();
    let open = machine.open("big", OpenFlags::READ_WRITE).await.unwrap();
    machine.files.write(open.0, open.1, 1000, b"ours".to_vec().into()).await.unwrap();
    machine.close(open).await.unwrap();
    machine.crash();
    let mut whole = "t".repeat(size);
    whole.replace_range(1000..1004, "ours");
    let target = Target::new();
    let report = target.rescue(service.dir());
    assert!(report.is_complete(), "{report:?}");
    assert!(target.tree().get("big") == Some(&whole));
    fs::remove_dir_all(service.dir().join("cache")).unwrap();
    let target = Target::new();
    let report = target.rescue(service.dir());
    let doubt = report.saved[0].doubt.clone().unwrap();
    assert!(doubt.contains("4.0 MiB of it are on the service only"), "{doubt}");
    assert_eq!(&target.tree()["big (incomplete)"][1000..1004], "ours");
}

#[tokio::test(start_paused = true)]
async fn content_that_is_not_what_was_sealed_is_saved_and_said() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine().await;
    machine.look().await;
    service.control.cut();
    machine.write("a.txt", "as it was").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    machine.crash();
    for entry in fs::read_dir(service.dir().join("staging")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "names" {
            fs::write(path, "as it is!").unwrap();
        }
    }
    let target = Target::new();
    let report = target.rescue(service.dir());
    assert!(report.saved[0].doubt.as_ref().unwrap().contains("not what was sealed"), "{report:?}");
    assert_eq!(target.tree()["a.txt"], "as it is!");
}
