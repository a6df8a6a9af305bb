//! One value of every request and response.

use aspen_api::cluster::{
    AddLearner, AddPeer, ChangeMembership, ClusterNode, ClusterStateResult, Done, ExpungeNode,
    GetClusterState, GetClusterTicket, GetHealth, GetLeader, GetMetrics, GetNodeInfo,
    GetRaftMetrics, HealthReason, HealthResult, HealthStatus, InitCluster, LeaderResult, Member,
    MetricsResult, NodeInfoResult, Ping, Pong, PromoteLearner, RaftMetricsResult, RaftState,
    ReplicationProgress, SnapshotResult, TicketResult, TransferLeader, TriggerSnapshot,
};
use aspen_api::kv::{
    BatchRead, BatchReadResult, BatchWrite, BatchWriteResult, Compact, CompactResult, Compare,
    CompareAndDeleteKey, CompareAndSwapKey, CompareAndSwapResult, CompareTarget, Condition,
    ConditionFailure, ConditionalBatchWrite, ConditionalBatchWriteResult, Consistency, DeleteKey,
    DeleteResult, Item, KeyValue, Lifetime, ReadKey, ReadResult, Relation, ScanKeys, ScanResult,
    Transact, TransactResult, TransactionOperation, TransactionOutcome, WriteKey,
    WriteKeyWithLease, WriteKeyWithTtl, WriteOperation, WriteResult,
};
use aspen_api::lease::{
    LeaseGrant, LeaseGrantResult, LeaseInfo, LeaseKeepalive, LeaseKeepaliveResult, LeaseList,
    LeaseListResult, LeaseRevoke, LeaseRevokeResult, LeaseTimeToLive, LeaseTimeToLiveResult,
};
use aspen_api::{
    ApiError, ErrorCode, Key, LeaseId, MemberId, Request, Response, Revision, SecretText,
};
use net_types::{EntityId, NodeId, PeerAddr};

fn key() -> Key {
    "k".parse().unwrap()
}

fn addr() -> PeerAddr {
    PeerAddr {
        entity_id: EntityId([0xee; 32]),
        addrs: vec!["127.0.0.1:80".parse().unwrap(), "[::1]:80".parse().unwrap()],
        relays: vec![EntityId([0xdd; 32])],
    }
}

fn item() -> Item {
    Item {
        value: "v".into(),
        version: 1,
        create_revision: Revision(2),
        mod_revision: Revision(300),
        expires_at_ms: Some(4),
        lease_id: None,
    }
}

fn lease_info() -> LeaseInfo {
    let lease_id = LeaseId(5);
    LeaseInfo { lease_id, granted_ttl_seconds: 60, remaining_ms: 1_000, key_count: 1 }
}

fn member() -> Member {
    Member { node_id: MemberId(3), addr: addr() }
}

fn store_requests() -> Vec<Request> {
    let (consistency, revision) = (Consistency::Stale, Some(Revision(300)));
    let operations = vec![
        WriteOperation::set(key(), "v"),
        WriteOperation::Set { key: key(), value: "".into(), lifetime: Lifetime::Ttl { ttl_ms: 9 } },
        WriteOperation::Delete { key: key() },
    ];
    let compare = Compare {
        key: key(),
        relation: Relation::Less,
        target: CompareTarget::ModRevision { revision: Revision(4) },
    };
    vec![
        ReadKey { key: key(), consistency, revision }.into(),
        WriteKey { key: key(), value: "v".into() }.into(),
        DeleteKey { key: key() }.into(),
        ScanKeys {
            prefix: "p".parse().unwrap(),
            limit: Some(10),
            continuation_token: Some("t".into()),
            consistency: Consistency::Lease,
            revision: None,
        }
        .into(),
        CompareAndSwapKey { key: key(), expected: Some("v".into()), new_value: "w".into() }.into(),
        CompareAndDeleteKey { key: key(), expected: "v".into() }.into(),
        BatchRead { keys: vec![key(), key()], consistency, revision }.into(),
        BatchWrite { operations: operations.clone() }.into(),
        ConditionalBatchWrite {
            conditions: vec![Condition::KeyNotExists { key: key() }],
            operations: operations.clone(),
        }
        .into(),
        WriteKeyWithLease { key: key(), value: "v".into(), lease_id: LeaseId(5) }.into(),
        WriteKeyWithTtl { key: key(), value: "v".into(), ttl_ms: 300 }.into(),
        Transact {
            compares: vec![compare],
            then: vec![TransactionOperation::Write { operation: operations[2].clone() }],
            otherwise: vec![TransactionOperation::Read { key: key() }],
        }
        .into(),
        Compact { revision: Revision(300) }.into(),
        LeaseGrant { lease_id: None, ttl_seconds: 60 }.into(),
        LeaseRevoke { lease_id: LeaseId(5) }.into(),
        LeaseKeepalive { lease_id: LeaseId(5) }.into(),
        LeaseTimeToLive { lease_id: LeaseId(5), should_include_keys: true }.into(),
        LeaseList { after: Some(LeaseId(5)), limit: Some(10) }.into(),
    ]
}

