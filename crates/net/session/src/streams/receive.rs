//! The peer's half of streams: the packets that come, and the windows, gaps and resets that answer them.
//!
//! Invariants: the packet that is next in turn is always taken, any other only if the session has
//! room for it; a stream keeps the subprotocol that it was opened for; a late packet of an ended
//! stream is answered and opens nothing.

use net_types::limits::{MAX_HELD_BYTES, MAX_REASSEMBLY_BYTES, STREAM_IDLE};
use net_types::{Instant, StreamId};
use net_wire::{
    Flags, Header, Nack, Piece, ResetReason, StreamOpen, StreamReset, StreamWindow, Subprotocol,
};

use super::{Stream, Streams, gone, is_dynamic};
use crate::acks::AckRequest;
use crate::recv::{Accepted, Arrival, Losses, Need, Order};
use crate::rtt::Rtt;
use crate::{Context, DropReason, Event, StreamConfig, StreamEvent};

/// What the session sends, sooner or later, because of what came on streams.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    /// What changed about the acknowledgements that the peer is owed.
    pub(crate) ack: AckRequest,
    /// Streams that this side ended, to be told until the peer confirms it.
    pub(crate) resets: Vec<StreamReset>,
    /// A stream that was not opened, to be told once for each packet of it.
    pub(crate) refusal: Option<StreamReset>,
    /// The final window of a stream that has ended.
    pub(crate) final_window: Option<StreamWindow>,
    /// Whether an unreliable message is partly there.
    pub(crate) is_message_partial: bool,
}

impl Streams {
    /// Takes a data packet, whose stream it may open.
    pub(crate) fn on_data(
        &mut self,
        ctx: &mut Context<'_>,
        rtt: &Rtt,
        header: &Header,
        open: Option<StreamOpen>,
        payload: &[u8],
    ) -> Replies {
        let mut replies = Replies::default();
        let slot = self.receiving_stream(ctx, header, header.subprotocol, open, &mut replies);
        if let Some(slot) = slot {
            self.receive(ctx, rtt, slot, header, payload, &mut replies);
        }
        replies
    }

    /// Collects the pieces of a packet and takes it when it is whole.
    pub(crate) fn on_piece(
        &mut self,
        ctx: &mut Context<'_>,
        rtt: &Rtt,
        header: &Header,
        open: Option<StreamOpen>,
        piece: &Piece<'_>,
    ) -> Replies {
        let mut replies = Replies::default();
        let subprotocol = piece.subprotocol;
        let slot = self.receiving_stream(ctx, header, subprotocol, open, &mut replies);
        let has_room = self.sums.buffered.unpaid + piece.bytes.len() <= MAX_HELD_BYTES;
        let stream = slot.and_then(|slot| Some((slot, self.get_mut(slot)?)));
        let Some((slot, stream)) = stream else { return replies };
        // What is held may wait for the packet that is next.
        if !has_room && header.sequence != stream.recv.next_expected() {
            ctx.counters.dropped(DropReason::Reassembly);
            return replies;
        }
        let added = stream.recv.add_piece(header.sequence, piece);
        self.recount(slot);
        match added {
            None => {}
            Some(Err(refused)) => self.refuse(ctx, slot, &refused, &mut replies),
            Some(Ok(payload)) => {
                let whole = Header { subprotocol, ..*header };
                self.receive(ctx, rtt, slot, &whole, &payload, &mut replies);
            }
        }
        replies
    }

    /// The peer ended a stream, which may never have got here; its packets may still come.
    pub(crate) fn on_reset(&mut self, ctx: &mut Context<'_>, reset: StreamReset) {
        let id = reset.stream_id;
        match self.find(id) {
            Some(slot) => drop(self.end(ctx, slot, reset.reason, true)),
            None => self.never_open(id),
        }
    }

