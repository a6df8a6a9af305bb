//! A [`Pair`] of sessions on a link that drops, delays, repeats and reorders by a seeded list.
//!
//! The clock jumps to the next delivery or deadline. After every call into a session its invariants
//! are asserted, and that a deadline which was handled is not due again at once.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::{Index, IndexMut};
use std::time::Duration;

use bytes::Bytes;
use net_crypto::{EntityKeypair, Initiator, MeshSecret, Responder, Seeded, Suite};
use net_session::{
    Context, Counters, Event, Path, Phase, Session, SessionParams, StreamConfig, StreamEvent,
    StreamMode, Timer,
};
use net_sim::SimRng;
use net_types::limits::HEARTBEAT_INTERVAL;
use net_types::{Instant, SessionId, StreamId};
use net_wire::{Flags, Header, Kind, Subprotocol};

/// The initiator and the responder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    A = 0,
    B = 1,
}

pub(crate) use Who::{A, B};

impl Who {
    pub(crate) fn peer(self) -> Self {
        match self {
            A => B,
            B => A,
        }
    }
}

/// What happens to packets to one side. Probabilities are parts per million.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) delay: Duration,
    pub(crate) loss_ppm: u32,
    pub(crate) duplicate_ppm: u32,
    /// Probability of up to three times the delay.
    pub(crate) reorder_ppm: u32,
    /// Longer packets are dropped.
    pub(crate) mtu_bytes: usize,
    pub(crate) is_cut: bool,
}

impl Link {
    /// 10 ms each way, no faults, packets of the base size only.
    pub(crate) const GOOD: Self = Self {
        delay: millis(10),
        loss_ppm: 0,
        duplicate_ppm: 0,
        reorder_ppm: 0,
        mtu_bytes: 1_214,
        is_cut: false,
    };

    pub(crate) const BAD: Self =
        Self { loss_ppm: 100_000, duplicate_ppm: 20_000, reorder_ppm: 50_000, ..Self::GOOD };
}

pub(crate) const fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) const fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// One session and what its owner keeps.
pub(crate) struct Side {
    pub(crate) session: Session,
    pub(crate) counters: Counters,
    rng: Seeded,
    /// Where the peer sees it.
    pub(crate) addr: SocketAddr,
    /// What happens to packets that it sends.
    pub(crate) link: Link,
    /// Drops the packets that it sends for which this is true.
    pub(crate) filter: Box<dyn FnMut(&Header) -> bool>,
    /// Whether its application takes what arrives.
    pub(crate) is_reading: bool,
    /// Credit of what its application has not taken.
    pub(crate) unread: VecDeque<(StreamId, u32)>,
    pub(crate) messages: BTreeMap<StreamId, Vec<Bytes>>,
    /// Events that are not messages.
    pub(crate) events: Vec<Event>,
    pub(crate) wakeups: Vec<(Instant, Timer)>,
    /// Every packet that it sent.
    pub(crate) sent: Vec<Sent>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    pub(crate) to: SocketAddr,
    pub(crate) header: Header,
}

impl Sent {
    /// Whether it carries stream data, not a control frame.
    pub(crate) fn is_data(&self) -> bool {
        is_data(&self.header)
    }
}

/// What is reported of a stream that was opened with the default subprotocol.
pub(crate) fn of_stream(stream_id: StreamId, event: StreamEvent) -> Event {
    Event::Stream { stream_id, subprotocol: Subprotocol::EVENTS, event }
}

pub(crate) fn is_data(header: &Header) -> bool {
    header.kind == Kind::Data && !header.flags.contains(Flags::CONTROL)
}

struct Packet {
    to: Who,
    from: Path,
    bytes: Vec<u8>,
}

pub(crate) struct Pair {
    pub(crate) now: Instant,
    sides: [Side; 2],
    rng: SimRng,
    /// Packets on their way, by arrival and the order in which they were sent.
    wire: BTreeMap<(Instant, u64), Packet>,
    sent: u64,
}

impl Index<Who> for Pair {
    type Output = Side;

    fn index(&self, who: Who) -> &Side {
        &self.sides[who as usize]
    }
}

impl IndexMut<Who> for Pair {
    fn index_mut(&mut self, who: Who) -> &mut Side {
        &mut self.sides[who as usize]
    }
}

pub(crate) fn addr(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], port))
}

