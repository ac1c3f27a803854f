//! How many requests things cost, against the fewest that the protocol allows.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use onedrivefs::emulator::Edit;

use super::mounted_support::Mounted;
use super::table::Table;
use super::{PER_FOLDER, Scale, mount};

/// What goes out whatever the user does: looks for remote changes, the push channel, the drive's space.
pub const STANDING: [&str; 4] = ["delta", "socketIo", "push.connect", "drive.get"];

pub fn run(_: &Scale, table: &mut Table) {
    let mounted = mount("settle=200ms");
    let count = Count { mounted: &mounted };
    creating(&count, table);
    saving(&count, table);
    listing(&count, table);
    reading(&count, table);
    deleting(&count, table);
}

struct Count<'a> {
    mounted: &'a Mounted,
}

impl Count<'_> {
    /// Requests until all that `work` did is on the service.
    fn of(&self, table: &mut Table, what: &str, least: u64, work: impl FnOnce(&Path)) {
        self.mounted.sync();
        self.mounted.control().reset_log();
        work(&self.mounted.root());
        self.mounted.sync();
        let counts = self.mounted.control().counts();
        table.requests(what, &words(&counts), total(&counts), least);
    }

    fn write_elsewhere(&self, path: &str, size: u64) {
        self.mounted.service.edit(&Edit::WritePattern { path: path.into(), size, seed: 1 });
    }
}

fn total(counts: &BTreeMap<String, u64>) -> u64 {
    counts.iter().filter(|(op, _)| !STANDING.contains(&op.as_str())).map(|(_, count)| count).sum()
}

/// What it was, with the looks in brackets.
fn words(counts: &BTreeMap<String, u64>) -> String {
    let (standing, asked): (Vec<_>, Vec<_>) =
        counts.iter().partition(|(op, _)| STANDING.contains(&op.as_str()));
    let list = |some: Vec<(&String, &u64)>| {
        some.iter().map(|(op, count)| format!("{count} {op}")).collect::<Vec<_>>().join(", ")
    };
    let (standing, asked) = (list(standing), list(asked));
    if standing.is_empty() { asked } else { format!("{asked} ({standing})") }
}

fn creating(count: &Count<'_>, table: &mut Table) {
    count.of(table, "create, write and close one small file", 1, |root| {
        fs::write(root.join("one"), "x".repeat(4096)).expect("it is written");
    });
    count.of(table, "create one empty file", 1, |root| {
        fs::write(root.join("empty"), "").expect("it is written");
    });
    count.of(table, "create 50 small files in one folder", 50, |root| {
        for number in 0..50 {
            fs::write(root.join(format!("small {number}")), "x".repeat(4096)).expect("it is written");
        }
    });
    count.of(table, "make 5 folders with 10 small files each", 55, |root| {
        for folder in 0..5 {
            let folder = root.join(format!("new {folder}"));
            fs::create_dir(&folder).expect("it is made");
            for number in 0..10 {
                fs::write(folder.join(format!("f{number}")), "x".repeat(4096)).expect("it is written");
            }
        }
    });
    count.of(table, "rename one file", 1, |root| {
        fs::rename(root.join("small 0"), root.join("renamed")).expect("it is renamed");
    });
    count.of(table, "move a folder of 10 files", 1, |root| {
        fs::rename(root.join("new 0"), root.join("new 1/moved")).expect("it is moved");
    });
}

fn saving(count: &Count<'_>, table: &mut Table) {
    count.of(table, "save one file ten times in a row", 1, |root| {
        for save in 0..10 {
            fs::write(root.join("one"), format!("save {save}").repeat(100)).expect("it is written");
        }
    });
    count.of(table, "save by writing aside and renaming over", 1, |root| {
        fs::write(root.join("one.tmp"), "saved aside".repeat(100)).expect("it is written");
        fs::rename(root.join("one.tmp"), root.join("one")).expect("it is renamed");
    });
    count.of(table, "save by moving the old file aside, then removing it", 1, |root| {
        fs::rename(root.join("one"), root.join("one~")).expect("it is renamed");
        fs::write(root.join("one"), "saved anew".repeat(100)).expect("it is written");
        fs::remove_file(root.join("one~")).expect("it is removed");
    });
    count.of(table, "create a file and delete it at once", 0, |root| {
        fs::write(root.join("temporary"), "x").expect("it is written");
        fs::remove_file(root.join("temporary")).expect("it is removed");
    });
}

fn listing(count: &Count<'_>, table: &mut Table) {
    for folder in 0..20 {
        for file in 0..PER_FOLDER {
            count.write_elsewhere(&format!("tree/d{folder}/f{file}"), 100);
        }
    }
    seen(count.mounted, "tree", 20 * (PER_FOLDER + 1));
    count.of(table, "ls -lR of 2,000 files after enumeration", 0, list);
    count.of(table, "lookups of 100 names that do not exist", 0, |root| {
        for number in 0..100 {
            let absent = root.join(format!("tree/d1/absent {number}"));
            assert!(fs::symlink_metadata(absent).is_err(), "nothing has this name");
        }
    });
    count.mounted.unmount();
    count.mounted.remount();
    count.of(table, "ls -lR of 2,000 files after a remount", 0, list);
}

fn list(root: &Path) {
    let status = Command::new("ls").arg("-lR").arg(root).stdout(Stdio::null()).status();
    assert!(status.expect("ls runs").success());
}

/// Waits until what another client made is visible.
fn seen(mounted: &Mounted, folder: &str, entries: usize) {
    let seen = super::mounted_support::until(std::time::Duration::from_secs(60), || {
        super::metadata::paths_below(&mounted.path(folder)).len() == entries
    });
    assert!(seen, "{}", mounted.log_tail());
}

fn reading(count: &Count<'_>, table: &mut Table) {
    let read = |root: &Path| {
        for file in 0..20 {
            assert_eq!(fs::read(root.join(format!("tree/d0/f{file}"))).expect("it is read").len(), 100);
        }
    };
    count.of(table, "read 20 small files for the first time", 23, read);
    count.of(table, "read 20 cached files again", 0, read);
    count.mounted.unmount();
    count.mounted.remount();
    count.of(table, "read 20 cached files after a remount", 0, read);
}

fn deleting(count: &Count<'_>, table: &mut Table) {
    count.of(table, "delete one file", 1, |root| {
        fs::remove_file(root.join("renamed")).expect("it is removed");
    });
    count.of(table, "delete a tree of 20 folders and 2,000 files", 1, |root| {
        fs::remove_dir_all(root.join("tree")).expect("it is removed");
    });
}
