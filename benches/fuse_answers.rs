//! Rates of answers given on the thread that read the request, against answers given by a task.
//!
//! `cargo bench --bench fuse_answers`: each request reaches the daemon (O_DIRECT reads of 4 KiB, forced stat).

#[path = "../tests/fuse_support/mod.rs"]
mod fuse_support;

use std::ffi::CString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use fuse_support::{Memory, can_mount, mount_with, options};
use onedrivefs::fuse::Limits;

const REQUESTS: u32 = 30_000;
const ROUNDS: usize = 5;

fn main() {
    if !can_mount() {
        return;
    }
    let mut rates = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for always_waits in [false, true] {
            let dir = tempfile::tempdir().expect("a directory");
            let mut files = Memory::new();
            files.always_waits = always_waits;
            files.put("a", &vec![7; 1 << 20]);
            let mounted = mount_with(files, &options(dir.path()), Limits::default()).expect("it mounts");
            rates[usize::from(always_waits)].push(reads(&mounted.path("a")));
            rates[2 + usize::from(always_waits)].push(stats(&mounted.path("a")));
        }
    }
    let [read_now, read_task, stat_now, stat_task] = rates.map(median);
    println!("4 KiB reads/s: now {read_now:.0}, task {read_task:.0}, ratio {:.2}", read_now / read_task);
    println!("stat/s:        now {stat_now:.0}, task {stat_task:.0}, ratio {:.2}", stat_now / stat_task);
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn reads(path: &Path) -> f64 {
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path).expect("open");
    // O_DIRECT wants an aligned buffer.
    let mut space = vec![0; 8192];
    let start = space.as_ptr().align_offset(4096);
    let buffer = &mut space[start..start + 4096];
    rate(|n| assert_eq!(file.read_at(buffer, u64::from(n % 256) * 4096).expect("read"), 4096))
}

fn stats(path: &Path) -> f64 {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
    rate(|_| {
        let mut found = std::mem::MaybeUninit::<libc::statx>::uninit();
        let (flags, mask) = (libc::AT_STATX_FORCE_SYNC, libc::STATX_BASIC_STATS);
        // SAFETY: the path is NUL-terminated, and the kernel writes at most one statx.
        let code = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, mask, found.as_mut_ptr()) };
        assert_eq!(code, 0);
    })
}

fn rate(mut request: impl FnMut(u32)) -> f64 {
    let start = Instant::now();
    (0..REQUESTS).for_each(&mut request);
    f64::from(REQUESTS) / start.elapsed().as_secs_f64()
}
