//! Several handshakes of one pair: dials that cross, that replace a session, and what becomes of a
//! peer that restarts, falls silent or leaves.

use net_mesh_core::{CloseCause, CloseReason, Event};
use net_sim::{LinkConfig, SimRng};
use net_types::{SessionId, StreamId};
use net_wire::Kind;

use crate::node::{SentDatagram, SimNode, addr, keys, peer};
use crate::world::{
    A, Actor, B, Net, act, agree, assert_quiet, assert_same_messages, bad_link, connected, dial,
    messages, millis, node, nodes, ordered, reliable, run_until_received, secs,
};

fn disconnections(net: &Net, id: net_sim::HostId) -> Vec<(SessionId, CloseCause, bool)> {
    let one = |e: &Event| match e {
        Event::Disconnected { session, cause, was_live, .. } => Some((*session, *cause, *was_live)),
        _ => None,
    };
    node(net, id).events.iter().filter_map(one).collect()
}

/// Messages in both directions arrive on the session that both sides say they use.
fn assert_usable(net: &mut Net, seed: u64) {
    assert!(agree(net));
    let sent = messages(seed, [100, 5_000]);
    for (id, other) in [(A, B), (B, A)] {
        let before = node(net, other).messages.len();
        act(net, id, |n, now| n.send_all(now, 2 - id.0 as u8, reliable(1 << 16), &sent));
        run_until_received(net, other, before + 2, secs(20));
        assert_same_messages(&sent, &node(net, other).messages[before..], false);
    }
}

#[test]
fn dials_that_cross_lead_to_one_session() {
    net_sim::seeds!(150, |seed| {
        let mut rng = SimRng::new(seed, "dials");
        let link = LinkConfig {
            loss_ppm: rng.below(300_000) as u32,
            duplicate_ppm: rng.below(200_000) as u32,
            reorder_ppm: rng.below(500_000) as u32,
            jitter: millis(rng.below(80)),
            ..LinkConfig::with_latency(millis(rng.below(120)))
        };
        let mut net = nodes(seed, link, 2);
        for _ in 0..1 + rng.below(3) {
            let first = if rng.chance(500_000) { (A, 2, B, 1) } else { (B, 1, A, 2) };
            dial(&mut net, first.0, first.1);
            net.run_for(millis(rng.below(200))).unwrap();
            dial(&mut net, first.2, first.3);
            net.run_for(millis(rng.below(300))).unwrap();
        }
        // Once the dials are over, so are all sessions but one.
        net.run_for(secs(13)).unwrap();
        assert!(agree(&net), "{:?} {:?}", node(&net, A).events, node(&net, B).events);
        for id in [A, B] {
            assert_eq!(node(&net, id).endpoint.population().sessions, 1);
        }
        net.network().set_default_link(LinkConfig::default());
        assert_usable(&mut net, seed);
    });
}

#[test]
fn dials_at_the_same_moment_need_one_handshake() {
    net_sim::seeds!(5, |seed| {
        let mut net = nodes(seed, LinkConfig::with_latency(millis(10)), 2);
        dial(&mut net, A, 2);
        dial(&mut net, B, 1);
        net.run_for(secs(2)).unwrap();
        assert!(agree(&net));
        let smaller = if keys(1).entity_id() < keys(2).entity_id() { A } else { B };
        for id in [A, B] {
            assert_eq!(node(&net, id).connections().len(), 1);
            let session = node(&net, id).connections()[0];
            assert_eq!(node(&net, id).endpoint.is_initiator(session), Some(id == smaller));
        }
        assert_quiet(&net);
    });
}

#[test]
fn a_dial_that_reaches_no_host_lets_the_other_side_dial() {
    net_sim::seeds!(4, |seed| {
        for (inside, outside, i) in [(A, B, 2), (B, A, 1)] {
            let mut net = nodes(seed, LinkConfig::default(), 2);
            let astray = net_types::PeerAddr { addrs: vec![addr(99)], ..peer(i) };
            // One side dials an address without a socket; the other one dials the right address.
            act(&mut net, inside, |n, now| n.endpoint.dial(now, &astray).unwrap());
            net.run_for(millis(10)).unwrap();
            dial(&mut net, outside, 3 - i);
            net.run_until(secs(2), |net| agree(net)).unwrap();
            assert_usable(&mut net, seed);
        }
    });
}

