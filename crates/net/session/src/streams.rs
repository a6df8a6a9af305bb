//! The streams of a session, with everything that is counted over all of them.
//!
//! The table has one entry for each kind of event: what the application asks for, a data packet, a
//! piece, a window record, a NACK, a reset, a timer, the next packet to send. Each leaves the table
//! consistent and returns what the session does next; messages and other events go to the
//! [`Context`].
//!
//! Invariants, which [`Streams::check_invariants`] asserts: the sums are those of the streams; a
//! stream that can send is in line, or waits until the peer has room; a stream is in the list of
//! owed windows, and in the list of NACKs, at most once and exactly if it is marked so.

mod ended;
mod receive;
mod schedule;
#[cfg(test)]
mod tests;
mod transmit;

use std::collections::VecDeque;

use net_types::limits::{
    MAX_PEER_STREAMS, MAX_PEER_WINDOW_BYTES, MAX_SESSION_QUEUE_BYTES, MAX_STREAMS,
};
use net_types::{IdMap, Instant, StreamId};
use net_wire::{ResetReason, StreamReset, StreamWindow};

use crate::acks::AckRequest;
use crate::reassembly::Counted;
use crate::recv::RecvStream;
use crate::send::{QueueError, SendStream};
use crate::{Context, Event, OpenError, SendError, StreamConfig, StreamEvent};
use ended::EndedStreams;
pub(crate) use ended::{GONE, gone};
pub(crate) use receive::Replies;
use schedule::Schedule;

/// First id of streams that applications open; lower ones are known by convention.
const FIRST_DYNAMIC_ID: u64 = 16;

/// Both halves of a stream.
struct Stream {
    id: StreamId,
    send: SendStream,
    recv: RecvStream,
    /// Whether the end of the peer's half was reported.
    is_finish_reported: bool,
    /// Whether the flush of this side's half was reported.
    is_flush_reported: bool,
    /// When its gaps were last reported to the peer.
    nacked_at: Option<Instant>,
    /// When data was last sent or received on it.
    last_used: Instant,
    is_from_peer: bool,
    /// Whether it is in the line of its class.
    is_ready: bool,
    /// Whether its window is in the list of those that the peer is owed.
    is_dirty: bool,
    /// Whether it is in the list of those with gaps to report.
    is_nack_due: bool,
    /// Where the next report of gaps begins: what is below is in reports that were sent.
    nacked_below: u64,
    /// Bytes that it may send in this round of its class.
    deficit: i64,
    /// Its part of the table's sums.
    sums: Sums,
}

impl Stream {
    /// An event of this stream for the session's owner.
    fn event(&self, event: StreamEvent) -> Event {
        let subprotocol = self.send.config.subprotocol;
        Event::Stream { stream_id: self.id, subprotocol, event }
    }

    fn new(id: StreamId, config: StreamConfig, is_ours: bool) -> Self {
        Self {
            id,
            send: SendStream::new(config, is_ours),
            recv: RecvStream::new(config.mode, config.window_bytes),
            is_finish_reported: false,
            is_flush_reported: false,
            nacked_at: None,
            last_used: Instant::ZERO,
            is_from_peer: !is_ours,
            is_ready: false,
            is_dirty: false,
            is_nack_due: false,
            nacked_below: 0,
            deficit: 0,
            sums: Sums::default(),
        }
    }
}

/// What is counted of a stream, and of all streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    /// Bytes that wait to be sent.
    queued_bytes: usize,
    /// Packets under way.
    in_flight: u32,
    /// Bytes that the peer counts for incomplete messages.
    begun_bytes: usize,
    /// Bytes counted for what cannot be delivered yet.
    buffered: Counted,
}

impl Sums {
    fn of(send: &SendStream, recv: &RecvStream) -> Self {
        Self {
            queued_bytes: send.queued_bytes(),
            in_flight: send.packets_in_flight(),
            begun_bytes: send.begun_bytes(),
            buffered: recv.buffered(),
        }
    }

