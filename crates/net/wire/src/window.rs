//! Acknowledgement and grant in one record, and the block of them that rides on any packet.
//!
//! Record: `stream u64, total consumed u64, next expected sequence u64`. Block: `count u8 <= 40`,
//! then the records.
//!
//! Invariants: both counters are absolute, so the newest record supersedes and a lost one costs
//! nothing; a block has at most [`MAX_ACK_RECORDS`] records.

use net_types::StreamId;
use net_types::limits::MAX_ACK_RECORDS;

use crate::{DecodeError, Reader};

/// Bytes of one record.
pub const STREAM_WINDOW_BYTES: usize = 24;

/// Where one stream stands at its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamWindow {
    /// The stream.
    pub stream_id: StreamId,
    /// Payload bytes of it that the application has taken since it opened.
    pub total_consumed: u64,
    /// Next expected sequence: everything below has arrived, or is declared lost if unreliable.
    pub ack_seq: u64,
}

/// The acknowledgement block.
pub struct AckBlock;

impl AckBlock {
    /// Appends a block; records beyond the limit are left for the next packet.
    pub fn encode(records: &[StreamWindow], out: &mut Vec<u8>) {
        let records = &records[..records.len().min(MAX_ACK_RECORDS)];
        out.push(records.len() as u8);
        for r in records {
            out.extend_from_slice(&r.stream_id.0.to_le_bytes());
            out.extend_from_slice(&r.total_consumed.to_le_bytes());
            out.extend_from_slice(&r.ack_seq.to_le_bytes());
        }
    }

    /// Checks the whole block and returns its records.
    pub fn decode<'a>(
        r: &mut Reader<'a>,
    ) -> Result<impl Iterator<Item = StreamWindow> + use<'a>, DecodeError> {
        let count = usize::from(r.u8()?);
        let count = r.bounded("acknowledgements", count, MAX_ACK_RECORDS)?;
        let bytes = r.take(count * STREAM_WINDOW_BYTES)?;
        Ok(bytes.chunks_exact(STREAM_WINDOW_BYTES).map(|c| {
            let at = |i: usize| {
                let mut word = [0u8; 8];
                word.copy_from_slice(&c[i..i + 8]);
                u64::from_le_bytes(word)
            };
            StreamWindow { stream_id: StreamId(at(0)), total_consumed: at(8), ack_seq: at(16) }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::golden::hex;

    #[test]
    fn layout_is_pinned_and_round_trips() {
        let records = [
            StreamWindow { stream_id: StreamId(3), total_consumed: 256, ack_seq: 7 },
            StreamWindow { stream_id: StreamId(4), total_consumed: 0, ack_seq: u64::MAX },
        ];
        let mut out = Vec::new();
        AckBlock::encode(&records, &mut out);
        assert_eq!(
            hex(&out),
            "02030000000000000000010000000000000700000000000000\
             04000000000000000000000000000000ffffffffffffffff"
        );
        let mut r = Reader::new(&out);
        assert_eq!(AckBlock::decode(&mut r).unwrap().collect::<Vec<_>>(), records);
        assert_eq!(r.finish(), Ok(()));
    }

    #[test]
    fn a_count_above_the_limit_is_refused_before_reading_on() {
        let mut r = Reader::new(&[41]);
        assert!(matches!(AckBlock::decode(&mut r).err(), Some(DecodeError::BadLength { .. })));
    }
}
