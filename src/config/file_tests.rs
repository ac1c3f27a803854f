use std::path::Path;
use std::time::Duration;

use super::*;

fn environment(home: &Path, more: &[(&str, &str)]) -> Environment {
    let own = [("HOME", home.to_str().unwrap()), ("XDG_CONFIG_HOME", home.to_str().unwrap())];
    let all = own.iter().chain(more).map(|(name, value)| (name.to_string(), (*value).into()));
    Environment::new(1000, 100, all)
}

fn written(text: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("onedrivefs")).unwrap();
    std::fs::write(home.path().join("onedrivefs/config.toml"), text).unwrap();
    home
}

fn mistakes(text: &str) -> Vec<String> {
    let home = written(text);
    let (_, mistakes) = ConfigFile::examine(&environment(home.path(), &[])).unwrap();
    let shorter = |mistake: ConfigError| {
        let text = mistake.to_string();
        text.split_once("config.toml:").map(|(_, rest)| rest.to_owned()).unwrap_or(text)
    };
    mistakes.into_iter().map(shorter).collect()
}

const EXAMPLE: &str = r#"
[defaults]
settle = "3s"
cache_size = "1GiB"

[accounts.work]
tenant = "contoso.com"
client-id = "1b4e28ba"
request-rate = 5
settle = "4s"

[mounts.plans]
drive = "contoso.sharepoint.com:/sites/Team:Plans"
mountpoint = "~/plans"
account = "work"
cache-size = "5GiB"
file-mode = 600
options = "noexec,noatime"

[mounts.own]
drive = "me"
"#;

// S280.
#[test]
fn a_mount_says_more_than_its_account_and_that_more_than_the_defaults() {
    let home = written(EXAMPLE);
    let environment = environment(home.path(), &[("ONEDRIVEFS_UID", "8")]);
    let file = ConfigFile::read(&environment).unwrap();
    let plans = file.mount("plans").unwrap();
    assert_eq!(plans.mountpoint(), Some(home.path().join("plans").as_path()));
    let mut flags = Choices::default();
    flags.set("gid", "7").unwrap();
    let settings = file
        .settings(Some(plans), plans.drive().unwrap(), Path::new("/x"), flags.clone(), &environment)
        .unwrap();
    assert_eq!(settings.drive, "contoso.sharepoint.com:/sites/Team:Plans");
    assert_eq!((settings.account.as_str(), settings.request_rate), ("work", 5));
    assert_eq!((settings.cache_size, settings.file_mode), (Some(5 << 30), 0o600));
    assert_eq!(settings.settle, Duration::from_secs(4), "the account's");
    assert_eq!(settings.kernel_options, ["noexec", "noatime"]);
    assert_eq!((settings.uid, settings.gid), (8, 7));
    let other = MountSettings::resolve("me", Path::new("/x"), flags, &environment).unwrap();
    assert_eq!((other.settle, other.cache_size), (Duration::from_secs(3), Some(1 << 30)));
    assert_eq!(file.account("work").unwrap().word("tenant"), Some("contoso.com"));
    let missing = file.named("plan").unwrap_err();
    assert!(missing.to_string().contains("did you mean 'plans'?"), "{missing}");
}

// S281.
#[test]
fn each_mistake_has_its_line_and_a_suggestion() {
    let text = r#"[defaults]
setle = "2s"
sync = "maybe"

[mounts.all]
drive = "me"

[mounts.plans]
mountpoint = "plans"
drvie = "me"

[account.work]
"#;
    let found = mistakes(text);
    let expected = [
        "2: setle: there is no setting 'setle'; did you mean 'settle'?",
        "3: sync: 'maybe' is neither true nor false; write true or false",
        "5: mounts.all: 'all' is the name of a drive; give the mount another name",
        "8: mounts.plans: it does not say which drive; add drive = \"me\", or what 'onedrivefs drives' lists",
        "9: mountpoint: 'plans' is not absolute; begin it with / or with ~/",
        "10: drvie: there is no setting 'drvie'; did you mean 'drive'?",
        "12: account: there is no table 'account'; did you mean [accounts]?",
    ];
    assert_eq!(found, expected);
}

