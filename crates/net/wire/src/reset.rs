//! End of a stream by force: `stream u64, reason u16`.
//!
//! Invariants: the frame has exactly ten bytes; a reason keeps its number and its metric label.

use net_types::StreamId;

use crate::registry::numbered;
use crate::{DecodeError, Reader};

numbered! {
    /// Why a stream ended.
    ResetReason(u16), "reset reason" {
        /// The application closed it without waiting.
        Closed = 0,
        /// A packet was sent again too often without an acknowledgement.
        GaveUp = 1,
        /// More streams, or a larger window, than this side allows.
        TooMany = 2,
        /// The peer broke the stream's rules.
        Protocol = 3,
        /// Nothing on this side listens to the stream.
        Refused = 4,
    }
}

/// The frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamReset {
    /// The stream.
    pub stream_id: StreamId,
    /// Why.
    pub reason: ResetReason,
}

impl StreamReset {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.stream_id.0.to_le_bytes());
        out.extend_from_slice(&(self.reason as u16).to_le_bytes());
    }

    /// Reads the frame.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Reader::whole(bytes, |r| {
            Ok(Self { stream_id: StreamId(r.u64()?), reason: ResetReason::from_wire(r.u16()?)? })
        })
    }
}

impl ResetReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Closed, Self::GaveUp, Self::TooMany, Self::Protocol, Self::Refused];

    /// The reason as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::GaveUp => "gave_up",
            Self::TooMany => "too_many",
            Self::Protocol => "protocol",
            Self::Refused => "refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::golden::hex;

    #[test]
    fn layout_is_pinned() {
        let reset = StreamReset { stream_id: StreamId(3), reason: ResetReason::Protocol };
        let mut out = Vec::new();
        reset.encode(&mut out);
        assert_eq!(hex(&out), "03000000000000000300");
        assert_eq!(StreamReset::decode(&out), Ok(reset));
    }
}
