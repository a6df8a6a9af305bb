//! The answering side of a handshake: from an Init to a provisional session.
//!
//! Invariants: an Init costs curve operations only after its mac1 verified and the pacer admitted
//! it; while an Init is remembered, it makes one session at most; its Response goes nowhere but to
//! where the Init came from.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use net_crypto::{EPHEMERAL_BYTES, MAC_BYTES, Responder, RngCore, x25519_public};
use net_session::{DropReason, Path, Session, SessionParams};
use net_types::limits::{
    HANDSHAKE_YIELD, MAX_PROVISIONAL_PER_PEER, MAX_PROVISIONAL_SESSIONS, MAX_SESSIONS,
    SESSION_TIMEOUT,
};
use net_types::{EntityId, Instant, NodeId, SessionId};
use net_wire::{CookieReply, Header, Hello, InitPacket, Kind};

use crate::{CloseReason, Endpoint};

/// Round trip assumed until the first heartbeat tells.
const FIRST_RTT: Duration = Duration::from_millis(50);
/// Inits remembered after their session ended, so that a replay costs no curve operations.
const MAX_REMEMBERED: usize = 4_096;

/// An Init that was answered.
struct Answer {
    /// Where it came from and the only place where its Response goes: that the session's keys are
    /// then proved shows that the peer is there.
    path: Path,
    peer: NodeId,
    /// The Response, to be repeated while its session is provisional; `None` afterwards.
    response: Option<Vec<u8>>,
}

/// The Inits that were answered, by their ephemeral key.
#[derive(Default)]
pub(crate) struct Answered {
    answers: BTreeMap<[u8; EPHEMERAL_BYTES], Answer>,
    order: VecDeque<[u8; EPHEMERAL_BYTES]>,
}

impl Answered {
    /// Asserts that every Init that is remembered is forgotten in its turn.
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.answers.len(), self.order.len());
        assert!(self.order.len() <= MAX_REMEMBERED);
    }

    fn insert(&mut self, ephemeral: [u8; EPHEMERAL_BYTES], answer: Answer) {
        if self.order.len() >= MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
        self.order.push_back(ephemeral);
        self.answers.insert(ephemeral, answer);
    }

    /// The session is confirmed or gone: the Init is never answered again.
    pub(crate) fn finished(&mut self, ephemeral: &[u8; EPHEMERAL_BYTES]) {
        if let Some(answer) = self.answers.get_mut(ephemeral) {
            answer.response = None;
        }
    }
}

/// An unambiguous encoding of an address, under which cookies are made.
fn source_bytes(addr: SocketAddr) -> [u8; 18] {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut out = [0u8; 18];
    out[..16].copy_from_slice(&ip.octets());
    out[16..].copy_from_slice(&addr.port().to_le_bytes());
    out
}

impl Endpoint {
    pub(crate) fn on_init(&mut self, now: Instant, path: Path, header: &Header, packet: &[u8]) {
        let Ok(init) = InitPacket::split(packet) else {
            return self.counters.dropped(DropReason::Malformed);
        };
        let own = self
            .handshakes
            .own_macs
            .iter()
            .position(|m| m.verify_mac1(init.mac1_input, &init.mac1));
        let Some(secret) = own else {
            return self.counters.dropped(DropReason::HandshakeMac);
        };
        let Some(ephemeral) = init.noise.first_chunk::<EPHEMERAL_BYTES>().copied() else {
            return self.counters.dropped(DropReason::Malformed);
        };
        let is_known = match self.handshakes.answered.answers.get(&ephemeral) {
            None => false,
            Some(answer) if answer.path == path && answer.response.is_some() => true,
            Some(_) => return self.counters.dropped(DropReason::HandshakeReplay),
        };
        let source = path.addr.ip();
        if !self.handshakes.pacer.admit(now, source) {
            if !self.has_cookie(now, path, &init) {
                self.counters.dropped(DropReason::HandshakePaced);
                return self.demand_cookie(now, path, header, secret, &init.mac1);
            }
            if !self.handshakes.pacer.admit_proved(now, source) {
                return self.counters.dropped(DropReason::HandshakePaced);
            }
        }
        if is_known {
            self.repeat_response(&ephemeral);
        } else {
            self.answer(now, path, header, secret, ephemeral, init.noise);
        }
    }

    fn repeat_response(&mut self, ephemeral: &[u8; EPHEMERAL_BYTES]) {
        if let Some(Answer { path, peer, response: Some(packet) }) =
            self.handshakes.answered.answers.get(ephemeral)
        {
            let (path, peer, packet) = (*path, *peer, packet.clone());
            self.handshakes.send(&mut self.counters, path, peer, packet);
        }
    }

    fn has_cookie(&self, now: Instant, path: Path, init: &InitPacket<'_>) -> bool {
        let source = source_bytes(path.addr);
        self.handshakes.cookies.verify_mac2(now, &source, init.mac2_input, &init.mac2)
    }

