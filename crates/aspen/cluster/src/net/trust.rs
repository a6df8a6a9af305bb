//! Which sender may speak for which member: asking the members about senders that are not listed.
//!
//! Consensus believes what a member says, so only members are heard: their number must come from the
//! identity that the membership holds for it. The membership that a node knows can be old, though,
//! and the leader a member that it does not know. So it asks the members that it knows about an unknown
//! sender. One that counts the sender among the members is enough; the sender
//! is refused if a majority of the voters, this node included, does not.
//!
//! Where fewer answer, the mesh's secret is enough: without this rule, members that together form a
//! quorum could wait without end to be introduced by one that is gone. Where clients need tokens it is
//! not enough, since a client that holds the secret alone could keep the voters from answering, and
//! lead. A node that belongs to no cluster yet follows the first leader that finds it: it has nothing
//! to lose.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_api::cluster::GetClusterState;
use futures_util::{StreamExt, stream};
use net_types::{EntityId, PeerAddr, lock};
use net_wire::Class;

use super::peers::Peers;
use super::standing::{Questions, Standing, is_denied, is_listed};
use crate::types::{Membership, StoredMembership};

/// Time for members to say whether they know another.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// Members that are asked at the same time.
const ASKED_AT_ONCE: usize = 16;

/// Decides whose messages are heard.
pub(crate) struct Trust {
    peers: Arc<Peers>,
    /// Whether the mesh's secret is enough where no majority denies a sender.
    is_secret_enough: bool,
    questions: Mutex<Questions>,
}

/// Withdraws a question when the call that asks it is dropped without an answer.
struct Asking<'a> {
    trust: &'a Trust,
    from: EntityId,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        lock(&self.trust.questions).withdraw(self.from);
    }
}

impl Trust {
    pub(crate) fn new(peers: Arc<Peers>, is_secret_enough: bool) -> Self {
        Self { peers, is_secret_enough, questions: Mutex::default() }
    }

    /// What may be done with a message of the node that sends as `sender` and has the identity
    /// `from`. `Unknown` is followed by [`Trust::ask_members`].
    pub(crate) fn standing(
        &self,
        stored: &StoredMembership,
        sender: u64,
        from: EntityId,
    ) -> Standing {
        match is_listed(stored.membership(), sender, from) {
            true => Standing::Member,
            false => lock(&self.questions).standing(stored, sender, from, self.peers.clock.now()),
        }
    }

    /// Asks the members that this node knows about a sender that it does not know.
    pub(crate) async fn ask_members(
        &self,
        stored: &StoredMembership,
        sender: u64,
        from: EntityId,
    ) -> bool {
        let _asking = Asking { trust: self, from };
        let is_member = self.is_known(stored.membership(), sender, from).await;
        let now = self.peers.clock.now();
        lock(&self.questions).answer(stored, sender, from, is_member, now);
        tracing::info!(sender, entity_id = %from, is_member, "asked who an unknown sender is");
        is_member
    }

    async fn is_known(&self, members: &Membership, sender: u64, from: EntityId) -> bool {
        let voters: BTreeSet<u64> = members.voter_ids().collect();
        let others = members.nodes().filter(|(id, _)| **id != self.peers.local);
        let calls: Vec<_> = others
            .map(|(id, member)| {
                let answer = self.knows(&member.0, sender, from);
                let is_voter = voters.contains(id);
                async move { (is_voter, answer.await) }
            })
            .collect();
        let mut against = usize::from(voters.contains(&self.peers.local));
        let mut answers = stream::iter(calls).buffer_unordered(ASKED_AT_ONCE);
        while let Some((is_voter, answer)) = answers.next().await {
            match answer {
                // One that knows better counts, also against a majority.
                Some(true) => return true,
                Some(false) => against += usize::from(is_voter),
                None => {}
            }
        }
        self.is_secret_enough && !is_denied(voters.len(), against)
    }

