//! Acknowledgements cost few packets and hold up no sender.

use std::time::Duration;

use net_mesh_core::StreamConfig;
use net_sim::{HostId, LinkConfig};
use net_types::StreamId;
use net_types::limits::{ACK_DELAY, INITIAL_CWND_PACKETS};

use crate::world::{
    A, B, Net, act, connected, fire_and_forget, message, messages, millis, node, reliable,
    run_until_received, secs,
};

/// Two nodes that found the path's packet size and have nothing more to say.
fn settled(seed: u64, latency: Duration) -> Net {
    let mut net = connected(seed, LinkConfig::with_latency(latency));
    net.run_for(secs(5)).unwrap();
    net
}

fn packets(net: &Net) -> u64 {
    [A, B].iter().map(|id| node(net, *id).counters().packets_out).sum()
}

fn resends(net: &Net) -> u64 {
    let of = |id: HostId| {
        let c = node(net, id).counters();
        c.retransmits_nack + c.retransmits_timeout
    };
    of(A) + of(B)
}

/// Sends a message from `from` on a stream that is open and waits until it is there.
fn tell(net: &mut Net, from: HostId, stream: StreamId, seed: u64) {
    let to = if from == A { B } else { A };
    let expected = node(net, to).messages.len() + 1;
    act(net, from, |n, now| {
        let session = n.session_with(2 - from.0 as u8).unwrap();
        n.endpoint.send(now, session, stream, message(seed, 100)).unwrap();
    });
    run_until_received(net, to, expected, secs(5));
}

/// Packets of `count` requests, each answered `service_time` after it came.
fn packets_of_calls(net: &mut Net, count: u64, service_time: Duration) -> u64 {
    let stream = act(net, A, |n, now| n.send_all(now, 2, reliable(64 << 10), &[]));
    tell(net, A, stream, 0);
    tell(net, B, stream, 0);
    let before = packets(net);
    for seed in 0..count {
        tell(net, A, stream, seed);
        net.run_for(service_time).unwrap();
        tell(net, B, stream, seed);
    }
    packets(net) - before
}

#[test]
fn a_call_costs_a_packet_each_way_when_the_answer_takes_some_milliseconds() {
    net_sim::seeds!(2, |seed| {
        for latency in [Duration::from_micros(50), millis(1), millis(30)] {
            for service_time in [Duration::ZERO, millis(5), millis(20)] {
                let mut net = settled(seed, latency);
                let packets = packets_of_calls(&mut net, 100, service_time);
                assert!((200..=202).contains(&packets), "{packets} packets");
                assert_eq!(resends(&net), 0);
            }
        }
    });
}

#[test]
fn waiting_for_a_late_answer_costs_one_acknowledgement_and_no_resend() {
    net_sim::seeds!(2, |seed| {
        for latency in [Duration::from_micros(50), millis(1), millis(30)] {
            let mut net = settled(seed, latency);
            let packets = packets_of_calls(&mut net, 100, millis(200));
            assert!((300..=302).contains(&packets), "{packets} packets");
            assert_eq!(resends(&net), 0);
        }
    });
}

#[test]
fn a_flight_of_small_packets_does_not_wait_for_the_delay() {
    net_sim::seeds!(2, |seed| {
        let mut net = settled(seed, millis(1));
        let count = 6 * INITIAL_CWND_PACKETS as usize;
        // A stream each, so that they share no packets.
        for m in messages(seed, (0..count).map(|_| 100)) {
            act(&mut net, A, |n, now| n.send_all(now, 2, StreamConfig::default(), &[m]));
        }
        run_until_received(&mut net, B, count, ACK_DELAY);
        assert_eq!(resends(&net), 0);
    });
}

#[test]
fn a_sender_that_uses_up_its_credit_does_not_wait_for_the_delay() {
    net_sim::seeds!(2, |seed| {
        for (window, len) in [(600, 100), (4 << 10, 1_000), (20 << 10, 3_000)] {
            for config in
                [reliable(window), StreamConfig { window_bytes: window, ..fire_and_forget() }]
            {
                let mut net = settled(seed, millis(1));
                let sent = messages(seed, (0..60).map(|_| len));
                act(&mut net, A, |n, now| n.send_all(now, 2, config, &sent));
                // At the worst a message each round trip of 2 ms.
                run_until_received(&mut net, B, 60, millis(2) * 61);
                assert_eq!(resends(&net), 0);
            }
        }
    });
}

#[test]
fn a_series_of_fragments_is_acknowledged_at_most_every_other_packet_and_never_waits() {
    net_sim::seeds!(2, |seed| {
        let mut net = settled(seed, millis(1));
        let before = [A, B].map(|id| node(&net, id).counters().packets_out);
        act(&mut net, A, |n, now| n.send_all(now, 2, reliable(8 << 20), &[message(seed, 2 << 20)]));
        run_until_received(&mut net, B, 1, ACK_DELAY);
        let [data, acks] = [A, B].map(|id| node(&net, id).counters().packets_out - before[id.0]);
        assert!(acks > 0 && acks <= data / 2, "{acks} for {data} packets");
        assert_eq!(resends(&net), 0);
    });
}
