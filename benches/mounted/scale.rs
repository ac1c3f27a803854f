//! A drive of a million items: reading it for the first time, showing it after a remount, and what it costs in memory.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use onedrivefs::emulator::{EmulatorConfig, Fault, FaultAction, Flavour, Seed};

use super::mounted_support::{Mounted, Options, process, until};
use super::raw::Raw;
use super::table::{Goal, Table};
use super::{MIB, Scale};

/// Files of a folder; each group has as many folders at most.
const PER_FOLDER: u32 = 1000;
/// What SharePoint sends at a time, whatever it is asked for.
const PAGE: u64 = 200;
/// Resident bytes that a mount may need.
const MEMORY: u64 = 150 * MIB;
/// Milliseconds until a remounted drive is listed.
const REMOUNT_MS: f64 = 100.0;

pub fn run(scale: &Scale, table: &mut Table) {
    let small = memory(scale, table, scale.items, true);
    let large = memory(scale, table, scale.items * 5, false);
    let what = format!("resident, {} items vs {}", scale.items * 5, scale.items);
    table.measured(&what, "MiB", (large, small), Goal::AtMost(1.1));
}

/// Resident MiB once everything was looked at; with `all` also measures what comes before and after.
fn memory(scale: &Scale, table: &mut Table, files: u32, all: bool) -> f64 {
    let mounted = mount(files);
    let start = Instant::now();
    // Asking the program would be part of what it costs.
    let pages = items_of(files).div_ceil(PAGE);
    let asked = || mounted.control().counts().get("delta").copied().unwrap_or(0);
    assert!(until(Duration::from_secs(3600), || asked() >= pages), "{}", mounted.log_tail());
    let enumerated = until(Duration::from_secs(600), || {
        std::thread::sleep(Duration::from_millis(500));
        mounted.status()["state"] == "online"
    });
    assert!(enumerated, "{}", mounted.log_tail());
    let (taken, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds(mounted.pid()));
    let items = items_of(files);
    let after = resident(mounted.pid());
    table.told(
        &format!("enumeration of {items} items"),
        &format!("{taken:.1} s, {:.0} items/s, {cpu:.1} s of CPU, then {after:.0} MiB", items as f64 / taken),
    );
    if all {
        let asked = mounted.control().counts().get("delta").copied().unwrap_or(0) as f64;
        let what = format!("requests to enumerate {items} items");
        table.measured(&what, "req", (asked, items.div_ceil(PAGE) as f64), Goal::AtMost(1.02));
        // From where the enumeration began; few pages stand for all.
        let pages = items.div_ceil(PAGE).min(1000);
        let parsing =
            Raw::new(mounted.service.url()).parse_delta(pages) * items as f64 / (pages * PAGE) as f64;
        let what = format!("CPU to enumerate {items} items vs parsing its JSON");
        table.measured(&what, "s", (cpu, parsing), Goal::AtMost(4.0));
    }
    walk(&mounted, table, items, "once enumerated", all);
    let resident = resident(mounted.pid());
    table.measured(
        &format!("resident, {items} items, after find"),
        "MiB",
        (resident, MEMORY as f64 / MIB as f64),
        Goal::AtMost(1.0),
    );
    if all {
        remount(scale, &mounted, table, items);
        walk(&mounted, table, items, "after a remount", true);
    }
    resident
}

fn items_of(files: u32) -> u64 {
    let folders = files.div_ceil(PER_FOLDER);
    u64::from(1 + files + folders + folders.div_ceil(PER_FOLDER))
}

fn mount(files: u32) -> Mounted {
    let seed = Seed::Synthetic { files, per_folder: PER_FOLDER, size: 4096 };
    let config = EmulatorConfig {
        flavour: Flavour::Business,
        seed,
        page_size: PAGE as usize,
        ..EmulatorConfig::default()
    };
    let options = Options {
        mount: "poll-interval=1h,cache-size=16GiB,log=warn".into(),
        deadline: Duration::from_secs(3600),
        ..Options::default()
    };
    Mounted::with(config, options).expect("it was looked whether mounting is possible")
}

/// `find` of everything.
fn walk(mounted: &Mounted, table: &mut Table, items: u64, when: &str, counted: bool) {
    mounted.control().reset_log();
    let start = Instant::now();
    let found = Command::new("find").arg(mounted.root()).stdout(Stdio::piped()).output().expect("find runs");
    let taken = start.elapsed().as_secs_f64();
    assert_eq!(found.stdout.iter().filter(|&&byte| byte == b'\n').count() as u64, items);
    let counts = mounted.control().counts();
    let asked: u64 = counts
        .iter()
        .filter(|(op, _)| !super::requests::STANDING.contains(&op.as_str()))
        .map(|(_, n)| n)
        .sum();
    if counted {
        table.requests(&format!("find of {items} items {when}"), &format!("{counts:?}"), asked, 0);
    }
    table.told(
        &format!("find of {items} items {when}"),
        &format!("{taken:.2} s, {:.0} items/s", items as f64 / taken),
    );
}

/// From the start of the program to the end of a first listing, while the service does not answer.
fn remount(scale: &Scale, mounted: &Mounted, table: &mut Table, items: u64) {
    let mut times: Vec<f64> = (0..scale.rounds)
        .map(|_| {
            mounted.unmount();
            let stall = FaultAction::Stall { after: false };
            let fault = Fault { method: None, path: None, op: None, skip: 0, count: None, action: stall };
            mounted.control().inject(fault);
            let start = Instant::now();
            mounted.start(&[]);
            while !process::is_mounted(&mounted.root()) {
                std::thread::sleep(Duration::from_micros(500));
            }
            let listed = fs::read_dir(mounted.root()).expect("a listing").count();
            let taken = start.elapsed();
            assert!(listed > 0);
            mounted.control().clear_faults();
            mounted.control().release_stalls();
            assert!(mounted.is_ready_soon());
            taken.as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let what = format!("remount to first ls, {items} items, no network");
    table.measured(&what, "ms", (times[times.len() / 2], REMOUNT_MS), Goal::AtMost(1.0));
}

/// CPU seconds that the process has used, in all its threads.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("a name").split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    // Fields 14 and 15 of proc(5), in hundredths.
    (ticks(11) + ticks(12)) / 100.0
}

/// Resident MiB of the process.
pub fn resident(pid: u32) -> f64 {
    let status =
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}
