//! From state to sealed packets, one per call, most urgent first.

use net_types::limits::{HEADER_BYTES, MAX_ACK_RECORDS, TAG_BYTES};
use net_types::{Instant, StreamId};
use net_wire::{
    AckBlock, Class, Flags, Header, Heartbeat, Kind, MtuProbe, Nack, OPEN_BLOCK_BYTES,
    PIECE_PREFIX_BYTES, Piece, STREAM_WINDOW_BYTES, SessionClose, Subprotocol,
};

use super::{Control, Outgoing, Phase, Session};
use crate::send::Body;
use crate::{CloseCause, Context};

impl Session {
    /// Appends the next packet to `out`, or returns `None` when there is nothing to send now.
    pub fn poll_packet(&mut self, ctx: &mut Context<'_>, out: &mut Vec<u8>) -> Option<Outgoing> {
        if let Phase::Provisional(_) = self.phase {
            return None;
        }
        while let Some(control) = self.control.pop_front() {
            if let Some(sent) = self.build_control(ctx, control, out) {
                return Some(sent);
            }
        }
        if self.phase == Phase::Closed {
            return None;
        }
        if let Some(sent) = self.build_nack(ctx, out) {
            return Some(sent);
        }
        if self.is_heartbeat_due {
            return self.build_heartbeat(ctx, out);
        }
        if self.mtu.wants_probe()
            && let Some((id, bytes)) = self.mtu.poll_probe(ctx.now, self.rtt.timeout())
        {
            return self.build_probe(ctx, id, bytes, out);
        }
        let next = match self.congestion.can_send() {
            true => self.streams.next_ready(),
            false => self.streams.next_stalled(),
        };
        if let Some(slot) = next {
            return self.build_data(ctx, slot, out);
        }
        if self.acks.is_due() && (self.streams.has_dirty() || !self.last_words.is_empty()) {
            return self.build_acks(ctx, out);
        }
        if core::mem::take(&mut self.is_rto_wanted) {
            self.rto_at.get_or_insert(ctx.now + self.rtt.timeout());
        }
        debug_assert!(self.is_consistent());
        None
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
        self.last_sent = ctx.now;
        let len = out.len() - start;
        ctx.counters.packets_out += 1;
        ctx.counters.bytes_out += len as u64;
        Some(Outgoing { to: self.path, len })
    }

    fn header(&self, kind: Kind) -> Header {
        Header { origin_low: self.own_origin, ..Header::new(kind, self.id, 0) }
    }

    fn build_control(
        &mut self,
        ctx: &mut Context<'_>,
        control: Control,
        out: &mut Vec<u8>,
    ) -> Option<Outgoing> {
        let start = Self::begin(out);
        let (mut header, mut to) = (self.header(Kind::Data), self.path);
        match control {
            Control::Reset(reset) => {
                header.flags = Flags::CONTROL;
                header.subprotocol = Subprotocol::STREAM_RESET;
                reset.encode(out);
            }
            Control::WindowProbe { stream_id, sequence } => {
                header.flags = Flags::RELIABLE;
                (header.stream_id, header.sequence) = (stream_id, sequence);
            }
            Control::Piece { stream_id, sequence, offset } => {
                self.write_piece(&mut header, stream_id, sequence, offset, out);
                if out.len() == start + HEADER_BYTES {
                    // It was acknowledged meanwhile.
                    out.truncate(start);
                    return None;
                }
            }
            Control::Ping { id } => {
                header.kind = Kind::MtuProbe;
                MtuProbe { id, is_answer: false, size: 0 }.encode(out);
            }
            Control::MtuAnswer { id, size } => {
                header.kind = Kind::MtuProbe;
                MtuProbe { id, is_answer: true, size }.encode(out);
            }
            Control::PathChallenge { to: path, bytes } => {
                (header.kind, to) = (Kind::PathChallenge, path);
                out.extend_from_slice(&bytes);
            }
            Control::PathResponse { to: path, bytes } => {
                (header.kind, to) = (Kind::PathResponse, path);
                out.extend_from_slice(&bytes);
            }
            Control::Close(reason) => {
                header.kind = Kind::SessionClose;
                out.extend_from_slice(&SessionClose { reason }.encode());
            }
        }
        self.seal(ctx, header, out, start).map(|sent| Outgoing { to, ..sent })
    }

