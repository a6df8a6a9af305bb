//! The streams of a session: by id, by readiness to send, by owed acknowledgement.

use core::ops::Range;
use std::collections::VecDeque;

use net_types::limits::{
    MAX_PEER_STREAMS, MAX_PEER_WINDOW_BYTES, MAX_REASSEMBLY_BYTES, MAX_STREAMS, STREAM_IDLE,
};
use net_types::{IdMap, Instant, StreamId};
use net_wire::{Class, Gap, StreamWindow};

use crate::ranges::{Inserted, RangeSet};
use crate::reassembly::Counted;
use crate::recv::RecvStream;
use crate::send::SendStream;
use crate::{OpenError, StreamConfig};

/// First id of streams that applications open; lower ones are known by convention.
const FIRST_DYNAMIC_ID: u64 = 16;
/// Closed streams whose last state is still acknowledged, 32 bytes each.
const MAX_CLOSED: usize = 1_024;
/// Bytes of a round-robin turn per unit of weight.
const QUANTUM_PER_WEIGHT: i64 = 512;
/// Packets of a class in a row before a lower class that waits gets one.
const CLASS_RUN: u32 = 16;
/// What an acknowledgement says of a stream that ended by force: everything is over.
pub(super) const GONE: u64 = u64::MAX;

/// Both halves of a stream.
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    /// Whether the end of the peer's half was reported.
    pub(super) is_finish_reported: bool,
    /// Whether this side has the last word on the stream's flush reported.
    pub(super) is_flush_reported: bool,
    /// When its gaps were last reported to the peer.
    pub(super) nacked_at: Option<Instant>,
    /// When data was last sent or received on it.
    pub(super) last_used: Instant,
    is_from_peer: bool,
    is_ready: bool,
    is_dirty: bool,
    is_nack_due: bool,
    /// What is below was reported to the peer, as far as the next report is concerned.
    nacked_below: u64,
    deficit: i64,
    /// What it holds, as counted in the sum over all streams.
    buffered: Counted,
    /// The same of what the peer counts.
    begun_bytes: usize,
}

pub(super) struct Streams {
    is_initiator: bool,
    slots: Vec<Option<Stream>>,
    free: Vec<usize>,
    by_id: IdMap<StreamId, usize>,
    next_id: u64,
    from_peer: usize,
    /// Windows of those, in bytes.
    peer_window_bytes: usize,
    ready: [VecDeque<usize>; 3],
    dirty: Vec<usize>,
    /// Streams whose gaps are to be reported.
    nacks: VecDeque<usize>,
    queued_bytes: usize,
    buffered: Counted,
    /// What the peer counts for messages that are partly there.
    begun_bytes: usize,
    /// Streams whose next message waits until the peer has room for it.
    waiting: Vec<usize>,
    /// The newest streams that ended, with their last state.
    closed: VecDeque<StreamWindow>,
    /// Ids, halved, of all streams that the peer ever opened: those that are not open have ended.
    /// Peers count up, so this stays one range.
    seen: RangeSet,
    /// Packets in a row of each class, most urgent first.
    runs: [u32; 3],
}

