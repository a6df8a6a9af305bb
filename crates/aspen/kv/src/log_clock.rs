//! The clock by which a leader stamps its entries.
//!
//! While something has a deadline, log time continues from the newest stamp at the rate of the
//! monotonic clock: a new leader whose wall clock is ahead never shortens a lease, and lengthens it
//! by no more than the time for which it cannot tell how long ago that stamp was made. While nothing
//! has one, log time catches up with the wall clock.
//!
//! Invariants: log time never goes back; while something has a deadline it runs at the monotonic
//! rate.

use net_types::{Instant, UnixMillis};

/// Log time as one leader sees it, from its election on.
#[derive(Clone, Copy, Debug)]
pub struct LogClock {
    stamp_ms: u64,
    /// The monotonic time of `stamp_ms`, exact to the nanosecond so that rounding never adds up.
    at: Instant,
}

impl LogClock {
    /// A clock that continues from the newest stamp in the leader's log or state.
    pub fn start(newest_stamp_ms: u64, now: Instant) -> Self {
        Self { stamp_ms: newest_stamp_ms, at: now }
    }

    /// Log time now. `has_deadlines` says whether the state, or an entry proposed since, holds
    /// something that expires.
    pub fn now_ms(&mut self, now: Instant, wall: UnixMillis, has_deadlines: bool) -> u64 {
        let elapsed_ms = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        let running_ms = self.stamp_ms.saturating_add(elapsed_ms);
        if !has_deadlines && wall.0 > running_ms {
            *self = Self { stamp_ms: wall.0, at: now };
            return wall.0;
        }
        running_ms
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn a_leader_with_a_fast_wall_clock_shortens_no_deadline() {
        let mut clock = LogClock::start(1_000, at(50));
        assert_eq!(clock.now_ms(at(50), UnixMillis(90_000), true), 1_000);
        assert_eq!(clock.now_ms(at(60), UnixMillis(90_010), true), 1_010);
    }

    #[test]
    fn without_deadlines_it_catches_up_and_never_goes_back() {
        let mut clock = LogClock::start(1_000, at(0));
        assert_eq!(clock.now_ms(at(5), UnixMillis(5_000), false), 5_000);
        assert_eq!(clock.now_ms(at(15), UnixMillis(2), false), 5_010);
        assert_eq!(clock.now_ms(at(15), UnixMillis(9_000), true), 5_010);
    }
}
