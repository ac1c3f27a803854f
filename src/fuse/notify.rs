//! Tells the kernel what to forget, never from a request thread.
//!
//! A notification may block in the kernel: on a directory's lock that a waiting lookup holds, or on a page
//! that a read we have not answered keeps locked. So nobody waits for one: what is to be forgotten goes into
//! a set (its size is bounded by the number of distinct things) drained by several threads, sharded by
//! inode; a thread that blocks holds up only its shard, and only until the request it waits for is answered.
//! Each delivery waits for the answers that were already being given ([`Fence`]).

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use fuser::INodeNo;
use tokio::sync::watch;

use super::fence::Fence;
use crate::model::Ino;
use crate::vfs::Invalidation;

/// Threads, and thereby how many blocked notifications leave others running.
const SHARDS: usize = 8;

/// Where invalidations go in; clones share the queue. Does nothing before a mount and after its end.
#[derive(Clone, Debug)]
pub struct NotifyHandle {
    shards: Arc<[Shard]>,
}

/// What receives notifications: the kernel, or a test.
pub(super) trait Target: Send + Sync {
    fn entry(&self, parent: Ino, name: &OsString) -> io::Result<()>;
    fn inode(&self, ino: Ino, what: Pages) -> io::Result<()>;
}

/// Which pages of an inode go with its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// The first: a cached listing is useless without it, and a file loses next to nothing.
    First,
    /// All.
    All,
}

impl Target for fuser::Notifier {
    fn entry(&self, parent: Ino, name: &OsString) -> io::Result<()> {
        self.inval_entry(INodeNo(parent.0), name)
    }

    fn inode(&self, ino: Ino, what: Pages) -> io::Result<()> {
        let bytes = match what {
            Pages::First => 1,
            Pages::All => 0,
        };
        self.inval_inode(INodeNo(ino.0), 0, bytes)
    }
}

#[derive(Debug, Default)]
struct Shard {
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Debug)]
struct Queue {
    open: bool,
    order: VecDeque<Key>,
    /// What `order` holds, and for inodes, how much.
    pending: HashMap<Key, Pages>,
    /// How many were ever put into `order`, and how many of those were delivered or discarded.
    queued: u64,
    done: watch::Sender<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Entry(Ino, OsString),
    Inode(Ino),
}

impl Default for Queue {
    fn default() -> Self {
        let (order, pending) = (VecDeque::new(), HashMap::new());
        Self { open: false, order, pending, queued: 0, done: watch::Sender::new(0) }
    }
}

impl Default for NotifyHandle {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl NotifyHandle {
    /// A handle that is not yet mounted; give it to the engine and to [`mount`](super::mount).
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues one invalidation. Never blocks on the kernel.
    pub fn send(&self, invalidation: Invalidation) {
        let (key, pages) = match invalidation {
            Invalidation::Entry { parent, name } => (Key::Entry(parent, name), Pages::First),
            Invalidation::Inode { ino, attributes_only: true } => (Key::Inode(ino), Pages::First),
            Invalidation::Inode { ino, attributes_only: false } => (Key::Inode(ino), Pages::All),
        };
        let (Key::Entry(ino, _) | Key::Inode(ino)) = key;
        let shard = &self.shards[shard_of(ino)];
        let mut queue = shard.lock();
        if !queue.open {
            return;
        }
        match queue.pending.get_mut(&key) {
            Some(known) if pages == Pages::All => *known = Pages::All,
            Some(_) => {}
            None => {
                queue.pending.insert(key.clone(), pages);
                queue.order.push_back(key);
                queue.queued += 1;
                drop(queue);
                shard.filled.notify_one();
            }
        }
    }

    /// Queues many.
    pub fn send_all(&self, invalidations: impl IntoIterator<Item = Invalidation>) {
        invalidations.into_iter().for_each(|invalidation| self.send(invalidation));
    }

    /// Returns when all that was queued before has been delivered, or the mount has ended.
    pub async fn flush(&self) {
        for shard in self.shards.iter() {
            let (mut done, queued) = {
                let queue = shard.lock();
                (queue.done.subscribe(), queue.queued)
            };
            // An error would mean that the queue, which `self` holds, is gone.
            let _ = done.wait_for(|&done| done >= queued).await;
        }
    }

    /// How many wait for delivery.
    pub fn pending(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().order.len()).sum()
    }

    /// Starts delivery to `target`.
    pub(super) fn attach(&self, target: Arc<dyn Target>, fence: Arc<Fence>) -> io::Result<()> {
        for (index, shard) in self.shards.iter().enumerate() {
            shard.lock().open = true;
            let (handle, target, fence) = (self.clone(), Arc::clone(&target), Arc::clone(&fence));
            std::thread::Builder::new()
                .name(format!("notify-{index}"))
                .spawn(move || handle.shards[index].deliver(&*target, &fence))?;
        }
        Ok(())
    }

    /// Ends delivery; what waits is discarded.
    pub(super) fn end(&self) {
        self.shards.iter().for_each(Shard::close);
    }
}