impl Streams {
    pub(super) fn new(is_initiator: bool) -> Self {
        Self {
            is_initiator,
            slots: Vec::new(),
            free: Vec::new(),
            by_id: IdMap::default(),
            next_id: FIRST_DYNAMIC_ID | u64::from(is_initiator),
            from_peer: 0,
            peer_window_bytes: 0,
            ready: Default::default(),
            dirty: Vec::new(),
            nacks: VecDeque::new(),
            queued_bytes: 0,
            buffered: Counted::default(),
            begun_bytes: 0,
            waiting: Vec::new(),
            closed: VecDeque::new(),
            seen: RangeSet::default(),
            runs: [0; 3],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn find(&self, id: StreamId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Stream> {
        self.slots.get_mut(slot)?.as_mut()
    }

    pub(super) fn get(&self, slot: usize) -> Option<&Stream> {
        self.slots.get(slot)?.as_ref()
    }

    pub(super) fn slots(&self) -> Range<usize> {
        0..self.slots.len()
    }

    pub(super) fn open(&mut self, config: StreamConfig) -> Result<StreamId, OpenError> {
        let id = StreamId(self.next_id);
        self.insert(id, config, true).ok_or(OpenError::TooManyStreams)?;
        self.next_id += 2;
        Ok(id)
    }

    pub(super) fn ensure(&mut self, id: StreamId, config: StreamConfig) -> Result<(), OpenError> {
        if self.find(id).is_some() {
            return Ok(());
        }
        self.insert(id, config, true).map(drop).ok_or(OpenError::TooManyStreams)
    }

    /// A stream that the peer opened, unless it has too many.
    pub(super) fn accept(&mut self, id: StreamId, config: StreamConfig) -> Option<usize> {
        if !self.has_room_for(config.window_bytes) || !self.see(id) {
            return None;
        }
        let slot = self.insert(id, config, false)?;
        self.from_peer += 1;
        self.peer_window_bytes += config.window_bytes as usize;
        Some(slot)
    }

    /// Whether the peer may open another stream with this window.
    pub(super) fn has_room_for(&self, window_bytes: u32) -> bool {
        self.from_peer < MAX_PEER_STREAMS
            && self.peer_window_bytes + window_bytes as usize <= MAX_PEER_WINDOW_BYTES
    }

    /// The stream of the peer's that was not used for the longest time, if that is long enough and
    /// nothing is under way or unread on it. Those that both sides know by convention are no such.
    pub(super) fn longest_idle(&self, now: Instant) -> Option<usize> {
        let is_idle = |s: &Stream| {
            s.is_from_peer
                && is_dynamic(s.id)
                && now.since(s.last_used) >= STREAM_IDLE
                && s.send.is_idle()
                && s.recv.is_idle()
                && !s.recv.has_unread()
        };
        let streams = self.slots().filter_map(|slot| Some((slot, self.get(slot)?)));
        let idle = streams.filter(|(_, s)| is_idle(s));
        idle.min_by_key(|(_, s)| s.last_used).map(|(slot, _)| slot)
    }

    /// Remembers the id of a stream of the peer's; false when there is no room to.
    fn see(&mut self, id: StreamId) -> bool {
        !is_dynamic(id) || self.seen.insert(id.0 >> 1) != Inserted::NoRoom
    }

    fn insert(&mut self, id: StreamId, config: StreamConfig, is_ours: bool) -> Option<usize> {
        if self.by_id.len() >= MAX_STREAMS {
            return None;
        }
        let stream = Stream {
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
            buffered: Counted::default(),
            begun_bytes: 0,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(stream);
        self.by_id.insert(id, slot);
        Some(slot)
    }

    /// Whether this side would have opened a stream with this id.
    pub(super) fn is_ours(&self, id: StreamId) -> bool {
        id.opened_by(self.is_initiator)
    }

    /// Removes a stream. Its last state, which late packets of the peer are answered with, is that
    /// it has everything or, if it ended by force, that it is gone.
    pub(super) fn remove(&mut self, slot: usize, by_force: bool) -> Option<Stream> {
        let stream = self.slots.get_mut(slot)?.take()?;
        self.by_id.remove(&stream.id);
        self.ready.iter_mut().for_each(|q| q.retain(|s| *s != slot));
        self.dirty.retain(|s| *s != slot);
        self.nacks.retain(|s| *s != slot);
        self.queued_bytes -= stream.send.queued_bytes();
        self.buffered.remove(stream.buffered);
        self.begun_bytes -= stream.begun_bytes;
        self.waiting.retain(|s| *s != slot);
        self.wake_waiting();
        if stream.is_from_peer {
            self.from_peer -= 1;
            self.peer_window_bytes -= stream.send.config.window_bytes as usize;
        }
        self.free.push(slot);
        let window = if by_force { gone(stream.id) } else { stream.recv.window(stream.id) };
        self.remember_closed(window);
        Some(stream)
    }

    fn remember_closed(&mut self, window: StreamWindow) {
        if self.closed.len() >= MAX_CLOSED {
            self.closed.pop_front();
        }
        self.closed.push_back(window);
    }

    /// The peer ended a stream that never got here; its packets may still come.
    pub(super) fn never_open(&mut self, id: StreamId) {
        if !self.is_ours(id) && self.closed_window(id, 0).is_none() && self.see(id) {
            self.remember_closed(gone(id));
        }
    }

    /// What to answer to a packet of a stream that has ended.
    pub(super) fn closed_window(&self, stream_id: StreamId, sequence: u64) -> Option<StreamWindow> {
        let is_ours = self.is_ours(stream_id);
        let was_open = match is_ours {
            true => stream_id.0 < self.next_id,
            false => self.seen.contains(stream_id.0 >> 1),
        };
        if is_dynamic(stream_id) && !was_open {
            return None;
        }
        let last = self.closed.iter().rev().find(|w| w.stream_id == stream_id).copied();
        // One that ended long ago had everything, so this packet too.
        let all =
            StreamWindow { stream_id, total_consumed: 0, ack_seq: sequence.saturating_add(1) };
        last.or_else(|| is_dynamic(stream_id).then_some(all))
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.is_initiator);
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(super) fn add_queued(&mut self, bytes: usize) {
        self.queued_bytes += bytes;
    }

    pub(super) fn sub_queued(&mut self, bytes: usize) {
        self.queued_bytes -= bytes;
    }

    /// Puts the stream in line if it can send.
    pub(super) fn schedule(&mut self, slot: usize) {
        self.line_up(slot);
        if self.note_begun(slot) {
            self.wake_waiting();
        }
    }

    /// Counts what the stream's peer counts now; returns whether it is less than before.
    fn note_begun(&mut self, slot: usize) -> bool {
        let Some(stream) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return false };
        let (before, after) = (stream.begun_bytes, stream.send.begun_bytes());
        self.begun_bytes = self.begun_bytes - before + after;
        stream.begun_bytes = after;
        after < before
    }

    /// Puts the streams in line that waited for the peer to have room.
    fn wake_waiting(&mut self) {
        for slot in core::mem::take(&mut self.waiting) {
            self.line_up(slot);
        }
    }

    fn line_up(&mut self, slot: usize) {
        let Some(stream) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        if !stream.is_ready && stream.send.is_sendable() {
            stream.is_ready = true;
            self.ready[stream.send.config.class as usize].push_back(slot);
        }
    }

    /// The stream whose turn it is: classes by urgency, each giving way to the next after a run,
    /// and streams of a class by deficit round robin (Shreedhar and Varghese).
    pub(super) fn next_ready(&mut self) -> Option<usize> {
        self.next_from(0)
    }

    fn next_from(&mut self, level: usize) -> Option<usize> {
        let class = *Class::BY_URGENCY.get(level)?;
        if self.runs[level] >= CLASS_RUN {
            self.runs[level] = 0;
            if let Some(slot) = self.next_from(level + 1) {
                return Some(slot);
            }
        }
        if let Some(slot) = self.next_of(class) {
            self.runs[level] += 1;
            return Some(slot);
        }
        self.runs[level] = 0;
        self.next_from(level + 1)
    }

    /// A stream in line whose oldest packet was lost.
    pub(super) fn next_stalled(&self) -> Option<usize> {
        let in_line = Class::BY_URGENCY.iter().flat_map(|c| &self.ready[*c as usize]);
        in_line.copied().find(|slot| self.get(*slot).is_some_and(|s| s.send.is_head_lost()))
    }

    fn next_of(&mut self, class: Class) -> Option<usize> {
        let queue = &mut self.ready[class as usize];
        while let Some(&slot) = queue.front() {
            let stream = self.slots.get_mut(slot).and_then(Option::as_mut)?;
            let charge = stream.send.next_charge();
            let must_wait = charge > 0 && self.begun_bytes + charge > MAX_REASSEMBLY_BYTES;
            if must_wait && !self.waiting.contains(&slot) {
                self.waiting.push(slot);
            }
            if must_wait || !stream.send.is_sendable() {
                stream.is_ready = false;
                // A debt stays: leaving the line does not make the last packet free.
                stream.deficit = stream.deficit.min(0);
                queue.pop_front();
                continue;
            }
            if stream.deficit > 0 {
                return Some(slot);
            }
            stream.deficit += i64::from(stream.send.config.weight) * QUANTUM_PER_WEIGHT;
            queue.rotate_left(1);
        }
        None
    }

    /// The stream sent a packet of `bytes`.
    pub(super) fn charge(&mut self, slot: usize, bytes: usize) {
        if let Some(stream) = self.get_mut(slot) {
            stream.deficit -= bytes as i64;
        }
        self.note_begun(slot);
    }

    pub(super) fn mark_dirty(&mut self, slot: usize) {
        if let Some(stream) = self.slots.get_mut(slot).and_then(Option::as_mut)
            && !stream.is_dirty
        {
            stream.is_dirty = true;
            self.dirty.push(slot);
        }
    }

    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Moves up to `limit` owed acknowledgements into `out`.
    pub(super) fn take_windows(&mut self, limit: usize, out: &mut Vec<StreamWindow>) {
        for _ in 0..limit {
            let Some(slot) = self.dirty.pop() else { return };
            if let Some(stream) = self.slots.get_mut(slot).and_then(Option::as_mut) {
                stream.is_dirty = false;
                stream.recv.note_window_report();
                out.push(stream.recv.window(stream.id));
            }
        }
    }

    /// Has gaps of the stream reported: the new ones, or all.
    pub(super) fn want_nack(&mut self, slot: usize, is_all: bool) {
        let Some(stream) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        if is_all {
            stream.nacked_below = 0;
        }
        if !stream.is_nack_due {
            stream.is_nack_due = true;
            self.nacks.push_back(slot);
        }
    }

    /// The next stream that still has gaps to report, with as many as one report holds and the
    /// sequences that it describes. The stream stays in line while there are more.
    pub(super) fn next_nack(&mut self) -> Option<(&mut Stream, Range<u64>, Vec<Gap>)> {
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
            if let Some((range, gaps)) = report {
                return self.get_mut(slot).map(|stream| (stream, range, gaps));
            }
        }
        None
    }

    /// Counts what the stream holds now.
    pub(super) fn note_buffered(&mut self, slot: usize) {
        if let Some(stream) = self.slots.get_mut(slot).and_then(Option::as_mut) {
            self.buffered.remove(stream.buffered);
            stream.buffered = stream.recv.buffered();
            self.buffered.add(stream.buffered);
        }
    }

    /// What the peer counts for messages of all streams that are partly there.
    pub(super) fn begun_bytes(&self) -> usize {
        self.begun_bytes
    }

    /// What is counted for all streams of what cannot be delivered yet.
    pub(super) fn buffered(&self) -> Counted {
        self.buffered
    }

    /// Counts consumption.
    pub(super) fn consume(&mut self, slot: usize, bytes: u32) {
        if let Some(stream) = self.get_mut(slot) {
            stream.recv.consume(bytes);
        }
    }
}

/// Whether the id is one of those that a side hands out in ascending order.
fn is_dynamic(id: StreamId) -> bool {
    !id.is_channel() && id.0 >= FIRST_DYNAMIC_ID
}

/// The last state of a stream that ended by force.
pub(super) fn gone(stream_id: StreamId) -> StreamWindow {
    StreamWindow { stream_id, total_consumed: 0, ack_seq: GONE }
}

#[cfg(test)]
mod tests {
    use net_types::limits::MAX_MESSAGE_BYTES;

    use super::*;

    fn open_and_end(streams: &mut Streams, id: u64, by_force: bool) {
        let slot = streams.accept(StreamId(id), StreamConfig::default()).unwrap();
        streams.remove(slot, by_force);
    }

    #[test]
    fn an_ended_stream_stays_ended_however_many_follow() {
        // The peer is the initiator: its streams are odd.
        let mut streams = Streams::new(false);
        open_and_end(&mut streams, 17, false);
        open_and_end(&mut streams, 19, true);
        assert_eq!(streams.closed_window(StreamId(19), 5).map(|w| w.ack_seq), Some(GONE));
        for i in 0..5 * MAX_CLOSED as u64 {
            open_and_end(&mut streams, 21 + 2 * i, false);
        }
        assert_eq!(streams.closed.len(), MAX_CLOSED);
        let late = streams.closed_window(StreamId(17), 5);
        assert_eq!(late.map(|w| (w.ack_seq, w.total_consumed)), Some((6, 0)));
        let next = StreamId(21 + 10 * MAX_CLOSED as u64);
        assert_eq!(streams.closed_window(next, 0), None);
        assert_eq!((streams.len(), streams.from_peer), (0, 0));
    }

    #[test]
    fn a_stream_that_ended_before_it_came_never_opens() {
        let mut streams = Streams::new(false);
        streams.never_open(StreamId(17));
        streams.never_open(StreamId(16));
        assert_eq!(streams.closed_window(StreamId(17), 0), Some(gone(StreamId(17))));
        // Even ids are this side's, and it has opened none.
        assert_eq!(streams.closed_window(StreamId(16), 0), None);
        let own = streams.open(StreamConfig::default()).unwrap();
        assert_eq!(own, StreamId(16));
        let slot = streams.find(own).unwrap();
        streams.remove(slot, false);
        assert!(streams.closed_window(own, 0).is_some());
    }

    #[test]
    fn a_class_gives_way_only_to_one_that_can_send() {
        let mut streams = Streams::new(true);
        let mut queue = |class| {
            let id = streams.open(StreamConfig { class, ..StreamConfig::default() }).unwrap();
            let slot = streams.find(id).unwrap();
            let stream = streams.get_mut(slot).unwrap();
            stream.send.queue_bytes(bytes::Bytes::from(vec![0; 60_000]), 1_134).unwrap();
            streams.schedule(slot);
            slot
        };
        let (urgent, idle) = (queue(Class::Realtime), queue(Class::Background));
        // In line, but with nothing to send any more.
        let stream = streams.get_mut(idle).unwrap();
        while stream.send.take(Instant::ZERO).is_some() {}
        for _ in 0..3 * CLASS_RUN {
            assert_eq!(streams.next_ready(), Some(urgent));
        }
    }
    #[test]
    fn messages_begin_when_the_peer_has_room_for_them() {
        let mut streams = Streams::new(true);
        let message = bytes::Bytes::from(vec![0; MAX_MESSAGE_BYTES]);
        for _ in 0..5 {
            let config = StreamConfig { window_bytes: u32::MAX, ..StreamConfig::default() };
            let id = streams.open(config).unwrap();
            let slot = streams.find(id).unwrap();
            streams.get_mut(slot).unwrap().send.queue_bytes(message.clone(), 8_112).unwrap();
            streams.schedule(slot);
        }
        let send_all = |streams: &mut Streams| {
            while let Some(slot) = streams.next_ready() {
                streams.get_mut(slot).unwrap().send.take(Instant::ZERO).unwrap();
                streams.charge(slot, 8_112);
            }
            assert!(streams.begun_bytes() <= MAX_REASSEMBLY_BYTES);
            streams.slots().filter_map(|s| streams.get(s)).filter(|s| s.send.has_unacked()).count()
        };
        assert_eq!(send_all(&mut streams), 3);
        // One message is there.
        let slot = streams.find(StreamId(17)).unwrap();
        let send = &mut streams.get_mut(slot).unwrap().send;
        let end = (0..).find(|sequence| send.packet(*sequence).is_none()).unwrap();
        send.on_window(Instant::ZERO, end, 0).unwrap();
        streams.schedule(slot);
        assert_eq!(send_all(&mut streams), 3);
        // One stream is reset.
        let slot = streams.find(StreamId(19)).unwrap();
        streams.remove(slot, true);
        assert_eq!(send_all(&mut streams), 3);
    }
}
