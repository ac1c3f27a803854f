//! From what a read needs to the transfers that bring it, and from those back to bytes.

use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};

use super::error::{ContentError, FetchErrorKind};
use super::fetch::Urgency;
use super::file::{CachedFile, Flights, Reader};
use super::flight::{Answer, Flight, Ticket};
use super::readahead::{self, Ask, Piece};
use super::state::{Health, State};
use super::transfer::fly;
use crate::model::{ByteRange, RangeSet};

/// Times a read looks again after what it was told did not hold.
const MAX_ROUNDS: u32 = 64;

impl CachedFile {
    /// Plans, launches what is to be launched, and leaves the handle interested in it.
    pub(super) fn request(
        self: &Arc<Self>,
        range: ByteRange,
        waits: bool,
        reader: &Reader,
    ) -> Vec<Arc<Ticket>> {
        let mut inner = reader.lock();
        let want = inner.policy.plan(Ask { range, waits, size: self.size() });
        let tickets = self.launch(Urgency::Reader, |missing| readahead::cut(&want, self.size(), missing));
        inner.keep(range, &tickets);
        tickets
    }

    /// Launches the pieces that `plan` makes of what is missing, those that are urgent for `who`. Read-ahead is launched
    /// while its budget lasts.
    fn launch(
        self: &Arc<Self>,
        who: Urgency,
        plan: impl FnOnce(&dyn Fn(ByteRange) -> Vec<ByteRange>) -> Vec<Piece>,
    ) -> Vec<Arc<Ticket>> {
        let mut flights = self.lock_flights();
        flights.retain(|ticket| ticket.strong_count() > 0);
        let pieces = {
            let state = self.read_state();
            plan(&|range| self.missing(&state, &flights, range))
        };
        let mut flying = live(&flights).filter(|ticket| !ticket.flight().has_ended()).count();
        let mut tickets = Vec::new();
        for piece in pieces {
            let (slot, share) = if piece.urgent {
                // A reader waits: it goes without a share too, and then is not kept for long.
                (None, self.shared().budget.take_bytes(piece.range.len()))
            } else if flying >= self.shared().config.file_flights {
                continue;
            } else {
                let Some((slot, share)) = self.shared().budget.take(piece.range.len()) else { continue };
                (Some(slot), Some(share))
            };
            flying += 1;
            let urgency = if piece.urgent { who } else { Urgency::ReadAhead };
            let flight = Arc::new(Flight::new(piece.range, urgency, share));
            let task = tokio::spawn(fly(self.clone(), flight.clone(), slot));
            let ticket = Arc::new(Ticket::new(flight.clone(), task.abort_handle()));
            flights.push(Arc::downgrade(&ticket));
            tickets.push(ticket);
        }
        if !tickets.is_empty() && self.has_hashes() && self.is_covered(&flights) {
            live(&flights).for_each(|ticket| ticket.flight().close_gate(self.block()));
        }
        tickets
    }

    /// The parts of `range` neither on the disk nor on their way, in whole blocks.
    fn missing(&self, state: &State, flights: &Flights, range: ByteRange) -> Vec<ByteRange> {
        let (first, end) = self.blocks(range);
        let absent = state.present.runs(first, end, false);
        let mut missing: RangeSet = absent.into_iter().map(|(start, end)| self.run(start, end)).collect();
        for ticket in live(flights).filter(|ticket| !ticket.flight().waits_its_turn()) {
            missing.remove(self.whole_blocks(ticket.flight().servable()));
        }
        missing.within(range)
    }

    /// Every block is on the disk or on its way.
    fn is_covered(&self, flights: &Flights) -> bool {
        let state = self.read_state();
        let mut at = 0;
        loop {
            let gap = state.present.next(at, false);
            if gap >= state.blocks() {
                return true;
            }
            let offset = gap * self.block();
            let serves = |range: &ByteRange| range.start <= offset && offset < range.end;
            let ranges = live(flights).map(|ticket| self.whole_blocks(ticket.flight().servable()));
            match ranges.filter(serves).map(|range| range.end).max() {
                Some(end) => at = end.div_ceil(self.block()),
                None => return false,
            }
        }
    }

    fn whole_blocks(&self, range: ByteRange) -> ByteRange {
        let block = self.block();
        let end = if range.end == self.size() { range.end } else { range.end / block * block };
        ByteRange::new(range.start.div_ceil(block) * block, end)
    }

