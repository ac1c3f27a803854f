//! The network: what waits, for how long, and what costs no request.

use std::ffi::OsStr;
use std::time::Duration;

use onedrivefs::emulator::{FaultAction, Flavour};
use onedrivefs::engine::EngineError;
use onedrivefs::model::{Ino, NodeId};
use onedrivefs::vfs::{Filesystem, Lookup};
use tokio::time::Instant;

use crate::sync_support::{ME, Service};
use crate::{asked, errno, fault, file};

// S47.
#[tokio::test(start_paused = true)]
async fn a_read_waits_as_long_as_bytes_arrive_and_no_longer() {
    let service = Service::new(Flavour::Business);
    let content = "0123456789abcdef".repeat(1 << 16);
    service.write_elsewhere("slow", &content);
    service.write_elsewhere("stuck", &content);
    let machine = service.machine().await;
    machine.look().await;
    service.control.set_bandwidth(Some(8000));
    let before = Instant::now();
    assert!(machine.read("slow").await.unwrap() == content);
    assert!(before.elapsed() > Duration::from_secs(100), "{:?}", before.elapsed());
    service.control.set_bandwidth(None);
    service.control.inject(fault(Some("download"), FaultAction::StallBody { at: 100 }));
    let before = Instant::now();
    assert_eq!(errno(machine.read("stuck").await), libc::ETIMEDOUT);
    assert!(before.elapsed() < Duration::from_secs(200), "{:?}", before.elapsed());
}

// S50.
#[tokio::test(start_paused = true)]
async fn what_is_known_is_told_without_a_request() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("d/a.txt", "a");
    let machine = service.machine().await;
    machine.look().await;
    assert_eq!(machine.read("d/a.txt").await.unwrap(), "a");
    service.control.reset_log();
    let before = Instant::now();
    assert_eq!(machine.list("").await, ["d"]);
    assert_eq!(machine.list("d").await, ["a.txt"]);
    let ino = machine.find("d/a.txt").await.unwrap();
    assert_eq!(machine.files.getattr(ino, None).await.unwrap().0.size, 1);
    let absent = machine.files.lookup(ME, Ino::ROOT, OsStr::new("absent")).await.unwrap();
    assert!(matches!(absent, Lookup::Absent(_)));
    assert!(machine.files.statfs(onedrivefs::model::Ino::ROOT).total > 0);
    assert_eq!(machine.read("d/a.txt").await.unwrap(), "a", "nor does reading it again");
    assert_eq!((before.elapsed(), asked(&service)), (Duration::ZERO, Vec::new()));
}

// S51.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_within_the_limit_is_said_and_kept() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine().await;
    machine.look().await;
    let stall = service.control.inject(fault(None, FaultAction::Stall { after: false }));
    machine.write("a.txt", "unsent").await;
    let before = Instant::now();
    let limit = Duration::from_secs(60);
    let left = machine.engine.sync(NodeId::ROOT, Some(limit), |_| {}).await;
    assert!(matches!(left, Err(EngineError::Deadline)), "{left:?}");
    assert_eq!(before.elapsed(), limit);
    machine.crash();
    service.control.remove_fault(stall);
    let again = service.machine().await;
    again.sync().await;
    assert_eq!(service.tree(), [file("a.txt", "unsent")]);
}
