//! The mesh as the transport.

use std::time::Duration;

use aspen_api::service;
use bytes::Bytes;
use net_node::{CallOptions, Codec, MeshNode, RpcError, ServiceName};
use net_types::PeerAddr;
use net_wire::Class;

use super::transport::{Transport, TransportError, TransportFuture};

/// Calls other nodes over the mesh.
#[derive(Clone)]
pub struct MeshTransport {
    mesh: MeshNode,
    raft: ServiceName,
    client: ServiceName,
}

/// The name of one of the services of [`aspen_api::service`].
pub(crate) fn service_name(text: &'static str) -> ServiceName {
    ServiceName::new(text).expect("the names in aspen_api::service are valid service names")
}

impl MeshTransport {
    /// Calls go out through `mesh`.
    pub fn new(mesh: MeshNode) -> Self {
        Self { mesh, raft: service_name(service::RAFT), client: service_name(service::CLIENT) }
    }
}

fn error_of(error: RpcError) -> TransportError {
    match error {
        RpcError::Timeout => TransportError::Timeout,
        RpcError::NoRoute(text) => TransportError::Unreachable(text),
        RpcError::Transport | RpcError::Cancelled => TransportError::Unreachable(error.to_string()),
        RpcError::ServerError { .. } | RpcError::Backpressure | RpcError::TooLarge(_) => {
            TransportError::Failed(error.to_string())
        }
    }
}

impl Transport for MeshTransport {
    fn call(
        &self,
        peer: &PeerAddr,
        service: &'static str,
        class: Class,
        body: Bytes,
        deadline: Duration,
    ) -> TransportFuture {
        let Self { mesh, raft, client } = self.clone();
        let peer = peer.entity_id.node_id();
        Box::pin(async move {
            let service = match service {
                service::RAFT => raft,
                service::CLIENT => client,
                name => ServiceName::new(name)
                    .map_err(|error| TransportError::Failed(error.to_string()))?,
            };
            let options = CallOptions { deadline, class, codec: Codec::Raw, headers: Vec::new() };
            let reply = mesh.call(peer, &service, body, options).await;
            reply.map(|reply| reply.body).map_err(error_of)
        })
    }

    fn add_peer(&self, peer: &PeerAddr) {
        self.mesh.add_peer(peer.clone());
    }
}
