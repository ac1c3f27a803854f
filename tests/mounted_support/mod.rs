//! The whole program mounted over the emulator: its binary, the real kernel, real programs.
//!
//! The daemon is a child process, so that it can be killed; the service lives in the test process, so that a
//! test can look at its truth and edit it as another client. Where `/dev/fuse` is missing the tests are left
//! out and say so; with `CI=true` that is a failure.
#![allow(dead_code, reason = "each test crate uses a part")]

pub mod process;
pub mod random;
pub mod service;
pub mod shell;
pub mod trace;
pub mod tree;

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use onedrivefs::emulator::{Control, EmulatorConfig, Flavour};
use serde_json::Value;

use process::Watchdog;
use service::Service;

/// How a mount of a test differs from the ordinary one.
#[derive(Clone, Debug)]
pub struct Options {
    /// Further `-o` options.
    pub mount: String,
    /// After this long the daemon is killed, so that nothing waits for it any more.
    pub deadline: Duration,
    /// The program runs as this user.
    pub uid: Option<u32>,
    /// State and cache lie below this directory.
    pub disk: Option<PathBuf>,
    /// What is mounted.
    pub drive: String,
}

impl Default for Options {
    fn default() -> Self {
        // The poll, so that a fault is met within a second whatever the service tells; tests of push say so.
        Self {
            mount: "settle=100ms,poll-interval=1s,push=false".into(),
            deadline: Duration::from_secs(120),
            uid: None,
            disk: None,
            drive: "me".into(),
        }
    }
}

/// A mounted drive with its service. Unmounts and removes everything when dropped.
pub struct Mounted {
    work: tempfile::TempDir,
    pub service: Service,
    options: Options,
    daemon: Mutex<Option<Child>>,
    watchdog: Mutex<Option<Watchdog>>,
}

impl Mounted {
    /// Starts the service and mounts its drive; nothing where mounting is impossible.
    pub fn new(flavour: Flavour, options: Options) -> Option<Self> {
        Self::with(EmulatorConfig { flavour, ..EmulatorConfig::default() }, options)
    }

