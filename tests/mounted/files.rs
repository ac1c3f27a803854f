//! Opening, reading, writing and changing the content of files.

use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::ptr;

use onedrivefs::emulator::Flavour;
use rustix::fs::{self as rfs, CWD, FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, pread, pwrite, read, write};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

use crate::mounted_support::trace::{Trace, same_as_local};
use crate::mounted_support::{Mounted, Options};

const RW: OFlags = OFlags::RDWR;

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    rfs::open(path, flags, Mode::from_raw_mode(0o640))
}

fn create(path: &Path, content: &[u8]) -> OwnedFd {
    let file = open(path, RW | OFlags::CREATE | OFlags::TRUNC).expect("a file");
    assert_eq!(pwrite(&file, content, 0), Ok(content.len()));
    file
}

fn contents(path: &Path) -> Result<String, std::io::Error> {
    std::fs::read(path).map(|bytes| bytes.escape_ascii().to_string())
}

fn size(file: &OwnedFd) -> i64 {
    rfs::fstat(file).expect("it is open").st_size
}

#[test]
fn create_honours_exclusive_truncate_and_append() {
    same_as_local("create", |dir, t| {
        let path = dir.join("file");
        t.done("open missing", open(&path, RW));
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let file = t.done("create", open(&path, new)).expect("it is new");
        t.call("write", write(&file, b"0123456789"));
        t.call("read of a file for writing", pread(&file, &mut [0; 4], 0));
        drop(file);
        t.done("create again", open(&path, new));
        t.done("create in nothing", open(&dir.join("no/file"), new));
        t.done("create in a file", open(&path.join("below"), new));
        t.done("a directory for writing", open(dir, RW));
        t.done("a file as directory", open(&path, OFlags::RDONLY | OFlags::DIRECTORY));
        let appending = open(&path, OFlags::WRONLY | OFlags::APPEND).expect("it is there");
        let other = open(&path, RW).expect("it is there");
        t.call("pwrite ignores the offset", pwrite(&appending, b"abc", 0));
        t.call("write by another", pwrite(&other, b"XYZ", 13));
        t.call("append goes behind it", write(&appending, b"def"));
        t.call("content", contents(&path));
        let truncated = open(&path, OFlags::WRONLY | OFlags::TRUNC);
        t.done("truncating open", truncated);
        t.note("size", size(&other));
        t.call("others go on", pwrite(&other, b"new", 2));
        drop((appending, other));
        t.call("content", contents(&path));
    });
}

#[test]
fn reads_and_writes_work_at_any_offset() {
    same_as_local("offsets", |dir, t| {
        let path = dir.join("file");
        let file = create(&path, b"");
        let mut expected = Vec::new();
        // Offsets around pages and blocks, overlapping, backwards, far apart.
        for (round, offset) in
            [0u64, 4095, 4096, 1, 1 << 20, (1 << 20) - 3, 131_071, 300_000].iter().enumerate()
        {
            let data: Vec<u8> = (0..5000u32).map(|at| (at as u8).wrapping_mul(31) ^ round as u8).collect();
            t.call("pwrite", pwrite(&file, &data, *offset));
            let end = *offset as usize + data.len();
            expected.resize(end.max(expected.len()), 0);
            expected[*offset as usize..end].copy_from_slice(&data);
            let mut back = vec![0; 6000];
            let got = t.call("pread", pread(&file, &mut back, offset.saturating_sub(500))).unwrap_or(0);
            let from = offset.saturating_sub(500) as usize;
            assert_eq!(back[..got], expected[from..from + got], "{dir:?} round {round}");
        }
        t.call("read at the end", pread(&file, &mut [0; 10], expected.len() as u64));
        t.call("read behind it", pread(&file, &mut [0; 10], 1 << 40));
        drop(file);
        assert_eq!(std::fs::read(&path).expect("it can be read"), expected);
        let file = open(&path, OFlags::RDONLY).expect("it is there");
        t.call("write through a reader", pwrite(&file, b"x", 0));
        t.call("seek to the end", rfs::seek(&file, SeekFrom::End(-5)));
        t.call("read the rest", read(&file, &mut [0; 10]));
        t.call("seek before the start", rfs::seek(&file, SeekFrom::Current(-1 << 40)));
    });
}

