//! What the kernel may keep or is told besides, each against doing without it: the same mount, with one of them left out.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use onedrivefs::emulator::Edit;

use super::metadata::paths_below;
use super::mounted_support::{Mounted, until};
use super::table::{Goal, Table};
use super::{Scale, median, mount, seconds};

/// Files of each folder: many answers of the kernel's usual size.
const PER_FOLDER: usize = 1000;
/// Words of `ONEDRIVEFS_TEST_KERNEL`; with none everything is in use.
const WITHOUT: [(&str, &str); 5] = [
    ("", "all"),
    ("plus", "never READDIRPLUS"),
    ("auto", "always READDIRPLUS"),
    ("names", "no FOPEN_CACHE_DIR"),
    ("pages", "no FOPEN_KEEP_CACHE"),
];
/// What is done after a mount, in this order; `ls` begins in another mount, so that both find nothing in memory.
const WORK: [&str; 5] = ["first find", "find again", "first ls -lR", "ls -lR again", "reading again"];
/// What each alternative bears on, as indices of [`WORK`].
const CONCERNED: [&[usize]; 5] = [&[], &[0, 1, 2, 3], &[0, 1, 2, 3], &[1, 3], &[4]];

pub fn run(scale: &Scale, table: &mut Table) {
    // Files that are lent to the kernel have no pages of this file system.
    let mounted = mount("settle=1h,passthrough=false");
    let folders = scale.folders.div_ceil(50);
    for folder in 0..folders {
        for file in 0..PER_FOLDER {
            let path = format!("tree/folder {folder:04}/file {file:03}.txt");
            mounted.service.edit(&Edit::WritePattern { path, size: 1000, seed: 1 });
        }
    }
    let size = scale.cold / 4;
    mounted.service.edit(&Edit::WritePattern { path: "file".into(), size, seed: 2 });
    let entries = folders * (PER_FOLDER + 1);
    let there = || mounted.path("file").exists() && paths_below(&mounted.path("tree")).len() == entries;
    assert!(until(Duration::from_secs(300), there), "{}", mounted.log_tail());
    mounted.await_online();
    let mut taken: BTreeMap<(usize, usize), Vec<f64>> = BTreeMap::new();
    for round in 0..scale.rounds {
        for turn in 0..WITHOUT.len() {
            let alternative = (round + turn) % WITHOUT.len();
            for (work, seconds) in times(&mounted, WITHOUT[alternative].0).into_iter().enumerate() {
                taken.entry((alternative, work)).or_default().push(seconds);
            }
        }
    }
    let medians: BTreeMap<_, _> = taken.into_iter().map(|(at, times)| (at, median(times))).collect();
    for (alternative, works) in CONCERNED.iter().enumerate() {
        for &work in *works {
            let pair = (medians[&(0, work)], medians[&(alternative, work)]);
            let what = format!("{}, {entries} entries, vs {}", WORK[work], WITHOUT[alternative].1);
            table.measured(&what, "s", pair, Goal::None);
        }
    }
}

/// Seconds of each of [`WORK`] without what `word` names.
fn times(mounted: &Mounted, word: &str) -> [f64; WORK.len()] {
    let tree = mounted.path("tree");
    let run = |program: &str, option: &[&str]| {
        seconds(|| {
            let mut command = Command::new(program);
            let status = command.args(option).arg(&tree).stdout(Stdio::null()).status();
            assert!(status.expect("it runs").success());
        })
    };
    again(mounted, word);
    let find = [run("find", &[]), run("find", &[])];
    again(mounted, word);
    let ls = [run("ls", &["-lR"]), run("ls", &["-lR"])];
    let file = mounted.path("file");
    read(&file);
    [find[0], find[1], ls[0], ls[1], seconds(|| read(&file))]
}

fn again(mounted: &Mounted, word: &str) {
    mounted.unmount();
    mounted.start(&[("ONEDRIVEFS_TEST_KERNEL", word)]);
    assert!(mounted.is_ready_soon(), "{}", mounted.log_tail());
}

fn read(file: &Path) {
    let mut file = fs::File::open(file).expect("a file");
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer).expect("its content") > 0 {}
}
