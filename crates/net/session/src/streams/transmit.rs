//! What this side sends on its half of streams: packets, and what becomes of those under way.
//!
//! Invariants: while the congestion window is full, only the oldest packet of a stream is sent, and
//! only again; whatever a call changes of a stream is counted before the call returns.

use core::time::Duration;

use net_types::limits::HEADER_BYTES;
use net_types::{Instant, StreamId};
use net_wire::{Flags, Header, Nack, ResetReason, StreamOpen, StreamReset, StreamWindow};

use super::{GONE, Stream, Streams};
use crate::control::WindowProbe;
use crate::send::{Acked, Arrived, Body, LostPackets, Resend};
use crate::{Context, DropReason, StreamEvent};

/// A packet that was taken for sending.
#[derive(Debug)]
pub(crate) struct NextPacket {
    /// Where its stream is; valid until the stream ends.
    pub(crate) slot: usize,
    pub(crate) sequence: u64,
    /// Bytes of the body.
    pub(crate) body_len: usize,
    /// The block that opens the stream, until the peer has confirmed one.
    pub(crate) open: Option<StreamOpen>,
}

/// What a window record did.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) acked: Acked,
    /// The final window, if this ended the stream.
    pub(crate) final_window: Option<StreamWindow>,
}

/// What a NACK showed.
#[derive(Debug, Default)]
pub(crate) struct GapReport {
    pub(crate) arrived: Arrived,
    pub(crate) lost: LostPackets,
}

/// What the retransmission timer found.
#[derive(Debug, Default)]
pub(crate) struct TimedOut {
    /// Packets that are to be sent again.
    pub(crate) resends: u32,
    /// Packets of unreliable streams, which are given up.
    pub(crate) lost: LostPackets,
    /// Largest payload of all of them.
    pub(crate) largest_payload: usize,
    /// Streams that failed.
    pub(crate) resets: Vec<StreamReset>,
    /// Sequences to repeat without data, so that the peer states its window.
    pub(crate) window_probes: Vec<WindowProbe>,
}

impl Streams {
    /// Takes a window record of the peer. `None` if it acknowledges and grants nothing new.
    pub(crate) fn on_window(
        &mut self,
        ctx: &mut Context<'_>,
        window: &StreamWindow,
    ) -> Option<Progress> {
        let slot = self.find(window.stream_id)?;
        if window.ack_seq == GONE {
            self.end(ctx, slot, ResetReason::Closed, true);
            return None;
        }
        let stream = self.get_mut(slot)?;
        let acked = stream.send.on_window(ctx.now, window.ack_seq, window.total_consumed);
        let Some(acked) = acked else {
            ctx.counters.dropped(DropReason::Malformed);
            return None;
        };
        if !acked.is_progress {
            return None;
        }
        if stream.send.is_flushed() && !stream.is_flush_reported {
            stream.is_flush_reported = true;
            ctx.events.push_back(stream.event(StreamEvent::Flushed));
        }
        // The grant that would release it may get lost; the timer asks again.
        let is_blocked = stream.send.is_blocked();
        self.is_credit_awaited |= is_blocked;
        self.settle(slot);
        Some(Progress { acked, final_window: self.remove_if_done(slot) })
    }

    /// Takes a report of gaps. It may be older than a resend for `settle_time`.
    pub(crate) fn on_nack(
        &mut self,
        ctx: &mut Context<'_>,
        settle_time: Duration,
        nack: &Nack,
    ) -> GapReport {
        let mut report = GapReport::default();
        let Some(slot) = self.find(nack.stream_id) else { return report };
        let Some(stream) = self.get_mut(slot) else { return report };
        let lost = &mut report.lost;
        report.arrived = stream.send.on_nack(ctx.now, settle_time, nack, |packet| lost.add(packet));
        if stream.send.config.mode.is_reliable {
            ctx.counters.retransmits_nack += u64::from(report.lost.packets);
        }
        self.settle(slot);
        report
    }

