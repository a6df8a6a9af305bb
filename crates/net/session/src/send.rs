//! The sending half of a stream: what waits, what is under way, what the peer allows.
//!
//! A sequence names one packet of the stream. What was sent is kept until acknowledged, so a resend
//! carries the same bytes under the same sequence. Credit is counted in payload bytes.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use net_types::Instant;
use net_types::limits::{MAX_MESSAGE_BYTES, MAX_RETRIES, MAX_STREAM_QUEUE_PACKETS};
use net_wire::{Nack, OPEN_BLOCK_BYTES, STREAM_WINDOW_BYTES, push_event_with};

use crate::StreamConfig;

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
    /// One fragment of a message; written as one event.
    Fragment { bytes: Bytes, index: u16, count: u16 },
}

impl Body {
    pub(crate) fn payload_len(&self) -> usize {
        match self {
            Self::Packed { payload, .. } => payload.len(),
            Self::Fragment { bytes, .. } => EVENT_PREFIX + bytes.len(),
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
    retries: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Under way.
    InFlight,
    /// In line to be sent again.
    Lost,
    /// Reported as received above a gap; kept until the gap closes, but not under way.
    Received,
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

/// A packet that should be sent again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) sent_at: Instant,
    pub(crate) payload_len: usize,
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
    /// Packets in the state of being under way.
    flying: u32,
    is_open_acked: bool,
    fin: Fin,
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
            is_open_acked: !must_announce,
            fin: Fin::Open,
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
        let fragment_bytes = room - EVENT_PREFIX;
        // Bounded by the const assertion beside MAX_MESSAGE_BYTES.
        let count = message.len().div_ceil(fragment_bytes) as u16;
        self.queued_bytes += message.len();
        self.queue.push_back(Queued::Long { message, offset: 0, fragment_bytes, index: 0, count });
        Ok(())
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

    fn next_len(&self) -> Option<usize> {
        match self.queue.front() {
            Some(Queued::Packed { payload, .. }) => Some(payload.len()),
            Some(Queued::Long { message, offset, fragment_bytes, .. }) => {
                Some(EVENT_PREFIX + (message.len() - offset).min(*fragment_bytes))
            }
            None if self.fin == Fin::Wanted => Some(0),
            None => None,
        }
    }

    fn has_credit(&self, len: usize) -> bool {
        let outstanding = if self.config.mode.is_reliable {
            self.sent_bytes - self.consumed_bytes
        } else {
            self.unacked_bytes as u64
        };
        outstanding == 0 || outstanding + len as u64 <= u64::from(self.config.window_bytes)
    }

    /// Whether [`Self::take`] would give a packet.
    pub(crate) fn is_sendable(&self) -> bool {
        !self.lost.is_empty() || self.next_len().is_some_and(|len| self.has_credit(len))
    }

    /// Moves the next packet into flight and returns its sequence, a lost one first.
    pub(crate) fn take(&mut self, now: Instant) -> Option<u64> {
        if let Some(sequence) = self.lost.pop_first() {
            let sent = self.in_flight.get_mut((sequence - self.base) as usize)?;
            sent.state = State::InFlight;
            sent.retries += 1;
            sent.sent_at = now;
            self.flying += 1;
            return Some(sequence);
        }
        let len = self.next_len()?;
        if !self.has_credit(len) {
            return None;
        }
        let body = self.take_queued();
        let is_fin = self.queue.is_empty() && self.fin == Fin::Wanted;
        if is_fin {
            self.fin = Fin::Sent;
        }
        self.sent_bytes += len as u64;
        self.unacked_bytes += len;
        let sequence = self.base + self.in_flight.len() as u64;
        let sent = Sent { body, is_fin, sent_at: now, retries: 0, state: State::InFlight };
        self.flying += 1;
        self.in_flight.push_back(sent);
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

    /// The packet with this sequence, which is in flight: its body and whether it ends the stream.
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
    pub(crate) fn on_window(&mut self, ack_seq: u64, consumed: u64) -> Option<Acked> {
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
                State::Received => {}
            }
            // What follows a resent packet may have waited at the peer for it.
            was_resent |= sent.retries > 0 || sent.state == State::Received;
            acked.sample = (!was_resent).then_some(sent.sent_at);
            acked.is_progress = true;
            self.is_open_acked = true;
            self.base += 1;
        }
        self.flying -= acked.in_flight;
        let consumed = consumed.min(self.sent_bytes);
        if consumed > self.consumed_bytes {
            self.consumed_bytes = consumed;
            acked.is_progress = true;
        }
        Some(acked)
    }

    /// The peer misses these and has what lies between them; calls `lost` for each packet that is
    /// to be sent again and returns how many packets left the flight because they arrived.
    ///
    /// A packet that was already sent again is left alone for one round trip, since the report may
    /// be older than the resend.
    pub(crate) fn on_nack(
        &mut self,
        now: Instant,
        round_trip: core::time::Duration,
        nack: &Nack,
        mut lost: impl FnMut(Lost),
    ) -> u32 {
        let end = self.base + self.in_flight.len() as u64;
        let mut received_from = nack.next_expected.max(self.base);
        let mut received = 0;
        for gap in &nack.gaps {
            received += self.mark_received(received_from, gap.start.min(end));
            let gap_end = gap.start.saturating_add(gap.length.into());
            for sequence in gap.start.max(self.base)..gap_end.min(end) {
                let sent = &mut self.in_flight[(sequence - self.base) as usize];
                let is_fresh = sent.retries > 0 && now.since(sent.sent_at) < round_trip;
                if sent.state != State::InFlight || is_fresh {
                    continue;
                }
                sent.state = State::Lost;
                self.flying -= 1;
                self.lost.insert(sequence);
                lost(Lost { sent_at: sent.sent_at, payload_len: sent.body.payload_len() });
            }
            received_from = received_from.max(gap_end);
        }
        received
    }

    /// Takes `from..to` out of the flight; returns how many were in it.
    fn mark_received(&mut self, from: u64, to: u64) -> u32 {
        let mut left = 0;
        for sequence in from..to {
            let sent = &mut self.in_flight[(sequence - self.base) as usize];
            match sent.state {
                State::InFlight => left += 1,
                State::Lost => drop(self.lost.remove(&sequence)),
                State::Received => {}
            }
            sent.state = State::Received;
        }
        self.flying -= left;
        left
    }

    /// Whether data waits for credit that nothing under way will bring.
    pub(crate) fn is_blocked(&self) -> bool {
        self.in_flight.is_empty() && !self.queue.is_empty() && !self.is_sendable()
    }

    /// The sequence to repeat, empty, when the stream is blocked: the peer answers a packet it
    /// already has with its window, which repeats a grant that was lost.
    pub(crate) fn window_probe(&self) -> Option<u64> {
        self.base.checked_sub(1).filter(|_| self.is_blocked())
    }

    /// Marks every packet sent at least `timeout` ago as lost. Returns false when one of them was
    /// sent too often already: the stream has failed.
    pub(crate) fn on_timeout(
        &mut self,
        now: Instant,
        timeout: core::time::Duration,
        mut lost: impl FnMut(Lost),
    ) -> bool {
        for (i, sent) in self.in_flight.iter_mut().enumerate() {
            if sent.state != State::InFlight || now.since(sent.sent_at) < timeout {
                continue;
            }
            if sent.retries >= MAX_RETRIES {
                return false;
            }
            sent.state = State::Lost;
            self.flying -= 1;
            self.lost.insert(self.base + i as u64);
            lost(Lost { sent_at: sent.sent_at, payload_len: sent.body.payload_len() });
        }
        true
    }

    /// Unreliable packets are not sent again: those older than `timeout` are given up.
    pub(crate) fn give_up_old(&mut self, now: Instant, timeout: core::time::Duration) -> u32 {
        let mut given_up = 0;
        while self.in_flight.front().is_some_and(|s| now.since(s.sent_at) >= timeout) {
            if let Some(sent) = self.in_flight.pop_front() {
                self.unacked_bytes -= sent.body.payload_len();
                self.base += 1;
                self.flying -= 1;
                given_up += 1;
            }
        }
        given_up
    }

    /// When the oldest packet that is not waiting to be resent was sent.
    pub(crate) fn oldest_sent(&self) -> Option<Instant> {
        self.in_flight.iter().filter(|s| s.state == State::InFlight).map(|s| s.sent_at).min()
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use net_wire::StreamMode;

    use super::*;

    const CAP: usize = 1_134;

    fn stream(window_bytes: u32) -> SendStream {
        SendStream::new(StreamConfig { window_bytes, ..StreamConfig::default() }, true)
    }

    fn push(s: &mut SendStream, len: usize) {
        s.queue_bytes(Bytes::from(vec![7; len]), CAP).unwrap();
    }

    #[test]
    fn short_messages_share_a_packet_and_long_ones_are_cut() {
        let mut s = stream(1 << 20);
        (0..10).for_each(|_| push(&mut s, 32));
        push(&mut s, 3_000);
        let first = s.take(Instant::ZERO).unwrap();
        assert!(matches!(s.packet(first), Some((Body::Packed { events: 10, .. }, false))));
        let mut lens = Vec::new();
        while let Some(seq) = s.take(Instant::ZERO) {
            let Some((Body::Fragment { bytes, count: 3, .. }, _)) = s.packet(seq) else {
                panic!("a long message is cut into three")
            };
            lens.push(bytes.len());
        }
        assert_eq!(lens.iter().sum::<usize>(), 3_000);
        assert_eq!(s.queued_bytes(), 0);
    }

    #[test]
    fn credit_limits_what_is_sent_but_never_blocks_an_idle_stream() {
        let mut s = stream(100);
        push(&mut s, 900);
        push(&mut s, 900);
        assert_eq!(s.take(Instant::ZERO), Some(0));
        assert_eq!(s.take(Instant::ZERO), None);
        assert!(s.on_window(1, 0).unwrap().is_progress);
        assert_eq!(s.take(Instant::ZERO), None);
        s.on_window(1, 904);
        assert_eq!(s.take(Instant::ZERO), Some(1));
    }

    #[test]
    fn acknowledgements_of_the_future_are_refused_and_grants_are_clamped() {
        let mut s = stream(100);
        push(&mut s, 10);
        s.take(Instant::ZERO);
        assert_eq!(s.on_window(2, 0), None);
        s.on_window(1, u64::MAX).unwrap();
        assert_eq!(s.consumed_bytes, s.sent_bytes);
    }

    #[test]
    fn a_lost_packet_keeps_its_sequence_and_fails_after_its_retries() {
        let mut s = stream(1 << 20);
        push(&mut s, 10);
        let mut now = Instant::ZERO;
        assert_eq!(s.take(now), Some(0));
        for _ in 0..MAX_RETRIES {
            now += Duration::from_secs(1);
            let mut lost = 0;
            assert!(s.on_timeout(now, Duration::from_secs(1), |_| lost += 1));
            assert_eq!((lost, s.packets_in_flight()), (1, 0));
            assert_eq!(s.take(now), Some(0));
        }
        now += Duration::from_secs(1);
        assert!(!s.on_timeout(now, Duration::from_secs(1), |_| {}));
    }

    #[test]
    fn a_report_older_than_a_resend_does_not_resend_again() {
        let mut s = stream(1 << 20);
        push(&mut s, 1_000);
        push(&mut s, 1_000);
        s.take(Instant::ZERO);
        s.take(Instant::ZERO);
        let gaps = vec![net_wire::Gap { start: 0, length: 1 }];
        let nack = Nack { stream_id: net_types::StreamId(1), next_expected: 0, gaps };
        let rtt = Duration::from_millis(10);
        let mut count = 0;
        let mut now = Instant::ZERO;
        s.on_nack(now, rtt, &nack, |_| count += 1);
        assert_eq!(s.take(now), Some(0));
        s.on_nack(now, rtt, &nack, |_| count += 1);
        assert_eq!(count, 1);
        now += rtt;
        s.on_nack(now, rtt, &nack, |_| count += 1);
        assert_eq!(count, 2);
    }

    #[test]
    fn the_end_rides_on_the_last_packet_or_on_an_empty_one() {
        let mut s = stream(1 << 20);
        push(&mut s, 10);
        s.finish();
        assert_eq!(s.take(Instant::ZERO), Some(0));
        assert!(matches!(s.packet(0), Some((_, true))));
        assert!(!s.is_flushed());
        s.on_window(1, 14);
        assert!(s.is_flushed());
        let mut empty = stream(100);
        empty.finish();
        assert_eq!(empty.take(Instant::ZERO), Some(0));
        assert_eq!(empty.take(Instant::ZERO), None);
        assert_eq!(empty.queue_bytes(Bytes::new(), CAP), Err(QueueError::Finished));
    }

    #[test]
    fn unreliable_packets_are_given_up_and_release_their_credit() {
        let config = StreamConfig {
            mode: StreamMode::FIRE_AND_FORGET,
            window_bytes: 1_000,
            ..StreamConfig::default()
        };
        let mut s = SendStream::new(config, true);
        push(&mut s, 900);
        push(&mut s, 900);
        assert_eq!(s.take(Instant::ZERO), Some(0));
        assert_eq!(s.take(Instant::ZERO), None);
        let later = Instant::ZERO + Duration::from_secs(1);
        assert_eq!(s.give_up_old(later, Duration::from_secs(1)), 1);
        assert_eq!(s.take(later), Some(1));
    }
}
