//! Time as a node reads it, and how far its peers' clocks are from its own.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use net_types::limits::{CLOCK_DRIFT_ALERT, CLOCK_DRIFT_WARN};
use net_types::{Instant, UnixMillis, lock};

/// The two clocks of a node.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time.
    fn now(&self) -> Instant;
    /// Wall-clock time.
    fn wall(&self) -> UnixMillis;
}

/// The system's clocks; monotonic time is tokio's, so that a paused runtime stops it.
#[derive(Debug)]
pub struct SystemClock {
    origin: tokio::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    fn wall(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// What one exchange says about a peer's clock.
fn offset_ms(sent: UnixMillis, received: UnixMillis, peer: UnixMillis) -> i64 {
    let middle = sent.0 / 2 + received.0 / 2 + (sent.0 & received.0 & 1);
    i64::try_from(i128::from(peer.0) - i128::from(middle)).unwrap_or(i64::MAX)
}

/// Exchanges slower than this say too little about the peer's clock.
const LONGEST_EXCHANGE: Duration = Duration::from_millis(100);

/// How far peers' wall clocks are from this node's.
#[derive(Debug, Default)]
pub(crate) struct Drift {
    offsets: Mutex<BTreeMap<u64, i64>>,
}

impl Drift {
    /// Takes in one exchange with `peer`, answered at `theirs` by its clock.
    pub(crate) fn observe(
        &self,
        peer: u64,
        took: Duration,
        sent: UnixMillis,
        received: UnixMillis,
        theirs: UnixMillis,
    ) {
        if took > LONGEST_EXCHANGE {
            return;
        }
        let offset = offset_ms(sent, received, theirs);
        let mut offsets = lock(&self.offsets);
        let before = offsets.insert(peer, offset).unwrap_or(0).unsigned_abs();
        let now = offset.unsigned_abs();
        drop(offsets);
        let crossed = |limit: Duration| {
            let limit = limit.as_millis() as u64;
            before <= limit && now > limit
        };
        if crossed(CLOCK_DRIFT_ALERT) {
            tracing::error!(
                peer,
                offset_ms = offset,
                "a peer's clock is far off; leases are not used"
            );
        } else if crossed(CLOCK_DRIFT_WARN) {
            tracing::warn!(peer, offset_ms = offset, "a peer's clock is off");
        }
    }

    /// The largest distance seen in the latest exchange with each peer.
    pub(crate) fn max(&self) -> Duration {
        let offsets = lock(&self.offsets);
        let max = offsets.values().map(|offset| offset.unsigned_abs()).max().unwrap_or(0);
        Duration::from_millis(max)
    }

    /// Whether clocks agree well enough to trust a lease.
    pub(crate) fn is_within_limits(&self) -> bool {
        self.max() <= CLOCK_DRIFT_ALERT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_the_distance_from_the_middle_of_the_exchange() {
        let drift = Drift::default();
        let fast = Duration::from_millis(10);
        drift.observe(1, fast, UnixMillis(1_000), UnixMillis(1_010), UnixMillis(1_505));
        assert_eq!(drift.max(), Duration::from_millis(500));
        assert!(drift.is_within_limits());
        drift.observe(2, fast, UnixMillis(1_000), UnixMillis(1_000), UnixMillis(499));
        assert_eq!(drift.max(), Duration::from_millis(501));
        assert!(!drift.is_within_limits());
        drift.observe(2, fast, UnixMillis(1_000), UnixMillis(1_000), UnixMillis(1_000));
        assert!(drift.is_within_limits());
        let slow = Duration::from_secs(1);
        drift.observe(2, slow, UnixMillis(1_000), UnixMillis(2_000), UnixMillis(9_000));
        assert!(drift.is_within_limits(), "a slow exchange says nothing");
    }
}
