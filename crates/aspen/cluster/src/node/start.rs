//! Opening a node's storage and starting consensus on it.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use net_types::limits::MAX_APPEND_ENTRIES;
use net_types::lock;
use openraft::{Config, Raft, SnapshotPolicy};
use tokio::sync::Notify;

use super::barrier::Barrier;
use super::errors::of_start;
use super::gate::Gate;
use super::upkeep::Upkeep;
use super::write::LogTime;
use super::{ClusterConfig, ClusterNode, Counters, Inner, StartError};
use crate::net::{
    Dialing, LastHeard, MAX_ENTRIES_BYTES, RaftDialer, RaftService, Transport, Trust,
};
use crate::snapshot::{Receiver, Spool};
use crate::state::Store;
use crate::storage::{LogStore, StateMachine};
use crate::types::Membership;
use aspen_log::Log;

const STATE_FILE: &str = "state.redb";
const LOG_FOLDER: &str = "log";
const SNAPSHOT_FOLDER: &str = "snapshots";
/// Shortest time for an append; a disk that is busy needs tens of milliseconds.
const MIN_APPEND_DEADLINE: Duration = Duration::from_secs(1);

/// Names a node's log, so that the log of another node is never taken for it.
fn log_id(config: &ClusterConfig) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("aspen log 2026 identity");
    hasher.update(&config.member_id.0.to_le_bytes());
    hasher.update(config.addr.entity_id.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    id
}

fn raft_config(config: &ClusterConfig) -> Result<Config, StartError> {
    let timing = config.timing.raft();
    let raft = Config {
        cluster_name: "aspen".into(),
        heartbeat_interval: timing.heartbeat,
        election_timeout_min: timing.random_min,
        election_timeout_max: timing.lease,
        max_payload_entries: MAX_APPEND_ENTRIES as u64,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: config.checkpoint.kept_entries,
        purge_batch_size: (config.checkpoint.kept_entries / 16).max(1),
        enable_pre_vote: Some(true),
        // Followers get entries before the leader's own disk has them. A crash can take such entries
        // from the leader, which would then give out their indexes again if it led on in its term.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    raft.validate().map_err(|_| {
        StartError::Config(
            "the heartbeat interval must be shorter than half of the longest election timeout, \
             and the shortest election timeout shorter than the longest"
                .into(),
        )
    })
}

impl ClusterNode {
    /// Opens the data folder, applies what the log holds beyond the state, and starts to take part.
    ///
    /// Inside a tokio runtime. The node answers as soon as its services are offered; it joins
    /// nothing on its own: a new one waits for [`ClusterNode::init`] or for a leader.
    pub async fn start(
        config: ClusterConfig,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, StartError> {
        let raft_config = Arc::new(raft_config(&config)?);
        let (log, store) = open_storage(&config)?;
        let spool = Arc::new(Spool::open(config.disk.folder(SNAPSHOT_FOLDER)?)?);
        let receiver = Receiver::new(config.disk.folder(SNAPSHOT_FOLDER)?);
        let state = StateMachine::new(store, log.clone(), spool.clone(), config.blocking);
        let lease = Duration::from_millis(config.timing.raft().lease);
        let dialing = Arc::new(Dialing {
            transport: transport.clone(),
            local: config.member_id.0,
            clock: config.clock.clone(),
            peers: Arc::default(),
            spool,
            blocking: config.blocking,
            append_deadline: (2 * lease).max(MIN_APPEND_DEADLINE),
        });
        let had_voted = log.vote().is_some();
        let log_store =
            LogStore::new(log.clone(), config.log.read_bytes.min(MAX_ENTRIES_BYTES), state.clone());
        let dialer = RaftDialer(dialing.clone());
        let raft = Raft::build(config.member_id.0, raft_config, dialer, log_store, state.clone())
            .await
            .map_err(of_start)?;
        let started_at = config.clock.now();
        let needs_patience = had_voted && !is_only_voter(&state, config.member_id.0);
        let votes_from = if needs_patience { started_at + lease } else { started_at };
        let service = RaftService {
            raft: raft.clone(),
            trust: Trust::new(
                config.member_id.0,
                transport.clone(),
                config.clock.clone(),
                config.authorizer.trusts_mesh(),
            ),
            state: state.clone(),
            receiver: Arc::new(tokio::sync::Mutex::new(receiver)),
            clock: config.clock.clone(),
            top_level: config.top_level,
            blocking: config.blocking,
            votes_from,
            is_voting: AtomicBool::new(true),
            leader_heard: LastHeard::default(),
        };
        let upkeep = Arc::new(Upkeep::new(state.store(), started_at));
        let (listening, clock) = (upkeep.clone(), config.clock.clone());
        state.store().listen(move |header, batch| listening.applied(header, batch, clock.now()));
        let node = Self(Arc::new(Inner {
            raft,
            state,
            log,
            service,
            transport,
            dialing,
            gate: Gate::default(),
            barrier: Barrier::default(),
            log_time: Mutex::new(LogTime::default()),
            upkeep,
            counters: Counters::default(),
            started_at,
            voters_changed_at: Mutex::new(None),
            is_damaged: AtomicBool::new(false),
            is_disk_full: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            stop: Notify::new(),
            tasks: Mutex::new(Vec::new()),
            config,
        }));
        node.introduce_members(node.0.state.store().progress().membership.membership());
        node.run(needs_patience.then_some(lease)).await?;
        Ok(node)
    }

    /// Starts consensus and the node's own tasks.
    async fn run(&self, patience: Option<Duration>) -> Result<(), StartError> {
        if patience.is_some() {
            // Standing for election would break the same promise as voting for another.
            self.0.raft.runtime_config().elect(false);
        }
        self.0.raft.run();
        // Once consensus answers, it has told what it found: members, term and vote.
        self.0.raft.with_raft_state(|_| ()).await.map_err(of_start)?;
        self.spawn_upkeep(patience);
        let finishing = tokio::spawn(self.clone().finish_changes());
        lock(&self.0.tasks).push(finishing);
        Ok(())
    }

    /// Tells the transport where members are.
    pub(super) fn introduce_members(&self, membership: &Membership) {
        let own = self.0.config.member_id.0;
        for (id, member) in membership.nodes() {
            if *id != own && !member.0.addrs.is_empty() {
                self.0.transport.add_peer(&member.0);
            }
        }
    }
}

fn open_storage(
    config: &ClusterConfig,
) -> Result<(crate::storage::RaftLog, Arc<Store>), StartError> {
    let log_folder = config.disk.folder(LOG_FOLDER)?;
    let log = Log::open(log_folder, log_id(config), config.log, config.writer.clone())?;
    let file = match config.disk.open(STATE_FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let file = config.disk.create(STATE_FILE, 0)?;
            config.disk.sync_dir()?;
            file
        }
        Err(error) => return Err(error.into()),
    };
    let store = Store::open(file, config.state_cache_bytes, config.top_level)?;
    Ok((log, store))
}

/// Whether no one else's promises matter, because the node decides alone.
fn is_only_voter(state: &StateMachine, id: u64) -> bool {
    let progress = state.store().progress();
    progress.membership.voter_ids().eq([id])
}
