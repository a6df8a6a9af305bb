//! A member of the cluster: log, state, consensus and the answers to clients, as one object.

mod auth;
mod barrier;
mod config;
mod errors;
mod expunge;
mod forward;
mod gate;
mod guard;
mod level;
mod members;
mod metrics;
mod moved;
mod read;
mod report;
mod start;
mod unfinished;
mod upkeep;
mod write;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use aspen_api::MemberId;
use bytes::Bytes;
use net_types::{EntityId, Instant, lock};
use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub use auth::{Authorizer, CheckTokens, TrustMesh};
pub use config::{CheckpointPolicy, ClusterConfig, Timing};
pub use errors::StartError;
pub use forward::{Forwarding, NodeStore};

use crate::net::{Dialing, RaftService, Transport};
use crate::state::StoreView;
use crate::storage::{RaftLog, StateMachine};
use crate::types::{Membership, Types};
use aspen_log::EntryId;
pub(crate) use errors::stopped;

use barrier::Barrier;
use gate::Gate;
use upkeep::Upkeep;
use write::LogTime;

/// A node. Clones are handles of the same one.
///
/// Start it with [`ClusterNode::start`], pass it what arrives for the services of
/// [`aspen_api::service`], and end it with [`ClusterNode::shutdown`].
#[derive(Clone)]
pub struct ClusterNode(Arc<Inner>);

/// See [`ClusterNode::watch_members`].
pub struct MembersWatch {
    server: openraft::alias::WatchReceiverOf<Types, openraft::metrics::RaftServerMetrics<Types>>,
}

impl MembersWatch {
    /// Waits for the next change; `false` once the node has stopped.
    pub async fn changed(&mut self) -> bool {
        self.server.changed().await.is_ok()
    }
}

struct Inner {
    config: ClusterConfig,
    raft: Raft<Types, StateMachine>,
    state: StateMachine,
    log: RaftLog,
    service: RaftService,
    transport: Arc<dyn Transport>,
    dialing: Arc<Dialing>,
    gate: Gate,
    barrier: Barrier,
    log_time: Mutex<LogTime>,
    upkeep: Arc<Upkeep>,
    counters: Counters,
    started_at: Instant,
    /// When this node last saw the voters change.
    voters_changed_at: Mutex<Option<Instant>>,
    /// Whether the log was found damaged while running.
    is_damaged: AtomicBool,
    is_disk_full: AtomicBool,
    is_stopping: AtomicBool,
    stop: Notify,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Counters {
    writes: AtomicU64,
    reads: AtomicU64,
    barriers: AtomicU64,
    checkpoints: AtomicU64,
}

impl ClusterNode {
    /// The node's number.
    pub fn member_id(&self) -> MemberId {
        self.0.config.member_id
    }

    /// Answers one message of the service `raft`. `from` is the identity that the transport has
    /// authenticated. The first poll hands the message to consensus, so messages that are polled
    /// in the order of their arrival are handled in it.
    pub async fn handle_raft(&self, from: EntityId, body: Bytes) -> Bytes {
        self.0.service.handle(from, body).await
    }

    /// Whether the node belongs to a cluster.
    pub fn is_initialized(&self) -> bool {
        self.with_membership(|membership| membership.nodes().next().is_some())
    }

    /// Whether the node leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.leader_id() == Some(self.0.config.member_id)
    }

    /// The leader that the node knows.
    pub fn leader_id(&self) -> Option<MemberId> {
        let server = self.0.raft.server_metrics();
        let server = server.borrow_watched();
        // One that led when it was removed finds its own vote when it starts again.
        let leads = server.state == openraft::ServerState::Leader;
        let own = self.0.config.member_id.0;
        server.current_leader.filter(|leader| *leader != own || leads).map(MemberId)
    }

    /// The last entry whose effects the node shows.
    pub fn applied(&self) -> Option<EntryId> {
        self.0.state.store().applied()
    }

    /// The state as the node has applied it.
    pub fn local_view(&self) -> Result<Arc<StoreView>, crate::state::StoreError> {
        self.0.state.store().view()
    }

    /// Whether the node can do its work at all: consensus runs and its log takes writes.
    pub fn is_alive(&self) -> bool {
        self.0.raft.metrics().borrow_watched().running_state.is_ok() && !self.0.log.has_failed()
    }

    /// Returns why consensus has ended, once it has without being asked to: storage failed, or there
    /// is a defect. What was acknowledged is safe; the node can do nothing more but start again.
    pub async fn ended(&self) -> String {
        let mut metrics = self.0.raft.metrics();
        loop {
            if let Err(reason) = &metrics.borrow_and_update().running_state {
                return reason.to_string();
            }
            if metrics.changed().await.is_err() {
                return "its task is gone".into();
            }
        }
    }

    /// Tells of changes of members, leader and term.
    pub fn watch_members(&self) -> MembersWatch {
        let mut server = self.0.raft.server_metrics();
        drop(server.borrow_and_update());
        MembersWatch { server }
    }

    /// The node's monotonic time.
    pub(crate) fn now(&self) -> Instant {
        self.0.config.clock.now()
    }

    fn with_membership<T>(&self, look: impl FnOnce(&Membership) -> T) -> T {
        look(self.0.raft.server_metrics().borrow_watched().membership_config.membership())
    }

    /// Stops consensus and makes everything durable. Later calls do nothing.
    pub async fn shutdown(&self) {
        if self.0.is_stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        self.0.stop.notify_waiters();
        let tasks = std::mem::take(&mut *lock(&self.0.tasks));
        for task in tasks {
            task.abort();
            // An aborted task's result says nothing.
            let _ = task.await;
        }
        if let Err(error) = self.0.raft.shutdown().await {
            tracing::error!(%error, "consensus did not stop cleanly");
        }
        // With a checkpoint the next start has nothing to apply again.
        if let Err(error) = self.0.state.checkpoint().await {
            tracing::warn!(%error, "no checkpoint at shutdown; the log will be applied again");
        }
    }
}
