//! The members of the cluster: starting it, adding, promoting and removing members, handing leadership
//! on, and following what others change. What is allowed is decided in [`super::membership`]. Only a
//! leader that is a member changes the members.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_api::cluster::{
    AddLearner, ClusterNode as ClusterMember, ClusterStateResult, GetClusterState, GetNodeInfo,
};
use aspen_api::kv::{Consistency, ReadKey};
use aspen_api::{ApiError, ErrorCode, Key, KeyValueStore, Level, MemberId};
use aspen_kv::{Command, Reply, Store};
use bytes::Bytes;
use net_types::limits::MEMBERSHIP_TIMEOUT;
use net_types::{EntityId, Instant, PeerAddr, lock};
use net_wire::Class;
use openraft::errors::{InitializeError, RaftError};
use openraft::{ChangeMembers, Instant as _, RaftMetrics, ServerState};

use super::consensus::{Consensus, in_time};
use super::level::next_level;
use super::membership::{
    self, Changed, Learner, UnfinishedChange, conflict, ensure_fits, ensure_no_other_cluster,
    ensure_promotable, moved, silent, taken,
};
use super::replica::Replica;
use crate::condition::{ensure, stopped};
use crate::types::{Member, Membership, Types};

/// Time for a new leader to show itself after leadership was handed on.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a node that is to join, or a member that is told of a move, to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait before a change that another leader began is finished, and before another try.
const FINISH_PAUSE: Duration = Duration::from_millis(200);
/// Wait before the members are told of a move again.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// The key whose presence says that an identity was expunged.
fn expunged_key(entity: &EntityId) -> Key {
    Key::new(format!("_sys:expunged/{entity}")).expect("shorter than any limit, and ASCII")
}

/// Changes and follows the members.
pub(super) struct Members {
    consensus: Arc<Consensus>,
    replica: Replica,
    /// When this node last saw the voters change.
    voters_changed_at: Mutex<Option<Instant>>,
    /// Shared by nodes that join, exclusive to a step of the level: the level that a node was found
    /// fit for is the one that it meets.
    level_gate: tokio::sync::RwLock<()>,
}

impl Members {
    pub(super) fn new(consensus: Arc<Consensus>, replica: Replica) -> Self {
        let (voters_changed_at, level_gate) = (Mutex::new(None), tokio::sync::RwLock::new(()));
        Self { consensus, replica, voters_changed_at, level_gate }
    }

