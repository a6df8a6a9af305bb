//! Requests paired with their results, and the store as services see it.

use core::future::Future;

use bytes::Bytes;

use crate::cluster::{self, ClusterStateResult, Done};
use crate::kv::{
    BatchRead, BatchReadResult, BatchWrite, BatchWriteResult, Compact, CompactResult,
    CompareAndDeleteKey, CompareAndSwapKey, CompareAndSwapResult, ConditionalBatchWrite,
    ConditionalBatchWriteResult, Consistency, DeleteKey, DeleteResult, ReadKey, ReadResult,
    ScanKeys, ScanResult, Transact, TransactResult, WriteKey, WriteKeyWithLease, WriteKeyWithTtl,
    WriteResult,
};
use crate::lease::{
    LeaseGrant, LeaseGrantResult, LeaseKeepalive, LeaseKeepaliveResult, LeaseList, LeaseListResult,
    LeaseRevoke, LeaseRevokeResult, LeaseTimeToLive, LeaseTimeToLiveResult,
};
use crate::{ApiError, ErrorCode, Key, Request, Response};

/// A request whose answer has one type.
pub trait Exchange: Into<Request> + Send {
    /// What a successful answer holds.
    type Reply: Into<Response> + Send;

    /// The reply inside a response. An error response is `Err`; any other reply is a fault of the
    /// server, `INTERNAL_ERROR`.
    fn reply(response: Response) -> Result<Self::Reply, ApiError>;
}

macro_rules! exchanges {
    ($( $request:ty => $variant:ident($reply:ty); )*) => { $(
        impl Exchange for $request {
            type Reply = $reply;

            fn reply(response: Response) -> Result<$reply, ApiError> {
                match response {
                    Response::$variant(reply) => Ok(reply),
                    Response::Error(error) => Err(error),
                    other => Err(ApiError::new(
                        ErrorCode::InternalError,
                        format!("{} was answered with {}", stringify!($request), other.name()),
                    )),
                }
            }
        }
    )* };
}

exchanges! {
    ReadKey => Read(ReadResult);
    WriteKey => Write(WriteResult);
    WriteKeyWithTtl => Write(WriteResult);
    WriteKeyWithLease => Write(WriteResult);
    DeleteKey => Delete(DeleteResult);
    ScanKeys => Scan(ScanResult);
    CompareAndSwapKey => CompareAndSwap(CompareAndSwapResult);
    CompareAndDeleteKey => CompareAndSwap(CompareAndSwapResult);
    BatchRead => BatchRead(BatchReadResult);
    BatchWrite => BatchWrite(BatchWriteResult);
    ConditionalBatchWrite => ConditionalBatchWrite(ConditionalBatchWriteResult);
    Transact => Transact(TransactResult);
    Compact => Compact(CompactResult);
    LeaseGrant => LeaseGrant(LeaseGrantResult);
    LeaseRevoke => LeaseRevoke(LeaseRevokeResult);
    LeaseKeepalive => LeaseKeepalive(LeaseKeepaliveResult);
    LeaseTimeToLive => LeaseTimeToLive(LeaseTimeToLiveResult);
    LeaseList => LeaseList(LeaseListResult);
    cluster::Ping => Pong(cluster::Pong);
    cluster::GetHealth => Health(cluster::HealthResult);
    cluster::GetMetrics => Metrics(cluster::MetricsResult);
    cluster::GetRaftMetrics => RaftMetrics(cluster::RaftMetricsResult);
    cluster::GetNodeInfo => NodeInfo(cluster::NodeInfoResult);
    cluster::GetLeader => Leader(cluster::LeaderResult);
    cluster::InitCluster => ClusterState(ClusterStateResult);
    cluster::GetClusterState => ClusterState(ClusterStateResult);
    cluster::GetClusterTicket => Ticket(cluster::TicketResult);
    cluster::AddLearner => ClusterState(ClusterStateResult);
    cluster::PromoteLearner => ClusterState(ClusterStateResult);
    cluster::ChangeMembership => ClusterState(ClusterStateResult);
    cluster::ExpungeNode => ClusterState(ClusterStateResult);
    cluster::AddPeer => Done(Done);
    cluster::TransferLeader => Done(Done);
    cluster::TriggerSnapshot => Snapshot(cluster::SnapshotResult);
}

/// Marks the requests that a [`KeyValueStore`] answers: key-value and leases.
pub trait StoreRequest: Exchange {}

macro_rules! store_requests {
    ($($request:ty),* $(,)?) => { $( impl StoreRequest for $request {} )* };
}

store_requests!(
    ReadKey,
    WriteKey,
    WriteKeyWithTtl,
    WriteKeyWithLease,
    DeleteKey,
    ScanKeys,
    CompareAndSwapKey,
    CompareAndDeleteKey,
    BatchRead,
    BatchWrite,
    ConditionalBatchWrite,
    Transact,
    Compact,
    LeaseGrant,
    LeaseRevoke,
    LeaseKeepalive,
    LeaseTimeToLive,
    LeaseList,
);

/// The replicated store, as a client, a node or a test holds it.
///
/// A service is written over `S: KeyValueStore` and runs in a test over memory, in a node over
/// consensus and in a program over the network. Implementors name and repeat requests so that a
/// write is applied at most once for each call of [`KeyValueStore::submit`].
pub trait KeyValueStore: Send + Sync + 'static {
    /// Carries out one request.
    ///
    /// `TIMEOUT`, `SESSION_EXPIRED` and `INTERNAL_ERROR` leave open whether a write happened; every
    /// other error means that it did not and will not.
    fn submit<R: StoreRequest + 'static>(
        &self,
        request: R,
    ) -> impl Future<Output = Result<R::Reply, ApiError>> + Send;

    /// Reads the newest value, linearizably.
    fn read(&self, key: Key) -> impl Future<Output = Result<ReadResult, ApiError>> + Send {
        self.submit(ReadKey::newest(key))
    }

    /// Reads what the nearest node has applied.
    fn read_local(&self, key: Key) -> impl Future<Output = Result<ReadResult, ApiError>> + Send {
        self.submit(ReadKey { consistency: Consistency::Stale, ..ReadKey::newest(key) })
    }

    /// One page of a scan.
    fn scan(&self, scan: ScanKeys) -> impl Future<Output = Result<ScanResult, ApiError>> + Send {
        self.submit(scan)
    }

    /// One page of a scan over what the nearest node has applied.
    fn scan_local(
        &self,
        scan: ScanKeys,
    ) -> impl Future<Output = Result<ScanResult, ApiError>> + Send {
        self.submit(ScanKeys { consistency: Consistency::Stale, ..scan })
    }

    /// Sets a key, clearing TTL and lease.
    fn write(
        &self,
        key: Key,
        value: Bytes,
    ) -> impl Future<Output = Result<WriteResult, ApiError>> + Send {
        self.submit(WriteKey { key, value })
    }

    /// Deletes a key.
    fn delete(&self, key: Key) -> impl Future<Output = Result<DeleteResult, ApiError>> + Send {
        self.submit(DeleteKey { key })
    }

    /// Runs a transaction.
    fn transact(
        &self,
        transaction: Transact,
    ) -> impl Future<Output = Result<TransactResult, ApiError>> + Send {
        self.submit(transaction)
    }
}
