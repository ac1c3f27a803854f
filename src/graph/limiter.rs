//! How many requests may go out, and whose is next. Pure: takes `now`, returns decisions.
//!
//! Three gates in a row, all of which a request must pass: the silence the service asked for, a token
//! bucket (the service's limit per user and time), and a number of requests at once that grows with success
//! and halves when the service refuses (graph-api 11.2). A fifth of bucket and slots is kept for requests
//! that a user waits for.

use std::time::Duration;

use tokio::time::Instant;

/// Who waits for the request; the first is the most urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A program waits for this answer.
    Interactive,
    /// A program waits for a listing, of which this is a part.
    Listing,
    /// Unsent changes.
    Upload,
    /// Content that will probably be read.
    Prefetch,
    /// In the background: the whole drive, and what is to be kept here.
    Enumeration,
}

/// What a request occupies while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Short answers from Graph.
    Metadata,
    /// Content from and to the data hosts.
    Content,
}

/// Numbers of the limiter; all may be set by the user.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimiterConfig {
    /// Requests per second, sustained (3000 per five minutes and user).
    pub rate_per_s: f64,
    /// Requests at once after a quiet time.
    pub burst: f64,
    /// Part of bucket and slots kept for interactive requests, 0 to 1.
    pub interactive_share: f64,
    /// Most Graph requests in flight.
    pub max_metadata: u32,
    /// Most transfers in flight.
    pub max_content: u32,
}

impl Default for LimiterConfig {
    fn default() -> Self {
        Self { rate_per_s: 10.0, burst: 600.0, interactive_share: 0.2, max_metadata: 8, max_content: 16 }
    }
}

/// Whether a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is counted as started: call [`Limiter::finished`] when it ends.
    Go,
    /// Nobody of this or a lower priority may go before then.
    Until(Instant),
    /// The pool is full: wait for a request of it to finish.
    Full,
}

/// What an answer says about the load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Signal {
    /// Answered.
    Fine,
    /// Refused for load; be silent for this long.
    Refused(Duration),
    /// No answer, or a failure of the service: neither faster nor slower.
    Failed,
}

/// `RateLimit-*` headers of one answer (graph-api 11.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Units per window.
    pub limit: f64,
    /// Units left in it.
    pub remaining: f64,
    /// Until the window ends.
    pub reset: Duration,
}

/// Below this part of the service's window we begin to spread what is left of it.
const SLOW_BELOW: f64 = 0.2;
/// One halving per this time: answers to requests sent together are one event.
const HALVING_INTERVAL: Duration = Duration::from_secs(1);
/// A waiting request of low priority competes as a listing after this long.
const AGED: Duration = Duration::from_secs(15);

/// The state of one account's limit.
#[derive(Clone, Debug)]
pub struct Limiter {
    config: LimiterConfig,
    tokens: f64,
    filled_at: Instant,
    silent_until: Option<Instant>,
    slow: Option<Slow>,
    metadata: Slots,
    content: Slots,
}

/// The service's window is nearly used up: background requests keep this distance until it ends.
#[derive(Clone, Copy, Debug)]
struct Slow {
    until: Instant,
    gap: Duration,
    next: Instant,
}

/// Requests at once: additive increase, multiplicative decrease.
#[derive(Clone, Copy, Debug)]
struct Slots {
    max: f64,
    limit: f64,
    in_flight: u32,
    halved_at: Option<Instant>,
}

impl Limiter {
    /// A full bucket.
    pub fn new(config: LimiterConfig, now: Instant) -> Self {
        Self {
            config,
            tokens: config.burst,
            filled_at: now,
            silent_until: None,
            slow: None,
            metadata: Slots::new(config.max_metadata),
            content: Slots::new(config.max_content),
        }
    }

    /// Until when the service wants silence, if it does.
    pub fn silent_until(&self, now: Instant) -> Option<Instant> {
        self.silent_until.filter(|&until| until > now)
    }

