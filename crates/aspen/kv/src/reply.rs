//! What applying a command answers, and how the answer is recorded for a repeated request.

use aspen_api::kv::{CompactResult, TransactResult, TransactionOutcome};
use aspen_api::lease::{LeaseGrantResult, LeaseKeepaliveResult, LeaseRevokeResult};
use aspen_api::{ApiError, Level, choice, record};

record! {
    /// What a [`Step`](crate::Command::Step) did.
    pub struct StepResult {
        /// The level of the cluster now.
        pub level: Level,
    }

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
        /// To a transaction.
        Transact {
            /// The result.
            result: TransactResult,
        } = 1,
        /// To a grant.
        LeaseGrant {
            /// The result.
            result: LeaseGrantResult,
        } = 2,
        /// To a revocation.
        LeaseRevoke {
            /// The result.
            result: LeaseRevokeResult,
        } = 3,
        /// To a keepalive.
        LeaseKeepalive {
            /// The result.
            result: LeaseKeepaliveResult,
        } = 4,
        /// To a compaction.
        Compact {
            /// The result.
            result: CompactResult,
        } = 5,
        /// To a step.
        Step {
            /// The result.
            result: StepResult,
        } = 6,
        /// To a tick.
        Tick {
            /// The result.
            result: TickResult,
        } = 7,
        /// The command could not be carried out and changed nothing.
        Refused {
            /// Why.
            error: ApiError,
        } = 8,
    }
}

impl Reply {
    /// This reply without the values that a transaction read.
    pub(crate) fn without_values(&self) -> Self {
        let Self::Transact { result } = self else { return self.clone() };
        let kept = |outcome: &TransactionOutcome| match outcome {
            TransactionOutcome::Read { item: Some(_) } => TransactionOutcome::NotKept {},
            TransactionOutcome::Set {}
            | TransactionOutcome::Deleted { .. }
            | TransactionOutcome::Read { item: None }
            | TransactionOutcome::Added { .. }
            | TransactionOutcome::NotKept {} => outcome.clone(),
        };
        let outcomes = result.outcomes.iter().map(kept).collect();
        Self::Transact { result: TransactResult { outcomes, ..result.clone() } }
    }
}
