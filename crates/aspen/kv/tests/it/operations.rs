//! The ten operations, batches and transactions, one rule each.

use aspen_api::kv::{
    BatchRead, Compare, CompareTarget, Condition, ConditionalBatchWrite, Consistency, Lifetime,
    Relation, Transact, TransactionOperation, TransactionOutcome, WriteOperation,
};
use aspen_api::{ErrorCode, LeaseId};
use aspen_kv::{Change, Command, ReadError, Reply};
use bytes::Bytes;
use net_types::limits::{MAX_BATCH_READ_BYTES, MAX_TRANSACTION_READ_BYTES, MAX_VALUE_BYTES};

use crate::store::{Store, key, keys_of, refusal};

#[test]
fn versions_count_writes_and_restart_after_deletion() {
    let mut store = Store::default();
    let created = store.set("k", "1");
    let changed = store.set("k", "2");
    let item = store.item("k").unwrap();
    assert_eq!((item.version, item.create_revision.0, item.mod_revision.0), (2, created, changed));
    assert!(store.delete("k"));
    assert!(!store.delete("k"), "deleting again succeeds and says that nothing was there");
    let recreated = store.set("k", "3");
    let item = store.item("k").unwrap();
    assert_eq!((item.version, item.create_revision.0), (1, recreated));
    assert_eq!(store.header().key_count, 1);
}

#[test]
fn an_empty_value_is_a_value() {
    let mut store = Store::default();
    store.set("k", "");
    assert_eq!(store.value("k"), Some(String::new()));
    assert_eq!(store.value("other"), None);
}

