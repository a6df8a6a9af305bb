//! The life of streams, their limits, and how they share a session.

use bytes::Bytes;
use net_mesh_core::{
    Class, DropReason, OpenError, ResetReason, SendError, SessionEvent, StreamConfig, StreamEvent,
};
use net_sim::{HostId, LinkConfig, SimRng};
use net_types::StreamId;
use net_types::limits::{
    MAX_MESSAGE_BYTES, MAX_PEER_STREAMS, MAX_PEER_WINDOW_BYTES, MAX_SESSION_QUEUE_BYTES,
    MAX_STREAM_QUEUE_PACKETS, MAX_STREAM_WINDOW_BYTES, MAX_STREAMS,
};

use crate::node::of_stream;
use crate::world::{
    A, B, Net, act, agree, assert_quiet, assert_same_messages, bad_link, connected,
    fire_and_forget, message, messages, millis, node, ordered, reliable, run_until_received, secs,
};

fn has_event(net: &Net, id: HostId, event: &SessionEvent) -> bool {
    node(net, id).session_events().any(|e| e == event)
}

fn resets(net: &Net, id: HostId) -> Vec<(StreamId, ResetReason, bool)> {
    let one = |e: &SessionEvent| match e {
        SessionEvent::Stream {
            stream_id, event: StreamEvent::Reset { reason, by_peer }, ..
        } => Some((*stream_id, *reason, *by_peer)),
        _ => None,
    };
    node(net, id).session_events().filter_map(one).collect()
}

fn open_streams(net: &Net, id: HostId) -> usize {
    let session = *node(net, id).connections().last().unwrap();
    node(net, id).endpoint.session_stats(session).unwrap().streams
}

fn send(net: &mut Net, id: HostId, stream: StreamId, m: &Bytes) -> Result<(), SendError> {
    act(net, id, |n, now| {
        let session = n.session_with(2 - id.0 as u8).unwrap();
        n.endpoint.send(now, session, stream, m.clone())
    })
}

fn finish(net: &mut Net, id: HostId, stream: StreamId) {
    act(net, id, |n, now| {
        let session = n.session_with(2 - id.0 as u8).unwrap();
        n.endpoint.finish_stream(now, session, stream);
    });
}

fn reset(net: &mut Net, id: HostId, stream: StreamId) {
    act(net, id, |n, now| {
        let session = n.session_with(2 - id.0 as u8).unwrap();
        n.endpoint.reset_stream(now, session, stream, ResetReason::Closed);
    });
}

fn slow_link(bytes_per_s: u64) -> LinkConfig {
    LinkConfig {
        rate_bytes_per_s: Some(bytes_per_s),
        queue_bytes: 64 << 10,
        ..LinkConfig::with_latency(millis(5))
    }
}

/// Bytes of messages that arrived at `B`, by stream.
fn arrived(net: &Net, stream: StreamId) -> usize {
    let session = node(net, B).connections()[0];
    let messages = node(net, B).by_stream.get(&(session, stream));
    messages.map_or(0, |list| list.iter().map(Bytes::len).sum())
}

#[test]
fn a_finished_half_leaves_the_other_one_usable() {
    net_sim::seeds!(10, |seed| {
        let mut net = connected(seed, bad_link());
        act(&mut net, B, |n, _| n.finishes_in_return = false);
        let question = messages(seed, [100, 3_000]);
        let answer = messages(seed + 1, [50_000, 7, 900]);
        let stream = act(&mut net, A, |n, now| n.send_all(now, 2, ordered(1 << 16), &question));
        finish(&mut net, A, stream);
        assert_eq!(send(&mut net, A, stream, &question[0]), Err(SendError::StreamClosed));
        let finished = of_stream(stream, StreamEvent::Finished);
        let flushed = of_stream(stream, StreamEvent::Flushed);
        net.run_until(secs(10), |net| has_event(net, B, &finished)).unwrap();
        net.run_until(secs(10), |net| has_event(net, A, &flushed)).unwrap();
        net.run_for(secs(2)).unwrap();
        for m in &answer {
            send(&mut net, B, stream, m).unwrap();
        }
        net.run_until(secs(10), |net| node(net, A).messages.len() == 3).unwrap();
        assert!(!has_event(&net, A, &finished));
        finish(&mut net, B, stream);
        net.run_until(secs(10), |net| has_event(net, A, &finished)).unwrap();
        net.run_until(secs(10), |net| has_event(net, B, &flushed)).unwrap();
        net.run_for(secs(15)).unwrap();
        assert_same_messages(&question, &node(&net, B).messages, true);
        assert_same_messages(&answer, &node(&net, A).messages, true);
        for id in [A, B] {
            let events = node(&net, id).session_events();
            let ends = events.filter(|e| **e == finished || **e == flushed).count();
            assert_eq!(ends, 2, "each end is told once");
        }
        assert_quiet(&net);
    });
}

