//! The store in memory behind the trait that services use.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use std::sync::Arc;

use aspen_api::kv::{Lifetime, ScanKeys};
use aspen_api::{ApiError, ErrorCode, KeyValueStore, Prefix};
use aspen_kv::{MemoryStore, Store};
use bytes::Bytes;

use crate::store::key;

/// The store never waits, so that one poll is enough.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the store in memory waits for nothing"),
    }
}

/// Something written over any store, as services are.
async fn increment<S: KeyValueStore>(store: &S) -> Result<u64, ApiError> {
    loop {
        let old = store.get(key("n")).await?.item.map(|item| item.value);
        let next = old.as_deref().map_or(0, |v| u64::from_be_bytes(v.try_into().unwrap())) + 1;
        let value = Bytes::copy_from_slice(&next.to_be_bytes());
        let swap = store.compare_and_swap(key("n"), old, value, Lifetime::Forever {});
        if swap.await?.is_success {
            return Ok(next);
        }
    }
}

fn store() -> Store<Arc<MemoryStore>> {
    Store(Arc::new(MemoryStore::new()))
}

#[test]
fn a_swap_creates_updates_and_reports_the_actual_value() {
    let store = store();
    let swap = |expected: Option<&'static str>, new_value: &'static str| {
        let expected = expected.map(Bytes::from);
        let swap = store.compare_and_swap(key("k"), expected, new_value, Lifetime::Forever {});
        let result = now(swap).unwrap();
        (result.is_success, result.actual_value)
    };
    assert_eq!(swap(Some("x"), "1"), (false, None), "absent is not equal to a value");
    assert_eq!(swap(None, "1"), (true, None));
    assert_eq!(swap(None, "2"), (false, Some("1".into())));
    assert_eq!(swap(Some("1"), "2"), (true, None));
    assert_eq!(swap(Some("1"), "3"), (false, Some("2".into())));
    let delete = |expected| now(store.compare_and_delete(key("k"), expected)).unwrap();
    assert_eq!(delete("1").actual_value, Some("2".into()));
    assert!(delete("2").is_success);
    assert!(!now(store.delete(key("k"))).unwrap().was_deleted);
}

#[test]
fn a_service_runs_over_it() {
    let store = store();
    assert_eq!(now(increment(&store)).unwrap(), 1);
    assert_eq!(now(increment(&store)).unwrap(), 2);
    assert_eq!(now(store.scan(ScanKeys::newest(Prefix::ALL))).unwrap().entries.len(), 1);
}

#[test]
fn time_moves_only_when_told() {
    let store = store();
    now(store.set_with_lifetime(key("k"), "v", Lifetime::Ttl { ttl_ms: 10 })).unwrap();
    assert!(now(store.get(key("k"))).unwrap().item.is_some());
    store.0.advance_ms(10);
    assert!(now(store.get(key("k"))).unwrap().item.is_none());
    assert_eq!(store.0.header().unwrap().key_count, 1);
}

#[test]
fn limits_are_checked_before_anything_is_written() {
    let store = store();
    let write = store.set(key("k"), vec![0; (1 << 20) + 1]);
    assert_eq!(now(write).unwrap_err().code, ErrorCode::TooLarge);
    assert_eq!(store.0.header().unwrap().key_count, 0);
}
