//! What a node says about itself.

use std::sync::atomic::Ordering;
use std::time::Duration;

use aspen_api::cluster::{
    HealthReason, HealthResult, HealthStatus, LeaderResult, Member as ApiMember, NodeInfoResult,
    RaftMetricsResult, RaftState, ReplicationProgress, TicketResult,
};
use aspen_api::{ApiError, ClusterId, ClusterTicket, ErrorCode, MemberId};
use net_types::PeerAddr;
use net_types::limits::{MAX_CLUSTER_PEERS, MAX_HEALTH_REASONS, MAX_TICKET_PEERS};
use net_wire::MeshTicket;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant, RaftMetrics, ServerState};

use super::ClusterNode;
use crate::types::Types;

/// Entries that a healthy follower may lag behind what it knows to be committed.
const HEALTHY_LAG: u64 = 1_000;

fn state_of(state: ServerState) -> RaftState {
    match state {
        ServerState::Learner => RaftState::Learner,
        ServerState::Follower => RaftState::Follower,
        ServerState::Candidate => RaftState::Candidate,
        ServerState::Leader => RaftState::Leader,
        ServerState::Shutdown => RaftState::Stopped,
    }
}

impl ClusterNode {
    /// How the node judges its cluster.
    pub fn health(&self) -> HealthResult {
        let config = &self.0.config;
        let (status, mut reasons) = self.judge();
        reasons.truncate(MAX_HEALTH_REASONS);
        HealthResult {
            status,
            node_id: config.addr.entity_id.node_id(),
            raft_node_id: config.member_id,
            entity_id: config.addr.entity_id,
            uptime_seconds: config.clock.now().since(self.0.started_at).as_secs(),
            is_initialized: self.is_initialized(),
            is_alive: self.is_alive(),
            is_ready: self.is_initialized() && status != HealthStatus::Unhealthy,
            membership_node_count: self.with_membership(|m| m.nodes().count() as u32),
            reasons: reasons.into_iter().map(|text| HealthReason { text }).collect(),
        }
    }

    fn status(&self) -> HealthStatus {
        self.judge().0
    }

    /// The judgement, and what speaks against health.
    fn judge(&self) -> (HealthStatus, Vec<String>) {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let mut broken = Vec::new();
        if self.0.is_damaged.load(Ordering::Relaxed) {
            broken.push("the log is damaged: this node no longer votes".to_owned());
        }
        if self.0.log.has_failed() {
            broken.push("the log takes no more writes: see the node's own log".to_owned());
        }
        if metrics.running_state.is_err() {
            broken.push("consensus has ended: see the node's own log".to_owned());
        } else {
            broken.extend(self.lack_of_leader(&metrics));
        }
        let mut hampered = self.lags(&metrics);
        if self.0.is_disk_full.load(Ordering::Relaxed) {
            hampered.push("the data disk is almost full: writes are refused".to_owned());
        }
        let status = match (broken.is_empty(), hampered.is_empty()) {
            (false, _) => HealthStatus::Unhealthy,
            (true, false) => HealthStatus::Degraded,
            (true, true) => HealthStatus::Healthy,
        };
        broken.extend(hampered);
        (status, broken)
    }

    /// This node's lag and, if it leads, the members that lag or do not answer.
    fn lags(&self, metrics: &RaftMetrics<Types>) -> Vec<String> {
        let mut found = Vec::new();
        let index = |id: &Option<crate::types::LogId>| id.as_ref().map_or(0, |id| id.index() + 1);
        let lag = index(&metrics.cluster_committed).saturating_sub(index(&metrics.last_applied));
        if lag > HEALTHY_LAG {
            found.push(format!("{lag} committed entries are not applied here yet"));
        }
        let last = metrics.last_log_index.map_or(0, |index| index + 1);
        for (id, matched) in metrics.replication.iter().flatten() {
            let lag = last.saturating_sub(index(matched));
            if lag > HEALTHY_LAG {
                found.push(format!("node {id} is {lag} entries behind"));
            }
        }
        let own = self.0.config.member_id.0;
        for (id, answered) in metrics.heartbeat.iter().flatten() {
            if *id != own && answered.is_none_or(|at| at.elapsed() >= self.patience()) {
                found.push(format!("node {id} does not answer"));
            }
        }
        found
    }

    /// For how long someone who does not answer counts as alive: a leader's lease.
    fn patience(&self) -> Duration {
        Duration::from_millis(self.0.config.timing.raft().lease)
    }

