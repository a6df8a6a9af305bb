//! Consensus between members: the messages, and both ends of them over a transport.

mod client;
mod mesh;
mod message;
mod peers;
mod pipeline;
mod server;
mod standing;
mod transport;
mod trust;

pub(crate) use client::RaftDialer;
pub use mesh::MeshTransport;
pub(crate) use mesh::service_name;
pub(crate) use message::MAX_ENTRIES_BYTES;
pub use message::decode_anything;
pub(crate) use peers::Peers;
pub(crate) use server::RaftService;
pub use transport::{Transport, TransportError, TransportFuture};
pub(crate) use trust::Trust;
