//! The RPC service `aspen` of a node: requests of clients and of other nodes.
//!
//! A request passes the limits of its client ([`Admission`]), then the node's [`Registry`] carries it
//! out. Invariants: what was admitted is counted out exactly once; a node that drains admits nothing
//! more, and is drained once nothing is under way.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aspen_api::cluster::Done;
use aspen_api::service::{self, Origin, Registry, RouteCounts, Services};
use aspen_api::{ApiError, Response, Revision};
use bytes::Bytes;
use net_metrics::{Families, collector};
use net_node::{HandlerFuture, MeshNode, RpcContext, RpcHandler, ServeError, ServeHandle};
use net_types::EntityId;
use prometheus::core::Collector;
use tokio::sync::Notify;

use super::admission::{Admission, Refusal};
use crate::condition::stopped;
use crate::net::service_name;
use crate::node::ClusterNode;

/// Answers the requests that reach a node. Clones are handles of the same one.
#[derive(Clone)]
pub struct RequestServer(Arc<Inner>);

struct Inner {
    node: ClusterNode,
    registry: Arc<Registry>,
    admission: Admission,
    /// Requests that are not answered yet.
    under_way: AtomicU64,
    idle: Notify,
    is_draining: AtomicBool,
}

/// Counts one request until it is answered or given up.
struct UnderWay(Arc<Inner>);

impl UnderWay {
    fn begin(server: &Arc<Inner>) -> Self {
        server.under_way.fetch_add(1, Ordering::AcqRel);
        Self(server.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let was_last = self.0.under_way.fetch_sub(1, Ordering::AcqRel) == 1;
        if was_last && self.0.is_draining.load(Ordering::Relaxed) {
            self.0.idle.notify_waiters();
        }
    }
}

/// One request of a client that has room; its room is free again when this is dropped.
struct Admitted {
    server: Arc<Inner>,
    client: Option<EntityId>,
    bytes: usize,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.server.admission.leave(self.client, self.bytes);
    }
}

impl RequestServer {
    /// Serves the requests that `registry` knows, of at most `max_clients` clients.
    pub fn new(node: ClusterNode, registry: Registry, max_clients: usize) -> Self {
        Self(Arc::new(Inner {
            node,
            registry: Arc::new(registry),
            admission: Admission::new(max_clients),
            under_way: AtomicU64::new(0),
            idle: Notify::new(),
            is_draining: AtomicBool::new(false),
        }))
    }

    /// The node's services for callers of one origin.
    pub fn services(&self, origin: Origin) -> Services {
        Services::new(self.0.registry.clone(), origin)
    }

    /// The node's services.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Answers one message of a peer, whose identity the transport has authenticated.
    pub async fn handle(&self, from: EntityId, body: Bytes) -> Bytes {
        let _under_way = UnderWay::begin(&self.0);
        if self.0.is_draining.load(Ordering::Relaxed) {
            return refusal(stopped());
        }
        self.0.registry.dispatch(Origin::Mesh(from), body).await
    }

    /// Lets a request in. `connected` tells which clients have a session with this node.
    ///
    /// `SERVICE_UNAVAILABLE` beyond the limits of clients, of requests and of bytes.
    fn admit(
        &self,
        client: EntityId,
        bytes: usize,
        connected: impl FnOnce() -> HashSet<EntityId>,
    ) -> Result<Admitted, ApiError> {
        let (admission, consensus) = (&self.0.admission, self.0.node.consensus());
        let client = match admission.enter(client, bytes, consensus.config.clock.now(), connected) {
            Err(_) if consensus.is_member(client) => admission.enter_member(bytes).map(|()| None),
            result => result.map(|()| Some(client)),
        };
        match client {
            Ok(client) => Ok(Admitted { server: self.0.clone(), client, bytes }),
            Err(refusal) => Err(admission.refuse(refusal)),
        }
    }

    /// Refuses new requests and waits at most `limit` for those under way; whether none is left.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.0.is_draining.store(true, Ordering::Relaxed);
        let drained = async {
            loop {
                let idle = self.0.idle.notified();
                if self.0.under_way.load(Ordering::Acquire) == 0 {
                    return;
                }
                idle.await;
            }
        };
        tokio::time::timeout(limit, drained).await.is_ok()
    }

    /// What the server measures.
    pub fn collector(&self) -> Box<dyn Collector> {
        let server = self.clone();
        collector("requests", move |out| server.collect(out))
    }

    fn collect(&self, out: &mut Families) {
        let each =
            |of: fn(&RouteCounts) -> u64| self.0.registry.counts().map(move |c| (c.name, of(c)));
        let (name, help) = ("aspen_requests_total", "Requests that arrived.");
        out.counters(name, help, "request", each(|c| c.requests()));
        let (name, help) = ("aspen_errors_total", "Requests answered with an error.");
        out.counters(name, help, "request", each(|c| c.errors()));
        let (clients, refused) = self.0.admission.counts();
        out.gauge("aspen_clients", "Clients with a place.", clients as f64);
        for (name, help, refusal) in [
            (
                "aspen_clients_refused_total",
                "Requests of clients without a place.",
                Refusal::Clients,
            ),
            (
                "aspen_client_requests_refused_total",
                "Requests beyond a client's limit.",
                Refusal::Requests,
            ),
            ("aspen_request_bytes_refused_total", "Requests beyond the memory.", Refusal::Bytes),
        ] {
            out.counter(name, help, refused[refusal as usize]);
        }
    }
}

/// The response to a request that is not carried out.
fn refusal(error: ApiError) -> Bytes {
    Response::<Done> { applied: Revision(0), result: Err(error) }.encode()
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
                Ok(admitted) => {
                    let server = for_clients.clone();
                    HandlerFuture::later(async move {
                        let answer = server.handle(context.entity, body).await;
                        drop(admitted);
                        Ok(answer)
                    })
                }
                Err(error) => HandlerFuture::ready(Ok(refusal(error))),
            }
        });
        let raft = mesh.serve(service_name(service::RAFT), raft)?;
        Ok(Self { _handles: [raft, mesh.serve(service_name(service::CLIENT), client)?] })
    }
}
