//! Where a node can be reached: what address books, tickets and dials hold.
//!
//! Invariants: a decoded value has at most [`crate::limits::MAX_PEER_ADDRS`] addresses and
//! [`crate::limits::MAX_PEER_RELAYS`] relays; both are ordered best first; the identity alone says
//! who may answer.

use core::net::SocketAddr;

use crate::EntityId;

/// A dialable node: who it is and where it may be.
///
/// At most [`crate::limits::MAX_PEER_ADDRS`] addresses; decoders enforce it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr {
    /// The identity that must answer; anything else at the address is refused.
    pub entity_id: EntityId,
    /// Candidate UDP addresses, best first.
    pub addrs: Vec<SocketAddr>,
    /// Nodes that relay to it, best first; at most [`crate::limits::MAX_PEER_RELAYS`].
    pub relays: Vec<EntityId>,
}

impl PeerAddr {
    /// A node with one known address.
    pub fn direct(entity_id: EntityId, addr: SocketAddr) -> Self {
        Self { entity_id, addrs: vec![addr], relays: Vec::new() }
    }
}
