//! When an owed acknowledgement leaves in a packet of its own.
//!
//! Acknowledgements ride on whatever is sent, which costs nothing, so one is held back as long as
//! something to ride on is likely: an answer, or the next request. It leaves earlier when the
//! sender may be waiting for it: for its congestion window, which half of the first flight must
//! keep open; for credit; or for a report of what was lost (RFC 9000, 13.2; RFC 5681, 4.2).
//!
//! Invariants: a window that is owed is due, or [`Timer::Ack`] is set; the timer is never moved
//! back, so no window waits longer than [`ACK_DELAY`].

use net_types::Instant;
use net_types::limits::{ACK_ALERT_PACKETS, ACK_DELAY, ACK_EVERY_BULK_PACKETS, ACK_EVERY_PACKETS};

use crate::timer::{Timer, TimerTable};

/// What an event changes about the acknowledgements that the peer is owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AckRequest {
    /// A window is to be written; it may wait for a ride.
    pub(crate) is_owed: bool,
    /// What is owed is not to wait.
    pub(crate) is_urgent: bool,
    /// Something was lost, overtaken or repeated.
    pub(crate) is_disorder: bool,
    /// A packet is owed an acknowledgement.
    pub(crate) is_packet: bool,
    /// The packet was one of a series.
    pub(crate) is_bulk: bool,
}

/// What the peer is owed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AckDebt {
    is_due: bool,
    /// Packets received since everything was acknowledged.
    packets: u32,
    /// Packets for which losses are still assumed to have narrowed the sender's window.
    alert: u32,
}

impl AckDebt {
    /// Takes what an event changes.
    pub(crate) fn apply(&mut self, timers: &mut TimerTable, now: Instant, request: AckRequest) {
        if request.is_disorder {
            self.alert = ACK_ALERT_PACKETS;
        }
        if request.is_packet {
            self.packets += 1;
            let is_bulk = request.is_bulk || self.alert > 0;
            self.alert = self.alert.saturating_sub(1);
            let every = if is_bulk { ACK_EVERY_BULK_PACKETS } else { ACK_EVERY_PACKETS };
            self.is_due |= self.packets >= every;
        }
        self.is_due |= request.is_urgent;
        if self.is_due {
            timers.clear(Timer::Ack);
        } else if request.is_owed {
            timers.set_if_clear(Timer::Ack, now + ACK_DELAY);
        }
    }

    /// Whether it leaves now, with or without a ride.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due
    }

    /// What is owed has waited long enough.
    pub(crate) fn on_timeout(&mut self) {
        self.is_due = true;
    }

    /// Everything owed has been written.
    pub(crate) fn settle(&mut self, timers: &mut TimerTable) {
        timers.clear(Timer::Ack);
        *self = Self { alert: self.alert, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use net_types::limits::INITIAL_CWND_PACKETS;

    use super::*;

    fn packet(is_bulk: bool) -> AckRequest {
        AckRequest { is_owed: true, is_packet: true, is_bulk, ..AckRequest::default() }
    }

    /// Packets until the acknowledgement does not wait any more.
    fn packets_until_due(debt: &mut AckDebt, is_bulk: bool) -> u32 {
        let (mut packets, mut timers) = (0, TimerTable::default());
        while !debt.is_due() {
            debt.apply(&mut timers, Instant::ZERO, packet(is_bulk));
            packets += 1;
        }
        assert_eq!(timers.get(Timer::Ack), None);
        debt.settle(&mut timers);
        packets
    }

    #[test]
    fn a_lone_packet_waits_for_a_ride_and_not_longer_than_the_delay() {
        let (mut debt, mut timers) = (AckDebt::default(), TimerTable::default());
        debt.apply(&mut timers, Instant::ZERO, AckRequest::default());
        assert_eq!(timers.get(Timer::Ack), None);
        debt.apply(&mut timers, Instant::ZERO, packet(false));
        debt.apply(&mut timers, Instant::ZERO + ACK_DELAY / 2, packet(false));
        assert_eq!(timers.get(Timer::Ack), Some(Instant::ZERO + ACK_DELAY));
        assert!(!debt.is_due());
        debt.on_timeout();
        assert!(debt.is_due());
        debt.settle(&mut timers);
        assert!(!debt.is_due());
    }

    #[test]
    fn what_is_urgent_does_not_wait() {
        let (mut debt, mut timers) = (AckDebt::default(), TimerTable::default());
        debt.apply(&mut timers, Instant::ZERO, packet(false));
        let urgent = AckRequest { is_owed: true, is_urgent: true, ..AckRequest::default() };
        debt.apply(&mut timers, Instant::ZERO, urgent);
        assert_eq!((debt.is_due(), timers.next()), (true, None));
        debt.apply(&mut timers, Instant::ZERO, packet(false));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn series_and_losses_are_acknowledged_more_often() {
        let mut debt = AckDebt::default();
        assert_eq!(packets_until_due(&mut debt, true), 2);
        assert!(packets_until_due(&mut debt, false) <= INITIAL_CWND_PACKETS / 2);
        let disorder = AckRequest { is_disorder: true, ..AckRequest::default() };
        debt.apply(&mut TimerTable::default(), Instant::ZERO, disorder);
        let mut packets = 0;
        while packets < ACK_ALERT_PACKETS {
            let step = packets_until_due(&mut debt, false);
            assert_eq!(step, 2);
            packets += step;
        }
        assert_eq!(packets_until_due(&mut debt, false), ACK_EVERY_PACKETS);
    }
}
