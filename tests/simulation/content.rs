//! Contents that can be told apart wherever they turn up.

use super::dice::Dice;

/// Bytes that no other content of the run has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub tag: u32,
    pub len: u32,
    /// Two contents of one tag and length, one a twin, have the same quickXorHash.
    pub twin: bool,
}

/// Bytes after which quickXorHash begins again: two that lie so far apart may change places.
const PERIOD: usize = 160;

impl Content {
    pub fn bytes(&self) -> Vec<u8> {
        let mut dice = Dice::new(u64::from(self.tag) << 8 | 1);
        let mut bytes: Vec<u8> = (0..self.len).map(|_| b'a' + (dice.next() % 26) as u8).collect();
        let label = format!("<{}>", self.tag);
        let end = label.len().min(bytes.len());
        bytes[..end].copy_from_slice(&label.as_bytes()[..end]);
        if self.twin && bytes.len() > 2 * PERIOD {
            let other = (0..PERIOD).find(|&at| bytes[at] != bytes[at + PERIOD]);
            if let Some(at) = other {
                bytes.swap(at, at + PERIOD);
            }
        }
        bytes
    }
}
