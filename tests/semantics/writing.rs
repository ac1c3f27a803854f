//! Writing: what is kept, when it is sent, what is said.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onedrivefs::disk::power::{FailedSync, PowerCut};
use onedrivefs::disk::{Disk, DiskHook};
use onedrivefs::emulator::{FaultAction, Flavour};
use onedrivefs::engine::State;
use onedrivefs::model::{Ino, NodeId};
use onedrivefs::store::ParkKind;
use onedrivefs::vfs::{Filesystem, Handle, OpenFlags};
use tokio::time::{Instant, sleep};

use crate::sync_support::{Machine, Service};
use crate::{BOTH, READ, WRITE, changes, errno, fault, file, folder};

// S1.
#[tokio::test(start_paused = true)]
async fn close_returns_while_the_service_says_nothing() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine().await;
    machine.look().await;
    service.control.inject(fault(None, FaultAction::Stall { after: false }));
    let before = Instant::now();
    machine.write("a.txt", "x").await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(machine.engine.store().dirty_counts().unwrap().pending, 1);
}

// S2.
#[tokio::test(start_paused = true)]
async fn what_was_written_survives_a_kill_closed_or_not() {
    for closed in [true, false] {
        let service = Service::new(Flavour::Business);
        service.write_elsewhere("old.txt", "old content");
        let machine = service.machine().await;
        machine.look().await;
        let old = machine.open("old.txt", BOTH).await.unwrap();
        let new = machine.open("new.txt", WRITE).await.unwrap();
        machine.files.write(old.0, old.1, 0, b"NEW".to_vec().into()).await.unwrap();
        machine.files.write(new.0, new.1, 0, b"made here".to_vec().into()).await.unwrap();
        if closed {
            machine.close(old).await.unwrap();
            machine.close(new).await.unwrap();
        }
        machine.crash();
        let again = service.machine().await;
        assert_eq!(again.read("old.txt").await.unwrap(), "NEW content", "closed: {closed}");
        assert_eq!(again.read("new.txt").await.unwrap(), "made here", "closed: {closed}");
        again.sync().await;
        assert_eq!(service.tree(), [file("new.txt", "made here"), file("old.txt", "NEW content")]);
    }
}

