//! What an endpoint is told at its start.
//!
//! Invariants: an endpoint holds only settings that [`EndpointConfig::check`] accepts, and they do
//! not change afterwards.

use core::time::Duration;
use std::collections::BTreeSet;

use net_crypto::{EntityKeypair, MeshSecret};
use net_types::EntityId;
use net_types::limits::{
    BASE_DATAGRAM_BYTES, HEARTBEAT_INTERVAL, MAX_MESH_SECRETS, MAX_PACKET_BYTES,
    ROUTING_HEADER_BYTES,
};
use thiserror::Error;

/// Which peers an endpoint talks to, of those that know the mesh secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerPolicy {
    /// Every holder of the mesh secret.
    Open,
    /// Only these identities.
    Only(BTreeSet<EntityId>),
}

impl PeerPolicy {
    pub(crate) fn allows(&self, entity: &EntityId) -> bool {
        match self {
            Self::Open => true,
            Self::Only(allowed) => allowed.contains(entity),
        }
    }
}

/// Settings of an endpoint.
pub struct EndpointConfig {
    /// The node's identity.
    pub identity: EntityKeypair,
    /// Mesh secrets that are accepted, one or, during rotation, two; dials use the first.
    pub secrets: Vec<MeshSecret>,
    /// Whether an all-zero secret, a mesh without one, is meant.
    pub allow_open_mesh: bool,
    /// Which identities may be peers.
    pub policy: PeerPolicy,
    /// Largest datagram this node takes, from 1,232 to 8,210 bytes.
    pub max_datagram_bytes: usize,
    /// Silence after which a session sends a heartbeat, 50 ms to 4 s.
    pub heartbeat_interval: Duration,
    /// Whether AES-256-GCM is offered; it should be exactly when the CPU has AES instructions.
    pub offer_aes: bool,
    /// Epoch of this identity's signatures.
    pub generation: u32,
}

impl EndpointConfig {
    /// Defaults around an identity and a mesh secret.
    pub fn new(identity: EntityKeypair, secret: MeshSecret) -> Self {
        Self {
            identity,
            secrets: vec![secret],
            allow_open_mesh: false,
            policy: PeerPolicy::Open,
            max_datagram_bytes: MAX_PACKET_BYTES + ROUTING_HEADER_BYTES,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            offer_aes: net_crypto::has_hardware_aes(),
            generation: 0,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let field = |field, reason| Err(ConfigError { field, reason });
        if self.secrets.is_empty() || self.secrets.len() > MAX_MESH_SECRETS {
            return field("secrets", "one or two mesh secrets are needed");
        }
        if !self.allow_open_mesh && self.secrets.iter().any(MeshSecret::is_open) {
            return field("secrets", "an all-zero secret needs allow_open_mesh");
        }
        let largest = MAX_PACKET_BYTES + ROUTING_HEADER_BYTES;
        if !(BASE_DATAGRAM_BYTES..=largest).contains(&self.max_datagram_bytes) {
            return field("max_datagram_bytes", "must be 1,232 to 8,210");
        }
        // Four seconds keep three heartbeats below the session timeout.
        let beats = Duration::from_millis(50)..=Duration::from_secs(4);
        if !beats.contains(&self.heartbeat_interval) {
            return field("heartbeat_interval", "must be 50 ms to 4 s");
        }
        Ok(())
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct ConfigError {
    /// The setting.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub reason: &'static str,
}
