//! Rows of the conflict table and rules of observing that concern moves, deletes and names, each on every flavour
//! (design 3 "What happens when both sides changed", "Observing").

mod sync_support;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use onedrivefs::clock::{Clock, SeededClock};
use onedrivefs::emulator::{Edit, EmulatorConfig, Fault, FaultAction, Flavour, Mark, Seed};
use onedrivefs::model::NodeId;
use onedrivefs::store::{Durability, ParkKind};
use sync_support::{Machine, Service};

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];

/// Longer than the poll interval.
const ROUND: Duration = Duration::from_secs(61);

/// A drive with `a.txt`, `d/b.txt` and an empty `x/`, on each flavour in turn; it was looked at and read.
async fn on_each(test: impl AsyncFn(&Service, &Machine)) {
    for flavour in FLAVOURS {
        on(Service::new(flavour), &test).await;
    }
}

async fn on(service: Service, test: &impl AsyncFn(&Service, &Machine)) {
    service.write_elsewhere("a.txt", "a");
    service.write_elsewhere("d/b.txt", "b");
    service.edit(Edit::Mkdir { path: "x".into() });
    let machine = service.machine().await;
    machine.look().await;
    assert_eq!(machine.read("a.txt").await.unwrap(), "a");
    assert_eq!(machine.read("d/b.txt").await.unwrap(), "b");
    // What is done here is older than ten minutes and does not count as our own any more.
    tokio::time::sleep(Duration::from_secs(700)).await;
    test(&service, &machine).await;
}

fn moved(service: &Service, path: &str, to: &str) {
    service.edit(Edit::Move { path: path.into(), to: to.into() });
}

fn deleted(service: &Service, path: &str) {
    service.edit(Edit::Delete { path: path.into() });
}

/// Files and folders, as `path` or `path=content`.
fn tree(service: &Service) -> Vec<String> {
    let shown = |(path, content): (String, Option<String>)| match content {
        Some(content) => format!("{path}={content}"),
        None => path,
    };
    service.tree().into_iter().map(shown).collect()
}

/// Everything is sent and seen; then both sides show the same.
async fn settled(service: &Service, machine: &Machine) {
    machine.sync().await;
    tokio::time::sleep(ROUND).await;
    machine.sync().await;
    let mut here = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for name in machine.list(&folder).await {
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            match machine.read(&path).await {
                Ok(content) => here.push(format!("{path}={content}")),
                Err(_) => {
                    here.push(path.clone());
                    folders.push(path);
                }
            }
        }
    }
    here.sort();
    let mut there = tree(service);
    there.sort();
    assert_eq!(here, there);
}

