//! The endpoint's state and what its driver calls.
//!
//! Invariants, which [`Endpoint::check_invariants`] asserts: a session is in that list of its peer
//! which is named for its phase, and in no other; whatever waits has a timer that comes up in time,
//! or is in line to be polled; a session that is closed stays until it was polled; the counts are
//! those of the tables, and every table has a bound.

use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use net_crypto::{EntityKeypair, Seeded};
use net_session::{
    CloseReason, Counters, DropReason, Event as SessionEvent, OpenError, Path, Phase, SendError,
    Stats, StreamConfig,
};
use net_types::limits::{
    HEADER_BYTES, MAX_DRAINING_PER_PEER, MAX_PEER_ADDRS, MAX_PEER_RELAYS, MAX_PROVISIONAL_PER_PEER,
    MAX_SESSION_EVENTS, MAX_SESSIONS, ROUTING_HEADER_BYTES,
};
use net_types::{EntityId, Instant, NodeId, PeerAddr, SessionId, StreamId};
use net_wire::{Header, HeaderError, Kind, ROUTING_TAG, ResetReason, RoutingHeader};

use crate::handshakes::Handshakes;
use crate::peers::Peer;
use crate::session_table::{SessionTable, Slot};
use crate::timers::{Timer, Timers};
use crate::transmit::Carry;
use crate::{ConfigError, DialError, EndpointConfig, Event, PeerStatus, Population};

/// Every session of a node; see the crate's documentation for the order of calls.
pub struct Endpoint {
    pub(crate) config: EndpointConfig,
    pub(crate) entity: EntityId,
    pub(crate) node_id: NodeId,
    pub(crate) rng: Seeded,
    pub(crate) counters: Counters,
    pub(crate) handshakes: Handshakes,
    pub(crate) sessions: SessionTable,
    pub(crate) provisional_sessions: usize,
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    pub(crate) timers: Timers,
    pub(crate) carry: Option<Carry>,
    pub(crate) events: VecDeque<Event>,
    /// Reused for the events of one call into a session.
    pub(crate) scratch: VecDeque<SessionEvent>,
}

impl Endpoint {
    /// An endpoint without sessions. `seed` is fresh randomness.
    pub fn new(now: Instant, config: EndpointConfig, seed: [u8; 32]) -> Result<Self, ConfigError> {
        config.check()?;
        let entity = config.identity.entity_id();
        let mut rng = Seeded::from_seed(seed);
        Ok(Self {
            entity,
            node_id: entity.node_id(),
            handshakes: Handshakes::new(now, &entity, &config, &mut rng),
            rng,
            counters: Counters::default(),
            sessions: SessionTable::default(),
            provisional_sessions: 0,
            peers: BTreeMap::new(),
            timers: Timers::default(),
            carry: None,
            events: VecDeque::new(),
            scratch: VecDeque::new(),
            config,
        })
    }

    /// This node's identity.
    pub fn entity_id(&self) -> EntityId {
        self.entity
    }

    /// This node's routing address.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The identity's keys.
    pub fn identity(&self) -> &EntityKeypair {
        &self.config.identity
    }

    /// The counters of all sessions and handshakes.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts what the driver or a protocol could not use.
    pub fn count_dropped(&mut self, reason: DropReason) {
        self.counters.dropped(reason);
    }

    /// Peers with a session in use, by node id.
    pub fn connected(&self, now: Instant) -> impl Iterator<Item = (NodeId, PeerStatus)> {
        self.peers.iter().filter_map(move |(id, peer)| {
            let slot = self.sessions.get(peer.live?)?;
            let stats = slot.session.stats();
            let status = PeerStatus {
                entity: slot.session.peer(),
                session: slot.session.id(),
                is_initiator: slot.is_initiator,
                rtt: stats.rtt,
                packet_bytes: stats.packet_bytes,
                cwnd_packets: stats.cwnd_packets,
                silence: now.since(slot.session.last_received()),
            };
            Some((*id, status))
        })
    }

