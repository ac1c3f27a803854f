//! Shortcuts to folders of other drives, and what others share.

use std::fs;
use std::os::unix::fs::MetadataExt;

use onedrivefs::emulator::{Edit, Flavour, Mark};

use crate::drives::{SOON, errno, mount, mount_of, names, put, run};
use crate::mounted_support::{Mounted, process, until};

fn shortcut(mounted: &Mounted, name: &str, drive: &str, path: &str) {
    mounted.control().add_shortcut(name, drive, path).unwrap();
    mounted.refresh();
}

// S182, S188.
#[test]
fn a_shortcut_works_like_a_folder_and_goes_alone() {
    let Some((mounted, ids)) = mount("me") else { return };
    mounted.control().share_with_me(&ids.bobs, "given", true).unwrap();
    shortcut(&mounted, "bobs", &ids.bobs, "given");
    shortcut(&mounted, "docs", &ids.documents, "docs");
    let bobs = mounted.path("bobs");
    assert_eq!(names(&mounted.root()), ["bobs", "docs", "mine.txt"]);
    assert_eq!(names(&bobs), ["away", "gift.txt"]);
    assert_eq!(fs::read_to_string(bobs.join("away/deep.txt")).unwrap(), "deep");
    assert_eq!(fs::read_to_string(mounted.path("docs/report.txt")).unwrap(), "report");
    fs::write(bobs.join("mine too.txt"), "written").unwrap();
    fs::rename(bobs.join("gift.txt"), bobs.join("away/gift.txt")).unwrap();
    assert_eq!(errno(fs::rename(mounted.path("mine.txt"), bobs.join("m"))), libc::EXDEV);
    assert_eq!(errno(fs::rename(bobs.join("away"), mounted.path("docs/away"))), libc::EXDEV);
    run("mv", &[mounted.path("mine.txt").to_str().unwrap(), bobs.to_str().unwrap()]);
    mounted.sync_path("bobs");
    let there = |path: &str| mounted.control().content_in(&ids.bobs, path);
    assert_eq!(there("given/mine too.txt").unwrap(), "written");
    assert_eq!(there("given/away/gift.txt").unwrap(), "gift");
    assert_eq!(there("given/mine.txt").unwrap(), "mine");
    // What others change behind it comes here too.
    put(&mounted, &ids.bobs, "given/news.txt", "news");
    let seen = || fs::read_to_string(bobs.join("news.txt")).is_ok_and(|text| text == "news");
    assert!(until(SOON, seen), "{}", mounted.log_tail());
    // The shortcut itself is an item of its own drive.
    fs::create_dir(mounted.path("folder")).unwrap();
    fs::rename(&bobs, mounted.path("folder/theirs")).unwrap();
    assert_eq!(fs::read_to_string(mounted.path("folder/theirs/news.txt")).unwrap(), "news");
    fs::remove_dir(mounted.path("docs")).unwrap();
    mounted.sync();
    assert!(mounted.control().id_of("folder/theirs").is_some() && mounted.control().id_of("docs").is_none());
    assert!(
        mounted.control().content_in(&ids.documents, "docs/report.txt").is_some(),
        "only the shortcut went"
    );
    fs::remove_dir(mounted.path("folder/theirs")).unwrap();
    fs::remove_dir(mounted.path("folder")).unwrap();
    mounted.sync();
    assert!(mounted.control().id_of("folder").is_none());
    assert_eq!(there("given/news.txt").unwrap(), "news");
}

