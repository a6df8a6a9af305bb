//! The types that consensus is made of here, and how entries and memberships are written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use aspen_api::codec::{DecodeError, Input, Wire, put_varint};
use aspen_kv::Reply;
use bytes::Bytes;
use net_types::limits::{MAX_CLUSTER_PEERS, MAX_VOTERS};
use net_types::{EntityId, PeerAddr};
use openraft::entry::RaftEntry as _;
use openraft::impls::{Entry, EntryPayload, Vote, leader_id_std};

use crate::runtime::ClusterRuntime;
use aspen_log::{EntryId, LogEntry, RecordKind, StoredVote};

/// A command as the log holds it: the bytes of an [`aspen_kv::Proposal`].
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proposed(pub Bytes);

impl fmt::Debug for Proposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposed({} bytes)", self.0.len())
    }
}

impl fmt::Display for Proposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry answered; `None` for entries of consensus itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Applied(pub Option<Reply>);

/// A member: its identity and its addresses.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Member(pub PeerAddr);

impl Default for Member {
    fn default() -> Self {
        Self(PeerAddr { entity_id: EntityId([0; 32]), addrs: Vec::new(), relays: Vec::new() })
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{:?}", self.0.entity_id, self.0.addrs)
    }
}

openraft::declare_raft_types!(
    /// The types of this cluster.
    pub(crate) Types:
        D = Proposed,
        R = Applied,
        NodeId = u64,
        Node = Member,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        Vote = Vote<Self::LeaderId>,
        Payload = EntryPayload<Proposed, u64, Member>,
        AsyncRuntime = ClusterRuntime,
);

/// A vote.
pub(crate) type RaftVote = Vote<leader_id_std::LeaderId<u64, u64>>;
/// Term and index of an entry.
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
/// An entry of the log.
pub(crate) type RaftEntry = openraft::alias::EntryOf<Types>;
/// Members and voters.
pub(crate) type Membership = openraft::Membership<u64, Member>;
/// A membership and the entry that holds it.
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
/// What a snapshot covers.
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;

/// The log's id of an entry.
pub(crate) fn entry_id(id: &LogId) -> EntryId {
    EntryId { term: id.committed_leader_id().term, index: id.index() }
}

/// openraft's id of an entry.
pub(crate) fn log_id(id: EntryId) -> LogId {
    LogId::new(openraft::alias::CommittedLeaderIdOf::<Types>::new(id.term), id.index)
}

/// The vote as the log stores it.
pub(crate) fn stored_vote(vote: &RaftVote) -> StoredVote {
    let leader = &vote.leader_id;
    StoredVote { term: leader.term, node: leader.voted_for, committed: vote.committed }
}

/// The vote as openraft holds it.
pub(crate) fn raft_vote(vote: StoredVote) -> RaftVote {
    match vote.committed {
        true => Vote::new_committed(vote.term, vote.node),
        false => Vote::new(vote.term, vote.node),
    }
}

/// The log's form of an entry.
pub(crate) fn log_entry(entry: RaftEntry) -> LogEntry {
    let id = entry_id(&entry.log_id());
    let (kind, payload) = match entry.payload {
        EntryPayload::Blank => (RecordKind::Blank, Bytes::new()),
        EntryPayload::Normal(Proposed(bytes)) => (RecordKind::Command, bytes),
        EntryPayload::Membership(membership) => {
            (RecordKind::Membership, MembershipRecord(membership).to_bytes())
        }
    };
    LogEntry { id, kind, payload }
}

/// openraft's form of an entry.
pub(crate) fn raft_entry(entry: LogEntry) -> io::Result<RaftEntry> {
    let payload = match entry.kind {
        RecordKind::Blank => EntryPayload::Blank,
        RecordKind::Command => EntryPayload::Normal(Proposed(entry.payload)),
        RecordKind::Membership => {
            let record = MembershipRecord::from_bytes(entry.payload)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            EntryPayload::Membership(record.0)
        }
        RecordKind::Vote | RecordKind::Truncate | RecordKind::Purge => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a log entry"));
        }
    };
    Ok(Entry::new(log_id(entry.id), payload))
}

/// Voter sets of one membership: the old and the new one while they change.
const MAX_VOTER_SETS: usize = 2;

/// A membership as the log and snapshots hold it.
///
/// ```text
/// count of voter sets, each a list of numbers · list of members, each a number and a peer address
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct MembershipRecord(pub Membership);

impl Wire for MembershipRecord {
    fn put(&self, out: &mut Vec<u8>) {
        let sets = self.0.get_joint_config();
        put_varint(sets.len() as u64, out);
        for set in sets {
            put_varint(set.len() as u64, out);
            set.iter().for_each(|id| id.put(out));
        }
        put_varint(self.0.nodes().count() as u64, out);
        for (id, member) in self.0.nodes() {
            id.put(out);
            member.0.put(out);
        }
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        let mut sets = Vec::new();
        for _ in 0..input.count("voter sets", MAX_VOTER_SETS)? {
            let count = input.count("voters", MAX_VOTERS)?;
            let set = (0..count).map(|_| u64::take(input)).collect::<Result<BTreeSet<_>, _>>()?;
            if set.len() != count {
                return Err(DecodeError::BadValue("voters"));
            }
            sets.push(set);
        }
        let mut members = BTreeMap::new();
        for _ in 0..input.count("members", MAX_CLUSTER_PEERS)? {
            let id = u64::take(input)?;
            if members.insert(id, Member(PeerAddr::take(input)?)).is_some() {
                return Err(DecodeError::BadValue("members"));
            }
        }
        if sets.is_empty() && members.is_empty() {
            return Ok(Self::default());
        }
        Membership::new(sets, members).map(Self).map_err(|_| DecodeError::BadValue("membership"))
    }

    fn size_hint(&self) -> usize {
        16 + 64 * self.0.nodes().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Membership {
        let member = |n: u8| {
            let addr = format!("127.0.0.{n}:7").parse().unwrap();
            Member(PeerAddr::direct(EntityId([n; 32]), addr))
        };
        let sets = vec![BTreeSet::from([1, 2]), BTreeSet::from([2])];
        Membership::new(sets, BTreeMap::from([(1, member(1)), (2, member(2)), (300, member(3))]))
            .unwrap()
    }

    #[test]
    fn membership_bytes_are_pinned_and_round_trip() {
        let bytes = MembershipRecord(sample()).to_bytes();
        let peer = |n: &str| format!("{}01047f0000{n}070000", n.repeat(32));
        let expected = format!(
            "02020102010203{}{}{}",
            "01".to_owned() + &peer("01"),
            "02".to_owned() + &peer("02"),
            "ac02".to_owned() + &peer("03")
        );
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes), expected);
        assert_eq!(MembershipRecord::from_bytes(bytes), Ok(MembershipRecord(sample())));
        let none = MembershipRecord::default();
        assert_eq!(MembershipRecord::from_bytes(none.to_bytes()), Ok(none));
    }

    #[test]
    fn votes_and_ids_convert_both_ways() {
        for committed in [false, true] {
            let vote = StoredVote { term: 3, node: 9, committed };
            assert_eq!(stored_vote(&raft_vote(vote)), vote);
        }
        let id = EntryId { term: 4, index: 0 };
        assert_eq!(entry_id(&log_id(id)), id);
    }

    proptest! {
        #[test]
        fn damaged_memberships_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = MembershipRecord::from_bytes(Bytes::from(bytes));
        }
    }
}
