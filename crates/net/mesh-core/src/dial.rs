//! The dialling side of a handshake: from an address to an established session.
//!
//! Invariants: a peer has at most one dial; a dial ends once, in a session with the peer or in one
//! [`crate::Event::DialFailed`]; an Init is repeated byte for byte, except for its mac2; a packet
//! that does not authenticate leaves its dial as it was, and no answer makes this side send faster.

use core::net::SocketAddr;

use net_crypto::{
    Cookie, EntityIdError, INIT_OVERHEAD_BYTES, Initiator, MacKeys, NoiseError,
    RESPONSE_OVERHEAD_BYTES, RngCore, Suite,
};
use net_session::{DropReason, Path, Session, SessionParams};
use net_types::limits::{
    HANDSHAKE_RETRY_MAX, HANDSHAKE_RETRY_STEP, HANDSHAKE_TIMEOUT, HEADER_BYTES, MAX_INITIATIONS,
    MAX_PEER_ADDRS,
};
use net_types::{EntityId, Instant, NodeId, PeerAddr, SessionId};
use net_wire::{
    CookieReply, Features, HELLO_BYTES, Header, Hello, INIT_MAC_BYTES, INIT_NOISE_BYTES,
    InitPacket, Kind, MAC_BYTES, RESPONSE_NOISE_OVERHEAD_BYTES, ResponsePacket,
};
use thiserror::Error;

use crate::Endpoint;
use crate::timers::Timer;

/// Why a dial gave no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DialError {
    /// Nothing answered in time: wrong address, wrong secret, or the peer is down.
    #[error("no answer within {} s: check the address, that the peer runs, and that both use the same mesh secret", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    /// The peer has no address.
    #[error("no address is known for the peer")]
    NoAddress,
    /// The identity is not a valid key.
    #[error("the peer's identity is not a valid key: {0}")]
    Identity(EntityIdError),
    /// The peer is this node.
    #[error("the peer is this node itself")]
    Own,
    /// The peer policy refuses the identity.
    #[error("the peer policy refuses this identity")]
    Refused,
    /// The address that routing uses already stands for another identity: one of the two keys was
    /// made for that.
    #[error("another identity has the same node id")]
    NodeIdCollision,
    /// Too many dials or sessions are under way, or the address book is full.
    #[error("too many handshakes or sessions are under way")]
    Overloaded,
    /// The endpoint closes.
    #[error("the node is shutting down")]
    Closed,
}

impl From<NoiseError> for DialError {
    fn from(_: NoiseError) -> Self {
        Self::Overloaded
    }
}

/// A handshake that waits for its Response.
pub(crate) struct Dial {
    pub(crate) handshake_id: SessionId,
    peer: PeerAddr,
    initiator: Initiator,
    macs: MacKeys,
    /// The Init, repeated byte for byte except for mac2.
    packet: Vec<u8>,
    cookie: Option<Cookie>,
    pub(crate) started: Instant,
    attempts: u32,
    last_sent: Instant,
    next_send: Instant,
    expires: Instant,
    /// Whether packets go through a relay.
    is_routed: bool,
}

impl Dial {
    /// When it sends again or is given up.
    pub(crate) fn next_timeout(&self) -> Instant {
        self.next_send.min(self.expires)
    }

    /// The dialled path that a Response came by, or the first one if it came from elsewhere.
    fn dialled_path(&self, path: Path) -> Path {
        let is_routed = self.is_routed;
        let is_same = |addr: &&SocketAddr| {
            addr.port() == path.addr.port()
                && addr.ip().to_canonical() == path.addr.ip().to_canonical()
        };
        if path.is_routed == is_routed && self.peer.addrs.iter().any(|addr| is_same(&addr)) {
            return path;
        }
        self.peer.addrs.first().map_or(path, |addr| Path { addr: *addr, is_routed })
    }
}

impl Endpoint {
    /// Starts a handshake with a peer, at all its addresses at once; [`crate::Event::Connected`] or
    /// [`crate::Event::DialFailed`] follows. A live session is replaced only when it succeeds; a
    /// dial under way is left alone.
    pub fn dial(&mut self, now: Instant, peer: &PeerAddr) -> Result<(), DialError> {
        self.start_dial(now, peer, false)
    }

    /// Like [`Endpoint::dial`], with the peer's addresses being those of relays.
    pub fn dial_routed(&mut self, now: Instant, peer: &PeerAddr) -> Result<(), DialError> {
        self.start_dial(now, peer, true)
    }

