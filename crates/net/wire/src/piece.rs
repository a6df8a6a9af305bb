//! Part of a stream packet that was built for a larger path than there is now.
//!
//! A packet keeps its sequence when it is sent again, so it cannot be cut differently; instead its
//! payload travels in pieces. The header is the packet's own but for the control flag and the
//! subprotocol, which moves into the frame: `subprotocol u16, total u16, offset u16`, then the
//! payload's bytes from `offset` on.
//!
//! Invariants: a piece is not empty and ends within its packet; no packet in pieces is longer than
//! [`MAX_PAYLOAD_BYTES`].

use net_types::limits::MAX_PAYLOAD_BYTES;

use crate::{DecodeError, Reader, Subprotocol};

/// Bytes before a piece's part of the payload.
pub const PIECE_PREFIX_BYTES: usize = 6;

/// One piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Subprotocol of the packet.
    pub subprotocol: Subprotocol,
    /// Bytes of the whole payload.
    pub total: u16,
    /// Where this piece starts in it.
    pub offset: u16,
    /// The piece; never empty.
    pub bytes: &'a [u8],
}

impl<'a> Piece<'a> {
    /// Appends the frame up to its bytes.
    pub fn encode_prefix(&self, out: &mut Vec<u8>) {
        for field in [self.subprotocol.0, self.total, self.offset] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }

    /// Reads the frame.
    pub fn decode(frame: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(frame);
        let subprotocol = Subprotocol(r.u16()?);
        let (total, offset) = (r.u16()?, r.u16()?);
        let bytes = r.rest();
        let end = usize::from(offset) + bytes.len();
        r.bounded("packet in pieces", total.into(), MAX_PAYLOAD_BYTES)?;
        r.bounded("piece", end, total.into())?;
        if bytes.is_empty() {
            return Err(DecodeError::BadValue("empty piece"));
        }
        Ok(Self { subprotocol, total, offset, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let piece = Piece {
            subprotocol: Subprotocol::RPC,
            total: 0x1f00,
            offset: 0x0450,
            bytes: &[0xaa, 0xbb],
        };
        let mut out = Vec::new();
        piece.encode_prefix(&mut out);
        assert_eq!(out.len(), PIECE_PREFIX_BYTES);
        out.extend_from_slice(piece.bytes);
        assert_eq!(out, [0x00, 0x0a, 0x00, 0x1f, 0x50, 0x04, 0xaa, 0xbb]);
        assert_eq!(Piece::decode(&out), Ok(piece));
    }

    #[test]
    fn pieces_outside_of_their_packet_are_refused() {
        let frame = |total: u16, offset: u16, len: usize| {
            let mut out = Vec::new();
            Piece { subprotocol: Subprotocol::EVENTS, total, offset, bytes: &[] }
                .encode_prefix(&mut out);
            out.resize(PIECE_PREFIX_BYTES + len, 0);
            out
        };
        assert!(Piece::decode(&frame(10, 8, 2)).is_ok());
        for bad in [frame(10, 8, 3), frame(10, 8, 0), frame(u16::MAX, 0, 1), frame(0, 0, 1)] {
            assert!(Piece::decode(&bad).is_err());
        }
        assert!(Piece::decode(&frame(10, 0, 1)[..5]).is_err());
    }
}
