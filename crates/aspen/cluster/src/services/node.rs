//! What a node tells of itself.

use std::sync::Arc;

use aspen_api::cluster::{
    GetHealth, GetLeader, GetMetrics, GetNodeInfo, GetRaftMetrics, MetricsResult, Ping, Pong,
};
use aspen_api::service::{Family, Routes, Service, Tier};
use aspen_api::{ApiError, ErrorCode, family};
use prometheus::TextEncoder;

use crate::node::ClusterNode;

/// Health, metrics and identity of a node.
pub struct NodeService {
    node: ClusterNode,
    metrics: prometheus::Registry,
}

impl NodeService {
    /// Tells of `node`; `metrics` holds everything that the process measures.
    pub fn new(node: ClusterNode, metrics: prometheus::Registry) -> Self {
        Self { node, metrics }
    }
}

impl Service for NodeService {
    fn family(&self) -> Family {
        Family { number: family::NODE, name: "node", tier: Tier::Core, advertises: &[] }
    }

    fn routes(self: Arc<Self>) -> Routes {
        Routes::default()
            .on(&self, |_, _, _: Ping| async { Ok(Pong {}) })
            .on(&self, |s, _, _: GetHealth| async move { Ok(s.node.health()) })
            .on(&self, |s, _, _: GetMetrics| async move {
                let text = TextEncoder::new().encode_to_string(&s.metrics.gather());
                text.map(|text| MetricsResult { text })
                    .map_err(|error| ApiError::new(ErrorCode::InternalError, error.to_string()))
            })
            .on(&self, |s, _, _: GetRaftMetrics| async move { Ok(s.node.raft_metrics()) })
            .on(&self, |s, _, _: GetNodeInfo| async move { Ok(s.node.info()) })
            .on(&self, |s, _, _: GetLeader| async move { Ok(s.node.leader()) })
    }
}
