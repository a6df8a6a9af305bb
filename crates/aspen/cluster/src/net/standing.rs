//! Whose messages are heard, as a function of the membership and of what members have said.
//!
//! A sender that the membership lists is heard. One that it does not list is in question: an identity
//! is asked about once at a time, and not again while the answer holds, so that strangers cannot have
//! the members asked without end. Invariants: at most [`MAX_SENDERS_IN_QUESTION`] identities are in
//! question, and all of them in the same membership.

use std::collections::BTreeMap;
use std::time::Duration;

use net_types::limits::MAX_SENDERS_IN_QUESTION;
use net_types::{EntityId, Instant};

use crate::types::{LogId, Membership, StoredMembership};

/// How long an answer holds, if the membership does not change before.
pub(super) const ANSWER_LIFE: Duration = Duration::from_secs(5);

/// Whether the membership says that a sender's number and identity belong together, or nothing.
pub(super) fn is_listed(membership: &Membership, sender: u64, from: EntityId) -> bool {
    membership.nodes().next().is_none()
        || membership.get_node(&sender).is_some_and(|member| member.0.entity_id == from)
}

/// Whether a majority of `voters` does not know a sender.
pub(super) fn is_denied(voters: usize, against: usize) -> bool {
    2 * against > voters
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Asked,
    Answered { sender: u64, is_member: bool, until: Instant },
}

/// Senders that are not listed.
#[derive(Default)]
pub(super) struct Questions {
    /// The membership in which they are not.
    at: Option<LogId>,
    by_identity: BTreeMap<EntityId, Question>,
}

impl Questions {
    /// What may be done with a message of a sender that `stored` does not list. `Unknown` is followed
    /// by an answer or a withdrawal.
    pub(super) fn standing(
        &mut self,
        stored: &StoredMembership,
        sender: u64,
        from: EntityId,
        now: Instant,
    ) -> Standing {
        if self.at != *stored.log_id() {
            *self = Self { at: *stored.log_id(), by_identity: BTreeMap::new() };
        }
        self.by_identity.retain(|_, question| match question {
            Question::Asked => true,
            Question::Answered { until, .. } => now < *until,
        });
        let standing = match self.by_identity.get(&from) {
            Some(Question::Answered { sender: known, is_member: true, .. }) if *known == sender => {
                Standing::Member
            }
            Some(Question::Asked | Question::Answered { .. }) => Standing::Refused,
            None if self.by_identity.len() >= MAX_SENDERS_IN_QUESTION => Standing::Refused,
            None => {
                self.by_identity.insert(from, Question::Asked);
                Standing::Unknown
            }
        };
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
        standing
    }

    /// Takes in what the members of `stored` say, unless the membership is another by now.
    pub(super) fn answer(
        &mut self,
        stored: &StoredMembership,
        sender: u64,
        from: EntityId,
        is_member: bool,
        now: Instant,
    ) {
        if self.at == *stored.log_id() {
            let until = now + ANSWER_LIFE;
            self.by_identity.insert(from, Question::Answered { sender, is_member, until });
        }
    }

    /// Takes a question back that was not answered.
    pub(super) fn withdraw(&mut self, from: EntityId) {
        if self.by_identity.get(&from) == Some(&Question::Asked) {
            self.by_identity.remove(&from);
        }
    }

    fn check_invariants(&self) {
        assert!(self.by_identity.len() <= MAX_SENDERS_IN_QUESTION, "too many in question");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::testing::{entity, voters};

    #[test]
    fn a_number_counts_only_with_its_identity() {
        let cluster = voters(&[1, 2, 3]);
        assert!(is_listed(&cluster, 2, entity(2)));
        assert!(!is_listed(&cluster, 2, entity(3)));
        assert!(!is_listed(&cluster, 4, entity(4)));
        assert!(!is_listed(&cluster, 4, entity(2)));
        assert!(is_listed(&Membership::default(), 4, entity(4)), "nothing to lose");
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn an_answer_holds_for_its_sender_until_it_is_old_or_the_members_change() {
        let stored = StoredMembership::new(None, voters(&[1, 2, 3]));
        let life = ANSWER_LIFE.as_millis() as u64;
        let mut questions = Questions::default();
        let mut ask = |sender, ms| questions.standing(&stored, sender, entity(4), at(ms));
        assert_eq!(ask(4, 0), Standing::Unknown);
        assert_eq!(ask(4, 1), Standing::Refused, "it is being found out");
        questions.answer(&stored, 4, entity(4), true, at(2));
        let mut ask = |sender, ms| questions.standing(&stored, sender, entity(4), at(ms));
        assert_eq!(ask(4, 3), Standing::Member);
        assert_eq!(ask(5, 3), Standing::Refused, "a number of another");
        assert_eq!(ask(4, 2 + life), Standing::Unknown);
        let id = crate::types::log_id(aspen_log::EntryId { term: 1, index: 9 });
        let changed = StoredMembership::new(Some(id), voters(&[1, 2, 3]));
        assert_eq!(questions.standing(&changed, 4, entity(4), at(3)), Standing::Unknown);
        questions.answer(&stored, 4, entity(4), true, at(4));
        let late = questions.standing(&changed, 4, entity(4), at(5));
        assert_eq!(late, Standing::Refused, "an answer about members that are no more");
    }

    #[test]
    fn no_more_strangers_are_asked_about_than_there_is_room_for() {
        let stored = StoredMembership::new(None, voters(&[1, 2, 3]));
        let mut questions = Questions::default();
        let stranger = |n: usize| {
            let mut id = [7; 32];
            id[..8].copy_from_slice(&(n as u64).to_le_bytes());
            EntityId(id)
        };
        for n in 0..MAX_SENDERS_IN_QUESTION {
            assert_eq!(questions.standing(&stored, 9, stranger(n), at(0)), Standing::Unknown);
        }
        let next = stranger(MAX_SENDERS_IN_QUESTION);
        assert_eq!(questions.standing(&stored, 9, next, at(0)), Standing::Refused);
        questions.withdraw(stranger(0));
        assert_eq!(questions.standing(&stored, 9, next, at(0)), Standing::Unknown);
    }

    #[test]
    fn a_majority_of_the_voters_denies() {
        for (voters, against, denied) in [(3, 1, false), (3, 2, true), (4, 2, false), (1, 1, true)]
        {
            assert_eq!(is_denied(voters, against), denied, "{against} of {voters}");
        }
    }
}
