//! Message streams over real sockets.

use bytes::Bytes;
use net_node::{CallOptions, ServiceName, StreamConfig, StreamError, StreamMode, Subprotocol};
use net_types::limits::MAX_UNREAD_UNRELIABLE_BYTES;

use crate::pair::{metrics, pair};

const MINE: Subprotocol = Subprotocol(0x8001);

#[tokio::test]
async fn a_bulk_stream_arrives_in_order_and_ends_on_both_sides() {
    let (a, b) = pair().await;
    let mut listener = b.listen(MINE).unwrap();
    let config = StreamConfig {
        mode: StreamMode::ORDERED,
        window_bytes: 1 << 20,
        subprotocol: MINE,
        ..StreamConfig::default()
    };
    let mut out = a.open_stream(b.node_id(), config).await.unwrap();
    let reader = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap();
        let mut next = 0u32;
        while let Some(message) = stream.receive().await.unwrap() {
            assert_eq!(message.len(), 50_000);
            assert_eq!(message[..4], next.to_le_bytes());
            next += 1;
        }
        stream.send(Bytes::from_static(b"done")).await.unwrap();
        stream.finish_and_wait().await.unwrap();
        next
    });
    for i in 0..200u32 {
        let mut message = vec![7u8; 50_000];
        message[..4].copy_from_slice(&i.to_le_bytes());
        out.send(Bytes::from(message)).await.unwrap();
    }
    out.finish();
    assert_eq!(out.receive().await.unwrap(), Some(Bytes::from_static(b"done")));
    assert_eq!(out.receive().await.unwrap(), None);
    assert_eq!(reader.await.unwrap(), 200);
}

#[tokio::test]
async fn a_stream_without_a_listener_is_refused_and_a_dropped_reader_resets() {
    let (a, b) = pair().await;
    let config = StreamConfig { subprotocol: MINE, ..StreamConfig::default() };
    let mut refused = a.open_stream(b.node_id(), config).await.unwrap();
    refused.send(Bytes::from_static(b"anyone?")).await.unwrap();
    assert!(matches!(refused.receive().await, Err(StreamError::Reset(_))));
    let mut listener = b.listen(MINE).unwrap();
    let mut dropped = a.open_stream(b.node_id(), config).await.unwrap();
    dropped.send(Bytes::from_static(b"hello")).await.unwrap();
    drop(listener.accept().await.unwrap());
    assert!(matches!(dropped.receive().await, Err(StreamError::Reset(_))));
}

#[tokio::test]
async fn a_reader_that_does_not_keep_up_loses_fire_and_forget_messages_and_no_memory() {
    let (a, b) = pair().await;
    let mut listener = b.listen(MINE).unwrap();
    let config = StreamConfig {
        mode: StreamMode::FIRE_AND_FORGET,
        subprotocol: MINE,
        ..StreamConfig::default()
    };
    let out = a.open_stream(b.node_id(), config).await.unwrap();
    out.send(Bytes::from_static(b"first")).await.unwrap();
    let mut lazy = listener.accept().await.unwrap();
    let is_full = || !metrics(&b).contains("net_drops_total{reason=\"queue_full\"} 0\n");
    let message = Bytes::from(vec![1; 64 << 10]);
    // Twice what may be unread: some of it is dropped, and the stream stays open.
    for _ in 0..1_000 {
        if is_full() {
            break;
        }
        out.send(message.clone()).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(is_full(), "{}", metrics(&b));
    assert_eq!(lazy.receive().await.unwrap(), Some(Bytes::from_static(b"first")));
    let mut unread = 0;
    while unread + message.len() + 64 <= MAX_UNREAD_UNRELIABLE_BYTES - message.len() {
        unread += lazy.receive().await.unwrap().unwrap().len() + 64;
    }
    out.finish();
    while lazy.receive().await.unwrap().is_some() {}
}

#[tokio::test]
async fn a_listener_that_was_replaced_takes_only_its_own_streams_along() {
    let (a, b) = pair().await;
    let config = StreamConfig { subprotocol: MINE, ..StreamConfig::default() };
    let first = b.listen(MINE).unwrap();
    let mut waiting = a.open_stream(b.node_id(), config).await.unwrap();
    waiting.send(Bytes::from_static(b"anyone?")).await.unwrap();
    // The call of an unknown service comes back after the stream has arrived.
    let absent = ServiceName::new("absent").unwrap();
    let call = a.call(b.node_id(), &absent, Bytes::new(), CallOptions::default());
    assert!(call.await.is_err());
    let mut second = b.listen(MINE).unwrap();
    drop(first);
    assert!(matches!(waiting.receive().await, Err(StreamError::Reset(_))));
    let out = a.open_stream(b.node_id(), config).await.unwrap();
    out.send(Bytes::from_static(b"hello")).await.unwrap();
    let mut accepted = second.accept().await.unwrap();
    assert_eq!(accepted.receive().await.unwrap(), Some(Bytes::from_static(b"hello")));
}
