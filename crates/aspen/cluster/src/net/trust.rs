//! Who may speak for which member.
//!
//! Consensus believes what a member says, so only members are heard: their number must come from the
//! identity that the membership holds for it. A member that was away may find that the cluster is
//! led by one that it has never heard of; it then asks the members that it does know. A node that
//! belongs to no cluster yet has nothing to lose and follows the first leader that finds it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aspen_api::cluster::GetClusterState;
use aspen_api::{AuthenticatedRequest, RequestId, Response};
use futures_util::{StreamExt, stream};
use net_types::limits::MAX_VOUCHED_MEMBERS;
use net_types::{EntityId, PeerAddr};
use net_wire::Class;
use tokio::time::Instant;

use super::Transport;
use crate::types::{LogId, Membership, StoredMembership};

/// Time for members to say whether they know another.
const VOUCH_TIMEOUT: Duration = Duration::from_millis(500);
/// Members that are asked at the same time.
const ASKED_AT_ONCE: usize = 16;
/// Time for which nobody is asked again about one whom no member knew: a stranger could otherwise
/// have the members asked without end, and nobody be asked about a leader.
const REFUSAL_LIFE: Duration = Duration::from_millis(500);

/// What the membership says of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is a member.
    Known,
    /// Nobody has its number, or another identity has. The log may end before the number was given
    /// to a node that took the place of one that is lost.
    Unknown,
}

fn standing(membership: &Membership, sender: u64, from: EntityId) -> Standing {
    match membership.get_node(&sender) {
        Some(member) if member.0.entity_id == from => Standing::Known,
        None if membership.nodes().next().is_none() => Standing::Known,
        Some(_) | None => Standing::Unknown,
    }
}

/// Members that this node knows from others only, until its own log says who belongs.
#[derive(Default)]
struct Vouched {
    /// The membership that did not have them.
    at: Option<LogId>,
    members: BTreeMap<u64, EntityId>,
}

/// Decides whose messages are heard.
pub(crate) struct Trust {
    local: u64,
    transport: Arc<dyn Transport>,
    vouched: Mutex<Vouched>,
    /// Until when nobody is asked about an identity. Held while members are asked, which happens for
    /// one sender at a time.
    refused: tokio::sync::Mutex<BTreeMap<EntityId, Instant>>,
}

impl Trust {
    pub(crate) fn new(local: u64, transport: Arc<dyn Transport>) -> Self {
        let vouched = Mutex::default();
        Self { local, transport, vouched, refused: tokio::sync::Mutex::default() }
    }

    /// What is known here of the node that sends as `sender` and has the identity `from`.
    pub(crate) fn standing(
        &self,
        stored: &StoredMembership,
        sender: u64,
        from: EntityId,
    ) -> Standing {
        match standing(stored.membership(), sender, from) {
            Standing::Unknown if self.was_vouched_for(stored, sender, from) => Standing::Known,
            standing => standing,
        }
    }

    /// Asks the members whether an unknown sender is one of them.
    ///
    /// While another sender is asked for, and for a moment after it was refused, the answer is no; a
    /// member will try again.
    pub(crate) async fn ask_members(
        &self,
        stored: &StoredMembership,
        sender: u64,
        from: EntityId,
    ) -> bool {
        let Ok(mut refused) = self.refused.try_lock() else { return false };
        refused.retain(|_, until| Instant::now() < *until);
        if refused.contains_key(&from) {
            return false;
        }
        let is_member = self.do_others_know(stored.membership(), sender, from).await;
        if is_member {
            tracing::info!(sender, entity_id = %from, "members vouch for one unknown here");
            self.remember(stored, sender, from);
        } else {
            if refused.len() >= MAX_VOUCHED_MEMBERS {
                refused.clear();
            }
            refused.insert(from, Instant::now() + REFUSAL_LIFE);
        }
        is_member
    }

    fn was_vouched_for(&self, stored: &StoredMembership, sender: u64, from: EntityId) -> bool {
        let vouched = self.vouched.lock().unwrap_or_else(PoisonError::into_inner);
        vouched.at == *stored.log_id() && vouched.members.get(&sender) == Some(&from)
    }

