//! Every wake-up names its reason, and comes when the reason says.

use std::collections::BTreeMap;

use net_session::{StreamConfig, StreamMode, Timer};
use net_types::limits::{ACK_DELAY, KEY_EPOCH_AGE, REASSEMBLY_TIMEOUT};

use crate::pair::{A, B, Link, Pair, config, is_data, messages, millis, secs};

#[test]
fn a_lone_message_is_acknowledged_after_the_delay_and_wakes_its_sender_for_nothing() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let id = pair.open(A, StreamConfig::default());
    pair.send(A, id, &messages(1, 100));
    pair.run_until_received(B, id, 1);
    let due = pair.now + ACK_DELAY;
    assert_eq!(pair[B].session.next_timer(), Some((due, Timer::Ack)));
    pair.run_until("it is acknowledged", |p| p[A].session.stats().in_flight_packets == 0);
    assert_eq!(pair.now, due + millis(10));
    assert_eq!(pair[B].woken_for(Timer::Ack), [due]);
    assert_eq!(pair[A].woken_for(Timer::Retransmit), []);
}

#[test]
fn an_unreliable_message_that_stays_incomplete_is_given_up() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let id = pair.open(A, config(StreamMode::FIRE_AND_FORGET));
    // The last fragment is lost: nothing after it tells of that.
    pair[A].filter = Box::new(|header| is_data(header) && header.frag_index == 2);
    pair.send(A, id, &messages(1, 3_000));
    let start = pair.now + millis(10);
    pair.run_for(REASSEMBLY_TIMEOUT * 2);
    assert_eq!(pair[B].woken_for(Timer::Reassembly).first(), Some(&(start + REASSEMBLY_TIMEOUT)));
    assert_eq!(pair[B].counters.drops(net_session::DropReason::Reassembly), 1);
    let wakeups = pair[B].woken_for(Timer::Reassembly).len();
    pair.run_for(REASSEMBLY_TIMEOUT * 2);
    assert_eq!(pair[B].woken_for(Timer::Reassembly).len(), wakeups, "nothing is left to look at");
}

#[test]
fn a_replaced_key_is_forgotten_after_the_packets_that_were_under_way() {
    let mut pair = Pair::connected(1, Link::GOOD);
    pair.run_for(KEY_EPOCH_AGE + secs(10));
    for who in [A, B] {
        let at = pair[who].woken_for(Timer::KeyDiscard);
        assert_eq!(at.len(), 1, "one new epoch of the peer's");
        let first = pair[who.peer()].sent.iter().find(|s| s.header.key_epoch == 1).unwrap();
        assert!(at[0].since(first.at) < secs(1));
    }
}

#[test]
fn a_busy_session_wakes_for_reasons_that_its_traffic_explains() {
    net_sim::seeds!(10, |seed| {
        let mut pair = Pair::connected(seed, Link::BAD);
        let id = pair.open(A, config(StreamMode::ORDERED));
        pair.send(A, id, &messages(200, 1_000));
        pair.run_until_received(B, id, 200);
        let mut reasons = BTreeMap::new();
        for (_, timer) in pair[A].wakeups.iter().chain(&pair[B].wakeups) {
            *reasons.entry(*timer as usize).or_insert(0) += 1;
        }
        let explained = [
            Timer::KeyDiscard,
            Timer::Ack,
            Timer::Retransmit,
            Timer::GapCheck,
            Timer::Heartbeat,
            Timer::MtuProbe,
        ];
        assert!(reasons.keys().all(|r| explained.iter().any(|t| *t as usize == *r)), "{reasons:?}");
        // B only receives: nothing of its own can be late.
        assert_eq!(pair[B].counters.retransmits_timeout, 0);
    });
}

#[test]
fn the_debug_form_of_a_session_says_what_it_waits_for() {
    let pair = Pair::connected(1, Link::GOOD);
    let (at, timer) = pair[A].session.next_timer().unwrap();
    let text = format!("{:?}", pair[A].session);
    assert!(text.contains(&format!("next_timer: Some(({at:?}, {timer:?}))")), "{text}");
}
