//! The one carrier of everything that can go wrong between a caller and the store.

use core::fmt;

use net_types::PeerAddr;
use net_types::limits::MAX_ERROR_MESSAGE_BYTES;

use crate::codec::DecodeError;
use crate::{numbers, record};

numbers! {
    /// What the caller can do about an error.
    ///
    /// `TIMEOUT`, `SESSION_EXPIRED` and `INTERNAL_ERROR` leave open whether a write was or will be
    /// carried out. Every other error means that the node did not even propose it, or that it had
    /// no effect.
    pub enum ErrorCode {
        /// The node does not lead; ask the leader.
        NotLeader = 1 as "NOT_LEADER",
        /// The node belongs to no cluster yet.
        NotInitialized = 2 as "NOT_INITIALIZED",
        /// The node cannot serve now; ask another.
        ServiceUnavailable = 3 as "SERVICE_UNAVAILABLE",
        /// The cluster has no provider of the request's family.
        CapabilityUnavailable = 4 as "CAPABILITY_UNAVAILABLE",
        /// The provider is being loaded; ask again.
        PluginLoading = 5 as "PLUGIN_LOADING",
        /// A token is required or is not valid.
        Unauthorized = 6 as "UNAUTHORIZED",
        /// The caller may not do this.
        Forbidden = 7 as "FORBIDDEN",
        /// The request cannot succeed as it is.
        InvalidRequest = 8 as "INVALID_REQUEST",
        /// The continuation token is damaged or belongs to another scan.
        InvalidToken = 9 as "INVALID_TOKEN",
        /// A key, value, batch or answer exceeds its limit.
        TooLarge = 10 as "TOO_LARGE",
        /// The caller asks too often.
        RateLimited = 11 as "RATE_LIMITED",
        /// No outcome is known: time ran out, or the node stopped or lost the lead. A write may have
        /// happened and may still happen; one with a request id may be repeated at any node.
        Timeout = 12 as "TIMEOUT",
        /// The revision is no longer kept.
        Compacted = 13 as "COMPACTED",
        /// The named object does not exist.
        NotFound = 14 as "NOT_FOUND",
        /// The named object is in a state that forbids this.
        Conflict = 15 as "CONFLICT",
        /// The request's name is too old to say whether an earlier attempt was carried out; this one was
        /// not. A request that had no other may be asked again under a new name.
        SessionExpired = 16 as "SESSION_EXPIRED",
        /// The feature is switched off on the server.
        FeatureDisabled = 17 as "FEATURE_DISABLED",
        /// The server does not know the request.
        Unsupported = 18 as "UNSUPPORTED",
        /// A fault of the server.
        InternalError = 19 as "INTERNAL_ERROR",
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

record! {
    /// An error as it travels. Messages name no paths, secrets or inner structure of the server.
    pub struct ApiError {
        /// What the caller can do.
        pub code: ErrorCode,
        /// What happened, for people.
        pub message: String [MAX_ERROR_MESSAGE_BYTES],
        /// With `NOT_LEADER`, the leader as far as it is known and the caller may know it.
        pub leader_hint: Option<PeerAddr>,
    }
}

impl ApiError {
    /// An error; a message above 1 KiB is cut.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_ERROR_MESSAGE_BYTES {
            let end = message.floor_char_boundary(MAX_ERROR_MESSAGE_BYTES);
            message.truncate(end);
        }
        Self { code, message, leader_hint: None }
    }

    /// The answer of a node that does not lead.
    pub fn not_leader(leader: Option<PeerAddr>) -> Self {
        let message = match leader {
            Some(_) => "this node is not the leader",
            None => "this node is not the leader and knows of none",
        };
        Self { leader_hint: leader, ..Self::new(ErrorCode::NotLeader, message) }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl core::error::Error for ApiError {}

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> Self {
        let code = match error {
            DecodeError::BadLength { .. } => ErrorCode::TooLarge,
            DecodeError::Truncated { .. }
            | DecodeError::TrailingBytes(_)
            | DecodeError::UnknownTag { .. }
            | DecodeError::UnknownVersion(_)
            | DecodeError::BadValue(_) => ErrorCode::InvalidRequest,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_pinned() {
        let listed: Vec<_> = ErrorCode::ALL.iter().map(|c| (*c as u8, c.name())).collect();
        assert_eq!(listed.len(), 19);
        assert_eq!(listed[0], (1, "NOT_LEADER"));
        assert_eq!(listed[7], (8, "INVALID_REQUEST"));
        assert_eq!(listed[12], (13, "COMPACTED"));
        assert_eq!(listed[18], (19, "INTERNAL_ERROR"));
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let error = ApiError::new(ErrorCode::InternalError, "ä".repeat(1_000));
        assert_eq!(error.message.len(), MAX_ERROR_MESSAGE_BYTES);
    }
}
