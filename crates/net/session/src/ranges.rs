//! Sequences received above the next expected one, as sorted ranges with gaps between them.
//!
//! Invariants: ranges are ascending, not empty, and never touch; there are at most [`MAX_RANGES`].

use net_types::limits::MAX_NACK_GAPS;
use net_wire::Gap;

/// Most ranges that are kept; each is 16 bytes. A packet that would need one more is refused, which
/// only delays it.
const MAX_RANGES: usize = 1_024;

/// Half-open ranges `start..end`, ascending, never touching.
#[derive(Clone, Debug, Default)]
pub(crate) struct RangeSet(Vec<(u64, u64)>);

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    New,
    Duplicate,
    NoRoom,
}

impl RangeSet {
    /// Asserts the order of the ranges, the gaps between them and their number.
    pub(crate) fn check_invariants(&self) {
        assert!(self.0.len() <= MAX_RANGES);
        assert!(self.0.iter().all(|range| range.0 < range.1), "an empty range");
        assert!(self.0.is_sorted_by(|range, next| range.1 < next.0), "ranges touch");
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, value: u64) -> bool {
        let at = self.0.partition_point(|r| r.1 <= value);
        self.0.get(at).is_some_and(|r| r.0 <= value)
    }

    /// The lowest value.
    pub(crate) fn first(&self) -> Option<u64> {
        self.0.first().map(|r| r.0)
    }

    pub(crate) fn insert(&mut self, value: u64) -> Inserted {
        // Nearly all insertions extend the last range.
        if let Some(last) = self.0.last_mut()
            && last.1 == value
        {
            last.1 += 1;
            return Inserted::New;
        }
        let at = self.0.partition_point(|r| r.1 < value);
        let Some(&(start, end)) = self.0.get(at) else {
            return self.add(at, value);
        };
        if start <= value && value < end {
            return Inserted::Duplicate;
        }
        if end == value {
            self.0[at].1 += 1;
            if self.0.get(at + 1).is_some_and(|next| next.0 == value + 1) {
                self.0[at].1 = self.0.remove(at + 1).1;
            }
            return Inserted::New;
        }
        if start == value + 1 {
            self.0[at].0 = value;
            return Inserted::New;
        }
        self.add(at, value)
    }

    fn add(&mut self, at: usize, value: u64) -> Inserted {
        if self.0.len() >= MAX_RANGES {
            return Inserted::NoRoom;
        }
        self.0.insert(at, (value, value + 1));
        Inserted::New
    }

    /// Removes the range that starts at `next`, if any, and returns its end.
    pub(crate) fn take_from(&mut self, next: u64) -> Option<u64> {
        let &(start, end) = self.0.first()?;
        if start > next {
            return None;
        }
        self.0.remove(0);
        Some(end)
    }

    /// What is missing from `from` on, as far as one frame holds, and the end of what that
    /// describes; `None` if nothing above `from` is missing.
    pub(crate) fn gaps(&self, from: u64) -> Option<(Vec<Gap>, u64)> {
        let first = self.0.partition_point(|r| r.1 <= from);
        let mut at = from;
        let mut gaps = Vec::new();
        for &(start, end) in &self.0[first..] {
            while at < start {
                if gaps.len() >= MAX_NACK_GAPS {
                    return Some((gaps, at));
                }
                let length = (start - at).min(u16::MAX.into()) as u16;
                gaps.push(Gap { start: at, length });
                at += u64::from(length);
            }
            at = end;
        }
        (!gaps.is_empty()).then_some((gaps, at))
    }

    /// The end of the highest range.
    pub(crate) fn end(&self) -> Option<u64> {
        self.0.last().map(|r| r.1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn agrees_with_a_set_for_every_order_of_a_few_values() {
        // A small linear congruential walk covers merges, extensions and duplicates.
        let mut x = 7u64;
        let (mut ranges, mut model) = (RangeSet::default(), BTreeSet::new());
        for _ in 0..2_000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = (x >> 33) % 300;
            assert_eq!(ranges.contains(value), model.contains(&value));
            let expected = if model.insert(value) { Inserted::New } else { Inserted::Duplicate };
            assert_eq!(ranges.insert(value), expected);
            assert_eq!(ranges.first(), model.first().copied());
            ranges.check_invariants();
        }
        let flat: Vec<u64> = ranges.0.iter().flat_map(|&(a, b)| a..b).collect();
        assert_eq!(flat, model.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn gaps_lie_between_ranges_and_long_ones_are_split() {
        let mut ranges = RangeSet::default();
        for v in [3, 5, 6, 100_000] {
            ranges.insert(v);
        }
        let (gaps, below) = ranges.gaps(1).unwrap();
        let gaps: Vec<_> = gaps.iter().map(|g| (g.start, g.length)).collect();
        assert_eq!(gaps, [(1, 2), (4, 1), (7, 65_535), (65_542, 34_458)]);
        assert_eq!((below, ranges.end()), (100_001, Some(100_001)));
        let (gaps, below) = ranges.gaps(5).unwrap();
        assert_eq!((gaps[0].start, gaps.len(), below), (7, 2, 100_001));
        assert_eq!((ranges.gaps(100_000), ranges.gaps(100_001)), (None, None));
        assert_eq!(ranges.take_from(2), None);
        assert_eq!(ranges.take_from(3), Some(4));
    }

    #[test]
    fn reports_that_follow_each_other_describe_everything() {
        let mut ranges = RangeSet::default();
        for value in (1..400).step_by(2).chain([200_000]) {
            assert_eq!(ranges.insert(value), Inserted::New);
        }
        let (mut from, mut missing) = (0, 0);
        while let Some((gaps, below)) = ranges.gaps(from) {
            assert!(gaps.len() <= MAX_NACK_GAPS && below > from);
            missing += gaps.iter().map(|g| u64::from(g.length)).sum::<u64>();
            from = below;
        }
        assert_eq!((from, missing), (200_001, 200_000 - 200));
    }

    #[test]
    fn a_flood_of_gaps_is_refused() {
        let mut ranges = RangeSet::default();
        for i in 0..MAX_RANGES as u64 {
            assert_eq!(ranges.insert(i * 2), Inserted::New);
        }
        assert_eq!(ranges.insert(1_000_000), Inserted::NoRoom);
        assert_eq!(ranges.insert(1), Inserted::New);
    }
}