    /// Gives up what unreliable streams miss, and asks again for what reliable ones do, where a
    /// report had its time. Returns when to look again.
    pub(crate) fn check_gaps(
        &mut self,
        ctx: &mut Context<'_>,
        rtt: &Rtt,
    ) -> (Option<Instant>, AckRequest) {
        let (mut next, mut ack) = (None, AckRequest::default());
        for slot in 0..self.slots.len() {
            let Some(stream) = self.get_mut(slot) else { continue };
            let Some(at) = stream.nacked_at.filter(|_| stream.recv.has_gaps()) else { continue };
            let is_reliable = stream.recv.mode().is_reliable;
            let patience = rtt.gap_patience(is_reliable);
            let is_over = at + patience <= ctx.now;
            if is_over && is_reliable {
                self.want_nack(slot, true);
            } else if is_over {
                stream.recv.give_up_reported();
                count_losses(ctx, &stream.recv.take_losses());
                self.recount(slot);
                self.owe_window(slot, &mut ack);
                ack.is_urgent = true;
                continue;
            }
            let again = (at + patience).max(ctx.now + patience / 4);
            next = Some(next.map_or(again, |n: Instant| n.min(again)));
        }
        (next, ack)
    }

    /// Gives up unreliable messages that are partly there for too long; returns whether others are.
    pub(crate) fn expire_messages(&mut self, ctx: &mut Context<'_>) -> bool {
        let mut is_any_left = false;
        for slot in 0..self.slots.len() {
            let Some(stream) = self.get_mut(slot) else { continue };
            if stream.recv.mode().is_reliable {
                continue;
            }
            stream.recv.expire(ctx.now);
            is_any_left |= stream.recv.has_partial_messages();
            count_losses(ctx, &stream.recv.take_losses());
            self.recount(slot);
        }
        is_any_left
    }

    /// Whether the peer is owed windows.
    pub(crate) fn owes_windows(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Moves up to `limit` owed windows into `out`.
    pub(crate) fn take_windows(&mut self, limit: usize, out: &mut Vec<StreamWindow>) {
        for _ in 0..limit {
            let Some(slot) = self.dirty.pop() else { return };
            if let Some(stream) = self.get_mut(slot) {
                stream.is_dirty = false;
                stream.recv.note_window_report();
                out.push(stream.recv.window(stream.id));
            }
        }
    }

    /// The next report of gaps, and whether its stream is reliable. A stream stays in line while
    /// one report does not hold all of its gaps.
    pub(crate) fn next_nack(&mut self, now: Instant) -> Option<(Nack, bool)> {
        while let Some(&slot) = self.nacks.front() {
            let stream = self.slots.get_mut(slot).and_then(Option::as_mut)?;
            let report = stream.recv.gaps(stream.nacked_below);
            if let Some((range, _)) = &report {
                stream.nacked_below = range.end;
            }
            if report.is_none() || !stream.recv.has_gaps_from(stream.nacked_below) {
                stream.is_nack_due = false;
                self.nacks.pop_front();
            }
            let Some((range, gaps)) = report else { continue };
            stream.nacked_at = Some(now);
            stream.recv.note_report(range.end);
            let (stream_id, next_expected) = (stream.id, stream.recv.next_expected());
            let nack = Nack { stream_id, next_expected, from: range.start, below: range.end, gaps };
            return Some((nack, stream.recv.mode().is_reliable));
        }
        None
    }

    /// The peer is to hear where the stream stands, at once if it may wait for credit.
    pub(super) fn owe_window(&mut self, slot: usize, ack: &mut AckRequest) {
        let Some(stream) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        if !stream.is_dirty {
            stream.is_dirty = true;
            self.dirty.push(slot);
        }
        ack.is_owed = true;
        ack.is_urgent |= stream.recv.is_grant_urgent();
    }

    /// Has gaps of the stream reported: the new ones, or all.
    fn want_nack(&mut self, slot: usize, is_all: bool) {
        let Some(stream) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        if is_all {
            stream.nacked_below = 0;
        }
        if !stream.is_nack_due {
            stream.is_nack_due = true;
            self.nacks.push_back(slot);
        }
    }

    fn receive(
        &mut self,
        ctx: &mut Context<'_>,
        rtt: &Rtt,
        slot: usize,
        header: &Header,
        payload: &[u8],
        replies: &mut Replies,
    ) {
        let is_fragment = header.flags.contains(Flags::FRAGMENT);
        let arrival = Arrival {
            sequence: header.sequence,
            events: header.event_count,
            frag_index: header.frag_index,
            frag_count: header.frag_count,
            is_fin: header.flags.contains(Flags::FIN),
            payload,
        };
        if !self.has_room_for_packet(slot, &arrival) {
            // The peer sends it again, as long as it hears that this side is there.
            self.owe_window(slot, &mut replies.ack);
            return ctx.counters.dropped(DropReason::Reassembly);
        }
        let Some(stream) = self.get_mut(slot) else { return };
        match stream.recv.accept(header.sequence, payload.len()) {
            Accepted::Yes { order } => self.note_order(ctx.now, rtt, slot, order, replies),
            refused => return self.refuse(ctx, slot, &refused, replies),
        }
        let Some(stream) = self.get_mut(slot) else { return };
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
            events.push_back(stream.event(StreamEvent::Finished));
        }
        let is_reliable = stream.recv.mode().is_reliable;
        if !is_reliable {
            replies.is_message_partial = is_fragment && stream.recv.has_partial_messages();
            count_losses(ctx, &stream.recv.take_losses());
        }
        if result.is_err() {
            ctx.counters.dropped(DropReason::Malformed);
            if is_reliable {
                // What cannot be read cannot be sent again: the stream has lost data for good.
                return replies.resets.extend(self.end(ctx, slot, ResetReason::Protocol, false));
            }
        }
        self.recount(slot);
        (replies.ack.is_packet, replies.ack.is_bulk) = (true, is_fragment);
        replies.ack.is_urgent |= arrival.is_fin;
        self.owe_window(slot, &mut replies.ack);
        replies.final_window = self.remove_if_done(slot);
    }

