//! What a service is, and the registry that carries requests to services.
//!
//! A [`Service`] is a value: it names its [`Family`], gives its [`Routes`] and does what its requests
//! mean. The [`Registry`] is built once from all services of a node. It puts the same frame around
//! every request: decode, rights, level, who may answer, counts, encode. A service sees the store
//! through [`KeyValueStore`](crate::KeyValueStore) and never sees consensus.
//!
//! Invariants: a number has one route, a family one service, a name one service; a request runs
//! only if its [`Guard`] let it pass; every request gets exactly one response.

mod registry;
mod routes;

use core::future::Future;
use core::pin::Pin;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use net_types::EntityId;

use crate::{ApiError, Kind, Level, Needs, RequestId, Revision};

pub use registry::{Registry, RegistryError, Services};
pub use routes::{RouteCounts, Routes};

/// The RPC service of a node that takes requests of clients and of other nodes.
pub const CLIENT: &str = "aspen";
/// The RPC service of a node that takes consensus traffic of members.
pub const RAFT: &str = "raft";

/// A future on the heap, for traits whose implementors are listed at run time.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// When a service starts, relative to others, and which families it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// What everything else stands on: the node, its store, its members.
    Core,
    /// Services of this project.
    Native,
    /// Programs of users, in the families 900 to 999.
    Plugin,
}

/// What a service serves, and under which name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The family of its request numbers; see [`crate::family`].
    pub number: u16,
    /// Its name in logs and metrics.
    pub name: &'static str,
    /// When it starts.
    pub tier: Tier,
    /// Capabilities that the node advertises because it has this service.
    pub advertises: &'static [&'static str],
}

/// A part of a node that answers the requests of one family.
pub trait Service: Send + Sync + 'static {
    /// What it serves.
    fn family(&self) -> Family;

    /// Its requests and what they mean.
    fn routes(self: Arc<Self>) -> Routes;

    /// Starts its background work. Called once, in the order in which services were registered,
    /// tier by tier, before the first request.
    fn start(&self) -> BoxFuture<'_, Result<(), ApiError>> {
        Box::pin(core::future::ready(Ok(())))
    }

    /// Ends its background work within a time. Called in reverse order, after the last request.
    fn stop(&self, _within: Duration) -> BoxFuture<'_, ()> {
        Box::pin(core::future::ready(()))
    }

    /// What keeps it from working well, for the health of its node; empty while all is well.
    fn complaints(&self) -> Vec<String> {
        Vec::new()
    }

    /// Its own metrics, beside the counts that the registry keeps for every request.
    fn collectors(&self) -> Vec<Box<dyn prometheus::core::Collector>> {
        Vec::new()
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This process itself.
    Process,
    /// A peer, whose identity its session has authenticated.
    Mesh(EntityId),
    /// A client of a door, who shows nothing but a token.
    Door(&'static str),
}

/// Who asks, as far as the meaning of a request may depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Where the request comes from.
    pub origin: Origin,
    /// The id under which a write is to be applied once. A service passes it to the one transaction
    /// that carries the request out.
    pub request_id: Option<RequestId>,
}

/// What a node decides about a request before its service sees it.
pub trait Guard: Send + Sync + 'static {
    /// Whether the caller is allowed what the request needs. `needs` is asked only if it matters.
    fn authorize<'r>(
        &self,
        origin: Origin,
        token: Option<&Bytes>,
        needs: &dyn Fn() -> Needs<'r>,
    ) -> Result<(), ApiError>;

    /// Whether this node answers requests of a kind now: it is not stopping, belongs to a cluster
    /// where the kind needs one, and leads where only the leader answers.
    fn admit(&self, kind: Kind) -> Result<(), ApiError>;

    /// The feature level of the cluster.
    fn level(&self) -> Level;

    /// The newest revision applied here.
    fn applied(&self) -> Revision;

    /// A last look at an error before it leaves.
    fn explain(&self, error: ApiError) -> ApiError {
        error
    }
}
