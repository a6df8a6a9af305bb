//! The clocks of one machine: a monotonic one with an offset and a drift, and a wall clock that can
//! be set.

use std::sync::atomic::{AtomicI64, Ordering};

use aspen_cluster::clock::Clock;
use net_sim::{HostClock, SimRng};
use net_types::{Instant, UnixMillis};

/// How much faster or slower than time a clock may run, in parts per million.
pub(crate) const MAX_DRIFT_PPM: i64 = 50_000;

/// What wall clocks show at the start, give or take their offsets.
const START_MS: i64 = 1_700_000_000_000;

/// Time since the world began.
pub(crate) fn world_time(origin: tokio::time::Instant) -> Instant {
    Instant::ZERO + origin.elapsed()
}

pub(crate) struct SimClock {
    origin: tokio::time::Instant,
    host: HostClock,
    wall_offset_ms: AtomicI64,
}

impl SimClock {
    /// A clock that started up to an hour ago, is up to 5 % fast or slow and up to two seconds off;
    /// or one that is looked after: up to 0.1 % fast or slow, and 100 ms off.
    pub(crate) fn new(origin: tokio::time::Instant, rng: &mut SimRng, is_good: bool) -> Self {
        let (drift_ppm, off_ms) = if is_good { (1_000, 100) } else { (MAX_DRIFT_PPM, 2_000) };
        let mut within = |limit: i64| rng.below(2 * limit as u64 + 1) as i64 - limit;
        let drift_ppm = within(drift_ppm) as i32;
        let wall_offset_ms = AtomicI64::new(within(off_ms));
        let offset = std::time::Duration::from_millis(rng.below(3_600_000));
        let host = HostClock { offset, drift_ppm };
        Self { origin, host, wall_offset_ms }
    }

    /// Sets the wall clock forward or back.
    pub(crate) fn jump(&self, by_ms: i64) {
        self.wall_offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        self.host.local(world_time(self.origin))
    }

    fn wall(&self) -> UnixMillis {
        let since = self.now().since(self.host.local(Instant::ZERO)).as_millis() as i64;
        let wall = START_MS + since + self.wall_offset_ms.load(Ordering::Relaxed);
        UnixMillis(wall.unsigned_abs())
    }
}
