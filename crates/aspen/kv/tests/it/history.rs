//! Older revisions and compaction.

use aspen_api::kv::{Compact, ReadKey, ScanKeys};
use aspen_api::{ErrorCode, Prefix, Revision};
use aspen_kv::{Command, ReadError, Reply};

use crate::store::{Store, key, keys_of, refusal};

fn compact(store: &mut Store, revision: u64) -> Reply {
    store.apply(Command::Compact { request: Compact { revision: Revision(revision) } })
}

#[test]
fn every_revision_stays_readable_until_it_is_compacted() {
    let mut store = Store::default();
    let first = store.set("k", "1");
    let second = store.set("k", "2");
    store.delete("k");
    let deleted = store.revision;
    let third = store.set("k", "3");
    let at = |store: &Store, revision| store.value_at("k", revision);
    assert_eq!(at(&store, 0), None);
    assert_eq!(at(&store, first), Some("1".into()));
    assert_eq!(at(&store, second), Some("2".into()));
    assert_eq!(at(&store, deleted), None);
    assert_eq!(at(&store, third), Some("3".into()));

    compact(&mut store, second);
    assert_eq!(at(&store, second), Some("2".into()));
    let read = ReadKey { revision: Some(Revision(first)), ..ReadKey::newest(key("k")) };
    let refused = store.view().read(&read);
    assert!(matches!(refused, Err(ReadError::Compacted { oldest }) if oldest.0 == second));
    let future = Revision(store.revision + 1);
    let read = ReadKey { revision: Some(future), ..read };
    assert!(matches!(store.view().read(&read), Err(ReadError::NotReached { .. })));
}

#[test]
fn a_paged_scan_shows_one_revision_while_writers_go_on() {
    let mut store = Store::default();
    for k in ["a", "b", "c", "d"] {
        store.set(k, "old");
    }
    let first = store.scan("", 2, None);
    store.set("b", "new");
    store.delete("c");
    store.set("c5", "new");
    store.set("d", "new");
    let second = store.scan("", 10, first.continuation_token.clone());
    assert_eq!(keys_of(&second), ["c", "d"]);
    assert!(second.entries.iter().all(|entry| entry.item.value == "old"));
    assert_eq!(second.revision, first.revision);
    assert_eq!(keys_of(&store.scan("", 10, None)), ["a", "b", "c5", "d"]);

    let revision = store.revision;
    compact(&mut store, revision);
    let scan =
        ScanKeys { continuation_token: first.continuation_token, ..ScanKeys::newest(Prefix::ALL) };
    assert!(matches!(store.view().scan(&scan), Err(ReadError::Compacted { .. })));
}

#[test]
fn a_full_page_of_an_old_revision_is_the_last_one_if_nothing_follows() {
    let mut store = Store::default();
    for value in ["1", "2"] {
        store.set("a", value);
        store.set("b", value);
    }
    let revision = Some(Revision(store.revision));
    store.set("c", "1");
    let scan = ScanKeys { limit: Some(2), revision, ..ScanKeys::newest(Prefix::ALL) };
    let page = store.view().scan(&scan).unwrap();
    assert_eq!(keys_of(&page), ["a", "b"]);
    store.delete("c");
    let revision = Some(Revision(store.revision - 1));
    let all = store.view().scan(&ScanKeys { limit: Some(3), revision, ..scan.clone() }).unwrap();
    assert_eq!((keys_of(&all), all.is_truncated()), (vec!["a", "b", "c"], false));
    let scan = ScanKeys { prefix: "b".parse().unwrap(), limit: Some(1), ..scan };
    assert!(!store.view().scan(&scan).unwrap().is_truncated());
}

#[test]
fn scans_of_old_revisions_pass_by_keys_with_long_histories() {
    let mut store = Store::default();
    store.set("a", "0");
    let pinned = store.set("hot", "0");
    for n in 1..300 {
        store.set("hot", &n.to_string());
        store.set("a", &n.to_string());
    }
    let scan = ScanKeys { revision: Some(Revision(pinned)), ..ScanKeys::newest(Prefix::ALL) };
    let page = store.view().scan(&scan).unwrap();
    assert_eq!(keys_of(&page), ["a", "hot"]);
    assert!(page.entries.iter().all(|entry| entry.item.value == "0"));
}

#[test]
fn compaction_sweeps_superseded_versions_in_bounded_steps() {
    let mut store = Store::default();
    for n in 0..2_500 {
        store.set(&format!("k{}", n % 10), &n.to_string());
    }
    assert_eq!(store.header().history_count, 2_490);
    let oldest = store.revision - 100;
    compact(&mut store, oldest);
    assert_eq!(store.header().history_count, 2_490, "the command itself only moves the limit");
    let mut ticks = 1;
    while store.tick() {
        ticks += 1;
    }
    assert_eq!(ticks, 3);
    assert_eq!(store.header().history_count, 100);
    assert_eq!(store.value_at("k0", oldest), Some("2390".into()));
    let revision = store.revision;
    compact(&mut store, revision);
    while store.tick() {}
    assert_eq!((store.header().history_count, store.header().history_bytes), (0, 0));
}

#[test]
fn a_compaction_during_a_sweep_is_swept_as_well() {
    let mut store = Store::default();
    for n in 0..3_000 {
        store.set(&format!("k{}", n % 3), "v");
    }
    compact(&mut store, 10);
    assert!(store.tick());
    let revision = store.revision;
    compact(&mut store, revision);
    while store.tick() {}
    assert_eq!(store.header().history_count, 0);
}

#[test]
fn compacting_backwards_is_no_error_and_forwards_is() {
    let mut store = Store::default();
    store.set("k", "1");
    store.set("k", "2");
    compact(&mut store, 2);
    let Reply::Compact { result } = compact(&mut store, 1) else { panic!("refused") };
    assert_eq!(result.oldest_revision, Revision(2));
    let beyond = store.revision + 2;
    assert_eq!(refusal(compact(&mut store, beyond)), ErrorCode::InvalidRequest);
}
