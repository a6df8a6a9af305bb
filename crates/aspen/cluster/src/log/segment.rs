//! A segment: one file of the log.

use std::sync::{Arc, OnceLock};

use super::record::{SEGMENT_HEADER_BYTES, Seed};
use crate::disk::DiskFile;

/// A file kept for the next segment, so that rolling over allocates nothing.
pub(crate) const SPARE_NAME: &str = "spare";
/// A file that becomes a segment by being renamed.
pub(crate) const FRESH_NAME: &str = "fresh";

/// Name of the file of a segment.
pub(crate) fn file_name(sequence: u64) -> String {
    format!("{sequence:016x}.seg")
}

/// Sequence in a file's name.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

/// A segment. Its file exists once the writer has opened it.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Position among all segments of the log.
    pub sequence: u64,
    /// Checksum state of its records.
    pub seed: Seed,
    /// Bytes it may grow to.
    pub capacity: u64,
    /// Offset at which the records of the segment before end; 0 for the first of the log.
    pub previous_end: u64,
    file: OnceLock<Arc<dyn DiskFile>>,
}

impl Segment {
    /// A segment whose file will be opened later.
    pub(crate) fn new(log_id: &[u8; 16], sequence: u64, capacity: u64, previous_end: u64) -> Self {
        let seed = Seed::new(log_id, sequence);
        Self { sequence, seed, capacity, previous_end, file: OnceLock::new() }
    }

    /// Gives the segment its file; the first call wins.
    pub(crate) fn set_file(&self, file: Arc<dyn DiskFile>) {
        let _ = self.file.set(file);
    }

    /// The file, once it is open.
    pub(crate) fn file(&self) -> Option<&Arc<dyn DiskFile>> {
        self.file.get()
    }
}

/// Capacity of a segment that must take a record of `record_bytes`.
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
