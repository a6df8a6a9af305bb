//! Session messages that wait to be sent, resets that the peer has not confirmed, and the final
//! windows of streams that have ended.
//!
//! Invariants: each of the three queues has a bound; what finds no room comes again by itself, a
//! frame by what caused it, a reset and a final window by the peer's next packet of the stream; a
//! reset is sent at most [`MAX_RETRIES`] times more.

use core::time::Duration;
use std::collections::VecDeque;

use net_types::limits::MAX_RETRIES;
use net_types::{Instant, StreamId};
use net_wire::{
    CloseReason, Heartbeat, Kind, MtuProbe, Nack, StreamReset, StreamWindow, Subprotocol,
};

use crate::{Counters, DropReason, Path};

/// Control frames that may wait.
const MAX_FRAMES: usize = 256;
/// Resets that are repeated until the peer confirms them.
const MAX_PENDING_RESETS: usize = 256;
/// Final windows that may wait.
const MAX_FINAL_WINDOWS: usize = 1_024;

/// Asks the peer for the window of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowProbe {
    pub(crate) stream_id: StreamId,
    /// The stream's; the peer drops packets of another.
    pub(crate) subprotocol: Subprotocol,
    pub(crate) sequence: u64,
}

/// A session message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// The windows that the peer is owed.
    Acks,
    Nack(Nack),
    Reset(StreamReset),
    /// An acknowledged sequence without data, which the peer answers with its window.
    WindowProbe(WindowProbe),
    /// Part of a packet that is larger than the path takes.
    Piece {
        stream_id: StreamId,
        sequence: u64,
        offset: usize,
    },
    Heartbeat(Heartbeat),
    /// A probe, padded so that its packet has this many bytes at least, or the answer to one.
    MtuProbe {
        probe: MtuProbe,
        packet_bytes: usize,
    },
    PathChallenge {
        to: Path,
        bytes: [u8; 8],
    },
    PathResponse {
        to: Path,
        bytes: [u8; 8],
    },
    Close(CloseReason),
}

impl Control {
    /// A probe of whether the path carries a packet of so many bytes or, if that is 0, of whether the
    /// peer answers.
    pub(crate) fn probe(id: u32, packet_bytes: usize) -> Self {
        let probe = MtuProbe { id, is_answer: false, size: packet_bytes as u16 };
        Self::MtuProbe { probe, packet_bytes }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Acks | Self::Nack(_) | Self::Reset(_) => Kind::Data,
            Self::WindowProbe(_) | Self::Piece { .. } => Kind::Data,
            Self::Heartbeat(_) => Kind::Heartbeat,
            Self::MtuProbe { .. } => Kind::MtuProbe,
            Self::PathChallenge { .. } => Kind::PathChallenge,
            Self::PathResponse { .. } => Kind::PathResponse,
            Self::Close(_) => Kind::SessionClose,
        }
    }

    /// The subprotocol of a control frame about streams.
    pub(crate) fn subprotocol(&self) -> Option<Subprotocol> {
        match self {
            Self::Acks => Some(Subprotocol::STREAM_WINDOW),
            Self::Nack(_) => Some(Subprotocol::STREAM_NACK),
            Self::Reset(_) => Some(Subprotocol::STREAM_RESET),
            // Written with the stream that they are about.
            Self::Piece { .. } | Self::WindowProbe(_) => None,
            Self::Heartbeat(_)
            | Self::MtuProbe { .. }
            | Self::PathChallenge { .. }
            | Self::PathResponse { .. }
            | Self::Close(_) => None,
        }
    }
}

/// A reset that the peer has not confirmed.
#[derive(Clone, Copy, Debug)]
struct PendingReset {
    frame: StreamReset,
    sent_at: Instant,
    attempts: u32,
}

/// The queues of a session's control frames.
#[derive(Debug, Default)]
pub(crate) struct ControlQueue {
    frames: VecDeque<Control>,
    resets: VecDeque<PendingReset>,
    final_windows: VecDeque<StreamWindow>,
}

impl ControlQueue {
    /// Asserts that the queues are within their bounds.
    pub(crate) fn check_invariants(&self) {
        assert!(self.frames.len() <= MAX_FRAMES);
        assert!(self.resets.len() <= MAX_PENDING_RESETS);
        assert!(self.final_windows.len() <= MAX_FINAL_WINDOWS);
        assert!(self.resets.iter().all(|reset| reset.attempts <= MAX_RETRIES));
    }

