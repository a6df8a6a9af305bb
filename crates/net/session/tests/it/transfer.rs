//! Messages arrive once, whole, and in order where that is promised.

use std::collections::BTreeSet;

use net_session::{DropReason, Event, StreamConfig, StreamEvent, StreamMode};
use net_types::StreamId;
use net_wire::Subprotocol;

use crate::pair::{A, B, Link, Pair, config, messages, millis, secs};

#[test]
fn an_ordered_stream_keeps_its_order_over_a_bad_link() {
    net_sim::seeds!(10, |seed| {
        let mut pair = Pair::connected(seed, Link::BAD);
        let sent: Vec<_> = [messages(60, 32), messages(20, 3_000), messages(3, 60_000)].concat();
        let id = pair.open(A, config(StreamMode::ORDERED));
        assert_eq!(pair.send(A, id, &sent), sent.len());
        pair.run_until_received(B, id, sent.len());
        assert_eq!(pair[B].received(id), sent);
        pair.run_for(secs(5));
        assert_eq!(pair[B].received(id).len(), sent.len(), "nothing comes twice");
        assert_eq!(pair[A].session.stats().in_flight_packets, 0);
    });
}

#[test]
fn both_directions_of_many_unordered_streams_arrive_over_a_bad_link() {
    net_sim::seeds!(10, |seed| {
        let mut pair = Pair::connected(seed, Link::BAD);
        let sent: Vec<_> = [messages(40, 100), messages(10, 5_000)].concat();
        let streams: Vec<_> = [A, B, A, B, A]
            .into_iter()
            .map(|from| (from, pair.open(from, config(StreamMode::RELIABLE))))
            .collect();
        for (from, id) in &streams {
            assert_eq!(pair.send(*from, *id, &sent), sent.len());
        }
        for (from, id) in &streams {
            pair.run_until_received(from.peer(), *id, sent.len());
        }
        pair.run_for(secs(5));
        for (from, id) in &streams {
            let got: BTreeSet<_> = pair[from.peer()].received(*id).iter().collect();
            assert_eq!(got, sent.iter().collect());
            assert_eq!(pair[from.peer()].received(*id).len(), sent.len());
        }
    });
}

#[test]
fn fire_and_forget_never_repeats_and_never_waits() {
    net_sim::seeds!(10, |seed| {
        let mut pair = Pair::connected(seed, Link::BAD);
        let id = pair.open(A, config(StreamMode::FIRE_AND_FORGET));
        let sent = messages(300, 600);
        for message in &sent {
            assert_eq!(pair.send(A, id, std::slice::from_ref(message)), 1);
            pair.run_for(millis(5));
        }
        pair.run_for(secs(1));
        let got: BTreeSet<_> = pair[B].received(id).iter().collect();
        assert_eq!(got.len(), pair[B].received(id).len());
        assert!(got.is_subset(&sent.iter().collect()));
        assert!((200..300).contains(&got.len()), "{} of 300 at 10 % loss", got.len());
        assert_eq!(pair[A].counters.retransmits_nack, 0);
        assert_eq!(pair[A].session.stats().in_flight_packets, 0);
    });
}

#[test]
fn short_messages_share_packets_and_acknowledgements_ride_on_answers() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let id = pair.open(A, StreamConfig::default());
    pair.send(A, id, &messages(20, 32));
    pair.run_until_received(B, id, 20);
    assert_eq!(pair[A].data_sent(), 1);
    assert!(
        pair[B]
            .events
            .iter()
            .any(|e| matches!(e, Event::Stream { event: StreamEvent::Opened { .. }, .. }))
    );
    // The answer leaves before the acknowledgement is due by itself.
    pair.send(B, id, &messages(1, 32));
    pair.run_until("the request is acknowledged", |p| p[A].session.stats().in_flight_packets == 0);
    assert_eq!((pair[B].data_sent(), pair[B].counters.ack_packets), (1, 0));
}

#[test]
fn equal_seeds_give_equal_runs() {
    let run = |seed| {
        let mut pair = Pair::connected(seed, Link::BAD);
        let id = pair.open(A, config(StreamMode::ORDERED));
        pair.send(A, id, &messages(50, 2_000));
        pair.run_until_received(B, id, 50);
        let sent = |who| pair[who].sent.iter().map(|s| (s.at, s.header)).collect::<Vec<_>>();
        (pair.now, sent(A), sent(B), pair[A].wakeups.clone())
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn a_stream_takes_no_packet_of_another_protocol() {
    let mut pair = Pair::connected(1, Link::GOOD);
    let id = StreamId(2);
    for (who, subprotocol) in [(A, Subprotocol::RPC), (B, Subprotocol::EVENTS)] {
        let config = StreamConfig { subprotocol, ..StreamConfig::default() };
        pair.act(who, |session, _| session.ensure_stream(id, config)).unwrap();
    }
    for (from, to) in [(A, B), (B, A)] {
        pair.send(from, id, &messages(3, 32));
        pair.run_for(millis(50));
        assert_eq!(pair[to].received(id).len(), 0);
        assert!(pair[to].counters.drops(DropReason::Malformed) > 0);
    }
}
