//! Several drives in one mount.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use onedrivefs::emulator::{Edit, EmulatorConfig, Fault, FaultAction, Flavour, SiteConfig};

use crate::mounted_support::{Mounted, Options, process, until};

pub const SOON: Duration = Duration::from_secs(60);

fn site(path: &str, name: &str, libraries: &[&str]) -> SiteConfig {
    SiteConfig {
        hostname: "contoso.sharepoint.com".into(),
        path: path.into(),
        display_name: name.into(),
        libraries: libraries.iter().map(|&library| library.to_owned()).collect(),
    }
}

/// The drives of the service that [`all`] mounts.
pub struct Ids {
    pub documents: String,
    pub plans: String,
    pub legal: String,
    /// Another person's.
    pub bobs: String,
}

pub fn ids(mounted: &Mounted) -> Ids {
    let mut ids = mounted.control().drive_ids().into_iter().skip(1);
    let mut next = || ids.next().expect("there are five drives");
    Ids { documents: next(), plans: next(), legal: next(), bobs: next() }
}

pub fn put(mounted: &Mounted, drive: &str, path: &str, content: &str) {
    let edit = Edit::Write { path: path.into(), content: content.into() };
    mounted.control().edit_drive_as_other(drive, &edit).expect("another client may write");
}

/// A mount of `drive` over a service of several, with a file in each.
pub fn mount(drive: &str) -> Option<(Mounted, Ids)> {
    mount_of(drive, Flavour::Business)
}

/// As [`mount`]; the people's drives are of this flavour.
pub fn mount_of(drive: &str, flavour: Flavour) -> Option<(Mounted, Ids)> {
    let service = EmulatorConfig {
        flavour,
        sites: vec![
            site("sites/Team", "Team", &["Documents", "Plans"]),
            site("sites/Legal", "Legal", &["Documents"]),
        ],
        others_drives: 1,
        ..EmulatorConfig::default()
    };
    let deadline = Duration::from_secs(400);
    let mounted = Mounted::with(service, Options { drive: drive.into(), deadline, ..Options::default() })?;
    let ids = ids(&mounted);
    mounted.service.write("mine.txt", b"mine");
    put(&mounted, &ids.documents, "docs/report.txt", "report");
    put(&mounted, &ids.plans, "plan.txt", "plan");
    put(&mounted, &ids.legal, "law.txt", "law");
    put(&mounted, &ids.bobs, "secret.txt", "secret");
    put(&mounted, &ids.bobs, "given/away/deep.txt", "deep");
    put(&mounted, &ids.bobs, "given/gift.txt", "gift");
    Some((mounted, ids))
}

