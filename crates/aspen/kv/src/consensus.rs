//! The replicated state machine as the services that stand directly on it see it.
//!
//! A node implements [`Consensus`] over its log and its peers, a test over memory. Only the core
//! services use it; everything else is written over [`KeyValueStore`], which [`Store`] provides.

use aspen_api::kv::{
    BatchRead, BatchReadResult, Consistency, ReadKey, ReadResult, ScanKeys, ScanResult, Transact,
    TransactResult,
};
use aspen_api::lease::{
    LeaseGrant, LeaseGrantResult, LeaseKeepalive, LeaseKeepaliveResult, LeaseList, LeaseListResult,
    LeaseRevoke, LeaseRevokeResult, LeaseTimeToLive, LeaseTimeToLiveResult,
};
use aspen_api::{Answer, ApiError, ErrorCode, KeyValueStore, Kind, RequestId};

use crate::{Command, Mutation, Query, Reply};

/// A replica of the state machine, and the way to change all of them.
pub trait Consensus: Clone + Send + Sync + 'static {
    /// Has a command applied, once for each id, and gives its reply once it is applied here. A
    /// refusal is an error.
    fn propose(&self, command: Command, id: Option<RequestId>) -> impl Answer<Reply>;

    /// Answers a read from a state that is at least as fresh as this says.
    fn query<Q: Query>(&self, consistency: Consistency, query: Q) -> impl Answer<Q::Reply>;

    /// Carries out a request that is one command.
    fn mutate<M: Mutation>(&self, id: Option<RequestId>, request: M) -> impl Answer<M::Reply> {
        async move {
            let reply = self.propose(request.into_command(), id).await?;
            M::reply(reply).ok_or_else(|| {
                ApiError::new(ErrorCode::InternalError, "the reply is one to another command")
            })
        }
    }

    /// Answers a read as fresh as it asks to be.
    fn read<Q: Query>(&self, query: Q) -> impl Answer<Q::Reply> {
        async move {
            let consistency = match query.kind() {
                Kind::Read(consistency) => consistency,
                Kind::Local | Kind::Node | Kind::Write | Kind::Membership => {
                    Consistency::Linearizable
                }
            };
            self.query(consistency, query).await
        }
    }
}

/// The store over a replica of this process.
#[derive(Clone, Debug)]
pub struct Store<C>(pub C);

impl<C: Consensus> KeyValueStore for Store<C> {
    async fn read(&self, read: ReadKey) -> Result<ReadResult, ApiError> {
        self.0.read(read).await
    }

    async fn batch_read(&self, read: BatchRead) -> Result<BatchReadResult, ApiError> {
        self.0.read(read).await
    }

    async fn scan(&self, scan: ScanKeys) -> Result<ScanResult, ApiError> {
        self.0.read(scan).await
    }

    async fn transact_once(
        &self,
        id: Option<RequestId>,
        transaction: Transact,
    ) -> Result<TransactResult, ApiError> {
        self.0.mutate(id, transaction).await
    }

    async fn grant_lease(&self, grant: LeaseGrant) -> Result<LeaseGrantResult, ApiError> {
        self.0.mutate(None, grant).await
    }

    async fn revoke_lease(&self, revoke: LeaseRevoke) -> Result<LeaseRevokeResult, ApiError> {
        self.0.mutate(None, revoke).await
    }

    async fn keep_lease_alive(
        &self,
        keepalive: LeaseKeepalive,
    ) -> Result<LeaseKeepaliveResult, ApiError> {
        self.0.mutate(None, keepalive).await
    }

    async fn lease_time_to_live(
        &self,
        of: LeaseTimeToLive,
    ) -> Result<LeaseTimeToLiveResult, ApiError> {
        self.0.read(of).await
    }

    async fn list_leases(&self, list: LeaseList) -> Result<LeaseListResult, ApiError> {
        self.0.read(list).await
    }
}
