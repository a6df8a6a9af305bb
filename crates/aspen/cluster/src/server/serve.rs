//! A node's services on the mesh.

use std::sync::Arc;

use aspen_api::service;
use bytes::Bytes;
use net_node::{
    HandlerFuture, MeshNode, RpcContext, RpcFailure, RpcHandler, ServeError, ServeHandle,
};
use net_types::EntityId;

use super::requests::{Admitted, RequestServer, refusal};
use crate::net::service_name;
use crate::node::ClusterNode;

async fn carry_out(admitted: Admitted, client: EntityId, body: Bytes) -> Result<Bytes, RpcFailure> {
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
        let raft: Arc<dyn RpcHandler> = Arc::new(move |context: RpcContext, body| {
            let node = for_raft.clone();
            HandlerFuture::later(async move { Ok(node.handle_raft(context.entity, body).await) })
        });
        let for_clients = server.clone();
        let sessions = mesh.clone();
        let client: Arc<dyn RpcHandler> = Arc::new(move |context: RpcContext, body: Bytes| {
            let connected = || sessions.peers().into_iter().map(|(_, peer)| peer.entity).collect();
            match for_clients.admit(context.entity, body.len(), connected) {
                Ok(admitted) => HandlerFuture::later(carry_out(admitted, context.entity, body)),
                Err(error) => HandlerFuture::ready(Ok(refusal(error))),
            }
        });
        let raft = mesh.serve(service_name(service::RAFT), raft)?;
        Ok(Self { _handles: [raft, mesh.serve(service_name(service::CLIENT), client)?] })
    }
}
