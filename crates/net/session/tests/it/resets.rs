//! A stream that ends by force is gone on both sides, whatever is lost.

use net_session::{ResetReason, StreamConfig, StreamEvent, Timer};
use net_wire::{Flags, Header, Subprotocol};

use crate::pair::{A, B, Link, Pair, messages, millis, of_stream, secs};

fn is_reset(header: &Header) -> bool {
    header.flags.contains(Flags::CONTROL) && header.subprotocol == Subprotocol::STREAM_RESET
}

fn resets(pair: &Pair) -> usize {
    pair[A].sent.iter().filter(|s| is_reset(&s.header)).count()
}

fn reset(pair: &mut Pair, id: net_types::StreamId) {
    pair.act(A, |session, ctx| session.reset_stream(ctx, id, ResetReason::Closed));
}

#[test]
fn both_sides_hear_of_a_reset_and_what_was_under_way_is_forgotten() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let id = pair.open(A, StreamConfig::default());
    pair.send(A, id, &messages(30, 1_000));
    pair.run_for(millis(5));
    assert!(pair[A].session.stats().in_flight_packets > 0);
    reset(&mut pair, id);
    assert_eq!(pair[A].session.stats().in_flight_packets, 0);
    pair.run_for(secs(1));
    for (who, by_peer) in [(A, false), (B, true)] {
        let event = of_stream(id, StreamEvent::Reset { reason: ResetReason::Closed, by_peer });
        assert_eq!(pair[who].events.iter().filter(|e| **e == event).count(), 1);
        assert_eq!(pair[who].counters.stream_resets(ResetReason::Closed), 1);
        assert_eq!(pair[who].session.stats().streams, 0);
    }
    // Confirmed the first time.
    assert_eq!(resets(&pair), 1);
}

#[test]
fn a_lost_reset_is_repeated_until_it_is_confirmed() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let id = pair.open(A, StreamConfig::default());
    pair.send(A, id, &messages(1, 100));
    pair.run_for(millis(200));
    // First the resets are lost, then their confirmations.
    let mut lost = 0;
    pair[A].filter = Box::new(move |header| {
        lost += usize::from(is_reset(header));
        is_reset(header) && lost <= 2
    });
    reset(&mut pair, id);
    pair.run_until("a reset arrives", |p| p[B].session.stats().streams == 0);
    assert_eq!(resets(&pair), 3);
    pair[B].link.is_cut = true;
    pair.run_until("a reset is repeated", |p| resets(p) == 4);
    assert_eq!(pair[A].woken_for(Timer::Retransmit).last(), Some(&pair.now));
    pair[B].link.is_cut = false;
    pair.run_for(secs(10));
    assert!(resets(&pair) <= 6, "{} resets", resets(&pair));
}

#[test]
fn packets_that_come_after_the_reset_open_nothing() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let id = pair.open(A, StreamConfig::default());
    pair.send(A, id, &messages(10, 1_000));
    pair.run_for(millis(1));
    // Overtakes the data.
    pair[A].link.delay = millis(1);
    reset(&mut pair, id);
    pair.run_for(secs(2));
    assert_eq!(pair[B].session.stats().streams, 0);
    assert_eq!(pair[B].received(id).len(), 0);
    assert_eq!(pair[B].events, []);
}

#[test]
fn a_peer_that_resets_a_stream_frees_the_queue_of_the_other_side() {
    net_sim::seeds!(10, |seed| {
        let mut pair = Pair::connected(seed, Link::BAD);
        let ids: Vec<_> = (0..5).map(|_| pair.open(A, StreamConfig::default())).collect();
        for id in &ids {
            pair.send(A, *id, &messages(50, 1_000));
        }
        pair.run_for(millis(100));
        for id in &ids[..3] {
            let id = *id;
            pair.act(B, |session, ctx| session.reset_stream(ctx, id, ResetReason::Closed));
        }
        for id in &ids[3..] {
            pair.run_until_received(B, *id, 50);
        }
        pair.run_for(secs(10));
        assert_eq!([A, B].map(|who| pair[who].session.stats().streams), [2, 2]);
        assert_eq!(pair[A].session.stats().in_flight_packets, 0);
    });
}
