//! What a node says about itself and its cluster, and what it measures.

use std::sync::atomic::{AtomicU64, Ordering};

use aspen_api::cluster::{
    HealthReason, HealthResult, HealthStatus, LeaderResult, Member as ApiMember, NodeInfoResult,
    RaftMetricsResult, RaftState, ReplicationProgress, TicketResult,
};
use aspen_api::{ApiError, ClusterId, ClusterTicket, ErrorCode, MemberId};
use net_metrics::{Families, collector};
use net_types::PeerAddr;
use net_types::limits::{MAX_CLUSTER_PEERS, MAX_HEALTH_REASONS, MAX_TICKET_PEERS};
use net_wire::MeshTicket;
use openraft::{Instant as _, RaftMetrics, ServerState};
use prometheus::core::Collector;

use super::handle::ClusterNode;
use super::health::{Observed, judge};
use super::replica::Replica;
use crate::types::{LogId, Types};

fn state_of(state: ServerState) -> RaftState {
    match state {
        ServerState::Learner => RaftState::Learner,
        ServerState::Follower => RaftState::Follower,
        ServerState::Candidate => RaftState::Candidate,
        ServerState::Leader => RaftState::Leader,
        ServerState::Shutdown => RaftState::Stopped,
    }
}

fn index(id: &Option<LogId>) -> Option<u64> {
    id.as_ref().map(|id| id.index())
}

/// Index after an entry.
fn next(id: &Option<LogId>) -> u64 {
    index(id).map_or(0, |index| index + 1)
}

impl ClusterNode {
    /// How the node judges its cluster.
    pub fn health(&self) -> HealthResult {
        let config = &self.0.consensus.config;
        let (status, mut reasons) = self.judge();
        reasons.truncate(MAX_HEALTH_REASONS);
        HealthResult {
            status,
            node_id: config.addr.entity_id.node_id(),
            raft_node_id: config.member_id,
            entity_id: config.addr.entity_id,
            uptime_seconds: config.clock.now().since(self.0.consensus.started_at).as_secs(),
            is_initialized: self.is_initialized(),
            is_alive: self.is_alive(),
            is_ready: self.is_initialized() && status != HealthStatus::Unhealthy,
            membership_node_count: self.0.consensus.members(|m| m.nodes().count() as u32),
            reasons: reasons.into_iter().map(|text| HealthReason { text }).collect(),
        }
    }

    /// Whether the node serves: it runs, belongs to a cluster and follows a leader that can act.
    pub fn is_ready(&self) -> bool {
        self.is_initialized() && self.judge().0 != HealthStatus::Unhealthy
    }

    /// Whether the node can do its work at all: consensus runs and its log takes writes.
    pub fn is_alive(&self) -> bool {
        self.0.consensus.metrics(|metrics| metrics.running_state.is_ok())
            && !self.0.consensus.log.has_failed()
    }

    fn judge(&self) -> (HealthStatus, Vec<String>) {
        let observed = self.0.consensus.metrics(|metrics| Observed {
            is_damaged: self.0.condition.is_damaged(),
            has_log_failed: self.0.consensus.log.has_failed(),
            is_disk_full: self.0.condition.is_disk_full(),
            is_running: metrics.running_state.is_ok(),
            leadership: self.0.consensus.leadership(metrics),
            lag: next(&metrics.cluster_committed).saturating_sub(next(&metrics.last_applied)),
            followers: self.followers(metrics),
        });
        judge(&observed)
    }

    /// A leader's followers: entries that each lacks, and whether it answers.
    fn followers(&self, metrics: &RaftMetrics<Types>) -> Vec<(u64, u64, bool)> {
        let last = metrics.last_log_index.map_or(0, |index| index + 1);
        let is_silent = |id: &u64| {
            let Some(answered) = metrics.heartbeat.as_ref().and_then(|all| all.get(id)) else {
                return false;
            };
            let is_late = answered.is_none_or(|at| at.elapsed() >= self.0.consensus.patience());
            *id != self.0.consensus.own().0 && is_late
        };
        let followers = metrics.replication.iter().flatten();
        followers
            .map(|(id, matched)| (*id, last.saturating_sub(next(matched)), !is_silent(id)))
            .collect()
    }

    /// The state of consensus.
    pub fn raft_metrics(&self) -> RaftMetricsResult {
        let leader = self.0.consensus.live_leader();
        let own = self.0.consensus.own();
        self.0.consensus.metrics(|metrics| RaftMetricsResult {
            node_id: own,
            state: state_of(metrics.state),
            leader,
            term: metrics.current_term,
            last_log_index: metrics.last_log_index,
            last_applied_index: index(&metrics.last_applied),
            snapshot_index: index(&metrics.snapshot),
            purged_index: index(&metrics.purged),
            replication: (metrics.replication.iter().flatten())
                .filter(|(id, _)| **id != own.0)
                .take(MAX_CLUSTER_PEERS)
                .map(|(id, matched)| ReplicationProgress {
                    node_id: MemberId(*id),
                    matched_index: index(matched),
                })
                .collect(),
        })
    }

