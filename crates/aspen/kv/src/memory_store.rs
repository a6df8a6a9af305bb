//! A replica of one process, for testing what is written over the store.
//!
//! Invariant: an entry is applied under the lock that gave it its revision.

use std::sync::{Arc, Mutex};

use aspen_api::kv::Consistency;
use aspen_api::{ApiError, ErrorCode, RequestId, Revision};

use crate::{
    Applier, Command, Consensus, Header, MemoryTables, Proposal, Query, Reply, View, load_header,
};
use net_types::lock;

/// The state machine over memory, with a log time that only moves when told to.
///
/// [`Store`](crate::Store) over it is a whole store. It is linearizable, keeps every revision until it
/// is compacted, and removes expired keys with each write.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tables: MemoryTables,
    revision: u64,
    log_time_ms: u64,
}

impl MemoryStore {
    /// An empty store at log time 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves log time.
    pub fn advance_ms(&self, ms: u64) {
        let mut state = lock(&self.state);
        state.log_time_ms = state.log_time_ms.saturating_add(ms);
    }

    /// What the store knows of itself.
    pub fn header(&self) -> Result<Header, ApiError> {
        load_header(&lock(&self.state).tables).map_err(|_| broken())
    }
}

impl Consensus for Arc<MemoryStore> {
    async fn propose(
        &self,
        command: Command,
        request_id: Option<RequestId>,
    ) -> Result<Reply, ApiError> {
        command.admit()?;
        let mut state = lock(&self.state);
        let State { tables, revision, log_time_ms } = &mut *state;
        *revision += 1;
        let proposal = Proposal { log_time_ms: *log_time_ms, request_id, command };
        let mut applier = Applier::open(tables).map_err(|_| broken())?;
        let reply = applier.apply(Revision(*revision), &proposal).map_err(|_| broken())?;
        applier.finish().map_err(|_| broken())?;
        match reply {
            Reply::Refused { error } => Err(error),
            reply => Ok(reply),
        }
    }

    async fn query<Q: Query>(&self, _: Consistency, query: Q) -> Result<Q::Reply, ApiError> {
        query.check()?;
        let state = lock(&self.state);
        let view = View::open(&state.tables, state.log_time_ms).map_err(|_| broken())?;
        Ok(query.answer(&view)?)
    }
}

fn broken() -> ApiError {
    ApiError::new(ErrorCode::InternalError, "the store's tables are damaged")
}
