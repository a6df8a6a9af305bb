//! The sending half of a stream: what waits, what is under way, what the peer allows.
//!
//! A sequence names one packet of the stream. What was sent is kept until acknowledged, so a resend
//! carries the same bytes under the same sequence. Credit is counted in payload bytes.

use core::ops::Range;
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use net_types::Instant;
use net_types::limits::{
    MAX_MESSAGE_BYTES, MAX_REORDER_PACKETS, MAX_RETRIES, MAX_STREAM_QUEUE_PACKETS, RTO_MAX,
};
use net_wire::{Nack, OPEN_BLOCK_BYTES, STREAM_WINDOW_BYTES, push_event_with};

use crate::StreamConfig;

#[cfg(test)]
mod tests;

/// Payload bytes left free in a packet for one acknowledgement and the open block, so that both can
/// ride on full packets.
const RIDER_BYTES: usize = 1 + STREAM_WINDOW_BYTES + OPEN_BLOCK_BYTES;
/// Length of an event's length.
const EVENT_PREFIX: usize = 4;

/// The bytes of a packet that belong to the stream.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Whole events, already prefixed.
    Packed { payload: Vec<u8>, events: u16 },
    /// One fragment of a message, or all of it if `count` is 1; written as one event.
    Fragment { bytes: Bytes, index: u16, count: u16 },
}

impl Body {
    pub(crate) fn payload_len(&self) -> usize {
        match self {
            Self::Packed { payload, .. } => payload.len(),
            Self::Fragment { bytes, .. } => EVENT_PREFIX + bytes.len(),
        }
    }

    /// Appends part of the payload as it is on the wire.
    pub(crate) fn write_range(&self, range: Range<usize>, out: &mut Vec<u8>) {
        match self {
            Self::Packed { payload, .. } => {
                out.extend_from_slice(payload.get(range).unwrap_or_default());
            }
            Self::Fragment { bytes, .. } => {
                let prefix = (bytes.len() as u32).to_le_bytes();
                let (start, end) = (range.start.min(EVENT_PREFIX), range.end.min(EVENT_PREFIX));
                out.extend_from_slice(&prefix[start..end]);
                let of_bytes = range.start - start..range.end - end;
                out.extend_from_slice(bytes.get(of_bytes).unwrap_or_default());
            }
        }
    }
}

enum Queued {
    Packed { payload: Vec<u8>, events: u16 },
    Long { message: Bytes, offset: usize, fragment_bytes: usize, index: u16, count: u16 },
}

#[derive(Debug)]
struct Sent {
    body: Body,
    is_fin: bool,
    sent_at: Instant,
    /// Whether it was sent more than once.
    is_resent: bool,
    /// Timeouts it ran into.
    timeouts: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Under way.
    InFlight,
    /// In line to be sent again.
    Lost,
    /// Arrived above a gap, or given up; kept until what is before it is settled too, but not under
    /// way.
    Settled,
}

/// What an acknowledgement did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Acked {
    /// Packets that left the flight now.
    pub(crate) in_flight: u32,
    /// When the newest of them was sent, if it was sent only once (Karn).
    pub(crate) sample: Option<Instant>,
    /// Whether anything was acknowledged or granted.
    pub(crate) is_progress: bool,
    /// Largest payload that got through.
    pub(crate) largest_payload: usize,
}

/// What a report of gaps shows to have arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// Packets that left the flight now.
    pub(crate) packets: u32,
    /// Largest payload that got through.
    pub(crate) largest_payload: usize,
}

/// A packet that left the flight without having arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) sent_at: Instant,
    pub(crate) payload_len: usize,
    /// Whether this was not its first transmission.
    pub(crate) was_resent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    Open,
    Wanted,
    Sent,
}

