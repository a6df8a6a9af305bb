//! From a received packet to messages and changed state.

use core::time::Duration;

use net_types::Instant;
use net_types::limits::{
    AMPLIFICATION_FACTOR, COUNTER_JUMP_GIVE_UP, HEADER_BYTES, MAX_HELD_BYTES, MAX_REASSEMBLY_BYTES,
    REASSEMBLY_TIMEOUT, SESSION_TIMEOUT, TAG_BYTES,
};
use net_wire::{
    AckBlock, DecodeError, Flags, Header, Heartbeat, Kind, MtuProbe, Nack, PATH_CHALLENGE_BYTES,
    PathChallenge, Piece, Reader, ResetReason, SessionClose, StreamOpen, StreamReset, StreamWindow,
    Subprotocol,
};

use super::streams::{GONE, gone};
use super::{CandidatePath, Control, Path, Phase, Session};
use crate::mtu::Mtu;
use crate::recv::{Accepted, Arrival, Losses, Need, Order};
use crate::rtt::Rtt;
use crate::{CloseCause, Context, DropReason, Event, StreamConfig};

// An address that is not proved gets one challenge, or the answer to one, for each packet from it,
// and no packet is shorter than header and tag.
const _: () = assert!(
    HEADER_BYTES + PATH_CHALLENGE_BYTES + TAG_BYTES
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
        self.last_received = ctx.now;
        if let Phase::Provisional(_) = self.phase {
            self.phase = Phase::Established;
            self.mtu.start(ctx.now);
            ctx.events.push_back(Event::Confirmed);
        }
        if from != self.path {
            self.challenge(ctx, from);
        }
        let result = match header.kind {
            Kind::Data => self.on_data(ctx, header, plaintext),
            Kind::Heartbeat => self.on_heartbeat(ctx, plaintext),
            Kind::MtuProbe => self.on_mtu_probe(ctx, plaintext),
            Kind::PathChallenge => PathChallenge::decode(plaintext)
                .map(|c| self.push_control(ctx, Control::PathResponse { to: from, bytes: c.0 })),
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
            self.on_stream_data(ctx, header, open, rest);
            return Ok(());
        }
        match header.subprotocol {
            Subprotocol::STREAM_WINDOW if rest.is_empty() => {}
            Subprotocol::STREAM_NACK => self.on_nack(ctx, &Nack::decode(rest)?),
            Subprotocol::STREAM_RESET => self.on_reset(ctx, StreamReset::decode(rest)?),
            Subprotocol::STREAM_PIECE => self.on_piece(ctx, header, open, &Piece::decode(rest)?),
            _ => ctx.counters.dropped(DropReason::UnknownSubprotocol),
        }
        Ok(())
    }

    fn on_reset(&mut self, ctx: &mut Context<'_>, reset: StreamReset) {
        match self.streams.find(reset.stream_id) {
            Some(slot) => self.drop_stream(ctx, slot, reset.reason, true),
            None => self.streams.never_open(reset.stream_id),
        }
        // Confirmed even if nothing is known of it: the peer repeats it otherwise.
        self.say_last(ctx.now, gone(reset.stream_id));
    }

    fn on_window(&mut self, ctx: &mut Context<'_>, window: &StreamWindow) {
        let found = self.streams.find(window.stream_id);
        if window.ack_seq == GONE {
            self.resets.retain(|r| r.frame.stream_id != window.stream_id);
            if let Some(slot) = found {
                self.drop_stream(ctx, slot, ResetReason::Closed, true);
            }
            return;
        }
        let Some(slot) = found else { return };
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let acked = stream.send.on_window(ctx.now, window.ack_seq, window.total_consumed);
        let Some(acked) = acked else {
            return ctx.counters.dropped(DropReason::Malformed);
        };
        if !acked.is_progress {
            return;
        }
        let stream_id = stream.id;
        if stream.send.is_flushed() && !stream.is_flush_reported {
            stream.is_flush_reported = true;
            ctx.events.push_back(Event::StreamFlushed { stream_id });
        }
        // The grant that would release it may get lost; the timer asks again.
        self.is_rto_wanted |= stream.send.is_blocked();
        self.congestion.on_acked(acked.in_flight);
        self.rtt.progress();
        if let Some(sent_at) = acked.sample {
            self.rtt.sample(ctx.now.since(sent_at));
        }
        if Mtu::is_large(acked.largest_payload) {
            self.mtu.on_large_progress();
        }
        self.streams.schedule(slot);
        self.remove_if_done(ctx.now, slot);
    }

    fn on_nack(&mut self, ctx: &mut Context<'_>, nack: &Nack) {
        let (stream_id, ack_seq) = (nack.stream_id, nack.next_expected);
        self.on_window(ctx, &StreamWindow { stream_id, total_consumed: 0, ack_seq });
        let Some(slot) = self.streams.find(nack.stream_id) else { return };
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let (congestion, counters, now) = (&mut self.congestion, &mut *ctx.counters, ctx.now);
        let mut is_large_lost_again = false;
        let is_reliable = stream.send.config.mode.is_reliable;
        let arrived = stream.send.on_nack(now, self.rtt.settle(), nack, |lost| {
            counters.retransmits_nack += u64::from(is_reliable);
            congestion.on_lost(now, lost.sent_at);
            is_large_lost_again |= lost.was_resent && Mtu::is_large(lost.payload_len);
        });
        congestion.on_acked(arrived.packets);
        if Mtu::is_large(arrived.largest_payload) {
            self.mtu.on_large_progress();
        } else if is_large_lost_again && self.mtu.on_large_loss(ctx.now) {
            self.refit_queues();
        }
        self.streams.schedule(slot);
    }

    fn on_stream_data(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        open: Option<StreamOpen>,
        payload: &[u8],
    ) {
        let subprotocol = header.subprotocol;
        let Some(slot) = self.receiving_stream(ctx, header, subprotocol, open) else { return };
        let is_fragment = header.flags.contains(Flags::FRAGMENT);
        let arrival = Arrival {
            sequence: header.sequence,
            events: header.event_count,
            frag_index: header.frag_index,
            frag_count: header.frag_count,
            is_fin: header.flags.contains(Flags::FIN),
            payload,
        };
        if !self.has_room_for(slot, &arrival) {
            // The peer sends it again, as long as it hears that this side is there.
            self.owe_ack(ctx.now, slot);
            return ctx.counters.dropped(DropReason::Reassembly);
        }
        let Some(stream) = self.streams.get_mut(slot) else { return };
        match stream.recv.accept(header.sequence, payload.len()) {
            Accepted::Yes { order: Order::OpensGap } => {
                self.acks.on_disorder();
                self.streams.want_nack(slot, false);
            }
            Accepted::Yes { order } => {
                if order == Order::FillsGap {
                    self.acks.on_disorder();
                    self.acks.hurry();
                }
                // What arrives above a gap is news too, but not more often than it is of use.
                let stale =
                    stream.nacked_at.is_some_and(|at| at + self.rtt.smoothed() / 2 <= ctx.now);
                if stale && stream.recv.has_gaps() && stream.recv.mode().is_reliable {
                    self.streams.want_nack(slot, true);
                }
            }
            refused => return self.on_refused(ctx, slot, &refused),
        }
        let Some(stream) = self.streams.get_mut(slot) else { return };
        stream.last_used = ctx.now;
        let (stream_id, events) = (stream.id, &mut *ctx.events);
        let result = stream.recv.deliver(ctx.now, &arrival, |delivery| {
            events.push_back(Event::Message {
                stream_id,
                subprotocol: header.subprotocol,
                class: header.class,
                message: delivery.message,
                credit: delivery.credit,
            });
        });
        if stream.recv.is_finished() && !stream.is_finish_reported {
            stream.is_finish_reported = true;
            events.push_back(Event::StreamFinished { stream_id });
        }
        if !stream.recv.mode().is_reliable {
            if is_fragment && stream.recv.has_partial_messages() {
                self.expire_at.get_or_insert(ctx.now + REASSEMBLY_TIMEOUT);
            }
            count_losses(ctx, &stream.recv.take_losses());
        } else if result.is_err() {
            // What cannot be read cannot be sent again: the stream has lost data for good.
            ctx.counters.dropped(DropReason::Malformed);
            return self.drop_stream(ctx, slot, ResetReason::Protocol, false);
        }
        self.streams.note_buffered(slot);
        self.acks.on_packet(ctx.now, is_fragment);
        if arrival.is_fin {
            self.acks.hurry();
        }
        self.owe_ack(ctx.now, slot);
        self.remove_if_done(ctx.now, slot);
        if result.is_err() {
            ctx.counters.dropped(DropReason::Malformed);
        }
    }

    /// Whether the session has room for what a packet needs.
    fn has_room_for(&self, slot: usize, arrival: &Arrival<'_>) -> bool {
        let buffered = self.streams.buffered();
        match self.streams.get(slot).map_or(Need::Nothing, |s| s.recv.need(arrival)) {
            Need::Nothing => true,
            Need::Held(bytes) => buffered.unpaid + bytes <= MAX_HELD_BYTES,
            Need::Message(bytes) => buffered.paid + bytes <= MAX_REASSEMBLY_BYTES,
        }
    }

    fn on_refused(&mut self, ctx: &mut Context<'_>, slot: usize, refused: &Accepted) {
        ctx.counters.dropped(match refused {
            Accepted::Duplicate => DropReason::DuplicatePacket,
            _ => DropReason::BeyondWindow,
        });
        // The acknowledgement of the first copy may have been lost.
        self.acks.on_disorder();
        self.acks.hurry();
        self.owe_ack(ctx.now, slot);
    }

    /// Collects the pieces of a packet and takes it when it is whole.
    fn on_piece(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        open: Option<StreamOpen>,
        piece: &Piece<'_>,
    ) {
        let subprotocol = piece.subprotocol;
        let Some(slot) = self.receiving_stream(ctx, header, subprotocol, open) else { return };
        let has_room = self.streams.buffered().unpaid + piece.bytes.len() <= MAX_HELD_BYTES;
        let Some(stream) = self.streams.get_mut(slot) else { return };
        // What is held may wait for the packet that is next.
        if !has_room && header.sequence != stream.recv.next_expected() {
            return ctx.counters.dropped(DropReason::Reassembly);
        }
        let added = stream.recv.add_piece(header.sequence, piece);
        self.streams.note_buffered(slot);
        match added {
            None => {}
            Some(Err(refused)) => self.on_refused(ctx, slot, &refused),
            Some(Ok(payload)) => {
                let mut whole = Header { subprotocol, ..*header };
                whole.flags.0 &= !Flags::CONTROL.0;
                self.on_stream_data(ctx, &whole, None, &payload);
            }
        }
    }

    /// The stream of a packet, opened if it is the peer's to open.
    fn receiving_stream(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        subprotocol: Subprotocol,
        open: Option<StreamOpen>,
    ) -> Option<usize> {
        let stream_id = header.stream_id;
        if let Some(slot) = self.streams.find(stream_id) {
            return Some(slot);
        }
        if let Some(window) = self.streams.closed_window(stream_id, header.sequence) {
            // The peer missed our last acknowledgement.
            self.say_last(ctx.now, window);
            return None;
        }
        let refuse = |session: &mut Self, ctx: &mut Context<'_>, reason| {
            session.push_control(ctx, Control::Reset(StreamReset { stream_id, reason }));
            None
        };
        let Some(open) = open.filter(|_| !self.streams.is_ours(stream_id)) else {
            return refuse(self, ctx, ResetReason::Protocol);
        };
        let config = StreamConfig {
            mode: open.mode,
            class: header.class,
            weight: open.weight,
            window_bytes: open.window_bytes,
            subprotocol,
        };
        // Of a draining session too: the first reply to a call may come after the session was replaced.
        if config.check().is_err() || !self.is_open() {
            return refuse(self, ctx, ResetReason::TooMany);
        }
        if !self.streams.has_room_for(config.window_bytes)
            && let Some(idle) = self.streams.longest_idle(ctx.now)
        {
            self.drop_stream(ctx, idle, ResetReason::TooMany, false);
        }
        let Some(slot) = self.streams.accept(stream_id, config) else {
            return refuse(self, ctx, ResetReason::TooMany);
        };
        ctx.events.push_back(Event::StreamOpened { stream_id, mode: open.mode, subprotocol });
        Some(slot)
    }

    fn remove_if_done(&mut self, now: Instant, slot: usize) {
        let is_done = |s: &super::streams::Stream| s.is_finish_reported && s.send.is_flushed();
        if self.streams.get(slot).is_some_and(is_done)
            && let Some(stream) = self.streams.remove(slot, false)
        {
            // Its last acknowledgement must still leave.
            self.say_last(now, stream.recv.window(stream.id));
        }
    }

    fn on_heartbeat(&mut self, ctx: &mut Context<'_>, plaintext: &[u8]) -> Result<(), DecodeError> {
        let beat = Heartbeat::decode(plaintext)?;
        let now = ctx.now;
        let now_us = now.as_nanos() / 1_000;
        let held = u64::from(beat.hold_us);
        // An echo of what this session never sent, or of something older than a session gets, is
        // a lie or an accident.
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
        self.is_peer_draining = beat.status & Heartbeat::DRAINING != 0;
        if let Phase::Draining(_) = self.phase {
            self.drain.is_peer_done =
                self.is_peer_draining && beat.status & Heartbeat::DRAINED != 0;
            self.close_if_drained(ctx);
        } else {
            // It wants to know whether this side still knows the session.
            self.is_heartbeat_due |= self.is_peer_draining;
        }
        Ok(())
    }

    fn on_mtu_probe(&mut self, ctx: &mut Context<'_>, plaintext: &[u8]) -> Result<(), DecodeError> {
        let probe = MtuProbe::decode(plaintext)?;
        if probe.is_answer {
            if self.mtu.on_answer(ctx.now, probe.id) {
                self.refit_queues();
            }
        } else {
            self.push_control(ctx, Control::MtuAnswer { id: probe.id, size: probe.size });
        }
        Ok(())
    }

    /// Asks for proof that the peer is at `from`; if it answers from there, packets go there.
    pub fn challenge(&mut self, ctx: &mut Context<'_>, from: Path) {
        let is_known = self.candidate.is_some_and(|c| c.path == from && ctx.now < c.expires);
        if is_known {
            return;
        }
        // One candidate at a time and one challenge per timeout keep the output to an unproved
        // address below what came from it.
        let mut challenge = [0u8; 8];
        net_crypto::RngCore::fill_bytes(ctx.rng, &mut challenge);
        let expires = ctx.now + self.rtt.timeout() * 3;
        self.candidate = Some(CandidatePath { path: from, challenge, expires });
        self.push_control(ctx, Control::PathChallenge { to: from, bytes: challenge });
    }

    fn on_path_response(&mut self, ctx: &mut Context<'_>, from: Path, response: PathChallenge) {
        let proved =
            self.candidate.take_if(|c| c.challenge == response.0 && c.path == from).is_some();
        if !proved {
            return;
        }
        if from.addr.ip() != self.path.addr.ip() || from.is_routed != self.path.is_routed {
            // Another route: nothing that was learned holds (RFC 9000, 9.4).
            self.congestion.restart();
            self.rtt = Rtt::new(UNKNOWN_RTT);
            if self.mtu.restart(ctx.now) {
                self.refit_queues();
            }
        }
        self.path = from;
        ctx.counters.path_changes += 1;
    }
}

pub(super) fn count_losses(ctx: &mut Context<'_>, losses: &Losses) {
    ctx.counters.dropped_many(DropReason::DeclaredLost, losses.packets);
    ctx.counters.dropped_many(DropReason::Reassembly, losses.messages);
}
