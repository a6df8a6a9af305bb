//! The deadlines of a session, one for each reason to act when nothing arrives.
//!
//! Invariants: a reason has at most one deadline; [`TimerTable::next_at`] is the only place that
//! combines them, and [`crate::Session::handle_timeout`] calls one function for each that is due.

use net_types::Instant;

/// Why a session wants to be called when nothing arrives.
///
/// Due reasons are handled in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// The initiator has not proved the keys of a provisional session: the session ends.
    Handshake = 0,
    /// A draining session has had its time: it ends.
    DrainEnd = 1,
    /// The peer of a draining session has been silent so long that it cannot know the session: the
    /// session ends.
    DrainSilence = 2,
    /// The peer of a draining session is told again whether this side is done.
    DrainStatus = 3,
    /// Nothing authentic has come for so long that the peer is gone: the session ends.
    Idle = 4,
    /// The key of the previous epoch has outlived the packets that were under way: it is forgotten.
    KeyDiscard = 5,
    /// An acknowledgement has waited long enough for a packet to ride on.
    Ack = 6,
    /// A packet or a reset is not acknowledged, or a stream waits for credit: they are sent again,
    /// or the window is asked for.
    Retransmit = 7,
    /// The peer has had its time to fill the gaps that it was told of.
    GapCheck = 8,
    /// Messages on unreliable streams may have been incomplete for too long.
    Reassembly = 9,
    /// Nothing was sent for the heartbeat interval.
    Heartbeat = 10,
    /// An MTU probe counts as lost, or the search for a larger size begins again.
    MtuProbe = 11,
    /// The peer has had its time to prove a new address.
    PathValidation = 12,
}

impl Timer {
    /// All reasons, in the order in which they are handled.
    pub const ALL: [Self; 13] = [
        Self::Handshake,
        Self::DrainEnd,
        Self::DrainSilence,
        Self::DrainStatus,
        Self::Idle,
        Self::KeyDiscard,
        Self::Ack,
        Self::Retransmit,
        Self::GapCheck,
        Self::Reassembly,
        Self::Heartbeat,
        Self::MtuProbe,
        Self::PathValidation,
    ];
}

/// The deadline of each reason; of one that has none, a point that never comes.
#[derive(Clone, Debug)]
pub(crate) struct TimerTable([Instant; Timer::ALL.len()]);

impl Default for TimerTable {
    fn default() -> Self {
        Self([Instant::FAR_FUTURE; Timer::ALL.len()])
    }
}

impl TimerTable {
    /// Sets or clears the deadline, whatever it was.
    pub(crate) fn set(&mut self, timer: Timer, at: impl Into<Option<Instant>>) {
        self.0[timer as usize] = at.into().unwrap_or(Instant::FAR_FUTURE);
    }

    /// Sets the deadline unless there is one.
    pub(crate) fn set_if_clear(&mut self, timer: Timer, at: Instant) {
        if self.get(timer).is_none() {
            self.set(timer, at);
        }
    }

    /// Moves the deadline to `at` unless there is an earlier one.
    pub(crate) fn set_no_later(&mut self, timer: Timer, at: Instant) {
        self.set(timer, at.min(self.0[timer as usize]));
    }

    pub(crate) fn clear(&mut self, timer: Timer) {
        self.set(timer, None);
    }

    pub(crate) fn get(&self, timer: Timer) -> Option<Instant> {
        Some(self.0[timer as usize]).filter(|at| *at < Instant::FAR_FUTURE)
    }

    /// Clears the deadline if it has come; returns whether it has.
    pub(crate) fn take_due(&mut self, timer: Timer, now: Instant) -> bool {
        let is_due = self.get(timer).is_some_and(|at| at <= now);
        if is_due {
            self.clear(timer);
        }
        is_due
    }

    /// The earliest deadline. It is asked for after each turn, its reason is not.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        let first = self.0.iter().fold(Instant::FAR_FUTURE, |first, at| first.min(*at));
        Some(first).filter(|at| *at < Instant::FAR_FUTURE)
    }

    /// The same with its reason; of several, the one that is handled first.
    pub(crate) fn next(&self) -> Option<(Instant, Timer)> {
        let first = self.next_at()?;
        let timer = Timer::ALL.into_iter().find(|timer| self.0[*timer as usize] == first)?;
        Some((first, timer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn every_reason_has_a_place_of_its_own() {
        for (place, timer) in Timer::ALL.into_iter().enumerate() {
            assert_eq!(timer as usize, place);
        }
    }

    #[test]
    fn the_earliest_deadline_is_next_and_ties_follow_the_order() {
        let mut timers = TimerTable::default();
        assert_eq!(timers.next(), None);
        timers.set(Timer::MtuProbe, at(5));
        timers.set(Timer::Idle, at(9));
        timers.set(Timer::Ack, at(5));
        assert_eq!(timers.next(), Some((at(5), Timer::Ack)));
        assert!(!timers.take_due(Timer::Ack, at(4)));
        assert!(timers.take_due(Timer::Ack, at(5)));
        assert!(!timers.take_due(Timer::Ack, at(5)));
        assert_eq!(timers.next(), Some((at(5), Timer::MtuProbe)));
        timers.clear(Timer::MtuProbe);
        assert_eq!(timers.next(), Some((at(9), Timer::Idle)));
    }

    #[test]
    fn a_deadline_is_kept_moved_forward_or_replaced() {
        let mut timers = TimerTable::default();
        timers.set_if_clear(Timer::Retransmit, at(7));
        timers.set_if_clear(Timer::Retransmit, at(3));
        assert_eq!(timers.get(Timer::Retransmit), Some(at(7)));
        timers.set_no_later(Timer::Retransmit, at(8));
        timers.set_no_later(Timer::Retransmit, at(6));
        assert_eq!(timers.get(Timer::Retransmit), Some(at(6)));
        timers.set(Timer::Retransmit, at(9));
        timers.set(Timer::Ack, Some(at(1)));
        timers.set(Timer::Ack, None);
        assert_eq!(timers.next(), Some((at(9), Timer::Retransmit)));
    }
}
