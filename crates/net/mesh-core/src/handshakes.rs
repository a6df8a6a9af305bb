//! What an endpoint holds for handshakes under way, in either direction.
//!
//! Invariants, which [`Handshakes::check_invariants`] asserts: every Init that is remembered is
//! forgotten in its turn; the pacer's counts are those of its sources; each table has a bound.

use std::collections::{BTreeMap, VecDeque};

use net_crypto::{CookieJar, MacKeys, Seeded};
use net_session::{Counters, DropReason, Path};
use net_types::limits::{MAX_HANDSHAKE_OUTBOX, MAX_INITIATIONS};
use net_types::{EntityId, Instant, NodeId, SessionId};

use crate::EndpointConfig;
use crate::answer::Answered;
use crate::pacer::Pacer;

/// Keys, tables and packets of handshakes.
pub(crate) struct Handshakes {
    /// Keys for handshake packets addressed to this node, one per mesh secret.
    pub(crate) own_macs: Vec<MacKeys>,
    pub(crate) cookies: CookieJar,
    pub(crate) pacer: Pacer,
    /// Dials under way, by the handshake id in their packets.
    pub(crate) dials: BTreeMap<SessionId, NodeId>,
    pub(crate) answered: Answered,
    /// Packets to be sent, which belong to no session.
    pub(crate) outbox: VecDeque<(Path, NodeId, Vec<u8>)>,
}

impl Handshakes {
    pub(crate) fn new(
        now: Instant,
        own: &EntityId,
        config: &EndpointConfig,
        rng: &mut Seeded,
    ) -> Self {
        Self {
            own_macs: config.secrets.iter().map(|secret| MacKeys::new(secret, own)).collect(),
            cookies: CookieJar::new(rng.seed_32(), now),
            pacer: Pacer::default(),
            dials: BTreeMap::new(),
            answered: Answered::default(),
            outbox: VecDeque::new(),
        }
    }

    /// Queues a packet. A full queue drops it: the peer that waits for it repeats its Init.
    pub(crate) fn send(
        &mut self,
        counters: &mut Counters,
        path: Path,
        peer: NodeId,
        packet: Vec<u8>,
    ) {
        if self.outbox.len() >= MAX_HANDSHAKE_OUTBOX {
            return counters.dropped(DropReason::HandshakeOverload);
        }
        self.outbox.push_back((path, peer, packet));
    }

    /// Asserts the module's invariants.
    pub(crate) fn check_invariants(&self) {
        self.pacer.check_invariants();
        self.answered.check_invariants();
        assert!(self.dials.len() <= MAX_INITIATIONS);
        assert!(self.outbox.len() <= MAX_HANDSHAKE_OUTBOX);
    }
}