#[test]
fn truncate_shrinks_and_grows_by_path_and_by_handle() {
    same_as_local("truncate", |dir, t| {
        let path = dir.join("file");
        let file = create(&path, b"0123456789");
        t.done("shrink", rfs::ftruncate(&file, 4));
        t.done("grow", rfs::ftruncate(&file, 8));
        t.call("content", contents(&path));
        t.done("by path", std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(6)));
        t.call("content", contents(&path));
        t.done("far", rfs::ftruncate(&file, 5_000_000));
        t.done("and back", rfs::ftruncate(&file, 2));
        t.note("size", size(&file));
        let reader = open(&path, OFlags::RDONLY).expect("it is there");
        t.done("through a reader", rfs::ftruncate(&reader, 1));
        drop((file, reader));
        let c_path = std::ffi::CString::new(path.to_str().expect("text")).expect("no NUL");
        // SAFETY: the path ends with a NUL and outlives the call.
        let result = unsafe { libc::truncate(c_path.as_ptr(), 12) };
        t.note("truncate(2) of a closed file", result);
        t.call("content", contents(&path));
    });
}

/// A map of a file, unmapped at the end.
pub struct Map(*mut c_void, usize);

impl Map {
    pub fn new(file: &OwnedFd, len: usize, prot: ProtFlags, flags: MapFlags) -> Result<Self, Errno> {
        // SAFETY: a new map at an address of the kernel's choice; it is used only through this type.
        unsafe { mmap(ptr::null_mut(), len, prot, flags, file, 0) }.map(|at| Self(at, len))
    }

    pub fn get(&self, from: usize, len: usize) -> String {
        assert!(from + len <= self.1);
        // SAFETY: within the map, which lives as long as `self`; nobody writes at this moment.
        let bytes = unsafe { std::slice::from_raw_parts(self.0.cast::<u8>().add(from), len) };
        bytes.escape_ascii().to_string()
    }

    pub fn set(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.1);
        // SAFETY: within the map, which is writable; the source does not overlap.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.cast::<u8>().add(at), bytes.len()) }
    }

    fn sync(&self) -> Result<(), Errno> {
        // SAFETY: the whole map, which lives.
        unsafe { msync(self.0, self.1, MsyncFlags::SYNC) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the whole map; no reference into it outlives `self`.
        unsafe { munmap(self.0, self.1) }.expect("it is mapped");
    }
}

#[test]
fn files_can_be_mapped_shared_and_private() {
    same_as_local("mmap", |dir, t| {
        let path = dir.join("file");
        let both = ProtFlags::READ | ProtFlags::WRITE;
        let file = create(&path, &[b'a'; 10_000]);
        let shared = Map::new(&file, 10_000, both, MapFlags::SHARED).expect("a shared map");
        let private = Map::new(&file, 10_000, both, MapFlags::PRIVATE).expect("a private map");
        shared.set(4090, b"through the map");
        t.done("msync", shared.sync());
        private.set(0, b"only here");
        t.note("private", private.get(0, 12));
        let mut back = [0; 15];
        t.call("pread sees the map", pread(&file, &mut back, 4090));
        t.note("bytes", back.escape_ascii().to_string());
        t.call("pwrite", pwrite(&file, b"by write", 9000));
        t.note("the map sees it", shared.get(8998, 12));
        // A map outlives its descriptor, and what it writes then is not lost.
        drop(file);
        shared.set(1, b"after close");
        drop((shared, private));
        t.call("content", contents(&path));
        let reader = open(&path, OFlags::RDONLY).expect("it is there");
        t.done("a shared writable map of a reader", Map::new(&reader, 100, both, MapFlags::SHARED));
        let private = Map::new(&reader, 100, both, MapFlags::PRIVATE).expect("a private map");
        private.set(0, b"gone");
        t.note("bytes", private.get(0, 14));
    });
}

