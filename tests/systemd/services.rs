//! The services that are shipped.

use super::machine::{Machine, USER, wait};
use super::setting::Setting;

const DRIVE: &str = "/mnt/drive";
const SYSTEM: &str = include_str!("../../packaging/systemd/system/onedrivefs@.service");
const OF_USERS: &str = include_str!("../../packaging/systemd/user/onedrivefs@.service");
const UNIT: &str = "/etc/systemd/system/onedrivefs@.service";
const CONFIG: (&str, &str) = (
    "/etc/onedrivefs/config.toml",
    "[mounts.drive]\ndrive = \"me\"\nmountpoint = \"/mnt/drive\"\nsettle = \"100ms\"\n",
);

/// What `Type=notify` promises: whatever is started after the service can use the mount.
fn ready_means_usable(machine: &Machine) -> Result<(), String> {
    machine.run("systemctl start onedrivefs@drive");
    if !machine.is_mounted(DRIVE) {
        return Err("it is said to be ready, and nothing is mounted".to_owned());
    }
    let read = machine.run("cat /mnt/drive/hello.txt");
    if read == "hello" { Ok(()) } else { Err(read) }
}

fn main_pid(machine: &Machine) -> u32 {
    machine.run("systemctl show -P MainPID onedrivefs@drive").parse().expect("a number")
}

/// The service is there again, with another process.
fn started_again(machine: &Machine, former: u32) {
    wait("its restart", || {
        let state = machine.output("systemctl is-active onedrivefs@drive").stdout;
        let pid = main_pid(machine);
        (state.trim_ascii() == b"active" && pid != 0 && pid != former).then_some(())
    });
    assert_eq!(machine.run("cat /mnt/drive/hello.txt"), "hello");
    assert_eq!(machine.mounted(DRIVE).len(), 1, "the dead mount is gone");
}

pub fn of_the_system() {
    let setting = Setting::new();
    let secret =
        "[Service]\nLoadCredential=secret:/etc/onedrivefs/secret\nWatchdogSec=15\nTimeoutAbortSec=2\n";
    let files = [
        CONFIG,
        (UNIT, SYSTEM),
        ("/etc/onedrivefs/secret", "hush"),
        ("/etc/systemd/system/onedrivefs@drive.service.d/secret.conf", secret),
    ];
    let machine = setting.boot(&files, &[]);
    // S272.
    ready_means_usable(&machine).expect("ready");
    assert_eq!(machine.run("cat /run/credentials/onedrivefs@drive.service/secret"), "hush");
    let status = || machine.run("systemctl show -P StatusText onedrivefs@drive");
    wait("its state", || (status() == "online; nothing unsent").then_some(()));
    setting.service.control.set_bandwidth(Some(1 << 10));
    machine.run("head -c 100k /dev/zero > /mnt/drive/some.bin");
    wait("its state", || (status() == "online; 1 change unsent").then_some(()));
    setting.service.control.set_bandwidth(None);
    wait("its state", || (status() == "online; nothing unsent").then_some(()));
    // S273: killed, and hung.
    let former = main_pid(&machine);
    machine.run(&format!("kill -KILL {former}"));
    started_again(&machine, former);
    let former = main_pid(&machine);
    machine.run(&format!("kill -STOP {former}"));
    started_again(&machine, former);
    assert!(machine.journal("-u onedrivefs@drive -o cat").contains("Watchdog timeout"));
    // S274.
    machine.run("echo last > /mnt/drive/last.txt && systemctl stop onedrivefs@drive");
    assert!(machine.mounted(DRIVE).is_empty());
    assert!(setting.service.control.content("last.txt").is_some(), "it was sent before the end");
    let end = machine.run("systemctl show -P Result -P ExecMainStatus onedrivefs@drive");
    assert_eq!(end.split_whitespace().collect::<Vec<_>>(), ["success", "0"]);
}

// S272: also of a user, by fusermount3.
pub fn of_a_user() {
    let setting = Setting::new();
    let config = "[mounts.drive]\ndrive = \"me\"\nmountpoint = \"/home/ada/drive\"\n";
    let files = [
        ("/etc/systemd/user/onedrivefs@.service", OF_USERS),
        ("/home/ada/.config/onedrivefs/config.toml", config),
    ];
    let machine = setting.boot(&files, &[]);
    machine.run(&format!(
        "mkdir -p /home/ada/drive /home/ada/.local/state && cp -a /var/lib/onedrivefs /home/ada/.local/state/ && \
         chown -R {USER}:{USER} /home/ada && systemctl start user@{USER}.service"
    ));
    let own = |line: &str| {
        machine.run(&format!("setpriv --reuid={USER} --regid={USER} --clear-groups env HOME=/home/ada XDG_RUNTIME_DIR=/run/user/{USER} {line}"))
    };
    own("systemctl --user start onedrivefs@drive");
    assert!(machine.is_mounted("/home/ada/drive"));
    assert_eq!(own("cat /home/ada/drive/hello.txt"), "hello");
    own("systemctl --user stop onedrivefs@drive");
    assert!(machine.mounted("/home/ada/drive").is_empty());
    assert_eq!(own("systemctl --user show -P ExecMainStatus onedrivefs@drive"), "0");
}

pub fn a_unit_that_is_ready_too_early_is_noticed() {
    let setting = Setting::new();
    let early = "NotifyAccess=all\nExecStart=/bin/sh -c 'systemd-notify --ready; sleep 5; \
                 exec /usr/bin/onedrivefs mount %i --foreground'";
    let mutant = SYSTEM.replace("ExecStart=/usr/bin/onedrivefs mount %i --foreground", early);
    assert_ne!(mutant, SYSTEM);
    let machine = setting.boot(&[CONFIG, (UNIT, &mutant)], &[]);
    let noticed = ready_means_usable(&machine).expect_err("it is not ready");
    assert!(noticed.contains("nothing is mounted"), "{noticed}");
}
