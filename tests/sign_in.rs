//! Signing in and out, as a person does it: the program against the emulated sign-in service.

mod mounted_support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use mounted_support::service::Service;
use mounted_support::{can_mount, process, text, until};
use onedrivefs::emulator::{EmulatorConfig, Fault, FaultAction, Flavour, Tokens};
use serde_json::Value;

/// A person's machine, and a service that knows only tokens which it gave out.
struct Person {
    home: tempfile::TempDir,
    service: Service,
}

impl Person {
    fn new() -> Self {
        let tokens = Tokens::List(Vec::new());
        let config = EmulatorConfig { flavour: Flavour::Business, tokens, ..EmulatorConfig::default() };
        let home = tempfile::Builder::new().prefix("odfs-").tempdir().expect("a directory");
        Self { home, service: Service::with(config) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onedrivefs"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("ONEDRIVEFS_") || name.starts_with("XDG_") {
                command.env_remove(name);
            }
        }
        command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY").env_remove("BROWSER");
        command.env("HOME", self.home.path()).env("XDG_RUNTIME_DIR", self.home.path());
        command.env("XDG_STATE_HOME", self.path("state")).env("XDG_CACHE_HOME", self.path("cache"));
        command.env("XDG_CONFIG_HOME", self.path("config"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        process::output(self.command(arguments))
    }

    /// `login` with the addresses of the service.
    fn login(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&["login", "--client-id", "c"]);
        command
            .args(["--graph-url", &self.service.url(), "--login-url", &self.service.url()])
            .args(arguments);
        command
    }

    fn sign_in(&self) {
        let output = process::output(self.login(&["--device-code"]));
        assert!(output.status.success(), "{}", words(&output));
    }

    fn accounts(&self) -> Value {
        serde_json::from_slice(&self.run(&["accounts", "--json"]).stdout).expect("JSON")
    }

    fn account_file(&self, name: &str) -> PathBuf {
        self.path("state").join("onedrivefs/default").join(name)
    }
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// GET, without following anywhere; returns head and body.
fn get(url: &str) -> (String, String) {
    let rest = url.strip_prefix("http://").expect("plain");
    let (host, target) = rest.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(host).expect("it listens");
    write!(stream, "GET /{target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

// S230, S233.
#[test]
fn who_enters_the_code_is_signed_in_and_the_secret_is_nobodys_to_see() {
    let person = Person::new();
    let output = process::output(person.login(&["--device-code", "--json"]));
    assert!(output.status.success(), "{}", words(&output));
    let asked = String::from_utf8_lossy(&output.stderr);
    assert!(
        asked.contains("https://microsoft.com/devicelogin") && asked.contains("enter the code"),
        "{asked}"
    );
    let secret: Value =
        serde_json::from_slice(&std::fs::read(person.account_file("token.json")).expect("kept"))
            .expect("JSON");
    let secret = secret["refresh_token"].as_str().expect("a token");
    assert!(!words(&output).contains(secret));
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&person.account_file("token.json")), 0o600);
    assert_eq!(mode(&person.account_file("")), 0o700);
    let accounts = person.accounts();
    assert_eq!(accounts[0]["account"], "default");
    assert_eq!(accounts[0]["signed_in"], true);
    assert!(!accounts.to_string().contains(secret));
    // S234: what was said once is known.
    person.service.control.hold_devices();
    person.service.control.decide_devices(true);
    let mut again = Waiting::spawn(person.command(&["login", "--device-code"]));
    let decided = until(Duration::from_secs(60), || {
        person.service.control.decide_devices(false);
        again.0.try_wait().expect("ours").is_some()
    });
    assert!(decided, "it waits for ever");
    let (code, said) = again.end();
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("declined"), "{said}");
    assert_eq!(person.accounts()[0]["signed_in"], true, "the former sign-in stays");
    assert_eq!(words(&person.run(&["logout"])), "signed out: default\n");
    assert_eq!(person.accounts()[0]["signed_in"], false);
    assert!(!person.account_file("token.json").exists());
}

/// A command that is under way; killed when dropped.
struct Waiting(Child);