// S94.
#[test]
fn what_is_stored_through_a_map_after_close_reaches_the_service() {
    let Some(mounted) = Mounted::new(Flavour::Business, Options::default()) else { return };
    std::fs::create_dir(mounted.path("maps")).expect("a directory");
    let path = mounted.path("maps/file");
    let file = create(&path, &[b'a'; 10_000]);
    let map = Map::new(&file, 10_000, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED).expect("a map");
    drop(file);
    map.set(4090, b"after close");
    drop(map);
    mounted.sync_path("maps");
    let mut expected = [b'a'; 10_000];
    expected[4090..4101].copy_from_slice(b"after close");
    assert_eq!(mounted.control().content("maps/file").expect("it was sent"), &expected[..]);
}

#[test]
fn a_running_program_can_be_on_the_mount() {
    same_as_local("exec", |dir, t| {
        let program = dir.join("program");
        std::fs::copy("/bin/true", &program).expect("a copy");
        t.done("chmod", rfs::chmod(&program, Mode::from_raw_mode(0o755)));
        t.call("run", std::process::Command::new(&program).status().map(|status| status.code()));
    });
}

#[test]
fn fallocate_allocates_punches_and_zeroes() {
    same_as_local("fallocate", |dir, t| {
        let file = create(&dir.join("file"), &[b'x'; 20_000]);
        let keep = FallocateFlags::KEEP_SIZE;
        t.done("allocate", rfs::fallocate(&file, FallocateFlags::empty(), 0, 30_000));
        t.note("size", size(&file));
        t.done("behind the end", rfs::fallocate(&file, keep, 0, 100_000));
        t.note("size", size(&file));
        t.done("punch", rfs::fallocate(&file, FallocateFlags::PUNCH_HOLE | keep, 4096, 8192));
        t.done("zero", rfs::fallocate(&file, FallocateFlags::ZERO_RANGE, 15_000, 2_000));
        t.done("zero further", rfs::fallocate(&file, FallocateFlags::ZERO_RANGE, 29_000, 5_000));
        t.note("size", size(&file));
        t.done("nothing", rfs::fallocate(&file, FallocateFlags::empty(), 0, 0));
        let reader = open(&dir.join("file"), OFlags::RDONLY).expect("it is there");
        t.done("through a reader", rfs::fallocate(&reader, FallocateFlags::empty(), 0, 40_000));
        drop((file, reader));
        let bytes = std::fs::read(dir.join("file")).expect("it can be read");
        let runs: Vec<(u8, usize)> = bytes.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect();
        t.note("runs", runs);
    });
}

#[test]
fn holes_and_data_can_be_found() {
    same_as_local("holes", |dir, t| {
        let file = create(&dir.join("file"), b"");
        t.done("sparse", rfs::ftruncate(&file, 3 << 20));
        t.call("an island", pwrite(&file, &[1; 4096], 1 << 20));
        t.done("fsync", rfs::fsync(&file));
        for offset in [0, 1 << 20, (1 << 20) + 4096] {
            t.call("data", rfs::seek(&file, SeekFrom::Data(offset)));
            t.call("hole", rfs::seek(&file, SeekFrom::Hole(offset)));
        }
        t.call("data at the end", rfs::seek(&file, SeekFrom::Data(3 << 20)));
        t.call("hole at the end", rfs::seek(&file, SeekFrom::Hole(3 << 20)));
        t.call("far behind it", rfs::seek(&file, SeekFrom::Data(1 << 40)));
        let full = create(&dir.join("full"), &[2; 5000]);
        t.call("data of a full file", rfs::seek(&full, SeekFrom::Data(100)));
        t.call("its end is a hole", rfs::seek(&full, SeekFrom::Hole(100)));
    });
}

