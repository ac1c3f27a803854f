//! Tells the kernel what to forget, never from a request thread.
//!
//! A notification may block in the kernel: on a directory's lock that a waiting lookup holds, or on a page
//! that a read we have not answered keeps locked. So nobody waits for one: what is to be forgotten goes into
//! a set (its size is bounded by the number of distinct things) drained by several threads, sharded by
//! inode; a thread that blocks holds up only its shard, and only until the request it waits for is answered.
//! Each delivery waits for the answers that were already being given ([`Fence`]).
//!
//! An answer that was given is not yet known to the kernel: the thread that asked must run first. A lookup of a
//! node that the kernel does not have, and a listing, are not guarded against what is forgotten meanwhile; but
//! that thread holds the directory's lock. A notification about a name takes that lock, so one about a name that
//! cannot be ([`NO_NAME`]) waits for such threads, and does nothing else.
//!
//! Nodes that no answer named are left out ([`Known`]): an enumeration brings millions of them.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use fuser::INodeNo;
use tokio::sync::watch;

use super::fence::Fence;
use super::known::Known;
use crate::model::Ino;
use crate::vfs::{Invalidation, Kept};

/// What no entry of any directory is called.
const NO_NAME: &str = "/";

/// Threads, and thereby how many blocked notifications leave others running.
const SHARDS: usize = 8;

/// Where invalidations go in; clones share the queue. Does nothing before a mount and after its end.
#[derive(Clone, Debug)]
pub struct NotifyHandle {
    shards: Arc<[Shard]>,
    /// While it is mounted.
    target: Arc<RwLock<Option<Arc<dyn Target>>>>,
    fence: Arc<Fence>,
    known: Arc<Known>,
}

/// What receives notifications: the kernel, or a test.
pub(super) trait Target: Send + Sync + std::fmt::Debug {
    fn entry(&self, parent: Ino, name: &OsString) -> io::Result<()>;
    fn inode(&self, ino: Ino, what: Pages) -> io::Result<()>;
}

/// Which pages of an inode go with its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// None: attributes only.
    None,
    /// All.
    All,
}

impl Target for fuser::Notifier {
    fn entry(&self, parent: Ino, name: &OsString) -> io::Result<()> {
        self.inval_entry(INodeNo(parent.0), name)
    }

    fn inode(&self, ino: Ino, what: Pages) -> io::Result<()> {
        let (offset, bytes) = match what {
            Pages::None => (-1, 0),
            Pages::All => (0, 0),
        };
        self.inval_inode(INodeNo(ino.0), offset, bytes)
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
    pending: HashMap<Key, Wanted>,
    /// How many were ever put into `order`, and how many of those were delivered or discarded.
    queued: u64,
    done: watch::Sender<u64>,
}

/// What is to be forgotten of an inode.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    kept: Kept,
    within: Option<Ino>,
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
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Self { shards, target: Arc::default(), fence: Arc::default(), known: Arc::default() }
    }
}

impl NotifyHandle {
    /// A handle that is not yet mounted; give it to the engine and to [`mount`](super::mount).
    pub fn new() -> Self {
        Self::default()
    }

    /// The sections in which answers are given.
    pub(super) fn fence(&self) -> Arc<Fence> {
        Arc::clone(&self.fence)
    }