#[test]
fn many_short_streams_open_and_end_in_both_directions() {
    net_sim::seeds!(4, |seed| {
        let mut net = connected(seed, bad_link());
        let sent =
            [A, B].map(|id| messages(seed + id.0 as u64, (0..400).map(|i| (i * 37) % 3_000)));
        for (id, i, list) in [(A, 2, &sent[0]), (B, 1, &sent[1])] {
            for m in list {
                act(&mut net, id, |n, now| {
                    let config =
                        StreamConfig { class: Class::BY_URGENCY[m.len() % 3], ..reliable(1 << 16) };
                    let stream = n.send_all(now, i, config, core::slice::from_ref(m));
                    let session = n.session_with(i).unwrap();
                    n.endpoint.finish_stream(now, session, stream);
                });
            }
        }
        net.run_for(secs(90)).unwrap();
        assert_same_messages(&sent[0], &node(&net, B).messages, false);
        assert_same_messages(&sent[1], &node(&net, A).messages, false);
        assert_quiet(&net);
    });
}

#[test]
fn a_reset_reaches_the_peer_even_if_its_packet_is_lost() {
    net_sim::seeds!(10, |seed| {
        // The peer only waits; nothing it sends would ask what became of the stream.
        let mut net = connected(seed, bad_link());
        let question = messages(seed, [100]);
        let stream = act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 16), &question));
        run_until_received(&mut net, B, 1, secs(5));
        net.run_for(secs(2)).unwrap();
        let (a, b) = (net.addr(A), net.addr(B));
        net.network().partition(&[a], &[b]);
        reset(&mut net, B, stream);
        net.run_for(millis(500)).unwrap();
        net.network().heal_all();
        net.run_until(secs(10), |net| !resets(net, A).is_empty()).unwrap();
        assert_eq!(resets(&net, A), [(stream, ResetReason::Closed, true)]);
        assert_eq!(resets(&net, B), [(stream, ResetReason::Closed, false)]);
        net.run_for(secs(15)).unwrap();
        assert_quiet(&net);
        assert_eq!(resets(&net, A).len() + resets(&net, B).len(), 2);
    });
}

#[test]
fn resets_of_both_sides_and_of_streams_that_never_arrived_leave_nothing() {
    net_sim::seeds!(40, |seed| {
        let mut net = connected(seed, bad_link());
        let mut rng = SimRng::new(seed, "resets");
        let mut streams = Vec::new();
        for i in 0..30 {
            let m = message(seed + i, 1 + rng.below(5_000) as usize);
            let stream = act(&mut net, A, |n, now| n.send_all(now, 2, ordered(1 << 16), &[m]));
            streams.push(stream);
            if rng.chance(300_000) {
                net.run_for(millis(rng.below(60))).unwrap();
            }
        }
        for stream in streams {
            match rng.below(4) {
                0 => reset(&mut net, A, stream),
                1 => reset(&mut net, B, stream),
                2 => {
                    reset(&mut net, B, stream);
                    reset(&mut net, A, stream);
                }
                _ => finish(&mut net, A, stream),
            }
            net.run_for(millis(rng.below(20))).unwrap();
        }
        net.run_for(secs(60)).unwrap();
        let gave_up = [A, B].iter().flat_map(|id| resets(&net, *id));
        assert_eq!(gave_up.filter(|r| r.1 == ResetReason::GaveUp).count(), 0);
        // What B could not reset because it was not open yet ended by A's finish or stays open.
        let left = [A, B].map(|id| open_streams(&net, id));
        assert_eq!(left[0], left[1], "both sides have the same streams");
        assert!(agree(&net));
    });
}

