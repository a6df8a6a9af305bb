//! A segment: one file of the log.
//!
//! Invariants: the file is set once, after its header is durable; the file never outgrows
//! `capacity`.

use std::sync::{Arc, OnceLock};

use crate::disk::DiskFile;
use crate::record::{SEGMENT_HEADER_BYTES, Seed};

/// The file of a purged segment, kept for the next one, so that a new segment allocates nothing.
pub(crate) const SPARE_NAME: &str = "spare";
/// A segment without a durable header; it gets its own name once the header is durable.
pub(crate) const FRESH_NAME: &str = "fresh";

/// Name of the file of a segment.
pub(crate) fn file_name(sequence: u64) -> String {
    format!("{sequence:016x}.seg")
}

/// The number of the segment whose file has this name.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

/// A segment. It has a file once the writer has made its header durable.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Number of the segment; segments are numbered from 0 for the life of the log.
    pub sequence: u64,
    /// Where the checksums of its records start.
    pub seed: Seed,
    /// Bytes of the file.
    pub capacity: u64,
    /// Offset at which the records of the segment before end; 0 for the first of the log.
    pub previous_end: u64,
    file: OnceLock<Arc<dyn DiskFile>>,
}

impl Segment {
    /// A segment without a file.
    pub(crate) fn new(log_id: &[u8; 16], sequence: u64, capacity: u64, previous_end: u64) -> Self {
        let seed = Seed::new(log_id, sequence);
        Self { sequence, seed, capacity, previous_end, file: OnceLock::new() }
    }

    /// Gives the segment its file; later calls change nothing.
    pub(crate) fn set_file(&self, file: Arc<dyn DiskFile>) {
        let _ = self.file.set(file);
    }

    /// The file, once there is one.
    pub(crate) fn file(&self) -> Option<&Arc<dyn DiskFile>> {
        self.file.get()
    }

    /// Panics unless `next` may follow this segment.
    pub(crate) fn check_next(&self, next: &Self) {
        assert_eq!(self.sequence + 1, next.sequence, "segments are consecutive");
        assert!(next.previous_end <= self.capacity, "records end within their segment");
        assert!(next.previous_end >= SEGMENT_HEADER_BYTES as u64, "a segment has a header");
    }
}

/// Bytes of the file of a segment that must take a record of `record_bytes`.
pub(crate) fn capacity_for(nominal: u64, record_bytes: usize) -> u64 {
    nominal.max(SEGMENT_HEADER_BYTES as u64 + record_bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_not_segments() {
        assert_eq!(parse_name(&file_name(0x1f)), Some(0x1f));
        for name in ["spare", "fresh", "1.seg", "000000000000000g.seg", "lock"] {
            assert_eq!(parse_name(name), None);
        }
    }
}