    fn start_dial(
        &mut self,
        now: Instant,
        peer: &PeerAddr,
        is_routed: bool,
    ) -> Result<(), DialError> {
        let (entity, id) = (peer.entity_id, peer.entity_id.node_id());
        net_crypto::check_entity_id(entity.as_bytes()).map_err(DialError::Identity)?;
        if entity == self.entity {
            return Err(DialError::Own);
        }
        if !self.config.policy.allows(&entity) {
            return Err(DialError::Refused);
        }
        if peer.addrs.is_empty() {
            return Err(DialError::NoAddress);
        }
        if self.names_another(id, &entity) {
            return Err(DialError::NodeIdCollision);
        }
        if self.peers.get(&id).is_some_and(|p| p.dial.is_some()) {
            return Ok(());
        }
        if self.handshakes.dials.len() >= MAX_INITIATIONS {
            return Err(DialError::Overloaded);
        }
        let secret = &self.config.secrets[0];
        let hello = self.hello(None).encode_init();
        let seed = self.rng.seed_32();
        let (initiator, noise) =
            Initiator::start(&self.config.identity, &entity, secret, seed, &hello)?;
        let macs = MacKeys::new(secret, &entity);
        let handshake_id = SessionId(self.rng.next_u64());
        let mut header = Header::new(Kind::HandshakeInit, handshake_id, 0);
        header.payload_len = noise.len() as u16;
        let mut packet = header.encode().to_vec();
        packet.extend_from_slice(&noise);
        let mac1 = macs.mac1(&packet);
        packet.extend_from_slice(&mac1);
        packet.extend_from_slice(&[0; MAC_BYTES]);
        let mut peer = peer.clone();
        peer.addrs.truncate(MAX_PEER_ADDRS);
        let dial = Dial {
            handshake_id,
            peer,
            initiator,
            macs,
            packet,
            cookie: None,
            started: now,
            attempts: 0,
            last_sent: now,
            next_send: now,
            expires: now + HANDSHAKE_TIMEOUT,
            is_routed,
        };
        self.handshakes.dials.insert(handshake_id, id);
        self.peers.entry(id).or_default().dial = Some(Box::new(dial));
        self.on_dial_timer(now, id);
        Ok(())
    }

    pub(crate) fn hello(&self, observed: Option<SocketAddr>) -> Hello {
        let features =
            if self.config.offer_aes { Features::HARDWARE_AES } else { Features::default() };
        Hello {
            entity_id: self.entity,
            generation: self.config.generation,
            features,
            subnet: 0,
            max_datagram_bytes: self.config.max_datagram_bytes as u16,
            observed,
        }
    }

    /// Whether a node id stands for another identity: that of the live session, of a dial or of the
    /// address book.
    pub(crate) fn names_another(&self, id: NodeId, entity: &EntityId) -> bool {
        let Some(peer) = self.peers.get(&id) else { return false };
        let dialled = peer.dial.as_ref().map(|d| d.peer.entity_id);
        let known = peer.addr.as_ref().map(|a| a.entity_id);
        [self.live_entity(id), dialled, known].into_iter().flatten().any(|e| e != *entity)
    }

    /// The suite of a session with a peer that has these features.
    pub(crate) fn suite(&self, peer: Features) -> Suite {
        if self.config.offer_aes && peer.contains(Features::HARDWARE_AES) {
            Suite::Aes256Gcm
        } else {
            Suite::ChaCha20Poly1305
        }
    }

    /// Sends the Init again, or gives up.
    pub(crate) fn on_dial_timer(&mut self, now: Instant, peer: NodeId) {
        let Some(dial) = self.peers.get_mut(&peer).and_then(|p| p.dial.as_mut()) else { return };
        if now >= dial.expires {
            self.counters.handshakes_failed += 1;
            return self.end_dial(peer, DialError::Timeout);
        }
        let mut packets = Vec::new();
        if now >= dial.next_send {
            dial.attempts += 1;
            dial.last_sent = now;
            dial.next_send = now + (HANDSHAKE_RETRY_STEP * dial.attempts).min(HANDSHAKE_RETRY_MAX);
            let is_routed = dial.is_routed;
            let paths = dial.peer.addrs.iter().map(|addr| Path { addr: *addr, is_routed });
            packets.extend(paths.map(|path| (path, dial.packet.clone())));
        }
        self.timers.arm(Timer::Dial(peer), dial.next_timeout());
        for (path, packet) in packets {
            self.handshakes.send(&mut self.counters, path, peer, packet);
        }
    }

