//! What to fetch for a read, and what to fetch before it is asked for. Pure.
//!
//! [`ReadAhead`] watches the reads of one open handle and recognises streams: forward (with small gaps and
//! reordering), backward, strided, and up to four of them interleaved. It says what is wanted ([`Want`]);
//! [`cut`] turns that into ranges to request, given what is missing.
//!
//! - The first read fetches what it asked for, in blocks: a program that looks at a header costs one small
//!   range. A file of up to 1 MiB is fetched in one go by a first read of a block or more, else by the second read.
//! - A second read in sequence starts a range of 4 MiB, later ones are 8 MiB. The window starts at 4 MiB and
//!   doubles when the reader had to wait, at most once per MiB read, up to 128 MiB; half of it is kept
//!   ahead of the reader.
//! - Readers that jump about get exactly the blocks they ask for.

use crate::model::ByteRange;

const MIB: u64 = 1 << 20;
const KEEP_STREAMS: usize = 4;
/// A forward jump of up to this, or a read that comes late by this, belongs to the same stream.
const TOLERANCE: u64 = MIB;
/// The largest gap between the two reads that make a stream.
const FIRST_GAP: u64 = 128 << 10;
/// The read-ahead of a strided reader, in reads.
const MAX_SPOTS: u64 = 8;

/// Numbers of the policy, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The unit of the cache; every range starts at a multiple of it.
    pub block: u64,
    /// A file up to this is fetched whole, unless only its header is looked at.
    pub small_file: u64,
    /// The first range of a stream.
    pub first_piece: u64,
    /// Later ranges of a stream.
    pub piece: u64,
    /// The window that a new stream starts with.
    pub first_window: u64,
    /// The largest window.
    pub max_window: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            block: 128 << 10,
            small_file: MIB,
            first_piece: 4 * MIB,
            piece: 8 * MIB,
            first_window: 4 * MIB,
            max_window: 128 * MIB,
        }
    }
}

/// A read, as the policy needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What was asked for, inside the file and not empty.
    pub range: ByteRange,
    /// Some of it is not on the disk yet.
    pub waits: bool,
    /// The size of the file.
    pub size: u64,
}

/// What should be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// The blocks that the read needs.
    pub asked: ByteRange,
    /// What comes next.
    pub ahead: Ahead,
}

/// What comes after a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// Nothing is known.
    Nothing,
    /// At least `low_water` bytes after the read, in ranges of `piece`.
    Forward {
        /// Fewer bytes ahead than this call for another range.
        low_water: u64,
        /// Length of a range.
        piece: u64,
    },
    /// The same before the read.
    Backward {
        /// Fewer bytes before the read than this call for another range.
        low_water: u64,
        /// Length of a range.
        piece: u64,
    },
    /// These blocks.
    Spots(Vec<ByteRange>),
}

/// A range to request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Block-aligned but for the end of the file.
    pub range: ByteRange,
    /// A program waits for some of it.
    pub urgent: bool,
}

/// The reads of one handle.
#[derive(Clone, Debug)]
pub struct ReadAhead {
    limits: Limits,
    /// Most recently used last.
    streams: Vec<Stream>,
    stride: Stride,
}

#[derive(Clone, Debug)]
struct Stream {
    last: ByteRange,
    start: u64,
    next: u64,
    forward: u32,
    backward: u32,
    window: u64,
    grown_at: u64,
}

#[derive(Clone, Debug, Default)]
struct Stride {
    last_start: Option<u64>,
    delta: i64,
    hits: u32,
}

enum Motion {
    New,
    Forward,
    Backward,
}

impl ReadAhead {
    /// A handle without reads.
    pub fn new(limits: Limits) -> Self {
        Self { limits, streams: Vec::new(), stride: Stride::default() }
    }

