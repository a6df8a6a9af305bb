//! One value of every request and of its reply.

use aspen_api::cluster::{
    AddLearner, AddPeer, ChangeMembership, ClusterNode, ClusterStateResult, Done, ExpungeNode,
    GetClusterState, GetClusterTicket, GetHealth, GetLeader, GetMetrics, GetNodeInfo,
    GetRaftMetrics, HealthReason, HealthResult, HealthStatus, InitCluster, LeaderResult, Member,
    MetricsResult, NodeInfoResult, Ping, Pong, PromoteLearner, RaftMetricsResult, RaftState,
    RemoveLearner, ReplicationProgress, SnapshotResult, TicketResult, TransferLeader,
    TriggerSnapshot,
};
use aspen_api::codec::Wire;
use aspen_api::kv::{
    BatchRead, BatchReadResult, Compact, CompactResult, Compare, CompareTarget, Consistency,
    CountKeys, CountResult, Item, KeyValue, Lifetime, NumberRange, ReadKey, ReadResult, Relation,
    ScanKeys, ScanResult, Transact, TransactResult, TransactionOperation, TransactionOutcome,
    WriteOperation,
};
use aspen_api::lease::{
    LeaseGrant, LeaseGrantResult, LeaseInfo, LeaseKeepalive, LeaseKeepaliveResult, LeaseList,
    LeaseListResult, LeaseRevoke, LeaseRevokeResult, LeaseTimeToLive, LeaseTimeToLiveResult,
};
use aspen_api::{
    EncodedReply, Key, LeaseId, Level, MemberId, Number, Request, RequestFrame, RequestId,
    Response, Revision, SecretText,
};
use bytes::Bytes;
use net_types::{EntityId, NodeId, PeerAddr};

/// A request and its reply as they travel, and how each is read.
pub(crate) struct Sample {
    pub(crate) number: Number,
    pub(crate) name: &'static str,
    pub(crate) request: Bytes,
    pub(crate) reply: Bytes,
    /// Reads a request and writes it again.
    pub(crate) reread_request: fn(Bytes) -> Option<Bytes>,
    /// The same for a reply.
    pub(crate) reread_reply: fn(Bytes) -> Option<Bytes>,
}

impl Sample {
    fn of<R: Request>(request: R, reply: R::Reply) -> Self {
        request.check().unwrap();
        reply.check().unwrap();
        Self {
            number: R::NUMBER,
            name: R::NAME,
            request: request.to_bytes(),
            reply: reply.to_bytes(),
            reread_request: |bytes| R::from_bytes(bytes).ok().map(|request| request.to_bytes()),
            reread_reply: |bytes| R::Reply::from_bytes(bytes).ok().map(|reply| reply.to_bytes()),
        }
    }

    /// The request's frame, without id and token.
    pub(crate) fn frame(&self) -> Bytes {
        let (number, body) = (self.number, self.request.clone());
        RequestFrame { request_id: RequestId::NONE, token: None, number, body }.encode()
    }

    /// The frame of the response with the reply.
    pub(crate) fn response(&self) -> Bytes {
        let result = Ok(EncodedReply(self.reply.clone()));
        Response { applied: Revision(300), result }.encode()
    }
}

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

fn state() -> ClusterStateResult {
    let member = ClusterNode {
        node_id: MemberId(3),
        addr: addr(),
        is_voter: true,
        is_learner: false,
        is_leader: true,
        top_level: Some(Level(2)),
    };
    ClusterStateResult { nodes: vec![member], level: Level(1) }
}

fn node_samples() -> Vec<Sample> {
    let node_id = MemberId(3);
    let health = HealthResult {
        status: HealthStatus::Degraded,
        node_id: NodeId(7),
        raft_node_id: node_id,
        entity_id: EntityId([0xee; 32]),
        uptime_seconds: 300,
        is_initialized: true,
        is_alive: true,
        is_ready: false,
        membership_node_count: 3,
        reasons: vec![HealthReason { text: "why".into() }],
    };
    let metrics = RaftMetricsResult {
        node_id,
        state: RaftState::Leader,
        leader: Some(node_id),
        term: 2,
        last_log_index: Some(300),
        last_applied_index: Some(299),
        snapshot_index: None,
        purged_index: None,
        replication: vec![ReplicationProgress { node_id: MemberId(2), matched_index: Some(299) }],
    };
    let info = NodeInfoResult {
        node_id: NodeId(7),
        raft_node_id: node_id,
        addr: addr(),
        version: "0.1.0".into(),
        top_level: Level(2),
    };
    vec![
        Sample::of(Ping {}, Pong {}),
        Sample::of(GetHealth {}, health),
        Sample::of(GetMetrics {}, MetricsResult { text: "m 1\n".into() }),
        Sample::of(GetRaftMetrics {}, metrics),
        Sample::of(GetNodeInfo {}, info),
        Sample::of(GetLeader {}, LeaderResult { leader: Some(member()) }),
    ]
}

