//! Time to live and leases, by log time.

use aspen_api::kv::{Lifetime, ReadKey, WriteOperation};
use aspen_api::lease::{LeaseGrant, LeaseKeepalive, LeaseList, LeaseRevoke, LeaseTimeToLive};
use aspen_api::{ErrorCode, LeaseId};
use aspen_kv::conformance::dump;
use aspen_kv::{Change, Command, Reply, TableId, View, maintenance};
use net_types::limits::{EXPIRED_PER_ENTRY, MAX_LOG_TIME_MS, MAX_TIME_TO_LIVE};

use crate::store::{Store, key, put, refusal, write};

fn rows(store: &Store, table: TableId) -> usize {
    dump(&store.tables).iter().filter(|row| row.0 == table).count()
}

fn crowd(store: &mut Store, count: usize, ttl_ms: u64) {
    let keys: Vec<usize> = (0..count).collect();
    for part in keys.chunks(100) {
        let operations = part
            .iter()
            .map(|n| WriteOperation::Set {
                key: key(&format!("crowd{n:04}")),
                value: "v".into(),
                lifetime: Lifetime::Ttl { ttl_ms },
            })
            .collect();
        store.apply(write(operations));
    }
}

fn keepalive(lease: u64) -> Command {
    Command::LeaseKeepalive { request: LeaseKeepalive { lease_id: LeaseId(lease) } }
}

fn revoke(lease: u64) -> Command {
    Command::LeaseRevoke { request: LeaseRevoke { lease_id: LeaseId(lease) } }
}

#[test]
fn a_key_is_gone_at_its_deadline_before_its_removal() {
    let mut store = Store { now_ms: 1_000, ..Store::default() };
    store.set_ttl("k", "v", 100);
    let read = ReadKey::newest(key("k"));
    let at = |now_ms| View::open(&store.tables, now_ms).unwrap().read(&read).unwrap().item;
    assert_eq!(at(1_099).unwrap().expires_at_ms, Some(1_100));
    assert_eq!(at(1_100), None);
    assert_eq!(rows(&store, TableId::Live), 1, "nothing removed it yet");
}

#[test]
fn a_plain_write_clears_the_deadline() {
    let mut store = Store::default();
    store.set_ttl("k", "1", 100);
    store.set("k", "2");
    assert_eq!(store.header().next_deadline_ms, u64::MAX);
    store.now_ms = 200;
    store.tick();
    assert_eq!(store.value("k"), Some("2".into()));
}

#[test]
fn writing_an_expired_key_creates_it_anew() {
    let mut store = Store::default();
    store.set_ttl("k", "1", 100);
    store.now_ms = 100;
    let created = store.set("k", "2");
    let item = store.item("k").unwrap();
    assert_eq!((item.version, item.create_revision.0), (1, created));
}

#[test]
fn time_to_live_has_bounds() {
    let mut store = Store::default();
    let longest = MAX_TIME_TO_LIVE.as_millis() as u64;
    let mut set = |ttl_ms| {
        let lifetime = Lifetime::Ttl { ttl_ms };
        store.apply(put("k", "v", lifetime))
    };
    assert_eq!(refusal(set(0)), ErrorCode::InvalidRequest);
    assert_eq!(refusal(set(longest + 1)), ErrorCode::InvalidRequest);
    assert!(matches!(set(longest), Reply::Transact { .. }));
}

#[test]
fn removal_is_bounded_per_entry_and_reads_do_not_wait_for_it() {
    let mut store = Store::default();
    crowd(&mut store, 300, 50);
    let full = store.revision;
    store.now_ms = 50;
    let expired_at = store.set("other", "v");
    assert_eq!(rows(&store, TableId::Live), 300 - EXPIRED_PER_ENTRY + 1);
    assert_eq!(store.scan("", 1_000, None).entries.len(), 1);

    // What a reader sees at an older revision does not depend on how far removal is.
    store.now_ms = 60;
    let later = store.set("other", "w");
    for _ in 0..2 {
        assert_eq!(store.value_at("crowd0299", full), Some("v".into()));
        assert_eq!(store.value_at("crowd0299", expired_at), None);
        assert_eq!(store.value_at("crowd0000", expired_at), None);
        assert_eq!(store.value_at("crowd0299", later), None);
        while store.tick() {}
    }
    assert_eq!(rows(&store, TableId::Live), 1);
    assert_eq!(rows(&store, TableId::Expiry), 0);
    store.tick();
    assert_eq!(rows(&store, TableId::Marks), 0);
    assert_eq!(store.header().last_mark_ms, 0);
}

