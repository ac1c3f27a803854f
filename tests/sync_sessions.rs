//! Uploads in fragments: what another client saves at their end, sessions that nobody needs any more, every answer that
//! the service may give to a fragment, and how many bytes a crash costs.

mod sync_support;

use std::time::Duration;

use onedrivefs::disk::Disk;
use onedrivefs::emulator::{Fault, FaultAction, Flavour};
use onedrivefs::model::NodeId;
use onedrivefs::store::ParkKind;
use onedrivefs::vfs::{Filesystem, OpenFlags};
use sync_support::{Durable, Service};

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];

fn file(path: &str, content: &str) -> (String, Option<String>) {
    (path.into(), Some(content.into()))
}

fn refusal(status: u16, code: &str, inner: Option<&str>, after: bool) -> FaultAction {
    let (code, inner) = (Some(code.into()), inner.map(str::to_owned));
    FaultAction::Status { status, code, inner, retry_after: None, after }
}

fn fault(service: &Service, op: &str, skip: u32, count: Option<u32>, action: FaultAction) -> u64 {
    service.control.inject(Fault { method: None, path: None, op: Some(op.into()), skip, count, action })
}

/// 11 MiB: two fragments.
fn large(first: &str) -> String {
    let mut text = "0123456789abcdef".repeat(11 << 16);
    text.replace_range(..first.len(), first);
    text
}

fn contents(service: &Service) -> Vec<String> {
    service.tree().into_iter().filter_map(|(_, content)| content).collect()
}

// S92.
#[tokio::test(start_paused = true)]
async fn what_another_client_saves_at_the_very_end_of_our_upload_is_kept_beside_it() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("big", "base");
        let machine = service.quiet_machine().await;
        assert_eq!(machine.read("big").await.unwrap(), "base");
        let ours = large("ours");
        // The request that makes the bytes the file's is on its way when another client saves.
        fault(&service, "upload.commit", 0, Some(1), FaultAction::Delay { ms: 20_000 });
        machine.write("big", &ours).await;
        tokio::time::sleep(Duration::from_secs(12)).await;
        service.write_elsewhere("big", "theirs");
        machine.sync().await;
        let found = contents(&service);
        assert_eq!(found.len(), 2, "{flavour:?}: {:?}", machine.list("").await);
        assert!(found.contains(&"theirs".into()), "{flavour:?}");
        assert!(found.contains(&ours), "{flavour:?}");
        machine.look().await;
        assert_eq!(machine.list("").await.len(), 2);
    }
}

// S92.
#[tokio::test(start_paused = true)]
async fn what_another_client_saves_while_a_small_file_with_a_set_time_is_sent_is_kept_beside_it() {
    for flavour in FLAVOURS {
        for crash in [false, true] {
            let service = Service::new(flavour);
            service.write_elsewhere("small", "base");
            let machine = service.quiet_machine().await;
            assert_eq!(machine.read("small").await.unwrap(), "base");
            let after = crash;
            fault(&service, "upload.fragment", 0, Some(1), FaultAction::Delay { ms: 20_000 });
            machine.write("small", "ours").await;
            machine.set_mtime("small", 1_600_000_000).await.unwrap();
            tokio::time::sleep(Duration::from_secs(12)).await;
            service.write_elsewhere("small", "theirs, one");
            service.write_elsewhere("small", "theirs, two");
            let machine = if after {
                fault(&service, "versions", 0, None, FaultAction::Stall { after: false });
                tokio::time::sleep(Duration::from_secs(20)).await;
                machine.crash();
                service.control.clear_faults();
                service.quiet_machine().await
            } else {
                machine
            };
            machine.sync().await;
            let mut found = contents(&service);
            found.sort();
            assert_eq!(found, ["ours", "theirs, one", "theirs, two"], "{flavour:?} crash: {crash}");
            assert_eq!(service.control.content("small").unwrap(), "ours");
        }
    }
}

