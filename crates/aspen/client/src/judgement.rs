//! What a request asks for, and what a failed attempt says about it.

use aspen_api::{ApiError, ErrorCode, Kind};
use net_node::{RpcError, Status};

/// Whether a refusal is final for all attempts: the request itself or the state of the store is the
/// reason, and the store remembers it under the request id.
pub(crate) fn is_definitive(code: ErrorCode) -> bool {
    match code {
        ErrorCode::InvalidRequest
        | ErrorCode::InvalidToken
        | ErrorCode::TooLarge
        | ErrorCode::NotFound
        | ErrorCode::Conflict
        | ErrorCode::Compacted
        | ErrorCode::SessionExpired => true,
        ErrorCode::NotLeader
        | ErrorCode::NotInitialized
        | ErrorCode::ServiceUnavailable
        | ErrorCode::CapabilityUnavailable
        | ErrorCode::PluginLoading
        | ErrorCode::Unauthorized
        | ErrorCode::Forbidden
        | ErrorCode::RateLimited
        | ErrorCode::Timeout
        | ErrorCode::FeatureDisabled
        | ErrorCode::Unsupported
        | ErrorCode::InternalError => false,
    }
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
    pub(crate) fn of(kind: Kind) -> Self {
        match kind {
            Kind::Node => Self::First,
            _ if kind.is_for_leader() => Self::Leader,
            Kind::Local | Kind::Read(_) | Kind::Write | Kind::Membership => Self::Any,
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
    use aspen_api::kv::Consistency;

    use super::*;

    #[test]
    fn each_kind_has_its_audience() {
        assert_eq!(Audience::of(Kind::Read(Consistency::Linearizable)), Audience::Leader);
        assert_eq!(Audience::of(Kind::Read(Consistency::Lease)), Audience::Leader);
        assert_eq!(Audience::of(Kind::Read(Consistency::Stale)), Audience::Any);
        assert_eq!(Audience::of(Kind::Write), Audience::Leader);
        assert_eq!(Audience::of(Kind::Membership), Audience::Leader);
        assert_eq!(Audience::of(Kind::Node), Audience::First);
        assert_eq!(Audience::of(Kind::Local), Audience::Any);
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