fn conflict_copies(service: &Service, stem: &str) -> Vec<String> {
    let copies = tree(service).into_iter().filter(|line| line.starts_with(&format!("{stem} (conflict box ")));
    copies.filter_map(|line| Some(line.split_once('=')?.1.to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn edited_here_and_replaced_by_another_item_there_keeps_both() {
    on_each(async |service, machine| {
        machine.write("a.txt", "mine").await;
        // Another client's safe save: a new item under the old name.
        service.write_elsewhere("new", "theirs");
        deleted(service, "a.txt");
        moved(service, "new", "a.txt");
        settled(service, machine).await;
        assert_eq!(service.control.content("a.txt").unwrap(), "theirs");
        assert_eq!(conflict_copies(service, "a"), ["mine"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn edited_here_and_only_touched_there_is_one_upload() {
    on_each(async |service, machine| {
        machine.write("a.txt", "mine").await;
        service.edit(Edit::Stir { path: "a.txt".into() });
        settled(service, machine).await;
        assert_eq!(tree(service), ["a.txt=mine", "d", "d/b.txt=b", "x"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_time_set_here_is_dropped_where_the_content_was_edited_there() {
    on_each(async |service, machine| {
        machine.set_mtime("a.txt", 1_000_000_000).await.unwrap();
        service.write_elsewhere("a.txt", "theirs");
        settled(service, machine).await;
        assert_eq!(tree(service), ["a.txt=theirs", "d", "d/b.txt=b", "x"]);
        assert!(!service.item("a.txt")["mtime"].as_str().unwrap().starts_with("2001"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn moved_here_and_edited_there_both_apply() {
    on_each(async |service, machine| {
        let id = service.control.id_of("a.txt");
        machine.rename("a.txt", "x/moved.txt").await.unwrap();
        service.write_elsewhere("a.txt", "theirs");
        settled(service, machine).await;
        assert_eq!(tree(service), ["d", "d/b.txt=b", "x", "x/moved.txt=theirs"]);
        assert_eq!(service.control.id_of("x/moved.txt"), id);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn moved_and_edited_here_and_deleted_there_is_created_at_our_place() {
    on_each(async |service, machine| {
        machine.rename("a.txt", "x/moved.txt").await.unwrap();
        machine.write("x/moved.txt", "mine").await;
        deleted(service, "a.txt");
        settled(service, machine).await;
        assert_eq!(tree(service), ["d", "d/b.txt=b", "x", "x/moved.txt=mine"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn renamed_onto_a_name_that_was_taken_there_gets_a_conflict_name() {
    on_each(async |service, machine| {
        let id = service.control.id_of("a.txt");
        machine.rename("a.txt", "taken.txt").await.unwrap();
        service.write_elsewhere("taken.txt", "theirs");
        settled(service, machine).await;
        assert_eq!(service.control.content("taken.txt").unwrap(), "theirs");
        assert_eq!(conflict_copies(service, "taken"), ["a"]);
        let copy = service.tree().into_iter().find(|(path, _)| path.starts_with("taken (")).unwrap().0;
        assert_eq!(service.control.id_of(&copy), id);
    })
    .await;
}

// S35.
#[tokio::test(start_paused = true)]
async fn a_conflict_copy_at_the_end_of_the_longest_path_is_shortened_and_sent() {
    on_each(async |service, machine| {
        // 396 characters.
        let (folder, name) = ("f".repeat(195), format!("{}.txt", "n".repeat(196)));
        let path = format!("{folder}/{name}");
        service.write_elsewhere(&path, "base");
        settled(service, machine).await;
        assert_eq!(machine.read(&path).await.unwrap(), "base");
        machine.write(&path, "mine").await;
        service.write_elsewhere(&path, "theirs");
        settled(service, machine).await;
        let contents: Vec<_> =
            service.tree().into_iter().filter(|(at, _)| at.starts_with(&format!("{folder}/"))).collect();
        assert_eq!(contents.len(), 2, "{contents:?}");
        let copy = contents.iter().find(|(at, _)| *at != path).expect("a copy");
        assert!(copy.0.contains("(conflict ") && copy.0.len() <= 400, "{copy:?}");
        assert_eq!(copy.1.as_deref(), Some("mine"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn deleted_here_and_moved_there_stays() {
    on_each(async |service, machine| {
        machine.unlink("a.txt").await.unwrap();
        moved(service, "a.txt", "x/a.txt");
        settled(service, machine).await;
        assert_eq!(tree(service), ["d", "d/b.txt=b", "x", "x/a.txt=a"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn deleted_on_both_sides_is_gone() {
    on_each(async |service, machine| {
        machine.unlink("a.txt").await.unwrap();
        machine.unlink("d/b.txt").await.unwrap();
        machine.rmdir("d").await.unwrap();
        deleted(service, "a.txt");
        deleted(service, "d");
        settled(service, machine).await;
        assert_eq!(tree(service), ["x"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_folder_moved_there_takes_the_edits_made_here_in_it_along() {
    on_each(async |service, machine| {
        machine.write("d/b.txt", "mine").await;
        machine.write("d/new.txt", "new").await;
        moved(service, "d", "x/e");
        settled(service, machine).await;
        assert_eq!(tree(service), ["a.txt=a", "x", "x/e", "x/e/b.txt=mine", "x/e/new.txt=new"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_file_moved_here_into_a_folder_that_was_deleted_there_is_not_lost() {
    on_each(async |service, machine| {
        machine.rename("a.txt", "d/a.txt").await.unwrap();
        machine.write("d/a.txt", "mine").await;
        deleted(service, "d");
        settled(service, machine).await;
        assert_eq!(tree(service), ["d", "d/a.txt=mine", "x"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pages_of_one_round_may_swap_two_names() {
    on_each(async |service, machine| {
        service.write_elsewhere("b.txt", "b");
        machine.look().await;
        let nodes = (machine.find("a.txt").await.unwrap(), machine.find("b.txt").await.unwrap());
        moved(service, "a.txt", "tmp");
        moved(service, "b.txt", "a.txt");
        // More than a page of other changes in between.
        for number in 0..1100 {
            service.write_elsewhere(&format!("x/{number}"), "");
        }
        moved(service, "tmp", "b.txt");
        machine.look().await;
        assert_eq!(machine.read("a.txt").await.unwrap(), "b");
        assert_eq!(machine.read("b.txt").await.unwrap(), "a");
        let now = (machine.find("b.txt").await.unwrap(), machine.find("a.txt").await.unwrap());
        assert_eq!(now, nodes);
        assert_eq!(machine.list("").await, ["a.txt", "b.txt", "d", "x"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_round_may_move_a_file_out_of_a_folder_that_it_deletes() {
    on_each(async |service, machine| {
        for first in [true, false] {
            let (folder, file) = (format!("gone{first}"), format!("kept{first}"));
            service.write_elsewhere(&format!("{folder}/{file}"), "kept");
            service.write_elsewhere(&format!("{folder}/other"), "gone");
            machine.look().await;
            let node = machine.find(&format!("{folder}/{file}")).await.unwrap();
            moved(service, &format!("{folder}/{file}"), &file);
            deleted(service, &folder);
            if !first {
                // Its entry comes after that of the folder.
                service.edit(Edit::Stir { path: file.clone() });
            }
            machine.look().await;
            assert_eq!(machine.find(&file).await.unwrap(), node);
            assert_eq!(machine.read(&file).await.unwrap(), "kept");
            assert!(machine.find(&folder).await.is_err());
        }
    })
    .await;
}

/// A folder's listing, or a page of changes, is answered late: with what was true when it was asked for.
async fn answered_late(flavour: Flavour, op: &str) -> (Service, Machine) {
    let service = Service::new(flavour);
    service.write_elsewhere("d/old", "old");
    let machine = service.machine().await;
    machine.look().await;
    let (op, action) = (Some(op.to_owned()), FaultAction::Stall { after: true });
    service.control.inject(Fault { method: None, path: None, op, skip: 0, count: Some(1), action });
    (service, machine)
}

#[tokio::test(start_paused = true)]
async fn a_page_of_changes_sent_before_our_create_and_answered_after_it_takes_nothing_away() {
    for flavour in FLAVOURS {
        let (service, machine) = answered_late(flavour, "delta").await;
        service.write_elsewhere("d/elsewhere", "e");
        machine.engine.refresh();
        tokio::time::sleep(Duration::from_secs(1)).await;
        machine.write("d/new", "new").await;
        machine.write("d/old", "edited").await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        service.control.release_stalls();
        settled(&service, &machine).await;
        assert_eq!(machine.list("d").await, ["elsewhere", "new", "old"], "{flavour:?}");
        assert_eq!(machine.read("d/old").await.unwrap(), "edited", "{flavour:?}");
    }
}

/// Says whether all of the folder is known.
fn set_listed(machine: &Machine, folder: NodeId, listed: bool) {
    let store = machine.engine.store();
    store.write(Durability::Process, |tx| tx.set_listed(folder, listed)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_listing_sent_before_our_create_and_answered_after_it_takes_nothing_back() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        for name in ["deleted", "edited", "left"] {
            service.write_elsewhere(&format!("d/{name}"), "old");
        }
        let machine = service.machine().await;
        machine.look().await;
        let folder = machine.engine.store().child(NodeId::ROOT, "d").unwrap().unwrap().id;
        let (op, action) = (Some("children.list".to_owned()), FaultAction::Stall { after: true });
        service.control.inject(Fault { method: None, path: None, op, skip: 0, count: Some(1), action });
        set_listed(&machine, folder, false);
        let list = machine.engine.ensure_listed(folder);
        let work = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            set_listed(&machine, folder, true);
            machine.write("d/new", "new").await;
            machine.unlink("d/deleted").await.unwrap();
            machine.write("d/edited", "mine").await;
            machine.sync().await;
            set_listed(&machine, folder, false);
            service.control.release_stalls();
        };
        let (listed, ()) = tokio::join!(list, work);
        listed.unwrap();
        let asked = service.control.counts().get("children.list").copied();
        assert_eq!(asked, Some(1), "the late answer is the one that was taken: {flavour:?}");
        assert_eq!(machine.list("d").await, ["edited", "left", "new"], "{flavour:?}");
        assert_eq!(machine.read("d/edited").await.unwrap(), "mine", "{flavour:?}");
        settled(&service, &machine).await;
        assert_eq!(service.control.content("d/edited").unwrap(), "mine", "{flavour:?}");
        assert_eq!(service.control.content("d/new").unwrap(), "new", "{flavour:?}");
    }
}

// S178.
#[tokio::test(start_paused = true)]
async fn a_listing_that_takes_longer_than_a_program_waits_goes_on_for_the_next_one() {
    let seed = Seed::Synthetic { files: 5000, per_folder: 5000, size: 1 };
    let clock = Arc::new(SeededClock::with_seed(1));
    let config = EmulatorConfig { seed, clock: clock.clone(), ..EmulatorConfig::default() };
    let service = Service::of(config, clock, tempfile::tempdir().unwrap());
    let (op, action) = (Some("delta".to_owned()), FaultAction::Stall { after: false });
    service.control.inject(Fault { method: None, path: None, op, skip: 0, count: None, action });
    let machine = service.machine().await;
    let folder = "group 00000/folder 000000";
    machine.find(folder).await.unwrap();
    service.control.reset_log();
    service.control.set_latency(Duration::from_secs(5));
    let asked = || service.control.counts().get("children.list").copied();
    let folder = machine.find(folder).await.unwrap().node();
    let patience = Duration::from_secs(20);
    let first = tokio::time::timeout(patience, machine.engine.ensure_listed(folder)).await;
    assert!(first.is_err(), "its pages take longer");
    let second = tokio::time::timeout(patience, machine.engine.ensure_listed(folder)).await;
    second.expect("the rest is short").unwrap();
    let pages = 5000u64.div_ceil(999);
    assert_eq!(asked(), Some(pages), "no page was asked for twice");
    assert_eq!(machine.list("group 00000/folder 000000").await.len(), 5000);
}

#[tokio::test(start_paused = true)]
async fn an_edit_in_a_folder_that_became_read_only_waits_and_is_sent_when_it_may() {
    on_each(async |service, machine| {
        let action = FaultAction::status(403, "accessDenied");
        let method = Some("PUT".to_owned());
        let fault = Fault { method, path: None, op: None, skip: 0, count: None, action };
        let number = service.control.inject(fault);
        machine.write("d/b.txt", "mine").await;
        machine.write("d/new.txt", "new").await;
        tokio::time::sleep(ROUND).await;
        assert_eq!(tree(service), ["a.txt=a", "d", "d/b.txt=b", "x"]);
        let status = machine.engine.status().await.unwrap();
        assert_eq!((status.pending, status.parked), (2, 2));
        assert_eq!(status.waiting[0].reason, Some(ParkKind::Permission));
        assert_eq!(machine.read("d/b.txt").await.unwrap(), "mine");
        service.control.remove_fault(number);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        settled(service, machine).await;
        assert_eq!(tree(service), ["a.txt=a", "d", "d/b.txt=mine", "d/new.txt=new", "x"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_of_the_service_that_is_hours_away_from_ours_changes_nothing() {
    for flavour in FLAVOURS {
        for hours in [-30i64, 30] {
            let ours = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
            let skew = Duration::from_secs(hours.unsigned_abs() * 3600);
            let theirs = if hours < 0 { ours - skew } else { ours + skew };
            let clock: Arc<dyn Clock> = Arc::new(SeededClock::new(theirs, 2));
            let config = EmulatorConfig { flavour, clock, ..EmulatorConfig::default() };
            let here: Arc<dyn Clock> = Arc::new(SeededClock::new(ours, 1));
            let service = Service::of(config, here, tempfile::tempdir().unwrap());
            let test = async |service: &Service, machine: &Machine| {
                let ids = (service.control.id_of("a.txt"), service.control.id_of("d/b.txt"));
                machine.write("a.txt", "edited").await;
                machine.write("new.txt", "new").await;
                machine.sync().await;
                // Saved by a new file renamed over, moved aside, deleted, and edited there meanwhile.
                machine.write("b.tmp", "saved").await;
                machine.rename("b.tmp", "d/b.txt").await.unwrap();
                machine.rename("a.txt", "a.txt~").await.unwrap();
                machine.write("a.txt", "saved too").await;
                machine.unlink("a.txt~").await.unwrap();
                machine.rename("new.txt", "x/new.txt").await.unwrap();
                machine.sync().await;
                service.write_elsewhere("a.txt", "theirs");
                machine.look().await;
                settled(service, machine).await;
                assert_eq!(tree(service), ["a.txt=theirs", "d", "d/b.txt=saved", "x", "x/new.txt=new"]);
                assert_eq!((service.control.id_of("a.txt"), service.control.id_of("d/b.txt")), ids);
            };
            on(service, &test).await;
        }
    }
}

/// What is unsent is kept, says that access is lost, and is nowhere else.
async fn is_parked_as_lost(service: &Service, machine: &Machine, unsent: u64) {
    tokio::time::sleep(ROUND).await;
    tokio::time::sleep(ROUND).await;
    assert_eq!(tree(service), ["a.txt=a", "d", "d/b.txt=b", "x"]);
    let status = machine.engine.status().await.unwrap();
    let reasons: Vec<_> =
        status.waiting.iter().map(|waiting| (waiting.path.clone(), waiting.reason)).collect();
    assert_eq!((status.pending, status.parked), (unsent, unsent), "{reasons:?}");
    assert!(reasons.iter().all(|(_, reason)| *reason == Some(ParkKind::AccessLost)), "{reasons:?}");
    assert_eq!(machine.read("d/b.txt").await.unwrap(), "mine");
}

// S134.
#[tokio::test(start_paused = true)]
async fn what_is_unsent_in_a_folder_whose_access_is_lost_is_parked_and_made_nowhere_else() {
    on_each(async |service, machine| {
        for edited_before in [true, false] {
            let lost = |on| service.control.mark("d", Mark::NoAccess(on)).unwrap();
            if edited_before {
                machine.write("d/b.txt", "mine").await;
                machine.write("d/new.txt", "new").await;
            }
            lost(true);
            if !edited_before {
                machine.write("d/b.txt", "mine").await;
                machine.write("d/new.txt", "new").await;
            }
            is_parked_as_lost(service, machine, 2).await;
            lost(false);
            tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
            settled(service, machine).await;
            assert_eq!(tree(service), ["a.txt=a", "d", "d/b.txt=mine", "d/new.txt=new", "x"]);
            machine.write("d/b.txt", "b").await;
            machine.unlink("d/new.txt").await.unwrap();
            settled(service, machine).await;
        }
    })
    .await;
}

// S134.
#[tokio::test(start_paused = true)]
async fn what_is_unsent_in_a_drive_that_is_gone_is_parked() {
    on_each(async |service, machine| {
        service.control.mark("", Mark::NoAccess(true)).unwrap();
        machine.write("d/b.txt", "mine").await;
        machine.mkdir("made").await.unwrap();
        is_parked_as_lost(service, machine, 2).await;
        assert_eq!(machine.list("").await, ["a.txt", "d", "made", "x"]);
        service.control.mark("", Mark::NoAccess(false)).unwrap();
        tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
        settled(service, machine).await;
        assert_eq!(tree(service), ["a.txt=a", "d", "d/b.txt=mine", "made", "x"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_the_service_rewrites_at_once_is_taken_over_on_every_flavour_that_does() {
    use onedrivefs::emulator::Rewrite;
    on_each(async |service, machine| {
        service.control.switch(|switches| switches.rewrite = Rewrite::AtOnce);
        service.control.reset_log();
        machine.write("letter.docx", "what a word processor wrote").await;
        settled(service, machine).await;
        tokio::time::sleep(Duration::from_secs(700)).await;
        settled(service, machine).await;
        assert_eq!(service.requests("PUT") + service.requests("POST"), 1);
    })
    .await;
}
