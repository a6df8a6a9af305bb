//! Key-value requests and results.
//!
//! A value travels as bytes on every path. Absence is data (`None`), never an error; a failed
//! comparison is data too. What went wrong on the way is [`crate::ApiError`].

use bytes::Bytes;
use net_types::limits::{
    MAX_BATCH_OPERATIONS, MAX_CONTINUATION_TOKEN_BYTES, MAX_SCAN_LIMIT, MAX_VALUE_BYTES,
};

use crate::{Key, LeaseId, Prefix, Revision};
use crate::{choice, numbers, record};

numbers! {
    /// How fresh a read must be.
    #[derive(Default)]
    pub enum Consistency {
        /// The leader confirms its leadership with a quorum, then reads.
        #[default]
        Linearizable = 0,
        /// The leader reads inside its lease, without asking.
        Lease = 1,
        /// Any node reads what it has applied.
        Stale = 2,
    }
}

choice! {
    /// How long a written value lives.
    pub enum Lifetime {
        /// Until it is overwritten or deleted.
        Forever {} = 0,
        /// Until this much log time has passed, at least 1 ms and at most ten years.
        Ttl {
            /// Milliseconds from the log entry that writes it.
            ttl_ms: u64,
        } = 1,
        /// As long as a lease, which must exist.
        Lease {
            /// The lease.
            lease_id: LeaseId,
        } = 2,
    }

    /// One change of a batch or transaction.
    pub enum WriteOperation {
        /// Sets a value. Its lifetime replaces the one the key had.
        Set {
            /// The key.
            key: Key,
            /// The value, at most 1 MiB; empty is a value.
            value: Bytes [MAX_VALUE_BYTES],
            /// How long it lives.
            lifetime: Lifetime,
        } = 1,
        /// Removes a key; an absent one is no error.
        Delete {
            /// The key.
            key: Key,
        } = 2,
    }

    /// A condition of a conditional batch.
    pub enum Condition {
        /// The key has exactly this value.
        ValueEquals {
            /// The key.
            key: Key,
            /// The value.
            value: Bytes [MAX_VALUE_BYTES],
        } = 1,
        /// The key is present.
        KeyExists {
            /// The key.
            key: Key,
        } = 2,
        /// The key is absent.
        KeyNotExists {
            /// The key.
            key: Key,
        } = 3,
    }

    /// What of a key a transaction compares, and with what.
    ///
    /// An absent key has version and revisions 0 and no value: a comparison with its value is
    /// false, whatever the relation.
    pub enum CompareTarget {
        /// The value.
        Value {
            /// Compared as bytes.
            value: Bytes [MAX_VALUE_BYTES],
        } = 1,
        /// How often the key was written since it was created.
        Version {
            /// The version.
            version: u64,
        } = 2,
        /// The revision that created the key.
        CreateRevision {
            /// The revision.
            revision: Revision,
        } = 3,
        /// The revision that last wrote the key.
        ModRevision {
            /// The revision.
            revision: Revision,
        } = 4,
        /// Whether the key is present. Use with [`Relation::Equal`] or [`Relation::NotEqual`]; the
        /// order is absent before present.
        Exists {
            /// Presence.
            exists: bool,
        } = 5,
    }

    /// One step of a transaction branch. Steps see the effects of those before them.
    pub enum TransactionOperation {
        /// A change.
        Write {
            /// The change.
            operation: WriteOperation,
        } = 1,
        /// A read. A transaction's reads return at most 64 KiB of values together.
        Read {
            /// The key.
            key: Key,
        } = 2,
    }

    /// What one step of a transaction did.
    pub enum TransactionOutcome {
        /// The value was set.
        Set {} = 1,
        /// The key was deleted or was not there.
        Deleted {
            /// Whether it was there.
            was_deleted: bool,
        } = 2,
        /// What was read.
        Read {
            /// The value, absent if the key was.
            item: Option<Item>,
        } = 3,
    }
}

numbers! {
    /// How a transaction relates what a key has (left) to what it names (right).
    pub enum Relation {
        /// Equal.
        Equal = 1,
        /// Not equal.
        NotEqual = 2,
        /// Left greater than right.
        Greater = 3,
        /// Left less than right.
        Less = 4,
    }
}

record! {
    /// A value and where it stands in history.
    pub struct Item {
        /// The bytes.
        pub value: Bytes [MAX_VALUE_BYTES],
        /// Writes since the key was created, the creation being 1.
        pub version: u64,
        /// The log index that created the key.
        pub create_revision: Revision,
        /// The log index that wrote this value.
        pub mod_revision: Revision,
        /// The log time, in Unix milliseconds, from which the value is gone.
        pub expires_at_ms: Option<u64>,
        /// The lease that the value lives with.
        pub lease_id: Option<LeaseId>,
    }

