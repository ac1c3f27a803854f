//! Processes and mounts: what must end, ends, and nothing stays behind.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};

/// Starts a process that is asked to end (SIGTERM) when the test process ends, however that ends.
///
/// The kernel sends that signal at the end of the *thread* that started it: so one that stays does it.
pub fn spawn(mut command: Command) -> Child {
    type Job = (Command, Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    // SAFETY: prctl with these arguments touches no memory, and is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in jobs {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, result) = mpsc::channel();
    spawner.lock().expect("no panics").send((command, answer)).expect("the thread stays");
    result.recv().expect("the thread answers").expect("the program starts")
}

/// Runs a command to its end.
pub fn output(mut command: Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// What is started from here on ends at Ctrl-C, even where whoever started the tests ignores it, as a shell does
/// for what runs in the background.
pub fn heed_interrupts() {
    // SAFETY: signal(2) is given a default disposition and touches no memory of ours.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
}

pub fn kill(pid: u32, signal: i32) {
    // SAFETY: kill(2) touches no memory; the process is a child of ours that was not waited for.
    let result = unsafe { libc::kill(pid as i32, signal) };
    assert_eq!(result, 0, "kill {pid}");
}

/// Whether something is mounted at `path`, without touching it.
pub fn is_mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is there");
    let wanted = path.to_str().expect("test paths are text");
    table.lines().any(|line| line.split(' ').nth(4) == Some(wanted))
}

/// Ends all waiting of others for the mount and takes it out of the tree.
pub fn force_unmount(path: &Path) {
    for _ in 0..8 {
        if !is_mounted(path) {
            return;
        }
        let _ = unmount(path, UnmountFlags::FORCE | UnmountFlags::DETACH);
        if is_mounted(path) {
            let _ = Command::new("fusermount3").args(["-uz", "--"]).arg(path).output();
        }
    }
}

/// Kills the daemon when a test takes too long; what waits for the mount then fails.
pub struct Watchdog(Sender<()>);

impl Watchdog {
    pub fn start(pid: u32, mountpoint: PathBuf, deadline: Duration) -> Self {
        let (stop, stopped) = mpsc::channel();
        std::thread::spawn(move || {
            if stopped.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout) {
                eprintln!("DEADLINE: {deadline:?} are over, the daemon {pid} is killed; its threads:");
                eprintln!("{}", threads(pid));
                // SAFETY: the process is ours and was not waited for: a mount ends its watchdog first.
                unsafe { libc::kill(pid as i32, libc::SIGKILL) };
                force_unmount(&mountpoint);
            }
        });
        Self(stop)
    }
}

fn threads(pid: u32) -> String {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return "gone".into() };
    let one = |task: PathBuf| {
        let read = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default();
        format!("{:20} {:24} {}", read("comm").trim(), read("wchan"), read("syscall").trim())
    };
    tasks.flatten().map(|task| one(task.path())).collect::<Vec<_>>().join("\n")
}
