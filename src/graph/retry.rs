//! Which answer may be asked for again, and when. Pure.
//!
//! A request that may have been executed is sent again only if a second execution does no harm
//! ([`Repeat::Safe`], [`Repeat::Idempotent`]). A refusal (429, 509, 503 with Retry-After, 401) and a connection that
//! was never made are not executions, so that anything may be sent again after them. A 503 may come from something on the
//! way, behind which the service did what was asked ([`is_certain`]): sending it again does no harm where the
//! request says what it expects to find, but if that is refused, the first may have been the reason.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

/// What a second execution of a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Nothing: it only reads.
    Safe,
    /// The same as one execution.
    Idempotent,
    /// Possibly harm: a second version, a conflict with itself.
    Once,
}

/// How one attempt ended without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: nothing was sent.
    NotSent,
    /// The connection broke after the request may have been read, or its answer broke off.
    Broken,
    /// No answer in the time of one attempt.
    TimedOut,
    /// An answer with this status.
    Status(u16),
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send again after this long.
    Retry(Duration),
    /// Report the failure.
    GiveUp,
}

const MAX_ATTEMPTS: u32 = 5;
const MAX_CONNECTS: u32 = 2;
const FIRST_DELAY: Duration = Duration::from_millis(400);
const MAX_DELAY: Duration = Duration::from_secs(20);
const RECONNECT_DELAY: Duration = Duration::from_millis(200);
const FIRST_THROTTLE_DELAY: Duration = Duration::from_secs(1);
const MAX_THROTTLE_DELAY: Duration = Duration::from_secs(120);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Whether the attempt numbered `attempt` (from 1) that ended in `failure` is followed by another.
///
/// `retry_after` is what the answer said; `left` is the time until the call's deadline; `jitter` is a random
/// number. Never waits beyond `left`.
pub fn decide(
    repeat: Repeat,
    failure: Failure,
    attempt: u32,
    retry_after: Option<Duration>,
    left: Duration,
    jitter: u64,
) -> Verdict {
    let not_executed = is_refusal(failure, retry_after) || failure == Failure::NotSent;
    let may_repeat = not_executed || (repeat != Repeat::Once && is_passing(failure));
    let limit = if failure == Failure::NotSent { MAX_CONNECTS } else { MAX_ATTEMPTS };
    if !may_repeat || attempt >= limit {
        return Verdict::GiveUp;
    }
    let delay = match (failure, retry_after) {
        (_, Some(told)) => told,
        (Failure::NotSent, None) => jittered(RECONNECT_DELAY, jitter),
        (_, None) if is_refusal(failure, None) => throttle_delay(attempt, jitter),
        (_, None) => jittered(doubled(FIRST_DELAY, attempt, MAX_DELAY), jitter),
    };
    if delay < left { Verdict::Retry(delay) } else { Verdict::GiveUp }
}

/// How long to stay silent after refusal number `attempt` (from 1) that did not say how long.
pub fn throttle_delay(attempt: u32, jitter: u64) -> Duration {
    jittered(doubled(FIRST_THROTTLE_DELAY, attempt, MAX_THROTTLE_DELAY), jitter)
}

/// Whether a refusal comes from the service itself, which then did not execute what it was asked for.
pub fn is_certain(failure: Failure) -> bool {
    failure != Failure::Status(503)
}

/// Whether the service says with this answer that it did not execute what was asked for (graph-api 11.1).
pub fn is_refusal(failure: Failure, retry_after: Option<Duration>) -> bool {
    match failure {
        Failure::Status(429 | 509) => true,
        Failure::Status(503) => retry_after.is_some(),
        Failure::Status(_) | Failure::NotSent | Failure::Broken | Failure::TimedOut => false,
    }
}

fn is_passing(failure: Failure) -> bool {
    match failure {
        Failure::NotSent | Failure::Broken | Failure::TimedOut => true,
        Failure::Status(status) => matches!(status, 408 | 429 | 500 | 502 | 503 | 504 | 509),
    }
}

fn doubled(first: Duration, attempt: u32, max: Duration) -> Duration {
    first.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(max)
}

/// Between half of `delay` and all of it.
fn jittered(delay: Duration, jitter: u64) -> Duration {
    let half = delay / 2;
    let part = (jitter % 1024) as u32;
    half + half * part / 1024
}

/// The wait that an answer asks for: `Retry-After` as whole or decimal seconds or as a date, and
/// `RateLimit-Reset` if that is longer (graph-api 11.1). At most an hour.
///
/// A date is read against the answer's own `Date`, so that a wrong local clock does not matter.
pub fn retry_after(headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let here = text("date").and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(wall);
    let told = text("retry-after").and_then(|value| {
        seconds(value).or_else(|| {
            let until = httpdate::parse_http_date(value).ok()?;
            Some(until.duration_since(here).unwrap_or(Duration::ZERO))
        })
    })?;
    let reset = text("ratelimit-reset").and_then(seconds).unwrap_or(Duration::ZERO);
    Some(told.max(reset).min(MAX_RETRY_AFTER))
}

