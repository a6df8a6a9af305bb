//! One reliable stream in bulk, beside the cipher alone.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use net_crypto::{DirectionKeys, EntityKeypair, Initiator, MeshSecret, Responder, SealKey, Suite};
use net_node::{MeshNode, NodeId, PeerAddr, StreamConfig, StreamMode, Subprotocol};

use crate::measure::{Outcome, Plan, Series};
use crate::rpc::node;

const MESSAGE_BYTES: usize = 1 << 20;
const BULK: Subprotocol = Subprotocol(0x8000);
const HEADER_BYTES: usize = 64;

/// Seals packets of `packet_bytes` for `time`; payload MB/s of one core.
fn cipher_alone(packet_bytes: usize, time: Duration) -> f64 {
    let (a, b) = (EntityKeypair::from_seed([1; 32]), EntityKeypair::from_seed([2; 32]));
    let secret = MeshSecret::from_cookie("bench");
    let (_, init) = Initiator::start(&a, &b.entity_id(), &secret, [3; 32], &[]).unwrap();
    let (responder, _) = Responder::read_init(&b, &secret, [4; 32], &init).unwrap();
    let (established, _) = responder.finish(&[]).unwrap();
    let suite = match net_crypto::has_hardware_aes() {
        true => Suite::Aes256Gcm,
        false => Suite::ChaCha20Poly1305,
    };
    let key = SealKey::new(suite, &DirectionKeys::derive(&established.send, suite));
    let mut payload = vec![7u8; packet_bytes - HEADER_BYTES - 16];
    let aad = [1u8; HEADER_BYTES];
    let start = Instant::now();
    let mut counter = 0;
    while start.elapsed() < time {
        for _ in 0..64 {
            black_box(key.seal_in_place(counter, black_box(&aad), &mut payload).unwrap());
            counter += 1;
        }
    }
    counter as f64 * payload.len() as f64 / start.elapsed().as_secs_f64() / 1e6
}

async fn transfer(node: &MeshNode, peer: NodeId, time: Duration) -> (u64, f64) {
    let config = StreamConfig {
        mode: StreamMode::ORDERED,
        window_bytes: 8 << 20,
        subprotocol: BULK,
        ..StreamConfig::default()
    };
    let mut stream = node.open_stream(peer, config).await.unwrap();
    let message = Bytes::from(vec![7u8; MESSAGE_BYTES]);
    let start = Instant::now();
    let mut sent = 0u64;
    let mut confirmed = 0u64;
    while start.elapsed() < time {
        // Eight messages under way: the receiver confirms each with an empty one.
        while sent < confirmed + 8 {
            stream.send(message.clone()).await.unwrap();
            sent += 1;
        }
        stream.receive().await.unwrap().unwrap();
        confirmed += 1;
    }
    while confirmed < sent {
        stream.receive().await.unwrap().unwrap();
        confirmed += 1;
    }
    let rate = (sent * MESSAGE_BYTES as u64) as f64 / start.elapsed().as_secs_f64() / 1e6;
    (sent, rate)
}

/// Reads every stream that is opened and confirms each message.
fn spawn_reader(node: &MeshNode) {
    let mut listener = node.listen(BULK).unwrap();
    tokio::spawn(async move {
        while let Some(mut stream) = listener.accept().await {
            tokio::spawn(async move {
                while let Ok(Some(message)) = stream.receive().await {
                    assert_eq!(message.len(), MESSAGE_BYTES);
                    assert_eq!(message[MESSAGE_BYTES - 1], 7);
                    stream.send(Bytes::new()).await.unwrap();
                }
            });
        }
    });
}

/// 1 MiB messages on one stream, sender and receiver on a thread each.
pub(crate) fn bulk(plan: &Plan) -> Outcome {
    let (addr_tx, addr_rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        crate::rpc::runtime().block_on(async {
            let node = node(2);
            spawn_reader(&node);
            addr_tx.send(PeerAddr::direct(node.entity_id(), node.local_addr())).unwrap();
            std::future::pending::<()>().await;
        });
    });
    let to = addr_rx.recv().unwrap();
    crate::rpc::runtime().block_on(async {
        let a = node(1);
        let peer = a.connect(&to).await.unwrap();
        transfer(&a, peer, plan.round_time / 4).await;
        let packet_bytes = a.peers()[0].1.packet_bytes;
        let (mut ours, mut base, mut n) = (Series::default(), Series::default(), 0);
        for _ in 0..plan.rounds {
            let (sent, rate) = transfer(&a, peer, plan.round_time).await;
            n += sent;
            ours.push(rate);
            base.push(cipher_alone(packet_bytes, plan.round_time / 4));
        }
        let notes = vec![("packet size".to_owned(), packet_bytes as f64, "bytes")];
        Outcome { ours, base, base_name: "cipher alone, one core", unit: "MB/s", n, notes }
    })
}
