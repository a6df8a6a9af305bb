//! The receiving half of a stream: which sequences arrived, what is delivered, what is owed.
//!
//! Invariants: a sequence is accepted once at most; the next expected one only rises, and
//! everything below it has arrived or, on an unreliable stream, is given up; an ordered stream
//! delivers in the order of sequences; no more bytes are released than arrived.

use core::cmp::Ordering;
use core::ops::Range;
use std::collections::BTreeMap;

use bytes::Bytes;
use net_types::limits::{MAX_PAYLOAD_BYTES, MAX_REORDER_PACKETS, UNRELIABLE_LOSS_DISTANCE};
use net_types::{Instant, StreamId};
use net_wire::{DecodeError, EventIter, Gap, Piece, StreamMode, StreamWindow};

use crate::pieces::Pieces;
use crate::ranges::{Inserted, RangeSet};
use crate::reassembly::{Counted, Fragment, Joined, Reassembly};

#[cfg(test)]
mod tests;

/// What one packet costs in addition to its bytes while an earlier one is missing.
const HELD_OVERHEAD_BYTES: usize = 96;
/// Length of an event's length.
const EVENT_PREFIX: usize = 4;
/// Sequences from here on are never used; a stream at a million packets a second gets there in
/// 146,000 years.
const MAX_SEQUENCE: u64 = 1 << 62;

/// The stream's part of one received packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) sequence: u64,
    pub(crate) events: u16,
    pub(crate) frag_index: u16,
    pub(crate) frag_count: u16,
    pub(crate) is_fin: bool,
    pub(crate) payload: &'a [u8],
}

struct Held {
    events: u16,
    frag_index: u16,
    frag_count: u16,
    payload: Vec<u8>,
}

/// How a packet stands to those that came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Next to the newest, or above it and nothing before it is newly missing.
    InTurn,
    /// Something before it is now missing.
    OpensGap,
    /// It was missing.
    FillsGap,
}

/// Whether a packet is to be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// Yes.
    Yes { order: Order },
    /// It arrived before: acknowledge again, use nothing.
    Duplicate,
    /// It is outside of what this side holds; the peer sends it again.
    Beyond,
}

/// What the session needs room for if it takes a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing that is not counted already.
    Nothing,
    /// A packet that is held before its turn.
    Held(usize),
    /// A message that begins, with its whole length.
    Message(usize),
}

/// A message and the bytes that its consumption releases.
pub(crate) struct Delivery {
    pub(crate) message: Bytes,
    pub(crate) credit: u32,
}

/// What will never be delivered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// Unreliable packets that were given up.
    pub(crate) packets: u64,
    /// Unreliable messages of which some parts had arrived.
    pub(crate) messages: u64,
}

pub(crate) struct RecvStream {
    mode: StreamMode,
    window_bytes: u32,
    next: u64,
    highest: u64,
    above: RangeSet,
    received_bytes: u64,
    consumed_bytes: u64,
    reassembly: Reassembly,
    pieces: Pieces,
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    next_delivery: u64,
    fin_at: Option<u64>,
    /// Released bytes that the sender was told of.
    reported_release: u64,
    /// What an unreliable stream misses below this was reported.
    reported_below: u64,
    losses: Losses,
}

impl RecvStream {
    /// `window_bytes` is what the sender may have outstanding, as the stream's opener said.
    pub(crate) fn new(mode: StreamMode, window_bytes: u32) -> Self {
        Self {
            mode,
            window_bytes,
            next: 0,
            highest: 0,
            above: RangeSet::default(),
            received_bytes: 0,
            consumed_bytes: 0,
            reassembly: Reassembly::default(),
            pieces: Pieces::default(),
            held: BTreeMap::new(),
            held_bytes: 0,
            next_delivery: 0,
            fin_at: None,
            reported_release: 0,
            reported_below: 0,
            losses: Losses::default(),
        }
    }