/// One of every request.
pub(crate) fn requests() -> Vec<Request> {
    let (node_id, addr) = (MemberId(3), addr());
    let mut all: Vec<Request> = vec![
        Ping {}.into(),
        GetHealth {}.into(),
        GetMetrics {}.into(),
        GetRaftMetrics {}.into(),
        GetNodeInfo {}.into(),
        GetLeader {}.into(),
        InitCluster {}.into(),
        GetClusterState {}.into(),
        GetClusterTicket {}.into(),
        AddLearner { node_id, addr: addr.clone() }.into(),
        PromoteLearner { learner_id: node_id, replace_node: Some(MemberId(2)), is_force: true }
            .into(),
        ChangeMembership { members: vec![MemberId(1), MemberId(3)] }.into(),
        AddPeer { node_id, addr }.into(),
        TransferLeader { target: Some(node_id) }.into(),
        TriggerSnapshot {}.into(),
        ExpungeNode { node_id }.into(),
    ];
    all.extend(store_requests());
    all
}

fn store_responses() -> Vec<Response> {
    let revision = Revision(300);
    let outcomes = vec![
        TransactionOutcome::Set {},
        TransactionOutcome::Deleted { was_deleted: true },
        TransactionOutcome::Read { item: Some(item()) },
    ];
    vec![
        ReadResult { item: Some(item()), revision }.into(),
        WriteResult { revision }.into(),
        DeleteResult { was_deleted: true, revision }.into(),
        ScanResult {
            entries: vec![KeyValue { key: key(), item: item() }],
            continuation_token: Some("t".into()),
            revision,
        }
        .into(),
        CompareAndSwapResult { is_success: false, actual_value: Some("v".into()), revision }.into(),
        BatchReadResult { items: vec![None, Some(item())], revision }.into(),
        BatchWriteResult { operations_applied: 3, revision }.into(),
        ConditionalBatchWriteResult {
            conditions_met: false,
            operations_applied: 0,
            failed_condition_index: Some(1),
            failed_condition_reason: Some(ConditionFailure::ValueDiffers),
            revision,
        }
        .into(),
        TransactResult { is_success: true, outcomes, revision }.into(),
        CompactResult { oldest_revision: revision }.into(),
        LeaseGrantResult { lease_id: LeaseId(5), ttl_seconds: 60 }.into(),
        LeaseRevokeResult { keys_deleted: 2 }.into(),
        LeaseKeepaliveResult { lease_id: LeaseId(5), ttl_seconds: 60 }.into(),
        LeaseTimeToLiveResult {
            lease_id: LeaseId(5),
            granted_ttl_seconds: 60,
            remaining_ms: 1_000,
            key_count: 1,
            keys: vec![key()],
        }
        .into(),
        LeaseListResult { leases: vec![lease_info()], is_truncated: true }.into(),
    ]
}

/// One of every response.
pub(crate) fn responses() -> Vec<Response> {
    let node_id = MemberId(3);
    let replication = vec![ReplicationProgress { node_id: MemberId(2), matched_index: Some(299) }];
    let mut all: Vec<Response> = vec![
        ApiError::not_leader(Some(addr())).into(),
        ApiError::new(ErrorCode::InternalError, "no").into(),
        Pong {}.into(),
        HealthResult {
            status: HealthStatus::Degraded,
            node_id: NodeId(7),
            raft_node_id: node_id,
            entity_id: EntityId([0xee; 32]),
            uptime_seconds: 300,
            is_initialized: true,
            membership_node_count: 3,
            reasons: vec![HealthReason { text: "why".into() }],
        }
        .into(),
        MetricsResult { text: "m 1\n".into() }.into(),
        RaftMetricsResult {
            node_id,
            state: RaftState::Leader,
            leader: Some(node_id),
            term: 2,
            last_log_index: Some(300),
            last_applied_index: Some(299),
            snapshot_index: None,
            purged_index: None,
            replication,
        }
        .into(),
        NodeInfoResult {
            node_id: NodeId(7),
            raft_node_id: node_id,
            addr: addr(),
            version: "0.1.0".into(),
        }
        .into(),
        LeaderResult { leader: Some(member()) }.into(),
        Done {}.into(),
        ClusterStateResult {
            nodes: vec![ClusterNode {
                node_id,
                addr: addr(),
                is_voter: true,
                is_learner: false,
                is_leader: true,
            }],
        }
        .into(),
        TicketResult { ticket: SecretText::new("aspenx".into()) }.into(),
        SnapshotResult { snapshot_index: Some(300) }.into(),
    ];
    all.extend(store_responses());
    all
}
