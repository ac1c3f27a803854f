//! Mass deletion guard: what no program unlinked in the tree as it is waits for a confirmation.

mod sync_support;

use std::time::Duration;

use onedrivefs::emulator::{Flavour, Resync};
use onedrivefs::model::NodeId;
use onedrivefs::store::ParkKind;
use sync_support::{Machine, Service};

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];

/// Longer than the poll interval.
const ROUND: Duration = Duration::from_secs(61);
const FILES: usize = 12;

fn path(number: usize) -> String {
    format!("d{}/f{number}", number % 2)
}

/// Twelve files in two folders, and many more beside; at most `above` deletes go without a confirmation.
async fn prepared(flavour: Flavour, above: u64) -> (Service, Machine) {
    let service = Service::new(flavour);
    for number in 0..FILES {
        service.write_elsewhere(&path(number), &format!("content {number}"));
    }
    for number in 0..30 {
        service.write_elsewhere(&format!("other/{number}"), "x");
    }
    let machine = service.machine_with(|engine, _| engine.confirm_above = above).await;
    machine.look().await;
    (service, machine)
}

/// As `rm -r d0 d1`.
async fn remove_all(machine: &Machine) {
    for number in 0..FILES {
        machine.unlink(&path(number)).await.unwrap();
    }
    machine.rmdir("d0").await.unwrap();
    machine.rmdir("d1").await.unwrap();
}

/// Everything is deleted here, and before it is there, the whole drive must be read again.
async fn removed_before_a_resync(flavour: Flavour, above: u64) -> (Service, Machine) {
    let (service, machine) = prepared(flavour, above).await;
    let cut = service.control.cut();
    tokio::time::sleep(ROUND).await;
    remove_all(&machine).await;
    tokio::time::sleep(ROUND).await;
    service.control.delta_resync(Resync::Plain);
    service.control.remove_fault(cut);
    machine.look().await;
    machine.look().await;
    tokio::time::sleep(ROUND).await;
    (service, machine)
}

fn left(service: &Service) -> usize {
    service.tree().iter().filter(|(path, content)| path.starts_with('d') && content.is_some()).count()
}

// S131.
#[tokio::test(start_paused = true)]
async fn what_a_program_unlinks_one_by_one_is_deleted_however_much_it_is() {
    for flavour in FLAVOURS {
        let (service, machine) = prepared(flavour, 5).await;
        remove_all(&machine).await;
        machine.sync().await;
        assert_eq!(service.tree().len(), 31, "{flavour:?}");
    }
}

// S131.
#[tokio::test(start_paused = true)]
async fn many_deletes_from_before_a_resync_wait_until_they_are_confirmed() {
    for flavour in FLAVOURS {
        let (service, machine) = removed_before_a_resync(flavour, 5).await;
        assert_eq!(left(&service), FILES, "{flavour:?}");
        assert!(!machine.list("").await.contains(&"d0".to_owned()), "{flavour:?}");
        let status = machine.engine.status().await.unwrap();
        assert_eq!((status.pending, status.parked), (14, 14), "{flavour:?}");
        assert_eq!(status.waiting.len(), 1, "{flavour:?} {:?}", status.waiting);
        assert_eq!(status.waiting[0].reason, Some(ParkKind::Unconfirmed));
        assert!(status.waiting[0].detail.starts_with("14 deletes: "), "{:?}", status.waiting);
        // What is deleted now is not held up by them.
        machine.unlink("other/1").await.unwrap();
        tokio::time::sleep(ROUND).await;
        assert_eq!(service.control.id_of("other/1"), None, "{flavour:?}");
        machine.crash();
        let again = service.machine_with(|engine, _| engine.confirm_above = 5).await;
        tokio::time::sleep(ROUND).await;
        again.engine.retry_parked(NodeId::ROOT).await.unwrap();
        tokio::time::sleep(ROUND).await;
        assert_eq!(left(&service), FILES, "{flavour:?}");
        service.control.reset_log();
        assert_eq!(again.engine.confirm_deletes().await.unwrap(), 14, "{flavour:?}");
        again.sync().await;
        assert_eq!(left(&service), 0, "{flavour:?}");
        assert_eq!(service.requests("DELETE"), 2, "{flavour:?}: one for each tree");
    }
}

// S131.
#[tokio::test(start_paused = true)]
async fn few_deletes_from_before_a_resync_go_on() {
    for flavour in FLAVOURS {
        let (service, _machine) = removed_before_a_resync(flavour, 1000).await;
        assert_eq!(left(&service), 0, "{flavour:?}");
    }
}

// S132.
#[tokio::test(start_paused = true)]
async fn a_name_that_is_made_again_under_a_waiting_delete_takes_the_item_back() {
    for flavour in FLAVOURS {
        let (service, machine) = removed_before_a_resync(flavour, 5).await;
        let ids =
            (service.control.id_of("d0"), service.control.id_of(&path(0)), service.control.id_of(&path(2)));
        machine.mkdir("d0").await.unwrap();
        machine.write(&path(0), "made again").await;
        machine.write("d0/new", "new").await;
        tokio::time::sleep(ROUND).await;
        assert_eq!(service.control.content(&path(0)).unwrap(), "made again", "{flavour:?}");
        assert_eq!(service.control.content("d0/new").unwrap(), "new", "{flavour:?}");
        let now =
            (service.control.id_of("d0"), service.control.id_of(&path(0)), service.control.id_of(&path(2)));
        assert_eq!(now, ids, "{flavour:?}");
        assert_eq!(machine.list("d0").await, ["f0", "new"], "{flavour:?}");
        machine.engine.confirm_deletes().await.unwrap();
        machine.sync().await;
        assert_eq!(left(&service), 2, "{flavour:?}");
        assert_eq!(machine.list("d0").await, ["f0", "new"], "{flavour:?}");
        assert_eq!(service.control.id_of("d1"), None, "{flavour:?}");
    }
}

// S133.
#[tokio::test(start_paused = true)]
async fn what_is_deleted_on_the_service_goes_out_of_sight_without_a_confirmation() {
    for flavour in FLAVOURS {
        let (service, machine) = prepared(flavour, 5).await;
        machine.write(&path(0), "unsent").await;
        for number in 0..2 {
            service.edit(onedrivefs::emulator::Edit::Delete { path: format!("d{number}") });
        }
        service.control.delta_resync(Resync::Plain);
        machine.look().await;
        machine.look().await;
        machine.sync().await;
        assert_eq!(machine.list("").await, ["d0", "other"], "{flavour:?}");
        assert_eq!(service.control.content(&path(0)).unwrap(), "unsent", "{flavour:?}");
    }
}
