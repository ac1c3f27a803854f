//! Answers that something newer overtook on their way: what they say is looked at again, neither believed nor forgotten.

mod sync_support;

use std::time::Duration;

use onedrivefs::emulator::{Edit, Fault, FaultAction, Flavour, Resync};
use onedrivefs::model::{ItemId, NodeId};
use onedrivefs::store::{Durability, LocalView, NodeKind, Tx};
use sync_support::{Machine, Service};

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];

fn file(path: &str, content: &str) -> (String, Option<String>) {
    (path.into(), Some(content.into()))
}

fn folder(path: &str) -> (String, Option<String>) {
    (path.into(), None)
}

/// What the service says to the next GET of this comes once it is released.
fn hold_answer(service: &Service, path: &str) {
    hold_answer_after(service, 0, path);
}

/// As [`hold_answer`], of the request after so many.
fn hold_answer_after(service: &Service, skip: u32, path: &str) {
    service.control.inject(Fault {
        method: Some("GET".into()),
        path: Some(path.into()),
        op: None,
        skip,
        count: Some(1),
        action: FaultAction::Stall { after: true },
    });
}

/// Until what is held up is on its way, and all else has happened.
async fn under_way() {
    tokio::time::sleep(Duration::from_secs(4)).await;
}

/// The folder `d` is deleted elsewhere, and `then` happens, while the answer to a look at it is on its way.
async fn overtake_look_at_folder(service: &Service, then: impl FnOnce()) -> Machine {
    service.write_elsewhere("d/other", "theirs");
    let machine = service.quiet_machine().await;
    // The name is taken by now: what has it is looked at, and then the folder.
    machine.write("d/f", "mine").await;
    service.write_elsewhere("d/f", "theirs");
    hold_answer_after(service, 1, &format!("/items/{}", service.control.id_of("d").expect("an id")));
    under_way().await;
    service.edit(Edit::Delete { path: "d".into() });
    then();
    machine.look().await;
    under_way().await;
    service.control.release_stalls();
    machine.sync().await;
    machine.look().await;
    machine
}

// S31, S43.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_moved_out_elsewhere_before_its_folder_was_deleted_here_is_shown_there() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/e/f", "theirs");
        let machine = service.quiet_machine().await;
        machine.unlink("d/e/f").await.expect("unlink");
        machine.rmdir("d/e").await.expect("rmdir");
        machine.rmdir("d").await.expect("rmdir");
        machine.look().await;
        service.edit(Edit::Move { path: "d/e/f".into(), to: "moved".into() });
        hold_answer(&service, "delta");
        machine.engine.refresh();
        under_way().await;
        assert_eq!(service.tree(), [file("moved", "theirs")], "{flavour:?}");
        service.control.release_stalls();
        under_way().await;
        assert_eq!(machine.list("").await, ["moved"], "{flavour:?}");
        assert_eq!(machine.read("moved").await.expect("read"), "theirs", "{flavour:?}");
    }
}

// S43.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_deleted_here_does_not_come_back_with_a_look_from_before() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.quiet_machine().await;
        machine.write("f", "mine").await;
        machine.sync().await;
        // What happens elsewhere so soon after an own change is looked at by its id.
        service.edit(Edit::Stir { path: "f".into() });
        hold_answer(&service, &format!("/items/{}", service.control.id_of("f").expect("an id")));
        machine.engine.refresh();
        under_way().await;
        machine.unlink("f").await.expect("unlink");
        machine.sync().await;
        assert_eq!(service.tree(), [], "{flavour:?}");
        service.control.release_stalls();
        under_way().await;
        assert!(machine.list("").await.is_empty(), "{flavour:?}");
    }
}

// S32, S40.
#[tokio::test(start_paused = true)]
async fn a_folder_that_was_deleted_elsewhere_does_not_come_back_with_a_look_from_before() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = overtake_look_at_folder(&service, || {}).await;
        assert_eq!(service.tree(), [folder("d"), file("d/f", "mine")], "{flavour:?}");
        assert_eq!(machine.list("").await, ["d"], "{flavour:?}");
        assert_eq!(machine.list("d").await, ["f"], "{flavour:?}");
    }
}

