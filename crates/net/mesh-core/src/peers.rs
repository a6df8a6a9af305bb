//! What the endpoint holds for each peer and each session.

use std::collections::VecDeque;
use std::hash::Hasher;

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
    pub(crate) fn is_idle(&self) -> bool {
        self.live.is_none()
            && self.dial.is_none()
            && self.provisional.is_empty()
            && self.draining.is_empty()
            && self.addr.is_none()
    }
}

/// Hashes session ids, which are cut from a handshake hash and need no further mixing to spread.
#[derive(Default)]
pub(crate) struct SessionIdHasher(u64);

impl Hasher for SessionIdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = self.0.rotate_left(5) ^ value;
    }
}
