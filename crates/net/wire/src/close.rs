//! Last packet of a session, best effort: `reason u16`.
//!
//! Invariants: the frame has exactly two bytes; a reason keeps its number, and an unknown one is
//! refused.

use crate::registry::numbered;
use crate::{DecodeError, Reader};

numbered! {
    /// Why a session ended.
    CloseReason(u16), "close reason" {
        /// The node shuts down.
        Shutdown = 0,
        /// A newer session with the same peer took over.
        Replaced = 1,
        /// The application disconnected the peer.
        Disconnected = 2,
        /// This side has no room for the session.
        Overloaded = 3,
    }
}

/// Bytes of the frame.
pub const SESSION_CLOSE_BYTES: usize = 2;

/// The frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionClose {
    /// Why.
    pub reason: CloseReason,
}

impl SessionClose {
    /// The frame's bytes.
    pub fn encode(&self) -> [u8; SESSION_CLOSE_BYTES] {
        (self.reason as u16).to_le_bytes()
    }

    /// Reads the frame.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Reader::whole(bytes, |r| Ok(Self { reason: CloseReason::from_wire(r.u16()?)? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_pinned_and_unknown_reasons_are_refused() {
        assert_eq!(SessionClose { reason: CloseReason::Overloaded }.encode(), [3, 0]);
        assert!(SessionClose::decode(&[99, 0]).is_err());
        assert!(SessionClose::decode(&[0, 0, 0]).is_err());
    }
}
