//! `status`, `sync` and `umount` against a daemon that only answers its control socket.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use onedrivefs::config::Environment;
use onedrivefs::daemon::control::{
    CacheUse, CacheView, ConflictCause, ConflictLine, ControlError, ControlHandler, FreeOutcome, Keep,
    MountState, Outcome, ParkKind, Parked, PinOutcome, Progress, ProgressSink, RequestCounts, Server, Status,
    ThumbnailLine, TroubleLine, WirePath,
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
            drives: Vec::new(),
            account: "default".into(),
            state_dir: WirePath::default(),
            cache_dir: WirePath::default(),
            read_only: false,
            pending: self.outcome.unsent,
            parked: self.outcome.parked.clone(),
            waiting: vec![],
            unprotected: self.outcome.unprotected,
            uploads: vec![],
            last_delta: None,
            push: false,
            cache: CacheUse { used: 1 << 20, limit: 1 << 30 },
            items: 3,
            reading: None,
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
        lazy: bool,
        _: ProgressSink,
    ) -> BoxFuture<'_, Result<Outcome, ControlError>> {
        let how = if lazy { " lazy" } else { "" };
        self.asked.lock().unwrap().push(format!("unmount {drain:?}{how}"));
        self.shutdown.cancel();
        Box::pin(async { Ok(self.outcome.clone()) })
    }

    fn pin(
        &self,
        path: PathBuf,
        wait: bool,
        _: ProgressSink,
    ) -> BoxFuture<'_, Result<PinOutcome, ControlError>> {
        self.asked.lock().unwrap().push(format!("pin {} {wait}", path.display()));
        let missing = u64::from(!wait) + 1;
        Box::pin(async move {
            Ok(PinOutcome {
                files: 3,
                bytes: 3 << 20,
                missing_files: missing,
                missing_bytes: missing << 20,
                waits_for: Some(MountState::Offline),
                ..PinOutcome::default()
            })
        })
    }

    fn unpin(&self, path: PathBuf) -> BoxFuture<'_, Result<u64, ControlError>> {
        self.asked.lock().unwrap().push(format!("unpin {}", path.display()));
        Box::pin(async { Ok(0) })
    }

    fn free(&self, path: PathBuf) -> BoxFuture<'_, Result<FreeOutcome, ControlError>> {
        self.asked.lock().unwrap().push(format!("free {}", path.display()));
        let line =
            TroubleLine { path: WirePath("a".into()), why: "it is pinned".into(), remedy: "unpin it".into() };
        Box::pin(async move {
            Ok(FreeOutcome { files: 2, bytes: 1 << 20, refused: vec![line], refused_files: 1 })
        })
    }

    fn thumbnails(&self, path: PathBuf) -> BoxFuture<'_, Result<Vec<ThumbnailLine>, ControlError>> {
        self.asked.lock().unwrap().push(format!("thumbnails {}", path.display()));
        Box::pin(async { Ok(Vec::new()) })
    }

    fn cache(&self, path: PathBuf, list: bool) -> BoxFuture<'_, Result<Vec<CacheView>, ControlError>> {
        self.asked.lock().unwrap().push(format!("cache {} {list}", path.display()));
        Box::pin(async {
            Ok(vec![CacheView { used: 5, pinned: vec![WirePath("a".into())], ..CacheView::default() }])
        })
    }

    fn yield_state(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async { Ok(()) })
    }

    fn refresh(&self, path: PathBuf) -> BoxFuture<'_, Result<(), ControlError>> {
        self.asked.lock().unwrap().push(format!("refresh {}", path.display()));
        Box::pin(async { Ok(()) })
    }

    fn confirm(&self) -> BoxFuture<'_, Result<u64, ControlError>> {
        self.asked.lock().unwrap().push("confirm".into());
        Box::pin(async { Ok(1001) })
    }

    fn retry(&self, path: PathBuf) -> BoxFuture<'_, Result<u64, ControlError>> {
        self.asked.lock().unwrap().push(format!("retry {}", path.display()));
        Box::pin(async { Ok(2) })
    }

    fn conflicts(&self, path: PathBuf) -> BoxFuture<'_, Result<Vec<ConflictLine>, ControlError>> {
        self.asked.lock().unwrap().push(format!("conflicts {}", path.display()));
        let line = ConflictLine {
            path: WirePath("thesis/a (conflict box 2026-03-01 081530).doc".into()),
            beside: WirePath("thesis/a.doc".into()),
            host: "box".into(),
            at: "2026-03-01T08:15:30Z".into(),
            cause: ConflictCause::BothChanged,
            size: 5,
            beside_size: 7,
            state: "sent".into(),
            reason: None,
        };
        Box::pin(async { Ok(vec![line]) })
    }

    fn settle(&self, path: PathBuf, keep: Keep) -> BoxFuture<'_, Result<(), ControlError>> {
        self.asked.lock().unwrap().push(format!("settle {} {keep:?}", path.display()));
        let refusal = ControlError {
            what: path.display().to_string(),
            why: "it is no conflict copy".into(),
            remedy: "'onedrivefs conflicts' lists those there are".into(),
            exit_code: 2,
        };
        let known = path.to_string_lossy().contains("conflict");
        Box::pin(async move { if known { Ok(()) } else { Err(refusal) } })
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
        kind: ParkKind::Quota,
        reason: "the drive is full".into(),
        remedy: "make room on it".into(),
        retry_at: None,
        behind: vec![],
    };
    Outcome { unsent: 1, parked: vec![parked], ..Outcome::default() }
}

