//! The service's content hashes, and quickXorHash itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

/// The hashes the service gave for one content; any may be missing (graph-api 3.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// quickXorHash: finds damage, never proves equality (graph-api 13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quick_xor: Option<[u8; 20]>,
    /// SHA-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha1: Option<[u8; 20]>,
    /// SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<[u8; 32]>,
}

impl Hashes {
    /// No hash at all: says nothing about the content.
    pub fn is_empty(&self) -> bool {
        self.quick_xor.is_none() && self.sha1.is_none() && self.sha256.is_none()
    }
}

/// Decodes the service's base64 form of a quickXorHash.
pub fn quick_xor_from_base64(text: &str) -> Option<[u8; 20]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

/// The service's base64 form of a quickXorHash.
pub fn quick_xor_to_base64(hash: &[u8; 20]) -> String {
    BASE64.encode(hash)
}

/// Decodes `N` bytes from hexadecimal of either case.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let bytes = text.as_bytes();
    if bytes.len() != 2 * N {
        return None;
    }
    let mut out = [0u8; N];
    for (index, pair) in bytes.chunks_exact(2).enumerate() {
        out[index] = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

/// Lower-case hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

const PERIOD: usize = 160;
const FOLD: usize = 8 * PERIOD;

/// Streaming quickXorHash (graph-api 13).
///
/// Every input byte is XORed into a 160-bit register at bit `11 * index mod 160`. The offset repeats after
/// 160 bytes, so input is folded into a buffer of a multiple of that and the register is made once.
#[derive(Clone)]
pub struct QuickXor {
    folded: [u8; FOLD],
    length: u64,
}

impl Default for QuickXor {
    fn default() -> Self {
        Self { folded: [0; FOLD], length: 0 }
    }
}

impl QuickXor {
    /// Adds the next bytes of the input.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let offset = (self.length % FOLD as u64) as usize;
        self.length += bytes.len() as u64;
        if offset != 0 {
            let (head, rest) = bytes.split_at(bytes.len().min(FOLD - offset));
            xor(&mut self.folded[offset..offset + head.len()], head);
            bytes = rest;
        }
        for chunk in bytes.chunks(FOLD) {
            xor(&mut self.folded[..chunk.len()], chunk);
        }
    }

    /// The 20 bytes of the hash of all that was added.
    pub fn finish(&self) -> [u8; 20] {
        let mut out = [0u8; 20];
        for (index, &byte) in self.folded.iter().enumerate() {
            let bit = 11 * index % PERIOD;
            let (at, shift) = (bit / 8, bit % 8);
            out[at] ^= byte << shift;
            if shift != 0 {
                out[(at + 1) % 20] ^= byte >> (8 - shift);
            }
        }
        for (index, byte) in self.length.to_le_bytes().into_iter().enumerate() {
            out[12 + index] ^= byte;
        }
        out
    }

    /// Hashes one buffer.
    pub fn of(bytes: &[u8]) -> [u8; 20] {
        let mut hash = Self::default();
        hash.update(bytes);
        hash.finish()
    }
}

/// XORs `from` into as many bytes of `into`; by words, which matters where nothing is optimised.
fn xor(into: &mut [u8], from: &[u8]) {
    let (words, rest) = into[..from.len()].as_chunks_mut::<8>();
    let (from_words, from_rest) = from.as_chunks::<8>();
    for (word, from) in words.iter_mut().zip(from_words) {
        *word = (u64::from_ne_bytes(*word) ^ u64::from_ne_bytes(*from)).to_ne_bytes();
    }
    for (byte, from) in rest.iter_mut().zip(from_rest) {
        *byte ^= from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_xor_matches_the_published_vectors() {
        let ramp: Vec<u8> = (0..1u32 << 20).map(|i| (i % 251) as u8).collect();
        let bytes: Vec<u8> = (0..=255).collect();
        let cases: [(&[u8], &str); 9] = [
            (b"", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            (b"a", "YQAAAAAAAAAAAAAAAQAAAAAAAAA="),
            (b"hello", "aCgDG9jwBgAAAAAABQAAAAAAAAA="),
            (b"hello world", "aCgDG9jwBhDc4Q1yawMZAAAAAAA="),
            (b"The quick brown fox jumps over the lazy dog", "bMSlbysmxJL6S75XwfMcQZOpcr4="),
            (&[0xff; 20], "HOc4xznOcX784x//7Mc//vGPf/w="),
            (&bytes, "QkGEfSisZcA7k+FCh71r2dbCayY="),
            (&[1; 161], "/v//////////////Xv////////8="),
            (&ramp, "pVcWCkWK/HTa4DMyE2B1A1Y9XyM="),
        ];
        for (input, expected) in cases {
            assert_eq!(quick_xor_to_base64(&QuickXor::of(input)), expected);
        }
    }

    #[test]
    fn any_split_of_the_input_gives_the_same_hash() {
        let input: Vec<u8> = (0..10_000u32).map(|i| (i * 7 % 256) as u8).collect();
        for split in [0, 1, 159, 160, 161, 1280, 1281, 9_999] {
            let mut hash = QuickXor::default();
            hash.update(&input[..split]);
            hash.update(&input[split..]);
            assert_eq!(hash.finish(), QuickXor::of(&input));
        }
    }

    #[test]
    fn hex_round_trips_and_rejects_other_lengths() {
        assert_eq!(from_hex::<3>("AAf400"), Some([0xaa, 0xf4, 0]));
        assert_eq!(to_hex(&[0xaa, 0xf4, 0]), "aaf400");
        assert_eq!(from_hex::<3>("aaf4"), None);
        assert_eq!(from_hex::<1>("é"), None);
    }
}