    pub(crate) fn end_dial(&mut self, peer: NodeId, error: DialError) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let Some(dial) = entry.dial.take() else { return };
        if entry.is_idle() {
            self.peers.remove(&peer);
        }
        self.handshakes.dials.remove(&dial.handshake_id);
        self.timers.disarm(Timer::Dial(peer));
        self.events.push_back(crate::Event::DialFailed { peer, error });
    }

    pub(crate) fn on_response(&mut self, now: Instant, path: Path, header: &Header, packet: &[u8]) {
        let Some(&peer) = self.handshakes.dials.get(&header.session_id) else {
            return self.counters.dropped(DropReason::HandshakeReplay);
        };
        let Some(dial) = self.peers.get_mut(&peer).and_then(|p| p.dial.as_mut()) else { return };
        let Ok(response) = ResponsePacket::split(packet) else {
            return self.counters.dropped(DropReason::Malformed);
        };
        if !dial.macs.verify_mac1(response.mac1_input, &response.mac1) {
            return self.counters.dropped(DropReason::HandshakeMac);
        }
        let Ok((established, payload)) = dial.initiator.finish(response.noise) else {
            return self.counters.dropped(DropReason::HandshakeNoise);
        };
        let entity: EntityId = dial.peer.entity_id;
        // Where a Response seems to come from is not authentic. Packets go to where the Inits went
        // until a challenge proves the other address.
        let dialled = dial.dialled_path(path);
        let first_rtt = match dial.attempts {
            1 => now.since(dial.last_sent),
            _ => HANDSHAKE_RETRY_STEP,
        };
        let Ok(hello) = Hello::decode_response(&payload) else {
            return self.end_dial_as_malformed(peer);
        };
        if hello.entity_id != entity {
            return self.end_dial_as_malformed(peer);
        }
        let params = SessionParams {
            id: established.session_id,
            own: self.entity,
            peer: entity,
            is_initiator: true,
            suite: self.suite(hello.features),
            send: established.send,
            receive: established.receive,
            path: dialled,
            peer_max_datagram_bytes: hello.max_datagram_bytes,
            first_rtt,
            heartbeat_interval: self.config.heartbeat_interval,
        };
        if self.live_entity(peer).is_some_and(|live| live != entity) {
            return self.end_dial(peer, DialError::NodeIdCollision);
        }
        if !self.has_room_for(entity, params.id) {
            return self.end_dial(peer, DialError::Overloaded);
        }
        let slot = self.insert(now, Session::established(now, params), None);
        self.promote(now, slot);
        // The first packet, which proves the keys, leaves at once.
        self.with_session(now, slot, |session, ctx| {
            if path != dialled {
                session.challenge(ctx, path);
            }
        });
    }

    /// The handshake has finished, but its payload is not one of this protocol.
    fn end_dial_as_malformed(&mut self, peer: NodeId) {
        self.counters.dropped(DropReason::HandshakeNoise);
        self.counters.handshakes_failed += 1;
        self.end_dial(peer, DialError::Refused);
    }

    pub(crate) fn on_cookie_reply(&mut self, now: Instant, header: &Header, packet: &[u8]) {
        let Some(&peer) = self.handshakes.dials.get(&header.session_id) else { return };
        let Some(dial) = self.peers.get_mut(&peer).and_then(|p| p.dial.as_mut()) else { return };
        let (Ok(reply), Ok(init)) =
            (CookieReply::decode(&packet[HEADER_BYTES..]), InitPacket::split(&dial.packet))
        else {
            return self.counters.dropped(DropReason::Malformed);
        };
        let Ok(cookie) = dial.macs.open_cookie(&reply.nonce, &init.mac1, &reply.sealed) else {
            return self.counters.dropped(DropReason::HandshakeMac);
        };
        let mac2 = cookie.mac2(init.mac2_input);
        let at = dial.packet.len() - MAC_BYTES;
        dial.packet[at..].copy_from_slice(&mac2);
        // The first cookie is used at once; later ones wait for the next attempt, so that replies
        // cannot make this side send faster.
        if dial.cookie.replace(cookie).is_none() {
            dial.next_send = now;
            self.on_dial_timer(now, peer);
        }
    }
}

const _: () = assert!(INIT_MAC_BYTES == 2 * MAC_BYTES);
const _: () = assert!(INIT_NOISE_BYTES == INIT_OVERHEAD_BYTES + HELLO_BYTES);
const _: () = assert!(RESPONSE_NOISE_OVERHEAD_BYTES == RESPONSE_OVERHEAD_BYTES);
