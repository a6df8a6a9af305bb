//! What a node tells of itself.

use std::sync::Arc;

use aspen_api::cluster::{
    GetHealth, GetLeader, GetMetrics, GetNodeInfo, GetRaftMetrics, HealthResult, LeaderResult,
    MetricsResult, NodeInfoResult, Ping, Pong, RaftMetricsResult,
};
use aspen_api::service::{Caller, Family, Routes, Service, Tier};
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

    async fn ping(self: Arc<Self>, _: Caller, _: Ping) -> Result<Pong, ApiError> {
        Ok(Pong {})
    }

    async fn health(self: Arc<Self>, _: Caller, _: GetHealth) -> Result<HealthResult, ApiError> {
        Ok(self.node.health())
    }

    async fn metrics(self: Arc<Self>, _: Caller, _: GetMetrics) -> Result<MetricsResult, ApiError> {
        let text = TextEncoder::new().encode_to_string(&self.metrics.gather());
        text.map(|text| MetricsResult { text })
            .map_err(|error| ApiError::new(ErrorCode::InternalError, error.to_string()))
    }

    async fn raft_metrics(
        self: Arc<Self>,
        _: Caller,
        _: GetRaftMetrics,
    ) -> Result<RaftMetricsResult, ApiError> {
        Ok(self.node.raft_metrics())
    }

    async fn info(self: Arc<Self>, _: Caller, _: GetNodeInfo) -> Result<NodeInfoResult, ApiError> {
        Ok(self.node.info())
    }

    async fn leader(self: Arc<Self>, _: Caller, _: GetLeader) -> Result<LeaderResult, ApiError> {
        Ok(self.node.leader())
    }
}

impl Service for NodeService {
    fn family(&self) -> Family {
        Family { number: family::NODE, name: "node", tier: Tier::Core, advertises: &[] }
    }

    fn routes(self: Arc<Self>) -> Routes {
        Routes::default()
            .on(&self, Self::ping)
            .on(&self, Self::health)
            .on(&self, Self::metrics)
            .on(&self, Self::raft_metrics)
            .on(&self, Self::info)
            .on(&self, Self::leader)
    }
}
