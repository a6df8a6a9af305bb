//! The mesh node: a [`net_mesh_core::Mesh`] driven by tokio, one UDP socket and one clock.
//!
//! [`MeshNode`] is the public face of the protocols that every node has, calls and the streams of
//! applications; others are added by [`MeshConfig::protocols`]. One task, the driver, owns the
//! socket: in one turn it reads a batch of datagrams, lets the mesh handle them, polls the handlers
//! of arrived calls once, and writes everything that came of it in one batch. Application calls
//! only change state under a short lock and wake the driver, so concurrent calls leave together.
//!
//! Invariants: of the mesh's crates only this one reads clocks, sockets and the system's random
//! source.

mod call;
mod config;
mod dials;
mod driver;
mod handlers;
mod metrics;
mod node;
mod serve;
mod shared;
mod socket;
mod state;
mod stream;
mod stream_table;

pub use call::PeerCall;
pub use config::{BindError, ConnectError, MeshConfig};
pub use node::MeshNode;
pub use serve::{ServeError, ServeHandle};
pub use stream::{MeshStream, StreamListener};
pub use stream_table::StreamError;

pub use net_crypto::{EntityKeypair, MeshSecret};
pub use net_mesh_core::{
    Class, Cx, DialError, Entry, Message, PeerEvent, PeerPolicy, PeerStatus, Protocol, Protocols,
    ResetReason, StreamConfig, StreamEvent, StreamMode, StreamRef, Subprotocol,
};
pub use net_rpc::{
    CallOptions, Codec, HandlerFuture, RpcContext, RpcError, RpcFailure, RpcHandler, RpcReply,
    ServiceName, ServiceNameError, Status,
};
pub use net_types::{EntityId, NodeId, PeerAddr};
