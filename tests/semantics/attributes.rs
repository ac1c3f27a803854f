//! Attributes, and changes made elsewhere.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onedrivefs::emulator::{Edit, Flavour};
use onedrivefs::engine::ChangeSink;
use onedrivefs::model::{Ino, Timestamp};
use onedrivefs::store::Change;
use onedrivefs::vfs::{Attr, Filesystem, SetAttr, XattrMode};
use tokio::time::sleep;

use crate::sync_support::{ME, Machine, Service};
use crate::{A_ROUND, FLAVOURS, READ, WRITE, changes, errno, file};

async fn stat(machine: &Machine, path: &str) -> Attr {
    let ino = machine.find(path).await.unwrap();
    machine.files.getattr(ino, None).await.unwrap().0
}

// S26.
#[tokio::test(start_paused = true)]
async fn what_the_service_cannot_hold_is_kept_here_and_costs_nothing() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a.sh", "#!/bin/sh");
    let machine = service.machine().await;
    machine.look().await;
    service.control.reset_log();
    let (files, ino) = (&machine.files, machine.find("a.sh").await.unwrap());
    let owner = SetAttr { mode: Some(0o751), uid: Some(1234), gid: Some(5678), ..SetAttr::default() };
    files.setattr(ME, ino, owner).await.unwrap();
    let name = OsStr::new("user.colour");
    files.setxattr(ME, ino, name, b"red", XattrMode::Set).await.unwrap();
    files.symlink(ME, Ino::ROOT, OsStr::new("link"), Path::new("../a.sh")).await.unwrap();
    machine.sync().await;
    assert_eq!(changes(&service), 0);
    machine.crash();
    let again = service.machine().await;
    let attr = stat(&again, "a.sh").await;
    assert_eq!((attr.mode, attr.uid, attr.gid), (0o751, 1234, 5678));
    assert_eq!(again.files.getxattr(attr.ino, name).await.unwrap(), b"red");
    let link = again.find("link").await.unwrap();
    assert_eq!(again.files.readlink(link).await.unwrap(), b"../a.sh");
}

// S27.
#[tokio::test(start_paused = true)]
async fn the_time_seen_at_close_stays_until_the_content_changes_there() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.look().await;
        machine.write("a.txt", "mine").await;
        let written = stat(&machine, "a.txt").await.mtime;
        sleep(Duration::from_secs(100)).await;
        assert_eq!(service.tree(), [file("a.txt", "mine")]);
        assert_eq!(stat(&machine, "a.txt").await.mtime, written, "sent meanwhile");
        service.edit(Edit::Stir { path: "a.txt".into() });
        sleep(A_ROUND).await;
        assert_eq!(stat(&machine, "a.txt").await.mtime, written, "only the tag moved");
        machine.rename("a.txt", "b.txt").await.unwrap();
        machine.sync().await;
        assert_eq!(stat(&machine, "b.txt").await.mtime, written, "renamed");
        sleep(Duration::from_secs(1000)).await;
        service.write_elsewhere("b.txt", "theirs");
        machine.look().await;
        assert!(stat(&machine, "b.txt").await.mtime > written);
    }
}

// S28.
#[tokio::test(start_paused = true)]
async fn while_a_file_is_written_everybody_sees_its_size_and_time() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a.txt", "0123456789");
    let machine = service.machine().await;
    machine.look().await;
    let open = machine.open("a.txt", WRITE).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    machine.files.write(open.0, open.1, 8, b"abcdef".to_vec().into()).await.unwrap();
    let attr = stat(&machine, "a.txt").await;
    let now = Timestamp::from(machine.engine.clock().wall());
    assert_eq!((attr.size, attr.mtime), (14, now));
    let ttl = machine.files.getattr(open.0, Some(open.1)).await.unwrap().1;
    assert_eq!(ttl, Duration::ZERO, "the kernel must ask each time");
    service.write_elsewhere("a.txt", "their longer content, seen by nobody here yet");
    sleep(A_ROUND).await;
    assert_eq!(stat(&machine, "a.txt").await.size, 14);
    machine.close(open).await.unwrap();
}

