//! What answers calls.
//!
//! Invariants: peer and identity of a call are those of its session, never what a frame claims; a
//! handler is polled once in the turn of its request, so it must not block.

use core::future::Future;
use core::pin::Pin;
use core::time::Duration;

use bytes::Bytes;
use net_types::{EntityId, NodeId};
use net_wire::rpc::Codec;

use crate::RpcFailure;

/// Who calls, and for how long.
#[derive(Clone, Debug)]
pub struct RpcContext {
    /// The caller's node, authenticated by its session.
    pub peer: NodeId,
    /// The caller's identity, authenticated by its session.
    pub entity: EntityId,
    /// Time the caller still waits.
    pub budget: Duration,
    /// How the caller encoded the body.
    pub codec: Codec,
    /// Headers: name and value, at most 32.
    pub headers: Vec<(String, Bytes)>,
}

/// A successful reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcReply {
    /// The body.
    pub body: Bytes,
    /// Headers: name and value.
    pub headers: Vec<(String, Bytes)>,
}

type Boxed = Pin<Box<dyn Future<Output = Result<Bytes, RpcFailure>> + Send>>;

/// A handler's answer: here already, or later.
pub enum HandlerFuture {
    /// The answer. It leaves in the turn in which the request came.
    Ready(Result<Bytes, RpcFailure>),
    /// The answer will come. Polled once in the turn of the request, then as a task of its own.
    Later(Boxed),
}

impl HandlerFuture {
    /// An answer that is here.
    pub fn ready(answer: Result<Bytes, RpcFailure>) -> Self {
        Self::Ready(answer)
    }

    /// An answer that takes time.
    pub fn later(answer: impl Future<Output = Result<Bytes, RpcFailure>> + Send + 'static) -> Self {
        Self::Later(Box::pin(answer))
    }
}

/// Serves one service. `handle` must not block: it runs in the turn that received the request.
pub trait RpcHandler: Send + Sync + 'static {
    /// Answers one call. Dropping the returned future cancels the work.
    fn handle(&self, context: RpcContext, body: Bytes) -> HandlerFuture;
}

impl<F> RpcHandler for F
where
    F: Fn(RpcContext, Bytes) -> HandlerFuture + Send + Sync + 'static,
{
    fn handle(&self, context: RpcContext, body: Bytes) -> HandlerFuture {
        self(context, body)
    }
}
