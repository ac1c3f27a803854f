//! Reading: one version, verified, within bounds.

use std::time::Duration;

use onedrivefs::content::CacheConfig;
use onedrivefs::emulator::{Fault, FaultAction, Flavour, Mark};
use onedrivefs::vfs::{Caller, Filesystem};
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

// S205.
#[tokio::test(start_paused = true)]
async fn a_look_at_the_header_of_a_file_costs_one_small_range() {
    let service = Service::new(Flavour::Business);
    for (name, size) in [("small", 900_000), ("large", 9_000_000)] {
        service.write_elsewhere(name, &"x".repeat(size));
    }
    let machine = service.machine().await;
    machine.look().await;
    for name in ["small", "large"] {
        let before = machine.engine.cache().stats().bytes_fetched;
        let open = machine.open(name, READ).await.unwrap();
        assert_eq!(machine.files.read(open.0, open.1, 0, 16384).await.unwrap().len(), 16384);
        sleep(Duration::from_secs(5)).await;
        machine.close(open).await.unwrap();
        assert_eq!(machine.engine.cache().stats().bytes_fetched - before, 128 << 10, "{name}");
    }
}

// S206.
#[tokio::test(start_paused = true)]
async fn a_program_that_is_denied_reads_what_is_here_and_nothing_else() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a", &"x".repeat(900_000));
    let own = std::env::current_exe().unwrap();
    let own = own.file_name().unwrap().to_str().unwrap().to_owned();
    let machine = service.machine_with(|_, vfs| vfs.deny_readers = vec!["another".into(), own]).await;
    machine.look().await;
    let ino = machine.find("a").await.unwrap();
    let denied = Caller { uid: 0, gid: 0, pid: std::process::id() };
    let open = machine.files.open(denied, ino, READ).await.unwrap();
    assert_eq!(errno(machine.files.read(ino, open.handle, 0, 4096).await), libc::EACCES);
    assert!(!asked(&service).iter().any(|op| op == "download"));
    let allowed = machine.open("a", READ).await.unwrap();
    machine.files.read(ino, allowed.1, 0, 4096).await.unwrap();
    assert_eq!(machine.files.read(ino, open.handle, 0, 4096).await.unwrap().len(), 4096);
    assert_eq!(errno(machine.files.read(ino, open.handle, 700_000, 4096).await), libc::EACCES);
    assert_eq!(machine.files.read(ino, open.handle, 900_000, 4096).await.unwrap().len(), 0);
}

// S207.
#[tokio::test(start_paused = true)]
async fn looking_into_many_files_of_a_folder_costs_one_request_for_each_and_a_listing() {
    let service = Service::new(Flavour::Business);
    for number in 0..30 {
        service.write_elsewhere(&format!("d/f{number}"), "x");
    }
    let machine = service.machine().await;
    machine.look().await;
    service.control.reset_log();
    for number in 0..30 {
        machine.read(&format!("d/f{number}")).await.unwrap();
    }
    let asked = asked(&service);
    let count = |op: &str| asked.iter().filter(|one| *one == op).count();
    assert_eq!((count("item.get"), count("download")), (2, 30), "{asked:?}");
    assert!(asked.len() <= 34, "{asked:?}");
    // What changed since the listing is looked at.
    service.write_elsewhere("d/f29", "another");
    sleep(A_ROUND).await;
    assert_eq!(machine.read("d/f29").await.unwrap(), "another");
}
