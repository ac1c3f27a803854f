//! What is pinned is here: fetched behind all else, kept through everything, and given up when it is no more.

#[path = "sync_support/mod.rs"]
mod sync_support;

use std::time::Duration;

use onedrivefs::content::CacheConfig;
use onedrivefs::emulator::{Edit, Flavour};
use onedrivefs::engine::{PinError, PinState, Refusal, State};
use onedrivefs::model::NodeId;
use onedrivefs::store::Pinned;
use onedrivefs::vfs::{Filesystem, OpenFlags, VfsError, XattrMode};
use sync_support::{ME, Machine, Service};
use tokio::time::{Instant, sleep};

const A_ROUND: Duration = Duration::from_secs(70);
const READ: OpenFlags = OpenFlags::READ;

impl Machine {
    async fn node(&self, path: &str) -> NodeId {
        self.find(path).await.unwrap_or_else(|error| panic!("{path}: {error}")).node()
    }

    async fn pin(&self, path: &str) {
        let node = self.node(path).await;
        self.engine.pin(&[node]).await.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Waits until nothing of what is pinned is under way, for at most a simulated hour.
    async fn pins_settle(&self) -> PinState {
        let until = Instant::now() + Duration::from_secs(3600);
        self.engine.pins_looked_at().await;
        loop {
            let state = self.engine.pin_state(None);
            if state.at_rest || Instant::now() > until {
                return state;
            }
            self.engine.pin_news(Duration::from_secs(1)).await;
        }
    }

    /// Bytes of the cache's disk that the file takes.
    async fn held(&self, path: &str) -> u64 {
        let node = self.node(path).await;
        let held = self.engine.held_below(node).await.expect("the cache can be looked at");
        held.here.iter().map(|file| file.held).sum()
    }

    async fn pinned_attribute(&self, path: &str) -> Result<String, VfsError> {
        let ino = self.find(path).await?;
        let value = self.files.getxattr(ino, "user.onedrive.pinned".as_ref()).await?;
        Ok(String::from_utf8_lossy(&value).into_owned())
    }
}

fn downloads(service: &Service) -> usize {
    service.control.requests().iter().filter(|record| record.op == "download").count()
}

fn no_network(service: &Service) {
    service.control.cut();
}

// S191, S33. In the folder now, made there later, moved there here, changed there; then without a network, by the next
// mount too.
#[tokio::test(start_paused = true)]
async fn what_is_and_comes_into_a_pinned_folder_is_here() {
    for flavour in [Flavour::Personal, Flavour::Business] {
        let service = Service::new(flavour);
        service.write_elsewhere("folder/deep/a", "first");
        service.write_elsewhere("folder/b", &"b".repeat(3 << 20));
        service.write_elsewhere("outside", "moved in");
        let machine = service.machine().await;
        machine.look().await;
        machine.pin("folder").await;
        let state = machine.pins_settle().await;
        assert_eq!((state.files, state.missing_files), (2, 0), "{state:?}");
        service.write_elsewhere("folder/deep/later", "came later");
        service.write_elsewhere("folder/deep/a", "second");
        machine.rename("outside", "folder/inside").await.unwrap();
        machine.write("folder/own", "written here").await;
        machine.sync().await;
        sleep(A_ROUND).await;
        machine.look().await;
        let state = machine.pins_settle().await;
        assert_eq!((state.files, state.missing_files), (5, 0), "{state:?}");
        machine.engine.close().unwrap();
        machine.crash();
        let machine = service.machine().await;
        no_network(&service);
        for (path, content) in [
            ("folder/deep/a", "second"),
            ("folder/deep/later", "came later"),
            ("folder/inside", "moved in"),
            ("folder/own", "written here"),
        ] {
            assert_eq!(machine.read(path).await.unwrap(), content, "{path}");
        }
        assert_eq!(machine.read("folder/b").await.unwrap().len(), 3 << 20);
        machine.crash();
        // What came while no daemon ran is fetched by the next one.
        service.control.clear_faults();
        service.write_elsewhere("folder/while away", "news");
        let machine = service.machine().await;
        machine.look().await;
        assert_eq!(machine.pins_settle().await.missing_files, 0);
        assert!(machine.held("folder/while away").await > 0);
    }
}

// S191. A new version is fetched by itself, and the old one takes no room beside it.
#[tokio::test(start_paused = true)]
async fn a_new_version_of_a_pinned_file_is_fetched_and_the_old_one_goes() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a", &"1".repeat(4 << 20));
    let machine = service.machine().await;
    machine.look().await;
    machine.pin("a").await;
    assert_eq!(machine.pins_settle().await.missing_files, 0);
    let before = machine.engine.cache().usage().bytes;
    service.write_elsewhere("a", &"2".repeat(4 << 20));
    machine.look().await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(machine.pins_settle().await.missing_files, 0);
    let asked = downloads(&service);
    assert_eq!(machine.read("a").await.unwrap(), "2".repeat(4 << 20));
    assert_eq!(downloads(&service), asked, "it was here");
    assert_eq!(machine.engine.cache().usage().bytes, before);
}

