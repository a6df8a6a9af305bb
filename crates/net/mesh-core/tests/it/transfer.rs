//! Messages arrive whole and once, whatever the network does.

use bytes::Bytes;
use net_mesh_core::{DropReason, SessionEvent, StreamConfig, StreamEvent};
use net_sim::LinkConfig;
use net_types::limits::{MAX_MESSAGE_BYTES, MAX_STREAM_WINDOW_BYTES};

use crate::node::{SimNode, of_stream};
use crate::world::{
    A, B, Net, act, assert_quiet, assert_same_messages, bad_link, connected, fire_and_forget,
    message, messages, millis, node, ordered, reliable, run_until_received, secs,
};

#[test]
fn mixed_messages_arrive_byte_exact_and_in_order_at_ten_percent_loss() {
    net_sim::seeds!(12, |seed| {
        let mut net = connected(seed, bad_link());
        let sent = messages(seed, (0..40).map(|i| [3, 500, 30_000, 200_000][i % 4]));
        let stream = act(&mut net, A, |n, now| {
            let stream = n.send_all(now, 2, ordered(256 << 10), &sent);
            let session = n.session_with(2).unwrap();
            n.endpoint.finish_stream(now, session, stream);
            stream
        });
        let flushed = of_stream(stream, StreamEvent::Flushed);
        net.run_until(secs(300), |net| node(net, A).session_events().any(|e| *e == flushed))
            .unwrap();
        net.run_for(secs(20)).unwrap();
        assert_same_messages(&sent, &node(&net, B).messages, true);
        assert_quiet(&net);
    });
}

#[test]
fn both_directions_and_both_modes_share_a_bad_path() {
    net_sim::seeds!(8, |seed| {
        let mut net = connected(seed, bad_link());
        let lens = |i: usize| [20, 1_100, 1_150, 9_000, 70_000][i % 5];
        let sent = [A, B].map(|id| {
            let sent = messages(seed + id.0 as u64, (0..60).map(lens));
            act(&mut net, id, |n, now| {
                let other = 2 - id.0 as u8;
                n.send_all(now, other, ordered(64 << 10), &sent[..30]);
                n.send_all(now, other, reliable(64 << 10), &sent[30..]);
            });
            sent
        });
        for (id, sent) in [(B, &sent[0]), (A, &sent[1])] {
            run_until_received(&mut net, id, 60, secs(300));
            assert_same_messages(sent, &node(&net, id).messages, false);
            let streams: Vec<_> = node(&net, id).by_stream.values().collect();
            assert_same_messages(&sent[..30], streams[0], true);
        }
    });
}

#[test]
fn the_largest_message_arrives_through_any_window() {
    net_sim::seeds!(1, |seed| {
        for window in [64 << 10, 1 << 20, MAX_STREAM_WINDOW_BYTES] {
            let mut net = connected(seed, LinkConfig::with_latency(millis(1)));
            let sent = [message(seed, MAX_MESSAGE_BYTES)];
            act(&mut net, A, |n, now| n.send_all(now, 2, reliable(window), &sent));
            run_until_received(&mut net, B, 1, secs(60));
            assert_same_messages(&sent, &node(&net, B).messages, true);
        }
    });
}

/// Sends the largest message on each of five streams: more than the receiver has room for.
fn fill_the_receiver(seed: u64, link: LinkConfig, config: StreamConfig) {
    let mut net = connected(seed, link);
    let sent = messages(seed, [MAX_MESSAGE_BYTES; 5]);
    let streams: Vec<_> =
        sent.iter().map(|_| act(&mut net, A, |n, now| n.send_all(now, 2, config, &[]))).collect();
    for (stream, m) in streams.iter().zip(&sent) {
        let mut is_queued = false;
        for _ in 0..30_000 {
            is_queued = act(&mut net, A, |n, now| {
                let session = n.session_with(2).unwrap();
                n.endpoint.send(now, session, *stream, m.clone()).is_ok()
            });
            if is_queued {
                break;
            }
            net.run_for(millis(10)).unwrap();
        }
        assert!(is_queued, "the queue never has room");
    }
    run_until_received(&mut net, B, sent.len(), secs(300));
    assert_same_messages(&sent, &node(&net, B).messages, false);
    assert_eq!(node(&net, B).drops(DropReason::Reassembly), 0, "sent without room for it");
}

#[test]
fn more_messages_than_the_receiver_has_room_for_all_arrive() {
    net_sim::seeds!(1, |seed| {
        for config in [reliable(MAX_STREAM_WINDOW_BYTES), ordered(1 << 20)] {
            fill_the_receiver(seed, LinkConfig::with_latency(millis(1)), config);
        }
    });
}