#[test]
fn the_last_acknowledgement_may_be_lost_and_is_repeated() {
    net_sim::seeds!(10, |seed| {
        let mut net = connected(seed, LinkConfig::with_latency(millis(10)));
        let sent = messages(seed, [100]);
        let stream = act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 16), &sent));
        finish(&mut net, A, stream);
        // B gets the end, ends its own half and then cannot tell that it got everything.
        let finished = of_stream(stream, StreamEvent::Finished);
        net.run_until(secs(1), |net| has_event(net, A, &finished)).unwrap();
        let (a, b) = (net.addr(A), net.addr(B));
        net.network().cut_one_way(a, b);
        net.run_for(millis(200)).unwrap();
        net.network().heal_all();
        net.run_for(secs(4)).unwrap();
        assert_quiet(&net);
        let opened = |e: &&SessionEvent| {
            matches!(e, SessionEvent::Stream { event: StreamEvent::Opened { .. }, .. })
        };
        assert_eq!(node(&net, B).session_events().filter(opened).count(), 1);
        assert_same_messages(&sent, &node(&net, B).messages, true);
    });
}

#[test]
fn a_peer_may_open_so_many_streams_and_no_more() {
    net_sim::seeds!(1, |seed| {
        let mut net = connected(seed, LinkConfig::with_latency(millis(1)));
        let m = message(seed, 10);
        let streams: Vec<_> = (0..MAX_PEER_STREAMS + 50)
            .map(|_| {
                act(&mut net, A, |n, now| {
                    n.send_all(now, 2, reliable(1 << 16), core::slice::from_ref(&m))
                })
            })
            .collect();
        net.run_for(secs(3)).unwrap();
        assert_eq!(node(&net, B).messages.len(), MAX_PEER_STREAMS);
        let refused = resets(&net, A);
        assert_eq!(refused.len(), 50);
        assert!(refused.iter().all(|r| r.1 == ResetReason::TooMany && r.2));
        assert_eq!(
            (open_streams(&net, A), open_streams(&net, B)),
            (MAX_PEER_STREAMS, MAX_PEER_STREAMS)
        );
        // The peer's own streams are not affected, and a stream that ends makes room.
        act(&mut net, B, |n, now| n.send_all(now, 1, reliable(1 << 16), core::slice::from_ref(&m)));
        finish(&mut net, A, streams[0]);
        net.run_for(secs(1)).unwrap();
        act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 16), core::slice::from_ref(&m)));
        run_until_received(&mut net, B, MAX_PEER_STREAMS + 1, secs(1));
        assert_eq!(node(&net, A).messages.len(), 1);
        // This side's own limit.
        act(&mut net, A, |n, now| {
            let session = n.session_with(2).unwrap();
            let mut opened = 0;
            while n.endpoint.open_stream(now, session, reliable(1)).is_ok() {
                opened += 1;
            }
            assert!(opened < MAX_STREAMS);
            let error = n.endpoint.open_stream(now, session, reliable(1));
            assert_eq!(error, Err(OpenError::TooManyStreams));
        });
    });
}

#[test]
fn a_peer_without_room_for_a_stream_loses_the_one_idle_longest() {
    net_sim::seeds!(1, |seed| {
        let mut net = connected(seed, LinkConfig::with_latency(millis(1)));
        let m = message(seed, 10);
        let open = |net: &mut Net| {
            act(net, A, |n, now| n.send_all(now, 2, reliable(1 << 16), core::slice::from_ref(&m)))
        };
        // Messages of the first stay unread.
        act(&mut net, B, |n, _| n.is_reading = false);
        let first = open(&mut net);
        run_until_received(&mut net, B, 1, secs(1));
        act(&mut net, B, |n, _| n.is_reading = true);
        let streams: Vec<_> = (1..MAX_PEER_STREAMS).map(|_| open(&mut net)).collect();
        net.run_for(secs(20)).unwrap();
        // The second is used again.
        send(&mut net, A, streams[0], &m).unwrap();
        net.run_for(secs(9)).unwrap();
        open(&mut net);
        net.run_for(secs(1)).unwrap();
        // No stream was idle long enough.
        let too_many = |net: &Net| {
            let resets = resets(net, A).into_iter().filter(|r| r.1 == ResetReason::TooMany && r.2);
            resets.map(|r| r.0).collect::<Vec<_>>()
        };
        assert_eq!(too_many(&net).len(), 1);
        net.run_for(secs(2)).unwrap();
        let last = open(&mut net);
        net.run_for(secs(1)).unwrap();
        assert_eq!(too_many(&net)[1..], [streams[1]]);
        for stream in [first, streams[0], last] {
            send(&mut net, A, stream, &m).unwrap();
        }
        net.run_for(secs(1)).unwrap();
        assert_eq!(too_many(&net).len(), 2);
        assert_eq!(open_streams(&net, B), MAX_PEER_STREAMS);
    });
}

