use proptest::prelude::*;

use super::*;

const ALL: [Priority; 5] =
    [Priority::Interactive, Priority::Listing, Priority::Upload, Priority::Prefetch, Priority::Enumeration];

fn config() -> LimiterConfig {
    LimiterConfig {
        rate_per_s: 10.0,
        burst: 100.0,
        interactive_share: 0.2,
        max_metadata: 1000,
        max_content: 1000,
    }
}

fn seconds(from: Instant, number: f64) -> Instant {
    from + Duration::from_secs_f64(number)
}

#[test]
fn a_fifth_of_the_bucket_is_kept_for_interactive_requests() {
    let start = Instant::now();
    for background in &ALL[1..] {
        let mut limiter = Limiter::new(config(), start);
        let burst = (0..)
            .take_while(|_| limiter.admit(start, *background, Pool::Metadata, 1) == Admission::Go)
            .count();
        assert_eq!(burst, 80, "{background:?}");
        let rest = (0..)
            .take_while(|_| limiter.admit(start, Priority::Interactive, Pool::Metadata, 1) == Admission::Go)
            .count();
        assert_eq!(rest, 20);
    }
}

#[test]
fn an_empty_bucket_names_the_time_at_which_the_request_may_go() {
    let start = Instant::now();
    let mut limiter = Limiter::new(config(), start);
    while limiter.admit(start, Priority::Upload, Pool::Metadata, 2) == Admission::Go {}
    let Admission::Until(date) = limiter.admit(start, Priority::Upload, Pool::Metadata, 2) else {
        panic!("the bucket is empty");
    };
    assert!(date > start && date <= seconds(start, 0.11));
    assert_eq!(limiter.admit(date, Priority::Upload, Pool::Metadata, 2), Admission::Go);
}

#[test]
fn a_silence_holds_for_every_priority_and_pool_and_is_never_shortened() {
    let start = Instant::now();
    let mut limiter = Limiter::new(config(), start);
    assert_eq!(limiter.admit(start, Priority::Upload, Pool::Metadata, 1), Admission::Go);
    limiter.heard(start, Pool::Metadata, Signal::Refused(Duration::from_secs(30)));
    limiter.heard(start, Pool::Content, Signal::Refused(Duration::from_secs(5)));
    for priority in ALL {
        for pool in [Pool::Metadata, Pool::Content] {
            let answer = limiter.admit(seconds(start, 29.9), priority, pool, 1);
            assert_eq!(answer, Admission::Until(seconds(start, 30.0)));
        }
    }
    assert_eq!(limiter.admit(seconds(start, 30.0), Priority::Enumeration, Pool::Content, 1), Admission::Go);
}

#[test]
fn refusals_halve_the_requests_at_once_and_successes_bring_them_back() {
    let start = Instant::now();
    let mut limiter = Limiter::new(LimiterConfig { max_metadata: 8, ..config() }, start);
    assert_eq!(limiter.concurrency(Pool::Metadata), 8);
    for _ in 0..5 {
        limiter.heard(start, Pool::Metadata, Signal::Refused(Duration::ZERO));
    }
    assert_eq!(limiter.concurrency(Pool::Metadata), 4, "answers of one moment are one event");
    for second in 2..20 {
        limiter.heard(seconds(start, f64::from(second)), Pool::Metadata, Signal::Refused(Duration::ZERO));
    }
    assert_eq!(limiter.concurrency(Pool::Metadata), 1);
    assert_eq!(limiter.concurrency(Pool::Content), 1000, "the other pool is another matter");
    for _ in 0..200 {
        limiter.heard(seconds(start, 30.0), Pool::Metadata, Signal::Fine);
    }
    assert_eq!(limiter.concurrency(Pool::Metadata), 8);
}

#[test]
fn the_background_never_fills_the_last_slot() {
    let start = Instant::now();
    for max in 1..20 {
        let mut limiter = Limiter::new(LimiterConfig { max_content: max, ..config() }, start);
        while limiter.admit(start, Priority::Prefetch, Pool::Content, 1) == Admission::Go {}
        assert_eq!(limiter.admit(start, Priority::Prefetch, Pool::Content, 1), Admission::Full);
        assert_eq!(limiter.admit(start, Priority::Interactive, Pool::Content, 1), Admission::Go, "max {max}");
    }
}