    /// Takes notice of a read and says what should be had.
    pub fn plan(&mut self, ask: Ask) -> Want {
        let Limits { block, small_file, .. } = self.limits;
        let range = ask.range;
        let asked =
            ByteRange::new(range.start / block * block, (range.end.div_ceil(block) * block).min(ask.size));
        let strided = self.stride.take_notice(range);
        let motion = self.follow(ask);
        if ask.size <= small_file {
            let is_look = matches!(motion, Motion::New) && self.streams.len() == 1 && range.len() < block;
            if is_look {
                return Want { asked, ahead: Ahead::Nothing };
            }
            let ahead = Ahead::Forward { low_water: small_file, piece: small_file };
            return Want { asked, ahead };
        }
        let stream = self.streams.last().expect("following a read leaves its stream last");
        let piece = if stream.next.abs_diff(stream.start) < MIB {
            self.limits.first_piece
        } else {
            self.limits.piece
        };
        let low_water = stream.window / 2;
        let ahead = match motion {
            Motion::Forward => Ahead::Forward { low_water, piece },
            Motion::Backward if stream.backward >= 2 => Ahead::Backward { low_water, piece },
            Motion::New | Motion::Backward => match strided {
                Some(delta) => Ahead::Spots(self.spots(ask, delta)),
                None => Ahead::Nothing,
            },
        };
        Want { asked, ahead }
    }

    /// Finds or makes the stream of this read and puts it last.
    fn follow(&mut self, ask: Ask) -> Motion {
        let range = ask.range;
        let found = self
            .streams
            .iter()
            .enumerate()
            .rev()
            .find_map(|(index, stream)| stream.motion(range).map(|motion| (index, motion)));
        let Some((index, motion)) = found else {
            if self.streams.len() == KEEP_STREAMS {
                self.streams.remove(0);
            }
            self.streams.push(Stream::new(range, self.limits.first_window));
            return Motion::New;
        };
        let mut stream = self.streams.remove(index);
        stream.advance(ask, &motion, self.limits.max_window);
        self.streams.push(stream);
        motion
    }

    fn spots(&self, ask: Ask, delta: i64) -> Vec<ByteRange> {
        let block = self.limits.block;
        let mut spots: Vec<ByteRange> = Vec::new();
        let mut start = ask.range.start;
        for _ in 0..MAX_SPOTS {
            let Some(next) = start.checked_add_signed(delta).filter(|&next| next < ask.size) else { break };
            start = next;
            let end = (start + ask.range.len()).div_ceil(block) * block;
            spots.push(ByteRange::new(start / block * block, end.min(ask.size)));
        }
        spots
    }
}

impl Stream {
    fn new(range: ByteRange, window: u64) -> Self {
        let (start, next) = (range.start, range.end);
        Self { last: range, start, next, forward: 0, backward: 0, window, grown_at: start }
    }

    fn motion(&self, range: ByteRange) -> Option<Motion> {
        if range.end == self.last.start && self.forward == 0 {
            return Some(Motion::Backward);
        }
        let near = if self.forward > 0 {
            range.start.abs_diff(self.next) <= TOLERANCE
        } else {
            (self.next..=self.next + FIRST_GAP).contains(&range.start)
        };
        near.then_some(Motion::Forward)
    }

    fn advance(&mut self, ask: Ask, motion: &Motion, max_window: u64) {
        self.last = ask.range;
        let here = match motion {
            Motion::Backward => {
                self.backward += 1;
                self.next = ask.range.start;
                if self.backward == 1 {
                    self.grown_at = ask.range.start;
                }
                ask.range.start
            }
            Motion::Forward | Motion::New => {
                self.backward = 0;
                self.next = self.next.max(ask.range.end);
                self.forward += 1;
                if self.forward == 1 {
                    self.grown_at = ask.range.start;
                }
                ask.range.start
            }
        };
        if ask.waits && here.abs_diff(self.grown_at) >= MIB {
            self.window = (self.window * 2).min(max_window);
            self.grown_at = here;
        }
    }
}

impl Stride {
    /// The distance between reads if the last three were equally far apart.
    fn take_notice(&mut self, range: ByteRange) -> Option<i64> {
        let delta = self.last_start.map(|last| range.start as i64 - last as i64);
        self.last_start = Some(range.start);
        match delta {
            Some(delta) if delta == self.delta && delta != 0 => self.hits += 1,
            _ => self.hits = 0,
        }
        self.delta = delta.unwrap_or(0);
        (self.hits >= 1).then_some(self.delta)
    }
}

/// The ranges to request for `want`, most urgent first. `missing` tells which parts of a range are neither on
/// the disk nor on their way.
pub fn cut(want: &Want, size: u64, missing: impl Fn(ByteRange) -> Vec<ByteRange>) -> Vec<Piece> {
    let mut pieces: Vec<Piece> =
        missing(want.asked).into_iter().map(|range| Piece { range, urgent: true }).collect();
    match &want.ahead {
        Ahead::Nothing => {}
        Ahead::Forward { low_water, piece } => {
            cut_forward(&mut pieces, want.asked, *low_water, *piece, size, missing);
        }
        Ahead::Backward { low_water, piece } => {
            cut_backward(&mut pieces, want.asked, *low_water, *piece, missing);
        }
        Ahead::Spots(spots) => {
            let spots = spots.iter().flat_map(|&spot| missing(spot));
            pieces.extend(spots.map(|range| Piece { range, urgent: false }));
        }
    }
    pieces
}

