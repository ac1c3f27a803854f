//! Sentences of `docs/semantics.md` that only a kernel shows, over a file system in memory.

mod fuse_support;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use fuse_support::mounted;
use onedrivefs::fuse::Op;

/// The answer of a system call that returns 0 or sets errno.
fn answer(code: libc::c_int) -> Option<i32> {
    if code == 0 { None } else { io::Error::last_os_error().raw_os_error() }
}

fn flock(file: &File, operation: libc::c_int) -> Option<i32> {
    // SAFETY: the descriptor is that of an open file; flock touches no memory.
    answer(unsafe { libc::flock(file.as_raw_fd(), operation) })
}

// S5.
#[test]
fn syncfs_does_not_reach_a_fuse_file_system_and_fsync_does() {
    let Some((_dir, mounted)) = mounted() else { return };
    let mut file = File::create(mounted.path("a")).expect("create");
    file.write_all(b"x").expect("write");
    // SAFETY: the descriptor is that of an open file; syncfs touches no memory.
    assert_eq!(answer(unsafe { libc::syncfs(file.as_raw_fd()) }), None);
    assert_eq!(mounted.calls(Op::Fsync), 0);
    file.sync_all().expect("fsync");
    assert_eq!(mounted.calls(Op::Fsync), 1);
}

// S30.
#[test]
fn locks_hold_between_open_files_of_this_machine() {
    let Some((_dir, mounted)) = mounted() else { return };
    fs::write(mounted.path("a"), "x").expect("write");
    let open = || File::options().read(true).write(true).open(mounted.path("a")).expect("open");
    let (first, second) = (open(), open());
    assert_eq!(flock(&first, libc::LOCK_EX | libc::LOCK_NB), None);
    assert_eq!(flock(&second, libc::LOCK_SH | libc::LOCK_NB), Some(libc::EWOULDBLOCK));
    drop(first);
    assert_eq!(flock(&second, libc::LOCK_SH | libc::LOCK_NB), None);
    // Record locks, as of SQLite and of NFS clients; a process does not lock itself out.
    // SAFETY: all zeros is a lock of the whole file from its start.
    let mut whole: libc::flock = unsafe { std::mem::zeroed() };
    whole.l_type = libc::F_WRLCK as libc::c_short;
    // SAFETY: the descriptor is open and `whole` outlives the call.
    assert_eq!(answer(unsafe { libc::fcntl(second.as_raw_fd(), libc::F_OFD_SETLK, &whole) }), None);
    let third = open();
    // SAFETY: as above.
    let refused = answer(unsafe { libc::fcntl(third.as_raw_fd(), libc::F_OFD_SETLK, &whole) });
    assert_eq!(refused, Some(libc::EAGAIN));
}
