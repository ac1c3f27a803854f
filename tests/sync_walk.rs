//! A drive for which the service offers no delta: the same guarantees, by listings.

mod sync_support;

use std::time::Duration;

use onedrivefs::emulator::{Edit, Fault, FaultAction, Flavour};
use sync_support::{Machine, Service};

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];

/// Longer than the poll interval.
const ROUND: Duration = Duration::from_secs(61);
const FOLDERS: usize = 12;

fn path(number: usize) -> String {
    format!("d{number}/f{number}")
}

fn without_delta(flavour: Flavour) -> Service {
    let service = Service::new(flavour);
    service.control.switch(|switches| switches.delta = false);
    service
}

/// A drive of `FOLDERS` folders with a file each, which the machine has seen.
async fn prepared(flavour: Flavour) -> (Service, Machine) {
    let service = without_delta(flavour);
    for number in 0..FOLDERS {
        service.write_elsewhere(&path(number), &format!("content {number}"));
    }
    let machine = service.machine().await;
    machine.look().await;
    (service, machine)
}

/// Requests for the children of folders.
fn listings(service: &Service) -> usize {
    service.control.requests().iter().filter(|record| record.path.contains("/children")).count()
}

async fn same_as_on_the_service(service: &Service, machine: &Machine) {
    for (path, content) in service.tree() {
        match content {
            Some(content) => assert_eq!(machine.read(&path).await.unwrap(), content, "{path}"),
            None => assert!(machine.find(&path).await.is_ok(), "{path}"),
        }
    }
    let top = service.tree().into_iter().filter(|(path, _)| !path.contains('/'));
    let mut wanted: Vec<String> = top.map(|(path, _)| path).collect();
    let mut names = machine.list("").await;
    wanted.sort();
    names.sort();
    assert_eq!(names, wanted);
}

// S150.
#[tokio::test(start_paused = true)]
async fn without_delta_a_drive_is_read_with_one_request_for_each_folder() {
    for flavour in FLAVOURS {
        let (service, machine) = prepared(flavour).await;
        assert_eq!(listings(&service), FOLDERS + 1, "{flavour:?}");
        service.control.reset_log();
        for number in 0..FOLDERS {
            assert_eq!(machine.list(&format!("d{number}")).await, [format!("f{number}")]);
        }
        assert_eq!(listings(&service), 0, "{flavour:?}: all is known");
    }
}

// S150.
#[tokio::test(start_paused = true)]
async fn without_delta_every_change_elsewhere_is_seen_and_nothing_else_happens() {
    for flavour in FLAVOURS {
        let (service, machine) = prepared(flavour).await;
        machine.write("d3/f3", "mine").await;
        machine.sync().await;
        service.write_elsewhere("new/deep/er", "new");
        service.write_elsewhere(&path(1), "edited, and longer");
        service.edit(Edit::Delete { path: path(2) });
        service.edit(Edit::Delete { path: "d4".into() });
        service.edit(Edit::Move { path: "d5".into(), to: "d0/moved".into() });
        service.edit(Edit::Move { path: path(6), to: "d11/moved".into() });
        tokio::time::sleep(2 * ROUND).await;
        machine.look().await;
        same_as_on_the_service(&service, &machine).await;
        assert!(machine.find(&path(2)).await.is_err(), "{flavour:?}");
        assert_eq!(machine.read("d0/moved/f5").await.unwrap(), "content 5");
        service.control.reset_log();
        machine.sync().await;
        let changes = ["PUT", "POST", "PATCH", "DELETE"].map(|method| service.requests(method));
        assert_eq!(changes, [0; 4], "{flavour:?}: nothing was sent back");
    }
}

