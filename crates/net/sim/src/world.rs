//! The world loop: hosts, the network between them, and a clock that jumps to the next event.
//!
//! One turn: the clock jumps to the earliest arrival or timer; all datagrams due reach their hosts
//! in order of arrival; hosts whose timer is due handle it; hosts that were touched send until they
//! have nothing left, in the order of their ids.
//!
//! Invariants: time never goes back; an address belongs to one living host; after a turn no host
//! has anything left to send; every event counts against a budget, so a protocol that never falls
//! silent ends as a failure and not as a hang.

use core::cmp::Reverse;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use net_types::Instant;

use crate::clock::HostClock;
use crate::link::LinkConfig;
use crate::network::{Network, SendOutcome};
use crate::rng::SimRng;
use crate::trace::{Digest, Trace};

/// Events that a world handles before it gives up, unless told otherwise.
const DEFAULT_BUDGET: u64 = 20_000_000;

/// Datagrams that a host sends to one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The receiver.
    pub to: SocketAddr,
    /// One datagram, or several of `segment_bytes` each (the last may be shorter).
    pub bytes: Vec<u8>,
    /// Length of each datagram in `bytes`; `None` is one datagram.
    pub segment_bytes: Option<usize>,
}

/// A protocol state machine, with whatever the test runs on top of it. Times are of its own clock.
pub trait Host {
    /// A datagram arrived; the host may decrypt it in place.
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]);

    /// The time of [`Self::next_timeout`] has come.
    fn handle_timeout(&mut self, now: Instant);

    /// The next thing to send; called until `None` after every input.
    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit>;

    /// When [`Self::handle_timeout`] is due, if nothing arrives before.
    fn next_timeout(&self) -> Option<Instant>;
}

/// A host of one world, numbered from 0 in the order of joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h{}", self.0)
    }
}

/// Why a run ended before what it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The time limit passed.
    #[error("the condition did not hold by {at:?}")]
    Limit {
        /// The world's clock.
        at: Instant,
    },
    /// Nothing is in flight and no timer is set: nothing can happen any more.
    #[error("nothing is left to happen at {at:?}")]
    Idle {
        /// The world's clock.
        at: Instant,
    },
    /// The event budget is used up; some host probably never falls silent.
    #[error("the budget of {events} events was used up at {at:?}")]
    Budget {
        /// Events handled.
        events: u64,
        /// The world's clock.
        at: Instant,
    },
}

struct Slot<H> {
    addr: SocketAddr,
    clock: HostClock,
    /// `None` while crashed.
    host: Option<H>,
    /// World time of the timer that the heap holds for this host.
    timer: Option<Instant>,
}

/// Hosts on a network under one clock, all decided by one seed.
pub struct World<H> {
    now: Instant,
    network: Network,
    rng: SimRng,
    slots: Vec<Slot<H>>,
    by_addr: BTreeMap<SocketAddr, HostId>,
    /// Hosts that were touched since they last fell silent.
    touched: BTreeSet<HostId>,
    /// Timers, stale ones included: an entry counts only while it equals its slot's timer.
    timers: BinaryHeap<Reverse<(Instant, HostId)>>,
    trace: Trace,
    events: u64,
    budget: u64,
}

impl<H: Host> World<H> {
    /// An empty world whose links behave like `link`.
    pub fn new(seed: u64, link: LinkConfig) -> Self {
        Self {
            now: Instant::ZERO,
            network: Network::new(seed, link),
            rng: SimRng::new(seed, "world"),
            slots: Vec::new(),
            by_addr: BTreeMap::new(),
            touched: BTreeSet::new(),
            timers: BinaryHeap::new(),
            trace: Trace::new(),
            events: 0,
            budget: DEFAULT_BUDGET,
        }
    }

    /// Sets the number of events (arrivals, timers, datagrams sent) after which runs fail.
    pub fn set_budget(&mut self, events: u64) {
        self.budget = events;
    }

    /// The world's clock.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The network, for cutting and healing.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// Choices for the test itself, from the same seed.
    pub fn rng(&mut self) -> &mut SimRng {
        &mut self.rng
    }

    /// The run's record.
    pub fn trace(&mut self) -> &mut Trace {
        &mut self.trace
    }

    /// Events handled so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Writes a line of the test's own into the record.
    pub fn note(&mut self, text: impl fmt::Display) {
        self.trace.record(self.now, format_args!("note {text}"));
    }

