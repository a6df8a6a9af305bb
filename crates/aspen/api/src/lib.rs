//! What a cluster can be asked and what it answers, and the names both sides share.
//!
//! A [`Request`] is declared once, at its type: number, reply, who answers it, what its caller needs.
//! A [`Service`](service::Service) answers the requests of one family, and a
//! [`Registry`](service::Registry) carries requests to services. [`KeyValueStore`] is the replicated
//! store as services and clients hold it. Bodies have one fixed encoding ([`codec`]).
//!
//! Invariants: nothing here performs I/O or reads a clock; a decoded value is well-formed and within
//! its limits; numbers and layouts never change their meaning.

pub mod cluster;
pub mod codec;
mod error;
mod frame;
mod key;
pub mod kv;
pub mod lease;
mod needs;
mod number;
mod request;
mod secret;
pub mod service;
mod store;
#[cfg(feature = "test-util")]
pub mod testing;
mod ticket;

pub use error::{ApiError, ErrorCode};
pub use frame::{
    ClientId, EncodedReply, FRAME_VERSION, RequestFrame, RequestId, Response, unreadable_answer,
};
pub use key::{Key, KeyError, LeaseId, MemberId, Prefix, Revision};
pub use needs::{Action, Needs, Over, RESERVED_PREFIXES, Right};
pub use net_wire::MeshTicket;
pub use number::{Level, Number, family};
pub use request::{Kind, Request, RequestVisitor};
pub use secret::SecretText;
pub use store::{Answer, CompareAndSwapResult, DeleteResult, KeyValueStore, WriteResult};
pub use ticket::{ClusterId, ClusterTicket, ClusterTicketError, MeshKey};
