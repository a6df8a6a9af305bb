//! A peer that moves is followed once it proved that it is there, and not before.

use net_session::{CloseReason, StreamConfig, Timer};
use net_wire::Kind;

use crate::pair::{A, B, Link, Pair, addr, messages, secs};

#[test]
fn a_move_is_followed_after_a_proof() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let id = pair.open(A, StreamConfig::default());
    pair[A].addr = addr(3, 1);
    pair.send(A, id, &messages(5, 100));
    pair.run_until_received(B, id, 5);
    assert_ne!(pair[B].session.path().addr, addr(3, 1), "only with a proof");
    pair.run_until("the path is followed", |p| p[B].session.path().addr == addr(3, 1));
    assert_eq!(pair[B].counters.path_changes, 1);
    pair.send(B, id, &messages(5, 100));
    pair.run_until_received(A, id, 5);
    pair.run_for(secs(5));
    assert_eq!(pair[B].woken_for(Timer::PathValidation), []);
}

#[test]
fn another_route_starts_with_a_new_window_and_another_port_does_not() {
    for (port, is_kept) in [(addr(1, 77), true), (addr(3, 1), false)] {
        let mut pair = Pair::connected(1, Link::GOOD);
        let id = pair.open(B, StreamConfig::default());
        let initial = pair[B].session.stats().cwnd_packets;
        pair.send(B, id, &messages(200, 1_000));
        pair.run_until_received(A, id, 200);
        pair.run_for(secs(1));
        assert!(pair[B].session.stats().cwnd_packets > initial);
        pair[A].addr = port;
        pair.run_for(secs(2));
        assert_eq!(pair[B].session.path().addr, port);
        assert_eq!(pair[B].session.stats().cwnd_packets > initial, is_kept);
    }
}

#[test]
fn an_address_that_does_not_answer_is_forgotten_after_its_time() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let path = pair[B].session.path();
    // One packet seems to come from elsewhere: an attacker sent a copy first.
    let (home, foreign) = (pair[A].addr, addr(66, 6));
    pair[A].addr = foreign;
    pair.run_until("a challenge is sent", |p| {
        p[B].sent.iter().any(|s| s.header.kind == Kind::PathChallenge)
    });
    pair[A].addr = home;
    pair[A].filter = Box::new(|header| header.kind == Kind::PathResponse);
    pair.run_for(secs(5));
    assert_eq!(pair[B].session.path(), path);
    assert_eq!(pair[B].counters.path_changes, 0);
    assert_eq!(pair[B].woken_for(Timer::PathValidation).len(), 1);
    let to_foreign = pair[B].sent.iter().filter(|s| s.to == foreign).count();
    assert_eq!(to_foreign, 1, "one challenge and nothing else goes to an address without proof");
}

#[test]
fn an_answer_from_another_address_proves_nothing() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let (home, path) = (pair[A].addr, pair[B].session.path());
    pair[A].addr = addr(3, 1);
    pair.run_until("a challenge is sent", |p| {
        p[B].sent.iter().any(|s| s.header.kind == Kind::PathChallenge)
    });
    pair[A].addr = home;
    pair.run_for(secs(5));
    let answers = pair[A].sent.iter().filter(|s| s.header.kind == Kind::PathResponse);
    assert_eq!(answers.count(), 1);
    assert_eq!((pair[B].session.path(), pair[B].counters.path_changes), (path, 0));
}

#[test]
fn a_session_that_closes_waits_for_no_proof() {
    let mut pair = Pair::connected(1, Link::GOOD);
    pair[A].addr = addr(3, 1);
    pair.run_until("a challenge is sent", |p| {
        p[B].sent.iter().any(|s| s.header.kind == Kind::PathChallenge)
    });
    pair.act(B, |session, ctx| session.close(ctx, CloseReason::Shutdown));
    pair[B].session.check_invariants();
}
