//! Keeping files on this machine, by the commands.

use std::fs;
use std::process::Output;
use std::time::Duration;

use onedrivefs::emulator::Flavour;
use serde_json::Value;

use crate::drives;
use crate::mounted_support::{Mounted, Options, until};

const SOON: Duration = Duration::from_secs(100);

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn cache(mounted: &Mounted, path: &str) -> Value {
    let output = mounted.run(&["cache", "--json", "--list", mounted.path(path).to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    json(&output)
}

fn deadline(mount: &str) -> Options {
    let usual = Options::default();
    Options { deadline: Duration::from_secs(400), mount: format!("{}{mount}", usual.mount), ..usual }
}

// S191, S193, S195, S196, S197.
#[test]
fn what_was_pinned_is_read_without_a_network_and_what_was_freed_is_not() {
    let Some(mounted) = Mounted::new(Flavour::Business, deadline("")) else { return };
    for name in ["folder/deep/a", "folder/b", "loose"] {
        mounted.service.write(name, &[7; 300_000]);
    }
    mounted.refresh();
    let (folder, loose) = (mounted.path("folder"), mounted.path("loose"));
    let output = mounted.run(&["pin", folder.to_str().unwrap()]);
    assert!(output.status.success() && text(&output).contains("2 files"), "{}", text(&output));
    assert!(text(&output).contains("all here"), "{}", text(&output));
    assert_eq!(rustix::fs::getxattr(folder.join("b"), "user.onedrive.pinned", &mut [0; 20][..]), Ok(9));
    fs::read(&loose).unwrap();
    let told = cache(&mounted, "");
    assert_eq!(told[0]["pinned"][0], folder.to_str().unwrap(), "{told}");
    assert_eq!((&told[0]["pins"]["files"], &told[0]["files_here"]), (&2.into(), &3.into()), "{told}");
    assert!(told[0]["used"].as_u64() > Some(900_000), "{told}");

    let free = || mounted.run(&["free", mounted.root().to_str().unwrap()]);
    let mut held = free();
    // The kernel tells of the last close when it gets to it.
    assert!(until(SOON, || {
        let is_open = text(&held).contains("loose: ");
        held = if is_open { free() } else { held.clone() };
        !is_open
    }));
    assert!(
        held.status.code() == Some(7) && text(&held).contains("folder/b: it is pinned"),
        "{}",
        text(&held)
    );
    let cut = mounted.control().cut();
    assert_eq!(fs::read(folder.join("deep/a")).unwrap(), [7; 300_000]);
    assert!(fs::read(&loose).is_err(), "the kernel kept its pages");
    let queued = mounted.run(&["pin", loose.to_str().unwrap()]);
    assert!(queued.status.code() == Some(6) && text(&queued).contains("queued until"), "{}", text(&queued));
    mounted.kill9();
    mounted.remount();
    assert_eq!(fs::read(folder.join("b")).unwrap(), [7; 300_000]);
    mounted.control().remove_fault(cut);
    assert!(until(SOON, || cache(&mounted, "")[0]["pins"]["missing_files"] == 0), "{}", mounted.log_tail());

    let within = mounted.run(&["unpin", folder.join("b").to_str().unwrap()]);
    assert!(
        within.status.code() == Some(2) && text(&within).contains("pinned with 'folder'"),
        "{}",
        text(&within)
    );
    assert!(mounted.run(&["unpin", mounted.root().to_str().unwrap()]).status.success());
    assert!(until(SOON, || free().status.success()), "{}", text(&free()));
    assert_eq!(cache(&mounted, "")[0]["files_here"], 0);
    assert_eq!(cache(&mounted, "folder")[0]["files_here"], 0);
}

// S194.
#[test]
fn more_than_the_cache_may_hold_is_refused_with_both_numbers() {
    let Some(mounted) = Mounted::new(Flavour::Business, deadline(",cache-size=1MiB")) else { return };
    mounted.service.write("large", &[7; 3 << 20]);
    mounted.refresh();
    let large = mounted.path("large");
    let refused = mounted.run(&["pin", large.to_str().unwrap()]);
    let told = text(&refused);
    assert!(refused.status.code() == Some(2) && told.contains("the cache may hold 1.0 MiB"), "{told}");
    assert!(told.contains("larger cache-size"), "{told}");
    let errno = rustix::fs::setxattr(&large, "user.onedrive.pinned", b"1", rustix::fs::XattrFlags::empty());
    assert_eq!(errno, Err(rustix::io::Errno::NOSPC));
    assert_eq!(fs::read(&large).unwrap(), [7; 3 << 20], "it is read all the same");
    assert!(cache(&mounted, "")[0]["used"].as_u64() <= Some(1 << 20));
}

// S191. In drives that nobody has gone into since the mount.
#[test]
fn a_pin_in_one_of_several_drives_is_kept_by_a_mount_in_which_nobody_goes_there() {
    let Some((mounted, ids)) = drives::mount("all") else { return };
    let team = mounted.path("Sites/Team/Documents/docs");
    let output = mounted.run(&["pin", team.to_str().unwrap()]);
    assert!(output.status.success() && text(&output).contains("all here"), "{}", text(&output));
    let above = mounted.run(&["pin", mounted.path("Sites").to_str().unwrap()]);
    assert!(above.status.code() == Some(2) && text(&above).contains("several drives"), "{}", text(&above));
    mounted.unmount();
    drives::put(&mounted, &ids.documents, "docs/later.txt", "later");
    mounted.mount();
    let is_here = || {
        let told = json(&mounted.run(&["cache", "--json", mounted.root().to_str().unwrap()]));
        told.as_array().is_some_and(|drives| {
            drives.iter().any(|drive| drive["pins"]["files"] == 2 && drive["pins"]["missing_files"] == 0)
        })
    };
    assert!(until(SOON, is_here), "{}", mounted.log_tail());
    mounted.control().cut();
    assert_eq!(fs::read_to_string(team.join("later.txt")).unwrap(), "later");
}

// S191. Behind a shortcut, after a remount in which nobody goes there.
#[test]
fn what_is_pinned_through_a_shortcut_is_kept_like_anything_else() {
    let Some((mounted, ids)) = drives::mount("me") else { return };
    mounted.control().add_shortcut("docs", &ids.documents, "docs").unwrap();
    mounted.refresh();
    let docs = mounted.path("docs");
    let output = mounted.run(&["pin", docs.to_str().unwrap()]);
    assert!(output.status.success() && text(&output).contains("all here"), "{}", text(&output));
    mounted.unmount();
    drives::put(&mounted, &ids.documents, "docs/later.txt", "later");
    mounted.mount();
    let is_here = || {
        let told = json(&mounted.run(&["cache", "--json", docs.to_str().unwrap()]));
        told.as_array().is_some_and(|drives| {
            drives.iter().any(|drive| drive["pins"]["files"] == 2 && drive["pins"]["missing_files"] == 0)
        })
    };
    assert!(until(SOON, is_here), "{}", mounted.log_tail());
    mounted.control().cut();
    assert_eq!(fs::read_to_string(docs.join("later.txt")).unwrap(), "later");
    assert_eq!(fs::read_to_string(docs.join("report.txt")).unwrap(), "report");
}
