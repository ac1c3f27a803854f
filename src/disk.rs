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
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

#[cfg(debug_assertions)]
pub mod power;

/// Bytes of a stretch copied or zeroed at once.
const CHUNK: usize = 1 << 20;

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
}

/// A test's hand in the disk.
pub trait DiskHook: Send + Sync {
    /// Called before each step on `path`; an error is returned to the caller in place of the call.
    fn before(&self, step: &'static str, path: &Path) -> io::Result<()> {
        let _ = (step, path);
        Ok(())
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

    /// Bytes that an unprivileged program may still write on the file system of `path`.
    #[allow(unsafe_code)]
    pub fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        use std::os::unix::ffi::OsStrExt;
        let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
        let mut out = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: `path` ends in NUL and `out` has room for one statvfs; both outlive the call.
        check(unsafe { libc::statvfs(path.as_ptr(), out.as_mut_ptr()) })?;
        // SAFETY: the call above succeeded, so it filled `out`.
        let out = unsafe { out.assume_init() };
        #[allow(clippy::unnecessary_cast)]
        Ok((out.f_bavail as u64).saturating_mul(out.f_frsize as u64))
    }
}

/// An open file whose changes are steps.
#[derive(Debug)]
pub struct DiskFile {
    disk: Disk,
    path: PathBuf,
    file: File,
}

