//! Floods: of handshakes by members, of garbage by anyone. State stays bounded, what is genuine gets
//! through, and none is used to hit a third party.

use std::net::SocketAddr;

use net_crypto::{EntityKeypair, MeshSecret};
use net_mesh_core::{DialError, DropReason, EndpointConfig};
use net_sim::{LinkConfig, SimRng};
use net_types::limits::{HANDSHAKES_PER_NODE_PER_SEC, HANDSHAKES_PER_SOURCE_PER_SEC, MAX_SESSIONS};
use net_types::{EntityId, Instant, NodeId, PeerAddr};
use net_wire::{Kind, RoutingHeader};

use crate::node::{SentDatagram, SimNode, addr, config, kind_of, node_id, peer};
use crate::world::{
    A, B, Net, act, agree, assert_quiet, assert_same_messages, connected, dial, messages, millis,
    node, nodes, reliable, run_until_received, secs,
};

/// A member of the mesh with keys of its own.
fn member(number: u64) -> SimNode {
    let mut seed = [0xee; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let keys = EntityKeypair::from_seed(seed);
    let config = EndpointConfig::new(keys, MeshSecret::from_cookie("test"));
    SimNode::with_config(Instant::ZERO, number, config)
}

fn init_of(member: &mut SimNode) -> Vec<u8> {
    member.endpoint.dial(Instant::ZERO, &peer(2)).unwrap();
    member.take_datagrams(Instant::ZERO).remove(0).bytes
}

fn source(ip: u16, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 9, (ip >> 8) as u8, ip as u8], port))
}

fn sent_by_b(net: &Net) -> &[SentDatagram] {
    node(net, B).sent.as_ref().unwrap()
}

fn count(net: &Net, kind: Kind) -> usize {
    sent_by_b(net).iter().filter(|d| d.kind() == kind).count()
}

#[test]
fn a_flood_from_one_source_gets_cookies_and_a_genuine_peer_there_gets_in() {
    net_sim::seeds!(3, |seed| {
        let mut net = nodes(seed, LinkConfig::default(), 2);
        act(&mut net, B, |n, _| n.sent = Some(Vec::new()));
        for i in 0..60u16 {
            let from = SocketAddr::new(addr(1).ip(), 5_000 + i);
            let init = init_of(&mut member(seed ^ u64::from(i)));
            act(&mut net, B, |n, now| n.feed(now, from, &init));
        }
        net.run_for(millis(1)).unwrap();
        let pace = HANDSHAKES_PER_SOURCE_PER_SEC as usize;
        assert_eq!(count(&net, Kind::HandshakeResponse), pace);
        assert_eq!(count(&net, Kind::CookieReply), 60 - pace);
        assert_eq!(node(&net, B).drops(DropReason::HandshakePaced), 60 - pace as u64);
        dial(&mut net, A, 2);
        net.run_until(millis(50), |net| agree(net)).unwrap();
        assert_eq!(count(&net, Kind::CookieReply), 60 - pace + 1, "the genuine peer got one too");
        net.run_for(secs(6)).unwrap();
        assert_quiet(&net);
    });
}

#[test]
fn a_flood_from_everywhere_is_bounded_and_a_genuine_peer_gets_in() {
    net_sim::seeds!(1, |seed| {
        let mut net = nodes(seed, LinkConfig::default(), 2);
        act(&mut net, B, |n, _| n.sent = Some(Vec::new()));
        let mut in_bytes = 0;
        // As many members, each at an address of its own.
        for i in 0..1_300u16 {
            let init = init_of(&mut member(seed ^ u64::from(i)));
            in_bytes += init.len();
            act(&mut net, B, |n, now| n.feed(now, source(i, 1), &init));
        }
        net.run_for(millis(1)).unwrap();
        assert_eq!(count(&net, Kind::HandshakeResponse), HANDSHAKES_PER_NODE_PER_SEC as usize);
        let population = node(&net, B).endpoint.population();
        assert_eq!(population.provisional, HANDSHAKES_PER_NODE_PER_SEC as usize);
        let out_bytes: usize = sent_by_b(&net).iter().map(|d| d.bytes.len()).sum();
        assert!(out_bytes < in_bytes, "{out_bytes} bytes sent for {in_bytes}");
        dial(&mut net, A, 2);
        net.run_until(millis(50), |net| agree(net)).unwrap();
        net.run_for(secs(6)).unwrap();
        assert_quiet(&net);
    });
}

