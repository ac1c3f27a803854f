//! A user's machine with a configuration file, and a service: mounts by name.

mod mounted_support;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use mounted_support::service::Service;
use mounted_support::{can_mount, process, text, until};
use onedrivefs::emulator::{EmulatorConfig, Fault, FaultAction, Flavour};

struct User {
    home: tempfile::TempDir,
    service: Service,
}

impl User {
    fn new() -> Self {
        let home = tempfile::Builder::new().prefix("odfs-").tempdir().expect("a directory");
        for name in ["one", "two", "three"] {
            std::fs::create_dir(home.path().join(name)).expect("a directory");
        }
        let config =
            EmulatorConfig { flavour: Flavour::Business, others_drives: 1, ..EmulatorConfig::default() };
        Self { home, service: Service::with(config) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Mounts what was unmounted a moment ago: on a slow machine its daemon may outlive the patience of `umount`.
    fn mount_again(&self, arguments: &[&str]) {
        let mut output = self.run(arguments);
        until(Duration::from_secs(120), || {
            if output.status.code() == Some(7) {
                output = self.run(arguments);
            }
            output.status.code() != Some(7)
        });
        assert!(output.status.success(), "{}\n{}", said(&output), self.log());
    }

    /// What the daemons have logged.
    fn log(&self) -> String {
        std::fs::read_to_string(self.path("state/onedrivefs/default/daemon.log")).unwrap_or_default()
    }

    /// The configuration file: these lines after defaults that lead to the service.
    fn configure(&self, lines: &str) {
        std::fs::create_dir_all(self.path("config/onedrivefs")).expect("a directory");
        let url = self.service.url();
        let defaults = format!(
            "[defaults]\ngraph-url = \"{url}\"\nlogin-url = \"{url}\"\nmin-free = \"1MiB\"\nsettle = \"100ms\"\n"
        );
        std::fs::write(self.path("config/onedrivefs/config.toml"), defaults + lines).expect("a file");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onedrivefs"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("ONEDRIVEFS_") || name.starts_with("XDG_") {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.home.path()).env("XDG_RUNTIME_DIR", self.home.path());
        command.env("XDG_STATE_HOME", self.path("state")).env("XDG_CACHE_HOME", self.path("cache"));
        command.env("XDG_CONFIG_HOME", self.path("config")).env("ONEDRIVEFS_ACCESS_TOKEN", "anything");
        command.args(arguments).stdin(Stdio::null());
        process::output(command)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        for name in ["one", "two"] {
            if process::is_mounted(&self.path(name)) {
                self.run(&["umount", &text(&self.path(name))]);
                process::force_unmount(&self.path(name));
            }
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

// S284.
#[test]
fn mounts_of_the_file_are_made_by_name_and_all_at_once() {
    if !can_mount() {
        return;
    }
    let user = User::new();
    let library = user.service.control.drive_ids()[1].clone();
    user.configure(&format!(
        "[mounts.own]\ndrive = \"me\"\nmountpoint = \"~/one\"\nfile-mode = 640\n\
         [mounts.library]\ndrive = \"{library}\"\nmountpoint = \"~/two\"\nread-only = true\n\
         [mounts.broken]\ndrive = \"b!none\"\nmountpoint = \"~/three\"\n\
         [mounts.elsewhere]\ndrive = \"me\"\n"
    ));
    let nowhere = user.run(&["mount", "elsewhere"]);
    assert_eq!(nowhere.status.code(), Some(2), "{}", said(&nowhere));
    assert!(said(&nowhere).contains("add mountpoint"), "{}", said(&nowhere));
    user.service.write("seen", b"x");
    let own = user.run(&["mount", "own"]);
    assert!(own.status.success(), "{}", said(&own));
    std::fs::write(user.path("one/made"), "x").expect("a file");
    let mode = std::os::unix::fs::MetadataExt::mode(&user.path("one/seen").metadata().expect("it is there"));
    assert_eq!(mode & 0o777, 0o640, "as the file has it");
    let all = user.run(&["mount", "--all"]);
    assert!(process::is_mounted(&user.path("two")), "{}", said(&all));
    assert!(!all.status.success(), "one of them cannot be mounted");
    assert!(said(&all).lines().count() == 1 && said(&all).contains("b!none"), "{}", said(&all));
    let refused = std::fs::write(user.path("two/made"), "x").expect_err("it is read-only");
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    for name in ["one", "two"] {
        let output = user.run(&["umount", &text(&user.path(name))]);
        assert!(output.status.success(), "{}", said(&output));
    }
    // With a directory of one's own, and what is said comes before the file.
    user.mount_again(&["mount", "own", &text(&user.path("two")), "--read-only"]);
    assert!(user.path("two/made").exists(), "the same drive, the same state");
    assert!(std::fs::write(user.path("two/more"), "x").is_err());
}

/// Everything that everybody may read of the mounts there are.
fn mount_table() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").expect("it is readable")
}

// S289, S290.
#[test]
fn a_folder_is_mounted_by_any_of_its_addresses_and_keeps_one_state() {
    if !can_mount() {
        return;
    }
    let user = User::new();
    user.configure("");
    user.service.write("Work/2026/plan", b"x");
    user.service.write("beside", b"x");
    let one = text(&user.path("one"));
    let mount = |drive: &str, at: &str| user.run(&["mount", drive, at]);
    let mounted = mount("me:/Work/2026", &one);
    assert!(mounted.status.success(), "{}", said(&mounted));
    let names: Vec<_> =
        std::fs::read_dir(&one).expect("it lists").map(|entry| entry.expect("read").file_name()).collect();
    assert_eq!(names, ["plan"], "the folder is the root");
    std::fs::write(user.path("one/made"), "made").expect("a file");
    std::fs::remove_file(user.path("one/plan")).expect("it goes");
    let synced = user.run(&["sync", &one]);
    assert!(synced.status.success(), "{}", said(&synced));
    assert_eq!(user.service.control.content("Work/2026/made").as_deref(), Some(&b"made"[..]));
    assert_eq!(user.service.control.content("Work/2026/plan"), None);
    assert_eq!(user.service.control.content("beside").as_deref(), Some(&b"x"[..]));
    let status: serde_json::Value =
        serde_json::from_slice(&user.run(&["status", "--json", &one]).stdout).expect("it is JSON");
    let state = PathBuf::from(status["state_dir"].as_str().expect("a directory"));
    assert!(state.join("store.sqlite").is_file(), "{status}");
    // Another address of the same folder: the same state, which one mount has at a time.
    let address = "https://contoso-my.sharepoint.com/personal/ann_contoso_com/_layouts/15/onedrive.aspx\
                   ?id=%2Fpersonal%2Fann%5Fcontoso%5Fcom%2FDocuments%2FWork%2F2026";
    let busy = mount(address, &text(&user.path("two")));
    assert_eq!(busy.status.code(), Some(7), "{}", said(&busy));
    assert!(user.run(&["umount", &one]).status.success());
    let states = || {
        let entries = std::fs::read_dir(user.path("state/onedrivefs/default")).expect("states");
        let names = entries.map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("b!")).collect::<Vec<_>>()
    };
    let before = states();
    assert_eq!(before.len(), 1, "{before:?}");
    user.mount_again(&["mount", address, &one]);
    assert_eq!(std::fs::read_to_string(user.path("one/made")).expect("it is here"), "made");
    assert_eq!(states(), before);
    assert!(user.run(&["umount", &one]).status.success());
}

// S288, S289.
#[test]
fn a_sharing_link_is_mounted_and_in_sight_of_nobody_and_says_when_it_has_ended() {
    if !can_mount() {
        return;
    }
    let user = User::new();
    user.configure("");
    let control = &user.service.control;
    let theirs = control.drive_ids()[2].clone();
    let edit = onedrivefs::emulator::Edit::Write { path: "Given/file".into(), content: (&b"x"[..]).into() };
    control.edit_drive_as_other(&theirs, &edit).expect("another writes");
    let link = control.link(&theirs, "Given").expect("a link");
    let one = text(&user.path("one"));
    let mounted = user.run(&["mount", &link, &one]);
    assert!(mounted.status.success(), "{}", said(&mounted));
    assert_eq!(std::fs::read_to_string(user.path("one/file")).expect("it is shared"), "x");
    let secret = link.rsplit('/').next().expect("it ends so");
    let shown =
        [mount_table(), words(&user.run(&["status"])), words(&user.run(&["status", "--json"]))].concat();
    assert!(shown.contains("onedrive:link\\040at\\040contoso-my.sharepoint.com"), "{shown}");
    assert!(!shown.contains(secret), "{shown}");
    assert!(!user.log().contains(secret), "{}", user.log());
    assert!(user.run(&["umount", &one]).status.success());
    control.unlink(&theirs, "Given").expect("it was there");
    let again = format!("{link}?e=2");
    for (drive, code, remedy) in [
        (again.as_str(), 13, "ask for a new one"),
        ("b!none", 11, "onedrivefs drives"),
        ("me:/Gone", 11, "onedrivefs drives"),
        ("group:Nobody", 11, "onedrivefs drives"),
        ("bob@contoso.com", 12, "ask its owner"),
    ] {
        let refused = user.run(&["mount", drive, &one]);
        assert_eq!(refused.status.code(), Some(code), "{drive}: {}", said(&refused));
        assert!(said(&refused).contains(remedy) && said(&refused).lines().count() == 1, "{}", said(&refused));
        assert!(!said(&refused).contains(secret), "{}", said(&refused));
    }
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &said(output)
}

/// What `doctor --json` finds, by what was looked at, and how it ended.
fn findings(user: &User, arguments: &[&str]) -> (Vec<(String, String, String)>, Option<i32>) {
    let output = user.run(&[&["doctor", "--json"], arguments].concat());
    let told: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", words(&output)));
    let word = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let all = told["findings"].as_array().expect("a list").iter();
    let all = all
        .map(|finding| (word(finding, "check"), word(finding, "health"), word(finding, "remedy")))
        .collect();
    assert_eq!(told["ok"] == true, output.status.code() == Some(0), "{told}");
    (all, output.status.code())
}

// S291.
#[test]
fn the_doctor_looks_at_everything_and_says_what_to_do() {
    let user = User::new();
    user.configure("[mounts.gone]\ndrive = \"b!none\"\nmountpoint = \"~/one\"\n");
    let (all, _) = findings(&user, &[]);
    for check in [
        "versions",
        "FUSE",
        "fusermount3",
        "state",
        "cache",
        "proxy",
        "DNS",
        "connection",
        "clock",
        "sign-in",
        "permissions",
        "drive",
    ] {
        let health = all.iter().find(|(name, _, _)| name == check).map(|(_, health, _)| health.as_str());
        // Of this machine it may be anything; of the service and the account all is well.
        let is_machine = ["FUSE", "fusermount3", "state", "cache", "versions"].contains(&check);
        assert!(health.is_some_and(|health| is_machine || health == "ok"), "{check}: {all:?}");
    }
    let (all, code) = findings(&user, &["gone"]);
    if can_mount() {
        assert_eq!(code, Some(11), "{all:?}");
    }
    let drive = all.iter().find(|(name, _, _)| name == "drive").expect("it was looked at");
    assert!(drive.1 == "bad" && drive.2.contains("onedrivefs drives"), "{all:?}");
    let nobody = Command::new(env!("CARGO_BIN_EXE_onedrivefs"))
        .args(["doctor", "nobody", "--state-dir", &text(&user.path("state"))])
        .env_clear()
        .env("HOME", user.home.path())
        .env("ONEDRIVEFS_GRAPH_URL", user.service.url())
        .env("ONEDRIVEFS_LOGIN_URL", user.service.url())
        .output()
        .expect("it runs");
    let said = words(&nobody);
    assert!(said.contains("bad   sign-in") && said.contains("onedrivefs login nobody"), "{said}");
    assert!(!nobody.status.success());
    // Each line is of one thing, also where the file itself is wrong.
    user.configure("setle = 1\n");
    let (all, code) =
        findings(&user, &["--graph-url", "http://127.0.0.1:1", "--login-url", "http://127.0.0.1:1"]);
    assert!(all[0].0 == "configuration" && all[0].1 == "bad" && code == Some(2), "{all:?}");
    let unreached = all.iter().find(|(_, health, remedy)| health == "bad" && remedy.contains("network"));
    assert!(unreached.is_some(), "{all:?}");
}

// S294, S295.
#[test]
fn single_files_are_listed_fetched_sent_and_removed_without_a_mount() {
    let user = User::new();
    user.configure("[mounts.docs]\ndrive = \"me:/Docs\"\n");
    user.service.write("Docs/a", b"one");
    let control = &user.service.control;
    let big: Vec<u8> = (0..12_000_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(user.path("big"), &big).expect("a file");
    let good = |arguments: &[&str]| {
        let output = user.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        output.stdout
    };
    // Into a folder, under its own name; and by a mount of the configuration file.
    good(&["put", &text(&user.path("big")), "me:/Docs"]);
    assert!(control.content("Docs/big").is_some_and(|content| content == big));
    assert_eq!(good(&["ls", "docs"]), b"a\nbig\n");
    let listed: serde_json::Value =
        serde_json::from_slice(&good(&["ls", "me:/Docs", "--json"])).expect("JSON");
    assert_eq!((&listed[1]["name"], &listed[1]["size"]), (&"big".into(), &12_000_000.into()));
    // A transfer that breaks goes on where it broke, and what comes has the file's time.
    let broken = |op: &str, action| Fault {
        method: None,
        path: None,
        op: Some(op.into()),
        skip: 0,
        count: Some(1),
        action,
    };
    control.inject(broken("download", FaultAction::ResetBody { at: 5_000_000 }));
    control.reset_log();
    good(&["get", "me:/Docs/big", &text(&user.path("got"))]);
    assert_eq!(std::fs::read(user.path("got")).expect("it came"), big);
    assert!(control.requests().iter().any(|one| one.op == "download" && one.range.is_some()));
    let time = |name: &str| user.path(name).metadata().and_then(|found| found.modified()).expect("a time");
    let apart = time("big").duration_since(time("got")).unwrap_or_default();
    assert!(apart.as_secs() < 2, "{apart:?}");
    assert_eq!(good(&["get", "docs:/a", "-"]), b"one");
    // Over the version that is there, and no other.
    control.reset_log();
    std::fs::write(user.path("a"), "two").expect("a file");
    good(&["put", &text(&user.path("a")), "docs:/a"]);
    assert_eq!(control.content("Docs/a").as_deref(), Some(&b"two"[..]));
    let sent = control.requests();
    assert!(sent.iter().filter(|one| one.method == "POST").all(|one| one.if_match.is_some()), "{sent:?}");
    // The answer to the last part is lost: it is found to have been taken.
    control.inject(broken("upload.fragment", FaultAction::Reset { after: true }));
    good(&["put", &text(&user.path("big")), "docs:/again", "--new"]);
    control.inject(Fault { skip: 1, ..broken("upload.fragment", FaultAction::Reset { after: true }) });
    good(&["put", &text(&user.path("big")), "docs:/a"]);
    for name in ["Docs/again", "Docs/a"] {
        assert!(control.content(name).is_some_and(|content| content == big), "{name}");
    }
    good(&["rm", "docs:/again"]);
    control.inject(broken("upload.create", FaultAction::status(412, "resourceModified")));
    control.inject(broken("item.delete", FaultAction::status(412, "resourceModified")));
    let here = text(&user.path("a"));
    for (arguments, code) in [
        (&["put", here.as_str(), "docs:/a"][..], 7),
        (&["rm", "docs:/a"], 7),
        (&["put", &here, "docs:/a", "--new"], 7),
        (&["put", &here, "me:/Gone/a"], 11),
        (&["get", "docs:/gone", &here], 11),
        (&["get", "me:/Docs", &here], 2),
        (&["rm", "me:/Docs"], 2),
        (&["rm", "me"], 2),
        (&["rm", "docs:/gone"], 11),
    ] {
        let output = user.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert_eq!(said(&output).lines().count(), 1, "{}", said(&output));
    }
    assert_eq!(std::fs::read(&here).expect("as before"), b"two");
    control.clear_faults();
    good(&["rm", "docs:/a"]);
    assert_eq!(good(&["ls", "docs"]), b"big\n");
    good(&["rm", "-r", "me:/Docs"]);
    assert_eq!(control.content("Docs/big"), None);
}