    fn remember(&self, stored: &StoredMembership, sender: u64, from: EntityId) {
        let mut vouched = self.vouched.lock().unwrap_or_else(PoisonError::into_inner);
        if vouched.at != *stored.log_id() || vouched.members.len() >= MAX_VOUCHED_MEMBERS {
            *vouched = Vouched { at: *stored.log_id(), members: BTreeMap::new() };
        }
        vouched.members.insert(sender, from);
    }

    async fn do_others_know(&self, known: &Membership, sender: u64, from: EntityId) -> bool {
        let others = known.nodes().filter(|(id, _)| **id != self.local);
        let calls: Vec<_> = others.map(|(_, member)| self.knows(&member.0, sender, from)).collect();
        let mut answers = stream::iter(calls).buffer_unordered(ASKED_AT_ONCE);
        while let Some(knows) = answers.next().await {
            if knows {
                return true;
            }
        }
        false
    }

    /// Whether `witness` counts the sender among the members.
    fn knows(
        &self,
        witness: &PeerAddr,
        sender: u64,
        from: EntityId,
    ) -> impl Future<Output = bool> + Send + use<> {
        let body = AuthenticatedRequest::new(GetClusterState {}, RequestId::UNNAMED).encode();
        let (service, class) = (aspen_api::service::CLIENT, Class::Realtime);
        let call = self.transport.call(witness, service, class, body, VOUCH_TIMEOUT);
        async move {
            let Ok(Ok(Response::ClusterState(state))) = call.await.map(Response::decode) else {
                return false;
            };
            let is_it = |node: &aspen_api::cluster::ClusterNode| {
                node.node_id.0 == sender && node.addr.entity_id == from
            };
            state.nodes.iter().any(is_it)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::net::{TransportError, TransportFuture};
    use crate::types::Member;

    fn entity(n: u64) -> EntityId {
        EntityId([n as u8; 32])
    }

    fn members(ids: &[u64]) -> Membership {
        let node =
            |id: &u64| (*id, Member(PeerAddr::direct(entity(*id), "127.0.0.1:1".parse().unwrap())));
        let nodes: BTreeMap<u64, Member> = ids.iter().map(node).collect();
        Membership::new(vec![ids.iter().copied().collect::<BTreeSet<_>>()], nodes).unwrap()
    }

    #[test]
    fn a_number_counts_only_with_its_identity() {
        let cluster = members(&[1, 2, 3]);
        assert_eq!(standing(&cluster, 2, entity(2)), Standing::Known);
        assert_eq!(standing(&cluster, 2, entity(3)), Standing::Unknown);
        assert_eq!(standing(&cluster, 4, entity(4)), Standing::Unknown);
        assert_eq!(standing(&cluster, 4, entity(2)), Standing::Unknown);
        assert_eq!(standing(&Membership::default(), 4, entity(4)), Standing::Known);
    }
    /// Members of whom none answers, and how often they were asked.
    #[derive(Default)]
    struct Silent(AtomicUsize);

    impl Transport for Silent {
        fn call(
            &self,
            _: &PeerAddr,
            _: &'static str,
            _: Class,
            _: Bytes,
            _: Duration,
        ) -> TransportFuture {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Err(TransportError::Timeout) })
        }

        fn add_peer(&self, _: &PeerAddr) {}
    }

    #[tokio::test(start_paused = true)]
    async fn members_are_asked_about_a_stranger_now_and_then_only() {
        let members = StoredMembership::new(None, members(&[1, 2, 3]));
        let silent = Arc::new(Silent::default());
        let trust = Trust::new(1, silent.clone());
        let asked = || silent.0.load(Ordering::Relaxed);
        for number in 4..1_000 {
            assert!(!trust.ask_members(&members, number, entity(9)).await);
        }
        assert_eq!(asked(), 2, "the others, once");
        assert!(!trust.ask_members(&members, 4, entity(4)).await);
        assert_eq!(asked(), 4, "another identity is another matter");
        tokio::time::advance(REFUSAL_LIFE).await;
        assert!(!trust.ask_members(&members, 9, entity(9)).await);
        assert_eq!(asked(), 6);
    }
}
