//! The store on this node: commands through the log, reads from the state, and a form that forwards
//! what only the leader can answer. Invariant: a request is forwarded once at most.

use std::sync::Arc;

use aspen_api::kv::Consistency;
use aspen_api::{
    ApiError, ErrorCode, Request, RequestFrame, RequestId, Response, unreadable_answer,
};
use aspen_kv::{Command, Consensus, Mutation, Query, Reply, Store};
use net_types::limits::DEFAULT_REQUEST_DEADLINE;
use net_wire::Class;

use super::propose::Proposer;
use super::read::Reader;

/// The replicated store as this node holds it. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct Replica {
    pub(super) proposer: Arc<Proposer>,
    pub(super) reader: Arc<Reader>,
}

impl Consensus for Replica {
    async fn propose(&self, command: Command, id: Option<RequestId>) -> Result<Reply, ApiError> {
        self.proposer.commit(command, id).await
    }

    async fn query<Q: Query>(&self, at: Consistency, query: Q) -> Result<Q::Reply, ApiError> {
        self.reader.answer(at, &query).await
    }
}

/// A replica that forwards requests to the leader, once.
#[derive(Clone)]
pub struct Forwarding(pub(super) Replica);

/// The store as services of a node hold it.
pub type NodeStore = Store<Forwarding>;

impl Forwarding {
    /// Gives the leader that `error` names a request that this node could not answer.
    async fn forward<R: Request>(
        &self,
        error: ApiError,
        id: Option<RequestId>,
        request: R,
    ) -> Result<R::Reply, ApiError> {
        let named = error.leader_hint.clone().filter(|_| error.code == ErrorCode::NotLeader);
        let Some(leader) = named else { return Err(error) };
        let body = RequestFrame::of(&request, id.unwrap_or(RequestId::NONE), None);
        let (service, class) = (aspen_api::service::CLIENT, Class::Foreground);
        let transport = &self.0.reader.consensus.peers.transport;
        let call = transport.call(&leader, service, class, body, DEFAULT_REQUEST_DEADLINE);
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

    async fn query<Q: Query>(&self, at: Consistency, query: Q) -> Result<Q::Reply, ApiError> {
        match self.0.query(at, query.clone()).await {
            Err(error) => self.forward(error, None, query).await,
            answer => answer,
        }
    }

    async fn mutate<M: Mutation>(
        &self,
        id: Option<RequestId>,
        request: M,
    ) -> Result<M::Reply, ApiError> {
        match self.0.mutate(id, request.clone()).await {
            Err(error) => self.forward(error, id, request).await,
            answer => answer,
        }
    }
}
