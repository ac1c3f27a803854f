//! Answers that are lost, refused, late or nonsense: what is sent is sent once, and nothing is lost.

mod sync_support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onedrivefs::disk::{Disk, DiskHook};
use onedrivefs::emulator::{Edit, Fault, FaultAction, Flavour};
use onedrivefs::model::NodeId;
use onedrivefs::vfs::{Filesystem, OpenFlags};
use sync_support::{Machine, Service};

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];

fn file(path: &str, content: &str) -> (String, Option<String>) {
    (path.into(), Some(content.into()))
}

fn folder(path: &str) -> (String, Option<String>) {
    (path.into(), None)
}

fn status(status: u16, code: &str, after: bool) -> FaultAction {
    FaultAction::Status { status, code: Some(code.into()), inner: None, retry_after: None, after }
}

fn hit(service: &Service, method: &str, count: u32, action: FaultAction) {
    service.control.inject(Fault {
        method: Some(method.into()),
        path: None,
        op: None,
        skip: 0,
        count: Some(count),
        action,
    });
}

/// A little of everything that is sent.
async fn work(machine: &Machine) {
    machine.mkdir("new").await.unwrap();
    machine.write("new/small", "created").await;
    machine.write("new/empty", "").await;
    machine.write("edited", "new content").await;
    machine.rename("renamed", "moved").await.unwrap();
    machine.unlink("deleted").await.unwrap();
    machine.set_mtime("touched", 1_500_000_000).await.unwrap();
}

fn expected() -> Vec<(String, Option<String>)> {
    vec![
        file("edited", "new content"),
        file("moved", "r"),
        folder("new"),
        file("new/empty", ""),
        file("new/small", "created"),
        file("touched", "t"),
    ]
}