// S130.
#[tokio::test(start_paused = true)]
async fn a_folder_that_was_made_again_elsewhere_is_not_there_twice_after_a_look_from_before() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine =
            overtake_look_at_folder(&service, || service.write_elsewhere("d/other", "theirs")).await;
        assert_eq!(
            service.tree(),
            [folder("d"), file("d/f", "mine"), file("d/other", "theirs")],
            "{flavour:?}"
        );
        assert_eq!(machine.list("").await, ["d"], "{flavour:?}");
        assert_eq!(machine.list("d").await, ["f", "other"], "{flavour:?}");
    }
}

// S31.
#[tokio::test(start_paused = true)]
async fn a_file_keeps_its_newest_version_when_a_look_from_before_is_answered_after_it() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("g", "mine");
        let machine = service.quiet_machine().await;
        // The name is taken by now: what has it is looked at.
        machine.rename("g", "f").await.expect("rename");
        service.write_elsewhere("f", "first");
        hold_answer(&service, ":/f");
        under_way().await;
        service.write_elsewhere("f", "second, longer");
        machine.look().await;
        service.control.release_stalls();
        machine.sync().await;
        machine.look().await;
        assert_eq!(machine.read("f").await.expect("read"), "second, longer", "{flavour:?}");
        let tree = service.tree();
        assert!(tree.contains(&file("f", "second, longer")), "{flavour:?}: {tree:?}");
        assert!(tree.iter().any(|(_, content)| content.as_deref() == Some("mine")), "{flavour:?}: {tree:?}");
    }
}

// S31.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_moved_out_of_a_folder_that_is_found_to_be_gone_is_the_same_file() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/e/f", "theirs");
        service.write_elsewhere("d/e/g", "stays");
        let machine = service.quiet_machine().await;
        assert_eq!(machine.list("d/e").await, ["f", "g"]);
        let before = machine.find("d/e/f").await.expect("it is there");
        service.edit(Edit::Move { path: "d/e/f".into(), to: "moved".into() });
        service.edit(Edit::Delete { path: "d".into() });
        // Delta tells of it when the folder was asked for already.
        service.control.set_delta_lag(Duration::from_secs(600));
        machine.write("d/new", "mine").await;
        machine.sync().await;
        assert_eq!(
            service.tree(),
            [folder("d"), file("d/new", "mine"), file("moved", "theirs")],
            "{flavour:?}"
        );
        service.control.set_delta_lag(Duration::ZERO);
        machine.look().await;
        assert_eq!(machine.list("").await, ["d", "moved"], "{flavour:?}");
        assert_eq!(machine.find("moved").await.expect("it is there"), before, "{flavour:?}");
        assert_eq!(machine.list("d").await, ["new"], "{flavour:?}");
    }
}

// S36, S37.
#[tokio::test(start_paused = true)]
async fn an_edit_stays_in_its_folder_when_a_look_from_before_tells_of_one_that_has_another_id_by_now() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("x", "theirs");
        service.write_elsewhere("b/other", "theirs");
        let machine = service.quiet_machine().await;
        machine.write("x", "mine").await;
        service.edit(Edit::Move { path: "x".into(), to: "b/d".into() });
        let look = format!("/items/{}", service.control.id_of("b/d").expect("an id"));
        // The edit is refused, and what became of the file is asked for.
        hold_answer(&service, &look);
        under_way().await;
        service.edit(Edit::Delete { path: "b".into() });
        service.write_elsewhere("b/other", "theirs");
        // That the file is gone is found out only after that answer.
        let unreachable = service.control.inject(Fault {
            method: Some("GET".into()),
            path: Some(look),
            op: None,
            skip: 0,
            count: None,
            action: FaultAction::Reset { after: false },
        });
        machine.engine.refresh();
        under_way().await;
        service.control.release_stalls();
        under_way().await;
        service.control.remove_fault(unreachable);
        machine.sync().await;
        machine.look().await;
        assert_eq!(
            service.tree(),
            [folder("b"), file("b/other", "theirs"), file("x", "mine")],
            "{flavour:?}"
        );
        assert_eq!(machine.list("").await, ["b", "x"], "{flavour:?}");
    }
}

