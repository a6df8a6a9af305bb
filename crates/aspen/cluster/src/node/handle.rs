//! A member of the cluster as one object: the handle of the parts that each have one matter.

use std::net::SocketAddr;
use std::sync::Arc;

use aspen_api::cluster::{ClusterStateResult, SnapshotResult};
use aspen_api::service::{Guard, Origin};
use aspen_api::{ApiError, ErrorCode, Kind, Level, MemberId, Needs, Revision};
use aspen_kv::Store;
use aspen_log::EntryId;
use bytes::Bytes;
use net_types::{EntityId, PeerAddr, lock};

use super::auth::AuthContext;
use super::consensus::{Consensus, MembersWatch};
use super::members::Members;
use super::membership::Changed;
use super::replica::{Forwarding, NodeStore, Replica};
use super::upkeep::Upkeep;
use crate::condition::{Condition, ensure};
use crate::net::RaftService;
use crate::state::{StoreError, StoreView};

/// A node. Clones are handles of the same one.
///
/// Start it with [`ClusterNode::start`], pass it what arrives for the services of
/// [`aspen_api::service`], and end it with [`ClusterNode::shutdown`].
#[derive(Clone)]
pub struct ClusterNode(pub(super) Arc<Parts>);

/// The parts of a node.
pub(super) struct Parts {
    pub(super) consensus: Arc<Consensus>,
    pub(super) condition: Arc<Condition>,
    pub(super) replica: Replica,
    pub(super) members: Arc<Members>,
    pub(super) upkeep: Arc<Upkeep>,
    pub(super) service: RaftService,
}

impl ClusterNode {
    /// The node's number.
    pub fn member_id(&self) -> MemberId {
        self.0.consensus.own()
    }

    /// Answers one message of the service `raft`. `from` is the identity that the transport has
    /// authenticated. The first poll hands the message to consensus, so messages that are polled
    /// in the order of their arrival are handled in it.
    pub async fn handle_raft(&self, from: EntityId, body: Bytes) -> Bytes {
        self.0.service.handle(from, body).await
    }

    /// Whether the node belongs to a cluster.
    pub fn is_initialized(&self) -> bool {
        self.0.consensus.is_initialized()
    }

    /// `NOT_INITIALIZED` if the node belongs to no cluster.
    pub(crate) fn ensure_initialized(&self) -> Result<(), ApiError> {
        let text = "this node belongs to no cluster yet";
        ensure(self.is_initialized(), || ApiError::new(ErrorCode::NotInitialized, text))
    }

