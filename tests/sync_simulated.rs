//! What the simulation found, each as the shortest story that shows it.

mod sync_support;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onedrivefs::disk::power::PowerCut;
use onedrivefs::disk::{Call, Disk, DiskHook};
use onedrivefs::emulator::{Edit, Fault, FaultAction, Flavour, Resync};
use onedrivefs::store::Store;
use onedrivefs::vfs::{Filesystem, OpenFlags};
use sync_support::{Durable, Service};

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];

fn folder(path: &str) -> (String, Option<String>) {
    (path.into(), None)
}

fn file(path: &str, content: &str) -> (String, Option<String>) {
    (path.into(), Some(content.into()))
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_being_written_at_a_crash_has_its_size_after_the_restart() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine().await;
    let flags = OpenFlags { write: true, ..OpenFlags::default() };
    let open = machine.open("log", flags).await.unwrap();
    machine.files.write(open.0, open.1, 0, b"0123456789".to_vec().into()).await.unwrap();
    machine.crash();
    let again = service.machine().await;
    let ino = again.find("log").await.unwrap();
    assert_eq!(again.files.getattr(ino, None).await.unwrap().0.size, 10);
    assert_eq!(again.read("log").await.unwrap(), "0123456789");
}

#[tokio::test(start_paused = true)]
async fn an_unlinked_file_that_is_open_for_writing_and_edited_elsewhere_comes_back() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.edit(Edit::Write { path: "f".into(), content: b"base".to_vec() });
        let machine = service.machine().await;
        machine.look().await;
        let flags = OpenFlags { truncate: true, ..OpenFlags::READ_WRITE };
        let open = machine.open("f", flags).await.unwrap();
        machine.unlink("f").await.unwrap();
        service.write_elsewhere("f", "theirs");
        machine.look().await;
        machine.files.write(open.0, open.1, 0, b"mine".to_vec().into()).await.unwrap();
        assert_eq!(&machine.files.read(open.0, open.1, 0, 10).await.unwrap()[..], b"mine");
        machine.close(open).await.unwrap();
        machine.sync().await;
        assert_eq!(service.tree(), [file("f", "theirs")]);
        assert_eq!(machine.read("f").await.unwrap(), "theirs");
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_elsewhere_of_a_file_that_is_renamed_over_another_here_is_not_deleted() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("target", "target");
        let machine = service.machine().await;
        machine.look().await;
        machine.write("source", "first").await;
        machine.sync().await;
        machine.look().await;
        // Unsent when the edit elsewhere is seen, and renamed before the two are settled.
        let open = machine.open("source", OpenFlags { write: true, ..OpenFlags::default() }).await.unwrap();
        machine.files.write(open.0, open.1, 0, b"mine!".to_vec().into()).await.unwrap();
        service.write_elsewhere("source", "theirs, unseen");
        machine.look().await;
        machine.rename("source", "target").await.unwrap();
        machine.close(open).await.unwrap();
        machine.sync().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("source", "theirs, unseen"), file("target", "mine!")]);
        assert_eq!(machine.read("source").await.unwrap(), "theirs, unseen");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_in_a_folder_that_was_moved_into_one_deleted_elsewhere_stays_in_sight() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a/c/x", "theirs");
        service.write_elsewhere("b/d/y", "ours");
        let machine = service.machine().await;
        machine.look().await;
        machine.rename("b/d", "a/c/d").await.unwrap();
        service.edit(Edit::Delete { path: "a/c".into() });
        machine.look().await;
        machine.sync().await;
        machine.look().await;
        let moved = [folder("a"), folder("a/c"), folder("a/c/d"), file("a/c/d/y", "ours"), folder("b")];
        let stayed = [folder("a"), folder("b"), folder("b/d"), file("b/d/y", "ours")];
        let tree = service.tree();
        assert!(tree == moved || tree == stayed, "{tree:?}");
        let here = if tree == moved { "a/c/d/y" } else { "b/d/y" };
        assert_eq!(machine.read(here).await.unwrap(), "ours");
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_a_file_moved_out_of_a_folder_that_is_deleted_elsewhere_goes_where_it_lives() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.mkdir("d").await.unwrap();
        machine.write("d/f", "first").await;
        machine.sync().await;
        machine.look().await;
        // So soon after an own change a report alone is not believed, but the deletion in it must wait too.
        let open = machine.open("d/f", OpenFlags { write: true, ..OpenFlags::default() }).await.unwrap();
        machine.files.write(open.0, open.1, 0, b"again".to_vec().into()).await.unwrap();
        service.edit(Edit::Move { path: "d/f".into(), to: "f".into() });
        service.edit(Edit::Delete { path: "d".into() });
        machine.look().await;
        machine.close(open).await.unwrap();
        machine.sync().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("f", "again")]);
        assert_eq!(machine.read("f").await.unwrap(), "again");
    }
}

