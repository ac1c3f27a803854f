//! What the simulation found, each as the shortest story that shows it.

mod sync_support;

use onedrivefs::emulator::{Edit, Flavour};
use onedrivefs::vfs::{Filesystem, OpenFlags};
use sync_support::Service;

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];

fn folder(path: &str) -> (String, Option<String>) {
    (path.into(), None)
}

fn file(path: &str, content: &str) -> (String, Option<String>) {
    (path.into(), Some(content.into()))
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_being_written_at_a_crash_has_its_size_after_the_restart() {
    let service = Service::new(Flavour::Business);
    let machine = service.machine().await;
    let flags = OpenFlags { write: true, ..OpenFlags::default() };
    let open = machine.open("log", flags).await.unwrap();
    machine.files.write(open.0, open.1, 0, b"0123456789".to_vec().into()).await.unwrap();
    machine.crash();
    let again = service.machine().await;
    let ino = again.find("log").await.unwrap();
    assert_eq!(again.files.getattr(ino, None).await.unwrap().0.size, 10);
    assert_eq!(again.read("log").await.unwrap(), "0123456789");
}

#[tokio::test(start_paused = true)]
async fn an_unlinked_file_that_is_open_for_writing_and_edited_elsewhere_comes_back() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.edit(Edit::Write { path: "f".into(), content: b"base".to_vec() });
        let machine = service.machine().await;
        machine.look().await;
        let flags = OpenFlags { read: true, write: true, truncate: true, ..OpenFlags::default() };
        let open = machine.open("f", flags).await.unwrap();
        machine.unlink("f").await.unwrap();
        service.write_elsewhere("f", "theirs");
        machine.look().await;
        machine.files.write(open.0, open.1, 0, b"mine".to_vec().into()).await.unwrap();
        assert_eq!(&machine.files.read(open.0, open.1, 0, 10).await.unwrap()[..], b"mine");
        machine.close(open).await.unwrap();
        machine.sync().await;
        assert_eq!(service.tree(), [file("f", "theirs")]);
        assert_eq!(machine.read("f").await.unwrap(), "theirs");
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_elsewhere_of_a_file_that_is_renamed_over_another_here_is_not_deleted() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("target", "target");
        let machine = service.machine().await;
        machine.look().await;
        machine.write("source", "first").await;
        machine.sync().await;
        machine.look().await;
        // Unsent when the edit elsewhere is seen, and renamed before the two are settled.
        let open = machine.open("source", OpenFlags { write: true, ..OpenFlags::default() }).await.unwrap();
        machine.files.write(open.0, open.1, 0, b"mine!".to_vec().into()).await.unwrap();
        service.write_elsewhere("source", "theirs, unseen");
        machine.look().await;
        machine.rename("source", "target").await.unwrap();
        machine.close(open).await.unwrap();
        machine.sync().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("source", "theirs, unseen"), file("target", "mine!")]);
        assert_eq!(machine.read("source").await.unwrap(), "theirs, unseen");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_in_a_folder_that_was_moved_into_one_deleted_elsewhere_stays_in_sight() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a/c/x", "theirs");
        service.write_elsewhere("b/d/y", "ours");
        let machine = service.machine().await;
        machine.look().await;
        machine.rename("b/d", "a/c/d").await.unwrap();
        service.edit(Edit::Delete { path: "a/c".into() });
        machine.look().await;
        machine.sync().await;
        machine.look().await;
        let moved = [folder("a"), folder("a/c"), folder("a/c/d"), file("a/c/d/y", "ours"), folder("b")];
        let stayed = [folder("a"), folder("b"), folder("b/d"), file("b/d/y", "ours")];
        let tree = service.tree();
        assert!(tree == moved || tree == stayed, "{tree:?}");
        let here = if tree == moved { "a/c/d/y" } else { "b/d/y" };
        assert_eq!(machine.read(here).await.unwrap(), "ours");
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_a_file_moved_out_of_a_folder_that_is_deleted_elsewhere_goes_where_it_lives() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.mkdir("d").await.unwrap();
        machine.write("d/f", "first").await;
        machine.sync().await;
        machine.look().await;
        // So soon after an own change a report alone is not believed, but the deletion in it must wait too.
        let open = machine.open("d/f", OpenFlags { write: true, ..OpenFlags::default() }).await.unwrap();
        machine.files.write(open.0, open.1, 0, b"again".to_vec().into()).await.unwrap();
        service.edit(Edit::Move { path: "d/f".into(), to: "f".into() });
        service.edit(Edit::Delete { path: "d".into() });
        machine.look().await;
        machine.close(open).await.unwrap();
        machine.sync().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("f", "again")]);
        assert_eq!(machine.read("f").await.unwrap(), "again");
    }
}
