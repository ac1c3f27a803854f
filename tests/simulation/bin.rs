//! `simulate --seeds A..B`: runs seeds, and shows of one that fails the shortest list of operations that
//! still does, with what happened. Exit code 1 if any fails.

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

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;

/// Simulates users, other clients, a bad network and crashes, and checks that nothing is lost.
#[derive(Parser)]
struct Arguments {
    /// Seeds to run: `A..B`, or one.
    #[arg(long, default_value = "0..2000")]
    seeds: String,
    /// Threads; each seed runs on one.
    #[arg(long)]
    threads: Option<usize>,
    /// Shows what happens, and does not thin out.
    #[arg(long)]
    trace: bool,
    /// Of each seed only these operations, by their numbers.
    #[arg(long, value_delimiter = ',')]
    only: Vec<usize>,
    /// Of what is shown of a failing seed, also what the program logs, such as `onedrivefs=debug`.
    #[arg(long)]
    log: Option<String>,
    /// How many failing seeds to thin out.
    #[arg(long, default_value_t = 1)]
    shrink: usize,
    /// Seconds to thin one out.
    #[arg(long, default_value_t = 60)]
    shrink_seconds: u64,
    /// Kinds of findings that are known and open, such as `astray,rest`; anything else fails at once.
    #[arg(long, value_delimiter = ',')]
    open: Vec<String>,
    /// How many seeds may end with nothing but those.
    #[arg(long, default_value_t = 0)]
    at_most: usize,
    /// Stops after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
}

struct Sums {
    counts: run::Counts,
    failed: BTreeMap<u64, Vec<String>>,
    seeds: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(seeds) = seeds(&arguments.seeds) else {
        eprintln!("simulate: --seeds takes A..B or a number");
        return ExitCode::from(2);
    };
    std::panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let sums = run_all(&arguments, seeds, began);
    let run::Counts { ops, requests, lost, crashes } = sums.counts;
    println!(
        "{} seeds, {ops} operations, {requests} requests ({lost} lost), {crashes} crashes, {:.1} s, {} failed",
        sums.seeds,
        began.elapsed().as_secs_f64(),
        sums.failed.len()
    );
    for (seed, wrong) in &sums.failed {
        println!("seed {seed}: {}", wrong.first().map_or("", String::as_str));
    }
    if let Some(filter) = &arguments.log {
        log::begin(filter);
    }
    for (&seed, wrong) in sums.failed.iter().take(if arguments.trace { 0 } else { arguments.shrink }) {
        show(&list(&arguments, seed), seed, wrong, Duration::from_secs(arguments.shrink_seconds));
    }
    let is_open = |line: &String| arguments.open.iter().any(|kind| line.split(':').next() == Some(kind));
    // What waits here for ever is also not on the service: what follows from that is no finding of its own.
    let waits =
        |wrong: &Vec<String>| wrong.first().is_some_and(|line| line.starts_with("rest:") && is_open(line));
    let known = sums.failed.values().filter(|wrong| waits(wrong) || wrong.iter().all(is_open)).count();
    if known == sums.failed.len() && known <= arguments.at_most {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn seeds(text: &str) -> Option<std::ops::Range<u64>> {
    match text.split_once("..") {
        Some((from, to)) => Some(from.parse().ok()?..to.parse().ok()?),
        None => text.parse().ok().map(|seed: u64| seed..seed + 1),
    }
}

fn list(arguments: &Arguments, seed: u64) -> Vec<ops::Op> {
    let all = run::list(seed);
    if arguments.only.is_empty() {
        return all;
    }
    arguments.only.iter().filter_map(|&number| all.get(number).cloned()).collect()
}

fn run_all(arguments: &Arguments, seeds: std::ops::Range<u64>, began: Instant) -> Sums {
    let threads =
        arguments.threads.or(std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let next = AtomicU64::new(seeds.start);
    let sums = Mutex::new(Sums { counts: run::Counts::default(), failed: BTreeMap::new(), seeds: 0 });
    let limit = arguments.seconds.map(Duration::from_secs);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while limit.is_none_or(|limit| began.elapsed() < limit) {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end {
                        break;
                    }
                    let outcome = run::run(seed, &list(arguments, seed));
                    if arguments.trace {
                        outcome.trace.iter().for_each(|line| println!("{line}"));
                    }
                    let mut sums = wire::lock(&sums);
                    sums.counts.add(&outcome.counts);
                    sums.seeds += 1;
                    if !outcome.wrong.is_empty() {
                        sums.failed.insert(seed, outcome.wrong);
                    }
                }
            });
        }
    });
    sums.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The shortest list that still fails, and what happens then.
fn show(list: &[ops::Op], seed: u64, wrong: &[String], limit: Duration) {
    let kind = wrong.first().and_then(|line| line.split(':').next()).unwrap_or_default();
    let (fewer, _) = shrink::shrink(seed, list, kind, limit);
    println!("\nseed {seed}, {} of {} operations:", fewer.len(), list.len());
    let all = run::list(seed);
    let mut from = 0;
    for op in &fewer {
        from += all[from..].iter().position(|other| other == op).unwrap_or_default();
        println!("{from:4} {op:?}");
        from += 1;
    }
    // Again, and logged this time where that was asked for.
    log::take();
    let outcome = run::run(seed, &fewer);
    outcome.trace.iter().for_each(|line| println!("{line}"));
}