/// The answer to the next request of this method whose path contains `path` is held back until released.
fn hold_answer(service: &Service, method: &str, path: &str) {
    service.control.inject(Fault {
        method: Some(method.into()),
        path: Some(path.into()),
        op: None,
        skip: 0,
        count: Some(1),
        action: FaultAction::Stall { after: true },
    });
}

/// Until the request that is held up is on its way.
async fn under_way() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

// S13, S38.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_unlinked_in_an_older_version_than_the_service_has_returns() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("f", "what is shown");
        let machine = service.machine().await;
        machine.look().await;
        let open = machine.open("f", OpenFlags::READ).await.unwrap();
        service.write_elsewhere("f", "newer");
        machine.look().await;
        machine.unlink("f").await.unwrap();
        machine.close(open).await.unwrap();
        machine.sync().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("f", "newer")]);
        assert_eq!(machine.read("f").await.unwrap(), "newer");
    }
}

// S13, S34.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_saved_over_an_older_version_than_the_service_has_is_a_conflict() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("f", "what is shown");
        let machine = service.machine().await;
        machine.look().await;
        let open = machine.open("f", OpenFlags::READ).await.unwrap();
        service.write_elsewhere("f", "newer");
        machine.look().await;
        machine.write("f.new", "mine").await;
        machine.rename("f.new", "f").await.unwrap();
        machine.close(open).await.unwrap();
        machine.sync().await;
        let tree = service.tree();
        assert_eq!(tree.len(), 2, "{tree:?}");
        assert!(tree.contains(&file("f", "newer")), "{tree:?}");
    }
}

// S38.
#[tokio::test(start_paused = true)]
async fn an_unlink_does_not_look_first_at_what_it_is_to_remove() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.quiet_machine().await;
        // Its folder, which appeared in a look, was never listed.
        service.write_elsewhere("d/f", "seen");
        machine.look().await;
        service.write_elsewhere("d/f", "never seen");
        machine.unlink("d/f").await.unwrap();
        machine.sync().await;
        assert_eq!(service.tree(), [folder("d"), file("d/f", "never seen")]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_elsewhere_before_the_answer_that_it_was_made_is_gone_here_too() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.look().await;
        hold_answer(&service, "PUT", "content");
        machine.write("f", "mine").await;
        under_way().await;
        service.edit(Edit::Delete { path: "f".into() });
        service.write_elsewhere("f", "theirs");
        machine.look().await;
        service.control.release_stalls();
        machine.sync().await;
        machine.look().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("f", "theirs")]);
        assert_eq!(machine.list("").await, ["f"]);
        assert_eq!(machine.read("f").await.unwrap(), "theirs");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_moved_elsewhere_before_the_answer_that_it_was_made_is_shown_there() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.look().await;
        hold_answer(&service, "PUT", "content");
        machine.write("f", "mine").await;
        under_way().await;
        service.edit(Edit::Move { path: "f".into(), to: "g".into() });
        machine.look().await;
        service.control.release_stalls();
        machine.sync().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("g", "mine")]);
        assert_eq!(machine.list("").await, ["g"]);
    }
}

