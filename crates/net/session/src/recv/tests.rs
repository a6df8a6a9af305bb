//! What a receiving half takes, holds, delivers and gives up.

use net_types::limits::DEFAULT_STREAM_WINDOW_BYTES;
use net_wire::push_event;

use super::*;

fn event(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push_event(&mut out, text);
    out
}

fn stream(mode: StreamMode) -> RecvStream {
    RecvStream::new(mode, DEFAULT_STREAM_WINDOW_BYTES)
}

fn whole(sequence: u64, payload: &[u8]) -> Arrival<'_> {
    Arrival { sequence, events: 1, frag_index: 0, frag_count: 0, is_fin: false, payload }
}

fn receive(s: &mut RecvStream, sequence: u64, text: &[u8]) -> Vec<Bytes> {
    let payload = event(text);
    assert!(matches!(s.accept(sequence, payload.len()), Accepted::Yes { .. }));
    let mut got = Vec::new();
    s.deliver(Instant::ZERO, &whole(sequence, &payload), |d| got.push(d.message)).unwrap();
    got
}

#[test]
fn unordered_streams_deliver_at_once_and_ordered_ones_wait() {
    let mut s = stream(StreamMode::RELIABLE);
    assert_eq!(receive(&mut s, 1, b"b").len(), 1);
    assert_eq!(receive(&mut s, 0, b"a").len(), 1);
    let mut s = stream(StreamMode::ORDERED);
    assert_eq!(receive(&mut s, 2, b"c").len(), 0);
    assert_eq!(receive(&mut s, 1, b"b").len(), 0);
    assert!(s.buffered().unpaid > 0);
    assert_eq!(receive(&mut s, 0, b"a"), [&b"a"[..], b"b", b"c"]);
    assert_eq!(s.buffered(), Counted::default());
}

#[test]
fn duplicates_and_far_packets_are_not_used() {
    let mut s = stream(StreamMode::RELIABLE);
    assert_eq!(s.accept(0, 1), Accepted::Yes { order: Order::InTurn });
    assert_eq!(s.accept(0, 1), Accepted::Duplicate);
    assert_eq!(s.accept(2, 1), Accepted::Yes { order: Order::OpensGap });
    assert_eq!(s.accept(2, 1), Accepted::Duplicate);
    assert_eq!(s.accept(3, 1), Accepted::Yes { order: Order::InTurn });
    assert_eq!(s.accept(1 + MAX_REORDER_PACKETS, 1), Accepted::Beyond);
    assert_eq!(s.gaps(0), Some((1..4, vec![Gap { start: 1, length: 1 }])));
}

#[test]
fn a_sender_that_ignores_the_window_is_refused_until_the_application_reads() {
    let mut s = stream(StreamMode::RELIABLE);
    let mut sequence = 0;
    while s.accept(sequence, 10_000) != Accepted::Beyond {
        sequence += 1;
    }
    assert_eq!(sequence, 7);
    s.consume(70_000);
    assert_eq!(s.accept(sequence, 10_000), Accepted::Yes { order: Order::InTurn });
}

#[test]
fn a_grant_is_urgent_when_the_sender_has_no_room_for_a_packet_or_much_is_released() {
    let mut s = RecvStream::new(StreamMode::RELIABLE, 100_000);
    s.accept(0, 30_000);
    assert!(!s.is_grant_urgent());
    s.consume(20_000);
    assert!(!s.is_grant_urgent());
    s.consume(5_000);
    assert!(s.is_grant_urgent());
    s.note_window_report();
    s.consume(1_000);
    assert!(!s.is_grant_urgent());
    s.accept(1, 90_000);
    assert!(s.is_grant_urgent());
    s.note_window_report();
    // The application reads nothing: there is nothing to tell.
    assert!(!s.is_grant_urgent());
    let mut s = RecvStream::new(StreamMode::FIRE_AND_FORGET, 100_000);
    s.accept(0, 24_999);
    assert!(!s.is_grant_urgent());
    s.accept(1, 1);
    assert!(s.is_grant_urgent());
}

#[test]
fn unreliable_gaps_are_declared_lost_behind_the_newest() {
    let mut s = stream(StreamMode::FIRE_AND_FORGET);
    s.accept(0, 1);
    s.accept(5, 1);
    assert_eq!(s.next_expected(), 1);
    s.accept(100, 1);
    assert_eq!((s.next_expected(), s.take_losses().packets), (37, 35));
}

#[test]
fn reported_unreliable_gaps_are_given_up_soon() {
    let mut s = stream(StreamMode::FIRE_AND_FORGET);
    for sequence in [0, 2, 4] {
        s.accept(sequence, 1);
    }
    s.note_report(s.highest);
    s.accept(6, 1);
    s.give_up_reported();
    assert_eq!((s.next_expected(), s.take_losses().packets), (5, 2));
    assert_eq!(s.accept(3, 1), Accepted::Duplicate);
    assert_eq!(s.accept(5, 1), Accepted::Yes { order: Order::FillsGap });
    assert_eq!(s.next_expected(), 7);
}

#[test]
fn an_unreliable_stream_survives_any_jump_at_once() {
    let mut s = stream(StreamMode::FIRE_AND_FORGET);
    s.accept(0, 1);
    let far = MAX_SEQUENCE - 1;
    assert_eq!(s.accept(far, 1), Accepted::Yes { order: Order::OpensGap });
    assert_eq!(s.next_expected(), far - 63);
    assert_eq!(s.take_losses().packets, MAX_REORDER_PACKETS);
    for refused in [MAX_SEQUENCE, u64::MAX] {
        assert_eq!(s.accept(refused, 1), Accepted::Beyond);
    }
    assert_eq!(s.accept(far - 64, 1), Accepted::Duplicate);
    assert_eq!(s.accept(far - 63, 1), Accepted::Yes { order: Order::FillsGap });
}

