//! What changes of the members are allowed and what they lead to, as functions of the membership and
//! of what was learned about a node.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use aspen_api::cluster::{ClusterStateResult, NodeInfoResult};
use aspen_api::{ApiError, ErrorCode, Level, MemberId};
use net_types::limits::{
    MAX_CLUSTER_PEERS, MAX_PEER_ADDRS, MAX_VOTERS, MEMBERSHIP_COOLDOWN, PROMOTE_MAX_LAG,
};
use net_types::{EntityId, PeerAddr};

use crate::condition::ensure;
use crate::types::{Member, Membership, StoredMembership};

/// The members after a change.
pub(super) type Changed = Result<ClusterStateResult, ApiError>;
/// Why a change is refused, or nothing.
type Allowed = Result<(), ApiError>;
/// The voters that a change leads to.
type Voters = Result<BTreeSet<u64>, ApiError>;

pub(super) fn conflict(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Conflict, text)
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

fn not_found(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::NotFound, text)
}

/// Whether a node that is to be a learner is a member already, so that only its addresses change.
pub(super) fn is_rejoin(all: &Membership, id: MemberId, addr: &PeerAddr) -> Result<bool, ApiError> {
    let is_reachable = !addr.addrs.is_empty() || !addr.relays.is_empty();
    let text = "a learner needs an address: without one it can never catch up";
    ensure(is_reachable, || invalid(text))?;
    let has_either =
        |(other, member): &(&u64, &Member)| **other == id.0 || member.0.entity_id == addr.entity_id;
    match all.nodes().find(has_either) {
        Some((other, member)) if *other == id.0 && member.0.entity_id == addr.entity_id => Ok(true),
        Some((other, _)) if *other == id.0 => Err(taken(id)),
        Some((other, _)) => {
            Err(conflict(format!("this identity is a member already, as node {other}")))
        }
        None if all.nodes().count() >= MAX_CLUSTER_PEERS => {
            Err(conflict(format!("a cluster has at most {MAX_CLUSTER_PEERS} members")))
        }
        None => Ok(false),
    }
}

/// Another node has the number.
pub(super) fn taken(id: MemberId) -> ApiError {
    conflict(format!("node {id} is another member"))
}

/// A node that is to join does not answer.
pub(super) fn silent(id: MemberId) -> ApiError {
    conflict(format!(
        "node {id} does not answer at its address: is it running, was it started with this \
         cluster's ticket, and can the leader reach it?"
    ))
}

/// What a node that is to join as `id` says of itself. With a number that is not its own it could
/// never lead, and below the cluster's level it could not read the log.
pub(super) fn ensure_fits(id: MemberId, info: &NodeInfoResult, level: Level) -> Allowed {
    let own = info.raft_node_id;
    ensure(own == id, || invalid(format!("the node at this address is node {own}, not {id}")))?;
    let (version, top) = (&info.version, info.top_level);
    ensure(top >= level, || {
        conflict(format!(
            "node {id} runs version {version}, which understands feature level {top}; this cluster \
             is at level {level}: start the node with the version that the members run"
        ))
    })
}

/// What a node that is to join says of its cluster: two clusters' logs must not be mixed. A node that
/// was removed still knows members.
pub(super) fn ensure_no_other_cluster(
    members: &Membership,
    id: MemberId,
    entity: EntityId,
    state: Option<Changed>,
) -> Allowed {
    let is_known = |state: &ClusterStateResult| {
        let own: BTreeSet<_> = members.nodes().map(|(_, member)| member.0.entity_id).collect();
        let mut others = state.nodes.iter().map(|node| node.addr.entity_id);
        others.any(|other| other != entity && own.contains(&other))
    };
    match state {
        Some(Err(error)) if error.code == ErrorCode::NotInitialized => Ok(()),
        Some(Ok(state)) if is_known(&state) => Ok(()),
        Some(Ok(_)) => Err(conflict(format!(
            "node {id} has a cluster of its own; start it with an empty data folder and this \
             cluster's ticket"
        ))),
        Some(Err(_)) | None => Err(silent(id)),
    }
}

