//! A transfer under way: what has arrived of a range, for everybody who waits for it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::budget::Share;
use super::error::{ContentError, FetchError, FetchErrorKind};
use super::fetch::Urgency;
use crate::model::ByteRange;

/// One transfer. It ends when the last [`Ticket`] is dropped.
#[derive(Debug)]
pub(super) struct Flight {
    pub range: ByteRange,
    pub urgency: Urgency,
    arrived: Mutex<Arrived>,
    wake: watch::Sender<()>,
}

#[derive(Debug)]
struct Arrived {
    /// Everything before this offset came in.
    received: u64,
    /// Readers may see bytes up to here only, until the whole file is verified.
    gate: Option<u64>,
    /// Bytes in memory, contiguous, ending at `received`; what is before them is on the disk.
    chunks: VecDeque<(u64, Bytes)>,
    end: Option<Result<(), ContentError>>,
    /// The bytes' part of the budget, held while they are in memory; none where it had no room for a reader that waits.
    share: Option<Share>,
}

/// An interest in a transfer.
pub(super) struct Ticket {
    flight: Arc<Flight>,
    task: AbortHandle,
}

/// What a flight says to someone who needs the bytes from some offset on.
pub(super) enum Answer {
    Bytes(Bytes),
    /// Not here yet.
    Wait,
    /// Not here any more: look on the disk.
    Elsewhere,
    Failed(ContentError),
}

impl Flight {
    pub fn new(range: ByteRange, urgency: Urgency, share: Option<Share>) -> Self {
        let arrived =
            Arrived { received: range.start, gate: None, chunks: VecDeque::new(), end: None, share };
        Self { range, urgency, arrived: Mutex::new(arrived), wake: watch::channel(()).0 }
    }

    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().expect("no code panics while it holds a flight")
    }

    /// Adds the next bytes.
    pub fn push(&self, bytes: Bytes) {
        let mut arrived = self.lock();
        let start = arrived.received;
        arrived.received += bytes.len() as u64;
        arrived.chunks.push_back((start, bytes));
        drop(arrived);
        self.wake.send_replace(());
    }

    /// Hides the last `block` bytes until [`Flight::open_gate`], unless someone may have seen them.
    pub fn close_gate(&self, block: u64) {
        let mut arrived = self.lock();
        let last = (self.range.end - 1) / block * block;
        if arrived.end.is_none() && arrived.received <= last.max(self.range.start) {
            arrived.gate = Some(last.max(self.range.start));
        }
    }

    pub fn open_gate(&self) {
        self.lock().gate = None;
        self.wake.send_replace(());
    }

    /// Forgets the bytes before `offset`: they are on the disk.
    pub fn release(&self, offset: u64) {
        let mut arrived = self.lock();
        while let Some((start, bytes)) = arrived.chunks.pop_front() {
            if start + bytes.len() as u64 > offset {
                let rest = bytes.slice(offset.saturating_sub(start) as usize..);
                arrived.chunks.push_front((start.max(offset), rest));
                break;
            }
        }
        if offset >= self.range.end {
            arrived.share = None;
        }
        drop(arrived);
        self.wake.send_replace(());
    }

    pub fn finish(&self, end: Result<(), ContentError>) {
        let mut arrived = self.lock();
        if end.is_err() {
            if let Some(gate) = arrived.gate {
                arrived.hide_from(gate);
            }
        } else {
            arrived.gate = None;
        }
        if arrived.chunks.is_empty() {
            arrived.share = None;
        }
        arrived.end = Some(end);
        drop(arrived);
        self.wake.send_replace(());
    }

    /// The bytes that this flight has or will have, on its own account.
    pub fn servable(&self) -> ByteRange {
        let arrived = self.lock();
        let start = arrived.chunks.front().map_or(arrived.received, |(start, _)| *start);
        ByteRange::new(start, if arrived.end.is_some() { arrived.received } else { self.range.end })
    }

    /// Nobody waits for it and nothing of it came yet: a reader is better off with a transfer of its own.
    pub fn waits_its_turn(&self) -> bool {
        let arrived = self.lock();
        self.urgency == Urgency::Keep && arrived.received == self.range.start && arrived.end.is_none()
    }

    pub fn has_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// It ended well and keeps nothing in memory.
    pub fn is_done_with(&self) -> bool {
        let arrived = self.lock();
        arrived.end.is_some() && arrived.chunks.is_empty()
    }

    /// It ended, and keeps bytes in memory that the budget had no room for.
    pub fn is_beyond_budget(&self) -> bool {
        let arrived = self.lock();
        arrived.end.is_some() && !arrived.chunks.is_empty() && arrived.share.is_none()
    }

    /// Bytes in memory.
    #[cfg(test)]
    pub fn in_memory(&self) -> u64 {
        self.lock().chunks.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// Bytes from `at` on, at most to `end`.
    pub fn answer(&self, at: u64, end: u64) -> Answer {
        let arrived = self.lock();
        let visible = arrived.gate.map_or(arrived.received, |gate| gate.min(arrived.received));
        let first = arrived.chunks.front().map_or(arrived.received, |(start, _)| *start);
        if at < first {
            return Answer::Elsewhere;
        }
        if at < visible {
            return Answer::Bytes(arrived.copy(ByteRange::new(at, end.min(visible))));
        }
        match &arrived.end {
            None => Answer::Wait,
            Some(Ok(())) => Answer::Elsewhere,
            Some(Err(error)) => Answer::Failed(error.clone()),
        }
    }

    /// As [`Flight::answer`], but waits.
    pub async fn bytes(&self, at: u64, end: u64) -> Answer {
        let mut wake = self.wake.subscribe();
        loop {
            match self.answer(at, end) {
                Answer::Wait => {}
                answer => return answer,
            }
            if wake.changed().await.is_err() {
                return Answer::Elsewhere;
            }
        }
    }

    /// Waits for the end, all storing included.
    pub async fn ended(&self) -> Result<(), ContentError> {
        let mut wake = self.wake.subscribe();
        loop {
            if let Some(end) = &self.lock().end {
                return end.clone();
            }
            if wake.changed().await.is_err() {
                return Ok(());
            }
        }
    }
}

