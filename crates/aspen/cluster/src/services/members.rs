//! Who belongs to the cluster, as requests.

use std::sync::Arc;

use aspen_api::cluster::{
    AddLearner, AddPeer, ChangeMembership, ClusterStateResult, Done, ExpungeNode, GetClusterState,
    GetClusterTicket, InitCluster, PromoteLearner, SnapshotResult, TicketResult, TransferLeader,
    TriggerSnapshot,
};
use aspen_api::service::{Caller, Family, Routes, Service, Tier};
use aspen_api::{ApiError, family};

use crate::node::ClusterNode;

/// The members of the cluster of a node.
pub struct MembersService(pub ClusterNode);

type State = Result<ClusterStateResult, ApiError>;

impl MembersService {
    async fn init(self: Arc<Self>, _: Caller, _: InitCluster) -> State {
        self.0.init().await
    }

    async fn state(self: Arc<Self>, _: Caller, _: GetClusterState) -> State {
        self.0.ensure_initialized()?;
        Ok(self.0.cluster_state())
    }

    async fn ticket(
        self: Arc<Self>,
        _: Caller,
        _: GetClusterTicket,
    ) -> Result<TicketResult, ApiError> {
        self.0.ticket_text()
    }

    async fn add_learner(self: Arc<Self>, _: Caller, request: AddLearner) -> State {
        self.0.add_learner(request.node_id, request.addr).await
    }

    async fn promote(self: Arc<Self>, _: Caller, request: PromoteLearner) -> State {
        self.0.promote(request.learner_id, request.replace_node, request.is_force).await
    }

    async fn change(self: Arc<Self>, _: Caller, request: ChangeMembership) -> State {
        self.0.change_membership(&request.members).await
    }

    async fn expunge(self: Arc<Self>, _: Caller, request: ExpungeNode) -> State {
        self.0.expunge(request.node_id).await
    }

    async fn add_peer(self: Arc<Self>, _: Caller, request: AddPeer) -> Result<Done, ApiError> {
        self.0.add_peer(&request.addr);
        Ok(Done {})
    }

    async fn transfer(
        self: Arc<Self>,
        _: Caller,
        request: TransferLeader,
    ) -> Result<Done, ApiError> {
        self.0.transfer_leader(request.target).await?;
        Ok(Done {})
    }

    async fn snapshot(
        self: Arc<Self>,
        _: Caller,
        _: TriggerSnapshot,
    ) -> Result<SnapshotResult, ApiError> {
        self.0.ensure_initialized()?;
        self.0.snapshot().await
    }
}

impl Service for MembersService {
    fn family(&self) -> Family {
        Family { number: family::CLUSTER, name: "members", tier: Tier::Core, advertises: &[] }
    }

    fn routes(self: Arc<Self>) -> Routes {
        Routes::default()
            .on(&self, Self::init)
            .on(&self, Self::state)
            .on(&self, Self::ticket)
            .on(&self, Self::add_learner)
            .on(&self, Self::promote)
            .on(&self, Self::change)
            .on(&self, Self::expunge)
            .on(&self, Self::add_peer)
            .on(&self, Self::transfer)
            .on(&self, Self::snapshot)
    }
}
