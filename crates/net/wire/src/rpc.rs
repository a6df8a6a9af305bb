//! Remote-call frames. Each is one event: the 24-byte meta, whose dispatch is the frame's number
//! and whose sequence is the call id, then the body.
//!
//! A call is a sequence of frames on each side. The frame's number says whether it is the last of
//! its side, so a unary call is one REQUEST and one RESPONSE or ERROR.
//!
//! ```text
//!                      last  body
//! 0x10 REQUEST_INIT    no    as REQUEST; chunks follow
//! 0x11 REQUEST_CHUNK   no    sequence u64, bytes
//! 0x12 REQUEST_END     yes   last sequence u64
//! 0x13 CANCEL          both  reason u16
//! 0x14 REQUEST         yes   version u8 = 1, service hash u64, budget ms u32,
//!                            response window u32, codec u8, headers, body
//! 0x15 RESPONSE        yes   headers, body
//! 0x16 RESPONSE_CHUNK  no    sequence u64, bytes
//! 0x17 RESPONSE_END    yes   last sequence u64, headers
//! 0x18 ERROR           yes   status u16, kind (u8 length), detail (u16 length), body
//! 0x19 RESPONSE_GRANT  no    chunks u32; from the caller
//! 0x1A REQUEST_GRANT   no    chunks u32; from the server
//! headers                    count u8, then name (u8 length) and value (u16 length) each
//! ```
//!
//! Invariants: a number never changes its meaning; 0x1B is reserved for the notice of dropped
//! chunks; every length is checked against its limit before anything is read.

use net_types::limits::{
    MAX_RPC_DETAIL_BYTES, MAX_RPC_HEADER_NAME_BYTES, MAX_RPC_HEADER_VALUE_BYTES, MAX_RPC_HEADERS,
    MAX_RPC_HEADERS_BYTES,
};
use net_types::{CallId, ChannelHash, OriginHash};

use crate::registry::numbered;
use crate::{DecodeError, EventMeta, EventMetaError, Reader};

const VERSION: u8 = 1;

numbered! {
    /// Frame numbers, 0x10..=0x1F.
    FrameType(u8), "rpc frame" {
        /// A call whose request has chunks.
        RequestInit = 0x10,
        /// A part of a request.
        RequestChunk = 0x11,
        /// The end of a request with chunks.
        RequestEnd = 0x12,
        /// The caller gave the call up.
        RequestCancel = 0x13,
        /// A call with a whole body.
        Request = 0x14,
        /// A successful reply with a whole body; ends the call.
        Response = 0x15,
        /// A part of a response.
        ResponseChunk = 0x16,
        /// The successful end of a response with chunks; ends the call.
        ResponseEnd = 0x17,
        /// A failed reply; ends the call.
        ResponseError = 0x18,
        /// Room for chunks of the response.
        ResponseGrant = 0x19,
        /// Room for chunks of the request.
        RequestGrant = 0x1A,
    }
}

numbered! {
    /// How a body is encoded. The transport does not look at it.
    Codec(u8), "codec" {
        /// Bytes.
        Raw = 0,
        /// JSON.
        Json = 1,
        /// postcard.
        Postcard = 2,
    }
}

/// Result of a call. 0x8000 and above belong to applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status(pub u16);

impl Status {
    /// Success; never in an error frame.
    pub const OK: Self = Self(0);
    /// No such service.
    pub const NOT_FOUND: Self = Self(1);
    /// The caller is not allowed.
    pub const UNAUTHORIZED: Self = Self(2);
    /// The budget ran out.
    pub const TIMEOUT: Self = Self(3);
    /// The service has no room.
    pub const BACKPRESSURE: Self = Self(4);
    /// The call was cancelled.
    pub const CANCELLED: Self = Self(5);
    /// The handler failed.
    pub const INTERNAL: Self = Self(6);
    /// The frame's version is unknown to the server.
    pub const UNKNOWN_VERSION: Self = Self(7);
    /// The caller lacks a capability.
    pub const CAPABILITY_DENIED: Self = Self(8);
    /// A typed request did not decode.
    pub const TYPED_BAD_REQUEST: Self = Self(0x8000);
    /// A typed handler returned its error.
    pub const TYPED_HANDLER_ERROR: Self = Self(0x8001);