#[test]
fn a_new_handshake_replaces_a_session_without_losing_what_was_under_way() {
    net_sim::seeds!(20, |seed| {
        let mut net = connected(seed, bad_link());
        let sent = messages(seed, (0..30).map(|i| [10, 900, 4_000][i % 3]));
        let first = node(&net, A).session_with(2).unwrap();
        act(&mut net, A, |n, now| n.send_all(now, 2, ordered(1 << 20), &sent));
        act(&mut net, B, |n, now| n.send_all(now, 1, ordered(1 << 20), &sent));
        dial(&mut net, if seed % 2 == 0 { A } else { B }, if seed % 2 == 0 { 2 } else { 1 });
        net.run_until(secs(5), |net| agree(net) && node(net, A).session_with(2) != Some(first))
            .unwrap();
        net.run_for(secs(10)).unwrap();
        for id in [A, B] {
            assert_same_messages(&sent, &node(&net, id).messages, true);
            assert_eq!(node(&net, id).connections().len(), 2);
            let gone = disconnections(&net, id);
            assert_eq!(gone.len(), 1);
            assert_eq!((gone[0].0, gone[0].2), (first, false), "the old one was not in use");
        }
        assert!(agree(&net));
    });
}

#[test]
fn what_confirms_a_session_belongs_to_it_even_if_it_is_data() {
    net_sim::seeds!(3, |seed| {
        let mut net = connected(seed, LinkConfig::default());
        let first = node(&net, A).session_with(2).unwrap();
        dial(&mut net, A, 2);
        // All that node 1 sends on the new session before its data is lost.
        let now = net.local_now(A);
        act(&mut net, A, |n, _| n.sent = Some(Vec::new()));
        net.run_until(secs(1), |net| node(net, A).session_with(2) != Some(first)).unwrap();
        assert_eq!(net.local_now(A).since(now), millis(1) * 2 / 5);
        let (a, b) = (net.addr(A), net.addr(B));
        net.network().cut_one_way(a, b);
        net.run_for(millis(1)).unwrap();
        net.network().heal_all();
        let second = node(&net, A).session_with(2).unwrap();
        assert_eq!(node(&net, B).session_with(1), Some(first));
        let sent = messages(seed, [100]);
        act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 16), &sent));
        run_until_received(&mut net, B, 1, secs(1));
        let (session, stream) = *node(&net, B).by_stream.keys().next().unwrap();
        assert_eq!((session, stream), (second, StreamId(17)));
        assert!(agree(&net));
    });
}

#[test]
fn a_late_proof_of_an_older_handshake_does_not_bring_it_back() {
    let mut a = SimNode::new(net_types::Instant::ZERO, 1, 1);
    let mut b = SimNode::new(net_types::Instant::ZERO, 1, 2);
    let now = net_types::Instant::ZERO;
    let give = |to: &mut SimNode, from: u8, list: &[SentDatagram]| {
        list.iter().for_each(|d| to.feed(now, addr(from), &d.bytes));
    };
    let mut proofs = Vec::new();
    for _ in 0..2 {
        a.endpoint.dial(now, &peer(2)).unwrap();
        let init = a.take_datagrams(now);
        give(&mut b, 1, &init);
        let response = b.take_datagrams(now);
        give(&mut a, 2, &response);
        proofs.push(a.take_datagrams(now));
    }
    let newest = a.session_with(2);
    give(&mut b, 1, &proofs[1]);
    assert_eq!(b.session_with(1), newest);
    give(&mut b, 1, &proofs[0]);
    assert_eq!(b.session_with(1), newest, "the older session only drains");
    assert_eq!(b.connections().len(), 2);
}

#[test]
fn a_peer_that_restarts_is_dialled_again_and_gets_what_is_sent_next() {
    net_sim::seeds!(10, |seed| {
        let mut net = connected(seed, bad_link());
        act(&mut net, A, |n, _| n.endpoint.add_peer(peer(2)).unwrap());
        let sent = messages(seed, [1_000; 5]);
        act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 16), &sent));
        run_until_received(&mut net, B, 5, secs(10));
        let first = node(&net, A).session_with(2).unwrap();
        net.crash(B);
        net.run_for(millis(700)).unwrap();
        let restarted = SimNode::new(net.local_now(B), seed + 1, 2);
        net.restart(B, Actor::Node(Box::new(restarted)));
        let crashed = net.now();
        net.run_until(secs(10), |net| agree(net) && node(net, A).session_with(2) != Some(first))
            .unwrap();
        let took = net.now().since(crashed);
        assert!(took < secs(3), "back after {took:?}");
        act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 16), &sent));
        run_until_received(&mut net, B, 5, secs(10));
        net.run_for(secs(10)).unwrap();
        assert_same_messages(&sent, &node(&net, B).messages, false);
        assert_eq!(disconnections(&net, A)[0].0, first);
        assert_eq!(node(&net, A).endpoint.population().sessions, 1);
    });
}

