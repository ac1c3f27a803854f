//! Reading a little of much, and much at once: bytes, time and memory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::mounted_support::Mounted;
use super::reading::{names, plant};
use super::table::{Goal, Table};
use super::{MIB, Scale, mount, seconds};

const LATENCY: Duration = Duration::from_millis(80);
/// The unit of the cache, and the most that a look at a header costs.
const BLOCK: u64 = 128 << 10;
const AT_ONCE: usize = 8;
/// Files read at once, and what the daemon may take for it.
const TOGETHER: usize = 32;
const MEMORY_MIB: f64 = 200.0;

pub fn run(scale: &Scale, table: &mut Table) {
    let mounted = mount("settle=1h");
    heads(scale, table, &mounted);
    random(scale, table, &mounted);
    together(scale, table, &mounted);
}

/// Bytes of content that were asked for since the log was reset.
fn downloaded(mounted: &Mounted) -> u64 {
    let requests = mounted.control().requests();
    let ranges = requests.iter().filter(|request| request.op == "download").map(|request| {
        let range = request.range.as_deref().expect("all of them are ranges");
        let (first, last) = range.trim_start_matches("bytes=").split_once('-').expect("a range");
        let number = |text: &str| text.parse::<u64>().expect("a number");
        number(last) + 1 - number(first)
    });
    ranges.sum()
}

fn heads(scale: &Scale, table: &mut Table, mounted: &Mounted) {
    let count = scale.heads;
    let files: Vec<String> = names("head", count).iter().map(|name| format!("heads/{name}")).collect();
    plant(mounted, &files, 4 * MIB);
    mounted.control().set_latency(LATENCY);
    mounted.control().reset_log();
    let next = AtomicUsize::new(0);
    let taken = seconds(|| {
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while let Some(name) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let file = File::open(mounted.path(name)).expect("it opens");
                        file.read_exact_at(&mut [0; 1024], 0).expect("it is read");
                    }
                });
            }
        });
    });
    mounted.control().set_latency(Duration::ZERO);
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    let bytes = (mib(downloaded(mounted)), mib(count as u64 * BLOCK));
    let what = format!("bytes for 1 KiB of each of {count} cold files, vs 128 KiB");
    table.measured(&what, "MiB", bytes, Goal::AtMost(1.0));
    let least = count as f64 * LATENCY.as_secs_f64() / AT_ONCE as f64;
    let what = format!("time of that, {AT_ONCE} at a time, 80 ms, vs one answer each");
    table.measured(&what, "s", (taken, least), Goal::AtMost(1.5));
}

fn random(scale: &Scale, table: &mut Table, mounted: &Mounted) {
    plant(mounted, &["random".into()], scale.file);
    let file = File::open(mounted.path("random")).expect("it opens");
    mounted.control().reset_log();
    let mut touched = BTreeSet::new();
    let mut at = 12_345u64;
    for _ in 0..scale.random {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let offset = (at >> 20) % (scale.file / 4096) * 4096;
        file.read_exact_at(&mut [0; 4096], offset).expect("it is read");
        touched.insert(offset / BLOCK);
    }
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    let bytes = (mib(downloaded(mounted)), mib(touched.len() as u64 * BLOCK));
    let what = format!("bytes for {} random reads of 4 KiB, vs blocks touched", scale.random);
    table.measured(&what, "MiB", bytes, Goal::AtMost(1.1));
}

fn together(scale: &Scale, table: &mut Table, mounted: &Mounted) {
    let files = names("together", TOGETHER);
    plant(mounted, &files, scale.together);
    let process = format!("/proc/{}", mounted.pid());
    // Resets the peak (proc(5)).
    fs::write(format!("{process}/clear_refs"), "5").expect("it is ours");
    std::thread::scope(|scope| {
        for name in &files {
            scope.spawn(|| fs::read(mounted.path(name)).map(drop).expect("it is read"));
        }
    });
    let status = fs::read_to_string(format!("{process}/status")).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has memory");
    let peak = peak.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0;
    let what = format!("peak memory, {TOGETHER} files of {} MiB read at once", scale.together / MIB);
    table.measured(&what, "MiB", (peak, MEMORY_MIB), Goal::AtMost(1.0));
}
