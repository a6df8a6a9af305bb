//! From state to sealed packets, one per call, most urgent first.
//!
//! Invariants: a provisional session sends nothing, and a closed one nothing but its close frame;
//! only an MTU probe is larger than the path's packet size; windows are read when their packet is
//! written, so the newest packet supersedes all before it.

use net_types::limits::{HEADER_BYTES, MAX_ACK_RECORDS, TAG_BYTES};
use net_types::{Instant, StreamId};
use net_wire::{
    AckBlock, Class, Flags, Header, Heartbeat, Kind, OPEN_BLOCK_BYTES, PIECE_PREFIX_BYTES, Piece,
    STREAM_WINDOW_BYTES, SessionClose, Subprotocol,
};

use super::{Outgoing, Phase, Session};
use crate::control::Control;
use crate::timer::Timer;
use crate::{CloseCause, Context};

impl Session {
    /// Appends the next packet to `out`, or returns `None` when there is nothing to send now.
    pub fn poll_packet(&mut self, ctx: &mut Context<'_>, out: &mut Vec<u8>) -> Option<Outgoing> {
        let sent = self.next_packet(ctx, out);
        if cfg!(debug_assertions) && sent.is_none() {
            self.check_invariants();
        }
        sent
    }

    fn next_packet(&mut self, ctx: &mut Context<'_>, out: &mut Vec<u8>) -> Option<Outgoing> {
        if self.phase == Phase::Provisional {
            return None;
        }
        while let Some(control) = self.next_control(ctx) {
            if let Some(sent) = self.build_control(ctx, control, out) {
                return Some(sent);
            }
        }
        if self.phase == Phase::Closed {
            return None;
        }
        if let Some(sent) = self.build_data(ctx, out) {
            return Some(sent);
        }
        if self.acks.is_due() && self.owes_acks() {
            ctx.counters.ack_packets += 1;
            return self.build_control(ctx, Control::Acks, out);
        }
        if self.streams.take_credit_awaited() {
            self.timers.set_if_clear(Timer::Retransmit, ctx.now + self.rtt.timeout());
        }
        None
    }

    /// The next session message: what waits, then reports of gaps, a heartbeat, an MTU probe.
    fn next_control(&mut self, ctx: &Context<'_>) -> Option<Control> {
        if let Some(control) = self.control.pop() {
            return Some(control);
        }
        if self.phase == Phase::Closed {
            return None;
        }
        if let Some((nack, is_reliable)) = self.streams.next_nack(ctx.now) {
            let check_at = ctx.now + self.rtt.gap_patience(is_reliable);
            self.timers.set_no_later(Timer::GapCheck, check_at);
            return Some(Control::Nack(nack));
        }
        if core::mem::take(&mut self.is_heartbeat_due) {
            return Some(Control::Heartbeat(self.next_heartbeat(ctx.now)));
        }
        if !self.mtu.wants_probe() {
            return None;
        }
        let probe = self.mtu.poll_probe(&mut self.timers, ctx.now, self.rtt.timeout());
        probe.map(|(id, packet_bytes)| Control::probe(id, packet_bytes))
    }

    fn next_heartbeat(&mut self, now: Instant) -> Heartbeat {
        let us = |t: Instant| t.as_nanos() / 1_000;
        let (echo_us, hold_us) = match self.last_heartbeat.take() {
            Some((beat, at)) => (beat.sent_us, us(now).saturating_sub(us(at))),
            None => (0, 0),
        };
        let hold_us = u32::try_from(hold_us).unwrap_or(u32::MAX);
        Heartbeat { sent_us: us(now), echo_us, hold_us, status: self.status() }
    }

    /// Reserves the header; the plaintext follows.
    fn begin(out: &mut Vec<u8>) -> usize {
        let start = out.len();
        out.resize(start + HEADER_BYTES, 0);
        start
    }

    fn seal(
        &mut self,
        ctx: &mut Context<'_>,
        mut header: Header,
        out: &mut Vec<u8>,
        start: usize,
    ) -> Option<Outgoing> {
        if !self.sealer.seal(ctx.now, &mut header, out, start) {
            out.truncate(start);
            self.finish_closing(ctx, CloseCause::Exhausted);
            return None;
        }
        if self.phase != Phase::Closed {
            self.timers.set(Timer::Heartbeat, ctx.now + self.heartbeat_interval);
        }
        let len = out.len() - start;
        ctx.counters.packets_out += 1;
        ctx.counters.bytes_out += len as u64;
        Some(Outgoing { to: self.path, len })
    }

    fn header(&self, kind: Kind) -> Header {
        Header { origin_low: self.own_origin, ..Header::new(kind, self.id, 0) }
    }

