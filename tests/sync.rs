//! The engine with semantics above it and the emulator below: what is sent, what is seen, what survives.

mod sync_support;

use std::time::Duration;

use onedrivefs::emulator::{Edit, Fault, FaultAction, Flavour};
use onedrivefs::vfs::{Filesystem, OpenFlags, RenameMode};
use sync_support::Service;

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];

/// Longer than the poll interval.
const ROUND: Duration = Duration::from_secs(61);

fn file(path: &str, content: &str) -> (String, Option<String>) {
    (path.into(), Some(content.into()))
}

fn folder(path: &str) -> (String, Option<String>) {
    (path.into(), None)
}

#[tokio::test(start_paused = true)]
async fn what_is_written_here_is_on_the_service_after_sync() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.mkdir("d").await.unwrap();
        machine.write("d/a.txt", "hello").await;
        machine.write("empty", "").await;
        machine.sync().await;
        assert_eq!(service.tree(), [folder("d"), file("d/a.txt", "hello"), file("empty", "")]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_read_and_listed_here() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/a.txt", "from elsewhere");
        let machine = service.machine().await;
        assert_eq!(machine.list("").await, ["d"]);
        assert_eq!(machine.read("d/a.txt").await.unwrap(), "from elsewhere");
    }
}

// S31.
#[tokio::test(start_paused = true)]
async fn an_edit_elsewhere_is_seen_here_within_the_poll_interval() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a.txt", "one");
        let machine = service.machine().await;
        assert_eq!(machine.read("a.txt").await.unwrap(), "one");
        service.write_elsewhere("a.txt", "two, and longer");
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(machine.read("a.txt").await.unwrap(), "two, and longer");
        service.edit(Edit::Delete { path: "a.txt".into() });
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert!(machine.list("").await.is_empty());
    }
}

// S7.
#[tokio::test(start_paused = true)]
async fn a_file_made_and_deleted_before_it_was_sent_costs_no_request() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine().await;
    machine.look().await;
    service.control.reset_log();
    machine.write("temp", "x").await;
    machine.unlink("temp").await.unwrap();
    machine.sync().await;
    assert_eq!(service.requests("PUT") + service.requests("POST") + service.requests("DELETE"), 0);
}

// S6.
#[tokio::test(start_paused = true)]
async fn ten_saves_in_a_row_cost_one_upload() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine().await;
    machine.look().await;
    service.control.reset_log();
    for save in 0..10 {
        machine.write("a.txt", &format!("save {save}")).await;
    }
    machine.sync().await;
    assert_eq!(service.requests("PUT"), 1);
    assert_eq!(service.tree(), [file("a.txt", "save 9")]);
}

// S44.
#[tokio::test(start_paused = true)]
async fn a_save_by_rename_over_keeps_the_items_id_and_makes_one_version() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("report.txt", "old");
        let machine = service.machine().await;
        assert_eq!(machine.read("report.txt").await.unwrap(), "old");
        let before = service.control.id_of("report.txt");
        service.control.reset_log();
        machine.write(".report.tmp", "new content").await;
        machine.rename(".report.tmp", "report.txt").await.unwrap();
        machine.sync().await;
        assert_eq!(service.tree(), [file("report.txt", "new content")]);
        assert_eq!(service.control.id_of("report.txt"), before);
        assert_eq!((service.requests("PUT"), service.requests("DELETE")), (1, 0));
    }
}

// S46.
#[tokio::test(start_paused = true)]
async fn a_save_that_moves_the_old_file_aside_keeps_the_items_id() {
    for keep_backup in [false, true] {
        let service = Service::new(Flavour::Business);
        service.write_elsewhere("f.txt", "old");
        let machine = service.machine().await;
        assert_eq!(machine.read("f.txt").await.unwrap(), "old");
        let before = service.control.id_of("f.txt");
        machine.rename("f.txt", "f.txt~").await.unwrap();
        machine.write("f.txt", "new").await;
        if !keep_backup {
            machine.unlink("f.txt~").await.unwrap();
        }
        machine.sync().await;
        let mut expected = vec![file("f.txt", "new")];
        if keep_backup {
            expected.push(file("f.txt~", "old"));
        }
        assert_eq!(service.tree(), expected);
        assert_eq!(service.control.id_of("f.txt"), before);
    }
}