/// When a blocked stream asks for its window again.
#[derive(Clone, Copy, Debug)]
struct WindowProbe {
    at: Instant,
    sent: u32,
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
    /// Packets in the state of being under way.
    flying: u32,
    /// Packets from here on tell the round trip when they are acknowledged. A loss on an unreliable
    /// stream keeps back the acknowledgement of what was under way with it.
    sample_from: u64,
    /// When something was last acknowledged: timers run from then on (RFC 6298, 5.3).
    progress_at: Instant,
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
            flying: 0,
            sample_from: 0,
            progress_at: Instant::ZERO,
            is_open_acked: !must_announce,
            fin: Fin::Open,
            probe: None,
            was_refused: false,
        }
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

    /// Whether a stream that refused a message has so much room that it is worth telling.
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

    /// The path's packets have another size: messages that did not start are cut anew.
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
        let (is_resent, timeouts, state) = (false, 0, State::InFlight);
        self.in_flight.push_back(Sent { body, is_fin, sent_at: now, is_resent, timeouts, state });
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

    /// The peer has everything below `ack_seq` and took `consumed` bytes. `None` if it claims what
    /// was never sent.
    pub(crate) fn on_window(&mut self, now: Instant, ack_seq: u64, consumed: u64) -> Option<Acked> {
        if ack_seq > self.base + self.in_flight.len() as u64 {
            return None;
        }
        let mut acked = Acked::default();
        let mut was_resent = false;
        while self.base < ack_seq {
            let Some(sent) = self.in_flight.pop_front() else { break };
            self.unacked_bytes -= sent.body.payload_len();
            acked.largest_payload = acked.largest_payload.max(sent.body.payload_len());
            match sent.state {
                State::Lost => drop(self.lost.remove(&self.base)),
                State::InFlight => acked.in_flight += 1,
                State::Settled => {}
            }
            // What follows a resent packet may have waited at the peer for it.
            was_resent |= sent.is_resent || sent.state == State::Settled;
            let is_prompt = !was_resent && self.base >= self.sample_from;
            acked.sample = is_prompt.then_some(sent.sent_at);
            acked.is_progress = true;
            self.is_open_acked = true;
            self.progress_at = now;
            self.base += 1;
        }
        self.flying -= acked.in_flight;
        let consumed = consumed.min(self.sent_bytes);
        if consumed > self.consumed_bytes {
            self.consumed_bytes = consumed;
            self.probe = None;
            acked.is_progress = true;
        }
        Some(acked)
    }

    /// The peer misses these and has what lies between them; calls `lost` for each packet that is
    /// to be sent again or, on an unreliable stream, is given up, and returns what left the flight
    /// because it arrived.
    ///
    /// A packet that was already sent again is left alone for `settle`, the time in which reports
    /// may still be older than the resend.
    pub(crate) fn on_nack(
        &mut self,
        now: Instant,
        settle: Duration,
        nack: &Nack,
        mut lost: impl FnMut(Lost),
    ) -> Arrived {
        let mut arrived = Arrived::default();
        let is_reliable = self.is_reliable();
        let end = self.base + self.in_flight.len() as u64;
        let mut received_from = nack.next_expected.max(self.base);
        for gap in &nack.gaps {
            self.mark_received(received_from, gap.start.min(end), &mut arrived);
            let gap_end = gap.start.saturating_add(gap.length.into());
            for sequence in gap.start.max(self.base)..gap_end.min(end) {
                let sent = &mut self.in_flight[(sequence - self.base) as usize];
                let is_fresh = sent.is_resent && now.since(sent.sent_at) < settle;
                if sent.state != State::InFlight || is_fresh {
                    continue;
                }
                self.flying -= 1;
                lost(sent.lose());
                if is_reliable || sent.is_fin {
                    self.lost.insert(sequence);
                } else {
                    sent.state = State::Settled;
                }
            }
            received_from = received_from.max(gap_end);
        }
        // Something above the last gap made it one.
        if !nack.gaps.is_empty() {
            self.mark_received(received_from.min(end), (received_from + 1).min(end), &mut arrived);
        }
        if !is_reliable {
            self.forget_settled();
        }
        arrived
    }

    /// Takes `from..to` out of the flight.
    fn mark_received(&mut self, from: u64, to: u64, arrived: &mut Arrived) {
        for sequence in from..to {
            let sent = &mut self.in_flight[(sequence - self.base) as usize];
            match sent.state {
                State::InFlight => {
                    self.flying -= 1;
                    arrived.packets += 1;
                }
                State::Lost => drop(self.lost.remove(&sequence)),
                State::Settled => continue,
            }
            sent.state = State::Settled;
            arrived.largest_payload = arrived.largest_payload.max(sent.body.payload_len());
        }
    }

    /// Whether data waits for credit that nothing under way will bring.
    pub(crate) fn is_blocked(&self) -> bool {
        self.in_flight.is_empty() && !self.queue.is_empty() && !self.is_sendable()
    }

    /// The sequence to repeat, empty, when the stream is blocked: the peer answers a packet it
    /// already has with its window, which repeats a grant that was lost. The wait doubles, since a
    /// reader may rest as long as it likes.
    pub(crate) fn poll_window_probe(&mut self, now: Instant, timeout: Duration) -> Option<u64> {
        if !self.is_blocked() {
            self.probe = None;
            return None;
        }
        let probe = self.probe.get_or_insert(WindowProbe { at: now, sent: 0 });
        if probe.at > now {
            return None;
        }
        probe.sent += 1;
        probe.at = now + (timeout * (1 << probe.sent.min(10))).min(RTO_MAX);
        self.base.checked_sub(1)
    }

    /// When the stream wants a timeout next, if it waits for anything.
    pub(crate) fn next_timeout(&self, now: Instant, timeout: Duration) -> Option<Instant> {
        if self.is_blocked() {
            return Some(self.probe.map_or(now + timeout, |p| p.at));
        }
        let head = self.in_flight.front()?;
        // What is in line to be sent again is timed from then on.
        let from = if head.state == State::Lost { now } else { head.sent_at };
        Some(from.max(self.progress_at) + timeout)
    }

    /// The timer ran out: marks every packet lost that was sent at least `timeout` ago. Unreliable
    /// packets are given up instead, all but the stream's end. Returns false when one ran into too
    /// many timeouts: the stream has failed.
    ///
    /// The timer is that of the oldest packet, and starts anew with every progress (RFC 6298, 5.3).
    /// While it is sent again, later ones may have arrived and cannot be acknowledged.
    pub(crate) fn on_timeout(
        &mut self,
        now: Instant,
        timeout: Duration,
        mut lost: impl FnMut(Lost),
    ) -> bool {
        if self.next_timeout(now, timeout).is_none_or(|at| at > now) {
            return true;
        }
        if !self.is_reliable() {
            self.give_up_old(now, timeout, &mut lost);
        }
        for (i, sent) in self.in_flight.iter_mut().enumerate() {
            let is_kept = self.config.mode.is_reliable || sent.is_fin;
            // The oldest one arrived if a report says so, but not its acknowledgement: sending it
            // again asks for that.
            let is_waiting = sent.state == State::InFlight || (i == 0 && sent.state != State::Lost);
            if !is_waiting || !is_kept || now.since(sent.sent_at) < timeout {
                continue;
            }
            if sent.timeouts >= MAX_RETRIES {
                return false;
            }
            sent.timeouts += 1;
            self.lost.insert(self.base + i as u64);
            if sent.state == State::Settled {
                sent.state = State::Lost;
            } else {
                self.flying -= 1;
                lost(sent.lose());
            }
        }
        true
    }

    fn give_up_old(&mut self, now: Instant, timeout: Duration, lost: &mut impl FnMut(Lost)) {
        for sent in self.in_flight.iter_mut().filter(|s| !s.is_fin) {
            if now.since(sent.sent_at) < timeout {
                break;
            }
            if sent.state == State::InFlight {
                self.flying -= 1;
                lost(sent.lose());
                sent.state = State::Settled;
            }
        }
        self.forget_settled();
    }

    /// Forgets the oldest packets of an unreliable stream as far as nothing depends on them.
    fn forget_settled(&mut self) {
        self.sample_from = self.base + self.in_flight.len() as u64;
        while let Some(sent) = self.in_flight.pop_front_if(|s| s.state == State::Settled) {
            self.unacked_bytes -= sent.body.payload_len();
            self.base += 1;
        }
    }

    /// Takes everything out of the flight, to be sent again at once; returns how many packets.
    pub(crate) fn resend_all(&mut self) -> u32 {
        if !self.is_reliable() {
            return 0;
        }
        for (i, sent) in self.in_flight.iter_mut().enumerate() {
            if sent.state == State::InFlight {
                sent.state = State::Lost;
                self.lost.insert(self.base + i as u64);
            }
        }
        core::mem::take(&mut self.flying)
    }
}

impl Sent {
    fn lose(&mut self) -> Lost {
        self.state = State::Lost;
        let payload_len = self.body.payload_len();
        Lost { sent_at: self.sent_at, payload_len, was_resent: self.is_resent }
    }
}

/// Bytes of each fragment and their number, for a message on a path with this much payload.
fn fragmentation(message_bytes: usize, payload_cap: usize) -> (usize, u16) {
    let fragment_bytes = payload_cap - RIDER_BYTES - EVENT_PREFIX;
    // Bounded by the const assertion beside MAX_MESSAGE_BYTES.
    (fragment_bytes, message_bytes.div_ceil(fragment_bytes) as u16)
}
