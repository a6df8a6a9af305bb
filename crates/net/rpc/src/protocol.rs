//! Calls as a protocol of the mesh: the tables of callers and services behind one number.
//!
//! [`Rpc`] owns the calls that this node waits for (each with a `W` that is told of its end), the
//! services with their handlers `H`, and the replies that found no room. It runs no handler: what
//! arrived is given out by [`Rpc::take_arrived`] and answered through [`Rpc::finish`], so that the
//! driver runs handlers without its lock.
//!
//! Invariants: a call ends once, by a reply from the session that it went to, its deadline, its
//! cancel or the end of that session; an admitted request is answered once, or not at all when its
//! caller gave it up; a reply is not dropped while its session lives.

use bytes::Bytes;
use net_mesh_core::{
    Class, CloseReason, Cx, Message, PeerEvent, Protocol, SendError, StreamConfig, StreamEvent,
    StreamMode, StreamRef, Subprotocol,
};
use net_types::limits::{MAX_UNARY_BODY_BYTES, MAX_WAITING_OWN_CALLS, RPC_STREAM_WINDOW_BYTES};
use net_types::{CallId, EntityId, IdMap, Instant, NodeId, OriginHash, SessionId, StreamId};
use net_wire::rpc::{FrameWriter, RequestInfo, Status, encode_headers};

use crate::message::is_rpc_stream;
use crate::replies::WaitingReplies;
use crate::{
    Admission, CallOptions, Calls, Incoming, Request, RpcError, RpcFailure, RpcReply, ServiceName,
    Services, classify, rpc_stream,
};

/// Room for the parts of a frame around a body and headers.
const FRAME_ROOM: usize = 64;

/// Stands for the session with this node itself; no session has this id.
const OWN_SESSION: SessionId = SessionId(0);

/// What a caller gets.
pub type CallResult = Result<RpcReply, RpcError>;

/// Gets the result of a call, under the driver's lock: it must neither wait nor call back.
pub trait Waiter: Send + 'static {
    /// The call ended.
    fn finish(self, result: CallResult);
}

/// A request that is checked and encoded as far as it can be without a session.
pub struct Outgoing<'a> {
    info: RequestInfo,
    headers: Vec<u8>,
    body: &'a Bytes,
    options: &'a CallOptions,
}

impl<'a> Outgoing<'a> {
    /// Fails when the body or the headers are above their limits.
    pub fn new(
        service: &ServiceName,
        body: &'a Bytes,
        options: &'a CallOptions,
    ) -> Result<Self, RpcError> {
        if body.len() > MAX_UNARY_BODY_BYTES {
            let text = format!("a body of {} bytes; at most {MAX_UNARY_BODY_BYTES}", body.len());
            return Err(RpcError::TooLarge(text));
        }
        let mut headers = Vec::new();
        if !options.headers.is_empty() {
            encode_headers(&options.headers, &mut headers)
                .map_err(|e| RpcError::TooLarge(e.to_string()))?;
        }
        let budget_ms = u32::try_from(options.deadline.as_millis()).unwrap_or(u32::MAX);
        let info = RequestInfo {
            service: service.hash(),
            budget_ms: budget_ms.max(1),
            response_window: 0,
            codec: options.codec,
        };
        Ok(Self { info, headers, body, options })
    }

    /// The request as this node itself gets it.
    fn to_own(&self) -> Request {
        let headers = self.options.headers.iter();
        Request {
            is_whole: true,
            service: self.info.service,
            budget_ms: self.info.budget_ms,
            codec: self.info.codec,
            headers: headers.map(|(name, value)| (name.clone(), value.clone().into())).collect(),
            body: self.body.clone(),
        }
    }
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    session: SessionId,
    call: CallId,
    class: Class,
}

/// A request whose handler is to run.
pub struct Arrived<H> {
    /// Where its answer goes.
    pub to: ReplyTo,
    /// The caller's node.
    pub peer: NodeId,
    /// The caller's identity.
    pub entity: EntityId,
    /// What answers it.
    pub handler: H,
    /// The request.
    pub request: Request,
}

