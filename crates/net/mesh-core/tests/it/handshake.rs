//! Handshakes: who gets a session, what is remembered, and what replays and forgeries do.

use std::collections::BTreeSet;

use net_crypto::MeshSecret;
use net_mesh_core::{DialError, DropReason, Endpoint, EndpointConfig, Event, PeerPolicy};
use net_sim::LinkConfig;
use net_types::{EntityId, Instant, PeerAddr};
use net_wire::Kind;

use crate::node::{SimNode, addr, config, keys, node_id, peer};
use crate::world::{
    A, B, Net, act, add, agree, assert_quiet, connected, dial, empty, message, millis, node, nodes,
    reliable, run_until_received, secs,
};

fn dial_failures(net: &Net) -> Vec<DialError> {
    let error = |e: &Event| match e {
        Event::DialFailed { error, .. } => Some(*error),
        _ => None,
    };
    node(net, A).events.iter().filter_map(error).collect()
}

/// An Init of node `i` to node 2, made by an endpoint of its own.
fn init(i: u8, seed: u64) -> Vec<u8> {
    init_with(config(i), seed)
}

fn init_with(config: EndpointConfig, seed: u64) -> Vec<u8> {
    let now = Instant::ZERO + secs(1_000);
    let mut node = SimNode::with_config(now, seed, config);
    node.endpoint.dial(now, &peer(2)).unwrap();
    node.take_datagrams(now).remove(0).bytes
}

fn kinds_sent(net: &Net, kind: Kind) -> usize {
    node(net, B).sent.as_ref().unwrap().iter().filter(|d| d.kind() == kind).count()
}

#[test]
fn a_handshake_gives_both_sides_one_session() {
    net_sim::seeds!(3, |seed| {
        let mut net = connected(seed, LinkConfig::with_latency(millis(10)));
        assert_eq!(net.now(), Instant::ZERO + millis(30), "one round trip and the proof");
        net.run_for(secs(20)).unwrap();
        assert!(agree(&net));
        assert_quiet(&net);
        let session = node(&net, A).session_with(2).unwrap();
        for (id, other, is_initiator) in [(A, 2, true), (B, 1, false)] {
            let n = node(&net, id);
            let (peer, entity) = (node_id(other), keys(other).entity_id());
            assert_eq!(n.events, [Event::Connected { peer, entity, session, is_initiator }]);
            assert_eq!(n.counters().handshakes_ok, 1);
            let now = net.local_now(id);
            let (_, status) = n.endpoint.connected(now).next().unwrap();
            assert!(status.rtt.abs_diff(millis(20)) < millis(2), "{:?}", status.rtt);
            assert!(status.silence <= millis(520), "{:?}", status.silence);
        }
    });
}

#[test]
fn handshakes_get_through_loss_copies_reordering_and_damage() {
    net_sim::seeds!(40, |seed| {
        let link = LinkConfig {
            loss_ppm: 200_000,
            duplicate_ppm: 200_000,
            reorder_ppm: 200_000,
            corrupt_ppm: 50_000,
            jitter: millis(30),
            ..LinkConfig::with_latency(millis(20))
        };
        let mut net = nodes(seed, link, 2);
        dial(&mut net, A, 2);
        net.run_until(secs(5), |net| agree(net)).unwrap();
        let m = message(seed, 100);
        act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 16), &[m]));
        run_until_received(&mut net, B, 1, secs(10));
        net.run_for(secs(6)).unwrap();
        assert!(agree(&net));
        assert_eq!(node(&net, A).connections().len(), 1);
        assert_eq!(node(&net, B).connections().len(), 1);
    });
}

#[test]
fn replayed_handshakes_change_nothing_on_a_live_session() {
    net_sim::seeds!(5, |seed| {
        let mut net = nodes(seed, LinkConfig::default(), 2);
        for id in [A, B] {
            act(&mut net, id, |n, _| n.sent = Some(Vec::new()));
        }
        dial(&mut net, A, 2);
        net.run_until(secs(5), |net| agree(net)).unwrap();
        net.run_for(secs(2)).unwrap();
        let first = |id, kind| {
            let sent = node(&net, id).sent.as_ref().unwrap();
            sent.iter().find(|d| d.kind() == kind).unwrap().bytes.clone()
        };
        let init = first(A, Kind::HandshakeInit);
        let response = first(B, Kind::HandshakeResponse);
        let before = node(&net, A).session_with(2);
        for from in [addr(1), addr(9)] {
            for round in 0..20 {
                act(&mut net, B, |n, now| n.feed(now, from, &init));
                act(&mut net, A, |n, now| n.feed(now, from, &response));
                // Not even while the other end is silent.
                if round == 10 {
                    let (a, b) = (net.addr(A), net.addr(B));
                    net.network().partition(&[a], &[b]);
                    net.run_for(secs(3)).unwrap();
                    net.network().heal_all();
                }
            }
        }
        net.run_for(secs(10)).unwrap();
        assert!(agree(&net));
        assert_eq!(node(&net, A).session_with(2), before);
        assert_eq!(kinds_sent(&net, Kind::HandshakeResponse), 1);
        assert_eq!(node(&net, B).drops(DropReason::HandshakeReplay), 40);
        assert_eq!(node(&net, A).drops(DropReason::HandshakeReplay), 40);
        assert_quiet(&net);
    });
}