// S44.
#[tokio::test(start_paused = true)]
async fn a_new_file_that_is_saved_again_while_it_is_made_is_one_file_and_no_conflict() {
    for flavour in FLAVOURS {
        for (at_once, unlink) in [(true, false), (false, false), (false, true)] {
            let service = Service::new(flavour);
            let machine = service.machine().await;
            machine.look().await;
            hold_answer(&service, "PUT", "content");
            machine.write("f", "first save").await;
            under_way().await;
            if unlink {
                machine.unlink("f").await.unwrap();
                machine.write("f", "second save").await;
            } else {
                machine.write("f.new", "second save").await;
                machine.rename("f.new", "f").await.unwrap();
            }
            if !at_once {
                under_way().await;
                machine.look().await;
            }
            let made = service.control.id_of("f");
            service.control.release_stalls();
            machine.sync().await;
            machine.look().await;
            assert_eq!(service.tree(), [file("f", "second save")], "{flavour:?} {at_once} {unlink}");
            assert_eq!(service.control.id_of("f"), made, "the item stays");
            assert_eq!(machine.read("f").await.unwrap(), "second save");
        }
    }
}

// S46.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_unlinked_and_made_again_while_an_upload_of_it_is_unanswered_is_no_conflict() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("f", "base");
        let machine = service.machine().await;
        machine.look().await;
        assert_eq!(machine.read("f").await.unwrap(), "base");
        hold_answer(&service, "PUT", "content");
        machine.write("f", "first save").await;
        under_way().await;
        machine.unlink("f").await.unwrap();
        machine.write("f", "second save").await;
        // The report of the first save comes before its answer.
        machine.look().await;
        let before = service.control.id_of("f");
        service.control.release_stalls();
        machine.sync().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("f", "second save")]);
        assert_eq!(service.control.id_of("f"), before);
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_goes_to_the_item_that_was_moved_out_of_a_folder_which_a_listing_misses() {
    for flavour in FLAVOURS {
        for is_seen in [false, true] {
            let service = Service::new(flavour);
            let machine = service.quiet_machine().await;
            service.write_elsewhere("a/c/f", "base");
            machine.look().await;
            machine.write("a/c/f", "mine").await;
            service.edit(Edit::Move { path: "a/c/f".into(), to: "g".into() });
            service.edit(Edit::Delete { path: "a/c".into() });
            // The listing of "a" does not show "c" any more.
            machine.write("a/other", "x").await;
            if is_seen {
                machine.look().await;
            }
            machine.sync().await;
            machine.look().await;
            let expected = [folder("a"), file("a/other", "x"), file("g", "mine")];
            let tree = service.tree();
            let rest: Vec<_> = tree.into_iter().filter(|(path, _)| path != "a/c").collect();
            assert_eq!(rest, expected, "{flavour:?} {is_seen}");
            assert_eq!(machine.read("g").await.unwrap(), "mine");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_open_in_a_folder_that_was_made_again_elsewhere_and_renamed_here_is_sent() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.quiet_machine().await;
        machine.mkdir("d").await.unwrap();
        machine.write("d/f", "first").await;
        machine.sync().await;
        machine.look().await;
        hold_answer(&service, "PUT", "content");
        machine.write("d/f", "second").await;
        under_way().await;
        service.edit(Edit::Delete { path: "d".into() });
        service.edit(Edit::Mkdir { path: "d".into() });
        let flags = OpenFlags { write: true, truncate: true, ..OpenFlags::default() };
        let open = machine.open("d/f", flags).await.unwrap();
        machine.rename("d", "e").await.unwrap();
        under_way().await;
        service.control.release_stalls();
        machine.files.write(open.0, open.1, 0, b"third".to_vec().into()).await.unwrap();
        machine.close(open).await.unwrap();
        machine.sync().await;
        machine.look().await;
        machine.sync().await;
        assert_eq!(service.tree(), [folder("e"), file("e/f", "third")], "{flavour:?}");
        assert_eq!(machine.read("e/f").await.unwrap(), "third");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_unsent_in_a_folder_that_went_with_one_that_was_never_seen_is_sent() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/other", "theirs");
        let machine = service.quiet_machine().await;
        machine.write("d/f", "mine").await;
        service.edit(Edit::Mkdir { path: "unseen".into() });
        service.edit(Edit::Move { path: "d".into(), to: "unseen/d".into() });
        // The look that follows a refusal tells of the folder's new place, and of nothing above.
        let status =
            FaultAction::Status { status: 409, code: None, inner: None, retry_after: None, after: false };
        service.control.inject(Fault {
            method: Some("PUT".into()),
            path: None,
            op: None,
            skip: 0,
            count: Some(20),
            action: status,
        });
        under_way().await;
        service.edit(Edit::Delete { path: "unseen".into() });
        service.control.clear_faults();
        machine.look().await;
        machine.look().await;
        machine.sync().await;
        assert_eq!(service.tree(), [folder("d"), file("d/f", "mine")], "{flavour:?}");
        assert_eq!(machine.read("d/f").await.unwrap(), "mine");
    }
}

// S46.
#[tokio::test(start_paused = true)]
async fn an_item_that_was_taken_home_again_is_missed_nowhere() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.look().await;
        machine.write("z", "first").await;
        machine.sync().await;
        let item = service.control.id_of("z");
        machine.rename("z", "y").await.unwrap();
        machine.sync().await;
        // The new file has the item, which goes home.
        machine.write("z", "second").await;
        machine.sync().await;
        assert_eq!(service.control.id_of("z"), item);
        machine.unlink("y").await.unwrap();
        machine.sync().await;
        machine.rename("z", "w").await.unwrap();
        machine.write("y", "third").await;
        machine.sync().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("w", "second"), file("y", "third")], "{flavour:?}");
        assert_eq!(service.control.id_of("w"), item, "{flavour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_file_that_was_made_although_the_answer_was_an_error_and_is_saved_again_is_no_conflict() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine_with(|engine, _| engine.poll = Duration::from_secs(3600)).await;
        machine.write("other", "x").await;
        machine.sync().await;
        let status = |status, count, after, retry_after: Option<&str>| Fault {
            method: Some("PUT".into()),
            path: None,
            op: None,
            skip: 0,
            count: Some(count),
            action: FaultAction::Status {
                status,
                code: None,
                inner: None,
                retry_after: retry_after.map(str::to_owned),
                after,
            },
        };
        // It is made, then the service is busy for a while.
        service.control.inject(status(503, 1, true, Some("1")));
        service.control.inject(status(429, 2, false, Some("1")));
        machine.write("f", "first save").await;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(service.tree(), [file("f", "first save"), file("other", "x")]);
        machine.write("f.new", "second save").await;
        machine.rename("f.new", "f").await.unwrap();
        machine.sync().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("f", "second save"), file("other", "x")], "{flavour:?}");
    }
}

