//! The store for parts of this process: answered here, or by the leader if this node does not lead.

use aspen_api::kv::Consistency;
use aspen_api::{
    ApiError, ErrorCode, Request, RequestFrame, RequestId, Response, unreadable_answer,
};
use aspen_kv::{Command, Consensus, Mutation, Query, Reply, Store};
use net_types::limits::DEFAULT_REQUEST_DEADLINE;
use net_wire::Class;

use super::ClusterNode;

/// Consensus that forwards requests to the leader, once.
#[derive(Clone)]
pub struct Forwarding(ClusterNode);

/// The store as services of a node hold it.
pub type NodeStore = Store<Forwarding>;

impl ClusterNode {
    /// The replicated store, for services of this process.
    pub fn store(&self) -> NodeStore {
        Store(Forwarding(self.clone()))
    }

    /// Gives the leader that `error` names a request that this node could not answer.
    async fn forward<R: Request>(
        &self,
        error: ApiError,
        id: Option<RequestId>,
        request: R,
    ) -> Result<R::Reply, ApiError> {
        let leader = match (error.code, &error.leader_hint) {
            (ErrorCode::NotLeader, Some(leader)) => leader.clone(),
            _ => return Err(error),
        };
        let body = RequestFrame::of(&request, id.unwrap_or(RequestId::NONE), None);
        let (service, class) = (aspen_api::service::CLIENT, Class::Foreground);
        let call = self.0.transport.call(&leader, service, class, body, DEFAULT_REQUEST_DEADLINE);
        let answer = call.await.map_err(|error| {
            tracing::debug!(%error, "the leader did not answer");
            ApiError::new(ErrorCode::Timeout, "the leader did not answer")
        })?;
        Response::<R::Reply>::decode(answer).map_err(|error| unreadable_answer(&error))?.result
    }
}

impl Consensus for Forwarding {
    async fn propose(&self, command: Command, id: Option<RequestId>) -> Result<Reply, ApiError> {
        self.0.propose(command, id).await
    }

    async fn query<Q: Query>(
        &self,
        consistency: Consistency,
        query: Q,
    ) -> Result<Q::Reply, ApiError> {
        match self.0.query(consistency, query.clone()).await {
            Err(error) => self.0.forward(error, None, query).await,
            answer => answer,
        }
    }

    async fn mutate<M: Mutation>(
        &self,
        id: Option<RequestId>,
        request: M,
    ) -> Result<M::Reply, ApiError> {
        match self.0.mutate(id, request.clone()).await {
            Err(error) => self.0.forward(error, id, request).await,
            answer => answer,
        }
    }
}
