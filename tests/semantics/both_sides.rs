//! Both sides changed; deleting; replacing by rename.

use std::time::Duration;

use onedrivefs::emulator::{Edit, Flavour};
use onedrivefs::vfs::Filesystem;
use tokio::time::sleep;

use crate::sync_support::Service;
use crate::{FLAVOURS, WRITE, changes, file, folder, notices};

// S34, S35.
#[tokio::test(start_paused = true)]
async fn edited_on_both_sides_the_name_is_theirs_and_ours_is_beside_it() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/a.tar.gz", "base");
        let machine = service.machine().await;
        assert_eq!(machine.read("d/a.tar.gz").await.unwrap(), "base");
        let id = service.control.id_of("d/a.tar.gz");
        machine.write("d/a.tar.gz", "mine").await;
        service.write_elsewhere("d/a.tar.gz", "theirs");
        machine.sync().await;
        let tree = service.tree();
        assert_eq!(tree.len(), 3, "{tree:?}");
        assert_eq!(tree[2], file("d/a.tar.gz", "theirs"));
        let (copy, content) = &tree[1];
        assert!(copy.starts_with("d/a (conflict box 2026-01-01 00") && copy.ends_with(").tar.gz"), "{copy}");
        assert_eq!(content.as_deref(), Some("mine"));
        assert_eq!(service.control.id_of("d/a.tar.gz"), id);
        assert_eq!(machine.list("d").await.len(), 2);
        assert!(notices(&machine).contains("d/a.tar.gz"), "{}", notices(&machine));
    }
}

// S36.
#[tokio::test(start_paused = true)]
async fn an_edit_goes_to_the_same_item_wherever_it_was_moved() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a.txt", "base");
        service.edit(Edit::Mkdir { path: "d".into() });
        let machine = service.machine().await;
        assert_eq!(machine.read("a.txt").await.unwrap(), "base");
        let id = service.control.id_of("a.txt");
        machine.write("a.txt", "mine").await;
        service.edit(Edit::Move { path: "a.txt".into(), to: "d/b.txt".into() });
        machine.sync().await;
        assert_eq!(service.tree(), [folder("d"), file("d/b.txt", "mine")]);
        assert_eq!(service.control.id_of("d/b.txt"), id);
        assert_eq!(machine.read("d/b.txt").await.unwrap(), "mine");
    }
}

// S37.
#[tokio::test(start_paused = true)]
async fn edited_here_and_deleted_there_it_is_created_again() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a.txt", "base");
        let machine = service.machine().await;
        assert_eq!(machine.read("a.txt").await.unwrap(), "base");
        machine.write("a.txt", "mine").await;
        service.edit(Edit::Delete { path: "a.txt".into() });
        machine.sync().await;
        assert_eq!(service.tree(), [file("a.txt", "mine")]);
        assert!(notices(&machine).contains("a.txt"), "{}", notices(&machine));
    }
}

// S38.
#[tokio::test(start_paused = true)]
async fn deleted_here_and_edited_there_it_returns_and_that_is_said() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a.txt", "base");
        let machine = service.machine().await;
        machine.look().await;
        machine.unlink("a.txt").await.unwrap();
        service.write_elsewhere("a.txt", "theirs");
        machine.sync().await;
        assert_eq!(service.tree(), [file("a.txt", "theirs")]);
        assert_eq!(machine.read("a.txt").await.unwrap(), "theirs");
        assert!(notices(&machine).contains("a.txt"), "{}", notices(&machine));
    }
}

// S40.
#[tokio::test(start_paused = true)]
async fn a_folder_deleted_there_is_made_again_for_what_is_unsent_in_it_only() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/e/clean.txt", "clean");
        service.write_elsewhere("d/f/clean.txt", "clean");
        let machine = service.machine().await;
        machine.look().await;
        machine.write("d/e/mine.txt", "mine").await;
        service.edit(Edit::Delete { path: "d".into() });
        machine.sync().await;
        assert_eq!(service.tree(), [folder("d"), folder("d/e"), file("d/e/mine.txt", "mine")]);
        assert_eq!(machine.list("d").await, ["e"]);
        assert_eq!(machine.list("d/e").await, ["mine.txt"]);
    }
}

// S41.
#[tokio::test(start_paused = true)]
async fn the_same_name_on_both_sides_merges_folders_and_keeps_both_of_anything_else() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.look().await;
        machine.mkdir("both").await.unwrap();
        machine.write("both/mine", "mine").await;
        machine.mkdir("mixed").await.unwrap();
        machine.write("mixed/mine", "mine").await;
        machine.write("file", "mine").await;
        service.write_elsewhere("both/theirs", "theirs");
        service.write_elsewhere("mixed", "theirs");
        service.write_elsewhere("file", "theirs");
        machine.sync().await;
        let tree = service.tree();
        for expected in [
            folder("both"),
            file("both/mine", "mine"),
            file("both/theirs", "theirs"),
            file("file", "theirs"),
            file("mixed", "theirs"),
        ] {
            assert!(tree.contains(&expected), "{tree:?}");
        }
        let beside = |stem: &str| tree.iter().filter(|(path, _)| path.starts_with(stem)).count();
        assert_eq!((tree.len(), beside("file (conflict box "), beside("mixed (conflict box ")), (8, 1, 2));
    }
}

// S42.
#[tokio::test(start_paused = true)]
async fn what_the_service_rewrites_is_taken_over_and_not_sent_again() {
    let service = Service::new(Flavour::DocumentLibrary);
    let machine = service.machine().await;
    machine.look().await;
    service.control.reset_log();
    machine.write("a.docx", "what a word processor wrote").await;
    machine.sync().await;
    sleep(Duration::from_secs(700)).await;
    let stored = service.control.content("a.docx").unwrap();
    assert_ne!(stored, "what a word processor wrote", "the library has rewritten it");
    assert_eq!(machine.read("a.docx").await.unwrap().as_bytes(), stored);
    machine.sync().await;
    assert_eq!(changes(&service), 1);
    assert_eq!(service.tree().len(), 1);
}

// S65.
#[tokio::test(start_paused = true)]
async fn moved_on_both_sides_it_is_where_the_service_has_it_and_that_is_said() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a.txt", "base");
        let machine = service.machine().await;
        machine.look().await;
        machine.rename("a.txt", "mine.txt").await.unwrap();
        service.edit(Edit::Move { path: "a.txt".into(), to: "theirs.txt".into() });
        machine.sync().await;
        assert_eq!(service.tree(), [file("theirs.txt", "base")]);
        assert_eq!(machine.list("").await, ["theirs.txt"]);
        assert!(notices(&machine).contains("moved here and elsewhere"), "{}", notices(&machine));
    }
}

// S66.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_being_written_is_not_changed_from_elsewhere() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("a.txt", "base");
    let machine = service.machine().await;
    machine.look().await;
    let open = machine.open("a.txt", WRITE).await.unwrap();
    machine.files.write(open.0, open.1, 0, b"m".to_vec().into()).await.unwrap();
    service.write_elsewhere("a.txt", "theirs");
    sleep(Duration::from_secs(61)).await;
    machine.files.write(open.0, open.1, 1, b"ine!".to_vec().into()).await.unwrap();
    machine.close(open).await.unwrap();
    machine.sync().await;
    let tree = service.tree();
    assert_eq!(tree.len(), 2, "{tree:?}");
    assert!(tree.contains(&file("a.txt", "theirs")), "{tree:?}");
    assert!(tree.iter().any(|(_, content)| content.as_deref() == Some("mine!")), "{tree:?}");
}
