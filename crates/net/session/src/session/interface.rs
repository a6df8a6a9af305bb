//! What a session's owner gives it and gets from it.
//!
//! Invariants: the id, both identities and the suite are those of the handshake and do not change;
//! lengths of packets include header and tag.

use core::net::SocketAddr;
use core::time::Duration;

use net_crypto::{DirectionSecret, Suite};
use net_types::{EntityId, SessionId};
use thiserror::Error;

/// Where packets of a session go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The peer's address, or the relay's.
    pub addr: SocketAddr,
    /// Whether a relay is between: packets then carry a routing header.
    pub is_routed: bool,
}

impl Path {
    /// A path without a relay.
    pub fn direct(addr: SocketAddr) -> Self {
        Self { addr, is_routed: false }
    }
}

/// What a handshake leaves and the owner decides.
pub struct SessionParams {
    /// The session's id.
    pub id: SessionId,
    /// This side.
    pub own: EntityId,
    /// The authenticated peer.
    pub peer: EntityId,
    /// Whether this side sent the Init.
    pub is_initiator: bool,
    /// Cipher of both directions.
    pub suite: Suite,
    /// Root of the sending keys.
    pub send: DirectionSecret,
    /// Root of the receiving keys.
    pub receive: DirectionSecret,
    /// Where packets go.
    pub path: Path,
    /// Largest datagram the peer takes.
    pub peer_max_datagram_bytes: u16,
    /// Round trip of the handshake, or a guess on the responder's side.
    pub first_rtt: Duration,
    /// Silence after which a heartbeat is sent.
    pub heartbeat_interval: Duration,
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Answered an Init; sends nothing until the peer proves its keys, and ends without the proof.
    Provisional,
    /// In use.
    Established,
    /// Another session took over; this one ends when both sides are done, or after its time.
    Draining,
    /// Over.
    Closed,
}

/// Why a message was not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// The queue is full; [`crate::StreamEvent::Writable`] follows.
    #[error("the stream's queue is full")]
    Backpressure,
    /// The message is longer than a message may be.
    #[error("the message is longer than {} bytes", net_types::limits::MAX_MESSAGE_BYTES)]
    TooLarge,
    /// The session has no such stream, or its end was sent.
    #[error("the stream is closed")]
    StreamClosed,
    /// The session is over.
    #[error("the session is closed")]
    SessionClosed,
}

/// A packet that [`crate::Session::poll_packet`] appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Where it goes.
    pub to: Path,
    /// Its bytes.
    pub len: usize,
}

/// Figures of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Smoothed round-trip time, the wait of acknowledgements for a packet to ride on included.
    pub rtt: Duration,
    /// Largest packet, bytes.
    pub packet_bytes: usize,
    /// Congestion window, packets.
    pub cwnd_packets: u32,
    /// Unacknowledged packets.
    pub in_flight_packets: u32,
    /// Open streams.
    pub streams: usize,
}
