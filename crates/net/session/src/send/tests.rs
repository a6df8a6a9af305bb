//! How a sending half cuts, sends, repeats and gives up.

use core::time::Duration;

use net_types::limits::MAX_RETRIES;
use net_wire::{Nack, StreamMode};

use super::*;

const CAP: usize = 1_134;

fn stream(window_bytes: u32) -> SendStream {
    SendStream::new(StreamConfig { window_bytes, ..StreamConfig::default() }, true)
}

fn push(s: &mut SendStream, len: usize) {
    s.queue_bytes(Bytes::from(vec![7; len]), CAP).unwrap();
}

#[test]
fn short_messages_share_a_packet_and_long_ones_are_cut() {
    let mut s = stream(1 << 20);
    (0..10).for_each(|_| push(&mut s, 32));
    push(&mut s, 3_000);
    let first = s.take(Instant::ZERO).unwrap();
    assert!(matches!(s.packet(first), Some((Body::Packed { events: 10, .. }, false))));
    let mut lens = Vec::new();
    while let Some(seq) = s.take(Instant::ZERO) {
        let Some((Body::Fragment { bytes, count: 3, .. }, _)) = s.packet(seq) else {
            panic!("a long message is cut into three")
        };
        lens.push(bytes.len());
    }
    assert_eq!(lens.iter().sum::<usize>(), 3_000);
    assert_eq!(s.queued_bytes(), 0);
}

#[test]
fn credit_limits_what_is_sent_but_never_blocks_an_idle_stream() {
    let mut s = stream(100);
    push(&mut s, 900);
    push(&mut s, 900);
    assert_eq!(s.take(Instant::ZERO), Some(0));
    assert_eq!(s.take(Instant::ZERO), None);
    assert!(s.on_window(Instant::ZERO, 1, 0).unwrap().is_progress);
    assert_eq!(s.take(Instant::ZERO), None);
    s.on_window(Instant::ZERO, 1, 904);
    assert_eq!(s.take(Instant::ZERO), Some(1));
}

#[test]
fn acknowledgements_of_the_future_are_refused_and_grants_are_clamped() {
    let mut s = stream(100);
    push(&mut s, 10);
    s.take(Instant::ZERO);
    assert_eq!(s.on_window(Instant::ZERO, 2, 0), None);
    s.on_window(Instant::ZERO, 1, u64::MAX).unwrap();
    assert_eq!(s.consumed_bytes, s.sent_bytes);
}

#[test]
fn a_lost_packet_keeps_its_sequence_and_fails_after_its_retries() {
    let mut s = stream(1 << 20);
    push(&mut s, 10);
    let mut now = Instant::ZERO;
    assert_eq!(s.take(now), Some(0));
    for _ in 0..MAX_RETRIES {
        now += Duration::from_secs(1);
        let mut lost = 0;
        assert!(s.on_timeout(now, Duration::from_secs(1), Resend::All, |_| lost += 1));
        assert_eq!((lost, s.packets_in_flight()), (1, 0));
        assert_eq!(s.take(now), Some(0));
    }
    now += Duration::from_secs(1);
    assert!(!s.on_timeout(now, Duration::from_secs(1), Resend::All, |_| {}));
}

#[test]
fn a_peer_that_answers_is_not_given_up() {
    let mut s = stream(1 << 20);
    push(&mut s, 10);
    let mut now = Instant::ZERO;
    s.take(now);
    for _ in 0..5 * MAX_RETRIES {
        now += Duration::from_secs(1);
        assert!(s.on_timeout(now, Duration::from_secs(1), Resend::All, |_| {}));
        assert_eq!(s.take(now), Some(0));
        // It has no room for the packet.
        assert!(!s.on_window(now, 0, 0).unwrap().is_progress);
    }
}

#[test]
fn a_report_takes_everything_that_arrived_above_a_gap_out_of_the_flight() {
    let mut s = stream(1 << 20);
    (0..10).for_each(|_| push(&mut s, 1_000));
    while s.take(Instant::ZERO).is_some() {}
    let gaps = vec![net_wire::Gap { start: 2, length: 1 }];
    let stream_id = net_types::StreamId(1);
    let mut nack = Nack { stream_id, next_expected: 0, from: 0, below: 8, gaps };
    // The cumulative part is the caller's.
    let arrived = s.on_nack(Instant::ZERO, SECOND, &nack, |_| ());
    assert_eq!((arrived.packets, s.packets_in_flight()), (7, 2));
    // One that claims what was never sent settles only what was.
    nack.below = u64::MAX;
    let arrived = s.on_nack(Instant::ZERO, SECOND, &nack, |_| ());
    assert_eq!((arrived.packets, s.packets_in_flight()), (2, 0));
    assert_eq!(s.take(Instant::ZERO), Some(2));
    assert_eq!(s.take(Instant::ZERO), None);
}

