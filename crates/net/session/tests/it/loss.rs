//! A lost packet is noticed by the report of a gap, or by the timer when nothing follows it.

use net_session::{StreamConfig, Timer};
use net_wire::{Flags, Header, Subprotocol};

use crate::pair::{A, B, Link, Pair, Side, is_data, messages, millis, secs};

/// Drops the data packets in these places, counted from 0.
fn drop_data(side: &mut Side, places: &'static [usize]) {
    let mut place = 0;
    side.filter = Box::new(move |header| {
        place += usize::from(is_data(header));
        is_data(header) && places.contains(&(place - 1))
    });
}

fn is_nack(header: &Header) -> bool {
    header.flags.contains(Flags::CONTROL) && header.subprotocol == Subprotocol::STREAM_NACK
}

#[test]
fn a_gap_is_reported_and_filled_within_a_round_trip() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let id = pair.open(A, StreamConfig::default());
    drop_data(&mut pair[A], &[2, 3]);
    let start = pair.now;
    pair.send(A, id, &messages(10, 1_000));
    pair.run_until_received(B, id, 10);
    // There, the report back, and there again.
    assert_eq!(pair.now.since(start), millis(30));
    let counters = &pair[A].counters;
    assert_eq!((counters.retransmits_nack, counters.retransmits_timeout), (2, 0));
    assert_eq!(pair[A].data_sent(), 12);
}

#[test]
fn losses_of_one_flight_halve_the_window_once() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let id = pair.open(A, StreamConfig::default());
    let before = pair[A].session.stats().cwnd_packets;
    drop_data(&mut pair[A], &[2, 5, 8]);
    pair.send(A, id, &messages(12, 1_000));
    pair.run_until("the gaps are reported", |p| p[A].counters.retransmits_nack == 3);
    // Halved once, after what was acknowledged before had let it grow.
    let after = pair[A].session.stats().cwnd_packets;
    assert!((before / 2..before).contains(&after), "{before} became {after}");
}

#[test]
fn a_lost_tail_is_sent_again_when_the_timer_runs_out() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let id = pair.open(A, StreamConfig::default());
    drop_data(&mut pair[A], &[9]);
    let window = pair[A].session.stats().cwnd_packets;
    pair.send(A, id, &messages(10, 1_000));
    pair.run_until_received(B, id, 10);
    let counters = &pair[A].counters;
    assert_eq!((counters.retransmits_nack, counters.retransmits_timeout), (0, 1));
    let woken = pair[A].woken_for(Timer::Retransmit);
    assert_eq!(woken.last().map(|at| *at + millis(10)), Some(pair.now));
    assert!(pair[A].session.stats().cwnd_packets >= window, "a probe leaves the window alone");
}

#[test]
fn a_lost_report_is_repeated() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let id = pair.open(A, StreamConfig::default());
    // Whatever the sender's own timer does, the first packet stays lost.
    pair[A].filter = Box::new(|header| is_data(header) && header.sequence == 0);
    pair[B].filter = Box::new(is_nack);
    let reports = |pair: &Pair| pair[B].sent.iter().filter(|s| is_nack(&s.header)).count();
    pair.send(A, id, &messages(3, 1_000));
    pair.run_until("the gap is reported", |p| reports(p) == 1);
    pair.run_until("the gap is reported again", |p| reports(p) == 2);
    assert_eq!(pair[B].woken_for(Timer::GapCheck).last(), Some(&pair.now));
    for who in [A, B] {
        pair[who].filter = Box::new(|_| false);
    }
    pair.run_until_received(B, id, 3);
    assert!(pair[A].counters.retransmits_nack > 0);
}

#[test]
fn lost_acknowledgements_cost_a_probe_and_not_the_window() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let id = pair.open(A, StreamConfig::default());
    pair[B].link.is_cut = true;
    pair.send(A, id, &messages(8, 1_000));
    pair.run_until("the timer ran out", |p| p[A].counters.retransmits_timeout > 0);
    assert_eq!(pair[A].counters.retransmits_timeout, 2, "the oldest packet and the newest");
    pair[B].link.is_cut = false;
    pair.run_until("all is acknowledged", |p| p[A].session.stats().in_flight_packets == 0);
    assert_eq!(pair[B].received(id).len(), 8);
    assert_eq!(pair[A].counters.retransmits_timeout, 2);
}

#[test]
fn an_outage_backs_off_and_ends_with_everything_there() {
    net_sim::seeds!(5, |seed| {
        let mut pair = Pair::connected(seed, Link::BAD);
        let id = pair.open(A, StreamConfig::default());
        pair.send(A, id, &messages(100, 1_000));
        pair.run_for(millis(50));
        pair[A].link.is_cut = true;
        let before = pair[A].data_sent();
        pair.run_for(secs(6));
        let repeated = pair[A].data_sent() - before;
        assert!(repeated < 150, "{repeated} packets into a dead link");
        pair[A].link.is_cut = false;
        pair.run_until_received(B, id, 100);
        pair.run_for(secs(3));
        assert_eq!(pair[A].session.stats().in_flight_packets, 0);
    });
}
