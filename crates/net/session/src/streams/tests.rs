//! How streams end, which one sends next, and when a long message may begin.

use bytes::Bytes;
use net_types::limits::{MAX_MESSAGE_BYTES, MAX_REASSEMBLY_BYTES};
use net_wire::{Class, Header, Kind};

use super::ended::MAX_ENDED;
use super::schedule::CLASS_RUN;
use super::*;

fn open_and_end(streams: &mut Streams, id: u64, by_force: bool) {
    let id = StreamId(id);
    let slot = streams.accept(id, StreamConfig::default()).unwrap();
    let window = streams.get(slot).unwrap().recv.window(id);
    streams.remove(slot, if by_force { gone(id) } else { window });
    streams.check_invariants();
}

/// Takes the next packet; returns its slot.
fn take(streams: &mut Streams) -> Option<usize> {
    let (mut counters, mut events) = (crate::Counters::default(), VecDeque::new());
    let mut rng = net_crypto::Seeded::from_u64(0);
    let now = Instant::ZERO;
    let mut ctx = Context { now, rng: &mut rng, counters: &mut counters, events: &mut events };
    let mut header = Header::new(Kind::Data, net_types::SessionId(1), 0);
    streams.next_packet(&mut ctx, true, &mut header).map(|p| p.slot)
}

#[test]
fn an_ended_stream_stays_ended_however_many_follow() {
    // The peer is the initiator: its streams are odd.
    let mut streams = Streams::new(false);
    open_and_end(&mut streams, 17, false);
    open_and_end(&mut streams, 19, true);
    assert_eq!(streams.ended_window(StreamId(19), 5).map(|w| w.ack_seq), Some(GONE));
    for i in 0..5 * MAX_ENDED as u64 {
        open_and_end(&mut streams, 21 + 2 * i, false);
    }
    assert!(streams.ended.is_full());
    let late = streams.ended_window(StreamId(17), 5);
    assert_eq!(late.map(|w| (w.ack_seq, w.total_consumed)), Some((6, 0)));
    let next = StreamId(21 + 10 * MAX_ENDED as u64);
    assert_eq!(streams.ended_window(next, 0), None);
    assert_eq!((streams.len(), streams.from_peer), (0, 0));
}

#[test]
fn a_stream_that_ended_before_it_came_never_opens() {
    let mut streams = Streams::new(false);
    streams.never_open(StreamId(17));
    streams.never_open(StreamId(16));
    assert_eq!(streams.ended_window(StreamId(17), 0), Some(gone(StreamId(17))));
    // Even ids are this side's, and it has opened none.
    assert_eq!(streams.ended_window(StreamId(16), 0), None);
    let own = streams.open(StreamConfig::default()).unwrap();
    assert_eq!(own, StreamId(16));
    assert!(streams.ended_window(own, 0).is_none_or(|w| w.ack_seq != GONE));
    let slot = streams.find(own).unwrap();
    streams.remove(slot, gone(own));
    assert_eq!(streams.ended_window(own, 0), Some(gone(own)));
}

#[test]
fn a_class_gives_way_only_to_one_that_can_send() {
    let mut streams = Streams::new(true);
    let mut queue = |class| {
        let id = streams.open(StreamConfig { class, ..StreamConfig::default() }).unwrap();
        let message = Bytes::from(vec![0; 60_000]);
        streams.send(id, 60_000, |send| send.queue_bytes(message, 1_134)).unwrap();
        streams.find(id).unwrap()
    };
    let (urgent, idle) = (queue(Class::Realtime), queue(Class::Background));
    // In line, but with nothing to send any more.
    let stream = streams.get_mut(idle).unwrap();
    while stream.send.take(Instant::ZERO).is_some() {}
    for _ in 0..3 * CLASS_RUN {
        assert_eq!(streams.next_ready(), Some(urgent));
    }
}

#[test]
fn messages_begin_when_the_peer_has_room_for_them() {
    let mut streams = Streams::new(true);
    let message = Bytes::from(vec![0; MAX_MESSAGE_BYTES]);
    for _ in 0..6 {
        let config = StreamConfig { window_bytes: u32::MAX, ..StreamConfig::default() };
        let id = streams.open(config).unwrap();
        // Beside the limit of the session's queue, which holds less than five of them.
        let slot = streams.find(id).unwrap();
        streams.get_mut(slot).unwrap().send.queue_bytes(message.clone(), 8_112).unwrap();
        streams.settle(slot);
    }
    let send_all = |streams: &mut Streams| {
        while take(streams).is_some() {}
        streams.check_invariants();
        assert!(streams.sums.begun_bytes <= MAX_REASSEMBLY_BYTES);
        streams.iter().filter(|s| s.send.has_unacked()).count()
    };
    assert_eq!(send_all(&mut streams), 3);
    // One message is there.
    let slot = streams.find(StreamId(17)).unwrap();
    let send = &mut streams.get_mut(slot).unwrap().send;
    let end = (0..).find(|sequence| send.packet(*sequence).is_none()).unwrap();
    send.on_window(Instant::ZERO, end, 0).unwrap();
    streams.settle(slot);
    assert_eq!(send_all(&mut streams), 3);
    // One stream is reset.
    let slot = streams.find(StreamId(19)).unwrap();
    streams.remove(slot, gone(StreamId(19)));
    assert_eq!(send_all(&mut streams), 3);
    // The one that still waits is reset.
    let slot = streams.find(StreamId(27)).unwrap();
    assert!(streams.schedule.is_waiting(slot));
    streams.remove(slot, gone(StreamId(27)));
    assert_eq!(send_all(&mut streams), 3);
}