#[test]
fn what_a_peer_can_have_unread_is_bounded_whatever_windows_it_names() {
    net_sim::seeds!(1, |seed| {
        let mut net = connected(seed, LinkConfig::with_latency(millis(1)));
        let m = message(seed, 10);
        let fit = MAX_PEER_WINDOW_BYTES / MAX_STREAM_WINDOW_BYTES as usize;
        let open = |net: &mut Net, window| {
            act(net, A, |n, now| n.send_all(now, 2, reliable(window), core::slice::from_ref(&m)))
        };
        let streams: Vec<_> =
            (0..fit + 3).map(|_| open(&mut net, MAX_STREAM_WINDOW_BYTES)).collect();
        net.run_for(secs(1)).unwrap();
        assert_eq!(open_streams(&net, B), fit);
        assert_eq!(resets(&net, A).len(), 3);
        // One that ends gives its window back.
        reset(&mut net, A, streams[0]);
        net.run_for(secs(1)).unwrap();
        open(&mut net, MAX_STREAM_WINDOW_BYTES);
        net.run_for(secs(1)).unwrap();
        assert_eq!(open_streams(&net, B), fit);
        assert_eq!(resets(&net, A).len(), 4);
    });
}

#[test]
fn senseless_parameters_are_refused() {
    let mut net = connected(1, LinkConfig::default());
    act(&mut net, A, |n, now| {
        let session = n.session_with(2).unwrap();
        for (config, name) in [
            (StreamConfig { weight: 0, ..reliable(1) }, "weight"),
            (reliable(0), "window_bytes"),
            (reliable(u32::MAX), "window_bytes"),
        ] {
            let error = n.endpoint.open_stream(now, session, config);
            assert_eq!(error, Err(OpenError::Config { field: name }));
        }
        let stream = n.endpoint.open_stream(now, session, reliable(1 << 16)).unwrap();
        let too_long = Bytes::from(vec![0; MAX_MESSAGE_BYTES + 1]);
        let result = n.endpoint.send(now, session, stream, too_long);
        assert_eq!(result, Err(SendError::TooLarge));
        let result = n.endpoint.send(now, session, StreamId(99), Bytes::new());
        assert_eq!(result, Err(SendError::StreamClosed));
        let result = n.endpoint.send(now, net_types::SessionId(9), stream, Bytes::new());
        assert_eq!(result, Err(SendError::SessionClosed));
    });
}

#[test]
fn a_full_queue_refuses_and_tells_when_there_is_room() {
    net_sim::seeds!(3, |seed| {
        let mut net = connected(seed, slow_link(4 << 20));
        let stream = act(&mut net, A, |n, now| n.send_all(now, 2, ordered(1 << 20), &[]));
        let m = message(seed, 1_100);
        let mut sent = 0;
        let writable = of_stream(stream, StreamEvent::Writable);
        for _ in 0..3 {
            while send(&mut net, A, stream, &m).is_ok() {
                sent += 1;
            }
            assert!(sent >= MAX_STREAM_QUEUE_PACKETS);
            assert_eq!(send(&mut net, A, stream, &m), Err(SendError::Backpressure));
            act(&mut net, A, |n, _| n.events.clear());
            net.run_until(secs(5), |net| has_event(net, A, &writable)).unwrap();
            assert!(send(&mut net, A, stream, &m).is_ok());
            sent += 1;
        }
        run_until_received(&mut net, B, sent, secs(60));
        let told = node(&net, A).session_events().filter(|e| **e == writable).count();
        assert_eq!(told, 1, "told once for each refusal");
    });
}

#[test]
fn a_stream_refused_for_the_sessions_queue_hears_of_room_too() {
    net_sim::seeds!(1, |seed| {
        let mut net = connected(seed, LinkConfig::with_latency(millis(1)));
        let big = message(seed, MAX_MESSAGE_BYTES);
        let small = message(seed, 1_000);
        let other = act(&mut net, A, |n, now| n.send_all(now, 2, reliable(1 << 20), &[]));
        let stream = act(&mut net, A, |n, now| n.send_all(now, 2, reliable(4 << 20), &[]));
        let mut queued = 0;
        while send(&mut net, A, stream, &big).is_ok() {
            queued += 1;
        }
        assert_eq!(queued, MAX_SESSION_QUEUE_BYTES / MAX_MESSAGE_BYTES);
        assert_eq!(send(&mut net, A, other, &small), Err(SendError::Backpressure));
        let writable = of_stream(other, StreamEvent::Writable);
        net.run_until(secs(60), |net| has_event(net, A, &writable)).unwrap();
        assert!(send(&mut net, A, other, &small).is_ok());
        // A reset makes room as well.
        while send(&mut net, A, stream, &big).is_ok() {}
        assert_eq!(send(&mut net, A, other, &big), Err(SendError::Backpressure));
        act(&mut net, A, |n, _| n.events.clear());
        reset(&mut net, A, stream);
        net.run_for(millis(1)).unwrap();
        assert!(has_event(&net, A, &writable));
    });
}

