//! What the endpoint tells its driver.
//!
//! Invariants: [`Event::Connected`] comes before what happened inside its session, and one
//! [`Event::Disconnected`] after it; a provisional session reports nothing.

use core::time::Duration;

use net_session::{CloseCause, Event as SessionEvent};
use net_types::{EntityId, NodeId, SessionId};

use crate::DialError;

/// An event for the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session is up. [`crate::Endpoint::live_session`] names the one to use for a peer, which
    /// is this one unless dials of both sides crossed.
    Connected {
        /// The peer.
        peer: NodeId,
        /// Its identity.
        entity: EntityId,
        /// The session.
        session: SessionId,
        /// Whether this side dialled.
        is_initiator: bool,
    },
    /// Another session took over from this one, which ends when nothing is under way on it.
    /// [`crate::Endpoint::hold_session`] keeps it longer.
    Draining {
        /// The session.
        session: SessionId,
    },
    /// A session is over. Another one with the same peer may be up already.
    Disconnected {
        /// The peer.
        peer: NodeId,
        /// The session.
        session: SessionId,
        /// Why.
        cause: CloseCause,
        /// Whether it was the one in use.
        was_live: bool,
    },
    /// A dial ended without a session.
    DialFailed {
        /// The peer that was dialled.
        peer: NodeId,
        /// Why.
        error: DialError,
    },
    /// Something happened inside a session.
    Session {
        /// The peer.
        peer: NodeId,
        /// The session.
        session: SessionId,
        /// What happened.
        event: SessionEvent,
    },
}

/// Current figures of a peer with a session in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub entity: EntityId,
    /// The session in use.
    pub session: SessionId,
    /// Whether this side dialled it.
    pub is_initiator: bool,
    /// Smoothed round-trip time, the wait of acknowledgements for a packet to ride on included.
    pub rtt: Duration,
    /// Largest packet of the path, bytes.
    pub packet_bytes: usize,
    /// Congestion window, packets.
    pub cwnd_packets: u32,
    /// Time since something authentic came.
    pub silence: Duration,
}

/// How much an endpoint holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Population {
    /// Sessions, provisional and draining ones included.
    pub sessions: usize,
    /// Sessions that wait for the peer's proof.
    pub provisional: usize,
    /// Dials under way.
    pub dials: usize,
    /// Peers with a session, a dial or a known address.
    pub peers: usize,
    /// Sessions and dials that wait for a time.
    pub timers: usize,
}
