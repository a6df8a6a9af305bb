//! Two nodes and an attacker who owns the network between them and is a member of the mesh:
//! it drops, repeats, changes, redirects and invents datagrams, and dials with keys of its own.
//! Nothing panics, and once it stops the two nodes agree on a session again.

#![no_main]

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;

use aspen_fuzz::Choices;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use net_crypto::{EntityKeypair, Initiator, MacKeys, MeshSecret};
use net_mesh_core::{CloseReason, Endpoint, EndpointConfig, Event, SessionEvent, StreamConfig};
use net_types::{EntityId, Instant, PeerAddr, SessionId};
use net_wire::{Features, HELLO_BYTES, Header, Hello, Kind};

/// Steps of one attack, and datagrams that the attacker keeps.
const MAX_STEPS: usize = 256;
const MAX_KEPT: usize = 128;

#[derive(Clone)]
struct Datagram {
    from: SocketAddr,
    to: usize,
    bytes: Vec<u8>,
}

struct Scene {
    now: Instant,
    nodes: [Endpoint; 2],
    in_flight: VecDeque<Datagram>,
    kept: VecDeque<Datagram>,
}

fn addr(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node as u8], 4_000))
}

fn keys(node: usize) -> EntityKeypair {
    EntityKeypair::from_seed([node as u8 + 1; 32])
}

fn peer(node: usize) -> PeerAddr {
    PeerAddr::direct(keys(node).entity_id(), addr(node))
}

fn secret() -> MeshSecret {
    MeshSecret::new([9; 32])
}

impl Scene {
    fn new() -> Self {
        let now = Instant::ZERO;
        let node = |node| {
            let mut config = EndpointConfig::new(keys(node), secret());
            config.offer_aes = false;
            Endpoint::new(now, config, [node as u8; 32]).expect("plain settings")
        };
        let (in_flight, kept) = (VecDeque::new(), VecDeque::new());
        Self { now, nodes: [node(0), node(1)], in_flight, kept }
    }

