//! A stream's parameters, repeated on its packets until one of them is acknowledged.
//!
//! `mode u8, weight u8, reserved u16 = 0, window u32`.
//!
//! Invariants: an ordered stream is reliable; a weight is not 0; the block has 8 bytes, so that
//! every packet keeps room for it.

use crate::{DecodeError, Reader};

/// Bytes of the block.
pub const OPEN_BLOCK_BYTES: usize = 8;

/// How a stream delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamMode {
    /// Lost packets are sent again.
    pub is_reliable: bool,
    /// Messages are delivered in the order they were sent; implies reliable.
    pub is_ordered: bool,
}

impl StreamMode {
    /// Lost packets stay lost.
    pub const FIRE_AND_FORGET: Self = Self { is_reliable: false, is_ordered: false };
    /// Every message arrives, in arrival order.
    pub const RELIABLE: Self = Self { is_reliable: true, is_ordered: false };
    /// Every message arrives, in sending order.
    pub const ORDERED: Self = Self { is_reliable: true, is_ordered: true };

    fn to_wire(self) -> u8 {
        u8::from(self.is_reliable) | (u8::from(self.is_ordered) << 1)
    }

    fn from_wire(value: u8) -> Result<Self, DecodeError> {
        match value {
            0 => Ok(Self::FIRE_AND_FORGET),
            1 => Ok(Self::RELIABLE),
            3 => Ok(Self::ORDERED),
            _ => Err(DecodeError::UnknownTag { what: "stream mode", value: value.into() }),
        }
    }
}

/// The parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOpen {
    /// How the stream delivers.
    pub mode: StreamMode,
    /// Share among scheduled streams, 1..=255.
    pub weight: u8,
    /// Bytes the sender may have outstanding.
    pub window_bytes: u32,
}

impl StreamOpen {
    /// Appends the block.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.mode.to_wire(), self.weight, 0, 0]);
        out.extend_from_slice(&self.window_bytes.to_le_bytes());
    }

    /// Reads the block.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mode = StreamMode::from_wire(r.u8()?)?;
        let weight = r.u8()?;
        if weight == 0 || r.u16()? != 0 {
            return Err(DecodeError::BadValue("stream open block"));
        }
        Ok(Self { mode, weight, window_bytes: r.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::golden::hex;

    #[test]
    fn layout_is_pinned_and_round_trips() {
        let open = StreamOpen { mode: StreamMode::ORDERED, weight: 9, window_bytes: 65_536 };
        let mut out = Vec::new();
        open.encode(&mut out);
        assert_eq!(hex(&out), "0309000000000100");
        assert_eq!(StreamOpen::decode(&mut Reader::new(&out)), Ok(open));
        assert!(StreamOpen::decode(&mut Reader::new(&[2, 9, 0, 0, 0, 0, 1, 0])).is_err());
        assert!(StreamOpen::decode(&mut Reader::new(&[1, 0, 0, 0, 0, 0, 1, 0])).is_err());
    }
}
