//! Proposing commands: stamped, grouped, and answered once they are applied.

use std::sync::atomic::Ordering;
use std::time::Duration;

use aspen_api::kv::Consistency;
use aspen_api::{ApiError, ErrorCode, RequestId};
use aspen_kv::{Command, Consensus, LogClock, Proposal, Query, Reply};
use net_types::limits::DEFAULT_REQUEST_DEADLINE;
use net_types::{Instant, UnixMillis, lock};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardReason};
use openraft::impls::ProgressResponder;

use super::ClusterNode;
use super::errors::{of_write, stopped, unknown};
use super::upkeep::Reached;
use crate::types::Proposed;

/// Longest time between a proposal and its effect on the state, with room to spare.
const PROPOSAL_LIFE_MS: u64 = 2 * DEFAULT_REQUEST_DEADLINE.as_millis() as u64;

/// Waits for a quorum to answer a leader: the first, doubled each time, and the one not reached.
const FIRST_WAIT: Duration = Duration::from_millis(2);
const LAST_WAIT: Duration = Duration::from_millis(512);

/// Log time as this node stamps it while it leads.
#[derive(Default)]
pub(crate) struct LogTime {
    clock: Option<(u64, LogClock)>,
    /// When something that expires was last proposed.
    deadline_proposed_at: Option<Instant>,
}

/// What the stamp of an entry depends on, beside the clock of the term.
#[derive(Clone, Copy)]
struct StampInputs {
    term: u64,
    now: Instant,
    wall: UnixMillis,
    /// Term of the last entry applied. Until it is the present one, entries of leaders before may be
    /// missing in the state.
    applied_term: Option<u64>,
    /// Log time that the state has reached, and since when it is known.
    reached: Reached,
    /// Whether anything in the state expires.
    has_deadlines: bool,
}

impl LogTime {
    /// The stamp of an entry proposed with these `inputs`; `brings_deadline` is noted for those after it.
    fn stamp_ms(&mut self, inputs: StampInputs, brings_deadline: bool) -> u64 {
        let StampInputs { term, now, wall, reached, .. } = inputs;
        let proposed = self
            .deadline_proposed_at
            .is_some_and(|at| now.since(at).as_millis() < u128::from(PROPOSAL_LIFE_MS));
        if brings_deadline {
            // What it brings ends a while after its own stamp, which may still catch up.
            self.deadline_proposed_at = Some(now);
        }
        let may_inherit = inputs.applied_term != Some(term);
        let has_deadlines = inputs.has_deadlines || may_inherit || proposed;
        let clock = match &mut self.clock {
            Some((of, clock)) if *of == term => clock,
            other => &mut other.insert((term, LogClock::start(reached.log_time_ms, now))).1,
        };
        let stamp_ms = clock.now_ms(now, wall, has_deadlines);
        let least_ms = match may_inherit {
            true => reached.log_time_ms,
            // There is no later stamp, and time passed for the leader that made it: a quiet time
            // under that leader makes nothing live longer.
            false => LogClock::start(reached.log_time_ms, reached.at).now_ms(now, wall, true),
        };
        if stamp_ms >= least_ms {
            return stamp_ms;
        }
        // The leader before was further when this clock was started.
        *clock = LogClock::start(least_ms, now);
        least_ms
    }
}

impl ClusterNode {
    /// The term, and that of the last entry applied.
    fn terms(&self) -> (u64, Option<u64>) {
        let term = self.0.raft.server_metrics().borrow_watched().vote.leader_id.term;
        let applied = self.0.raft.data_metrics().borrow_watched().last_applied;
        (term, applied.map(|id| id.committed_leader_id().term))
    }

    /// Whether this node, if it leads, has applied all that the leaders before it wrote.
    pub(super) fn has_applied_own_term(&self) -> bool {
        let (term, applied_term) = self.terms();
        applied_term == Some(term)
    }

    /// Log time now, as this node would stamp an entry.
    pub(super) fn log_now_ms(&self, brings_deadline: bool) -> u64 {
        // Asked before the state's log time, so that the state is not older than this says.
        let (term, applied_term) = self.terms();
        let (reached, has_deadlines) = self.0.upkeep.log_time();
        let inputs = StampInputs {
            term,
            now: self.0.config.clock.now(),
            wall: self.0.config.clock.wall(),
            applied_term,
            reached,
            has_deadlines,
        };
        let mut time = lock(&self.0.log_time);
        time.stamp_ms(inputs, brings_deadline)
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
        self.ensure_level(&command)?;
        if self.0.is_disk_full.load(Ordering::Relaxed) && !matches!(command, Command::Tick {}) {
            return Err(ApiError::new(
                ErrorCode::ServiceUnavailable,
                "the data disk is almost full; writes are refused",
            ));
        }
        if let Some(reply) = self.known_answer(request_id) {
            return of_applied(Some(reply));
        }
        self.0.counters.writes.fetch_add(1, Ordering::Relaxed);
        let propose = self.propose_admitted(command, request_id);
        match tokio::time::timeout(DEFAULT_REQUEST_DEADLINE, propose).await {
            Ok(result) => result,
            Err(_) => Err(ApiError::new(ErrorCode::Timeout, "the write was not confirmed in time")),
        }
    }

    /// What a leader can answer without an entry: a client that is new, or has been away for long,
    /// names its first write after nothing that it has seen, and would have it refused only once
    /// every member had written it down.
    fn known_answer(&self, request_id: Option<RequestId>) -> Option<Reply> {
        let id = request_id.filter(|id| self.0.upkeep.may_be_too_old(*id) && self.is_leader())?;
        let view = self.local_view().ok()?;
        // If the state cannot be read, applying the request will tell.
        view.view().recorded(id).ok()?
    }

