//! Why the log cannot be opened, read or written. The variants tell damage, which needs an
//! operator, from a failed medium, which a restart may cure.

use std::io;

use net_wire::DecodeError;
use thiserror::Error;

/// Why the log cannot be opened, read or written.
#[derive(Debug, Error)]
pub enum LogError {
    /// The medium failed or is full. The log takes no more writes until it is opened again.
    #[error("log storage failed: {0}")]
    Io(#[from] io::Error),
    /// Durable bytes differ from what was written. The node must not vote with this log: restore
    /// the folder, or remove the node from the cluster and let it join empty.
    #[error("log is corrupt at segment {sequence:016x}, byte {offset}: {what}")]
    Corrupt {
        /// Segment.
        sequence: u64,
        /// Byte in the segment.
        offset: u64,
        /// What was found.
        what: &'static str,
    },
    /// The first bytes of a segment are not a header that this build reads.
    #[error("log segment {sequence:016x} has a bad header: {reason}")]
    BadSegmentHeader {
        /// Segment.
        sequence: u64,
        /// What was found.
        reason: DecodeError,
    },
    /// The log belongs to another node.
    #[error("the log belongs to another node")]
    Foreign,
    /// An entry does not follow the last one; a bug of the caller.
    #[error("entry {found} appended where {expected} must follow")]
    Gap {
        /// The index that must follow.
        expected: u64,
        /// The index given.
        found: u64,
    },
    /// An earlier write failed; what is durable is unknown until the log is opened again.
    #[error("log is closed after a failed write")]
    Closed,
}

impl LogError {
    /// The error as an `io::Error`; damage has the kind `InvalidData`.
    pub fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            Self::Corrupt { .. } | Self::BadSegmentHeader { .. } | Self::Foreign => {
                io::Error::new(io::ErrorKind::InvalidData, self)
            }
            Self::Gap { .. } | Self::Closed => io::Error::other(self),
        }
    }
}