// S46.
#[tokio::test(start_paused = true)]
async fn a_save_whose_move_aside_was_sent_already_keeps_the_items_id_too() {
    for flavour in FLAVOURS {
        for (backup, unlinked) in [("f.txt~", false), ("f.txt~", true), ("backups/f.txt", false)] {
            let service = Service::new(flavour);
            service.write_elsewhere("f.txt", "old");
            service.write_elsewhere("backups/other", "other");
            let machine = service.machine().await;
            assert_eq!(machine.read("f.txt").await.unwrap(), "old");
            let before = service.control.id_of("f.txt");
            machine.rename("f.txt", backup).await.unwrap();
            machine.sync().await;
            assert_eq!(service.control.id_of(backup), before);
            tokio::time::sleep(Duration::from_secs(300)).await;
            machine.write("f.txt", "new").await;
            if unlinked {
                machine.unlink(backup).await.unwrap();
            }
            machine.sync().await;
            machine.look().await;
            assert_eq!(service.control.id_of("f.txt"), before, "{flavour:?} {backup}");
            let versions = service.item("f.txt")["versions"].as_array().map(Vec::len);
            assert_eq!(versions, Some(1), "one more version: {flavour:?} {backup}");
            let mut expected = vec![folder("backups"), file("backups/other", "other"), file("f.txt", "new")];
            if !unlinked {
                expected.push(file(backup, "old"));
            }
            expected.sort();
            assert_eq!(service.tree(), expected, "{flavour:?}");
            assert_eq!(machine.read("f.txt").await.unwrap(), "new");
        }
    }
}

// S46.
#[tokio::test(start_paused = true)]
async fn a_file_made_where_another_was_moved_away_long_ago_is_a_new_item() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("f.txt", "old");
    let machine = service.machine().await;
    assert_eq!(machine.read("f.txt").await.unwrap(), "old");
    let before = service.control.id_of("f.txt");
    machine.rename("f.txt", "g.txt").await.unwrap();
    machine.sync().await;
    tokio::time::sleep(Duration::from_secs(660)).await;
    machine.write("f.txt", "another").await;
    machine.sync().await;
    assert_eq!(service.control.id_of("g.txt"), before);
    assert_eq!(service.tree(), [file("f.txt", "another"), file("g.txt", "old")]);
}

// S46.
#[tokio::test(start_paused = true)]
async fn a_backup_that_is_not_whole_here_gives_its_item_back_when_it_is_unlinked() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("f.txt", "old, never read");
        let machine = service.machine().await;
        machine.look().await;
        let before = service.control.id_of("f.txt");
        machine.rename("f.txt", "f.txt~").await.unwrap();
        machine.sync().await;
        machine.write("f.txt", "new").await;
        machine.unlink("f.txt~").await.unwrap();
        machine.sync().await;
        assert_eq!(service.tree(), [file("f.txt", "new")], "{flavour:?}");
        assert_eq!(service.control.id_of("f.txt"), before, "{flavour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn renames_moves_swaps_and_deletes_reach_the_service() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a", "A");
        service.write_elsewhere("b", "B");
        service.write_elsewhere("dir/c", "C");
        service.write_elsewhere("gone/x/y", "Y");
        let machine = service.machine().await;
        machine.look().await;
        let ids = (service.control.id_of("a"), service.control.id_of("b"));
        machine.rename_as("a", "b", RenameMode::Exchange).await.unwrap();
        machine.rename("dir/c", "c").await.unwrap();
        machine.rename("dir", "Dir").await.unwrap();
        machine.unlink("gone/x/y").await.unwrap();
        machine.rmdir("gone/x").await.unwrap();
        machine.rmdir("gone").await.unwrap();
        machine.sync().await;
        assert_eq!(service.tree(), [folder("Dir"), file("a", "B"), file("b", "A"), file("c", "C")]);
        assert_eq!((service.control.id_of("b"), service.control.id_of("a")), ids);
    }
}