    /// Builds the packet of a session message; `None` if there is nothing left to send.
    fn build_control(
        &mut self,
        ctx: &mut Context<'_>,
        control: Control,
        out: &mut Vec<u8>,
    ) -> Option<Outgoing> {
        let start = Self::begin(out);
        let (mut header, mut to) = (self.header(control.kind()), self.path);
        if let Some(subprotocol) = control.subprotocol() {
            (header.flags, header.subprotocol) = (Flags::CONTROL, subprotocol);
        }
        match control {
            Control::Acks => {
                header.flags |= Flags::ACKS;
                header.class = Class::Realtime;
                self.collect_acks((self.payload_cap() - 1) / STREAM_WINDOW_BYTES);
                AckBlock::encode(&self.ack_scratch, out);
            }
            Control::Nack(nack) => nack.encode(out),
            Control::Reset(reset) => reset.encode(out),
            Control::WindowProbe(probe) => {
                header.flags = Flags::RELIABLE;
                (header.stream_id, header.sequence) = (probe.stream_id, probe.sequence);
                header.subprotocol = probe.subprotocol;
            }
            Control::Piece { stream_id, sequence, offset } => {
                let is_written = self.write_piece(&mut header, stream_id, sequence, offset, out);
                if !is_written {
                    out.truncate(start);
                    return None;
                }
            }
            Control::Heartbeat(beat) => out.extend_from_slice(&beat.encode()),
            Control::MtuProbe { probe, packet_bytes } => {
                probe.encode(out);
                out.resize(out.len().max(start + packet_bytes.saturating_sub(TAG_BYTES)), 0);
            }
            Control::PathChallenge { to: path, bytes }
            | Control::PathResponse { to: path, bytes } => {
                to = path;
                out.extend_from_slice(&bytes);
            }
            Control::Close(reason) => out.extend_from_slice(&SessionClose { reason }.encode()),
        }
        self.seal(ctx, header, out, start).map(|sent| Outgoing { to, ..sent })
    }

    /// Writes the part from `offset` on of a packet that is larger than the path takes; false if
    /// the packet is acknowledged.
    fn write_piece(
        &self,
        header: &mut Header,
        stream_id: StreamId,
        sequence: u64,
        offset: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let packet = self.streams.packet_in_pieces(stream_id, sequence, header);
        let Some((body, open)) = packet else { return false };
        header.flags |= Flags::CONTROL;
        if let Some(open) = open {
            open.encode(out);
        }
        let total = body.payload_len();
        let end = total.min(offset + self.piece_bytes());
        let subprotocol = core::mem::replace(&mut header.subprotocol, Subprotocol::STREAM_PIECE);
        let piece = Piece { subprotocol, total: total as u16, offset: offset as u16, bytes: &[] };
        piece.encode_prefix(out);
        body.write_range(offset..end, out);
        true
    }

    /// Payload bytes in one piece of a packet.
    fn piece_bytes(&self) -> usize {
        self.payload_cap() - OPEN_BLOCK_BYTES - PIECE_PREFIX_BYTES
    }

    fn build_data(&mut self, ctx: &mut Context<'_>, out: &mut Vec<u8>) -> Option<Outgoing> {
        let mut header = self.header(Kind::Data);
        let is_window_open = self.congestion.can_send(self.streams.in_flight());
        let packet = self.streams.next_packet(ctx, is_window_open, &mut header)?;
        self.timers.set_if_clear(Timer::Retransmit, ctx.now + self.rtt.timeout());
        let open_len = if packet.open.is_some() { OPEN_BLOCK_BYTES } else { 0 };
        let cap = self.payload_cap();
        if packet.body_len + open_len > cap {
            // Built for a larger path: it leaves in pieces, the first of them now.
            let (stream_id, sequence) = (header.stream_id, packet.sequence);
            for offset in (0..packet.body_len).step_by(self.piece_bytes()) {
                let piece = Control::Piece { stream_id, sequence, offset };
                self.control.push(ctx.counters, piece);
            }
            let first = self.control.pop()?;
            return self.build_control(ctx, first, out);
        }
        let start = Self::begin(out);
        let room = (cap - packet.body_len - open_len).saturating_sub(1) / STREAM_WINDOW_BYTES;
        if self.collect_acks(room) {
            header.flags |= Flags::ACKS;
            AckBlock::encode(&self.ack_scratch, out);
        }
        if let Some(open) = packet.open {
            open.encode(out);
        }
        self.streams.body(&packet)?.write_range(0..packet.body_len, out);
        self.seal(ctx, header, out, start)
    }

    /// Fills the scratch with at most `room` windows; false when there are none.
    fn collect_acks(&mut self, room: usize) -> bool {
        let room = room.min(MAX_ACK_RECORDS);
        self.ack_scratch.clear();
        self.control.take_final_windows(room, &mut self.ack_scratch);
        self.streams.take_windows(room - self.ack_scratch.len(), &mut self.ack_scratch);
        if !self.owes_acks() {
            self.acks.settle(&mut self.timers);
        }
        !self.ack_scratch.is_empty()
    }

    fn owes_acks(&self) -> bool {
        self.streams.owes_windows() || self.control.has_final_windows()
    }
}