    fn add(&mut self, other: Self) {
        self.queued_bytes += other.queued_bytes;
        self.in_flight += other.in_flight;
        self.begun_bytes += other.begun_bytes;
        self.buffered.add(other.buffered);
    }

    fn remove(&mut self, other: Self) {
        self.queued_bytes -= other.queued_bytes;
        self.in_flight -= other.in_flight;
        self.begun_bytes -= other.begun_bytes;
        self.buffered.remove(other.buffered);
    }
}

/// The streams of a session.
pub(crate) struct Streams {
    is_initiator: bool,
    slots: Vec<Option<Stream>>,
    free: Vec<usize>,
    by_id: IdMap<StreamId, usize>,
    next_id: u64,
    /// Streams that the peer opened, and the sum of their windows.
    from_peer: usize,
    peer_window_bytes: usize,
    sums: Sums,
    schedule: Schedule,
    /// Streams whose windows the peer is owed.
    dirty: Vec<usize>,
    /// Streams with gaps to report.
    nacks: VecDeque<usize>,
    ended: EndedStreams,
    /// Whether a message was refused because the whole session's queue was full.
    is_queue_refused: bool,
    /// Whether a stream began to wait for credit, which the retransmission timer asks for again.
    is_credit_awaited: bool,
}

impl Streams {
    pub(crate) fn new(is_initiator: bool) -> Self {
        Self {
            is_initiator,
            slots: Vec::new(),
            free: Vec::new(),
            by_id: IdMap::default(),
            next_id: FIRST_DYNAMIC_ID | u64::from(is_initiator),
            from_peer: 0,
            peer_window_bytes: 0,
            sums: Sums::default(),
            schedule: Schedule::default(),
            dirty: Vec::new(),
            nacks: VecDeque::new(),
            ended: EndedStreams::default(),
            is_queue_refused: false,
            is_credit_awaited: false,
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.is_initiator);
    }

    /// Open streams.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Packets of all streams that are under way.
    pub(crate) fn in_flight(&self) -> u32 {
        self.sums.in_flight
    }

    /// Whether nothing of this side's is under way and nothing of the peer's is missing.
    pub(crate) fn is_idle(&self) -> bool {
        self.iter().all(|s| s.send.is_idle() && s.recv.is_idle())
    }

    /// Whether a packet is not acknowledged.
    pub(crate) fn has_unacked(&self) -> bool {
        self.iter().any(|s| s.send.has_unacked())
    }

    pub(crate) fn open(&mut self, config: StreamConfig) -> Result<StreamId, OpenError> {
        let id = StreamId(self.next_id);
        self.insert(id, config, true).ok_or(OpenError::TooManyStreams)?;
        self.next_id += 2;
        Ok(id)
    }

    pub(crate) fn ensure(&mut self, id: StreamId, config: StreamConfig) -> Result<(), OpenError> {
        if self.find(id).is_some() {
            return Ok(());
        }
        self.insert(id, config, true).map(drop).ok_or(OpenError::TooManyStreams)
    }

    /// Queues a message of at most `len` bytes, which `push` gives to the sending half.
    pub(crate) fn send(
        &mut self,
        id: StreamId,
        len: usize,
        push: impl FnOnce(&mut SendStream) -> Result<(), QueueError>,
    ) -> Result<(), SendError> {
        let slot = self.find(id).ok_or(SendError::StreamClosed)?;
        let queued = self.sums.queued_bytes;
        let stream = self.get_mut(slot).ok_or(SendError::StreamClosed)?;
        if queued + len > MAX_SESSION_QUEUE_BYTES && queued > 0 {
            stream.send.was_refused = true;
            self.is_queue_refused = true;
            return Err(SendError::Backpressure);
        }
        push(&mut stream.send).map_err(|e| match e {
            QueueError::Full => SendError::Backpressure,
            QueueError::TooLarge => SendError::TooLarge,
            QueueError::Finished => SendError::StreamClosed,
        })?;
        let is_blocked = stream.send.is_blocked();
        self.is_credit_awaited |= is_blocked;
        self.settle(slot);
        Ok(())
    }

