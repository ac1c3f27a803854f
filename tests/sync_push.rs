//! Changes made elsewhere, told by the service's push channel, or asked for where it has none.

mod sync_support;

use std::time::Duration;

use onedrivefs::emulator::{Edit, Fault, FaultAction, Flavour};
use sync_support::{Machine, Service};

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];
/// What the service tells must be visible within so long (the user's promise).
const PROMPT: Duration = Duration::from_secs(2);

/// A machine that is told of changes; nothing is under way.
async fn told(service: &Service) -> Machine {
    let machine = service.machine_with(|engine, _| engine.push = true).await;
    wait_for(Duration::from_secs(60), async || machine.engine.status().await.expect("a status").pushed).await;
    rest(Duration::from_secs(5)).await;
    machine
}

async fn rest(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Waits until `is_so`, at most `limit` of the paused clock.
async fn wait_for(limit: Duration, is_so: impl AsyncFn() -> bool) {
    let seen = tokio::time::timeout(limit, async {
        while !is_so().await {
            rest(Duration::from_millis(50)).await;
        }
    });
    seen.await.expect("in time");
}

// S90.
#[tokio::test(start_paused = true)]
async fn what_happens_elsewhere_is_seen_within_two_seconds() {
    for flavour in FLAVOURS {
        for as_string in [false, true] {
            let service = Service::new(flavour);
            service.control.switch(|switches| switches.socket_io_string_payload = as_string);
            service.write_elsewhere("a.txt", "before");
            let machine = told(&service).await;
            assert_eq!(machine.read("a.txt").await.expect("it is there"), "before");
            service.write_elsewhere("a.txt", "after");
            wait_for(PROMPT, async || machine.read("a.txt").await.expect("it is there") == "after").await;
            service.edit(Edit::Delete { path: "a.txt".into() });
            wait_for(PROMPT, async || machine.find("a.txt").await.is_err()).await;
        }
    }
}

// S90.
#[tokio::test(start_paused = true)]
async fn while_nothing_happens_nothing_is_asked_but_a_new_channel_each_day() {
    let service = Service::new(Flavour::Business);
    let machine = told(&service).await;
    service.control.reset_log();
    rest(Duration::from_secs(23 * 3600)).await;
    assert_eq!(service.control.requests().len(), 0, "{:?}", service.control.requests());
    rest(Duration::from_secs(2 * 3600)).await;
    let asked: Vec<String> = service.control.requests().iter().map(|record| record.op.to_string()).collect();
    assert_eq!(asked.iter().filter(|op| *op == "push.connect").count(), 1, "{asked:?}");
    assert!(asked.len() <= 4, "the address, the channel, and a look on each side of the gap: {asked:?}");
    assert!(machine.engine.status().await.expect("a status").pushed);
    service.write_elsewhere("a.txt", "new");
    wait_for(PROMPT, async || machine.find("a.txt").await.is_ok()).await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_changes_costs_few_looks() {
    let service = Service::new(Flavour::Business);
    let machine = told(&service).await;
    service.control.reset_log();
    for n in 0..50 {
        service.write_elsewhere(&format!("{n}.txt"), "x");
        rest(Duration::from_millis(20)).await;
    }
    wait_for(PROMPT, async || machine.find("49.txt").await.is_ok()).await;
    let looks = service.control.requests().len();
    assert!(looks <= 6, "{looks} requests for changes within a second");
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_lost_is_opened_again_and_nothing_in_between_is_missed() {
    let service = Service::new(Flavour::Personal);
    let machine = told(&service).await;
    service.control.close_push();
    service.write_elsewhere("a.txt", "in between");
    wait_for(PROMPT, async || machine.find("a.txt").await.is_ok()).await;
    rest(Duration::from_secs(10)).await;
    assert!(machine.engine.status().await.expect("a status").pushed);
    service.write_elsewhere("b.txt", "after");
    wait_for(PROMPT, async || machine.find("b.txt").await.is_ok()).await;
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_cut_and_mended_leaves_nothing_unseen() {
    let service = Service::new(Flavour::Business);
    let machine = told(&service).await;
    let fault = service.control.cut();
    service.control.close_push();
    service.write_elsewhere("a.txt", "while away");
    rest(Duration::from_secs(600)).await;
    assert!(machine.engine.is_offline());
    service.control.remove_fault(fault);
    wait_for(Duration::from_secs(62), async || machine.find("a.txt").await.is_ok()).await;
    wait_for(Duration::from_secs(62), async || machine.engine.status().await.expect("a status").pushed).await;
}

// S90.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_looked_at_when_it_was_told_is_looked_at_later() {
    let service = Service::new(Flavour::Business);
    let machine = told(&service).await;
    machine.write("a.txt", "mine").await;
    machine.sync().await;
    rest(Duration::from_secs(30)).await;
    // What differs soon after an own change is read by its id before it is believed.
    let path = Some(format!("items/{}", service.control.id_of("a.txt").expect("it was sent")));
    let action = FaultAction::Reset { after: false };
    let fault = Fault { method: Some("GET".into()), path, op: None, skip: 0, count: None, action };
    let cut = service.control.inject(fault);
    service.write_elsewhere("a.txt", "theirs");
    rest(Duration::from_secs(60)).await;
    service.control.remove_fault(cut);
    let is_seen = async || machine.read("a.txt").await.expect("it is there") == "theirs";
    wait_for(Duration::from_secs(300), is_seen).await;
}

// S31.
#[tokio::test(start_paused = true)]
async fn where_there_is_no_channel_changes_are_asked_for_and_less_often_while_nobody_looks() {
    let service = Service::new(Flavour::DocumentLibrary);
    service.control.switch(|switches| switches.socket_io = false);
    let machine = service.machine_with(|engine, _| engine.push = true).await;
    rest(Duration::from_secs(60)).await;
    let looks = || service.control.requests().iter().filter(|record| record.op == "delta").count();
    let before = looks();
    rest(Duration::from_secs(120)).await;
    assert_eq!(looks() - before, 4, "every 30 s while in use");
    rest(Duration::from_secs(3600)).await;
    let before = looks();
    rest(Duration::from_secs(3600)).await;
    assert_eq!(looks() - before, 12, "every 5 min while idle");
    service.write_elsewhere("a.txt", "new");
    let before = looks();
    assert!(machine.find("a.txt").await.is_err(), "the first look answers at once from what is known");
    wait_for(PROMPT, async || machine.find("a.txt").await.is_ok()).await;
    assert_eq!(looks() - before, 1, "and asks");
    service.control.switch(|switches| switches.socket_io = true);
    rest(Duration::from_secs(700)).await;
    assert!(machine.engine.status().await.expect("a status").pushed, "the answer may pass");
}