    /// Plans what the peer is told of a packet's place among the others.
    fn note_order(
        &mut self,
        now: Instant,
        rtt: &Rtt,
        slot: usize,
        order: Order,
        replies: &mut Replies,
    ) {
        if order == Order::OpensGap {
            replies.ack.is_disorder = true;
            return self.want_nack(slot, false);
        }
        if order == Order::FillsGap {
            replies.ack.is_disorder = true;
            replies.ack.is_urgent = true;
        }
        // What arrives above a gap is worth a report too, but not more often than it is of use.
        let is_report_due = self.get(slot).is_some_and(|s| {
            s.nacked_at.is_some_and(|at| at + rtt.smoothed() / 2 <= now)
                && s.recv.has_gaps()
                && s.recv.mode().is_reliable
        });
        if is_report_due {
            self.want_nack(slot, true);
        }
    }

    /// Whether there is room for what a packet needs.
    fn has_room_for_packet(&self, slot: usize, arrival: &Arrival<'_>) -> bool {
        let buffered = self.sums.buffered;
        match self.get(slot).map_or(Need::Nothing, |s| s.recv.need(arrival)) {
            Need::Nothing => true,
            Need::Held(bytes) => buffered.unpaid + bytes <= MAX_HELD_BYTES,
            Need::Message(bytes) => buffered.paid + bytes <= MAX_REASSEMBLY_BYTES,
        }
    }

    fn refuse(
        &mut self,
        ctx: &mut Context<'_>,
        slot: usize,
        refused: &Accepted,
        replies: &mut Replies,
    ) {
        ctx.counters.dropped(match refused {
            Accepted::Duplicate => DropReason::DuplicatePacket,
            _ => DropReason::BeyondWindow,
        });
        // The acknowledgement of the first copy may have been lost.
        replies.ack.is_disorder = true;
        replies.ack.is_urgent = true;
        self.owe_window(slot, &mut replies.ack);
    }

