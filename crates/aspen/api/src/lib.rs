//! What a cluster can be asked and what it answers, and the names both sides share.
//!
//! Requests and responses carry explicit numbers ([`Request`], [`Response`]) around bodies with one
//! fixed encoding ([`codec`]). Nothing here performs I/O or reads a clock. Decoded values are
//! well-formed and within their limits; whether the caller may do what it asks is decided
//! elsewhere, with [`touches`] and [`reserved_prefix_of`] naming what a request reaches.

pub mod cluster;
pub mod codec;
mod envelope;
mod error;
mod key;
pub mod kv;
pub mod lease;
mod purpose;
mod reserved;
mod secret;
mod store;
mod ticket;

pub use envelope::{
    AuthenticatedRequest, ClientId, ENVELOPE_VERSION, EnvelopeError, Request, RequestId, Response,
    family, tag,
};
pub use error::{ApiError, ErrorCode};
pub use key::{Key, KeyError, LeaseId, MemberId, Prefix, Revision};
pub use net_wire::MeshTicket;
pub use purpose::Purpose;
pub use reserved::{RESERVED_PREFIXES, Touch, reserved_prefix_of, touches};
pub use secret::SecretText;
pub use store::{Exchange, KeyValueStore, StoreRequest};
pub use ticket::{ClusterId, ClusterTicket, ClusterTicketError, MeshKey};

/// Names of the RPC services that nodes offer.
pub mod service {
    /// Requests of clients and of other nodes.
    pub const CLIENT: &str = "aspen";
    /// Consensus traffic between members.
    pub const RAFT: &str = "raft";
}