    /// Asserts that the sums are those of what is held, and that what was received is in order.
    pub(crate) fn check_invariants(&self) {
        let held: usize = self.held.values().map(|h| HELD_OVERHEAD_BYTES + h.payload.len()).sum();
        assert_eq!(self.held_bytes, held);
        assert!(self.consumed_bytes <= self.received_bytes);
        assert!(self.next <= self.highest);
        assert!(self.above.first().is_none_or(|first| first > self.next));
        assert!(self.above.end().is_none_or(|end| end == self.highest));
        self.above.check_invariants();
        self.pieces.check_invariants();
        self.reassembly.check_invariants();
    }

    pub(crate) fn mode(&self) -> StreamMode {
        self.mode
    }

    /// Whether nothing is known to be missing.
    pub(crate) fn is_idle(&self) -> bool {
        !self.mode.is_reliable || (self.above.is_empty() && self.buffered() == Counted::default())
    }

    /// Whether the application has not taken everything yet that it must.
    pub(crate) fn has_unread(&self) -> bool {
        self.mode.is_reliable && self.consumed_bytes < self.received_bytes
    }

    /// Bytes counted for what cannot be delivered yet.
    pub(crate) fn buffered(&self) -> Counted {
        let Counted { paid, unpaid } = self.reassembly.counted();
        Counted { paid, unpaid: unpaid + self.held_bytes + self.pieces.bytes() }
    }

    /// What taking a packet needs.
    ///
    /// What is next in turn and what belongs to a message that was paid for is always taken, so
    /// that everything that waits for it can end. A packet that is not to be used needs nothing:
    /// [`Self::accept`] says why.
    pub(crate) fn need(&self, arrival: &Arrival<'_>) -> Need {
        let Arrival { sequence, frag_index, frag_count, payload, .. } = *arrival;
        if self.judge(sequence) != (Accepted::Yes { order: Order::InTurn }) {
            return Need::Nothing;
        }
        if self.mode.is_ordered && sequence != self.next_delivery {
            return Need::Held(HELD_OVERHEAD_BYTES + payload.len());
        }
        if frag_count <= 1 {
            return Need::Nothing;
        }
        let Some(message) = sequence.checked_sub(frag_index.into()) else { return Need::Nothing };
        let len = payload.len().saturating_sub(EVENT_PREFIX);
        self.reassembly
            .price(message, frag_index, frag_count, len)
            .map_or(Need::Nothing, Need::Message)
    }

    pub(crate) fn has_partial_messages(&self) -> bool {
        !self.reassembly.is_empty()
    }

    /// Decides on a packet and records its sequence.
    pub(crate) fn accept(&mut self, sequence: u64, payload_len: usize) -> Accepted {
        let known = self.judge(sequence);
        if known != (Accepted::Yes { order: Order::InTurn }) {
            return known;
        }
        if !self.mode.is_reliable {
            self.declare_lost_below((sequence + 1).saturating_sub(UNRELIABLE_LOSS_DISTANCE));
        }
        let order = match sequence.cmp(&self.highest) {
            Ordering::Less => Order::FillsGap,
            Ordering::Equal => Order::InTurn,
            Ordering::Greater => Order::OpensGap,
        };
        if sequence == self.next {
            self.next += 1;
        } else {
            match self.above.insert(sequence) {
                Inserted::New => {}
                Inserted::Duplicate => return Accepted::Duplicate,
                Inserted::NoRoom => return Accepted::Beyond,
            }
        }
        self.highest = self.highest.max(sequence + 1);
        if let Some(end) = self.above.take_from(self.next) {
            self.next = end;
        }
        self.received_bytes += payload_len as u64;
        self.pieces.remove(sequence);
        Accepted::Yes { order }
    }

    /// Whether a packet with this sequence could be used now.
    fn judge(&self, sequence: u64) -> Accepted {
        if sequence < self.next || self.above.contains(sequence) {
            return Accepted::Duplicate;
        }
        let outstanding = self.received_bytes.saturating_sub(self.consumed_bytes);
        // One packet beyond the window is allowed: an idle sender may always send one.
        let is_over = outstanding > u64::from(self.window_bytes);
        let is_far = sequence - self.next >= MAX_REORDER_PACKETS;
        if sequence >= MAX_SEQUENCE || (self.mode.is_reliable && (is_far || is_over)) {
            return Accepted::Beyond;
        }
        Accepted::Yes { order: Order::InTurn }
    }

