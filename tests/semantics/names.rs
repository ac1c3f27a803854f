//! Names: which are equal, which are refused, which stay here.

use onedrivefs::emulator::{Edit, Flavour, Mark};
use onedrivefs::vfs::{OpenFlags, RenameMode, VfsError};

use crate::sync_support::{Machine, Service};
use crate::{FLAVOURS, READ, WRITE, changes, errno, file, folder};

async fn create(machine: &Machine, path: &str) -> Result<(), VfsError> {
    let open = machine.open(path, OpenFlags { exclusive: true, ..WRITE }).await?;
    machine.close(open).await
}

// S18.
#[tokio::test(start_paused = true)]
async fn names_that_the_service_forbids_go_there_and_back() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        let names = ["a:b?c", "aux.txt", " leading", "trailing.", "100%", "tilde~", "uml\u{e4}ut"];
        for name in names {
            machine.write(name, name).await;
        }
        machine.sync().await;
        assert_eq!(service.tree().len(), names.len());
        machine.crash();
        std::fs::remove_file(service.dir().join("store.sqlite")).unwrap();
        let again = service.machine().await;
        again.look().await;
        let mut expected: Vec<String> = names.iter().map(|&name| name.into()).collect();
        expected.sort();
        assert_eq!(again.list("").await, expected);
        for name in names {
            assert_eq!(again.read(name).await.unwrap(), name);
        }
    }
}

// S20, S21.
#[tokio::test(start_paused = true)]
async fn names_that_differ_only_in_case_are_one_name_there_and_never_two_here() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        service.write_elsewhere("Report.txt", "r");
        service.write_elsewhere("other.txt", "o");
        let machine = service.machine().await;
        machine.look().await;
        assert_eq!(errno(machine.open("report.txt", READ).await), libc::ENOENT);
        assert_eq!(errno(create(&machine, "REPORT.TXT").await), libc::EEXIST);
        assert_eq!(errno(machine.mkdir("report.TXT").await), libc::EEXIST);
        assert_eq!(errno(machine.rename("other.txt", "report.txt").await), libc::EEXIST);
        let id = service.control.id_of("Report.txt");
        machine.rename("Report.txt", "REPORT.txt").await.unwrap();
        machine.sync().await;
        assert_eq!(service.tree(), [file("REPORT.txt", "r"), file("other.txt", "o")]);
        assert_eq!(service.control.id_of("REPORT.txt"), id);
    }
}

// S20, S174.
#[tokio::test(start_paused = true)]
async fn names_are_equal_as_the_service_folds_and_no_further() {
    for flavour in FLAVOURS {
        let service = Service::new(flavour);
        let machine = service.machine().await;
        machine.look().await;
        let same = [
            ("\u{C9}t\u{E9}.txt", "\u{E9}T\u{C9}.TXT"),
            ("\u{3A3}", "\u{3C2}"),
            ("\u{416}\u{443}\u{43A}", "\u{436}\u{423}\u{41A}"),
        ];
        let distinct = [
            ("stra\u{DF}e", "STRASSE"),
            ("\u{131}", "I"),
            ("\u{17F}", "S"),
            ("nf\u{E9}", "nfe\u{301}"),
            ("\u{10428}", "\u{10400}"),
        ];
        for (one, other) in same {
            machine.write(one, one).await;
            assert_eq!(errno(create(&machine, other).await), libc::EEXIST, "{other}");
        }
        for (one, other) in distinct {
            machine.write(one, one).await;
            machine.write(other, other).await;
        }
        machine.sync().await;
        assert_eq!(service.tree().len(), same.len() + 2 * distinct.len());
        for (one, other) in distinct {
            assert_eq!(service.control.content(one).unwrap(), one.as_bytes());
            assert_eq!(service.control.content(other).unwrap(), other.as_bytes());
        }
    }
}

// S22, S175.
#[tokio::test(start_paused = true)]
async fn a_name_of_many_bytes_is_shown_whole_and_a_path_that_no_drive_takes_is_refused() {
    let service = Service::new(Flavour::DocumentLibrary);
    let long = "\u{65E5}".repeat(255);
    service.write_elsewhere(&long, "765 bytes");
    let machine = service.machine().await;
    machine.look().await;
    assert_eq!(machine.list("").await, std::slice::from_ref(&long));
    assert_eq!(machine.read(&long).await.unwrap(), "765 bytes");
    // 398 units are used by the folders and their slashes; the service counts 400.
    let (one, two) = ("a".repeat(198), format!("{}/{}", "a".repeat(198), "b".repeat(198)));
    machine.mkdir(&one).await.unwrap();
    machine.mkdir(&two).await.unwrap();
    machine.mkdir("short").await.unwrap();
    machine.write("file", "f").await;
    machine.write(&format!("{two}/ok"), "fits").await;
    assert_eq!(errno(create(&machine, &format!("{two}/not")).await), libc::ENAMETOOLONG);
    assert_eq!(errno(machine.mkdir(&format!("{two}/not")).await), libc::ENAMETOOLONG);
    assert_eq!(errno(machine.rename("file", &format!("{two}/file")).await), libc::ENAMETOOLONG);
    // What stays here may have any path.
    machine.write(&format!("{two}/.file.swp"), "scratch").await;
    machine.sync().await;
    assert_eq!(service.control.content(&format!("{two}/ok")).unwrap(), "fits");
    assert_eq!(service.control.content("file").unwrap(), "f");
}