async fn prepared(flavour: Flavour) -> (Service, Machine) {
    let service = Service::new(flavour);
    for (path, content) in [("edited", "old"), ("renamed", "r"), ("deleted", "d"), ("touched", "t")] {
        service.write_elsewhere(path, content);
    }
    let machine = service.machine().await;
    machine.look().await;
    assert_eq!(machine.read("edited").await.unwrap(), "old");
    (service, machine)
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_answer_is_lost_is_made_once() {
    let lost = [
        FaultAction::Reset { after: true },
        FaultAction::Stall { after: true },
        status(500, "generalException", true),
        status(504, "generalException", true),
    ];
    for flavour in FLAVOURS {
        for action in &lost {
            for method in ["PUT", "POST", "PATCH", "DELETE"] {
                let (service, machine) = prepared(flavour).await;
                let ids = (service.control.id_of("edited"), service.control.id_of("renamed"));
                hit(&service, method, 2, action.clone());
                work(&machine).await;
                machine.sync().await;
                assert_eq!(service.tree(), expected(), "{flavour:?} {method} {action:?}");
                let now = (service.control.id_of("edited"), service.control.id_of("moved"));
                assert_eq!(now, ids, "{flavour:?} {method} {action:?}");
                let versions = service.item("edited")["versions"].as_array().map(Vec::len);
                assert_eq!(versions, Some(1), "one version before: {flavour:?} {method} {action:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_refused_for_now_is_sent_later() {
    let refused = [
        FaultAction::Reset { after: false },
        status(503, "serviceNotAvailable", false),
        status(429, "activityLimitReached", false),
        status(423, "resourceLocked", false),
        status(500, "generalException", false),
        status(412, "resourceModified", false),
        status(507, "insufficientStorage", false),
        FaultAction::Html { status: 502 },
    ];
    for flavour in FLAVOURS {
        for action in &refused {
            for method in ["PUT", "POST", "PATCH", "DELETE"] {
                let (service, machine) = prepared(flavour).await;
                hit(&service, method, 3, action.clone());
                work(&machine).await;
                // What is parked is tried again by itself.
                tokio::time::sleep(Duration::from_secs(600)).await;
                machine.sync().await;
                assert_eq!(service.tree(), expected(), "{flavour:?} {method} {action:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_with_a_lost_answer_is_found_out_by_the_next_run() {
    for flavour in FLAVOURS {
        for method in ["PUT", "POST", "PATCH", "DELETE"] {
            let (service, machine) = prepared(flavour).await;
            let id = service.control.id_of("edited");
            hit(&service, method, 1, FaultAction::Stall { after: true });
            work(&machine).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            machine.crash();
            service.control.clear_faults();
            let again = service.machine().await;
            again.sync().await;
            assert_eq!(service.tree(), expected(), "{flavour:?} {method}");
            assert_eq!(service.control.id_of("edited"), id, "{flavour:?} {method}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_change_says_why_and_does_not_hold_up_others() {
    for flavour in FLAVOURS {
        let (service, machine) = prepared(flavour).await;
        service.control.inject(Fault {
            method: Some("PUT".into()),
            path: Some("full".into()),
            op: None,
            skip: 0,
            count: None,
            action: status(507, "quotaLimitReached", false),
        });
        machine.write("full.txt", "too much").await;
        machine.write("fits.txt", "ok").await;
        let limit = Some(Duration::from_secs(20));
        let root = onedrivefs::model::NodeId::ROOT;
        let left = machine.engine.sync(root, limit, |_| {}).await.unwrap();
        assert_eq!((left.pending, left.parked), (1, 1));
        let shown = machine.engine.status().await.unwrap().waiting;
        assert_eq!(shown[0].path, "full.txt");
        assert_eq!(shown[0].reason, Some(onedrivefs::store::ParkKind::Quota));
        assert_eq!(machine.read("full.txt").await.unwrap(), "too much");
        service.control.clear_faults();
        machine.engine.retry_parked(NodeId::ROOT).await.unwrap();
        machine.sync().await;
        assert!(service.tree().contains(&file("full.txt", "too much")));
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_session_goes_on_after_a_crash_from_what_the_service_has() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.look().await;
        let content = "0123456789abcdef".repeat(3 << 20);
        machine.write("big", &content).await;
        service.control.inject(Fault {
            method: Some("PUT".into()),
            path: None,
            op: None,
            skip: 2,
            count: None,
            action: FaultAction::Stall { after: false },
        });
        tokio::time::sleep(Duration::from_secs(20)).await;
        machine.crash();
        service.control.clear_faults();
        service.control.reset_log();
        let again = service.machine().await;
        again.sync().await;
        assert!(service.control.content("big").unwrap() == content);
        let sessions = service.requests("POST");
        assert_eq!(sessions, 0, "{flavour:?}: no second session was made");
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_elsewhere_during_a_long_upload_is_not_overwritten() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("big", "base");
        let machine = service.machine().await;
        assert_eq!(machine.read("big").await.unwrap(), "base");
        let content = "0123456789abcdef".repeat(3 << 20);
        service.control.inject(Fault {
            method: Some("PUT".into()),
            path: None,
            op: None,
            skip: 1,
            count: Some(1),
            action: FaultAction::Delay { ms: 20_000 },
        });
        machine.write("big", &content).await;
        tokio::time::sleep(Duration::from_secs(12)).await;
        service.write_elsewhere("big", "theirs");
        machine.sync().await;
        let tree = service.tree();
        assert!(tree.contains(&file("big", "theirs")), "{flavour:?}");
        let copy = tree.iter().find(|(path, _)| path != "big").expect("a conflict copy");
        assert!(copy.1.as_deref() == Some(&content), "{flavour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_resync_of_the_whole_drive_loses_and_deletes_nothing() {
    use onedrivefs::emulator::Resync;
    for flavour in FLAVOURS {
        let (service, machine) = prepared(flavour).await;
        machine.write("unsent", "here only").await;
        service.edit(Edit::Delete { path: "deleted".into() });
        service.write_elsewhere("appeared", "new");
        service.control.delta_resync(Resync::Plain);
        machine.look().await;
        machine.look().await;
        machine.sync().await;
        let names = machine.list("").await;
        assert_eq!(names, ["appeared", "edited", "renamed", "touched", "unsent"], "{flavour:?}");
        let on_service: Vec<String> = service.tree().into_iter().map(|(path, _)| path).collect();
        assert_eq!(on_service, names, "{flavour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_library_rewrites_after_an_upload_is_taken_over_and_not_sent_again() {
    use onedrivefs::emulator::Rewrite;
    for rewrite in [Rewrite::LibraryLater, Rewrite::AtOnce] {
        let service = Service::new(Flavour::DocumentLibrary);
        service.control.switch(|switches| switches.rewrite = rewrite);
        let machine = service.machine().await;
        machine.look().await;
        service.control.reset_log();
        machine.write("letter.docx", "not really a document").await;
        machine.sync().await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        machine.sync().await;
        assert_eq!(service.requests("PUT"), 1, "{rewrite:?}");
        let stored = service.control.content("letter.docx").unwrap();
        let read = machine.read("letter.docx").await.unwrap();
        assert_eq!(read.as_bytes(), &stored[..], "{rewrite:?}");
        assert_eq!(machine.list("").await, ["letter.docx"]);
    }
}

#[tokio::test(start_paused = true)]
async fn long_uploads_hold_up_no_rename() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("old name", "x");
    let machine = service.machine().await;
    machine.look().await;
    hit(&service, "PUT", 1000, FaultAction::Delay { ms: 50_000 });
    for number in 0..20 {
        machine.write(&format!("slow {number}"), "content").await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    machine.rename("old name", "new name").await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(service.control.id_of("new name").is_some(), "renamed while uploads run");
    machine.sync().await;
    assert_eq!(service.tree().len(), 21);
}

/// Refuses commits of the store while it is on.
#[derive(Default)]
struct RefuseCommits(AtomicBool);

impl DiskHook for RefuseCommits {
    fn before(&self, step: &'static str, _path: &Path) -> std::io::Result<()> {
        let refuses = step == "store.commit" && self.0.load(Ordering::SeqCst);
        if refuses { Err(std::io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }
}

// S1.
#[tokio::test(start_paused = true)]
async fn a_close_that_the_disk_does_not_record_is_an_error_and_nothing_is_lost() {
    let service = Service::new(Flavour::Business);
    let refusing = Arc::new(RefuseCommits::default());
    let machine = service.machine_of(|setup| setup.disk = Disk::with_hook(refusing.clone())).await;
    let open = machine.open("a", OpenFlags { write: true, ..OpenFlags::default() }).await.unwrap();
    machine.files.write(open.0, open.1, 0, "content".into()).await.unwrap();
    refusing.0.store(true, Ordering::SeqCst);
    assert!(machine.files.flush(open.0, open.1).await.is_err(), "what close returns 0 for is recorded");
    refusing.0.store(false, Ordering::SeqCst);
    machine.files.release(open.0, open.1).await;
    machine.sync().await;
    assert_eq!(service.control.content("a").as_deref(), Some(&b"content"[..]));
}

// S2.
#[tokio::test(start_paused = true)]
async fn what_was_being_written_at_a_crash_is_shown_as_long_as_it_is() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine().await;
    let open = machine.open("a", OpenFlags { write: true, ..OpenFlags::default() }).await.unwrap();
    machine.files.write(open.0, open.1, 0, "content".into()).await.unwrap();
    machine.crash();
    let cut = service.control.cut();
    let machine = service.machine().await;
    let ino = machine.find("a").await.unwrap();
    assert_eq!(machine.files.getattr(ino, None).await.unwrap().0.size, 7);
    assert_eq!(machine.read("a").await.unwrap(), "content");
    service.control.remove_fault(cut);
    machine.sync().await;
    assert_eq!(service.control.content("a").as_deref(), Some(&b"content"[..]));
}