    /// Writes the part from `offset` on of a packet that is larger than the path takes; nothing if
    /// the packet is acknowledged.
    fn write_piece(
        &self,
        header: &mut Header,
        stream_id: StreamId,
        sequence: u64,
        offset: usize,
        out: &mut Vec<u8>,
    ) {
        let stream = self.streams.find(stream_id).and_then(|slot| self.streams.get(slot));
        let Some(stream) = stream else { return };
        let Some((body, is_fin)) = stream.send.packet(sequence) else { return };
        self.describe(header, stream, sequence, is_fin);
        describe_body(body, header);
        header.flags |= Flags::CONTROL;
        if header.flags.contains(Flags::OPEN) {
            stream.send.config.open_block().encode(out);
        }
        let total = body.payload_len();
        let end = total.min(offset + self.piece_bytes());
        let subprotocol = core::mem::replace(&mut header.subprotocol, Subprotocol::STREAM_PIECE);
        let piece = Piece { subprotocol, total: total as u16, offset: offset as u16, bytes: &[] };
        piece.encode_prefix(out);
        body.write_range(offset..end, out);
    }

    /// Payload bytes in one piece of a packet.
    fn piece_bytes(&self) -> usize {
        self.payload_cap() - OPEN_BLOCK_BYTES - PIECE_PREFIX_BYTES
    }

    /// Fills in what every packet of a stream says about the stream.
    fn describe(
        &self,
        header: &mut Header,
        stream: &super::streams::Stream,
        sequence: u64,
        is_fin: bool,
    ) {
        let config = &stream.send.config;
        (header.stream_id, header.sequence) = (stream.id, sequence);
        (header.class, header.subprotocol) = (config.class, config.subprotocol);
        let flags = [
            (config.mode.is_reliable, Flags::RELIABLE),
            (is_fin, Flags::FIN),
            (stream.send.must_announce(), Flags::OPEN),
        ];
        for (_, flag) in flags.into_iter().filter(|(is_set, _)| *is_set) {
            header.flags |= flag;
        }
    }

    /// Reports gaps of the next stream that opened one or was not answered for a while.
    fn build_nack(&mut self, ctx: &mut Context<'_>, out: &mut Vec<u8>) -> Option<Outgoing> {
        let (stream, range, gaps) = self.streams.next_nack()?;
        stream.nacked_at = Some(ctx.now);
        stream.recv.note_report(range.end);
        let is_reliable = stream.recv.mode().is_reliable;
        let (stream_id, next_expected) = (stream.id, stream.recv.next_expected());
        let nack = Nack { stream_id, next_expected, from: range.start, below: range.end, gaps };
        let check_at = ctx.now + self.gap_patience(is_reliable);
        self.gap_check_at = Some(self.gap_check_at.map_or(check_at, |at| at.min(check_at)));
        let start = Self::begin(out);
        nack.encode(out);
        let mut header = self.header(Kind::Data);
        header.flags = Flags::CONTROL;
        header.subprotocol = Subprotocol::STREAM_NACK;
        self.seal(ctx, header, out, start)
    }

    fn build_heartbeat(&mut self, ctx: &mut Context<'_>, out: &mut Vec<u8>) -> Option<Outgoing> {
        self.is_heartbeat_due = false;
        let us = |t: Instant| t.as_nanos() / 1_000;
        let (echo_us, hold_us) = match self.last_heartbeat.take() {
            Some((beat, at)) => (beat.sent_us, us(ctx.now).saturating_sub(us(at))),
            None => (0, 0),
        };
        let hold_us = u32::try_from(hold_us).unwrap_or(u32::MAX);
        let status = match self.phase {
            Phase::Draining(_) if self.is_done() => Heartbeat::DRAINING | Heartbeat::DRAINED,
            Phase::Draining(_) => Heartbeat::DRAINING,
            _ => 0,
        };
        let beat = Heartbeat { sent_us: us(ctx.now), echo_us, hold_us, status };
        let start = Self::begin(out);
        out.extend_from_slice(&beat.encode());
        let header = self.header(Kind::Heartbeat);
        self.seal(ctx, header, out, start)
    }

