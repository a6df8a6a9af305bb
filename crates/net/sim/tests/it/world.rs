//! The loop: repeatable, exact in time, and never without an end.

use core::net::SocketAddr;
use core::time::Duration;

use net_sim::{Host, HostClock, LinkConfig, Stop, Transmit, World, seeds};
use net_types::Instant;

use crate::courier::{Acks, couriers};
use crate::network::addr;

const MS: Duration = Duration::from_millis(1);

/// A run with faults of every kind: the trace's text and hash.
fn eventful_run(seed: u64) -> (String, String) {
    let (mut world, sender, receiver) = couriers(seed, 100, Acks::Honest);
    world.run_for(60 * MS).unwrap();
    world.network().partition(&[addr(1)], &[addr(2)]);
    world.run_for(100 * MS).unwrap();
    world.network().heal_all();
    let stays = world.crash(receiver).unwrap();
    world.run_for(100 * MS).unwrap();
    world.restart(receiver, stays);
    world.rebind(sender, addr(9));
    let pause = MS * (world.rng().below(50) as u32);
    world.run_for(pause).unwrap();
    world.note("the last stretch");
    world
        .run_until(Duration::from_secs(60), |world| world.host(sender).acked().len() == 100)
        .unwrap();
    (world.trace().text(), world.trace().hash())
}

#[test]
fn one_seed_gives_one_trace_and_another_seed_another() {
    seeds!(10, |seed| {
        let (text, hash) = eventful_run(seed);
        assert_eq!((&text, &hash), (&eventful_run(seed).0, &eventful_run(seed).1));
        assert_ne!(hash, eventful_run(seed + 1).1);
        for event in ["start", "send", "recv", "timer", "cut", "lost", "crash", "restart", "rebind"]
        {
            assert!(text.contains(event), "no {event} in the trace");
        }
    });
}

#[test]
fn the_trace_of_a_seed_is_the_same_on_every_machine() {
    assert_eq!(
        eventful_run(1).1,
        "0f4385f4d25057d67c1a9fd771e4802b75b20754ff50d013d36b171ed0486c02",
        "the simulation behaves differently; if that is meant, replace the hash"
    );
}

/// Fires every `period` of its own clock, and notes when.
struct Ticker {
    period: Duration,
    next: Instant,
    ticks: Vec<Instant>,
}

impl Ticker {
    fn new(period: Duration, start: Instant) -> Self {
        Self { period, next: start, ticks: Vec::new() }
    }
}

impl Host for Ticker {
    fn handle_datagram(&mut self, _: Instant, _: SocketAddr, _: &mut [u8]) {}

    fn handle_timeout(&mut self, now: Instant) {
        self.ticks.push(now);
        self.next += self.period;
    }

    fn poll_transmit(&mut self, _: Instant) -> Option<Transmit> {
        None
    }

    fn next_timeout(&self) -> Option<Instant> {
        Some(self.next)
    }
}

#[test]
fn timers_fire_exactly_when_due() {
    let mut world = World::new(1, LinkConfig::default());
    let id = world.add_host(addr(1), Ticker::new(7 * MS, Instant::ZERO + 3 * MS));
    world.run_for(20 * MS).unwrap();
    let due = [3, 10, 17].map(|ms| Instant::ZERO + MS * ms);
    assert_eq!(world.host(id).ticks, due);
    assert_eq!(world.now(), Instant::ZERO + 20 * MS);
}

#[test]
fn hosts_live_by_their_own_clocks() {
    let mut world = World::new(1, LinkConfig::default());
    let hour = Duration::from_secs(3_600);
    let fast = HostClock { offset: hour, drift_ppm: 100_000 };
    let id = world.add_host_with_clock(addr(1), fast, Ticker::new(MS, Instant::ZERO + hour));
    let plain = world.add_host(addr(2), Ticker::new(MS, Instant::ZERO));
    world.run_for(1_000 * MS).unwrap();
    assert_eq!(world.host(plain).ticks.len(), 1_001);
    assert_eq!(world.host(id).ticks.len(), 1_101);
    assert_eq!(world.local_now(id), Instant::ZERO + hour + 1_100 * MS);
    assert!(world.host(id).ticks.iter().all(|tick| *tick >= Instant::ZERO + hour));
}

/// Answers every datagram with itself.
struct Echo {
    queue: Vec<Transmit>,
}

impl Host for Echo {
    fn handle_datagram(&mut self, _: Instant, from: SocketAddr, datagram: &mut [u8]) {
        self.queue.push(Transmit { to: from, bytes: datagram.to_vec(), segment_bytes: None });
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_transmit(&mut self, _: Instant) -> Option<Transmit> {
        self.queue.pop()
    }

    fn next_timeout(&self) -> Option<Instant> {
        None
    }
}

#[test]
fn chatter_without_an_end_is_reported_and_silence_too() {
    // Without latency the echoes never let the clock move.
    let mut world = World::new(1, LinkConfig::with_latency(Duration::ZERO));
    world.set_budget(1_000);
    let id = world.add_host(addr(1), Echo { queue: Vec::new() });
    world.add_host(addr(2), Echo { queue: Vec::new() });
    let idle = world.run_until(MS, |_| false);
    assert_eq!(idle, Err(Stop::Idle { at: Instant::ZERO }));
    let first = Transmit { to: addr(2), bytes: b"again".to_vec(), segment_bytes: None };
    world.host_mut(id).queue.push(first);
    let stop = world.run_until(MS, |_| false);
    assert_eq!(stop, Err(Stop::Budget { events: 1_000, at: Instant::ZERO }));
}

#[test]
fn a_condition_that_does_not_hold_in_time_is_reported() {
    let mut world = World::new(1, LinkConfig::default());
    world.add_host(addr(1), Ticker::new(MS, Instant::ZERO));
    let limit = Instant::ZERO + 5 * MS;
    assert_eq!(world.run_until(5 * MS, |_| false), Err(Stop::Limit { at: limit }));
    assert_eq!(world.now(), limit);
}

#[test]
fn a_crashed_host_neither_receives_nor_fires() {
    let mut world = World::new(1, LinkConfig::default());
    let id = world.add_host(addr(1), Ticker::new(MS, Instant::ZERO));
    world.run_for(3 * MS).unwrap();
    let before = world.crash(id).unwrap();
    assert!(!world.is_alive(id) && world.crash(id).is_none());
    world.run_for(10 * MS).unwrap();
    world.restart(id, Ticker::new(MS, world.local_now(id)));
    world.run_for(2 * MS).unwrap();
    assert_eq!((before.ticks.len(), world.host(id).ticks.len()), (4, 3));
}

#[test]
fn segments_travel_as_datagrams_of_their_own() {
    let mut world = World::new(1, LinkConfig::default());
    let id = world.add_host(addr(1), Echo { queue: Vec::new() });
    let bytes = vec![7; 2_500];
    world.host_mut(id).queue.push(Transmit { to: addr(2), bytes, segment_bytes: Some(1_000) });
    world.host_mut(id).queue.push(Transmit { to: addr(2), bytes: Vec::new(), segment_bytes: None });
    world.run_for(MS).unwrap();
    let text = world.trace().text();
    let lengths: Vec<&str> =
        text.lines().filter_map(|line| line.split(" send ").nth(1)?.split(' ').nth(2)).collect();
    assert_eq!(lengths, ["0", "1000", "1000", "500"]);
    assert_eq!(world.network().counters().unbound, 4);
}
