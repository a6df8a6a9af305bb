//! The frames that carry requests and responses.
//!
//! ```text
//! request   version u8 = 1 · request id (0, or 1 and client [16] · counter LEB128 · since LEB128)
//!           · token (0, or 1 and a byte string) · number u16 little-endian · body to the end
//! response  version u8 = 1 · applied revision LEB128 · 0 and the reply, or 1 and the error
//! ```
//!
//! A response has no number: the caller knows the type of the reply to its request. Bodies are
//! described in [`crate::codec`].

use core::fmt;

use bytes::Bytes;
use net_types::limits::MAX_TOKEN_BYTES;

use crate::codec::{Bounded, DecodeError, Input, Wire, put_varint};
use crate::{ApiError, ErrorCode, Number, Request, Revision};

/// The version of both frames.
pub const FRAME_VERSION: u8 = 1;

const STATUS_OK: u8 = 0;
const STATUS_ERROR: u8 = 1;

/// A client's random name for itself, drawn when it starts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub [u8; 16]);

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({:032x})", u128::from_be_bytes(self.0))
    }
}

/// Names one logical write, so that repeating it is answered instead of applied again.
///
/// A client counts from 1 and keeps the span between its oldest unanswered and its newest counter
/// below 128; what falls out of that window is refused as `SESSION_EXPIRED`. So is an id that is
/// older than answers which the store has forgotten, since it cannot tell whether this one was among
/// them. Counter 0 asks for no de-duplication, as reads do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The client.
    pub client: ClientId,
    /// The write's number within it.
    pub counter: u64,
    /// The newest revision that the client had seen when it chose the id, 0 if none: the revision
    /// that carries the request out is later.
    pub since: Revision,
}

impl RequestId {
    /// No id: the request may be applied as often as it arrives.
    pub const NONE: Self = Self { client: ClientId([0; 16]), counter: 0, since: Revision(0) };

    /// This id, unless it asks for no de-duplication.
    pub fn some(self) -> Option<Self> {
        (self.counter > 0).then_some(self)
    }
}

impl Wire for RequestId {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.client.0);
        put_varint(self.counter, out);
        put_varint(self.since.0, out);
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        let client = ClientId(input.array()?);
        Ok(Self { client, counter: input.varint()?, since: Revision(input.varint()?) })
    }

    fn size_hint(&self) -> usize {
        24
    }
}

/// A request as it travels: its number, its encoded body and who asks. Its debug text leaves the
/// token out, since a bearer's token works for anyone who has its text.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestFrame {
    /// The id of the write.
    pub request_id: RequestId,
    /// A capability token, at most 8 KiB.
    pub token: Option<Bytes>,
    /// Which request it is.
    pub number: Number,
    /// The request's encoding.
    pub body: Bytes,
}

impl fmt::Debug for RequestFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestFrame")
            .field("number", &self.number)
            .field("request_id", &self.request_id)
            .field("token", &self.token.as_ref().map(|_| "redacted"))
            .finish_non_exhaustive()
    }
}

fn put_head(request_id: RequestId, token: Option<&Bytes>, number: Number, out: &mut Vec<u8>) {
    out.push(FRAME_VERSION);
    request_id.some().put(out);
    out.push(token.is_some().into());
    if let Some(token) = token {
        token.put_bounded(out);
    }
    out.extend_from_slice(&number.to_wire().to_le_bytes());
}

fn head_hint(token: Option<&Bytes>) -> usize {
    44 + token.map_or(0, Bytes::len)
}

impl RequestFrame {
    /// The frame of a request.
    pub fn of<R: Request>(request: &R, request_id: RequestId, token: Option<&Bytes>) -> Bytes {
        let mut out = Vec::with_capacity(head_hint(token) + request.size_hint());
        put_head(request_id, token, R::NUMBER, &mut out);
        request.put(&mut out);
        out.into()
    }

    /// The frame.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(head_hint(self.token.as_ref()) + self.body.len());
        put_head(self.request_id, self.token.as_ref(), self.number, &mut out);
        out.extend_from_slice(&self.body);
        out.into()
    }

    /// Reads a frame; its body shares `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut input = Input::new(bytes);
        take_version(&mut input)?;
        let request_id = match <Option<RequestId> as Wire>::take(&mut input)? {
            Some(RequestId { counter: 0, .. }) => return Err(DecodeError::BadValue("request id")),
            id => id.unwrap_or(RequestId::NONE),
        };
        let token = Option::<Bytes>::take_bounded(&mut input, "token", MAX_TOKEN_BYTES)?;
        let number = Number::from_wire(u16::from_le_bytes(input.array()?));
        Ok(Self { request_id, token, number, body: input.rest() })
    }
}

/// An answer and how far the node that gives it has applied the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response<T> {
    /// The newest revision that the node has applied: a later read elsewhere that is at least as new
    /// sees what this answer tells.
    pub applied: Revision,
    /// The reply, or why there is none.
    pub result: Result<T, ApiError>,
}

impl<T: Wire> Response<T> {
    /// The frame.
    pub fn encode(&self) -> Bytes {
        let hint = match &self.result {
            Ok(reply) => reply.size_hint(),
            Err(error) => error.size_hint(),
        };
        let mut out = Vec::with_capacity(12 + hint);
        out.push(FRAME_VERSION);
        put_varint(self.applied.0, &mut out);
        match &self.result {
            Ok(reply) => {
                out.push(STATUS_OK);
                reply.put(&mut out);
            }
            Err(error) => {
                out.push(STATUS_ERROR);
                error.put(&mut out);
            }
        }
        out.into()
    }

    /// Reads a frame; values of the reply share `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut input = Input::new(bytes);
        take_version(&mut input)?;
        let applied = Revision::take(&mut input)?;
        let result = match input.u8()? {
            STATUS_OK => Ok(T::take(&mut input)?),
            STATUS_ERROR => Err(ApiError::take(&mut input)?),
            other => {
                return Err(DecodeError::UnknownTag { what: "response", value: other.into() });
            }
        };
        input.finish()?;
        Ok(Self { applied, result })
    }
}

/// A reply that is not decoded yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedReply(pub Bytes);

impl Wire for EncodedReply {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        Ok(Self(input.rest()))
    }

    fn size_hint(&self) -> usize {
        self.0.len()
    }
}

/// The error of a request whose answer cannot be read: `INTERNAL_ERROR`, since the request may have
/// been carried out.
pub fn unreadable_answer(error: &DecodeError) -> ApiError {
    ApiError::new(ErrorCode::InternalError, format!("the answer cannot be read: {error}"))
}

fn take_version(input: &mut Input) -> Result<(), DecodeError> {
    match input.u8()? {
        FRAME_VERSION => Ok(()),
        other => Err(DecodeError::UnknownVersion(other)),
    }
}