    fn build_probe(
        &mut self,
        ctx: &mut Context<'_>,
        id: u32,
        packet_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Option<Outgoing> {
        let start = Self::begin(out);
        MtuProbe { id, is_answer: false, size: packet_bytes as u16 }.encode(out);
        out.resize(start + packet_bytes - TAG_BYTES, 0);
        let header = self.header(Kind::MtuProbe);
        self.seal(ctx, header, out, start)
    }

    fn build_data(
        &mut self,
        ctx: &mut Context<'_>,
        slot: usize,
        out: &mut Vec<u8>,
    ) -> Option<Outgoing> {
        let cap = self.payload_cap();
        let mut header = self.header(Kind::Data);
        let stream = self.streams.get_mut(slot)?;
        let queued_before = stream.send.queued_bytes();
        let sequence = stream.send.take(ctx.now)?;
        stream.last_used = ctx.now;
        let queued = queued_before - stream.send.queued_bytes();
        self.streams.sub_queued(queued);
        self.congestion.on_sent();
        self.rto_at.get_or_insert(ctx.now + self.rtt.timeout());

        let stream = self.streams.get(slot)?;
        let was_refused = stream.send.was_refused;
        let (body, is_fin) = stream.send.packet(sequence)?;
        self.describe(&mut header, stream, sequence, is_fin);
        let body_len = body.payload_len();
        let has_open = header.flags.contains(Flags::OPEN);
        let open = has_open.then(|| stream.send.config.open_block());
        let open_len = if has_open { OPEN_BLOCK_BYTES } else { 0 };
        self.streams.charge(slot, body_len + HEADER_BYTES);
        if was_refused {
            self.tell_stream_writable(ctx, slot);
        }
        self.tell_writable(ctx);
        if body_len + open_len > cap {
            return self.build_pieces(ctx, header.stream_id, sequence, body_len, out);
        }
        let start = Self::begin(out);
        let room = (cap - body_len - open_len).saturating_sub(1) / STREAM_WINDOW_BYTES;
        if self.collect_acks(room) {
            header.flags |= Flags::ACKS;
            AckBlock::encode(&self.ack_scratch, out);
        }
        if let Some(open) = open {
            open.encode(out);
        }
        let (body, _) = self.streams.get(slot)?.send.packet(sequence)?;
        describe_body(body, &mut header);
        body.write_range(0..body_len, out);
        self.seal(ctx, header, out, start)
    }

    /// Sends a packet that was built for a larger path in pieces, the first of them now.
    fn build_pieces(
        &mut self,
        ctx: &mut Context<'_>,
        stream_id: StreamId,
        sequence: u64,
        body_len: usize,
        out: &mut Vec<u8>,
    ) -> Option<Outgoing> {
        let pieces = (0..body_len).step_by(self.piece_bytes());
        for offset in pieces {
            self.control.push_back(Control::Piece { stream_id, sequence, offset });
        }
        let first = self.control.pop_front()?;
        self.build_control(ctx, first, out)
    }

    fn build_acks(&mut self, ctx: &mut Context<'_>, out: &mut Vec<u8>) -> Option<Outgoing> {
        let room = (self.payload_cap() - 1) / STREAM_WINDOW_BYTES;
        if !self.collect_acks(room) {
            return None;
        }
        let start = Self::begin(out);
        AckBlock::encode(&self.ack_scratch, out);
        let mut header = self.header(Kind::Data);
        header.flags = Flags::CONTROL | Flags::ACKS;
        header.subprotocol = Subprotocol::STREAM_WINDOW;
        header.stream_id = StreamId(0);
        header.class = Class::Realtime;
        ctx.counters.ack_packets += 1;
        self.seal(ctx, header, out, start)
    }

    /// Fills the scratch with at most `room` records; false when there are none.
    fn collect_acks(&mut self, room: usize) -> bool {
        let room = room.min(MAX_ACK_RECORDS);
        self.ack_scratch.clear();
        let last_words = self.last_words.len().min(room);
        self.ack_scratch.extend(self.last_words.drain(..last_words));
        self.streams.take_windows(room - last_words, &mut self.ack_scratch);
        if !self.streams.has_dirty() && self.last_words.is_empty() {
            self.acks.settle();
        }
        !self.ack_scratch.is_empty()
    }
}

/// Fills in how a packet's payload is to be read.
fn describe_body(body: &Body, header: &mut Header) {
    match body {
        Body::Packed { events, .. } => header.event_count = *events,
        Body::Fragment { index, count, .. } => {
            header.event_count = 1;
            if *count > 1 {
                header.flags |= Flags::FRAGMENT;
                (header.frag_index, header.frag_count) = (*index, *count);
            }
        }
    }
}
