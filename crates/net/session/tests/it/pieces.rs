//! Packets follow the path: larger ones where it carries them, pieces where it no longer does.

use net_session::{StreamConfig, Timer};
use net_wire::{Flags, Subprotocol};

use crate::pair::{A, B, Link, Pair, messages, millis, secs};

const JUMBO: Link = Link { mtu_bytes: 8_192, ..Link::GOOD };

#[test]
fn the_search_finds_what_the_path_carries_and_pauses() {
    for (mtu, expected) in [(1_214, 1_214), (1_400, 1_374), (1_452, 1_434), (8_192, 8_192)] {
        let mut pair = Pair::connected(1, Link { mtu_bytes: mtu, ..Link::GOOD });
        assert_eq!(pair[A].session.stats().packet_bytes, expected, "on a path of {mtu} bytes");
        pair[A].wakeups.clear();
        pair.run_for(secs(500));
        assert_eq!(pair[A].woken_for(Timer::MtuProbe), []);
    }
}

#[test]
fn packets_that_the_path_no_longer_carries_arrive_in_pieces() {
    net_sim::seeds!(5, |seed| {
        let mut pair = Pair::connected(seed, JUMBO);
        let id = pair.open(A, StreamConfig::default());
        let sent = messages(30, 7_000);
        pair.send(A, id, &sent);
        pair.run_for(millis(1));
        for who in [A, B] {
            pair[who].link = Link { loss_ppm: 50_000, reorder_ppm: 50_000, ..Link::GOOD };
        }
        pair.run_until_received(B, id, 30);
        assert_eq!(pair[A].session.stats().packet_bytes, 1_214);
        let is_piece = |f: Flags, s| f.contains(Flags::CONTROL) && s == Subprotocol::STREAM_PIECE;
        let pieces = pair[A].sent.iter().filter(|s| is_piece(s.header.flags, s.header.subprotocol));
        assert!(pieces.count() > 0);
        let mut got = pair[B].received(id).to_vec();
        got.sort();
        assert_eq!(got, {
            let mut s = sent;
            s.sort();
            s
        });
        pair.run_for(secs(5));
        assert_eq!(pair[A].session.stats().in_flight_packets, 0);
    });
}

#[test]
fn a_dead_path_does_not_look_like_a_narrow_one() {
    let mut pair = Pair::connected(1, JUMBO);
    let id = pair.open(A, StreamConfig::default());
    pair[A].link.is_cut = true;
    pair.send(A, id, &messages(10, 7_000));
    pair.run_for(secs(8));
    assert_eq!(pair[A].session.stats().packet_bytes, 8_192);
    pair[A].link.is_cut = false;
    pair.run_until_received(B, id, 10);
    assert_eq!(pair[A].session.stats().packet_bytes, 8_192);
}