fn bounded(voters: BTreeSet<u64>) -> Voters {
    ensure(!voters.is_empty(), || invalid("a cluster needs at least one voter"))?;
    let is_small = voters.len() <= MAX_VOTERS;
    ensure(is_small, || invalid(format!("a cluster has at most {MAX_VOTERS} voters")))?;
    Ok(voters)
}

fn ensure_member(all: &Membership, id: MemberId) -> Allowed {
    ensure(all.get_node(&id.0).is_some(), || {
        not_found(format!("node {id} is not a member; add it as a learner first"))
    })
}

/// The voters once `id` votes, in the place of `old` if there is one.
pub(super) fn promoted(all: &Membership, id: MemberId, old: Option<MemberId>) -> Voters {
    ensure_member(all, id)?;
    let mut voters: BTreeSet<u64> = all.voter_ids().collect();
    ensure(voters.insert(id.0), || conflict(format!("node {id} votes already")))?;
    if let Some(old) = old {
        ensure(voters.remove(&old.0), || not_found(format!("node {old} is not a voter")))?;
    }
    bounded(voters)
}

/// The voters that are asked for.
pub(super) fn replaced(all: &Membership, wanted: &[MemberId]) -> Voters {
    wanted.iter().try_for_each(|id| ensure_member(all, *id))?;
    bounded(wanted.iter().map(|id| id.0).collect())
}

/// What a leader knows of a learner that is to vote.
#[derive(Clone, Copy, Debug)]
pub(super) struct Learner {
    /// Time since the voters changed, if this node has seen them change.
    pub(super) since_change: Option<Duration>,
    /// Entries that it lacks.
    pub(super) lag: u64,
    /// Whether it answers.
    pub(super) is_near: bool,
}

/// `CONFLICT` if the vote of `id` would endanger a majority now.
pub(super) fn ensure_promotable(id: MemberId, learner: Learner) -> Allowed {
    let text = if learner.since_change.is_some_and(|since| since < MEMBERSHIP_COOLDOWN) {
        let seconds = MEMBERSHIP_COOLDOWN.as_secs();
        format!("the voters changed less than {seconds} s ago; wait or force it")
    } else if learner.lag > PROMOTE_MAX_LAG {
        format!("node {id} lags more than {PROMOTE_MAX_LAG} entries")
    } else if !learner.is_near {
        format!("node {id} cannot be reached now")
    } else {
        return Ok(());
    };
    Err(conflict(text))
}

/// The identity of a member that the leader `own` is to remove for good.
pub(super) fn expunged(
    all: &Membership,
    own: MemberId,
    id: MemberId,
) -> Result<EntityId, ApiError> {
    let member = all.get_node(&id.0);
    let member = member.ok_or_else(|| not_found(format!("node {id} is not a member")))?;
    ensure(id != own, || {
        conflict(format!("node {id} leads; let another lead first (cluster transfer-leader)"))
    })?;
    Ok(member.0.entity_id)
}

/// The next leader after `own`: the voter that is asked for, or the one with the longest log.
/// `matched` is the last entry that a member is known to have.
pub(super) fn next_leader(
    members: &Membership,
    own: MemberId,
    wanted: Option<MemberId>,
    matched: impl Fn(u64) -> Option<u64>,
) -> Result<u64, ApiError> {
    let mut voters = members.voter_ids();
    match wanted {
        Some(id) if voters.any(|voter| voter == id.0) => Ok(id.0),
        Some(id) => Err(not_found(format!("node {id} is not a voter"))),
        None => voters
            .filter(|id| *id != own.0)
            .filter_map(|id| Some((matched(id)?, id)))
            .max()
            .map(|(_, id)| id)
            .ok_or_else(|| conflict("there is no other voter that could lead")),
    }
}

/// A change of the voters of which the second entry is missing. Between the two entries every decision
/// needs a majority of the old voters and one of the new, and only another change ends that.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnfinishedChange {
    /// Whether the leader of the present term began it, and may be about to finish it.
    pub(super) is_own: bool,
    /// The voters that it leads to.
    pub(super) voters: BTreeSet<u64>,
}

/// The change that is under way in `stored`, as seen in `term`.
pub(super) fn unfinished(stored: &StoredMembership, term: u64) -> Option<UnfinishedChange> {
    let configs = stored.membership().get_joint_config();
    let voters = configs.last().filter(|_| configs.len() > 1)?.clone();
    let is_own = stored.log_id().is_some_and(|id| id.committed_leader_id().term == term);
    Some(UnfinishedChange { is_own, voters })
}

