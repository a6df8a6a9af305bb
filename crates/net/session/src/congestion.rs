//! Congestion window of a session's path, in packets: slow start, additive increase, multiplicative
//! decrease (RFC 5681), one reduction per round trip (RFC 6582).
//!
//! The stream table counts the packets under way and tells the window how many there are.
//!
//! Invariants: the window stays between [`MIN_CWND_PACKETS`] and [`MAX_CWND_PACKETS`]; losses of
//! packets that were sent before a reduction reduce it no further; a window that is less than half
//! used does not grow.

use net_types::Instant;
use net_types::limits::{INITIAL_CWND_PACKETS, MAX_CWND_PACKETS, MIN_CWND_PACKETS};

#[derive(Clone, Debug)]
pub(crate) struct Congestion {
    window: u32,
    threshold: u32,
    /// Acknowledged packets counted towards the next additive step.
    credit: u32,
    /// Losses of packets sent before this belong to a reduction already made.
    recovery_start: Option<Instant>,
}

impl Congestion {
    pub(crate) fn new() -> Self {
        Self {
            window: INITIAL_CWND_PACKETS,
            threshold: MAX_CWND_PACKETS,
            credit: 0,
            recovery_start: None,
        }
    }

    /// Asserts that the window and what may change it are within their bounds.
    pub(crate) fn check_invariants(&self) {
        let bounds = MIN_CWND_PACKETS..=MAX_CWND_PACKETS;
        assert!(bounds.contains(&self.window) && bounds.contains(&self.threshold), "{self:?}");
        assert!(self.credit < self.window, "{self:?}");
    }

    /// Whether another packet may follow `in_flight` packets.
    pub(crate) fn can_send(&self, in_flight: u32) -> bool {
        in_flight < self.window
    }

    pub(crate) fn window(&self) -> u32 {
        self.window
    }

    /// Of `in_flight` packets, `packets` are acknowledged.
    pub(crate) fn on_acked(&mut self, packets: u32, in_flight: u32) {
        // A window that was not used says nothing about the path and does not grow.
        if in_flight.saturating_mul(2) < self.window {
            return;
        }
        if self.window < self.threshold {
            self.window = (self.window + packets).min(MAX_CWND_PACKETS);
            return;
        }
        self.credit += packets;
        while self.credit >= self.window {
            self.credit -= self.window;
            self.window = (self.window + 1).min(MAX_CWND_PACKETS);
        }
    }

    /// Packets are lost, of which the newest was sent at `sent_at`.
    pub(crate) fn on_lost(&mut self, now: Instant, sent_at: Instant) {
        if self.recovery_start.is_some_and(|start| sent_at <= start) {
            return;
        }
        self.recovery_start = Some(now);
        self.window = (self.window / 2).max(MIN_CWND_PACKETS);
        self.threshold = self.window;
        self.credit = 0;
    }

    /// The retransmission timer ran out. Only the first of several timeouts in a row says something
    /// about the capacity.
    pub(crate) fn on_timeout(&mut self, now: Instant, is_repeated: bool) {
        self.recovery_start = Some(now);
        if !is_repeated {
            self.threshold = (self.window / 2).max(MIN_CWND_PACKETS);
        }
        self.window = MIN_CWND_PACKETS;
        self.credit = 0;
    }

    /// The path changed: nothing that was learned holds.
    pub(crate) fn restart(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn doubles_in_slow_start_then_grows_by_one_per_window() {
        let mut c = Congestion::new();
        assert!(c.can_send(15) && !c.can_send(16));
        c.on_acked(16, 16);
        assert_eq!(c.window(), 32);
        c.on_lost(Instant::from_nanos(10), Instant::from_nanos(5));
        assert_eq!(c.window(), 16);
        c.on_acked(16, 16);
        assert_eq!(c.window(), 17);
    }

    #[test]
    fn losses_of_one_flight_halve_once_and_timeouts_reach_the_floor() {
        let mut c = Congestion::new();
        for _ in 0..5 {
            c.on_lost(Instant::from_nanos(10), Instant::from_nanos(5));
        }
        assert_eq!(c.window(), 8);
        c.on_timeout(Instant::ZERO + Duration::from_secs(1), false);
        c.on_timeout(Instant::ZERO + Duration::from_secs(2), true);
        assert_eq!((c.window(), c.threshold), (MIN_CWND_PACKETS, 4));
        c.restart();
        assert_eq!(c.window(), INITIAL_CWND_PACKETS);
    }

    #[test]
    fn an_idle_window_does_not_grow() {
        let mut c = Congestion::new();
        for _ in 0..1_000 {
            c.on_acked(1, 1);
        }
        assert_eq!(c.window(), INITIAL_CWND_PACKETS);
    }
}
