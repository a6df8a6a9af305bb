//! What a node does without being asked: propose what is due, make the state durable, watch the disk
//! and the log. Invariant: nothing of it runs once the node has stopped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_api::ApiError;
use aspen_api::cluster::SnapshotResult;
use aspen_kv::{maintenance, next_maintenance_ms};
use net_types::limits::{DISK_FULL_PERCENT, DISK_RESERVE_BYTES};
use net_types::lock;
use openraft::RaftMetrics;
use tokio::task::JoinSet;

use super::checkpoint::Backlog;
use super::consensus::Consensus;
use super::errors::{StartError, of_start};
use super::members::Members;
use super::replica::Replica;
use crate::condition::{Condition, stopped};
use crate::types::Types;

/// Wait before a proposal is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// Time between two looks at the disk and at the age of what is not durable.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two passes over the log's hash chain.
const VERIFY_INTERVAL: Duration = Duration::from_secs(300);
/// Entries of one pass.
const VERIFY_ENTRIES: u64 = 1_000;
/// Time for a checkpoint that was asked for.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);

/// A node's own tasks, and what they work on.
pub(super) struct Upkeep {
    pub(super) consensus: Arc<Consensus>,
    pub(super) condition: Arc<Condition>,
    pub(super) replica: Replica,
    pub(super) members: Arc<Members>,
    /// Checkpoints begun.
    pub(super) checkpoints: AtomicU64,
    pub(super) tasks: Mutex<JoinSet<()>>,
}

impl Upkeep {
    /// Starts consensus and the tasks. During `patience` the node does not stand for election.
    pub(super) async fn start(
        self: &Arc<Self>,
        patience: Option<Duration>,
    ) -> Result<(), StartError> {
        let raft = self.consensus.raft.clone();
        if patience.is_some() {
            // Standing for election would break the same promise as voting for another.
            raft.runtime_config().elect(false);
        }
        raft.run();
        // Once consensus answers, it has told what it found: members, term and vote.
        raft.with_raft_state(|_| ()).await.map_err(of_start)?;
        let mut tasks = lock(&self.tasks);
        tasks.spawn(self.clone().propose_due());
        tasks.spawn(self.clone().keep_durable());
        tasks.spawn(self.clone().verify_log());
        tasks.spawn(self.members.clone().follow());
        tasks.spawn(self.members.clone().finish_changes());
        if let Some(patience) = patience {
            tasks.spawn(async move {
                tokio::time::sleep(patience).await;
                raft.runtime_config().elect(true);
            });
        }
        Ok(())
    }

