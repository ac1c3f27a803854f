//! The largest file that the service takes.

use std::fs;
use std::os::unix::fs::FileExt;

use onedrivefs::emulator::Edit;

use crate::mounted_support::Mounted;

#[test]
fn the_largest_file_is_read_at_both_ends_and_in_the_middle() {
    const SIZE: u64 = 250 << 30;
    const SMALL: u64 = 4 << 20;
    const LEN: usize = 100_000;
    let Some(mounted) = Mounted::usual() else { return };
    mounted.service.edit(&Edit::WritePattern { path: "huge".into(), size: SIZE, seed: 7 });
    mounted.service.edit(&Edit::WritePattern { path: "small".into(), size: SMALL, seed: 7 });
    mounted.await_online();
    mounted.refresh();
    // The bytes repeat themselves.
    let small = mounted.control().content("small").expect("it is there");
    let period = (1..small.len() - LEN).find(|&at| small[at..at + LEN] == small[..LEN]).expect("a period");
    let file = fs::File::open(mounted.path("huge")).expect("open");
    assert_eq!(file.metadata().expect("stat").len(), SIZE);
    mounted.control().reset_log();
    for at in [0, SIZE / 2 + 12_345, SIZE - LEN as u64, SIZE / 3] {
        let mut bytes = vec![0; LEN];
        file.read_exact_at(&mut bytes, at).expect("read");
        let from = (at % period as u64) as usize;
        assert!(bytes == small[from..from + LEN], "at {at}");
    }
    assert_eq!(file.read_at(&mut [0; 10], SIZE).expect("read"), 0, "nothing is beyond the end");
    let used = mounted.status()["cache"]["used"].as_u64().expect("a number");
    assert!(used < 256 << 20, "{used} bytes are kept of four looks");
    // Written to in the middle: only that is new here, and the rest is still the service's.
    let file = fs::File::options().write(true).read(true).open(mounted.path("huge")).expect("open");
    file.write_all_at(b"ours", SIZE / 2).expect("written");
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, SIZE / 2 - 2).expect("read");
    let from = ((SIZE / 2 - 2) % period as u64) as usize;
    assert_eq!([&small[from..from + 2], b"ours", &small[from + 6..from + 8]].concat(), bytes);
}