// S192.
#[tokio::test(start_paused = true)]
async fn a_pin_goes_with_its_file_through_renames_saves_and_mounts() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a", "one");
    service.write_elsewhere("b", "other");
    let machine = service.machine().await;
    machine.look().await;
    machine.pin("a").await;
    machine.write("new", "not sent yet").await;
    machine.pin("new").await;
    machine.rename("a", "c").await.unwrap();
    machine.mkdir("dir").await.unwrap();
    machine.rename("c", "dir/c").await.unwrap();
    // Saved as many programs do it: written beside it, and renamed over it.
    machine.write("dir/.c.tmp", "two").await;
    machine.rename("dir/.c.tmp", "dir/c").await.unwrap();
    machine.sync().await;
    machine.look().await;
    machine.engine.close().unwrap();
    machine.crash();
    let machine = service.machine().await;
    service.edit(Edit::Move { path: "dir/c".into(), to: "elsewhere".into() });
    machine.look().await;
    assert_eq!(machine.pinned_attribute("elsewhere").await.unwrap(), "1");
    assert_eq!(machine.pinned_attribute("new").await.unwrap(), "1");
    assert!(matches!(machine.pinned_attribute("b").await, Err(VfsError::NoAttribute)));
    assert_eq!(machine.engine.pins().unwrap().len(), 2);
    machine.unlink("new").await.unwrap();
    machine.sync().await;
    assert_eq!(machine.engine.pins().unwrap().len(), 1);
}

// S16, S193. The cache takes 4 MiB; much more than that is read.
#[tokio::test(start_paused = true)]
async fn pinned_and_open_content_stays_when_the_cache_makes_room() {
    let service = Service::new(Flavour::Business);
    let mib = "m".repeat(1 << 20);
    service.write_elsewhere("pinned", &mib);
    service.write_elsewhere("open", &mib);
    for number in 0..8 {
        service.write_elsewhere(&format!("other {number}"), &mib);
    }
    let small = |dir: &std::path::Path| CacheConfig {
        min_free_bytes: 0,
        max_bytes: 4 << 20,
        ..CacheConfig::new(dir.join("cache"))
    };
    let config = small(service.dir());
    let machine = service.machine_of(|setup| setup.cache = config.clone()).await;
    machine.look().await;
    machine.pin("pinned").await;
    assert_eq!(machine.pins_settle().await.missing_files, 0);
    machine.engine.close().unwrap();
    machine.crash();
    // By the next mount too, from its first moment on.
    let machine = service.machine_of(|setup| setup.cache = config).await;
    let open = machine.open("open", READ).await.unwrap();
    for offset in (0..1 << 20).step_by(1 << 17) {
        machine.files.read(open.0, open.1, offset, 1 << 17).await.unwrap();
    }
    for number in 0..8 {
        machine.read(&format!("other {number}")).await.unwrap();
        assert!(machine.engine.cache().usage().bytes <= 4 << 20);
    }
    let asked = downloads(&service);
    machine.read("pinned").await.unwrap();
    for offset in (0..1 << 20).step_by(1 << 17) {
        machine.files.read(open.0, open.1, offset, 1 << 17).await.unwrap();
    }
    assert_eq!(downloads(&service), asked);
    assert!(machine.engine.cache().stats().bytes_evicted > 0);
    machine.close(open).await.unwrap();
}