    /// An item with its key.
    pub struct KeyValue {
        /// The key.
        pub key: Key,
        /// What it holds.
        pub item: Item,
    }

    /// One comparison of a transaction.
    pub struct Compare {
        /// The key.
        pub key: Key,
        /// How the two sides relate.
        pub relation: Relation,
        /// The right side.
        pub target: CompareTarget,
    }

    /// Reads one key.
    pub struct ReadKey {
        /// The key.
        pub key: Key,
        /// How fresh the answer must be.
        pub consistency: Consistency,
        /// The revision to read; absent reads the newest.
        pub revision: Option<Revision>,
    }

    /// The answer to [`ReadKey`].
    pub struct ReadResult {
        /// The item; absent if the key is.
        pub item: Option<Item>,
        /// The revision that was read.
        pub revision: Revision,
    }

    /// Sets a key, clearing TTL and lease.
    pub struct WriteKey {
        /// The key.
        pub key: Key,
        /// The value, at most 1 MiB.
        pub value: Bytes [MAX_VALUE_BYTES],
    }

    /// Sets a key that expires by log time.
    pub struct WriteKeyWithTtl {
        /// The key.
        pub key: Key,
        /// The value, at most 1 MiB.
        pub value: Bytes [MAX_VALUE_BYTES],
        /// Milliseconds to live, 1 to ten years.
        pub ttl_ms: u64,
    }

    /// Sets a key that lives with a lease; `NOT_FOUND` if the lease does not exist.
    pub struct WriteKeyWithLease {
        /// The key.
        pub key: Key,
        /// The value, at most 1 MiB.
        pub value: Bytes [MAX_VALUE_BYTES],
        /// The lease.
        pub lease_id: LeaseId,
    }

    /// The answer to a write.
    pub struct WriteResult {
        /// The revision of the write.
        pub revision: Revision,
    }

    /// Deletes a key.
    pub struct DeleteKey {
        /// The key.
        pub key: Key,
    }

    /// The answer to [`DeleteKey`]; deleting an absent key succeeds.
    pub struct DeleteResult {
        /// Whether the key was there.
        pub was_deleted: bool,
        /// The revision after the request.
        pub revision: Revision,
    }

    /// Lists keys that start with a prefix, in byte order, page by page.
    ///
    /// All pages of a scan show the revision of the first one.
    pub struct ScanKeys {
        /// The prefix; empty for all keys.
        pub prefix: Prefix,
        /// Entries of the page, at most 10,000; absent means 1,000. A page may end early by bytes.
        pub limit: Option<u32>,
        /// Where the page before ended.
        pub continuation_token: Option<Bytes> [MAX_CONTINUATION_TOKEN_BYTES],
        /// How fresh the answer must be.
        pub consistency: Consistency,
        /// The revision to scan; absent scans the newest. A token brings its own.
        pub revision: Option<Revision>,
    }

    /// One page of a scan. It is cut short exactly if it has a continuation token.
    pub struct ScanResult {
        /// The entries, ascending.
        pub entries: Vec<KeyValue> [MAX_SCAN_LIMIT as usize],
        /// Where to go on; absent on the last page.
        pub continuation_token: Option<Bytes> [MAX_CONTINUATION_TOKEN_BYTES],
        /// The revision that was scanned.
        pub revision: Revision,
    }

    /// Replaces a value if it is what the caller expects.
    pub struct CompareAndSwapKey {
        /// The key.
        pub key: Key,
        /// The value it must have; absent means that the key must be absent.
        pub expected: Option<Bytes> [MAX_VALUE_BYTES],
        /// The value to set, without TTL or lease.
        pub new_value: Bytes [MAX_VALUE_BYTES],
    }

    /// Deletes a key if it holds what the caller expects.
    pub struct CompareAndDeleteKey {
        /// The key.
        pub key: Key,
        /// The value it must have.
        pub expected: Bytes [MAX_VALUE_BYTES],
    }

    /// The answer to a compare-and-swap or compare-and-delete.
    pub struct CompareAndSwapResult {
        /// Whether the value matched and the change was made.
        pub is_success: bool,
        /// After a mismatch, the value the key has; absent if the key is.
        pub actual_value: Option<Bytes> [MAX_VALUE_BYTES],
        /// The revision after the request.
        pub revision: Revision,
    }

