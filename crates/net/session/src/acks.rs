//! When an owed acknowledgement leaves in a packet of its own.
//!
//! Acknowledgements ride on whatever is sent, which costs nothing, so one is held back as long as
//! something to ride on is likely: an answer, or the next request. It leaves by itself after
//! [`ACK_DELAY`], and earlier when the sender may be waiting for it: for its congestion window,
//! which half of the first flight must keep open; for credit; or for news of what was lost
//! (RFC 9000, 13.2; RFC 5681, 4.2).

use net_types::Instant;
use net_types::limits::{ACK_ALERT_PACKETS, ACK_DELAY, ACK_EVERY_BULK_PACKETS, ACK_EVERY_PACKETS};

/// What the peer is owed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AckDebt {
    /// When the oldest debt is due at the latest.
    at: Option<Instant>,
    is_due: bool,
    /// Packets received since everything was acknowledged.
    packets: u32,
    /// Packets for which losses are still assumed to have narrowed the sender's window.
    alert: u32,
}

impl AckDebt {
    /// Something is owed; it may wait for a ride.
    pub(crate) fn owe(&mut self, now: Instant) {
        self.at.get_or_insert(now + ACK_DELAY);
    }

    /// What is owed is not to wait.
    pub(crate) fn hurry(&mut self) {
        self.is_due = true;
    }

    /// A packet is owed an acknowledgement; `is_bulk` is whether it was one of a series.
    pub(crate) fn on_packet(&mut self, now: Instant, is_bulk: bool) {
        self.packets += 1;
        let is_alert = self.alert > 0;
        self.alert = self.alert.saturating_sub(1);
        let every = if is_bulk || is_alert { ACK_EVERY_BULK_PACKETS } else { ACK_EVERY_PACKETS };
        self.is_due |= self.packets >= every;
        self.owe(now);
    }

    /// Something was lost, overtaken or repeated.
    pub(crate) fn on_disorder(&mut self) {
        self.alert = ACK_ALERT_PACKETS;
    }

    /// Whether it leaves now, with or without a ride.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due
    }

    /// When [`AckDebt::handle_timeout`] has something to do.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.at.filter(|_| !self.is_due)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.is_due |= self.at.is_some_and(|at| at <= now);
    }

    /// Everything owed has been written.
    pub(crate) fn settle(&mut self) {
        *self = Self { alert: self.alert, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use net_types::limits::INITIAL_CWND_PACKETS;

    use super::*;

    /// Packets until the acknowledgement does not wait any more.
    fn packets_until_due(debt: &mut AckDebt, is_bulk: bool) -> u32 {
        let mut packets = 0;
        while !debt.is_due() {
            debt.on_packet(Instant::ZERO, is_bulk);
            packets += 1;
        }
        debt.settle();
        packets
    }

    #[test]
    fn a_lone_packet_waits_for_a_ride_and_not_longer_than_the_delay() {
        let mut debt = AckDebt::default();
        assert_eq!(debt.next_timeout(), None);
        debt.on_packet(Instant::ZERO, false);
        debt.on_packet(Instant::ZERO + ACK_DELAY / 2, false);
        assert_eq!(debt.next_timeout(), Some(Instant::ZERO + ACK_DELAY));
        debt.handle_timeout(Instant::ZERO + ACK_DELAY / 2);
        assert!(!debt.is_due());
        debt.handle_timeout(Instant::ZERO + ACK_DELAY);
        assert!(debt.is_due());
        assert_eq!(debt.next_timeout(), None);
        debt.settle();
        assert!(!debt.is_due());
    }

    #[test]
    fn series_and_losses_are_acknowledged_more_often() {
        let mut debt = AckDebt::default();
        assert_eq!(packets_until_due(&mut debt, true), 2);
        assert!(packets_until_due(&mut debt, false) <= INITIAL_CWND_PACKETS / 2);
        debt.on_disorder();
        let mut packets = 0;
        while packets < ACK_ALERT_PACKETS {
            let step = packets_until_due(&mut debt, false);
            assert_eq!(step, 2);
            packets += step;
        }
        assert_eq!(packets_until_due(&mut debt, false), ACK_EVERY_PACKETS);
    }
}
