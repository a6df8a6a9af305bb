//! Gaps that a receiver sees in a reliable stream.
//!
//! `stream u64, next expected u64, from u64, below u64, count u8 <= 32`, then `start u64, length
//! u16` for each gap. Of the sequences from `from` to `below`, those in a gap are missing and all
//! others have arrived; of those beyond it says nothing. A receiver that misses more than one frame
//! holds sends several.
//!
//! Invariants: gaps ascend, do not overlap, are not empty and lie between `from` and `below`;
//! `from` is not less than the next expected sequence.

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
    /// First sequence that the report describes.
    pub from: u64,
    /// End of what it describes.
    pub below: u64,
    /// What is missing, ascending.
    pub gaps: Vec<Gap>,
}

impl Nack {
    /// Appends the frame; gaps beyond the limit are left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let gaps = &self.gaps[..self.gaps.len().min(MAX_NACK_GAPS)];
        out.extend_from_slice(&self.stream_id.0.to_le_bytes());
        out.extend_from_slice(&self.next_expected.to_le_bytes());
        out.extend_from_slice(&self.from.to_le_bytes());
        out.extend_from_slice(&self.below.to_le_bytes());
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
        let (from, below) = (r.u64()?, r.u64()?);
        if from < next_expected || below < from {
            return Err(DecodeError::BadValue("range of the report"));
        }
        let count = usize::from(r.u8()?);
        let count = r.bounded("gaps", count, MAX_NACK_GAPS)?;
        let mut gaps = Vec::with_capacity(count);
        let mut floor = from;
        for _ in 0..count {
            let gap = Gap { start: r.u64()?, length: r.u16()? };
            let end = gap.start.checked_add(gap.length.into());
            let is_sound = |end: &u64| gap.length > 0 && gap.start >= floor && *end <= below;
            let Some(end) = end.filter(is_sound) else {
                return Err(DecodeError::BadValue("gap"));
            };
            floor = end;
            gaps.push(gap);
        }
        r.finish()?;
        Ok(Self { stream_id, next_expected, from, below, gaps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::golden::hex;

    fn nack(gaps: &[(u64, u16)]) -> Vec<u8> {
        let gaps = gaps.iter().map(|&(start, length)| Gap { start, length }).collect();
        let mut out = Vec::new();
        Nack { stream_id: StreamId(5), next_expected: 9, from: 10, below: 258, gaps }
            .encode(&mut out);
        out
    }

    #[test]
    fn layout_is_pinned() {
        let bytes = nack(&[(10, 2), (20, 1)]);
        assert_eq!(
            hex(&bytes),
            "050000000000000009000000000000000a000000000000000201000000000000020a0000000000000002001400000000000000\
             0100"
        );
        assert_eq!(Nack::decode(&bytes).unwrap().gaps.len(), 2);
    }

    #[test]
    fn a_report_describes_a_range_and_its_gaps_lie_in_it() {
        let field = |at: usize, value: u64| {
            let mut bytes = nack(&[(20, 5)]);
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            Nack::decode(&bytes).is_ok()
        };
        let [expected, from, below] = [8, 16, 24];
        assert!(field(expected, 10) && field(from, 20) && field(below, 25));
        assert!(!field(expected, 11) && !field(from, 21) && !field(below, 24));
        assert!(!field(below, 9));
    }

    #[test]
    fn empty_unsorted_and_overflowing_gaps_are_refused() {
        for bad in [&[(10, 0)][..], &[(20, 5), (24, 1)], &[(9, 1)], &[(257, 2)], &[(u64::MAX, 1)]] {
            assert!(Nack::decode(&nack(bad)).is_err(), "{bad:?}");
        }
    }
}