fn seconds(text: &str) -> Option<Duration> {
    let number: f64 = text.parse().ok()?;
    (number.is_finite() && number >= 0.0).then(|| Duration::from_secs_f64(number.min(1e6)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT: Duration = Duration::from_secs(20);

    fn verdict(repeat: Repeat, failure: Failure, retry_after: Option<u64>) -> bool {
        let told = retry_after.map(Duration::from_secs);
        decide(repeat, failure, 1, told, LEFT, 7) != Verdict::GiveUp
    }

    #[test]
    fn a_change_of_unknown_outcome_is_never_sent_again_unless_repeating_it_does_no_harm() {
        for failure in [
            Failure::Broken,
            Failure::TimedOut,
            Failure::Status(500),
            Failure::Status(502),
            Failure::Status(503),
            Failure::Status(504),
            Failure::Status(408),
        ] {
            assert!(!verdict(Repeat::Once, failure, None), "{failure:?}");
            assert!(verdict(Repeat::Idempotent, failure, None), "{failure:?}");
            assert!(verdict(Repeat::Safe, failure, None), "{failure:?}");
        }
    }

    #[test]
    fn what_was_refused_or_never_sent_may_always_be_sent_again() {
        assert!(verdict(Repeat::Once, Failure::NotSent, None));
        assert!(verdict(Repeat::Once, Failure::Status(429), None));
        assert!(verdict(Repeat::Once, Failure::Status(429), Some(3)));
        assert!(verdict(Repeat::Once, Failure::Status(509), None));
        assert!(verdict(Repeat::Once, Failure::Status(503), Some(3)));
    }

    #[test]
    fn answers_that_will_not_change_are_final() {
        for status in [200, 304, 400, 401, 403, 404, 409, 410, 412, 416, 423, 501, 507] {
            assert!(!verdict(Repeat::Safe, Failure::Status(status), None), "{status}");
        }
    }

    #[test]
    fn no_wait_reaches_beyond_the_deadline() {
        let left = Duration::from_secs(5);
        let told = Some(Duration::from_secs(5));
        assert_eq!(decide(Repeat::Safe, Failure::Status(429), 1, told, left, 0), Verdict::GiveUp);
        let told = Some(Duration::from_secs(4));
        assert_eq!(
            decide(Repeat::Safe, Failure::Status(429), 1, told, left, 0),
            Verdict::Retry(Duration::from_secs(4))
        );
    }

    #[test]
    fn delays_grow_stay_bounded_and_attempts_end() {
        let long = Duration::from_secs(600);
        let mut last = Duration::ZERO;
        for attempt in 1..MAX_ATTEMPTS {
            match decide(Repeat::Safe, Failure::Status(503), attempt, None, long, 0) {
                Verdict::Retry(delay) => {
                    assert!(delay > last && delay <= MAX_DELAY);
                    last = delay;
                }
                Verdict::GiveUp => panic!("attempt {attempt} is followed by another"),
            }
        }
        assert_eq!(decide(Repeat::Safe, Failure::Status(503), MAX_ATTEMPTS, None, long, 0), Verdict::GiveUp);
        for (attempt, jitter) in [(1, u64::MAX), (30, 0), (u32::MAX, u64::MAX)] {
            assert!(throttle_delay(attempt, jitter) <= MAX_THROTTLE_DELAY);
        }
    }

    #[test]
    fn every_form_of_retry_after_is_understood() {
        let wall = httpdate::parse_http_date("Sat, 21 Nov 2026 12:00:00 GMT").expect("a date");
        type Headers = &'static [(&'static str, &'static str)];
        let cases: &[(Headers, Option<f64>)] = &[
            (&[], None),
            (&[("retry-after", "7")], Some(7.0)),
            (&[("retry-after", " 2.128 ")], Some(2.128)),
            (&[("retry-after", "0")], Some(0.0)),
            (&[("retry-after", "-3")], None),
            (&[("retry-after", "soon")], None),
            (&[("retry-after", "NaN")], None),
            (&[("retry-after", "inf")], None),
            (&[("retry-after", "999999999")], Some(3600.0)),
            (&[("retry-after", "Sat, 21 Nov 2026 12:00:30 GMT")], Some(30.0)),
            (&[("retry-after", "Sat, 21 Nov 2026 11:00:30 GMT")], Some(0.0)),
            (
                &[
                    ("retry-after", "Sat, 21 Nov 2026 13:00:05 GMT"),
                    ("date", "Sat, 21 Nov 2026 13:00:00 GMT"),
                ],
                Some(5.0),
            ),
            (&[("retry-after", "3"), ("ratelimit-reset", "11")], Some(11.0)),
            (&[("ratelimit-reset", "11")], None),
        ];
        for (headers, expected) in cases {
            let map: HeaderMap = headers
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().expect("header")))
                .collect();
            let found = retry_after(&map, wall).map(|wait| wait.as_secs_f64());
            assert_eq!(found, *expected, "{headers:?}");
        }
    }
}
