//! The store in memory behind the trait that services use.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use aspen_api::kv::{CompareAndSwapKey, ScanKeys, WriteKey, WriteKeyWithTtl};
use aspen_api::{ApiError, ErrorCode, KeyValueStore, Prefix};
use aspen_kv::MemoryStore;
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
        let old = store.read(key("n")).await?.item.map(|item| item.value);
        let next = old.as_deref().map_or(0, |v| u64::from_be_bytes(v.try_into().unwrap())) + 1;
        let swap = CompareAndSwapKey {
            key: key("n"),
            expected: old,
            new_value: Bytes::copy_from_slice(&next.to_be_bytes()),
        };
        if store.submit(swap).await?.is_success {
            return Ok(next);
        }
    }
}

#[test]
fn a_service_runs_over_it() {
    let store = MemoryStore::new();
    assert_eq!(now(increment(&store)).unwrap(), 1);
    assert_eq!(now(increment(&store)).unwrap(), 2);
    assert_eq!(now(store.scan(ScanKeys::newest(Prefix::ALL))).unwrap().entries.len(), 1);
}

#[test]
fn time_moves_only_when_told() {
    let store = MemoryStore::new();
    let write = WriteKeyWithTtl { key: key("k"), value: "v".into(), ttl_ms: 10 };
    now(store.submit(write)).unwrap();
    assert!(now(store.read(key("k"))).unwrap().item.is_some());
    store.advance_ms(10);
    assert!(now(store.read(key("k"))).unwrap().item.is_none());
    assert_eq!(store.header().unwrap().key_count, 1);
}

#[test]
fn limits_are_checked_before_anything_is_written() {
    let store = MemoryStore::new();
    let write = WriteKey { key: key("k"), value: vec![0; (1 << 20) + 1].into() };
    assert_eq!(now(store.submit(write)).unwrap_err().code, ErrorCode::TooLarge);
    assert_eq!(store.header().unwrap().key_count, 0);
}
