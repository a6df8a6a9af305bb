//! What the endpoint holds for each peer and each session.
//!
//! Invariants: an index of a peer names a slot of that peer, and no other peer has it; a peer
//! without an address, a dial and sessions is not kept.

use std::collections::VecDeque;

use net_session::Session;
use net_types::{NodeId, PeerAddr};

use crate::dial::Dial;

/// One session and the endpoint's bookkeeping for it.
pub(crate) struct Slot {
    pub(crate) session: Session,
    pub(crate) peer: NodeId,
    pub(crate) is_initiator: bool,
    /// Orders sessions by when this side answered the Init or got the Response.
    pub(crate) age: u64,
    /// Whether it waits in the transmit queue.
    pub(crate) is_ready: bool,
    /// Ephemeral key of the Init it answered, while that is cached.
    pub(crate) ephemeral: Option<[u8; 32]>,
}

/// One peer: how to reach it and what is up with it.
#[derive(Default)]
pub(crate) struct Peer {
    pub(crate) addr: Option<PeerAddr>,
    pub(crate) live: Option<usize>,
    pub(crate) dial: Option<Box<Dial>>,
    pub(crate) provisional: VecDeque<usize>,
    /// Sessions that another one took over from, oldest first.
    pub(crate) draining: VecDeque<usize>,
}

impl Peer {
    /// Its sessions that are not closed.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = usize> {
        self.live.iter().chain(&self.provisional).chain(&self.draining).copied()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.live.is_none()
            && self.dial.is_none()
            && self.provisional.is_empty()
            && self.draining.is_empty()
            && self.addr.is_none()
    }
}