#[test]
fn a_cookie_works_only_for_the_address_it_was_made_for() {
    net_sim::seeds!(3, |seed| {
        let mut net = nodes(seed, LinkConfig::default(), 2);
        act(&mut net, B, |n, _| n.sent = Some(Vec::new()));
        for i in 0..u64::from(HANDSHAKES_PER_SOURCE_PER_SEC) {
            let init = init_of(&mut member(seed ^ i));
            act(&mut net, B, |n, now| n.feed(now, source(1, 1), &init));
        }
        let mut holder = member(seed ^ 1_000);
        let init = init_of(&mut holder);
        act(&mut net, B, |n, now| n.feed(now, source(1, 1), &init));
        net.run_for(millis(1)).unwrap();
        let cookie = sent_by_b(&net).last().unwrap().clone();
        assert_eq!((cookie.kind(), cookie.to), (Kind::CookieReply, source(1, 1)));
        holder.feed(Instant::ZERO, addr(2), &cookie.bytes);
        let with_cookie = holder.take_datagrams(Instant::ZERO).remove(0).bytes;
        assert_ne!(with_cookie, init);
        let responses = count(&net, Kind::HandshakeResponse);
        act(&mut net, B, |n, now| n.feed(now, source(1, 2), &with_cookie));
        net.run_for(millis(1)).unwrap();
        assert_eq!(count(&net, Kind::HandshakeResponse), responses);
        act(&mut net, B, |n, now| n.feed(now, source(1, 1), &with_cookie));
        net.run_for(millis(1)).unwrap();
        assert_eq!(count(&net, Kind::HandshakeResponse), responses + 1);
        // A second answer to the same cookie makes no initiator send faster.
        holder.feed(Instant::ZERO, addr(2), &cookie.bytes);
        assert!(holder.take_datagrams(Instant::ZERO).is_empty());
    });
}

#[test]
fn relayed_inits_above_the_pace_get_no_cookie() {
    net_sim::seeds!(2, |seed| {
        let mut net = nodes(seed, LinkConfig::default(), 2);
        act(&mut net, B, |n, _| n.sent = Some(Vec::new()));
        for i in 0..30u64 {
            let init = init_of(&mut member(seed ^ i));
            let header = RoutingHeader { ttl: 9, destination: node_id(2), source: node_id(7) };
            let datagram = [&header.encode()[..], &init].concat();
            act(&mut net, B, |n, now| n.feed(now, addr(9), &datagram));
        }
        net.run_for(millis(1)).unwrap();
        assert_eq!(sent_by_b(&net).len(), HANDSHAKES_PER_SOURCE_PER_SEC as usize);
        assert_eq!(node(&net, B).drops(DropReason::HandshakePaced), 20);
    });
}

#[test]
fn a_repeated_init_is_no_amplifier() {
    net_sim::seeds!(2, |seed| {
        let mut net = nodes(seed, LinkConfig::default(), 2);
        act(&mut net, B, |n, _| n.sent = Some(Vec::new()));
        let init = init_of(&mut member(seed));
        for _ in 0..1_000 {
            act(&mut net, B, |n, now| n.feed(now, source(1, 1), &init));
        }
        net.run_for(millis(1)).unwrap();
        assert_eq!(count(&net, Kind::HandshakeResponse), HANDSHAKES_PER_SOURCE_PER_SEC as usize);
        let out_bytes: usize = sent_by_b(&net).iter().map(|d| d.bytes.len()).sum();
        assert!(out_bytes < init.len() * 1_000);
        assert_eq!(node(&net, B).endpoint.population().sessions, 1);
    });
}

