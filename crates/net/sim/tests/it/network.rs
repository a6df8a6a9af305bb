//! Every impairment is there, about as often as asked for, and nothing else happens.

use core::net::SocketAddr;
use core::time::Duration;

use net_sim::{LinkConfig, Network, PPM, SendOutcome};
use net_types::Instant;

const MS: Duration = Duration::from_millis(1);

pub(crate) fn addr(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 4_000))
}

fn network(config: LinkConfig) -> Network {
    let mut network = Network::new(11, config);
    (1..=4).for_each(|number| network.bind(addr(number)));
    network
}

/// Sends `count` datagrams 10 ms apart, each holding its number; arrivals as (number, delay).
fn arrivals(network: &mut Network, count: u64) -> Vec<(u64, Duration)> {
    let sent_at = |number: u64| Instant::ZERO + 10 * MS * u32::try_from(number).unwrap();
    for number in 0..count {
        network.send(sent_at(number), addr(1), addr(2), &number.to_le_bytes());
    }
    let mut out = Vec::new();
    while let Some(delivery) = network.deliver(Instant::FAR_FUTURE) {
        let number = u64::from_le_bytes(delivery.bytes.try_into().unwrap());
        out.push((number, delivery.at.since(sent_at(number))));
    }
    out
}

fn about(found: u64, expected: u64) -> bool {
    found.abs_diff(expected) < expected / 5
}

#[test]
fn a_faultless_link_delivers_everything_in_order_after_its_latency() {
    let mut network = network(LinkConfig::with_latency(3 * MS));
    let expected: Vec<_> = (0..100).map(|number| (number, 3 * MS)).collect();
    assert_eq!(arrivals(&mut network, 100), expected);
    assert_eq!((network.counters().sent, network.counters().delivered), (100, 100));
    assert_eq!(network.next_delivery(), None);
}

#[test]
fn nothing_arrives_early() {
    let mut network = network(LinkConfig::with_latency(3 * MS));
    network.send(Instant::ZERO, addr(1), addr(2), b"x");
    let due = network.next_delivery().unwrap();
    assert_eq!(due, Instant::ZERO + 3 * MS);
    assert_eq!(network.deliver(Instant::from_nanos(due.as_nanos() - 1)), None);
    assert!(network.deliver(due).is_some());
}

#[test]
fn loss_duplication_and_corruption_come_as_often_as_asked() {
    let mut network = network(LinkConfig {
        loss_ppm: 100_000,
        duplicate_ppm: 50_000,
        corrupt_ppm: 20_000,
        ..LinkConfig::with_latency(MS)
    });
    for _ in 0..20_000 {
        network.send(Instant::ZERO, addr(1), addr(2), &[0; 100]);
    }
    let mut damaged = 0;
    let mut arrived = 0;
    while let Some(delivery) = network.deliver(Instant::FAR_FUTURE) {
        let ones: u32 = delivery.bytes.iter().map(|byte| byte.count_ones()).sum();
        assert!(ones <= 1, "at most one bit flips");
        damaged += u64::from(ones);
        arrived += 1;
    }
    let counters = network.counters();
    assert!(about(counters.lost, 2_000), "{counters:?}");
    assert!(about(counters.duplicated, 900), "{counters:?}");
    assert!(about(counters.corrupted, 380), "{counters:?}");
    assert_eq!(damaged, counters.corrupted);
    assert_eq!(arrived, 20_000 - counters.lost + counters.duplicated);
    assert_eq!(arrived, counters.delivered);
}