#[test]
fn the_end_of_an_unreliable_stream_ends_the_wait_for_what_is_missing() {
    let mut s = stream(StreamMode::FIRE_AND_FORGET);
    receive(&mut s, 0, b"a");
    receive(&mut s, 3, b"d");
    s.accept(5, 0);
    let fin = Arrival { is_fin: true, events: 0, ..whole(5, &[]) };
    s.deliver(Instant::ZERO, &fin, |_| panic!("the end is empty")).unwrap();
    assert!(s.is_finished());
    assert_eq!((s.next_expected(), s.take_losses().packets), (6, 3));
}

#[test]
fn a_fragment_releases_its_credit_except_at_the_end_of_its_message() {
    let mut s = RecvStream::new(StreamMode::RELIABLE, 416);
    let payload = event(&[1; 100]);
    let mut credit = None;
    for index in 0..5u16 {
        assert_eq!(credit, None);
        s.accept(index.into(), payload.len());
        let a = Arrival { frag_index: index, frag_count: 5, ..whole(index.into(), &payload) };
        s.deliver(Instant::ZERO, &a, |d| credit = Some(d.credit)).unwrap();
    }
    assert_eq!(s.window(StreamId(9)).total_consumed, 312);
    assert_eq!(credit, Some(208));
}

#[test]
fn pieces_make_a_packet_and_are_forgotten_when_it_comes_whole() {
    let mut s = stream(StreamMode::RELIABLE);
    let payload = event(&[7; 96]);
    let piece = |offset: u16, bytes| Piece {
        subprotocol: net_wire::Subprotocol::EVENTS,
        total: 100,
        offset,
        bytes,
    };
    assert_eq!(s.add_piece(0, &piece(50, &payload[50..])), None);
    assert_eq!(s.add_piece(0, &piece(0, &payload[..50])), Some(Ok(payload.clone())));
    assert_eq!(receive(&mut s, 0, &[7; 96]).len(), 1);
    let again = s.add_piece(0, &piece(50, &payload[50..]));
    assert_eq!(again, Some(Err(Accepted::Duplicate)));
    assert_eq!(s.add_piece(1, &piece(50, &payload[50..])), None);
    assert!(s.buffered().unpaid > 0);
    receive(&mut s, 1, b"whole");
    assert_eq!(s.buffered(), Counted::default());
}

#[test]
fn a_fragment_that_is_not_exactly_one_event_is_refused() {
    let mut s = stream(StreamMode::RELIABLE);
    let two = [event(b"a"), event(b"b")].concat();
    for (events, payload) in [(0, &[][..]), (2, &two), (1, &two), (1, &two[..3])] {
        let a = Arrival { events, frag_index: 0, frag_count: 2, ..whole(0, payload) };
        assert!(s.deliver(Instant::ZERO, &a, |_| panic!("not a message")).is_err());
    }
}

fn part(sequence: u64, frag_index: u16, payload: &[u8]) -> Arrival<'_> {
    Arrival { frag_index, frag_count: 3, ..whole(sequence, payload) }
}

#[test]
fn a_message_that_began_needs_no_more_room_and_a_late_duplicate_none() {
    let mut s = stream(StreamMode::RELIABLE);
    let payload = event(&[1; 100]);
    let first = part(1, 1, &payload);
    let Need::Message(price) = s.need(&first) else { panic!("a message begins") };
    assert!(price > 300);
    let mut got = 0;
    for a in [first, part(0, 0, &payload), part(2, 2, &payload)] {
        assert_eq!(s.need(&a) == Need::Nothing, a.sequence != 1);
        s.accept(a.sequence, payload.len());
        s.deliver(Instant::ZERO, &a, |_| got += 1).unwrap();
        assert_eq!(s.buffered().paid, if got == 0 { price } else { 0 });
    }
    assert_eq!((got, s.need(&first)), (1, Need::Nothing));
}

#[test]
fn a_message_that_was_held_is_paid_for_when_its_next_part_comes_in_turn() {
    let mut s = stream(StreamMode::ORDERED);
    let (short, payload) = (event(b"a"), event(&[1; 100]));
    let take = |s: &mut RecvStream, a: Arrival<'_>| {
        let need = s.need(&a);
        s.accept(a.sequence, a.payload.len());
        let mut got = 0;
        s.deliver(Instant::ZERO, &a, |_| got += 1).unwrap();
        (need, got)
    };
    assert!(matches!(take(&mut s, part(1, 0, &payload)), (Need::Held(_), 0)));
    assert_eq!(take(&mut s, whole(0, &short)), (Need::Nothing, 1));
    let Counted { paid, unpaid } = s.buffered();
    assert!(paid == 0 && unpaid > 100);
    let (Need::Message(price), 0) = take(&mut s, part(2, 1, &payload)) else {
        panic!("the message is to be paid for")
    };
    assert_eq!(s.buffered(), Counted { paid: price, unpaid: 0 });
    assert_eq!(take(&mut s, part(3, 2, &payload)), (Need::Nothing, 1));
    assert_eq!(s.buffered(), Counted::default());
}