    /// The stream of a packet, opened if it is the peer's to open.
    fn receiving_stream(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        subprotocol: Subprotocol,
        open: Option<StreamOpen>,
        replies: &mut Replies,
    ) -> Option<usize> {
        let stream_id = header.stream_id;
        if let Some(slot) = self.find(stream_id) {
            // A stream keeps the protocol that it was opened for.
            if self.get(slot)?.send.config.subprotocol != subprotocol {
                ctx.counters.dropped(DropReason::Malformed);
                return None;
            }
            return Some(slot);
        }
        replies.final_window = self.ended_window(stream_id, header.sequence);
        if replies.final_window.is_some() {
            // The peer missed the last acknowledgement.
            return None;
        }
        let Some(open) = open.filter(|_| !self.is_ours(stream_id)) else {
            replies.refusal = Some(StreamReset { stream_id, reason: ResetReason::Protocol });
            return None;
        };
        let config = StreamConfig {
            mode: open.mode,
            class: header.class,
            weight: open.weight,
            window_bytes: open.window_bytes,
            subprotocol,
        };
        let slot = self.accept_with_eviction(ctx, stream_id, config, replies);
        if slot.is_none() {
            replies.refusal = Some(StreamReset { stream_id, reason: ResetReason::TooMany });
        } else {
            let mode = open.mode;
            let event = StreamEvent::Opened { mode };
            ctx.events.push_back(Event::Stream { stream_id, subprotocol, event });
        }
        slot
    }

    /// Opens a stream for the peer. One that was idle for long makes room for it.
    fn accept_with_eviction(
        &mut self,
        ctx: &mut Context<'_>,
        stream_id: StreamId,
        config: StreamConfig,
        replies: &mut Replies,
    ) -> Option<usize> {
        config.check().ok()?;
        if !self.has_room_for(config.window_bytes)
            && let Some(idle) = self.longest_idle(ctx.now)
        {
            replies.resets.extend(self.end(ctx, idle, ResetReason::TooMany, false));
        }
        self.accept(stream_id, config)
    }

    /// The stream of the peer's that was not used for the longest time, if that is long enough and
    /// nothing is under way or unread on it. Streams that both sides know by convention stay open.
    fn longest_idle(&self, now: Instant) -> Option<usize> {
        let is_idle = |s: &Stream| {
            s.is_from_peer
                && is_dynamic(s.id)
                && now.since(s.last_used) >= STREAM_IDLE
                && s.send.is_idle()
                && s.recv.is_idle()
                && !s.recv.has_unread()
        };
        let streams = self.slots.iter().enumerate().filter_map(|(i, s)| Some((i, s.as_ref()?)));
        streams.filter(|(_, s)| is_idle(s)).min_by_key(|(_, s)| s.last_used).map(|(slot, _)| slot)
    }

    /// What to answer to packet `sequence` of a stream that is not open, if it has ended.
    pub(super) fn ended_window(&self, stream_id: StreamId, sequence: u64) -> Option<StreamWindow> {
        let was_open = match self.is_ours(stream_id) {
            true => stream_id.0 < self.next_id,
            false => self.ended.has_seen(stream_id),
        };
        let may_have_ended = was_open || !is_dynamic(stream_id);
        may_have_ended.then(|| self.ended.window(stream_id, sequence)).flatten()
    }

    /// A stream of the peer's ended before anything of it got here.
    pub(super) fn never_open(&mut self, id: StreamId) {
        if !self.is_ours(id) && self.ended_window(id, 0).is_none() && self.ended.see(id) {
            self.ended.remember(gone(id));
        }
    }
}

fn count_losses(ctx: &mut Context<'_>, losses: &Losses) {
    ctx.counters.dropped_many(DropReason::DeclaredLost, losses.packets);
    ctx.counters.dropped_many(DropReason::Reassembly, losses.messages);
}