// S185, S186, S188.
#[test]
fn behind_a_shortcut_is_known_after_a_remount_without_a_network_and_lost_access_is_told() {
    let Some((mounted, ids)) = mount("me") else { return };
    mounted.control().share_with_me(&ids.bobs, "given", true).unwrap();
    shortcut(&mounted, "bobs", &ids.bobs, "given");
    let gift = mounted.path("bobs/gift.txt");
    assert_eq!(fs::read_to_string(&gift).unwrap(), "gift");
    names(&mounted.path("bobs"));
    let number = fs::metadata(&gift).unwrap().ino();
    mounted.unmount();
    let cut = mounted.control().cut();
    mounted.remount();
    assert_eq!(names(&mounted.path("bobs")), ["away", "gift.txt"]);
    assert_eq!(fs::metadata(&gift).unwrap().ino(), number);
    assert_eq!(fs::read_to_string(&gift).unwrap(), "gift");
    fs::write(mounted.path("bobs/offline.txt"), "later").unwrap();
    let output = mounted.run(&["umount", mounted.root().to_str().unwrap(), "--drain-timeout", "100ms"]);
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    mounted.wait_for_end();
    mounted.control().remove_fault(cut);
    mounted.remount();
    // Nobody goes there.
    let sent = || mounted.control().content_in(&ids.bobs, "given/offline.txt").is_some();
    assert!(until(SOON, sent), "{}", mounted.log_tail());
    mounted.control().share_with_me(&ids.bobs, "given", false).unwrap();
    fs::write(mounted.path("bobs/late.txt"), "kept").unwrap();
    let parked = || mounted.status()["parked"][0]["path"] == "bobs/late.txt";
    assert!(until(SOON, parked), "{}\n{}", mounted.status(), mounted.log_tail());
    assert_eq!(fs::read_to_string(mounted.path("mine.txt")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(mounted.path("bobs/late.txt")).unwrap(), "kept");
}

// S189.
#[test]
fn two_shortcuts_to_one_folder_one_into_the_own_drive_and_a_circle_of_them() {
    let Some((mounted, ids)) = mount("me") else { return };
    mounted.service.write("docs/inner.txt", b"inner");
    shortcut(&mounted, "one", &ids.documents, "docs");
    shortcut(&mounted, "two", &ids.documents, "docs");
    assert_eq!(names(&mounted.path("two")), names(&mounted.path("one")));
    let (one, two) = (mounted.path("one/new.txt"), mounted.path("two/new.txt"));
    assert_eq!(errno(fs::metadata(&two)), libc::ENOENT);
    fs::write(&one, "new").unwrap();
    let seen = || fs::read_to_string(&two).is_ok_and(|text| text == "new");
    assert!(until(SOON, seen), "the other shortcut shows it");
    assert_eq!(fs::metadata(&one).unwrap().ino(), fs::metadata(&two).unwrap().ino());
    fs::remove_file(&two).unwrap();
    assert!(until(SOON, || errno(fs::metadata(&one)) == libc::ENOENT));
    // Into the own drive: the folder it lies in, so that it leads into itself.
    let own = mounted.control().drive_ids().remove(0);
    shortcut(&mounted, "circle", &own, "");
    let within = mounted.path("circle");
    assert!(names(&within).contains(&"mine.txt".to_owned()));
    assert_eq!(fs::read_to_string(within.join("docs/inner.txt")).unwrap(), "inner");
    assert_eq!(errno(fs::read_dir(within.join("circle"))), libc::ELOOP);
    shortcut(&mounted, "docs again", &own, "docs");
    assert_eq!(fs::read_to_string(mounted.path("docs again/inner.txt")).unwrap(), "inner");
    fs::write(mounted.path("docs again/inner.txt"), "changed").unwrap();
    mounted.sync();
    assert_eq!(mounted.control().content("docs/inner.txt").unwrap(), "changed");
    let find = process::output({
        let mut find = std::process::Command::new("find");
        find.arg(mounted.root());
        find
    });
    assert!(find.stdout.len() < 100_000, "it comes to an end");
    mounted.unmount();
}

// S188, S183.
#[test]
fn what_others_share_is_shown_and_only_that() {
    let Some((mounted, ids)) = mount("all") else { return };
    assert_eq!(names(&mounted.path("Shared with me")), [""; 0]);
    mounted.control().share_with_me(&ids.bobs, "given", true).unwrap();
    mounted.control().share_with_me(&ids.bobs, "secret.txt", true).unwrap();
    mounted.refresh();
    assert_eq!(names(&mounted.path("Shared with me")), ["given"], "files are not shown");
    mounted.control().reset_log();
    let given = mounted.path("Shared with me/given");
    assert_eq!(names(&given), ["away", "gift.txt"]);
    assert_eq!(fs::read_to_string(given.join("gift.txt")).unwrap(), "gift");
    fs::write(given.join("back.txt"), "back").unwrap();
    mounted.sync_path("Shared with me");
    assert_eq!(mounted.control().content_in(&ids.bobs, "given/back.txt").unwrap(), "back");
    assert!(!mounted.control().requests().iter().any(|record| record.path.contains("/me/drive")));
    mounted.control().mark_in(&ids.bobs, "given", Mark::NoAccess(true)).unwrap();
    assert_eq!(names(&given), ["away", "back.txt", "gift.txt"], "what is known stays");
    mounted.unmount();
}

// S188. Where delta of a folder is offered (personal drives) and where it is not, what others do is seen alike.
#[test]
fn what_others_do_behind_a_shortcut_is_seen_with_delta_and_without() {
    for flavour in [Flavour::Personal, Flavour::Business] {
        let Some((mounted, ids)) = mount_of("me", flavour) else { return };
        put(&mounted, &ids.bobs, "given/stays.txt", "stays");
        mounted.control().share_with_me(&ids.bobs, "given", true).unwrap();
        shortcut(&mounted, "bobs", &ids.bobs, "given");
        let bobs = mounted.path("bobs");
        assert_eq!(names(&bobs), ["away", "gift.txt", "stays.txt"], "{flavour:?}");
        mounted.await_online();
        let edit = |edit: Edit| mounted.control().edit_drive_as_other(&ids.bobs, &edit).unwrap();
        edit(Edit::Write { path: "given/away/deep.txt".into(), content: "changed there".into() });
        edit(Edit::Delete { path: "given/stays.txt".into() });
        edit(Edit::Move { path: "given/gift.txt".into(), to: "taken back.txt".into() });
        edit(Edit::Mkdir { path: "given/new".into() });
        mounted.refresh();
        assert_eq!(names(&bobs), ["away", "new"], "{flavour:?}");
        assert_eq!(fs::read_to_string(bobs.join("away/deep.txt")).unwrap(), "changed there");
        fs::write(bobs.join("new/ours.txt"), "ours").unwrap();
        fs::remove_file(bobs.join("away/deep.txt")).unwrap();
        mounted.sync();
        let there = |path: &str| mounted.control().content_in(&ids.bobs, path);
        assert_eq!(there("given/new/ours.txt").unwrap(), "ours");
        assert!(there("given/away/deep.txt").is_none() && there("taken back.txt").is_some());
        let deltas = mounted.control().requests().into_iter().filter(|record| {
            record.path.contains(&ids.bobs) && record.path.ends_with("/delta") && record.status == 200
        });
        assert_eq!(deltas.count() > 0, flavour == Flavour::Personal, "{flavour:?}");
        mounted.unmount();
    }
}