    pub(super) async fn init(&self) -> Changed {
        let own = (self.consensus.own().0, Member(self.consensus.config.addr.clone()));
        in_time(async {
            match self.consensus.raft.initialize(BTreeMap::from([own])).await {
                Ok(()) => {}
                Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                    return Err(conflict("this node belongs to a cluster already"));
                }
                Err(RaftError::APIError(InitializeError::NotInMembers(_))) => {
                    let text = "this node is not among the members";
                    return Err(ApiError::new(ErrorCode::InvalidRequest, text));
                }
                Err(RaftError::Fatal(_)) => return Err(stopped()),
            }
            self.consensus.wait_for(|metrics| metrics.state == ServerState::Leader).await?;
            // The first write of the term is applied: reads and writes are served from here on.
            self.replica.reader.wait_until(Consistency::Linearizable).await
        })
        .await?;
        Ok(self.state())
    }

    /// Members as this node knows them, itself included.
    pub(super) fn state(&self) -> ClusterStateResult {
        let leader = self.consensus.live_leader();
        let nodes = self.consensus.members(|members| {
            let voters: BTreeSet<u64> = members.voter_ids().collect();
            let member = |(id, member): (&u64, &Member)| ClusterMember {
                node_id: MemberId(*id),
                addr: member.0.clone(),
                is_voter: voters.contains(id),
                is_learner: !voters.contains(id),
                is_leader: leader == Some(MemberId(*id)),
                top_level: self.top_level_of(*id),
            };
            members.nodes().map(member).collect()
        });
        ClusterStateResult { nodes, level: self.consensus.applied.level() }
    }

    /// The highest level that a member understands, as far as this node knows.
    fn top_level_of(&self, id: u64) -> Option<Level> {
        match id == self.consensus.own().0 {
            true => Some(self.consensus.config.top_level),
            false => self.consensus.peers.top_level_of(id),
        }
    }

    /// Steps to the level that the cluster may step to; `None` when there is none. Fails while a node
    /// joins.
    pub(super) async fn step_level(&self) -> Option<Result<Reply, ApiError>> {
        let Ok(_gate) = self.level_gate.try_write() else {
            return self.next_level().map(|_| Err(conflict("a node joins")));
        };
        let level = self.next_level()?;
        Some(self.replica.proposer.commit(Command::Step { level }, None).await)
    }

    /// The level that the cluster may step to.
    pub(super) fn next_level(&self) -> Option<Level> {
        let level = self.consensus.applied.level();
        self.consensus.members(|members| {
            next_level(level, members.nodes().map(|(id, _)| self.top_level_of(*id)))
        })
    }

    pub(super) async fn add_learner(&self, id: MemberId, addr: PeerAddr) -> Changed {
        self.consensus.ensure_leader()?;
        let _gate = self.level_gate.read().await;
        let is_rejoin =
            self.consensus.members(|members| membership::is_rejoin(members, id, &addr))?;
        self.consensus.peers.transport.add_peer(&addr);
        if !is_rejoin {
            self.ensure_not_expunged(&addr.entity_id).await?;
            self.ensure_can_join(id, &addr).await?;
        }
        let entity = addr.entity_id;
        let member = BTreeMap::from([(id.0, Member(addr))]);
        let change = match is_rejoin {
            true => ChangeMembers::SetNodes(member),
            // Another node may have been given the number while this one was asked for its own.
            false => ChangeMembers::AddNodes(member),
        };
        self.consensus.change(change, true).await?;
        let is_listed =
            |members: &Membership| members.get_node(&id.0).is_some_and(|m| m.0.entity_id == entity);
        ensure(self.consensus.members(is_listed), || taken(id))?;
        Ok(self.state())
    }

    async fn ensure_can_join(&self, id: MemberId, addr: &PeerAddr) -> Result<(), ApiError> {
        let peers = &self.consensus.peers;
        let info = peers.ask(addr, Class::Foreground, ANSWER_TIMEOUT, &GetNodeInfo {}).await;
        let info = info.and_then(Result::ok).ok_or_else(|| silent(id))?;
        ensure_fits(id, &info, self.consensus.applied.level())?;
        let state = peers.ask(addr, Class::Foreground, ANSWER_TIMEOUT, &GetClusterState {}).await;
        self.consensus
            .members(|members| ensure_no_other_cluster(members, id, addr.entity_id, state))
    }

    pub(super) async fn promote(
        &self,
        id: MemberId,
        replace: Option<MemberId>,
        is_force: bool,
    ) -> Changed {
        self.consensus.ensure_leader()?;
        let voters =
            self.consensus.members(|members| membership::promoted(members, id, replace))?;
        if !is_force {
            ensure_promotable(id, self.learner(id))?;
        }
        self.consensus.change(voters, false).await?;
        Ok(self.state())
    }

    fn learner(&self, id: MemberId) -> Learner {
        let now = self.consensus.config.clock.now();
        let since_change = lock(&self.voters_changed_at).map(|at| now.since(at));
        self.consensus.metrics(|metrics| {
            let matched = matched(metrics, id.0);
            let last = metrics.last_log_index.unwrap_or(0);
            let lag = matched.map_or(u64::MAX, |matched| last.saturating_sub(matched));
            let heard = metrics.heartbeat.as_ref().and_then(|all| all.get(&id.0)?.as_ref());
            let is_near =
                heard.is_some_and(|at| at.elapsed() < self.consensus.config.timing.election_max);
            Learner { since_change, lag, is_near }
        })
    }

    pub(super) async fn change_voters(&self, wanted: &[MemberId]) -> Changed {
        self.consensus.ensure_leader()?;
        let voters = self.consensus.members(|members| membership::replaced(members, wanted))?;
        self.consensus.change(voters, false).await?;
        Ok(self.state())
    }

    pub(super) async fn expunge(&self, id: MemberId) -> Changed {
        self.consensus.ensure_leader()?;
        let own = self.consensus.own();
        let entity = self.consensus.members(|members| membership::expunged(members, own, id))?;
        // Remembered first, so that it is not added again between the two.
        Store(self.replica.clone()).set(expunged_key(&entity), Bytes::new()).await?;
        // Other members may have changed meanwhile, so the change names this one alone.
        let is_voter = self.consensus.members(|m| m.voter_ids().any(|voter| voter == id.0));
        let change = match is_voter {
            true => ChangeMembers::RemoveVoters(BTreeSet::from([id.0])),
            false => ChangeMembers::RemoveNodes(BTreeSet::from([id.0])),
        };
        self.consensus.change(change, false).await?;
        tracing::info!(node = %id, entity_id = %entity, "expunged");
        Ok(self.state())
    }

    /// `CONFLICT` if an identity was expunged. The state is that of a leader, so nothing that was
    /// acknowledged is missing in it.
    async fn ensure_not_expunged(&self, entity: &EntityId) -> Result<(), ApiError> {
        let read = ReadKey::newest(expunged_key(entity));
        let view = self.replica.reader.view(Consistency::Linearizable).await?;
        let text = "this identity was expunged; start the node with an empty data folder";
        ensure(view.view().read(&read)?.item.is_none(), || conflict(text))
    }

    pub(super) async fn transfer_leader(&self, wanted: Option<MemberId>) -> Result<(), ApiError> {
        self.consensus.ensure_leader()?;
        let own = self.consensus.own();
        if wanted == Some(own) {
            return Ok(());
        }
        let target = self.consensus.metrics(|metrics| {
            let members = metrics.membership_config.membership();
            membership::next_leader(members, own, wanted, |id| matched(metrics, id))
        })?;
        tokio::time::timeout(TRANSFER_TIMEOUT, self.hand_over(target)).await.unwrap_or_else(|_| {
            Err(ApiError::new(ErrorCode::Timeout, "no other node took the lead in time"))
        })
    }

    /// Has `target` stand for election until another node leads: it can lose, and this node be
    /// elected again.
    async fn hand_over(&self, target: u64) -> Result<(), ApiError> {
        let own = self.consensus.own().0;
        let leads_elsewhere =
            |m: &RaftMetrics<Types>| m.current_leader.is_some_and(|leader| leader != own);
        while !self.consensus.metrics(leads_elsewhere) {
            let term = self.consensus.metrics(|metrics| metrics.current_term);
            let trigger = self.consensus.raft.trigger();
            trigger.transfer_leader(target).await.map_err(|_| stopped())?;
            let leads_again =
                |m: &RaftMetrics<Types>| m.state == ServerState::Leader && m.current_term > term;
            self.consensus.wait_for(|m| leads_elsewhere(m) || leads_again(m)).await?;
        }
        Ok(())
    }

    pub(super) async fn announce_move(&self, old: SocketAddr) {
        let mut watch = self.consensus.watch();
        loop {
            let entry = self.consensus.member_addr(self.consensus.own());
            let Some(entry) = entry else { return };
            let wanted = moved(&entry, old, &self.consensus.config.addr.addrs);
            if wanted == entry {
                return;
            }
            self.tell_members(&wanted).await;
            tokio::select! {
                biased;
                is_running = watch.changed() => if !is_running { return },
                () = tokio::time::sleep(TELL_AGAIN) => {}
            }
        }
    }

    /// Has the leader change the membership. The member that is asked also learns the way to this
    /// node, since the question comes from its new address.
    async fn tell_members(&self, own: &PeerAddr) {
        let id = self.consensus.own();
        if self.consensus.is_leader() {
            if let Err(error) = self.add_learner(id, own.clone()).await {
                tracing::debug!(%error, "the new address was not taken");
            }
            return;
        }
        let leader = self.consensus.leader_id();
        let mut others: Vec<(bool, PeerAddr)> = self.consensus.members(|members| {
            let others = members.nodes().filter(|(other, _)| **other != id.0);
            others
                .map(|(other, member)| (leader != Some(MemberId(*other)), member.0.clone()))
                .collect()
        });
        // The leader first.
        others.sort_by_key(|(follows, _)| *follows);
        for (_, other) in others {
            let request = AddLearner { node_id: id, addr: own.clone() };
            let peers = &self.consensus.peers;
            let told = peers.ask(&other, Class::Foreground, ANSWER_TIMEOUT, &request).await;
            if let Some(Ok(_)) = told {
                tracing::info!("the members know the new address");
                return;
            }
        }
    }

    /// Tells the transport where the members are, and follows changes of the members and the leader.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut watch = self.consensus.watch();
        let own = self.consensus.own().0;
        let (mut voters, mut leader, mut introduced) = (Vec::new(), None, None);
        loop {
            let (members, now_leading) = self
                .consensus
                .server(|server| (server.membership_config.clone(), server.current_leader));
            // What an operator said meanwhile of where a peer is holds until the members change.
            if introduced != Some(*members.log_id()) {
                introduced = Some(*members.log_id());
                let is_member = |id| members.nodes().any(|(member, _)| *member == id);
                self.consensus.peers.keep_levels(is_member);
                for (id, member) in members.nodes() {
                    if *id != own && !member.0.addrs.is_empty() {
                        self.consensus.peers.transport.add_peer(&member.0);
                    }
                }
            }
            let now_voting: Vec<u64> = members.voter_ids().collect();
            // The first voters of a cluster are no change after which it has to settle.
            if !voters.is_empty() && voters != now_voting {
                tracing::info!(voters = ?now_voting, "voters changed");
                *lock(&self.voters_changed_at) = Some(self.consensus.config.clock.now());
            }
            voters = now_voting;
            if leader != now_leading {
                tracing::info!(leader = ?now_leading, "leader changed");
                leader = now_leading;
            }
            if !watch.changed().await {
                return;
            }
        }
    }

    /// While leading, finishes changes that a leader which was lost, or a caller that went away, left
    /// open.
    pub(super) async fn finish_changes(self: Arc<Self>) {
        let mut watch = self.consensus.watch();
        loop {
            let change = self.unfinished_change();
            let is_own = change.as_ref().is_some_and(|change| change.is_own);
            let pause = if is_own { MEMBERSHIP_TIMEOUT } else { FINISH_PAUSE };
            tokio::select! {
                biased;
                // Term, leader or members are others now.
                is_running = watch.changed() => match is_running {
                    true => continue,
                    false => return,
                },
                () = tokio::time::sleep(pause), if change.is_some() => {}
            }
            let Some(UnfinishedChange { voters, .. }) = change else { continue };
            tracing::info!(?voters, "finishing a change of the voters");
            if let Err(error) = self.consensus.raft.change_membership(voters, false).await {
                tracing::debug!(%error, "the change is not finished yet");
                tokio::time::sleep(FINISH_PAUSE).await;
            }
        }
    }

    /// The change that is under way, if this node leads.
    fn unfinished_change(&self) -> Option<UnfinishedChange> {
        if !self.consensus.is_leader() {
            return None;
        }
        self.consensus.server(|server| {
            membership::unfinished(&server.membership_config, server.vote.leader_id.term)
        })
    }
}

/// Index of the last entry that a leader knows a member to have.
fn matched(metrics: &RaftMetrics<Types>, id: u64) -> Option<u64> {
    metrics.replication.as_ref()?.get(&id)?.as_ref().map(|matched| matched.index())
}
