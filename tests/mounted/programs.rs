//! Real programs, each compared with the same run in a local directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use onedrivefs::emulator::Flavour;

use crate::mounted_support::shell::{run_in, same_as_local};
use crate::mounted_support::tree::{Times, Tree};
use crate::mounted_support::{Mounted, Options, have};

/// A tree with what real trees have; files and folders have times of their own.
fn sample(top: &Path) {
    let script = r#"
        mkdir -p src/a/b/c src/empty "src/with space" src/many
        printf 'small\n' >src/a/small.txt
        : >src/a/b/empty
        head -c 300000 /dev/zero | tr '\0' z >src/a/b/c/zeroes
        seq 1 200000 >src/a/large.txt
        printf 'text\n' >"src/with space/ümläut 日本.txt"
        for n in $(seq 40); do printf "file $n\n" >src/many/file$n; done
        ln -s a/small.txt src/link
        ln -s nowhere src/dangling
        printf '#!/bin/sh\necho hello\n' >src/script
        chmod 755 src/script
        chmod 600 src/a/small.txt
        find src -type f | sort | while read -r f; do n=$((${n:-0} + 1)); touch -d "2021-02-03 04:05:$((n % 60))" "$f"; done
        find src -depth -type d | while read -r d; do n=$((${n:-0} + 1)); touch -d "2020-02-03 04:06:$n" "$d"; done
    "#;
    let output = std::process::Command::new("sh").args(["-euc", script]).current_dir(top).output();
    assert!(output.expect("it runs").status.success());
}

fn mounted_with_sample() -> Option<std::sync::Arc<Mounted>> {
    let mounted = Mounted::shared()?;
    static ONCE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONCE.lock().expect("no panics");
    if !mounted.scratch().join("src").exists() {
        sample(mounted.scratch());
    }
    Some(mounted)
}