    /// Queues a frame; one that finds no room is dropped and counted.
    pub(crate) fn push(&mut self, counters: &mut Counters, frame: Control) {
        if self.frames.len() >= MAX_FRAMES {
            return counters.dropped(DropReason::ControlQueue);
        }
        self.frames.push_back(frame);
    }

    pub(crate) fn pop(&mut self) -> Option<Control> {
        self.frames.pop_front()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sends a reset and repeats it until the peer confirms it.
    pub(crate) fn push_reset(&mut self, counters: &mut Counters, now: Instant, frame: StreamReset) {
        self.push(counters, Control::Reset(frame));
        if self.resets.len() >= MAX_PENDING_RESETS {
            self.resets.pop_front();
        }
        self.resets.push_back(PendingReset { frame, sent_at: now, attempts: 0 });
    }

    /// The peer confirmed that the stream is gone.
    pub(crate) fn confirm_reset(&mut self, stream_id: StreamId) {
        self.resets.retain(|r| r.frame.stream_id != stream_id);
    }

    /// Sends the resets again that were not confirmed within `timeout`, and gives up those that
    /// were repeated too often.
    pub(crate) fn repeat_resets(
        &mut self,
        counters: &mut Counters,
        now: Instant,
        timeout: Duration,
    ) {
        for _ in 0..self.resets.len() {
            let Some(mut reset) = self.resets.pop_front() else { return };
            if now.since(reset.sent_at) >= timeout {
                if reset.attempts >= MAX_RETRIES {
                    continue;
                }
                reset.attempts += 1;
                reset.sent_at = now;
                self.push(counters, Control::Reset(reset.frame));
            }
            self.resets.push_back(reset);
        }
    }

    /// When the first unconfirmed reset is to be sent again.
    pub(crate) fn next_repeat(&self, timeout: Duration) -> Option<Instant> {
        self.resets.iter().map(|r| r.sent_at + timeout).min()
    }

    /// The peer is to hear the last state of a stream that has ended.
    pub(crate) fn push_final_window(&mut self, window: StreamWindow) {
        if self.final_windows.len() < MAX_FINAL_WINDOWS {
            self.final_windows.push_back(window);
        }
    }

    pub(crate) fn has_final_windows(&self) -> bool {
        !self.final_windows.is_empty()
    }

    /// Moves up to `limit` final windows into `out`.
    pub(crate) fn take_final_windows(&mut self, limit: usize, out: &mut Vec<StreamWindow>) {
        out.extend(self.final_windows.drain(..self.final_windows.len().min(limit)));
    }
}

#[cfg(test)]
mod tests {
    use net_wire::ResetReason;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn reset(id: u64) -> StreamReset {
        StreamReset { stream_id: StreamId(id), reason: ResetReason::Closed }
    }

    #[test]
    fn a_reset_is_repeated_until_it_is_confirmed_or_given_up() {
        let (mut queue, mut counters) = (ControlQueue::default(), Counters::default());
        let mut now = Instant::ZERO;
        queue.push_reset(&mut counters, now, reset(16));
        queue.push_reset(&mut counters, now, reset(18));
        queue.confirm_reset(StreamId(18));
        let mut sent = 0;
        while queue.next_repeat(TIMEOUT).is_some() {
            sent += core::iter::from_fn(|| queue.pop())
                .filter(|frame| *frame == Control::Reset(reset(16)))
                .count() as u32;
            now += TIMEOUT / 2;
            queue.repeat_resets(&mut counters, now, TIMEOUT);
            queue.check_invariants();
        }
        assert_eq!((sent, queue.pop()), (1 + MAX_RETRIES, None));
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let (mut queue, mut counters) = (ControlQueue::default(), Counters::default());
        for id in 0..=MAX_FRAMES as u32 {
            queue.push(&mut counters, Control::probe(id, 0));
        }
        assert_eq!(counters.drops(DropReason::ControlQueue), 1);
        for _ in 0..2 * MAX_FINAL_WINDOWS {
            let window = StreamWindow { stream_id: StreamId(16), total_consumed: 0, ack_seq: 1 };
            queue.push_final_window(window);
        }
        queue.check_invariants();
        let mut out = Vec::new();
        queue.take_final_windows(40, &mut out);
        queue.take_final_windows(MAX_FINAL_WINDOWS, &mut out);
        assert_eq!((out.len(), queue.has_final_windows()), (MAX_FINAL_WINDOWS, false));
    }
}
