//! The power goes: state and cache lie on a disk of their own, of which only what was flushed is sure to be there
//! afterwards. The journal of the file system is replayed, and the daemon goes on in another boot.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use onedrivefs::emulator::{Edit, Flavour};

use crate::disks::{Disk, can_mount_disks};
use crate::journal::{Journal, Promise, content, on_service};
use crate::mounted_support::random::{Random, number};
use crate::mounted_support::tree::sha256;
use crate::mounted_support::{Mounted, Options, have, in_ci, text, until};
use crate::volatile::{Cut, VolatileDisk};

/// Files whose service's version is edited without a sync.
const EDITED: usize = 5;
/// Of the disk, in MiB; 64 of them stay free.
const DISK: u64 = 512;

// S3, S4, S140.
#[test]
fn what_was_synced_survives_a_power_cut_and_what_was_not_replaces_nothing() {
    if !can_mount_disks("a power cut") || !have(&["mkfs.ext4"]) {
        return;
    }
    let mut random = Random::seeded("power cuts");
    let rounds = number("CUTS", if in_ci() { 20 } else { 4 });
    let work = tempfile::Builder::new().prefix("odfs-power-").tempdir().expect("a directory");
    let volatile = VolatileDisk::new(work.path(), DISK);
    let at = work.path().join("disk");
    let mut disk = Some(Disk::of_image(&volatile.image(), &at));
    let options = Options {
        mount: "settle=50ms,poll-interval=1s".into(),
        deadline: Duration::from_secs(400),
        disk: Some(at.clone()),
        ..Options::default()
    };
    let mounted = Mounted::new(Flavour::Business, options).expect("it was looked whether this is possible");
    let (mut synced, mut closed, mut cached) = (0, 0, 0);
    let mut rests = Rests::default();
    for round in 0..rounds {
        let folder = format!("round {round}");
        disk.as_ref().expect("it was mounted").write_early([1, 4, 64][random.below(3) as usize] << 20);
        let moment = write_until_the_cut(&mounted, &folder, &mut random, &volatile);
        drop(disk.take());
        let how = [Cut::AnyOrder, Cut::Clean, Cut::InOrder, Cut::Nothing][round as usize % 4];
        let writes = volatile.start_again(how, &mut random);
        disk = Some(Disk::of_image(&volatile.image(), &at));
        mounted.start(&[("ONEDRIVEFS_TEST_BOOT", &format!("boot {round}"))]);
        let context = format!("{folder}, {how:?} of {writes} writes");
        assert!(mounted.is_ready_soon(), "{context}: the store does not open\n{}", mounted.log_tail());
        look(&mounted, &folder, &context, &moment, &mut rests);
        synced += moment.journal.count(Promise::Synced);
        closed += moment.journal.count(Promise::Closed);
        cached += writes;
    }
    println!(
        "{rounds} power cuts with {cached} writes in the cache: {synced} files were synced, none is lost; \
         {closed} were closed only: {rests:?}"
    );
    drop(mounted);
    drop(disk);
}

/// What was left of files that were closed only, of which nothing is promised but that the user is told.
#[derive(Debug, Default)]
struct Rests {
    whole: usize,
    part: usize,
    gone: usize,
    /// Upload sessions that the service opened in the moment of the cut, so that nobody here knows them.
    sessions: usize,
}

/// What there was when the power went.
struct Moment {
    journal: Journal,
    on_service: BTreeMap<String, String>,
}