impl DiskFile {
    /// The name it was opened under.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor, to hand to the kernel.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Reads up to `buf.len()` bytes; fewer only at the end of the file.
    pub fn read_at(&self, step: &'static str, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.step(step, &self.path, Call::Read)?;
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes all of `buf`. On an error some of it may have been written.
    pub fn write_at(&self, step: &'static str, buf: &[u8], offset: u64) -> io::Result<()> {
        self.disk.step(step, &self.path, Call::Write { offset, len: buf.len() as u64 })?;
        self.file.write_all_at(buf, offset)
    }

    /// Cuts or extends (with zeros) to `len` bytes.
    pub fn set_len(&self, step: &'static str, len: u64) -> io::Result<()> {
        self.disk.step(step, &self.path, Call::Reshape)?;
        self.file.set_len(len)
    }

    /// Makes bytes and length durable.
    pub fn sync_data(&self, step: &'static str) -> io::Result<()> {
        self.disk.step(step, &self.path, Call::SyncFile)?;
        self.file.sync_data()
    }

    /// Makes bytes, length and attributes durable.
    pub fn sync_all(&self, step: &'static str) -> io::Result<()> {
        self.disk.step(step, &self.path, Call::SyncFile)?;
        self.file.sync_all()
    }

    /// Makes `len` bytes from `offset` a hole, without changing the length; writes zeros where the file
    /// system has no holes.
    pub fn punch_hole(&self, step: &'static str, offset: u64, len: u64) -> io::Result<()> {
        self.disk.step(step, &self.path, Call::Reshape)?;
        let end = offset.saturating_add(len).min(self.file.metadata()?.len());
        if end <= offset {
            return Ok(());
        }
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        match self.fallocate_raw(mode, offset, end - offset) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                let zeros = vec![0u8; CHUNK.min((end - offset) as usize)];
                let mut at = offset;
                while at < end {
                    let count = zeros.len().min((end - at) as usize);
                    self.file.write_all_at(&zeros[..count], at)?;
                    at += count as u64;
                }
                Ok(())
            }
            other => other,
        }
    }

    /// Reserves room for `len` bytes from `offset`; extends the length unless `keep_len`.
    ///
    /// Where the file system cannot reserve, only the length is extended.
    pub fn fallocate(&self, step: &'static str, offset: u64, len: u64, keep_len: bool) -> io::Result<()> {
        self.disk.step(step, &self.path, Call::Reshape)?;
        if len == 0 {
            return Ok(());
        }
        let mode = if keep_len { libc::FALLOC_FL_KEEP_SIZE } else { 0 };
        match self.fallocate_raw(mode, offset, len) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                let end = offset.saturating_add(len);
                if !keep_len && end > self.file.metadata()?.len() { self.file.set_len(end) } else { Ok(()) }
            }
            other => other,
        }
    }

    #[allow(unsafe_code)]
    fn fallocate_raw(&self, mode: libc::c_int, offset: u64, len: u64) -> io::Result<()> {
        let (offset, len) = (signed(offset)?, signed(len)?);
        // SAFETY: the descriptor is owned by `self.file`, open for this call; no memory is passed.
        check(unsafe { libc::fallocate(self.file.as_raw_fd(), mode, offset, len) }).map(drop)
    }

    /// The first byte of data at or after `offset`; none when only a hole follows.
    pub fn seek_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.seek(offset, libc::SEEK_DATA)
    }

    /// The first byte of a hole at or after `offset` (the end of the file counts as one); none beyond the end.
    pub fn seek_hole(&self, offset: u64) -> io::Result<Option<u64>> {
        self.seek(offset, libc::SEEK_HOLE)
    }

    #[allow(unsafe_code)]
    fn seek(&self, offset: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
        // SAFETY: the descriptor is owned by `self.file`, open for this call; no memory is passed. The
        // file position it moves is used by nobody: all reads and writes here name their offset.
        let found = unsafe { libc::lseek(self.file.as_raw_fd(), signed(offset)?, whence) };
        if found >= 0 {
            return Ok(Some(found as u64));
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ENXIO) { Ok(None) } else { Err(error) }
    }

    /// What the disk says of this file.
    pub fn stat(&self) -> io::Result<Stat> {
        self.file.metadata().map(Stat::from)
    }

    /// Sets the time of last modification (used as time of last use in the cache).
    pub fn set_modified(&self, step: &'static str, time: SystemTime) -> io::Result<()> {
        self.disk.step(step, &self.path, Call::Reshape)?;
        self.file.set_modified(time)
    }

    /// Copies all of this file into the empty file `target`, by reflink where possible.
    fn clone_into(&self, step: &'static str, target: &DiskFile) -> io::Result<Copied> {
        self.disk.step(step, &target.path, Call::Reshape)?;
        if self.reflink(target).is_ok() {
            return Ok(Copied::Reflink);
        }
        let len = self.file.metadata()?.len();
        target.set_len(step, len)?;
        let mut at = 0;
        while let Some(start) = self.seek_data(at)? {
            at = self.seek_hole(start)?.unwrap_or(len).min(len);
            self.copy_extent(step, target, start, at)?;
            if at >= len {
                break;
            }
        }
        Ok(Copied::Bytes)
    }

    #[allow(unsafe_code)]
    fn reflink(&self, target: &DiskFile) -> io::Result<()> {
        // SAFETY: both descriptors are owned by their files and open for this call; FICLONE takes the
        // source descriptor by value and no memory.
        check(unsafe { libc::ioctl(target.file.as_raw_fd(), libc::FICLONE, self.file.as_raw_fd()) }).map(drop)
    }

    fn copy_extent(&self, step: &'static str, target: &DiskFile, start: u64, end: u64) -> io::Result<()> {
        self.disk.step(step, &target.path, Call::Write { offset: start, len: end - start })?;
        let mut at = start;
        while at < end {
            match self.copy_range(target, at, end - at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => at += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if no_kernel_copy(&error) => return self.copy_bytes(target, at, end),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    #[allow(unsafe_code)]
    fn copy_range(&self, target: &DiskFile, at: u64, len: u64) -> io::Result<u64> {
        let (mut from, mut to) = (signed(at)?, signed(at)?);
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(1 << 30);
        let (source, target) = (self.file.as_raw_fd(), target.file.as_raw_fd());
        // SAFETY: both descriptors are owned by their files and open for this call; `from` and `to` are
        // valid for the call, which updates them.
        let count = unsafe { libc::copy_file_range(source, &mut from, target, &mut to, len, 0) };
        u64::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    fn copy_bytes(&self, target: &DiskFile, start: u64, end: u64) -> io::Result<()> {
        let mut buf = vec![0u8; CHUNK];
        let mut at = start;
        while at < end {
            let want = buf.len().min((end - at) as usize);
            self.file.read_exact_at(&mut buf[..want], at)?;
            target.file.write_all_at(&buf[..want], at)?;
            at += want as u64;
        }
        Ok(())
    }
}

/// This boot of the machine: what is not synced does not outlive it.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// The disk has no room (or the user's quota of it is used up).
pub fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

fn no_kernel_copy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EXDEV | libc::ENOSYS | libc::EOPNOTSUPP | libc::EINVAL))
}

fn signed(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
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
}
