//! What callers hear when consensus fails: codes and hints, never the inner text.

use aspen_api::{ApiError, ErrorCode};
use aspen_log::LogError;
use openraft::errors::{
    ChangeMembershipError, ClientWriteError, Fatal, ForwardToLeader, LinearizableReadError,
    RaftError,
};
use thiserror::Error;

use crate::condition::{stopped, unavailable};
use crate::state::StoreError;
use crate::types::Types;

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The settings contradict each other.
    #[error("{0}")]
    Config(String),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state cannot be opened.
    #[error(transparent)]
    State(#[from] StoreError),
    /// The data folder cannot be used.
    #[error("data folder: {0}")]
    Io(#[from] std::io::Error),
    /// Log and state contradict each other.
    #[error("log and state do not fit: {0}")]
    Inconsistent(String),
}

/// A write or a change of the members that was proposed and may still be carried out, by this node
/// or another. The other codes say that it was not proposed, so this is the only one for it, also if
/// it may be repeated.
pub(super) fn unknown() -> ApiError {
    ApiError::new(ErrorCode::Timeout, "the outcome is unknown: it was proposed, and not confirmed")
}

/// The answer of a node that does not lead.
pub(super) fn not_leader(forward: &ForwardToLeader<Types>) -> ApiError {
    ApiError::not_leader(forward.leader_node.as_ref().map(|member| member.0.clone()))
}

/// What a failed write means to the caller.
pub(super) fn of_write(error: ClientWriteError<Types>) -> ApiError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => not_leader(&forward),
        ClientWriteError::LogEntryDiscarded(_) => unknown(),
        ClientWriteError::ChangeMembershipError(error) => of_membership(&error),
        ClientWriteError::PreconditionFailed(_) => {
            ApiError::new(ErrorCode::Conflict, "the members have changed meanwhile")
        }
    }
}

fn of_membership(
    error: &ChangeMembershipError<openraft::alias::CommittedLeaderIdOf<Types>, u64>,
) -> ApiError {
    let (code, text) = match error {
        ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_) => {
            (ErrorCode::Conflict, "another change of the members is under way".to_owned())
        }
        ChangeMembershipError::EmptyMembership(_) => {
            (ErrorCode::InvalidRequest, "a cluster needs at least one voter".to_owned())
        }
        ChangeMembershipError::LearnerNotFound(error) => {
            let text = format!("node {} is not a member; add it as a learner first", error.node_id);
            (ErrorCode::NotFound, text)
        }
        ChangeMembershipError::UnsupportedMembershipTransition(_)
        | ChangeMembershipError::NodeMetadataChanged(_) => {
            (ErrorCode::InvalidRequest, "the members cannot change like this".to_owned())
        }
    };
    ApiError::new(code, text)
}

/// What a failed change of the members means to the caller.
pub(super) fn of_raft_write(error: RaftError<Types, ClientWriteError<Types>>) -> ApiError {
    match error {
        RaftError::APIError(error) => of_write(error),
        // Consensus may have ended with the change in its log.
        RaftError::Fatal(_) => unknown(),
    }
}

/// What a failed confirmation of leadership means to the caller.
pub(super) fn of_read(error: &RaftError<Types, LinearizableReadError<Types>>) -> ApiError {
    match error {
        RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => not_leader(forward),
        RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => {
            unavailable("no quorum confirms the leader")
        }
        RaftError::Fatal(_) => stopped(),
    }
}

/// Why openraft did not start.
pub(super) fn of_start(error: Fatal<Types>) -> StartError {
    StartError::Inconsistent(error.to_string())
}
