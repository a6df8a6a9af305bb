//! Frames as callers and servers see them.
//!
//! Invariants: a body takes over the memory of its message and is not copied; both sides of a
//! session name the same stream for a class, and the streams of the two sides differ.

use core::time::Duration;

use bytes::{Buf, Bytes};
use net_types::limits::DEFAULT_CALL_DEADLINE;
use net_types::{CallId, ChannelHash, StreamId};
use net_wire::rpc::{Body, Codec, Frame, Headers};
use net_wire::{Class, EventMetaError};

use crate::{RpcError, RpcReply};

/// First stream id of calls; ids 2..=7 are the three classes of both sides.
const FIRST_STREAM: u64 = 2;

/// Whether both sides know the stream by [`rpc_stream`].
pub(crate) fn is_rpc_stream(stream: StreamId) -> bool {
    (FIRST_STREAM..FIRST_STREAM + 2 * Class::BY_URGENCY.len() as u64).contains(&stream.0)
}

/// The stream on which one side of a session sends the frames of a class.
pub fn rpc_stream(class: Class, is_initiator: bool) -> StreamId {
    StreamId(FIRST_STREAM + 2 * class as u64 + u64::from(is_initiator))
}

/// How a call is made.
#[derive(Clone, Debug)]
pub struct CallOptions {
    /// Time until the call ends with [`RpcError::Timeout`].
    pub deadline: Duration,
    /// Class of the request and of its reply.
    pub class: Class,
    /// How the body is encoded.
    pub codec: Codec,
    /// Headers, at most 32.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            deadline: DEFAULT_CALL_DEADLINE,
            class: Class::Foreground,
            codec: Codec::Raw,
            headers: Vec::new(),
        }
    }
}

impl CallOptions {
    /// Defaults with another deadline.
    pub fn with_deadline(deadline: Duration) -> Self {
        Self { deadline, ..Self::default() }
    }
}

/// A request that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whether the body is the whole request; if not, chunks follow.
    pub is_whole: bool,
    /// The service.
    pub service: ChannelHash,
    /// Milliseconds the caller still waits.
    pub budget_ms: u32,
    /// How the body is encoded.
    pub codec: Codec,
    /// Headers.
    pub headers: Vec<(String, Bytes)>,
    /// The body.
    pub body: Bytes,
}

/// A frame that arrived, with its body cut out of the message without copying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The first frame of a call for this node.
    Request(CallId, Request),
    /// The last frame of the answer to one of this node's calls.
    Reply(CallId, Result<RpcReply, RpcError>),
    /// The caller gave a call up.
    Cancel(CallId),
    /// A frame between the first and the last of a side, or credit for such frames.
    Part(CallId),
}

/// Reads a frame. A body is the end of its message and takes over the message's memory.
pub fn classify(message: Bytes) -> Result<Incoming, EventMetaError> {
    let frame = Frame::decode(&message)?;
    let id = frame.call_id;
    Ok(match frame.body {
        Body::Request { is_last, info, headers, body } => {
            let (service, budget_ms, codec) = (info.service, info.budget_ms, info.codec);
            let (headers, at) = (own(&message, &headers), message.len() - body.len());
            let (is_whole, body) = (is_last, tail(message, at));
            Incoming::Request(id, Request { is_whole, service, budget_ms, codec, headers, body })
        }
        Body::Response { headers, body } => {
            let (headers, at) = (own(&message, &headers), message.len() - body.len());
            Incoming::Reply(id, Ok(RpcReply { body: tail(message, at), headers }))
        }
        Body::Error { status, kind, detail, body } => {
            let (kind, detail) = (kind.to_owned(), detail.to_owned());
            let at = message.len() - body.len();
            let body = tail(message, at);
            Incoming::Reply(id, Err(RpcError::ServerError { status, kind, detail, body }))
        }
        Body::Cancel { .. } => Incoming::Cancel(id),
        Body::Chunk { .. } | Body::End { .. } | Body::Grant { .. } => Incoming::Part(id),
    })
}

/// The end of a message, without the shared count that a slice would allocate.
fn tail(mut message: Bytes, at: usize) -> Bytes {
    message.advance(at);
    message
}

fn own(message: &Bytes, headers: &Headers<'_>) -> Vec<(String, Bytes)> {
    // Calls have no headers nearly always.
    if headers.is_empty() {
        return Vec::new();
    }
    headers.iter().map(|(name, value)| (name.to_owned(), message.slice_ref(value))).collect()
}

#[cfg(test)]
mod tests {
    use net_types::OriginHash;
    use net_wire::rpc::{FrameWriter, RequestInfo, Status};

    use super::*;

    #[test]
    fn frames_become_requests_replies_and_cancels() {
        let writer = FrameWriter { origin: OriginHash(1), call_id: CallId(2) };
        let info = RequestInfo {
            service: ChannelHash(3),
            budget_ms: 4,
            response_window: 0,
            codec: Codec::Raw,
        };
        let mut out = Vec::new();
        writer.request(&info, &[], b"ask", &mut out);
        let Ok(Incoming::Request(CallId(2), request)) = classify(Bytes::from(out)) else {
            panic!("not a request")
        };
        assert_eq!((request.service, &request.body[..]), (ChannelHash(3), &b"ask"[..]));
        assert!(request.is_whole);
        let mut out = Vec::new();
        writer.error(Status::NOT_FOUND, "not_found", "", b"", &mut out);
        let error = classify(Bytes::from(out));
        assert!(matches!(error, Ok(Incoming::Reply(_, Err(RpcError::ServerError { .. })))));
        let mut out = Vec::new();
        writer.cancel(0, &mut out);
        assert_eq!(classify(Bytes::from(out)), Ok(Incoming::Cancel(CallId(2))));
    }

    #[test]
    fn both_sides_send_on_streams_of_their_own() {
        let ids: Vec<u64> = [Class::Foreground, Class::Background, Class::Realtime]
            .into_iter()
            .flat_map(|c| [rpc_stream(c, false).0, rpc_stream(c, true).0])
            .collect();
        assert_eq!(ids, [2, 3, 4, 5, 6, 7]);
        assert!((0..10).all(|id| is_rpc_stream(StreamId(id)) == ids.contains(&id)));
    }
}
