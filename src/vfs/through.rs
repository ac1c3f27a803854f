//! Files that the kernel reads by itself (passthrough).
//!
//! The kernel's rules are of an inode, from the first open to the last close: either all use its pages, or all name one
//! and the same file below; who breaks them gets EIO. So the first open decides ([`route`]). A program that writes
//! meanwhile names that file too and has each of its reads and writes come here ([`Mirror`] tells how its readers see
//! them).

use std::any::Any;
use std::fs::File;
use std::sync::Arc;

use super::file::State;
use super::{Drive, OpenFlags, Served, VfsError};
use crate::content::Mirror;
use crate::disk::DiskFile;

/// Smaller files fit the kernel's pages as well, and a lent file costs a little more at each open.
const LENT_MIN: u64 = 128 << 10;

/// A file that the kernel knows by a number and may read by itself; forgotten when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Lent {
    /// The kernel's number of it.
    pub id: u32,
    /// What takes the number back.
    pub held: Arc<dyn Any + Send + Sync>,
}

/// Who makes files known to the kernel.
pub trait Lender: Send + Sync + std::fmt::Debug {
    /// Makes the file known; none where the kernel or the file system refuses, whatever the reason.
    fn lend(&self, file: &File) -> Option<Lent>;
}

/// How the kernel reads and writes an inode that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Through its pages, which are filled from here.
    Pages,
    /// From a file below.
    Below,
}

/// How one handle is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// From the kernel's pages.
    Pages,
    /// By the kernel, from the file below.
    Below,
    /// Each read and write comes here, past the pages.
    Here,
}

/// How to serve an open of an inode that is open in `mode`, if it is; `may_lend`: there is a file to read from.
fn route(mode: Option<Mode>, asked: OpenFlags, may_lend: bool) -> Route {
    let reads_only = !asked.write && !asked.truncate;
    match mode {
        Some(Mode::Pages) => Route::Pages,
        Some(Mode::Below) if reads_only => Route::Below,
        Some(Mode::Below) => Route::Here,
        // What is being written does not hold still, and who reads past the pages of the file below must be able to.
        None if reads_only && !asked.direct && may_lend => Route::Below,
        None => Route::Pages,
    }
}

/// The kernel's handles of an open file.
#[derive(Debug, Default)]
pub(super) struct Through {
    mode: Option<Mode>,
    handles: u32,
    /// Of these, the ones that can store through a shared map of the file below.
    stores: u32,
    below: Option<Below>,
}

#[derive(Debug)]
struct Below {
    lent: Lent,
    mirror: Mirror,
}

impl Through {
    /// A handle is given to the kernel.
    fn enter(&mut self, asked: OpenFlags, lend: impl FnOnce() -> Option<(Lent, Mirror)>) -> Served {
        if self.mode.is_none() && route(None, asked, true) == Route::Below {
            self.below = lend().map(|(lent, mirror)| Below { lent, mirror });
        }
        let route = route(self.mode, asked, self.below.is_some());
        self.handles += 1;
        let served = match (&self.below, route) {
            (Some(below), Route::Below) => Served::Below(below.lent.clone()),
            (Some(below), Route::Here) => Served::Here(below.lent.clone()),
            _ => Served::FromPages,
        };
        self.mode = Some(if self.below.is_some() { Mode::Below } else { Mode::Pages });
        self.stores += u32::from(self.may_store(asked));
        served
    }

    /// The kernel let go of a handle.
    pub fn exit(&mut self) {
        self.handles = self.handles.saturating_sub(1);
        if self.handles == 0 {
            *self = Self::default();
        }
    }

    fn may_store(&self, flags: OpenFlags) -> bool {
        self.below.is_some() && flags.write && flags.read
    }

    /// What is to be seen, where that is a file below which is written to.
    pub fn changed(&self) -> Option<Arc<DiskFile>> {
        self.below.as_ref()?.mirror.changed()
    }