#[test]
fn an_init_is_answered_again_only_from_its_source_and_only_while_unproved() {
    net_sim::seeds!(3, |seed| {
        let mut net = nodes(seed, LinkConfig::default(), 2);
        act(&mut net, B, |n, _| n.sent = Some(Vec::new()));
        let init = init(1, seed);
        for i in 0..3 {
            act(&mut net, B, |n, now| n.feed(now, addr(1), &init));
            act(&mut net, B, |n, now| n.feed(now, addr(9), &init));
            net.run_for(millis(100)).unwrap();
            assert_eq!(kinds_sent(&net, Kind::HandshakeResponse), i + 1);
        }
        let n = node(&net, B);
        let responses = n.sent.as_ref().unwrap();
        assert!(responses.iter().all(|d| d.to == addr(1) && d.bytes == responses[0].bytes));
        assert_eq!(n.endpoint.population().provisional, 1);
        assert_eq!(n.drops(DropReason::HandshakeReplay), 3);
        // The proof never comes: nothing else is ever sent, and nothing stays.
        net.run_for(secs(6)).unwrap();
        assert_eq!(node(&net, B).sent.as_ref().unwrap().len(), 3);
        let population = node(&net, B).endpoint.population();
        assert_eq!((population.sessions, population.peers, population.timers), (0, 0, 0));
        assert_eq!(node(&net, B).counters().handshakes_failed, 1);
        act(&mut net, B, |n, now| n.feed(now, addr(1), &init));
        net.run_for(secs(1)).unwrap();
        assert_eq!(kinds_sent(&net, Kind::HandshakeResponse), 3);
    });
}

#[test]
fn an_identity_has_two_unproved_sessions_at_most_and_the_newest_ones() {
    net_sim::seeds!(3, |seed| {
        let mut net = nodes(seed, LinkConfig::default(), 2);
        for i in 0..6 {
            act(&mut net, B, |n, now| n.feed(now, addr(1), &init(1, seed + i)));
            let population = node(&net, B).endpoint.population();
            assert_eq!(population.provisional, (i as usize + 1).min(2));
            assert_eq!(population.sessions, population.provisional);
        }
        assert_eq!(node(&net, B).counters().handshakes_failed, 4);
        // A genuine handshake still gets through and the rest goes away.
        dial(&mut net, A, 2);
        net.run_until(secs(5), |net| agree(net)).unwrap();
        net.run_for(secs(6)).unwrap();
        assert_quiet(&net);
    });
}

#[test]
fn strangers_and_wrong_addresses_get_no_answer_at_all() {
    net_sim::seeds!(3, |seed| {
        let other_secret = || EndpointConfig::new(keys(1), MeshSecret::from_cookie("other"));
        for (config, target) in [
            (other_secret(), peer(2)),
            // Node 2's address under node 3's identity.
            (config(1), PeerAddr::direct(keys(3).entity_id(), addr(2))),
        ] {
            let mut net = empty(seed, LinkConfig::default());
            add(&mut net, 1, |now| SimNode::with_config(now, seed, config));
            add(&mut net, 2, |now| SimNode::new(now, seed, 2));
            act(&mut net, B, |n, _| n.sent = Some(Vec::new()));
            act(&mut net, A, |n, now| n.endpoint.dial(now, &target).unwrap());
            net.run_for(secs(6)).unwrap();
            assert_eq!(dial_failures(&net), [DialError::Timeout]);
            assert!(node(&net, B).drops(DropReason::HandshakeMac) >= 5);
            assert!(node(&net, B).sent.as_ref().unwrap().is_empty());
            for id in [A, B] {
                let population = node(&net, id).endpoint.population();
                assert_eq!((population.sessions, population.dials, population.peers), (0, 0, 0));
                assert_eq!(population.timers, 0);
            }
        }
    });
}

