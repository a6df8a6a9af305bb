//! What the endpoint holds for each peer.
//!
//! Invariants: an index of a peer names a slot of that peer, and no other peer has it; a peer
//! without an address, a dial and sessions is not kept.

use std::collections::VecDeque;

use net_types::PeerAddr;

use crate::dial::Dial;

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