// S22.
#[tokio::test(start_paused = true)]
async fn impossible_names_are_refused_at_once() {
    let service = Service::new(Flavour::DocumentLibrary);
    let machine = service.machine().await;
    machine.look().await;
    service.control.reset_log();
    assert_eq!(errno(create(&machine, "a_vti_b").await), libc::EINVAL);
    assert_eq!(errno(machine.mkdir("forms").await), libc::EINVAL);
    let (longest, longer) = ("\u{e4}".repeat(255), "\u{e4}".repeat(256));
    assert_eq!(errno(create(&machine, &longer).await), libc::ENAMETOOLONG);
    assert_eq!(errno(create(&machine, &longest).await), 0);
    assert_eq!(changes(&service), 0);
    machine.sync().await;
    assert_eq!(service.tree(), [file(&longest, "")]);
}

// S23, S24.
#[tokio::test(start_paused = true)]
async fn scratch_names_stay_here_are_counted_and_survive() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("sent.txt", "s");
    let machine = service.machine().await;
    machine.look().await;
    service.control.reset_log();
    let names = [".~lock.a.odt#", "~$a.docx", ".a.txt.swp", ".goutputstream-AB12CD"];
    for name in names {
        machine.write(name, "scratch").await;
    }
    machine.sync().await;
    assert_eq!(changes(&service), 0);
    assert_eq!(machine.engine.status().await.unwrap().local_only, 4);
    assert_eq!(errno(machine.rename("sent.txt", "sent.swp").await), libc::EINVAL);
    machine.crash();
    let again = service.machine().await;
    for name in names {
        assert_eq!(again.read(name).await.unwrap(), "scratch");
    }
}

// S61.
#[tokio::test(start_paused = true)]
async fn what_lives_only_here_outlives_a_folder_that_is_deleted_there() {
    let service = Service::new(Flavour::Business);
    service.write_elsewhere("d/a.txt", "a");
    let machine = service.machine().await;
    machine.look().await;
    machine.write("d/.a.txt.swp", "scratch").await;
    service.edit(Edit::Delete { path: "d".into() });
    machine.look().await;
    assert_eq!(machine.list("").await, ["lost+found"]);
    assert_eq!(machine.read("lost+found/.a.txt.swp").await.unwrap(), "scratch");
    assert!(crate::notices(&machine).contains("d/.a.txt.swp"));
    machine.sync().await;
    assert!(service.tree().is_empty());
}

// S62.
#[tokio::test(start_paused = true)]
async fn a_notebook_is_shown_and_not_changed() {
    let service = Service::new(Flavour::Business);
    service.edit(Edit::Mkdir { path: "Notes".into() });
    service.control.mark("Notes", Mark::OneNote(true)).unwrap();
    let machine = service.machine().await;
    machine.look().await;
    assert!(machine.list("Notes").await.is_empty());
    assert_eq!(errno(machine.rmdir("Notes").await), libc::EPERM);
    assert_eq!(errno(machine.rename("Notes", "Other").await), libc::EPERM);
    assert_eq!(errno(create(&machine, "Notes/a").await), libc::EPERM);
    machine.sync().await;
    assert_eq!(service.tree(), [folder("Notes")]);
}

// S63.
#[tokio::test(start_paused = true)]
async fn two_names_change_places_at_once_and_keep_their_items() {
    let service = Service::new(Flavour::Personal);
    service.write_elsewhere("a", "A");
    service.write_elsewhere("d/b", "B");
    let machine = service.machine().await;
    machine.look().await;
    let ids = (service.control.id_of("a"), service.control.id_of("d/b"));
    machine.rename_as("a", "d/b", RenameMode::Exchange).await.unwrap();
    assert_eq!(machine.read("a").await.unwrap(), "B");
    machine.sync().await;
    assert_eq!(service.tree(), [file("a", "B"), folder("d"), file("d/b", "A")]);
    assert_eq!((service.control.id_of("d/b"), service.control.id_of("a")), ids);
}
