//! Who belongs to the cluster: starting it, adding, promoting and removing members, and handing
//! leadership on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aspen_api::cluster::{
    ClusterNode as ClusterMember, ClusterStateResult, GetClusterState, GetNodeInfo, SnapshotResult,
};
use aspen_api::{ApiError, ErrorCode, MemberId, Request, RequestFrame, RequestId, Response};
use net_types::limits::{
    MAX_CLUSTER_PEERS, MAX_VOTERS, MEMBERSHIP_COOLDOWN, MEMBERSHIP_TIMEOUT, PROMOTE_MAX_LAG,
};
use net_types::{EntityId, PeerAddr, lock};
use net_wire::Class;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::{ChangeMembers, Instant, RaftMetrics, ServerState};

use super::ClusterNode;
use super::errors::{not_leader, of_raft_write, stopped};
use crate::types::{Member, Membership, Types};

/// Time for a new leader to show itself after leadership was handed on.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a node that is to join to say who it is.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a checkpoint that was asked for.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn conflict(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Conflict, text)
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

pub(super) async fn in_time<T>(
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(MEMBERSHIP_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => {
            let text = "the change of the members was not confirmed in time; it may still happen";
            Err(ApiError::new(ErrorCode::Timeout, text))
        }
    }
}

impl ClusterNode {
    /// Makes this node the single voter of a new cluster and waits until it leads.
    ///
    /// `CONFLICT` if it belongs to a cluster already; nothing changes then.
    pub async fn init(&self) -> Result<ClusterStateResult, ApiError> {
        let own = (self.0.config.member_id.0, Member(self.0.config.addr.clone()));
        in_time(async {
            match self.0.raft.initialize(BTreeMap::from([own])).await {
                Ok(()) => {}
                Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                    return Err(conflict("this node belongs to a cluster already"));
                }
                Err(RaftError::APIError(InitializeError::NotInMembers(_))) => {
                    return Err(invalid("this node is not among the members"));
                }
                Err(RaftError::Fatal(_)) => return Err(stopped()),
            }
            self.wait_for(|metrics| metrics.state == ServerState::Leader).await?;
            // The first write of the term is applied: reads and writes are served from here on.
            self.read_barrier(aspen_api::kv::Consistency::Linearizable).await
        })
        .await?;
        Ok(self.cluster_state())
    }

    /// Waits until the state of consensus satisfies `condition`.
    async fn wait_for(
        &self,
        condition: impl Fn(&RaftMetrics<Types>) -> bool,
    ) -> Result<(), ApiError> {
        let mut metrics = self.0.raft.metrics();
        while !condition(&metrics.borrow_and_update()) {
            metrics.changed().await.map_err(|_| stopped())?;
        }
        Ok(())
    }

    /// Members as this node knows them, itself included.
    pub fn cluster_state(&self) -> ClusterStateResult {
        let leader = self.live_leader();
        let nodes = self.with_membership(|membership| {
            let voters: BTreeSet<u64> = membership.voter_ids().collect();
            let member = |(id, member): (&u64, &Member)| ClusterMember {
                node_id: MemberId(*id),
                addr: member.0.clone(),
                is_voter: voters.contains(id),
                is_learner: !voters.contains(id),
                is_leader: leader == Some(MemberId(*id)),
                top_level: self.top_level_of(*id),
            };
            membership.nodes().map(member).collect()
        });
        ClusterStateResult { nodes, level: self.0.upkeep.level() }
    }

    /// Adds a node that receives the log without voting, or changes a learner's addresses.
    ///
    /// A new one is asked who it is first. `INVALID_REQUEST` without an address, since it could not
    /// be reached, and if it has another number; `CONFLICT` if another member has its number or its
    /// identity, if it does not answer, if it has a cluster of its own, and if it was expunged.
    pub async fn add_learner(
        &self,
        id: MemberId,
        addr: PeerAddr,
    ) -> Result<ClusterStateResult, ApiError> {
        self.ensure_leader()?;
        if addr.addrs.is_empty() && addr.relays.is_empty() {
            return Err(invalid("a learner needs an address: without one it can never catch up"));
        }
        let (count, known) = self.with_membership(|membership| {
            let same = membership
                .nodes()
                .find(|(other, member)| **other == id.0 || member.0.entity_id == addr.entity_id);
            (membership.nodes().count(), same.map(|(id, member)| (*id, member.clone())))
        });
        match &known {
            Some((other, member)) if *other == id.0 && member.0.entity_id == addr.entity_id => {}
            Some((other, _)) if *other == id.0 => {
                return Err(conflict(format!("node {other} is another member")));
            }
            Some((other, _)) => {
                return Err(conflict(format!(
                    "this identity is a member already, as node {other}"
                )));
            }
            None if count >= MAX_CLUSTER_PEERS => {
                return Err(conflict(format!("a cluster has at most {MAX_CLUSTER_PEERS} members")));
            }
            None => {}
        }
        self.0.transport.add_peer(&addr);
        if known.is_none() {
            self.ensure_not_expunged(&addr.entity_id).await?;
            self.ensure_can_join(id, &addr).await?;
        }
        let entity = addr.entity_id;
        let member = BTreeMap::from([(id.0, Member(addr))]);
        let change = match known {
            Some(_) => ChangeMembers::SetNodes(member),
            // Another node may have been given the number while this one was asked who it is.
            None => ChangeMembers::AddNodes(member),
        };
        in_time(async {
            self.0.raft.change_membership(change, true).await.map(drop).map_err(of_raft_write)
        })
        .await?;
        let is_it = |m: &Membership| m.get_node(&id.0).is_some_and(|m| m.0.entity_id == entity);
        match self.with_membership(is_it) {
            true => Ok(self.cluster_state()),
            false => Err(conflict(format!("node {id} is another member"))),
        }
    }

    /// Asks a node that is to join for its number and its cluster. With a number that is not its
    /// own it could never lead, and two clusters' logs must not be mixed.
    async fn ensure_can_join(&self, id: MemberId, addr: &PeerAddr) -> Result<(), ApiError> {
        let silent = || {
            conflict(format!(
                "node {id} does not answer at its address: is it running, was it started with \
                 this cluster's ticket, and can the leader reach it?"
            ))
        };
        let Some(Ok(info)) = self.ask(addr, GetNodeInfo {}).await else { return Err(silent()) };
        if info.raft_node_id != id {
            let own = info.raft_node_id;
            return Err(invalid(format!("the node at this address is node {own}, not {id}")));
        }
        let level = self.0.upkeep.level();
        if info.top_level < level {
            let (version, top) = (info.version, info.top_level);
            return Err(conflict(format!(
                "node {id} runs version {version}, which understands feature level {top}; this \
                 cluster is at level {level}: start the node with the version that the members run"
            )));
        }
        match self.ask(addr, GetClusterState {}).await {
            Some(Err(error)) if error.code == ErrorCode::NotInitialized => Ok(()),
            // A node that was removed still knows the members.
            Some(Ok(state)) if self.knows_any(&state, addr.entity_id) => Ok(()),
            Some(Ok(_)) => Err(conflict(format!(
                "node {id} has a cluster of its own; start it with an empty data folder and this \
                 cluster's ticket"
            ))),
            Some(Err(_)) | None => Err(silent()),
        }
    }

    /// Asks another node, member or not; `None` if it does not answer.
    pub(super) async fn ask<R: Request>(
        &self,
        addr: &PeerAddr,
        request: R,
    ) -> Option<Result<R::Reply, ApiError>> {
        let body = RequestFrame::of(&request, RequestId::NONE, None);
        let (service, class) = (aspen_api::service::CLIENT, Class::Foreground);
        let call = self.0.transport.call(addr, service, class, body, JOIN_TIMEOUT);
        Some(Response::<R::Reply>::decode(call.await.ok()?).ok()?.result)
    }

    /// Tells the transport where a peer is.
    pub(crate) fn add_peer(&self, addr: &PeerAddr) {
        self.0.transport.add_peer(addr);
    }

    pub(crate) fn is_member(&self, entity: EntityId) -> bool {
        self.with_membership(|members| members.nodes().any(|(_, m)| m.0.entity_id == entity))
    }

    /// Whether somebody of these, the one apart that was asked, is a member.
    fn knows_any(&self, state: &ClusterStateResult, asked: EntityId) -> bool {
        self.with_membership(|members| {
            let others = state.nodes.iter().map(|n| n.addr.entity_id).filter(|id| *id != asked);
            let own: BTreeSet<_> = members.nodes().map(|(_, member)| member.0.entity_id).collect();
            others.into_iter().any(|id| own.contains(&id))
        })
    }

    /// Makes a learner a voter, and removes `replace` from the voters in the same change.
    ///
    /// Unless `is_force`, `CONFLICT` if the learner lags, cannot be reached, or the voters changed
    /// a short time ago.
    pub async fn promote(
        &self,
        id: MemberId,
        replace: Option<MemberId>,
        is_force: bool,
    ) -> Result<ClusterStateResult, ApiError> {
        self.ensure_leader()?;
        let (is_member, mut voters) = self.with_membership(|membership| {
            let voters: BTreeSet<u64> = membership.voter_ids().collect();
            (membership.get_node(&id.0).is_some(), voters)
        });
        if !is_member {
            let text = format!("node {id} is not a member; add it as a learner first");
            return Err(ApiError::new(ErrorCode::NotFound, text));
        }
        if !voters.insert(id.0) {
            return Err(conflict(format!("node {id} votes already")));
        }
        if let Some(old) = replace
            && !voters.remove(&old.0)
        {
            return Err(ApiError::new(ErrorCode::NotFound, format!("node {old} is not a voter")));
        }
        if !is_force {
            self.ensure_promotable(id)?;
        }
        self.set_voters(voters).await
    }

    /// Replaces the voters by joint consensus. Removed voters leave the cluster; a leader that is
    /// removed steps down once the change is committed.
    pub async fn change_membership(
        &self,
        members: &[MemberId],
    ) -> Result<ClusterStateResult, ApiError> {
        self.ensure_leader()?;
        let voters: BTreeSet<u64> = members.iter().map(|id| id.0).collect();
        if voters.is_empty() {
            return Err(invalid("a cluster needs at least one voter"));
        }
        let unknown = self.with_membership(|membership| {
            voters.iter().copied().find(|id| membership.get_node(id).is_none())
        });
        if let Some(id) = unknown {
            let text = format!("node {id} is not a member; add it as a learner first");
            return Err(ApiError::new(ErrorCode::NotFound, text));
        }
        self.set_voters(voters).await
    }

    async fn set_voters(&self, voters: BTreeSet<u64>) -> Result<ClusterStateResult, ApiError> {
        if voters.len() > MAX_VOTERS {
            return Err(invalid(format!("a cluster has at most {MAX_VOTERS} voters")));
        }
        in_time(async {
            self.0.raft.change_membership(voters, false).await.map(drop).map_err(of_raft_write)
        })
        .await?;
        Ok(self.cluster_state())
    }

    /// A leader that was removed leads on for a moment, but changes no members: openraft takes for
    /// granted that it is one.
    pub(super) fn ensure_leader(&self) -> Result<(), ApiError> {
        self.0.raft.as_leader().map(drop).map_err(|forward| not_leader(&forward))?;
        let own = self.0.config.member_id.0;
        match self.with_membership(|membership| membership.get_node(&own).is_some()) {
            true => Ok(()),
            false => Err(ApiError::not_leader(None)),
        }
    }

    fn ensure_promotable(&self, id: MemberId) -> Result<(), ApiError> {
        let changed = *lock(&self.0.voters_changed_at);
        if let Some(at) = changed
            && self.0.config.clock.now().since(at) < MEMBERSHIP_COOLDOWN
        {
            let text = format!(
                "the voters changed less than {} s ago; wait or force it",
                MEMBERSHIP_COOLDOWN.as_secs()
            );
            return Err(conflict(text));
        }
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        let matched = metrics.replication.as_ref().and_then(|all| all.get(&id.0)?.as_ref());
        let lag = matched.map_or(u64::MAX, |matched| last.saturating_sub(matched.index()));
        if lag > PROMOTE_MAX_LAG {
            let text = format!("node {id} lags more than {PROMOTE_MAX_LAG} entries");
            return Err(conflict(text));
        }
        let heard = metrics.heartbeat.as_ref().and_then(|all| all.get(&id.0)?.as_ref());
        let is_near = heard.is_some_and(|at| at.elapsed() < self.0.config.timing.election_max);
        match is_near {
            true => Ok(()),
            false => Err(conflict(format!("node {id} cannot be reached now"))),
        }
    }

    /// Hands leadership to `target`, or to the voter whose log is longest, and waits until another
    /// node leads.
    pub async fn transfer_leader(&self, target: Option<MemberId>) -> Result<(), ApiError> {
        self.ensure_leader()?;
        let own = self.0.config.member_id.0;
        let target = match target {
            Some(target) if target.0 == own => return Ok(()),
            Some(target) => target.0,
            None => self
                .most_complete_voter()
                .ok_or_else(|| conflict("there is no other voter that could lead"))?,
        };
        if !self.with_membership(|membership| membership.voter_ids().any(|id| id == target)) {
            let text = format!("node {target} is not a voter");
            return Err(ApiError::new(ErrorCode::NotFound, text));
        }
        match tokio::time::timeout(TRANSFER_TIMEOUT, self.hand_over(target)).await {
            Ok(result) => result,
            Err(_) => Err(ApiError::new(ErrorCode::Timeout, "no other node took the lead in time")),
        }
    }

    /// Has `target` stand for election until another node leads: it can lose, and this node be
    /// elected again.
    async fn hand_over(&self, target: u64) -> Result<(), ApiError> {
        let own = self.0.config.member_id.0;
        let leads_elsewhere =
            |m: &RaftMetrics<Types>| m.current_leader.is_some_and(|leader| leader != own);
        loop {
            let term = self.0.raft.metrics().borrow_watched().current_term;
            self.0.raft.trigger().transfer_leader(target).await.map_err(|_| stopped())?;
            let leads_again =
                |m: &RaftMetrics<Types>| m.state == ServerState::Leader && m.current_term > term;
            self.wait_for(|metrics| leads_elsewhere(metrics) || leads_again(metrics)).await?;
            if leads_elsewhere(&self.0.raft.metrics().borrow_watched()) {
                return Ok(());
            }
        }
    }

    fn most_complete_voter(&self) -> Option<u64> {
        let own = self.0.config.member_id.0;
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let voters = metrics.membership_config.membership().voter_ids();
        voters
            .filter(|id| *id != own)
            .filter_map(|id| Some((replication.get(&id)?.as_ref()?.index(), id)))
            .max()
            .map(|(_, id)| id)
    }

    /// Makes the state durable as it is and drops the log before it, but for what followers may
    /// still need.
    pub async fn snapshot(&self) -> Result<SnapshotResult, ApiError> {
        let wanted = self.applied().map(|id| id.index);
        self.0.raft.trigger().snapshot().await.map_err(|_| stopped())?;
        let reached =
            |metrics: &RaftMetrics<Types>| metrics.snapshot.as_ref().map(|id| id.index()) >= wanted;
        let waiting = self.wait_for(reached);
        if let Ok(result) = tokio::time::timeout(SNAPSHOT_TIMEOUT, waiting).await {
            result?;
        }
        let metrics = self.0.raft.metrics();
        let snapshot_index = metrics.borrow_watched().snapshot.as_ref().map(|id| id.index());
        Ok(SnapshotResult { snapshot_index })
    }
}
