//! What a node is told at its start, and how starting and connecting fail.
//!
//! Invariants: settings are read once, when the node binds; a failure to start names the setting or
//! the address.

use std::io;
use std::net::SocketAddr;

use net_mesh_core::{ConfigError, DialError, EndpointConfig, Protocols};
use thiserror::Error;

use crate::{EntityKeypair, MeshSecret};

/// Settings of a node.
pub struct MeshConfig {
    /// Where to listen; port 0 picks a free one.
    pub bind: SocketAddr,
    /// Bytes asked of the kernel for each direction of the socket.
    pub socket_buffer_bytes: usize,
    /// Identity, secrets and limits of the endpoint.
    pub endpoint: EndpointConfig,
    /// Protocols beside calls and the streams of applications, which every node has.
    pub protocols: Protocols,
}

impl MeshConfig {
    /// Defaults around an identity, a mesh secret and an address.
    pub fn new(identity: EntityKeypair, secret: MeshSecret, bind: SocketAddr) -> Self {
        let endpoint = EndpointConfig::new(identity, secret);
        Self { bind, socket_buffer_bytes: 4 << 20, endpoint, protocols: Protocols::default() }
    }
}

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum BindError {
    /// The address cannot be used.
    #[error("cannot listen on UDP {addr}: {source}")]
    Socket {
        /// The address.
        addr: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// A setting cannot be used.
    #[error("bad setting: {0}")]
    Config(#[from] ConfigError),
    /// The system gives no randomness.
    #[error("the system's random source failed: {0}")]
    Random(String),
}

/// Why there is no session with a peer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// The dial failed.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The node shuts down.
    #[error("the node is shutting down")]
    Closed,
}
