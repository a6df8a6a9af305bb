//! Reads, scans and transactions, one rule each.

use aspen_api::kv::{
    BatchRead, Compare, CompareTarget, Consistency, CountKeys, Lifetime, NumberRange, Relation,
    Transact, TransactionOperation, TransactionOutcome, WriteOperation,
};
use aspen_api::{ErrorCode, LeaseId};
use aspen_kv::{Change, Command, ReadError, Reply};
use bytes::Bytes;
use net_types::limits::{MAX_BATCH_READ_BYTES, MAX_TRANSACTION_READ_BYTES, MAX_VALUE_BYTES};

use crate::store::{Store, key, keys_of, outcomes, put, refusal, write};

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
fn a_batch_is_all_or_nothing_and_sees_its_own_order() {
    let mut store = Store::default();
    let operations = vec![
        WriteOperation::set(key("a"), "1"),
        WriteOperation::set(key("a"), "2"),
        WriteOperation::Delete { key: key("b") },
        WriteOperation::set(key("b"), "1"),
    ];
    store.apply(write(operations));
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
    assert_eq!(refusal(store.apply(write(operations))), ErrorCode::NotFound);
    assert_eq!(store.value("a"), Some("2".into()));
    assert_ne!(store.tables, before, "the refused entry still counts as applied");
}

#[test]
fn a_transaction_names_the_first_comparison_that_fails() {
    let mut store = Store::default();
    store.set("a", "1");
    let mut run = |compares| {
        let delete = WriteOperation::Delete { key: key("a") };
        let request = Transact { compares, ..Transact::always([delete]) };
        match store.apply(Command::Transact { request }) {
            Reply::Transact { result } => (result.outcomes.len(), result.failed_compare),
            other => panic!("{other:?}"),
        }
    };
    let exists = |k, exists| Compare {
        key: key(k),
        relation: Relation::Equal,
        target: CompareTarget::Exists { exists },
    };
    let is_one = Compare::value(key("a"), Some("1".into()));
    assert_eq!(run(vec![exists("a", true), exists("b", true)]), (0, Some(1)));
    assert_eq!(run(vec![is_one.clone(), exists("b", false)]), (1, None));
    assert_eq!(run(vec![is_one]), (0, Some(0)));
}

fn read(k: &str) -> TransactionOperation {
    TransactionOperation::Read { key: key(k) }
}

fn set(k: &str, value: impl Into<Bytes>) -> TransactionOperation {
    WriteOperation::set(key(k), value).into()
}

fn run(store: &mut Store, then: Vec<TransactionOperation>) -> Reply {
    store.apply(Command::Transact { request: Transact::always(then) })
}

#[test]
fn a_transaction_runs_one_branch_and_its_reads_see_its_writes() {
    let mut store = Store::default();
    store.set("a", "1");
    let request = Transact {
        compares: vec![Compare {
            key: key("a"),
            relation: Relation::Greater,
            target: CompareTarget::Version { version: 1 },
        }],
        then: vec![set("a", "no")],
        otherwise: vec![read("a"), set("a", "yes"), read("a")],
    };
    let Reply::Transact { result } = store.apply(Command::Transact { request }) else {
        panic!("not a transaction's reply");
    };
    assert!(!result.is_success());
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
    let reply = run(&mut store, vec![set("a", half.clone()), read("a"), read("a")]);
    assert_eq!(refusal(reply), ErrorCode::TooLarge);
    assert_eq!(store.value("a"), None);
    run(&mut store, vec![set("a", half.clone()), set("b", "v"), read("b")]);
    let reply = run(&mut store, vec![read("a"); 2]);
    assert_eq!(refusal(reply), ErrorCode::TooLarge, "values of other entries count as well");
    let then = vec![set("a", half), read("a"), set("a", "small"), read("a")];
    assert!(matches!(run(&mut store, then), Reply::Transact { .. }));
    let largest: Bytes = vec![1; MAX_VALUE_BYTES].into();
    let reply = run(&mut store, vec![set("a", largest), read("a")]);
    assert!(matches!(reply, Reply::Transact { .. }), "any one value can be read");
}

fn add(k: &str, by: i64, range: NumberRange) -> TransactionOperation {
    let (amount, is_subtraction) = (by.unsigned_abs(), by < 0);
    TransactionOperation::Add { key: key(k), amount, is_subtraction, range }
}

