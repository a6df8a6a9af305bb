//! Key-value requests and results.
//!
//! A value travels as bytes on every path. Absence is data (`None`), never an error; a failed
//! comparison is data too. What went wrong on the way is [`crate::ApiError`].

use bytes::Bytes;
use net_types::limits::{
    MAX_BATCH_OPERATIONS, MAX_CONTINUATION_TOKEN_BYTES, MAX_SCAN_LIMIT, MAX_VALUE_BYTES,
};

use crate::{Action, Key, Kind, LeaseId, Needs, Over, Prefix, Revision, Right, family};
use crate::{choice, numbers, record, request};

pub use crate::request::Consistency;

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
        /// The value as a decimal number, an absent key as 0. A value that is no number of 64 bits
        /// makes the comparison false, whatever the relation.
        Number {
            /// The number's distance from 0.
            magnitude: u64,
            /// Whether it is below 0.
            is_negative: bool,
        } = 6,
    }

    /// One step of a transaction branch. Steps see the effects of those before them.
    pub enum TransactionOperation {
        /// A change.
        Write {
            /// The change.
            operation: WriteOperation,
        } = 1,
        /// A read. The reads of a transaction return at most 1 MiB and 64 KiB of values together.
        Read {
            /// The key.
            key: Key,
        } = 2,
        /// Adds to a decimal number, an absent key being 0, and stops at the ends of its range. The
        /// lifetime of the key stays. A value that is no number of the range refuses the whole
        /// transaction as `CONFLICT`.
        Add {
            /// The key.
            key: Key,
            /// How much.
            amount: u64,
            /// Whether it is subtracted.
            is_subtraction: bool,
            /// The range.
            range: NumberRange,
        } = 3,
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
        /// The number was added to.
        Added {
            /// The new number's distance from 0.
            magnitude: u64,
            /// Whether it is below 0.
            is_negative: bool,
        } = 4,
        /// What was read is no longer known: the answer to a repeated request leaves out values that
        /// are large. Read the key at the revision of the answer.
        NotKept {} = 5,
    }
}

numbers! {
    /// The numbers that [`TransactionOperation::Add`] stays within.
    pub enum NumberRange {
        /// 0 to 2^64 - 1.
        Unsigned = 1,
        /// -2^63 to 2^63 - 1.
        Signed = 2,
    }

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

    /// The answer to [`ReadKey`].
    pub struct ReadResult {
        /// The item; absent if the key is.
        pub item: Option<Item>,
        /// The revision that was read.
        pub revision: Revision,
    }

    /// One page of a scan. It is cut short exactly if it has a continuation token.
    pub struct ScanResult {
        /// The entries, ascending.
        pub entries: Vec<KeyValue> [MAX_SCAN_LIMIT as usize],
        /// Where the next page starts; absent on the last page.
        pub continuation_token: Option<Bytes> [MAX_CONTINUATION_TOKEN_BYTES],
        /// The revision that was scanned.
        pub revision: Revision,
    }

    /// The answer to [`CountKeys`].
    pub struct CountResult {
        /// The keys of the page.
        pub count: u64,
        /// Where the next page starts; absent on the last page.
        pub continuation_token: Option<Bytes> [MAX_CONTINUATION_TOKEN_BYTES],
        /// The revision that was counted.
        pub revision: Revision,
    }

    /// The answer to [`BatchRead`].
    pub struct BatchReadResult {
        /// One element for each requested key, in its order.
        pub items: Vec<Option<Item>> [MAX_BATCH_OPERATIONS],
        /// The revision that was read.
        pub revision: Revision,
    }

    /// The answer to [`Transact`].
    pub struct TransactResult {
        /// The first comparison that did not hold; absent if all held, and so `then` ran.
        pub failed_compare: Option<u32>,
        /// One outcome for each step of the branch that ran.
        pub outcomes: Vec<TransactionOutcome> [MAX_BATCH_OPERATIONS],
        /// The revision after the request.
        pub revision: Revision,
    }

    /// The answer to [`Compact`].
    pub struct CompactResult {
        /// The oldest revision that is readable now.
        pub oldest_revision: Revision,
    }
}

