//! Path-MTU probe (RFC 8899): `probe u32, is answer u8, size u16`, then zero padding in a probe.
//!
//! Invariants: an answer repeats its probe's id and size and has no padding; padding is not looked
//! at.

use crate::{DecodeError, Reader};

/// Bytes before the padding.
pub const MTU_PROBE_BYTES: usize = 7;

/// A probe or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MtuProbe {
    /// Correlates probe and answer.
    pub id: u32,
    /// Whether this is the answer, which is not padded.
    pub is_answer: bool,
    /// Datagram bytes that are probed.
    pub size: u16,
}

impl MtuProbe {
    /// Appends probe or answer without padding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.push(self.is_answer.into());
        out.extend_from_slice(&self.size.to_le_bytes());
    }

    /// Reads probe or answer; padding is ignored.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let id = r.u32()?;
        let is_answer = match r.u8()? {
            0 => false,
            1 => true,
            value => return Err(DecodeError::UnknownTag { what: "probe", value: value.into() }),
        };
        Ok(Self { id, is_answer, size: r.u16()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::golden::hex;

    #[test]
    fn layout_is_pinned() {
        let probe = MtuProbe { id: 1, is_answer: true, size: 1392 };
        let mut out = Vec::new();
        probe.encode(&mut out);
        assert_eq!(hex(&out), "01000000017005");
        out.extend_from_slice(&[0; 50]);
        assert_eq!(MtuProbe::decode(&out), Ok(probe));
        assert!(MtuProbe::decode(&[0, 0, 0, 0, 2, 0, 0]).is_err());
    }
}
