//! The session's state, and what its owner and application call.
//!
//! Invariants, which [`Session::check_invariants`] asserts: the timers are those of the phase;
//! whatever waits for the peer has a timer that repeats it; an open session has a heartbeat
//! planned; a closed one holds no streams and no timers. Phases go from provisional to established,
//! between established and draining both ways, and from each to closed, which is final.

mod drain;
mod interface;
mod receive;
mod timers;
mod transmit;

use core::time::Duration;

use bytes::Bytes;
use net_types::limits::{HANDSHAKE_TIMEOUT, HEADER_BYTES, SESSION_TIMEOUT, TAG_BYTES};
use net_types::{EntityId, Instant, SessionId, StreamId};
use net_wire::{CloseReason, Heartbeat, ResetReason, StreamReset, StreamWindow};

use crate::acks::{AckDebt, AckRequest};
use crate::congestion::Congestion;
use crate::control::{Control, ControlQueue};
use crate::keys::{Opener, Sealer};
use crate::mtu::Mtu;
use crate::rtt::Rtt;
use crate::send::{QueueError, SendStream};
use crate::streams::Streams;
use crate::timer::{Timer, TimerTable};
use crate::{CloseCause, Context, Event, OpenError, StreamConfig};
use drain::Drain;

pub use interface::{Outgoing, Path, Phase, SendError, SessionParams, Stats};

/// An address that the peer was heard from and has not proved. [`Timer::PathValidation`] drops it.
#[derive(Clone, Copy, Debug)]
struct CandidatePath {
    path: Path,
    challenge: [u8; 8],
}

/// One encrypted session; see the crate's documentation for the order of calls.
pub struct Session {
    id: SessionId,
    peer: EntityId,
    /// The origin in headers of this side and of the peer: a filter before the cipher, not a proof.
    own_origin: u32,
    peer_origin: u32,
    phase: Phase,
    path: Path,
    candidate: Option<CandidatePath>,
    sealer: Sealer,
    opener: Opener,
    rtt: Rtt,
    congestion: Congestion,
    mtu: Mtu,
    streams: Streams,
    control: ControlQueue,
    /// Windows of the packet being built; kept for its allocation.
    ack_scratch: Vec<StreamWindow>,
    acks: AckDebt,
    timers: TimerTable,
    heartbeat_interval: Duration,
    is_heartbeat_due: bool,
    last_heartbeat: Option<(Heartbeat, Instant)>,
    created: Instant,
    last_received: Instant,
    drain: Drain,
    is_peer_draining: bool,
    /// The peer's clock in the newest heartbeat, whose status is the one that counts.
    peer_status_us: u64,
    /// Since when every authentic packet jumps too far ahead.
    jump_since: Option<Instant>,
}

impl Session {
    /// A session that may send at once (the initiator's side).
    pub fn established(now: Instant, params: SessionParams) -> Self {
        let mut session = Self::new(now, params, Phase::Established);
        session.is_heartbeat_due = true;
        session.mtu.start(&mut session.timers, now);
        session.timers.set(Timer::Idle, now + SESSION_TIMEOUT);
        session
    }

    /// A session that waits for the peer's proof (the responder's side).
    pub fn provisional(now: Instant, params: SessionParams) -> Self {
        let mut session = Self::new(now, params, Phase::Provisional);
        session.timers.set(Timer::Handshake, now + HANDSHAKE_TIMEOUT);
        session
    }

    fn new(now: Instant, p: SessionParams, phase: Phase) -> Self {
        Self {
            id: p.id,
            peer: p.peer,
            own_origin: net_crypto::origin_hash(&p.own).0 as u32,
            peer_origin: net_crypto::origin_hash(&p.peer).0 as u32,
            phase,
            path: p.path,
            candidate: None,
            sealer: Sealer::new(now, p.suite, p.send),
            opener: Opener::new(p.suite, p.receive),
            rtt: Rtt::new(p.first_rtt),
            congestion: Congestion::new(),
            mtu: Mtu::new(p.peer_max_datagram_bytes),
            streams: Streams::new(p.is_initiator),
            control: ControlQueue::default(),
            ack_scratch: Vec::new(),
            acks: AckDebt::default(),
            timers: TimerTable::default(),
            heartbeat_interval: p.heartbeat_interval,
            is_heartbeat_due: false,
            last_heartbeat: None,
            created: now,
            last_received: now,
            drain: Drain::default(),
            is_peer_draining: false,
            peer_status_us: 0,
            jump_since: None,
        }
    }

    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The authenticated peer.
    pub fn peer(&self) -> EntityId {
        self.peer
    }

    /// Where the session is in its life.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Where packets go.
    pub fn path(&self) -> Path {
        self.path
    }

    /// When something authentic last came.
    pub fn last_received(&self) -> Instant {
        self.last_received
    }

    /// Current figures.
    pub fn stats(&self) -> Stats {
        Stats {
            rtt: self.rtt.smoothed(),
            packet_bytes: self.mtu.packet_bytes(),
            cwnd_packets: self.congestion.window(),
            in_flight_packets: self.streams.in_flight(),
            streams: self.streams.len(),
        }
    }

