//! Paths: the size of packets, the address of the peer, and who may change either.

use std::net::SocketAddr;

use bytes::Bytes;
use net_mesh_core::{EndpointConfig, StreamConfig};
use net_sim::{HostId, LinkConfig};
use net_types::limits::MTU_REPROBE;
use net_wire::Kind;

use crate::node::{SentDatagram, SimNode, addr, config};
use crate::world::{
    A, Actor, B, Listener, Net, act, add, agree, assert_same_messages, bad_link, connect,
    connected, empty, fire_and_forget, messages, millis, node, ordered, reliable,
    run_until_received, secs,
};

fn packet_bytes(net: &Net, id: HostId) -> usize {
    let session = node(net, id).connections()[0];
    node(net, id).endpoint.session_stats(session).unwrap().packet_bytes
}

fn link_of(mtu_bytes: usize) -> LinkConfig {
    LinkConfig { mtu_bytes, ..LinkConfig::with_latency(millis(5)) }
}

fn sent_to(net: &Net, id: HostId, to: SocketAddr) -> Vec<SentDatagram> {
    let sent = node(net, id).sent.as_ref().unwrap();
    sent.iter().filter(|d| d.to == to).cloned().collect()
}

#[test]
fn packets_grow_to_what_the_path_carries() {
    net_sim::seeds!(3, |seed| {
        for (mtu, expected) in [
            (65_507, 8_192),
            (8_192, 8_192),
            (8_191, 4_078),
            (1_472, 1_434),
            (1_452, 1_434),
            (1_400, 1_374),
            (1_232, 1_214),
        ] {
            let mut net = connected(seed, link_of(mtu));
            net.run_for(secs(2)).unwrap();
            assert_eq!([A, B].map(|id| packet_bytes(&net, id)), [expected; 2], "path of {mtu}");
        }
    });
}

#[test]
fn packets_respect_what_the_peer_takes() {
    net_sim::seeds!(2, |seed| {
        let mut net = empty(seed, link_of(65_507));
        let small = EndpointConfig { max_datagram_bytes: 1_500, ..config(1) };
        add(&mut net, 1, |now| SimNode::with_config(now, seed, small));
        add(&mut net, 2, |now| SimNode::new(now, seed, 2));
        connect(&mut net);
        net.run_for(secs(2)).unwrap();
        assert_eq!(packet_bytes(&net, B), 1_434, "towards the one that takes 1,500");
        assert_eq!(packet_bytes(&net, A), 8_192);
    });
}

#[test]
fn loss_does_not_keep_packets_small() {
    net_sim::seeds!(10, |seed| {
        let mut net = connected(seed, bad_link());
        // Three lost probes of a step end the search; the next one comes in ten minutes.
        net.run_for(MTU_REPROBE + MTU_REPROBE + secs(5)).unwrap();
        assert_eq!([A, B].map(|id| packet_bytes(&net, id)), [8_192; 2]);
    });
}

/// Messages that make packets of every sort, queued while the path is wide.
fn mixture(seed: u64) -> Vec<Bytes> {
    messages(seed, (0..120).map(|i| [900, 3_000, 8_000, 40_000, 15, 80_000][i % 6]))
}

#[test]
fn a_black_hole_is_noticed_and_the_transfer_completes() {
    net_sim::seeds!(2, |seed| {
        for (mtu, expected) in [(1_232, 1_214), (1_460, 1_434), (4_096, 4_078)] {
            for loss_ppm in [0, 50_000] {
                let link = LinkConfig { loss_ppm, ..link_of(65_507) };
                let mut net = connected(seed, link);
                net.run_for(secs(2)).unwrap();
                let sent = mixture(seed);
                let (ordered_ones, others) = sent.split_at(60);
                act(&mut net, A, |n, now| {
                    n.send_all(now, 2, ordered(1 << 20), ordered_ones);
                    n.send_all(now, 2, reliable(1 << 20), others);
                });
                net.run_for(millis(40)).unwrap();
                let under_way = node(&net, B).messages.len();
                assert!(under_way > 0 && under_way < 100, "{under_way} came before");
                net.network().set_default_link(LinkConfig { mtu_bytes: mtu, ..link });
                run_until_received(&mut net, B, sent.len(), secs(120));
                let session = node(&net, B).connections()[0];
                let streams = &node(&net, B).by_stream;
                let got: Vec<_> = streams.iter().filter(|(k, _)| k.0 == session).collect();
                assert_same_messages(ordered_ones, got[0].1, true);
                assert_same_messages(others, got[1].1, false);
                let resets = |r| node(&net, A).counters().stream_resets(r);
                assert!(net_mesh_core::ResetReason::ALL.into_iter().all(|r| resets(r) == 0));
                net.run_for(secs(2)).unwrap();
                if loss_ppm == 0 {
                    assert_eq!(packet_bytes(&net, A), expected, "path of {mtu}");
                }
                assert_eq!(node(&net, A).connections().len(), 1);
            }
        }
    });
}

#[test]
fn a_black_hole_under_fire_and_forget_costs_messages_but_not_the_stream() {
    net_sim::seeds!(3, |seed| {
        let mut net = connected(seed, link_of(65_507));
        net.run_for(secs(2)).unwrap();
        let stream = act(&mut net, A, |n, now| n.send_all(now, 2, fire_and_forget(), &[]));
        net.network().set_default_link(link_of(1_232));
        let list = messages(seed, [6_000; 100]);
        for m in &list {
            act(&mut net, A, |n, now| {
                let session = n.session_with(2).unwrap();
                // A full queue is as good a reason as any to lose a message.
                let _ = n.endpoint.send(now, session, stream, m.clone());
            });
            net.run_for(millis(100)).unwrap();
        }
        let got = node(&net, B).messages.len();
        assert!(got > 60, "{got} of 100");
        assert_eq!(packet_bytes(&net, A), 1_214);
    });
}