// S194.
#[tokio::test(start_paused = true)]
async fn more_than_the_cache_may_hold_is_not_pinned_and_what_comes_later_is_told() {
    let service = Service::new(Flavour::Business);
    let mib = "m".repeat(1 << 20);
    service.write_elsewhere("folder/a", &mib);
    service.write_elsewhere("huge", &"h".repeat(5 << 20));
    let config = CacheConfig {
        min_free_bytes: 0,
        max_bytes: 4 << 20,
        ..CacheConfig::new(service.dir().join("cache"))
    };
    let machine = service.machine_of(|setup| setup.cache = config).await;
    machine.look().await;
    let huge = machine.node("huge").await;
    match machine.engine.pin(&[huge]).await {
        Err(PinError::NoRoom(room)) => assert!(room.needed > 5 << 20 && room.capacity == 4 << 20, "{room:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(machine.engine.pinned(huge).unwrap(), None);
    machine.pin("folder").await;
    for name in ["b", "c", "d", "e"] {
        service.write_elsewhere(&format!("folder/{name}"), &mib);
    }
    machine.look().await;
    sleep(Duration::from_secs(30)).await;
    let state = machine.pins_settle().await;
    assert_eq!((state.files, state.missing_files), (5, 2), "{state:?}");
    assert!(state.no_room.is_some_and(|room| room.needed > room.capacity), "{state:?}");
    assert!(machine.engine.cache().usage().bytes <= 4 << 20);
    machine.unlink("folder/a").await.unwrap();
    machine.unlink("folder/b").await.unwrap();
    machine.sync().await;
    let state = machine.pins_settle().await;
    assert_eq!((state.missing_files, state.no_room), (0, None), "{state:?}");
}

// S195.
#[tokio::test(start_paused = true)]
async fn what_is_pinned_offline_is_fetched_once_the_service_can_be_reached() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a", "content");
    let machine = service.machine().await;
    machine.look().await;
    no_network(&service);
    machine.engine.refresh();
    while !machine.engine.is_offline() {
        sleep(Duration::from_secs(1)).await;
    }
    machine.pin("a").await;
    machine.engine.pins_looked_at().await;
    let state = machine.engine.pin_state(None);
    assert_eq!((state.waits, state.missing_files), (Some(State::Offline), 1), "{state:?}");
    service.control.clear_faults();
    while machine.engine.is_offline() {
        sleep(Duration::from_secs(1)).await;
    }
    // Soon, and by itself.
    sleep(Duration::from_secs(10)).await;
    let state = machine.engine.pin_state(None);
    assert_eq!((state.waits, state.missing_files), (None, 0), "{state:?}");
}

// S196.
#[tokio::test(start_paused = true)]
async fn only_clean_closed_unpinned_content_is_freed_and_the_rest_is_named() {
    let service = Service::new(Flavour::Business);
    for name in ["clean", "open", "pinned", "dirty"] {
        service.write_elsewhere(&format!("folder/{name}"), &name.repeat(1000));
    }
    let machine = service.machine().await;
    machine.look().await;
    for name in ["clean", "open", "pinned", "dirty"] {
        machine.read(&format!("folder/{name}")).await.unwrap();
    }
    let open = machine.open("folder/open", READ).await.unwrap();
    machine.pin("folder/pinned").await;
    no_network(&service);
    machine.write("folder/dirty", "unsent").await;
    let freed = machine.engine.free(machine.node("folder").await).await.unwrap();
    assert!(freed.files == 1 && freed.bytes > 0, "{freed:?}");
    let mut refused = Vec::new();
    for (id, why) in &freed.refused {
        refused.push((machine.engine.store().path_of(*id).unwrap(), *why));
    }
    refused.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(
        refused,
        [
            ("folder/dirty".to_owned(), Refusal::Unsent),
            ("folder/open".to_owned(), Refusal::Open),
            ("folder/pinned".to_owned(), Refusal::Pinned)
        ]
    );
    for name in ["open", "pinned"] {
        assert_eq!(machine.read(&format!("folder/{name}")).await.unwrap(), name.repeat(1000));
    }
    assert!(machine.read("folder/clean").await.is_err(), "it is not here any more");
    machine.close(open).await.unwrap();
    service.control.clear_faults();
    while machine.engine.is_offline() {
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(machine.read("folder/clean").await.unwrap(), "clean".repeat(1000));
    machine.sync().await;
    assert_eq!(service.control.content("folder/dirty").unwrap(), "unsent");
}

// S196.
#[tokio::test(start_paused = true)]
async fn what_is_closed_a_moment_later_is_freed_all_the_same() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("folder/late", "content");
    service.write_elsewhere("folder/open", "content");
    let machine = service.machine().await;
    machine.look().await;
    let (late, _open) =
        (machine.open("folder/late", READ).await.unwrap(), machine.open("folder/open", READ).await.unwrap());
    for name in ["late", "open"] {
        machine.read(&format!("folder/{name}")).await.unwrap();
    }
    let closed = async {
        sleep(Duration::from_millis(300)).await;
        machine.close(late).await.unwrap();
    };
    let top = machine.node("folder").await;
    let (freed, ()) = tokio::join!(machine.engine.free(top), closed);
    let freed = freed.unwrap();
    assert!(freed.files == 1 && freed.bytes > 0 && freed.refused_files == 1, "{freed:?}");
    assert_eq!(freed.refused, [(machine.node("folder/open").await, Refusal::Open)]);
}

// S197.
#[tokio::test(start_paused = true)]
async fn the_attribute_pins_and_unpins_as_the_commands_do() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("folder/a", "content");
    let machine = service.machine().await;
    machine.look().await;
    let name = "user.onedrive.pinned".as_ref();
    let (folder, file) = (machine.find("folder").await.unwrap(), machine.find("folder/a").await.unwrap());
    let set = |ino, value: &'static [u8]| machine.files.setxattr(ME, ino, name, value, XattrMode::Set);
    assert!(matches!(set(folder, b"perhaps").await, Err(VfsError::Invalid)));
    set(folder, b"1").await.unwrap();
    assert_eq!(machine.pinned_attribute("folder").await.unwrap(), "1");
    assert_eq!(machine.pinned_attribute("folder/a").await.unwrap(), "inherited");
    let listed = machine.files.listxattr(file).await.unwrap();
    assert!(String::from_utf8_lossy(&listed).contains("user.onedrive.pinned\0"));
    assert_eq!(machine.pins_settle().await.missing_files, 0);
    assert!(matches!(machine.files.removexattr(ME, file, name).await, Err(VfsError::NotPermitted)));
    set(file, b"1").await.unwrap();
    assert_eq!(machine.engine.pinned(file.node()).unwrap(), Some(Pinned::Itself));
    machine.files.removexattr(ME, folder, name).await.unwrap();
    assert!(matches!(machine.pinned_attribute("folder/a").await, Err(VfsError::NoAttribute)));
    assert!(matches!(machine.files.removexattr(ME, folder, name).await, Err(VfsError::NoAttribute)));
    set(file, b"1").await.unwrap();
    set(file, b"0").await.unwrap();
    assert_eq!(machine.engine.pins().unwrap(), []);
    assert_eq!(service.requests("PATCH"), 0, "it is this machine's business");
}
