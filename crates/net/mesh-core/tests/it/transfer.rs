//! Messages arrive whole and once, whatever the network does.

use std::time::Duration;

use bytes::Bytes;
use net_mesh_core::{StreamConfig, StreamMode};
use net_sim::{LinkConfig, World};

use crate::node::{SimNode, addr, peer};

fn connected_pair(seed: u64, link: LinkConfig) -> World<SimNode> {
    let mut world = World::new(seed, link);
    for i in [1, 2] {
        let node = SimNode::new(world.now(), seed, i);
        world.add_host(addr(i), node);
    }
    let first = world.ids().next().unwrap();
    let now = world.local_now(first);
    world.host_mut(first).endpoint.dial(now, &peer(2)).unwrap();
    world
        .run_until(Duration::from_secs(5), |w| {
            let ids: Vec<_> = w.ids().collect();
            w.host(ids[0]).session_with(2).is_some() && w.host(ids[1]).session_with(1).is_some()
        })
        .unwrap();
    world
}

fn message(seed: u64, len: usize) -> Bytes {
    let mut state = seed | 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(next).collect()
}

#[test]
fn mixed_messages_arrive_byte_exact_and_in_order_at_ten_percent_loss() {
    net_sim::seeds!(20, |seed| {
        let link = LinkConfig {
            loss_ppm: 100_000,
            duplicate_ppm: 20_000,
            reorder_ppm: 50_000,
            jitter: Duration::from_millis(5),
            ..LinkConfig::with_latency(Duration::from_millis(10))
        };
        let mut world = connected_pair(seed, link);
        let ids: Vec<_> = world.ids().collect();
        let now = world.local_now(ids[0]);
        let sent: Vec<Bytes> =
            (0..40).map(|i| message(seed + i, [3, 500, 30_000, 200_000][i as usize % 4])).collect();
        let node = world.host_mut(ids[0]);
        let session = node.session_with(2).unwrap();
        let config = StreamConfig {
            mode: StreamMode::ORDERED,
            window_bytes: 256 << 10,
            ..StreamConfig::default()
        };
        let stream = node.endpoint.open_stream(now, session, config).unwrap();
        for m in &sent {
            node.endpoint.send(now, session, stream, m.clone()).unwrap();
        }
        node.endpoint.finish_stream(now, session, stream);
        world
            .run_until(Duration::from_secs(300), |w| w.host(ids[1]).messages.len() == sent.len())
            .unwrap();
        assert!(world.host(ids[1]).messages == sent);
    });
}
