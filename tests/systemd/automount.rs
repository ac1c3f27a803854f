//! The line of fstab that mounts at the first look and unmounts when idle.

use std::time::{Duration, Instant};

use super::machine::{Boot, Disk, Machine, wait};
use super::setting::Setting;

const DRIVE: &str = "/mnt/drive";
/// As it is documented, but for the time.
const FSTAB: &str = "me /mnt/drive onedrivefs \
                     noauto,nofail,x-systemd.automount,x-systemd.idle-timeout=4s,settle=100ms,drain-timeout=10s 0 0\n";

/// A wait in which the mount must not go away: several times the idle time.
fn stays_mounted(machine: &Machine, time: Duration) {
    let started = Instant::now();
    while started.elapsed() < time {
        assert!(machine.is_mounted(DRIVE), "it was unmounted in use");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn idle_unmount(machine: &Machine) {
    wait("the idle unmount", || (!machine.is_mounted(DRIVE)).then_some(()));
}

fn trapped(machine: &Machine) -> bool {
    machine.mounted(DRIVE) == ["autofs"]
}

/// How often the daemon has said this.
fn said(machine: &Machine, words: &str) -> usize {
    machine.journal("-t onedrivefs -o cat").lines().filter(|line| line.starts_with(words)).count()
}

pub fn first_access_and_idle() {
    let setting = Setting::new();
    let machine = setting.boot(&[("/etc/fstab", FSTAB)], &[]);
    assert!(trapped(&machine), "{:?}", machine.mounted(DRIVE));
    sixteen_at_once(&machine);
    held_by_open_files(&machine);
    left_when_idle(&machine);
}

// S267: the first access mounts; many at once give one daemon.
fn sixteen_at_once(machine: &Machine) {
    let all = machine.run(
        "for i in $(seq 16); do cat /mnt/drive/hello.txt & done; wait; echo; systemctl is-active mnt-drive.mount",
    );
    assert_eq!(all, format!("{}\nactive", "hello".repeat(16)));
    assert_eq!(machine.daemons().len(), 1);
    assert_eq!(said(machine, "mounted"), 1);
    assert_eq!(machine.mounted(DRIVE), ["autofs", "fuse.onedrivefs"]);
}

// S268: open files hold it.
fn held_by_open_files(machine: &Machine) {
    machine.run("systemd-run --unit=reader --collect sh -c 'exec 3</mnt/drive/hello.txt; sleep 1000'");
    stays_mounted(machine, Duration::from_secs(14));
    machine.run("systemctl stop reader");
}

// S268: else it is unmounted when idle, and its daemon ends with 0; the next access mounts again.
fn left_when_idle(machine: &Machine) {
    machine.run("echo late > /mnt/drive/late.txt");
    idle_unmount(machine);
    wait("the daemon's end", || machine.daemons().is_empty().then_some(()));
    assert_eq!(said(machine, "the daemon ends exit_code=0"), 1, "{}", machine.journal("-t onedrivefs"));
    assert!(trapped(machine));
    assert_eq!(machine.run("systemctl show -P Result mnt-drive.mount"), "success");
    assert_eq!(machine.run("cat /mnt/drive/late.txt"), "late");
    assert_eq!(machine.daemons().len(), 1);
}

/// The units that are shipped, as they are.
pub fn shipped_units() {
    let setting = Setting::new();
    let units = [
        (
            "/etc/systemd/system/mnt-onedrive.mount",
            include_str!("../../packaging/systemd/mnt-onedrive.mount"),
        ),
        (
            "/etc/systemd/system/mnt-onedrive.automount",
            include_str!("../../packaging/systemd/mnt-onedrive.automount"),
        ),
    ];
    let machine = setting.boot(&units, &["mnt-onedrive.automount"]);
    assert_eq!(machine.mounted("/mnt/onedrive"), ["autofs"]);
    assert_eq!(machine.run("cat /mnt/onedrive/hello.txt"), "hello");
    machine.run(
        "echo last > /mnt/onedrive/last.txt && systemctl stop mnt-onedrive.automount mnt-onedrive.mount",
    );
    assert!(machine.mounted("/mnt/onedrive").is_empty());
    wait("its sending", || setting.service.control.content("last.txt"));
    wait("the daemon's end", || machine.daemons().is_empty().then_some(()));
    let verified = machine.output(
        "cd /etc/systemd/system && systemd-analyze verify --man=no mnt-onedrive.automount mnt-onedrive.mount",
    );
    let problems = String::from_utf8_lossy(&verified.stderr);
    assert!(!problems.contains("onedrive"), "{problems}");
}

pub fn unsent_when_idle() {
    let setting = Setting::new();
    let machine = setting.boot(&[("/etc/fstab", FSTAB)], &[]);
    sent_without_a_mount(&machine, &setting);
    yields_to_the_next_mount(&machine, &setting);
}

// S269: what is unsent at the idle unmount is sent without a mount.
fn sent_without_a_mount(machine: &Machine, setting: &Setting) {
    setting.service.control.set_bandwidth(Some(512 << 10));
    machine.run("head -c 16M /dev/urandom > /mnt/drive/some.bin");
    idle_unmount(machine);
    assert!(setting.service.control.content("some.bin").is_none(), "it is still being sent");
    assert_eq!(machine.daemons().len(), 1, "by the daemon");
    wait("its sending", || setting.service.control.content("some.bin"));
    wait("the daemon's end", || machine.daemons().is_empty().then_some(()));
    assert!(trapped(machine));
    assert_eq!(said(machine, "the daemon ends exit_code=0"), 1);
}

// S270: whoever comes meanwhile gets a mount at once; it sends the rest.
fn yields_to_the_next_mount(machine: &Machine, setting: &Setting) {
    setting.service.control.set_bandwidth(Some(64 << 10));
    machine.run("truncate -s 1G /mnt/drive/large.bin");
    idle_unmount(machine);
    let former = machine.daemons();
    std::thread::sleep(Duration::from_millis(100));
    let started = Instant::now();
    assert_eq!(machine.run("cat /mnt/drive/hello.txt"), "hello");
    let waited = started.elapsed();
    println!("  an access with 1 GiB unsent waits {waited:?}");
    assert!(waited < Duration::from_secs(60), "{waited:?}");
    assert!(setting.service.control.content("large.bin").is_none());
    let now = wait("the end of the former daemon", || {
        Some(machine.daemons()).filter(|now| former.iter().all(|former| !now.contains(former)))
    });
    assert!(now.len() == 1 && former.len() == 1, "{former:?} {now:?}");
    assert!(machine.run("onedrivefs status --json").contains("\"pending\":1"));
    setting.service.control.set_bandwidth(None);
    let from = Instant::now();
    let size = wait("its sending", || setting.service.control.content("large.bin")).len();
    println!("  1 GiB more is sent in {:?}", from.elapsed());
    assert_eq!(size, 1 << 30);
}

// S271: without a network neither boot nor access waits for one: the tree that is known answers, changes queue.
pub fn without_a_network() {
    let setting = Setting::new();
    let state = {
        let machine = setting.boot(&[("/etc/fstab", FSTAB)], &[]);
        machine.run("cat /mnt/drive/hello.txt; ls -lR /mnt/drive; onedrivefs sync /mnt/drive");
        wait("the enumeration", || {
            machine.run("onedrivefs status --json").contains("\"state\":\"online\"").then_some(())
        });
        machine.run("umount /mnt/drive");
        // Over a trap it comes back before the daemon has ended.
        wait("the daemon's end", || machine.daemons().is_empty().then_some(()));
        let kept = tempfile::Builder::new().prefix("odfs-kept-").tempdir().expect("a directory");
        super::machine::run(
            std::process::Command::new("cp").arg("-a").arg(machine.state().join(".")).arg(kept.path()),
        );
        kept
    };
    // And the target of a network that is ready fails.
    let never = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'sleep 20; false'\n";
    let needs = "[Unit]\nRequires=never-online.service\nAfter=never-online.service\n";
    let asks = "[Unit]\nWants=network-online.target\n[Service]\nExecStart=/bin/true\n";
    let machine = Machine::boot(&Boot {
        disk: Disk::Ext4,
        network: false,
        state: Some(state.path()),
        files: &[
            ("/etc/fstab", FSTAB),
            ("/etc/systemd/system/never-online.service", never),
            ("/etc/systemd/system/network-online.target.d/needs.conf", needs),
            ("/etc/systemd/system/asks.service", asks),
        ],
        enabled: &["asks.service"],
    });
    assert!(trapped(&machine));
    assert_ne!(machine.run("systemctl show -P ActiveState network-online.target"), "active");
    let started = Instant::now();
    assert_eq!(machine.run("ls /mnt/drive"), "folder\nhello.txt");
    let waited = started.elapsed();
    println!("  the first access without a network waits {waited:?}; boot took {:?}", machine.booted_in);
    assert!(waited < Duration::from_secs(60), "{waited:?}");
    assert_eq!(machine.run("cat /mnt/drive/folder/../hello.txt 2>&1 || true").lines().count(), 1);
    machine.run("echo queued > /mnt/drive/queued.txt");
    assert_eq!(machine.run("cat /mnt/drive/queued.txt"), "queued");
    assert!(machine.run("onedrivefs status --json").contains("\"pending\":1"));
    idle_unmount(&machine);
    assert_eq!(machine.run("cat /mnt/drive/queued.txt"), "queued", "it is there at the next mount");
    let service = &setting.service.control;
    assert!(service.content("queued.txt").is_none());
    let kept = tempfile::Builder::new().prefix("odfs-kept-").tempdir().expect("a directory");
    // A daemon of an idle mount would send on for an hour.
    machine.run(
        "systemctl stop mnt-drive.automount; umount /mnt/drive 2>/dev/null; pkill -TERM -x onedrivefs; true",
    );
    wait("the daemon's end", || machine.daemons().is_empty().then_some(()));
    super::machine::run(
        std::process::Command::new("cp").arg("-a").arg(machine.state().join(".")).arg(kept.path()),
    );
    drop(machine);
    // With a network again, the next mount sends it.
    let machine = Machine::boot(&Boot {
        disk: Disk::Ext4,
        network: true,
        state: Some(kept.path()),
        files: &[("/etc/fstab", FSTAB)],
        enabled: &[],
    });
    machine.run("ls /mnt/drive");
    let sent = wait("what was queued", || service.content("queued.txt"));
    assert_eq!(&sent[..], b"queued\n");
}
