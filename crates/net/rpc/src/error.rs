//! How calls fail.
//!
//! Invariants: the words of [`RpcError::KINDS`] are stable, since programs and dashboards read
//! them; the text of an error begins with its word.

use bytes::Bytes;
use net_wire::rpc::Status;
use thiserror::Error;

/// Why a call has no reply. The variant says what the caller can do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RpcError {
    /// No session with the peer, and none could be made: try another peer.
    #[error("nrpc:no_route: {0}")]
    NoRoute(String),
    /// The deadline passed; the server may have done the work.
    #[error("nrpc:timeout: no reply before the deadline")]
    Timeout,
    /// The server answered with an error.
    #[error("nrpc:server_error: {detail} (status {:#06x}, {kind})", status.0)]
    ServerError {
        /// The status.
        status: Status,
        /// A stable word for programs.
        kind: String,
        /// A text for people.
        detail: String,
        /// What the handler attached.
        body: Bytes,
    },
    /// The session ended while the call was open; the server may have done the work.
    #[error("nrpc:transport: the session ended during the call")]
    Transport,
    /// The call was cancelled on this side.
    #[error("nrpc:cancelled: the call was cancelled")]
    Cancelled,
    /// This side has too many open calls or too much queued: wait.
    #[error("nrpc:backpressure: too many calls or bytes are waiting on this side")]
    Backpressure,
    /// The body or a header is above its limit: send less.
    #[error("nrpc:codec_encode: {0}")]
    TooLarge(String),
}

impl RpcError {
    /// The stable word for the kind of error, with which its text begins.
    pub fn kind(&self) -> &'static str {
        Self::KINDS[self.kind_index()]
    }

    /// All words of [`RpcError::kind`].
    pub const KINDS: [&'static str; 7] = [
        "no_route",
        "timeout",
        "server_error",
        "transport",
        "cancelled",
        "backpressure",
        "codec_encode",
    ];

    /// Which of [`RpcError::KINDS`] it is.
    pub fn kind_index(&self) -> usize {
        match self {
            Self::NoRoute(_) => 0,
            Self::Timeout => 1,
            Self::ServerError { .. } => 2,
            Self::Transport => 3,
            Self::Cancelled => 4,
            Self::Backpressure => 5,
            Self::TooLarge(_) => 6,
        }
    }

    /// Whether the same call may succeed when repeated. It may also run twice.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Timeout | Self::Transport | Self::Backpressure | Self::NoRoute(_) => true,
            Self::ServerError { status, .. } => status.is_retryable(),
            Self::Cancelled | Self::TooLarge(_) => false,
        }
    }
}

/// What a handler answers when it cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind}: {detail}")]
pub struct RpcFailure {
    /// The status, never [`Status::OK`].
    pub status: Status,
    /// A stable word for programs, at most 255 bytes.
    pub kind: &'static str,
    /// A text for people, at most 1 KiB.
    pub detail: String,
    /// Anything else the caller can use.
    pub body: Bytes,
}

impl RpcFailure {
    /// A failure without a body.
    pub fn new(status: Status, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), body: Bytes::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_begins_with_its_kind() {
        let (status, kind) = (Status::INTERNAL, String::new());
        let errors = [
            RpcError::NoRoute(String::new()),
            RpcError::Timeout,
            RpcError::ServerError { status, kind, detail: String::new(), body: Bytes::new() },
            RpcError::Transport,
            RpcError::Cancelled,
            RpcError::Backpressure,
            RpcError::TooLarge(String::new()),
        ];
        for (error, kind) in errors.iter().zip(RpcError::KINDS) {
            assert!(error.to_string().starts_with(&format!("nrpc:{kind}:")), "{error}");
            assert_eq!(error.kind(), kind);
        }
    }
}
