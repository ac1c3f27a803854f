//! When two contents are the same: what is adopted, what is kept twice, and what an equal quickXorHash proves.

mod sync_support;

use std::time::Duration;

use onedrivefs::emulator::{Edit, Fault, FaultAction, Flavour, Mark, Rewrite};
use onedrivefs::vfs::{Filesystem, OpenFlags};
use sync_support::Service;

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];

fn file(path: &str, content: &str) -> (String, Option<String>) {
    (path.into(), Some(content.into()))
}

/// Two contents of one length and one quickXorHash: blocks of its period of 160 bytes, swapped.
fn twins() -> (String, String) {
    let (one, two) = ("1".repeat(160), "2".repeat(160));
    (format!("{one}{two}"), format!("{two}{one}"))
}

fn lose_answer(service: &Service, method: &str, after: bool) {
    let action = FaultAction::Reset { after };
    let (method, count) = (Some(method.into()), Some(1));
    service.control.inject(Fault { method, path: None, op: None, skip: 0, count, action });
}

/// Contents below names that begin with `stem`, in order.
fn contents(service: &Service) -> Vec<String> {
    let mut all: Vec<String> = service.tree().into_iter().filter_map(|(_, content)| content).collect();
    all.sort();
    all
}

// S91.
#[tokio::test(start_paused = true)]
async fn the_same_bytes_made_under_one_name_on_both_sides_are_one_file() {
    for flavour in FLAVOURS {
        for content in ["the same", ""] {
            let service = Service::new(flavour);
            let machine = service.quiet_machine().await;
            machine.write("a.txt", content).await;
            service.write_elsewhere("A.txt", content);
            let id = service.control.id_of("A.txt");
            machine.sync().await;
            assert_eq!(service.tree(), [file("A.txt", content)], "{flavour:?}");
            assert_eq!(service.control.id_of("A.txt"), id);
            assert_eq!(machine.list("").await, ["A.txt"]);
            assert_eq!(machine.read("A.txt").await.unwrap(), content);
            machine.write("A.txt", "and then edited").await;
            machine.sync().await;
            assert_eq!(service.tree(), [file("A.txt", "and then edited")], "{flavour:?}");
        }
    }
}

// S91.
#[tokio::test(start_paused = true)]
async fn the_same_edit_on_both_sides_is_no_conflict() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a.txt", "base");
        let machine = service.quiet_machine().await;
        assert_eq!(machine.read("a.txt").await.unwrap(), "base");
        machine.write("a.txt", "the same edit").await;
        service.write_elsewhere("a.txt", "the same edit");
        machine.sync().await;
        assert_eq!(service.tree(), [file("a.txt", "the same edit")], "{flavour:?}");
        assert_eq!(machine.read("a.txt").await.unwrap(), "the same edit");
        let versions = service.item("a.txt")["versions"].as_array().map(Vec::len);
        assert_eq!(versions, Some(1), "earlier versions, {flavour:?}");
    }
}

// S91.
#[tokio::test(start_paused = true)]
async fn a_file_renamed_onto_a_name_that_has_its_bytes_becomes_that_file() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("old", "the same");
        let machine = service.quiet_machine().await;
        machine.rename("old", "new").await.unwrap();
        service.write_elsewhere("new", "the same");
        machine.sync().await;
        assert_eq!(service.tree(), [file("new", "the same")], "{flavour:?}");
        assert_eq!(machine.read("new").await.unwrap(), "the same");
    }
}

// S91.
#[tokio::test(start_paused = true)]
async fn a_file_with_versions_that_is_renamed_onto_a_name_that_has_its_bytes_keeps_them() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("old", "first");
        service.write_elsewhere("old", "the same");
        let id = service.control.id_of("old");
        let machine = service.quiet_machine().await;
        machine.rename("old", "new").await.unwrap();
        service.write_elsewhere("new", "the same");
        machine.sync().await;
        let tree = service.tree();
        assert_eq!(contents(&service), ["the same", "the same"], "{flavour:?}: {tree:?}");
        assert!(tree.contains(&file("new", "the same")), "{flavour:?}: {tree:?}");
        assert!(tree.iter().any(|(path, _)| service.control.id_of(path) == id), "{flavour:?}: {tree:?}");
    }
}

