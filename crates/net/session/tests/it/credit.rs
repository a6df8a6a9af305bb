//! A sender waits for a reader, asks again for a grant that was lost, and says when there is room.

use net_session::{SendError, StreamConfig, StreamEvent, Subprotocol, Timer};

use crate::pair::{A, B, Link, Pair, is_data, messages, millis, of_stream, secs};

const WINDOW: u32 = 10_000;

fn blocked() -> (Pair, net_types::StreamId) {
    let mut pair = Pair::connected(1, Link::GOOD);
    pair[B].is_reading = false;
    let id = pair.open(
        A,
        StreamConfig {
            window_bytes: WINDOW,
            subprotocol: Subprotocol::FIRST_APPLICATION,
            ..StreamConfig::default()
        },
    );
    assert_eq!(pair.send(A, id, &messages(40, 1_000)), 40);
    pair.run_for(millis(500));
    (pair, id)
}

#[test]
fn a_reader_that_pauses_stops_the_sender_at_its_window() {
    let (mut pair, id) = blocked();
    let bytes: usize = pair[B].received(id).iter().map(|m| m.len() + 4).sum();
    assert!(bytes <= WINDOW as usize && bytes + 1_004 > WINDOW as usize, "{bytes} bytes");
    pair[B].is_reading = true;
    pair.read(B);
    let start = pair.now;
    pair.run_until_received(B, id, 40);
    // Grants are urgent: no round trip waits for a timer.
    assert!(pair.now.since(start) < millis(150), "{:?}", pair.now.since(start));
}

#[test]
fn a_window_that_is_read_at_once_costs_a_round_trip_for_each_of_its_fills() {
    let mut pair = Pair::connected(1, Link::GOOD);
    // Two messages fit.
    let id = pair.open(A, StreamConfig { window_bytes: 3_000, ..StreamConfig::default() });
    let start = pair.now;
    assert_eq!(pair.send(A, id, &messages(20, 1_000)), 20);
    pair.run_until_received(B, id, 20);
    assert_eq!(pair.now.since(start), millis(9 * 20 + 10));
}

#[test]
fn a_lost_grant_is_asked_for() {
    let (mut pair, id) = blocked();
    pair[B].is_reading = true;
    pair[B].link.is_cut = true;
    pair.read(B);
    pair.run_for(millis(50));
    pair[B].link.is_cut = false;
    pair[A].wakeups.clear();
    let probes = |pair: &Pair| {
        let empty = |h: &net_wire::Header| is_data(h) && h.event_count == 0;
        pair[A].sent.iter().filter(|s| empty(&s.header)).count()
    };
    let before = probes(&pair);
    pair.run_until_received(B, id, 40);
    assert!(probes(&pair) > before);
    assert!(!pair[A].woken_for(Timer::Retransmit).is_empty());
}

#[test]
fn window_probes_of_a_paused_reader_become_rare() {
    let (mut pair, _) = blocked();
    pair.run_for(secs(10));
    pair[A].wakeups.clear();
    pair.run_for(secs(20));
    let wakeups = pair[A].woken_for(Timer::Retransmit).len();
    assert!((8..=12).contains(&wakeups), "{wakeups} wake-ups in 20 s at one in 2 s");
}

#[test]
fn a_full_queue_refuses_and_says_when_there_is_room() {
    let mut pair = Pair::connected(1, Link::GOOD);
    pair[B].is_reading = false;
    let id = pair.open(A, StreamConfig { window_bytes: WINDOW, ..StreamConfig::default() });
    let many = messages(20_000, 1_000);
    let taken = pair.send(A, id, &many);
    assert!(taken < many.len());
    let again = pair.act(A, |s, _| s.send(id, many[0].clone()));
    assert_eq!(again, Err(SendError::Backpressure));
    pair.run_for(secs(1));
    let is_told = |p: &Pair| p[A].events.contains(&of_stream(id, StreamEvent::Writable));
    assert!(!is_told(&pair));
    pair[B].is_reading = true;
    pair.read(B);
    pair.run_until("there is room", is_told);
    assert_eq!(pair.send(A, id, &many[..1]), 1);
    pair.run_until_received(B, id, taken + 1);
}
