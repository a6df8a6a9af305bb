//! Removing a member for good.

use std::collections::BTreeSet;

use aspen_api::cluster::ClusterStateResult;
use aspen_api::kv::{Consistency, ReadKey};
use aspen_api::{ApiError, ErrorCode, Key, KeyValueStore, MemberId};
use aspen_kv::Store;
use bytes::Bytes;
use net_types::EntityId;
use openraft::ChangeMembers;

use super::ClusterNode;
use super::errors::of_raft_write;
use super::members::{conflict, in_time};

/// The key whose presence says that an identity was expunged.
fn expunged_key(entity: &EntityId) -> Key {
    Key::new(format!("_sys:expunged/{entity}")).expect("shorter than any limit, and ASCII")
}

impl ClusterNode {
    /// Removes a member, voter or learner, dead or alive, and refuses its identity from now on.
    ///
    /// `NOT_FOUND` if there is no such member, `CONFLICT` if it is the leader or the only voter.
    pub async fn expunge(&self, id: MemberId) -> Result<ClusterStateResult, ApiError> {
        self.ensure_leader()?;
        let entity = self.with_membership(|m| m.get_node(&id.0).map(|own| own.0.entity_id));
        let Some(entity) = entity else {
            return Err(ApiError::new(ErrorCode::NotFound, format!("node {id} is not a member")));
        };
        if id == self.member_id() {
            let text = format!("node {id} leads; let another lead first (cluster transfer-leader)");
            return Err(conflict(text));
        }
        // First of all, so that it is not added again between the two.
        self.remember_expunged(&entity).await?;
        // The others may have changed meanwhile, and are none of this change's business.
        let is_voter = self.with_membership(|m| m.voter_ids().any(|voter| voter == id.0));
        let change = match is_voter {
            true => ChangeMembers::RemoveVoters(BTreeSet::from([id.0])),
            false => ChangeMembers::RemoveNodes(BTreeSet::from([id.0])),
        };
        in_time(async {
            self.0.raft.change_membership(change, false).await.map(drop).map_err(of_raft_write)
        })
        .await?;
        tracing::info!(node = %id, entity_id = %entity, "expunged");
        Ok(self.cluster_state())
    }

    async fn remember_expunged(&self, entity: &EntityId) -> Result<(), ApiError> {
        Store(self.clone()).set(expunged_key(entity), Bytes::new()).await.map(drop)
    }

    /// `CONFLICT` if an identity was expunged. The state is that of a leader, so nothing that was
    /// acknowledged is missing in it.
    pub(super) async fn ensure_not_expunged(&self, entity: &EntityId) -> Result<(), ApiError> {
        let read = ReadKey::newest(expunged_key(entity));
        let view = self.view(Consistency::Linearizable).await?;
        match view.view().read(&read)?.item {
            None => Ok(()),
            Some(_) => Err(conflict(
                "this identity was expunged; start the node with an empty data folder",
            )),
        }
    }
}