    /// Returns the credit of `bytes` that the application took.
    pub(crate) fn consume(&mut self, id: StreamId, bytes: u32) -> AckRequest {
        let mut ack = AckRequest::default();
        if let Some(slot) = self.find(id)
            && let Some(stream) = self.get_mut(slot)
        {
            stream.recv.consume(bytes);
            self.owe_window(slot, &mut ack);
        }
        ack
    }

    /// Ends the sending half after everything queued.
    pub(crate) fn finish(&mut self, id: StreamId) {
        if let Some(slot) = self.find(id)
            && let Some(stream) = self.get_mut(slot)
        {
            stream.send.finish();
            self.settle(slot);
        }
    }

    /// Ends both halves at once; returns the reset that tells the peer.
    pub(crate) fn reset(
        &mut self,
        ctx: &mut Context<'_>,
        id: StreamId,
        reason: ResetReason,
    ) -> Option<StreamReset> {
        let slot = self.find(id)?;
        self.end(ctx, slot, reason, false)
    }

    /// Whether a stream began to wait for credit since the last call.
    pub(crate) fn take_credit_awaited(&mut self) -> bool {
        core::mem::take(&mut self.is_credit_awaited)
    }

    fn find(&self, id: StreamId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    fn get(&self, slot: usize) -> Option<&Stream> {
        self.slots.get(slot)?.as_ref()
    }

    fn get_mut(&mut self, slot: usize) -> Option<&mut Stream> {
        self.slots.get_mut(slot)?.as_mut()
    }

    fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.slots.iter().flatten()
    }

    /// Whether this side would have opened a stream with this id.
    fn is_ours(&self, id: StreamId) -> bool {
        id.opened_by(self.is_initiator)
    }

    /// A stream that the peer opened, unless it has too many.
    fn accept(&mut self, id: StreamId, config: StreamConfig) -> Option<usize> {
        if !self.has_room_for(config.window_bytes) || !self.ended.see(id) {
            return None;
        }
        let slot = self.insert(id, config, false)?;
        self.from_peer += 1;
        self.peer_window_bytes += config.window_bytes as usize;
        Some(slot)
    }

    /// Whether the peer may open another stream with this window.
    fn has_room_for(&self, window_bytes: u32) -> bool {
        self.from_peer < MAX_PEER_STREAMS
            && self.by_id.len() < MAX_STREAMS
            && self.peer_window_bytes + window_bytes as usize <= MAX_PEER_WINDOW_BYTES
    }

    fn insert(&mut self, id: StreamId, config: StreamConfig, is_ours: bool) -> Option<usize> {
        if self.by_id.len() >= MAX_STREAMS {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(Stream::new(id, config, is_ours));
        self.by_id.insert(id, slot);
        Some(slot)
    }

    /// Ends a stream by force; returns the reset that tells the peer.
    fn end(
        &mut self,
        ctx: &mut Context<'_>,
        slot: usize,
        reason: ResetReason,
        by_peer: bool,
    ) -> Option<StreamReset> {
        let stream = self.get(slot)?;
        let (stream_id, event) = (stream.id, stream.event(StreamEvent::Reset { reason, by_peer }));
        self.remove(slot, gone(stream_id));
        ctx.counters.stream_reset(reason);
        ctx.events.push_back(event);
        self.tell_writable(ctx);
        Some(StreamReset { stream_id, reason })
    }

    /// Removes a stream whose halves have both ended; returns its final window.
    fn remove_if_done(&mut self, slot: usize) -> Option<StreamWindow> {
        let is_done = |s: &&Stream| s.is_finish_reported && s.send.is_flushed();
        let stream = self.get(slot).filter(is_done)?;
        let window = stream.recv.window(stream.id);
        self.remove(slot, window);
        Some(window)
    }

    /// Removes a stream. Late packets of the peer are answered with its final window.
    fn remove(&mut self, slot: usize, final_window: StreamWindow) {
        let Some(stream) = self.slots.get_mut(slot).and_then(Option::take) else { return };
        self.by_id.remove(&stream.id);
        self.free.push(slot);
        self.sums.remove(stream.sums);
        self.dirty.retain(|s| *s != slot);
        self.nacks.retain(|s| *s != slot);
        self.schedule.remove(slot);
        self.wake_waiting();
        if stream.is_from_peer {
            self.from_peer -= 1;
            self.peer_window_bytes -= stream.send.config.window_bytes as usize;
        }
        self.ended.remember(final_window);
    }

    /// Counts what the stream holds now; returns whether the peer counts less than before.
    fn recount(&mut self, slot: usize) -> bool {
        let Some(stream) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return false };
        let (before, after) = (stream.sums, Sums::of(&stream.send, &stream.recv));
        stream.sums = after;
        self.sums.remove(before);
        self.sums.add(after);
        after.begun_bytes < before.begun_bytes
    }