// S43.
#[tokio::test(start_paused = true)]
async fn a_tree_of_any_size_is_deleted_by_one_request() {
    let service = Service::new(Flavour::Business);
    for number in 0..20 {
        service.write_elsewhere(&format!("tree/d{}/f{number}", number % 4), "x");
    }
    let machine = service.machine().await;
    machine.look().await;
    service.control.reset_log();
    for number in 0..20 {
        machine.unlink(&format!("tree/d{}/f{number}", number % 4)).await.unwrap();
    }
    for number in 0..4 {
        machine.rmdir(&format!("tree/d{number}")).await.unwrap();
    }
    machine.rmdir("tree").await.unwrap();
    machine.sync().await;
    assert_eq!(service.requests("DELETE"), 1);
    assert!(service.tree().is_empty());
}

// S39, S43.
#[tokio::test(start_paused = true)]
async fn what_appears_in_a_deleted_folder_meanwhile_is_not_deleted_with_it() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/old", "old");
        let machine = service.machine().await;
        machine.look().await;
        machine.unlink("d/old").await.unwrap();
        machine.rmdir("d").await.unwrap();
        service.write_elsewhere("d/new", "new");
        machine.sync().await;
        assert_eq!(service.tree(), [folder("d"), file("d/new", "new")]);
        assert_eq!(machine.list("d").await, ["new"]);
    }
}

// S43.
#[tokio::test(start_paused = true)]
async fn what_went_with_a_deleted_folder_unknown_to_us_is_told_once_and_nothing_else_is() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        for path in ["d/known", "d/e/known", "other/known"] {
            service.write_elsewhere(path, "known");
        }
        let machine = service.machine().await;
        machine.look().await;
        for path in ["d/known", "d/e/known", "other/known"] {
            machine.unlink(path).await.unwrap();
        }
        for path in ["d/e", "d", "other"] {
            machine.rmdir(path).await.unwrap();
        }
        // Both arrive between the look and the request, which take three seconds.
        service.control.set_latency(Duration::from_secs(3));
        let looks = machine.engine.looks();
        while machine.engine.looks() == looks {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        service.write_elsewhere("d/e/new", "by another client");
        service.write_elsewhere("d/e/new too", "by another client");
        machine.sync().await;
        service.control.set_latency(Duration::ZERO);
        assert!(service.control.id_of("d").is_none(), "{flavour:?}: {:?}", service.tree());
        for _ in 0..3 {
            machine.look().await;
        }
        let notices = machine.engine.store().notices(100).unwrap();
        let told: Vec<_> = notices.iter().map(|notice| notice.path.as_str()).collect();
        assert_eq!(told, ["d/e"], "{flavour:?}: {notices:?}");
        assert!(notices[0].text.contains("recycle bin"), "{notices:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_on_both_sides_keeps_both_contents() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a.txt", "base");
        let machine = service.machine().await;
        assert_eq!(machine.read("a.txt").await.unwrap(), "base");
        machine.write("a.txt", "mine").await;
        service.write_elsewhere("a.txt", "theirs");
        machine.sync().await;
        let tree = service.tree();
        assert_eq!(tree.len(), 2, "{tree:?}");
        assert!(tree.contains(&file("a.txt", "theirs")), "{tree:?}");
        let copy = tree.iter().find(|(path, _)| path != "a.txt").unwrap();
        assert!(copy.0.starts_with("a (conflict box ") && copy.0.ends_with(").txt"), "{copy:?}");
        assert_eq!(copy.1.as_deref(), Some("mine"));
        assert_eq!(machine.read("a.txt").await.unwrap(), "theirs");
        assert_eq!(machine.read(&copy.0).await.unwrap(), "mine");
    }
}