impl Pair {
    /// Two sides at the moment when the initiator has the response.
    pub(crate) fn new(seed: u64, link: Link) -> Self {
        let keys = [1, 2].map(|i| EntityKeypair::from_seed([i; 32]));
        let secret = MeshSecret::new([3; 32]);
        let peer = keys[1].entity_id();
        let (_, init) = Initiator::start(&keys[0], &peer, &secret, [4; 32], b"").unwrap();
        let (responder, _) = Responder::read_init(&keys[1], &secret, [5; 32], &init).unwrap();
        let (secrets, _) = responder.finish(b"").unwrap();
        // Clocks of two nodes have nothing in common, but one clock is enough here.
        let now = Instant::ZERO + secs(1_000);
        let addrs = [addr(1, 9_000), addr(2, 9_000)];
        let side = |who: Who| {
            let (send, receive) = match who {
                A => (secrets.receive.clone(), secrets.send.clone()),
                B => (secrets.send.clone(), secrets.receive.clone()),
            };
            let params = SessionParams {
                id: SessionId(7),
                own: keys[who as usize].entity_id(),
                peer: keys[who.peer() as usize].entity_id(),
                is_initiator: who == A,
                suite: Suite::ChaCha20Poly1305,
                send,
                receive,
                path: Path::direct(addrs[who.peer() as usize]),
                peer_max_datagram_bytes: 8_210,
                first_rtt: link.delay * 2,
                heartbeat_interval: HEARTBEAT_INTERVAL,
            };
            let session = match who {
                A => Session::established(now, params),
                B => Session::provisional(now, params),
            };
            Side::new(session, addrs[who as usize], link, seed ^ who as u64)
        };
        let rng = SimRng::new(seed, "pair");
        Self { now, sides: [side(A), side(B)], rng, wire: BTreeMap::new(), sent: 0 }
    }

    /// Two sides that know each other and have nothing to send.
    pub(crate) fn connected(seed: u64, link: Link) -> Self {
        let mut pair = Self::new(seed, link);
        pair.run_until("both are established", |p| {
            [A, B].iter().all(|w| p[*w].session.phase() == Phase::Established)
        });
        pair.run_for(secs(2));
        for who in [A, B] {
            pair[who].wakeups.clear();
            pair[who].sent.clear();
            pair[who].events.clear();
            pair[who].counters = Counters::default();
        }
        pair
    }

