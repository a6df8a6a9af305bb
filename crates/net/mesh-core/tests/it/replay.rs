//! The tests themselves: a run is repeated exactly by its seed, and the checkers notice a fault.

use std::panic::{AssertUnwindSafe, catch_unwind};

use net_sim::HostId;

use crate::world::{
    A, B, act, assert_same_messages, bad_link, dial, fire_and_forget, messages, millis, node,
    nodes, ordered, reliable, run_until_received, secs,
};

/// Four nodes that dial each other at once and send in all modes over bad links, through an outage
/// and a move; returns the hash over everything that was sent and received.
fn busy_run(seed: u64) -> String {
    let mut net = nodes(seed, bad_link(), 4);
    let pairs = [(0, 1), (1, 2), (2, 3), (3, 0), (1, 0), (2, 0)];
    for (from, to) in pairs {
        dial(&mut net, HostId(from), to as u8 + 1);
        net.run_for(millis(30)).unwrap();
    }
    net.run_for(secs(2)).unwrap();
    for (n, (from, to)) in pairs.into_iter().enumerate() {
        act(&mut net, HostId(from), |node, now| {
            let list = messages(seed + n as u64, [10, 3_000, 90_000]);
            for config in [ordered(1 << 16), reliable(1 << 16), fire_and_forget()] {
                node.send_all(now, to as u8 + 1, config, &list);
            }
        });
    }
    net.run_for(millis(150)).unwrap();
    let (a, b) = (net.addr(A), net.addr(B));
    net.network().partition(&[a], &[b]);
    net.run_for(millis(800)).unwrap();
    net.network().heal_all();
    net.rebind(HostId(3), std::net::SocketAddr::from(([10, 0, 0, 44], 9)));
    net.run_for(secs(10)).unwrap();
    net.trace().hash()
}

#[test]
fn equal_seeds_give_equal_runs() {
    net_sim::seeds!(3, |seed| {
        let hash = busy_run(seed);
        assert_eq!(hash, busy_run(seed));
        assert_ne!(hash, busy_run(seed + 1));
    });
}

#[test]
fn a_message_that_is_acknowledged_and_lost_is_noticed() {
    net_sim::seeds!(3, |seed| {
        for is_ordered in [true, false] {
            let mut net = nodes(seed, bad_link(), 2);
            dial(&mut net, A, 2);
            net.run_for(secs(3)).unwrap();
            act(&mut net, B, |n, _| n.loses_message = Some(4));
            let sent = messages(seed, [700; 10]);
            act(&mut net, A, |n, now| {
                n.send_all(
                    now,
                    2,
                    if is_ordered { ordered(1 << 16) } else { reliable(1 << 16) },
                    &sent,
                );
            });
            let waits = catch_unwind(AssertUnwindSafe(|| {
                run_until_received(&mut net, B, sent.len(), secs(30));
            }));
            assert!(waits.is_err(), "the wait for all messages must fail");
            let got = node(&net, B).messages.clone();
            assert_eq!(got.len(), sent.len() - 1);
            let compares = catch_unwind(|| assert_same_messages(&sent, &got, is_ordered));
            assert!(compares.is_err(), "a missing message");
            // The other faults that the comparison is there for.
            let mut damaged = sent.clone();
            damaged[5] = messages(seed + 1, [700]).remove(0);
            let mut swapped = sent.clone();
            swapped.swap(2, 3);
            let mut repeated = sent.clone();
            repeated[6] = repeated[7].clone();
            for (faulty, must_fail) in
                [(damaged, true), (repeated, true), (swapped, is_ordered), (sent.clone(), false)]
            {
                let result = catch_unwind(|| assert_same_messages(&sent, &faulty, is_ordered));
                assert_eq!(result.is_err(), must_fail);
            }
        }
    });
}