#[tokio::test(start_paused = true)]
async fn two_new_files_of_one_name_are_both_kept() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.look().await;
        machine.write("a.txt", "mine").await;
        service.write_elsewhere("A.TXT", "theirs");
        machine.sync().await;
        let tree = service.tree();
        assert_eq!(tree.len(), 2, "{tree:?}");
        assert!(tree.contains(&file("A.TXT", "theirs")), "{tree:?}");
        assert!(tree.iter().any(|(_, content)| content.as_deref() == Some("mine")), "{tree:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_new_folders_of_one_name_become_one() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.look().await;
        machine.mkdir("d").await.unwrap();
        machine.write("d/mine", "m").await;
        service.write_elsewhere("d/theirs", "t");
        machine.sync().await;
        assert_eq!(service.tree(), [folder("d"), file("d/mine", "m"), file("d/theirs", "t")]);
        machine.look().await;
        assert_eq!(machine.list("d").await, ["mine", "theirs"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_edited_file_that_was_deleted_elsewhere_is_created_again() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/a.txt", "base");
        let machine = service.machine().await;
        assert_eq!(machine.read("d/a.txt").await.unwrap(), "base");
        machine.write("d/a.txt", "mine").await;
        service.edit(Edit::Delete { path: "d".into() });
        machine.sync().await;
        assert_eq!(service.tree(), [folder("d"), file("d/a.txt", "mine")]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_closed_before_a_crash_is_sent_by_the_next_run() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.mkdir("d").await.unwrap();
        machine.write("d/a.txt", "survives").await;
        machine.crash();
        let again = service.machine().await;
        assert_eq!(again.read("d/a.txt").await.unwrap(), "survives");
        again.sync().await;
        assert_eq!(service.tree(), [folder("d"), file("d/a.txt", "survives")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_file_goes_in_a_session_and_reads_back() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        let content = "0123456789abcdef".repeat(1 << 20);
        machine.write("big", &content).await;
        machine.sync().await;
        assert_eq!(service.item("big")["size"], 16 << 20);
        assert!(machine.read("big").await.unwrap() == content);
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_time_reaches_the_service_in_one_version() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.write("a.txt", "x").await;
        machine.set_mtime("a.txt", 1_600_000_000).await.unwrap();
        machine.sync().await;
        let item = service.item("a.txt");
        assert!(item["mtime"].as_str().unwrap().starts_with("2020-09-13T12:26:40"), "{item}");
        assert_eq!(item["versions"].as_array().map(Vec::len), Some(0), "earlier versions: {item}");
    }
}

#[tokio::test(start_paused = true)]
async fn offline_changes_queue_and_go_out_when_the_service_is_back() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a.txt", "cached");
    let machine = service.machine().await;
    assert_eq!(machine.read("a.txt").await.unwrap(), "cached");
    let fault = service.control.cut();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(machine.read("a.txt").await.unwrap(), "cached");
    machine.write("new.txt", "written offline").await;
    assert_eq!(machine.read("new.txt").await.unwrap(), "written offline");
    tokio::time::sleep(Duration::from_secs(120)).await;
    service.control.remove_fault(fault);
    machine.sync().await;
    assert_eq!(service.tree(), [file("a.txt", "cached"), file("new.txt", "written offline")]);
}

#[tokio::test(start_paused = true)]
async fn a_partly_read_file_can_be_changed_in_the_middle() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let old = "abcdefgh".repeat(1 << 18);
        service.write_elsewhere("a.bin", &old);
        let machine = service.machine().await;
        let flags = OpenFlags::READ_WRITE;
        let open = machine.open("a.bin", flags).await.unwrap();
        machine.files.write(open.0, open.1, 1_000_000, b"CHANGED".to_vec().into()).await.unwrap();
        machine.close(open).await.unwrap();
        machine.sync().await;
        let mut expected = old.into_bytes();
        expected[1_000_000..1_000_007].copy_from_slice(b"CHANGED");
        assert!(service.control.content("a.bin").unwrap() == expected);
        assert!(machine.read("a.bin").await.unwrap().into_bytes() == expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_partly_changed_file_whose_item_was_deleted_elsewhere_is_sent_whole_after_a_crash() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let old = "abcdefgh".repeat(1 << 17);
        service.write_elsewhere("a.bin", &old);
        let machine = service.machine().await;
        assert!(machine.read("a.bin").await.unwrap() == old);
        let flags = OpenFlags::READ_WRITE;
        let open = machine.open("a.bin", flags).await.unwrap();
        machine.files.write(open.0, open.1, 500_000, b"CHANGED".to_vec().into()).await.unwrap();
        machine.close(open).await.unwrap();
        service.edit(Edit::Delete { path: "a.bin".into() });
        machine.crash();
        let again = service.machine().await;
        again.sync().await;
        let mut expected = old.into_bytes();
        expected[500_000..500_007].copy_from_slice(b"CHANGED");
        assert!(service.control.content("a.bin").unwrap() == expected);
    }
}

// S31.
#[tokio::test(start_paused = true)]
async fn the_first_edit_elsewhere_of_a_file_made_here_is_seen_however_quiet_it_is_here() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.look().await;
        machine.write("a.txt", "mine").await;
        machine.mkdir("d").await.unwrap();
        machine.sync().await;
        tokio::time::sleep(ROUND).await;
        service.write_elsewhere("a.txt", "theirs");
        service.edit(Edit::Delete { path: "d".into() });
        tokio::time::sleep(ROUND).await;
        assert_eq!(machine.list("").await, ["a.txt"]);
        assert_eq!(machine.read("a.txt").await.unwrap(), "theirs");
    }
}

