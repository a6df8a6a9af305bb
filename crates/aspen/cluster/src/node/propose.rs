//! Proposing commands: admitted, stamped, grouped, and answered once they are applied. Invariant: only
//! an error with the code `TIMEOUT` leaves open whether a command is applied.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_api::{ApiError, ErrorCode, RequestId};
use aspen_kv::{Command, Proposal, Reply};
use net_types::limits::DEFAULT_REQUEST_DEADLINE;
use net_types::lock;
use openraft::errors::{ClientWriteError, ForwardReason};
use openraft::impls::ProgressResponder;

use super::consensus::Consensus;
use super::errors::{of_write, unknown};
use super::gate::Gate;
use super::level::ensure_level;
use super::log_time::{LogTime, StampInput};
use crate::condition::{Condition, stopped, unavailable};
use crate::types::Proposed;

/// Waits for a quorum to answer a leader: the first, doubled each time, and the one not reached.
const FIRST_WAIT: Duration = Duration::from_millis(2);
const LAST_WAIT: Duration = Duration::from_millis(512);

/// Brings commands into the log.
pub(super) struct Proposer {
    consensus: Arc<Consensus>,
    condition: Arc<Condition>,
    gate: Gate,
    log_time: Mutex<LogTime>,
    /// Commands proposed so far.
    pub(super) proposals: AtomicU64,
}

impl Proposer {
    pub(super) fn new(consensus: Arc<Consensus>, condition: Arc<Condition>) -> Self {
        let (gate, log_time) = (Gate::default(), Mutex::default());
        Self { consensus, condition, gate, log_time, proposals: AtomicU64::new(0) }
    }

    /// Log time now, as this node would stamp an entry.
    pub(super) fn log_now_ms(&self, brings_deadline: bool) -> u64 {
        // Read before the state's log time, so that the state is not older than this says.
        let (term, applied_term) = self.consensus.terms();
        let (applied, has_deadlines) = self.consensus.applied.log_time();
        let clock = &self.consensus.config.clock;
        let (now, wall) = (clock.now(), clock.wall());
        let input = StampInput { term, now, wall, applied_term, applied, has_deadlines };
        lock(&self.log_time).stamp_ms(input, brings_deadline)
    }

    /// Proposes a command and waits until it is applied.
    ///
    /// A command with an id is applied once however often it is proposed. Errors: `TIMEOUT` if it was
    /// proposed and the outcome is unknown. If it was not: `NOT_LEADER` with the leader,
    /// `SERVICE_UNAVAILABLE` if the node is stopping, its disk is full or no quorum answers it, and
    /// what the command's own limits say.
    pub(super) async fn commit(
        &self,
        command: Command,
        request_id: Option<RequestId>,
    ) -> Result<Reply, ApiError> {
        command.admit()?;
        ensure_level(&command, self.consensus.applied.level())?;
        self.condition.ensure_writable(&command)?;
        if let Some(reply) = self.known_answer(request_id) {
            return of_applied(Some(reply));
        }
        self.proposals.fetch_add(1, Ordering::Relaxed);
        let propose = self.propose_admitted(command, request_id);
        tokio::time::timeout(DEFAULT_REQUEST_DEADLINE, propose).await.unwrap_or_else(|_| {
            Err(ApiError::new(ErrorCode::Timeout, "the write was not confirmed in time"))
        })
    }

    /// What a leader can answer without an entry: the first request id of a client that is new, or has
    /// been away for long, follows nothing that it has seen. The request would be refused, but only
    /// once every member had written it down.
    fn known_answer(&self, request_id: Option<RequestId>) -> Option<Reply> {
        let id = request_id.filter(|id| {
            self.consensus.applied.may_be_too_old(*id) && self.consensus.is_leader()
        })?;
        // If the state cannot be read, applying the request will tell.
        self.consensus.store.view().ok()?.view().recorded(id).ok()?
    }

    async fn propose_admitted(
        &self,
        command: Command,
        request_id: Option<RequestId>,
    ) -> Result<Reply, ApiError> {
        let _permit = self.gate.enter().await;
        let brings_deadline = command.brings_deadline();
        let mut proposal = Proposal { log_time_ms: 0, request_id, command };
        let mut wait = FIRST_WAIT;
        loop {
            // Stamped each time: a leader that is new learns what time it is while it waits.
            proposal.log_time_ms = self.log_now_ms(brings_deadline);
            let proposed = Proposed(proposal.encode());
            let (responder, outcome) = ProgressResponder::complete_only();
            let sent = self.consensus.raft.client_write_ff(proposed, Some(responder)).await;
            sent.map_err(|_| stopped())?;
            match outcome.await.map_err(|_| unknown())? {
                Ok(written) => return of_applied(written.data.0),
                Err(ClientWriteError::ForwardToLeader(forward))
                    if forward.reason == ForwardReason::LeaseExpired =>
                {
                    if wait >= LAST_WAIT {
                        return Err(unavailable("no quorum answers the leader"));
                    }
                    // It leads, but no quorum has answered it yet or for a while; nothing was
                    // written. A new leader is in this state for one exchange.
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                Err(error) => return Err(of_write(error)),
            }
        }
    }
}

fn of_applied(reply: Option<Reply>) -> Result<Reply, ApiError> {
    match reply {
        Some(Reply::Refused { error }) => Err(error),
        Some(reply) => Ok(reply),
        None => Err(ApiError::new(ErrorCode::InternalError, "a command was not applied")),
    }
}