    /// The retransmission timer ran out after `timeout`.
    pub(crate) fn on_timeout(
        &mut self,
        ctx: &mut Context<'_>,
        timeout: Duration,
        resend: Resend,
    ) -> TimedOut {
        let mut out = TimedOut::default();
        for slot in 0..self.slots.len() {
            let Some(stream) = self.get_mut(slot) else { continue };
            let is_reliable = stream.send.config.mode.is_reliable;
            let survives = stream.send.on_timeout(ctx.now, timeout, resend, |packet| {
                out.largest_payload = out.largest_payload.max(packet.payload_len);
                if is_reliable {
                    out.resends += 1;
                } else {
                    out.lost.add(packet);
                }
            });
            if !survives {
                out.resets.extend(self.end(ctx, slot, ResetReason::GaveUp, false));
                continue;
            }
            if let Some(sequence) = stream.send.poll_window_probe(ctx.now, timeout) {
                let subprotocol = stream.send.config.subprotocol;
                out.window_probes.push(WindowProbe { stream_id: stream.id, subprotocol, sequence });
            }
            self.settle(slot);
        }
        out
    }

    /// When the first stream wants [`Streams::on_timeout`].
    pub(crate) fn next_timeout(&self, now: Instant, timeout: Duration) -> Option<Instant> {
        self.iter().filter_map(|s| s.send.next_timeout(now, timeout)).min()
    }

    /// Takes everything out of the flight of reliable streams, to be sent again at once.
    pub(crate) fn resend_all(&mut self) {
        for slot in 0..self.slots.len() {
            if let Some(stream) = self.get_mut(slot) {
                stream.send.resend_all();
                self.settle(slot);
            }
        }
    }

    /// The path's packets have another size.
    pub(crate) fn refit(&mut self, payload_cap: usize) {
        for stream in self.slots.iter_mut().flatten() {
            stream.send.refit(payload_cap);
        }
    }

    /// Takes the packet whose turn it is, and fills in its header. While the congestion window is
    /// full, only the oldest packet of a stream is sent again.
    pub(crate) fn next_packet(
        &mut self,
        ctx: &mut Context<'_>,
        is_window_open: bool,
        header: &mut Header,
    ) -> Option<NextPacket> {
        let slot = if is_window_open { self.next_ready() } else { self.next_stalled() }?;
        let stream = self.get_mut(slot)?;
        let sequence = stream.send.take(ctx.now)?;
        stream.last_used = ctx.now;
        let body_len = stream.describe(sequence, header)?.payload_len();
        stream.deficit -= (body_len + HEADER_BYTES) as i64;
        let open = stream.open_block(header);
        let was_refused = stream.send.was_refused;
        self.recount(slot);
        if was_refused {
            self.tell_stream_writable(ctx, slot);
        }
        self.tell_writable(ctx);
        Some(NextPacket { slot, sequence, body_len, open })
    }

    /// The body of a packet that was taken.
    pub(crate) fn body(&self, packet: &NextPacket) -> Option<&Body> {
        self.get(packet.slot)?.send.packet(packet.sequence).map(|(body, _)| body)
    }

    /// Fills in the header of a packet that is sent in pieces; returns its body and the block that
    /// opens its stream. `None` once it is acknowledged.
    pub(crate) fn packet_in_pieces(
        &self,
        stream_id: StreamId,
        sequence: u64,
        header: &mut Header,
    ) -> Option<(&Body, Option<StreamOpen>)> {
        let stream = self.get(self.find(stream_id)?)?;
        let body = stream.describe(sequence, header)?;
        Some((body, stream.open_block(header)))
    }
}

impl Stream {
    /// Fills in the fields of a packet under way and of its stream; returns its body.
    fn describe(&self, sequence: u64, header: &mut Header) -> Option<&Body> {
        let (body, is_fin) = self.send.packet(sequence)?;
        let config = &self.send.config;
        (header.stream_id, header.sequence) = (self.id, sequence);
        (header.class, header.subprotocol) = (config.class, config.subprotocol);
        let flags = [
            (config.mode.is_reliable, Flags::RELIABLE),
            (is_fin, Flags::FIN),
            (self.send.must_announce(), Flags::OPEN),
        ];
        for (_, flag) in flags.into_iter().filter(|(is_set, _)| *is_set) {
            header.flags |= flag;
        }
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
        Some(body)
    }

    /// The block that opens the stream, if the header says that one follows.
    fn open_block(&self, header: &Header) -> Option<StreamOpen> {
        header.flags.contains(Flags::OPEN).then(|| self.send.config.open_block())
    }
}
