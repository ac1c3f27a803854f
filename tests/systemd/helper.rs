//! `mount.onedrivefs` and `umount.onedrivefs`, called by mount(8) and umount(8).

use super::machine::{Disk, Machine, wait};
use super::setting::Setting;

const DRIVE: &str = "/mnt/drive";

/// An fstab with most of what people write in one.
const FSTAB: &str = "me /mnt/drive onedrivefs rw,noauto,nofail,_netdev,user,noatime,comment=mine,\
                     x-systemd.mount-timeout=1min,x-gvfs-show,uid=1700,file_mode=640 0 0\n";

/// What the mount helper promises: once it has returned 0, the mount is there.
fn mounts_before_it_returns(machine: &Machine, line: &str) -> Result<(), String> {
    let output = machine.output(line);
    let there = machine.is_mounted(DRIVE);
    let said = String::from_utf8_lossy(&output.stderr);
    match (output.status.success(), there) {
        (true, true) => Ok(()),
        (true, false) => Err("it returned 0, and nothing is mounted".to_owned()),
        (false, _) => Err(format!("{}: {said}", output.status)),
    }
}

fn no_daemon(machine: &Machine) {
    wait("the daemon's end", || machine.daemons().is_empty().then_some(()));
}

pub fn mount_and_umount() {
    let setting = Setting::new();
    let machine = setting.boot(&[("/etc/fstab", FSTAB)], &[]);
    assert!(machine.is_on_ext4(), "the state is to be on ext4");
    by_hand(&machine, &setting);
    by_fstab(&machine);
    refused(&machine);
    in_use(&machine);
}

// S260, S261: by mount(8) itself, without a HOME, with what it passes on.
fn by_hand(machine: &Machine, setting: &Setting) {
    mounts_before_it_returns(machine, "mount -v -t onedrivefs -o rw,_netdev me /mnt/drive").expect("mounted");
    assert_eq!(machine.run("cat /mnt/drive/hello.txt"), "hello");
    assert_eq!(machine.daemons().len(), 1);
    machine.run("echo new > /mnt/drive/new.txt");
    machine.run("umount /mnt/drive");
    assert!(!machine.is_mounted(DRIVE));
    // S262: it came back when all was sent.
    assert_eq!(setting.service.control.content("new.txt").as_deref(), Some(b"new\n".as_slice()));
    no_daemon(machine);
    machine.run("mount -f -t onedrivefs me /mnt/drive");
    assert!(!machine.is_mounted(DRIVE), "-f mounts nothing");
    mounts_before_it_returns(machine, "mount -s -t onedrivefs -o quux=1 me /mnt/drive")
        .expect("-s is sloppy");
    machine.run("umount -l /mnt/drive");
    no_daemon(machine);
}

fn by_fstab(machine: &Machine) {
    mounts_before_it_returns(machine, "mount /mnt/drive").expect("mounted");
    assert_eq!(machine.run("stat -c '%u %a' /mnt/drive/hello.txt"), "1700 640");
    assert!(machine.run("findmnt -n -o OPTIONS /mnt/drive").contains("noatime"));
    machine.run("umount -v /mnt/drive");
    no_daemon(machine);
    // systemd made a unit of the line; it starts and stops it by the helpers.
    mounts_before_it_returns(machine, "systemctl start mnt-drive.mount").expect("mounted");
    assert_eq!(machine.run("systemctl is-active mnt-drive.mount"), "active");
    machine.run("systemctl stop mnt-drive.mount");
    assert!(!machine.is_mounted(DRIVE));
    assert_eq!(machine.run("systemctl show -P Result mnt-drive.mount"), "success");
    no_daemon(machine);
}

// S263: the reason is on stderr and in the journal.
fn refused(machine: &Machine) {
    let wrong = machine.output("mount -t onedrivefs -o rw,alow_other me /mnt/drive");
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(1), "{said}");
    assert!(said.contains("did you mean 'allow-other'?"), "{said}");
    let journal = machine.journal("-t onedrivefs -p err -o cat");
    assert!(journal.contains("did you mean 'allow-other'?"), "{journal}");
    let missing = machine.output("mount -t onedrivefs me /mnt/nowhere");
    assert!(!missing.status.success());
    machine.write(
        "/etc/systemd/system/mnt-wrong.mount",
        "[Mount]\nWhat=me\nWhere=/mnt/wrong\nType=onedrivefs\nOptions=account=nobody\n",
    );
    machine.run("systemctl daemon-reload");
    assert!(!machine.output("systemctl start mnt-wrong.mount").status.success());
    let journal = machine.journal("-u mnt-wrong.mount -o cat");
    assert!(journal.contains("onedrivefs login"), "{journal}");
}

// S264.
fn in_use(machine: &Machine) {
    machine.run("mount /mnt/drive");
    machine.run("systemd-run --unit=holder --collect sleep 1000 && systemd-run --unit=inside -p WorkingDirectory=/mnt/drive sleep 1000");
    let busy = machine.output("umount /mnt/drive");
    assert!(!busy.status.success() && machine.is_mounted(DRIVE), "it is in use");
    assert!(
        String::from_utf8_lossy(&busy.stderr).contains("sleep"),
        "{}",
        String::from_utf8_lossy(&busy.stderr)
    );
    machine.run("systemctl stop inside holder; umount /mnt/drive");
    no_daemon(machine);
}

pub fn on_the_overlay() {
    let setting = Setting::new();
    let machine = setting.boot_on(Disk::Overlay, &[("/etc/fstab", FSTAB)], &[]);
    assert!(!machine.is_on_ext4());
    by_hand(&machine, &setting);
    by_fstab(&machine);
}

pub fn a_helper_that_returns_too_early_is_noticed() {
    let setting = Setting::new();
    let mutant = "#!/bin/sh\n(sleep 2; exec -a mount.onedrivefs /usr/bin/onedrivefs \"$@\") >/dev/null 2>&1 &\nexit 0\n";
    let mutant = mutant.replace("/bin/sh", "/bin/bash");
    let machine = setting.boot(&[("/etc/fstab", FSTAB), ("/usr/sbin/mount.onedrivefs", &mutant)], &[]);
    let noticed = mounts_before_it_returns(&machine, "mount /mnt/drive").expect_err("nothing is mounted yet");
    assert!(noticed.contains("returned 0"), "{noticed}");
    wait("its mount", || machine.is_mounted(DRIVE).then_some(()));
}