#[test]
fn a_policy_refuses_members_on_both_sides() {
    net_sim::seeds!(3, |seed| {
        let only = |i: u8| {
            let allowed: BTreeSet<EntityId> = [keys(i).entity_id()].into();
            EndpointConfig { policy: PeerPolicy::Only(allowed), ..config(2) }
        };
        let mut net = empty(seed, LinkConfig::default());
        add(&mut net, 1, |now| SimNode::new(now, seed, 1));
        add(&mut net, 2, |now| SimNode::with_config(now, seed, only(3)));
        let third = add(&mut net, 3, |now| SimNode::new(now, seed, 3));
        dial(&mut net, A, 2);
        dial(&mut net, third, 2);
        net.run_for(secs(6)).unwrap();
        assert_eq!(dial_failures(&net), [DialError::Timeout]);
        assert!(node(&net, B).drops(DropReason::HandshakeRefused) >= 5);
        assert!(node(&net, B).session_with(1).is_none());
        assert!(node(&net, B).session_with(3).is_some());
        let refused = act(&mut net, B, |n, now| n.endpoint.dial(now, &peer(1)));
        assert_eq!(refused, Err(DialError::Refused));
    });
}

#[test]
fn dials_that_cannot_succeed_are_refused_at_once() {
    let mut net = nodes(1, LinkConfig::default(), 1);
    let nowhere = PeerAddr { addrs: Vec::new(), ..peer(2) };
    let mut weak = [0; 32];
    weak[0] = 1;
    let weak = PeerAddr::direct(EntityId(weak), addr(2));
    act(&mut net, A, |n, now| {
        assert_eq!(n.endpoint.dial(now, &peer(1)), Err(DialError::Own));
        assert_eq!(n.endpoint.dial(now, &nowhere), Err(DialError::NoAddress));
        assert!(matches!(n.endpoint.dial(now, &weak), Err(DialError::Identity(_))));
        assert!(n.take_datagrams(now).is_empty());
        assert_eq!(n.endpoint.population().dials, 0);
    });
}

#[test]
fn two_secrets_at_once_let_a_mesh_change_its_secret() {
    net_sim::seeds!(3, |seed| {
        let (old, new) = (MeshSecret::from_cookie("old"), MeshSecret::from_cookie("new"));
        let with = |i: u8, secrets: &[&MeshSecret]| EndpointConfig {
            secrets: secrets.iter().copied().cloned().collect(),
            ..config(i)
        };
        let mut net = empty(seed, LinkConfig::default());
        add(&mut net, 1, |now| SimNode::with_config(now, 1, with(1, &[&old])));
        add(&mut net, 2, |now| SimNode::with_config(now, 2, with(2, &[&new, &old])));
        let third = add(&mut net, 3, |now| SimNode::with_config(now, 3, with(3, &[&new])));
        dial(&mut net, A, 2);
        dial(&mut net, third, 2);
        net.run_for(secs(1)).unwrap();
        assert!(node(&net, B).session_with(1).is_some() && node(&net, B).session_with(3).is_some());
        dial(&mut net, A, 3);
        net.run_for(secs(6)).unwrap();
        assert_eq!(dial_failures(&net), [DialError::Timeout]);
    });
}

#[test]
fn a_mesh_without_a_secret_must_be_meant() {
    let open = || EndpointConfig::new(keys(1), MeshSecret::new([0; 32]));
    let error = Endpoint::new(Instant::ZERO, open(), [1; 32]).err().unwrap();
    assert_eq!(error.field, "secrets");
    let meant = EndpointConfig { allow_open_mesh: true, ..open() };
    assert!(Endpoint::new(Instant::ZERO, meant, [1; 32]).is_ok());
    let mixed = EndpointConfig {
        secrets: vec![MeshSecret::from_cookie("x"), MeshSecret::new([0; 32])],
        ..config(1)
    };
    assert!(Endpoint::new(Instant::ZERO, mixed, [1; 32]).is_err());
}

#[test]
fn a_response_from_elsewhere_does_not_steer_the_session() {
    net_sim::seeds!(3, |seed| {
        let mut net = nodes(seed, LinkConfig::default(), 2);
        act(&mut net, B, |n, _| n.sent = Some(Vec::new()));
        dial(&mut net, A, 2);
        // The genuine Response is held up; a copy from the attacker's address comes first.
        let (a, b) = (net.addr(A), net.addr(B));
        net.network().cut_one_way(b, a);
        net.run_for(millis(50)).unwrap();
        let response = node(&net, B).sent.as_ref().unwrap()[0].bytes.clone();
        act(&mut net, A, |n, _| n.sent = Some(Vec::new()));
        act(&mut net, A, |n, now| n.feed(now, addr(66), &response));
        net.network().heal_all();
        net.run_until(secs(5), |net| agree(net)).unwrap();
        net.run_for(secs(5)).unwrap();
        let sent = node(&net, A).sent.as_ref().unwrap();
        let astray: Vec<_> = sent.iter().filter(|d| d.to == addr(66)).collect();
        assert!(astray.iter().all(|d| d.kind() == Kind::PathChallenge), "{astray:?}");
        assert!(astray.iter().map(|d| d.bytes.len()).sum::<usize>() < 3 * response.len());
        assert_eq!(node(&net, A).counters().path_changes, 0);
    });
}