/// Notes the steps on the disk.
#[derive(Default)]
struct Steps(Mutex<Vec<&'static str>>);

impl DiskHook for Steps {
    fn before(&self, step: &'static str, _path: &Path) -> io::Result<()> {
        self.0.lock().unwrap().push(step);
        Ok(())
    }
}

// S3.
#[tokio::test(start_paused = true)]
async fn fsync_makes_bytes_and_name_durable_here_and_asks_nobody() {
    let service = Service::new(Flavour::Business);
    let steps = Arc::new(Steps::default());
    let machine = service.machine_of(|setup| setup.disk = Disk::with_hook(steps.clone())).await;
    machine.look().await;
    service.control.reset_log();
    let open = machine.open("a.txt", WRITE).await.unwrap();
    machine.files.write(open.0, open.1, 0, b"x".to_vec().into()).await.unwrap();
    steps.0.lock().unwrap().clear();
    machine.files.fsync(open.0, open.1, false).await.unwrap();
    assert_eq!(*steps.0.lock().unwrap(), ["staging.sync", "staging.sync_dir", "store.commit", "store.sync"]);
    assert_eq!(changes(&service), 0);
}

/// A machine whose disk forgets at a power cut what was not synced.
async fn machine_with_power(service: &Service, boot: &str) -> (Machine, Arc<PowerCut>) {
    let power = Arc::new(PowerCut::default());
    let made = service.machine_of(|setup| {
        setup.disk = Disk::with_hook(power.clone());
        setup.staging.boot = boot.into();
    });
    (made.await, power)
}

/// Changes the two files of the service, one of them in the middle only, and makes a third.
async fn change_three(machine: &Machine, sync: bool) {
    for (path, flags, offset, bytes) in [
        ("whole.txt", OpenFlags { truncate: true, ..WRITE }, 0, "NEW"),
        ("part.txt", BOTH, 5, "NEW"),
        ("new.txt", WRITE, 0, "made here"),
    ] {
        let open = machine.open(path, flags).await.unwrap();
        machine.files.write(open.0, open.1, offset, bytes.as_bytes().to_vec().into()).await.unwrap();
        if sync {
            machine.files.fsync(open.0, open.1, false).await.unwrap();
        }
        machine.close(open).await.unwrap();
    }
}

// S3.
#[tokio::test(start_paused = true)]
async fn what_was_synced_survives_a_power_cut() {
    for seed in [None, Some(1), Some(2), Some(3)] {
        let service = Service::new(Flavour::Business);
        service.write_elsewhere("whole.txt", "from the service");
        service.write_elsewhere("part.txt", "from the service");
        let (machine, power) = machine_with_power(&service, "first").await;
        machine.look().await;
        change_three(&machine, true).await;
        machine.crash();
        power.cut(seed).unwrap();
        let (again, _) = machine_with_power(&service, "second").await;
        again.sync().await;
        let expected =
            [file("new.txt", "made here"), file("part.txt", "from NEW service"), file("whole.txt", "NEW")];
        assert_eq!(service.tree(), expected, "{seed:?}");
    }
}

// S140.
#[tokio::test(start_paused = true)]
async fn what_was_written_through_a_synced_handle_or_before_fdatasync_survives_a_power_cut() {
    for (handle_syncs, seed) in [(true, None), (true, Some(1)), (false, None), (false, Some(1))] {
        let service = Service::new(Flavour::Business);
        service.write_elsewhere("part.txt", "from the service");
        let (machine, power) = machine_with_power(&service, "first").await;
        machine.look().await;
        for (path, offset) in [("part.txt", 5), ("new.txt", 0)] {
            let open = machine.open(path, OpenFlags { sync: handle_syncs, ..BOTH }).await.unwrap();
            machine.files.write(open.0, open.1, offset, b"NEW".to_vec().into()).await.unwrap();
            if !handle_syncs {
                machine.files.fsync(open.0, open.1, true).await.unwrap();
            }
        }
        // Not even closed.
        machine.crash();
        power.cut(seed).unwrap();
        let (again, _) = machine_with_power(&service, "second").await;
        again.sync().await;
        let expected = [file("new.txt", "NEW"), file("part.txt", "from NEW service")];
        assert_eq!(service.tree(), expected, "{handle_syncs} {seed:?}");
    }
}

// S140.
#[tokio::test(start_paused = true)]
async fn fsync_of_a_directory_makes_what_was_recorded_durable() {
    let service = Service::new(Flavour::Business);
    let steps = Arc::new(Steps::default());
    let machine = service.machine_of(|setup| setup.disk = Disk::with_hook(steps.clone())).await;
    machine.look().await;
    machine.mkdir("folder").await.unwrap();
    let root = machine.files.opendir(Ino::ROOT).await.unwrap();
    steps.0.lock().unwrap().clear();
    machine.files.fsyncdir(Ino::ROOT, root.handle).await.unwrap();
    let done = steps.0.lock().unwrap().clone();
    assert_eq!(done.last(), Some(&"store.sync"), "{done:?}");
    machine.files.releasedir(Ino::ROOT, root.handle).await;
}

// S4.
#[tokio::test(start_paused = true)]
async fn what_was_not_synced_before_a_power_cut_does_not_replace_what_the_service_has() {
    for seed in [None, Some(1), Some(2), Some(3), Some(4), Some(5)] {
        let service = Service::new(Flavour::Business);
        service.write_elsewhere("whole.txt", "from the service");
        service.write_elsewhere("part.txt", "from the service");
        let (machine, power) = machine_with_power(&service, "first").await;
        machine.look().await;
        change_three(&machine, false).await;
        machine.crash();
        power.cut(seed).unwrap();
        let (again, _) = machine_with_power(&service, "second").await;
        again.sync().await;
        for path in ["whole.txt", "part.txt"] {
            assert_eq!(service.control.content(path).unwrap(), "from the service", "{seed:?} {path}");
            assert_eq!(again.read(path).await.unwrap(), "from the service", "{seed:?} {path}");
            let told = crate::notices(&again);
            assert!(told.contains(&format!("{path}: not synced when the power went")), "{seed:?}: {told}");
        }
    }
}

/// A machine on a disk that fails one sync, and a file of the service that was written anew.
async fn overwritten_on_a_failing_disk(
    service: &Service,
    forgets: bool,
) -> (Machine, Arc<FailedSync>, (Ino, Handle)) {
    service.write_elsewhere("a.txt", "from the service");
    let failing = Arc::new(FailedSync { forgets, ..FailedSync::default() });
    let machine = service.machine_of(|setup| {
        setup.disk = Disk::with_hook(failing.clone());
        setup.staging.boot = "first".into();
    });
    let machine = machine.await;
    machine.look().await;
    let open = machine.open("a.txt", OpenFlags { truncate: true, ..WRITE }).await.unwrap();
    machine.files.write(open.0, open.1, 0, b"written here".to_vec().into()).await.unwrap();
    failing.left.store(1, Ordering::SeqCst);
    (machine, failing, open)
}

// S142.
#[tokio::test(start_paused = true)]
async fn fsync_after_one_that_failed_makes_durable_what_that_could_not() {
    let service = Service::new(Flavour::Business);
    let (machine, failing, open) = overwritten_on_a_failing_disk(&service, false).await;
    assert_eq!(errno(machine.files.fsync(open.0, open.1, false).await), libc::EIO);
    machine.files.fsync(open.0, open.1, false).await.unwrap();
    machine.crash();
    failing.power.cut(None).unwrap();
    let (again, _) = machine_with_power(&service, "second").await;
    again.sync().await;
    assert_eq!(service.tree(), [file("a.txt", "written here")]);
}

// S142.
#[tokio::test(start_paused = true)]
async fn what_the_disk_failed_to_keep_replaces_nothing() {
    for synced_by_program in [true, false] {
        let service = Service::new(Flavour::Business);
        let (machine, _, open) = overwritten_on_a_failing_disk(&service, true).await;
        if synced_by_program {
            assert_eq!(errno(machine.files.fsync(open.0, open.1, false).await), libc::EIO);
        }
        machine.close(open).await.unwrap();
        machine.engine.sync(NodeId::ROOT, Some(Duration::from_secs(600)), |_| {}).await.unwrap();
        machine.engine.retry_parked(NodeId::ROOT).await.unwrap();
        machine.sync().await;
        let kept = service.control.content("a.txt").unwrap();
        assert_eq!(kept, "from the service", "synced by the program: {synced_by_program}");
        let told = crate::notices(&machine);
        assert!(told.contains("a.txt: not synced when the power went or the disk failed"), "{told}");
    }
}

// S4.
#[tokio::test(start_paused = true)]
async fn a_kill_or_an_orderly_end_is_no_power_cut() {
    for in_order in [true, false] {
        let service = Service::new(Flavour::Business);
        service.write_elsewhere("whole.txt", "from the service");
        service.write_elsewhere("part.txt", "from the service");
        let (machine, power) = machine_with_power(&service, "first").await;
        machine.look().await;
        change_three(&machine, false).await;
        machine.engine.stop();
        if in_order {
            machine.engine.close().unwrap();
            power.cut(None).unwrap();
        }
        machine.crash();
        let (again, _) = machine_with_power(&service, if in_order { "second" } else { "first" }).await;
        again.sync().await;
        assert_eq!(service.tree().len(), 3);
        assert_eq!(service.control.content("part.txt").unwrap(), "from NEW service");
        assert_eq!(service.control.content("whole.txt").unwrap(), "NEW");
    }
}

// S4.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_synced_and_opened_again_is_doubted_again_and_an_emptied_one_no_longer() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("whole.txt", "from the service");
    service.write_elsewhere("part.txt", "from the service");
    let (machine, power) = machine_with_power(&service, "first").await;
    machine.look().await;
    change_three(&machine, true).await;
    change_three(&machine, false).await;
    machine.crash();
    power.cut(None).unwrap();
    let (again, _) = machine_with_power(&service, "second").await;
    again.write("whole.txt", "written anew").await;
    again.sync().await;
    assert_eq!(service.control.content("whole.txt").unwrap(), "written anew");
    assert_eq!(again.list("").await.len(), 3, "{:?}", service.tree());
    assert_eq!(service.control.content("part.txt").unwrap(), "from NEW service");
}