#[test]
fn an_outage_shorter_than_the_session_loses_nothing() {
    net_sim::seeds!(6, |seed| {
        for known in [false, true] {
            let mut net = connected(seed, bad_link());
            if known {
                act(&mut net, A, |n, _| n.endpoint.add_peer(peer(2)).unwrap());
                act(&mut net, B, |n, _| n.endpoint.add_peer(peer(1)).unwrap());
            }
            let sent = messages(seed, [3_000; 40]);
            for (id, i) in [(A, 2), (B, 1)] {
                act(&mut net, id, |n, now| n.send_all(now, i, ordered(1 << 20), &sent));
            }
            net.run_for(millis(60)).unwrap();
            let (a, b) = (net.addr(A), net.addr(B));
            net.network().partition(&[a], &[b]);
            net.run_for(secs(4)).unwrap();
            net.network().heal_all();
            for id in [A, B] {
                run_until_received(&mut net, id, sent.len(), secs(30));
                assert_same_messages(&sent, &node(&net, id).messages, true);
            }
            net.run_for(secs(8)).unwrap();
            assert!(agree(&net));
        }
    });
}

#[test]
fn silence_ends_a_session_after_fifteen_seconds() {
    net_sim::seeds!(3, |seed| {
        let mut net = connected(seed, LinkConfig::default());
        net.run_for(secs(60)).unwrap();
        assert!(agree(&net), "heartbeats keep an idle session");
        let session = node(&net, A).session_with(2).unwrap();
        net.crash(B);
        net.run_for(secs(14)).unwrap();
        assert!(node(&net, A).session_with(2).is_some());
        net.run_for(secs(2)).unwrap();
        assert_eq!(disconnections(&net, A), [(session, CloseCause::Timeout, true)]);
        let population = node(&net, A).endpoint.population();
        assert_eq!((population.sessions, population.peers, population.timers), (0, 0, 0));
        assert_eq!(node(&net, A).endpoint.next_timeout(), None);
    });
}

#[test]
fn closing_tells_the_peer_at_once() {
    net_sim::seeds!(3, |seed| {
        let mut net = connected(seed, LinkConfig::default());
        let session = node(&net, A).session_with(2).unwrap();
        act(&mut net, A, |n, now| {
            n.send_all(now, 2, reliable(1 << 16), &[]);
            n.endpoint.close_session(now, session, CloseReason::Disconnected);
        });
        net.run_for(millis(10)).unwrap();
        let reason = CloseReason::Disconnected;
        assert_eq!(disconnections(&net, A), [(session, CloseCause::Local(reason), true)]);
        assert_eq!(disconnections(&net, B), [(session, CloseCause::Peer(reason), true)]);
        for id in [A, B] {
            assert_eq!(node(&net, id).endpoint.population().sessions, 0);
        }
    });
}

#[test]
fn shutting_down_ends_sessions_and_dials() {
    net_sim::seeds!(2, |seed| {
        let mut net = connected(seed, LinkConfig::default());
        act(&mut net, A, |n, now| {
            n.endpoint.dial(now, &peer(7)).unwrap();
            n.sent = Some(Vec::new());
            n.endpoint.close_all(now, CloseReason::Shutdown);
        });
        net.run_for(secs(20)).unwrap();
        let sent = node(&net, A).sent.as_ref().unwrap();
        assert_eq!(sent.iter().filter(|d| d.kind() == Kind::SessionClose).count(), 1);
        let session = node(&net, B).connections()[0];
        let reason = CloseCause::Peer(CloseReason::Shutdown);
        assert_eq!(disconnections(&net, B), [(session, reason, true)]);
        for id in [A, B] {
            let population = node(&net, id).endpoint.population();
            assert_eq!((population.sessions, population.dials, population.timers), (0, 0, 0));
        }
    });
}
