//! What applying a command answers, and how the answer is recorded for a repeated request.

use aspen_api::kv::{
    BatchWriteResult, CompactResult, CompareAndSwapResult, ConditionalBatchWriteResult,
    DeleteResult, TransactResult, WriteResult,
};
use aspen_api::lease::{LeaseGrantResult, LeaseKeepaliveResult, LeaseRevokeResult};
use aspen_api::{ApiError, Response, choice, record};

record! {
    /// What a [`Tick`](crate::Command::Tick) did.
    pub struct TickResult {
        /// Rows removed or looked at; large ones count for their size.
        pub removed: u32,
        /// Whether more can be removed right away.
        pub is_more: bool,
    }
}

choice! {
    /// The answer to a command. Numbers are part of the stored format.
    pub enum Reply {
        /// To a set.
        Write {
            /// The result.
            result: WriteResult,
        } = 1,
        /// To a delete.
        Delete {
            /// The result.
            result: DeleteResult,
        } = 2,
        /// To a compare-and-swap or compare-and-delete.
        CompareAndSwap {
            /// The result.
            result: CompareAndSwapResult,
        } = 3,
        /// To a batch.
        BatchWrite {
            /// The result.
            result: BatchWriteResult,
        } = 4,
        /// To a conditional batch.
        ConditionalBatchWrite {
            /// The result.
            result: ConditionalBatchWriteResult,
        } = 5,
        /// To a transaction.
        Transact {
            /// The result.
            result: TransactResult,
        } = 6,
        /// To a compaction.
        Compact {
            /// The result.
            result: CompactResult,
        } = 7,
        /// To a grant.
        LeaseGrant {
            /// The result.
            result: LeaseGrantResult,
        } = 8,
        /// To a revocation.
        LeaseRevoke {
            /// The result.
            result: LeaseRevokeResult,
        } = 9,
        /// To a keepalive.
        LeaseKeepalive {
            /// The result.
            result: LeaseKeepaliveResult,
        } = 10,
        /// To a tick.
        Tick {
            /// The result.
            result: TickResult,
        } = 11,
        /// The command could not be carried out and changed nothing.
        Refused {
            /// Why.
            error: ApiError,
        } = 12,
    }
}

impl From<Reply> for Response {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Write { result } => result.into(),
            Reply::Delete { result } => result.into(),
            Reply::CompareAndSwap { result } => result.into(),
            Reply::BatchWrite { result } => result.into(),
            Reply::ConditionalBatchWrite { result } => result.into(),
            Reply::Transact { result } => result.into(),
            Reply::Compact { result } => result.into(),
            Reply::LeaseGrant { result } => result.into(),
            Reply::LeaseRevoke { result } => result.into(),
            Reply::LeaseKeepalive { result } => result.into(),
            Reply::Tick { .. } => Self::Done(aspen_api::cluster::Done {}),
            Reply::Refused { error } => error.into(),
        }
    }
}
