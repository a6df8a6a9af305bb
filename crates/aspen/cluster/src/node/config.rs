//! What a node needs to start.

use std::sync::Arc;
use std::time::Duration;

use aspen_api::{Level, MemberId, MeshKey};
use net_types::PeerAddr;

use super::auth::{Authorizer, TrustMesh};
use crate::clock::{Clock, SystemClock};
use crate::runtime::Blocking;
use aspen_log::disk::Disk;
use aspen_log::{LogOptions, WriterDrive};

/// How long members wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Time between a leader's signs of life.
    pub heartbeat: Duration,
    /// Shortest silence after which a follower stands for election.
    pub election_min: Duration,
    /// Longest one; each follower draws its own between the two.
    pub election_max: Duration,
}

impl Default for Timing {
    /// 500 ms, 1.5 s and 3 s.
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(500),
            election_min: Duration::from_millis(1_500),
            election_max: Duration::from_millis(3_000),
        }
    }
}

impl Timing {
    /// openraft's timings: a follower's silence is a lease, during which it also refuses other
    /// candidates, and a random part after it.
    pub(crate) fn raft(&self) -> RaftTiming {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (heartbeat, min, max) =
            (ms(self.heartbeat), ms(self.election_min), ms(self.election_max));
        let lease = max / 2;
        RaftTiming { heartbeat, random_min: min.saturating_sub(lease).max(heartbeat + 1), lease }
    }
}

/// See [`Timing::raft`]. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RaftTiming {
    pub heartbeat: u64,
    pub random_min: u64,
    /// The lease, and the end of the random part.
    pub lease: u64,
}

/// When the state is made durable, so that the log before it may go. What comes first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointPolicy {
    /// Bytes of log that a restart would have to apply again.
    pub log_bytes: u64,
    /// Memory for what is not in the state's file yet.
    pub memory_bytes: usize,
    /// Entries that a restart would have to apply again; about 5 us each.
    pub entries: u64,
    /// Age of the oldest change that is only in the log.
    pub age: Duration,
    /// Entries kept in the log behind a checkpoint, for followers that lag.
    pub kept_entries: u64,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            log_bytes: 64 << 20,
            memory_bytes: 32 << 20,
            entries: 50_000,
            age: Duration::from_secs(60),
            kept_entries: 10_000,
        }
    }
}

/// A node's settings.
#[derive(Clone)]
pub struct ClusterConfig {
    /// Its number in the consensus group.
    pub member_id: MemberId,
    /// Its identity and addresses, as other members reach it.
    pub addr: PeerAddr,
    /// The mesh's secret, for tickets.
    pub mesh_key: Option<MeshKey>,
    /// The version that it tells.
    pub version: String,
    /// The highest feature level that it understands.
    pub top_level: Level,
    /// Its data folder, locked by the caller.
    pub disk: Arc<dyn Disk>,
    /// How long members wait for each other.
    pub timing: Timing,
    /// Sizes of the log.
    pub log: LogOptions,
    /// Bytes of state kept in memory.
    pub state_cache_bytes: usize,
    /// When the state is made durable.
    pub checkpoint: CheckpointPolicy,
    /// What runs the log's writer.
    pub writer: WriterDrive,
    /// Where work that blocks on the medium runs.
    pub blocking: Blocking,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// What decides which caller may do what.
    pub authorizer: Arc<dyn Authorizer>,
}

impl ClusterConfig {
    /// A node with the defaults of a real one.
    pub fn new(member_id: MemberId, addr: PeerAddr, disk: Arc<dyn Disk>) -> Self {
        Self {
            member_id,
            addr,
            mesh_key: None,
            version: env!("CARGO_PKG_VERSION").into(),
            top_level: Level::TOP,
            disk,
            timing: Timing::default(),
            log: LogOptions::default(),
            state_cache_bytes: 16 << 20,
            checkpoint: CheckpointPolicy::default(),
            writer: WriterDrive::Adaptive,
            blocking: Blocking::Pool,
            clock: Arc::new(SystemClock::new()),
            authorizer: Arc::new(TrustMesh),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_before_an_election_is_between_the_two_limits() {
        let timing = Timing::default();
        let raft = timing.raft();
        assert_eq!(raft, RaftTiming { heartbeat: 500, random_min: 501, lease: 1_500 });
        let fast = Timing {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
        };
        assert_eq!(fast.raft(), RaftTiming { heartbeat: 50, random_min: 51, lease: 300 });
        for timing in [timing, fast] {
            let raft = timing.raft();
            assert!(u128::from(raft.lease + raft.random_min) >= timing.election_min.as_millis());
            assert!(u128::from(2 * raft.lease) <= timing.election_max.as_millis());
            assert!(raft.random_min < raft.lease);
        }
    }
}
