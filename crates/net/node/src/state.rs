//! The node's state behind its one lock: endpoint, calls, services, streams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use net_crypto::{RngCore, Seeded, origin_hash};
use net_mesh_core::{
    Class, CloseReason, DialError, DropReason, Endpoint, Event, ResetReason, SendError,
    SessionEvent, StreamConfig, StreamMode, Subprotocol,
};
use net_rpc::{
    Admission, Calls, FrameWriter, Incoming, Request, RpcError, RpcFailure, RpcHandler, RpcReply,
    Services, Status, classify, rpc_stream,
};
use net_types::limits::{MAX_WAITING_OWN_CALLS, RPC_STREAM_WINDOW_BYTES};
use net_types::{CallId, EntityId, IdMap, Instant, NodeId, OriginHash, SessionId, StreamId};
use tokio::sync::oneshot;

use crate::replies::WaitingReplies;
use crate::stream_table::StreamTable;

/// Room for the parts of a frame around a body and headers.
pub(crate) const FRAME_ROOM: usize = 64;

pub(crate) type CallResult = Result<RpcReply, RpcError>;

/// Stands for the session with this node itself; no session has this id.
pub(crate) const OWN_SESSION: SessionId = SessionId(0);

/// Who waits for a call.
pub(crate) struct Caller {
    pub(crate) started: Instant,
    pub(crate) tell: oneshot::Sender<CallResult>,
}

/// What became of calls.
#[derive(Default)]
pub(crate) struct CallCounts {
    pub(crate) made: u64,
    pub(crate) replies: u64,
    /// Nanoseconds from the call to its reply, errors of the server included.
    pub(crate) latency_ns: u64,
    /// By [`RpcError::KINDS`].
    pub(crate) errors: [u64; RpcError::KINDS.len()],
    pub(crate) handled: u64,
    pub(crate) handler_panics: u64,
    /// Replies that came from another session than the call went to.
    pub(crate) auth_rejections: u64,
}
pub(crate) type Handler = Arc<dyn RpcHandler>;

/// A request whose handler runs when the lock is free.
pub(crate) struct InboxCall {
    pub(crate) session: SessionId,
    pub(crate) peer: NodeId,
    pub(crate) entity: EntityId,
    pub(crate) call: CallId,
    pub(crate) class: Class,
    pub(crate) handler: Handler,
    pub(crate) request: Request,
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyTo {
    pub(crate) session: SessionId,
    pub(crate) call: CallId,
    pub(crate) class: Class,
}

pub(crate) struct Core {
    pub(crate) endpoint: Endpoint,
    pub(crate) calls: Calls<Caller>,
    pub(crate) counts: CallCounts,
    pub(crate) services: Services<Handler>,
    pub(crate) streams: StreamTable,
    inbox: Vec<InboxCall>,
    /// Calls of this node to itself in the inbox.
    waiting_own_calls: usize,
    pub(crate) waiters: BTreeMap<NodeId, Vec<oneshot::Sender<Result<(), DialError>>>>,
    pub(crate) entities: IdMap<SessionId, EntityId>,
    /// Replies that found their stream full.
    pub(crate) replies: WaitingReplies,
    /// Sessions that others took over from.
    draining: Vec<SessionId>,
    pub(crate) origin: OriginHash,
    pub(crate) rng: Seeded,
    /// The driver, while it waits.
    pub(crate) waker: Option<Waker>,
    /// When the first call since the driver's last turn was made.
    called_at: Option<Instant>,
    pub(crate) is_closed: bool,
    pub(crate) malformed_frames: u64,
    pending_credit: PendingCredit,
}

/// Credit of consecutive messages of one stream, returned in one step.
#[derive(Default)]
struct PendingCredit(Option<(SessionId, StreamId, u32)>);

impl PendingCredit {
    fn add(
        &mut self,
        endpoint: &mut Endpoint,
        now: Instant,
        session: SessionId,
        stream: StreamId,
        credit: u32,
    ) {
        match &mut self.0 {
            Some((s, id, sum)) if *s == session && *id == stream => {
                *sum = sum.saturating_add(credit);
            }
            _ => {
                self.settle(endpoint, now);
                self.0 = Some((session, stream, credit));
            }
        }
    }

