//! Names and attributes, against ext4.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use onedrivefs::emulator::Edit;

use super::mounted_support::{Mounted, have, until};
use super::table::{Goal, Table};
use super::{PER_FOLDER, Scale, compare, mount, native, seconds};

/// Bytes of each file of the tree.
const SIZE: u64 = 1000;

pub fn run(scale: &Scale, table: &mut Table) {
    let mounted = mount("settle=1h");
    let local = native(&mounted, "tree");
    let ours = mounted.path("tree");
    for folder in 0..scale.folders {
        let name = format!("folder {folder:04}");
        fs::create_dir(local.join(&name)).expect("a directory");
        for file in 0..PER_FOLDER {
            let path = format!("{name}/file {file:03}.txt");
            fs::write(local.join(&path), [b'x'; SIZE as usize]).expect("a file");
            let path = format!("tree/{path}");
            mounted.service.edit(&Edit::WritePattern { path, size: SIZE, seed: 1 });
        }
    }
    let entries = scale.folders * (PER_FOLDER + 1);
    assert!(
        until(Duration::from_secs(300), || paths_below(&ours).len() == entries),
        "{}",
        mounted.log_tail()
    );
    let files = scale.folders * PER_FOLDER;
    let ls = |path: &Path| {
        seconds(|| {
            let status = Command::new("ls").arg("-lR").arg(path).stdout(Stdio::null()).status();
            assert!(status.expect("ls runs").success());
        })
    };
    for path in [&ours, &local] {
        ls(path);
    }
    let warm = compare(scale.rounds, |_| ls(&ours), |_| ls(&local));
    table.measured(&format!("ls -lR of {files} files, warm, vs ext4"), "s", warm, Goal::AtMost(1.3));
    let find = |path: &Path| {
        seconds(|| {
            let status = Command::new("find").arg(path).args(["-size", "+1"]).stdout(Stdio::null()).status();
            assert!(status.expect("find runs").success());
        })
    };
    let warm = compare(scale.rounds, |_| find(&ours), |_| find(&local));
    table.measured(&format!("find -size of {files} files, warm, vs ext4"), "s", warm, Goal::AtMost(1.3));
    stat(scale, table, &ours, &local);
    let again = |_| {
        mounted.unmount();
        mounted.remount();
        ls(&ours)
    };
    let first = compare(scale.rounds, again, |_| ls(&local));
    table.measured(
        &format!("ls -lR of {files} files after a remount, vs ext4 warm"),
        "s",
        first,
        Goal::AtMost(4.0),
    );
    git(scale, table, &mounted);
}

/// `git status` in a work tree that was committed, here and on ext4.
fn git(scale: &Scale, table: &mut Table, mounted: &Mounted) {
    if !have(&["git"]) {
        return table.left_out("git status", "git is not installed");
    }
    let trees = [mounted.path("work tree"), mounted.local().join("work tree")];
    let git = |tree: &Path, arguments: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(tree).args(["-c", "user.name=x", "-c", "user.email=x", "-c", "gc.auto=0"]);
        let output = command.args(arguments).env("HOME", mounted.scratch()).output().expect("git runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    for tree in &trees {
        for number in 0..scale.tracked {
            let folder = tree.join(format!("folder {:03}", number / PER_FOLDER));
            fs::create_dir_all(&folder).expect("a directory");
            fs::write(folder.join(format!("file {number:05}")), number.to_string()).expect("a file");
        }
        git(tree, &["init", "--quiet"]);
        git(tree, &["add", "--all"]);
        git(tree, &["commit", "--quiet", "--message", "all"]);
    }
    let status = |tree: &Path| seconds(|| assert!(git(tree, &["status", "--porcelain"]).is_empty()));
    let [ours, local] = &trees;
    // The second one no longer looks into files whose time is that of the index.
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(1100));
        status(ours);
        status(local);
    }
    let warm = compare(scale.rounds, |_| status(ours), |_| status(local));
    let what = format!("git status in {} files, warm, vs ext4", scale.tracked);
    table.measured(&what, "s", warm, Goal::AtMost(2.0));
}

fn stat(scale: &Scale, table: &mut Table, ours: &Path, local: &Path) {
    let trees = [ours, local].map(paths_below);
    let absent =
        trees.clone().map(|paths| paths.iter().map(|path| path.with_extension("absent")).collect::<Vec<_>>());
    let rate = |paths: &[PathBuf], there: bool| {
        let taken = seconds(|| {
            for path in paths {
                assert_eq!(fs::symlink_metadata(path).is_ok(), there);
            }
        });
        paths.len() as f64 / taken
    };
    for (what, [ours, local], there) in
        [("stat, warm, vs ext4", &trees, true), ("stat of absent names, warm, vs ext4", &absent, false)]
    {
        rate(ours, there);
        rate(local, there);
        let rates = compare(scale.rounds, |_| rate(ours, there), |_| rate(local, there));
        table.measured(what, "/s", rates, Goal::AtLeast(0.9));
    }
}

/// Everything below `path`.
pub fn paths_below(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(path) else { return found };
    for entry in entries {
        let entry = entry.expect("an entry");
        found.push(entry.path());
        if entry.file_type().expect("its type").is_dir() {
            found.extend(paths_below(&entry.path()));
        }
    }
    found
}