#[test]
fn sums_start_at_zero_and_stop_at_the_ends_of_their_range() {
    use NumberRange::{Signed, Unsigned};
    let mut store = Store::default();
    let mut sums = |steps: Vec<TransactionOperation>| {
        let told: Vec<i128> = outcomes(run(&mut store, steps))
            .0
            .into_iter()
            .filter_map(|outcome| match outcome {
                TransactionOutcome::Added { magnitude, is_negative: true } => {
                    Some(-i128::from(magnitude))
                }
                TransactionOutcome::Added { magnitude, .. } => Some(magnitude.into()),
                _ => None,
            })
            .collect();
        told
    };
    assert_eq!(sums(vec![add("n", 3, Unsigned), add("n", -1, Unsigned)]), [3, 2]);
    assert_eq!(sums(vec![add("n", -9, Unsigned)]), [0]);
    let max = || add("n", i64::MAX, Unsigned);
    assert_eq!(sums(vec![max(), max(), max()])[2], i128::from(u64::MAX));
    assert_eq!(sums(vec![set("n", "41"), add("n", 1, Signed)]), [42]);
    let low = |_| add("z", i64::MIN, Signed);
    assert_eq!(sums((0..2).map(low).collect()), [i128::from(i64::MIN); 2]);
    assert_eq!(store.value("n"), Some("42".into()), "numbers are decimal text");
}

#[test]
fn a_sum_keeps_the_lifetime_of_its_key() {
    let mut store = Store::default();
    store.grant(7, 60);
    store.set_leased("n", "1", 7);
    store.set_ttl("m", "1", 500);
    let both = vec![add("n", 1, NumberRange::Signed), add("m", 1, NumberRange::Signed)];
    run(&mut store, both);
    assert_eq!(store.item("n").unwrap().lease_id, Some(LeaseId(7)));
    assert_eq!(store.item("m").unwrap().expires_at_ms, Some(500));
    store.now_ms = 500;
    assert_eq!(
        outcomes(run(&mut store, vec![add("m", 5, NumberRange::Signed)])).0,
        [TransactionOutcome::Added { magnitude: 5, is_negative: false }]
    );
    assert_eq!(store.item("m").unwrap().expires_at_ms, None, "what expired is absent");
}

#[test]
fn what_is_no_number_refuses_the_whole_transaction() {
    let mut store = Store::default();
    store.set("text", "x");
    store.set("low", "-1");
    for steps in [
        vec![set("a", "1"), add("text", 1, NumberRange::Signed)],
        vec![set("a", "1"), add("low", 1, NumberRange::Unsigned)],
        vec![set("a", "y"), add("a", 1, NumberRange::Signed)],
        vec![add("a", -1, NumberRange::Signed), add("a", 1, NumberRange::Unsigned)],
    ] {
        assert_eq!(refusal(run(&mut store, steps)), ErrorCode::Conflict);
        assert_eq!(store.value("a"), None);
    }
}

#[test]
fn numbers_are_compared_as_numbers_and_an_absent_key_is_zero() {
    let mut store = Store::default();
    store.set("ten", "10");
    store.set("text", "x");
    let mut holds = |k, relation, number: i64| {
        let (magnitude, is_negative) = (number.unsigned_abs(), number < 0);
        let target = CompareTarget::Number { magnitude, is_negative };
        let compares = vec![Compare { key: key(k), relation, target }];
        let request = Transact { compares, then: vec![], otherwise: vec![] };
        match store.apply(Command::Transact { request }) {
            Reply::Transact { result } => result.is_success(),
            other => panic!("{other:?}"),
        }
    };
    assert!(holds("ten", Relation::Greater, 9), "not as text");
    assert!(holds("ten", Relation::Greater, -11));
    assert!(holds("none", Relation::Equal, 0));
    assert!(holds("none", Relation::Less, 1));
    assert!(!holds("text", Relation::Equal, 0) && !holds("text", Relation::NotEqual, 0));
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

    let value = vec![7; MAX_VALUE_BYTES];
    run(&mut store, vec![set("big", value)]);
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
        run(&mut store, vec![set(&format!("k{n}"), vec![n; MAX_VALUE_BYTES])]);
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
fn a_count_looks_at_a_bounded_number_of_keys_at_a_time() {
    let mut store = Store::default();
    for first in (0..10_100).step_by(100) {
        let set = |n| WriteOperation::set(key(&format!("k{n:06}")), "");
        let request = Transact::always((first..first + 100).map(set));
        store.apply(Command::Transact { request });
    }
    let first = CountKeys {
        prefix: "k".parse().unwrap(),
        continuation_token: None,
        consistency: Consistency::Linearizable,
        revision: None,
    };
    let page = store.view().count(&first).unwrap();
    assert_eq!((page.count, page.revision.0), (10_000, store.revision));
    // What changes between two pages does not show in the second.
    store.delete("k010050");
    let second = CountKeys { continuation_token: page.continuation_token, ..first };
    let last = store.view().count(&second).unwrap();
    assert_eq!((last.count, last.revision, last.continuation_token), (100, page.revision, None));
    for n in 0..6 {
        store.apply(put(&format!("large{n}"), vec![0; 1 << 20], Lifetime::Forever {}));
    }
    let large = CountKeys { prefix: "large".parse().unwrap(), continuation_token: None, ..second };
    let page = store.view().count(&large).unwrap();
    assert!(page.count < 6 && page.continuation_token.is_some(), "as many bytes as a scan reads");
    let other = CountKeys { prefix: "k1".parse().unwrap(), ..second };
    assert!(matches!(store.view().count(&other), Err(ReadError::InvalidToken)));
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
