//! What stands in the log: one command for one entry, with its stamp, its level and its request id.
//!
//! The set of commands is closed. Services build on transactions and leases; they add none.
//!
//! The encoding is part of the log's format. Numbers are never reused; a change of a body is a new
//! number, at a new feature level.
//!
//! ```text
//! proposal  version u8 = 1 · feature level LEB128 · log time LEB128 ms
//!           · request id (0, or 1 and client [16] · counter LEB128 · since LEB128)
//!           · command number u8 · body
//! ```
//!
//! The level stands before everything that depends on it, so a node that does not understand it
//! says so instead of misreading the rest.

use aspen_api::codec::{DecodeError, Input, Wire, put_varint, within};
use aspen_api::kv::{Compact, Lifetime, Transact, TransactionOperation, WriteOperation};
use aspen_api::lease::{LeaseGrant, LeaseKeepalive, LeaseRevoke};
use aspen_api::{ApiError, Level, Request, RequestId, choice};
use bytes::Bytes;
use net_types::limits::MAX_COMMAND_BYTES;
use thiserror::Error;

use crate::Reply;

const PROPOSAL_VERSION: u8 = 1;

choice! {
    /// A change of the store, as it stands in the log.
    pub enum Command {
        /// Runs a transaction.
        Transact {
            /// Comparisons and branches.
            request: Transact,
        } = 1,
        /// Grants a lease.
        LeaseGrant {
            /// Its id and time to live.
            request: LeaseGrant,
        } = 2,
        /// Ends a lease and its keys.
        LeaseRevoke {
            /// The lease.
            request: LeaseRevoke,
        } = 3,
        /// Renews a lease.
        LeaseKeepalive {
            /// The lease.
            request: LeaseKeepalive,
        } = 4,
        /// Gives up the history before a revision.
        Compact {
            /// The oldest revision to keep.
            request: Compact,
        } = 5,
        /// Raises the feature level of the cluster.
        Step {
            /// The new level.
            level: Level,
        } = 6,
        /// Moves log time and removes a bounded number of expired keys and compacted versions.
        Tick {} = 7,
    }
}

/// A request that one command carries out.
pub trait Mutation: Request {
    /// The command.
    fn into_command(self) -> Command;

    /// The reply to the request in the reply to the command.
    fn reply(reply: Reply) -> Option<Self::Reply>;
}

macro_rules! mutations {
    ($($request:ident),*) => { $(
        impl Mutation for $request {
            fn into_command(self) -> Command {
                Command::$request { request: self }
            }

            fn reply(reply: Reply) -> Option<Self::Reply> {
                match reply {
                    Reply::$request { result } => Some(result),
                    _ => None,
                }
            }
        }
    )* };
}

mutations!(Transact, LeaseGrant, LeaseRevoke, LeaseKeepalive, Compact);

impl Command {
    /// Checks a command before it is proposed: every limit of the log's format, and the size that
    /// one append to a follower carries.
    pub fn admit(&self) -> Result<(), ApiError> {
        self.check()?;
        within("command", self.size_hint(), MAX_COMMAND_BYTES)?;
        Ok(())
    }

    /// The feature level that every member needs to read it.
    pub fn level(&self) -> Level {
        match self {
            Self::Step { level } => *level,
            Self::Transact { .. }
            | Self::LeaseGrant { .. }
            | Self::LeaseRevoke { .. }
            | Self::LeaseKeepalive { .. }
            | Self::Compact { .. }
            | Self::Tick {} => Level::FIRST,
        }
    }

    /// Whether it may give something a deadline.
    pub fn brings_deadline(&self) -> bool {
        match self {
            Self::Transact { request } => {
                request.then.iter().chain(&request.otherwise).any(|step| match step {
                    TransactionOperation::Write {
                        operation: WriteOperation::Set { lifetime, .. },
                    } => !matches!(lifetime, Lifetime::Forever {}),
                    TransactionOperation::Write { operation: WriteOperation::Delete { .. } }
                    | TransactionOperation::Read { .. }
                    | TransactionOperation::Add { .. } => false,
                })
            }
            Self::LeaseGrant { .. } | Self::LeaseKeepalive { .. } => true,
            Self::LeaseRevoke { .. } | Self::Compact { .. } | Self::Step { .. } | Self::Tick {} => {
                false
            }
        }
    }
}

/// Why the content of a log entry cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProposalError {
    /// It needs a newer program.
    #[error("it needs feature level {level}, and this program understands {top}")]
    TooNew {
        /// The entry's level.
        level: Level,
        /// The highest level that the reader understands.
        top: Level,
    },
    /// It cannot be decoded.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

/// The content of one log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The leader's log time when it proposed, in Unix milliseconds.
    pub log_time_ms: u64,
    /// The id of the write; `None` if it need not be de-duplicated.
    pub request_id: Option<RequestId>,
    /// What to do.
    pub command: Command,
}

impl Proposal {
    /// The encoding.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(40 + self.command.size_hint());
        out.push(PROPOSAL_VERSION);
        self.command.level().put(&mut out);
        put_varint(self.log_time_ms, &mut out);
        self.request_id.put(&mut out);
        self.command.put(&mut out);
        out.into()
    }

    /// Reads a proposal that a program which understands levels up to `top` can carry out.
    pub fn decode(bytes: Bytes, top: Level) -> Result<Self, ProposalError> {
        let mut input = Input::new(bytes);
        match input.u8()? {
            PROPOSAL_VERSION => {}
            other => return Err(DecodeError::UnknownVersion(other).into()),
        }
        let level = Level::take(&mut input)?;
        if level > top {
            return Err(ProposalError::TooNew { level, top });
        }
        let proposal = Self {
            log_time_ms: u64::take(&mut input)?,
            request_id: <Option<RequestId> as Wire>::take(&mut input)?.and_then(RequestId::some),
            command: Command::take(&mut input)?,
        };
        input.finish()?;
        match proposal.command.level() == level {
            true => Ok(proposal),
            false => Err(DecodeError::BadValue("feature level").into()),
        }
    }
}