    /// Adds a host at `addr` with a clock like the world's.
    ///
    /// # Panics
    ///
    /// If another living host has the address.
    pub fn add_host(&mut self, addr: SocketAddr, host: H) -> HostId {
        self.add_host_with_clock(addr, HostClock::default(), host)
    }

    /// Adds a host with a clock of its own; see [`Self::add_host`].
    pub fn add_host_with_clock(&mut self, addr: SocketAddr, clock: HostClock, host: H) -> HostId {
        let id = HostId(self.slots.len());
        self.slots.push(Slot { addr, clock, host: Some(host), timer: None });
        self.attach(id, addr);
        self.trace.record(self.now, format_args!("start {id} {addr}"));
        id
    }

    fn attach(&mut self, id: HostId, addr: SocketAddr) {
        let previous = self.by_addr.insert(addr, id);
        assert!(previous.is_none(), "{addr} belongs to a living host already");
        self.network.bind(addr);
        self.slots[id.0].addr = addr;
        self.touched.insert(id);
    }

    fn detach(&mut self, id: HostId) {
        let addr = self.slots[id.0].addr;
        self.by_addr.remove(&addr);
        self.network.unbind(addr);
    }

    /// The hosts' ids, crashed ones included.
    pub fn ids(&self) -> impl Iterator<Item = HostId> + use<H> {
        (0..self.slots.len()).map(HostId)
    }

    /// The address of a host, its last one if it crashed.
    pub fn addr(&self, id: HostId) -> SocketAddr {
        self.slots[id.0].addr
    }

    /// What the host's own clock shows now.
    pub fn local_now(&self, id: HostId) -> Instant {
        self.slots[id.0].clock.local(self.now)
    }

    /// Whether the host runs.
    pub fn is_alive(&self, id: HostId) -> bool {
        self.slots[id.0].host.is_some()
    }

    /// A living host, to look at.
    ///
    /// # Panics
    ///
    /// If it crashed.
    pub fn host(&self, id: HostId) -> &H {
        self.slots[id.0].host.as_ref().expect("the test looks at a host that crashed")
    }

    /// A living host, to act on; it may send afterwards.
    ///
    /// # Panics
    ///
    /// If it crashed.
    pub fn host_mut(&mut self, id: HostId) -> &mut H {
        self.touched.insert(id);
        self.slots[id.0].host.as_mut().expect("the test acts on a host that crashed")
    }

    /// Stops a host at once, without a farewell; returns what it was.
    pub fn crash(&mut self, id: HostId) -> Option<H> {
        let host = self.slots[id.0].host.take()?;
        self.detach(id);
        self.slots[id.0].timer = None;
        self.touched.remove(&id);
        self.trace.record(self.now, format_args!("crash {id}"));
        Some(host)
    }

    /// Puts a new incarnation at a crashed host's address.
    ///
    /// # Panics
    ///
    /// If it has not crashed.
    pub fn restart(&mut self, id: HostId, host: H) {
        assert!(!self.is_alive(id), "{id} is still alive");
        let addr = self.slots[id.0].addr;
        self.slots[id.0].host = Some(host);
        self.attach(id, addr);
        self.trace.record(self.now, format_args!("restart {id}"));
    }

    /// Moves a living host to another address, as a NAT or a roaming machine does.
    ///
    /// # Panics
    ///
    /// If it crashed, or if another living host has the address.
    pub fn rebind(&mut self, id: HostId, addr: SocketAddr) {
        assert!(self.is_alive(id), "{id} crashed");
        self.detach(id);
        self.attach(id, addr);
        self.trace.record(self.now, format_args!("rebind {id} {addr}"));
    }

