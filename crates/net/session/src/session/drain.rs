//! The end of a session that another one took over from.
//!
//! Both sides tell each other with heartbeats whether they are done. A draining session ends when
//! both are, when the peer is silent because it no longer knows the session, or after its time.
//!
//! Invariants: all three timers of draining are set exactly while the session drains; it ends no
//! later than [`DRAIN_HELD_TIMEOUT`] after it began to drain, unless it is taken into use again.

use net_types::Instant;
use net_types::limits::{
    DRAIN_HELD_TIMEOUT, DRAIN_SILENT_RTOS, DRAIN_TIMEOUT, HEARTBEAT_INTERVAL, SUSPECT_AFTER,
};
use net_wire::{CloseReason, Heartbeat};

use super::{Phase, Session};
use crate::Context;
use crate::timer::Timer;

/// What a draining session knows of its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    started: Instant,
    /// Whether the peer has nothing under way.
    is_peer_done: bool,
    /// Whether the owner waits for something on the session.
    is_held: bool,
}

impl Default for Drain {
    fn default() -> Self {
        Self { started: Instant::ZERO, is_peer_done: false, is_held: false }
    }
}

impl Session {
    /// Another session with the peer took over: what is under way may finish, for up to
    /// [`DRAIN_TIMEOUT`]; see [`Session::hold`].
    pub fn drain(&mut self, now: Instant) {
        if self.phase != Phase::Established {
            return;
        }
        if self.rtt.is_backed_off() {
            // The path was down and is up again, or there were no new session: waiting for the
            // next, long timeout would waste the time that is left.
            self.rtt.progress();
            self.streams.resend_all();
        }
        self.phase = Phase::Draining;
        self.drain = Drain { started: now, ..Drain::default() };
        self.timers.set(Timer::DrainEnd, now + DRAIN_TIMEOUT);
        self.timers.set(Timer::DrainStatus, now + self.rtt.base_timeout());
        self.arm_drain_silence();
        self.is_heartbeat_due = true;
    }

    /// Says whether the owner of a draining session still waits for something on it, such as the
    /// reply to a call. The session then lives for up to [`DRAIN_HELD_TIMEOUT`].
    pub fn hold(&mut self, now: Instant, is_held: bool) {
        if self.phase != Phase::Draining || self.drain.is_held == is_held {
            return;
        }
        self.drain.is_held = is_held;
        let longest = self.drain.started + DRAIN_HELD_TIMEOUT;
        // What was waited for may just have been sent.
        let ends = if is_held { longest } else { longest.min(now + DRAIN_TIMEOUT) };
        self.timers.set(Timer::DrainEnd, ends);
        // The other end hears at once that nothing is waited for.
        self.is_heartbeat_due |= !is_held;
    }

    /// Takes a draining session into use again.
    pub fn resume(&mut self) {
        if self.phase == Phase::Draining {
            self.phase = Phase::Established;
            for timer in [Timer::DrainEnd, Timer::DrainSilence, Timer::DrainStatus] {
                self.timers.clear(timer);
            }
            self.is_heartbeat_due = true;
        }
    }

    /// Whether the peer said last that another session took over from this one.
    pub fn is_peer_draining(&self) -> bool {
        self.is_peer_draining
    }

    /// Takes what a heartbeat says about the peer's end of the session.
    pub(super) fn on_peer_status(&mut self, ctx: &mut Context<'_>, status: u32) {
        self.is_peer_draining = status & Heartbeat::DRAINING != 0;
        if self.phase == Phase::Draining {
            self.drain.is_peer_done = self.is_peer_draining && status & Heartbeat::DRAINED != 0;
            self.close_if_drained(ctx);
        } else {
            // It wants to know whether this side still knows the session.
            self.is_heartbeat_due |= self.is_peer_draining;
        }
    }

    /// What a heartbeat says about this end.
    pub(super) fn status(&self) -> u32 {
        match self.phase {
            Phase::Draining if self.is_done() => Heartbeat::DRAINING | Heartbeat::DRAINED,
            Phase::Draining => Heartbeat::DRAINING,
            _ => 0,
        }
    }

    /// It is time to tell the peer again where this side stands.
    pub(super) fn on_drain_status(&mut self, ctx: &mut Context<'_>) {
        self.is_heartbeat_due = true;
        self.timers.set(Timer::DrainStatus, ctx.now + self.rtt.base_timeout());
        self.close_if_drained(ctx);
    }

    /// Plans the end of a draining session whose peer says nothing more.
    pub(super) fn arm_drain_silence(&mut self) {
        let Drain { started, .. } = self.drain;
        let silent_at = if self.last_received > started {
            self.last_received + SUSPECT_AFTER
        } else {
            started + HEARTBEAT_INTERVAL.max(self.rtt.base_timeout() * DRAIN_SILENT_RTOS)
        };
        self.timers.set(Timer::DrainSilence, silent_at);
    }

    fn close_if_drained(&mut self, ctx: &mut Context<'_>) {
        if self.drain.is_peer_done && self.is_done() {
            self.close(ctx, CloseReason::Replaced);
        }
    }

    /// Whether nothing of this side's is under way, nothing of the peer's is missing and nothing is
    /// waited for.
    fn is_done(&self) -> bool {
        !self.drain.is_held && self.streams.is_idle()
    }
}
