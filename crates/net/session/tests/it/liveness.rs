//! Silence is filled with heartbeats, and ends a session whose peer is gone.

use net_session::{CloseCause, CloseReason, Event, Phase, Timer};
use net_types::limits::{HANDSHAKE_TIMEOUT, HEARTBEAT_INTERVAL, SESSION_TIMEOUT};
use net_wire::Kind;

use crate::pair::{A, B, Link, Pair, millis, secs};

#[test]
fn an_idle_session_sends_heartbeats_and_nothing_else() {
    let mut pair = Pair::connected(1, Link::GOOD);
    pair.run_for(secs(20));
    for who in [A, B] {
        let side = &pair[who];
        assert!(side.sent.iter().all(|s| s.header.kind == Kind::Heartbeat));
        assert!(side.sent.windows(2).all(|w| w[1].at.since(w[0].at) == HEARTBEAT_INTERVAL));
        assert_eq!(side.sent.len() as u128, secs(20).as_millis() / HEARTBEAT_INTERVAL.as_millis());
        assert!(side.wakeups.iter().all(|(_, timer)| *timer == Timer::Heartbeat));
        assert_eq!(side.session.phase(), Phase::Established);
        assert!(side.session.stats().rtt.abs_diff(millis(20)) < millis(1));
    }
}

#[test]
fn a_silent_peer_ends_the_session_after_its_time() {
    let mut pair = Pair::connected(1, Link::GOOD);
    pair[B].link.is_cut = true;
    let last = pair[A].session.last_received();
    pair.run_until("A gives up", |p| p[A].session.phase() == Phase::Closed);
    let heard = pair[A].session.last_received();
    assert!(heard.since(last) <= millis(10), "only what was under way");
    assert_eq!(pair.now, heard + SESSION_TIMEOUT);
    assert_eq!(pair[A].events, [Event::Closed { cause: CloseCause::Timeout }]);
    assert_eq!(pair[A].wakeups.last(), Some(&(pair.now, Timer::Idle)));
    assert_eq!(pair[A].session.next_timer(), None);
}

#[test]
fn a_provisional_session_sends_nothing_and_ends_without_a_proof() {
    let mut pair = Pair::new(1, Link::GOOD);
    let start = pair.now;
    pair[A].link.is_cut = true;
    assert_eq!(pair[B].session.next_timer(), Some((start + HANDSHAKE_TIMEOUT, Timer::Handshake)));
    pair.run_until("B gives up", |p| p[B].session.phase() == Phase::Closed);
    assert_eq!(pair.now, start + HANDSHAKE_TIMEOUT);
    assert_eq!(pair[B].events, [Event::Closed { cause: CloseCause::Timeout }]);
    assert!(pair[B].sent.is_empty());
}

#[test]
fn the_first_packet_confirms_a_provisional_session() {
    let mut pair = Pair::new(1, Link::GOOD);
    let start = pair.now;
    pair.run_until("B is confirmed", |p| p[B].session.phase() == Phase::Established);
    assert_eq!(pair.now, start + millis(10));
    assert_eq!(pair[B].events, [Event::Confirmed]);
}

#[test]
fn a_close_reaches_the_peer_and_leaves_nothing_behind() {
    let mut pair = Pair::connected(1, Link::GOOD);
    pair.act(A, |session, ctx| session.close(ctx, CloseReason::Overloaded));
    pair.run_for(secs(1));
    let causes = [CloseCause::Local, CloseCause::Peer].map(|c| c(CloseReason::Overloaded));
    for (who, cause) in [A, B].into_iter().zip(causes) {
        assert_eq!(pair[who].events, [Event::Closed { cause }]);
        assert_eq!(pair[who].session.next_timer(), None);
    }
    assert_eq!(pair[A].sent.last().map(|s| s.header.kind), Some(Kind::SessionClose));
    assert_eq!(pair[B].sent.len(), 0);
}
