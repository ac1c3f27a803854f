//! Files that programs keep open for writing: what is sent of them meanwhile, and when.

mod sync_support;

use std::time::Duration;

use onedrivefs::emulator::{Edit, Fault, FaultAction, Flavour, Rewrite};
use onedrivefs::engine::EngineConfig;
use onedrivefs::model::Ino;
use onedrivefs::vfs::{Filesystem, Handle, OpenFlags};
use sync_support::{Machine, Service};

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];
const WRITE: OpenFlags = OpenFlags::READ_WRITE;
/// The settle time and a moment to send.
const SETTLED: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_secs(300);

type Open = (Ino, Handle);

async fn write_at(machine: &Machine, open: Open, offset: u64, bytes: &str) {
    let written = machine.files.write(open.0, open.1, offset, bytes.as_bytes().to_vec().into()).await;
    assert_eq!(written.expect("write") as usize, bytes.len());
}

async fn fsync(machine: &Machine, open: Open) {
    machine.files.fsync(open.0, open.1, false).await.expect("fsync");
}

fn content(service: &Service, path: &str) -> Option<String> {
    service.control.content(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Requests that carried content.
fn uploads(service: &Service) -> usize {
    service.requests("PUT")
}

// S160.
#[tokio::test(start_paused = true)]
async fn what_a_program_synced_is_sent_while_it_has_the_file_open() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.quiet_machine().await;
        let open = machine.open("db", WRITE).await.unwrap();
        write_at(&machine, open, 0, "first").await;
        tokio::time::sleep(SETTLED).await;
        assert_eq!(content(&service, "db"), None, "{flavour:?}: neither synced nor closed");
        fsync(&machine, open).await;
        tokio::time::sleep(SETTLED).await;
        assert_eq!(content(&service, "db").as_deref(), Some("first"), "{flavour:?}");
        let id = service.control.id_of("db");
        write_at(&machine, open, 5, ", second").await;
        fsync(&machine, open).await;
        tokio::time::sleep(PAUSE - 2 * SETTLED).await;
        assert_eq!(content(&service, "db").as_deref(), Some("first"), "{flavour:?}: not all the time");
        tokio::time::sleep(3 * SETTLED).await;
        assert_eq!(content(&service, "db").as_deref(), Some("first, second"), "{flavour:?}");
        write_at(&machine, open, 0, "third").await;
        machine.close(open).await.unwrap();
        machine.sync().await;
        assert_eq!(content(&service, "db").as_deref(), Some("third, second"), "{flavour:?}");
        assert_eq!(service.control.id_of("db"), id, "{flavour:?}");
        assert_eq!(service.tree().len(), 1, "{flavour:?}: {:?}", service.tree());
    }
}

