//! When the state is made durable: what has gathered since the last checkpoint, and the member's turn.
//!
//! A checkpoint that is due by number or by memory is announced once; the next one is announced after
//! [`CheckpointTrigger::begin`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::config::CheckpointPolicy;

/// What a crash now would cost, and what memory holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backlog {
    /// Bytes of log since the last checkpoint.
    pub(super) log_bytes: u64,
    /// Memory that a checkpoint begun now frees, about.
    pub(super) memory_bytes: usize,
    /// Entries that are applied and not durable in the state's file.
    pub(super) entries: u64,
    /// Since when there is a change that only the log holds.
    pub(super) age: Duration,
}

impl CheckpointPolicy {
    /// Whether a checkpoint is due by size or age. By number it is due at the member's turn.
    pub(super) fn is_due(&self, backlog: &Backlog) -> bool {
        backlog.log_bytes >= self.log_bytes
            || backlog.memory_bytes >= self.memory_bytes
            || (backlog.entries > 0 && backlog.age >= self.age)
    }
}

/// The next index after `applied` at which it is the member's turn for a checkpoint, half of `period`
/// later at the least. Members apply the same entries at the same time: without turns all of them
/// would write at once, and no majority would be left that is quick.
fn next_turn(applied: u64, period: u64, member: u64) -> u64 {
    // Multiples of the golden ratio spread over the period, however many there are (Knuth, TAOCP 3,
    // section 6.4).
    let share = u128::from(member.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let period = u128::from(period.max(1));
    let phase = (share * period) >> 64;
    let earliest = u128::from(applied) + period / 2;
    let wait = (phase + period - earliest % period) % period;
    u64::try_from(earliest + wait).unwrap_or(u64::MAX)
}

/// Notices while batches are applied that a checkpoint is due.
pub(super) struct CheckpointTrigger {
    policy: CheckpointPolicy,
    member: u64,
    /// Index from which on one is due.
    due_at: AtomicU64,
    /// Whether memory was above the bound after the last batch.
    was_large: AtomicBool,
    /// Whether something was applied since the last look.
    is_dirty: AtomicBool,
    due: Notify,
}

impl CheckpointTrigger {
    /// For `member`, whose state's file holds all entries before `durable_next`.
    pub(super) fn new(policy: CheckpointPolicy, member: u64, durable_next: u64) -> Self {
        let due_at = AtomicU64::new(next_turn(durable_next, policy.entries, member));
        let (was_large, is_dirty) = (AtomicBool::new(false), AtomicBool::new(true));
        Self { policy, member, due_at, was_large, is_dirty, due: Notify::new() }
    }

    /// Takes in that entries up to `index` are applied. Does not block.
    pub(super) fn note(&self, index: u64, memory_bytes: usize) {
        self.is_dirty.store(true, Ordering::Relaxed);
        let is_long = index >= self.due_at.load(Ordering::Relaxed);
        let is_large = memory_bytes >= self.policy.memory_bytes;
        let was_large = self.was_large.swap(is_large, Ordering::Relaxed);
        if is_long || (is_large && !was_large) {
            self.due_at.store(u64::MAX, Ordering::Relaxed);
            self.due.notify_one();
        }
    }

    /// Waits until a checkpoint is announced. For one task.
    pub(super) async fn due(&self) {
        self.due.notified().await;
    }

    /// Whether something was applied since the last call.
    pub(super) fn take_dirty(&self) -> bool {
        self.is_dirty.swap(false, Ordering::Relaxed)
    }

    /// Begins a checkpoint of the state as of entry `applied`.
    pub(super) fn begin(&self, applied: u64) {
        let next = next_turn(applied, self.policy.entries, self.member);
        self.due_at.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_checkpoint_is_due_by_size_or_age() {
        let policy = CheckpointPolicy::default();
        let none = Backlog { log_bytes: 0, memory_bytes: 0, entries: 1, age: Duration::ZERO };
        for (backlog, is_due) in [
            (none, false),
            (Backlog { log_bytes: policy.log_bytes, ..none }, true),
            (Backlog { memory_bytes: policy.memory_bytes, ..none }, true),
            (Backlog { age: policy.age, ..none }, true),
            (Backlog { age: policy.age, entries: 0, ..none }, false),
        ] {
            assert_eq!(policy.is_due(&backlog), is_due, "{backlog:?}");
        }
    }

    #[test]
    fn a_due_checkpoint_is_announced_once_until_it_begins() {
        let policy = CheckpointPolicy { entries: 100, ..CheckpointPolicy::default() };
        let trigger = CheckpointTrigger::new(policy, 1, 0);
        let is_announced = || trigger.due().now_or_never().is_some();
        let turn = next_turn(0, 100, 1);
        trigger.note(turn - 1, 0);
        assert!(!is_announced());
        trigger.note(turn, 0);
        assert!(is_announced());
        trigger.note(turn + 1, 0);
        assert!(!is_announced());
        trigger.begin(turn + 1);
        trigger.note(turn + 2, 0);
        assert!(!is_announced(), "not its turn again");
        for (bytes, expected) in [(policy.memory_bytes, true), (policy.memory_bytes, false)] {
            trigger.note(turn + 3, bytes);
            assert_eq!(is_announced(), expected);
        }
        trigger.note(turn + 4, 0);
        trigger.note(turn + 5, policy.memory_bytes);
        assert!(is_announced(), "memory was freed meanwhile");
        assert!(trigger.take_dirty());
        assert!(!trigger.take_dirty());
    }

    #[test]
    fn members_take_turns_far_from_each_other() {
        const PERIOD: u64 = 50_000;
        for count in 3..=7 {
            let mut turns: Vec<u64> =
                (1..=count).map(|n| next_turn(0, PERIOD, n) % PERIOD).collect();
            turns.sort_unstable();
            turns.push(turns[0] + PERIOD);
            let nearest = turns.windows(2).map(|pair| pair[1] - pair[0]).min();
            assert!(nearest >= Some(PERIOD / (2 * count)), "{count} members: {turns:?}");
        }
    }

    #[test]
    fn turns_come_once_a_period_and_not_too_soon() {
        for member in [1, 2, 3, u64::MAX] {
            for applied in [0, 1, 49_999, 123_456] {
                let turn = next_turn(applied, 50_000, member);
                assert!((applied + 25_000..applied + 75_000).contains(&turn));
                assert_eq!(next_turn(turn, 50_000, member), turn + 50_000);
            }
        }
        assert_eq!(next_turn(7, 0, 3), 7);
        assert_eq!(next_turn(u64::MAX, u64::MAX, u64::MAX), u64::MAX);
    }
}