#[test]
fn an_entry_moves_few_large_values_to_the_history() {
    const LARGE: usize = 1 << 20;
    let mut store = Store::default();
    for n in 0..30 {
        store.set_ttl(&format!("large{n:02}"), &"v".repeat(LARGE), 50);
    }
    store.now_ms = 50;
    let mut before = store.header().history_bytes;
    let mut entries = 0;
    loop {
        let is_more = store.tick();
        let moved = store.header().history_bytes - before;
        assert!(moved <= 8 * (LARGE as u64 + 8_192), "{moved} bytes at once");
        before += moved;
        entries += 1;
        if !is_more {
            break;
        }
    }
    assert!((4..=6).contains(&entries), "{entries} entries");
    assert_eq!(rows(&store, TableId::Live), 0);
    store.set_ttl("large", &"v".repeat(LARGE), 1);
    store.set_ttl("later", &"v".repeat(LARGE), 1);
    store.now_ms = 60;
    store.set("other", "v");
    assert_eq!(rows(&store, TableId::Live), 2, "one removed beside the entry's own work");
}

#[test]
fn a_leader_is_told_to_tick_until_nothing_is_left() {
    let mut store = Store::default();
    crowd(&mut store, 2_500, 50);
    assert_eq!(maintenance(&store.header(), 49), None);
    store.now_ms = 50;
    let mut ticks = 0;
    while let Some(command) = maintenance(&store.header(), store.now_ms) {
        assert_eq!(command, Command::Tick {});
        store.apply(command);
        ticks += 1;
    }
    assert_eq!(ticks, 3);
    assert_eq!(store.header().key_count, 0);
}

#[test]
fn log_time_never_goes_back() {
    let mut store = Store { now_ms: 500, ..Store::default() };
    store.set_ttl("k", "v", 100);
    store.now_ms = 600;
    store.tick();
    store.now_ms = 10;
    store.set_ttl("k", "v", 100);
    assert_eq!(store.header().log_time_ms, 600);
    assert_eq!(store.item("k").unwrap().expires_at_ms, Some(700));
}

#[test]
fn a_lease_keeps_its_keys_and_takes_them_along() {
    let mut store = Store::default();
    store.grant(7, 1);
    store.set_leased("a", "1", 7);
    store.set_leased("a", "2", 7);
    store.set_leased("b", "1", 7);
    store.set_leased("c", "1", 7);
    store.set("c", "2");
    let ttl = LeaseTimeToLive { lease_id: LeaseId(7), should_include_keys: true };
    let result = store.view().lease_time_to_live(&ttl).unwrap();
    assert_eq!((result.granted_ttl_seconds, result.remaining_ms, result.key_count), (1, 1_000, 2));
    assert_eq!(result.keys, ["a", "b"].map(key));

    store.now_ms = 600;
    let kept = store.apply(keepalive(7));
    assert!(matches!(kept, Reply::LeaseKeepalive { .. }));
    store.now_ms = 1_599;
    store.tick();
    assert_eq!(store.value("a"), Some("2".into()));
    store.now_ms = 1_600;
    store.tick();
    assert_eq!((store.value("a"), store.value("b")), (None, None));
    assert_eq!(store.value("c"), Some("2".into()), "a plain write detached it");
    assert!(store.view().lease_time_to_live(&ttl).is_err());
    assert_eq!((rows(&store, TableId::Leases), rows(&store, TableId::LeaseKeys)), (0, 0));
    let keepalive = store.apply(keepalive(7));
    assert_eq!(refusal(keepalive), ErrorCode::NotFound);
}

