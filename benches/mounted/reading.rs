//! Content: from the kernel's pages, from the cache on the disk, from the service.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use onedrivefs::emulator::Edit;
use rustix::fs::Advice;

use super::mounted_support::{Mounted, have, is_root, until};
use super::raw::{Raw, thread_nanos};
use super::scale::cpu_seconds;
use super::table::{Goal, Table};
use super::{MIB, Scale, compare, mib_per_s, mount, native, quiet_disk, seconds};

/// Bytes per second of one connection of the slow network.
const SLOW: u64 = 12_000_000;
const LATENCY: Duration = Duration::from_millis(80);

pub fn run(scale: &Scale, table: &mut Table) {
    let mounted = mount("settle=1h");
    let raw = Raw::new(mounted.service.url());
    cold(scale, table, &mounted, &raw);
    cpu(scale, table, &mounted, &raw);
    first_byte(scale, table, &mounted, &raw);
    warm(scale, table, &mounted, is_root());
    if is_root() {
        drop(mounted);
        warm(scale, table, &mount("settle=1h,passthrough=false"), false);
    }
}

/// Another client writes files, which then are visible here.
pub fn plant(mounted: &Mounted, names: &[String], size: u64) {
    for (seed, name) in names.iter().enumerate() {
        mounted.service.edit(&Edit::WritePattern { path: name.clone(), size, seed: seed as u32 });
    }
    let there = || names.iter().all(|name| fs::metadata(mounted.path(name)).is_ok());
    assert!(until(Duration::from_secs(60), there), "{}", mounted.log_tail());
}

pub fn names(what: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{what} {number}")).collect()
}

fn read_all(path: &Path) -> f64 {
    let mut file = File::open(path).expect("it opens");
    let mut buffer = vec![0; MIB as usize];
    seconds(|| while file.read(&mut buffer).expect("it is read") > 0 {})
}

fn cold(scale: &Scale, table: &mut Table, mounted: &Mounted, raw: &Raw) {
    let to = native(mounted, "raw").join("download");
    let (control, size) = (mounted.control(), scale.cold);
    let shown = size / MIB;
    for (network, at_once, goal) in [
        ("loopback", 8, 0.9),
        ("80 ms, 12 MB/s per connection", 8, 0.9),
        ("80 ms, 12 MB/s per connection", 1, 5.0),
    ] {
        let slow = network != "loopback";
        let files = names(&format!("cold {network} {at_once}").replace([',', '/'], ""), scale.rounds);
        plant(mounted, &files, size);
        control.set_latency(if slow { LATENCY } else { Duration::ZERO });
        control.set_bandwidth(slow.then_some(SLOW));
        let mut worst = 0;
        let ours = |round: usize| {
            quiet_disk();
            control.reset_log();
            let taken = read_all(&mounted.path(&files[round]));
            let counts = control.counts();
            let sum = |op: &str| counts.get(op).copied().unwrap_or(0);
            worst = worst.max(sum("download") + sum("item.get") + sum("content.get"));
            mib_per_s(size, taken)
        };
        let by_hand = |round: usize| {
            quiet_disk();
            mib_per_s(size, seconds(|| raw.download(&files[round], size, at_once, &to)))
        };
        let speeds = compare(scale.rounds, ours, by_hand);
        let what = format!("cold read of {shown} MiB, {network}, vs {at_once} raw ranges");
        table.measured(&what, "MiB/s", speeds, Goal::AtLeast(goal));
        if at_once > 1 {
            let least = size.div_ceil(8 * MIB) as f64;
            let what = "requests of that, vs ranges of 8 MiB, plus 4 to begin";
            table.measured(what, "req", (worst as f64, least), Goal::AtMost((least + 4.0) / least));
        }
        control.set_bandwidth(None);
        control.set_latency(Duration::ZERO);
    }
}

