//! Unary calls: one at a time, between processes, and many in flight.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use net_node::{
    CallOptions, EntityKeypair, HandlerFuture, MeshConfig, MeshNode, MeshSecret, NodeId, PeerAddr,
    RpcContext, ServeHandle, ServiceName,
};
use tokio::runtime::Runtime;

use crate::limits;
use crate::measure::{Latencies, Outcome, Plan, Series};

const BODY: &[u8] = &[7; 32];

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) fn node(seed: u8) -> MeshNode {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let identity = EntityKeypair::from_seed([seed; 32]);
    MeshNode::bind(MeshConfig::new(identity, MeshSecret::from_cookie("bench"), loopback)).unwrap()
}

fn serve_echo(node: &MeshNode) -> ServeHandle {
    let echo = |_: RpcContext, body: Bytes| HandlerFuture::ready(Ok(body));
    node.serve(ServiceName::new("echo").unwrap(), Arc::new(echo)).unwrap()
}

/// The echo end of the two-process measurement: prints its identity and address.
pub(crate) async fn serve_echo_forever() {
    let node = node(2);
    let _served = serve_echo(&node);
    println!("{} {}", node.entity_id(), node.local_addr());
    std::future::pending::<()>().await;
}

async fn call_for(node: &MeshNode, peer: NodeId, time: Duration) -> Latencies {
    let name = ServiceName::new("echo").unwrap();
    let mut latencies = Latencies::default();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let start = Instant::now();
        let body = Bytes::from_static(BODY);
        let reply = node.call(peer, &name, body, CallOptions::default()).await.unwrap();
        assert_eq!(reply.body, BODY);
        latencies.record(start);
    }
    latencies
}

fn latency_outcome(mut ours: Vec<Latencies>, base: Series, base_name: &'static str) -> Outcome {
    let mut series = Series::default();
    let n = ours.iter().map(|l| l.len() as u64).sum();
    let mut p99 = Series::default();
    for latencies in &mut ours {
        series.push(latencies.percentile_us(0.5));
        p99.push(latencies.percentile_us(0.99));
    }
    let notes = vec![("ours, p99".to_owned(), p99.median(), "us")];
    Outcome { ours: series, base, base_name, unit: "us", n, notes }
}

/// One call at a time, two nodes on one runtime.
pub(crate) fn unary(plan: &Plan) -> Outcome {
    runtime().block_on(async {
        let (a, b) = (node(1), node(2));
        let _served = serve_echo(&b);
        let peer = a.connect(&PeerAddr::direct(b.entity_id(), b.local_addr())).await.unwrap();
        call_for(&a, peer, plan.round_time / 4).await;
        let (mut ours, mut base) = (Vec::new(), Series::default());
        for _ in 0..plan.rounds {
            ours.push(call_for(&a, peer, plan.round_time).await);
            base.push(limits::ping_pong(plan.round_time).await.percentile_us(0.5));
        }
        latency_outcome(ours, base, "bare UDP ping-pong")
    })
}

/// One call at a time, the server in another process.
pub(crate) fn unary_two_processes(plan: &Plan) -> Outcome {
    runtime().block_on(async {
        let (mut process, line) = limits::start_peer("rpc-echo");
        let (entity, addr) = line.split_once(' ').unwrap();
        let peer_addr = PeerAddr::direct(entity.parse().unwrap(), addr.parse().unwrap());
        let a = node(1);
        let peer = a.connect(&peer_addr).await.unwrap();
        call_for(&a, peer, plan.round_time / 4).await;
        let (mut ours, mut base) = (Vec::new(), Series::default());
        for _ in 0..plan.rounds {
            ours.push(call_for(&a, peer, plan.round_time).await);
            let mut bare = limits::ping_pong_two_processes(plan.round_time).await;
            base.push(bare.percentile_us(0.5));
        }
        process.kill().unwrap();
        process.wait().unwrap();
        latency_outcome(ours, base, "bare UDP ping-pong, two processes")
    })
}

async fn call_many(node: &MeshNode, peer: NodeId, in_flight: usize, time: Duration) -> (u64, f64) {
    let start = Instant::now();
    let end = start + time;
    let callers: Vec<_> = (0..in_flight)
        .map(|_| {
            let node = node.clone();
            tokio::spawn(async move {
                let name = ServiceName::new("echo").unwrap();
                let mut done = 0u64;
                while Instant::now() < end {
                    let body = Bytes::from_static(BODY);
                    let reply = node.call(peer, &name, body, CallOptions::default()).await.unwrap();
                    assert_eq!(reply.body, BODY);
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut done = 0;
    for caller in callers {
        done += caller.await.unwrap();
    }
    (done, done as f64 / start.elapsed().as_secs_f64())
}

/// 128 calls in flight, two nodes on one runtime.
pub(crate) fn in_flight(plan: &Plan) -> Outcome {
    const IN_FLIGHT: usize = 128;
    runtime().block_on(async {
        let (a, b) = (node(1), node(2));
        let _served = serve_echo(&b);
        let peer = a.connect(&PeerAddr::direct(b.entity_id(), b.local_addr())).await.unwrap();
        call_many(&a, peer, IN_FLIGHT, plan.round_time / 4).await;
        let (mut ours, mut base, mut n) = (Series::default(), Series::default(), 0);
        for _ in 0..plan.rounds {
            let (done, rate) = call_many(&a, peer, IN_FLIGHT, plan.round_time).await;
            n += done;
            ours.push(rate);
            base.push(limits::batched_echo(IN_FLIGHT, plan.round_time).await);
        }
        let base_name = "batched bare UDP echo";
        Outcome { ours, base, base_name, unit: "/s", n, notes: Vec::new() }
    })
}
