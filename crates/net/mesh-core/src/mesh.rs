//! A node of the mesh: the endpoint and a table of protocols by subprotocol number.
//!
//! The set of protocols is fixed when the [`Mesh`] is made. What happens on a stream goes to the
//! protocol of the stream's number, what happens to a peer to every protocol. A number that is not
//! in the table is refused: its messages are dropped and counted, its streams reset.
//!
//! Invariants: a number belongs to one protocol; between two calls of the driver no credit is held
//! back and no event of the endpoint is left.

use core::any::Any;
use core::marker::PhantomData;
use core::net::SocketAddr;
use core::ops::RangeInclusive;

use net_crypto::Seeded;
use net_session::{
    CloseReason, DropReason, Event as SessionEvent, ResetReason, StreamEvent, Subprotocol,
};
use net_types::{Instant, NodeId, SessionId};

use crate::protocol::{CreditBatch, find};
use crate::{Cx, Endpoint, Event, Message, PeerEvent, Protocol, StreamRef, Transmit};

/// An entry of a table, with the type of its protocol.
pub struct Entry<P>(usize, PhantomData<fn() -> P>);

impl<P> Clone for Entry<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Entry<P> {}

/// The protocols of a node, by number. Where ranges overlap, the number belongs to the protocol that
/// was added first.
#[derive(Default)]
pub struct Protocols {
    entries: Vec<Box<dyn Protocol>>,
    numbers: Vec<(RangeInclusive<Subprotocol>, usize)>,
}

impl Protocols {
    /// Adds a protocol under ranges of numbers. One without numbers hears of peers only.
    pub fn add<P: Protocol>(
        &mut self,
        numbers: impl IntoIterator<Item = RangeInclusive<Subprotocol>>,
        protocol: P,
    ) -> Entry<P> {
        let index = self.entries.len();
        self.numbers.extend(numbers.into_iter().map(|range| (range, index)));
        self.entries.push(Box::new(protocol));
        Entry(index, PhantomData)
    }

    #[inline]
    fn find(&self, number: Subprotocol) -> Option<usize> {
        find(&self.numbers, number)
    }
}

/// A node of the mesh, without I/O.
pub struct Mesh {
    endpoint: Endpoint,
    rng: Seeded,
    protocols: Protocols,
    credit: CreditBatch,
    /// Draining sessions.
    draining: Vec<SessionId>,
}

impl Mesh {
    /// A node of an endpoint without sessions and its protocols. `rng` is for the protocols.
    pub fn new(endpoint: Endpoint, rng: Seeded, protocols: Protocols) -> Self {
        Self { endpoint, rng, protocols, credit: CreditBatch::default(), draining: Vec::new() }
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The endpoint, for addresses, dials and the end of sessions; call [`Mesh::process`] after.
    /// Its events are the mesh's to take.
    pub fn endpoint_mut(&mut self) -> &mut Endpoint {
        &mut self.endpoint
    }

    /// A protocol.
    pub fn get<P: Protocol>(&self, entry: Entry<P>) -> &P {
        let protocol: &dyn Any = self.protocols.entries[entry.0].as_ref();
        protocol.downcast_ref().expect("an entry has the type of its protocol")
    }

    /// Whether a number belongs to the protocol.
    pub fn has<P>(&self, entry: Entry<P>, number: Subprotocol) -> bool {
        self.protocols.find(number) == Some(entry.0)
    }

    /// Acts on a protocol from outside.
    #[inline]
    pub fn with<P: Protocol, T>(
        &mut self,
        now: Instant,
        entry: Entry<P>,
        act: impl FnOnce(&mut P, &mut Cx<'_>) -> T,
    ) -> T {
        let (protocol, mut cx) = self.split(now, entry.0);
        let protocol: &mut dyn Any = protocol;
        let protocol = protocol.downcast_mut().expect("an entry has the type of its protocol");
        let out = act(protocol, &mut cx);
        self.credit.settle(&mut self.endpoint, now);
        out
    }

    /// A protocol and what it acts through.
    #[inline]
    fn split(&mut self, now: Instant, index: usize) -> (&mut dyn Protocol, Cx<'_>) {
        let Self { endpoint, rng, protocols, credit, .. } = self;
        let own = (protocols.numbers.as_slice(), index);
        (protocols.entries[index].as_mut(), Cx { now, endpoint, rng, credit, own })
    }

    fn each(&mut self, now: Instant, mut act: impl FnMut(&mut dyn Protocol, &mut Cx<'_>)) {
        for index in 0..self.protocols.entries.len() {
            let (protocol, mut cx) = self.split(now, index);
            act(protocol, &mut cx);
        }
    }

    /// Takes one datagram; call [`Mesh::process`] after the batch that it belongs to.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        self.endpoint.handle_datagram(now, from, datagram);
    }

    /// Gives the protocols everything that the endpoint reports; true if there was anything.
    #[inline]
    pub fn process(&mut self, now: Instant) -> bool {
        let has_events = self.endpoint.has_events();
        if has_events {
            self.give_events(now);
        }
        if !self.draining.is_empty() {
            self.hold_draining(now);
        }
        #[cfg(debug_assertions)]
        self.check_invariants();
        has_events
    }

    fn give_events(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Session { peer, session, event } => {
                    self.on_session_event(now, peer, session, event);
                }
                Event::Connected { peer, entity, session, is_initiator } => {
                    self.tell(now, &PeerEvent::Up { peer, entity, session, is_initiator });
                }
                Event::Draining { session } => {
                    // A session that was taken into use again may drain a second time.
                    self.draining.retain(|s| *s != session);
                    self.draining.push(session);
                }
                Event::Disconnected { peer, session, .. } => {
                    self.draining.retain(|s| *s != session);
                    self.tell(now, &PeerEvent::Down { peer, session });
                }
                Event::DialFailed { peer, error } => {
                    self.tell(now, &PeerEvent::DialFailed { peer, error });
                }
            }
        }
        self.credit.settle(&mut self.endpoint, now);
    }