#[test]
fn a_pause_of_the_peer_is_no_black_hole() {
    net_sim::seeds!(4, |seed| {
        let mut net = connected(seed, link_of(65_507));
        net.run_for(secs(2)).unwrap();
        let sent = messages(seed, [400_000; 10]);
        act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 20), &sent));
        net.run_for(millis(30)).unwrap();
        let (a, b) = (net.addr(A), net.addr(B));
        net.network().partition(&[a], &[b]);
        net.run_for(millis(900)).unwrap();
        net.network().heal_all();
        run_until_received(&mut net, B, sent.len(), secs(30));
        assert_eq!(packet_bytes(&net, A), 8_192);
        let small = node(&net, A).counters().packets_out;
        assert!(small < 2_000, "{small} packets for 4 MB");
    });
}

#[test]
fn a_path_that_widens_is_used_in_time() {
    net_sim::seeds!(2, |seed| {
        let mut net = connected(seed, link_of(1_232));
        net.run_for(secs(5)).unwrap();
        net.network().set_default_link(link_of(65_507));
        net.run_for(MTU_REPROBE).unwrap();
        assert_eq!([A, B].map(|id| packet_bytes(&net, id)), [8_192; 2]);
    });
}

#[test]
fn a_peer_that_moves_is_followed_after_it_proved_its_address() {
    net_sim::seeds!(8, |seed| {
        for to in [SocketAddr::from(([10, 0, 0, 2], 4_999)), SocketAddr::from(([10, 7, 7, 7], 1))] {
            let mut net = connected(seed, bad_link());
            let sent = messages(seed, [2_000; 200]);
            for (id, i) in [(A, 2), (B, 1)] {
                act(&mut net, id, |n, now| n.send_all(now, i, ordered(1 << 20), &sent));
            }
            net.run_for(millis(100)).unwrap();
            act(&mut net, A, |n, _| n.sent = Some(Vec::new()));
            net.rebind(B, to);
            for id in [A, B] {
                run_until_received(&mut net, id, sent.len(), secs(60));
                assert_same_messages(&sent, &node(&net, id).messages, true);
            }
            assert_eq!(node(&net, A).counters().path_changes, 1);
            assert_eq!(node(&net, B).counters().path_changes, 0);
            // Until the proof came there was nothing but the question, and it was short.
            let there = sent_to(&net, A, to);
            let first_data = there.iter().position(|d| d.kind() != Kind::PathChallenge).unwrap();
            assert!(there[..first_data].iter().all(|d| d.bytes.len() == 88));
            assert!((1..60).contains(&first_data));
            assert_eq!(node(&net, A).connections().len(), 1);
        }
    });
}

#[test]
fn an_idle_peer_that_moves_is_found_by_its_heartbeats() {
    net_sim::seeds!(4, |seed| {
        let mut net = connected(seed, bad_link());
        net.run_for(secs(3)).unwrap();
        net.rebind(B, addr(77));
        let moved = net.now();
        net.run_until(secs(10), |net| node(net, A).counters().path_changes == 1).unwrap();
        assert!(net.now().since(moved) < secs(4));
        let sent = messages(seed, [10]);
        act(&mut net, A, |n, now| n.send_all(now, 2, StreamConfig::default(), &sent));
        run_until_received(&mut net, B, 1, secs(5));
    });
}

#[test]
fn captured_packets_from_another_address_do_not_move_a_session() {
    net_sim::seeds!(6, |seed| {
        let mut net = connected(seed, LinkConfig::with_latency(millis(5)));
        net.run_for(secs(2)).unwrap();
        let victim = addr(66);
        let listener = net.add_host(victim, Actor::Listener(Listener::default()));
        for id in [A, B] {
            act(&mut net, id, |n, _| n.sent = Some(Vec::new()));
        }
        // The attacker holds every packet of A up and sends it on from the victim's address.
        let (a, b) = (net.addr(A), net.addr(B));
        net.network().cut_one_way(a, b);
        let sent = messages(seed, [1_000; 50]);
        act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 20), &sent));
        let (mut taken, mut in_bytes) = (0, 0);
        for _ in 0..200 {
            net.run_for(millis(10)).unwrap();
            let new = node(&net, A).sent.as_ref().unwrap()[taken..].to_vec();
            taken += new.len();
            for d in new {
                in_bytes += d.bytes.len();
                act(&mut net, B, |n, now| n.feed(now, victim, &d.bytes));
            }
        }
        net.network().heal_all();
        run_until_received(&mut net, B, sent.len(), secs(5));
        assert_same_messages(&sent, &node(&net, B).messages, false);
        assert_eq!(node(&net, B).counters().path_changes, 0);
        let there = sent_to(&net, B, victim);
        assert!(!there.is_empty() && there.iter().all(|d| d.kind() == Kind::PathChallenge));
        let out_bytes: usize = there.iter().map(|d| d.bytes.len()).sum();
        assert!(out_bytes < 3 * in_bytes, "{out_bytes} bytes for {in_bytes}");
        let Actor::Listener(listener) = net.host(listener) else { panic!("it listens") };
        assert!(listener.heard.len() <= there.len());
        assert!(agree(&net));
    });
}
