//! What the commands show and settle: conflict copies, parked changes, and what waits behind them.

mod sync_support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use onedrivefs::emulator::{Edit, Fault, FaultAction, Flavour, LockShape, Mark};
use onedrivefs::engine::{ConflictCopy, CopyState, Keep, SettleError, Waiting};
use onedrivefs::model::NodeId;
use onedrivefs::store::{ConflictCause, ParkKind};
use onedrivefs::vfs::OpenFlags;
use sync_support::{Machine, Service};

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];

impl Machine {
    async fn conflicts(&self) -> Vec<ConflictCopy> {
        self.engine.conflicts(NodeId::ROOT).await.unwrap()
    }

    async fn settle(&self, path: &str, keep: Keep) -> Result<(), SettleError> {
        let node = self.find(path).await.expect("the file").node();
        self.engine.settle_copy(node, keep).await
    }

    async fn waiting(&self) -> Vec<Waiting> {
        self.engine.status().await.unwrap().waiting
    }

    /// Sends what can be sent; answers what cannot.
    async fn drain(&self) -> Vec<Waiting> {
        let left = self.engine.sync(NodeId::ROOT, Some(Duration::from_secs(50)), |_| {}).await;
        left.expect("nothing is waited for that is parked, or waits for what is");
        self.waiting().await
    }
}

/// `path` is edited here and elsewhere; answers the copy, which is sent.
async fn conflict(service: &Service, machine: &Machine, path: &str, ours: &str, theirs: &str) -> PathBuf {
    machine.look().await;
    machine.write(path, ours).await;
    service.write_elsewhere(path, theirs);
    machine.look().await;
    machine.sync().await;
    let found = machine.conflicts().await;
    found.last().expect("a conflict copy").path.clone()
}

fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

// S68.
#[tokio::test(start_paused = true)]
async fn a_conflict_copy_is_listed_with_what_it_stands_beside_until_it_is_deleted() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/a.txt", "base");
        let machine = service.machine().await;
        let copy = conflict(&service, &machine, "d/a.txt", "ours", "theirs, longer").await;
        let found = machine.conflicts().await;
        assert_eq!(found.len(), 1);
        let one = &found[0];
        assert_eq!((one.beside.as_path(), one.host.as_str()), ("d/a.txt".as_ref(), "box"));
        assert_eq!((one.size, one.beside_size, &one.state), (4, 14, &CopyState::Sent));
        assert_eq!(one.cause, ConflictCause::BothChanged);
        // It survives a restart, and renames and moves of either file.
        machine.crash();
        let machine = service.machine().await;
        machine.rename(name(&copy), "elsewhere.txt").await.unwrap();
        machine.rename("d/a.txt", "d/b.txt").await.unwrap();
        machine.sync().await;
        let found = machine.conflicts().await;
        assert_eq!(found[0].path, PathBuf::from("elsewhere.txt"));
        assert_eq!(found[0].beside, PathBuf::from("d/b.txt"));
        // An editor that saves by rename over either changes neither.
        for path in ["elsewhere.txt", "d/b.txt"] {
            machine.write("tmp", "saved").await;
            machine.rename("tmp", path).await.unwrap();
        }
        machine.sync().await;
        assert_eq!(machine.conflicts().await.len(), 1, "{flavour:?}");
        machine.unlink("elsewhere.txt").await.unwrap();
        assert!(machine.conflicts().await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_conflict_vanishes_from_the_list_when_the_file_beside_it_is_deleted() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a.txt", "base");
    let machine = service.machine().await;
    conflict(&service, &machine, "a.txt", "ours", "theirs").await;
    service.edit(Edit::Delete { path: "a.txt".into() });
    machine.look().await;
    assert!(machine.conflicts().await.is_empty());
    assert_eq!(machine.list("").await.len(), 1, "the copy is a file like any other");
}

