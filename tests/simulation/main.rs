//! The simulation as a test: a few seeds, and that a seed always does the same.

#![allow(dead_code, reason = "the program that runs seeds and the test each use a part")]

mod content;
mod dice;
mod disk;
mod driver;
mod log;
mod ops;
mod oracle;
mod run;
mod shrink;
mod sight;
#[path = "../sync_support/mod.rs"]
mod sync_support;
mod wire;

use std::time::Duration;

use onedrivefs::engine::Mutant;

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

/// The first seed that goes wrong with the mutant, and does not without it.
fn caught(mutant: Mutant, seeds: u64) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| {
        let list = run::list(seed);
        Mutant::plant(Some(mutant));
        let wrong = run::run(seed, &list).wrong;
        Mutant::plant(None);
        let line = wrong.into_iter().next()?;
        run::run(seed, &list).wrong.is_empty().then_some((seed, line))
    })
}

#[test]
fn known_mistakes_are_noticed_within_five_hundred_seeds() {
    let all = std::env::var_os("CI").is_some();
    let mutants = if all { &Mutant::ALL[..] } else { &Mutant::ALL[..2] };
    let hunts: Vec<_> =
        mutants.iter().map(|&mutant| (mutant, std::thread::spawn(move || caught(mutant, 500)))).collect();
    let ended =
        hunts.into_iter().map(|(mutant, hunt)| (mutant, hunt.join().expect("a run catches its panics")));
    let ended: Vec<_> = ended.inspect(|(mutant, noticed)| println!("{mutant:?}: {noticed:?}")).collect();
    let missed: Vec<_> = ended.iter().filter(|(_, noticed)| noticed.is_none()).collect();
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
