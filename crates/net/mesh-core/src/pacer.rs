//! How many handshakes are worked on per second, per source and in all.
//!
//! Invariants: what one source sends above its pace does not count against the others, nor against
//! the node; proved sources are counted apart; at most [`MAX_PACER_SOURCES`] sources are tracked,
//! and a source that finds no room needs a cookie.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeMap;

use net_types::Instant;
use net_types::limits::{
    HANDSHAKES_PER_NODE_PER_SEC, HANDSHAKES_PER_PROVED_SOURCE_PER_SEC,
    HANDSHAKES_PER_SOURCE_PER_SEC, MAX_PACER_SOURCES,
};

/// What counts as one source: an IPv4 address, or an IPv6 network of 64 bits, since the holder of one
/// address of it has all of them (RFC 4291, 2.5.4).
fn network_of(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Source {
    claimed: u32,
    proved: u32,
}

/// Counts Inits in windows of one second.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    second: u64,
    claimed: u32,
    proved: u32,
    sources: BTreeMap<IpAddr, Source>,
}

impl Pacer {
    /// Asserts that the node's counts are those of its sources, and that the table has its bound.
    pub(crate) fn check_invariants(&self) {
        assert!(self.sources.len() <= MAX_PACER_SOURCES);
        let sum = |of: fn(&Source) -> u32| self.sources.values().map(of).sum::<u32>();
        assert_eq!(self.claimed, sum(|source| source.claimed));
        assert!(self.proved >= sum(|source| source.proved));
    }

    fn source(&mut self, now: Instant, source: IpAddr) -> Option<&mut Source> {
        let second = now.as_nanos() / 1_000_000_000;
        if second != self.second {
            *self = Self { second, ..Self::default() };
        }
        let source = network_of(source);
        if self.sources.len() >= MAX_PACER_SOURCES && !self.sources.contains_key(&source) {
            return None;
        }
        Some(self.sources.entry(source).or_default())
    }

    /// Counts an Init that claims to come from `source` and tells whether it is within the pace.
    /// What one source sends above its pace does not count against the others.
    pub(crate) fn admit(&mut self, now: Instant, source: IpAddr) -> bool {
        // A full table means a flood of sources: a cookie sorts the real ones out.
        let Some(source) = self.source(now, source) else { return false };
        source.claimed += 1;
        if source.claimed > HANDSHAKES_PER_SOURCE_PER_SEC {
            source.claimed = HANDSHAKES_PER_SOURCE_PER_SEC;
            return false;
        }
        self.claimed += 1;
        self.claimed <= HANDSHAKES_PER_NODE_PER_SEC
    }

    /// The same for an Init whose source was proved by a cookie.
    pub(crate) fn admit_proved(&mut self, now: Instant, source: IpAddr) -> bool {
        if let Some(source) = self.source(now, source) {
            if source.proved >= HANDSHAKES_PER_PROVED_SOURCE_PER_SEC {
                return false;
            }
            source.proved += 1;
        }
        self.proved = self.proved.saturating_add(1);
        self.proved <= HANDSHAKES_PER_NODE_PER_SEC
    }

    /// Sources in the table.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.sources.len()
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;
    use core::time::Duration;

    use super::*;

    fn source(i: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(i))
    }

    #[test]
    fn limits_each_source_and_the_whole_node_per_second() {
        let mut pacer = Pacer::default();
        let admitted = (0..20).filter(|_| pacer.admit(Instant::ZERO, source(1))).count();
        assert_eq!(admitted, HANDSHAKES_PER_SOURCE_PER_SEC as usize);
        let admitted = (2..5_000).filter(|i| pacer.admit(Instant::ZERO, source(*i))).count();
        assert_eq!(admitted, (HANDSHAKES_PER_NODE_PER_SEC - 10) as usize);
        assert_eq!(pacer.len(), MAX_PACER_SOURCES);
        pacer.check_invariants();
        assert!(pacer.admit(Instant::ZERO + Duration::from_secs(1), source(1)));
        assert_eq!(pacer.len(), 1);
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_are_one_source() {
        let mut pacer = Pacer::default();
        let source = |network: u16, host: u16| {
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, network, host, host, 0, 1))
        };
        let admitted = (0..1_000).filter(|i| pacer.admit(Instant::ZERO, source(1, *i))).count();
        assert_eq!(admitted, HANDSHAKES_PER_SOURCE_PER_SEC as usize);
        assert_eq!(pacer.len(), 1);
        assert!(pacer.admit(Instant::ZERO, source(2, 0)));
        // One that an IPv6 socket shows is not 0.0.0.0/64.
        let mapped = |i: u8| IpAddr::V6(Ipv4Addr::new(10, 0, 0, i).to_ipv6_mapped());
        assert!((0..20).all(|i| pacer.admit(Instant::ZERO, mapped(i))));
    }

    #[test]
    fn a_flood_from_one_source_leaves_the_pace_of_the_others() {
        let mut pacer = Pacer::default();
        for _ in 0..100_000 {
            pacer.admit(Instant::ZERO, source(1));
        }
        assert!(pacer.admit(Instant::ZERO, source(2)));
    }

    #[test]
    fn proved_sources_have_a_pace_of_their_own() {
        let mut pacer = Pacer::default();
        for i in 0..100_000 {
            pacer.admit(Instant::ZERO, source(i));
        }
        let admitted = (0..1_000).filter(|_| pacer.admit_proved(Instant::ZERO, source(1))).count();
        assert_eq!(admitted, HANDSHAKES_PER_PROVED_SOURCE_PER_SEC as usize);
        assert!(pacer.admit_proved(Instant::ZERO, source(1 << 20)), "not in the full table");
        let all = (0..5_000).filter(|i| pacer.admit_proved(Instant::ZERO, source(*i))).count();
        assert!(all < HANDSHAKES_PER_NODE_PER_SEC as usize);
    }
}