    /// The nodes that answers have named.
    pub(super) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known)
    }

    /// False if the kernel holds nothing of the node that was read before this call. To be asked after the change.
    pub fn may_know(&self, ino: Ino) -> bool {
        // In this order: an answer that is being given may name the node at its end.
        !self.fence.is_quiet() || self.known.has(ino)
    }

    /// Queues one invalidation. Never blocks on the kernel.
    pub fn send(&self, invalidation: Invalidation) {
        let (key, kept, within) = match invalidation {
            Invalidation::Entry { parent, name } => (Key::Entry(parent, name), Kept::Attributes, None),
            Invalidation::Inode { ino, kept, within } => (Key::Inode(ino), kept, within),
        };
        let (Key::Entry(ino, _) | Key::Inode(ino)) = key;
        if !self.may_know(ino) {
            return;
        }
        let shard = &self.shards[shard_of(ino)];
        let mut queue = shard.lock();
        if !queue.open {
            return;
        }
        match queue.pending.get_mut(&key) {
            Some(known) => {
                let within = within.or(known.within);
                *known = Wanted { kept: kept.max(known.kept), within };
            }
            None => {
                queue.pending.insert(key.clone(), Wanted { kept, within });
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

    /// Has the kernel forget the attributes of a node at once.
    ///
    /// Of this kind of notification alone it waits for nothing in the kernel, and so may be sent by a thread that
    /// answers a request. For an open whose file has another content than the kernel knows of: that what is read
    /// is not cut at the former size.
    pub(super) fn forget_attributes(&self, ino: Ino) {
        let target = self.target.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(target) = target else { return };
        match target.inode(ino, Pages::None) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(?ino, %error, "the kernel refused to forget attributes");
            }
            _ => {}
        }
    }

    /// How many wait for delivery.
    pub fn pending(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().order.len()).sum()
    }

    /// Starts delivery to `target`.
    pub(super) fn attach(&self, target: Arc<dyn Target>) -> io::Result<()> {
        *self.target.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&target));
        for (index, shard) in self.shards.iter().enumerate() {
            shard.lock().open = true;
            let (handle, target) = (self.clone(), Arc::clone(&target));
            std::thread::Builder::new()
                .name(format!("notify-{index}"))
                .spawn(move || handle.shards[index].deliver(&*target, &handle))?;
        }
        Ok(())
    }

    /// Ends delivery; what waits is discarded.
    pub(super) fn end(&self) {
        self.target.write().unwrap_or_else(PoisonError::into_inner).take();
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
    fn deliver(&self, target: &dyn Target, handle: &NotifyHandle) {
        while let Some(batch) = self.next_batch() {
            handle.fence.wait();
            for (key, wanted) in batch {
                let (Key::Entry(ino, _) | Key::Inode(ino)) = &key;
                let result = match &key {
                    // No answer that may be older than the change has named it.
                    _ if !handle.known.has(*ino) => Ok(()),
                    Key::Entry(parent, name) => target.entry(*parent, name),
                    Key::Inode(ino) => forget(target, *ino, wanted),
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
    fn next_batch(&self) -> Option<Vec<(Key, Wanted)>> {
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
            let all = Wanted { kept: Kept::Listing, within: None };
            let wanted = pending.remove(&key).unwrap_or(all);
            (key, wanted)
        });
        Some(batch.collect())
    }
}

fn forget(target: &dyn Target, ino: Ino, wanted: Wanted) -> io::Result<()> {
    let pages = match wanted.kept {
        Kept::Attributes => Pages::None,
        Kept::Content | Kept::Listing => Pages::All,
    };
    if wanted.kept == Kept::Listing {
        wait_for_answers(target, ino);
    }
    match target.inode(ino, pages) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(directory) = wanted.within else { return Err(error) };
            wait_for_answers(target, directory);
            target.inode(ino, pages)
        }
        done => done,
    }
}

/// Returns when the kernel has taken up what was answered to lookups and listings in the directory.
fn wait_for_answers(target: &dyn Target, directory: Ino) {
    // There is no such name: that it is not found is no news, and any other trouble the next call has too.
    let _ = target.entry(directory, &OsString::from(NO_NAME));
}

