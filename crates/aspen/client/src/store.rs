//! The store over a client: what is written over `KeyValueStore` runs in any program.

use aspen_api::kv::{
    BatchRead, BatchReadResult, ReadKey, ReadResult, ScanKeys, ScanResult, Transact, TransactResult,
};
use aspen_api::lease::{
    LeaseGrant, LeaseGrantResult, LeaseKeepalive, LeaseKeepaliveResult, LeaseList, LeaseListResult,
    LeaseRevoke, LeaseRevokeResult, LeaseTimeToLive, LeaseTimeToLiveResult,
};
use aspen_api::{ApiError, KeyValueStore, RequestId};

use crate::Client;

impl KeyValueStore for Client {
    async fn read(&self, read: ReadKey) -> Result<ReadResult, ApiError> {
        self.send(read).await
    }

    async fn batch_read(&self, read: BatchRead) -> Result<BatchReadResult, ApiError> {
        self.send(read).await
    }

    async fn scan(&self, scan: ScanKeys) -> Result<ScanResult, ApiError> {
        self.send(scan).await
    }

    /// The client chooses the id: it keeps it through all attempts of this call.
    async fn transact_once(
        &self,
        _: Option<RequestId>,
        transaction: Transact,
    ) -> Result<TransactResult, ApiError> {
        self.send(transaction).await
    }

    async fn grant_lease(&self, grant: LeaseGrant) -> Result<LeaseGrantResult, ApiError> {
        self.send(grant).await
    }

    async fn revoke_lease(&self, revoke: LeaseRevoke) -> Result<LeaseRevokeResult, ApiError> {
        self.send(revoke).await
    }

    async fn keep_lease_alive(
        &self,
        keepalive: LeaseKeepalive,
    ) -> Result<LeaseKeepaliveResult, ApiError> {
        self.send(keepalive).await
    }

    async fn lease_time_to_live(
        &self,
        of: LeaseTimeToLive,
    ) -> Result<LeaseTimeToLiveResult, ApiError> {
        self.send(of).await
    }

    async fn list_leases(&self, list: LeaseList) -> Result<LeaseListResult, ApiError> {
        self.send(list).await
    }
}