// S45.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_replaced_by_rename_stays_readable_until_it_is_closed() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a.txt", "old content");
    let machine = service.machine().await;
    machine.look().await;
    let open = machine.open("a.txt", OpenFlags::READ).await.unwrap();
    assert_eq!(machine.files.read(open.0, open.1, 0, 3).await.unwrap(), "old");
    machine.write("a.tmp", "new content").await;
    machine.rename("a.tmp", "a.txt").await.unwrap();
    machine.sync().await;
    assert_eq!(service.tree(), [file("a.txt", "new content")]);
    assert_eq!(machine.files.read(open.0, open.1, 0, 100).await.unwrap(), "old content");
    machine.close(open).await.unwrap();
    assert_eq!(machine.read("a.txt").await.unwrap(), "new content");
}

// S49.
#[tokio::test(start_paused = true)]
async fn offline_what_is_here_works_and_what_is_not_fails_at_once() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("read.txt", "read before");
    service.write_elsewhere("unread.txt", "never read");
    let machine = service.machine().await;
    machine.look().await;
    assert_eq!(machine.read("read.txt").await.unwrap(), "read before");
    let cut = service.control.cut();
    tokio::time::sleep(Duration::from_secs(120)).await;
    let before = tokio::time::Instant::now();
    assert_eq!(machine.read("read.txt").await.unwrap(), "read before");
    assert_eq!(machine.list("").await, ["read.txt", "unread.txt"]);
    assert_eq!(machine.read("unread.txt").await.unwrap_err().errno(), libc::ENETUNREACH);
    machine.write("new.txt", "written offline").await;
    machine.rename("read.txt", "renamed.txt").await.unwrap();
    machine.unlink("unread.txt").await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    service.control.remove_fault(cut);
    machine.sync().await;
    assert_eq!(service.tree(), [file("new.txt", "written offline"), file("renamed.txt", "read before")]);
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_here_can_be_made_again_elsewhere() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a.txt", "one");
        let machine = service.machine().await;
        machine.look().await;
        machine.unlink("a.txt").await.unwrap();
        machine.sync().await;
        service.write_elsewhere("a.txt", "two");
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(machine.read("a.txt").await.unwrap(), "two", "{flavour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_being_made_here_is_not_shown_twice() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.look().await;
        // The service has made the file and shows it in delta; its answer is still on the way.
        let action = FaultAction::Stall { after: true };
        let (method, count) = (Some("PUT".into()), Some(1));
        service.control.inject(Fault { method, path: None, op: None, skip: 0, count, action });
        machine.write("a.txt", "hello").await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(service.tree(), [file("a.txt", "hello")]);
        machine.look().await;
        assert_eq!(machine.list("").await, ["a.txt"]);
        service.control.release_stalls();
        machine.sync().await;
        tokio::time::sleep(ROUND).await;
        assert_eq!(machine.list("").await, ["a.txt"]);
        assert_eq!(machine.read("a.txt").await.unwrap(), "hello");
        assert_eq!(service.tree(), [file("a.txt", "hello")]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_made_while_ours_was_on_its_way_is_shown_in_the_end() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine().await;
    machine.look().await;
    let action = FaultAction::Stall { after: false };
    let (method, count) = (Some("PUT".into()), Some(1));
    service.control.inject(Fault { method, path: None, op: None, skip: 0, count, action });
    machine.write("a.txt", "ours").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    service.write_elsewhere("a.txt", "theirs");
    machine.look().await;
    assert_eq!(machine.list("").await, ["a.txt"]);
    service.control.release_stalls();
    machine.sync().await;
    tokio::time::sleep(ROUND).await;
    assert_eq!(machine.read("a.txt").await.unwrap(), "theirs");
    assert_eq!(machine.list("").await.len(), 2, "ours is the conflict copy");
    assert_eq!(service.tree().len(), 2);
}
