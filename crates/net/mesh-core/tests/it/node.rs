//! An endpoint as a host of the simulator, with an application that records what happens.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use net_crypto::{EntityKeypair, MeshSecret, Seeded};
use net_mesh_core::{
    Counters, DropReason, Endpoint, EndpointConfig, Event, SessionEvent, StreamConfig, StreamEvent,
    Subprotocol,
};
use net_sim::{Host, Transmit};
use net_types::{Instant, NodeId, PeerAddr, SessionId, StreamId};
use net_wire::{Header, Kind, ROUTING_TAG};

/// A datagram that a node sent.
#[derive(Clone, Debug)]
pub(crate) struct SentDatagram {
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

impl SentDatagram {
    /// The kind in the Net header, behind a routing header if there is one.
    pub(crate) fn kind(&self) -> Kind {
        kind_of(&self.bytes)
    }
}

pub(crate) fn kind_of(datagram: &[u8]) -> Kind {
    let packet = match datagram.first() {
        Some(&ROUTING_TAG) => &datagram[18..],
        _ => datagram,
    };
    Header::decode(packet).unwrap().kind
}

/// A node and its application.
pub(crate) struct SimNode {
    pub(crate) endpoint: Endpoint,
    /// Everything but messages, in order.
    pub(crate) events: Vec<Event>,
    /// Messages in order of arrival.
    pub(crate) messages: Vec<Bytes>,
    pub(crate) by_stream: BTreeMap<(SessionId, StreamId), Vec<Bytes>>,
    /// Whether messages are taken as they arrive.
    pub(crate) is_reading: bool,
    unread: VecDeque<(SessionId, StreamId, u32)>,
    /// Whether a stream that the peer finished is finished in return.
    pub(crate) finishes_in_return: bool,
    /// What was sent, if it is recorded.
    pub(crate) sent: Option<Vec<SentDatagram>>,
    /// A fault for the checkers to find: this message is acknowledged and then lost.
    pub(crate) loses_message: Option<usize>,
    seen_messages: usize,
}

pub(crate) fn addr(i: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, i], 4_000))
}

/// What is reported of a stream that was opened with the default subprotocol.
pub(crate) fn of_stream(stream_id: StreamId, event: StreamEvent) -> SessionEvent {
    SessionEvent::Stream { stream_id, subprotocol: Subprotocol::EVENTS, event }
}

pub(crate) fn keys(i: u8) -> EntityKeypair {
    EntityKeypair::from_seed([i; 32])
}

pub(crate) fn node_id(i: u8) -> NodeId {
    keys(i).entity_id().node_id()
}

pub(crate) fn peer(i: u8) -> PeerAddr {
    PeerAddr::direct(keys(i).entity_id(), addr(i))
}

pub(crate) fn config(i: u8) -> EndpointConfig {
    EndpointConfig::new(keys(i), MeshSecret::from_cookie("test"))
}

impl SimNode {
    pub(crate) fn new(now: Instant, seed: u64, i: u8) -> Self {
        Self::with_config(now, seed ^ (u64::from(i) << 32), config(i))
    }

    pub(crate) fn with_config(now: Instant, seed: u64, config: EndpointConfig) -> Self {
        let mut rng = Seeded::from_u64(seed);
        Self {
            endpoint: Endpoint::new(now, config, rng.seed_32()).unwrap(),
            events: Vec::new(),
            messages: Vec::new(),
            by_stream: BTreeMap::new(),
            is_reading: true,
            unread: VecDeque::new(),
            finishes_in_return: true,
            sent: None,
            loses_message: None,
            seen_messages: 0,
        }
    }

    /// The session in use with node `i`.
    pub(crate) fn session_with(&self, i: u8) -> Option<SessionId> {
        self.endpoint.live_session(node_id(i))
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.endpoint.counters()
    }

    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.counters().drops(reason)
    }

    /// Opens a stream to node `i` and queues messages on it.
    pub(crate) fn send_all(
        &mut self,
        now: Instant,
        i: u8,
        config: StreamConfig,
        messages: &[Bytes],
    ) -> StreamId {
        let session = self.session_with(i).unwrap();
        let stream = self.endpoint.open_stream(now, session, config).unwrap();
        for m in messages {
            self.endpoint.send(now, session, stream, m.clone()).unwrap();
        }
        stream
    }

    /// Takes up to `count` of the messages that wait, and all that come from now on if it is
    /// `None`.
    pub(crate) fn read(&mut self, now: Instant, count: Option<usize>) {
        self.is_reading = count.is_none();
        for _ in 0..count.unwrap_or(usize::MAX) {
            let Some((session, stream, credit)) = self.unread.pop_front() else { return };
            self.endpoint.consume(now, session, stream, credit);
        }
    }

    /// Events inside sessions.
    pub(crate) fn session_events(&self) -> impl Iterator<Item = &SessionEvent> {
        self.events.iter().filter_map(|e| match e {
            Event::Session { event, .. } => Some(event),
            _ => None,
        })
    }

    /// Sessions that came up, in order.
    pub(crate) fn connections(&self) -> Vec<SessionId> {
        let session = |e: &Event| match e {
            Event::Connected { session, .. } => Some(*session),
            _ => None,
        };
        self.events.iter().filter_map(session).collect()
    }

    pub(crate) fn feed(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.handle_datagram(now, from, &mut datagram.to_vec());
    }

    /// Everything that is to be sent now.
    pub(crate) fn take_datagrams(&mut self, now: Instant) -> Vec<SentDatagram> {
        let mut datagrams = Vec::new();
        while let Some(transmit) = self.poll_transmit(now) {
            let step = transmit.segment_bytes.unwrap_or(transmit.bytes.len());
            datagrams.extend(
                transmit
                    .bytes
                    .chunks(step)
                    .map(|bytes| SentDatagram { to: transmit.to, bytes: bytes.to_vec() }),
            );
        }
        datagrams
    }

    fn drain_events(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Session {
                    session,
                    event: SessionEvent::Message { stream_id, message, credit, .. },
                    ..
                } => self.on_message(now, session, stream_id, message, credit),
                Event::Session {
                    session,
                    event: SessionEvent::Stream { stream_id, event: StreamEvent::Finished, .. },
                    ..
                } if self.finishes_in_return => {
                    self.events.push(event);
                    self.endpoint.finish_stream(now, session, stream_id);
                }
                event => self.events.push(event),
            }
        }
    }

    fn on_message(
        &mut self,
        now: Instant,
        session: SessionId,
        stream: StreamId,
        message: Bytes,
        credit: u32,
    ) {
        self.seen_messages += 1;
        if self.loses_message != Some(self.seen_messages) {
            self.messages.push(message.clone());
            self.by_stream.entry((session, stream)).or_default().push(message);
        }
        if self.is_reading {
            self.endpoint.consume(now, session, stream, credit);
        } else {
            self.unread.push_back((session, stream, credit));
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
        assert_eq!(bytes.len(), sent.len);
        if let Some(record) = &mut self.sent {
            let each = bytes.chunks(sent.segment_bytes);
            record.extend(each.map(|b| SentDatagram { to: sent.to, bytes: b.to_vec() }));
        }
        Some(Transmit { to: sent.to, bytes, segment_bytes: Some(sent.segment_bytes) })
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.endpoint.next_timeout()
    }
}
