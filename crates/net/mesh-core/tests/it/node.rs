//! An endpoint as a host of the simulator, with an application that records what happens.

use std::net::SocketAddr;

use net_crypto::{EntityKeypair, MeshSecret, Seeded};
use net_mesh_core::{Endpoint, EndpointConfig, Event, SessionEvent};
use net_sim::{Host, Transmit};
use net_types::{Instant, NodeId, PeerAddr, SessionId};

/// A node whose application takes every message at once.
pub(crate) struct SimNode {
    pub(crate) endpoint: Endpoint,
    pub(crate) events: Vec<Event>,
    pub(crate) messages: Vec<bytes::Bytes>,
}

pub(crate) fn addr(i: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, i], 4_000))
}

pub(crate) fn keys(i: u8) -> EntityKeypair {
    EntityKeypair::from_seed([i; 32])
}

pub(crate) fn peer(i: u8) -> PeerAddr {
    PeerAddr::direct(keys(i).entity_id(), addr(i))
}

pub(crate) fn config(i: u8) -> EndpointConfig {
    EndpointConfig::new(keys(i), MeshSecret::from_cookie("test"))
}

impl SimNode {
    pub(crate) fn new(now: Instant, seed: u64, i: u8) -> Self {
        Self::with_config(now, seed, i, config(i))
    }

    pub(crate) fn with_config(now: Instant, seed: u64, i: u8, config: EndpointConfig) -> Self {
        let mut rng = Seeded::from_u64(seed ^ (u64::from(i) << 32));
        let endpoint = Endpoint::new(now, config, rng.seed_32()).unwrap();
        Self { endpoint, events: Vec::new(), messages: Vec::new() }
    }

    pub(crate) fn session_with(&self, i: u8) -> Option<SessionId> {
        self.endpoint.live_session(self.id_of(i))
    }

    pub(crate) fn id_of(&self, i: u8) -> NodeId {
        keys(i).entity_id().node_id()
    }

    fn drain_events(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            if let Event::Session {
                session,
                event: SessionEvent::Message { stream_id, message, credit, .. },
                ..
            } = event
            {
                self.messages.push(message);
                self.endpoint.consume(now, session, stream_id, credit);
            } else {
                self.events.push(event);
            }
        }
    }
}

impl Host for SimNode {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        self.endpoint.handle_datagram(now, from, datagram);
        self.drain_events(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        self.drain_events(now);
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let mut bytes = Vec::new();
        let sent = self.endpoint.poll_transmit(now, &mut bytes, 64);
        self.drain_events(now);
        let sent = sent?;
        Some(Transmit { to: sent.to, bytes, segment_bytes: Some(sent.segment_bytes) })
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.endpoint.next_timeout()
    }
}