pub fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn errno<T>(result: std::io::Result<T>) -> i32 {
    result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

/// A program of others, to its end.
pub fn run(program: &str, arguments: &[&str]) {
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    let output = process::output(command);
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

fn requests(mounted: &Mounted) -> Vec<String> {
    let all = mounted.control().requests();
    all.into_iter().map(|record| format!("{} {}", record.method, record.path)).collect()
}

// S180, S183.
#[test]
fn a_drive_is_found_when_somebody_goes_into_it_and_a_listing_is_one_request() {
    let Some((mounted, ids)) = mount("all") else { return };
    assert_eq!(names(&mounted.root()), ["OneDrive", "Shared with me", "Sites"]);
    run("ls", &["-la", "--color=always", mounted.root().to_str().unwrap()]);
    assert!(requests(&mounted).is_empty(), "{:?}", requests(&mounted));
    assert_eq!(names(&mounted.path("Sites")), ["Legal", "Team"]);
    assert_eq!(requests(&mounted), ["GET /v1.0/sites"]);
    run("ls", &["-la", mounted.path("Sites").to_str().unwrap()]);
    assert_eq!(requests(&mounted).len(), 1, "nobody went into a site");
    mounted.control().reset_log();
    assert_eq!(names(&mounted.path("Sites/Team")), ["Documents", "Plans"]);
    run("ls", &["-la", mounted.path("Sites/Team").to_str().unwrap()]);
    assert!(fs::metadata(mounted.path("Sites/Team/Plans")).unwrap().is_dir());
    assert_eq!(requests(&mounted).len(), 1, "{:?}", requests(&mounted));
    let report = mounted.path("Sites/Team/Documents/docs/report.txt");
    assert_eq!(fs::read_to_string(&report).unwrap(), "report");
    mounted.await_online();
    let asked = requests(&mounted);
    for other in [&ids.plans, &ids.legal, &ids.bobs, "/me/drive"] {
        assert!(!asked.iter().any(|path| path.contains(other)), "{other} was asked: {asked:?}");
    }
    for missing in ["nothing", "Sites/none", "Sites/Team/none", "Sites/Team/Documents/none"] {
        assert_eq!(errno(fs::metadata(mounted.path(missing))), libc::ENOENT, "{missing}");
    }
}

// S187.
#[test]
fn between_drives_mv_copies_and_above_them_nothing_can_be_changed() {
    let Some((mounted, ids)) = mount("all") else { return };
    let (mine, plans) = (mounted.path("OneDrive/mine.txt"), mounted.path("Sites/Team/Plans"));
    assert_eq!(errno(fs::rename(&mine, plans.join("mine.txt"))), libc::EXDEV);
    assert_eq!(errno(fs::hard_link(&mine, plans.join("mine.txt"))), libc::EPERM);
    run("mv", &[mine.to_str().unwrap(), plans.to_str().unwrap()]);
    fs::create_dir(mounted.path("OneDrive/tree")).unwrap();
    fs::write(mounted.path("OneDrive/tree/leaf"), "leaf").unwrap();
    run("mv", &[mounted.path("OneDrive/tree").to_str().unwrap(), plans.to_str().unwrap()]);
    assert_eq!(names(&plans), ["mine.txt", "plan.txt", "tree"]);
    mounted.sync();
    assert_eq!(mounted.control().content_in(&ids.plans, "mine.txt").unwrap(), "mine");
    assert_eq!(mounted.control().content_in(&ids.plans, "tree/leaf").unwrap(), "leaf");
    assert!(mounted.control().content("mine.txt").is_none() && mounted.control().id_of("tree").is_none());
    for above in ["x", "Sites/x", "Sites/Team/x", "Shared with me/x"] {
        assert_eq!(errno(fs::write(mounted.path(above), "x")), libc::EROFS, "{above}");
        assert_eq!(errno(fs::create_dir(mounted.path(above))), libc::EROFS, "{above}");
    }
    assert_eq!(errno(fs::remove_dir(mounted.path("Sites/Team/Plans"))), libc::EROFS);
    assert_eq!(errno(fs::rename(mounted.path("OneDrive"), mounted.path("Mine"))), libc::EROFS);
    assert_eq!(errno(fs::rename(plans.join("plan.txt"), mounted.path("Sites/plan"))), libc::EROFS);
    let space = rustix::fs::statvfs(&plans).unwrap();
    assert!(space.f_blocks > 0 && rustix::fs::statvfs(mounted.root()).unwrap().f_blocks > 0);
}

fn refuse_writes(mounted: &Mounted) {
    mounted.control().inject(Fault {
        method: Some("PUT".into()),
        path: None,
        op: None,
        skip: 0,
        count: None,
        action: FaultAction::Status {
            status: 503,
            code: None,
            inner: None,
            retry_after: Some("1".into()),
            after: false,
        },
    });
}

// S184, S185.
#[test]
fn numbers_survive_a_remount_and_what_was_unsent_goes_out_though_nobody_goes_there() {
    let Some((mounted, ids)) = mount("all") else { return };
    let look = |path: &str| fs::metadata(mounted.path(path)).unwrap().ino();
    let paths = ["OneDrive", "Sites/Team", "Sites/Team/Plans", "Sites/Team/Plans/plan.txt", "Sites/Legal"];
    names(&mounted.path("Sites"));
    let before: Vec<u64> = paths.iter().map(|path| look(path)).collect();
    refuse_writes(&mounted);
    fs::write(mounted.path("Sites/Team/Plans/new.txt"), "unsent").unwrap();
    let status = mounted.status();
    assert_eq!(status["pending"], 1, "{status}");
    assert!(status["drives"][0]["path"] == "Sites/Team/Plans", "{status}");
    mounted.kill9();
    mounted.control().clear_faults();
    mounted.control().reset_log();
    mounted.remount();
    let sent = || mounted.control().content_in(&ids.plans, "new.txt").is_some_and(|sent| sent == "unsent");
    assert!(until(SOON, sent), "{}", mounted.log_tail());
    let asked = requests(&mounted);
    for other in [&ids.documents, &ids.legal, "/me/drive", "/sites"] {
        assert!(!asked.iter().any(|path| path.contains(other)), "{other} was asked: {asked:?}");
    }
    let after: Vec<u64> = paths.iter().map(|path| look(path)).collect();
    assert_eq!(after, before);
    mounted.unmount();
}

// S183, S186.
#[test]
fn without_a_network_what_was_seen_is_there_and_each_drive_says_for_itself_what_is_wrong() {
    let Some((mounted, ids)) = mount("all") else { return };
    assert_eq!(names(&mounted.path("Sites")), ["Legal", "Team"]);
    assert_eq!(names(&mounted.path("Sites/Team")), ["Documents", "Plans"]);
    assert_eq!(fs::read_to_string(mounted.path("Sites/Team/Plans/plan.txt")).unwrap(), "plan");
    mounted.await_online();
    mounted.unmount();
    let cut = mounted.control().cut();
    mounted.remount();
    assert_eq!(names(&mounted.root()), ["OneDrive", "Shared with me", "Sites"]);
    assert_eq!(names(&mounted.path("Sites")), ["Legal", "Team"]);
    assert_eq!(names(&mounted.path("Sites/Team")), ["Documents", "Plans"]);
    assert_eq!(fs::read_to_string(mounted.path("Sites/Team/Plans/plan.txt")).unwrap(), "plan");
    fs::write(mounted.path("Sites/Team/Plans/later.txt"), "later").unwrap();
    for unknown in ["OneDrive", "Sites/Team/Documents", "Sites/Legal", "Shared with me"] {
        let failed = errno(fs::read_dir(mounted.path(unknown)));
        assert!([libc::ENETUNREACH, libc::ETIMEDOUT].contains(&failed), "{unknown}: {failed}");
    }
    mounted.control().remove_fault(cut);
    let sent = || mounted.control().content_in(&ids.plans, "later.txt").is_some_and(|sent| sent == "later");
    assert!(until(SOON, sent), "{}", mounted.log_tail());
    mounted.control().delete_drive(&ids.legal).unwrap();
    assert_eq!(names(&mounted.path("Sites/Legal")), [""; 0], "its only library is gone");
    assert_eq!(names(&mounted.path("Sites/Team/Documents")), ["docs"]);
    assert_eq!(fs::read_to_string(mounted.path("OneDrive/mine.txt")).unwrap(), "mine");
}

// S186.
#[test]
fn a_drive_that_is_deleted_or_refused_fails_alone_and_what_is_unsent_of_it_is_kept() {
    let Some((mounted, ids)) = mount("all") else { return };
    assert_eq!(names(&mounted.path("Sites")), ["Legal", "Team"]);
    assert_eq!(names(&mounted.path("Sites/Legal")), ["Documents"]);
    assert_eq!(names(&mounted.path("Sites/Team")), ["Documents", "Plans"]);
    mounted.control().delete_drive(&ids.legal).unwrap();
    let mark = onedrivefs::emulator::Mark::NoAccess(true);
    mounted.control().mark_in(&ids.documents, "", mark).unwrap();
    assert_eq!(errno(fs::read_dir(mounted.path("Sites/Legal/Documents"))), libc::ENOENT);
    assert_eq!(errno(fs::read_dir(mounted.path("Sites/Team/Documents"))), libc::EACCES);
    assert_eq!(names(&mounted.path("Sites/Team/Plans")), ["plan.txt"]);
    mounted.control().delete_drive(&ids.plans).unwrap();
    fs::write(mounted.path("Sites/Team/Plans/orphan.txt"), "kept").unwrap();
    fs::write(mounted.path("OneDrive/other.txt"), "sent").unwrap();
    assert!(until(SOON, || mounted.control().content("other.txt").is_some()), "{}", mounted.log_tail());
    let parked = || mounted.status()["parked"][0]["path"] == "Sites/Team/Plans/orphan.txt";
    assert!(until(SOON, parked), "{}", mounted.status());
    let target = mounted.scratch().join("rescued");
    let output = mounted.run(&["rescue", target.to_str().unwrap(), mounted.root().to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let saved = target.join("default").join(&ids.plans).join("orphan.txt");
    assert!(saved.is_file() || target.join("orphan.txt").is_file(), "{:?}", names(&target));
}

// S181.
#[test]
fn a_list_of_drives_shows_each_under_its_name() {
    let list = "me,team=contoso.sharepoint.com:/sites/Team:Plans,contoso.sharepoint.com:/sites/Legal";
    let Some((mounted, ids)) = mount(list) else { return };
    assert_eq!(names(&mounted.root()), ["Legal", "OneDrive", "team"]);
    assert!(requests(&mounted).is_empty());
    assert_eq!(fs::read_to_string(mounted.path("team/plan.txt")).unwrap(), "plan");
    assert_eq!(fs::read_to_string(mounted.path("Legal/law.txt")).unwrap(), "law");
    fs::write(mounted.path("team/a"), "a").unwrap();
    fs::write(mounted.path("Legal/b"), "b").unwrap();
    mounted.sync_path("team");
    assert_eq!(mounted.control().content_in(&ids.plans, "a").unwrap(), "a");
    mounted.sync();
    assert_eq!(mounted.control().content_in(&ids.legal, "b").unwrap(), "b");
    put(&mounted, &ids.legal, "news.txt", "news");
    mounted.refresh();
    assert_eq!(fs::read_to_string(mounted.path("Legal/news.txt")).unwrap(), "news");
    mounted.unmount();
}

// S186.
#[test]
fn a_drive_that_another_mount_shows_is_busy_and_the_others_are_not() {
    let Some((mounted, ids)) = mount("all") else { return };
    names(&mounted.path("Sites"));
    names(&mounted.path("Sites/Team"));
    let state = mounted.state_dir().join("default").join(&ids.plans);
    fs::create_dir_all(&state).unwrap();
    let held = onedrivefs::store::StateLock::take(&state).unwrap();
    assert_eq!(errno(fs::read_dir(mounted.path("Sites/Team/Plans"))), libc::EBUSY);
    assert_eq!(names(&mounted.path("Sites/Team/Documents")), ["docs"]);
    drop(held);
    assert_eq!(names(&mounted.path("Sites/Team/Plans")), ["plan.txt"]);
}

// S68, S69, S180.
#[test]
fn a_conflict_in_one_of_several_drives_is_found_and_settled_by_its_path_in_the_mount() {
    let Some((mounted, ids)) = mount("all") else { return };
    names(&mounted.path("Sites"));
    let plan = mounted.path("Sites/Team/Plans/plan.txt");
    assert_eq!(fs::read_to_string(&plan).unwrap(), "plan");
    mounted.await_online();
    let cut = mounted.control().cut();
    fs::write(&plan, "ours").unwrap();
    put(&mounted, &ids.plans, "plan.txt", "theirs, and longer");
    mounted.control().remove_fault(cut);
    let list = |path: &Path| {
        let output = mounted.run(&["conflicts", path.to_str().unwrap()]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shown = || list(&mounted.root()).contains("Sites/Team/Plans/plan (conflict");
    assert!(until(SOON, shown), "{}\n{}", list(&mounted.root()), mounted.log_tail());
    assert!(!list(&mounted.path("OneDrive")).contains("(conflict"), "it is not there");
    mounted.sync();
    let output = mounted.run(&["conflicts", "keep-local", plan.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    mounted.sync();
    assert_eq!(mounted.control().content_in(&ids.plans, "plan.txt").unwrap(), "ours");
}

// S185. The numbers are all that hangs on it: content and what is unsent are found by the drives' own ids.
#[test]
fn a_damaged_list_of_drives_begins_anew_and_is_set_aside() {
    let Some((mounted, ids)) = mount("all") else { return };
    names(&mounted.path("Sites"));
    fs::write(mounted.path("Sites/Team/Plans/new.txt"), "new").unwrap();
    mounted.sync();
    mounted.unmount();
    let account = mounted.state_dir().join("default");
    let of_mount = names(&account).into_iter().find(|name| name.starts_with("mount-")).unwrap();
    let kept = account.join(of_mount).join("slots.json");
    fs::write(&kept, "{ half a fi").unwrap();
    mounted.remount();
    assert_eq!(names(&mounted.path("Sites")), ["Legal", "Team"]);
    assert_eq!(fs::read_to_string(mounted.path("Sites/Team/Plans/new.txt")).unwrap(), "new");
    assert_eq!(mounted.control().content_in(&ids.plans, "new.txt").unwrap(), "new");
    assert!(kept.with_extension("damaged").is_file());
    assert!(mounted.log().contains("begins anew"), "{}", mounted.log_tail());
}
