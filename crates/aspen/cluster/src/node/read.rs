//! Reading: how fresh the state must be, and how that is known. Invariant: a linearizable read sees all
//! that was acknowledged before it began.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aspen_api::kv::Consistency;
use aspen_api::{ApiError, ErrorCode};
use aspen_kv::{Query, ReadError};
use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};

use super::barrier::Barrier;
use super::consensus::Consensus;
use super::errors::of_read;
use crate::condition::unavailable;
use crate::state::StoreView;

/// Confirmations tried for one round of reads.
const ATTEMPTS: u32 = 5;
/// Wait before the second confirmation; doubled before each further one.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// Time for all of them.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the state.
pub(super) struct Reader {
    pub(super) consensus: Arc<Consensus>,
    pub(super) barrier: Barrier,
    /// Reads so far.
    pub(super) reads: AtomicU64,
}

impl Reader {
    pub(super) fn new(consensus: Arc<Consensus>) -> Self {
        Self { consensus, barrier: Barrier::default(), reads: AtomicU64::new(0) }
    }

    /// Waits until the local state is as fresh as `consistency` asks. All linearizable reads that wait
    /// at the same time share one confirmation of leadership.
    ///
    /// Errors: `NOT_LEADER` with the leader, `SERVICE_UNAVAILABLE` without a quorum.
    pub(super) async fn wait_until(&self, consistency: Consistency) -> Result<(), ApiError> {
        match consistency {
            Consistency::Stale => Ok(()),
            Consistency::Lease if self.lease_holds().await? => Ok(()),
            Consistency::Lease | Consistency::Linearizable => {
                let consensus = self.consensus.clone();
                self.barrier.wait(move || confirm(consensus.clone())).await
            }
        }
    }

    /// Whether the leader may read inside its lease: clocks agree, and a quorum has heard from it
    /// recently enough.
    async fn lease_holds(&self) -> Result<bool, ApiError> {
        if !self.consensus.peers.drift.is_within_limits() {
            return Ok(false);
        }
        match self.consensus.raft.ensure_linearizable(ReadPolicy::LeaseRead).await {
            Ok(_) => Ok(true),
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Ok(false),
            Err(error) => Err(of_read(&error)),
        }
    }

    /// The state, at least as fresh as `consistency` asks.
    pub(super) async fn view(&self, consistency: Consistency) -> Result<Arc<StoreView>, ApiError> {
        self.wait_until(consistency).await?;
        self.consensus.store.view().map_err(|error| {
            // The inner text stays inside; it can name files.
            tracing::error!(%error, "the state cannot be read");
            ApiError::new(ErrorCode::InternalError, "the node's store failed")
        })
    }

    /// Answers a read of the store from a state that is as fresh as `consistency` asks.
    pub(super) async fn answer<Q: Query>(
        &self,
        consistency: Consistency,
        query: &Q,
    ) -> Result<Q::Reply, ApiError> {
        query.check()?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        let view = self.view(consistency).await?;
        query.answer(&view.view()).map_err(|error| {
            // A replica that lags may get there. What is newer than the newest is not.
            let is_ahead = matches!(error, ReadError::NotReached { .. });
            match is_ahead && consistency != Consistency::Stale {
                true => ApiError::new(ErrorCode::InvalidRequest, error.to_string()),
                false => error.into(),
            }
        })
    }
}

/// Confirms that this node still leads, also if a quorum is slow to say so.
async fn confirm(consensus: Arc<Consensus>) -> Result<(), ApiError> {
    let confirm = async {
        let mut wait = FIRST_RETRY;
        let mut attempt = 1;
        loop {
            match consensus.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
                Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))
                    if attempt < ATTEMPTS =>
                {
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                    attempt += 1;
                }
                result => return result.map(drop).map_err(|error| of_read(&error)),
            }
        }
    };
    let late = |_| Err(unavailable("leadership was not confirmed in time"));
    tokio::time::timeout(CONFIRM_TIMEOUT, confirm).await.unwrap_or_else(late)
}