/// What an attacker without the secret can send: noise, and what it saw, cut or changed.
fn forgery(rng: &mut SimRng, seen: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seen[rng.below(seen.len() as u64) as usize].clone();
    match rng.below(5) {
        0 => {
            let len = rng.below(300) as usize;
            (0..len).map(|_| rng.next_u64() as u8).collect()
        }
        1 => {
            bytes.truncate(rng.below(bytes.len() as u64) as usize);
            bytes
        }
        2 => {
            bytes.extend_from_slice(&rng.next_u64().to_le_bytes());
            bytes
        }
        3 => {
            // Fields of the header, where they do most harm.
            let header_bytes = 64.min(bytes.len() as u64);
            bytes[rng.below(header_bytes) as usize] = rng.next_u64() as u8;
            bytes
        }
        _ => {
            let bit = rng.below(bytes.len() as u64 * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            bytes
        }
    }
}

#[test]
fn garbage_and_damaged_copies_only_move_counters() {
    net_sim::seeds!(4, |seed| {
        let mut net = nodes(seed, LinkConfig::default(), 2);
        for id in [A, B] {
            act(&mut net, id, |n, _| n.sent = Some(Vec::new()));
        }
        dial(&mut net, A, 2);
        net.run_until(secs(1), |net| agree(net)).unwrap();
        let sent = messages(seed, [100, 5_000, 20_000]);
        act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 16), &sent));
        net.run_for(secs(1)).unwrap();
        let seen: Vec<_> = [A, B]
            .iter()
            .flat_map(|id| node(&net, *id).sent.clone().unwrap())
            .map(|d| d.bytes)
            .collect();
        let session = node(&net, A).session_with(2);
        let mut rng = SimRng::new(seed, "forger");
        for _ in 0..60 {
            for _ in 0..100 {
                let bytes = forgery(&mut rng, &seen);
                let from = if rng.chance(500_000) { addr(1) } else { addr(66) };
                act(&mut net, B, |n, now| n.feed(now, from, &bytes));
            }
            net.run_for(millis(50)).unwrap();
        }
        let n = node(&net, B);
        for reason in [
            DropReason::Foreign,
            DropReason::Malformed,
            DropReason::UnknownSession,
            DropReason::Authentication,
            DropReason::Replay,
            DropReason::HandshakeMac,
        ] {
            assert!(n.drops(reason) > 0, "{reason:?}");
        }
        assert_eq!(n.counters().path_changes, 0);
        let astray: Vec<_> = sent_by_b(&net).iter().filter(|d| d.to == addr(66)).collect();
        assert!(astray.is_empty(), "answers to an attacker: {astray:?}");
        assert!(agree(&net));
        assert_eq!(node(&net, A).session_with(2), session);
        act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 16), &sent));
        run_until_received(&mut net, B, 6, secs(1));
        assert_same_messages(&sent, &node(&net, B).messages[3..], false);
        let population = node(&net, B).endpoint.population();
        assert_eq!((population.sessions, population.provisional, population.peers), (1, 0, 1));
    });
}

#[test]
fn forged_counter_jumps_do_not_end_a_session() {
    net_sim::seeds!(2, |seed| {
        let mut net = connected(seed, LinkConfig::default());
        act(&mut net, A, |n, _| n.sent = Some(Vec::new()));
        net.run_for(secs(1)).unwrap();
        let seen = node(&net, A).sent.clone().unwrap();
        let genuine = seen.iter().find(|d| kind_of(&d.bytes) == Kind::Heartbeat).unwrap();
        // The peer is silent, and all that comes are packets with absurd counters.
        let (a, b) = (net.addr(A), net.addr(B));
        net.network().partition(&[a], &[b]);
        for i in 0..100 {
            let mut forged = genuine.bytes.clone();
            forged[16..24].copy_from_slice(&(1u64 << 40 | i).to_le_bytes());
            act(&mut net, B, |n, now| n.feed(now, addr(1), &forged));
            net.run_for(millis(80)).unwrap();
        }
        net.network().heal_all();
        net.run_for(secs(2)).unwrap();
        assert!(agree(&net));
        assert_eq!(node(&net, B).drops(DropReason::CounterJump), 0);
        assert_eq!(node(&net, B).drops(DropReason::Authentication), 100);
    });
}