    /// Calls a session, and takes what it says.
    pub(crate) fn act<T>(
        &mut self,
        who: Who,
        call: impl FnOnce(&mut Session, &mut Context<'_>) -> T,
    ) -> T {
        let now = self.now;
        let side = &mut self[who];
        let mut events = VecDeque::new();
        let (rng, counters) = (&mut side.rng, &mut side.counters);
        let mut ctx = Context { now, rng, counters, events: &mut events };
        let out = call(&mut side.session, &mut ctx);
        side.session.check_invariants();
        for event in events {
            side.take(now, event);
        }
        side.session.check_invariants();
        out
    }

    pub(crate) fn open(&mut self, who: Who, config: StreamConfig) -> StreamId {
        self.act(who, |session, _| session.open_stream(config)).unwrap()
    }

    /// Sends messages until the stream takes no more; returns how many it took.
    pub(crate) fn send(&mut self, who: Who, id: StreamId, messages: &[Bytes]) -> usize {
        let send =
            |message: &Bytes| self.act(who, |session, _| session.send(id, message.clone())).is_ok();
        messages.iter().map(send).take_while(|is_taken| *is_taken).count()
    }

    /// The application takes everything that it left unread.
    pub(crate) fn read(&mut self, who: Who) {
        let now = self.now;
        for (id, credit) in std::mem::take(&mut self[who].unread) {
            self.act(who, |session, _| session.consume(now, id, credit));
        }
    }

    /// Sends everything, then goes to the next delivery or deadline before `end`; false if there is
    /// none.
    fn step(&mut self, end: Instant) -> bool {
        for who in [A, B] {
            self.flush(who);
        }
        let delivery = self.wire.first_key_value().map(|((at, _), _)| *at);
        let wakeups = [A, B].map(|who| Some((self[who].session.next_timer()?, who)));
        let wakeup = wakeups.into_iter().flatten().min_by_key(|((at, _), _)| *at);
        let next = [delivery, wakeup.map(|((at, _), _)| at)].into_iter().flatten().min();
        let Some(next) = next.filter(|at| *at <= end) else { return false };
        self.now = self.now.max(next);
        if delivery == Some(next) {
            self.deliver();
        } else if let Some(((_, timer), who)) = wakeup {
            self.wake(who, timer);
        }
        true
    }

    fn deliver(&mut self) {
        let Some((_, mut packet)) = self.wire.pop_first() else { return };
        let header = Header::decode(&packet.bytes).unwrap();
        self.act(packet.to, |session, ctx| {
            session.handle_packet(ctx, &header, packet.from, &mut packet.bytes);
        });
    }

    fn wake(&mut self, who: Who, timer: Timer) {
        let now = self.now;
        self[who].wakeups.push((now, timer));
        self.act(who, |session, ctx| session.handle_timeout(ctx));
        self.flush(who);
        let next = self[who].session.next_timer();
        assert!(next.is_none_or(|(at, _)| at > now), "{who:?} {timer:?} leaves {next:?}");
    }

    fn flush(&mut self, who: Who) {
        let mut out = Vec::new();
        while let Some(sent) = self.act(who, |session, ctx| session.poll_packet(ctx, &mut out)) {
            let bytes = std::mem::take(&mut out);
            assert_eq!(sent.len, bytes.len());
            self.transmit(who, sent.to.addr, bytes);
        }
        assert!(out.is_empty());
    }

    fn transmit(&mut self, who: Who, to: SocketAddr, bytes: Vec<u8>) {
        let header = Header::decode(&bytes).unwrap();
        let now = self.now;
        let side = &mut self[who];
        side.sent.push(Sent { at: now, to, header });
        let is_filtered = (side.filter)(&header);
        let (link, from) = (side.link, Path::direct(side.addr));
        let is_lost = is_filtered
            || link.is_cut
            || bytes.len() > link.mtu_bytes
            || to != self[who.peer()].addr
            || self.rng.chance(link.loss_ppm);
        if is_lost {
            return;
        }
        let copies = if self.rng.chance(link.duplicate_ppm) { 2 } else { 1 };
        for _ in 0..copies {
            let late = if self.rng.chance(link.reorder_ppm) { 1 + self.rng.below(3) } else { 1 };
            let at = now + link.delay * late as u32;
            self.sent += 1;
            let packet = Packet { to: who.peer(), from, bytes: bytes.clone() };
            self.wire.insert((at, self.sent), packet);
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        while self.step(end) {
            steps += 1;
            assert!(steps < 1_000_000, "too many steps in {time:?}");
        }
        self.now = end;
    }

    /// Runs until `is_done`, at most ten minutes of the pair's time.
    pub(crate) fn run_until(&mut self, what: &str, mut is_done: impl FnMut(&Self) -> bool) {
        let end = self.now + secs(600);
        while !is_done(self) {
            assert!(self.step(end), "never: {what}; {:?}, {:?}", self[A].session, self[B].session);
        }
    }

    pub(crate) fn run_until_received(&mut self, who: Who, id: StreamId, count: usize) {
        self.run_until("all messages are there", |p| p[who].received(id).len() >= count);
    }
}

impl Side {
    fn new(session: Session, addr: SocketAddr, link: Link, seed: u64) -> Self {
        Self {
            session,
            counters: Counters::default(),
            rng: Seeded::from_u64(seed),
            addr,
            link,
            filter: Box::new(|_| false),
            is_reading: true,
            unread: VecDeque::new(),
            messages: BTreeMap::new(),
            events: Vec::new(),
            wakeups: Vec::new(),
            sent: Vec::new(),
        }
    }

    fn take(&mut self, now: Instant, event: Event) {
        match event {
            Event::Message { stream_id, message, credit, .. } => {
                self.messages.entry(stream_id).or_default().push(message);
                if self.is_reading {
                    self.session.consume(now, stream_id, credit);
                } else {
                    self.unread.push_back((stream_id, credit));
                }
            }
            event => self.events.push(event),
        }
    }

    pub(crate) fn received(&self, id: StreamId) -> &[Bytes] {
        self.messages.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Data packets that it sent.
    pub(crate) fn data_sent(&self) -> usize {
        self.sent.iter().filter(|s| s.is_data()).count()
    }

    /// When it was woken for this reason.
    pub(crate) fn woken_for(&self, timer: Timer) -> Vec<Instant> {
        self.wakeups.iter().filter(|(_, t)| *t == timer).map(|(at, _)| *at).collect()
    }
}

/// `count` messages of `len` bytes, each of which names its place.
pub(crate) fn messages(count: usize, len: usize) -> Vec<Bytes> {
    let message = |i: usize| {
        let mut bytes = vec![(i % 251) as u8; len.max(8)];
        bytes[..8].copy_from_slice(&(i as u64).to_le_bytes());
        Bytes::from(bytes)
    };
    (0..count).map(message).collect()
}

pub(crate) fn config(mode: StreamMode) -> StreamConfig {
    StreamConfig { mode, ..StreamConfig::default() }
}