    /// Why there is no leader that can act: one that this node has heard of within a lease or, if it
    /// leads itself, one that a quorum has answered within a lease.
    fn lack_of_leader(&self, metrics: &RaftMetrics<Types>) -> Option<String> {
        let own = self.0.config.member_id.0;
        match metrics.current_leader {
            None if !self.is_initialized() => {
                Some("this node belongs to no cluster yet".to_owned())
            }
            None => Some("no leader is known".to_owned()),
            Some(leader) if leader == own => {
                let is_alone = metrics.membership_config.voter_ids().eq([own]);
                let answered = metrics.last_quorum_acked;
                let leads = is_alone || answered.is_some_and(|at| at.elapsed() < self.patience());
                (!leads).then(|| "no majority of the voters answers this leader".to_owned())
            }
            Some(leader) => {
                let heard = &self.0.service.leader_heard;
                let is_near = heard.is_within(self.patience(), self.0.config.clock.now());
                (!is_near).then(|| format!("the leader, node {leader}, is not heard of"))
            }
        }
    }

    /// The leader, if it can act as far as this node knows; see [`ClusterNode::leader_id`] for one that
    /// may be gone.
    pub(super) fn live_leader(&self) -> Option<MemberId> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        self.leader_id().filter(|_| self.lack_of_leader(&metrics).is_none())
    }

    /// Whether the node serves: it runs, belongs to a cluster and follows a leader that
    /// can act.
    pub fn is_ready(&self) -> bool {
        self.is_initialized() && self.status() != HealthStatus::Unhealthy
    }

    /// The state of consensus.
    pub fn raft_metrics(&self) -> RaftMetricsResult {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: &Option<crate::types::LogId>| id.as_ref().map(|id| id.index());
        let followers = metrics.replication.iter().flatten();
        let own = self.0.config.member_id.0;
        RaftMetricsResult {
            node_id: self.0.config.member_id,
            state: state_of(metrics.state),
            leader: self.live_leader(),
            term: metrics.current_term,
            last_log_index: metrics.last_log_index,
            last_applied_index: index(&metrics.last_applied),
            snapshot_index: index(&metrics.snapshot),
            purged_index: index(&metrics.purged),
            replication: followers
                .filter(|(id, _)| **id != own)
                .take(MAX_CLUSTER_PEERS)
                .map(|(id, matched)| ReplicationProgress {
                    node_id: MemberId(*id),
                    matched_index: index(matched),
                })
                .collect(),
        }
    }

    /// Who the node is.
    pub fn info(&self) -> NodeInfoResult {
        let config = &self.0.config;
        NodeInfoResult {
            node_id: config.addr.entity_id.node_id(),
            raft_node_id: config.member_id,
            addr: config.addr.clone(),
            version: config.version.clone(),
            top_level: config.top_level,
        }
    }

    /// The leader that the node knows, and where it is.
    pub fn leader(&self) -> LeaderResult {
        let leader = self.live_leader().and_then(|id| {
            let addr = self.member_addr(id)?;
            Some(ApiMember { node_id: id, addr })
        });
        LeaderResult { leader }
    }

    /// Where the leader is, as far as this node knows.
    pub(super) fn leader_addr(&self) -> Option<PeerAddr> {
        self.leader_id().and_then(|id| self.member_addr(id))
    }

    fn member_addr(&self, id: MemberId) -> Option<PeerAddr> {
        if id == self.0.config.member_id {
            return Some(self.0.config.addr.clone());
        }
        self.with_membership(|m| m.get_node(&id.0).map(|member| member.0.clone()))
    }

    /// The cluster's ticket: this node first, then the members it knows.
    ///
    /// `FEATURE_DISABLED` if the node was started without the mesh's secret.
    pub fn ticket(&self) -> Result<ClusterTicket, ApiError> {
        let mesh_key = self.0.config.mesh_key.clone().ok_or_else(|| {
            ApiError::new(ErrorCode::FeatureDisabled, "this node holds no mesh secret")
        })?;
        let own = self.0.config.addr.clone();
        let mut peers = vec![own.clone()];
        self.with_membership(|membership| {
            let others = membership.nodes().map(|(_, member)| &member.0);
            peers.extend(others.filter(|peer| peer.entity_id != own.entity_id).cloned());
        });
        peers.truncate(MAX_TICKET_PEERS);
        let mesh = MeshTicket { label: String::new(), peers };
        Ok(ClusterTicket { cluster_id: cluster_id(&mesh_key.0), mesh_key, mesh })
    }

    /// The ticket as its text.
    pub fn ticket_text(&self) -> Result<TicketResult, ApiError> {
        Ok(TicketResult { ticket: self.ticket()?.to_text() })
    }
}

/// Names the cluster by a hash of its secret, which tells nothing about it.
fn cluster_id(mesh_key: &[u8; 32]) -> ClusterId {
    let mut hasher = blake3::Hasher::new_derive_key("aspen cluster 2026 identity");
    hasher.update(mesh_key);
    ClusterId(*hasher.finalize().as_bytes())
}