#[test]
fn jitter_spreads_arrivals_without_reordering_them() {
    let mut network = network(LinkConfig { jitter: 40 * MS, ..LinkConfig::with_latency(5 * MS) });
    let arrived = arrivals(&mut network, 2_000);
    assert!(arrived.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(arrived.iter().all(|(_, delay)| (5 * MS..=45 * MS).contains(delay)));
    assert!(arrived.iter().any(|(_, delay)| *delay < 10 * MS));
    assert!(arrived.iter().any(|(_, delay)| *delay > 40 * MS));
}

#[test]
fn reordering_lets_later_datagrams_overtake() {
    let mut network =
        network(LinkConfig { reorder_ppm: 100_000, ..LinkConfig::with_latency(20 * MS) });
    let arrived = arrivals(&mut network, 2_000);
    let overtaken = arrived.windows(2).filter(|pair| pair[0].0 > pair[1].0).count() as u64;
    assert!(about(network.counters().reordered, 200), "{:?}", network.counters());
    assert!(overtaken > 100, "{overtaken} of {:?}", network.counters());
    assert_eq!(arrived.len(), 2_000);
}

#[test]
fn rate_spaces_datagrams_and_a_full_queue_drops_them() {
    let mut network = network(LinkConfig {
        rate_bytes_per_s: Some(1_000_000),
        queue_bytes: 10_000,
        ..LinkConfig::with_latency(MS)
    });
    let outcomes: Vec<_> =
        (0..15).map(|_| network.send(Instant::ZERO, addr(1), addr(2), &[0; 1_000])).collect();
    assert!(outcomes[..10].iter().all(|o| *o == SendOutcome::InFlight { copies: 0 }));
    assert!(outcomes[10..].iter().all(|o| *o == SendOutcome::QueueFull));
    for number in 1..=10 {
        let delivery = network.deliver(Instant::FAR_FUTURE).unwrap();
        assert_eq!(delivery.at, Instant::ZERO + MS + number * MS);
    }
    // Half of the queue has drained after 5 ms; the other direction was never touched.
    let later = Instant::ZERO + 5 * MS;
    assert_ne!(network.send(later, addr(1), addr(2), &[0; 5_000]), SendOutcome::QueueFull);
    assert_eq!(network.send(later, addr(1), addr(2), &[0; 1]), SendOutcome::QueueFull);
    assert_ne!(network.send(later, addr(2), addr(1), &[0; 9_000]), SendOutcome::QueueFull);
}

#[test]
fn datagrams_above_the_mtu_vanish() {
    let mut network = network(LinkConfig { mtu_bytes: 1_232, ..LinkConfig::default() });
    assert_eq!(network.send(Instant::ZERO, addr(1), addr(2), &[0; 1_233]), SendOutcome::TooLong);
    assert_ne!(network.send(Instant::ZERO, addr(1), addr(2), &[0; 1_232]), SendOutcome::TooLong);
    assert_eq!(network.counters().too_long, 1);
}

#[test]
fn partitions_cut_both_ways_until_healed_and_catch_what_is_in_flight() {
    let mut network = network(LinkConfig::with_latency(MS));
    let passes = |network: &mut Network, from, to| {
        network.send(Instant::ZERO, addr(from), addr(to), b"x");
        network.deliver(Instant::FAR_FUTURE).is_some()
    };
    let (left, right) = ([addr(1), addr(2)], [addr(3), addr(4)]);
    network.partition(&left, &right);
    assert!(!passes(&mut network, 1, 3) && !passes(&mut network, 4, 2));
    assert!(passes(&mut network, 1, 2) && passes(&mut network, 3, 4));
    network.heal(&left, &right);
    assert!(passes(&mut network, 1, 3) && passes(&mut network, 4, 2));

    network.cut_one_way(addr(1), addr(2));
    assert!(!passes(&mut network, 1, 2) && passes(&mut network, 2, 1));
    network.isolate(addr(4));
    assert!(!passes(&mut network, 4, 3) && !passes(&mut network, 3, 4));
    network.rejoin(addr(4));
    assert!(passes(&mut network, 4, 3) && !passes(&mut network, 1, 2));
    network.heal_all();
    assert!(passes(&mut network, 1, 2));

    network.send(Instant::ZERO, addr(1), addr(2), b"caught");
    network.partition(&left, &left);
    assert_eq!(network.deliver(Instant::FAR_FUTURE), None);
}

#[test]
fn datagrams_to_an_unbound_address_are_counted_and_a_new_holder_gets_late_ones() {
    let mut network = network(LinkConfig::with_latency(MS));
    network.unbind(addr(2));
    network.send(Instant::ZERO, addr(1), addr(2), b"a");
    assert_eq!(network.deliver(Instant::FAR_FUTURE), None);
    assert_eq!(network.counters().unbound, 1);
    network.send(Instant::ZERO, addr(1), addr(2), b"b");
    network.bind(addr(2));
    assert_eq!(network.deliver(Instant::FAR_FUTURE).unwrap().bytes, b"b");
}

#[test]
fn a_link_of_its_own_differs_from_the_default() {
    let mut network = network(LinkConfig::with_latency(MS));
    let lossy = LinkConfig { loss_ppm: PPM, ..LinkConfig::default() };
    network.set_link(addr(1), addr(2), lossy);
    assert_eq!(network.send(Instant::ZERO, addr(1), addr(2), b"x"), SendOutcome::Lost);
    assert_ne!(network.send(Instant::ZERO, addr(2), addr(1), b"x"), SendOutcome::Lost);
    network.set_link_both(addr(3), addr(4), lossy);
    assert_eq!(network.send(Instant::ZERO, addr(4), addr(3), b"x"), SendOutcome::Lost);
    network.set_default_link(lossy);
    assert_eq!(network.send(Instant::ZERO, addr(2), addr(1), b"x"), SendOutcome::Lost);
}
