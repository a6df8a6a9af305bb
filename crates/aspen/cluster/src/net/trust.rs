//! Who may speak for which member.
//!
//! Consensus believes what a member says, so only members are heard: their number must come from the
//! identity that the membership holds for it. The membership that a node knows can be old, though,
//! and the cluster be led by a member that it has never heard of. Of an unknown sender it therefore
//! asks those that it knows. One that counts the sender among the members is enough; the sender is
//! refused if a majority of the voters, this node included, does not. Where fewer can be asked, the
//! mesh's secret has to do: otherwise members that together could go on would wait for ever for one
//! that is gone to introduce them. Where clients need tokens, that is not so: one that holds the
//! secret alone could keep the voters from answering, and lead. A node that belongs to no cluster yet has nothing to lose and
//! follows the first leader that finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_api::cluster::{ClusterStateResult, GetClusterState};
use aspen_api::{RequestFrame, RequestId, Response};
use futures_util::{StreamExt, stream};
use net_types::limits::MAX_SENDERS_IN_QUESTION;
use net_types::{EntityId, Instant, PeerAddr, lock};
use net_wire::Class;

use super::Transport;
use crate::clock::Clock;
use crate::types::{LogId, Membership, StoredMembership};

/// Time for members to say whether they know another.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// Members that are asked at the same time.
const ASKED_AT_ONCE: usize = 16;
/// How long an answer holds, if the membership does not change before.
const ANSWER_LIFE: Duration = Duration::from_secs(5);

/// What the membership says of a sender: that its number and identity belong together, or nothing.
fn is_listed(membership: &Membership, sender: u64, from: EntityId) -> bool {
    membership.nodes().next().is_none()
        || membership.get_node(&sender).is_some_and(|member| member.0.entity_id == from)
}

/// What is known of a sender that is not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Asked,
    Answered { sender: u64, is_member: bool, until: Instant },
}

/// Senders that are not listed, until this node's own log says who belongs.
#[derive(Default)]
struct Questions {
    /// The membership in which they are not.
    at: Option<LogId>,
    by_identity: BTreeMap<EntityId, Question>,
}

impl Questions {
    /// An identity is asked about once at a time, and not again while the answer holds, so that
    /// strangers cannot have the members asked without end.
    fn open(&mut self, from: EntityId, now: Instant) -> Standing {
        self.by_identity.retain(|_, question| match question {
            Question::Asked => true,
            Question::Answered { until, .. } => now < *until,
        });
        if self.by_identity.len() >= MAX_SENDERS_IN_QUESTION {
            return Standing::Refused;
        }
        self.by_identity.insert(from, Question::Asked);
        Standing::Unknown
    }
}

/// What may be done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It comes from a member.
    Member,
    /// It does not, or this is being found out; the sender will try again.
    Refused,
    /// Members are to be asked.
    Unknown,
}

/// Decides whose messages are heard.
pub(crate) struct Trust {
    local: u64,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    /// Whether the mesh's secret is enough where no majority denies a sender.
    is_secret_enough: bool,
    questions: Mutex<Questions>,
}

/// Takes a question back that was not answered because its sender gave up.
struct Asking<'a> {
    trust: &'a Trust,
    from: EntityId,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut questions = lock(&self.trust.questions);
        if questions.by_identity.get(&self.from) == Some(&Question::Asked) {
            questions.by_identity.remove(&self.from);
        }
    }
}

impl Trust {
    pub(crate) fn new(
        local: u64,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        is_secret_enough: bool,
    ) -> Self {
        Self { local, transport, clock, is_secret_enough, questions: Mutex::default() }
    }

