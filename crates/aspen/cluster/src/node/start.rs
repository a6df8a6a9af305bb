//! Opening a node's storage and starting consensus on it.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_log::Log;
use net_types::limits::MAX_APPEND_ENTRIES;
use openraft::{Config, Raft, SnapshotPolicy};

use super::applied::AppliedState;
use super::checkpoint::CheckpointTrigger;
use super::config::ClusterConfig;
use super::consensus::Consensus;
use super::errors::{StartError, of_start};
use super::handle::{ClusterNode, Parts};
use super::members::Members;
use super::propose::Proposer;
use super::read::Reader;
use super::replica::Replica;
use super::upkeep::Upkeep;
use crate::condition::Condition;
use crate::net::{MAX_ENTRIES_BYTES, Peers, RaftDialer, RaftService, Transport, Trust};
use crate::snapshot::{Receiver, Spool};
use crate::state::Store;
use crate::storage::{LogStore, RaftLog, StateMachine};

const STATE_FILE: &str = "state.redb";
const LOG_FOLDER: &str = "log";
const SNAPSHOT_FOLDER: &str = "snapshots";
/// Shortest time for an append; a disk that is busy needs tens of milliseconds.
const MIN_APPEND_DEADLINE: Duration = Duration::from_secs(1);

const BAD_TIMING: &str = "the heartbeat interval must be shorter than half of the longest election \
                          timeout, and the shortest election timeout shorter than the longest";

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
    raft.validate().map_err(|_| StartError::Config(BAD_TIMING.into()))
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
        let (id, blocking, clock) = (config.member_id.0, config.blocking, config.clock.clone());
        let (log, store) = open_storage(&config)?;
        let snapshots = config.disk.folder(SNAPSHOT_FOLDER)?;
        let spool = Arc::new(Spool::open(snapshots.clone())?);
        let state = StateMachine::new(store.clone(), log.clone(), spool.clone(), blocking);
        let read_bytes = config.log.read_bytes.min(MAX_ENTRIES_BYTES);
        let log_store = LogStore::new(log.clone(), read_bytes, state.clone());
        let peers = Arc::new(Peers::new(id, transport, clock.clone()));
        let lease = Duration::from_millis(config.timing.raft().lease);
        let append_deadline = (2 * lease).max(MIN_APPEND_DEADLINE);
        let dialer = RaftDialer { peers: peers.clone(), spool, blocking, append_deadline };
        // A node that decides alone breaks no promise to another.
        let is_alone = store.progress().membership.voter_ids().eq([id]);
        let patience = (log.vote().is_some() && !is_alone).then_some(lease);
        let raft = Raft::build(id, raft_config, dialer, log_store, state.clone())
            .await
            .map_err(of_start)?;
        let started_at = clock.now();
        let condition = Arc::new(Condition::default());
        let service = RaftService {
            raft: raft.clone(),
            peers: peers.clone(),
            trust: Trust::new(peers.clone(), config.authorizer.trusts_mesh()),
            state,
            receiver: Arc::new(tokio::sync::Mutex::new(Receiver::new(snapshots))),
            top_level: config.top_level,
            blocking,
            votes_from: started_at + patience.unwrap_or_default(),
            condition: condition.clone(),
        };
        let trigger = CheckpointTrigger::new(config.checkpoint, id, store.durable_next());
        let applied = Arc::new(AppliedState::new(&store, trigger, started_at)?);
        let listener = applied.clone();
        store.listen(move |header, batch| listener.note(header, batch, clock.now()));
        let consensus =
            Arc::new(Consensus { config, raft, log, store, applied, peers, started_at });
        let proposer = Arc::new(Proposer::new(consensus.clone(), condition.clone()));
        let replica = Replica { proposer, reader: Arc::new(Reader::new(consensus.clone())) };
        let members = Arc::new(Members::new(consensus.clone(), replica.clone()));
        let upkeep = Arc::new(Upkeep {
            consensus: consensus.clone(),
            condition: condition.clone(),
            replica: replica.clone(),
            members: members.clone(),
            checkpoints: AtomicU64::new(0),
            tasks: Mutex::default(),
        });
        upkeep.start(patience).await?;
        Ok(Self(Arc::new(Parts { consensus, condition, replica, members, upkeep, service })))
    }
}

fn open_storage(config: &ClusterConfig) -> Result<(RaftLog, Arc<Store>), StartError> {
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