fn member_samples() -> Vec<Sample> {
    let (node_id, addr) = (MemberId(3), addr());
    let promote =
        PromoteLearner { learner_id: node_id, replace_node: Some(MemberId(2)), is_force: true };
    let ticket = TicketResult { ticket: SecretText::new("aspenx".into()) };
    vec![
        Sample::of(InitCluster {}, state()),
        Sample::of(GetClusterState {}, state()),
        Sample::of(GetClusterTicket {}, ticket),
        Sample::of(AddLearner { node_id, addr: addr.clone() }, state()),
        Sample::of(promote, state()),
        Sample::of(ChangeMembership { members: vec![MemberId(1), node_id] }, state()),
        Sample::of(AddPeer { node_id, addr }, Done {}),
        Sample::of(TransferLeader { target: Some(node_id) }, Done {}),
        Sample::of(TriggerSnapshot {}, SnapshotResult { snapshot_index: Some(300) }),
        Sample::of(ExpungeNode { node_id }, state()),
        Sample::of(RemoveLearner { node_id }, state()),
    ]
}

fn transaction() -> Transact {
    let operations = [
        WriteOperation::set(key(), "v"),
        WriteOperation::Set { key: key(), value: "".into(), lifetime: Lifetime::Ttl { ttl_ms: 9 } },
        WriteOperation::Delete { key: key() },
    ];
    let target = |target| Compare { key: key(), relation: Relation::Less, target };
    let (amount, is_subtraction, range) = (300, true, NumberRange::Signed);
    Transact {
        compares: vec![
            target(CompareTarget::ModRevision { revision: Revision(4) }),
            target(CompareTarget::Number { magnitude: 300, is_negative: true }),
        ],
        then: operations.into_iter().map(Into::into).collect(),
        otherwise: vec![
            TransactionOperation::Read { key: key() },
            TransactionOperation::Add { key: key(), amount, is_subtraction, range },
        ],
    }
}

fn store_samples() -> Vec<Sample> {
    let revision = Revision(300);
    let (consistency, at) = (Consistency::Stale, Some(revision));
    let scan = ScanKeys {
        prefix: "p".parse().unwrap(),
        limit: Some(10),
        continuation_token: Some("t".into()),
        consistency: Consistency::Lease,
        revision: None,
    };
    let page = ScanResult {
        entries: vec![KeyValue { key: key(), item: item() }],
        continuation_token: Some("t".into()),
        revision,
    };
    let outcomes = vec![
        TransactionOutcome::Set {},
        TransactionOutcome::Deleted { was_deleted: true },
        TransactionOutcome::Read { item: Some(item()) },
        TransactionOutcome::Added { magnitude: 300, is_negative: true },
        TransactionOutcome::NotKept {},
    ];
    let count = CountKeys {
        prefix: "p".parse().unwrap(),
        continuation_token: Some("t".into()),
        consistency: Consistency::Lease,
        revision: at,
    };
    let counted = CountResult { count: 300, continuation_token: Some("t".into()), revision };
    let read = ReadKey { key: key(), consistency, revision: at };
    let batch = BatchRead { keys: vec![key(), key()], consistency, revision: at };
    vec![
        Sample::of(read, ReadResult { item: Some(item()), revision }),
        Sample::of(scan, page),
        Sample::of(batch, BatchReadResult { items: vec![None, Some(item())], revision }),
        Sample::of(transaction(), TransactResult { failed_compare: Some(1), outcomes, revision }),
        Sample::of(Compact { revision }, CompactResult { oldest_revision: revision }),
        Sample::of(count, counted),
    ]
}

fn lease_samples() -> Vec<Sample> {
    let lease_id = LeaseId(5);
    let life = LeaseTimeToLiveResult {
        lease_id,
        granted_ttl_seconds: 60,
        remaining_ms: 1_000,
        key_count: 1,
        keys: vec![key()],
    };
    let granted = LeaseGrantResult { lease_id, ttl_seconds: 60 };
    let list = LeaseList { after: Some(lease_id), limit: Some(10) };
    vec![
        Sample::of(LeaseGrant { lease_id: None, ttl_seconds: 60 }, granted),
        Sample::of(LeaseRevoke { lease_id }, LeaseRevokeResult { keys_deleted: 2 }),
        Sample::of(LeaseKeepalive { lease_id }, LeaseKeepaliveResult { lease_id, ttl_seconds: 60 }),
        Sample::of(LeaseTimeToLive { lease_id, should_include_keys: true }, life),
        Sample::of(list, LeaseListResult { leases: vec![lease_info()], is_truncated: true }),
    ]
}

/// One of every request of the core services, by number.
pub(crate) fn samples() -> Vec<Sample> {
    let groups = [node_samples(), store_samples(), member_samples(), lease_samples()];
    groups.into_iter().flatten().collect()
}
