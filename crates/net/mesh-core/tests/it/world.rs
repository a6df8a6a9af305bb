//! Worlds of nodes, relays and listeners, and the checks that all themes share.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use net_mesh_core::{StreamConfig, StreamMode};
use net_sim::{Host, HostClock, HostId, LinkConfig, SimRng, Transmit, World};
use net_types::{Instant, NodeId};
use net_wire::RoutingHeader;

use crate::node::{SimNode, addr, node_id, peer};

/// The first two hosts, which are nodes 1 and 2 unless a test says otherwise.
pub(crate) const A: HostId = HostId(0);
pub(crate) const B: HostId = HostId(1);

/// What a host may be.
pub(crate) enum Actor {
    Node(Box<SimNode>),
    Relay(Relay),
    Listener(Listener),
}

/// Forwards datagrams by their routing header and understands nothing else.
pub(crate) struct Relay {
    routes: BTreeMap<NodeId, SocketAddr>,
    pub(crate) forwarded: usize,
    out: VecDeque<Transmit>,
}

/// Records what reaches an address and never answers.
#[derive(Default)]
pub(crate) struct Listener {
    pub(crate) heard: Vec<Vec<u8>>,
}

impl Host for Actor {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        match self {
            Self::Node(node) => node.handle_datagram(now, from, datagram),
            Self::Relay(relay) => relay.forward(datagram),
            Self::Listener(listener) => listener.heard.push(datagram.to_vec()),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Self::Node(node) = self {
            node.handle_timeout(now);
        }
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        match self {
            Self::Node(node) => node.poll_transmit(now),
            Self::Relay(relay) => relay.out.pop_front(),
            Self::Listener(_) => None,
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::Node(node) => node.next_timeout(),
            Self::Relay(_) | Self::Listener(_) => None,
        }
    }
}

impl Relay {
    pub(crate) fn new(routes: BTreeMap<NodeId, SocketAddr>) -> Self {
        Self { routes, forwarded: 0, out: VecDeque::new() }
    }

    fn forward(&mut self, datagram: &[u8]) {
        let Ok(mut header) = RoutingHeader::decode(datagram) else { return };
        let Some(&to) = self.routes.get(&header.destination) else { return };
        header.ttl -= 1;
        let mut bytes = datagram.to_vec();
        bytes[..18].copy_from_slice(&header.encode());
        self.forwarded += 1;
        self.out.push_back(Transmit { to, bytes, segment_bytes: None });
    }
}

pub(crate) type Net = World<Actor>;

pub(crate) fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

pub(crate) fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A link of 10 ms each way that loses, copies and reorders.
pub(crate) fn bad_link() -> LinkConfig {
    LinkConfig {
        loss_ppm: 100_000,
        duplicate_ppm: 20_000,
        reorder_ppm: 50_000,
        jitter: millis(5),
        ..LinkConfig::with_latency(millis(10))
    }
}

/// A world without hosts whose trace keeps few lines.
pub(crate) fn empty(seed: u64, link: LinkConfig) -> Net {
    let mut net = World::new(seed, link);
    net.trace().keep(200);
    net
}

/// Adds a node whose clock shows something else than the others'.
pub(crate) fn add(net: &mut Net, i: u8, make: impl FnOnce(Instant) -> SimNode) -> HostId {
    let clock = HostClock { offset: secs(1_000 * u64::from(i)), drift_ppm: 0 };
    let node = make(clock.local(net.now()));
    net.add_host_with_clock(addr(i), clock, Actor::Node(Box::new(node)))
}

/// Nodes 1 to `count`, which do not know each other.
pub(crate) fn nodes(seed: u64, link: LinkConfig, count: u8) -> Net {
    let mut net = empty(seed, link);
    for i in 1..=count {
        add(&mut net, i, |now| SimNode::new(now, seed, i));
    }
    net
}

pub(crate) fn node(net: &Net, id: HostId) -> &SimNode {
    match net.host(id) {
        Actor::Node(node) => node,
        _ => panic!("{id} is not a node"),
    }
}

/// Acts on a node at its own time.
pub(crate) fn act<T>(
    net: &mut Net,
    id: HostId,
    call: impl FnOnce(&mut SimNode, Instant) -> T,
) -> T {
    let now = net.local_now(id);
    match net.host_mut(id) {
        Actor::Node(node) => call(node, now),
        _ => panic!("{id} is not a node"),
    }
}

pub(crate) fn dial(net: &mut Net, from: HostId, to: u8) {
    act(net, from, |node, now| node.endpoint.dial(now, &peer(to)).unwrap());
}

/// Whether hosts `A` and `B`, nodes 1 and 2, use one session.
pub(crate) fn agree(net: &Net) -> bool {
    let session = node(net, A).session_with(2);
    session.is_some() && session == node(net, B).session_with(1)
}

/// Node 1 dials node 2 and both are connected.
pub(crate) fn connected(seed: u64, link: LinkConfig) -> Net {
    let mut net = nodes(seed, link, 2);
    connect(&mut net);
    net
}

pub(crate) fn connect(net: &mut Net) {
    dial(net, A, 2);
    net.run_until(secs(5), |net| agree(net)).unwrap();
}

/// Runs until all messages that `to` is to get are there.
pub(crate) fn run_until_received(net: &mut Net, to: HostId, count: usize, limit: Duration) {
    let result = net.run_until(limit, |net| node(net, to).messages.len() >= count);
    assert!(
        result.is_ok(),
        "{} of {count} messages after {limit:?}; events {:?}",
        node(net, to).messages.len(),
        node(net, to).events,
    );
}

/// Bytes that follow from a number.
pub(crate) fn message(seed: u64, len: usize) -> Bytes {
    let mut rng = SimRng::new(seed, "message");
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

pub(crate) fn messages(seed: u64, lens: impl IntoIterator<Item = usize>) -> Vec<Bytes> {
    lens.into_iter().enumerate().map(|(i, len)| message(seed ^ ((i as u64) << 40), len)).collect()
}

/// Fails unless both lists hold the same messages, in the same order if it matters.
pub(crate) fn assert_same_messages(sent: &[Bytes], received: &[Bytes], is_ordered: bool) {
    let order = |list: &[Bytes]| {
        let mut list = list.to_vec();
        if !is_ordered {
            list.sort();
        }
        list
    };
    let (sent, received) = (order(sent), order(received));
    assert_eq!(sent.len(), received.len(), "messages sent and received");
    let wrong = sent.iter().zip(&received).position(|(s, r)| s != r);
    assert_eq!(wrong, None, "the first message that differs");
}

pub(crate) fn ordered(window_bytes: u32) -> StreamConfig {
    StreamConfig { mode: StreamMode::ORDERED, window_bytes, ..StreamConfig::default() }
}

pub(crate) fn reliable(window_bytes: u32) -> StreamConfig {
    StreamConfig { window_bytes, ..StreamConfig::default() }
}

pub(crate) fn fire_and_forget() -> StreamConfig {
    StreamConfig { mode: StreamMode::FIRE_AND_FORGET, ..StreamConfig::default() }
}

/// Both sides hold nothing but one session.
pub(crate) fn assert_quiet(net: &Net) {
    for (id, other) in [(A, 2), (B, 1)] {
        let population = node(net, id).endpoint.population();
        assert_eq!((population.sessions, population.provisional, population.dials), (1, 0, 0));
        assert_eq!(population.timers, 1);
        let session = node(net, id).endpoint.live_session(node_id(other)).unwrap();
        let stats = node(net, id).endpoint.session_stats(session).unwrap();
        assert_eq!((stats.in_flight_packets, stats.streams), (0, 0));
    }
}
