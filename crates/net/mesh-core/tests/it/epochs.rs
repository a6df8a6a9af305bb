//! Keys and counters over the life of a session.

use net_mesh_core::DropReason;
use net_sim::{LinkConfig, SimRng};
use net_types::limits::KEY_EPOCH_AGE;
use net_wire::{Header, Kind};

use crate::node::addr;
use crate::world::{
    A, B, Net, act, agree, assert_quiet, assert_same_messages, bad_link, connected, messages,
    millis, node, ordered, run_until_received, secs,
};

/// Epoch of the newest packet that `A` sent.
fn epoch(net: &Net) -> u8 {
    let sent = node(net, A).sent.as_ref().unwrap();
    Header::decode(&sent.last().unwrap().bytes).unwrap().key_epoch
}

#[test]
fn keys_are_replaced_by_age_and_messages_keep_arriving() {
    net_sim::seeds!(2, |seed| {
        let mut net = connected(seed, LinkConfig::default());
        let session = node(&net, A).session_with(2);
        for hour in 0..4 {
            act(&mut net, A, |n, _| n.sent = Some(Vec::new()));
            net.run_for(secs(60)).unwrap();
            assert_eq!(epoch(&net), hour);
            let sent = messages(seed, [3_000, 10]);
            for (id, i) in [(A, 2), (B, 1)] {
                act(&mut net, id, |n, now| n.send_all(now, i, ordered(1 << 16), &sent));
            }
            act(&mut net, A, |n, _| n.sent = None);
            net.run_for(KEY_EPOCH_AGE - secs(60)).unwrap();
            for id in [A, B] {
                let all = &node(&net, id).messages;
                assert_same_messages(&sent, &all[2 * usize::from(hour)..], true);
            }
        }
        assert!(agree(&net));
        assert_eq!(node(&net, A).session_with(2), session);
        for id in [A, B] {
            assert_eq!(node(&net, id).drops(DropReason::Authentication), 0);
        }
    });
}

#[test]
fn a_transfer_across_the_change_of_keys_loses_nothing() {
    net_sim::seeds!(4, |seed| {
        let mut net = connected(seed, bad_link());
        net.run_for(KEY_EPOCH_AGE - millis(300)).unwrap();
        act(&mut net, A, |n, _| n.sent = Some(Vec::new()));
        let sent = messages(seed, [4_000; 100]);
        for (id, i) in [(A, 2), (B, 1)] {
            act(&mut net, id, |n, now| n.send_all(now, i, ordered(1 << 16), &sent));
        }
        for id in [A, B] {
            run_until_received(&mut net, id, sent.len(), secs(60));
            assert_same_messages(&sent, &node(&net, id).messages, true);
        }
        net.run_for(secs(1)).unwrap();
        assert_eq!(epoch(&net), 1);
        let epochs: Vec<u8> = {
            let sent = node(&net, A).sent.as_ref().unwrap();
            sent.iter().map(|d| Header::decode(&d.bytes).unwrap().key_epoch).collect()
        };
        assert!(epochs.is_sorted() && epochs[0] == 0);
    });
}

#[test]
fn a_packet_of_the_last_epoch_is_taken_for_a_moment_only() {
    net_sim::seeds!(3, |seed| {
        for (wait, is_taken) in [(millis(5), true), (secs(1), false)] {
            let mut net = connected(seed, LinkConfig::with_latency(millis(1)));
            net.run_for(KEY_EPOCH_AGE - secs(2)).unwrap();
            let (a, b) = (net.addr(A), net.addr(B));
            // A heartbeat near the end of the epoch is held back, all others arrive.
            net.network().cut_one_way(a, b);
            act(&mut net, A, |n, _| n.sent = Some(Vec::new()));
            net.run_until(secs(2), |net| !node(net, A).sent.as_ref().unwrap().is_empty()).unwrap();
            let held = node(&net, A).sent.as_ref().unwrap().last().unwrap().bytes.clone();
            assert_eq!(Header::decode(&held).unwrap().key_epoch, 0);
            net.network().heal_all();
            net.run_until(secs(5), |net| epoch(net) == 1).unwrap();
            net.run_for(wait).unwrap();
            let before = node(&net, B).counters().packets_in;
            act(&mut net, B, |n, now| n.feed(now, addr(1), &held));
            let taken = node(&net, B).counters().packets_in - before;
            assert_eq!(taken, u64::from(is_taken), "{wait:?} after the change");
            assert_eq!(node(&net, B).drops(DropReason::Authentication), 1 - taken);
            net.run_for(secs(5)).unwrap();
            assert_quiet(&net);
        }
    });
}

#[test]
fn every_packet_counts_once() {
    net_sim::seeds!(4, |seed| {
        let mut net = connected(seed, bad_link());
        act(&mut net, A, |n, _| n.sent = Some(Vec::new()));
        let sent = messages(seed, [2_000; 50]);
        act(&mut net, A, |n, now| n.send_all(now, 2, ordered(1 << 16), &sent));
        run_until_received(&mut net, B, sent.len(), secs(60));
        let datagrams = node(&net, A).sent.clone().unwrap();
        let counters: Vec<u64> = datagrams
            .iter()
            .filter(|d| d.kind() != Kind::HandshakeInit)
            .map(|d| Header::decode(&d.bytes).unwrap().counter)
            .collect();
        assert!(counters.windows(2).all(|w| w[0] < w[1]), "a counter was used twice");
        // All of it again, in any order: nothing is taken a second time.
        net.run_for(secs(1)).unwrap();
        let taken = node(&net, B).counters().packets_in;
        let mut rng = SimRng::new(seed, "replay");
        for _ in 0..1_000 {
            let d = &datagrams[rng.below(datagrams.len() as u64) as usize];
            act(&mut net, B, |n, now| n.feed(now, addr(1), &d.bytes));
        }
        // What the network lost may be taken now, once.
        let late = node(&net, B).counters().packets_in - taken;
        let lost = datagrams.len() / 4;
        assert!(late < lost as u64, "{late} packets taken");
        net.run_for(secs(5)).unwrap();
        assert_same_messages(&sent, &node(&net, B).messages, true);
    });
}
