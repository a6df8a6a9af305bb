//! The sending half of a stream: what waits, what is under way, what the peer allows. Credit is
//! counted in payload bytes.
//!
//! Invariants: a sequence names one packet of the stream, and a resend carries the same bytes under
//! it; a reliable packet is kept until it is acknowledged; what is outstanding stays within the
//! peer's window, except for one packet of a stream that has nothing else outstanding.

mod body;
mod flight;
mod timers;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use net_types::Instant;
use net_types::limits::{MAX_MESSAGE_BYTES, MAX_REORDER_PACKETS, MAX_STREAM_QUEUE_PACKETS};
use net_wire::push_event_with;

use crate::StreamConfig;
use crate::reassembly::first_charge;
pub(crate) use body::Body;
use body::{EVENT_PREFIX, RIDER_BYTES, fragmentation};
pub(crate) use flight::{Acked, Arrived, LostPackets};
use flight::{Lost, Sent, State};
pub(crate) use timers::Resend;
use timers::WindowProbe;

#[cfg(test)]
mod tests;

enum Queued {
    Packed { payload: Vec<u8>, events: u16 },
    Long { message: Bytes, offset: usize, fragment_bytes: usize, index: u16, count: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    Open,
    Wanted,
    Sent,
}

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueError {
    Full,
    TooLarge,
    Finished,
}

pub(crate) struct SendStream {
    pub(crate) config: StreamConfig,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    in_flight: VecDeque<Sent>,
    base: u64,
    lost: BTreeSet<u64>,
    sent_bytes: u64,
    consumed_bytes: u64,
    unacked_bytes: usize,
    /// Bytes that the peer counts for each incomplete message, in the order they began.
    begun: VecDeque<usize>,
    begun_bytes: usize,
    /// Packets in the state of being under way.
    flying: u32,
    /// Packets from here on tell the round trip when they are acknowledged. A loss on an unreliable
    /// stream keeps back the acknowledgement of what was under way with it.
    sample_from: u64,
    /// When something was last acknowledged: timers run from then on (RFC 6298, 5.3).
    progress_at: Instant,
    /// Timeouts since the peer's last window of the stream.
    timeouts: u32,
    is_open_acked: bool,
    fin: Fin,
    probe: Option<WindowProbe>,
    pub(crate) was_refused: bool,
}

impl SendStream {
    /// `must_announce` is whether packets carry the open block until one is acknowledged.
    pub(crate) fn new(config: StreamConfig, must_announce: bool) -> Self {
        Self {
            config,
            queue: VecDeque::new(),
            queued_bytes: 0,
            in_flight: VecDeque::new(),
            base: 0,
            lost: BTreeSet::new(),
            sent_bytes: 0,
            consumed_bytes: 0,
            unacked_bytes: 0,
            begun: VecDeque::new(),
            begun_bytes: 0,
            flying: 0,
            sample_from: 0,
            progress_at: Instant::ZERO,
            timeouts: 0,
            is_open_acked: !must_announce,
            fin: Fin::Open,
            probe: None,
            was_refused: false,
        }
    }

    /// Asserts that the sums are those of the queue and of the flight.
    pub(crate) fn check_invariants(&self) {
        let queued = self.queue.iter().map(|queued| match queued {
            Queued::Packed { payload, .. } => payload.len(),
            Queued::Long { message, offset, .. } => message.len() - offset,
        });
        assert_eq!(self.queued_bytes, queued.sum::<usize>());
        let flying = self.in_flight.iter().filter(|s| s.state == State::InFlight).count();
        assert_eq!(self.flying as usize, flying);
        let unacked = self.in_flight.iter().map(|s| s.body.payload_len()).sum::<usize>();
        assert_eq!(self.unacked_bytes, unacked);
        assert_eq!(self.begun_bytes, self.begun.iter().sum::<usize>());
        assert!(self.consumed_bytes <= self.sent_bytes);
        let lost = (self.base..).zip(&self.in_flight).filter(|(_, s)| s.state == State::Lost);
        assert!(lost.map(|(sequence, _)| sequence).eq(self.lost.iter().copied()));
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    fn check(&mut self, len: usize) -> Result<(), QueueError> {
        if self.fin != Fin::Open {
            return Err(QueueError::Finished);
        }
        if len > MAX_MESSAGE_BYTES {
            return Err(QueueError::TooLarge);
        }
        if self.queue.len() >= MAX_STREAM_QUEUE_PACKETS {
            self.was_refused = true;
            return Err(QueueError::Full);
        }
        Ok(())
    }

    /// Whether a stream that refused a message has enough room to report it.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() <= MAX_STREAM_QUEUE_PACKETS / 2
    }

