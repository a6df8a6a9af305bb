//! What acknowledgements and reports of gaps say about the packets under way.
//!
//! Invariants: `flying` counts exactly the packets in [`State::InFlight`], and `lost` holds exactly
//! the sequences of those in [`State::Lost`]; the oldest sequence, `base`, only rises; a resent
//! packet gives no sample of the round trip (Karn).

use core::time::Duration;

use net_types::Instant;
use net_wire::Nack;

use super::{Body, SendStream};

#[derive(Debug)]
pub(super) struct Sent {
    pub(super) body: Body,
    pub(super) is_fin: bool,
    pub(super) sent_at: Instant,
    /// Whether it was sent more than once.
    pub(super) is_resent: bool,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
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

/// Packets that left the flight without having arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LostPackets {
    pub(crate) packets: u32,
    /// When the newest of them was sent.
    pub(crate) newest_sent_at: Option<Instant>,
    /// Largest payload of those that had been sent again before.
    pub(crate) largest_resent_payload: usize,
}

impl LostPackets {
    pub(crate) fn add(&mut self, lost: Lost) {
        self.packets += 1;
        self.newest_sent_at = self.newest_sent_at.max(Some(lost.sent_at));
        if lost.was_resent {
            self.largest_resent_payload = self.largest_resent_payload.max(lost.payload_len);
        }
    }
}

/// A packet that left the flight without having arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) sent_at: Instant,
    pub(crate) payload_len: usize,
    /// Whether this was not its first transmission.
    pub(crate) was_resent: bool,
}

impl SendStream {
    /// The peer has everything below `ack_seq` and took `consumed` bytes. `None` if it claims what
    /// was never sent.
    pub(crate) fn on_window(&mut self, now: Instant, ack_seq: u64, consumed: u64) -> Option<Acked> {
        if ack_seq > self.base + self.in_flight.len() as u64 {
            return None;
        }
        // A peer that has no room for what it gets still answers.
        self.timeouts = 0;
        let mut acked = Acked::default();
        let mut was_resent = false;
        while self.base < ack_seq {
            let Some(sent) = self.in_flight.pop_front() else { break };
            self.leave(&sent.body);
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

    /// Takes a report of gaps: the peer misses these and has what lies between them. Calls `lost` for
    /// each packet that is sent again or, on an unreliable stream, given up; returns what left the
    /// flight because it arrived.
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
        let mut received_from = nack.from.max(self.base);
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
        self.mark_received(received_from.min(end), nack.below.min(end), &mut arrived);
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

    /// Forgets the oldest packets of an unreliable stream as far as nothing depends on them.
    pub(super) fn forget_settled(&mut self) {
        self.sample_from = self.base + self.in_flight.len() as u64;
        while let Some(sent) = self.in_flight.pop_front_if(|s| s.state == State::Settled) {
            self.leave(&sent.body);
            self.base += 1;
        }
    }

    /// The oldest packet is settled.
    fn leave(&mut self, body: &Body) {
        self.unacked_bytes -= body.payload_len();
        if body.is_last_fragment() {
            self.begun_bytes -= self.begun.pop_front().unwrap_or_default();
        }
    }

    /// Takes everything out of the flight of a reliable stream, to be sent again at once.
    pub(crate) fn resend_all(&mut self) {
        if !self.is_reliable() {
            return;
        }
        for (i, sent) in self.in_flight.iter_mut().enumerate() {
            if sent.state == State::InFlight {
                sent.state = State::Lost;
                self.lost.insert(self.base + i as u64);
            }
        }
        self.flying = 0;
    }
}

impl Sent {
    pub(super) fn lose(&mut self) -> Lost {
        self.state = State::Lost;
        let payload_len = self.body.payload_len();
        Lost { sent_at: self.sent_at, payload_len, was_resent: self.is_resent }
    }
}
