//! Signing in without a person: the program against a sign-in service that checks what it is shown.

mod mounted_support;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mounted_support::service::Service;
use mounted_support::{can_mount, process, text, until};
use onedrivefs::auth::secrets::Variables;
use onedrivefs::auth::{Application, AuthError, CachedToken, Proof, SecretReader, TokenSource, Unattended};
use onedrivefs::clock::SystemClock;
use onedrivefs::emulator::{AppSecret, EmulatorConfig, Federation, Machine, Registered, Seed, Tokens};
use onedrivefs::graph::{HttpTransport, TransportTokenEndpoint};
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

const TENANT: &str = "contoso.example";
const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
const SECRET: &str = "Q~hush.hush";
const ISSUER: &str = "https://cluster.example/";

fn certificates() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/certificates")
}

/// The first block of a PEM file with this label.
fn der(file: &str, label: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(certificates().join(file)).expect("it is there");
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----")).expect("a block");
    let (body, _) = rest.split_once("-----END").expect("an end");
    STANDARD.decode(body.replace('\n', "")).expect("base64")
}

/// A server without a person, and a service that has one application registered.
struct Server {
    home: tempfile::TempDir,
    service: Service,
}

impl Server {
    fn new() -> Self {
        let app = Registered {
            tenant: TENANT.into(),
            client_id: CLIENT.into(),
            secrets: vec![AppSecret { value: SECRET.into(), expired: false }],
            certificates: vec![der("app.pem", "CERTIFICATE")],
            federated: vec![Federation {
                issuer: ISSUER.into(),
                subject: "system:serviceaccount:a:b".into(),
                certificate: der("other.pem", "CERTIFICATE"),
            }],
        };
        let config = EmulatorConfig {
            tokens: Tokens::List(Vec::new()),
            applications: vec![app],
            seed: Seed::Sample,
            ..EmulatorConfig::default()
        };
        let home = tempfile::Builder::new().prefix("odfs-").tempdir().expect("a directory");
        let server = Self { home, service: Service::with(config) };
        std::fs::write(server.path("secret"), format!("{SECRET}\n")).expect("written");
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onedrivefs"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if ["ONEDRIVEFS_", "XDG_", "AZURE_", "IDENTITY_"].iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.home.path()).env("XDG_RUNTIME_DIR", self.home.path());
        command.env("XDG_STATE_HOME", self.path("state")).env("XDG_CACHE_HOME", self.path("cache"));
        command.env("XDG_CONFIG_HOME", self.path("config"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        process::output(self.command(arguments))
    }

    /// `login` of the registered application, with the addresses of the service.
    fn login(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&["login", "--graph-url", &self.service.url()]);
        command.args(["--login-url", &self.service.url(), "--client-id", CLIENT, "--tenant", TENANT]);
        command.args(arguments);
        command
    }

    fn file(&self, name: &str) -> String {
        format!("file:{}", text(&self.path(name)))
    }

    fn account(&self) -> Value {
        let listed: Value = serde_json::from_slice(&self.run(&["accounts", "--json"]).stdout).expect("JSON");
        listed[0].clone()
    }

    fn kept(&self) -> String {
        std::fs::read_to_string(self.path("state/onedrivefs/default/account.json")).expect("it is kept")
    }
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
fn signed_in(output: &Output) {
    assert!(output.status.success(), "{}", words(output));
}

#[track_caller]
fn fails(output: &Output, code: i32, says: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(says) && said.lines().count() == 1 && said.contains("; "), "{says}: {said}");
    assert!(!said.contains("hush") && !said.contains("opensesame"), "{said}");
}

// S238, S240.
#[test]
fn an_application_signs_in_by_its_secret_and_nothing_secret_is_kept() {
    let server = Server::new();
    signed_in(&process::output(server.login(&["--client-secret", &server.file("secret")])));
    assert_eq!(server.account()["flow"], "client secret");
    assert_eq!(server.account()["signed_in"], true);
    assert!(server.kept().contains("file:") && !server.kept().contains("hush"), "{}", server.kept());
    assert!(!server.path("state/onedrivefs/default/token.json").exists());
    // From wherever it is.
    let mut environment = server.login(&["--client-secret", "env:APP_SECRET"]);
    environment.env("APP_SECRET", SECRET);
    signed_in(&process::output(environment));
    let mut systemd = server.login(&["--client-secret", "credential:secret"]);
    systemd.env("CREDENTIALS_DIRECTORY", server.home.path());
    signed_in(&process::output(systemd));
    let command = format!("command:cat {}", text(&server.path("secret")));
    signed_in(&process::output(server.login(&["--client-secret", &command])));
    // S241: its administrator gave it libraries, not a drive of its own.
    let drives: Value = serde_json::from_slice(&server.run(&["drives", "--json"]).stdout).expect("JSON");
    let places: Vec<&str> =
        drives["drives"].as_array().expect("a list").iter().filter_map(|one| one["place"].as_str()).collect();
    assert!(!places.is_empty() && places.iter().all(|place| place.starts_with("Sites/")), "{drives}");
    std::fs::create_dir(server.path("mnt")).expect("a directory");
    fails(&server.run(&["mount", "me", &text(&server.path("mnt"))]), 2, "onedrivefs drives");
    assert_eq!(words(&server.run(&["logout"])), "signed out: default\n");
    assert_eq!(server.account()["signed_in"], false);
    fails(&server.run(&["drives"]), 5, "nobody has signed in");
}

// S238.
#[test]
fn an_application_signs_in_by_its_certificate() {
    let server = Server::new();
    std::fs::write(server.path("password"), "opensesame\n").expect("written");
    let source = |name: &str| format!("file:{}", text(&certificates().join(name)));
    let password = server.file("password");
    for arguments in [
        vec!["--certificate", &source("app.pem")],
        vec!["--certificate", &source("app.pem"), "--certificate-signing", "rs256"],
        vec!["--certificate", &source("app.pfx"), "--certificate-password", &password],
        vec!["--certificate", &source("legacy.pfx")],
    ] {
        signed_in(&process::output(server.login(&arguments)));
        assert_eq!(server.account()["flow"], "certificate");
        assert!(server.account()["ends"].as_str().expect("a time").starts_with("21"));
        assert!(!server.kept().contains("opensesame") && !server.kept().contains("BEGIN"));
    }
    // S239.
    for (name, code, says) in [
        ("other.pem", 10, "not known to the application"),
        ("expired.pem", 9, "expired at 2021-01-01"),
        ("app.pfx", 9, "--certificate-password"),
        ("ec.pem", 9, "RSA"),
        ("none.pem", 9, "cannot be read"),
    ] {
        fails(&process::output(server.login(&["--certificate", &source(name)])), code, says);
    }
    assert_eq!(server.account()["signed_in"], true, "the former sign-in stays");
}

/// A token of another service, as Kubernetes puts it into a file.
fn foreign(subject: &str, audience: &str, life_s: i64) -> String {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let now = i64::try_from(now).expect("before the year 292 billion");
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let claims =
        json!({ "iss": ISSUER, "sub": subject, "aud": [audience], "nbf": now - 9999, "exp": now + life_s });
    let signed = format!("{}.{}", part(json!({ "alg": "RS256", "kid": "k" })), part(claims));
    let key = RsaKeyPair::from_pkcs8(&der("other.pem", "PRIVATE KEY")).expect("a key");
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &ring::rand::SystemRandom::new(), signed.as_bytes(), &mut signature)
        .expect("signed");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

// S238, S239.
#[test]
fn a_workload_signs_in_by_the_token_of_its_cluster() {
    let server = Server::new();
    let file = text(&server.path("token"));
    let login = |token: String| {
        std::fs::write(&file, token).expect("written");
        // What Kubernetes says to its programs.
        let mut command = server.command(&["login", "--federated-token-file", &file]);
        command.args(["--graph-url", &server.service.url()]);
        command.env("AZURE_CLIENT_ID", CLIENT).env("AZURE_TENANT_ID", TENANT);
        command.env("AZURE_AUTHORITY_HOST", server.service.url());
        process::output(command)
    };
    let (subject, audience) = ("system:serviceaccount:a:b", "api://AzureADTokenExchange");
    signed_in(&login(foreign(subject, audience, 3600)));
    assert_eq!(server.account()["flow"], "federated token");
    fails(&login(foreign("system:serviceaccount:a:c", audience, 3600)), 10, "issuer and subject");
    fails(&login(foreign(subject, "api://other", 3600)), 10, "api://AzureADTokenExchange");
    fails(&login(foreign(subject, audience, -3600)), 10, "clock");
    fails(&login(String::new()), 9, "empty");
}

// S238, S239.
#[test]
fn a_machine_signs_in_as_itself() {
    let server = Server::new();
    let login = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = server.command(&["login", "--graph-url", &server.service.url()]);
        command.args(arguments).envs(variables.iter().copied());
        process::output(command)
    };
    let machine = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", server.service.url())];
    let machine: Vec<_> = machine.iter().map(|(name, value)| (*name, value.as_str())).collect();
    fails(&login(&["--managed-identity"], &machine), 10, "Identity not found");
    let one =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/one";
    server.service.control.machine(|known| {
        known.identities = ["app", "o", one].map(str::to_owned).to_vec();
        known.header = "hush".into();
        known.updating = 2;
    });
    for id in ["", "=app", "=object:o", &format!("={one}")] {
        signed_in(&login(&[&format!("--managed-identity{id}")], &machine));
        assert_eq!(server.account()["flow"], "managed identity");
    }
    fails(&login(&["--managed-identity=other"], &machine), 10, "Identity not found");
    let address = format!("{}/msi/token", server.service.url());
    let app_service = [("IDENTITY_ENDPOINT", address.as_str()), ("IDENTITY_HEADER", "hush")];
    signed_in(&login(&["--managed-identity=app"], &app_service));
    let wrong = [("IDENTITY_ENDPOINT", address.as_str()), ("IDENTITY_HEADER", "other")];
    fails(&login(&["--managed-identity"], &wrong), 10, "is refused");
}

