//! What can go wrong in the state machine.

use aspen_api::{ApiError, ErrorCode, Revision};
use thiserror::Error;

use crate::TableId;

/// The store cannot go on: its tables fail or do not hold what it wrote. The node must stop
/// applying, since going on would make replicas differ.
#[derive(Debug, Error)]
pub enum StateError<E> {
    /// The backend failed.
    #[error(transparent)]
    Tables(E),
    /// A row is not what this code writes: the file is damaged or from a newer version.
    #[error("damaged row in table {}", .0.name())]
    Corrupt(TableId),
    /// An entry arrived out of order.
    #[error("entry {revision} follows {applied}")]
    OutOfOrder {
        /// The newest entry applied.
        applied: Revision,
        /// The entry that came.
        revision: Revision,
    },
}

/// Why a read has no answer.
#[derive(Debug, Error)]
pub enum ReadError<E> {
    /// The store failed.
    #[error(transparent)]
    State(#[from] StateError<E>),
    /// The revision is no longer kept.
    #[error("the revision is no longer kept; the oldest that is kept is {oldest}")]
    Compacted {
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// This replica has not reached the revision.
    #[error("the revision is not reached yet; the newest is {newest}")]
    NotReached {
        /// The newest revision of this replica.
        newest: Revision,
    },
    /// The continuation token is damaged or belongs to another scan.
    #[error("the continuation token is damaged or belongs to another scan")]
    InvalidToken,
    /// The answer would be too large.
    #[error("the values have more than {limit} bytes together; ask for fewer keys")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The named lease does not exist.
    #[error("the lease does not exist or has ended")]
    NoLease,
}

impl<E: core::error::Error + 'static> From<ReadError<E>> for ApiError {
    /// The text of a failing backend stays inside; it can name files.
    fn from(error: ReadError<E>) -> Self {
        let code = match &error {
            ReadError::State(_) => {
                return Self::new(ErrorCode::InternalError, "the node's store failed");
            }
            ReadError::Compacted { .. } => ErrorCode::Compacted,
            ReadError::NotReached { .. } => ErrorCode::ServiceUnavailable,
            ReadError::InvalidToken => ErrorCode::InvalidToken,
            ReadError::TooLarge { .. } => ErrorCode::TooLarge,
            ReadError::NoLease => ErrorCode::NotFound,
        };
        Self::new(code, error.to_string())
    }
}
