//! State and cache on a small disk that something else fills, at random moments and to the last byte.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onedrivefs::emulator::Flavour;

use crate::disks::{Disk, can_mount_disks};
use crate::journal::{Journal, Promise, content, on_service};
use crate::mounted_support::random::{Random, number};
use crate::mounted_support::tree::sha256;
use crate::mounted_support::{Mounted, Options, in_ci, until};

/// Of the disk, in MiB; 64 of them stay free.
const DISK: u64 = 160;

fn mount_on(disk: &Disk) -> Mounted {
    let options = Options {
        mount: "settle=20ms,poll-interval=1s".into(),
        deadline: Duration::from_secs(300),
        disk: Some(disk.path().to_owned()),
        ..Options::default()
    };
    Mounted::new(Flavour::Business, options).expect("it was looked whether this is possible")
}

// S56.
#[test]
fn a_disk_that_others_fill_at_random_refuses_writes_and_harms_nothing_that_was_accepted() {
    if !can_mount_disks("a full disk") {
        return;
    }
    let mut random = Random::seeded("full disk");
    let files = number("FILES", if in_ci() { 600 } else { 120 });
    let work = tempfile::Builder::new().prefix("odfs-full-").tempdir().expect("a directory");
    let disk = Disk::in_memory(&work.path().join("disk"), DISK);
    let mounted = mount_on(&disk);
    let dir = mounted.path("accepted");
    fs::create_dir(&dir).expect("there is room");
    let mut journal = Journal::default();
    let mut refused = 0;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| fill_now_and_then(disk.path(), &over));
        for number in 0..files {
            let name = format!("file {number}");
            let bytes = content(&name, &mut random);
            match journal.write(&dir, &name, &bytes, random.below(5)) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    refused += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{name}: {error}\n{}", mounted.log_tail()),
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    assert!(refused > 0, "the disk was never full");
    assert_eq!(mounted.ended(), None, "{}", mounted.log_tail());
    all_is_there(&mounted, &dir, &journal);
    println!("{} files were accepted, {refused} refused", journal.promised(Promise::Closed).count());
    space_returns(&mounted);
    drop(mounted);
}

/// Fills all but a little, or everything, for a moment; again and again.
fn fill_now_and_then(disk: &Path, over: &AtomicBool) {
    let mut random = Random::seeded("filler");
    let filler = disk.join("filler");
    while !over.load(Ordering::SeqCst) {
        fill(&filler, random.below(3) * (20 << 20));
        std::thread::sleep(Duration::from_millis(20 + random.below(120)));
        fs::remove_file(&filler).expect("it was made");
        std::thread::sleep(Duration::from_millis(random.below(100)));
    }
}

/// Takes all that is free but `leave` bytes.
fn fill(path: &Path, leave: u64) {
    let mut file = File::create(path).expect("a name takes no room");
    let piece = vec![0x46; 256 << 10];
    loop {
        let free = onedrivefs::disk::Disk::new().free_bytes(path).expect("it is there");
        if free <= leave || file.write_all(&piece[..(free - leave).min(256 << 10) as usize]).is_err() {
            return;
        }
    }
}

fn all_is_there(mounted: &Mounted, dir: &Path, journal: &Journal) {
    for (name, bytes) in journal.promised(Promise::Closed) {
        let found = fs::read(dir.join(name))
            .unwrap_or_else(|error| panic!("{name} is lost: {error}\n{}", mounted.log_tail()));
        assert!(found == *bytes, "{name} is another: {} bytes\n{}", found.len(), mounted.log_tail());
    }
    mounted.run(&["retry", mounted.root().to_str().expect("text")]);
    mounted.sync();
    let there = on_service(&mounted.control(), "accepted");
    for (name, bytes) in journal.promised(Promise::Closed) {
        assert_eq!(there.get(name), Some(&sha256(bytes)), "{name}\n{}", mounted.log_tail());
    }
}

/// What was sent takes no room as unsent data any more; what a refused write has begun goes with the next start.
fn space_returns(mounted: &Mounted) {
    mounted.unmount();
    mounted.remount();
    let staged = || -> Vec<PathBuf> {
        let mut dirs = vec![mounted.state_dir()];
        let mut found = Vec::new();
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).expect("the state is here").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    dirs.push(path);
                } else if path.parent().is_some_and(|parent| parent.ends_with("staging"))
                    // The paths of what is unsent, for `rescue`; of nothing now.
                    && !path.ends_with("names")
                    && !path.ends_with("names.new")
                {
                    found.push(path);
                }
            }
        }
        found
    };
    let returned = until(Duration::from_secs(60), || staged().is_empty());
    assert!(returned, "{:?} are still staged\n{}\n{}", staged(), mounted.status(), mounted.log_tail());
}

// S56, S141.
#[test]
fn what_was_accepted_is_sent_from_a_disk_without_a_byte_free() {
    if !can_mount_disks("a full disk") {
        return;
    }
    let mut random = Random::seeded("full to the last byte");
    let work = tempfile::Builder::new().prefix("odfs-full-").tempdir().expect("a directory");
    let disk = Disk::in_memory(&work.path().join("disk"), DISK);
    let mounted = mount_on(&disk);
    let dir = mounted.path("accepted");
    fs::create_dir(&dir).expect("there is room");
    mounted.sync();
    let cut = mounted.control().cut();
    let mut journal = Journal::default();
    for number in 0..40 {
        let name = format!("file {number}");
        let bytes = content(&name, &mut random);
        journal.write(&dir, &name, &bytes, random.below(5)).expect("there is room");
    }
    fill(&disk.path().join("filler"), 0);
    let refused = fs::write(dir.join("one more"), vec![7; 6 << 20]).expect_err("nothing is free");
    assert_eq!(refused.raw_os_error(), Some(libc::ENOSPC), "{refused}");
    mounted.control().remove_fault(cut);
    all_is_there(&mounted, &dir, &journal);
    assert_eq!(mounted.ended(), None);
    fs::remove_file(disk.path().join("filler")).expect("it was made");
    let again = until(Duration::from_secs(5), || fs::write(dir.join("one more"), [7; 9000]).is_ok());
    assert!(again, "{}", mounted.log_tail());
    mounted.sync();
    drop(mounted);
}
