//! quickXorHash (graph-api 13), written from its definition and shared with no one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The register offset `11 * i mod 160` has this period in the byte index `i`.
pub(crate) const FOLD: usize = 160;

/// Streaming state: the input XOR-folded to 160 bytes, and its length.
#[derive(Debug, Clone)]
pub(crate) struct QuickXor {
    fold: [u8; FOLD],
    len: u64,
}

impl Default for QuickXor {
    fn default() -> Self {
        Self { fold: [0; FOLD], len: 0 }
    }
}

impl QuickXor {
    /// A state that a caller computed by other means: `fold[k]` is the XOR of all bytes at `i mod 160 == k`.
    pub(crate) fn from_fold(fold: [u8; FOLD], len: u64) -> Self {
        Self { fold, len }
    }

    /// Appends `data`.
    pub(crate) fn update(&mut self, mut data: &[u8]) {
        let at = (self.len % FOLD as u64) as usize;
        self.len += data.len() as u64;
        if at != 0 {
            let head = data.len().min(FOLD - at);
            xor(&mut self.fold[at..at + head], &data[..head]);
            data = &data[head..];
        }
        let rows = data.chunks_exact(FOLD);
        let tail = rows.remainder();
        let mut words = [0u64; FOLD / 8];
        for row in rows {
            for (word, bytes) in words.iter_mut().zip(row.as_chunks::<8>().0) {
                *word ^= u64::from_le_bytes(*bytes);
            }
        }
        for (word, bytes) in words.iter().zip(self.fold.chunks_exact_mut(8)) {
            xor(bytes, &word.to_le_bytes());
        }
        xor(&mut self.fold[..tail.len()], tail);
    }

    /// The 20 bytes of the hash.
    pub(crate) fn finish(&self) -> [u8; 20] {
        let mut out = [0u8; 20];
        for (i, &byte) in self.fold.iter().enumerate() {
            let shift = 11 * i % FOLD;
            let wide = u16::from(byte) << (shift % 8);
            let [low, high] = wide.to_le_bytes();
            out[shift / 8] ^= low;
            out[(shift / 8 + 1) % 20] ^= high;
        }
        xor(&mut out[12..], &self.len.to_le_bytes());
        out
    }
}

pub(crate) fn xor(into: &mut [u8], from: &[u8]) {
    for (a, b) in into.iter_mut().zip(from) {
        *a ^= b;
    }
}

/// Base64 with padding, as in `file.hashes.quickXorHash`.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Upper-case hexadecimal, as in `sha1Hash` and `sha256Hash` (graph-api 3.3).
pub(crate) fn hex_upper(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quick(data: &[u8]) -> String {
        let mut h = QuickXor::default();
        h.update(data);
        base64(&h.finish())
    }

    #[test]
    fn published_vectors_match() {
        let b64 = |s: &str| STANDARD.decode(s).unwrap();
        for (input, want) in [
            ("", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            ("Sg==", "SgAAAAAAAAAAAAAAAQAAAAAAAAA="),
            ("tbQ=", "taAFAAAAAAAAAAAAAgAAAAAAAAA="),
            ("/aNzzCFPS/A=", "/RjFHJgRgicsAR4ACAAAAAAAAAA="),
            ("2fuxhBJXtpWFe8dOfdGeHw==", "O9tHLAghgSvYohKFyMMxnNCHaHg="),
            ("T6LYJIfDh81JrAK309H2JMJTXis=", "zBTHrspn3mEcohlJdIUAbjGNaNg="),
        ] {
            assert_eq!(quick(&b64(input)), want, "{input}");
        }
        assert_eq!(quick(b"The quick brown fox jumps over the lazy dog"), "bMSlbysmxJL6S75XwfMcQZOpcr4=");
        assert_eq!(quick(&[1u8; 161]), "/v//////////////Xv////////8=");
        assert_eq!(quick(&vec![0x5a; 327_680]), "AAAAAAAAAAAAAAAAAAAFAAAAAAA=");
        let counting: Vec<u8> = (0..1u32 << 20).map(|i| (i % 251) as u8).collect();
        assert_eq!(quick(&counting), "pVcWCkWK/HTa4DMyE2B1A1Y9XyM=");
    }

    #[test]
    fn the_way_the_input_is_cut_does_not_matter() {
        let data: Vec<u8> = (0..5000u32).map(|i| (i * 7 % 256) as u8).collect();
        for step in [1, 7, 159, 160, 161, 333, 4999] {
            let mut h = QuickXor::default();
            data.chunks(step).for_each(|c| h.update(c));
            assert_eq!(base64(&h.finish()), quick(&data), "{step}");
        }
    }
}
