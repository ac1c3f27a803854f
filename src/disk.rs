//! Every durable file call under a step name, so that a test can fail, or kill the process, exactly there.
//!
//! A step is a name of the caller's (`"staging.write"`), not of the system call: "the rename in `adopt`" is
//! something a test can ask for. Production passes straight through.
//!
//! Two ways to interfere:
//! - [`Disk::with_hook`]: a test is asked before each step and may fail it;
//! - the environment variable `ONEDRIVEFS_TEST_CRASH=STEP:N` kills the process with SIGKILL at the Nth hit
//!   of STEP. It exists only in builds with debug assertions.
//!
//! Files are made readable by their owner only, directories too.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

mod file;
pub mod power;

pub use file::DiskFile;

/// What a step is about to do; for models of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// Makes a file that was not there.
    Create,
    /// Writes bytes.
    Write {
        /// First byte.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// Sets the length, or makes a hole, or reserves room: anything but plain bytes.
    Reshape,
    /// Makes the file's bytes and length durable.
    SyncFile,
    /// Makes the entries of a directory durable.
    SyncDir,
    /// Gives the file another name.
    Rename {
        /// The new name.
        to: &'a Path,
    },
    /// Gives the file a second name.
    Link {
        /// The second name.
        to: &'a Path,
    },
    /// Takes the name away.
    Unlink,
    /// Makes a directory and its parents.
    MakeDir,
    /// Reads bytes.
    Read,
    /// Commits a transaction of the database at this path, which makes its file calls itself.
    Commit,
}

/// A test's hand in the disk.
pub trait DiskHook: Send + Sync {
    /// Called before each step on `path`; an error is returned to the caller in place of the call.
    fn before(&self, step: &'static str, path: &Path) -> io::Result<()> {
        let _ = (step, path);
        Ok(())
    }

    /// What [`Disk::keeps_unsynced`] says in place of the machine.
    fn keeps_unsynced(&self) -> Option<bool> {
        None
    }

    /// Called after [`DiskHook::before`] allowed it: what is going to happen.
    fn about_to(&self, path: &Path, call: Call<'_>) {
        let _ = (path, call);
    }
}

/// The disk, or a test's idea of it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Disk {
    hook: Option<Arc<dyn DiskHook>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.hook.is_some() { "Disk(hooked)" } else { "Disk" })
    }
}

/// What [`Disk::reflink_or_copy`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// The new file shares the blocks of the old one.
    Reflink,
    /// The bytes were copied; holes stayed holes.
    Bytes,
}

/// What the disk says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Length in bytes.
    pub len: u64,
    /// Bytes allocated on the disk.
    pub allocated: u64,
    /// Inode number.
    pub ino: u64,
    /// How many names it has.
    pub links: u64,
    /// Time of the last change of bytes, in nanoseconds since 1970.
    pub mtime_nanos: i128,
    /// Time of the last change of anything, in nanoseconds since 1970.
    pub ctime_nanos: i128,
    /// A regular file.
    pub is_file: bool,
}

impl From<Metadata> for Stat {
    fn from(meta: Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            len: meta.len(),
            allocated: meta.blocks() * 512,
            ino: meta.ino(),
            links: meta.nlink(),
            mtime_nanos: nanos(meta.mtime(), meta.mtime_nsec()),
            ctime_nanos: nanos(meta.ctime(), meta.ctime_nsec()),
            is_file: meta.is_file(),
        }
    }
}

impl Disk {
    /// The machine's own disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk that asks `hook` before each step.
    pub fn with_hook(hook: Arc<dyn DiskHook>) -> Self {
        Self { hook: Some(hook) }
    }

    fn step(&self, step: &'static str, path: &Path, call: Call<'_>) -> io::Result<()> {
        #[cfg(debug_assertions)]
        crash::at(step);
        if let Some(hook) = &self.hook {
            hook.before(step, path)?;
            hook.about_to(path, call);
        }
        Ok(())
    }

    /// The moment before a database commits: it makes its file calls itself, so a test fails them here as one.
    pub fn before_commit(&self, step: &'static str, database: &Path) -> io::Result<()> {
        self.step(step, database, Call::Commit)
    }

    /// Makes `path`, which must not exist, for reading and writing.
    pub fn create(&self, step: &'static str, path: &Path) -> io::Result<DiskFile> {
        self.step(step, path, Call::Create)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(DiskFile { disk: self.clone(), path: path.into(), file })
    }

