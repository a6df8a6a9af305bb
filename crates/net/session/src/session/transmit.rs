//! From state to sealed packets, one per call, most urgent first.

use net_types::limits::{ACK_DELAY, HEADER_BYTES, MAX_ACK_RECORDS, TAG_BYTES};
use net_types::{Instant, StreamId};
use net_wire::{
    AckBlock, Class, Flags, Header, Heartbeat, Kind, MtuProbe, Nack, OPEN_BLOCK_BYTES,
    STREAM_WINDOW_BYTES, SessionClose, Subprotocol,
};

use super::{Control, Outgoing, Phase, Session};
use crate::send::Body;
use crate::{CloseCause, Context};

impl Session {
    /// Appends the next packet to `out`, or returns `None` when there is nothing to send now.
    pub fn poll_packet(&mut self, ctx: &mut Context<'_>, out: &mut Vec<u8>) -> Option<Outgoing> {
        match self.phase {
            Phase::Provisional(_) => return None,
            Phase::Closed => {
                let control = self.control.pop_front()?;
                return self.build_control(ctx, control, out);
            }
            Phase::Established | Phase::Draining(_) => {}
        }
        if let Some(control) = self.control.pop_front() {
            return self.build_control(ctx, control, out);
        }
        if self.is_nack_due
            && let Some(sent) = self.build_nack(ctx, out)
        {
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
        if self.must_ack_now && (self.streams.has_dirty() || !self.ack_scratch.is_empty()) {
            return self.build_acks(ctx, out);
        }
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
        Some(Outgoing { to: self.path, len, may_fragment: len > self.mtu.packet_bytes() })
    }

    fn header(&self, kind: Kind) -> Header {
        Header::new(kind, self.id, 0)
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

    /// Reports the gaps of the next stream that has any, and re-arms the timer when none is left.
    fn build_nack(&mut self, ctx: &mut Context<'_>, out: &mut Vec<u8>) -> Option<Outgoing> {
        let repeat = ctx.now + self.rtt.timeout();
        let due = |s: &&super::streams::Stream| s.recv.has_gaps() && s.nacked_at < Some(ctx.now);
        let slots = self.streams.slots();
        let Some(stream) = slots.filter_map(|s| self.streams.get(s)).find(due) else {
            let mut all = self.streams.slots().filter_map(|s| self.streams.get(s));
            self.gap_check_at = all.any(|s| s.recv.has_gaps()).then_some(repeat);
            self.is_nack_due = false;
            return None;
        };
        let nack = Nack {
            stream_id: stream.id,
            next_expected: stream.recv.next_expected(),
            gaps: stream.recv.gaps(),
        };
        if let Some(slot) = self.streams.find(nack.stream_id)
            && let Some(stream) = self.streams.get_mut(slot)
        {
            stream.nacked_at = Some(ctx.now);
        }
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
        let beat = Heartbeat { sent_us: us(ctx.now), echo_us, hold_us, status: 0 };
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
        let sent = self.seal(ctx, header, out, start)?;
        // A probe that IP may cut into pieces would prove nothing.
        Some(Outgoing { may_fragment: false, ..sent })
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
        let queued = queued_before - stream.send.queued_bytes();
        self.streams.sub_queued(queued);
        self.congestion.on_sent();
        self.rto_at.get_or_insert(ctx.now + self.rtt.timeout());

        let stream = self.streams.get(slot)?;
        let (body, is_fin) = stream.send.packet(sequence)?;
        let config = &stream.send.config;
        let open = stream.send.must_announce().then(|| config.open_block());
        (header.stream_id, header.sequence) = (stream.id, sequence);
        (header.class, header.subprotocol) = (config.class, config.subprotocol);
        header.flags = stream_flags(config.mode.is_reliable, is_fin, open.is_some());
        let body_len = body.payload_len();
        let open_len = if open.is_some() { OPEN_BLOCK_BYTES } else { 0 };
        let start = Self::begin(out);
        let room = cap.saturating_sub(body_len + open_len + 1) / STREAM_WINDOW_BYTES;
        if self.collect_acks(room) {
            header.flags |= Flags::ACKS;
            AckBlock::encode(&self.ack_scratch, out);
            self.ack_scratch.clear();
        }
        if let Some(open) = open {
            open.encode(out);
        }
        let (body, _) = self.streams.get(slot)?.send.packet(sequence)?;
        write_body(body, &mut header, out);
        self.streams.charge(slot, body_len + HEADER_BYTES);
        self.seal(ctx, header, out, start)
    }

    fn build_acks(&mut self, ctx: &mut Context<'_>, out: &mut Vec<u8>) -> Option<Outgoing> {
        let room = (self.payload_cap() - 1) / STREAM_WINDOW_BYTES;
        if !self.collect_acks(room) {
            return None;
        }
        let start = Self::begin(out);
        AckBlock::encode(&self.ack_scratch, out);
        self.ack_scratch.clear();
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
        if self.ack_scratch.len() > room {
            // Only last words of closed streams wait here; the peer asks for them again.
            self.ack_scratch.truncate(room);
        }
        let left = room - self.ack_scratch.len();
        self.streams.take_windows(left, &mut self.ack_scratch);
        if !self.streams.has_dirty() {
            self.ack_at = None;
            self.must_ack_now = false;
            self.unacked_packets = 0;
        }
        !self.ack_scratch.is_empty()
    }

    /// Whether acknowledgements wait for data to ride on, and until when.
    pub(super) fn ack_deadline(&self) -> Option<Instant> {
        debug_assert!(ACK_DELAY.as_millis() > 0);
        self.ack_at.filter(|_| self.is_open())
    }
}

fn stream_flags(is_reliable: bool, is_fin: bool, has_open: bool) -> Flags {
    let mut flags = Flags::default();
    if is_reliable {
        flags |= Flags::RELIABLE;
    }
    if is_fin {
        flags |= Flags::FIN;
    }
    if has_open {
        flags |= Flags::OPEN;
    }
    flags
}

fn write_body(body: &Body, header: &mut Header, out: &mut Vec<u8>) {
    match body {
        Body::Packed { payload, events } => {
            header.event_count = *events;
            out.extend_from_slice(payload);
        }
        Body::Fragment { bytes, index, count } => {
            header.event_count = 1;
            header.flags |= Flags::FRAGMENT;
            (header.frag_index, header.frag_count) = (*index, *count);
            net_wire::push_event(out, bytes);
        }
    }
}
