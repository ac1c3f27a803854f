//! The daemon dies at random, and at each named durable step of a run (`disk.rs`).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use onedrivefs::emulator::Flavour;

use crate::journal::{Journal, Promise, content, on_service};
use crate::mounted_support::random::{Random, number};
use crate::mounted_support::tree::sha256;
use crate::mounted_support::{Mounted, Options, in_ci, process, until};

/// Files of a round.
const FILES: usize = 40;

/// The durable steps that a round comes by, and how often at most before the end.
const STEPS: [(&str, u64); 15] = [
    ("staging.create", 30),
    ("staging.write", 60),
    ("staging.sync", 30),
    ("staging.seal.sync", 20),
    ("staging.seal.read", 30),
    ("staging.sync_dir", 10),
    ("staging.unlink", 30),
    ("staging.map.create", 3),
    ("staging.map.header", 3),
    ("staging.map.append", 3),
    ("staging.map.unlink", 2),
    ("store.commit", 150),
    ("store.sync", 40),
    ("cache.adopt", 20),
    ("staging.fill", 2),
];

// S1, S2, S3.
#[test]
fn what_was_closed_or_synced_survives_kill_9_at_random_and_at_every_durable_step() {
    let mut random = Random::seeded("crashes");
    let rounds = number("ROUNDS", if in_ci() { 100 } else { 6 });
    let options = Options {
        mount: "settle=20ms,poll-interval=1s".into(),
        deadline: Duration::from_secs(120),
        ..Options::default()
    };
    let (mut died, mut closed, mut synced) = (0, 0, 0);
    for flavour in [Flavour::Business, Flavour::Personal] {
        let Some(mounted) = Mounted::new(flavour, options.clone()) else { return };
        let first = u64::from(flavour == Flavour::Personal);
        for round in (first..rounds).step_by(2) {
            // Two in three die at a step.
            let step = (round % 3 != 0).then(|| STEPS[random.below(STEPS.len() as u64) as usize]);
            let step = step.map(|(step, most)| format!("{step}:{}", 1 + random.below(most)));
            let (journal, by_itself) = one_round(&mounted, round, step.as_deref(), &mut random);
            died += u64::from(by_itself);
            closed += journal.count(Promise::Closed);
            synced += journal.count(Promise::Synced);
        }
    }
    println!(
        "{rounds} rounds, {died} died at a step; {closed} files were closed and {synced} synced: none is lost"
    );
}

/// Writes until the daemon dies, starts it again, and looks for what was promised.
fn one_round(mounted: &Mounted, round: u64, step: Option<&str>, random: &mut Random) -> (Journal, bool) {
    if let Some(step) = step {
        mounted.kill9();
        mounted.start(&[("ONEDRIVEFS_TEST_CRASH", step)]);
        // It may die before the mount is usable: that is a crash at a start.
        if !mounted.is_ready_soon() {
            mounted.kill9();
            mounted.remount();
            return (Journal::default(), true);
        }
    }
    let folder = format!("round {round}");
    let dir = mounted.path(&folder);
    let mut journal = Journal::default();
    let how = format!("round {round}, {step:?}");
    if made(mounted, &dir, &how) {
        copy(mounted, &dir, step.is_none(), &mut journal, (&how, random));
    }
    let by_itself = mounted.ended().is_some();
    mounted.kill9();
    mounted.remount();
    for (name, bytes) in journal.promised(Promise::Closed) {
        let found = fs::read(dir.join(name))
            .unwrap_or_else(|error| panic!("{how}: {name} is lost: {error}\n{}", mounted.log_tail()));
        let other = differ(&found, bytes);
        assert_eq!(other, None, "{how}: {name} is another\n{}", mounted.log_tail());
    }
    mounted.sync_after_crash();
    let there = on_service(&mounted.control(), &folder);
    for (name, bytes) in journal.promised(Promise::Closed) {
        assert_eq!(there.get(name), Some(&sha256(bytes)), "{how}: {name}\n{}", mounted.log_tail());
    }
    let odd = there.keys().filter(|name| name.contains("conflict") || name.contains("recovered"));
    assert_eq!(odd.collect::<Vec<_>>(), Vec::<&String>::new(), "{how}: nobody else wrote");
    (journal, by_itself)
}

/// Where and how two contents differ.
fn differ(found: &[u8], promised: &[u8]) -> Option<String> {
    let line = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).replace('\n', "|");
    let same = found.iter().zip(promised).take_while(|(a, b)| a == b).count();
    (found != promised).then(|| {
        let (here, there) = (&found[same..], &promised[same..]);
        format!(
            "{} of {} bytes promised; from {same} on {:?} for {:?}; it begins with {:?} for {:?}",
            found.len(),
            promised.len(),
            line(here),
            line(there),
            line(found),
            line(promised)
        )
    })
}

/// Copies until the daemon dies: by a step of its own, or killed in the middle.
fn copy(
    mounted: &Mounted,
    dir: &Path,
    kill: bool,
    journal: &mut Journal,
    (how, random): (&str, &mut Random),
) {
    let at = random.below(FILES as u64) as usize;
    let longest = [2_000, 200_000][random.below(2) as usize];
    let delay = Duration::from_micros(random.below(longest));
    let pid = mounted.pid();
    std::thread::scope(|scope| {
        for number in 0..FILES {
            if kill && number == at {
                scope.spawn(move || {
                    std::thread::sleep(delay);
                    process::kill(pid, libc::SIGKILL);
                });
            }
            // Some names come again: a save over what may be on its way.
            let name = format!("file {}.dat", if number % 7 == 6 { number - 3 } else { number });
            let bytes = content(&name, random);
            let promised = journal.0.remove(&name);
            if let Err(error) = journal.write(dir, &name, &bytes, random.below(5)) {
                assert!(is_death(mounted, &error), "{how}: {name}: {error}\n{}", mounted.log_tail());
                // What was there may be half replaced: nothing is promised of it any more.
                drop(promised);
                break;
            }
        }
    });
}

/// Whether it is the daemon's death that a program was told of. A request that the kernel was handing over at that
/// moment ends with EIO: from a daemon that lives that is an error.
fn is_death(mounted: &Mounted, error: &std::io::Error) -> bool {
    match error.raw_os_error() {
        Some(libc::ENOTCONN | libc::ECONNABORTED) => true,
        Some(libc::EIO) => until(Duration::from_secs(10), || mounted.ended().is_some()),
        _ => error.kind() == ErrorKind::NotFound,
    }
}

fn made(mounted: &Mounted, dir: &Path, how: &str) -> bool {
    match fs::create_dir(dir) {
        Ok(()) => true,
        Err(error) if is_death(mounted, &error) => false,
        Err(error) => panic!("{how}: {error}"),
    }
}