    /// Whether the same call may succeed when repeated.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::TIMEOUT | Self::BACKPRESSURE | Self::INTERNAL)
    }
}

/// Headers of a call, still encoded; checked when the frame was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let mut r = Reader::new(self.0);
        core::iter::from_fn(move || header_pair(&mut r).ok())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = usize::from(r.u8()?);
        if count == 0 {
            return Ok(Self::default());
        }
        let count = r.bounded("rpc headers", count, MAX_RPC_HEADERS)?;
        let mut scan = r.clone();
        for _ in 0..count {
            header_pair(&mut scan)?;
        }
        let bytes = scan.position() - r.position();
        let bytes = r.bounded("rpc header bytes", bytes, MAX_RPC_HEADERS_BYTES)?;
        r.take(bytes).map(Self)
    }
}

fn header_pair<'a>(r: &mut Reader<'a>) -> Result<(&'a str, &'a [u8]), DecodeError> {
    let len = usize::from(r.u8()?);
    let len = r.bounded("rpc header name", len, MAX_RPC_HEADER_NAME_BYTES)?;
    let name =
        core::str::from_utf8(r.take(len)?).map_err(|_| DecodeError::BadValue("rpc header name"))?;
    let len = usize::from(r.u16()?);
    let len = r.bounded("rpc header value", len, MAX_RPC_HEADER_VALUE_BYTES)?;
    Ok((name, r.take(len)?))
}

/// Appends headers.
///
/// Fails without writing when a count or length is above its limit.
pub fn encode_headers(headers: &[(String, Vec<u8>)], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let r = Reader::new(&[]);
    r.bounded("rpc headers", headers.len(), MAX_RPC_HEADERS)?;
    let mut total = 0;
    for (name, value) in headers {
        r.bounded("rpc header name", name.len(), MAX_RPC_HEADER_NAME_BYTES)?;
        r.bounded("rpc header value", value.len(), MAX_RPC_HEADER_VALUE_BYTES)?;
        total += 3 + name.len() + value.len();
    }
    r.bounded("rpc header bytes", total, MAX_RPC_HEADERS_BYTES)?;
    out.push(headers.len() as u8);
    for (name, value) in headers {
        out.push(name.len() as u8);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&(value.len() as u16).to_le_bytes());
        out.extend_from_slice(value);
    }
    Ok(())
}

/// The fixed part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// The service.
    pub service: ChannelHash,
    /// Milliseconds the caller still waits; 0 is none at all.
    pub budget_ms: u32,
    /// Chunks of a streamed response that may be under way; 0 for unary calls.
    pub response_window: u32,
    /// How the body is encoded.
    pub codec: Codec,
}

/// The side of a call that sends a sequence of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Sends the request.
    Caller,
    /// Sends the response.
    Server,
}

/// A decoded frame, borrowing from the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A call.
    Request {
        /// Whether the request ends here; if not, chunks follow.
        is_last: bool,
        /// Fixed part.
        info: RequestInfo,
        /// Headers.
        headers: Headers<'a>,
        /// Body.
        body: &'a [u8],
    },
    /// A successful reply.
    Response {
        /// Headers.
        headers: Headers<'a>,
        /// Body.
        body: &'a [u8],
    },
    /// A failed reply.
    Error {
        /// Why, never [`Status::OK`].
        status: Status,
        /// A stable word for programs.
        kind: &'a str,
        /// A text for people.
        detail: &'a str,
        /// What the handler attached.
        body: &'a [u8],
    },
    /// A part of a request or of a response.
    Chunk {
        /// Who sends it.
        side: Side,
        /// Its place, from 0 without gaps.
        sequence: u64,
        /// Body.
        body: &'a [u8],
    },
    /// The end of a request or response that has chunks.
    End {
        /// Who sends it.
        side: Side,
        /// Place of the last chunk.
        last_sequence: u64,
        /// Headers that follow the chunks of a response; a request has none.
        headers: Headers<'a>,
    },
    /// Room for more chunks.
    Grant {
        /// Whose chunks there is room for; the other side sends the grant.
        side: Side,
        /// Chunks beyond those that were granted before.
        chunks: u32,
    },
    /// The caller gave the call up; both sides end.
    Cancel {
        /// Application reason, 0 for none.
        reason: u16,
    },
}