// S238, S239.
#[test]
fn a_secret_in_a_key_vault_is_read_by_the_machine_or_another_account() {
    let server = Server::new();
    server.service.control.machine(|known| {
        known.identities = vec!["system".into()];
        known.vault = [("app-secret".to_owned(), SECRET.to_owned())].into();
        let pfx = std::fs::read(certificates().join("legacy.pfx")).expect("it is there");
        known.vault.insert("app-certificate".into(), STANDARD.encode(pfx));
    });
    let login = |flag: &str, source: &str| {
        let mut command = server.login(&[flag, source]);
        command.env("AZURE_POD_IDENTITY_AUTHORITY_HOST", server.service.url());
        process::output(command)
    };
    let vault = server.service.url();
    signed_in(&login("--client-secret", &format!("keyvault:{vault}/app-secret")));
    signed_in(&login("--certificate", &format!("keyvault:{vault}/app-certificate")));
    let by_reader = format!("keyvault:reader@{vault}/app-secret");
    fails(&login("--client-secret", &by_reader), 9, "onedrivefs login reader");
    signed_in(&process::output(server.login(&["reader", "--client-secret", &server.file("secret")])));
    signed_in(&login("--client-secret", &by_reader));
    fails(&login("--client-secret", &format!("keyvault:{vault}/none")), 9, "no such secret");
    server.service.control.machine(|known| known.vault_refuses = true);
    fails(&login("--client-secret", &by_reader), 9, "Key Vault Secrets User");
}