    /// While leading, proposes what is due when it is due: the removal of what has ended, and steps
    /// of the feature level.
    async fn propose_due(self: Arc<Self>) {
        let mut watch = self.consensus.watch();
        loop {
            let wait = match self.consensus.is_leader() {
                true => self.maintain().await,
                false => None,
            };
            tokio::select! {
                biased;
                () = self.consensus.applied.maintenance_due() => {}
                () = self.consensus.peers.level_changed() => {}
                is_running = watch.changed() => if !is_running { return },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }

    /// Proposes what is due and returns when to look again.
    async fn maintain(&self) -> Option<Duration> {
        let (term, applied_term) = self.consensus.terms();
        if applied_term != Some(term) {
            // Entries of earlier leaders are not all applied: due work and log time are unknown.
            return Some(RETRY);
        }
        let view = self.consensus.store.view().ok()?;
        let now_ms = self.replica.proposer.log_now_ms(false);
        let done = match maintenance(view.header(), now_ms) {
            Some(command) => Some(self.replica.proposer.commit(command, None).await),
            None => self.members.step_level().await,
        };
        match done {
            Some(Ok(_)) => Some(Duration::ZERO),
            Some(Err(_)) => Some(RETRY),
            None => {
                let due_ms = next_maintenance_ms(view.header())?;
                Some(Duration::from_millis(due_ms.saturating_sub(now_ms)))
            }
        }
    }

    /// Makes the state durable by size, number and age, and drops the log before it.
    async fn keep_durable(self: Arc<Self>) {
        let policy = self.consensus.config.checkpoint;
        let mut interval = tokio::time::interval(LOOK_INTERVAL.min(policy.age));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut dirty_since = None;
        let mut log_bytes_at = self.consensus.log.counters().bytes;
        loop {
            let is_turn = tokio::select! {
                biased;
                () = self.consensus.applied.checkpoint.due() => true,
                _ = interval.tick() => false,
            };
            let has_room = self.look_at_disk();
            let now = self.consensus.config.clock.now();
            if self.consensus.applied.checkpoint.take_dirty() {
                dirty_since.get_or_insert(now);
            }
            let Some(since) = dirty_since else { continue };
            let (store, log_bytes) = (&self.consensus.store, self.consensus.log.counters().bytes);
            let applied = store.applied();
            let backlog = Backlog {
                log_bytes: log_bytes.saturating_sub(log_bytes_at),
                // One that was announced while another was under way was not heard.
                memory_bytes: store.newest_bytes(),
                entries: applied.map_or(0, |id| id.index + 1).saturating_sub(store.durable_next()),
                age: now.since(since),
            };
            // One that fails would end consensus. The log holds everything until there is room, or
            // until memory is full, if others still lead writes here.
            if has_room && (is_turn || policy.is_due(&backlog)) {
                dirty_since = None;
                log_bytes_at = log_bytes;
                self.consensus.applied.checkpoint.begin(applied.map_or(0, |id| id.index));
                self.checkpoints.fetch_add(1, Ordering::Relaxed);
                if self.consensus.raft.trigger().snapshot().await.is_err() {
                    return;
                }
            }
        }
    }

    /// Makes the newest state durable, and drops the log before it.
    pub(super) async fn snapshot(&self) -> Result<SnapshotResult, ApiError> {
        let wanted = self.consensus.store.applied().map(|id| id.index);
        self.consensus.raft.trigger().snapshot().await.map_err(|_| stopped())?;
        let reached = |metrics: &RaftMetrics<Types>| metrics.snapshot.as_ref().map(|id| id.index());
        let waiting = self.consensus.wait_for(|metrics| reached(metrics) >= wanted);
        if let Ok(result) = tokio::time::timeout(SNAPSHOT_TIMEOUT, waiting).await {
            result?;
        }
        Ok(SnapshotResult { snapshot_index: self.consensus.metrics(reached) })
    }

    /// Refuses writes while the disk is almost full; whether it has room for a checkpoint.
    fn look_at_disk(&self) -> bool {
        let Ok(usage) = self.consensus.config.disk.usage() else { return true };
        let is_full =
            usage.is_above(DISK_FULL_PERCENT) || usage.available_bytes < DISK_RESERVE_BYTES;
        if self.condition.note_disk(is_full) {
            match is_full {
                true => tracing::error!("the data disk is almost full; writes are refused"),
                false => tracing::info!("the data disk has room again; writes are accepted"),
            }
        }
        // Each page that a row touches is copied.
        usage.available_bytes / 2 >= self.consensus.store.memory_bytes() as u64
    }

    /// Recomputes the log's hash chain, a piece at a time. A node whose log is damaged neither votes
    /// nor stands for election from then on, and says so.
    async fn verify_log(self: Arc<Self>) {
        let mut from = 0;
        loop {
            tokio::time::sleep(VERIFY_INTERVAL).await;
            let log = self.consensus.log.clone();
            // Entries that are dropped during a pass look like damage to it, but not to the next.
            let pass = move || log.verify(from, VERIFY_ENTRIES);
            let verify = move || pass().or_else(|_| pass());
            match self.consensus.config.blocking.run(verify).await {
                Ok(Ok(next)) => from = next.unwrap_or(0),
                Ok(Err(error)) => {
                    tracing::error!(%error, "the log is damaged; this node no longer votes");
                    self.condition.note_damage();
                    self.consensus.raft.runtime_config().elect(false);
                    return;
                }
                Err(_) => return,
            }
        }
    }
}
