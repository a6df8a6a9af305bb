//! Requests about a node and its cluster, and their results.

use net_types::limits::{
    MAX_CLUSTER_PEERS, MAX_HEALTH_REASON_BYTES, MAX_HEALTH_REASONS, MAX_TEXT_ANSWER_BYTES,
    MAX_VOTERS,
};
use net_types::{EntityId, NodeId, PeerAddr};

use crate::{Kind, Level, MemberId, Needs, SecretText, family};
use crate::{numbers, record, request};

/// Bytes of a version text.
const MAX_VERSION_BYTES: usize = 64;

numbers! {
    /// How a node judges its cluster.
    pub enum HealthStatus {
        /// There is a leader and this node follows it closely.
        Healthy = 1 as "healthy",
        /// The cluster works, but this node lags or members are missing.
        Degraded = 2 as "degraded",
        /// No leader is known that can act.
        Unhealthy = 3 as "unhealthy",
    }

    /// What a node is in the consensus group.
    pub enum RaftState {
        /// Receives the log without voting.
        Learner = 1 as "learner",
        /// Follows a leader.
        Follower = 2 as "follower",
        /// Asks for votes.
        Candidate = 3 as "candidate",
        /// Leads.
        Leader = 4 as "leader",
        /// Stopped, by request or after a storage error.
        Stopped = 5 as "stopped",
    }
}

record! {
    /// The answer to [`Ping`].
    pub struct Pong {}

    /// The answer to [`GetHealth`].
    pub struct HealthResult {
        /// The judgement.
        pub status: HealthStatus,
        /// The node's routing address.
        pub node_id: NodeId,
        /// Its number in the consensus group.
        pub raft_node_id: MemberId,
        /// Its identity.
        pub entity_id: EntityId,
        /// Seconds since it started.
        pub uptime_seconds: u64,
        /// Whether it holds a membership.
        pub is_initialized: bool,
        /// Whether it can do its work at all: its consensus runs and its log takes writes.
        pub is_alive: bool,
        /// Whether it serves: it belongs to a cluster and follows a leader that can act.
        pub is_ready: bool,
        /// Voters and learners in that membership.
        pub membership_node_count: u32,
        /// Why it is not healthy, at most 64 reasons.
        pub reasons: Vec<HealthReason> [MAX_HEALTH_REASONS],
    }

    /// One reason why a node is not healthy.
    pub struct HealthReason {
        /// For people.
        pub text: String [MAX_HEALTH_REASON_BYTES],
    }

    /// The answer to [`GetMetrics`].
    pub struct MetricsResult {
        /// Prometheus text, at most 1 MiB.
        pub text: String [MAX_TEXT_ANSWER_BYTES],
    }

    /// What a leader knows of one follower's log.
    pub struct ReplicationProgress {
        /// The follower.
        pub node_id: MemberId,
        /// The last log index it holds; absent while nothing is known.
        pub matched_index: Option<u64>,
    }

    /// The answer to [`GetRaftMetrics`].
    pub struct RaftMetricsResult {
        /// The node's number.
        pub node_id: MemberId,
        /// What it is.
        pub state: RaftState,
        /// The leader it knows.
        pub leader: Option<MemberId>,
        /// Its term.
        pub term: u64,
        /// The end of its log.
        pub last_log_index: Option<u64>,
        /// The last entry it has applied.
        pub last_applied_index: Option<u64>,
        /// The last entry in its newest snapshot.
        pub snapshot_index: Option<u64>,
        /// The last entry dropped from its log.
        pub purged_index: Option<u64>,
        /// The followers' progress; empty unless it leads.
        pub replication: Vec<ReplicationProgress> [MAX_CLUSTER_PEERS],
    }

    /// The answer to [`GetNodeInfo`].
    pub struct NodeInfoResult {
        /// Its routing address.
        pub node_id: NodeId,
        /// Its number in the consensus group.
        pub raft_node_id: MemberId,
        /// Its identity and addresses.
        pub addr: PeerAddr,
        /// The version of its program.
        pub version: String [MAX_VERSION_BYTES],
        /// The highest feature level that it understands.
        pub top_level: Level,
    }

    /// A member and where it can be reached.
    pub struct Member {
        /// Its number.
        pub node_id: MemberId,
        /// Its identity and addresses.
        pub addr: PeerAddr,
    }

    /// The answer to [`GetLeader`].
    pub struct LeaderResult {
        /// The leader; absent if none is known.
        pub leader: Option<Member>,
    }

    /// One member of [`ClusterStateResult`].
    pub struct ClusterNode {
        /// Its number.
        pub node_id: MemberId,
        /// Its identity and addresses.
        pub addr: PeerAddr,
        /// Whether it votes.
        pub is_voter: bool,
        /// Whether it receives the log without voting.
        pub is_learner: bool,
        /// Whether it leads, as far as the answering node knows.
        pub is_leader: bool,
        /// The highest feature level that it understands, as far as the answering node knows. The
        /// leader knows it of all members that answer.
        pub top_level: Option<Level>,
    }

    /// The members after or without a change.
    pub struct ClusterStateResult {
        /// Voters and learners, by number.
        pub nodes: Vec<ClusterNode> [MAX_CLUSTER_PEERS],
        /// The feature level of the cluster.
        pub level: Level,
    }

    /// The answer to [`GetClusterTicket`].
    pub struct TicketResult {
        /// The ticket's text. It holds the mesh secret.
        pub ticket: SecretText,
    }

