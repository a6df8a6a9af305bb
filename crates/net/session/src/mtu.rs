//! Search for the largest packet a path carries (RFC 8899), and retreat when it stops doing so.

use core::time::Duration;

use net_types::Instant;
use net_types::limits::{
    BASE_DATAGRAM_BYTES, HEADER_BYTES, MTU_BLACK_HOLE_RTOS, MTU_PROBE_ATTEMPTS, MTU_PROBE_STEPS,
    MTU_REPROBE, ROUTING_HEADER_BYTES, TAG_BYTES,
};

#[derive(Clone, Debug)]
struct Probe {
    id: u32,
    datagram_bytes: usize,
    attempts: u32,
    /// When it counts as lost, or `None` while it waits to be sent.
    expires: Option<Instant>,
}

/// The size of a path's packets. Sizes are datagrams with room for a routing header, so that direct
/// and relayed paths cut messages alike.
#[derive(Clone, Debug)]
pub(crate) struct Mtu {
    datagram_bytes: usize,
    peer_max: usize,
    probe: Option<Probe>,
    /// The question, after a large packet was lost, whether the peer is there at all.
    ping: Option<u32>,
    search_at: Option<Instant>,
    next_id: u32,
    large_losses: u32,
}

impl Mtu {
    pub(crate) fn new(peer_max_datagram: u16) -> Self {
        Self {
            datagram_bytes: BASE_DATAGRAM_BYTES,
            peer_max: usize::from(peer_max_datagram),
            probe: None,
            ping: None,
            search_at: None,
            next_id: 1,
            large_losses: 0,
        }
    }

    /// Bytes of the largest packet, header and tag included.
    pub(crate) fn packet_bytes(&self) -> usize {
        self.datagram_bytes - ROUTING_HEADER_BYTES
    }

    /// Begins to search from the present size.
    pub(crate) fn start(&mut self, now: Instant) {
        self.search_at = None;
        let next =
            MTU_PROBE_STEPS.iter().find(|s| **s > self.datagram_bytes && **s <= self.peer_max);
        let Some(&datagram_bytes) = next else {
            self.search_at = Some(now + MTU_REPROBE);
            return;
        };
        let id = self.take_id();
        self.probe = Some(Probe { id, datagram_bytes, attempts: 0, expires: None });
    }

    fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        id
    }

    /// A probe to send now: its id and its packet's bytes.
    pub(crate) fn poll_probe(&mut self, now: Instant, wait: Duration) -> Option<(u32, usize)> {
        let probe = self.probe.as_mut().filter(|p| p.expires.is_none())?;
        probe.expires = Some(now + wait);
        probe.attempts += 1;
        Some((probe.id, probe.datagram_bytes - ROUTING_HEADER_BYTES))
    }

    /// A large packet timed out: either the path carries no large packets or nothing at all. The
    /// answer to a small probe with this id tells; only the newest one does, since a peer that
    /// rested may answer many at once.
    pub(crate) fn ping(&mut self) -> u32 {
        let id = self.take_id();
        self.ping = Some(id);
        id
    }

    /// The peer got the probe. True if packets have another size now.
    pub(crate) fn on_answer(&mut self, now: Instant, id: u32) -> bool {
        if self.ping.take_if(|ping| *ping == id).is_some() {
            return self.on_large_loss(now);
        }
        let Some(probe) = self.probe.take_if(|p| p.id == id) else { return false };
        self.datagram_bytes = probe.datagram_bytes;
        self.large_losses = 0;
        self.start(now);
        true
    }

    /// Whether a packet with this payload is one that a path of the base size does not carry.
    pub(crate) fn is_large(payload_bytes: usize) -> bool {
        payload_bytes + HEADER_BYTES + TAG_BYTES + ROUTING_HEADER_BYTES > BASE_DATAGRAM_BYTES
    }

    /// A large packet was lost and the peer is there, once more in a row. True if packets must be
    /// smaller now; the search begins anew, since a step in between may still pass.
    pub(crate) fn on_large_loss(&mut self, now: Instant) -> bool {
        self.large_losses += 1;
        self.large_losses >= MTU_BLACK_HOLE_RTOS && self.restart(now)
    }

    /// A large packet arrived.
    pub(crate) fn on_large_progress(&mut self) {
        self.ping = None;
        self.large_losses = 0;
    }

    /// Begins from the base size. True if packets must be smaller now.
    pub(crate) fn restart(&mut self, now: Instant) -> bool {
        let was_larger = self.datagram_bytes > BASE_DATAGRAM_BYTES;
        self.large_losses = 0;
        self.datagram_bytes = BASE_DATAGRAM_BYTES;
        self.start(now);
        was_larger
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.search_at.is_some_and(|at| at <= now) {
            self.start(now);
        }
        let Some(probe) = self.probe.as_mut() else { return };
        if probe.expires.is_none_or(|at| at > now) {
            return;
        }
        if probe.attempts < MTU_PROBE_ATTEMPTS {
            probe.expires = None;
        } else {
            self.probe = None;
            self.search_at = Some(now + MTU_REPROBE);
        }
    }

    pub(crate) fn wants_probe(&self) -> bool {
        self.probe.as_ref().is_some_and(|p| p.expires.is_none())
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.probe.as_ref().and_then(|p| p.expires).or(self.search_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(50);

    #[test]
    fn climbs_while_probes_are_answered_and_stops_at_the_peer_limit() {
        let mut mtu = Mtu::new(4_096);
        assert_eq!(mtu.packet_bytes(), 1_214);
        mtu.start(Instant::ZERO);
        for expected in [1_392, 1_452, 4_096] {
            let (id, bytes) = mtu.poll_probe(Instant::ZERO, WAIT).unwrap();
            assert_eq!(bytes, expected - 18);
            mtu.on_answer(Instant::ZERO, id);
            assert_eq!(mtu.packet_bytes(), bytes);
        }
        assert!(!mtu.wants_probe());
        assert_eq!(mtu.next_timeout(), Some(Instant::ZERO + MTU_REPROBE));
    }

    #[test]
    fn three_lost_probes_end_the_search_and_foreign_answers_are_ignored() {
        let mut mtu = Mtu::new(8_210);
        mtu.start(Instant::ZERO);
        let mut now = Instant::ZERO;
        for _ in 0..3 {
            assert!(mtu.poll_probe(now, WAIT).is_some());
            mtu.on_answer(now, 999);
            now += WAIT;
            mtu.handle_timeout(now);
        }
        assert!(mtu.poll_probe(now, WAIT).is_none());
        assert_eq!(mtu.packet_bytes(), 1_214);
    }

    #[test]
    fn repeated_losses_of_large_packets_fall_back_to_the_base_size_and_search_again() {
        let mut mtu = Mtu::new(8_210);
        mtu.start(Instant::ZERO);
        let (id, _) = mtu.poll_probe(Instant::ZERO, WAIT).unwrap();
        assert!(mtu.on_answer(Instant::ZERO, id));
        assert!(!mtu.on_large_loss(Instant::ZERO));
        assert!(!mtu.on_large_loss(Instant::ZERO));
        mtu.on_large_progress();
        assert!(!mtu.on_large_loss(Instant::ZERO));
        assert!(!mtu.on_large_loss(Instant::ZERO));
        assert_eq!(mtu.packet_bytes(), 1_374);
        assert!(mtu.on_large_loss(Instant::ZERO));
        assert_eq!(mtu.packet_bytes(), 1_214);
        assert_eq!(mtu.poll_probe(Instant::ZERO, WAIT).map(|(_, bytes)| bytes), Some(1_374));
        for _ in 0..3 {
            let (first, second) = (mtu.ping(), mtu.ping());
            mtu.datagram_bytes = 1_452;
            assert!(!mtu.on_answer(Instant::ZERO, first), "an older question");
            mtu.on_answer(Instant::ZERO, second);
        }
        assert_eq!(mtu.packet_bytes(), 1_214);
        assert!(Mtu::is_large(1_135) && !Mtu::is_large(1_134));
    }
}
