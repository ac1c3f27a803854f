//! `status`, `sync` and `umount` against a daemon that only answers its control socket.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use onedrivefs::config::Environment;
use onedrivefs::daemon::control::{
    CacheUse, ControlError, ControlHandler, MountState, Outcome, Parked, Progress, ProgressSink,
    RequestCounts, Server, Status, WirePath,
};
use tokio_util::sync::CancellationToken;

/// Answers with what the test wants and notes what it was asked.
struct Fake {
    mountpoint: PathBuf,
    outcome: Outcome,
    asked: Mutex<Vec<String>>,
    shutdown: CancellationToken,
}

impl ControlHandler for Fake {
    fn status(&self) -> BoxFuture<'_, Status> {
        let status = Status {
            mountpoint: WirePath(self.mountpoint.clone()),
            state: MountState::Offline,
            drive: None,
            account: "default".into(),
            read_only: false,
            pending: self.outcome.unsent,
            parked: self.outcome.parked.clone(),
            unprotected: self.outcome.unprotected,
            uploads: vec![],
            last_delta: None,
            cache: CacheUse { used: 1 << 20, limit: 1 << 30 },
            items: 3,
            requests: RequestCounts::default(),
            notices: vec![],
            pid: std::process::id(),
            version: "0".into(),
        };
        Box::pin(async { status })
    }

    fn sync(
        &self,
        path: PathBuf,
        timeout: Option<Duration>,
        progress: ProgressSink,
    ) -> BoxFuture<'_, Result<Outcome, ControlError>> {
        self.asked.lock().unwrap().push(format!("sync {} {timeout:?}", path.display()));
        progress.send_replace(Progress { pending: 1, sent: 1, total: 2, current: Some("a".into()) });
        Box::pin(async { Ok(self.outcome.clone()) })
    }

    fn unmount(
        &self,
        drain: Option<Duration>,
        _: ProgressSink,
    ) -> BoxFuture<'_, Result<Outcome, ControlError>> {
        self.asked.lock().unwrap().push(format!("unmount {drain:?}"));
        self.shutdown.cancel();
        Box::pin(async { Ok(self.outcome.clone()) })
    }

    fn refresh(&self, _: PathBuf) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async { Ok(()) })
    }

    fn retry(&self) -> BoxFuture<'_, Result<u64, ControlError>> {
        Box::pin(async { Ok(0) })
    }
}

struct Running {
    home: tempfile::TempDir,
    mountpoint: PathBuf,
    fake: Arc<Fake>,
    runtime: tokio::runtime::Runtime,
}

impl Running {
    fn start(outcome: Outcome) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mountpoint = home.path().canonicalize().unwrap().join("One Drive");
        std::fs::create_dir_all(mountpoint.join("thesis")).unwrap();
        let own = Environment::of_process();
        let runtime_dir = [("XDG_RUNTIME_DIR".to_owned(), home.path().as_os_str().to_owned())];
        let environment = Environment::new(own.uid, own.gid, runtime_dir);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let shutdown = CancellationToken::new();
        let fake = Arc::new(Fake {
            mountpoint: mountpoint.clone(),
            outcome,
            asked: Mutex::default(),
            shutdown: shutdown.clone(),
        });
        let served = fake.clone();
        let server = {
            let _entered = runtime.enter();
            Server::bind(&environment, &mountpoint).unwrap()
        };
        runtime.spawn(server.serve(served, shutdown));
        Self { home, mountpoint, fake, runtime }
    }

    fn run(&self, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_onedrivefs"))
            .args(arguments)
            .env("XDG_RUNTIME_DIR", self.home.path())
            .output()
            .expect("the program was built")
    }

    fn asked(self) -> Vec<String> {
        self.runtime.shutdown_background();
        self.fake.asked.lock().unwrap().clone()
    }
}

fn text(output: &Output) -> (String, String, i32) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
}

fn parked() -> Outcome {
    let parked = Parked {
        path: "thesis/a.doc".into(),
        reason: "the drive is full".into(),
        remedy: "make room on it".into(),
    };
    Outcome { unsent: 1, parked: vec![parked], unprotected: 0 }
}

#[test]
fn status_shows_what_waits_and_why_for_people_and_for_programs() {
    let running = Running::start(parked());
    let (stdout, stderr, code) = text(&running.run(&[&"status", &running.mountpoint]));
    assert_eq!((stderr.as_str(), code), ("", 0));
    assert!(stdout.contains("offline") && stdout.contains("1 change"), "{stdout}");
    assert!(stdout.contains("thesis/a.doc: waits: the drive is full; make room on it"), "{stdout}");
    let (stdout, _, _) = text(&running.run(&[&"status", &"--json", &running.mountpoint]));
    let status: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&status["state"], &status["pending"]), (&"offline".into(), &1.into()));
    let (stdout, _, _) = text(&running.run(&[&"status", &"--json"]));
    let all: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(all[0]["mountpoint"], running.mountpoint.to_str().unwrap());
}

#[test]
fn sync_asks_the_mount_that_the_path_is_in() {
    let running = Running::start(Outcome::default());
    let inside = running.mountpoint.join("thesis");
    let (stdout, stderr, code) = text(&running.run(&[&"sync", &inside, &"--timeout", &"5m"]));
    assert_eq!((stdout.as_str(), stderr.as_str(), code), ("", "", 0));
    let (_, _, code) = text(&running.run(&[&"sync"]));
    assert_eq!(code, 0);
    assert_eq!(running.asked(), ["sync thesis Some(300s)", "sync  None"]);
}

// S51.
#[test]
fn what_remains_unsent_is_said_and_has_its_exit_code() {
    let running = Running::start(parked());
    let (stdout, _, code) = text(&running.run(&[&"sync", &running.mountpoint, &"--json"]));
    let outcome: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&outcome["unsent"], code), (&1.into(), 4));
    let (stdout, stderr, code) = text(&running.run(&[&"umount", &running.mountpoint, &"--timeout", &"0"]));
    assert_eq!((stderr.as_str(), code), ("", 4));
    assert!(stdout.contains("1 change still unsent; kept"), "{stdout}");
    assert!(stdout.contains("thesis/a.doc: the drive is full; make room on it"), "{stdout}");
    let (_, stderr, code) = text(&running.run(&[&"umount", &running.mountpoint]));
    assert!(code == 3 && stderr.contains("no drive is mounted there"), "{code}: {stderr}");
    assert_eq!(running.asked(), ["sync  None", "unmount Some(0ns)"]);
}

#[test]
fn a_path_through_a_link_finds_its_mount() {
    let running = Running::start(Outcome::default());
    let link = running.home.path().join("link");
    std::os::unix::fs::symlink(&running.mountpoint, &link).unwrap();
    for path in [link.as_path(), Path::new(&link.join("thesis"))] {
        assert_eq!(text(&running.run(&[&"sync", &path])).2, 0, "{}", path.display());
    }
    assert_eq!(text(&running.run(&[&"status", &link])).2, 0);
}