    /// The answer to [`TriggerSnapshot`].
    pub struct SnapshotResult {
        /// The last entry in the newest snapshot, which may still be the one before.
        pub snapshot_index: Option<u64>,
    }

    /// Done; there is nothing to add.
    pub struct Done {}
}

request! {
    /// Asks for a sign of life.
    pub struct Ping {}
    number: family::NODE, 0;
    reply: Pong;
    kind: |_| Kind::Local;
    needs: |_| Needs::Open;

    /// Asks how the node is.
    pub struct GetHealth {}
    number: family::NODE, 1;
    reply: HealthResult;
    kind: |_| Kind::Local;
    needs: |_| Needs::Open;

    /// Asks for the node's metrics.
    pub struct GetMetrics {}
    number: family::NODE, 2;
    reply: MetricsResult;
    kind: |_| Kind::Local;
    needs: |_| Needs::AnyToken;

    /// Asks for the state of consensus on the node.
    pub struct GetRaftMetrics {}
    number: family::NODE, 3;
    reply: RaftMetricsResult;
    kind: |_| Kind::Local;
    needs: |_| Needs::AnyToken;

    /// Asks who the node is.
    pub struct GetNodeInfo {}
    number: family::NODE, 4;
    reply: NodeInfoResult;
    kind: |_| Kind::Local;
    needs: |_| Needs::Open;

    /// Asks who leads.
    pub struct GetLeader {}
    number: family::NODE, 5;
    reply: LeaderResult;
    kind: |_| Kind::Local;
    needs: |_| Needs::AnyToken;

    /// Makes the node the single voter of a new cluster; `CONFLICT` if it is in one.
    pub struct InitCluster {}
    number: family::CLUSTER, 0;
    reply: ClusterStateResult;
    kind: |_| Kind::Node;
    needs: |_| Needs::Admin("change the cluster");

    /// Asks for the members.
    pub struct GetClusterState {}
    number: family::CLUSTER, 1;
    reply: ClusterStateResult;
    kind: |_| Kind::Local;
    needs: |_| Needs::AnyToken;

    /// Asks for the cluster's ticket.
    pub struct GetClusterTicket {}
    number: family::CLUSTER, 2;
    reply: TicketResult;
    kind: |_| Kind::Local;
    needs: |_| Needs::AnyToken;

    /// Adds a node that receives the log without voting. `INVALID_REQUEST` without an address: an
    /// unreachable learner can never catch up.
    pub struct AddLearner {
        /// Its number.
        pub node_id: MemberId,
        /// Its identity and addresses.
        pub addr: PeerAddr,
    }
    number: family::CLUSTER, 3;
    reply: ClusterStateResult;
    kind: |_| Kind::Membership;
    needs: |_| Needs::Admin("change the cluster");

    /// Makes a learner a voter.
    ///
    /// Unless forced it must be reachable and lag at most 100 entries, and 300 s must have passed
    /// since the last change.
    pub struct PromoteLearner {
        /// The learner.
        pub learner_id: MemberId,
        /// The voter that leaves in the same change.
        pub replace_node: Option<MemberId>,
        /// Whether to skip the checks.
        pub is_force: bool,
    }
    number: family::CLUSTER, 4;
    reply: ClusterStateResult;
    kind: |_| Kind::Membership;
    needs: |_| Needs::Admin("change the cluster");

    /// Replaces the set of voters by joint consensus.
    pub struct ChangeMembership {
        /// The voters afterwards; each must be known.
        pub members: Vec<MemberId> [MAX_VOTERS],
    }
    number: family::CLUSTER, 5;
    reply: ClusterStateResult;
    kind: |_| Kind::Membership;
    needs: |_| Needs::Admin("change the cluster");

    /// Tells the node, and only it, where a peer is.
    pub struct AddPeer {
        /// The peer's number.
        pub node_id: MemberId,
        /// Its identity and addresses.
        pub addr: PeerAddr,
    }
    number: family::CLUSTER, 6;
    reply: Done;
    kind: |_| Kind::Node;
    needs: |_| Needs::Admin("change the cluster");

    /// Removes a member for good: its identity is refused from now on. A node with an empty data
    /// folder has a new one.
    pub struct ExpungeNode {
        /// The member.
        pub node_id: MemberId,
    }
    number: family::CLUSTER, 9;
    reply: ClusterStateResult;
    kind: |_| Kind::Membership;
    needs: |_| Needs::Admin("change the cluster");

    /// Takes a learner out of the cluster. It can be added again, unlike one that was expunged.
    ///
    /// `NOT_FOUND` if there is no such member, `CONFLICT` if it votes.
    pub struct RemoveLearner {
        /// The learner.
        pub node_id: MemberId,
    }
    number: family::CLUSTER, 10;
    reply: ClusterStateResult;
    kind: |_| Kind::Membership;
    needs: |_| Needs::Admin("change the cluster");

    /// Asks the leader to let another voter lead.
    pub struct TransferLeader {
        /// The voter; absent lets the leader choose.
        pub target: Option<MemberId>,
    }
    number: family::CLUSTER, 7;
    reply: Done;
    kind: |_| Kind::Membership;
    needs: |_| Needs::Admin("change the cluster");

    /// Takes a snapshot of the node's state and trims its log.
    pub struct TriggerSnapshot {}
    number: family::CLUSTER, 8;
    reply: SnapshotResult;
    kind: |_| Kind::Node;
    needs: |_| Needs::Admin("change the cluster");
}
