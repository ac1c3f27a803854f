//! How soon a change made elsewhere is seen here.

use std::time::{Duration, Instant};

use super::mounted_support::until;
use super::table::{Goal, Table};
use super::{Scale, mount};

/// Added to each answer of the service.
const LATENCY: Duration = Duration::from_millis(30);
/// Milliseconds until a change is to be seen.
const SOON_MS: f64 = 2000.0;
/// A change that is not seen by then is not seen.
const NEVER: Duration = Duration::from_secs(60);

pub fn run(scale: &Scale, table: &mut Table) {
    let mounted = mount("poll-interval=1h");
    let pushed = until(NEVER, || mounted.status()["push"] == true);
    assert!(pushed, "{}\n{}", mounted.status(), mounted.log_tail());
    mounted.control().set_latency(LATENCY);
    let mut times: Vec<f64> = (0..scale.rounds * 3)
        .map(|round| {
            let name = format!("folder/file {round}");
            // A program looked before: the kernel holds that there is none.
            assert!(!mounted.path(&name).exists());
            let start = Instant::now();
            mounted.service.write(&name, b"made elsewhere");
            let seen = until(NEVER, || mounted.path(&name).exists());
            assert!(seen, "{}", mounted.log_tail());
            start.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let ours = times[times.len() / 2];
    table.measured("change elsewhere to seen here, push, 30 ms", "ms", (ours, SOON_MS), Goal::AtMost(1.0));
}
