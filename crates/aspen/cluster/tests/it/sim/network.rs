//! The network between nodes and clients: messages are delayed, lost, repeated, overtaken, and cut
//! off, as the seed decides.
//!
//! A call is a request and an answer, each a message of its own, so a caller may hear nothing of a
//! call that was carried out, and a copy of a request may be carried out long after its caller gave
//! up. Each start of a node is an incarnation; what an earlier one says is lost.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_api::service;
use aspen_cluster::{ClusterNode, Transport, TransportError, TransportFuture};
use bytes::Bytes;
use net_sim::{SimRng, Trace};
use net_types::{PeerAddr, lock};
use net_wire::Class;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::clock::world_time;
use crate::mesh::entity;

/// After this, a peer that is cut off may be reported as unreachable.
const NOTICED_AFTER: Duration = Duration::from_millis(50);

/// A node's number, or a client's.
pub(crate) type HostId = u64;

/// What happens to messages. Chances are parts per million.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) latency_ms: u64,
    pub(crate) jitter_ms: u64,
    /// Lost; three of four are sent again by the layer below.
    pub(crate) loss_ppm: u32,
    pub(crate) duplicate_ppm: u32,
    /// Held back, so that later ones overtake it.
    pub(crate) reorder_ppm: u32,
}

impl Weather {
    pub(crate) const CALM: Self =
        Self { latency_ms: 1, jitter_ms: 1, loss_ppm: 0, duplicate_ppm: 0, reorder_ppm: 0 };

    pub(crate) fn rough(rng: &mut SimRng) -> Self {
        Self {
            latency_ms: 1 + rng.below(20),
            jitter_ms: rng.below(60),
            loss_ppm: rng.below(200_000) as u32,
            duplicate_ppm: rng.below(200_000) as u32,
            reorder_ppm: rng.below(300_000) as u32,
        }
    }
}

type ReplyTo = Option<oneshot::Sender<Bytes>>;

enum Message {
    Request { service: &'static str, body: Bytes, reply: ReplyTo },
    Answer { body: Bytes, reply: ReplyTo },
}

struct InFlight {
    at: Instant,
    number: u64,
    from: HostId,
    to: HostId,
    message: Message,
}

impl PartialEq for InFlight {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for InFlight {}

impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

struct Inner {
    rng: SimRng,
    weather: Weather,
    cut: BTreeSet<(HostId, HostId)>,
    nodes: BTreeMap<HostId, ClusterNode>,
    incarnations: BTreeMap<HostId, u64>,
    in_flight: BinaryHeap<Reverse<InFlight>>,
    newest_arrival: BTreeMap<(HostId, HostId), Instant>,
    sent: u64,
    trace: Trace,
}

/// The network. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct SimNet {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Notify>,
    origin: Instant,
}

impl SimNet {
    /// A calm network, and the task that delivers its messages.
    pub(crate) fn start(seed: u64, origin: Instant) -> Self {
        let inner = Inner {
            rng: SimRng::new(seed, "cluster network"),
            weather: Weather::CALM,
            cut: BTreeSet::new(),
            nodes: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            in_flight: BinaryHeap::new(),
            newest_arrival: BTreeMap::new(),
            sent: 0,
            trace: Trace::new(),
        };
        let net = Self { inner: Arc::new(Mutex::new(inner)), changed: Arc::default(), origin };
        tokio::spawn(net.clone().deliver_all());
        net
    }

    /// Records an event of the run.
    pub(crate) fn record(&self, event: std::fmt::Arguments<'_>) {
        let now = world_time(self.origin);
        lock(&self.inner).trace.record(now, event);
    }

    /// What was recorded so far.
    pub(crate) fn take_trace(&self) -> Trace {
        std::mem::take(&mut lock(&self.inner).trace)
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        lock(&self.inner).weather = weather;
    }

    pub(crate) fn cut(&self, from: HostId, to: HostId) {
        lock(&self.inner).cut.insert((from, to));
    }

    pub(crate) fn heal(&self) {
        lock(&self.inner).cut.clear();
    }

    /// All nodes that were ever started.
    pub(crate) fn nodes(&self) -> Vec<HostId> {
        lock(&self.inner).incarnations.keys().copied().collect()
    }

    /// A node's end of the network, for its next incarnation. Those before it are cut off.
    pub(crate) fn end(&self, own: HostId) -> Arc<dyn Transport> {
        let mut inner = lock(&self.inner);
        let incarnation = inner.incarnations.entry(own).or_default();
        *incarnation += 1;
        Arc::new(End { net: self.clone(), own, incarnation: *incarnation })
    }

    /// Lets a node receive.
    pub(crate) fn attach(&self, own: HostId, node: &ClusterNode) {
        lock(&self.inner).nodes.insert(own, node.clone());
    }

    /// Takes a node off, at once and both ways.
    pub(crate) fn detach(&self, own: HostId) {
        let mut inner = lock(&self.inner);
        inner.nodes.remove(&own);
        *inner.incarnations.entry(own).or_default() += 1;
    }

    fn incarnation(&self, host: HostId) -> u64 {
        lock(&self.inner).incarnations.get(&host).copied().unwrap_or(0)
    }