// S281.
#[test]
fn what_is_no_toml_is_a_mistake_of_its_line_and_hides_no_other() {
    let found = mistakes("[defaults]\nsettle = \"2s\"\nuid = = 3\nsetle = 4\n");
    assert!(found[0].starts_with("3: ") && found[1].contains("did you mean 'settle'?"), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
    for (text, words) in [
        ("settle = \"2s\"\n", "settings stand below [defaults]"),
        ("defaults = 1\n", "write [defaults]"),
        ("[mounts]\nx = 1\n", "[mounts.NAME]"),
        ("[mounts.x]\ndrive = \"\"\n", "it is empty"),
        ("[mounts.x]\ndrive = \"me\"\noptions = \"ro\"\n", "a key of its own"),
        ("[mounts.x]\ndrive = \"me\"\noptions = \"noexce\"\n", "did you mean 'noexec'?"),
        ("[mounts.\"a/b\"]\ndrive = \"me\"\n", "no name of a mount"),
        ("[accounts.\"a/b\"]\n", "no account name"),
        ("[accounts.x]\naccount = \"y\"\n", "cannot be another"),
        ("[accounts.x]\nclientid = \"y\"\n", "did you mean 'client-id'?"),
        ("[defaults]\nclient-id = \"y\"\n", "there is no setting 'client-id'"),
        ("[defaults]\nuid = [1]\n", "no single value"),
        ("[defaults]\nfile-mode = 0o644\n", "digits only"),
        ("[defaults]\nsettle = 2\n", "write a whole number and a unit"),
        ("[defaults]\naccount = \"../x\"\n", "no account name"),
        ("[defaults]\ncache-dir = \"cache\"\n", "begin it with /"),
        ("[defaults]\nuid = 1\nuid = 2\n", "duplicate"),
        (
            "[mounts.a]\ndrive=\"me\"\nmountpoint=\"/x\"\n[mounts.b]\ndrive=\"me\"\nmountpoint=\"/x\"\n",
            "'a' is there",
        ),
    ] {
        let found = mistakes(text);
        assert!(found.iter().any(|mistake| mistake.contains(words)), "{text}: {found:?}");
        assert_eq!(found.len(), 1, "{text}: {found:?}");
    }
    assert_eq!(mistakes(""), Vec::<String>::new());
    assert_eq!(mistakes(EXAMPLE), Vec::<String>::new());
}

// S282.
#[test]
fn every_value_is_shown_with_where_it_comes_from() {
    let home = written(EXAMPLE);
    let environment = environment(home.path(), &[("ONEDRIVEFS_UID", "8")]);
    let file = ConfigFile::read(&environment).unwrap();
    let shown = file.shown(file.mount("plans"), &environment).unwrap();
    let path = home.path().join("onedrivefs/config.toml").display().to_string();
    let line = |number: u32| Origin::Line(format!("{path}:{number}"));
    let origin = |name: &str| shown.iter().find(|shown| shown.name == name).unwrap().clone();
    assert_eq!(origin("drive").origin, line(13));
    assert_eq!(origin("cache-size").origin, line(16));
    assert_eq!(origin("settle").origin, line(10), "the account's");
    assert_eq!(origin("uid").origin, Origin::Variable("ONEDRIVEFS_UID".into()));
    assert_eq!(origin("push").origin, Origin::Default);
    assert_eq!(origin("push").value, Some(Value::Bool(true)));
    assert_eq!(origin("allow-other").value, None);
    assert!(KEYS.iter().all(|key| shown.iter().any(|shown| shown.name == key.name)));
    // What is shown is what a file would say.
    let mut text = "[mounts.plans]\n".to_owned();
    for Shown { name, value, .. } in &shown {
        if let Some(value) = value {
            text += &format!("{name} = {value}\n");
        }
    }
    assert_eq!(mistakes(&text), Vec::<String>::new());
    let again = written(&text);
    let environment = Environment::new(1000, 100, [("XDG_CONFIG_HOME".into(), again.path().into())]);
    let file = ConfigFile::read(&environment).unwrap();
    let values = |shown: Vec<Shown>| shown.into_iter().map(|shown| shown.value).collect::<Vec<_>>();
    assert_eq!(values(file.shown(file.mount("plans"), &environment).unwrap()), values(shown));
}

#[test]
fn the_defaults_that_the_manual_tells_are_those_that_hold() {
    let home = tempfile::tempdir().unwrap();
    let environment = environment(home.path(), &[]);
    let shown = ConfigFile::read(&environment).unwrap().shown(None, &environment).unwrap();
    for key in KEYS {
        let shown = shown.iter().find(|shown| shown.name == key.name).unwrap();
        let value = match &shown.value {
            None => continue,
            Some(Value::Text(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let is_of_the_machine = ["uid", "gid", "cache-dir", "state-dir"].contains(&key.name);
        assert!(is_of_the_machine || value == key.default, "{}: {value}, not {}", key.name, key.default);
    }
}
