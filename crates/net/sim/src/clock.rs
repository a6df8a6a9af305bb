//! A host's own clock: an offset from the world's, and a drift.
//!
//! Invariants: a host's clock never goes back while the world's does not; [`HostClock::world`]
//! gives the first time of the world at which the host's clock shows the asked reading, so no timer
//! comes up early.

use core::time::Duration;

use net_types::Instant;

use crate::link::PPM;

/// How a host's monotonic clock runs beside the world's.
///
/// Instants of different hosts are not comparable; a world whose hosts all start at different
/// offsets catches code that compares them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostClock {
    /// What the host's clock shows when the world's shows zero.
    pub offset: Duration,
    /// How much faster it runs, in parts per million; above -1,000,000.
    pub drift_ppm: i32,
}

impl HostClock {
    fn rate(self) -> u128 {
        u128::try_from(i64::from(PPM) + i64::from(self.drift_ppm)).unwrap_or(1).max(1)
    }

    /// The host's reading at the world's `now`.
    pub fn local(self, now: Instant) -> Instant {
        let elapsed = u128::from(now.as_nanos()) * self.rate() / u128::from(PPM);
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        Instant::from_nanos(elapsed) + self.offset
    }

    /// The first world time at which the host's clock shows `local` or later.
    pub fn world(self, local: Instant) -> Instant {
        if local == Instant::FAR_FUTURE {
            return local;
        }
        let elapsed = local.since(Instant::ZERO + self.offset).as_nanos();
        let nanos = (elapsed * u128::from(PPM)).div_ceil(self.rate());
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_timer_is_due_exactly_when_the_world_reaches_it(
            offset_ms in 0u64..10_000_000,
            drift_ppm in -500_000i32..500_000,
            world_ns in 1u64..1 << 55,
        ) {
            let clock = HostClock { offset: Duration::from_millis(offset_ms), drift_ppm };
            let local = clock.local(Instant::from_nanos(world_ns));
            let due = clock.world(local);
            prop_assert!(due.as_nanos() <= world_ns);
            prop_assert!(clock.local(due) >= local);
            let before = Instant::from_nanos(due.as_nanos().saturating_sub(1));
            prop_assert!(due == Instant::ZERO || clock.local(before) < local);
        }
    }

    #[test]
    fn times_before_the_offset_are_due_at_once_and_the_far_future_never() {
        let clock = HostClock { offset: Duration::from_secs(5), drift_ppm: 0 };
        assert_eq!(clock.world(Instant::ZERO), Instant::ZERO);
        assert_eq!(clock.world(Instant::FAR_FUTURE), Instant::FAR_FUTURE);
    }
}
