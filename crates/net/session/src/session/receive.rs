//! From a received packet to changed state: packets are opened here, stream matters go to the
//! stream table, and what it returns is applied.
//!
//! Invariants: a packet whose tag does not verify changes counters alone; the path changes only to
//! an address that answered a challenge; an address that is not proved gets less than
//! [`AMPLIFICATION_FACTOR`] times the bytes that came from it.

use core::time::Duration;

use net_types::limits::{
    AMPLIFICATION_FACTOR, COUNTER_JUMP_GIVE_UP, HEADER_BYTES, REASSEMBLY_TIMEOUT, SESSION_TIMEOUT,
    TAG_BYTES,
};
use net_wire::{
    AckBlock, DecodeError, Flags, Header, Heartbeat, Kind, MtuProbe, Nack, PATH_CHALLENGE_BYTES,
    PathChallenge, Piece, Reader, SessionClose, StreamOpen, StreamReset, StreamWindow, Subprotocol,
};

use super::{CandidatePath, Path, Phase, Session};
use crate::control::Control;
use crate::mtu::Mtu;
use crate::rtt::Rtt;
use crate::streams::{GONE, Replies, gone};
use crate::timer::Timer;
use crate::{CloseCause, Context, DropReason, Event};

// An address that is not proved gets a challenge and the answer to one for a packet from it, at most,
// and no packet is shorter than header and tag.
const _: () = assert!(
    2 * (HEADER_BYTES + PATH_CHALLENGE_BYTES + TAG_BYTES)
        < AMPLIFICATION_FACTOR * (HEADER_BYTES + TAG_BYTES)
);

/// Round trip assumed of a path that was not measured.
const UNKNOWN_RTT: Duration = Duration::from_millis(50);

impl Session {
    /// Takes a packet of this session, header and tag included; it is decrypted in place.
    pub fn handle_packet(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        from: Path,
        packet: &mut [u8],
    ) {
        if self.phase == Phase::Closed {
            return ctx.counters.dropped(DropReason::UnknownSession);
        }
        if header.origin_low != self.peer_origin {
            return ctx.counters.dropped(DropReason::Origin);
        }
        let len = packet.len();
        let keep_previous = self.rtt.timeout() * 3;
        let plaintext = match self.opener.open(ctx.now, keep_previous, header, packet) {
            Ok(plaintext) => plaintext,
            Err(reason) => return self.on_unopened(ctx, reason),
        };
        ctx.counters.packets_in += 1;
        ctx.counters.bytes_in += len as u64;
        self.jump_since = None;
        self.timers.set(Timer::KeyDiscard, self.opener.previous_expires());
        self.note_received(ctx.now);
        if self.phase == Phase::Provisional {
            self.confirm(ctx);
        }
        if from != self.path {
            self.challenge(ctx, from);
        }
        let result = match header.kind {
            Kind::Data => self.on_data(ctx, header, plaintext),
            Kind::Heartbeat => self.on_heartbeat(ctx, plaintext),
            Kind::MtuProbe => self.on_mtu_probe(ctx, plaintext),
            Kind::PathChallenge => PathChallenge::decode(plaintext).map(|c| {
                self.control.push(ctx.counters, Control::PathResponse { to: from, bytes: c.0 });
            }),
            Kind::PathResponse => {
                PathChallenge::decode(plaintext).map(|c| self.on_path_response(ctx, from, c))
            }
            Kind::SessionClose => SessionClose::decode(plaintext)
                .map(|c| self.finish_closing(ctx, CloseCause::Peer(c.reason))),
            Kind::HandshakeInit | Kind::HandshakeResponse | Kind::CookieReply => {
                Err(DecodeError::BadValue("kind"))
            }
        };
        if result.is_err() {
            ctx.counters.dropped(DropReason::Malformed);
        }
    }

    /// The peer proved that it holds the session's keys.
    fn confirm(&mut self, ctx: &mut Context<'_>) {
        self.phase = Phase::Established;
        self.timers.clear(Timer::Handshake);
        self.timers.set(Timer::Heartbeat, self.created + self.heartbeat_interval);
        self.mtu.start(&mut self.timers, ctx.now);
        ctx.events.push_back(Event::Confirmed);
    }

