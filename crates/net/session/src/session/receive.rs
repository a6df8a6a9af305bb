//! From a received packet to messages and changed state.

use net_types::Instant;
use net_types::limits::{
    ACK_EVERY_PACKETS, BASE_DATAGRAM_BYTES, COUNTER_JUMP_GIVE_UP, MAX_REASSEMBLY_BYTES,
    MAX_STREAM_WINDOW_BYTES,
};
use net_wire::{
    AckBlock, DecodeError, Flags, Header, Heartbeat, Kind, MtuProbe, Nack, PathChallenge, Reader,
    ResetReason, SessionClose, StreamOpen, StreamReset, StreamWindow, Subprotocol,
};

use super::{CandidatePath, Control, Path, Phase, Session};
use crate::recv::{Accepted, Arrival};
use crate::{CloseCause, Context, DropReason, Event, StreamConfig};

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
            self.consider_path(ctx, from);
        }
        let result = match header.kind {
            Kind::Data => self.on_data(ctx, header, plaintext),
            Kind::Heartbeat => self.on_heartbeat(ctx.now, plaintext),
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
            return self.on_stream_data(ctx, header, open, rest);
        }
        match header.subprotocol {
            Subprotocol::STREAM_WINDOW if rest.is_empty() => {}
            Subprotocol::STREAM_NACK => self.on_nack(ctx, &Nack::decode(rest)?),
            Subprotocol::STREAM_RESET => {
                let reset = StreamReset::decode(rest)?;
                if let Some(slot) = self.streams.find(reset.stream_id) {
                    self.drop_stream(ctx, slot, reset.reason, true);
                }
            }
            _ => ctx.counters.dropped(DropReason::UnknownSubprotocol),
        }
        Ok(())
    }

    fn on_window(&mut self, ctx: &mut Context<'_>, window: &StreamWindow) {
        let Some(slot) = self.streams.find(window.stream_id) else { return };
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let Some(acked) = stream.send.on_window(window.ack_seq, window.total_consumed) else {
            return ctx.counters.dropped(DropReason::Malformed);
        };
        if !acked.is_progress {
            return;
        }
        self.congestion.on_acked(acked.in_flight);
        self.rtt.progress();
        if let Some(sent_at) = acked.sample {
            self.rtt.sample(ctx.now.since(sent_at));
        }
        if acked.largest_payload > BASE_DATAGRAM_BYTES {
            self.mtu.on_progress();
        }
        let stream_id = stream.id;
        if stream.send.was_refused {
            stream.send.was_refused = false;
            ctx.events.push_back(Event::Writable { stream_id });
        }
        if stream.send.is_flushed() && !stream.is_flush_reported {
            stream.is_flush_reported = true;
            ctx.events.push_back(Event::StreamFlushed { stream_id });
        }
        let waits_for_credit = !stream.send.has_unacked() && stream.send.queued_bytes() > 0;
        if waits_for_credit && !stream.send.is_sendable() {
            // The grant that would release it may get lost; the timer asks again.
            self.rto_at.get_or_insert(ctx.now + self.rtt.timeout());
        }
        self.streams.schedule(slot);
        self.remove_if_done(slot);
    }

    fn on_nack(&mut self, ctx: &mut Context<'_>, nack: &Nack) {
        let Some(slot) = self.streams.find(nack.stream_id) else { return };
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let (congestion, counters, now) = (&mut self.congestion, &mut *ctx.counters, ctx.now);
        let arrived = stream.send.on_nack(now, self.rtt.smoothed(), nack, |lost| {
            counters.retransmits_nack += 1;
            congestion.on_lost(now, lost.sent_at);
        });
        congestion.on_acked(arrived);
        self.streams.schedule(slot);
    }

    fn on_stream_data(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        open: Option<StreamOpen>,
        payload: &[u8],
    ) -> Result<(), DecodeError> {
        let Some(slot) = self.receiving_stream(ctx, header, open) else { return Ok(()) };
        let is_fragment = header.flags.contains(Flags::FRAGMENT);
        if is_fragment && self.reassembly_bytes() + payload.len() > MAX_REASSEMBLY_BYTES {
            ctx.counters.dropped(DropReason::Reassembly);
            return Ok(());
        }
        let Some(stream) = self.streams.get_mut(slot) else { return Ok(()) };
        match stream.recv.accept(header.sequence, payload.len()) {
            Accepted::Yes { opens_gap } => {
                self.is_nack_due |= opens_gap;
            }
            refused => {
                let is_duplicate = refused == Accepted::Duplicate;
                ctx.counters.dropped(match is_duplicate {
                    true => DropReason::DuplicatePacket,
                    false => DropReason::BeyondWindow,
                });
                // The acknowledgement of the first copy may have been lost.
                self.must_ack_now = true;
                self.owe_ack(ctx.now, slot);
                return Ok(());
            }
        }
        let arrival = Arrival {
            sequence: header.sequence,
            events: header.event_count,
            frag_index: header.frag_index,
            frag_count: header.frag_count,
            is_fin: header.flags.contains(Flags::FIN),
            payload,
        };
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
        self.unacked_packets += 1;
        // Bulk senders wait for their window; small packets usually meet an answer to ride on.
        let every = if is_fragment { 2 } else { ACK_EVERY_PACKETS };
        self.must_ack_now |= self.unacked_packets >= every || arrival.is_fin;
        self.owe_ack(ctx.now, slot);
        self.remove_if_done(slot);
        result
    }

    /// The stream of a packet, opened if it is the peer's to open.
    fn receiving_stream(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        open: Option<StreamOpen>,
    ) -> Option<usize> {
        let stream_id = header.stream_id;
        if let Some(slot) = self.streams.find(stream_id) {
            if let Some(open) = open.filter(|o| o.window_bytes <= MAX_STREAM_WINDOW_BYTES) {
                self.streams.get_mut(slot)?.recv.set_open(&open);
            }
            return Some(slot);
        }
        if let Some(window) = self.streams.closed_window(stream_id) {
            // The peer missed our last acknowledgement.
            self.ack_scratch.push(window);
            self.must_ack_now = true;
            self.ack_at.get_or_insert(ctx.now);
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
            subprotocol: header.subprotocol,
        };
        if config.check().is_err() || self.phase != Phase::Established {
            return refuse(self, ctx, ResetReason::TooMany);
        }
        let Some(slot) = self.streams.accept(stream_id, config) else {
            return refuse(self, ctx, ResetReason::TooMany);
        };
        self.streams.get_mut(slot)?.recv.set_open(&open);
        let (mode, subprotocol) = (open.mode, header.subprotocol);
        ctx.events.push_back(Event::StreamOpened { stream_id, mode, subprotocol });
        Some(slot)
    }

    fn reassembly_bytes(&self) -> usize {
        let streams = self.streams.slots().filter_map(|s| self.streams.get(s));
        streams.map(|s| s.recv.reassembly_bytes()).sum()
    }

    pub(super) fn remove_if_done(&mut self, slot: usize) {
        let is_done = |s: &super::streams::Stream| s.is_finish_reported && s.send.is_flushed();
        if self.streams.get(slot).is_some_and(is_done) {
            // Its last acknowledgement must still leave.
            let window = self.streams.remove(slot).map(|s| s.recv.window(s.id));
            self.ack_scratch.extend(window);
            self.must_ack_now = true;
        }
    }

    fn on_heartbeat(&mut self, now: Instant, plaintext: &[u8]) -> Result<(), DecodeError> {
        let beat = Heartbeat::decode(plaintext)?;
        let now_us = now.as_nanos() / 1_000;
        let held = u64::from(beat.hold_us);
        if beat.echo_us != 0
            && let Some(rtt_us) = now_us.checked_sub(beat.echo_us).and_then(|t| t.checked_sub(held))
        {
            self.rtt.sample(core::time::Duration::from_micros(rtt_us));
        }
        self.last_heartbeat = Some((beat, now));
        Ok(())
    }

    fn on_mtu_probe(&mut self, ctx: &mut Context<'_>, plaintext: &[u8]) -> Result<(), DecodeError> {
        let probe = MtuProbe::decode(plaintext)?;
        if probe.is_answer {
            self.mtu.on_answer(ctx.now, probe.id);
        } else {
            self.push_control(ctx, Control::MtuAnswer { id: probe.id, size: probe.size });
        }
        Ok(())
    }

    fn consider_path(&mut self, ctx: &mut Context<'_>, from: Path) {
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
        if proved {
            self.path = from;
            ctx.counters.path_changes += 1;
        }
    }
}