#[test]
fn cp_copies_a_tree_in_and_out() {
    let Some(mounted) = mounted_with_sample() else { return };
    same_as_local(&mounted, "cp", Times::Exact, r#"cp -a "$SCRATCH/src" . && ls -R . && cat src/link"#);
    let back = mounted.scratch().join("back");
    let out = run_in(&mounted, &mounted.path("cp"), r#"cp -a src "$SCRATCH/back""#);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let flavour = mounted.service.flavour;
    let (source, copy) = (mounted.scratch().join("src"), back);
    assert_eq!(
        Tree::of_directory(&copy, flavour).lines(Times::Exact),
        Tree::of_directory(&source, flavour).lines(Times::Exact)
    );
}

#[test]
fn a_copied_tree_is_the_same_on_every_flavour() {
    for flavour in [Flavour::Personal, Flavour::PersonalNew, Flavour::DocumentLibrary] {
        let Some(mounted) = Mounted::new(flavour, Options::default()) else { return };
        sample(mounted.scratch());
        let script =
            r#"cp -a "$SCRATCH/src" . && mv src/a moved && rm src/many/file1? && echo x >>moved/small.txt"#;
        same_as_local(&mounted, "flavour", Times::Any, script);
        mounted.unmount();
    }
}

#[test]
fn a_copied_tree_comes_back_from_the_service() {
    let Some(mounted) = Mounted::usual() else { return };
    sample(mounted.scratch());
    same_as_local(&mounted, "tree", Times::Exact, r#"cp -a "$SCRATCH/src" ."#);
    let before = Tree::of_directory(&mounted.path("tree"), Flavour::Business);
    mounted.unmount();
    // Another machine: nothing is left here but what is on the service.
    for name in ["state", "cache"] {
        fs::remove_dir_all(mounted.scratch().join(name)).expect("it can go");
    }
    mounted.remount();
    let fresh = Tree::of_directory(&mounted.path("tree"), Flavour::Business);
    let is_link = |line: &String| line.contains(" link to ");
    // Modes live on one machine: compare what the service holds.
    let without_mode = |tree: &Tree| -> Vec<String> {
        let lines = tree.lines(Times::Exact).into_iter().filter(|line| !is_link(line));
        lines
            .map(|line| {
                let (head, rest) =
                    line.rsplit_once(' ').map_or((line.as_str(), ""), |(head, time)| (head, time));
                let mut words: Vec<&str> = head.split(' ').collect();
                words.retain(|word| !(word.len() == 3 && word.bytes().all(|byte| byte.is_ascii_digit())));
                format!("{} {rest}", words.join(" "))
            })
            .collect()
    };
    assert_eq!(without_mode(&fresh), without_mode(&before));
}

#[test]
fn mv_moves_within_and_across() {
    let Some(mounted) = mounted_with_sample() else { return };
    same_as_local(
        &mounted,
        "mv",
        Times::Exact,
        r#"cp -a "$SCRATCH/src" src
           mkdir to; mv src/a to/; mv src/many/file1 src/script to/; mv to/file1 to/renamed
           mv -n src/many/file2 to/renamed || true; mv src/many src/more; mv -T src/empty to/full
           dir=$(mktemp -d); mv src/more "$dir/out"; ls "$dir/out" | wc -l; mv "$dir/out" in; rmdir "$dir""#,
    );
}

#[test]
fn rm_removes_a_tree() {
    let Some(mounted) = mounted_with_sample() else { return };
    same_as_local(
        &mounted,
        "rm",
        Times::Any,
        r#"cp -a "$SCRATCH/src" one; cp -a "$SCRATCH/src" two; rm -rf one; rm -r two/many; rm two/a/small.txt; find . | sort"#,
    );
    let one = mounted.path("rm/two");
    fs::remove_dir_all(&one).expect("what is on the service goes too");
    mounted.sync_path("rm");
    mounted.assert_truth_equals_tree("rm", Times::Any);
}

#[test]
fn the_second_rsync_sends_nothing() {
    if !have(&["rsync"]) {
        return;
    }
    let Some(mounted) = mounted_with_sample() else { return };
    same_as_local(
        &mounted,
        "rsync",
        Times::Exact,
        r#"rsync -a "$SCRATCH/src/" to/
           rsync -ai "$SCRATCH/src/" to/
           rsync -ac --delete --itemize-changes "$SCRATCH/src/" to/"#,
    );
    let again = run_in(&mounted, &mounted.path("rsync"), r#"rsync -ai "$SCRATCH/src/" to/"#);
    assert_eq!(
        (again.stdout.as_slice(), again.stderr.as_slice()),
        (&b""[..], &b""[..]),
        "after the sync too"
    );
    same_as_local(
        &mounted,
        "rsync inplace",
        Times::Exact,
        r#"rsync -a "$SCRATCH/src/" to/; touch -d 2022-01-01 to/a/large.txt; echo more >>to/a/large.txt
           touch -d 2022-01-01 to/a/large.txt
           rsync -a --inplace --no-whole-file "$SCRATCH/src/" to/; rsync -ai "$SCRATCH/src/" to/"#,
    );
}

#[test]
fn tar_and_unzip_extract_into_it() {
    if !have(&["tar", "zip", "unzip"]) {
        return;
    }
    let Some(mounted) = mounted_with_sample() else { return };
    let script = r#"cd "$SCRATCH"; tar -cf "$0.tar" src; zip -qry "$0.zip" src"#;
    run_in(&mounted, mounted.scratch(), &script.replace("$0", "archive"));
    same_as_local(
        &mounted,
        "tar",
        Times::Exact,
        r#"tar -xf "$SCRATCH/archive.tar"; tar -df "$SCRATCH/archive.tar""#,
    );
    same_as_local(&mounted, "unzip", Times::Exact, r#"unzip -q "$SCRATCH/archive.zip"; ls src"#);
    same_as_local(
        &mounted,
        "tar out",
        Times::Exact,
        r#"cp -a "$SCRATCH/src" .; tar -cf made.tar src; tar -tf made.tar | sort; touch -d 2020-01-01 made.tar; rm made.tar; zip -qr made.zip src; unzip -tqq made.zip; rm made.zip"#,
    );
}

#[test]
fn git_works_in_it() {
    if !have(&["git"]) {
        return;
    }
    let Some(mounted) = mounted_with_sample() else { return };
    same_as_local(
        &mounted,
        "git",
        Times::Any,
        r#"git init -q work; cd work; cp -a "$SCRATCH/src/." .; git add -A; git commit -qm one
           git status --porcelain; echo more >>a/small.txt; git mv many/file1 many/moved; git commit -qam two
           git checkout -qb side HEAD^; echo side >side; git add side; git commit -qm side; git checkout -q main
           git merge -q -m merged side; git gc -q; git fsck --full --strict 2>&1; git status --porcelain
           git log --format=%s | sort; git diff HEAD --stat; git stash list; cd ..; git clone -q work clone
           cd clone; git status --porcelain; git fsck 2>&1; git log --format=%s | sort
           rm -rf ../work/.git ../clone/.git"#,
    );
}

/// What git remembers of its files in the index still holds when they have been sent: it reads none again.
#[test]
fn sending_a_repository_does_not_touch_it_for_git() {
    if !have(&["git"]) {
        return;
    }
    let options = Options { mount: "settle=20s".into(), ..Options::default() };
    let Some(mounted) = Mounted::new(Flavour::Business, options) else { return };
    let script = "git init -q work; cd work; for n in $(seq 30); do echo $n >file$n; done; git add .; git commit -qm one";
    assert!(run_in(&mounted, &mounted.root(), script).status.success());
    // The index is then newer than the files by more than the second that git looks at.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(run_in(&mounted, &mounted.path("work"), "git update-index --refresh").status.success());
    mounted.sync();
    let looked = run_in(&mounted, &mounted.path("work"), "git diff-files");
    assert_eq!(String::from_utf8_lossy(&looked.stdout), "", "these count as changed");
    mounted.unmount();
    mounted.remount();
    let looked = run_in(&mounted, &mounted.path("work"), "git diff-files");
    assert_eq!(String::from_utf8_lossy(&looked.stdout), "", "these count as changed");
}

#[test]
fn a_repository_is_the_same_after_its_way_through_the_service() {
    if !have(&["git"]) {
        return;
    }
    let Some(mounted) = Mounted::usual() else { return };
    sample(mounted.scratch());
    let made = run_in(
        &mounted,
        &mounted.root(),
        r#"git init -q work; cd work; cp -a "$SCRATCH/src/a" .; git add -A; git commit -qm one; echo x >>a/small.txt
           git commit -qam two; git gc -q"#,
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    mounted.sync();
    mounted.assert_truth_equals_tree("work", Times::Any);
    mounted.unmount();
    fs::remove_dir_all(mounted.scratch().join("cache")).expect("it can go");
    mounted.remount();
    let looked = run_in(
        &mounted,
        &mounted.path("work"),
        "git fsck --full 2>&1; git status --porcelain; git log --format=%s",
    );
    assert_eq!(
        String::from_utf8_lossy(&looked.stdout),
        "two\none\n",
        "{}",
        String::from_utf8_lossy(&looked.stderr)
    );
}

#[test]
fn sqlite_works_with_both_kinds_of_journal() {
    if !have(&["sqlite3"]) {
        return;
    }
    let Some(mounted) = mounted_with_sample() else { return };
    for mode in ["delete", "truncate", "persist", "wal"] {
        let script = format!(
            r#"q() {{ sqlite3 -cmd '.timeout 20000' data.db "$@"; }}
               q "pragma journal_mode={mode}; create table t(a integer primary key, b text);"
               for n in 1 2 3 4 5; do q "begin; insert into t(b) select hex(zeroblob(500)) from generate_series(1, 200); commit;"; done
               (for n in 1 2 3 4 5 6 7 8; do q "insert into t(b) values('one')"; done) &
               (for n in 1 2 3 4 5 6 7 8; do q "insert into t(b) values('two')"; done) &
               wait
               q "begin; delete from t where a < 500; rollback;"
               q "delete from t where a % 3 = 0; vacuum;"
               q "pragma integrity_check; select count(*), sum(a), sum(length(b)) from t;"
               q .dump | grep -v "'one'\|'two'" | sha256sum; rm data.db*"#
        );
        same_as_local(&mounted, &format!("sqlite {mode}"), Times::Any, &script);
    }
}

#[test]
fn a_database_is_whole_on_the_service() {
    if !have(&["sqlite3"]) {
        return;
    }
    let Some(mounted) = Mounted::shared() else { return };
    fs::create_dir(mounted.path("database")).expect("a directory");
    for round in 0..3 {
        let script = "sqlite3 data.db 'create table if not exists t(a); insert into t values(1),(2),(3);'";
        let output = run_in(&mounted, &mounted.path("database"), script);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        mounted.sync_path("database");
        mounted.assert_truth_equals_tree("database", Times::Any);
        let copy = mounted.scratch().join(format!("copy{round}.db"));
        fs::write(&copy, mounted.control().content("database/data.db").expect("it is there"))
            .expect("a copy");
        let script = format!("sqlite3 copy{round}.db 'pragma integrity_check; select count(*) from t'");
        let output = run_in(&mounted, mounted.scratch(), &script);
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("ok\n{}\n", 3 * (round + 1)));
    }
}

#[test]
fn find_and_du_see_the_same() {
    let Some(mounted) = mounted_with_sample() else { return };
    same_as_local(
        &mounted,
        "find",
        Times::Exact,
        r#"cp -a "$SCRATCH/src" .; find . | sort; find . -type f -size +100k | sort; find . -newermt 2021-02-03 -type f | wc -l
           find . -name 'file1*' | sort; find . -type l | sort; find . -perm 600; find . -empty | sort
           find . -type f -print0 | sort -z | du -b --files0-from=-; find . -type f -exec sha256sum {} + | sort
           find . -type f | sort | xargs -d '\n' stat -c '%n %s %a %Y %F'; grep -rl text . | sort; ls -la src/a | awk '{print $1, $5, $9}' | grep -v '^d'
           find . -name 'file2*' -delete; find . | wc -l"#,
    );
}

#[test]
fn df_answers() {
    let Some(mounted) = Mounted::shared() else { return };
    let output = run_in(
        &mounted,
        &mounted.root(),
        "df --output=size,avail,target . | tail -1; stat -f -c %T . >/dev/null",
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.trim().ends_with("/mnt"), "{said}");
}

#[test]
fn two_processes_append_to_one_file() {
    let Some(mounted) = mounted_with_sample() else { return };
    same_as_local(
        &mounted,
        "append",
        Times::Any,
        r#"w() { for n in $(seq 300); do echo "$1 line $n" >>log; done; }
           w one & w two & wait; wc -l log; sort log | sha256sum; sort log >sorted; rm log
           w2() { for n in $(seq 300); do echo "$1 line $n"; done >>held; }
           w2 one & w2 two & wait; wc -l held; sort held >sorted2; rm held"#,
    );
}

#[test]
fn ordinary_tools_edit_files_in_place() {
    let Some(mounted) = mounted_with_sample() else { return };
    same_as_local(
        &mounted,
        "tools",
        Times::Any,
        r#"seq 1 1000 >numbers; sed -i 's/7/seven/' numbers; sed -i.bak '1,10d' numbers; wc -l numbers numbers.bak
           dd if=/dev/zero of=image bs=4096 count=64 2>/dev/null; dd if=numbers of=image bs=1 seek=5000 count=100 conv=notrunc 2>/dev/null
           sha256sum image; truncate -s 10000 image; sha256sum image; split -b 2000 numbers part.; cat part.* | cmp - numbers
           install -m 640 numbers installed; cp --sparse=always image sparse; cmp image sparse; cp --reflink=auto image again
           tail -c 20 image | od -c | head -3; tee copy <numbers | tail -1; patch -s numbers <<'P' || true
--- numbers
+++ numbers
@@ -1,3 +1,3 @@
 11
-12
+twelve
 13
P
           head -3 numbers; sort -o numbers numbers; head -2 numbers; gzip -k numbers; gunzip -c numbers.gz | cmp - numbers; rm numbers.gz"#,
    );
}

#[test]
fn programs_run_from_it() {
    let Some(mounted) = mounted_with_sample() else { return };
    same_as_local(
        &mounted,
        "run",
        Times::Any,
        r##"printf '#!/bin/sh\necho "hello from $(basename "$PWD")"\n' >script; chmod +x script; ./script
           cp /bin/cat kitty; ./kitty script; mkdir sub; cd sub; ../script; cd ..; rm kitty"##,
    );
}

/// An ordinary user mounts with fusermount3 and works as root does.
#[test]
fn an_ordinary_user_can_mount_and_work() {
    if !crate::mounted_support::is_root()
        || !have(&["setpriv", "fusermount3"])
        || !crate::mounted_support::can_mount()
    {
        return;
    }
    let device = OpenDevice::new();
    let binary = Path::new(env!("CARGO_BIN_EXE_onedrivefs"));
    let reachable = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "test", "-x"])
        .arg(binary)
        .status();
    if !reachable.expect("it runs").success() {
        eprintln!("left out: the program lies where an ordinary user cannot reach it");
        return;
    }
    let options = Options { uid: Some(65534), ..Options::default() };
    let Some(mounted) = Mounted::new(Flavour::Personal, options) else { return };
    let script = "mkdir a && echo text >a/file && mv a b && cat b/file && id -u && stat -c '%u %g' b/file";
    let script = format!("cd '{}'; {script}", mounted.root().display());
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-euc", &script])
        .output()
        .expect("it runs");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "text\n65534\n65534 65534\n", "{}", mounted.log_tail());
    // A file that is complete here: the kernel may not take it from this daemon, which then reads it itself (S204).
    let script = format!(
        "cd '{}'; head -c 3000000 /dev/urandom >big; cp big again; exec 3<big; cat big | cmp - again
         echo more >>big; echo more >>again; cmp big again; tail -c 5 <&3",
        mounted.root().display()
    );
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-euc", &script])
        .output()
        .expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "more\n", "{output:?}");
    assert!(!mounted.log().contains("ERROR") && !mounted.log().contains("WARN"), "{}", mounted.log());
    mounted.sync();
    assert_eq!(mounted.control().content("b/file").as_deref(), Some(&b"text\n"[..]));
    mounted.unmount();
    drop(device);
}

/// Lets every user open `/dev/fuse`, as distributions do, until dropped.
struct OpenDevice(fs::Permissions);

impl OpenDevice {
    fn new() -> Self {
        let before = fs::metadata("/dev/fuse").expect("it is there").permissions();
        fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).expect("root may");
        Self(before)
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        fs::set_permissions("/dev/fuse", self.0.clone()).expect("root may");
    }
}
