//! The mesh as the transport, and a node's services on it.

use std::sync::Arc;
use std::time::Duration;

use aspen_api::service;
use bytes::Bytes;
use net_node::{
    CallOptions, Codec, HandlerFuture, MeshNode, RpcError, RpcHandler, ServeError, ServeHandle,
    ServiceName,
};
use net_types::{EntityId, PeerAddr};
use net_wire::Class;

use super::{Transport, TransportError, TransportFuture};
use crate::ClusterNode;
use crate::server::{Admitted, RequestServer, refusal};

/// Calls other nodes over the mesh.
#[derive(Clone)]
pub struct MeshTransport {
    mesh: MeshNode,
    raft: ServiceName,
    client: ServiceName,
}

fn name(text: &'static str) -> ServiceName {
    ServiceName::new(text).expect("the names in aspen_api::service are valid service names")
}

impl MeshTransport {
    /// Calls go out through `mesh`.
    pub fn new(mesh: MeshNode) -> Self {
        Self { mesh, raft: name(service::RAFT), client: name(service::CLIENT) }
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
        let this = self.clone();
        let peer = peer.entity_id.node_id();
        Box::pin(async move {
            let other;
            let service = match service {
                service::RAFT => &this.raft,
                service::CLIENT => &this.client,
                name => {
                    other = ServiceName::new(name)
                        .map_err(|error| TransportError::Failed(error.to_string()))?;
                    &other
                }
            };
            let options = CallOptions { deadline, class, codec: Codec::Raw, headers: Vec::new() };
            let reply = this.mesh.call(peer, service, body, options).await;
            reply.map(|reply| reply.body).map_err(error_of)
        })
    }

    fn add_peer(&self, peer: &PeerAddr) {
        self.mesh.add_peer(peer.clone());
    }
}

async fn carry_out(
    admitted: Admitted,
    client: EntityId,
    body: Bytes,
) -> Result<Bytes, net_node::RpcFailure> {
    Ok(RequestServer::carry_out(admitted, client, body).await)
}

/// A node's services; they stop when this is dropped.
#[must_use = "the services stop when this is dropped"]
pub struct ClusterServices {
    _handles: [ServeHandle; 2],
}

impl ClusterServices {
    /// Offers the consensus of `node` and the requests of `server` on `mesh`.
    pub fn serve(
        mesh: &MeshNode,
        node: &ClusterNode,
        server: &RequestServer,
    ) -> Result<Self, ServeError> {
        let for_raft = node.clone();
        let raft: Arc<dyn RpcHandler> = Arc::new(move |context: net_node::RpcContext, body| {
            let node = for_raft.clone();
            HandlerFuture::later(async move { Ok(node.handle_raft(context.entity, body).await) })
        });
        let for_clients = server.clone();
        let sessions = mesh.clone();
        let client: Arc<dyn RpcHandler> =
            Arc::new(move |context: net_node::RpcContext, body: Bytes| {
                let connected =
                    || sessions.peers().into_iter().map(|(_, peer)| peer.entity).collect();
                match for_clients.admit(context.entity, body.len(), connected) {
                    Ok(admitted) => HandlerFuture::later(carry_out(admitted, context.entity, body)),
                    Err(error) => HandlerFuture::ready(Ok(refusal(error))),
                }
            });
        let raft = mesh.serve(name(service::RAFT), raft)?;
        Ok(Self { _handles: [raft, mesh.serve(name(service::CLIENT), client)?] })
    }
}
