//! Remote calls between nodes: the tables of callers and servers, without I/O.
//!
//! A caller registers each call in [`Calls`] and writes a request; a reply completes the call only
//! when it comes from the session that the call went to. A server looks requests up in
//! [`Services`], which admits them or names the status to answer. Unary frames of one class share
//! one reliable, unordered stream per session ([`rpc_stream`]), so a lost packet delays only the
//! calls in it. Streaming call shapes use streams of their own, beside these tables.

mod calls;
mod error;
mod handler;
mod message;
mod service;

pub use calls::{Calls, Ended, TableFull};
pub use error::{RpcError, RpcFailure};
pub use handler::{HandlerFuture, RpcContext, RpcHandler, RpcReply};
pub use message::{CallOptions, Incoming, Request, classify, rpc_stream};
pub use service::{Admission, ServiceName, ServiceNameError, Services};

pub use net_wire::rpc::{Codec, FrameWriter, RequestInfo, Status};
pub use net_wire::{Class, Subprotocol};
