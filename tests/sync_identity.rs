//! Ids that change form, items that are missing by their ids: nothing is deleted or made twice for it.

mod sync_support;

use std::time::Duration;

use onedrivefs::emulator::{Edit, Fault, FaultAction, Flavour, Resync};
use onedrivefs::model::Ino;
use onedrivefs::vfs::{Filesystem, OpenFlags};
use sync_support::{Machine, Service};

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];

/// Longer than the poll interval.
const ROUND: Duration = Duration::from_secs(61);

/// How the client comes to know that ids have changed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    /// By 404s alone.
    ByMissing,
    /// The service also asks to read the whole drive again.
    ByResync,
}

fn path(number: usize) -> String {
    format!("d{}/e/f{number}", number % 3)
}

/// A drive of 40 files in folders, read as far as `read` says.
async fn prepared(flavour: Flavour, read: usize) -> (Service, Machine) {
    let service = Service::new(flavour);
    for number in 0..40 {
        service.write_elsewhere(&path(number), &format!("content {number}"));
    }
    let machine = service.machine().await;
    machine.look().await;
    for number in 0..read {
        machine.read(&path(number)).await.unwrap();
    }
    (service, machine)
}

fn change_ids(service: &Service, told: Told) {
    service.control.change_item_ids();
    if told == Told::ByResync {
        service.control.delta_resync(Resync::Plain);
    }
    service.control.reset_log();
}

async fn nodes(machine: &Machine) -> Vec<Ino> {
    let mut found = Vec::new();
    for number in 0..40 {
        found.push(machine.find(&path(number)).await.unwrap());
    }
    found
}

/// Everything has gone to the service and everything was seen.
async fn settle(machine: &Machine) {
    machine.sync().await;
    tokio::time::sleep(ROUND).await;
    machine.sync().await;
    machine.look().await;
}

// S130.
#[tokio::test(start_paused = true)]
async fn clean_files_keep_their_nodes_when_all_ids_change() {
    for flavour in FLAVOURS {
        for told in [Told::ByMissing, Told::ByResync] {
            let (service, machine) = prepared(flavour, 5).await;
            let (before, tree) = (nodes(&machine).await, service.tree());
            change_ids(&service, told);
            // Those below 5 are cached, the others are fetched.
            for number in 0..40 {
                let content = machine.read(&path(number)).await.unwrap();
                assert_eq!(content, format!("content {number}"), "{flavour:?} {told:?}");
            }
            settle(&machine).await;
            assert_eq!(nodes(&machine).await, before, "{flavour:?} {told:?}");
            assert_eq!(machine.list("d0/e").await.len(), 14, "{flavour:?} {told:?}");
            assert_eq!(service.tree(), tree, "{flavour:?} {told:?}");
            for method in ["PUT", "POST", "PATCH", "DELETE"] {
                assert_eq!(service.requests(method), 0, "{flavour:?} {told:?}");
            }
        }
    }
}

/// Changes of every kind to what had other ids: at the end `check` holds them to account.
async fn change(machine: &Machine) {
    for number in 0..30 {
        machine.write(&path(number), &format!("edited {number}")).await;
    }
    machine.unlink(&path(30)).await.unwrap();
    machine.rename(&path(31), "d0/renamed").await.unwrap();
    machine.set_mtime(&path(32), 1_600_000_000).await.unwrap();
    machine.write("d1/e/new", "new").await;
    machine.mkdir("d2/made").await.unwrap();
}