    async fn propose_admitted(
        &self,
        command: Command,
        request_id: Option<RequestId>,
    ) -> Result<Reply, ApiError> {
        let _member = self.0.gate.enter().await;
        let brings_deadline = command.brings_deadline();
        let mut proposal = Proposal { log_time_ms: 0, request_id, command };
        let mut wait = FIRST_WAIT;
        loop {
            // Stamped each time: a leader that is new learns what time it is while it waits.
            proposal.log_time_ms = self.log_now_ms(brings_deadline);
            let proposed = Proposed(proposal.encode());
            let (responder, outcome) = ProgressResponder::complete_only();
            let sent = self.0.raft.client_write_ff(proposed, Some(responder)).await;
            sent.map_err(|_| stopped())?;
            match outcome.await.map_err(|_| unknown())? {
                Ok(written) => return of_applied(written.data.0),
                Err(ClientWriteError::ForwardToLeader(forward))
                    if forward.reason == ForwardReason::LeaseExpired && wait < LAST_WAIT =>
                {
                    // It leads, but no quorum has answered it yet or for a while; nothing was
                    // written. A new leader is in this state for one exchange.
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                Err(ClientWriteError::ForwardToLeader(forward))
                    if forward.reason == ForwardReason::LeaseExpired =>
                {
                    let text = "no quorum answers the leader";
                    return Err(ApiError::new(ErrorCode::ServiceUnavailable, text));
                }
                Err(error) => return Err(of_write(error)),
            }
        }
    }
}

impl Consensus for ClusterNode {
    async fn propose(&self, command: Command, id: Option<RequestId>) -> Result<Reply, ApiError> {
        self.commit(command, id).await
    }

    async fn query<Q: Query>(
        &self,
        consistency: Consistency,
        query: Q,
    ) -> Result<Q::Reply, ApiError> {
        query.check()?;
        self.answer(consistency, &query).await
    }
}

fn of_applied(reply: Option<Reply>) -> Result<Reply, ApiError> {
    match reply {
        Some(Reply::Refused { error }) => Err(error),
        Some(reply) => Ok(reply),
        None => Err(ApiError::new(ErrorCode::InternalError, "a command was not applied")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    /// Inputs of a state that has just applied `log_time_ms`.
    fn inputs(
        term: u64,
        log_time_ms: u64,
        now: Instant,
        wall: u64,
        has_deadlines: bool,
    ) -> StampInputs {
        let (wall, applied_term) = (UnixMillis(wall), Some(term));
        let reached = Reached { log_time_ms, at: now };
        StampInputs { term, now, wall, applied_term, reached, has_deadlines }
    }

    #[test]
    fn stamps_follow_the_wall_until_something_expires_and_never_fall_behind_the_state() {
        let mut time = LogTime::default();
        assert_eq!(time.stamp_ms(inputs(1, 100, at(0), 5_000, false), true), 5_000);
        assert_eq!(time.stamp_ms(inputs(1, 100, at(10), 9_000, false), false), 5_010);
        assert_eq!(time.stamp_ms(inputs(1, 8_000, at(11), 9_000, true), false), 8_000);
        assert_eq!(time.stamp_ms(inputs(1, 8_000, at(16), 9_000, true), false), 8_005);
        assert_eq!(time.stamp_ms(inputs(2, 8_000, at(17), 1, true), false), 8_000);
        let later = at(PROPOSAL_LIFE_MS + 1);
        assert_eq!(time.stamp_ms(inputs(2, 8_000, later, 900_000, false), false), 900_000);
    }

    #[test]
    fn a_new_leader_goes_on_from_when_the_last_stamp_was_applied() {
        let mut time = LogTime::default();
        let reached = Reached { log_time_ms: 1_000, at: at(50) };
        let quiet = |now| StampInputs { reached, ..inputs(2, 0, at(now), 0, true) };
        let inheriting = StampInputs { applied_term: Some(1), ..quiet(60_050) };
        assert_eq!(time.stamp_ms(inheriting, false), 1_000, "a later stamp may be on its way");
        assert_eq!(time.stamp_ms(quiet(60_060), false), 61_010);
        assert_eq!(time.stamp_ms(quiet(60_065), false), 61_015);
    }

    #[test]
    fn the_first_lease_in_a_quiet_store_is_granted_at_the_time_of_the_wall() {
        let mut time = LogTime::default();
        assert_eq!(time.stamp_ms(inputs(3, 100, at(0), 7_000_000, false), true), 7_000_000);
        // From then on the wall may jump as it likes.
        assert_eq!(time.stamp_ms(inputs(3, 100, at(5), 9_000_000, false), true), 7_000_005);
    }

    #[test]
    fn a_leader_that_has_not_applied_what_it_inherits_follows_no_wall() {
        let mut time = LogTime::default();
        let new = |now| inputs(4, 1_000, now, 9_000_000, false);
        let inheriting = StampInputs { applied_term: Some(3), ..new(at(0)) };
        assert_eq!(time.stamp_ms(inheriting, false), 1_000);
        let with_lease = StampInputs { has_deadlines: true, ..new(at(10)) };
        assert_eq!(
            time.stamp_ms(with_lease, false),
            1_010,
            "the lease it inherited is not cut short"
        );
        assert_eq!(time.stamp_ms(new(at(20)), false), 9_000_000, "there was none, or it has ended");
    }
}
