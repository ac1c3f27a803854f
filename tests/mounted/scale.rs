//! Large folders, and little memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use onedrivefs::emulator::{Edit, EmulatorConfig, Flavour, Seed};
use rustix::fs::{self as rfs, Mode, OFlags, RawDir};

use crate::mounted_support::trace::same_on;
use crate::mounted_support::{Mounted, Options, in_ci, until};

const DEADLINE: Duration = Duration::from_secs(600);

/// A drive with one folder of so many files.
fn one_folder(files: u32) -> Option<Mounted> {
    let seed = Seed::Synthetic { files, per_folder: files, size: 10 };
    let config =
        EmulatorConfig { flavour: Flavour::Personal, seed, page_size: 1000, ..EmulatorConfig::default() };
    Mounted::with(config, Options { deadline: DEADLINE, ..Options::default() })
}

const FOLDER: &str = "group 00000/folder 000000";

fn name(number: u32) -> String {
    format!("file {number:08}.bin")
}

#[test]
fn a_large_folder_lists_what_stays_exactly_once_while_both_sides_change_it() {
    let files: u32 = if in_ci() { 100_000 } else { 20_000 };
    let Some(mounted) = one_folder(files) else { return };
    let dir = mounted.path(FOLDER);
    // On a slow machine the listing takes longer than an opener waits; it goes on meanwhile.
    let mut directory = None;
    let opened = until(DEADLINE, || {
        directory = rfs::open(&dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).ok();
        directory.is_some()
    });
    assert!(opened, "{}", mounted.log_tail());
    let directory = directory.expect("it opened");
    let mut seen: BTreeMap<CString, u32> = BTreeMap::new();
    let mut touched = BTreeSet::new();
    let mut buffer = vec![MaybeUninit::uninit(); 64 << 10];
    let mut raw = RawDir::new(&directory, &mut buffer);
    let (mut count, mut round) = (0, 0);
    while let Some(entry) = raw.next() {
        *seen.entry(entry.expect("it can be listed").file_name().to_owned()).or_default() += 1;
        count += 1;
        if count % (files / 8) == 0 && round < 7 {
            change(&mounted, files, round, &mut touched);
            round += 1;
        }
    }
    assert_eq!(round, 7, "it changed while it was listed");
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let left_out = (0..files).map(name).find(|name| {
        !touched.contains(name) && !seen.contains_key(&CString::new(name.as_str()).expect("no zeros"))
    });
    assert_eq!(left_out, None);
    // Two removed, two made each time; renamed ones stay.
    assert_eq!(fs::read_dir(&dir).expect("it can be listed").count(), files as usize);
}

/// Removes, renames and makes files near the beginning, the middle and the end of the folder, here and elsewhere.
fn change(mounted: &Mounted, files: u32, round: u32, touched: &mut BTreeSet<String>) {
    let dir = mounted.path(FOLDER);
    let mut some = (0..3).map(|third| name(third * (files / 3) + round * 11 + 5));
    let mut take = || {
        let name = some.next().expect("three are enough");
        touched.insert(name.clone());
        name
    };
    fs::remove_file(dir.join(take())).expect("it was there");
    fs::rename(dir.join(take()), dir.join(format!("renamed {round}"))).expect("it was there");
    fs::write(dir.join(format!("a new one {round}")), "x").expect("it is made");
    let gone = take();
    mounted.service.edit(&Edit::Delete { path: format!("{FOLDER}/{gone}") });
    let made = format!("0 made elsewhere {round}");
    mounted.service.write(&format!("{FOLDER}/{made}"), b"x");
    // Applied, and told to the kernel.
    let applied = || dir.join(&made).exists() && !dir.join(&gone).exists();
    assert!(until(DEADLINE, applied), "{}", mounted.log_tail());
}

#[test]
fn without_memory_for_names_and_attributes_all_is_as_with_it() {
    let options =
        Options { mount: format!("{},metadata-memory=0", Options::default().mount), ..Options::default() };
    let Some(mounted) = Mounted::new(Flavour::Business, options) else { return };
    same_on(&mounted, "work", |dir, trace| {
        for n in 0..40 {
            trace.done("folder", fs::create_dir_all(dir.join(format!("d{}/e{}", n % 4, n % 8))));
            trace.done("file", fs::write(dir.join(format!("d{}/e{}/f{n}", n % 4, n % 8)), "x".repeat(n)));
        }
        trace.done("rename", fs::rename(dir.join("d1/e1"), dir.join("d2/moved")));
        trace.done("over", fs::rename(dir.join("d2/moved/f1"), dir.join("d2/moved/f9")));
        trace.done("remove", fs::remove_dir_all(dir.join("d3")));
        trace.done("not empty", fs::remove_dir(dir.join("d2")));
        trace.call("absent", fs::metadata(dir.join("d3/e3")).map(drop));
        trace.call("size", fs::metadata(dir.join("d2/moved/f33")).map(|meta| meta.size()));
        trace.call("content", fs::read_to_string(dir.join("d2/moved/f9")));
        for folder in ["", "d0/e0", "d2", "d2/moved"] {
            let names = fs::read_dir(dir.join(folder))
                .map(|all| all.map(|one| one.expect("an entry").file_name()).collect::<BTreeSet<_>>());
            trace.call("names", names);
        }
    });
    mounted.service.write("work/d0/elsewhere", b"x");
    assert!(until(DEADLINE, || mounted.path("work/d0/elsewhere").exists()), "{}", mounted.log_tail());
    mounted.unmount();
    mounted.remount();
    assert!(mounted.path("work/d0/elsewhere").exists() && mounted.path("work/d2/moved/f9").exists());
}
