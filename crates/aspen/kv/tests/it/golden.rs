//! The bytes of the log and of recorded answers are pinned: a replica must read what another wrote,
//! in any version.

use aspen_api::codec::Wire;
use aspen_api::kv::{
    BatchWriteResult, CompactResult, Compare, CompareAndSwapResult, CompareTarget, Condition,
    ConditionFailure, ConditionalBatchWrite, ConditionalBatchWriteResult, DeleteResult, Item,
    Lifetime, Relation, Transact, TransactResult, TransactionOperation, TransactionOutcome,
    WriteOperation, WriteResult,
};
use aspen_api::lease::{LeaseGrantResult, LeaseKeepaliveResult, LeaseRevokeResult};
use aspen_api::{ApiError, ClientId, ErrorCode, LeaseId, RequestId, Revision};
use aspen_kv::conformance::snapshot;
use aspen_kv::{Command, MemoryTables, Proposal, Reply, TableId, TickResult, WriteTables};

use crate::store::key;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn operations() -> Vec<WriteOperation> {
    let set = |lifetime| WriteOperation::Set { key: key("k"), value: "v".into(), lifetime };
    vec![
        set(Lifetime::Forever {}),
        set(Lifetime::Ttl { ttl_ms: 300 }),
        set(Lifetime::Lease { lease_id: LeaseId(5) }),
        WriteOperation::Delete { key: key("k") },
    ]
}

fn conditional() -> ConditionalBatchWrite {
    let conditions = vec![
        Condition::ValueEquals { key: key("k"), value: "v".into() },
        Condition::KeyExists { key: key("k") },
        Condition::KeyNotExists { key: key("k") },
    ];
    ConditionalBatchWrite { conditions, operations: operations()[3..].to_vec() }
}

fn transaction() -> Transact {
    let targets = [
        (Relation::Equal, CompareTarget::Value { value: "v".into() }),
        (Relation::NotEqual, CompareTarget::Version { version: 2 }),
        (Relation::Greater, CompareTarget::CreateRevision { revision: Revision(3) }),
        (Relation::Less, CompareTarget::ModRevision { revision: Revision(4) }),
        (Relation::Equal, CompareTarget::Exists { exists: true }),
    ];
    let compares =
        targets.map(|(relation, target)| Compare { key: key("k"), relation, target }).to_vec();
    let delete = TransactionOperation::Write { operation: operations()[3].clone() };
    Transact {
        compares,
        then: vec![delete, TransactionOperation::Read { key: key("k") }],
        otherwise: vec![],
    }
}

fn commands() -> Vec<Command> {
    let (k, v) = (key("k"), "v".into());
    vec![
        Command::Set { key: k.clone(), value: v, lifetime: Lifetime::Forever {} },
        Command::Delete { key: k.clone() },
        Command::CompareAndSwap { key: k.clone(), expected: None, new_value: "w".into() },
        Command::CompareAndDelete { key: k, expected: "v".into() },
        Command::BatchWrite { operations: operations() },
        Command::ConditionalBatchWrite { batch: conditional() },
        Command::Transact { transaction: transaction() },
        Command::Compact { revision: Revision(9) },
        Command::LeaseGrant { lease_id: Some(LeaseId(5)), ttl_seconds: 60 },
        Command::LeaseRevoke { lease_id: LeaseId(5) },
        Command::LeaseKeepalive { lease_id: LeaseId(5) },
        Command::Tick {},
    ]
}

fn replies() -> Vec<Reply> {
    let revision = Revision(300);
    let item = Item {
        value: "v".into(),
        version: 1,
        create_revision: Revision(2),
        mod_revision: Revision(3),
        expires_at_ms: Some(4),
        lease_id: Some(LeaseId(5)),
    };
    let outcomes = vec![
        TransactionOutcome::Set {},
        TransactionOutcome::Deleted { was_deleted: true },
        TransactionOutcome::Read { item: Some(item) },
    ];
    vec![
        Reply::Write { result: WriteResult { revision } },
        Reply::Delete { result: DeleteResult { was_deleted: true, revision } },
        Reply::CompareAndSwap {
            result: CompareAndSwapResult {
                is_success: false,
                actual_value: Some("v".into()),
                revision,
            },
        },
        Reply::BatchWrite { result: BatchWriteResult { operations_applied: 2, revision } },
        Reply::ConditionalBatchWrite {
            result: ConditionalBatchWriteResult {
                conditions_met: false,
                operations_applied: 0,
                failed_condition_index: Some(1),
                failed_condition_reason: Some(ConditionFailure::KeyPresent),
                revision,
            },
        },
        Reply::Transact { result: TransactResult { is_success: true, outcomes, revision } },
        Reply::Compact { result: CompactResult { oldest_revision: Revision(9) } },
        Reply::LeaseGrant { result: LeaseGrantResult { lease_id: LeaseId(5), ttl_seconds: 60 } },
        Reply::LeaseRevoke { result: LeaseRevokeResult { keys_deleted: 7 } },
        Reply::LeaseKeepalive {
            result: LeaseKeepaliveResult { lease_id: LeaseId(5), ttl_seconds: 60 },
        },
        Reply::Tick { result: TickResult { removed: 3, is_more: true } },
        Reply::Refused { error: ApiError::new(ErrorCode::NotFound, "no") },
    ]
}

/// Compares encodings with the pinned ones, one a line, and reads them back.
fn check<T: Wire + PartialEq + std::fmt::Debug>(values: &[T], pinned: &str) {
    let found: Vec<_> = values.iter().map(|value| hex(&value.to_bytes())).collect();
    let pinned: Vec<_> = pinned.split_whitespace().collect();
    assert_eq!(found, pinned, "\n{}\n", found.join("\n"));
    for value in values {
        assert_eq!(&T::from_bytes(value.to_bytes()).unwrap(), value);
        value.check().unwrap();
    }
}

#[test]
fn commands_are_pinned() {
    check(&commands(), include_str!("golden_commands.txt"));
}

#[test]
fn replies_are_pinned() {
    check(&replies(), include_str!("golden_replies.txt"));
}

#[test]
fn proposals_are_pinned() {
    let request_id = RequestId { client: ClientId([0xcc; 16]), counter: 300, since: Revision(200) };
    let command = Command::Delete { key: key("k") };
    let named = Proposal { log_time_ms: 1, request_id: Some(request_id), command: command.clone() };
    let unnamed = Proposal { log_time_ms: 1_000, request_id: None, command };
    let pinned = "010101cccccccccccccccccccccccccccccccc ac02 c801 02016b 01e80700 02016b";
    let pinned: String = pinned.split_whitespace().collect();
    assert_eq!(hex(&named.to_bytes()) + &hex(&unnamed.to_bytes()), pinned);
}

#[test]
fn snapshots_are_pinned() {
    let mut tables = MemoryTables::new();
    tables.insert(TableId::Live, b"k", b"value").unwrap();
    tables.insert(TableId::Expiry, b"e", b"").unwrap();
    let chunks: Vec<_> = snapshot(&tables).iter().map(|chunk| hex(chunk)).collect();
    assert_eq!(
        chunks,
        [
            "01010000000001016b0576616c756503016500522bf2d225827919",
            "010201000000020000000000000040f94ef707fd9c5ffc91aeeccb158afe",
        ]
    );
}
