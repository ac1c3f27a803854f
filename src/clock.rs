//! Time and randomness behind a trait, so that tests can pause, shift and seed them.
//!
//! Rule: nothing else in the program reads the wall clock, the monotonic clock or the
//! system's random source. Timers use `tokio::time`, which a test pauses.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Where wall time, monotonic time and random bytes come from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Wall time: for what users and the service see. May jump.
    fn wall(&self) -> SystemTime;

    /// Monotonic time: for every deadline and delay.
    fn mono(&self) -> Instant {
        Instant::now()
    }

    /// Fills `bytes` with random data (ids, jitter; not for keys).
    fn random(&self, bytes: &mut [u8]);

    /// A random number below `bound` (which must not be 0).
    fn random_below(&self, bound: u64) -> u64 {
        let mut bytes = [0u8; 8];
        self.random(&mut bytes);
        u64::from_le_bytes(bytes) % bound
    }

    /// A random version 4 GUID in its usual text form.
    fn guid(&self) -> String {
        let mut bytes = [0u8; 16];
        self.random(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }
}

/// The machine's own clock and random source.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the kernel's random source answers once the machine is up");
    }
}

/// Wall time derived from tokio's (possibly paused) clock, random bytes from a seed.
///
/// Two runs with the same seed on a paused runtime see the same times and the same bytes.
#[derive(Debug)]
pub struct SeededClock {
    epoch: SystemTime,
    start: Instant,
    state: Mutex<u64>,
}

impl SeededClock {
    /// Starts at `epoch`; must be called inside a tokio runtime.
    pub fn new(epoch: SystemTime, seed: u64) -> Self {
        Self { epoch, start: Instant::now(), state: Mutex::new(seed) }
    }

    /// Starts at 2026-01-01T00:00:00Z.
    pub fn with_seed(seed: u64) -> Self {
        Self::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600), seed)
    }
}

impl Clock for SeededClock {
    fn wall(&self) -> SystemTime {
        self.epoch + self.start.elapsed()
    }

    // SplitMix64: small, seedable, and good enough for ids and jitter.
    fn random(&self, bytes: &mut [u8]) {
        let mut state = self.state.lock().expect("no code panics while it holds the seed");
        for chunk in bytes.chunks_mut(8) {
            *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            chunk.copy_from_slice(&z.to_le_bytes()[..chunk.len()]);
        }
    }
}