// S239.
#[test]
fn bad_input_is_one_sentence_with_what_to_do() {
    let server = Server::new();
    std::fs::write(server.path("empty"), "\n").expect("written");
    std::fs::write(server.path("wrong"), "no").expect("written");
    let file = server.file("secret");
    let run = |arguments: &[&str]| {
        let mut command = server.command(&["login", "--graph-url", &server.service.url()]);
        command.args(["--login-url", &server.service.url()]).args(arguments);
        process::output(command)
    };
    let secret = ["--client-secret", file.as_str()];
    fails(&run(&secret), 2, "az ad app create");
    fails(&run(&[&secret[..], &["--client-id", CLIENT]].concat()), 2, "--tenant contoso.com");
    fails(&run(&[&secret[..], &["--client-id", CLIENT, "--tenant", "common"]].concat()), 2, "--tenant");
    fails(&run(&[&secret[..], &["--client-id", CLIENT, "--tenant", "other"]].concat()), 10, "--tenant");
    fails(&run(&[&secret[..], &["--client-id", "other", "--tenant", TENANT]].concat()), 10, "--client-id");
    let login = |arguments: &[&str]| process::output(server.login(arguments));
    fails(&login(&[&secret[..], &["--managed-identity"]].concat()), 2, "--managed-identity");
    fails(&login(&[&secret[..], &["--device-code"]].concat()), 2, "--device-code");
    fails(&login(&[&secret[..], &["--scopes", "User.Read"]].concat()), 2, "--scopes");
    fails(&login(&["--certificate-password", &file]), 2, "--certificate");
    fails(&login(&["--client-secret", "Q~hush.hush"]), 2, "file:PATH");
    fails(&login(&["--client-secret", "env:NOT_SET_AT_ALL"]), 9, "not set");
    fails(&login(&["--client-secret", &server.file("empty")]), 9, "empty");
    fails(&login(&["--client-secret", &server.file("none")]), 9, "cannot be read");
    fails(&login(&["--client-secret", &server.file("wrong")]), 10, "its value, not its id");
    server.service.control.register(|apps| apps[0].secrets[0].expired = true);
    fails(&login(&secret), 10, "has expired");
    assert!(!server.path("state/onedrivefs/default/account.json").exists(), "nothing is kept of a failure");
}

/// A mount that is gone at the end of the test, whatever happens.
struct Mount<'s>(&'s Server, PathBuf);

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