// S92.
#[tokio::test(start_paused = true)]
async fn a_tag_that_is_refused_without_a_change_holds_up_no_save_and_loses_no_other() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a", "base");
        let machine = service.quiet_machine().await;
        assert_eq!(machine.read("a").await.unwrap(), "base");
        service.control.inject(Fault {
            method: Some("PUT".into()),
            path: Some("content".into()),
            op: None,
            skip: 0,
            count: Some(3),
            action: refusal(412, "resourceModified", None, false),
        });
        service.control.inject(Fault {
            method: Some("PUT".into()),
            path: Some("content".into()),
            op: None,
            skip: 0,
            count: Some(1),
            action: FaultAction::Delay { ms: 20_000 },
        });
        machine.write("a", "ours").await;
        let sent = || service.control.requests().iter().filter(|record| record.method == "PUT").count();
        while sent() < 4 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        service.write_elsewhere("a", "theirs");
        machine.sync().await;
        let mut found = contents(&service);
        found.sort();
        assert_eq!(found, ["ours", "theirs"], "{flavour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_end_uploads_on_request_gets_them_without() {
    for flavour in FLAVOURS {
        for (status, code) in [(400, "invalidRequest"), (405, "notSupported"), (501, "notSupported")] {
            let service = Service::new(flavour);
            service.write_elsewhere("big", "base");
            let machine = service.quiet_machine().await;
            machine.read("big").await.unwrap();
            fault(&service, "upload.commit", 0, None, refusal(status, code, None, false));
            machine.write("big", &large("ours")).await;
            machine.sync().await;
            assert_eq!(service.tree(), [file("big", &large("ours"))], "{flavour:?} {status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_content_was_replaced_is_cancelled_before_the_next() {
    for flavour in FLAVOURS {
        for crash in [false, true] {
            let service = Service::new(flavour);
            let machine = service.quiet_machine().await;
            machine.write("big", &large("first")).await;
            // The line breaks in the middle of the upload.
            fault(&service, "upload.fragment", 1, None, FaultAction::Reset { after: false });
            tokio::time::sleep(Duration::from_secs(5)).await;
            let cut = service.control.cut();
            tokio::time::sleep(Duration::from_secs(300)).await;
            machine.write("big", &large("second")).await;
            let machine = if crash {
                machine.crash();
                service.control.clear_faults();
                service.quiet_machine().await
            } else {
                service.control.remove_fault(cut);
                service.control.clear_faults();
                machine
            };
            let began = tokio::time::Instant::now();
            machine.sync().await;
            assert!(began.elapsed() < Duration::from_secs(200), "{flavour:?}: {:?}", began.elapsed());
            assert_eq!(service.tree(), [file("big", &large("second"))], "{flavour:?}");
            let left = machine.engine.store().inspect(|tx| tx.sessions()).unwrap();
            assert!(left.is_empty(), "{flavour:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_session_of_a_file_that_was_deleted_is_cancelled() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.quiet_machine().await;
        machine.write("big", &large("first")).await;
        let failing = refusal(423, "resourceLocked", None, false);
        fault(&service, "upload.fragment", 1, None, failing);
        tokio::time::sleep(Duration::from_secs(5)).await;
        machine.unlink("big").await.unwrap();
        machine.sync().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(machine.engine.store().inspect(|tx| tx.sessions()).unwrap().is_empty(), "{flavour:?}");
        let log: Vec<_> = service.control.requests().into_iter().map(|r| (r.op, r.status)).collect();
        assert_eq!(service.requests("DELETE"), 1, "{flavour:?} {log:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_refused_for_an_unknown_session_says_so_and_goes_on_when_that_has_ended() {
    for flavour in [Flavour::Business, Flavour::DocumentLibrary] {
        let service = Service::new(flavour);
        let machine = service.quiet_machine().await;
        // The session is made, its address never arrives.
        fault(&service, "upload.create", 0, Some(1), FaultAction::Reset { after: true });
        machine.write("big", &large("ours")).await;
        machine.write("other", "not held up").await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(service.tree(), [file("other", "not held up")], "{flavour:?}");
        let waiting = machine.engine.status().await.unwrap().waiting;
        assert_eq!(waiting[0].reason, Some(ParkKind::Locked), "{flavour:?}: {waiting:?}");
        tokio::time::sleep(Duration::from_secs(20 * 60)).await;
        machine.sync().await;
        assert_eq!(service.tree(), [file("big", &large("ours")), file("other", "not held up")]);
    }
}

// S92.
#[tokio::test(start_paused = true)]
async fn what_another_client_makes_with_our_very_bytes_stays_when_our_upload_did_not_end() {
    for (flavour, op) in
        FLAVOURS.into_iter().flat_map(|flavour| ["upload.create", "upload.fragment"].map(|op| (flavour, op)))
    {
        let service = Service::new(flavour);
        let machine = service.quiet_machine().await;
        fault(&service, op, 0, None, FaultAction::Reset { after: false });
        fault(&service, "item.get", 0, None, FaultAction::Reset { after: false });
        fault(&service, "upload.status", 0, None, FaultAction::Reset { after: false });
        machine.write("x", "the same").await;
        machine.set_mtime("x", 1_600_000_000).await.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        machine.unlink("x").await.unwrap();
        service.write_elsewhere("x", "the same");
        service.control.clear_faults();
        machine.sync().await;
        machine.look().await;
        machine.sync().await;
        assert_eq!(service.tree(), [file("x", "the same")], "{flavour:?} {op}");
    }
}

// S92.
#[tokio::test(start_paused = true)]
async fn what_another_client_saves_with_our_very_bytes_over_what_we_made_and_unlinked_stays() {
    for (flavour, timed) in FLAVOURS.into_iter().flat_map(|flavour| [(flavour, false), (flavour, true)]) {
        let service = Service::new(flavour);
        let machine = service.quiet_machine().await;
        machine.write("other", "tells who we are").await;
        machine.sync().await;
        for op in ["upload.fragment", "content.put"] {
            fault(&service, op, 0, Some(1), FaultAction::Reset { after: true });
        }
        fault(&service, "item.get", 0, None, FaultAction::Reset { after: false });
        machine.write("x", "the same").await;
        if timed {
            machine.set_mtime("x", 1_600_000_000).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(contents(&service).contains(&"the same".into()), "{flavour:?}: it was made");
        machine.unlink("x").await.unwrap();
        service.write_elsewhere("x", "the same");
        service.control.clear_faults();
        machine.sync().await;
        machine.look().await;
        machine.sync().await;
        let tree = [file("other", "tells who we are"), file("x", "the same")];
        assert_eq!(service.tree(), tree, "{flavour:?} {timed}");
        assert_eq!(machine.list("").await, ["other", "x"], "{flavour:?} {timed}");
    }
}

// S92.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_made_without_an_answer_and_is_unlinked_here_goes_there_too() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.quiet_machine().await;
        // The last fragment makes the file and its session goes; nobody can look at the file.
        fault(&service, "upload.fragment", 0, Some(1), FaultAction::Reset { after: true });
        fault(&service, "item.get", 0, None, FaultAction::Reset { after: false });
        machine.write("x", "ours").await;
        machine.set_mtime("x", 1_600_000_000).await.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(service.tree(), [file("x", "ours")], "{flavour:?}");
        machine.unlink("x").await.unwrap();
        service.control.clear_faults();
        machine.sync().await;
        assert_eq!(service.tree(), [], "{flavour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_known_after_a_power_cut_before_a_byte_of_it_is_sent() {
    let service = Service::new(Flavour::Business);
    let durable = Durable::new();
    let machine = service.machine_of(|setup| setup.disk = Disk::with_hook(durable.clone())).await;
    machine.look().await;
    fault(&service, "upload.fragment", 0, None, FaultAction::Stall { after: false });
    machine.write("big", &large("ours")).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let store = durable.store();
    let content = store.staged().unwrap()[0];
    assert!(store.session(content).unwrap().is_some(), "its name could not be sent until it expires");
}

// S59.
#[tokio::test(start_paused = true)]
async fn every_answer_to_a_fragment_ends_in_one_whole_file_on_personal() {
    every_answer_ends_in_one_whole_file(Flavour::Personal, 0).await;
}

#[tokio::test(start_paused = true)]
async fn every_answer_to_a_fragment_ends_in_one_whole_file_on_business() {
    every_answer_ends_in_one_whole_file(Flavour::Business, 1).await;
}

#[tokio::test(start_paused = true)]
async fn every_answer_to_a_fragment_ends_in_one_whole_file_in_a_library() {
    every_answer_ends_in_one_whole_file(Flavour::DocumentLibrary, 2).await;
}

/// New and replaced, at the first and at the last fragment: each answer in one way, which `way` shifts.
async fn every_answer_ends_in_one_whole_file(flavour: Flavour, way: usize) {
    let answers = [
        refusal(400, "invalidRequest", Some("fragmentLengthMismatch"), false),
        refusal(400, "invalidRequest", Some("fragmentOutOfOrder"), false),
        refusal(401, "unauthenticated", Some("expiredToken"), false),
        refusal(404, "itemNotFound", Some("uploadSessionNotFound"), false),
        refusal(409, "conflict", None, false),
        refusal(413, "maxFragmentLengthExceeded", None, false),
        refusal(416, "invalidRange", Some("fragmentOverlap"), false),
        refusal(416, "invalidRange", Some("fragmentOverlap"), true),
        refusal(423, "accessDenied", None, false),
        refusal(429, "activityLimitReached", None, false),
        refusal(500, "generalException", None, false),
        refusal(503, "serviceNotAvailable", None, true),
        refusal(504, "generalException", None, true),
        refusal(507, "quotaLimitReached", None, false),
        FaultAction::Reset { after: true },
        FaultAction::Reset { after: false },
        FaultAction::EmptyBody,
        FaultAction::Html { status: 502 },
    ];
    for (number, answer) in answers.iter().enumerate() {
        let way = number + way;
        let (path, skip) = (["made", "replaced"][way % 2], (way / 2 % 2) as u32);
        let service = Service::new(flavour);
        service.write_elsewhere("replaced", "base");
        let machine = service.quiet_machine().await;
        machine.read("replaced").await.unwrap();
        fault(&service, "upload.fragment", skip, Some(3), answer.clone());
        let ours = large(path);
        machine.write(path, &ours).await;
        tokio::time::sleep(Duration::from_secs(900)).await;
        machine.sync().await;
        let right = service.control.content(path).is_some_and(|stored| stored == ours);
        assert!(right, "{answer:?} {path} {skip}: {:?}", machine.list("").await);
        let versions = service.item(path)["versions"].as_array().map(Vec::len);
        assert_eq!(versions, Some(usize::from(path == "replaced")), "{answer:?} {path} {skip}");
        assert_eq!(machine.list("").await.len(), if path == "made" { 2 } else { 1 });
    }
}

// S59.
#[tokio::test(start_paused = true)]
async fn a_crash_costs_no_more_than_the_fragment_that_was_on_its_way() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.quiet_machine().await;
        let content = "0123456789abcdef".repeat(6 << 20);
        machine.write("big", &content).await;
        fault(&service, "upload.fragment", 2, None, FaultAction::Stall { after: false });
        tokio::time::sleep(Duration::from_secs(20)).await;
        machine.crash();
        service.control.clear_faults();
        let before = sent_bytes(&service);
        service.control.reset_log();
        let again = service.machine().await;
        again.sync().await;
        assert!(service.control.content("big").unwrap() == content);
        // Two fragments had arrived, the third was on its way.
        let total = before + sent_bytes(&service);
        assert!(total <= content.len() as u64 + (61 << 20), "{flavour:?}: {total}");
        assert!(sent_bytes(&service) <= content.len() as u64 - (30 << 20), "{flavour:?}");
    }
}

fn sent_bytes(service: &Service) -> u64 {
    let fragments = service.control.requests().into_iter().filter(|record| record.op == "upload.fragment");
    fragments.filter_map(|record| record.content_length).sum()
}

#[tokio::test(start_paused = true)]
async fn several_large_files_are_sent_at_once() {
    let service = Service::new(Flavour::Business);
    let machine = service.quiet_machine().await;
    fault(&service, "upload.fragment", 0, None, FaultAction::Delay { ms: 60_000 });
    for name in ["a", "b", "c", "d"] {
        machine.write(name, &large(name)).await;
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(machine.engine.status().await.unwrap().uploads.len(), 4);
    machine.sync().await;
    assert_eq!(service.tree().len(), 4);
    let left = machine.engine.sync(NodeId::ROOT, None, |_| {}).await.unwrap();
    assert_eq!(left.pending, 0);
}

// S93.
#[tokio::test(start_paused = true)]
async fn a_synchronous_close_ends_with_the_reason_while_the_change_stays_queued() {
    for flavour in FLAVOURS {
        let cases = [
            (FaultAction::Stall { after: false }, libc::ETIMEDOUT),
            (refusal(429, "activityLimitReached", None, false), libc::ETIMEDOUT),
            (FaultAction::Reset { after: false }, libc::ENETUNREACH),
        ];
        for (action, errno) in cases {
            let service = Service::new(flavour);
            let limit = Duration::from_secs(5);
            let machine =
                service.machine_with(|engine, vfs| (engine.sync_timeout, vfs.sync) = (limit, true)).await;
            machine.look().await;
            let held = service.control.inject(Fault {
                method: Some("PUT".into()),
                path: None,
                op: None,
                skip: 0,
                count: None,
                action: action.clone(),
            });
            let flags = OpenFlags { write: true, truncate: true, ..OpenFlags::default() };
            let open = machine.open("a", flags).await.unwrap();
            machine.files.write(open.0, open.1, 0, "queued".into()).await.unwrap();
            let began = tokio::time::Instant::now();
            let refused = machine.close(open).await.unwrap_err();
            assert_eq!(refused.errno(), errno, "{flavour:?} {action:?}: {refused}");
            assert!(began.elapsed() < limit + Duration::from_secs(2), "{action:?}: {:?}", began.elapsed());
            service.control.remove_fault(held);
            service.control.release_stalls();
            machine.sync().await;
            assert_eq!(service.tree(), [file("a", "queued")], "{flavour:?} {action:?}");
        }
    }
}

// S93.
#[tokio::test(start_paused = true)]
async fn a_synchronous_close_waits_for_as_long_as_its_upload_moves() {
    let service = Service::new(Flavour::Business);
    let limit = Duration::from_secs(30);
    let machine = service.machine_with(|engine, vfs| (engine.sync_timeout, vfs.sync) = (limit, true)).await;
    machine.look().await;
    fault(&service, "upload.fragment", 0, None, FaultAction::Delay { ms: 20_000 });
    let began = tokio::time::Instant::now();
    machine.write("big", &large("slow")).await;
    assert!(began.elapsed() > limit, "{:?}", began.elapsed());
    assert_eq!(service.tree(), [file("big", &large("slow"))]);
}

// S36.
#[tokio::test(start_paused = true)]
async fn a_new_file_that_was_made_although_the_service_said_to_wait_is_not_shown_twice() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.quiet_machine().await;
        let wait = Some("30".into());
        let busy =
            FaultAction::Status { status: 503, code: None, inner: None, retry_after: wait, after: true };
        fault(&service, "upload.fragment", 0, Some(1), busy);
        machine.write("f", "mine").await;
        // A file with a set time goes in a session, whatever its size.
        machine.set_mtime("f", 1_700_000_000).await.expect("set");
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(service.tree(), [file("f", "mine")], "{flavour:?}");
        // Whoever comes next does not know that the service asked to wait.
        machine.crash();
        let machine = service.quiet_machine().await;
        assert_eq!(machine.list("").await, ["f"], "{flavour:?}");
        machine.sync().await;
        machine.look().await;
        assert_eq!(machine.list("").await, ["f"], "{flavour:?}");
        assert_eq!(service.tree(), [file("f", "mine")], "{flavour:?}");
    }
}