// S37.
#[tokio::test(start_paused = true)]
async fn an_edit_in_a_folder_of_which_nothing_but_an_id_that_is_gone_was_ever_known_is_sent() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("x", "theirs");
        let machine = service.quiet_machine().await;
        let cut = service.control.cut();
        machine.write("x", "mine").await;
        let id = machine.find("x").await.expect("it is there").node();
        let moved = machine.engine.store().write(Durability::Process, |tx| {
            let parent = tx.node_of_item(&ItemId::new("nobody told of it"))?;
            let local = tx.node(id)?.local.clone().expect("an edit");
            tx.set_remote(id, None)?;
            tx.set_local(id, Some(&LocalView { parent, name: "d".into(), ..local }))
        });
        moved.expect("the store works");
        service.edit(Edit::Delete { path: "x".into() });
        service.control.remove_fault(cut);
        machine.engine.refresh();
        machine.sync().await;
        assert_eq!(service.tree(), [file("d", "mine")], "{flavour:?}");
        assert_eq!(machine.list("").await, ["d"], "{flavour:?}");
    }
}

// S43.
#[tokio::test(start_paused = true)]
async fn a_folder_that_another_client_made_while_ours_was_made_and_removed_is_kept_with_what_is_in_it() {
    for flavour in FLAVOURS {
        for restarted in [false, true] {
            let service = Service::new(flavour);
            let mut machine = service.quiet_machine().await;
            let cut = service.control.cut();
            machine.mkdir("b").await.expect("mkdir");
            under_way().await;
            machine.rmdir("b").await.expect("rmdir");
            service.write_elsewhere("b/d/f", "theirs");
            service.control.set_delta_lag(Duration::from_secs(20));
            if restarted {
                machine.crash();
                machine = service.machine_with(|engine, _| engine.poll = Duration::from_secs(3600)).await;
            }
            service.control.remove_fault(cut);
            machine.engine.refresh();
            machine.sync().await;
            assert_eq!(
                service.tree(),
                [folder("b"), folder("b/d"), file("b/d/f", "theirs")],
                "{flavour:?} {restarted}"
            );
            service.control.set_delta_lag(Duration::ZERO);
            machine.look().await;
            assert_eq!(machine.read("b/d/f").await.expect("read"), "theirs", "{flavour:?} {restarted}");
        }
    }
}

// S31.
#[tokio::test(start_paused = true)]
async fn who_reads_what_went_with_its_folder_does_not_look_at_all_that_was_in_it() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let names: Vec<String> = (0..30).map(|n| format!("d/e/f/{n}")).collect();
        for name in &names {
            service.write_elsewhere(name, "theirs");
        }
        let machine = service.quiet_machine().await;
        service.edit(Edit::Delete { path: "d".into() });
        let (read, before) = (5, service.requests("GET"));
        for name in &names[..read] {
            machine.read(name).await.expect_err("it is gone");
        }
        // The content, then the item, its place, and both of each of three folders.
        let asked = service.requests("GET") - before;
        assert!(asked <= read * 9, "{flavour:?}: {asked} requests for {read} files");
    }
}

// S31, S43.
#[tokio::test(start_paused = true)]
async fn a_folder_that_was_moved_out_of_one_that_was_deleted_here_shows_what_is_in_it_after_a_resync() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/e/f", "theirs");
        let machine = service.quiet_machine().await;
        machine.unlink("d/e/f").await.expect("unlink");
        machine.rmdir("d/e").await.expect("rmdir");
        machine.rmdir("d").await.expect("rmdir");
        machine.look().await;
        service.edit(Edit::Move { path: "d/e".into(), to: "moved".into() });
        service.control.delta_resync(Resync::Plain);
        // The drive was read before our delete, and that is told after it.
        hold_answer_after(&service, 1, "delta");
        machine.engine.refresh();
        under_way().await;
        assert_eq!(service.tree(), [folder("moved"), file("moved/f", "theirs")], "{flavour:?}");
        service.control.release_stalls();
        under_way().await;
        assert_eq!(machine.list("").await, ["moved"], "{flavour:?}");
        assert_eq!(machine.list("moved").await, ["f"], "{flavour:?}");
        assert_eq!(machine.read("moved/f").await.expect("read"), "theirs", "{flavour:?}");
    }
}

