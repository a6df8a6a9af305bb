//! The replicated store as services, clients and tests hold it.

use core::future::Future;

use bytes::Bytes;

use crate::kv::{
    BatchRead, BatchReadResult, Compare, Consistency, Lifetime, ReadKey, ReadResult, ScanKeys,
    ScanResult, Transact, TransactResult, TransactionOperation, TransactionOutcome, WriteOperation,
};
use crate::lease::{
    LeaseGrant, LeaseGrantResult, LeaseKeepalive, LeaseKeepaliveResult, LeaseList, LeaseListResult,
    LeaseRevoke, LeaseRevokeResult, LeaseTimeToLive, LeaseTimeToLiveResult,
};
use crate::{ApiError, ErrorCode, Key, RequestId, Revision};

/// What a set or a batch of changes did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteResult {
    /// The revision of the write.
    pub revision: Revision,
}

/// What a deletion did; deleting an absent key succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteResult {
    /// Whether the key was there.
    pub was_deleted: bool,
    /// The revision after the request.
    pub revision: Revision,
}

/// What a compare-and-swap or compare-and-delete did. A mismatch is data, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompareAndSwapResult {
    /// Whether the value was the expected one, and so was replaced.
    pub is_success: bool,
    /// After a mismatch, the value that was found; absent if the key was.
    pub actual_value: Option<Bytes>,
    /// The revision after the request.
    pub revision: Revision,
}

/// A future answer of a store.
pub trait Answer<T>: Future<Output = Result<T, ApiError>> + Send {}

impl<T, F: Future<Output = Result<T, ApiError>> + Send> Answer<T> for F {}

/// The replicated store.
///
/// A service is written over `S: KeyValueStore` and runs in a test over memory, in a node over
/// consensus and in a program over the network. `TIMEOUT`, `SESSION_EXPIRED` and `INTERNAL_ERROR`
/// leave open whether a write happened; every other error means that it did not and will not.
pub trait KeyValueStore: Send + Sync + 'static {
    /// Reads one key.
    fn read(&self, read: ReadKey) -> impl Answer<ReadResult>;

    /// Reads several keys at one revision.
    fn batch_read(&self, read: BatchRead) -> impl Answer<BatchReadResult>;

    /// Reads one page of a scan.
    fn scan(&self, scan: ScanKeys) -> impl Answer<ScanResult>;

    /// Runs a transaction, at most once for each id, however often it is repeated under it: a
    /// repetition gets the first answer. A store that names its writes itself, as a client does,
    /// uses an id of its own.
    fn transact_once(
        &self,
        id: Option<RequestId>,
        transaction: Transact,
    ) -> impl Answer<TransactResult>;

    /// Grants a lease.
    fn grant_lease(&self, grant: LeaseGrant) -> impl Answer<LeaseGrantResult>;

    /// Ends a lease and its keys.
    fn revoke_lease(&self, revoke: LeaseRevoke) -> impl Answer<LeaseRevokeResult>;

    /// Renews a lease.
    fn keep_lease_alive(&self, keepalive: LeaseKeepalive) -> impl Answer<LeaseKeepaliveResult>;

    /// Tells how long a lease lives.
    fn lease_time_to_live(&self, of: LeaseTimeToLive) -> impl Answer<LeaseTimeToLiveResult>;

    /// Reads one page of the list of leases.
    fn list_leases(&self, list: LeaseList) -> impl Answer<LeaseListResult>;

    /// Runs a transaction.
    fn transact(&self, transaction: Transact) -> impl Answer<TransactResult> {
        self.transact_once(None, transaction)
    }

    /// Reads the newest value, linearizably.
    fn get(&self, key: Key) -> impl Answer<ReadResult> {
        self.read(ReadKey::newest(key))
    }

    /// Reads what the nearest node has applied.
    fn get_local(&self, key: Key) -> impl Answer<ReadResult> {
        self.read(ReadKey { consistency: Consistency::Stale, ..ReadKey::newest(key) })
    }

    /// Makes several changes in order, all or none.
    fn write(&self, operations: Vec<WriteOperation>) -> impl Answer<WriteResult> {
        async move {
            let result = self.transact(Transact::always(operations)).await?;
            Ok(WriteResult { revision: result.revision })
        }
    }

    /// Sets a key, clearing the time to live and the lease that it had.
    fn set(&self, key: Key, value: impl Into<Bytes> + Send) -> impl Answer<WriteResult> {
        self.write(vec![WriteOperation::set(key, value)])
    }

    /// Sets a key that lives for some time.
    fn set_with_lifetime(
        &self,
        key: Key,
        value: impl Into<Bytes> + Send,
        lifetime: Lifetime,
    ) -> impl Answer<WriteResult> {
        self.write(vec![WriteOperation::Set { key, value: value.into(), lifetime }])
    }

    /// Deletes a key.
    fn delete(&self, key: Key) -> impl Answer<DeleteResult> {
        async move {
            let transaction = Transact::always([WriteOperation::Delete { key }]);
            let result = self.transact(transaction).await?;
            match result.outcomes.first() {
                Some(TransactionOutcome::Deleted { was_deleted }) => {
                    Ok(DeleteResult { was_deleted: *was_deleted, revision: result.revision })
                }
                _ => Err(unexpected()),
            }
        }
    }

    /// Replaces a value if it is the expected one; without an expected value, sets the key if it is
    /// absent.
    fn compare_and_swap(
        &self,
        key: Key,
        expected: Option<Bytes>,
        new_value: impl Into<Bytes> + Send,
        lifetime: Lifetime,
    ) -> impl Answer<CompareAndSwapResult> {
        let value = new_value.into();
        let operation = WriteOperation::Set { key: key.clone(), value, lifetime };
        compare_and(self, key, expected, operation)
    }

    /// Deletes a key if it has the expected value.
    fn compare_and_delete(
        &self,
        key: Key,
        expected: impl Into<Bytes> + Send,
    ) -> impl Answer<CompareAndSwapResult> {
        let operation = WriteOperation::Delete { key: key.clone() };
        compare_and(self, key, Some(expected.into()), operation)
    }
}

async fn compare_and<S: KeyValueStore + ?Sized>(
    store: &S,
    key: Key,
    expected: Option<Bytes>,
    operation: WriteOperation,
) -> Result<CompareAndSwapResult, ApiError> {
    let transaction = Transact {
        compares: vec![Compare::value(key.clone(), expected)],
        then: vec![operation.into()],
        otherwise: vec![TransactionOperation::Read { key: key.clone() }],
    };
    let result = store.transact(transaction).await?;
    let (is_success, revision) = (result.is_success(), result.revision);
    let actual_value = match result.outcomes.into_iter().next() {
        _ if is_success => None,
        Some(TransactionOutcome::Read { item }) => item.map(|item| item.value),
        Some(TransactionOutcome::NotKept {}) => {
            let read = ReadKey { revision: Some(revision), ..ReadKey::newest(key) };
            store.read(read).await?.item.map(|item| item.value)
        }
        Some(_) | None => return Err(unexpected()),
    };
    Ok(CompareAndSwapResult { is_success, actual_value, revision })
}

fn unexpected() -> ApiError {
    ApiError::new(ErrorCode::InternalError, "the outcomes do not fit the transaction")
}