fn check(service: &Service, ids: &[Option<String>], what: &str) {
    for (number, id) in ids.iter().enumerate().take(30) {
        assert_eq!(
            service.control.content(&path(number)).unwrap(),
            format!("edited {number}"),
            "{what} {number} {:?}",
            service.tree()
        );
        let versions = service.item(&path(number))["versions"].as_array().map(Vec::len);
        assert_eq!(versions, Some(1), "{what} {number}");
        assert_eq!(service.control.id_of(&path(number)), *id, "{what} {number}");
    }
    assert_eq!(service.control.id_of("d0/renamed"), ids[31], "{what}");
    assert_eq!(service.control.id_of(&path(30)), None, "{what}");
    assert!(service.item(&path(32))["mtime"].as_str().unwrap().starts_with("2020-09-13"), "{what}");
    for (number, id) in ids.iter().enumerate().skip(33) {
        assert_eq!(service.control.id_of(&path(number)), *id, "{what} {number}");
    }
    let files = service.tree().into_iter().filter(|(_, content)| content.is_some()).count();
    assert_eq!(files, 40, "{what}: {:?}", service.tree());
    assert!(service.control.id_of("d2/made").is_some(), "{what}");
}

fn ids(service: &Service) -> Vec<Option<String>> {
    (0..40).map(|number| service.control.id_of(&path(number))).collect()
}

// S130.
#[tokio::test(start_paused = true)]
async fn dirty_files_replace_the_same_items_when_all_ids_change() {
    for flavour in FLAVOURS {
        for told in [Told::ByMissing, Told::ByResync] {
            let what = format!("{flavour:?} {told:?}");
            let (service, machine) = prepared(flavour, 30).await;
            let before = nodes(&machine).await;
            change_ids(&service, told);
            change(&machine).await;
            settle(&machine).await;
            check(&service, &ids_after(&service), &what);
            let now = machine.find(&path(5)).await.unwrap();
            assert_eq!(now, before[5], "{what}");
            assert_eq!(machine.read(&path(5)).await.unwrap(), "edited 5", "{what}");
        }
    }
}

