//! Orders answers before the invalidations that outdate them.
//!
//! A thread that has read the old state but not yet answered the kernel would otherwise be overtaken by the
//! notification, and the kernel would keep the old answer for hours. Each poll of an operation, with the
//! reply that follows it, is a section; a notification waits for the sections that began before it.
//! Sections never wait for the network, so the wait is short.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// Counts sections of two alternating phases.
#[derive(Debug, Default)]
pub(super) struct Fence {
    phase: AtomicUsize,
    active: [AtomicU64; 2],
    /// Held by the one that turns the phase: the other phase is empty whenever it is free.
    turning: Mutex<()>,
}

impl Fence {
    /// Begins a section, which ends when the guard is dropped.
    pub(super) fn enter(&self) -> Section<'_> {
        loop {
            let phase = self.phase.load(SeqCst) & 1;
            self.active[phase].fetch_add(1, SeqCst);
            if self.phase.load(SeqCst) & 1 == phase {
                return Section { active: &self.active[phase] };
            }
            self.active[phase].fetch_sub(1, SeqCst);
        }
    }

    /// Whether no section is open: all that began before this call have ended.
    pub(super) fn is_quiet(&self) -> bool {
        self.active.iter().all(|active| active.load(SeqCst) == 0)
    }

    /// Returns when every section that began before this call has ended. Blocks its thread.
    pub(super) fn wait(&self) {
        let _turn = self.turning.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let old = self.phase.fetch_add(1, SeqCst) & 1;
        let mut pause = Duration::from_micros(10);
        while self.active[old].load(SeqCst) != 0 {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(2));
        }
    }
}

/// A section of [`Fence`].
pub(super) struct Section<'a> {
    active: &'a AtomicU64,
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        self.active.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};

    #[test]
    fn a_wait_ends_after_the_sections_before_it_and_not_after_later_ones() {
        let fence = Arc::new(Fence::default());
        let earlier = fence.enter();
        let (sender, ended) = mpsc::channel();
        let waiter = std::thread::spawn({
            let fence = Arc::clone(&fence);
            move || {
                fence.wait();
                sender.send(()).expect("the test listens");
            }
        });
        while fence.phase.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        let later = fence.enter();
        assert!(ended.try_recv().is_err());
        drop(earlier);
        ended.recv().expect("the waiter returns while a later section is open");
        drop(later);
        waiter.join().expect("the waiter does not panic");
    }
}