#[test]
fn status_shows_what_waits_and_why_for_people_and_for_programs() {
    let running = Running::start(parked());
    let (stdout, stderr, code) = text(&running.run(&[&"status", &running.mountpoint]));
    assert_eq!((stderr.as_str(), code), ("", 0));
    assert!(stdout.contains("offline") && stdout.contains("1 change"), "{stdout}");
    assert!(stdout.contains("thesis/a.doc: the drive is full; make room on it"), "{stdout}");
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

#[test]
fn conflict_copies_are_listed_with_paths_that_can_be_used_as_they_are() {
    let running = Running::start(Outcome::default());
    let copy = running.mountpoint.join("thesis/a (conflict box 2026-03-01 081530).doc");
    let (stdout, stderr, code) = text(&running.run(&[&"conflicts"]));
    assert_eq!((stderr.as_str(), code), ("", 0));
    assert!(stdout.starts_with(copy.to_str().unwrap()), "{stdout}");
    assert!(stdout.contains("beside     a.doc, 7 B") && stdout.contains("keep-local"), "{stdout}");
    let inside = running.mountpoint.join("thesis");
    let (stdout, _, _) = text(&running.run(&[&"conflicts", &inside, &"--json"]));
    let listed: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(listed[0]["path"], copy.to_str().unwrap());
    assert_eq!((&listed[0]["size"], &listed[0]["state"]), (&5.into(), &"sent".into()));
    assert_eq!(running.asked(), ["conflicts ", "conflicts thesis"]);
}

#[test]
fn each_conflict_is_settled_and_the_first_failure_is_the_exit_code() {
    let running = Running::start(Outcome::default());
    let copy = running.mountpoint.join("a (conflict box 2026-03-01 081530).doc");
    let other = running.mountpoint.join("plain.doc");
    let (stdout, stderr, code) = text(&running.run(&[&"conflicts", &"keep-remote", &other, &copy]));
    assert_eq!((stdout.as_str(), code), ("", 2));
    assert_eq!(
        stderr,
        "onedrivefs: plain.doc: it is no conflict copy; 'onedrivefs conflicts' lists those there are\n"
    );
    let (_, stderr, code) = text(&running.run(&[&"conflicts", &"keep-local", &copy]));
    assert_eq!((stderr.as_str(), code), ("", 0));
    let name = "a (conflict box 2026-03-01 081530).doc";
    assert_eq!(
        running.asked(),
        [
            "settle plain.doc Remote".to_owned(),
            format!("settle {name} Remote"),
            format!("settle {name} Local")
        ]
    );
}

#[test]
fn all_paths_are_pinned_before_any_is_waited_for_and_what_is_queued_is_said() {
    let running = Running::start(Outcome::default());
    let (one, other) = (running.mountpoint.join("thesis"), running.mountpoint.join("b"));
    let (stdout, stderr, code) = text(&running.run(&[&"pin", &one, &other]));
    assert_eq!((stderr.as_str(), code), ("", 6));
    assert!(
        stdout.contains("1.0 MiB of 1 file to fetch, queued until the service can be reached"),
        "{stdout}"
    );
    let (stdout, _, code) = text(&running.run(&[&"pin", &"--no-wait", &"--json", &one]));
    let told: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&told[0]["missing_files"], code), (&2.into(), 0));
    let asked = ["pin thesis false", "pin b false", "pin thesis true", "pin b true", "pin thesis false"];
    assert_eq!(running.asked(), asked);
}