    fn settle(&mut self, endpoint: &mut Endpoint, now: Instant) {
        if let Some((session, stream, sum)) = self.0.take() {
            endpoint.consume(now, session, stream, sum);
        }
    }
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

impl Core {
    pub(crate) fn new(endpoint: Endpoint, rng: Seeded) -> Self {
        let own = endpoint.entity_id();
        let origin = origin_hash(&own);
        Self {
            endpoint,
            calls: Calls::new(),
            counts: CallCounts::default(),
            services: Services::new(),
            streams: StreamTable::default(),
            inbox: Vec::new(),
            waiting_own_calls: 0,
            waiters: BTreeMap::new(),
            entities: IdMap::from_iter([(OWN_SESSION, own)]),
            replies: WaitingReplies::default(),
            draining: Vec::new(),
            origin,
            rng,
            waker: None,
            called_at: None,
            is_closed: false,
            malformed_frames: 0,
            pending_credit: PendingCredit::default(),
        }
    }

    /// Has the driver look at what changed. Only the first call of a turn costs anything.
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The present, read at most once between two turns of the driver: calls that are made together
    /// share it.
    pub(crate) fn call_time(&mut self, clock: impl FnOnce() -> Instant) -> Instant {
        *self.called_at.get_or_insert_with(clock)
    }

    /// A turn of the driver begins; it is woken through `waker` for the next one.
    pub(crate) fn begin_turn(&mut self, waker: &Waker) {
        self.called_at = None;
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
    }

    /// Moves the requests that arrived to `inbox`.
    pub(crate) fn take_inbox(&mut self, inbox: &mut Vec<InboxCall>) {
        inbox.append(&mut self.inbox);
        self.waiting_own_calls = 0;
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Takes everything the endpoint reports. Requests end up in the inbox.
    pub(crate) fn process_events(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Connected { peer, entity, session, is_initiator } => {
                    self.entities.insert(session, entity);
                    self.open_rpc_streams(now, session, is_initiator);
                    self.tell_waiters(peer, Ok(()));
                }
                Event::DialFailed { peer, error } => {
                    self.tell_waiters(peer, Err(error));
                }
                Event::Draining { session } => {
                    // It may have been taken into use again meanwhile.
                    self.draining.retain(|s| *s != session);
                    self.draining.push(session);
                }
                Event::Disconnected { session, .. } => self.on_disconnected(session),
                Event::Session { peer, session, event } => {
                    self.on_session_event(now, peer, session, event);
                }
            }
        }
        self.pending_credit.settle(&mut self.endpoint, now);
        self.hold_draining(now);
    }

    /// Keeps sessions that others took over from while calls on them are open.
    fn hold_draining(&mut self, now: Instant) {
        for session in &self.draining {
            let is_held = self.services.has_session(*session)
                || self.replies.has_session(*session)
                || self.calls.has_session(*session);
            self.endpoint.hold_session(now, *session, is_held);
        }
    }

    fn tell_waiters(&mut self, peer: NodeId, result: Result<(), DialError>) {
        for waiter in self.waiters.remove(&peer).unwrap_or_default() {
            // A waiter that left needs no answer.
            let _ = waiter.send(result);
        }
    }

    fn open_rpc_streams(&mut self, now: Instant, session: SessionId, is_initiator: bool) {
        for class in Class::BY_URGENCY {
            let config = StreamConfig {
                mode: StreamMode::RELIABLE,
                class,
                weight: 64,
                window_bytes: RPC_STREAM_WINDOW_BYTES,
                subprotocol: Subprotocol::RPC,
            };
            let id = rpc_stream(class, is_initiator);
            // A session that is up has room for its first streams; one that just closed reports it.
            let _ = self.endpoint.ensure_stream(now, session, id, config);
        }
    }

    fn on_disconnected(&mut self, session: SessionId) {
        self.entities.remove(&session);
        self.draining.retain(|s| *s != session);
        for caller in self.calls.fail_session(session) {
            let _ = caller.tell.send(Err(RpcError::Transport));
        }
        self.services.fail_session(session);
        self.streams.fail_session(session);
        self.replies.forget(session);
    }