#[test]
fn the_address_book_is_bounded_and_survives_its_sessions() {
    let mut net = nodes(1, LinkConfig::default(), 1);
    act(&mut net, A, |n, _| {
        for i in 0..70_000u64 {
            let mut id = [7; 32];
            id[..8].copy_from_slice(&i.to_le_bytes());
            let added = n.endpoint.add_peer(PeerAddr::direct(EntityId(id), addr(9)));
            assert_eq!(added.is_ok(), i < MAX_SESSIONS as u64);
        }
        assert_eq!(n.endpoint.population().peers, MAX_SESSIONS);
        // One that is forgotten makes room for another.
        n.endpoint.remove_peer(NodeId(5));
        assert_eq!(n.endpoint.population().peers, MAX_SESSIONS - 1);
        assert_eq!(n.endpoint.add_peer(peer(2)), Ok(()));
    });
    let mut net = connected(2, LinkConfig::default());
    act(&mut net, A, |n, now| {
        n.endpoint.add_peer(peer(2)).unwrap();
        let session = n.session_with(2).unwrap();
        n.endpoint.close_session(now, session, net_mesh_core::CloseReason::Disconnected);
    });
    net.run_for(secs(1)).unwrap();
    assert_eq!(node(&net, A).endpoint.peer_addr(node_id(2)), Some(&peer(2)));
    assert_eq!(config(2).secrets.len(), 1);
}

#[test]
fn an_identity_with_the_node_id_of_another_is_not_taken_for_it() {
    // A key whose first eight bytes are node 2's. No node here has its secret half.
    let genuine = peer(2).entity_id;
    let alias = (0..=u8::MAX)
        .map(|i| {
            let mut id = genuine.0;
            id[20] ^= i;
            EntityId(id)
        })
        .find(|id| *id != genuine && net_crypto::check_entity_id(id.as_bytes()).is_ok())
        .unwrap();
    assert_eq!(alias.node_id(), genuine.node_id());
    let alias = PeerAddr::direct(alias, addr(9));
    let collides = Err(DialError::NodeIdCollision);
    let mut net = connected(3, LinkConfig::default());
    act(&mut net, A, |n, now| {
        // With a session, with a dial under way, and with nothing but an address.
        assert_eq!(n.endpoint.add_peer(alias.clone()), collides);
        assert_eq!(n.endpoint.dial(now, &alias), collides);
    });
    let mut net = nodes(4, LinkConfig::default(), 1);
    act(&mut net, A, |n, now| {
        n.endpoint.dial(now, &peer(2)).unwrap();
        assert_eq!(n.endpoint.dial(now, &alias), collides);
        n.endpoint.add_peer(peer(3)).unwrap();
    });
    let mut net = nodes(5, LinkConfig::default(), 1);
    act(&mut net, A, |n, now| {
        n.endpoint.add_peer(peer(2)).unwrap();
        assert_eq!(n.endpoint.dial(now, &alias), collides);
        n.endpoint.remove_peer(genuine.node_id());
        assert_eq!(n.endpoint.dial(now, &alias), Ok(()));
    });
}

#[test]
fn a_packet_that_names_another_origin_is_dropped_before_the_cipher() {
    let mut net = connected(6, LinkConfig::default());
    let own = |id| net_crypto::origin_hash(&node(&net, id).endpoint.entity_id()).0 as u32;
    let origins = [A, B].map(own);
    for id in [A, B] {
        act(&mut net, id, |n, _| n.sent = Some(Vec::new()));
    }
    net.run_for(secs(2)).unwrap();
    for (id, origin) in [(A, origins[0]), (B, origins[1])] {
        let sent = node(&net, id).sent.as_ref().unwrap();
        assert!(!sent.is_empty());
        assert!(sent.iter().all(|d| d.bytes[40..44] == origin.to_le_bytes()));
    }
    let mut forged = node(&net, A).sent.as_ref().unwrap()[0].bytes.clone();
    forged[40] ^= 1;
    act(&mut net, B, |n, now| n.feed(now, addr(1), &forged));
    let n = node(&net, B);
    assert_eq!((n.drops(DropReason::Origin), n.drops(DropReason::Authentication)), (1, 0));
}