request! {
    /// Reads one key.
    pub struct ReadKey {
        /// The key.
        pub key: Key,
        /// How fresh the answer must be.
        pub consistency: Consistency,
        /// The revision to read; absent reads the newest.
        pub revision: Option<Revision>,
    }
    number: family::KV, 0;
    reply: ReadResult;
    kind: |read| Kind::Read(read.consistency);
    needs: |read| Needs::right(Action::Read, Over::Key(&read.key));

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
    number: family::KV, 1;
    reply: ScanResult;
    kind: |scan| Kind::Read(scan.consistency);
    needs: |scan| Needs::right(Action::Read, Over::Prefix(&scan.prefix));

    /// Reads several keys at one revision.
    pub struct BatchRead {
        /// The keys, at most 100.
        pub keys: Vec<Key> [MAX_BATCH_OPERATIONS],
        /// How fresh the answer must be.
        pub consistency: Consistency,
        /// The revision to read; absent reads the newest.
        pub revision: Option<Revision>,
    }
    number: family::KV, 2;
    reply: BatchReadResult;
    kind: |read| Kind::Read(read.consistency);
    needs: |read| Needs::Rights(
        read.keys.iter().map(|key| Right { action: Action::Read, over: Over::Key(key) }).collect()
    );

    /// If all comparisons hold the steps of `then`, otherwise those of `otherwise`, atomically.
    pub struct Transact {
        /// The comparisons, at most 100; none means that they hold.
        pub compares: Vec<Compare> [MAX_BATCH_OPERATIONS],
        /// Steps if they hold, at most 100.
        pub then: Vec<TransactionOperation> [MAX_BATCH_OPERATIONS],
        /// Steps if they do not, at most 100.
        pub otherwise: Vec<TransactionOperation> [MAX_BATCH_OPERATIONS],
    }
    number: family::KV, 3;
    reply: TransactResult;
    kind: |_| Kind::Write;
    needs: |transaction| Needs::Rights(transaction.rights());

    /// Gives up the history before a revision. Repeating it, or naming an older one, is no error.
    pub struct Compact {
        /// The oldest revision that stays readable; not above the newest.
        pub revision: Revision,
    }
    number: family::KV, 4;
    reply: CompactResult;
    kind: |_| Kind::Write;
    needs: |_| Needs::Admin("compact the history");

    /// Counts keys that start with a prefix, page by page; the sum of the pages is the count.
    ///
    /// All pages show the revision of the first one. A page ends where looking at more keys would
    /// hold up the node.
    pub struct CountKeys {
        /// The prefix; empty for all keys.
        pub prefix: Prefix,
        /// Where the page before ended.
        pub continuation_token: Option<Bytes> [MAX_CONTINUATION_TOKEN_BYTES],
        /// How fresh the answer must be.
        pub consistency: Consistency,
        /// The revision to count; absent counts the newest. A token brings its own.
        pub revision: Option<Revision>,
    }
    number: family::KV, 5;
    reply: CountResult;
    kind: |count| Kind::Read(count.consistency);
    needs: |count| Needs::right(Action::Read, Over::Prefix(&count.prefix));
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

    fn action(&self) -> Action {
        match self {
            Self::Set { .. } => Action::Write,
            Self::Delete { .. } => Action::Delete,
        }
    }
}

impl TransactionOperation {
    /// The key that is read or changes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Write { operation } => operation.key(),
            Self::Read { key } | Self::Add { key, .. } => key,
        }
    }
}

impl From<WriteOperation> for TransactionOperation {
    fn from(operation: WriteOperation) -> Self {
        Self::Write { operation }
    }
}

impl Compare {
    /// Holds if the key has this value; without a value, if it is absent.
    pub fn value(key: Key, expected: Option<Bytes>) -> Self {
        let target = match expected {
            Some(value) => CompareTarget::Value { value },
            None => CompareTarget::Exists { exists: false },
        };
        Self { key, relation: Relation::Equal, target }
    }
}

impl Transact {
    /// Makes changes, whatever the store holds.
    pub fn always(operations: impl IntoIterator<Item = impl Into<TransactionOperation>>) -> Self {
        let then = operations.into_iter().map(Into::into).collect();
        Self { compares: Vec::new(), then, otherwise: Vec::new() }
    }

    /// What it reads, compares and changes, in both branches. Adding to a number tells the number.
    fn rights(&self) -> Vec<Right<'_>> {
        let right = |action, key| Right { action, over: Over::Key(key) };
        let mut rights: Vec<_> =
            self.compares.iter().map(|compare| right(Action::Read, &compare.key)).collect();
        for step in self.then.iter().chain(&self.otherwise) {
            match step {
                TransactionOperation::Write { operation } => {
                    rights.push(right(operation.action(), operation.key()));
                }
                TransactionOperation::Read { key } => rights.push(right(Action::Read, key)),
                TransactionOperation::Add { key, .. } => {
                    rights.push(right(Action::Read, key));
                    rights.push(right(Action::Write, key));
                }
            }
        }
        rights
    }
}

impl TransactResult {
    /// Whether the comparisons held.
    pub fn is_success(&self) -> bool {
        self.failed_compare.is_none()
    }
}
