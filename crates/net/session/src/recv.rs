//! The receiving half of a stream: which sequences arrived, what is delivered, what is owed.

use std::collections::BTreeMap;

use bytes::Bytes;
use net_types::limits::{
    DEFAULT_STREAM_WINDOW_BYTES, MAX_REORDER_PACKETS, UNRELIABLE_LOSS_DISTANCE,
};
use net_types::{Instant, StreamId};
use net_wire::{DecodeError, EventIter, Gap, StreamMode, StreamOpen, StreamWindow};

use crate::ranges::{Inserted, RangeSet};
use crate::reassembly::{Joined, Reassembly};

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

/// Whether a packet is to be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// Yes; `opens_gap` is whether something before it is now missing.
    Yes { opens_gap: bool },
    /// It was here before: acknowledge again, use nothing.
    Duplicate,
    /// It is outside of what this side holds; the peer sends it again.
    Beyond,
}

/// A message and the bytes that its consumption releases.
pub(crate) struct Delivery {
    pub(crate) message: Bytes,
    pub(crate) credit: u32,
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
    held: BTreeMap<u64, Held>,
    next_delivery: u64,
    fin_at: Option<u64>,
    pub(crate) declared_lost: u64,
}

impl RecvStream {
    pub(crate) fn new(mode: StreamMode) -> Self {
        Self {
            mode,
            window_bytes: DEFAULT_STREAM_WINDOW_BYTES,
            next: 0,
            highest: 0,
            above: RangeSet::default(),
            received_bytes: 0,
            consumed_bytes: 0,
            reassembly: Reassembly::default(),
            held: BTreeMap::new(),
            next_delivery: 0,
            fin_at: None,
            declared_lost: 0,
        }
    }

    pub(crate) fn window_bytes(&self) -> u32 {
        self.window_bytes
    }

    pub(crate) fn set_open(&mut self, open: &StreamOpen) {
        self.mode = open.mode;
        self.window_bytes = open.window_bytes;
    }

    pub(crate) fn reassembly_bytes(&self) -> usize {
        self.reassembly.bytes()
    }

    /// Decides on a packet and records its sequence.
    pub(crate) fn accept(&mut self, sequence: u64, payload_len: usize) -> Accepted {
        if sequence < self.next {
            return Accepted::Duplicate;
        }
        let outstanding = self.received_bytes - self.consumed_bytes;
        // One packet beyond the window is allowed: an idle sender may always send one.
        let is_over = outstanding > u64::from(self.window_bytes);
        if sequence - self.next >= MAX_REORDER_PACKETS || (self.mode.is_reliable && is_over) {
            return Accepted::Beyond;
        }
        let opens_gap = sequence > self.highest;
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
        if !self.mode.is_reliable {
            self.declare_losses();
        }
        self.received_bytes += payload_len as u64;
        Accepted::Yes { opens_gap: opens_gap && self.mode.is_reliable }
    }

    fn declare_losses(&mut self) {
        let floor = self.highest.saturating_sub(UNRELIABLE_LOSS_DISTANCE);
        while self.next < floor {
            self.declared_lost += 1;
            self.next += 1;
            if let Some(end) = self.above.take_from(self.next) {
                self.next = end;
            }
        }
    }

    /// Turns an accepted packet, and what it unblocks, into messages.
    pub(crate) fn deliver(
        &mut self,
        now: Instant,
        arrival: &Arrival<'_>,
        mut out: impl FnMut(Delivery),
    ) -> Result<(), DecodeError> {
        if arrival.is_fin {
            self.fin_at = Some(arrival.sequence);
        }
        if !self.mode.is_ordered {
            return self.unpack(now, arrival, &mut out);
        }
        if arrival.sequence != self.next_delivery {
            let held = Held {
                events: arrival.events,
                frag_index: arrival.frag_index,
                frag_count: arrival.frag_count,
                payload: arrival.payload.to_vec(),
            };
            self.held.insert(arrival.sequence, held);
            return Ok(());
        }
        let mut result = self.unpack(now, arrival, &mut out);
        self.next_delivery += 1;
        while let Some(held) = self.held.remove(&self.next_delivery) {
            let arrival = Arrival {
                sequence: self.next_delivery,
                events: held.events,
                frag_index: held.frag_index,
                frag_count: held.frag_count,
                is_fin: false,
                payload: &held.payload,
            };
            result = result.and(self.unpack(now, &arrival, &mut out));
            self.next_delivery += 1;
        }
        result
    }

    fn unpack(
        &mut self,
        now: Instant,
        arrival: &Arrival<'_>,
        out: &mut impl FnMut(Delivery),
    ) -> Result<(), DecodeError> {
        let mut events = EventIter::new(arrival.events, arrival.payload);
        if arrival.frag_count <= 1 {
            let mut used = 0;
            for event in events {
                let Ok(event) = event else {
                    // What cannot be read is never consumed by the application.
                    self.consumed_bytes += (arrival.payload.len() - used) as u64;
                    return event.map(drop);
                };
                used += 4 + event.len();
                let credit = 4 + event.len() as u32;
                out(Delivery { message: Bytes::copy_from_slice(event), credit });
            }
            return Ok(());
        }
        // A fragment counts as taken when it is accepted; otherwise a message longer than the
        // window could never arrive.
        self.consumed_bytes += arrival.payload.len() as u64;
        let fragment = events.next().unwrap_or(Err(DecodeError::BadValue("empty fragment")))?;
        let message = arrival
            .sequence
            .checked_sub(arrival.frag_index.into())
            .ok_or(DecodeError::BadValue("fragment sequence"))?;
        let (index, count) = (arrival.frag_index, arrival.frag_count);
        match self.reassembly.add(now, message, index, count, fragment) {
            Joined::Whole(whole) => out(Delivery { message: Bytes::from(whole), credit: 0 }),
            Joined::Waiting => {}
            Joined::Refused => return Err(DecodeError::BadValue("fragment")),
        }
        Ok(())
    }

