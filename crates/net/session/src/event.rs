//! What a session tells its owner, and what every input carries.
//!
//! Invariants: [`Event::Confirmed`] comes before everything that the peer sent on a provisional
//! session; [`Event::Closed`] is the last event of a session; a stream of the peer's reports
//! [`StreamEvent::Opened`] before its first message.

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

/// What happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// The peer opened it.
    Opened {
        /// Its delivery.
        mode: StreamMode,
    },
    /// Everything the peer sent on it has been delivered.
    Finished,
    /// Everything sent on it, its end included, has been acknowledged.
    Flushed,
    /// It refused a message and has room again.
    Writable,
    /// It ended by force.
    Reset {
        /// Why.
        reason: ResetReason,
        /// Whether the peer did it.
        by_peer: bool,
    },
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
    /// Something happened to a stream.
    Stream {
        /// The stream.
        stream_id: StreamId,
        /// Who handles it.
        subprotocol: Subprotocol,
        /// What happened.
        event: StreamEvent,
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
