//! What a link between two addresses does to datagrams.
//!
//! Invariants: probabilities are parts per million and independent of each other; the default is a
//! link without faults.

use core::time::Duration;

/// Parts per million that make certainty.
pub const PPM: u32 = 1_000_000;

/// The behaviour of one direction of a link. Probabilities are parts per million and independent.
///
/// Without `reorder`, datagrams arrive in the order they were sent, however large the jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Least time from the end of a datagram's transmission to its arrival.
    pub latency: Duration,
    /// A uniform extra delay up to this.
    pub jitter: Duration,
    /// Probability that a datagram is lost on the way.
    pub loss_ppm: u32,
    /// Probability that a second copy arrives, up to `latency + jitter` after the first.
    pub duplicate_ppm: u32,
    /// Probability that a datagram is held back, up to twice `latency + jitter` and at least long
    /// enough for the next one to overtake it.
    pub reorder_ppm: u32,
    /// Probability that one bit of a datagram flips. Real networks have checksums; this is for
    /// the code behind them.
    pub corrupt_ppm: u32,
    /// Transmission rate; `None` is instantaneous.
    pub rate_bytes_per_s: Option<u64>,
    /// Bytes that may wait for transmission; a datagram that finds no room is dropped. Without a
    /// rate nothing ever waits.
    pub queue_bytes: u64,
    /// Longer datagrams are dropped without notice, as with don't-fragment set.
    pub mtu_bytes: usize,
}

impl LinkConfig {
    /// A faultless link of this latency, unlimited rate and UDP's largest payload.
    pub const fn with_latency(latency: Duration) -> Self {
        Self {
            latency,
            jitter: Duration::ZERO,
            loss_ppm: 0,
            duplicate_ppm: 0,
            reorder_ppm: 0,
            corrupt_ppm: 0,
            rate_bytes_per_s: None,
            queue_bytes: 256 << 10,
            mtu_bytes: 65_507,
        }
    }
}

impl Default for LinkConfig {
    /// A local network: 200 us, no faults.
    fn default() -> Self {
        Self::with_latency(Duration::from_micros(200))
    }
}