#[test]
fn compare_and_swap_creates_updates_and_reports_the_actual_value() {
    let mut store = Store::default();
    let mut swap = |expected: Option<&'static str>, new_value: &'static str| {
        let expected = expected.map(Bytes::from);
        let command =
            Command::CompareAndSwap { key: key("k"), expected, new_value: new_value.into() };
        match store.apply(command) {
            Reply::CompareAndSwap { result } => (result.is_success, result.actual_value),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(swap(Some("x"), "1"), (false, None), "absent is not equal to a value");
    assert_eq!(swap(None, "1"), (true, None));
    assert_eq!(swap(None, "2"), (false, Some("1".into())));
    assert_eq!(swap(Some("1"), "2"), (true, None));
    assert_eq!(swap(Some("1"), "3"), (false, Some("2".into())));
}

#[test]
fn a_batch_is_all_or_nothing_and_sees_its_own_order() {
    let mut store = Store::default();
    let operations = vec![
        WriteOperation::set(key("a"), "1"),
        WriteOperation::set(key("a"), "2"),
        WriteOperation::Delete { key: key("b") },
        WriteOperation::set(key("b"), "1"),
    ];
    store.apply(Command::BatchWrite { operations });
    assert_eq!((store.value("a"), store.value("b")), (Some("2".into()), Some("1".into())));
    assert_eq!(store.item("a").unwrap().version, 2);
    assert_eq!(store.header().history_count, 0, "what began and ended in one entry never showed");

    let operations = vec![
        WriteOperation::set(key("a"), "3"),
        WriteOperation::Set {
            key: key("c"),
            value: Bytes::new(),
            lifetime: Lifetime::Lease { lease_id: LeaseId(9) },
        },
    ];
    let before = store.tables.clone();
    assert_eq!(refusal(store.apply(Command::BatchWrite { operations })), ErrorCode::NotFound);
    assert_eq!(store.value("a"), Some("2".into()));
    assert_ne!(store.tables, before, "the refused entry still counts as applied");
}

#[test]
fn a_conditional_batch_names_the_first_condition_that_fails() {
    let mut store = Store::default();
    store.set("a", "1");
    let mut run = |conditions| {
        let operations = vec![WriteOperation::Delete { key: key("a") }];
        let batch = ConditionalBatchWrite { conditions, operations };
        match store.apply(Command::ConditionalBatchWrite { batch }) {
            Reply::ConditionalBatchWrite { result } => {
                (result.operations_applied, result.failed_condition_index)
            }
            other => panic!("{other:?}"),
        }
    };
    let exists = |k| Condition::KeyExists { key: key(k) };
    let is_one = Condition::ValueEquals { key: key("a"), value: "1".into() };
    assert_eq!(run(vec![exists("a"), exists("b")]), (0, Some(1)));
    assert_eq!(run(vec![is_one.clone(), Condition::KeyNotExists { key: key("b") }]), (1, None));
    assert_eq!(run(vec![is_one]), (0, Some(0)));
}

fn read(k: &str) -> TransactionOperation {
    TransactionOperation::Read { key: key(k) }
}

fn put(k: &str, value: Bytes) -> TransactionOperation {
    TransactionOperation::Write { operation: WriteOperation::set(key(k), value) }
}

#[test]
fn a_transaction_runs_one_branch_and_its_reads_see_its_writes() {
    let mut store = Store::default();
    store.set("a", "1");
    let transaction = Transact {
        compares: vec![Compare {
            key: key("a"),
            relation: Relation::Greater,
            target: CompareTarget::Version { version: 1 },
        }],
        then: vec![put("a", "no".into())],
        otherwise: vec![read("a"), put("a", "yes".into()), read("a")],
    };
    let Reply::Transact { result } = store.apply(Command::Transact { transaction }) else {
        panic!("not a transaction's reply");
    };
    assert!(!result.is_success);
    let values: Vec<_> = result
        .outcomes
        .into_iter()
        .map(|outcome| match outcome {
            TransactionOutcome::Read { item } => item.map(|item| item.value),
            _ => None,
        })
        .collect();
    assert_eq!(values, [Some("1".into()), None, Some("yes".into())]);
}

#[test]
fn a_transaction_that_would_read_too_much_changes_nothing() {
    let mut store = Store::default();
    let half: Bytes = vec![1; MAX_TRANSACTION_READ_BYTES / 2 + 1].into();
    let transaction = |then| Transact { compares: vec![], then, otherwise: vec![] };
    let then = vec![put("a", half.clone()), read("a"), read("a")];
    let reply = store.apply(Command::Transact { transaction: transaction(then) });
    assert_eq!(refusal(reply), ErrorCode::TooLarge);
    assert_eq!(store.value("a"), None);
    let then = vec![put("a", half.clone()), put("b", "v".into()), read("b")];
    store.apply(Command::Transact { transaction: transaction(then) });
    let reply = store.apply(Command::Transact { transaction: transaction(vec![read("a"); 2]) });
    assert_eq!(refusal(reply), ErrorCode::TooLarge, "values of other entries count as well");
    let then = vec![put("a", half), read("a"), put("a", "small".into()), read("a")];
    let reply = store.apply(Command::Transact { transaction: transaction(then) });
    assert!(matches!(reply, Reply::Transact { .. }));
}

#[test]
fn a_batch_read_is_one_snapshot_in_request_order_and_bounded() {
    let mut store = Store::default();
    store.set("a", "1");
    store.set("b", "2");
    let mut request = BatchRead {
        keys: ["b", "missing", "a", "b"].map(key).to_vec(),
        consistency: Consistency::Linearizable,
        revision: None,
    };
    let result = store.view().batch_read(&request).unwrap();
    let values: Vec<_> = result.items.into_iter().map(|i| i.map(|i| i.value)).collect();
    assert_eq!(values, [Some("2".into()), None, Some("1".into()), Some("2".into())]);

    let value = vec![7; MAX_VALUE_BYTES].into();
    store.apply(Command::Set { key: key("big"), value, lifetime: Lifetime::Forever {} });
    request.keys = vec![key("big"); MAX_BATCH_READ_BYTES / MAX_VALUE_BYTES + 1];
    assert!(matches!(store.view().batch_read(&request), Err(ReadError::TooLarge { .. })));
    request.keys.pop();
    assert!(store.view().batch_read(&request).is_ok());
}

#[test]
fn scans_list_a_prefix_in_byte_order_page_by_page() {
    let mut store = Store::default();
    for k in ["p/b", "p/a", "p/a\0", "p/ab", "q", "o", "p"] {
        store.set(k, k);
    }
    let first = store.scan("p/", 2, None);
    assert_eq!(keys_of(&first), ["p/a", "p/a\0"]);
    let second = store.scan("p/", 2, first.continuation_token);
    assert_eq!(keys_of(&second), ["p/ab", "p/b"]);
    assert!(!second.is_truncated());
    assert_eq!(store.scan("", 100, None).entries.len(), 7);
    assert!(store.scan("none", 100, None).entries.is_empty());
}

#[test]
fn a_page_of_large_values_ends_early_and_goes_on() {
    let mut store = Store::default();
    for n in 0..6 {
        let value = vec![n; MAX_VALUE_BYTES].into();
        let key = key(&format!("k{n}"));
        store.apply(Command::Set { key, value, lifetime: Lifetime::Forever {} });
    }
    let first = store.scan("", 100, None);
    assert_eq!(first.entries.len(), 4);
    let second = store.scan("", 100, first.continuation_token);
    assert_eq!(keys_of(&second), ["k4", "k5"]);
}

#[test]
fn foreign_and_damaged_tokens_are_refused() {
    let mut store = Store::default();
    for k in ["p/a", "p/b"] {
        store.set(k, k);
    }
    let token = store.scan("p/", 1, None).continuation_token.unwrap();
    let scan = |prefix: &str, token: Bytes, revision| {
        let request = aspen_api::kv::ScanKeys {
            continuation_token: Some(token),
            revision,
            ..aspen_api::kv::ScanKeys::newest(prefix.parse().unwrap())
        };
        store.view().scan(&request)
    };
    assert!(scan("p/", token.clone(), None).is_ok());
    assert!(matches!(scan("p", token.clone(), None), Err(ReadError::InvalidToken)));
    let other = Some(aspen_api::Revision(1));
    assert!(matches!(scan("p/", token.clone(), other), Err(ReadError::InvalidToken)));
    assert!(matches!(scan("p/", token.slice(1..), None), Err(ReadError::InvalidToken)));
}

#[test]
fn events_tell_every_change_in_order() {
    let mut store = Store::default();
    store.set("a", "1");
    store.delete("a");
    store.delete("a");
    store.now_ms = 10;
    store.set_ttl("b", "1", 5);
    store.now_ms = 20;
    store.tick();
    let told: Vec<_> = store
        .events
        .iter()
        .map(|event| {
            let what = match &event.change {
                Change::Put(item) => format!("put {:?}", item.value),
                other => format!("{other:?}"),
            };
            (event.revision.0, event.key.to_string(), what)
        })
        .collect();
    let expected =
        [(1, "a", "put b\"1\""), (2, "a", "Deleted"), (4, "b", "put b\"1\""), (5, "b", "Expired")];
    let expected: Vec<_> = expected.map(|(r, k, what)| (r, k.to_owned(), what.to_owned())).to_vec();
    assert_eq!(told, expected);
}
