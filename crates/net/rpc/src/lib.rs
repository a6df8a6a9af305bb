//! Remote calls between nodes, without I/O: a protocol of the mesh.
//!
//! [`Rpc`] is the entry of the mesh's table. It registers each own call in [`Calls`] and writes a
//! request; a reply completes the call only when it comes from the session that the call went to. It
//! looks requests up in [`Services`], which admits them or names the status to answer.
//!
//! Invariants: a call ends once; a reply from another session than the one called ends nothing; an
//! admitted request is answered once at most; no handler runs and nothing waits in this crate.
//!
//! # Frames of a call
//!
//! A call is a sequence of frames on each side, and the frame's number says whether it is the last of
//! its side (`net_wire::rpc`). A side is open until its last frame, and the call until both sides have
//! ended or the caller cancels. Calls here have one frame a side: REQUEST, then RESPONSE or ERROR.
//! So an entry of [`Calls`] is a call whose request has ended and whose response is open, and an entry
//! of [`Services`] the same call at the server. A frame that a side does not take is counted and
//! dropped, whether its call is unknown, has ended or has one frame a side; a request that announces
//! chunks is answered with an ERROR, so that its caller does not wait.
//!
//! Calls with more frames add state to what is here:
//!
//! - A server stream is a REQUEST whose `response_window` is not 0, answered with RESPONSE_CHUNKs and a
//!   RESPONSE_END. The entry of [`Calls`] gains the next sequence and the credit left; its `W` takes
//!   chunks before its end. The handler is another kind of `H`, which gets the [`RpcContext`] and a
//!   sink, and whose [`Rpc::finish`] is the end of the sink.
//! - A duplex call starts with REQUEST_INIT, and REQUEST_CHUNKs follow until REQUEST_END. Both entries
//!   gain the state of the request's side with its own sequence and credit; `Incoming::Part` gains the
//!   frame's side, sequence and body, and takes the chunk to the entry that [`Arrived`] opened.
//! - Credit counts chunks. A grant names its side, and the transport's credit of a chunk returns when
//!   the application takes it ([`net_mesh_core::Cx::consume`]), so bytes are bounded as well.
//!
//! Unary frames of one class share one reliable, unordered stream per session ([`rpc_stream`]), so a
//! lost packet delays only the calls in it. A call with more frames has an ordered stream of its own.

mod calls;
mod error;
mod handler;
mod message;
mod protocol;
mod replies;
mod service;

pub use calls::{Calls, Ended, TableFull};
pub use error::{RpcError, RpcFailure};
pub use handler::{HandlerFuture, RpcContext, RpcHandler, RpcReply};
pub use message::{CallOptions, Incoming, Request, classify, rpc_stream};
pub use protocol::{Arrived, CallCounts, CallResult, Outgoing, ReplyTo, Rpc, Waiter};
pub use service::{Admission, ServiceName, ServiceNameError, Services};

pub use net_wire::rpc::{Codec, FrameWriter, RequestInfo, Status};
pub use net_wire::{Class, Subprotocol};
