//! A store of one process, for testing what is written over [`KeyValueStore`].

use std::sync::{Mutex, MutexGuard, PoisonError};

use aspen_api::{ApiError, ErrorCode, Exchange, KeyValueStore, Revision, StoreRequest};

use crate::{Applier, Command, Header, MemoryTables, Proposal, View, load_header};

/// The state machine over memory, with a log time that only moves when told to.
///
/// It is linearizable, keeps every revision until it is compacted, and removes expired keys with
/// each write.
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
        let mut state = self.lock();
        state.log_time_ms = state.log_time_ms.saturating_add(ms);
    }

    /// What the store knows of itself.
    pub fn header(&self) -> Result<Header, ApiError> {
        load_header(&self.lock().tables).map_err(|_| broken())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry_out<R: Exchange>(&self, request: R) -> Result<R::Reply, ApiError> {
        let mut state = self.lock();
        match Command::from_request(request.into()) {
            Err(read) => {
                let view = View::open(&state.tables, state.log_time_ms).map_err(|_| broken())?;
                let unsupported =
                    || Err(ApiError::new(ErrorCode::Unsupported, "not a request to a store"));
                R::reply(view.answer(&read).unwrap_or_else(unsupported)?)
            }
            Ok(command) => {
                command.admit()?;
                let State { tables, revision, log_time_ms } = &mut *state;
                *revision += 1;
                let proposal = Proposal { log_time_ms: *log_time_ms, request_id: None, command };
                let mut applier = Applier::open(tables).map_err(|_| broken())?;
                let reply = applier.apply(Revision(*revision), &proposal).map_err(|_| broken())?;
                applier.finish().map_err(|_| broken())?;
                R::reply(reply.into())
            }
        }
    }
}

impl KeyValueStore for MemoryStore {
    async fn submit<R: StoreRequest + 'static>(&self, request: R) -> Result<R::Reply, ApiError> {
        self.carry_out(request)
    }
}

fn broken() -> ApiError {
    ApiError::new(ErrorCode::InternalError, "the store's tables are damaged")
}
