//! What happens to unsent content when something else happens while a request is on its way.

mod sync_support;

use std::time::Duration;

use onedrivefs::emulator::{Edit, Fault, FaultAction, Flavour};
use onedrivefs::vfs::{Filesystem, OpenFlags};
use sync_support::{Machine, Service};

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];

fn file(path: &str, content: &str) -> (String, Option<String>) {
    (path.into(), Some(content.into()))
}

fn folder(path: &str) -> (String, Option<String>) {
    (path.into(), None)
}

/// The answer to the next request of this method whose path contains `path` is held back until released.
fn hold_answer(service: &Service, method: &str, path: &str) {
    fault(service, method, path, 1, FaultAction::Stall { after: true });
}

fn fault(service: &Service, method: &str, path: &str, count: u32, action: FaultAction) {
    service.control.inject(Fault {
        method: Some(method.into()),
        path: Some(path.into()),
        op: None,
        skip: 0,
        count: Some(count),
        action,
    });
}

/// Until the request that is held up is on its way.
async fn under_way() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

/// As a program that writes aside and renames over.
async fn save(machine: &Machine, path: &str, content: &str) {
    let aside = format!("{path}.new");
    machine.write(&aside, content).await;
    machine.rename(&aside, path).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_save_by_rename_during_the_upload_of_the_former_save_is_what_the_service_gets() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("doc.txt", "base");
        let machine = service.machine().await;
        machine.look().await;
        let before = service.control.id_of("doc.txt");
        machine.write("doc.txt", "first save").await;
        hold_answer(&service, "PUT", "content");
        under_way().await;
        save(&machine, "doc.txt", "second save").await;
        service.control.release_stalls();
        machine.sync().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("doc.txt", "second save")]);
        assert_eq!(machine.read("doc.txt").await.unwrap(), "second save");
        assert_eq!(service.control.id_of("doc.txt"), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_save_that_moves_the_file_aside_during_its_upload_is_what_the_service_gets() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("doc.txt", "base");
        let machine = service.machine().await;
        machine.look().await;
        machine.write("doc.txt", "first save").await;
        hold_answer(&service, "PUT", "content");
        under_way().await;
        machine.rename("doc.txt", "doc.txt~").await.unwrap();
        machine.write("doc.txt", "second save").await;
        machine.unlink("doc.txt~").await.unwrap();
        service.control.release_stalls();
        machine.sync().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("doc.txt", "second save")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_is_unlinked_while_its_rename_is_sent_does_not_take_the_save_with_it() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("doc.txt", "base");
        let machine = service.machine().await;
        machine.look().await;
        machine.rename("doc.txt", "doc.txt~").await.unwrap();
        hold_answer(&service, "PATCH", "items");
        under_way().await;
        machine.write("doc.txt", "second save").await;
        machine.unlink("doc.txt~").await.unwrap();
        service.control.release_stalls();
        machine.sync().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("doc.txt", "second save")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_made_again_while_its_delete_is_sent_is_on_the_service() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("doc.txt", "base");
        let machine = service.machine().await;
        machine.look().await;
        machine.unlink("doc.txt").await.unwrap();
        hold_answer(&service, "DELETE", "items");
        under_way().await;
        machine.write("doc.txt", "again").await;
        service.control.release_stalls();
        machine.sync().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("doc.txt", "again")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_moved_out_while_it_is_created_does_not_go_with_its_former_folder() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/old", "old");
        service.write_elsewhere("x/other", "other");
        let machine = service.machine().await;
        machine.look().await;
        machine.unlink("d/old").await.unwrap();
        machine.sync().await;
        machine.write("d/f", "keep me").await;
        hold_answer(&service, "PUT", "content");
        under_way().await;
        machine.rename("d/f", "x/f").await.unwrap();
        machine.rmdir("d").await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        service.control.release_stalls();
        machine.sync().await;
        assert_eq!(service.tree(), [folder("x"), file("x/f", "keep me"), file("x/other", "other")]);
        assert_eq!(machine.read("x/f").await.unwrap(), "keep me");
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_whose_name_another_took_while_it_was_created_does_not_block_the_save() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("doc.txt", "base");
        let machine = service.machine().await;
        machine.look().await;
        machine.write("new", "saved").await;
        hold_answer(&service, "PUT", "content");
        under_way().await;
        // A look introduces the item before its answer comes.
        machine.look().await;
        machine.rename("new", "doc.txt").await.unwrap();
        service.control.release_stalls();
        machine.sync().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("doc.txt", "saved")]);
    }
}
#[tokio::test(start_paused = true)]
async fn an_edit_elsewhere_after_two_failures_of_ours_is_not_overwritten() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a.txt", "base");
        let machine = service.quiet_machine().await;
        let locked = FaultAction::status(423, "resourceLocked");
        fault(&service, "PUT", "content", 3, locked);
        machine.write("a.txt", "mine").await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        service.write_elsewhere("a.txt", "theirs");
        tokio::time::sleep(Duration::from_secs(1200)).await;
        machine.sync().await;
        let tree = service.tree();
        assert_eq!(tree.len(), 2, "{tree:?}");
        assert!(tree.contains(&file("a.txt", "theirs")), "{tree:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn folders_moved_into_each_other_here_and_elsewhere_stay_in_sight() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a/in-a", "1");
        service.write_elsewhere("b/in-b", "2");
        let machine = service.machine().await;
        machine.look().await;
        machine.rename("a", "b/a").await.unwrap();
        service.edit(Edit::Move { path: "b".into(), to: "a/b".into() });
        machine.look().await;
        machine.sync().await;
        assert_eq!(service.tree(), [folder("a"), folder("a/b"), file("a/b/in-b", "2"), file("a/in-a", "1")]);
        assert_eq!(machine.list("").await, ["a"]);
        assert_eq!(machine.read("a/b/in-b").await.unwrap(), "2");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_to_an_open_file_after_it_was_deleted_elsewhere_is_kept() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("log", "one\n");
        let machine = service.machine().await;
        machine.look().await;
        let flags = OpenFlags::READ_WRITE;
        let open = machine.open("log", flags).await.unwrap();
        machine.files.read(open.0, open.1, 0, 100).await.unwrap();
        service.edit(Edit::Delete { path: "log".into() });
        machine.look().await;
        machine.files.write(open.0, open.1, 4, b"two\n".to_vec().into()).await.unwrap();
        machine.close(open).await.unwrap();
        machine.sync().await;
        assert_eq!(service.tree(), [file("log", "one\ntwo\n")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_moved_here_and_deleted_elsewhere_is_gone() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/a", "1");
        service.write_elsewhere("x/b", "2");
        let machine = service.machine().await;
        machine.look().await;
        machine.rename("d/a", "x/a").await.unwrap();
        service.edit(Edit::Delete { path: "d/a".into() });
        machine.sync().await;
        assert_eq!(service.tree(), [folder("d"), folder("x"), file("x/b", "2")]);
        assert_eq!(machine.list("x").await, ["b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn staged_content_that_a_crash_left_without_a_row_does_not_get_in_the_way() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine().await;
    machine.write("a", "1").await;
    machine.sync().await;
    // The file of the next content is on the disk, the commit that would have named it is not.
    let staging = machine.engine.staging().clone();
    let orphan = staging.create(onedrivefs::content::StagingId(2)).unwrap();
    orphan.write(0, b"orphan").unwrap();
    drop(orphan);
    machine.crash();
    let again = service.machine().await;
    assert_eq!(again.read("lost+found/recovered-2").await.unwrap(), "orphan");
    again.write("a", "2").await;
    again.write("b", "3").await;
    again.sync().await;
    assert_eq!(service.tree(), [file("a", "2"), file("b", "3")]);
    assert_eq!(again.read("lost+found/recovered-2").await.unwrap(), "orphan");
}

#[tokio::test(start_paused = true)]
async fn an_edit_elsewhere_of_the_same_size_is_not_taken_for_an_upload_whose_answer_was_lost() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a.txt", "base");
        let machine = service.quiet_machine().await;
        machine.write("a.txt", "mine").await;
        fault(&service, "PUT", "content", 1, FaultAction::Stall { after: false });
        under_way().await;
        service.write_elsewhere("a.txt", "them");
        machine.write("a.txt", "mine, again").await;
        machine.sync().await;
        let tree = service.tree();
        assert_eq!(tree.len(), 2, "{tree:?}");
        assert!(tree.contains(&file("a.txt", "them")), "{tree:?}");
        assert!(tree.iter().any(|(_, content)| content.as_deref() == Some("mine, again")), "{tree:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_could_not_be_looked_at_is_seen_once_it_can() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.look().await;
        machine.write("a.txt", "mine").await;
        machine.sync().await;
        machine.look().await;
        service.write_elsewhere("a.txt", "theirs, longer");
        let id = service.control.id_of("a.txt").unwrap();
        let failing = FaultAction::Reset { after: false };
        let number = service.control.inject(Fault {
            method: Some("GET".into()),
            path: Some(format!("/items/{}", id.replace('!', "*"))),
            op: None,
            skip: 0,
            count: None,
            action: failing,
        });
        machine.look().await;
        service.control.remove_fault(number);
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(machine.read("a.txt").await.unwrap(), "theirs, longer");
    }
}

// S34.
#[tokio::test(start_paused = true)]
async fn a_change_in_part_of_a_version_that_was_replaced_meanwhile_is_completed_from_the_history() {
    for flavour in [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary] {
        let service = Service::new(flavour);
        let base: String = (0..60_000).map(|n| format!("{n:07} ")).collect();
        service.write_elsewhere("data.bin", "an older version");
        service.write_elsewhere("data.bin", &base);
        let machine = service.machine().await;
        machine.look().await;
        let flags = OpenFlags::READ_WRITE;
        let open = machine.open("data.bin", flags).await.expect("open");
        machine.files.write(open.0, open.1, 100_000, b"changed".to_vec().into()).await.expect("write");
        machine.close(open).await.expect("close");
        // One of the same length first: only the hash tells which is ours.
        service.write_elsewhere("data.bin", &base.replace("0000700", "0000800"));
        service.write_elsewhere("data.bin", "by another client");
        machine.sync().await;
        let mut expected = base.into_bytes();
        expected[100_000..100_007].copy_from_slice(b"changed");
        let tree = service.tree();
        assert_eq!(tree.len(), 2, "{flavour:?}: {:?}", tree.iter().map(|(path, _)| path).collect::<Vec<_>>());
        let (copy, content) = tree.iter().find(|(path, _)| path.contains("conflict")).expect("a copy");
        assert!(content.as_deref().map(str::as_bytes) == Some(&expected[..]), "{flavour:?}: {copy}");
        assert_eq!(service.control.content("data.bin").as_deref(), Some(&b"by another client"[..]));
        assert_eq!(machine.read("data.bin").await.expect("it is there"), "by another client");
        let staged = std::fs::read_dir(service.dir().join("staging")).expect("the directory").count();
        machine.crash();
        assert!(staged <= 1, "{flavour:?}: what was fetched for it is gone: {staged} files");
    }
}

// S34.
#[tokio::test(start_paused = true)]
async fn of_two_earlier_versions_with_one_weak_hash_none_is_guessed() {
    let service = Service::new(Flavour::Business);
    let (one, two) = ("1".repeat(160), "2".repeat(160));
    service.write_elsewhere("data.bin", &format!("{one}{two}").repeat(1000));
    let machine = service.machine().await;
    machine.look().await;
    let flags = OpenFlags::READ_WRITE;
    let open = machine.open("data.bin", flags).await.expect("open");
    machine.files.write(open.0, open.1, 100_000, b"changed".to_vec().into()).await.expect("write");
    machine.close(open).await.expect("close");
    service.write_elsewhere("data.bin", &format!("{two}{one}").repeat(1000));
    service.write_elsewhere("data.bin", "by another client");
    tokio::time::sleep(Duration::from_secs(120)).await;
    let status = machine.engine.status().await.expect("a status");
    assert_eq!((status.pending, status.parked), (1, 1), "{:?}", status.waiting);
    assert_eq!(service.tree(), [file("data.bin", "by another client")], "no mix of two");
    service.control.reset_log();
    tokio::time::sleep(Duration::from_secs(12 * 3600)).await;
    let asked = service.control.requests().iter().filter(|record| record.path.contains("/versions")).count();
    assert!((1..=50).contains(&asked), "they are fetched again less and less often: {asked} requests");
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_folder_that_lost_a_name_while_its_set_time_was_sent_stays_that_of_the_loss() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.look().await;
        machine.mkdir("d").await.expect("mkdir");
        machine.sync().await;
        hold_answer(&service, "PATCH", "");
        machine.set_mtime("d", 1_580_000_000).await.expect("utimens");
        under_way().await;
        machine.write("d/a", "x").await;
        under_way().await;
        machine.unlink("d/a").await.expect("unlink");
        let ino = machine.find("d").await.expect("it is there");
        let lost = machine.files.getattr(ino, None).await.expect("attributes").0.mtime;
        service.write_elsewhere("d/theirs", "y");
        machine.look().await;
        service.control.release_stalls();
        machine.sync().await;
        let now = machine.files.getattr(ino, None).await.expect("attributes").0.mtime;
        assert!(now >= lost, "{flavour:?}: {now:?} is before {lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_looked_at_before_it_is_made_again_holds_up_no_other() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("gone.txt", "base");
    let machine = service.machine().await;
    machine.look().await;
    let id = service.control.id_of("gone.txt").expect("it is there");
    let held = service.control.inject(Fault {
        method: Some("GET".into()),
        path: Some(format!("items/{id}")),
        op: None,
        skip: 1,
        count: None,
        action: FaultAction::Stall { after: false },
    });
    machine.write("gone.txt", "mine").await;
    service.edit(Edit::Delete { path: "gone.txt".into() });
    machine.look().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let asked = service.control.requests().iter().filter(|record| record.path.contains(id.as_str())).count();
    assert!(asked >= 2, "the item is being looked at");
    machine.write("other.txt", "other").await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(service.control.content("other.txt").as_deref(), Some(&b"other"[..]));
    service.control.remove_fault(held);
    service.control.release_stalls();
    machine.sync().await;
    assert_eq!(service.tree(), [file("gone.txt", "mine"), file("other.txt", "other")]);
}