#[tokio::test(start_paused = true)]
async fn a_conflict_survives_that_the_ids_of_the_drive_change_form() {
    let service = Service::new(Flavour::Personal);
    service.write_elsewhere("a.txt", "base");
    let machine = service.machine().await;
    conflict(&service, &machine, "a.txt", "ours", "theirs").await;
    let before = service.control.id_of("a.txt");
    service.control.migrate_personal();
    for _ in 0..3 {
        machine.look().await;
    }
    machine.sync().await;
    assert_ne!(service.control.id_of("a.txt"), before);
    assert_eq!(machine.conflicts().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_only_looks_like_that_of_a_conflict_copy_is_none() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine().await;
    machine.write("a.txt", "x").await;
    machine.write("a (conflict box 2026-03-01 081530).txt", "y").await;
    machine.sync().await;
    assert!(machine.conflicts().await.is_empty());
    let refused = machine.settle("a (conflict box 2026-03-01 081530).txt", Keep::Remote).await;
    assert!(matches!(refused, Err(SettleError::NoConflict)), "{refused:?}");
}

// S69.
#[tokio::test(start_paused = true)]
async fn keep_local_is_one_content_replace_of_the_files_item() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a.txt", "base");
        let machine = service.machine().await;
        let copy = conflict(&service, &machine, "a.txt", "ours", "theirs").await;
        let (id, versions) = (service.control.id_of("a.txt"), versions(&service, "a.txt"));
        service.control.reset_log();
        machine.settle(name(&copy), Keep::Local).await.unwrap();
        assert_eq!(machine.read("a.txt").await.unwrap(), "ours");
        machine.sync().await;
        assert_eq!(service.tree(), [("a.txt".into(), Some("ours".into()))]);
        assert_eq!(service.control.id_of("a.txt"), id, "{flavour:?}: the item stays");
        assert_eq!(self::versions(&service, "a.txt"), versions + 1, "{flavour:?}");
        assert_eq!((service.requests("PUT"), service.requests("DELETE")), (1, 1), "{flavour:?}");
        assert!(machine.conflicts().await.is_empty());
    }
}

fn versions(service: &Service, path: &str) -> usize {
    service.item(path)["versions"].as_array().map_or(0, Vec::len)
}

#[tokio::test(start_paused = true)]
async fn keep_local_of_a_copy_that_is_not_sent_yet_sends_it_once() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a.txt", "base");
    let machine = service.machine().await;
    machine.look().await;
    machine.write("a.txt", "ours").await;
    service.write_elsewhere("a.txt", "theirs");
    machine.look().await;
    while machine.conflicts().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let copy = machine.conflicts().await[0].path.clone();
    machine.settle("a.txt", Keep::Local).await.unwrap();
    assert!(machine.find(name(&copy)).await.is_err());
    machine.sync().await;
    assert_eq!(service.tree(), [("a.txt".into(), Some("ours".into()))]);
}