    /// Puts `range` together from the disk and from flights, in order.
    pub(super) async fn gather(
        self: &Arc<Self>,
        range: ByteRange,
        mut tickets: Vec<Arc<Ticket>>,
    ) -> Result<Bytes, ContentError> {
        let mut out = BytesMut::new();
        let mut at = range.start;
        let mut rounds = 0;
        loop {
            let answer = self.next_part(ByteRange::new(at, range.end), &mut tickets).await;
            match answer {
                Answer::Bytes(bytes) if bytes.len() as u64 == range.len() => return Ok(bytes),
                Answer::Bytes(bytes) => {
                    at += bytes.len() as u64;
                    out.extend_from_slice(&bytes);
                    if at == range.end {
                        return Ok(out.freeze());
                    }
                    rounds = 0;
                }
                Answer::Failed(error) => return Err(error),
                Answer::Wait | Answer::Elsewhere => rounds += 1,
            }
            if rounds > MAX_ROUNDS {
                return Err(ContentError::Fetch(FetchErrorKind::Io.into()));
            }
        }
    }

    async fn next_part(self: &Arc<Self>, rest: ByteRange, tickets: &mut Vec<Arc<Ticket>>) -> Answer {
        if self.read_state().health == Health::Damaged {
            return Answer::Failed(ContentError::Damaged);
        }
        if let Some(run) = self.present_run(rest)
            && let Some(bytes) = self.read_present(run)
        {
            return Answer::Bytes(bytes);
        }
        let Some(ticket) = self.ticket_for(rest.start) else {
            let block = self.block();
            let urgent = ByteRange::new(
                rest.start / block * block,
                (rest.end.div_ceil(block) * block).min(self.size()),
            );
            let pieces = |range: Vec<ByteRange>| {
                range.into_iter().map(|range| Piece { range, urgent: true }).collect()
            };
            tickets.extend(self.launch(Urgency::Reader, |missing| pieces(missing(urgent))));
            return Answer::Elsewhere;
        };
        let answer = ticket.flight().bytes(rest.start, rest.end).await;
        let again = match &answer {
            Answer::Failed(ContentError::Damaged) => ticket.flight().range.len() == self.size(),
            Answer::Failed(_) => ticket.flight().urgency != Urgency::Reader,
            _ => false,
        };
        tickets.push(ticket);
        if again { Answer::Elsewhere } else { answer }
    }

    /// The part of `rest` from its start on that is on the disk.
    fn present_run(&self, rest: ByteRange) -> Option<ByteRange> {
        let state = self.read_state();
        let end = state.present.next(rest.start / self.block(), false) * self.block();
        Some(ByteRange::new(rest.start, end.min(rest.end))).filter(|run| !run.is_empty())
    }

    /// A flight that has, or will have, the byte at `at`.
    fn ticket_for(&self, at: u64) -> Option<Arc<Ticket>> {
        let flights = self.lock_flights();
        let serves = |ticket: &Arc<Ticket>| {
            let range = ticket.flight().servable();
            range.start <= at && at < range.end
        };
        live(&flights).filter(serves).min_by_key(|ticket| ticket.flight().waits_its_turn())
    }

    /// Waits until `range` is stored, or was refused by the cache.
    pub(super) async fn store_range(
        self: &Arc<Self>,
        range: ByteRange,
        who: Urgency,
    ) -> Result<(), ContentError> {
        let mut tickets = self.launch(who, |missing| {
            missing(range).into_iter().map(|range| Piece { range, urgent: true }).collect()
        });
        let others: Vec<_> = live(&self.lock_flights()).collect();
        let overlaps = |ticket: &Arc<Ticket>| !ticket.flight().range.intersect(&range).is_empty();
        tickets.extend(others.into_iter().filter(overlaps));
        for ticket in tickets {
            match ticket.flight().ended().await {
                Err(ContentError::Damaged) => {}
                Ok(()) if ticket.flight().is_done_with() => {}
                Ok(()) => return Err(ContentError::NoRoom),
                Err(_) if ticket.flight().urgency == Urgency::ReadAhead => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn live(flights: &Flights) -> impl Iterator<Item = Arc<Ticket>> + '_ {
    flights.iter().filter_map(Weak::upgrade)
}
