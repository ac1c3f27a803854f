//! Nothing is lost: the daemon is killed at random moments of a copy, again and again.

mod mounted_support;

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use mounted_support::random::{Random, number};
use mounted_support::tree::{Times, sha256};
use mounted_support::{Mounted, Options, in_ci};
use onedrivefs::emulator::Flavour;

const FILES: usize = 500;

fn content(round: u64, n: usize, random: &mut Random) -> Vec<u8> {
    // Mostly small files; some of many blocks, some that need an upload session.
    let size = match n % 100 {
        0 | 50 => 0,
        7 | 57 => 1 << 20,
        13 => 5 << 20,
        _ => 100 + random.below(40_000) as usize,
    };
    let line = format!("round {round} file {n} {}\n", random.below(u64::MAX));
    line.bytes().cycle().take(size).collect()
}

/// One file copied as `cp` does, by a temporary name, or appended in two steps. An error means that it need not exist.
fn copy_one(path: &Path, bytes: &[u8], how: usize) -> std::io::Result<()> {
    let close = |file: File| {
        use std::os::fd::IntoRawFd;
        // SAFETY: the descriptor is owned by this call, and closed once.
        if unsafe { libc::close(file.into_raw_fd()) } == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    match how % 3 {
        0 => {
            let mut file = File::create(path)?;
            file.write_all(bytes)?;
            close(file)
        }
        1 => {
            let temporary = path.with_extension("tmp");
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            close(file)?;
            fs::rename(&temporary, path)
        }
        _ => {
            let (first, second) = bytes.split_at(bytes.len() / 2);
            let mut file = File::create(path)?;
            file.write_all(first)?;
            close(file)?;
            let mut file = File::options().append(true).open(path)?;
            file.write_all(second)?;
            close(file)
        }
    }
}

// S1, S2.
#[test]
fn every_closed_file_of_a_copy_survives_kill_9() {
    let seed = number("SEED", u64::from(std::process::id()));
    let rounds = number("ROUNDS", if in_ci() { 10 } else { 2 });
    println!("SEED={seed} ROUNDS={rounds}");
    let mut random = Random::new(seed);
    let flavours = [Flavour::Business, Flavour::Personal];
    let options = Options {
        mount: "settle=20ms,poll-interval=1s".into(),
        deadline: Duration::from_secs(180),
        ..Options::default()
    };
    for flavour in flavours {
        let Some(mounted) = Mounted::new(flavour, options.clone()) else { return };
        for round in (0..rounds).filter(|round| flavours[*round as usize % 2] == flavour) {
            one_round(&mounted, round, &mut random);
        }
    }
}

fn one_round(mounted: &Mounted, round: u64, random: &mut Random) {
    let folder = mounted.path(&format!("round {round}"));
    fs::create_dir(&folder).expect("a directory");
    // Moments: anywhere in the copy, at once or while more is copied and sent.
    let die_after = random.below(FILES as u64) as usize;
    let longest = [5_000, 1_000_000][random.below(2) as usize];
    let delay = Duration::from_micros(random.below(longest));
    let mut safe = Vec::new();
    let (reached, copied) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        // Dropped with the copy, however that ends.
        let reached = reached;
        scope.spawn(move || {
            let died_by_itself = copied.recv().is_err();
            std::thread::sleep(delay);
            assert!(!died_by_itself, "the daemon ended: {:?}\n{}", mounted.ended(), mounted.log_tail());
            mounted.kill9_only();
        });
        for n in 0..FILES {
            if n == die_after {
                reached.send(()).expect("somebody waits");
            }
            let (name, bytes) = (format!("file {n}.dat"), content(round, n, random));
            match copy_one(&folder.join(&name), &bytes, n) {
                Ok(()) => safe.push((name, sha256(&bytes))),
                Err(error) => {
                    let dead = matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED));
                    assert!(
                        dead || error.kind() == ErrorKind::NotFound,
                        "{name}: {error}\n{}",
                        mounted.log_tail()
                    );
                    break;
                }
            }
        }
    });
    mounted.remount();
    for (name, hash) in &safe {
        let bytes = fs::read(folder.join(name)).unwrap_or_else(|error| {
            panic!("round {round}: {name} of {} is lost: {error}\n{}", safe.len(), mounted.log_tail())
        });
        assert_eq!(&sha256(&bytes), hash, "round {round}: {name} is another\n{}", mounted.log_tail());
    }
    mounted.sync_after_crash();
    let truth = mounted.control().truth();
    let items = truth["drives"][0]["items"].as_array().expect("a list");
    for (name, hash) in &safe {
        let path = format!("/round {round}/{name}");
        let item = items.iter().find(|item| item["path"] == path.as_str());
        let item = item.unwrap_or_else(|| panic!("{path} is not on the service\n{}", mounted.log_tail()));
        assert_eq!(item["sha256"].as_str(), Some(hash.as_str()), "{path}\n{}", mounted.log_tail());
    }
    println!(
        "round {round}: {} of {FILES} files were closed before the end, {} items",
        safe.len(),
        items.len()
    );
    mounted.assert_truth_equals_tree(&format!("round {round}"), Times::Any);
}
