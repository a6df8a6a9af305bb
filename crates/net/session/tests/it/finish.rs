//! A stream ends when both halves have, and its late packets are still answered.

use net_session::{Event, StreamConfig, StreamEvent, StreamMode};
use net_types::StreamId;

use crate::pair::{A, B, Link, Pair, Who, config, messages, millis, of_stream, secs};

fn finish(pair: &mut Pair, who: Who, id: StreamId) {
    pair.act(who, |session, _| session.finish_stream(id));
}

fn count(pair: &Pair, who: Who, event: &Event) -> usize {
    pair[who].events.iter().filter(|e| *e == event).count()
}

#[test]
fn both_sides_hear_of_the_end_once_and_forget_the_stream() {
    net_sim::seeds!(10, |seed| {
        for mode in [StreamMode::ORDERED, StreamMode::RELIABLE, StreamMode::FIRE_AND_FORGET] {
            let mut pair = Pair::connected(seed, Link::BAD);
            let id = pair.open(A, config(mode));
            pair.send(A, id, &messages(20, 1_000));
            finish(&mut pair, A, id);
            let finished = of_stream(id, StreamEvent::Finished);
            pair.run_until("the end is there", |p| count(p, B, &finished) == 1);
            if mode.is_reliable {
                assert_eq!(pair[B].received(id).len(), 20);
            }
            pair.send(B, id, &messages(5, 100));
            finish(&mut pair, B, id);
            pair.run_until("both have forgotten it", |p| {
                [A, B].iter().all(|who| p[*who].session.stats().streams == 0)
            });
            pair.run_for(secs(5));
            let flushed = of_stream(id, StreamEvent::Flushed);
            for who in [A, B] {
                assert_eq!((count(&pair, who, &finished), count(&pair, who, &flushed)), (1, 1));
                assert_eq!(pair[who].session.stats().in_flight_packets, 0);
            }
        }
    });
}

#[test]
fn a_stream_of_which_one_half_ended_still_carries_the_other() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let id = pair.open(A, StreamConfig::default());
    finish(&mut pair, A, id);
    pair.run_for(secs(1));
    assert_eq!(count(&pair, A, &of_stream(id, StreamEvent::Flushed)), 1);
    assert_eq!(pair[A].session.stats().streams, 1);
    let refused = pair.act(A, |s, _| s.send(id, messages(1, 9)[0].clone()));
    assert_eq!(refused, Err(net_session::SendError::StreamClosed));
    assert_eq!(pair.send(B, id, &messages(3, 50)), 3);
    pair.run_until_received(A, id, 3);
}

#[test]
fn a_final_window_that_was_lost_is_sent_again() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let id = pair.open(A, StreamConfig::default());
    pair.send(A, id, &messages(1, 50));
    pair.run_for(millis(200));
    finish(&mut pair, B, id);
    pair.run_for(millis(200));
    // B has nothing left to send: with A's end it forgets the stream, and its final window is lost.
    pair[B].link.is_cut = true;
    finish(&mut pair, A, id);
    pair.run_until("B has forgotten it", |p| p[B].session.stats().streams == 0);
    pair.run_for(millis(1));
    assert_eq!(pair[A].session.stats().streams, 1);
    pair[B].link.is_cut = false;
    pair.run_until("A knows", |p| p[A].session.stats().streams == 0);
    assert!(pair[A].counters.retransmits_timeout > 0);
    assert_eq!(count(&pair, A, &of_stream(id, StreamEvent::Flushed)), 1);
    assert_eq!(pair[B].session.stats().streams, 0, "nothing opens it again");
}
