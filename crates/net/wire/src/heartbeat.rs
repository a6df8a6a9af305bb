//! Liveness, round-trip time and confirmation of a handshake.
//!
//! `sent us u64, echo us u64, hold us u32, status u32`. The receiver returns `sent` as `echo` in
//! its next heartbeat with the time it held it, so that the round trip excludes the wait.
//!
//! Invariants: a heartbeat has exactly 24 bytes; reserved status bits are read and ignored.

use crate::{DecodeError, Reader};

/// Bytes of the plaintext.
pub const HEARTBEAT_BYTES: usize = 24;

/// A heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The sender's clock, microseconds.
    pub sent_us: u64,
    /// `sent_us` of the newest heartbeat received, 0 for none.
    pub echo_us: u64,
    /// Microseconds between receiving that one and sending this one.
    pub hold_us: u32,
    /// Bits of [`Heartbeat::DRAINING`] and [`Heartbeat::DRAINED`]; others are reserved.
    pub status: u32,
}

impl Heartbeat {
    /// Another session took over: the sender opens no more streams on this one. Answered by a
    /// heartbeat.
    pub const DRAINING: u32 = 1;
    /// With draining: nothing of the sender's is under way and it misses nothing of the peer's.
    pub const DRAINED: u32 = 2;

    /// The heartbeat's bytes.
    pub fn encode(&self) -> [u8; HEARTBEAT_BYTES] {
        let mut out = [0u8; HEARTBEAT_BYTES];
        out[0..8].copy_from_slice(&self.sent_us.to_le_bytes());
        out[8..16].copy_from_slice(&self.echo_us.to_le_bytes());
        out[16..20].copy_from_slice(&self.hold_us.to_le_bytes());
        out[20..24].copy_from_slice(&self.status.to_le_bytes());
        out
    }

    /// Reads a heartbeat.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Reader::whole(bytes, |r| {
            Ok(Self { sent_us: r.u64()?, echo_us: r.u64()?, hold_us: r.u32()?, status: r.u32()? })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::golden::hex;

    #[test]
    fn layout_is_pinned_and_length_is_exact() {
        let beat = Heartbeat { sent_us: 1, echo_us: 2, hold_us: 3, status: 4 };
        assert_eq!(hex(&beat.encode()), "010000000000000002000000000000000300000004000000");
        assert_eq!(Heartbeat::decode(&beat.encode()), Ok(beat));
        assert!(Heartbeat::decode(&beat.encode()[..23]).is_err());
        assert_eq!(Heartbeat::decode(&[0; 25]), Err(DecodeError::TrailingBytes(1)));
    }
}
