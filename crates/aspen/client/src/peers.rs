//! The members a client knows, and which of them it has sessions with.
//!
//! Invariants: an index names one member for good; an identity has one session at most, and there
//! are at most `MAX_CLIENT_SESSIONS`.

use net_types::limits::{MAX_CLIENT_SESSIONS, MAX_TICKET_PEERS};
use net_types::{EntityId, NodeId, PeerAddr};

/// Members that are learnt from others beside those of the ticket.
const MAX_LEARNT: usize = MAX_TICKET_PEERS;

/// The members by index. Indexes stay valid: members are added and change address, but never
/// leave.
#[derive(Debug)]
pub(crate) struct Peers {
    peers: Vec<PeerAddr>,
    limit: usize,
    /// Identities with a session, the one used last at the end.
    sessions: Vec<EntityId>,
}

impl Peers {
    /// The members of a ticket, at least one.
    pub(crate) fn new(peers: Vec<PeerAddr>) -> Self {
        let limit = peers.len() + MAX_LEARNT;
        Self { peers, limit, sessions: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn entities(&self) -> impl Iterator<Item = EntityId> {
        self.peers.iter().map(|peer| peer.entity_id)
    }

    /// The index of a member that another one named. A known one takes on the addresses named; an
    /// unknown one is added if the caller wants that and there is room.
    pub(crate) fn learn(&mut self, named: PeerAddr, may_add: bool) -> Option<usize> {
        if let Some(at) = self.peers.iter().position(|peer| peer.entity_id == named.entity_id) {
            if !named.addrs.is_empty() {
                self.peers[at] = named;
            }
            return Some(at);
        }
        if !may_add || named.addrs.is_empty() || self.peers.len() >= self.limit {
            return None;
        }
        self.peers.push(named);
        Some(self.peers.len() - 1)
    }

    /// How to reach a peer that is about to be called.
    pub(crate) fn route(&mut self, peer: usize) -> Route {
        let entity = self.peers[peer].entity_id;
        let node = entity.node_id();
        if self.sessions.last() == Some(&entity) {
            return Route { node, dial: None, end: None };
        }
        let known = self.sessions.iter().position(|known| *known == entity);
        if let Some(at) = known {
            self.sessions.remove(at);
        }
        self.sessions.push(entity);
        let is_full = self.sessions.len() > MAX_CLIENT_SESSIONS;
        let end = is_full.then(|| self.sessions.remove(0).node_id());
        let dial = known.is_none().then(|| self.peers[peer].clone());
        Route { node, dial, end }
    }

    /// Whether there is a session with a peer, as far as is known.
    pub(crate) fn has_session(&self, peer: usize) -> bool {
        self.sessions.contains(&self.peers[peer].entity_id)
    }

    /// Notes that a session was ended.
    pub(crate) fn forget_session(&mut self, peer: usize) {
        let entity = self.peers[peer].entity_id;
        self.sessions.retain(|known| *known != entity);
    }
}

/// How to reach a peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The peer.
    pub(crate) node: NodeId,
    /// Where to dial it, if there is no session.
    pub(crate) dial: Option<PeerAddr>,
    /// The peer whose session ends to make room.
    pub(crate) end: Option<NodeId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8, port: u16) -> PeerAddr {
        PeerAddr::direct(EntityId([n; 32]), ([127, 0, 0, 1], port).into())
    }

    #[test]
    fn named_members_are_found_updated_or_added_within_bounds() {
        let mut peers = Peers::new(vec![peer(1, 1), peer(2, 2)]);
        assert_eq!(peers.learn(peer(2, 9), false), Some(1));
        assert_eq!(peers.peers[1], peer(2, 9));
        assert_eq!(peers.learn(peer(3, 3), false), None);
        assert_eq!(peers.learn(peer(3, 3), true), Some(2));
        let nowhere = PeerAddr { addrs: vec![], ..peer(4, 0) };
        assert_eq!(peers.learn(nowhere, true), None);
        for n in 10..100 {
            peers.learn(peer(n, n.into()), true);
        }
        assert_eq!(peers.len(), 2 + MAX_LEARNT);
    }

    #[test]
    fn the_session_used_longest_ago_makes_room() {
        let mut peers = Peers::new((1..=10).map(|n| peer(n, n.into())).collect());
        let node = |n| Some(EntityId([n; 32]).node_id());
        for n in 0..8 {
            let route = peers.route(n);
            assert_eq!((route.dial, route.end), (Some(peers.peers[n].clone()), None));
        }
        let again = peers.route(0);
        assert_eq!((again.node, again.dial, again.end), (node(1).unwrap(), None, None));
        assert_eq!(peers.route(8).end, node(2));
        peers.forget_session(0);
        let redialled = peers.route(0);
        assert_eq!((redialled.dial, redialled.end), (Some(peers.peers[0].clone()), None));
    }
}
