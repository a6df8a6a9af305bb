//! Search for the largest packet a path carries (RFC 8899), and retreat when it stops doing so.
//!
//! Invariants: packets grow only to a size whose probe was answered; they never grow beyond what
//! the peer takes; [`Timer::MtuProbe`] is set while a probe is under way and while the search
//! pauses, and clear while a probe waits to be sent.

use core::time::Duration;

use net_types::Instant;
use net_types::limits::{
    BASE_DATAGRAM_BYTES, HEADER_BYTES, MTU_BLACK_HOLE_RTOS, MTU_PROBE_ATTEMPTS, MTU_PROBE_STEPS,
    MTU_REPROBE, ROUTING_HEADER_BYTES, TAG_BYTES,
};

use crate::timer::{Timer, TimerTable};

#[derive(Clone, Debug)]
struct Probe {
    id: u32,
    datagram_bytes: usize,
    attempts: u32,
    /// Whether it is under way; otherwise it waits to be sent.
    is_sent: bool,
}

/// The size of a path's packets. Sizes are datagrams with room for a routing header, so that direct
/// and relayed paths cut messages alike.
#[derive(Clone, Debug)]
pub(crate) struct Mtu {
    datagram_bytes: usize,
    peer_max: usize,
    probe: Option<Probe>,
    /// Id of the small probe that asks, after a large packet was lost, whether the peer answers.
    ping: Option<u32>,
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
            next_id: 1,
            large_losses: 0,
        }
    }

    /// Bytes of the largest packet, header and tag included.
    pub(crate) fn packet_bytes(&self) -> usize {
        self.datagram_bytes - ROUTING_HEADER_BYTES
    }

    /// Asserts the module's invariants for a session that searches.
    pub(crate) fn check_invariants(&self, timers: &TimerTable) {
        let is_timed = self.probe.as_ref().is_none_or(|probe| probe.is_sent);
        assert_eq!(timers.get(Timer::MtuProbe).is_some(), is_timed, "{:?}", self.probe);
        let Some(probe) = &self.probe else { return };
        assert!((self.datagram_bytes + 1..=self.peer_max).contains(&probe.datagram_bytes));
        assert!(probe.attempts <= MTU_PROBE_ATTEMPTS);
    }

    /// Begins to search from the present size.
    pub(crate) fn start(&mut self, timers: &mut TimerTable, now: Instant) {
        let next =
            MTU_PROBE_STEPS.iter().find(|s| **s > self.datagram_bytes && **s <= self.peer_max);
        let Some(&datagram_bytes) = next else {
            return timers.set(Timer::MtuProbe, now + MTU_REPROBE);
        };
        let id = self.take_id();
        self.probe = Some(Probe { id, datagram_bytes, attempts: 0, is_sent: false });
        timers.clear(Timer::MtuProbe);
    }

    fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        id
    }

    /// Whether a probe waits to be sent.
    pub(crate) fn wants_probe(&self) -> bool {
        self.probe.as_ref().is_some_and(|p| !p.is_sent)
    }

    /// A probe to send now: its id and its packet's bytes. It counts as lost after `wait`.
    pub(crate) fn poll_probe(
        &mut self,
        timers: &mut TimerTable,
        now: Instant,
        wait: Duration,
    ) -> Option<(u32, usize)> {
        let probe = self.probe.as_mut().filter(|p| !p.is_sent)?;
        probe.is_sent = true;
        probe.attempts += 1;
        timers.set(Timer::MtuProbe, now + wait);
        Some((probe.id, probe.datagram_bytes - ROUTING_HEADER_BYTES))
    }

    /// A large packet timed out: either the path carries no large packets or nothing at all. The
    /// answer to a small probe with this id tells; only the newest one does, since a peer that
    /// was suspended may answer many at once.
    pub(crate) fn ping(&mut self) -> u32 {
        let id = self.take_id();
        self.ping = Some(id);
        id
    }

    /// The peer got the probe. True if packets have another size now.
    pub(crate) fn on_answer(&mut self, timers: &mut TimerTable, now: Instant, id: u32) -> bool {
        if self.ping.take_if(|ping| *ping == id).is_some() {
            return self.on_large_loss(timers, now);
        }
        let Some(probe) = self.probe.take_if(|p| p.id == id) else { return false };
        self.datagram_bytes = probe.datagram_bytes;
        self.large_losses = 0;
        self.start(timers, now);
        true
    }

    /// Whether a packet with this payload is one that a path of the base size does not carry.
    pub(crate) fn is_large(payload_bytes: usize) -> bool {
        payload_bytes + HEADER_BYTES + TAG_BYTES + ROUTING_HEADER_BYTES > BASE_DATAGRAM_BYTES
    }

    /// A large packet was lost and the peer is there, once more in a row. True if packets must be
    /// smaller now; the search begins again, since a step in between may still pass.
    pub(crate) fn on_large_loss(&mut self, timers: &mut TimerTable, now: Instant) -> bool {
        self.large_losses += 1;
        self.large_losses >= MTU_BLACK_HOLE_RTOS && self.restart(timers, now)
    }

    /// A large packet arrived.
    pub(crate) fn on_large_progress(&mut self) {
        self.ping = None;
        self.large_losses = 0;
    }

    /// Begins from the base size. True if packets must be smaller now.
    pub(crate) fn restart(&mut self, timers: &mut TimerTable, now: Instant) -> bool {
        let was_larger = self.datagram_bytes > BASE_DATAGRAM_BYTES;
        self.large_losses = 0;
        self.datagram_bytes = BASE_DATAGRAM_BYTES;
        self.start(timers, now);
        was_larger
    }

    /// The probe under way is lost, or the pause of the search is over.
    pub(crate) fn on_timeout(&mut self, timers: &mut TimerTable, now: Instant) {
        match &mut self.probe {
            None => self.start(timers, now),
            Some(probe) if probe.attempts < MTU_PROBE_ATTEMPTS => probe.is_sent = false,
            Some(_) => {
                self.probe = None;
                timers.set(Timer::MtuProbe, now + MTU_REPROBE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(50);
    const START: Instant = Instant::ZERO;

    /// A search that has begun.
    fn searching(peer_max: u16) -> (Mtu, TimerTable) {
        let (mut mtu, mut timers) = (Mtu::new(peer_max), TimerTable::default());
        mtu.start(&mut timers, START);
        (mtu, timers)
    }

    #[test]
    fn climbs_while_probes_are_answered_and_stops_at_the_peer_limit() {
        let (mut mtu, mut timers) = searching(4_096);
        assert_eq!((mtu.packet_bytes(), timers.next()), (1_214, None));
        for expected in [1_392, 1_452, 4_096] {
            let (id, bytes) = mtu.poll_probe(&mut timers, START, WAIT).unwrap();
            assert_eq!(bytes, expected - 18);
            assert_eq!(timers.get(Timer::MtuProbe), Some(START + WAIT));
            mtu.on_answer(&mut timers, START, id);
            assert_eq!(mtu.packet_bytes(), bytes);
        }
        assert_eq!(mtu.poll_probe(&mut timers, START, WAIT), None);
        assert_eq!(timers.get(Timer::MtuProbe), Some(START + MTU_REPROBE));
        mtu.on_timeout(&mut timers, START + MTU_REPROBE);
        assert_eq!(timers.get(Timer::MtuProbe), Some(START + MTU_REPROBE * 2));
    }

    #[test]
    fn three_lost_probes_end_the_search_and_foreign_answers_are_ignored() {
        let (mut mtu, mut timers) = searching(8_210);
        let mut now = START;
        for _ in 0..3 {
            assert!(mtu.poll_probe(&mut timers, now, WAIT).is_some());
            mtu.on_answer(&mut timers, now, 999);
            now += WAIT;
            assert!(timers.take_due(Timer::MtuProbe, now));
            mtu.on_timeout(&mut timers, now);
        }
        assert_eq!(mtu.poll_probe(&mut timers, now, WAIT), None);
        assert_eq!(timers.get(Timer::MtuProbe), Some(now + MTU_REPROBE));
        assert_eq!(mtu.packet_bytes(), 1_214);
        mtu.on_timeout(&mut timers, now + MTU_REPROBE);
        assert!(mtu.poll_probe(&mut timers, now, WAIT).is_some());
    }

    #[test]
    fn repeated_losses_of_large_packets_fall_back_to_the_base_size_and_search_again() {
        let (mut mtu, mut timers) = searching(8_210);
        let (id, _) = mtu.poll_probe(&mut timers, START, WAIT).unwrap();
        assert!(mtu.on_answer(&mut timers, START, id));
        assert!(!mtu.on_large_loss(&mut timers, START));
        assert!(!mtu.on_large_loss(&mut timers, START));
        mtu.on_large_progress();
        assert!(!mtu.on_large_loss(&mut timers, START));
        assert!(!mtu.on_large_loss(&mut timers, START));
        assert_eq!(mtu.packet_bytes(), 1_374);
        assert!(mtu.on_large_loss(&mut timers, START));
        assert_eq!(mtu.packet_bytes(), 1_214);
        let probe = mtu.poll_probe(&mut timers, START, WAIT);
        assert_eq!(probe.map(|(_, bytes)| bytes), Some(1_374));
        for _ in 0..3 {
            let (first, second) = (mtu.ping(), mtu.ping());
            mtu.datagram_bytes = 1_452;
            assert!(!mtu.on_answer(&mut timers, START, first), "an older question");
            mtu.on_answer(&mut timers, START, second);
        }
        assert_eq!(mtu.packet_bytes(), 1_214);
        assert!(Mtu::is_large(1_135) && !Mtu::is_large(1_134));
    }
}
