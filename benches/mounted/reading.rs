//! Content: from the kernel's pages, from the cache on the disk, from the service.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use onedrivefs::emulator::Edit;
use rustix::fs::Advice;

use super::mounted_support::{Mounted, is_root, until};
use super::raw::Raw;
use super::table::{Goal, Table};
use super::{MIB, Scale, compare, mib_per_s, mount, native, quiet_disk, seconds};

/// Bytes per second of one connection of the slow network.
const SLOW: u64 = 12_000_000;
const LATENCY: Duration = Duration::from_millis(80);

pub fn run(scale: &Scale, table: &mut Table) {
    let mounted = mount("settle=1h");
    let raw = Raw::new(mounted.service.url());
    cold(scale, table, &mounted, &raw);
    first_byte(scale, table, &mounted, &raw);
    warm(scale, table, &mounted);
}

/// Another client writes files, which then are visible here.
fn plant(mounted: &Mounted, names: &[String], size: u64) {
    for (seed, name) in names.iter().enumerate() {
        mounted.service.edit(&Edit::WritePattern { path: name.clone(), size, seed: seed as u32 });
    }
    let there = || names.iter().all(|name| fs::metadata(mounted.path(name)).is_ok());
    assert!(until(Duration::from_secs(60), there), "{}", mounted.log_tail());
}

fn names(what: &str, count: usize) -> Vec<String> {
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

fn warm(scale: &Scale, table: &mut Table, mounted: &Mounted) {
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
    table.measured(&format!("read of {shown} MiB, warm, vs ext4"), "MiB/s", kept, Goal::AtLeast(0.75));
    let dropped = |_| {
        let file = File::open(&ours).expect("it opens");
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("pages are let go");
        speed(&ours)
    };
    let through = compare(scale.rounds, dropped, |_| speed(&local));
    let what = format!("read of {shown} MiB from the cache, vs ext4 warm");
    table.measured(&what, "MiB/s", through, Goal::AtLeast(0.2));
    let what = format!("read of {shown} MiB from the disk, all pages dropped");
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