    /// The node's number, identity, addresses and version.
    pub fn info(&self) -> NodeInfoResult {
        let config = &self.0.consensus.config;
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
        let leader = self.0.consensus.live_leader().and_then(|id| {
            let addr = self.member_addr(id)?;
            Some(ApiMember { node_id: id, addr })
        });
        LeaderResult { leader }
    }

    /// Where the leader is, as far as this node knows.
    pub(super) fn leader_addr(&self) -> Option<PeerAddr> {
        self.0.consensus.leader_id().and_then(|id| self.member_addr(id))
    }

    fn member_addr(&self, id: MemberId) -> Option<PeerAddr> {
        match id == self.0.consensus.own() {
            true => Some(self.0.consensus.config.addr.clone()),
            false => self.0.consensus.member_addr(id),
        }
    }

    /// The cluster's ticket: this node first, then the members it knows.
    ///
    /// `FEATURE_DISABLED` if the node was started without the mesh's secret.
    pub fn ticket(&self) -> Result<ClusterTicket, ApiError> {
        let mesh_key = self.0.consensus.config.mesh_key.clone().ok_or_else(|| {
            ApiError::new(ErrorCode::FeatureDisabled, "this node holds no mesh secret")
        })?;
        let own = self.0.consensus.config.addr.clone();
        let mut peers = vec![own.clone()];
        self.0.consensus.members(|members| {
            let others = members.nodes().map(|(_, member)| &member.0);
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

    /// What the node measures.
    pub fn collector(&self) -> Box<dyn Collector> {
        let node = self.clone();
        collector("node", move |out| {
            node.collect_store(out);
            node.collect_consensus(out);
        })
    }

    fn collect_store(&self, out: &mut Families) {
        let Replica { proposer, reader, .. } = self.replica();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, help, count) in [
            ("aspen_kv_writes_total", "Commands proposed.", count(&proposer.proposals)),
            ("aspen_kv_reads_total", "Reads of the store.", count(&reader.reads)),
            (
                "aspen_read_confirmations_total",
                "Confirmations of leadership, shared by reads.",
                reader.barrier.rounds(),
            ),
            ("aspen_checkpoints_total", "Checkpoints begun.", count(&self.0.upkeep.checkpoints)),
        ] {
            out.counter(name, help, count);
        }
        let memory = self.0.consensus.store.memory_bytes() as f64;
        out.gauge("aspen_state_memory_bytes", "Rows that no checkpoint holds yet.", memory);
        let Ok(view) = self.local_view() else { return };
        let header = view.header();
        for (name, help, value) in [
            ("aspen_kv_keys", "Keys.", header.key_count as f64),
            ("aspen_kv_leases", "Leases.", header.lease_count as f64),
            ("aspen_kv_history_rows", "Superseded versions.", header.history_count as f64),
            ("aspen_kv_history_bytes", "Bytes of them.", header.history_bytes as f64),
            ("aspen_feature_level", "Feature level of the cluster.", header.level.0.into()),
        ] {
            out.gauge(name, help, value);
        }
    }

    fn collect_consensus(&self, out: &mut Families) {
        let raft = self.raft_metrics();
        let index = |index: Option<u64>| index.map_or(-1.0, |index| index as f64);
        let leads = f64::from(raft.state == RaftState::Leader);
        for (name, help, value) in [
            ("aspen_raft_term", "Term.", raft.term as f64),
            ("aspen_raft_is_leader", "Whether the node leads.", leads),
            ("aspen_raft_last_log_index", "End of the log.", index(raft.last_log_index)),
            ("aspen_raft_applied_index", "Last applied entry.", index(raft.last_applied_index)),
            ("aspen_raft_snapshot_index", "Last durable entry.", index(raft.snapshot_index)),
            ("aspen_raft_purged_index", "Last dropped entry.", index(raft.purged_index)),
        ] {
            out.gauge(name, help, value);
        }
        let log = self.0.consensus.log.counters();
        out.counter("aspen_log_entries_total", "Entries appended.", log.entries);
        out.counter("aspen_log_bytes_total", "Bytes written to the log.", log.bytes);
        out.counter("aspen_log_syncs_total", "Syncs of the log.", log.syncs);
        let seconds = log.sync_us as f64 / 1e6;
        out.seconds("aspen_log_sync_seconds_total", "Time spent in syncs.", seconds);
        let drift = self.0.consensus.peers.drift.max().as_secs_f64();
        out.gauge("aspen_clock_drift_seconds", "Distance of the farthest peer's clock.", drift);
    }
}

/// Names the cluster by a hash of its secret, which tells nothing about it.
fn cluster_id(mesh_key: &[u8; 32]) -> ClusterId {
    let mut hasher = blake3::Hasher::new_derive_key("aspen cluster 2026 identity");
    hasher.update(mesh_key);
    ClusterId(*hasher.finalize().as_bytes())
}