// S46.
#[tokio::test(start_paused = true)]
async fn a_new_file_that_was_made_although_the_service_said_to_wait_and_is_saved_again_is_no_conflict() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.quiet_machine().await;
        let busy = |status, after, seconds: &str| Fault {
            method: Some("PUT".into()),
            path: None,
            op: None,
            skip: 0,
            count: Some(1),
            action: FaultAction::Status {
                status,
                code: None,
                inner: None,
                retry_after: Some(seconds.into()),
                after,
            },
        };
        service.control.inject(busy(503, true, "1"));
        service.control.inject(busy(429, false, "100"));
        machine.write("f", "first save").await;
        under_way().await;
        assert_eq!(service.tree(), [file("f", "first save")]);
        machine.write("f.new", "second save").await;
        machine.rename("f.new", "f").await.unwrap();
        machine.sync().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("f", "second save")], "{flavour:?}");
    }
}

// S38.
#[tokio::test(start_paused = true)]
async fn what_was_made_here_and_deleted_elsewhere_before_the_drive_is_listed_again_is_gone() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/other", "theirs");
        let machine = service.quiet_machine().await;
        // The service asks to list the drive anew, and is slow to begin with it.
        service.control.delta_resync(Resync::Plain);
        service.control.inject(Fault {
            method: Some("GET".into()),
            path: Some("delta".into()),
            op: None,
            skip: 1,
            count: Some(1),
            action: FaultAction::Stall { after: false },
        });
        machine.engine.refresh();
        under_way().await;
        machine.write("d/f", "mine").await;
        machine.sync().await;
        service.edit(Edit::Delete { path: "d/f".into() });
        service.control.release_stalls();
        machine.look().await;
        machine.look().await;
        assert_eq!(machine.list("d").await, ["other"], "{flavour:?}");
    }
}

