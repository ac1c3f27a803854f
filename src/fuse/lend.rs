//! Makes files known to the kernel, which then reads them by itself (passthrough).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use fuser::BackingId;

use crate::vfs::{Lender, Lent};

/// Takes a number back: `_IOW(229, 2, uint32_t)` of linux/fuse.h.
const BACKING_CLOSE: libc::Ioctl = 0x4004_e502;

/// Where files are made known; clones share it. Refuses before a mount, after its end, and where the kernel does not
/// do it: it wants CAP_SYS_ADMIN and, below, a file system that is not stacked itself.
#[derive(Clone, Debug, Default)]
pub struct Passthrough(Arc<RwLock<Option<Arc<OwnedFd>>>>);

/// A number that the kernel knows a file by.
#[derive(Debug)]
struct Number {
    id: u32,
    device: Weak<OwnedFd>,
}

impl Passthrough {
    /// Begins to lend over this connection.
    pub(super) fn attach(&self, device: OwnedFd) {
        self.set(Some(Arc::new(device)));
    }

    /// Ends it: the mount has ended, or the kernel does not do it.
    pub(super) fn end(&self) {
        self.set(None);
    }

    fn set(&self, device: Option<Arc<OwnedFd>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = device;
    }
}

impl Lender for Passthrough {
    fn lend(&self, file: &File) -> Option<Lent> {
        let device = self.0.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        match BackingId::create_raw(&device, file) {
            Ok(id) => Some(Lent { id, held: Arc::new(Number { id, device: Arc::downgrade(&device) }) }),
            Err(error) => {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    tracing::debug!("the kernel reads no files by itself for this process");
                    self.end();
                } else {
                    tracing::debug!(%error, "the kernel does not read this file by itself");
                }
                None
            }
        }
    }
}

impl Drop for Number {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        let Some(device) = self.device.upgrade() else { return };
        // SAFETY: the descriptor is open, since `device` owns it; the argument is one u32, which outlives the call.
        let result = unsafe { libc::ioctl(device.as_raw_fd(), BACKING_CLOSE, &raw const self.id) };
        if result < 0 {
            tracing::debug!(error = %io::Error::last_os_error(), "the kernel keeps a file that it no longer reads");
        }
    }
}
