//! The queue in front of the limiter: waiters leave it by priority, then age.
//!
//! Whoever waits also drives: each waiter sleeps until the limiter's next date and then looks who may go. A
//! waiter that is dropped leaves the queue; a permit that is dropped, even unreceived, frees its slot.
//!
//! Invariant: where the limiter named a date to whoever does not wait (or does no longer), one who waits is woken to
//! learn it. Who waits for a slot knows no date, and nothing else would wake it once the slot is free but the service
//! wants silence.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::limiter::{Admission, Limiter, LimiterConfig, Pool, Priority, RateLimit, Signal, rank};
use crate::clock::Clock;

/// The queue and the limiter of one account.
#[derive(Clone, Debug)]
pub struct Gate {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    /// Never held over an await, nor while a permit is dropped.
    state: Mutex<State>,
    /// One of those who wait must look itself: there is a date to wait for.
    dated: Notify,
}

#[derive(Debug)]
struct State {
    limiter: Limiter,
    waiting: Vec<Waiter>,
    next_sequence: u64,
}

#[derive(Debug)]
struct Waiter {
    sequence: u64,
    priority: Priority,
    pool: Pool,
    cost: u32,
    since: Instant,
    grant: oneshot::Sender<Permit>,
}

/// Why a request was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The service wants silence for longer than the caller can wait.
    Silenced(Duration),
    /// Too many others until the caller's time was up.
    TimedOut,
}

/// What a request asks the gate for.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Who waits.
    pub priority: Priority,
    /// What it occupies.
    pub pool: Pool,
    /// Resource units.
    pub cost: u32,
}

/// The right to have one request in flight; dropping it frees the slot.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    pool: Pool,
}

impl Gate {
    /// A gate that nobody has passed yet.
    pub fn new(config: LimiterConfig, clock: Arc<dyn Clock>) -> Self {
        let limiter = Limiter::new(config, clock.mono());
        let state = State { limiter, waiting: Vec::new(), next_sequence: 0 };
        Self { shared: Arc::new(Shared { clock, state: Mutex::new(state), dated: Notify::new() }) }
    }

    /// Waits for its turn, at most until `give_up`; `patience` bounds a silence that is already known.
    pub async fn pass(&self, ask: Ask, give_up: Option<Instant>, patience: Duration) -> Result<Permit, Held> {
        let now = self.shared.clock.mono();
        if let Some(left) = self.silence(now)
            && left >= give_up.map_or(patience, |at| at.saturating_duration_since(now))
        {
            return Err(Held::Silenced(left));
        }
        let (grant, granted) = oneshot::channel();
        let place = Place { shared: &self.shared, sequence: self.shared.enqueue(ask, now, grant) };
        let result = self.wait(granted, give_up).await;
        drop(place);
        result
    }

    async fn wait(
        &self,
        mut granted: oneshot::Receiver<Permit>,
        give_up: Option<Instant>,
    ) -> Result<Permit, Held> {
        loop {
            let wake = self.shared.pump();
            let until = [wake, give_up].into_iter().flatten().min();
            let date = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let permit = tokio::select! {
                biased;
                permit = &mut granted => Some(permit),
                () = self.shared.dated.notified() => None,
                () = date => None,
            };
            if let Some(permit) = permit {
                return permit.map_err(|_| Held::TimedOut);
            }
            let now = self.shared.clock.mono();
            if give_up.is_some_and(|at| at <= now) {
                // A grant may have been made in this very moment.
                return granted
                    .try_recv()
                    .map_err(|_| self.silence(now).map_or(Held::TimedOut, Held::Silenced));
            }
        }
    }

    /// How long the service still wants silence.
    pub fn silence(&self, now: Instant) -> Option<Duration> {
        let state = self.shared.lock();
        state.limiter.silent_until(now).map(|until| until - now)
    }

    /// Reads the service's own account of what is left.
    pub fn rate_limit(&self, seen: RateLimit) {
        let now = self.shared.clock.mono();
        self.shared.lock().limiter.rate_limit(now, seen);
    }

    /// Requests of `pool` that may run at once as things stand.
    pub fn concurrency(&self, pool: Pool) -> u32 {
        self.shared.lock().limiter.concurrency(pool)
    }
}

/// A place in the queue; dropping it leaves the queue, and leaves driving to those who are still in it.
struct Place<'a> {
    shared: &'a Arc<Shared>,
    sequence: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.shared.lock();
            let found = state.waiting.iter().position(|waiter| waiter.sequence == self.sequence);
            found.map(|index| state.waiting.swap_remove(index))
        };
        drop(left);
        self.shared.pump_for_others();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the limiter")
    }

    fn enqueue(&self, ask: Ask, since: Instant, grant: oneshot::Sender<Permit>) -> u64 {
        let mut state = self.lock();
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let Ask { priority, pool, cost } = ask;
        state.waiting.push(Waiter { sequence, priority, pool, cost, since, grant });
        sequence
    }

    /// Lets through everyone who may go; returns when to look again.
    fn pump(self: &Arc<Self>) -> Option<Instant> {
        let now = self.clock.mono();
        let (granted, wake) = {
            let mut state = self.lock();
            state.choose(now)
        };
        // A receiver that is gone drops its permit here, outside the lock.
        for waiter in granted {
            let permit = Permit { shared: Arc::clone(self), pool: waiter.pool };
            drop(waiter.grant.send(permit));
        }
        wake
    }

    /// As [`Shared::pump`], by who does not wait: if there is a date to wait for, one who does is told of it.
    fn pump_for_others(self: &Arc<Self>) {
        if self.pump().is_some() {
            self.dated.notify_one();
        }
    }
}