    /// Whether the node leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.0.consensus.is_leader()
    }

    /// The leader that the node knows.
    pub fn leader_id(&self) -> Option<MemberId> {
        self.0.consensus.leader_id()
    }

    /// Tells of changes of members, leader and term.
    pub fn watch_members(&self) -> MembersWatch {
        self.0.consensus.watch()
    }

    /// Returns why consensus has ended, once it has without being asked to: storage failed, or there
    /// is a defect. What was acknowledged is safe; the node can do nothing more but start again.
    pub async fn ended(&self) -> String {
        self.0.consensus.ended().await
    }

    /// The last entry whose effects the node shows.
    pub fn applied(&self) -> Option<EntryId> {
        self.0.consensus.store.applied()
    }

    /// The state as the node has applied it.
    pub fn local_view(&self) -> Result<Arc<StoreView>, StoreError> {
        self.0.consensus.store.view()
    }

    /// The replicated store, for services of this process.
    pub fn store(&self) -> NodeStore {
        Store(Forwarding(self.0.replica.clone()))
    }

    /// The replicated store without forwarding.
    pub(crate) fn replica(&self) -> &Replica {
        &self.0.replica
    }

    /// What the node knows of consensus.
    pub(crate) fn consensus(&self) -> &Consensus {
        &self.0.consensus
    }

    /// Makes the state durable as it is and drops the log before it, but for what followers may
    /// still need.
    pub async fn snapshot(&self) -> Result<SnapshotResult, ApiError> {
        self.0.upkeep.snapshot().await
    }

    /// Makes this node the single voter of a new cluster and waits until it leads.
    ///
    /// `CONFLICT` if it belongs to a cluster already; nothing changes then.
    pub async fn init(&self) -> Changed {
        self.0.members.init().await
    }

    /// Members as this node knows them, itself included.
    pub fn cluster_state(&self) -> ClusterStateResult {
        self.0.members.state()
    }

    /// Adds a node that receives the log without voting, or changes a learner's addresses.
    ///
    /// A new one is asked for its number and its cluster first. `INVALID_REQUEST` without an address,
    /// since it could not be reached, and if it has another number; `CONFLICT` if another member has
    /// its number or its identity, if it does not answer, if it has a cluster of its own, and if it
    /// was expunged.
    pub async fn add_learner(&self, id: MemberId, addr: PeerAddr) -> Changed {
        self.0.members.add_learner(id, addr).await
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
    ) -> Changed {
        self.0.members.promote(id, replace, is_force).await
    }

    /// Replaces the voters by joint consensus. Removed voters leave the cluster; a leader that is
    /// removed steps down once the change is committed.
    pub async fn change_membership(&self, members: &[MemberId]) -> Changed {
        self.0.members.change_voters(members).await
    }

    /// Removes a member, voter or learner, dead or alive, and refuses its identity from now on.
    ///
    /// `NOT_FOUND` if there is no such member, `CONFLICT` if it is the leader or the only voter.
    pub async fn expunge(&self, id: MemberId) -> Changed {
        self.0.members.expunge(id).await
    }

    /// Hands leadership to `target`, or to the voter whose log is longest, and waits until another
    /// node leads.
    pub async fn transfer_leader(&self, target: Option<MemberId>) -> Result<(), ApiError> {
        self.0.members.transfer_leader(target).await
    }

    /// Puts the node's own addresses in place of `old`, the one that members know, and returns once
    /// the membership has them. Without effect on a node that is no member.
    pub async fn announce_move(&self, old: SocketAddr) {
        self.0.members.announce_move(old).await;
    }

    /// Stops consensus and makes everything durable. Later calls do nothing.
    pub async fn shutdown(&self) {
        if !self.0.condition.stop() {
            return;
        }
        let mut tasks = std::mem::take(&mut *lock(&self.0.upkeep.tasks));
        tasks.shutdown().await;
        if let Err(error) = self.0.consensus.raft.shutdown().await {
            tracing::error!(%error, "consensus did not stop cleanly");
        }
        // With a checkpoint the next start has nothing to apply again.
        if let Err(error) = self.0.service.state.checkpoint().await {
            tracing::warn!(%error, "no checkpoint at shutdown; the log will be applied again");
        }
    }
}

impl Guard for ClusterNode {
    fn authorize<'r>(
        &self,
        origin: Origin,
        token: Option<&Bytes>,
        needs: &dyn Fn() -> Needs<'r>,
    ) -> Result<(), ApiError> {
        let Consensus { config, raft, store, .. } = &*self.0.consensus;
        let (clock, own) = (&*config.clock, config.addr.entity_id);
        let call = AuthContext { raft, store, clock, own, origin, token };
        config.authorizer.authorize(&call, needs)
    }

    fn admit(&self, kind: Kind) -> Result<(), ApiError> {
        self.0.condition.ensure_serving()?;
        match kind {
            Kind::Local | Kind::Node => Ok(()),
            Kind::Read(_) | Kind::Write | Kind::Membership => {
                self.ensure_initialized()?;
                let can_serve = !kind.is_for_leader() || self.is_leader();
                ensure(can_serve, || ApiError::not_leader(self.leader_addr()))
            }
        }
    }

    fn level(&self) -> Level {
        self.0.consensus.applied.level()
    }

    fn applied(&self) -> Revision {
        self.0.consensus.applied.revision()
    }

    /// A caller does not wait for a leader that is gone.
    fn explain(&self, error: ApiError) -> ApiError {
        match error.leader_hint.is_some() && self.0.consensus.live_leader().is_none() {
            true => ApiError::not_leader(None),
            false => error,
        }
    }
}
