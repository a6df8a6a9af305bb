//! Streams that have ended: how late packets of them are answered.
//!
//! The newest ended streams are answered with their final windows; of older ones it is only known
//! that they were open, so a late packet of theirs is acknowledged as received.
//!
//! Invariants: an id that a side hands out in ascending order never opens again; at most
//! [`MAX_ENDED`] windows are kept.

use std::collections::VecDeque;

use net_types::StreamId;
use net_wire::StreamWindow;

use super::is_dynamic;
use crate::ranges::{Inserted, RangeSet};

/// Ended streams whose final windows are kept, 32 bytes each.
pub(super) const MAX_ENDED: usize = 1_024;
/// What an acknowledgement says of a stream that ended by force: everything is over.
pub(crate) const GONE: u64 = u64::MAX;

/// The final window of a stream that ended by force.
pub(crate) fn gone(stream_id: StreamId) -> StreamWindow {
    StreamWindow { stream_id, total_consumed: 0, ack_seq: GONE }
}

/// The streams of a session that have ended.
#[derive(Debug, Default)]
pub(super) struct EndedStreams {
    windows: VecDeque<StreamWindow>,
    /// Ids, halved, of all streams that the peer ever opened: those that are not open have ended.
    /// Peers count up, so this stays one range.
    seen: RangeSet,
}

impl EndedStreams {
    /// Asserts that what is remembered is within its bounds.
    pub(super) fn check_invariants(&self) {
        assert!(self.windows.len() <= MAX_ENDED);
        self.seen.check_invariants();
    }

    /// Remembers the id of a stream of the peer's; false when there is no room to.
    pub(super) fn see(&mut self, id: StreamId) -> bool {
        !is_dynamic(id) || self.seen.insert(id.0 >> 1) != Inserted::NoRoom
    }

    /// Whether the peer ever opened a stream with this id.
    pub(super) fn has_seen(&self, id: StreamId) -> bool {
        self.seen.contains(id.0 >> 1)
    }

    /// A stream ended with this window.
    pub(super) fn remember(&mut self, window: StreamWindow) {
        if self.windows.len() >= MAX_ENDED {
            self.windows.pop_front();
        }
        self.windows.push_back(window);
    }

    /// What to answer to packet `sequence` of a stream that was open and is no more.
    pub(super) fn window(&self, stream_id: StreamId, sequence: u64) -> Option<StreamWindow> {
        let kept = self.windows.iter().rev().find(|w| w.stream_id == stream_id).copied();
        // One that ended long ago had everything, so this packet too.
        let all =
            StreamWindow { stream_id, total_consumed: 0, ack_seq: sequence.saturating_add(1) };
        kept.or_else(|| is_dynamic(stream_id).then_some(all))
    }

    #[cfg(test)]
    pub(super) fn is_full(&self) -> bool {
        self.windows.len() == MAX_ENDED
    }
}