// S91.
#[tokio::test(start_paused = true)]
async fn contents_of_one_size_and_one_quick_xor_hash_are_told_apart() {
    let (ours, theirs) = twins();
    for flavour in FLAVOURS {
        for strong in [false, true] {
            let service = Service::new(flavour);
            service.control.switch(|switches| switches.sha_hashes = strong);
            service.write_elsewhere("edited", "base");
            service.write_elsewhere("moved", &ours);
            let machine = service.quiet_machine().await;
            machine.read("edited").await.unwrap();
            machine.write("made", &ours).await;
            machine.write("edited", &ours).await;
            machine.rename("moved", "onto").await.unwrap();
            for path in ["made", "edited", "onto"] {
                service.write_elsewhere(path, &theirs);
            }
            machine.sync().await;
            let tree = service.tree();
            assert_eq!(tree.len(), 6, "{flavour:?}: {tree:?}");
            for path in ["made", "edited", "onto"] {
                assert!(tree.contains(&file(path, &theirs)), "{flavour:?} {path}");
            }
            assert_eq!(contents(&service).iter().filter(|content| **content == ours).count(), 3);
        }
    }
}

// S38.
#[tokio::test(start_paused = true)]
async fn a_file_deleted_here_returns_when_its_blocks_were_swapped_elsewhere() {
    let (ours, theirs) = twins();
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("a", &ours);
        let machine = service.quiet_machine().await;
        assert_eq!(machine.read("a").await.unwrap(), ours);
        tokio::time::sleep(Duration::from_secs(2)).await;
        machine.unlink("a").await.unwrap();
        service.write_elsewhere("a", &theirs);
        machine.sync().await;
        assert_eq!(service.tree(), [file("a", &theirs)], "{flavour:?}");
        assert_eq!(machine.list("").await, ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn another_clients_content_with_our_hash_is_not_taken_for_an_upload_whose_answer_was_lost() {
    let (ours, theirs) = twins();
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("edited", "base");
        let machine = service.quiet_machine().await;
        machine.read("edited").await.unwrap();
        machine.write("before", "tells us who we are").await;
        machine.sync().await;
        for path in ["edited", "made"] {
            machine.write(path, &ours).await;
            lose_answer(&service, "PUT", false);
            let action = FaultAction::Delay { ms: 30_000 };
            let get = service.control.inject(Fault {
                method: Some("GET".into()),
                path: None,
                op: None,
                skip: 0,
                count: None,
                action,
            });
            tokio::time::sleep(Duration::from_secs(10)).await;
            service.write_elsewhere(path, &theirs);
            service.control.remove_fault(get);
            machine.sync().await;
            let found = contents(&service);
            assert!(found.contains(&theirs) && found.contains(&ours), "{flavour:?} {path}: {found:?}");
            for (gone, _) in service.tree().into_iter().filter(|(name, _)| name.contains("conflict")) {
                service.edit(Edit::Delete { path: gone });
            }
            machine.look().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_hashes_bytes_are_compared() {
    for flavour in FLAVOURS {
        for (theirs, files) in [("the same bytes", 1), ("other bytes, 14", 2)] {
            let service = Service::new(flavour);
            service.write_elsewhere("a.txt", "base");
            let machine = service.quiet_machine().await;
            machine.read("a.txt").await.unwrap();
            machine.write("a.txt", "the same bytes").await;
            service.write_elsewhere("a.txt", &theirs[..14]);
            service.control.mark("a.txt", Mark::NoHash(true)).unwrap();
            machine.sync().await;
            assert_eq!(service.tree().len(), files, "{flavour:?} {theirs}");
            assert_eq!(machine.read("a.txt").await.unwrap(), &theirs[..14]);
        }
    }
}

/// What the service wrote into a document of ours whose answer was lost.
// S42.
#[tokio::test(start_paused = true)]
async fn a_rewritten_document_whose_answer_was_lost_is_known_as_ours() {
    for flavour in [Flavour::Business, Flavour::DocumentLibrary] {
        for path in ["made.docx", "edited.docx"] {
            let service = Service::new(flavour);
            service.control.switch(|switches| switches.rewrite = Rewrite::AtOnce);
            service.write_elsewhere("edited.docx", "base");
            let machine = service.quiet_machine().await;
            machine.read("edited.docx").await.unwrap();
            machine.write("before", "tells us who we are").await;
            machine.sync().await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            service.control.reset_log();
            lose_answer(&service, "PUT", true);
            machine.write(path, "not really a document").await;
            machine.sync().await;
            tokio::time::sleep(Duration::from_secs(600)).await;
            machine.sync().await;
            let names = machine.list("").await;
            assert!(names.iter().all(|name| !name.contains("conflict")), "{flavour:?}: {names:?}");
            assert_eq!(service.requests("PUT"), 1, "{flavour:?} {path}");
            let stored = service.control.content(path).unwrap();
            assert!(stored.starts_with(b"not really a document<!--promoted"));
            assert_eq!(machine.read(path).await.unwrap().as_bytes(), &stored[..]);
        }
    }
}

// S42.
#[tokio::test(start_paused = true)]
async fn a_rewrite_of_the_former_content_is_not_taken_for_an_edit_whose_answer_was_lost() {
    for flavour in [Flavour::Business, Flavour::DocumentLibrary] {
        let service = Service::new(flavour);
        let machine = service.quiet_machine().await;
        machine.write("a.docx", "first").await;
        machine.sync().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        lose_answer(&service, "PUT", false);
        machine.write("a.docx", "second").await;
        service.edit(Edit::Rewrite { path: "a.docx".into() });
        machine.sync().await;
        let found = contents(&service);
        assert!(found.iter().any(|content| content.starts_with("second")), "{flavour:?}: {found:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_file_that_was_sent_while_it_was_open_is_written_on_without_a_conflict() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.quiet_machine().await;
        let mut content = "0123456789abcdef".repeat(9 << 16);
        machine.write("big", &content).await;
        let reader = machine.open("big", OpenFlags::READ).await.unwrap();
        machine.sync().await;
        assert!(service.control.content("big").unwrap() == content);
        let flags = OpenFlags::READ_WRITE;
        let writer = machine.open("big", flags).await.unwrap();
        machine.files.write(writer.0, writer.1, 5, "CHANGED".into()).await.unwrap();
        machine.close(writer).await.unwrap();
        machine.close(reader).await.unwrap();
        machine.sync().await;
        content.replace_range(5..12, "CHANGED");
        assert_eq!(machine.list("").await, ["big"], "{flavour:?}");
        assert!(service.control.content("big").unwrap() == content, "{flavour:?}");
    }
}

// S91.
#[tokio::test(start_paused = true)]
async fn a_save_during_the_upload_of_one_with_the_same_weak_hash_is_sent() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let (one, two) = twins();
        let machine = service.quiet_machine().await;
        let (method, path) = (Some("PUT".into()), Some("a.txt".into()));
        let action = FaultAction::Delay { ms: 90_000 };
        service.control.inject(Fault { method, path, op: None, skip: 0, count: Some(1), action });
        machine.write("a.txt", &one).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        machine.write("a.new", &two).await;
        machine.rename("a.new", "a.txt").await.unwrap();
        machine.sync().await;
        assert_eq!(service.tree(), [file("a.txt", &two)], "{flavour:?}");
    }
}

// S42.
#[tokio::test(start_paused = true)]
async fn a_rewrite_during_our_next_edit_is_nobodys_edit() {
    for part in [false, true] {
        let service = Service::new(Flavour::DocumentLibrary);
        service.control.switch(|switches| switches.rewrite = Rewrite::LibraryLater);
        let machine = service.quiet_machine().await;
        machine.write("letter.docx", "not really a document").await;
        machine.sync().await;
        let id = service.control.id_of("letter.docx");
        let cut = service.control.cut();
        let flags = OpenFlags { write: true, truncate: !part, ..OpenFlags::default() };
        let open = machine.open("letter.docx", flags).await.unwrap();
        let bytes = if part { "NOT" } else { "something else" };
        machine.files.write(open.0, open.1, 0, bytes.into()).await.unwrap();
        machine.close(open).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let rewritten = service.control.content("letter.docx").unwrap();
        assert!(rewritten.starts_with(b"not really a document<!--"), "{part}");
        service.control.switch(|switches| switches.rewrite = Rewrite::Off);
        service.control.remove_fault(cut);
        machine.sync().await;
        let expected = if part { "NOT really a document" } else { "something else" };
        assert_eq!(service.tree(), [file("letter.docx", expected)], "{part}: no copy, and no mix");
        assert_eq!(service.control.id_of("letter.docx"), id);
        assert_eq!(machine.list("").await, ["letter.docx"]);
    }
}

// S34, S42.
#[tokio::test(start_paused = true)]
async fn an_edit_elsewhere_of_a_type_that_is_rewritten_is_an_edit() {
    let service = Service::new(Flavour::DocumentLibrary);
    service.control.switch(|switches| switches.rewrite = Rewrite::Off);
    let machine = service.quiet_machine().await;
    machine.write("letter.docx", "not really a document").await;
    machine.sync().await;
    let cut = service.control.cut();
    machine.write("letter.docx", "mine").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    service.write_elsewhere("letter.docx", "theirs");
    service.control.remove_fault(cut);
    machine.sync().await;
    assert_eq!(contents(&service), ["mine", "theirs"]);
}

// S210.
#[tokio::test(start_paused = true)]
async fn a_document_of_which_the_service_tells_another_length_is_read_as_it_comes() {
    let content = |seed: u32| (0..40_000).map(|at| format!("{:05}", at * seed)).collect::<String>();
    for flavour in [Flavour::Business, Flavour::DocumentLibrary] {
        for said in [7, 150_000, 250_000, 1_000_000] {
            let service = Service::new(flavour);
            service.control.switch(|switches| switches.rewrite = Rewrite::Off);
            service.write_elsewhere("letter.docx", &content(1));
            service.control.mark("letter.docx", Mark::Size(Some(said))).unwrap();
            let machine = service.quiet_machine().await;
            let size = async || {
                let ino = machine.find("letter.docx").await.unwrap();
                machine.files.getattr(ino, None).await.unwrap().0.size
            };
            assert_eq!(size().await, said as u64, "nobody knows better yet");
            assert_eq!(machine.read("letter.docx").await.unwrap(), content(1), "{flavour:?} {said}");
            assert_eq!(size().await, 200_000);
            // What is told of the same version changes nothing, nor does a rename or a restart.
            machine.rename("letter.docx", "report.docx").await.unwrap();
            machine.rename("report.docx", "letter.docx").await.unwrap();
            machine.look().await;
            machine.sync().await;
            assert_eq!(size().await, 200_000);
            machine.crash();
            let machine = service.quiet_machine().await;
            let requests = service.requests("GET");
            assert_eq!(machine.read("letter.docx").await.unwrap(), content(1));
            assert!(service.requests("GET") - requests <= 2, "it is here");
            // The next version has a length of its own.
            service.write_elsewhere("letter.docx", &content(2));
            machine.look().await;
            assert_eq!(machine.read("letter.docx").await.unwrap(), content(2));
            machine.write("letter.docx", "ours").await;
            machine.sync().await;
            assert_eq!(machine.read("letter.docx").await.unwrap(), "ours");
            assert_eq!(contents(&service), ["ours"], "{flavour:?} {said}");
        }
    }
}

// S210.
#[tokio::test(start_paused = true)]
async fn another_length_of_what_the_service_does_not_write_into_is_an_error() {
    for (flavour, name) in [(Flavour::Business, "data.bin"), (Flavour::Personal, "letter.docx")] {
        let service = Service::new(flavour);
        service.write_elsewhere(name, &"data".repeat(9000));
        service.control.mark(name, Mark::Size(Some(30_000))).unwrap();
        let machine = service.quiet_machine().await;
        let error = machine.read(name).await.unwrap_err();
        assert_eq!(error.errno(), libc::EIO, "{flavour:?} {error}");
        service.control.mark(name, Mark::Size(None)).unwrap();
        service.write_elsewhere(name, "another version");
        machine.look().await;
        assert_eq!(machine.read(name).await.unwrap(), "another version");
    }
}