// S6.
#[tokio::test(start_paused = true)]
async fn a_file_is_sent_after_its_last_close_and_a_rest_and_saves_in_between_cost_one_upload() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine().await;
    machine.look().await;
    service.control.reset_log();
    let open = machine.open("a.txt", WRITE).await.unwrap();
    machine.files.write(open.0, open.1, 0, b"draft".to_vec().into()).await.unwrap();
    sleep(Duration::from_secs(20)).await;
    assert_eq!(changes(&service), 0, "it is still open");
    machine.close(open).await.unwrap();
    for save in 0..5 {
        sleep(Duration::from_secs(1)).await;
        machine.write("a.txt", &format!("save {save}")).await;
    }
    assert_eq!(changes(&service), 0, "it has not rested");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(service.tree(), [file("a.txt", "save 4")]);
    assert_eq!(changes(&service), 1);
}

// S8, S11.
#[tokio::test(start_paused = true)]
async fn what_does_not_fit_on_the_drive_is_kept_said_and_sent_when_there_is_room() {
    let service = Service::new(Flavour::Business);
    service.control.set_quota(4);
    let machine = service.machine().await;
    machine.write("big.txt", "more than there is room for").await;
    sleep(Duration::from_secs(30)).await;
    let status = machine.engine.status().await.unwrap();
    assert_eq!((status.pending, status.parked), (1, 1));
    assert_eq!(status.waiting[0].path, "big.txt");
    assert_eq!(status.waiting[0].reason, Some(ParkKind::Quota));
    machine.crash();
    let again = service.machine().await;
    assert_eq!(again.read("big.txt").await.unwrap(), "more than there is room for");
    service.control.set_quota(1 << 30);
    sleep(Duration::from_secs(11 * 60)).await;
    assert_eq!(service.tree(), [file("big.txt", "more than there is room for")]);
}