fn cut_forward(
    pieces: &mut Vec<Piece>,
    asked: ByteRange,
    low_water: u64,
    piece: u64,
    size: u64,
    missing: impl Fn(ByteRange) -> Vec<ByteRange>,
) {
    let horizon = asked.end.saturating_add(low_water).min(size);
    let mut at = asked.end;
    while at < horizon {
        let room = ByteRange::new(at, at.saturating_add(piece).min(size));
        let Some(gap) = missing(room).first().copied() else {
            at = room.end;
            continue;
        };
        if gap.start >= horizon {
            break;
        }
        let whole = missing(ByteRange::new(gap.start, gap.start.saturating_add(piece).min(size)));
        let gap = whole.first().copied().unwrap_or(gap);
        at = gap.end;
        match pieces.last_mut() {
            Some(last) if last.range.end == gap.start && last.range.len() < piece => {
                let end = gap.end.min(last.range.start + piece);
                last.range.end = end;
                at = end;
            }
            _ => pieces.push(Piece { range: gap, urgent: false }),
        }
    }
}

fn cut_backward(
    pieces: &mut Vec<Piece>,
    asked: ByteRange,
    low_water: u64,
    piece: u64,
    missing: impl Fn(ByteRange) -> Vec<ByteRange>,
) {
    let horizon = asked.start.saturating_sub(low_water);
    let mut at = asked.start;
    while at > horizon {
        let room = ByteRange::new(at.saturating_sub(piece), at);
        let Some(gap) = missing(room).last().copied() else {
            at = room.start;
            continue;
        };
        if gap.end <= horizon {
            break;
        }
        let whole = missing(ByteRange::new(gap.end.saturating_sub(piece), gap.end));
        let gap = whole.last().copied().unwrap_or(gap);
        at = gap.start;
        pieces.push(Piece { range: gap, urgent: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RangeSet;

    const KIB: u64 = 1 << 10;
    const BIG: u64 = 1 << 30;

    /// Reads through the policy and a cache that gets everything at once.
    struct Sim {
        policy: ReadAhead,
        have: RangeSet,
        size: u64,
    }

    impl Sim {
        fn new(size: u64) -> Self {
            Self { policy: ReadAhead::new(Limits::default()), have: RangeSet::new(), size }
        }

        fn read(&mut self, start: u64, len: u64) -> Vec<Piece> {
            let range = ByteRange::at(start, len).intersect(&ByteRange::new(0, self.size));
            let waits = !self.have.contains(&range);
            let want = self.policy.plan(Ask { range, waits, size: self.size });
            let pieces = cut(&want, self.size, |range| self.have.gaps(range));
            for piece in &pieces {
                assert!(piece.range.start % (128 * KIB) == 0 && !piece.range.is_empty());
                assert!(self.have.within(piece.range).is_empty(), "never asks twice");
                self.have.insert(piece.range);
            }
            assert!(self.have.contains(&range), "what was asked for is requested");
            pieces
        }
    }

    fn lens(pieces: &[Piece]) -> Vec<u64> {
        pieces.iter().map(|piece| piece.range.len() / KIB).collect()
    }

    #[test]
    fn a_look_at_the_header_costs_one_small_range() {
        let mut sim = Sim::new(BIG);
        assert_eq!(lens(&sim.read(0, 4 * KIB)), [128]);
        assert_eq!(lens(&sim.read(100, 512)), [0u64; 0]);
    }

    #[test]
    fn a_small_file_is_one_range_for_who_reads_it_and_one_block_for_who_looks_at_its_header() {
        let mut sim = Sim::new(700 * KIB);
        assert_eq!(lens(&sim.read(0, 128 * KIB)), [700]);
        let mut sim = Sim::new(700 * KIB);
        assert_eq!(lens(&sim.read(0, 16 * KIB)), [128]);
        assert_eq!(lens(&sim.read(16 * KIB, 32 * KIB)), [572], "it goes on");
        let mut sim = Sim::new(700 * KIB);
        assert_eq!(lens(&sim.read(0, 4 * KIB)), [128]);
        assert_eq!(lens(&sim.read(696 * KIB, 4 * KIB)), [60], "a header and an index at the end");
    }

    #[test]
    fn a_sequential_reader_costs_one_request_per_8_mib_and_a_short_ramp() {
        let size = 512 * MIB;
        let mut sim = Sim::new(size);
        let mut requests = Vec::new();
        for start in (0..size).step_by(128 << 10) {
            requests.extend(sim.read(start, 128 * KIB));
        }
        assert_eq!(lens(&requests[..3]), [128, 4096, 8192]);
        assert!(requests.len() as u64 <= size.div_ceil(8 * MIB) + 3, "{}", requests.len());
        assert_eq!(sim.have.len(), size);
    }

    #[test]
    fn the_window_grows_only_when_the_reader_waits_and_ends_at_its_limit() {
        let low_water = |waits: bool| {
            let mut policy = ReadAhead::new(Limits::default());
            let mut last = 0;
            for start in (0..64 * MIB).step_by(128 << 10) {
                let want = policy.plan(Ask { range: ByteRange::at(start, 128 * KIB), waits, size: BIG });
                if let Ahead::Forward { low_water, .. } = want.ahead {
                    last = low_water;
                }
            }
            last
        };
        assert_eq!(low_water(false), 2 * MIB);
        assert_eq!(low_water(true), 64 * MIB);
    }

    #[test]
    fn a_random_reader_gets_no_read_ahead() {
        let mut sim = Sim::new(BIG);
        let mut at = 12_345u64;
        for _ in 0..200 {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let start = at % (BIG - 4096) / 4096 * 4096;
            for piece in sim.read(start, 4096) {
                assert!(piece.urgent && piece.range.len() == 128 * KIB, "{piece:?}");
            }
        }
    }

    #[test]
    fn a_backward_reader_gets_ranges_before_it() {
        let mut sim = Sim::new(BIG);
        let mut requests = Vec::new();
        for step in 1..=256 {
            requests.extend(sim.read(BIG / 2 - step * 128 * KIB, 128 * KIB));
        }
        let ahead = requests.iter().filter(|piece| !piece.urgent).count();
        assert!(ahead > 0 && requests.len() < 20, "{}", requests.len());
        assert!(requests.iter().all(|piece| piece.range.end <= BIG / 2));
    }

    #[test]
    fn a_strided_reader_gets_the_places_it_is_going_to() {
        let mut sim = Sim::new(BIG);
        let reads: Vec<_> = (0..5).map(|step| sim.read(step * 10 * MIB, 64 * KIB)).collect();
        assert_eq!(lens(&reads[0]), [128]);
        assert_eq!(lens(&reads[1]), [128]);
        assert_eq!(lens(&reads[2]), [128; 9], "the third confirms the distance");
        assert_eq!(reads[2][1].range.start, 30 * MIB);
        assert!(reads[3].iter().all(|piece| !piece.urgent));
    }

    #[test]
    fn two_interleaved_readers_are_both_recognised() {
        let mut sim = Sim::new(BIG);
        let mut requests = Vec::new();
        for step in 0..256 {
            requests.extend(sim.read(step * 128 * KIB, 128 * KIB));
            requests.extend(sim.read(BIG / 2 + step * 128 * KIB, 128 * KIB));
        }
        assert!(requests.len() < 24, "{}", requests.len());
    }

    #[test]
    fn a_jump_between_streams_leaves_the_file_bound() {
        let mut sim = Sim::new(5 * MIB + 77);
        for start in [0, 128 * KIB, 256 * KIB, 4 * MIB, 5 * MIB] {
            sim.read(start, 128 * KIB);
        }
        assert!(sim.have.iter().all(|range| range.end <= 5 * MIB + 77));
    }

    #[test]
    fn reads_that_arrive_in_another_order_stay_one_stream() {
        let mut sim = Sim::new(BIG);
        let mut requests = Vec::new();
        for pair in 0..128u64 {
            let first = pair * 256 * KIB;
            requests.extend(sim.read(first + 128 * KIB * (pair % 2), 128 * KIB));
            requests.extend(sim.read(first + 128 * KIB * (1 - pair % 2), 128 * KIB));
        }
        assert!(requests.len() < 12, "{}", requests.len());
    }
}
