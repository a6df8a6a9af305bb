//! What a session tells its owner, and what every input carries.

use std::collections::VecDeque;

use bytes::Bytes;
use net_crypto::Seeded;
use net_types::{Instant, StreamId};
use net_wire::{Class, CloseReason, ResetReason, StreamMode, Subprotocol};

use crate::Counters;

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// The peer said so.
    Peer(CloseReason),
    /// This side said so.
    Local(CloseReason),
    /// Nothing authentic came for too long.
    Timeout,
    /// The keys or counters cannot continue.
    Exhausted,
}

/// Something the owner of a session must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer proved that it holds the session's keys; before that nothing is sent.
    Confirmed,
    /// A whole message arrived.
    Message {
        /// The stream.
        stream_id: StreamId,
        /// Who handles it.
        subprotocol: Subprotocol,
        /// Scheduling class of the packet that completed it.
        class: Class,
        /// The message.
        message: Bytes,
        /// Bytes to hand to [`crate::Session::consume`] once the application has taken it.
        credit: u32,
    },
    /// The peer opened a stream.
    StreamOpened {
        /// The stream.
        stream_id: StreamId,
        /// Its delivery.
        mode: StreamMode,
        /// Who handles it.
        subprotocol: Subprotocol,
    },
    /// Everything the peer sent on the stream has been delivered.
    StreamFinished {
        /// The stream.
        stream_id: StreamId,
    },
    /// Everything sent on the stream, its end included, has been acknowledged.
    StreamFlushed {
        /// The stream.
        stream_id: StreamId,
    },
    /// The stream ended by force.
    StreamReset {
        /// The stream.
        stream_id: StreamId,
        /// Why.
        reason: ResetReason,
        /// Whether the peer did it.
        by_peer: bool,
    },
    /// A stream that refused a message has room again.
    Writable {
        /// The stream.
        stream_id: StreamId,
    },
    /// The session is over; nothing follows.
    Closed {
        /// Why.
        cause: CloseCause,
    },
}

/// What every input of a session takes from its owner.
pub struct Context<'a> {
    /// The present.
    pub now: Instant,
    /// Randomness for challenges.
    pub rng: &'a mut Seeded,
    /// Counters of the node.
    pub counters: &'a mut Counters,
    /// Where events go.
    pub events: &'a mut VecDeque<Event>,
}
