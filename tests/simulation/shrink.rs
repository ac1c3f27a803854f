//! Thins a failing list out until nothing can be left out (delta debugging).

use std::time::{Duration, Instant};

use super::ops::Op;
use super::run::{Outcome, run};

/// The shortest list found that still fails in the same way, and what it does.
pub fn shrink(seed: u64, list: &[Op], kind: &str, limit: Duration) -> (Vec<Op>, Option<Outcome>) {
    let end = Instant::now() + limit;
    let mut best = list.to_vec();
    let mut outcome = None;
    let mut size = best.len().div_ceil(2);
    while size > 0 && Instant::now() < end {
        let mut at = 0;
        let mut shrunk = false;
        while at < best.len() && Instant::now() < end {
            let mut fewer = best.clone();
            fewer.drain(at..(at + size).min(best.len()));
            let tried = run(seed, &fewer);
            if tried.kind() == Some(kind) {
                (best, shrunk, outcome) = (fewer, true, Some(tried));
            } else {
                at += size;
            }
        }
        size = match size {
            1 if shrunk => 1,
            1 => 0,
            more => more / 2,
        };
    }
    (best, outcome)
}