#[test]
fn more_messages_than_the_receiver_has_room_for_all_arrive_in_spite_of_loss() {
    net_sim::seeds!(1, |seed| {
        let link = LinkConfig { loss_ppm: 10_000, ..LinkConfig::with_latency(millis(1)) };
        fill_the_receiver(seed, link, reliable(4 << 20));
    });
}

#[test]
fn a_message_of_megabytes_above_the_window_survives_loss() {
    net_sim::seeds!(2, |seed| {
        let mut net = connected(seed, bad_link());
        let sent = messages(seed, [4 << 20, 10, 1 << 20]);
        act(&mut net, A, |n, now| n.send_all(now, 2, reliable(256 << 10), &sent));
        run_until_received(&mut net, B, 3, secs(300));
        assert_same_messages(&sent, &node(&net, B).messages, false);
    });
}

#[test]
fn tiny_windows_make_progress() {
    net_sim::seeds!(4, |seed| {
        for window in [1, 100, 600, 2 << 10] {
            for config in [ordered(window), reliable(window)] {
                let mut net = connected(seed, bad_link());
                let sent = messages(seed, [5, 700, 1, 3_000, 0, 20_000, 900]);
                act(&mut net, A, |n, now| n.send_all(now, 2, config, &sent));
                run_until_received(&mut net, B, sent.len(), secs(120));
                let is_ordered = config.mode.is_ordered;
                assert_same_messages(&sent, &node(&net, B).messages, is_ordered);
            }
        }
    });
}

#[test]
fn a_lossless_path_sees_no_resends() {
    net_sim::seeds!(4, |seed| {
        let link = LinkConfig {
            rate_bytes_per_s: Some(2 << 20),
            queue_bytes: 64 << 20,
            jitter: millis(3),
            ..LinkConfig::with_latency(millis(20))
        };
        let mut net = connected(seed, link);
        let sent = messages(seed, [2 << 20, 1_000, 1 << 20]);
        act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 20), &sent));
        run_until_received(&mut net, B, 3, secs(60));
        let counters = node(&net, A).counters();
        assert_eq!((counters.retransmits_nack, counters.retransmits_timeout), (0, 0));
        assert_eq!(node(&net, B).drops(DropReason::DuplicatePacket), 0);
    });
}

#[test]
fn a_burst_of_losses_is_made_good_in_a_few_round_trips() {
    net_sim::seeds!(3, |seed| {
        // Slow start overshoots a queue that holds a fraction of the stream's window: hundreds of
        // packets are missing, more than one report of gaps holds.
        let rate = 10 << 20;
        let link =
            LinkConfig { rate_bytes_per_s: Some(rate), ..LinkConfig::with_latency(millis(10)) };
        let mut net = connected(seed, link);
        let sent = messages(seed, [8 << 20]);
        let started = net.now();
        act(&mut net, A, |n, now| n.send_all(now, 2, reliable(4 << 20), &sent));
        run_until_received(&mut net, B, 1, secs(10));
        let counters = node(&net, A).counters();
        assert!(counters.retransmits_nack > 200, "{} losses", counters.retransmits_nack);
        assert_eq!(counters.retransmits_timeout, 0);
        let took = net.now().since(started);
        assert!(took < millis(1_100), "{took:?} for what the path carries in 800 ms");
    });
}

#[test]
fn a_flight_whose_acknowledgements_are_lost_does_not_close_the_window() {
    net_sim::seeds!(3, |seed| {
        let mut net = connected(seed, LinkConfig::with_latency(millis(20)));
        net.run_for(secs(1)).unwrap();
        let sent = messages(seed, [60_000, 60_000]);
        let stream = act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 20), &sent[..1]));
        run_until_received(&mut net, B, 1, secs(1));
        net.run_for(secs(1)).unwrap();
        let window = |net: &Net| {
            let n = node(net, A);
            n.endpoint.session_stats(n.session_with(2).unwrap()).unwrap().cwnd_packets
        };
        let before = window(&net);
        let (a, b) = (net.addr(A), net.addr(B));
        net.network().cut_one_way(b, a);
        act(&mut net, A, |n, now| {
            let session = n.session_with(2).unwrap();
            n.endpoint.send(now, session, stream, sent[1].clone()).unwrap();
        });
        run_until_received(&mut net, B, 2, secs(1));
        net.run_for(millis(30)).unwrap();
        net.network().heal_all();
        net.run_for(millis(200)).unwrap();
        assert!(window(&net) >= before, "{before} packets, then {}", window(&net));
        // The oldest packet and the newest asked; nothing else was sent again.
        assert_eq!(node(&net, A).counters().retransmits_timeout, 2);
        assert_eq!(node(&net, B).drops(DropReason::DuplicatePacket), 2);
    });
}

