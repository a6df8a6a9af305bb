//! What a request asks for, and what a failed attempt says about it.

use aspen_api::kv::Consistency;
use aspen_api::{ApiError, ErrorCode, Purpose, Request};
use net_node::{RpcError, Status};

/// Whether a refusal speaks for all attempts: the request itself or the state of the store is the
/// reason, and the store remembers it under the request's name.
pub(crate) fn is_definitive(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::InvalidRequest
            | ErrorCode::InvalidToken
            | ErrorCode::TooLarge
            | ErrorCode::NotFound
            | ErrorCode::Conflict
            | ErrorCode::Compacted
            | ErrorCode::SessionExpired
    )
}

/// Whether the server may have carried out a call that has no answer.
pub(crate) fn may_have_run(error: &RpcError) -> bool {
    match error {
        RpcError::NoRoute(_) | RpcError::Backpressure | RpcError::TooLarge(_) => false,
        RpcError::ServerError { status, .. } => {
            !matches!(*status, Status::NOT_FOUND | Status::BACKPRESSURE)
        }
        RpcError::Timeout | RpcError::Transport | RpcError::Cancelled => true,
    }
}

/// Who can answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Only the leader.
    Leader,
    /// Any member.
    Any,
    /// The first member of the ticket: the request changes that node and no other.
    First,
}

impl Audience {
    pub(crate) fn of(request: &Request) -> Self {
        match request.purpose() {
            Purpose::Tell | Purpose::Read(Consistency::Stale) => Self::Any,
            Purpose::Node => Self::First,
            Purpose::Read(_) | Purpose::Write | Purpose::Govern => Self::Leader,
        }
    }
}

/// The error for a single call that has no answer.
pub(crate) fn unanswered(error: &RpcError) -> ApiError {
    let code = match may_have_run(error) {
        true => ErrorCode::Timeout,
        false => ErrorCode::ServiceUnavailable,
    };
    ApiError::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use aspen_api::cluster::InitCluster;
    use aspen_api::kv::{ReadKey, WriteKey};

    use super::*;

    #[test]
    fn reads_writes_and_matters_of_one_node_have_their_audiences() {
        let key: aspen_api::Key = "k".parse().unwrap();
        let read = ReadKey::newest(key.clone());
        let stale = ReadKey { consistency: Consistency::Stale, ..read.clone() };
        let write = WriteKey { key, value: "v".into() };
        assert_eq!(Audience::of(&read.into()), Audience::Leader);
        assert_eq!(Audience::of(&stale.into()), Audience::Any);
        assert_eq!(Audience::of(&write.into()), Audience::Leader);
        assert_eq!(Audience::of(&InitCluster {}.into()), Audience::First);
    }

    #[test]
    fn only_what_never_reached_a_handler_is_known_not_to_have_run() {
        let refused = |status| RpcError::ServerError {
            status,
            kind: String::new(),
            detail: String::new(),
            body: bytes::Bytes::new(),
        };
        for error in [
            RpcError::NoRoute(String::new()),
            RpcError::Backpressure,
            refused(Status::BACKPRESSURE),
            refused(Status::NOT_FOUND),
        ] {
            assert!(!may_have_run(&error), "{error}");
            assert_eq!(unanswered(&error).code, ErrorCode::ServiceUnavailable);
        }
        for error in [RpcError::Timeout, RpcError::Transport, refused(Status::INTERNAL)] {
            assert!(may_have_run(&error), "{error}");
            assert_eq!(unanswered(&error).code, ErrorCode::Timeout);
        }
    }
}
