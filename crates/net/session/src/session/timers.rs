//! What happens when nothing arrives.

use core::time::Duration;

use net_types::Instant;
use net_types::limits::{
    DRAIN_SILENT_RTOS, HEARTBEAT_INTERVAL, MAX_RETRIES, REASSEMBLY_TIMEOUT, SESSION_TIMEOUT,
    SUSPECT_AFTER,
};
use net_wire::{CloseReason, ResetReason};

use super::receive::count_losses;
use super::{Control, Drain, Phase, Session};
use crate::mtu::Mtu;
use crate::send::Resend;
use crate::{CloseCause, Context};

impl Session {
    /// When [`Session::handle_timeout`] should be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        let ends_at = match self.phase {
            Phase::Closed => return None,
            Phase::Provisional(until) => return Some(until),
            Phase::Draining(until) => until.min(self.drain_silent_at()).min(self.drain.next_word),
            Phase::Established => Instant::FAR_FUTURE,
        };
        // What is due already waits for a poll, not for time.
        let heartbeat_at = match self.is_heartbeat_due {
            true => Instant::FAR_FUTURE,
            false => self.last_sent + self.heartbeat_interval,
        };
        let acks = self.acks.next_timeout();
        let timers =
            [acks, self.rto_at, self.gap_check_at, self.expire_at, self.mtu.next_timeout()];
        let first = timers.into_iter().flatten().min().unwrap_or(Instant::FAR_FUTURE);
        let dead_at = self.last_received + SESSION_TIMEOUT;
        Some(first.min(ends_at).min(heartbeat_at).min(dead_at))
    }

    /// Does what is due; afterwards poll for packets.
    pub fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now;
        match self.phase {
            Phase::Closed => return,
            Phase::Provisional(until) if until <= now => {
                return self.finish_closing(ctx, CloseCause::Timeout);
            }
            Phase::Provisional(_) => return,
            Phase::Draining(until) if until.min(self.drain_silent_at()) <= now => {
                return self.close(ctx, CloseReason::Replaced);
            }
            Phase::Draining(_) if self.drain.next_word <= now => {
                self.is_heartbeat_due = true;
                self.drain.next_word = now + self.rtt.base_timeout();
                self.close_if_drained(ctx);
            }
            Phase::Draining(_) | Phase::Established => {}
        }
        if self.phase == Phase::Closed {
            return;
        }
        if now.since(self.last_received) >= SESSION_TIMEOUT {
            return self.finish_closing(ctx, CloseCause::Timeout);
        }
        // Heartbeats bring this up often enough.
        self.opener.forget_previous(now);
        self.acks.handle_timeout(now);
        if self.rto_at.is_some_and(|at| at <= now) {
            self.on_retransmission_timeout(ctx);
        }
        if self.gap_check_at.take_if(|at| *at <= now).is_some() {
            self.check_gaps(ctx);
        }
        if self.expire_at.take_if(|at| *at <= now).is_some() {
            self.expire_messages(ctx);
        }
        if now.since(self.last_sent) >= self.heartbeat_interval {
            self.is_heartbeat_due = true;
        }
        self.mtu.handle_timeout(now);
        self.candidate.take_if(|c| c.expires <= now);
        debug_assert!(self.is_consistent());
    }

    /// When the peer of a draining session has been silent so long that it cannot know the session.
    fn drain_silent_at(&self) -> Instant {
        let Drain { started, .. } = self.drain;
        if self.last_received > started {
            return self.last_received + SUSPECT_AFTER;
        }
        started + HEARTBEAT_INTERVAL.max(self.rtt.base_timeout() * DRAIN_SILENT_RTOS)
    }

    /// Ends a draining session if both sides have nothing under way.
    pub(super) fn close_if_drained(&mut self, ctx: &mut Context<'_>) {
        if self.drain.is_peer_done && self.is_done() {
            self.close(ctx, CloseReason::Replaced);
        }
    }

    /// How long a reported gap may stay before it is reported again or, on an unreliable stream,
    /// given up: there it only waits for packets that were overtaken.
    pub(super) fn gap_patience(&self, is_reliable: bool) -> Duration {
        if is_reliable { self.rtt.timeout() } else { self.rtt.smoothed() / 2 }
    }

    /// Looks after the gaps that the peer had its time to fill.
    fn check_gaps(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now;
        let mut next = None;
        for slot in self.streams.slots() {
            let Some(stream) = self.streams.get(slot) else { continue };
            let Some(at) = stream.nacked_at.filter(|_| stream.recv.has_gaps()) else { continue };
            let is_reliable = stream.recv.mode().is_reliable;
            let patience = self.gap_patience(is_reliable);
            let is_over = at + patience <= now;
            if is_over && is_reliable {
                self.streams.want_nack(slot, true);
            } else if is_over && let Some(stream) = self.streams.get_mut(slot) {
                stream.recv.give_up_reported();
                count_losses(ctx, &stream.recv.take_losses());
                self.streams.note_buffered(slot);
                self.owe_ack(now, slot);
                self.acks.hurry();
                continue;
            }
            let again = (at + patience).max(now + patience / 4);
            next = Some(next.map_or(again, |n: Instant| n.min(again)));
        }
        self.gap_check_at = next;
    }

    fn on_retransmission_timeout(&mut self, ctx: &mut Context<'_>) {
        let (now, timeout) = (ctx.now, self.rtt.timeout());
        // The first time in a row, an acknowledgement may be all that was lost. That says nothing of
        // the capacity; what a probe shows to be missing does.
        let resend = if self.rtt.is_backed_off() { Resend::All } else { Resend::Probe };
        let (mut resends, mut is_large) = (0, false);
        for slot in self.streams.slots() {
            let Some(stream) = self.streams.get_mut(slot) else { continue };
            let congestion = &mut self.congestion;
            let is_reliable = stream.send.config.mode.is_reliable;
            let survives = stream.send.on_timeout(now, timeout, resend, |lost| {
                is_large |= Mtu::is_large(lost.payload_len);
                if is_reliable {
                    resends += 1;
                    congestion.forget(1);
                } else {
                    congestion.on_lost(now, lost.sent_at);
                }
            });
            if !survives {
                self.drop_stream(ctx, slot, ResetReason::GaveUp, false);
                continue;
            }
            if let Some(sequence) = stream.send.poll_window_probe(now, timeout) {
                let stream_id = stream.id;
                self.push_control(ctx, Control::WindowProbe { stream_id, sequence });
            }
            self.streams.schedule(slot);
        }
        if resends > 0 {
            ctx.counters.retransmits_timeout += resends;
            if resend == Resend::All {
                self.congestion.on_timeout(now, self.rtt.backoff() > 1);
            }
            self.rtt.back_off();
        }
        if is_large {
            let id = self.mtu.ping();
            self.push_control(ctx, Control::Ping { id });
        }
        self.repeat_resets(ctx);
        self.arm_retransmission(now);
    }

    fn repeat_resets(&mut self, ctx: &mut Context<'_>) {
        let timeout = self.rtt.timeout();
        for _ in 0..self.resets.len() {
            let Some(mut reset) = self.resets.pop_front() else { return };
            if ctx.now.since(reset.sent_at) >= timeout {
                if reset.attempts >= MAX_RETRIES {
                    continue;
                }
                reset.attempts += 1;
                reset.sent_at = ctx.now;
                self.push_control(ctx, Control::Reset(reset.frame));
            }
            self.resets.push_back(reset);
        }
    }

    fn arm_retransmission(&mut self, now: Instant) {
        let timeout = self.rtt.timeout();
        let streams = self.streams.slots().filter_map(|s| self.streams.get(s));
        let of_streams = streams.filter_map(|s| s.send.next_timeout(now, timeout)).min();
        let of_resets = self.resets.iter().map(|r| r.sent_at + timeout).min();
        let first = [of_streams, of_resets].into_iter().flatten().min();
        self.rto_at = first.map(|at| at.max(now + timeout / 4));
    }

    fn expire_messages(&mut self, ctx: &mut Context<'_>) {
        let mut is_any_left = false;
        for slot in self.streams.slots() {
            let Some(stream) = self.streams.get_mut(slot) else { continue };
            if stream.recv.mode().is_reliable {
                continue;
            }
            stream.recv.expire(ctx.now);
            is_any_left |= stream.recv.has_partial_messages();
            count_losses(ctx, &stream.recv.take_losses());
            self.streams.note_buffered(slot);
        }
        // Looked at often enough that nothing stays much longer than its time.
        self.expire_at = is_any_left.then(|| ctx.now + REASSEMBLY_TIMEOUT / 6);
    }
}