impl Arrived {
    fn copy(&self, range: ByteRange) -> Bytes {
        let from = self.chunks.partition_point(|(start, bytes)| start + bytes.len() as u64 <= range.start);
        let mut out = BytesMut::new();
        for (start, bytes) in self.chunks.iter().skip(from) {
            let part = ByteRange::at(*start, bytes.len() as u64).intersect(&range);
            if part.is_empty() {
                break;
            }
            let piece = bytes.slice((part.start - start) as usize..(part.end - start) as usize);
            if part == range {
                return piece;
            }
            out.extend_from_slice(&piece);
        }
        out.freeze()
    }

    fn hide_from(&mut self, offset: u64) {
        while let Some((start, bytes)) = self.chunks.pop_back() {
            if start < offset {
                self.chunks.push_back((start, bytes.slice(..((offset - start) as usize).min(bytes.len()))));
                break;
            }
        }
        self.received = self.received.min(offset);
    }
}

impl Ticket {
    pub fn new(flight: Arc<Flight>, task: AbortHandle) -> Self {
        Self { flight, task }
    }

    pub fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Ticket({})", self.flight.range)
    }
}

/// Ends a flight whose task went away without doing so, so that nobody waits for ever.
pub(super) struct Lander<'a>(pub &'a Flight);

impl Drop for Lander<'_> {
    fn drop(&mut self) {
        if !self.0.has_ended() {
            self.0.finish(Err(FetchError::new(FetchErrorKind::Protocol).into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight() -> Flight {
        Flight::new(ByteRange::new(100, 130), Urgency::Reader, None)
    }

    fn bytes(flight: &Flight, at: u64, end: u64) -> Option<Vec<u8>> {
        match flight.answer(at, end) {
            Answer::Bytes(bytes) => Some(bytes.to_vec()),
            _ => None,
        }
    }

    #[test]
    fn gated_bytes_are_seen_by_nobody_until_the_whole_is_verified() {
        for verified in [true, false] {
            let flight = flight();
            flight.push(Bytes::from_static(&[1; 10]));
            flight.close_gate(10);
            flight.push(Bytes::from_static(&[2; 20]));
            assert_eq!(bytes(&flight, 105, 130).expect("before the gate").len(), 15);
            assert!(matches!(flight.answer(120, 130), Answer::Wait));
            flight.finish(if verified { Ok(()) } else { Err(ContentError::Damaged) });
            assert_eq!(bytes(&flight, 120, 130).is_some(), verified);
            assert_eq!(matches!(flight.answer(120, 130), Answer::Failed(ContentError::Damaged)), !verified);
        }
    }

    #[test]
    fn a_gate_does_not_close_on_bytes_that_may_have_been_seen() {
        let flight = flight();
        flight.push(Bytes::from_static(&[1; 25]));
        flight.close_gate(10);
        assert_eq!(bytes(&flight, 100, 130).expect("visible").len(), 25);
    }

    #[test]
    fn released_bytes_are_looked_for_on_the_disk_and_the_rest_stays() {
        let flight = flight();
        flight.push(Bytes::from_static(&[1; 15]));
        flight.push(Bytes::from_static(&[2; 15]));
        flight.release(120);
        assert!(matches!(flight.answer(100, 130), Answer::Elsewhere));
        assert_eq!(bytes(&flight, 120, 125), Some(vec![2; 5]));
        assert_eq!(flight.servable(), ByteRange::new(120, 130));
        flight.release(130);
        flight.finish(Ok(()));
        assert!(flight.is_done_with());
    }
}