    /// What the endpoint holds, for metrics and tests; every figure has a bound in
    /// `net_types::limits`.
    pub fn population(&self) -> Population {
        Population {
            sessions: self.sessions.len(),
            provisional: self.provisional_sessions,
            dials: self.handshakes.dials.len(),
            peers: self.peers.len(),
            timers: self.timers.len(),
        }
    }

    /// Current figures of a session.
    pub fn session_stats(&self, session: SessionId) -> Option<Stats> {
        Some(self.sessions.by_id(session)?.session.stats())
    }

    /// The session in use for a peer.
    pub fn live_session(&self, peer: NodeId) -> Option<SessionId> {
        Some(self.live_slot(peer)?.session.id())
    }

    /// Whether this side dialled the session.
    pub fn is_initiator(&self, session: SessionId) -> Option<bool> {
        Some(self.sessions.by_id(session)?.is_initiator)
    }

    /// The identity of the session in use for a peer.
    pub fn live_entity(&self, peer: NodeId) -> Option<EntityId> {
        Some(self.live_slot(peer)?.session.peer())
    }

    pub(crate) fn live_slot(&self, peer: NodeId) -> Option<&Slot> {
        self.sessions.get(self.peers.get(&peer)?.live?)
    }

    /// Keeps a peer's address, for dials after a session was lost. Fails when another identity has
    /// the peer's node id, or when the address book is full.
    pub fn add_peer(&mut self, mut addr: PeerAddr) -> Result<(), DialError> {
        let id = addr.entity_id.node_id();
        if self.names_another(id, &addr.entity_id) {
            return Err(DialError::NodeIdCollision);
        }
        if self.peers.len() >= MAX_SESSIONS && !self.peers.contains_key(&id) {
            return Err(DialError::Overloaded);
        }
        addr.addrs.truncate(MAX_PEER_ADDRS);
        addr.relays.truncate(MAX_PEER_RELAYS);
        self.peers.entry(id).or_default().addr = Some(addr);
        Ok(())
    }