#[test]
fn little_is_sent_twice_at_ten_percent_loss() {
    net_sim::seeds!(4, |seed| {
        let link = LinkConfig { loss_ppm: 100_000, ..LinkConfig::with_latency(millis(10)) };
        let mut net = connected(seed, link);
        let sent = messages(seed, [6 << 20]);
        act(&mut net, A, |n, now| n.send_all(now, 2, reliable(4 << 20), &sent));
        run_until_received(&mut net, B, 1, secs(300));
        let resends = {
            let c = node(&net, A).counters();
            c.retransmits_nack + c.retransmits_timeout
        };
        let useless = node(&net, B).drops(DropReason::DuplicatePacket);
        assert!(useless * 3 <= resends, "{useless} of {resends} resends were useless");
        let packets = node(&net, A).counters().packets_out;
        assert!(resends * 4 <= packets, "{resends} resends in {packets} packets");
        // One report per loss, not one per packet.
        let nacks = node(&net, B).counters().packets_out;
        assert!(nacks <= packets, "{nacks} packets back for {packets}");
    });
}

#[test]
fn a_lost_grant_is_asked_for() {
    net_sim::seeds!(10, |seed| {
        let mut net = connected(seed, LinkConfig::with_latency(millis(10)));
        let sent = messages(seed, [900; 20]);
        act(&mut net, B, |n, _| n.is_reading = false);
        let stream = act(&mut net, A, |n, now| n.send_all(now, 2, reliable(2_000), &sent[..2]));
        run_until_received(&mut net, B, 2, secs(5));
        net.run_for(secs(1)).unwrap();
        // Everything is acknowledged and nothing consumed: what is queued now waits for credit.
        act(&mut net, A, |n, now| {
            let session = n.session_with(2).unwrap();
            for m in &sent[2..] {
                n.endpoint.send(now, session, stream, m.clone()).unwrap();
            }
        });
        net.run_for(secs(1)).unwrap();
        assert_eq!(node(&net, B).messages.len(), 2);
        // The grant is lost with all else on the way back.
        let (a, b) = (net.addr(A), net.addr(B));
        net.network().cut_one_way(b, a);
        act(&mut net, B, |n, now| n.read(now, None));
        net.run_for(millis(400)).unwrap();
        net.network().heal_all();
        run_until_received(&mut net, B, sent.len(), secs(10));
        assert_same_messages(&sent, &node(&net, B).messages, false);
    });
}

#[test]
fn a_reader_that_pauses_holds_up_the_sender_and_nothing_is_lost() {
    net_sim::seeds!(2, |seed| {
        for len in [300, 5_000, 40_000, 200_000] {
            let mut net = connected(seed, bad_link());
            act(&mut net, B, |n, _| n.is_reading = false);
            let sent = messages(seed, [len; 40]);
            act(&mut net, A, |n, now| n.send_all(now, 2, ordered(64 << 10), &sent));
            net.run_for(secs(30)).unwrap();
            let unread: usize = node(&net, B).messages.iter().map(Bytes::len).sum();
            let allowed = (64 << 10) + 3 * len;
            assert!(unread <= allowed, "{unread} bytes unread, {allowed} allowed");
            // A rest costs next to nothing: a probe every two seconds, heartbeats and answers.
            let before = node(&net, A).counters().packets_out;
            net.run_for(secs(60)).unwrap();
            let idle = node(&net, A).counters().packets_out - before;
            assert!(idle < 60 * 4, "{idle} packets in a minute of rest");
            for _ in 0..10 {
                act(&mut net, B, |n, now| n.read(now, Some(1)));
                net.run_for(millis(100)).unwrap();
            }
            act(&mut net, B, |n, now| n.read(now, None));
            run_until_received(&mut net, B, sent.len(), secs(400));
            assert_same_messages(&sent, &node(&net, B).messages, true);
        }
    });
}

#[test]
fn the_answering_side_has_the_window_that_the_opener_named() {
    net_sim::seeds!(3, |seed| {
        let mut net = connected(seed, LinkConfig::with_latency(millis(10)));
        act(&mut net, A, |n, _| n.is_reading = false);
        let stream =
            act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 20), &[Bytes::new()]));
        run_until_received(&mut net, B, 1, secs(1));
        let sent = messages(seed, [1_000; 600]);
        act(&mut net, B, |n, now| {
            let session = n.session_with(1).unwrap();
            for m in &sent {
                n.endpoint.send(now, session, stream, m.clone()).unwrap();
            }
        });
        // More than the default window, unread, without one packet refused.
        run_until_received(&mut net, A, 600, secs(5));
        assert_eq!(node(&net, A).drops(DropReason::BeyondWindow), 0);
        assert_same_messages(&sent, &node(&net, A).messages, false);
    });
}