    /// Reports room to the streams that were refused because the session's queue was full.
    fn tell_writable(&mut self, ctx: &mut Context<'_>) {
        if !self.is_queue_refused || !self.has_queue_room() {
            return;
        }
        self.is_queue_refused = false;
        for slot in 0..self.slots.len() {
            self.tell_stream_writable(ctx, slot);
        }
    }

    fn tell_stream_writable(&mut self, ctx: &mut Context<'_>, slot: usize) {
        let has_queue_room = self.has_queue_room();
        if let Some(stream) = self.get_mut(slot)
            && stream.send.was_refused
            && stream.send.has_room()
            && has_queue_room
        {
            stream.send.was_refused = false;
            ctx.events.push_back(stream.event(StreamEvent::Writable));
        }
    }

    fn has_queue_room(&self) -> bool {
        self.sums.queued_bytes <= MAX_SESSION_QUEUE_BYTES / 2
    }

    /// Asserts the module's invariants.
    pub(crate) fn check_invariants(&self) {
        let (mut sums, mut from_peer, mut peer_window_bytes) = (Sums::default(), 0, 0);
        let (mut ready, mut dirty, mut nacks) = (0, 0, 0);
        for (slot, stream) in self.slots.iter().enumerate() {
            let Some(stream) = stream else { continue };
            stream.send.check_invariants();
            stream.recv.check_invariants();
            assert_eq!(self.by_id.get(&stream.id), Some(&slot), "{} is not found", stream.id);
            let counted = Sums::of(&stream.send, &stream.recv);
            assert_eq!(stream.sums, counted, "{} is not counted as it is", stream.id);
            sums.add(counted);
            from_peer += usize::from(stream.is_from_peer);
            if stream.is_from_peer {
                peer_window_bytes += stream.send.config.window_bytes as usize;
            }
            ready += usize::from(stream.is_ready);
            dirty += usize::from(stream.is_dirty);
            nacks += usize::from(stream.is_nack_due);
            let is_in_line = stream.is_ready || self.schedule.is_waiting(slot);
            assert!(is_in_line || !stream.send.is_sendable(), "{} is not in line", stream.id);
        }
        assert_eq!(self.sums, sums);
        assert_eq!((self.from_peer, self.peer_window_bytes), (from_peer, peer_window_bytes));
        assert_eq!(self.by_id.len() + self.free.len(), self.slots.len());
        assert_eq!(self.dirty.len(), dirty);
        assert!(self.dirty.iter().all(|slot| is(&self.slots, *slot, |s| s.is_dirty)));
        assert_eq!(self.nacks.len(), nacks);
        assert!(self.nacks.iter().all(|slot| is(&self.slots, *slot, |s| s.is_nack_due)));
        self.schedule.check_invariants(&self.slots, ready);
        self.ended.check_invariants();
    }
}

/// Whether the slot has a stream of which `holds` is true.
fn is(slots: &[Option<Stream>], slot: usize, holds: impl FnOnce(&Stream) -> bool) -> bool {
    slots.get(slot).and_then(Option::as_ref).is_some_and(holds)
}

/// Whether the id is one of those that a side hands out in ascending order.
fn is_dynamic(id: StreamId) -> bool {
    !id.is_channel() && id.0 >= FIRST_DYNAMIC_ID
}