    /// The application took `bytes`.
    pub(crate) fn consume(&mut self, bytes: u32) {
        self.consumed_bytes =
            self.consumed_bytes.saturating_add(bytes.into()).min(self.received_bytes);
    }

    pub(crate) fn window(&self, stream_id: StreamId) -> StreamWindow {
        StreamWindow { stream_id, total_consumed: self.consumed_bytes, ack_seq: self.next }
    }

    pub(crate) fn gaps(&self) -> Vec<Gap> {
        self.above.gaps(self.next)
    }

    pub(crate) fn next_expected(&self) -> u64 {
        self.next
    }

    pub(crate) fn has_gaps(&self) -> bool {
        self.mode.is_reliable && !self.above.is_empty()
    }

    /// Whether everything up to the stream's end has arrived.
    pub(crate) fn is_finished(&self) -> bool {
        self.fin_at.is_some_and(|fin| self.next > fin)
    }

    pub(crate) fn expire(&mut self, now: Instant) -> usize {
        if self.mode.is_reliable { 0 } else { self.reassembly.expire(now) }
    }
}

#[cfg(test)]
mod tests {
    use net_wire::push_event;

    use super::*;

    fn event(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push_event(&mut out, text);
        out
    }

    fn whole(sequence: u64, payload: &[u8]) -> Arrival<'_> {
        Arrival { sequence, events: 1, frag_index: 0, frag_count: 0, is_fin: false, payload }
    }

    fn receive(s: &mut RecvStream, sequence: u64, text: &[u8]) -> Vec<Bytes> {
        let payload = event(text);
        assert!(matches!(s.accept(sequence, payload.len()), Accepted::Yes { .. }));
        let mut got = Vec::new();
        s.deliver(Instant::ZERO, &whole(sequence, &payload), |d| got.push(d.message)).unwrap();
        got
    }

    #[test]
    fn unordered_streams_deliver_at_once_and_ordered_ones_wait() {
        let mut s = RecvStream::new(StreamMode::RELIABLE);
        assert_eq!(receive(&mut s, 1, b"b").len(), 1);
        assert_eq!(receive(&mut s, 0, b"a").len(), 1);
        let mut s = RecvStream::new(StreamMode::ORDERED);
        assert_eq!(receive(&mut s, 2, b"c").len(), 0);
        assert_eq!(receive(&mut s, 1, b"b").len(), 0);
        assert_eq!(receive(&mut s, 0, b"a"), [&b"a"[..], b"b", b"c"]);
    }

    #[test]
    fn duplicates_and_far_packets_are_not_used() {
        let mut s = RecvStream::new(StreamMode::RELIABLE);
        assert_eq!(s.accept(0, 1), Accepted::Yes { opens_gap: false });
        assert_eq!(s.accept(0, 1), Accepted::Duplicate);
        assert_eq!(s.accept(2, 1), Accepted::Yes { opens_gap: true });
        assert_eq!(s.accept(2, 1), Accepted::Duplicate);
        assert_eq!(s.accept(3, 1), Accepted::Yes { opens_gap: false });
        assert_eq!(s.accept(1 + MAX_REORDER_PACKETS, 1), Accepted::Beyond);
        assert_eq!(s.gaps(), [Gap { start: 1, length: 1 }]);
    }

    #[test]
    fn a_sender_that_ignores_the_window_is_refused_until_the_application_reads() {
        let mut s = RecvStream::new(StreamMode::RELIABLE);
        let mut sequence = 0;
        while s.accept(sequence, 10_000) != Accepted::Beyond {
            sequence += 1;
        }
        assert_eq!(sequence, 7);
        s.consume(70_000);
        assert_eq!(s.accept(sequence, 10_000), Accepted::Yes { opens_gap: false });
    }

    #[test]
    fn unreliable_gaps_are_declared_lost_behind_the_newest() {
        let mut s = RecvStream::new(StreamMode::FIRE_AND_FORGET);
        s.accept(0, 1);
        s.accept(5, 1);
        assert_eq!(s.next_expected(), 1);
        s.accept(100, 1);
        assert_eq!((s.next_expected(), s.declared_lost), (37, 35));
        assert!(!s.has_gaps());
    }

    #[test]
    fn fragments_release_their_credit_before_the_message_is_whole() {
        let mut s = RecvStream::new(StreamMode::RELIABLE);
        let payload = event(&[1; 100]);
        for index in 0..2u16 {
            s.accept(index.into(), payload.len());
            let a = Arrival { frag_index: index, frag_count: 3, ..whole(index.into(), &payload) };
            s.deliver(Instant::ZERO, &a, |_| panic!("not whole yet")).unwrap();
        }
        assert_eq!(s.window(StreamId(9)).total_consumed, 208);
    }
}