#[test]
fn a_report_older_than_a_resend_does_not_resend_again() {
    let mut s = stream(1 << 20);
    push(&mut s, 1_000);
    push(&mut s, 1_000);
    s.take(Instant::ZERO);
    s.take(Instant::ZERO);
    let gaps = vec![net_wire::Gap { start: 0, length: 1 }];
    let nack =
        Nack { stream_id: net_types::StreamId(1), next_expected: 0, from: 0, below: 2, gaps };
    let rtt = Duration::from_millis(10);
    let mut count = 0;
    let mut now = Instant::ZERO;
    s.on_nack(now, rtt, &nack, |_| count += 1);
    assert_eq!(s.take(now), Some(0));
    s.on_nack(now, rtt, &nack, |_| count += 1);
    assert_eq!(count, 1);
    now += rtt;
    s.on_nack(now, rtt, &nack, |_| count += 1);
    assert_eq!(count, 2);
}

#[test]
fn the_end_rides_on_the_last_packet_or_on_an_empty_one() {
    let mut s = stream(1 << 20);
    push(&mut s, 10);
    s.finish();
    assert_eq!(s.take(Instant::ZERO), Some(0));
    assert!(matches!(s.packet(0), Some((_, true))));
    assert!(!s.is_flushed());
    s.on_window(Instant::ZERO, 1, 14);
    assert!(s.is_flushed());
    let mut empty = stream(100);
    empty.finish();
    assert_eq!(empty.take(Instant::ZERO), Some(0));
    assert_eq!(empty.take(Instant::ZERO), None);
    assert_eq!(empty.queue_bytes(Bytes::new(), CAP), Err(QueueError::Finished));
}

