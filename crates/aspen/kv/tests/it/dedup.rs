//! Repeated requests are answered, not applied again.

use aspen_api::kv::{
    Compare, Lifetime, Transact, TransactionOperation, TransactionOutcome, WriteOperation,
};
use aspen_api::{ClientId, ErrorCode, LeaseId, RequestId, Revision};
use aspen_kv::conformance::dump;
use aspen_kv::{Applier, Command, MemoryTables, Proposal, Reply, TableId};
use bytes::Bytes;
use net_types::limits::{DEDUP_WINDOW_REQUESTS, MAX_DEDUP_CLIENTS};
use proptest::prelude::*;

use crate::store::{Store, key, outcomes, put, refusal};

fn id(client: u8, counter: u64) -> Option<RequestId> {
    id_since(client, counter, 0)
}

fn id_since(client: u8, counter: u64, since: u64) -> Option<RequestId> {
    Some(RequestId { client: ClientId([client; 16]), counter, since: Revision(since) })
}

fn set(value: &'static str) -> Command {
    put("k", value, Lifetime::Forever {})
}

fn swap(expected: Option<&'static str>, new_value: &'static str) -> Command {
    let request = Transact {
        compares: vec![Compare::value(key("k"), expected.map(Bytes::from))],
        then: vec![WriteOperation::set(key("k"), new_value).into()],
        otherwise: vec![TransactionOperation::Read { key: key("k") }],
    };
    Command::Transact { request }
}

