//! The bytes of the log and of recorded answers are pinned: a replica must read what another wrote,
//! in any version.

use aspen_api::codec::Wire;
use aspen_api::kv::{
    Compact, CompactResult, Compare, CompareTarget, Item, Lifetime, NumberRange, Relation,
    Transact, TransactResult, TransactionOperation, TransactionOutcome, WriteOperation,
};
use aspen_api::lease::{
    LeaseGrant, LeaseGrantResult, LeaseKeepalive, LeaseKeepaliveResult, LeaseRevoke,
    LeaseRevokeResult,
};
use aspen_api::{ApiError, ClientId, ErrorCode, LeaseId, Level, RequestId, Revision};
use aspen_kv::conformance::snapshot;
use aspen_kv::{
    Command, MemoryTables, Proposal, ProposalError, Reply, StepResult, TableId, TickResult,
    WriteTables,
};

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

fn transaction() -> Transact {
    let targets = [
        (Relation::Equal, CompareTarget::Value { value: "v".into() }),
        (Relation::NotEqual, CompareTarget::Version { version: 2 }),
        (Relation::Greater, CompareTarget::CreateRevision { revision: Revision(3) }),
        (Relation::Less, CompareTarget::ModRevision { revision: Revision(4) }),
        (Relation::Equal, CompareTarget::Exists { exists: true }),
        (Relation::Less, CompareTarget::Number { magnitude: 300, is_negative: true }),
    ];
    let compares =
        targets.map(|(relation, target)| Compare { key: key("k"), relation, target }).to_vec();
    let mut then: Vec<TransactionOperation> = operations().into_iter().map(Into::into).collect();
    then.push(TransactionOperation::Read { key: key("k") });
    let add = |is_subtraction, range| TransactionOperation::Add {
        key: key("k"),
        amount: 300,
        is_subtraction,
        range,
    };
    let otherwise = vec![add(false, NumberRange::Unsigned), add(true, NumberRange::Signed)];
    Transact { compares, then, otherwise }
}

fn commands() -> Vec<Command> {
    let lease_id = LeaseId(5);
    vec![
        Command::Transact { request: transaction() },
        Command::LeaseGrant { request: LeaseGrant { lease_id: Some(lease_id), ttl_seconds: 60 } },
        Command::LeaseRevoke { request: LeaseRevoke { lease_id } },
        Command::LeaseKeepalive { request: LeaseKeepalive { lease_id } },
        Command::Compact { request: Compact { revision: Revision(9) } },
        Command::Step { level: Level(2) },
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
        TransactionOutcome::Added { magnitude: 300, is_negative: true },
        TransactionOutcome::NotKept {},
    ];
    vec![
        Reply::Transact { result: TransactResult { failed_compare: Some(1), outcomes, revision } },
        Reply::LeaseGrant { result: LeaseGrantResult { lease_id: LeaseId(5), ttl_seconds: 60 } },
        Reply::LeaseRevoke { result: LeaseRevokeResult { keys_deleted: 7 } },
        Reply::LeaseKeepalive {
            result: LeaseKeepaliveResult { lease_id: LeaseId(5), ttl_seconds: 60 },
        },
        Reply::Compact { result: CompactResult { oldest_revision: Revision(9) } },
        Reply::Step { result: StepResult { level: Level(2) } },
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
    let command = Command::Compact { request: Compact { revision: Revision(300) } };
    let named = Proposal { log_time_ms: 1, request_id: Some(request_id), command: command.clone() };
    let unnamed = Proposal { log_time_ms: 1_000, request_id: None, command };
    let pinned =
        "01 01 01 01cccccccccccccccccccccccccccccccc ac02 c801 05ac02 01 01 e807 00 05ac02";
    let pinned: String = pinned.split_whitespace().collect();
    assert_eq!(hex(&named.encode()) + &hex(&unnamed.encode()), pinned);
    assert_eq!(Proposal::decode(named.encode(), Level::FIRST), Ok(named));
}

#[test]
fn a_proposal_of_a_higher_level_is_told_from_a_damaged_one() {
    let step =
        Proposal { log_time_ms: 1, request_id: None, command: Command::Step { level: Level(7) } };
    let (top, bytes) = (Level(6), step.encode());
    let refused = Proposal::decode(bytes.clone(), top).unwrap_err();
    assert_eq!(refused, ProposalError::TooNew { level: Level(7), top });
    assert!(
        refused.to_string().contains("level 7") && refused.to_string().contains("understands 6")
    );
    let mut unknown = bytes.to_vec();
    unknown.truncate(4);
    unknown.push(255);
    let refused = Proposal::decode(unknown.into(), top).unwrap_err();
    assert_eq!(refused, ProposalError::TooNew { level: Level(7), top }, "whatever the command");
    let mut lower = bytes.to_vec();
    lower[1] = 6;
    assert!(matches!(Proposal::decode(lower.into(), top), Err(ProposalError::Malformed(_))));
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
