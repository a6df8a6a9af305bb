//! A node of the mesh without I/O: the endpoint, with every session, handshake and path behind one
//! UDP port, and the table of protocols that use them.
//!
//! A [`Mesh`] is an endpoint and its [`Protocols`]. It takes the same inputs as the endpoint and gives
//! each message and event to the [`Protocol`] of its subprotocol number.
//!
//! An [`Endpoint`] takes datagrams ([`Endpoint::handle_datagram`]), the passing of time
//! ([`Endpoint::handle_timeout`]) and requests to dial, send and close; it gives datagrams
//! ([`Endpoint::poll_transmit`]), [`Event`]s ([`Endpoint::poll_event`]) and the time at which it
//! wants to be called again ([`Endpoint::next_timeout`]). After any input, drain transmits and
//! events. Time and randomness come from the caller, maps are never iterated in an order that
//! depends on hashing, so equal inputs give equal bytes.
//!
//! Invariants: identity comes from a finished handshake alone; no handshake disturbs a live session
//! before its keys are confirmed; a packet from a stranger changes only bounded counters.

mod answer;
mod config;
mod dial;
mod endpoint;
mod event;
mod handshakes;
mod mesh;
mod pacer;
mod peers;
mod protocol;
mod session_table;
mod sessions;
mod timers;
mod transmit;

pub use config::{ConfigError, EndpointConfig, PeerPolicy};
pub use dial::DialError;
pub use endpoint::Endpoint;
pub use event::{Event, PeerStatus, Population};
pub use mesh::{Entry, Mesh, Protocols};
pub use protocol::{Cx, Message, PeerEvent, Protocol, StreamRef};
pub use transmit::Transmit;

pub use net_session::{
    Class, CloseCause, CloseReason, Counters, DropReason, Event as SessionEvent, OpenError,
    ResetReason, SendError, Stats, StreamConfig, StreamEvent, StreamMode, Subprotocol,
};
