//! Sessions through a relay that understands nothing but routing headers.

use net_mesh_core::DropReason;
use net_sim::{HostId, LinkConfig};
use net_types::PeerAddr;
use net_wire::{Kind, RoutingHeader};

use crate::node::{addr, keys, node_id, peer};
use crate::world::{
    A, Actor, B, Net, Relay, act, agree, assert_quiet, assert_same_messages, bad_link, messages,
    millis, node, nodes, ordered, run_until_received, secs,
};

const RELAY: HostId = HostId(2);

/// Nodes 1 and 2 that reach each other only through a relay at address 3.
fn relayed(seed: u64, link: LinkConfig) -> Net {
    let mut net = nodes(seed, link, 2);
    let routes = [(node_id(1), addr(1)), (node_id(2), addr(2))].into();
    net.add_host(addr(3), Actor::Relay(Relay::new(routes)));
    net.network().partition(&[addr(1)], &[addr(2)]);
    net
}

fn dial_relayed(net: &mut Net) {
    let through = PeerAddr::direct(keys(2).entity_id(), addr(3));
    act(net, A, |n, now| n.endpoint.dial_routed(now, &through).unwrap());
}

fn forwarded(net: &Net) -> usize {
    match net.host(RELAY) {
        Actor::Relay(relay) => relay.forwarded,
        _ => 0,
    }
}

#[test]
fn handshake_and_data_pass_a_relay_both_ways() {
    net_sim::seeds!(6, |seed| {
        let mut net = relayed(seed, bad_link());
        dial_relayed(&mut net);
        net.run_until(secs(5), |net| agree(net)).unwrap();
        let sent = messages(seed, [10, 2_000, 100_000, 300, 500_000]);
        for (id, i) in [(A, 2), (B, 1)] {
            act(&mut net, id, |n, now| n.send_all(now, i, ordered(256 << 10), &sent));
        }
        for id in [A, B] {
            run_until_received(&mut net, id, sent.len(), secs(200));
            assert_same_messages(&sent, &node(&net, id).messages, true);
        }
        assert!(forwarded(&net) > 500);
        for id in [A, B] {
            assert_eq!(node(&net, id).counters().path_changes, 0);
            assert_eq!(node(&net, id).drops(DropReason::NotForUs), 0);
        }
    });
}

#[test]
fn relayed_packets_carry_the_routing_header_and_the_largest_size() {
    net_sim::seeds!(2, |seed| {
        let mut net = relayed(seed, LinkConfig::default());
        act(&mut net, A, |n, _| n.sent = Some(Vec::new()));
        dial_relayed(&mut net);
        net.run_until(secs(5), |net| agree(net)).unwrap();
        net.run_for(secs(1)).unwrap();
        let sent = messages(seed, [100_000]);
        act(&mut net, A, |n, now| n.send_all(now, 2, ordered(256 << 10), &sent));
        run_until_received(&mut net, B, 1, secs(5));
        let datagrams = node(&net, A).sent.as_ref().unwrap();
        assert!(datagrams.iter().any(|d| d.kind() == Kind::HandshakeInit));
        assert_eq!(datagrams.iter().map(|d| d.bytes.len()).max(), Some(8_210));
        for d in datagrams {
            assert_eq!(d.to, addr(3));
            let header = RoutingHeader::decode(&d.bytes).unwrap();
            let (destination, source) = (node_id(2), node_id(1));
            assert_eq!(header, RoutingHeader { ttl: 16, destination, source });
        }
        net.run_for(secs(1)).unwrap();
        for id in [A, B] {
            let session = node(&net, id).connections()[0];
            assert_eq!(node(&net, id).endpoint.session_stats(session).unwrap().streams, 1);
        }
    });
}

#[test]
fn relayed_packets_for_others_are_dropped_and_counted() {
    net_sim::seeds!(2, |seed| {
        let mut net = relayed(seed, LinkConfig::default());
        act(&mut net, A, |n, _| n.sent = Some(Vec::new()));
        dial_relayed(&mut net);
        net.run_until(secs(5), |net| agree(net)).unwrap();
        let datagrams = node(&net, A).sent.clone().unwrap();
        for d in &datagrams {
            for (destination, source) in [(node_id(5), node_id(1)), (node_id(2), node_id(2))] {
                let mut bytes = d.bytes.clone();
                let header = RoutingHeader { ttl: 1, destination, source };
                bytes[..18].copy_from_slice(&header.encode());
                act(&mut net, B, |n, now| n.feed(now, addr(3), &bytes));
            }
            // A routing header inside of a routing header.
            let mut bytes = d.bytes[..18].to_vec();
            bytes.extend_from_slice(&d.bytes);
            act(&mut net, B, |n, now| n.feed(now, addr(3), &bytes));
        }
        let n = node(&net, B);
        assert_eq!(n.drops(DropReason::NotForUs), 2 * datagrams.len() as u64);
        assert_eq!(n.drops(DropReason::Foreign), datagrams.len() as u64);
        for cut in 0..18 {
            let bytes = &datagrams[0].bytes[..cut];
            act(&mut net, B, |n, now| n.feed(now, addr(3), bytes));
        }
        net.run_for(secs(6)).unwrap();
        assert!(agree(&net));
        assert_quiet(&net);
    });
}

#[test]
fn a_direct_dial_takes_over_from_a_relayed_session() {
    net_sim::seeds!(3, |seed| {
        let mut net = relayed(seed, LinkConfig::default());
        dial_relayed(&mut net);
        net.run_until(secs(5), |net| agree(net)).unwrap();
        let first = node(&net, A).session_with(2);
        net.network().heal_all();
        act(&mut net, A, |n, now| n.endpoint.dial(now, &peer(2)).unwrap());
        net.run_until(secs(5), |net| agree(net) && node(net, A).session_with(2) != first).unwrap();
        net.run_for(secs(2)).unwrap();
        let before = forwarded(&net);
        let sent = messages(seed, [10, 30_000]);
        act(&mut net, A, |n, now| n.send_all(now, 2, ordered(1 << 16), &sent));
        run_until_received(&mut net, B, 2, secs(5));
        net.run_for(millis(100)).unwrap();
        assert_eq!(forwarded(&net), before);
    });
}