    /// Adds a piece of a packet. The packet's payload when it is whole, or why the piece is of no
    /// use; `None` while others are missing.
    pub(crate) fn add_piece(
        &mut self,
        sequence: u64,
        piece: &Piece<'_>,
    ) -> Option<Result<Vec<u8>, Accepted>> {
        match self.judge(sequence) {
            Accepted::Yes { .. } => {}
            refused => return Some(Err(refused)),
        }
        self.pieces.remove_below(self.next);
        self.pieces.add(sequence, piece).map(Ok)
    }

    /// Gives up what is missing below `floor`, in as many steps as there are gaps.
    fn declare_lost_below(&mut self, floor: u64) {
        if self.next >= floor {
            return;
        }
        while self.next < floor {
            let gap_end = self.above.first().map_or(floor, |first| first.min(floor));
            // Bounded: a peer that skips sequences must not inflate the count.
            self.losses.packets += (gap_end - self.next).min(MAX_REORDER_PACKETS);
            self.next = gap_end;
            if let Some(end) = self.above.take_from(gap_end) {
                self.next = end;
            }
        }
        self.highest = self.highest.max(self.next);
        self.losses.messages += self.reassembly.drop_below(self.next);
    }

    /// The gaps below `end` are being reported.
    pub(crate) fn note_report(&mut self, end: u64) {
        self.reported_below = self.reported_below.max(end);
    }

    /// Gives up what an unreliable stream still misses of what was reported: the sender gave it up
    /// when it read the report, and waits for an acknowledgement of what came after.
    pub(crate) fn give_up_reported(&mut self) {
        self.declare_lost_below(self.reported_below);
    }

    /// What was given up since the last call.
    pub(crate) fn take_losses(&mut self) -> Losses {
        core::mem::take(&mut self.losses)
    }

    /// Turns an accepted packet, and what it unblocks, into messages. The session had room for what
    /// the packet needs. A message that starts in the unblocked packets is charged at its next
    /// fragment.
    pub(crate) fn deliver(
        &mut self,
        now: Instant,
        arrival: &Arrival<'_>,
        mut out: impl FnMut(Delivery),
    ) -> Result<(), DecodeError> {
        if arrival.is_fin {
            self.fin_at = Some(arrival.sequence);
            if !self.mode.is_reliable {
                // The sender ends an unreliable stream only after it gave up the rest.
                self.declare_lost_below(arrival.sequence);
            }
        }
        if !self.mode.is_ordered {
            return self.unpack(now, arrival, true, &mut out);
        }
        if arrival.sequence != self.next_delivery {
            let held = Held {
                events: arrival.events,
                frag_index: arrival.frag_index,
                frag_count: arrival.frag_count,
                payload: arrival.payload.to_vec(),
            };
            self.held_bytes += HELD_OVERHEAD_BYTES + held.payload.len();
            self.held.insert(arrival.sequence, held);
            return Ok(());
        }
        let mut result = self.unpack(now, arrival, true, &mut out);
        self.next_delivery += 1;
        while let Some(held) = self.held.remove(&self.next_delivery) {
            self.held_bytes -= HELD_OVERHEAD_BYTES + held.payload.len();
            let arrival = Arrival {
                sequence: self.next_delivery,
                events: held.events,
                frag_index: held.frag_index,
                frag_count: held.frag_count,
                is_fin: false,
                payload: &held.payload,
            };
            result = result.and(self.unpack(now, &arrival, false, &mut out));
            self.next_delivery += 1;
        }
        result
    }

    fn unpack(
        &mut self,
        now: Instant,
        arrival: &Arrival<'_>,
        is_paid: bool,
        out: &mut impl FnMut(Delivery),
    ) -> Result<(), DecodeError> {
        if arrival.frag_count > 1 {
            return self.unpack_fragment(now, arrival, is_paid, out);
        }
        for event in EventIter::new(arrival.events, arrival.payload) {
            let event = event?;
            let credit = (EVENT_PREFIX + event.len()) as u32;
            out(Delivery { message: Bytes::copy_from_slice(event), credit });
        }
        Ok(())
    }