// S32.
#[tokio::test(start_paused = true)]
async fn a_file_that_went_with_its_folder_before_the_answer_that_made_it_is_not_shown() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/other", "theirs");
        let machine = service.quiet_machine().await;
        service.control.inject(Fault {
            method: Some("PUT".into()),
            path: None,
            op: None,
            skip: 0,
            count: Some(1),
            action: FaultAction::Stall { after: true },
        });
        machine.write("d/f", "mine").await;
        under_way().await;
        let item = service.control.id_of("d/f").expect("an id");
        service.edit(Edit::Delete { path: "d".into() });
        service.write_elsewhere("d/other", "theirs");
        // Nothing tells of the file that is gone.
        service.control.delta_resync(Resync::Plain);
        machine.look().await;
        // What became of it cannot be asked for at once.
        let unreachable = service.control.inject(Fault {
            method: Some("GET".into()),
            path: Some(format!("/items/{item}")),
            op: None,
            skip: 0,
            count: None,
            action: FaultAction::Reset { after: false },
        });
        service.control.release_stalls();
        tokio::time::sleep(Duration::from_secs(60)).await;
        service.control.remove_fault(unreachable);
        machine.look().await;
        machine.sync().await;
        assert_eq!(service.tree(), [folder("d"), file("d/other", "theirs")], "{flavour:?}");
        assert_eq!(machine.list("d").await, ["other"], "{flavour:?}");
    }
}

// S32.
#[tokio::test(start_paused = true)]
async fn a_file_that_went_before_the_drive_was_read_anew_and_the_answer_that_made_it_came_is_not_shown() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("other", "theirs");
        let machine = service.quiet_machine().await;
        service.control.inject(Fault {
            method: Some("PUT".into()),
            path: None,
            op: None,
            skip: 0,
            count: Some(1),
            action: FaultAction::Stall { after: true },
        });
        machine.write("f", "mine").await;
        under_way().await;
        service.edit(Edit::Delete { path: "f".into() });
        // It lists what is there: nothing tells of the file that is gone.
        service.control.delta_resync(Resync::Plain);
        machine.look().await;
        service.control.release_stalls();
        machine.sync().await;
        machine.look().await;
        assert_eq!(service.tree(), [file("other", "theirs")], "{flavour:?}");
        assert_eq!(machine.list("").await, ["other"], "{flavour:?}");
    }
}

// S32.
#[tokio::test(start_paused = true)]
async fn what_is_not_listed_any_more_and_cannot_be_looked_at_is_looked_at_later() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/f", "theirs");
        let machine = service.quiet_machine().await;
        let item = service.control.id_of("d").expect("an id");
        service.edit(Edit::Delete { path: "d".into() });
        service.control.delta_resync(Resync::Plain);
        let locked = service.control.inject(Fault {
            method: Some("GET".into()),
            path: Some(format!("/items/{item}")),
            op: None,
            skip: 0,
            count: None,
            action: FaultAction::Status {
                status: 423,
                code: Some("resourceLocked".into()),
                inner: None,
                retry_after: None,
                after: false,
            },
        });
        machine.look().await;
        assert_eq!(machine.list("").await, ["d"], "{flavour:?}: nobody knows that it is gone");
        service.control.remove_fault(locked);
        machine.look().await;
        assert!(machine.list("").await.is_empty(), "{flavour:?}");
    }
}

// S36.
#[tokio::test(start_paused = true)]
async fn a_folder_that_another_client_moved_to_where_ours_was_to_be_made_is_not_taken_for_ours() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a/c/f", "theirs");
        let machine = service.quiet_machine().await;
        let fault = |method: &str, count| Fault {
            method: Some(method.into()),
            path: None,
            op: None,
            skip: 0,
            count,
            action: FaultAction::Reset { after: false },
        };
        // Nobody knows whether it was made, and nobody can ask for a while.
        service.control.inject(fault("POST", Some(1)));
        let unreachable = service.control.inject(fault("GET", None));
        machine.mkdir("b").await.expect("made here");
        under_way().await;
        service.edit(Edit::Move { path: "a/c".into(), to: "b".into() });
        machine.rename("b", "a/c/w").await.expect("moved here");
        service.control.remove_fault(unreachable);
        machine.sync().await;
        machine.look().await;
        let expected = [folder("a"), folder("b"), file("b/f", "theirs"), folder("b/w")];
        assert_eq!(service.tree(), expected, "{flavour:?}");
        assert_eq!(machine.list("b").await, ["f", "w"], "{flavour:?}");
        assert!(machine.list("a").await.is_empty(), "{flavour:?}");
    }
}

