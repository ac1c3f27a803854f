//! Locks among processes of this machine.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::mounted_support::trace::same_as_local;
use crate::mounted_support::{Mounted, have, process, until};

/// Takes a record lock, says so, and waits for its end.
const HOLD: &str = "import fcntl, sys, time
f = open(sys.argv[1], 'r+')
fcntl.lockf(f, fcntl.LOCK_EX, 10, 0)
print('held', flush=True)
sys.stdin.read()";

/// Tries to lock bytes 5 to 15, then 20 to 30.
const TRY: &str = "import fcntl, sys
f = open(sys.argv[1], 'r+')
for at in (5, 20):
    try:
        fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, at)
        print('free')
    except OSError as e:
        print('busy')";

/// Waits for the lock of bytes 5 to 15.
const WAIT: &str = "import fcntl, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
f = open(sys.argv[1], 'r+')
print('waits', flush=True)
fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)
print('has it', flush=True)";

fn python(script: &str, path: &Path) -> Child {
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().expect("python3 starts")
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("it is piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("it says something");
    line
}

/// The process sleeps in a lock call.
fn waits_for_lock(pid: u32) -> bool {
    let place = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let call = place.split(' ').next().and_then(|number| number.parse().ok());
    call == Some(libc::SYS_flock) || call == Some(libc::SYS_fcntl)
}

fn interrupt(child: &mut Child) -> Option<i32> {
    assert!(until(Duration::from_secs(10), || waits_for_lock(child.id())), "it does not wait");
    process::kill(child.id(), libc::SIGINT);
    assert!(
        until(Duration::from_secs(1), || child.try_wait().expect("ours").is_some()),
        "Ctrl-C does nothing"
    );
    child.wait().expect("ours").signal()
}

// S30.
#[test]
fn whole_file_locks_hold_among_processes_and_can_be_interrupted() {
    process::heed_interrupts();
    if !have(&["flock"]) {
        return;
    }
    same_as_local("flock", |dir, t| {
        let path = dir.join("file");
        fs::write(&path, "x").expect("a file");
        let held = fs::File::open(&path).expect("it opens");
        t.done("exclusive", flock(&held, FlockOperation::LockExclusive));
        let other = fs::File::open(&path).expect("it opens");
        t.call("another handle", flock(&other, FlockOperation::NonBlockingLockShared));
        let run = |options: &[&str]| {
            let mut command = Command::new("flock");
            command.args(options).arg(&path).arg("true");
            command
        };
        t.note("another process", run(&["-n"]).status().expect("it runs").code());
        let mut waiting = run(&[]).spawn().expect("it runs");
        t.note("Ctrl-C while waiting", interrupt(&mut waiting));
        let mut waiting = run(&[]).spawn().expect("it runs");
        assert!(until(Duration::from_secs(10), || waits_for_lock(waiting.id())));
        t.done("unlock", flock(&held, FlockOperation::Unlock));
        t.note("the waiting one gets it", waiting.wait().expect("ours").code());
        t.done("shared", flock(&held, FlockOperation::LockShared));
        t.call("and shared", flock(&other, FlockOperation::NonBlockingLockShared));
        t.call("not exclusive", flock(&other, FlockOperation::NonBlockingLockExclusive));
        drop((held, other));
        t.note("closing unlocks", run(&["-n"]).status().expect("it runs").code());
    });
}

#[test]
fn record_locks_hold_among_processes_and_can_be_interrupted() {
    if !have(&["python3"]) {
        return;
    }
    same_as_local("fcntl", |dir, t| {
        let path = dir.join("file");
        fs::write(&path, [b'x'; 100]).expect("a file");
        let mut holder = python(HOLD, &path);
        t.note("holder", first_line(&mut holder));
        let tries = python(TRY, &path).wait_with_output().expect("it runs");
        t.note("others", String::from_utf8(tries.stdout));
        let mut waiting = python(WAIT, &path);
        t.note("waiting", first_line(&mut waiting));
        t.note("Ctrl-C while waiting", interrupt(&mut waiting));
        let mut waiting = python(WAIT, &path);
        t.note("waiting", first_line(&mut waiting));
        assert!(until(Duration::from_secs(10), || waits_for_lock(waiting.id())));
        holder.kill().expect("ours");
        holder.wait().expect("ours");
        t.note("the end of the holder frees it", waiting.wait().expect("ours").code());
    });
}

#[test]
fn a_lock_of_one_file_does_not_hold_another() {
    let Some(mounted) = Mounted::shared() else { return };
    for name in ["locked", "free"] {
        fs::write(mounted.path(name), "x").expect("a file");
    }
    let locked = fs::File::open(mounted.path("locked")).expect("it opens");
    flock(&locked, FlockOperation::LockExclusive).expect("a lock");
    let free = fs::File::open(mounted.path("free")).expect("it opens");
    assert_eq!(flock(&free, FlockOperation::NonBlockingLockExclusive), Ok(()));
    let again = fs::File::open(mounted.path("locked")).expect("it opens");
    assert_eq!(flock(&again, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK));
}