    /// What may be done with a message of the node that sends as `sender` and has the identity
    /// `from`. Who hears `Unknown` calls [`Trust::ask_members`].
    pub(crate) fn standing(
        &self,
        stored: &StoredMembership,
        sender: u64,
        from: EntityId,
    ) -> Standing {
        if is_listed(stored.membership(), sender, from) {
            return Standing::Member;
        }
        let mut questions = lock(&self.questions);
        if questions.at != *stored.log_id() {
            *questions = Questions { at: *stored.log_id(), by_identity: BTreeMap::new() };
        }
        let now = self.clock.now();
        match questions.by_identity.get(&from) {
            Some(Question::Asked) => Standing::Refused,
            Some(Question::Answered { sender: known, is_member, until }) if now < *until => {
                match *is_member && *known == sender {
                    true => Standing::Member,
                    false => Standing::Refused,
                }
            }
            _ => questions.open(from, now),
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
        let is_member = self.is_it_one(stored.membership(), sender, from).await;
        let until = self.clock.now() + ANSWER_LIFE;
        let mut questions = lock(&self.questions);
        if questions.at == *stored.log_id() {
            questions.by_identity.insert(from, Question::Answered { sender, is_member, until });
        }
        tracing::info!(sender, entity_id = %from, is_member, "asked who an unknown sender is");
        is_member
    }

    async fn is_it_one(&self, known: &Membership, sender: u64, from: EntityId) -> bool {
        let voters: BTreeSet<u64> = known.voter_ids().collect();
        let others = known.nodes().filter(|(id, _)| **id != self.local);
        let calls: Vec<_> = others
            .map(|(id, member)| {
                let answer = self.knows(&member.0, sender, from);
                let votes = voters.contains(id);
                async move { (votes, answer.await) }
            })
            .collect();
        let mut against = usize::from(voters.contains(&self.local));
        let mut answers = stream::iter(calls).buffer_unordered(ASKED_AT_ONCE);
        while 2 * against <= voters.len() {
            match answers.next().await {
                Some((_, Some(true))) => return true,
                Some((votes, Some(false))) => against += usize::from(votes),
                Some((_, None)) => {}
                None => return self.is_secret_enough,
            }
        }
        // The others need not decide it, but one of them that knows better still counts.
        answers.any(|(_, answer)| async move { answer == Some(true) }).await
    }

    /// Whether `witness` counts the sender among the members; `None` if it does not answer.
    fn knows(
        &self,
        witness: &PeerAddr,
        sender: u64,
        from: EntityId,
    ) -> impl Future<Output = Option<bool>> + Send + use<> {
        let body = RequestFrame::of(&GetClusterState {}, RequestId::NONE, None);
        let (service, class) = (aspen_api::service::CLIENT, Class::Realtime);
        let call = self.transport.call(witness, service, class, body, ASK_TIMEOUT);
        async move {
            let answer = Response::<ClusterStateResult>::decode(call.await.ok()?);
            let state = answer.ok()?.result.ok()?;
            let mut nodes = state.nodes.iter();
            Some(nodes.any(|node| node.node_id.0 == sender && node.addr.entity_id == from))
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
    use aspen_api::cluster::ClusterNode;
    use aspen_api::{Level, MemberId, Revision};

    use crate::clock::SystemClock;
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
        assert!(is_listed(&cluster, 2, entity(2)));
        assert!(!is_listed(&cluster, 2, entity(3)));
        assert!(!is_listed(&cluster, 4, entity(4)));
        assert!(!is_listed(&cluster, 4, entity(2)));
        assert!(is_listed(&Membership::default(), 4, entity(4)), "nothing to lose");
    }

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
        let trust = Trust::new(1, witnesses.clone(), Arc::new(SystemClock::new()), true);
        (trust, witnesses, StoredMembership::new(None, members(&[1, 2, 3])))
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
    async fn members_decide_about_a_stranger_and_are_asked_now_and_then_only() {
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
    async fn where_no_majority_can_be_asked_the_secret_has_to_do() {
        let (trust, _, members) = among(None);
        assert!(is_heard(&trust, &members, 4, entity(4)).await);
        let (trust, _, members) = among(None);
        let trust = Trust { is_secret_enough: false, ..trust };
        assert!(!is_heard(&trust, &members, 4, entity(4)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_strangers_are_asked_about_than_there_is_room_for() {
        let (trust, _, members) = among(Some(&[1, 2, 3]));
        let stranger = |n: usize| {
            let mut id = [7; 32];
            id[..8].copy_from_slice(&(n as u64).to_le_bytes());
            EntityId(id)
        };
        for n in 0..MAX_SENDERS_IN_QUESTION {
            assert_eq!(trust.standing(&members, 9, stranger(n)), Standing::Unknown);
        }
        let next = stranger(MAX_SENDERS_IN_QUESTION);
        assert_eq!(trust.standing(&members, 9, next), Standing::Refused);
        // Who gave up leaves its place.
        drop(Asking { trust: &trust, from: stranger(0) });
        assert_eq!(trust.standing(&members, 9, next), Standing::Unknown);
    }
}