/// Counters of calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallCounts {
    /// Own calls.
    pub made: u64,
    /// Own calls without a reply, by [`RpcError::KINDS`].
    pub errors: [u64; RpcError::KINDS.len()],
    /// Own calls with a reply.
    pub replies: u64,
    /// Nanoseconds from own calls to their replies, errors of the server included.
    pub latency_ns: u64,
    /// Calls that a handler was run for.
    pub handled: u64,
    /// Handlers that panicked.
    pub handler_panics: u64,
    /// Frames that could not be read.
    pub malformed: u64,
    /// Frames that their call does not take.
    pub unexpected: u64,
    /// Replies that came from another session than the call went to.
    pub auth_rejections: u64,
}

struct Caller<W> {
    started: Instant,
    waiter: W,
}

struct Session {
    entity: EntityId,
    is_initiator: bool,
}

/// The calls of a node, both ways.
pub struct Rpc<W, H> {
    calls: Calls<Caller<W>>,
    services: Services<H>,
    replies: WaitingReplies,
    arrived: Vec<Arrived<H>>,
    /// Calls of this node to itself in `arrived`.
    waiting_own_calls: usize,
    sessions: IdMap<SessionId, Session>,
    origin: OriginHash,
    counts: CallCounts,
}

/// What a caller on this node gets of an answer.
fn own_result(answer: Result<Bytes, RpcFailure>) -> CallResult {
    match answer {
        Ok(body) => Ok(RpcReply { body, headers: Vec::new() }),
        Err(RpcFailure { status, kind, detail, body }) => {
            Err(RpcError::ServerError { status, kind: kind.to_owned(), detail, body })
        }
    }
}

/// The refusal of a call whose caller does not take its replies.
fn choked() -> RpcFailure {
    let detail = "the caller has too many replies to take";
    RpcFailure::new(Status::BACKPRESSURE, "full", detail)
}

/// The refusal of a call that announces more frames than its service takes.
fn not_whole() -> RpcFailure {
    let detail = "the service takes its request in one frame";
    RpcFailure::new(Status::NOT_FOUND, "call_shape", detail)
}

/// The failure of a call whose answer no frame takes.
fn reply_too_large(len: usize) -> RpcFailure {
    let detail = format!("the reply has {len} bytes; at most {MAX_UNARY_BODY_BYTES} are sent");
    RpcFailure::new(Status::INTERNAL, "reply_too_large", detail)
}