    fn unpack_fragment(
        &mut self,
        now: Instant,
        arrival: &Arrival<'_>,
        is_paid: bool,
        out: &mut impl FnMut(Delivery),
    ) -> Result<(), DecodeError> {
        let mut events = EventIter::new(arrival.events, arrival.payload);
        let (Some(Ok(bytes)), None) = (events.next(), events.next()) else {
            return Err(DecodeError::BadValue("fragment"));
        };
        let message = arrival
            .sequence
            .checked_sub(arrival.frag_index.into())
            .ok_or(DecodeError::BadValue("fragment sequence"))?;
        let (index, count) = (arrival.frag_index, arrival.frag_count);
        let is_kept = self.keeps_credit(arrival);
        let credit = if is_kept { arrival.payload.len() as u32 } else { 0 };
        if !is_kept {
            self.consumed_bytes += arrival.payload.len() as u64;
        }
        let fragment = Fragment { message, index, count, bytes, credit, is_paid };
        // An ordered stream unpacks later than it accepts.
        let floor = if self.mode.is_ordered { self.next_delivery } else { self.next };
        match self.reassembly.add(now, floor, fragment) {
            Joined::Whole(whole, credit) => out(Delivery { message: Bytes::from(whole), credit }),
            Joined::Waiting => {}
            Joined::Refused => return Err(DecodeError::BadValue("fragment")),
        }
        Ok(())
    }

    /// Whether a fragment's bytes are released only when the application takes the message.
    ///
    /// Others are released as they arrive, or a message longer than the window could never arrive.
    /// Keeping the last half window, and at least the last fragment, still lets every message end,
    /// since its end is the last that needs credit; and an application that does not read holds up
    /// the sender after two long messages.
    fn keeps_credit(&self, arrival: &Arrival<'_>) -> bool {
        let half = self.window_bytes as usize / 2;
        let kept = (half / arrival.payload.len().max(1)).max(1);
        self.mode.is_reliable && usize::from(arrival.frag_count - arrival.frag_index) <= kept
    }

    /// The application took `bytes`.
    pub(crate) fn consume(&mut self, bytes: u32) {
        self.consumed_bytes =
            self.consumed_bytes.saturating_add(bytes.into()).min(self.received_bytes);
    }

    /// Bytes that the sender need not count any more once it is told. On an unreliable stream they
    /// are released by their arrival.
    fn released_bytes(&self) -> u64 {
        if self.mode.is_reliable { self.consumed_bytes } else { self.received_bytes }
    }

    /// Whether the sender may be waiting for a grant: many released bytes are not reported yet, or
    /// the window that it knows has no room for a whole packet.
    pub(crate) fn is_grant_urgent(&self) -> bool {
        let released = self.released_bytes() - self.reported_release;
        let outstanding = self.received_bytes - self.reported_release;
        let window = u64::from(self.window_bytes);
        released > 0 && (released >= window / 4 || outstanding + MAX_PAYLOAD_BYTES as u64 > window)
    }

    /// The window is being reported.
    pub(crate) fn note_window_report(&mut self) {
        self.reported_release = self.released_bytes();
    }

    pub(crate) fn window(&self, stream_id: StreamId) -> StreamWindow {
        StreamWindow { stream_id, total_consumed: self.consumed_bytes, ack_seq: self.next }
    }

    /// What is missing from `from` on, as much as one report holds, with the range it describes.
    pub(crate) fn gaps(&self, from: u64) -> Option<(Range<u64>, Vec<Gap>)> {
        let from = from.max(self.next);
        self.above.gaps(from).map(|(gaps, below)| (from..below, gaps))
    }

    /// Whether packets are missing at or above `end`.
    pub(crate) fn has_gaps_from(&self, end: u64) -> bool {
        self.above.end().is_some_and(|last| last > end)
    }

    pub(crate) fn next_expected(&self) -> u64 {
        self.next
    }

    pub(crate) fn has_gaps(&self) -> bool {
        !self.above.is_empty()
    }

    /// Whether everything up to the stream's end has arrived.
    pub(crate) fn is_finished(&self) -> bool {
        self.fin_at.is_some_and(|fin| self.next > fin)
    }

    /// Gives up unreliable messages that are partly here for too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        if !self.mode.is_reliable {
            self.losses.messages += self.reassembly.expire(now);
        }
    }
}