    /// Opens an existing file for reading and writing.
    pub fn open(&self, path: &Path) -> io::Result<DiskFile> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(DiskFile { disk: self.clone(), path: path.into(), file })
    }

    /// Opens an existing file for reading.
    pub fn open_read(&self, path: &Path) -> io::Result<DiskFile> {
        Ok(DiskFile { disk: self.clone(), path: path.into(), file: File::open(path)? })
    }

    /// Makes a directory and its missing parents, for the owner only.
    pub fn create_dir_all(&self, step: &'static str, path: &Path) -> io::Result<()> {
        self.step(step, path, Call::MakeDir)?;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    /// Makes the entries of a directory durable.
    pub fn sync_dir(&self, step: &'static str, path: &Path) -> io::Result<()> {
        self.step(step, path, Call::SyncDir)?;
        File::open(path)?.sync_all()
    }

    /// Renames, replacing what had the name `to`.
    pub fn rename(&self, step: &'static str, from: &Path, to: &Path) -> io::Result<()> {
        self.step(step, from, Call::Rename { to })?;
        std::fs::rename(from, to)
    }

    /// Gives `from` the second name `to`.
    pub fn link(&self, step: &'static str, from: &Path, to: &Path) -> io::Result<()> {
        self.step(step, from, Call::Link { to })?;
        std::fs::hard_link(from, to)
    }

    /// Takes a name away; that it is not there is no error.
    pub fn unlink(&self, step: &'static str, path: &Path) -> io::Result<()> {
        self.step(step, path, Call::Unlink)?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Makes `to`, which must not exist, with the bytes of `from`, sharing blocks where the file system can.
    ///
    /// On an error `to` is gone again. Nothing is synced.
    pub fn reflink_or_copy(&self, step: &'static str, from: &Path, to: &Path) -> io::Result<Copied> {
        let source = self.open_read(from)?;
        let target = self.create(step, to)?;
        let outcome = source.clone_into(step, &target);
        if outcome.is_err() {
            // The copy is worthless; the error that made it so is the one to report.
            let _ = std::fs::remove_file(to);
        }
        outcome
    }

    /// Makes `to`, which must not exist, share the blocks of `from`. False, and no `to`, where the file system
    /// cannot do that.
    pub fn reflink(&self, step: &'static str, from: &Path, to: &Path) -> io::Result<bool> {
        let source = self.open_read(from)?;
        let target = self.create(step, to)?;
        let shared = self.step(step, to, Call::Reshape).map(|()| source.reflink(&target).is_ok());
        if !matches!(shared, Ok(true)) {
            std::fs::remove_file(to)?;
        }
        shared
    }

    /// What the disk says of `path` (of the link itself, if it is one).
    pub fn stat(&self, path: &Path) -> io::Result<Stat> {
        std::fs::symlink_metadata(path).map(Stat::from)
    }

    /// The names in a directory, unordered.
    pub fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    /// Whether the file system of `path` is known to keep in memory what a sync could not write, as it was written. It
    /// takes it for written all the same.
    #[allow(unsafe_code)]
    pub fn keeps_unsynced(&self, path: &Path) -> bool {
        use std::os::unix::ffi::OsStrExt;
        /// ext2 to ext4, XFS, and what is memory anyway. The C libraries differ in the type.
        #[allow(clippy::unnecessary_cast)]
        const KEEPERS: [i64; 3] =
            [libc::EXT4_SUPER_MAGIC as i64, libc::XFS_SUPER_MAGIC as i64, libc::TMPFS_MAGIC as i64];
        if let Some(told) = self.hook.as_ref().and_then(|hook| hook.keeps_unsynced()) {
            return told;
        }
        let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return false };
        let mut out = std::mem::MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: `path` ends in NUL and `out` has room for one statfs; both outlive the call.
        if check(unsafe { libc::statfs(path.as_ptr(), out.as_mut_ptr()) }).is_err() {
            return false;
        }
        // SAFETY: the call above succeeded, so it filled `out`.
        let out = unsafe { out.assume_init() };
        #[allow(clippy::unnecessary_cast)]
        KEEPERS.contains(&(out.f_type as i64))
    }

    /// Bytes that an unprivileged program may still write on the file system of `path`.
    #[allow(clippy::unnecessary_cast)]
    pub fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let file_system = file_system(path)?;
        Ok((file_system.f_bavail as u64).saturating_mul(file_system.f_frsize as u64))
    }

    /// Bytes of the file system of `path`, free or not.
    #[allow(clippy::unnecessary_cast)]
    pub fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        let file_system = file_system(path)?;
        Ok((file_system.f_blocks as u64).saturating_mul(file_system.f_frsize as u64))
    }
}

