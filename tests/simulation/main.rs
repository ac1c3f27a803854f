//! The simulation as a test: a few seeds, and that a seed always does the same.

#![allow(dead_code, reason = "the program that runs seeds and the test each use a part")]

mod content;
mod dice;
mod disk;
mod driver;
mod ops;
mod oracle;
mod run;
mod shrink;
#[path = "../sync_support/mod.rs"]
mod sync_support;
mod wire;

use std::time::Duration;

#[test]
fn a_seed_does_the_same_twice() {
    for seed in [1, 2, 3] {
        let list = run::list(seed);
        let (first, second) = (run::run(seed, &list), run::run(seed, &list));
        let differ = first.trace.iter().zip(&second.trace).position(|(one, other)| one != other);
        if let Some(at) = differ {
            panic!("seed {seed}, line {at}:\n{}\n{}", first.trace[at], second.trace[at]);
        }
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
    }
}

#[test]
fn nothing_is_lost_in_twenty_seeds() {
    for seed in 0..20 {
        let list = run::list(seed);
        let outcome = run::run(seed, &list);
        if let Some(kind) = outcome.kind() {
            let (fewer, _) = shrink::shrink(seed, &list, kind, Duration::from_secs(30));
            panic!("seed {seed}: {:#?}\n{fewer:#?}", outcome.wrong);
        }
    }
}