#[test]
fn streams_of_a_class_share_by_weight() {
    net_sim::seeds!(3, |seed| {
        let mut net = connected(seed, slow_link(2 << 20));
        let list = messages(seed, [1_000; 4_000]);
        let streams = [8, 16, 48].map(|weight| {
            let config = StreamConfig { weight, ..reliable(8 << 20) };
            let stream = act(&mut net, A, |n, now| n.send_all(now, 2, config, &[]));
            // Queued alike, whatever the path's size is meanwhile.
            for m in &list {
                if send(&mut net, A, stream, m).is_err() {
                    break;
                }
            }
            stream
        });
        net.run_for(millis(500)).unwrap();
        let got = streams.map(|s| arrived(&net, s) as f64);
        assert!(got[0] > 0.0);
        for (i, share) in [(1, 2.0), (2, 6.0)] {
            let ratio = got[i] / got[0];
            assert!((ratio / share - 1.0).abs() < 0.25, "{ratio} instead of {share}: {got:?}");
        }
    });
}

#[test]
fn urgent_classes_go_first_and_the_others_are_not_starved() {
    net_sim::seeds!(3, |seed| {
        let mut net = connected(seed, slow_link(2 << 20));
        let list = messages(seed, [1_000; 900]);
        let mut streams = Class::BY_URGENCY;
        streams.reverse();
        let mut streams = streams.map(|class| {
            let config = StreamConfig { class, ..reliable(8 << 20) };
            act(&mut net, A, |n, now| n.send_all(now, 2, config, &list))
        });
        streams.reverse();
        let total: usize = list.iter().map(Bytes::len).sum();
        net.run_until(secs(20), |net| arrived(net, streams[0]) == total).unwrap();
        let got = streams.map(|s| arrived(&net, s));
        assert!(got[1] > total / 40 && got[1] < total / 5, "foreground beside realtime: {got:?}");
        assert!(got[2] > 0, "background beside both: {got:?}");
        let before = got[2];
        net.run_until(secs(20), |net| arrived(net, streams[1]) == total).unwrap();
        let during = arrived(&net, streams[2]) - before;
        assert!(during > total / 40 && during < total / 5, "background: {during} of {total}");
        net.run_until(secs(20), |net| arrived(net, streams[2]) == total).unwrap();
    });
}

#[test]
fn an_idle_lower_class_does_not_stall_an_urgent_one() {
    net_sim::seeds!(3, |seed| {
        let mut net = connected(seed, LinkConfig::with_latency(millis(5)));
        let list = messages(seed, [1_000; 100]);
        act(&mut net, A, |n, now| {
            n.send_all(now, 2, StreamConfig::default(), &list[..1]);
            let config = StreamConfig { class: Class::Realtime, ..reliable(1 << 20) };
            n.send_all(now, 2, config, &list[1..]);
        });
        // Eight round trips of slow start at most; a stall would wait for a timer.
        net.run_for(millis(80)).unwrap();
        assert_same_messages(&list, &node(&net, B).messages, false);
    });
}

#[test]
fn partly_received_messages_are_bounded_and_given_up() {
    net_sim::seeds!(2, |seed| {
        let link = LinkConfig { loss_ppm: 150_000, ..LinkConfig::with_latency(millis(2)) };
        let mut net = connected(seed, link);
        let stream = act(&mut net, A, |n, now| n.send_all(now, 2, fire_and_forget(), &[]));
        // Messages of twenty packets rarely arrive; their parts must not pile up.
        for i in 0..200 {
            let m = message(seed + i, 20_000);
            let _ = send(&mut net, A, stream, &m);
            net.run_for(millis(50)).unwrap();
        }
        assert!(node(&net, B).drops(DropReason::Reassembly) > 20);
        let got = &node(&net, B).messages;
        assert!(got.iter().all(|m| m.len() == 20_000));
        finish(&mut net, A, stream);
        net.run_for(secs(60)).unwrap();
        assert_quiet(&net);
    });
}