#[test]
fn what_is_not_freed_is_named_on_stderr_and_the_cache_is_shown_with_paths_of_the_machine() {
    let running = Running::start(Outcome::default());
    let inside = running.mountpoint.join("thesis");
    let (stdout, stderr, code) = text(&running.run(&[&"free", &inside]));
    assert_eq!((stdout.as_str(), code), ("1.0 MiB of 2 files freed\n", 7));
    assert_eq!(stderr, "onedrivefs: a: it is pinned; unpin it\n");
    assert_eq!(text(&running.run(&[&"unpin", &inside])).0, "nothing was pinned there\n");
    let (stdout, _, code) = text(&running.run(&[&"cache", &"--json", &"--list", &inside]));
    let told: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&told[0]["used"], code), (&5.into(), 0));
    assert_eq!(told[0]["pinned"][0], running.mountpoint.join("a").to_str().unwrap());
    assert_eq!(running.asked(), ["free thesis", "unpin thesis", "cache thesis true"]);
}

#[test]
fn retry_and_refresh_ask_the_mount_that_the_path_is_in_or_all() {
    let running = Running::start(Outcome::default());
    let inside = running.mountpoint.join("thesis");
    assert_eq!(text(&running.run(&[&"retry"])).0, "trying 2 changes again\n");
    assert_eq!(text(&running.run(&[&"retry", &inside, &"--json"])).0, "{\"retried\":2}\n");
    assert_eq!(text(&running.run(&[&"refresh", &inside])), (String::new(), String::new(), 0));
    let (_, stderr, code) = text(&running.run(&[&"refresh", &running.home.path()]));
    assert!(code == 3 && stderr.contains("no drive is mounted there"), "{stderr}");
    assert_eq!(running.asked(), ["retry ", "retry thesis", "refresh thesis"]);
}

#[test]
fn a_lazy_unmount_and_its_limit_are_passed_on() {
    let running = Running::start(Outcome::default());
    let arguments: &[&dyn AsRef<std::ffi::OsStr>] =
        &[&"umount", &running.mountpoint, &"--lazy", &"--drain-timeout", &"2m"];
    assert_eq!(text(&running.run(arguments)).2, 0);
    assert_eq!(running.asked(), ["unmount Some(120s) lazy"]);
}

#[test]
fn confirm_says_how_many_deletes_go_on_for_people_and_for_programs() {
    let running = Running::start(Outcome::default());
    let mountpoint = running.mountpoint.clone();
    let (shown, _, code) = text(&running.run(&[&"confirm", &mountpoint]));
    assert_eq!((shown.as_str(), code), ("1001 deletes go on\n", 0));
    let (json, _, code) = text(&running.run(&[&"confirm", &"--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["confirmed"].as_u64(), code), (Some(1001), 0));
    let (_, error, code) = text(&running.run(&[&"confirm", &"/"]));
    assert_eq!(code, 3, "{error}");
    assert_eq!(running.asked(), ["confirm", "confirm"]);
}
