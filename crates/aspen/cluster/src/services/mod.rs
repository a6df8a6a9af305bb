//! The services of a node that see consensus itself: the node and its membership.

mod members;
mod node;

use std::sync::Arc;

use aspen_api::service::{Registry, RegistryError};
use aspen_kv::{KvService, LeaseService};

use crate::node::ClusterNode;

pub use members::MembersService;
pub use node::NodeService;

/// A registry with the core services of `node`; further services join it.
pub fn core_services(
    node: &ClusterNode,
    metrics: &prometheus::Registry,
) -> Result<Registry, RegistryError> {
    Registry::new(Arc::new(node.clone()))
        .with(NodeService::new(node.clone(), metrics.clone()))?
        .with(KvService(node.replica().clone()))?
        .with(LeaseService(node.replica().clone()))?
        .with(MembersService(node.clone()))
}