/// A directory's names stay in one shard, inodes spread.
fn shard_of(ino: Ino) -> usize {
    (ino.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize % SHARDS
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn close(&self) {
        let mut queue = self.lock();
        queue.open = false;
        queue.order.clear();
        queue.pending.clear();
        queue.done.send_replace(queue.queued);
        self.filled.notify_all();
    }

    /// Delivers until closed.
    fn deliver(&self, target: &dyn Target, fence: &Fence) {
        while let Some(batch) = self.next_batch() {
            fence.wait();
            for (key, pages) in batch {
                let result = match &key {
                    Key::Entry(parent, name) => target.entry(*parent, name),
                    Key::Inode(ino) => target.inode(*ino, pages),
                };
                match result {
                    Err(error) if ends_session(&error) => return self.close(),
                    // What the kernel does not have it need not forget.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::debug!(?key, %error, "the kernel refused an invalidation");
                    }
                    _ => {}
                }
                self.lock().done.send_modify(|done| *done += 1);
            }
        }
    }

    /// Waits for something to deliver; takes a bounded part of it. `None`: closed.
    fn next_batch(&self) -> Option<Vec<(Key, Pages)>> {
        const BATCH: usize = 256;
        let mut queue = self.lock();
        while queue.open && queue.order.is_empty() {
            queue = self.filled.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        if !queue.open {
            return None;
        }
        let count = queue.order.len().min(BATCH);
        let Queue { order, pending, .. } = &mut *queue;
        let batch = order.drain(..count).map(|key| {
            let pages = pending.remove(&key).unwrap_or(Pages::All);
            (key, pages)
        });
        Some(batch.collect())
    }
}

fn ends_session(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOTCONN | libc::EBADF))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Records deliveries; blocks on node 7 until told to go on.
    struct Kernel {
        seen: Mutex<Vec<(Ino, Option<OsString>, Pages)>>,
        blocked: mpsc::Sender<()>,
        go_on: Mutex<mpsc::Receiver<()>>,
    }

    impl Target for Kernel {
        fn entry(&self, parent: Ino, name: &OsString) -> io::Result<()> {
            self.seen.lock().expect("no panics").push((parent, Some(name.clone()), Pages::First));
            Err(io::Error::from_raw_os_error(libc::ENOENT))
        }

        fn inode(&self, ino: Ino, pages: Pages) -> io::Result<()> {
            if ino == Ino(7) {
                self.blocked.send(()).expect("the test listens");
                self.go_on.lock().expect("no panics").recv().expect("the test goes on");
            }
            self.seen.lock().expect("no panics").push((ino, None, pages));
            Ok(())
        }
    }

    fn attached() -> (NotifyHandle, Arc<Kernel>, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (blocked, is_blocked) = mpsc::channel();
        let (go, go_on) = mpsc::channel();
        let kernel = Arc::new(Kernel { seen: Mutex::default(), blocked, go_on: Mutex::new(go_on) });
        let handle = NotifyHandle::new();
        handle.attach(Arc::clone(&kernel) as _, Arc::default()).expect("threads start");
        (handle, kernel, is_blocked, go)
    }

    fn inode(ino: u64, attributes_only: bool) -> Invalidation {
        Invalidation::Inode { ino: Ino(ino), attributes_only }
    }

    #[tokio::test]
    async fn equal_invalidations_that_wait_are_delivered_once_with_the_stronger_meaning() {
        let (handle, kernel, is_blocked, go_on) = attached();
        handle.send(inode(7, true));
        is_blocked.recv().expect("the kernel blocks");
        let same_shard = (8..).find(|&ino| shard_of(Ino(ino)) == shard_of(Ino(7))).expect("there is one");
        let entry = Invalidation::Entry { parent: Ino(same_shard), name: "a".into() };
        handle.send_all([inode(same_shard, true), entry.clone(), inode(same_shard, false), entry]);
        handle.send(inode(same_shard, true));
        assert_eq!(handle.pending(), 2);
        go_on.send(()).expect("the kernel waits");
        handle.flush().await;
        let expected = [
            (Ino(7), None, Pages::First),
            (Ino(same_shard), None, Pages::All),
            (Ino(same_shard), Some("a".into()), Pages::First),
        ];
        assert_eq!(*kernel.seen.lock().expect("no panics"), expected);
        handle.end();
    }

    #[tokio::test]
    async fn a_blocked_notification_neither_blocks_senders_nor_other_shards() {
        let (handle, kernel, is_blocked, go_on) = attached();
        handle.send(inode(7, false));
        is_blocked.recv().expect("the kernel blocks");
        let other = (8..).find(|&ino| shard_of(Ino(ino)) != shard_of(Ino(7))).expect("there is one");
        handle.send(inode(other, false));
        while kernel.seen.lock().expect("no panics").is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(kernel.seen.lock().expect("no panics")[0].0, Ino(other));
        go_on.send(()).expect("the kernel waits");
        handle.flush().await;
        handle.end();
    }

    #[tokio::test]
    async fn before_and_after_the_mount_nothing_is_kept_and_a_flush_returns() {
        let handle = NotifyHandle::new();
        handle.send(inode(9, false));
        handle.flush().await;
        let (handle, _kernel, is_blocked, go_on) = attached();
        handle.send(inode(7, false));
        is_blocked.recv().expect("the kernel blocks");
        handle.end();
        handle.send(inode(9, false));
        handle.flush().await;
        assert_eq!(handle.pending(), 0);
        go_on.send(()).expect("the kernel waits");
    }
}
