//! Round-trip time and retransmission timeout (RFC 6298).
//!
//! Acknowledgements do not say how long they were held back, so samples contain that time, as TCP's
//! do: the timeout then errs on the long side.
//!
//! Invariants: a timeout lies between [`RTO_MIN`] and [`RTO_MAX`]; callers sample only what was
//! sent once (Karn's rule).

use core::time::Duration;

use net_types::limits::{ACK_DELAY, RTO_MAX, RTO_MIN};

/// Smoothed round-trip time of a path, the wait of acknowledgements for a ride included.
#[derive(Clone, Debug)]
pub(crate) struct Rtt {
    smoothed: Duration,
    variance: Duration,
    backoff: u32,
}

impl Rtt {
    /// An estimator whose first sample is the handshake's round trip.
    pub(crate) fn new(first: Duration) -> Self {
        Self { smoothed: first, variance: first / 2, backoff: 0 }
    }

    pub(crate) fn sample(&mut self, rtt: Duration) {
        let deviation = self.smoothed.abs_diff(rtt);
        self.variance = (self.variance * 3 + deviation) / 4;
        self.smoothed = (self.smoothed * 7 + rtt) / 8;
        self.backoff = 0;
    }

    pub(crate) fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// How long a reported gap may stay before it is reported again or, on an unreliable stream,
    /// given up: there it only waits for packets that were overtaken.
    pub(crate) fn gap_patience(&self, is_reliable: bool) -> Duration {
        if is_reliable { self.timeout() } else { self.smoothed / 2 }
    }

    /// How long after a resend a report of the same loss may still be older than the resend.
    pub(crate) fn settle(&self) -> Duration {
        self.smoothed + self.variance
    }

    /// Whether the last timeouts were not followed by any progress.
    pub(crate) fn is_backed_off(&self) -> bool {
        self.backoff > 0
    }

    /// Timeouts in a row without any progress between them.
    pub(crate) fn backoff(&self) -> u32 {
        self.backoff
    }

    /// The timeout of a path that is not known to be down.
    pub(crate) fn base_timeout(&self) -> Duration {
        // The next acknowledgement may be held back although those before were not (RFC 9002,
        // 6.2.1).
        let margin = (self.variance * 4 + ACK_DELAY).max(RTO_MIN);
        (self.smoothed + margin).min(RTO_MAX)
    }

    /// The timeout, doubled for each timeout since the last sample.
    pub(crate) fn timeout(&self) -> Duration {
        (self.base_timeout() * (1 << self.backoff.min(16))).min(RTO_MAX)
    }

    pub(crate) fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    pub(crate) fn progress(&mut self) {
        self.backoff = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_samples_and_stays_within_its_bounds() {
        let mut rtt = Rtt::new(Duration::from_millis(100));
        assert_eq!(rtt.timeout(), Duration::from_millis(325));
        for _ in 0..100 {
            rtt.sample(Duration::from_millis(40));
        }
        assert!(rtt.smoothed().abs_diff(Duration::from_millis(40)) < Duration::from_millis(1));
        assert!(rtt.timeout() < Duration::from_millis(75));
        for _ in 0..20 {
            rtt.back_off();
        }
        assert_eq!(rtt.timeout(), RTO_MAX);
        for _ in 0..200 {
            rtt.sample(Duration::from_micros(20));
        }
        assert!(rtt.timeout() - RTO_MIN < Duration::from_micros(30));
    }
}
