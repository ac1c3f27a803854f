//! The way to the service: what delays, loses and reorders requests and answers.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use onedrivefs::auth::{AccessToken, AuthError, TokenSource};
use onedrivefs::clock::Clock;
use onedrivefs::emulator::Emulator;
use onedrivefs::graph::transport::{Lane, RawBody, Transport, TransportError};
use tokio::time::Instant;

use super::dice::Dice;
use super::log;
use super::ops::Weather;
use crate::sync_support::transport::InProcess;

/// Wall time that goes on from one runtime to the next, and random bytes from the seed.
#[derive(Debug)]
pub struct SimClock {
    began: Mutex<(SystemTime, Option<Instant>)>,
    dice: Mutex<Dice>,
}

impl SimClock {
    pub fn new(seed: u64) -> Self {
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        Self { began: Mutex::new((epoch, None)), dice: Mutex::new(Dice::new(seed ^ 0xC10C)) }
    }

    /// A runtime ends: its time stands still until the next one begins.
    pub fn stop(&self) {
        let now = self.wall();
        *lock(&self.began) = (now, None);
    }

    /// A runtime has begun; called inside it.
    pub fn start(&self) {
        lock(&self.began).1 = Some(Instant::now());
    }

    /// Milliseconds since the beginning of the run.
    pub fn ms(&self) -> u128 {
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        self.wall().duration_since(epoch).unwrap_or_default().as_millis()
    }
}

impl Clock for SimClock {
    fn wall(&self) -> SystemTime {
        let (wall, since) = *lock(&self.began);
        wall + since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut dice = lock(&self.dice);
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&dice.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// A new token whenever the service refuses the old one.
#[derive(Debug, Default)]
pub struct Tokens(AtomicU64);

impl TokenSource for Tokens {
    fn token(&self) -> BoxFuture<'_, Result<AccessToken, AuthError>> {
        let token = AccessToken::new(format!("token-{}", self.0.load(Ordering::SeqCst)));
        Box::pin(std::future::ready(Ok(token)))
    }

    fn refresh<'a>(
        &'a self,
        stale: &'a AccessToken,
        _claims: Option<String>,
    ) -> BoxFuture<'a, Result<AccessToken, AuthError>> {
        Box::pin(async move {
            let now = format!("token-{}", self.0.load(Ordering::SeqCst));
            if stale.expose() == now {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
            self.token().await
        })
    }
}

/// What happened, line by line.
#[derive(Clone)]
pub struct Trace {
    lines: Arc<Mutex<Vec<String>>>,
    clock: Arc<SimClock>,
}

impl Trace {
    pub fn new(clock: Arc<SimClock>) -> Self {
        Self { lines: Arc::default(), clock }
    }

    pub fn note(&self, line: impl fmt::Display) {
        let line = format!("{:>9} {line}", self.clock.ms());
        let mut lines = lock(&self.lines);
        lines.extend(log::take().into_iter().map(|line| format!("          : {line}")));
        lines.push(line);
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.lines))
    }
}

/// The transport of a run.
pub struct Wire {
    service: InProcess,
    trace: Trace,
    state: Mutex<State>,
}

struct State {
    dice: Dice,
    weather: Weather,
    sent: u64,
    lost: u64,
}

impl fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Wire")
    }
}

/// What becomes of one request.
struct Fate {
    number: u64,
    way_there: Duration,
    way_back: Duration,
    lost_before: bool,
    lost_after: bool,
}

impl Wire {
    pub fn new(emulator: Emulator, trace: Trace, seed: u64) -> Self {
        let dice = Dice::new(seed ^ 0x3175);
        let state = State { dice, weather: Weather::Calm, sent: 0, lost: 0 };
        Self { service: InProcess(emulator), trace, state: Mutex::new(state) }
    }

    pub fn set_weather(&self, weather: Weather) {
        lock(&self.state).weather = weather;
    }

    /// Requests sent, and those of which the request or the answer was lost.
    pub fn counts(&self) -> (u64, u64) {
        let state = lock(&self.state);
        (state.sent, state.lost)
    }

    fn fate(&self) -> Fate {
        let mut state = lock(&self.state);
        state.sent += 1;
        let number = state.sent;
        let most = match state.weather {
            Weather::Slow { ms } => u64::from(ms),
            Weather::Calm | Weather::Lossy { .. } | Weather::Cut => 60,
        };
        let mut way = || Duration::from_millis(1 + state.dice.below(most));
        let (way_there, way_back) = (way(), way());
        let (before, after) = match state.weather {
            Weather::Lossy { before, after } => (before, after),
            Weather::Cut => (1000, 0),
            Weather::Calm | Weather::Slow { .. } => (0, 0),
        };
        let lost_before = state.dice.chance(before.into());
        let lost_after = state.dice.chance(after.into());
        state.lost += u64::from(lost_before || lost_after);
        Fate { number, way_there, way_back, lost_before, lost_after }
    }
}

impl Transport for Wire {
    fn send(
        &self,
        request: Request<Bytes>,
        _lane: Lane,
    ) -> BoxFuture<'_, Result<Response<RawBody>, TransportError>> {
        Box::pin(async move {
            let gone = || TransportError::Broken(Arc::new(std::io::Error::other("lost on the way")));
            let fate = self.fate();
            let number = fate.number;
            let what =
                format!("{} {}", request.method(), request.uri().path_and_query().map_or("", |p| p.as_str()));
            self.trace.note(format_args!("> {number} {what}"));
            tokio::time::sleep(fate.way_there).await;
            if fate.lost_before {
                self.trace.note(format_args!("< {number} lost before"));
                return Err(gone());
            }
            let answer = self.service.answer(request).await;
            let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            self.trace.note(format_args!("= {number} {status}"));
            tokio::time::sleep(fate.way_back).await;
            if fate.lost_after {
                self.trace.note(format_args!("< {number} lost after"));
                return Err(gone());
            }
            self.trace.note(format_args!("< {number} {status}"));
            answer
        })
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