    fn tell(&mut self, now: Instant, event: &PeerEvent) {
        self.each(now, |protocol, cx| protocol.on_peer(cx, event));
    }

    /// Keeps draining sessions while a protocol needs them.
    fn hold_draining(&mut self, now: Instant) {
        for session in &self.draining {
            let is_held = self.protocols.entries.iter().any(|p| p.needs_session(*session));
            self.endpoint.hold_session(now, *session, is_held);
        }
    }

    #[inline]
    fn on_session_event(
        &mut self,
        now: Instant,
        peer: NodeId,
        session: SessionId,
        event: SessionEvent,
    ) {
        match event {
            SessionEvent::Message { stream_id: id, subprotocol, class, message, credit } => {
                let stream = StreamRef { peer, session, id, subprotocol };
                let Some(index) = self.protocols.find(subprotocol) else {
                    return self.endpoint.count_dropped(DropReason::UnknownSubprotocol);
                };
                let (protocol, mut cx) = self.split(now, index);
                protocol.on_message(&mut cx, stream, Message { class, bytes: message, credit });
            }
            SessionEvent::Stream { stream_id: id, subprotocol, event } => {
                let stream = StreamRef { peer, session, id, subprotocol };
                if let Some(index) = self.protocols.find(subprotocol) {
                    let (protocol, mut cx) = self.split(now, index);
                    protocol.on_stream(&mut cx, stream, event);
                } else if matches!(event, StreamEvent::Opened { .. }) {
                    self.endpoint.reset_stream(now, session, id, ResetReason::Refused);
                }
            }
            SessionEvent::Confirmed | SessionEvent::Closed { .. } => {}
        }
    }

    /// When [`Mesh::handle_timeout`] is to be called next; it may find nothing to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        let protocols = self.protocols.entries.iter().filter_map(|p| p.next_timeout());
        protocols.chain(self.endpoint.next_timeout()).min()
    }

    /// Does what is due and what follows from it.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.next_timeout()) {
            self.endpoint.handle_timeout(now);
            self.each(now, |protocol, cx| {
                if is_due(protocol.next_timeout()) {
                    protocol.on_timeout(cx);
                }
            });
        }
        self.process(now);
    }

    /// Appends the next datagrams to `out`; see [`Endpoint::poll_transmit`]. Call
    /// [`Mesh::process`] after the last.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        max_segments: usize,
    ) -> Option<Transmit> {
        self.endpoint.poll_transmit(now, out, max_segments)
    }

    /// Ends everything: sessions are told, then protocols.
    pub fn close(&mut self, now: Instant) {
        self.endpoint.close_all(now, CloseReason::Shutdown);
        self.process(now);
        self.each(now, |protocol, cx| protocol.on_close(cx));
    }

    /// Asserts the invariants of the endpoint, of the table and of each protocol.
    pub fn check_invariants(&self) {
        self.endpoint.check_invariants();
        assert!(self.credit.is_empty(), "credit is held back");
        let is_known = |session: &SessionId| self.endpoint.is_initiator(*session).is_some();
        assert!(self.draining.iter().all(is_known), "a session drains that has ended");
        self.protocols.entries.iter().for_each(|protocol| protocol.check_invariants());
    }
}
