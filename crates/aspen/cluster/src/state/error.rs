//! Why the state's storage fails: the medium, damage, or a format of another version.

use std::io;

use aspen_api::Level;
use aspen_kv::StateError;
use aspen_kv::snapshot::RestoreError;
use thiserror::Error;

/// Why the state cannot be opened, read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The medium failed.
    #[error("state storage failed: {0}")]
    Io(#[from] io::Error),
    /// The file is not what this program wrote. The node must not serve with it: remove its data
    /// folder and let it join again, or restore the folder.
    #[error("the state file is damaged: {0}")]
    Damaged(String),
    /// The state, or an entry of the log, needs a newer program. Nothing of it was applied.
    #[error(
        "{what} needs feature level {level}, and this program, version {version}, understands level \
         {top}: start the version that the other members run",
        version = env!("CARGO_PKG_VERSION")
    )]
    TooNew {
        /// The state or the entry.
        what: String,
        /// The level that it needs.
        level: Level,
        /// The highest level that this program understands.
        top: Level,
    },
    /// The file was written by another version of the storage library.
    #[error("the state file has format {0}, which this build does not read")]
    Version(u8),
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::UpgradeRequired(version) => Self::Version(version),
            other => Self::Damaged(other.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => { $(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )* };
}

from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::CommitError,
    redb::StorageError,
    redb::SetDurabilityError
);

impl From<StateError<redb::Error>> for StoreError {
    fn from(error: StateError<redb::Error>) -> Self {
        match error {
            StateError::Tables(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<RestoreError<redb::Error>> for StoreError {
    fn from(error: RestoreError<redb::Error>) -> Self {
        match error {
            RestoreError::State(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl StoreError {
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}