    /// As [`Mounted::new`], over a service of these settings.
    pub fn with(service: EmulatorConfig, options: Options) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let work = tempfile::Builder::new().prefix("odfs-").tempdir().expect("a directory");
        let mounted = Self {
            service: Service::with(service),
            daemon: Mutex::new(None),
            watchdog: Mutex::new(None),
            work,
            options,
        };
        for name in ["mnt", "run", "local", "home"] {
            let path = mounted.work.path().join(name);
            fs::create_dir(&path).expect("a directory");
            if let Some(uid) = mounted.options.uid {
                std::os::unix::fs::chown(&path, Some(uid), Some(uid)).expect("root may give it away");
            }
        }
        if let Some(uid) = mounted.options.uid {
            std::os::unix::fs::chown(mounted.work.path(), Some(uid), Some(uid)).expect("root may do so");
        }
        mounted.mount();
        Some(mounted)
    }

    /// A business drive with the usual options.
    pub fn usual() -> Option<Self> {
        Self::new(Flavour::Business, Options::default())
    }

    /// One mount for all tests of a process that run at a time; each uses a directory of its own.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Mounted>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mounted) = shared.upgrade() {
            return Some(mounted);
        }
        let options = Options { deadline: Duration::from_secs(400), ..Options::default() };
        let mounted = Arc::new(Self::new(Flavour::Business, options)?);
        *shared = Arc::downgrade(&mounted);
        Some(mounted)
    }

    /// The root of the mounted drive.
    pub fn root(&self) -> PathBuf {
        self.work.path().join("mnt")
    }

    /// A path in the mounted drive.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// An empty directory on an ordinary file system, for comparing with.
    pub fn local(&self) -> PathBuf {
        self.work.path().join("local")
    }

    /// A directory for what a test needs besides.
    pub fn scratch(&self) -> &Path {
        self.work.path()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.disk().join("state")
    }

    fn disk(&self) -> &Path {
        self.options.disk.as_deref().unwrap_or(self.work.path())
    }

    pub fn control(&self) -> Control {
        self.service.control.clone()
    }

    /// Mounts (again) and waits until the drive is usable.
    pub fn mount(&self) {
        self.start(&[]);
        self.await_ready();
    }

    /// Starts the daemon with these environment variables, and does not wait for it.
    pub fn start(&self, environment: &[(&str, &str)]) {
        let mut arguments: Vec<OsString> =
            vec!["mount".into(), self.options.drive.clone().into(), self.root().into()];
        arguments.extend(["--foreground".into(), "--graph-url".into(), self.service.url().into()]);
        arguments.extend(["--state-dir".into(), self.state_dir().into()]);
        arguments.extend(["--cache-dir".into(), self.disk().join("cache").into()]);
        let limits = "request-rate=1000000,request-burst=1000000,min-free=1MiB";
        arguments.extend(["-o".into(), format!("{limits},{}", self.options.mount).into()]);
        let mut command = self.command();
        let log = fs::File::options().create(true).append(true).open(self.log_path()).expect("a log");
        command.envs(environment.iter().copied());
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = process::spawn(command);
        let pid = child.id();
        *self.lock() = Some(child);
        *self.watchdog.lock().expect("no panics") =
            Some(Watchdog::start(pid, self.root(), self.options.deadline));
    }

    /// The program, with the surroundings of this mount.
    pub fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_onedrivefs");
        let mut command = match self.options.uid {
            None => Command::new(binary),
            Some(uid) => {
                let mut command = Command::new("setpriv");
                let ids = [format!("--reuid={uid}"), format!("--regid={uid}")];
                command.args(ids).args(["--clear-groups", "--", binary]);
                command
            }
        };
        command
            .env("ONEDRIVEFS_ACCESS_TOKEN", "anything")
            .env("ONEDRIVEFS_CONFIG", self.work.path().join("no-config.toml"))
            .env("XDG_RUNTIME_DIR", self.work.path().join("run"))
            .env("HOME", self.work.path().join("home"));
        command
    }

    /// Runs a command of the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::null());
        process::output(command)
    }

    fn await_ready(&self) {
        if !self.is_ready_soon() {
            let ended = self.ended();
            panic!("the mount is not usable; the daemon ended: {ended:?}\n{}", self.log_tail());
        }
    }

    /// Waits until the drive is usable; false if the daemon ends instead, or takes half a minute.
    pub fn is_ready_soon(&self) -> bool {
        let root = self.root();
        let mut gone = false;
        let ready = until(Duration::from_secs(30), || {
            gone = self.ended().is_some();
            gone || process::is_mounted(&root)
                && self.run(&["status", "--json", &text(&root)]).status.success()
        });
        ready && !gone
    }

    /// How the daemon ended, if it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.lock().as_mut()?.try_wait().expect("the child is ours")
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.lock().as_ref().expect("it is mounted").id()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn status(&self) -> Value {
        let output = self.run(&["status", "--json", &text(&self.root())]);
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), self.log_tail());
        serde_json::from_slice(&output.stdout).expect("status is JSON")
    }

    /// `onedrivefs refresh`: returns when what others changed is visible.
    pub fn refresh(&self) {
        let output = self.run(&["refresh", &text(&self.root())]);
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), self.log_tail());
    }

    /// `onedrivefs sync` of everything: returns when it is on the service.
    pub fn sync(&self) {
        self.sync_path("");
    }

    /// As [`Mounted::sync`], after a crash.
    ///
    /// A session whose address died with the daemon keeps its name until the service forgets it: for minutes
    /// (graph-api 7.5). The change says so, and waits; here the service forgets at once.
    pub fn sync_after_crash(&self) {
        let none_left = until(Duration::from_secs(60), || {
            let status = self.status();
            let parked = status["parked"].as_array().expect("a list");
            if parked.iter().any(|change| change["kind"] == "locked") {
                self.control().expire_sessions();
                assert!(self.run(&["retry", &text(&self.root())]).status.success());
            }
            status["pending"] == 0
        });
        assert!(none_left, "{}\n{}", self.status(), self.log_tail());
        self.sync();
    }

    /// `onedrivefs sync` of what is below `path`.
    pub fn sync_path(&self, path: &str) {
        let output = self.run(&["sync", &text(&self.path(path)), "--timeout", "60s"]);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            panic!("sync: {}\n{said}\n{}\n{}", output.status, self.status(), self.log_tail());
        }
    }

    /// Waits until the whole drive is known here and nothing is unsent.
    pub fn await_online(&self) {
        let online = until(Duration::from_secs(30), || self.status()["state"] == "online");
        assert!(online, "{}", self.status());
    }

    /// Kills the daemon as a crash would, and removes the dead mount.
    pub fn kill9(&self) {
        self.kill9_only();
        process::force_unmount(&self.root());
    }

    /// Kills the daemon as a crash would; the dead mount stays.
    pub fn kill9_only(&self) {
        self.watchdog.lock().expect("no panics").take();
        let Some(mut child) = self.lock().take() else { return };
        child.kill().expect("it can be killed, or is dead already");
        child.wait().expect("it is ours");
    }

    pub fn remount(&self) {
        self.mount();
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: i32) {
        process::kill(self.pid(), signal);
    }

    /// Waits until the daemon has ended by itself.
    pub fn wait_for_end(&self) -> ExitStatus {
        let ended = until(Duration::from_secs(60), || self.ended().is_some());
        assert!(ended, "the daemon does not end\n{}", self.log_tail());
        self.watchdog.lock().expect("no panics").take();
        let status = self.ended().expect("it has ended");
        self.lock().take();
        assert_eq!(status.signal(), None, "{}", self.log_tail());
        status
    }

    /// `onedrivefs umount`, then the end of the daemon.
    pub fn unmount(&self) {
        let output = self.run(&["umount", &text(&self.root())]);
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), self.log_tail());
        let status = self.wait_for_end();
        assert!(status.success(), "{status}\n{}", self.log_tail());
        assert!(!process::is_mounted(&self.root()));
    }

    /// Whether it was mounted with this option.
    pub fn options_say(&self, option: &str) -> bool {
        self.options.mount.split(',').any(|one| one == option)
    }

    fn log_path(&self) -> PathBuf {
        self.work.path().join("daemon.log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The end of the daemon's log, for failures.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(60);
        format!("--- the daemon's log ends with:\n{}\n---", lines[from..].join("\n"))
    }

    /// Everything below `path` is on the service as it is here: names, types, content, and times that programs set.
    ///
    /// Call [`Mounted::sync`] first.
    pub fn assert_truth_equals_tree(&self, path: &str, times: tree::Times) {
        // The answers of the service (etags, dates) may still be on their way into the store when two
        // programs compare at once; what is compared does not depend on them.
        let here = tree::Tree::of_directory(&self.path(path), self.service.flavour);
        let there = tree::Tree::of_truth(&self.control().truth(), path);
        let differences = here.differences(&there, times, self.service.flavour);
        assert!(
            differences.is_empty(),
            "here and the service differ below '{path}':\n{}\n{}",
            differences.join("\n"),
            self.log_tail()
        );
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        if let Some(keep) = std::env::var_os("KEEP_LOG") {
            let _ = fs::copy(self.log_path(), keep);
        }
        self.watchdog.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.control().clear_faults();
        self.control().release_stalls();
        if let Some(mut child) = self.lock().take() {
            process::force_unmount(&self.root());
            let _ = child.kill();
            let _ = child.wait();
        }
        process::force_unmount(&self.root());
    }
}

/// Looks again and again until `done` or the limit; for states that nobody announces.
pub fn until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn text(path: &Path) -> String {
    path.to_str().expect("test paths are text").to_owned()
}

pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn can_mount() -> bool {
    let device = fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    assert!(device || !in_ci(), "/dev/fuse cannot be opened, and CI must run the mounted tests");
    if !device {
        eprintln!("left out: /dev/fuse cannot be opened here");
    }
    device
}

/// Whether all programs are there. Where one is missing the test is left out; in CI that is a failure.
pub fn have(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = programs
        .iter()
        .find(|program| !std::env::split_paths(&path).any(|directory| directory.join(program).is_file()));
    match missing {
        None => true,
        Some(program) => {
            assert!(!in_ci(), "{program} is missing, and CI must run all mounted tests");
            eprintln!("left out: {program} is not installed");
            false
        }
    }
}