fn unreliable(window_bytes: u32) -> SendStream {
    let mode = StreamMode::FIRE_AND_FORGET;
    SendStream::new(StreamConfig { mode, window_bytes, ..StreamConfig::default() }, true)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn unreliable_packets_are_given_up_and_release_their_credit() {
    let mut s = unreliable(1_000);
    push(&mut s, 900);
    push(&mut s, 900);
    assert_eq!(s.take(Instant::ZERO), Some(0));
    assert_eq!(s.take(Instant::ZERO), None);
    let later = Instant::ZERO + SECOND;
    let mut lost = 0;
    assert!(s.on_timeout(later, SECOND, Resend::All, |_| lost += 1));
    assert_eq!((lost, s.packets_in_flight()), (1, 0));
    assert_eq!(s.take(later), Some(1));
}

#[test]
fn reported_unreliable_packets_are_given_up_and_never_sent_again() {
    let mut s = unreliable(3_000);
    (0..3).for_each(|_| push(&mut s, 900));
    while s.take(Instant::ZERO).is_some() {}
    let gaps = vec![net_wire::Gap { start: 0, length: 1 }];
    let nack =
        Nack { stream_id: net_types::StreamId(1), next_expected: 0, from: 0, below: 2, gaps };
    let mut lost = 0;
    let arrived = s.on_nack(Instant::ZERO, SECOND, &nack, |_| lost += 1);
    assert_eq!((arrived.packets, lost, s.packets_in_flight()), (1, 1, 1));
    push(&mut s, 900);
    assert_eq!(s.take(Instant::ZERO), Some(3), "the credit is released, nothing is repeated");
    assert_eq!(s.on_window(Instant::ZERO, 4, 0).unwrap().in_flight, 2);
    assert!(!s.has_unacked());
}

#[test]
fn the_end_of_an_unreliable_stream_waits_for_the_rest_and_is_sent_until_it_arrives() {
    let mut s = unreliable(10_000);
    push(&mut s, 900);
    s.finish();
    let mut now = Instant::ZERO;
    assert_eq!(s.take(now), Some(0));
    assert!(!s.packet(0).unwrap().1);
    assert_eq!(s.take(now), None);
    now += SECOND;
    assert!(s.on_timeout(now, SECOND, Resend::All, |_| ()));
    for _ in 0..3 {
        assert_eq!(s.take(now), Some(1));
        assert!(s.packet(1).unwrap().1);
        now += SECOND;
        assert!(s.on_timeout(now, SECOND, Resend::All, |_| ()));
    }
    assert!(!s.is_flushed());
    assert_eq!(s.on_window(now, 2, 0).unwrap().in_flight, 0);
    assert!(s.is_flushed());
}

#[test]
fn acknowledgements_push_the_timeout_of_what_follows() {
    let mut s = stream(1 << 20);
    (0..3).for_each(|_| push(&mut s, 1_000));
    while s.take(Instant::ZERO).is_some() {}
    let half = Instant::ZERO + SECOND / 2;
    s.on_window(half, 1, 0);
    assert_eq!(s.next_timeout(half, SECOND), Some(half + SECOND));
    assert!(
        s.on_timeout(Instant::ZERO + SECOND, SECOND, Resend::All, |_| panic!("the path is alive"))
    );
    let mut lost = 0;
    assert!(s.on_timeout(half + SECOND, SECOND, Resend::All, |_| lost += 1));
    assert_eq!(lost, 2);
}

#[test]
fn the_end_needs_no_credit() {
    let mut s = stream(100);
    push(&mut s, 900);
    s.take(Instant::ZERO);
    s.finish();
    assert_eq!(s.take(Instant::ZERO), Some(1));
    assert!(s.packet(1).unwrap().1);
}

#[test]
fn a_blocked_stream_asks_for_its_window_less_and_less_often() {
    let mut s = stream(1_000);
    push(&mut s, 900);
    s.take(Instant::ZERO);
    push(&mut s, 900);
    assert_eq!(s.poll_window_probe(Instant::ZERO, SECOND), None);
    s.on_window(Instant::ZERO, 1, 0);
    assert!(s.is_blocked());
    let mut now = Instant::ZERO;
    let mut times = Vec::new();
    let timeout = Duration::from_millis(100);
    while now < Instant::ZERO + SECOND * 10 {
        now = s.next_timeout(now, timeout).unwrap();
        assert_eq!(s.poll_window_probe(now, timeout), Some(0));
        times.push(now.as_nanos() / 1_000_000);
    }
    assert_eq!(times, [100, 300, 700, 1_500, 3_100, 5_100, 7_100, 9_100, 11_100]);
    s.on_window(now, 1, 904);
    assert_eq!(s.poll_window_probe(now, timeout), None);
    assert!(s.is_sendable());
}

#[test]
fn messages_that_did_not_start_follow_the_size_of_the_path() {
    let mut s = stream(1 << 20);
    push(&mut s, 3_000);
    push(&mut s, 3_000);
    s.take(Instant::ZERO);
    s.refit(8_112);
    let mut counts = Vec::new();
    while let Some(sequence) = s.take(Instant::ZERO) {
        let Some((Body::Fragment { index, count, .. }, _)) = s.packet(sequence) else {
            panic!("a long message stays one")
        };
        counts.push((*index, *count));
    }
    assert_eq!(counts, [(1, 3), (2, 3), (0, 1)]);
}

#[test]
fn ranges_of_a_body_are_those_of_its_payload() {
    let mut packed = Vec::new();
    net_wire::push_event(&mut packed, b"hello world");
    let bytes = Bytes::from_static(b"hello world");
    let bodies = [
        Body::Packed { payload: packed.clone(), events: 1 },
        Body::Fragment { bytes, index: 0, count: 2 },
    ];
    for body in &bodies {
        assert_eq!(body.payload_len(), packed.len());
        for start in 0..packed.len() {
            for end in start..=packed.len() {
                let mut out = Vec::new();
                body.write_range(start..end, &mut out);
                assert_eq!(out, packed[start..end]);
            }
        }
    }
}

#[test]
fn the_sender_stops_before_the_peer_runs_out_of_sequences() {
    let mut s = stream(u32::MAX);
    for _ in 0..MAX_REORDER_PACKETS {
        push(&mut s, 4);
        s.take(Instant::ZERO).unwrap();
    }
    push(&mut s, 4);
    assert_eq!(s.take(Instant::ZERO), None);
    s.on_window(Instant::ZERO, 1, 4);
    assert_eq!(s.take(Instant::ZERO), Some(MAX_REORDER_PACKETS));
}

#[test]
fn a_lost_acknowledgement_above_a_report_is_asked_for() {
    let mut s = stream(1 << 20);
    (0..2).for_each(|_| push(&mut s, 1_000));
    while s.take(Instant::ZERO).is_some() {}
    let gaps = vec![net_wire::Gap { start: 0, length: 1 }];
    let nack =
        Nack { stream_id: net_types::StreamId(1), next_expected: 0, from: 0, below: 2, gaps };
    assert_eq!(s.on_nack(Instant::ZERO, SECOND, &nack, |_| ()).packets, 1);
    assert_eq!(s.take(Instant::ZERO), Some(0));
    // An acknowledgement from before the report's packet, after it; the next one is lost.
    s.on_window(Instant::ZERO, 1, 0);
    let later = Instant::ZERO + SECOND;
    assert_eq!(s.next_timeout(Instant::ZERO, SECOND), Some(later));
    assert!(s.on_timeout(later, SECOND, Resend::All, |_| panic!("it is not under way")));
    assert_eq!((s.take(later), s.packets_in_flight()), (Some(1), 1));
    assert_eq!(s.on_window(later, 2, 0).unwrap().in_flight, 1);
}

#[test]
fn a_probe_is_the_oldest_and_the_newest_packet_that_had_its_time() {
    let mut s = stream(1 << 20);
    (0..6).for_each(|_| push(&mut s, 1_000));
    assert!((0..5).all(|i| s.take(Instant::ZERO) == Some(i)));
    let later = Instant::ZERO + SECOND;
    assert_eq!(s.take(later), Some(5));
    let mut lost = 0;
    assert!(s.on_timeout(later, SECOND, Resend::Probe, |_| lost += 1));
    assert_eq!((lost, s.packets_in_flight()), (2, 4));
    assert_eq!([s.take(later), s.take(later), s.take(later)], [Some(0), Some(4), None]);
    // One packet is both.
    s.on_window(later, 5, 0).unwrap();
    assert!(s.on_timeout(later + SECOND, SECOND, Resend::Probe, |_| lost += 1));
    assert_eq!((lost, s.take(later), s.take(later)), (3, Some(5), None));
}
