//! Datagrams out: handshake packets first, then the sessions in turn, in batches of equal size.
//!
//! Invariants: the datagrams of a batch have one destination and one size, except for the last,
//! which may be shorter; a packet that is built leaves, if not with its batch then next; a session
//! leaves the line once it has nothing to send, and then its timer is armed.

use net_session::{Context, Path};
use net_types::limits::{MAX_BATCH_SIZE, MAX_HOPS};
use net_types::{Instant, NodeId};
use net_wire::RoutingHeader;

use crate::Endpoint;
use crate::timers::Timer;

/// Largest sum of datagrams in one socket call with segmentation offload: what one IPv4 packet
/// holds beside its headers. Eight full packets of the largest path fit.
const MAX_BATCH_BYTES: usize = u16::MAX as usize - 20 - 8;

/// Datagrams for one destination that [`Endpoint::poll_transmit`] appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where they go.
    pub to: core::net::SocketAddr,
    /// Bytes of all of them.
    pub len: usize,
    /// Bytes of each but the last, which may be shorter.
    pub segment_bytes: usize,
}

/// A packet that was built but did not fit its batch.
pub(crate) struct Carry {
    bytes: Vec<u8>,
    transmit: Transmit,
}

impl Endpoint {
    /// Appends the next datagrams to `out`, at most `max_segments` of one size to one destination,
    /// or returns `None` when there is nothing to send now.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        max_segments: usize,
    ) -> Option<Transmit> {
        if let Some(carry) = self.carry.take() {
            out.extend_from_slice(&carry.bytes);
            return Some(carry.transmit);
        }
        if let Some((path, peer, packet)) = self.handshakes.outbox.pop_front() {
            let start = out.len();
            self.write_routing(path, peer, out);
            out.extend_from_slice(&packet);
            return Some(Transmit::one(path, out.len() - start));
        }
        while let Some(slot) = self.sessions.next_ready() {
            let batch = self.poll_batch(now, slot, out, max_segments);
            if !self.scratch.is_empty() {
                self.forward_events(now, slot);
            }
            if batch.is_some() {
                self.sessions.rotate_ready();
                return batch;
            }
            self.sessions.pop_ready();
            self.after_idle(slot);
        }
        #[cfg(debug_assertions)]
        self.check_invariants();
        None
    }

    fn after_idle(&mut self, slot: usize) {
        if let Some(at) = self.sessions.get(slot).and_then(|s| s.session.next_timeout()) {
            self.timers.arm(Timer::Session(slot), at);
        }
        self.remove_if_closed(slot);
    }

    fn write_routing(&self, path: Path, peer: NodeId, out: &mut Vec<u8>) {
        if path.is_routed {
            let header = RoutingHeader { ttl: MAX_HOPS, destination: peer, source: self.node_id };
            out.extend_from_slice(&header.encode());
        }
    }

    fn poll_batch(
        &mut self,
        now: Instant,
        slot: usize,
        out: &mut Vec<u8>,
        max_segments: usize,
    ) -> Option<Transmit> {
        let start = out.len();
        let mut batch = self.poll_one(now, slot, out)?;
        let mut segments = 1;
        let max_segments = max_segments.min(MAX_BATCH_SIZE);
        while segments < max_segments && batch.len + batch.segment_bytes <= MAX_BATCH_BYTES {
            let before = out.len();
            let Some(next) = self.poll_one(now, slot, out) else { break };
            let fits = next.to == batch.to && next.len <= batch.segment_bytes;
            if !fits {
                self.carry = Some(Carry { bytes: out.split_off(before), transmit: next });
                break;
            }
            segments += 1;
            batch.len = out.len() - start;
            if next.len < batch.segment_bytes {
                break;
            }
        }
        Some(batch)
    }

    fn poll_one(&mut self, now: Instant, slot: usize, out: &mut Vec<u8>) -> Option<Transmit> {
        let entry = self.sessions.get_mut(slot)?;
        let start = out.len();
        let routing =
            RoutingHeader { ttl: MAX_HOPS, destination: entry.peer, source: self.node_id };
        let is_routed = entry.session.path().is_routed;
        if is_routed {
            out.extend_from_slice(&routing.encode());
        }
        let (rng, counters) = (&mut self.rng, &mut self.counters);
        let mut ctx = Context { now, rng, counters, events: &mut self.scratch };
        let sent = entry.session.poll_packet(&mut ctx, out);
        let Some(sent) = sent else {
            out.truncate(start);
            return None;
        };
        if sent.to.is_routed != is_routed {
            // A challenge may leave by the other kind of path than the session's.
            let packet = out.split_off(out.len() - sent.len);
            out.truncate(start);
            if sent.to.is_routed {
                out.extend_from_slice(&routing.encode());
            }
            out.extend_from_slice(&packet);
        }
        Some(Transmit::one(sent.to, out.len() - start))
    }
}

impl Transmit {
    fn one(path: Path, len: usize) -> Self {
        Self { to: path.addr, len, segment_bytes: len }
    }
}
