//! Protocols in a node's table hear of their own streams and of every peer, and no more.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use net_crypto::Seeded;
use net_mesh_core::{
    Cx, DropReason, Endpoint, Entry, Mesh, Message, PeerEvent, Protocol, Protocols, ResetReason,
    StreamConfig, StreamEvent, StreamRef, Subprotocol,
};
use net_sim::{Host, HostId, LinkConfig, Transmit, World};
use net_types::{Instant, SessionId, StreamId};

use crate::node::{addr, config, peer};
use crate::world::{A, B, bad_link, millis, secs};

const PULSES: Subprotocol = Subprotocol(0x8001);
const OTHERS: Subprotocol = Subprotocol(0x8002);
const INTERVAL: Duration = Duration::from_millis(100);

/// Sends a numbered pulse on each session that it dialled, every [`INTERVAL`], and sends back the
/// pulses of others.
#[derive(Default)]
struct Pulses {
    streams: Vec<(SessionId, StreamId)>,
    next_at: Option<Instant>,
    sent: u32,
    echoed: Vec<Bytes>,
    events: Vec<StreamEvent>,
    peers: Vec<PeerEvent>,
    is_closed: bool,
    /// Whether it waits for something on draining sessions.
    is_waiting: bool,
}

impl Pulses {
    fn pulse(&mut self, cx: &mut Cx<'_>) {
        self.sent += 1;
        for (session, stream) in &self.streams {
            cx.send(*session, *stream, Bytes::from(self.sent.to_le_bytes().to_vec())).unwrap();
        }
        self.next_at = Some(cx.now() + INTERVAL);
    }
}

impl Protocol for Pulses {
    fn on_message(&mut self, cx: &mut Cx<'_>, stream: StreamRef, message: Message) {
        assert_eq!(stream.subprotocol, PULSES);
        cx.consume(stream.session, stream.id, message.credit);
        if self.streams.contains(&(stream.session, stream.id)) {
            self.echoed.push(message.bytes);
        } else {
            cx.send(stream.session, stream.id, message.bytes).unwrap();
        }
    }

    fn on_stream(&mut self, _cx: &mut Cx<'_>, stream: StreamRef, event: StreamEvent) {
        assert_eq!(stream.subprotocol, PULSES);
        self.events.push(event);
        if matches!(event, StreamEvent::Reset { .. }) {
            self.streams.retain(|known| *known != (stream.session, stream.id));
        }
    }

    fn on_peer(&mut self, cx: &mut Cx<'_>, event: &PeerEvent) {
        self.peers.push(*event);
        match *event {
            PeerEvent::Up { session, is_initiator: true, .. } => {
                let config = StreamConfig { subprotocol: PULSES, ..StreamConfig::default() };
                self.streams.push((session, cx.open_stream(session, config).unwrap()));
                self.pulse(cx);
            }
            PeerEvent::Down { session, .. } => self.streams.retain(|(of, _)| *of != session),
            PeerEvent::Up { .. } | PeerEvent::DialFailed { .. } => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.next_at
    }

    fn on_timeout(&mut self, cx: &mut Cx<'_>) {
        self.pulse(cx);
    }

    fn needs_session(&self, _session: SessionId) -> bool {
        self.is_waiting
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>) {
        self.is_closed = true;
    }
}

/// Keeps what arrives.
#[derive(Default)]
struct Inbox(Vec<Bytes>);

impl Protocol for Inbox {
    fn on_message(&mut self, _cx: &mut Cx<'_>, stream: StreamRef, message: Message) {
        assert_eq!(stream.subprotocol, OTHERS);
        self.0.push(message.bytes);
    }