impl<W: Waiter, H: Clone + Send + 'static> Rpc<W, H> {
    /// The calls of a node without sessions and services.
    pub fn new(own: EntityId) -> Self {
        let own_session = Session { entity: own, is_initiator: false };
        Self {
            calls: Calls::new(),
            services: Services::new(),
            replies: WaitingReplies::default(),
            arrived: Vec::new(),
            waiting_own_calls: 0,
            sessions: IdMap::from_iter([(OWN_SESSION, own_session)]),
            origin: net_crypto::origin_hash(&own),
            counts: CallCounts::default(),
        }
    }

    /// The counters of calls.
    pub fn counts(&self) -> &CallCounts {
        &self.counts
    }

    /// Counts an own call that ended without a reply.
    pub fn count_error(&mut self, error: &RpcError) {
        self.counts.errors[error.kind_index()] += 1;
    }

    /// Counts a handler that panicked.
    pub fn count_panic(&mut self) {
        self.counts.handler_panics += 1;
    }

    /// Own calls that are open.
    pub fn open_calls(&self) -> usize {
        self.calls.len()
    }

    /// Calls that handlers work on.
    pub fn in_flight(&self) -> usize {
        self.services.in_flight()
    }

    /// Bytes of replies that found no room yet.
    pub fn waiting_reply_bytes(&self) -> usize {
        self.replies.bytes()
    }

    /// Adds a service; false when the name is taken or the table full.
    pub fn serve(&mut self, name: ServiceName, handler: H) -> bool {
        self.services.add(name, handler)
    }

    /// Stops dispatch to a service; calls under way finish.
    pub fn unserve(&mut self, name: &ServiceName) {
        self.services.remove(name);
    }

    /// Opens a call to a peer, or to this node itself, and queues its request; `None` when there
    /// is no session with the peer. Calls to this node itself fail once it has stopped.
    #[inline]
    pub fn call(
        &mut self,
        cx: &mut Cx<'_>,
        peer: NodeId,
        request: &Outgoing<'_>,
        waiter: W,
    ) -> Result<Option<CallId>, RpcError> {
        let session = if peer == cx.node_id() {
            // The session with this node itself ends when the node stops.
            self.sessions
                .contains_key(&OWN_SESSION)
                .then_some(OWN_SESSION)
                .ok_or(RpcError::Cancelled)?
        } else {
            let Some(session) = cx.live_session(peer) else { return Ok(None) };
            session
        };
        let (started, class) = (cx.now(), request.options.class);
        let deadline = started + request.options.deadline;
        let caller = Caller { started, waiter };
        let call = self
            .calls
            .open(cx.random(), session, class, deadline, caller)
            .map_err(|_| RpcError::Backpressure)?;
        self.counts.made += 1;
        let to = ReplyTo { session, call, class };
        let sent = if session == OWN_SESSION {
            self.call_own(cx, to, request.to_own())
        } else {
            let len = FRAME_ROOM + request.headers.len() + request.body.len();
            self.send(cx, to, len, |writer, out| {
                writer.request(&request.info, &request.headers, request.body, out);
            })
        };
        match sent {
            Ok(()) => Ok(Some(call)),
            Err(error) => {
                self.calls.cancel(call);
                Err(match error {
                    SendError::Backpressure => RpcError::Backpressure,
                    SendError::TooLarge => RpcError::TooLarge(error.to_string()),
                    SendError::StreamClosed | SendError::SessionClosed => RpcError::Transport,
                })
            }
        }
    }

    /// A call of this node to itself: no packet is made of it.
    fn call_own(
        &mut self,
        cx: &mut Cx<'_>,
        to: ReplyTo,
        request: Request,
    ) -> Result<(), SendError> {
        if self.waiting_own_calls >= MAX_WAITING_OWN_CALLS {
            return Err(SendError::Backpressure);
        }
        self.waiting_own_calls += 1;
        self.on_request(cx, cx.node_id(), to, request);
        Ok(())
    }

    /// The stream of this side's frames of a call, while its session lives.
    #[inline]
    fn stream_of(&self, to: ReplyTo) -> Option<StreamId> {
        let session = self.sessions.get(&to.session)?;
        Some(rpc_stream(to.class, session.is_initiator))
    }

    /// Queues a frame of a call.
    #[inline]
    fn send(
        &self,
        cx: &mut Cx<'_>,
        to: ReplyTo,
        len: usize,
        write: impl FnOnce(FrameWriter, &mut Vec<u8>),
    ) -> Result<(), SendError> {
        let stream = self.stream_of(to).ok_or(SendError::SessionClosed)?;
        let writer = FrameWriter { origin: self.origin, call_id: to.call };
        cx.send_with(to.session, stream, len, |out| write(writer, out))
    }

    /// The caller dropped a call; false when it has ended.
    pub fn cancel(&mut self, cx: &mut Cx<'_>, call: CallId) -> bool {
        let Some(ended) = self.calls.cancel(call) else { return false };
        self.send_cancel(cx, ReplyTo { session: ended.session, call, class: ended.class });
        true
    }

    fn send_cancel(&mut self, cx: &mut Cx<'_>, to: ReplyTo) {
        if to.session == OWN_SESSION {
            return self.services.cancel(to.session, to.call);
        }
        // A cancel that finds no room is left out: the server's budget ends the work.
        let _ = self.send(cx, to, FRAME_ROOM, |writer, out| writer.cancel(0, out));
    }

    /// Moves the requests that arrived to `out`, for their handlers to run.
    #[inline]
    pub fn take_arrived(&mut self, out: &mut Vec<Arrived<H>>) {
        out.append(&mut self.arrived);
        self.waiting_own_calls = 0;
    }

    fn on_frame(&mut self, cx: &mut Cx<'_>, stream: StreamRef, class: Class, message: Bytes) {
        let session = stream.session;
        match classify(message) {
            Ok(Incoming::Reply(call, result)) => self.complete(cx.now(), session, call, result),
            Ok(Incoming::Request(call, request)) => {
                self.on_request(cx, stream.peer, ReplyTo { session, call, class }, request);
            }
            Ok(Incoming::Cancel(call)) => self.services.cancel(session, call),
            // Every call of this node is one frame a side, so none has room for others.
            Ok(Incoming::Part(_)) => self.counts.unexpected += 1,
            Err(_) => self.counts.malformed += 1,
        }
    }

    #[inline]
    fn on_request(&mut self, cx: &mut Cx<'_>, peer: NodeId, to: ReplyTo, request: Request) {
        if self.replies.is_choked(to.session) {
            return self.reply(cx, to, Err(choked()));
        }
        let Some(session) = self.sessions.get(&to.session) else { return };
        let entity = session.entity;
        match self.services.admit(to.session, to.call, request.service, request.budget_ms) {
            Admission::Run(_) if !request.is_whole => self.finish(cx, to, Err(not_whole())),
            Admission::Run(handler) => {
                self.counts.handled += 1;
                self.arrived.push(Arrived { to, peer, entity, handler, request });
            }
            Admission::Refuse(failure) => self.reply(cx, to, Err(failure)),
            Admission::Ignore => {}
        }
    }

    #[inline]
    fn complete(&mut self, now: Instant, session: SessionId, call: CallId, result: CallResult) {
        if let Some(caller) = self.calls.complete(session, call) {
            self.counts.replies += 1;
            self.counts.latency_ns += now.as_nanos().saturating_sub(caller.started.as_nanos());
            caller.waiter.finish(result);
        } else if self.calls.is_open(call) {
            self.counts.auth_rejections += 1;
        }
    }

    /// Answers a call, unless its caller gave it up. An answer that finds no room waits, and is not
    /// dropped while its session lives.
    #[inline]
    pub fn finish(&mut self, cx: &mut Cx<'_>, to: ReplyTo, answer: Result<Bytes, RpcFailure>) {
        if self.services.finish(to.session, to.call) {
            self.reply(cx, to, answer);
        }
    }

    #[inline]
    fn reply(&mut self, cx: &mut Cx<'_>, to: ReplyTo, answer: Result<Bytes, RpcFailure>) {
        if to.session == OWN_SESSION {
            return self.complete(cx.now(), to.session, to.call, own_result(answer));
        }
        let Some(stream) = self.stream_of(to) else { return };
        let writer = FrameWriter { origin: self.origin, call_id: to.call };
        let answer = match &answer {
            Ok(body) | Err(RpcFailure { body, .. }) if body.len() > MAX_UNARY_BODY_BYTES => {
                Err(reply_too_large(body.len()))
            }
            Ok(_) | Err(_) => answer,
        };
        let len = FRAME_ROOM
            + match &answer {
                Ok(body) => body.len(),
                Err(f) => f.kind.len() + f.detail.len() + f.body.len(),
            };
        let write = |out: &mut Vec<u8>| match &answer {
            Ok(body) => writer.response(&[], body, out),
            Err(f) => writer.error(f.status, f.kind, &f.detail, &f.body, out),
        };
        if !self.replies.is_waiting(to.session, stream)
            && cx.send_with(to.session, stream, len, write) != Err(SendError::Backpressure)
        {
            return;
        }
        let mut frame = Vec::with_capacity(len);
        write(&mut frame);
        if let Some(session) = self.replies.push(to.session, stream, Bytes::from(frame)) {
            cx.close_session(session, CloseReason::Overloaded);
        }
    }

    /// Counts a call whose handler did not answer at once; false when it is not to continue.
    pub fn begin(&mut self, cx: &mut Cx<'_>, to: ReplyTo) -> bool {
        match self.services.begin(to.session, to.call) {
            Admission::Run(()) => true,
            Admission::Refuse(failure) => {
                self.reply(cx, to, Err(failure));
                false
            }
            Admission::Ignore => false,
        }
    }

    /// Sets what stops a call that [`Rpc::begin`] counted.
    pub fn set_stop(&mut self, to: ReplyTo, stop: impl FnOnce() + Send + 'static) {
        self.services.set_stop(to.session, to.call, stop);
    }

    fn open_streams(cx: &mut Cx<'_>, session: SessionId, is_initiator: bool) {
        for class in Class::BY_URGENCY {
            let config = StreamConfig {
                mode: StreamMode::RELIABLE,
                class,
                weight: 64,
                window_bytes: RPC_STREAM_WINDOW_BYTES,
                subprotocol: Subprotocol::RPC,
            };
            // A session that is up has room for its first streams; one that just closed reports it.
            let _ = cx.ensure_stream(session, rpc_stream(class, is_initiator), config);
        }
    }

    /// A session ended; its calls fail.
    fn forget_session(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        for caller in self.calls.fail_session(session) {
            caller.waiter.finish(Err(RpcError::Transport));
        }
        self.services.fail_session(session);
        self.replies.forget(session);
    }
}