/// A frame: its sender, its call and its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The sender's claim; the session decides whether it is true.
    pub origin: OriginHash,
    /// The call.
    pub call_id: CallId,
    /// The body.
    pub body: Body<'a>,
}

impl<'a> Frame<'a> {
    /// Reads a whole event.
    pub fn decode(event: &'a [u8]) -> Result<Self, EventMetaError> {
        let (meta, tail) = EventMeta::decode(event)?;
        if meta.flags != 0 {
            let value = meta.flags.into();
            return Err(DecodeError::UnknownTag { what: "rpc flags", value }.into());
        }
        let mut r = Reader::new(tail);
        let body = match FrameType::from_wire(meta.dispatch)? {
            FrameType::Request => decode_request(&mut r, true)?,
            FrameType::RequestInit => decode_request(&mut r, false)?,
            FrameType::RequestChunk => decode_chunk(&mut r, Side::Caller)?,
            FrameType::ResponseChunk => decode_chunk(&mut r, Side::Server)?,
            FrameType::RequestEnd => Body::End {
                side: Side::Caller,
                last_sequence: r.u64()?,
                headers: Headers::default(),
            },
            FrameType::ResponseEnd => Body::End {
                side: Side::Server,
                last_sequence: r.u64()?,
                headers: Headers::decode(&mut r)?,
            },
            FrameType::ResponseGrant => Body::Grant { side: Side::Server, chunks: r.u32()? },
            FrameType::RequestGrant => Body::Grant { side: Side::Caller, chunks: r.u32()? },
            FrameType::Response => {
                Body::Response { headers: Headers::decode(&mut r)?, body: r.rest() }
            }
            FrameType::ResponseError => decode_error(&mut r)?,
            FrameType::RequestCancel => Body::Cancel { reason: r.u16()? },
        };
        r.finish()?;
        Ok(Self { origin: meta.origin, call_id: CallId(meta.seq_or_ts), body })
    }
}

fn decode_chunk<'a>(r: &mut Reader<'a>, side: Side) -> Result<Body<'a>, DecodeError> {
    Ok(Body::Chunk { side, sequence: r.u64()?, body: r.rest() })
}

fn decode_request<'a>(r: &mut Reader<'a>, is_last: bool) -> Result<Body<'a>, DecodeError> {
    let version = r.u8()?;
    if version != VERSION {
        return Err(DecodeError::UnknownVersion(version));
    }
    let info = RequestInfo {
        service: ChannelHash(r.u64()?),
        budget_ms: r.u32()?,
        response_window: r.u32()?,
        codec: Codec::from_wire(r.u8()?)?,
    };
    Ok(Body::Request { is_last, info, headers: Headers::decode(r)?, body: r.rest() })
}

fn decode_error<'a>(r: &mut Reader<'a>) -> Result<Body<'a>, DecodeError> {
    let status = Status(r.u16()?);
    if status == Status::OK {
        return Err(DecodeError::BadValue("error status"));
    }
    let utf8 = |bytes| core::str::from_utf8(bytes).map_err(|_| DecodeError::BadValue("error text"));
    let len = usize::from(r.u8()?);
    let kind = utf8(r.take(len)?)?;
    let len = usize::from(r.u16()?);
    let len = r.bounded("error detail", len, MAX_RPC_DETAIL_BYTES)?;
    let detail = utf8(r.take(len)?)?;
    Ok(Body::Error { status, kind, detail, body: r.rest() })
}