/// `entry` with the addresses `new` in the place of `old`; its other addresses stay.
pub(super) fn moved(entry: &PeerAddr, old: SocketAddr, new: &[SocketAddr]) -> PeerAddr {
    let mut addrs = new.to_vec();
    addrs.extend(entry.addrs.iter().filter(|addr| **addr != old && !new.contains(addr)));
    addrs.truncate(MAX_PEER_ADDRS);
    PeerAddr { addrs, ..entry.clone() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::BTreeMap;

    use aspen_api::cluster::ClusterNode;
    use aspen_log::EntryId;

    use super::*;
    use crate::testing::{addr, entity, members};
    use crate::types::log_id;

    /// Voters 1, 2 and 3, and the learner 4.
    fn four() -> Membership {
        members(&[1, 2, 3, 4], &[&[1, 2, 3]])
    }

    fn code<T>(result: Result<T, ApiError>) -> ErrorCode {
        result.err().unwrap().code
    }

    #[test]
    fn a_join_needs_an_address_and_a_number_and_an_identity_of_its_own() {
        let homeless = PeerAddr { addrs: vec![], ..addr(5) };
        for (id, addr, expected) in [
            (5, addr(5), Ok(false)),
            (4, addr(4), Ok(true)),
            (4, addr(5), Err(ErrorCode::Conflict)),
            (5, addr(4), Err(ErrorCode::Conflict)),
            (5, homeless, Err(ErrorCode::InvalidRequest)),
        ] {
            let found = is_rejoin(&four(), MemberId(id), &addr).map_err(|error| error.code);
            assert_eq!(found, expected, "node {id} at {addr:?}");
        }
        let next = MAX_CLUSTER_PEERS as u64;
        let full = members(&(0..next).collect::<Vec<_>>(), &[&[1]]);
        assert_eq!(code(is_rejoin(&full, MemberId(next), &addr(next))), ErrorCode::Conflict);
        assert_eq!(is_rejoin(&full, MemberId(1), &addr(1)), Ok(true));
    }

    #[test]
    fn a_joining_node_has_the_number_and_reads_the_level() {
        let info = |raft_node_id, top| NodeInfoResult {
            node_id: entity(5).node_id(),
            raft_node_id: MemberId(raft_node_id),
            addr: addr(5),
            version: "1".into(),
            top_level: Level(top),
        };
        let fits = |info| ensure_fits(MemberId(5), &info, Level(2));
        assert_eq!(fits(info(5, 2)), Ok(()));
        assert_eq!(code(fits(info(6, 2))), ErrorCode::InvalidRequest);
        assert_eq!(code(fits(info(5, 1))), ErrorCode::Conflict);
    }

    #[test]
    fn a_joining_node_has_no_cluster_or_knows_a_member_beside_itself() {
        let state = |nodes: &[u64]| {
            let node = |n: &u64| ClusterNode {
                node_id: MemberId(*n),
                addr: addr(*n),
                is_voter: true,
                is_learner: false,
                is_leader: false,
                top_level: None,
            };
            let nodes = nodes.iter().map(node).collect();
            Some(Ok(ClusterStateResult { nodes, level: Level::FIRST }))
        };
        let ensure = |state| ensure_no_other_cluster(&four(), MemberId(5), entity(5), state);
        let error = |code| Some(Err(ApiError::new(code, "no")));
        assert_eq!(ensure(error(ErrorCode::NotInitialized)), Ok(()));
        assert_eq!(ensure(state(&[5, 2])), Ok(()));
        for other in [state(&[5]), state(&[5, 9]), error(ErrorCode::Timeout), None] {
            assert_eq!(code(ensure(other)), ErrorCode::Conflict);
        }
    }

    #[test]
    fn changes_leave_the_voters_that_are_asked_for() {
        let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect::<Vec<_>>();
        let promote = |id, old: Option<u64>| promoted(&four(), MemberId(id), old.map(MemberId));
        assert_eq!(promote(4, None), Ok(BTreeSet::from([1, 2, 3, 4])));
        assert_eq!(promote(4, Some(1)), Ok(BTreeSet::from([2, 3, 4])));
        assert_eq!(code(promote(3, None)), ErrorCode::Conflict);
        assert_eq!(code(promote(5, None)), ErrorCode::NotFound);
        assert_eq!(code(promote(4, Some(5))), ErrorCode::NotFound);
        assert_eq!(replaced(&four(), &ids(&[4, 1, 4])), Ok(BTreeSet::from([1, 4])));
        assert_eq!(code(replaced(&four(), &[])), ErrorCode::InvalidRequest);
        assert_eq!(code(replaced(&four(), &ids(&[1, 5]))), ErrorCode::NotFound);
        let many: Vec<u64> = (1..=MAX_VOTERS as u64 + 1).collect();
        let crowd = members(&many, &[&[1]]);
        assert_eq!(code(replaced(&crowd, &ids(&many))), ErrorCode::InvalidRequest);
    }

    #[test]
    fn a_learner_votes_once_it_is_near_and_the_voters_have_settled() {
        let good = Learner { since_change: None, lag: PROMOTE_MAX_LAG, is_near: true };
        let settled = Learner { since_change: Some(MEMBERSHIP_COOLDOWN), ..good };
        for (learner, expected) in [
            (good, None),
            (settled, None),
            (Learner { since_change: Some(Duration::ZERO), ..good }, Some("less than")),
            (Learner { lag: PROMOTE_MAX_LAG + 1, ..good }, Some("lags")),
            (Learner { is_near: false, ..good }, Some("reached")),
        ] {
            let found = ensure_promotable(MemberId(4), learner).err().map(|error| error.message);
            assert_eq!(found.is_some(), expected.is_some(), "{learner:?}");
            assert!(found.is_none_or(|text| text.contains(expected.unwrap())), "{learner:?}");
        }
    }

    #[test]
    fn all_but_the_leader_can_be_expunged() {
        let expunge = |id| expunged(&four(), MemberId(1), MemberId(id));
        assert_eq!(expunge(4), Ok(entity(4)));
        assert_eq!(code(expunge(1)), ErrorCode::Conflict);
        assert_eq!(code(expunge(5)), ErrorCode::NotFound);
    }

    #[test]
    fn the_voter_with_the_longest_log_leads_next() {
        let lead = |wanted: Option<u64>, logs: &[(u64, u64)]| {
            let logs: BTreeMap<u64, u64> = logs.iter().copied().collect();
            let matched = |id| logs.get(&id).copied();
            next_leader(&four(), MemberId(1), wanted.map(MemberId), matched)
        };
        assert_eq!(lead(None, &[(1, 9), (2, 5), (3, 7), (4, 9)]), Ok(3));
        assert_eq!(lead(Some(2), &[]), Ok(2));
        assert_eq!(code(lead(Some(4), &[(4, 9)])), ErrorCode::NotFound);
        assert_eq!(code(lead(None, &[(1, 9), (4, 9)])), ErrorCode::Conflict);
    }

    #[test]
    fn a_change_without_its_second_entry_is_unfinished() {
        let at = Some(log_id(EntryId { term: 3, index: 8 }));
        let stored = |sets| StoredMembership::new(at, members(&[1, 2, 3], sets));
        assert_eq!(unfinished(&stored(&[&[1, 2]]), 3), None);
        let joint = stored(&[&[1, 2], &[2, 3]]);
        for (term, is_own) in [(3, true), (4, false)] {
            let voters = BTreeSet::from([2, 3]);
            assert_eq!(unfinished(&joint, term), Some(UnfinishedChange { is_own, voters }));
        }
    }

    #[test]
    fn only_the_own_old_address_goes() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (old, new, public) = (addr("10.0.0.1:7"), addr("10.0.0.1:8"), addr("203.0.113.9:7"));
        let entry = |addrs: &[SocketAddr]| PeerAddr {
            addrs: addrs.to_vec(),
            ..PeerAddr::direct(EntityId([1; 32]), old)
        };
        assert_eq!(moved(&entry(&[old, public]), old, &[new]), entry(&[new, public]));
        assert_eq!(moved(&entry(&[public]), old, &[new]), entry(&[new, public]));
        let twice = moved(&entry(&[new, public]), old, &[new]);
        assert_eq!(twice, entry(&[new, public]), "what was told once is not told again");
    }
}