    fn on_unopened(&mut self, ctx: &mut Context<'_>, reason: DropReason) {
        ctx.counters.dropped(reason);
        if reason != DropReason::CounterJump {
            return;
        }
        // Nothing but jumps for a while: the peer is far ahead, only a new handshake helps.
        let since = *self.jump_since.get_or_insert(ctx.now);
        if ctx.now.since(since) >= COUNTER_JUMP_GIVE_UP {
            self.finish_closing(ctx, CloseCause::Exhausted);
        }
    }

    fn on_data(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        plaintext: &[u8],
    ) -> Result<(), DecodeError> {
        let mut r = Reader::new(plaintext);
        if header.flags.contains(Flags::ACKS) {
            for window in AckBlock::decode(&mut r)? {
                self.on_window(ctx, &window);
            }
        }
        let open = if header.flags.contains(Flags::OPEN) {
            Some(StreamOpen::decode(&mut r)?)
        } else {
            None
        };
        let rest = r.rest();
        if !header.flags.contains(Flags::CONTROL) {
            let replies = self.streams.on_data(ctx, &self.rtt, header, open, rest);
            self.apply(ctx, replies);
            return Ok(());
        }
        match header.subprotocol {
            Subprotocol::STREAM_WINDOW if rest.is_empty() => {}
            Subprotocol::STREAM_NACK => self.on_nack(ctx, &Nack::decode(rest)?),
            Subprotocol::STREAM_RESET => self.on_reset(ctx, StreamReset::decode(rest)?),
            Subprotocol::STREAM_PIECE => {
                let piece = Piece::decode(rest)?;
                let replies = self.streams.on_piece(ctx, &self.rtt, header, open, &piece);
                self.apply(ctx, replies);
            }
            _ => ctx.counters.dropped(DropReason::UnknownSubprotocol),
        }
        Ok(())
    }

    /// Does what the stream table leaves to do after data came.
    fn apply(&mut self, ctx: &mut Context<'_>, replies: Replies) {
        for reset in replies.resets {
            self.send_reset(ctx, reset);
        }
        if let Some(reset) = replies.refusal {
            self.control.push(ctx.counters, Control::Reset(reset));
        }
        self.acks.apply(&mut self.timers, ctx.now, replies.ack);
        if let Some(window) = replies.final_window {
            self.send_final_window(ctx.now, window);
        }
        if replies.is_message_partial {
            self.timers.set_if_clear(Timer::Reassembly, ctx.now + REASSEMBLY_TIMEOUT);
        }
    }

    fn on_reset(&mut self, ctx: &mut Context<'_>, reset: StreamReset) {
        self.streams.on_reset(ctx, reset);
        // Confirmed even if nothing is known of it: the peer repeats it otherwise.
        self.send_final_window(ctx.now, gone(reset.stream_id));
    }

    fn on_window(&mut self, ctx: &mut Context<'_>, window: &StreamWindow) {
        if window.ack_seq == GONE {
            self.control.confirm_reset(window.stream_id);
        }
        let in_flight = self.streams.in_flight();
        let Some(progress) = self.streams.on_window(ctx, window) else { return };
        let acked = progress.acked;
        self.congestion.on_acked(acked.in_flight, in_flight);
        self.rtt.progress();
        if let Some(sent_at) = acked.sample {
            self.rtt.sample(ctx.now.since(sent_at));
        }
        if Mtu::is_large(acked.largest_payload) {
            self.mtu.on_large_progress();
        }
        if let Some(window) = progress.final_window {
            self.send_final_window(ctx.now, window);
        }
    }