// S242.
#[test]
fn a_mount_whose_secret_has_expired_goes_on_with_the_next_one() {
    if !can_mount() {
        return;
    }
    let server = Server::new();
    signed_in(&process::output(server.login(&["--client-secret", &server.file("secret")])));
    let drives: Value = serde_json::from_slice(&server.run(&["drives", "--json"]).stdout).expect("JSON");
    let drive = drives["drives"][0]["drive"].as_str().expect("an id").to_owned();
    let mount = Mount(&server, server.path("mnt"));
    std::fs::create_dir(&mount.1).expect("a directory");
    let mounted = server.run(&["mount", &drive, &text(&mount.1), "-o", "settle=100ms,poll-interval=1s"]);
    signed_in(&mounted);
    std::fs::write(mount.1.join("first"), "1").expect("written");
    signed_in(&server.run(&["sync", &text(&mount.1)]));
    server.service.control.register(|apps| apps[0].secrets[0].expired = true);
    server.service.control.expire_tokens();
    std::fs::write(mount.1.join("second"), "2").expect("written");
    let out = until(Duration::from_secs(60), || mount.status()["state"] == "signed_out");
    assert!(out, "{}", mount.status());
    let said = words(&server.run(&["status", &text(&mount.1)]));
    assert!(said.contains("has expired"), "{said}");
    server.service.control.register(|apps| {
        apps[0].secrets.push(AppSecret { value: "Q~hush.next".into(), expired: false });
    });
    std::fs::write(server.path("secret"), "Q~hush.next").expect("written");
    let synced = until(Duration::from_secs(60), || mount.status()["pending"] == 0);
    assert!(synced, "{}", mount.status());
    let log = std::fs::read_to_string(server.path("state/onedrivefs/default/daemon.log")).unwrap_or_default();
    assert!(!log.contains("hush"), "{log}");
}

/// An application as the program keeps it, asking the service without the program.
fn unattended(server: &Server, proof: Proof, variables: Variables) -> CachedToken {
    let application = Application {
        login_url: server.service.url().parse().expect("an address"),
        tenant: TENANT.into(),
        client_id: CLIENT.into(),
        scope: String::new(),
    };
    let what = Unattended {
        application,
        proof,
        resource: "https://graph.microsoft.com/".into(),
        secrets: SecretReader::new(variables, None),
        arc_tokens: server.home.path().to_owned(),
    };
    let transport = HttpTransport::new().expect("a transport");
    let endpoint = Arc::new(TransportTokenEndpoint::new(Arc::new(transport)));
    CachedToken::unattended(Arc::new(what), endpoint, Arc::new(SystemClock))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

// S238, S239.
#[test]
fn a_machine_of_arc_proves_itself_by_a_file_of_its_agent_and_sends_no_other() {
    let server = Server::new();
    server.service.control.machine(|known| {
        *known = Machine {
            identities: vec!["system".into()],
            arc_dir: Some(server.home.path().to_owned()),
            ..Machine::default()
        };
    });
    let address = format!("{}/arc/metadata/identity/oauth2/token", server.service.url());
    let here = server.service.url();
    let found = {
        let address = address.clone();
        move |name: &str| match name {
            "IDENTITY_ENDPOINT" => Some(address.clone().into()),
            "IMDS_ENDPOINT" => Some(here.clone().into()),
            _ => None,
        }
    };
    let source = unattended(&server, Proof::ManagedIdentity { id: None }, Arc::new(found));
    runtime().block_on(source.token()).expect("the machine's token");
    // The program itself reads only below the agent's own directory, where the emulator's proof is not.
    let mut command = server.command(&["login", "--managed-identity", "--graph-url", &server.service.url()]);
    command.env("IDENTITY_ENDPOINT", address).env("IMDS_ENDPOINT", server.service.url());
    fails(&process::output(command), 9, "no proof");
}

// S242.
#[test]
fn a_secret_that_was_refused_is_not_shown_again_and_the_next_one_is_at_once() {
    let server = Server::new();
    std::fs::write(server.path("secret"), "Q~wrong").expect("written");
    let proof = Proof::ClientSecret { source: server.file("secret").parse().expect("a source") };
    let source = unattended(&server, proof, Arc::new(|_: &str| None));
    let asked = || server.service.control.counts().get("oauth.token").copied().unwrap_or_default();
    runtime().block_on(async {
        for _ in 0..5 {
            let error = source.token().await.expect_err("a wrong secret");
            assert!(matches!(&error, AuthError::Refused { .. }), "{error}");
        }
        assert_eq!(asked(), 1);
        std::fs::write(server.path("secret"), SECRET).expect("written");
        let token = source.token().await.expect("a token");
        assert_eq!(asked(), 2);
        assert_eq!(source.token().await.expect("the same"), token);
        assert_eq!(asked(), 2, "answered from memory");
        assert_ne!(source.refresh(&token, Some("{}".into())).await.expect("another"), token);
    });
    assert!(!format!("{source:?}").contains("hush"));
}