// S34.
#[tokio::test(start_paused = true)]
async fn a_saved_file_keeps_its_content_when_a_look_from_before_the_save_is_answered_after_it() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.quiet_machine().await;
        machine.write("f", "first").await;
        machine.sync().await;
        // What happens elsewhere so soon after an own change is looked at by its id.
        service.edit(Edit::Touch { path: "f".into(), mtime: "2024-03-01T00:00:00Z".into() });
        hold_answer(&service, "GET", &format!("/items/{}", service.control.id_of("f").unwrap()));
        machine.engine.refresh();
        under_way().await;
        machine.write("f", "second").await;
        machine.sync().await;
        assert_eq!(service.tree(), [file("f", "second")], "{flavour:?}");
        service.control.release_stalls();
        under_way().await;
        assert_eq!(machine.read("f").await.unwrap(), "second", "{flavour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_again_is_not_taken_for_sealed_after_a_power_cut() {
    let service = Service::new(Flavour::Business);
    let durable = Durable::new();
    let machine = service.machine_of(|setup| setup.disk = Disk::with_hook(durable.clone())).await;
    machine.look().await;
    service.control.cut();
    machine.write("f", "sealed and not sent").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let seal = |store: &Store| store.dirty().unwrap()[0].local.as_ref().map(|local| local.seal.is_some());
    assert_eq!(seal(machine.engine.store()), Some(true));
    let open = machine.open("f", OpenFlags { write: true, ..OpenFlags::default() }).await.unwrap();
    machine.files.write(open.0, open.1, 0, b"other".to_vec().into()).await.unwrap();
    let left = durable.store();
    assert_eq!(seal(&left), Some(false));
}

/// What a power cut leaves of staged content; all else is on the disk as it was.
#[derive(Default)]
struct StagedUnsynced(PowerCut);

impl DiskHook for StagedUnsynced {
    fn about_to(&self, path: &Path, call: Call<'_>) {
        if path.components().any(|part| part.as_os_str() == "staging") {
            self.0.about_to(path, call);
        }
    }
}

// S4.
#[tokio::test(start_paused = true)]
async fn what_no_longer_lay_over_a_version_before_a_power_cut_is_sent_after_it() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("f", &"base".repeat(10_000));
        let power = Arc::new(StagedUnsynced::default());
        let machine = service.machine_of(|setup| setup.disk = Disk::with_hook(power.clone())).await;
        machine.look().await;
        let cut = service.control.cut();
        let open = machine.open("f", OpenFlags::READ_WRITE).await.unwrap();
        machine.files.write(open.0, open.1, 0, b"ours".to_vec().into()).await.unwrap();
        machine.files.fsync(open.0, open.1, false).await.unwrap();
        machine.close(open).await.unwrap();
        // From here on nothing is synced.
        machine.write("f", "all of it is new").await;
        machine.rename("f", "f.old").await.unwrap();
        machine.write("f", "saved").await;
        machine.crash();
        power.0.cut(None).unwrap();
        service.control.remove_fault(cut);
        let machine = service.machine_of(|setup| setup.staging.boot = "another".into()).await;
        machine.sync().await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        let status = machine.engine.status().await.unwrap();
        assert_eq!((status.pending, status.parked), (0, 0), "{flavour:?} {:?}", status.waiting);
        assert!(machine.list("").await.contains(&"f.old".to_owned()), "{:?}", machine.list("").await);
    }
}

/// Fails the syncs of the store while it is told to.
struct FailSyncs(AtomicBool);