    /// Takes what the nodes send and lets their applications take what arrived.
    fn drain(&mut self) {
        let mut out = Vec::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            while let Some(transmit) = {
                out.clear();
                node.poll_transmit(self.now, &mut out, 8)
            } {
                let Some(to) = (0..2).find(|node| addr(*node) == transmit.to) else { continue };
                for bytes in out.chunks(transmit.segment_bytes.max(1)) {
                    let datagram = Datagram { from: addr(index), to, bytes: bytes.to_vec() };
                    self.in_flight.push_back(datagram);
                }
            }
            while let Some(event) = node.poll_event() {
                if let Event::Session { session, event, .. } = event
                    && let SessionEvent::Message { stream_id, credit, .. } = event
                {
                    node.consume(self.now, session, stream_id, credit);
                }
            }
        }
        while self.in_flight.len() > MAX_KEPT {
            self.in_flight.pop_front();
        }
    }

    fn deliver(&mut self, datagram: &Datagram) {
        let mut bytes = datagram.bytes.clone();
        self.nodes[datagram.to].handle_datagram(self.now, datagram.from, &mut bytes);
        self.drain();
    }

    fn advance(&mut self, time: Duration) {
        self.now += time;
        for node in &mut self.nodes {
            if node.next_timeout().is_some_and(|at| at <= self.now) {
                node.handle_timeout(self.now);
            }
        }
        self.drain();
    }

    fn dial(&mut self, from: usize) {
        let now = self.now;
        let _ = self.nodes[from].dial(now, &peer(1 - from));
        self.drain();
    }

    fn session(&self, node: usize) -> Option<SessionId> {
        self.nodes[node].live_session(keys(1 - node).entity_id().node_id())
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() % 12 {
            0 => self.advance(Duration::from_millis(choices.number().min(20_000))),
            1 => self.dial(usize::from(choices.byte() % 2)),
            2..=4 => {
                if let Some(datagram) = self.in_flight.pop_front() {
                    if self.kept.len() == MAX_KEPT {
                        self.kept.pop_front();
                    }
                    self.kept.push_back(datagram.clone());
                    self.deliver(&datagram);
                }
            }
            5 => drop(self.in_flight.pop_front()),
            6 => self.in_flight.rotate_left(1.min(self.in_flight.len())),
            7 => self.repeat(choices),
            8 => self.change(choices),
            9 => self.invent(choices),
            10 => self.dial_as_member(choices),
            _ => self.use_session(choices),
        }
    }

    /// Something seen before, to either node, from any address.
    fn repeat(&mut self, choices: &mut Choices<'_>) {
        let index = usize::from(choices.byte()) % self.kept.len().max(1);
        let Some(seen) = self.kept.get(index) else { return };
        let source = usize::from(choices.byte() % 4);
        let datagram = Datagram { from: addr(source), to: source % 2, ..seen.clone() };
        self.deliver(&datagram);
    }

    /// The next datagram with bytes replaced, cut or extended.
    fn change(&mut self, choices: &mut Choices<'_>) {
        let Some(mut datagram) = self.in_flight.pop_front() else { return };
        match choices.byte() % 3 {
            0 => datagram.bytes.truncate(usize::from(choices.u16())),
            1 => datagram.bytes.extend_from_slice(choices.block()),
            _ => {
                let at = usize::from(choices.u16()) % datagram.bytes.len().max(1);
                if let Some(byte) = datagram.bytes.get_mut(at) {
                    *byte ^= choices.byte();
                }
            }
        }
        self.deliver(&datagram);
    }

    /// Arbitrary bytes, behind a well-formed header or not.
    fn invent(&mut self, choices: &mut Choices<'_>) {
        let to = usize::from(choices.byte() % 2);
        let mut bytes = Vec::new();
        if let Ok(kind) = Kind::from_wire(choices.byte()) {
            let id = self.session(to).unwrap_or(SessionId(choices.number()));
            bytes.extend_from_slice(&Header::new(kind, id, choices.number()).encode());
        }
        bytes.extend_from_slice(choices.block());
        self.deliver(&Datagram { from: addr(usize::from(choices.byte() % 4)), to, bytes });
    }

    /// A handshake of a member with keys of its own, which claims what it likes.
    fn dial_as_member(&mut self, choices: &mut Choices<'_>) {
        let to = usize::from(choices.byte() % 2);
        let member = EntityKeypair::from_seed([choices.byte() | 0x80; 32]);
        let id = keys(to).entity_id();
        let entity_id = match choices.byte() % 4 {
            0 => keys(1 - to).entity_id(),
            1 => EntityId([choices.byte(); 32]),
            _ => member.entity_id(),
        };
        let hello = Hello {
            entity_id,
            generation: 0,
            features: Features(choices.number()),
            subnet: 0,
            max_datagram_bytes: choices.u16(),
            observed: None,
        };
        let payload = match choices.byte() % 4 {
            0 => {
                let mut payload = choices.bytes(HELLO_BYTES).to_vec();
                payload.resize(HELLO_BYTES, 0);
                payload
            }
            _ => hello.encode_init(),
        };
        let seed = [choices.byte(); 32];
        let Ok((_, noise)) = Initiator::start(&member, &id, &secret(), seed, &payload) else {
            return;
        };
        let mut header = Header::new(Kind::HandshakeInit, SessionId(choices.number()), 0);
        header.payload_len = noise.len() as u16;
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(&noise);
        let mac1 = MacKeys::new(&secret(), &id).mac1(&bytes);
        bytes.extend_from_slice(&mac1);
        bytes.extend_from_slice(&[choices.byte(); 16]);
        self.deliver(&Datagram { from: addr(2), to, bytes });
    }

    fn use_session(&mut self, choices: &mut Choices<'_>) {
        let node = usize::from(choices.byte() % 2);
        let Some(session) = self.session(node) else { return };
        let now = self.now;
        if choices.byte() % 8 == 0 {
            self.nodes[node].close_session(now, session, CloseReason::Disconnected);
        } else if let Ok(stream) =
            self.nodes[node].open_stream(now, session, StreamConfig::default())
        {
            let message = Bytes::copy_from_slice(choices.block());
            let _ = self.nodes[node].send(now, session, stream, message);
        }
        self.drain();
    }

    /// Lets a faultless network run until both nodes use one session; they dial when they have
    /// none.
    fn must_recover(&mut self) {
        self.in_flight.clear();
        for _ in 0..3_000 {
            while let Some(datagram) = self.in_flight.pop_front() {
                self.deliver(&datagram);
            }
            let sessions = [self.session(0), self.session(1)];
            if sessions[0].is_some() && sessions[0] == sessions[1] {
                return;
            }
            (0..2).filter(|node| sessions[*node].is_none()).for_each(|node| self.dial(node));
            self.advance(Duration::from_millis(20));
        }
        panic!("no common session after a minute: {:?} {:?}", self.session(0), self.session(1));
    }
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let mut scene = Scene::new();
    scene.dial(0);
    for _ in 0..MAX_STEPS {
        if choices.is_empty() {
            break;
        }
        scene.step(&mut choices);
    }
    scene.must_recover();
});