/// This boot of the machine: what is not synced does not outlive it.
///
/// Builds with debug assertions take it from `ONEDRIVEFS_TEST_BOOT` where that is set: a power cut without one.
pub fn boot_id() -> String {
    #[cfg(debug_assertions)]
    if let Ok(boot) = std::env::var("ONEDRIVEFS_TEST_BOOT") {
        return boot;
    }
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// The disk has no room (or the user's quota of it is used up).
pub fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

/// What the kernel says of the file system of `path`.
#[allow(unsafe_code)]
fn file_system(path: &Path) -> io::Result<libc::statvfs> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut out = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends in NUL and `out` has room for one statvfs; both outlive the call.
    check(unsafe { libc::statvfs(path.as_ptr(), out.as_mut_ptr()) })?;
    // SAFETY: the call above succeeded, so it filled `out`.
    Ok(unsafe { out.assume_init() })
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(debug_assertions)]
mod crash {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Target {
        step: String,
        hits_left: AtomicU64,
    }

    static TARGET: OnceLock<Option<Target>> = OnceLock::new();

    /// Kills this process if the environment says that this hit of `step` is the one.
    pub(super) fn at(step: &str) {
        let target = TARGET.get_or_init(|| {
            let value = std::env::var("ONEDRIVEFS_TEST_CRASH").ok()?;
            let (step, count) = value.rsplit_once(':')?;
            Some(Target { step: step.to_owned(), hits_left: AtomicU64::new(count.parse().ok()?) })
        });
        if let Some(target) = target
            && target.step == step
            && target.hits_left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            die();
        }
    }

    #[allow(unsafe_code)]
    fn die() {
        // SAFETY: signals this process only; SIGKILL runs no handler, so no state is touched.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    struct FailStep(&'static str, Mutex<Vec<&'static str>>);

    impl DiskHook for FailStep {
        fn before(&self, step: &'static str, _path: &Path) -> io::Result<()> {
            self.1.lock().expect("not poisoned").push(step);
            if step == self.0 { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
        }
    }

    #[test]
    fn a_hook_fails_exactly_the_step_it_names() {
        let dir = tempfile::tempdir().expect("a directory");
        let hook = Arc::new(FailStep("two", Mutex::default()));
        let disk = Disk::with_hook(hook.clone());
        let file = disk.create("one", &dir.path().join("f")).expect("allowed");
        assert_eq!(file.write_at("two", b"x", 0).unwrap_err().raw_os_error(), Some(libc::EIO));
        file.write_at("three", b"x", 0).expect("allowed");
        assert_eq!(*hook.1.lock().expect("not poisoned"), ["one", "two", "three"]);
    }

    #[test]
    fn a_copy_has_the_same_bytes_and_keeps_holes() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::new();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        let file = disk.create("t", &from).expect("created");
        file.set_len("t", 64 << 20).expect("extended");
        file.write_at("t", b"middle", 32 << 20).expect("written");
        disk.reflink_or_copy("t", &from, &to).expect("copied");
        let copy = disk.open_read(&to).expect("there");
        let mut buf = [0u8; 6];
        copy.read_at("t", &mut buf, 32 << 20).expect("read");
        assert_eq!(&buf, b"middle");
        let stat = copy.stat().expect("stat");
        assert_eq!(stat.len, 64 << 20);
        assert!(stat.allocated < 8 << 20, "holes were filled: {}", stat.allocated);
        assert!(disk.reflink_or_copy("t", &from, &to).is_err(), "never overwrites");
    }

    #[test]
    fn holes_and_data_are_found_and_punched() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = Disk::new().create("t", &dir.path().join("f")).expect("created");
        file.write_at("t", &[1; 1 << 20], 0).expect("written");
        file.punch_hole("t", 0, 512 << 10).expect("punched");
        assert_eq!(file.stat().expect("stat").len, 1 << 20);
        let mut buf = [9u8; 16];
        file.read_at("t", &mut buf, 0).expect("read");
        assert_eq!(buf, [0; 16]);
        assert_eq!(file.seek_data(2 << 20).expect("seek"), None);
        assert!(file.seek_data(0).expect("seek").is_some());
        file.punch_hole("t", 2 << 20, 10).expect("beyond the end is no error");
        assert!(Disk::new().free_bytes(dir.path()).expect("statvfs") > 0);
    }

    /// The kernel tells the holder of a lease by a signal whose default is to end the process.
    #[test]
    fn who_asks_for_writers_while_one_comes_lives_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lent");
        let file = Disk::new().create("t", &path).unwrap();
        let lent = file.reopen_for_reading().unwrap();
        assert!(lent.has_writers());
        drop(file);
        assert!(!lent.has_writers());
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for _ in 0..2000 {
                    std::fs::File::options().write(true).open(&path).unwrap();
                }
            });
            while !writer.is_finished() {
                lent.has_writers();
            }
        });
        assert!(!lent.has_writers());
    }
}
