//! Reading: one version, verified, within bounds.

use std::time::Duration;

use onedrivefs::content::CacheConfig;
use onedrivefs::emulator::{Fault, FaultAction, Flavour, Mark};
use onedrivefs::vfs::Filesystem;
use tokio::time::{Instant, sleep};

use crate::sync_support::Service;
use crate::{A_ROUND, FLAVOURS, READ, asked, errno, fault};

// S12, S13.
#[tokio::test(start_paused = true)]
async fn an_open_file_goes_on_with_the_version_it_began_with_or_fails() {
    let (old, new) = ("old.".repeat(1 << 20), "NEW!".repeat(1 << 20));
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a.bin", &old);
        let machine = service.machine().await;
        machine.look().await;
        let open = machine.open("a.bin", READ).await.unwrap();
        assert!(machine.files.read(open.0, open.1, 0, 4096).await.unwrap() == old.as_bytes()[..4096]);
        service.write_elsewhere("a.bin", &new);
        sleep(A_ROUND).await;
        for offset in (0..old.len()).step_by(65536) {
            match machine.files.read(open.0, open.1, offset as u64, 65536).await {
                Ok(bytes) => assert!(bytes == old.as_bytes()[offset..offset + 65536], "at {offset}"),
                Err(error) => assert_eq!(error.errno(), libc::EIO, "{error}"),
            }
        }
        assert_eq!(machine.files.getattr(open.0, Some(open.1)).await.unwrap().0.size, old.len() as u64);
        machine.close(open).await.unwrap();
        assert!(machine.read("a.bin").await.unwrap() == new);
    }
}

// S12.
#[tokio::test(start_paused = true)]
async fn what_was_read_whole_is_read_again_though_the_service_has_another_version() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a.txt", "one");
    let machine = service.machine().await;
    machine.look().await;
    let open = machine.open("a.txt", READ).await.unwrap();
    assert_eq!(machine.files.read(open.0, open.1, 0, 100).await.unwrap(), "one");
    service.write_elsewhere("a.txt", "two");
    sleep(A_ROUND).await;
    assert_eq!(machine.files.read(open.0, open.1, 0, 100).await.unwrap(), "one");
    machine.close(open).await.unwrap();
    assert_eq!(machine.read("a.txt").await.unwrap(), "two");
}

// S14.
#[tokio::test(start_paused = true)]
async fn open_fetches_nothing_and_a_read_far_less_than_all() {
    let service = Service::new(Flavour::Business);
    let content = "0123456789abcdef".repeat(1 << 20);
    service.write_elsewhere("big", &content);
    let machine = service.machine().await;
    machine.look().await;
    service.control.reset_log();
    let before = Instant::now();
    let open = machine.open("big", READ).await.unwrap();
    assert_eq!((before.elapsed(), asked(&service).len()), (Duration::ZERO, 0));
    let at = 5_000_000;
    let bytes = machine.files.read(open.0, open.1, at as u64, 4096).await.unwrap();
    assert!(bytes == content.as_bytes()[at..at + 4096]);
    sleep(Duration::from_secs(5)).await;
    assert!(machine.engine.cache().stats().bytes_fetched < 1 << 20);
}

// S15.
#[tokio::test(start_paused = true)]
async fn bytes_that_do_not_have_the_services_hash_are_fetched_again_and_never_given_out() {
    for times in [Some(1), None] {
        let service = Service::new(Flavour::Business);
        service.write_elsewhere("a.bin", "what the service has");
        let machine = service.machine().await;
        machine.look().await;
        let corrupt = FaultAction::CorruptBody { at: 5 };
        service.control.inject(Fault { count: times, ..fault(Some("download"), corrupt) });
        match times {
            Some(_) => assert_eq!(machine.read("a.bin").await.unwrap(), "what the service has"),
            None => assert_eq!(errno(machine.read("a.bin").await), libc::EIO),
        }
    }
}

// S16.
#[tokio::test(start_paused = true)]
async fn the_cache_keeps_to_its_bound_and_what_is_open_stays() {
    let service = Service::new(Flavour::Business);
    for number in 0..12 {
        service.write_elsewhere(&format!("f{number}"), &format!("{number:02}").repeat(100_000));
    }
    let bound = 1 << 20;
    let config = |cache: &mut CacheConfig| cache.max_bytes = bound;
    let machine = service.machine_of(|setup| config(&mut setup.cache)).await;
    machine.look().await;
    let open = machine.open("f0", READ).await.unwrap();
    let whole = machine.files.read(open.0, open.1, 0, 1 << 20).await.unwrap();
    for number in 1..12 {
        assert_eq!(machine.read(&format!("f{number}")).await.unwrap().len(), 200_000);
        assert!(machine.engine.cache().usage().bytes <= bound);
    }
    service.control.cut();
    assert!(machine.files.read(open.0, open.1, 0, 1 << 20).await.unwrap() == whole);
    machine.close(open).await.unwrap();
    assert_ne!(errno(machine.read("f1").await), 0, "the least recently used one went");
}

// S16.
#[tokio::test(start_paused = true)]
async fn a_disk_without_room_for_a_cache_is_read_past_and_unsent_data_does_not_count() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a.txt", "from the service");
    let machine = service.machine_of(|setup| setup.cache.min_free_bytes = u64::MAX / 2).await;
    assert_eq!(machine.read("a.txt").await.unwrap(), "from the service");
    assert_eq!(machine.engine.cache().usage().bytes, 0);
    machine.write("b.txt", "unsent").await;
    machine.engine.cache().scan().unwrap();
    assert_eq!(machine.read("b.txt").await.unwrap(), "unsent");
    machine.sync().await;
}

// S60.
#[tokio::test(start_paused = true)]
async fn what_the_service_flags_as_malware_cannot_be_read() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("bad.exe", "evil");
    service.control.mark("bad.exe", Mark::Malware(true)).unwrap();
    let machine = service.machine().await;
    machine.look().await;
    assert_eq!(errno(machine.read("bad.exe").await), libc::EACCES);
}