// S9.
#[tokio::test(start_paused = true)]
async fn with_sync_each_change_waits_for_the_service() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine_with(|_, vfs| vfs.sync = true).await;
    machine.write("a.txt", "x").await;
    assert_eq!(service.tree(), [file("a.txt", "x")]);
    machine.mkdir("d").await.unwrap();
    machine.rename("a.txt", "d/b.txt").await.unwrap();
    assert_eq!(service.tree(), [folder("d"), file("d/b.txt", "x")]);
    machine.unlink("d/b.txt").await.unwrap();
    assert_eq!(service.tree(), [folder("d")]);
    machine.rmdir("d").await.unwrap();
    assert!(service.tree().is_empty());
}

// S9, S11.
#[tokio::test(start_paused = true)]
async fn with_sync_close_says_why_the_service_refuses() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine_with(|_, vfs| vfs.sync = true).await;
    service.control.set_quota(4);
    let open = machine.open("big.txt", WRITE).await.unwrap();
    machine.files.write(open.0, open.1, 0, b"more than there is room for".to_vec().into()).await.unwrap();
    assert_eq!(errno(machine.files.flush(open.0, open.1).await), libc::EDQUOT);
    machine.files.release(open.0, open.1).await;
    assert_eq!(machine.read("big.txt").await.unwrap(), "more than there is room for");
}

// S10.
#[tokio::test(start_paused = true)]
async fn clearing_the_cache_loses_nothing() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("old.txt", "old content");
    let machine = service.machine().await;
    assert_eq!(machine.read("old.txt").await.unwrap(), "old content");
    let open = machine.open("old.txt", BOTH).await.unwrap();
    machine.files.write(open.0, open.1, 0, b"NEW".to_vec().into()).await.unwrap();
    machine.close(open).await.unwrap();
    machine.write("new.txt", "made here").await;
    machine.crash();
    std::fs::remove_dir_all(service.dir().join("cache")).unwrap();
    let again = service.machine().await;
    again.sync().await;
    assert_eq!(service.tree(), [file("new.txt", "made here"), file("old.txt", "NEW content")]);
}

