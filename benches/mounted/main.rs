//! The mounted program against what the machine and the protocol allow, as ratios taken in one run.
//!
//! `cargo bench --bench mounted` mounts the real binary over an emulator in this process and prints a table.
//! Speeds are medians of alternating runs of ours and the reference. Numbers of requests are exact: a wrong one
//! fails the run. `-- --quick` does a tenth of the work and finishes within two minutes; `-- NAME...` runs only
//! these parts: requests, reading, looking, metadata, kernel, writing, fresh, scale.

#[path = "../../tests/mounted_support/mod.rs"]
mod mounted_support;

mod fresh;
mod kernel;
mod looking;
mod metadata;
mod raw;
mod reading;
mod requests;
mod scale;
mod table;
mod writing;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mounted_support::{Mounted, Options, can_mount};
use onedrivefs::emulator::Flavour;
use table::Table;

/// How much work each part does.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Runs of each side of a timed row.
    pub rounds: usize,
    /// Bytes of the file that is read again and again.
    pub file: u64,
    /// Bytes of a file that is read once.
    pub cold: u64,
    /// Files of which only the header is read.
    pub heads: usize,
    /// Reads here and there in one file.
    pub random: usize,
    /// Bytes of each of the files that are read at once.
    pub together: u64,
    /// Folders of the tree, each of [`PER_FOLDER`] files.
    pub folders: usize,
    /// Files created one after the other.
    pub small_files: usize,
    /// Files created and synced, by one writer or several.
    pub synced_files: usize,
    /// Bytes written in pieces of 1 MiB.
    pub written: u64,
    /// Bytes appended in pieces of 4 KiB.
    pub appended: u64,
    /// Files of the work tree that git looks at.
    pub tracked: usize,
    /// Files of the large drive.
    pub items: u32,
}

/// Files of each folder of the tree.
pub const PER_FOLDER: usize = 100;
pub const MIB: u64 = 1 << 20;

const FULL: Scale = Scale {
    rounds: 5,
    file: 1024 * MIB,
    cold: 256 * MIB,
    heads: 500,
    random: 1000,
    together: 64 * MIB,
    folders: 1000,
    small_files: 2000,
    synced_files: 800,
    written: 256 * MIB,
    appended: 64 * MIB,
    tracked: 5000,
    items: 1_000_000,
};
const QUICK: Scale = Scale {
    rounds: 3,
    file: 96 * MIB,
    cold: 32 * MIB,
    heads: 100,
    random: 200,
    together: 16 * MIB,
    folders: 20,
    small_files: 200,
    synced_files: 160,
    written: 32 * MIB,
    appended: 8 * MIB,
    tracked: 500,
    items: 50_000,
};

type Part = fn(&Scale, &mut Table);
const PARTS: [(&str, Part); 8] = [
    ("requests", requests::run),
    ("reading", reading::run),
    ("looking", looking::run),
    ("metadata", metadata::run),
    ("kernel", kernel::run),
    ("writing", writing::run),
    ("fresh", fresh::run),
    ("scale", scale::run),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let scale = if words.iter().any(|word| word == "--quick") { QUICK } else { FULL };
    let chosen: Vec<&String> = words.iter().filter(|word| !word.starts_with("--")).collect();
    if let Some(unknown) = chosen.iter().find(|word| PARTS.iter().all(|(name, _)| *name != word.as_str())) {
        eprintln!(
            "there is no part '{unknown}'; there are requests, reading, looking, metadata, kernel, writing, fresh and \
             scale"
        );
        return ExitCode::from(2);
    }
    if !can_mount() {
        return ExitCode::SUCCESS;
    }
    let mut table = Table::begin();
    for (name, part) in PARTS {
        if chosen.is_empty() || chosen.iter().any(|word| *word == name) {
            part(&scale, &mut table);
        }
    }
    if table.end() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Mounts an empty business drive; `more` are further mount options.
pub fn mount(more: &str) -> Mounted {
    let options = Options {
        // What another client does is seen soon; these looks are not counted as requests of anything.
        mount: format!("poll-interval=1s,cache-size=16GiB,log=warn,{more}"),
        deadline: Duration::from_secs(3600),
        ..Options::default()
    };
    Mounted::new(Flavour::Business, options).expect("it was looked whether mounting is possible")
}

/// Medians of what `ours` and `reference` measure, each run `rounds` times, in turns.
pub fn compare(
    rounds: usize,
    mut ours: impl FnMut(usize) -> f64,
    mut reference: impl FnMut(usize) -> f64,
) -> (f64, f64) {
    let mut measured = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            measured.0.push(ours(round));
            measured.1.push(reference(round));
        } else {
            measured.1.push(reference(round));
            measured.0.push(ours(round));
        }
    }
    (median(measured.0), median(measured.1))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Seconds that `work` takes.
pub fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// MiB per second of `bytes` in `seconds`.
pub fn mib_per_s(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / MIB as f64 / seconds
}

/// An ordinary directory beside the mount: what native means here.
pub fn native(mounted: &Mounted, name: &str) -> PathBuf {
    let path = mounted.local().join(name);
    fs::create_dir_all(&path).expect("an ordinary directory");
    path
}

/// Lets earlier writes reach the disk, so that they do not slow the next measurement.
pub fn quiet_disk() {
    rustix::fs::sync();
}
