//! Message streams over real sockets.

use bytes::Bytes;
use net_node::{StreamConfig, StreamError, StreamMode, Subprotocol};

use crate::pair::pair;

const MINE: Subprotocol = Subprotocol(0x8001);

#[tokio::test]
async fn a_bulk_stream_arrives_in_order_and_ends_on_both_sides() {
    let (a, b) = pair().await;
    let mut listener = b.listen(MINE);
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
async fn a_stream_nobody_listens_to_is_refused_and_a_dropped_reader_resets() {
    let (a, b) = pair().await;
    let config = StreamConfig { subprotocol: MINE, ..StreamConfig::default() };
    let mut refused = a.open_stream(b.node_id(), config).await.unwrap();
    refused.send(Bytes::from_static(b"anyone?")).await.unwrap();
    assert!(matches!(refused.receive().await, Err(StreamError::Reset(_))));
    let mut listener = b.listen(MINE);
    let mut dropped = a.open_stream(b.node_id(), config).await.unwrap();
    dropped.send(Bytes::from_static(b"hello")).await.unwrap();
    drop(listener.accept().await.unwrap());
    assert!(matches!(dropped.receive().await, Err(StreamError::Reset(_))));
}