    fn on_stream(&mut self, _cx: &mut Cx<'_>, _stream: StreamRef, _event: StreamEvent) {}

    fn on_peer(&mut self, _cx: &mut Cx<'_>, _event: &PeerEvent) {}
}

struct MeshHost {
    mesh: Mesh,
    pulses: Option<Entry<Pulses>>,
    inbox: Entry<Inbox>,
}

impl MeshHost {
    fn new(now: Instant, seed: u64, i: u8, has_pulses: bool) -> Self {
        let mut rng = Seeded::from_u64(seed ^ (u64::from(i) << 32));
        let endpoint = Endpoint::new(now, config(i), rng.seed_32()).unwrap();
        let mut protocols = Protocols::default();
        let pulses = has_pulses.then(|| protocols.add([PULSES..=PULSES], Pulses::default()));
        // Where both have a number, it belongs to the first.
        let first = if has_pulses { PULSES } else { OTHERS };
        let inbox = protocols.add([first..=OTHERS], Inbox::default());
        Self { mesh: Mesh::new(endpoint, rng, protocols), pulses, inbox }
    }

    fn pulses(&self) -> &Pulses {
        self.mesh.get(self.pulses.unwrap())
    }
}

impl Host for MeshHost {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        self.mesh.handle_datagram(now, from, datagram);
        self.mesh.process(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.mesh.handle_timeout(now);
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let mut bytes = Vec::new();
        let sent = self.mesh.poll_transmit(now, &mut bytes, 64);
        self.mesh.process(now);
        self.mesh.check_invariants();
        let sent = sent?;
        Some(Transmit { to: sent.to, bytes, segment_bytes: Some(sent.segment_bytes) })
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.mesh.next_timeout()
    }
}

/// Node 1 with pulses and node 2, which node 1 dials.
fn world(seed: u64, link: LinkConfig, has_second_pulses: bool) -> World<MeshHost> {
    let mut net = World::new(seed, link);
    for (i, has_pulses) in [(1, true), (2, has_second_pulses)] {
        let host = MeshHost::new(net.now(), seed, i, has_pulses);
        net.add_host(addr(i), host);
    }
    act(&mut net, A, |host, now| host.mesh.endpoint_mut().dial(now, &peer(2)).unwrap());
    net
}

fn act<T>(
    net: &mut World<MeshHost>,
    id: HostId,
    call: impl FnOnce(&mut MeshHost, Instant) -> T,
) -> T {
    let now = net.local_now(id);
    call(net.host_mut(id), now)
}

#[test]
fn a_protocol_with_a_timer_exchanges_messages_with_its_peer() {
    net_sim::seeds!(20, |seed| {
        let mut net = world(seed, bad_link(), true);
        net.run_until(secs(60), |net| net.host(A).pulses().echoed.len() >= 20).unwrap();
        let host = net.host(A);
        let mut echoed = host.pulses().echoed.clone();
        echoed.sort();
        echoed.dedup();
        assert_eq!(echoed.len(), host.pulses().echoed.len(), "a pulse came back twice");
        assert!(host.pulses().events.is_empty());
        // Node 2 heard of the stream, and neither of its protocols of the other's.
        let events = &net.host(B).pulses().events;
        assert!(matches!(events[..], [StreamEvent::Opened { .. }]), "{events:?}");
        assert!(net.host(B).mesh.get(net.host(B).inbox).0.is_empty());
        assert_eq!(net.host(B).mesh.endpoint().counters().drops(DropReason::UnknownSubprotocol), 0);
    });
}

#[test]
fn a_number_that_is_not_in_the_table_is_refused() {
    let mut net = world(1, LinkConfig::with_latency(millis(5)), false);
    net.run_until(secs(5), |net| !net.host(A).pulses().events.is_empty()).unwrap();
    let refused = StreamEvent::Reset { reason: ResetReason::Refused, by_peer: true };
    assert_eq!(net.host(A).pulses().events, [refused]);
    let counters = net.host(B).mesh.endpoint().counters();
    assert_eq!(counters.drops(DropReason::UnknownSubprotocol), 1);
    assert!(net.host(B).mesh.get(net.host(B).inbox).0.is_empty());
}

#[test]
fn a_session_that_was_replaced_lives_while_a_protocol_needs_it() {
    let mut net = world(1, LinkConfig::with_latency(millis(5)), true);
    net.run_until(secs(5), |net| net.host(A).pulses().echoed.len() == 2).unwrap();
    let pulses = net.host(A).pulses.unwrap();
    for id in [A, B] {
        act(&mut net, id, |host, now| host.mesh.with(now, pulses, |p, _| p.is_waiting = true));
    }
    act(&mut net, A, |host, now| host.mesh.endpoint_mut().dial(now, &peer(2)).unwrap());
    net.run_until(secs(5), |net| net.host(A).pulses().peers.len() == 2).unwrap();
    net.run_for(secs(2)).unwrap();
    assert_eq!(net.host(A).mesh.endpoint().population().sessions, 2);
    assert_eq!(net.host(A).pulses().streams.len(), 2);
    for id in [A, B] {
        act(&mut net, id, |host, now| {
            host.mesh.with(now, pulses, |p, _| {
                p.is_waiting = false;
                p.next_at = None;
            });
        });
    }
    let is_down = |event: &PeerEvent| matches!(event, PeerEvent::Down { .. });
    net.run_until(secs(60), |net| net.host(A).pulses().peers.iter().any(is_down)).unwrap();
    assert_eq!(net.host(A).pulses().streams.len(), 1);
    act(&mut net, A, |host, now| host.mesh.close(now));
    assert!(net.host(A).pulses().is_closed && net.host(A).pulses().streams.is_empty());
}
