//! The record of a run: one line per event, and a BLAKE3 hash over all of them.
//!
//! Invariants: two runs are the same exactly if their hashes are; the hash covers every line, while
//! the text keeps the newest ones, so that a failure can be read and a long run stays small.

use std::collections::VecDeque;
use std::fmt::{self, Write};

use net_types::Instant;

/// Lines kept as text unless told otherwise; about 1 MiB.
const KEPT_LINES: usize = 16_384;

/// A run's events so far.
pub struct Trace {
    hasher: blake3::Hasher,
    lines: VecDeque<String>,
    kept_lines: usize,
    total_lines: u64,
}

impl Trace {
    /// An empty trace.
    pub fn new() -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            lines: VecDeque::new(),
            kept_lines: KEPT_LINES,
            total_lines: 0,
        }
    }

    /// Keeps the newest `lines` lines as text; the hash is unaffected.
    pub fn keep(&mut self, lines: usize) {
        self.kept_lines = lines;
        self.trim(lines);
    }

    /// Records one event at `now`.
    pub fn record(&mut self, now: Instant, event: fmt::Arguments<'_>) {
        let mut line = self.recycled();
        // Writing to a String does not fail.
        let _ = writeln!(line, "{now:?} {event}");
        self.hasher.update(line.as_bytes());
        self.total_lines += 1;
        if self.kept_lines > 0 {
            self.lines.push_back(line);
        }
    }

    /// The hash over all lines, 64 hexadecimal digits.
    pub fn hash(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// Lines recorded, kept or not.
    pub fn total_lines(&self) -> u64 {
        self.total_lines
    }

    /// The newest lines.
    pub fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect()
    }

    fn trim(&mut self, lines: usize) {
        let surplus = self.lines.len().saturating_sub(lines);
        self.lines.drain(..surplus);
    }

    /// A cleared line, from the oldest one if there are enough.
    fn recycled(&mut self) -> String {
        if self.lines.len() < self.kept_lines.max(1) {
            return String::new();
        }
        let mut line = self.lines.pop_front().unwrap_or_default();
        line.clear();
        line
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

/// A datagram in a trace: its length and the start of its BLAKE3 hash.
pub(crate) struct Digest<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Digest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.0.len())?;
        let hash = blake3::hash(self.0);
        hash.as_bytes()[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_covers_lines_that_are_no_longer_kept() {
        let run = |kept, first: u32| {
            let mut trace = Trace::new();
            trace.keep(kept);
            trace.record(Instant::ZERO, format_args!("event {first}"));
            for number in 0..10 {
                trace.record(Instant::from_nanos(number), format_args!("event {number}"));
            }
            trace
        };
        assert_eq!(run(2, 7).hash(), run(100, 7).hash());
        assert_eq!(run(0, 7).hash(), run(100, 7).hash());
        assert_ne!(run(2, 7).hash(), run(2, 8).hash());
        assert_eq!(run(2, 7).text(), "0.000000008s event 8\n0.000000009s event 9\n");
        assert_eq!((run(0, 7).text().as_str(), run(0, 7).total_lines()), ("", 11));
    }
}
