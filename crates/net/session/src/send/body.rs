//! Messages as the payloads of packets.
//!
//! Invariants: a body never changes once it is built, so every resend has the same bytes; a packet
//! of the size that it was built for has [`RIDER_BYTES`] to spare.

use core::ops::Range;

use bytes::Bytes;
use net_wire::{OPEN_BLOCK_BYTES, STREAM_WINDOW_BYTES};

/// Payload bytes left free in a packet for one acknowledgement and the open block, so that both can
/// ride on full packets.
pub(super) const RIDER_BYTES: usize = 1 + STREAM_WINDOW_BYTES + OPEN_BLOCK_BYTES;
/// Length of an event's length.
pub(super) const EVENT_PREFIX: usize = 4;

/// The bytes of a packet that belong to the stream.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Whole events, already prefixed.
    Packed { payload: Vec<u8>, events: u16 },
    /// One fragment of a message, or all of it if `count` is 1; written as one event.
    Fragment { bytes: Bytes, index: u16, count: u16 },
}

impl Body {
    pub(crate) fn payload_len(&self) -> usize {
        match self {
            Self::Packed { payload, .. } => payload.len(),
            Self::Fragment { bytes, .. } => EVENT_PREFIX + bytes.len(),
        }
    }

    /// Whether it is the end of a message that was cut.
    pub(super) fn is_last_fragment(&self) -> bool {
        matches!(self, Self::Fragment { index, count, .. } if index + 1 == *count)
    }

    /// Appends part of the payload as it is on the wire.
    pub(crate) fn write_range(&self, range: Range<usize>, out: &mut Vec<u8>) {
        match self {
            Self::Packed { payload, .. } => {
                out.extend_from_slice(payload.get(range).unwrap_or_default());
            }
            Self::Fragment { bytes, .. } => {
                let prefix = (bytes.len() as u32).to_le_bytes();
                let (start, end) = (range.start.min(EVENT_PREFIX), range.end.min(EVENT_PREFIX));
                out.extend_from_slice(&prefix[start..end]);
                let of_bytes = range.start - start..range.end - end;
                out.extend_from_slice(bytes.get(of_bytes).unwrap_or_default());
            }
        }
    }
}

/// Bytes of each fragment and their number, for a message on a path with this much payload.
pub(super) fn fragmentation(message_bytes: usize, payload_cap: usize) -> (usize, u16) {
    let fragment_bytes = payload_cap - RIDER_BYTES - EVENT_PREFIX;
    // Bounded by the const assertion beside MAX_MESSAGE_BYTES.
    (fragment_bytes, message_bytes.div_ceil(fragment_bytes) as u16)
}