    fn payload_cap(&self) -> usize {
        self.mtu.packet_bytes() - HEADER_BYTES - TAG_BYTES
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Established | Phase::Draining)
    }

    /// Opens a stream and returns its id.
    pub fn open_stream(&mut self, config: StreamConfig) -> Result<StreamId, OpenError> {
        config.check()?;
        if self.phase != Phase::Established {
            return Err(OpenError::Closed);
        }
        self.streams.open(config)
    }

    /// Opens the stream with this id, which belongs to this side and that both sides know by
    /// convention; does nothing when it is open.
    pub fn ensure_stream(&mut self, id: StreamId, config: StreamConfig) -> Result<(), OpenError> {
        config.check()?;
        if !self.is_open() {
            return Err(OpenError::Closed);
        }
        self.streams.ensure(id, config)
    }

    /// Queues a message that `write` appends, at most `len` bytes long.
    pub fn send_with(
        &mut self,
        id: StreamId,
        len: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SendError> {
        let cap = self.payload_cap();
        self.queue(id, len, |send| send.queue_with(len, cap, write))
    }

    /// Queues a message; a long one is not copied.
    pub fn send(&mut self, id: StreamId, message: Bytes) -> Result<(), SendError> {
        let cap = self.payload_cap();
        let len = message.len();
        self.queue(id, len, |send| send.queue_bytes(message, cap))
    }

    fn queue(
        &mut self,
        id: StreamId,
        len: usize,
        push: impl FnOnce(&mut SendStream) -> Result<(), QueueError>,
    ) -> Result<(), SendError> {
        if !self.is_open() {
            return Err(SendError::SessionClosed);
        }
        self.streams.send(id, len, push)
    }

    /// Returns the credit of `bytes` that the application took from the stream.
    pub fn consume(&mut self, now: Instant, id: StreamId, bytes: u32) {
        let ack = self.streams.consume(id, bytes);
        self.acks.apply(&mut self.timers, now, ack);
    }

    /// Ends the sending half after everything queued; [`crate::StreamEvent::Flushed`] follows.
    pub fn finish_stream(&mut self, id: StreamId) {
        self.streams.finish(id);
    }

    /// Ends both halves at once and tells the peer.
    pub fn reset_stream(&mut self, ctx: &mut Context<'_>, id: StreamId, reason: ResetReason) {
        if let Some(reset) = self.streams.reset(ctx, id, reason) {
            self.send_reset(ctx, reset);
        }
    }

    /// Ends the session and tells the peer, best effort.
    pub fn close(&mut self, ctx: &mut Context<'_>, reason: CloseReason) {
        if self.phase == Phase::Closed {
            return;
        }
        let was_open = self.is_open();
        self.finish_closing(ctx, CloseCause::Local(reason));
        if was_open {
            self.control.push(ctx.counters, Control::Close(reason));
        }
    }

    fn finish_closing(&mut self, ctx: &mut Context<'_>, cause: CloseCause) {
        self.phase = Phase::Closed;
        self.timers = TimerTable::default();
        self.candidate = None;
        self.streams.clear();
        self.control.clear();
        ctx.events.push_back(Event::Closed { cause });
    }

    /// Tells the peer, until it confirms, that a stream is gone.
    fn send_reset(&mut self, ctx: &mut Context<'_>, reset: StreamReset) {
        self.control.push_reset(ctx.counters, ctx.now, reset);
        self.timers.set_if_clear(Timer::Retransmit, ctx.now + self.rtt.timeout());
    }

    /// Sends the final window of a stream that has ended at once.
    fn send_final_window(&mut self, now: Instant, window: StreamWindow) {
        self.control.push_final_window(window);
        let ack = AckRequest { is_owed: true, is_urgent: true, ..AckRequest::default() };
        self.acks.apply(&mut self.timers, now, ack);
    }

    /// The path's packets have another size.
    fn refit_queues(&mut self) {
        self.streams.refit(self.payload_cap());
    }

    /// Asserts what must hold between any two calls. Debug builds and simulations call it; a
    /// failure is a fault of this crate.
    pub fn check_invariants(&self) {
        self.streams.check_invariants();
        self.control.check_invariants();
        self.congestion.check_invariants();
        self.sealer.check_invariants();
        self.opener.check_invariants();
        let is_set = |timer| self.timers.get(timer).is_some();
        let drain_timers = [Timer::DrainEnd, Timer::DrainSilence, Timer::DrainStatus];
        assert_eq!(is_set(Timer::Handshake), self.phase == Phase::Provisional);
        assert_eq!(is_set(Timer::Idle), self.is_open());
        assert!(drain_timers.iter().all(|t| is_set(*t) == (self.phase == Phase::Draining)));
        if self.is_open() {
            self.mtu.check_invariants(&self.timers);
            assert_eq!(self.timers.get(Timer::KeyDiscard), self.opener.previous_expires());
            assert!(is_set(Timer::Heartbeat) || self.is_heartbeat_due, "no heartbeat is planned");
            let has_resets = self.control.next_repeat(Duration::ZERO).is_some();
            let awaits_peer = self.streams.has_unacked() || has_resets;
            assert!(is_set(Timer::Retransmit) || !awaits_peer, "nothing repeats what is lost");
            let owes = self.streams.owes_windows() || self.control.has_final_windows();
            assert!(is_set(Timer::Ack) || self.acks.is_due() || !owes, "a window is never written");
        } else {
            assert_eq!(self.streams.len(), 0);
            assert!(self.phase == Phase::Provisional || self.timers.next().is_none());
        }
        assert_eq!(self.candidate.is_some(), is_set(Timer::PathValidation));
    }
}

impl core::fmt::Debug for Session {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .field("phase", &self.phase)
            .field("next_timer", &self.timers.next())
            .finish_non_exhaustive()
    }
}