/// Sender and call, which start every frame.
#[derive(Clone, Copy, Debug)]
pub struct FrameWriter {
    /// The sender.
    pub origin: OriginHash,
    /// The call.
    pub call_id: CallId,
}

impl FrameWriter {
    fn write(&self, frame: FrameType, out: &mut Vec<u8>, tail: impl FnOnce(&mut Vec<u8>)) {
        let meta = EventMeta {
            dispatch: frame as u8,
            flags: 0,
            origin: self.origin,
            seq_or_ts: self.call_id.0,
        };
        meta.encode_with(out, tail);
    }

    /// Appends a REQUEST; `headers` are as [`encode_headers`] wrote them.
    pub fn request(&self, info: &RequestInfo, headers: &[u8], body: &[u8], out: &mut Vec<u8>) {
        self.write(FrameType::Request, out, |out| {
            let mut fixed = [0u8; 18];
            fixed[0] = VERSION;
            fixed[1..9].copy_from_slice(&info.service.0.to_le_bytes());
            fixed[9..13].copy_from_slice(&info.budget_ms.to_le_bytes());
            fixed[13..17].copy_from_slice(&info.response_window.to_le_bytes());
            fixed[17] = info.codec as u8;
            out.extend_from_slice(&fixed);
            out.extend_from_slice(if headers.is_empty() { &[0] } else { headers });
            out.extend_from_slice(body);
        });
    }

    /// Appends a RESPONSE; `headers` are as [`encode_headers`] wrote them.
    pub fn response(&self, headers: &[u8], body: &[u8], out: &mut Vec<u8>) {
        self.write(FrameType::Response, out, |out| {
            out.extend_from_slice(if headers.is_empty() { &[0] } else { headers });
            out.extend_from_slice(body);
        });
    }

    /// Appends an ERROR; kind and detail are cut at their limits.
    pub fn error(&self, status: Status, kind: &str, detail: &str, body: &[u8], out: &mut Vec<u8>) {
        self.write(FrameType::ResponseError, out, |out| {
            let kind = cut(kind, usize::from(u8::MAX));
            let detail = cut(detail, MAX_RPC_DETAIL_BYTES);
            out.extend_from_slice(&status.0.to_le_bytes());
            out.push(kind.len() as u8);
            out.extend_from_slice(kind.as_bytes());
            out.extend_from_slice(&(detail.len() as u16).to_le_bytes());
            out.extend_from_slice(detail.as_bytes());
            out.extend_from_slice(body);
        });
    }

    /// Appends a CANCEL.
    pub fn cancel(&self, reason: u16, out: &mut Vec<u8>) {
        self.write(FrameType::RequestCancel, out, |out| {
            out.extend_from_slice(&reason.to_le_bytes());
        });
    }
}

fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::golden::hex;

    const WRITER: FrameWriter = FrameWriter { origin: OriginHash(1), call_id: CallId(2) };

    /// Meta without checksum, which other tests pin.
    fn golden(frame: &[u8]) -> String {
        format!("{} {}", hex(&frame[..20]), hex(&frame[24..]))
    }

    #[test]
    fn request_layout_is_pinned_and_round_trips() {
        let info = RequestInfo {
            service: ChannelHash(0xAB),
            budget_ms: 1000,
            response_window: 0,
            codec: Codec::Postcard,
        };
        let mut headers = Vec::new();
        encode_headers(&[("k".into(), b"v".to_vec())], &mut headers).unwrap();
        let mut out = Vec::new();
        WRITER.request(&info, &headers, b"body", &mut out);
        assert_eq!(
            golden(&out),
            "1400000001000000000000000200000000000000 \
             01ab00000000000000e8030000000000000201016b010076626f6479"
        );
        let frame = Frame::decode(&out).unwrap();
        assert_eq!((frame.origin, frame.call_id), (OriginHash(1), CallId(2)));
        let Body::Request { is_last: true, info: read, headers, body } = frame.body else {
            panic!("{frame:?}")
        };
        assert_eq!((read, body), (info, &b"body"[..]));
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("k", &b"v"[..])]);
    }

    #[test]
    fn reply_layouts_are_pinned() {
        let mut out = Vec::new();
        WRITER.response(&[], b"ok", &mut out);
        assert_eq!(golden(&out), "1500000001000000000000000200000000000000 006f6b");
        out.clear();
        WRITER.error(Status::BACKPRESSURE, "full", "try later", b"", &mut out);
        assert_eq!(
            golden(&out),
            "1800000001000000000000000200000000000000 04000466756c6c0900747279206c61746572"
        );
        out.clear();
        WRITER.cancel(3, &mut out);
        assert_eq!(golden(&out), "1300000001000000000000000200000000000000 0300");
    }

    /// A frame of call 2 whose body is `tail`.
    fn framed(dispatch: u8, tail: &[u8]) -> Vec<u8> {
        let meta = EventMeta { dispatch, flags: 0, origin: OriginHash(1), seq_or_ts: 2 };
        let mut out = Vec::new();
        meta.encode_with(&mut out, |out| out.extend_from_slice(tail));
        out
    }

    #[test]
    fn frames_of_longer_calls_are_pinned() {
        let sequence = [7, 0, 0, 0, 0, 0, 0, 0];
        let chunk = [&sequence[..], b"part"].concat();
        let end = [&sequence[..], &[1, 1, b'k', 1, 0, b'v']].concat();
        let (caller, server) = (Side::Caller, Side::Server);
        let none = Headers::default();
        let trailers = Headers(&[1, b'k', 1, 0, b'v']);
        let bodies = [
            (0x11, &chunk[..], Body::Chunk { side: caller, sequence: 7, body: b"part" }),
            (0x16, &chunk, Body::Chunk { side: server, sequence: 7, body: b"part" }),
            (0x12, &sequence, Body::End { side: caller, last_sequence: 7, headers: none }),
            (0x17, &end, Body::End { side: server, last_sequence: 7, headers: trailers }),
            (0x19, &[9, 0, 0, 0], Body::Grant { side: server, chunks: 9 }),
            (0x1A, &[9, 0, 0, 0], Body::Grant { side: caller, chunks: 9 }),
        ];
        for (number, tail, body) in bodies {
            let frame = framed(number, tail);
            assert_eq!(Frame::decode(&frame).unwrap().body, body, "frame {number:#x}");
            assert!(Frame::decode(&framed(number, &tail[..3])).is_err(), "frame {number:#x}");
        }
        let request = request_tail();
        let frame = framed(0x10, &request);
        assert!(matches!(
            Frame::decode(&frame).unwrap().body,
            Body::Request { is_last: false, .. }
        ));
        assert!(Frame::decode(&framed(0x1B, &[0; 12])).is_err(), "reserved");
    }

    /// Body of a request without headers.
    fn request_tail() -> Vec<u8> {
        let codec = Codec::Raw;
        let service = ChannelHash(1);
        let info = RequestInfo { service, budget_ms: 1, response_window: 0, codec };
        let mut out = Vec::new();
        WRITER.request(&info, &[], b"", &mut out);
        out.split_off(24)
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let mut out = Vec::new();
        let text = "ä".repeat(1_000);
        WRITER.error(Status::INTERNAL, &text, &text, b"", &mut out);
        let Body::Error { kind, detail, .. } = Frame::decode(&out).unwrap().body else {
            panic!("not an error frame")
        };
        assert_eq!((kind.len(), detail.len()), (254, 1024));
    }

    #[test]
    fn headers_above_a_limit_are_refused_on_both_sides() {
        let many = vec![("n".to_owned(), Vec::new()); 33];
        assert!(encode_headers(&many, &mut Vec::new()).is_err());
        let mut out = Vec::new();
        WRITER.response(&[33], b"", &mut out);
        assert!(Frame::decode(&out).is_err());
    }
}