#[test]
fn one_lost_packet_delays_only_the_messages_in_it() {
    net_sim::seeds!(10, |seed| {
        let mut net = connected(seed, LinkConfig::with_latency(millis(50)));
        let sent = messages(seed, [1_000; 10]);
        let (a, b) = (net.addr(A), net.addr(B));
        net.network().cut_one_way(a, b);
        let stream = act(&mut net, A, |n, now| n.send_all(now, 2, reliable(64 << 10), &sent[..1]));
        net.run_for(millis(1)).unwrap();
        net.network().heal_all();
        act(&mut net, A, |n, now| {
            let session = n.session_with(2).unwrap();
            for m in &sent[1..] {
                n.endpoint.send(now, session, stream, m.clone()).unwrap();
            }
        });
        net.run_for(millis(60)).unwrap();
        assert_same_messages(&sent[1..], &node(&net, B).messages, true);
        run_until_received(&mut net, B, 10, secs(2));
        assert_eq!(node(&net, B).messages[9], sent[0]);
    });
}

#[test]
fn fire_and_forget_loses_but_never_repeats_and_leaks_no_credit() {
    net_sim::seeds!(6, |seed| {
        let mut net = connected(seed, bad_link());
        let lens = |i: usize| [10, 1_000, 2_500][i % 3];
        let sent = messages(seed, (0..900).map(lens));
        let (stream, session) = act(&mut net, A, |n, now| {
            (n.send_all(now, 2, fire_and_forget(), &[]), n.session_with(2).unwrap())
        });
        for chunk in sent.chunks(30) {
            act(&mut net, A, |n, now| {
                for m in chunk {
                    n.endpoint.send(now, session, stream, m.clone()).unwrap();
                }
            });
            net.run_for(millis(200)).unwrap();
        }
        net.run_for(secs(2)).unwrap();
        act(&mut net, A, |n, now| n.endpoint.finish_stream(now, session, stream));
        net.run_for(secs(10)).unwrap();
        let got = &node(&net, B).messages;
        assert!(got.len() > 600 && got.len() < 890, "{} of 900", got.len());
        let mut unique: Vec<_> = got.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), got.len(), "a message came twice");
        assert!(unique.iter().all(|m| sent.contains(m)));
        let flushed = of_stream(stream, StreamEvent::Flushed);
        assert!(node(&net, A).session_events().any(|e| *e == flushed));
        net.run_for(secs(15)).unwrap();
        assert_quiet(&net);
    });
}

#[test]
fn a_fire_and_forget_stream_survives_a_long_outage() {
    net_sim::seeds!(3, |seed| {
        let mut net = connected(seed, LinkConfig::with_latency(millis(1)));
        let send = |n: &mut SimNode, now, stream, m: &Bytes| {
            let session = n.session_with(2).unwrap();
            n.endpoint.send(now, session, stream, m.clone())
        };
        let stream = act(&mut net, A, |n, now| n.send_all(now, 2, fire_and_forget(), &[]));
        let (a, b) = (net.addr(A), net.addr(B));
        net.network().partition(&[a], &[b]);
        for _ in 0..80 {
            act(&mut net, A, |n, now| while send(n, now, stream, &message(1, 1_100)).is_ok() {});
            net.run_for(millis(100)).unwrap();
        }
        net.network().heal_all();
        net.run_for(secs(30)).unwrap();
        let before = node(&net, B).messages.len();
        act(&mut net, A, |n, now| send(n, now, stream, &message(2, 10)).unwrap());
        run_until_received(&mut net, B, before + 1, secs(1));
    });
}

#[test]
fn give_up_resets_the_stream_and_spares_the_session() {
    net_sim::seeds!(3, |seed| {
        let mut net = connected(seed, LinkConfig::with_latency(millis(2)));
        let stream = act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 16), &[]));
        let (a, b) = (net.addr(A), net.addr(B));
        let sent = messages(seed, [10, 2_000, 30_000]);
        act(&mut net, A, |n, now| {
            let session = n.session_with(2).unwrap();
            for m in &sent {
                n.endpoint.send(now, session, stream, m.clone()).unwrap();
            }
        });
        // Data vanishes, everything else works: ten timeouts later the stream fails.
        net.network().cut_one_way(a, b);
        let gave_up = |e: &SessionEvent| {
            matches!(
                e,
                SessionEvent::Stream { event: StreamEvent::Reset { by_peer: false, .. }, .. }
            )
        };
        net.run_until(secs(14), |net| node(net, A).session_events().any(gave_up)).unwrap();
        let since = net.now().as_nanos() / 1_000_000_000;
        assert!(since >= 5, "gave up after {since} s");
        net.network().heal_all();
        let next = messages(seed + 1, [100, 50_000]);
        act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 16), &next));
        run_until_received(&mut net, B, 2, secs(10));
        assert_same_messages(&next, &node(&net, B).messages, false);
        assert_eq!(node(&net, A).connections().len(), 1, "the session is the first one");
    });
}
