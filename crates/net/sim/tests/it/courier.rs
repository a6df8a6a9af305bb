//! A small reliable protocol to run in worlds: one end sends numbered items until each is
//! acknowledged, the other delivers them in order and acknowledges what it has.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use net_sim::{Host, HostId, LinkConfig, Transmit, World};
use net_types::Instant;

use crate::network::addr;

const RESEND_AFTER: Duration = Duration::from_millis(50);

/// How the receiving end acknowledges.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acks {
    /// The items that it delivered.
    Honest,
    /// Everything below the newest item it saw, whether that arrived or not.
    AssumesNoLoss,
}

/// Either end.
pub(crate) enum Courier {
    Sender { peer: SocketAddr, unacked: BTreeSet<u32>, acked: BTreeSet<u32>, due: Instant },
    Receiver { acks: Acks, next: u32, early: BTreeSet<u32>, replies: VecDeque<Transmit> },
}

impl Courier {
    pub(crate) fn sender(peer: SocketAddr, items: u32) -> Self {
        Self::Sender {
            peer,
            unacked: (0..items).collect(),
            acked: BTreeSet::new(),
            due: Instant::ZERO,
        }
    }

    pub(crate) fn receiver(acks: Acks) -> Self {
        Self::Receiver { acks, next: 0, early: BTreeSet::new(), replies: VecDeque::new() }
    }

    /// Items that the sender believes delivered.
    pub(crate) fn acked(&self) -> BTreeSet<u32> {
        match self {
            Self::Sender { acked, .. } => acked.clone(),
            Self::Receiver { .. } => BTreeSet::new(),
        }
    }

    /// Items that the receiver has.
    pub(crate) fn delivered(&self) -> BTreeSet<u32> {
        match self {
            Self::Sender { .. } => BTreeSet::new(),
            Self::Receiver { next, early, .. } => (0..*next).chain(early.iter().copied()).collect(),
        }
    }
}

fn number(datagram: &[u8]) -> u32 {
    u32::from_le_bytes(datagram.try_into().unwrap())
}

impl Host for Courier {
    fn handle_datagram(&mut self, _: Instant, from: SocketAddr, datagram: &mut [u8]) {
        let number = number(datagram);
        match self {
            Self::Sender { unacked, acked, .. } => {
                let confirmed: Vec<u32> = unacked.range(..number).copied().collect();
                for item in confirmed {
                    unacked.remove(&item);
                    acked.insert(item);
                }
            }
            Self::Receiver { acks, next, early, replies } => {
                early.insert(number);
                while early.remove(next) || (*acks == Acks::AssumesNoLoss && *next <= number) {
                    *next += 1;
                }
                let bytes = next.to_le_bytes().to_vec();
                replies.push_back(Transmit { to: from, bytes, segment_bytes: None });
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Self::Sender { due, .. } = self {
            *due = (*due).max(now);
        }
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        match self {
            Self::Sender { peer, unacked, due, .. } => {
                if unacked.is_empty() || *due > now {
                    return None;
                }
                *due = now + RESEND_AFTER;
                let bytes = unacked.iter().take(8).flat_map(|item| item.to_le_bytes()).collect();
                Some(Transmit { to: *peer, bytes, segment_bytes: Some(4) })
            }
            Self::Receiver { replies, .. } => replies.pop_front(),
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::Sender { unacked, due, .. } => (!unacked.is_empty()).then_some(*due),
            Self::Receiver { .. } => None,
        }
    }
}

pub(crate) fn rough_link() -> LinkConfig {
    LinkConfig {
        jitter: Duration::from_millis(4),
        loss_ppm: 200_000,
        duplicate_ppm: 50_000,
        reorder_ppm: 50_000,
        ..LinkConfig::with_latency(Duration::from_millis(2))
    }
}

/// A sender of `items` and a receiver on a rough link: (world, sender, receiver).
pub(crate) fn couriers(seed: u64, items: u32, acks: Acks) -> (World<Courier>, HostId, HostId) {
    let mut world = World::new(seed, rough_link());
    let sender = world.add_host(addr(1), Courier::sender(addr(2), items));
    let receiver = world.add_host(addr(2), Courier::receiver(acks));
    (world, sender, receiver)
}
