//! Consensus: openraft on Net with a durable log and state.
//!
//! [`ClusterNode`] is a member: it opens its data folder ([`disk`]), keeps the replicated log
//! ([`log`]) and the state that the log leads to ([`StoreView`]), takes part in consensus over a
//! [`Transport`], and answers the requests of [`aspen_api`].
//!
//! What makes a write durable is one synced append to the log of each member of a quorum; the state
//! is checkpointed from time to time, so that the log before it can go. `docs/format-log.md` describes
//! the log's bytes. Everything that touches time, randomness, the network or a disk is an argument,
//! so that a whole cluster runs on one thread from one seed ([`seed_this_thread`]).

pub mod clock;
mod condition;
mod net;
mod node;
mod runtime;
mod server;
mod services;
mod snapshot;
mod state;
mod storage;
#[cfg(test)]
mod testing;
mod types;

pub use aspen_log as log;
pub use aspen_log::disk;
pub use net::{MeshTransport, Transport, TransportError, TransportFuture, decode_anything};
pub use node::{
    AuthContext, Authorizer, CheckTokens, CheckpointPolicy, ClusterConfig, ClusterNode, Forwarding,
    MembersWatch, NodeStore, StartError, Timing, TrustMesh,
};
pub use runtime::{Blocking, seed_this_thread};
pub use server::{ClusterServices, RequestServer};
pub use services::{MembersService, NodeService, core_services};
pub use state::{Rows, Slice, StoreError, StoreTables, StoreView};
