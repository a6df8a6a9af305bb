//! From a client's bytes to an answer: decode, check, carry out, encode.

use std::sync::atomic::Ordering;

use aspen_api::cluster::{Done, MetricsResult, Pong};
use aspen_api::{
    ApiError, AuthenticatedRequest, ErrorCode, KeyValueStore, Request, RequestId, Response,
    StoreRequest,
};
use aspen_kv::Command;
use bytes::Bytes;
use net_types::EntityId;
use net_types::limits::DEFAULT_REQUEST_DEADLINE;
use net_wire::Class;

use super::ClusterNode;

/// A request of a client, counted until it is answered or given up.
struct UnderWay<'a>(&'a ClusterNode);

impl<'a> UnderWay<'a> {
    fn begin(node: &'a ClusterNode) -> Self {
        node.0.in_flight.fetch_add(1, Ordering::AcqRel);
        Self(node)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let node = &self.0.0;
        if node.in_flight.fetch_sub(1, Ordering::AcqRel) == 1
            && node.is_draining.load(Ordering::Relaxed)
        {
            node.request_done.notify_waiters();
        }
    }
}

impl ClusterNode {
    /// Answers one message of the service `aspen`. `from` is the identity that the transport has
    /// authenticated. Whatever goes wrong is an error response.
    pub async fn handle_client(&self, from: EntityId, body: Bytes) -> Bytes {
        let response = match AuthenticatedRequest::decode(body) {
            Ok(request) => self.dispatch(Some(from), request).await,
            Err(error) => ApiError::from(error).into(),
        };
        response.encode()
    }

    /// Carries out one request. `caller` is `None` within the process.
    pub async fn dispatch(
        &self,
        caller: Option<EntityId>,
        request: AuthenticatedRequest,
    ) -> Response {
        let _under_way = UnderWay::begin(self);
        self.0.counters.requests.fetch_add(1, Ordering::Relaxed);
        match self.answer(caller, request).await {
            Ok(response) => response,
            Err(mut error) => {
                if error.leader_hint.is_some() && self.live_leader().is_none() {
                    // Nobody is to wait for a leader that is gone.
                    error = ApiError::not_leader(None);
                }
                self.0.counters.errors.fetch_add(1, Ordering::Relaxed);
                error.into()
            }
        }
    }

    async fn answer(
        &self,
        caller: Option<EntityId>,
        request: AuthenticatedRequest,
    ) -> Result<Response, ApiError> {
        self.0.config.authorizer.authorize(self, caller, &request)?;
        if self.0.is_draining.load(Ordering::Relaxed) || self.0.is_stopping.load(Ordering::Relaxed)
        {
            return Err(super::errors::stopped());
        }
        if !request.request.is_served_uninitialized() && !self.is_initialized() {
            let text = "this node belongs to no cluster yet";
            return Err(ApiError::new(ErrorCode::NotInitialized, text));
        }
        if let Some(answer) = self.answer_read(&request.request).await {
            return answer;
        }
        match Command::from_request(request.request) {
            Ok(command) => {
                let reply = self.propose(command, request.request_id.named()).await?;
                Ok(reply.into())
            }
            Err(other) => self.answer_cluster(other).await,
        }
    }

    async fn answer_cluster(&self, request: Request) -> Result<Response, ApiError> {
        Ok(match request {
            Request::Ping(_) => Pong {}.into(),
            Request::GetHealth(_) => self.health().into(),
            Request::GetMetrics(_) => MetricsResult { text: self.prometheus_text() }.into(),
            Request::GetRaftMetrics(_) => self.raft_metrics().into(),
            Request::GetNodeInfo(_) => self.info().into(),
            Request::GetLeader(_) => self.leader().into(),
            Request::InitCluster(_) => self.init().await?.into(),
            Request::GetClusterState(_) => self.cluster_state().into(),
            Request::GetClusterTicket(_) => self.ticket_text()?.into(),
            Request::AddLearner(r) => self.add_learner(r.node_id, r.addr).await?.into(),
            Request::PromoteLearner(r) => {
                self.promote(r.learner_id, r.replace_node, r.is_force).await?.into()
            }
            Request::ChangeMembership(r) => self.change_membership(&r.members).await?.into(),
            Request::ExpungeNode(r) => self.expunge(r.node_id).await?.into(),
            Request::AddPeer(r) => {
                self.0.transport.add_peer(&r.addr);
                Done {}.into()
            }
            Request::TransferLeader(r) => {
                self.transfer_leader(r.target).await?;
                Done {}.into()
            }
            Request::TriggerSnapshot(_) => self.snapshot().await?.into(),
            other => {
                let text = format!("{} is not served by this node", other.name());
                return Err(ApiError::new(ErrorCode::Unsupported, text));
            }
        })
    }

    /// Carries out a request of this process: here, or at the leader if this node does not lead.
    async fn submit_named(&self, request: Request) -> Result<Response, ApiError> {
        let framed = AuthenticatedRequest::new(request, RequestId::UNNAMED);
        let body = framed.encode();
        match self.answer(None, framed).await {
            Err(error) if error.code == ErrorCode::NotLeader => {
                let leader = error.leader_hint.clone().ok_or(error)?;
                let call = self.0.transport.call(
                    &leader,
                    aspen_api::service::CLIENT,
                    Class::Foreground,
                    body,
                    DEFAULT_REQUEST_DEADLINE,
                );
                let bytes = call.await.map_err(|error| {
                    tracing::debug!(%error, "the leader did not answer");
                    ApiError::new(ErrorCode::Timeout, "the leader did not answer")
                })?;
                Response::decode(bytes).map_err(|error| error.of_answer())
            }
            other => other,
        }
    }
}

impl KeyValueStore for ClusterNode {
    async fn submit<R: StoreRequest + 'static>(&self, request: R) -> Result<R::Reply, ApiError> {
        R::reply(self.submit_named(request.into()).await?)
    }
}