#[test]
fn a_window_that_is_nearly_used_up_is_spread_until_it_ends() {
    let start = Instant::now();
    let mut limiter = Limiter::new(config(), start);
    let reset = Duration::from_secs(30);
    limiter.rate_limit(start, RateLimit { limit: 1200.0, remaining: 600.0, reset });
    assert_eq!(limiter.admit(start, Priority::Enumeration, Pool::Metadata, 1), Admission::Go);
    limiter.rate_limit(start, RateLimit { limit: 1200.0, remaining: 60.0, reset });
    assert_eq!(
        limiter.admit(start, Priority::Enumeration, Pool::Metadata, 1),
        Admission::Until(seconds(start, 1.0)),
        "30 requests in 30 s"
    );
    assert_eq!(limiter.admit(start, Priority::Interactive, Pool::Metadata, 1), Admission::Go);
    limiter.rate_limit(start, RateLimit { limit: 1200.0, remaining: 0.0, reset });
    assert_eq!(limiter.admit(start, Priority::Upload, Pool::Metadata, 1), Admission::Until(start + reset));
    assert_eq!(limiter.admit(start + reset, Priority::Upload, Pool::Metadata, 1), Admission::Go);
}

#[test]
fn the_urgent_go_first_and_age_saves_the_background_from_starving() {
    let start = Instant::now();
    let now = seconds(start, 60.0);
    let mut waiting = vec![
        ("old enumeration", rank(now, Priority::Enumeration, start, 1)),
        ("upload", rank(now, Priority::Upload, now, 5)),
        ("listing", rank(now, Priority::Listing, now, 6)),
        ("interactive", rank(now, Priority::Interactive, now, 7)),
        ("new enumeration", rank(now, Priority::Enumeration, now, 4)),
        ("prefetch", rank(now, Priority::Prefetch, now, 3)),
    ];
    waiting.sort_by_key(|(_, rank)| *rank);
    let order: Vec<&str> = waiting.into_iter().map(|(name, _)| name).collect();
    assert_eq!(order, ["interactive", "old enumeration", "listing", "upload", "prefetch", "new enumeration"]);
}

#[derive(Clone, Debug)]
enum Event {
    Wait(u16),
    Ask(usize, bool, u32),
    Finish(bool),
    Refuse(u8),
    Left(u16, u16),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (0u16..5000).prop_map(Event::Wait),
        (0usize..5, any::<bool>(), 0u32..10).prop_map(|(who, pool, cost)| Event::Ask(who, pool, cost)),
        any::<bool>().prop_map(Event::Finish),
        any::<u8>().prop_map(Event::Refuse),
        (0u16..2000, 0u16..2000).prop_map(|(left, reset)| Event::Left(left, reset)),
    ];
    proptest::collection::vec(event, 1..200)
}

proptest! {
    #[test]
    fn in_any_history_the_rate_holds_and_whoever_waits_until_told_makes_progress(events in events()) {
        let start = Instant::now();
        let config = LimiterConfig { max_metadata: 4, max_content: 4, ..config() };
        let mut limiter = Limiter::new(config, start);
        let (mut now, mut admitted, mut running) = (start, 0u64, [0u32; 2]);
        let pool_of = |content: bool| if content { Pool::Content } else { Pool::Metadata };
        for event in events {
            match event {
                Event::Wait(ms) => now += Duration::from_millis(u64::from(ms)),
                Event::Ask(who, content, cost) => match limiter.admit(now, ALL[who], pool_of(content), cost) {
                    Admission::Go => {
                        admitted += 1;
                        running[usize::from(content)] += 1;
                    }
                    Admission::Until(date) => prop_assert!(date > now),
                    Admission::Full => prop_assert!(running[usize::from(content)] > 0, "full means that something will finish"),
                },
                Event::Finish(content) => {
                    if running[usize::from(content)] > 0 {
                        running[usize::from(content)] -= 1;
                        limiter.heard(now, pool_of(content), Signal::Fine);
                        limiter.finished(pool_of(content));
                    }
                }
                Event::Refuse(seconds) => {
                    limiter.heard(now, Pool::Metadata, Signal::Refused(Duration::from_secs(u64::from(seconds))));
                }
                Event::Left(left, reset) => limiter.rate_limit(now, RateLimit {
                    limit: 1000.0,
                    remaining: f64::from(left),
                    reset: Duration::from_secs(u64::from(reset)),
                }),
            }
            prop_assert!(running.iter().all(|&number| number <= 4 + 1));
            let allowed = config.burst + (now - start).as_secs_f64() * config.rate_per_s;
            prop_assert!(admitted as f64 <= allowed + 1e-6);
        }
        while running[0] > 0 {
            running[0] -= 1;
            limiter.finished(Pool::Metadata);
        }
        for who in ALL {
            let mut looks = 0;
            while let Admission::Until(date) = limiter.admit(now, who, Pool::Metadata, 1) {
                now = date;
                looks += 1;
                prop_assert!(looks < 10, "waiting as told leads to an end");
            }
        }
    }
}