    fn demand_cookie(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        secret: usize,
        mac1: &[u8; MAC_BYTES],
    ) {
        // A relayed Init is answered by its relay's pace; its source is not an address.
        if path.is_routed {
            return;
        }
        let cookie = self.handshakes.cookies.cookie_for(now, &source_bytes(path.addr));
        let mut nonce = [0u8; 12];
        self.rng.fill_bytes(&mut nonce);
        let sealed = self.handshakes.own_macs[secret].seal_cookie(&cookie, &nonce, mac1);
        let mut packet = Header::new(Kind::CookieReply, header.session_id, 0).encode().to_vec();
        CookieReply { nonce, sealed }.encode(&mut packet);
        self.handshakes.send(&mut self.counters, path, NodeId(0), packet);
    }

    fn answer(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        secret: usize,
        ephemeral: [u8; EPHEMERAL_BYTES],
        noise: &[u8],
    ) {
        let (keys, seed) = (&self.config.identity, self.rng.seed_32());
        let read = Responder::read_init(keys, &self.config.secrets[secret], seed, noise);
        let Ok((responder, init)) = read else {
            return self.counters.dropped(DropReason::HandshakeNoise);
        };
        let Ok(hello) = Hello::decode_init(&init.payload) else {
            return self.counters.dropped(DropReason::HandshakeNoise);
        };
        let entity = hello.entity_id;
        // The key's Montgomery form is what the handshake proved; the entity id must be it.
        if x25519_public(&entity) != Ok(init.remote_static) || entity == self.entity {
            return self.counters.dropped(DropReason::HandshakeNoise);
        }
        if !self.config.policy.allows(&entity) || self.yields_to_own_dial(now, entity) {
            return self.counters.dropped(DropReason::HandshakeRefused);
        }
        let observed = (!path.is_routed).then_some(path.addr);
        let payload = self.hello(observed).encode_response();
        let Ok((established, message)) = responder.finish(&payload) else {
            return self.counters.dropped(DropReason::HandshakeNoise);
        };
        if !self.has_room_for(entity, established.session_id) {
            return self.counters.dropped(DropReason::HandshakeOverload);
        }
        let mut reply = Header::new(Kind::HandshakeResponse, header.session_id, 0);
        reply.payload_len = message.len() as u16;
        let mut packet = reply.encode().to_vec();
        packet.extend_from_slice(&message);
        let mac1 = self.handshakes.own_macs[secret].mac1(&packet);
        packet.extend_from_slice(&mac1);
        let params = SessionParams {
            id: established.session_id,
            own: self.entity,
            peer: entity,
            is_initiator: false,
            suite: self.suite(hello.features),
            send: established.send,
            receive: established.receive,
            path,
            peer_max_datagram_bytes: hello.max_datagram_bytes,
            first_rtt: FIRST_RTT,
            heartbeat_interval: self.config.heartbeat_interval,
        };
        let slot = self.insert(now, Session::provisional(now, params), Some(ephemeral));
        let answer = Answer { path, peer: entity.node_id(), response: Some(packet.clone()) };
        self.handshakes.answered.insert(ephemeral, answer);
        self.hold_provisional(now, entity, slot);
        self.handshakes.send(&mut self.counters, path, entity.node_id(), packet);
    }

    fn hold_provisional(&mut self, now: Instant, entity: EntityId, slot: usize) {
        self.provisional_sessions += 1;
        let peer = self.peers.entry(entity.node_id()).or_default();
        peer.provisional.push_back(slot);
        if peer.provisional.len() > MAX_PROVISIONAL_PER_PEER
            && let Some(oldest) = peer.provisional.front().copied()
        {
            self.with_session(now, oldest, |s, ctx| s.close(ctx, CloseReason::Replaced));
            self.remove_if_closed(oldest);
        }
    }

    /// When both sides dial at once, the Init of the larger identity is dropped. Only for a while:
    /// perhaps the smaller one's Inits do not arrive at all.
    fn yields_to_own_dial(&self, now: Instant, entity: EntityId) -> bool {
        let dial = self.peers.get(&entity.node_id()).and_then(|p| p.dial.as_ref());
        let is_young = dial.is_some_and(|d| now.since(d.started) < HANDSHAKE_YIELD);
        is_young && self.entity < entity
    }

    /// Whether another session with this peer fits, and its id and address are free.
    pub(crate) fn has_room_for(&self, entity: EntityId, id: SessionId) -> bool {
        // Two identities must not share an address; the first one keeps it.
        let collides = self.live_entity(entity.node_id()).is_some_and(|live| live != entity);
        !collides
            && self.sessions.find(id).is_none()
            && self.sessions.len() < MAX_SESSIONS
            && self.provisional_sessions < MAX_PROVISIONAL_SESSIONS
    }
}

const _: () = assert!(FIRST_RTT.as_millis() < SESSION_TIMEOUT.as_millis());