// S64.
#[tokio::test(start_paused = true)]
async fn a_time_that_a_program_sets_is_the_services_too() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("old.txt", "old");
        let machine = service.machine().await;
        machine.look().await;
        machine.write("new.txt", "new").await;
        for path in ["old.txt", "new.txt"] {
            machine.set_mtime(path, 1_600_000_000).await.unwrap();
        }
        machine.sync().await;
        for path in ["old.txt", "new.txt"] {
            assert_eq!(stat(&machine, path).await.mtime, Timestamp::from_unix(1_600_000_000, 0));
            let mtime = service.item(path)["mtime"].as_str().unwrap().to_owned();
            assert!(mtime.starts_with("2020-09-13T12:26:40"), "{path}: {mtime}");
        }
    }
}

/// Notes what the kernel is told.
#[derive(Default)]
struct Told(Mutex<Vec<Change>>);

impl ChangeSink for Told {
    fn changed(&self, changes: &[Change]) {
        self.0.lock().unwrap().extend_from_slice(changes);
    }
}

// S31.
#[tokio::test(start_paused = true)]
async fn a_change_elsewhere_makes_the_kernel_forget_what_it_touched_and_nothing_else() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        for path in ["d/a.txt", "d/b.txt", "e/c.txt"] {
            service.write_elsewhere(path, "one");
        }
        let told = Arc::new(Told::default());
        let machine = service.machine_of(|setup| setup.sink = told.clone()).await;
        machine.look().await;
        let node = machine.find("d/a.txt").await.unwrap().node();
        let (d, others) = (machine.find("d").await.unwrap().node(), ["d/b.txt", "e/c.txt", "e"]);
        told.0.lock().unwrap().clear();
        service.write_elsewhere("d/a.txt", "two");
        sleep(A_ROUND).await;
        let changes = std::mem::take(&mut *told.0.lock().unwrap());
        assert!(changes.contains(&Change::Node { id: node, content: true }), "{changes:?}");
        assert!(!changes.iter().any(|change| matches!(change, Change::Entry { .. })), "{changes:?}");
        for other in others {
            let other = machine.find(other).await.unwrap().node();
            let hit = |change: &Change| matches!(change, Change::Node { id, .. } if *id == other);
            assert!(!changes.iter().any(hit), "{changes:?}");
        }
        service.edit(Edit::Move { path: "d/a.txt".into(), to: "e/z.txt".into() });
        sleep(A_ROUND).await;
        let changes = std::mem::take(&mut *told.0.lock().unwrap());
        let e = machine.find("e").await.unwrap().node();
        for (parent, name) in [(d, "a.txt"), (e, "z.txt")] {
            assert!(changes.contains(&Change::Entry { parent, name: name.into() }), "{changes:?}");
        }
        assert_eq!(machine.read("e/z.txt").await.unwrap(), "two");
    }
}

// S32.
#[tokio::test(start_paused = true)]
async fn a_delete_elsewhere_is_seen_when_the_service_says_so_and_not_before() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("d/a.txt", "a");
    let machine = service.machine().await;
    machine.look().await;
    service.control.set_delta_lag(Duration::from_secs(300));
    service.edit(Edit::Delete { path: "d/a.txt".into() });
    sleep(Duration::from_secs(200)).await;
    assert_eq!(machine.list("d").await, ["a.txt"]);
    assert_eq!(errno(machine.read("d/a.txt").await), libc::EIO, "its bytes are gone");
    sleep(Duration::from_secs(200)).await;
    assert!(machine.list("d").await.is_empty());
    assert_eq!(errno(machine.open("d/a.txt", READ).await), libc::ENOENT);
}

// S33.
#[tokio::test(start_paused = true)]
async fn the_tree_is_there_after_a_restart_without_a_network() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("d/a.txt", "read before");
    let machine = service.machine().await;
    assert_eq!(machine.read("d/a.txt").await.unwrap(), "read before");
    machine.look().await;
    machine.crash();
    service.control.cut();
    let again = service.machine().await;
    assert_eq!(again.list("").await, ["d"]);
    assert_eq!(again.list("d").await, ["a.txt"]);
    assert_eq!(stat(&again, "d/a.txt").await.size, 11);
    assert_eq!(again.read("d/a.txt").await.unwrap(), "read before");
}
