//! A disk with a write cache that a power cut empties: a file behind a small FUSE server, which a loop device makes a
//! disk of. What the file system above wrote is on the disk once it asked for a flush, and not before.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};

use crate::disks::run;
use crate::mounted_support::random::Random;
use crate::mounted_support::until;

/// What a disk writes as a whole.
const SECTOR: usize = 4096;
const NAME: &str = "disk";
const FILE: INodeNo = INodeNo(2);

/// What becomes of what is in the cache when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All of it is gone.
    Clean,
    /// What was written first is there, up to some point.
    InOrder,
    /// Any of its sectors are there.
    AnyOrder,
    /// All of it is there.
    Nothing,
}

/// The server of one disk. Nothing in this process may use the file system on it: it would wait for itself.
pub struct VolatileDisk {
    state: Arc<Mutex<State>>,
    dir: PathBuf,
    /// Unmounts when dropped.
    _session: BackgroundSession,
}

struct State {
    /// As the machine sees it.
    live: File,
    /// As it is without power.
    stable: File,
    len: u64,
    /// What is in `live` and not in `stable`, in order.
    cache: Vec<(u64, Vec<u8>)>,
    /// The power is gone: `stable` and `cache` stay as they are.
    is_off: bool,
    /// Writes until that.
    left: Option<u64>,
    opened: u64,
}

impl VolatileDisk {
    /// A disk of so many MiB with an ext4, served below `dir`.
    pub fn new(dir: &Path, mib: u64) -> Self {
        let served = dir.join("served");
        fs::create_dir_all(&served).expect("a directory");
        let stable = dir.join("stable");
        File::create(&stable).and_then(|file| file.set_len(mib << 20)).expect("there is room");
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-b", "4096"]).arg(&stable));
        let state = Arc::new(Mutex::new(State::of(dir).expect("it was just made")));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("volatile".into())];
        let session =
            fuser::spawn_mount(Server(state.clone()), &served, &config).expect("/dev/fuse is there");
        Self { state, dir: dir.to_owned(), _session: session }
    }

    /// The file to make a loop device of.
    pub fn image(&self) -> PathBuf {
        self.dir.join("served").join(NAME)
    }

    /// The power goes with the write after so many more (or soon, if none comes), so that the cache is not empty.
    /// Whoever still runs is told that nothing more can be written.
    pub fn cut_after(&self, writes: u64) {
        self.lock().left = Some(writes);
        until(Duration::from_secs(2), || self.lock().is_off);
        self.lock().is_off = true;
    }

    /// The power is back, after all that used the disk has ended: how many writes were in the cache.
    pub fn start_again(&self, how: Cut, random: &mut Random) -> usize {
        let free = until(Duration::from_secs(60), || self.lock().opened == 0);
        assert!(free, "a loop device still holds the disk");
        let mut state = self.lock();
        let cache = std::mem::take(&mut state.cache);
        let count = cache.len();
        let ends = random.below(count as u64 + 1) as usize;
        for (number, (offset, bytes)) in cache.into_iter().enumerate() {
            for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                let is_there = match how {
                    Cut::Clean => false,
                    Cut::InOrder => number < ends,
                    Cut::AnyOrder => random.below(2) == 0,
                    Cut::Nothing => true,
                };
                if is_there {
                    let at = offset + (index * SECTOR) as u64;
                    state.stable.write_all_at(sector, at).expect("there is room");
                }
            }
        }
        fs::remove_file(self.dir.join("live")).expect("it was made");
        *state = State::of(&self.dir).expect("there is room");
        count
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn of(dir: &Path) -> io::Result<Self> {
        let (stable, live) = (dir.join("stable"), dir.join("live"));
        onedrivefs::disk::Disk::new().reflink_or_copy("volatile", &stable, &live)?;
        let open = |path: &Path| File::options().read(true).write(true).open(path);
        let stable = open(&stable)?;
        let len = stable.metadata()?.len();
        Ok(Self { live: open(&live)?, stable, len, cache: Vec::new(), is_off: false, left: None, opened: 0 })
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.live.write_all_at(data, offset)?;
        self.cache.push((offset, data.to_vec()));
        self.is_off = self.left == Some(0);
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        if self.is_off { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.check()?;
        let cache = std::mem::take(&mut self.cache);
        cache.iter().try_for_each(|(offset, bytes)| self.stable.write_all_at(bytes, *offset))
    }

    fn attr(&self, ino: INodeNo) -> FileAttr {
        let (kind, perm, size) = match ino {
            INodeNo::ROOT => (FileType::Directory, 0o700, 0),
            _ => (FileType::RegularFile, 0o600, self.len),
        };
        let time = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: SECTOR as u32,
            flags: 0,
        }
    }
}

/// One thread answers, so that a flush covers what was answered before it.
struct Server(Arc<Mutex<State>>);

impl Server {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const LONG: Duration = Duration::from_secs(3600);

fn errno(error: io::Error) -> Errno {
    Errno::from(error)
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == NAME {
            reply.entry(&LONG, &self.lock().attr(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&LONG, &self.lock().attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.lock().opened += 1;
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.lock().opened -= 1;
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.lock();
        let mut bytes = vec![0; u64::from(size).min(state.len.saturating_sub(offset)) as usize];
        match state.live.read_exact_at(&mut bytes, offset) {
            Ok(()) => reply.data(&bytes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.lock().write(offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.lock().flush() {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    /// Discards and zeros: the kernel writes zeros where it must.
    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }
}
