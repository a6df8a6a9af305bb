//! The streams of a session: by id, by readiness to send, by owed acknowledgement.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use net_types::limits::{MAX_PEER_STREAMS, MAX_STREAMS};
use net_types::{Instant, StreamId};
use net_wire::{Class, StreamWindow};

use crate::recv::RecvStream;
use crate::send::SendStream;
use crate::{OpenError, StreamConfig};

/// First id of streams that applications open; lower ones are known by convention.
const FIRST_DYNAMIC_ID: u64 = 16;
/// Closed streams whose last state is still acknowledged, 32 bytes each.
const MAX_CLOSED: usize = 1_024;
/// Bytes of a round-robin turn per unit of weight.
const QUANTUM_PER_WEIGHT: i64 = 512;
/// Realtime packets in a row before a lower class gets one.
const REALTIME_RUN: u32 = 16;

/// Hashes stream ids. Peers choose them, but a session holds at most [`MAX_STREAMS`] and a peer that
/// slows its own session down harms itself only.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }
}

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
    is_ready: bool,
    is_dirty: bool,
    deficit: i64,
    reported_consumed: u64,
}

pub(super) struct Streams {
    is_initiator: bool,
    slots: Vec<Option<Stream>>,
    free: Vec<usize>,
    by_id: HashMap<StreamId, usize, BuildHasherDefault<IdHasher>>,
    next_id: u64,
    from_peer: usize,
    ready: [VecDeque<usize>; 3],
    dirty: Vec<usize>,
    queued_bytes: usize,
    closed: VecDeque<StreamWindow>,
    realtime_run: u32,
}

impl Streams {
    pub(super) fn new(is_initiator: bool) -> Self {
        Self {
            is_initiator,
            slots: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::default(),
            next_id: FIRST_DYNAMIC_ID | u64::from(is_initiator),
            from_peer: 0,
            ready: Default::default(),
            dirty: Vec::new(),
            queued_bytes: 0,
            closed: VecDeque::new(),
            realtime_run: 0,
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

    pub(super) fn slots(&self) -> core::ops::Range<usize> {
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
        if self.from_peer >= MAX_PEER_STREAMS {
            return None;
        }
        let slot = self.insert(id, config, false)?;
        self.from_peer += 1;
        Some(slot)
    }

    fn insert(&mut self, id: StreamId, config: StreamConfig, is_ours: bool) -> Option<usize> {
        if self.by_id.len() >= MAX_STREAMS {
            return None;
        }
        let stream = Stream {
            id,
            send: SendStream::new(config, is_ours),
            recv: RecvStream::new(config.mode),
            is_finish_reported: false,
            is_flush_reported: false,
            nacked_at: None,
            is_ready: false,
            is_dirty: false,
            deficit: 0,
            reported_consumed: 0,
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

    pub(super) fn remove(&mut self, slot: usize) -> Option<Stream> {
        let stream = self.slots.get_mut(slot)?.take()?;
        self.by_id.remove(&stream.id);
        self.ready.iter_mut().for_each(|q| q.retain(|s| *s != slot));
        self.dirty.retain(|s| *s != slot);
        self.queued_bytes -= stream.send.queued_bytes();
        if !self.is_ours(stream.id) {
            self.from_peer -= 1;
        }
        self.free.push(slot);
        if self.closed.len() >= MAX_CLOSED {
            self.closed.pop_front();
        }
        self.closed.push_back(stream.recv.window(stream.id));
        Some(stream)
    }

    /// The last state of a stream that closed not long ago.
    pub(super) fn closed_window(&self, id: StreamId) -> Option<StreamWindow> {
        self.closed.iter().rev().find(|w| w.stream_id == id).copied()
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
        let Some(stream) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        if !stream.is_ready && stream.send.is_sendable() {
            stream.is_ready = true;
            self.ready[stream.send.config.class as usize].push_back(slot);
        }
    }

    /// The stream whose turn it is: classes by urgency, streams of a class by deficit round robin
    /// (Shreedhar and Varghese), with a share of lower classes kept free of realtime.
    pub(super) fn next_ready(&mut self) -> Option<usize> {
        let lower_waits = [Class::Foreground, Class::Background]
            .iter()
            .any(|c| !self.ready[*c as usize].is_empty());
        for class in Class::BY_URGENCY {
            let is_realtime = class == Class::Realtime;
            if is_realtime && lower_waits && self.realtime_run >= REALTIME_RUN {
                self.realtime_run = 0;
                continue;
            }
            if let Some(slot) = self.next_of(class) {
                self.realtime_run = if is_realtime { self.realtime_run + 1 } else { 0 };
                return Some(slot);
            }
        }
        None
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
            if !stream.send.is_sendable() {
                stream.is_ready = false;
                stream.deficit = 0;
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
                let window = stream.recv.window(stream.id);
                stream.reported_consumed = window.total_consumed;
                out.push(window);
            }
        }
    }

    /// Counts consumption; true when so much is unreported that the peer may be waiting.
    pub(super) fn consume(&mut self, slot: usize, bytes: u32) -> bool {
        let Some(stream) = self.get_mut(slot) else { return false };
        stream.recv.consume(bytes);
        let consumed = stream.recv.window(stream.id).total_consumed;
        consumed - stream.reported_consumed >= u64::from(stream.recv.window_bytes() / 4)
    }
}
