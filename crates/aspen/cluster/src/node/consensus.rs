//! A node's part in consensus: what openraft knows of leader, terms and members, and changes of the
//! members.
//!
//! What is read here is what this node has seen; another may lead or belong by now.

use std::sync::Arc;
use std::time::Duration;

use aspen_api::{ApiError, ErrorCode, MemberId};
use net_types::limits::MEMBERSHIP_TIMEOUT;
use net_types::{EntityId, Instant, PeerAddr};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::{ChangeMembers, Instant as _, Raft, RaftMetrics, ServerState};

use super::applied::AppliedState;
use super::config::ClusterConfig;
use super::errors::{not_leader, of_raft_write};
use super::health::Leadership;
use crate::condition::{ensure, stopped};
use crate::net::Peers;
use crate::state::Store;
use crate::storage::{RaftLog, StateMachine};
use crate::types::{Member, Membership, Types};

/// A node's part in consensus, with its log, its state and its peers.
pub(crate) struct Consensus {
    pub(crate) config: ClusterConfig,
    pub(super) raft: Raft<Types, StateMachine>,
    pub(super) log: RaftLog,
    pub(super) store: Arc<Store>,
    pub(super) applied: Arc<AppliedState>,
    pub(crate) peers: Arc<Peers>,
    pub(super) started_at: Instant,
}

/// Tells of changes of members, leader and term.
pub struct MembersWatch {
    server: openraft::alias::WatchReceiverOf<Types, RaftServerMetrics<Types>>,
}

impl MembersWatch {
    /// Waits for the next change; `false` once the node has stopped.
    pub async fn changed(&mut self) -> bool {
        self.server.changed().await.is_ok()
    }
}

/// Waits at most as long as a change of the members may take.
pub(super) async fn in_time<T>(
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    tokio::time::timeout(MEMBERSHIP_TIMEOUT, work).await.unwrap_or_else(|_| {
        let text = "the change of the members was not confirmed in time; it may still happen";
        Err(ApiError::new(ErrorCode::Timeout, text))
    })
}

impl Consensus {
    /// The node's own number.
    pub(super) fn own(&self) -> MemberId {
        self.config.member_id
    }

    /// Looks at leader, term and members.
    pub(super) fn server<T>(&self, look: impl FnOnce(&RaftServerMetrics<Types>) -> T) -> T {
        look(&self.raft.server_metrics().borrow_watched())
    }

    /// Looks at all that consensus measures.
    pub(super) fn metrics<T>(&self, look: impl FnOnce(&RaftMetrics<Types>) -> T) -> T {
        look(&self.raft.metrics().borrow_watched())
    }

    /// Looks at the members.
    pub(crate) fn members<T>(&self, look: impl FnOnce(&Membership) -> T) -> T {
        self.server(|server| look(server.membership_config.membership()))
    }

    /// Tells of changes from now on.
    pub(super) fn watch(&self) -> MembersWatch {
        let mut server = self.raft.server_metrics();
        drop(server.borrow_and_update());
        MembersWatch { server }
    }

    pub(super) fn is_initialized(&self) -> bool {
        self.members(|members| members.nodes().next().is_some())
    }

    pub(crate) fn is_member(&self, entity: EntityId) -> bool {
        self.members(|members| members.nodes().any(|(_, member)| member.0.entity_id == entity))
    }

    /// Where a member is, as the membership has it.
    pub(super) fn member_addr(&self, id: MemberId) -> Option<PeerAddr> {
        self.members(|members| members.get_node(&id.0).map(|member| member.0.clone()))
    }

    pub(super) fn leader_id(&self) -> Option<MemberId> {
        self.server(|server| {
            // A node that led when it was removed finds its own vote when it starts again.
            let leads = server.state == ServerState::Leader;
            let leader = server.current_leader.map(MemberId);
            leader.filter(|leader| *leader != self.own() || leads)
        })
    }

    /// For how long a node that does not answer counts as alive: a leader's lease.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.config.timing.raft().lease)
    }

    /// What this node knows of the leader.
    pub(super) fn leadership(&self, metrics: &RaftMetrics<Types>) -> Leadership {
        let own = self.own().0;
        match metrics.current_leader {
            None if !self.is_initialized() => Leadership::NotInitialized,
            None => Leadership::Unknown,
            Some(leader) if leader == own => {
                let is_alone = metrics.membership_config.voter_ids().eq([own]);
                let answered = metrics.last_quorum_acked;
                let is_near = answered.is_some_and(|at| at.elapsed() < self.patience());
                Leadership::Own { is_answered: is_alone || is_near }
            }
            Some(leader) => {
                let is_heard = self.peers.has_heard_leader(self.patience());
                Leadership::Other { leader, is_heard }
            }
        }
    }

    /// The leader, if it can act as far as this node knows; [`Self::leader_id`] may be gone.
    pub(super) fn live_leader(&self) -> Option<MemberId> {
        let lack = self.metrics(|metrics| self.leadership(metrics).lack());
        self.leader_id().filter(|_| lack.is_none())
    }

    pub(super) fn is_leader(&self) -> bool {
        self.leader_id() == Some(self.own())
    }

    /// The term, and that of the last entry applied.
    pub(super) fn terms(&self) -> (u64, Option<u64>) {
        let term = self.server(|server| server.vote.leader_id.term);
        let applied = self.raft.data_metrics().borrow_watched().last_applied;
        (term, applied.map(|id| id.committed_leader_id().term))
    }

    /// `NOT_LEADER` unless this node leads and is a member. A leader that was removed leads on until
    /// its removal is known, but changes no members: openraft takes for granted that it is one.
    pub(crate) fn ensure_leader(&self) -> Result<(), ApiError> {
        self.raft.as_leader().map(drop).map_err(|forward| not_leader(&forward))?;
        let is_member = self.members(|members| members.get_node(&self.own().0).is_some());
        ensure(is_member, || ApiError::not_leader(None))
    }

    /// Waits until consensus satisfies `condition`.
    pub(super) async fn wait_for(
        &self,
        condition: impl Fn(&RaftMetrics<Types>) -> bool,
    ) -> Result<(), ApiError> {
        let mut metrics = self.raft.metrics();
        while !condition(&metrics.borrow_and_update()) {
            metrics.changed().await.map_err(|_| stopped())?;
        }
        Ok(())
    }

    /// Changes the members and waits until that is committed. Voters that are removed stay as
    /// learners if `is_kept`.
    pub(crate) async fn change(
        &self,
        change: impl Into<ChangeMembers<u64, Member>>,
        is_kept: bool,
    ) -> Result<(), ApiError> {
        let changed = self.raft.change_membership(change, is_kept);
        in_time(async { changed.await.map(drop).map_err(of_raft_write) }).await
    }

    /// Why consensus has ended, once it has.
    pub(super) async fn ended(&self) -> String {
        // It ends as well when the task is gone.
        let _ = self.wait_for(|metrics| metrics.running_state.is_err()).await;
        self.metrics(|metrics| match &metrics.running_state {
            Err(reason) => reason.to_string(),
            Ok(()) => "its task is gone".into(),
        })
    }
}
