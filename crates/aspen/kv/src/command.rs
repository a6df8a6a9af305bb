//! What stands in the log: one command for one entry, with its stamp and its name.
//!
//! The encoding is part of the log's format. Numbers are never reused; a change of a body is a new
//! number.
//!
//! ```text
//! proposal  version u8 = 1 · log time LEB128 ms · request id (0, or 1 and client [16]
//!           · counter LEB128 · since LEB128) · command number u8 · body
//! ```

use aspen_api::codec::{DecodeError, Input, Wire, put_varint, within};
use aspen_api::kv::{ConditionalBatchWrite, Lifetime, Transact, WriteOperation};
use aspen_api::{ApiError, Key, LeaseId, Request, RequestId, Revision, choice};
use bytes::Bytes;
use net_types::limits::{MAX_BATCH_OPERATIONS, MAX_COMMAND_BYTES, MAX_VALUE_BYTES};

const PROPOSAL_VERSION: u8 = 1;

choice! {
    /// A change of the store, as it stands in the log.
    pub enum Command {
        /// Sets a key.
        Set {
            /// The key.
            key: Key,
            /// The value.
            value: Bytes [MAX_VALUE_BYTES],
            /// How long it lives.
            lifetime: Lifetime,
        } = 1,
        /// Deletes a key.
        Delete {
            /// The key.
            key: Key,
        } = 2,
        /// Replaces a value if it is the expected one.
        CompareAndSwap {
            /// The key.
            key: Key,
            /// The expected value; absent if the key must be.
            expected: Option<Bytes> [MAX_VALUE_BYTES],
            /// The new value.
            new_value: Bytes [MAX_VALUE_BYTES],
        } = 3,
        /// Deletes a key if it has the expected value.
        CompareAndDelete {
            /// The key.
            key: Key,
            /// The expected value.
            expected: Bytes [MAX_VALUE_BYTES],
        } = 4,
        /// Makes several changes, all or none.
        BatchWrite {
            /// The changes, in order.
            operations: Vec<WriteOperation> [MAX_BATCH_OPERATIONS],
        } = 5,
        /// Makes several changes if all conditions hold.
        ConditionalBatchWrite {
            /// Conditions and changes.
            batch: ConditionalBatchWrite,
        } = 6,
        /// Runs a transaction.
        Transact {
            /// Comparisons and branches.
            transaction: Transact,
        } = 7,
        /// Gives up the history before a revision.
        Compact {
            /// The oldest revision to keep.
            revision: Revision,
        } = 8,
        /// Grants a lease.
        LeaseGrant {
            /// The id wanted; absent or 0 generates one.
            lease_id: Option<LeaseId>,
            /// Seconds to live.
            ttl_seconds: u64,
        } = 9,
        /// Ends a lease and its keys.
        LeaseRevoke {
            /// The lease.
            lease_id: LeaseId,
        } = 10,
        /// Starts a lease's time anew.
        LeaseKeepalive {
            /// The lease.
            lease_id: LeaseId,
        } = 11,
        /// Moves log time and removes a bounded number of expired keys and compacted versions.
        Tick {} = 12,
    }
}

impl Command {
    /// Checks a command before it is proposed: every limit of the log's format, and the size that
    /// one append to a follower carries.
    pub fn admit(&self) -> Result<(), ApiError> {
        self.check()?;
        within("command", self.size_hint(), MAX_COMMAND_BYTES)?;
        Ok(())
    }

    /// The command that carries out a request, or the request back if it changes nothing in the
    /// store: a read or a matter of the cluster.
    pub fn from_request(request: Request) -> Result<Self, Request> {
        Ok(match request {
            Request::WriteKey(r) => {
                Self::Set { key: r.key, value: r.value, lifetime: Lifetime::Forever {} }
            }
            Request::WriteKeyWithTtl(r) => {
                let lifetime = Lifetime::Ttl { ttl_ms: r.ttl_ms };
                Self::Set { key: r.key, value: r.value, lifetime }
            }
            Request::WriteKeyWithLease(r) => {
                let lifetime = Lifetime::Lease { lease_id: r.lease_id };
                Self::Set { key: r.key, value: r.value, lifetime }
            }
            Request::DeleteKey(r) => Self::Delete { key: r.key },
            Request::CompareAndSwapKey(r) => {
                Self::CompareAndSwap { key: r.key, expected: r.expected, new_value: r.new_value }
            }
            Request::CompareAndDeleteKey(r) => {
                Self::CompareAndDelete { key: r.key, expected: r.expected }
            }
            Request::BatchWrite(r) => Self::BatchWrite { operations: r.operations },
            Request::ConditionalBatchWrite(batch) => Self::ConditionalBatchWrite { batch },
            Request::Transact(transaction) => Self::Transact { transaction },
            Request::Compact(r) => Self::Compact { revision: r.revision },
            Request::LeaseGrant(r) => {
                Self::LeaseGrant { lease_id: r.lease_id, ttl_seconds: r.ttl_seconds }
            }
            Request::LeaseRevoke(r) => Self::LeaseRevoke { lease_id: r.lease_id },
            Request::LeaseKeepalive(r) => Self::LeaseKeepalive { lease_id: r.lease_id },
            other => return Err(other),
        })
    }
}

/// The content of one log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The leader's log time when it proposed, in Unix milliseconds.
    pub log_time_ms: u64,
    /// The name of the write; `None` if it need not be de-duplicated.
    pub request_id: Option<RequestId>,
    /// What to do.
    pub command: Command,
}

impl Wire for Proposal {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(PROPOSAL_VERSION);
        put_varint(self.log_time_ms, out);
        self.request_id.put(out);
        self.command.put(out);
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        match input.byte()? {
            PROPOSAL_VERSION => {}
            other => return Err(DecodeError::UnknownVersion(other)),
        }
        Ok(Self {
            log_time_ms: u64::take(input)?,
            request_id: <Option<RequestId> as Wire>::take(input)?.and_then(RequestId::named),
            command: Command::take(input)?,
        })
    }

    fn check(&self) -> Result<(), DecodeError> {
        self.command.check()
    }

    fn size_hint(&self) -> usize {
        36 + self.command.size_hint()
    }
}
