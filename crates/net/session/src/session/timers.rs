//! What a session does when nothing arrives: one function for each reason.
//!
//! Invariants: a deadline is cleared before its reason is handled; a deadline that is set again lies
//! in the future, so that handling a timeout never leaves it due; the order of reasons is that of
//! [`Timer::ALL`].

use net_types::Instant;
use net_types::limits::{REASSEMBLY_TIMEOUT, SESSION_TIMEOUT};
use net_wire::CloseReason;

use super::{Phase, Session};
use crate::control::Control;
use crate::mtu::Mtu;
use crate::send::Resend;
use crate::timer::Timer;
use crate::{CloseCause, Context};

impl Session {
    /// When [`Session::handle_timeout`] should be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next_at()
    }

    /// The same with the reason for it, for logs and tests.
    pub fn next_timer(&self) -> Option<(Instant, Timer)> {
        self.timers.next()
    }

    /// Does what is due; afterwards poll for packets.
    pub fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        // A reason that ends the session clears the table.
        for timer in Timer::ALL {
            if self.timers.take_due(timer, ctx.now) {
                self.on_timer(ctx, timer);
            }
        }
    }

    fn on_timer(&mut self, ctx: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::Handshake | Timer::Idle => self.finish_closing(ctx, CloseCause::Timeout),
            Timer::DrainEnd | Timer::DrainSilence => self.close(ctx, CloseReason::Replaced),
            Timer::DrainStatus => self.on_drain_status(ctx),
            Timer::KeyDiscard => self.opener.forget_previous(),
            Timer::Ack => self.acks.on_timeout(),
            Timer::Retransmit => self.on_retransmit(ctx),
            Timer::GapCheck => self.on_gap_check(ctx),
            Timer::Reassembly => self.on_reassembly(ctx),
            // Sending it plans the next.
            Timer::Heartbeat => self.is_heartbeat_due = true,
            Timer::MtuProbe => self.mtu.on_timeout(&mut self.timers, ctx.now),
            Timer::PathValidation => self.candidate = None,
        }
    }

    fn on_gap_check(&mut self, ctx: &mut Context<'_>) {
        let (next, ack) = self.streams.check_gaps(ctx, &self.rtt);
        self.acks.apply(&mut self.timers, ctx.now, ack);
        self.timers.set(Timer::GapCheck, next);
    }

    fn on_reassembly(&mut self, ctx: &mut Context<'_>) {
        if self.streams.expire_messages(ctx) {
            // Looked at often enough that nothing stays much longer than its time.
            self.timers.set(Timer::Reassembly, ctx.now + REASSEMBLY_TIMEOUT / 6);
        }
    }

    fn on_retransmit(&mut self, ctx: &mut Context<'_>) {
        // The first time in a row, an acknowledgement may be all that was lost. That says nothing of
        // the capacity; what a probe shows to be missing does.
        let resend = if self.rtt.is_backed_off() { Resend::All } else { Resend::Probe };
        let out = self.streams.on_timeout(ctx, self.rtt.timeout(), resend);
        if let Some(sent_at) = out.lost.newest_sent_at {
            self.congestion.on_lost(ctx.now, sent_at);
        }
        for reset in out.resets {
            self.send_reset(ctx, reset);
        }
        for probe in out.window_probes {
            self.control.push(ctx.counters, Control::WindowProbe(probe));
        }
        if out.resends > 0 {
            ctx.counters.retransmits_timeout += u64::from(out.resends);
            if resend == Resend::All {
                self.congestion.on_timeout(ctx.now, self.rtt.backoff() > 1);
            }
            self.rtt.back_off();
        }
        if Mtu::is_large(out.largest_payload) {
            let id = self.mtu.ping();
            self.control.push(ctx.counters, Control::probe(id, 0));
        }
        let timeout = self.rtt.timeout();
        self.control.repeat_resets(ctx.counters, ctx.now, timeout);
        let of_streams = self.streams.next_timeout(ctx.now, timeout);
        let first = [of_streams, self.control.next_repeat(timeout)].into_iter().flatten().min();
        self.timers.set(Timer::Retransmit, first.map(|at| at.max(ctx.now + timeout / 4)));
    }

    /// Plans what depends on the time of the last packet that came.
    pub(super) fn note_received(&mut self, now: Instant) {
        self.last_received = now;
        self.timers.set(Timer::Idle, now + SESSION_TIMEOUT);
        if self.phase == Phase::Draining {
            self.arm_drain_silence();
        }
    }
}
