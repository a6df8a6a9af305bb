//! Calls from this node.
//!
//! Invariants: a call whose future is dropped before the reply is cancelled, and its server told;
//! an own call without a reply is counted once at most; the deadline includes the time that the
//! session takes.

use std::time::Duration;

use bytes::Bytes;
use net_rpc::{CallOptions, CallResult, Outgoing, RpcError, RpcReply, ServiceName};
use net_types::{CallId, NodeId};
use tokio::sync::oneshot;

use crate::shared::Shared;
use crate::state::Tell;
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
            let mut core = self.shared.lock();
            let is_cancelled = core.rpc(now, |rpc, cx| {
                let is_cancelled = rpc.cancel(cx, self.call);
                if is_cancelled {
                    rpc.count_error(&RpcError::Cancelled);
                }
                is_cancelled
            });
            if is_cancelled {
                core.wake();
            }
        }
    }
}

/// A call under way and what cancels it.
type Started<'a> = (oneshot::Receiver<CallResult>, OpenCall<'a>);

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
        let now = self.shared.now();
        self.shared.lock().rpc(now, |rpc, _| rpc.count_error(&error));
        error
    }

    /// Opens a call and queues its request; `None` when there is no session.
    fn start(
        &self,
        peer: NodeId,
        service: &ServiceName,
        body: &Bytes,
        options: &CallOptions,
    ) -> Result<Option<Started<'_>>, RpcError> {
        let request = Outgoing::new(service, body, options)?;
        let (tell, reply) = oneshot::channel();
        let mut core = self.shared.lock();
        let now = core.call_time(|| self.shared.now());
        let call = core.rpc(now, |rpc, cx| rpc.call(cx, peer, &request, Tell(tell)))?;
        let Some(call) = call else { return Ok(None) };
        core.note_call(peer);
        core.wake();
        Ok(Some((reply, OpenCall { shared: &self.shared, call, is_done: false })))
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
