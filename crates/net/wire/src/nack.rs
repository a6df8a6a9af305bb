//! Gaps that a receiver sees in a reliable stream.
//!
//! `stream u64, next expected u64, count u8 <= 32`, then `start u64, length u16` for each gap,
//! ascending and not overlapping.

use net_types::StreamId;
use net_types::limits::MAX_NACK_GAPS;

use crate::{DecodeError, Reader};

/// Missing sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// First missing sequence.
    pub start: u64,
    /// Missing sequences from there, at least 1.
    pub length: u16,
}

/// A negative acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The stream.
    pub stream_id: StreamId,
    /// Everything below has arrived.
    pub next_expected: u64,
    /// What is missing, ascending.
    pub gaps: Vec<Gap>,
}

impl Nack {
    /// Appends the frame; gaps beyond the limit are left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let gaps = &self.gaps[..self.gaps.len().min(MAX_NACK_GAPS)];
        out.extend_from_slice(&self.stream_id.0.to_le_bytes());
        out.extend_from_slice(&self.next_expected.to_le_bytes());
        out.push(gaps.len() as u8);
        for gap in gaps {
            out.extend_from_slice(&gap.start.to_le_bytes());
            out.extend_from_slice(&gap.length.to_le_bytes());
        }
    }

    /// Reads the frame.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let stream_id = StreamId(r.u64()?);
        let next_expected = r.u64()?;
        let count = usize::from(r.u8()?);
        let count = r.bounded("gaps", count, MAX_NACK_GAPS)?;
        let mut gaps = Vec::with_capacity(count);
        let mut floor = next_expected;
        for _ in 0..count {
            let gap = Gap { start: r.u64()?, length: r.u16()? };
            let end = gap.start.checked_add(gap.length.into());
            let Some(end) = end.filter(|_| gap.length > 0 && gap.start >= floor) else {
                return Err(DecodeError::BadValue("gap"));
            };
            floor = end;
            gaps.push(gap);
        }
        r.finish()?;
        Ok(Self { stream_id, next_expected, gaps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::golden::hex;

    fn nack(gaps: &[(u64, u16)]) -> Vec<u8> {
        let gaps = gaps.iter().map(|&(start, length)| Gap { start, length }).collect();
        let mut out = Vec::new();
        Nack { stream_id: StreamId(5), next_expected: 10, gaps }.encode(&mut out);
        out
    }

    #[test]
    fn layout_is_pinned() {
        let bytes = nack(&[(10, 2), (20, 1)]);
        assert_eq!(
            hex(&bytes),
            "05000000000000000a00000000000000020a0000000000000002001400000000000000\
             0100"
        );
        assert_eq!(Nack::decode(&bytes).unwrap().gaps.len(), 2);
    }

    #[test]
    fn empty_unsorted_and_overflowing_gaps_are_refused() {
        for bad in [&[(10, 0)][..], &[(20, 5), (24, 1)], &[(9, 1)], &[(u64::MAX, 1)]] {
            assert!(Nack::decode(&nack(bad)).is_err(), "{bad:?}");
        }
    }
}