    fn on_session_event(
        &mut self,
        now: Instant,
        peer: NodeId,
        session: SessionId,
        event: SessionEvent,
    ) {
        match event {
            SessionEvent::Message {
                stream_id,
                subprotocol: Subprotocol::RPC,
                class,
                message,
                credit,
            } => {
                self.pending_credit.add(&mut self.endpoint, now, session, stream_id, credit);
                self.on_frame(now, peer, session, class, message);
            }
            SessionEvent::Message { stream_id, message, credit, .. } => {
                if !self.streams.deliver(session, stream_id, message, credit) {
                    self.endpoint.count_dropped(DropReason::QueueFull);
                }
            }
            SessionEvent::StreamOpened { subprotocol: Subprotocol::RPC, .. } => {}
            SessionEvent::StreamOpened { stream_id, subprotocol, mode } => {
                if !self.streams.opened(peer, session, stream_id, mode, subprotocol) {
                    let reason = ResetReason::Refused;
                    self.endpoint.reset_stream(now, session, stream_id, reason);
                }
            }
            SessionEvent::StreamFinished { stream_id } => self.streams.finished(session, stream_id),
            SessionEvent::StreamFlushed { stream_id } => self.streams.flushed(session, stream_id),
            SessionEvent::Writable { stream_id } => {
                self.streams.writable(session, stream_id);
                let endpoint = &mut self.endpoint;
                self.replies.retry(session, stream_id, |frame| {
                    endpoint.send(now, session, stream_id, frame)
                });
            }
            SessionEvent::StreamReset { stream_id, reason, .. } => {
                let is_rpc = Class::BY_URGENCY.iter().any(|class| {
                    [true, false].iter().any(|side| rpc_stream(*class, *side) == stream_id)
                });
                if is_rpc {
                    // Calls cannot go on without their stream; a new session starts clean.
                    self.endpoint.close_session(now, session, CloseReason::Disconnected);
                } else {
                    self.streams.reset(session, stream_id, reason);
                }
            }
            SessionEvent::Confirmed | SessionEvent::Closed { .. } => {}
        }
    }

    fn on_frame(
        &mut self,
        now: Instant,
        peer: NodeId,
        session: SessionId,
        class: Class,
        message: Bytes,
    ) {
        match classify(message) {
            Ok(Incoming::Reply(call, result)) => self.complete(now, session, call, result),
            Ok(Incoming::Request(call, request)) => {
                let to = ReplyTo { session, call, class };
                self.on_request(now, peer, to, request);
            }
            Ok(Incoming::Cancel(call)) => self.services.cancel(session, call),
            Err(_) => self.malformed_frames += 1,
        }
    }

    #[inline]
    fn on_request(&mut self, now: Instant, peer: NodeId, to: ReplyTo, request: Request) {
        let ReplyTo { session, call, class } = to;
        if self.replies.is_choked(session) {
            return self.reply(now, to, Err(choked()));
        }
        match self.services.admit(session, call, request.service, request.budget_ms) {
            Admission::Run(handler) => {
                let Some(&entity) = self.entities.get(&session) else { return };
                let inbox = InboxCall { session, peer, entity, call, class, handler, request };
                self.counts.handled += 1;
                self.inbox.push(inbox);
            }
            Admission::Refuse(failure) => self.reply(now, to, Err(failure)),
            Admission::Ignore => {}
        }
    }

    /// A call of this node to itself: no packet is made of it.
    pub(crate) fn call_own(
        &mut self,
        now: Instant,
        call: CallId,
        class: Class,
        request: Request,
    ) -> Result<(), SendError> {
        if self.waiting_own_calls >= MAX_WAITING_OWN_CALLS {
            return Err(SendError::Backpressure);
        }
        self.waiting_own_calls += 1;
        let to = ReplyTo { session: OWN_SESSION, call, class };
        self.on_request(now, self.endpoint.node_id(), to, request);
        Ok(())
    }