// S150.
#[tokio::test(start_paused = true)]
async fn without_delta_what_is_unsent_in_a_folder_deleted_elsewhere_is_kept() {
    for flavour in FLAVOURS {
        let (service, machine) = prepared(flavour).await;
        let cut = service.control.cut();
        machine.write("d7/f7", "mine").await;
        service.edit(Edit::Delete { path: "d7".into() });
        service.control.remove_fault(cut);
        tokio::time::sleep(2 * ROUND).await;
        machine.look().await;
        machine.sync().await;
        assert_eq!(service.control.content("d7/f7").as_deref(), Some(&b"mine"[..]), "{flavour:?}");
    }
}

// S150.
#[tokio::test(start_paused = true)]
async fn without_delta_a_deleted_tree_goes_folder_by_folder_and_takes_nothing_new_with_it() {
    for flavour in FLAVOURS {
        let (service, machine) = prepared(flavour).await;
        service.write_elsewhere("d8/unseen", "by another client");
        machine.unlink(&path(8)).await.unwrap();
        machine.rmdir("d8").await.unwrap();
        machine.unlink(&path(9)).await.unwrap();
        machine.rmdir("d9").await.unwrap();
        machine.sync().await;
        assert!(service.control.id_of("d9").is_none(), "{flavour:?}");
        assert_eq!(service.control.content("d8/unseen").as_deref(), Some(&b"by another client"[..]));
        machine.look().await;
        assert_eq!(machine.list("d8").await, ["unseen"], "{flavour:?}");
    }
}

// S150.
#[tokio::test(start_paused = true)]
async fn a_walk_that_was_cut_goes_on_where_it_was() {
    let service = without_delta(Flavour::Business);
    for number in 0..FOLDERS {
        service.write_elsewhere(&path(number), &format!("content {number}"));
    }
    service.control.set_latency(Duration::from_millis(500));
    let machine = service.machine().await;
    while listings(&service) < 5 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = listings(&service);
    machine.crash();
    service.control.reset_log();
    let machine = service.machine().await;
    machine.sync().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let after = listings(&service);
    // The one that was under way at the crash is asked for again.
    assert!(before + after <= FOLDERS + 2, "{before} and {after}");
    same_as_on_the_service(&service, &machine).await;
}

// S151.
#[tokio::test(start_paused = true)]
async fn without_delta_a_folder_in_use_is_fresh_within_the_poll_interval_and_an_idle_drive_costs_little() {
    let (service, machine) = prepared(Flavour::Business).await;
    machine.list("d1").await;
    service.write_elsewhere("d1/new", "new");
    service.control.reset_log();
    tokio::time::sleep(ROUND).await;
    let mut names = machine.list("d1").await;
    names.sort();
    assert_eq!(names, ["f1", "new"]);
    service.control.reset_log();
    tokio::time::sleep(Duration::from_secs(4 * 3600)).await;
    let asked = service.control.requests().len();
    // Every five minutes once it is idle, as any drive without a push channel.
    assert!(asked <= (48 + 20) * (FOLDERS + 1), "{asked} requests in four hours");
}

/// A drive on which a walk takes two minutes, so that the rest after it takes nine.
async fn slow() -> (Service, Machine) {
    let (service, machine) = prepared(Flavour::Business).await;
    service.control.set_latency(Duration::from_secs(9));
    machine.look().await;
    (service, machine)
}

// S151.
#[tokio::test(start_paused = true)]
async fn without_delta_a_folder_in_use_is_listed_once_however_many_of_its_files_are() {
    let service = without_delta(Flavour::Business);
    for number in 0..20 {
        service.write_elsewhere(&format!("d/f{number}"), "content");
    }
    let machine = service.machine().await;
    service.control.set_latency(Duration::from_secs(9));
    machine.look().await;
    service.control.set_latency(Duration::ZERO);
    for number in 0..20 {
        machine.read(&format!("d/f{number}")).await.unwrap();
    }
    service.control.reset_log();
    // The next walk is later than that.
    tokio::time::sleep(Duration::from_secs(35)).await;
    assert!((1..=2).contains(&listings(&service)), "{}", listings(&service));
}