impl State {
    fn choose(&mut self, now: Instant) -> (Vec<Waiter>, Option<Instant>) {
        self.waiting.sort_by_key(|waiter| rank(now, waiter.priority, waiter.since, waiter.sequence));
        let mut granted = Vec::new();
        let mut wake = None;
        let mut full = Vec::new();
        let mut index = 0;
        while let Some(waiter) = self.waiting.get(index) {
            // A full pool blocks those behind in it, except that an interactive request has slots of its own
            // and comes first anyway.
            if full.contains(&waiter.pool) {
                index += 1;
                continue;
            }
            match self.limiter.admit(now, waiter.priority, waiter.pool, waiter.cost) {
                Admission::Go => granted.push(self.waiting.remove(index)),
                Admission::Full => {
                    full.push(waiter.pool);
                    index += 1;
                }
                Admission::Until(date) => {
                    wake = Some(date);
                    break;
                }
            }
        }
        (granted, wake)
    }
}

impl Permit {
    /// What the answer says about the load; in effect at once, also while the body is still streamed.
    pub fn heard(&self, signal: Signal) {
        let now = self.shared.clock.mono();
        self.shared.lock().limiter.heard(now, self.pool, signal);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.lock().limiter.finished(self.pool);
        self.shared.pump_for_others();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededClock;

    const LONG: Duration = Duration::from_secs(60);

    fn gate(config: LimiterConfig) -> Gate {
        Gate::new(config, Arc::new(SeededClock::with_seed(1)))
    }

    fn ask(priority: Priority) -> Ask {
        Ask { priority, pool: Pool::Metadata, cost: 1 }
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_leave_the_queue_by_priority_and_not_by_arrival() {
        let gate = gate(LimiterConfig { max_metadata: 1, ..LimiterConfig::default() });
        let first = gate.pass(ask(Priority::Listing), None, LONG).await.expect("nobody is there");
        let (left, mut order) = tokio::sync::mpsc::unbounded_channel();
        for priority in [Priority::Enumeration, Priority::Prefetch, Priority::Upload, Priority::Listing] {
            let (gate, left) = (gate.clone(), left.clone());
            tokio::spawn(async move {
                let permit = gate.pass(ask(priority), None, LONG).await.expect("a turn");
                left.send(priority).expect("the test listens");
                drop(permit);
            });
        }
        tokio::task::yield_now().await;
        drop(first);
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(order.recv().await.expect("someone leaves"));
        }
        assert_eq!(seen, [Priority::Listing, Priority::Upload, Priority::Prefetch, Priority::Enumeration]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_sleeps_until_the_bucket_has_its_token() {
        let config = LimiterConfig { burst: 10.0, rate_per_s: 1.0, ..LimiterConfig::default() };
        let gate = gate(config);
        let began = Instant::now();
        for _ in 0..13 {
            gate.pass(ask(Priority::Upload), None, LONG).await.expect("a turn");
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(6), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_goes_away_holds_nobody_up() {
        let gate = gate(LimiterConfig { max_metadata: 1, ..LimiterConfig::default() });
        let first = gate.pass(ask(Priority::Upload), None, LONG).await.expect("nobody is there");
        let gone =
            tokio::time::timeout(Duration::from_secs(1), gate.pass(ask(Priority::Upload), None, LONG)).await;
        assert!(gone.is_err());
        let late =
            gate.pass(ask(Priority::Upload), Some(Instant::now() + Duration::from_secs(1)), LONG).await;
        assert_eq!(late.expect_err("the time is up"), Held::TimedOut);
        drop(first);
        gate.pass(ask(Priority::Enumeration), None, LONG).await.expect("the slot is free");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_slot_goes_when_the_silence_is_over_that_its_last_user_was_told_of() {
        let gate = gate(LimiterConfig { max_metadata: 1, ..LimiterConfig::default() });
        let first = gate.pass(ask(Priority::Upload), None, LONG).await.expect("nobody is there");
        let waiting = [Priority::Enumeration, Priority::Upload].map(|priority| {
            let gate = gate.clone();
            tokio::spawn(async move { drop(gate.pass(ask(priority), None, LONG).await.expect("a turn")) })
        });
        tokio::task::yield_now().await;
        first.heard(Signal::Refused(Duration::from_secs(5)));
        drop(first);
        for waiter in waiting {
            tokio::time::timeout(LONG, waiter).await.expect("the silence is over").expect("no panic");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_leaves_the_date_it_waited_for_to_the_others() {
        let gate = gate(LimiterConfig { max_metadata: 1, ..LimiterConfig::default() });
        let first = gate.pass(ask(Priority::Upload), None, LONG).await.expect("nobody is there");
        let wait =
            |gate: Gate| tokio::spawn(async move { gate.pass(ask(Priority::Upload), None, LONG).await });
        let (gone, left) = (wait(gate.clone()), wait(gate.clone()));
        tokio::task::yield_now().await;
        first.heard(Signal::Refused(Duration::from_secs(5)));
        drop(first);
        tokio::task::yield_now().await;
        gone.abort();
        assert!(gone.await.is_err());
        drop(tokio::time::timeout(LONG, left).await.expect("the silence is over").expect("no panic"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_that_is_full_does_not_hold_up_the_other() {
        let gate = gate(LimiterConfig { max_content: 1, ..LimiterConfig::default() });
        let content = Ask { pool: Pool::Content, ..ask(Priority::Listing) };
        let _first = gate.pass(content, None, LONG).await.expect("nobody is there");
        let waiting = gate.pass(content, None, LONG);
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut waiting).await.is_err());
        gate.pass(ask(Priority::Enumeration), None, LONG).await.expect("another pool");
    }
}