    #[inline]
    fn complete(&mut self, now: Instant, session: SessionId, call: CallId, result: CallResult) {
        if let Some(caller) = self.calls.complete(session, call) {
            self.counts.replies += 1;
            self.counts.latency_ns += now.as_nanos().saturating_sub(caller.started.as_nanos());
            let _ = caller.tell.send(result);
        } else if self.calls.is_open(call) {
            self.counts.auth_rejections += 1;
        }
    }

    /// Sends an answer; one that finds no room waits, and is not dropped while its session lives.
    pub(crate) fn reply(&mut self, now: Instant, to: ReplyTo, answer: Result<Bytes, RpcFailure>) {
        if to.session == OWN_SESSION {
            return self.complete(now, to.session, to.call, own_result(answer));
        }
        let Some(is_initiator) = self.endpoint.is_initiator(to.session) else { return };
        let stream = rpc_stream(to.class, is_initiator);
        let writer = FrameWriter { origin: self.origin, call_id: to.call };
        let (len, answer) = match &answer {
            Ok(body) if body.len() > net_types::limits::MAX_UNARY_BODY_BYTES => {
                let detail = format!("the reply of {} bytes is too long", body.len());
                let failure = RpcFailure::new(Status::INTERNAL, "reply_too_large", detail);
                (FRAME_ROOM + 1_024, Err(failure))
            }
            Ok(body) => (FRAME_ROOM + body.len(), answer),
            Err(failure) => (FRAME_ROOM + 255 + failure.detail.len() + failure.body.len(), answer),
        };
        let write = |out: &mut Vec<u8>| match &answer {
            Ok(body) => writer.response(&[], body, out),
            Err(f) => writer.error(f.status, f.kind, &f.detail, &f.body, out),
        };
        if !self.replies.is_waiting(to.session, stream)
            && self.endpoint.send_with(now, to.session, stream, len, write)
                != Err(SendError::Backpressure)
        {
            return;
        }
        let mut frame = Vec::with_capacity(len);
        write(&mut frame);
        if let Some(session) = self.replies.push(to.session, stream, Bytes::from(frame)) {
            self.endpoint.close_session(now, session, CloseReason::Overloaded);
        }
    }

    /// Ends the calls whose deadline passed and tells their servers.
    pub(crate) fn expire_calls(&mut self, now: Instant) {
        while let Some(ended) = self.calls.pop_expired(now) {
            self.send_cancel(now, ended.session, ended.class, ended.id);
            let _ = ended.user.tell.send(Err(RpcError::Timeout));
        }
    }

    /// The caller dropped its call.
    pub(crate) fn cancel_call(&mut self, now: Instant, call: CallId) {
        if let Some(ended) = self.calls.cancel(call) {
            self.counts.errors[RpcError::Cancelled.kind_index()] += 1;
            self.send_cancel(now, ended.session, ended.class, ended.id);
            self.wake();
        }
    }

    fn send_cancel(&mut self, now: Instant, session: SessionId, class: Class, call: CallId) {
        if session == OWN_SESSION {
            return self.services.cancel(session, call);
        }
        let Some(is_initiator) = self.endpoint.is_initiator(session) else { return };
        let stream = rpc_stream(class, is_initiator);
        let writer = FrameWriter { origin: self.origin, call_id: call };
        // A cancel that finds no room is left out: the server's budget ends the work.
        let _ = self.endpoint.send_with(now, session, stream, FRAME_ROOM, |out| {
            writer.cancel(0, out);
        });
    }

    /// Counts of one reason, for metrics.
    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.endpoint.counters().drops(reason)
    }

    /// The next time at which the driver must act without input.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let timers = [self.endpoint.next_timeout(), self.calls.next_deadline()];
        timers.into_iter().flatten().min()
    }

    /// Ends everything: sessions are told, callers and waiters fail.
    pub(crate) fn close(&mut self, now: Instant) {
        self.is_closed = true;
        self.endpoint.close_all(now, CloseReason::Shutdown);
        self.process_events(now);
        self.on_disconnected(OWN_SESSION);
        while let Some((peer, _)) = self.waiters.first_key_value() {
            self.tell_waiters(*peer, Err(DialError::Closed));
        }
        self.streams.close();
        self.wake();
    }
}

#[cfg(test)]
mod tests;
