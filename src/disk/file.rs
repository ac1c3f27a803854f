//! An open file, step by step.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Call, Copied, Disk, Stat, check};

/// Bytes copied or zeroed at once.
const CHUNK: usize = 1 << 20;
/// Which signal the kernel sends about a descriptor (fcntl(2), Linux).
const F_SETSIG: libc::c_int = 10;

/// An open file whose changes are steps.
#[derive(Debug)]
pub struct DiskFile {
    pub(super) disk: Disk,
    pub(super) path: PathBuf,
    pub(super) file: File,
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

    /// Another descriptor of the same file, which need not have a name any more, for reading only.
    pub fn reopen_for_reading(&self) -> io::Result<Self> {
        self.reopened(File::options().read(true))
    }

    /// Another descriptor of the same file, for reading and writing.
    pub fn reopen_for_writing(&self) -> io::Result<Self> {
        self.reopened(File::options().read(true).write(true))
    }

    fn reopened(&self, options: &OpenOptions) -> io::Result<Self> {
        let file = options.open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))?;
        Ok(Self { disk: self.disk.clone(), path: self.path.clone(), file })
    }

    /// Whether the file can be read past the page cache (O_DIRECT), as a program may ask for.
    pub fn takes_direct_reads(&self) -> bool {
        let mut options = File::options();
        std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true), libc::O_DIRECT);
        self.reopened(&options).is_ok()
    }

    /// Whether anyone has it open, or mapped, for writing. This one must be open for reading only.
    ///
    /// False where the file system cannot tell.
    #[allow(unsafe_code)]
    pub fn has_writers(&self) -> bool {
        // SAFETY: the descriptor is owned by `self.file`, open for all calls; no memory is passed.
        let control =
            |what, value: libc::c_int| check(unsafe { libc::fcntl(self.file.as_raw_fd(), what, value) });
        // Who opens it for writing meanwhile has the kernel signal the lease's holder: with one that nobody heeds, not
        // with SIGIO, which ends a process.
        if control(F_SETSIG, libc::SIGURG).is_err() {
            return false;
        }
        // A lease for reading is given only on a file that nobody can write to.
        match control(libc::F_SETLEASE, libc::F_RDLCK) {
            Ok(_) => {
                let _ = control(libc::F_SETLEASE, libc::F_UNLCK);
                false
            }
            Err(error) => error.raw_os_error() == Some(libc::EAGAIN),
        }
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
    pub(super) fn clone_into(&self, step: &'static str, target: &DiskFile) -> io::Result<Copied> {
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
    pub(super) fn reflink(&self, target: &DiskFile) -> io::Result<()> {
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

fn no_kernel_copy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EXDEV | libc::ENOSYS | libc::EOPNOTSUPP | libc::EINVAL))
}

fn signed(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}
