//! The client as a program holds it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aspen_api::codec::Wire;
use aspen_api::{ApiError, ClusterTicket, Request, RequestId, unreadable_answer};
use bytes::Bytes;
use net_node::{BindError, EntityKeypair, MeshConfig, MeshNode, MeshSecret, PeerAddr};
use net_types::limits::DEFAULT_REQUEST_DEADLINE;
use net_types::{EntityId, lock};
use rand_core::{OsRng, RngCore};
use thiserror::Error;
use tokio::time::Instant;

use crate::judgement::unanswered;
use crate::requests::Requests;
use crate::routing::Routing;

/// Settings of a client.
pub struct ClientOptions {
    /// Time for one request, all attempts together.
    pub deadline: Duration,
    /// The identity to appear with; absent makes one up.
    pub identity: Option<EntityKeypair>,
    /// Whether to ask a leader that is named by a member but not in the ticket.
    pub should_follow_leader: bool,
    /// A capability token to send with every request.
    pub token: Option<Bytes>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            deadline: DEFAULT_REQUEST_DEADLINE,
            identity: None,
            should_follow_leader: true,
            token: None,
        }
    }
}

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The ticket names no member.
    #[error("the ticket names no member of the cluster")]
    NoPeers,
    /// The system gives no randomness.
    #[error("the system's random source failed: {0}")]
    Random(String),
    /// No socket.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// A cluster, as a program holds it. Cheap to clone; clones share sessions and what is known about
/// the leader.
///
/// A write keeps one id through all its attempts, so that it is applied at most once however
/// often it had to be sent.
#[derive(Clone)]
pub struct Client {
    requests: Arc<Requests>,
}

impl Client {
    /// A client of the cluster that a ticket names, on a node of its own, which runs on the present
    /// tokio runtime. Sessions are made when they are first needed.
    pub fn connect(ticket: &ClusterTicket, options: ClientOptions) -> Result<Self, ConnectError> {
        let peers = ticket.peers();
        let bind = bind_address(peers).ok_or(ConnectError::NoPeers)?;
        let identity = match options.identity.clone() {
            Some(identity) => identity,
            None => {
                let mut seed = [0; 32];
                OsRng
                    .try_fill_bytes(&mut seed)
                    .map_err(|error| ConnectError::Random(error.to_string()))?;
                EntityKeypair::from_seed(seed)
            }
        };
        let secret = MeshSecret::new(ticket.mesh_key.0);
        let node = MeshNode::bind(MeshConfig::new(identity, secret, bind))?;
        Self::over(node, peers.to_vec(), options)
    }

    /// A client over a node that exists already. `peers` are the members to ask, in order.
    pub fn over(
        node: MeshNode,
        peers: Vec<PeerAddr>,
        options: ClientOptions,
    ) -> Result<Self, ConnectError> {
        if peers.is_empty() {
            return Err(ConnectError::NoPeers);
        }
        let routing = Routing::new(node, peers, options.token, options.should_follow_leader);
        let requests = Requests::new(routing, options.deadline);
        Ok(Self { requests: Arc::new(requests) })
    }

    /// Carries out one request within the client's deadline.
    ///
    /// `TIMEOUT`, `SESSION_EXPIRED` and `INTERNAL_ERROR` leave open whether a write happened; with
    /// any other error it did not and will not. A write that a node leaves open is asked again; if
    /// no answer settles it, `TIMEOUT` is returned, whatever later attempts were refused with.
    pub async fn send<R: Request>(&self, request: R) -> Result<R::Reply, ApiError> {
        self.send_within(request, self.requests.deadline).await
    }

    /// Carries out one request within a deadline of its own.
    pub async fn send_within<R: Request>(
        &self,
        request: R,
        deadline: Duration,
    ) -> Result<R::Reply, ApiError> {
        self.requests.send(request, deadline).await
    }

    /// Asks one node, once: what it says of itself.
    pub async fn send_to<R: Request>(
        &self,
        peer: &PeerAddr,
        request: R,
    ) -> Result<R::Reply, ApiError> {
        request.check()?;
        let until = Instant::now() + self.requests.deadline;
        let _turn = self.requests.turn(until).await?;
        let body = self.requests.routing.frame(&request, RequestId::NONE);
        let left = until.saturating_duration_since(Instant::now());
        let answer = self.requests.routing.call(peer, body, left, &AtomicBool::new(false)).await;
        let reply = answer.map_err(|error| unanswered(&error))?.result?;
        R::Reply::from_bytes(reply.0).map_err(|error| unreadable_answer(&error))
    }

    /// The mesh node underneath.
    pub fn node(&self) -> &MeshNode {
        &self.requests.routing.node
    }

    /// Ends all sessions. Requests under way fail.
    pub async fn shutdown(&self) {
        self.requests.routing.node.shutdown().await;
    }
}

/// Any port of the family of the first address, on loopback if all addresses are.
fn bind_address(peers: &[PeerAddr]) -> Option<SocketAddr> {
    let mut addrs = peers.iter().flat_map(|peer| &peer.addrs);
    let is_loopback = addrs.clone().all(|addr| addr.ip().is_loopback());
    let ip = match (addrs.next()?, is_loopback) {
        (SocketAddr::V4(_), true) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        (SocketAddr::V4(_), false) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (SocketAddr::V6(_), true) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        (SocketAddr::V6(_), false) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    Some(SocketAddr::new(ip, 0))
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let peers: Vec<EntityId> = lock(&self.requests.routing.peers).entities().collect();
        f.debug_struct("Client").field("peers", &peers).finish_non_exhaustive()
    }
}