    /// Queues a message that `write` appends, at most `len` bytes long. Short messages join the
    /// last waiting packet.
    pub(crate) fn queue_with(
        &mut self,
        len: usize,
        payload_cap: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), QueueError> {
        let room = payload_cap - RIDER_BYTES;
        if EVENT_PREFIX + len > room {
            self.check(len)?;
            let mut message = Vec::with_capacity(len);
            write(&mut message);
            return self.queue_bytes(Bytes::from(message), payload_cap);
        }
        if let Some(Queued::Packed { payload, events }) = self.queue.back_mut()
            && payload.len() + EVENT_PREFIX + len <= room
            && *events < u16::MAX
            && self.fin == Fin::Open
        {
            let before = payload.len();
            push_event_with(payload, write);
            *events += 1;
            self.queued_bytes += payload.len() - before;
            return Ok(());
        }
        self.check(len)?;
        let mut payload = Vec::with_capacity((EVENT_PREFIX + len).max(256).min(room));
        push_event_with(&mut payload, write);
        self.queued_bytes += payload.len();
        self.queue.push_back(Queued::Packed { payload, events: 1 });
        Ok(())
    }

    /// Queues a message without copying it unless it is short.
    pub(crate) fn queue_bytes(
        &mut self,
        message: Bytes,
        payload_cap: usize,
    ) -> Result<(), QueueError> {
        let room = payload_cap - RIDER_BYTES;
        if EVENT_PREFIX + message.len() <= room {
            return self.queue_with(message.len(), payload_cap, |out| {
                out.extend_from_slice(&message);
            });
        }
        self.check(message.len())?;
        let (fragment_bytes, count) = fragmentation(message.len(), payload_cap);
        self.queued_bytes += message.len();
        self.queue.push_back(Queued::Long { message, offset: 0, fragment_bytes, index: 0, count });
        Ok(())
    }

    /// The path's packets have another size: messages that did not start are cut again.
    pub(crate) fn refit(&mut self, payload_cap: usize) {
        for queued in &mut self.queue {
            if let Queued::Long { message, fragment_bytes, index: 0, count, .. } = queued {
                (*fragment_bytes, *count) = fragmentation(message.len(), payload_cap);
            }
        }
    }

    /// Asks for the stream's end after everything queued.
    pub(crate) fn finish(&mut self) {
        if self.fin == Fin::Open {
            self.fin = Fin::Wanted;
        }
    }

    /// Whether the end was sent and everything is acknowledged.
    pub(crate) fn is_flushed(&self) -> bool {
        self.fin == Fin::Sent && self.in_flight.is_empty() && self.queue.is_empty()
    }

    /// Whether nothing waits and everything is acknowledged.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.queue.is_empty() && self.fin != Fin::Wanted
    }