#[test]
fn copy_file_range_copies_within_the_mount() {
    same_as_local("copy_range", |dir, t| {
        let bytes: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
        let from = create(&dir.join("from"), &bytes);
        let to = create(&dir.join("to"), b"");
        let copy = |t: &mut Trace, at: u64, into: u64, len: usize| {
            let (mut at, mut into, mut left) = (at, into, len);
            // The call may copy less than it was asked for.
            while left > 0 {
                match rfs::copy_file_range(&from, Some(&mut at), &to, Some(&mut into), left) {
                    Ok(0) => break,
                    Ok(copied) => left -= copied,
                    Err(error) => {
                        t.call::<(), _>("copy", Err(error));
                        return;
                    }
                }
            }
            t.note("copied", len - left);
        };
        copy(t, 0, 0, 300_000);
        copy(t, 1000, 300_000, 50_000);
        copy(t, 299_000, 10, 5_000);
        copy(t, 1 << 30, 10, 5_000);
        t.note("size", size(&to));
        drop((from, to));
        let copied = std::fs::read(dir.join("to")).expect("it can be read");
        assert_eq!(copied[300_000..], bytes[1000..51_000]);
        assert_eq!(copied[10..1010], bytes[299_000..]);
        t.note("sha256", crate::mounted_support::tree::sha256(&copied));
    });
}

// S3.
#[test]
fn everything_can_be_synced() {
    same_as_local("fsync", |dir, t| {
        let file = create(&dir.join("file"), b"content");
        t.done("fsync", rfs::fsync(&file));
        t.done("fdatasync", rfs::fdatasync(&file));
        let reader = open(&dir.join("file"), OFlags::RDONLY).expect("it is there");
        t.done("fsync of a reader", rfs::fsync(&reader));
        let directory = open(dir, OFlags::RDONLY | OFlags::DIRECTORY).expect("it is there");
        t.done("fsync of a directory", rfs::fsync(&directory));
        t.done("fdatasync of a directory", rfs::fdatasync(&directory));
        t.done("syncfs", rfs::syncfs(&directory));
        let sync = open(&dir.join("sync"), RW | OFlags::CREATE | OFlags::SYNC).expect("O_SYNC");
        t.call("write", write(&sync, b"now"));
        let data = open(&dir.join("sync"), OFlags::WRONLY | OFlags::DSYNC | OFlags::APPEND).expect("O_DSYNC");
        t.call("write", write(&data, b"and then"));
    });
}

// S28.
#[test]
fn the_size_is_right_while_a_file_is_written() {
    same_as_local("growing", |dir, t| {
        let path = dir.join("file");
        let file = create(&path, b"");
        for n in 1..=20 {
            t.call("write", write(&file, &vec![n; 777]));
            t.call("size by path", std::fs::metadata(&path).map(|meta| meta.len()));
            t.note("size by handle", size(&file));
        }
        let reader = open(&path, OFlags::RDONLY).expect("it is there");
        t.call("read what is not closed yet", pread(&reader, &mut vec![0; 20_000], 10));
    });
}

#[test]
fn direct_io_and_temporary_files_are_answered() {
    let Some(mounted) = Mounted::shared() else { return };
    let dir = mounted.path("odd opens");
    std::fs::create_dir(&dir).expect("a directory");
    // No name, no item: what O_TMPFILE makes could not be given to the service; programs fall back.
    let unnamed = rfs::openat(CWD, &dir, RW | OFlags::TMPFILE, Mode::from_raw_mode(0o600));
    assert_eq!(unnamed.map(drop), Err(Errno::OPNOTSUPP));
    let direct = open(&dir.join("direct"), RW | OFlags::CREATE | OFlags::DIRECT).expect("O_DIRECT");
    assert_eq!(pwrite(&direct, &[7; 4096], 0), Ok(4096));
    let mut back = [0; 4096];
    assert_eq!(pread(&direct, &mut back, 0), Ok(4096));
    assert_eq!(back, [7; 4096]);
}
