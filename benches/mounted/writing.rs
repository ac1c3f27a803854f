//! Writing, against ext4. Nothing is sent meanwhile: what is measured is what a program waits for.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::mounted_support::Mounted;
use super::table::{Goal, Table};
use super::{MIB, Scale, compare, mib_per_s, mount, native, quiet_disk, seconds};

pub fn run(scale: &Scale, table: &mut Table) {
    let mounted = mount("settle=1h");
    let local = native(&mounted, "written");
    let ours = mounted.root();
    let what = format!("write of {} MiB in pieces of 1 MiB, vs ext4", scale.written / MIB);
    let speeds = pieces(scale, &ours, &local, scale.written, MIB as usize);
    table.measured(&what, "MiB/s", speeds, Goal::AtLeast(0.35));
    let what = format!("append of {} MiB in pieces of 4 KiB, vs ext4", scale.appended / MIB);
    let speeds = pieces(scale, &ours, &local, scale.appended, 4096);
    table.measured(&what, "MiB/s", speeds, Goal::AtLeast(0.06));
    small(scale, table, &mounted, &local);
    for writers in [1, 8] {
        closes(scale, table, (&ours, &local), writers);
    }
}

/// What it costs that a file is safe: `close`, after which it survives a crash of the daemon, and `fsync` and `close`,
/// after which it survives a power cut; both against the latter on ext4. Commits that come together share a sync.
fn closes(scale: &Scale, table: &mut Table, (ours, local): (&Path, &Path), writers: usize) {
    for syncs in [false, true] {
        let created = compare(
            scale.rounds,
            |_| saves_per_s(ours, writers, scale.synced_files, syncs),
            |_| saves_per_s(local, writers, scale.synced_files, true),
        );
        let who = if writers == 1 { "1 writer".to_owned() } else { format!("{writers} writers") };
        let how = if syncs { "write, fsync, close" } else { "write, close" };
        let goal = if syncs { 0.3 } else { 1.0 };
        table.measured(&format!("{who}: {how}, vs with fsync on ext4"), "/s", created, Goal::AtLeast(goal));
    }
}

/// Files of 4 KiB made, written and closed by so many threads at once, each its share of `files`.
fn saves_per_s(directory: &Path, writers: usize, files: usize, syncs: bool) -> f64 {
    let directory = directory.join("saved");
    fs::create_dir(&directory).expect("it is made");
    quiet_disk();
    let share = files / writers;
    let taken = seconds(|| {
        std::thread::scope(|scope| {
            for writer in 0..writers {
                let directory = &directory;
                scope.spawn(move || {
                    for number in 0..share {
                        let path = directory.join(format!("f{writer}-{number}"));
                        let mut file = File::create(path).expect("it is created");
                        file.write_all(&[0x5a; 4096]).expect("it is written");
                        if syncs {
                            file.sync_all().expect("it is synced");
                        }
                    }
                });
            }
        });
    });
    fs::remove_dir_all(&directory).expect("it is removed");
    (share * writers) as f64 / taken
}

fn pieces(scale: &Scale, ours: &Path, local: &Path, size: u64, piece: usize) -> (f64, f64) {
    let bytes = vec![0x5a; piece];
    let speed = |directory: &Path| {
        let path = directory.join("written");
        quiet_disk();
        let taken = seconds(|| {
            let mut file = File::create(&path).expect("it is created");
            for _ in 0..size / piece as u64 {
                file.write_all(&bytes).expect("it is written");
            }
        });
        fs::remove_file(&path).expect("it is removed");
        mib_per_s(size, taken)
    };
    compare(scale.rounds, |_| speed(ours), |_| speed(local))
}

fn small(scale: &Scale, table: &mut Table, mounted: &Mounted, local: &Path) {
    let bytes = [0x5a; 4096];
    let mut removed = (Vec::new(), Vec::new());
    let rates = |directory: &Path, removals: &mut Vec<f64>| {
        let directory = directory.join("small");
        fs::create_dir(&directory).expect("it is made");
        quiet_disk();
        let taken = seconds(|| {
            for number in 0..scale.small_files {
                fs::write(directory.join(format!("f{number}")), bytes).expect("it is written");
            }
        });
        let removal = seconds(|| {
            for number in 0..scale.small_files {
                fs::remove_file(directory.join(format!("f{number}"))).expect("it is removed");
            }
        });
        removals.push(scale.small_files as f64 / removal);
        fs::remove_dir(&directory).expect("it is removed");
        scale.small_files as f64 / taken
    };
    let ours = |_| rates(&mounted.root(), &mut removed.0);
    let native = |_| rates(local, &mut removed.1);
    let created = compare(scale.rounds, ours, native);
    table.measured("create, write 4 KiB and close, vs ext4", "/s", created, Goal::AtLeast(0.15));
    let removed = (super::median(removed.0), super::median(removed.1));
    table.measured("unlink of these, vs ext4", "/s", removed, Goal::AtLeast(0.15));
}