    /// Reads several keys at one revision.
    pub struct BatchRead {
        /// The keys, at most 100.
        pub keys: Vec<Key> [MAX_BATCH_OPERATIONS],
        /// How fresh the answer must be.
        pub consistency: Consistency,
        /// The revision to read; absent reads the newest.
        pub revision: Option<Revision>,
    }

    /// The answer to [`BatchRead`].
    pub struct BatchReadResult {
        /// One element for each requested key, in its order.
        pub items: Vec<Option<Item>> [MAX_BATCH_OPERATIONS],
        /// The revision that was read.
        pub revision: Revision,
    }

    /// Makes several changes in order, all or none.
    pub struct BatchWrite {
        /// The changes, at most 100 and 8 MiB.
        pub operations: Vec<WriteOperation> [MAX_BATCH_OPERATIONS],
    }

    /// The answer to [`BatchWrite`].
    pub struct BatchWriteResult {
        /// Changes made: all of them.
        pub operations_applied: u32,
        /// The revision of the batch.
        pub revision: Revision,
    }

    /// Makes several changes if all conditions hold, judged in the same log entry.
    pub struct ConditionalBatchWrite {
        /// The conditions, at most 100.
        pub conditions: Vec<Condition> [MAX_BATCH_OPERATIONS],
        /// The changes, at most 100.
        pub operations: Vec<WriteOperation> [MAX_BATCH_OPERATIONS],
    }
}

numbers! {
    /// Why a condition did not hold.
    pub enum ConditionFailure {
        /// The key is present with another value.
        ValueDiffers = 1,
        /// The key is absent.
        KeyMissing = 2,
        /// The key is present.
        KeyPresent = 3,
    }
}

record! {
    /// The answer to [`ConditionalBatchWrite`].
    pub struct ConditionalBatchWriteResult {
        /// Whether all conditions held.
        pub conditions_met: bool,
        /// Changes made: all or none.
        pub operations_applied: u32,
        /// The first condition that did not hold.
        pub failed_condition_index: Option<u32>,
        /// Why it did not.
        pub failed_condition_reason: Option<ConditionFailure>,
        /// The revision after the request.
        pub revision: Revision,
    }

    /// If all comparisons hold the steps of `then`, otherwise those of `otherwise`, atomically.
    pub struct Transact {
        /// The comparisons, at most 100; none means that they hold.
        pub compares: Vec<Compare> [MAX_BATCH_OPERATIONS],
        /// Steps if they hold, at most 100.
        pub then: Vec<TransactionOperation> [MAX_BATCH_OPERATIONS],
        /// Steps if they do not, at most 100.
        pub otherwise: Vec<TransactionOperation> [MAX_BATCH_OPERATIONS],
    }

    /// The answer to [`Transact`].
    pub struct TransactResult {
        /// Whether the comparisons held.
        pub is_success: bool,
        /// One outcome for each step of the branch that ran.
        pub outcomes: Vec<TransactionOutcome> [MAX_BATCH_OPERATIONS],
        /// The revision after the request.
        pub revision: Revision,
    }

    /// Gives up the history before a revision. Repeating it, or naming an older one, is no error.
    pub struct Compact {
        /// The oldest revision that stays readable; not above the newest.
        pub revision: Revision,
    }

    /// The answer to [`Compact`].
    pub struct CompactResult {
        /// The oldest revision that is readable now.
        pub oldest_revision: Revision,
    }
}

impl ReadKey {
    /// A linearizable read of the newest value.
    pub fn newest(key: Key) -> Self {
        Self { key, consistency: Consistency::Linearizable, revision: None }
    }
}

impl ScanKeys {
    /// The first page of a linearizable scan with the default limit.
    pub fn newest(prefix: Prefix) -> Self {
        Self {
            prefix,
            limit: None,
            continuation_token: None,
            consistency: Consistency::Linearizable,
            revision: None,
        }
    }
}

impl ScanResult {
    /// Whether there are more entries than this page shows.
    pub fn is_truncated(&self) -> bool {
        self.continuation_token.is_some()
    }
}

impl WriteOperation {
    /// The key that changes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Set { key, .. } | Self::Delete { key } => key,
        }
    }

    /// A set without TTL or lease.
    pub fn set(key: Key, value: impl Into<Bytes>) -> Self {
        Self::Set { key, value: value.into(), lifetime: Lifetime::Forever {} }
    }
}

impl Condition {
    /// The key that is judged.
    pub fn key(&self) -> &Key {
        match self {
            Self::ValueEquals { key, .. }
            | Self::KeyExists { key }
            | Self::KeyNotExists { key } => key,
        }
    }
}

impl TransactionOperation {
    /// The key that is read or changes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Write { operation } => operation.key(),
            Self::Read { key } => key,
        }
    }
}
