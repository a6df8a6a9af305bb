//! The replay window: which packet counters of a direction were already accepted.
//!
//! After RFC 6479: a ring of 64-bit words, so that sliding clears whole words and never shifts.
//! Invariants: a counter is committed only after its packet's tag was verified; `check` changes
//! nothing; a counter at or below `newest - 1024` is never accepted again.

use net_types::limits::{MAX_COUNTER_JUMP, REPLAY_WINDOW};

const WORD_BITS: u64 = 64;
/// One word more than the window, so that the oldest accepted bit and the newest never share one.
const WORDS: usize = 17;

const _: () = assert!(REPLAY_WINDOW.is_multiple_of(WORD_BITS));
const _: () = assert!(WORDS as u64 == REPLAY_WINDOW / WORD_BITS + 1);

/// Why a packet's counter is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The counter `u64::MAX`, which no sender reaches.
    #[error("the packet counter is the reserved maximum")]
    Reserved,
    /// The counter was accepted before.
    #[error("the packet counter was already accepted")]
    Duplicate,
    /// The counter fell out of the window, so it is unknown whether it was accepted.
    #[error("the packet counter is older than the replay window")]
    TooOld,
    /// The counter is more than [`MAX_COUNTER_JUMP`] ahead of the newest one; if only such packets
    /// arrive the session needs a new handshake.
    #[error("the packet counter jumps too far ahead")]
    Jump,
}

/// Accepted counters of one direction of a session: 144 bytes, every operation O(1).
#[derive(Clone)]
pub struct ReplayWindow {
    /// One more than the newest committed counter; 0 before the first.
    next: u64,
    /// Bit `c % 64` of word `c / 64 % WORDS` is counter `c`; words outside the window are stale.
    words: [u64; WORDS],
}

fn place(counter: u64) -> (usize, u64) {
    ((counter / WORD_BITS % WORDS as u64) as usize, 1 << (counter % WORD_BITS))
}

impl ReplayWindow {
    /// A window that accepted nothing yet.
    pub const fn new() -> Self {
        Self { next: 0, words: [0; WORDS] }
    }

    /// Asserts that the newest counter is marked, and that nothing is before the first.
    pub fn check_invariants(&self) {
        match self.newest().map(place) {
            Some((word, bit)) => assert_ne!(self.words[word] & bit, 0, "the newest is not marked"),
            None => assert_eq!(self.words, [0; WORDS]),
        }
    }

