//! Services of this node.
//!
//! Invariants: a name has one handler at a time, from [`MeshNode::serve`] until its handle is
//! dropped.

use std::sync::Arc;

use net_rpc::{RpcHandler, ServiceName};
use net_types::limits::MAX_SERVICES;
use thiserror::Error;

use crate::MeshNode;
use crate::shared::Shared;

/// Why a service was not added.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ServeError {
    /// The name is served already, or the node has as many services as it may.
    #[error("{name} is served already, or the node has {MAX_SERVICES} services")]
    Taken {
        /// The name.
        name: String,
    },
}

/// Serves until it is dropped; calls under way then finish.
#[must_use = "the service stops when the handle is dropped"]
pub struct ServeHandle {
    shared: Arc<Shared>,
    name: ServiceName,
}

impl Drop for ServeHandle {
    fn drop(&mut self) {
        let now = self.shared.now();
        self.shared.lock().rpc(now, |rpc, _| rpc.unserve(&self.name));
    }
}

impl MeshNode {
    /// Answers calls of a service with `handler`.
    pub fn serve(
        &self,
        name: ServiceName,
        handler: Arc<dyn RpcHandler>,
    ) -> Result<ServeHandle, ServeError> {
        let now = self.shared.now();
        if !self.shared.lock().rpc(now, |rpc, _| rpc.serve(name.clone(), handler)) {
            return Err(ServeError::Taken { name: name.as_str().to_owned() });
        }
        Ok(ServeHandle { shared: self.shared.clone(), name })
    }
}