    pub(crate) fn has_unacked(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Packets that the congestion window counts.
    pub(crate) fn packets_in_flight(&self) -> u32 {
        self.flying
    }

    /// Whether the oldest packet is to be sent again: nothing moves before it arrives, so it does
    /// not wait for the congestion window (RFC 5681, fast retransmit).
    pub(crate) fn is_head_lost(&self) -> bool {
        self.lost.first() == Some(&self.base)
    }

    /// Bytes that the peer counts for incomplete messages.
    pub(crate) fn begun_bytes(&self) -> usize {
        self.begun_bytes
    }

    /// What the peer will count in addition when the next packet is sent.
    pub(crate) fn next_charge(&self) -> usize {
        match self.queue.front() {
            Some(Queued::Long { fragment_bytes, index: 0, count, .. }) if self.lost.is_empty() => {
                first_charge(*count, *fragment_bytes)
            }
            _ => 0,
        }
    }

    fn is_reliable(&self) -> bool {
        self.config.mode.is_reliable
    }

    fn next_len(&self) -> Option<usize> {
        match self.queue.front() {
            Some(Queued::Packed { payload, .. }) => Some(payload.len()),
            Some(Queued::Long { message, offset, fragment_bytes, .. }) => {
                Some(EVENT_PREFIX + (message.len() - offset).min(*fragment_bytes))
            }
            // The end of an unreliable stream waits until the rest is acknowledged or given up, so
            // that it settles what the peer may still expect.
            None if self.fin == Fin::Wanted && (self.is_reliable() || !self.has_unacked()) => {
                Some(0)
            }
            None => None,
        }
    }

    fn has_credit(&self, len: usize) -> bool {
        let outstanding = if self.is_reliable() {
            self.sent_bytes - self.consumed_bytes
        } else {
            self.unacked_bytes as u64
        };
        len == 0
            || outstanding == 0
            || outstanding + len as u64 <= u64::from(self.config.window_bytes)
    }

    /// Whether [`Self::take`] would give a packet.
    pub(crate) fn is_sendable(&self) -> bool {
        // The peer remembers no more sequences than this above a missing one.
        let is_within_reach = (self.in_flight.len() as u64) < MAX_REORDER_PACKETS;
        !self.lost.is_empty()
            || (is_within_reach && self.next_len().is_some_and(|len| self.has_credit(len)))
    }

    /// Moves the next packet into flight and returns its sequence, a lost one first.
    pub(crate) fn take(&mut self, now: Instant) -> Option<u64> {
        if let Some(sequence) = self.lost.pop_first() {
            let sent = self.in_flight.get_mut((sequence - self.base) as usize)?;
            sent.state = State::InFlight;
            sent.is_resent = true;
            sent.sent_at = now;
            self.flying += 1;
            return Some(sequence);
        }
        if !self.is_sendable() {
            return None;
        }
        let len = self.next_len()?;
        let charge = self.next_charge();
        if charge > 0 {
            self.begun.push_back(charge);
            self.begun_bytes += charge;
        }
        let was_empty = self.queue.is_empty();
        let body = self.take_queued();
        let is_last = self.queue.is_empty() && self.fin == Fin::Wanted;
        let is_fin = is_last && (self.is_reliable() || was_empty);
        if is_fin {
            self.fin = Fin::Sent;
        }
        self.sent_bytes += len as u64;
        self.unacked_bytes += len;
        let sequence = self.base + self.in_flight.len() as u64;
        let (is_resent, state) = (false, State::InFlight);
        self.in_flight.push_back(Sent { body, is_fin, sent_at: now, is_resent, state });
        self.flying += 1;
        Some(sequence)
    }

    fn take_queued(&mut self) -> Body {
        match self.queue.front_mut() {
            None => Body::Packed { payload: Vec::new(), events: 0 },
            Some(Queued::Packed { payload, events }) => {
                let body = Body::Packed { payload: core::mem::take(payload), events: *events };
                self.queued_bytes -= body.payload_len();
                self.queue.pop_front();
                body
            }
            Some(Queued::Long { message, offset, fragment_bytes, index, count }) => {
                let end = message.len().min(*offset + *fragment_bytes);
                let bytes = message.slice(*offset..end);
                let body = Body::Fragment { bytes, index: *index, count: *count };
                self.queued_bytes -= end - *offset;
                *offset = end;
                *index += 1;
                if *offset == message.len() {
                    self.queue.pop_front();
                }
                body
            }
        }
    }

    /// The packet with this sequence, if it is not acknowledged: its body and whether it ends the
    /// stream.
    pub(crate) fn packet(&self, sequence: u64) -> Option<(&Body, bool)> {
        let at = sequence.checked_sub(self.base)?;
        self.in_flight.get(usize::try_from(at).ok()?).map(|s| (&s.body, s.is_fin))
    }

    /// Whether packets must still carry the open block.
    pub(crate) fn must_announce(&self) -> bool {
        !self.is_open_acked
    }
}