    /// The newest committed counter.
    pub const fn newest(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    /// Whether `counter` could be accepted; for use before and after the cipher.
    #[inline]
    pub fn check(&self, counter: u64) -> Result<(), ReplayError> {
        if counter >= self.next {
            return match counter {
                u64::MAX => Err(ReplayError::Reserved),
                _ if counter - self.next >= MAX_COUNTER_JUMP => Err(ReplayError::Jump),
                _ => Ok(()),
            };
        }
        if self.next - counter > REPLAY_WINDOW {
            return Err(ReplayError::TooOld);
        }
        let (word, bit) = place(counter);
        if self.words[word] & bit == 0 { Ok(()) } else { Err(ReplayError::Duplicate) }
    }

    /// Marks `counter`, whose packet was authenticated and passed [`Self::check`], as accepted and
    /// slides the window when it is the newest. A counter below the window changes nothing.
    #[inline]
    pub fn commit(&mut self, counter: u64) {
        if counter == u64::MAX || self.next.saturating_sub(counter) > REPLAY_WINDOW {
            return;
        }
        if counter >= self.next {
            self.slide_to(counter);
        }
        let (word, bit) = place(counter);
        self.words[word] |= bit;
    }

    fn slide_to(&mut self, counter: u64) {
        let newest_word = counter / WORD_BITS;
        // Before the first packet word 0 is current and clear.
        let current_word = self.next.saturating_sub(1) / WORD_BITS;
        let entered = (newest_word - current_word).min(WORDS as u64);
        for i in 0..entered {
            self.words[((newest_word - i) % WORDS as u64) as usize] = 0;
        }
        self.next = counter + 1;
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for ReplayWindow {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ReplayWindow").field("newest", &self.newest()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn accept(window: &mut ReplayWindow, counter: u64) -> Result<(), ReplayError> {
        window.check(counter)?;
        window.commit(counter);
        Ok(())
    }

    #[test]
    fn a_counter_is_accepted_once() {
        let mut window = ReplayWindow::new();
        assert_eq!(window.newest(), None);
        assert_eq!(accept(&mut window, 0), Ok(()));
        assert_eq!(accept(&mut window, 0), Err(ReplayError::Duplicate));
        assert_eq!(accept(&mut window, 2), Ok(()));
        assert_eq!(accept(&mut window, 1), Ok(()));
        assert_eq!(accept(&mut window, 1), Err(ReplayError::Duplicate));
        assert_eq!(window.newest(), Some(2));
    }

    #[test]
    fn checking_changes_nothing() {
        let mut window = ReplayWindow::new();
        window.commit(5_000);
        for counter in [0, 3_976, 3_977, 4_999, 5_000, 5_001, 80_000, u64::MAX] {
            let before = window.clone();
            let _ = window.check(counter);
            assert_eq!((before.next, before.words), (window.next, window.words));
        }
    }

    #[test]
    fn the_window_is_exactly_1024_wide() {
        let mut window = ReplayWindow::new();
        window.commit(5_000);
        assert_eq!(window.check(5_000 - 1_023), Ok(()));
        assert_eq!(window.check(5_000 - 1_024), Err(ReplayError::TooOld));
        window.commit(5_000 - 1_024);
        assert_eq!(window.check(5_000 - 1_023), Ok(()), "an old commit marks no other counter");
    }

    #[test]
    fn jumps_beyond_the_limit_are_told_apart() {
        let mut window = ReplayWindow::new();
        assert_eq!(window.check(MAX_COUNTER_JUMP - 1), Ok(()));
        assert_eq!(window.check(MAX_COUNTER_JUMP), Err(ReplayError::Jump));
        window.commit(10);
        assert_eq!(window.check(10 + MAX_COUNTER_JUMP), Ok(()));
        assert_eq!(window.check(11 + MAX_COUNTER_JUMP), Err(ReplayError::Jump));
        assert_eq!(window.check(u64::MAX), Err(ReplayError::Reserved));
    }

    #[test]
    fn everything_below_a_long_jump_stays_rejected() {
        let mut window = ReplayWindow::new();
        (0..100).for_each(|counter| window.commit(counter));
        window.commit(60_000);
        for counter in 0..=60_000 - REPLAY_WINDOW {
            assert_eq!(window.check(counter), Err(ReplayError::TooOld));
        }
        for counter in 60_001 - REPLAY_WINDOW..60_000 {
            assert_eq!(window.check(counter), Ok(()), "{counter} never arrived");
        }
    }

    #[test]
    fn the_last_counter_before_the_reserved_one_works() {
        let mut window = ReplayWindow::new();
        window.commit(u64::MAX - 1);
        assert_eq!(window.check(u64::MAX - 1), Err(ReplayError::Duplicate));
        assert_eq!(window.check(u64::MAX), Err(ReplayError::Reserved));
        assert_eq!(window.check(u64::MAX - 2), Ok(()));
        window.commit(u64::MAX);
        assert_eq!(window.newest(), Some(u64::MAX - 1));
    }

    /// The same rules over a set of all accepted counters.
    #[derive(Default)]
    struct Model {
        accepted: BTreeSet<u64>,
    }

    impl Model {
        fn accept(&mut self, counter: u64) -> Result<(), ReplayError> {
            if counter == u64::MAX {
                return Err(ReplayError::Reserved);
            }
            match self.accepted.last() {
                Some(&newest) if counter > newest && counter - newest > MAX_COUNTER_JUMP => {
                    return Err(ReplayError::Jump);
                }
                Some(&newest) if newest >= counter && newest - counter >= REPLAY_WINDOW => {
                    return Err(ReplayError::TooOld);
                }
                None if counter >= MAX_COUNTER_JUMP => return Err(ReplayError::Jump),
                _ => {}
            }
            if self.accepted.insert(counter) { Ok(()) } else { Err(ReplayError::Duplicate) }
        }
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set_of_all_counters(
            start in prop_oneof![Just(0u64), Just(u64::MAX - 200_000), any::<u64>()],
            steps in proptest::collection::vec(
                prop_oneof![
                    4 => -3i64..4,
                    4 => -1_100i64..1_100,
                    2 => 960i64..1_090,
                    1 => -70_000i64..70_000,
                ],
                1..400,
            ),
        ) {
            let mut window = ReplayWindow::new();
            let mut model = Model::default();
            let start = start.min(u64::MAX - 1);
            window.commit(start);
            model.accepted.insert(start);
            let mut at = start;
            for step in steps {
                let counter = at.saturating_add_signed(step);
                let expected = model.accept(counter);
                prop_assert_eq!(accept(&mut window, counter), expected, "counter {}", counter);
                if expected.is_ok() {
                    at = counter;
                }
            }
            prop_assert_eq!(window.newest(), model.accepted.last().copied());
        }
    }
}
