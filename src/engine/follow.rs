//! When the drive's changes are asked for: at once when the service's push channel tells of one, and where there is none
//! by a poll that slows down while nobody uses the mount (design 4).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::doubts::DOUBTS;
use super::observe::SWEEP;
use super::{Engine, Inner, execute};
use crate::graph::{GraphError, PushEvent};
use crate::model::Timestamp;

/// The longest time between two polls, whatever the user's interval makes of an idle mount.
const SLOWEST: Duration = Duration::from_secs(300);
/// Idle for so many intervals, a poll takes twice as long, and so on.
const IDLE_STEP: u32 = 10;
/// One save is told of several times: so long further events are waited for.
const GATHER: Duration = Duration::from_millis(500);
/// The same while changes of our own go out: each of them is told to us too.
const GATHER_BUSY: Duration = Duration::from_millis(1500);
/// A channel is replaced so long before the service ends it.
const RENEW_EARLY: Duration = Duration::from_secs(120);
/// When a channel ends of which the service does not say it (graph-api 15.28).
const UNTOLD: Duration = Duration::from_secs(3600);
/// The longest that a channel is kept.
const RENEW_LATEST: Duration = Duration::from_secs(24 * 3600);
/// The shortest, so that a clock that is wrong does not renew without end; the service ends it if it must.
const RENEW_SOONEST: Duration = Duration::from_secs(600);
/// Where there is no channel it is asked for again after so long: such an answer may pass (graph-api 10.2).
const ABSENT: Duration = Duration::from_secs(600);
/// The longest pause after a channel that was lost.
const LOST: Duration = Duration::from_secs(60);

/// What is known of how fresh the tree is and must be.
#[derive(Debug)]
pub(super) struct Freshness {
    pushed: AtomicBool,
    born: Instant,
    /// Milliseconds after `born`.
    used: AtomicU64,
}

impl Default for Freshness {
    fn default() -> Self {
        Self { pushed: AtomicBool::new(false), born: Instant::now(), used: AtomicU64::new(0) }
    }
}

impl Freshness {
    /// Changes are told as they happen.
    pub fn is_pushed(&self) -> bool {
        self.pushed.load(Ordering::Acquire)
    }

    fn set_pushed(&self, pushed: bool) -> bool {
        self.pushed.swap(pushed, Ordering::AcqRel)
    }

    /// Somebody uses the mount; how long nobody had.
    fn used(&self, now: Instant) -> Duration {
        let millis = u64::try_from((now - self.born).as_millis()).unwrap_or(u64::MAX);
        let before = self.used.swap(millis, Ordering::AcqRel);
        Duration::from_millis(millis.saturating_sub(before))
    }

    fn idle(&self, now: Instant) -> Duration {
        let used = self.born + Duration::from_millis(self.used.load(Ordering::Acquire));
        now.saturating_duration_since(used)
    }
}

/// How long until the next poll; none while changes are told.
fn pause(poll: Duration, pushed: bool, idle: Duration) -> Option<Duration> {
    if pushed {
        return None;
    }
    let steps = idle.as_millis() / (poll * IDLE_STEP).as_millis().max(1);
    let slower = 1 << u32::try_from(steps).unwrap_or(u32::MAX).min(10);
    Some((poll * slower).min(SLOWEST.max(poll)))
}

/// How long a channel is kept that the service ends at `expires`.
fn lifetime(now: Timestamp, expires: Option<Timestamp>) -> Duration {
    let left = expires.map(|at| Duration::from_nanos(u64::try_from(at.0.saturating_sub(now.0)).unwrap_or(0)));
    left.unwrap_or(UNTOLD).saturating_sub(RENEW_EARLY).clamp(RENEW_SOONEST, RENEW_LATEST)
}

impl Inner {
    /// Changes are told as they happen, and a look then shows them: without delta it may not.
    fn is_told(&self) -> bool {
        self.freshness.is_pushed() && !self.walks.is_on()
    }

    /// Something could not be looked at when it was told of: nobody tells of that again.
    fn has_something_to_look_at(&self) -> bool {
        [DOUBTS, SWEEP].into_iter().any(|key| !matches!(self.store.meta(key), Ok(None)))
    }
}

impl Engine {
    /// Somebody looks at the drive. Where looks at the service had become rare, one is taken now.
    pub fn used(&self) {
        let idle = self.0.freshness.used(Instant::now());
        if idle > self.0.config.poll * IDLE_STEP && !self.0.is_told() {
            self.0.look.notify_one();
        }
    }