    /// Runs until `is_done` holds, at most for `limit`. The condition is tested before the first
    /// event and after every turn.
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut is_done: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), Stop> {
        let deadline = self.now + limit;
        loop {
            self.drain()?;
            if is_done(self) {
                return self.drain();
            }
            // The condition may have acted on hosts.
            self.drain()?;
            match self.next_event() {
                None => return Err(Stop::Idle { at: self.now }),
                Some(at) if at > deadline => {
                    self.now = deadline;
                    return Err(Stop::Limit { at: deadline });
                }
                Some(at) => self.turn(at)?,
            }
        }
    }

    /// Runs for exactly `time`, also when nothing is left to happen.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Stop> {
        let deadline = self.now + time;
        match self.run_until(time, |_| false) {
            Err(Stop::Limit { .. } | Stop::Idle { .. }) => {
                self.now = deadline;
                Ok(())
            }
            other => other,
        }
    }

    /// When something happens next; never before [`Self::now`].
    pub fn next_event(&mut self) -> Option<Instant> {
        let timer = self.next_timer();
        let delivery = self.network.next_delivery();
        let next = [timer, delivery].into_iter().flatten().min()?;
        (next != Instant::FAR_FUTURE).then_some(next.max(self.now))
    }

    fn next_timer(&mut self) -> Option<Instant> {
        while let Some(&Reverse((at, id))) = self.timers.peek() {
            if self.slots[id.0].timer == Some(at) {
                return Some(at);
            }
            self.timers.pop();
        }
        None
    }

    fn turn(&mut self, at: Instant) -> Result<(), Stop> {
        self.now = at;
        while let Some(mut delivery) = self.network.deliver(at) {
            self.count()?;
            let Some(&id) = self.by_addr.get(&delivery.to) else { continue };
            let from = delivery.from;
            self.trace.record(at, format_args!("recv {id} {from} {}", Digest(&delivery.bytes)));
            let slot = &mut self.slots[id.0];
            if let Some(host) = &mut slot.host {
                host.handle_datagram(slot.clock.local(at), from, &mut delivery.bytes);
                self.touched.insert(id);
            }
        }
        let mut due = BTreeSet::new();
        while self.next_timer().is_some_and(|timer| timer <= at) {
            if let Some(Reverse((_, id))) = self.timers.pop() {
                self.slots[id.0].timer = None;
                due.insert(id);
            }
        }
        for id in due {
            self.count()?;
            self.trace.record(at, format_args!("timer {id}"));
            let slot = &mut self.slots[id.0];
            if let Some(host) = &mut slot.host {
                host.handle_timeout(slot.clock.local(at));
                self.touched.insert(id);
            }
        }
        self.drain()
    }

    /// Lets every touched host send until it has nothing left, and reads its timer.
    fn drain(&mut self) -> Result<(), Stop> {
        while let Some(id) = self.touched.pop_first() {
            while let Some(transmit) = self.poll(id) {
                let step = transmit.segment_bytes.unwrap_or(usize::MAX).max(1);
                if transmit.bytes.is_empty() {
                    self.send(id, transmit.to, &[])?;
                }
                for datagram in transmit.bytes.chunks(step) {
                    self.send(id, transmit.to, datagram)?;
                }
            }
            self.set_timer(id);
        }
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
        Ok(())
    }

    /// Asserts what holds when no host has anything left to send.
    fn check_invariants(&self) {
        self.network.check_invariants();
        assert!(self.touched.is_empty());
        let mut living = 0;
        for (id, slot) in self.ids().zip(&self.slots) {
            let has_addr = self.by_addr.get(&slot.addr) == Some(&id);
            assert_eq!(has_addr, slot.host.is_some(), "{id} at {}", slot.addr);
            assert!(slot.timer.is_none() || has_addr, "{id} has crashed and has a timer");
            living += usize::from(has_addr);
        }
        assert_eq!(self.by_addr.len(), living);
    }

    fn poll(&mut self, id: HostId) -> Option<Transmit> {
        let slot = &mut self.slots[id.0];
        slot.host.as_mut()?.poll_transmit(slot.clock.local(self.now))
    }

    fn send(&mut self, id: HostId, to: SocketAddr, datagram: &[u8]) -> Result<(), Stop> {
        self.count()?;
        let fate = match self.network.send(self.now, self.slots[id.0].addr, to, datagram) {
            SendOutcome::InFlight { copies: 0 } => "",
            SendOutcome::InFlight { .. } => " copied",
            SendOutcome::TooLong => " too-long",
            SendOutcome::QueueFull => " queue-full",
            SendOutcome::Cut => " cut",
            SendOutcome::Lost => " lost",
        };
        self.trace.record(self.now, format_args!("send {id} {to} {}{fate}", Digest(datagram)));
        Ok(())
    }

    fn set_timer(&mut self, id: HostId) {
        let slot = &mut self.slots[id.0];
        let local = slot.host.as_ref().and_then(Host::next_timeout);
        let timer = local.map(|at| slot.clock.world(at));
        if timer != slot.timer {
            slot.timer = timer;
            self.timers.extend(timer.map(|at| Reverse((at, id))));
        }
    }

    fn count(&mut self) -> Result<(), Stop> {
        self.events += 1;
        if self.events > self.budget {
            return Err(Stop::Budget { events: self.budget, at: self.now });
        }
        Ok(())
    }
}
