//! Generated contents: any length, no storage, and a quickXorHash that costs next to nothing.
//!
//! Byte `i` is `T[(i + 160 * (seed mod ROWS)) mod (160 * ROWS)] ^ x(seed)`, where `T` is one fixed table of pseudo-random
//! bytes. 160 divides the period, so the hash's XOR fold of any range is the XOR of two prefix folds. Blocks at
//! different multiples of 4 KiB differ up to 128 MiB apart, at multiples of 320 KiB up to 2 GiB.

use std::sync::OnceLock;

use bytes::Bytes;

use super::hash::{FOLD, QuickXor, xor};
use super::ids::mix;

const ROWS: usize = 6553;
const PERIOD: usize = FOLD * ROWS;

struct Table {
    bytes: Vec<u8>,
    /// `prefix[r]`: the XOR of rows `0..r`.
    prefix: Vec<[u8; FOLD]>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut bytes = Vec::with_capacity(PERIOD);
        for word in 0..(PERIOD / 8) as u64 {
            bytes.extend_from_slice(&mix(word.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes());
        }
        let mut sum = [0u8; FOLD];
        let mut prefix = vec![sum];
        for row in bytes.chunks_exact(FOLD) {
            xor(&mut sum, row);
            prefix.push(sum);
        }
        Table { bytes, prefix }
    })
}

fn start_row(seed: u32) -> usize {
    seed as usize % ROWS
}

fn mask(seed: u32) -> u8 {
    mix(u64::from(seed / ROWS as u32)).to_le_bytes()[0]
}

/// `n` bytes from offset `at`.
pub(crate) fn bytes(seed: u32, at: u64, n: usize) -> Bytes {
    let t = &table().bytes;
    let mut out = Vec::with_capacity(n);
    let mut pos = (start_row(seed) * FOLD + (at % PERIOD as u64) as usize) % PERIOD;
    while out.len() < n {
        let take = (n - out.len()).min(PERIOD - pos);
        out.extend_from_slice(&t[pos..pos + take]);
        pos = 0;
    }
    let mask = mask(seed);
    if mask != 0 {
        out.iter_mut().for_each(|b| *b ^= mask);
    }
    out.into()
}

/// quickXorHash of the first `len` bytes.
pub(crate) fn quick_xor(seed: u32, len: u64) -> [u8; 20] {
    let t = table();
    let mut fold = [0u8; FOLD];
    let rows = len / FOLD as u64;
    if rows / ROWS as u64 % 2 == 1 {
        xor(&mut fold, &t.prefix[ROWS]);
    }
    let first = start_row(seed);
    let last = first + (rows % ROWS as u64) as usize;
    xor(&mut fold, &t.prefix[first]);
    xor(&mut fold, &t.prefix[last.min(ROWS)]);
    if last > ROWS {
        xor(&mut fold, &t.prefix[last - ROWS]);
    }
    let mask = mask(seed);
    if rows % 2 == 1 {
        fold.iter_mut().for_each(|b| *b ^= mask);
    }
    let tail = bytes(seed, rows * FOLD as u64, (len % FOLD as u64) as usize);
    xor(&mut fold[..tail.len()], &tail);
    QuickXor::from_fold(fold, len).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_computed_hash_is_the_hash_of_the_bytes() {
        for seed in [0, 1, 6552, 6553, 99_999, u32::MAX] {
            for len in
                [0u64, 1, 159, 160, 161, 5000, PERIOD as u64 - 1, PERIOD as u64, 2 * PERIOD as u64 + 333]
            {
                let mut h = QuickXor::default();
                let mut at = 0;
                while at < len {
                    let piece = bytes(seed, at, (len - at).min(100_003) as usize);
                    at += piece.len() as u64;
                    h.update(&piece);
                }
                assert_eq!(h.finish(), quick_xor(seed, len), "seed {seed} len {len}");
            }
        }
    }
}