    /// Waits until the drive's changes are to be read again, `wait` long at the most after a failure.
    pub(super) async fn until_next_look(&self, failed: Option<Duration>) {
        let inner = &self.0;
        let idle = inner.freshness.idle(Instant::now());
        let told = inner.is_told() && !inner.has_something_to_look_at();
        let wait = failed.or_else(|| pause(inner.config.poll, told, idle));
        let poll = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => {}
            () = poll => {}
            () = inner.look.notified() => {}
        }
    }

    /// Keeps the push channel open until the engine stops.
    pub(super) async fn follow_push(self) {
        let stop = self.0.stop.clone();
        let mut failures = 0;
        let forever = async {
            loop {
                let joined = self.follow_one().await;
                if self.0.freshness.set_pushed(false) {
                    // What happened since is not told any more.
                    self.0.look.notify_one();
                }
                let rest = match joined {
                    Ok(()) => Duration::ZERO,
                    Err(Trouble::Absent) => ABSENT,
                    Err(Trouble::Lost { was_joined }) => {
                        failures = if was_joined { 0 } else { failures + 1 };
                        execute::backoff(failures).min(LOST)
                    }
                };
                tokio::time::sleep(rest).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = forever => {}
        }
    }

    /// One channel, until it is time for the next.
    async fn follow_one(&self) -> Result<(), Trouble> {
        let opened = self.0.graph.open_push(&self.0.drive.id).await;
        let mut push = opened.map_err(|error| {
            tracing::debug!(%error, "the push channel cannot be opened");
            match error {
                GraphError::Unsupported { .. } | GraphError::NotFound { .. } => Trouble::Absent,
                _ => Trouble::Lost { was_joined: false },
            }
        })?;
        let now = Timestamp::from(self.0.clock.wall());
        let over = tokio::time::sleep(lifetime(now, push.expires));
        tokio::pin!(over);
        loop {
            let event = tokio::select! {
            biased;
                event = push.next() => event,
                () = &mut over => return Ok(()),
            };
            match event {
                Ok(PushEvent::Joined) => {
                    tracing::info!("changes are told as they happen");
                    self.0.freshness.set_pushed(true);
                    self.0.look.notify_one();
                }
                Ok(PushEvent::Changed) => {
                    self.0.told.notify_one();
                }
                Err(end) => {
                    tracing::info!(%end, "changes are not told any more: asking for them until they are");
                    return Err(Trouble::Lost { was_joined: self.0.freshness.is_pushed() });
                }
            }
        }
    }

    /// Turns what the channel tells into looks, one for all that is told within a moment.
    pub(super) async fn gather_told(self) {
        while !self.0.stop.is_cancelled() {
            tokio::select! {
            biased;
                () = self.0.stop.cancelled() => return,
                () = self.0.told.notified() => {}
            }
            let busy = !self.0.in_flight().is_empty();
            self.0.pause(if busy { GATHER_BUSY } else { GATHER }).await;
            self.0.look.notify_one();
        }
    }
}

/// Why a channel is no more.
enum Trouble {
    /// The service has none, at least for now.
    Absent,
    /// It could not be opened, or ended.
    Lost {
        /// It had been open.
        was_joined: bool,
    },
}

impl Inner {
    /// Changes are told as they happen; none are asked for.
    pub(super) fn is_pushed(&self) -> bool {
        self.freshness.is_pushed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_secs(30);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_told_is_not_asked_for_and_an_idle_mount_asks_less() {
        for (idle, expected) in [(0, 30), (4, 30), (5, 60), (10, 120), (15, 240), (20, 300), (100_000, 300)] {
            assert_eq!(pause(POLL, false, MINUTE * idle), Some(Duration::from_secs(expected)), "{idle} min");
        }
        assert_eq!(pause(POLL, true, MINUTE), None);
        assert_eq!(pause(MINUTE * 10, false, MINUTE * 1000), Some(MINUTE * 10), "the user's own is kept");
        assert!(pause(Duration::ZERO, false, MINUTE).is_some());
    }

    #[test]
    fn a_channel_is_replaced_before_it_ends_and_never_in_a_rush() {
        let now = Timestamp::from_unix(1_800_000_000, 0);
        let after = |seconds: i64| Some(Timestamp::from_unix(1_800_000_000 + seconds, 0));
        assert_eq!(lifetime(now, after(24 * 3600)), Duration::from_secs(24 * 3600 - 120));
        assert_eq!(lifetime(now, None), Duration::from_secs(3480));
        assert_eq!(lifetime(now, after(3600)), Duration::from_secs(3480));
        assert_eq!(lifetime(now, after(60)), RENEW_SOONEST);
        assert_eq!(lifetime(now, after(-5)), RENEW_SOONEST, "the clocks differ");
        assert_eq!(lifetime(now, after(365 * 24 * 3600)), RENEW_LATEST);
    }
}