    /// Whether a request that costs `cost` resource units may go now; counts it as started if so.
    pub fn admit(&mut self, now: Instant, priority: Priority, pool: Pool, cost: u32) -> Admission {
        if let Some(until) = self.silent_until(now) {
            return Admission::Until(until);
        }
        let background = priority != Priority::Interactive;
        if background && let Some(slow) = self.slow.filter(|slow| slow.until > now && slow.next > now) {
            return Admission::Until(slow.next);
        }
        self.fill(now);
        let share = self.config.interactive_share;
        let price = price(cost).min(self.config.burst * (1.0 - share)).max(0.0);
        let reserve = if background { self.config.burst * share } else { 0.0 };
        let missing = reserve + price - self.tokens;
        if missing > 1e-9 {
            let wait = missing / self.config.rate_per_s.max(1e-3);
            return Admission::Until(now + Duration::from_secs_f64(wait.clamp(0.001, 3600.0)));
        }
        if !self.slots(pool).take(background, share) {
            return Admission::Full;
        }
        self.tokens -= price;
        if let Some(slow) = &mut self.slow {
            slow.next = now + slow.gap;
        }
        Admission::Go
    }

    /// A request that was admitted has ended.
    pub fn finished(&mut self, pool: Pool) {
        let slots = self.slots(pool);
        slots.in_flight = slots.in_flight.saturating_sub(1);
    }

    /// What an answer says about the load; its request may go on (a body that is still streamed).
    pub fn heard(&mut self, now: Instant, pool: Pool, signal: Signal) {
        match signal {
            Signal::Fine => self.slots(pool).grow(),
            Signal::Failed => {}
            Signal::Refused(pause) => {
                self.slots(pool).halve(now);
                let until = now + pause;
                self.silent_until = Some(self.silent_until.map_or(until, |already| already.max(until)));
            }
        }
    }

    /// Reads the service's own account of what is left.
    pub fn rate_limit(&mut self, now: Instant, seen: RateLimit) {
        if seen.limit <= 0.0 || seen.remaining >= seen.limit * SLOW_BELOW {
            self.slow = None;
            return;
        }
        let reset = seen.reset.min(Duration::from_secs(600));
        // Each request is taken to cost two units, the price of most of ours.
        let requests_left = (seen.remaining / 2.0).max(1.0);
        let gap = reset.div_f64(requests_left);
        let next = if seen.remaining <= 0.0 { now + reset } else { now + gap };
        self.slow = Some(Slow { until: now + reset, gap, next });
    }

    /// Requests of `pool` that may run at once as things stand.
    pub fn concurrency(&self, pool: Pool) -> u32 {
        match pool {
            Pool::Metadata => self.metadata.whole(),
            Pool::Content => self.content.whole(),
        }
    }

    fn slots(&mut self, pool: Pool) -> &mut Slots {
        match pool {
            Pool::Metadata => &mut self.metadata,
            Pool::Content => &mut self.content,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.config.rate_per_s).min(self.config.burst);
        self.filled_at = self.filled_at.max(now);
    }
}

impl Slots {
    fn new(max: u32) -> Self {
        let max = f64::from(max.max(1));
        Self { max, limit: max, in_flight: 0, halved_at: None }
    }

    fn whole(&self) -> u32 {
        self.limit as u32
    }

    /// Interactive requests always have one slot more than the background may fill.
    fn take(&mut self, background: bool, share: f64) -> bool {
        let limit = self.whole().max(1);
        let kept = (f64::from(limit) * share).ceil() as u32;
        let room = if background { limit.saturating_sub(kept).max(1) } else { limit.max(2) };
        let free = self.in_flight < room;
        self.in_flight += u32::from(free);
        free
    }

    fn grow(&mut self) {
        self.limit = (self.limit + 1.0 / self.limit).min(self.max);
    }

    fn halve(&mut self, now: Instant) {
        if self.halved_at.is_some_and(|at| now.saturating_duration_since(at) < HALVING_INTERVAL) {
            return;
        }
        self.halved_at = Some(now);
        self.limit = (self.limit / 2.0).max(1.0);
    }
}

/// Tokens for `cost` resource units: the bucket counts requests, and one of ours costs one or two units.
fn price(cost: u32) -> f64 {
    (f64::from(cost) / 2.0).max(1.0)
}

/// Where a request waits: lower goes first. Age lifts the background to the rank of a listing, so that steady
/// work of a higher priority delays it but does not starve it.
pub fn rank(now: Instant, priority: Priority, waiting_since: Instant, sequence: u64) -> (Priority, u64) {
    let aged = now.saturating_duration_since(waiting_since) >= AGED;
    (if aged { priority.min(Priority::Listing) } else { priority }, sequence)
}

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