/// CPU time of a download: of the daemon and of who reads, and of curl, which writes to a file.
fn cpu(scale: &Scale, table: &mut Table, mounted: &Mounted, raw: &Raw) {
    let what = "CPU per GiB of a cold read, loopback, vs curl to disk";
    if !have(&["curl"]) {
        return table.left_out(what, "curl is not installed");
    }
    let files = names("cpu", scale.rounds);
    plant(mounted, &files, scale.cold);
    let per_gib = |seconds: f64| seconds * (1024 * MIB) as f64 / scale.cold as f64;
    let ours = |round: usize| {
        let before = (cpu_seconds(mounted.pid()), thread_nanos());
        read_all(&mounted.path(&files[round]));
        let own = (thread_nanos() - before.1) as f64 / 1e9;
        per_gib(cpu_seconds(mounted.pid()) - before.0 + own)
    };
    let to = native(mounted, "curl").join("download");
    let by_curl = |round: usize| {
        let address = raw.address_of(&files[round]);
        let before = children_seconds();
        let mut curl = Command::new("curl");
        curl.args(["-sf", "--http1.1", "-o"]).arg(&to).arg(address);
        assert!(curl.status().expect("curl runs").success());
        per_gib(children_seconds() - before)
    };
    table.measured(what, "s", compare(scale.rounds, ours, by_curl), Goal::AtMost(1.5));
}

/// CPU seconds of the processes that were waited for.
fn children_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: getrusage(2) fills the struct, which is ours, and this `who` is always valid.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn first_byte(scale: &Scale, table: &mut Table, mounted: &Mounted, raw: &Raw) {
    let files = names("first", scale.rounds);
    plant(mounted, &files, 64 * MIB);
    mounted.control().set_latency(LATENCY);
    let ours = |round: usize| {
        let file = File::open(mounted.path(&files[round])).expect("it opens");
        seconds(|| file.read_exact_at(&mut [0; 4096], 0).expect("it is read"))
    };
    let by_hand = |round: usize| seconds(|| raw.first_byte(&files[round]));
    let times = compare(scale.rounds, ours, by_hand);
    mounted.control().set_latency(Duration::ZERO);
    table.measured("first byte of a cold file, 80 ms, vs raw", "s", times, Goal::AtMost(1.15));
}

/// `below`: the kernel reads the file by itself, and there is nothing between its pages and the disk.
fn warm(scale: &Scale, table: &mut Table, mounted: &Mounted, below: bool) {
    let shown = scale.file / MIB;
    plant(mounted, &["warm".into()], scale.file);
    let (ours, local) = (mounted.path("warm"), native(mounted, "warm").join("warm"));
    fs::copy(&ours, &local).expect("it is copied");
    quiet_disk();
    let speed = |path: &Path| mib_per_s(scale.file, read_all(path));
    for path in [&ours, &local] {
        speed(path);
    }
    let kept = compare(scale.rounds, |_| speed(&ours), |_| speed(&local));
    let how = if below { "passthrough" } else { "from the kernel's pages" };
    let goal = Goal::AtLeast(if below { 0.9 } else { 0.75 });
    table.measured(&format!("read of {shown} MiB, warm, {how}, vs ext4"), "MiB/s", kept, goal);
    let dropped = |_| {
        let file = File::open(&ours).expect("it opens");
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("pages are let go");
        speed(&ours)
    };
    if !below {
        let through = compare(scale.rounds, dropped, |_| speed(&local));
        let what = format!("read of {shown} MiB from the cache, vs ext4 warm");
        table.measured(&what, "MiB/s", through, Goal::AtLeast(0.2));
    }
    let what = format!("read of {shown} MiB, all pages dropped, {how}");
    if !is_root() {
        table.left_out(&what, "only root may drop pages");
        return;
    }
    let drop_all = |path: &Path| {
        quiet_disk();
        fs::write("/proc/sys/vm/drop_caches", "3").expect("root may");
        speed(path)
    };
    let from_disk = compare(scale.rounds, |_| drop_all(&ours), |_| drop_all(&local));
    table.measured(&what, "MiB/s", from_disk, Goal::AtLeast(0.5));
}