// S160.
#[tokio::test(start_paused = true)]
async fn what_nobody_ever_syncs_is_sent_after_some_minutes() {
    let service = Service::new(Flavour::Business);
    let machine = service.quiet_machine().await;
    let open = machine.open("log", WRITE).await.unwrap();
    let mut end = 0;
    for _ in 0..40 {
        write_at(&machine, open, end, "another line\n").await;
        end += 13;
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let sent = content(&service, "log").expect("it is there");
    assert!((13 * 28..=13 * 33).contains(&sent.len()), "{} bytes", sent.len());
    assert_eq!(sent, "another line\n".repeat(sent.len() / 13));
}

// S160.
#[tokio::test(start_paused = true)]
async fn who_syncs_all_the_time_neither_stops_the_copies_nor_makes_them_more() {
    let service = Service::new(Flavour::Business);
    let setup = |engine: &mut EngineConfig, _: &mut _| {
        (engine.settle, engine.poll) = (Duration::from_secs(10), Duration::from_secs(36_000));
    };
    let machine = service.machine_with(setup).await;
    let open = machine.open("db", WRITE).await.unwrap();
    for second in (0..700u64).step_by(5) {
        write_at(&machine, open, 0, &format!("{second:04}")).await;
        fsync(&machine, open).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert!((3..=4).contains(&uploads(&service)), "{}", uploads(&service));
    assert!(content(&service, "db").unwrap().as_str() >= "0580");
}

// S160.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_sent_as_it_is_closed_is_not_sent_again() {
    for flavour in FLAVOURS {
        for changed in [false, true] {
            let service = Service::new(flavour);
            let machine = service.quiet_machine().await;
            let open = machine.open("db", WRITE).await.unwrap();
            write_at(&machine, open, 0, "content").await;
            fsync(&machine, open).await;
            tokio::time::sleep(SETTLED).await;
            if changed {
                write_at(&machine, open, 0, "CONTENT").await;
            }
            let mtime = machine.files.getattr(open.0, Some(open.1)).await.unwrap().0.mtime;
            machine.close(open).await.unwrap();
            machine.sync().await;
            assert_eq!(uploads(&service), 1 + usize::from(changed), "{flavour:?}");
            let expected = if changed { "CONTENT" } else { "content" };
            assert_eq!(content(&service, "db").as_deref(), Some(expected), "{flavour:?}");
            let downloads = service.requests("GET");
            assert_eq!(machine.read("db").await.unwrap(), expected);
            assert_eq!(service.requests("GET"), downloads, "{flavour:?}: what was sent is here");
            let ino = machine.find("db").await.unwrap();
            assert_eq!(machine.files.getattr(ino, None).await.unwrap().0.mtime, mtime, "{flavour:?}");
        }
    }
}

// S160.
#[tokio::test(start_paused = true)]
async fn without_a_change_no_copy_is_sent() {
    let service = Service::new(Flavour::Business);
    let machine = service.quiet_machine().await;
    let open = machine.open("db", WRITE).await.unwrap();
    write_at(&machine, open, 0, "content").await;
    fsync(&machine, open).await;
    tokio::time::sleep(20 * PAUSE).await;
    assert_eq!(uploads(&service), 1);
    write_at(&machine, open, 0, "CONTENT").await;
    tokio::time::sleep(PAUSE + SETTLED).await;
    assert_eq!(uploads(&service), 2);
    assert_eq!(machine.engine.staging().list().unwrap().len(), 1, "copies do not stay");
}

// S160.
#[tokio::test(start_paused = true)]
async fn an_edit_elsewhere_of_a_file_that_is_open_for_writing_is_kept_whatever_was_sent_of_it() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("doc", "the first version");
        let machine = service.quiet_machine().await;
        let open = machine.open("doc", WRITE).await.unwrap();
        write_at(&machine, open, 0, "MY").await;
        fsync(&machine, open).await;
        tokio::time::sleep(SETTLED).await;
        assert_eq!(content(&service, "doc").as_deref(), Some("MYe first version"), "{flavour:?}");
        service.write_elsewhere("doc", "by another client");
        write_at(&machine, open, 2, "+").await;
        tokio::time::sleep(3 * PAUSE).await;
        assert_eq!(content(&service, "doc").as_deref(), Some("by another client"), "{flavour:?}");
        machine.close(open).await.unwrap();
        machine.sync().await;
        let mut contents: Vec<_> = service.tree().into_iter().filter_map(|(_, content)| content).collect();
        contents.sort();
        assert_eq!(contents, ["MY+ first version", "by another client"], "{flavour:?}");
    }
}

fn fault(method: &str, after: bool) -> Fault {
    let action = FaultAction::Reset { after };
    Fault { method: Some(method.into()), path: None, op: None, skip: 0, count: Some(1), action }
}

// S160.
#[tokio::test(start_paused = true)]
async fn a_crash_while_a_copy_is_sent_leaves_neither_a_copy_nor_a_conflict() {
    for flavour in FLAVOURS {
        for (after, more) in [(true, true), (true, false), (false, true), (false, false)] {
            let service = Service::new(flavour);
            service.write_elsewhere("db", "version of the service");
            let machine = service.quiet_machine().await;
            let open = machine.open("db", WRITE).await.unwrap();
            service.control.inject(fault("PUT", after));
            service.control.set_latency(Duration::from_secs(3));
            write_at(&machine, open, 0, "VERSION").await;
            fsync(&machine, open).await;
            while uploads(&service) == 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            if more {
                write_at(&machine, open, 8, "OF").await;
            }
            machine.crash();
            service.control.set_latency(Duration::ZERO);
            let machine = service.quiet_machine().await;
            machine.sync().await;
            let expected = if more { "VERSION OF the service" } else { "VERSION of the service" };
            let tree = service.tree();
            assert_eq!(tree, [("db".into(), Some(expected.into()))], "{flavour:?} {after} {more}");
            assert_eq!(machine.list("").await, ["db"], "{flavour:?} {after} {more}");
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(machine.engine.staging().list().unwrap(), [], "{flavour:?} {after} {more}");
        }
    }
}

// S160, S161.
#[tokio::test(start_paused = true)]
async fn a_file_changed_in_part_needs_its_former_version_no_more_once_a_copy_was_sent() {
    let service = Service::new(Flavour::Business);
    let former = "x".repeat(100_000);
    service.write_elsewhere("data", &former);
    let machine = service.quiet_machine().await;
    let open = machine.open("data", WRITE).await.unwrap();
    write_at(&machine, open, 50_000, "new").await;
    fsync(&machine, open).await;
    tokio::time::sleep(SETTLED).await;
    assert_eq!(content(&service, "data").unwrap().len(), 100_000);
    write_at(&machine, open, 0, "newer").await;
    machine.crash();
    service.control.reset_log();
    let machine = service.quiet_machine().await;
    machine.sync().await;
    let contents = service.control.requests().into_iter().filter(|record| record.path.contains("content"));
    let methods: Vec<_> = contents.map(|record| record.method).collect();
    assert_eq!(methods, ["PUT"], "nothing was fetched");
    let wanted = format!("newer{}new{}", &former[5..50_000], &former[50_003..]);
    assert!(content(&service, "data").as_deref() == Some(&wanted));
}