    /// Forgets a peer's address. Its sessions and its dial stay.
    pub fn remove_peer(&mut self, peer: NodeId) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.addr = None;
        if entry.is_idle() {
            self.peers.remove(&peer);
        }
    }

    /// The address that [`Endpoint::add_peer`] keeps for a peer.
    pub fn peer_addr(&self, peer: NodeId) -> Option<&PeerAddr> {
        self.peers.get(&peer)?.addr.as_ref()
    }

    /// Takes one datagram; its contents are decrypted in place and worthless afterwards.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        let (path, packet) = match datagram.first() {
            Some(&ROUTING_TAG) => match self.unwrap_routed(datagram) {
                Some(packet) => (Path { addr: from, is_routed: true }, packet),
                None => return,
            },
            _ => (Path::direct(from), datagram),
        };
        let header = match Header::decode(packet) {
            Ok(header) => header,
            Err(HeaderError::Foreign) => return self.counters.dropped(DropReason::Foreign),
            Err(HeaderError::Malformed(_)) => {
                return self.counters.dropped(DropReason::Malformed);
            }
        };
        match header.kind {
            Kind::HandshakeInit => self.on_init(now, path, &header, packet),
            Kind::HandshakeResponse => self.on_response(now, path, &header, packet),
            Kind::CookieReply => self.on_cookie_reply(now, &header, packet),
            _ => self.on_session_packet(now, path, &header, packet),
        }
    }

    fn unwrap_routed<'a>(&mut self, datagram: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let Ok(routing) = RoutingHeader::decode(datagram) else {
            self.counters.dropped(DropReason::Malformed);
            return None;
        };
        if routing.destination != self.node_id || routing.source == self.node_id {
            self.counters.dropped(DropReason::NotForUs);
            return None;
        }
        datagram.get_mut(ROUTING_HEADER_BYTES..)
    }

    fn on_session_packet(&mut self, now: Instant, path: Path, header: &Header, packet: &mut [u8]) {
        let Some(slot) = self.sessions.find(header.session_id) else {
            return self.counters.dropped(DropReason::UnknownSession);
        };
        // Events that the application has not taken bound what is decrypted; the peer sends again.
        if self.events.len() >= MAX_SESSION_EVENTS && packet.len() > HEADER_BYTES {
            return self.counters.dropped(DropReason::QueueFull);
        }
        self.with_session(now, slot, |session, ctx| {
            session.handle_packet(ctx, header, path, packet);
        });
        if header.kind == Kind::Heartbeat {
            self.follow_peer(now, slot);
        }
    }

    /// When [`Endpoint::handle_timeout`] should be called next; it may find nothing to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        // Collected first: a session that is due again at once waits for its poll.
        let due: Vec<Timer> = core::iter::from_fn(|| self.timers.pop_due(now)).collect();
        for timer in due {
            match timer {
                Timer::Session(slot) => {
                    self.with_session(now, slot, |session, ctx| session.handle_timeout(ctx));
                    self.redial_if_silent(now, slot);
                }
                Timer::Dial(peer) => self.on_dial_timer(now, peer),
            }
        }
    }

    /// Whether [`Endpoint::poll_event`] has one.
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next event for the driver.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Opens a stream on a session.
    pub fn open_stream(
        &mut self,
        now: Instant,
        session: SessionId,
        config: StreamConfig,
    ) -> Result<StreamId, OpenError> {
        let slot = self.sessions.find(session).ok_or(OpenError::Closed)?;
        self.with_session(now, slot, |s, _| s.open_stream(config)).unwrap_or(Err(OpenError::Closed))
    }

    /// Opens a stream whose id both sides know by convention; does nothing when it is open.
    pub fn ensure_stream(
        &mut self,
        now: Instant,
        session: SessionId,
        id: StreamId,
        config: StreamConfig,
    ) -> Result<(), OpenError> {
        let slot = self.sessions.find(session).ok_or(OpenError::Closed)?;
        self.with_session(now, slot, |s, _| s.ensure_stream(id, config))
            .unwrap_or(Err(OpenError::Closed))
    }

    /// Queues a message that `write` appends, at most `len` bytes long.
    pub fn send_with(
        &mut self,
        now: Instant,
        session: SessionId,
        stream: StreamId,
        len: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SendError> {
        let slot = self.sessions.find(session).ok_or(SendError::SessionClosed)?;
        self.with_session(now, slot, |s, _| s.send_with(stream, len, write))
            .unwrap_or(Err(SendError::SessionClosed))
    }

    /// Queues a message; a long one is not copied.
    pub fn send(
        &mut self,
        now: Instant,
        session: SessionId,
        stream: StreamId,
        message: Bytes,
    ) -> Result<(), SendError> {
        let slot = self.sessions.find(session).ok_or(SendError::SessionClosed)?;
        self.with_session(now, slot, |s, _| s.send(stream, message))
            .unwrap_or(Err(SendError::SessionClosed))
    }

    /// Returns the credit of `bytes` that the application took from a stream.
    pub fn consume(&mut self, now: Instant, session: SessionId, stream: StreamId, bytes: u32) {
        if let Some(slot) = self.sessions.find(session) {
            self.with_session(now, slot, |s, ctx| s.consume(ctx.now, stream, bytes));
        }
    }

    /// Ends the sending half of a stream after everything queued.
    pub fn finish_stream(&mut self, now: Instant, session: SessionId, stream: StreamId) {
        if let Some(slot) = self.sessions.find(session) {
            self.with_session(now, slot, |s, _| s.finish_stream(stream));
        }
    }

    /// Ends a stream by force.
    pub fn reset_stream(
        &mut self,
        now: Instant,
        session: SessionId,
        stream: StreamId,
        reason: ResetReason,
    ) {
        if let Some(slot) = self.sessions.find(session) {
            self.with_session(now, slot, |s, ctx| s.reset_stream(ctx, stream, reason));
        }
    }

    /// Tells a draining session whether its owner still waits for something on it.
    pub fn hold_session(&mut self, now: Instant, session: SessionId, is_held: bool) {
        if let Some(slot) = self.sessions.find(session) {
            self.with_session(now, slot, |s, ctx| s.hold(ctx.now, is_held));
        }
    }

    /// Ends a session.
    pub fn close_session(&mut self, now: Instant, session: SessionId, reason: CloseReason) {
        if let Some(slot) = self.sessions.find(session) {
            self.with_session(now, slot, |s, ctx| s.close(ctx, reason));
        }
    }

    /// Asserts what must hold between any two calls. Debug builds and simulations call it; a
    /// failure is a fault of this crate.
    pub fn check_invariants(&self) {
        self.sessions.check_invariants();
        self.handshakes.check_invariants();
        self.timers.check_invariants();
        assert!(self.scratch.is_empty(), "events of a session are kept back");
        let (mut listed, mut provisional, mut dials) = (0, 0, 0);
        for (id, peer) in &self.peers {
            self.check_peer(*id, peer);
            provisional += peer.provisional.len();
            listed += peer.sessions().count();
            dials += usize::from(peer.dial.is_some());
        }
        assert_eq!(self.provisional_sessions, provisional);
        assert_eq!(self.handshakes.dials.len(), dials);
        for (index, slot) in self.sessions.iter() {
            self.check_session(index, slot);
            listed += usize::from(slot.session.phase() == Phase::Closed);
        }
        assert_eq!(listed, self.sessions.len(), "a session is in two lists");
        let is_used = |timer| match timer {
            Timer::Session(slot) => self.sessions.get(slot).is_some(),
            Timer::Dial(peer) => self.peers.get(&peer).is_some_and(|p| p.dial.is_some()),
        };
        assert!(self.timers.armed().all(is_used), "a timer of what has ended");
    }

    fn check_session(&self, index: usize, slot: &Slot) {
        let (id, phase) = (slot.session.id(), slot.session.phase());
        let is_timed = |at| self.timers.covers(Timer::Session(index), at);
        let is_late = !slot.session.next_timeout().is_none_or(is_timed);
        assert!(self.sessions.is_ready(index) || !is_late, "{id} is late");
        let peer = self.peers.get(&slot.peer);
        let is_listed = match phase {
            Phase::Provisional => peer.is_some_and(|p| p.provisional.contains(&index)),
            Phase::Established => peer.is_some_and(|p| p.live == Some(index)),
            Phase::Draining => peer.is_some_and(|p| p.draining.contains(&index)),
            Phase::Closed => return,
        };
        assert!(is_listed, "{id} is {phase:?} and not where it belongs");
        assert_eq!(slot.ephemeral.is_some(), phase == Phase::Provisional, "{id}");
    }

    fn check_peer(&self, id: NodeId, peer: &Peer) {
        let slot_of = |slot: usize| self.sessions.get(slot).filter(|s| s.peer == id);
        let is_open = |slot| slot_of(slot).is_some_and(|s| s.session.phase() != Phase::Closed);
        assert!(peer.sessions().all(is_open), "{id} has a session that is over");
        let is_kept = !peer.is_idle() || self.sessions.iter().any(|(_, s)| s.peer == id);
        assert!(is_kept, "{id} is kept for nothing");
        assert!(peer.provisional.len() <= MAX_PROVISIONAL_PER_PEER);
        assert!(peer.draining.len() <= MAX_DRAINING_PER_PEER);
        assert!(peer.addr.as_ref().is_none_or(|addr| addr.entity_id.node_id() == id));
        if let Some(dial) = &peer.dial {
            assert_eq!(self.handshakes.dials.get(&dial.handshake_id), Some(&id));
            assert!(
                self.timers.covers(Timer::Dial(id), dial.next_timeout()),
                "{id} is dialled late"
            );
        }
    }

    /// Ends every session and dial; drain the transmits to tell the peers.
    pub fn close_all(&mut self, now: Instant, reason: CloseReason) {
        let dialled: Vec<NodeId> = self.handshakes.dials.values().copied().collect();
        dialled.into_iter().for_each(|peer| self.end_dial(peer, DialError::Closed));
        for slot in self.sessions.slots() {
            self.with_session(now, slot, |s, ctx| s.close(ctx, reason));
        }
    }
}
