//! What the commands do to a real mount.

use std::fs;
use std::io::{Seek, Write};
use std::time::Duration;

use onedrivefs::emulator::{Fault, FaultAction};

use crate::mounted_support::{Mounted, process, until};

const SOON: Duration = Duration::from_secs(20);

fn refuse(mounted: &Mounted, path: &str) {
    mounted.control().inject(Fault {
        method: Some("PUT".into()),
        path: Some(path.into()),
        op: None,
        skip: 0,
        count: None,
        action: FaultAction::status(403, "accessDenied"),
    });
}

// S51, S72.
#[test]
fn sigterm_says_what_remains_and_a_rescue_has_it() {
    let Some(mounted) = Mounted::usual() else { return };
    refuse(&mounted, "held");
    fs::write(mounted.path("held.txt"), "kept").unwrap();
    fs::write(mounted.path("sent.txt"), "sent").unwrap();
    mounted.signal(libc::SIGTERM);
    assert_eq!(mounted.wait_for_end().code(), Some(4));
    assert_eq!(mounted.control().content("sent.txt").unwrap(), "sent");
    let log = mounted.log();
    assert!(log.contains("unsent, kept for the next mount: held.txt: access denied;"), "{log}");
    let target = mounted.scratch().join("rescued");
    let state = mounted.state_dir();
    let arguments = ["rescue", target.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    let output = mounted.run(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_to_string(target.join("held.txt")).unwrap(), "kept");
    assert!(!target.join("sent.txt").exists());
}

// S72. Beside the daemon, whose mount gives the part that only the service has.
#[test]
fn a_rescue_beside_a_daemon_completes_a_file_that_was_changed_in_part() {
    let Some(mounted) = Mounted::usual() else { return };
    let size = 3 << 20;
    fs::write(mounted.path("big"), "t".repeat(size)).unwrap();
    mounted.sync();
    mounted.kill9();
    fs::remove_dir_all(mounted.scratch().join("cache")).ok();
    mounted.remount();
    refuse(&mounted, "");
    let mut file = fs::OpenOptions::new().write(true).open(mounted.path("big")).unwrap();
    file.seek(std::io::SeekFrom::Start(1000)).unwrap();
    file.write_all(b"ours").unwrap();
    let target = mounted.scratch().join("rescued");
    let root = mounted.root();
    let output = mounted.run(&["rescue", target.to_str().unwrap(), root.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let mut whole = "t".repeat(size);
    whole.replace_range(1000..1004, "ours");
    assert!(fs::read_to_string(target.join("big")).unwrap() == whole);
}

#[test]
fn sigusr1_looks_for_changes_and_ends_nothing() {
    let Some(mounted) = Mounted::usual() else { return };
    mounted.signal(libc::SIGUSR1);
    assert!(until(SOON, || mounted.log().contains("SIGUSR1: looking for changes")), "{}", mounted.log());
    assert!(mounted.ended().is_none());
    assert!(mounted.run(&["refresh", mounted.root().to_str().unwrap()]).status.success());
}

#[test]
fn an_unmount_from_inside_is_not_in_its_own_way() {
    let Some(mounted) = Mounted::usual() else { return };
    fs::create_dir(mounted.path("inside")).unwrap();
    let mut command = mounted.command();
    command.arg("umount").arg(mounted.root()).current_dir(mounted.path("inside"));
    let output = process::output(command);
    assert!(output.status.success(), "{output:?}");
    mounted.wait_for_end();
}

// S74.
#[test]
fn a_lazy_unmount_lets_programs_finish_what_they_write() {
    let Some(mounted) = Mounted::usual() else { return };
    let root = mounted.root();
    let mut file = fs::File::create(mounted.path("open.txt")).unwrap();
    let busy = mounted.run(&["umount", root.to_str().unwrap()]);
    let why = String::from_utf8_lossy(&busy.stderr).into_owned();
    assert!(busy.status.code() == Some(7) && why.contains("onedrivefs umount --lazy"), "{why}");
    let lazy = mounted.run(&["umount", root.to_str().unwrap(), "--lazy", "--drain-timeout", "1s"]);
    assert_eq!(lazy.status.code(), Some(4), "{lazy:?}");
    assert!(String::from_utf8_lossy(&lazy.stdout).contains("open.txt: still open for writing"), "{lazy:?}");
    assert!(!root.join("open.txt").exists());
    file.write_all(b"to the end").unwrap();
    drop(file);
    mounted.wait_for_end();
    assert_eq!(mounted.control().content("open.txt").unwrap(), "to the end");
}
