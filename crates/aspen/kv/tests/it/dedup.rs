//! Repeated requests are answered, not applied again.

use aspen_api::kv::Lifetime;
use aspen_api::{ClientId, ErrorCode, LeaseId, RequestId, Revision};
use aspen_kv::conformance::dump;
use aspen_kv::{Applier, Command, MemoryTables, Proposal, Reply, TableId};
use bytes::Bytes;
use net_types::limits::{DEDUP_WINDOW_REQUESTS, MAX_DEDUP_CLIENTS};

use crate::store::{Store, key, refusal};

fn id(client: u8, counter: u64) -> Option<RequestId> {
    Some(RequestId { client: ClientId([client; 16]), counter })
}

fn set(value: &'static str) -> Command {
    Command::Set { key: key("k"), value: value.into(), lifetime: Lifetime::Forever {} }
}

fn swap(expected: Option<&'static str>, new_value: &'static str) -> Command {
    let expected = expected.map(Bytes::from);
    Command::CompareAndSwap { key: key("k"), expected, new_value: new_value.into() }
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
    assert!(matches!(&failed, Reply::CompareAndSwap { result } if !result.is_success));
    let no_lease = Lifetime::Lease { lease_id: LeaseId(7) };
    let leased = Command::Set { key: key("l"), value: "v".into(), lifetime: no_lease };
    let refused = store.apply_named(leased.clone(), id(1, 2));

    // What they failed for is gone, but their sender was told that they failed.
    store.delete("k");
    store.grant(7, 60);
    assert_eq!(store.apply_named(swap(None, "2"), id(1, 1)), failed);
    assert_eq!(store.apply_named(leased, id(1, 2)), refused);
    assert_eq!((store.value("k"), store.value("l")), (None, None));
}

#[test]
fn an_answer_that_is_too_large_to_record_is_remembered_as_a_conflict() {
    let mut store = Store::default();
    let value: Bytes = vec![7; 1 << 20].into();
    let large = Command::Set { key: key("k"), value, lifetime: Lifetime::Forever {} };
    store.apply(large);
    let first = store.apply_named(swap(None, "2"), id(1, 1));
    assert!(matches!(first, Reply::CompareAndSwap { result } if result.actual_value.is_some()));
    store.delete("k");
    assert_eq!(refusal(store.apply_named(swap(None, "2"), id(1, 1))), ErrorCode::Conflict);
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
    assert!(matches!(oldest, Reply::Write { result } if result.revision == Revision(2)));
    assert_eq!(store.item("k").unwrap().mod_revision, revision);
    let rows = dump(&store.tables).iter().filter(|row| row.0 == TableId::Replies).count();
    assert_eq!(rows as u64, DEDUP_WINDOW_REQUESTS);
}

#[test]
fn requests_may_arrive_in_any_order_within_the_window() {
    let mut store = Store::default();
    for counter in [100, 1, 50] {
        let reply = store.apply_named(set("v"), id(1, counter));
        assert!(matches!(reply, Reply::Write { .. }));
    }
    let again = store.apply_named(set("w"), id(1, 1));
    assert!(matches!(again, Reply::Write { result } if result.revision == Revision(2)));
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
    assert!(matches!(repeated, Reply::Write { result } if result.revision == Revision(2)));
    store.now_ms += 2 * minute;
    store.tick();
    assert_eq!(store.header().client_count, 0);
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
    assert!(matches!(repeated, Reply::Write { result } if result.revision == Revision(1)));
}

#[test]
fn the_number_of_clients_is_bounded_and_the_most_silent_one_goes_first() {
    let mut tables = MemoryTables::new();
    let mut applier = Applier::open(&mut tables).unwrap();
    for n in 0..=MAX_DEDUP_CLIENTS {
        let client = ClientId(u128::from(n).to_be_bytes());
        let request_id = Some(RequestId { client, counter: 1 });
        let log_time_ms = n / 1_000;
        let proposal = Proposal { log_time_ms, request_id, command: set("v") };
        applier.apply(Revision(n + 1), &proposal).unwrap();
    }
    assert_eq!(applier.header().client_count, MAX_DEDUP_CLIENTS);
    let mut repeat = |n: u64, revision| {
        let client = ClientId(u128::from(n).to_be_bytes());
        let request_id = Some(RequestId { client, counter: 1 });
        let proposal = Proposal { log_time_ms: 0, request_id, command: set("w") };
        match applier.apply(Revision(revision), &proposal).unwrap() {
            Reply::Write { result } => result.revision.0,
            other => panic!("{other:?}"),
        }
    };
    let newest = MAX_DEDUP_CLIENTS + 2;
    assert_eq!(repeat(1, newest), 2, "remembered");
    assert_eq!(repeat(0, newest + 1), newest + 1, "forgotten, hence applied");
}