impl Waiting {
    fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(process::spawn(command))
    }

    fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.0.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        let mut rest = String::new();
        self.0.stdout.take().expect("piped").read_to_string(&mut rest).expect("text");
        (self.0.wait().expect("ours").code(), rest + &said)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `login` in a browser, up to where the sign-in service sends that back to this machine.
fn open_browser(person: &Person, arguments: &[&str]) -> (Waiting, String) {
    let (browser, opened) = (person.path("browser"), person.path("opened"));
    let script = format!("#!/bin/sh\nprintf '%s' \"$1\" > '{0}.new' && mv '{0}.new' '{0}'\n", text(&opened));
    std::fs::write(&browser, script).expect("written");
    std::fs::set_permissions(&browser, PermissionsExt::from_mode(0o755)).expect("executable");
    let mut command = person.login(arguments);
    command.env("BROWSER", &browser);
    let waiting = Waiting::spawn(command);
    assert!(until(Duration::from_secs(60), || opened.exists()), "no browser was opened");
    let url = std::fs::read_to_string(&opened).expect("an address");
    let (head, _) = get(&url);
    let location = head.lines().find_map(|line| line.strip_prefix("location: ")).expect("sent back");
    (waiting, location.to_owned())
}

// S231.
#[test]
fn a_browser_that_does_not_wait_for_the_last_page_has_signed_in_all_the_same() {
    let person = Person::new();
    let (waiting, location) = open_browser(&person, &[]);
    let (host, target) =
        location.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a path");
    let mut stream = TcpStream::connect(host).expect("it listens");
    write!(stream, "GET /{target} HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("sent");
    drop(stream);
    let (code, said) = waiting.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(person.accounts()[0]["signed_in"], true);
}

// S231.
#[test]
fn the_browser_comes_back_and_shows_how_it_ended() {
    for approved in [true, false] {
        let person = Person::new();
        if !approved {
            person.service.control.hold_devices();
        }
        let (waiting, location) = open_browser(&person, &[]);
        // What browsers do besides: connections that ask nothing, and a picture for the tab.
        let rest = location.strip_prefix("http://").expect("plain");
        let (host, _) = rest.split_once('/').expect("a path");
        let _silent = TcpStream::connect(host).expect("it listens");
        assert!(get(&format!("http://{host}/favicon.ico")).0.starts_with("HTTP/1.1 404"));
        assert!(get(&format!("http://{host}/?code=x&state=forged")).0.starts_with("HTTP/1.1 404"));
        let (_, page) = get(&location);
        let (code, said) = waiting.end();
        if approved {
            assert!(page.contains("<h1>Signed in</h1>"), "{page}");
            assert_eq!(code, Some(0), "{said}");
            assert_eq!(person.accounts()[0]["signed_in"], true);
        } else {
            assert!(page.contains("<h1>Not signed in</h1>") && page.contains("declined"), "{page}");
            assert_eq!(code, Some(5), "{said}");
            assert_eq!(person.accounts(), serde_json::json!([]));
        }
    }
}

// S243.
#[test]
fn an_administrator_consents_in_the_browser_or_by_a_link() {
    for approved in [true, false] {
        let person = Person::new();
        if !approved {
            person.service.control.hold_devices();
        }
        let (waiting, location) = open_browser(&person, &["--admin-consent", "--tenant", "contoso.example"]);
        let (_, page) = get(&location);
        let (code, said) = waiting.end();
        if approved {
            assert!(page.contains("<h1>Consent given</h1>"), "{page}");
            assert_eq!(code, Some(0), "{said}");
            assert!(said.contains("consent given: contoso.example"), "{said}");
            let given = [("contoso.example".to_owned(), "c".to_owned())];
            assert_eq!(person.service.control.consents(), given);
        } else {
            assert!(page.contains("<h1>Refused</h1>") && page.contains("declined"), "{page}");
            assert_eq!(code, Some(5), "{said}");
        }
    }
    let person = Person::new();
    let output = process::output(person.login(&["--admin-consent"]));
    assert!(output.status.success(), "{}", words(&output));
    let shown = words(&output);
    let link = shown.split_whitespace().find(|word| word.starts_with("http://127.")).expect("a link");
    assert!(link.contains("/organizations/v2.0/adminconsent?client_id=c&"), "{link}");
    let (head, _) = get(link);
    assert!(head.starts_with("HTTP/1.1 302") && head.contains("admin_consent=True"), "{head}");
}

// S244.
#[test]
fn the_application_that_was_given_once_serves_other_accounts_too() {
    let person = Person::new();
    let command = |name: &str| {
        let mut command = person.command(&["login", name, "--device-code"]);
        command.args(["--graph-url", &person.service.url(), "--login-url", &person.service.url()]);
        process::output(command)
    };
    let output = command("other");
    let said = words(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in [
        "az ad app create",
        "863451e7-0667-486c-a5d6-d135439485f0",
        "http://localhost",
        "Files.ReadWrite.All",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    person.sign_in();
    let output = command("other");
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!(person.accounts()[1]["client_id"], "c");
}

/// A mount that is gone at the end of the test, whatever happens.
struct Mount<'p>(&'p Person, PathBuf);

impl Mount<'_> {
    fn status(&self) -> Value {
        serde_json::from_slice(&self.0.run(&["status", "--json", &text(&self.1)]).stdout).unwrap_or_default()
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        self.0.run(&["umount", &text(&self.1), "--drain-timeout", "0s"]);
        process::force_unmount(&self.1);
    }
}

// S58, S233, S234, S236.
#[test]
fn a_mount_that_is_signed_out_goes_on_after_the_next_sign_in() {
    if !can_mount() {
        return;
    }
    let person = Person::new();
    person.sign_in();
    let mount = Mount(&person, person.path("mnt"));
    std::fs::create_dir(&mount.1).expect("a directory");
    // Where the service is, the account knows.
    let mounted = person.run(&["mount", "me", &text(&mount.1), "-o", "settle=100ms,poll-interval=1s"]);
    assert!(mounted.status.success(), "{}", words(&mounted));
    std::fs::write(mount.1.join("first"), "1").expect("written");
    assert!(person.run(&["sync", &text(&mount.1)]).status.success());
    person.service.control.revoke_refresh_tokens();
    person.service.control.expire_tokens();
    std::fs::write(mount.1.join("second"), "2").expect("written");
    let out = until(Duration::from_secs(60), || mount.status()["state"] == "signed_out");
    assert!(out, "{}", mount.status());
    let said = words(&person.run(&["status", &text(&mount.1)]));
    assert!(said.contains("onedrivefs login default"), "{said}");
    assert_eq!(std::fs::read_to_string(mount.1.join("first")).expect("it is here"), "1");
    person.sign_in();
    let synced = until(Duration::from_secs(60), || mount.status()["pending"] == 0);
    assert!(synced, "{}", mount.status());
    assert_eq!(mount.status()["state"], "online");
}

// S237.
#[test]
fn the_drives_that_an_account_reaches_are_listed_with_what_mount_takes_for_them() {
    let person = Person::new();
    person.sign_in();
    let found: Value = serde_json::from_slice(&person.run(&["drives", "--json"]).stdout).expect("JSON");
    let drives = found["drives"].as_array().expect("a list");
    assert_eq!(drives[0]["place"], "OneDrive");
    assert_eq!(drives[0]["drive"], "me");
    let library =
        drives.iter().find(|drive| drive["place"].as_str().is_some_and(|it| it.starts_with("Sites/Team/")));
    let id = library.expect("a library")["drive"].as_str().expect("an id").to_owned();
    assert!(id.starts_with("b!"), "{id}");
    let said = words(&person.run(&["drives"]));
    assert!(said.contains("OneDrive: me, ") && said.contains(&id), "{said}");
    // One thing that is refused hides nothing else.
    person.service.control.inject(Fault {
        method: Some("GET".into()),
        path: Some("/sites".into()),
        op: None,
        skip: 0,
        count: None,
        action: FaultAction::status(403, "accessDenied"),
    });
    let said = words(&person.run(&["drives"]));
    assert!(said.contains("OneDrive: me, ") && said.contains("not told: sites: "), "{said}");
}
