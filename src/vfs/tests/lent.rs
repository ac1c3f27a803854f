//! Files that the kernel reads by itself, over a kernel that takes every file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::*;

/// Keeps what it was given last.
#[derive(Debug, Default)]
struct Kernel {
    file: Mutex<Option<File>>,
    refuses: bool,
}

impl Lender for Kernel {
    fn lend(&self, file: &File) -> Option<Lent> {
        if self.refuses {
            return None;
        }
        *self.file.lock().unwrap() = Some(file.try_clone().unwrap());
        Some(Lent { id: 7, held: Arc::new(()) })
    }
}

impl Kernel {
    /// What a program reads that has it open.
    fn reads(&self) -> Vec<u8> {
        let file = self.file.lock().unwrap();
        let file = file.as_ref().unwrap();
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// A program stores through a map.
    fn stores(&self, bytes: &[u8], offset: u64) {
        let number = std::os::fd::AsRawFd::as_raw_fd(self.file.lock().unwrap().as_ref().unwrap());
        let file = File::options().write(true).open(format!("/proc/self/fd/{number}")).unwrap();
        file.write_all_at(bytes, offset).unwrap();
    }
}

const SIZE: usize = 300_000;

/// A file that was read whole once.
async fn read_once(world: &World) -> Ino {
    let ino = world.sent(Ino::ROOT, "a", "A", &[b'a'; SIZE]);
    assert_eq!(world.cat(ino).await, [b'a'; SIZE]);
    ino
}

#[tokio::test(start_paused = true)]
async fn the_first_open_of_a_complete_file_decides_for_all() {
    let kernel = Arc::new(Kernel::default());
    let world = World::lending(kernel.clone());
    let ino = read_once(&world).await;
    let first = world.vfs.open(CALLER, ino, WRITE).await.unwrap();
    let second = world.vfs.open(CALLER, ino, READ).await.unwrap();
    assert!(matches!((&first.served, &second.served), (Served::FromPages, Served::FromPages)));
    world.vfs.release(ino, first.handle).await;
    let third = world.vfs.open(CALLER, ino, READ).await.unwrap();
    assert!(matches!(third.served, Served::FromPages), "the second still uses pages");
    world.vfs.release(ino, second.handle).await;
    world.vfs.release(ino, third.handle).await;
    let reader = world.vfs.open(CALLER, ino, READ).await.unwrap();
    let writer = world.vfs.open(CALLER, ino, WRITE).await.unwrap();
    assert!(matches!((&reader.served, &writer.served), (Served::Below(_), Served::Here(_))));
}

// S204.
#[tokio::test(start_paused = true)]
async fn a_refusal_leaves_everything_to_the_daemon() {
    let world = World::lending(Arc::new(Kernel { refuses: true, ..Kernel::default() }));
    let ino = read_once(&world).await;
    let reader = world.vfs.open(CALLER, ino, READ).await.unwrap();
    assert!(matches!(reader.served, Served::FromPages));
    let small = world.sent(Ino::ROOT, "small", "S", b"little");
    assert_eq!(world.cat(small).await, b"little");
}

// S201.
#[tokio::test(start_paused = true)]
async fn readers_see_every_change_and_what_is_staged_is_the_same() {
    let kernel = Arc::new(Kernel::default());
    let world = World::lending(kernel.clone());
    let ino = read_once(&world).await;
    let reader = world.vfs.open(CALLER, ino, READ).await.unwrap();
    let mut expected = vec![b'a'; SIZE];
    for round in 0..2 {
        let file = (ino, world.open(ino, WRITE).await);
        world.write(file, 70_000, b"in the middle").await;
        expected[70_000..70_013].copy_from_slice(b"in the middle");
        assert_eq!(kernel.reads(), expected);
        world.write(file, expected.len() as u64 + 10, b"beyond").await;
        expected.extend_from_slice(b"\0\0\0\0\0\0\0\0\0\0beyond");
        assert_eq!(kernel.reads(), expected);
        world.vfs.fallocate(ino, file.1, 10, 5000, Allocate::PunchHole).await.unwrap();
        expected[10..5010].fill(0);
        let grown = expected.len() as u64 + 1000;
        let zero = Allocate::ZeroRange { keep_size: false };
        world.vfs.fallocate(ino, file.1, grown - 1500, 1500, zero).await.unwrap();
        expected.resize(grown as usize, 0);
        expected[grown as usize - 1500..].fill(0);
        world.vfs.fallocate(ino, file.1, 0, grown + 5, Allocate::Extend).await.unwrap();
        expected.resize(grown as usize + 5, 0);
        assert_eq!(kernel.reads(), expected);
        let cut = SetAttr { size: Some(200_000), ..SetAttr::default() };
        world.vfs.setattr(CALLER, ino, cut).await.unwrap();
        expected.truncate(200_000);
        assert_eq!(kernel.reads(), expected);
        assert_eq!(world.read_all(file).await, expected);
        world.close(file).await;
        world.seal(ino).await;
        assert_eq!(kernel.reads(), expected, "round {round}");
    }
    let emptied = world.vfs.open(CALLER, ino, TRUNCATE).await.unwrap();
    assert!(kernel.reads().is_empty());
    world.write((ino, emptied.handle), 0, b"anew").await;
    assert_eq!(kernel.reads(), b"anew");
    world.close((ino, emptied.handle)).await;
    world.vfs.release(ino, reader.handle).await;
    assert_eq!(world.cat(ino).await, b"anew");
}

// S203.
#[tokio::test(start_paused = true)]
async fn what_is_stored_through_a_map_is_staged_at_the_close() {
    for writes_too in [false, true] {
        let kernel = Arc::new(Kernel::default());
        let world = World::lending(kernel.clone());
        let ino = read_once(&world).await;
        let reader = world.vfs.open(CALLER, ino, READ).await.unwrap();
        let file = (ino, world.open(ino, WRITE).await);
        kernel.stores(b"stored", 100_000);
        if writes_too {
            world.write(file, 0, b"written").await;
        }
        world.close(file).await;
        world.vfs.release(ino, reader.handle).await;
        let mut expected = vec![b'a'; SIZE];
        expected[100_000..100_006].copy_from_slice(b"stored");
        if writes_too {
            expected[..7].copy_from_slice(b"written");
        }
        assert_eq!(world.cat(ino).await, expected);
        assert!(world.row(ino).local.is_some(), "it is to be sent");
    }
}

#[tokio::test(start_paused = true)]
async fn who_only_opens_it_for_writing_changes_nothing() {
    let kernel = Arc::new(Kernel::default());
    let world = World::lending(kernel.clone());
    let ino = read_once(&world).await;
    let reader = world.vfs.open(CALLER, ino, READ).await.unwrap();
    let file = (ino, world.open(ino, WRITE).await);
    world.close(file).await;
    world.vfs.release(ino, reader.handle).await;
    assert!(world.row(ino).local.is_none());
    assert_eq!(world.cat(ino).await, [b'a'; SIZE]);
}
