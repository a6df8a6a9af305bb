//! Calls from this node.

use std::time::Duration;

use bytes::Bytes;
use net_mesh_core::SendError;
use net_rpc::{
    CallOptions, FrameWriter, Request, RequestInfo, RpcError, RpcReply, ServiceName, rpc_stream,
};
use net_types::limits::MAX_UNARY_BODY_BYTES;
use net_types::{CallId, NodeId};
use tokio::sync::oneshot;

use crate::shared::Shared;
use crate::state::{CallResult, Caller, FRAME_ROOM, OWN_SESSION};
use crate::{ConnectError, MeshNode};

/// Cancels its call when dropped before the reply.
struct OpenCall<'a> {
    shared: &'a Shared,
    call: CallId,
    is_done: bool,
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            let now = self.shared.now();
            self.shared.lock().cancel_call(now, self.call);
        }
    }
}

/// A call under way and what cancels it.
type Started<'a> = (oneshot::Receiver<CallResult>, OpenCall<'a>);

/// A request that does not leave this node.
fn own_request(info: &RequestInfo, body: &Bytes, options: &CallOptions) -> Request {
    let headers = options.headers.iter();
    Request {
        service: info.service,
        budget_ms: info.budget_ms,
        codec: info.codec,
        headers: headers.map(|(name, value)| (name.clone(), value.clone().into())).collect(),
        body: body.clone(),
    }
}

/// A node and a peer: what a client of one service passes around.
#[derive(Clone, Debug)]
pub struct PeerCall {
    /// The calling node.
    pub node: MeshNode,
    /// The called peer.
    pub peer: NodeId,
}

impl MeshNode {
    /// Calls a service of a peer, or of this node itself, and waits for its reply. Dropping the future
    /// cancels the call and tells the server.
    pub async fn call(
        &self,
        peer: NodeId,
        service: &ServiceName,
        body: Bytes,
        options: CallOptions,
    ) -> Result<RpcReply, RpcError> {
        let started = match self.start(peer, service, &body, &options) {
            Ok(None) => self.connect_and_start(peer, service, &body, options).await,
            Ok(Some(started)) => Ok(started),
            Err(error) => Err(error),
        };
        let (reply, mut open) = started.map_err(|e| self.counted(e))?;
        let result = reply.await;
        open.is_done = true;
        result.unwrap_or(Err(RpcError::Cancelled)).map_err(|e| self.counted(e))
    }

    fn counted(&self, error: RpcError) -> RpcError {
        self.shared.lock().counts.errors[error.kind_index()] += 1;
        error
    }

    /// Starts a call; `None` when there is no session.
    fn start(
        &self,
        peer: NodeId,
        service: &ServiceName,
        body: &Bytes,
        options: &CallOptions,
    ) -> Result<Option<Started<'_>>, RpcError> {
        if body.len() > MAX_UNARY_BODY_BYTES {
            let text = format!("a body of {} bytes; at most {MAX_UNARY_BODY_BYTES}", body.len());
            return Err(RpcError::TooLarge(text));
        }
        let mut headers = Vec::new();
        if !options.headers.is_empty() {
            net_wire::rpc::encode_headers(&options.headers, &mut headers)
                .map_err(|e| RpcError::TooLarge(e.to_string()))?;
        }
        self.start_call(peer, service, body, &headers, options)
    }

    async fn connect_and_start(
        &self,
        peer: NodeId,
        service: &ServiceName,
        body: &Bytes,
        options: CallOptions,
    ) -> Result<Started<'_>, RpcError> {
        let deadline = self.session_within(peer, options.deadline).await?;
        let options = CallOptions { deadline, ..options };
        self.start(peer, service, body, &options)?
            .ok_or_else(|| RpcError::NoRoute("the session just ended".to_owned()))
    }

    /// Waits for a session; returns what is left of the time.
    async fn session_within(&self, peer: NodeId, time: Duration) -> Result<Duration, RpcError> {
        let started = tokio::time::Instant::now();
        match tokio::time::timeout(time, self.ensure_session(peer)).await {
            Err(_) => Err(RpcError::Timeout),
            Ok(Err(ConnectError::Closed)) => Err(RpcError::Cancelled),
            Ok(Err(error)) => Err(RpcError::NoRoute(error.to_string())),
            Ok(Ok(())) => Ok(time.saturating_sub(started.elapsed())),
        }
    }

    /// Registers a call and queues its request; `None` when there is no session.
    fn start_call(
        &self,
        peer: NodeId,
        service: &ServiceName,
        body: &Bytes,
        headers: &[u8],
        options: &CallOptions,
    ) -> Result<Option<Started<'_>>, RpcError> {
        let mut guard = self.shared.lock();
        let core = &mut *guard;
        let own = (peer == core.endpoint.node_id()).then_some(OWN_SESSION);
        let Some(session) = own.or_else(|| core.endpoint.live_session(peer)) else {
            return Ok(None);
        };
        let now = core.call_time(|| self.shared.now());
        let is_initiator = core.endpoint.is_initiator(session).unwrap_or_default();
        let random = core.random();
        let (tell, reply) = oneshot::channel();
        let caller = Caller { started: now, tell };
        let call = core
            .calls
            .open(random, session, options.class, now + options.deadline, caller)
            .map_err(|_| RpcError::Backpressure)?;
        core.counts.made += 1;
        let budget_ms = u32::try_from(options.deadline.as_millis()).unwrap_or(u32::MAX);
        let info = RequestInfo {
            service: service.hash(),
            budget_ms: budget_ms.max(1),
            response_window: 0,
            codec: options.codec,
        };
        let sent = if session == OWN_SESSION {
            core.call_own(now, call, options.class, own_request(&info, body, options))
        } else {
            let writer = FrameWriter { origin: core.origin, call_id: call };
            let stream = rpc_stream(options.class, is_initiator);
            let len = FRAME_ROOM + headers.len() + body.len();
            core.endpoint.send_with(now, session, stream, len, |out| {
                writer.request(&info, headers, body, out);
            })
        };
        if let Err(error) = sent {
            core.calls.cancel(call);
            return Err(match error {
                SendError::Backpressure => RpcError::Backpressure,
                SendError::TooLarge => RpcError::TooLarge(error.to_string()),
                SendError::StreamClosed | SendError::SessionClosed => RpcError::Transport,
            });
        }
        core.wake();
        Ok(Some((reply, OpenCall { shared: &self.shared, call, is_done: false })))
    }

    /// This node and one of its peers.
    pub fn peer(&self, peer: NodeId) -> PeerCall {
        PeerCall { node: self.clone(), peer }
    }
}

impl PeerCall {
    /// [`MeshNode::call`] to this peer.
    pub async fn call(
        &self,
        service: &ServiceName,
        body: Bytes,
        options: CallOptions,
    ) -> Result<RpcReply, RpcError> {
        self.node.call(self.peer, service, body, options).await
    }
}