    /// The content is about to be changed.
    pub fn detach(&mut self) {
        if let Some(below) = &mut self.below {
            below.mirror.detach();
        }
    }

    /// The content was changed: those who read the file below are to see it.
    pub fn follow(&mut self, change: impl FnOnce(&DiskFile) -> std::io::Result<()>) {
        if let Some(below) = &mut self.below {
            below.mirror.follow(change);
        }
    }
}

impl State {
    /// A handle of the file is given to the kernel.
    pub fn enter(&mut self, asked: OpenFlags, lender: Option<&dyn Lender>) -> Served {
        let cached = self.body.cached().filter(|cached| cached.size() >= LENT_MIN);
        let lend = || {
            let (lender, cached) = (lender?, cached?);
            let file = cached.lend().filter(DiskFile::takes_direct_reads)?;
            let lent = lender.lend(file.file())?;
            Some((lent, Mirror::new(file, cached)))
        };
        self.through.enter(asked, lend)
    }

    /// Takes in what was stored through a shared map of the file below, as far as that can be told.
    pub fn take_stores<D: Drive>(&mut self, drive: &D, flags: OpenFlags) -> Result<(), VfsError> {
        let was_stored_to =
            |through: &Through| through.below.as_ref().is_some_and(|below| below.mirror.was_stored_to());
        if self.through.may_store(flags) && was_stored_to(&self.through) {
            self.bring_over(drive)?;
        }
        Ok(())
    }

    fn bring_over<D: Drive>(&mut self, drive: &D) -> Result<(), VfsError> {
        self.make_writable(drive, false)?;
        let Some(below) = &mut self.through.below else { return Ok(()) };
        if let Some(staged) = self.body.staging() {
            below.mirror.take_stores(staged)?;
        }
        self.touched(drive.clock().wall().into());
        Ok(())
    }

    /// The kernel let go of a handle that could store through a map. A map outlives it: true as long as someone still
    /// may, and then to be asked again.
    pub fn ends_storing<D: Drive>(&mut self, drive: &D, flags: OpenFlags) -> Result<bool, VfsError> {
        if !self.through.may_store(flags) {
            return Ok(false);
        }
        if self.through.stores > 1 {
            self.through.stores -= 1;
            return Ok(false);
        }
        let Some(below) = &mut self.through.below else { return Ok(false) };
        // In this order: what is stored before nobody can any more is seen afterwards.
        let goes_on = below.mirror.may_be_stored_to();
        let differs = match self.body.staging() {
            Some(staged) if !goes_on => below.mirror.differs_from(staged)?,
            _ => false,
        };
        if below.mirror.was_stored_to() || differs {
            self.bring_over(drive)?;
        }
        Ok(goes_on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: OpenFlags = OpenFlags::READ;
    const WRITE: OpenFlags = OpenFlags::READ_WRITE;
    const DIRECT: OpenFlags = OpenFlags { direct: true, ..READ };
    const TRUNCATE: OpenFlags = OpenFlags { truncate: true, ..READ };

    #[test]
    fn the_first_open_decides_and_all_others_follow_it() {
        use Mode::{Below, Pages};
        for (mode, asked, may_lend, expected) in [
            (None, READ, true, Route::Below),
            (None, READ, false, Route::Pages),
            (None, WRITE, true, Route::Pages),
            (None, DIRECT, true, Route::Pages),
            (None, TRUNCATE, true, Route::Pages),
            (Some(Pages), READ, true, Route::Pages),
            (Some(Pages), WRITE, true, Route::Pages),
            (Some(Below), READ, true, Route::Below),
            (Some(Below), DIRECT, true, Route::Below),
            (Some(Below), WRITE, true, Route::Here),
            (Some(Below), TRUNCATE, true, Route::Here),
        ] {
            assert_eq!(route(mode, asked, may_lend), expected, "{mode:?} {asked:?} {may_lend}");
        }
    }
}