#[tokio::test(start_paused = true)]
async fn keep_local_does_not_overwrite_what_changed_after_it_was_shown() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a.txt", "base");
        let machine = service.machine().await;
        let copy = conflict(&service, &machine, "a.txt", "ours", "theirs").await;
        service.write_elsewhere("a.txt", "theirs again");
        machine.settle(name(&copy), Keep::Local).await.unwrap();
        machine.sync().await;
        assert_eq!(service.control.content("a.txt").unwrap(), "theirs again", "{flavour:?}");
        let left = machine.conflicts().await;
        assert_eq!(left.len(), 1, "{flavour:?}");
        assert_eq!(service.control.content(name(&left[0].path)).unwrap(), "ours", "{flavour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn keep_remote_removes_a_copy_that_was_sent_and_no_other() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a.txt", "base");
        let machine = service.machine().await;
        let copy = conflict(&service, &machine, "a.txt", "ours", "theirs").await;
        machine.write(name(&copy), "ours, edited").await;
        let refused = machine.settle(name(&copy), Keep::Remote).await;
        assert!(matches!(refused, Err(SettleError::OnlyHere)), "{refused:?}");
        assert_eq!(machine.read(name(&copy)).await.unwrap(), "ours, edited");
        machine.sync().await;
        machine.settle(name(&copy), Keep::Remote).await.unwrap();
        machine.sync().await;
        assert_eq!(service.tree(), [("a.txt".into(), Some("theirs".into()))], "{flavour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn keep_both_forgets_the_conflict_and_leaves_both_files() {
    let service = Service::new(Flavour::Personal);
    service.write_elsewhere("a.txt", "base");
    let machine = service.machine().await;
    let copy = conflict(&service, &machine, "a.txt", "ours", "theirs").await;
    machine.settle(name(&copy), Keep::Both).await.unwrap();
    assert!(machine.conflicts().await.is_empty());
    machine.sync().await;
    assert_eq!(service.tree().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_program_has_open_is_not_settled() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a.txt", "base");
    let machine = service.machine().await;
    let copy = conflict(&service, &machine, "a.txt", "ours", "theirs").await;
    let open = machine.open("a.txt", OpenFlags::READ).await.unwrap();
    let refused = machine.settle(name(&copy), Keep::Local).await;
    assert!(matches!(refused, Err(SettleError::Open(_))), "{refused:?}");
    machine.close(open).await.unwrap();
    machine.settle(name(&copy), Keep::Local).await.unwrap();
}

// S35.
#[tokio::test(start_paused = true)]
async fn conflict_copies_of_one_second_do_not_overwrite_each_other() {
    for flavour in FLAVOURS {
        // At the limit of a name's length only the number tells them apart.
        for path in ["a.txt".to_owned(), format!("{}.txt", "x".repeat(251))] {
            let service = Service::new(flavour);
            service.write_elsewhere(&path, "base");
            // The clock of the names stands still: every copy is of the same second.
            let machine = service.machine().await;
            for round in 0..3 {
                machine.look().await;
                machine.write(&path, &format!("ours {round}")).await;
                service.write_elsewhere(&path, &format!("theirs {round}"));
                machine.look().await;
                machine.sync().await;
            }
            let found = machine.conflicts().await;
            assert_eq!(found.len(), 3, "{flavour:?}");
            let mut contents: Vec<_> =
                found.iter().filter_map(|copy| service.control.content(name(&copy.path))).collect();
            contents.sort();
            assert_eq!(contents, ["ours 0", "ours 1", "ours 2"], "{flavour:?}");
            let several = machine.settle(&path, Keep::Local).await;
            assert!(matches!(several, Err(SettleError::Several(paths)) if paths.len() == 3));
        }
    }
}

// S35. The name of the copy is taken on the service by something that is not known here yet.
#[tokio::test(start_paused = true)]
async fn a_conflict_copy_whose_name_is_taken_on_the_service_gets_another_and_stays_one() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a.txt", "base");
    let machine = service.machine().await;
    machine.look().await;
    let unsent = cut_writes(&service);
    machine.write("a.txt", "ours").await;
    service.write_elsewhere("a.txt", "theirs");
    machine.look().await;
    while machine.conflicts().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let first = machine.conflicts().await[0].path.clone();
    service.write_elsewhere(name(&first), "a stranger's");
    service.control.remove_fault(unsent);
    machine.sync().await;
    let found = machine.conflicts().await;
    assert_eq!(found.len(), 1);
    assert_ne!(found[0].path, first);
    assert_eq!(found[0].beside, PathBuf::from("a.txt"), "the copy is still that of what it was");
    assert_eq!(service.control.content(name(&found[0].path)).unwrap(), "ours");
    assert_eq!(service.control.content(name(&first)).unwrap(), "a stranger's");
}

fn cut_writes(service: &Service) -> u64 {
    refuse(service, "PUT", None, 503, "serviceNotAvailable")
}

fn refuse(service: &Service, method: &str, path: Option<&str>, status: u16, code: &str) -> u64 {
    service.control.inject(Fault {
        method: Some(method.into()),
        path: path.map(Into::into),
        op: None,
        skip: 0,
        count: None,
        action: FaultAction::status(status, code),
    })
}