    /// Asks `to` and waits for its answer, at most `deadline`.
    pub(crate) async fn call(
        &self,
        from: HostId,
        to: HostId,
        service: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, TransportError> {
        let end = Instant::now() + deadline;
        let (reply, answer) = oneshot::channel();
        self.send(from, to, Message::Request { service, body, reply: Some(reply) });
        match tokio::time::timeout_at(end, answer).await {
            Ok(Ok(body)) => return Ok(body),
            Ok(Err(_)) => {}
            Err(_) => return Err(TransportError::Timeout),
        }
        let is_noticed = {
            let mut inner = lock(&self.inner);
            let is_down = inner.cut.contains(&(from, to)) || !inner.nodes.contains_key(&to);
            is_down && inner.rng.chance(500_000)
        };
        if is_noticed {
            tokio::time::sleep_until(end.min(Instant::now() + NOTICED_AFTER)).await;
            return Err(TransportError::Unreachable("no path".into()));
        }
        tokio::time::sleep_until(end).await;
        Err(TransportError::Timeout)
    }

    fn send(&self, from: HostId, to: HostId, message: Message) {
        let now = Instant::now();
        let mut guard = lock(&self.inner);
        let inner = &mut *guard;
        if inner.cut.contains(&(from, to)) {
            return;
        }
        let weather = inner.weather;
        let ms = Duration::from_millis;
        let mut at = now + ms(weather.latency_ms + inner.rng.below(weather.jitter_ms + 1));
        if inner.rng.chance(weather.loss_ppm) {
            if inner.rng.chance(250_000) {
                return;
            }
            at += ms(50 + inner.rng.below(300));
        } else if inner.rng.chance(weather.reorder_ppm) {
            at += ms(1 + inner.rng.below(2 * (weather.latency_ms + weather.jitter_ms)));
        } else {
            let newest = inner.newest_arrival.entry((from, to)).or_insert(at);
            at = at.max(*newest);
            *newest = at;
        }
        let copy = match &message {
            Message::Request { service, body, .. } if inner.rng.chance(weather.duplicate_ppm) => {
                // Most copies come soon, some long after.
                let longest = if inner.rng.chance(100_000) { 5_000 } else { 100 };
                let late = at + ms(inner.rng.below(longest));
                Some((late, Message::Request { service, body: body.clone(), reply: None }))
            }
            _ => None,
        };
        for (at, message) in [Some((at, message)), copy].into_iter().flatten() {
            inner.sent += 1;
            let number = inner.sent;
            inner.in_flight.push(Reverse(InFlight { at, number, from, to, message }));
        }
        drop(guard);
        self.changed.notify_one();
    }

    async fn deliver_all(self) {
        loop {
            let next = lock(&self.inner).in_flight.peek().map(|Reverse(first)| first.at);
            match next {
                Some(at) if at <= Instant::now() => {
                    let first = lock(&self.inner).in_flight.pop();
                    if let Some(Reverse(first)) = first {
                        self.deliver(first);
                    }
                }
                Some(at) => tokio::select! {
                    biased;
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    fn deliver(&self, InFlight { from, to, message, .. }: InFlight) {
        let node = {
            let inner = lock(&self.inner);
            if inner.cut.contains(&(from, to)) {
                return;
            }
            inner.nodes.get(&to).cloned()
        };
        match message {
            Message::Answer { body, reply } => {
                self.record(format_args!("{from} answers {to}: {}", Digest(&body)));
                if let Some(reply) = reply {
                    // The caller may have given up.
                    let _ = reply.send(body);
                }
            }
            Message::Request { service, body, reply } => {
                self.record(format_args!("{from} asks {to} {service}: {}", Digest(&body)));
                let Some(node) = node else { return };
                let (net, incarnation) = (self.clone(), self.incarnation(to));
                tokio::spawn(async move {
                    let body = match service {
                        service::RAFT => node.handle_raft(entity(from), body).await,
                        service::CLIENT => crate::client::answer(&node, entity(from), body).await,
                        other => panic!("no service {other}"),
                    };
                    if net.incarnation(to) == incarnation {
                        net.send(to, from, Message::Answer { body, reply });
                    }
                });
            }
        }
    }
}

/// Length and hash of a message.
struct Digest<'a>(&'a [u8]);

impl std::fmt::Display for Digest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.0.len(), &blake3::hash(self.0).to_hex()[..12])
    }
}

/// One incarnation's end of the network.
struct End {
    net: SimNet,
    own: HostId,
    incarnation: u64,
}

impl Transport for End {
    fn call(
        &self,
        peer: &PeerAddr,
        service: &'static str,
        _: Class,
        body: Bytes,
        deadline: Duration,
    ) -> TransportFuture {
        let (net, own, incarnation) = (self.net.clone(), self.own, self.incarnation);
        let to = HostId::from(peer.entity_id.as_bytes()[0]);
        Box::pin(async move {
            if net.incarnation(own) != incarnation {
                tokio::time::sleep(NOTICED_AFTER).await;
                return Err(TransportError::Unreachable("this node is gone".into()));
            }
            net.call(own, to, service, body, deadline).await
        })
    }

    fn add_peer(&self, _: &PeerAddr) {}
}