    /// Whether `witness` counts the sender among the members; `None` if it does not answer.
    fn knows(
        &self,
        witness: &PeerAddr,
        sender: u64,
        from: EntityId,
    ) -> impl Future<Output = Option<bool>> + Send + use<> {
        let call = self.peers.ask(witness, Class::Realtime, ASK_TIMEOUT, &GetClusterState {});
        async move {
            let mut nodes = call.await?.ok()?.nodes.into_iter();
            Some(nodes.any(|node| node.node_id.0 == sender && node.addr.entity_id == from))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;

    use super::*;
    use aspen_api::cluster::{ClusterNode, ClusterStateResult};
    use aspen_api::{Level, MemberId, Response, Revision};

    use crate::clock::SystemClock;
    use crate::net::standing::ANSWER_LIFE;
    use crate::net::transport::{Transport, TransportError, TransportFuture};
    use crate::testing::{entity, voters};

    /// Members that count these among themselves, or do not answer, and how often they were asked.
    struct Witnesses {
        know: Option<Vec<u64>>,
        asked: AtomicUsize,
    }

    impl Transport for Witnesses {
        fn call(
            &self,
            _: &PeerAddr,
            _: &'static str,
            _: Class,
            _: Bytes,
            _: Duration,
        ) -> TransportFuture {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let node = |n: &u64| ClusterNode {
                node_id: MemberId(*n),
                addr: PeerAddr::direct(entity(*n), "127.0.0.1:1".parse().unwrap()),
                is_voter: true,
                is_learner: false,
                is_leader: false,
                top_level: None,
            };
            let state = |known: &Vec<u64>| {
                let nodes = known.iter().map(node).collect();
                let result = Ok(ClusterStateResult { nodes, level: Level::FIRST });
                Response { applied: Revision(0), result }.encode()
            };
            let answer = self.know.as_ref().map(state).ok_or(TransportError::Timeout);
            Box::pin(async move { answer })
        }

        fn add_peer(&self, _: &PeerAddr) {}
    }

    /// Member 1 of three, whose others know these.
    fn among(know: Option<&[u64]>) -> (Trust, Arc<Witnesses>, StoredMembership) {
        let know = know.map(<[u64]>::to_vec);
        let witnesses = Arc::new(Witnesses { know, asked: AtomicUsize::new(0) });
        let peers = Peers::new(1, witnesses.clone(), Arc::new(SystemClock::new()));
        let trust = Trust::new(Arc::new(peers), true);
        (trust, witnesses, StoredMembership::new(None, voters(&[1, 2, 3])))
    }

    async fn is_heard(
        trust: &Trust,
        members: &StoredMembership,
        sender: u64,
        from: EntityId,
    ) -> bool {
        match trust.standing(members, sender, from) {
            Standing::Member => true,
            Standing::Refused => false,
            Standing::Unknown => trust.ask_members(members, sender, from).await,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn members_decide_about_a_stranger_and_are_asked_once() {
        let (trust, witnesses, members) = among(Some(&[1, 2, 3, 4]));
        let asked = || witnesses.asked.load(Ordering::Relaxed);
        assert!(is_heard(&trust, &members, 4, entity(4)).await);
        assert!(is_heard(&trust, &members, 4, entity(4)).await);
        let first = asked();
        assert!((1..=2).contains(&first), "the answer is remembered");
        assert!(!is_heard(&trust, &members, 5, entity(4)).await, "but for its number only");
        for sender in 5..1_000 {
            assert!(!is_heard(&trust, &members, sender, entity(9)).await);
        }
        assert_eq!(asked(), first + 2, "an identity is asked about once");
        assert!(!is_heard(&trust, &members, 2, entity(8)).await, "the number is another's");
        tokio::time::advance(ANSWER_LIFE).await;
        assert!(!is_heard(&trust, &members, 9, entity(9)).await);
        assert_eq!(asked(), first + 6);
    }

    #[tokio::test(start_paused = true)]
    async fn the_secret_is_enough_where_no_majority_can_be_asked() {
        let (trust, _, members) = among(None);
        assert!(is_heard(&trust, &members, 4, entity(4)).await);
        let (trust, _, members) = among(None);
        let trust = Trust { is_secret_enough: false, ..trust };
        assert!(!is_heard(&trust, &members, 4, entity(4)).await);
    }
}