/// Writes files, and edits some that the service has, until the power goes.
fn write_until_the_cut(
    mounted: &Mounted,
    folder: &str,
    random: &mut Random,
    volatile: &VolatileDisk,
) -> Moment {
    for number in 0..EDITED {
        let edit = Edit::Write { path: format!("{folder}/known {number}"), content: old(number).into() };
        mounted.control().edit_as_other(&edit).expect("another client may do this");
    }
    let dir = mounted.path(folder);
    let known = |number: usize| dir.join(format!("known {number}"));
    assert!(until(Duration::from_secs(60), || known(EDITED - 1).exists()), "{}", mounted.log_tail());
    let journal = Mutex::new(Journal::default());
    // With few syncs much is lost, with many the cut comes in the middle of one.
    let ways = [3, 8][random.below(2) as usize];
    let delay = Duration::from_millis(20 + random.below(1000));
    let writes = random.below(12);
    let mut moment = Moment { journal: Journal::default(), on_service: BTreeMap::new() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(delay);
            // Promises first, then the disk: what is promised by now must be on it. Of the service, too.
            std::mem::swap(&mut moment.journal.0, &mut journal.lock().expect("no panics").0);
            volatile.cut_after(writes);
            moment.on_service = on_service(&mounted.control(), folder);
            mounted.kill9();
        });
        let mut number = 0;
        let mut write = || {
            number += 1;
            if number <= EDITED {
                return fs::write(known(number - 1), new(number - 1));
            }
            let name = format!("file {number}");
            let bytes = content(&name, random);
            let mut made = Journal::default();
            match random.below(ways) {
                6 => at_once(&dir.join(&name), &bytes, libc::O_SYNC)?,
                7 => at_once(&dir.join(&name), &bytes, libc::O_DSYNC)?,
                way => made.write(&dir, &name, &bytes, way)?,
            }
            made.0.entry(name).or_insert((bytes, Promise::Synced));
            journal.lock().expect("no panics").0.append(&mut made.0);
            Ok::<(), std::io::Error>(())
        };
        while write().is_ok() {}
    });
    moment
}

/// Each write is durable when it returns, and nobody syncs.
fn at_once(path: &Path, bytes: &[u8], flag: i32) -> std::io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).custom_flags(flag).open(path)?;
    for piece in bytes.chunks(256 << 10) {
        file.write_all(piece)?;
    }
    if bytes.is_empty() { file.sync_data() } else { Ok(()) }
}

fn old(number: usize) -> String {
    format!("known to the service {number}\n").repeat(50)
}

fn new(number: usize) -> String {
    format!("edited and not synced {number}\n").repeat(5000)
}

/// Sends everything. False if the service had to end upload sessions for that, as it does after a quarter of an hour.
fn is_sent(mounted: &Mounted, folder: &str) -> bool {
    let (path, root) = (text(&mounted.path(folder)), text(&mounted.root()));
    let output = mounted.run(&["sync", &path, "--timeout", "20s"]);
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if said.contains("being uploaded by another session") {
        mounted.control().expire_sessions();
        mounted.run(&["retry", &root]);
    }
    mounted.sync();
    output.status.success()
}

fn look(mounted: &Mounted, folder: &str, context: &str, moment: &Moment, rests: &mut Rests) {
    let dir = mounted.path(folder);
    for (name, bytes) in moment.journal.promised(Promise::Synced) {
        let found = fs::read(dir.join(name))
            .unwrap_or_else(|error| panic!("{context}: {name} is lost: {error}\n{}", mounted.log_tail()));
        let (is, was) = (found.len(), bytes.len());
        assert!(
            found == *bytes,
            "{context}: {name} is another, {is} bytes and not {was}\n{}",
            mounted.log_tail()
        );
    }
    rests.sessions += usize::from(!is_sent(mounted, folder));
    let there = on_service(&mounted.control(), folder);
    let log = || mounted.log_tail();
    let notices = mounted.status()["notices"].to_string();
    for (name, (bytes, promise)) in &moment.journal.0 {
        let (hash, whole) = (there.get(name), sha256(bytes));
        let was_sent = moment.on_service.get(name) == Some(&whole);
        if *promise == Promise::Synced || was_sent {
            assert_eq!(hash, Some(&whole), "{context}: {name} {promise:?} sent {was_sent}\n{}", log());
            continue;
        }
        match hash {
            Some(hash) if *hash == whole => rests.whole += 1,
            Some(_) => {
                let told = notices.contains(&format!("{folder}/{name}"));
                assert!(told, "{context}: {name}: {notices}\n{}", log());
                rests.part += 1;
            }
            None => rests.gone += 1,
        }
    }
    for number in 0..EDITED {
        let hash = there.get(&format!("known {number}"));
        let whole = [old(number), new(number)].map(|content| sha256(content.as_bytes()));
        let is_whole = hash.is_some_and(|hash| whole.contains(hash));
        assert!(is_whole, "{context}: the version of the service was replaced by a part\n{}", log());
    }
}
