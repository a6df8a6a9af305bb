//! What the newest applied batch says, for parts that ask often and take no lock of the store.
//!
//! Invariant: all values are of the same batch or of a later one than what was read before, since
//! one task applies.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aspen_api::{Level, RequestId, Revision};
use aspen_kv::{Header, maintenance};
use net_types::{Instant, lock};
use tokio::sync::Notify;

use super::checkpoint::CheckpointTrigger;
use super::log_time::AppliedTime;
use crate::state::{AppliedBatch, Store, StoreError};

/// What the state tells after each batch.
pub(crate) struct AppliedState {
    time: Mutex<AppliedTime>,
    next_deadline_ms: AtomicU64,
    /// Newest revision of which an answer was forgotten.
    forgotten_revision: AtomicU64,
    revision: AtomicU64,
    level: AtomicU32,
    due: Notify,
    /// When the next checkpoint is due.
    pub(super) checkpoint: CheckpointTrigger,
}

impl AppliedState {
    /// What `store` has applied by now.
    pub(super) fn new(
        store: &Store,
        checkpoint: CheckpointTrigger,
        now: Instant,
    ) -> Result<Self, StoreError> {
        let state = Self {
            time: Mutex::new(AppliedTime { log_time_ms: 0, at: now }),
            next_deadline_ms: AtomicU64::new(u64::MAX),
            forgotten_revision: AtomicU64::new(0),
            revision: AtomicU64::new(0),
            level: AtomicU32::new(Level::FIRST.0),
            due: Notify::new(),
            checkpoint,
        };
        let batch = AppliedBatch { memory_bytes: 0, is_stamped: true };
        state.note(store.view()?.header(), batch, now);
        Ok(state)
    }

    /// Takes in the state after a batch. Called while it is applied, so it does not block.
    pub(super) fn note(&self, header: &Header, batch: AppliedBatch, now: Instant) {
        if batch.is_stamped {
            *lock(&self.time) = AppliedTime { log_time_ms: header.log_time_ms, at: now };
        }
        let before = self.next_deadline_ms.swap(header.next_deadline_ms, Ordering::Relaxed);
        self.forgotten_revision.store(header.forgotten_revision.0, Ordering::Relaxed);
        self.revision.store(header.applied_revision.0, Ordering::Relaxed);
        if self.level.swap(header.level.0, Ordering::Relaxed) != header.level.0 {
            tracing::info!(level = %header.level, "the feature level of the cluster");
        }
        if header.next_deadline_ms < before || maintenance(header, 0).is_some() {
            self.due.notify_one();
        }
        self.checkpoint.note(header.applied_revision.0, batch.memory_bytes);
    }

    /// Waits until maintenance may be due sooner than before. For one task.
    pub(super) async fn maintenance_due(&self) {
        self.due.notified().await;
    }

    /// The newest revision applied.
    pub(crate) fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Relaxed))
    }

    /// The feature level of the cluster, as far as it is applied here.
    pub(crate) fn level(&self) -> Level {
        Level(self.level.load(Ordering::Relaxed))
    }

    /// Log time of the state, and whether anything in it expires.
    pub(super) fn log_time(&self) -> (AppliedTime, bool) {
        let deadline = self.next_deadline_ms.load(Ordering::Relaxed);
        (*lock(&self.time), deadline < u64::MAX)
    }

    /// Whether an id is older than answers that were forgotten, so that it may be refused.
    pub(super) fn may_be_too_old(&self, id: RequestId) -> bool {
        id.since.0 < self.forgotten_revision.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use aspen_log::disk::{Disk, MemoryDisk};
    use futures_util::FutureExt;

    use super::*;
    use crate::node::config::CheckpointPolicy;

    #[test]
    fn maintenance_is_announced_when_a_deadline_moves_forward() {
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let file = MemoryDisk::new().create("state.redb", 0).unwrap();
        let store = Store::open(file, 1 << 20, Level::TOP).unwrap();
        let checkpoint = CheckpointTrigger::new(CheckpointPolicy::default(), 1, 0);
        let state = AppliedState::new(&store, checkpoint, at(0)).unwrap();
        let note = |next_deadline_ms, is_stamped| {
            let header = Header { log_time_ms: 7, next_deadline_ms, ..Header::default() };
            state.note(&header, AppliedBatch { memory_bytes: 0, is_stamped }, at(5));
            state.maintenance_due().now_or_never().is_some()
        };
        assert!(note(900, false));
        assert_eq!(state.log_time().0, AppliedTime { log_time_ms: 0, at: at(0) }, "no stamp");
        assert!(!note(900, true), "the same");
        assert_eq!(state.log_time(), (AppliedTime { log_time_ms: 7, at: at(5) }, true));
        assert!(!note(u64::MAX, true), "it is gone");
        assert!(!state.log_time().1);
        assert!(note(950, true));
    }
}