impl DiskHook for FailSyncs {
    fn before(&self, step: &'static str, _: &Path) -> io::Result<()> {
        let fails = step == "store.sync" && self.0.load(Ordering::SeqCst);
        if fails { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_fails_when_sealed_content_is_written_again_loses_nothing() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let failing = Arc::new(FailSyncs(AtomicBool::new(false)));
        let machine = service.machine_of(|setup| setup.disk = Disk::with_hook(failing.clone())).await;
        machine.look().await;
        hold_answer(&service, "PUT", "content");
        machine.write("f", "on its way").await;
        under_way().await;
        failing.0.store(true, Ordering::SeqCst);
        let open = machine.open("f", OpenFlags { write: true, ..OpenFlags::default() }).await.unwrap();
        let refused = machine.files.write(open.0, open.1, 0, b"ON".to_vec().into()).await;
        assert!(refused.is_err(), "{flavour:?}");
        failing.0.store(false, Ordering::SeqCst);
        assert_eq!(machine.read("f").await.unwrap(), "on its way", "{flavour:?}");
        machine.files.write(open.0, open.1, 0, b"ON".to_vec().into()).await.unwrap();
        machine.close(open).await.unwrap();
        service.control.release_stalls();
        machine.sync().await;
        assert_eq!(service.tree(), [file("f", "ON its way")], "{flavour:?}");
    }
}

// S37.
#[tokio::test(start_paused = true)]
async fn what_is_written_to_an_open_file_whose_set_time_was_unsent_when_its_folder_was_deleted_elsewhere_is_kept()
 {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/e/f", "0123456789");
        let machine = service.machine().await;
        machine.look().await;
        let flags = OpenFlags::READ_WRITE;
        let open = machine.open("d/e/f", flags).await.unwrap();
        machine.files.read(open.0, open.1, 0, 10).await.unwrap();
        machine.set_mtime("d/e/f", 1_580_000_000).await.unwrap();
        service.edit(Edit::Delete { path: "d".into() });
        machine.look().await;
        under_way().await;
        machine.files.write(open.0, open.1, 0, b"mine".to_vec().into()).await.unwrap();
        machine.close(open).await.unwrap();
        machine.sync().await;
        assert_eq!(service.tree(), [file("f", "mine456789")], "{flavour:?}");
        assert_eq!(machine.read("f").await.unwrap(), "mine456789", "{flavour:?}");
    }
}

// S46.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_saved_again_where_it_was_keeps_its_item_when_the_backup_is_saved_too() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("f", "old");
        let machine = service.machine().await;
        assert_eq!(machine.read("f").await.unwrap(), "old");
        let item = service.control.id_of("f");
        machine.rename("f", "g").await.unwrap();
        machine.sync().await;
        assert_eq!(service.control.id_of("g"), item);
        machine.write("f", "new").await;
        machine.rename("g", "g~").await.unwrap();
        machine.write("g", "the backup, saved").await;
        machine.sync().await;
        let expected = [file("f", "new"), file("g", "the backup, saved"), file("g~", "old")];
        assert_eq!(service.tree(), expected, "{flavour:?}");
        assert_eq!(service.control.id_of("f"), item, "{flavour:?}");
    }
}

// S46.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_moved_and_saved_since_keeps_its_item_when_its_old_name_is_used_again() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("f", "old");
        let machine = service.machine().await;
        assert_eq!(machine.read("f").await.unwrap(), "old");
        let item = service.control.id_of("f");
        machine.rename("f", "g").await.unwrap();
        machine.sync().await;
        machine.rename("g", "g~").await.unwrap();
        machine.write("g", "saved").await;
        machine.unlink("g~").await.unwrap();
        machine.write("f", "another").await;
        machine.sync().await;
        assert_eq!(service.tree(), [file("f", "another"), file("g", "saved")], "{flavour:?}");
        assert_eq!(service.control.id_of("g"), item, "{flavour:?}");
    }
}

// S46.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_moved_and_saved_elsewhere_since_keeps_its_item_when_its_old_name_is_used_again() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("f", "old");
        let machine = service.quiet_machine().await;
        assert_eq!(machine.read("f").await.unwrap(), "old");
        let item = service.control.id_of("f");
        machine.rename("f", "g").await.unwrap();
        machine.sync().await;
        service.write_elsewhere("g", "theirs");
        machine.look().await;
        assert_eq!(machine.read("g").await.unwrap(), "theirs");
        machine.write("f", "another").await;
        machine.sync().await;
        assert_eq!(service.tree(), [file("f", "another"), file("g", "theirs")], "{flavour:?}");
        assert_eq!(service.control.id_of("g"), item, "{flavour:?}");
    }
}