// S150.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_looked_at_after_a_walk_is_before_the_next_one() {
    let (service, machine) = prepared(Flavour::Business).await;
    let id = service.control.id_of(&path(2)).expect("it is there");
    service.control.set_latency(Duration::from_secs(9));
    service.edit(Edit::Delete { path: path(2) });
    let cut = service.control.inject(Fault {
        method: Some("GET".into()),
        path: Some(format!("items/{id}")),
        op: None,
        skip: 0,
        count: None,
        action: FaultAction::Reset { after: false },
    });
    machine.look().await;
    assert!(machine.find(&path(2)).await.is_ok(), "nobody could look at it yet");
    service.control.remove_fault(cut);
    tokio::time::sleep(2 * ROUND).await;
    assert!(machine.find(&path(2)).await.is_err());
}

// S150.
#[tokio::test(start_paused = true)]
async fn who_asks_for_changes_during_a_walk_waits_for_the_next_one_and_no_rest() {
    let (service, machine) = slow().await;
    machine.engine.refresh();
    tokio::time::sleep(Duration::from_secs(30)).await;
    machine.crash();
    // In the middle of a walk.
    let machine = service.machine().await;
    service.write_elsewhere("d0/late", "late");
    let seen = tokio::time::timeout(Duration::from_secs(420), machine.engine.look_now()).await;
    seen.expect("two walks, and no rest between").unwrap();
    assert_eq!(machine.read("d0/late").await.unwrap(), "late");
}

// S150.
#[tokio::test(start_paused = true)]
async fn without_delta_walks_go_on_where_a_channel_tells_of_changes() {
    let service = without_delta(Flavour::Business);
    service.write_elsewhere("d/f", "content");
    let machine = service.machine_with(|engine, _| engine.push = true).await;
    machine.look().await;
    while !machine.engine.status().await.expect("a status").pushed {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    service.write_elsewhere("d/new", "new");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(machine.list("d").await, ["f", "new"]);
}

#[tokio::test(start_paused = true)]
async fn delta_is_asked_for_again_after_a_day() {
    let service = without_delta(Flavour::Business);
    let machine = service.quiet_machine().await;
    service.control.switch(|switches| switches.delta = true);
    tokio::time::sleep(Duration::from_secs(25 * 3600)).await;
    machine.look().await;
    service.write_elsewhere("late", "late");
    service.control.reset_log();
    machine.look().await;
    assert_eq!(machine.read("late").await.unwrap(), "late");
    assert_eq!(listings(&service), 0, "by delta");
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_stops_to_offer_delta_is_walked() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a/b", "one");
    let machine = service.machine().await;
    machine.look().await;
    service.control.switch(|switches| switches.delta = false);
    service.write_elsewhere("a/c", "two");
    tokio::time::sleep(ROUND).await;
    machine.look().await;
    same_as_on_the_service(&service, &machine).await;
    assert_eq!(machine.read("a/c").await.unwrap(), "two");
}

// S130.
#[tokio::test(start_paused = true)]
async fn without_delta_files_keep_their_nodes_when_all_ids_change() {
    for flavour in FLAVOURS {
        let (service, machine) = prepared(flavour).await;
        let mut before = Vec::new();
        for number in 0..FOLDERS {
            before.push(machine.find(&path(number)).await.unwrap());
        }
        machine.write("d3/f3", "mine").await;
        let tree = service.tree().len();
        service.control.change_item_ids();
        tokio::time::sleep(2 * ROUND).await;
        machine.look().await;
        machine.sync().await;
        for (number, ino) in before.into_iter().enumerate() {
            assert_eq!(machine.find(&path(number)).await.unwrap(), ino, "{flavour:?} {number}");
        }
        assert_eq!(service.tree().len(), tree, "{flavour:?}: nothing is there twice or gone");
        assert_eq!(service.control.content("d3/f3").as_deref(), Some(&b"mine"[..]), "{flavour:?}");
    }
}
