//! What happens when nothing arrives.

use net_types::Instant;
use net_types::limits::SESSION_TIMEOUT;
use net_wire::ResetReason;

use super::{Control, Phase, Session};
use crate::{CloseCause, Context, DropReason};

impl Session {
    /// When [`Session::handle_timeout`] should be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        let ends_at = match self.phase {
            Phase::Closed => return None,
            Phase::Provisional(until) => return Some(until),
            Phase::Draining(until) => until,
            Phase::Established => Instant::FAR_FUTURE,
        };
        let ack_at = self.ack_deadline().filter(|_| !self.must_ack_now);
        // What is due already waits for a poll, not for time.
        let heartbeat_at = match self.is_heartbeat_due {
            true => Instant::FAR_FUTURE,
            false => self.last_sent + self.heartbeat_interval,
        };
        let timers = [ack_at, self.rto_at, self.gap_check_at, self.mtu.next_timeout()];
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
            Phase::Draining(until) if until <= now => {
                return self.close(ctx, net_wire::CloseReason::Replaced);
            }
            Phase::Draining(_) | Phase::Established => {}
        }
        if now.since(self.last_received) >= SESSION_TIMEOUT {
            return self.finish_closing(ctx, CloseCause::Timeout);
        }
        if self.ack_at.is_some_and(|at| at <= now) {
            self.must_ack_now = true;
        }
        if self.rto_at.is_some_and(|at| at <= now) {
            self.on_retransmission_timeout(ctx);
        }
        if self.gap_check_at.take_if(|at| *at <= now).is_some() {
            self.is_nack_due = true;
        }
        if now.since(self.last_sent) >= self.heartbeat_interval {
            self.is_heartbeat_due = true;
            self.expire_messages(ctx);
        }
        self.mtu.handle_timeout(now);
        self.candidate.take_if(|c| c.expires <= now);
    }

    fn on_retransmission_timeout(&mut self, ctx: &mut Context<'_>) {
        let timeout = self.rtt.timeout();
        let mut lost_packets = 0;
        let mut largest = 0;
        for slot in self.streams.slots() {
            let Some(stream) = self.streams.get_mut(slot) else { continue };
            if !stream.send.config.mode.is_reliable {
                self.congestion.forget(stream.send.give_up_old(ctx.now, timeout));
                self.streams.schedule(slot);
                continue;
            }
            let (congestion, now) = (&mut self.congestion, ctx.now);
            let survives = stream.send.on_timeout(now, timeout, |lost| {
                lost_packets += 1;
                largest = largest.max(lost.payload_len);
                congestion.on_lost(now, lost.sent_at);
            });
            let probe = stream.send.window_probe().map(|sequence| (stream.id, sequence));
            if survives {
                if let Some((stream_id, sequence)) = probe {
                    self.push_control(ctx, Control::WindowProbe { stream_id, sequence });
                }
                self.streams.schedule(slot);
            } else {
                self.drop_stream(ctx, slot, ResetReason::GaveUp, false);
            }
        }
        if lost_packets > 0 {
            ctx.counters.retransmits_timeout += lost_packets;
            self.congestion.on_timeout(ctx.now);
            self.rtt.back_off();
            self.mtu.on_packet_timeout(ctx.now, largest + self.packet_overhead());
        }
        self.arm_retransmission(ctx.now);
    }

    fn packet_overhead(&self) -> usize {
        self.mtu.packet_bytes() - self.payload_cap()
    }

    fn arm_retransmission(&mut self, now: Instant) {
        let streams = || self.streams.slots().filter_map(|s| self.streams.get(s));
        let oldest = streams().filter_map(|s| s.send.oldest_sent()).min();
        let waits = streams().any(|s| s.send.has_unacked() || s.send.is_blocked());
        let timeout = self.rtt.timeout();
        // An expired packet is in line to be sent again and is timed from then on.
        let at = oldest.map_or(now + timeout, |t| t + timeout).max(now + timeout / 4);
        self.rto_at = waits.then_some(at);
    }

    fn expire_messages(&mut self, ctx: &mut Context<'_>) {
        for slot in self.streams.slots() {
            let Some(stream) = self.streams.get_mut(slot) else { continue };
            for _ in 0..stream.recv.expire(ctx.now) {
                ctx.counters.dropped(DropReason::Reassembly);
            }
            for _ in 0..core::mem::take(&mut stream.recv.declared_lost) {
                ctx.counters.dropped(DropReason::DeclaredLost);
            }
        }
    }
}
