//! The network: datagrams in flight between addresses, over links that delay, lose, copy, reorder,
//! damage and cut.
//!
//! Invariants: a datagram arrives at or after it was sent; each one that was sent, and each copy,
//! is counted under one fate or is in flight; equal seeds and equal calls give equal deliveries;
//! the network holds what is in flight and one record per link that was used.

use core::cmp::Reverse;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use net_types::Instant;

use crate::link::LinkConfig;
use crate::rng::SimRng;

/// A datagram that reached its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When it arrived.
    pub at: Instant,
    /// The sender's address.
    pub from: SocketAddr,
    /// The receiver's address, bound at the time.
    pub to: SocketAddr,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// What became of one call of [`Network::send`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// One or more copies are on their way.
    InFlight {
        /// Copies beside the first.
        copies: u32,
    },
    /// Longer than the link's MTU.
    TooLong,
    /// The link's queue was full.
    QueueFull,
    /// Sender and receiver were cut off from each other.
    Cut,
    /// Lost by chance.
    Lost,
}

/// Datagrams by fate, since the network was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounters {
    /// Calls of [`Network::send`].
    pub sent: u64,
    /// Handed to a bound address, copies included.
    pub delivered: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Extra copies put in flight.
    pub duplicated: u64,
    /// Held back so that later ones overtake them.
    pub reordered: u64,
    /// Put in flight with one bit flipped.
    pub corrupted: u64,
    /// Dropped for their length.
    pub too_long: u64,
    /// Dropped for a full queue.
    pub queue_full: u64,
    /// Dropped because sender and receiver were cut off, at sending or on arrival.
    pub cut: u64,
    /// Arrived at an address that no socket had bound.
    pub unbound: u64,
}

/// One direction between two addresses.
#[derive(Default)]
struct Link {
    config: Option<LinkConfig>,
    /// When the last queued byte has been transmitted.
    busy_until: Option<Instant>,
    /// Arrival of the newest datagram that was not held back.
    last_arrival: Option<Instant>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    at: Instant,
    /// Breaks ties in sending order.
    number: u64,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// All links and everything in flight on them.
pub struct Network {
    rng: SimRng,
    default_link: LinkConfig,
    links: BTreeMap<(SocketAddr, SocketAddr), Link>,
    bound: BTreeSet<SocketAddr>,
    cut_pairs: BTreeSet<(SocketAddr, SocketAddr)>,
    isolated: BTreeSet<SocketAddr>,
    in_flight: BinaryHeap<Reverse<InFlight>>,
    next_number: u64,
    counters: NetworkCounters,
}

impl Network {
    /// An empty network whose links behave like `default_link` until told otherwise.
    pub fn new(seed: u64, default_link: LinkConfig) -> Self {
        Self {
            rng: SimRng::new(seed, "network"),
            default_link,
            links: BTreeMap::new(),
            bound: BTreeSet::new(),
            cut_pairs: BTreeSet::new(),
            isolated: BTreeSet::new(),
            in_flight: BinaryHeap::new(),
            next_number: 0,
            counters: NetworkCounters::default(),
        }
    }

    /// Lets `addr` receive. Datagrams still in flight to an earlier holder reach the new one.
    pub fn bind(&mut self, addr: SocketAddr) {
        self.bound.insert(addr);
    }

    /// Stops `addr` from receiving.
    pub fn unbind(&mut self, addr: SocketAddr) {
        self.bound.remove(&addr);
    }

    /// Sets the behaviour of links without one of their own.
    pub fn set_default_link(&mut self, config: LinkConfig) {
        self.default_link = config;
    }

    /// Sets the behaviour of the direction from `from` to `to`.
    pub fn set_link(&mut self, from: SocketAddr, to: SocketAddr, config: LinkConfig) {
        self.links.entry((from, to)).or_default().config = Some(config);
    }

    /// Sets the behaviour of both directions between `a` and `b`.
    pub fn set_link_both(&mut self, a: SocketAddr, b: SocketAddr, config: LinkConfig) {
        self.set_link(a, b, config);
        self.set_link(b, a, config);
    }

    /// Cuts the direction from `from` to `to` alone.
    pub fn cut_one_way(&mut self, from: SocketAddr, to: SocketAddr) {
        self.cut_pairs.insert((from, to));
    }

    /// Cuts every address of `left` off every address of `right`, both ways; what is in flight
    /// between them is dropped on arrival.
    pub fn partition(&mut self, left: &[SocketAddr], right: &[SocketAddr]) {
        for &a in left {
            for &b in right {
                self.cut_pairs.extend([(a, b), (b, a)]);
            }
        }
    }

    /// Undoes [`Self::partition`] and [`Self::cut_one_way`] between the two groups.
    pub fn heal(&mut self, left: &[SocketAddr], right: &[SocketAddr]) {
        for &a in left {
            for &b in right {
                self.cut_pairs.remove(&(a, b));
                self.cut_pairs.remove(&(b, a));
            }
        }
    }

    /// Cuts `addr` off from every other address, also from those bound later.
    pub fn isolate(&mut self, addr: SocketAddr) {
        self.isolated.insert(addr);
    }

