//! What unit tests of several modules share: members by number, and a transport without peers.

use std::time::Duration;

use bytes::Bytes;
use net_types::{EntityId, PeerAddr};
use net_wire::Class;

use crate::net::{Transport, TransportError, TransportFuture};
use crate::types::{Member, Membership};

/// The identity of node `n`.
pub(crate) fn entity(n: u64) -> EntityId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&n.to_le_bytes());
    EntityId(id)
}

/// The address of node `n`.
pub(crate) fn addr(n: u64) -> PeerAddr {
    PeerAddr::direct(entity(n), "127.0.0.1:1".parse().unwrap())
}

/// Nodes with these numbers, of which some vote.
pub(crate) fn members(nodes: &[u64], sets: &[&[u64]]) -> Membership {
    let sets = sets.iter().map(|set| set.iter().copied().collect()).collect();
    let nodes = nodes.iter().map(|n| (*n, Member(addr(*n))));
    Membership::new(sets, nodes.collect::<std::collections::BTreeMap<_, _>>()).unwrap()
}

/// Voters with these numbers.
pub(crate) fn voters(ids: &[u64]) -> Membership {
    members(ids, &[ids])
}

/// A transport that reaches no peer.
pub(crate) struct Nowhere;

impl Transport for Nowhere {
    fn call(
        &self,
        _: &PeerAddr,
        _: &'static str,
        _: Class,
        _: Bytes,
        _: Duration,
    ) -> TransportFuture {
        Box::pin(async { Err(TransportError::Timeout) })
    }

    fn add_peer(&self, _: &PeerAddr) {}
}