// S36, S37.
#[tokio::test(start_paused = true)]
async fn a_folder_that_was_deleted_here_and_moved_to_the_name_of_a_deleted_one_elsewhere_is_there_once() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a/e/f", "theirs");
        service.write_elsewhere("b/d/other", "theirs");
        let machine = service.quiet_machine().await;
        machine.write("b/d/mine", "mine").await;
        machine.sync().await;
        machine.look().await;
        service.edit(Edit::Move { path: "b/d/mine".into(), to: "moved".into() });
        service.edit(Edit::Delete { path: "b/d".into() });
        service.edit(Edit::Move { path: "a/e".into(), to: "b/d".into() });
        machine.unlink("a/e/f").await.expect("unlink");
        machine.rmdir("a/e").await.expect("rmdir");
        machine.look().await;
        machine.sync().await;
        machine.look().await;
        let expected = [folder("a"), folder("b"), folder("b/d"), file("moved", "mine")];
        assert_eq!(service.tree(), expected, "{flavour:?}");
        assert_eq!(machine.list("b").await, ["d"], "{flavour:?}");
        assert!(machine.list("b/d").await.is_empty(), "{flavour:?}");
        assert_eq!(machine.read("moved").await.expect("it is there"), "mine", "{flavour:?}");
    }
}

/// Moves these, unsent, into a folder of which this row is all that there is.
fn put_into(machine: &Machine, moved: &[NodeId], folder: impl FnOnce(&mut Tx<'_>) -> NodeId) {
    let done = machine.engine.store().write(Durability::Process, |tx| {
        let parent = folder(tx);
        for &id in moved {
            let local = tx.node(id)?.local.clone().expect("unsent");
            tx.set_local(id, Some(&LocalView { parent, ..local }))?;
        }
        Ok(())
    });
    done.expect("the store works");
}

// S37.
#[tokio::test(start_paused = true)]
async fn what_is_unsent_in_a_folder_that_is_not_there_is_seen_and_sent_at_the_top() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("d/moved/f", "theirs");
        service.write_elsewhere("d/renamed", "theirs");
        let machine = service.quiet_machine().await;
        let cut = service.control.cut();
        machine.write("d/new", "mine").await;
        machine.mkdir("d/made").await.expect("made");
        machine.rename("d/renamed", "d/renamed2").await.expect("renamed");
        machine.rename("d/moved", "d/moved2").await.expect("renamed");
        let mut nodes = Vec::new();
        for path in ["d/new", "d/made", "d/renamed2", "d/moved2"] {
            nodes.push(machine.find(path).await.expect("it is there").node());
        }
        put_into(&machine, &nodes, |tx| {
            let row = tx.insert(NodeKind::Folder).expect("a row");
            tx.remove(row).expect("no row");
            row
        });
        service.control.remove_fault(cut);
        machine.engine.refresh();
        machine.sync().await;
        let mut expected = vec![folder("d"), folder("made"), folder("moved2"), file("moved2/f", "theirs")];
        expected.extend([file("new", "mine"), file("renamed2", "theirs")]);
        assert_eq!(service.tree(), expected, "{flavour:?}");
        assert_eq!(machine.list("").await, ["d", "made", "moved2", "new", "renamed2"], "{flavour:?}");
    }
}

// S36.
#[tokio::test(start_paused = true)]
async fn what_is_unsent_in_a_folder_that_nobody_told_of_yet_is_sent_there() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.quiet_machine().await;
        service.write_elsewhere("d/f", "theirs");
        let id = ItemId::new(service.control.id_of("d").expect("an id"));
        let cut = service.control.cut();
        machine.write("new", "mine").await;
        let new = machine.find("new").await.expect("it is there").node();
        put_into(&machine, &[new], |tx| tx.node_of_item(&id).expect("a row"));
        service.control.remove_fault(cut);
        machine.engine.refresh();
        machine.sync().await;
        assert_eq!(
            service.tree(),
            [folder("d"), file("d/f", "theirs"), file("d/new", "mine")],
            "{flavour:?}"
        );
        machine.look().await;
        assert_eq!(machine.list("d").await, ["f", "new"], "{flavour:?}");
    }
}