/// The ids as they are after the change of form, by the present places.
fn ids_after(service: &Service) -> Vec<Option<String>> {
    let mut found = ids(service);
    found[31] = service.control.id_of("d0/renamed");
    found
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_the_middle_of_a_change_of_ids_loses_and_doubles_nothing() {
    let moments = [(Told::ByMissing, 0, true), (Told::ByMissing, 40, false), (Told::ByResync, 90, true)];
    for flavour in FLAVOURS {
        for (told, skip, after) in moments {
            let what = format!("{flavour:?} {told:?} {skip} {after}");
            let (service, machine) = prepared(flavour, 30).await;
            // Nothing answers after so many requests, as if the machine had died then.
            let action = FaultAction::Stall { after };
            service.control.inject(Fault { method: None, path: None, op: None, skip, count: None, action });
            change_ids(&service, told);
            let mut wanted = ids(&service);
            wanted[30] = None;
            change(&machine).await;
            tokio::time::sleep(Duration::from_secs(15)).await;
            machine.crash();
            service.control.clear_faults();
            let again = service.machine().await;
            settle(&again).await;
            check(&service, &wanted, &what);
            assert_eq!(again.read(&path(7)).await.unwrap(), "edited 7", "{what}");
        }
    }
}

// S130.
#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_while_many_items_are_missing_by_their_ids() {
    for flavour in FLAVOURS {
        let (service, machine) = prepared(flavour, 0).await;
        change_ids(&service, Told::ByMissing);
        // No look at the drive comes through.
        let cut = service.control.inject(Fault {
            method: None,
            path: Some("/delta".into()),
            op: None,
            skip: 0,
            count: None,
            action: FaultAction::Reset { after: false },
        });
        for number in 0..30 {
            machine.read(&path(number)).await.unwrap();
        }
        machine.unlink(&path(35)).await.unwrap();
        tokio::time::sleep(ROUND).await;
        assert_eq!(service.requests("DELETE"), 0, "{flavour:?}");
        service.control.remove_fault(cut);
        settle(&machine).await;
        assert_eq!(service.control.id_of(&path(35)), None, "{flavour:?}");
        assert_eq!(machine.list("d0/e").await.len(), 14, "{flavour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_file_is_read_and_written_on_under_its_new_id() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let old = "abcdefgh".repeat(1 << 18);
        service.write_elsewhere("d/a.bin", &old);
        let machine = service.machine().await;
        machine.look().await;
        let flags = OpenFlags::READ_WRITE;
        let open = machine.open("d/a.bin", flags).await.unwrap();
        machine.files.write(open.0, open.1, 1_000_000, b"CHANGED".to_vec().into()).await.unwrap();
        change_ids(&service, Told::ByMissing);
        let id = service.control.id_of("d/a.bin");
        assert_eq!(machine.files.read(open.0, open.1, 0, 8).await.unwrap(), "abcdefgh");
        machine.close(open).await.unwrap();
        settle(&machine).await;
        let mut expected = old.into_bytes();
        expected[1_000_000..1_000_007].copy_from_slice(b"CHANGED");
        assert!(service.control.content("d/a.bin").unwrap() == expected, "{flavour:?}");
        assert_eq!(service.control.id_of("d/a.bin"), id, "{flavour:?}");
        assert_eq!(machine.list("d").await, ["a.bin"], "{flavour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_made_again_elsewhere_with_the_same_content_stays_the_same_node() {
    for flavour in FLAVOURS {
        let (service, machine) = prepared(flavour, 1).await;
        let before = nodes(&machine).await;
        service.edit(Edit::Delete { path: path(0) });
        service.write_elsewhere(&path(0), "content 0");
        machine.write(&path(0), "mine").await;
        machine.look().await;
        settle(&machine).await;
        assert_eq!(nodes(&machine).await, before, "{flavour:?}");
        assert_eq!(service.control.content(&path(0)).unwrap(), "mine", "{flavour:?}");
        assert_eq!(machine.list("d0/e").await.len(), 14, "{flavour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_folder_made_again_elsewhere_shows_what_is_in_it_and_nothing_else() {
    for flavour in FLAVOURS {
        for reports_descendants in [true, false] {
            let (service, machine) = prepared(flavour, 1).await;
            service.control.switch(|switches| switches.delta_reports_descendants = reports_descendants);
            service.edit(Edit::Delete { path: "d0".into() });
            service.write_elsewhere("d0/e/f0", "content 0");
            service.write_elsewhere("d0/other", "other");
            machine.look().await;
            settle(&machine).await;
            assert_eq!(machine.list("d0").await, ["e", "other"], "{flavour:?} {reports_descendants}");
            assert_eq!(machine.list("d0/e").await, ["f0"], "{flavour:?} {reports_descendants}");
            assert_eq!(machine.read("d0/e/f0").await.unwrap(), "content 0");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn many_files_deleted_elsewhere_are_gone_after_a_resync() {
    for flavour in FLAVOURS {
        let (service, machine) = prepared(flavour, 5).await;
        for number in 0..30 {
            service.edit(Edit::Delete { path: path(number) });
        }
        service.control.delta_resync(Resync::Plain);
        machine.look().await;
        settle(&machine).await;
        let left: usize =
            [machine.list("d0/e").await, machine.list("d1/e").await, machine.list("d2/e").await]
                .iter()
                .map(Vec::len)
                .sum();
        assert_eq!(left, 10, "{flavour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_whose_answer_was_lost_before_the_ids_changed_is_not_sent_again() {
    for flavour in FLAVOURS {
        let (service, machine) = prepared(flavour, 1).await;
        machine.write(&path(0), "sent before").await;
        machine.write("d1/new", "made before").await;
        service.control.inject(Fault {
            method: Some("PUT".into()),
            path: None,
            op: None,
            skip: 0,
            count: Some(2),
            action: FaultAction::Stall { after: true },
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(service.control.content("d1/new").unwrap(), "made before");
        machine.crash();
        service.control.clear_faults();
        change_ids(&service, Told::ByMissing);
        let again = service.machine().await;
        settle(&again).await;
        assert_eq!(service.requests("PUT"), 0, "{flavour:?}");
        assert_eq!(service.control.content(&path(0)).unwrap(), "sent before", "{flavour:?}");
        assert_eq!(again.read(&path(0)).await.unwrap(), "sent before", "{flavour:?}");
        assert_eq!(again.list("d1").await, ["e", "new"], "{flavour:?}");
        assert_eq!(service.tree().iter().filter(|(_, content)| content.is_some()).count(), 41);
    }
}