fn ends_session(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOTCONN | libc::EBADF))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Records deliveries; blocks on node 7 until told to go on.
    #[derive(Debug)]
    struct Kernel {
        seen: Mutex<Vec<(Ino, Option<OsString>, Pages)>>,
        blocked: mpsc::Sender<()>,
        go_on: Mutex<mpsc::Receiver<()>>,
    }

    impl Target for Kernel {
        fn entry(&self, parent: Ino, name: &OsString) -> io::Result<()> {
            self.seen.lock().expect("no panics").push((parent, Some(name.clone()), Pages::None));
            Err(io::Error::from_raw_os_error(libc::ENOENT))
        }

        fn inode(&self, ino: Ino, pages: Pages) -> io::Result<()> {
            if ino == Ino(7) {
                self.blocked.send(()).expect("the test listens");
                self.go_on.lock().expect("no panics").recv().expect("the test goes on");
            }
            self.seen.lock().expect("no panics").push((ino, None, pages));
            // A thread that looks up the first of these has not run yet; it has once its directory's lock was free.
            let seen = self.seen.lock().expect("no panics");
            let is_known =
                ino != LOOKED_UP || seen.iter().any(|(at, name, _)| *at == Ino(3) && name.is_some());
            if is_known { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENOENT)) }
        }
    }

    /// Known to the kernel only after its directory, node 3, was waited for.
    const LOOKED_UP: Ino = Ino(4);

    fn attached() -> (NotifyHandle, Arc<Kernel>, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (blocked, is_blocked) = mpsc::channel();
        let (go, go_on) = mpsc::channel();
        let kernel = Arc::new(Kernel { seen: Mutex::default(), blocked, go_on: Mutex::new(go_on) });
        let handle = NotifyHandle::new();
        (2..1000).for_each(|ino| handle.known.mark(Ino(ino)));
        handle.attach(Arc::clone(&kernel) as _).expect("threads start");
        (handle, kernel, is_blocked, go)
    }

    fn inode(ino: u64, kept: Kept) -> Invalidation {
        Invalidation::Inode { ino: Ino(ino), kept, within: None }
    }

    #[tokio::test]
    async fn equal_invalidations_that_wait_are_delivered_once_with_the_stronger_meaning() {
        let (handle, kernel, is_blocked, go_on) = attached();
        handle.send(inode(7, Kept::Attributes));
        is_blocked.recv().expect("the kernel blocks");
        let same_shard = (8..).find(|&ino| shard_of(Ino(ino)) == shard_of(Ino(7))).expect("there is one");
        let entry = Invalidation::Entry { parent: Ino(same_shard), name: "a".into() };
        handle.send_all([
            inode(same_shard, Kept::Attributes),
            entry.clone(),
            inode(same_shard, Kept::Content),
            entry,
        ]);
        handle.send(inode(same_shard, Kept::Attributes));
        assert_eq!(handle.pending(), 2);
        go_on.send(()).expect("the kernel waits");
        handle.flush().await;
        let expected = [
            (Ino(7), None, Pages::None),
            (Ino(same_shard), None, Pages::All),
            (Ino(same_shard), Some("a".into()), Pages::None),
        ];
        assert_eq!(*kernel.seen.lock().expect("no panics"), expected);
        handle.end();
    }

    #[tokio::test]
    async fn a_blocked_notification_neither_blocks_senders_nor_other_shards() {
        let (handle, kernel, is_blocked, go_on) = attached();
        handle.send(inode(7, Kept::Content));
        is_blocked.recv().expect("the kernel blocks");
        let other = (8..).find(|&ino| shard_of(Ino(ino)) != shard_of(Ino(7))).expect("there is one");
        handle.send(inode(other, Kept::Content));
        while kernel.seen.lock().expect("no panics").is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(kernel.seen.lock().expect("no panics")[0].0, Ino(other));
        go_on.send(()).expect("the kernel waits");
        handle.flush().await;
        handle.end();
    }

    #[tokio::test]
    async fn a_node_whose_lookup_the_kernel_has_not_taken_up_is_told_of_again() {
        let (handle, kernel, _, _) = attached();
        let kept = Kept::Content;
        handle.send(Invalidation::Inode { ino: LOOKED_UP, kept, within: Some(Ino(3)) });
        handle.flush().await;
        let expected = [
            (LOOKED_UP, None, Pages::All),
            (Ino(3), Some(NO_NAME.into()), Pages::None),
            (LOOKED_UP, None, Pages::All),
        ];
        assert_eq!(*kernel.seen.lock().expect("no panics"), expected);
        handle.end();
    }

    #[tokio::test]
    async fn listings_under_way_are_waited_for_before_the_kernel_forgets_one() {
        let (handle, kernel, _, _) = attached();
        handle.send(inode(9, Kept::Listing));
        handle.flush().await;
        let expected = [(Ino(9), Some(NO_NAME.into()), Pages::None), (Ino(9), None, Pages::All)];
        assert_eq!(*kernel.seen.lock().expect("no panics"), expected);
        handle.end();
    }

    #[tokio::test]
    async fn the_kernel_is_not_told_to_forget_what_no_answer_named() {
        let (handle, kernel, _is_blocked, _go_on) = attached();
        assert!(!handle.may_know(Ino(5000)) && handle.may_know(Ino(500)) && handle.may_know(Ino::ROOT));
        handle.send(inode(5000, Kept::Content));
        handle.send(Invalidation::Entry { parent: Ino(5000), name: "a".into() });
        assert_eq!(handle.pending(), 0);
        handle.send(inode(1, Kept::Attributes));
        handle.flush().await;
        assert_eq!(*kernel.seen.lock().expect("no panics"), [(Ino::ROOT, None, Pages::None)]);
        handle.end();
    }

    #[tokio::test]
    async fn an_answer_that_is_being_given_during_a_change_may_name_what_changed() {
        let (handle, kernel, _is_blocked, _go_on) = attached();
        let fence = handle.fence();
        let section = fence.enter();
        handle.send(inode(5000, Kept::Content));
        handle.send(inode(6000, Kept::Content));
        handle.known.mark(Ino(5000));
        drop(section);
        handle.flush().await;
        assert_eq!(*kernel.seen.lock().expect("no panics"), [(Ino(5000), None, Pages::All)]);
        handle.end();
    }

    #[tokio::test]
    async fn before_and_after_the_mount_nothing_is_kept_and_a_flush_returns() {
        let handle = NotifyHandle::new();
        handle.send(inode(9, Kept::Content));
        handle.flush().await;
        let (handle, _kernel, is_blocked, go_on) = attached();
        handle.send(inode(7, Kept::Content));
        is_blocked.recv().expect("the kernel blocks");
        handle.end();
        handle.send(inode(9, Kept::Content));
        handle.flush().await;
        assert_eq!(handle.pending(), 0);
        go_on.send(()).expect("the kernel waits");
    }
}
