//! Reading: how fresh the state must be, and who says so.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aspen_api::kv::Consistency;
use aspen_api::{ApiError, ErrorCode};
use aspen_kv::{Query, ReadError};
use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};

use super::ClusterNode;
use super::errors::of_read;
use crate::state::{StoreError, StoreView};

/// Confirmations tried for one round of reads.
const ATTEMPTS: u32 = 5;
/// Wait before the second confirmation; doubled before each further one.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// Time for all of them.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

impl ClusterNode {
    /// Waits until the local state is as fresh as `consistency` asks.
    ///
    /// All linearizable reads that wait at the same time share one confirmation of leadership.
    /// Errors: `NOT_LEADER` with the leader, `SERVICE_UNAVAILABLE` without a quorum.
    pub async fn read_barrier(&self, consistency: Consistency) -> Result<(), ApiError> {
        match consistency {
            Consistency::Stale => Ok(()),
            Consistency::Lease if self.lease_holds().await? => Ok(()),
            Consistency::Lease | Consistency::Linearizable => {
                let node = self.clone();
                let confirm = move || {
                    let node = node.clone();
                    async move { node.confirm().await }
                };
                self.0.barrier.wait(confirm).await
            }
        }
    }

    /// Whether the leader may read inside its lease: clocks agree, and a quorum has heard from it
    /// recently enough.
    async fn lease_holds(&self) -> Result<bool, ApiError> {
        if !self.0.dialing.peers.drift.is_within_limits() {
            return Ok(false);
        }
        match self.0.raft.ensure_linearizable(ReadPolicy::LeaseRead).await {
            Ok(_) => Ok(true),
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Ok(false),
            Err(error) => Err(of_read(&error)),
        }
    }

    async fn confirm(&self) -> Result<(), ApiError> {
        self.0.counters.barriers.fetch_add(1, Ordering::Relaxed);
        let confirm = async {
            let mut wait = FIRST_RETRY;
            for _ in 1..ATTEMPTS {
                match self.0.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
                    Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                        tokio::time::sleep(wait).await;
                        wait *= 2;
                    }
                    Ok(_) => return Ok(()),
                    Err(error) => return Err(of_read(&error)),
                }
            }
            let last = self.0.raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
            last.map(drop).map_err(|error| of_read(&error))
        };
        match tokio::time::timeout(CONFIRM_TIMEOUT, confirm).await {
            Ok(result) => result,
            Err(_) => Err(ApiError::new(
                ErrorCode::ServiceUnavailable,
                "leadership was not confirmed in time",
            )),
        }
    }

    /// The state, at least as fresh as `consistency` asks.
    pub async fn view(&self, consistency: Consistency) -> Result<Arc<StoreView>, ApiError> {
        self.read_barrier(consistency).await?;
        self.0.state.store().view().map_err(|error| store_failed(&error))
    }

    /// Answers a read of the store from a state that is as fresh as `consistency` asks.
    pub(super) async fn answer<Q: Query>(
        &self,
        consistency: Consistency,
        query: &Q,
    ) -> Result<Q::Reply, ApiError> {
        self.0.counters.reads.fetch_add(1, Ordering::Relaxed);
        let view = self.view(consistency).await?;
        query.answer(&view.view()).map_err(|error| match &error {
            // A replica that lags may get there. What is newer than the newest is not.
            ReadError::NotReached { .. } if consistency != Consistency::Stale => {
                ApiError::new(ErrorCode::InvalidRequest, error.to_string())
            }
            _ => error.into(),
        })
    }
}

/// The inner text stays inside; it can name files.
pub(super) fn store_failed(error: &StoreError) -> ApiError {
    tracing::error!(%error, "the state cannot be read");
    ApiError::new(ErrorCode::InternalError, "the node's store failed")
}