// S56.
#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_new_bytes_and_keeps_those_that_are_here() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine().await;
    machine.write("kept.txt", "kept").await;
    machine.crash();
    // As if all but nothing were free: the reserve is what the disk has.
    let machine = service.machine_of(|setup| setup.staging.min_free_bytes = u64::MAX / 2).await;
    machine.look().await;
    let refused = machine.open("new.txt", WRITE).await;
    assert_eq!(errno(refused), libc::ENOSPC);
    assert_eq!(machine.list("").await, ["kept.txt"]);
    machine.sync().await;
    assert_eq!(service.tree(), [file("kept.txt", "kept")]);
}

// S57.
#[tokio::test(start_paused = true)]
async fn an_unlinked_file_is_read_and_written_until_its_last_close_and_deleted_there_after_it() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("sent.txt", "on the service");
    let machine = service.machine().await;
    machine.look().await;
    machine.write("new.txt", "never sent").await;
    let sent = machine.open("sent.txt", READ).await.unwrap();
    let new = machine.open("new.txt", BOTH).await.unwrap();
    machine.unlink("sent.txt").await.unwrap();
    machine.unlink("new.txt").await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert!(machine.list("").await.is_empty());
    assert_eq!(machine.files.read(sent.0, sent.1, 0, 100).await.unwrap(), "on the service");
    machine.files.write(new.0, new.1, 0, b"NEVER".to_vec().into()).await.unwrap();
    assert_eq!(machine.files.read(new.0, new.1, 0, 100).await.unwrap(), "NEVER sent");
    assert_eq!(service.tree(), [file("sent.txt", "on the service")]);
    machine.close(sent).await.unwrap();
    machine.close(new).await.unwrap();
    machine.sync().await;
    assert!(service.tree().is_empty());
}

// S58.
#[tokio::test(start_paused = true)]
async fn signed_out_nothing_is_lost_and_status_says_so() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("read.txt", "read before");
    service.write_elsewhere("unread.txt", "never read");
    let machine = service.machine().await;
    assert_eq!(machine.read("read.txt").await.unwrap(), "read before");
    let refused = FaultAction::status(401, "InvalidAuthenticationToken");
    let fault = service.control.inject(fault(None, refused));
    machine.write("new.txt", "written signed out").await;
    sleep(Duration::from_secs(120)).await;
    assert_eq!(machine.engine.status().await.unwrap().state, State::SignedOut);
    assert_eq!(machine.read("read.txt").await.unwrap(), "read before");
    assert_eq!(errno(machine.read("unread.txt").await), libc::EKEYEXPIRED);
    service.control.remove_fault(fault);
    sleep(Duration::from_secs(120)).await;
    machine.sync().await;
    assert_eq!(service.control.content("new.txt").unwrap(), "written signed out");
}

// S59.
#[tokio::test(start_paused = true)]
async fn an_upload_that_a_kill_cut_goes_on_where_it_was() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine().await;
    machine.look().await;
    let content = "0123456789abcdef".repeat(3 << 20);
    machine.write("big", &content).await;
    let mut stall = fault(Some("upload.fragment"), FaultAction::Stall { after: false });
    stall.skip = 2;
    let stall = service.control.inject(stall);
    sleep(Duration::from_secs(10)).await;
    machine.crash();
    service.control.remove_fault(stall);
    service.control.reset_log();
    let again = service.machine().await;
    again.sync().await;
    assert!(service.control.content("big").unwrap() == content.as_bytes());
    let fragments = service.control.requests();
    let first = fragments.iter().find(|record| record.op == "upload.fragment").unwrap();
    let start = first.range.as_deref().unwrap().trim_start_matches("bytes ").split('-').next().unwrap();
    assert!(start.parse::<u64>().unwrap() > 0, "{:?}", first.range);
}