impl<W: Waiter, H: Clone + Send + 'static> Protocol for Rpc<W, H> {
    #[inline]
    fn on_message(&mut self, cx: &mut Cx<'_>, stream: StreamRef, message: Message) {
        cx.consume(stream.session, stream.id, message.credit);
        self.on_frame(cx, stream, message.class, message.bytes);
    }

    fn on_stream(&mut self, cx: &mut Cx<'_>, stream: StreamRef, event: StreamEvent) {
        match event {
            StreamEvent::Writable => self.replies.retry(stream.session, stream.id, |frame| {
                cx.send(stream.session, stream.id, frame)
            }),
            // Calls need their stream; a new session starts clean.
            StreamEvent::Reset { .. } if is_rpc_stream(stream.id) => {
                cx.close_session(stream.session, CloseReason::Disconnected);
            }
            StreamEvent::Opened { .. }
            | StreamEvent::Finished
            | StreamEvent::Flushed
            | StreamEvent::Reset { .. } => {}
        }
    }

    fn on_peer(&mut self, cx: &mut Cx<'_>, event: &PeerEvent) {
        match *event {
            PeerEvent::Up { entity, session, is_initiator, .. } => {
                self.sessions.insert(session, Session { entity, is_initiator });
                Self::open_streams(cx, session, is_initiator);
            }
            PeerEvent::Down { session, .. } => self.forget_session(session),
            PeerEvent::DialFailed { .. } => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.calls.next_deadline()
    }

    /// Ends the calls whose deadline passed and tells their servers.
    fn on_timeout(&mut self, cx: &mut Cx<'_>) {
        while let Some(ended) = self.calls.pop_expired(cx.now()) {
            let to = ReplyTo { session: ended.session, call: ended.id, class: ended.class };
            self.send_cancel(cx, to);
            ended.user.waiter.finish(Err(RpcError::Timeout));
        }
    }

    fn needs_session(&self, session: SessionId) -> bool {
        self.services.has_session(session)
            || self.replies.has_session(session)
            || self.calls.has_session(session)
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>) {
        self.forget_session(OWN_SESSION);
    }

    fn check_invariants(&self) {
        self.calls.check_invariants();
        self.services.check_invariants();
        self.replies.check_invariants();
        assert!(self.waiting_own_calls <= MAX_WAITING_OWN_CALLS);
    }
}

#[cfg(test)]
mod tests;
