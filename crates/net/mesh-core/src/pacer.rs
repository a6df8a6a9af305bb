//! How many handshakes are worked on per second, per source and in all.

use core::net::IpAddr;
use std::collections::BTreeMap;

use net_types::Instant;
use net_types::limits::{
    HANDSHAKES_PER_NODE_PER_SEC, HANDSHAKES_PER_SOURCE_PER_SEC, MAX_PACER_SOURCES,
};

/// Counts Inits in windows of one second.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    second: u64,
    total: u32,
    sources: BTreeMap<IpAddr, u32>,
}

impl Pacer {
    /// Counts an Init and tells whether it is within the pace.
    pub(crate) fn admit(&mut self, now: Instant, source: IpAddr) -> bool {
        let second = now.as_nanos() / 1_000_000_000;
        if second != self.second {
            self.second = second;
            self.total = 0;
            self.sources.clear();
        }
        self.total = self.total.saturating_add(1);
        // A full table means a flood of sources: a cookie sorts the real ones out.
        let is_known = self.sources.contains_key(&source);
        if self.total > HANDSHAKES_PER_NODE_PER_SEC
            || (!is_known && self.sources.len() >= MAX_PACER_SOURCES)
        {
            return false;
        }
        let count = self.sources.entry(source).or_default();
        *count = count.saturating_add(1);
        *count <= HANDSHAKES_PER_SOURCE_PER_SEC
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;
    use core::time::Duration;

    use super::*;

    #[test]
    fn limits_each_source_and_the_whole_node_per_second() {
        let mut pacer = Pacer::default();
        let source = |i: u32| IpAddr::V4(Ipv4Addr::from(i));
        let admitted = (0..20).filter(|_| pacer.admit(Instant::ZERO, source(1))).count();
        assert_eq!(admitted, HANDSHAKES_PER_SOURCE_PER_SEC as usize);
        let admitted = (2..5_000).filter(|i| pacer.admit(Instant::ZERO, source(*i))).count();
        assert_eq!(admitted, (HANDSHAKES_PER_NODE_PER_SEC - 20) as usize);
        assert!(pacer.admit(Instant::ZERO + Duration::from_secs(1), source(1)));
    }
}
