//! Log time: the stamps of a leader, as a function of its clocks and of what it has applied.
//!
//! Stamps of one leader never fall, and none is below one that this node has applied. The wall is
//! followed only while nothing expires, so that its jumps neither shorten nor lengthen a life.

use aspen_kv::LogClock;
use net_types::limits::DEFAULT_REQUEST_DEADLINE;
use net_types::{Instant, UnixMillis};

/// Longest time between a proposal and its effect on the state, with room to spare.
const PROPOSAL_LIFE_MS: u64 = 2 * DEFAULT_REQUEST_DEADLINE.as_millis() as u64;

/// Log time as the state has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AppliedTime {
    /// The newest stamp applied, in milliseconds.
    pub(super) log_time_ms: u64,
    /// When an entry with a stamp was last applied, so not before it was stamped.
    pub(super) at: Instant,
}

/// Log time as this node stamps it while it leads.
#[derive(Default)]
pub(super) struct LogTime {
    clock: Option<(u64, LogClock)>,
    /// When something that expires was last proposed.
    deadline_proposed_at: Option<Instant>,
}

/// What the stamp of an entry depends on, apart from the clock of the term.
#[derive(Clone, Copy)]
pub(super) struct StampInput {
    pub(super) term: u64,
    pub(super) now: Instant,
    pub(super) wall: UnixMillis,
    /// Term of the last entry applied. Until it is the present one, entries of leaders before may be
    /// missing in the state.
    pub(super) applied_term: Option<u64>,
    /// Log time of the state.
    pub(super) applied: AppliedTime,
    /// Whether anything in the state expires.
    pub(super) has_deadlines: bool,
}

impl LogTime {
    /// The stamp of an entry proposed now; `brings_deadline` is noted for later ones.
    pub(super) fn stamp_ms(&mut self, input: StampInput, brings_deadline: bool) -> u64 {
        let StampInput { term, now, wall, applied, .. } = input;
        let proposed = self
            .deadline_proposed_at
            .is_some_and(|at| now.since(at).as_millis() < u128::from(PROPOSAL_LIFE_MS));
        if brings_deadline {
            // What it brings ends a while after its own stamp, which may still catch up.
            self.deadline_proposed_at = Some(now);
        }
        let may_inherit = input.applied_term != Some(term);
        let has_deadlines = input.has_deadlines || may_inherit || proposed;
        let clock = match &mut self.clock {
            Some((of, clock)) if *of == term => clock,
            other => &mut other.insert((term, LogClock::start(applied.log_time_ms, now))).1,
        };
        let stamp_ms = clock.now_ms(now, wall, has_deadlines);
        let least_ms = match may_inherit {
            true => applied.log_time_ms,
            // There is no later stamp, and time passed for the leader that made it: a quiet time
            // under that leader makes nothing live longer.
            false => LogClock::start(applied.log_time_ms, applied.at).now_ms(now, wall, true),
        };
        if stamp_ms >= least_ms {
            return stamp_ms;
        }
        // The leader before was further when this clock was started.
        *clock = LogClock::start(least_ms, now);
        least_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    /// Input of a state that has just applied `log_time_ms`.
    fn input(
        term: u64,
        log_time_ms: u64,
        now: Instant,
        wall: u64,
        has_deadlines: bool,
    ) -> StampInput {
        let (wall, applied_term) = (UnixMillis(wall), Some(term));
        let applied = AppliedTime { log_time_ms, at: now };
        StampInput { term, now, wall, applied_term, applied, has_deadlines }
    }

    #[test]
    fn stamps_follow_the_wall_until_something_expires_and_never_fall_behind_the_state() {
        let mut time = LogTime::default();
        assert_eq!(time.stamp_ms(input(1, 100, at(0), 5_000, false), true), 5_000);
        assert_eq!(time.stamp_ms(input(1, 100, at(10), 9_000, false), false), 5_010);
        assert_eq!(time.stamp_ms(input(1, 8_000, at(11), 9_000, true), false), 8_000);
        assert_eq!(time.stamp_ms(input(1, 8_000, at(16), 9_000, true), false), 8_005);
        assert_eq!(time.stamp_ms(input(2, 8_000, at(17), 1, true), false), 8_000);
        let later = at(PROPOSAL_LIFE_MS + 1);
        assert_eq!(time.stamp_ms(input(2, 8_000, later, 900_000, false), false), 900_000);
    }

    #[test]
    fn a_new_leader_continues_from_when_the_last_stamp_was_applied() {
        let mut time = LogTime::default();
        let applied = AppliedTime { log_time_ms: 1_000, at: at(50) };
        let quiet = |now| StampInput { applied, ..input(2, 0, at(now), 0, true) };
        let inheriting = StampInput { applied_term: Some(1), ..quiet(60_050) };
        assert_eq!(time.stamp_ms(inheriting, false), 1_000, "a later stamp may be on its way");
        assert_eq!(time.stamp_ms(quiet(60_060), false), 61_010);
        assert_eq!(time.stamp_ms(quiet(60_065), false), 61_015);
    }

    #[test]
    fn the_first_lease_in_a_quiet_store_is_granted_at_the_time_of_the_wall() {
        let mut time = LogTime::default();
        assert_eq!(time.stamp_ms(input(3, 100, at(0), 7_000_000, false), true), 7_000_000);
        // From then on jumps of the wall change nothing.
        assert_eq!(time.stamp_ms(input(3, 100, at(5), 9_000_000, false), true), 7_000_005);
    }

    #[test]
    fn a_leader_that_has_not_applied_what_it_inherits_follows_no_wall() {
        let mut time = LogTime::default();
        let new = |now| input(4, 1_000, now, 9_000_000, false);
        let inheriting = StampInput { applied_term: Some(3), ..new(at(0)) };
        assert_eq!(time.stamp_ms(inheriting, false), 1_000);
        let with_lease = StampInput { has_deadlines: true, ..new(at(10)) };
        assert_eq!(
            time.stamp_ms(with_lease, false),
            1_010,
            "the lease it inherited is not cut short"
        );
        assert_eq!(time.stamp_ms(new(at(20)), false), 9_000_000, "there was none, or it has ended");
    }
}
