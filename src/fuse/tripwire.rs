//! Ends a connection that has lost a thread.
//!
//! A panic in the library (it has one for times at the far end of the range) ends the thread that read the
//! request, and the request would keep its caller for ever, even against SIGKILL. Better no mount than that:
//! the kernel is told to end the connection, all callers get an error, and the session ends as broken.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::mount::UnmountFlags;

use super::mountinfo::MountTable;

/// Where a mount of ours is, so that it is not taken for one that took its place.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) mountpoint: PathBuf,
    /// `None` if the table of mounts could not be read.
    pub(super) device: Option<String>,
}

impl Place {
    /// What is mounted at `mountpoint` now.
    pub(super) fn now(mountpoint: PathBuf) -> Self {
        let table = MountTable::read().ok();
        let device = table.and_then(|table| Some(table.at(&mountpoint)?.device.clone()));
        Self { mountpoint, device }
    }

    /// Whether this mount is still the one to be seen there.
    pub(super) fn is_taken(&self) -> bool {
        let Ok(table) = MountTable::read() else { return true };
        table.at(&self.mountpoint).map(|mount| &mount.device) == self.device.as_ref()
    }
}

/// Notices the end of threads that serve a connection.
#[derive(Debug)]
pub(super) struct Tripwire {
    connection: OwnedFd,
    place: Place,
}

thread_local! {
    static ARMED: RefCell<Option<Armed>> = const { RefCell::new(None) };
}

/// Dropped when its thread ends, in whatever way.
struct Armed(Arc<Tripwire>);

impl Drop for Armed {
    fn drop(&mut self) {
        self.0.thread_ended();
    }
}

impl Tripwire {
    pub(super) fn new(connection: OwnedFd, place: Place) -> Arc<Self> {
        Arc::new(Self { connection, place })
    }

    /// Says that the calling thread serves the connection until it ends.
    pub(super) fn arm(self: &Arc<Self>) {
        ARMED.with_borrow_mut(|armed| {
            armed.get_or_insert_with(|| Armed(Arc::clone(self)));
        });
    }

    fn thread_ended(&self) {
        if self.is_connected() {
            tracing::error!("a thread that serves the mount has died: ending the mount");
            self.abort();
        }
    }

    /// Threads end when the kernel has ended the connection, and should not before.
    fn is_connected(&self) -> bool {
        let mut fds = [PollFd::new(&self.connection, PollFlags::empty())];
        let polled = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        polled.is_ok() && !fds[0].revents().contains(PollFlags::ERR)
    }

    fn abort(&self) {
        let Place { mountpoint, device } = &self.place;
        let flags = UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        if self.place.is_taken() && rustix::mount::unmount(mountpoint, flags).is_ok() {
            return;
        }
        let number = device.as_deref().and_then(|device| device.strip_prefix("0:")).unwrap_or_default();
        let switch = format!("/sys/fs/fuse/connections/{number}/abort");
        if let Err(error) = std::fs::write(&switch, "1") {
            tracing::error!(%error, switch, "the mount cannot be ended: end this process");
        }
    }
}