// S160.
#[tokio::test(start_paused = true)]
async fn an_open_file_of_which_a_copy_was_sent_moves_and_goes_like_any_other() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.edit(Edit::Mkdir { path: "d".into() });
        let machine = service.quiet_machine().await;
        let open = machine.open("a", WRITE).await.unwrap();
        write_at(&machine, open, 0, "content").await;
        fsync(&machine, open).await;
        tokio::time::sleep(SETTLED).await;
        let id = service.control.id_of("a");
        machine.rename("a", "d/b").await.unwrap();
        tokio::time::sleep(SETTLED).await;
        assert_eq!(service.control.id_of("d/b"), id, "{flavour:?}");
        write_at(&machine, open, 7, " and more").await;
        tokio::time::sleep(PAUSE + SETTLED).await;
        assert_eq!(content(&service, "d/b").as_deref(), Some("content and more"), "{flavour:?}");
        machine.unlink("d/b").await.unwrap();
        write_at(&machine, open, 0, "gone").await;
        tokio::time::sleep(2 * PAUSE).await;
        machine.close(open).await.unwrap();
        machine.sync().await;
        assert!(service.control.id_of("d/b").is_none(), "{flavour:?}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(machine.engine.staging().list().unwrap(), [], "{flavour:?}");
    }
}

// S160.
#[tokio::test(start_paused = true)]
async fn a_copy_that_could_not_be_sent_is_sent_later_and_its_session_goes_on() {
    let service = Service::new(Flavour::Business);
    let machine = service.quiet_machine().await;
    let open = machine.open("big", WRITE).await.unwrap();
    let part = "0123456789abcdef".repeat(65_536);
    for mebibyte in 0..30 {
        write_at(&machine, open, mebibyte << 20, &part).await;
    }
    fsync(&machine, open).await;
    service.control.inject(Fault { skip: 1, count: Some(6), ..fault("PUT", false) });
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(service.control.content("big").map(|bytes| bytes.len()), Some(30 << 20));
    let sessions = service.control.requests();
    let sessions = sessions.iter().filter(|record| record.path.contains("createUploadSession")).count();
    assert_eq!(sessions, 1, "it went on where it was");
}

// S160, S42.
#[tokio::test(start_paused = true)]
async fn what_the_service_rewrites_of_an_open_file_is_neither_sent_again_nor_a_conflict() {
    for rewrite in [Rewrite::LibraryLater, Rewrite::AtOnce] {
        let service = Service::new(Flavour::DocumentLibrary);
        service.control.switch(|switches| switches.rewrite = rewrite);
        let machine = service.machine().await;
        machine.look().await;
        let open = machine.open("letter.docx", WRITE).await.unwrap();
        write_at(&machine, open, 0, "not really a document").await;
        fsync(&machine, open).await;
        tokio::time::sleep(10 * PAUSE).await;
        assert_eq!(uploads(&service), 1, "{rewrite:?}");
        write_at(&machine, open, 0, "NOT").await;
        machine.close(open).await.unwrap();
        machine.sync().await;
        tokio::time::sleep(PAUSE).await;
        assert_eq!(uploads(&service), 2, "{rewrite:?}");
        assert_eq!(machine.list("").await, ["letter.docx"], "{rewrite:?}");
        let stored = content(&service, "letter.docx").unwrap();
        assert_eq!(machine.read("letter.docx").await.unwrap(), stored, "{rewrite:?}");
        assert!(stored.contains("NOT really"), "{rewrite:?}: {stored}");
    }
}

// S160.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_closed_and_opened_again_counts_its_changes_anew() {
    let service = Service::new(Flavour::Business);
    let machine = service.quiet_machine().await;
    let open = machine.open("db", WRITE).await.unwrap();
    write_at(&machine, open, 0, "first").await;
    fsync(&machine, open).await;
    tokio::time::sleep(SETTLED).await;
    machine.close(open).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let open = machine.open("db", WRITE).await.unwrap();
    write_at(&machine, open, 0, "FIRST").await;
    tokio::time::sleep(PAUSE + SETTLED).await;
    assert_eq!(content(&service, "db").as_deref(), Some("FIRST"));
    machine.close(open).await.unwrap();
    machine.sync().await;
    assert_eq!(uploads(&service), 2);
}
