//! The members of the cluster, as requests.

use std::collections::BTreeSet;
use std::sync::Arc;

use aspen_api::cluster::{
    AddLearner, AddPeer, ChangeMembership, ClusterStateResult, Done, ExpungeNode, GetClusterState,
    GetClusterTicket, InitCluster, PromoteLearner, RemoveLearner, TransferLeader, TriggerSnapshot,
};
use aspen_api::service::{Family, Routes, Service, Tier};
use aspen_api::{ApiError, ErrorCode, MemberId, family};
use openraft::ChangeMembers;

use crate::node::ClusterNode;

/// The members of the cluster of a node.
pub struct MembersService(pub ClusterNode);

async fn remove_learner(node: &ClusterNode, id: MemberId) -> Result<ClusterStateResult, ApiError> {
    let consensus = node.consensus();
    consensus.ensure_leader()?;
    let refused = |code, text: &str| Err(ApiError::new(code, format!("node {id} {text}")));
    let is_voter = consensus
        .members(|all| all.get_node(&id.0).map(|_| all.voter_ids().any(|voter| voter == id.0)));
    match is_voter {
        None => refused(ErrorCode::NotFound, "is not a member"),
        Some(true) => {
            let text = "votes; leave it out with a change of the voters, or expunge it";
            refused(ErrorCode::Conflict, text)
        }
        Some(false) => {
            consensus.change(ChangeMembers::RemoveNodes(BTreeSet::from([id.0])), false).await?;
            Ok(node.cluster_state())
        }
    }
}

impl Service for MembersService {
    fn family(&self) -> Family {
        Family { number: family::CLUSTER, name: "members", tier: Tier::Core, advertises: &[] }
    }

    fn routes(self: Arc<Self>) -> Routes {
        Routes::default()
            .on(&self, |s, _, _: InitCluster| async move { s.0.init().await })
            .on(&self, |s, _, _: GetClusterState| async move {
                s.0.ensure_initialized()?;
                Ok(s.0.cluster_state())
            })
            .on(&self, |s, _, _: GetClusterTicket| async move { s.0.ticket_text() })
            .on(&self, |s, _, request: AddLearner| async move {
                s.0.add_learner(request.node_id, request.addr).await
            })
            .on(&self, |s, _, request: PromoteLearner| async move {
                s.0.promote(request.learner_id, request.replace_node, request.is_force).await
            })
            .on(&self, |s, _, request: ChangeMembership| async move {
                s.0.change_membership(&request.members).await
            })
            .on(&self, |s, _, request: RemoveLearner| async move {
                remove_learner(&s.0, request.node_id).await
            })
            .on(
                &self,
                |s, _, request: ExpungeNode| async move { s.0.expunge(request.node_id).await },
            )
            .on(&self, |s, _, request: AddPeer| async move {
                s.0.consensus().peers.transport.add_peer(&request.addr);
                Ok(Done {})
            })
            .on(&self, |s, _, request: TransferLeader| async move {
                s.0.transfer_leader(request.target).await.map(|()| Done {})
            })
            .on(&self, |s, _, _: TriggerSnapshot| async move {
                s.0.ensure_initialized()?;
                s.0.snapshot().await
            })
    }
}