#[test]
fn revoking_ends_all_keys_at_once_however_many() {
    let mut store = Store::default();
    store.grant(7, 60);
    for n in 0..200 {
        store.set_leased(&format!("k{n:03}"), "v", 7);
    }
    let before = store.revision;
    let reply = store.apply(revoke(7));
    let Reply::LeaseRevoke { result } = reply else { panic!("{reply:?}") };
    assert_eq!(result.keys_deleted, 200);
    assert!(store.scan("", 1_000, None).entries.is_empty());
    assert!(rows(&store, TableId::Live) > 0, "rows remain for later entries");
    assert_eq!(store.value_at("k199", before), Some("v".into()), "history keeps what was deleted");
    assert_eq!(refusal(store.grant(7, 60)), ErrorCode::Conflict, "until its keys are removed");
    while store.tick() {}
    assert_eq!(rows(&store, TableId::Live), 0);
    assert_eq!(store.value_at("k199", before), Some("v".into()));
    assert!(store.events.iter().filter(|e| e.change == Change::Revoked).count() == 200);
    assert!(matches!(store.grant(7, 60), Reply::LeaseGrant { .. }));
}

#[test]
fn a_lease_ends_in_history_when_its_time_came_however_late_it_is_removed() {
    let mut store = Store::default();
    store.grant(7, 1);
    store.set_leased("leased", "v", 7);
    // Keys stand before leases in the queue, so that the lease has to wait.
    crowd(&mut store, 300, 1_000);
    let before = store.revision;
    store.now_ms = 1_000;
    let expired_at = store.set("other", "v");
    while store.tick() {}
    assert_eq!(store.value_at("leased", before), Some("v".into()));
    assert_eq!(store.value_at("leased", expired_at), None);
}

#[test]
fn a_revoked_lease_ends_at_its_revocation_while_older_removals_are_pending() {
    let mut store = Store::default();
    store.grant(7, 60);
    store.set_leased("leased", "v", 7);
    crowd(&mut store, 300, 50);
    store.now_ms = 50;
    let earlier = store.set("other", "v");
    let revoked = store.apply(revoke(7));
    assert!(matches!(revoked, Reply::LeaseRevoke { .. }));
    let revoked_at = store.revision;
    store.now_ms = 60;
    store.set("other", "w");
    for _ in 0..2 {
        assert_eq!(store.value_at("leased", earlier), Some("v".into()));
        assert_eq!(store.value_at("leased", revoked_at), None);
        while store.tick() {}
    }
}

#[test]
fn lease_ids_are_chosen_or_generated_and_listed() {
    let mut store = Store::default();
    assert!(matches!(store.grant(3, 10), Reply::LeaseGrant { .. }));
    assert_eq!(refusal(store.grant(3, 10)), ErrorCode::Conflict);
    assert_eq!(refusal(store.grant(1 << 52, 10)), ErrorCode::InvalidRequest);
    assert_eq!(refusal(store.grant(4, 0)), ErrorCode::InvalidRequest);
    let Reply::LeaseGrant { result } = store
        .apply(Command::LeaseGrant { request: LeaseGrant { lease_id: None, ttl_seconds: 10 } })
    else {
        panic!("not granted");
    };
    assert_eq!(result.lease_id, LeaseId((1 << 52) + store.revision));
    let list = |after, limit| store.view().lease_list(&LeaseList { after, limit }).unwrap();
    let page = list(None, Some(1));
    assert_eq!((page.leases[0].lease_id, page.is_truncated), (LeaseId(3), true));
    let page = list(Some(LeaseId(3)), None);
    assert_eq!((page.leases[0].lease_id, page.is_truncated), (result.lease_id, false));
}

#[test]
fn writing_with_an_unknown_lease_fails() {
    let mut store = Store::default();
    let lifetime = Lifetime::Lease { lease_id: LeaseId(1) };
    let reply = store.apply(put("k", "v", lifetime));
    assert_eq!(refusal(reply), ErrorCode::NotFound);
    assert_eq!(store.value("k"), None);
}

#[test]
fn the_end_of_all_time_is_no_damage() {
    let mut store = Store { now_ms: 1_000, ..Store::default() };
    store.set_ttl("ends", "v", 100);
    store.now_ms = u64::MAX;
    store.tick();
    assert_eq!(store.header().log_time_ms, MAX_LOG_TIME_MS);
    assert_eq!(rows(&store, TableId::Live), 0);
    // Nothing has a deadline now; and what gets one has it later.
    store.tick();
    store.set_ttl("lives", "v", 100);
    store.tick();
    assert_eq!(rows(&store, TableId::Live), 1);
}
