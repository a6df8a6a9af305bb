//! A session that another one took over from finishes what is under way, and ends.

use net_session::{CloseCause, CloseReason, Event, Phase, StreamConfig, Timer};
use net_types::limits::{DRAIN_HELD_TIMEOUT, DRAIN_TIMEOUT};

use crate::pair::{A, B, Link, Pair, Who, messages, millis, secs};

fn drain(pair: &mut Pair, who: Who) {
    pair.act(who, |session, ctx| session.drain(ctx.now));
}

fn hold(pair: &mut Pair, who: Who, is_held: bool) {
    pair.act(who, |session, ctx| session.hold(ctx.now, is_held));
}

fn is_over(pair: &Pair) -> bool {
    [A, B].iter().all(|who| pair[*who].session.phase() == Phase::Closed)
}

#[test]
fn two_idle_ends_agree_within_a_few_round_trips() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let start = pair.now;
    drain(&mut pair, A);
    drain(&mut pair, B);
    pair.run_until("both are over", is_over);
    assert!(pair.now.since(start) <= millis(100), "{:?}", pair.now.since(start));
}

#[test]
fn what_is_under_way_arrives_before_the_end() {
    net_sim::seeds!(10, |seed| {
        let mut pair = Pair::connected(seed, Link::BAD);
        let id = pair.open(A, StreamConfig::default());
        pair.send(A, id, &messages(30, 1_000));
        pair.run_for(millis(1));
        drain(&mut pair, A);
        drain(&mut pair, B);
        pair.run_until("both are over", is_over);
        assert_eq!(pair[B].received(id).len(), 30);
        let replaced = Event::Closed { cause: CloseCause::Local(CloseReason::Replaced) };
        let by_peer = Event::Closed { cause: CloseCause::Peer(CloseReason::Replaced) };
        let ends = [A, B].map(|who| {
            pair[who].events.iter().filter(|e| **e == replaced || **e == by_peer).count()
        });
        assert_eq!(ends, [1, 1]);
    });
}

#[test]
fn a_session_that_is_held_lives_longer_within_its_limit() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let start = pair.now;
    drain(&mut pair, A);
    drain(&mut pair, B);
    hold(&mut pair, A, true);
    pair.run_for(DRAIN_TIMEOUT - secs(1));
    assert_eq!(pair[A].session.phase(), Phase::Draining);
    // The other end has its time only while it waits for nothing itself.
    hold(&mut pair, B, true);
    pair.run_until("both are over", is_over);
    assert!(pair.now.since(start) <= DRAIN_HELD_TIMEOUT + millis(10));
    assert!(pair.now.since(start) >= DRAIN_HELD_TIMEOUT);
    assert_eq!(pair[A].wakeups.last().map(|w| w.1), Some(Timer::DrainEnd));
}

#[test]
fn releasing_the_hold_ends_both_at_once() {
    let mut pair = Pair::connected(1, Link::GOOD);
    drain(&mut pair, A);
    drain(&mut pair, B);
    hold(&mut pair, A, true);
    pair.run_for(secs(3));
    assert!(!is_over(&pair));
    let start = pair.now;
    hold(&mut pair, A, false);
    pair.run_until("both are over", is_over);
    assert!(pair.now.since(start) <= millis(100), "{:?}", pair.now.since(start));
}

#[test]
fn a_peer_that_no_longer_knows_the_session_ends_it_by_its_silence() {
    let mut pair = Pair::connected(1, Link::GOOD);
    pair[B].link.is_cut = true;
    pair.run_for(millis(100));
    let start = pair.now;
    drain(&mut pair, A);
    pair.run_until("A is over", |p| p[A].session.phase() == Phase::Closed);
    assert!(pair.now.since(start) < secs(1), "{:?}", pair.now.since(start));
    assert_eq!(pair[A].wakeups.last().map(|w| w.1), Some(Timer::DrainSilence));
}

#[test]
fn a_session_that_is_resumed_has_no_end_planned() {
    let mut pair = Pair::connected(1, Link::GOOD);
    drain(&mut pair, A);
    pair.run_for(millis(200));
    assert!(pair[B].session.is_peer_draining());
    pair.act(A, |session, _| session.resume());
    pair.run_for(secs(60));
    assert_eq!(pair[A].session.phase(), Phase::Established);
    assert!(!pair[B].session.is_peer_draining());
    assert!(pair[A].woken_for(Timer::DrainEnd).is_empty());
}