    /// Undoes [`Self::isolate`].
    pub fn rejoin(&mut self, addr: SocketAddr) {
        self.isolated.remove(&addr);
    }

    /// Undoes every cut and isolation.
    pub fn heal_all(&mut self) {
        self.cut_pairs.clear();
        self.isolated.clear();
    }

    /// Whether nothing passes from `from` to `to`.
    pub fn is_cut(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.cut_pairs.contains(&(from, to))
            || self.isolated.contains(&from)
            || self.isolated.contains(&to)
    }

    /// Datagrams by fate so far.
    pub fn counters(&self) -> NetworkCounters {
        self.counters
    }

    /// Asserts that every datagram that was sent, and every copy, has one fate or is in flight.
    pub fn check_invariants(&self) {
        let c = &self.counters;
        let dropped = c.lost + c.too_long + c.queue_full + c.cut + c.unbound;
        let known = c.delivered + dropped + self.in_flight.len() as u64;
        assert_eq!(c.sent + c.duplicated, known, "{c:?}, {} in flight", self.in_flight.len());
    }

    /// Puts a datagram on the link, or drops it as the link's behaviour says.
    pub fn send(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> SendOutcome {
        self.counters.sent += 1;
        if self.is_cut(from, to) {
            self.counters.cut += 1;
            return SendOutcome::Cut;
        }
        let link = self.links.entry((from, to)).or_default();
        let config = link.config.unwrap_or(self.default_link);
        if bytes.len() > config.mtu_bytes {
            self.counters.too_long += 1;
            return SendOutcome::TooLong;
        }
        let Some(transmitted) = link.transmit(now, bytes.len(), &config) else {
            self.counters.queue_full += 1;
            return SendOutcome::QueueFull;
        };
        if self.rng.chance(config.loss_ppm) {
            self.counters.lost += 1;
            return SendOutcome::Lost;
        }
        let arrival = self.arrival(transmitted, (from, to), &config);
        self.launch(arrival, from, to, bytes, &config);
        let mut copies = 0;
        if self.rng.chance(config.duplicate_ppm) {
            let spread = config.latency + config.jitter;
            let later = self.uniform(spread);
            self.launch(arrival + later, from, to, bytes, &config);
            self.counters.duplicated += 1;
            copies += 1;
        }
        SendOutcome::InFlight { copies }
    }

    /// When the next datagram arrives.
    pub fn next_delivery(&self) -> Option<Instant> {
        self.in_flight.peek().map(|Reverse(datagram)| datagram.at)
    }

    /// The next datagram that arrived at a bound address by `now`, in order of arrival.
    pub fn deliver(&mut self, now: Instant) -> Option<Delivery> {
        while self.next_delivery().is_some_and(|at| at <= now) {
            let Reverse(InFlight { at, from, to, bytes, .. }) = self.in_flight.pop()?;
            if self.is_cut(from, to) {
                self.counters.cut += 1;
            } else if !self.bound.contains(&to) {
                self.counters.unbound += 1;
            } else {
                self.counters.delivered += 1;
                return Some(Delivery { at, from, to, bytes });
            }
        }
        None
    }

    fn uniform(&mut self, up_to: Duration) -> Duration {
        let nanos = u64::try_from(up_to.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(self.rng.below(nanos + 1))
    }

    /// Arrival of a datagram whose last byte left at `transmitted`.
    fn arrival(
        &mut self,
        transmitted: Instant,
        pair: (SocketAddr, SocketAddr),
        config: &LinkConfig,
    ) -> Instant {
        let mut arrival = transmitted + config.latency;
        if !config.jitter.is_zero() {
            arrival += self.uniform(config.jitter);
        }
        if self.rng.chance(config.reorder_ppm) {
            self.counters.reordered += 1;
            let spread = (config.latency + config.jitter).max(Duration::from_millis(1));
            return arrival + spread + self.uniform(spread);
        }
        let link = self.links.entry(pair).or_default();
        let arrival = link.last_arrival.map_or(arrival, |last| arrival.max(last));
        link.last_arrival = Some(arrival);
        arrival
    }

    fn launch(
        &mut self,
        at: Instant,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
        config: &LinkConfig,
    ) {
        let mut bytes = bytes.to_vec();
        if !bytes.is_empty() && self.rng.chance(config.corrupt_ppm) {
            let bit = self.rng.below(bytes.len() as u64 * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            self.counters.corrupted += 1;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.in_flight.push(Reverse(InFlight { at, number, from, to, bytes }));
    }
}

impl Link {
    /// Queues `bytes` for transmission; when the last of them has left, or `None` for a full queue.
    fn transmit(&mut self, now: Instant, bytes: usize, config: &LinkConfig) -> Option<Instant> {
        let Some(rate) = config.rate_bytes_per_s else { return Some(now) };
        let rate = u128::from(rate.max(1));
        let start = self.busy_until.map_or(now, |busy| busy.max(now));
        let waiting_bytes = start.since(now).as_nanos() * rate / 1_000_000_000;
        if waiting_bytes + bytes as u128 > u128::from(config.queue_bytes) {
            return None;
        }
        let nanos = (bytes as u128 * 1_000_000_000).div_ceil(rate);
        let done = start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.busy_until = Some(done);
        Some(done)
    }
}
