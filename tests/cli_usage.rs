//! The program as a user's shell sees it: help, mistakes, exit codes. Nothing here is mounted.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the program with a home of its own.
fn onedrivefs(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onedrivefs"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ONEDRIVEFS_") {
            command.env_remove(name);
        }
    }
    for (name, place) in [
        ("HOME", ""),
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_STATE_HOME", "state"),
        ("XDG_CACHE_HOME", "cache"),
        ("XDG_RUNTIME_DIR", ""),
    ] {
        command.env(name, home.join(place));
    }
    command.args(arguments).output().expect("the program was built")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal ended it")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

// S53.
#[test]
fn a_mistake_is_one_line_on_stderr_with_what_why_and_remedy() {
    let home = tempfile::tempdir().unwrap();
    let mount = home.path().join("mnt");
    std::fs::create_dir(&mount).unwrap();
    let mount = mount.to_str().unwrap();
    let cases: &[(&[&str], i32, &str)] = &[
        (&[], 2, "a command is missing"),
        (&["moutn"], 2, "did you mean"),
        (&["mount"], 2, "<DRIVE"),
        (&["mount", "me"], 2, "<MOUNTPOINT>"),
        (&["mount", "--all"], 2, "add [mounts.NAME]"),
        (&["config", "show", "plans"], 2, "there is no [mounts.plans]"),
        (&["mount", "me", "/nowhere/at/all"], 2, "give a directory that exists"),
        (&["mount", "me", mount, "-o", "alow_other"], 2, "did you mean 'allow-other'?"),
        (&["mount", "me", mount, "--graph-url", "http://example.com"], 2, "use https"),
        (&["mount", "me", mount, "--file-mode", "8"], 2, "--file-mode"),
        (&["umount", mount], 3, "no drive is mounted there"),
        (&["status", mount], 3, "no drive is mounted there"),
        (&["sync", mount], 3, "no drive is mounted there"),
        (&["sync", mount, "--timeout", "5"], 2, "500ms, 60s, 5m, 2h, 1d"),
        (&["mount", "me", mount], 5, "run 'onedrivefs login default'"),
        (&["mount", "me", mount, "--account", "work"], 5, "run 'onedrivefs login work'"),
        (&["login"], 2, "az ad app create"),
        (&["login", "../x", "--client-id", "c"], 2, "is no account name"),
        (&["login", "--client-id", "c", "--login-url", "http://example.com"], 2, "use https"),
        (&["login", "--cloud", "mars"], 2, "usgov"),
        (&["drives"], 5, "run 'onedrivefs login default'"),
        (&["logout"], 5, "nobody is signed in"),
        (&["emulator", "--listen", "0.0.0.0:80"], 2, "open to the network"),
        (&["demo", mount, "--seed", "/nowhere"], 2, "/nowhere"),
    ];
    for (arguments, expected, words) in cases {
        let output = onedrivefs(home.path(), arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), *expected, "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("onedrivefs: ") && stderr.contains("; "), "{arguments:?}: {stderr}");
        assert!(stderr.contains(words), "{arguments:?}: {stderr}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn a_mistake_in_the_configuration_names_the_file() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("config/onedrivefs");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("config.toml"), "[defaults]\nsetle = \"2s\"\n").unwrap();
    let mount = home.path().join("mnt");
    std::fs::create_dir(&mount).unwrap();
    let output = onedrivefs(home.path(), &["mount", "me", mount.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(code(&output), 2, "{stderr}");
    assert!(stderr.contains("config.toml:2") && stderr.contains("did you mean 'settle'?"), "{stderr}");
}

/// A home with this configuration file.
fn configured(text: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("config/onedrivefs");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("config.toml"), text).unwrap();
    home
}

// S281.
#[test]
fn the_configuration_is_checked_as_a_whole_each_mistake_on_a_line_of_its_own() {
    let home = configured("[defaults]\nsetle = \"2s\"\n[mounts.x]\ndrive = \"a b\"\nuid = true\n");
    let output = onedrivefs(home.path(), &["config", "check"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(code(&output), 2, "{stderr}");
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{stderr}");
    for (line, words) in lines.iter().zip([":2: setle", ":5: uid", ":4: a b"]) {
        assert!(line.starts_with("onedrivefs: ") && line.contains(words), "{stderr}");
    }
    let home = configured("[mounts.x]\ndrive = \"me\"\n");
    let output = onedrivefs(home.path(), &["config", "check"]);
    assert!(code(&output) == 0 && stdout(&output).contains("mounts: 1"), "{output:?}");
    let path = stdout(&onedrivefs(home.path(), &["config", "path"]));
    assert_eq!(Path::new(path.trim_end()), home.path().join("config/onedrivefs/config.toml"));
    std::fs::remove_file(path.trim_end()).unwrap();
    let output = onedrivefs(home.path(), &["config", "check"]);
    assert!(code(&output) == 0 && stdout(&output).contains("no such file"), "{output:?}");
}

// S282.
#[test]
fn the_settings_that_hold_are_shown_with_where_each_comes_from() {
    let home = configured("[defaults]\nsettle = \"3s\"\n[mounts.x]\ndrive = \"me\"\nuid = 7\n");
    let all = stdout(&onedrivefs(home.path(), &["config", "show"]));
    assert!(all.contains("[defaults]\n") && all.contains("[mounts.x]\ndrive = \"me\"  # "), "{all}");
    let one = stdout(&onedrivefs(home.path(), &["config", "show", "x"]));
    let ends = |key: &str, end: &str| {
        one.lines().any(|line| line.starts_with(&format!("{key} = ")) && line.ends_with(end))
    };
    assert!(
        ends("settle", "config.toml:2") && ends("uid", "config.toml:5") && ends("push", "default"),
        "{one}"
    );
    let json: serde_json::Value =
        serde_json::from_slice(&onedrivefs(home.path(), &["config", "show", "x", "--json"]).stdout).unwrap();
    assert_eq!(json["mounts"]["x"]["uid"]["value"], 7);
    assert_eq!(json["mounts"]["x"]["push"]["from"], "default");
}

// S285.
#[test]
fn login_takes_from_the_file_what_is_not_said() {
    let home = configured(concat!(
        "[defaults]\naccount = \"work\"\n[accounts.work]\nclient-id = \"c\"\ntenant = \"contoso.com\"\n",
        "certificate = \"file:/nowhere/app.pem\"\ngraph-url = \"http://127.0.0.1:1\"\n",
        "login-url = \"http://127.0.0.1:1\"\n"
    ));
    for arguments in [&["login"][..], &["login", "work"]] {
        let output = onedrivefs(home.path(), arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(code(&output) == 9 && stderr.contains("/nowhere/app.pem"), "{arguments:?}: {stderr}");
    }
    // Another way of signing in takes the place of that of the file.
    let output = onedrivefs(home.path(), &["login", "work", "--device-code"]);
    assert_eq!(code(&output), 6, "{output:?}");
}

#[test]
fn help_shows_an_example_for_every_command() {
    let home = tempfile::tempdir().unwrap();
    let help = stdout(&onedrivefs(home.path(), &["--help"]));
    assert!(help.contains("Exit codes:"), "{help}");
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<_> = listed
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(commands.contains(&"mount") && commands.len() > 15, "{commands:?}");
    for command in commands {
        let output = onedrivefs(home.path(), &[command, "--help"]);
        assert_eq!(code(&output), 0);
        let example = format!("\n  onedrivefs {command}");
        let shown = stdout(&output);
        let examples = shown.split_once("Examples:").map(|(_, examples)| examples);
        assert!(examples.is_some_and(|examples| examples.contains(&example)), "{command}: {shown}");
    }
}

#[test]
fn status_without_a_mount_is_no_failure_and_clears_a_dead_socket() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(stdout(&onedrivefs(home.path(), &["status"])), "nothing is mounted\n");
    let directory = home.path().join("onedrivefs");
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    drop(UnixListener::bind(directory.join("mnt-one.sock")).unwrap());
    let output = onedrivefs(home.path(), &["status", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(listed[0]["state"], "dead");
    assert_eq!(stdout(&onedrivefs(home.path(), &["status", "--json"])), "[]\n");
}

#[test]
fn completions_and_manual_pages_cover_the_commands() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&onedrivefs(home.path(), &["completions", shell]));
        assert!(script.contains("umount") && script.contains("foreground"), "{shell}");
    }
    let pages = home.path().join("man1");
    assert_eq!(code(&onedrivefs(home.path(), &["man", pages.to_str().unwrap()])), 0);
    assert!(home.path().join("man5/onedrivefs-config.toml.5").exists());
    for page in ["onedrivefs.1", "onedrivefs-mount.1", "onedrivefs-umount.1", "onedrivefs-demo.1"] {
        assert!(pages.join(page).exists(), "{page}");
    }
}