    fn on_nack(&mut self, ctx: &mut Context<'_>, nack: &Nack) {
        let (stream_id, ack_seq) = (nack.stream_id, nack.next_expected);
        self.on_window(ctx, &StreamWindow { stream_id, total_consumed: 0, ack_seq });
        let in_flight = self.streams.in_flight();
        let report = self.streams.on_nack(ctx, self.rtt.settle(), nack);
        if let Some(sent_at) = report.lost.newest_sent_at {
            self.congestion.on_lost(ctx.now, sent_at);
        }
        self.congestion.on_acked(report.arrived.packets, in_flight - report.lost.packets);
        let is_large_lost_again = Mtu::is_large(report.lost.largest_resent_payload);
        if Mtu::is_large(report.arrived.largest_payload) {
            self.mtu.on_large_progress();
        } else if is_large_lost_again && self.mtu.on_large_loss(&mut self.timers, ctx.now) {
            self.refit_queues();
        }
    }

    fn on_heartbeat(&mut self, ctx: &mut Context<'_>, plaintext: &[u8]) -> Result<(), DecodeError> {
        let beat = Heartbeat::decode(plaintext)?;
        let now = ctx.now;
        let now_us = now.as_nanos() / 1_000;
        let held = u64::from(beat.hold_us);
        // An echo of what this session never sent, or of a time longer ago than a session stays silent,
        // gives no sample.
        let is_ours = beat.echo_us > self.created.as_nanos() / 1_000;
        if let Some(rtt_us) = now_us.checked_sub(beat.echo_us).and_then(|t| t.checked_sub(held))
            && is_ours
            && Duration::from_micros(rtt_us) <= SESSION_TIMEOUT
        {
            self.rtt.sample(Duration::from_micros(rtt_us));
        }
        self.last_heartbeat = Some((beat, now));
        if beat.sent_us < self.peer_status_us {
            // Overtaken by a newer one.
            return Ok(());
        }
        self.peer_status_us = beat.sent_us;
        self.on_peer_status(ctx, beat.status);
        Ok(())
    }

    fn on_mtu_probe(&mut self, ctx: &mut Context<'_>, plaintext: &[u8]) -> Result<(), DecodeError> {
        let probe = MtuProbe::decode(plaintext)?;
        if probe.is_answer {
            if self.mtu.on_answer(&mut self.timers, ctx.now, probe.id) {
                self.refit_queues();
            }
        } else {
            let probe = MtuProbe { is_answer: true, ..probe };
            self.control.push(ctx.counters, Control::MtuProbe { probe, packet_bytes: 0 });
        }
        Ok(())
    }

    /// Asks for proof that the peer is at `from`; if it answers from there, packets go there.
    pub fn challenge(&mut self, ctx: &mut Context<'_>, from: Path) {
        let expires = self.timers.get(Timer::PathValidation);
        let is_known = self.candidate.is_some_and(|c| c.path == from)
            && expires.is_some_and(|at| ctx.now < at);
        if is_known || self.phase == Phase::Closed {
            return;
        }
        // One candidate at a time and one challenge per timeout keep the output to an unproved
        // address below what came from it.
        let mut challenge = [0u8; 8];
        net_crypto::RngCore::fill_bytes(ctx.rng, &mut challenge);
        self.candidate = Some(CandidatePath { path: from, challenge });
        self.timers.set(Timer::PathValidation, ctx.now + self.rtt.timeout() * 3);
        self.control.push(ctx.counters, Control::PathChallenge { to: from, bytes: challenge });
    }

    fn on_path_response(&mut self, ctx: &mut Context<'_>, from: Path, response: PathChallenge) {
        let proved =
            self.candidate.take_if(|c| c.challenge == response.0 && c.path == from).is_some();
        if !proved {
            return;
        }
        self.timers.clear(Timer::PathValidation);
        if from.addr.ip() != self.path.addr.ip() || from.is_routed != self.path.is_routed {
            // Another route: nothing that was learned holds (RFC 9000, 9.4).
            self.congestion.restart();
            self.rtt = Rtt::new(UNKNOWN_RTT);
            if self.mtu.restart(&mut self.timers, ctx.now) {
                self.refit_queues();
            }
        }
        self.path = from;
        ctx.counters.path_changes += 1;
    }
}