// S8, S70.
#[tokio::test(start_paused = true)]
async fn every_reason_for_parking_is_kept_named_and_gone_when_its_cause_is() {
    let reasons = [
        (507, "quotaLimitReached", ParkKind::Quota),
        (403, "accessDenied", ParkKind::Permission),
        (400, "nameContainsInvalidCharacters", ParkKind::Name),
        (400, "pathIsTooLong", ParkKind::Name),
        (423, "resourceLocked", ParkKind::Locked),
        (423, "accessDenied", ParkKind::Locked),
        (413, "maxFileSizeExceeded", ParkKind::TooLarge),
        (403, "malwareDetected", ParkKind::Malware),
    ];
    for flavour in FLAVOURS {
        for (status, code, kind) in reasons {
            let service = Service::new(flavour);
            let machine = service.machine().await;
            let fault = refuse(&service, "PUT", Some("held"), status, code);
            if kind == ParkKind::Quota {
                service.control.set_quota(6);
            }
            machine.write("held.txt", "kept").await;
            machine.write("other.txt", "goes").await;
            let waiting = machine.drain().await;
            assert_eq!(waiting.len(), 1, "{flavour:?} {code}: only what is refused waits");
            assert_eq!((waiting[0].path.as_str(), waiting[0].reason), ("held.txt", Some(kind)), "{code}");
            // It survives a restart, and is read as it was written.
            machine.crash();
            let machine = service.machine().await;
            assert_eq!(machine.drain().await[0].reason, Some(kind), "{code}");
            assert_eq!(machine.read("held.txt").await.unwrap(), "kept");
            service.control.remove_fault(fault);
            service.control.set_quota(1 << 30);
            let held = machine.find("held.txt").await.unwrap().node();
            assert_eq!(machine.engine.retry_parked(held).await.unwrap(), 1, "{code}");
            machine.sync().await;
            assert_eq!(service.control.content("held.txt").unwrap(), "kept", "{flavour:?} {code}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn retry_of_a_path_leaves_what_is_elsewhere_alone() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine().await;
    refuse(&service, "PUT", None, 403, "accessDenied");
    machine.mkdir("d").await.unwrap();
    machine.write("d/a", "x").await;
    machine.write("b", "y").await;
    assert_eq!(machine.drain().await.len(), 2);
    let folder = machine.find("d").await.unwrap().node();
    assert_eq!(machine.engine.retry_parked(folder).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_depends_on_a_parked_change_waits_behind_it_and_nothing_else_does() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.look().await;
        refuse(&service, "POST", Some("children"), 403, "accessDenied");
        machine.mkdir("new").await.unwrap();
        machine.mkdir("new/sub").await.unwrap();
        machine.write("new/sub/a.txt", "x").await;
        machine.write("free.txt", "y").await;
        let waiting = machine.drain().await;
        let shown: Vec<_> =
            waiting.iter().map(|change| (change.path.as_str(), change.behind.as_deref())).collect();
        let expected = [("new", None), ("new/sub", Some("new")), ("new/sub/a.txt", Some("new"))];
        assert_eq!(shown, expected, "{flavour:?}");
        assert_eq!(service.control.content("free.txt").unwrap(), "y");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_a_parked_change_holds_is_waited_for() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a.txt", "old");
    let machine = service.machine().await;
    machine.look().await;
    refuse(&service, "PATCH", None, 403, "accessDenied");
    machine.rename("a.txt", "b.txt").await.unwrap();
    machine.mkdir("a.txt").await.unwrap();
    let waiting = machine.drain().await;
    let shown: Vec<_> =
        waiting.iter().map(|change| (change.path.as_str(), change.behind.as_deref())).collect();
    assert_eq!(shown, [("b.txt", None), ("a.txt", Some("b.txt"))]);
}

// S71.
#[tokio::test(start_paused = true)]
async fn deletes_overtake_uploads_that_wait_for_room_and_make_it() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("large", &"x".repeat(100_000));
        service.control.set_quota(110_000);
        let machine = service.machine().await;
        machine.look().await;
        machine.write("wanted", &"y".repeat(50_000)).await;
        let waiting = machine.drain().await;
        assert_eq!(waiting[0].reason, Some(ParkKind::Quota), "{flavour:?}");
        machine.unlink("large").await.unwrap();
        if flavour != Flavour::Personal {
            // There the recycle bin counts too.
            service.control.set_quota(1_000_000);
        }
        let before = tokio::time::Instant::now();
        while !machine.waiting().await.is_empty() {
            assert!(before.elapsed() < Duration::from_secs(30), "{flavour:?}: {:?}", machine.waiting().await);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(service.control.content("wanted").is_some(), "{flavour:?}");
        assert!(service.control.content("large").is_none(), "{flavour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_locked_or_checked_out_is_sent_once_it_is_free() {
    let marks = [
        (Mark::Lock(Some(LockShape::EditedByAnother)), Mark::Lock(None)),
        (Mark::CheckedOut(true), Mark::CheckedOut(false)),
    ];
    for (held, free) in marks {
        let service = Service::new(Flavour::DocumentLibrary);
        service.write_elsewhere("a.txt", "base");
        let machine = service.machine().await;
        machine.look().await;
        service.control.mark("a.txt", held).unwrap();
        machine.write("a.txt", "ours").await;
        assert_eq!(machine.drain().await[0].reason, Some(ParkKind::Locked), "{held:?}");
        service.control.mark("a.txt", free).unwrap();
        // Without a word of ours.
        tokio::time::sleep(Duration::from_secs(310)).await;
        assert_eq!(service.control.content("a.txt").unwrap(), "ours", "{held:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn refresh_returns_when_what_others_changed_is_visible() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine().await;
    machine.look().await;
    service.write_elsewhere("a.txt", "theirs");
    machine.engine.look_now().await.unwrap();
    assert_eq!(machine.list("").await, ["a.txt"]);
    let cut = service.control.cut();
    assert!(machine.engine.look_now().await.is_err());
    service.control.remove_fault(cut);
    machine.engine.look_now().await.unwrap();
}

// S173.
#[tokio::test(start_paused = true)]
async fn status_tells_how_far_the_first_reading_of_the_drive_is_also_after_a_restart() {
    // As many entries as the service has on a page.
    const PAGE: u64 = 200;
    let service = Service::new(Flavour::Business);
    for n in 0..4 * PAGE {
        service.write_elsewhere(&format!("{}/{n}", n / 500), "0123456789");
    }
    let stall = |skip| {
        let (op, action) = (Some("delta".into()), FaultAction::Stall { after: false });
        service.control.inject(Fault { method: None, path: None, op, skip, count: None, action });
    };
    stall(1);
    let machine = service.machine().await;
    let read = async |machine: &Machine, items: u64| {
        for _ in 0..600 {
            let status = machine.engine.status().await.unwrap();
            let reading = status.reading.expect("it is under way");
            if reading.items >= items {
                assert!(reading.items.abs_diff(status.items) <= 2, "{reading:?}, {} are known", status.items);
                return reading;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{:?}", machine.engine.status().await.unwrap().reading);
    };
    read(&machine, PAGE).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let reading = read(&machine, PAGE).await;
    let rate = reading.items_per_second.expect("ten seconds are enough to tell");
    assert!(rate > 5.0 && rate < 100.0, "{rate}");
    let estimate = reading.estimate.expect("the drive says what it uses");
    assert!((0.23..0.27).contains(&estimate.part), "{estimate:?}");
    assert!((720..880).contains(&estimate.items), "{estimate:?}");
    assert!(estimate.left.is_some_and(|left| left > Duration::from_secs(20)), "{estimate:?}");
    machine.crash();
    service.control.clear_faults();
    service.control.release_stalls();
    stall(1);
    let machine = service.machine().await;
    let reading = read(&machine, 2 * PAGE).await;
    let part = reading.estimate.expect("as before").part;
    assert!((part - reading.items as f64 / (4 * PAGE) as f64).abs() < 0.03, "{reading:?}");
    service.control.clear_faults();
    service.control.release_stalls();
    machine.look().await;
    assert_eq!(machine.engine.status().await.unwrap().reading, None);
}
