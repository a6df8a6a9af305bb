//! A protocol of the mesh: a state machine behind subprotocol numbers.
//!
//! A [`Protocol`] gets the messages and events of the streams under its numbers, the events of
//! peers, and the passing of time. It acts through a [`Cx`], which holds the time, randomness
//! and the endpoint. It reads no clock, waits for nothing and sees no other protocol.
//!
//! Invariants: a stream belongs to the protocol of its number from its opening to its end; the
//! credit of consecutive messages of one stream returns to the peer in one step.

use core::any::Any;
use core::ops::RangeInclusive;

use bytes::Bytes;
use net_crypto::{RngCore, Seeded};
use net_session::{
    Class, CloseReason, DropReason, OpenError, ResetReason, SendError, StreamConfig, StreamEvent,
    Subprotocol,
};
use net_types::{EntityId, Instant, NodeId, SessionId, StreamId};

use crate::{DialError, Endpoint};

/// A stream of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRef {
    /// The peer.
    pub peer: NodeId,
    /// The session.
    pub session: SessionId,
    /// The stream.
    pub id: StreamId,
    /// The number that it was opened under.
    pub subprotocol: Subprotocol,
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Scheduling class of the packet that completed it.
    pub class: Class,
    /// The message.
    pub bytes: Bytes,
    /// What to give to [`Cx::consume`] once the message is used.
    pub credit: u32,
}

/// What happened to a peer. Every protocol hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// A session is up.
    Up {
        /// The peer.
        peer: NodeId,
        /// Its identity.
        entity: EntityId,
        /// The session.
        session: SessionId,
        /// Whether this side dialled.
        is_initiator: bool,
    },
    /// A session is over.
    Down {
        /// The peer.
        peer: NodeId,
        /// The session.
        session: SessionId,
    },
    /// A dial ended without a session.
    DialFailed {
        /// The peer.
        peer: NodeId,
        /// Why.
        error: DialError,
    },
}

/// An entry of the table of a [`crate::Mesh`].
pub trait Protocol: Any + Send {
    /// A message arrived on one of the protocol's streams.
    fn on_message(&mut self, cx: &mut Cx<'_>, stream: StreamRef, message: Message);

    /// Something happened to one of the protocol's streams. The peer's streams that it does not
    /// want, it resets when they open.
    fn on_stream(&mut self, cx: &mut Cx<'_>, stream: StreamRef, event: StreamEvent);

    /// Something happened to a peer.
    fn on_peer(&mut self, cx: &mut Cx<'_>, event: &PeerEvent);

    /// When [`Protocol::on_timeout`] is to be called next.
    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// Does what is due.
    fn on_timeout(&mut self, _cx: &mut Cx<'_>) {}

    /// Whether the protocol still waits for something on a draining session.
    fn needs_session(&self, _session: SessionId) -> bool {
        false
    }

    /// The node stops; every session is closed.
    fn on_close(&mut self, _cx: &mut Cx<'_>) {}

    /// Asserts the protocol's invariants.
    fn check_invariants(&self) {}
}

/// Credit of consecutive messages of one stream, returned in one step.
#[derive(Default)]
pub(crate) struct CreditBatch(Option<(SessionId, StreamId, u32)>);

impl CreditBatch {
    fn add(
        &mut self,
        endpoint: &mut Endpoint,
        now: Instant,
        session: SessionId,
        stream: StreamId,
        credit: u32,
    ) {
        match &mut self.0 {
            Some((s, id, sum)) if *s == session && *id == stream => {
                *sum = sum.saturating_add(credit);
            }
            _ => {
                self.settle(endpoint, now);
                self.0 = Some((session, stream, credit));
            }
        }
    }

    #[inline]
    pub(crate) fn settle(&mut self, endpoint: &mut Endpoint, now: Instant) {
        if let Some((session, stream, sum)) = self.0.take() {
            endpoint.consume(now, session, stream, sum);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// Ranges of numbers, each with the index of its protocol.
pub(crate) type Numbers = [(RangeInclusive<Subprotocol>, usize)];

/// The index of a number's protocol.
#[inline]
pub(crate) fn find(numbers: &Numbers, number: Subprotocol) -> Option<usize> {
    numbers.iter().find(|(range, _)| range.contains(&number)).map(|(_, index)| *index)
}

/// What a protocol acts through.
pub struct Cx<'a> {
    pub(crate) now: Instant,
    pub(crate) endpoint: &'a mut Endpoint,
    pub(crate) rng: &'a mut Seeded,
    pub(crate) credit: &'a mut CreditBatch,
    /// The numbers of the table, and the index of this protocol.
    pub(crate) own: (&'a Numbers, usize),
}

impl Cx<'_> {
    /// A stream under another protocol's number would be opened for that protocol: a fault of the
    /// caller's code.
    fn check_number(&self, number: Subprotocol) {
        let (numbers, own) = self.own;
        debug_assert_eq!(find(numbers, number), Some(own), "{number:?} is another protocol's");
    }

    /// The current time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A fresh random number.
    pub fn random(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.endpoint.node_id()
    }

    /// The session in use for a peer.
    pub fn live_session(&self, peer: NodeId) -> Option<SessionId> {
        self.endpoint.live_session(peer)
    }

    /// Opens a stream under one of the protocol's numbers; debug builds check that it is one.
    pub fn open_stream(
        &mut self,
        session: SessionId,
        config: StreamConfig,
    ) -> Result<StreamId, OpenError> {
        self.check_number(config.subprotocol);
        self.endpoint.open_stream(self.now, session, config)
    }

    /// Opens a stream whose id both sides know by convention; does nothing when it is open.
    pub fn ensure_stream(
        &mut self,
        session: SessionId,
        id: StreamId,
        config: StreamConfig,
    ) -> Result<(), OpenError> {
        self.check_number(config.subprotocol);
        self.endpoint.ensure_stream(self.now, session, id, config)
    }

    /// Queues a message; a long one is not copied.
    pub fn send(
        &mut self,
        session: SessionId,
        stream: StreamId,
        message: Bytes,
    ) -> Result<(), SendError> {
        self.endpoint.send(self.now, session, stream, message)
    }

    /// Queues a message that `write` appends, at most `len` bytes long.
    #[inline]
    pub fn send_with(
        &mut self,
        session: SessionId,
        stream: StreamId,
        len: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SendError> {
        self.endpoint.send_with(self.now, session, stream, len, write)
    }

    /// Returns the credit of a message that is used.
    pub fn consume(&mut self, session: SessionId, stream: StreamId, credit: u32) {
        self.credit.add(self.endpoint, self.now, session, stream, credit);
    }

    /// Ends the sending half of a stream after everything queued.
    pub fn finish_stream(&mut self, session: SessionId, stream: StreamId) {
        self.endpoint.finish_stream(self.now, session, stream);
    }

    /// Ends a stream by force.
    pub fn reset_stream(&mut self, session: SessionId, stream: StreamId, reason: ResetReason) {
        self.endpoint.reset_stream(self.now, session, stream, reason);
    }

    /// Ends a session.
    pub fn close_session(&mut self, session: SessionId, reason: CloseReason) {
        self.endpoint.close_session(self.now, session, reason);
    }

    /// Counts a message that the protocol could not use.
    pub fn count_dropped(&mut self, reason: DropReason) {
        self.endpoint.count_dropped(reason);
    }
}