/// The revision of a transaction whose comparisons held.
fn written(reply: Reply) -> u64 {
    match reply {
        Reply::Transact { result } if result.is_success() => result.revision.0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_repeated_write_is_answered_with_its_first_reply() {
    let mut store = Store::default();
    let first = store.apply_named(swap(None, "1"), id(1, 1));
    store.apply_named(set("2"), id(2, 1));
    let events = store.events.len();
    let again = store.apply_named(swap(None, "1"), id(1, 1));
    assert_eq!(again, first);
    assert_eq!(store.value("k"), Some("2".into()), "the other client's write stands");
    assert_eq!(store.events.len(), events);
}

#[test]
fn a_late_copy_of_a_failed_request_is_not_carried_out() {
    let mut store = Store::default();
    store.set("k", "1");
    let failed = store.apply_named(swap(None, "2"), id(1, 1));
    assert!(matches!(&failed, Reply::Transact { result } if !result.is_success()));
    let no_lease = Lifetime::Lease { lease_id: LeaseId(7) };
    let leased = put("l", "v", no_lease);
    let refused = store.apply_named(leased.clone(), id(1, 2));

    // What they failed for is gone, but their sender was told that they failed.
    store.delete("k");
    store.grant(7, 60);
    assert_eq!(store.apply_named(swap(None, "2"), id(1, 1)), failed);
    assert_eq!(store.apply_named(leased, id(1, 2)), refused);
    assert_eq!((store.value("k"), store.value("l")), (None, None));
}

#[test]
fn an_answer_that_is_too_large_to_record_is_remembered_without_what_it_read() {
    let mut store = Store::default();
    let value: Bytes = vec![7; 1 << 20].into();
    store.apply(put("k", value, Lifetime::Forever {}));
    let outcome = |reply| match outcomes(reply) {
        (outcomes, revision) if outcomes.len() == 1 => (outcomes[0].clone(), revision),
        other => panic!("{other:?}"),
    };
    let (first, revision) = outcome(store.apply_named(swap(None, "2"), id(1, 1)));
    assert!(matches!(first, TransactionOutcome::Read { item: Some(_) }));
    store.delete("k");
    let again = outcome(store.apply_named(swap(None, "2"), id(1, 1)));
    assert_eq!(again, (TransactionOutcome::NotKept {}, revision));
    assert_eq!(store.value("k"), None);
}

#[test]
fn a_request_older_than_the_window_is_refused() {
    let mut store = Store::default();
    for counter in 1..=DEDUP_WINDOW_REQUESTS + 1 {
        store.apply_named(set("v"), id(1, counter));
    }
    let revision = store.item("k").unwrap().mod_revision;
    let reply = store.apply_named(set("late"), id(1, 1));
    assert_eq!(refusal(reply), ErrorCode::SessionExpired);
    let oldest = store.apply_named(set("late"), id(1, 2));
    assert_eq!(written(oldest), 2);
    assert_eq!(store.item("k").unwrap().mod_revision, revision);
    let rows = dump(&store.tables).iter().filter(|row| row.0 == TableId::Replies).count();
    assert_eq!(rows as u64, DEDUP_WINDOW_REQUESTS);
}

#[test]
fn requests_may_arrive_in_any_order_within_the_window() {
    let mut store = Store::default();
    for counter in [100, 1, 50] {
        let reply = store.apply_named(set("v"), id(1, counter));
        written(reply);
    }
    let again = store.apply_named(set("w"), id(1, 1));
    assert_eq!(written(again), 2);
}

#[test]
fn a_silent_client_is_forgotten_after_ten_minutes_and_not_before() {
    let minute = 60_000;
    let mut store = Store { now_ms: minute, ..Store::default() };
    store.apply_named(set("v"), id(1, 1));
    store.now_ms += minute / 2;
    store.apply_named(set("v"), id(1, 2));
    store.now_ms += 10 * minute;
    let repeated = store.apply_named(set("w"), id(1, 2));
    assert_eq!(written(repeated), 2);
    store.now_ms += 2 * minute;
    store.tick();
    assert_eq!(store.header().client_count, 0);
    assert_eq!(store.header().forgotten_revision, Revision(2), "the newest that was answered");
    let dedup_tables = [TableId::Clients, TableId::ClientAges, TableId::Replies];
    assert!(dump(&store.tables).iter().all(|row| !dedup_tables.contains(&row.0)));
}

#[test]
fn a_busy_client_is_not_forgotten() {
    let mut store = Store::default();
    for counter in 1..=30 {
        store.now_ms += 59_000;
        store.apply_named(set("v"), id(1, counter));
    }
    assert_eq!(store.header().client_count, 1);
    let repeated = store.apply_named(set("w"), id(1, 1));
    assert_eq!(written(repeated), 1);
}

#[test]
fn the_number_of_clients_is_bounded_and_the_most_silent_one_goes_first() {
    let mut tables = MemoryTables::new();
    let mut applier = Applier::open(&mut tables).unwrap();
    for n in 0..=MAX_DEDUP_CLIENTS {
        let client = ClientId(u128::from(n).to_be_bytes());
        let request_id = Some(RequestId { client, counter: 1, since: Revision(n) });
        let log_time_ms = n / 1_000;
        let proposal = Proposal { log_time_ms, request_id, command: set("v") };
        applier.apply(Revision(n + 1), &proposal).unwrap();
    }
    assert_eq!(applier.header().client_count, MAX_DEDUP_CLIENTS);
    let mut ask = |n: u64, since, revision| {
        let client = ClientId(u128::from(n).to_be_bytes());
        let request_id = Some(RequestId { client, counter: 1, since: Revision(since) });
        let proposal = Proposal { log_time_ms: 0, request_id, command: set("w") };
        applier.apply(Revision(revision), &proposal).unwrap()
    };
    let newest = MAX_DEDUP_CLIENTS + 2;
    assert_eq!(written(ask(1, 1, newest)), 2, "remembered");
    let lost = ask(0, 0, newest + 1);
    assert_eq!(refusal(lost), ErrorCode::SessionExpired, "forgotten, hence not applied again");
    let other = ask(u64::MAX, 1, newest + 2);
    assert_eq!(written(other), newest + 2, "named after what was forgotten");
}

/// A request that may arrive any number of times, at any time.
#[derive(Clone, Copy, Debug)]
struct Ask {
    id: RequestId,
    first: Option<Revision>,
}

#[derive(Clone, Debug)]
enum Step {
    /// A client names a new request; it may never arrive.
    Name(u8),
    /// One of the requests arrives, counted from the newest.
    Arrive(usize),
    /// Log time passes, perhaps so far that clients are forgotten.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3u8).prop_map(Step::Name),
        5 => (0..8usize).prop_map(Step::Arrive),
        1 => (0..200usize).prop_map(Step::Arrive),
        1 => prop::sample::select(vec![1_000, 59_000, 600_000, 900_000]).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Every arrival would write: the key's version counts the effects.
    #[test]
    fn no_request_takes_effect_twice_and_a_new_name_always_does(
        steps in prop::collection::vec(step(), 1..300)
    ) {
        let mut store = Store::default();
        let mut asks: Vec<Ask> = Vec::new();
        let (mut counters, mut effects) = ([0; 3], 0);
        for step in steps {
            match step {
                Step::Name(client) => {
                    counters[usize::from(client)] += 1;
                    let counter = counters[usize::from(client)];
                    let id = id_since(client, counter, store.revision).unwrap();
                    asks.push(Ask { id, first: None });
                }
                Step::Pass(ms) => store.now_ms += ms,
                Step::Arrive(from_newest) => {
                    let Some(at) = asks.len().checked_sub(from_newest + 1) else { continue };
                    let ask = asks[at];
                    let newest = Revision(store.revision + 1);
                    let is_new = ask.first.is_none() && ask.id.since.0 == store.revision;
                    match store.apply_named(set("v"), Some(ask.id)) {
                        Reply::Transact { result } if result.revision == newest => {
                            prop_assert_eq!(ask.first, None, "applied again");
                            asks[at].first = Some(newest);
                            effects += 1;
                        }
                        Reply::Transact { result } => {
                            prop_assert_eq!(Some(result.revision), ask.first);
                        }
                        other => {
                            prop_assert_eq!(refusal(other), ErrorCode::SessionExpired);
                            prop_assert!(!is_new, "nothing newer was forgotten");
                        }
                    }
                    prop_assert_eq!(store.item("k").map_or(0, |item| item.version), effects);
                }
            }
        }
    }
}
